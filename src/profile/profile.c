/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define CHUNK_SIZE 65536

/* Makes room for `more` items at the end of a profile's array. Ids and spans have 32 bits. */
#define RESERVE(profile, array, count, more)                                                       \
	reserve(profile, &(profile)->array, &(profile)->index->capacity.array, (profile)->count,   \
		more, sizeof(*(profile)->array))

static bool reserve(struct cprof_profile *profile, void *array, size_t *capacity, size_t count,
		    size_t more, size_t size)
{
	if (more <= UINT32_MAX - 1 - count && cprof_grow(array, capacity, count + more, size))
		return true;
	profile->no_memory = true;
	return false;
}

/* Notes a new id, the last of its array, in its table; takes it back without memory. */
static uint32_t enter(struct cprof_profile *profile, struct cprof_table *table, uint64_t hash,
		      size_t *count)
{
	uint32_t id = (uint32_t)(*count)++;

	if (cprof_table_insert(table, hash, id))
		return id;
	profile->no_memory = true;
	(*count)--;
	return 0;
}

static bool reserve_none(struct cprof_profile *profile)
{
	if (!RESERVE(profile, strings, string_count, 1) ||
	    !RESERVE(profile, mappings, mapping_count, 1) ||
	    !RESERVE(profile, functions, function_count, 1) ||
	    !RESERVE(profile, locations, location_count, 1) ||
	    !RESERVE(profile, stacks, stack_count, 1) ||
	    !RESERVE(profile, label_sets, label_set_count, 1))
		return false;
	profile->mappings[profile->mapping_count++] = (struct cprof_profile_mapping){0};
	profile->functions[profile->function_count++] = (struct cprof_profile_function){0};
	profile->locations[profile->location_count++] = (struct cprof_profile_location){0};
	profile->stacks[profile->stack_count++] = (struct cprof_profile_span){0};
	profile->label_sets[profile->label_set_count++] = (struct cprof_profile_span){0};
	cprof_profile_string(profile, "");
	return !profile->no_memory;
}

struct cprof_error *cprof_profile_create(struct cprof_profile **profile)
{
	struct cprof_profile *made = calloc(1, sizeof(*made));

	*profile = NULL;
	if (!made)
		return cprof_error_nomem();
	made->index = calloc(1, sizeof(*made->index));
	if (!made->index || !reserve_none(made)) {
		cprof_profile_destroy(made);
		return cprof_error_nomem();
	}
	*profile = made;
	return NULL;
}

static void index_destroy(struct cprof_profile_index *index)
{
	if (!index)
		return;
	while (index->chunks) {
		struct cprof_profile_chunk *next = index->chunks->next;

		free(index->chunks);
		index->chunks = next;
	}
	cprof_table_deinit(&index->strings);
	cprof_table_deinit(&index->mappings);
	cprof_table_deinit(&index->functions);
	cprof_table_deinit(&index->locations);
	cprof_table_deinit(&index->lined);
	cprof_table_deinit(&index->stacks);
	cprof_table_deinit(&index->label_sets);
	cprof_table_deinit(&index->samples);
	free(index->label_scratch);
	free(index);
}

void cprof_profile_destroy(struct cprof_profile *profile)
{
	if (!profile)
		return;
	index_destroy(profile->index);
	free(profile->types);
	free(profile->comments);
	free(profile->strings);
	free(profile->mappings);
	free(profile->functions);
	free(profile->locations);
	free(profile->lines);
	free(profile->stacks);
	free(profile->stack_items);
	free(profile->label_sets);
	free(profile->label_items);
	free(profile->samples);
	free(profile->values);
	free(profile);
}

struct cprof_error *cprof_profile_check(const struct cprof_profile *profile)
{
	return profile->no_memory ? cprof_error_nomem() : NULL;
}

void cprof_profile_add_type(struct cprof_profile *profile, const char *type, const char *unit)
{
	if (!RESERVE(profile, types, type_count, 1))
		return;
	profile->types[profile->type_count++] = (struct cprof_value_type){
		.type = cprof_profile_string(profile, type),
		.unit = cprof_profile_string(profile, unit),
	};
}

void cprof_profile_add_comment(struct cprof_profile *profile, const char *text)
{
	if (!RESERVE(profile, comments, comment_count, 1))
		return;
	profile->comments[profile->comment_count++] = cprof_profile_string(profile, text);
}

/* A terminated copy that lives as long as the profile; NULL without memory. */
static char *keep_text(struct cprof_profile_index *index, const char *text, size_t length)
{
	char *copy;

	if (index->chunk_left < length + 1) {
		size_t size = CPROF_MAX(length + 1, CHUNK_SIZE);
		struct cprof_profile_chunk *chunk = malloc(sizeof(*chunk) + size);

		if (!chunk)
			return NULL;
		chunk->next = index->chunks;
		index->chunks = chunk;
		index->chunk_next = chunk->text;
		index->chunk_left = size;
	}
	copy = index->chunk_next;
	memcpy(copy, text, length);
	copy[length] = '\0';
	index->chunk_next += length + 1;
	index->chunk_left -= length + 1;
	return copy;
}

uint32_t cprof_profile_string_n(struct cprof_profile *profile, const char *text, size_t length)
{
	struct cprof_table *table = &profile->index->strings;
	uint64_t hash;
	char *copy;

	length = strnlen(text, length);
	hash = cprof_hash_bytes(text, length);
	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		const char *known = profile->strings[p.id];

		if (!strncmp(known, text, length) && !known[length])
			return p.id;
	}
	if (!RESERVE(profile, strings, string_count, 1))
		return 0;
	copy = keep_text(profile->index, text, length);
	if (!copy) {
		profile->no_memory = true;
		return 0;
	}
	profile->strings[profile->string_count] = copy;
	return enter(profile, table, hash, &profile->string_count);
}

uint32_t cprof_profile_string(struct cprof_profile *profile, const char *text)
{
	return cprof_profile_string_n(profile, text, strlen(text));
}

uint32_t cprof_profile_mapping(struct cprof_profile *profile,
			       const struct cprof_profile_mapping *mapping)
{
	const uint64_t key[] = {mapping->start, mapping->limit, mapping->offset, mapping->file,
				mapping->build_id};
	uint64_t hash = cprof_hash_bytes(key, sizeof(key));
	struct cprof_table *table = &profile->index->mappings;

	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		struct cprof_profile_mapping *known = &profile->mappings[p.id];

		if (known->start != mapping->start || known->limit != mapping->limit ||
		    known->offset != mapping->offset || known->file != mapping->file ||
		    known->build_id != mapping->build_id)
			continue;
		known->has_functions |= mapping->has_functions;
		known->has_filenames |= mapping->has_filenames;
		known->has_line_numbers |= mapping->has_line_numbers;
		known->has_inline_frames |= mapping->has_inline_frames;
		return p.id;
	}
	if (!RESERVE(profile, mappings, mapping_count, 1))
		return 0;
	profile->mappings[profile->mapping_count] = *mapping;
	return enter(profile, table, hash, &profile->mapping_count);
}

uint32_t cprof_profile_function(struct cprof_profile *profile,
				const struct cprof_profile_function *function)
{
	const uint64_t key[] = {function->name, function->system_name, function->file,
				(uint64_t)function->start_line};
	uint64_t hash = cprof_hash_bytes(key, sizeof(key));
	struct cprof_table *table = &profile->index->functions;

	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		const struct cprof_profile_function *known = &profile->functions[p.id];

		if (known->name == function->name && known->system_name == function->system_name &&
		    known->file == function->file && known->start_line == function->start_line)
			return p.id;
	}
	if (!RESERVE(profile, functions, function_count, 1))
		return 0;
	profile->functions[profile->function_count] = *function;
	return enter(profile, table, hash, &profile->function_count);
}

static uint32_t find_location(const struct cprof_profile *profile, uint32_t mapping,
			      uint64_t address, uint64_t *hash)
{
	const uint64_t key[] = {mapping, address};

	*hash = cprof_hash_bytes(key, sizeof(key));
	for (struct cprof_table_probe p = cprof_table_probe(*hash);
	     cprof_table_next(&profile->index->locations, &p);) {
		const struct cprof_profile_location *known = &profile->locations[p.id];

		if (known->mapping == mapping && known->address == address)
			return p.id;
	}
	return 0;
}

uint32_t cprof_profile_find_location(const struct cprof_profile *profile, uint32_t mapping,
				     uint64_t address)
{
	uint64_t hash;

	return find_location(profile, mapping, address, &hash);
}

uint32_t cprof_profile_location(struct cprof_profile *profile, uint32_t mapping, uint64_t address)
{
	uint64_t hash;
	uint32_t known = find_location(profile, mapping, address, &hash);

	if (known)
		return known;
	if (!RESERVE(profile, locations, location_count, 1))
		return 0;
	profile->locations[profile->location_count] = (struct cprof_profile_location){
		.mapping = mapping,
		.address = address,
	};
	return enter(profile, &profile->index->locations, hash, &profile->location_count);
}

void cprof_profile_set_lines(struct cprof_profile *profile, uint32_t location,
			     const struct cprof_profile_line *lines, size_t count)
{
	struct cprof_profile_location *target = &profile->locations[location];

	if (!location || !RESERVE(profile, lines, line_count, count))
		return;
	for (size_t i = 0; i < count; i++)
		profile->lines[profile->line_count + i] = lines[i];
	target->named = true;
	target->first_line = (uint32_t)profile->line_count;
	target->line_count = (uint32_t)count;
	profile->line_count += count;
}

static bool same_lines(const struct cprof_profile_line *a, const struct cprof_profile_line *b,
		       size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (a[i].function != b[i].function || a[i].line != b[i].line)
			return false;
	return true;
}

uint32_t cprof_profile_location_with(struct cprof_profile *profile, uint32_t mapping,
				     uint64_t address, const struct cprof_profile_line *lines,
				     size_t count, bool is_folded)
{
	uint64_t key[] = {mapping, address, is_folded, count, 0, 0};
	uint64_t hash = cprof_hash_bytes(key, sizeof(key));
	struct cprof_table *table = &profile->index->lined;
	uint32_t id;

	for (size_t i = 0; i < count; i++) {
		key[3] = hash;
		key[4] = lines[i].function;
		key[5] = (uint64_t)lines[i].line;
		hash = cprof_hash_bytes(key + 3, 3 * sizeof(*key));
	}
	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		const struct cprof_profile_location *known = &profile->locations[p.id];

		if (known->mapping == mapping && known->address == address &&
		    known->is_folded == is_folded && known->line_count == count &&
		    same_lines(profile->lines + known->first_line, lines, count))
			return p.id;
	}
	if (!RESERVE(profile, locations, location_count, 1))
		return 0;
	profile->locations[profile->location_count] = (struct cprof_profile_location){
		.mapping = mapping,
		.address = address,
		.is_folded = is_folded,
	};
	id = enter(profile, table, hash, &profile->location_count);
	cprof_profile_set_lines(profile, id, lines, count);
	return id;
}

uint32_t cprof_profile_marker(struct cprof_profile *profile, const char *name)
{
	uint32_t text = cprof_profile_string(profile, name);
	const struct cprof_profile_function function = {.name = text, .system_name = text};
	const struct cprof_profile_line line = {
		.function = cprof_profile_function(profile, &function),
	};

	return cprof_profile_location_with(profile, 0, 0, &line, 1, false);
}

static uint32_t find_stack(const struct cprof_profile *profile, const uint32_t *locations,
			   size_t count, uint64_t *hash)
{
	*hash = cprof_hash_bytes(locations, count * sizeof(*locations));
	for (struct cprof_table_probe p = cprof_table_probe(*hash);
	     cprof_table_next(&profile->index->stacks, &p);) {
		const struct cprof_profile_span *known = &profile->stacks[p.id];

		if (known->count == count && !memcmp(profile->stack_items + known->first, locations,
						     count * sizeof(*locations)))
			return p.id;
	}
	return 0;
}

uint32_t cprof_profile_find_stack(const struct cprof_profile *profile, const uint32_t *locations,
				  size_t count)
{
	uint64_t hash;

	return find_stack(profile, locations, count, &hash);
}

uint32_t cprof_profile_stack(struct cprof_profile *profile, const uint32_t *locations, size_t count)
{
	uint64_t hash;
	uint32_t known = find_stack(profile, locations, count, &hash);

	if (known || !count)
		return known;
	if (!RESERVE(profile, stacks, stack_count, 1) ||
	    !RESERVE(profile, stack_items, stack_item_count, count))
		return 0;
	memcpy(profile->stack_items + profile->stack_item_count, locations,
	       count * sizeof(*locations));
	profile->stacks[profile->stack_count] = (struct cprof_profile_span){
		.first = (uint32_t)profile->stack_item_count,
		.count = (uint32_t)count,
	};
	profile->stack_item_count += count;
	return enter(profile, &profile->index->stacks, hash, &profile->stack_count);
}

static int compare_labels(const void *a, const void *b)
{
	const struct cprof_profile_label *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	if (x->text != y->text)
		return x->text < y->text ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return (x->unit > y->unit) - (x->unit < y->unit);
}

static bool same_labels(const struct cprof_profile_label *a, const struct cprof_profile_label *b,
			size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (compare_labels(a + i, b + i))
			return false;
	return true;
}

uint32_t cprof_profile_labels(struct cprof_profile *profile,
			      const struct cprof_profile_label *labels, size_t count)
{
	struct cprof_profile_index *index = profile->index;
	struct cprof_table *table = &index->label_sets;
	struct cprof_profile_label *sorted;
	uint64_t hash = count;

	if (!count)
		return 0;
	if (!cprof_grow(&index->label_scratch, &index->label_scratch_capacity, count,
			sizeof(*labels)) ||
	    !RESERVE(profile, label_sets, label_set_count, 1) ||
	    !RESERVE(profile, label_items, label_item_count, count)) {
		profile->no_memory = true;
		return 0;
	}
	sorted = index->label_scratch;
	memcpy(sorted, labels, count * sizeof(*labels));
	qsort(sorted, count, sizeof(*sorted), compare_labels);
	for (size_t i = 0; i < count; i++) {
		const uint64_t key[] = {hash, sorted[i].key, sorted[i].text, sorted[i].unit,
					(uint64_t)sorted[i].number};

		hash = cprof_hash_bytes(key, sizeof(key));
	}
	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		const struct cprof_profile_span *known = &profile->label_sets[p.id];

		if (known->count == count &&
		    same_labels(profile->label_items + known->first, sorted, count))
			return p.id;
	}
	memcpy(profile->label_items + profile->label_item_count, sorted, count * sizeof(*sorted));
	profile->label_sets[profile->label_set_count] = (struct cprof_profile_span){
		.first = (uint32_t)profile->label_item_count,
		.count = (uint32_t)count,
	};
	profile->label_item_count += count;
	return enter(profile, table, hash, &profile->label_set_count);
}

static uint64_t sample_hash(uint32_t stack, uint32_t labels)
{
	return cprof_hash_u64((uint64_t)labels << 32 | stack);
}

static int64_t add_saturating(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return b < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

void cprof_profile_add(struct cprof_profile *profile, uint32_t stack, uint32_t labels,
		       const int64_t *values)
{
	uint64_t hash = sample_hash(stack, labels);
	struct cprof_table *table = &profile->index->samples;
	size_t width = profile->type_count;

	for (struct cprof_table_probe p = cprof_table_probe(hash); cprof_table_next(table, &p);) {
		const struct cprof_profile_sample *known = &profile->samples[p.id];
		int64_t *sums = profile->values + p.id * width;

		if (known->stack != stack || known->labels != labels)
			continue;
		for (size_t i = 0; i < width; i++)
			sums[i] = add_saturating(sums[i], values[i]);
		return;
	}
	if (!RESERVE(profile, samples, sample_count, 1) ||
	    !cprof_grow(&profile->values, &profile->index->capacity.values,
			(profile->sample_count + 1) * width, sizeof(*values))) {
		profile->no_memory = true;
		return;
	}
	profile->samples[profile->sample_count] = (struct cprof_profile_sample){
		.stack = stack,
		.labels = labels,
	};
	for (size_t i = 0; i < width; i++)
		profile->values[profile->sample_count * width + i] = values[i];
	enter(profile, table, hash, &profile->sample_count);
}

void cprof_profile_drop_zero(struct cprof_profile *profile)
{
	size_t width = profile->type_count;
	size_t kept = 0;

	for (size_t i = 0; i < profile->sample_count; i++) {
		int64_t *values = profile->values + i * width;
		bool zero = true;

		for (size_t j = 0; j < width && zero; j++)
			zero = values[j] == 0;
		if (zero)
			continue;
		profile->samples[kept] = profile->samples[i];
		memmove(profile->values + kept * width, values, width * sizeof(*values));
		kept++;
	}
	if (kept == profile->sample_count)
		return;
	profile->sample_count = kept;
	cprof_table_deinit(&profile->index->samples);
	for (uint32_t i = 0; i < kept; i++)
		if (!cprof_table_insert(
			    &profile->index->samples,
			    sample_hash(profile->samples[i].stack, profile->samples[i].labels), i))
			profile->no_memory = true;
}

int cprof_profile_find_type(const struct cprof_profile *profile, const char *type)
{
	for (size_t i = 0; i < profile->type_count; i++)
		if (!strcmp(profile->strings[profile->types[i].type], type))
			return (int)i;
	return -1;
}

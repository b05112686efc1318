/* SPDX-License-Identifier: MIT
 *
 * An exact copy: every id stays what it is. A live session copies its profile under its lock, so
 * this is a few memcpy() and no interning.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

/* False without memory. */
static bool copy_array(void *from, size_t count, size_t size, void *to, size_t *capacity)
{
	void *copy = NULL;

	if (count) {
		copy = malloc(count * size);
		if (!copy)
			return false;
		memcpy(copy, from, count * size);
	}
	memcpy(to, &copy, sizeof(copy)); /* a pointer, whatever to */
	*capacity = count;
	return true;
}

static bool copy_table(const struct cprof_table *from, struct cprof_table *to)
{
	if (!copy_array(from->slots, from->capacity, sizeof(*from->slots), &to->slots,
			&to->capacity))
		return false;
	to->count = from->count;
	return true;
}

static bool copy_tables(const struct cprof_profile_index *from, struct cprof_profile_index *to)
{
	return copy_table(&from->strings, &to->strings) &&
	       copy_table(&from->mappings, &to->mappings) &&
	       copy_table(&from->functions, &to->functions) &&
	       copy_table(&from->locations, &to->locations) &&
	       copy_table(&from->lined, &to->lined) && copy_table(&from->stacks, &to->stacks) &&
	       copy_table(&from->label_sets, &to->label_sets) &&
	       copy_table(&from->samples, &to->samples);
}

/* All texts into one chunk. */
static bool copy_strings(const struct cprof_profile *from, struct cprof_profile *to)
{
	struct cprof_profile_chunk *chunk;
	size_t size = 0;
	char *next;

	for (size_t i = 0; i < from->string_count; i++)
		size += strlen(from->strings[i]) + 1;
	chunk = malloc(sizeof(*chunk) + size);
	to->strings = calloc(from->string_count, sizeof(*to->strings));
	if (!chunk || !to->strings) {
		free(chunk);
		return false;
	}
	chunk->next = NULL;
	to->index->chunks = chunk;
	next = chunk->text;
	for (size_t i = 0; i < from->string_count; i++) {
		to->strings[i] = next;
		next = stpcpy(next, from->strings[i]) + 1;
	}
	to->string_count = to->index->capacity.strings = from->string_count;
	return true;
}

#define COPY(array, count)                                                                         \
	(copy_array(from->array, from->count, sizeof(*from->array), &to->array,                    \
		    &to->index->capacity.array) &&                                                 \
	 ((to->count = from->count), true))

static bool copy_arrays(const struct cprof_profile *from, struct cprof_profile *to)
{
	return COPY(types, type_count) && COPY(comments, comment_count) &&
	       COPY(mappings, mapping_count) && COPY(functions, function_count) &&
	       COPY(locations, location_count) && COPY(lines, line_count) &&
	       COPY(stacks, stack_count) && COPY(stack_items, stack_item_count) &&
	       COPY(label_sets, label_set_count) && COPY(label_items, label_item_count) &&
	       COPY(samples, sample_count) &&
	       copy_array(from->values, from->sample_count * from->type_count,
			  sizeof(*from->values), &to->values, &to->index->capacity.values);
}

struct cprof_error *cprof_profile_clone(const struct cprof_profile *from,
					struct cprof_profile **copy)
{
	struct cprof_profile *to;

	*copy = NULL;
	CPROF_TRY(cprof_profile_check(from));
	to = calloc(1, sizeof(*to));
	if (!to)
		return cprof_error_nomem();
	to->index = calloc(1, sizeof(*to->index));
	if (!to->index || !copy_strings(from, to) || !copy_arrays(from, to) ||
	    !copy_tables(from->index, to->index)) {
		cprof_profile_destroy(to);
		return cprof_error_nomem();
	}
	to->period_type = from->period_type;
	to->period = from->period;
	to->time_ns = from->time_ns;
	to->duration_ns = from->duration_ns;
	to->default_type = from->default_type;
	to->drop_frames = from->drop_frames;
	to->keep_frames = from->keep_frames;
	*copy = to;
	return NULL;
}

struct cprof_error *cprof_profile_select(const struct cprof_profile *source, const bool *keep,
					 struct cprof_profile **copy)
{
	size_t width = source->type_count;

	CPROF_TRY(cprof_profile_clone(source, copy));
	for (size_t i = 0; i < source->sample_count; i++)
		if (!keep[i])
			memset((*copy)->values + i * width, 0, width * sizeof(*source->values));
	cprof_profile_drop_zero(*copy);
	return cprof_profile_check(*copy);
}

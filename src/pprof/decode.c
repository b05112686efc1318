/* SPDX-License-Identifier: MIT */
#include "arena.h"
#include "unpack.h"

#include "profile.pb-c.h"
#include <cprof/pprof.h>
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* Unpacked messages take about ten times their packed bytes; a file made to need more is refused.
 */
#define MEMORY_RATIO 24
#define MEMORY_EXTRA ((size_t)64 << 20)
#define MEMORY_MAX   ((size_t)4 << 30)

/* Ids of one kind of message. They should be 1..N, but any numbers are allowed. */
struct ids {
	struct id_pair {
		uint64_t id;
		uint32_t model; /* id in our profile */
	} * pairs;
	size_t count;
	bool dense; /* pair i has id i + 1 */
};

struct decoder {
	const Perftools__Profiles__Profile *message;
	struct cprof_profile *profile;
	struct cprof_arena *arena;
	uint32_t *strings; /* index in the file to string id */
	struct ids mappings;
	struct ids functions;
	struct ids locations;
	void *scratch; /* lines, stack items or labels of one message */
	size_t scratch_capacity;
};

static void *arena_alloc(void *arena, size_t size)
{
	return cprof_arena_take(arena, size);
}

static void arena_free(void *arena, void *pointer)
{
	(void)arena;
	(void)pointer;
}

static int compare_pairs(const void *a, const void *b)
{
	const struct id_pair *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* After all pairs are in: makes them searchable. */
static struct cprof_error *ids_finish(struct ids *ids, const char *kind)
{
	ids->dense = true;
	for (size_t i = 0; i < ids->count; i++) {
		if (!ids->pairs[i].id)
			return cprof_not_a_profile("a %s has the id 0", kind);
		ids->dense &= ids->pairs[i].id == i + 1;
	}
	if (ids->dense)
		return NULL;
	qsort(ids->pairs, ids->count, sizeof(*ids->pairs), compare_pairs);
	for (size_t i = 1; i < ids->count; i++)
		if (ids->pairs[i].id == ids->pairs[i - 1].id)
			return cprof_not_a_profile("two %ss have the id %" PRIu64, kind,
						   ids->pairs[i].id);
	return NULL;
}

static bool ids_find(const struct ids *ids, uint64_t id, uint32_t *model)
{
	const struct id_pair key = {.id = id};
	const struct id_pair *pair = NULL;

	if (ids->dense && id && id <= ids->count)
		pair = &ids->pairs[id - 1];
	else if (!ids->dense)
		pair = bsearch(&key, ids->pairs, ids->count, sizeof(key), compare_pairs);
	if (pair)
		*model = pair->model;
	return pair;
}

static struct cprof_error *ids_init(struct decoder *decoder, struct ids *ids, size_t count)
{
	ids->count = count;
	ids->pairs = cprof_arena_array(decoder->arena, count, sizeof(*ids->pairs));
	return ids->pairs ? NULL : cprof_error_nomem();
}

static struct cprof_error *take_string(const struct decoder *decoder, int64_t index, uint32_t *id)
{
	if (index < 0 || (uint64_t)index >= decoder->message->n_string_table)
		return cprof_not_a_profile("string %" PRId64 " of %zu", index,
					   decoder->message->n_string_table);
	*id = decoder->strings[index];
	return NULL;
}

static struct cprof_error *take_strings(struct decoder *decoder)
{
	size_t count = decoder->message->n_string_table;

	if (!count || *decoder->message->string_table[0])
		return cprof_not_a_profile("its string table does not begin with an empty string");
	decoder->strings = cprof_arena_array(decoder->arena, count, sizeof(*decoder->strings));
	if (!decoder->strings)
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++)
		decoder->strings[i] =
			cprof_profile_string(decoder->profile, decoder->message->string_table[i]);
	return NULL;
}

static struct cprof_error *take_value_type(const struct decoder *decoder,
					   const Perftools__Profiles__ValueType *from,
					   struct cprof_value_type *type)
{
	CPROF_TRY(take_string(decoder, from->type, &type->type));
	return take_string(decoder, from->unit, &type->unit);
}

static struct cprof_error *take_header(struct decoder *decoder)
{
	const Perftools__Profiles__Profile *message = decoder->message;
	struct cprof_profile *profile = decoder->profile;
	struct cprof_value_type type = {0, 0};
	uint32_t text = 0;

	if (!message->n_sample_type)
		return cprof_not_a_profile("it has no sample types");
	for (size_t i = 0; i < message->n_sample_type; i++) {
		CPROF_TRY(take_value_type(decoder, message->sample_type[i], &type));
		cprof_profile_add_type(profile, profile->strings[type.type],
				       profile->strings[type.unit]);
	}
	if (message->period_type)
		CPROF_TRY(take_value_type(decoder, message->period_type, &profile->period_type));
	profile->period = message->period;
	profile->time_ns = message->time_nanos;
	profile->duration_ns = message->duration_nanos;
	CPROF_TRY(take_string(decoder, message->default_sample_type, &profile->default_type));
	CPROF_TRY(take_string(decoder, message->drop_frames, &profile->drop_frames));
	CPROF_TRY(take_string(decoder, message->keep_frames, &profile->keep_frames));
	for (size_t i = 0; i < message->n_comment; i++) {
		CPROF_TRY(take_string(decoder, message->comment[i], &text));
		cprof_profile_add_comment(profile, profile->strings[text]);
	}
	return NULL;
}

static struct cprof_error *take_mappings(struct decoder *decoder)
{
	const Perftools__Profiles__Profile *message = decoder->message;

	CPROF_TRY(ids_init(decoder, &decoder->mappings, message->n_mapping));
	for (size_t i = 0; i < message->n_mapping; i++) {
		const Perftools__Profiles__Mapping *from = message->mapping[i];
		struct cprof_profile_mapping mapping = {
			.start = from->memory_start,
			.limit = from->memory_limit,
			.offset = from->file_offset,
			.has_functions = from->has_functions,
			.has_filenames = from->has_filenames,
			.has_line_numbers = from->has_line_numbers,
			.has_inline_frames = from->has_inline_frames,
		};

		CPROF_TRY(take_string(decoder, from->filename, &mapping.file));
		CPROF_TRY(take_string(decoder, from->build_id, &mapping.build_id));
		decoder->mappings.pairs[i] = (struct id_pair){
			.id = from->id,
			.model = cprof_profile_mapping(decoder->profile, &mapping),
		};
	}
	return ids_finish(&decoder->mappings, "mapping");
}

static struct cprof_error *take_functions(struct decoder *decoder)
{
	const Perftools__Profiles__Profile *message = decoder->message;

	CPROF_TRY(ids_init(decoder, &decoder->functions, message->n_function));
	for (size_t i = 0; i < message->n_function; i++) {
		const Perftools__Profiles__Function *from = message->function[i];
		struct cprof_profile_function function = {.start_line = from->start_line};

		CPROF_TRY(take_string(decoder, from->name, &function.name));
		CPROF_TRY(take_string(decoder, from->system_name, &function.system_name));
		CPROF_TRY(take_string(decoder, from->filename, &function.file));
		decoder->functions.pairs[i] = (struct id_pair){
			.id = from->id,
			.model = cprof_profile_function(decoder->profile, &function),
		};
	}
	return ids_finish(&decoder->functions, "function");
}

static struct cprof_error *need_scratch(struct decoder *decoder, size_t count, size_t size)
{
	/* The messages are in memory already: no overflow. */
	return cprof_grow(&decoder->scratch, &decoder->scratch_capacity, count * size, 1)
		       ? NULL
		       : cprof_error_nomem();
}

static struct cprof_error *take_location(struct decoder *decoder,
					 const Perftools__Profiles__Location *from,
					 struct id_pair *pair)
{
	struct cprof_profile_line *lines;
	uint32_t mapping = 0;

	if (from->mapping_id && !ids_find(&decoder->mappings, from->mapping_id, &mapping))
		return cprof_not_a_profile("a location has the unknown mapping %" PRIu64,
					   from->mapping_id);
	CPROF_TRY(need_scratch(decoder, from->n_line, sizeof(*lines)));
	lines = decoder->scratch;
	for (size_t i = 0; i < from->n_line; i++) {
		lines[i] = (struct cprof_profile_line){.line = from->line[i]->line};
		if (from->line[i]->function_id &&
		    !ids_find(&decoder->functions, from->line[i]->function_id, &lines[i].function))
			return cprof_not_a_profile("a location has the unknown function %" PRIu64,
						   from->line[i]->function_id);
	}
	pair->id = from->id;
	if (from->n_line || from->is_folded)
		pair->model = cprof_profile_location_with(decoder->profile, mapping, from->address,
							  lines, from->n_line, from->is_folded);
	else
		pair->model = cprof_profile_location(decoder->profile, mapping, from->address);
	return NULL;
}

static struct cprof_error *take_locations(struct decoder *decoder)
{
	const Perftools__Profiles__Profile *message = decoder->message;

	CPROF_TRY(ids_init(decoder, &decoder->locations, message->n_location));
	for (size_t i = 0; i < message->n_location; i++)
		CPROF_TRY(
			take_location(decoder, message->location[i], &decoder->locations.pairs[i]));
	return ids_finish(&decoder->locations, "location");
}

static struct cprof_error *take_labels(struct decoder *decoder,
				       const Perftools__Profiles__Sample *from, uint32_t *id)
{
	struct cprof_profile_label *labels;

	CPROF_TRY(need_scratch(decoder, from->n_label, sizeof(*labels)));
	labels = decoder->scratch;
	for (size_t i = 0; i < from->n_label; i++) {
		labels[i] = (struct cprof_profile_label){.number = from->label[i]->num};
		CPROF_TRY(take_string(decoder, from->label[i]->key, &labels[i].key));
		CPROF_TRY(take_string(decoder, from->label[i]->str, &labels[i].text));
		CPROF_TRY(take_string(decoder, from->label[i]->num_unit, &labels[i].unit));
	}
	*id = cprof_profile_labels(decoder->profile, labels, from->n_label);
	return NULL;
}

static struct cprof_error *take_sample(struct decoder *decoder,
				       const Perftools__Profiles__Sample *from)
{
	uint32_t stack, labels;
	uint32_t *items;

	if (from->n_value != decoder->profile->type_count)
		return cprof_not_a_profile("a sample has %zu values for %zu types", from->n_value,
					   decoder->profile->type_count);
	CPROF_TRY(need_scratch(decoder, from->n_location_id, sizeof(*items)));
	items = decoder->scratch;
	for (size_t i = 0; i < from->n_location_id; i++)
		if (!ids_find(&decoder->locations, from->location_id[i], &items[i]))
			return cprof_not_a_profile("a sample has the unknown location %" PRIu64,
						   from->location_id[i]);
	stack = cprof_profile_stack(decoder->profile, items, from->n_location_id);
	CPROF_TRY(take_labels(decoder, from, &labels));
	cprof_profile_add(decoder->profile, stack, labels, from->value);
	return NULL;
}

static struct cprof_error *take_message(struct decoder *decoder)
{
	CPROF_TRY(take_strings(decoder));
	CPROF_TRY(take_header(decoder));
	CPROF_TRY(take_mappings(decoder));
	CPROF_TRY(take_functions(decoder));
	CPROF_TRY(take_locations(decoder));
	for (size_t i = 0; i < decoder->message->n_sample; i++)
		CPROF_TRY(take_sample(decoder, decoder->message->sample[i]));
	return cprof_profile_check(decoder->profile);
}

static struct cprof_error *decode_plain(const void *bytes, size_t length,
					struct cprof_profile **profile)
{
	CPROF_CLEANUP(cprof_arena_deinit)
	struct cprof_arena arena = {
		.allowed = CPROF_MIN(MEMORY_EXTRA + length * MEMORY_RATIO, MEMORY_MAX),
	};
	ProtobufCAllocator allocator = {
		.alloc = arena_alloc,
		.free = arena_free,
		.allocator_data = &arena,
	};
	struct decoder decoder = {.arena = &arena};
	struct cprof_error *error;

	if (!length)
		return cprof_not_a_profile("it is empty");
	decoder.message = perftools__profiles__profile__unpack(&allocator, length, bytes);
	if (!decoder.message && arena.exceeded)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "too large: needs more memory than a profile may");
	if (!decoder.message)
		return cprof_not_a_profile("neither gzip nor valid protobuf data");
	/* What the model needs beside the message is bounded by the message. */
	arena.allowed = SIZE_MAX;
	CPROF_TRY(cprof_profile_create(&decoder.profile));
	error = take_message(&decoder);
	free(decoder.scratch);
	if (error)
		cprof_profile_destroy(decoder.profile);
	else
		*profile = decoder.profile;
	return error;
}

struct cprof_error *cprof_pprof_decode(const void *bytes, size_t length,
				       struct cprof_profile **profile)
{
	CPROF_AUTO_FREE uint8_t *plain = NULL;
	size_t plain_length;

	*profile = NULL;
	if (length > CPROF_PPROF_MAX)
		return cprof_error_create(CPROF_FAILED, NULL, "too large: more than %llu MB",
					  CPROF_PPROF_MAX >> 20);
	if (!cprof_gzip_is(bytes, length))
		return decode_plain(bytes, length, profile);
	CPROF_TRY(cprof_gzip_unpack(bytes, length, &plain, &plain_length));
	return decode_plain(plain, plain_length, profile);
}

/* Reads to the end; one byte beyond CPROF_PPROF_MAX is enough to know. Returns 0 or an errno. */
static int read_all(int fd, uint8_t **bytes, size_t *length)
{
	size_t capacity = 0;
	struct stat status;

	*length = 0;
	if (!fstat(fd, &status) && S_ISREG(status.st_mode) && status.st_size > 0 &&
	    (uint64_t)status.st_size <= CPROF_PPROF_MAX &&
	    !cprof_grow(bytes, &capacity, (size_t)status.st_size + 1, 1))
		return ENOMEM;
	while (*length <= CPROF_PPROF_MAX) {
		ssize_t got;

		if (!cprof_grow(bytes, &capacity, CPROF_MAX(*length + 1, 65536), 1))
			return ENOMEM;
		got = read(fd, *bytes + *length, capacity - *length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno;
		if (!got)
			break;
		*length += (size_t)got;
	}
	return 0;
}

struct cprof_error *cprof_pprof_read(const char *path, struct cprof_profile **profile)
{
	bool is_stdin = !strcmp(path, "-");
	CPROF_AUTO_CLOSE int fd =
		is_stdin ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	const char *name = is_stdin ? "stdin" : path;
	CPROF_AUTO_FREE uint8_t *bytes = NULL;
	struct cprof_error *error, *named;
	size_t length;
	int errnum;

	*profile = NULL;
	if (fd < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "%s", name);
	errnum = read_all(fd, &bytes, &length);
	if (errnum)
		return cprof_error_errno(CPROF_FAILED, errnum, NULL, "%s", name);
	error = cprof_pprof_decode(bytes, length, profile);
	if (!error)
		return NULL;
	named = cprof_error_create(error->status, error->remedy, "%s: %s", name, error->message);
	cprof_error_destroy(error);
	return named;
}

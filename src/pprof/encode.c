/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include "profile.pb-c.h"
#include <cprof/pprof.h>
#include <cprof/util.h>
#include <string.h>
#include <zlib.h>

/* Ids of the model to ids of the file: only what samples refer to gets one, in the model's order.
 */
struct encoder {
	const struct cprof_profile *profile;
	struct cprof_profile *strings; /* its string table is the file's */
	struct cprof_arena arena;
	uint32_t *mapping_ids;
	uint32_t *location_ids;
	uint32_t *function_ids;
	uint32_t *string_ids; /* plus one */
	Perftools__Profiles__Profile message;
};

static void encoder_deinit(struct encoder *encoder)
{
	cprof_profile_destroy(encoder->strings);
	cprof_arena_deinit(&encoder->arena);
}

static struct cprof_error *encoder_init(struct encoder *encoder,
					const struct cprof_profile *profile)
{
	struct cprof_arena *arena = &encoder->arena;

	*encoder = (struct encoder){.profile = profile, .arena.allowed = SIZE_MAX};
	perftools__profiles__profile__init(&encoder->message);
	CPROF_TRY(cprof_profile_check(profile));
	CPROF_TRY(cprof_profile_create(&encoder->strings));
	encoder->mapping_ids = cprof_arena_array(arena, profile->mapping_count, sizeof(uint32_t));
	encoder->location_ids = cprof_arena_array(arena, profile->location_count, sizeof(uint32_t));
	encoder->function_ids = cprof_arena_array(arena, profile->function_count, sizeof(uint32_t));
	encoder->string_ids = cprof_arena_array(arena, profile->string_count, sizeof(uint32_t));
	return arena->exceeded ? cprof_error_nomem() : NULL;
}

/* Text is cleaned before it is interned, so that the table holds nothing twice. */
static int64_t put_string(struct encoder *encoder, uint32_t id)
{
	const char *text = encoder->profile->strings[id];
	char *clean;

	if (!encoder->string_ids[id]) {
		clean = cprof_text_clean_dup(text);
		if (!clean)
			encoder->arena.exceeded = true;
		else
			encoder->string_ids[id] = cprof_profile_string(encoder->strings, clean) + 1;
		free(clean);
	}
	return encoder->string_ids[id] ? encoder->string_ids[id] - 1 : 0;
}

/* Numbers those that are marked, from 1, in order. Returns how many there are. */
static size_t number(uint32_t *ids, size_t count)
{
	uint32_t last = 0;

	for (size_t i = 1; i < count; i++)
		if (ids[i])
			ids[i] = ++last;
	return last;
}

static void number_all(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;

	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_span *stack =
			&profile->stacks[profile->samples[i].stack];

		for (uint32_t j = 0; j < stack->count; j++)
			encoder->location_ids[profile->stack_items[stack->first + j]] = 1;
	}
	message->n_location = number(encoder->location_ids, profile->location_count);
	/* Readers take the first mapping for the main binary, whether it has samples or not. */
	if (profile->mapping_count > 1)
		encoder->mapping_ids[1] = 1;
	for (size_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];

		if (!encoder->location_ids[i])
			continue;
		encoder->mapping_ids[location->mapping] = 1;
		for (uint32_t j = 0; j < location->line_count; j++)
			encoder->function_ids[profile->lines[location->first_line + j].function] =
				1;
	}
	encoder->mapping_ids[0] = 0;
	encoder->function_ids[0] = 0;
	message->n_mapping = number(encoder->mapping_ids, profile->mapping_count);
	message->n_function = number(encoder->function_ids, profile->function_count);
}

/* An array of `count` messages of one type, initialized, and of pointers to them, which protobuf-c
 * wants; false without memory. */
#define MAKE_MESSAGES(encoder, pointers, count, init)                                              \
	({                                                                                         \
		size_t make_count_ = (count);                                                      \
		__typeof__(**(pointers)) *make_items_ =                                            \
			cprof_arena_array(&(encoder)->arena, make_count_, sizeof(*make_items_));   \
                                                                                                   \
		(pointers) =                                                                       \
			cprof_arena_array(&(encoder)->arena, make_count_, sizeof(*(pointers)));    \
		for (size_t make_i_ = 0; make_items_ && (pointers) && make_i_ < make_count_;       \
		     make_i_++) {                                                                  \
			init(&make_items_[make_i_]);                                               \
			(pointers)[make_i_] = &make_items_[make_i_];                               \
		}                                                                                  \
		make_items_ && (pointers);                                                         \
	})

static void put_value_type(struct encoder *encoder, Perftools__Profiles__ValueType *message,
			   const struct cprof_value_type *type)
{
	message->type = put_string(encoder, type->type);
	message->unit = put_string(encoder, type->unit);
}

static bool put_header(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;
	Perftools__Profiles__ValueType **period_type;

	message->n_sample_type = profile->type_count;
	message->n_comment = profile->comment_count;
	message->comment =
		cprof_arena_array(&encoder->arena, profile->comment_count, sizeof(int64_t));
	if (!MAKE_MESSAGES(encoder, message->sample_type, message->n_sample_type,
			   perftools__profiles__value_type__init) ||
	    !MAKE_MESSAGES(encoder, period_type, 1, perftools__profiles__value_type__init) ||
	    !message->comment)
		return false;
	for (size_t i = 0; i < profile->type_count; i++)
		put_value_type(encoder, message->sample_type[i], &profile->types[i]);
	if (profile->period_type.type || profile->period_type.unit) {
		message->period_type = *period_type;
		put_value_type(encoder, *period_type, &profile->period_type);
	}
	message->period = profile->period;
	message->time_nanos = profile->time_ns;
	message->duration_nanos = profile->duration_ns;
	message->default_sample_type = put_string(encoder, profile->default_type);
	message->drop_frames = put_string(encoder, profile->drop_frames);
	message->keep_frames = put_string(encoder, profile->keep_frames);
	for (size_t i = 0; i < profile->comment_count; i++)
		message->comment[i] = put_string(encoder, profile->comments[i]);
	return true;
}

static bool put_labels(struct encoder *encoder, Perftools__Profiles__Sample *message,
		       const struct cprof_profile_span *set)
{
	message->n_label = set->count;
	if (set->count &&
	    !MAKE_MESSAGES(encoder, message->label, set->count, perftools__profiles__label__init))
		return false;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct cprof_profile_label *label =
			&encoder->profile->label_items[set->first + i];

		message->label[i]->key = put_string(encoder, label->key);
		message->label[i]->str = put_string(encoder, label->text);
		message->label[i]->num = label->number;
		message->label[i]->num_unit = put_string(encoder, label->unit);
	}
	return true;
}

static bool put_samples(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;

	message->n_sample = profile->sample_count;
	if (!MAKE_MESSAGES(encoder, message->sample, message->n_sample,
			   perftools__profiles__sample__init))
		return false;
	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];
		const struct cprof_profile_span *stack = &profile->stacks[sample->stack];
		Perftools__Profiles__Sample *to = message->sample[i];

		to->n_value = profile->type_count;
		to->value = profile->values + i * profile->type_count;
		to->n_location_id = stack->count;
		to->location_id =
			cprof_arena_array(&encoder->arena, stack->count, sizeof(uint64_t));
		if (!to->location_id)
			return false;
		for (uint32_t j = 0; j < stack->count; j++)
			to->location_id[j] =
				encoder->location_ids[profile->stack_items[stack->first + j]];
		if (!put_labels(encoder, to, &profile->label_sets[sample->labels]))
			return false;
	}
	return true;
}

static bool put_mappings(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;

	if (!MAKE_MESSAGES(encoder, message->mapping, message->n_mapping,
			   perftools__profiles__mapping__init))
		return false;
	for (size_t i = 1; i < profile->mapping_count; i++) {
		const struct cprof_profile_mapping *mapping = &profile->mappings[i];
		Perftools__Profiles__Mapping *to;

		if (!encoder->mapping_ids[i])
			continue;
		to = message->mapping[encoder->mapping_ids[i] - 1];
		to->id = encoder->mapping_ids[i];
		to->memory_start = mapping->start;
		to->memory_limit = mapping->limit;
		to->file_offset = mapping->offset;
		to->filename = put_string(encoder, mapping->file);
		to->build_id = put_string(encoder, mapping->build_id);
		to->has_functions = mapping->has_functions;
		to->has_filenames = mapping->has_filenames;
		to->has_line_numbers = mapping->has_line_numbers;
		to->has_inline_frames = mapping->has_inline_frames;
	}
	return true;
}

static bool put_locations(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;

	if (!MAKE_MESSAGES(encoder, message->location, message->n_location,
			   perftools__profiles__location__init))
		return false;
	for (size_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		Perftools__Profiles__Location *to;

		if (!encoder->location_ids[i])
			continue;
		to = message->location[encoder->location_ids[i] - 1];
		to->id = encoder->location_ids[i];
		to->mapping_id = encoder->mapping_ids[location->mapping];
		to->address = location->address;
		to->is_folded = location->is_folded;
		to->n_line = location->line_count;
		if (!MAKE_MESSAGES(encoder, to->line, to->n_line, perftools__profiles__line__init))
			return false;
		for (uint32_t j = 0; j < location->line_count; j++) {
			const struct cprof_profile_line *line =
				&profile->lines[location->first_line + j];

			to->line[j]->function_id = encoder->function_ids[line->function];
			to->line[j]->line = line->line;
		}
	}
	return true;
}

static bool put_functions(struct encoder *encoder)
{
	const struct cprof_profile *profile = encoder->profile;
	Perftools__Profiles__Profile *message = &encoder->message;

	if (!MAKE_MESSAGES(encoder, message->function, message->n_function,
			   perftools__profiles__function__init))
		return false;
	for (size_t i = 1; i < profile->function_count; i++) {
		const struct cprof_profile_function *function = &profile->functions[i];
		Perftools__Profiles__Function *to;

		if (!encoder->function_ids[i])
			continue;
		to = message->function[encoder->function_ids[i] - 1];
		to->id = encoder->function_ids[i];
		to->name = put_string(encoder, function->name);
		to->system_name = put_string(encoder, function->system_name);
		to->filename = put_string(encoder, function->file);
		to->start_line = function->start_line;
	}
	return true;
}

/* gzip (RFC 1952) without a time in its header: equal profiles are equal files. */
static struct cprof_error *compress_all(const void *bytes, size_t length, void **packed,
					size_t *packed_length)
{
	CPROF_AUTO_FREE uint8_t *out = NULL;
	z_stream stream = {0};
	size_t capacity;
	int result;

	if (length > UINT32_MAX / 2)
		return cprof_error_create(CPROF_FAILED, NULL, "the profile is too large: %zu bytes",
					  length);
	if (deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return cprof_error_nomem();
	capacity = deflateBound(&stream, length);
	out = malloc(capacity);
	if (!out) {
		deflateEnd(&stream);
		return cprof_error_nomem();
	}
	stream.next_in = (Bytef *)(uintptr_t)bytes;
	stream.avail_in = (uInt)length;
	stream.next_out = out;
	stream.avail_out = (uInt)capacity;
	result = deflate(&stream, Z_FINISH);
	*packed_length = stream.total_out;
	deflateEnd(&stream);
	if (result != Z_STREAM_END)
		return cprof_error_create(CPROF_FAILED, NULL,
					  "the profile could not be compressed");
	*packed = cprof_take(out);
	return NULL;
}

struct cprof_error *cprof_pprof_encode(const struct cprof_profile *profile, void **bytes,
				       size_t *length)
{
	CPROF_CLEANUP(encoder_deinit) struct encoder encoder;
	CPROF_AUTO_FREE uint8_t *plain = NULL;
	size_t plain_length;

	CPROF_TRY(encoder_init(&encoder, profile));
	number_all(&encoder);
	if (!put_header(&encoder) || !put_samples(&encoder) || !put_mappings(&encoder) ||
	    !put_locations(&encoder) || !put_functions(&encoder) || encoder.arena.exceeded)
		return cprof_error_nomem();
	CPROF_TRY(cprof_profile_check(encoder.strings));
	encoder.message.n_string_table = encoder.strings->string_count;
	/* protobuf-c does not write to it. */
	encoder.message.string_table = (char **)(uintptr_t)encoder.strings->strings;
	plain_length = perftools__profiles__profile__get_packed_size(&encoder.message);
	plain = malloc(plain_length);
	if (!plain)
		return cprof_error_nomem();
	perftools__profiles__profile__pack(&encoder.message, plain);
	return compress_all(plain, plain_length, bytes, length);
}

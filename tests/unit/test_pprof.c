/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 */
#include "profile.pb-c.h"
#include <cprof/pprof.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

static uint32_t function_named(struct cprof_profile *p, const char *name, const char *file)
{
	return cprof_profile_function(p, &(struct cprof_profile_function){
						 .name = cprof_profile_string(p, name),
						 .system_name = cprof_profile_string(p, name),
						 .file = cprof_profile_string(p, file),
						 .start_line = 3,
					 });
}

static struct cprof_profile *example(void)
{
	struct cprof_profile *p;
	uint32_t maps[2];
	struct cprof_profile_line lines[2];
	uint32_t stack[3];
	struct cprof_profile_label labels[2];

	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "samples", "count");
	cprof_profile_add_type(p, "cpu", "nanoseconds");
	p->period_type = p->types[1];
	p->period = 10101010;
	p->time_ns = 1700000000000000000;
	p->duration_ns = 5000000000;
	p->default_type = cprof_profile_string(p, "cpu");
	p->drop_frames = cprof_profile_string(p, "dropped");
	p->keep_frames = cprof_profile_string(p, "kept");
	cprof_profile_add_comment(p, "comment\x1b[2J");
	maps[0] = cprof_profile_mapping(
		p, &(struct cprof_profile_mapping){.start = 0x400000,
						   .limit = 0x500000,
						   .file = cprof_profile_string(p, "/bin/main"),
						   .build_id = cprof_profile_string(p, "abcd"),
						   .has_functions = true,
						   .has_inline_frames = true});
	cprof_profile_mapping(p, &(struct cprof_profile_mapping){.start = 1, .limit = 2});
	maps[1] = cprof_profile_mapping(
		p, &(struct cprof_profile_mapping){.start = 0x7f0000000000,
						   .limit = 0x7f0000100000,
						   .offset = 0x1000,
						   .file = cprof_profile_string(p, "/lib/x.so"),
						   .has_filenames = true,
						   .has_line_numbers = true});
	function_named(p, "never seen", "x.c");
	lines[0] = (struct cprof_profile_line){function_named(p, "inlined", "a.c"), 10};
	lines[1] = (struct cprof_profile_line){function_named(p, "bad\xff name\n", "b.c"), 20};
	cprof_profile_location(p, maps[0], 0x401234); /* in no sample */
	stack[0] = cprof_profile_location_with(p, maps[1], 0x7f0000000010, lines, 2, false);
	stack[1] = cprof_profile_location(p, maps[1], 0x7f0000000020);
	stack[2] = cprof_profile_marker(p, "[truncated stack]");
	labels[0] = (struct cprof_profile_label){.key = cprof_profile_string(p, "thread"),
						 .text = cprof_profile_string(p, "main")};
	labels[1] = (struct cprof_profile_label){.key = cprof_profile_string(p, "tid"),
						 .number = 812,
						 .unit = cprof_profile_string(p, "id")};
	cprof_profile_add(p, cprof_profile_stack(p, stack, 3), cprof_profile_labels(p, labels, 2),
			  (int64_t[]){2, 20202020});
	cprof_profile_add(p, cprof_profile_stack(p, stack + 1, 1), 0, (int64_t[]){-1, -5});
	return p;
}

/* The message inside an encoded profile. */
static Perftools__Profiles__Profile *message_of(const void *bytes, size_t length)
{
	static uint8_t plain[1 << 20];
	z_stream stream = {.next_in = (Bytef *)(uintptr_t)bytes,
			   .avail_in = (uInt)length,
			   .next_out = plain,
			   .avail_out = sizeof(plain)};
	Perftools__Profiles__Profile *message;

	assert_int_equal(inflateInit2(&stream, 31), Z_OK);
	assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
	inflateEnd(&stream);
	message = perftools__profiles__profile__unpack(NULL, stream.total_out, plain);
	assert_non_null(message);
	return message;
}

static void test_encoded(void **state)
{
	struct cprof_profile *p = example();
	Perftools__Profiles__Profile *m;
	void *bytes, *again;
	size_t length, again_length;

	(void)state;
	assert_null(cprof_pprof_encode(p, &bytes, &length));
	assert_null(cprof_pprof_encode(p, &again, &again_length));
	assert_int_equal(length, again_length);
	assert_memory_equal(bytes, again, length);
	m = message_of(bytes, length);

	/* The main binary, though no sample is in it, and the one that is referred to. */
	assert_int_equal(m->n_mapping, 2);
	assert_string_equal(m->string_table[m->mapping[0]->filename], "/bin/main");
	assert_string_equal(m->string_table[m->mapping[0]->build_id], "abcd");
	assert_true(m->mapping[0]->has_functions && m->mapping[0]->has_inline_frames);
	assert_false(m->mapping[0]->has_filenames || m->mapping[0]->has_line_numbers);
	assert_int_equal(m->mapping[1]->id, 2);
	assert_true(m->mapping[1]->file_offset == 0x1000);
	assert_int_equal(m->n_location, 3);
	assert_int_equal(m->n_function, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(m->location[i]->id, i + 1);
		assert_int_equal(m->function[i]->id, i + 1);
	}
	assert_int_equal(m->location[0]->mapping_id, 2);
	assert_int_equal(m->location[0]->n_line, 2);
	assert_int_equal(m->location[0]->line[0]->line, 10);
	assert_string_equal(m->string_table[m->function[1]->name], "bad? name?");
	assert_int_equal(m->function[1]->name, m->function[1]->system_name);
	assert_int_equal(m->n_sample, 2);
	assert_int_equal(m->sample[0]->n_location_id, 3);
	assert_int_equal(m->sample[0]->location_id[0], 1);
	assert_int_equal(m->sample[0]->n_label, 2);
	assert_int_equal(m->sample[1]->value[1], -5);
	assert_string_equal(m->string_table[m->comment[0]], "comment?[2J");
	assert_string_equal(m->string_table[0], "");
	for (size_t i = 0; i < m->n_string_table; i++) {
		assert_string_not_equal(m->string_table[i], "never seen");
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(m->string_table[i], m->string_table[j]);
	}
	perftools__profiles__profile__free_unpacked(m, NULL);
	free(bytes);
	free(again);
	cprof_profile_destroy(p);
}

static void test_round_trip(void **state)
{
	struct cprof_profile *p = example(), *q;
	void *bytes, *again;
	size_t length, again_length;
	const struct cprof_profile_label *labels;

	(void)state;
	assert_null(cprof_pprof_encode(p, &bytes, &length));
	assert_null(cprof_pprof_decode(bytes, length, &q));
	assert_int_equal(q->type_count, 2);
	assert_string_equal(q->strings[q->types[1].unit], "nanoseconds");
	assert_string_equal(q->strings[q->period_type.type], "cpu");
	assert_int_equal(q->period, 10101010);
	assert_true(q->time_ns == 1700000000000000000);
	assert_true(q->duration_ns == 5000000000);
	assert_string_equal(q->strings[q->default_type], "cpu");
	assert_string_equal(q->strings[q->drop_frames], "dropped");
	assert_string_equal(q->strings[q->keep_frames], "kept");
	assert_int_equal(q->sample_count, 2);
	assert_int_equal(q->values[1], 20202020);
	assert_int_equal(q->values[2], -1);
	assert_int_equal(q->label_sets[q->samples[0].labels].count, 2);
	labels = q->label_items + q->label_sets[q->samples[0].labels].first;
	for (int i = 0; i < 2; i++) {
		if (labels[i].text) {
			assert_string_equal(q->strings[labels[i].text], "main");
		} else {
			assert_int_equal(labels[i].number, 812);
			assert_string_equal(q->strings[labels[i].unit], "id");
		}
	}
	assert_true(q->locations[1].named);
	assert_false(q->locations[2].named);
	assert_true(q->locations[2].address == 0x7f0000000020);
	assert_null(cprof_pprof_encode(q, &again, &again_length));
	assert_int_equal(again_length, length);
	assert_memory_equal(again, bytes, length);
	free(bytes);
	free(again);
	cprof_profile_destroy(p);
	cprof_profile_destroy(q);
}

static void test_empty(void **state)
{
	struct cprof_profile *p, *q;
	void *bytes;
	size_t length;

	(void)state;
	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "cpu", "nanoseconds");
	assert_null(cprof_pprof_encode(p, &bytes, &length));
	assert_null(cprof_pprof_decode(bytes, length, &q));
	assert_int_equal(q->sample_count, 0);
	free(bytes);
	cprof_profile_destroy(p);
	cprof_profile_destroy(q);
}

/* `message` is how the error begins. */
static void assert_refused(const void *bytes, size_t length, const char *message)
{
	struct cprof_profile *profile = (void *)1;
	struct cprof_error *error = cprof_pprof_decode(bytes, length, &profile);

	assert_non_null(error);
	assert_null(profile);
	assert_int_equal(error->status, CPROF_FAILED);
	if (message && strncmp(error->message, message, strlen(message)) != 0)
		assert_string_equal(error->message, message);
	cprof_error_destroy(error);
}

static uint8_t *gzip(const void *bytes, size_t length, size_t *packed_length)
{
	z_stream stream = {0};
	uint8_t *out;

	assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, 0), Z_OK);
	*packed_length = deflateBound(&stream, length);
	out = malloc(*packed_length);
	stream.next_in = (Bytef *)(uintptr_t)bytes;
	stream.avail_in = (uInt)length;
	stream.next_out = out;
	stream.avail_out = (uInt)*packed_length;
	assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
	*packed_length = stream.total_out;
	deflateEnd(&stream);
	return out;
}

static void test_damaged(void **state)
{
	struct cprof_profile *p = example(), *q;
	uint8_t *bytes, *longer;
	void *encoded;
	size_t length;

	(void)state;
	assert_null(cprof_pprof_encode(p, &encoded, &length));
	bytes = encoded;
	assert_refused("", 0, "not a profile: it is empty");
	assert_refused("#!/bin/sh\nexit 0\n", 17,
		       "not a profile: neither gzip nor valid protobuf data");
	for (size_t cut = 2; cut < length; cut++)
		assert_refused(bytes, cut, "not a profile: truncated gzip data");
	bytes[length / 2] ^= 0x55;
	assert_refused(bytes, length, NULL);
	bytes[length / 2] ^= 0x55;
	bytes[length - 8] ^= 1; /* the checksum */
	assert_refused(bytes, length, "not a profile: corrupt gzip data");
	bytes[length - 8] ^= 1;
	longer = malloc(length * 2);
	memcpy(longer, bytes, length);
	memset(longer + length, 'x', length);
	assert_refused(longer, length + 1, "not a profile: garbage after the gzip data");
	assert_refused(longer, length + 9, "not a profile: garbage after the gzip data");
	free(longer);
	assert_null(cprof_pprof_decode(bytes, length, &q));
	free(encoded);
	cprof_profile_destroy(p);
	cprof_profile_destroy(q);
}

/* Two members are one file; a protobuf message may be cut anywhere between them. */
static void test_members(void **state)
{
	struct cprof_profile *p = example(), *q;
	Perftools__Profiles__Profile *m;
	uint8_t plain[4096], both[8192], *part;
	size_t length, plain_length, at, part_length;
	void *bytes;

	(void)state;
	assert_null(cprof_pprof_encode(p, &bytes, &length));
	m = message_of(bytes, length);
	plain_length = perftools__profiles__profile__pack(m, plain);
	assert_null(cprof_pprof_decode(plain, plain_length, &q)); /* not compressed */
	assert_int_equal(q->sample_count, 2);
	cprof_profile_destroy(q);
	part = gzip(plain, 33, &part_length);
	memcpy(both, part, part_length);
	at = part_length;
	free(part);
	part = gzip(plain + 33, plain_length - 33, &part_length);
	memcpy(both + at, part, part_length);
	free(part);
	assert_null(cprof_pprof_decode(both, at + part_length, &q));
	assert_int_equal(q->sample_count, 2);
	assert_int_equal(q->values[1], 20202020);
	cprof_profile_destroy(q);
	free(bytes);
	cprof_profile_destroy(p);
	perftools__profiles__profile__free_unpacked(m, NULL);
}

static void test_bombs(void **state)
{
	size_t length = (size_t)160 << 20, packed_length;
	uint8_t *zeros = calloc(length, 1), *packed;

	(void)state;
	packed = gzip(zeros, length, &packed_length);
	assert_refused(packed, packed_length, "too large: unpacks to more than 10");
	free(packed);
	/* Empty samples: two bytes each, but far more unpacked. */
	for (size_t i = 0; i < length; i += 2)
		zeros[i] = 0x12;
	assert_refused(zeros, length, "too large: needs more memory than a profile may");
	free(zeros);
}

static void assert_message_refused(const Perftools__Profiles__Profile *m, const char *message)
{
	uint8_t plain[4096];

	assert_refused(plain, perftools__profiles__profile__pack(m, plain), message);
}

/* Every wrong reference has its line. */
static void test_references(void **state)
{
	struct cprof_profile *p = example(), *q;
	Perftools__Profiles__Profile *m;
	void *bytes;
	size_t length, count;
	char *text;

	(void)state;
	assert_null(cprof_pprof_encode(p, &bytes, &length));
	m = message_of(bytes, length);
#define REFUSED(place, value, message)                                                             \
	do {                                                                                       \
		__typeof__(place) kept_ = (place);                                                 \
                                                                                                   \
		(place) = (value);                                                                 \
		assert_message_refused(m, "not a profile: " message);                              \
		(place) = kept_;                                                                   \
	} while (0)
	count = m->n_string_table;
	assert_int_equal(count, 20);
	REFUSED(m->function[0]->name, 20, "string 20 of 20");
	REFUSED(m->mapping[0]->build_id, -1, "string -1 of 20");
	REFUSED(m->sample[0]->label[0]->key, INT64_MAX, "string 9223372036854775807 of 20");
	REFUSED(m->comment[0], 99, "string 99 of 20");
	REFUSED(m->default_sample_type, 99, "string 99 of 20");
	REFUSED(m->sample_type[0]->unit, 99, "string 99 of 20");
	REFUSED(m->sample[0]->location_id[1], 4, "a sample has the unknown location 4");
	REFUSED(m->sample[0]->location_id[1], 0, "a sample has the unknown location 0");
	REFUSED(m->sample[0]->n_value, 1, "a sample has 1 values for 2 types");
	REFUSED(m->location[0]->mapping_id, 77, "a location has the unknown mapping 77");
	REFUSED(m->location[0]->line[0]->function_id, 77, "a location has the unknown function 77");
	REFUSED(m->location[1]->id, 0, "a location has the id 0");
	REFUSED(m->location[1]->id, 1, "two locations have the id 1");
	REFUSED(m->function[1]->id, 1, "two functions have the id 1");
	REFUSED(m->mapping[1]->id, 1, "two mappings have the id 1");
	REFUSED(m->n_sample_type, 0, "it has no sample types");
	text = m->string_table[0];
	REFUSED(m->string_table[0], m->string_table[1],
		"its string table does not begin with an empty string");
	assert_ptr_equal(text, m->string_table[0]);

	/* Ids that are not contiguous are fine. */
	m->location[1]->id = UINT64_MAX;
	m->sample[0]->location_id[1] = UINT64_MAX;
	m->sample[1]->location_id[0] = UINT64_MAX;
	{
		uint8_t plain[4096];

		length = perftools__profiles__profile__pack(m, plain);
		assert_null(cprof_pprof_decode(plain, length, &q));
		assert_int_equal(q->sample_count, 2);
		assert_int_equal(q->location_count, 4);
		cprof_profile_destroy(q);
	}
	perftools__profiles__profile__free_unpacked(m, NULL);
	free(bytes);
	cprof_profile_destroy(p);
}

static void test_read(void **state)
{
	char path[] = "/tmp/cprof-pprof-XXXXXX";
	char message[128];
	int fd = mkstemp(path);
	struct cprof_profile *q;
	struct cprof_error *error;

	(void)state;
	assert_int_equal(write(fd, "\x1f\x8b\x08", 3), 3);
	close(fd);
	error = cprof_pprof_read(path, &q);
	assert_non_null(error);
	snprintf(message, sizeof(message), "%s: not a profile: truncated gzip data", path);
	assert_string_equal(error->message, message);
	cprof_error_destroy(error);
	unlink(path);
	error = cprof_pprof_read(path, &q);
	snprintf(message, sizeof(message), "%s: No such file or directory", path);
	assert_string_equal(error->message, message);
	cprof_error_destroy(error);
	error = cprof_pprof_read("/", &q);
	assert_string_equal(error->message, "/: Is a directory");
	cprof_error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_encoded),    cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty),      cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_members),    cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_references), cmocka_unit_test(test_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 */
#include <cprof/profile.h>
#include <cprof/source.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct cprof_profile *profile_new(void)
{
	struct cprof_profile *profile;

	assert_null(cprof_profile_create(&profile));
	cprof_profile_add_type(profile, "samples", "count");
	cprof_profile_add_type(profile, "cpu", "nanoseconds");
	return profile;
}

static uint32_t function_named(struct cprof_profile *profile, const char *name)
{
	uint32_t text = cprof_profile_string(profile, name);

	return cprof_profile_function(
		profile, &(struct cprof_profile_function){.name = text, .system_name = text});
}

static void test_interning(void **state)
{
	struct cprof_profile *p = profile_new();
	uint32_t a, b, stack_ab, stack_ba;

	(void)state;
	assert_int_equal(cprof_profile_string(p, ""), 0);
	a = cprof_profile_string(p, "abc");
	assert_int_equal(cprof_profile_string_n(p, "abcd", 3), a);
	assert_int_equal(cprof_profile_string_n(p, "abc\0d", 5), a);
	assert_int_not_equal(cprof_profile_string(p, "abcd"), a);
	assert_string_equal(p->strings[a], "abc");

	a = cprof_profile_location(p, 0, 0x1000);
	b = cprof_profile_location(p, 0, 0x2000);
	assert_int_equal(cprof_profile_location(p, 0, 0x1000), a);
	assert_int_not_equal(a, b);
	assert_int_not_equal(a, 0);
	stack_ab = cprof_profile_stack(p, (uint32_t[]){a, b}, 2);
	stack_ba = cprof_profile_stack(p, (uint32_t[]){b, a}, 2);
	assert_int_not_equal(stack_ab, stack_ba);
	assert_int_not_equal(stack_ab, cprof_profile_stack(p, (uint32_t[]){a}, 1));
	assert_int_equal(stack_ab, cprof_profile_stack(p, (uint32_t[]){a, b}, 2));
	assert_int_equal(cprof_profile_stack(p, NULL, 0), 0);
	assert_int_equal(p->stacks[stack_ab].count, 2);
	assert_int_equal(p->stack_items[p->stacks[stack_ba].first], b);
	assert_null(cprof_profile_check(p));
	cprof_profile_destroy(p);
}

static void test_mapping_flags(void **state)
{
	struct cprof_profile *p = profile_new();
	struct cprof_profile_mapping mapping = {.start = 1, .limit = 2, .has_functions = true};
	uint32_t id = cprof_profile_mapping(p, &mapping);

	(void)state;
	mapping = (struct cprof_profile_mapping){.start = 1, .limit = 2, .has_filenames = true};
	assert_int_equal(cprof_profile_mapping(p, &mapping), id);
	assert_true(p->mappings[id].has_functions);
	assert_true(p->mappings[id].has_filenames);
	assert_false(p->mappings[id].has_line_numbers);
	mapping.offset = 3;
	assert_int_not_equal(cprof_profile_mapping(p, &mapping), id);
	cprof_profile_destroy(p);
}

static void test_lines(void **state)
{
	struct cprof_profile *p = profile_new();
	const struct cprof_profile_line one = {.function = function_named(p, "f"), .line = 3};
	const struct cprof_profile_line two[] = {one, {.function = function_named(p, "g")}};
	uint32_t location = cprof_profile_location(p, 0, 16);
	uint32_t lined = cprof_profile_location_with(p, 0, 16, two, 2, false);
	uint32_t marker = cprof_profile_marker(p, "[lost]");

	(void)state;
	assert_false(p->locations[location].named);
	cprof_profile_set_lines(p, location, &one, 1);
	assert_true(p->locations[location].named);
	assert_int_equal(cprof_profile_location(p, 0, 16), location);
	assert_int_not_equal(lined, location);
	assert_int_equal(cprof_profile_location_with(p, 0, 16, two, 2, false), lined);
	assert_int_not_equal(cprof_profile_location_with(p, 0, 16, two, 2, true), lined);
	assert_int_not_equal(cprof_profile_location_with(p, 0, 16, two, 1, false), lined);
	assert_int_equal(p->lines[p->locations[lined].first_line + 1].function,
			 function_named(p, "g"));
	assert_int_equal(cprof_profile_marker(p, "[lost]"), marker);
	assert_int_not_equal(cprof_profile_marker(p, "[gone]"), marker);
	assert_int_equal(p->locations[marker].address, 0);
	cprof_profile_destroy(p);
}

static void test_labels(void **state)
{
	struct cprof_profile *p = profile_new();
	struct cprof_profile_label a = {.key = cprof_profile_string(p, "thread"),
					.text = cprof_profile_string(p, "main")};
	struct cprof_profile_label b = {.key = cprof_profile_string(p, "tid"), .number = 7};
	uint32_t ab = cprof_profile_labels(p, (struct cprof_profile_label[]){a, b}, 2);

	(void)state;
	assert_int_not_equal(ab, 0);
	assert_int_equal(cprof_profile_labels(p, (struct cprof_profile_label[]){b, a}, 2), ab);
	assert_int_equal(cprof_profile_labels(p, NULL, 0), 0);
	b.number = 8;
	assert_int_not_equal(cprof_profile_labels(p, (struct cprof_profile_label[]){b, a}, 2), ab);
	cprof_profile_destroy(p);
}

static void test_add(void **state)
{
	struct cprof_profile *p = profile_new();
	uint32_t location = cprof_profile_location(p, 0, 1);
	uint32_t stack = cprof_profile_stack(p, &location, 1);

	(void)state;
	cprof_profile_add(p, stack, 0, (int64_t[]){1, 10});
	cprof_profile_add(p, stack, 0, (int64_t[]){2, INT64_MAX});
	cprof_profile_add(p, 0, 0, (int64_t[]){-1, INT64_MIN});
	cprof_profile_add(p, 0, 0, (int64_t[]){-1, -5});
	assert_int_equal(p->sample_count, 2);
	assert_int_equal(p->values[0], 3);
	assert_true(p->values[1] == INT64_MAX);
	assert_int_equal(p->values[2], -2);
	assert_true(p->values[3] == INT64_MIN);
	assert_int_equal(cprof_profile_find_type(p, "cpu"), 1);
	assert_int_equal(cprof_profile_find_type(p, "heap"), -1);
	cprof_profile_destroy(p);
}

/* Many of everything: tables and arrays grow, ids stay what they were. */
static void test_many(void **state)
{
	enum { MANY = 20000 };
	struct cprof_profile *p = profile_new();
	static uint32_t ids[MANY];
	char name[32];

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < MANY; i++) {
			uint32_t location, stack;
			struct cprof_profile_line line;

			snprintf(name, sizeof(name), "function_%u", i);
			line = (struct cprof_profile_line){.function = function_named(p, name)};
			location = cprof_profile_location_with(p, 0, i, &line, 1, false);
			stack = cprof_profile_stack(p, (uint32_t[]){location, ids[0]}, 2);
			cprof_profile_add(p, stack, 0, (int64_t[]){1, i});
			if (round)
				assert_int_equal(location, ids[i]);
			else
				ids[i] = location;
		}
	}
	assert_null(cprof_profile_check(p));
	assert_int_equal(p->function_count, MANY + 1);
	assert_int_equal(p->location_count, MANY + 1);
	/* ids[0] was still 0 in the very first stack. */
	assert_int_equal(p->sample_count, MANY + 1);
	for (uint32_t i = 1; i < MANY; i++)
		assert_int_equal(p->values[2 * i + 1], 2 * i);
	cprof_profile_destroy(p);
}

static struct cprof_profile *example(int64_t value)
{
	struct cprof_profile *p = profile_new();
	const struct cprof_profile_mapping mapping = {
		.start = 0x1000,
		.limit = 0x2000,
		.file = cprof_profile_string(p, "/bin/x"),
	};
	uint32_t map = cprof_profile_mapping(p, &mapping);
	struct cprof_profile_line line = {.function = function_named(p, "leaf"), .line = 9};
	uint32_t locations[] = {
		cprof_profile_location_with(p, map, 0x1100, &line, 1, false),
		cprof_profile_location(p, map, 0x1200),
	};
	struct cprof_profile_label label = {.key = cprof_profile_string(p, "tid"), .number = 5};
	uint32_t labels = cprof_profile_labels(p, &label, 1);

	cprof_profile_add(p, cprof_profile_stack(p, locations, 2), labels, (int64_t[]){1, value});
	cprof_profile_add(p, cprof_profile_stack(p, locations + 1, 1), 0,
			  (int64_t[]){1, 5 * value});
	p->time_ns = 1000 - value;
	p->duration_ns = 10;
	p->period = 7;
	p->default_type = cprof_profile_string(p, "cpu");
	cprof_profile_add_comment(p, "a comment");
	return p;
}

static void test_merge(void **state)
{
	struct cprof_profile *sum, *a = example(100), *b = example(30);

	(void)state;
	assert_null(cprof_profile_create(&sum));
	assert_null(cprof_profile_merge(sum, a, 1));
	assert_null(cprof_profile_merge(sum, b, 1));
	assert_int_equal(sum->type_count, 2);
	assert_int_equal(sum->sample_count, 2);
	assert_int_equal(sum->values[1], 130);
	assert_int_equal(sum->values[3], 650);
	assert_int_equal(sum->time_ns, 900);
	assert_int_equal(sum->duration_ns, 20);
	assert_int_equal(sum->period, 7);
	assert_int_equal(sum->comment_count, 1);
	assert_string_equal(sum->strings[sum->default_type], "cpu");
	assert_int_equal(sum->mapping_count, 2);
	assert_string_equal(sum->strings[sum->mappings[1].file], "/bin/x");
	assert_int_equal(sum->location_count, 3);
	assert_int_equal(sum->samples[0].labels, 1);

	/* Scaling rounds; what becomes 0 goes. */
	assert_null(cprof_profile_merge(sum, b, -0.5));
	assert_int_equal(sum->values[1], 115);
	assert_int_equal(sum->values[0], 1); /* 2 - round(0.5) */
	assert_null(cprof_profile_merge(a, a, 1));
	assert_int_equal(a->values[1], 200);
	cprof_profile_destroy(a);
	a = example(30);
	assert_null(cprof_profile_merge(a, b, -1));
	assert_int_equal(a->sample_count, 0);
	assert_null(cprof_profile_merge(a, b, 1));
	assert_int_equal(a->sample_count, 2);
	assert_int_equal(a->values[1], 30);
	cprof_profile_destroy(a);
	cprof_profile_destroy(b);
	cprof_profile_destroy(sum);
}

static void test_merge_differing(void **state)
{
	struct cprof_profile *a = example(1), *b;
	struct cprof_error *error;

	(void)state;
	assert_null(cprof_profile_create(&b));
	cprof_profile_add_type(b, "samples", "count");
	error = cprof_profile_merge(a, b, 1);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_FAILED);
	cprof_error_destroy(error);
	cprof_profile_destroy(a);
	cprof_profile_destroy(b);
}

static void test_source(void **state)
{
	struct cprof_source *source;
	struct cprof_profile *copy;

	(void)state;
	assert_null(cprof_source_create_saved(example(4), &source));
	assert_false(source->ops->live(source));
	assert_null(source->ops->snapshot(source, "cpu", &copy));
	cprof_source_destroy(source);
	cprof_source_destroy(NULL);
	assert_int_equal(copy->sample_count, 2);
	assert_int_equal(copy->values[3], 20);
	assert_true(copy->locations[1].named);
	assert_false(copy->locations[2].named);
	cprof_profile_destroy(copy);
	cprof_profile_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interning), cmocka_unit_test(test_mapping_flags),
		cmocka_unit_test(test_lines),     cmocka_unit_test(test_labels),
		cmocka_unit_test(test_add),       cmocka_unit_test(test_many),
		cmocka_unit_test(test_merge),     cmocka_unit_test(test_merge_differing),
		cmocka_unit_test(test_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

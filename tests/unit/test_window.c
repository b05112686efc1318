/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The last seconds: sums by slices, what falls out of them, threads that come and go, and that what
 * is kept is bounded; and picking some samples of a profile.
 */
#include "../../src/session/window.h"

#include <cprof/builder.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SLICE CPROF_WINDOW_SLICE_NS

static struct cprof_window window;

static void begin(size_t slices, size_t entries)
{
	assert_true(cprof_window_init(&window, slices, entries));
}

static void add(uint64_t time, uint32_t stack, uint32_t labels, uint64_t value)
{
	cprof_window_begin(&window, time, 0, 0);
	assert_true(cprof_window_add(&window, stack, labels, 1, value));
}

/* The sums of one (stack, labels), 0 stack: of all. */
static void expect(uint64_t since, uint64_t until, uint32_t stack, uint32_t labels, int64_t count,
		   int64_t value)
{
	struct cprof_window_sum sum;

	assert_true(cprof_window_sum(&window, since, until, &sum));
	for (size_t i = 0; i < sum.count; i++) {
		if (stack && (sum.samples[i].stack != stack || sum.samples[i].labels != labels))
			continue;
		count -= sum.values[2 * i];
		value -= sum.values[2 * i + 1];
	}
	assert_int_equal(count, 0);
	assert_int_equal(value, 0);
	cprof_window_sum_deinit(&sum);
}

static int end(void **state)
{
	(void)state;
	cprof_window_deinit(&window);
	return 0;
}

static void test_sums(void **state)
{
	struct cprof_window_sum sum;

	(void)state;
	begin(8, 1000);
	expect(0, UINT64_MAX, 0, 0, 0, 0);
	assert_int_equal(cprof_window_present_ns(&window), 0);
	add(100 * SLICE, 1, 1, 10);
	add(100 * SLICE + 5, 1, 1, 20);
	add(100 * SLICE + 9, 1, 2, 40);
	add(101 * SLICE, 1, 1, 80);
	add(103 * SLICE, 2, 1, 160);
	expect(0, UINT64_MAX, 1, 1, 3, 110);
	expect(0, UINT64_MAX, 1, 2, 1, 40);
	expect(0, UINT64_MAX, 2, 1, 1, 160);
	/* A slice counts when any of it is inside. */
	expect(101 * SLICE - 1, UINT64_MAX, 0, 0, 5, 310);
	expect(101 * SLICE, UINT64_MAX, 0, 0, 2, 240);
	expect(102 * SLICE, UINT64_MAX, 0, 0, 1, 160);
	expect(104 * SLICE, UINT64_MAX, 0, 0, 0, 0);
	/* Up to the present slice, for those who add up themselves. */
	assert_int_equal(cprof_window_present_ns(&window), 103 * SLICE);
	expect(0, 103 * SLICE, 0, 0, 4, 150);
	/* A record that is late counts in the present slice. */
	add(100 * SLICE, 3, 1, 1);
	expect(103 * SLICE, UINT64_MAX, 3, 1, 1, 1);
	assert_true(cprof_window_sum(&window, 101 * SLICE, UINT64_MAX, &sum));
	assert_int_equal(sum.from_ns, 101 * SLICE);
	cprof_window_sum_deinit(&sum);
}

static void test_falls_out(void **state)
{
	struct cprof_window_sum sum;

	(void)state;
	begin(4, 1000);
	for (uint64_t i = 0; i < 10; i++) {
		cprof_window_begin(&window, i * SLICE, 10 * i, 100 * i);
		assert_true(cprof_window_add(&window, (uint32_t)i + 1, 0, 1, 1));
	}
	assert_int_equal(window.entry_count, 4);
	assert_true(cprof_window_sum(&window, 0, UINT64_MAX, &sum));
	assert_int_equal(sum.count, 4);
	assert_int_equal(sum.samples[0].stack, 7);
	assert_int_equal(sum.lost, 60); /* as it was when the first of them began */
	assert_int_equal(sum.counted, 600);
	cprof_window_sum_deinit(&sum);
	/* Nothing for a long time: all is too old. */
	cprof_window_begin(&window, 1000 * SLICE, 0, 0);
	assert_int_equal(window.entry_count, 0);
	expect(0, UINT64_MAX, 0, 0, 0, 0);
}

/* More than is kept for: old slices go early, the sums of those that stay are whole. */
static void test_bounded(void **state)
{
	int64_t most = 0;

	(void)state;
	begin(400, 1000);
	for (uint64_t i = 0; i < 300; i++)
		for (uint32_t j = 0; j < 90; j++) {
			add(i * SLICE, 1000 * (uint32_t)i + j + 1, j, 1);
			most = CPROF_MAX(most, (int64_t)window.entry_count);
		}
	assert_in_range(most, 900, 1000);
	expect(289 * SLICE, UINT64_MAX, 0, 0, 11 * 90, 11 * 90);
	/* A slice that is larger than everything is kept, and nothing else. */
	for (uint32_t j = 0; j < 3000; j++)
		add(500 * SLICE, j + 1, 1, 2);
	expect(0, UINT64_MAX, 0, 0, 3000, 6000);
}

static void test_renumber(void **state)
{
	struct cprof_profile_sample *samples;

	(void)state;
	begin(8, 1000);
	for (uint32_t i = 0; i < 600; i++)
		add((i / 300) * SLICE, i + 1, i % 7, 1);
	samples = calloc(window.entry_count, sizeof(*samples));
	cprof_window_list(&window, samples);
	for (size_t i = 0; i < window.entry_count; i++) {
		samples[i].stack += 5000;
		samples[i].labels += 100;
	}
	cprof_window_renumber(&window, samples);
	free(samples);
	expect(0, UINT64_MAX, 5001, 100, 1, 1);
	/* The present slice is found under its new numbers. */
	add(SLICE, 5600, 100 + 599 % 7, 1);
	expect(0, UINT64_MAX, 5600, 100 + 599 % 7, 2, 2);
	assert_int_equal(window.entry_count, 600);
}

/* --- picking ------------------------------------------------------------------------------- */

static struct cprof_modules *modules;
static struct cprof_space *space;
static struct cprof_builder *builder;

static struct cprof_profile *open_builder(void)
{
	const struct cprof_modules_options options = {NULL};
	struct cprof_profile *profile;

	assert_null(cprof_modules_create(&options, &modules));
	assert_null(cprof_space_create(NULL, modules, &space));
	assert_null(cprof_builder_create(modules, space, &builder));
	profile = cprof_builder_profile(builder);
	cprof_profile_add_type(profile, "samples", "count");
	cprof_profile_add_type(profile, "cpu", "nanoseconds");
	return profile;
}

static int close_builder(void **state)
{
	(void)state;
	cprof_builder_destroy(cprof_take(builder));
	cprof_space_destroy(cprof_take(space));
	cprof_modules_destroy(cprof_take(modules));
	return 0;
}

/* A stack of three addresses, of which two are its own; the innermost has a name. */
static uint32_t make_stack(struct cprof_profile *profile, uint32_t number)
{
	uint32_t locations[3];
	char name[32];

	for (uint32_t i = 0; i < 3; i++)
		locations[i] = cprof_profile_location(
			profile, 0, i < 2 ? 0x1000 + 16 * (uint64_t)number + i : 0x10);
	snprintf(name, sizeof(name), "function %u", number);
	if (!profile->locations[locations[0]].named) {
		const struct cprof_profile_function function = {
			.name = cprof_profile_string(profile, name)};
		const struct cprof_profile_line line = {
			.function = cprof_profile_function(profile, &function), .line = number};

		cprof_profile_set_lines(profile, locations[0], &line, 1);
	}
	return cprof_profile_stack(profile, locations, 3);
}

static uint32_t make_labels(struct cprof_profile *profile, int64_t tid)
{
	const struct cprof_profile_label label = {.key = cprof_profile_string(profile, "tid"),
						  .number = tid};

	return cprof_profile_labels(profile, &label, 1);
}

static const char *leaf_name(const struct cprof_profile *profile, uint32_t stack)
{
	const struct cprof_profile_location *location =
		&profile->locations[profile->stack_items[profile->stacks[stack].first]];

	return profile
		->strings[profile->functions[profile->lines[location->first_line].function].name];
}

static void test_pick(void **state)
{
	struct cprof_profile *profile = open_builder();
	struct cprof_profile_sample samples[3];
	const int64_t values[] = {1, 10, 2, 20, 4, 40};
	struct cprof_naming *naming;
	struct cprof_profile *picked;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		cprof_profile_add(profile, make_stack(profile, i), make_labels(profile, i % 50),
				  (int64_t[]){1, 1});
	samples[0].stack = samples[1].stack = make_stack(profile, 500);
	samples[2].stack = make_stack(profile, 3);
	samples[0].labels = samples[1].labels = make_labels(profile, 7);
	samples[2].labels = 0;
	assert_null(cprof_builder_pick(builder, samples, values, 3, &naming));
	assert_int_equal(cprof_naming_unnamed(naming), 0); /* nothing could name the rest */
	cprof_naming_leave(naming);
	picked = cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	assert_int_equal(picked->sample_count, 2);
	assert_int_equal(picked->values[0], 3);
	assert_int_equal(picked->values[1], 30);
	assert_int_equal(picked->values[3], 40);
	assert_int_equal(picked->stack_count, 3);
	assert_int_equal(picked->location_count, 6); /* the outermost is shared */
	assert_int_equal(picked->function_count, 3);
	assert_string_equal(leaf_name(picked, samples[0].stack), "function 500");
	assert_string_equal(picked->strings[picked->types[1].type], "cpu");
	cprof_profile_destroy(picked);
}

static void test_compact(void **state)
{
	struct cprof_profile *profile = open_builder();
	struct cprof_profile_sample samples[2];
	struct cprof_profile_sample references[2];
	const int64_t values[] = {5, 50, 7, 70};

	(void)state;
	for (uint32_t i = 0; i < 20000; i++)
		cprof_profile_add(profile, make_stack(profile, i), make_labels(profile, i),
				  (int64_t[]){1, 1});
	samples[0] = (struct cprof_profile_sample){.stack = make_stack(profile, 11)};
	samples[1] = (struct cprof_profile_sample){.stack = make_stack(profile, 19999),
						   .labels = make_labels(profile, 4)};
	references[0] = samples[1];
	references[1] = (struct cprof_profile_sample){.stack = make_stack(profile, 123)};
	assert_null(cprof_builder_compact(builder, samples, values, 2, references, 2));
	profile = cprof_builder_profile(builder);
	assert_int_equal(profile->sample_count, 2);
	assert_int_equal(profile->stack_count, 4);
	assert_int_equal(profile->label_set_count, 2);
	assert_int_equal(references[0].stack, samples[1].stack);
	assert_int_equal(references[0].labels, samples[1].labels);
	assert_string_equal(leaf_name(profile, references[1].stack), "function 123");
	/* It goes on as before: the same stack is the same. */
	assert_int_equal(make_stack(profile, 11), samples[0].stack);
	assert_int_equal(make_labels(profile, 4), samples[1].labels);
	cprof_profile_add(profile, samples[0].stack, 0, (int64_t[]){1, 1});
	assert_int_equal(profile->sample_count, 2);
	assert_int_equal(profile->values[0], 6);
	assert_int_equal(profile->values[3], 70);
}

/* While the profile is read without the lock nothing that was learnt may change it. */
static void test_held(void **state)
{
	struct cprof_profile *profile = open_builder();
	struct cprof_profile_sample sample = {.stack = make_stack(profile, 1)};
	const int64_t values[] = {1, 10};
	struct cprof_profile *less;

	(void)state;
	cprof_profile_add(profile, sample.stack, 0, values);
	cprof_builder_hold(builder, true);
	assert_null(cprof_builder_less(builder, &sample, values, 1, NULL, 0, &less));
	cprof_builder_hold(builder, false);
	assert_ptr_equal(cprof_builder_profile(builder), profile);
	assert_ptr_equal(cprof_builder_replace(builder, less), profile);
	assert_ptr_equal(cprof_builder_profile(builder), less);
	assert_string_equal(leaf_name(less, sample.stack), "function 1");
	cprof_profile_destroy(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_sums, end),
		cmocka_unit_test_teardown(test_falls_out, end),
		cmocka_unit_test_teardown(test_bounded, end),
		cmocka_unit_test_teardown(test_renumber, end),
		cmocka_unit_test_teardown(test_pick, close_builder),
		cmocka_unit_test_teardown(test_compact, close_builder),
		cmocka_unit_test_teardown(test_held, close_builder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

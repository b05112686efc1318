/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Frames to a profile, its copies, and names that come back: on this very process.
 */
#include <cprof/builder.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct cprof_target *target;
	struct cprof_modules *modules;
	struct cprof_space *space;
	struct cprof_builder *builder;
};

__attribute__((noinline)) static void first_function(void)
{
	__asm__ volatile("nop");
}

__attribute__((noinline)) static void second_function(void)
{
	__asm__ volatile("nop; nop");
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct cprof_modules_options options = {0};

	assert_non_null(f);
	first_function();
	second_function();
	assert_null(cprof_target_create(getpid(), &f->target));
	assert_null(cprof_modules_create(&options, &f->modules));
	assert_null(cprof_space_create(f->target, f->modules, &f->space));
	assert_null(cprof_space_refresh(f->space));
	assert_null(cprof_builder_create(f->modules, f->space, &f->builder));
	cprof_profile_add_type(cprof_builder_profile(f->builder), "samples", "count");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	cprof_builder_destroy(f->builder);
	cprof_space_destroy(f->space);
	cprof_modules_destroy(f->modules);
	cprof_target_destroy(f->target);
	free(f);
	return 0;
}

/* A stack of the two functions, the first innermost. */
static uint32_t add_stack(struct fixture *f, enum cprof_end end)
{
	struct cprof_frame frames[2] = {
		{.pc = (uintptr_t)first_function, .exact = true},
		{.pc = (uintptr_t)second_function + 1},
	};
	struct cprof_stack stack = {.frames = frames, .capacity = 2, .count = 2, .end = end};

	for (size_t i = 0; i < 2; i++) {
		frames[i].region = cprof_space_find(f->space, frames[i].pc);
		assert_non_null(frames[i].region);
	}
	return cprof_builder_stack(f->builder, NULL, 0, &stack);
}

static const char *name_of(const struct cprof_profile *profile, uint32_t stack, size_t frame)
{
	const struct cprof_profile_location *location =
		&profile->locations[profile->stack_items[profile->stacks[stack].first + frame]];

	if (!location->line_count)
		return "";
	return profile
		->strings[profile->functions[profile->lines[location->first_line].function].name];
}

static void test_stacks(void **state)
{
	struct fixture *f = *state;
	struct cprof_profile *profile = cprof_builder_profile(f->builder);
	uint32_t complete, cut;
	char odd[17];
	uint64_t kernel[2] = {0xffffffff81000000u, 0xffffffff81000100u};
	struct cprof_stack none = {.end = CPROF_END_COMPLETE};
	uint32_t id;

	assert_true(cprof_builder_map_main(f->builder));
	assert_int_equal(profile->mapping_count, 2);
	complete = add_stack(f, CPROF_END_COMPLETE);
	cut = add_stack(f, CPROF_END_TRUNCATED);
	assert_int_equal(add_stack(f, CPROF_END_COMPLETE), complete);
	assert_int_not_equal(complete, cut);
	assert_int_equal(profile->stacks[complete].count, 2);
	assert_int_equal(profile->stacks[cut].count, 3);
	assert_string_equal(name_of(profile, cut, 2), "[truncated stack]");
	assert_int_equal(profile->mapping_count, 2); /* both are in the program */
	assert_int_equal(
		profile->locations[profile->stack_items[profile->stacks[complete].first]].address,
		(uintptr_t)first_function);
	/* The kernel's words need not be aligned; its return addresses are looked up one before. */
	memcpy(odd + 1, kernel, sizeof(kernel));
	id = cprof_builder_stack(f->builder, odd + 1, 2, &none);
	assert_int_equal(profile->stacks[id].count, 2);
	assert_int_equal(
		profile->locations[profile->stack_items[profile->stacks[id].first]].address,
		kernel[0]);
	assert_int_equal(
		profile->locations[profile->stack_items[profile->stacks[id].first + 1]].address,
		kernel[1] - 1);
	assert_null(cprof_profile_check(profile));
}

/* Stacks without end: those that are known stay, all others become one, and no room is taken. */
static void test_too_many(void **state)
{
	struct fixture *f = *state;
	struct cprof_profile *profile = cprof_builder_profile(f->builder);
	uint32_t known = add_stack(f, CPROF_END_COMPLETE);
	struct cprof_frame frame = {.exact = true};
	struct cprof_stack stack = {.frames = &frame, .capacity = 1, .count = 1};
	uint32_t id = 0;
	size_t locations;

	for (uint64_t i = 1; !cprof_builder_is_full(f->builder); i++) {
		frame.pc = 0x1000 + i;
		id = cprof_builder_stack(f->builder, NULL, 0, &stack);
		assert_true(i < 10000000);
	}
	assert_int_equal(cprof_builder_stack(f->builder, NULL, 0, &stack), id);
	assert_int_equal(add_stack(f, CPROF_END_COMPLETE), known);
	frame.pc++;
	id = cprof_builder_stack(f->builder, NULL, 0, &stack);
	assert_string_equal(name_of(profile, id, 0), "[too many stacks]");
	locations = profile->location_count;
	for (int i = 0; i < 1000; i++) {
		frame.pc++;
		assert_int_equal(cprof_builder_stack(f->builder, NULL, 0, &stack), id);
	}
	assert_int_equal(profile->location_count, locations);
	assert_null(cprof_profile_check(profile));
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct cprof_profile *profile = cprof_builder_profile(f->builder), *copy;
	struct cprof_naming *naming, *later;
	const int64_t one = 1;
	uint32_t stack = add_stack(f, CPROF_END_COMPLETE), marker;
	size_t strings;
	bool kernel;

	cprof_profile_add(profile, stack, 0, &one);
	assert_null(cprof_builder_copy(f->builder, &naming));
	copy = cprof_naming_profile(naming);
	/* Ids are the same; what is added to the copy stays there. */
	assert_int_equal(copy->sample_count, 1);
	assert_int_equal(copy->samples[0].stack, stack);
	cprof_profile_add(copy, stack, 0, &one);
	assert_int_equal(copy->values[0], 2);
	assert_int_equal(profile->values[0], 1);
	marker = cprof_profile_marker(copy, "[only here]");
	cprof_profile_add(copy, cprof_profile_stack(copy, &marker, 1), 0, &one);
	/* The builder goes on meanwhile. */
	add_stack(f, CPROF_END_CORRUPT);
	strings = profile->string_count;
	assert_null(cprof_naming_run(naming, 0, &kernel));
	assert_string_equal(name_of(copy, stack, 0), "first_function");
	assert_string_equal(name_of(copy, stack, 1), "second_function");
	assert_string_equal(name_of(profile, stack, 0), "");
	assert_int_equal(profile->string_count, strings);
	assert_true(copy->mappings[1].has_functions);

	cprof_naming_give_back(naming, f->builder);
	assert_string_equal(name_of(profile, stack, 0), "first_function");
	assert_string_equal(name_of(profile, stack, 1), "second_function");
	assert_int_equal(profile->sample_count, 1);
	copy = cprof_naming_take(naming);
	cprof_naming_destroy(naming);
	assert_int_equal(copy->sample_count, 2);
	cprof_profile_destroy(copy);

	/* A later copy has the names already. */
	assert_null(cprof_builder_copy(f->builder, &later));
	assert_string_equal(name_of(cprof_naming_profile(later), stack, 1), "second_function");
	cprof_naming_destroy(later);
	cprof_naming_destroy(NULL);
	cprof_builder_destroy(NULL);
}

/* A copy can be built on: interning finds what was there. */
static void test_clone(void **state)
{
	struct fixture *f = *state;
	struct cprof_profile *profile = cprof_builder_profile(f->builder), *copy;
	uint32_t text = cprof_profile_string(profile, "a text");
	const struct cprof_profile_label label = {.key = text, .number = 7};
	uint32_t labels = cprof_profile_labels(profile, &label, 1);
	uint32_t stack = add_stack(f, CPROF_END_NO_CFI);
	const int64_t zero = 0, one = 1;

	cprof_profile_add(profile, stack, labels, &zero);
	cprof_profile_add_comment(profile, "a comment");
	assert_null(cprof_profile_clone(profile, &copy));
	assert_int_equal(cprof_profile_string(copy, "a text"), text);
	assert_int_equal(cprof_profile_labels(copy, &label, 1), labels);
	assert_int_equal(copy->location_count, profile->location_count);
	assert_int_equal(cprof_profile_marker(copy, "[no unwind info]"),
			 cprof_profile_marker(profile, "[no unwind info]"));
	assert_int_equal(copy->sample_count, 1); /* of value 0: it is there, as it was */
	cprof_profile_add(copy, stack, labels, &one);
	assert_int_equal(copy->sample_count, 1);
	assert_int_equal(copy->values[0], 1);
	assert_string_equal(copy->strings[copy->comments[0]], "a comment");
	for (int i = 0; i < 1000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "more %d", i);
		assert_int_equal(cprof_profile_string(copy, name),
				 cprof_profile_string(copy, name));
	}
	assert_null(cprof_profile_check(copy));
	cprof_profile_destroy(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stacks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

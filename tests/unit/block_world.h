/* SPDX-License-Identifier: MIT
 *
 * Off-CPU accounts of a process that is made up, and what they come to.
 */
#ifndef CPROF_TESTS_BLOCK_WORLD_H
#define CPROF_TESTS_BLOCK_WORLD_H

#include <cprof/locks.h>
#include <cprof/util.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS     1000000ull
#define BEGIN  (1000 * MS)
#define STACKS 8
#define SEEDS  300

static struct cprof_profile *profile;
static struct cprof_block *block;
static uint32_t stacks[STACKS];
static const char *const names[STACKS] = {
	"do_nanosleep", "pipe_read", "one", "two", "three", "four", "five", "six",
};
static uint64_t noise;

static __attribute__((unused)) const char *name_of(void *context, pid_t tid)
{
	(void)context;
	return tid == 99 ? NULL : tid == 2 ? "second" : "first";
}

/* Stack i: one frame in the kernel called names[i], and a user's one. */
static __attribute__((unused)) void make_stack(size_t i)
{
	char user[32];
	struct cprof_profile_function function = {.name = cprof_profile_string(profile, names[i])};
	struct cprof_profile_line line = {.function = cprof_profile_function(profile, &function)};
	uint32_t locations[2];

	locations[0] =
		cprof_profile_location_with(profile, 0, (1ull << 63) + i + 1, &line, 1, false);
	snprintf(user, sizeof(user), "user_%s", names[i]);
	function.name = cprof_profile_string(profile, user);
	line.function = cprof_profile_function(profile, &function);
	locations[1] = cprof_profile_location_with(profile, 0, 0x1000 + i, &line, 1, false);
	stacks[i] = cprof_profile_stack(profile, locations, 2);
}

static __attribute__((unused)) void open_block(uint64_t min_ns, uint64_t seed)
{
	const struct cprof_block_config config = {.min_ns = min_ns, .seed = seed, .name = name_of};

	assert_null(cprof_profile_create(&profile));
	cprof_block_describe(profile);
	for (size_t i = 0; i < STACKS; i++)
		make_stack(i);
	assert_null(cprof_block_create(&config, &block));
}

static __attribute__((unused)) int set_up(void **state)
{
	(void)state;
	open_block(0, 1);
	cprof_block_begin(block, BEGIN);
	return 0;
}

static __attribute__((unused)) int tear_down(void **state)
{
	(void)state;
	cprof_block_destroy(block);
	cprof_profile_destroy(profile);
	return 0;
}

static __attribute__((unused)) void told(uint64_t now)
{
	struct cprof_block_rows *rows;

	assert_null(cprof_block_rows(block, now, &rows));
	assert_null(cprof_block_fill(rows, false, profile));
	cprof_block_rows_destroy(rows);
}

static __attribute__((unused)) const char *text_of(const struct cprof_profile_sample *sample,
						   const char *key)
{
	const struct cprof_profile_span *span = &profile->label_sets[sample->labels];

	for (uint32_t i = 0; i < span->count; i++) {
		const struct cprof_profile_label *label = &profile->label_items[span->first + i];

		if (!strcmp(profile->strings[label->key], key))
			return profile->strings[label->text];
	}
	return "";
}

static __attribute__((unused)) const char *leaf_of(const struct cprof_profile_sample *sample)
{
	const struct cprof_profile_span *span = &profile->stacks[sample->stack];
	const struct cprof_profile_location *location =
		&profile->locations[profile->stack_items[span->first]];

	return profile
		->strings[profile->functions[profile->lines[location->first_line].function].name];
}

struct sum {
	int64_t count;
	int64_t ns;
};

/* Of the samples whose leaf has that name and whose label `wait` is that; NULL: any. */
static __attribute__((unused)) struct sum sum_of(const char *leaf, const char *wait)
{
	struct sum sum = {0};

	for (size_t i = 0; i < profile->sample_count; i++) {
		const struct cprof_profile_sample *sample = &profile->samples[i];

		if ((leaf && strcmp(leaf_of(sample), leaf)) ||
		    (wait && strcmp(text_of(sample, "wait"), wait)))
			continue;
		sum.count += profile->values[2 * i];
		sum.ns += profile->values[2 * i + 1];
	}
	return sum;
}

static __attribute__((unused)) void expect(const char *leaf, const char *wait, int64_t count,
					   uint64_t ns)
{
	struct sum sum = sum_of(leaf, wait);

	assert_int_equal(sum.count, count);
	assert_int_equal(sum.ns, ns);
}

static __attribute__((unused)) void wait_at(pid_t tid, uint64_t from, uint64_t until,
					    uint32_t stack)
{
	cprof_block_sample(block, tid, from - 100, stack);
	cprof_block_out(block, tid, from, false);
	cprof_block_in(block, tid, until);
}

static __attribute__((unused)) double chance(void)
{
	noise += 0x9e3779b97f4a7c15ull;
	return (double)(cprof_hash_u64(noise) >> 11) * 0x1p-53;
}

#endif

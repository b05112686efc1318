/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Off-CPU accounting for days: threads that come and go are folded into one without a change of the
 * sums, memory is bounded; what is new since earlier rows.
 */
#include <cprof/locks.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS     1000000ull
#define BEGIN  (1000 * MS)
#define STACKS 4

static struct cprof_block *block;

static const char *name_of(void *context, pid_t tid)
{
	(void)context;
	(void)tid;
	return "thread";
}

static int set_up(void **state)
{
	const struct cprof_block_config config = {.name = name_of};

	(void)state;
	assert_null(cprof_block_create(&config, &block));
	cprof_block_begin(block, BEGIN);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	cprof_block_destroy(cprof_take(block));
	return 0;
}

/* A profile in which stacks 1 to STACKS are there. */
static struct cprof_profile *fill(const struct cprof_block_rows *rows)
{
	struct cprof_profile *profile;

	assert_null(cprof_profile_create(&profile));
	cprof_block_describe(profile);
	for (uint64_t i = 0; i < STACKS; i++) {
		uint32_t location = cprof_profile_location(profile, 0, 0x1000 + i);

		cprof_profile_stack(profile, &location, 1);
	}
	assert_null(cprof_block_fill(rows, false, profile));
	return profile;
}

/* Sums of a stack's count and delay; 0: of all. */
static void sums(const struct cprof_block_rows *rows, uint32_t stack, int64_t sum[2])
{
	struct cprof_profile *profile = fill(rows);

	sum[0] = sum[1] = 0;
	for (size_t i = 0; i < profile->sample_count; i++)
		if (!stack || profile->samples[i].stack == stack) {
			sum[0] += profile->values[2 * i];
			sum[1] += profile->values[2 * i + 1];
		}
	cprof_profile_destroy(profile);
}

static void wait_at(pid_t tid, uint64_t time, uint64_t ns, uint32_t stack, bool preempted)
{
	if (stack)
		cprof_block_sample(block, tid, time, stack);
	cprof_block_out(block, tid, time, preempted);
	cprof_block_in(block, tid, time + ns);
}

static void live_and_die(pid_t tid, uint64_t time)
{
	cprof_block_born(block, tid);
	for (uint32_t i = 1; i <= STACKS; i++)
		wait_at(tid, time + i * MS, i * 1000 + (uint64_t)tid % 7, i, false);
	wait_at(tid, time + 10 * MS, 3 * MS, 2, true);   /* preempted, with a stack */
	wait_at(tid, time + 20 * MS, 70 * MS, 0, false); /* a length of which no stack is known */
	if (tid % 2)
		wait_at(tid, time + 100 * MS, MS, 0, true);
	cprof_block_ended(block, tid, time + 150 * MS);
}

static void test_fold(void **state)
{
	struct cprof_block_rows *before;
	struct cprof_block_rows *after;
	int64_t was[2], is[2];
	size_t rows;

	(void)state;
	assert_false(cprof_block_fold(block, 3000));
	for (pid_t tid = 1; tid <= 6000; tid++)
		live_and_die(tid, BEGIN + (uint64_t)tid * 200 * MS);
	wait_at(9999, BEGIN, 5 * MS, 1, false); /* this one stays */
	assert_null(cprof_block_rows(block, BEGIN, &before));
	assert_true(cprof_block_fold(block, 3000));
	assert_false(cprof_block_fold(block, 3000));
	assert_null(cprof_block_rows(block, BEGIN, &after));
	rows = cprof_block_rows_count(after);
	assert_true(rows < cprof_block_rows_count(before) / 4);
	for (uint32_t stack = 0; stack <= STACKS; stack++) {
		sums(before, stack, was);
		sums(after, stack, is);
		assert_int_equal(was[0], is[0]);
		assert_in_range(was[1] - is[1] + 10, 0, 20); /* scaled values are rounded */
	}
	cprof_block_rows_destroy(before);
	cprof_block_rows_destroy(after);
	/* Again and again: no more than that is kept, and nothing is lost. */
	for (int round = 0; round < 5; round++) {
		for (pid_t tid = 1; tid <= 6000; tid++)
			live_and_die(tid, BEGIN + (uint64_t)tid * 200 * MS);
		cprof_block_fold(block, 3000);
	}
	wait_at(9999, BEGIN + 1000000 * MS, 5 * MS, 1, false);
	assert_null(cprof_block_rows(block, BEGIN, &after));
	assert_true(cprof_block_rows_count(after) <= rows + 64);
	sums(after, 0, is);
	assert_int_equal(is[0], 6 * (6000 * (STACKS + 2) + 3000) + 2);
	cprof_block_rows_destroy(after);
}

static void test_since(void **state)
{
	struct cprof_block_rows *before;
	struct cprof_block_rows *now;
	int64_t sum[2];

	(void)state;
	cprof_block_born(block, 5);
	cprof_block_born(block, 6);
	wait_at(5, BEGIN + MS, MS, 1, false);
	wait_at(5, BEGIN + 3 * MS, 100 * MS, 1, false); /* another length, the same stack */
	cprof_block_sample(block, 6, BEGIN + 10 * MS, 2);
	cprof_block_out(block, 6, BEGIN + 10 * MS, false); /* goes on for long */
	assert_null(cprof_block_rows(block, BEGIN + 200 * MS, &before));
	wait_at(5, BEGIN + 300 * MS, 7 * MS, 1, false);
	wait_at(5, BEGIN + 310 * MS, 2 * MS, 3, false);
	assert_null(cprof_block_rows(block, BEGIN + 400 * MS, &now));
	assert_true(cprof_block_rows_subtract(now, before));
	sums(now, 1, sum);
	assert_int_equal(sum[0], 1);
	assert_int_equal(sum[1], 7 * MS);
	sums(now, 3, sum);
	assert_int_equal(sum[0], 1);
	assert_int_equal(sum[1], 2 * MS);
	sums(now, 2, sum); /* it is the same wait still, 200 ms longer */
	assert_int_equal(sum[0], 0);
	assert_int_equal(sum[1], 200 * MS);
	cprof_block_rows_destroy(now);
	/* Nothing is new. */
	assert_null(cprof_block_rows(block, BEGIN + 200 * MS, &now));
	assert_true(cprof_block_rows_subtract(before, now));
	sums(before, 0, sum);
	assert_int_equal(sum[0], 0);
	cprof_block_rows_destroy(now);
	cprof_block_rows_destroy(before);
}

/* A long wait without a stack, told to the end, is one of those of its length that have one: what
 * was shown of it before is not shown again. */
static void test_since_of_what_moves(void **state)
{
	struct cprof_perf_waits waits = {.tid = 5, .out_ns = BEGIN + 100 * MS};
	const struct cprof_perf_wait kept = {
		.from = BEGIN + MS, .until = BEGIN + 61 * MS, .weight = 1};
	struct cprof_perf_stratum *stratum = &waits.strata[cprof_perf_stratum_of(60 * MS, false)];
	struct cprof_block_rows *before;
	struct cprof_block_rows *now;
	int64_t sum[2];

	(void)state;
	cprof_block_born(block, 5);
	cprof_block_sample(block, 5, BEGIN + MS, 1);
	cprof_block_wait(block, 5, &kept);
	*stratum = (struct cprof_perf_stratum){1, 60 * MS};
	cprof_block_sums(block, &waits);
	assert_null(cprof_block_rows(block, BEGIN + 180 * MS, &before));
	*stratum = (struct cprof_perf_stratum){2, 160 * MS};
	waits.out_ns = BEGIN + 210 * MS;
	cprof_block_sums(block, &waits);
	assert_null(cprof_block_rows(block, BEGIN + 210 * MS, &now));
	assert_true(cprof_block_rows_subtract(now, before));
	sums(now, 0, sum);
	assert_int_equal(sum[1], 20 * MS);
	cprof_block_rows_destroy(now);
	cprof_block_rows_destroy(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fold, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_since, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_since_of_what_moves, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

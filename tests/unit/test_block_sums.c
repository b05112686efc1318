/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Off-CPU accounting where waits are summed up elsewhere and some are sampled: the sums come out
 * exactly, thinned stacks are unbiased, and what is lost invents nothing.
 */
#include "block_world.h"

/* As the kernel sums them up. */
static struct cprof_perf_waits summed;

static void sum_up(uint64_t ns, bool preempted)
{
	struct cprof_perf_stratum *stratum = &summed.strata[cprof_perf_stratum_of(ns, preempted)];

	stratum->count++;
	stratum->ns += ns;
}

/* A wait that is summed up, and told with its sample. */
static void kept_wait(pid_t tid, uint64_t from, uint64_t ns, uint32_t stack, double weight)
{
	const struct cprof_perf_wait wait = {
		.from = from,
		.until = from + ns,
		.weight = weight,
	};

	cprof_block_sample(block, tid, from + 1, stack);
	cprof_block_wait(block, tid, &wait);
	sum_up(ns, false);
}

static void tell_sums(pid_t tid)
{
	summed.tid = tid;
	cprof_block_sums(block, &summed);
}

/* Three stacks of different lengths, one in twenty with its stack. Over many seeds the estimates
 * agree with the truth, and their sum always does. */
static void thinning_is_unbiased(void **state)
{
	static const uint64_t lengths[3] = {20000, 45000, 3 * MS};
	static const unsigned counts[3] = {600, 300, 40};
	double sums[3] = {0};
	double missing = 0;
	double total = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		total += (double)(lengths[i] * counts[i]);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		uint64_t now = BEGIN;

		tear_down(NULL);
		open_block(0, seed);
		cprof_block_begin(block, BEGIN);
		noise = seed * 7919;
		summed = (struct cprof_perf_waits){0};
		for (unsigned i = 0; i < 3; i++) {
			for (unsigned j = 0; j < counts[i]; j++) {
				if (chance() < 0.05)
					kept_wait(1, now, lengths[i], stacks[2 + i], 20);
				else
					sum_up(lengths[i], false);
				now += lengths[i] + 30000;
				if (chance() < 0.01) /* however often */
					tell_sums(1);
			}
		}
		tell_sums(1);
		told(now);
		assert_true(fabs((double)sum_of(NULL, NULL).ns - total) < 8);
		assert_int_equal(sum_of(NULL, NULL).count, 940);
		for (unsigned i = 0; i < 3; i++)
			sums[i] += (double)sum_of(names[2 + i], NULL).ns / SEEDS;
		missing += (double)sum_of("[stack not sampled]", NULL).ns / SEEDS;
	}
	for (unsigned i = 0; i < 3; i++) {
		double truth = (double)(lengths[i] * counts[i]);

		/* 40 waits have no stack at all once in eight: that goes to the marker. */
		if (i == 2)
			sums[i] += missing;
		print_message("%s: %.0f of %.0f\n", names[2 + i], sums[i], truth);
		assert_true(fabs(sums[i] / truth - 1) < 0.02);
	}
}

/* Waits that are summed up elsewhere: those that have stacks stand for the others, what goes on is
 * told to where it is over, and nothing counts twice. */
static void sums_are_told(void **state)
{
	struct cprof_block_stats stats;

	(void)state;
	summed = (struct cprof_perf_waits){0};
	for (unsigned i = 0; i < 10; i++) {
		if (i % 5 == 0)
			kept_wait(1, BEGIN + (10 + i * 20) * MS, 7 * MS, stacks[0], 5);
		else
			sum_up(7 * MS, false);
		sum_up(1000, true);
	}
	summed.out_ns = BEGIN + 300 * MS;
	summed.sampled = true;
	cprof_block_sample(block, 1, BEGIN + 300 * MS + 2000, stacks[1]);
	tell_sums(1);
	tell_sums(1);
	told(BEGIN + 340 * MS);
	expect("do_nanosleep", "sleep", 10, 70 * MS);
	expect("pipe_read", "pipe", 1, 40 * MS);
	expect("[stack not sampled]", "runq", 10, 10000);
	expect(NULL, NULL, 21, 110 * MS + 10000);
	cprof_block_stats(block, &stats);
	assert_int_equal(stats.switches, 20);
	assert_int_equal(stats.preempted, 10);
	assert_int_equal(stats.blocked_ns, 70 * MS);
	assert_int_equal(stats.runq_ns, 10000);
	assert_true(stats.weight == 10);
}

/* It has its CPU again, but has not left it since: the wait between is told, and no more. */
static void what_is_over_is_told_to_its_end(void **state)
{
	(void)state;
	summed = (struct cprof_perf_waits){.out_ns = BEGIN + 10 * MS, .sampled = true};
	cprof_block_sample(block, 1, BEGIN + 10 * MS + 500, stacks[1]);
	summed.in_ns = BEGIN + 16 * MS;
	tell_sums(1);
	told(BEGIN + 500 * MS);
	expect("pipe_read", "pipe", 1, 6 * MS);
	expect(NULL, NULL, 1, 6 * MS);
}

/* A wait that goes on and was not sampled is stood for as the others of its length are. */
static void what_goes_on_is_stood_for(void **state)
{
	(void)state;
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + 10 * MS, 7 * MS, stacks[0], 4);
	kept_wait(1, BEGIN + 20 * MS, 7 * MS, stacks[1], 4);
	summed.out_ns = BEGIN + 100 * MS;
	tell_sums(1);
	told(BEGIN + 106 * MS);
	expect("do_nanosleep", "sleep", 2, 10 * MS); /* 1.5 of 3 */
	expect("pipe_read", "pipe", 2, 10 * MS);
	expect(NULL, NULL, 4, 20 * MS);
}

/* A sample of another wait is none of this one. */
static void a_lost_sample_is_not_replaced(void **state)
{
	const struct cprof_perf_wait later = {
		.from = BEGIN + 100 * MS, .until = BEGIN + 150 * MS, .weight = 1};

	(void)state;
	summed = (struct cprof_perf_waits){0};
	cprof_block_sample(block, 1, BEGIN + MS, stacks[0]); /* of which the end is lost */
	sum_up(MS, false);
	cprof_block_wait(block, 1, &later);
	sum_up(50 * MS, false);
	summed.out_ns = BEGIN + 200 * MS;
	tell_sums(1);
	told(BEGIN + 210 * MS);
	expect("do_nanosleep", NULL, 0, 0);
	expect("[stack not sampled]", "none", 3, 61 * MS);
}

/* Sampling takes some of a wait's time: that chooses neither its stratum nor its share there, or a
 * sampled one would be among others than those that it stands for. */
static void what_sampling_took_is_left_out(void **state)
{
	const struct cprof_perf_wait wait = {
		.from = BEGIN + MS, .until = BEGIN + MS + 3000 + 5000, .spent = 5000, .weight = 10};

	(void)state;
	summed = (struct cprof_perf_waits){0};
	cprof_block_sample(block, 1, BEGIN + MS + 100, stacks[1]);
	cprof_block_wait(block, 1, &wait);
	summed.strata[0] = (struct cprof_perf_stratum){10, 9 * 3000 + 8000};
	tell_sums(1);
	told(BEGIN + 5 * MS);
	expect("pipe_read", "pipe", 10, 35000);
	expect(NULL, NULL, 10, 35000);
}

/* The last wait is told after the thread's end; what has its number then is another. */
static void sums_end_with_the_thread(void **state)
{
	(void)state;
	cprof_block_born(block, 1);
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + 10 * MS, 2 * MS, stacks[0], 1);
	cprof_block_ended(block, 1, BEGIN + 15 * MS);
	kept_wait(1, BEGIN + 20 * MS, 2 * MS, stacks[0], 1);
	summed.ended = true;
	tell_sums(1);
	cprof_block_born(block, 1);
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + 30 * MS, 3 * MS, stacks[1], 1);
	tell_sums(1);
	told(BEGIN + 50 * MS);
	expect("do_nanosleep", NULL, 2, 4 * MS); /* of two, one of which came too late for it */
	expect("pipe_read", NULL, 1, 3 * MS);
}

/* Asleep since before, until it is seen to have its CPU. */
static void sleepers_are_summed_from_their_waking(void **state)
{
	(void)state;
	cprof_block_found(block, 1, true, stacks[0], CPROF_WAIT_SLEEP);
	cprof_block_found(block, 2, true, stacks[1], CPROF_WAIT_PIPE);
	cprof_block_in(block, 1, BEGIN + 40 * MS);
	summed = (struct cprof_perf_waits){.out_ns = BEGIN + 50 * MS};
	tell_sums(1);
	told(BEGIN + 51 * MS);
	expect("do_nanosleep", "sleep", 1, 40 * MS);
	expect("[stack not sampled]", "none", 1, MS); /* another length */
	expect("pipe_read", "pipe", 1, 51 * MS);
}

/* Who is not wanted has no part in it. */
static void sums_of_others_are_left_out(void **state)
{
	struct cprof_block_stats stats;

	(void)state;
	summed = (struct cprof_perf_waits){.out_ns = BEGIN + 50 * MS};
	kept_wait(99, BEGIN + 10 * MS, 2 * MS, stacks[0], 1);
	tell_sums(99);
	told(BEGIN + 100 * MS);
	expect(NULL, NULL, 0, 0);
	cprof_block_stats(block, &stats);
	assert_int_equal(stats.switches, 0);
}

/* The same program goes on under the same number: what it was before does not count again. */
static void sums_go_on_after_exec(void **state)
{
	(void)state;
	summed = (struct cprof_perf_waits){0};
	sum_up(5 * MS, false);
	tell_sums(1);
	cprof_block_exec(block, 1);
	cprof_block_begin(block, BEGIN + 20 * MS);
	kept_wait(1, BEGIN + 30 * MS, 3 * MS, stacks[1], 1);
	tell_sums(1);
	told(BEGIN + 50 * MS);
	expect(NULL, NULL, 1, 3 * MS);
}

/* Threads that live for three waits of lengths that go together, of each of which one in five has
 * its stack: such a one does not draw to it the time of the others, and none is left over. */
static void short_lives_stand_together(void **state)
{
	static const uint64_t lengths[3] = {2 * MS, 6 * MS, 12 * MS};
	const pid_t lives = 3000;
	const double total = 20.0 * MS * lives;

	(void)state;
	noise = 1;
	for (pid_t tid = 1000; tid < 1000 + lives; tid++) {
		uint64_t now = BEGIN + (uint64_t)tid * MS;

		cprof_block_born(block, tid);
		summed = (struct cprof_perf_waits){.ended = true};
		for (unsigned i = 0; i < 3; i++) {
			if (chance() < 0.2)
				kept_wait(tid, now, lengths[i], stacks[2 + i], 5);
			else
				sum_up(lengths[i], false);
			now += lengths[i] + 30000;
		}
		cprof_block_ended(block, tid, now);
		tell_sums(tid);
	}
	/* One that lives stands alone, however few stacks it has. */
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + MS, 2 * MS, stacks[0], 2);
	sum_up(2 * MS, false);
	tell_sums(1);
	told(BEGIN + 10000 * MS);
	for (unsigned i = 0; i < 3; i++) {
		double truth = (double)lengths[i] * lives;
		double is = (double)sum_of(names[2 + i], NULL).ns;

		print_message("%s: %.0f of %.0f\n", names[2 + i], is, truth);
		assert_true(fabs(is / truth - 1) < 0.15); /* 600 samples: 4 % */
	}
	expect("[stack not sampled]", NULL, 0, 0);
	expect("do_nanosleep", NULL, 2, 4 * MS);
	assert_true(fabs((double)sum_of(NULL, NULL).ns - total - 4 * MS) < 2.0 * lives);
	assert_true(cprof_block_fold(block, 2048));
	cprof_profile_destroy(profile);
	assert_null(cprof_profile_create(&profile));
	cprof_block_describe(profile);
	for (size_t i = 0; i < STACKS; i++)
		make_stack(i);
	told(BEGIN + 10000 * MS);
	expect("[stack not sampled]", NULL, 0, 0);
	assert_true(fabs((double)sum_of(NULL, NULL).ns - total - 4 * MS) < 2.0 * lives);
}

/* Asleep since before: the sample of it can be lost, and its weight says nothing, for all of these
 * are told. */
static void sleepers_need_no_sample(void **state)
{
	const struct cprof_perf_wait wait = {
		.from = BEGIN - 5 * MS, .until = BEGIN + 50 * MS, .weight = 20};

	(void)state;
	cprof_block_found(block, 1, true, stacks[0], CPROF_WAIT_SLEEP);
	cprof_block_found(block, 2, true, stacks[0], CPROF_WAIT_SLEEP);
	for (pid_t tid = 1; tid <= 2; tid++) {
		if (tid == 2)
			cprof_block_sample(block, tid, BEGIN - 5 * MS + 1000, stacks[1]);
		cprof_block_wait(block, tid, &wait);
		summed = (struct cprof_perf_waits){.out_ns = BEGIN + 200 * MS};
		sum_up(50 * MS, false);
		tell_sums(tid);
	}
	told(BEGIN + 200 * MS);
	expect("do_nanosleep", "sleep", 1, 50 * MS);
	expect("pipe_read", "pipe", 1, 50 * MS);
	expect(NULL, NULL, 2, 100 * MS);
}

/* Killed where it has slept since before: that it had its CPU once more is not told. */
static void sleepers_can_be_killed(void **state)
{
	(void)state;
	cprof_block_found(block, 1, true, stacks[0], CPROF_WAIT_SLEEP);
	cprof_block_found(block, 99, true, stacks[0], CPROF_WAIT_SLEEP);
	cprof_block_ended(block, 1, BEGIN + 40 * MS);
	cprof_block_ended(block, 99, BEGIN + 40 * MS);
	cprof_block_ended(block, 1, BEGIN + 60 * MS);
	told(BEGIN + 100 * MS);
	expect("do_nanosleep", "sleep", 1, 40 * MS);
	expect(NULL, NULL, 1, 40 * MS);
}

/* A thread that is not the first execs: it has the number of the first, which has ended, but none
 * of its waits. */
static void sums_of_a_thread_that_execs_are_its_own(void **state)
{
	(void)state;
	cprof_block_born(block, 2);
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + 10 * MS, 3 * MS, stacks[0], 1);
	tell_sums(1);
	cprof_block_ended(block, 1, BEGIN + 20 * MS);
	cprof_block_exec(block, 1);
	summed = (struct cprof_perf_waits){0};
	kept_wait(1, BEGIN + 30 * MS, 4 * MS, stacks[1], 1);
	kept_wait(1, BEGIN + 40 * MS, 4 * MS, stacks[1], 1);
	tell_sums(1);
	told(BEGIN + 50 * MS);
	expect("do_nanosleep", NULL, 1, 3 * MS);
	expect("pipe_read", NULL, 2, 8 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sums_are_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_over_is_told_to_its_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_goes_on_is_stood_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_lost_sample_is_not_replaced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_sampling_took_is_left_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sums_end_with_the_thread, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sleepers_are_summed_from_their_waking, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(sums_of_others_are_left_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sums_go_on_after_exec, set_up, tear_down),
		cmocka_unit_test_setup_teardown(short_lives_stand_together, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sleepers_need_no_sample, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sleepers_can_be_killed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sums_of_a_thread_that_execs_are_its_own, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(thinning_is_unbiased, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

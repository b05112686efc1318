/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Off-CPU accounting on records made by hand: known waits come out exactly, missing records invent
 * nothing, and names say what is waited for.
 */
#include "block_world.h"

/* --- whole streams --------------------------------------------------------------------------- */

static void waits_are_exact(void **state)
{
	struct cprof_block_stats stats;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		wait_at(1, BEGIN + (1 + i * 20) * MS, BEGIN + (1 + i * 20) * MS + 7 * MS + i,
			stacks[0]);
		wait_at(2, BEGIN + (1 + i * 20) * MS, BEGIN + (1 + i * 20) * MS + 1000, stacks[1]);
	}
	told(BEGIN + 1000 * MS);
	expect("do_nanosleep", "sleep", 10, 70 * MS + 45);
	expect("pipe_read", "pipe", 10, 10000);
	expect(NULL, NULL, 20, 70 * MS + 45 + 10000);
	assert_string_equal(profile->strings[profile->types[0].type], "contentions");
	assert_string_equal(profile->strings[profile->types[1].unit], "nanoseconds");
	assert_string_equal(text_of(&profile->samples[0], "thread"), "first");
	cprof_block_stats(block, &stats);
	assert_int_equal(stats.switches, 20);
	assert_int_equal(stats.samples, 20);
	assert_int_equal(stats.broken + stats.preempted + stats.unsure, 0);
}

static void preemption_is_no_wait(void **state)
{
	(void)state;
	cprof_block_sample(block, 1, BEGIN + 10, stacks[2]);
	cprof_block_out(block, 1, BEGIN + 20, true);
	cprof_block_in(block, 1, BEGIN + 20 + 3 * MS);
	wait_at(1, BEGIN + 5 * MS, BEGIN + 6 * MS, stacks[0]);
	told(BEGIN + 10 * MS);
	expect("two", NULL, 0, 0);
	expect("[preempted]", "runq", 1, 3 * MS); /* what the kernel did does not matter */
	expect("one", NULL, 0, 0);
	expect("do_nanosleep", "sleep", 1, MS);
	expect(NULL, "runq", 1, 3 * MS);
}

/* What goes on at the beginning and at the end counts for the part that lies between. */
static void waits_are_clipped(void **state)
{
	(void)state;
	cprof_block_sample(block, 1, BEGIN - 5 * MS, stacks[0]);
	cprof_block_out(block, 1, BEGIN - 4 * MS, false);
	cprof_block_in(block, 1, BEGIN + 2 * MS);
	wait_at(2, BEGIN - 9 * MS, BEGIN - 8 * MS, stacks[2]);
	cprof_block_sample(block, 2, BEGIN + 10 * MS, stacks[1]);
	cprof_block_out(block, 2, BEGIN + 11 * MS, false);
	told(BEGIN + 20 * MS);
	expect("do_nanosleep", NULL, 1, 2 * MS);
	expect("pipe_read", NULL, 1, 9 * MS);
	expect(NULL, NULL, 2, 11 * MS);
}

/* Threads that sleep throughout are known by the dump alone; the dump itself wakes some. */
static void sleepers_are_found(void **state)
{
	(void)state;
	cprof_block_found(block, 1, true, stacks[2], CPROF_WAIT_MUTEX);
	cprof_block_found(block, 2, true, stacks[3], CPROF_WAIT_COND);
	cprof_block_found(block, 3, false, stacks[4], CPROF_WAIT_NONE);
	cprof_block_found(block, 4, true, 0, CPROF_WAIT_NONE);
	/* held by the dump before the beginning, then asleep again: thinned or lost stacks */
	cprof_block_in(block, 2, BEGIN - 3 * MS);
	cprof_block_out(block, 2, BEGIN - 2 * MS, false);
	told(BEGIN + 50 * MS);
	expect("one", "mutex", 1, 50 * MS);
	expect("two", "cond", 1, 50 * MS);
	expect("three", NULL, 0, 0);
	expect("[stack not sampled]", "none", 1, 50 * MS);
	expect(NULL, NULL, 3, 150 * MS);
}

static void nothing_counts_before_the_beginning(void **state)
{
	(void)state;
	tear_down(NULL);
	open_block(0, 1);
	wait_at(1, 10 * MS, 20 * MS, stacks[0]);
	told(30 * MS);
	assert_int_equal(profile->sample_count, 0);
	cprof_block_begin(block, 40 * MS);
	wait_at(1, 50 * MS, 55 * MS, stacks[0]);
	told(60 * MS);
	expect(NULL, NULL, 1, 5 * MS);
}

static void unwanted_threads_are_nowhere(void **state)
{
	(void)state;
	cprof_block_found(block, 99, true, stacks[2], CPROF_WAIT_MUTEX);
	wait_at(99, BEGIN + MS, BEGIN + 2 * MS, stacks[0]);
	told(BEGIN + 10 * MS);
	assert_int_equal(profile->sample_count, 0);
}

/* --- what is missing ---------------------------------------------------------------------------
 */

static void missing_ins_invent_nothing(void **state)
{
	struct cprof_block_stats stats;

	(void)state;
	cprof_block_sample(block, 1, BEGIN + MS, stacks[0]);
	cprof_block_out(block, 1, BEGIN + MS, false);
	/* it was in for a while, nobody said when */
	cprof_block_sample(block, 1, BEGIN + 80 * MS, stacks[1]);
	cprof_block_out(block, 1, BEGIN + 80 * MS, false);
	cprof_block_in(block, 1, BEGIN + 82 * MS);
	told(BEGIN + 100 * MS);
	expect(NULL, NULL, 1, 2 * MS);
	expect("pipe_read", NULL, 1, 2 * MS);
	cprof_block_stats(block, &stats);
	assert_int_equal(stats.broken, 1);
}

static void missing_outs_invent_nothing(void **state)
{
	(void)state;
	wait_at(1, BEGIN + MS, BEGIN + 2 * MS, stacks[0]);
	cprof_block_sample(block, 1, BEGIN + 3 * MS, stacks[1]);
	cprof_block_in(block, 1, BEGIN + 70 * MS); /* of an out that was lost */
	cprof_block_out(block, 1, BEGIN + 80 * MS, false);
	cprof_block_in(block, 1, BEGIN + 81 * MS);
	told(BEGIN + 100 * MS);
	expect(NULL, NULL, 2, 2 * MS);
	/* The lost one's stack is not taken for the next; its length is another's here. */
	expect("pipe_read", NULL, 0, 0);
}

static void lost_records_make_waits_unsure(void **state)
{
	(void)state;
	cprof_block_sample(block, 1, BEGIN + MS, stacks[0]);
	cprof_block_out(block, 1, BEGIN + MS, false);
	cprof_block_out(block, 2, BEGIN + MS, false);
	cprof_block_lost(block);
	cprof_block_in(block, 1, BEGIN + 11 * MS);
	wait_at(1, BEGIN + 20 * MS, BEGIN + 24 * MS, stacks[0]);
	told(BEGIN + 31 * MS);
	expect("[lost switches]", "none", 2, 10 * MS + 30 * MS);
	expect("do_nanosleep", "sleep", 1, 4 * MS);
}

static void records_told_twice_or_late_count_once(void **state)
{
	(void)state;
	cprof_block_sample(block, 1, BEGIN + MS, stacks[0]);
	cprof_block_out(block, 1, BEGIN + MS, false);
	cprof_block_out(block, 1, BEGIN + MS + 300, false);
	cprof_block_in(block, 1, BEGIN + 3 * MS);
	cprof_block_in(block, 1, BEGIN + 3 * MS + 300);
	/* the in is seen before the out that it ends */
	cprof_block_in(block, 2, BEGIN + 5 * MS);
	cprof_block_in(block, 2, BEGIN + 8 * MS);
	cprof_block_sample(block, 2, BEGIN + 6 * MS - 100, stacks[1]);
	cprof_block_out(block, 2, BEGIN + 6 * MS, false);
	told(BEGIN + 100 * MS);
	expect("do_nanosleep", NULL, 1, 2 * MS);
	expect("pipe_read", NULL, 1, 2 * MS);
	expect(NULL, NULL, 2, 4 * MS);
}

static void threads_come_and_go(void **state)
{
	(void)state;
	wait_at(1, BEGIN + MS, BEGIN + 2 * MS, stacks[0]);
	cprof_block_ended(block, 1, BEGIN + 3 * MS);
	cprof_block_out(block, 1, BEGIN + 3 * MS, false); /* for ever */
	told(BEGIN + 100 * MS);
	expect(NULL, NULL, 1, MS);
	tear_down(NULL);
	set_up(NULL);
	wait_at(1, BEGIN + MS, BEGIN + 2 * MS, stacks[0]);
	cprof_block_ended(block, 1, BEGIN + 3 * MS);
	cprof_block_born(block, 1); /* another one, by the same number */
	cprof_block_in(block, 1, BEGIN + 110 * MS);
	wait_at(1, BEGIN + 120 * MS, BEGIN + 121 * MS, stacks[1]);
	told(BEGIN + 200 * MS);
	expect("do_nanosleep", NULL, 1, MS);
	expect("pipe_read", NULL, 1, MS);
}

static void exec_leaves_one_thread(void **state)
{
	(void)state;
	cprof_block_out(block, 2, BEGIN + 1 * MS, false);
	cprof_block_ended(block, 1, BEGIN + 3 * MS);
	cprof_block_exec(block, 1);
	wait_at(1, BEGIN + 40 * MS, BEGIN + 45 * MS, stacks[2]);
	told(BEGIN + 60 * MS);
	expect("one", NULL, 1, 5 * MS);
	expect(NULL, NULL, 1, 5 * MS);
}

/* --- chance ---------------------------------------------------------------------------------- */

/* Short waits stand for others of their length; the sums stay exact. */
static void short_waits_are_scaled_back(void **state)
{
	double sums[2] = {0};
	double counts[2] = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		uint64_t now = BEGIN;

		tear_down(NULL);
		open_block(MS, seed);
		cprof_block_begin(block, BEGIN);
		for (unsigned i = 0; i < 500; i++, now += 2 * MS)
			wait_at(1, now + 200, now + 200 + (i % 2 ? 70000 : 100000),
				stacks[2 + i % 2]);
		wait_at(1, now + 200, now + 200 + 5 * MS, stacks[4]);
		told(now + 10 * MS);
		expect("three", NULL, 1, 5 * MS);
		assert_true(llabs(sum_of(NULL, NULL).ns - (250 * 170000 + 5 * (int64_t)MS)) < 8);
		for (unsigned i = 0; i < 2; i++) {
			sums[i] += (double)sum_of(names[2 + i], NULL).ns / SEEDS;
			counts[i] += (double)sum_of(names[2 + i], NULL).count / SEEDS;
		}
	}
	print_message("%.0f of 25000000, %.0f of 17500000; %.1f, %.1f of 250\n", sums[0], sums[1],
		      counts[0], counts[1]);
	assert_true(fabs(sums[0] / 25e6 - 1) < 0.02 && fabs(sums[1] / 17.5e6 - 1) < 0.02);
	assert_true(fabs(counts[0] / 250 - 1) < 0.03 && fabs(counts[1] / 250 - 1) < 0.03);
}

/* --- kinds ----------------------------------------------------------------------------------- */

static void kinds_are_told_by_names(void **state)
{
	static const struct {
		const char *wait;
		size_t kernel;
		const char *names[8];
	} cases[] = {
		{"mutex",
		 3,
		 {"__schedule", "futex_do_wait", "do_futex", "__lll_lock_wait",
		  "___pthread_mutex_lock", "work"}},
		{"mutex",
		 1,
		 {"futex_wait", "__lll_lock_wait", "__pthread_mutex_cond_lock",
		  "___pthread_cond_wait", "work"}},
		{"cond",
		 2,
		 {"futex_wait_queue", "do_futex", "__futex_abstimed_wait_common", NULL,
		  "pthread_cond_timedwait", "work"}},
		{"rwlock", 1, {"futex_wait", NULL, "__pthread_rwlock_rdlock", "work"}},
		{"sem", 1, {"__futex_wait", "__new_sem_wait_slow64", "sem_wait", "work"}},
		{"join", 1, {"futex_wait", NULL, "__pthread_clockjoin_ex", "main"}},
		{"futex", 1, {"futex_wait", "syscall", "std::sys::futex_wait", "work"}},
		{"futex", 1, {"futex_wait", "runtime.futex", "runtime.mcall"}},
		{"futex", 1, {"futex_wait"}},
		{"sleep",
		 4,
		 {"__schedule", "schedule", "do_nanosleep", "hrtimer_nanosleep", "clock_nanosleep",
		  "work"}},
		{"poll", 3, {"schedule_hrtimeout_range_clock", "ep_poll", "do_epoll_wait", "work"}},
		{"poll", 2, {"do_poll.constprop.0", "do_sys_poll", "poll"}},
		{"poll", 2, {"do_wait", "kernel_wait4", "waitpid"}},
		{"pipe", 2, {"anon_pipe_read", "vfs_read", "read"}},
		{"pipe", 2, {"pipe_write", "vfs_write", "write"}},
		{"socket", 3, {"schedule_timeout", "unix_stream_data_wait", "vfs_read", "read"}},
		{"socket", 2, {"sk_wait_data", "tcp_recvmsg_locked", "recv"}},
		{"socket", 1, {"inet_csk_accept", "accept"}},
		{"file", 2, {"io_schedule", "folio_wait_bit_common", "work"}},
		{"file", 2, {"eventfd_read", "vfs_read", "read"}},
		{"none", 2, {"__schedule", "rwsem_down_write_slowpath", "mmap"}},
		{"none", 0, {NULL, "work"}},
		/* no names of the kernel's */
		{"sleep", 2, {NULL, NULL, "__GI___clock_nanosleep", "work"}},
		{"mutex", 1, {NULL, "__lll_lock_wait", "pthread_mutex_lock", "work"}},
		{"poll", 1, {NULL, "epoll_wait", "work"}},
		{"none", 1, {NULL, "work"}},
	};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(cases); i++) {
		size_t count = 8;

		while (count && !cases[i].names[count - 1])
			count--;
		print_message("case %zu\n", i);
		assert_string_equal(
			cprof_wait_name(cprof_block_kind(cases[i].names, cases[i].kernel, count)),
			cases[i].wait);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(waits_are_exact, set_up, tear_down),
		cmocka_unit_test_setup_teardown(preemption_is_no_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(waits_are_clipped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sleepers_are_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_counts_before_the_beginning, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(unwanted_threads_are_nowhere, set_up, tear_down),
		cmocka_unit_test_setup_teardown(missing_ins_invent_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(missing_outs_invent_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lost_records_make_waits_unsure, set_up, tear_down),
		cmocka_unit_test_setup_teardown(records_told_twice_or_late_count_once, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(threads_come_and_go, set_up, tear_down),
		cmocka_unit_test_setup_teardown(exec_leaves_one_thread, set_up, tear_down),
		cmocka_unit_test_setup_teardown(short_waits_are_scaled_back, set_up, tear_down),
		cmocka_unit_test(kinds_are_told_by_names),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}

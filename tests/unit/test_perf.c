/* SPDX-License-Identifier: MIT
 *
 * Both ways of sampling on live processes: as many samples as CPU time says, none twice.
 */
#include "perf_live.h"
#include <sys/mman.h>

/* --- programs ------------------------------------------------------------------------------ */

/* Threads that live for 2 ms of CPU, one after the other. */
static void child_short(void)
{
	for (;;) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, burn_thread, (void *)(uintptr_t)2000000))
			_exit(1);
		pthread_join(thread, NULL);
	}
}

static int ping[2];
static int pong[2];

static void *pong_thread(void *unused)
{
	char byte;

	while (read(ping[0], &byte, 1) == 1 && write(pong[1], &byte, 1) == 1)
		;
	return unused;
}

/* Two threads hand a byte to and fro: a context switch every few microseconds. */
static void child_pingpong(void)
{
	pthread_t thread;
	char byte = 0;
	cpu_set_t one;

	/* With idling between the switches much time passes with interrupts off, unseen. */
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		_exit(1);
	if (pipe(ping) || pipe(pong) || pthread_create(&thread, NULL, pong_thread, NULL))
		_exit(1);
	while (write(ping[1], &byte, 1) == 1 && read(pong[0], &byte, 1) == 1)
		;
}

static void child_exec(void)
{
	usleep(200000);
	execl("/bin/sh", "sh", "-c", "while :; do :; done", NULL);
	_exit(1);
}

/* Two functions take turns, each for half of a sampling period. */
#define TURN_NS (SECOND / RATE / 2)

static __attribute__((noinline, aligned(CODE_SIZE))) void turn_first(uint64_t until)
{
	while (cprof_now_ns() < until)
		for (volatile int i = 0; i < 2000; i++)
			;
}

static __attribute__((noinline, aligned(CODE_SIZE))) void turn_second(uint64_t until)
{
	while (cprof_now_ns() < until)
		for (volatile int i = 0; i < 2000; i++)
			;
}

static uint64_t *turn_spent; /* shared: CPU ns of either */

static void child_cycle(void)
{
	uint64_t start = cprof_now_ns();

	for (uint64_t turn = 1;; turn++) {
		uint64_t before = cprof_thread_cpu_ns();
		uint64_t between;

		turn_first(start + (2 * turn - 1) * TURN_NS);
		between = cprof_thread_cpu_ns();
		turn_second(start + 2 * turn * TURN_NS);
		turn_spent[0] += between - before;
		turn_spent[1] += cprof_thread_cpu_ns() - between;
	}
}

/* --- tests --------------------------------------------------------------------------------- */

static void busy_is_counted(void **state)
{
	(void)state;
	run_on(child_busy, CPROF_PERF_CPU_WIDE);
	assert_int_equal(run.stats.way, CPROF_PERF_CPU_WIDE);
	assert_int_equal(run.stats.counted, 0);
	assert_true(honest());
	run_on(child_busy, CPROF_PERF_PER_THREAD);
	assert_int_equal(run.stats.way, CPROF_PERF_PER_THREAD);
	assert_true(honest());
	assert_true(counts_cpu());
}

/* A thread shorter than a period is never sampled by its own event, but by the CPU's. */
static void short_threads_are_seen_cpu_wide(void **state)
{
	(void)state;
	run_on(child_short, CPROF_PERF_CPU_WIDE);
	assert_true(honest());
	assert_true(tally.thread_count > tally.samples / 2);
	assert_true(tally.forks >= tally.thread_count / 2);
}

static void births_are_counted_once(void **state)
{
	(void)state;
	run_on(child_births, CPROF_PERF_CPU_WIDE);
	assert_true(honest());
	run_on(child_births, CPROF_PERF_PER_THREAD);
	/* An event's first sample comes a full period after its thread was born on that CPU: half a
	 * period is missing for each CPU that a thread of 60 ms ran on, but nothing is there twice.
	 */
	assert_true((double)tally.samples < (double)run.cpu_most / (double)run.stats.period * 1.02);
	assert_true((double)tally.samples > (double)run.cpu / (double)run.stats.period * 0.85);
	assert_true(counts_cpu());
	assert_true(births_were_seen(run.cpu, tally.thread_count));
	assert_int_equal(tally.out_of_order, 0);
}

/* Threads that have inherited an event get another of their own. */
static void a_rescan_counts_nothing_twice(void **state)
{
	pid_t pid = spawn(child_births, 0);
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t before, outside, stolen;

	(void)state;
	memset(&tally, 0, sizeof(tally));
	tally.pid = pid;
	run = run_of(CPROF_PERF_PER_THREAD);
	ok(cprof_target_create(pid, &target));
	ok(cprof_perf_create(target, &run.config, &perf));
	outside = cpu_of(pid);
	stolen = stolen_ns();
	ok(cprof_perf_enable(perf));
	before = cpu_of(pid);
	for (unsigned i = 0; i < 20; i++) {
		/* Before the records that tell of the births have been read. */
		usleep(100000);
		ok(cprof_perf_rescan(perf));
		cprof_perf_drain(perf, false, on_record, NULL);
	}
	run.cpu = cpu_of(pid) - before;
	cprof_perf_disable(perf);
	run.cpu_most = cpu_of(pid) - outside + stolen_ns() - stolen;
	cprof_perf_drain(perf, true, on_record, NULL);
	cprof_perf_stats(perf, &run.stats);
	print_message("rescans: %lu samples, expected %lu, counted %lu of %lu ms, %u events\n",
		      tally.samples, run.cpu / run.stats.period, run.stats.counted / 1000000,
		      run.cpu / 1000000, run.stats.events);
	assert_true((double)tally.samples < (double)run.cpu_most / (double)run.stats.period * 1.02);
	/* Changing from one event to the other costs a thread a sample or two of its thirty. */
	assert_true((double)tally.samples > (double)run.cpu / (double)run.stats.period * 0.7);
	assert_true((double)run.stats.counted < (double)run.cpu_most * 1.08);
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	end(pid);
}

static void switches_are_counted(void **state)
{
	(void)state;
	run_on(child_pingpong, CPROF_PERF_CPU_WIDE);
	assert_true(honest());
	assert_int_equal(tally.thread_count, 2);
	/* Here samples are missing, which is why the other way is preferred; the count is not. */
	run_on(child_pingpong, CPROF_PERF_PER_THREAD);
	print_message("counted %lu ms of %lu ms\n", run.stats.counted / 1000000, run.cpu / 1000000);
	assert_true((double)tally.samples < (double)run.cpu_most / (double)run.stats.period * 1.1);
}

static void exec_is_followed(void **state)
{
	static const enum cprof_perf_way ways[] = {CPROF_PERF_CPU_WIDE, CPROF_PERF_PER_THREAD};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(ways); i++) {
		run_on(child_exec, ways[i]);
		assert_true(tally.execs > 0);
		assert_true(tally.maps > 2); /* the program, the loader, libc */
		assert_true(tally.samples > 0);
		assert_true(honest());
	}
}

/* The stack is shallow and the rate high: dumps shrink; nothing is lost or doubled by it. */
static void dumps_shrink_and_grow(void **state)
{
	static const enum cprof_perf_way ways[] = {CPROF_PERF_CPU_WIDE, CPROF_PERF_PER_THREAD};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(ways); i++) {
		pid_t pid = spawn(child_busy, 0);

		memset(&tally, 0, sizeof(tally));
		run = run_of(ways[i]);
		run.seconds = 5;
		tally.stack_need = 5000;
		profile(pid);
		assert_int_equal(run.stats.stack_bytes, 12288);
		assert_true(honest());
		end(pid);
	}
	run = run_of(CPROF_PERF_CPU_WIDE);
	run.config.stack_bytes = 256;
	memset(&tally, 0, sizeof(tally));
	{
		pid_t pid = spawn(child_busy, 0);

		profile(pid);
		end(pid);
	}
	assert_int_equal(run.stats.stack_bytes, 256);
	assert_true(tally.cut > 0);
}

/* Nobody drains for a second: what did not fit is counted, and dumps shrink at once. */
static void losses_are_exact(void **state)
{
	pid_t pid = spawn(child_busy, 0);
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t before;
	double expected;

	(void)state;
	memset(&tally, 0, sizeof(tally));
	run = run_of(CPROF_PERF_CPU_WIDE);
	run.config.rate = 4999;
	tally.pid = pid;
	tally.stack_need = 5000;
	ok(cprof_target_create(pid, &target));
	ok(cprof_perf_create(target, &run.config, &perf));
	tally.perf = perf;
	ok(cprof_perf_enable(perf));
	before = cpu_of(pid);
	/* By the target's CPU time, not ours: the machine may be busy. */
	while (cpu_of(pid) < before + SECOND / 2)
		usleep(10000);
	/* What was lost is told by the first record that fits again. */
	cprof_perf_drain(perf, false, on_record, NULL);
	while (cpu_of(pid) < before + SECOND / 2 + SECOND / 20)
		usleep(1000);
	cprof_perf_drain(perf, false, on_record, NULL);
	run.cpu = cpu_of(pid) - before;
	cprof_perf_disable(perf);
	cprof_perf_drain(perf, true, on_record, NULL);
	cprof_perf_stats(perf, &run.stats);
	expected = (double)run.cpu / (double)run.stats.period;
	print_message("%lu samples, %lu lost, expected %.0f\n", tally.samples, run.stats.lost,
		      expected);
	assert_true(run.stats.lost > 100);
	assert_true(fabs((double)(tally.samples + run.stats.lost) - expected) < expected * 0.1);
	assert_int_equal(run.stats.stack_bytes, 12288);
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	end(pid);
}

/* A program whose cycle is as long as the sampling period is not seen in one phase for ever. */
static void cycles_are_not_followed(void **state)
{
	double share;
	double truth;
	pid_t pid;

	(void)state;
	turn_spent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(turn_spent, MAP_FAILED);
	pid = spawn(child_cycle, 0);
	run = run_of(CPROF_PERF_CPU_WIDE);
	run.seconds = 8;
	memset(&tally, 0, sizeof(tally));
	tally.code[0] = (uint64_t)(uintptr_t)turn_first;
	tally.code[1] = (uint64_t)(uintptr_t)turn_second;
	profile(pid);
	end(pid);
	share = (double)tally.in[0] / (double)(tally.in[0] + tally.in[1]);
	truth = (double)turn_spent[0] / (double)(turn_spent[0] + turn_spent[1]);
	print_message("first function: %.3f of the samples, %.3f of the time\n", share, truth);
	assert_true(tally.in[0] + tally.in[1] > tally.samples / 2);
	assert_true(fabs(share - truth) < 0.1);
	munmap(turn_spent, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(busy_is_counted),
		cmocka_unit_test(short_threads_are_seen_cpu_wide),
		cmocka_unit_test(births_are_counted_once),
		cmocka_unit_test(a_rescan_counts_nothing_twice),
		cmocka_unit_test(switches_are_counted),
		cmocka_unit_test(exec_is_followed),
		cmocka_unit_test(dumps_shrink_and_grow),
		cmocka_unit_test(losses_are_exact),
		cmocka_unit_test(cycles_are_not_followed),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("[  SKIPPED ] live sampling: must be root\n");
		return 0;
	}
	return cmocka_run_group_tests_name("perf", tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Context switches of live processes, both ways: what a thread slept adds up, stacks are there, and
 * thinning stays true to the number of switches.
 */
#include "perf_live.h"

#define NAP_NS 20000000ull

static struct {
	uint64_t outs;
	uint64_t ins;
	uint64_t preempted;
	uint64_t out_at;
	uint64_t waited; /* ns, of waits that were not preemption */
	uint64_t samples;
	uint64_t stacks; /* with registers, stack and kernel chain */
	double weight;
	bool blocked;
	uint64_t lasted; /* ns, the whole run */
} seen;

static pid_t watched;

static void on_switch(void *context, const struct cprof_perf_record *record)
{
	(void)context;
	assert_int_equal(record->pid, watched);
	if (record->type == CPROF_PERF_SAMPLE) {
		seen.samples++;
		seen.weight += record->sample.weight;
		seen.stacks += record->sample.has_user && record->sample.stack_length >= 64 &&
			       record->sample.kernel_count > 2;
	} else if (record->type == CPROF_PERF_SWITCH && record->switched.out) {
		seen.outs++;
		seen.preempted += record->switched.preempted;
		seen.out_at = record->time;
		seen.blocked = !record->switched.preempted;
	} else if (record->type == CPROF_PERF_SWITCH) {
		seen.ins++;
		if (seen.blocked)
			seen.waited += record->time - seen.out_at;
		seen.blocked = false;
	}
}

static void watch(void (*body)(void), enum cprof_perf_way way, unsigned rate,
		  struct cprof_perf_stats *stats)
{
	const struct cprof_perf_config config = {.way = way,
						 .clock = CPROF_PERF_SWITCHES,
						 .rate = rate,
						 .kernel = true,
						 .user_stack = true};
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t begin_ns;
	uint64_t end_ns;

	memset(&seen, 0, sizeof(seen));
	watched = spawn(body, 0);
	ok(cprof_target_create(watched, &target));
	ok(cprof_perf_create(target, &config, &perf));
	ok(cprof_perf_enable(perf));
	begin_ns = cprof_now_ns();
	end_ns = begin_ns + SECOND;
	while (cprof_now_ns() < end_ns) {
		struct pollfd fd = {.fd = cprof_perf_fd(perf), .events = POLLIN};

		poll(&fd, 1, 20);
		cprof_perf_drain(perf, false, on_switch, NULL);
	}
	cprof_perf_disable(perf);
	seen.lasted = cprof_now_ns() - begin_ns;
	cprof_perf_drain(perf, true, on_switch, NULL);
	cprof_perf_stats(perf, stats);
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	end(watched);
	print_message("%s: %lu out, %lu in, %lu samples of weight %.0f, waited %.3f s, lost %lu + "
		      "%lu, stack %u\n",
		      cprof_perf_way_name(stats->way), seen.outs, seen.ins, seen.samples,
		      seen.weight, (double)seen.waited / 1e9, stats->lost, stats->lost_records,
		      stats->stack_bytes);
}

static void child_naps(void)
{
	for (;;) {
		struct timespec nap = {.tv_nsec = NAP_NS};

		nanosleep(&nap, NULL);
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

static void child_pingpong(void)
{
	pthread_t thread;
	char byte = 0;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one) || pipe(ping) || pipe(pong) ||
	    pthread_create(&thread, NULL, pong_thread, NULL))
		_exit(1);
	while (write(ping[1], &byte, 1) == 1 && read(pong[0], &byte, 1) == 1)
		;
}

static void expect_naps(enum cprof_perf_way way)
{
	struct cprof_perf_stats stats;

	watch(child_naps, way, 0, &stats);
	assert_int_equal(stats.way, way);
	/* Every nap is one switch; on a busy machine it lasts longer, never shorter. */
	assert_true(seen.outs > seen.preempted + 2);
	assert_true(seen.outs - seen.preempted <= seen.lasted / NAP_NS + 2);
	assert_true(seen.waited >= (seen.outs - seen.preempted - 2) * NAP_NS);
	assert_true(seen.waited <= seen.lasted + SECOND / 10);
	assert_true(seen.ins + 1 >= seen.outs && seen.ins <= seen.outs + 1);
	assert_int_equal(seen.samples, seen.outs);
	assert_int_equal(seen.stacks, seen.samples);
	assert_true(seen.weight == (double)seen.samples);
	assert_int_equal(stats.lost + stats.lost_records + stats.malformed, 0);
}

static void test_naps_cpu_wide(void **state)
{
	(void)state;
	expect_naps(CPROF_PERF_CPU_WIDE);
}

static void test_naps_per_thread(void **state)
{
	(void)state;
	expect_naps(CPROF_PERF_PER_THREAD);
}

/* Far fewer stacks than switches, which they stand for all the same. */
static void test_thinned(void **state)
{
	struct cprof_perf_stats stats;

	(void)state;
	watch(child_pingpong, CPROF_PERF_CPU_WIDE, 2000, &stats);
	assert_int_equal(stats.lost_records, 0);
	if (seen.outs < 20000) {
		print_message("the machine is too busy for many switches\n");
		return;
	}
	assert_true(seen.samples < seen.outs / 2);
	assert_true(seen.samples > 500);
	/* Before it is first thinned, stacks may have been lost. */
	assert_true(fabs(seen.weight + (double)stats.lost - (double)seen.outs) <
		    (double)seen.outs / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_naps_cpu_wide),
		cmocka_unit_test(test_naps_per_thread),
		cmocka_unit_test(test_thinned),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("skipped: not root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Context switches of live processes, both ways: what a thread slept adds up, stacks are there; and
 * CPU-wide the sums are of all waits, for which the thinned ones stand.
 */
#include "../../src/perf/private.h"
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
	/* CPU-wide: records, and the sums. */
	uint64_t waits;
	uint64_t counted;
	uint64_t counted_ns;
	uint64_t counted_preempted;
	uint64_t pending_ns;
	uint64_t threads;
	uint64_t ended;
} seen;

static pid_t watched;

static void on_switch(void *context, const struct cprof_perf_record *record)
{
	(void)context;
	assert_int_equal(record->pid, watched);
	if (record->type == CPROF_PERF_SAMPLE) {
		seen.samples++;
		seen.stacks += record->sample.has_user && record->sample.stack_length >= 64 &&
			       record->sample.kernel_count > 2;
	} else if (record->type == CPROF_PERF_WAIT && record->wait.from) {
		assert_true(record->wait.until > record->wait.from);
		assert_true(record->wait.spent < record->wait.until - record->wait.from);
		seen.waits++;
		seen.weight += record->wait.weight;
		if (!record->wait.preempted)
			seen.waited += record->wait.until - record->wait.from;
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

static void on_sums(void *context, const struct cprof_perf_waits *waits)
{
	const uint64_t *now = context;

	assert_true(waits->tid > 0);
	seen.threads++;
	seen.ended += waits->ended;
	for (unsigned i = 0; i < CPROF_PERF_STRATA; i++) {
		seen.counted += waits->strata[i].count;
		seen.counted_ns += waits->strata[i].ns;
	}
	seen.counted_preempted += waits->strata[CPROF_PERF_STRATUM_RUNQ].count;
	if (waits->out_ns)
		seen.pending_ns += (waits->in_ns ? waits->in_ns : *now) - waits->out_ns;
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
	cprof_perf_count_from(perf, begin_ns);
	end_ns = begin_ns + SECOND;
	while (cprof_now_ns() < end_ns) {
		struct pollfd fd = {.fd = cprof_perf_fd(perf), .events = POLLIN};

		poll(&fd, 1, 20);
		cprof_perf_drain(perf, false, on_switch, NULL);
		cprof_perf_waits(perf, false, on_sums, NULL); /* of threads that ended */
	}
	cprof_perf_disable(perf);
	end_ns = cprof_now_ns();
	seen.lasted = end_ns - begin_ns;
	cprof_perf_drain(perf, true, on_switch, NULL);
	cprof_perf_waits(perf, true, on_sums, &end_ns);
	cprof_perf_stats(perf, stats);
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	end(watched);
	print_message("%s: %lu out, %lu in, %lu samples, %lu waits of weight %.0f of %lu, waited "
		      "%.3f s, lost %lu + %lu, stack %u\n",
		      cprof_perf_way_name(stats->way), seen.outs, seen.ins, seen.samples,
		      seen.waits, seen.weight, seen.counted, (double)seen.waited / 1e9, stats->lost,
		      stats->lost_records, stats->stack_bytes);
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

static void expect_clean(const struct cprof_perf_stats *stats, enum cprof_perf_way way)
{
	assert_int_equal(stats->way, way);
	assert_int_equal(stats->lost + stats->lost_records + stats->malformed, 0);
}

/* Every nap is one switch; on a busy machine it lasts longer, never shorter. */
static void expect_naps(uint64_t naps)
{
	assert_true(naps > 2);
	assert_true(naps <= seen.lasted / NAP_NS + 2);
	assert_true(seen.waited >= (naps - 2) * NAP_NS);
	assert_true(seen.waited <= seen.lasted + SECOND / 10);
}

static void test_naps_cpu_wide(void **state)
{
	struct cprof_perf_stats stats;

	(void)state;
	watch(child_naps, CPROF_PERF_CPU_WIDE, 0, &stats);
	expect_clean(&stats, CPROF_PERF_CPU_WIDE);
	assert_int_equal(seen.threads, 1);
	/* Each is told, and as often it is counted; the last goes on. */
	assert_true(seen.waits + 1 >= seen.samples && seen.waits <= seen.samples);
	assert_true(seen.weight == (double)seen.waits);
	assert_int_equal(seen.counted, seen.waits);
	assert_true(seen.stacks + seen.counted_preempted + 1 >= seen.samples);
	expect_naps(seen.counted - seen.counted_preempted);
	/* What is over and what goes on is nearly all of its time. */
	assert_true(seen.counted_ns + seen.pending_ns <= seen.lasted);
	assert_true(seen.counted_ns + seen.pending_ns >= seen.lasted - SECOND / 10);
}

static void test_naps_per_thread(void **state)
{
	struct cprof_perf_stats stats;

	(void)state;
	watch(child_naps, CPROF_PERF_PER_THREAD, 0, &stats);
	expect_clean(&stats, CPROF_PERF_PER_THREAD);
	expect_naps(seen.outs - seen.preempted);
	assert_true(seen.ins + 1 >= seen.outs && seen.ins <= seen.outs + 1);
	assert_int_equal(seen.samples, seen.outs);
	assert_int_equal(seen.stacks, seen.samples);
	assert_int_equal(seen.threads + seen.waits, 0);
}

/* Far fewer stacks than switches, which they stand for all the same. */
static void expect_thinned(void)
{
	struct cprof_perf_stats stats;

	watch(child_pingpong, CPROF_PERF_CPU_WIDE, 2000, &stats);
	assert_int_equal(stats.lost_records, 0);
	if (seen.counted < 20000) {
		print_message("the machine is too busy for many switches\n");
		return;
	}
	assert_int_equal(seen.threads, 2);
	assert_true(seen.samples < seen.counted / 2);
	assert_true(seen.samples > 500);
	assert_true(seen.samples < 2000 * 3 / 2 * seen.lasted / SECOND);
	assert_true(fabs(seen.weight - (double)seen.counted) < (double)seen.counted / 4);
	/* Both threads share one CPU, with whoever else wants it. */
	assert_true(seen.counted_ns + seen.pending_ns >= seen.lasted / 10 * 9);
	assert_true(seen.counted_ns + seen.pending_ns <= seen.lasted * 2);
}

static void test_thinned(void **state)
{
	(void)state;
	expect_thinned();
}

#define SHORT_NAPS 3

static void *nap_thread(void *unused)
{
	for (int i = 0; i < SHORT_NAPS; i++)
		usleep(1000);
	return unused;
}

static void *brief_thread(void *unused)
{
	usleep(300);
	usleep(300);
	return unused;
}

/* So many threads live and end together, over and over. */
static void live_and_end(void *(*life)(void *unused), size_t count)
{
	pthread_t threads[32];

	for (;;) {
		for (size_t i = 0; i < count; i++)
			if (pthread_create(&threads[i], NULL, life, NULL))
				_exit(1);
		for (size_t i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
	}
}

static void child_many_lives(void)
{
	live_and_end(brief_thread, 32);
}

/* Threads that are new all the time keep to the rate too, and none of their waits is preferred. */
static void test_many_lives(void **state)
{
	struct cprof_perf_stats stats;

	(void)state;
	watch(child_many_lives, CPROF_PERF_CPU_WIDE, 500, &stats);
	assert_int_equal(stats.lost_records, 0);
	if (seen.counted < 10000) {
		print_message("the machine is too busy for many threads\n");
		return;
	}
	/* How few that are is found out in the first tenth of a second. */
	assert_true(seen.samples < seen.counted / 6);
	assert_true(fabs(seen.weight - (double)seen.counted) < (double)seen.counted / 2);
}

static void child_short_lives(void)
{
	live_and_end(nap_thread, 8);
}

/* Each thread is told when it has ended, with all its naps, and then forgotten. */
static void test_short_lives(void **state)
{
	struct cprof_perf_stats stats;

	(void)state;
	watch(child_short_lives, CPROF_PERF_CPU_WIDE, 0, &stats);
	assert_int_equal(stats.lost_records, 0);
	assert_true(seen.ended > 100);
	assert_true(seen.threads - seen.ended < seen.threads / 2);
	assert_true(seen.counted - seen.counted_preempted >= (seen.ended - 8) * SHORT_NAPS);
	/* The last wait of a thread is told by its end. */
	assert_true(seen.waits + stats.lost >= seen.counted);
}

/* As before Linux 5.18. */
static void test_without_raw(void **state)
{
	cprof_waits_without_raw = true;
	test_naps_cpu_wide(state);
	expect_thinned();
	test_short_lives(state);
	cprof_waits_without_raw = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_naps_cpu_wide), cmocka_unit_test(test_naps_per_thread),
		cmocka_unit_test(test_thinned),       cmocka_unit_test(test_many_lives),
		cmocka_unit_test(test_short_lives),   cmocka_unit_test(test_without_raw),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("skipped: not root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Births of live threads, both ways: of each a FORK record and then the sample of its creator, with
 * its stack; none of children that are no threads.
 */
#include "perf_live.h"

#define BURSTS 200
#define BURST  5

static struct {
	uint64_t forks;
	uint64_t matched; /* samples that came after a FORK of the same thread */
	uint64_t again;   /* and others */
	uint64_t stacks;
	uint64_t kernel;
	pid_t creator; /* of the last FORK, 0: its sample has come */
	pid_t born;
} seen;

static pid_t watched;

static void on_birth(void *context, const struct cprof_perf_record *record)
{
	(void)context;
	assert_int_equal(record->pid, watched);
	if (record->type == CPROF_PERF_FORK && record->tid != seen.born) {
		assert_int_equal(record->task.parent_pid, watched);
		seen.forks++;
		seen.creator = record->task.parent_tid;
		seen.born = record->tid;
	} else if (record->type == CPROF_PERF_SAMPLE) {
		seen.matched += record->tid == seen.creator;
		seen.again += record->tid != seen.creator;
		seen.creator = 0;
		seen.stacks += record->sample.has_user && record->sample.stack_length >= 64;
		seen.kernel += record->sample.kernel_count;
		if (record->sample.has_user)
			cprof_perf_stack_needed(context, 700, false);
	}
}

static void *nothing(void *unused)
{
	return unused;
}

static int go[2];

/* One at a time; a process in between. */
static void child_creates(void)
{
	char byte;

	if (read(go[0], &byte, 1) != 1)
		_exit(1);
	for (unsigned i = 0; i < BURSTS; i++) {
		pid_t pid;

		for (unsigned j = 0; j < BURST; j++) {
			pthread_t thread;

			if (pthread_create(&thread, NULL, nothing, NULL))
				_exit(1);
			pthread_join(thread, NULL);
		}
		pid = fork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

static void expect_births(enum cprof_perf_way way)
{
	const struct cprof_perf_config config = {
		.way = way, .clock = CPROF_PERF_BIRTHS, .user_stack = true};
	struct cprof_perf_stats stats;
	struct cprof_target *target;
	struct cprof_perf *perf;
	siginfo_t info = {0};

	memset(&seen, 0, sizeof(seen));
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	watched = spawn(child_creates, 0);
	ok(cprof_target_create(watched, &target));
	ok(cprof_perf_create(target, &config, &perf));
	ok(cprof_perf_enable(perf));
	assert_int_equal(write(go[1], "", 1), 1);
	while (!info.si_pid) {
		struct pollfd fd = {.fd = cprof_perf_fd(perf), .events = POLLIN};

		poll(&fd, 1, 5);
		cprof_perf_drain(perf, false, on_birth, perf);
		waitid(P_PID, (id_t)watched, &info, WEXITED | WNOHANG | WNOWAIT);
	}
	cprof_perf_disable(perf);
	cprof_perf_drain(perf, true, on_birth, perf);
	cprof_perf_stats(perf, &stats);
	print_message("%s: %lu births, %lu samples, %lu again, lost %lu + %lu, stack %u\n",
		      cprof_perf_way_name(stats.way), seen.forks, seen.matched, seen.again,
		      stats.lost, stats.lost_records, stats.stack_bytes);
	assert_int_equal(stats.way, way);
	assert_int_equal(seen.forks, BURSTS * BURST);
	assert_int_equal(seen.matched + stats.lost, seen.forks);
	assert_int_equal(seen.stacks, seen.matched + seen.again);
	assert_int_equal(seen.kernel, 0);
	/* Only where a larger or smaller dump takes over, and only per thread. */
	assert_true(seen.again <= (way == CPROF_PERF_PER_THREAD ? 20u : 0u));
	assert_int_equal(stats.lost_records + stats.malformed, 0);
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	end(watched);
	close(go[0]);
	close(go[1]);
}

static void test_cpu_wide(void **state)
{
	(void)state;
	expect_births(CPROF_PERF_CPU_WIDE);
}

static void test_per_thread(void **state)
{
	(void)state;
	expect_births(CPROF_PERF_PER_THREAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cpu_wide),
		cmocka_unit_test(test_per_thread),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("skipped: not root\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

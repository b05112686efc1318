/* SPDX-License-Identifier: MIT
 *
 * Both ways of sampling on live processes: as many samples as CPU time says, none twice.
 */
#include <cprof/perf.h>
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define NOBODY  65534
#define THREADS 4096 /* tids seen */
#define SECOND  1000000000ull
#define RATE    499

struct tally {
	uint64_t samples;
	uint64_t weight; /* sum of periods */
	uint64_t stacks; /* samples with registers and some stack */
	uint64_t cut;
	uint64_t last_time;
	uint64_t out_of_order;
	uint64_t execs;
	uint64_t forks;
	uint64_t maps;
	uint64_t foreign;
	pid_t pid;
	struct {
		pid_t tid;
		uint64_t samples;
	} threads[THREADS];
	size_t thread_count;
	struct cprof_perf *perf;
	size_t stack_need; /* what to tell the session that samples needed; 0: nothing */
};

static struct tally tally;

static void on_record(void *context, const struct cprof_perf_record *record)
{
	size_t i;

	(void)context;
	tally.out_of_order += record->time < tally.last_time;
	tally.last_time = record->time;
	tally.maps += record->type == CPROF_PERF_MMAP;
	tally.forks += record->type == CPROF_PERF_FORK;
	tally.execs += record->type == CPROF_PERF_COMM && record->comm.exec;
	if (record->type != CPROF_PERF_SAMPLE)
		return;
	tally.foreign += record->pid != tally.pid;
	tally.samples++;
	tally.weight += record->sample.period;
	tally.stacks += record->sample.has_user && record->sample.stack_length >= 64;
	tally.cut += record->sample.stack_cut;
	if (tally.stack_need)
		cprof_perf_stack_needed(tally.perf, tally.stack_need, false);
	for (i = 0; i < tally.thread_count && tally.threads[i].tid != record->tid; i++)
		;
	if (i == THREADS)
		return;
	tally.threads[i].tid = record->tid;
	tally.threads[i].samples++;
	tally.thread_count = CPROF_MAX(tally.thread_count, i + 1);
}

/* --- children ------------------------------------------------------------------------------ */

static void burn(uint64_t ns)
{
	uint64_t end = cprof_thread_cpu_ns() + ns;

	while (cprof_thread_cpu_ns() < end)
		for (volatile int i = 0; i < 20000; i++)
			;
}

static void *burn_thread(void *ns)
{
	burn((uint64_t)(uintptr_t)ns);
	return NULL;
}

static void child_busy(void)
{
	burn(100 * SECOND);
}

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

/* Threads of 60 ms are born all the time, while others run. */
static void child_births(void)
{
	pthread_t threads[3];

	for (unsigned round = 0;; round++) {
		pthread_t *thread = &threads[round % 3];

		if (round >= 3)
			pthread_join(*thread, NULL);
		if (pthread_create(thread, NULL, burn_thread, (void *)(uintptr_t)60000000))
			_exit(1);
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

static pid_t spawn(void (*body)(void), uid_t uid)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (uid && (setgid(uid) || setuid(uid) || prctl(PR_SET_DUMPABLE, 1)))
			_exit(1);
		body();
		_exit(0);
	}
	assert_true(pid > 0);
	usleep(20000);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* --- one run ------------------------------------------------------------------------------- */

struct run {
	struct cprof_perf_config config;
	unsigned seconds;
	uint64_t cpu; /* out: CPU time of the target meanwhile, ns */
	struct cprof_perf_stats stats;
	bool refused; /* out: the CPU-wide way, with a reason */
};

static struct run run;
static pid_t main_pid;

/* A child must not return into cmocka, which would run the other tests again. */
static void ok(struct cprof_error *error)
{
	if (!error)
		return;
	print_message("%s\n", error->message);
	if (getpid() != main_pid)
		_exit(9);
	fail();
}

/* CPU time of the process, from its clock: exact, where procfs counts in 10 ms. */
static uint64_t cpu_of(pid_t pid)
{
	struct timespec now;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &now))
		return 0;
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void collect(struct cprof_perf *perf, uint64_t until)
{
	while (cprof_now_ns() < until) {
		struct pollfd fd = {.fd = cprof_perf_fd(perf), .events = POLLIN};

		poll(&fd, 1, 20);
		cprof_perf_drain(perf, false, on_record, NULL);
	}
}

static void profile(pid_t pid)
{
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t before;

	ok(cprof_target_create(pid, &target));
	ok(cprof_perf_create(target, &run.config, &perf));
	tally.pid = pid;
	tally.perf = perf;
	ok(cprof_perf_enable(perf));
	before = cpu_of(pid);
	collect(perf, cprof_now_ns() + run.seconds * SECOND);
	run.cpu = cpu_of(pid) - before;
	cprof_perf_disable(perf);
	cprof_perf_drain(perf, true, on_record, NULL);
	cprof_perf_stats(perf, &run.stats);
	print_message("%s: %lu samples, %lu lost, expected %lu; %zu threads, %u events, stack %u\n",
		      cprof_perf_way_name(run.stats.way), tally.samples, run.stats.lost,
		      run.cpu / run.stats.period, tally.thread_count, run.stats.events,
		      run.stats.stack_bytes);
	run.refused = run.stats.way_reason != NULL;
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
}

static struct run run_of(enum cprof_perf_way way)
{
	return (struct run){
		.config = {.way = way, .rate = RATE, .kernel = true, .user_stack = true},
		.seconds = 2,
	};
}

/* As many samples as CPU time times rate, within 10 percent, nothing lost, in order, all ours, with
 * stacks (but for threads that are just being born or are past their memory). */
static bool honest(void)
{
	double expected = (double)run.cpu / (double)run.stats.period;

	/* On a loaded machine few samples are left, and whether a slice is hit is chance. */
	double slack = CPROF_MAX(expected * 0.1, 3 * sqrt(expected));

	return fabs((double)tally.samples - expected) <= slack &&
	       tally.weight == tally.samples * run.stats.period && !run.stats.lost &&
	       !run.stats.malformed && !tally.out_of_order && !tally.foreign &&
	       tally.stacks <= tally.samples && tally.stacks >= tally.samples / 100 * 98;
}

static void run_on(void (*body)(void), enum cprof_perf_way way)
{
	pid_t pid = spawn(body, 0);

	run = run_of(way);
	memset(&tally, 0, sizeof(tally));
	profile(pid);
	end(pid);
}

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
	assert_true((double)run.stats.counted > (double)run.cpu * 0.95);
	assert_true((double)run.stats.counted < (double)run.cpu * 1.05);
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
	assert_true((double)tally.samples < (double)run.cpu / (double)run.stats.period * 1.02);
	assert_true((double)tally.samples > (double)run.cpu / (double)run.stats.period * 0.85);
	assert_true((double)run.stats.counted > (double)run.cpu * 0.95);
	assert_true((double)run.stats.counted < (double)run.cpu * 1.05);
	assert_true(tally.thread_count > 4);
	assert_int_equal(tally.out_of_order, 0);
}

/* Threads that have inherited an event get another of their own. */
static void a_rescan_counts_nothing_twice(void **state)
{
	pid_t pid = spawn(child_births, 0);
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t before;

	(void)state;
	memset(&tally, 0, sizeof(tally));
	tally.pid = pid;
	run = run_of(CPROF_PERF_PER_THREAD);
	ok(cprof_target_create(pid, &target));
	ok(cprof_perf_create(target, &run.config, &perf));
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
	cprof_perf_drain(perf, true, on_record, NULL);
	cprof_perf_stats(perf, &run.stats);
	print_message("rescans: %lu samples, expected %lu, counted %lu of %lu ms, %u events\n",
		      tally.samples, run.cpu / run.stats.period, run.stats.counted / 1000000,
		      run.cpu / 1000000, run.stats.events);
	assert_true((double)tally.samples < (double)run.cpu / (double)run.stats.period * 1.02);
	assert_true((double)tally.samples > (double)run.cpu / (double)run.stats.period * 0.85);
	assert_true((double)run.stats.counted < (double)run.cpu * 1.08);
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
	assert_true((double)tally.samples < (double)run.cpu / (double)run.stats.period * 1.1);
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

/* In a child: what `body` returns becomes the exit status. */
static int in_child(int (*body)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(body());
	assert_true(pid > 0);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t target_pid;

static int profile_unprivileged(void)
{
	static const struct rlimit small = {4096, 4096};
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;
	double expected;

	setrlimit(RLIMIT_MEMLOCK, &small);
	if (setgid(NOBODY) || setuid(NOBODY))
		return 2;
	memset(&tally, 0, sizeof(tally));
	run = run_of(CPROF_PERF_AUTO);
	profile(target_pid);
	expected = (double)run.cpu / (double)run.stats.period;
	print_message("unprivileged: rings of %zu bytes, counted %lu of %lu ms\n",
		      run.stats.ring_bytes, run.stats.counted / 1000000, run.cpu / 1000000);
	if (run.stats.way != CPROF_PERF_PER_THREAD || !run.refused || tally.foreign)
		return 3;
	/* User time only, where kernel time is not permitted: it was told. */
	if ((double)tally.samples < expected * 0.85 || (double)tally.samples > expected * 1.1)
		return 4;
	if (run.stats.stack_bytes > run.stats.ring_bytes / 8)
		return 5;
	ok(cprof_target_create(target_pid, &target));
	run.config.way = CPROF_PERF_CPU_WIDE;
	error = cprof_perf_create(target, &run.config, &perf);
	cprof_target_destroy(target);
	if (!error)
		return 6;
	print_message("%s (%s)\n", error->message, error->remedy);
	if (error->status != CPROF_DENIED || !error->remedy || !error->errnum)
		return 7;
	cprof_error_destroy(error);
	return 0;
}

static void an_unprivileged_user_samples_his_own(void **state)
{
	(void)state;
	target_pid = spawn(child_busy, NOBODY);
	assert_int_equal(in_child(profile_unprivileged), 0);
	end(target_pid);
}

static void refusals_name_the_rule(void **state)
{
	pid_t pid = spawn(child_busy, 0);
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;

	(void)state;
	ok(cprof_target_create(pid, &target));
	run = run_of(CPROF_PERF_AUTO);
	run.config.rate = 2000000000;
	error = cprof_perf_create(target, &run.config, &perf);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_DENIED);
	assert_non_null(strstr(error->message, "perf_event_max_sample_rate is "));
	cprof_error_destroy(error);

	run.config.rate = 99;
	run.config.clock = CPROF_PERF_CYCLES;
	error = cprof_perf_create(target, &run.config, &perf);
	if (error) { /* a machine without counters */
		assert_int_equal(error->status, CPROF_DENIED);
		assert_non_null(strstr(error->message, "no hardware counters here"));
		assert_string_equal(error->remedy, "use -e cpu");
		cprof_error_destroy(error);
	} else {
		cprof_perf_destroy(perf);
	}
	cprof_target_destroy(target);
	end(pid);
}

/* With so few descriptors the per-thread way says how many it needs. */
static int few_descriptors(void)
{
	static const struct rlimit few = {24, 24};
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;

	setrlimit(RLIMIT_NOFILE, &few);
	if (setgid(NOBODY) || setuid(NOBODY))
		return 2;
	ok(cprof_target_create(target_pid, &target));
	run = run_of(CPROF_PERF_PER_THREAD);
	error = cprof_perf_create(target, &run.config, &perf);
	cprof_target_destroy(target);
	if (!error || error->status != CPROF_DENIED || !strstr(error->message, "24 are allowed"))
		return 3;
	cprof_error_destroy(error);
	return 0;
}

static void descriptors_are_budgeted(void **state)
{
	(void)state;
	target_pid = spawn(child_busy, NOBODY);
	assert_int_equal(in_child(few_descriptors), 0);
	end(target_pid);
}

/* The first process of a pid namespace of its own. */
static void child_in_namespace(void)
{
	pid_t pid;

	if (unshare(CLONE_NEWPID))
		_exit(1);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		child_births();
	}
	waitpid(pid, NULL, 0);
	_exit(0);
}

/* The pid of the only child of `parent`. */
static pid_t only_child(pid_t parent)
{
	char path[64];
	FILE CPROF_AUTO_FCLOSE *stream = NULL;
	int child = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	stream = fopen(path, "re");
	if (!stream || fscanf(stream, "%d", &child) != 1)
		return 0;
	return child;
}

static void a_child_namespace_is_matched(void **state)
{
	pid_t outer = spawn(child_in_namespace, 0);
	pid_t inner = only_child(outer);

	(void)state;
	assert_true(inner > 0);
	memset(&tally, 0, sizeof(tally));
	run = run_of(CPROF_PERF_CPU_WIDE);
	profile(inner);
	end(inner);
	end(outer);
	assert_true(honest());
	assert_true(tally.thread_count > 3);
}

/* Profiler and target in the same child namespace. */
static int profile_in_namespace(void)
{
	pid_t first;
	int status;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		return 2;
	first = fork();
	if (first == 0) {
		if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("proc", "/proc", "proc", 0, NULL))
			_exit(3);
		run_on(child_busy, CPROF_PERF_CPU_WIDE);
		if (!honest())
			_exit(5);
		run_on(child_busy, CPROF_PERF_PER_THREAD);
		if (!honest())
			_exit(5);
		_exit(0);
	}
	waitpid(first, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
}

static void a_shared_namespace_is_matched(void **state)
{
	(void)state;
	assert_int_equal(in_child(profile_in_namespace), 0);
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
		cmocka_unit_test(an_unprivileged_user_samples_his_own),
		cmocka_unit_test(refusals_name_the_rule),
		cmocka_unit_test(descriptors_are_budgeted),
		cmocka_unit_test(a_child_namespace_is_matched),
		cmocka_unit_test(a_shared_namespace_is_matched),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("[  SKIPPED ] live sampling: must be root\n");
		return 0;
	}
	return cmocka_run_group_tests_name("perf", tests, NULL, NULL);
}

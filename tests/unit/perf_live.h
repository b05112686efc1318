/* SPDX-License-Identifier: MIT
 *
 * What the live tests of sampling share: programs to sample, a session on one, and what came out.
 */
#ifndef PERF_LIVE_H
#define PERF_LIVE_H

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

#define NOBODY    65534
#define THREADS   4096 /* tids seen */
#define CPUS      1024
#define SECOND    1000000000ull
#define RATE      499
#define BIRTH_NS  60000000 /* CPU time of each of many threads */
#define CODE_SIZE 256      /* of a function whose samples are told apart */

struct tally {
	uint64_t samples;
	uint64_t weight; /* sum of periods */
	uint64_t stacks; /* samples with registers and some stack */
	uint64_t cut;
	uint32_t cpus;
	uint64_t last[CPUS];   /* time of the last sample of each */
	uint64_t out_of_order; /* samples older than one of the same CPU */
	uint64_t late;         /* older than one of another */
	uint64_t execs;
	uint64_t forks;
	uint64_t maps;
	uint64_t foreign;
	uint64_t code[2]; /* addresses of two functions, and samples in them */
	uint64_t in[2];
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

/* Samples only: while a thread writes a record of its birth or end, it may be interrupted for a
 * sample, which then comes first though it is younger (seen: one in 1,000 at 10 kHz, by 8 us).
 * Between CPUs a sample can come late: by a virtual machine's CPU that stood still while it wrote.
 */
static void look_at_order(const struct cprof_perf_record *record)
{
	uint32_t cpu = record->cpu % CPUS;

	tally.out_of_order += record->time < tally.last[cpu];
	tally.cpus = CPROF_MAX(tally.cpus, cpu + 1);
	for (uint32_t i = 0; i < tally.cpus; i++)
		if (record->time < tally.last[i]) {
			tally.late += i != cpu;
			break;
		}
	tally.last[cpu] = record->time;
}

static void on_record(void *context, const struct cprof_perf_record *record)
{
	size_t i;

	(void)context;
	tally.maps += record->type == CPROF_PERF_MMAP;
	tally.forks += record->type == CPROF_PERF_FORK;
	tally.execs += record->type == CPROF_PERF_COMM && record->comm.exec;
	if (record->type != CPROF_PERF_SAMPLE)
		return;
	look_at_order(record);
	tally.foreign += record->pid != tally.pid;
	tally.samples++;
	tally.weight += record->sample.period;
	tally.stacks += record->sample.has_user && record->sample.stack_length >= 64;
	tally.cut += record->sample.stack_cut;
	for (i = 0; i < 2; i++)
		tally.in[i] += record->sample.regs[16] >= tally.code[i] &&
			       record->sample.regs[16] < tally.code[i] + CODE_SIZE;
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

static inline void child_busy(void)
{
	burn(100 * SECOND);
}

/* Threads of BIRTH_NS are born all the time, while others run. */
static inline void child_births(void)
{
	pthread_t threads[3];

	for (unsigned round = 0;; round++) {
		pthread_t *thread = &threads[round % 3];

		if (round >= 3)
			pthread_join(*thread, NULL);
		if (pthread_create(thread, NULL, burn_thread, (void *)(uintptr_t)BIRTH_NS))
			_exit(1);
	}
}

/* As many threads as that much CPU time takes, half of them at least. */
static inline bool births_were_seen(uint64_t cpu_ns, size_t threads)
{
	return threads >= cpu_ns / BIRTH_NS / 2;
}

static pid_t spawn(void (*body)(void), uid_t uid)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (uid && (setgid(uid) || setuid(uid) || prctl(PR_SET_DUMPABLE, 1)))
			_exit(1);
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when a test fails */
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		body();
		_exit(0);
	}
	assert_true(pid > 0);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
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
	uint64_t cpu;      /* out: CPU time of the target meanwhile, ns */
	uint64_t cpu_most; /* and with what it took for switching on and off: we may lose the CPU */
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

/* What the hypervisor took from all CPUs: it is in nobody's CPU time, but clocks that sample tick
 * on, or catch up. */
static uint64_t stolen_ns(void)
{
	CPROF_AUTO_FREE char *text = cprof_read_file_at(AT_FDCWD, "/proc/stat", 4096, NULL);
	unsigned long long ticks = 0;

	if (text)
		sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks);
	return ticks * (SECOND / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void collect(struct cprof_perf *perf, uint64_t until)
{
	while (cprof_now_ns() < until) {
		struct pollfd fd = {.fd = cprof_perf_fd(perf), .events = POLLIN};

		poll(&fd, 1, 20);
		cprof_perf_drain(perf, false, on_record, NULL);
	}
}

static inline void profile(pid_t pid)
{
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t before, outside, stolen;

	ok(cprof_target_create(pid, &target));
	ok(cprof_perf_create(target, &run.config, &perf));
	tally.pid = pid;
	tally.perf = perf;
	outside = cpu_of(pid);
	stolen = stolen_ns();
	ok(cprof_perf_enable(perf));
	before = cpu_of(pid);
	collect(perf, cprof_now_ns() + run.seconds * SECOND);
	run.cpu = cpu_of(pid) - before;
	cprof_perf_disable(perf);
	run.cpu_most = cpu_of(pid) - outside + stolen_ns() - stolen;
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

static inline struct run run_of(enum cprof_perf_way way)
{
	return (struct run){
		.config = {.way = way, .rate = RATE, .kernel = true, .user_stack = true},
		.seconds = 2,
	};
}

/* Tells of a condition that does not hold. */
static inline bool holds(bool what, const char *name)
{
	if (!what)
		print_message("not honest: %s\n", name);
	return what;
}

/* As many samples as CPU time times rate, within 10 percent, nothing lost, in order, all ours, with
 * stacks (but for threads that are just being born or are past their memory). */
static inline bool honest(void)
{
	double expected = (double)run.cpu / (double)run.stats.period;
	double most = (double)run.cpu_most / (double)run.stats.period;

	/* On a loaded machine few samples are left, and whether a slice is hit is chance. */
	double slack = CPROF_MAX(expected * 0.1, 3 * sqrt(expected));
	bool all = true;

	all &= holds((double)tally.samples >= expected - slack &&
			     (double)tally.samples <= most + slack,
		     "number of samples");
	all &= holds(tally.weight == tally.samples * run.stats.period, "weight");
	all &= holds(!run.stats.lost, "samples lost");
	all &= holds(!run.stats.malformed, "malformed records");
	all &= holds(!tally.out_of_order, "order of a CPU's samples");
	all &= holds(tally.late <= tally.samples / 100, "order of samples between CPUs");
	all &= holds(!tally.foreign, "samples of others");
	all &= holds(tally.stacks <= tally.samples, "stacks without samples");
	all &= holds(tally.stacks >= tally.samples / 100 * 98, "samples without stack");
	if (!all)
		print_message("%lu samples of %.0f, %lu lost, %lu malformed, %lu out of order, %lu "
			      "late, %lu foreign, %lu with stack\n",
			      tally.samples, expected, run.stats.lost, run.stats.malformed,
			      tally.out_of_order, tally.late, tally.foreign, tally.stacks);
	return all;
}

/* What the events counted is the CPU time, within a twentieth. */
static inline bool counts_cpu(void)
{
	return (double)run.stats.counted > (double)run.cpu * 0.95 &&
	       (double)run.stats.counted < (double)run.cpu_most * 1.05;
}

static inline void run_on(void (*body)(void), enum cprof_perf_way way)
{
	pid_t pid = spawn(body, 0);

	run = run_of(way);
	memset(&tally, 0, sizeof(tally));
	profile(pid);
	end(pid);
}

#endif

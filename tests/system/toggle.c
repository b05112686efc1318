/* SPDX-License-Identifier: MIT
 *
 * toggle RATE SECONDS STACK_KB [cpu-wide|per-thread]: what sampling costs its target. A child works
 * in equal units below STACK_KB of stack; sampling is switched on and off every 40 ms; the CPU time
 * of a unit in neighbouring windows is compared. Prints one JSON object.
 */
#include <alloca.h>
#include <cprof/perf.h>
#include <cprof/util.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define WINDOW_NS   40000000ull
#define WINDOWS_MAX 4096

/* Shared with the child: units done and CPU time used, read at the windows' ends. */
struct shared {
	volatile uint64_t units;
	volatile uint64_t cpu_ns;
	volatile uint64_t sequence; /* odd while the two are being written */
};

static volatile uint64_t sink;

__attribute__((noinline)) static void unit(void)
{
	uint64_t x = sink + 1;

	for (int i = 0; i < 4000; i++)
		x = x * 6364136223846793005ull + (x >> 33);
	sink = x;
}

static void work(struct shared *shared)
{
	for (;;) {
		unit();
		shared->sequence++;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		shared->units++;
		shared->cpu_ns = cprof_thread_cpu_ns();
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		shared->sequence++;
	}
}

__attribute__((noinline)) static void descend(struct shared *shared, size_t bytes)
{
	volatile char *room = alloca(bytes);

	memset((char *)room, 1, bytes);
	work(shared);
	room[0] = 2;
}

static void read_shared(const struct shared *shared, uint64_t *units, uint64_t *cpu_ns)
{
	uint64_t before;

	do {
		before = shared->sequence;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		*units = shared->units;
		*cpu_ns = shared->cpu_ns;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	} while (before % 2 || before != shared->sequence);
}

static void count(void *context, const struct cprof_perf_record *record)
{
	*(uint64_t *)context += record->type == CPROF_PERF_SAMPLE;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* ns a unit in one window; waits on if the child did not get to run. */
static double window(const struct shared *shared)
{
	uint64_t units, cpu, units_after, cpu_after;

	read_shared(shared, &units, &cpu);
	do {
		usleep(WINDOW_NS / 1000);
		read_shared(shared, &units_after, &cpu_after);
	} while (units_after - units < 100);
	return (double)(cpu_after - cpu) / (double)(units_after - units);
}

int main(int argc, char **argv)
{
	static double ratios[WINDOWS_MAX];
	struct cprof_perf_config config = {.kernel = true, .user_stack = true};
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_perf_stats stats;
	struct shared *shared;
	struct cprof_error *error;
	uint64_t samples = 0;
	uint64_t until;
	size_t pairs = 0;
	double mean = 0;
	double square = 0;
	pid_t child;

	if (argc < 4)
		return 2;
	config.rate = (unsigned)atoi(argv[1]);
	if (argc > 4)
		config.way = strcmp(argv[4], "per-thread") == 0 ? CPROF_PERF_PER_THREAD
								: CPROF_PERF_CPU_WIDE;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = fork();
	if (child == 0) {
		descend(shared, 1024ul * (size_t)atoi(argv[3]) + 16);
		_exit(0);
	}
	usleep(200000);
	error = cprof_target_create(child, &target);
	if (!error)
		error = cprof_perf_create(target, &config, &perf);
	if (error) {
		cprof_error_print(error, stderr);
		kill(child, SIGKILL);
		return error->status;
	}
	until = cprof_now_ns() + strtoull(argv[2], NULL, 10) * 1000000000ull;
	while (cprof_now_ns() < until && pairs < WINDOWS_MAX) {
		double off;
		double on;

		if (pairs % 2) { /* both orders, so that drift cancels */
			off = window(shared);
			cprof_error_destroy(cprof_perf_enable(perf));
			on = window(shared);
			cprof_perf_disable(perf);
		} else {
			cprof_error_destroy(cprof_perf_enable(perf));
			on = window(shared);
			cprof_perf_disable(perf);
			off = window(shared);
		}
		cprof_perf_drain(perf, true, count, &samples);
		ratios[pairs++] = on / off;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	cprof_perf_stats(perf, &stats);
	qsort(ratios, pairs, sizeof(*ratios), compare);
	for (size_t i = pairs / 20; i < pairs - pairs / 20; i++) {
		mean += ratios[i];
		square += ratios[i] * ratios[i];
	}
	mean /= (double)(pairs - 2 * (pairs / 20));
	square = square / (double)(pairs - 2 * (pairs / 20)) - mean * mean;
	printf("{\"sampling\":\"%s\",\"rate\":%u,\"stack_kb\":%s,\"pairs\":%zu,\"samples\":%llu,"
	       "\"slowdown_median_percent\":%.3f,\"slowdown_mean_percent\":%.3f,"
	       "\"error_percent\":%.3f}\n",
	       cprof_perf_way_name(stats.way), config.rate, argv[3], pairs,
	       (unsigned long long)samples, 100 * (ratios[pairs / 2] - 1), 100 * (mean - 1),
	       100 * sqrt(square / (double)pairs));
	cprof_perf_destroy(perf);
	cprof_target_destroy(target);
	return 0;
}

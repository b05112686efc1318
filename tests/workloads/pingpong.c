/* SPDX-License-Identifier: MIT
 *
 * Two threads on one CPU hand a byte to and fro: as many context switches as possible, or fewer
 * with some work before each. Prints switches per second, every second if asked, and at the end;
 * and what one of them took of CPU time, which says more on a busy machine. usage: pingpong
 * [SECONDS [verbose [ROUNDS]]]
 */
#include "workload.h"
#include <pthread.h>
#include <sched.h>

static int ping[2];
static int pong[2];
static uint64_t rounds_between;

static void *answer(void *unused)
{
	char byte;

	while (read(ping[0], &byte, 1) == 1 && write(pong[1], &byte, 1) == 1)
		work(rounds_between);
	return unused;
}

static void report(uint64_t switches, uint64_t ns, uint64_t cpu_ns)
{
	printf("switches/s %.0f cpu_ns %.0f\n", (double)switches * 1e9 / (double)ns,
	       (double)cpu_ns / (double)switches);
}

int main(int argc, char **argv)
{
	uint64_t start;
	uint64_t lap;
	uint64_t lap_rounds = 0;
	uint64_t lap_cpu;
	uint64_t rounds = 0;
	pthread_t thread;
	char byte = 0;
	cpu_set_t one;

	workload_start(argc, argv);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	if (pipe(ping) || pipe(pong) || pthread_create(&thread, NULL, answer, NULL))
		return 1;
	rounds_between = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	start = lap = clock_ns(CLOCK_MONOTONIC);
	lap_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	while (!stopping && write(ping[1], &byte, 1) == 1 && read(pong[0], &byte, 1) == 1) {
		uint64_t now;

		work(rounds_between);
		if (++rounds % 1024)
			continue;
		now = clock_ns(CLOCK_MONOTONIC);
		if (argc > 2 && now > lap + 1000000000u) {
			uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

			report(2 * (rounds - lap_rounds), now - lap, cpu - lap_cpu);
			lap_cpu = cpu;
			lap = now;
			lap_rounds = rounds;
		}
	}
	report(2 * rounds, clock_ns(CLOCK_MONOTONIC) - start, clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	print_cpu();
	return 0;
}

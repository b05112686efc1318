/* SPDX-License-Identifier: MIT
 *
 * Two threads on one CPU hand a byte to and fro: as many context switches as possible. Prints
 * switches per second, every second if asked, and at the end.
 * usage: pingpong [SECONDS [verbose]]
 */
#include "workload.h"
#include <pthread.h>
#include <sched.h>

static int ping[2];
static int pong[2];

static void *answer(void *unused)
{
	char byte;

	while (read(ping[0], &byte, 1) == 1 && write(pong[1], &byte, 1) == 1)
		;
	return unused;
}

static void report(uint64_t switches, uint64_t ns)
{
	printf("switches/s %.0f\n", (double)switches * 1e9 / (double)ns);
}

int main(int argc, char **argv)
{
	uint64_t start;
	uint64_t lap;
	uint64_t lap_rounds = 0;
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
	start = lap = clock_ns(CLOCK_MONOTONIC);
	while (!stopping && write(ping[1], &byte, 1) == 1 && read(pong[0], &byte, 1) == 1) {
		uint64_t now;

		if (++rounds % 1024)
			continue;
		now = clock_ns(CLOCK_MONOTONIC);
		if (argc > 2 && now > lap + 1000000000u) {
			report(2 * (rounds - lap_rounds), now - lap);
			lap = now;
			lap_rounds = rounds;
		}
	}
	report(2 * rounds, clock_ns(CLOCK_MONOTONIC) - start);
	print_cpu();
	return 0;
}

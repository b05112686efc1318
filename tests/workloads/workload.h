/* SPDX-License-Identifier: MIT
 *
 * What the sample programs share: CPU clocks, and running until SIGTERM, SIGINT or a number of
 * seconds (first argument, or 0: no limit).
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t thread_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void on_stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static inline void workload_start(int argc, char **argv)
{
	struct sigaction action = {};

	action.sa_handler = on_stop;
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && atoi(argv[1]) > 0)
		alarm((unsigned)atoi(argv[1]));
}

/* The CPU time of all threads, dead ones and the time before an exec included. */
static inline void print_cpu(void)
{
	printf("cpu_s %.4f\n", (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9);
}

/* Some arithmetic that no compiler removes: about a nanosecond a round. */
static inline __attribute__((always_inline)) uint64_t work(uint64_t rounds)
{
	uint64_t x = rounds;

	for (uint64_t i = 0; i < rounds; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		__asm__ volatile("" : "+r"(x));
	}
	return x;
}

#endif

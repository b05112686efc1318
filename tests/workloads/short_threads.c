/* SPDX-License-Identifier: MIT
 *
 * Threads that end after 2 ms of CPU, one after the other, beside a steady thread. Prints both
 * shares of the CPU time, measured by the threads themselves.
 * usage: short_threads [SECONDS]
 */
#include "workload.h"
#include <pthread.h>

#define LIFE_NS 2000000u

static uint64_t short_ns; /* written by one short thread at a time, joined in between */
static uint64_t steady_ns;
static unsigned births;

__attribute__((noinline)) static void short_work(void)
{
	while (thread_cpu_ns() < LIFE_NS)
		work(10000);
}

__attribute__((noinline)) static void steady_work(void)
{
	work(100000);
}

static void *short_thread(void *unused)
{
	short_work();
	short_ns += thread_cpu_ns();
	return unused;
}

static void *steady_thread(void *unused)
{
	while (!stopping)
		steady_work();
	steady_ns = thread_cpu_ns();
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t steady;
	double total;

	workload_start(argc, argv);
	if (pthread_create(&steady, NULL, steady_thread, NULL))
		return 1;
	while (!stopping) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, short_thread, NULL))
			return 1;
		pthread_join(thread, NULL);
		births++;
	}
	pthread_join(steady, NULL);
	total = (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	printf("short_work %.4f\nsteady_work %.4f\nthreads %u\n", (double)short_ns / total,
	       (double)steady_ns / total, births);
	print_cpu();
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * N busy threads, named busy-0, busy-1, … Prints the rounds of work done, every 100 ms if asked.
 * usage: busy_threads [SECONDS [N [verbose]]]
 */
#include "workload.h"
#include <pthread.h>

#define THREADS_MAX 1024

static uint64_t rounds[THREADS_MAX * 8]; /* a cache line each */

__attribute__((noinline)) static void busy_leaf(void)
{
	work(1000);
}

__attribute__((noinline)) static void busy_loop(uint64_t *count)
{
	while (!stopping) {
		busy_leaf();
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	}
}

static void *busy_thread(void *count)
{
	busy_loop(count);
	return NULL;
}

static uint64_t total(unsigned threads)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < threads; i++)
		sum += __atomic_load_n(&rounds[i * 8], __ATOMIC_RELAXED);
	return sum;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 2;

	workload_start(argc, argv);
	if (count > THREADS_MAX)
		return 2;
	for (unsigned i = 0; i < count; i++) {
		char name[16];

		if (pthread_create(&threads[i], NULL, busy_thread, &rounds[i * 8]))
			return 1;
		snprintf(name, sizeof(name), "busy-%u", i);
		pthread_setname_np(threads[i], name);
	}
	for (uint64_t before = 0; !stopping;) {
		usleep(100000);
		if (argc > 3)
			printf("%lu\n", total(count) - before);
		before = total(count);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("rounds %lu\n", total(count));
	return 0;
}

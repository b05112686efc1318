/* SPDX-License-Identifier: MIT
 *
 * N threads asleep in a condition variable, each below D frames of its own recursion.
 * Prints "ready" once all of them are there.
 * usage: many_threads [N [D]]
 */
#include "workload.h"
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static unsigned waiting;

__attribute__((noinline)) static unsigned wait_for_ever(void)
{
	pthread_mutex_lock(&lock);
	waiting++;
	pthread_cond_signal(&arrived);
	while (waiting)
		pthread_cond_wait(&never, &lock);
	pthread_mutex_unlock(&lock);
	return 1;
}

__attribute__((noinline)) static unsigned descend(unsigned depth) /* NOLINT(misc-no-recursion) */
{
	unsigned below = depth ? descend(depth - 1) : wait_for_ever();

	__asm__ volatile("" : "+r"(below)); /* no tail call */
	return below + 1;
}

static void *sleeper(void *depth)
{
	descend(*(unsigned *)depth);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 100;
	unsigned depth = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024 + 256 * (size_t)depth);
	for (unsigned i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attributes, sleeper, &depth)) {
			fprintf(stderr, "only %u threads\n", i);
			return 1;
		}
	}
	pthread_mutex_lock(&lock);
	while (waiting < count)
		pthread_cond_wait(&arrived, &lock);
	pthread_mutex_unlock(&lock);
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}

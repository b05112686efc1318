/* SPDX-License-Identifier: MIT
 *
 * contend MODE THREADS SECONDS: locks that are held and waited for as long as is said here.
 *
 *   known    `slow` holds `first` for 20 ms, again and again, and sleeps 5 ms between; `quick`
 * wants it all the time and holds it for 1 ms; the same for a rwlock `second` with a writer that
 * holds it for 10 ms. At the end: what was waited, in all and of each lock. hot      threads hold
 * one mutex for about a microsecond each time; passes a second, each 20 ms free     each thread has
 * a mutex of its own: ns of a lock and unlock, each 20 ms
 */
#include "workload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS 64

static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t second = PTHREAD_RWLOCK_INITIALIZER;
static atomic_bool ending;
static _Atomic uint64_t waited_ns[2];
static _Atomic uint64_t waits[2];
static struct {
	pthread_mutex_t mutex;
	_Atomic uint64_t passes;
	char rest[64];
} own[THREADS];

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void spend(uint64_t ns)
{
	struct timespec time = {.tv_nsec = (long)ns};

	nanosleep(&time, NULL);
}

static void note(int lock, uint64_t before)
{
	uint64_t ns = now_ns() - before;

	if (ns < 100000) /* it was free */
		return;
	waited_ns[lock] += ns;
	waits[lock]++;
}

__attribute__((noinline)) static void hold_long(void)
{
	uint64_t before = now_ns();

	pthread_mutex_lock(&first);
	note(0, before);
	spend(20000000);
	pthread_mutex_unlock(&first);
	__asm__ volatile("");
}

__attribute__((noinline)) static void hold_short(void)
{
	uint64_t before = now_ns();

	pthread_mutex_lock(&first);
	note(0, before);
	spend(1000000);
	pthread_mutex_unlock(&first);
	__asm__ volatile("");
}

__attribute__((noinline)) static void write_long(void)
{
	uint64_t before = now_ns();

	pthread_rwlock_wrlock(&second);
	note(1, before);
	spend(10000000);
	pthread_rwlock_unlock(&second);
	__asm__ volatile("");
}

__attribute__((noinline)) static void read_short(void)
{
	uint64_t before = now_ns();

	pthread_rwlock_rdlock(&second);
	note(1, before);
	pthread_rwlock_unlock(&second);
	__asm__ volatile("");
}

static void *slow(void *unused)
{
	while (!ending) {
		hold_long();
		spend(5000000);
	}
	return unused;
}

static void *quick(void *unused)
{
	while (!ending) {
		hold_short();
		spend(500000);
	}
	return unused;
}

static void *writer(void *unused)
{
	while (!ending) {
		write_long();
		spend(10000000);
	}
	return unused;
}

static void *reader(void *unused)
{
	while (!ending) {
		read_short();
		spend(1000000);
	}
	return unused;
}

static void *hot(void *index)
{
	uint64_t passes = 0;

	while (!ending) {
		pthread_mutex_lock(&first);
		for (volatile int i = 0; i < 500; i++)
			;
		pthread_mutex_unlock(&first);
		own[(uintptr_t)index].passes = ++passes;
	}
	return NULL;
}

static void *freely(void *index)
{
	pthread_mutex_t *mutex = &own[(uintptr_t)index].mutex;
	uint64_t passes = 0;

	while (!ending) {
		for (int i = 0; i < 1000; i++) {
			pthread_mutex_lock(mutex);
			pthread_mutex_unlock(mutex);
		}
		own[(uintptr_t)index].passes = passes += 1000;
	}
	return NULL;
}

static uint64_t all_passes(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < THREADS; i++)
		sum += own[i].passes;
	return sum;
}

/* Lines "time figure": passes a second, or ns a pass and thread. */
static void tell(const char *mode, int threads, double seconds)
{
	uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);

	while (now_ns() < end) {
		uint64_t passes = all_passes();
		uint64_t before = now_ns();
		double each;

		spend(20000000);
		each = (double)(all_passes() - passes) / (double)(now_ns() - before);
		printf("%llu %.3f\n", (unsigned long long)now_ns(),
		       strcmp(mode, "free") == 0 ? threads / each : each * 1e9);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	static void *(*const known[])(void *) = {slow, quick, quick, writer, reader, reader};
	const char *mode = argc > 1 ? argv[1] : "known";
	int count = argc > 2 ? atoi(argv[2]) : 2;
	double seconds = argc > 3 ? atof(argv[3]) : 1e6;
	pthread_t threads[THREADS];
	bool timed = strcmp(mode, "known") != 0;

	count = timed ? count : 6;
	for (int i = 0; i < count && i < THREADS; i++) {
		pthread_mutex_init(&own[i].mutex, NULL);
		pthread_create(&threads[i], NULL,
			       !timed                     ? known[i]
			       : strcmp(mode, "hot") == 0 ? hot
							  : freely,
			       (void *)(uintptr_t)i);
	}
	puts("ready");
	fflush(stdout);
	if (timed)
		tell(mode, count, seconds);
	else
		usleep((useconds_t)(seconds * 1e6));
	ending = true;
	for (int i = 0; i < count && i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 2 && !timed; i++)
		printf("lock %d: %llu waits, %llu ns\n", i, (unsigned long long)waits[i],
		       (unsigned long long)waited_ns[i]);
	return 0;
}

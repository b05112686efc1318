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
static int rounds; /* of a loop that takes a microsecond */
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

/* --- the program's own account: who waits, and who is charged with it ----------------------- */

enum holder { HOLD_LONG, HOLD_SHORT, WRITE_LONG, READ_SHORT, HOLDERS };
static const char *const holder_names[] = {"hold_long", "hold_short", "write_long", "read_short"};
static _Atomic uint64_t since_ns[6]; /* by thread: since when it waits, charged up to there */
static _Atomic uint64_t charged_ns[HOLDERS];
static atomic_int last[2] = {HOLD_LONG, WRITE_LONG}; /* who unlocked */
static __thread int self;

static bool is_of(int thread, int lock)
{
	return (thread < 3) == (lock == 0);
}

static uint64_t begin(void)
{
	uint64_t now = now_ns();

	since_ns[self] = now;
	return now;
}

static void note(int lock, uint64_t before)
{
	uint64_t now = now_ns();
	uint64_t since = atomic_exchange(&since_ns[self], 0);

	if (now - before < 100000) /* it was free */
		return;
	charged_ns[last[lock]] += now - since;
	waited_ns[lock] += now - before;
	waits[lock]++;
}

static void charge(int lock, enum holder holder)
{
	for (int i = 0; i < 6; i++) {
		uint64_t since = since_ns[i];
		uint64_t now = now_ns();

		if (since && is_of(i, lock) &&
		    atomic_compare_exchange_strong(&since_ns[i], &since, now))
			charged_ns[holder] += now - since;
	}
	last[lock] = holder;
}

__attribute__((noinline)) static void hold_long(void)
{
	uint64_t before = begin();

	pthread_mutex_lock(&first);
	note(0, before);
	spend(20000000);
	charge(0, HOLD_LONG);
	pthread_mutex_unlock(&first);
	__asm__ volatile("");
}

__attribute__((noinline)) static void hold_short(void)
{
	uint64_t before = begin();

	pthread_mutex_lock(&first);
	note(0, before);
	spend(1000000);
	charge(0, HOLD_SHORT);
	pthread_mutex_unlock(&first);
	__asm__ volatile("");
}

__attribute__((noinline)) static void write_long(void)
{
	uint64_t before = begin();

	pthread_rwlock_wrlock(&second);
	note(1, before);
	spend(10000000);
	charge(1, WRITE_LONG);
	pthread_rwlock_unlock(&second);
	__asm__ volatile("");
}

__attribute__((noinline)) static void read_short(void)
{
	uint64_t before = begin();

	pthread_rwlock_rdlock(&second);
	note(1, before);
	charge(1, READ_SHORT);
	pthread_rwlock_unlock(&second);
	__asm__ volatile("");
}

static void *slow(void *index)
{
	self = (int)(uintptr_t)index;
	while (!ending) {
		hold_long();
		spend(5000000);
	}
	return NULL;
}

static void *quick(void *index)
{
	self = (int)(uintptr_t)index;
	while (!ending) {
		hold_short();
		spend(500000);
	}
	return NULL;
}

static void *writer(void *index)
{
	self = (int)(uintptr_t)index;
	while (!ending) {
		write_long();
		spend(10000000);
	}
	return NULL;
}

static void *reader(void *index)
{
	self = (int)(uintptr_t)index;
	while (!ending) {
		read_short();
		spend(1000000);
	}
	return NULL;
}

static void calibrate(void)
{
	uint64_t best = UINT64_MAX;

	for (int turn = 0; turn < 20; turn++) {
		uint64_t before = now_ns();
		uint64_t ns;

		for (volatile int i = 0; i < 100000; i++)
			;
		ns = now_ns() - before;
		best = ns < best ? ns : best;
	}
	rounds = (int)(100000000 / best) + 1;
}

static void *hot(void *index)
{
	uint64_t passes = 0;

	while (!ending) {
		pthread_mutex_lock(&first);
		for (volatile int i = 0; i < rounds; i++)
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
	calibrate();
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
	for (int i = 0; i < HOLDERS && !timed; i++)
		printf("%s: charged %llu ns\n", holder_names[i], (unsigned long long)charged_ns[i]);
	return 0;
}

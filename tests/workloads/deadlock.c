/* SPDX-License-Identifier: MIT
 *
 * Two threads, each with the lock that the other wants, and one that has nothing to do with it.
 * Prints "ready" shortly before they are stuck.
 * With CIRCLE so many more threads wait for one another in a circle.
 * usage: deadlock [SECONDS [CIRCLE]]
 */
#include "workload.h"
#include <pthread.h>

pthread_mutex_t accounts = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t journal = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both;

__attribute__((noinline)) static void write_journal(void)
{
	pthread_mutex_lock(&journal);
	pthread_mutex_unlock(&journal);
}

__attribute__((noinline)) static void book(void)
{
	pthread_mutex_lock(&accounts);
	pthread_barrier_wait(&both);
	write_journal();
	pthread_mutex_unlock(&accounts);
}

__attribute__((noinline)) static void read_accounts(void)
{
	pthread_mutex_lock(&accounts);
	pthread_mutex_unlock(&accounts);
}

__attribute__((noinline)) static void rotate(void)
{
	pthread_mutex_lock(&journal);
	pthread_barrier_wait(&both);
	read_accounts();
	pthread_mutex_unlock(&journal);
}

static void *booking(void *unused)
{
	(void)unused;
	book();
	return NULL;
}

static void *rotating(void *unused)
{
	(void)unused;
	rotate();
	return NULL;
}

static void *innocent(void *unused)
{
	(void)unused;
	for (;;)
		sleep(1000);
	return NULL;
}

#define CIRCLE_MAX 100

static struct {
	pthread_mutex_t locks[CIRCLE_MAX];
	pthread_barrier_t all;
	size_t count;
} circle;

static void *round_about(void *number)
{
	size_t at = (size_t)number;

	pthread_mutex_lock(&circle.locks[at]);
	pthread_barrier_wait(&circle.all);
	pthread_mutex_lock(&circle.locks[(at + 1) % circle.count]);
	return NULL;
}

static void begin_circle(size_t count)
{
	pthread_t thread;

	circle.count = count;
	pthread_barrier_init(&circle.all, NULL, (unsigned)count);
	for (size_t i = 0; i < count; i++)
		pthread_mutex_init(&circle.locks[i], NULL);
	for (size_t i = 0; i < count; i++)
		if (pthread_create(&thread, NULL, round_about, (void *)i))
			exit(1);
}

static void begin(void *(*run)(void *), const char *name)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, NULL))
		exit(1);
	pthread_setname_np(thread, name);
}

int main(int argc, char **argv)
{
	workload_start(argc, argv);
	if (argc > 2)
		begin_circle(strtoul(argv[2], NULL, 10) % (CIRCLE_MAX + 1));
	pthread_barrier_init(&both, NULL, 3);
	begin(innocent, "innocent");
	begin(booking, "booking");
	begin(rotating, "rotating");
	pthread_barrier_wait(&both);
	puts("ready");
	while (!stopping)
		pause();
	_exit(0);
}

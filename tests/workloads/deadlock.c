/* SPDX-License-Identifier: MIT
 *
 * Two threads, each with the lock that the other wants, and one that has nothing to do with it.
 * Prints "ready" shortly before they are stuck.
 * usage: deadlock [SECONDS]
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
		usleep(100000);
	return NULL;
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

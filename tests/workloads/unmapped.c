/* SPDX-License-Identifier: MIT
 *
 * A thread that waits for a mutex whose memory is gone: it would sleep for ever, unless it was
 * disturbed: then the C library aborts.
 */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void *wait_for_it(void *argument)
{
	pthread_mutex_lock(argument);
	return NULL;
}

int main(void)
{
	pthread_mutex_t *mutex =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	if (mutex == MAP_FAILED || pthread_mutex_init(mutex, NULL))
		return 2;
	pthread_mutex_lock(mutex);
	pthread_create(&thread, NULL, wait_for_it, mutex);
	usleep(200000);
	munmap(mutex, 4096);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

/* SPDX-License-Identifier: MIT
 *
 * A thread that is a vfork parent (uninterruptible) nearly all the time.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *parent(void *argument)
{
	for (;;) {
		if (vfork() == 0) {
			usleep(400000);
			_exit(0);
		}
		wait(NULL);
	}
	return argument;
}

int main(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, parent, NULL);
	for (;;)
		pause();
}

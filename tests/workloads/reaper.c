/* SPDX-License-Identifier: MIT
 *
 * A thread whose children end all the time, beside threads that wait for events: their calls must
 * not be ended by the SIGCHLDs, which nobody handles. At SIGTERM prints how many were; exits 1 if
 * there was any.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAITERS 20

static atomic_ulong interrupted;
static atomic_ulong ended;
static atomic_int stopping;

static void *wait_for_events(void *argument)
{
	int fd = epoll_create1(0);
	struct epoll_event event;

	while (!stopping)
		if (epoll_wait(fd, &event, 1, 200) < 0 && errno == EINTR)
			interrupted++;
	close(fd);
	return argument;
}

static void *reap(void *argument)
{
	pid_t lasting = fork(); /* a parent all the time */

	if (lasting == 0)
		for (;;)
			pause();
	while (!stopping) {
		pid_t child = fork();

		if (child == 0)
			_exit(0);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			continue;
		ended++;
	}
	kill(lasting, SIGKILL);
	waitpid(lasting, NULL, 0);
	return argument;
}

static void *stop(void *argument)
{
	int signal_number;

	sigwait(argument, &signal_number);
	stopping = 1;
	return NULL;
}

int main(void)
{
	pthread_t waiters[WAITERS], reaper, stopper;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pthread_create(&stopper, NULL, stop, &set);
	pthread_create(&reaper, NULL, reap, NULL);
	for (unsigned i = 0; i < WAITERS; i++)
		pthread_create(&waiters[i], NULL, wait_for_events, NULL);
	puts("ready");
	fflush(stdout);
	wait_for_events(NULL);
	for (unsigned i = 0; i < WAITERS; i++)
		pthread_join(waiters[i], NULL);
	pthread_join(reaper, NULL);
	pthread_join(stopper, NULL);
	printf("%lu children, %lu calls were ended%s\n", (unsigned long)ended,
	       (unsigned long)interrupted, interrupted ? " BAD" : "");
	return interrupted != 0;
}

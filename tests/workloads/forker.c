/* SPDX-License-Identifier: MIT
 *
 * Forks children, starts threads, and every second executes itself anew with threads running. The
 * children's CPU time is not part of what it prints.
 * usage: forker [SECONDS [PERIOD_MS]]
 */
#include "workload.h"
#include <pthread.h>
#include <sys/wait.h>

__attribute__((noinline)) static void thread_work(void)
{
	work(100000);
}

__attribute__((noinline)) static void child_work(void)
{
	work(1000000);
}

static void *busy_thread(void *unused)
{
	while (!stopping)
		thread_work();
	return unused;
}

int main(int argc, char **argv)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	uint64_t period = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1000) * 1000000;
	/* The alarm stays set over the exec. */
	char *const again[] = {argv[0], (char[]){"0"}, argc > 2 ? argv[2] : NULL, NULL};
	pthread_t thread;
	sigset_t stops;

	/* Only this thread takes signals, and none while an exec throws the handlers away. */
	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGALRM);
	sigprocmask(SIG_BLOCK, &stops, NULL);
	workload_start(argc, argv);
	if (pthread_create(&thread, NULL, busy_thread, NULL))
		return 1;
	sigprocmask(SIG_UNBLOCK, &stops, NULL);
	while (!stopping && clock_ns(CLOCK_MONOTONIC) < now + period) {
		pid_t child = fork();

		if (child == 0) {
			child_work();
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
	}
	sigprocmask(SIG_BLOCK, &stops, NULL);
	if (!stopping)
		execv("/proc/self/exe", again);
	print_cpu();
	return !stopping;
}

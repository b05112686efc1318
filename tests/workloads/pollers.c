/* SPDX-License-Identifier: MIT
 *
 * Two threads in a poll of a minute each; at SIGTERM, how many saw an EINTR.
 */
#include "workload.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

static int interrupted[2];

static void *wait_long(void *result)
{
	while (!stopping)
		if (poll(NULL, 0, 60000) < 0 && errno == EINTR)
			++*(int *)result;
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];
	sigset_t all;

	workload_start(argc, argv);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all,
			NULL); /* of the threads: only the first one is signalled */
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, wait_long, &interrupted[i]);
	pthread_sigmask(SIG_UNBLOCK, &all, NULL);
	puts("ready");
	while (!stopping)
		pause();
	printf("interrupted %d %d\n", interrupted[0], interrupted[1]);
	return 0;
}

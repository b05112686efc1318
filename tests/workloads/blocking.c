/* SPDX-License-Identifier: MIT
 *
 * Threads that wait, each in one way, and measure it themselves. When asked to stop, or after so
 * many seconds, each prints "NAME waited NS times N cpu NS wall NS". One thread sleeps throughout.
 * With a FIFO all begin when something is written into it.
 * usage: blocking [SECONDS [FIFO]]
 */
#pragma GCC optimize("no-optimize-sibling-calls") /* every caller stays on its stack */

#include "workload.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define MS 1000000l

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore;
static int pipe_fds[2];
static int sockets[2];
static int epoll;
static unsigned futex_word;
static bool signalled;

static void nap(long ns)
{
	struct timespec time = {0, ns};

	nanosleep(&time, NULL);
}

/* --- what waits ------------------------------------------------------------------------------ */

static void wait_sleep(void)
{
	nap(7 * MS);
}

static void wait_pipe(void)
{
	char byte;

	if (read(pipe_fds[0], &byte, 1) != 1)
		abort();
}

static void wait_socket(void)
{
	char byte;

	if (recv(sockets[0], &byte, 1, 0) != 1)
		abort();
}

static void wait_cond(void)
{
	pthread_mutex_lock(&cond_mutex);
	while (!signalled)
		pthread_cond_wait(&cond, &cond_mutex);
	signalled = false;
	pthread_mutex_unlock(&cond_mutex);
}

static void wait_sem(void)
{
	while (sem_wait(&semaphore))
		;
}

static void wait_mutex(void)
{
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
}

static void wait_rwlock(void)
{
	pthread_rwlock_rdlock(&rwlock);
	pthread_rwlock_unlock(&rwlock);
}

/* As runtimes do that have locks of their own. */
static void wait_futex(void)
{
	struct timespec time = {0, 9 * MS};

	syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
}

static void wait_poll(void)
{
	struct epoll_event event;

	epoll_wait(epoll, &event, 1, 8);
}

static void *finish_soon(void *unused)
{
	prctl(PR_SET_NAME, "short");
	nap(20 * MS);
	return unused;
}

static void wait_join(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, finish_soon, NULL))
		abort();
	pthread_join(thread, NULL);
}

/* --- who makes them wait --------------------------------------------------------------------- */

static void wake_pipes(void)
{
	nap(5 * MS);
	if (write(pipe_fds[1], "", 1) != 1 || write(sockets[1], "", 1) != 1)
		abort();
}

static void wake_cond(void)
{
	nap(4 * MS);
	pthread_mutex_lock(&cond_mutex);
	signalled = true;
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&cond_mutex);
	sem_post(&semaphore);
}

static void hold_locks(void)
{
	pthread_mutex_lock(&mutex);
	pthread_rwlock_wrlock(&rwlock);
	nap(6 * MS);
	pthread_rwlock_unlock(&rwlock);
	pthread_mutex_unlock(&mutex);
	nap(MS);
}

static void burn(void)
{
	work(3000000);
}

static const struct role {
	const char *name;
	void (*body)(void);
	bool measured; /* waiting is all it does */
} roles[] = {
	{"sleep", wait_sleep, true},       {"pipe", wait_pipe, true},
	{"socket", wait_socket, true},     {"cond", wait_cond, true},
	{"sem", wait_sem, true},           {"mutex", wait_mutex, true},
	{"rwlock", wait_rwlock, true},     {"futex", wait_futex, true},
	{"poll", wait_poll, true},         {"join", wait_join, true},
	{"wake-pipes", wake_pipes, false}, {"wake-cond", wake_cond, false},
	{"hold", hold_locks, false},       {"burn", burn, false},
};
#define ROLES (sizeof(roles) / sizeof(*roles))

static void *run(void *argument)
{
	const struct role *role = argument;
	uint64_t born = clock_ns(CLOCK_MONOTONIC);
	uint64_t waited = 0;
	unsigned times = 0;

	prctl(PR_SET_NAME, role->name);
	for (; !stopping; times++) {
		uint64_t before = clock_ns(CLOCK_MONOTONIC);

		role->body();
		waited += clock_ns(CLOCK_MONOTONIC) - before;
		/* Else the two take turns so fast that nobody is awake for long. */
		if (role->body == wait_mutex || role->body == wait_rwlock)
			work(1000000);
	}
	printf("%s waited %llu times %u cpu %llu wall %llu\n", role->name,
	       (unsigned long long)(role->measured ? waited : 0), times,
	       (unsigned long long)thread_cpu_ns(),
	       (unsigned long long)(clock_ns(CLOCK_MONOTONIC) - born));
	return NULL;
}

static void *sleep_throughout(void *unused)
{
	prctl(PR_SET_NAME, "throughout");
	pthread_mutex_lock(&cond_mutex);
	pthread_cond_wait(&never, &cond_mutex);
	return unused;
}

/* Whoever still waits must be let go. */
static void release(void)
{
	for (unsigned i = 0; i < 3; i++) {
		wake_pipes();
		wake_cond();
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[ROLES];
	pthread_t sleeper;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe(pipe_fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) ||
	    sem_init(&semaphore, 0, 0) || pthread_create(&sleeper, NULL, sleep_throughout, NULL))
		return 1;
	epoll = epoll_create1(0);
	if (argc > 2 && open(argv[2], O_RDONLY) < 0)
		return 1;
	workload_start(argc, argv);
	for (size_t i = 0; i < ROLES; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)&roles[i]))
			return 1;
	while (!stopping) /* the signal may be another thread's */
		nap(10 * MS);
	release();
	for (size_t i = 0; i < ROLES; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

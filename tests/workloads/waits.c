/* SPDX-License-Identifier: MIT
 *
 * Threads that wait, each named after what it waits for; or that have locked one another out.
 * Prints a line "ready" once all of them sleep.
 * usage: waits [kinds|pair|circle|self|gone|relock|writer|garbage|deep]
 */
#pragma GCC optimize("no-optimize-sibling-calls") /* every caller stays on its stack */

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t *heap_mutex;
static pthread_mutex_t robust_mutex;
static pthread_mutex_t inheriting_mutex;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_rwlock_t read_locked = PTHREAD_RWLOCK_INITIALIZER;
static pthread_rwlock_t *writers_first;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static sem_t semaphore;
static pthread_t sleeper;
static int pipe_fds[2];
static int listener;
static int socket_pair[2];

static void name_thread(const char *name)
{
	prctl(PR_SET_NAME, name);
}

static void *start(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, argument))
		exit(1);
	return (void *)thread;
}

/* --- one thread a kind of wait ------------------------------------------------------------- */

static void wait_mutex(void)
{
	pthread_mutex_lock(&mutex);
}

static void wait_heap_mutex(void)
{
	pthread_mutex_lock(heap_mutex);
}

static void wait_robust_mutex(void)
{
	pthread_mutex_lock(&robust_mutex);
}

static void wait_inheriting_mutex(void)
{
	pthread_mutex_lock(&inheriting_mutex);
}

static void wait_timed_mutex(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1000;
	pthread_mutex_timedlock(&mutex, &until);
}

static void wait_rdlock(void)
{
	pthread_rwlock_rdlock(&rwlock);
}

static void wait_wrlock(void)
{
	pthread_rwlock_wrlock(&rwlock);
}

static void wait_readers(void)
{
	pthread_rwlock_wrlock(&read_locked);
}

static void wait_writers_first(void)
{
	pthread_rwlock_rdlock(writers_first);
}

static void wait_cond(void)
{
	pthread_mutex_lock(&cond_mutex);
	pthread_cond_wait(&cond, &cond_mutex);
}

static void wait_timed_cond(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 500;
	pthread_mutex_lock(&cond_mutex);
	pthread_cond_timedwait(&cond, &cond_mutex, &until);
}

static void wait_sem(void)
{
	sem_wait(&semaphore);
}

static void wait_join(void)
{
	pthread_join(sleeper, NULL);
}

static void wait_until(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 800;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void wait_sleep(void)
{
	sleep(1000);
}

static void wait_poll(void)
{
	struct pollfd fds[] = {{.fd = pipe_fds[0], .events = POLLIN},
			       {.fd = listener, .events = POLLIN}};

	poll(fds, 2, -1);
}

static void wait_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(pipe_fds[0], &set);
	select(pipe_fds[0] + 1, &set, NULL, NULL, NULL);
}

static void wait_epoll(void)
{
	struct epoll_event event = {.events = EPOLLIN};
	int epoll = epoll_create1(0);

	epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_fds[0], &event);
	epoll_wait(epoll, &event, 1, -1);
}

static void wait_pipe(void)
{
	char byte;

	if (read(pipe_fds[0], &byte, 1) < 0)
		exit(1);
}

static void wait_accept(void)
{
	accept(listener, NULL, NULL);
}

static void wait_recv(void)
{
	char byte;

	recv(socket_pair[0], &byte, 1, 0);
}

static void wait_flock(void)
{
	int fd = open("/tmp", O_RDONLY | O_DIRECTORY);

	flock(fd, LOCK_EX);
}

static void wait_inotify(void)
{
	char buffer[64];

	if (read(inotify_init(), buffer, sizeof(buffer)) < 0)
		exit(1);
}

static void wait_msgrcv(void)
{
	char buffer[64];

	msgrcv(msgget(IPC_PRIVATE, 0600), buffer, 8, 0, 0);
}

static void wait_child(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void wait_signal(void)
{
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigwait(&set, &number);
}

static void spin(void)
{
	for (;;)
		__asm__ volatile("");
}

static const struct wait {
	const char *name;
	void (*body)(void);
} waits[] = {
	{"mutex", wait_mutex},
	{"heap-mutex", wait_heap_mutex},
	{"robust-mutex", wait_robust_mutex},
	{"inheriting", wait_inheriting_mutex},
	{"timed-mutex", wait_timed_mutex},
	{"rdlock", wait_rdlock},
	{"wrlock", wait_wrlock},
	{"readers", wait_readers},
	{"writers-first", wait_writers_first},
	{"cond", wait_cond},
	{"timed-cond", wait_timed_cond},
	{"sem", wait_sem},
	{"join", wait_join},
	{"until", wait_until},
	{"poll", wait_poll},
	{"select", wait_select},
	{"epoll", wait_epoll},
	{"pipe", wait_pipe},
	{"accept", wait_accept},
	{"recv", wait_recv},
	{"flock", wait_flock},
	{"inotify", wait_inotify},
	{"msgrcv", wait_msgrcv},
	{"child", wait_child},
	{"signal", wait_signal},
	{"spin", spin},
};

static void *run_wait(void *argument)
{
	const struct wait *wait = argument;

	name_thread(wait->name);
	wait->body();
	return NULL;
}

static void *run_sleeper(void *unused)
{
	name_thread("sleep");
	wait_sleep();
	return unused;
}

static void prepare(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	pthread_rwlockattr_t attributes;
	int lock;

	heap_mutex = malloc(sizeof(*heap_mutex));
	pthread_mutex_init(heap_mutex, NULL);
	writers_first = malloc(sizeof(*writers_first));
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(writers_first, &attributes);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	lock = open("/tmp", O_RDONLY | O_DIRECTORY);
	sem_init(&semaphore, 0, 0);
	if (pipe(pipe_fds) || bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 1) || socketpair(AF_UNIX, SOCK_STREAM, 0, socket_pair) ||
	    flock(lock, LOCK_EX))
		exit(1);
	pthread_mutex_lock(&mutex);
	pthread_mutex_lock(heap_mutex);
	pthread_rwlock_wrlock(&rwlock);
	pthread_rwlock_rdlock(&read_locked);
	pthread_rwlock_wrlock(writers_first);
}

static void lock_special_mutexes(void)
{
	pthread_mutexattr_t robust;
	pthread_mutexattr_t inheriting;

	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust_mutex, &robust);
	pthread_mutexattr_init(&inheriting);
	pthread_mutexattr_setprotocol(&inheriting, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&inheriting_mutex, &inheriting);
	pthread_mutex_lock(&robust_mutex);
	pthread_mutex_lock(&inheriting_mutex);
}

static void kinds(void)
{
	prepare();
	lock_special_mutexes();
	sleeper = (pthread_t)start(run_sleeper, NULL);
	for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++)
		start(run_wait, (void *)&waits[i]);
}

/* --- deadlocks ----------------------------------------------------------------------------- */

#define CIRCLE_MAX 3

static pthread_mutex_t circle[CIRCLE_MAX] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
					     PTHREAD_MUTEX_INITIALIZER};
static pthread_barrier_t barrier;
static unsigned circle_length;

static void *run_circle(void *argument)
{
	unsigned mine = (unsigned)(size_t)argument;
	char name[16];

	snprintf(name, sizeof(name), "circle-%u", mine);
	name_thread(name);
	pthread_mutex_lock(&circle[mine]);
	pthread_barrier_wait(&barrier);
	pthread_mutex_lock(&circle[(mine + 1) % circle_length]);
	return NULL;
}

static void lock_circle(unsigned length)
{
	circle_length = length;
	pthread_barrier_init(&barrier, NULL, length);
	for (size_t i = 0; i < length; i++)
		start(run_circle, (void *)i);
}

static void *run_self(void *unused)
{
	name_thread("self");
	pthread_mutex_lock(&mutex);
	pthread_mutex_lock(&mutex);
	return unused;
}

static void *run_gone(void *unused)
{
	pthread_mutex_lock(&mutex);
	return unused;
}

static void *run_waiter(void *unused)
{
	name_thread("waiter");
	pthread_mutex_lock(&mutex);
	return unused;
}

/* Woken from a condition, but its mutex is held by main. */
static void *run_relock(void *unused)
{
	name_thread("relock");
	wait_cond();
	return unused;
}

static void *run_writer(void *unused)
{
	name_thread("writer");
	pthread_rwlock_wrlock(&rwlock);
	pthread_mutex_lock(&mutex);
	return unused;
}

static pthread_mutex_t *spoilt;

static void *run_spoilt(void *unused)
{
	name_thread("spoilt");
	pthread_mutex_lock(spoilt);
	return unused;
}

/* Its memory becomes something else while a thread waits for it. */
static void spoil_mutex(void)
{
	spoilt = malloc(sizeof(*spoilt));
	pthread_mutex_init(spoilt, NULL);
	pthread_mutex_lock(spoilt);
	start(run_spoilt, NULL);
	usleep(200000);
	memset(spoilt, 0xff, sizeof(*spoilt));
}

static volatile int depth = 30000;

static __attribute__((noinline)) int descend(int levels)
{
	if (levels == 0) {
		name_thread("bottom");
		return pause();
	}
	return descend(levels - 1) + depth;
}

static void *run_deep(void *unused)
{
	printf("%d\n", descend(depth));
	return unused;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "kinds";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	name_thread("main");
	if (strcmp(mode, "kinds") == 0) {
		kinds();
	} else if (strcmp(mode, "pair") == 0) {
		lock_circle(2);
	} else if (strcmp(mode, "circle") == 0) {
		lock_circle(3);
	} else if (strcmp(mode, "self") == 0) {
		start(run_self, NULL);
	} else if (strcmp(mode, "gone") == 0) {
		pthread_join((pthread_t)start(run_gone, NULL), NULL);
		start(run_waiter, NULL);
	} else if (strcmp(mode, "relock") == 0) {
		start(run_relock, NULL);
		usleep(200000);
		pthread_mutex_lock(&cond_mutex);
		pthread_cond_signal(&cond);
	} else if (strcmp(mode, "writer") == 0) {
		/* main has the mutex and wants the rwlock that the writer has */
		pthread_mutex_lock(&mutex);
		start(run_writer, NULL);
	} else if (strcmp(mode, "garbage") == 0) {
		spoil_mutex();
	} else if (strcmp(mode, "deep") == 0) {
		start(run_deep, NULL);
	}
	usleep(300000);
	puts("ready");
	fflush(stdout);
	if (strcmp(mode, "writer") == 0)
		pthread_rwlock_rdlock(&rwlock);
	for (;;)
		pause();
}

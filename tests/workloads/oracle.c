/* SPDX-License-Identifier: MIT
 *
 * A thread in each kind of blocking call, fed every few milliseconds: what a call returns, and
 * when, must not depend on being profiled. At SIGTERM prints a line a kind: calls, EINTRs seen,
 * wrong results, calls that returned too early; exits 1 if there was any. usage: oracle [storm]:
 * with `storm`, threads are born and die, and signals are sent and counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLEEP_NS 20000000ll
#define FEED_US  3000

struct kind {
	const char *name;
	int (*call)(struct kind *);  /* 0 right, -1 with errno, 1 a wrong result */
	void (*feed)(struct kind *); /* NULL: it ends by its own timeout of SLEEP_NS */
	int fd[2];
	int id;
	sem_t sem;
	_Atomic uint32_t word;
	unsigned long calls, eintr, wrong, early;
	_Atomic int waiting; /* fed only while it waits */
};

static atomic_int stopping;
static char directory[] = "/tmp/oracle.XXXXXX";
static char path[64];

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static const struct timespec nap = {.tv_nsec = SLEEP_NS};
static const struct timespec ages = {.tv_sec = 3600};

static struct timespec soon(void)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_nsec += SLEEP_NS;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

/* --- calls that are fed -------------------------------------------------------------------- */

static void feed_fd(struct kind *kind)
{
	if (write(kind->fd[1], "x", 1) != 1)
		kind->wrong++;
}

static int take_byte(struct kind *kind)
{
	char byte;

	return read(kind->fd[0], &byte, 1) == 1 ? 0 : -1;
}

static int call_epoll(struct kind *kind)
{
	struct epoll_event event = {.events = EPOLLIN};
	int got = epoll_wait(kind->id, &event, 1, 3600000);

	return got == 1 ? take_byte(kind) : got < 0 ? -1 : 1;
}

static int call_epoll_pwait(struct kind *kind)
{
	struct epoll_event event;
	sigset_t mask;
	int got;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGTERM);
	got = epoll_pwait(kind->id, &event, 1, -1, &mask);
	return got == 1 ? take_byte(kind) : got < 0 ? -1 : 1;
}

static int call_poll(struct kind *kind)
{
	struct pollfd fd = {.fd = kind->fd[0], .events = POLLIN};
	int got = poll(&fd, 1, 3600000);

	return got == 1 ? take_byte(kind) : got < 0 ? -1 : 1;
}

static int call_select(struct kind *kind)
{
	struct timeval timeout = {.tv_sec = 3600};
	fd_set set;
	int got;

	FD_ZERO(&set);
	FD_SET(kind->fd[0], &set);
	got = select(kind->fd[0] + 1, &set, NULL, NULL, &timeout);
	return got == 1 ? take_byte(kind) : got < 0 ? -1 : 1;
}

static int call_recv(struct kind *kind)
{
	char byte;
	ssize_t got = recv(kind->fd[0], &byte, 1, 0);

	return got == 1 ? 0 : got < 0 ? -1 : 1;
}

static int call_accept(struct kind *kind)
{
	int fd = accept(kind->fd[0], NULL, NULL);

	if (fd >= 0)
		close(fd);
	return fd >= 0 ? 0 : -1;
}

static void feed_accept(struct kind *kind)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", directory);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		kind->wrong++;
	close(fd);
}

static int call_sem(struct kind *kind)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_sec += 3600;
	return sem_timedwait(&kind->sem, &at);
}

static void feed_sem(struct kind *kind)
{
	sem_post(&kind->sem);
}

static int call_signal(struct kind *kind)
{
	sigset_t set;
	int got;

	(void)kind;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	got = sigtimedwait(&set, NULL, &ages);
	return got == SIGUSR2 ? 0 : got < 0 ? -1 : 1;
}

static void feed_signal(struct kind *kind)
{
	(void)kind;
	kill(getpid(), SIGUSR2);
}

static int call_message(struct kind *kind)
{
	struct {
		long type;
		char text[8];
	} message;

	return msgrcv(kind->id, &message, sizeof(message.text), 0, 0) >= 0 ? 0 : -1;
}

static void feed_message(struct kind *kind)
{
	struct {
		long type;
		char text[8];
	} message = {.type = 1};

	if (msgsnd(kind->id, &message, sizeof(message.text), 0) < 0)
		kind->wrong++;
}

static int call_semop(struct kind *kind)
{
	struct sembuf take = {.sem_op = -1};

	return semop(kind->id, &take, 1);
}

static void feed_semop(struct kind *kind)
{
	struct sembuf give = {.sem_op = 1};

	if (semop(kind->id, &give, 1) < 0)
		kind->wrong++;
}

static int call_futex(struct kind *kind)
{
	while (atomic_load(&kind->word) == 0)
		if (syscall(SYS_futex, &kind->word, FUTEX_WAIT_PRIVATE, 0, &ages, NULL, 0) < 0 &&
		    errno != EAGAIN)
			return -1;
	atomic_store(&kind->word, 0);
	return 0;
}

static void feed_futex(struct kind *kind)
{
	atomic_store(&kind->word, 1);
	syscall(SYS_futex, &kind->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int call_inotify(struct kind *kind)
{
	char buffer[4096];

	return read(kind->id, buffer, sizeof(buffer)) > 0 ? 0 : -1;
}

static void feed_inotify(struct kind *kind)
{
	(void)kind;
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

/* The lock is held by the feeder but for a moment. */
static int call_flock(struct kind *kind)
{
	if (flock(kind->fd[0], LOCK_EX) < 0)
		return -1;
	flock(kind->fd[0], LOCK_UN);
	return 0;
}

static void feed_flock(struct kind *kind)
{
	flock(kind->fd[1], LOCK_UN);
	usleep(500);
	while (flock(kind->fd[1], LOCK_EX) < 0)
		kind->wrong++;
}

static int call_waitpid(struct kind *kind)
{
	pid_t child = fork();
	char byte;

	if (child == 0) {
		ssize_t got = read(kind->fd[0], &byte, 1);

		_exit(got == 1 ? 7 : 1);
	}
	for (;;) {
		int status;
		pid_t got = waitpid(child, &status, 0);

		if (got == child)
			return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : 1;
		if (errno == EINTR)
			kind->eintr++;
		else
			return -1;
	}
}

/* --- calls that time out ------------------------------------------------------------------- */

static int call_nanosleep(struct kind *kind)
{
	(void)kind;
	return nanosleep(&nap, NULL);
}

static int call_clock_nanosleep(struct kind *kind)
{
	(void)kind;
	errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	return errno ? -1 : 0;
}

static int call_cond(struct kind *kind)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec at = soon();
	int got;

	(void)kind;
	pthread_mutex_lock(&mutex);
	got = pthread_cond_timedwait(&cond, &mutex, &at);
	pthread_mutex_unlock(&mutex);
	return got == ETIMEDOUT ? 0 : 1;
}

static int call_poll_timeout(struct kind *kind)
{
	int got = poll(NULL, 0, SLEEP_NS / 1000000);

	(void)kind;
	return got == 0 ? 0 : got < 0 ? -1 : 1;
}

static struct kind kinds[] = {
	{.name = "epoll_wait", .call = call_epoll, .feed = feed_fd},
	{.name = "epoll_pwait", .call = call_epoll_pwait, .feed = feed_fd},
	{.name = "poll", .call = call_poll, .feed = feed_fd},
	{.name = "select", .call = call_select, .feed = feed_fd},
	{.name = "read-pipe", .call = take_byte, .feed = feed_fd},
	{.name = "recv-timeout", .call = call_recv, .feed = feed_fd},
	{.name = "accept", .call = call_accept, .feed = feed_accept},
	{.name = "sem_timedwait", .call = call_sem, .feed = feed_sem},
	{.name = "sigtimedwait", .call = call_signal, .feed = feed_signal},
	{.name = "msgrcv", .call = call_message, .feed = feed_message},
	{.name = "semop", .call = call_semop, .feed = feed_semop},
	{.name = "futex", .call = call_futex, .feed = feed_futex},
	{.name = "inotify", .call = call_inotify, .feed = feed_inotify},
	{.name = "flock", .call = call_flock, .feed = feed_flock},
	{.name = "waitpid", .call = call_waitpid, .feed = feed_fd},
	{.name = "nanosleep", .call = call_nanosleep},
	{.name = "clock_nanosleep", .call = call_clock_nanosleep},
	{.name = "cond_timedwait", .call = call_cond},
	{.name = "poll-timeout", .call = call_poll_timeout},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void set_up(struct kind *kind)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval hour = {.tv_sec = 3600};
	struct epoll_event event = {.events = EPOLLIN};

	if (pipe(kind->fd) < 0)
		exit(2);
	kind->id = epoll_create1(0);
	epoll_ctl(kind->id, EPOLL_CTL_ADD, kind->fd[0], &event);
	sem_init(&kind->sem, 0, 0);
	if (kind->call == call_recv) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, kind->fd);
		setsockopt(kind->fd[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof(hour));
	} else if (kind->call == call_accept) {
		kind->fd[0] = socket(AF_UNIX, SOCK_STREAM, 0);
		setsockopt(kind->fd[0], SOL_SOCKET, SO_RCVTIMEO, &hour, sizeof(hour));
		snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", directory);
		if (bind(kind->fd[0], (struct sockaddr *)&address, sizeof(address)) < 0 ||
		    listen(kind->fd[0], 100) < 0)
			exit(2);
	} else if (kind->call == call_message) {
		kind->id = msgget(IPC_PRIVATE, 0600);
	} else if (kind->call == call_semop) {
		kind->id = semget(IPC_PRIVATE, 1, 0600);
	} else if (kind->call == call_inotify) {
		kind->id = inotify_init();
		inotify_add_watch(kind->id, directory, IN_CLOSE_WRITE);
	} else if (kind->call == call_flock) {
		kind->fd[0] = open(path, O_CREAT | O_RDWR, 0600);
		kind->fd[1] = open(path, O_RDWR);
		flock(kind->fd[1], LOCK_EX);
	}
}

static void *run(void *argument)
{
	struct kind *kind = argument;

	while (!stopping) {
		int64_t before = now_ns();
		int result;

		kind->waiting = 1;
		result = kind->call(kind);
		kind->waiting = 0;
		kind->calls++;
		if (result < 0 && errno == EINTR)
			kind->eintr++;
		else if (result != 0)
			kind->wrong++;
		else if (!kind->feed && now_ns() - before < SLEEP_NS - 1000000)
			kind->early++;
	}
	return NULL;
}

static void *feed(void *argument)
{
	(void)argument;
	for (;;) {
		for (size_t i = 0; i < KINDS; i++)
			if (kinds[i].feed && (kinds[i].waiting || kinds[i].call == call_waitpid))
				kinds[i].feed(&kinds[i]);
		usleep(FEED_US);
	}
	return NULL;
}

/* --- the storm ----------------------------------------------------------------------------- */

static _Atomic unsigned long handled;
static unsigned long sent;
static _Atomic unsigned long births;

static void on_realtime(int signal)
{
	(void)signal;
	handled++;
}

static void *short_life(void *argument)
{
	births++;
	usleep((useconds_t)(uintptr_t)argument % 300);
	return NULL;
}

static void *give_birth(void *argument)
{
	while (!stopping) {
		pthread_t threads[8];

		for (uintptr_t i = 0; i < 8; i++)
			if (pthread_create(&threads[i], NULL, short_life, (void *)(i * 40)))
				exit(2);
		for (unsigned i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
	}
	return argument;
}

static void *spin(void *argument)
{
	while (!stopping)
		usleep(200);
	return argument;
}

/* Signals go to a thread that does nothing else: others must not see them. */
static void *send_signals(void *argument)
{
	pthread_t *target = argument;

	while (!stopping) {
		union sigval value = {.sival_int = 1};

		if (pthread_sigqueue(*target, SIGRTMIN, value) == 0)
			sent++;
		kill(getpid(), SIGWINCH); /* ignored */
		usleep(100);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static pthread_t receiver;
	pthread_t threads[KINDS], feeder, sender, mother;
	struct sigaction action = {.sa_handler = on_realtime, .sa_flags = SA_RESTART};
	int storm = argc > 1 && strcmp(argv[1], "storm") == 0;
	sigset_t set;
	int signal_number;
	int bad = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigdelset(&set, SIGUSR2);
	if (!mkdtemp(directory))
		return 2;
	snprintf(path, sizeof(path), "%s/file", directory);
	for (size_t i = 0; i < KINDS; i++)
		set_up(&kinds[i]);
	if (storm) {
		sigaction(SIGRTMIN, &action, NULL);
		signal(SIGWINCH, SIG_IGN);
		pthread_create(&receiver, NULL, spin, NULL);
		pthread_create(&sender, NULL, send_signals, &receiver);
		pthread_create(&mother, NULL, give_birth, NULL);
	}
	for (size_t i = 0; i < KINDS; i++)
		pthread_create(&threads[i], NULL, run, &kinds[i]);
	pthread_create(&feeder, NULL, feed, NULL);
	puts("ready");
	fflush(stdout);
	sigwait(&set, &signal_number);
	stopping = 1;
	for (size_t i = 0; i < KINDS; i++)
		pthread_join(threads[i], NULL);
	if (storm) {
		pthread_join(sender, NULL);
		pthread_join(mother, NULL);
		usleep(100000);
		pthread_join(receiver, NULL);
		printf("signals %lu %lu births %lu\n", sent, (unsigned long)handled,
		       (unsigned long)births);
		bad |= sent != handled;
	}
	for (size_t i = 0; i < KINDS; i++) {
		const struct kind *kind = &kinds[i];

		printf("%-16s %8lu calls %4lu eintr %4lu wrong %4lu early%s\n", kind->name,
		       kind->calls, kind->eintr, kind->wrong, kind->early,
		       kind->eintr || kind->wrong || kind->early || kind->calls < 10 ? " BAD" : "");
		bad |= kind->eintr || kind->wrong || kind->early || kind->calls < 10;
		if (kind->call == call_message)
			msgctl(kind->id, IPC_RMID, NULL);
		if (kind->call == call_semop)
			semctl(kind->id, 0, IPC_RMID);
	}
	unlink(path);
	snprintf(path, sizeof(path), "%s/socket", directory);
	unlink(path);
	rmdir(directory);
	return bad;
}

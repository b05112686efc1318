/* SPDX-License-Identifier: MIT
 *
 * Signals while recording. Handlers instead of a signalfd, because a write into a FIFO that nobody
 * reads must be interruptible.
 */
#include "private.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE};

static struct sigaction saved_actions[CPROF_COUNT(caught)];
static sigset_t saved_mask;
static sigset_t open_mask;
static volatile sig_atomic_t stops;
static volatile sig_atomic_t snapshot_wanted;
static volatile sig_atomic_t giving_up;
static volatile sig_atomic_t forward_to;

static void handle(int signal)
{
	static const char text[] = "cprof-attach: interrupted again: given up, no file written\n";
	int saved_errno = errno;

	if (signal == SIGUSR1) {
		snapshot_wanted = 1;
	} else if (forward_to) {
		if (signal != SIGINT)
			kill(forward_to, signal);
	} else {
		if (signal == SIGINT && stops && giving_up) {
			ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);

			(void)written;
			_exit(CPROF_FAILED);
		}
		stops = 1;
	}
	errno = saved_errno;
}

void cprof_signals_init(void)
{
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < CPROF_COUNT(caught); i++)
		sigaddset(&mask, caught[i]);
	sigprocmask(SIG_BLOCK, &mask, &saved_mask);
	open_mask = saved_mask;
	for (size_t i = 0; i < CPROF_COUNT(caught); i++) {
		/* No SA_RESTART: see above. SIGPIPE becomes an error of the write. */
		struct sigaction action = {.sa_handler = caught[i] == SIGPIPE ? SIG_IGN : handle};

		sigdelset(&open_mask, caught[i]);
		sigaction(caught[i], NULL, &saved_actions[i]);
		/* nohup stays in force; an ignored SIGINT is what a shell gives to background
		 * jobs, and `kill -INT` shall stop those too. */
		if (caught[i] != SIGHUP || saved_actions[i].sa_handler != SIG_IGN)
			sigaction(caught[i], &action, NULL);
	}
}

void cprof_signals_restore(void)
{
	for (size_t i = 0; i < CPROF_COUNT(caught); i++)
		sigaction(caught[i], &saved_actions[i], NULL);
	sigprocmask(SIG_SETMASK, &saved_mask, NULL);
}

bool cprof_signals_poll(int fd, uint64_t deadline_ns)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	uint64_t now = cprof_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
	struct timespec wait = {.tv_sec = (time_t)(left / 1000000000),
				.tv_nsec = (long)(left % 1000000000)};

	return ppoll(&pollfd, 1, deadline_ns == UINT64_MAX ? NULL : &wait, &open_mask) > 0;
}

bool cprof_signals_stopped(void)
{
	return stops;
}

bool cprof_signals_take_snapshot(void)
{
	bool wanted = snapshot_wanted;

	snapshot_wanted = 0;
	return wanted;
}

void cprof_signals_open(bool give_up)
{
	giving_up = give_up;
	sigprocmask(SIG_SETMASK, &open_mask, NULL);
}

void cprof_signals_close(void)
{
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < CPROF_COUNT(caught); i++)
		sigaddset(&mask, caught[i]);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	giving_up = 0;
}

void cprof_signals_forward(pid_t child)
{
	forward_to = child;
}

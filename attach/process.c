/* SPDX-License-Identifier: MIT
 *
 * The tracer's process: its start, its end, and why it may be refused.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Another dump is over soon, and so is what a killed profiler's tracer still does. */
#define TRACED_NS       1000000000ull
#define TRACED_PAUSE_US 5000
#define UNTRACED_TRIES  10

/* --- refusals ------------------------------------------------------------------------------ */

/* The process that traces a thread of the target already, 0 none. */
static pid_t other_tracer(const struct cprof_target *target)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count = 0;
	pid_t tracer = 0;

	cprof_error_destroy(cprof_target_threads(target, &tids, &count));
	for (size_t i = 0; i < count && !tracer; i++) {
		CPROF_AUTO_FREE char *status = NULL;
		const char *line;
		char path[40];

		snprintf(path, sizeof(path), "task/%d/status", (int)tids[i]);
		status = cprof_read_file_at(cprof_target_procfd(target), path, 1 << 16, NULL);
		line = status ? strstr(status, "\nTracerPid:") : NULL;
		if (line)
			tracer = (pid_t)strtol(line + strlen("\nTracerPid:"), NULL, 10);
	}
	return tracer;
}

struct cprof_error *cprof_tracer_denied(const struct cprof_target *target, int errnum)
{
	int pid = (int)cprof_target_info(target)->pid;
	pid_t tracer = other_tracer(target);
	char path[40];
	char name[64] = "?";
	CPROF_AUTO_FREE char *comm = NULL;

	if (!tracer)
		return cprof_error_errno(
			CPROF_DENIED, errnum,
			"run as root, or allow it: sysctl kernel.yama.ptrace_scope=0",
			"pid %d: it may not be traced", pid);
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)tracer);
	comm = cprof_read_file_at(-1, path, sizeof(name), NULL);
	if (comm)
		cprof_text_clean(comm, strcspn(comm, "\n"), name, sizeof(name));
	return cprof_error_create(CPROF_DENIED, "end that, or let it detach",
				  "pid %d: already traced by %s (pid %d)", pid, name, (int)tracer);
}

struct cprof_error *cprof_tracer_check(const struct cprof_target *target)
{
	return other_tracer(target) ? cprof_tracer_denied(target, 0) : NULL;
}

struct cprof_error *cprof_tracer_retry(const struct cprof_target *target,
				       struct cprof_error *(*attempt)(void *context), void *context)
{
	uint64_t end = cprof_now_ns() + TRACED_NS;
	unsigned untraced = 0;

	for (;;) {
		struct cprof_error *error = attempt(context);

		/* The tracer may have gone between the refusal and our look for it. */
		if (!error || error->status != CPROF_DENIED || cprof_now_ns() > end ||
		    (!other_tracer(target) && ++untraced == UNTRACED_TRIES))
			return error;
		cprof_error_destroy(error);
		usleep(TRACED_PAUSE_US);
	}
}

/* --- the process --------------------------------------------------------------------------- */

/*
 * While threads are held nobody else's work comes first, where that is permitted: among busy
 * processes a pause of 2 ms took 12 ms at nice -20, and 150 ms now and then. A tracer has that from
 * its birth, or among enough others it would not even begin within seconds. The policy to go back
 * to, -1 none.
 */
static int hurry(void)
{
	int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

	if (policy < 0 || policy == SCHED_FIFO || policy == SCHED_RR ||
	    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}) != 0)
		return -1;
	return policy;
}

pid_t cprof_tracer_fork(void (*work)(void *context), void *context, bool files)
{
	int policy = hurry();
	sigset_t none;
	pid_t child;

	sigemptyset(&none);
	/* No fork(): the tracer calls nothing that its handlers would be good for. */
	child = (pid_t)syscall(SYS_clone, (files ? CLONE_FILES : 0) | SIGCHLD, 0, 0, 0, 0);
	if (child != 0) {
		if (policy >= 0)
			sched_setscheduler(0, policy, &(struct sched_param){0});
		return child;
	}
	setpriority(PRIO_PROCESS, 0, -20); /* for what may not be so */
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigprocmask(SIG_SETMASK, &none, NULL);
	work(context);
	_exit(0);
}

bool cprof_tracer_join(pid_t tracer, int timeout_ms)
{
	struct pollfd done = {.fd = (int)syscall(SYS_pidfd_open, tracer, 0), .events = POLLIN};
	int status;
	int ready;

	do
		ready = poll(&done, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	if (ready == 0)
		kill(tracer, SIGKILL);
	if (done.fd >= 0)
		close(done.fd);
	while (waitpid(tracer, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

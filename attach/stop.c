/* SPDX-License-Identifier: MIT
 *
 * Stopping threads and letting them go again. What a stop was (`classify`) is decided apart from
 * what is done about it.
 */
#include "private.h"

#include <cprof/util.h>
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define DRAIN_TRIES 50

enum stop_kind {
	STOP_EXITED,
	STOP_INTERRUPT, /* ours */
	STOP_GROUP,     /* the thread was, or just came, into a group-stop */
	STOP_SIGNAL,    /* a signal is about to be delivered */
};

static enum stop_kind classify(int status)
{
	if (!WIFSTOPPED(status))
		return STOP_EXITED;
	if (status >> 16 == PTRACE_EVENT_STOP)
		return WSTOPSIG(status) == SIGTRAP ? STOP_INTERRUPT : STOP_GROUP;
	return STOP_SIGNAL;
}

/* --- the table ----------------------------------------------------------------------------- */

static uint32_t *find_slot(const struct cprof_tracer *tracer, pid_t tid)
{
	size_t at = cprof_hash_u64((uint64_t)tid) % CPROF_TRACEE_SLOTS;

	while (tracer->slots[at] && tracer->tracees[tracer->slots[at] - 1].tid != tid)
		at = (at + 1) % CPROF_TRACEE_SLOTS;
	return &tracer->slots[at];
}

struct cprof_tracee *cprof_tracee_get(struct cprof_tracer *tracer, pid_t tid)
{
	uint32_t *slot = find_slot(tracer, tid);

	if (!*slot) {
		if (tracer->count >= CPROF_TRACEES_MAX)
			return NULL;
		tracer->tracees[tracer->count++].tid = tid;
		*slot = (uint32_t)tracer->count;
	}
	return &tracer->tracees[*slot - 1];
}

/* --- stopping ------------------------------------------------------------------------------ */

static void hold(struct cprof_tracer *tracer, struct cprof_tracee *tracee, int status)
{
	enum stop_kind kind = classify(status);
	struct iovec regs = {.iov_base = &tracee->regs, .iov_len = sizeof(tracee->regs)};

	if (kind == STOP_EXITED ||
	    ptrace(PTRACE_GETREGSET, tracee->tid, (void *)NT_PRSTATUS, &regs) != 0) {
		tracee->phase = CPROF_TRACEE_GONE;
		return;
	}
	tracer->stops++;
	tracee->phase = CPROF_TRACEE_HELD;
	tracee->group_stop = kind == STOP_GROUP;
	tracee->signal = kind == STOP_SIGNAL ? WSTOPSIG(status) : 0;
	cprof_arch_restart(tracee->tid, &tracee->regs);
}

static volatile sig_atomic_t ticks;

static void on_tick(int signal)
{
	(void)signal;
	ticks++;
}

/* Interrupts waitpid() every now and then. */
static void start_ticking(uint64_t every_ns)
{
	struct sigaction action = {.sa_handler = on_tick}; /* no SA_RESTART */
	suseconds_t us = (suseconds_t)CPROF_MAX(every_ns / 1000, 1000u);
	struct itimerval timer = {.it_interval.tv_usec = us, .it_value.tv_usec = us};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Waits for one until `deadline`, which every tick with a stop behind it moves on; false if it did
 * not stop in time. */
static bool collect_one(struct cprof_tracer *tracer, struct cprof_tracee *tracee, int flags,
			uint64_t *deadline)
{
	int status;
	pid_t got;

	while ((got = waitpid(tracee->tid, &status, __WALL | flags)) != tracee->tid) {
		if (got == 0 || (errno == EINTR && cprof_now_ns() > *deadline))
			return false;
		if (errno != EINTR) {
			tracee->phase = CPROF_TRACEE_GONE;
			return true;
		}
	}
	hold(tracer, tracee, status);
	if (ticks) { /* asking the clock costs: only after a tick */
		ticks = 0;
		*deadline = cprof_now_ns() + tracer->straggler_ns;
	}
	return true;
}

/*
 * One by one, since waiting for any makes the kernel look at all each time: with 10,000 threads
 * that took 2.3 s. The last first: when that one has stopped, the others have, and we slept once.
 * After one that did not come no other is waited for.
 */
static void collect(struct cprof_tracer *tracer)
{
	uint64_t deadline = cprof_now_ns() + tracer->straggler_ns;
	int flags = 0;

	for (size_t i = tracer->count; i-- > 0;) {
		struct cprof_tracee *tracee = &tracer->tracees[i];

		if (tracee->phase != CPROF_TRACEE_ASKED ||
		    collect_one(tracer, tracee, flags, &deadline))
			continue;
		tracee->phase = CPROF_TRACEE_LATE;
		flags = WNOHANG;
	}
}

struct scan {
	struct cprof_tracer *tracer;
	size_t fresh;
	bool leader; /* the first thread too */
};

static bool wanted(const struct cprof_tracer *tracer, pid_t tid)
{
	if (!tracer->tids)
		return true;
	for (size_t i = 0; i < tracer->tid_count; i++)
		if (tracer->tids[i] == tid)
			return true;
	return false;
}

/* Seizing does not stop: it only makes the thread ours. */
static bool seize(void *context, pid_t tid)
{
	struct scan *scan = context;
	struct cprof_tracer *tracer = scan->tracer;
	struct cprof_tracee *tracee;

	if (!wanted(tracer, tid) || (tid == tracer->pid && !scan->leader))
		return true;
	tracee = cprof_tracee_get(tracer, tid);
	if (!tracee) {
		tracer->fault = CPROF_TRACER_TOO_MANY;
		return false;
	}
	if (tracee->phase != CPROF_TRACEE_NEW)
		return true;
	if (!tracee->state)
		tracee->state = cprof_procfs_state(tracer->procfd, tid);
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0) {
		tracee->phase = CPROF_TRACEE_SEIZED;
		scan->fresh++;
		return true;
	}
	tracee->phase = CPROF_TRACEE_GONE;
	/* A thread that is ending cannot be seized either: that is no refusal. */
	if (errno == EPERM && !strchr("ZX", cprof_procfs_state(tracer->procfd, tid) ?: 'X')) {
		tracer->fault = CPROF_TRACER_DENIED;
		tracer->errnum = errno;
		return false;
	}
	return true;
}

bool cprof_stop_new(struct cprof_tracer *tracer, bool leader, size_t *fresh)
{
	struct scan scan = {.tracer = tracer, .leader = leader};

	if (!cprof_procfs_tasks(tracer->procfd, seize, &scan)) {
		if (!tracer->fault)
			tracer->fault = CPROF_TRACER_GONE;
		return false;
	}
	*fresh = scan.fresh;
	if (!scan.fresh)
		return true;
	if (!tracer->first_stop_ns) {
		start_ticking(tracer->straggler_ns / 4);
		tracer->taken_ns = cprof_wall_ns();
		tracer->first_stop_ns = cprof_now_ns();
	}
	for (size_t i = 0; i < tracer->count; i++) {
		struct cprof_tracee *tracee = &tracer->tracees[i];

		if (tracee->phase != CPROF_TRACEE_SEIZED)
			continue;
		tracee->phase = CPROF_TRACEE_GONE;
		if (ptrace(PTRACE_INTERRUPT, tracee->tid, NULL, NULL) == 0)
			tracee->phase = CPROF_TRACEE_ASKED;
	}
	collect(tracer);
	return true;
}

static void release(const struct cprof_tracee *tracee)
{
	if (tracee->phase == CPROF_TRACEE_HELD)
		ptrace(PTRACE_DETACH, tracee->tid, NULL, (long)tracee->signal);
}

void cprof_stop_release(struct cprof_tracer *tracer)
{
	uint32_t leader = *find_slot(tracer, tracer->pid);

	if (leader) {
		release(&tracer->tracees[leader - 1]);
		/* An ignored signal that was queued meanwhile would interrupt the next call of
		 * whoever goes on now; the leader drops it as soon as it runs. */
		for (int i = 0; i < DRAIN_TRIES && cprof_procfs_ignored_pending(tracer->procfd);
		     i++)
			usleep(20);
	}
	for (size_t i = 0; i < tracer->count; i++)
		if (i + 1 != leader)
			release(&tracer->tracees[i]);
	/* Stragglers cannot be detached; our end releases them. */
	tracer->last_release_ns = cprof_now_ns();
}

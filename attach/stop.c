/* SPDX-License-Identifier: MIT
 *
 * Stopping threads and letting them go again. What a stop was is decided apart from
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
#include <unistd.h>

#define DRAIN_TRIES  50
#define LATE_NS      1000000000ull /* for a thread that only lacks a CPU to stop on */
#define ADDRESSED_NS 100000000ull  /* the same while others are held */
#define LEAST_NS     1000000ull    /* for those of a further scan */
#define LATE_US      200           /* between looks at such threads */

enum cprof_stop cprof_stop_classify(int status)
{
	if (!WIFSTOPPED(status))
		return CPROF_STOP_EXITED;
	if (status >> 16 == PTRACE_EVENT_STOP)
		return WSTOPSIG(status) == SIGTRAP ? CPROF_STOP_INTERRUPT : CPROF_STOP_GROUP;
	return WSTOPSIG(status) == (SIGTRAP | 0x80) ? CPROF_STOP_SYSCALL : CPROF_STOP_SIGNAL;
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
	enum cprof_stop kind = cprof_stop_classify(status);
	struct iovec regs = {.iov_base = &tracee->regs, .iov_len = sizeof(tracee->regs)};

	if (kind == CPROF_STOP_EXITED ||
	    ptrace(PTRACE_GETREGSET, tracee->tid, (void *)NT_PRSTATUS, &regs) != 0) {
		tracee->phase = CPROF_TRACEE_GONE;
		return;
	}
	tracer->stops++;
	tracee->phase = CPROF_TRACEE_HELD;
	tracee->group_stop = kind == CPROF_STOP_GROUP;
	tracee->signal = kind == CPROF_STOP_SIGNAL ? WSTOPSIG(status) : 0;
	if (cprof_arch_may_fork(&tracee->regs)) /* it may have since it was looked at */
		tracee->addressed |= cprof_procfs_has_children(tracer->procfd, tracee->tid);
	cprof_arch_restart(tracee->tid, &tracee->regs);
}

static volatile sig_atomic_t ticks;

static void on_tick(int signal)
{
	(void)signal;
	ticks++;
}

void cprof_stop_ticking(uint64_t every_ns)
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

/* All scans together have others held for late threads no longer than is allowed; but a thread that
 * has just been born comes soon. */
static void spend(struct cprof_tracer *tracer, uint64_t since_ns)
{
	uint64_t left = tracer->straggler_ns - CPROF_MIN(tracer->straggler_ns, since_ns);

	tracer->straggler_ns = CPROF_MAX(left, LEAST_NS);
}

/*
 * One by one, since waiting for any makes the kernel look at all each time: with 10,000 threads
 * that took 2.3 s. The last first: when that one has stopped, the others have, and we slept once.
 * After one that did not come no other is waited for.
 */
static void collect(struct cprof_tracer *tracer)
{
	uint64_t begin = cprof_now_ns();
	uint64_t deadline = begin + tracer->straggler_ns;
	int flags = 0;

	for (size_t i = tracer->count; i-- > 0;) {
		struct cprof_tracee *tracee = &tracer->tracees[i];

		if (tracee->phase != CPROF_TRACEE_ASKED ||
		    collect_one(tracer, tracee, flags, &deadline))
			continue;
		tracee->phase = CPROF_TRACEE_LATE;
		flags = WNOHANG;
	}
	if (flags)
		spend(tracer, cprof_now_ns() - begin);
}

struct scan {
	struct cprof_tracer *tracer;
	size_t fresh;
	bool addressed; /* those too that signals are addressed to */
};

bool cprof_stop_wanted(const struct cprof_tracer *tracer, pid_t tid)
{
	if (!tracer->tids)
		return true;
	for (size_t i = 0; i < tracer->tid_count; i++)
		if (tracer->tids[i] == tid)
			return true;
	return false;
}

bool cprof_stop_must_spare(int procfd, pid_t pid, pid_t tid, uint64_t words[8])
{
	uint32_t value;
	struct iovec local = {.iov_base = &value, .iov_len = sizeof(value)};
	struct iovec remote = {.iov_len = sizeof(value)};

	if (!cprof_procfs_syscall(procfd, tid, words) || !cprof_arch_is_futex(words[0]))
		return false;
	remote.iov_base = (void *)(uintptr_t)words[1];
	return process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 && errno == EFAULT;
}

void cprof_stop_note(const struct cprof_tracer *tracer, struct cprof_tracee *tracee)
{
	uint64_t words[8];

	tracee->state = cprof_procfs_state(tracer->procfd, tracee->tid);
	tracee->addressed = tracee->tid == tracer->pid ||
			    cprof_procfs_has_children(tracer->procfd, tracee->tid);
	if (tracee->state != 'S' ||
	    !cprof_stop_must_spare(tracer->procfd, tracer->pid, tracee->tid, words))
		return;
	cprof_arch_in_syscall(words, &tracee->regs);
	tracee->phase = CPROF_TRACEE_SPARED;
}

/* Seizing does not stop: it only makes the thread ours. */
static bool seize(void *context, pid_t tid)
{
	struct scan *scan = context;
	struct cprof_tracer *tracer = scan->tracer;
	struct cprof_tracee *tracee;

	if (!cprof_stop_wanted(tracer, tid))
		return true;
	tracee = cprof_tracee_get(tracer, tid);
	if (!tracee) {
		tracer->fault = CPROF_TRACER_TOO_MANY;
		return false;
	}
	if (!tracee->state)
		cprof_stop_note(tracer, tracee);
	if (tracee->phase != CPROF_TRACEE_NEW || (tracee->addressed && !scan->addressed))
		return true;
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

void cprof_stop_new(struct cprof_tracer *tracer, bool addressed, size_t *fresh)
{
	struct scan scan = {.tracer = tracer, .addressed = addressed};

	if (!cprof_procfs_tasks(tracer->procfd, seize, &scan) && !tracer->fault)
		tracer->fault = CPROF_TRACER_GONE;
	*fresh = scan.fresh;
	if (!scan.fresh || tracer->fault)
		return;
	if (!tracer->first_stop_ns) {
		cprof_stop_ticking(CPROF_MIN(tracer->straggler_ns / 4, LEAST_NS));
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
}

/* --- letting go ---------------------------------------------------------------------------- */

static void release(struct cprof_tracer *tracer, struct cprof_tracee *tracee)
{
	int status;

	/* After a refusal others are not stopped any more: our end lets them go, unnoticed, but for
	 * those that a signal has stopped. */
	if (tracee->phase == CPROF_TRACEE_SEIZED &&
	    waitpid(tracee->tid, &status, __WALL | WNOHANG) == tracee->tid)
		hold(tracer, tracee, status);
	if (tracee->phase == CPROF_TRACEE_HELD)
		ptrace(PTRACE_DETACH, tracee->tid, NULL, (long)tracee->signal);
}

/* Looks at a late thread and lets it go if it has stopped by now; false if it has not. */
static bool release_late(struct cprof_tracer *tracer, struct cprof_tracee *tracee)
{
	int status;
	pid_t got = waitpid(tracee->tid, &status, __WALL | WNOHANG);

	if (got == 0)
		return false;
	tracee->phase = CPROF_TRACEE_GONE;
	if (got < 0)
		return true;
	hold(tracer, tracee, status);
	if (tracee->phase != CPROF_TRACEE_HELD)
		return true;
	cprof_tracer_read_stack(tracer, tracee);
	release(tracer, tracee);
	tracee->phase = CPROF_TRACEE_LATER;
	return true;
}

/* True while some are to be waited for. */
static bool look_at_late(struct cprof_tracer *tracer, bool addressed)
{
	bool some = false;

	for (size_t i = 0; i < tracer->count; i++) {
		struct cprof_tracee *tracee = &tracer->tracees[i];

		if (tracee->phase == CPROF_TRACEE_LATE && (tracee->addressed || !addressed) &&
		    !release_late(tracer, tracee))
			some |= cprof_procfs_state(tracer->procfd, tracee->tid) != 'D';
	}
	return some;
}

/*
 * A thread that had no CPU to stop on in time has been woken from its call all the same: should we
 * end before its stop, it would see EINTR. One in D state is no such: our end releases it.
 */
static void release_all_late(struct cprof_tracer *tracer, bool addressed, uint64_t limit_ns)
{
	uint64_t end = cprof_now_ns() + limit_ns;

	while (look_at_late(tracer, addressed) && cprof_now_ns() < end)
		usleep(LATE_US);
}

void cprof_stop_release(struct cprof_tracer *tracer)
{
	uint32_t leader = *find_slot(tracer, tracer->pid);

	/* The others stay for these, or would see EINTR for signals addressed to them. */
	release_all_late(tracer, true, ADDRESSED_NS);
	for (size_t i = 0; i < tracer->count; i++)
		if (tracer->tracees[i].addressed && i + 1 != leader)
			release(tracer, &tracer->tracees[i]);
	if (leader)
		release(tracer, &tracer->tracees[leader - 1]);
	/* An ignored signal that was queued meanwhile would interrupt the next call of whoever goes
	 * on now; the leader drops it as soon as it runs. */
	for (int i = 0; leader && i < DRAIN_TRIES && cprof_procfs_ignored_pending(tracer->procfd);
	     i++)
		usleep(20);
	for (size_t i = 0; i < tracer->count; i++)
		if (!tracer->tracees[i].addressed)
			release(tracer, &tracer->tracees[i]);
	tracer->last_release_ns = cprof_now_ns();
	release_all_late(tracer, false, LATE_NS);
}

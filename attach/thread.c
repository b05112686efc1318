/* SPDX-License-Identifier: MIT
 *
 * Which thread is borrowed, and how it is held and let go again. At most one at a time: all others
 * run on.
 */
#include "remote.h"

#include <cprof/util.h>
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define CANDIDATES   16
#define ROUNDS       5 /* of looking for a thread */
#define ROUND_US     1000
#define STRAGGLER_NS 20000000ull
#define LATE_NS      1000000000ull
#define LATE_US      200
#define REST_NS      400000000ull
#define HOLD_NS      1500000000ull /* then it gets itself back, whatever it was doing */

bool cprof_held_fail(struct cprof_held *held, enum cprof_remote_result result, int errnum)
{
	if (!held->remote->result) {
		held->remote->result = result;
		held->remote->errnum = errnum;
	}
	return false;
}

/* --- stops --------------------------------------------------------------------------------- */

enum cprof_stop cprof_held_wait(struct cprof_held *held, int flags)
{
	int status;
	pid_t got;

	while ((got = waitpid(held->tid, &status, __WALL | flags)) != held->tid) {
		if (got == 0)
			return CPROF_STOP_LATE;
		if (errno != EINTR) {
			held->lost = true;
			return CPROF_STOP_EXITED;
		}
		if (cprof_now_ns() > held->deadline_ns) {
			held->lost = true;
			return CPROF_STOP_LATE;
		}
	}
	if (cprof_stop_classify(status) == CPROF_STOP_EXITED) {
		held->lost = true;
		return CPROF_STOP_EXITED;
	}
	held->running = false;
	held->remote->stops++;
	held->inject = cprof_stop_classify(status) == CPROF_STOP_SIGNAL ? WSTOPSIG(status) : 0;
	return cprof_stop_classify(status);
}

/* A signal about to be delivered while our code runs. */
static bool pass_signal(struct cprof_held *held)
{
	struct user_regs_struct regs;
	struct iovec set = {.iov_base = &regs, .iov_len = sizeof(regs)};
	siginfo_t info;

	/* It may not be blocked; the group stops, but we go on, and the kernel has the thread join
	 * the others once it is let go. */
	if (held->inject == SIGSTOP)
		return true;
	if (ptrace(PTRACE_GETSIGINFO, held->tid, NULL, &info) != 0)
		return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
	held->inject = 0;
	if (info.si_code <= 0) { /* sent by someone */
		if (held->deferred_count < CPROF_COUNT(held->deferred))
			held->deferred[held->deferred_count++] = info;
		return true;
	}
	if (ptrace(PTRACE_GETREGSET, held->tid, (void *)NT_PRSTATUS, &set) == 0 &&
	    held->skip_from && regs.rip == held->skip_from &&
	    (info.si_signo == SIGSEGV || info.si_signo == SIGBUS)) {
		regs.rip = held->skip_to;
		return ptrace(PTRACE_SETREGSET, held->tid, (void *)NT_PRSTATUS, &set) == 0;
	}
	return cprof_held_fail(held, CPROF_REMOTE_CRASHED, info.si_signo);
}

bool cprof_held_pass(struct cprof_held *held, enum cprof_stop kind)
{
	switch (kind) {
	case CPROF_STOP_EXITED:
		return cprof_held_fail(held, CPROF_REMOTE_GONE, 0);
	case CPROF_STOP_LATE:
		return cprof_held_fail(held, CPROF_REMOTE_LATE, 0);
	case CPROF_STOP_SIGNAL:
		return pass_signal(held);
	case CPROF_STOP_INTERRUPT:
	case CPROF_STOP_GROUP:
	case CPROF_STOP_SYSCALL:
		break;
	}
	return true;
}

bool cprof_held_continue(struct cprof_held *held, int request)
{
	held->at_stop = false;
	held->running = true;
	if (ptrace(request, held->tid, NULL, (long)held->inject) == 0)
		return true;
	held->lost = true;
	return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
}

bool cprof_held_advance(struct cprof_held *held, int request, enum cprof_stop kind)
{
	do {
		enum cprof_stop got;

		if (!held->running && !cprof_held_continue(held, request))
			return false;
		got = cprof_held_wait(held, 0);
		/* While the group is stopped our own interrupt is reported as its stop. */
		if (got == kind || (got == CPROF_STOP_GROUP && kind == CPROF_STOP_INTERRUPT))
			return true;
		if (!cprof_held_pass(held, got))
			return false;
	} while (true);
}

/* --- letting go ---------------------------------------------------------------------------- */

bool cprof_held_rest(struct cprof_held *held)
{
	if (ptrace(PTRACE_INTERRUPT, held->tid, NULL, NULL) != 0) {
		held->lost = true;
		return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
	}
	held->at_stop = cprof_held_advance(held, PTRACE_CONT, CPROF_STOP_INTERRUPT);
	return held->at_stop;
}

static void restore(struct cprof_held *held)
{
	struct iovec regs = {.iov_base = &held->regs, .iov_len = sizeof(held->regs)};
	const struct cprof_fault *fault = &held->remote->fault;

	cprof_fault_reached(fault, CPROF_FAULT_INTERRUPTED, held->remote->pid);
	ptrace(PTRACE_SETSIGMASK, held->tid, sizeof(held->mask), &held->mask);
	cprof_fault_reached(fault, CPROF_FAULT_UNMASKED, held->remote->pid);
	ptrace(PTRACE_SETREGSET, held->tid, (void *)NT_PRSTATUS, &regs);
	cprof_fault_reached(fault, CPROF_FAULT_RESTORED, held->remote->pid);
	for (unsigned i = 0; i < held->deferred_count; i++) {
		siginfo_t *info = &held->deferred[i];

		/* The kernel lets nobody say "kill" in another's name. */
		if (syscall(SYS_rt_tgsigqueueinfo, held->remote->pid, held->tid, info->si_signo,
			    info) != 0)
			syscall(SYS_tgkill, held->remote->pid, held->tid, info->si_signo);
	}
}

void cprof_held_release(struct cprof_held *held)
{
	if (!held->lost && held->changed && !held->at_stop) {
		held->deadline_ns = cprof_now_ns() + REST_NS;
		held->inject = 0;
		cprof_held_rest(held);
	}
	if (!held->lost) {
		if (held->changed)
			restore(held);
		ptrace(PTRACE_DETACH, held->tid, NULL, (long)held->inject);
	}
	held->remote->held_ns = cprof_now_ns() - held->since_ns;
	cprof_fault_reached(&held->remote->fault, CPROF_FAULT_RELEASED, held->remote->pid);
}

/* --- choosing ------------------------------------------------------------------------------ */

enum rank {
	RANK_RESTARTED, /* in a system call that the kernel restarts by itself, in time */
	RANK_AGAIN,   /* the same, but it was restarted before: what it was is read from its code */
	RANK_BLOCKED, /* in another: should we die between our interrupt and its stop, EINTR */
	RANK_RUNNING,
	RANK_PARENT,
	RANK_LEADER,
	RANKS
};

struct choice {
	struct cprof_remote *remote;
	pid_t tids[RANKS][CANDIDATES];
	unsigned counts[RANKS];
};

/*
 * While a thread is traced the kernel queues even ignored signals that are addressed to it and
 * wakes some other thread for them, which sees an EINTR: parents (SIGCHLD) and the first thread
 * (what is sent to the process) are the last resort.
 */
static enum rank rank(const struct cprof_remote *remote, pid_t tid, char state, uint64_t number)
{
	if (tid == remote->pid)
		return RANK_LEADER;
	if (cprof_procfs_has_children(remote->procfd, tid))
		return RANK_PARENT;
	if (state != 'S')
		return RANK_RUNNING;
	if (number == SYS_restart_syscall)
		return RANK_AGAIN;
	return cprof_arch_is_restarted(number) ? RANK_RESTARTED : RANK_BLOCKED;
}

static bool note(void *context, pid_t tid)
{
	struct choice *choice = context;
	const struct cprof_remote *remote = choice->remote;
	char state = cprof_procfs_state(remote->procfd, tid);
	uint64_t words[8] = {(uint64_t)-1};
	enum rank its;

	if (state != 'S' && state != 'R')
		return true; /* not to be had (D), or not there any more */
	if (state == 'S' && cprof_stop_must_spare(remote->procfd, remote->pid, tid, words))
		return true;
	its = rank(remote, tid, state, words[0]);
	if (choice->counts[its] < CANDIDATES)
		choice->tids[its][choice->counts[its]++] = tid;
	return choice->counts[RANK_RESTARTED] < CANDIDATES;
}

static const struct cprof_mapped_range *find_range(const struct cprof_remote *remote,
						   uint64_t address)
{
	const struct cprof_mapped_range *ranges = cprof_remote_area(remote)->ranges;
	size_t low = 0;
	size_t high = remote->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ranges[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < remote->range_count && ranges[low].start <= address ? &ranges[low] : NULL;
}

/*
 * Room below the stack pointer, on a stack that is known to be one: the main thread's, or one with
 * the thread's control block on top. Others (coroutines, goroutines, signal stacks) may be small
 * and have anything below.
 */
static bool has_room(const struct cprof_remote *remote, const struct user_regs_struct *regs)
{
	const struct cprof_mapped_range *range = &remote->main_stack;

	if (regs->rsp < range->start || regs->rsp >= range->end) {
		range = find_range(remote, regs->rsp);
		if (!range || regs->fs_base <= regs->rsp || regs->fs_base >= range->end)
			return false;
	}
	return regs->rsp - range->start >= CPROF_FRAME_ROOM / 2 + CPROF_STACK_ROOM;
}

/* A thread that has not stopped has been woken all the same: it is waited for as long as that can
 * help. */
static bool only_lacks_cpu(const struct cprof_held *held)
{
	return cprof_now_ns() < held->since_ns + LATE_NS / 2 &&
	       cprof_procfs_state(held->remote->procfd, held->tid) != 'D';
}

/* Brings the thread to our interrupt's stop, past signals that are on their way. */
static bool stop(struct cprof_held *held)
{
	enum cprof_stop kind;

	held->since_ns = cprof_now_ns();
	held->deadline_ns = held->since_ns + STRAGGLER_NS;
	if (ptrace(PTRACE_INTERRUPT, held->tid, NULL, NULL) != 0)
		return false;
	for (;;) {
		kind = cprof_held_wait(held, 0);
		if (kind == CPROF_STOP_SIGNAL) {
			if (ptrace(PTRACE_CONT, held->tid, NULL, (long)held->inject) != 0)
				return false;
		} else if (kind == CPROF_STOP_LATE && only_lacks_cpu(held)) {
			held->lost = false;
			held->deadline_ns += STRAGGLER_NS;
		} else {
			break;
		}
	}
	if (kind == CPROF_STOP_GROUP)
		cprof_held_fail(held, CPROF_REMOTE_STOPPED, 0);
	held->at_stop = kind == CPROF_STOP_INTERRUPT;
	return held->at_stop;
}

static bool suitable(struct cprof_held *held)
{
	struct cprof_remote *remote = held->remote;
	struct iovec regs = {.iov_base = &held->regs, .iov_len = sizeof(held->regs)};
	unsigned filters;

	if (ptrace(PTRACE_GETREGSET, held->tid, (void *)NT_PRSTATUS, &regs) != 0)
		return false;
	cprof_arch_restart(held->tid, &held->regs);
	cprof_fault_reached(&remote->fault, CPROF_FAULT_STOPPED, remote->pid);
	if (!cprof_arch_borrowable(remote->pid, held->tid, &held->regs) ||
	    held->regs.rip - remote->base < CPROF_AGENT_RESIDENT || !has_room(remote, &held->regs))
		return false;
	if (!cprof_procfs_seccomp(remote->procfd, held->tid, &held->seccomp, &filters) ||
	    filters < remote->filters)
		return false;
	return ptrace(PTRACE_GETREGSET, held->tid, (void *)NT_PRSTATUS, &regs) == 0 &&
	       ptrace(PTRACE_GETSIGMASK, held->tid, sizeof(held->mask), &held->mask) == 0;
}

bool cprof_held_outrank(pid_t tid)
{
	int policy = sched_getscheduler(tid) & ~SCHED_RESET_ON_FORK;
	struct sched_param its = {0};
	struct sched_param own = {0};

	if (policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE || policy < 0)
		return true;
	if ((policy != SCHED_FIFO && policy != SCHED_RR) || sched_getparam(tid, &its) != 0 ||
	    sched_getparam(0, &own) != 0)
		return false;
	if (own.sched_priority > its.sched_priority)
		return true;
	/* With the highest of all its wait yields to us. */
	own.sched_priority = CPROF_MIN(its.sched_priority + 1, sched_get_priority_max(SCHED_FIFO));
	return sched_setscheduler(0, SCHED_FIFO, &own) == 0;
}

/* False: try another one, unless there is a result. */
static bool try_thread(struct cprof_held *held, pid_t tid)
{
	struct cprof_remote *remote = held->remote;

	held->tid = tid;
	held->lost = false;
	held->at_stop = false;
	held->running = true;
	if (!cprof_held_outrank(tid))
		return false;
	if (ptrace(PTRACE_SEIZE, tid, NULL, (void *)PTRACE_O_TRACESYSGOOD) != 0) {
		/* One that is ending cannot be seized either: that is no refusal. */
		if (errno == EPERM && !strchr("ZX", cprof_procfs_state(remote->procfd, tid) ?: 'X'))
			cprof_held_fail(held, CPROF_REMOTE_SEIZE, EPERM);
		return false;
	}
	cprof_fault_reached(&remote->fault, CPROF_FAULT_SEIZED, remote->pid);
	if (stop(held) && suitable(held)) {
		remote->tid = tid;
		return true;
	}
	if (!held->lost)
		ptrace(PTRACE_DETACH, tid, NULL, (long)held->inject);
	else if (held->late_count < CPROF_COUNT(held->late))
		held->late[held->late_count++] = tid;
	return false;
}

/*
 * Threads that did not stop in time. One that only had no CPU has been woken from its call all the
 * same: should we end before its stop, it would see EINTR. One in D state has no such call; our end
 * releases it.
 */
void cprof_held_settle(struct cprof_held *held)
{
	uint64_t end = cprof_now_ns() + LATE_NS;
	struct user_regs_struct regs;
	struct iovec set = {.iov_base = &regs, .iov_len = sizeof(regs)};

	for (unsigned i = 0; i < held->late_count; i++) {
		pid_t tid = held->late[i];
		int status;
		pid_t got;

		while ((got = waitpid(tid, &status, __WALL | WNOHANG)) == 0 &&
		       cprof_now_ns() < end && cprof_procfs_state(held->remote->procfd, tid) != 'D')
			usleep(LATE_US);
		if (got != tid || !WIFSTOPPED(status))
			continue;
		if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &set) == 0)
			cprof_arch_restart(tid, &regs);
		ptrace(PTRACE_DETACH, tid, NULL,
		       cprof_stop_classify(status) == CPROF_STOP_SIGNAL ? (long)WSTOPSIG(status)
									: 0L);
	}
}

static bool try_all(const struct choice *choice, struct cprof_held *held)
{
	for (unsigned its = 0; its < RANKS; its++)
		for (unsigned i = 0; i < choice->counts[its] && !held->remote->result; i++)
			if (try_thread(held, choice->tids[its][i]))
				return true;
	return false;
}

bool cprof_held_take(struct cprof_remote *remote, struct cprof_held *held)
{
	/* It is as good as ended, and must not be interrupted at that. */
	if (cprof_procfs_dumping_core(remote->procfd))
		return cprof_held_fail(held, CPROF_REMOTE_GONE, 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct choice choice = {.remote = remote};

		held->remote = remote;
		cprof_procfs_tasks(remote->procfd, note, &choice);
		if (try_all(&choice, held)) {
			held->deadline_ns = held->since_ns + HOLD_NS;
			return true;
		}
		if (remote->result)
			return false;
		usleep(ROUND_US);
	}
	return cprof_held_fail(held, CPROF_REMOTE_NO_THREAD, 0);
}

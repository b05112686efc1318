/* SPDX-License-Identifier: MIT
 *
 * The profiler's side of a remote call: prepares it, has the tracer work, and says what came of it.
 */
#include "remote.h"

#include <cprof/util.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* The tracer gives up earlier; one that hangs is ended, which frees the target. */
#define TRACER_MS 4000

struct cprof_remote_area *cprof_remote_area(const struct cprof_remote *remote)
{
	return (struct cprof_remote_area *)((uintptr_t)remote -
					    offsetof(struct cprof_remote_area, remote));
}

struct cprof_error *cprof_remote_create(struct cprof_remote **remote)
{
	struct cprof_remote_area *area = mmap(NULL, sizeof(*area), PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "memory for a remote call");
	area->remote.memfd = -1;
	area->remote.close_fd = -1;
	*remote = &area->remote;
	return NULL;
}

void cprof_remote_destroy(struct cprof_remote *remote)
{
	if (remote)
		munmap(cprof_remote_area(remote), sizeof(struct cprof_remote_area));
}

/* --- what came of it ----------------------------------------------------------------------- */

static const char *syscall_name(uint32_t number)
{
	static const struct {
		uint32_t number;
		const char *name;
	} names[] = {{SYS_memfd_create, "memfd_create"},
#define CPROF_NAME_(name, number) {number, #name},
		     CPROF_AGENT_ROUTINE_CALLS(CPROF_NAME_)
#undef CPROF_NAME_
	};

	for (size_t i = 0; i < CPROF_COUNT(names); i++)
		if (names[i].number == number)
			return names[i].name;
	return "a system call";
}

static struct cprof_error *syscall_failed(const struct cprof_remote *remote)
{
	const char *remedy = NULL;
	enum cprof_status status = CPROF_FAILED;
	int pid = (int)remote->pid;

	if (remote->syscall == SYS_memfd_create && remote->errnum == EMFILE) {
		status = CPROF_DENIED;
		remedy = "raise it: prlimit --nofile";
	} else if (remote->errnum == ENOMEM) {
		status = CPROF_DENIED;
		remedy = "raise its limit of address space (prlimit --as) or of memory";
	} else if (remote->errnum == EPERM || remote->errnum == EACCES) {
		status = CPROF_DENIED;
		remedy = "a security module or sysctl (vm.memfd_noexec) forbids it";
	}
	return cprof_error_errno(status, remote->errnum, remedy, "pid %d: %s for the agent", pid,
				 syscall_name(remote->syscall));
}

static const char *action_name(uint32_t action)
{
	switch (action) {
	case SECCOMP_RET_ERRNO:
		return "refuses";
	case SECCOMP_RET_TRAP:
		return "traps";
	case SECCOMP_RET_KILL_THREAD:
	case SECCOMP_RET_KILL_PROCESS:
		return "kills for";
	default:
		return "watches";
	}
}

static struct cprof_error *routine_failed(const struct cprof_remote *remote)
{
	static const char *const steps[] = {"the agent", "its control page", "its memory",
					    "its shared memory", "patching"};
	uint64_t step = 0;

	for (uint32_t i = 0; i < remote->call_count; i++)
		if (remote->calls[i].error)
			step = remote->calls[i].step;
	return cprof_error_errno(
		remote->errnum == ENOMEM ? CPROF_DENIED : CPROF_FAILED, remote->errnum,
		remote->errnum == ENOMEM ? "raise its limit of address space (prlimit --as)" : NULL,
		"pid %d: mapping %s", (int)remote->pid,
		steps[step < CPROF_COUNT(steps) ? step : 0]);
}

static struct cprof_error *lost(const struct cprof_remote *remote)
{
	return cprof_error_create(CPROF_FAILED, "try again",
				  "pid %d: it closed the agent's descriptor meanwhile",
				  (int)remote->pid);
}

static struct cprof_error *outcome(const struct cprof_target *target,
				   const struct cprof_remote *remote)
{
	int pid = (int)remote->pid;

	switch ((enum cprof_remote_result)remote->result) {
	case CPROF_REMOTE_OK:
		return NULL;
	case CPROF_REMOTE_SEIZE:
		return cprof_tracer_denied(target, remote->errnum);
	case CPROF_REMOTE_GONE:
		return cprof_error_create(CPROF_NO_PROCESS, NULL,
					  "pid %d: ended, or became another program, meanwhile",
					  pid);
	case CPROF_REMOTE_STOPPED:
		return cprof_error_create(CPROF_DENIED, "continue it first: kill -CONT",
					  "pid %d: stopped by a signal", pid);
	case CPROF_REMOTE_NO_THREAD:
		return cprof_error_create(CPROF_DENIED, "try again",
					  "pid %d: no thread is at a place where it could be "
					  "borrowed (64-bit code, an ordinary stack with 14 KiB "
					  "left, no restartable sequence, no real-time priority "
					  "that we may not exceed)",
					  pid);
	case CPROF_REMOTE_SECCOMP:
		return cprof_error_create(CPROF_DENIED, "allow that call in its filter",
					  "pid %d: its seccomp filter %s %s, which the agent needs",
					  pid, action_name(remote->action),
					  syscall_name(remote->syscall));
	case CPROF_REMOTE_UNREADABLE:
		return cprof_error_errno(CPROF_DENIED, remote->errnum,
					 "run as root, outside of any seccomp filter",
					 "pid %d: it has seccomp filters that cannot be read", pid);
	case CPROF_REMOTE_MEMORY:
		return cprof_error_errno(CPROF_FAILED, remote->errnum, NULL,
					 "pid %d: writing a thread's stack", pid);
	case CPROF_REMOTE_SYSCALL:
		return remote->errnum == EBADF ? lost(remote) : syscall_failed(remote);
	case CPROF_REMOTE_FILL:
		return cprof_error_errno(CPROF_FAILED, remote->errnum, NULL,
					 "pid %d: writing the agent's memory", pid);
	case CPROF_REMOTE_LOST:
		return lost(remote);
	case CPROF_REMOTE_LATE:
		return cprof_error_create(CPROF_FAILED, "try again",
					  "pid %d: no answer from its thread %d", pid,
					  (int)remote->tid);
	case CPROF_REMOTE_CRASHED:
		return cprof_error_create(CPROF_FAILED, NULL,
					  "pid %d: the agent's routine took signal %d", pid,
					  remote->errnum);
	case CPROF_REMOTE_ROUTINE:
		return remote->errnum == EBADF ? lost(remote) : routine_failed(remote);
	case CPROF_REMOTE_NONE:
		break;
	}
	return cprof_error_create(
		CPROF_FAILED, NULL,
		"pid %d: the tracer was ended, or not done within %d s; the process "
		"goes on",
		pid, TRACER_MS / 1000);
}

/* --- running it ---------------------------------------------------------------------------- */

static void reset(const struct cprof_target *target, struct cprof_remote *remote)
{
	remote->procfd = cprof_target_procfd(target);
	remote->pid = cprof_target_info(target)->pid;
	remote->result = CPROF_REMOTE_NONE;
	remote->errnum = 0;
	remote->syscall = 0;
	remote->memfd = -1;
	remote->tid = 0;
	remote->stops = 0;
	remote->held_ns = 0;
	remote->mapped = false;
	remote->started = false;
}

struct cprof_error *cprof_remote_begin(const struct cprof_target *target,
				       struct cprof_remote *remote)
{
	reset(target, remote);
	if (!cprof_fault_init(&remote->fault))
		return cprof_error_create(CPROF_USAGE, NULL,
					  "CPROF_ATTACH_FAULT names no fault point");
	CPROF_TRY(cprof_remote_check(target, remote));
	return cprof_remote_survey(target, remote);
}

struct cprof_error *cprof_remote_end(const struct cprof_target *target, struct cprof_remote *remote)
{
	struct cprof_error *error = outcome(target, remote);

	if (remote->result == CPROF_REMOTE_NONE) /* a fault point kills once */
		unsetenv("CPROF_ATTACH_FAULT");
	if (error && remote->memfd >= 0) {
		close(remote->memfd);
		remote->memfd = -1;
	}
	/* Whatever it looked like, an ended target is that. */
	if (error && error->status != CPROF_NO_PROCESS && !cprof_target_alive(target)) {
		cprof_error_destroy(error);
		error = cprof_error_create(CPROF_NO_PROCESS, NULL, "pid %d: ended meanwhile",
					   (int)remote->pid);
	}
	return error;
}

struct once {
	const struct cprof_target *target;
	struct cprof_remote *remote;
};

static struct cprof_error *run_once(void *context)
{
	const struct once *once = context;
	pid_t tracer;

	CPROF_TRY(cprof_remote_begin(once->target, once->remote));
	tracer = cprof_tracer_fork(cprof_remote_work, once->remote, true);
	if (tracer < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "starting a tracer");
	cprof_tracer_join(tracer, TRACER_MS);
	return cprof_remote_end(once->target, once->remote);
}

struct cprof_error *cprof_remote_run(const struct cprof_target *target, struct cprof_remote *remote)
{
	struct once once = {.target = target, .remote = remote};

	return cprof_tracer_retry(target, run_once, &once);
}

/* SPDX-License-Identifier: MIT
 *
 * What the attach floor's files share. The tracer is forked from a process that may have threads:
 * it allocates nothing and calls nothing that could hold a lock, only the kernel.
 *
 *  memory shared by both, mapped before the fork, touched only as far as needed:
 *
 *  ┌─────────────┬────────────────────────┬───────────────────┬──────────────────────────┐
 *  │ tracer_page │ tracees[TRACEES_MAX]   │ slots[SLOTS]      │ pool: stack bytes        │
 *  │ result      │ one a thread           │ tid → tracee      │ one piece a tracee       │
 *  └─────────────┴────────────────────────┴───────────────────┴──────────────────────────┘
 */
#ifndef CPROF_ATTACH_PRIVATE_H
#define CPROF_ATTACH_PRIVATE_H

#include <cprof/attach.h>
#include <sys/user.h>

#define CPROF_TRACEES_MAX  (1u << 17)
#define CPROF_TRACEE_SLOTS (2 * CPROF_TRACEES_MAX)
#define CPROF_POOL_BYTES   (512ull << 20)

enum cprof_tracee_phase {
	CPROF_TRACEE_NEW,
	CPROF_TRACEE_SEIZED,
	CPROF_TRACEE_ASKED, /* to stop, but is not there yet */
	CPROF_TRACEE_LATE,  /* did not come in time; no longer waited for */
	CPROF_TRACEE_LATER, /* it did come, when the others had gone on: looked at, and let go */
	CPROF_TRACEE_HELD,
	CPROF_TRACEE_LOOKED, /* at, without stopping it; of `regs` only the call, SP and PC are
				known */
	CPROF_TRACEE_GONE,
	CPROF_TRACEE_SPARED, /* never touched: it would not survive; only some of `regs` is known */
};

struct cprof_tracee {
	pid_t tid;
	char state;
	uint8_t phase; /* enum cprof_tracee_phase */
	bool group_stop;
	bool addressed;    /* signals may be addressed to it: the first thread, or a parent */
	int signal;        /* to deliver when it goes on, 0 none */
	uint64_t stack_at; /* offset in the pool */
	uint64_t stack_length;
	struct user_regs_struct regs;
};

struct cprof_mapped_range { /* a mapping a stack may be in */
	uint64_t start;
	uint64_t end;
};

/* What stopped the tracing before its end. */
enum cprof_tracer_fault {
	CPROF_TRACER_OK,
	CPROF_TRACER_DENIED, /* PTRACE_SEIZE: errnum */
	CPROF_TRACER_GONE,   /* no thread is left */
	CPROF_TRACER_TOO_MANY,
	CPROF_TRACER_FAILED, /* anything else: errnum */
};

struct cprof_tracer {
	/* from the profiler */
	int procfd;
	pid_t pid;
	const pid_t *tids; /* only these */
	size_t tid_count;
	uint64_t straggler_ns;             /* what is left of it, from the first stop on */
	struct cprof_mapped_range *ranges; /* ascending */
	size_t range_count;
	/* in shared memory */
	struct cprof_tracee *tracees;
	uint32_t *slots; /* index + 1 */
	uint8_t *pool;
	/* result */
	uint32_t fault; /* enum cprof_tracer_fault */
	int errnum;
	bool dumping_core;
	uint64_t count;
	uint64_t stops;
	uint64_t first_stop_ns; /* CLOCK_MONOTONIC */
	uint64_t last_release_ns;
	uint64_t taken_ns; /* wall clock */
	uint64_t pool_used;
};

/* tracer.c: runs in the forked process. */
void cprof_tracer_snapshot(struct cprof_tracer *tracer);
/* Of one that is held. */
void cprof_tracer_read_stack(struct cprof_tracer *tracer, struct cprof_tracee *tracee);

/* process.c */
/*
 * Runs `work(context)` in a process and session of its own, so that Ctrl-C at the terminal does not
 * end it between stop and release. `files`: it shares our descriptors. -1 with errno set.
 */
pid_t cprof_tracer_fork(void (*work)(void *context), void *context, bool files);
/* Waits for its end, and brings that about after so many ms; false if it did not end by itself. */
bool cprof_tracer_join(pid_t tracer, int timeout_ms);
/* Why PTRACE_SEIZE was refused: another tracer by name, or the kernel's rule. */
struct cprof_error *cprof_tracer_denied(const struct cprof_target *target, int errnum);
/* Refuses if there is another tracer. */
struct cprof_error *cprof_tracer_check(const struct cprof_target *target);
/* Repeats what is refused for a tracer that is soon gone: another dump, or what a killed profiler's
 * tracer still does. */
struct cprof_error *cprof_tracer_retry(const struct cprof_target *target,
				       struct cprof_error *(*attempt)(void *context),
				       void *context);

/* stop.c */
enum cprof_stop {
	CPROF_STOP_EXITED,
	CPROF_STOP_INTERRUPT, /* ours */
	CPROF_STOP_GROUP,     /* the thread was, or just came, into a group-stop */
	CPROF_STOP_SIGNAL,    /* a signal is about to be delivered */
	CPROF_STOP_SYSCALL,   /* entry or exit of a system call (TRACESYSGOOD) */
	CPROF_STOP_LATE,      /* none in time */
};
enum cprof_stop cprof_stop_classify(int status);
/* Interrupts waitpid() every now and then. */
void cprof_stop_ticking(uint64_t every_ns);
/* The tracee of a thread, added if it is new; NULL when there are too many. */
struct cprof_tracee *cprof_tracee_get(struct cprof_tracer *tracer, pid_t tid);
/* Whether it is one of those that are asked for. */
bool cprof_stop_wanted(const struct cprof_tracer *tracer, pid_t tid);
/* Looks at a thread before it is touched: its state letter, whether it is `addressed`, and whether
 * it must be spared. */
void cprof_stop_note(const struct cprof_tracer *tracer, struct cprof_tracee *tracee);
/*
 * Whether a sleeping thread waits for a futex in memory that has been unmapped since: our stop
 * would restart its call, which would then fail with EFAULT, at which glibc aborts the process.
 * Left alone it sleeps on. `words`: what it is in, as cprof_procfs_syscall() tells.
 */
bool cprof_stop_must_spare(int procfd, pid_t pid, pid_t tid, uint64_t words[8]);
/*
 * Seizes and interrupts every thread that is not known yet, and waits until all are held, gone, or
 * have had their time; `*fresh` tells how many were new.
 *
 * While a thread is traced the kernel queues even ignored signals that are addressed to it, and
 * wakes some thread of the process for them if it is stopped itself; one that is not traced would
 * see an EINTR that nobody can take back. Signals to the process are addressed to the first
 * thread, SIGCHLD to the one that forked: these must be stopped last and released first, parents
 * before the first thread.
 */
void cprof_stop_new(struct cprof_tracer *tracer, bool addressed, size_t *fresh);
/* Lets all go: pending signals are delivered, group-stops go on. */
void cprof_stop_release(struct cprof_tracer *tracer);

/* procfs.c: without memory of its own. */
/* Calls `each` for every thread id there is. False if the directory cannot be read. */
bool cprof_procfs_tasks(int procfd, bool (*each)(void *context, pid_t tid), void *context);
/* Whether an ignored signal waits in the process's queue. */
bool cprof_procfs_ignored_pending(int procfd);
/* Whether the thread has children; false too where the kernel does not tell. */
bool cprof_procfs_has_children(int procfd, pid_t tid);
/* What a sleeping thread is in: its system call's number, six arguments and the stack pointer, as
 * /proc/PID/task/TID/syscall has them. False if it is in none. */
bool cprof_procfs_syscall(int procfd, pid_t tid, uint64_t words[8]);
/* Where a thread is that does not run: its stack pointer and pc. */
bool cprof_procfs_place(int procfd, pid_t tid, uint64_t *sp, uint64_t *pc);
/* Whether the process has crashed and its core dump is being written: a stop would end that. False
 * before Linux 4.15, which does not tell. */
bool cprof_procfs_dumping_core(int procfd);
/* The state letter of a thread, 0 if it cannot be read. */
char cprof_procfs_state(int procfd, pid_t tid);

/* arch_x86_64.c */
/* A system call that only our interrupt ended is marked for the kernel to restart. Called at the
 * stop, so that it holds even if the tracer dies the next moment. */
void cprof_arch_restart(pid_t tid, struct user_regs_struct *regs);
void cprof_arch_regs(const struct user_regs_struct *from, struct cprof_regs *to);
/* Whether the thread runs, forks, or waits for children. */
bool cprof_arch_may_fork(const struct user_regs_struct *regs);
/* Whether a system call's number is futex(2)'s. */
bool cprof_arch_is_futex(uint64_t number);
/* The registers of a thread in a system call, from cprof_procfs_syscall(). */
void cprof_arch_in_syscall(const uint64_t words[8], struct user_regs_struct *regs);
/* The registers of a thread of which only these are known; in no call. */
void cprof_arch_at(uint64_t sp, uint64_t pc, struct user_regs_struct *regs);
#define CPROF_ARCH_AT_KNOWN (1u << CPROF_REG_SP | 1u << CPROF_REG_PC)
int64_t cprof_arch_syscall(const struct user_regs_struct *regs, uint64_t arguments[6]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The remote call: one thread of the target is borrowed, runs a few system calls and the agent's
 * routine, and goes on as if nothing had been. Like the tracer of snapshots, the part that traces
 * allocates nothing.
 *
 *  the borrowed thread's stack, downwards:
 *
 *  ┌──────────┬──────────┬──────────────┬─────────────────────────┬──────────────────────┐
 *  │ its own  │ red zone │ xsave area   │ signal frame: as it was │ call, name of memfd  │
 * routine's │          │ 128      │ 64-aligned   │ [0] = restorer          │                      │
 * stack … └──────────┴──────────┴──────────────┴─────────────────────────┴──────────────────────┘
 *            SP                         SP during remote calls
 *
 * The frame is complete before any register changes, and each remote call is `syscall; ret` into
 * the restorer: a thread whose tracer dies returns by rt_sigreturn to where it was.
 */
#ifndef CPROF_ATTACH_REMOTE_H
#define CPROF_ATTACH_REMOTE_H

#include "private.h"

#include <signal.h>

/* --- fault points -------------------------------------------------------------------------- */

/* After which step CPROF_ATTACH_FAULT=NAME[:VICTIM] kills; VICTIM is tracer (the default),
 * profiler, both or target. Those of the routine kill while it waits there. */
#define CPROF_FAULT_POINTS(X)                                                                      \
	X(NONE, "")                                                                                \
	X(SEIZED, "seized")                                                                        \
	X(STOPPED, "stopped")                                                                      \
	X(FRAMED, "framed")                                                                        \
	X(REGISTERS, "registers")                                                                  \
	X(MASKED, "masked")                                                                        \
	X(MEMFD_ENTRY, "memfd-entry")                                                              \
	X(MEMFD, "memfd")                                                                          \
	X(OPENED, "opened")                                                                        \
	X(FILLED, "filled")                                                                        \
	X(MAP_ENTRY, "map-entry")                                                                  \
	X(MAPPED, "mapped")                                                                        \
	X(READY, "ready")                                                                          \
	X(RUNNING, "running")                                                                      \
	X(ROUTINE_MAPPED, "routine-mapped")                                                        \
	X(ROUTINE_HALF, "routine-half")                                                            \
	X(ROUTINE_DONE, "routine-done")                                                            \
	X(DONE, "done")                                                                            \
	X(INTERRUPTED, "interrupted")                                                              \
	X(UNMASKED, "unmasked")                                                                    \
	X(RESTORED, "restored")                                                                    \
	X(RELEASED, "released")

enum cprof_fault_point {
#define CPROF_FAULT_POINT_(id, name) CPROF_FAULT_##id,
	CPROF_FAULT_POINTS(CPROF_FAULT_POINT_)
#undef CPROF_FAULT_POINT_
};
enum cprof_fault_victim {
	CPROF_FAULT_TRACER = 1,
	CPROF_FAULT_PROFILER = 2,
	CPROF_FAULT_BOTH = 3,
	CPROF_FAULT_TARGET = 4,
};

struct cprof_fault {
	uint32_t point;  /* enum cprof_fault_point */
	uint32_t victim; /* enum cprof_fault_victim */
	pid_t profiler;
};
/* As the environment says. False: it names no fault point. */
bool cprof_fault_init(struct cprof_fault *fault);
/* The place `point` is reached. */
void cprof_fault_reached(const struct cprof_fault *fault, enum cprof_fault_point point, pid_t pid);

/* --- the job ------------------------------------------------------------------------------- */

#define CPROF_REMOTE_RANGES 65536 /* vm.max_map_count's usual value */
#define CPROF_REMOTE_CALLS  1
#define CPROF_REMOTE_UNMAPS 2

enum cprof_remote_result {
	CPROF_REMOTE_NONE, /* the tracer did not come to an end */
	CPROF_REMOTE_OK,
	CPROF_REMOTE_SEIZE,      /* PTRACE_SEIZE: errnum */
	CPROF_REMOTE_GONE,       /* the target ended, or the thread by an exec */
	CPROF_REMOTE_STOPPED,    /* in group-stop */
	CPROF_REMOTE_NO_THREAD,  /* none can be borrowed */
	CPROF_REMOTE_SECCOMP,    /* a filter would not allow `syscall` */
	CPROF_REMOTE_UNREADABLE, /* there are filters that cannot be read: errnum */
	CPROF_REMOTE_MEMORY,     /* the stack cannot be written: errnum */
	CPROF_REMOTE_SYSCALL,    /* `syscall` failed there: errnum */
	CPROF_REMOTE_FILL,       /* the memfd could not be filled: errnum */
	CPROF_REMOTE_LOST,       /* the target closed the memfd meanwhile */
	CPROF_REMOTE_LATE,       /* no answer in time */
	CPROF_REMOTE_CRASHED,    /* the routine took a fault */
	CPROF_REMOTE_ROUTINE,    /* a call's `error` is set */
};

struct cprof_remote {
	/* from the profiler */
	int procfd;
	pid_t pid;
	uint64_t syscall_gadget; /* addresses in the target of `syscall; ret` … */
	uint64_t restorer;       /* … and of `mov $15, %eax; syscall` */
	struct cprof_mapped_range main_stack;
	size_t range_count;
	uint32_t filters; /* most seccomp filters a thread has: one with fewer is not borrowed */
	struct cprof_fault fault;
	bool owned;    /* a tracer of ours holds the target already */
	uint64_t base; /* of the agent */
	bool plant;    /* a new memfd is mapped there first, for calls[0] */
	bool replace;  /* over what is there */
	uint32_t memfd_flags;
	size_t order_count;                                   /* that the image carries */
	struct cprof_mapped_range unmap[CPROF_REMOTE_UNMAPS]; /* after the calls; empty: none */
	int close_fd; /* to be closed last, if it still is an agent's memfd; -1 none */
	uint32_t call_count;
	struct cprof_agent_call calls[CPROF_REMOTE_CALLS]; /* also results */
	/* results */
	uint32_t result; /* enum cprof_remote_result */
	int errnum;
	uint32_t syscall;
	uint32_t action; /* the seccomp filter's */
	int memfd;       /* ours, -1 none */
	pid_t tid;       /* of the borrowed thread */
	uint64_t stops;
	uint64_t held_ns;
	bool mapped;  /* the text is there now */
	bool started; /* the routine was entered: what it did may still be there */
};

/* Mapped before the fork, shared with the tracer, touched only as far as needed. */
struct cprof_remote_area {
	struct cprof_remote remote;
	struct cprof_mapped_range ranges[CPROF_REMOTE_RANGES]; /* writable, ascending */
	_Alignas(4096) uint8_t text[CPROF_AGENT_CONTROL];      /* with the config */
	_Alignas(4096) struct cprof_agent_shared shared;       /* up to the orders */
};
struct cprof_remote_area *cprof_remote_area(const struct cprof_remote *remote);

/* survey.c: gadgets, stacks, gaps; from outside. */
struct cprof_error *cprof_remote_survey(const struct cprof_target *target,
					struct cprof_remote *remote);
/* Why such a target is refused before it is touched. */
struct cprof_error *cprof_remote_check(const struct cprof_target *target,
				       struct cprof_remote *remote);

/* inject.c: the profiler's side */
struct cprof_error *cprof_remote_create(struct cprof_remote **remote);
void cprof_remote_destroy(struct cprof_remote *remote);
/* Surveys, forks a tracer, waits for it and says what came of it. */
struct cprof_error *cprof_remote_run(const struct cprof_target *target,
				     struct cprof_remote *remote);
/* What comes before and after the tracer's work, for who has a tracer already. */
struct cprof_error *cprof_remote_begin(const struct cprof_target *target,
				       struct cprof_remote *remote);
struct cprof_error *cprof_remote_end(const struct cprof_target *target,
				     struct cprof_remote *remote);

/* --- the tracer's side --------------------------------------------------------------------- */

/* remote.c */
/* The whole job, in the tracer's process. */
void cprof_remote_work(void *remote);
/* Opens the target's descriptor for writing, if it is an agent's memfd that nobody has sealed yet;
 * otherwise -1, with ENOENT. */
int cprof_remote_open_memfd(int procfd, int fd);
/* Its parts, for who holds a thread by other means: once; then what a held thread is to do, after
 * which it is let go. */
struct cprof_held;
void cprof_remote_prepare(void);
void cprof_remote_serve(struct cprof_held *held);

/* arch_x86_64.c */
#define CPROF_FRAME_ROOM 16384
#define CPROF_STACK_ROOM 6144 /* for the routine, below everything */

struct cprof_remote_block { /* below the frame */
	struct cprof_agent_call call;
	char name[16];
};

struct cprof_arch_frame {
	uint64_t frame; /* address: the stack pointer of remote system calls */
	uint64_t block; /* address of struct cprof_remote_block, where `bytes` begin */
	size_t length;
	_Alignas(64) uint8_t bytes[CPROF_FRAME_ROOM];
};
/* Notes what the processor saves. Once, before any frame. */
void cprof_arch_init(void);
/* Fills in a frame for a thread at a stop whose registers these are; the block is left zero. */
bool cprof_arch_frame(pid_t tid, const struct user_regs_struct *regs, uint64_t mask,
		      uint64_t restorer, struct cprof_arch_frame *frame);
/* `regs` become those of a remote system call, of the routine. */
void cprof_arch_enter_syscall(const struct cprof_arch_frame *frame, uint64_t gadget, long number,
			      const uint64_t arguments[6], struct user_regs_struct *regs);
void cprof_arch_enter_routine(const struct cprof_arch_frame *frame, uint64_t routine,
			      struct user_regs_struct *regs);
/* Whether the kernel restarts such a call by itself, with what is left of its time. */
bool cprof_arch_is_restarted(uint64_t number);
/* Whether registers may be borrowed here: 64-bit code, not inside a restartable sequence. */
bool cprof_arch_borrowable(pid_t pid, pid_t tid, const struct user_regs_struct *regs);

/* thread.c */
struct cprof_held {
	struct cprof_remote *remote;
	pid_t tid;
	struct user_regs_struct regs; /* to be restored */
	uint64_t mask;
	unsigned seccomp; /* its mode, 0: none */
	bool lost;        /* not in a stop: only our end can release it */
	bool running;
	bool at_stop; /* in a stop that our interrupt brought: only there can registers be restored,
		       * since the kernel is about to look what to restart */
	bool changed; /* its registers and mask are ours */
	int inject;   /* a signal to go on with */
	uint64_t since_ns;
	uint64_t deadline_ns;
	pid_t late[16]; /* others that were asked to stop and did not in time */
	unsigned late_count;
	siginfo_t deferred[8]; /* foreign signals, to be sent again */
	unsigned deferred_count;
	uint64_t skip_from; /* a fault at this address is answered by going on at … */
	uint64_t skip_to;
	struct cprof_arch_frame frame;
};

/*
 * Before the thread is held: what it is made to do ends with a wait for us, and where it is of a
 * real-time class, on our CPU, we would not get there. False: it cannot be outdone.
 */
bool cprof_held_outrank(pid_t tid);
/* Borrows a thread; false with the result set if there is none. */
bool cprof_held_take(struct cprof_remote *remote, struct cprof_held *held);
/* Restores it and lets it go. */
void cprof_held_release(struct cprof_held *held);
/* Waits for threads that were asked to stop in vain. */
void cprof_held_settle(struct cprof_held *held);
/* Sets the result, unless one is there. Returns false. */
bool cprof_held_fail(struct cprof_held *held, enum cprof_remote_result result, int errnum);
/* Lets it run, with the signal to inject. */
bool cprof_held_continue(struct cprof_held *held, int request);
/* Brings it to a stop where it can be restored, wherever it is. */
bool cprof_held_rest(struct cprof_held *held);
/* Goes on by `request`, unless it runs, to the next stop of that kind; false with the result set.
 */
bool cprof_held_advance(struct cprof_held *held, int request, enum cprof_stop kind);
/* Deals with a stop on the way; false if it was a fault of the code that runs. */
bool cprof_held_pass(struct cprof_held *held, enum cprof_stop kind);
/* Waits for the next stop. `flags`: WNOHANG gives CPROF_STOP_LATE at once. */
enum cprof_stop cprof_held_wait(struct cprof_held *held, int flags);

/* seccomp.c */
/* What classic BPF says to a system call: the action, or KILL if the filter is malformed. */
struct sock_filter;
uint32_t cprof_seccomp_run(const struct sock_filter *filter, size_t count, uint32_t number,
			   const uint64_t arguments[6], uint64_t ip);
/* Whether the filters of a stopped thread allow every call of ours; else result and `syscall`. */
bool cprof_seccomp_check(struct cprof_held *held);

/* procfs.c */
/* Seccomp mode of a thread and number of its filters. */
bool cprof_procfs_seccomp(int procfd, pid_t tid, unsigned *mode, unsigned *filters);

#endif

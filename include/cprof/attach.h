/* SPDX-License-Identifier: MIT
 *
 * Everything that touches the target through ptrace. All of it runs in a short-lived forked tracer
 * (a session of its own): the profiler itself never traces, and whatever happens to the tracer, its
 * end releases every thread.
 */
#ifndef CPROF_ATTACH_H
#define CPROF_ATTACH_H

#include <cprof/error.h>
#include <cprof/target.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- snapshot: registers and stacks of all threads at one moment --------------------------- */

struct cprof_snapshot_options {
	const pid_t *tids; /* only these, NULL: all */
	size_t tid_count;
	uint64_t straggler_ns; /* how long others are held for a thread that does not stop;
				* 0: 20 ms */
};

struct cprof_snapshot_thread {
	pid_t tid;
	char state;             /* procfs's letter, read before the stop; 0 unknown */
	bool held;              /* it was stopped: what follows is known */
	bool group_stop;        /* it was stopped by a signal anyway, and still is */
	int64_t syscall;        /* the system call it was in, -1 none */
	uint64_t arguments[6];  /* of that call */
	struct cprof_regs regs; /* as at the stop */
	const uint8_t *stack;   /* from the stack pointer upwards */
	size_t stack_length;
};

struct cprof_snapshot {
	struct cprof_snapshot_thread *threads; /* ascending tid */
	size_t count;
	size_t unstoppable;  /* of them, not held (D state, vfork parent) */
	uint64_t taken_ns;   /* wall clock */
	uint64_t stopped_ns; /* longest that any thread was held: first interrupt to last release */
	uint64_t stops;      /* ptrace stops */
};

/*
 * Stops every thread, copies registers and stacks, lets them go. The target sees no EINTR: an
 * interrupted system call is restarted (DESIGN.md, Thread dump). Signals that arrive meanwhile are
 * delivered once; a process in group-stop stays in it. Errors: CPROF_DENIED with the rule (another
 * tracer and its name, Yama, seccomp on us); CPROF_NO_PROCESS when the target ends.
 */
struct cprof_error *cprof_snapshot_take(const struct cprof_target *target,
					const struct cprof_snapshot_options *options,
					struct cprof_snapshot **snapshot);
void cprof_snapshot_destroy(struct cprof_snapshot *snapshot);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Everything that touches the target through ptrace. All of it runs in a short-lived forked tracer
 * (a session of its own): the profiler itself never traces, and whatever happens to the tracer, its
 * end releases every thread.
 */
#ifndef CPROF_ATTACH_H
#define CPROF_ATTACH_H

#include <cprof/agent_abi.h>
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
	char state; /* procfs's letter, read before the stop; 0 unknown */
	bool held;  /* it was stopped: what follows is known */
	bool late;  /* held, but only when the others had gone on: it lacked a CPU to stop on */
	bool group_stop; /* it was stopped by a signal anyway, and still is */
	int64_t syscall; /* the system call it was in, -1 none; known, with its arguments, of a
			  * thread that was not held because it waits for a futex in unmapped
			  * memory, and would have failed for being restarted */
	uint64_t arguments[6];  /* of that call */
	struct cprof_regs regs; /* as at the stop */
	const uint8_t *stack;   /* from the stack pointer upwards */
	size_t stack_length;
};

struct cprof_snapshot {
	struct cprof_snapshot_thread *threads; /* ascending tid */
	size_t count;
	size_t unstoppable;  /* of them, not held (D state, vfork parent, futex gone) */
	size_t late;         /* of them, seen after the others */
	bool dumping_core;   /* it has crashed: nobody was stopped, `held` ones are dead */
	uint64_t taken_ns;   /* wall clock */
	uint64_t stopped_ns; /* longest that any thread was held: first interrupt to last release */
	uint64_t stops;      /* ptrace stops */
};

/*
 * Stops every thread, copies registers and stacks, lets them go. The target sees no EINTR: an
 * interrupted system call is restarted (DESIGN.md, Thread dump). Signals that arrive meanwhile are
 * delivered once; a process in group-stop stays in it. One that has crashed and writes its core
 * dump is only looked at, since a stop would cut that short: PC and SP are known. Errors:
 * CPROF_DENIED with the rule (another tracer, that is still there after a second, and its name;
 * Yama; seccomp on us); CPROF_NO_PROCESS when the target ends.
 */
struct cprof_error *cprof_snapshot_take(const struct cprof_target *target,
					const struct cprof_snapshot_options *options,
					struct cprof_snapshot **snapshot);
void cprof_snapshot_destroy(struct cprof_snapshot *snapshot);

/* --- agent: hooks in the target's slots ---------------------------------------------------- */

/*
 * The agent is planted by one stopped thread of the target; the others never stop. Whatever kills
 * the profiler or its tracer in between, the target goes on correctly: DESIGN.md, Attach.
 */
struct cprof_agent;

/* What is hooked; bits. */
enum cprof_agent_kind { CPROF_AGENT_KIND_HEAP = 1, CPROF_AGENT_KIND_LOCKS = 2 };

struct cprof_agent_options {
	unsigned kinds;      /* 0: the heap */
	uint64_t heap_rate;  /* mean bytes between samples, 1 every allocation, 0: 512 KiB */
	uint32_t lock_every; /* one in so many contentions is timed, 0: as many as are cheap */
	uint64_t seed;       /* 0: random; for tests */
};

/* How far one module of the target is covered. */
enum cprof_agent_cover {
	CPROF_AGENT_COVER_HOOKED, /* its slots are patched */
	CPROF_AGENT_COVER_NONE,   /* it calls none of the functions */
	CPROF_AGENT_COVER_BYPASS, /* it allocates by means that no hook sees: `reason` */
	CPROF_AGENT_COVER_LATER,  /* not relocated yet: looked at again */
};
struct cprof_agent_module {
	const char *path; /* safe to show */
	enum cprof_agent_cover cover;
	uint32_t slots;      /* patched: of allocators … */
	uint32_t lock_slots; /* … and of locks */
	const char *reason;  /* "carries an allocator of its own (je_malloc)", …; NULL */
};

struct cprof_agent_stats {
	uint64_t slots_patched;
	uint64_t slots_restored;
	uint64_t slots_left;        /* a detach could not restore them: the module is gone */
	uint64_t stops;             /* ptrace stops, of all attaches */
	uint64_t attach_stops;      /* of the first */
	uint64_t attach_stopped_ns; /* how long the thread was held for the first */
	uint64_t stopped_ns_max;    /* of all */
	uint64_t stopped_threads;   /* different threads that were ever held */
	uint64_t modules_covered;
	uint64_t modules_bypassing;
	bool adopted;  /* an earlier agent's text was found and taken over */
	bool resident; /* after detach: PRIVATE and SHARED could not be unmapped yet */
};

/*
 * Plans, plants and switches on. Errors: CPROF_DENIED with the exact rule (another tracer, 32-bit,
 * seccomp, group-stop, no executable mapping, nothing to patch and what the target uses instead,
 * another profiler at work); CPROF_NO_PROCESS when the target ends; CPROF_FAILED otherwise, with
 * everything undone.
 */
struct cprof_error *cprof_agent_create(struct cprof_target *target,
				       const struct cprof_agent_options *options,
				       struct cprof_agent **agent);
/* Writes the heartbeat, notices modules that have come, and slots that were bound anew: to be
 * called about ten times a second. Stops a thread only when something has to be patched. */
struct cprof_error *cprof_agent_tick(struct cprof_agent *agent);
/* Hooks more kinds; errors as above, with what was hooked before untouched. */
struct cprof_error *cprof_agent_add(struct cprof_agent *agent, unsigned kinds);
/* Switches off, restores every slot, unmaps. The shared area stays readable for us. Harmless when
 * done twice, and when the target has ended. */
struct cprof_error *cprof_agent_detach(struct cprof_agent *agent);
/* Detaches if need be; NULL is fine. */
void cprof_agent_destroy(struct cprof_agent *agent);

/* Our mapping of the shared area: hostile, copy then validate. Also after the target's end. */
struct cprof_agent_shared *cprof_agent_shared(struct cprof_agent *agent);
void cprof_agent_stats(const struct cprof_agent *agent, struct cprof_agent_stats *stats);
/* The modules as last planned; valid until the next tick or detach. */
const struct cprof_agent_module *cprof_agent_modules(const struct cprof_agent *agent,
						     size_t *count);

/* --- what a killed profiler left ----------------------------------------------------------- */

struct cprof_agent_remains {
	uint64_t base;  /* of the agent, 0: there never was one */
	bool hooked;    /* slots still lead to it */
	bool mapped;    /* PRIVATE or SHARED is still there */
	bool memfd;     /* a descriptor was left open */
	bool in_use;    /* a profiler is at work (its heartbeat is fresh) */
	int host_pid;   /* of that profiler, 0 unknown */
	uint64_t slots; /* hooked slots; after a removal: slots restored */
};
/* Looks only: reads the target's memory, stops nobody. */
struct cprof_error *cprof_agent_find(struct cprof_target *target,
				     struct cprof_agent_remains *remains);
/* Cleans; refuses (CPROF_DENIED) while another profiler is at work. */
struct cprof_error *cprof_agent_clean(struct cprof_target *target,
				      struct cprof_agent_remains *remains);

/* --- a command from its first instruction -------------------------------------------------- */

/*
 * Follows a child that is about to exec (it must wait until this returns; under Yama's rule it also
 * has to call prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY) before), and holds it at its
 * entry point, after the dynamic linker has relocated everything, until cprof_entry_plant() or
 * cprof_entry_destroy(). Errors as above.
 */
struct cprof_entry;
struct cprof_error *cprof_entry_create(pid_t child, struct cprof_entry **entry);
/* Waits until the child has come to its entry point. CPROF_NO_PROCESS if it ended before. */
struct cprof_error *cprof_entry_wait(struct cprof_entry *entry);
/* Plants the agent in the held child, and lets it go. */
struct cprof_error *cprof_entry_plant(struct cprof_entry *entry, struct cprof_target *target,
				      const struct cprof_agent_options *options,
				      struct cprof_agent **agent);
/* Lets the child go on if it is still held; NULL is fine. */
void cprof_entry_destroy(struct cprof_entry *entry);

#endif

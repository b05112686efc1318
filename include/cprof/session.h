/* SPDX-License-Identifier: MIT
 *
 * One attached target with its event sources, its collector thread and its profiles. A session is
 * a cprof_source: front ends take snapshots and never see a ring.
 */
#ifndef CPROF_SESSION_H
#define CPROF_SESSION_H

#include <cprof/attach.h>
#include <cprof/error.h>
#include <cprof/heap.h>
#include <cprof/locks.h>
#include <cprof/perf.h>
#include <cprof/source.h>
#include <cprof/target.h>
#include <cprof/threads.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stdint.h>

/* What a session takes; bits, so that several go together. */
enum cprof_kind {
	CPROF_KIND_CPU = 1,
	CPROF_KIND_CYCLES = 2, /* instead of CPU: the same samples, another clock */
	CPROF_KIND_HEAP = 4,
	CPROF_KIND_THREADS = 8,       /* one dump, taken when its snapshot is asked for */
	CPROF_KIND_BLOCK = 16,        /* off-CPU time; begins with a dump */
	CPROF_KIND_MUTEX = 32,        /* contention; hooks the C library's locks */
	CPROF_KIND_THREADCREATE = 64, /* stacks that create threads */
};
/* "cpu", "cycles", …: as -e spells it; NULL for no single kind. */
const char *cprof_kind_name(enum cprof_kind kind);
/* By that name; 0 if there is none. */
enum cprof_kind cprof_kind_find(const char *name);

#define CPROF_HEAP_RATE_DEFAULT  (512ull << 10)
#define CPROF_BLOCK_RATE_DEFAULT 2000

struct cprof_session_config {
	pid_t pid;
	unsigned kinds;        /* enum cprof_kind, 0: CPU */
	unsigned rate;         /* 0: 99 */
	uint64_t heap_rate;    /* mean bytes between heap samples, 0: the default */
	uint64_t heap_seed;    /* 0: random; for tests */
	unsigned block_rate;   /* stacks a second of all threads, 0: of every switch */
	uint64_t block_min_ns; /* as cprof_block_config.min_ns */
	uint32_t mutex_rate;   /* one in so many contentions is timed, 0: as many as are cheap */
	bool mutex_waiters;    /* charge the stacks that wait, not those that unlock */
	enum cprof_perf_way way;
	const struct cprof_unwinder_ops *unwinder; /* NULL: cfi */
	const char *const *threads; /* only these: a tid or a name each; NULL-ended; NULL: all */
	const char *debug_dir;
	uint64_t started_ns; /* CLOCK_MONOTONIC when the command began, for attach_ns */
	bool no_kernel;
	bool no_inlines;
	bool no_lines;
	bool live;       /* somebody watches: the source has all of its calls, and what is kept is
			  * bounded: of what was long ago, small stacks become one */
	bool await_exec; /* `run`: discard what comes before the target's exec; the agent waits for
			  * cprof_session_plant() */
};

struct cprof_session;

/* Counts of stacks; `ends` add up to `samples`. Of a dump, a thread that was held is a sample. */
struct cprof_session_counts {
	uint64_t samples;
	uint64_t lost;
	uint64_t ends[CPROF_ENDS];
	uint64_t frames;
};

struct cprof_session_stats {
	struct cprof_session_counts all;
	struct cprof_session_counts cpu; /* or cycles */
	struct cprof_session_counts heap_counts;
	struct cprof_session_counts block_counts; /* stacks */
	struct cprof_session_counts mutex_counts;
	struct cprof_session_counts births_counts; /* samples and lost: threads created */
	struct cprof_session_counts dump;          /* as of its last snapshot */
	uint64_t unwind_ns;
	uint64_t symbolize_ns;
	uint64_t duration_ns;
	uint64_t attach_ns;               /* start to first data, 0: none came */
	uint64_t threads;                 /* threads seen */
	struct cprof_perf_stats perf;     /* with CPU or CYCLES */
	struct cprof_perf_stats births;   /* with THREADCREATE */
	struct cprof_perf_stats switches; /* with BLOCK, as the following */
	struct cprof_block_stats block;
	char block_problem[256]; /* why those that sleep throughout have no stack; "" they have */
	struct cprof_heap_stats heap;             /* with HEAP, as the following; its peak is since
						   * cprof_session_stats() was asked last */
	struct cprof_contention_stats contention; /* with MUTEX */
	struct cprof_agent_stats
		agent;            /* with either; after cprof_session_stop(): of the detach too */
	uint64_t dump_stopped_ns; /* with THREADS: longest of all dumps */
	uint64_t dump_stops;      /* of all dumps */
	bool target_ended;
	bool target_stopped; /* it was in group-stop when profiling ended */
	bool filter_matched; /* a thread was among those asked for */
	uint64_t unseen_ns;  /* CPU time that no sample tells of, as of the last snapshot */
	bool kernel_unnamed; /* kernel samples could not be named (kptr_restrict) */
	uint64_t rss;        /* with HEAP: bytes, when last looked at; 0 unknown */
	bool agent_ended;    /* before the session did: the agent went with an exec, or was lost */
	uint64_t agent_ns;   /* how long it was there */
	char agent_problem[256]; /* why it ended, or why the agent could not be taken out; "" none
				  */
	char agent_name[2][64]; /* the process's when the agent came and, if another, when it ended:
				 * perhaps by an exec that nobody saw. Safe to show; "" none */
};

/* Opens what is needed; nothing is sampled yet. Errors as cprof_target_create() and
 * cprof_perf_create(). */
struct cprof_error *cprof_session_create(const struct cprof_session_config *config,
					 struct cprof_session **session);
/* Begins sampling: starts the collector thread. With HEAP it plants the agent too (errors as
 * cprof_agent_create()), unless `await_exec`. */
struct cprof_error *cprof_session_start(struct cprof_session *session);
/* `run` with HEAP: plants the agent in the command, which `entry` holds at its entry point. */
struct cprof_error *cprof_session_plant(struct cprof_session *session, struct cprof_entry *entry);
/* Ends sampling, drains, joins the collector, takes the agent out. Harmless when done twice. */
void cprof_session_stop(struct cprof_session *session);
/* Detaches and frees; NULL is fine. */
void cprof_session_destroy(struct cprof_session *session);

/* Its snapshot() takes each of the session's kinds by name. */
struct cprof_source *cprof_session_source(struct cprof_session *session);
/* With THREADS: what the snapshot of that kind is made of. */
struct cprof_error *cprof_session_dump(struct cprof_session *session, struct cprof_dump **dump);
void cprof_session_count_dump(const struct cprof_dump *dump, struct cprof_session_counts *counts);
/* Modules and their coverage by the agent, under the session's lock: `each` must not call back. */
void cprof_session_agent_modules(struct cprof_session *session,
				 void (*each)(void *context,
					      const struct cprof_agent_module *module),
				 void *context);
const struct cprof_target *cprof_session_target(const struct cprof_session *session);
void cprof_session_stats(struct cprof_session *session, struct cprof_session_stats *stats);
/* Readable when the target has ended. */
int cprof_session_ended_fd(const struct cprof_session *session);

#endif

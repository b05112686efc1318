/* SPDX-License-Identifier: MIT
 *
 * What a live view needs of a session beside its profiles: the last minutes, names that come while
 * nobody waits, figures, threads, summary lines. All of it is bounded, however long it runs.
 */
#ifndef CPROF_SESSION_LIVE_H
#define CPROF_SESSION_LIVE_H

#include "private.h"
#include "window.h"

#include <cprof/memtrace.h>

#define CPROF_LIVE_LINES 600 /* of memtrace */

struct cprof_thread_list;

/* What kinds that are sums had come to at some moment. */
#define CPROF_LIVE_MARKS 64
struct cprof_live_mark {
	uint64_t time_ns;
	struct cprof_block_rows *block; /* NULL: none */
	uint64_t block_ns;              /* to when they go */
	struct cprof_contention_rows *mutex;
};

struct cprof_session_live {
	/* Under the session's lock. */
	struct cprof_window cpu;
	size_t compact_at;   /* sizes of the profile that are too much: samples, … */
	size_t stacks_at;    /* … stacks, … */
	size_t labels_at;    /* … label sets, … */
	size_t locations_at; /* … locations */
	uint64_t compactions;
	uint64_t folded; /* samples whose stacks were given up */

	struct cprof_live_mark marks[CPROF_LIVE_MARKS]; /* a ring */
	uint64_t first_mark;
	uint64_t next_mark;
	uint64_t marked_ns;
	size_t mark_rows;

	/* The worker, under the session's lock too. */
	pthread_t worker;
	pthread_cond_t wake;
	bool working;
	bool stopping;
	unsigned names_wanted;     /* kinds */
	size_t names_from[8];      /* by kind: where to go on */
	uint64_t names_idle_ns[8]; /* nothing found a name: not before then again */

	bool tracing;                                       /* summary lines are wanted */
	struct cprof_memtrace_line lines[CPROF_LIVE_LINES]; /* a ring, by number */
	uint64_t line_count;

	char problem[8][192]; /* by kind: why begin() failed last */

	/* Of the calling thread only. */
	struct cprof_thread_list *threads;
	char comm[64];
	char cmdline[256];
	uint64_t figured_ns; /* when figures were asked for last, and what they were */
	uint64_t target_cpu_ns;
	uint64_t own_cpu_ns;
	double target_cpus;
	double own_cpus;
	struct cprof_source_figures last;
};

/* How a kind's bit is numbered. */
static inline unsigned cprof_kind_index(enum cprof_kind kind)
{
	return (unsigned)__builtin_ctz((unsigned)kind);
}

/* recent.c */
void cprof_live_bounds(struct cprof_session_live *live);
struct cprof_error *cprof_live_window(struct cprof_source *source, const char *kind,
				      uint64_t window_ns, bool unnamed,
				      struct cprof_profile **profile);
/* What is finished since then, named; `*from_ns` moves on. */
struct cprof_error *cprof_live_recent(struct cprof_session *session, uint64_t *from_ns,
				      struct cprof_profile **profile);
/* marks.c */
void cprof_live_forget_marks(struct cprof_session_live *live);
/* figures.c */
void cprof_live_figures(struct cprof_source *source, struct cprof_source_figures *figures);
/* kinds.c */
void cprof_live_kind(struct cprof_source *source, const char *kind,
		     struct cprof_source_kind *result);
struct cprof_error *cprof_live_begin(struct cprof_source *source, const char *kind);
/* list.c */
struct cprof_error *cprof_live_threads(struct cprof_source *source,
				       struct cprof_source_threads **threads);
/* worker.c */
void cprof_live_memtrace(struct cprof_source *source, uint64_t from,
			 struct cprof_memtrace_line *lines, size_t most, size_t *count);
struct cprof_error *cprof_live_worker_start(struct cprof_session *session);
void cprof_live_worker_stop(struct cprof_session *session);

#endif

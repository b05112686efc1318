/* SPDX-License-Identifier: MIT
 *
 * One attached target with its event sources, its collector thread and its profiles. A session is
 * a cprof_source: front ends take snapshots and never see a ring.
 */
#ifndef CPROF_SESSION_H
#define CPROF_SESSION_H

#include <cprof/error.h>
#include <cprof/perf.h>
#include <cprof/source.h>
#include <cprof/target.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stdint.h>

struct cprof_session_config {
	pid_t pid;
	unsigned rate; /* 0: 99 */
	enum cprof_perf_way way;
	enum cprof_perf_clock clock;
	const struct cprof_unwinder_ops *unwinder; /* NULL: cfi */
	const char *const *threads; /* only these: a tid or a name each; NULL-ended; NULL: all */
	const char *debug_dir;
	uint64_t started_ns; /* CLOCK_MONOTONIC when the command began, for attach_ns */
	bool no_kernel;
	bool no_inlines;
	bool no_lines;
	bool await_exec; /* `run`: discard what comes before the target's exec */
};

struct cprof_session;

struct cprof_session_stats {
	uint64_t samples;
	uint64_t lost;
	uint64_t ends[CPROF_ENDS]; /* they add up to `samples` */
	uint64_t frames;
	uint64_t unwind_ns;
	uint64_t symbolize_ns;
	uint64_t duration_ns;
	uint64_t attach_ns; /* start to first data, 0: none came */
	uint64_t threads;   /* threads seen */
	struct cprof_perf_stats perf;
	bool target_ended;
	bool target_stopped; /* it was in group-stop when profiling ended */
	bool filter_matched; /* a thread was among those asked for */
	uint64_t unseen_ns;  /* CPU time that no sample tells of, as of the last snapshot */
	bool kernel_unnamed; /* kernel samples could not be named (kptr_restrict) */
};

/* Attaches, disabled. Errors as cprof_target_create() and cprof_perf_create(). */
struct cprof_error *cprof_session_create(const struct cprof_session_config *config,
					 struct cprof_session **session);
/* Begins sampling: starts the collector thread. */
struct cprof_error *cprof_session_start(struct cprof_session *session);
/* Ends sampling, drains, joins the collector. Harmless when done twice. */
void cprof_session_stop(struct cprof_session *session);
/* Detaches and frees; NULL is fine. */
void cprof_session_destroy(struct cprof_session *session);

struct cprof_source *cprof_session_source(struct cprof_session *session);
const struct cprof_target *cprof_session_target(const struct cprof_session *session);
void cprof_session_stats(struct cprof_session *session, struct cprof_session_stats *stats);
/* Readable when the target has ended. */
int cprof_session_ended_fd(const struct cprof_session *session);

#endif

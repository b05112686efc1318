/* SPDX-License-Identifier: MIT
 *
 * The worker's insides, for the files that make models and do what is asked for.
 */
#ifndef CPROF_TUI_PRIVATE_H
#define CPROF_TUI_PRIVATE_H

#include "worker.h"

#include <cprof/memtrace.h>
#include <cprof/threads.h>

#define CPROF_QUEUE_MAX     16
#define CPROF_MEMTRACE_KEEP 1000 /* lines */
#define CPROF_NAMES_FROM    4    /* refreshes go by without waiting for names */

struct cprof_queued {
	enum cprof_action action;
	enum cprof_view_id view;
	struct cprof_model *model;
};

/* The profile of a view as it came from the source. */
struct cprof_held {
	struct cprof_profile *profile;
	uint64_t window_ns;
	uint64_t taken_ns; /* CLOCK_MONOTONIC */
	uint64_t taken_wall_ns;
	bool unnamed;
};

struct cprof_worker {
	struct cprof_source *source;
	const struct cprof_view_config *config;
	enum cprof_view_id saved_view; /* CPROF_VIEWS: the source is live */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int event_fd;

	/* Under the lock. */
	struct cprof_want want;
	struct cprof_queued queue[CPROF_QUEUE_MAX];
	size_t queued;
	struct cprof_model *ready;
	struct cprof_model *trash;
	char told[512];
	bool has_told;
	unsigned busy;
	unsigned starting[CPROF_VIEWS];
	bool stop;

	/* The thread's own. */
	struct cprof_want now; /* what is being answered */
	struct cprof_held held[CPROF_VIEW_PROFILES];
	struct cprof_profile *base[CPROF_VIEW_PROFILES];
	char base_text[CPROF_VIEW_PROFILES][64];
	struct cprof_profile *reset[CPROF_VIEW_PROFILES];
	uint64_t reset_ns[CPROF_VIEW_PROFILES];
	struct cprof_growth *growth;
	struct cprof_source_figures figures;
	struct cprof_history history;
	struct cprof_source_threads *threads; /* of the last look */
	struct cprof_dump *dump;              /* of one thread, and which, and when */
	int64_t dump_tid;
	uint64_t dump_ns;
	struct cprof_memtrace_line *lines;
	size_t line_count;
	uint64_t line_next;
	uint64_t started_ns;
	uint64_t next_ns; /* refresh; UINT64_MAX: none any more */
	uint64_t period_ns;
	uint64_t answered;
	uint64_t frame;
	uint64_t names_from; /* the frame from which on names are waited for */
	bool ended;
	uint64_t ended_ns;  /* when that was seen */
	bool saved_threads; /* its samples name threads */
	bool named;         /* wait for names */
};

/* The name of a view's kind. */
const char *cprof_worker_kind(const struct cprof_worker *worker, enum cprof_view_id view);
/* Reads what is read once a refresh. */
void cprof_worker_look(struct cprof_worker *worker);
/* A model that answers `worker->now`; `due`: with new data. NULL without memory. */
struct cprof_model *cprof_worker_build(struct cprof_worker *worker, bool due);
void cprof_worker_publish(struct cprof_worker *worker, struct cprof_model *model);
/* The view's profile as it stands, named, without anything subtracted; the caller destroys it. */
struct cprof_error *cprof_worker_snapshot(struct cprof_worker *worker, enum cprof_view_id view,
					  struct cprof_profile **profile);
/* Does it; `text` says how it went. */
void cprof_worker_do(struct cprof_worker *worker, const struct cprof_queued *queued, char *text,
		     size_t size);

#endif

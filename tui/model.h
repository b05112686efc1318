/* SPDX-License-Identifier: MIT
 *
 * What is to be shown. The user's side says what it wants, the worker answers with a model, which
 * nobody changes any more.
 */
#ifndef CPROF_TUI_MODEL_H
#define CPROF_TUI_MODEL_H

#include "cells.h"

#include <cprof/analysis.h>
#include <cprof/listing.h>
#include <cprof/source.h>
#include <cprof/view.h>

enum cprof_view_id {
	CPROF_VIEW_CPU,
	CPROF_VIEW_HEAP,
	CPROF_VIEW_MUTEX,
	CPROF_VIEW_BLOCK,
	CPROF_VIEW_THREADS,
	CPROF_VIEW_MEMTRACE,
	CPROF_VIEWS
};
#define CPROF_VIEW_PROFILES CPROF_VIEW_THREADS /* those before it show profiles */

enum cprof_page {
	CPROF_PAGE_LIST,
	CPROF_PAGE_PEEK, /* callers and callees of a function */
	CPROF_PAGE_FLAME,
	CPROF_PAGE_SOURCE, /* of a function, as the next */
	CPROF_PAGE_CODE,
	CPROF_PAGE_STACK, /* of a thread */
};

#define CPROF_FILTER_MAX 256
#define CPROF_NAME_MAX   64 /* of a thread */

/* What the user wants to see. */
struct cprof_want {
	uint64_t serial;
	enum cprof_view_id view;
	enum cprof_page page;
	uint64_t window_ns; /* 0: since the start */
	bool frozen;
	int64_t tid;       /* only this thread; 0: see the following */
	int64_t stack_tid; /* whose stack */
	char type[64];     /* name of the value type, "" the default one */
	char thread[CPROF_NAME_MAX];
	char stack_thread[CPROF_NAME_MAX];
	char filter[CPROF_FILTER_MAX];
	char *function; /* of the page; NULL none */
};

/* A thread, as procfs and samples tell of it, or as a saved profile's labels do. */
struct cprof_view_thread {
	int64_t tid; /* 0: only its name is known */
	char name[CPROF_NAME_MAX];
	char state;
	double cpu;      /* < 0 unknown */
	uint64_t cpu_ns; /* UINT64_MAX unknown */
	int64_t value;   /* of a profile, in the unit of its type */
	char wait[12];
	char detail[96];
	char top[128];
};

struct cprof_view_line {
	enum cprof_style style;
	char *text; /* safe to show */
};

#define CPROF_HISTORY 240

/* Of the last refreshes, the newest last; < 0 unknown. */
struct cprof_history {
	float cpu[CPROF_HISTORY];
	float rss[CPROF_HISTORY];
	float live[CPROF_HISTORY];
	size_t count;
};

struct cprof_model {
	struct cprof_model *next; /* of those to be freed */
	int users;                /* under the worker's lock */
	uint64_t serial;          /* of what it answers */
	uint64_t frame;           /* refreshes so far */
	enum cprof_view_id view;
	enum cprof_page page;
	bool live; /* there will be more */
	bool has_figures;
	bool frozen;
	struct cprof_source_figures figures;
	struct cprof_history history;
	struct cprof_source_kind kinds[CPROF_VIEWS];
	char problem[512]; /* why there is nothing to see; "" there is */
	uint64_t taken_wall_ns;
	uint64_t period_ns; /* between refreshes, as things are */

	/* Profile views: what is shown is `profile`. */
	struct cprof_profile *profile;
	struct cprof_analysis *analysis;
	size_t type;
	const char *unit;        /* of the profile */
	const char *output_unit; /* of the table */
	int64_t whole;    /* the sum of all values, those that the filter leaves out among them */
	bool *matches;    /* one a row; NULL: all do */
	double *growth;   /* heap: of cum, one a row, in the unit of the type a second; NULL unknown
			   */
	uint64_t span_ns; /* that the profile is about, 0 unknown */
	bool unnamed;     /* some symbols are still being looked up */
	char base[64];    /* "baseline of 12:01:02", "" none */

	uint32_t row; /* of the page's function; UINT32_MAX: it is not in the profile */
	struct cprof_analysis_peek peek;
	struct cprof_analysis_tree tree;
	struct cprof_listing *listing;

	struct cprof_view_thread *threads; /* those that the profile knows; in the view of threads
					    * all, ascending by tid */
	size_t thread_count;
	char deadlock[256];
	struct cprof_view_line *lines; /* a stack, or memtrace */
	size_t line_count;
	size_t line_capacity;
};

void cprof_model_destroy(struct cprof_model *model);
/* Appends a line, made safe. False without memory. */
bool cprof_model_line(struct cprof_model *model, enum cprof_style style, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* --- threads.c ----------------------------------------------------------------------------- */

/* The threads that a profile's labels name, the largest value first. */
struct cprof_error *cprof_model_label_threads(struct cprof_model *model,
					      const struct cprof_profile *profile, size_t type);
struct cprof_error *cprof_model_live_threads(struct cprof_model *model,
					     const struct cprof_source_threads *threads);
/* The stack of one thread out of a dump; of a saved profile, its largest stacks. */
struct cprof_error *cprof_model_live_stack(struct cprof_model *model, const struct cprof_dump *dump,
					   const struct cprof_want *want);
struct cprof_error *cprof_model_saved_stack(struct cprof_model *model,
					    const struct cprof_want *want);

/* --- growth.c: how fast rows grow ---------------------------------------------------------- */

struct cprof_growth;
struct cprof_growth *cprof_growth_create(void); /* NULL without memory */
void cprof_growth_destroy(struct cprof_growth *growth);
/* Takes in a heap profile's rows as of `now_ns` and fills in the model's growth. */
void cprof_growth_step(struct cprof_growth *growth, struct cprof_model *model, uint64_t now_ns);

#endif

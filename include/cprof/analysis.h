/* SPDX-License-Identifier: MIT
 *
 * A profile summed up by function, as data: rows, callers and callees, the tree of calls. Numbers
 * are those of `report top`. All text in here is safe to show.
 */
#ifndef CPROF_ANALYSIS_H
#define CPROF_ANALYSIS_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_graph; /* private */

struct cprof_analysis_row {
	const char *name;
	const char *module; /* end of the path, "" unknown */
	uint32_t function;  /* of the profile, for a listing; 0 none */
	bool inlined;       /* at every call */
	int64_t *flat;      /* one value a type */
	int64_t *cum;
};
struct cprof_analysis {
	const struct cprof_profile *profile; /* not owned */
	struct cprof_analysis_row *rows;     /* of functions without samples too: all values 0 */
	size_t count;
	int64_t *totals; /* one a type: the sum of all samples, each without its sign */
	struct cprof_graph *graph;
	char **texts;
	int64_t *values;
};

/* `profile` must outlive the analysis. */
struct cprof_error *cprof_analysis_create(const struct cprof_profile *profile,
					  struct cprof_analysis **analysis);
void cprof_analysis_destroy(struct cprof_analysis *analysis);

struct cprof_analysis_edge {
	uint32_t row;
	int64_t value;
};
/* Who calls a function and what it calls; a call counts once a sample. Largest first. */
struct cprof_analysis_peek {
	struct cprof_analysis_edge *callers;
	size_t caller_count;
	struct cprof_analysis_edge *callees;
	size_t callee_count;
};
struct cprof_error *cprof_analysis_peek(const struct cprof_analysis *analysis, uint32_t row,
					size_t type, struct cprof_analysis_peek *peek);
void cprof_analysis_peek_deinit(struct cprof_analysis_peek *peek);

/* Node 0 is the root, whose value is the sum of all stacks. */
struct cprof_analysis_node {
	uint32_t row; /* UINT32_MAX: the root, or a stack without frames */
	uint32_t parent;
	uint32_t first; /* child, the largest first; 0 none */
	uint32_t next;  /* sibling; 0 none */
	uint32_t depth;
	int64_t value; /* with all below */
	int64_t self;
};
struct cprof_analysis_tree {
	struct cprof_analysis_node *nodes;
	size_t count;
	uint32_t depth; /* of the deepest node */
};
struct cprof_error *cprof_analysis_tree(const struct cprof_analysis *analysis, size_t type,
					struct cprof_analysis_tree *tree);
void cprof_analysis_tree_deinit(struct cprof_analysis_tree *tree);

/* The value type of a name, else the default one, else the last. */
size_t cprof_analysis_type(const struct cprof_profile *profile, const char *name);

struct cprof_analysis_filter {
	const char *focus;  /* regular expression (POSIX extended) on names, source files and
			     * modules;  NULL or "": all */
	const char *ignore; /* the same, of stacks that are left out */
	int64_t tid;        /* only this thread; 0: see the following */
	const char *thread; /* only threads of this name; NULL or "": all */
};
/* A copy with those samples only. CPROF_USAGE where the expression is none. */
struct cprof_error *cprof_analysis_select(const struct cprof_profile *profile,
					  const struct cprof_analysis_filter *filter,
					  struct cprof_profile **selected);

/* --- numbers as text ----------------------------------------------------------------------- */

#define CPROF_ANALYSIS_TEXT 400 /* a double has up to 309 digits before its point */

/* One unit for a table whose smallest value is `smallest` (0: it has none). */
const char *cprof_analysis_unit(int64_t smallest, int64_t total, const char *unit);
/* "1.50s", "0", "12"; `to` may be "minimum": the largest unit that leaves at least 1. */
void cprof_analysis_value(int64_t value, const char *from, const char *to,
			  char text[CPROF_ANALYSIS_TEXT]);
/* " 0.5%", "12.34%", "  100%" of the absolute ratio. */
void cprof_analysis_percent(int64_t value, int64_t total, char text[32]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the files of the report floor share.
 */
#ifndef CPROF_REPORT_PRIVATE_H
#define CPROF_REPORT_PRIVATE_H

#include <cprof/report.h>
#include <regex.h>
#include <stddef.h>

/* --- units.c: numbers as pprof writes them ------------------------------------------------- */

/* Units that convert into one another know each other's names ("ns", "Seconds", "kb"); `to` may
 * also be "minimum": the largest unit in which the value is at least 1. `*unit` is "" where a unit
 * is of no interest (counts). */
double cprof_units_scale(int64_t value, const char *from, const char *to, const char **unit);
/* "1.50s", "0", "12". */
#define CPROF_UNITS_TEXT 400 /* a double has up to 309 digits before its point */
void cprof_units_label(int64_t value, const char *from, const char *to,
		       char text[CPROF_UNITS_TEXT]);
/* " 0.5%", "12.34%", "  100%" of the absolute ratio. */
void cprof_units_percent(int64_t value, int64_t total, char text[32]);

/* --- select.c ------------------------------------------------------------------------------ */

/* Compiles a regular expression of the user's, which is to be freed then. */
struct cprof_error *cprof_select_compile(const char *option, const char *text, regex_t *regex);
/* The index of the wanted value type (a name or number; NULL: the default one, else the last). */
struct cprof_error *cprof_select_type(const struct cprof_profile *profile, const char *wanted,
				      size_t *index);
/* A usage error, which names the option, if it is no regular expression. */
struct cprof_error *cprof_select_compile(const char *option, const char *text, regex_t *regex);
/* One flag a sample: whether focus and ignore let it through. The caller frees. */
struct cprof_error *cprof_select_samples(const struct cprof_profile *profile,
					 const struct cprof_report_options *options,
					 bool **selected);

/* --- prune.c: what a file's drop_frames leaves out ------------------------------------------ */

/* For each location how many of its lines match, with those inlined into them: all of them if the
 * whole location does. NULL if nothing is to be dropped. The caller frees. */
struct cprof_error *cprof_prune_create(const struct cprof_profile *profile, uint32_t **cut);
/* The first item of a stack that stays; `cut` may be NULL. A stack is never emptied: what matches
 * outside of all other frames is left. */
uint32_t cprof_prune_first(const struct cprof_profile *profile, const uint32_t *cut,
			   const struct cprof_profile_span *stack);

/* --- graph.c: nodes (functions, lines or addresses) with their weights, and edges ------------ */

struct cprof_graph_node {
	int64_t flat;
	int64_t cum;
	uint32_t seen; /* the last sample it was met in, plus one */
	bool kept;
	bool inlinable; /* is an inlined function somewhere: only these need their edges */
	bool inlined;   /* some caller has it inlined; some has not */
	bool called;
};

struct cprof_graph_edge {
	int64_t weight;
	uint32_t seen;
	bool present;
	bool inlined; /* at every call */
};

/* Node i is location i of `view`: one line of one function, where function.system_name is the
 * file that holds the code, if the function has no name. Edge i is stack i of `view`. */
struct cprof_graph {
	const struct cprof_profile *profile;
	struct cprof_profile *view;
	uint32_t *cut;   /* see cprof_prune_create() */
	uint32_t *first; /* location i has nodes node_ids[first[i] .. first[i + 1]) */
	uint32_t *node_ids;
	struct cprof_graph_node *nodes; /* view->location_count of them */
	struct cprof_graph_edge *edges; /* view->stack_count of them */
	size_t edge_capacity;
	bool all_edges; /* not only those to inlined functions */
};

struct cprof_error *cprof_graph_init(struct cprof_graph *graph, const struct cprof_profile *profile,
				     enum cprof_report_by by);
/* Sums up the selected samples over the kept nodes. */
struct cprof_error *cprof_graph_weigh(struct cprof_graph *graph, const bool *selected, size_t type);
/* Sets `inlined` and `called` from the edges of at least `cutoff`. */
void cprof_graph_mark_inlined(struct cprof_graph *graph, int64_t cutoff);
/* "function", "function file:line" or "address function file:line"; the caller frees. */
char *cprof_graph_name(const struct cprof_graph *graph, uint32_t node);
void cprof_graph_deinit(struct cprof_graph *graph);

/* --- small things -------------------------------------------------------------------------- */

static inline int64_t cprof_add_saturating(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return b < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

static inline int64_t cprof_abs(int64_t value)
{
	return value == INT64_MIN ? INT64_MAX : value < 0 ? -value : value;
}

/* The end of a path. */
const char *cprof_base_name(const char *path);
/* Writes text made safe for a terminal. */
void cprof_put_clean(FILE *out, const char *text);
/* Whether everything could be written. */
struct cprof_error *cprof_report_flush(FILE *out);

#endif

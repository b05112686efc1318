/* SPDX-License-Identifier: MIT
 *
 * Nodes chosen and sorted as pprof does: what its top, tree and peek have in common.
 */
#ifndef CPROF_REPORT_TABLE_H
#define CPROF_REPORT_TABLE_H

#include "private.h"

struct cprof_top_row {
	uint32_t node;
	char *name;
};

struct cprof_top {
	const struct cprof_profile *profile;
	const struct cprof_report_options *options;
	struct cprof_graph graph;
	bool *selected;
	bool all_edges;      /* in: who calls whom is wanted */
	int64_t edge_cutoff; /* smaller calls are left out */
	size_t type;
	int64_t total; /* of all samples, selected or not */
	struct cprof_top_row *rows;
	size_t row_count;
	size_t dropped;
	size_t out_of;           /* rows before they were limited */
	const char *unit;        /* of the profile */
	const char *output_unit; /* of the table */
};

/* Fills a table of which profile, options and all_edges are set; to be ended by the other in any
 * case. */
struct cprof_error *cprof_top_fill(struct cprof_top *top);
void cprof_top_deinit(struct cprof_top *top);
/* "File: …" to "Duration: …"; the same with the filters and what is shown. */
void cprof_top_put_labels(FILE *out, const struct cprof_top *top);
void cprof_top_put_header(FILE *out, const struct cprof_top *top);
void cprof_top_put_value(FILE *out, const struct cprof_top *top, int64_t value);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Profiles as text and JSON. All names are made safe for a terminal here.
 */
#ifndef CPROF_REPORT_H
#define CPROF_REPORT_H

#include <cprof/error.h>
#include <cprof/memtrace.h>
#include <cprof/profile.h>
#include <cprof/threads.h>
#include <stdbool.h>
#include <stdio.h>

enum cprof_report_by { CPROF_BY_FUNCTION, CPROF_BY_LINE, CPROF_BY_ADDRESS };

struct cprof_report_options {
	const char *sample_index; /* a value type's name, NULL: the default one */
	const char *focus;        /* regular expressions (POSIX extended) on names, NULL: none */
	const char *ignore;
	bool cum;  /* sort by cum */
	int count; /* rows; 0: the default (all that is not dropped), -1: all */
	enum cprof_report_by by;
	const char *source_path; /* for list: directories, ':' between, NULL none */
	bool difference; /* something was subtracted: its comments do not hold for what is left */
};

/* The table of `pprof -top`: header, "Dropped N nodes", flat flat% sum% cum cum% name. */
struct cprof_error *cprof_report_top(const struct cprof_profile *profile,
				     const struct cprof_report_options *options, FILE *out);
/* Functions with callers and callees, as `pprof -tree`; those that match a regular expression
 * (POSIX extended), as `pprof -peek`. */
struct cprof_error *cprof_report_tree(const struct cprof_profile *profile,
				      const struct cprof_report_options *options, FILE *out);
struct cprof_error *cprof_report_peek(const struct cprof_profile *profile, const char *pattern,
				      const struct cprof_report_options *options, FILE *out);
/* Every stack with its labels, as `pprof -traces`. */
struct cprof_error *cprof_report_traces(const struct cprof_profile *profile,
					const struct cprof_report_options *options, FILE *out);
/* Source lines of the functions that match, with their cost, as `pprof -list`. */
struct cprof_error *cprof_report_list(const struct cprof_profile *profile, const char *pattern,
				      const struct cprof_report_options *options, FILE *out);
/* One JSON object: {"types":[…],"samples":[{"values","labels","frames"}]}. */
struct cprof_error *cprof_report_json(const struct cprof_profile *profile, FILE *out);
/* One line a stack: root;…;leaf VALUE (the selected value type). */
struct cprof_error *cprof_report_folded(const struct cprof_profile *profile,
					const struct cprof_report_options *options, FILE *out);

/*
 * Locks of a mutex profile by how long was waited for them: delay, contentions, mean, longest wait,
 * then for each who held it (the stacks that are charged) and who waited. What only our own files
 * tell, in the comments of cprof_contention_fill(), is "-" for others; label `lock`, if there is
 * one, tells locks apart. `focus` and `ignore` go by the locks' names, sample_index "contentions"
 * sorts by that. A usage error if there are no contentions and delay.
 */
struct cprof_error *cprof_report_locks(const struct cprof_profile *profile,
				       const struct cprof_report_options *options, FILE *out);
/* {"contentions","delay_ns","locks":[{"lock","contentions","delay_ns","mean_ns","longest_ns",
 * "holders":[{"function","contentions","delay_ns"}],"waiters":[{"function","share"}]}]}: absent
 * what is not known; "stacks" where it is not known which; of waiting stacks "waiters" has what
 * "holders" has otherwise. */
struct cprof_error *cprof_report_locks_json(const struct cprof_profile *profile,
					    const struct cprof_report_options *options, FILE *out);

/* Thread dumps. `all`: no grouping of identical stacks. `earlier` (--watch): an earlier dump of the
 * same process, NULL if none: threads that have not moved since are marked. */
struct cprof_report_dump_options {
	const struct cprof_dump *earlier;
	bool all;
	bool color;
};
struct cprof_error *cprof_report_dump(const struct cprof_dump *dump,
				      const struct cprof_report_dump_options *options, FILE *out);
/* One JSON object, all threads singly; `earlier` as above: "not_moved_ns" of each thread. */
struct cprof_error *cprof_report_dump_json(const struct cprof_dump *dump,
					   const struct cprof_dump *earlier, FILE *out);

/* One line an interval, in the shape of Go's gctrace; "?" is unknown, "-" none. MB are 2^20. */
struct cprof_error *cprof_report_memtrace(const struct cprof_memtrace_line *line, FILE *out);
/* One of the CPROF_MEMTRACE_WARN_…, with what was measured and what is worth trying: a line, and
 * one more for each advice. */
struct cprof_error *cprof_report_memtrace_warning(const struct cprof_memtrace_line *line,
						  unsigned warning, FILE *out);

#endif

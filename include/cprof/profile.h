/* SPDX-License-Identifier: MIT
 *
 * The one profile model: interned strings, functions, locations, stacks and label sets; samples
 * are (stack, labels) -> values. It follows profile.proto closely, so that any pprof file fits.
 * The struct may be read freely; it is changed by the functions below only.
 *
 * Every id is an index into its array; id 0 is a reserved "none" (string 0 is ""). Interning never
 * fails: without memory it returns 0 and the profile remembers; ask cprof_profile_check() once.
 */
#ifndef CPROF_PROFILE_H
#define CPROF_PROFILE_H

#include <cprof/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_value_type {
	uint32_t type; /* string id: "cpu" */
	uint32_t unit; /* "nanoseconds" */
};

struct cprof_profile_mapping {
	uint64_t start; /* memory range and file offset, for a reader that symbolizes again */
	uint64_t limit;
	uint64_t offset;
	uint32_t file;     /* string ids */
	uint32_t build_id; /* lower-case hexadecimal */
	bool has_functions;
	bool has_filenames;
	bool has_line_numbers;
	bool has_inline_frames;
};

struct cprof_profile_function {
	uint32_t name; /* string ids */
	uint32_t system_name;
	uint32_t file;
	int64_t start_line;
};

struct cprof_profile_line {
	uint32_t function; /* function id */
	int64_t line;
};

struct cprof_profile_location {
	uint32_t mapping;    /* 0: none */
	uint32_t first_line; /* lines[first_line .. + line_count), inlinees innermost first */
	uint32_t line_count;
	bool named; /* symbolization has been tried */
	bool is_folded;
	uint64_t address; /* as in memory; call sites, not return addresses */
};

struct cprof_profile_label {
	uint32_t key;  /* string ids */
	uint32_t text; /* 0: a number */
	uint32_t unit;
	int64_t number;
};

struct cprof_profile_span { /* of stack_items or label_items */
	uint32_t first;
	uint32_t count;
};

struct cprof_profile_sample {
	uint32_t stack;
	uint32_t labels;
};

struct cprof_profile_index; /* private hash tables */

struct cprof_profile {
	struct cprof_value_type *types; /* from 0, not interned */
	size_t type_count;
	struct cprof_value_type period_type;
	int64_t period;
	int64_t time_ns;       /* wall clock */
	int64_t duration_ns;   /* 0 for a snapshot */
	uint32_t default_type; /* string id of a type, or 0 */
	uint32_t drop_frames;  /* string ids, kept for files of others */
	uint32_t keep_frames;
	uint32_t *comments; /* string ids */
	size_t comment_count;

	const char **strings;
	size_t string_count;
	struct cprof_profile_mapping *mappings;
	size_t mapping_count;
	struct cprof_profile_function *functions;
	size_t function_count;
	struct cprof_profile_location *locations;
	size_t location_count;
	struct cprof_profile_line *lines;
	size_t line_count;
	struct cprof_profile_span *stacks; /* of location ids, innermost first */
	size_t stack_count;
	uint32_t *stack_items;
	size_t stack_item_count;
	struct cprof_profile_span *label_sets;
	size_t label_set_count;
	struct cprof_profile_label *label_items;
	size_t label_item_count;
	struct cprof_profile_sample *samples; /* from 0; each (stack, labels) once */
	size_t sample_count;
	int64_t *values; /* sample i: values[i * type_count ...] */

	struct cprof_profile_index *index;
	bool no_memory;
};

struct cprof_error *cprof_profile_create(struct cprof_profile **profile);
void cprof_profile_destroy(struct cprof_profile *profile);
/* Out of memory, if any call before was. */
struct cprof_error *cprof_profile_check(const struct cprof_profile *profile);

/* Appends a value type; all of them before the first sample. */
void cprof_profile_add_type(struct cprof_profile *profile, const char *type, const char *unit);
void cprof_profile_add_comment(struct cprof_profile *profile, const char *text);

uint32_t cprof_profile_string(struct cprof_profile *profile, const char *text);
/* Ends at a NUL, if there is one in it. */
uint32_t cprof_profile_string_n(struct cprof_profile *profile, const char *text, size_t length);
/* Interned by all but the has_ flags, which are added to those that are there. */
uint32_t cprof_profile_mapping(struct cprof_profile *profile,
			       const struct cprof_profile_mapping *mapping);
uint32_t cprof_profile_function(struct cprof_profile *profile,
				const struct cprof_profile_function *function);
/* Interned by (mapping, address) and, where lines are given at once, by them too. */
uint32_t cprof_profile_location(struct cprof_profile *profile, uint32_t mapping, uint64_t address);
uint32_t cprof_profile_location_with(struct cprof_profile *profile, uint32_t mapping,
				     uint64_t address, const struct cprof_profile_line *lines,
				     size_t count, bool is_folded);
/* Names a location (marks it named even with count 0). */
void cprof_profile_set_lines(struct cprof_profile *profile, uint32_t location,
			     const struct cprof_profile_line *lines, size_t count);
/* A location without address that carries only a name: "[truncated stack]". */
uint32_t cprof_profile_marker(struct cprof_profile *profile, const char *name);
uint32_t cprof_profile_stack(struct cprof_profile *profile, const uint32_t *locations,
			     size_t count);
/* Label sets are equal whatever the order of their labels. */
uint32_t cprof_profile_labels(struct cprof_profile *profile,
			      const struct cprof_profile_label *labels, size_t count);
/* Adds to the values (type_count of them) of a sample, saturating. */
void cprof_profile_add(struct cprof_profile *profile, uint32_t stack, uint32_t labels,
		       const int64_t *values);

/* Adds `scale` times the samples of `source`, whose types must equal `target`'s (an empty target
 * takes them over). Scale -1 subtracts. Samples whose values are all 0 are taken out. Time and
 * duration follow pprof: the earliest, and the sum. After an error `target` is of no use. */
struct cprof_error *cprof_profile_merge(struct cprof_profile *target,
					const struct cprof_profile *source, double scale);
/* Exact: every id stays the same. */
struct cprof_error *cprof_profile_clone(const struct cprof_profile *source,
					struct cprof_profile **copy);
/* A copy with the samples whose flag is set. */
struct cprof_error *cprof_profile_select(const struct cprof_profile *source, const bool *keep,
					 struct cprof_profile **copy);
/* Index of a value type by name, or -1. */
int cprof_profile_find_type(const struct cprof_profile *profile, const char *type);

#endif

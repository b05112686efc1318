/* SPDX-License-Identifier: MIT
 *
 * What the last minutes' samples were: sums of (stack, labels) by slices of time in a ring, so that
 * the profile of the last N seconds costs what these seconds brought and no more. Not locked.
 */
#ifndef CPROF_SESSION_WINDOW_H
#define CPROF_SESSION_WINDOW_H

#include <cprof/profile.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPROF_WINDOW_SLICE_NS 250000000ull
#define CPROF_WINDOW_SLICES   480        /* two minutes */
#define CPROF_WINDOW_ENTRIES  (1u << 20) /* of all slices: 24 MB */

struct cprof_window_entry {
	struct cprof_profile_sample sample;
	uint64_t count;
	uint64_t value;
};

struct cprof_window_slice {
	uint64_t number; /* its time / CPROF_WINDOW_SLICE_NS */
	struct cprof_window_entry *entries;
	size_t count;
	size_t capacity;
	uint64_t lost; /* samples, as the following counted so far when it began */
	uint64_t counted;
};

struct cprof_window {
	struct cprof_window_slice *slices; /* a ring; `next - 1` is the present one */
	size_t slice_count;
	uint64_t first; /* of those that are kept, and one past the last; in order of time */
	uint64_t next;
	size_t entry_count;
	size_t entries_most;
	uint32_t *table; /* of the present slice: index + 1 of an entry */
	size_t table_size;
};

/* Sums over a window. */
struct cprof_window_sum {
	struct cprof_profile_sample *samples; /* (stack, labels) may come more than once */
	int64_t *values;                      /* two of each: count, value */
	size_t count;
	uint64_t from_ns; /* since when all is there; 0: nothing is */
	uint64_t lost;    /* as told to cprof_window_begin() when its first slice began */
	uint64_t counted;
};

/* 0 slices or entries: the numbers above. False without memory. */
bool cprof_window_init(struct cprof_window *window, size_t slices, size_t entries);
void cprof_window_deinit(struct cprof_window *window);
/* The slice of this moment, begun if need be; what is older than all slices is forgotten. `lost`
 * and `counted` are running totals. */
struct cprof_window_slice *cprof_window_begin(struct cprof_window *window, uint64_t time_ns,
					      uint64_t lost, uint64_t counted);
/* Adds to the present slice. False without memory: it is not counted. */
bool cprof_window_add(struct cprof_window *window, uint32_t stack, uint32_t labels, uint64_t count,
		      uint64_t value);
/* All slices that reach into this time. False without memory; to be freed with
 * cprof_window_sum_deinit() in any case. */
bool cprof_window_sum(const struct cprof_window *window, uint64_t since_ns, uint64_t until_ns,
		      struct cprof_window_sum *sum);
void cprof_window_sum_deinit(struct cprof_window_sum *sum);
/* When the present slice began: those before it do not change any more. */
uint64_t cprof_window_present_ns(const struct cprof_window *window);
/* All (stack, labels) in use, `entry_count` of them, for renumbering; and how they come back. */
void cprof_window_list(const struct cprof_window *window, struct cprof_profile_sample *samples);
void cprof_window_renumber(struct cprof_window *window, const struct cprof_profile_sample *samples);

#endif

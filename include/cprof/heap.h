/* SPDX-License-Identifier: MIT
 *
 * Heap accounting: what the agent's ring and live table say, as a profile. Poisson sampling by
 * bytes; each sample counts by Horvitz-Thompson: with gap mean T a block of S bytes is sampled with
 * p = 1 - exp(-(S + 1) / T), and stands for 1 / p objects and S / p bytes. That depends on (S, T)
 * only, so a free takes away exactly what its allocation added. T = 1: p = 1.
 */
#ifndef CPROF_HEAP_H
#define CPROF_HEAP_H

#include <cprof/agent_ring.h>
#include <cprof/builder.h>
#include <cprof/error.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cprof_heap;

struct cprof_heap_stats {
	uint64_t rate; /* now; it may have been raised under pressure */
	/* samples - frees - voided = live_samples, always; those of unwanted threads are nowhere */
	uint64_t samples;          /* records accounted: allocations */
	uint64_t frees;            /* of them */
	uint64_t voided;           /* of them: live at a gap */
	uint64_t lost;             /* beside `samples`: dropped in the target, or malformed here */
	uint64_t ends[CPROF_ENDS]; /* of `samples` */
	uint64_t frames;
	uint64_t unwind_ns;
	uint64_t live_samples;
	uint64_t malformed;   /* records that made no sense */
	uint64_t missed;      /* of `frees`: not seen, an address came twice */
	uint64_t gaps;        /* times the hooks fell silent: the live set before is void */
	double alloc_objects; /* estimates since the start; exact at rate 1 */
	double alloc_bytes;
	double live_objects;
	double live_bytes;
	double peak_bytes; /* highest live_bytes seen at a drain since cprof_heap_stats() last
			    * told it */
};

/* `records` is not owned. `scan_ns`: between looks at the live table; 0: every drain looks. */
struct cprof_error *cprof_heap_create(struct cprof_agent_records *records, uint64_t scan_ns,
				      struct cprof_heap **heap);
void cprof_heap_destroy(struct cprof_heap *heap);
/* Consumes the ring, looks at the live table now and then; tells the hooks that we live
 * (heartbeat). Raises the rate where samples come too fast. Collector thread. Returns how full the
 * ring was, 0 to 1, so that the caller can choose when to come again. */
double cprof_heap_drain(struct cprof_heap *heap);
/* Looks at the live table now, which takes 100 us. */
void cprof_heap_scan(struct cprof_heap *heap);
/* The target has another address space (exec): nothing of what was live is known any more. */
void cprof_heap_void(struct cprof_heap *heap);
/* Resets `peak_bytes`. */
void cprof_heap_stats(struct cprof_heap *heap, struct cprof_heap_stats *stats);

/* A copy of the profile as it stands, to be named: alloc_objects, alloc_space, inuse_objects,
 * inuse_space, as Go's. `rss` (bytes, 0 unknown) is for its comment. */
struct cprof_error *cprof_heap_copy(struct cprof_heap *heap, uint64_t rss,
				    struct cprof_naming **naming);
struct cprof_builder *cprof_heap_builder(struct cprof_heap *heap);

/* 1 / p of a block; the formula above. */
double cprof_heap_weight(uint64_t size, uint64_t rate);

#endif

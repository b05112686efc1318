/* SPDX-License-Identifier: MIT
 *
 * What the files of heap accounting share. Whatever lies in the shared area is read once, into
 * memory of our own, and judged there.
 */
#ifndef CPROF_HEAP_PRIVATE_H
#define CPROF_HEAP_PRIVATE_H

#include <cprof/agent_ring.h>
#include <cprof/heap.h>

#define CPROF_HEAP_RATE_MAX (1ull << 40)

/* --- ring.c: records, in order ------------------------------------------------------------- */

struct cprof_heap_ring {
	struct cprof_agent_shared *shared;
	uint64_t tail;        /* what has been consumed; the shared copy is only written */
	uint64_t published;   /* what the target knows of it */
	uint64_t limit;       /* the head, when the current pass began */
	uint32_t length;      /* of the record last handed out, consumed by the next call */
	uint64_t stuck_at;    /* the tail that an unfinished record holds back … */
	uint64_t stuck_ns;    /* … since then, */
	uint64_t stuck_limit; /* when the head was there */
	uint64_t malformed;
	uint64_t lost;
};

/* A record whose fields are ours and valid; `stack` lies in the ring: fixed.stack_length bytes that
 * may change at any time. Until the next call. */
struct cprof_heap_record {
	struct cprof_agent_record fixed;
	const uint8_t *stack;
};

void cprof_heap_ring_init(struct cprof_heap_ring *ring, struct cprof_agent_shared *shared);
/* Begins a pass over what is there now; how full the ring is, 0 to 1. */
double cprof_heap_ring_begin(struct cprof_heap_ring *ring);
/* The next record of the pass; false: none that is finished. */
bool cprof_heap_ring_next(struct cprof_heap_ring *ring, struct cprof_heap_record *record);

/* --- memo.c: stacks that were unwound before ----------------------------------------------- */

/* What a record's stack was found to be. */
struct cprof_heap_found {
	uint32_t stack; /* id in the profile */
	uint16_t frames;
	uint16_t end; /* enum cprof_end */
};

struct cprof_heap_memo;

struct cprof_error *cprof_heap_memo_create(struct cprof_heap_memo **memo);
void cprof_heap_memo_destroy(struct cprof_heap_memo *memo);
void cprof_heap_memo_flush(struct cprof_heap_memo *memo);
bool cprof_heap_memo_find(const struct cprof_heap_memo *memo,
			  const struct cprof_heap_record *record, struct cprof_heap_found *found);
/* Remembers that unwinding `regs` over `memory` (plain bytes) gave `stack`. */
void cprof_heap_memo_learn(struct cprof_heap_memo *memo, struct cprof_space *space,
			   struct cprof_unwinder *unwinder, const struct cprof_regs *regs,
			   const struct cprof_memory *memory, const struct cprof_stack *stack,
			   const struct cprof_heap_found *found);
/* The registers of a record. */
void cprof_heap_registers(const struct cprof_agent_record *record, struct cprof_regs *regs);

/* --- live.c: what has not been freed ------------------------------------------------------- */

/* Sampled mode: by id. */
struct cprof_heap_sample {
	uint64_t id; /* 0: none */
	uint64_t address;
	double objects;
	double bytes;
	uint32_t stack;
	uint32_t seen; /* 1: found in the shared table by the scan under way */
};

struct cprof_heap_samples {
	struct cprof_heap_sample *slots;
	size_t capacity; /* a power of two, or 0 */
	size_t count;
};

/* False without memory, or if the id is there. */
bool cprof_heap_samples_put(struct cprof_heap_samples *samples,
			    const struct cprof_heap_sample *sample);
/* Keeps those whose id the shared table holds; the number of the others. False without memory:
 * then nothing has changed. */
bool cprof_heap_samples_scan(struct cprof_heap_samples *samples,
			     const struct cprof_agent_shared *shared, size_t *freed);
void cprof_heap_samples_clear(struct cprof_heap_samples *samples);

/* Exact mode: by address. Address and size are below 2^48. */
struct cprof_heap_block {
	uint64_t address : 48; /* 0: none */
	uint64_t stack_low : 16;
	uint64_t size : 48;
	uint64_t stack_high : 16;
};

struct cprof_heap_blocks {
	struct cprof_heap_block *slots;
	size_t capacity; /* a power of two, or 0 */
	size_t count;
};

static inline uint32_t cprof_heap_block_stack(const struct cprof_heap_block *block)
{
	return (uint32_t)block->stack_high << 16 | (uint32_t)block->stack_low;
}

struct cprof_heap_block *cprof_heap_blocks_find(const struct cprof_heap_blocks *blocks,
						uint64_t address);
/* The address must not be there. False without memory, or at the limit. */
bool cprof_heap_blocks_put(struct cprof_heap_blocks *blocks, const struct cprof_heap_block *block);
void cprof_heap_blocks_remove(struct cprof_heap_blocks *blocks, struct cprof_heap_block *block);
void cprof_heap_blocks_clear(struct cprof_heap_blocks *blocks);

/* --- heap.c -------------------------------------------------------------------------------- */

/* Sums of one stack; all exact at rate 1 (up to 2^53). */
struct cprof_heap_account {
	double alloc_objects;
	double alloc_bytes;
	double live_objects; /* exact mode; in sampled mode summed up when it is asked for */
	double live_bytes;
};

/* The last frees in exact mode, by address: one of them may turn out not to have happened. */
#define CPROF_HEAP_UNDO 4096u

struct cprof_heap {
	struct cprof_heap_config config;
	struct cprof_builder *builder;
	bool exact;
	uint32_t epoch;
	struct cprof_heap_ring ring;
	struct cprof_heap_memo *memo; /* exact mode, as the next */
	struct cprof_heap_samples samples;
	struct cprof_heap_blocks blocks;
	struct cprof_heap_block *undo; /* exact mode */

	struct cprof_heap_account *accounts; /* by stack id */
	size_t account_count;
	size_t account_capacity;
	uint32_t overflow_stack; /* "[too many stacks]"; 0: not made yet */

	/* The agent's counters when last looked at. */
	struct cprof_heap_counters {
		uint64_t dropped;
		uint64_t dropped_bytes;
		uint64_t table_full;
		uint64_t missed_frees;
		uint64_t quiet;
	} counters;
	uint64_t lost_bytes; /* exact mode */
	size_t crowd;        /* live samples at which the rate is raised */
	uint64_t refreshed_ns;
	struct cprof_heap_stats stats;
	struct cprof_frame frames[CPROF_FRAMES_SAMPLE];
	uint8_t stack[CPROF_AGENT_STACK_MAX];
};

/* stacks.c: what a record's stack is; memory of ours is bounded whatever stacks there are. */
void cprof_heap_stack(struct cprof_heap *heap, const struct cprof_heap_record *record,
		      struct cprof_heap_found *found);

/* profile.c: what the profile is of. */
struct cprof_error *cprof_heap_describe(struct cprof_heap *heap);

/* A counter that only rises, written by the target. */
static inline uint64_t cprof_heap_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif

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

/* A record whose fields are ours and valid; `stack` lies in the ring: fixed.stack_length bytes that
 * may change at any time. Until the next call. */
struct cprof_heap_record {
	struct cprof_agent_record fixed;
	const uint8_t *stack;
};

void cprof_heap_ring_init(struct cprof_agent_ring *ring, struct cprof_agent_shared *shared);
/* The next record of the pass; false: none that is finished. */
bool cprof_heap_ring_next(struct cprof_agent_ring *ring, struct cprof_heap_record *record);

/* --- seen.c: stacks that the agent need not copy again ------------------------------------- */

struct cprof_heap_seen {
	struct cprof_agent_shared *shared;
	size_t used; /* words of the area */
	uint32_t sequence;
	uint32_t generation; /* since when what is told is there, from 1 */
	uint64_t cleared_ns;
	uint32_t heads[1u << CPROF_AGENT_SEEN_BITS]; /* what was written there */
};

void cprof_heap_seen_init(struct cprof_heap_seen *seen, struct cprof_agent_shared *shared);
/* The agent forgets all. */
void cprof_heap_seen_clear(struct cprof_heap_seen *seen);
/* False: the agent cannot be told such a word of a stack. */
bool cprof_heap_seen_word(uint64_t value, uint64_t offset, uint64_t *word);
/* False: there is no room. May clear before. */
bool cprof_heap_seen_tell(struct cprof_heap_seen *seen, const struct cprof_agent_seen *entry,
			  const uint64_t *words);

/* --- memo.c: stacks that were unwound before ----------------------------------------------- */

/* What a record's stack was found to be. */
struct cprof_heap_found {
	uint32_t stack; /* id in the profile */
	uint16_t frames;
	uint16_t end; /* enum cprof_end */
};

struct cprof_heap_memo;

struct cprof_error *cprof_heap_memo_create(struct cprof_agent_shared *shared,
					   struct cprof_heap_memo **memo);
void cprof_heap_memo_destroy(struct cprof_heap_memo *memo);
void cprof_heap_memo_flush(struct cprof_heap_memo *memo);
/* What is found is also told to the agent, if `tell`. */
bool cprof_heap_memo_find(struct cprof_heap_memo *memo, const struct cprof_heap_record *record,
			  bool tell, struct cprof_heap_found *found);
/* Remembers what unwinding the last record gave. */
void cprof_heap_memo_learn(struct cprof_heap_memo *memo, const struct cprof_agent_records *records,
			   const struct cprof_heap_found *found);

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
	uint16_t frames; /* exact mode: what is told again of a stack that was seen before */
	uint16_t end;
};

/* The last frees in exact mode, by address: one of them may turn out not to have happened. */
#define CPROF_HEAP_UNDO 4096u

struct cprof_heap {
	struct cprof_agent_records *records;
	uint64_t scan_ns;
	struct cprof_builder *builder;
	bool exact;
	uint32_t epoch;
	struct cprof_agent_ring ring;
	struct cprof_heap_memo *memo; /* exact mode, as the next */
	struct cprof_heap_samples samples;
	struct cprof_heap_blocks blocks;
	struct cprof_heap_block *undo; /* exact mode */

	struct cprof_heap_account *accounts; /* by stack id */
	size_t account_count;
	size_t account_capacity;

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
	uint64_t scanned_ns;
	uint64_t least_rate; /* what was asked for: it may be more */
	uint64_t paced_ns;
	uint64_t paced_samples; /* since then */
	uint64_t generation;    /* of the address space that the memo knows */
	struct cprof_heap_stats stats;
};

/* profile.c: what the profile is of. */
struct cprof_error *cprof_heap_describe(struct cprof_heap *heap);

/* A counter that only rises, written by the target. */
static inline uint64_t cprof_heap_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif

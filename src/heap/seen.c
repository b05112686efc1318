/* SPDX-License-Identifier: MIT
 *
 * Stacks that were met again, told to the agent: it then says which it was instead of copying it.
 * Never read back: the target may write there.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define AREA_WORDS (CPROF_AGENT_SEEN_AREA / 8)
#define AGAIN_NS   1000000000ull /* a full table is emptied at most this often */
#define PLACE_BITS 48

_Static_assert(sizeof(struct cprof_agent_seen_table) ==
		       CPROF_AGENT_BUCKETS * sizeof(struct cprof_agent_bucket),
	       "in place of the live table");

void cprof_heap_seen_init(struct cprof_heap_seen *seen, struct cprof_agent_shared *shared)
{
	*seen = (struct cprof_heap_seen){.shared = shared};
	seen->sequence = __atomic_load_n(&shared->seen_sequence, __ATOMIC_RELAXED) & ~1u;
	cprof_heap_seen_clear(seen);
}

void cprof_heap_seen_clear(struct cprof_heap_seen *seen)
{
	struct cprof_agent_shared *shared = seen->shared;

	__atomic_store_n(&shared->seen_sequence, seen->sequence + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (size_t i = 0; i < CPROF_COUNT(shared->seen.heads); i++)
		__atomic_store_n(&shared->seen.heads[i], 0, __ATOMIC_RELAXED);
	memset(seen->heads, 0, sizeof(seen->heads));
	seen->used = 0;
	seen->sequence += 2;
	seen->generation++;
	seen->cleared_ns = cprof_now_ns();
	__atomic_store_n(&shared->seen_sequence, seen->sequence, __ATOMIC_RELEASE);
}

bool cprof_heap_seen_word(uint64_t value, uint64_t offset, uint64_t *word)
{
	if (value >> PLACE_BITS || offset % 8 || offset >= CPROF_AGENT_STACK_MAX)
		return false;
	*word = value | offset / 8 << PLACE_BITS;
	return true;
}

bool cprof_heap_seen_tell(struct cprof_heap_seen *seen, const struct cprof_agent_seen *entry,
			  const uint64_t *words)
{
	size_t size = sizeof(*entry) / 8 + entry->count;
	uint32_t bucket = (uint32_t)(((entry->pc + entry->sp * 3) * CPROF_AGENT_HASH) >>
				     (64 - CPROF_AGENT_SEEN_BITS));
	struct cprof_agent_seen *place;

	if (seen->used + size > AREA_WORDS) {
		if (size > AREA_WORDS || cprof_now_ns() < seen->cleared_ns + AGAIN_NS)
			return false;
		cprof_heap_seen_clear(seen);
	}
	place = (struct cprof_agent_seen *)&seen->shared->seen.area[seen->used];
	*place = *entry;
	place->next = seen->heads[bucket];
	memcpy(place->words, words, entry->count * sizeof(*words));
	seen->heads[bucket] = (uint32_t)seen->used + 1;
	__atomic_store_n(&seen->shared->seen.heads[bucket], seen->heads[bucket], __ATOMIC_RELEASE);
	seen->used += size;
	return true;
}

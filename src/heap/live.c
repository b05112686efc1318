/* SPDX-License-Identifier: MIT
 *
 * What is live. Sampled: the target's own table says which ids are; ours knows their stacks. Exact:
 * a table of addresses, kept by the records of allocations and frees.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define MINIMUM_SLOTS 1024u
#define BLOCK_SLOTS   (1u << 24) /* 256 MB: 12 million blocks */

/* --- samples ------------------------------------------------------------------------------- */

/* The slot of an id, or the free one where it belongs. */
static struct cprof_heap_sample *sample_slot(const struct cprof_heap_samples *samples, uint64_t id)
{
	size_t mask = samples->capacity - 1;

	for (size_t i = cprof_hash_u64(id) & mask;; i = (i + 1) & mask)
		if (samples->slots[i].id == id || !samples->slots[i].id)
			return &samples->slots[i];
}

/* Moves all (or only those seen) to a table with room for twice as many. */
static bool rebuild(struct cprof_heap_samples *samples, size_t count, bool all)
{
	struct cprof_heap_samples next = {.capacity = MINIMUM_SLOTS};

	while (next.capacity < 2 * count)
		next.capacity *= 2;
	next.slots = calloc(next.capacity, sizeof(*next.slots));
	if (!next.slots)
		return false;
	for (size_t i = 0; i < samples->capacity; i++) {
		const struct cprof_heap_sample *sample = &samples->slots[i];

		if (sample->id && (all || sample->seen)) {
			struct cprof_heap_sample *slot = sample_slot(&next, sample->id);

			*slot = *sample;
			slot->seen = 0;
			next.count++;
		}
	}
	free(samples->slots);
	*samples = next;
	return true;
}

bool cprof_heap_samples_put(struct cprof_heap_samples *samples,
			    const struct cprof_heap_sample *sample)
{
	struct cprof_heap_sample *slot;

	if (4 * (samples->count + 1) > 3 * samples->capacity &&
	    !rebuild(samples, samples->count + 1, true))
		return false;
	slot = sample_slot(samples, sample->id);
	if (slot->id)
		return false;
	*slot = *sample;
	samples->count++;
	return true;
}

/* The sample that a way of the table holds. A BUSY entry is taken as it stands: what a realloc may
 * yet keep lives, and what it frees is missing the next time; so it is with an id that was read
 * while its address was freed and came back. */
static struct cprof_heap_sample *held(const struct cprof_heap_samples *samples,
				      const struct cprof_agent_bucket *bucket, unsigned way)
{
	uint64_t key = __atomic_load_n(&bucket->keys[way], __ATOMIC_ACQUIRE);
	uint64_t id = key ? __atomic_load_n(&bucket->entries[way].id, __ATOMIC_RELAXED) : 0;
	struct cprof_heap_sample *sample = id ? sample_slot(samples, id) : NULL;

	return sample && sample->id && sample->address == (key & ~CPROF_AGENT_KEY_BUSY) ? sample
											: NULL;
}

bool cprof_heap_samples_scan(struct cprof_heap_samples *samples,
			     const struct cprof_agent_shared *shared, size_t *freed)
{
	size_t count = samples->count;
	size_t seen = 0;

	*freed = 0;
	if (!count)
		return true;
	for (size_t i = 0; i < CPROF_AGENT_BUCKETS; i++) {
		for (unsigned way = 0; way < CPROF_AGENT_BUCKET_WAYS; way++) {
			struct cprof_heap_sample *sample = held(samples, &shared->table[i], way);

			if (!sample || sample->seen)
				continue;
			sample->seen = 1;
			seen++;
		}
	}
	if (!rebuild(samples, seen, false)) {
		for (size_t i = 0; i < samples->capacity; i++)
			samples->slots[i].seen = 0;
		return false;
	}
	*freed = count - seen;
	return true;
}

void cprof_heap_samples_clear(struct cprof_heap_samples *samples)
{
	free(samples->slots);
	*samples = (struct cprof_heap_samples){0};
}

/* --- blocks -------------------------------------------------------------------------------- */

static size_t block_home(const struct cprof_heap_blocks *blocks, uint64_t address)
{
	return cprof_hash_u64(address) & (blocks->capacity - 1);
}

/* The slot of an address, or the free one where it belongs. */
static struct cprof_heap_block *block_slot(const struct cprof_heap_blocks *blocks, uint64_t address)
{
	size_t mask = blocks->capacity - 1;

	for (size_t i = block_home(blocks, address);; i = (i + 1) & mask)
		if (blocks->slots[i].address == address || !blocks->slots[i].address)
			return &blocks->slots[i];
}

struct cprof_heap_block *cprof_heap_blocks_find(const struct cprof_heap_blocks *blocks,
						uint64_t address)
{
	struct cprof_heap_block *slot;

	if (!blocks->count)
		return NULL;
	slot = block_slot(blocks, address);
	return slot->address ? slot : NULL;
}

static bool grow(struct cprof_heap_blocks *blocks)
{
	struct cprof_heap_blocks next = {.count = blocks->count};

	next.capacity = blocks->capacity ? 2 * blocks->capacity : MINIMUM_SLOTS;
	if (next.capacity > BLOCK_SLOTS)
		return false;
	next.slots = calloc(next.capacity, sizeof(*next.slots));
	if (!next.slots)
		return false;
	for (size_t i = 0; i < blocks->capacity; i++)
		if (blocks->slots[i].address)
			*block_slot(&next, blocks->slots[i].address) = blocks->slots[i];
	free(blocks->slots);
	*blocks = next;
	return true;
}

bool cprof_heap_blocks_put(struct cprof_heap_blocks *blocks, const struct cprof_heap_block *block)
{
	if (4 * (blocks->count + 1) > 3 * blocks->capacity && !grow(blocks))
		return false;
	*block_slot(blocks, block->address) = *block;
	blocks->count++;
	return true;
}

/* What follows moves up into the hole, where it may (Knuth, volume 3, algorithm 6.4 R). */
void cprof_heap_blocks_remove(struct cprof_heap_blocks *blocks, struct cprof_heap_block *block)
{
	size_t mask = blocks->capacity - 1;
	size_t hole = (size_t)(block - blocks->slots);

	for (size_t i = (hole + 1) & mask; blocks->slots[i].address; i = (i + 1) & mask) {
		size_t home = block_home(blocks, blocks->slots[i].address);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			blocks->slots[hole] = blocks->slots[i];
			hole = i;
		}
	}
	memset(&blocks->slots[hole], 0, sizeof(blocks->slots[hole]));
	blocks->count--;
}

void cprof_heap_blocks_clear(struct cprof_heap_blocks *blocks)
{
	free(blocks->slots);
	*blocks = (struct cprof_heap_blocks){0};
}

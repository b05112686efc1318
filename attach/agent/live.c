/* SPDX-License-Identifier: MIT
 *
 * The table of live samples and the filter before it.
 */
#include "agent.h"

static uint64_t hash(uint64_t address)
{
	return address * CPROF_AGENT_HASH;
}

static struct cprof_agent_bucket *bucket_of(uint64_t address)
{
	return &SHARED->table[hash(address) >> (64 - CPROF_AGENT_BUCKET_BITS)];
}

static void filter_change(uint64_t address, int step)
{
	uint8_t *count =
		&PRIVATE->filter[(address >> CPROF_AGENT_FILTER_SHIFT) % CPROF_AGENT_FILTER];
	uint8_t old = LOAD(count);

	while (old != 255 && !(old == 0 && step < 0) && !SWAP(count, &old, (uint8_t)(old + step)))
		;
}

static uint64_t *find(struct cprof_agent_bucket *bucket, uint64_t from, uint64_t to)
{
	for (uint32_t i = 0; i < CPROF_AGENT_BUCKET_WAYS; i++) {
		uint64_t expected = from;

		if (LOAD(&bucket->keys[i]) == from && SWAP(&bucket->keys[i], &expected, to))
			return &bucket->keys[i];
	}
	return NULL;
}

uint64_t *cprof_agent_live_claim(uint64_t address)
{
	struct cprof_agent_bucket *bucket = bucket_of(address);
	uint64_t *key = find(bucket, address, address | CPROF_AGENT_KEY_BUSY);

	if (key) {
		/* It cannot be live twice: its free went past us. */
		ADD(&SHARED->missed_frees, 1);
		return key;
	}
	key = find(bucket, 0, address | CPROF_AGENT_KEY_BUSY);
	if (key)
		filter_change(address, 1);
	else
		ADD(&SHARED->table_full, 1);
	return key;
}

void cprof_agent_live_publish(uint64_t *key, uint64_t id, uint64_t size, uint64_t rate)
{
	struct cprof_agent_bucket *bucket = bucket_of(*key & ~CPROF_AGENT_KEY_BUSY);
	struct cprof_agent_live *live = &bucket->entries[key - bucket->keys];

	STORE(&live->id, id);
	STORE(&live->size, size);
	STORE(&live->rate, rate);
	STORE(key, *key & ~CPROF_AGENT_KEY_BUSY);
}

void cprof_agent_live_release(uint64_t *key)
{
	filter_change(*key & ~CPROF_AGENT_KEY_BUSY, -1);
	STORE(key, 0);
}

uint64_t *cprof_agent_live_take(uint64_t address)
{
	return find(bucket_of(address), address, address | CPROF_AGENT_KEY_BUSY);
}

void cprof_agent_live_restore(uint64_t *key)
{
	STORE(key, *key & ~CPROF_AGENT_KEY_BUSY);
}

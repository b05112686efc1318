/* SPDX-License-Identifier: MIT
 *
 * Heap accounting: what records, the live table and the agent's counters mean.
 */
#include "private.h"

#include <cprof/util.h>
#include <math.h>
#include <string.h>

#define LIVE_ROOM (CPROF_AGENT_BUCKETS * CPROF_AGENT_BUCKET_WAYS)
#define LIVE_FULL (LIVE_ROOM / 10 * 7) /* then the rate is raised */
#define RING_FULL 0.75
/* Samples a second that are enough for any profile: from there on they cost the target more than
 * they tell. Half a gigabyte a second makes a thousand at the usual rate. */
#define SAMPLES_MOST 8192
#define PACE_NS      100000000ull

double cprof_heap_weight(uint64_t size, uint64_t rate)
{
	if (rate <= 1)
		return 1;
	return -1 / expm1(-((double)size + 1) / (double)rate);
}

/* --- records ------------------------------------------------------------------------------- */

static struct cprof_heap_account *account_of(struct cprof_heap *heap, uint32_t stack)
{
	size_t old = heap->account_capacity;

	if (stack >= heap->account_capacity) {
		if (!cprof_grow(&heap->accounts, &heap->account_capacity, (size_t)stack + 1,
				sizeof(*heap->accounts)))
			return NULL;
		memset(heap->accounts + old, 0,
		       (heap->account_capacity - old) * sizeof(*heap->accounts));
	}
	heap->account_count = CPROF_MAX(heap->account_count, (size_t)stack + 1);
	return &heap->accounts[stack];
}

static void forget_block(struct cprof_heap *heap, struct cprof_heap_block *block)
{
	struct cprof_heap_account *account = &heap->accounts[cprof_heap_block_stack(block)];

	account->live_objects--;
	account->live_bytes -= (double)block->size;
	heap->stats.live_objects--;
	heap->stats.live_bytes -= (double)block->size;
	heap->stats.frees++;
	heap->undo[cprof_hash_u64(block->address) % CPROF_HEAP_UNDO] = *block;
	cprof_heap_blocks_remove(&heap->blocks, block);
}

static bool keep_block(struct cprof_heap *heap, const struct cprof_agent_record *record,
		       uint32_t stack)
{
	struct cprof_heap_block block = {.address = record->address,
					 .size = record->size,
					 .stack_low = stack & 0xffff,
					 .stack_high = stack >> 16};

	if (!cprof_heap_blocks_put(&heap->blocks, &block))
		return false;
	heap->accounts[stack].live_objects++;
	heap->accounts[stack].live_bytes += (double)record->size;
	heap->stats.live_objects++;
	heap->stats.live_bytes += (double)record->size;
	return true;
}

static bool keep_sample(struct cprof_heap *heap, const struct cprof_agent_record *record,
			uint32_t stack, double weight)
{
	struct cprof_heap_sample sample = {.id = record->id,
					   .address = record->address,
					   .objects = weight,
					   .bytes = weight * (double)record->size,
					   .stack = stack};

	return cprof_heap_samples_put(&heap->samples, &sample);
}

/* What was remembered of an earlier address space is forgotten, here and by the agent. */
static void keep_up(struct cprof_heap *heap)
{
	if (!heap->memo || heap->generation == heap->records->generation)
		return;
	heap->generation = heap->records->generation;
	cprof_heap_memo_flush(heap->memo);
}

/* While there are too many stacks the agent's word for one would not say what it was. */
static void unwind(struct cprof_heap *heap, const struct cprof_heap_record *record,
		   struct cprof_heap_found *found)
{
	struct cprof_agent_records *records = heap->records;

	keep_up(heap);
	if (heap->memo &&
	    cprof_heap_memo_find(heap->memo, record, !cprof_builder_is_full(heap->builder), found))
		return;
	heap->stats.unwind_ns += cprof_agent_records_unwind(records, &record->fixed, record->stack);
	*found = (struct cprof_heap_found){
		.stack = cprof_builder_stack(heap->builder, NULL, 0, &records->stack),
		.frames = (uint16_t)records->stack.count,
		.end = (uint16_t)records->stack.end};
	if (heap->memo)
		cprof_heap_memo_learn(heap->memo, records, found);
}

/* What the record says its stack is; false: it lies. */
static bool find_stack(struct cprof_heap *heap, const struct cprof_heap_record *record,
		       struct cprof_heap_found *found)
{
	const struct cprof_heap_account *account;
	uint64_t stack = record->fixed.id;

	if (record->fixed.type != CPROF_AGENT_RECORD_SEEN) {
		unwind(heap, record, found);
		return true;
	}
	if (!heap->exact || stack >= heap->account_count)
		return false;
	account = &heap->accounts[stack];
	if (!(account->alloc_objects > 0))
		return false;
	*found = (struct cprof_heap_found){
		.stack = (uint32_t)stack, .frames = account->frames, .end = account->end};
	return true;
}

static void on_alloc(struct cprof_heap *heap, const struct cprof_heap_record *record)
{
	const struct cprof_agent_record *fixed = &record->fixed;
	double weight = heap->exact ? 1 : cprof_heap_weight(fixed->size, fixed->rate);
	struct cprof_heap_block *block = cprof_heap_blocks_find(&heap->blocks, fixed->address);
	struct cprof_heap_account *account;
	struct cprof_heap_found found;

	heap->paced_samples++;
	if (block) { /* its free was not seen */
		heap->stats.missed++;
		forget_block(heap, block);
	}
	if (!cprof_agent_records_want(heap->records, fixed->tid))
		return;
	if (!find_stack(heap, record, &found)) {
		heap->ring.malformed++;
		heap->ring.lost++;
		return;
	}
	account = account_of(heap, found.stack);
	if (!account || !(heap->exact ? keep_block(heap, fixed, found.stack)
				      : keep_sample(heap, fixed, found.stack, weight))) {
		heap->stats.lost++;
		heap->lost_bytes += fixed->size;
		return;
	}
	account->frames = found.frames;
	account->end = found.end;
	heap->stats.samples++;
	heap->stats.ends[found.end]++;
	heap->stats.frames += found.frames;
	heap->stats.alloc_objects += weight;
	heap->stats.alloc_bytes += weight * (double)fixed->size;
	account->alloc_objects += weight;
	account->alloc_bytes += weight * (double)fixed->size;
}

/* A free that did not happen after all. */
static void on_keep(struct cprof_heap *heap, uint64_t address)
{
	struct cprof_heap_block *block = &heap->undo[cprof_hash_u64(address) % CPROF_HEAP_UNDO];
	struct cprof_agent_record record = {.address = address, .size = block->size};

	if (block->address != address || cprof_heap_blocks_find(&heap->blocks, address))
		return;
	if (keep_block(heap, &record, cprof_heap_block_stack(block)))
		heap->stats.frees--;
	memset(block, 0, sizeof(*block));
}

static void on_record(struct cprof_heap *heap, const struct cprof_heap_record *record)
{
	struct cprof_heap_block *block;

	if (record->fixed.type == CPROF_AGENT_RECORD_ALLOC) {
		cprof_agent_records_note(heap->records, &record->fixed);
		on_alloc(heap, record);
	} else if (record->fixed.type == CPROF_AGENT_RECORD_SEEN) {
		on_alloc(heap, record);
	} else if (!heap->exact) {
		heap->ring.malformed++; /* frees are read from the live table */
	} else if (record->fixed.type == CPROF_AGENT_RECORD_KEEP) {
		on_keep(heap, record->fixed.address);
	} else {
		block = cprof_heap_blocks_find(&heap->blocks, record->fixed.address);
		if (block) /* else it was there before us */
			forget_block(heap, block);
	}
}

/* --- the agent's counters ------------------------------------------------------------------ */

static void read_counters(const struct cprof_heap *heap, struct cprof_heap_counters *counters)
{
	const struct cprof_agent_shared *shared = heap->records->shared;

	counters->dropped = cprof_heap_counter(&shared->dropped);
	counters->dropped_bytes = cprof_heap_counter(&shared->dropped_bytes);
	counters->table_full = cprof_heap_counter(&shared->table_full);
	counters->missed_frees = cprof_heap_counter(&shared->missed_frees);
	counters->quiet = cprof_heap_counter(&shared->quiet);
}

/* The hooks slept, and frees were not seen: nobody knows what lives of what there was. */
static void on_gap(struct cprof_heap *heap)
{
	heap->stats.gaps++;
	heap->stats.voided += heap->exact ? heap->blocks.count : heap->samples.count;
	cprof_heap_samples_clear(&heap->samples);
	cprof_heap_blocks_clear(&heap->blocks);
	if (heap->undo)
		memset(heap->undo, 0, CPROF_HEAP_UNDO * sizeof(*heap->undo));
	for (size_t i = 0; i < heap->account_count; i++)
		heap->accounts[i].live_objects = heap->accounts[i].live_bytes = 0;
	heap->stats.live_objects = heap->stats.live_bytes = 0;
}

void cprof_heap_void(struct cprof_heap *heap)
{
	on_gap(heap);
}

/* Whether samples were dropped in the target for want of room in the ring. */
static bool on_counters(struct cprof_heap *heap)
{
	const struct cprof_heap_counters before = heap->counters;
	const struct cprof_heap_counters *now = &heap->counters;

	read_counters(heap, &heap->counters);
	heap->stats.lost += now->dropped - before.dropped + now->table_full - before.table_full;
	heap->lost_bytes += now->dropped_bytes - before.dropped_bytes;
	heap->stats.missed += now->missed_frees - before.missed_frees;
	if (now->quiet != before.quiet)
		on_gap(heap);
	return now->dropped != before.dropped;
}

/* --- drain --------------------------------------------------------------------------------- */

void cprof_heap_scan(struct cprof_heap *heap)
{
	size_t freed;

	if (heap->exact)
		return;
	heap->scanned_ns = cprof_now_ns();
	if (!cprof_heap_samples_scan(&heap->samples, heap->records->shared, &freed))
		return; /* no memory: the next scan will see to it */
	heap->stats.frees += freed;
	heap->stats.live_objects = heap->stats.live_bytes = 0;
	for (size_t i = 0; i < heap->samples.capacity; i++) {
		heap->stats.live_objects += heap->samples.slots[i].objects;
		heap->stats.live_bytes += heap->samples.slots[i].bytes;
	}
}

static void set_rate(struct cprof_heap *heap, uint64_t rate)
{
	heap->stats.rate = rate;
	heap->epoch = heap->epoch == UINT32_MAX ? 1 : heap->epoch + 1;
	__atomic_store_n(&heap->records->shared->rate, rate, __ATOMIC_RELAXED);
	__atomic_store_n(&heap->records->shared->epoch, heap->epoch, __ATOMIC_RELEASE);
}

/* Half as many where samples come faster than they can be kept, or than anybody needs; twice as
 * many again where they have become few. Blocks that live already stay in the table: with each
 * raise the threshold moves a quarter of the way to its end. */
static void adapt(struct cprof_heap *heap, bool pressed)
{
	bool crowded = heap->samples.count > heap->crowd;
	uint64_t now = cprof_now_ns();
	uint64_t most = (now - heap->paced_ns) / (1000000000u / SAMPLES_MOST);
	bool idle = false;

	if (now >= heap->paced_ns + PACE_NS) {
		pressed |= heap->paced_samples > most;
		idle = heap->paced_samples < most / 4;
		heap->paced_samples = 0;
		heap->paced_ns = now;
	}
	if (crowded)
		heap->crowd = heap->samples.count + (LIVE_ROOM - heap->samples.count) / 4;
	else if (heap->samples.count < LIVE_FULL)
		heap->crowd = LIVE_FULL;
	if ((pressed || crowded) && heap->stats.rate <= CPROF_HEAP_RATE_MAX / 2)
		set_rate(heap, heap->stats.rate * 2);
	else if (idle && heap->samples.count < LIVE_FULL / 2 && heap->stats.rate > heap->least_rate)
		set_rate(heap, CPROF_MAX(heap->stats.rate / 2, heap->least_rate));
}

double cprof_heap_drain(struct cprof_heap *heap)
{
	double full = cprof_agent_ring_begin(&heap->ring);
	struct cprof_heap_record record;
	bool dropped;

	keep_up(heap);
	while (cprof_heap_ring_next(&heap->ring, &record))
		on_record(heap, &record);
	if (cprof_now_ns() >= heap->scanned_ns + heap->scan_ns || heap->samples.count > heap->crowd)
		cprof_heap_scan(heap);
	dropped = on_counters(heap);
	if (!heap->exact)
		adapt(heap, dropped || full > RING_FULL);
	heap->stats.peak_bytes = CPROF_MAX(heap->stats.peak_bytes, heap->stats.live_bytes);
	cprof_agent_records_answer(heap->records);
	return full;
}

void cprof_heap_stats(struct cprof_heap *heap, struct cprof_heap_stats *stats)
{
	*stats = heap->stats;
	stats->lost += heap->ring.lost;
	stats->malformed += heap->ring.malformed;
	/* Sizes beyond 2^53 together, which only a liar has, are not exact. */
	stats->live_bytes = CPROF_MAX(stats->live_bytes, 0.0);
	stats->live_samples = heap->exact ? heap->blocks.count : heap->samples.count;
	heap->stats.peak_bytes = heap->stats.live_bytes;
}

/* --- life ---------------------------------------------------------------------------------- */

static struct cprof_error *create_exact(struct cprof_heap *heap)
{
	heap->undo = calloc(CPROF_HEAP_UNDO, sizeof(*heap->undo));
	if (!heap->undo)
		return cprof_error_nomem();
	return cprof_heap_memo_create(heap->records->shared, &heap->memo);
}

struct cprof_error *cprof_heap_create(struct cprof_agent_records *records, uint64_t scan_ns,
				      struct cprof_heap **result)
{
	struct cprof_heap *heap = calloc(1, sizeof(*heap));
	struct cprof_error *error = NULL;

	*result = NULL;
	if (!heap)
		return cprof_error_nomem();
	heap->records = records;
	heap->scan_ns = scan_ns;
	heap->generation = records->generation;
	heap->stats.rate =
		CPROF_MIN(cprof_heap_counter(&records->shared->rate), CPROF_HEAP_RATE_MAX);
	heap->exact = heap->stats.rate <= 1;
	heap->epoch = __atomic_load_n(&records->shared->epoch, __ATOMIC_RELAXED);
	heap->crowd = LIVE_FULL;
	heap->least_rate = heap->stats.rate;
	heap->paced_ns = cprof_now_ns();
	cprof_heap_ring_init(&heap->ring, records->shared);
	read_counters(heap, &heap->counters);
	if (heap->exact)
		error = create_exact(heap);
	if (!error)
		error = cprof_builder_create(records->modules, records->space, &heap->builder);
	if (!error)
		error = cprof_heap_describe(heap);
	if (error) {
		cprof_heap_destroy(heap);
		return error;
	}
	*result = heap;
	return NULL;
}

void cprof_heap_destroy(struct cprof_heap *heap)
{
	if (!heap)
		return;
	cprof_heap_samples_clear(&heap->samples);
	cprof_heap_blocks_clear(&heap->blocks);
	cprof_heap_memo_destroy(heap->memo);
	cprof_builder_destroy(heap->builder);
	free(heap->undo);
	free(heap->accounts);
	free(heap);
}

struct cprof_builder *cprof_heap_builder(struct cprof_heap *heap)
{
	return heap->builder;
}

/* SPDX-License-Identifier: MIT
 *
 * The ring's reader. Head, lengths, stamps and records may be anything and change at any moment:
 * a pass ends at the head that was read when it began, goes forward only and never past the ring's
 * size; what makes no sense is counted and skipped.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define RING_SIZE    ((uint64_t)CPROF_AGENT_RING_SIZE)
#define PUBLISH_STEP (64u << 10) /* a target that waits for room is told of it so often */
#define STUCK_NS     1000000000ull

_Static_assert((RING_SIZE & (RING_SIZE - 1)) == 0, "positions are masked");

/* Of the ring's bytes, which have no other type. */
typedef uint64_t __attribute__((may_alias)) ring_word;

static void publish(struct cprof_heap_ring *ring)
{
	ring->published = ring->tail;
	__atomic_store_n(&ring->shared->tail, ring->tail, __ATOMIC_RELEASE);
}

void cprof_heap_ring_init(struct cprof_heap_ring *ring, struct cprof_agent_shared *shared)
{
	*ring = (struct cprof_heap_ring){.shared = shared, .stuck_at = UINT64_MAX};
	ring->tail = cprof_heap_counter(&shared->tail) & ~7ull;
	ring->limit = ring->tail;
	ring->published = ring->tail;
}

/* All that is left of this pass is given up. */
static void resynchronize(struct cprof_heap_ring *ring)
{
	ring->tail = ring->limit;
	ring->malformed++;
	ring->lost++;
}

double cprof_heap_ring_begin(struct cprof_heap_ring *ring)
{
	uint64_t head = __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE);

	ring->limit = head & ~7ull;
	if (head % 8 || ring->limit - ring->tail > RING_SIZE) {
		resynchronize(ring);
		publish(ring);
	}
	return (double)(ring->limit - ring->tail) / (double)RING_SIZE;
}

/* Whether the record at the tail has been unfinished for so long that its writer will never come
 * back. Where nothing was written behind it meanwhile the whole target may be stopped: no hurry. */
static bool stuck(struct cprof_heap_ring *ring)
{
	uint64_t now = cprof_now_ns();

	if (ring->stuck_at != ring->tail) {
		ring->stuck_at = ring->tail;
		ring->stuck_ns = now;
		ring->stuck_limit = ring->limit;
		return false;
	}
	return ring->limit != ring->stuck_limit && now - ring->stuck_ns > STUCK_NS;
}

/* Copies the record and says whether it makes sense. `length` is within the ring. */
static bool take(struct cprof_heap_record *record, const uint8_t *place, uint32_t length)
{
	struct cprof_agent_record *fixed = &record->fixed;
	size_t size = CPROF_MIN((size_t)length, sizeof(*fixed));

	memset((uint8_t *)fixed + size, 0, sizeof(*fixed) - size);
	memcpy(fixed, place, size);
	fixed->length = length;
	if (fixed->function >= CPROF_AGENT_FUNCTION_COUNT || fixed->address == 0 ||
	    fixed->address >> 48)
		return false;
	switch (fixed->type) {
	case CPROF_AGENT_RECORD_FREE:
	case CPROF_AGENT_RECORD_KEEP:
		return length == CPROF_AGENT_RECORD_SHORT;
	case CPROF_AGENT_RECORD_SEEN:
		fixed->rate = 1;
		return length == CPROF_AGENT_RECORD_MIDDLE && fixed->size >> 48 == 0;
	case CPROF_AGENT_RECORD_ALLOC:
		record->stack = place + sizeof(*fixed);
		return size == sizeof(*fixed) && fixed->id && fixed->size >> 48 == 0 &&
		       fixed->rate > 0 && fixed->rate <= CPROF_HEAP_RATE_MAX &&
		       fixed->stack_length <= CPROF_AGENT_STACK_MAX &&
		       fixed->stack_length <= length - sizeof(*fixed);
	default:
		return false;
	}
}

/* Whether a record ends behind the head that the pass began with, but not behind the one there is
 * now: what a shorter stack gave back has been reserved anew. Then the next pass will read it. */
static bool is_newer(const struct cprof_heap_ring *ring, uint32_t length)
{
	uint64_t head = __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE);

	return head - ring->tail <= RING_SIZE && length <= head - ring->tail;
}

bool cprof_heap_ring_next(struct cprof_heap_ring *ring, struct cprof_heap_record *record)
{
	for (;;) {
		const uint64_t offset = (ring->tail += ring->length) & (RING_SIZE - 1);
		const uint64_t left = ring->limit - ring->tail;
		const uint8_t *place = ring->shared->ring + offset;
		uint64_t word;
		uint32_t length;
		uint32_t stamp;

		ring->length = 0;
		if (ring->tail - ring->published >= (left ? PUBLISH_STEP : 1))
			publish(ring);
		if (!left)
			return false;
		word = __atomic_load_n((const ring_word *)place, __ATOMIC_ACQUIRE);
		length = (uint32_t)word;
		stamp = (uint32_t)(word >> 32) - (uint32_t)ring->tail;
		if (stamp == 0 || stamp > CPROF_AGENT_STAMP_PAD) { /* not written yet */
			if (stuck(ring))
				resynchronize(ring);
			else
				return false;
			continue;
		}
		/* Its length is not the last word: room may be given back. */
		if (stamp == CPROF_AGENT_STAMP_BUSY && !stuck(ring))
			return false;
		if (length < 8 || length % 8 || length > RING_SIZE - offset ||
		    (length > left && !is_newer(ring, length))) {
			resynchronize(ring);
			continue;
		}
		if (length > left)
			return false;
		ring->length = length;
		if (stamp == CPROF_AGENT_STAMP_PAD)
			continue;
		if (stamp == CPROF_AGENT_STAMP_DONE && length >= CPROF_AGENT_RECORD_SHORT &&
		    take(record, place, length))
			return true;
		ring->malformed += stamp != CPROF_AGENT_STAMP_BUSY;
		ring->lost++;
	}
}

/* SPDX-License-Identifier: MIT
 *
 * Records of the heap: what is in the ring may be anything, and is copied, then judged.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

void cprof_heap_ring_init(struct cprof_agent_ring *ring, struct cprof_agent_shared *shared)
{
	cprof_agent_ring_init(ring, &shared->head, &shared->tail, shared->ring,
			      CPROF_AGENT_RING_SIZE);
}

/* Copies the record and says whether it makes sense. `length` is within the ring. */
static bool take(struct cprof_heap_record *record, const uint8_t *place, uint32_t length)
{
	struct cprof_agent_record *fixed = &record->fixed;
	size_t size = CPROF_MIN((size_t)length, sizeof(*fixed));

	if (length < CPROF_AGENT_RECORD_SHORT)
		return false;
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

bool cprof_heap_ring_next(struct cprof_agent_ring *ring, struct cprof_heap_record *record)
{
	const uint8_t *place;
	uint32_t length;

	while ((place = cprof_agent_ring_next(ring, &length))) {
		if (take(record, place, length))
			return true;
		cprof_agent_ring_reject(ring);
	}
	return false;
}

/* SPDX-License-Identifier: MIT */
#include <cprof/agent_ring.h>
#include <cprof/util.h>

#define PUBLISH_STEP (64u << 10) /* a target that waits for room is told of it so often */
#define STUCK_NS     1000000000ull

/* Of the ring's bytes, which have no other type. */
typedef uint64_t __attribute__((may_alias)) ring_word;

static void publish(struct cprof_agent_ring *ring)
{
	ring->published = ring->tail;
	__atomic_store_n(ring->shared_tail, ring->tail, __ATOMIC_RELEASE);
}

void cprof_agent_ring_init(struct cprof_agent_ring *ring, const uint64_t *head, uint64_t *tail,
			   const uint8_t *bytes, uint64_t size)
{
	*ring = (struct cprof_agent_ring){
		.head = head,
		.shared_tail = tail,
		.bytes = bytes,
		.size = size,
		.stuck_at = UINT64_MAX,
		.tail = __atomic_load_n(tail, __ATOMIC_RELAXED) & ~7ull,
	};
	ring->limit = ring->tail;
	ring->published = ring->tail;
}

/* All that is left of this pass is given up. */
static void resynchronize(struct cprof_agent_ring *ring)
{
	ring->tail = ring->limit;
	cprof_agent_ring_reject(ring);
}

double cprof_agent_ring_begin(struct cprof_agent_ring *ring)
{
	uint64_t head = __atomic_load_n(ring->head, __ATOMIC_ACQUIRE);

	ring->limit = head & ~7ull;
	if (head % 8 || ring->limit - ring->tail > ring->size) {
		resynchronize(ring);
		publish(ring);
	}
	return (double)(ring->limit - ring->tail) / (double)ring->size;
}

/* Whether the record at the tail has been unfinished for so long that its writer will never come
 * back. Where nothing was written behind it meanwhile the whole target may be stopped: no hurry. */
static bool stuck(struct cprof_agent_ring *ring)
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

/* Whether a record ends behind the head that the pass began with, but not behind the one there is
 * now: what a shorter stack gave back has been reserved anew. Then the next pass will read it. */
static bool is_newer(const struct cprof_agent_ring *ring, uint32_t length)
{
	uint64_t head = __atomic_load_n(ring->head, __ATOMIC_ACQUIRE);

	return head - ring->tail <= ring->size && length <= head - ring->tail;
}

const uint8_t *cprof_agent_ring_next(struct cprof_agent_ring *ring, uint32_t *result)
{
	for (;;) {
		const uint64_t offset = (ring->tail += ring->length) & (ring->size - 1);
		const uint64_t left = ring->limit - ring->tail;
		const uint8_t *place = ring->bytes + offset;
		uint64_t word;
		uint32_t length;
		uint32_t stamp;

		ring->length = 0;
		if (ring->tail - ring->published >= (left ? PUBLISH_STEP : 1))
			publish(ring);
		if (!left)
			return NULL;
		word = __atomic_load_n((const ring_word *)place, __ATOMIC_ACQUIRE);
		length = (uint32_t)word;
		stamp = (uint32_t)(word >> 32) - (uint32_t)ring->tail;
		if (stamp == 0 || stamp > CPROF_AGENT_STAMP_PAD) { /* not written yet */
			if (stuck(ring))
				resynchronize(ring);
			else
				return NULL;
			continue;
		}
		/* Its length is not the last word: room may be given back. */
		if (stamp == CPROF_AGENT_STAMP_BUSY && !stuck(ring))
			return NULL;
		if (length < 8 || length % 8 || length > ring->size - offset ||
		    (length > left && !is_newer(ring, length))) {
			resynchronize(ring);
			continue;
		}
		if (length > left)
			return NULL;
		ring->length = length;
		if (stamp == CPROF_AGENT_STAMP_PAD)
			continue;
		if (stamp == CPROF_AGENT_STAMP_DONE) {
			*result = length;
			return place;
		}
		ring->lost++; /* BUSY for ever */
	}
}

void cprof_agent_registers(const struct cprof_agent_record *record, struct cprof_regs *regs)
{
	*regs = (struct cprof_regs){
		.known = 1u << 3 | 1u << CPROF_REG_BP | 1u << CPROF_REG_SP | 0xfu << 12 |
			 1u << CPROF_REG_PC,
		.returned = true,
	};
	regs->value[3] = record->rbx; /* by DWARF's numbers */
	regs->value[CPROF_REG_BP] = record->rbp;
	regs->value[CPROF_REG_SP] = record->sp;
	regs->value[12] = record->r12;
	regs->value[13] = record->r13;
	regs->value[14] = record->r14;
	regs->value[15] = record->r15;
	regs->value[CPROF_REG_PC] = record->pc;
}

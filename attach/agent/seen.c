/* SPDX-License-Identifier: MIT
 *
 * Stacks that the profiler knows already, at rate 1. Nothing is unwound here: what the profiler
 * found a stack to stand on is compared.
 */
#include "agent.h"

#define AREA_WORDS (CPROF_AGENT_SEEN_AREA / 8)
#define PLACE_BITS 48

static uint32_t bucket_of(uint64_t pc, uint64_t sp)
{
	return (uint32_t)((pc + sp * 3) * CPROF_AGENT_HASH >> (64 - CPROF_AGENT_SEEN_BITS));
}

/* Its words are all within the area. */
static const struct cprof_agent_seen *entry_at(uint32_t link, uint32_t *count)
{
	const uint32_t fixed = sizeof(struct cprof_agent_seen) / 8;
	const struct cprof_agent_seen *entry;

	if (link > AREA_WORDS - fixed)
		return NULL;
	entry = (const void *)&SHARED->seen.area[link - 1];
	*count = LOAD(&entry->count);
	return *count <= AREA_WORDS - fixed - (link - 1) ? entry : NULL;
}

static bool same_registers(const struct cprof_agent_seen *entry, const struct frame *frame)
{
	const uint64_t registers[] = {frame->rbx, frame->rbp, frame->r12,
				      frame->r13, frame->r14, frame->r15};
	uint32_t mask = entry->mask;

	if (!mask)
		return true;
	for (uint32_t i = 0; i < 6; i++)
		if (mask >> i & 1 && entry->registers[i] != registers[i])
			return false;
	return true;
}

/* `room`: bytes of stack that may be read. */
static bool same_words(const struct cprof_agent_seen *entry, uint32_t count, const uint64_t *stack,
		       uint64_t room)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = *(const volatile uint64_t *)&entry->words[i];
		uint64_t place = word >> PLACE_BITS;

		if (place >= room / 8 ||
		    stack[place] != word << (64 - PLACE_BITS) >> (64 - PLACE_BITS))
			return false;
	}
	return true;
}

bool cprof_agent_seen_find(const struct call *call, uint64_t room, uint32_t *stack)
{
	const uint64_t pc = call->frame->pc;
	uint32_t sequence = LOAD(&SHARED->seen_sequence);
	uint32_t link = LOAD(&SHARED->seen.heads[bucket_of(pc, call->sp)]);
	const struct cprof_agent_seen *entry;
	uint32_t count;

	for (uint32_t i = 0; link && i < CPROF_AGENT_SEEN_CHAIN; i++) {
		entry = entry_at(link, &count);
		if (!entry)
			return false;
		link = LOAD(&entry->next);
		if (entry->pc != pc || entry->sp != call->sp ||
		    (entry->whole ? room != entry->length : room < entry->length) ||
		    !same_registers(entry, call->frame) ||
		    !same_words(entry, count, (const uint64_t *)call->sp, room))
			continue;
		*stack = entry->stack;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		return !(sequence & 1) && LOAD(&SHARED->seen_sequence) == sequence;
	}
	return false;
}

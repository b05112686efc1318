/* SPDX-License-Identifier: MIT
 *
 * From a record to its stack.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define REFRESH_NS 1000000000ull /* maps are read again at most this often */

/* A program whose stacks are endless (or made up) must not fill our memory. */
#define STACKS_MAX    (512u << 10)
#define LOCATIONS_MAX (512u << 10)
#define ITEMS_MAX     (8u << 20)

void cprof_heap_flush(struct cprof_heap *heap)
{
	if (heap->config.unwinder->ops->flush)
		heap->config.unwinder->ops->flush(heap->config.unwinder);
	if (heap->memo)
		cprof_heap_memo_flush(heap->memo);
}

/* Code that was mapped unnoticed: look again, but not often. */
static bool refresh(struct cprof_heap *heap)
{
	uint64_t now = cprof_now_ns();

	if (!cprof_space_target(heap->config.space) || now < heap->refreshed_ns + REFRESH_NS)
		return false;
	heap->refreshed_ns = now;
	cprof_error_destroy(cprof_space_refresh(heap->config.space));
	cprof_heap_flush(heap);
	return true;
}

static uint32_t intern(struct cprof_heap *heap, const struct cprof_stack *stack)
{
	struct cprof_profile *profile = cprof_builder_profile(heap->builder);
	uint32_t marker;

	if (profile->stack_count < STACKS_MAX && profile->location_count < LOCATIONS_MAX &&
	    profile->stack_item_count < ITEMS_MAX)
		return cprof_builder_stack(heap->builder, NULL, 0, stack);
	if (!heap->overflow_stack) {
		marker = cprof_profile_marker(profile, "[too many stacks]");
		heap->overflow_stack = cprof_profile_stack(profile, &marker, 1);
	}
	return heap->overflow_stack;
}

/* Unwinds a copy of the stack: the ring's may change. */
static void unwind(struct cprof_heap *heap, const struct cprof_heap_record *record,
		   struct cprof_heap_found *found)
{
	struct cprof_unwinder *unwinder = heap->config.unwinder;
	struct cprof_memory memory = {.stack = heap->stack,
				      .stack_start = record->fixed.sp,
				      .stack_length = record->fixed.stack_length};
	struct cprof_stack stack = {.frames = heap->frames, .capacity = CPROF_COUNT(heap->frames)};
	uint64_t before = cprof_now_ns();
	struct cprof_regs regs;

	memcpy(heap->stack, record->stack, record->fixed.stack_length);
	cprof_agent_registers(&record->fixed, &regs);
	unwinder->ops->unwind(unwinder, &regs, &memory, &stack);
	if ((stack.end == CPROF_END_CORRUPT ||
	     !cprof_space_find(heap->config.space, record->fixed.pc - 1)) &&
	    refresh(heap))
		unwinder->ops->unwind(unwinder, &regs, &memory, &stack);
	*found = (struct cprof_heap_found){.stack = intern(heap, &stack),
					   .frames = (uint16_t)stack.count,
					   .end = (uint16_t)stack.end};
	if (heap->memo)
		cprof_heap_memo_learn(heap->memo, heap->config.space, unwinder, &regs, &memory,
				      &stack, found);
	heap->stats.unwind_ns += cprof_now_ns() - before;
}

void cprof_heap_stack(struct cprof_heap *heap, const struct cprof_heap_record *record,
		      struct cprof_heap_found *found)
{
	/* While there are too many stacks the agent's word for one would not say what it was. */
	if (!heap->memo || !cprof_heap_memo_find(heap->memo, record, !heap->overflow_stack, found))
		unwind(heap, record, found);
}

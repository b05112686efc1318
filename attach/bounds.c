/* SPDX-License-Identifier: MIT
 *
 * Where threads have their stacks, told to the agent: it then reads them by plain loads, and
 * reserves no more of the ring than there is stack.
 */
#include "bounds.h"

#include <cprof/target.h>
#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define AGAIN_NS 1000000000ull /* a thread that was not found is looked for at most this often */
#define READ_NS  250000000ull  /* and maps are read at most this often */

struct cprof_error *cprof_agent_bounds_create(struct cprof_agent_bounds **bounds)
{
	*bounds = calloc(1, sizeof(**bounds));
	return *bounds ? NULL : cprof_error_nomem();
}

void cprof_agent_bounds_destroy(struct cprof_agent_bounds *bounds)
{
	free(bounds);
}

static uint32_t shard_of(uint64_t thread_pointer)
{
	return (uint32_t)((thread_pointer * CPROF_AGENT_HASH) >> (64 - CPROF_AGENT_SHARD_BITS));
}

void cprof_agent_bounds_note(struct cprof_agent_bounds *bounds,
			     const struct cprof_agent_record *record)
{
	uint32_t shard = shard_of(record->thread_pointer);
	struct cprof_agent_bounds_thread *thread = &bounds->threads[shard];
	bool same = thread->thread_pointer == record->thread_pointer && thread->tid == record->tid;

	if ((same && record->sp - thread->low < thread->high - thread->low) || thread->pending ||
	    !record->thread_pointer || bounds->pending_count == CPROF_AGENT_BOUNDS_PENDING)
		return;
	if (bounds->now_ns < thread->looked_ns + AGAIN_NS && (same || thread->high))
		return;
	*thread = (struct cprof_agent_bounds_thread){.thread_pointer = record->thread_pointer,
						     .sp = record->sp,
						     .looked_ns = bounds->now_ns,
						     .tid = record->tid,
						     .pending = true};
	bounds->pending[bounds->pending_count++] = shard;
}

struct search {
	struct cprof_agent_bounds *bounds;
	uint32_t main_tid;
	uint64_t main_end;  /* of what the main thread's frames can lie in: arguments and
			     * environment follow, often more than all frames together */
	uint64_t guard_end; /* of the mapping before, if nothing may touch it; 0 otherwise */
};

/*
 * A pthread's stack lies above its guard pages and holds the thread's own block at its end. Memory
 * without such a guard may be anything, and go at any time. The main thread's block lies elsewhere,
 * where the kernel may join it with stacks that the program makes for coroutines: for that thread
 * only its own stack counts.
 */
static struct cprof_error *match(void *context, const struct cprof_mapping *mapping)
{
	struct search *search = context;
	struct cprof_agent_bounds *bounds = search->bounds;
	bool main_stack = strcmp(mapping->path, "[stack]") == 0;
	bool guarded = search->guard_end == mapping->start;

	for (size_t i = 0; i < bounds->pending_count; i++) {
		struct cprof_agent_bounds_thread *thread = &bounds->threads[bounds->pending[i]];
		bool main_thread = thread->tid == search->main_tid;
		uint64_t top = main_thread ? mapping->end : thread->thread_pointer;

		if (main_thread && thread->sp < search->main_end)
			top = CPROF_MIN(top, search->main_end);
		if (thread->sp < mapping->start || thread->sp >= top || top > mapping->end ||
		    !(mapping->prot & PROT_READ) || main_thread != main_stack ||
		    (!main_thread && !guarded))
			continue;
		thread->low = mapping->start;
		thread->high = top;
	}
	search->guard_end = mapping->prot ? 0 : mapping->end;
	return NULL;
}

static void tell(const struct cprof_agent_bounds_thread *thread, struct cprof_agent_stack *stack)
{
	uint32_t sequence = __atomic_load_n(&stack->sequence, __ATOMIC_RELAXED) | 1;

	__atomic_store_n(&stack->sequence, sequence, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&stack->thread_pointer, thread->thread_pointer, __ATOMIC_RELAXED);
	__atomic_store_n(&stack->low, thread->low, __ATOMIC_RELAXED);
	__atomic_store_n(&stack->high, thread->high, __ATOMIC_RELAXED);
	__atomic_store_n(&stack->tid, thread->tid, __ATOMIC_RELAXED);
	__atomic_store_n(&stack->sequence, sequence + 1, __ATOMIC_RELEASE);
}

void cprof_agent_bounds_publish(struct cprof_agent_bounds *bounds, struct cprof_target *target,
				struct cprof_agent_shared *shared)
{
	struct search search = {.bounds = bounds};
	uint32_t offset = bounds->tids.offset;

	bounds->now_ns = cprof_now_ns();
	if (!bounds->pending_count || bounds->now_ns < bounds->read_ns + READ_NS)
		return;
	bounds->read_ns = bounds->now_ns;
	if (target) {
		search.main_tid = (uint32_t)cprof_target_info(target)->inner_pid;
		search.main_end = cprof_target_info(target)->start_stack;
		cprof_error_destroy(cprof_target_maps(target, match, &search));
	}
	for (size_t i = 0; i < bounds->pending_count; i++) {
		struct cprof_agent_bounds_thread *thread = &bounds->threads[bounds->pending[i]];

		thread->pending = false;
		if (target)
			offset = cprof_agent_tids_learn(&bounds->tids, target,
							thread->thread_pointer, thread->tid);
		if (thread->high)
			tell(thread, &shared->stacks[bounds->pending[i]]);
	}
	__atomic_store_n(&shared->tid_offset, offset, __ATOMIC_RELAXED);
	bounds->pending_count = 0;
}

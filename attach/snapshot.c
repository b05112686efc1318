/* SPDX-License-Identifier: MIT
 *
 * The profiler's side of a snapshot: prepares shared memory, has the tracer work and turns what it
 * left into a result.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define STRAGGLER_NS 20000000ull
/* A tracer that takes longer hangs in a memory read (FUSE, userfaultfd): its end frees the target.
 */
#define TRACER_MS 5000

struct layout { /* of the shared memory */
	struct cprof_tracer tracer;
	struct cprof_tracee tracees[CPROF_TRACEES_MAX];
	uint32_t slots[CPROF_TRACEE_SLOTS];
	_Alignas(4096) uint8_t pool[CPROF_POOL_BYTES];
};

struct owned_snapshot {
	struct cprof_snapshot public;
	struct layout *shared;
};

struct range_list {
	struct cprof_mapped_range *ranges;
	size_t count;
	size_t capacity;
};

static struct cprof_error *add_range(void *context, const struct cprof_mapping *mapping)
{
	struct range_list *list = context;

	if (!(mapping->prot & PROT_WRITE))
		return NULL;
	if (!cprof_grow(&list->ranges, &list->capacity, list->count + 1, sizeof(*list->ranges)))
		return cprof_error_nomem();
	list->ranges[list->count++] =
		(struct cprof_mapped_range){.start = mapping->start, .end = mapping->end};
	return NULL;
}

static struct cprof_error *fault(const struct cprof_target *target,
				 const struct cprof_tracer *tracer)
{
	int pid = (int)cprof_target_info(target)->pid;

	switch ((enum cprof_tracer_fault)tracer->fault) {
	case CPROF_TRACER_OK:
		return NULL;
	case CPROF_TRACER_DENIED:
		return cprof_tracer_denied(target, tracer->errnum);
	case CPROF_TRACER_GONE:
		return cprof_error_create(CPROF_NO_PROCESS, NULL, "pid %d: no such process", pid);
	case CPROF_TRACER_TOO_MANY:
		return cprof_error_create(CPROF_FAILED, NULL, "pid %d: more than %u threads", pid,
					  CPROF_TRACEES_MAX);
	case CPROF_TRACER_FAILED:
		break;
	}
	return cprof_error_errno(CPROF_FAILED, tracer->errnum, NULL, "pid %d: tracing", pid);
}

static void work(void *context)
{
	cprof_tracer_snapshot(context);
}

static struct cprof_error *run_tracer(const struct cprof_target *target,
				      struct cprof_tracer *tracer)
{
	pid_t child = cprof_tracer_fork(work, tracer, false);

	if (child < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "starting a tracer");
	if (!cprof_tracer_join(child, TRACER_MS))
		return cprof_error_create(CPROF_FAILED, NULL,
					  "pid %d: the tracer did not come to an end (a stack in "
					  "memory that does not answer); the process goes on",
					  (int)cprof_target_info(target)->pid);
	return fault(target, tracer);
}

/* --- the result ---------------------------------------------------------------------------- */

static int compare_tids(const void *a, const void *b)
{
	pid_t x = ((const struct cprof_snapshot_thread *)a)->tid;
	pid_t y = ((const struct cprof_snapshot_thread *)b)->tid;

	return (x > y) - (x < y);
}

static struct cprof_error *take_result(struct owned_snapshot *owned)
{
	const struct cprof_tracer *tracer = &owned->shared->tracer;
	struct cprof_snapshot *snapshot = &owned->public;

	snapshot->threads = calloc(tracer->count + 1, sizeof(*snapshot->threads));
	if (!snapshot->threads)
		return cprof_error_nomem();
	for (size_t i = 0; i < tracer->count; i++) {
		const struct cprof_tracee *tracee = &tracer->tracees[i];
		struct cprof_snapshot_thread *thread = &snapshot->threads[snapshot->count];

		if (tracee->phase == CPROF_TRACEE_GONE || tracee->phase == CPROF_TRACEE_NEW)
			continue;
		snapshot->count++;
		*thread = (struct cprof_snapshot_thread){
			.tid = tracee->tid, .state = tracee->state, .syscall = -1};
		thread->late = tracee->phase == CPROF_TRACEE_LATER;
		snapshot->late += thread->late;
		if (tracee->phase != CPROF_TRACEE_HELD && tracee->phase != CPROF_TRACEE_LOOKED &&
		    !thread->late) {
			snapshot->unstoppable++;
			if (tracee->phase == CPROF_TRACEE_SPARED)
				thread->syscall =
					cprof_arch_syscall(&tracee->regs, thread->arguments);
			continue;
		}
		thread->held = true;
		thread->group_stop = tracee->group_stop;
		thread->stack = tracer->pool + tracee->stack_at;
		thread->stack_length = tracee->stack_length;
		cprof_arch_regs(&tracee->regs, &thread->regs);
		if (tracee->phase == CPROF_TRACEE_LOOKED)
			thread->regs.known = CPROF_ARCH_AT_KNOWN;
		thread->syscall = cprof_arch_syscall(&tracee->regs, thread->arguments);
	}
	qsort(snapshot->threads, snapshot->count, sizeof(*snapshot->threads), compare_tids);
	snapshot->taken_ns = tracer->taken_ns;
	snapshot->dumping_core = tracer->dumping_core;
	snapshot->stops = tracer->stops;
	if (tracer->first_stop_ns)
		snapshot->stopped_ns = tracer->last_release_ns - tracer->first_stop_ns;
	return NULL;
}

static struct cprof_error *take(const struct cprof_target *target,
				const struct cprof_snapshot_options *options,
				struct owned_snapshot *owned)
{
	struct range_list list = {.ranges = NULL};
	struct cprof_tracer *tracer;
	struct cprof_error *error;
	void *memory = mmap(NULL, sizeof(struct layout), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "memory for a snapshot");
	owned->shared = memory;
	tracer = &owned->shared->tracer;
	error = cprof_target_maps(target, add_range, &list);
	if (!error) {
		*tracer = (struct cprof_tracer){
			.procfd = cprof_target_procfd(target),
			.pid = cprof_target_info(target)->pid,
			.tids = options ? options->tids : NULL,
			.tid_count = options ? options->tid_count : 0,
			.straggler_ns = options && options->straggler_ns ? options->straggler_ns
									 : STRAGGLER_NS,
			.ranges = list.ranges,
			.range_count = list.count,
			.tracees = owned->shared->tracees,
			.slots = owned->shared->slots,
			.pool = owned->shared->pool,
		};
		error = run_tracer(target, tracer);
	}
	free(list.ranges);
	return error ? error : take_result(owned);
}

struct once {
	const struct cprof_target *target;
	const struct cprof_snapshot_options *options;
	struct cprof_snapshot **snapshot;
};

static struct cprof_error *take_once(void *context)
{
	const struct once *once = context;
	struct owned_snapshot *owned = calloc(1, sizeof(*owned));
	struct cprof_error *error;

	if (!owned)
		return cprof_error_nomem();
	error = take(once->target, once->options, owned);
	if (error) {
		cprof_snapshot_destroy(&owned->public);
		return error;
	}
	*once->snapshot = &owned->public;
	return NULL;
}

struct cprof_error *cprof_snapshot_take(const struct cprof_target *target,
					const struct cprof_snapshot_options *options,
					struct cprof_snapshot **snapshot)
{
	struct once once = {.target = target, .options = options, .snapshot = snapshot};

	return cprof_tracer_retry(target, take_once, &once);
}

void cprof_snapshot_destroy(struct cprof_snapshot *snapshot)
{
	struct owned_snapshot *owned = (struct owned_snapshot *)snapshot;

	if (!owned)
		return;
	if (owned->shared)
		munmap(owned->shared, sizeof(struct layout));
	free(owned->public.threads);
	free(owned);
}

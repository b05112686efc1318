/* SPDX-License-Identifier: MIT
 *
 * What the forked tracer does for a snapshot.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define SCANS_MAX   32  /* each finds only what threads that were not yet held have started */
#define BATCH       512 /* stacks a call, IOV_MAX is 1024 */
#define PIECE_USUAL 8192ull
#define PIECE_MIN   16384ull
#define PIECE_MAX   (4ull << 20)

static bool note_state(void *context, pid_t tid)
{
	struct cprof_tracer *tracer = context;
	struct cprof_tracee *tracee = cprof_tracee_get(tracer, tid);

	if (!tracee) {
		tracer->fault = CPROF_TRACER_TOO_MANY;
		return false;
	}
	cprof_stop_note(tracer, tracee);
	return true;
}

/* Bytes from SP to the end of its mapping. A mapping that is not known may be new: try some. */
static uint64_t stack_extent(const struct cprof_tracer *tracer, uint64_t sp)
{
	size_t low = 0;
	size_t high = tracer->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (tracer->ranges[middle].end <= sp)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < tracer->range_count && tracer->ranges[low].start <= sp)
		return tracer->ranges[low].end - sp;
	return PIECE_MIN;
}

struct batch {
	struct iovec local[BATCH];
	struct iovec remote[BATCH];
	struct cprof_tracee *tracees[BATCH];
	size_t count;
};

/* Reads as much of each as there is: an unreadable page ends one stack, not the call. */
static void read_batch(const struct cprof_tracer *tracer, struct batch *batch)
{
	size_t at = 0;

	while (at < batch->count) {
		ssize_t got = process_vm_readv(tracer->pid, batch->local + at, batch->count - at,
					       batch->remote + at, batch->count - at, 0);
		uint64_t left = got > 0 ? (uint64_t)got : 0;

		for (; at < batch->count && left >= batch->local[at].iov_len; at++) {
			batch->tracees[at]->stack_length = batch->local[at].iov_len;
			left -= batch->local[at].iov_len;
		}
		if (at < batch->count) /* cut short here */
			batch->tracees[at++]->stack_length = left;
		if (got < 0 && errno == ESRCH)
			return;
	}
}

static void read_stacks(struct cprof_tracer *tracer)
{
	static struct batch batch;
	uint64_t most = CPROF_POOL_BYTES / (tracer->count + 1);

	most = CPROF_MIN(CPROF_MAX(most, PIECE_MIN), PIECE_MAX);
	for (size_t i = 0; i < tracer->count; i++) {
		struct cprof_tracee *tracee = &tracer->tracees[i];
		uint64_t length;

		if (tracee->phase != CPROF_TRACEE_HELD && tracee->phase != CPROF_TRACEE_LOOKED)
			continue;
		length = CPROF_MIN(stack_extent(tracer, tracee->regs.rsp), most);
		if (tracer->pool_used + length > CPROF_POOL_BYTES)
			break;
		tracee->stack_at = tracer->pool_used;
		tracer->pool_used += length;
		batch.local[batch.count] = (struct iovec){tracer->pool + tracee->stack_at, length};
		batch.remote[batch.count] =
			(struct iovec){(void *)(uintptr_t)tracee->regs.rsp, length};
		batch.tracees[batch.count++] = tracee;
		if (batch.count == BATCH) {
			read_batch(tracer, &batch);
			batch.count = 0;
		}
	}
	read_batch(tracer, &batch);
}

void cprof_tracer_read_stack(struct cprof_tracer *tracer, struct cprof_tracee *tracee)
{
	uint64_t length = CPROF_MIN(stack_extent(tracer, tracee->regs.rsp), PIECE_MAX);
	struct iovec remote = {(void *)(uintptr_t)tracee->regs.rsp, length};
	struct iovec local = {tracer->pool + tracer->pool_used, length};
	ssize_t got;

	if (tracer->fault || tracer->pool_used + length > CPROF_POOL_BYTES)
		return;
	got = process_vm_readv(tracer->pid, &local, 1, &remote, 1, 0);
	tracee->stack_at = tracer->pool_used;
	tracee->stack_length = got > 0 ? (uint64_t)got : 0;
	tracer->pool_used += tracee->stack_length;
}

/* Room for what stacks usually take, before anyone is stopped: page faults on new memory would
 * take a tenth of the pause. */
static void prepare_pool(struct cprof_tracer *tracer)
{
	uint64_t bytes = CPROF_MIN((tracer->count + 1) * PIECE_USUAL, CPROF_POOL_BYTES / 8);

	madvise(tracer->pool, bytes, MADV_POPULATE_WRITE); /* Linux 5.14; else they fault */
}

/* Until a scan finds no new thread. One scan is never enough: threads that were not yet held may
 * have started others, and a directory whose entries vanish while it is read skips some. */
static void stop_all(struct cprof_tracer *tracer, bool addressed)
{
	size_t fresh = 1;

	for (unsigned i = 0; i < SCANS_MAX && fresh && !tracer->fault; i++)
		cprof_stop_new(tracer, addressed, &fresh);
}

static bool look(void *context, pid_t tid)
{
	struct cprof_tracer *tracer = context;
	struct cprof_tracee *tracee;
	uint64_t words[8];
	uint64_t sp;
	uint64_t pc;

	if (!cprof_stop_wanted(tracer, tid))
		return true;
	tracee = cprof_tracee_get(tracer, tid);
	if (!tracee) {
		tracer->fault = CPROF_TRACER_TOO_MANY;
		return false;
	}
	tracee->state = cprof_procfs_state(tracer->procfd, tid);
	tracee->phase = CPROF_TRACEE_LATE;
	if (!cprof_procfs_place(tracer->procfd, tid, &sp, &pc))
		return true;
	cprof_arch_at(sp, pc, &tracee->regs);
	if (cprof_procfs_syscall(tracer->procfd, tid, words)) {
		cprof_arch_in_syscall(words, &tracee->regs);
		tracee->regs.rip = pc;
	}
	tracee->phase = CPROF_TRACEE_LOOKED;
	return true;
}

/* Of a process that writes its core dump: no thread of it runs any more, and an interrupt would end
 * the dump in the middle. */
static void look_only(struct cprof_tracer *tracer)
{
	tracer->dumping_core = true;
	tracer->taken_ns = cprof_wall_ns();
	if (!cprof_procfs_tasks(tracer->procfd, look, tracer) && !tracer->fault)
		tracer->fault = CPROF_TRACER_GONE;
	if (!tracer->fault)
		read_stacks(tracer);
}

void cprof_tracer_snapshot(struct cprof_tracer *tracer)
{
	if (cprof_procfs_dumping_core(tracer->procfd)) {
		look_only(tracer);
		return;
	}
	/* State letters first: at the stop every thread is in `t`. */
	if (!tracer->tids && !cprof_procfs_tasks(tracer->procfd, note_state, tracer) &&
	    !tracer->fault)
		tracer->fault = CPROF_TRACER_GONE;
	prepare_pool(tracer);
	stop_all(tracer, false);
	stop_all(tracer, true);
	if (!tracer->fault)
		read_stacks(tracer);
	cprof_stop_release(tracer);
}

/* SPDX-License-Identifier: MIT
 *
 * The per-thread way: every thread that exists gets an inherited event per CPU; threads born later
 * inherit theirs. A thread born while we look for threads may end up with both, so on each CPU only
 * one event's samples count for a thread.
 */
#include "private.h"
#include <errno.h>
#include <string.h>

#define SCANS_MAX 32

static struct cprof_owner *owner_find(const struct cprof_perf *perf, pid_t tid)
{
	struct cprof_owner *owner;

	HASH_FIND(hh, perf->owners, &tid, sizeof(tid), owner);
	return owner;
}

static struct cprof_owner *owner_get(struct cprof_perf *perf, pid_t tid)
{
	struct cprof_owner *owner = owner_find(perf, tid);

	if (owner)
		return owner;
	owner = calloc(1, sizeof(*owner) + perf->ring_count * sizeof(owner->ids[0]));
	if (!owner)
		return NULL;
	owner->tid = tid;
	HASH_ADD(hh, perf->owners, tid, sizeof(owner->tid), owner);
	return owner;
}

void cprof_perthread_ended(struct cprof_perf *perf, pid_t tid)
{
	struct cprof_owner *owner = owner_find(perf, tid);

	if (!owner)
		return;
	HASH_DEL(perf->owners, owner);
	free(owner);
}

/* A thread was born with inherited events; its number may have been another's before. */
void cprof_perthread_started(struct cprof_perf *perf, pid_t tid)
{
	struct cprof_owner *owner = owner_get(perf, tid);

	if (owner)
		memset(owner->ids, 0, perf->ring_count * sizeof(owner->ids[0]));
}

void cprof_perthread_close(struct cprof_perf *perf)
{
	struct cprof_owner *owner;
	struct cprof_owner *next;

	HASH_ITER(hh, perf->owners, owner, next)
	{
		HASH_DEL(perf->owners, owner);
		free(owner);
	}
}

bool cprof_perthread_accept(struct cprof_perf *perf, const struct cprof_perf_record *record,
			    struct cprof_event *event)
{
	struct cprof_owner *owner = owner_get(perf, record->tid);
	uint64_t *id;
	struct cprof_event *first;

	if (!owner)
		return false;
	id = &owner->ids[event->ring];
	if (*id == event->id)
		return true;
	HASH_FIND(hh, perf->events, id, sizeof(*id), first);
	if (!first || record->time >= first->until) {
		*id = event->id;
		return true;
	}
	/*
	 * Both an inherited and an own event. The own one is not needed: whatever inherited from it
	 * has inherited from the thread's first event as well.
	 */
	if (event->tid == record->tid) {
		cprof_event_retire(perf, event, 0, false);
	} else if (first->tid == record->tid) {
		cprof_event_retire(perf, first, record->time, false);
		*id = event->id;
	}
	return false;
}

/* Makes room for `need` more descriptors. */
static struct cprof_error *descriptors_allow(struct cprof_perf *perf, size_t need)
{
	size_t total = HASH_COUNT(perf->events) + need + perf->ring_count;
	uint64_t allowed;

	if (cprof_descriptors_raise(&total, &allowed))
		return NULL;
	return cprof_error_create(
		CPROF_DENIED, "raise ulimit -n, or run as root for CPU-wide sampling",
		"%zu descriptors are needed (threads times CPUs), %llu are allowed", total,
		(unsigned long long)allowed);
}

static struct cprof_error *thread_open(struct cprof_perf *perf, pid_t tid)
{
	for (size_t i = 0; i < perf->ring_count; i++) {
		int status = cprof_event_add(perf, tid, i, perf->period, NULL);

		if (status == -ESRCH) /* it has ended meanwhile */
			return NULL;
		if (status < 0 && status != -ENODEV)
			return cprof_event_error(perf, -status);
	}
	return NULL;
}

/* Opens the threads that are not known; `*opened` tells how many. */
static struct cprof_error *scan(struct cprof_perf *perf, size_t *opened)
{
	pid_t CPROF_AUTO_FREE *tids = NULL;
	size_t count;
	size_t fresh = 0;

	*opened = 0;
	CPROF_TRY(cprof_target_threads(perf->target, &tids, &count));
	for (size_t i = 0; i < count; i++)
		if (!owner_find(perf, tids[i]))
			tids[fresh++] = tids[i];
	CPROF_TRY(descriptors_allow(perf, fresh * perf->ring_count));
	for (size_t i = 0; i < fresh; i++) {
		CPROF_TRY(thread_open(perf, tids[i]));
		if (!owner_get(perf, tids[i]))
			return cprof_error_nomem();
	}
	*opened = fresh;
	return NULL;
}

struct cprof_error *cprof_perthread_rescan(struct cprof_perf *perf)
{
	size_t opened = 1;

	/* A target that starts threads all the time has them inherit: no need to catch each. */
	for (unsigned i = 0; i < SCANS_MAX && opened; i++)
		CPROF_TRY(scan(perf, &opened));
	return NULL;
}

struct cprof_error *cprof_perthread_open(struct cprof_perf *perf)
{
	/* A new generation is opened on every thread, whatever the old one covers. */
	cprof_perthread_close(perf);
	CPROF_TRY(cprof_perthread_rescan(perf));
	if (!perf->events)
		return cprof_event_error(perf, ESRCH);
	return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * Which threads of a dump do the same, and which have not moved since an earlier one.
 */
#include "dump.h"

#include <cprof/util.h>
#include <stdlib.h>

static int compare_tids(const void *a, const void *b)
{
	pid_t left = *(const pid_t *)a, right = ((const struct cprof_dump_thread *)b)->tid;

	return (left > right) - (left < right);
}

const struct cprof_dump_thread *cprof_dump_find(const struct cprof_dump *dump, pid_t tid)
{
	if (tid <= 0 || !dump->count)
		return NULL;
	return bsearch(&tid, dump->threads, dump->count, sizeof(*dump->threads), compare_tids);
}

/* The pcs say it all: inlined frames share theirs, and are the same wherever it is the same. */
static int compare_frames(const struct cprof_dump_thread *a, const struct cprof_dump_thread *b)
{
	if (a->frame_count != b->frame_count)
		return a->frame_count < b->frame_count ? -1 : 1;
	for (size_t i = 0; i < a->frame_count; i++)
		if (a->frames[i].pc != b->frames[i].pc)
			return a->frames[i].pc < b->frames[i].pc ? -1 : 1;
	return 0;
}

static uint64_t still_since(const struct cprof_dump *dump, const struct cprof_dump *earlier,
			    const struct cprof_dump_thread *thread)
{
	const struct cprof_dump_thread *before =
		earlier ? cprof_dump_find(earlier, thread->tid) : NULL;

	if (!before || !before->held || !thread->held || before->wait.kind != thread->wait.kind ||
	    before->wait.address != thread->wait.address || compare_frames(before, thread) ||
	    dump->taken_ns <= earlier->taken_ns)
		return 0;
	return dump->taken_ns - earlier->taken_ns;
}

static uint64_t hash_of(const struct cprof_dump_entry *entry)
{
	const struct cprof_dump_thread *thread = entry->thread;
	uint64_t hash = cprof_hash_u64((uint64_t)thread->wait.kind << 32 |
				       (uint64_t)thread->end << 16 | (uint8_t)thread->state) +
			thread->held + 2 * (entry->still != 0) + 4 * thread->late;

	for (size_t i = 0; i < thread->frame_count; i++)
		hash = cprof_hash_u64(hash ^ thread->frames[i].pc);
	return hash;
}

#define COMPARE(x, y)                                                                              \
	do {                                                                                       \
		if ((x) != (y))                                                                    \
			return (x) < (y) ? -1 : 1;                                                 \
	} while (0)

static int compare_kinds(const struct cprof_dump_entry *a, const struct cprof_dump_entry *b)
{
	COMPARE(a->hash, b->hash);
	COMPARE(a->thread->wait.kind, b->thread->wait.kind);
	COMPARE(a->thread->state, b->thread->state);
	COMPARE(a->thread->end, b->thread->end);
	COMPARE(a->thread->held, b->thread->held);
	COMPARE(a->thread->late, b->thread->late);
	COMPARE(a->still, b->still);
	return compare_frames(a->thread, b->thread);
}

static int by_kind(const void *a, const void *b)
{
	const struct cprof_dump_entry *left = a, *right = b;
	int order = compare_kinds(left, right);

	if (order)
		return order;
	COMPARE(left->thread->tid, right->thread->tid);
	return 0;
}

/* Their lowest tids tell groups of one size apart. */
static int by_size(const void *a, const void *b)
{
	const struct cprof_dump_entry *const *left = a, *const *right = b;

	COMPARE((*right)->group, (*left)->group);
	COMPARE((*left)->thread->tid, (*right)->thread->tid);
	return 0;
}

/* Sorts `sorted`, then copies it to `entries` in the order of the groups' sizes. */
static struct cprof_error *group(struct cprof_dump_entry *sorted, size_t count,
				 struct cprof_dump_entry *entries)
{
	CPROF_AUTO_FREE const struct cprof_dump_entry **firsts = calloc(count, sizeof(*firsts));
	size_t groups = 0, filled = 0;

	if (!firsts)
		return cprof_error_nomem();
	qsort(sorted, count, sizeof(*sorted), by_kind);
	for (size_t i = 0; i < count;) {
		size_t end = i + 1;

		while (end < count && !compare_kinds(&sorted[i], &sorted[end]))
			end++;
		firsts[groups++] = &sorted[i];
		for (size_t first = i; i < end; i++)
			sorted[i].group = end - first;
	}
	qsort(firsts, groups, sizeof(const struct cprof_dump_entry *), by_size);
	for (size_t i = 0; i < groups; i++)
		for (size_t j = 0; j < firsts[i]->group; j++)
			entries[filled++] = firsts[i][j];
	return NULL;
}

struct cprof_error *cprof_dump_entries(const struct cprof_dump *dump,
				       const struct cprof_dump *earlier, bool all,
				       struct cprof_dump_entry **entries)
{
	size_t count = dump->count;
	CPROF_AUTO_FREE struct cprof_dump_entry *plain = calloc(count + 1, sizeof(*plain));
	CPROF_AUTO_FREE struct cprof_dump_entry *grouped = NULL;

	if (!plain)
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++) {
		plain[i].thread = &dump->threads[i];
		plain[i].still = still_since(dump, earlier, plain[i].thread);
		plain[i].group = 1;
		plain[i].hash = hash_of(&plain[i]);
	}
	if (all || !count) {
		*entries = cprof_take(plain);
		return NULL;
	}
	grouped = calloc(count, sizeof(*grouped));
	if (!grouped)
		return cprof_error_nomem();
	CPROF_TRY(group(plain, count, grouped));
	*entries = cprof_take(grouped);
	return NULL;
}

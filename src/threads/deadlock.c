/* SPDX-License-Identifier: MIT
 *
 * Circles of waiting threads. Owners were read one by one while the target ran: a circle is
 * reported only if, read again, every thread in it still waits for the same and none has run
 * meanwhile, so that all of it holds at one moment.
 */
#include "private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long threads may take to go back to sleep, and between looks. */
#define SETTLE_NS 500000000ull
#define SETTLE_US 1000

enum answer {
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_LATER, /* let go by the dump, it has had no CPU yet to wait on */
};

/* --- circles ------------------------------------------------------------------------------- */

bool cprof_deadlock_circles(const size_t *next, size_t count,
			    bool (*found)(void *context, const size_t *nodes, size_t length),
			    void *context)
{
	/* The walk a node was first met on, 1 for the one from node 0. */
	CPROF_AUTO_FREE size_t *walk = calloc(count + 1, sizeof(*walk));
	CPROF_AUTO_FREE size_t *nodes = calloc(count + 1, sizeof(*nodes));

	if (!walk || !nodes)
		return false;
	for (size_t from = 0; from < count; from++) {
		size_t length = 0;
		size_t first;
		size_t at;

		for (at = from; at < count && !walk[at]; at = next[at])
			walk[at] = from + 1;
		if (at >= count || walk[at] != from + 1)
			continue; /* it leads out, or into what is known */
		first = at;
		for (size_t node = next[at]; node != at; node = next[node])
			first = CPROF_MIN(first, node);
		do {
			nodes[length] = length ? next[nodes[length - 1]] : first;
			length++;
		} while (next[nodes[length - 1]] != first);
		if (!found(context, nodes, length))
			return false;
	}
	return true;
}

/* --- confirming ---------------------------------------------------------------------------- */

/* How often the thread has left the CPU; 0 unknown. */
static uint64_t switches(const struct cprof_look *look, pid_t tid)
{
	CPROF_AUTO_FREE char *status = NULL;
	uint64_t sum = 0;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/status", (int)tid);
	status = cprof_read_file_at(cprof_target_procfd(look->target), path, 65536, NULL);
	for (const char *at = status; at && (at = strstr(at, "voluntary_ctxt_switches:")); at++)
		sum += strtoull(at + strlen("voluntary_ctxt_switches:"), NULL, 10);
	return sum;
}

/* Whether the thread sleeps in the system call and on the stack of the snapshot. */
static enum answer still_waits(const struct cprof_look *look, size_t index)
{
	const struct cprof_snapshot_thread *thread = &look->snapshot->threads[index];
	CPROF_AUTO_FREE char *text = NULL;
	unsigned long long argument;
	unsigned long long sp;
	long number;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/syscall", (int)thread->tid);
	text = cprof_read_file_at(cprof_target_procfd(look->target), path, 4096, NULL);
	if (text && strncmp(text, "running", strlen("running")) == 0)
		return ANSWER_LATER;
	return text &&
	       sscanf(text, "%ld %llx %*x %*x %*x %*x %*x %llx", &number, &argument, &sp) == 3 &&
	       (number == SYS_restart_syscall || number == thread->syscall) &&
	       argument == thread->arguments[0] && sp == thread->regs.value[CPROF_REG_SP];
}

/* Whether what the thread waits for still names the same owner. */
static bool same_owner(struct cprof_look *look, size_t index)
{
	const struct cprof_wait before = look->dump->threads[index].wait;
	struct cprof_wait *wait = &look->dump->threads[index].wait;
	bool same;

	cprof_wait_classify(look, index);
	same = wait->kind == before.kind && wait->address == before.address &&
	       wait->owner == before.owner;
	*wait = before;
	return same;
}

static enum answer confirm(struct cprof_look *look, const size_t *nodes, size_t length)
{
	CPROF_AUTO_FREE uint64_t *before = calloc(length, sizeof(*before));
	enum answer answer = ANSWER_YES;

	if (!before)
		return ANSWER_NO;
	for (size_t i = 0; i < length && answer == ANSWER_YES; i++) {
		before[i] = switches(look, look->dump->threads[nodes[i]].tid);
		answer = before[i] ? still_waits(look, nodes[i]) : ANSWER_NO;
	}
	for (size_t i = 0; i < length && answer == ANSWER_YES; i++)
		if (!same_owner(look, nodes[i]))
			answer = ANSWER_NO;
	for (size_t i = 0; i < length && answer == ANSWER_YES; i++)
		if (switches(look, look->dump->threads[nodes[i]].tid) != before[i])
			answer = ANSWER_LATER;
	return answer;
}

/* On a machine that is busy the threads may still be on their way back into their calls. */
static bool confirmed(struct cprof_look *look, const size_t *nodes, size_t length)
{
	enum answer answer;

	if (!look->settle_until)
		look->settle_until = cprof_now_ns() + SETTLE_NS;
	while ((answer = confirm(look, nodes, length)) == ANSWER_LATER &&
	       cprof_now_ns() < look->settle_until)
		usleep(SETTLE_US);
	return answer == ANSWER_YES;
}

/* --- the dump's ---------------------------------------------------------------------------- */

static bool add_deadlock(void *context, const size_t *nodes, size_t length)
{
	struct cprof_look *look = context;
	struct cprof_dump *dump = look->dump;
	struct cprof_deadlock *deadlock;

	if (!confirmed(look, nodes, length)) {
		if (length == 1) /* it has got the lock since it waited for it */
			dump->threads[nodes[0]].wait.owner = 0;
		return true;
	}
	deadlock = &dump->deadlocks[dump->deadlock_count];
	deadlock->tids = cprof_keep_take(look->keep, length * sizeof(*deadlock->tids));
	if (!deadlock->tids)
		return false;
	for (size_t i = 0; i < length; i++)
		deadlock->tids[i] = dump->threads[nodes[i]].tid;
	deadlock->count = length;
	dump->deadlock_count++;
	return true;
}

struct cprof_error *cprof_deadlock_find(struct cprof_look *look)
{
	struct cprof_dump *dump = look->dump;
	CPROF_AUTO_FREE size_t *next = calloc(dump->count + 1, sizeof(*next));

	/* Every thread is in one circle at most. */
	dump->deadlocks = cprof_keep_take(look->keep, (dump->count + 1) * sizeof(*dump->deadlocks));
	if (!next || !dump->deadlocks)
		return cprof_error_nomem();
	for (size_t i = 0; i < dump->count; i++) {
		const struct cprof_wait *wait = &dump->threads[i].wait;

		next[i] = wait->owner && !wait->owner_gone ? cprof_look_find(look, wait->owner)
							   : CPROF_NO_THREAD;
	}
	if (!cprof_deadlock_circles(next, dump->count, add_deadlock, look))
		return cprof_error_nomem();
	return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * Waits, from switch records and the stacks that go with them. Records come in the order of time
 * but for a few that become visible late; one that is missing must not invent time.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

/* The same switch can be told twice, where a thread has two events: that close to each other. */
#define TWICE_NS 20000ull
/* A sample is taken this long after the beginning of its wait at most. */
#define SAMPLE_NS 10000000ull

/* --- threads ------------------------------------------------------------------------------- */

static struct cprof_block_thread *find_thread(const struct cprof_block *block, pid_t tid)
{
	struct cprof_block_thread *thread;

	HASH_FIND_INT(block->by_tid, &tid, thread);
	return thread;
}

static void set_name(struct cprof_block *block, struct cprof_block_thread *thread)
{
	const char *name = block->config.name(block->config.context, thread->tid);

	thread->wanted = name;
	if (name)
		snprintf(thread->name, sizeof(thread->name), "%s", name);
}

static struct cprof_block_thread *add_thread(struct cprof_block *block, pid_t tid)
{
	struct cprof_block_thread *thread = calloc(1, sizeof(*thread));

	if (!thread || !cprof_grow(&block->threads, &block->thread_capacity,
				   block->thread_count + 1, sizeof(struct cprof_block_thread *))) {
		free(thread);
		block->no_memory = true;
		return NULL;
	}
	thread->tid = tid;
	thread->index = (uint32_t)block->thread_count;
	block->threads[block->thread_count++] = thread;
	HASH_ADD_INT(block->by_tid, tid, thread);
	set_name(block, thread);
	return thread;
}

/* A live thread; NULL for one that has ended, or is not wanted. */
static struct cprof_block_thread *get_thread(struct cprof_block *block, pid_t tid)
{
	struct cprof_block_thread *thread = find_thread(block, tid);

	if (!thread)
		thread = add_thread(block, tid);
	return thread && !thread->ended && thread->wanted ? thread : NULL;
}

/* --- waits --------------------------------------------------------------------------------- */

uint64_t cprof_block_length(const struct cprof_block *block,
			    const struct cprof_block_thread *thread, uint64_t until)
{
	uint64_t from = CPROF_MAX(thread->out_ns, block->begin_ns);

	return until > from ? until - from : 0;
}

static double draw(struct cprof_block *block)
{
	block->random += 0x9e3779b97f4a7c15ull;
	return (double)(cprof_hash_u64(block->random) >> 11) * 0x1p-53;
}

void cprof_block_add_account(struct cprof_block *block, const struct cprof_account_key *key,
			     double count, double ns)
{
	struct cprof_account *account;

	HASH_FIND(hh, block->accounts, key, sizeof(*key), account);
	if (!account) {
		account = calloc(1, sizeof(*account));
		if (!account) {
			block->no_memory = true;
			return;
		}
		account->key = *key;
		HASH_ADD(hh, block->accounts, key, sizeof(account->key), account);
	}
	account->count += count;
	account->ns += ns;
}

static void count_all(struct cprof_block *block, bool preempted, uint64_t many, uint64_t ns)
{
	block->stats.switches += many;
	block->stats.preempted += preempted ? many : 0;
	*(preempted ? &block->stats.runq_ns : &block->stats.blocked_ns) += ns;
}

/* Waits of a thread that are over, of about the same length. */
static void count(struct cprof_block *block, struct cprof_block_thread *thread, unsigned index,
		  uint64_t many, uint64_t ns)
{
	thread->strata[index].count += (double)many;
	thread->strata[index].ns += (double)ns;
	count_all(block, index == CPROF_PERF_STRATUM_RUNQ, many, ns);
}

/* One that is over and whose place is known stands for others of its length. */
static void charge(struct cprof_block *block, struct cprof_block_thread *thread,
		   const struct cprof_place *place, uint64_t ns, bool preempted, double weight)
{
	unsigned index = cprof_perf_stratum_of(ns, preempted);
	struct cprof_stratum *stratum = &thread->strata[index];
	const struct cprof_account_key key = {
		.thread = thread->index,
		.stack = place->stack,
		.stratum = index,
		.kind = preempted ? CPROF_WAIT_RUNQ : place->kind,
	};

	block->stats.weight += weight;
	if (ns < block->config.min_ns) {
		double share = (double)ns / (double)block->config.min_ns;

		if (draw(block) >= share)
			return;
		weight /= share;
	}
	stratum->samples++;
	stratum->sampled_count += weight;
	stratum->sampled_ns += weight * (double)ns;
	cprof_block_add_account(block, &key, weight, weight * (double)ns);
}

/* A wait is over: it counts, and so does its stack if it has one. */
static void account(struct cprof_block *block, struct cprof_block_thread *thread, uint64_t until)
{
	uint64_t ns = cprof_block_length(block, thread, until);

	if (!ns)
		return;
	if (thread->unsure) {
		count_all(block, thread->preempted, 1, ns);
		block->stats.unsure++;
		thread->unsure_count++;
		thread->unsure_ns += (double)ns;
		return;
	}
	count(block, thread, cprof_perf_stratum_of(ns, thread->preempted), 1, ns);
	if (thread->place.known)
		charge(block, thread, &thread->place, ns, thread->preempted, 1);
}

/* --- records ------------------------------------------------------------------------------- */

void cprof_block_sample(struct cprof_block *block, pid_t tid, uint64_t time, uint32_t stack)
{
	struct cprof_block_thread *thread = get_thread(block, tid);

	if (!thread)
		return;
	thread->next = (struct cprof_place){true, stack, CPROF_WAITS};
	thread->sampled_ns = time;
	if (time >= block->begin_ns)
		block->stats.samples++;
}

void cprof_block_out(struct cprof_block *block, pid_t tid, uint64_t time, bool preempted)
{
	struct cprof_block_thread *thread = get_thread(block, tid);

	if (!thread)
		return;
	if (thread->state == CPROF_BLOCK_OUT) {
		if (thread->out_ns && time < thread->out_ns + TWICE_NS)
			return;
		block->stats.broken += thread->out_ns && time >= block->begin_ns;
	}
	thread->place = thread->next;
	thread->next.known = false;
	/* A dump holds threads for a moment: then they go on to sleep where it found them. */
	if (!thread->place.known && time < block->begin_ns)
		thread->place = thread->asleep;
	thread->out_ns = time;
	thread->preempted = preempted;
	thread->unsure = false;
	if (thread->state == CPROF_BLOCK_IN && time <= thread->in_ns)
		account(block, thread, thread->in_ns); /* it became visible late */
	else
		thread->state = CPROF_BLOCK_OUT;
}

void cprof_block_in(struct cprof_block *block, pid_t tid, uint64_t time)
{
	struct cprof_block_thread *thread = get_thread(block, tid);

	if (!thread)
		return;
	if (thread->state == CPROF_BLOCK_OUT && time < thread->out_ns)
		return; /* it became visible late: the thread has gone out again */
	if (thread->state == CPROF_BLOCK_OUT)
		account(block, thread, time);
	thread->state = CPROF_BLOCK_IN;
	thread->in_ns = time;
	if (thread->sampled_ns < time)
		thread->next.known = false; /* its switch-out was lost */
}

/* --- sums ---------------------------------------------------------------------------------- */

/* Whether the last sample is from the beginning of the wait that began then. */
static bool has_sample(const struct cprof_block_thread *thread, uint64_t from)
{
	return thread->next.known && thread->sampled_ns >= from &&
	       thread->sampled_ns < from + SAMPLE_NS;
}

void cprof_block_wait(struct cprof_block *block, pid_t tid, const struct cprof_perf_wait *wait)
{
	struct cprof_block_thread *thread = find_thread(block, tid); /* may have ended by now */
	uint64_t from = CPROF_MAX(wait->from, block->begin_ns) + wait->spent;
	bool from_before = wait->from < block->begin_ns;
	const struct cprof_place *place = NULL;

	if (!thread || !thread->wanted)
		return;
	if (has_sample(thread, wait->from))
		place = &thread->next;
	else if (from_before && thread->asleep.known)
		place = &thread->asleep;
	if (place && wait->until > from)
		charge(block, thread, place, wait->until - from, wait->preempted,
		       from_before ? 1 : wait->weight);
	if (thread->sampled_ns <= wait->until)
		thread->next.known = false;
}

/* What is new in its sums. */
static void add_sums(struct cprof_block *block, struct cprof_block_thread *thread,
		     const struct cprof_perf_waits *waits)
{
	for (unsigned i = 0; i < CPROF_PERF_STRATA; i++) {
		const struct cprof_perf_stratum *now = &waits->strata[i];
		struct cprof_perf_stratum *told = &thread->told[i];

		if (now->count < told->count || now->ns < told->ns) /* another's number */
			*told = (struct cprof_perf_stratum){0};
		if (thread->wanted && now->count > told->count)
			count(block, thread, i, now->count - told->count, now->ns - told->ns);
		*told = *now;
	}
}

void cprof_block_sums(struct cprof_block *block, const struct cprof_perf_waits *waits)
{
	struct cprof_block_thread *thread = find_thread(block, waits->tid);

	if (!thread)
		thread = add_thread(block, waits->tid);
	if (!thread)
		return;
	add_sums(block, thread, waits);
	if (waits->ended || thread->ended || !thread->wanted || !waits->out_ns)
		return;
	thread->state = CPROF_BLOCK_OUT;
	thread->out_ns = waits->out_ns;
	thread->over_ns = waits->in_ns;
	thread->preempted = waits->preempted;
	if (waits->sampled && has_sample(thread, waits->out_ns))
		thread->place = thread->next;
	else if (waits->out_ns < block->begin_ns)
		thread->place = thread->asleep;
	else
		thread->place.known = false;
}

/* --- what happens to threads --------------------------------------------------------------- */

void cprof_block_begin(struct cprof_block *block, uint64_t time)
{
	struct cprof_account *each;
	struct cprof_account *next;

	block->begin_ns = time;
	block->stats = (struct cprof_block_stats){0};
	for (size_t i = 0; i < block->thread_count; i++) {
		memset(block->threads[i]->strata, 0, sizeof(block->threads[i]->strata));
		block->threads[i]->unsure_count = block->threads[i]->unsure_ns = 0;
	}
	HASH_ITER(hh, block->accounts, each, next)
	{
		HASH_DEL(block->accounts, each);
		free(each);
	}
}

void cprof_block_found(struct cprof_block *block, pid_t tid, bool asleep, uint32_t stack,
		       enum cprof_wait_kind kind)
{
	struct cprof_block_thread *thread = get_thread(block, tid);

	if (!thread || !asleep || thread->state != CPROF_BLOCK_UNKNOWN)
		return;
	thread->asleep = (struct cprof_place){stack != 0, stack, kind};
	thread->place = thread->asleep;
	thread->state = CPROF_BLOCK_OUT; /* since long before: out_ns is 0 */
}

/* A number may be used again: what follows is another thread's. */
static struct cprof_block_thread *renew(struct cprof_block *block, pid_t tid)
{
	struct cprof_block_thread *thread = find_thread(block, tid);

	if (thread) {
		thread->ended = true;
		HASH_DEL(block->by_tid, thread);
	}
	thread = add_thread(block, tid);
	if (thread)
		thread->state = CPROF_BLOCK_IN;
	return thread;
}

void cprof_block_born(struct cprof_block *block, pid_t tid)
{
	renew(block, tid);
}

/* It still switches a few times, and never comes back from the last. */
static void end(struct cprof_block *block, struct cprof_block_thread *thread)
{
	set_name(block, thread);
	thread->ended = true;
}

void cprof_block_ended(struct cprof_block *block, pid_t tid, uint64_t time)
{
	struct cprof_block_thread *thread = find_thread(block, tid);

	if (!thread || thread->ended)
		return;
	end(block, thread);
	/* Asleep since before: it has been woken only to end, of which nothing else may be told. */
	if (thread->wanted && thread->state == CPROF_BLOCK_OUT && !thread->out_ns)
		account(block, thread, time);
}

void cprof_block_renamed(struct cprof_block *block, pid_t tid)
{
	struct cprof_block_thread *thread = find_thread(block, tid);

	if (thread && !thread->ended)
		set_name(block, thread);
}

void cprof_block_exec(struct cprof_block *block, pid_t tid)
{
	const struct cprof_block_thread *before = find_thread(block, tid);
	const bool was_over = before && before->ended;
	struct cprof_block_thread *thread;

	for (size_t i = 0; i < block->thread_count; i++)
		if (block->threads[i]->tid != tid && !block->threads[i]->ended)
			end(block, block->threads[i]);
	thread = renew(block, tid);
	/* It is the same to the kernel, unless another has taken the number of one that ended. */
	if (thread && before && !was_over)
		memcpy(thread->told, before->told, sizeof(thread->told));
}

void cprof_block_lost(struct cprof_block *block)
{
	for (size_t i = 0; i < block->thread_count; i++)
		if (!block->threads[i]->ended && block->threads[i]->state == CPROF_BLOCK_OUT)
			block->threads[i]->unsure = true;
}

void cprof_block_stats(const struct cprof_block *block, struct cprof_block_stats *stats)
{
	*stats = block->stats;
}

/* --- life ---------------------------------------------------------------------------------- */

struct cprof_error *cprof_block_create(const struct cprof_block_config *config,
				       struct cprof_block **block)
{
	*block = calloc(1, sizeof(**block));
	if (!*block)
		return cprof_error_nomem();
	(*block)->config = *config;
	(*block)->random = config->seed;
	(*block)->begin_ns = UINT64_MAX;
	return NULL;
}

void cprof_block_destroy(struct cprof_block *block)
{
	if (!block)
		return;
	cprof_block_begin(block, 0);
	HASH_CLEAR(hh, block->by_tid);
	for (size_t i = 0; i < block->thread_count; i++)
		free(block->threads[i]);
	free(block->threads);
	free(block);
}

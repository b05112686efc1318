/* SPDX-License-Identifier: MIT
 *
 * For who runs for days: threads that ended long ago become one. Their sums stay as they are; the
 * one that stands for them has whole accounts, so that nothing of it is scaled again.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define NEWEST 1024 /* a thread that has just ended still switches a few times */

/* Strata of the one that stands for others. */
enum { REST_SAMPLED = 0, REST_UNSAMPLED = 1, REST_SAMPLED_RUNQ = 2 };

static struct cprof_block_thread *create_rest(struct cprof_block *block)
{
	struct cprof_block_thread *rest = calloc(1, sizeof(*rest));

	if (!rest || !cprof_grow(&block->threads, &block->thread_capacity, block->thread_count + 1,
				 sizeof(*block->threads))) {
		free(rest);
		return NULL;
	}
	snprintf(rest->name, sizeof(rest->name), "[ended threads]");
	rest->wanted = rest->ended = true;
	block->threads[block->thread_count++] = rest;
	block->rest = rest;
	return rest;
}

static void add_stratum(struct cprof_stratum *stratum, double count, double ns, bool sampled)
{
	stratum->count += count;
	stratum->ns += ns;
	if (!sampled)
		return;
	stratum->sampled_count += count;
	stratum->sampled_ns += ns;
}

/* Moves what is known of a thread's waits without stacks. */
static void move_unsampled(const struct cprof_block_thread *thread, struct cprof_block_thread *rest)
{
	rest->unsure_count += thread->unsure_count;
	rest->unsure_ns += thread->unsure_ns;
	for (unsigned i = 0; i < CPROF_PERF_STRATA; i++) {
		const struct cprof_stratum *stratum = &thread->strata[i];

		if (!(stratum->sampled_count > 0))
			add_stratum(
				&rest->strata[i == CPROF_PERF_STRATUM_RUNQ ? CPROF_PERF_STRATUM_RUNQ
									   : REST_UNSAMPLED],
				stratum->count, stratum->ns, false);
	}
}

/* The account of the rest that a thread's account goes to. */
static struct cprof_account_key rest_key(struct cprof_account_key key,
					 const struct cprof_block_thread *rest)
{
	key.thread = rest->index;
	key.stratum = key.stratum == CPROF_PERF_STRATUM_RUNQ ? (uint32_t)REST_SAMPLED_RUNQ
							     : (uint32_t)REST_SAMPLED;
	return key;
}

static bool is_old(const struct cprof_block *block, size_t index)
{
	return block->threads[index]->ended && block->threads[index] != block->rest &&
	       index + NEWEST < block->thread_count;
}

/* All accounts under their threads' new numbers; those of old ones in the rest's. */
static void move_accounts(struct cprof_block *block, const bool *old)
{
	struct cprof_account *accounts = block->accounts;
	struct cprof_account *each;
	struct cprof_account *next;

	block->accounts = NULL;
	HASH_ITER(hh, accounts, each, next)
	{
		const struct cprof_block_thread *thread = block->threads[each->key.thread];
		const struct cprof_stratum *stratum = &thread->strata[each->key.stratum];
		struct cprof_account_key key = each->key;
		double count = each->count;
		double ns = each->ns;

		HASH_DEL(accounts, each);
		free(each);
		if (old[key.thread]) {
			count *= cprof_block_scale(stratum->count, stratum->sampled_count);
			ns *= cprof_block_scale(stratum->ns, stratum->sampled_ns);
			key = rest_key(key, block->rest);
			add_stratum(&block->rest->strata[key.stratum], count, ns, true);
		} else {
			key.thread = thread->index;
		}
		cprof_block_add_account(block, &key, count, ns);
	}
}

/* Frees the old ones; the others move up. */
static void drop_threads(struct cprof_block *block, const bool *old)
{
	size_t kept = 0;

	for (size_t i = 0; i < block->thread_count; i++) {
		struct cprof_block_thread *thread = block->threads[i];
		struct cprof_block_thread *found;

		if (!old[i]) {
			block->threads[kept++] = thread;
			continue;
		}
		HASH_FIND_INT(block->by_tid, &thread->tid, found);
		if (found == thread)
			HASH_DEL(block->by_tid, thread);
		free(thread);
	}
	block->thread_count = kept;
}

bool cprof_block_fold(struct cprof_block *block, size_t most)
{
	CPROF_AUTO_FREE bool *old = NULL;
	uint32_t kept = 0;

	if (block->thread_count <= CPROF_MAX(most, (size_t)2 * NEWEST) ||
	    (!block->rest && !create_rest(block)))
		return false;
	old = calloc(block->thread_count, sizeof(*old));
	if (!old)
		return false;
	cprof_block_settle(block);
	for (size_t i = 0; i < block->thread_count; i++) {
		old[i] = is_old(block, i);
		if (!old[i])
			block->threads[i]->index = kept++;
	}
	for (size_t i = 0; i < block->thread_count; i++)
		if (old[i])
			move_unsampled(block->threads[i], block->rest);
	move_accounts(block, old);
	drop_threads(block, old);
	return true;
}

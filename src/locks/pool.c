/* SPDX-License-Identifier: MIT
 *
 * Threads that ended soon: where stacks are thinned, each has few of them or none, and one that
 * stands for all waits of its thread would draw to it the time of longer ones. So of such threads
 * the waits of a length stand together.
 */
#include "private.h"

#define ENOUGH 8 /* waits with stacks, for a thread to stand alone */

static bool is_pooled(const struct cprof_block *block, const struct cprof_block_thread *thread,
		      unsigned index)
{
	const struct cprof_stratum *stratum = &thread->strata[index];
	uint64_t samples = 0;

	if (!thread->ended || thread->alone || thread == block->rest ||
	    (double)stratum->samples >= stratum->count)
		return false;
	for (unsigned i = 0; i < CPROF_PERF_STRATA; i++)
		samples += thread->strata[i].samples;
	return samples < ENOUGH;
}

void cprof_block_pool(const struct cprof_block *block, struct cprof_stratum *pool)
{
	for (size_t i = 0; i < block->thread_count; i++)
		for (unsigned j = 0; j < CPROF_PERF_STRATA; j++) {
			const struct cprof_stratum *stratum = &block->threads[i]->strata[j];

			if (!is_pooled(block, block->threads[i], j))
				continue;
			pool[j].count += stratum->count;
			pool[j].ns += stratum->ns;
			pool[j].sampled_count += stratum->sampled_count;
			pool[j].sampled_ns += stratum->sampled_ns;
		}
}

const struct cprof_stratum *cprof_block_stratum(const struct cprof_block *block,
						const struct cprof_stratum *pool,
						const struct cprof_block_thread *thread,
						unsigned index)
{
	return is_pooled(block, thread, index) ? &pool[index] : &thread->strata[index];
}

double cprof_block_scale(double all, double sampled)
{
	return sampled > 0 ? all / sampled : 0;
}

static void take_share(struct cprof_stratum *stratum, const struct cprof_stratum *pool)
{
	stratum->sampled_count *= cprof_block_scale(pool->count, pool->sampled_count);
	stratum->sampled_ns *= cprof_block_scale(pool->ns, pool->sampled_ns);
	stratum->count = stratum->sampled_count;
	stratum->ns = stratum->sampled_ns;
}

void cprof_block_settle(struct cprof_block *block)
{
	struct cprof_stratum pool[CPROF_PERF_STRATA] = {0};

	cprof_block_pool(block, pool);
	for (struct cprof_account *each = block->accounts; each; each = each->hh.next) {
		const struct cprof_stratum *all = &pool[each->key.stratum];

		if (!is_pooled(block, block->threads[each->key.thread], each->key.stratum))
			continue;
		each->count *= cprof_block_scale(all->count, all->sampled_count);
		each->ns *= cprof_block_scale(all->ns, all->sampled_ns);
	}
	for (size_t i = 0; i < block->thread_count; i++) {
		struct cprof_block_thread *thread = block->threads[i];

		for (unsigned j = 0; j < CPROF_PERF_STRATA; j++)
			if (pool[j].sampled_count > 0 && is_pooled(block, thread, j))
				take_share(&thread->strata[j], &pool[j]);
		thread->alone = thread->ended;
	}
}

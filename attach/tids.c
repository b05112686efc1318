/* SPDX-License-Identifier: MIT
 *
 * Where the C library keeps a thread's tid: the word of its block that is the tid in one thread
 * after another. The agent reads it there instead of asking the kernel each time.
 */
#include "bounds.h"

#include <cprof/target.h>
#include <string.h>

/* Numbers that something else is not likely to be by chance, for a process with one thread only. */
#define TID_TELLING 256u

/* Words that are the tid, and were in all threads before; the last of them. */
static size_t agree(const struct cprof_agent_tids *tids, const uint32_t *words, uint32_t tid,
		    size_t *last)
{
	size_t count = 0;

	for (size_t i = 1; i < CPROF_AGENT_BOUNDS_TID_WORDS; i++)
		if (words[i] == tid && !tids->not_here[i]) {
			*last = i;
			count++;
		}
	return count;
}

uint32_t cprof_agent_tids_learn(struct cprof_agent_tids *tids, const struct cprof_target *target,
				uint64_t thread_pointer, uint32_t tid)
{
	uint32_t words[CPROF_AGENT_BOUNDS_TID_WORDS];
	size_t got = cprof_target_read(target, thread_pointer, words, sizeof(words));
	size_t last = 0;
	size_t count;

	memset((uint8_t *)words + got, 0, sizeof(words) - got);
	count = tid ? agree(tids, words, tid, &last) : 0;
	if (!count) { /* it has ended, or has its parent's block (vfork) */
		if (tids->threads < 2)
			memset(tids, 0, sizeof(*tids));
		return tids->offset;
	}
	for (size_t i = 0; i < CPROF_AGENT_BOUNDS_TID_WORDS; i++)
		tids->not_here[i] |= words[i] != tid;
	tids->threads += tid != tids->tid;
	tids->tid = tid;
	/* A tid may also stand in what has to do with the thread, a lock that it holds. */
	if (count == 1 && (tids->threads > 1 || tid >= TID_TELLING))
		tids->offset = (uint32_t)(last * sizeof(words[0]));
	return tids->offset;
}

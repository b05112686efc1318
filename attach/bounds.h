/* SPDX-License-Identifier: MIT
 *
 * What bounds.c and tids.c share.
 */
#ifndef CPROF_ATTACH_BOUNDS_H
#define CPROF_ATTACH_BOUNDS_H

#include <cprof/agent_ring.h>

#define CPROF_AGENT_BOUNDS_PENDING   64u
#define CPROF_AGENT_BOUNDS_TID_WORDS 512u /* of a thread's block, from the thread pointer on */

struct cprof_agent_bounds {
	struct cprof_agent_bounds_thread {
		uint64_t thread_pointer; /* 0: none */
		uint64_t sp;
		uint64_t low; /* as published; 0: not found */
		uint64_t high;
		uint64_t looked_ns;
		uint32_t tid;
		bool pending;
	} threads[CPROF_AGENT_SHARDS]; /* by shard */
	uint32_t pending[CPROF_AGENT_BOUNDS_PENDING];
	size_t pending_count;
	struct cprof_agent_tids {
		bool not_here[CPROF_AGENT_BOUNDS_TID_WORDS]; /* words that were not the tid of a
								thread */
		uint32_t tid;     /* of the thread looked at last, 0: none */
		uint32_t threads; /* that agree; from 2 on it is certain */
		uint32_t offset;  /* bytes, 0: not known */
	} tids;
	uint64_t now_ns;  /* of the last drain */
	uint64_t read_ns; /* when maps were read last */
};

/* Looks where in this thread's block the libc keeps its tid; the word's offset from the
 * thread pointer, 0: not known yet. */
uint32_t cprof_agent_tids_learn(struct cprof_agent_tids *tids, const struct cprof_target *target,
				uint64_t thread_pointer, uint32_t tid);

#endif

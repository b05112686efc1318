/* SPDX-License-Identifier: MIT
 *
 * What the files of off-CPU accounting share.
 */
#ifndef CPROF_LOCKS_PRIVATE_H
#define CPROF_LOCKS_PRIVATE_H

#include <cprof/locks.h>
#include <uthash.h>

enum cprof_block_state {
	CPROF_BLOCK_UNKNOWN, /* nothing was told of it yet */
	CPROF_BLOCK_IN,
	CPROF_BLOCK_OUT,
};

struct cprof_stratum {
	double count; /* all waits */
	double ns;
	double sampled_count; /* those that have stacks, by their weights */
	double sampled_ns;
	uint64_t samples; /* how many they are */
};

/* Where a thread's next or present wait is. */
struct cprof_place {
	bool known;
	uint32_t stack;
	enum cprof_wait_kind kind; /* CPROF_WAITS: by names */
};

/* One more wait of a stratum; `ns` 0: none. */
struct cprof_stood_for {
	unsigned stratum;
	double ns;
};

/* Kept to the end: its accounts are told under its name. */
struct cprof_block_thread {
	pid_t tid;
	uint32_t index; /* in the list of all */
	char name[64];
	bool wanted;
	bool ended;
	bool alone; /* ended: no others stand for it any more */
	bool preempted;
	bool unsure; /* records were lost since it went out */
	enum cprof_block_state state;
	uint64_t out_ns;
	uint64_t over_ns; /* OUT: that wait is over since then, and not yet counted */
	uint64_t in_ns;
	uint64_t sampled_ns;       /* when `next` was */
	struct cprof_place next;   /* of a sample whose switch-out has not come */
	struct cprof_place place;  /* of the present wait */
	struct cprof_place asleep; /* as a dump found it */
	struct cprof_stratum strata[CPROF_PERF_STRATA];
	struct cprof_perf_stratum told[CPROF_PERF_STRATA]; /* the last sums */
	struct cprof_stood_for stood_for; /* while rows are made: the present wait */
	double unsure_count;              /* waits during which records were lost */
	double unsure_ns;
	UT_hash_handle hh;
};

struct cprof_account_key {
	uint32_t thread;
	uint32_t stack;
	uint32_t stratum;
	uint32_t kind;
};

struct cprof_account {
	struct cprof_account_key key;
	double count;
	double ns;
	UT_hash_handle hh;
};

struct cprof_block {
	struct cprof_block_config config;
	uint64_t begin_ns; /* UINT64_MAX: not yet */
	uint64_t random;
	struct cprof_block_thread *by_tid;
	struct cprof_block_thread **threads; /* all there ever were */
	size_t thread_count;
	size_t thread_capacity;
	struct cprof_block_thread *rest; /* one of them that stands for many, NULL none */
	struct cprof_account *accounts;
	struct cprof_block_stats stats;
	bool no_memory;
};

/* What a row's stack is when there is none. */
enum cprof_row_marker {
	CPROF_ROW_STACK,
	CPROF_ROW_NOT_SAMPLED, /* "[stack not sampled]" */
	CPROF_ROW_UNSURE,      /* "[lost switches]" */
};

struct cprof_row {
	enum cprof_row_marker marker;
	uint32_t stack;
	enum cprof_wait_kind kind; /* CPROF_WAITS: by names */
	uint32_t thread;           /* index into names */
	double count;
	double ns;
};

struct cprof_block_rows {
	struct cprof_row *rows;
	size_t count;
	size_t capacity;
	struct cprof_row_thread {
		pid_t tid;
		char name[64];
	} * threads;
	size_t thread_count;
};

void cprof_block_add_account(struct cprof_block *block, const struct cprof_account_key *key,
			     double count, double ns);
/* The time of a wait that counts: none before the beginning. */
uint64_t cprof_block_length(const struct cprof_block *block,
			    const struct cprof_block_thread *thread, uint64_t until);

/* pool.c: what all threads of a pool have together, added to `pool` by stratum; and where it is
 * that a thread's accounts are scaled: there or by themselves. */
void cprof_block_pool(const struct cprof_block *block, struct cprof_stratum *pool);
const struct cprof_stratum *cprof_block_stratum(const struct cprof_block *block,
						const struct cprof_stratum *pool,
						const struct cprof_block_thread *thread,
						unsigned index);
double cprof_block_scale(double all, double sampled);
/* From now on each stands alone, with what it has been given. */
void cprof_block_settle(struct cprof_block *block);

#endif

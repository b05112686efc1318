/* SPDX-License-Identifier: MIT
 *
 * What the files of contention share.
 */
#ifndef CPROF_LOCKS_CONTENTION_H
#define CPROF_LOCKS_CONTENTION_H

#include <cprof/locks.h>
#include <uthash.h>

struct cprof_contention_lock {
	uint64_t address;
	uint32_t index;
	double count; /* waits that are over, and what they took */
	double delay_ns;
	uint64_t longest_ns;
	char label[192]; /* "" not named yet */
	UT_hash_handle hh;
};

struct cprof_contention_key {
	uint32_t stack; /* the builder's, 0: UNKNOWN */
	uint32_t lock;
	uint32_t side; /* enum cprof_contention_side */
};
struct cprof_contention_account {
	struct cprof_contention_key key;
	double count;
	double delay_ns;
	UT_hash_handle hh;
};

/* A wait that goes on, as far as is known. */
struct cprof_contention_wait {
	uint64_t id;
	uint32_t stack;
	uint32_t lock;
	double weight;
	bool wanted;
	uint32_t tid;    /* as the target has it, 0 unknown */
	uint32_t absent; /* times in a row that its thread was not found in the wait */
	uint64_t began_ns;
	UT_hash_handle hh;
};

/* What waits charge to an unlock whose record has not come yet. */
struct cprof_contention_tail {
	uint64_t id; /* of that unlock */
	uint32_t lock;
	double count;
	double delay_ns;
	uint64_t since_ns;
	UT_hash_handle hh;
};

/* Unlocks whose records have come: by id modulo the size. */
#define CPROF_CONTENTION_UNLOCKS (1u << 16)
struct cprof_contention_unlock {
	uint64_t id;
	uint32_t stack;
	bool wanted;
};

/* What the agent counts of records that found no room. */
struct cprof_contention_losses {
	uint64_t dropped;         /* all but waits for which there was no entry */
	uint64_t dropped_unlocks; /* of them: they told of unlocks, and what was charged to them */
	uint64_t dropped_ns;
	uint64_t refused; /* waits for which there was none, and what they stood for */
	uint64_t refused_weight;
};

struct cprof_contention {
	struct cprof_agent_records *records;
	struct cprof_builder *builder;
	struct cprof_agent_ring ring;
	struct cprof_contention_lock *by_address;
	struct cprof_contention_lock **locks; /* by index */
	size_t lock_count;
	size_t lock_capacity;
	struct cprof_contention_account *accounts;
	struct cprof_contention_wait *waits;
	struct cprof_contention_tail *tails;
	struct cprof_contention_unlock *unlocks;
	struct cprof_contention_stats stats;
	struct cprof_contention_losses losses_before; /* by earlier profiles */
	struct cprof_contention_losses losses;
	uint64_t started_ns;
	uint64_t adapted_ns;
	uint64_t checked_ns;
	uint64_t named_ns;
	size_t named; /* locks there were then */
	bool no_memory;
};

enum cprof_contention_marker {
	CPROF_CONTENTION_STACK,
	CPROF_CONTENTION_UNKNOWN, /* "[holder unknown]" */
	CPROF_CONTENTION_HELD,    /* "[still held]" */
	CPROF_CONTENTION_LOST,    /* "[lost samples]" */
};
struct cprof_contention_row {
	enum cprof_contention_marker marker;
	enum cprof_contention_side side;
	uint32_t stack;
	uint32_t lock; /* UINT32_MAX: none */
	double count;
	double delay_ns;
};
struct cprof_contention_rows {
	struct cprof_contention_row *rows;
	size_t count;
	size_t capacity;
	struct cprof_contention_lock *locks; /* copies */
	size_t lock_count;
	uint64_t started_ns;
};

/* Gives names to locks that have none yet, while the target is there to be looked at. */
void cprof_contention_name_locks(struct cprof_contention *contention);
/* A wait is over: accounts for its waiter's side, and forgets it. */
void cprof_contention_settle(struct cprof_contention *contention,
			     struct cprof_contention_wait *wait, uint64_t delay_ns);
/* The agent's entry of a wait, NULL: it has none (any more). */
struct cprof_agent_wait *cprof_contention_entry(const struct cprof_contention *contention,
						const struct cprof_contention_wait *wait);
/* gone.c: ends waits whose thread has ended, or left them by longjmp. */
void cprof_contention_end_gone(struct cprof_contention *contention);
/* How much of a wait that goes on nobody has been charged with, and all of it; false: it is over.
 */
bool cprof_contention_goes_on(const struct cprof_contention *contention,
			      const struct cprof_contention_wait *wait, uint64_t now,
			      double *uncharged_ns, double *all_ns);

#endif

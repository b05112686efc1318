/* SPDX-License-Identifier: MIT
 *
 * Off-CPU accounting: where threads wait, from the kernel's switch records or its sums of waits. A
 * wait lasts from where a thread leaves its CPU to where it has one again. Its stack is that of the
 * sample from its beginning; not every wait has one (they are thinned where switches come too fast,
 * and can be lost), but every wait is counted: of each thread, waits of about the same length are
 * taken together, and those that have stacks stand for all of them:
 *
 *   value of a stack = sum of its waits x (all waits / waits with a stack)
 *
 * So the sums are exact; of threads that ended with few stacks, those of all together. Where no
 * wait of that length had a stack, its time goes to a marker. And contention: what the agent's
 * hooks of locks tell, see below. Not locked: the caller does that.
 */
#ifndef CPROF_LOCKS_H
#define CPROF_LOCKS_H

#include <cprof/agent_ring.h>
#include <cprof/builder.h>
#include <cprof/error.h>
#include <cprof/perf.h>
#include <cprof/profile.h>
#include <cprof/threads.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cprof_block;

struct cprof_block_config {
	/* A shorter wait is counted with the probability length / min_ns, and then stands for as
	 * many, as by Go's SetBlockProfileRate. 0: all are counted. */
	uint64_t min_ns;
	uint64_t seed; /* for that choice */
	/* A thread's name now, safe to show; NULL: it is not wanted. */
	const char *(*name)(void *context, pid_t tid);
	void *context;
};

struct cprof_block_stats {
	uint64_t switches;  /* of waits that have ended or go on */
	uint64_t preempted; /* of them: the thread would have gone on */
	uint64_t samples;   /* stacks */
	double weight;      /* switches that they stand for */
	uint64_t broken;    /* waits whose end was not told: they count for nothing */
	uint64_t unsure;    /* waits during which records were lost */
	uint64_t blocked_ns;
	uint64_t runq_ns;
};

struct cprof_error *cprof_block_create(const struct cprof_block_config *config,
				       struct cprof_block **block);
void cprof_block_destroy(struct cprof_block *block);

/* Times are CLOCK_MONOTONIC. Records may come from before the beginning: a wait that goes on then
 * counts from there. Nothing counts until this is called; what was counted before is forgotten. */
void cprof_block_begin(struct cprof_block *block, uint64_t time);
/* A thread that a dump found: `stack` is a profile's id, 0 unknown. Asleep: until a record says
 * otherwise it waits there. */
void cprof_block_found(struct cprof_block *block, pid_t tid, bool asleep, uint32_t stack,
		       enum cprof_wait_kind kind);
/* The stack with which the thread's next switch-out happens. */
void cprof_block_sample(struct cprof_block *block, pid_t tid, uint64_t time, uint32_t stack);
/* Where each switch is told. */
void cprof_block_out(struct cprof_block *block, pid_t tid, uint64_t time, bool preempted);
void cprof_block_in(struct cprof_block *block, pid_t tid, uint64_t time);
/* Where waits are summed up: how long one with a sample was, and that it stands for others; and the
 * sums, where each thread is, and the end of each. */
void cprof_block_wait(struct cprof_block *block, pid_t tid, const struct cprof_perf_wait *wait);
void cprof_block_sums(struct cprof_block *block, const struct cprof_perf_waits *waits);
void cprof_block_born(struct cprof_block *block, pid_t tid);
void cprof_block_ended(struct cprof_block *block, pid_t tid, uint64_t time);
void cprof_block_renamed(struct cprof_block *block, pid_t tid);
/* It runs another program now, alone. */
void cprof_block_exec(struct cprof_block *block, pid_t tid);
/* Records were lost: whoever waits may have run meanwhile. */
void cprof_block_lost(struct cprof_block *block);
/* Where there are more threads than `most`, those that ended long ago become one, "[ended
 * threads]". Nothing of the sums changes. True: rows made before do not compare with later ones. */
bool cprof_block_fold(struct cprof_block *block, size_t most);
void cprof_block_stats(const struct cprof_block *block, struct cprof_block_stats *stats);

/* What there is to tell, waits that go on until `now` included. */
struct cprof_block_rows;
struct cprof_error *cprof_block_rows(struct cprof_block *block, uint64_t now,
				     struct cprof_block_rows **rows);
void cprof_block_rows_destroy(struct cprof_block_rows *rows);
/* Leaves what is new since earlier rows of the same accounts. False without memory. */
bool cprof_block_rows_subtract(struct cprof_block_rows *rows,
			       const struct cprof_block_rows *before);
/* How much is kept, for who keeps many. */
size_t cprof_block_rows_count(const struct cprof_block_rows *rows);
/* Adds value types as Go's block profile has them; before any sample. */
void cprof_block_describe(struct cprof_profile *profile);
/* Adds the rows to a profile in which their stacks' ids are good and named: what is waited for is
 * told by names. The scheduler's own frames are left out, and with `no_kernel` all of the kernel.
 */
struct cprof_error *cprof_block_fill(const struct cprof_block_rows *rows, bool no_kernel,
				     struct cprof_profile *profile);

/* What a stack waits for. `names` are its functions, innermost first, NULL unknown; the first
 * `kernel_count` are the kernel's. */
enum cprof_wait_kind cprof_block_kind(const char *const *names, size_t kernel_count, size_t count);

/* --- contention ---------------------------------------------------------------------------- */

/*
 * One in N waits for a lock is timed and stands for N. A waiter's delay is charged, bit by bit, to
 * those who unlock meanwhile, the rest of it to the last of them, as Go's mutex profile does; and
 * all of it to the waiter's own stack, which is the other side of the same sums.
 */
struct cprof_contention;

enum cprof_contention_side {
	CPROF_CONTENTION_HOLDER, /* the stacks that unlocked */
	CPROF_CONTENTION_WAITER, /* the stacks that waited */
};

struct cprof_contention_stats {
	uint64_t samples;          /* stacks: waits and unlocks */
	uint64_t timed;            /* waits */
	double contended;          /* waits that they stand for */
	double delay_ns;           /* of waits that are over */
	uint64_t lost;             /* records */
	uint64_t malformed;        /* of them: made no sense */
	uint64_t locks;            /* that were ever waited for */
	uint64_t ends[CPROF_ENDS]; /* of `samples` */
	uint64_t frames;
	uint64_t unwind_ns;
};

/* `records` is not owned. */
struct cprof_error *cprof_contention_create(struct cprof_agent_records *records,
					    struct cprof_contention **contention);
void cprof_contention_destroy(struct cprof_contention *contention);
/* Consumes the ring, chooses how many waits are timed; collector thread. How full the ring was. */
double cprof_contention_drain(struct cprof_contention *contention);
void cprof_contention_stats(const struct cprof_contention *contention,
			    struct cprof_contention_stats *stats);
struct cprof_builder *cprof_contention_builder(struct cprof_contention *contention);

/* What there is to tell, with the waits that go on at `now` (CLOCK_MONOTONIC; 0: none does any
 * more). Locks get their names here. */
struct cprof_contention_rows;
struct cprof_error *cprof_contention_rows(struct cprof_contention *contention, uint64_t now,
					  struct cprof_contention_rows **rows);
/* The same without names of locks, to be subtracted from later ones: cheap. */
struct cprof_error *cprof_contention_mark(struct cprof_contention *contention, uint64_t now,
					  struct cprof_contention_rows **rows);
void cprof_contention_rows_destroy(struct cprof_contention_rows *rows);
bool cprof_contention_rows_subtract(struct cprof_contention_rows *rows,
				    const struct cprof_contention_rows *before);
size_t cprof_contention_rows_count(const struct cprof_contention_rows *rows);
/*
 * Adds one side to a named profile in which the stacks' ids are good: types as Go's mutex profile,
 * label `lock`, and for each of the locks that were waited for longest a comment:
 *   lock "LABEL": contentions 812, delay 123456789 ns, longest 4567890 ns, waiters f 61%; g 39%
 * Where the stacks are those of the waiters another comment says so.
 */
#define CPROF_CONTENTION_OF_WAITERS "stacks are of those that waited"
struct cprof_error *cprof_contention_fill(const struct cprof_contention_rows *rows,
					  enum cprof_contention_side side,
					  struct cprof_profile *profile);
/* Whether a function only locks or unlocks: who called it is of interest. */
bool cprof_contention_is_lock(const char *function);

#endif

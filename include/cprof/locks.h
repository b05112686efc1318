/* SPDX-License-Identifier: MIT
 *
 * Off-CPU accounting: where threads wait, from the kernel's switch records. A wait lasts from where
 * a thread leaves its CPU to where it has one again. Its stack is that of the sample that came just
 * before; not every wait has one (stacks are thinned where switches come too fast, and can be
 * lost), but every wait is counted: of each thread, waits of about the same length are taken
 * together, and those that have stacks stand for all of them:
 *
 *   value of a stack = sum of its waits x (all waits / waits with a stack)
 *
 * So the sums are exact. Where no wait of that length had a stack, its time goes to a marker.
 * Not locked: the caller does that.
 */
#ifndef CPROF_LOCKS_H
#define CPROF_LOCKS_H

#include <cprof/error.h>
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
void cprof_block_sample(struct cprof_block *block, pid_t tid, uint64_t time, uint32_t stack,
			double weight);
void cprof_block_out(struct cprof_block *block, pid_t tid, uint64_t time, bool preempted);
void cprof_block_in(struct cprof_block *block, pid_t tid, uint64_t time);
void cprof_block_born(struct cprof_block *block, pid_t tid);
void cprof_block_ended(struct cprof_block *block, pid_t tid);
void cprof_block_renamed(struct cprof_block *block, pid_t tid);
/* It runs another program now, alone. */
void cprof_block_exec(struct cprof_block *block, pid_t tid);
/* Records were lost: whoever waits may have run meanwhile. */
void cprof_block_lost(struct cprof_block *block);
void cprof_block_stats(const struct cprof_block *block, struct cprof_block_stats *stats);

/* What there is to tell, waits that go on until `now` included. */
struct cprof_block_rows;
struct cprof_error *cprof_block_rows(struct cprof_block *block, uint64_t now,
				     struct cprof_block_rows **rows);
void cprof_block_rows_destroy(struct cprof_block_rows *rows);
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

#endif

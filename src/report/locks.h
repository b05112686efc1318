/* SPDX-License-Identifier: MIT
 *
 * Who makes whom wait, by lock: what the samples and the comments of a mutex profile tell.
 */
#ifndef CPROF_REPORT_LOCKS_H
#define CPROF_REPORT_LOCKS_H

#include "private.h"

/* The innermost function of a stack that does more than lock, with what its samples sum up to. */
struct cprof_lock_stack {
	uint32_t lock;     /* index */
	uint32_t function; /* string id, 0 unknown */
	double delay_ns;
	double contentions;
};

/* As a comment tells it. */
struct cprof_lock_waiter {
	const char *name; /* `length` bytes */
	size_t length;
	double percent;
};

struct cprof_lock {
	const char *name; /* `length` bytes, as the file has it; NULL: no label */
	size_t length;
	double delay_ns; /* of the comment, if there is one; else of its samples */
	double contentions;
	double sampled_ns; /* by its samples */
	bool told;         /* by a comment, as the following */
	double longest_ns;
	const char *waiters;                   /* "f 61%; g 39%", NULL unknown */
	const struct cprof_lock_stack *stacks; /* most delay first */
	size_t stack_count;
};

struct cprof_locks {
	const struct cprof_profile *profile;
	struct cprof_lock *locks; /* as they are to be shown */
	size_t count;
	size_t out_of;   /* before focus, ignore and the limit */
	double delay_ns; /* of all */
	double contentions;
	bool are_waiters; /* the stacks are of those that waited, not of those that held */
	bool sides_known;
	struct cprof_lock_stack *stacks;
};

/* A usage error if it is no profile of locks. The profile must outlive the result. */
struct cprof_error *cprof_locks_init(struct cprof_locks *locks, const struct cprof_profile *profile,
				     const struct cprof_report_options *options);
void cprof_locks_deinit(struct cprof_locks *locks);
/* The next one of a comment's text, which is moved behind it; false at the end. */
bool cprof_lock_next_waiter(const char **text, struct cprof_lock_waiter *waiter);

#endif

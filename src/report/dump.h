/* SPDX-License-Identifier: MIT
 *
 * Thread dumps: what text and JSON share.
 */
#ifndef CPROF_REPORT_DUMP_H
#define CPROF_REPORT_DUMP_H

#include <cprof/threads.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A thread in the order of the report. */
struct cprof_dump_entry {
	const struct cprof_dump_thread *thread;
	uint64_t hash;  /* of what makes threads one group */
	uint64_t still; /* ns for which it has not been seen to move, 0: it has, or nothing earlier
			 */
	size_t group;   /* entries of its group; they follow one another, the lowest tid first */
};

/* Entries for all threads; grouped: the largest group first; with `all`: as they are, each a
 * group. `earlier` may be NULL. The caller frees. */
struct cprof_error *cprof_dump_entries(const struct cprof_dump *dump,
				       const struct cprof_dump *earlier, bool all,
				       struct cprof_dump_entry **entries);

/* NULL if there is no such thread in the dump; `tid` 0 is none. */
const struct cprof_dump_thread *cprof_dump_find(const struct cprof_dump *dump, pid_t tid);

#endif

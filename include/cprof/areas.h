/* SPDX-License-Identifier: MIT
 *
 * What an address of the target's data belongs to, in words: for locks. Belongs to the accounting
 * floor, beside threads.h.
 */
#ifndef CPROF_AREAS_H
#define CPROF_AREAS_H

#include <cprof/error.h>
#include <cprof/space.h>
#include <cprof/target.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_areas;

/* The target's map as it is now. */
struct cprof_error *cprof_areas_create(const struct cprof_target *target,
				       struct cprof_areas **areas);
void cprof_areas_destroy(struct cprof_areas *areas);
/* "heap", "stack of thread 12", "queue_lock+0x8 in service", "/usr/bin/service+0x4a80", … Symbols
 * are looked for in a bounded number of calls. Safe to show. */
void cprof_areas_describe(struct cprof_areas *areas, struct cprof_space *space, uint64_t address,
			  char *text, size_t size);
/* The same as one name for the address: a symbol alone, or the address and what is around it.
 * False: it had to do without a symbol, since too many were asked for. */
bool cprof_areas_label(struct cprof_areas *areas, struct cprof_space *space, uint64_t address,
		       char *text, size_t size);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Memory for one protobuf message tree: taken piece by piece, given back at once, bounded.
 */
#ifndef CPROF_PPROF_ARENA_H
#define CPROF_PPROF_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct cprof_arena_chunk;

struct cprof_arena {
	struct cprof_arena_chunk *chunks;
	char *next; /* free room in the first chunk */
	size_t left;
	size_t allowed; /* bytes that may still be taken from the system */
	bool exceeded;  /* `allowed` was too little, or there was no memory */
};

/* Aligned for anything but long double; NULL when there is no more. */
void *cprof_arena_take(struct cprof_arena *arena, size_t size);
/* Zeroed; NULL also when count * size overflows. */
void *cprof_arena_array(struct cprof_arena *arena, size_t count, size_t size);
void cprof_arena_deinit(struct cprof_arena *arena);

#endif

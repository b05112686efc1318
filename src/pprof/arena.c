/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <cprof/util.h>
#include <string.h>

#define CHUNK_SIZE ((size_t)1 << 20)

struct cprof_arena_chunk {
	struct cprof_arena_chunk *next;
	char bytes[];
};

/* A chunk with `size` free bytes; NULL with `exceeded` set. */
static struct cprof_arena_chunk *chunk_create(struct cprof_arena *arena, size_t size)
{
	size_t whole = size + sizeof(struct cprof_arena_chunk);
	struct cprof_arena_chunk *chunk = NULL;

	if (whole <= arena->allowed)
		chunk = malloc(whole);
	if (!chunk) {
		arena->exceeded = true;
		return NULL;
	}
	arena->allowed -= whole;
	return chunk;
}

void *cprof_arena_take(struct cprof_arena *arena, size_t size)
{
	struct cprof_arena_chunk *chunk;
	void *taken;

	if (size > PTRDIFF_MAX) {
		arena->exceeded = true;
		return NULL;
	}
	size = CPROF_MAX((size + 7) & ~(size_t)7, 8);
	if (size > CHUNK_SIZE / 4) {
		/* On its own, behind the chunk in use. */
		chunk = chunk_create(arena, size);
		if (!chunk)
			return NULL;
		if (arena->chunks) {
			chunk->next = arena->chunks->next;
			arena->chunks->next = chunk;
		} else {
			chunk->next = NULL;
			arena->chunks = chunk;
		}
		return chunk->bytes;
	}
	if (size > arena->left) {
		chunk = chunk_create(arena, CHUNK_SIZE);
		if (!chunk)
			return NULL;
		chunk->next = arena->chunks;
		arena->chunks = chunk;
		arena->next = chunk->bytes;
		arena->left = CHUNK_SIZE;
	}
	taken = arena->next;
	arena->next += size;
	arena->left -= size;
	return taken;
}

void *cprof_arena_array(struct cprof_arena *arena, size_t count, size_t size)
{
	size_t bytes;
	void *array;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		arena->exceeded = true;
		return NULL;
	}
	array = cprof_arena_take(arena, bytes);
	if (array)
		memset(array, 0, bytes);
	return array;
}

void cprof_arena_deinit(struct cprof_arena *arena)
{
	while (arena->chunks) {
		struct cprof_arena_chunk *next = arena->chunks->next;

		free(arena->chunks);
		arena->chunks = next;
	}
}

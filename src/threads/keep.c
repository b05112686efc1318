/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 65536

struct cprof_keep_block {
	struct cprof_keep_block *next;
	size_t size;
	max_align_t bytes[];
};

void *cprof_keep_take(struct cprof_keep *keep, size_t size)
{
	struct cprof_keep_block *block = keep->blocks;
	char *result;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (!block || size > block->size - keep->used) {
		size_t room = CPROF_MAX(size, BLOCK_SIZE);

		block = calloc(1, sizeof(*block) + room);
		if (!block)
			return NULL;
		block->next = keep->blocks;
		block->size = room;
		keep->blocks = block;
		keep->used = 0;
	}
	result = (char *)block->bytes + keep->used;
	keep->used += size;
	return result;
}

char *cprof_keep_clean(struct cprof_keep *keep, const char *text)
{
	size_t length = strlen(text);
	char *copy = cprof_keep_take(keep, length + 1);

	if (copy)
		cprof_text_clean(text, length, copy, length + 1);
	return copy;
}

void cprof_keep_deinit(struct cprof_keep *keep)
{
	while (keep->blocks) {
		struct cprof_keep_block *next = keep->blocks->next;

		free(keep->blocks);
		keep->blocks = next;
	}
}

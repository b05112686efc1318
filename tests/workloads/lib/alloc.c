/* SPDX-License-Identifier: MIT
 *
 * A library that allocates, for programs with many modules.
 */
#include <stdlib.h>
#include <string.h>

void *library_alloc(size_t size)
{
	void *memory = malloc(size);
	void *zeroed = calloc(1, size);
	char *text = strdup("text");

	free(zeroed);
	free(text);
	return realloc(memory, size + 16);
}

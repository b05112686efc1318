/* SPDX-License-Identifier: MIT
 *
 * C++ and Rust symbols as their source says them. libiberty bounds its recursion, but not its
 * output: back references make it exponential in the symbol's length.
 */
#include <cprof/image.h>
#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LIMIT   16384
#define OUTPUT_LIMIT 32768
/* Names above 1024 bytes need libiberty's limit off; up to here its stack stays below 2 MB. */
#define UNLIMITED_MAX 4096

struct output {
	char *text;
	size_t length;
	jmp_buf full;
};

static void collect(const char *part, size_t length, void *context)
{
	struct output *output = context;

	/* libiberty's state is all on the stack: leaving it like this loses nothing. */
	if (length > OUTPUT_LIMIT - output->length)
		longjmp(output->full, 1);
	memcpy(output->text + output->length, part, length);
	output->length += length;
}

static bool demangle(const char *symbol, size_t length, struct output *output)
{
	if (setjmp(output->full))
		return false;
	/* Legacy Rust symbols look like C++ ones, with a hash that only Rust's rules remove. */
	if (rust_demangle_callback(symbol, 0, collect, output))
		return true;
	output->length = 0;
	if (cplus_demangle_v3_callback(symbol, DMGL_ANSI, collect, output))
		return true;
	output->length = 0;
	return length <= UNLIMITED_MAX &&
	       cplus_demangle_v3_callback(symbol, DMGL_ANSI | DMGL_NO_RECURSE_LIMIT, collect,
					  output);
}

char *cprof_demangle(const char *symbol)
{
	struct output output = {0};
	char *name = NULL;
	size_t length;

	if (symbol[0] != '_' || (symbol[1] != 'Z' && symbol[1] != 'R'))
		return NULL;
	length = strnlen(symbol, NAME_LIMIT + 1);
	if (length > NAME_LIMIT)
		return NULL;
	output.text = malloc(OUTPUT_LIMIT + 1);
	if (!output.text)
		return NULL;
	if (demangle(symbol, length, &output) && output.length) {
		output.text[output.length] = '\0';
		name = strdup(output.text);
	}
	free(output.text);
	return name;
}

/* SPDX-License-Identifier: MIT
 *
 * Symbols from text: a JIT's perf map and the kernel's kallsyms.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <string.h>

#define NAME_MAX_BYTES 4096        /* longer names are cut */
#define FILE_MAX       (1ll << 30) /* bytes of a text file that are read */
#define KERNEL_GAP     (1u << 20)  /* a kernel symbol is not longer */
#define BUFFER         65536

/* One line, not terminated. False without memory. */
typedef bool line_function(struct cprof_symbols *symbols, const char *line, size_t length);

/* A hexadecimal number and the one blank after it. */
static bool parse_hex(const char **next, const char *end, uint64_t *value)
{
	const char *start = *next;

	*value = 0;
	for (; *next < end && **next != ' '; (*next)++) {
		char c = **next;
		unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
				 : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
				 : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
							: 16;

		if (digit > 15 || *value >> 60)
			return false;
		*value = *value << 4 | digit;
	}
	return *next > start && (*next)++ < end;
}

static bool add_perf_line(struct cprof_symbols *symbols, const char *line, size_t length)
{
	const char *end = line + length;
	struct cprof_symbol_entry entry = {0};
	uint64_t size;

	/* Some JITs write 0x before the numbers. */
	if (length > 2 && line[0] == '0' && line[1] == 'x')
		line += 2;
	if (!parse_hex(&line, end, &entry.start))
		return true;
	if (end - line > 2 && line[0] == '0' && line[1] == 'x')
		line += 2;
	if (!parse_hex(&line, end, &size) || !size || line == end)
		return true;
	entry.size = (uint32_t)CPROF_MIN(size, UINT32_MAX);
	return cprof_symbols_add_copy(symbols, &entry, line,
				      CPROF_MIN((size_t)(end - line), NAME_MAX_BYTES));
}

/* "ADDRESS TYPE name" or "ADDRESS TYPE name\t[module]". */
static bool add_kernel_line(struct cprof_symbols *symbols, const char *line, size_t length)
{
	const char *end = line + length;
	struct cprof_symbol_entry entry = {.limit = KERNEL_GAP};
	const char *name;
	const char *tab;

	if (!parse_hex(&line, end, &entry.start) || !entry.start || end - line < 3)
		return true;
	name = line + 2;
	tab = memchr(name, '\t', (size_t)(end - name));
	if (tab)
		end = tab;
	switch (line[0]) {
	case 'T':
	case 'W':
		break;
	case 't':
	case 'w':
		entry.rank = CPROF_RANK_LOCAL;
		break;
	default: /* data marks where the function before it ends */
		entry.rank = UINT8_MAX;
		end = name;
	}
	return cprof_symbols_add_copy(symbols, &entry, name,
				      CPROF_MIN((size_t)(end - name), NAME_MAX_BYTES));
}

/* Calls `add` for each line; of a line longer than the buffer, for its beginning. */
static struct cprof_error *read_lines(int fd, line_function *add, struct cprof_symbols *symbols)
{
	CPROF_AUTO_FREE char *buffer = malloc(BUFFER);
	size_t filled = 0;
	off_t offset = 0;
	bool skip = false; /* the rest of a line that was too long */

	if (!buffer)
		return cprof_error_nomem();
	while (offset < FILE_MAX) {
		ssize_t got = pread(fd, buffer + filled, BUFFER - filled, offset);
		size_t start = 0;
		char *newline;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return cprof_error_errno(CPROF_FAILED, errno, NULL, "read symbols");
		if (got == 0) /* what is left is a line being written */
			break;
		offset += got;
		filled += (size_t)got;
		while ((newline = memchr(buffer + start, '\n', filled - start))) {
			size_t length = (size_t)(newline - buffer) - start;

			if (!skip && !add(symbols, buffer + start, length))
				return cprof_error_nomem();
			skip = false;
			start += length + 1;
		}
		if (start == 0 && filled == BUFFER) {
			if (!skip && !add(symbols, buffer, filled))
				return cprof_error_nomem();
			skip = true;
			start = filled;
		}
		memmove(buffer, buffer + start, filled - start);
		filled -= start;
	}
	return NULL;
}

static struct cprof_error *create(int fd, line_function *add, bool later_wins,
				  struct cprof_symbols **result)
{
	struct cprof_symbols *symbols = cprof_symbols_create_empty();
	struct cprof_error *error;

	if (!symbols)
		return cprof_error_nomem();
	error = read_lines(fd, add, symbols);
	if (error) {
		cprof_symbols_destroy(symbols);
		return error;
	}
	cprof_symbols_finish(symbols, later_wins);
	*result = symbols;
	return NULL;
}

/* Code addresses are used again: what was written later holds. */
struct cprof_error *cprof_symbols_create_perf_map(int fd, struct cprof_symbols **symbols)
{
	return create(fd, add_perf_line, true, symbols);
}

struct cprof_error *cprof_symbols_create_kallsyms(int fd, struct cprof_symbols **symbols)
{
	return create(fd, add_kernel_line, false, symbols);
}

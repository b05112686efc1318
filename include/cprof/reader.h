/* SPDX-License-Identifier: MIT
 *
 * A bounded cursor over foreign bytes. Reading past the end yields zeros and sets `bad`, which
 * stays set: parse first, ask once.
 */
#ifndef CPROF_READER_H
#define CPROF_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cprof_reader {
	const uint8_t *next;
	const uint8_t *end;
	bool bad;
};

static inline struct cprof_reader cprof_reader_of(const void *bytes, size_t length)
{
	return (struct cprof_reader){.next = bytes, .end = (const uint8_t *)bytes + length};
}

static inline size_t cprof_reader_left(const struct cprof_reader *reader)
{
	return (size_t)(reader->end - reader->next);
}

/* `length` bytes in place, or NULL if there are not that many. */
static inline const void *cprof_reader_bytes(struct cprof_reader *reader, uint64_t length)
{
	const uint8_t *here = reader->next;

	if (reader->bad || length > cprof_reader_left(reader)) {
		reader->bad = true;
		reader->next = reader->end;
		return NULL;
	}
	reader->next += length;
	return here;
}

#define CPROF_READER_INT_(bits)                                                                    \
	static inline uint##bits##_t cprof_reader_u##bits(struct cprof_reader *reader)             \
	{                                                                                          \
		uint##bits##_t value = 0;                                                          \
		const void *bytes = cprof_reader_bytes(reader, sizeof(value));                     \
                                                                                                   \
		if (bytes)                                                                         \
			memcpy(&value, bytes, sizeof(value));                                      \
		return value;                                                                      \
	}
CPROF_READER_INT_(8)
CPROF_READER_INT_(16)
CPROF_READER_INT_(32)
CPROF_READER_INT_(64)
#undef CPROF_READER_INT_

/* A NUL-terminated string of at most `room` bytes, which are all consumed; never unterminated:
 * without a NUL in them the reader turns bad and "" is returned. */
static inline const char *cprof_reader_string(struct cprof_reader *reader, size_t room)
{
	const char *bytes = cprof_reader_bytes(reader, room);

	if (bytes && memchr(bytes, '\0', room))
		return bytes;
	reader->bad = true;
	return "";
}

#endif

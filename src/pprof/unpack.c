/* SPDX-License-Identifier: MIT */
#include "unpack.h"

#include <cprof/pprof.h>
#include <cprof/util.h>
#include <stdarg.h>
#include <zlib.h>

/* Profiles shrink to a tenth or so; what shrinks further than this is a bomb, unless small. */
#define RATIO_MAX    256
#define ALWAYS_FINE  ((size_t)64 << 20)
#define SMALLEST_OUT 65536

bool cprof_gzip_is(const void *bytes, size_t length)
{
	const uint8_t *magic = bytes;

	return length >= 2 && magic[0] == 0x1f && magic[1] == 0x8b;
}

struct cprof_error *cprof_not_a_profile(const char *format, ...)
{
	CPROF_AUTO_FREE char *reason = NULL;
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(&reason, format, arguments) < 0)
		reason = NULL;
	va_end(arguments);
	if (!reason)
		return cprof_error_nomem();
	return cprof_error_create(CPROF_FAILED, NULL, "not a profile: %s", reason);
}

static size_t output_limit(size_t length)
{
	size_t limit = CPROF_PPROF_MAX;

	if (length < limit / RATIO_MAX)
		limit = ALWAYS_FINE + length * RATIO_MAX;
	return CPROF_MIN(limit, CPROF_PPROF_MAX);
}

static struct cprof_error *inflate_all(z_stream *stream, size_t limit, uint8_t **plain,
				       size_t *plain_length)
{
	size_t capacity = 0;
	size_t have = 0;

	for (;;) {
		int result;
		size_t room;

		if (have == limit)
			return cprof_error_create(CPROF_FAILED, NULL,
						  "too large: unpacks to more than %zu MB",
						  limit >> 20);
		if (!cprof_grow(plain, &capacity, CPROF_MAX(have + 1, SMALLEST_OUT), 1))
			return cprof_error_nomem();
		room = CPROF_MIN(capacity, limit) - have;
		room = CPROF_MIN(room, (size_t)1 << 30);
		stream->next_out = *plain + have;
		stream->avail_out = (uInt)room;
		result = inflate(stream, Z_NO_FLUSH);
		have += room - stream->avail_out;
		if (result == Z_STREAM_END) {
			*plain_length = have;
			if (!stream->avail_in)
				return NULL;
			if (!cprof_gzip_is(stream->next_in, stream->avail_in))
				return cprof_not_a_profile("garbage after the gzip data");
			inflateReset(stream);
		} else if (result == Z_MEM_ERROR) {
			return cprof_error_nomem();
		} else if (result != Z_OK && result != Z_BUF_ERROR) {
			return cprof_not_a_profile("corrupt gzip data");
		} else if (!stream->avail_in && stream->avail_out) {
			return cprof_not_a_profile("truncated gzip data");
		}
	}
}

struct cprof_error *cprof_gzip_unpack(const void *bytes, size_t length, uint8_t **plain,
				      size_t *plain_length)
{
	CPROF_AUTO_FREE uint8_t *out = NULL;
	struct cprof_error *error;
	z_stream stream = {0};

	if (inflateInit2(&stream, 15 + 16) != Z_OK)
		return cprof_error_nomem();
	stream.next_in = (Bytef *)(uintptr_t)bytes;
	stream.avail_in = (uInt)length; /* at most CPROF_PPROF_MAX */
	error = inflate_all(&stream, output_limit(length), &out, plain_length);
	inflateEnd(&stream);
	if (!error)
		*plain = cprof_take(out);
	return error;
}

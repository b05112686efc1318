/* SPDX-License-Identifier: MIT */
#include <cprof/util.h>
#include <string.h>

/*
 * The length of the valid UTF-8 character at `bytes` and its code point, or 0: overlong forms,
 * surrogates and values above U+10FFFF are invalid (RFC 3629).
 */
static size_t utf8_decode(const unsigned char *bytes, size_t length, uint32_t *point)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t size;

	if (bytes[0] < 0x80) {
		*point = bytes[0];
		return 1;
	}
	if (bytes[0] >= 0xc2 && bytes[0] < 0xe0)
		size = 2;
	else if (bytes[0] >= 0xe0 && bytes[0] < 0xf0)
		size = 3;
	else if (bytes[0] >= 0xf0 && bytes[0] < 0xf5)
		size = 4;
	else
		return 0;
	if (size > length)
		return 0;
	*point = bytes[0] & (0x7f >> size);
	for (size_t i = 1; i < size; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (bytes[i] & 0x3f);
	}
	if (*point < smallest[size] || *point > 0x10ffff || (*point >= 0xd800 && *point < 0xe000))
		return 0;
	return size;
}

/* What can move the cursor, start a new line or turn the direction of writing. */
static bool point_harmful(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x061c ||
	       point == 0x200e || point == 0x200f || (point >= 0x2028 && point <= 0x202e) ||
	       (point >= 0x2066 && point <= 0x2069);
}

size_t cprof_text_clean(const char *source, size_t length, char *target, size_t size)
{
	const unsigned char *bytes = (const unsigned char *)source;
	size_t written = 0;

	if (!size)
		return 0;
	for (size_t i = 0; i < length;) {
		uint32_t point;
		size_t step = utf8_decode(bytes + i, length - i, &point);
		bool keep = step && !point_harmful(point);
		size_t room = keep ? step : 1;

		if (room >= size - written)
			break;
		if (keep)
			memmove(target + written, source + i, step);
		else
			target[written] = '?';
		written += room;
		i += step ? step : 1;
	}
	target[written] = '\0';
	return written;
}

char *cprof_text_clean_dup(const char *source)
{
	char *copy = strdup(source);

	if (copy)
		cprof_text_clean(copy, strlen(copy), copy, strlen(copy) + 1);
	return copy;
}

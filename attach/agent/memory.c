/* SPDX-License-Identifier: MIT
 *
 * What compilers call by themselves, to clear or copy a struct.
 */
#include <stddef.h>

void *memset(void *bytes, int value, size_t count);
void *memcpy(void *restrict to, const void *restrict from, size_t count);

void *memset(void *bytes, int value, size_t count)
{
	void *at = bytes;

	__asm__ volatile("cld; rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
	return bytes;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
	void *at = to;

	__asm__ volatile("cld; rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
	return to;
}

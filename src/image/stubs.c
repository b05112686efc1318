/* SPDX-License-Identifier: MIT
 *
 * x86-64 code that goes through slots: PLT entries, calls.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define CODE_MAX (64u << 10) /* bytes of one function looked at */

/* The address of a rel32 operand that ends its instruction at `end`. */
static uint64_t relative(const uint8_t *operand, uint64_t end)
{
	int32_t offset;

	memcpy(&offset, operand, sizeof(offset));
	return end + (uint64_t)(int64_t)offset;
}

bool cprof_image_stub(const struct cprof_image *image, uint64_t address, uint64_t *slot)
{
	static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
	uint8_t code[24] = {0};
	size_t got = cprof_image_read(image, address, code, sizeof(code));
	size_t at = 0;

	if (memcmp(code, endbr64, sizeof(endbr64)) == 0)
		at = sizeof(endbr64);
	if (code[at] == 0x41 && code[at + 1] == 0xbb) /* mold: mov $index, %r11d */
		at += 6;
	if (code[at] == 0xf2) /* bnd */
		at++;
	if (code[at] != 0xff || code[at + 1] != 0x25 || at + 6 > got) /* jmp *slot(%rip) */
		return false;
	*slot = relative(code + at + 2, address + at + 6);
	return true;
}

static uint64_t name_of_slot(const struct cprof_linkage *linkage, uint64_t slot)
{
	size_t low = 0;
	size_t high = linkage->import_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (linkage->imports[middle].slot < slot)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == linkage->import_count || linkage->imports[low].slot != slot)
		return 0;
	return linkage->imports[low].name < 64 ? 1ull << linkage->imports[low].name : 0;
}

/* Instructions are not decoded: that four bytes which are no operand lead to one of a few slots is
 * as good as impossible. */
uint64_t cprof_image_calls(const struct cprof_image *image, const struct cprof_linkage *linkage,
			   uint64_t address, uint64_t length)
{
	size_t room = 0;
	const uint8_t *code = length ? cprof_image_bytes(image, address, &room) : NULL;
	uint64_t names = 0;
	uint64_t slot;

	room = CPROF_MIN(CPROF_MIN(room, length), CODE_MAX);
	for (size_t i = 0; code && i + 5 <= room; i++) {
		if ((code[i] == 0xe8 || code[i] == 0xe9) && /* call, jmp */
		    cprof_image_stub(image, relative(code + i + 1, address + i + 5), &slot))
			names |= name_of_slot(linkage, slot);
		if (code[i] == 0xff && (code[i + 1] == 0x15 || code[i + 1] == 0x25) &&
		    i + 6 <= room) /* the same through the slot */
			names |= name_of_slot(linkage, relative(code + i + 2, address + i + 6));
	}
	return names;
}

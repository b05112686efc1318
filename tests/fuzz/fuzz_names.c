/* SPDX-License-Identifier: MIT
 *
 * The naming path: input is a whole ELF file; names are asked for all over its code.
 */
#include <cprof/image.h>
#include <cprof/util.h>
#include <elf.h>
#include <string.h>

#define SEGMENTS  4
#define ADDRESSES 64 /* a segment */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Addresses spread over the executable segments, and what lies at their borders. */
static size_t choose(const uint8_t *data, size_t size, uint64_t *addresses)
{
	Elf64_Ehdr header;
	size_t count = 0;

	if (size < sizeof(header))
		return 0;
	memcpy(&header, data, sizeof(header));
	addresses[count++] = header.e_entry;
	for (size_t i = 0; i < header.e_phnum && count <= (SEGMENTS - 1) * ADDRESSES; i++) {
		Elf64_Phdr program;
		uint64_t offset = header.e_phoff + i * sizeof(program);

		if (offset > size || size - offset < sizeof(program))
			break;
		memcpy(&program, data + offset, sizeof(program));
		if (program.p_type != PT_LOAD || !(program.p_flags & PF_X))
			continue;
		for (size_t j = 0; j < ADDRESSES; j++)
			addresses[count++] =
				program.p_vaddr + program.p_memsz / (ADDRESSES - 1) * j;
	}
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t addresses[SEGMENTS * ADDRESSES + 1];
	size_t count = choose(data, size, addresses);
	struct cprof_image *image;
	struct cprof_error *error = cprof_image_create_memory(data, size, &image);

	if (error) {
		cprof_error_destroy(error);
		return 0;
	}
	for (unsigned flags = 0; flags < 4; flags += 3) {
		struct cprof_names names;

		error = cprof_image_names(image, addresses, count, flags, &names);
		if (error)
			cprof_error_destroy(error);
		else
			cprof_names_deinit(&names);
	}
	cprof_image_destroy(image);
	return 0;
}

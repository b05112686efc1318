/* SPDX-License-Identifier: MIT
 *
 * Imports and exports: input is a whole ELF file.
 */
#include <cprof/image.h>
#include <cprof/util.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"malloc", "free", "_Znwm", "main", "realloc"};
	struct cprof_image *image;
	struct cprof_error *error = cprof_image_create_memory(data, size, &image);
	struct cprof_linkage linkage;

	if (error) {
		cprof_error_destroy(error);
		return 0;
	}
	error = cprof_image_linkage(image, names, CPROF_COUNT(names), &linkage);
	if (!error) {
		for (size_t i = 0; i < CPROF_COUNT(names); i++)
			cprof_image_calls(image, &linkage, linkage.exports[i].address,
					  linkage.exports[i].size);
		for (size_t i = 1; i < linkage.import_count; i++)
			if (linkage.imports[i].slot <= linkage.imports[i - 1].slot)
				__builtin_trap();
		cprof_linkage_deinit(&linkage);
	}
	cprof_error_destroy(error);
	cprof_image_destroy(image);
	return 0;
}

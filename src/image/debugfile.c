/* SPDX-License-Identifier: MIT
 *
 * Separate debug information: files offered by the caller, and the compressed one inside the
 * image (.gnu_debugdata).
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>

#define MINI_MAX     (CPROF_UNPACK_MAX / 8) /* unpacked size of .gnu_debugdata */
#define MINI_MEMORY  (96ull << 20)          /* for xz's dictionary */
#define UNPACK_CHUNK (1u << 20)
#define CRC_CHUNK    (1u << 30) /* zlib counts in unsigned int */

static bool has_section(Elf *elf, const char *name)
{
	GElf_Shdr header;

	return cprof_elf_section(elf, name, &header) && header.sh_type != SHT_NOBITS;
}

static bool is_useful(Elf *elf)
{
	return has_section(elf, ".debug_info") || has_section(elf, ".zdebug_info") ||
	       has_section(elf, ".symtab");
}

/* CRC32 of the whole file, as .gnu_debuglink has it: zlib's polynomial. */
static uint32_t file_crc(const struct cprof_elf_file *file)
{
	uLong crc = crc32(0, NULL, 0);

	for (size_t done = 0; done < file->length;) {
		size_t part = CPROF_MIN(file->length - done, (size_t)CRC_CHUNK);

		crc = crc32(crc, (const Bytef *)file->bytes + done, (uInt)part);
		done += part;
	}
	return (uint32_t)crc;
}

static bool belongs(const struct cprof_image *image, const struct cprof_elf_file *file)
{
	struct cprof_image_info theirs = {0};

	cprof_elf_build_id(file, &theirs);
	if (image->info.build_id_length && theirs.build_id_length)
		return image->info.build_id_length == theirs.build_id_length &&
		       memcmp(image->info.build_id, theirs.build_id, theirs.build_id_length) == 0;
	return image->info.debug_link[0] && file_crc(file) == image->info.debug_link_crc;
}

/* Whether `file` refers to that supplementary file: .gnu_debugaltlink is a file name and the other
 * file's build-id. */
static bool is_alt_of(const struct cprof_elf_file *file, const struct cprof_image_info *theirs)
{
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	GElf_Shdr header;
	const char *link;
	const char *id;

	if (!theirs->build_id_length || !cprof_elf_section(file->elf, ".gnu_debugaltlink", &header))
		return false;
	cprof_reader_bytes(&reader, header.sh_offset);
	link = cprof_reader_bytes(&reader, header.sh_size);
	id = link ? memchr(link, '\0', header.sh_size) : NULL;
	if (!id)
		return false;
	id++;
	return link + header.sh_size - id == theirs->build_id_length &&
	       memcmp(id, theirs->build_id, theirs->build_id_length) == 0;
}

/* Names are looked up anew, with the file that has come. */
static void forget_names(struct cprof_image *image)
{
	cprof_dwarf_destroy(cprof_take(image->dwarf));
	cprof_symbols_destroy(cprof_take(image->symbols));
	image->names_tried = image->dwarf_tried = false;
}

bool cprof_image_add_debug(struct cprof_image *image, int fd)
{
	struct cprof_elf_file file;
	struct cprof_image_info theirs = {0};
	struct cprof_error *error;

	if (image->kind != CPROF_IMAGE_ELF)
		return false;
	error = cprof_elf_file_open(fd, &file);
	if (error) {
		cprof_error_destroy(error);
		return false;
	}
	cprof_elf_build_id(&file, &theirs);
	if (!image->alt.elf &&
	    (is_alt_of(&image->debug, &theirs) || is_alt_of(&image->file, &theirs))) {
		forget_names(image);
		image->alt = file;
		return true;
	}
	if (!image->debug.elf && is_useful(file.elf) && belongs(image, &file)) {
		forget_names(image);
		image->debug = file;
		return true;
	}
	cprof_elf_file_close(&file);
	return false;
}

/* --- .gnu_debugdata ------------------------------------------------------------------------ */

static bool unpack(const void *bytes, size_t length, char **result, size_t *result_length)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	CPROF_AUTO_FREE char *output = NULL;
	size_t capacity = 0;
	lzma_ret status = lzma_stream_decoder(&stream, MINI_MEMORY, 0);

	stream.next_in = bytes;
	stream.avail_in = length;
	while (status == LZMA_OK) {
		size_t done = stream.total_out;

		if (done >= MINI_MAX || !cprof_grow(&output, &capacity, done + UNPACK_CHUNK, 1))
			break;
		stream.next_out = (uint8_t *)output + done;
		stream.avail_out = capacity - done;
		status = lzma_code(&stream, LZMA_FINISH);
	}
	*result_length = stream.total_out;
	lzma_end(&stream);
	if (status != LZMA_STREAM_END)
		return false;
	*result = cprof_take(output);
	return true;
}

void cprof_debug_unpack_mini(struct cprof_image *image)
{
	GElf_Shdr header;
	Elf_Scn *section = cprof_elf_section(image->file.elf, ".gnu_debugdata", &header);
	Elf_Data *data = section ? elf_rawdata(section, NULL) : NULL;
	CPROF_AUTO_FREE char *bytes = NULL;
	size_t length;

	if (image->mini.elf || !data || !data->d_buf ||
	    !unpack(data->d_buf, data->d_size, &bytes, &length))
		return;
	cprof_error_destroy(cprof_elf_file_copy(bytes, length, &image->mini));
}

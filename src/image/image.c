/* SPDX-License-Identifier: MIT
 *
 * An image: its file, segments, identity; where it is loaded; its bytes.
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>

#define PAGE         4096ull
#define PAGE_DOWN(x) ((x) & ~(PAGE - 1))

static void read_segments(struct cprof_image *image)
{
	const struct cprof_elf_file *file = &image->file;
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	Elf64_Ehdr header;
	size_t count;

	memcpy(&header, file->bytes, sizeof(header)); /* checked by cprof_elf_file_open */
	image->info.entry = header.e_entry;
	cprof_reader_bytes(&reader, header.e_phoff);
	if (header.e_phentsize != sizeof(Elf64_Phdr) || elf_getphdrnum(file->elf, &count) != 0)
		return;
	while (count-- && image->segment_count < CPROF_SEGMENTS) {
		const void *place = cprof_reader_bytes(&reader, sizeof(Elf64_Phdr));
		Elf64_Phdr program;

		if (!place)
			break;
		memcpy(&program, place, sizeof(program));
		if (program.p_type == PT_GNU_EH_FRAME)
			image->info.eh_frame_hdr = program.p_vaddr;
		if (program.p_type != PT_LOAD || program.p_offset > INT64_MAX ||
		    program.p_filesz > INT64_MAX)
			continue;
		image->segments[image->segment_count++] = (struct cprof_segment){
			.offset = program.p_offset,
			.address = program.p_vaddr,
			.file_size = program.p_filesz,
			.memory_size = program.p_memsz,
			.exec = program.p_flags & PF_X,
		};
	}
}

static void read_debug_link(struct cprof_image *image)
{
	struct cprof_image_info *info = &image->info;
	struct cprof_reader reader;
	GElf_Shdr header;
	const char *name;
	size_t room;

	if (!cprof_elf_section(image->file.elf, ".gnu_debuglink", &header) ||
	    header.sh_type == SHT_NOBITS)
		return;
	/* A file name, padded to four bytes, and the CRC32 of that file. */
	reader = cprof_reader_of(image->file.bytes, image->file.length);
	cprof_reader_bytes(&reader, header.sh_offset);
	room = CPROF_MIN(cprof_reader_left(&reader), header.sh_size);
	room = CPROF_MIN(room, sizeof(info->debug_link));
	name = (const char *)reader.next;
	room = strnlen(name, room) + 1;
	if (room > sizeof(info->debug_link))
		return;
	name = cprof_reader_string(&reader, room);
	cprof_reader_bytes(&reader, -room % 4);
	info->debug_link_crc = cprof_reader_u32(&reader);
	if (!reader.bad)
		memcpy(info->debug_link, name, strlen(name) + 1);
}

static bool has_functions(Elf *elf, const char *name)
{
	GElf_Shdr header;
	Elf_Scn *section = cprof_elf_section(elf, name, &header);
	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;
	GElf_Sym symbol;

	if (!data || !data->d_buf)
		return false;
	for (int i = 0; gelf_getsym(data, i, &symbol); i++)
		if (GELF_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != SHN_UNDEF)
			return true;
	return false;
}

static struct cprof_error *finish_elf(struct cprof_error *error, struct cprof_image *image,
				      struct cprof_image **result)
{
	GElf_Shdr header;
	GElf_Ehdr file_header;

	if (!error &&
	    (!gelf_getehdr(image->file.elf, &file_header) || file_header.e_type == ET_REL))
		error = cprof_error_create(CPROF_FAILED, NULL,
					   "neither a program nor a shared library");
	image->kind = CPROF_IMAGE_ELF;
	if (error) {
		cprof_image_destroy(image);
		return error;
	}
	read_segments(image);
	read_debug_link(image);
	cprof_elf_build_id(&image->file, &image->info);
	image->info.has_symbol_table = has_functions(image->file.elf, ".symtab") ||
				       has_functions(image->file.elf, ".dynsym");
	image->info.has_debug_info = cprof_elf_section(image->file.elf, ".debug_info", &header) ||
				     cprof_elf_section(image->file.elf, ".zdebug_info", &header);
	*result = image;
	return NULL;
}

struct cprof_error *cprof_image_create(int fd, struct cprof_image **image)
{
	struct cprof_image *self = calloc(1, sizeof(*self));

	if (!self)
		return cprof_error_nomem();
	return finish_elf(cprof_elf_file_open(fd, &self->file), self, image);
}

struct cprof_error *cprof_image_create_memory(const void *bytes, size_t length,
					      struct cprof_image **image)
{
	struct cprof_image *self = calloc(1, sizeof(*self));

	if (!self)
		return cprof_error_nomem();
	return finish_elf(cprof_elf_file_copy(bytes, length, &self->file), self, image);
}

static struct cprof_error *create_symbols(struct cprof_error *(*create)(int fd,
									struct cprof_symbols **),
					  int fd, struct cprof_image **image)
{
	CPROF_AUTO_FREE struct cprof_image *self = calloc(1, sizeof(*self));

	if (!self)
		return cprof_error_nomem();
	self->kind = CPROF_IMAGE_SYMBOLS;
	CPROF_TRY(create(fd, &self->symbols));
	self->names_tried = self->dwarf_tried = true;
	self->info.has_symbol_table = true;
	*image = cprof_take(self);
	return NULL;
}

struct cprof_error *cprof_image_create_perf_map(int fd, struct cprof_image **image)
{
	return create_symbols(cprof_symbols_create_perf_map, fd, image);
}

struct cprof_error *cprof_image_create_kallsyms(int fd, struct cprof_image **image)
{
	return create_symbols(cprof_symbols_create_kallsyms, fd, image);
}

void cprof_image_destroy(struct cprof_image *image)
{
	if (!image)
		return;
	cprof_cfi_destroy(image->cfi);
	cprof_symbols_destroy(image->symbols);
	cprof_dwarf_destroy(image->dwarf);
	cprof_elf_file_close(&image->alt);
	cprof_elf_file_close(&image->mini);
	cprof_elf_file_close(&image->debug);
	cprof_elf_file_close(&image->file);
	free(image);
}

const struct cprof_image_info *cprof_image_info(const struct cprof_image *image)
{
	return &image->info;
}

/* How well a mapping at file offset `offset` fits a segment, 0 not at all. The kernel maps whole
 * pages, so the rounded ranges of neighbours overlap: executable mappings are what we are asked
 * for, most start where their segment does, and an offset properly inside counts more than one
 * in the rounded tail. */
static int fit(const struct cprof_segment *segment, uint64_t offset)
{
	uint64_t end = segment->offset + segment->file_size;

	if (!segment->file_size || offset < PAGE_DOWN(segment->offset) ||
	    offset >= PAGE_DOWN(end + PAGE - 1))
		return 0;
	return 1 + 4 * segment->exec + 2 * (offset == PAGE_DOWN(segment->offset)) +
	       (offset >= segment->offset && offset < end);
}

bool cprof_image_bias(const struct cprof_image *image, uint64_t start, uint64_t offset,
		      uint64_t *bias)
{
	int best = 0;

	if (image->kind != CPROF_IMAGE_ELF) {
		*bias = 0; /* addresses are absolute */
		return true;
	}
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct cprof_segment *segment = &image->segments[i];
		int rank = fit(segment, offset);

		if (rank > best) {
			best = rank;
			*bias = start - (segment->address - segment->offset + offset);
		}
	}
	return best;
}

size_t cprof_image_read(const struct cprof_image *image, uint64_t address, void *buffer,
			size_t length)
{
	size_t done = 0;

	for (size_t i = 0; i < image->segment_count && done < length; i++) {
		const struct cprof_segment *segment = &image->segments[i];
		uint64_t skip = address + done - segment->address;
		struct cprof_reader reader = cprof_reader_of(image->file.bytes, image->file.length);
		size_t part;

		if (skip >= segment->file_size)
			continue;
		cprof_reader_bytes(&reader, segment->offset + skip);
		part = CPROF_MIN(length - done, segment->file_size - skip);
		part = CPROF_MIN(part, cprof_reader_left(&reader));
		memcpy((char *)buffer + done, reader.next, part);
		done += part;
	}
	return done;
}

const uint8_t *cprof_image_bytes(const struct cprof_image *image, uint64_t address, size_t *room)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct cprof_segment *segment = &image->segments[i];
		uint64_t skip = address - segment->address;
		struct cprof_reader reader = cprof_reader_of(image->file.bytes, image->file.length);

		if (skip >= segment->file_size)
			continue;
		cprof_reader_bytes(&reader, segment->offset + skip);
		*room = CPROF_MIN(cprof_reader_left(&reader), segment->file_size - skip);
		return *room ? reader.next : NULL;
	}
	return NULL;
}

void cprof_image_rules(struct cprof_image *image, const uint64_t *addresses, size_t count,
		       struct cprof_rule *rules)
{
	if (image->kind == CPROF_IMAGE_ELF) {
		cprof_cfi_rules(image, addresses, count, rules);
		return;
	}
	for (size_t i = 0; i < count; i++)
		rules[i] = (struct cprof_rule){.kind = CPROF_RULE_NONE};
}

const struct cprof_rule_full *cprof_image_full_rule(const struct cprof_image *image, uint32_t index)
{
	return cprof_cfi_full_rule(image, index);
}

/* SPDX-License-Identifier: MIT
 *
 * Compressed debug sections. libdw would unpack all of them one after the other, also those that
 * nobody here reads (.debug_loclists, …): what we need is unpacked by two threads, into an ELF
 * file of its own.
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <pthread.h>
#include <stdatomic.h>
#include <zlib.h>

#define ALIGN(x) (((x) + 15) & ~(uint64_t)15)

/* What dwarf.c, scopes.c and lines.c ask libdw for is in these. */
static const char *const needed[] = {
	".debug_info", ".debug_abbrev", ".debug_line",     ".debug_str",      ".debug_str_offsets",
	".debug_addr", ".debug_ranges", ".debug_rnglists", ".debug_line_str", ".debug_types",
};
#define NEEDED CPROF_COUNT(needed)

struct part {
	const char *name;
	const void *bytes; /* in the file */
	uint64_t length;
	bool packed;
	uint64_t size;   /* unpacked */
	uint64_t offset; /* in the new file */
};

struct work {
	struct part parts[NEEDED];
	size_t count;
	char *output;
	uint64_t total;
	atomic_size_t next; /* part to be taken */
	atomic_bool failed;
};

/* False if this section cannot be unpacked here. */
static bool add_part(struct work *work, const struct cprof_elf_file *file, const GElf_Shdr *header,
		     const char *name)
{
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	struct part part = {.name = name, .size = header->sh_size};

	cprof_reader_bytes(&reader, header->sh_offset);
	reader = cprof_reader_of(reader.next, CPROF_MIN(cprof_reader_left(&reader), part.size));
	if (header->sh_flags & SHF_COMPRESSED) { /* Elf64_Chdr: type, reserved, size, alignment */
		part.packed = cprof_reader_u32(&reader) == ELFCOMPRESS_ZLIB;
		cprof_reader_u32(&reader);
		part.size = cprof_reader_u64(&reader);
		cprof_reader_u64(&reader);
		if (!part.packed)
			return false;
	}
	part.length = cprof_reader_left(&reader);
	part.bytes = reader.next;
	if (reader.bad || (!part.packed && part.length < part.size) || part.length > UINT32_MAX ||
	    part.size > CPROF_UNPACK_MAX)
		return false;
	work->parts[work->count++] = part;
	return true;
}

static bool find_parts(struct work *work, const struct cprof_elf_file *file)
{
	bool any_packed = false;

	for (size_t i = 0; i < NEEDED; i++) {
		GElf_Shdr header;

		if (!cprof_elf_section(file->elf, needed[i], &header) ||
		    header.sh_type == SHT_NOBITS)
			continue;
		if (!add_part(work, file, &header, needed[i]))
			return false;
		any_packed |= work->parts[work->count - 1].packed;
	}
	return any_packed;
}

/* --- unpacking ----------------------------------------------------------------------------- */

static bool unpack(const struct part *part, char *output)
{
	z_stream stream = {
		.next_in = (Bytef *)part->bytes,
		.avail_in = (uInt)part->length,
		.next_out = (Bytef *)output,
		.avail_out = (uInt)part->size,
	};
	bool done;

	if (inflateInit(&stream) != Z_OK)
		return false;
	done = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
	inflateEnd(&stream);
	return done;
}

static void *unpack_parts(void *context)
{
	struct work *work = context;
	size_t i;

	while ((i = atomic_fetch_add(&work->next, 1)) < work->count) {
		const struct part *part = &work->parts[i];

		if (!part->packed)
			memcpy(work->output + part->offset, part->bytes, part->size);
		else if (!unpack(part, work->output + part->offset))
			work->failed = true;
	}
	return NULL;
}

/* --- the helper waits while it shall hold back --------------------------------------------- */

static pthread_mutex_t hold_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t hold_change = PTHREAD_COND_INITIALIZER;
static unsigned holds;

static void change_holds(int change)
{
	pthread_mutex_lock(&hold_lock);
	holds += (unsigned)change;
	pthread_cond_broadcast(&hold_change);
	pthread_mutex_unlock(&hold_lock);
}

void cprof_image_hold_back(void)
{
	change_holds(1);
}

void cprof_image_go_on(void)
{
	change_holds(-1);
}

static void *help(void *context)
{
	struct work *work = context;

	pthread_mutex_lock(&hold_lock);
	while (holds && work->next < work->count)
		pthread_cond_wait(&hold_change, &hold_lock);
	pthread_mutex_unlock(&hold_lock);
	return unpack_parts(work);
}

/* .debug_info is the first part, and by far the longest: a third thread would have to wait. */
static bool unpack_all(struct work *work)
{
	pthread_t helper;
	bool helped = pthread_create(&helper, NULL, help, work) == 0;

	unpack_parts(work);
	change_holds(0); /* nothing is left to wait for */
	if (helped)
		pthread_join(helper, NULL);
	return !work->failed;
}

/* --- the new file -------------------------------------------------------------------------- */

/* Header, parts, each with a zero behind it, section headers, their names. */
static bool lay_out(struct work *work)
{
	uint64_t offset = sizeof(Elf64_Ehdr);

	for (size_t i = 0; i < work->count; i++) {
		work->parts[i].offset = offset;
		offset = ALIGN(offset + work->parts[i].size + 1);
	}
	work->total = offset;
	return offset <= CPROF_UNPACK_MAX;
}

static void write_headers(const struct work *work, const struct cprof_elf_file *file, char *names)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)work->output;
	Elf64_Shdr *sections = (Elf64_Shdr *)(work->output + work->total);
	size_t last = work->count + 1; /* the names; number 0 is none */
	size_t length = 1;

	memcpy(header, file->bytes, sizeof(*header));
	header->e_phoff = header->e_phnum = 0;
	header->e_shoff = work->total;
	header->e_shentsize = sizeof(*sections);
	header->e_shnum = (Elf64_Half)(last + 1);
	header->e_shstrndx = (Elf64_Half)last;
	for (size_t i = 0; i <= work->count; i++) {
		const struct part *part = &work->parts[i];
		const char *name = i < work->count ? part->name : ".shstrtab";

		sections[i + 1].sh_name = (Elf64_Word)length;
		length = (size_t)(stpcpy(names + length, name) - names) + 1;
		if (i == work->count)
			break;
		sections[i + 1].sh_type = SHT_PROGBITS;
		sections[i + 1].sh_offset = part->offset;
		sections[i + 1].sh_size = part->size;
		sections[i + 1].sh_addralign = 1;
	}
	sections[last].sh_type = SHT_STRTAB;
	sections[last].sh_offset = (Elf64_Off)(names - work->output);
	sections[last].sh_size = length;
	sections[last].sh_addralign = 1;
}

bool cprof_elf_unpack(const struct cprof_elf_file *file, struct cprof_elf_file *plain)
{
	struct work work = {.count = 0};
	CPROF_AUTO_FREE char *output = NULL;
	struct cprof_error *error;
	size_t headers;
	size_t length;

	if (!find_parts(&work, file) || !lay_out(&work))
		return false;
	headers = (work.count + 2) * sizeof(Elf64_Shdr);
	length = work.total + headers + (NEEDED + 1) * sizeof(".debug_str_offsets");
	output = work.output = calloc(1, length);
	if (!output || !unpack_all(&work))
		return false;
	write_headers(&work, file, output + work.total + headers);
	error = cprof_elf_file_take(cprof_take(output), length, plain);
	cprof_error_destroy(error);
	return !error;
}

/* SPDX-License-Identifier: MIT
 *
 * ELF files in memory: mapped or copied, checked before libelf sees them, rid of compression
 * bombs.
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* deflate cannot do better than 1032:1, zstd and xz sections do not come near in practice. */
#define UNPACK_RATIO 1100
#define ZEROS_AFTER  4096
#define LENGTH_MAX   (1ull << 40)

static struct cprof_error *not_elf(const char *why)
{
	return cprof_error_create(CPROF_FAILED, NULL, "not a usable ELF file: %s", why);
}

static struct cprof_error *check_header(const void *bytes, size_t length)
{
	struct cprof_reader reader = cprof_reader_of(bytes, length);
	const Elf64_Ehdr *place = cprof_reader_bytes(&reader, sizeof(*place));
	Elf64_Ehdr header;

	if (!place)
		return not_elf("too short");
	memcpy(&header, place, sizeof(header));
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
		return not_elf("bad magic");
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_machine != EM_X86_64)
		return not_elf("not for x86-64");
	if (header.e_ident[EI_VERSION] != EV_CURRENT)
		return not_elf("unknown version");
	/* ET_REL is what dwz makes its supplementary files. */
	if (header.e_type != ET_EXEC && header.e_type != ET_DYN && header.e_type != ET_REL)
		return not_elf("neither a program nor a library");
	return NULL;
}

/* Unpacked size that a compressed section claims; 0 if it is not compressed. Names are not asked
 * for unless `named`: libelf unpacks a compressed string table to answer. */
static uint64_t claimed_size(const struct cprof_elf_file *file, const GElf_Shdr *header, bool named)
{
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	const char *name = NULL;
	size_t names;

	if (header->sh_type == SHT_NOBITS || header->sh_type == SHT_NULL)
		return 0;
	if (named && elf_getshdrstrndx(file->elf, &names) == 0)
		name = elf_strptr(file->elf, names, header->sh_name);
	cprof_reader_bytes(&reader, header->sh_offset);
	if (header->sh_flags & SHF_COMPRESSED) { /* Elf64_Chdr: type, reserved, size */
		cprof_reader_u64(&reader);
		return cprof_reader_u64(&reader);
	}
	if (name && strncmp(name, ".zdebug", 7) == 0) { /* "ZLIB", size in big endian */
		cprof_reader_u32(&reader);
		return __builtin_bswap64(cprof_reader_u64(&reader));
	}
	return 0;
}

static bool is_bomb(const struct cprof_elf_file *file, bool named)
{
	uint64_t sum = 0;

	for (Elf_Scn *section = NULL; (section = elf_nextscn(file->elf, section));) {
		GElf_Shdr header;
		uint64_t size;

		if (!gelf_getshdr(section, &header))
			continue;
		size = claimed_size(file, &header, named);
		if (size > CPROF_UNPACK_MAX || size / UNPACK_RATIO > header.sh_size)
			return true;
		sum += size;
	}
	return sum > CPROF_UNPACK_MAX;
}

/* Makes the compressed sections empty, in our private view of the file. */
static void empty_compressed(struct cprof_elf_file *file, bool named)
{
	for (Elf_Scn *section = NULL; (section = elf_nextscn(file->elf, section));) {
		GElf_Shdr header;

		if (!gelf_getshdr(section, &header) || !claimed_size(file, &header, named))
			continue;
		header.sh_type = SHT_NOBITS;
		header.sh_flags &= ~(GElf_Xword)SHF_COMPRESSED;
		header.sh_size = 0;
		gelf_update_shdr(section, &header);
	}
}

/* `file` holds the bytes; it is emptied on failure. */
static struct cprof_error *open_elf(struct cprof_elf_file *file)
{
	struct cprof_error *error = check_header(file->bytes, file->length);

	elf_version(EV_CURRENT);
	if (!error && !(file->elf = elf_memory(file->bytes, file->length)))
		error = not_elf(elf_errmsg(-1));
	if (error) {
		cprof_elf_file_close(file);
		return error;
	}
	for (int named = 0; named < 2; named++)
		if (is_bomb(file, named))
			empty_compressed(file, named);
	return NULL;
}

struct cprof_error *cprof_elf_file_open(int fd, struct cprof_elf_file *file)
{
	struct stat status;
	size_t length;
	char *bytes;

	*file = (struct cprof_elf_file){0};
	if (fstat(fd, &status) != 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "stat");
	if (!S_ISREG(status.st_mode) || status.st_size <= 0)
		return not_elf("not a regular file, or empty");
	if ((uint64_t)status.st_size > LENGTH_MAX)
		return not_elf("too long");
	/* The file lies in a reservation that is longer: a string that its last section does not
	 * terminate ends there. Writable because libelf edits section headers in place when it
	 * unpacks sections. */
	length = (size_t)status.st_size;
	bytes = mmap(NULL, length + ZEROS_AFTER, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bytes == MAP_FAILED)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "map file");
	if (!cprof_guard_add(bytes, length)) {
		munmap(bytes, length + ZEROS_AFTER);
		return cprof_error_create(CPROF_FAILED, NULL, "too many files at once");
	}
	file->bytes = bytes;
	file->length = length;
	file->mapped = true;
	if (mmap(bytes, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
		 0) == MAP_FAILED) {
		int number = errno;

		cprof_elf_file_close(file);
		return cprof_error_errno(CPROF_FAILED, number, NULL, "map file");
	}
	return open_elf(file);
}

struct cprof_error *cprof_elf_file_copy(const void *bytes, size_t length,
					struct cprof_elf_file *file)
{
	char *copy = malloc(length + ZEROS_AFTER);

	*file = (struct cprof_elf_file){0};
	if (!copy)
		return cprof_error_nomem();
	memset(copy + length, 0, ZEROS_AFTER);
	memcpy(copy, bytes, length);
	return cprof_elf_file_take(copy, length, file);
}

struct cprof_error *cprof_elf_file_take(void *bytes, size_t length, struct cprof_elf_file *file)
{
	*file = (struct cprof_elf_file){.bytes = bytes, .length = length};
	return open_elf(file);
}

void cprof_elf_file_close(struct cprof_elf_file *file)
{
	elf_end(file->elf);
	if (file->mapped) {
		cprof_guard_remove(file->bytes);
		munmap(file->bytes, file->length + ZEROS_AFTER);
	} else {
		free(file->bytes);
	}
	*file = (struct cprof_elf_file){0};
}

Elf_Scn *cprof_elf_section(Elf *elf, const char *name, GElf_Shdr *header)
{
	size_t names;

	if (!elf || elf_getshdrstrndx(elf, &names) != 0)
		return NULL;
	for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section));) {
		const char *found;

		if (!gelf_getshdr(section, header))
			continue;
		found = elf_strptr(elf, names, header->sh_name);
		if (found && strcmp(found, name) == 0)
			return section;
	}
	return NULL;
}

static bool find_build_id(const void *bytes, uint64_t length, struct cprof_image_info *info)
{
	struct cprof_reader reader = cprof_reader_of(bytes, length);

	while (!reader.bad && cprof_reader_left(&reader) >= sizeof(Elf64_Nhdr)) {
		uint32_t name_size = cprof_reader_u32(&reader);
		uint32_t size = cprof_reader_u32(&reader);
		uint32_t type = cprof_reader_u32(&reader);
		const char *name = cprof_reader_bytes(&reader, ((uint64_t)name_size + 3) & ~3ull);
		const uint8_t *id = cprof_reader_bytes(&reader, size);

		if (id && type == NT_GNU_BUILD_ID && size && size <= CPROF_BUILD_ID_MAX &&
		    name_size == 4 && memcmp(name, "GNU", 4) == 0) {
			memcpy(info->build_id, id, size);
			info->build_id_length = size;
			return true;
		}
		cprof_reader_bytes(&reader, -(uint64_t)size % 4);
	}
	return false;
}

static bool find_build_id_at(const struct cprof_elf_file *file, uint64_t offset, uint64_t size,
			     struct cprof_image_info *info)
{
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	const void *bytes;

	cprof_reader_bytes(&reader, offset);
	bytes = cprof_reader_bytes(&reader, size);
	return bytes && find_build_id(bytes, size, info);
}

/* Sections first: the program headers of a separate debug file are those of the original file,
 * and their offsets need not mean anything. */
void cprof_elf_build_id(const struct cprof_elf_file *file, struct cprof_image_info *info)
{
	size_t count;

	info->build_id_length = 0;
	for (Elf_Scn *section = NULL; (section = elf_nextscn(file->elf, section));) {
		GElf_Shdr header;

		if (gelf_getshdr(section, &header) && header.sh_type == SHT_NOTE &&
		    find_build_id_at(file, header.sh_offset, header.sh_size, info))
			return;
	}
	if (elf_getphdrnum(file->elf, &count) != 0)
		return;
	for (size_t i = 0; i < CPROF_MIN(count, 256u); i++) {
		GElf_Phdr program;

		if (gelf_getphdr(file->elf, (int)i, &program) && program.p_type == PT_NOTE &&
		    find_build_id_at(file, program.p_offset, program.p_filesz, info))
			return;
	}
}

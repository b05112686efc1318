/* SPDX-License-Identifier: MIT
 *
 * What the files of the image floor share. One struct cprof_image per ELF file; each concern
 * (unwind rules, symbols, DWARF) keeps its own part behind an opaque pointer.
 */
#ifndef CPROF_IMAGE_PRIVATE_H
#define CPROF_IMAGE_PRIVATE_H

#include <cprof/image.h>
#include <elfutils/libdw.h>
#include <gelf.h>

struct cprof_cfi;     /* cfi.c */
struct cprof_symbols; /* symbols.c: sorted address ranges with names */
struct cprof_dwarf;   /* dwarf.c: CU ranges, inline trees, lines */

enum cprof_image_kind { CPROF_IMAGE_ELF, CPROF_IMAGE_SYMBOLS };

/* A file in memory: mapped (and guarded against shrinking, see guard.c) or a private copy. */
struct cprof_elf_file {
	void *bytes;
	size_t length;
	bool mapped;
	Elf *elf;
};

struct cprof_segment { /* one PT_LOAD */
	uint64_t offset;
	uint64_t address;
	uint64_t file_size;
	uint64_t memory_size;
	bool exec;
};
#define CPROF_SEGMENTS 64

struct cprof_image {
	enum cprof_image_kind kind;
	struct cprof_image_info info;
	struct cprof_elf_file file;
	struct cprof_elf_file debug; /* separate debug file, bytes NULL if none */
	struct cprof_elf_file mini;  /* .gnu_debugdata, unpacked */
	struct cprof_elf_file alt;   /* dwz's supplementary file */
	struct cprof_segment segments[CPROF_SEGMENTS];
	size_t segment_count;
	struct cprof_cfi *cfi;
	struct cprof_symbols *symbols; /* built by the first cprof_image_names() */
	struct cprof_dwarf *dwarf;
	bool names_tried;
	bool dwarf_tried;
};

/* image.c: the image's bytes at an address, in place, and how many there are; NULL if none. */
const uint8_t *cprof_image_bytes(const struct cprof_image *image, uint64_t address, size_t *room);

/* elf.c. When the compressed sections claim too much (a bomb), they are made empty. */
struct cprof_error *cprof_elf_file_open(int fd, struct cprof_elf_file *file);
struct cprof_error *cprof_elf_file_copy(const void *bytes, size_t length,
					struct cprof_elf_file *file);
/* Takes over bytes from malloc(), whose last section must be terminated; frees them on failure. */
struct cprof_error *cprof_elf_file_take(void *bytes, size_t length, struct cprof_elf_file *file);
void cprof_elf_file_close(struct cprof_elf_file *file);
/* The build-id, its length in `info`; 0 if there is none. */
void cprof_elf_build_id(const struct cprof_elf_file *file, struct cprof_image_info *info);
/* The section of that name, its header filled in; NULL if there is none. */
Elf_Scn *cprof_elf_section(Elf *elf, const char *name, GElf_Shdr *header);
/* Most bytes that the compressed sections of one file may unpack to, together. */
#define CPROF_UNPACK_MAX (1ull << 30)

/* unpack.c: the sections that dwarf.c needs as a file of their own, if some are compressed. False
 * if none is, or unpacking them is better left to libdw (an unknown or damaged compression). */
bool cprof_elf_unpack(const struct cprof_elf_file *file, struct cprof_elf_file *plain);

/* guard.c: reads of a registered mapping beyond the file's end yield zeros, not SIGBUS. False
 * when there is no room. Thread-safe. */
bool cprof_guard_add(const void *start, size_t length);
void cprof_guard_remove(const void *start);

/* cficheck.c: whether libdw may be let loose on the .eh_frame (`eh`) or .debug_frame of `elf`. */
bool cprof_cfi_check(const struct cprof_image *image, Elf *elf, bool eh);

/* cfi.c */
void cprof_cfi_rules(struct cprof_image *image, const uint64_t *addresses, size_t count,
		     struct cprof_rule *rules);
const struct cprof_rule_full *cprof_cfi_full_rule(const struct cprof_image *image, uint32_t index);
void cprof_cfi_destroy(struct cprof_cfi *cfi);

/* symbols.c, textmap.c: from .symtab of file, debug or mini, and .dynsym; also perf maps and
 * kallsyms. */
struct cprof_symbol {
	uint64_t start;
	uint64_t end;     /* exclusive */
	const char *name; /* not terminated, without version; lives as long as the symbols */
	size_t length;
};
struct cprof_error *cprof_symbols_create_elf(const struct cprof_image *image,
					     struct cprof_symbols **symbols);
struct cprof_error *cprof_symbols_create_perf_map(int fd, struct cprof_symbols **symbols);
struct cprof_error *cprof_symbols_create_kallsyms(int fd, struct cprof_symbols **symbols);
bool cprof_symbols_find(const struct cprof_symbols *symbols, uint64_t address,
			struct cprof_symbol *symbol);
void cprof_symbols_destroy(struct cprof_symbols *symbols);

/* How symbols are put together: empty, added to in any order, finished once. */
struct cprof_symbol_entry {
	uint64_t start;
	uint32_t size; /* 0: up to the next symbol, at most up to `limit` more bytes */
	uint32_t limit;
	uint32_t name; /* offset in its source's strings */
	uint16_t length;
	uint8_t source;
	uint8_t rank; /* among symbols at one address the lowest is kept */
};
enum { /* rank, by weight */
       CPROF_RANK_LOCAL = 0x80,
       CPROF_RANK_UNSIZED = 0x40,
       CPROF_RANK_VERSIONED = 0x20,
       CPROF_RANK_UNDERSCORES = 0x07,
};
struct cprof_symbols *cprof_symbols_create_empty(void);
bool cprof_symbols_add(struct cprof_symbols *symbols, const struct cprof_symbol_entry *entry);
/* Adds with a name that is copied. */
bool cprof_symbols_add_copy(struct cprof_symbols *symbols, struct cprof_symbol_entry *entry,
			    const char *name, size_t length);
/* `later_wins`: of two at one address the one added later is kept, whatever the ranks. */
void cprof_symbols_finish(struct cprof_symbols *symbols, bool later_wins);

/* debugfile.c: unpacks .gnu_debugdata into image->mini, if there is any. */
void cprof_debug_unpack_mini(struct cprof_image *image);

/* dwarf.c: the functions at an address by .debug_info, innermost first. */
struct cprof_dwarf_function {
	const char *name;         /* DW_AT_name, or NULL */
	const char *linkage_name; /* DW_AT_linkage_name, or NULL */
	const char *file;         /* of the address (innermost) or of the call, or NULL */
	uint32_t line;
	uint32_t start_line;
	uint64_t start; /* entry address, 0 unknown */
};
#define CPROF_DWARF_DEPTH 64
struct cprof_error *cprof_dwarf_create(struct cprof_image *image, struct cprof_dwarf **dwarf);
/* Fills at most CPROF_DWARF_DEPTH; returns how many, 0 if nothing is known. With no function but a
 * line, one entry with name NULL is returned. Strings live as long as `dwarf`, or until the next
 * call. */
size_t cprof_dwarf_find(struct cprof_dwarf *dwarf, uint64_t address, unsigned flags,
			struct cprof_dwarf_function *functions);
void cprof_dwarf_destroy(struct cprof_dwarf *dwarf);

#endif

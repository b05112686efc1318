/* SPDX-License-Identifier: MIT
 *
 * What one ELF file (or the vDSO, a JIT's perf map, the kernel's symbol table) knows: the unwind
 * rule at an address, and the names of an address. An image is given an opened fd, never a path;
 * requests come in batches; requests and answers are flat values that could cross a socket: this
 * floor will move into a sandboxed worker. All content is treated as hostile.
 *
 * Addresses here are the image's own virtual addresses (as in its program headers), except for
 * perf maps and the kernel, whose addresses are absolute.
 */
#ifndef CPROF_IMAGE_H
#define CPROF_IMAGE_H

#include <cprof/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_image;

/* --- opening ------------------------------------------------------------------------------- */

/* The fd stays the caller's. Not an ELF file of this machine's class: CPROF_FAILED. */
struct cprof_error *cprof_image_create(int fd, struct cprof_image **image);
/* From bytes (the vDSO), which are copied. */
struct cprof_error *cprof_image_create_memory(const void *bytes, size_t length,
					      struct cprof_image **image);
/* From a JIT's /tmp/perf-PID.map: lines of "START SIZE name", hexadecimal. */
struct cprof_error *cprof_image_create_perf_map(int fd, struct cprof_image **image);
/* From /proc/kallsyms: symbols without an address are left out (kptr_restrict). */
struct cprof_error *cprof_image_create_kallsyms(int fd, struct cprof_image **image);
void cprof_image_destroy(struct cprof_image *image);

#define CPROF_BUILD_ID_MAX 64

struct cprof_image_info {
	uint8_t build_id[CPROF_BUILD_ID_MAX];
	uint32_t build_id_length; /* 0: none */
	char debug_link[256];     /* .gnu_debuglink's file name, "" if none */
	uint32_t debug_link_crc;
	uint64_t entry;        /* e_entry */
	uint64_t eh_frame_hdr; /* address of PT_GNU_EH_FRAME, 0 if none */
	bool has_symbol_table; /* .symtab or .dynsym with functions */
	bool has_debug_info;   /* .debug_info */
};

const struct cprof_image_info *cprof_image_info(const struct cprof_image *image);

/* Offers a separate debug file; false when it does not belong to this image (build-id, or CRC of
 * the debug link) or is of no use. The fd stays the caller's. */
bool cprof_image_add_debug(struct cprof_image *image, int fd);

/* The load bias of a mapping that starts at `start` and maps file offset `offset`: memory address
 * minus the image's virtual address. Found by the PT_LOAD whose file range holds the offset.
 * False if no segment does. */
bool cprof_image_bias(const struct cprof_image *image, uint64_t start, uint64_t offset,
		      uint64_t *bias);

/* Reads bytes of the image's loaded, file-backed segments; returns the bytes copied. */
size_t cprof_image_read(const struct cprof_image *image, uint64_t address, void *buffer,
			size_t length);

/* --- unwind rules -------------------------------------------------------------------------- */

/* DWARF register numbers of x86-64: 0-15 rax rdx rcx rbx rsi rdi rbp rsp r8-r15, 16 return
 * address (System V ABI, AMD64 supplement, figure 3.36). */
#define CPROF_REGISTERS 17
/* Callee-saved registers a compact rule can restore: see cprof_rule_saved[]. */
#define CPROF_RULE_SAVED 6
extern const uint8_t
	cprof_rule_saved[CPROF_RULE_SAVED]; /* DWARF numbers: rbx rbp r12 r13 r14 r15 */

enum cprof_rule_kind {
	CPROF_RULE_EMPTY = 0, /* no rule asked for yet */
	CPROF_RULE_NONE,      /* no CFI covers the address */
	CPROF_RULE_FRAME,     /* CFA = cfa_register + cfa_offset; the rest by `saved` and `ra` */
	CPROF_RULE_FULL,      /* anything else: cprof_image_full_rule(cfa_offset) */
	CPROF_RULE_END,       /* return address undefined: the outermost frame */
	CPROF_RULE_SIGNAL,    /* a signal trampoline: SP points at the ucontext */
};

enum {
	CPROF_RULE_DEREF = 1,        /* CFA = *(cfa_register + cfa_offset) */
	CPROF_RULE_SIGNAL_FRAME = 2, /* augmentation 'S': the caller's pc is exact */
	CPROF_RULE_GUESSED = 4,      /* from the code's shape (PLT), not from CFI */
};

/* `saved[i]`: register cprof_rule_saved[i] is at CFA + 8 * saved[i]; 0 unchanged; 127 lost.
 * `ra`: the return address is at CFA + 8 * ra. */
struct cprof_rule {
	uint8_t kind;
	uint8_t flags;
	uint8_t cfa_register;
	int8_t ra;
	int32_t cfa_offset;
	int8_t saved[CPROF_RULE_SAVED];
	uint8_t pad[2];
};
#define CPROF_RULE_LOST 127
_Static_assert(sizeof(struct cprof_rule) == 16, "the rule cache counts on it");

enum cprof_where {
	CPROF_WHERE_SAME = 0,   /* unchanged */
	CPROF_WHERE_LOST,       /* undefined */
	CPROF_WHERE_AT_CFA,     /* in memory at CFA + offset */
	CPROF_WHERE_CFA,        /* is CFA + offset */
	CPROF_WHERE_REGISTER,   /* is register `offset` of this frame */
	CPROF_WHERE_AT_EXPR,    /* in memory at the expression's value */
	CPROF_WHERE_EXPR,       /* is the expression's value */
	CPROF_WHERE_AT_REGISTER /* CFA only: register `reg` + offset */
};

/* One operation of a DWARF expression, decoded: branches name the index they go to in `a`. */
struct cprof_op {
	uint8_t atom; /* DW_OP_* */
	int64_t a;
	int64_t b;
};
#define CPROF_RULE_OPS 96 /* operations of all expressions of one rule together */

struct cprof_rule_full {
	struct cprof_rule_part {
		uint8_t where; /* enum cprof_where */
		uint8_t reg;
		uint8_t first; /* expression: ops[first .. first + count) */
		uint8_t count;
		int64_t offset;
	} cfa, regs[CPROF_REGISTERS];
	uint32_t count;
	struct cprof_op ops[CPROF_RULE_OPS];
};

/* The rules at `count` addresses. Never fails: an address without a usable rule gets
 * CPROF_RULE_NONE. For a return address ask for the address before it. */
void cprof_image_rules(struct cprof_image *image, const uint64_t *addresses, size_t count,
		       struct cprof_rule *rules);
/* The rule a CPROF_RULE_FULL points to, by its `cfa_offset`; lives as long as the image. */
const struct cprof_rule_full *cprof_image_full_rule(const struct cprof_image *image,
						    uint32_t index);

/* --- names --------------------------------------------------------------------------------- */

enum {
	CPROF_NAMES_NO_INLINES = 1,
	CPROF_NAMES_NO_LINES = 2,
	/* Where the symbol table knows a function, its name and start do: debug information, which
	 * can take long to unpack, is not asked. */
	CPROF_NAMES_SYMBOLS = 4,
};

/* One source-level function at an address. Strings are offsets into cprof_names.strings;
 * offset 0 is "". Text is as found in the file, demangled in `name`: not safe to show. */
struct cprof_name {
	uint32_t name;        /* demangled, without parameters */
	uint32_t system_name; /* as in the symbol table */
	uint32_t file;        /* source file, "" unknown */
	uint32_t line;        /* in that file, of the address or of the call, 0 unknown */
	uint32_t start_line;  /* where the function starts, 0 unknown */
	uint32_t inlined;     /* 1: this one is inlined into the next */
	uint64_t start;       /* address of the function's first instruction, 0 unknown */
};

/* Between these two calls, which nest, names are read by the threads that ask for them alone,
 * without helpers: a target is stopped, and to let it go soon matters more. Thread-safe. */
void cprof_image_hold_back(void);
void cprof_image_go_on(void);

/* The answer to a batch: address i has names[first[i] .. first[i + 1]), innermost first, none if
 * nothing is known. */
struct cprof_names {
	struct cprof_name *names;
	uint32_t *first;
	char *strings;
	size_t addresses;
	size_t count;
	size_t strings_length;
};

struct cprof_error *cprof_image_names(struct cprof_image *image, const uint64_t *addresses,
				      size_t count, unsigned flags, struct cprof_names *names);
void cprof_names_deinit(struct cprof_names *names);

/* The bounds of the function's symbol that covers an address; false: there is none. */
bool cprof_image_function(struct cprof_image *image, uint64_t address, uint64_t *start,
			  uint64_t *end);
/* The variable (data symbol) that covers an address: its name, demangled, not safe to show, cut to
 * `size`, and where it starts. Reads whole symbol tables: for a few addresses. */
bool cprof_image_variable(const struct cprof_image *image, uint64_t address, char *name,
			  size_t size, uint64_t *start);

/* A C++ or Rust symbol as its source would say it, without parameters; NULL if it is not mangled
 * (or without memory). The caller frees. Bounded: a hostile name costs bounded time and memory. */
char *cprof_demangle(const char *symbol);

/* --- dynamic linking ----------------------------------------------------------------------- */

enum cprof_import_kind {
	CPROF_IMPORT_CALL, /* R_*_JUMP_SLOT: called through it, perhaps bound at the first call */
	CPROF_IMPORT_GOT,  /* R_*_GLOB_DAT */
	CPROF_IMPORT_DATA, /* R_*_64: a pointer in data, which the program may change */
};
/* 8 bytes that the dynamic linker fills with the address of a function. */
struct cprof_import {
	uint64_t slot;    /* its address */
	uint64_t initial; /* what the file holds there: of a CALL the address that binds it */
	uint32_t version; /* hash of the version's name it is bound by, 0: any */
	uint16_t name;    /* index of the names asked for */
	uint8_t kind;     /* enum cprof_import_kind */
	bool weak;        /* may stay 0 */
};
/* Where a name is defined. */
struct cprof_export {
	uint64_t address; /* 0: not defined for others */
	uint64_t size;
	uint64_t own;     /* defined by the full symbol table, perhaps for itself only; 0 no */
	uint32_t version; /* hash of its name, 0: none */
	bool indirect;    /* an IFUNC: the function is what `address` returns */
	bool hidden;      /* of an old version only, kept for programs linked then */
	bool several;     /* other versions of it are other functions */
};
struct cprof_linkage {
	struct cprof_import *imports; /* ascending by slot */
	size_t import_count;
	struct cprof_export *exports; /* one a name */
	uint64_t soname;              /* cprof_hash_bytes of DT_SONAME, 0: none */
	uint64_t *needed;             /* the same of every DT_NEEDED */
	size_t needed_count;
	uint64_t relro_start; /* PT_GNU_RELRO; both 0 if there is none */
	uint64_t relro_end;
	uint64_t dynamic; /* PT_DYNAMIC, 0: not linked dynamically */
	bool interpreter; /* PT_INTERP */
	bool symbolic;    /* its own definitions come first */
	bool go;          /* holds Go code */
};
#define CPROF_LINKAGE_NAMES 128

/*
 * What ties an image to others, for at most CPROF_LINKAGE_NAMES names of functions; symbol versions
 * are ignored. Found by program headers and PT_DYNAMIC; sections serve `own` and `go` only. What
 * does not lie in the file is left out. Only fails without memory.
 */
struct cprof_error *cprof_image_linkage(const struct cprof_image *image, const char *const *names,
					size_t count, struct cprof_linkage *linkage);
void cprof_linkage_deinit(struct cprof_linkage *linkage);

/* Whether the code at an address is a PLT entry, a jump through a slot: which. */
bool cprof_image_stub(const struct cprof_image *image, uint64_t address, uint64_t *slot);
/* The imported names (bit i: names[i], the first 64) that `length` bytes of code call or jump to
 * through slots, by way of a PLT entry or directly. */
uint64_t cprof_image_calls(const struct cprof_image *image, const struct cprof_linkage *linkage,
			   uint64_t address, uint64_t length);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the files of the plan share: files, modules and their slots.
 */
#ifndef CPROF_ATTACH_PLANPARTS_H
#define CPROF_ATTACH_PLANPARTS_H

#include "plan.h"

#include <cprof/image.h>
#include <cprof/target.h>

/* Names asked of every image: the hooked functions by their number, then these. */
enum {
	CPROF_PLAN_LIBC = CPROF_AGENT_FUNCTION_COUNT, /* only a C library defines it */
	CPROF_PLAN_LINKER,                            /* only glibc's dynamic linker does */
	CPROF_PLAN_UNWINDER,                          /* libgcc_s */
	CPROF_PLAN_CXX,                               /* libstdc++ */
	CPROF_PLAN_OWN, /* from here on: only an allocator that is linked in */
	CPROF_PLAN_LOCKS = CPROF_PLAN_OWN + 11, /* the functions of locks, by their number */
	CPROF_PLAN_GLIBC = CPROF_PLAN_LOCKS + CPROF_AGENT_LOCK_COUNT, /* only glibc defines it */
	CPROF_PLAN_NAMES
};
extern const char *const cprof_plan_names[CPROF_PLAN_NAMES];
_Static_assert(CPROF_PLAN_NAMES <= CPROF_LINKAGE_NAMES, "");

#define CPROF_PLAN_BIT(name) (1ull << (name)) /* of hooked functions */
_Static_assert(CPROF_AGENT_FUNCTION_COUNT <= 64, "");

struct cprof_plan_file {
	uint64_t inode;
	uint32_t device_major;
	uint32_t device_minor;
	bool verified; /* it is the mapped file for certain */
	bool used;
	char *path;                /* safe to show */
	struct cprof_image *image; /* NULL: cannot be opened, or no ELF file */
	bool elf;                  /* false with no image: what is mapped is no module at all */
	struct cprof_linkage linkage;
	/* Functions it defines by calling another hooked function through a slot of its own: with
	 * both hooked an allocation would count twice. */
	uint64_t wrappers;
};

enum cprof_plan_slot_status {
	CPROF_PLAN_SLOT_PASSED,    /* rightly left alone */
	CPROF_PLAN_SLOT_PENDING,   /* it holds no function yet */
	CPROF_PLAN_SLOT_ELSEWHERE, /* it leads to what no hook stands for */
	CPROF_PLAN_SLOT_NO_BANK,
	CPROF_PLAN_SLOT_NO_ORDER,
	CPROF_PLAN_SLOT_HOOKED,
};
struct cprof_plan_slot { /* of the import with the same index */
	uint64_t value;
	uint32_t order; /* index + 1, 0 none */
	uint8_t status; /* enum cprof_plan_slot_status */
};

struct cprof_plan_module {
	struct cprof_plan_file *file;
	uint64_t bias;
	struct cprof_plan_slot *slots;
	uint32_t position; /* in the dynamic linker's list, UINT32_MAX: not in it */
	bool initial;      /* there from the start, for certain */
	bool seen;
	bool known;     /* the file is certainly what is mapped */
	bool fresh;     /* its slots have never been read */
	bool relocated; /* its PT_GNU_RELRO range is read-only, or there is none */
	bool pending;   /* some slot holds nothing yet */
	size_t votes;   /* slots that lead to it */
	bool allocator; /* slots lead to its functions */
};

struct cprof_plan_range { /* a mapping of a file */
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	struct cprof_plan_file *file; /* executable ones only */
	struct cprof_plan_module *module;
	uint8_t prot;
};

struct cprof_plan {
	struct cprof_target *target;
	uint64_t base;
	unsigned kinds; /* enum cprof_agent_kind */
	struct cprof_agent_header header;
	struct cprof_agent_config config;
	struct cprof_plan_file **files;
	size_t file_count;
	size_t file_capacity;
	struct cprof_plan_module **modules;
	size_t module_count;
	size_t module_capacity;
	struct cprof_plan_range *ranges; /* ascending */
	size_t range_count;
	size_t range_capacity;
	struct cprof_plan_range *spare; /* room for the next ranges */
	size_t spare_count;
	size_t spare_capacity;
	uint64_t fingerprint; /* of the ranges */
	uint64_t code;        /* cprof_target_code_fingerprint */
	bool code_known;
	struct cprof_agent_order *orders;
	size_t order_count;
	uint32_t *released; /* orders whose module is gone, to be used again */
	size_t released_count;
	size_t released_capacity;
	struct cprof_agent_module *told;
	size_t told_count;
	size_t told_capacity;
	bool begun;
};

/* planmap.c: reads maps; `*changed`: something of a file is mapped otherwise than before. */
struct cprof_error *cprof_plan_read_maps(struct cprof_plan *plan, bool *changed);
/* Modules by the ranges: new ones come, those gone give their orders back. */
struct cprof_error *cprof_plan_find_modules(struct cprof_plan *plan);
void cprof_plan_forget(struct cprof_plan *plan);
/* The mapping at an address; NULL if there is no file there. */
struct cprof_plan_range *cprof_plan_range_at(const struct cprof_plan *plan, uint64_t address);
/* The module whose code is at an address; NULL if none. */
struct cprof_plan_module *cprof_plan_module_at(const struct cprof_plan *plan, uint64_t address);

/* planslots.c: reads a module's slots; orders what is missing. */
void cprof_plan_read_slots(struct cprof_plan *plan, struct cprof_plan_module *module);
void cprof_plan_choose_bank(struct cprof_plan *plan);
void cprof_plan_decide(struct cprof_plan *plan, struct cprof_plan_module *module);
/* Takes back an order whose module is gone. */
void cprof_plan_release(struct cprof_plan *plan, uint32_t order);

/* plancover.c: how far every module is covered; the refusal of a target with nothing to patch. */
struct cprof_error *cprof_plan_tell(struct cprof_plan *plan);
struct cprof_error *cprof_plan_check(const struct cprof_plan *plan);

/* Whether an imported name is a lock's function; otherwise, an allocator's. */
static inline bool cprof_plan_is_lock(unsigned name)
{
	return name >= CPROF_PLAN_LOCKS && name < CPROF_PLAN_LOCKS + CPROF_AGENT_LOCK_COUNT;
}

static inline bool cprof_plan_defines(const struct cprof_plan_file *file, unsigned name)
{
	return file->image &&
	       (file->linkage.exports[name].address || file->linkage.exports[name].own);
}

/* An allocator of its own, not the C library: what it calls itself is not to be counted. */
static inline bool cprof_plan_is_allocator(const struct cprof_plan_file *file)
{
	return cprof_plan_defines(file, CPROF_AGENT_F_malloc) &&
	       !cprof_plan_defines(file, CPROF_PLAN_LIBC);
}

#endif

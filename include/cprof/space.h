/* SPDX-License-Identifier: MIT
 *
 * An address space for unwinding and naming: executable regions bound to modules. A module is our
 * side of an image: it is opened on the first address in it, kept for all processes that map the
 * same file, and carries the cache of unwind rules (pc -> rule), which is what makes a warm frame
 * cost a hash probe. Belongs to the unwind floor.
 */
#ifndef CPROF_SPACE_H
#define CPROF_SPACE_H

#include <cprof/error.h>
#include <cprof/image.h>
#include <cprof/target.h>

struct cprof_module;
struct cprof_modules; /* all modules of a session */
struct cprof_space;

enum cprof_module_kind {
	CPROF_MODULE_FILE,
	CPROF_MODULE_VDSO,
	CPROF_MODULE_JIT, /* anonymous executable memory, perhaps with a perf map */
	CPROF_MODULE_KERNEL,
};

struct cprof_modules_options {
	const char *debug_dir; /* where separate debug files are, NULL: /usr/lib/debug */
};

struct cprof_error *cprof_modules_create(const struct cprof_modules_options *options,
					 struct cprof_modules **modules);
void cprof_modules_destroy(struct cprof_modules *modules);
/* The kernel's module; NULL if its symbols cannot be read. Owned by `modules`. */
struct cprof_module *cprof_modules_kernel(struct cprof_modules *modules);

enum cprof_module_kind cprof_module_kind(const struct cprof_module *module);
/* The image that answers for unwind rules (collector thread only); NULL when it cannot be opened:
 * then cprof_module_problem() says why. */
struct cprof_image *cprof_module_image(struct cprof_module *module);
const char *cprof_module_problem(const struct cprof_module *module);

/* What a profile says of a module; strings live as long as it does. */
struct cprof_module_facts {
	const char *path; /* as the kernel named it, or "[vdso]", "[jit]", "[kernel.kallsyms]" */
	const char *build_id; /* lower-case hexadecimal, "" if none */
	bool has_symbols;     /* true after a naming that found any */
	bool has_lines;
	bool has_inlines;
};
void cprof_module_facts(struct cprof_module *module, struct cprof_module_facts *facts);
/* Names at image addresses, from any thread: naming has an image of its own (opened, with its
 * separate debug files, by the first call), so that it never delays unwinding. */
struct cprof_error *cprof_module_names(struct cprof_module *module, const uint64_t *addresses,
				       size_t count, unsigned flags, struct cprof_names *names);
/* As cprof_image_variable(), with the module's separate debug files; from any thread. */
bool cprof_module_variable(struct cprof_module *module, uint64_t address, char *name, size_t size,
			   uint64_t *start);

/* A module without a file, for tests: rules come from what is put into its cache, and from
 * `image` (taken over) unless it is NULL. */
struct cprof_error *cprof_module_create_synthetic(struct cprof_modules *modules,
						  struct cprof_image *image,
						  struct cprof_module **module);
bool cprof_module_put_rule(struct cprof_module *module, uint64_t address,
			   const struct cprof_rule *rule);

/* An executable range. Pointers to it live until the space next changes. */
struct cprof_region {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t bias; /* address - bias = address in the module's image */
	struct cprof_module *module;
	uint32_t id;      /* unique in the space's lifetime: the same number is the same region */
	bool bound;       /* `bias` is known (or cannot be) and `module` is up to date */
	const char *path; /* as the kernel named it; lives as long as `modules` */
};

/* `target` may be NULL (tests). Neither is owned. */
struct cprof_error *cprof_space_create(struct cprof_target *target, struct cprof_modules *modules,
				       struct cprof_space **space);
void cprof_space_destroy(struct cprof_space *space);
/* Reads the target's maps anew (at start, after an exec, after lost records). */
struct cprof_error *cprof_space_refresh(struct cprof_space *space);
/* A new mapping: replaces what it overlaps. Mappings that are not executable are ignored. */
struct cprof_error *cprof_space_map(struct cprof_space *space, const struct cprof_mapping *mapping);
/* For tests: a region bound to a given module. */
struct cprof_error *cprof_space_map_module(struct cprof_space *space, uint64_t start, uint64_t end,
					   uint64_t bias, struct cprof_module *module);
/* NULL if no executable region holds the address. */
const struct cprof_region *cprof_space_find(struct cprof_space *space, uint64_t address);
/* The program's own code; NULL if it cannot be told. */
const struct cprof_region *cprof_space_main(struct cprof_space *space);
/* The modules that nearly every stack passes through, the program and its C library; how many. */
size_t cprof_space_usual(struct cprof_space *space, struct cprof_module *modules[2]);
struct cprof_target *cprof_space_target(const struct cprof_space *space);

/* The rule at an address of the region (absolute address). The answer lives until the next call
 * on this module. `*full` is set for CPROF_RULE_FULL. */
const struct cprof_rule *cprof_space_rule(struct cprof_space *space,
					  const struct cprof_region *region, uint64_t address,
					  const struct cprof_rule_full **full);

#endif

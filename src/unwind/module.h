/* SPDX-License-Identifier: MIT
 *
 * Private to the unwind floor: what a space needs of its modules.
 */
#ifndef CPROF_UNWIND_MODULE_H
#define CPROF_UNWIND_MODULE_H

#include <cprof/space.h>

/* Which file a module is: what the mapping said, and what the opened file says. */
struct cprof_module_key {
	enum cprof_module_kind kind;
	uint64_t dev;
	uint64_t ino;
	uint64_t size;
	uint64_t mtime_ns;
	const struct cprof_target *owner; /* JIT: anonymous code belongs to one process */
};

/* The module of a key, created if it is new; takes `fd` over (-1: none). `bytes`: for the vDSO. */
struct cprof_module *cprof_modules_get(struct cprof_modules *modules,
				       const struct cprof_module_key *key,
				       struct cprof_target *target, const char *path, int fd,
				       const void *bytes, size_t length);
/* A string that lives as long as the modules; NULL without memory. */
const char *cprof_modules_keep(struct cprof_modules *modules, const char *text);

/* The cached rule at an image address, asked for if it is new. Never NULL. */
const struct cprof_rule *cprof_module_rule(struct cprof_module *module, uint64_t address);

#endif

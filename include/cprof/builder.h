/* SPDX-License-Identifier: MIT
 *
 * From unwound frames to a profile: mappings, locations, markers, and their names later. Every
 * source that unwinds (CPU samples, heap samples, dumps) builds its profile with one of these.
 * Belongs to the profile floor. Not locked: the caller does that.
 */
#ifndef CPROF_BUILDER_H
#define CPROF_BUILDER_H

#include <cprof/error.h>
#include <cprof/profile.h>
#include <cprof/space.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cprof_builder;

/* Modules and space are not owned. The profile is created empty: add its types first. */
struct cprof_error *cprof_builder_create(struct cprof_modules *modules, struct cprof_space *space,
					 struct cprof_builder **builder);
void cprof_builder_destroy(struct cprof_builder *builder);
/* The profile being built; owned by the builder. */
struct cprof_profile *cprof_builder_profile(struct cprof_builder *builder);

/* Makes the program's own mapping the first; false: it cannot be told yet, try again later. */
bool cprof_builder_map_main(struct cprof_builder *builder);
/* Makes a region known before a stack passes through it; its mapping's id in the profile. */
uint32_t cprof_builder_map(struct cprof_builder *builder, const struct cprof_region *region);
/* A stack (id in the profile) of a kernel chain, if any, then user frames, then the marker of how
 * it ended. `kernel` need not be aligned. */
uint32_t cprof_builder_stack(struct cprof_builder *builder, const void *kernel, size_t kernel_count,
			     const struct cprof_stack *stack);

/*
 * Naming takes long and must not keep the collector waiting: a copy of the profile and of what is
 * needed to name it is taken under the caller's lock, named without it, and what was learnt is
 * given back under it.
 */
struct cprof_naming;
struct cprof_error *cprof_builder_copy(struct cprof_builder *builder, struct cprof_naming **naming);
/* The copy, for samples to be added before it is named. Ids of the builder's profile (stacks,
 * labels, strings) are good in it too. */
struct cprof_profile *cprof_naming_profile(struct cprof_naming *naming);
/* `flags`: CPROF_NAMES_*. `*kernel_unnamed` is set when kernel addresses found no name. */
struct cprof_error *cprof_naming_run(struct cprof_naming *naming, unsigned flags,
				     bool *kernel_unnamed);
/* Under the lock again: names that were found serve later copies too. */
void cprof_naming_give_back(struct cprof_naming *naming, struct cprof_builder *builder);
/* Hands the named copy over; the rest still has to be destroyed. */
struct cprof_profile *cprof_naming_take(struct cprof_naming *naming);
void cprof_naming_destroy(struct cprof_naming *naming);

#endif

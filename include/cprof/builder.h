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
 * it ended. `kernel` need not be aligned. When there are hundreds of thousands all that are new
 * become one, "[too many stacks]". */
uint32_t cprof_builder_stack(struct cprof_builder *builder, const void *kernel, size_t kernel_count,
			     const struct cprof_stack *stack);
/* Whether that has begun. */
bool cprof_builder_is_full(const struct cprof_builder *builder);

/* For a session that runs for days: only these samples stay, with `values`; what they do not need
 * is forgotten. Every id of the profile changes but those of mappings: those of the samples and of
 * `references` (stacks and labels in use elsewhere) are set to the new ones. After an error all is
 * as it was but for these two lists. */
struct cprof_error *cprof_builder_compact(struct cprof_builder *builder,
					  struct cprof_profile_sample *samples,
					  const int64_t *values, size_t count,
					  struct cprof_profile_sample *references,
					  size_t reference_count);
/* The same in two steps, for that takes long. While `held`, names that are given back are not
 * taken: so the profile does not change as long as nobody adds to it, and whoever does may read it
 * without the lock. To be set and taken back under the lock. */
void cprof_builder_hold(struct cprof_builder *builder, bool held);
/* Only reads. */
struct cprof_error *cprof_builder_less(const struct cprof_builder *builder,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_profile_sample *references,
				       size_t reference_count, struct cprof_profile **less);
/* Returns what there was before, to be destroyed. */
struct cprof_profile *cprof_builder_replace(struct cprof_builder *builder,
					    struct cprof_profile *less);

/*
 * Naming takes long and must not keep the collector waiting: a copy of the profile and of what is
 * needed to name it is taken under the caller's lock, named without it, and what was learnt is
 * given back under it.
 */
struct cprof_naming;
struct cprof_error *cprof_builder_copy(struct cprof_builder *builder, struct cprof_naming **naming);
/* The same with some samples only, and what they need: their ids are set to those of the copy.
 * `values` NULL: no samples, only their stacks and labels. */
struct cprof_error *cprof_builder_pick(struct cprof_builder *builder,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_naming **naming);
/* Some locations that nobody has tried to name, `most` of them from number `*from` on, which is
 * moved on; NULL: there are none. */
struct cprof_error *cprof_builder_pick_unnamed(struct cprof_builder *builder, size_t *from,
					       size_t most, struct cprof_naming **naming);
/* How many locations of the copy could be named and are not. */
size_t cprof_naming_unnamed(const struct cprof_naming *naming);
/* The copy, for samples to be added before it is named. Ids of the builder's profile (stacks,
 * labels, strings) are good in it too. */
struct cprof_profile *cprof_naming_profile(struct cprof_naming *naming);
/* `flags`: CPROF_NAMES_*. `*kernel_unnamed` is set when kernel addresses found no name. */
struct cprof_error *cprof_naming_run(struct cprof_naming *naming, unsigned flags,
				     bool *kernel_unnamed);
/* Instead of that: what has no name yet keeps its address. */
void cprof_naming_leave(struct cprof_naming *naming);
/* Under the lock again: names that were found serve later copies too. */
void cprof_naming_give_back(struct cprof_naming *naming, struct cprof_builder *builder);
/* Hands the named copy over; the rest still has to be destroyed. */
struct cprof_profile *cprof_naming_take(struct cprof_naming *naming);
void cprof_naming_destroy(struct cprof_naming *naming);

#endif

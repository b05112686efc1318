/* SPDX-License-Identifier: MIT
 *
 * What the files of the profile floor share.
 */
#ifndef CPROF_PROFILE_PRIVATE_H
#define CPROF_PROFILE_PRIVATE_H

#include "table.h"

#include <cprof/builder.h>
#include <cprof/profile.h>

/* Strings live in chunks that never move. */
struct cprof_profile_chunk {
	struct cprof_profile_chunk *next;
	char text[];
};

struct cprof_profile_index {
	struct cprof_table strings;
	struct cprof_table mappings;
	struct cprof_table functions;
	struct cprof_table locations; /* given without lines: by mapping and address */
	struct cprof_table lined;     /* given with lines: by these as well */
	struct cprof_table stacks;
	struct cprof_table label_sets;
	struct cprof_table samples;
	struct {
		size_t types, comments, strings, mappings, functions, locations, lines, stacks,
			stack_items, label_sets, label_items, samples, values;
	} capacity; /* of the profile's arrays */
	struct cprof_profile_chunk *chunks;
	char *chunk_next; /* free room in the first chunk */
	size_t chunk_left;
	struct cprof_profile_label *label_scratch; /* a set being sorted */
	size_t label_scratch_capacity;
};

/* As cprof_profile_location() and cprof_profile_stack(), but for what is not there: 0. */
uint32_t cprof_profile_find_location(const struct cprof_profile *profile, uint32_t mapping,
				     uint64_t address);
uint32_t cprof_profile_find_stack(const struct cprof_profile *profile, const uint32_t *locations,
				  size_t count);
/* Takes out samples whose values are all 0. */
void cprof_profile_drop_zero(struct cprof_profile *profile);

/* What a pick tells beside the profile. */
struct cprof_picked {
	struct cprof_profile_sample *references; /* in: ids of the source; out: of the target */
	size_t reference_count;
	uint32_t *origins; /* out: by location of the target, that of the source, 0 none */
};
/* Fills an empty profile with some of a built one: these samples, whose ids become those of the
 * target. `values` NULL: stacks and labels only. The caller frees `origins`, also after an error.
 */
struct cprof_error *cprof_profile_pick(const struct cprof_profile *source,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_profile *target,
				       struct cprof_picked *picked);

/* --- builder.c, naming.c ------------------------------------------------------------------- */

/* A mapping of the profile and the module that names its addresses. */
struct cprof_builder_mapping {
	uint64_t start;
	uint64_t end;
	uint64_t bias;
	struct cprof_module *module; /* NULL: nothing can be named */
	const char *path;
	uint32_t id; /* in the profile */
};

struct cprof_builder {
	struct cprof_modules *modules;
	struct cprof_space *space;
	struct cprof_profile *profile;
	struct cprof_builder_mapping *mappings;
	size_t mapping_count;
	size_t mapping_capacity;
	uint32_t *region_mappings; /* by region id: index + 1 into `mappings` */
	size_t region_capacity;
	uint32_t kernel_mapping; /* index + 1 */
	uint32_t *locations;     /* scratch */
	size_t location_capacity;
	uint64_t generation; /* how often all ids have changed */
	bool held;           /* names that are given back are not taken */
};

#endif

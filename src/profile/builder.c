/* SPDX-License-Identifier: MIT
 *
 * From unwound frames to a profile's mappings, locations and stacks.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_FRAMES 511 /* more than perf ever records */

/* A program whose stacks are endless, or made up, must not fill our memory. */
#define STACKS_MAX    (512u << 10)
#define LOCATIONS_MAX (512u << 10)
#define ITEMS_MAX     (8u << 20)

struct cprof_error *cprof_builder_create(struct cprof_modules *modules, struct cprof_space *space,
					 struct cprof_builder **result)
{
	struct cprof_builder *builder = calloc(1, sizeof(*builder));
	struct cprof_error *error;

	*result = NULL;
	if (!builder)
		return cprof_error_nomem();
	builder->modules = modules;
	builder->space = space;
	error = cprof_profile_create(&builder->profile);
	if (error) {
		cprof_builder_destroy(builder);
		return error;
	}
	*result = builder;
	return NULL;
}

void cprof_builder_destroy(struct cprof_builder *builder)
{
	if (!builder)
		return;
	cprof_profile_destroy(builder->profile);
	free(builder->mappings);
	free(builder->region_mappings);
	free(builder->locations);
	free(builder);
}

struct cprof_profile *cprof_builder_profile(struct cprof_builder *builder)
{
	return builder->profile;
}

/* --- mappings ------------------------------------------------------------------------------ */

static struct cprof_builder_mapping *
add_mapping(struct cprof_builder *builder, struct cprof_builder_mapping mapping, uint64_t offset)
{
	struct cprof_module_facts facts = {.path = mapping.path, .build_id = ""};
	struct cprof_profile *profile = builder->profile;
	struct cprof_profile_mapping entry;

	if (!cprof_grow(&builder->mappings, &builder->mapping_capacity, builder->mapping_count + 1,
			sizeof(mapping))) {
		profile->no_memory = true;
		return NULL;
	}
	if (mapping.module)
		cprof_module_facts(mapping.module, &facts);
	entry = (struct cprof_profile_mapping){
		.start = mapping.start,
		.limit = mapping.end,
		.offset = offset,
		.file = cprof_profile_string(profile, mapping.path[0] ? mapping.path : facts.path),
		.build_id = cprof_profile_string(profile, facts.build_id),
	};
	mapping.id = cprof_profile_mapping(profile, &entry);
	builder->mappings[builder->mapping_count] = mapping;
	return &builder->mappings[builder->mapping_count++];
}

uint32_t cprof_builder_map(struct cprof_builder *builder, const struct cprof_region *region)
{
	struct cprof_builder_mapping mapping = {
		.start = region->start,
		.end = region->end,
		.bias = region->bias,
		.module = region->module,
		.path = region->path,
	};
	size_t old = builder->region_capacity;
	size_t i;

	if (region->id < old && builder->region_mappings[region->id])
		return builder->mappings[builder->region_mappings[region->id] - 1].id;
	if (!cprof_grow(&builder->region_mappings, &builder->region_capacity, region->id + 1,
			sizeof(*builder->region_mappings))) {
		builder->profile->no_memory = true;
		return 0;
	}
	memset(builder->region_mappings + old, 0,
	       (builder->region_capacity - old) * sizeof(*builder->region_mappings));
	/* The same file at the same place again (dlclose and dlopen) is the same mapping. */
	for (i = 0; i < builder->mapping_count; i++) {
		const struct cprof_builder_mapping *known = &builder->mappings[i];

		if (known->start == mapping.start && known->end == mapping.end &&
		    known->bias == mapping.bias && known->module == mapping.module)
			break;
	}
	if (i == builder->mapping_count && !add_mapping(builder, mapping, region->offset))
		return 0;
	builder->region_mappings[region->id] = (uint32_t)i + 1;
	return builder->mappings[i].id;
}

bool cprof_builder_map_main(struct cprof_builder *builder)
{
	const struct cprof_region *region = cprof_space_main(builder->space);

	if (region)
		cprof_builder_map(builder, region);
	return region;
}

static uint32_t kernel_mapping(struct cprof_builder *builder)
{
	struct cprof_builder_mapping mapping = {
		.end = UINT64_MAX,
		.start = 1ull << 63,
		.module = cprof_modules_kernel(builder->modules),
		.path = "[kernel.kallsyms]",
	};

	if (!builder->kernel_mapping) {
		if (!add_mapping(builder, mapping, 0))
			return 0;
		builder->kernel_mapping = (uint32_t)builder->mapping_count;
	}
	return builder->mappings[builder->kernel_mapping - 1].id;
}

/* --- stacks -------------------------------------------------------------------------------- */

bool cprof_builder_is_full(const struct cprof_builder *builder)
{
	const struct cprof_profile *profile = builder->profile;

	return profile->stack_count >= STACKS_MAX || profile->location_count >= LOCATIONS_MAX ||
	       profile->stack_item_count >= ITEMS_MAX;
}

static uint32_t overflow(struct cprof_profile *profile)
{
	uint32_t marker = cprof_profile_marker(profile, "[too many stacks]");

	return cprof_profile_stack(profile, &marker, 1);
}

/* False: there is no room for a new one. */
static bool add_location(struct cprof_builder *builder, size_t at, uint32_t mapping, uint64_t pc)
{
	bool full = cprof_builder_is_full(builder);

	builder->locations[at] = full ? cprof_profile_find_location(builder->profile, mapping, pc)
				      : cprof_profile_location(builder->profile, mapping, pc);
	return !full || builder->locations[at];
}

static bool add_kernel(struct cprof_builder *builder, const void *kernel, size_t count)
{
	uint32_t mapping = count ? kernel_mapping(builder) : 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t pc;

		memcpy(&pc, (const uint8_t *)kernel + i * sizeof(pc), sizeof(pc));
		if (!add_location(builder, i, mapping, pc - (i > 0)))
			return false;
	}
	return true;
}

uint32_t cprof_builder_stack(struct cprof_builder *builder, const void *kernel, size_t kernel_count,
			     const struct cprof_stack *stack)
{
	struct cprof_profile *profile = builder->profile;
	const char *marker = cprof_end_marker(stack->end);
	uint32_t id;
	size_t count;

	count = CPROF_MIN(kernel_count, (size_t)KERNEL_FRAMES);
	if (!cprof_grow(&builder->locations, &builder->location_capacity, count + stack->count + 1,
			sizeof(*builder->locations))) {
		profile->no_memory = true;
		return 0;
	}
	if (!add_kernel(builder, kernel, count))
		return overflow(profile);
	for (size_t i = 0; i < stack->count; i++) {
		const struct cprof_frame *frame = &stack->frames[i];
		uint32_t mapping = frame->region ? cprof_builder_map(builder, frame->region) : 0;

		if (!add_location(builder, count++, mapping, cprof_frame_lookup_pc(frame)))
			return overflow(profile);
	}
	if (marker)
		builder->locations[count++] = cprof_profile_marker(profile, marker);
	if (!cprof_builder_is_full(builder))
		return cprof_profile_stack(profile, builder->locations, count);
	id = cprof_profile_find_stack(profile, builder->locations, count);
	return id ? id : overflow(profile);
}

/* --- forgetting ---------------------------------------------------------------------------- */

void cprof_builder_hold(struct cprof_builder *builder, bool held)
{
	builder->held = held;
}

struct cprof_error *cprof_builder_less(const struct cprof_builder *builder,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_profile_sample *references,
				       size_t reference_count, struct cprof_profile **less)
{
	struct cprof_picked picked = {.references = references, .reference_count = reference_count};
	struct cprof_error *error;

	CPROF_TRY(cprof_profile_create(less));
	error = cprof_profile_pick(builder->profile, samples, values, count, *less, &picked);
	free(picked.origins);
	if (error)
		cprof_profile_destroy(cprof_take(*less));
	return error;
}

struct cprof_profile *cprof_builder_replace(struct cprof_builder *builder,
					    struct cprof_profile *less)
{
	struct cprof_profile *old = builder->profile;

	builder->profile = less;
	builder->generation++;
	return old;
}

struct cprof_error *cprof_builder_compact(struct cprof_builder *builder,
					  struct cprof_profile_sample *samples,
					  const int64_t *values, size_t count,
					  struct cprof_profile_sample *references,
					  size_t reference_count)
{
	struct cprof_profile *less;

	CPROF_TRY(cprof_builder_less(builder, samples, values, count, references, reference_count,
				     &less));
	cprof_profile_destroy(cprof_builder_replace(builder, less));
	return NULL;
}

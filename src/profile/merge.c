/* SPDX-License-Identifier: MIT */
#include "private.h"

#include <cprof/util.h>
#include <math.h>
#include <string.h>

/* Ids of the source that have been carried over: the target's id plus one, 0: not yet. */
struct merge {
	struct cprof_profile *target;
	const struct cprof_profile *source;
	bool by_address;    /* a location is known by its address, whatever its lines */
	uint32_t *mappings; /* these by id itself: all are carried over first */
	uint32_t *functions;
	uint32_t *locations;
	uint32_t *stacks;
	uint32_t *label_sets;
	struct cprof_profile_line *lines; /* scratch */
	size_t line_capacity;
	uint32_t *items; /* scratch */
	size_t item_capacity;
	struct cprof_profile_label *labels; /* scratch */
	size_t label_capacity;
};

static void merge_deinit(struct merge *merge)
{
	free(merge->mappings);
	free(merge->functions);
	free(merge->locations);
	free(merge->stacks);
	free(merge->label_sets);
	free(merge->lines);
	free(merge->items);
	free(merge->labels);
}

static bool merge_init(struct merge *merge, struct cprof_profile *target,
		       const struct cprof_profile *source)
{
	*merge = (struct merge){
		.target = target,
		.source = source,
		.mappings = calloc(source->mapping_count, sizeof(uint32_t)),
		.functions = calloc(source->function_count, sizeof(uint32_t)),
		.locations = calloc(source->location_count, sizeof(uint32_t)),
		.stacks = calloc(source->stack_count, sizeof(uint32_t)),
		.label_sets = calloc(source->label_set_count, sizeof(uint32_t)),
	};
	return merge->mappings && merge->functions && merge->locations && merge->stacks &&
	       merge->label_sets;
}

static uint32_t carry_string(const struct merge *merge, uint32_t id)
{
	return cprof_profile_string(merge->target, merge->source->strings[id]);
}

/* In their order, so that the main binary stays the first. */
static void carry_mappings(const struct merge *merge)
{
	for (size_t i = 1; i < merge->source->mapping_count; i++) {
		struct cprof_profile_mapping mapping = merge->source->mappings[i];

		mapping.file = carry_string(merge, mapping.file);
		mapping.build_id = carry_string(merge, mapping.build_id);
		merge->mappings[i] = cprof_profile_mapping(merge->target, &mapping);
	}
}

static uint32_t carry_function(struct merge *merge, uint32_t id)
{
	struct cprof_profile_function function = merge->source->functions[id];

	if (!id || merge->functions[id])
		return id ? merge->functions[id] - 1 : 0;
	function.name = carry_string(merge, function.name);
	function.system_name = carry_string(merge, function.system_name);
	function.file = carry_string(merge, function.file);
	merge->functions[id] = cprof_profile_function(merge->target, &function) + 1;
	return merge->functions[id] - 1;
}

/* The lines of a location in scratch memory; false without memory. */
static bool carry_lines(struct merge *merge, const struct cprof_profile_location *location)
{
	if (!cprof_grow(&merge->lines, &merge->line_capacity, location->line_count,
			sizeof(*merge->lines))) {
		merge->target->no_memory = true;
		return false;
	}
	for (uint32_t i = 0; i < location->line_count; i++) {
		merge->lines[i] = merge->source->lines[location->first_line + i];
		merge->lines[i].function = carry_function(merge, merge->lines[i].function);
	}
	return true;
}

static uint32_t carry_named(struct merge *merge, const struct cprof_profile_location *location,
			    uint32_t mapping)
{
	uint32_t made;

	if (!carry_lines(merge, location))
		return 0;
	if (!merge->by_address || !location->address)
		return cprof_profile_location_with(merge->target, mapping, location->address,
						   merge->lines, location->line_count,
						   location->is_folded);
	made = cprof_profile_location(merge->target, mapping, location->address);
	if (!merge->target->locations[made].named)
		cprof_profile_set_lines(merge->target, made, merge->lines, location->line_count);
	return made;
}

static uint32_t carry_location(struct merge *merge, uint32_t id)
{
	const struct cprof_profile_location *location = &merge->source->locations[id];
	uint32_t mapping = merge->mappings[location->mapping];
	uint32_t made;

	if (!id || merge->locations[id])
		return id ? merge->locations[id] - 1 : 0;
	if (location->named)
		made = carry_named(merge, location, mapping);
	else
		made = cprof_profile_location(merge->target, mapping, location->address);
	merge->locations[id] = made + 1;
	return made;
}

static uint32_t carry_stack(struct merge *merge, uint32_t id)
{
	const struct cprof_profile_span *stack = &merge->source->stacks[id];

	if (merge->stacks[id])
		return merge->stacks[id] - 1;
	if (!cprof_grow(&merge->items, &merge->item_capacity, stack->count,
			sizeof(*merge->items))) {
		merge->target->no_memory = true;
		return 0;
	}
	for (uint32_t i = 0; i < stack->count; i++)
		merge->items[i] =
			carry_location(merge, merge->source->stack_items[stack->first + i]);
	id = (uint32_t)(stack - merge->source->stacks);
	merge->stacks[id] = cprof_profile_stack(merge->target, merge->items, stack->count) + 1;
	return merge->stacks[id] - 1;
}

static uint32_t carry_labels(struct merge *merge, uint32_t id)
{
	const struct cprof_profile_span *set = &merge->source->label_sets[id];

	if (merge->label_sets[id])
		return merge->label_sets[id] - 1;
	if (!cprof_grow(&merge->labels, &merge->label_capacity, set->count,
			sizeof(*merge->labels))) {
		merge->target->no_memory = true;
		return 0;
	}
	for (uint32_t i = 0; i < set->count; i++) {
		merge->labels[i] = merge->source->label_items[set->first + i];
		merge->labels[i].key = carry_string(merge, merge->labels[i].key);
		merge->labels[i].text = carry_string(merge, merge->labels[i].text);
		merge->labels[i].unit = carry_string(merge, merge->labels[i].unit);
	}
	merge->label_sets[id] = cprof_profile_labels(merge->target, merge->labels, set->count) + 1;
	return merge->label_sets[id] - 1;
}

static bool comment_known(const struct cprof_profile *profile, uint32_t text)
{
	for (size_t i = 0; i < profile->comment_count; i++)
		if (profile->comments[i] == text)
			return true;
	return false;
}

/* As pprof merges: the earliest time, the sum of the durations, the longest period. */
static void carry_header(const struct merge *merge, bool empty)
{
	struct cprof_profile *target = merge->target;
	const struct cprof_profile *source = merge->source;

	if (empty) {
		for (size_t i = 0; i < source->type_count; i++)
			cprof_profile_add_type(target, source->strings[source->types[i].type],
					       source->strings[source->types[i].unit]);
		target->period_type = (struct cprof_value_type){
			.type = carry_string(merge, source->period_type.type),
			.unit = carry_string(merge, source->period_type.unit),
		};
		target->drop_frames = carry_string(merge, source->drop_frames);
		target->keep_frames = carry_string(merge, source->keep_frames);
	}
	if (!target->default_type)
		target->default_type = carry_string(merge, source->default_type);
	if (!target->time_ns || (source->time_ns && source->time_ns < target->time_ns))
		target->time_ns = source->time_ns;
	if (__builtin_add_overflow(target->duration_ns, source->duration_ns, &target->duration_ns))
		target->duration_ns = INT64_MAX;
	target->period = CPROF_MAX(target->period, source->period);
	for (size_t i = 0; i < source->comment_count; i++) {
		uint32_t text = carry_string(merge, source->comments[i]);

		if (!comment_known(target, text))
			cprof_profile_add_comment(target, target->strings[text]);
	}
}

static int64_t scaled(int64_t value, double scale)
{
	double product;

	if (scale == 1)
		return value;
	if (scale == -1)
		return value == INT64_MIN ? INT64_MAX : -value;
	product = round((double)value * scale);
	if (product >= 0x1p63)
		return INT64_MAX;
	return product < -0x1p63 ? INT64_MIN : (int64_t)product;
}

static struct cprof_error *carry_samples(struct merge *merge, double scale)
{
	const struct cprof_profile *source = merge->source;
	size_t width = source->type_count;
	CPROF_AUTO_FREE int64_t *values = calloc(width + 1, sizeof(*values));

	if (!values)
		return cprof_error_nomem();
	for (size_t i = 0; i < source->sample_count; i++) {
		bool zero = true;

		for (size_t j = 0; j < width; j++) {
			values[j] = scaled(source->values[i * width + j], scale);
			zero &= values[j] == 0;
		}
		if (!zero)
			cprof_profile_add(merge->target,
					  carry_stack(merge, source->samples[i].stack),
					  carry_labels(merge, source->samples[i].labels), values);
	}
	cprof_profile_drop_zero(merge->target);
	return cprof_profile_check(merge->target);
}

static struct cprof_error *check_types(const struct cprof_profile *target,
				       const struct cprof_profile *source)
{
	bool same = target->type_count == source->type_count;

	for (size_t i = 0; same && i < source->type_count; i++)
		same = !strcmp(target->strings[target->types[i].type],
			       source->strings[source->types[i].type]) &&
		       !strcmp(target->strings[target->types[i].unit],
			       source->strings[source->types[i].unit]);
	if (same)
		return NULL;
	return cprof_error_create(CPROF_FAILED, "give profiles of the same kind",
				  "the profiles cannot be combined: their sample types differ");
}

struct cprof_error *cprof_profile_merge(struct cprof_profile *target,
					const struct cprof_profile *source, double scale)
{
	CPROF_CLEANUP(merge_deinit) struct merge merge;
	bool empty = !target->type_count;

	if (!merge_init(&merge, target, source))
		return cprof_error_nomem();
	if (!empty)
		CPROF_TRY(check_types(target, source));
	CPROF_TRY(cprof_profile_check(source));
	carry_header(&merge, empty);
	carry_mappings(&merge);
	return carry_samples(&merge, scale);
}

static void tell_origins(const struct merge *merge, uint32_t *origins)
{
	for (size_t i = 1; i < merge->source->location_count; i++)
		if (merge->locations[i])
			origins[merge->locations[i] - 1] = (uint32_t)i;
}

struct cprof_error *cprof_profile_pick(const struct cprof_profile *source,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_profile *target,
				       struct cprof_picked *picked)
{
	CPROF_CLEANUP(merge_deinit) struct merge merge;

	CPROF_TRY(cprof_profile_check(source));
	if (!merge_init(&merge, target, source))
		return cprof_error_nomem();
	merge.by_address = true;
	carry_header(&merge, true);
	carry_mappings(&merge);
	for (size_t i = 0; i < count; i++) {
		samples[i].stack = carry_stack(&merge, samples[i].stack);
		samples[i].labels = carry_labels(&merge, samples[i].labels);
		if (values)
			cprof_profile_add(target, samples[i].stack, samples[i].labels,
					  values + i * source->type_count);
	}
	for (size_t i = 0; i < picked->reference_count; i++) {
		struct cprof_profile_sample *sample = &picked->references[i];

		sample->stack = carry_stack(&merge, sample->stack);
		sample->labels = carry_labels(&merge, sample->labels);
	}
	picked->origins = calloc(target->location_count, sizeof(*picked->origins));
	if (!picked->origins)
		return cprof_error_nomem();
	tell_origins(&merge, picked->origins);
	return cprof_profile_check(target);
}

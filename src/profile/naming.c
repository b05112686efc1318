/* SPDX-License-Identifier: MIT
 *
 * Names for a copy of what a builder has built, without its lock.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 64

struct cprof_naming {
	struct cprof_profile *profile;
	struct cprof_builder_mapping *mappings; /* copied */
	size_t mapping_count;
	uint32_t kernel_mapping; /* index + 1 */
	uint64_t generation;     /* of the builder's ids */
	size_t shared;           /* locations below this id are the builder's as well, … */
	uint32_t *origins;       /* … which has them under these ids, NULL: the same */
	uint32_t *named;         /* locations that were named here */
	size_t named_count;
	size_t named_capacity;
};

/* Around an empty profile or, with `copy`, one that equals the builder's. */
static struct cprof_error *create(struct cprof_builder *builder, bool copy,
				  struct cprof_naming **result)
{
	struct cprof_naming *naming = calloc(1, sizeof(*naming));
	struct cprof_error *error = cprof_profile_check(builder->profile);

	*result = NULL;
	if (!naming)
		return error ? error : cprof_error_nomem();
	if (!error)
		error = copy ? cprof_profile_clone(builder->profile, &naming->profile)
			     : cprof_profile_create(&naming->profile);
	if (!error) {
		naming->mappings = calloc(builder->mapping_count + 1, sizeof(*naming->mappings));
		if (!naming->mappings)
			error = cprof_error_nomem();
	}
	if (error) {
		cprof_naming_destroy(naming);
		return error;
	}
	for (size_t i = 0; i < builder->mapping_count; i++)
		naming->mappings[i] = builder->mappings[i];
	naming->mapping_count = builder->mapping_count;
	naming->kernel_mapping = builder->kernel_mapping;
	naming->generation = builder->generation;
	*result = naming;
	return NULL;
}

struct cprof_error *cprof_builder_copy(struct cprof_builder *builder, struct cprof_naming **result)
{
	CPROF_TRY(create(builder, true, result));
	(*result)->shared = (*result)->profile->location_count;
	return NULL;
}

struct cprof_error *cprof_builder_pick(struct cprof_builder *builder,
				       struct cprof_profile_sample *samples, const int64_t *values,
				       size_t count, struct cprof_naming **result)
{
	struct cprof_picked picked = {NULL};
	struct cprof_error *error;

	CPROF_TRY(create(builder, false, result));
	error = cprof_profile_pick(builder->profile, samples, values, count, (*result)->profile,
				   &picked);
	(*result)->origins = picked.origins;
	(*result)->shared = (*result)->profile->location_count;
	if (error)
		cprof_naming_destroy(cprof_take(*result));
	return error;
}

/* Which mapping's module names a location of the builder's profile. */
static bool *nameable(const struct cprof_builder_mapping *mappings, size_t count,
		      const struct cprof_profile *profile)
{
	bool *known = calloc(profile->mapping_count + 1, sizeof(*known));

	for (size_t i = 0; i < count && known; i++)
		if (mappings[i].module && mappings[i].id < profile->mapping_count)
			known[mappings[i].id] = true;
	return known;
}

static struct cprof_error *add_unnamed(struct cprof_builder *builder, size_t *from, size_t most,
				       struct cprof_naming *naming)
{
	const struct cprof_profile *profile = builder->profile;
	CPROF_AUTO_FREE bool *known = nameable(builder->mappings, builder->mapping_count, profile);
	struct cprof_profile_sample none;
	struct cprof_picked picked = {NULL};
	size_t total = profile->location_count;
	size_t at = *from;

	naming->origins = calloc(most + 1, sizeof(*naming->origins));
	if (!known || !naming->origins)
		return cprof_error_nomem();
	/* Mappings only. */
	CPROF_TRY(cprof_profile_pick(profile, &none, NULL, 0, naming->profile, &picked));
	free(picked.origins);
	for (size_t i = 0; i < total && naming->profile->location_count <= most; i++) {
		const struct cprof_profile_location *location;

		at = at + 1 < total ? at + 1 : 1;
		if (at >= total)
			break;
		location = &profile->locations[at];
		if (location->named || !location->mapping || !known[location->mapping])
			continue;
		naming->origins[naming->profile->location_count] = (uint32_t)at;
		cprof_profile_location(naming->profile, location->mapping, location->address);
	}
	*from = at;
	naming->shared = naming->profile->location_count;
	return cprof_profile_check(naming->profile);
}

struct cprof_error *cprof_builder_pick_unnamed(struct cprof_builder *builder, size_t *from,
					       size_t most, struct cprof_naming **result)
{
	struct cprof_error *error;

	CPROF_TRY(create(builder, false, result));
	error = add_unnamed(builder, from, most, *result);
	if (error || (*result)->shared < 2)
		cprof_naming_destroy(cprof_take(*result));
	return error;
}

size_t cprof_naming_unnamed(const struct cprof_naming *naming)
{
	const struct cprof_profile *profile = naming->profile;
	CPROF_AUTO_FREE bool *known = nameable(naming->mappings, naming->mapping_count, profile);
	size_t count = 0;

	for (size_t i = 1; i < profile->location_count && known; i++)
		count += !profile->locations[i].named && profile->locations[i].mapping &&
			 known[profile->locations[i].mapping];
	return count;
}

void cprof_naming_destroy(struct cprof_naming *naming)
{
	if (!naming)
		return;
	cprof_profile_destroy(naming->profile);
	free(naming->mappings);
	free(naming->origins);
	free(naming->named);
	free(naming);
}

struct cprof_profile *cprof_naming_profile(struct cprof_naming *naming)
{
	return naming->profile;
}

struct cprof_profile *cprof_naming_take(struct cprof_naming *naming)
{
	return cprof_take(naming->profile);
}

/* --- what to name -------------------------------------------------------------------------- */

struct unnamed {
	uint32_t mapping; /* index into the naming's mappings */
	uint32_t location;
	uint64_t address; /* in the module's image */
};

static int compare_unnamed(const void *a, const void *b)
{
	const struct unnamed *x = a;
	const struct unnamed *y = b;

	if (x->mapping != y->mapping)
		return x->mapping < y->mapping ? -1 : 1;
	return (x->address > y->address) - (x->address < y->address);
}

/* Sorted by mapping and address. */
static bool list_unnamed(const struct cprof_naming *naming, struct unnamed **list, size_t *count)
{
	const struct cprof_profile *profile = naming->profile;
	CPROF_AUTO_FREE uint32_t *by_id =
		calloc(profile->mapping_count + 1, sizeof(*by_id)); /* index + 1 */
	size_t capacity = 0;

	if (!by_id)
		return false;
	for (size_t i = 0; i < naming->mapping_count; i++)
		if (naming->mappings[i].module && naming->mappings[i].id < profile->mapping_count)
			by_id[naming->mappings[i].id] = (uint32_t)i + 1;
	for (size_t i = 1; i < profile->location_count; i++) {
		const struct cprof_profile_location *location = &profile->locations[i];
		uint32_t index = by_id[location->mapping];

		if (location->named || !location->mapping || !index)
			continue;
		if (!cprof_grow(list, &capacity, *count + 1, sizeof(**list)))
			return false;
		(*list)[(*count)++] = (struct unnamed){
			.mapping = index - 1,
			.location = (uint32_t)i,
			.address = location->address - naming->mappings[index - 1].bias,
		};
	}
	if (*count)
		qsort(*list, *count, sizeof(**list), compare_unnamed);
	return true;
}

/* --- naming -------------------------------------------------------------------------------- */

static void set_lines(struct cprof_naming *naming, uint32_t location,
		      const struct cprof_names *names, size_t which)
{
	struct cprof_profile *profile = naming->profile;
	struct cprof_profile_line lines[LINES_MAX];
	size_t count = 0;

	for (uint32_t i = names->first[which]; i < names->first[which + 1] && count < LINES_MAX;
	     i++) {
		const struct cprof_name *name = &names->names[i];
		struct cprof_profile_function function = {
			.name = cprof_profile_string(profile, names->strings + name->name),
			.system_name =
				cprof_profile_string(profile, names->strings + name->system_name),
			.file = cprof_profile_string(profile, names->strings + name->file),
			.start_line = name->start_line,
		};

		lines[count].function = cprof_profile_function(profile, &function);
		lines[count++].line = name->line;
	}
	cprof_profile_set_lines(profile, location, lines, count);
	naming->named[naming->named_count++] = location;
}

/* Names a run of locations of one module. */
static struct cprof_error *name_run(struct cprof_naming *naming, struct cprof_module *module,
				    const struct unnamed *run, size_t count, unsigned flags)
{
	CPROF_AUTO_FREE uint64_t *addresses = malloc(count * sizeof(*addresses));
	bool jit = cprof_module_kind(module) == CPROF_MODULE_JIT;
	struct cprof_names names;

	if (!addresses || !cprof_grow(&naming->named, &naming->named_capacity,
				      naming->named_count + count, sizeof(*naming->named)))
		return cprof_error_nomem();
	for (size_t i = 0; i < count; i++)
		addresses[i] = run[i].address;
	CPROF_TRY(cprof_module_names(module, addresses, count, flags, &names));
	for (size_t i = 0; i < count; i++)
		/* A JIT may write its map later: ask again at the next snapshot. */
		if (!jit || names.first[i + 1] > names.first[i])
			set_lines(naming, run[i].location, &names, i);
	cprof_names_deinit(&names);
	return NULL;
}

/* What was found out about each mapping. */
static void set_mapping_flags(struct cprof_naming *naming, bool *kernel_unnamed)
{
	for (size_t i = 0; i < naming->mapping_count; i++) {
		const struct cprof_builder_mapping *mapping = &naming->mappings[i];
		struct cprof_profile_mapping *entry = &naming->profile->mappings[mapping->id];
		struct cprof_module_facts facts;

		if (!mapping->module || !mapping->id)
			continue;
		cprof_module_facts(mapping->module, &facts);
		entry->has_functions = facts.has_symbols;
		entry->has_filenames = facts.has_lines;
		entry->has_line_numbers = facts.has_lines;
		entry->has_inline_frames = facts.has_inlines;
		if (naming->kernel_mapping == i + 1)
			*kernel_unnamed = !facts.has_symbols;
	}
}

struct cprof_error *cprof_naming_run(struct cprof_naming *naming, unsigned flags,
				     bool *kernel_unnamed)
{
	CPROF_AUTO_FREE struct unnamed *list = NULL;
	size_t count = 0;
	size_t end;

	*kernel_unnamed = false;
	if (!list_unnamed(naming, &list, &count))
		return cprof_error_nomem();
	for (size_t at = 0; at < count; at = end) {
		for (end = at; end < count && list[end].mapping == list[at].mapping; end++)
			continue;
		CPROF_TRY(name_run(naming, naming->mappings[list[at].mapping].module, list + at,
				   end - at, flags));
	}
	set_mapping_flags(naming, kernel_unnamed);
	return cprof_profile_check(naming->profile);
}

void cprof_naming_leave(struct cprof_naming *naming)
{
	bool kernel_unnamed = false;

	set_mapping_flags(naming, &kernel_unnamed);
}

/* --- giving back --------------------------------------------------------------------------- */

static uint32_t carry_function(const struct cprof_profile *from, uint32_t id,
			       struct cprof_profile *to)
{
	struct cprof_profile_function function = from->functions[id];

	function.name = cprof_profile_string(to, from->strings[function.name]);
	function.system_name = cprof_profile_string(to, from->strings[function.system_name]);
	function.file = cprof_profile_string(to, from->strings[function.file]);
	return cprof_profile_function(to, &function);
}

void cprof_naming_give_back(struct cprof_naming *naming, struct cprof_builder *builder)
{
	const struct cprof_profile *from = naming->profile;
	struct cprof_profile *to = builder->profile;

	if (builder->held || naming->generation != builder->generation)
		return; /* they are asked for again */
	for (size_t i = 0; i < naming->named_count; i++) {
		uint32_t id = naming->named[i];
		const struct cprof_profile_location *location = &from->locations[id];
		struct cprof_profile_line lines[LINES_MAX];

		if (id >= naming->shared)
			continue;
		if (naming->origins)
			id = naming->origins[id];
		if (!id || to->locations[id].named)
			continue;
		for (uint32_t j = 0; j < location->line_count; j++) {
			lines[j] = from->lines[location->first_line + j];
			lines[j].function = carry_function(from, lines[j].function, to);
		}
		cprof_profile_set_lines(to, id, lines, location->line_count);
	}
	naming->named_count = 0;
}

/* SPDX-License-Identifier: MIT
 *
 * The mappings that a dump's frames are in, for those who symbolize its profile again.
 */
#include "private.h"

#include <cprof/space.h>
#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

struct regions {
	const struct cprof_region **list;
	size_t count;
	size_t capacity;
};

static bool add_region(struct regions *regions, const struct cprof_region *region)
{
	if (!cprof_grow(&regions->list, &regions->capacity, regions->count + 1,
			sizeof(const struct cprof_region *)))
		return false;
	regions->list[regions->count++] = region;
	return true;
}

static int compare_regions(const void *a, const void *b)
{
	const struct cprof_region *x = *(const struct cprof_region *const *)a;
	const struct cprof_region *y = *(const struct cprof_region *const *)b;

	return (x->start > y->start) - (x->start < y->start);
}

static const char *keep_text(struct cprof_keep *keep, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = cprof_keep_take(keep, size);

	return copy ? memcpy(copy, text, size) : NULL;
}

static bool add_mapping(struct cprof_dump *dump, const struct cprof_region *region, bool program)
{
	struct cprof_dump_mapping *mapping = &dump->mappings[dump->mapping_count];
	struct cprof_module_facts facts = {.path = "", .build_id = ""};

	if (dump->mapping_count && mapping[-1].start == region->start)
		return true;
	if (region->module)
		cprof_module_facts(region->module, &facts);
	*mapping = (struct cprof_dump_mapping){
		.start = region->start,
		.end = region->end,
		.offset = region->offset,
		.path = keep_text(dump->memory, region->path[0] ? region->path : facts.path),
		.build_id = keep_text(dump->memory, facts.build_id),
		.program = program,
	};
	dump->mapping_count++;
	return mapping->path && mapping->build_id;
}

bool cprof_mappings_fill(struct cprof_space *space, const uint64_t *addresses, size_t count,
			 struct cprof_dump *dump)
{
	const struct cprof_region *program = cprof_space_main(space);
	struct regions regions = {.list = NULL};
	bool fine = !program || add_region(&regions, program);

	for (size_t i = 0; i < count && fine; i++) {
		const struct cprof_region *region = cprof_space_find(space, addresses[i]);

		fine = !region || (regions.count && regions.list[regions.count - 1] == region) ||
		       add_region(&regions, region);
	}
	if (regions.count)
		qsort(regions.list, regions.count, sizeof(const struct cprof_region *),
		      compare_regions);
	dump->mappings =
		cprof_keep_take(dump->memory, (regions.count + 1) * sizeof(*dump->mappings));
	fine = fine && dump->mappings;
	for (size_t i = 0; i < regions.count && fine; i++)
		fine = add_mapping(dump, regions.list[i], regions.list[i] == program);
	free(regions.list);
	return fine;
}

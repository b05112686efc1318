/* SPDX-License-Identifier: MIT
 *
 * The target's memory map, to tell what an address belongs to.
 */
#include "private.h"

#include <cprof/space.h>
#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SYMBOLS_ASKED 64 /* addresses of one dump: each costs a walk over symbol tables */

struct cprof_described {
	uint64_t address;
	char text[256];
};

static struct cprof_error *add_area(void *context, const struct cprof_mapping *mapping)
{
	struct cprof_areas *areas = context;
	struct cprof_area area = {
		.start = mapping->start, .end = mapping->end, .base = mapping->start};
	const struct cprof_area *before;

	if (!cprof_grow(&areas->areas, &areas->capacity, areas->count + 1, sizeof(area)))
		return cprof_error_nomem();
	before = areas->count ? &areas->areas[areas->count - 1] : NULL;
	if (!mapping->path[0] && before && before->end == mapping->start &&
	    before->path[0] == '/' && (mapping->prot & PROT_WRITE)) {
		area.path = before->path; /* the .bss */
		area.base = before->base;
		area.code = before->code;
	} else {
		area.path = cprof_keep_clean(&areas->texts, mapping->path);
		if (!area.path)
			return cprof_error_nomem();
	}
	if (before && mapping->offset && strcmp(before->path, area.path) == 0) {
		area.base = before->base;
		area.code = before->code;
	}
	if ((mapping->prot & PROT_EXEC) && area.path[0] == '/')
		area.code = area.start;
	areas->areas[areas->count++] = area;
	return NULL;
}

static struct cprof_area *find_area(const struct cprof_areas *areas, uint64_t address)
{
	size_t low = 0;
	size_t high = areas->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (areas->areas[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < areas->count && areas->areas[low].start <= address ? &areas->areas[low] : NULL;
}

struct cprof_error *cprof_areas_init(const struct cprof_target *target,
				     const struct cprof_snapshot *snapshot,
				     struct cprof_areas *areas)
{
	*areas = (struct cprof_areas){0};
	CPROF_TRY(cprof_target_maps(target, add_area, areas));
	for (size_t i = 0; snapshot && i < snapshot->count; i++) {
		const struct cprof_snapshot_thread *thread = &snapshot->threads[i];
		struct cprof_area *area =
			thread->held ? find_area(areas, thread->regs.value[CPROF_REG_SP]) : NULL;

		if (area && !area->stack_of && area->path[0] != '/')
			area->stack_of = thread->tid;
	}
	return NULL;
}

void cprof_areas_deinit(struct cprof_areas *areas)
{
	free(areas->areas);
	free(areas->described);
	cprof_keep_deinit(&areas->texts);
}

struct cprof_error *cprof_areas_create(const struct cprof_target *target,
				       struct cprof_areas **result)
{
	struct cprof_areas *areas = calloc(1, sizeof(*areas));
	struct cprof_error *error = areas ? cprof_areas_init(target, NULL, areas) : NULL;

	*result = NULL;
	if (!areas)
		return cprof_error_nomem();
	if (error)
		cprof_areas_destroy(areas);
	else
		*result = areas;
	return error;
}

void cprof_areas_destroy(struct cprof_areas *areas)
{
	if (!areas)
		return;
	cprof_areas_deinit(areas);
	free(areas);
}

/* --- symbols ------------------------------------------------------------------------------- */

/* Fills in the variable at an address of a file's data. */
static void find_variable(const struct cprof_area *area, struct cprof_space *space,
			  struct cprof_described *found)
{
	const struct cprof_region *region = area->code ? cprof_space_find(space, area->code) : NULL;
	const char *file = strrchr(area->path, '/');
	char name[128];
	uint64_t start;
	uint64_t offset;

	if (!region || !region->module ||
	    !cprof_module_variable(region->module, found->address - region->bias, name,
				   sizeof(name), &start))
		return;
	cprof_text_clean(name, strlen(name), name, sizeof(name));
	offset = found->address - region->bias - start;
	if (offset)
		snprintf(found->text, sizeof(found->text), "%s+0x%llx in %.100s", name,
			 (unsigned long long)offset, file ? file + 1 : area->path);
	else
		snprintf(found->text, sizeof(found->text), "%s in %.100s", name,
			 file ? file + 1 : area->path);
}

/* The symbol's text, "" if there is none. */
static const char *describe_symbol(struct cprof_areas *areas, const struct cprof_area *area,
				   struct cprof_space *space, uint64_t address)
{
	struct cprof_described *found;

	for (size_t i = 0; i < areas->described_count; i++)
		if (areas->described[i].address == address)
			return areas->described[i].text;
	if (areas->described_count >= SYMBOLS_ASKED ||
	    !cprof_grow(&areas->described, &areas->described_capacity, areas->described_count + 1,
			sizeof(*areas->described)))
		return "";
	found = &areas->described[areas->described_count++];
	*found = (struct cprof_described){.address = address};
	find_variable(area, space, found);
	return found->text;
}

void cprof_areas_describe(struct cprof_areas *areas, struct cprof_space *space, uint64_t address,
			  char *text, size_t size)
{
	const struct cprof_area *area = find_area(areas, address);
	const char *symbol;

	if (!area) {
		snprintf(text, size, "unmapped memory");
	} else if (area->stack_of) {
		snprintf(text, size, "stack of thread %d", (int)area->stack_of);
	} else if (strcmp(area->path, "[heap]") == 0) {
		snprintf(text, size, "heap");
	} else if (!area->path[0]) {
		snprintf(text, size, "anonymous memory");
	} else {
		symbol = describe_symbol(areas, area, space, address);
		if (symbol[0])
			snprintf(text, size, "%s", symbol);
		else
			snprintf(text, size, "%s+0x%llx", area->path,
				 (unsigned long long)(address - area->base));
	}
}

bool cprof_areas_label(struct cprof_areas *areas, struct cprof_space *space, uint64_t address,
		       char *text, size_t size)
{
	const struct cprof_area *area = find_area(areas, address);
	bool file = area && !area->stack_of && area->path[0] == '/';
	bool asked = areas->described_count < SYMBOLS_ASKED;
	char around[256];

	if (file && describe_symbol(areas, area, space, address)[0]) {
		snprintf(text, size, "%s", describe_symbol(areas, area, space, address));
		return true;
	}
	cprof_areas_describe(areas, space, address, around, sizeof(around));
	snprintf(text, size, "0x%llx (%s)", (unsigned long long)address, around);
	return !file || asked;
}

/* SPDX-License-Identifier: MIT
 *
 * The functions of one compilation unit, inlined ones included: its tree is walked once, and its
 * address ranges are flattened to spans, so that a lookup is one binary search.
 */
#include "dwarf.h"

#include <cprof/util.h>
#include <dwarf.h>
#include <string.h>

#define DEPTH_MAX 256 /* of the tree; deeper DIEs are left out */

struct range {
	uint64_t start;
	uint64_t end;
	uint32_t scope;
	uint32_t depth;
};

struct walk {
	const struct cprof_image *image;
	struct cprof_scopes *result;
	struct range *ranges;
	size_t range_count;
	size_t range_capacity;
	size_t scope_capacity;
	size_t span_capacity;
	uint64_t budget; /* DIEs and ranges that may still be looked at */
};

bool cprof_image_is_code(const struct cprof_image *image, uint64_t address)
{
	for (size_t i = 0; i < image->segment_count; i++) {
		const struct cprof_segment *segment = &image->segments[i];

		if (segment->exec && address > 1 &&
		    address - segment->address < segment->memory_size)
			return true;
	}
	return false;
}

/* --- the tree ------------------------------------------------------------------------------ */

/* Adds the function, if it has code, and sets `*scope` to it. False without memory. */
static bool add_function(struct walk *walk, Dwarf_Die *die, uint32_t *scope)
{
	struct cprof_scopes *result = walk->result;
	bool subprogram = dwarf_tag(die) == DW_TAG_subprogram;
	uint32_t parent = subprogram ? CPROF_NO_SCOPE : *scope;
	uint32_t depth = parent == CPROF_NO_SCOPE ? 0 : result->scopes[parent].depth + 1;
	uint32_t index = (uint32_t)result->scope_count;
	size_t before = walk->range_count;
	ptrdiff_t position = 0;
	Dwarf_Addr base;
	Dwarf_Addr start;
	Dwarf_Addr end;

	while (walk->budget && (position = dwarf_ranges(die, position, &base, &start, &end)) > 0) {
		walk->budget--;
		if (start >= end || !cprof_image_is_code(walk->image, start))
			continue;
		if (!cprof_grow(&walk->ranges, &walk->range_capacity, walk->range_count + 1,
				sizeof(*walk->ranges)))
			return false;
		walk->ranges[walk->range_count++] = (struct range){start, end, index, depth};
	}
	if (walk->range_count == before)
		return true;
	if (!cprof_grow(&result->scopes, &walk->scope_capacity, result->scope_count + 1,
			sizeof(*result->scopes)))
		return false;
	result->scopes[result->scope_count++] =
		(struct cprof_scope){dwarf_dieoffset(die), parent, depth};
	*scope = index;
	return true;
}

static bool may_hold_functions(int tag)
{
	switch (tag) {
	case DW_TAG_subprogram:
	case DW_TAG_inlined_subroutine:
	case DW_TAG_lexical_block:
	case DW_TAG_try_block:
	case DW_TAG_catch_block:
	case DW_TAG_with_stmt:
	case DW_TAG_namespace:
	case DW_TAG_module:
	case DW_TAG_structure_type:
	case DW_TAG_class_type:
	case DW_TAG_union_type:
	case DW_TAG_enumeration_type:
	case DW_TAG_interface_type:
		return true;
	default:
		return false;
	}
}

/* Walks below `unit`. Broken trees have cycles: the budget ends them. Imported units are not
 * entered: what units share has no addresses. */
static bool walk_tree(struct walk *walk, Dwarf_Die *unit)
{
	struct {
		Dwarf_Die die;
		uint32_t scope; /* that the DIE is in */
	} stack[DEPTH_MAX];
	size_t depth = 1;

	if (dwarf_child(unit, &stack[0].die) != 0)
		return true;
	stack[0].scope = CPROF_NO_SCOPE;
	while (depth && walk->budget) {
		Dwarf_Die *die = &stack[depth - 1].die;
		uint32_t scope = stack[depth - 1].scope;
		int tag = dwarf_tag(die);
		Dwarf_Die child;
		bool has_child;

		walk->budget--;
		if ((tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine) &&
		    !add_function(walk, die, &scope))
			return false;
		has_child = may_hold_functions(tag) && dwarf_child(die, &child) == 0;
		if (dwarf_siblingof(die, die) != 0)
			depth--;
		if (has_child && depth < DEPTH_MAX) {
			stack[depth].die = child;
			stack[depth++].scope = scope;
		}
	}
	return true;
}

/* --- spans --------------------------------------------------------------------------------- */

/* Outer ranges before those inside them. */
static int compare(const void *left, const void *right)
{
	const struct range *a = left;
	const struct range *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (a->depth != b->depth)
		return a->depth < b->depth ? -1 : 1;
	if (a->end != b->end)
		return a->end > b->end ? -1 : 1;
	return a->scope < b->scope ? -1 : a->scope > b->scope;
}

static bool add_span(struct walk *walk, uint64_t start, uint32_t scope)
{
	struct cprof_scopes *result = walk->result;

	if (result->span_count && result->spans[result->span_count - 1].start == start)
		result->span_count--;
	if (!cprof_grow(&result->spans, &walk->span_capacity, result->span_count + 1,
			sizeof(*result->spans)))
		return false;
	result->spans[result->span_count++] = (struct cprof_span){start, scope};
	return true;
}

/* The ranges that hold the current address lie on `stack`, the innermost on top, ends falling. */
static bool flatten(struct walk *walk)
{
	CPROF_AUTO_FREE uint32_t *stack = malloc((walk->range_count + 1) * sizeof(*stack));
	struct range *ranges = walk->ranges;
	size_t depth = 0;

	if (!stack)
		return false;
	if (walk->range_count)
		qsort(ranges, walk->range_count, sizeof(*ranges), compare);
	for (size_t i = 0; i <= walk->range_count; i++) {
		uint64_t start = i < walk->range_count ? ranges[i].start : UINT64_MAX;

		while (depth && ranges[stack[depth - 1]].end <= start) {
			uint64_t end = ranges[stack[--depth]].end;

			if (!add_span(walk, end,
				      depth ? ranges[stack[depth - 1]].scope : CPROF_NO_SCOPE))
				return false;
		}
		if (i == walk->range_count)
			break;
		/* Where ranges overlap without nesting, the later one takes the rest. */
		while (depth && ranges[stack[depth - 1]].end < ranges[i].end)
			depth--;
		stack[depth++] = (uint32_t)i;
		if (!add_span(walk, start, ranges[i].scope))
			return false;
	}
	return true;
}

struct cprof_error *cprof_scopes_create(const struct cprof_image *image, Dwarf_Die unit,
					uint64_t bytes, struct cprof_scopes **result)
{
	/* A DIE takes a byte at least; most ranges lie outside .debug_info, but few a DIE. */
	struct walk walk = {
		.image = image, .result = calloc(1, sizeof(**result)), .budget = 2 * bytes + 64};
	bool ok = walk.result && walk_tree(&walk, &unit) && flatten(&walk);

	free(walk.ranges);
	if (!ok) {
		cprof_scopes_destroy(walk.result);
		return cprof_error_nomem();
	}
	*result = walk.result;
	return NULL;
}

void cprof_scopes_destroy(struct cprof_scopes *scopes)
{
	if (!scopes)
		return;
	free(scopes->scopes);
	free(scopes->spans);
	free(scopes);
}

uint32_t cprof_scopes_find(const struct cprof_scopes *scopes, uint64_t address)
{
	size_t low = 0;
	size_t high = scopes->span_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (scopes->spans[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? scopes->spans[low - 1].scope : CPROF_NO_SCOPE;
}

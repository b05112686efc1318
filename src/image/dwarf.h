/* SPDX-License-Identifier: MIT
 *
 * Private to dwarf.c and scopes.c: what .debug_info says, unit by unit.
 */
#ifndef CPROF_IMAGE_DWARF_H
#define CPROF_IMAGE_DWARF_H

#include "private.h"

#define CPROF_NO_SCOPE UINT32_MAX

/* A function of a unit that has code: a subprogram, or one inlined into `parent`. */
struct cprof_scope {
	Dwarf_Off die;
	uint32_t parent; /* CPROF_NO_SCOPE for a subprogram */
	uint32_t depth;
};

/* From `start` to the next span's start, `scope` is the innermost function. */
struct cprof_span {
	uint64_t start;
	uint32_t scope; /* or CPROF_NO_SCOPE */
};

struct cprof_scopes {
	struct cprof_scope *scopes;
	struct cprof_span *spans; /* sorted */
	size_t scope_count;
	size_t span_count;
};

/* Walks the unit's tree, whose DIEs take `bytes`; addresses outside the image's code are left
 * out. */
struct cprof_error *cprof_scopes_create(const struct cprof_image *image, Dwarf_Die unit,
					uint64_t bytes, struct cprof_scopes **scopes);
/* The innermost scope at the address, or CPROF_NO_SCOPE. */
uint32_t cprof_scopes_find(const struct cprof_scopes *scopes, uint64_t address);
void cprof_scopes_destroy(struct cprof_scopes *scopes);

struct cprof_section {
	const char *start; /* NULL if there is none */
	const char *end;
};

/* lines.c: roughly the memory libdw would take for the line table at an offset of .debug_line;
 * UINT64_MAX if it is not one. `directory`: length of the compilation directory. */
struct cprof_line_sections {
	struct cprof_section line;
	struct cprof_section line_str;
	struct cprof_section str;
};
uint64_t cprof_lines_cost(const struct cprof_line_sections *sections, uint64_t offset,
			  uint64_t directory);

/* Whether there may be code at the address: compilers and linkers leave 0 or 1 where they dropped
 * a function. */
bool cprof_image_is_code(const struct cprof_image *image, uint64_t address);

#endif

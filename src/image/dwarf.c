/* SPDX-License-Identifier: MIT
 *
 * Functions and lines by DWARF: units are found by an index of their ranges, each unit's functions
 * are indexed when it is first hit (scopes.c), names are fetched when an answer needs them.
 */
#include "dwarf.h"

#include <cprof/util.h>
#include <dwarf.h>
#include <limits.h>
#include <string.h>

#define NESTING    16           /* unit ranges looked at backwards for one that covers */
#define LINES_MAX  (2ull << 30) /* memory for line tables of one file */
#define RANGES_MAX (1u << 24)   /* of all units */

struct unit {
	Dwarf_Off die;
	uint64_t bytes;
	struct cprof_scopes *scopes; /* NULL: not tried yet */
	enum { LINES_UNKNOWN, LINES_USABLE, LINES_UNUSABLE } lines;
};

struct unit_range {
	uint64_t start;
	uint64_t end;
	size_t unit;
};

struct cprof_dwarf {
	const struct cprof_image *image;
	Dwarf *dwarf;
	Dwarf *alt;
	struct cprof_elf_file plain[2]; /* unpacked files of both, if they are compressed */
	struct cprof_section info[2];   /* .debug_info of both */
	struct cprof_line_sections line;
	uint64_t line_budget; /* memory that line tables may still take */
	struct unit *units;
	size_t unit_count;
	size_t unit_capacity;
	struct unit_range *ranges; /* sorted by start */
	size_t range_count;
	size_t range_capacity;
	char *paths[CPROF_DWARF_DEPTH]; /* put together for the last answer */
	size_t path_count;
};

/* --- strings and lines, bounded ------------------------------------------------------------ */

static struct cprof_section section_of(Elf *elf, const char *name, const char *compressed_name)
{
	GElf_Shdr header;
	Elf_Scn *scn = cprof_elf_section(elf, name, &header);
	Elf_Data *data;

	if (!scn)
		scn = cprof_elf_section(elf, compressed_name, &header);
	data = scn ? elf_rawdata(scn, NULL) : NULL;
	if (!data || !data->d_buf)
		return (struct cprof_section){NULL, NULL};
	return (struct cprof_section){data->d_buf, (const char *)data->d_buf + data->d_size};
}

/* libdw does not look where a string inside .debug_info ends. */
static const char *string_of(const struct cprof_dwarf *dwarf, Dwarf_Attribute *attribute)
{
	const char *string = attribute ? dwarf_formstring(attribute) : NULL;

	if (!string || dwarf_whatform(attribute) != DW_FORM_string)
		return string;
	for (size_t i = 0; i < CPROF_COUNT(dwarf->info); i++)
		if (string >= dwarf->info[i].start && string < dwarf->info[i].end)
			return memchr(string, '\0', (size_t)(dwarf->info[i].end - string)) ? string
											   : NULL;
	return NULL;
}

static uint32_t number_of(Dwarf_Attribute *attribute)
{
	Dwarf_Word value = 0;

	if (attribute)
		dwarf_formudata(attribute, &value);
	return value > UINT32_MAX ? 0 : (uint32_t)value;
}

/* Whether libdw may be asked for the unit's lines: it reads them all, whatever they claim. */
static bool lines_usable(struct cprof_dwarf *dwarf, struct unit *unit, Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	Dwarf_Word offset;
	const char *directory;
	uint64_t cost;

	if (unit->lines != LINES_UNKNOWN)
		return unit->lines == LINES_USABLE;
	unit->lines = LINES_UNUSABLE;
	if (!dwarf_attr(die, DW_AT_stmt_list, &attribute) ||
	    dwarf_formudata(&attribute, &offset) != 0)
		return false;
	directory = string_of(dwarf, dwarf_attr(die, DW_AT_comp_dir, &attribute));
	cost = cprof_lines_cost(&dwarf->line, offset, directory ? strlen(directory) : 0);
	if (cost > dwarf->line_budget)
		return false;
	dwarf->line_budget -= cost;
	unit->lines = LINES_USABLE;
	return true;
}

/* --- units --------------------------------------------------------------------------------- */

static bool add_range(struct cprof_dwarf *dwarf, uint64_t start, uint64_t end, size_t unit)
{
	if (start >= end || !cprof_image_is_code(dwarf->image, start))
		return true;
	if (dwarf->range_count >= RANGES_MAX ||
	    !cprof_grow(&dwarf->ranges, &dwarf->range_capacity, dwarf->range_count + 1,
			sizeof(*dwarf->ranges)))
		return false;
	dwarf->ranges[dwarf->range_count++] = (struct unit_range){start, end, unit};
	return true;
}

/* The unit's functions, indexed by the first call. NULL without memory. */
static struct cprof_scopes *scopes_of(struct cprof_dwarf *dwarf, struct unit *unit)
{
	Dwarf_Die die;

	if (!unit->scopes && dwarf_offdie(dwarf->dwarf, unit->die, &die))
		cprof_error_destroy(
			cprof_scopes_create(dwarf->image, die, unit->bytes, &unit->scopes));
	return unit->scopes;
}

/* The ranges of a unit that does not state them are those of its functions. */
static bool add_function_ranges(struct cprof_dwarf *dwarf, size_t index)
{
	const struct cprof_scopes *scopes = scopes_of(dwarf, &dwarf->units[index]);

	for (size_t i = 0; scopes && i + 1 < scopes->span_count; i++)
		if (scopes->spans[i].scope != CPROF_NO_SCOPE &&
		    !add_range(dwarf, scopes->spans[i].start, scopes->spans[i + 1].start, index))
			return false;
	return true;
}

static bool add_unit(struct cprof_dwarf *dwarf, Dwarf_Die *die, uint64_t bytes)
{
	size_t index = dwarf->unit_count;
	ptrdiff_t position = 0;
	uint64_t budget = bytes + (1u << 16);
	Dwarf_Addr base;
	Dwarf_Addr start;
	Dwarf_Addr end;

	if (!cprof_grow(&dwarf->units, &dwarf->unit_capacity, index + 1, sizeof(*dwarf->units)))
		return false;
	dwarf->units[dwarf->unit_count++] = (struct unit){
		.die = dwarf_dieoffset(die),
		.bytes = bytes,
	};
	while (budget-- && (position = dwarf_ranges(die, position, &base, &start, &end)) > 0)
		if (!add_range(dwarf, start, end, index))
			return false;
	if (!dwarf_hasattr(die, DW_AT_ranges) && !dwarf_hasattr(die, DW_AT_high_pc))
		return add_function_ranges(dwarf, index);
	return true;
}

static int compare(const void *left, const void *right)
{
	const struct unit_range *a = left;
	const struct unit_range *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return a->end > b->end ? -1 : a->end < b->end;
}

static bool index_units(struct cprof_dwarf *dwarf)
{
	Dwarf_Off offset = 0;
	Dwarf_Off next;
	size_t header;

	while (dwarf_nextcu(dwarf->dwarf, offset, &next, &header, NULL, NULL, NULL) == 0 &&
	       next > offset) {
		Dwarf_Die die;
		int tag = dwarf_offdie(dwarf->dwarf, offset + header, &die) ? dwarf_tag(&die) : 0;

		if ((tag == DW_TAG_compile_unit || tag == DW_TAG_skeleton_unit) &&
		    !add_unit(dwarf, &die, next - offset))
			return false;
		offset = next;
	}
	if (dwarf->range_count)
		qsort(dwarf->ranges, dwarf->range_count, sizeof(*dwarf->ranges), compare);
	return true;
}

static struct unit *find_unit(struct cprof_dwarf *dwarf, uint64_t address)
{
	size_t low = 0;
	size_t high = dwarf->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (dwarf->ranges[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = low; i > 0 && low - i < NESTING; i--)
		if (address < dwarf->ranges[i - 1].end)
			return &dwarf->units[dwarf->ranges[i - 1].unit];
	return NULL;
}

/* --- opening ------------------------------------------------------------------------------- */

/* libdw would look for the supplementary file in the file system: it must not see the link. */
static void hide_alt_link(Elf *elf)
{
	size_t names;

	if (elf_getshdrstrndx(elf, &names) != 0)
		return;
	for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section));) {
		GElf_Shdr header;
		const char *name;

		if (!gelf_getshdr(section, &header))
			continue;
		name = elf_strptr(elf, names, header.sh_name);
		if (name && strcmp(name, ".gnu_debugaltlink") == 0) {
			header.sh_type = SHT_NOBITS;
			gelf_update_shdr(section, &header);
		}
	}
}

static bool has_debug_info(Elf *elf)
{
	GElf_Shdr header;

	return elf &&
	       ((cprof_elf_section(elf, ".debug_info", &header) && header.sh_type != SHT_NOBITS) ||
		(cprof_elf_section(elf, ".zdebug_info", &header) && header.sh_type != SHT_NOBITS));
}

/* `elf` is what libdw reads: the file's, or one with its sections unpacked. */
static Dwarf *begin(const struct cprof_elf_file *file, struct cprof_elf_file *plain, Elf **elf)
{
	*elf = cprof_elf_unpack(file, plain) ? plain->elf : file->elf;
	hide_alt_link(*elf);
	return dwarf_begin_elf(*elf, DWARF_C_READ, NULL);
}

struct cprof_error *cprof_dwarf_create(struct cprof_image *image, struct cprof_dwarf **result)
{
	const struct cprof_elf_file *file =
		has_debug_info(image->debug.elf) ? &image->debug : &image->file;
	struct cprof_dwarf *dwarf;
	Elf *elf;

	if (!has_debug_info(file->elf))
		return cprof_error_create(CPROF_FAILED, NULL, "no debug information");
	dwarf = calloc(1, sizeof(*dwarf));
	if (!dwarf)
		return cprof_error_nomem();
	dwarf->image = image;
	dwarf->dwarf = begin(file, &dwarf->plain[0], &elf);
	if (!dwarf->dwarf) {
		cprof_dwarf_destroy(dwarf);
		return cprof_error_create(CPROF_FAILED, NULL, "unusable debug information: %s",
					  dwarf_errmsg(-1));
	}
	dwarf->info[0] = section_of(elf, ".debug_info", ".zdebug_info");
	dwarf->line.line = section_of(elf, ".debug_line", ".zdebug_line");
	dwarf->line.line_str = section_of(elf, ".debug_line_str", ".zdebug_line_str");
	dwarf->line.str = section_of(elf, ".debug_str", ".zdebug_str");
	dwarf->line_budget = LINES_MAX;
	if (image->alt.elf) {
		dwarf->alt = begin(&image->alt, &dwarf->plain[1], &elf);
		dwarf->info[1] = section_of(elf, ".debug_info", ".zdebug_info");
	}
	if (dwarf->alt)
		dwarf_setalt(dwarf->dwarf, dwarf->alt);
	if (!index_units(dwarf)) {
		cprof_dwarf_destroy(dwarf);
		return cprof_error_nomem();
	}
	*result = dwarf;
	return NULL;
}

static void forget_paths(struct cprof_dwarf *dwarf)
{
	while (dwarf->path_count)
		free(dwarf->paths[--dwarf->path_count]);
}

void cprof_dwarf_destroy(struct cprof_dwarf *dwarf)
{
	if (!dwarf)
		return;
	for (size_t i = 0; i < dwarf->unit_count; i++)
		cprof_scopes_destroy(dwarf->units[i].scopes);
	forget_paths(dwarf);
	free(dwarf->units);
	free(dwarf->ranges);
	dwarf_end(dwarf->dwarf);
	dwarf_end(dwarf->alt);
	for (size_t i = 0; i < CPROF_COUNT(dwarf->plain); i++)
		cprof_elf_file_close(&dwarf->plain[i]);
	free(dwarf);
}

/* --- answers ------------------------------------------------------------------------------- */

static uint64_t entry_of(Dwarf_Die *die)
{
	Dwarf_Addr base;
	Dwarf_Addr start;
	Dwarf_Addr end;

	if (dwarf_entrypc(die, &start) == 0)
		return start;
	/* The hot part of a split function comes first. */
	return dwarf_ranges(die, 0, &base, &start, &end) > 0 ? start : 0;
}

static void describe(const struct cprof_dwarf *dwarf, Dwarf_Die *die, unsigned flags,
		     struct cprof_dwarf_function *function)
{
	Dwarf_Attribute attribute;

	function->linkage_name =
		string_of(dwarf, dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));
	if (!function->linkage_name)
		function->linkage_name = string_of(
			dwarf, dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute));
	function->name = string_of(dwarf, dwarf_attr_integrate(die, DW_AT_name, &attribute));
	if (!(flags & CPROF_NAMES_NO_LINES))
		function->start_line =
			number_of(dwarf_attr_integrate(die, DW_AT_decl_line, &attribute));
	if (dwarf_tag(die) == DW_TAG_subprogram)
		function->start = entry_of(die);
}

/* A relative path of the line table is relative to where the compiler ran. */
static const char *full_path(struct cprof_dwarf *dwarf, Dwarf_Die *unit, const char *file)
{
	Dwarf_Attribute attribute;
	const char *directory;
	char *path;

	if (!file || file[0] == '/' || dwarf->path_count == CPROF_COUNT(dwarf->paths))
		return file;
	directory = string_of(dwarf, dwarf_attr(unit, DW_AT_comp_dir, &attribute));
	if (!directory || !directory[0] || strnlen(directory, PATH_MAX) == PATH_MAX ||
	    strnlen(file, PATH_MAX) == PATH_MAX)
		return file;
	if (asprintf(&path, "%s/%s", directory, file) < 0)
		return file;
	return dwarf->paths[dwarf->path_count++] = path;
}

/* Where `die` was called from, which is a place in `caller`. */
static void place_call(struct cprof_dwarf *dwarf, Dwarf_Die *unit, Dwarf_Die *die,
		       struct cprof_dwarf_function *caller)
{
	Dwarf_Attribute attribute;
	Dwarf_Files *files;
	size_t count;
	uint32_t index;

	caller->line = number_of(dwarf_attr(die, DW_AT_call_line, &attribute));
	index = number_of(dwarf_attr(die, DW_AT_call_file, &attribute));
	if (dwarf_getsrcfiles(unit, &files, &count) == 0 && index < count)
		caller->file = full_path(dwarf, unit, dwarf_filesrc(files, index, NULL, NULL));
}

static void place_address(struct cprof_dwarf *dwarf, Dwarf_Die *unit, uint64_t address,
			  struct cprof_dwarf_function *function)
{
	Dwarf_Line *line = dwarf_getsrc_die(unit, address);
	int number;

	if (!line)
		return;
	function->file = full_path(dwarf, unit, dwarf_linesrc(line, NULL, NULL));
	if (dwarf_lineno(line, &number) == 0 && number > 0)
		function->line = (uint32_t)number;
}

size_t cprof_dwarf_find(struct cprof_dwarf *dwarf, uint64_t address, unsigned flags,
			struct cprof_dwarf_function *functions)
{
	struct unit *unit = find_unit(dwarf, address);
	const struct cprof_scopes *scopes = unit ? scopes_of(dwarf, unit) : NULL;
	uint32_t scope = scopes ? cprof_scopes_find(scopes, address) : CPROF_NO_SCOPE;
	size_t count = 0;
	bool lines;
	Dwarf_Die unit_die;

	if (!unit || !dwarf_offdie(dwarf->dwarf, unit->die, &unit_die))
		return 0;
	lines = !(flags & CPROF_NAMES_NO_LINES) && lines_usable(dwarf, unit, &unit_die);
	forget_paths(dwarf);
	functions[0] = (struct cprof_dwarf_function){0};
	if (lines)
		place_address(dwarf, &unit_die, address, &functions[0]);
	while (scope != CPROF_NO_SCOPE) {
		Dwarf_Die die;

		if (!dwarf_offdie(dwarf->dwarf, scopes->scopes[scope].die, &die))
			break;
		describe(dwarf, &die, flags, &functions[count]);
		scope = scopes->scopes[scope].parent;
		if (++count == CPROF_DWARF_DEPTH || scope == CPROF_NO_SCOPE)
			break;
		functions[count] = (struct cprof_dwarf_function){0};
		if (lines)
			place_call(dwarf, &unit_die, &die, &functions[count]);
	}
	return count || !functions[0].file ? count : 1;
}

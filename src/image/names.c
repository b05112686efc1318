/* SPDX-License-Identifier: MIT
 *
 * Addresses to names: DWARF's functions where there are some, else the symbol table's.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define NO_STRING UINT32_MAX

/* The answer being built; its strings are kept once each. */
struct builder {
	struct cprof_names names;
	size_t name_capacity;
	size_t string_capacity;
	struct string {
		uint32_t offset; /* NO_STRING: free */
		uint32_t length;
		uint32_t demangled; /* offset; NO_STRING: not tried; own offset: not mangled */
		uint32_t hash;
	} * table;
	size_t table_size; /* a power of two */
	size_t table_used;
	bool failed; /* no memory */
};

static bool grow_table(struct builder *builder)
{
	size_t size = builder->table_size ? 2 * builder->table_size : 1024;
	struct string *table = malloc(size * sizeof(*table));

	if (!table)
		return false;
	for (size_t i = 0; i < size; i++)
		table[i].offset = NO_STRING;
	for (size_t i = 0; i < builder->table_size; i++) {
		const struct string *string = &builder->table[i];
		size_t place = string->hash & (size - 1);

		if (string->offset == NO_STRING)
			continue;
		while (table[place].offset != NO_STRING)
			place = (place + 1) & (size - 1);
		table[place] = *string;
	}
	free(builder->table);
	builder->table = table;
	builder->table_size = size;
	return true;
}

/* Adds the text, or finds it: its place in the table, which moves with the next call. NULL
 * without memory. */
static struct string *intern(struct builder *builder, const char *text, size_t length)
{
	struct cprof_names *names = &builder->names;
	uint32_t hash = (uint32_t)cprof_hash_bytes(text, length);
	size_t end = names->strings_length + length + 1;
	struct string *string;
	size_t place;

	if (2 * builder->table_used >= builder->table_size && !grow_table(builder))
		return NULL;
	for (place = hash & (builder->table_size - 1);;
	     place = (place + 1) & (builder->table_size - 1)) {
		string = &builder->table[place];
		if (string->offset == NO_STRING)
			break;
		if (string->hash == hash && string->length == length &&
		    memcmp(names->strings + string->offset, text, length) == 0)
			return string;
	}
	if (end >= NO_STRING || !cprof_grow(&names->strings, &builder->string_capacity, end, 1))
		return NULL;
	memcpy(names->strings + names->strings_length, text, length);
	names->strings[end - 1] = '\0';
	*string =
		(struct string){(uint32_t)names->strings_length, (uint32_t)length, NO_STRING, hash};
	names->strings_length = end;
	builder->table_used++;
	return string;
}

static uint32_t add_text(struct builder *builder, const char *text, size_t length)
{
	const struct string *string = intern(builder, text, length);

	builder->failed |= !string;
	return string ? string->offset : 0;
}

static uint32_t add_string(struct builder *builder, const char *text)
{
	return text ? add_text(builder, text, strlen(text)) : 0;
}

/* The demangled form of a string that was added; itself if it is not mangled. */
static uint32_t add_demangled(struct builder *builder, uint32_t offset)
{
	const char *text = builder->names.strings + offset;
	struct string *string = intern(builder, text, strlen(text));
	char *demangled;
	uint32_t result;

	if (!string) {
		builder->failed = true;
		return offset;
	}
	if (string->demangled != NO_STRING)
		return string->demangled;
	demangled = cprof_demangle(text);
	result = demangled ? add_string(builder, demangled) : offset;
	free(demangled);
	/* Adding may have moved both. */
	text = builder->names.strings + offset;
	string = intern(builder, text, strlen(text));
	if (string)
		string->demangled = result;
	return result;
}

static struct cprof_name *add_name(struct builder *builder)
{
	struct cprof_names *names = &builder->names;

	if (names->count >= UINT32_MAX || !cprof_grow(&names->names, &builder->name_capacity,
						      names->count + 1, sizeof(*names->names))) {
		builder->failed = true;
		return NULL;
	}
	names->names[names->count] = (struct cprof_name){0};
	return &names->names[names->count++];
}

static size_t underscores(const char *name)
{
	return strspn(name, "_");
}

/* Fills in the names of a DWARF function; `symbol` is the outermost one's, else NULL. */
static void fill_names(struct builder *builder, const struct cprof_dwarf_function *function,
		       const struct cprof_symbol *symbol, struct cprof_name *name)
{
	uint32_t own = add_string(builder, function->name);
	uint32_t other = symbol ? add_text(builder, symbol->name, symbol->length) : own;

	name->system_name =
		function->linkage_name ? add_string(builder, function->linkage_name) : other;
	name->name = add_demangled(builder, name->system_name);
	/* DWARF's plain name says no scope, so a mangled name tells more. Other linkage names are
	 * aliases (__GI_setegid) or clones (foo.cold) and tell less; but an alias without
	 * underscores is what callers write: malloc, not __libc_malloc. */
	if (!own || name->name != name->system_name)
		return;
	name->name = own;
	if (symbol && symbol->start == function->start &&
	    underscores(builder->names.strings + other) < underscores(function->name))
		name->name = other;
}

/* Broken debug information is done without. */
static size_t find_functions(struct cprof_image *image, uint64_t address, unsigned flags,
			     struct cprof_dwarf_function *functions)
{
	if (!image->dwarf_tried)
		cprof_error_destroy(cprof_dwarf_create(image, &image->dwarf));
	image->dwarf_tried = true;
	return image->dwarf ? cprof_dwarf_find(image->dwarf, address, flags, functions) : 0;
}

static void name_address(struct builder *builder, struct cprof_image *image, uint64_t address,
			 unsigned flags)
{
	struct cprof_dwarf_function functions[CPROF_DWARF_DEPTH];
	struct cprof_symbol symbol;
	bool has_symbol = image->symbols && cprof_symbols_find(image->symbols, address, &symbol);
	size_t count = has_symbol && flags & CPROF_NAMES_SYMBOLS
			       ? 0
			       : find_functions(image, address, flags, functions);
	size_t first = count && (flags & CPROF_NAMES_NO_INLINES) ? count - 1 : 0;

	if (!count && has_symbol) {
		functions[0] = (struct cprof_dwarf_function){0};
		count = 1;
	}
	for (size_t i = first; i < count; i++) {
		const struct cprof_dwarf_function *function = &functions[i];
		bool outermost = i + 1 == count;
		struct cprof_name *name = add_name(builder);

		if (!name)
			return;
		fill_names(builder, function, outermost && has_symbol ? &symbol : NULL, name);
		name->file = add_string(builder, function->file);
		name->line = function->line;
		name->start_line = function->start_line;
		name->inlined = !outermost;
		name->start = function->start;
		if (outermost && !name->start && has_symbol)
			name->start = symbol.start;
	}
}

/* Opens the symbol table. */
static struct cprof_error *open_names(struct cprof_image *image)
{
	if (image->names_tried)
		return NULL;
	cprof_debug_unpack_mini(image);
	CPROF_TRY(cprof_symbols_create_elf(image, &image->symbols));
	image->names_tried = true;
	return NULL;
}

struct cprof_error *cprof_image_names(struct cprof_image *image, const uint64_t *addresses,
				      size_t count, unsigned flags, struct cprof_names *names)
{
	struct builder builder = {.names.addresses = count};

	*names = (struct cprof_names){0};
	CPROF_TRY(open_names(image));
	builder.names.first = calloc(count + 1, sizeof(*builder.names.first));
	builder.failed = !builder.names.first || !intern(&builder, "", 0);
	for (size_t i = 0; i < count && !builder.failed; i++) {
		name_address(&builder, image, addresses[i], flags);
		builder.names.first[i + 1] = (uint32_t)builder.names.count;
	}
	free(builder.table);
	if (builder.failed) {
		cprof_names_deinit(&builder.names);
		return cprof_error_nomem();
	}
	*names = builder.names;
	return NULL;
}

bool cprof_image_function(struct cprof_image *image, uint64_t address, uint64_t *start,
			  uint64_t *end)
{
	struct cprof_error *error = open_names(image);
	struct cprof_symbol symbol;

	if (error || !image->symbols || !cprof_symbols_find(image->symbols, address, &symbol)) {
		cprof_error_destroy(error);
		return false;
	}
	*start = symbol.start;
	*end = symbol.end;
	return true;
}

void cprof_names_deinit(struct cprof_names *names)
{
	free(names->names);
	free(names->first);
	free(names->strings);
	*names = (struct cprof_names){0};
}

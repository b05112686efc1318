/* SPDX-License-Identifier: MIT
 *
 * Sorted symbols with their extents. Names stay where they are, in the mapped file's string
 * tables, or in a buffer of ours.
 */
#include "private.h"

#include <cprof/util.h>
#include <string.h>

#define SOURCES     4
#define OWN         0            /* the source that is our own buffer */
#define SYMBOLS_MAX (1u << 26)   /* of one image */
#define STRINGS_MAX (1ull << 28) /* of our own buffer */
#define NESTING     16           /* symbols looked at backwards for one that covers an address */

struct cprof_symbols {
	struct cprof_symbol_entry *entries;
	size_t count;
	size_t capacity;
	const char *strings[SOURCES];
	size_t sources;
	char *own;
	size_t own_length;
	size_t own_capacity;
	bool later_wins;
};

struct cprof_symbols *cprof_symbols_create_empty(void)
{
	struct cprof_symbols *symbols = calloc(1, sizeof(*symbols));

	if (symbols)
		symbols->sources = OWN + 1;
	return symbols;
}

void cprof_symbols_destroy(struct cprof_symbols *symbols)
{
	if (!symbols)
		return;
	free(symbols->entries);
	free(symbols->own);
	free(symbols);
}

bool cprof_symbols_add(struct cprof_symbols *symbols, const struct cprof_symbol_entry *entry)
{
	if (symbols->count >= SYMBOLS_MAX ||
	    !cprof_grow(&symbols->entries, &symbols->capacity, symbols->count + 1, sizeof(*entry)))
		return false;
	symbols->entries[symbols->count++] = *entry;
	return true;
}

bool cprof_symbols_add_copy(struct cprof_symbols *symbols, struct cprof_symbol_entry *entry,
			    const char *name, size_t length)
{
	size_t need = symbols->own_length + length;

	if (need > STRINGS_MAX || !cprof_grow(&symbols->own, &symbols->own_capacity, need, 1))
		return false;
	memcpy(symbols->own + symbols->own_length, name, length);
	entry->source = OWN;
	entry->name = (uint32_t)symbols->own_length;
	entry->length = (uint16_t)length;
	if (!cprof_symbols_add(symbols, entry))
		return false;
	symbols->own_length = need;
	return true;
}

/* --- order --------------------------------------------------------------------------------- */

static const char *name_of(const struct cprof_symbols *symbols,
			   const struct cprof_symbol_entry *entry)
{
	return symbols->strings[entry->source] + entry->name;
}

/* By address; then the better name first: as users write it, `malloc` before `__libc_malloc`. */
static int compare(const void *left, const void *right, void *context)
{
	const struct cprof_symbols *symbols = context;
	const struct cprof_symbol_entry *a = left;
	const struct cprof_symbol_entry *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	if (symbols->later_wins)
		return a->name > b->name ? -1 : 1;
	if ((a->rank ^ b->rank) & (CPROF_RANK_LOCAL | CPROF_RANK_UNSIZED))
		return a->rank < b->rank ? -1 : 1;
	if (a->size != b->size)
		return a->size > b->size ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	if (a->length != b->length)
		return a->length < b->length ? -1 : 1;
	return memcmp(name_of(symbols, a), name_of(symbols, b), a->length);
}

static bool is_sorted(struct cprof_symbols *symbols)
{
	for (size_t i = 1; i < symbols->count; i++)
		if (compare(&symbols->entries[i - 1], &symbols->entries[i], symbols) > 0)
			return false;
	return true;
}

void cprof_symbols_finish(struct cprof_symbols *symbols, bool later_wins)
{
	struct cprof_symbol_entry *entries = symbols->entries;
	size_t kept = 0;

	symbols->later_wins = later_wins;
	symbols->strings[OWN] = symbols->own ? symbols->own : "";
	if (!symbols->count)
		return;
	if (!is_sorted(symbols))
		qsort_r(entries, symbols->count, sizeof(*entries), compare, symbols);
	for (size_t i = 1; i < symbols->count; i++)
		if (entries[i].start != entries[kept].start)
			entries[++kept] = entries[i];
	symbols->count = kept + 1;
	for (size_t i = 0; i < symbols->count; i++) {
		uint64_t gap = i + 1 < symbols->count ? entries[i + 1].start - entries[i].start
						      : UINT64_MAX;

		if (!entries[i].size)
			entries[i].size = (uint32_t)CPROF_MIN(gap, entries[i].limit);
	}
	entries = realloc(symbols->entries, symbols->count * sizeof(*entries));
	if (entries) {
		symbols->entries = entries;
		symbols->capacity = symbols->count;
	}
}

bool cprof_symbols_find(const struct cprof_symbols *symbols, uint64_t address,
			struct cprof_symbol *symbol)
{
	size_t low = 0;
	size_t high = symbols->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (symbols->entries[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	/* A symbol may lie inside a longer one that starts before it. */
	for (size_t i = low; i > 0 && low - i < NESTING; i--) {
		const struct cprof_symbol_entry *entry = &symbols->entries[i - 1];

		if (address - entry->start >= entry->size)
			continue;
		if (!entry->length)
			return false; /* only marks an end */
		*symbol = (struct cprof_symbol){
			.start = entry->start,
			.end = entry->start + entry->size,
			.name = name_of(symbols, entry),
			.length = entry->length,
		};
		return true;
	}
	return false;
}

/* --- ELF ----------------------------------------------------------------------------------- */

/* End of the executable section a symbol is defined in; 0 if it is in none. */
static uint64_t code_end(Elf *elf, const GElf_Sym *symbol)
{
	GElf_Shdr header;
	Elf_Scn *section;

	if (symbol->st_shndx == SHN_UNDEF || symbol->st_shndx >= SHN_LORESERVE)
		return 0;
	section = elf_getscn(elf, symbol->st_shndx);
	if (!section || !gelf_getshdr(section, &header) || !(header.sh_flags & SHF_EXECINSTR) ||
	    symbol->st_value < header.sh_addr ||
	    symbol->st_value - header.sh_addr >= header.sh_size)
		return 0;
	return header.sh_addr + header.sh_size;
}

/* Fills in the name and its rank; false if the symbol has no name worth showing. */
static bool describe(struct cprof_symbol_entry *entry, const char *name, size_t room, bool untyped)
{
	size_t length = strnlen(name, CPROF_MIN(room, UINT16_MAX));
	const char *version;
	size_t underscores = 0;

	if (length == room || !length || name[0] == '$' || (untyped && name[0] == '.'))
		return false;
	version = memchr(name + 1, '@', length - 1);
	if (version) {
		/* name@OLD is kept for old programs; name@@DEFAULT is what everyone calls. */
		if (version[1] != '@')
			entry->rank |= CPROF_RANK_VERSIONED;
		length = (size_t)(version - name);
	}
	while (underscores < CPROF_MIN(length, CPROF_RANK_UNDERSCORES) && name[underscores] == '_')
		underscores++;
	if (length > 2 && name[0] == '_' && (name[1] == 'Z' || name[1] == 'R'))
		underscores = 0; /* mangled */
	entry->rank |= underscores;
	entry->length = (uint16_t)length;
	return true;
}

static bool add_symbol(struct cprof_symbols *symbols, Elf *elf, const GElf_Sym *symbol,
		       const Elf_Data *strings)
{
	int type = GELF_ST_TYPE(symbol->st_info);
	struct cprof_symbol_entry entry = {
		.start = symbol->st_value,
		.size = (uint32_t)CPROF_MIN(symbol->st_size, UINT32_MAX),
		.name = symbol->st_name,
		.source = (uint8_t)(symbols->sources - 1),
	};
	uint64_t end;

	if ((type != STT_FUNC && type != STT_GNU_IFUNC && type != STT_NOTYPE) ||
	    symbol->st_shndx == SHN_UNDEF || symbol->st_name >= strings->d_size)
		return true;
	end = code_end(elf, symbol);
	if (!end && (type == STT_NOTYPE || !entry.size))
		return true;
	if (GELF_ST_BIND(symbol->st_info) == STB_LOCAL)
		entry.rank |= CPROF_RANK_LOCAL;
	if (!entry.size)
		entry.rank |= CPROF_RANK_UNSIZED;
	entry.limit = (uint32_t)CPROF_MIN(end - symbol->st_value, UINT32_MAX);
	if (!describe(&entry, (const char *)strings->d_buf + symbol->st_name,
		      strings->d_size - symbol->st_name, type == STT_NOTYPE))
		return true;
	return cprof_symbols_add(symbols, &entry);
}

/* Adds one symbol table; false without memory. `*found` is set if there is one with functions. */
static bool add_table(struct cprof_symbols *symbols, Elf *elf, const char *name, bool *found)
{
	GElf_Shdr header;
	Elf_Scn *section = cprof_elf_section(elf, name, &header);
	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;
	Elf_Scn *string_section = data ? elf_getscn(elf, header.sh_link) : NULL;
	Elf_Data *strings = string_section ? elf_getdata(string_section, NULL) : NULL;
	size_t before = symbols->count;
	GElf_Sym symbol;

	if (!strings || !strings->d_buf || !data->d_buf || data->d_type != ELF_T_SYM)
		return true;
	symbols->strings[symbols->sources++] = strings->d_buf;
	for (size_t i = 0; i < data->d_size / sizeof(Elf64_Sym) && i < INT32_MAX; i++)
		if (gelf_getsym(data, (int)i, &symbol) &&
		    !add_symbol(symbols, elf, &symbol, strings))
			return false;
	*found |= symbols->count > before;
	return true;
}

struct cprof_error *cprof_symbols_create_elf(const struct cprof_image *image,
					     struct cprof_symbols **result)
{
	struct cprof_symbols *symbols = cprof_symbols_create_empty();
	bool found = false;
	bool ok = symbols;

	/* .symtab holds what .dynsym does; a minidebuginfo holds what .dynsym does not. */
	ok = ok && add_table(symbols, image->file.elf, ".symtab", &found);
	if (!found)
		ok = ok && add_table(symbols, image->debug.elf, ".symtab", &found);
	if (!found)
		ok = ok && add_table(symbols, image->mini.elf, ".symtab", &found) &&
		     add_table(symbols, image->file.elf, ".dynsym", &found);
	if (!ok) {
		cprof_symbols_destroy(symbols);
		return cprof_error_nomem();
	}
	cprof_symbols_finish(symbols, false);
	*result = symbols;
	return NULL;
}

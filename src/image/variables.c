/* SPDX-License-Identifier: MIT
 *
 * Names of data: asked for so rarely (what a lock is called) that symbol tables are just read.
 */
#include "private.h"

#include <cprof/util.h>
#include <stdio.h>
#include <string.h>

/* Whether a symbol is data that covers the address. */
static bool covers(const GElf_Sym *symbol, uint64_t address)
{
	return GELF_ST_TYPE(symbol->st_info) == STT_OBJECT && symbol->st_shndx != SHN_UNDEF &&
	       address >= symbol->st_value && address - symbol->st_value < symbol->st_size;
}

static void copy_name(const char *text, char *name, size_t size)
{
	CPROF_AUTO_FREE char *symbol = strndup(text, strcspn(text, "@"));
	CPROF_AUTO_FREE char *demangled = symbol ? cprof_demangle(symbol) : NULL;

	snprintf(name, size, "%s", demangled ? demangled : symbol ? symbol : "");
}

static bool find_in(Elf *elf, const char *table, uint64_t address, char *name, size_t size,
		    uint64_t *start)
{
	GElf_Shdr header;
	Elf_Scn *section = elf ? cprof_elf_section(elf, table, &header) : NULL;
	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;
	Elf_Scn *string_section = data ? elf_getscn(elf, header.sh_link) : NULL;
	Elf_Data *strings = string_section ? elf_getdata(string_section, NULL) : NULL;
	GElf_Sym symbol;

	if (!strings || !strings->d_buf || !data->d_buf || data->d_type != ELF_T_SYM)
		return false;
	for (size_t i = 0; i < data->d_size / sizeof(Elf64_Sym) && i < INT32_MAX; i++) {
		const char *text;

		if (!gelf_getsym(data, (int)i, &symbol) || !covers(&symbol, address) ||
		    symbol.st_name >= strings->d_size)
			continue;
		text = (const char *)strings->d_buf + symbol.st_name;
		if (!text[0] || !memchr(text, '\0', strings->d_size - symbol.st_name))
			continue;
		copy_name(text, name, size);
		*start = symbol.st_value;
		return name[0];
	}
	return false;
}

bool cprof_image_variable(const struct cprof_image *image, uint64_t address, char *name,
			  size_t size, uint64_t *start)
{
	return find_in(image->file.elf, ".symtab", address, name, size, start) ||
	       find_in(image->debug.elf, ".symtab", address, name, size, start) ||
	       find_in(image->file.elf, ".dynsym", address, name, size, start);
}

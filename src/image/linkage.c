/* SPDX-License-Identifier: MIT
 *
 * What ties an image to others: the slots the dynamic linker fills with addresses of functions, and
 * where the image defines them itself. By PT_DYNAMIC (gABI, chapter 5; the GNU hash table as glibc
 * and musl read it).
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <string.h>

#define NONE        255   /* no name */
#define IMPORTS_MAX 65536 /* of one image: no honest one has as many of a few names */
#define KEYS        4096  /* of a filter */
#define CHAIN_MAX   4096  /* symbols looked at in one hash chain, versions in one list */
#define HIDDEN      0x8000u

/* What relocations of an ISA fill a slot with a symbol's address. */
static const struct {
	uint32_t type;
	uint8_t kind;
} slot_types[] = {
	{R_X86_64_JUMP_SLOT, CPROF_IMPORT_CALL},
	{R_X86_64_GLOB_DAT, CPROF_IMPORT_GOT},
	{R_X86_64_64, CPROF_IMPORT_DATA},
};

struct table { /* an array in the file; entries may be misaligned */
	const uint8_t *bytes;
	size_t count;
};

struct linker {
	const struct cprof_image *image;
	const char *const *names;
	size_t name_count;
	/* Most symbols are told apart by how they begin, or by the hash that the file has of those
	 * it exports: names lie all over a big file. */
	bool beginnings[KEYS];
	bool hashes[KEYS];
	uint64_t tags[DT_NUM]; /* values of PT_DYNAMIC */
	uint64_t gnu_hash;     /* DT_GNU_HASH */
	struct table versions; /* DT_VERSYM: a number each symbol … */
	struct table defined;  /* … of those in DT_VERDEF, bytes … */
	struct table needed;   /* … or in DT_VERNEED, bytes */
	struct table dynamic;
	struct table symbols;
	struct table chains;   /* the hash table's part with a hash for every symbol … */
	uint32_t first_hashed; /* … from this index on */
	const char *strings;
	size_t strings_room;
	struct table relocations[2]; /* DT_RELA, DT_JMPREL */
};

/* --- tables -------------------------------------------------------------------------------- */

/* At most as many entries as are in the file. */
static struct table table_at(const struct cprof_image *image, uint64_t address, uint64_t count,
			     size_t entry)
{
	struct table table = {0};
	size_t room = 0;

	table.bytes = address ? cprof_image_bytes(image, address, &room) : NULL;
	table.count = table.bytes ? CPROF_MIN(count, room / entry) : 0;
	return table;
}

static Elf64_Sym symbol_at(const struct linker *linker, size_t index)
{
	Elf64_Sym symbol;

	memcpy(&symbol, linker->symbols.bytes + index * sizeof(symbol), sizeof(symbol));
	return symbol;
}

static Elf64_Rela relocation_at(const struct table *table, size_t index)
{
	Elf64_Rela relocation;

	memcpy(&relocation, table->bytes + index * sizeof(relocation), sizeof(relocation));
	return relocation;
}

static uint32_t word_at(const struct table *words, size_t index)
{
	uint32_t word = 0;

	if (index < words->count)
		memcpy(&word, words->bytes + index * sizeof(word), sizeof(word));
	return word;
}

static bool is_name(const char *strings, size_t room, uint64_t offset, const char *name)
{
	size_t length = strlen(name) + 1;

	return offset < room && length <= room - offset &&
	       memcmp(strings + offset, name, length) == 0;
}

static unsigned beginning(const char *text, size_t room)
{
	unsigned key = 0;

	for (size_t i = 0; i < 4 && i < room && text[i]; i++)
		key = key * 31 + (uint8_t)text[i];
	return key % KEYS;
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t hash = 5381;

	for (; *name; name++)
		hash = hash * 33 + (uint8_t)*name;
	return hash;
}

static unsigned hash_key(uint32_t hash)
{
	return (hash >> 1) % KEYS; /* the lowest bit is not stored */
}

static void prepare_filters(struct linker *linker)
{
	for (size_t i = 0; i < linker->name_count; i++) {
		const char *name = linker->names[i];

		linker->beginnings[beginning(name, strlen(name))] = true;
		linker->hashes[hash_key(gnu_hash(name))] = true;
	}
}

/* The index of a symbol's name, NONE if it was not asked for. */
static uint8_t find_name(const struct linker *linker, const char *strings, size_t room,
			 uint64_t offset)
{
	if (offset >= room || !linker->beginnings[beginning(strings + offset, room - offset)])
		return NONE;
	for (size_t i = 0; i < linker->name_count; i++)
		if (is_name(strings, room, offset, linker->names[i]))
			return (uint8_t)i;
	return NONE;
}

/* An entry of PT_DYNAMIC; false at its end. */
static bool dynamic_at(const struct linker *linker, size_t index, Elf64_Dyn *entry)
{
	if (index >= linker->dynamic.count)
		return false;
	memcpy(entry, linker->dynamic.bytes + index * sizeof(*entry), sizeof(*entry));
	return entry->d_tag != DT_NULL;
}

static void take_versions(struct linker *linker, const Elf64_Dyn *entry)
{
	const uint64_t address = entry->d_un.d_val;

	if (entry->d_tag == DT_VERSYM)
		linker->versions =
			table_at(linker->image, address, UINT32_MAX, sizeof(Elf64_Versym));
	else if (entry->d_tag == DT_VERDEF)
		linker->defined = table_at(linker->image, address, UINT32_MAX, 1);
	else if (entry->d_tag == DT_VERNEED)
		linker->needed = table_at(linker->image, address, UINT32_MAX, 1);
}

static void read_dynamic(struct linker *linker)
{
	uint64_t *tags = linker->tags;
	Elf64_Dyn entry;

	for (size_t i = 0; dynamic_at(linker, i, &entry); i++) {
		if (entry.d_tag == DT_GNU_HASH)
			linker->gnu_hash = entry.d_un.d_val;
		else if (entry.d_tag > 0 && entry.d_tag < DT_NUM)
			tags[entry.d_tag] = entry.d_un.d_val;
		if (entry.d_tag == DT_SYMBOLIC)
			tags[DT_SYMBOLIC] = 1;
		take_versions(linker, &entry);
	}
	/* DT_SYMENT and DT_RELAENT are sizes of one entry; the ABI knows one value each. */
	if (tags[DT_SYMENT] == sizeof(Elf64_Sym))
		linker->symbols =
			table_at(linker->image, tags[DT_SYMTAB], UINT32_MAX, sizeof(Elf64_Sym));
	if (tags[DT_STRTAB])
		linker->strings = (const char *)cprof_image_bytes(linker->image, tags[DT_STRTAB],
								  &linker->strings_room);
	linker->strings_room =
		linker->strings ? CPROF_MIN(linker->strings_room, tags[DT_STRSZ]) : 0;
	if (tags[DT_RELAENT] == sizeof(Elf64_Rela))
		linker->relocations[0] =
			table_at(linker->image, tags[DT_RELA], tags[DT_RELASZ] / sizeof(Elf64_Rela),
				 sizeof(Elf64_Rela));
	if (tags[DT_PLTREL] == DT_RELA)
		linker->relocations[1] =
			table_at(linker->image, tags[DT_JMPREL],
				 tags[DT_PLTRELSZ] / sizeof(Elf64_Rela), sizeof(Elf64_Rela));
}

static uint64_t hash_string(const struct linker *linker, uint64_t offset)
{
	size_t room = offset < linker->strings_room ? linker->strings_room - offset : 0;

	return room ? cprof_hash_bytes(linker->strings + offset,
				       strnlen(linker->strings + offset, room))
		    : 0;
}

static struct cprof_error *find_libraries(const struct linker *linker,
					  struct cprof_linkage *linkage)
{
	size_t capacity = 0;
	Elf64_Dyn entry;

	if (linker->tags[DT_SONAME])
		linkage->soname = hash_string(linker, linker->tags[DT_SONAME]);
	for (size_t i = 0; dynamic_at(linker, i, &entry); i++) {
		if (entry.d_tag != DT_NEEDED)
			continue;
		if (!cprof_grow(&linkage->needed, &capacity, linkage->needed_count + 1,
				sizeof(*linkage->needed)))
			return cprof_error_nomem();
		linkage->needed[linkage->needed_count++] = hash_string(linker, entry.d_un.d_val);
	}
	return NULL;
}

/* --- imports ------------------------------------------------------------------------------- */

/* The kind of slot a relocation fills with exactly a symbol's address; false if none. */
static bool slot_kind(const Elf64_Rela *relocation, uint8_t *kind)
{
	uint32_t type = ELF64_R_TYPE(relocation->r_info);

	for (size_t i = 0; i < CPROF_COUNT(slot_types); i++)
		if (slot_types[i].type == type) {
			*kind = slot_types[i].kind;
			return *kind != CPROF_IMPORT_DATA || !relocation->r_addend;
		}
	return false;
}

static uint8_t name_of_symbol(const struct linker *linker, size_t index)
{
	Elf64_Sym symbol;
	int type;

	if (index >= linker->first_hashed && index - linker->first_hashed < linker->chains.count &&
	    !linker->hashes[hash_key(word_at(&linker->chains, index - linker->first_hashed))])
		return NONE;
	symbol = symbol_at(linker, index);
	type = ELF64_ST_TYPE(symbol.st_info);
	if (type != STT_FUNC && type != STT_NOTYPE && type != STT_GNU_IFUNC)
		return NONE;
	return find_name(linker, linker->strings, linker->strings_room, symbol.st_name);
}

/* Names by symbol index, as far as relocations use symbols: read once, in order, since a big
 * library has many more relocations than symbols. NULL with *count 0 if there are none. */
static struct cprof_error *name_symbols(const struct linker *linker, uint8_t **names, size_t *count)
{
	uint64_t end = 0;
	uint8_t kind;

	for (size_t t = 0; t < CPROF_COUNT(linker->relocations); t++)
		for (size_t i = 0; i < linker->relocations[t].count; i++) {
			Elf64_Rela relocation = relocation_at(&linker->relocations[t], i);
			uint64_t index = ELF64_R_SYM(relocation.r_info);

			if (index >= end && index < linker->symbols.count &&
			    slot_kind(&relocation, &kind))
				end = index + 1;
		}
	*count = end;
	*names = end ? malloc(end) : NULL;
	if (end && !*names)
		return cprof_error_nomem();
	for (size_t i = 0; i < end; i++)
		(*names)[i] = name_of_symbol(linker, i);
	return NULL;
}

static Elf64_Versym version_at(const struct linker *linker, size_t index)
{
	Elf64_Versym version = 0;

	if (index < linker->versions.count)
		memcpy(&version, linker->versions.bytes + index * sizeof(version), sizeof(version));
	return version;
}

static bool copy_at(const struct table *bytes, uint64_t offset, void *to, size_t size)
{
	if (offset > bytes->count || size > bytes->count - offset)
		return false;
	memcpy(to, bytes->bytes + offset, size);
	return true;
}

/* The hash of the version's name that a symbol is defined with, 0: none. */
static uint32_t defined_version(const struct linker *linker, size_t index)
{
	unsigned number = version_at(linker, index) & ~HIDDEN;
	Elf64_Verdef definition;
	uint64_t at = 0;

	for (size_t i = 0; number > VER_NDX_GLOBAL && i < CHAIN_MAX &&
			   copy_at(&linker->defined, at, &definition, sizeof(definition));
	     i++, at += definition.vd_next) {
		if (definition.vd_ndx == number)
			return definition.vd_hash;
		if (!definition.vd_next)
			break;
	}
	return 0;
}

/* The same of a symbol that another image is to define. */
static uint32_t needed_version(const struct linker *linker, size_t index)
{
	unsigned number = version_at(linker, index) & ~HIDDEN;
	Elf64_Verneed need;
	Elf64_Vernaux version;
	uint64_t at = 0;
	size_t looked = 0;

	while (number > VER_NDX_GLOBAL && looked < CHAIN_MAX &&
	       copy_at(&linker->needed, at, &need, sizeof(need))) {
		uint64_t next = at + need.vn_aux;

		for (; looked < CHAIN_MAX &&
		       copy_at(&linker->needed, next, &version, sizeof(version));
		     looked++, next += version.vna_next) {
			if (version.vna_other == number)
				return version.vna_hash;
			if (!version.vna_next)
				break;
		}
		if (!need.vn_next)
			break;
		at += need.vn_next;
		looked++;
	}
	return 0;
}

static int compare_imports(const void *a, const void *b)
{
	const struct cprof_import *x = a;
	const struct cprof_import *y = b;

	return (x->slot > y->slot) - (x->slot < y->slot);
}

/* In order, each once: DT_RELA may count what DT_JMPREL holds as well. */
static void sort_imports(struct cprof_linkage *linkage)
{
	size_t kept = 0;

	if (!linkage->import_count)
		return;
	qsort(linkage->imports, linkage->import_count, sizeof(*linkage->imports), compare_imports);
	for (size_t i = 1; i < linkage->import_count; i++)
		if (linkage->imports[i].slot != linkage->imports[kept].slot)
			linkage->imports[++kept] = linkage->imports[i];
	linkage->import_count = kept + 1;
}

static struct cprof_error *find_imports(const struct linker *linker, struct cprof_linkage *linkage)
{
	CPROF_AUTO_FREE uint8_t *names = NULL;
	size_t capacity = 0;
	size_t count;

	CPROF_TRY(name_symbols(linker, &names, &count));
	for (size_t t = 0; t < CPROF_COUNT(linker->relocations); t++)
		for (size_t i = 0; i < linker->relocations[t].count; i++) {
			Elf64_Rela relocation = relocation_at(&linker->relocations[t], i);
			uint64_t index = ELF64_R_SYM(relocation.r_info);
			struct cprof_import import = {.slot = relocation.r_offset};
			Elf64_Sym symbol;

			if (!index || index >= count || names[index] == NONE ||
			    !slot_kind(&relocation, &import.kind))
				continue;
			symbol = symbol_at(linker, index);
			import.name = names[index];
			import.version = needed_version(linker, index);
			import.weak = symbol.st_shndx == SHN_UNDEF &&
				      ELF64_ST_BIND(symbol.st_info) == STB_WEAK;
			cprof_image_read(linker->image, import.slot, &import.initial,
					 sizeof(import.initial));
			if (linkage->import_count == IMPORTS_MAX)
				break;
			if (!cprof_grow(&linkage->imports, &capacity, linkage->import_count + 1,
					sizeof(import)))
				return cprof_error_nomem();
			linkage->imports[linkage->import_count++] = import;
		}
	sort_imports(linkage);
	return NULL;
}

/* --- exports ------------------------------------------------------------------------------- */

/* Takes a symbol as the definition of names[name] if it is that. Of several versions the one for
 * who is linked today counts: the others are hidden. */
static void take_export(const struct linker *linker, size_t index, size_t name,
			struct cprof_export *export)
{
	bool hidden = version_at(linker, index) & HIDDEN;
	Elf64_Sym symbol;
	int type;

	if (!index || index >= linker->symbols.count)
		return;
	symbol = symbol_at(linker, index);
	type = ELF64_ST_TYPE(symbol.st_info);
	if (symbol.st_shndx == SHN_UNDEF || !symbol.st_value ||
	    ELF64_ST_BIND(symbol.st_info) == STB_LOCAL || type == STT_TLS ||
	    !is_name(linker->strings, linker->strings_room, symbol.st_name, linker->names[name]))
		return;
	export->several |= export->address && export->address != symbol.st_value;
	if (export->address && (hidden || !export->hidden))
		return;
	export->address = symbol.st_value;
	export->size = symbol.st_size;
	export->indirect = type == STT_GNU_IFUNC;
	export->hidden = hidden;
	export->version = defined_version(linker, index);
}

/* The table: buckets, first symbol, Bloom words, shift; the Bloom filter (skipped: it only saves
 * time); the buckets, each the first symbol of its chain; one hash a symbol, its lowest bit ends
 * the chain. */
static void find_by_gnu_hash(struct linker *linker, struct cprof_export *exports)
{
	struct table words =
		table_at(linker->image, linker->gnu_hash, UINT32_MAX, sizeof(uint32_t));
	uint32_t buckets = word_at(&words, 0);
	uint64_t bucket_at = 4 + 2 * (uint64_t)word_at(&words, 2);
	uint64_t skip = CPROF_MIN(bucket_at + buckets, words.count);

	if (!buckets)
		return;
	linker->first_hashed = word_at(&words, 1);
	linker->chains = (struct table){words.bytes + skip * sizeof(uint32_t), words.count - skip};
	for (size_t name = 0; name < linker->name_count; name++) {
		uint32_t hash = gnu_hash(linker->names[name]);
		uint32_t index = word_at(&words, bucket_at + hash % buckets);

		for (size_t i = 0; index >= linker->first_hashed && i < CHAIN_MAX; i++, index++) {
			size_t place = index - linker->first_hashed;
			uint32_t entry = word_at(&linker->chains, place);

			if (place >= linker->chains.count)
				break;
			if ((entry | 1) == (hash | 1))
				take_export(linker, index, name, &exports[name]);
			if (entry & 1)
				break;
		}
	}
}

static uint32_t sysv_hash(const char *name)
{
	uint32_t hash = 0;

	for (; *name; name++) {
		hash = (hash << 4) + (uint8_t)*name;
		hash ^= (hash >> 24) & 0xf0;
	}
	return hash & 0x0fffffff;
}

/* The table: buckets, symbols; the buckets; the next symbol of each in its chain. */
static void find_by_sysv_hash(const struct linker *linker, struct cprof_export *exports)
{
	struct table words =
		table_at(linker->image, linker->tags[DT_HASH], UINT32_MAX, sizeof(uint32_t));
	uint64_t buckets = word_at(&words, 0);

	for (size_t name = 0; buckets && name < linker->name_count; name++) {
		uint32_t index = word_at(&words, 2 + sysv_hash(linker->names[name]) % buckets);

		for (size_t i = 0; index && i < CHAIN_MAX; i++) {
			take_export(linker, index, name, &exports[name]);
			index = word_at(&words, 2 + buckets + index);
		}
	}
}

/* What the full symbol table defines, local or hidden as it may be. */
static void find_own(const struct linker *linker, struct cprof_linkage *linkage)
{
	GElf_Shdr header;
	Elf_Scn *section = cprof_elf_section(linker->image->file.elf, ".symtab", &header);
	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;
	Elf_Scn *string_section = data ? elf_getscn(linker->image->file.elf, header.sh_link) : NULL;
	Elf_Data *strings = string_section ? elf_getdata(string_section, NULL) : NULL;
	GElf_Sym symbol;

	if (!strings || !strings->d_buf || !data->d_buf || data->d_type != ELF_T_SYM)
		return;
	for (size_t i = 0; i < data->d_size / sizeof(Elf64_Sym) && i < INT32_MAX; i++) {
		uint8_t name;

		if (!gelf_getsym(data, (int)i, &symbol) || symbol.st_shndx == SHN_UNDEF ||
		    (GELF_ST_TYPE(symbol.st_info) != STT_FUNC &&
		     GELF_ST_TYPE(symbol.st_info) != STT_GNU_IFUNC))
			continue;
		name = find_name(linker, strings->d_buf, strings->d_size, symbol.st_name);
		if (name != NONE)
			linkage->exports[name].own = symbol.st_value;
	}
}

/* --- all of it ----------------------------------------------------------------------------- */

static void read_programs(struct linker *linker, struct cprof_linkage *linkage)
{
	const struct cprof_elf_file *file = &linker->image->file;
	struct cprof_reader reader = cprof_reader_of(file->bytes, file->length);
	Elf64_Ehdr header;

	memcpy(&header, file->bytes, sizeof(header)); /* checked by cprof_elf_file_open */
	cprof_reader_bytes(&reader, header.e_phoff);
	if (header.e_phentsize != sizeof(Elf64_Phdr))
		return;
	for (unsigned i = 0; i < header.e_phnum; i++) {
		const void *place = cprof_reader_bytes(&reader, sizeof(Elf64_Phdr));
		Elf64_Phdr program;

		if (!place)
			return;
		memcpy(&program, place, sizeof(program));
		if (program.p_type == PT_INTERP)
			linkage->interpreter = true;
		if (program.p_type == PT_GNU_RELRO &&
		    program.p_memsz <= UINT64_MAX - program.p_vaddr) {
			linkage->relro_start = program.p_vaddr;
			linkage->relro_end = program.p_vaddr + program.p_memsz;
		}
		if (program.p_type == PT_DYNAMIC && !linkage->dynamic) {
			linkage->dynamic = program.p_vaddr;
			linker->dynamic =
				table_at(linker->image, program.p_vaddr,
					 program.p_filesz / sizeof(Elf64_Dyn), sizeof(Elf64_Dyn));
			read_dynamic(linker);
		}
	}
}

struct cprof_error *cprof_image_linkage(const struct cprof_image *image, const char *const *names,
					size_t count, struct cprof_linkage *linkage)
{
	struct linker linker = {
		.image = image,
		.names = names,
		.name_count = CPROF_MIN(count, (size_t)CPROF_LINKAGE_NAMES),
	};
	struct cprof_error *error;
	GElf_Shdr header;

	*linkage = (struct cprof_linkage){.exports = calloc(count + 1, sizeof(*linkage->exports))};
	if (!linkage->exports)
		return cprof_error_nomem();
	if (image->kind != CPROF_IMAGE_ELF)
		return NULL;
	prepare_filters(&linker);
	read_programs(&linker, linkage);
	linkage->symbolic = linker.tags[DT_SYMBOLIC] || (linker.tags[DT_FLAGS] & DF_SYMBOLIC);
	linkage->go = cprof_elf_section(image->file.elf, ".go.buildinfo", &header) ||
		      cprof_elf_section(image->file.elf, ".gopclntab", &header);
	if (linker.gnu_hash)
		find_by_gnu_hash(&linker, linkage->exports);
	else
		find_by_sysv_hash(&linker, linkage->exports);
	find_own(&linker, linkage);
	error = find_libraries(&linker, linkage);
	if (!error)
		error = find_imports(&linker, linkage);
	if (error)
		cprof_linkage_deinit(linkage);
	return error;
}

void cprof_linkage_deinit(struct cprof_linkage *linkage)
{
	free(linkage->imports);
	free(linkage->exports);
	free(linkage->needed);
	*linkage = (struct cprof_linkage){0};
}

/* SPDX-License-Identifier: MIT
 *
 * What a unit's line table would cost. libdw reads it whole, and joins the name of every file with
 * that of its directory: a few kilobytes can claim terabytes.
 */
#include "dwarf.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <dwarf.h>

#define ROW_COST    80 /* bytes that libdw keeps for a row, which takes one in the file or more */
#define FORMATS_MAX 16

struct table {
	const struct cprof_line_sections *sections;
	struct cprof_reader reader;
	bool wide;    /* 64-bit DWARF */
	uint64_t dir; /* length of the longest directory */
	uint64_t cost;
};

static uint64_t read_uleb(struct cprof_reader *reader)
{
	uint64_t value = 0;

	for (unsigned shift = 0; !reader->bad; shift += 7) {
		uint8_t byte = cprof_reader_u8(reader);

		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			break;
	}
	return value;
}

/* The length of the string at the reader, which is passed. */
static uint64_t pass_string(struct cprof_reader *reader)
{
	size_t left = cprof_reader_left(reader);
	size_t length = left ? strnlen((const char *)reader->next, left) : 0;

	cprof_reader_bytes(reader, length + 1);
	return length;
}

static uint64_t length_at(const struct cprof_section *section, uint64_t offset)
{
	size_t size = (size_t)(section->end - section->start);

	return offset < size ? strnlen(section->start + offset, size - offset) : 0;
}

/* Passes a value; returns its length if it is a string. */
static uint64_t pass_form(struct table *table, uint64_t form)
{
	struct cprof_reader *reader = &table->reader;
	uint64_t offset;

	switch (form) {
	case DW_FORM_string:
		return pass_string(reader);
	case DW_FORM_strp:
	case DW_FORM_line_strp:
		offset = table->wide ? cprof_reader_u64(reader) : cprof_reader_u32(reader);
		return length_at(form == DW_FORM_strp ? &table->sections->str
						      : &table->sections->line_str,
				 offset);
	case DW_FORM_udata:
		read_uleb(reader);
		return 0;
	case DW_FORM_data1:
		cprof_reader_bytes(reader, 1);
		return 0;
	case DW_FORM_data2:
		cprof_reader_bytes(reader, 2);
		return 0;
	case DW_FORM_data4:
		cprof_reader_bytes(reader, 4);
		return 0;
	case DW_FORM_data8:
		cprof_reader_bytes(reader, 8);
		return 0;
	case DW_FORM_data16:
		cprof_reader_bytes(reader, 16);
		return 0;
	case DW_FORM_block:
		cprof_reader_bytes(reader, read_uleb(reader));
		return 0;
	default: /* not used by compilers here */
		reader->bad = true;
		return 0;
	}
}

/* Version 5: the entries of directories, then those of files, described by their formats. */
static void pass_entries(struct table *table, bool files)
{
	struct cprof_reader *reader = &table->reader;
	uint64_t forms[FORMATS_MAX];
	size_t count = cprof_reader_u8(reader);
	uint64_t entries;

	if (count > FORMATS_MAX)
		reader->bad = true;
	for (size_t i = 0; i < count && !reader->bad; i++) {
		read_uleb(reader); /* what it is */
		forms[i] = read_uleb(reader);
	}
	entries = read_uleb(reader);
	while (count && entries-- && !reader->bad)
		for (size_t i = 0; i < count && !reader->bad; i++) {
			uint64_t length = pass_form(table, forms[i]);

			if (files)
				table->cost += length + (i == 0 ? table->dir : 0);
			else
				table->dir = CPROF_MAX(table->dir, length);
		}
}

/* Versions 2 to 4: strings up to an empty one. */
static void pass_strings(struct table *table)
{
	struct cprof_reader *reader = &table->reader;
	uint64_t length;

	while ((length = pass_string(reader)) && !reader->bad)
		table->dir = CPROF_MAX(table->dir, length);
	while ((length = pass_string(reader)) && !reader->bad) {
		table->cost += length + table->dir;
		for (int i = 0; i < 3; i++) /* directory, time, size */
			read_uleb(reader);
	}
}

uint64_t cprof_lines_cost(const struct cprof_line_sections *sections, uint64_t offset,
			  uint64_t directory)
{
	size_t size = (size_t)(sections->line.end - sections->line.start);
	struct table table = {.sections = sections, .dir = directory};
	struct cprof_reader *reader = &table.reader;
	uint64_t length;
	uint16_t version;
	uint8_t opcodes;

	if (offset >= size)
		return UINT64_MAX;
	*reader = cprof_reader_of(sections->line.start + offset, size - offset);
	length = cprof_reader_u32(reader);
	table.wide = length == UINT32_MAX;
	if (table.wide)
		length = cprof_reader_u64(reader);
	if (length > cprof_reader_left(reader))
		return UINT64_MAX;
	reader->end = reader->next + length;
	version = cprof_reader_u16(reader);
	if (version >= 5)
		cprof_reader_bytes(reader, 2); /* sizes of addresses and segments */
	cprof_reader_bytes(reader, table.wide ? 8 : 4);
	cprof_reader_bytes(reader, version >= 4 ? 5 : 4);
	opcodes = cprof_reader_u8(reader);
	cprof_reader_bytes(reader, opcodes ? opcodes - 1 : 0); /* their lengths */
	if (version >= 5) {
		pass_entries(&table, false);
		pass_entries(&table, true);
	} else {
		pass_strings(&table);
	}
	if (reader->bad)
		return UINT64_MAX;
	/* The program can define files too, in five bytes each. */
	return table.cost + length * ROW_COST + cprof_reader_left(reader) / 5 * table.dir;
}

/* SPDX-License-Identifier: MIT
 *
 * Looks a file's CFI over once before libdw interprets it: libdw sizes tables by the register
 * numbers it meets and nests states without limit, so a hostile section could take all memory.
 * What no compiler writes makes the section unusable; ordinary mistakes are left to libdw.
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <dwarf.h>
#include <stdlib.h>

#define REGISTER_MAX 128   /* the ABI's last DWARF number is 125 (System V ABI, figure 3.36) */
#define NESTING_MAX  64    /* of remember_state */
#define PROGRAM_MAX  65536 /* bytes of instructions of one entry */

struct check {
	size_t length;
	uint8_t *starts; /* a bit for every offset at which an entry starts */
};

static uint64_t read_uleb(struct cprof_reader *reader)
{
	uint64_t value = 0;
	unsigned shift = 0;
	uint8_t byte;

	do {
		byte = cprof_reader_u8(reader);
		if (shift < 64)
			value |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while (byte & 0x80);
	return value;
}

static bool read_register(struct cprof_reader *reader)
{
	return read_uleb(reader) <= REGISTER_MAX;
}

static void skip_block(struct cprof_reader *reader)
{
	uint64_t length = read_uleb(reader);

	cprof_reader_bytes(reader, length);
}

/* One instruction with its operands; false if it is one that libdw must not see. */
static bool check_instruction(struct cprof_reader *reader, unsigned *nesting)
{
	uint8_t code = cprof_reader_u8(reader);

	switch (code < 0x40 ? code : code & 0xc0) {
	case DW_CFA_offset:
	case DW_CFA_def_cfa_offset:
	case DW_CFA_def_cfa_offset_sf:
	case DW_CFA_GNU_args_size:
		read_uleb(reader);
		return true;
	case DW_CFA_advance_loc1:
	case DW_CFA_advance_loc2:
	case DW_CFA_advance_loc4:
		cprof_reader_bytes(reader, 1u << (code - DW_CFA_advance_loc1));
		return true;
	case DW_CFA_offset_extended:
	case DW_CFA_offset_extended_sf:
	case DW_CFA_def_cfa:
	case DW_CFA_def_cfa_sf:
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
	case DW_CFA_GNU_negative_offset_extended:
		if (!read_register(reader))
			return false;
		read_uleb(reader);
		return true;
	case DW_CFA_restore_extended:
	case DW_CFA_undefined:
	case DW_CFA_same_value:
	case DW_CFA_def_cfa_register:
		return read_register(reader);
	case DW_CFA_register:
		return read_register(reader) && read_register(reader);
	case DW_CFA_expression:
	case DW_CFA_val_expression:
		if (!read_register(reader))
			return false;
		skip_block(reader);
		return true;
	case DW_CFA_def_cfa_expression:
		skip_block(reader);
		return true;
	case DW_CFA_remember_state:
		return ++*nesting <= NESTING_MAX;
	case DW_CFA_restore_state:
		*nesting -= *nesting > 0;
		return true;
	case DW_CFA_set_loc: /* its operand's size depends on the CIE; no compiler emits it */
		return false;
	default: /* no operands, or unknown: libdw stops there */
		return true;
	}
}

static bool check_program(const uint8_t *from, const uint8_t *to)
{
	struct cprof_reader reader = {.next = from, .end = to};
	unsigned nesting = 0;

	if (!from || to < from || to - from > PROGRAM_MAX)
		return false;
	while (!reader.bad && cprof_reader_left(&reader))
		if (!check_instruction(&reader, &nesting))
			return false;
	return true;
}

/* Bytes of a pointer by its DW_EH_PE encoding (LSB Core, "DWARF Extensions"); 0 if it varies. */
static unsigned pointer_size(uint8_t encoding)
{
	switch (encoding & 0x07) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
		return 8;
	case DW_EH_PE_udata4:
		return 4;
	case DW_EH_PE_udata2:
		return 2;
	default:
		return 0;
	}
}

struct cie_shape { /* what is needed to find an FDE's instructions */
	Dwarf_Off offset;
	unsigned pointer_size;
	bool sized_augmentation;
};

/* Only augmentations that are understood completely: "" and "z" with P, L, R, S, B. */
static bool read_shape(const Dwarf_CIE *cie, Dwarf_Off offset, struct cie_shape *shape)
{
	struct cprof_reader data =
		cprof_reader_of(cie->augmentation_data, cie->augmentation_data_size);
	const char *letter = cie->augmentation;

	*shape = (struct cie_shape){.offset = offset, .pointer_size = 8};
	if (!*letter)
		return true;
	if (*letter++ != 'z')
		return false;
	shape->sized_augmentation = true;
	for (; *letter; letter++) {
		if (*letter == 'R')
			shape->pointer_size = pointer_size(cprof_reader_u8(&data));
		else if (*letter == 'L')
			cprof_reader_u8(&data);
		else if (*letter == 'P')
			cprof_reader_bytes(&data, pointer_size(cprof_reader_u8(&data)));
		else if (*letter != 'S' && *letter != 'B')
			return false;
	}
	return !data.bad && shape->pointer_size;
}

static bool check_cie(const Dwarf_CIE *cie, Dwarf_Off offset, struct cie_shape *shape)
{
	return cie->return_address_register <= REGISTER_MAX && read_shape(cie, offset, shape) &&
	       check_program(cie->initial_instructions, cie->initial_instructions_end);
}

static bool check_fde(const Dwarf_FDE *fde, const struct cie_shape *shape)
{
	struct cprof_reader reader = {.next = fde->start, .end = fde->end};

	if (fde->end < fde->start)
		return false;
	cprof_reader_bytes(&reader, 2 * shape->pointer_size);
	if (shape->sized_augmentation)
		skip_block(&reader);
	return check_program(reader.next, reader.end);
}

static bool is_start(const struct check *check, uint64_t offset)
{
	return offset < check->length && (check->starts[offset / 8] & (1u << offset % 8));
}

/* Every entry, in order; each FDE's CIE must be one of them and come before it. */
static bool check_entries(struct check *check, Elf *elf, Elf_Data *data, bool eh)
{
	const unsigned char *ident = (const unsigned char *)elf_getident(elf, NULL);
	struct cie_shape shape = {.offset = UINT64_MAX};
	Dwarf_CFI_Entry entry;
	Dwarf_Off next;

	for (Dwarf_Off at = 0; dwarf_next_cfi(ident, data, eh, at, &next, &entry) == 0; at = next) {
		if (next <= at || next > check->length)
			return false;
		check->starts[at / 8] |= (uint8_t)(1u << at % 8);
		if (dwarf_cfi_cie_p(&entry)) {
			if (!check_cie(&entry.cie, at, &shape))
				return false;
			continue;
		}
		if (entry.fde.CIE_pointer != shape.offset) {
			Dwarf_CFI_Entry cie;
			Dwarf_Off pointer = entry.fde.CIE_pointer;
			Dwarf_Off after;

			if (!is_start(check, pointer) ||
			    dwarf_next_cfi(ident, data, eh, pointer, &after, &cie) != 0 ||
			    !dwarf_cfi_cie_p(&cie) || !read_shape(&cie.cie, pointer, &shape))
				return false;
		}
		if (!check_fde(&entry.fde, &shape))
			return false;
	}
	return true;
}

/* The search table leads libdw to FDEs by address: each must be an entry that was checked. Only
 * the form that linkers write is let through: rows of (sdata4, sdata4) relative to the header. */
static bool check_table(const struct check *check, const void *header, size_t length,
			uint64_t header_address, uint64_t section_address)
{
	struct cprof_reader reader = cprof_reader_of(header, length);
	uint8_t version = cprof_reader_u8(&reader);
	uint8_t pointer = cprof_reader_u8(&reader);
	uint8_t counts = cprof_reader_u8(&reader);
	uint8_t table = cprof_reader_u8(&reader);
	uint32_t count;

	if (reader.bad || version != 1 || counts == DW_EH_PE_omit || table == DW_EH_PE_omit)
		return true; /* libdw will not use it */
	if (pointer_size(pointer) != 4 || counts != DW_EH_PE_udata4 ||
	    table != (DW_EH_PE_datarel | DW_EH_PE_sdata4))
		return false;
	cprof_reader_u32(&reader);
	count = cprof_reader_u32(&reader);
	if (count > cprof_reader_left(&reader) / 8)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		cprof_reader_u32(&reader);
		if (!is_start(check, header_address - section_address +
					     (uint64_t)(int32_t)cprof_reader_u32(&reader)))
			return false;
	}
	return true;
}

struct sections { /* what libdw will read */
	Elf_Data *frame;
	Elf_Data *header;
	uint64_t frame_address;
	uint64_t header_address;
};

/* libdw takes the first .eh_frame and the last .eh_frame_hdr before it. */
static bool find_by_name(Elf *elf, const char *frame, const char *header, struct sections *found)
{
	size_t names;
	Elf_Scn *scn = NULL;

	if (elf_getshdrstrndx(elf, &names) != 0)
		return false;
	while ((scn = elf_nextscn(elf, scn))) {
		GElf_Shdr section;
		const char *name = gelf_getshdr(scn, &section)
					   ? elf_strptr(elf, names, section.sh_name)
					   : NULL;

		if (name && strcmp(name, header) == 0) {
			found->header = elf_rawdata(scn, NULL);
			found->header_address = section.sh_addr;
		} else if (name && strcmp(name, frame) == 0) {
			found->frame = elf_getdata(scn, NULL);
			found->frame_address = section.sh_addr;
			break;
		}
	}
	return found->frame && found->frame->d_buf && found->frame->d_size;
}

/* Without section headers: from PT_GNU_EH_FRAME, to the end of the segment it points into. */
static bool find_by_header(const struct cprof_image *image, struct sections *found)
{
	const struct cprof_segment *segment = image->segments;
	uint64_t address = image->info.eh_frame_hdr;
	uint64_t left;
	int32_t pointer;
	size_t names;

	if (!address || elf_getshdrnum(image->file.elf, &names) != 0 || names > 1 ||
	    cprof_image_read(image, address + 4, &pointer, sizeof(pointer)) != sizeof(pointer))
		return false;
	found->header_address = address;
	found->frame_address = address + 4 + (uint64_t)pointer;
	for (size_t i = 0; i < image->segment_count; i++, segment++) {
		uint64_t skip = found->frame_address - segment->address;

		if (skip < segment->file_size)
			found->frame = elf_getdata_rawchunk(image->file.elf,
							    (int64_t)(segment->offset + skip),
							    segment->file_size - skip, ELF_T_BYTE);
		skip = address - segment->address;
		left = skip < segment->file_size ? segment->file_size - skip : 0;
		if (left)
			found->header = elf_getdata_rawchunk(image->file.elf,
							     (int64_t)(segment->offset + skip),
							     left, ELF_T_BYTE);
	}
	return found->frame && found->header && found->frame->d_size;
}

bool cprof_cfi_check(const struct cprof_image *image, Elf *elf, bool eh)
{
	struct sections found = {.frame = NULL};
	struct check check;
	bool good;

	if (eh ? !find_by_name(elf, ".eh_frame", ".eh_frame_hdr", &found) &&
			    !find_by_header(image, &found)
	       : !find_by_name(elf, ".debug_frame", "", &found))
		return false;
	check = (struct check){.length = found.frame->d_size,
			       .starts = calloc(found.frame->d_size / 8 + 1, 1)};
	good = check.starts && check_entries(&check, elf, found.frame, eh) &&
	       (!eh || !found.header ||
		check_table(&check, found.header->d_buf, found.header->d_size, found.header_address,
			    found.frame_address));
	free(check.starts);
	return good;
}

/* SPDX-License-Identifier: MIT
 *
 * libunwind as a second, independent backend. It reads the snapshot and our validated images only:
 * it never opens a file nor looks at the process.
 */
#include "step.h"

#include <cprof/util.h>
#include <libunwind.h>
#include <stdlib.h>

struct lu_unwinder {
	struct cprof_unwinder base;
	struct cprof_space *space;
	unw_addr_space_t address_space;
	/* during a walk: */
	const struct cprof_regs *regs;
	const struct cprof_memory *memory;
	const struct cprof_region *region; /* whose unwind table is being read */
	bool off_stack;
};

/* libunwind exports the search of a binary search table, but its header does not. */
int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di,
				       unw_proc_info_t *pi, int need_unwind_info, void *arg);

static int access_mem(unw_addr_space_t as, unw_word_t address, unw_word_t *value, int write,
		      void *argument)
{
	struct lu_unwinder *unwinder = argument;
	const struct cprof_region *region = unwinder->region;
	enum cprof_step why;
	uint64_t word;

	(void)as;
	if (write)
		return -UNW_EINVAL;
	if (cprof_memory_word(unwinder->memory, address, &word, &why)) {
		*value = word;
		return 0;
	}
	if (region && region->module && cprof_module_image(region->module)) {
		word = 0;
		if (cprof_image_read(cprof_module_image(region->module), address - region->bias,
				     &word, sizeof(word)) > 0) {
			*value = word;
			return 0;
		}
	}
	unwinder->off_stack |= why == CPROF_STEP_OFF_STACK;
	return -UNW_EINVAL;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *value, int write,
		      void *argument)
{
	const struct lu_unwinder *unwinder = argument;

	(void)as;
	if (write || reg < 0 || reg >= CPROF_REGISTERS || !(unwinder->regs->known & (1u << reg)))
		return -UNW_EBADREG;
	*value = unwinder->regs->value[reg]; /* UNW_X86_64_* are the DWARF numbers */
	if (reg == CPROF_REG_PC && unwinder->regs->returned)
		(*value)--; /* libunwind takes the first pc for one that runs */
	return 0;
}

static int access_fpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *value, int write,
			void *argument)
{
	(void)as, (void)reg, (void)value, (void)write, (void)argument;
	return -UNW_EINVAL;
}

/* The header of .eh_frame_hdr that linkers write (LSB Core, "The .eh_frame_hdr section"). */
static bool search_table(const struct cprof_image *image, uint64_t header, uint64_t bias,
			 unw_dyn_info_t *info)
{
	uint8_t bytes[12];
	uint32_t count;

	if (!header || cprof_image_read(image, header, bytes, sizeof(bytes)) != sizeof(bytes))
		return false;
	memcpy(&count, bytes + 8, sizeof(count));
	/* version 1; eh_frame_ptr pcrel|sdata4; fde_count udata4; table datarel|sdata4 */
	if (bytes[0] != 1 || bytes[1] != 0x1b || bytes[2] != 0x03 || bytes[3] != 0x3b || !count ||
	    count > 1u << 28)
		return false;
	info->format = UNW_INFO_FORMAT_REMOTE_TABLE;
	info->u.rti.segbase = bias + header;
	info->u.rti.table_data = bias + header + sizeof(bytes);
	info->u.rti.table_len = count * 8ul / sizeof(unw_word_t);
	return true;
}

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *info,
			  int need_unwind_info, void *argument)
{
	struct lu_unwinder *unwinder = argument;
	const struct cprof_region *region = cprof_space_find(unwinder->space, ip);
	struct cprof_image *image =
		region && region->module ? cprof_module_image(region->module) : NULL;
	unw_dyn_info_t table;

	memset(&table, 0, sizeof(table));
	if (!image)
		return -UNW_ENOINFO;
	unwinder->region = region;
	if (!search_table(image, cprof_image_info(image)->eh_frame_hdr, region->bias, &table))
		return -UNW_ENOINFO;
	table.start_ip = region->start;
	table.end_ip = region->end;
	return _Ux86_64_dwarf_search_unwind_table(as, ip, &table, info, need_unwind_info, argument);
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *info, void *argument)
{
	(void)as, (void)info, (void)argument;
}

static int no_dyn_info(unw_addr_space_t as, unw_word_t *list, void *argument)
{
	(void)as, (void)list, (void)argument;
	return -UNW_ENOINFO;
}

static int no_resume(unw_addr_space_t as, unw_cursor_t *cursor, void *argument)
{
	(void)as, (void)cursor, (void)argument;
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t as, unw_word_t address, char *buffer, size_t length,
		   unw_word_t *offset, void *argument)
{
	(void)as, (void)address, (void)buffer, (void)length, (void)offset, (void)argument;
	return -UNW_ENOINFO;
}

static struct cprof_error *lu_create(struct cprof_space *space, struct cprof_unwinder **result)
{
	static unw_accessors_t accessors = {
		.find_proc_info = find_proc_info,
		.put_unwind_info = put_unwind_info,
		.get_dyn_info_list_addr = no_dyn_info,
		.access_mem = access_mem,
		.access_reg = access_reg,
		.access_fpreg = access_fpreg,
		.resume = no_resume,
		.get_proc_name = no_name,
	};
	struct lu_unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return cprof_error_nomem();
	unwinder->base.ops = &cprof_unwinder_libunwind;
	unwinder->space = space;
	unwinder->address_space = unw_create_addr_space(&accessors, 0);
	if (!unwinder->address_space) {
		free(unwinder);
		return cprof_error_nomem();
	}
	unw_set_caching_policy(unwinder->address_space, UNW_CACHE_GLOBAL);
	*result = &unwinder->base;
	return NULL;
}

static void lu_unwind(struct cprof_unwinder *base, const struct cprof_regs *regs,
		      const struct cprof_memory *memory, struct cprof_stack *stack)
{
	struct lu_unwinder *unwinder = (struct lu_unwinder *)base;
	unw_cursor_t cursor;
	bool exact = !regs->returned;
	int more = 1;

	unwinder->regs = regs;
	unwinder->memory = memory;
	unwinder->region = NULL;
	unwinder->off_stack = false;
	stack->count = 0;
	stack->end = CPROF_END_NO_CFI;
	stack->top = regs->value[CPROF_REG_SP];
	if (unw_init_remote(&cursor, unwinder->address_space, unwinder) != 0)
		return;
	while (stack->count < stack->capacity && more > 0) {
		struct cprof_frame *frame = &stack->frames[stack->count];
		unw_word_t pc;

		if (unw_get_reg(&cursor, UNW_REG_IP, &pc) != 0 || (pc == 0 && stack->count))
			break;
		frame->pc = pc + (stack->count == 0 && regs->returned);
		frame->exact = exact;
		frame->region = cprof_space_find(unwinder->space, cprof_frame_lookup_pc(frame));
		stack->count++;
		if (unw_get_reg(&cursor, UNW_REG_SP, &pc) == 0)
			stack->top = pc;
		exact = unw_is_signal_frame(&cursor) > 0;
		more = unw_step(&cursor);
	}
	if (more == 0)
		stack->end = CPROF_END_COMPLETE;
	else if (more > 0 || unwinder->off_stack)
		stack->end = CPROF_END_TRUNCATED;
	else if (more == -UNW_EBADFRAME || more == -UNW_EINVALIDIP)
		stack->end = CPROF_END_CORRUPT;
}

static void lu_flush(struct cprof_unwinder *base)
{
	const struct lu_unwinder *unwinder = (const struct lu_unwinder *)base;

	unw_flush_cache(unwinder->address_space, 0, 0);
}

static void lu_destroy(struct cprof_unwinder *base)
{
	struct lu_unwinder *unwinder = (struct lu_unwinder *)base;

	if (!unwinder)
		return;
	unw_destroy_addr_space(unwinder->address_space);
	free(unwinder);
}

const struct cprof_unwinder_ops cprof_unwinder_libunwind = {
	.name = "libunwind",
	.create = lu_create,
	.unwind = lu_unwind,
	.flush = lu_flush,
	.destroy = lu_destroy,
};

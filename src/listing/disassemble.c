/* SPDX-License-Identifier: MIT
 *
 * Instructions by capstone. It decodes whatever bytes there are; its text is cut to our room.
 */
#include "private.h"

#include <capstone.h>
#include <cprof/util.h>
#include <string.h>

struct cprof_code {
	csh handle;
	cs_insn *instruction;
};

struct cprof_error *cprof_code_create(struct cprof_code **result)
{
	struct cprof_code *code = calloc(1, sizeof(*code));

	*result = NULL;
	if (!code)
		return cprof_error_nomem();
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &code->handle) != CS_ERR_OK) {
		free(code);
		return cprof_error_create(CPROF_FAILED, NULL, "the disassembler cannot be opened");
	}
	cs_option(code->handle, CS_OPT_SYNTAX, CS_OPT_SYNTAX_ATT);
	code->instruction = cs_malloc(code->handle);
	if (!code->instruction) {
		cprof_code_destroy(code);
		return cprof_error_nomem();
	}
	*result = code;
	return NULL;
}

void cprof_code_destroy(struct cprof_code *code)
{
	if (!code)
		return;
	if (code->instruction)
		cs_free(code->instruction, 1);
	cs_close(&code->handle);
	free(code);
}

/* Where a jump or call leads that names its target. */
static uint64_t target_of(const cs_insn *instruction)
{
	bool leads = instruction->mnemonic[0] == 'j' ||
		     !strncmp(instruction->mnemonic, "call", 4) ||
		     !strncmp(instruction->mnemonic, "loop", 4);

	if (!leads || strncmp(instruction->op_str, "0x", 2) != 0)
		return 0;
	return strtoull(instruction->op_str, NULL, 16);
}

size_t cprof_code_next(struct cprof_code *code, const uint8_t *bytes, size_t length,
		       uint64_t address, char *text, size_t size, uint64_t *target)
{
	const uint8_t *next = bytes;
	size_t left = length;
	uint64_t at = address;
	const cs_insn *instruction = code->instruction;

	*target = 0;
	if (!length)
		return 0;
	if (!cs_disasm_iter(code->handle, &next, &left, &at, code->instruction)) {
		snprintf(text, size, ".byte 0x%02x", bytes[0]);
		return 1;
	}
	*target = target_of(instruction);
	snprintf(text, size, "%s%s%s", instruction->mnemonic, instruction->op_str[0] ? " " : "",
		 instruction->op_str);
	return CPROF_MAX(length - left, (size_t)1);
}

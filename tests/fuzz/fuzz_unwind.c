/* SPDX-License-Identifier: MIT
 *
 * The CFI path: a fuzzed .eh_frame (in an ELF file made around it) over fuzzed stack memory and
 * registers. Input: 1 byte share of the .eh_frame, then both.
 */
#include <cprof/unwind.h>
#include <cprof/util.h>
#include <elf.h>
#include <string.h>

#define TEXT_ADDRESS  0x1000ull
#define TEXT_SIZE     0x800ull
#define FRAME_ADDRESS 0x2000ull
#define FRAME_MAX     2048
#define STACK_ADDRESS 0x7fff0000ull

struct file {
	Elf64_Ehdr header;
	Elf64_Phdr programs[3];
	Elf64_Shdr sections[4];
	char names[32];
	uint8_t text[TEXT_SIZE];
	uint8_t frame[FRAME_MAX];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_file(struct file *file, const uint8_t *frame, size_t size)
{
	static const char names[] = "\0.text\0.eh_frame\0.shstrtab";

	memset(file, 0, sizeof(*file));
	memcpy(file->header.e_ident, "\177ELF\2\1\1", 7);
	file->header.e_type = ET_DYN;
	file->header.e_machine = EM_X86_64;
	file->header.e_version = 1;
	file->header.e_phoff = offsetof(struct file, programs);
	file->header.e_shoff = offsetof(struct file, sections);
	file->header.e_ehsize = sizeof(Elf64_Ehdr);
	file->header.e_phentsize = sizeof(Elf64_Phdr);
	file->header.e_phnum = 2;
	file->header.e_shentsize = sizeof(Elf64_Shdr);
	file->header.e_shnum = 4;
	file->header.e_shstrndx = 3;
	file->programs[0] = (Elf64_Phdr){.p_type = PT_LOAD,
					 .p_flags = PF_R | PF_X,
					 .p_offset = offsetof(struct file, text),
					 .p_vaddr = TEXT_ADDRESS,
					 .p_filesz = TEXT_SIZE,
					 .p_memsz = TEXT_SIZE};
	file->programs[1] = (Elf64_Phdr){.p_type = PT_LOAD,
					 .p_flags = PF_R,
					 .p_offset = offsetof(struct file, frame),
					 .p_vaddr = FRAME_ADDRESS,
					 .p_filesz = size,
					 .p_memsz = size};
	memcpy(file->names, names, sizeof(names));
	file->sections[1] = (Elf64_Shdr){.sh_name = 1,
					 .sh_type = SHT_PROGBITS,
					 .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
					 .sh_addr = TEXT_ADDRESS,
					 .sh_offset = offsetof(struct file, text),
					 .sh_size = TEXT_SIZE};
	file->sections[2] = (Elf64_Shdr){.sh_name = 7,
					 .sh_type = SHT_PROGBITS,
					 .sh_flags = SHF_ALLOC,
					 .sh_addr = FRAME_ADDRESS,
					 .sh_offset = offsetof(struct file, frame),
					 .sh_size = size};
	file->sections[3] = (Elf64_Shdr){.sh_name = 17,
					 .sh_type = SHT_STRTAB,
					 .sh_offset = offsetof(struct file, names),
					 .sh_size = sizeof(names)};
	memcpy(file->frame, frame, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct file file;
	static struct cprof_frame frames[64];
	struct cprof_stack stack = {.frames = frames, .capacity = CPROF_COUNT(frames)};
	struct cprof_regs regs = {.known = (1u << CPROF_REGISTERS) - 1};
	struct cprof_memory memory = {.stack_start = STACK_ADDRESS};
	struct cprof_modules *modules = NULL;
	struct cprof_module *module = NULL;
	struct cprof_space *space = NULL;
	struct cprof_unwinder *unwinder = NULL;
	struct cprof_image *image = NULL;
	size_t share;

	if (size < 1)
		return 0;
	share = CPROF_MIN((size - 1) * data[0] / 255, (size_t)FRAME_MAX);
	make_file(&file, data + 1, share);
	memory.stack = data + 1 + share;
	memory.stack_length = size - 1 - share;
	for (size_t i = 0; i < CPROF_REGISTERS; i++)
		regs.value[i] = STACK_ADDRESS + 8 * i;
	regs.value[CPROF_REG_SP] = STACK_ADDRESS;

	cprof_error_destroy(cprof_image_create_memory(&file, sizeof(file), &image));
	if (!image)
		abort();
	if (cprof_modules_create(NULL, &modules) ||
	    cprof_module_create_synthetic(modules, image, &module) ||
	    cprof_space_create(NULL, modules, &space) ||
	    cprof_space_map_module(space, 0x1000, 0x1800, 0, module) ||
	    cprof_unwinder_cfi.create(space, &unwinder))
		abort();
	for (uint64_t pc = TEXT_ADDRESS; pc < TEXT_ADDRESS + TEXT_SIZE; pc += 0x155) {
		regs.value[CPROF_REG_PC] = pc;
		unwinder->ops->unwind(unwinder, &regs, &memory, &stack);
		if (stack.count > CPROF_COUNT(frames) || stack.end >= CPROF_ENDS)
			abort();
	}
	unwinder->ops->destroy(unwinder);
	cprof_space_destroy(space);
	cprof_modules_destroy(modules);
	return 0;
}

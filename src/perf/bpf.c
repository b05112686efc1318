/* SPDX-License-Identifier: MIT
 *
 * The filter of the CPU-wide way: a perf_event program that keeps a sample if the current process
 * is in a map of process ids. It is small enough to be written by hand.
 */
#include "private.h"
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define TARGETS_MAX       64
#define INITIAL_PID_NS    0xEFFFFFFCu /* PROC_PID_INIT_INO */
#define KERNEL_MINOR_BITS 20          /* of the kernel's own dev_t */

/* One instruction; the order of fields is that of struct bpf_insn. */
#define INSN(code, dst, src, off, imm) ((struct bpf_insn){code, dst, src, off, imm})
#define MOVE(dst, src)                 INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOVE_IMM(dst, imm)             INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ADD_IMM(dst, imm)              INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define SHIFT_RIGHT(dst, imm)          INSN(BPF_ALU64 | BPF_RSH | BPF_K, dst, 0, 0, imm)
#define LOAD32(dst, src, off)          INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, off, 0)
#define STORE32(dst, off, src)         INSN(BPF_STX | BPF_MEM | BPF_W, dst, src, off, 0)
#define CALL(helper)                   INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define JUMP_IF_ZERO(dst, off)         INSN(BPF_JMP | BPF_JEQ | BPF_K, dst, 0, off, 0)
#define JUMP_IF_SET(dst, off)          INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, off, 0)
#define EXIT                           INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* A 64-bit constant takes two; `kind` BPF_PSEUDO_MAP_FD makes it a map. */
#define LOAD64(dst, kind, value)                                                                   \
	INSN(BPF_LD | BPF_DW | BPF_IMM, dst, kind, 0, (int32_t)(uint32_t)(value)),                 \
		INSN(0, 0, 0, 0, (int32_t)(uint32_t)((uint64_t)(value) >> 32))

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int program_load(const struct bpf_insn *instructions, size_t count)
{
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_PERF_EVENT,
		.insns = (uint64_t)(uintptr_t)instructions,
		.insn_cnt = (uint32_t)count,
		.license = (uint64_t)(uintptr_t) "Dual MIT/GPL",
	};

	strcpy(attr.prog_name, "cprof_filter");
	return bpf(BPF_PROG_LOAD, &attr);
}

/* Process ids as the namespace `dev`:`ino` numbers them; other namespaces' processes are not kept.
 */
static int program_load_in_namespace(int map, uint64_t dev, uint64_t ino)
{
	/* stat() splits device numbers otherwise than the kernel does inside. */
	uint64_t kernel_dev = (uint64_t)major(dev) << KERNEL_MINOR_BITS | minor(dev);
	const struct bpf_insn program[] = {
		LOAD64(BPF_REG_1, 0, kernel_dev),
		LOAD64(BPF_REG_2, 0, ino),
		MOVE(BPF_REG_3, BPF_REG_10),
		ADD_IMM(BPF_REG_3, -8),
		MOVE_IMM(BPF_REG_4, sizeof(struct bpf_pidns_info)),
		CALL(BPF_FUNC_get_ns_current_pid_tgid),
		JUMP_IF_SET(BPF_REG_0, 8),
		LOAD64(BPF_REG_1, BPF_PSEUDO_MAP_FD, map),
		MOVE(BPF_REG_2, BPF_REG_10),
		ADD_IMM(BPF_REG_2, -8 + (int)offsetof(struct bpf_pidns_info, tgid)),
		CALL(BPF_FUNC_map_lookup_elem),
		JUMP_IF_ZERO(BPF_REG_0, 2),
		MOVE_IMM(BPF_REG_0, 1),
		EXIT,
		MOVE_IMM(BPF_REG_0, 0),
		EXIT,
	};

	return program_load(program, CPROF_COUNT(program));
}

/* Process ids as the initial namespace numbers them, for kernels before 5.7. */
static int program_load_initial(int map)
{
	const struct bpf_insn program[] = {
		CALL(BPF_FUNC_get_current_pid_tgid),
		SHIFT_RIGHT(BPF_REG_0, 32),
		STORE32(BPF_REG_10, -4, BPF_REG_0),
		LOAD64(BPF_REG_1, BPF_PSEUDO_MAP_FD, map),
		MOVE(BPF_REG_2, BPF_REG_10),
		ADD_IMM(BPF_REG_2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		JUMP_IF_ZERO(BPF_REG_0, 1),
		MOVE_IMM(BPF_REG_0, 1),
		EXIT,
	};

	return program_load(program, CPROF_COUNT(program));
}

static int map_add(int map, uint32_t pid)
{
	uint8_t present = 1;
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uint64_t)(uintptr_t)&pid,
		.value = (uint64_t)(uintptr_t)&present,
	};

	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static bool in_initial_namespace(void)
{
	struct stat self;

	return stat("/proc/self/ns/pid", &self) == 0 && self.st_ino == INITIAL_PID_NS;
}

static struct cprof_error *error_denied(int errnum)
{
	long disabled = cprof_perf_setting("/proc/sys/kernel/unprivileged_bpf_disabled", 0);

	return cprof_error_errno(CPROF_DENIED, errnum,
				 "run as root, or with CAP_PERFMON and CAP_BPF",
				 "CPU-wide sampling: the BPF filter cannot be loaded "
				 "(kernel.unprivileged_bpf_disabled is %ld)",
				 disabled);
}

struct cprof_error *cprof_bpf_open(struct cprof_perf *perf)
{
	const struct cprof_target_info *info = cprof_target_info(perf->target);
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_HASH,
		.key_size = sizeof(uint32_t),
		.value_size = 1,
		.max_entries = TARGETS_MAX,
	};
	pid_t pid = info->inner_pid;

	perf->bpf_map = bpf(BPF_MAP_CREATE, &attr);
	if (perf->bpf_map < 0)
		return error_denied(errno);
	perf->bpf_program =
		program_load_in_namespace(perf->bpf_map, info->pid_ns_dev, info->pid_ns_ino);
	if (perf->bpf_program < 0 && in_initial_namespace()) {
		pid = info->pid;
		perf->bpf_program = program_load_initial(perf->bpf_map);
	}
	if (perf->bpf_program < 0)
		return error_denied(errno);
	if (map_add(perf->bpf_map, (uint32_t)pid) < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "the BPF map cannot be filled");
	return NULL;
}

void cprof_bpf_close(struct cprof_perf *perf)
{
	if (perf->bpf_program >= 0)
		close(perf->bpf_program);
	if (perf->bpf_map >= 0)
		close(perf->bpf_map);
	perf->bpf_program = perf->bpf_map = -1;
}

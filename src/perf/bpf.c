/* SPDX-License-Identifier: MIT
 *
 * The filter of the CPU-wide way: a perf_event program that keeps a sample if the current process
 * is in a map of process ids; for births one at a tracepoint, whose number it need not know. It is
 * small enough to be written by hand.
 */
#include "private.h"
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define TARGETS_MAX       64
#define SHARES_MAX        16384       /* threads that are thinned */
#define INITIAL_PID_NS    0xEFFFFFFCu /* PROC_PID_INIT_INO */
#define KERNEL_MINOR_BITS 20          /* of the kernel's own dev_t */

/* One instruction; the order of fields is that of struct bpf_insn. */
#define INSN(code, dst, src, off, imm) ((struct bpf_insn){code, dst, src, off, imm})
#define MOVE(dst, src)                 INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOVE_IMM(dst, imm)             INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ADD_IMM(dst, imm)              INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define LOAD32(dst, src, off)          INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, off, 0)
#define LOAD64_AT(dst, src, off)       INSN(BPF_LDX | BPF_MEM | BPF_DW, dst, src, off, 0)
#define AND_IMM(dst, imm)              INSN(BPF_ALU64 | BPF_AND | BPF_K, dst, 0, 0, imm)
#define STORE64(dst, off, src)         INSN(BPF_STX | BPF_MEM | BPF_DW, dst, src, off, 0)
#define CALL(helper)                   INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define JUMP_IF_ZERO(dst, off)         INSN(BPF_JMP | BPF_JEQ | BPF_K, dst, 0, off, 0)
#define JUMP_IF_SET(dst, off)          INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, off, 0)
#define JUMP_IF_GE(dst, src, off)      INSN(BPF_JMP | BPF_JGE | BPF_X, dst, src, off, 0)
#define EXIT                           INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* A 64-bit constant takes two; `kind` BPF_PSEUDO_MAP_FD makes it a map. */
#define LOAD64(dst, kind, value)                                                                   \
	INSN(BPF_LD | BPF_DW | BPF_IMM, dst, kind, 0, (int32_t)(uint32_t)(value)),                 \
		INSN(0, 0, 0, 0, (int32_t)(uint32_t)((uint64_t)(value) >> 32))

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* A program being put together. Ids lie at the frame's end as in struct bpf_pidns_info: thread,
 * then process. A jump to where the sample is dropped has the offset DROP until it is loaded. */
#define PROGRAM_MAX 64
#define DROP        (-1)
#define AT_TID      (-8 + (int)offsetof(struct bpf_pidns_info, pid))
#define AT_PID      (-8 + (int)offsetof(struct bpf_pidns_info, tgid))

struct program {
	struct bpf_insn insns[PROGRAM_MAX];
	size_t count;
	enum bpf_prog_type type;
	bool is_gate; /* its event never samples itself */
};

#define EMIT(program, ...)                                                                         \
	emit(program, (const struct bpf_insn[]){__VA_ARGS__},                                      \
	     sizeof((const struct bpf_insn[]){__VA_ARGS__}) / sizeof(struct bpf_insn))

static void emit(struct program *program, const struct bpf_insn *insns, size_t count)
{
	memcpy(program->insns + program->count, insns, count * sizeof(*insns));
	program->count += count;
}

static int program_load(struct program *program)
{
	union bpf_attr attr = {
		.prog_type = program->type,
		.insns = (uint64_t)(uintptr_t)program->insns,
		.license = (uint64_t)(uintptr_t) "Dual MIT/GPL",
	};
	size_t drop;

	EMIT(program, MOVE_IMM(BPF_REG_0, !program->is_gate), EXIT);
	drop = program->count;
	EMIT(program, MOVE_IMM(BPF_REG_0, 0), EXIT);
	for (size_t i = 0; i < drop; i++)
		if (BPF_CLASS(program->insns[i].code) == BPF_JMP && program->insns[i].off == DROP)
			program->insns[i].off = (int16_t)(drop - i - 1);
	attr.insn_cnt = (uint32_t)program->count;
	strcpy(attr.prog_name, "cprof_filter");
	return bpf(BPF_PROG_LOAD, &attr);
}

/* Remembers the context; at the tracepoint of births, what is no thread is dropped. */
static struct program program_begin(const struct cprof_perf *perf)
{
	struct program program = {
		.type = BPF_PROG_TYPE_PERF_EVENT,
		.is_gate = perf->bpf_outputs >= 0,
	};

	EMIT(&program, MOVE(BPF_REG_7, BPF_REG_1));
	if (perf->config.clock == CPROF_PERF_BIRTHS) {
		program.type = BPF_PROG_TYPE_RAW_TRACEPOINT;
		/* Its arguments are the new task and the flags of clone(). */
		EMIT(&program, LOAD64_AT(BPF_REG_1, BPF_REG_1, 8), AND_IMM(BPF_REG_1, CLONE_THREAD),
		     JUMP_IF_ZERO(BPF_REG_1, DROP));
	}
	return program;
}

/* Keeps a sample of the process that is in the map. */
static void emit_filter(struct program *program, int map)
{
	EMIT(program, LOAD64(BPF_REG_1, BPF_PSEUDO_MAP_FD, map), MOVE(BPF_REG_2, BPF_REG_10),
	     ADD_IMM(BPF_REG_2, AT_PID), CALL(BPF_FUNC_map_lookup_elem),
	     JUMP_IF_ZERO(BPF_REG_0, DROP));
}

/* Of a thread that has a share, so many of 2^32 samples by chance. */
static void emit_thinning(struct program *program, int map)
{
	EMIT(program, LOAD64(BPF_REG_1, BPF_PSEUDO_MAP_FD, map), MOVE(BPF_REG_2, BPF_REG_10),
	     ADD_IMM(BPF_REG_2, AT_TID), CALL(BPF_FUNC_map_lookup_elem), JUMP_IF_ZERO(BPF_REG_0, 3),
	     LOAD32(BPF_REG_6, BPF_REG_0, 0), CALL(BPF_FUNC_get_prandom_u32),
	     JUMP_IF_GE(BPF_REG_0, BPF_REG_6, DROP));
}

/* Has the output event of this CPU sample. The kernel gathers a sample's call chain before it asks
 * the program: where most are dropped that must be another event's. */
static void emit_output(struct program *program, int map)
{
	EMIT(program, MOVE(BPF_REG_1, BPF_REG_7), LOAD64(BPF_REG_2, BPF_PSEUDO_MAP_FD, map),
	     LOAD64(BPF_REG_3, 0, BPF_F_CURRENT_CPU), MOVE(BPF_REG_4, BPF_REG_10),
	     ADD_IMM(BPF_REG_4, -8), MOVE_IMM(BPF_REG_5, 8), CALL(BPF_FUNC_perf_event_output));
}

static void emit_rest(struct program *program, const struct cprof_perf *perf)
{
	emit_filter(program, perf->bpf_map);
	if (perf->bpf_shares >= 0)
		emit_thinning(program, perf->bpf_shares);
	if (perf->bpf_outputs >= 0)
		emit_output(program, perf->bpf_outputs);
}

/* Ids as the namespace `dev`:`ino` numbers them; other namespaces' processes are not kept. */
static int program_load_in_namespace(const struct cprof_perf *perf, uint64_t dev, uint64_t ino)
{
	/* stat() splits device numbers otherwise than the kernel does inside. */
	uint64_t kernel_dev = (uint64_t)major(dev) << KERNEL_MINOR_BITS | minor(dev);
	struct program program = program_begin(perf);

	EMIT(&program, LOAD64(BPF_REG_1, 0, kernel_dev), LOAD64(BPF_REG_2, 0, ino),
	     MOVE(BPF_REG_3, BPF_REG_10), ADD_IMM(BPF_REG_3, -8),
	     MOVE_IMM(BPF_REG_4, sizeof(struct bpf_pidns_info)),
	     CALL(BPF_FUNC_get_ns_current_pid_tgid), JUMP_IF_SET(BPF_REG_0, DROP));
	emit_rest(&program, perf);
	return program_load(&program);
}

/* Ids as the initial namespace numbers them, for kernels before 5.7. */
static int program_load_initial(const struct cprof_perf *perf)
{
	struct program program = program_begin(perf);

	EMIT(&program, CALL(BPF_FUNC_get_current_pid_tgid), STORE64(BPF_REG_10, -8, BPF_REG_0));
	emit_rest(&program, perf);
	return program_load(&program);
}

static int map_create(enum bpf_map_type type, uint32_t value_size, uint32_t entries)
{
	union bpf_attr attr = {
		.map_type = type,
		.key_size = sizeof(uint32_t),
		.value_size = value_size,
		.max_entries = entries,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int map_set(int map, uint32_t key, const void *value)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uint64_t)(uintptr_t)&key,
		.value = (uint64_t)(uintptr_t)value,
	};

	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static void map_delete(int map, uint32_t key)
{
	union bpf_attr attr = {.map_fd = (uint32_t)map, .key = (uint64_t)(uintptr_t)&key};

	bpf(BPF_MAP_DELETE_ELEM, &attr);
}

static bool in_initial_namespace(void)
{
	struct stat self;

	return stat("/proc/self/ns/pid", &self) == 0 && self.st_ino == INITIAL_PID_NS;
}

static struct cprof_error *error_denied(int errnum)
{
	long disabled = cprof_perf_setting("/proc/sys/kernel/unprivileged_bpf_disabled", 0);

	if (errnum == EMFILE || errnum == ENFILE)
		return cprof_error_errno(CPROF_FAILED, errnum, "raise ulimit -n",
					 "CPU-wide sampling");
	return cprof_error_errno(CPROF_DENIED, errnum,
				 "run as root, or with CAP_PERFMON and CAP_BPF",
				 "CPU-wide sampling: the BPF filter cannot be loaded "
				 "(kernel.unprivileged_bpf_disabled is %ld)",
				 disabled);
}

static int outputs_create(const struct cprof_perf *perf)
{
	uint32_t cpus = 0;

	for (size_t i = 0; i < perf->ring_count; i++)
		cpus = CPROF_MAX(cpus, perf->rings[i].cpu + 1);
	return map_create(BPF_MAP_TYPE_PERF_EVENT_ARRAY, sizeof(uint32_t), cpus);
}

int cprof_bpf_output(const struct cprof_perf *perf, unsigned cpu, int fd)
{
	return map_set(perf->bpf_outputs, cpu, &fd) < 0 ? -errno : 0;
}

/* Nothing is sampled before the output events are enabled. */
static int tracepoint_open(const struct cprof_perf *perf, const char *name)
{
	union bpf_attr attr = {
		.raw_tracepoint.name = (uint64_t)(uintptr_t)name,
		.raw_tracepoint.prog_fd = (uint32_t)perf->bpf_program,
	};

	return bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

struct cprof_error *cprof_bpf_open(struct cprof_perf *perf)
{
	const struct cprof_target_info *info = cprof_target_info(perf->target);
	const uint8_t present = 1;
	pid_t pid = info->inner_pid;

	perf->bpf_map = map_create(BPF_MAP_TYPE_HASH, sizeof(present), TARGETS_MAX);
	if (perf->bpf_map < 0)
		return error_denied(errno);
	if (perf->config.clock == CPROF_PERF_SWITCHES && perf->config.rate)
		perf->bpf_shares = map_create(BPF_MAP_TYPE_HASH, sizeof(uint32_t), SHARES_MAX);
	if (cprof_perf_is_traced(perf)) {
		perf->bpf_outputs = outputs_create(perf);
		if (perf->bpf_outputs < 0)
			return error_denied(errno);
	}
	perf->bpf_inner_ids = info->inner_pid != info->pid;
	perf->bpf_program = program_load_in_namespace(perf, info->pid_ns_dev, info->pid_ns_ino);
	if (perf->bpf_program < 0 && in_initial_namespace()) {
		pid = info->pid;
		perf->bpf_inner_ids = false;
		perf->bpf_program = program_load_initial(perf);
	}
	if (perf->bpf_program < 0)
		return error_denied(errno);
	if (map_set(perf->bpf_map, (uint32_t)pid, &present) < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "the BPF map cannot be filled");
	if (perf->config.clock == CPROF_PERF_BIRTHS) {
		perf->bpf_link = tracepoint_open(perf, "task_newtask");
		if (perf->bpf_link < 0)
			return error_denied(errno);
	}
	return NULL;
}

/* A thread's id in the target's own namespace, the last of the line NSpid; 0 unknown. */
static uint32_t inner_tid(const struct cprof_perf *perf, uint32_t tid)
{
	CPROF_AUTO_FREE char *text = NULL;
	const char *line;
	char path[64];
	size_t length;
	unsigned id = 0;

	snprintf(path, sizeof(path), "task/%u/status", tid);
	text = cprof_read_file_at(cprof_target_procfd(perf->target), path, 65536, &length);
	line = text ? strstr(text, "\nNSpid:") : NULL;
	if (!line)
		return 0;
	line += strlen("\nNSpid:");
	for (size_t i = 0; line[i] && line[i] != '\n'; i++)
		if (line[i] == '\t' && sscanf(line + i, "%u", &id) != 1)
			return 0;
	return id;
}

bool cprof_bpf_share(struct cprof_perf *perf, uint32_t tid, double share)
{
	uint32_t key = perf->bpf_inner_ids ? inner_tid(perf, tid) : tid;
	uint32_t threshold = (uint32_t)(share * UINT32_MAX);

	if (perf->bpf_shares < 0 || !key)
		return false;
	if (share < 1)
		return map_set(perf->bpf_shares, key, &threshold) == 0;
	map_delete(perf->bpf_shares, key);
	return true;
}

void cprof_bpf_close(struct cprof_perf *perf)
{
	if (perf->bpf_link >= 0)
		close(perf->bpf_link);
	if (perf->bpf_program >= 0)
		close(perf->bpf_program);
	if (perf->bpf_shares >= 0)
		close(perf->bpf_shares);
	if (perf->bpf_outputs >= 0)
		close(perf->bpf_outputs);
	if (perf->bpf_map >= 0)
		close(perf->bpf_map);
	perf->bpf_program = perf->bpf_shares = perf->bpf_outputs = perf->bpf_map = -1;
	perf->bpf_link = -1;
}

/* SPDX-License-Identifier: MIT
 *
 * The filter of the CPU-wide way: a perf_event program that keeps a sample if the current process
 * is in a map of process ids; for births one at a tracepoint, whose number it need not know.
 */
#include "bpf.h"
#include <errno.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define TARGETS_MAX       64
#define INITIAL_PID_NS    0xEFFFFFFCu /* PROC_PID_INIT_INO */
#define KERNEL_MINOR_BITS 20          /* of the kernel's own dev_t */

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* --- programs ------------------------------------------------------------------------------ */

int cprof_bpf_load(struct program *program, int kept)
{
	union bpf_attr attr = {
		.prog_type = program->type,
		.insns = (uint64_t)(uintptr_t)program->insns,
		.license = (uint64_t)(uintptr_t) "Dual MIT/GPL",
	};
	size_t drop;

	EMIT(program, MOVE_IMM(BPF_REG_0, kept), EXIT);
	drop = program->count;
	EMIT(program, MOVE_IMM(BPF_REG_0, 0), EXIT);
	for (size_t i = 0; i < drop; i++)
		if (BPF_CLASS(program->insns[i].code) == BPF_JMP && program->insns[i].off == DROP)
			program->insns[i].off = (int16_t)(drop - i - 1);
	attr.insn_cnt = (uint32_t)program->count;
	strcpy(attr.prog_name, "cprof_filter");
	return bpf(BPF_PROG_LOAD, &attr);
}

int cprof_bpf_attach(int program, const char *tracepoint)
{
	union bpf_attr attr = {
		.raw_tracepoint.name = (uint64_t)(uintptr_t)tracepoint,
		.raw_tracepoint.prog_fd = (uint32_t)program,
	};

	return bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

/* Remembers the context; at the tracepoint of births, what is no thread is dropped. */
static struct program program_begin(const struct cprof_perf *perf)
{
	struct program program = {.type = BPF_PROG_TYPE_PERF_EVENT};

	EMIT(&program, MOVE(BPF_REG_7, BPF_REG_1));
	if (perf->config.clock == CPROF_PERF_BIRTHS) {
		program.type = BPF_PROG_TYPE_RAW_TRACEPOINT;
		/* Its arguments are the new task and the flags of clone(). */
		EMIT(&program, LOAD64_AT(BPF_REG_1, BPF_REG_1, 8), AND_IMM(BPF_REG_1, CLONE_THREAD),
		     JUMP_IF_ZERO(BPF_REG_1, DROP));
	}
	return program;
}

/* Goes on with the process that is in the map. */
static void emit_membership(struct program *program, int map)
{
	EMIT(program, LOAD_MAP(BPF_REG_1, map), MOVE(BPF_REG_2, BPF_REG_10),
	     ADD_IMM(BPF_REG_2, AT_PID), CALL(BPF_FUNC_map_lookup_elem),
	     JUMP_IF_ZERO(BPF_REG_0, DROP));
}

void cprof_bpf_emit_filter(struct program *program, const struct cprof_perf *perf)
{
	const struct cprof_target_info *info = cprof_target_info(perf->target);
	/* stat() splits device numbers otherwise than the kernel does inside. */
	uint64_t kernel_dev =
		(uint64_t)major(info->pid_ns_dev) << KERNEL_MINOR_BITS | minor(info->pid_ns_dev);

	EMIT(program, LOAD64(BPF_REG_1, 0, kernel_dev), LOAD64(BPF_REG_2, 0, info->pid_ns_ino),
	     MOVE(BPF_REG_3, BPF_REG_10), ADD_IMM(BPF_REG_3, -8),
	     MOVE_IMM(BPF_REG_4, sizeof(struct bpf_pidns_info)),
	     CALL(BPF_FUNC_get_ns_current_pid_tgid), JUMP_IF_SET(BPF_REG_0, DROP));
	emit_membership(program, perf->bpf_map);
}

void cprof_bpf_emit_output(struct program *program, int map)
{
	EMIT(program, MOVE(BPF_REG_1, BPF_REG_7), LOAD_MAP(BPF_REG_2, map),
	     LOAD64(BPF_REG_3, 0, BPF_F_CURRENT_CPU), CALL(BPF_FUNC_perf_event_output));
}

/* At a tracepoint it is another event that samples. */
static int program_finish(struct program *program, const struct cprof_perf *perf)
{
	if (perf->bpf_outputs < 0)
		return cprof_bpf_load(program, 1);
	EMIT(program, MOVE(BPF_REG_4, BPF_REG_10), ADD_IMM(BPF_REG_4, -8), MOVE_IMM(BPF_REG_5, 8));
	cprof_bpf_emit_output(program, perf->bpf_outputs);
	return cprof_bpf_load(program, 0);
}

/* Ids as the target's namespace numbers them; other namespaces' processes are not kept. */
static int program_load_in_namespace(const struct cprof_perf *perf)
{
	struct program program = program_begin(perf);

	cprof_bpf_emit_filter(&program, perf);
	return program_finish(&program, perf);
}

/* Ids as the initial namespace numbers them, for kernels before 5.7. */
static int program_load_initial(const struct cprof_perf *perf)
{
	struct program program = program_begin(perf);

	EMIT(&program, CALL(BPF_FUNC_get_current_pid_tgid), STORE64(BPF_REG_10, -8, BPF_REG_0));
	emit_membership(&program, perf->bpf_map);
	return program_finish(&program, perf);
}

/* --- maps ---------------------------------------------------------------------------------- */

int cprof_bpf_map(enum bpf_map_type type, uint32_t key_size, uint32_t value_size, uint32_t entries)
{
	union bpf_attr attr = {
		.map_type = type,
		.key_size = key_size,
		.value_size = value_size,
		.max_entries = entries,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

int cprof_bpf_events(const struct cprof_perf *perf)
{
	uint32_t cpus = 0;

	for (size_t i = 0; i < perf->ring_count; i++)
		cpus = CPROF_MAX(cpus, perf->rings[i].cpu + 1);
	return cprof_bpf_map(BPF_MAP_TYPE_PERF_EVENT_ARRAY, sizeof(uint32_t), sizeof(uint32_t),
			     cpus);
}

static int element(int command, int map, const void *key, const void *value)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uint64_t)(uintptr_t)key,
		.value = (uint64_t)(uintptr_t)value,
	};

	return bpf(command, &attr);
}

int cprof_bpf_get(int map, const void *key, void *value)
{
	return element(BPF_MAP_LOOKUP_ELEM, map, key, value);
}

int cprof_bpf_set(int map, const void *key, const void *value)
{
	return element(BPF_MAP_UPDATE_ELEM, map, key, value);
}

void cprof_bpf_delete(int map, const void *key)
{
	element(BPF_MAP_DELETE_ELEM, map, key, NULL);
}

void cprof_bpf_drop(int *descriptor)
{
	if (*descriptor >= 0)
		close(*descriptor);
	*descriptor = -1;
}

/* --- opening ------------------------------------------------------------------------------- */

bool cprof_bpf_is_initial(void)
{
	struct stat self;

	return stat("/proc/self/ns/pid", &self) == 0 && self.st_ino == INITIAL_PID_NS;
}

struct cprof_error *cprof_bpf_denied(int errnum)
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

int cprof_bpf_output(const struct cprof_perf *perf, unsigned cpu, int fd)
{
	return cprof_bpf_set(perf->bpf_outputs, &cpu, &fd) < 0 ? -errno : 0;
}

/* Fills in what filters ask. `pid` is the target's as they see it. */
static struct cprof_error *fill_targets(const struct cprof_perf *perf, pid_t pid)
{
	const uint8_t present = 1;

	if (cprof_bpf_set(perf->bpf_map, &pid, &present) < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "the BPF map cannot be filled");
	return NULL;
}

static struct cprof_error *open_filter(struct cprof_perf *perf)
{
	const struct cprof_target_info *info = cprof_target_info(perf->target);
	pid_t pid = info->inner_pid;

	perf->bpf_program = program_load_in_namespace(perf);
	if (perf->bpf_program < 0 && cprof_bpf_is_initial()) {
		pid = info->pid;
		perf->bpf_program = program_load_initial(perf);
	}
	if (perf->bpf_program < 0)
		return cprof_bpf_denied(errno);
	CPROF_TRY(fill_targets(perf, pid));
	if (perf->config.clock != CPROF_PERF_BIRTHS)
		return NULL;
	/* Nothing is sampled before the output events are enabled. */
	perf->bpf_link = cprof_bpf_attach(perf->bpf_program, "task_newtask");
	return perf->bpf_link < 0 ? cprof_bpf_denied(errno) : NULL;
}

struct cprof_error *cprof_bpf_open(struct cprof_perf *perf)
{
	perf->bpf_map =
		cprof_bpf_map(BPF_MAP_TYPE_HASH, sizeof(pid_t), sizeof(uint8_t), TARGETS_MAX);
	if (perf->bpf_map < 0)
		return cprof_bpf_denied(errno);
	if (cprof_perf_is_traced(perf)) {
		perf->bpf_outputs = cprof_bpf_events(perf);
		if (perf->bpf_outputs < 0)
			return cprof_bpf_denied(errno);
	}
	if (perf->config.clock != CPROF_PERF_SWITCHES)
		return open_filter(perf);
	CPROF_TRY(fill_targets(perf, cprof_target_info(perf->target)->inner_pid));
	return cprof_waits_open(perf);
}

void cprof_bpf_detach(struct cprof_perf *perf)
{
	cprof_bpf_drop(&perf->bpf_link);
}

void cprof_bpf_close(struct cprof_perf *perf)
{
	cprof_bpf_detach(perf);
	cprof_bpf_drop(&perf->bpf_program);
	cprof_bpf_drop(&perf->bpf_outputs);
	cprof_bpf_drop(&perf->bpf_map);
	cprof_waits_close(perf);
}

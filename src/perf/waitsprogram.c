/* SPDX-License-Identifier: MIT
 *
 * The program at the tracepoint of switches that sums up waits: see waits.c.
 */
#include "waits.h"

/* In the frame, below the ids that the filter asks for. */
#define AT_KEY     (-16)
#define AT_INDEX   (-24)
#define AT_CONTROL (-32)
#define AT_CPU     (-40)
#define AT_TASK    (-56)
#define AT_KEPT    (-48) /* the flags of a wait that is over and is to be told */

/* Throughout: r6 the thread's entry, r7 the context, r8 now, r9 since when it had this CPU. */

/* The arguments of the raw tracepoint: is it preempted, which task leaves, which comes, and since
 * Linux 5.18 the state of the former. */
enum {
	RAW_PREEMPT = 0,
	RAW_LEAVES = 8,
	RAW_COMES = 16,
	RAW_STATE = 24,
	RAW_DEAD = 0x80, /* TASK_DEAD */
};

/* The ordinary one's record, which is some slower: the state as ps tells it, and numbers. */
enum {
	RECORD_STATE = 32,
	RECORD_COMES = 56,
	RECORD_PREEMPT = 0x100, /* TASK_REPORT_MAX */
	RECORD_DEAD = 0x30,     /* EXIT_TRACE */
};

/* r0: what is at a key in the frame. */
static void emit_lookup(struct program *program, int map, int at)
{
	EMIT(program, LOAD_MAP(BPF_REG_1, map), MOVE(BPF_REG_2, BPF_REG_10), ADD_IMM(BPF_REG_2, at),
	     CALL(BPF_FUNC_map_lookup_elem));
}

static void emit_start(struct program *program, const struct cprof_perf *perf)
{
	const struct cprof_waits *waits = perf->waits;

	EMIT(program, MOVE(BPF_REG_7, BPF_REG_1), CALL(BPF_FUNC_ktime_get_ns),
	     MOVE(BPF_REG_8, BPF_REG_0), STORE64_IMM(BPF_REG_10, AT_INDEX, 0),
	     STORE64_IMM(BPF_REG_10, AT_KEPT, 0));
	emit_lookup(program, waits->control, AT_INDEX);
	EMIT(program, JUMP_IF_ZERO(BPF_REG_0, DROP), STORE64(BPF_REG_10, AT_CONTROL, BPF_REG_0),
	     CALL(BPF_FUNC_get_smp_processor_id), STORE32(BPF_REG_10, AT_INDEX, BPF_REG_0));
	emit_lookup(program, waits->cpus, AT_INDEX);
	EMIT(program, JUMP_IF_ZERO(BPF_REG_0, DROP), STORE64(BPF_REG_10, AT_CPU, BPF_REG_0),
	     LOAD64_AT(BPF_REG_9, BPF_REG_0, offsetof(struct cpu, switched_ns)),
	     STORE64(BPF_REG_0, offsetof(struct cpu, switched_ns), BPF_REG_8),
	     waits->raw ? LOAD64_AT(BPF_REG_1, BPF_REG_7, RAW_COMES)
			: LOAD32(BPF_REG_1, BPF_REG_7, RECORD_COMES),
	     STORE64(BPF_REG_0, offsetof(struct cpu, comes), BPF_REG_1),
	     CALL(BPF_FUNC_get_current_pid_tgid), JUMP_IF_ZERO(BPF_REG_0, DROP), /* idle */
	     STORE64(BPF_REG_10, AT_KEY, BPF_REG_0));
	if (cprof_bpf_is_initial()) /* then the others need no more than this */
		EMIT(program, ALU_IMM(BPF_RSH, BPF_REG_0, 32),
		     INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, DROP,
			  cprof_target_info(perf->target)->pid));
	EMIT(program,
	     waits->raw ? LOAD64_AT(BPF_REG_0, BPF_REG_7, RAW_LEAVES)
			: CALL(BPF_FUNC_get_current_task),
	     STORE64(BPF_REG_10, AT_TASK, BPF_REG_0));
}

#define TOLD(field) ((int16_t)offsetof(struct cpu, told.field))

/* Tells what is in the CPU's place for it, and the next r5 - sizeof(struct cprof_told) bytes. */
static void emit_tell(struct program *program, int map)
{
	EMIT(program, LOAD64_AT(BPF_REG_4, BPF_REG_10, AT_CPU),
	     ADD_IMM(BPF_REG_4, offsetof(struct cpu, told)));
	cprof_bpf_emit_output(program, map);
}

/* A thread of the target that is new here. Where that cannot be told it stays new. */
static void emit_new(struct program *program, const struct cprof_perf *perf)
{
	const struct cprof_waits *waits = perf->waits;
	size_t fine;

	cprof_bpf_emit_filter(program, perf);
	EMIT(program, LOAD_MAP(BPF_REG_1, waits->threads), MOVE(BPF_REG_2, BPF_REG_10),
	     ADD_IMM(BPF_REG_2, AT_KEY), LOAD64_AT(BPF_REG_3, BPF_REG_10, AT_CONTROL),
	     ADD_IMM(BPF_REG_3, offsetof(struct control, blank)), MOVE_IMM(BPF_REG_4, BPF_ANY),
	     CALL(BPF_FUNC_map_update_elem));
	fine = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_0, 0));
	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_CPU),
	     LOAD64_AT(BPF_REG_2, BPF_REG_1, offsetof(struct cpu, unknown)), ADD_IMM(BPF_REG_2, 1),
	     STORE64(BPF_REG_1, offsetof(struct cpu, unknown), BPF_REG_2), MOVE_IMM(BPF_REG_0, 0),
	     EXIT);
	land(program, fine);
	emit_lookup(program, waits->threads, AT_KEY);
	EMIT(program, JUMP_IF_ZERO(BPF_REG_0, DROP), MOVE(BPF_REG_6, BPF_REG_0),
	     LOAD64_AT(BPF_REG_2, BPF_REG_10, AT_CPU), MOVE_IMM(BPF_REG_3, 0),
	     LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_KEY), STORE64(BPF_REG_2, TOLD(key), BPF_REG_1),
	     STORE64(BPF_REG_2, TOLD(out_ns), BPF_REG_3),
	     STORE64(BPF_REG_2, TOLD(in_ns), BPF_REG_9), STORE64(BPF_REG_2, TOLD(share), BPF_REG_3),
	     STORE64(BPF_REG_2, TOLD(flags), BPF_REG_3),
	     MOVE_IMM(BPF_REG_5, sizeof(struct cprof_told)));
	emit_tell(program, waits->events);
	EMIT(program, JUMP_IF_SET(BPF_REG_0, DROP),
	     STORE64(BPF_REG_6, offsetof(struct entry, window_ns), BPF_REG_8),
	     LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_TASK),
	     STORE64(BPF_REG_6, offsetof(struct entry, task), BPF_REG_1));
}

/* r3: which stratum a wait of r2 ns is of, as by cprof_perf_stratum_of(); r1 and r4 are lost. What
 * its own sample took does not count there: it would be of others than those that it stands for. */
static void emit_stratum(struct program *program)
{
	size_t done[CPROF_PERF_STRATA];
	size_t count = 0;
	size_t longer;

	EMIT(program, MOVE_IMM(BPF_REG_3, CPROF_PERF_STRATUM_RUNQ),
	     LOAD64_AT(BPF_REG_4, BPF_REG_6, offsetof(struct entry, flags)),
	     AND_IMM(BPF_REG_4, CPROF_WAIT_PREEMPTED));
	done[count++] = jump(program, GO_IF_IMM(BPF_JNE, BPF_REG_4, 0));
	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, flags)),
	     ALU_IMM(BPF_RSH, BPF_REG_1, CPROF_WAIT_SPENT), MOVE(BPF_REG_4, BPF_REG_2));
	longer = jump(program, GO_IF(BPF_JGT, BPF_REG_4, BPF_REG_1));
	EMIT(program, MOVE(BPF_REG_4, BPF_REG_1));
	land(program, longer);
	EMIT(program, ALU(BPF_SUB, BPF_REG_4, BPF_REG_1),
	     ALU_IMM(BPF_RSH, BPF_REG_4, CPROF_PERF_STRATUM_FIRST));
	for (int i = 0; i < CPROF_PERF_STRATUM_RUNQ; i++) {
		EMIT(program, MOVE_IMM(BPF_REG_3, i));
		if (i == CPROF_PERF_STRATUM_RUNQ - 1)
			break;
		done[count++] = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_4, 0));
		EMIT(program, ALU_IMM(BPF_RSH, BPF_REG_4, CPROF_PERF_STRATUM_BITS));
	}
	while (count)
		land(program, done[--count]);
}

/* The wait of a thread that is known is over: it is added, and is to be told if it was kept, or has
 * begun before waits counted. */
static void emit_account(struct program *program)
{
	size_t skip[3];
	size_t begun;

	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, out_ns)),
	     MOVE(BPF_REG_5, BPF_REG_1), LOAD64_AT(BPF_REG_2, BPF_REG_10, AT_CONTROL),
	     LOAD64_AT(BPF_REG_2, BPF_REG_2, offsetof(struct control, begin_ns)));
	skip[0] = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_1, 0));
	begun = jump(program, GO_IF(BPF_JGE, BPF_REG_1, BPF_REG_2));
	EMIT(program, MOVE(BPF_REG_1, BPF_REG_2),
	     LOAD64_AT(BPF_REG_3, BPF_REG_6, offsetof(struct entry, flags)),
	     ALU_IMM(BPF_OR, BPF_REG_3, CPROF_WAIT_KEPT),
	     STORE64(BPF_REG_6, offsetof(struct entry, flags), BPF_REG_3));
	land(program, begun);
	skip[1] = jump(program, GO_IF(BPF_JGE, BPF_REG_1, BPF_REG_9));
	EMIT(program, MOVE(BPF_REG_2, BPF_REG_9), ALU(BPF_SUB, BPF_REG_2, BPF_REG_1));
	emit_stratum(program);
	EMIT(program, ALU_IMM(BPF_MUL, BPF_REG_3, sizeof(struct cprof_perf_stratum)),
	     MOVE(BPF_REG_4, BPF_REG_6), ALU(BPF_ADD, BPF_REG_4, BPF_REG_3),
	     LOAD64_AT(BPF_REG_1, BPF_REG_4, offsetof(struct entry, strata[0].count)),
	     ADD_IMM(BPF_REG_1, 1),
	     STORE64(BPF_REG_4, offsetof(struct entry, strata[0].count), BPF_REG_1),
	     LOAD64_AT(BPF_REG_1, BPF_REG_4, offsetof(struct entry, strata[0].ns)),
	     ALU(BPF_ADD, BPF_REG_1, BPF_REG_2),
	     STORE64(BPF_REG_4, offsetof(struct entry, strata[0].ns), BPF_REG_1),
	     LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, flags)),
	     MOVE(BPF_REG_2, BPF_REG_1), AND_IMM(BPF_REG_2, CPROF_WAIT_KEPT));
	skip[2] = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_2, 0));
	EMIT(program, STORE64(BPF_REG_10, AT_KEPT, BPF_REG_1),
	     LOAD64_AT(BPF_REG_2, BPF_REG_10, AT_CPU), STORE64(BPF_REG_2, TOLD(flags), BPF_REG_1),
	     STORE64(BPF_REG_2, TOLD(out_ns), BPF_REG_5),
	     STORE64(BPF_REG_2, TOLD(in_ns), BPF_REG_9), LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_KEY),
	     STORE64(BPF_REG_2, TOLD(key), BPF_REG_1),
	     LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, share)),
	     STORE64(BPF_REG_2, TOLD(share), BPF_REG_1));
	for (size_t i = 0; i < CPROF_COUNT(skip); i++)
		land(program, skip[i]);
}

/* The next wait begins. A thread that is preempted, or has nothing to wait for, goes on as soon as
 * it can. */
static void emit_out(struct program *program, const struct cprof_waits *waits, size_t *dead)
{
	size_t preempted;
	size_t alive;
	size_t ready;

	if (waits->raw)
		EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_7, RAW_PREEMPT),
		     AND_IMM(BPF_REG_1, 0xff), LOAD64_AT(BPF_REG_2, BPF_REG_7, RAW_STATE));
	else
		EMIT(program, LOAD64_AT(BPF_REG_2, BPF_REG_7, RECORD_STATE),
		     MOVE(BPF_REG_1, BPF_REG_2), AND_IMM(BPF_REG_1, RECORD_PREEMPT));
	EMIT(program, MOVE_IMM(BPF_REG_3, CPROF_WAIT_PREEMPTED));
	preempted = jump(program, GO_IF_IMM(BPF_JNE, BPF_REG_1, 0));
	EMIT(program, MOVE(BPF_REG_4, BPF_REG_2),
	     AND_IMM(BPF_REG_4, waits->raw ? RAW_DEAD : RECORD_DEAD));
	alive = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_4, 0));
	EMIT(program, STORE64_IMM(BPF_REG_6, offsetof(struct entry, out_ns), 0));
	*dead = jump(program, GO);
	land(program, alive);
	ready = jump(program, GO_IF_IMM(BPF_JEQ, BPF_REG_2, 0));
	EMIT(program, MOVE_IMM(BPF_REG_3, 0));
	land(program, ready);
	land(program, preempted);
	EMIT(program, STORE64(BPF_REG_6, offsetof(struct entry, flags), BPF_REG_3),
	     STORE64(BPF_REG_6, offsetof(struct entry, out_ns), BPF_REG_8));
}

/* Counts the switch. Once a window, or when there are twice as many as were expected, the share
 * that is kept is told anew: level / rate, with r2 the rate in 2^-16 a window. */
static void emit_share(struct program *program)
{
	size_t within;
	size_t decided;
	size_t all;
	size_t counted;

	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, count)),
	     ADD_IMM(BPF_REG_1, 1), MOVE(BPF_REG_2, BPF_REG_1), ALU_IMM(BPF_LSH, BPF_REG_2, 16),
	     MOVE(BPF_REG_3, BPF_REG_8),
	     LOAD64_AT(BPF_REG_4, BPF_REG_6, offsetof(struct entry, window_ns)),
	     ALU(BPF_SUB, BPF_REG_3, BPF_REG_4));
	within = jump(program, GO_IF_IMM(BPF_JLT, BPF_REG_3, CPROF_WAITS_WINDOW_NS));
	EMIT(program, ALU_IMM(BPF_MUL, BPF_REG_2, CPROF_WAITS_WINDOW_NS),
	     ALU(BPF_DIV, BPF_REG_2, BPF_REG_3), MOVE_IMM(BPF_REG_1, 0),
	     STORE64(BPF_REG_6, offsetof(struct entry, window_ns), BPF_REG_8));
	counted = jump(program, GO);
	land(program, within);
	EMIT(program, STORE64(BPF_REG_6, offsetof(struct entry, count), BPF_REG_1),
	     LOAD64_AT(BPF_REG_3, BPF_REG_6, offsetof(struct entry, limit)));
	decided = jump(program, GO_IF(BPF_JLT, BPF_REG_1, BPF_REG_3));
	land(program, counted);
	EMIT(program, STORE64(BPF_REG_6, offsetof(struct entry, count), BPF_REG_1),
	     LOAD64_AT(BPF_REG_3, BPF_REG_10, AT_CONTROL),
	     LOAD64_AT(BPF_REG_3, BPF_REG_3, offsetof(struct control, level)),
	     /* limit = 2 * rate + level + 1 */
	     MOVE(BPF_REG_4, BPF_REG_2), ALU_IMM(BPF_LSH, BPF_REG_4, 1),
	     ALU(BPF_ADD, BPF_REG_4, BPF_REG_3), ALU_IMM(BPF_RSH, BPF_REG_4, 16),
	     ADD_IMM(BPF_REG_4, 1), STORE64(BPF_REG_6, offsetof(struct entry, limit), BPF_REG_4),
	     LOAD64(BPF_REG_4, 0, 1ull << 32));
	all = jump(program, GO_IF(BPF_JGE, BPF_REG_3, BPF_REG_2));
	EMIT(program, MOVE(BPF_REG_4, BPF_REG_3), ALU_IMM(BPF_LSH, BPF_REG_4, 32),
	     ALU(BPF_DIV, BPF_REG_4, BPF_REG_2));
	land(program, all);
	EMIT(program, STORE64(BPF_REG_6, offsetof(struct entry, share), BPF_REG_4));
	land(program, decided);
}

/* Jumps where this one is not to be kept. */
static size_t emit_choice(struct program *program)
{
	size_t all;
	size_t out;

	EMIT(program, LOAD64_AT(BPF_REG_9, BPF_REG_6, offsetof(struct entry, share)),
	     LOAD64(BPF_REG_1, 0, 1ull << 32));
	all = jump(program, GO_IF(BPF_JGE, BPF_REG_9, BPF_REG_1));
	EMIT(program, CALL(BPF_FUNC_get_prandom_u32));
	out = jump(program, GO_IF(BPF_JGE, BPF_REG_0, BPF_REG_9));
	land(program, all);
	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, flags)),
	     ALU_IMM(BPF_OR, BPF_REG_1, CPROF_WAIT_KEPT),
	     STORE64(BPF_REG_6, offsetof(struct entry, flags), BPF_REG_1));
	return out;
}

/* A sample, which tells of the wait before too. It has the frames in the kernel, that say what is
 * waited for: fewer lie between than if the event gathered them, which takes most of the time. Who
 * is preempted waits for a CPU, and has none. */
static void emit_sample(struct program *program, const struct cprof_perf *perf)
{
	size_t preempted;
	size_t told;
	size_t some;

	EMIT(program, LOAD64_AT(BPF_REG_2, BPF_REG_10, AT_CPU),
	     LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_KEPT));
	told = jump(program, GO_IF_IMM(BPF_JNE, BPF_REG_1, 0));
	EMIT(program, STORE64(BPF_REG_2, TOLD(flags), BPF_REG_1));
	land(program, told);
	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, flags)),
	     AND_IMM(BPF_REG_1, CPROF_WAIT_PREEMPTED), MOVE_IMM(BPF_REG_0, 0));
	preempted = jump(program, GO_IF_IMM(BPF_JNE, BPF_REG_1, 0));
	EMIT(program, MOVE(BPF_REG_1, BPF_REG_7), ADD_IMM(BPF_REG_2, offsetof(struct cpu, frames)),
	     MOVE_IMM(BPF_REG_3, sizeof(((struct cpu *)0)->frames)), MOVE_IMM(BPF_REG_4, 0),
	     CALL(BPF_FUNC_get_stack));
	some = jump(program, GO_IF_IMM(BPF_JSGE, BPF_REG_0, 0));
	EMIT(program, MOVE_IMM(BPF_REG_0, 0));
	land(program, some);
	land(program, preempted);
	EMIT(program, MOVE(BPF_REG_5, BPF_REG_0), ADD_IMM(BPF_REG_5, sizeof(struct cprof_told)));
	emit_tell(program, perf->bpf_outputs);
	EMIT(program, CALL(BPF_FUNC_ktime_get_ns), ALU(BPF_SUB, BPF_REG_0, BPF_REG_8),
	     ALU_IMM(BPF_LSH, BPF_REG_0, CPROF_WAIT_SPENT),
	     LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, flags)),
	     ALU(BPF_OR, BPF_REG_1, BPF_REG_0),
	     STORE64(BPF_REG_6, offsetof(struct entry, flags), BPF_REG_1), MOVE_IMM(BPF_REG_0, 0),
	     EXIT);
}

/* What is to be told and goes with no sample. */
static void emit_rest(struct program *program, const struct cprof_waits *waits)
{
	EMIT(program, LOAD64_AT(BPF_REG_1, BPF_REG_10, AT_KEPT), JUMP_IF_ZERO(BPF_REG_1, DROP),
	     MOVE_IMM(BPF_REG_5, sizeof(struct cprof_told)));
	emit_tell(program, waits->events);
}

int cprof_waits_program(const struct cprof_perf *perf)
{
	struct program program = {
		.type = perf->waits->raw ? BPF_PROG_TYPE_RAW_TRACEPOINT : BPF_PROG_TYPE_TRACEPOINT,
	};
	size_t is_new;
	size_t same;
	size_t begun;
	size_t dead;
	size_t out;

	emit_start(&program, perf);
	emit_lookup(&program, perf->waits->threads, AT_KEY);
	is_new = jump(&program, GO_IF_IMM(BPF_JEQ, BPF_REG_0, 0));
	EMIT(&program, MOVE(BPF_REG_6, BPF_REG_0),
	     LOAD64_AT(BPF_REG_1, BPF_REG_6, offsetof(struct entry, task)),
	     LOAD64_AT(BPF_REG_2, BPF_REG_10, AT_TASK));
	same = jump(&program, GO_IF(BPF_JEQ, BPF_REG_1, BPF_REG_2));
	land(&program, is_new);
	emit_new(&program, perf);
	begun = jump(&program, GO);
	land(&program, same);
	emit_account(&program);
	land(&program, begun);
	emit_out(&program, perf->waits, &dead);
	emit_share(&program);
	out = emit_choice(&program);
	emit_sample(&program, perf);
	land(&program, dead);
	land(&program, out);
	emit_rest(&program, perf->waits);
	return cprof_bpf_load(&program, 0);
}

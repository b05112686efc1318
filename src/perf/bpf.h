/* SPDX-License-Identifier: MIT
 *
 * BPF programs, which are small enough to be written by hand, and maps.
 */
#ifndef CPROF_PERF_BPF_H
#define CPROF_PERF_BPF_H

#include "private.h"
#include <linux/bpf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* The order of fields is that of struct bpf_insn. */
#define INSN(code, dst, src, off, imm) ((struct bpf_insn){code, dst, src, off, imm})
#define MOVE(dst, src)                 INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOVE_IMM(dst, imm)             INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ALU(op, dst, src)              INSN(BPF_ALU64 | (op) | BPF_X, dst, src, 0, 0)
#define ALU_IMM(op, dst, imm)          INSN(BPF_ALU64 | (op) | BPF_K, dst, 0, 0, imm)
#define ADD_IMM(dst, imm)              ALU_IMM(BPF_ADD, dst, imm)
#define AND_IMM(dst, imm)              ALU_IMM(BPF_AND, dst, imm)
#define LOAD32(dst, src, off)          INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, off, 0)
#define LOAD64_AT(dst, src, off)       INSN(BPF_LDX | BPF_MEM | BPF_DW, dst, src, off, 0)
#define STORE32(dst, off, src)         INSN(BPF_STX | BPF_MEM | BPF_W, dst, src, off, 0)
#define STORE64(dst, off, src)         INSN(BPF_STX | BPF_MEM | BPF_DW, dst, src, off, 0)
#define STORE64_IMM(dst, off, imm)     INSN(BPF_ST | BPF_MEM | BPF_DW, dst, 0, off, imm)
#define CALL(helper)                   INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define EXIT                           INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* Jumps, to be landed or with the offset DROP. */
#define GO                      INSN(BPF_JMP | BPF_JA, 0, 0, 0, 0)
#define GO_IF(op, dst, src)     INSN(BPF_JMP | (op) | BPF_X, dst, src, 0, 0)
#define GO_IF_IMM(op, dst, imm) INSN(BPF_JMP | (op) | BPF_K, dst, 0, 0, imm)
#define JUMP_IF_ZERO(dst, off)  INSN(BPF_JMP | BPF_JEQ | BPF_K, dst, 0, off, 0)
#define JUMP_IF_SET(dst, off)   INSN(BPF_JMP | BPF_JNE | BPF_K, dst, 0, off, 0)
/* A 64-bit constant takes two; `kind` BPF_PSEUDO_MAP_FD makes it a map. */
#define LOAD64(dst, kind, value)                                                                   \
	INSN(BPF_LD | BPF_DW | BPF_IMM, dst, kind, 0, (int32_t)(uint32_t)(value)),                 \
		INSN(0, 0, 0, 0, (int32_t)(uint32_t)((uint64_t)(value) >> 32))
#define LOAD_MAP(dst, map) LOAD64(dst, BPF_PSEUDO_MAP_FD, map)

/* A program being put together. Ids lie at the frame's end as in struct bpf_pidns_info: thread,
 * then process. A jump to where the sample is dropped has the offset DROP until it is loaded. */
#define PROGRAM_MAX 512
#define DROP        (-1)
#define AT_PID      (-8 + (int)offsetof(struct bpf_pidns_info, tgid))

struct program {
	struct bpf_insn insns[PROGRAM_MAX];
	size_t count;
	enum bpf_prog_type type;
};

#define EMIT(program, ...)                                                                         \
	emit(program, (const struct bpf_insn[]){__VA_ARGS__},                                      \
	     sizeof((const struct bpf_insn[]){__VA_ARGS__}) / sizeof(struct bpf_insn))

static inline void emit(struct program *program, const struct bpf_insn *insns, size_t count)
{
	if (count > CPROF_COUNT(program->insns) - program->count)
		abort();
	memcpy(program->insns + program->count, insns, count * sizeof(*insns));
	program->count += count;
}

/* A jump to where it is landed later. */
static inline size_t jump(struct program *program, struct bpf_insn insn)
{
	emit(program, &insn, 1);
	return program->count - 1;
}

static inline void land(struct program *program, size_t jump)
{
	program->insns[jump].off = (int16_t)(program->count - jump - 1);
}

/* Whether our process ids are those of the initial namespace, as most of the kernel has them. */
bool cprof_bpf_is_initial(void);
/* Drops what is of a process that is none of the targets. Ids are those of the target's own
 * namespace; r1 to r5 are lost. */
void cprof_bpf_emit_filter(struct program *program, const struct cprof_perf *perf);
/* Has the event of this CPU in a map tell the r5 bytes at r4; the context is r7. r0 is then 0 if
 * there was room. */
void cprof_bpf_emit_output(struct program *program, int map);
/* Ends the program, with `kept` told where nothing is dropped, and loads it; -1 with errno. */
int cprof_bpf_load(struct program *program, int kept);
/* Runs it at a tracepoint until the link is closed; -1 with errno. */
int cprof_bpf_attach(int program, const char *tracepoint);

/* Why it was refused. */
struct cprof_error *cprof_bpf_denied(int errnum);

/* Descriptors, or -1 with errno. */
int cprof_bpf_map(enum bpf_map_type type, uint32_t key_size, uint32_t value_size, uint32_t entries);
/* An event for every CPU that has a ring. */
int cprof_bpf_events(const struct cprof_perf *perf);
int cprof_bpf_get(int map, const void *key, void *value);
int cprof_bpf_set(int map, const void *key, const void *value);
void cprof_bpf_delete(int map, const void *key);
void cprof_bpf_drop(int *descriptor);

#endif

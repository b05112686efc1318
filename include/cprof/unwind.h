/* SPDX-License-Identifier: MIT
 *
 * From (registers, stack bytes, address space) to program counters and how the stack ended.
 */
#ifndef CPROF_UNWIND_H
#define CPROF_UNWIND_H

#include <cprof/error.h>
#include <cprof/image.h>
#include <cprof/space.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Registers by DWARF number; value[16] is the pc. Bit i of `known`: value[i] is known. */
struct cprof_regs {
	uint64_t value[CPROF_REGISTERS];
	uint32_t known;
	bool returned; /* the pc is a return address, not code that runs */
};
#define CPROF_REG_BP 6
#define CPROF_REG_SP 7
#define CPROF_REG_PC 16

/* Target memory: a snapshot of the stack, and optionally a way to read anything else. */
struct cprof_memory {
	const uint8_t *stack; /* bytes from `stack_start` upwards */
	uint64_t stack_start; /* their address in the target */
	size_t stack_length;
	/* Copies `length` bytes or returns false; NULL: nothing but the stack can be read. */
	bool (*read)(void *context, uint64_t address, void *buffer, size_t length);
	void *context;
};

/* How a stack ended. All but COMPLETE become marker frames in a profile. */
enum cprof_end {
	CPROF_END_COMPLETE,  /* the thread's start, or an undefined return address */
	CPROF_END_TRUNCATED, /* ran off the captured bytes, or into the frame limit */
	CPROF_END_NO_CFI,    /* no unwind rule and no plausible guess */
	CPROF_END_CORRUPT,   /* rules led to an implausible frame */
	CPROF_ENDS
};
const char *cprof_end_name(enum cprof_end end);   /* "complete", … as in --stats */
const char *cprof_end_marker(enum cprof_end end); /* "[truncated stack]", …; NULL for complete */

/* One frame, innermost first. For an exact frame (the innermost, or one that a signal
 * interrupted) the code at `pc` runs; otherwise `pc` is a return address and names are looked up
 * at pc - 1. */
struct cprof_frame {
	uint64_t pc;
	const struct cprof_region *region; /* NULL: outside any; lives until the space changes */
	bool exact;
};

static inline uint64_t cprof_frame_lookup_pc(const struct cprof_frame *frame)
{
	return frame->exact ? frame->pc : frame->pc - 1;
}

#define CPROF_FRAMES_SAMPLE 512
#define CPROF_FRAMES_DUMP   16384

/* The caller provides the room; a stack deeper than it ends TRUNCATED. */
struct cprof_stack {
	struct cprof_frame *frames;
	size_t capacity;
	size_t count;
	enum cprof_end end;
	uint64_t top; /* stack pointer of the last frame: how far the stack was needed */
};

/* The three ways of unwinding behind one table. */
struct cprof_unwinder;
struct cprof_unwinder_ops {
	const char *name; /* as --unwinder spells it */
	struct cprof_error *(*create)(struct cprof_space *space, struct cprof_unwinder **unwinder);
	/* Fills `stack`; never fails: problems show in stack->end. */
	void (*unwind)(struct cprof_unwinder *unwinder, const struct cprof_regs *regs,
		       const struct cprof_memory *memory, struct cprof_stack *stack);
	/* The address space has changed. */
	void (*flush)(struct cprof_unwinder *unwinder);
	void (*destroy)(struct cprof_unwinder *unwinder);
};
struct cprof_unwinder {
	const struct cprof_unwinder_ops *ops;
};

extern const struct cprof_unwinder_ops cprof_unwinder_cfi;
extern const struct cprof_unwinder_ops cprof_unwinder_fp;
extern const struct cprof_unwinder_ops cprof_unwinder_libunwind;
/* By name; NULL if there is none. */
const struct cprof_unwinder_ops *cprof_unwinder_find(const char *name);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the agent's memory says, read from outside, and what it is told. Head, lengths, stamps and
 * records may be anything and change at any moment: a pass ends at the head that was read when it
 * began, goes forward only and never past the ring's size; what makes no sense is counted and
 * skipped. Belongs to the attach floor.
 */
#ifndef CPROF_AGENT_RING_H
#define CPROF_AGENT_RING_H

#include <cprof/agent_abi.h>
#include <cprof/error.h>
#include <cprof/target.h>
#include <cprof/unwind.h>
#include <stdbool.h>
#include <stdint.h>

struct cprof_agent_ring {
	const uint64_t *head; /* the target's */
	uint64_t *shared_tail;
	const uint8_t *bytes;
	uint64_t size;        /* a power of two */
	uint64_t tail;        /* what has been consumed; the shared copy is only written */
	uint64_t published;   /* what the target knows of it */
	uint64_t limit;       /* the head, when the current pass began */
	uint32_t length;      /* of the record last handed out, consumed by the next call */
	uint64_t stuck_at;    /* the tail that an unfinished record holds back … */
	uint64_t stuck_ns;    /* … since then, */
	uint64_t stuck_limit; /* when the head was there */
	uint64_t malformed;
	uint64_t lost;
};

void cprof_agent_ring_init(struct cprof_agent_ring *ring, const uint64_t *head, uint64_t *tail,
			   const uint8_t *bytes, uint64_t size);
/* Begins a pass over what is there now; how full the ring is, 0 to 1. */
double cprof_agent_ring_begin(struct cprof_agent_ring *ring);
/* The next finished record of the pass, `*length` bytes (at least 8) within the ring, which may
 * change at any time; NULL: none. */
const uint8_t *cprof_agent_ring_next(struct cprof_agent_ring *ring, uint32_t *length);
/* The record last handed out made no sense. */
static inline void cprof_agent_ring_reject(struct cprof_agent_ring *ring)
{
	ring->malformed++;
	ring->lost++;
}

/* The registers of a record with a stack. */
void cprof_agent_registers(const struct cprof_agent_record *record, struct cprof_regs *regs);

/* Where threads have their stacks, told to the agent: it then reads them by plain loads. One for
 * all who read records of an agent. */
struct cprof_agent_bounds;
struct cprof_error *cprof_agent_bounds_create(struct cprof_agent_bounds **bounds);
void cprof_agent_bounds_destroy(struct cprof_agent_bounds *bounds);
/* Takes note of a record's thread. */
void cprof_agent_bounds_note(struct cprof_agent_bounds *bounds,
			     const struct cprof_agent_record *record);
/* Looks the noted ones up in the target's maps and tells the agent. */
void cprof_agent_bounds_publish(struct cprof_agent_bounds *bounds, struct cprof_target *target,
				struct cprof_agent_shared *shared);

/*
 * What accounting needs to make something of records: one for all who read those of an agent. The
 * first part is the caller's, the rest its own and 0 at first.
 */
struct cprof_agent_records {
	struct cprof_agent_shared *shared; /* not owned, as the following; hostile */
	struct cprof_space *space;
	struct cprof_modules *modules;
	struct cprof_unwinder *unwinder;
	struct cprof_agent_bounds *bounds; /* told of stacks; NULL: none is told */
	/* Whether a thread's records are wanted; NULL: all. */
	bool (*wanted)(void *context, pid_t tid);
	void *context;

	uint64_t generation; /* rises when the address space was looked at anew */
	uint64_t refreshed_ns;
	/* Of the record that was unwound last. */
	struct cprof_regs regs;
	struct cprof_memory memory;
	struct cprof_stack stack;
	struct cprof_frame frames[CPROF_FRAMES_SAMPLE];
	uint8_t bytes[CPROF_AGENT_STACK_MAX];
};

bool cprof_agent_records_want(const struct cprof_agent_records *records, uint32_t tid);
/* Takes note of where a record's thread has its stack. */
void cprof_agent_records_note(struct cprof_agent_records *records,
			      const struct cprof_agent_record *record);
/* At the end of a drain: tells the agent that we live, and of stacks that were noted. */
void cprof_agent_records_answer(struct cprof_agent_records *records);
/* The address space has changed. */
void cprof_agent_records_flush(struct cprof_agent_records *records);
/* Unwinds a copy of the record's `stack_length` bytes, since the ring's may change: `stack` is what
 * came of it. How long that took, ns. */
uint64_t cprof_agent_records_unwind(struct cprof_agent_records *records,
				    const struct cprof_agent_record *record, const uint8_t *bytes);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Inside the blob: freestanding, position-independent, without writable data. The areas of
 * agent_abi.h lie at fixed distances from the text; agent.ld gives them their names.
 */
#ifndef CPROF_AGENT_AGENT_H
#define CPROF_AGENT_AGENT_H

#include <cprof/agent_abi.h>
#include <stdbool.h>
#include <stddef.h>

#pragma GCC visibility push(hidden)

extern const char cprof_agent_base[];
extern const struct cprof_agent_config cprof_agent_config_page;
extern struct cprof_agent_control cprof_agent_control_page;
extern struct cprof_agent_private cprof_agent_private_area;
extern struct cprof_agent_shared cprof_agent_shared_area;

/* These areas come and go. The compiler takes objects for always readable, and would read them
 * before what is asked first: it must not know what the pointers lead to. */
#define HIDDEN_AREA(type, name)                                                                    \
	static inline struct type *name##_hidden(void)                                             \
	{                                                                                          \
		struct type *area = &name;                                                         \
                                                                                                   \
		__asm__("" : "+r"(area));                                                          \
		return area;                                                                       \
	}
HIDDEN_AREA(cprof_agent_control, cprof_agent_control_page)
HIDDEN_AREA(cprof_agent_private, cprof_agent_private_area)
HIDDEN_AREA(cprof_agent_shared, cprof_agent_shared_area)

#define CONFIG  (&cprof_agent_config_page)
#define CONTROL (cprof_agent_control_page_hidden())
#define PRIVATE (cprof_agent_private_area_hidden())
#define SHARED  (cprof_agent_shared_area_hidden())

#define LOAD(pointer)         __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
#define STORE(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)
#define ADD(pointer, value)   __atomic_add_fetch(pointer, value, __ATOMIC_ACQ_REL)
#define SWAP(pointer, expected, value)                                                             \
	__atomic_compare_exchange_n(pointer, expected, value, false, __ATOMIC_ACQ_REL,             \
				    __ATOMIC_ACQUIRE)

/* What the stub of hooks.c leaves on the stack: in the order of its pushes, last first. */
struct frame {
	uint64_t arguments[6];
	uint64_t rbx;
	uint64_t r12;
	uint64_t r13;
	uint64_t r14;
	uint64_t r15;
	uint64_t index; /* of the original: bank * functions + function, then those of locks */
	uint64_t result;
	uint64_t unused;
	uint64_t rbp;
	uint64_t pc;
	uint64_t above[]; /* the caller's sp is its address */
};

/* One call of a hook that is looked at. */
struct call {
	struct frame *frame;
	struct cprof_agent_shard *shard;
	struct cprof_agent_shard *place; /* whose `owner` says that we are inside; NULL: counted */
	bool claimed;                    /* it was free before */
	uint32_t index;                  /* of the shard */
	uint32_t bank;
	uint32_t function;
	bool exact;
	uint64_t thread_pointer;
	uint64_t sp;   /* the caller's */
	uint64_t old;  /* the block to be moved, 0 none */
	uint64_t size; /* bytes asked for */
	uint64_t rate; /* with which it was sampled, 0: it was not */
};

/* --- system calls: raw, errno is not touched ----------------------------------------------- */

enum {
	SYS_CLOSE = 3,
	SYS_MMAP = 9,
	SYS_MPROTECT = 10,
	SYS_MUNMAP = 11,
	SYS_SCHED_YIELD = 24,
	SYS_MADVISE = 28,
	SYS_GETTID = 186,
	SYS_CLOCK_GETTIME = 228,
	SYS_PROCESS_VM_READV = 310,
};
#define CLOCK_FINE   1 /* CLOCK_MONOTONIC */
#define CLOCK_COARSE 6 /* CLOCK_MONOTONIC_COARSE */

static inline long system_call(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
			       uint64_t e, uint64_t f)
{
	long result;
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

struct vector {
	uint64_t base;
	uint64_t length;
};

static inline long read_memory(uint32_t tid, const struct vector *to, const struct vector *from,
			       size_t from_count)
{
	return system_call(SYS_PROCESS_VM_READV, tid, (uint64_t)to, 1, (uint64_t)from, from_count,
			   0);
}

/* 0: the clock may not be asked. */
static inline uint64_t clock_ns(uint32_t clock, uint32_t forbidden)
{
	int64_t time[2];

	if (forbidden & CPROF_AGENT_FORBID_CLOCK ||
	    system_call(SYS_CLOCK_GETTIME, clock, (uint64_t)time, 0, 0, 0, 0) != 0)
		return 0;
	return (uint64_t)time[0] * 1000000000 + (uint64_t)time[1];
}
static inline uint64_t now_ns(uint32_t forbidden)
{
	return clock_ns(CLOCK_COARSE, forbidden);
}

/* Waits while the word has this value, for about so long at most. Never sleeps: a call that the
 * kernel would restart after a signal must not be left behind on a borrowed thread. */
void cprof_agent_linger(const uint64_t *word, uint64_t value, uint64_t ns, uint32_t forbidden);

/* --- the other files ----------------------------------------------------------------------- */

/* live.c. An entry of the live table for this address, BUSY; NULL: no room. */
uint64_t *cprof_agent_live_claim(uint64_t address);
void cprof_agent_live_publish(uint64_t *key, uint64_t id, uint64_t size, uint64_t rate);
void cprof_agent_live_release(uint64_t *key);
/* The entry is BUSY afterwards; NULL: this address is not sampled. */
uint64_t *cprof_agent_live_take(uint64_t address);
void cprof_agent_live_restore(uint64_t *key);

/* slow.c. Begins the work of a hook for the calling thread, false when it is switched off; from
 * here to cprof_agent_leave() nothing is unmapped. */
bool cprof_agent_enter(struct call *call, struct frame *frame);
void cprof_agent_leave(struct call *call);
/* Whether the profiler is gone: killed, or stopped for long. */
bool cprof_agent_is_silent(void);
/* seen.c. Whether this call has a stack of the table `seen`, its number; `room`: bytes from the
 * stack pointer upwards that a record would carry. */
bool cprof_agent_seen_find(const struct call *call, uint64_t room, uint32_t *stack);

/* ring.c. A sample of the call that gave `address`; `key`: its live entry, NULL: none. */
void cprof_agent_ring_alloc(struct call *call, uint64_t address, uint64_t *key);
void cprof_agent_ring_short(struct call *call, uint16_t type, uint64_t address);
/* A WAIT or UNLOCK record with the caller's stack; false: there was no room. */
bool cprof_agent_ring_lock(struct call *call, uint16_t type, uint64_t id, uint64_t lock);
void cprof_agent_ring_got(struct call *call, const struct cprof_agent_got *got);
uint32_t cprof_agent_tid(const struct call *call);

/* gap.c. Bytes that go by before the next sample, drawn with the shard's generator. */
uint64_t cprof_agent_gap_draw(struct cprof_agent_shard *shard, uint32_t index, uint64_t rate);
/* 64 bits of that generator. */
uint64_t cprof_agent_random(struct cprof_agent_shard *shard, uint32_t index);

/* locks.c. As cprof_agent_slow(), for the hooks of locks. */
bool cprof_agent_lock_slow(struct frame *frame, uint32_t which);

#pragma GCC visibility pop

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the profiler and the agent inside a target share: layout, not behaviour. The agent is a
 * freestanding blob (attach/agent/); this file includes nothing but fixed-width integers.
 *
 * One range of addresses, chosen by the profiler in a gap of the target's address space, less than
 * 4 GiB from the allocator if there is one: jumps over more were measured to cost 1.7 ns a pair.
 * File offsets of the memfd "cprof-agent" equal offsets in the range.
 *
 *  offset    mapping                              content
 *  ┌───────┬────────────────────────────────────┬──────────────────────────────────────────────┐
 *  │ 0     │ memfd, private, r-x                │ header, hooks, routine                  TEXT │
 *  │ 0xc000│ memfd, private, r-- (of `text`)    │ originals; written through the memfd  CONFIG │
 *  │ 0xe000│ anonymous, private, rw-, WIPEONFORK│ on/off: what a fork must not keep    CONTROL │
 *  ├───────┼────────────────────────────────────┼──────────────────────────────────────────────┤
 *  │0x10000│ anonymous, private, rw-, WIPEONFORK│ shards, filter                       PRIVATE │
 *  │0x60000│ memfd, shared, rw-                 │ header, orders, live table, ring      SHARED │
 *  └───────┴────────────────────────────────────┴──────────────────────────────────────────────┘
 *
 * Who maps what: the profiler maps TEXT and CONFIG by remote calls (MAP_PRIVATE of the memfd at
 * file offset 0; one mapping r-x, or two), after it has written the blob and the config through the
 * memfd and has given that its size. START maps CONTROL (unless it is there already), PRIVATE and
 * SHARED (MADV_DONTFORK), each with MAP_FIXED_NOREPLACE, and closes the memfd.
 *
 * The upper part stays for ever, because nobody can know that no pointer to a hook was kept; it is
 * adopted by the next attach. It keeps the memfd's file alive: a detach truncates that to
 * CPROF_AGENT_SHARED after the unmapping, or the ring's pages stay allocated.
 *
 * The lower part is unmapped by a detach once no thread is inside. The shards' word for that does
 * not cover the few instructions of a hook between reading `on` and using a shard or the filter:
 * UNMAP is safe only when, after RESTORE, every `owner` and `inside` is 0 and every thread has been
 * seen to be blocked in a system call or to have used CPU time since (or to be stopped with its pc
 * outside of TEXT).
 *
 * A forked child reads 0 in CONTROL: its hooks pass everything on and touch nothing below.
 *
 * Everything in SHARED may be overwritten by the target: the profiler copies, then validates.
 */
#ifndef CPROF_AGENT_ABI_H
#define CPROF_AGENT_ABI_H

#include <stdint.h>

#define CPROF_AGENT_MAGIC   0x746e656761667063ull /* "cpfagent" */
#define CPROF_AGENT_VERSION 2
#define CPROF_AGENT_MEMFD   "cprof-agent" /* in maps: "/memfd:cprof-agent (deleted)" */

#define CPROF_AGENT_TEXT         0x0u
#define CPROF_AGENT_CONFIG       0xc000u
#define CPROF_AGENT_CONTROL      0xe000u
#define CPROF_AGENT_RESIDENT     0x10000u /* what stays: 64 KiB */
#define CPROF_AGENT_PRIVATE      0x10000u
#define CPROF_AGENT_PRIVATE_SIZE 0x50000u
#define CPROF_AGENT_SHARED       0x60000u

/* --- hooks --------------------------------------------------------------------------------- */

/*
 * How a function's arguments are read. SIZE1, SIZE2: allocates so many bytes as its first or second
 * argument says; COUNT: first times second; RESIZE: first argument moved to second bytes; RECOUNT:
 * first moved to second times third; POSIX: result through the first, size the third; FREE: the
 * first is freed.
 */
enum cprof_agent_shape {
	CPROF_AGENT_SIZE1,
	CPROF_AGENT_SIZE2,
	CPROF_AGENT_COUNT,
	CPROF_AGENT_RESIZE,
	CPROF_AGENT_RECOUNT,
	CPROF_AGENT_POSIX,
	CPROF_AGENT_FREE,
};

/* X(identifier, symbol, shape, the variant that does not throw or the same): C, C++ (Itanium ABI
 * mangling), C23, jemalloc's own. */
#define CPROF_AGENT_FUNCTIONS(X)                                                                   \
	X(malloc, "malloc", SIZE1, malloc)                                                         \
	X(calloc, "calloc", COUNT, calloc)                                                         \
	X(realloc, "realloc", RESIZE, realloc)                                                     \
	X(reallocarray, "reallocarray", RECOUNT, reallocarray)                                     \
	X(free, "free", FREE, free)                                                                \
	X(cfree, "cfree", FREE, cfree)                                                             \
	X(posix_memalign, "posix_memalign", POSIX, posix_memalign)                                 \
	X(aligned_alloc, "aligned_alloc", SIZE2, aligned_alloc)                                    \
	X(memalign, "memalign", SIZE2, memalign)                                                   \
	X(valloc, "valloc", SIZE1, valloc)                                                         \
	X(pvalloc, "pvalloc", SIZE1, pvalloc)                                                      \
	X(free_sized, "free_sized", FREE, free_sized)                                              \
	X(free_aligned_sized, "free_aligned_sized", FREE, free_aligned_sized)                      \
	X(new, "_Znwm", SIZE1, new_nothrow)                                                        \
	X(new_nothrow, "_ZnwmRKSt9nothrow_t", SIZE1, new_nothrow)                                  \
	X(new_aligned, "_ZnwmSt11align_val_t", SIZE1, new_aligned_nothrow)                         \
	X(new_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t", SIZE1, new_aligned_nothrow)   \
	X(newa, "_Znam", SIZE1, newa_nothrow)                                                      \
	X(newa_nothrow, "_ZnamRKSt9nothrow_t", SIZE1, newa_nothrow)                                \
	X(newa_aligned, "_ZnamSt11align_val_t", SIZE1, newa_aligned_nothrow)                       \
	X(newa_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t", SIZE1, newa_aligned_nothrow) \
	X(delete, "_ZdlPv", FREE, delete)                                                          \
	X(delete_sized, "_ZdlPvm", FREE, delete_sized)                                             \
	X(delete_nothrow, "_ZdlPvRKSt9nothrow_t", FREE, delete_nothrow)                            \
	X(delete_aligned, "_ZdlPvSt11align_val_t", FREE, delete_aligned)                           \
	X(delete_sized_aligned, "_ZdlPvmSt11align_val_t", FREE, delete_sized_aligned)              \
	X(delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", FREE,                     \
	  delete_aligned_nothrow)                                                                  \
	X(deletea, "_ZdaPv", FREE, deletea)                                                        \
	X(deletea_sized, "_ZdaPvm", FREE, deletea_sized)                                           \
	X(deletea_nothrow, "_ZdaPvRKSt9nothrow_t", FREE, deletea_nothrow)                          \
	X(deletea_aligned, "_ZdaPvSt11align_val_t", FREE, deletea_aligned)                         \
	X(deletea_sized_aligned, "_ZdaPvmSt11align_val_t", FREE, deletea_sized_aligned)            \
	X(deletea_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t", FREE,                    \
	  deletea_aligned_nothrow)                                                                 \
	X(mallocx, "mallocx", SIZE1, mallocx)                                                      \
	X(rallocx, "rallocx", RESIZE, rallocx)                                                     \
	X(dallocx, "dallocx", FREE, dallocx)                                                       \
	X(sdallocx, "sdallocx", FREE, sdallocx)

enum cprof_agent_function {
#define CPROF_AGENT_FUNCTION_(id, symbol, shape, quiet) CPROF_AGENT_F_##id,
	CPROF_AGENT_FUNCTIONS(CPROF_AGENT_FUNCTION_)
#undef CPROF_AGENT_FUNCTION_
		CPROF_AGENT_FUNCTION_COUNT
};

/* Several allocators may be used by one process: every hook exists once a bank, and each bank has
 * its own originals. */
#define CPROF_AGENT_BANKS 4

/*
 * Locks. MUTEX, READ, WRITE, SPIN: may wait for the lock that the first argument points to; UNLOCK:
 * lets it go; COND: lets the mutex go that the second argument points to, and tail-jumps: a hook
 * never has a frame below a condition wait, which may be cancelled.
 */
enum cprof_agent_lock_shape {
	CPROF_AGENT_MUTEX,
	CPROF_AGENT_READ,
	CPROF_AGENT_WRITE,
	CPROF_AGENT_SPIN,
	CPROF_AGENT_UNLOCK,
	CPROF_AGENT_COND,
};

/* X(identifier, symbol, shape) */
#define CPROF_AGENT_LOCKS(X)                                                                       \
	X(mutex_lock, "pthread_mutex_lock", MUTEX)                                                 \
	X(mutex_timedlock, "pthread_mutex_timedlock", MUTEX)                                       \
	X(mutex_clocklock, "pthread_mutex_clocklock", MUTEX)                                       \
	X(mutex_unlock, "pthread_mutex_unlock", UNLOCK)                                            \
	X(rwlock_rdlock, "pthread_rwlock_rdlock", READ)                                            \
	X(rwlock_timedrdlock, "pthread_rwlock_timedrdlock", READ)                                  \
	X(rwlock_clockrdlock, "pthread_rwlock_clockrdlock", READ)                                  \
	X(rwlock_wrlock, "pthread_rwlock_wrlock", WRITE)                                           \
	X(rwlock_timedwrlock, "pthread_rwlock_timedwrlock", WRITE)                                 \
	X(rwlock_clockwrlock, "pthread_rwlock_clockwrlock", WRITE)                                 \
	X(rwlock_unlock, "pthread_rwlock_unlock", UNLOCK)                                          \
	X(spin_lock, "pthread_spin_lock", SPIN)                                                    \
	X(spin_unlock, "pthread_spin_unlock", UNLOCK)                                              \
	X(mtx_lock, "mtx_lock", MUTEX)                                                             \
	X(mtx_timedlock, "mtx_timedlock", MUTEX)                                                   \
	X(mtx_unlock, "mtx_unlock", UNLOCK)                                                        \
	X(cond_wait, "pthread_cond_wait", COND)                                                    \
	X(cond_timedwait, "pthread_cond_timedwait", COND)                                          \
	X(cond_clockwait, "pthread_cond_clockwait", COND)                                          \
	X(cnd_wait, "cnd_wait", COND)                                                              \
	X(cnd_timedwait, "cnd_timedwait", COND)

enum cprof_agent_lock {
#define CPROF_AGENT_LOCK_(id, symbol, shape) CPROF_AGENT_L_##id,
	CPROF_AGENT_LOCKS(CPROF_AGENT_LOCK_)
#undef CPROF_AGENT_LOCK_
		CPROF_AGENT_LOCK_COUNT
};

/* How a C library lays out its locks: a set of hooks each. */
enum cprof_agent_layout { CPROF_AGENT_GLIBC, CPROF_AGENT_MUSL, CPROF_AGENT_LAYOUTS };

/* --- text: at CPROF_AGENT_TEXT, written by the build --------------------------------------- */

struct cprof_agent_header {
	uint64_t magic;
	uint32_t version;
	uint32_t text_size;
	uint64_t build; /* a hash of the blob, set by the profiler: equal blobs are exchangeable */
	uint32_t run;   /* offset of the routine, see struct cprof_agent_call */
	uint32_t swap;  /* offset of the one instruction that writes slots: a fault at it … */
	uint32_t skip;  /* … is answered by going on here */
	uint32_t reserved;
	uint32_t hooks[CPROF_AGENT_BANKS][CPROF_AGENT_FUNCTION_COUNT]; /* offsets of the hooks */
	uint32_t lock_hooks[CPROF_AGENT_LAYOUTS][CPROF_AGENT_LOCK_COUNT];
};

/* --- config: at CPROF_AGENT_CONFIG, read-only in the target -------------------------------- */

struct cprof_agent_config {
	/* 0: none; never changed once set, since a pointer to the hook may have been kept */
	uint64_t originals[CPROF_AGENT_BANKS][CPROF_AGENT_FUNCTION_COUNT];
	uint64_t lock_originals[CPROF_AGENT_LAYOUTS][CPROF_AGENT_LOCK_COUNT];
};

/* --- control: at CPROF_AGENT_CONTROL ------------------------------------------------------- */

struct cprof_agent_control {
	uint64_t on; /* address of PRIVATE while hooks are to sample, 0: pass everything on */
	uint64_t seed;
	uint64_t busy; /* a routine is at work: no unmapping, even if who started it has died */
};

/* --- private: at CPROF_AGENT_PRIVATE ------------------------------------------------------- */

#define CPROF_AGENT_SHARD_BITS 12
#define CPROF_AGENT_SHARDS     (1u << CPROF_AGENT_SHARD_BITS)
/* Entry = address >> SHIFT, modulo the size: blocks that lie together share cache lines of it, and
 * the share of blocks that lie beside a sampled one depends on the rate only. */
#define CPROF_AGENT_FILTER_SHIFT 10
#define CPROF_AGENT_FILTER       (1u << 16)
/* Fibonacci hashing: shard = (thread pointer * HASH) >> (64 - SHARD_BITS); bucket
 * of the live table likewise from the address. */
#define CPROF_AGENT_HASH 0x9e3779b97f4a7c15ull

/* One cache line a thread, found by hashing its thread pointer; two threads may share one. */
struct cprof_agent_shard {
	uint64_t countdown; /* bytes until the next sample; a borrow means: decide */
	uint64_t owner; /* thread pointer whose call is inside the slow path, 0 none; stays where
			 * a handler left that by longjmp, or its thread died in it: then there
			 * is no UNMAP */
	uint64_t guard; /* while that call is in an original, its stack pointer: deeper ones are
			 * not counted again. 0: it is not */
	uint64_t random;
	uint32_t epoch;  /* differs from the shared epoch: draw a first gap */
	uint32_t inside; /* calls inside the slow path now that found no shard to own */
	uint32_t tid;    /* of `tid_owner`, 0 not known */
	uint32_t ticks;  /* rate 1: calls, so that not each looks at the clock */
	uint64_t tid_owner;
	uint64_t rate; /* with which `countdown` was drawn: that of the next sample */
};

struct cprof_agent_private {
	struct cprof_agent_shard shards[CPROF_AGENT_SHARDS];
	/* Live samples that hash here, 255 sticks; rate 1: START sets all to 255, so that every
	 * free takes the slow path. */
	uint8_t filter[CPROF_AGENT_FILTER];
};

/* --- shared: at CPROF_AGENT_SHARED --------------------------------------------------------- */

/* A slot to change; the list doubles as the journal that a later detach reads. */
struct cprof_agent_order {
	uint64_t slot;   /* address of the 8 bytes */
	uint64_t before; /* expected, and restored */
	uint64_t hook;   /* its replacement */
	uint32_t state;  /* enum cprof_agent_order_state */
	uint32_t relro;  /* 1: its page is read-only and must be made writable for the moment */
};
enum cprof_agent_order_state {
	CPROF_AGENT_ORDER_NONE,
	CPROF_AGENT_ORDER_WANTED,
	CPROF_AGENT_ORDER_DONE,
	CPROF_AGENT_ORDER_CHANGED,  /* the slot held something else: left alone */
	CPROF_AGENT_ORDER_FAILED,   /* the page is gone or cannot be made writable */
	CPROF_AGENT_ORDER_RESTORED, /* it holds `before` again */
};
#define CPROF_AGENT_ORDERS 16384u

/* The live table: sampled allocations that have not been freed. An address is looked for in its
 * bucket only; a full bucket loses the sample, counted in `table_full`. */
#define CPROF_AGENT_BUCKET_BITS 12
#define CPROF_AGENT_BUCKETS     (1u << CPROF_AGENT_BUCKET_BITS)
#define CPROF_AGENT_BUCKET_WAYS 16u
#define CPROF_AGENT_KEY_BUSY    1ull /* set in a key while its entry is being written */

struct cprof_agent_bucket {
	/* Addresses, 0: free. With BUSY: not live yet, or a realloc is under way. A reader takes
	 * key, entry, and key again; since an address may come back in between, it also checks that
	 * the record `id` has this address, size and rate. */
	uint64_t keys[CPROF_AGENT_BUCKET_WAYS];
	struct cprof_agent_live {
		uint64_t id;   /* of the record that carries its stack */
		uint64_t size; /* bytes, as asked for */
		uint64_t rate; /* the mean gap it was sampled with */
	} entries[CPROF_AGENT_BUCKET_WAYS];
};

/*
 * Contention. A thread that finds its lock taken is timed, one in `every` of its bucket's: it then
 * has an entry in the bucket until it has the lock. Whoever unlocks while there are entries for the
 * lock is charged with what they have waited since the last who was (`charged_ns`), and leaves its
 * record's id. Where a lock is let go and taken again by others over and over while somebody waits
 * for it, charging each of them would cost more than the lock: an entry that has been charged is
 * left alone for SLICE ns, one of many for a PART of its wait (who unlocks next held the lock with
 * a chance like the time it did), and while nobody sleeps on a mutex. `waiting` of a bucket counts
 * entries never charged (lower 8 bits) and the others: an unlock looks there only.
 */
#define CPROF_AGENT_LOCK_BUCKETS 512u
#define CPROF_AGENT_LOCK_SHIFT   4 /* bucket = (address >> SHIFT) % BUCKETS */
#define CPROF_AGENT_LOCK_WAYS    14u
#define CPROF_AGENT_LOCK_TIMED   64u /* by so many the agent doubles `every` by itself */
#define CPROF_AGENT_LOCK_EVERY   (1u << 20)
#define CPROF_AGENT_LOCK_SLICE   100000ull
#define CPROF_AGENT_LOCK_PART    8u
#define CPROF_AGENT_LOCK_BUSY    1ull
#define CPROF_AGENT_ONE_FRESH    1u /* in `waiting` */
#define CPROF_AGENT_ONE_CHARGED  0x100u
#define CPROF_AGENT_LOCK_LEFT    UINT64_MAX /* in `charged_ns`: the thread has the lock */

struct cprof_agent_lock_rate {
	uint32_t every; /* 0: none is timed */
	uint32_t timed; /* since the profiler set it to 0 */
};
struct cprof_agent_wait {
	uint64_t lock; /* its address, 0: free; with BUSY: being written */
	uint64_t id;   /* of the WAIT record */
	uint64_t began_ns;
	uint64_t charged_ns;
	uint64_t unlock; /* id of the UNLOCK record charged last, 0 none */
	uint32_t weight; /* `every` when it was chosen */
	uint32_t state;  /* CPROF_AGENT_WAIT_STATE: whoever ends a wait swaps it for OVER */
	/* Where that thread calls again from no deeper, a handler left the wait by longjmp. */
	uint64_t thread_pointer;
	uint64_t sp;
};
enum cprof_agent_wait_state {
	CPROF_AGENT_WAIT_FRESH,
	CPROF_AGENT_WAIT_CHARGED,
	CPROF_AGENT_WAIT_OVER,
};
/* With part of the id: the profiler ends waits whose thread is gone, and never the next. */
#define CPROF_AGENT_WAIT_STATE(id, state) ((uint32_t)((id) << 2) | (uint32_t)(state))
#define CPROF_AGENT_WAIT_MASK             3u

#define CPROF_AGENT_LOCK_RING_SIZE (512u << 10)

/*
 * Rate 1: stacks that the profiler has unwound before, in place of the live table, which that rate
 * has no use for. A call with this pc and sp, the same in those registers that are in `mask`, and
 * the same words where its unwinding looked, has the same stack: its record only says which (SEEN).
 *
 * The profiler alone writes: an entry before it is linked into its bucket, and never again until
 * all are forgotten: sequence + 1 (odd), heads cleared, sequence + 2. A reader that finds another
 * sequence afterwards may have compared anything, and has found nothing.
 */
struct cprof_agent_seen {
	uint64_t pc;
	uint64_t sp;
	uint64_t registers[6]; /* rbx rbp r12 r13 r14 r15 */
	uint32_t mask;         /* bit i: registers[i] matters */
	uint32_t next;         /* in its bucket: as in `heads` */
	uint32_t stack;        /* the profiler's number of it */
	uint32_t count;        /* of words */
	uint32_t length;       /* bytes of stack that there must be … */
	uint32_t whole;        /* … 1: so many that a record could carry, neither more nor less */
	uint64_t words[]; /* value in the lower 48 bits, above it its place: distance from sp / 8 */
};
#define CPROF_AGENT_SEEN_BITS 13
#define CPROF_AGENT_SEEN_AREA                                                                      \
	(CPROF_AGENT_BUCKETS * sizeof(struct cprof_agent_bucket) - (4u << CPROF_AGENT_SEEN_BITS))
#define CPROF_AGENT_SEEN_CHAIN 16u /* entries of a bucket that are looked at */

struct cprof_agent_seen_table {
	/* of entries: offset in the area / 8 + 1, 0: none; bucket: from pc + sp * 3 by HASH */
	uint32_t heads[1u << CPROF_AGENT_SEEN_BITS];
	uint64_t area[CPROF_AGENT_SEEN_AREA / 8];
};

#define CPROF_AGENT_RING_SIZE (4u << 20)
#define CPROF_AGENT_STACK_MAX 32768u /* `stack_max` is cut to it */

/*
 * Where a thread's stack may be read by plain loads, entry = its shard's index: published by the
 * profiler from maps. [low, high) must be one readable mapping that belongs to this thread as long
 * as it lives: for pthreads from above the guard pages to the thread pointer, for the main thread
 * the [stack] mapping. Used only when the sp lies inside and the tid is the same. Without an entry
 * the agent reads its stack by process_vm_readv, which costs 1 µs.
 * Writing: sequence + 1 (odd), fields, sequence + 2, each in order.
 */
struct cprof_agent_stack {
	uint64_t thread_pointer; /* 0: none */
	uint64_t low;
	uint64_t high;
	uint32_t tid;
	uint32_t sequence; /* odd: being written */
};

/* System calls of the hooks; those that the target's seccomp filter would not simply allow are
 * named in `forbidden` and not made. */
enum cprof_agent_forbidden {
	CPROF_AGENT_FORBID_READV = 1, /* process_vm_readv: records without stacks */
	CPROF_AGENT_FORBID_CLOCK = 2, /* clock_gettime: a missing heartbeat is not noticed */
	CPROF_AGENT_FORBID_GETTID = 4,
	CPROF_AGENT_FORBID_YIELD = 8, /* sched_yield: no wait for room */
};

struct cprof_agent_shared {
	/* written by the profiler */
	uint64_t magic;
	uint64_t heartbeat_ns; /* by the target's CLOCK_MONOTONIC; hooks fall silent 5 s later */
	/* Mean bytes between samples; 1: every allocation, exactly. May change from one value above
	 * 1 to another at any time. */
	uint64_t rate;
	uint32_t epoch;     /* not 0; raised to make shards draw anew the next time they look */
	uint32_t stack_max; /* bytes of stack a record may carry */
	uint32_t host_pid;  /* the profiler, in the target's pid namespace's terms or 0 */
	uint32_t order_count;
	uint64_t tail;       /* of the ring: a position, bytes consumed so far */
	uint32_t forbidden;  /* enum cprof_agent_forbidden, set before START */
	uint32_t tid_offset; /* thread pointer to the libc's word of the tid; 0: gettid is called */
	uint64_t lock_tail;  /* of the ring of locks */
	uint32_t lock_fixed; /* 1: `every` is the profiler's only */
	uint32_t seen_sequence;
	uint32_t reserved[14];
	/* written by the agent; counts since the start */
	uint64_t head __attribute__((aligned(64))); /* position: bytes reserved so far */
	uint64_t next_id;                           /* the id drawn last */
	uint64_t allocs;         /* allocations sampled, not rate 1, that made a record */
	uint64_t frees;          /* of them */
	uint64_t dropped;        /* samples lost: no room in the ring, or no safe way to call */
	uint64_t dropped_bytes;  /* rate 1: bytes of them */
	uint64_t dropped_frees;  /* rate 1: frees lost */
	uint64_t table_full;     /* samples lost: no room in the live table */
	uint64_t missed_frees;   /* an address was live already: evicted */
	uint64_t quiet;          /* times that hooks fell silent; they look again every NAP bytes */
	uint64_t stack_failures; /* records without a stack: it could not be read */
	uint64_t waits;          /* rate 1: waits for room in the ring */
	uint64_t quiet_since;    /* the agent's own: the heartbeat of the last silence */
	uint64_t stalled;        /* the agent's own: tail + 1 that was waited for in vain */
	uint64_t reserved2[2];
	uint64_t lock_head __attribute__((aligned(64)));
	uint64_t lock_timed;           /* waits that made a record */
	uint64_t lock_dropped;         /* waits and unlocks lost: no room in the ring … */
	uint64_t lock_full;            /* … or in the bucket */
	uint64_t lock_failures;        /* records without a stack */
	uint64_t lock_full_weight;     /* what those of `lock_full` stood for */
	uint64_t lock_dropped_unlocks; /* of `lock_dropped`: unlocks … */
	uint64_t lock_dropped_ns;      /* … and what they were charged with */
	/* the rest, each at its own page */
	uint16_t waiting[CPROF_AGENT_LOCK_BUCKETS] __attribute__((aligned(4096)));
	struct cprof_agent_lock_rate lock_rates[CPROF_AGENT_LOCK_BUCKETS];
	struct cprof_agent_wait lock_waits[CPROF_AGENT_LOCK_BUCKETS][CPROF_AGENT_LOCK_WAYS]
		__attribute__((aligned(4096)));
	uint8_t lock_ring[CPROF_AGENT_LOCK_RING_SIZE] __attribute__((aligned(4096)));
	struct cprof_agent_order orders[CPROF_AGENT_ORDERS] __attribute__((aligned(4096)));
	struct cprof_agent_stack stacks[CPROF_AGENT_SHARDS] __attribute__((aligned(4096)));
	union {
		struct cprof_agent_bucket table[CPROF_AGENT_BUCKETS];
		struct cprof_agent_seen_table seen; /* rate 1 */
	} __attribute__((aligned(4096)));
	uint8_t ring[CPROF_AGENT_RING_SIZE] __attribute__((aligned(4096)));
};
#define CPROF_AGENT_QUIET_NS 5000000000ull
#define CPROF_AGENT_NAP      (16u << 20)

#define CPROF_AGENT_SHARED_SIZE sizeof(struct cprof_agent_shared)
#define CPROF_AGENT_FILE_SIZE   (CPROF_AGENT_SHARED + CPROF_AGENT_SHARED_SIZE)

/* --- the ring ------------------------------------------------------------------------------ */

enum cprof_agent_record_type {
	CPROF_AGENT_RECORD_ALLOC = 1,
	CPROF_AGENT_RECORD_FREE, /* rate 1 only, before the real free; no stack. Also for blocks
				  * that are not known, and twice when one free calls another */
	CPROF_AGENT_RECORD_KEEP, /* rate 1 only: that free did not happen (realloc failed) */
	CPROF_AGENT_RECORD_SEEN, /* rate 1 only: an allocation with a stack of the table `seen` */
	/* in the ring of locks; `function` is an enum cprof_agent_lock, `address` the lock's */
	CPROF_AGENT_RECORD_WAIT = 16, /* with stack; size: when it began, ns; rate: its weight */
	CPROF_AGENT_RECORD_GOT,       /* that wait is over: struct cprof_agent_got */
	CPROF_AGENT_RECORD_UNLOCK,    /* with stack; size: ns that it is charged with, weighted;
				       * rate: entries that make it up */
};

/*
 * A record begins at a position that is a multiple of 8 and never wraps. `stamp` is written last:
 * the position's low 32 bits | DONE, or BUSY right after the room was reserved, or PAD for room
 * that holds nothing (before the ring's end, or after a stack that was shorter than expected; it
 * may be of 8 bytes only). With all three `length` is good. A stale stamp is of another position. A
 * record stays BUSY for ever when its thread left by longjmp out of a signal handler or died: a
 * reader gives it some time and then skips it.
 *
 * A sample is in the live table before its record is DONE: once a record has been read, an id that
 * is not in the table has been freed.
 */
#define CPROF_AGENT_STAMP_BUSY 1u
#define CPROF_AGENT_STAMP_DONE 2u
#define CPROF_AGENT_STAMP_PAD  3u
#define CPROF_AGENT_STAMP_MASK 7u

struct cprof_agent_record {
	uint32_t length; /* whole, a multiple of 8 */
	uint32_t stamp;
	uint16_t type;
	uint16_t function; /* enum cprof_agent_function */
	uint32_t tid;
	uint64_t address;
	/* FREE and KEEP end here */
	uint64_t id;   /* from 1, unique; SEEN: the stack's number */
	uint64_t size; /* bytes, as asked for */
	/* SEEN ends here */
	uint64_t rate;
	uint64_t thread_pointer;
	uint64_t pc; /* registers of the caller, right after its call */
	uint64_t sp;
	uint64_t rbx;
	uint64_t rbp;
	uint64_t r12;
	uint64_t r13;
	uint64_t r14;
	uint64_t r15;
	uint32_t stack_length; /* bytes of stack that follow, from `sp` upwards */
	uint32_t cut;          /* 1: there was more */
};
#define CPROF_AGENT_RECORD_SHORT  __builtin_offsetof(struct cprof_agent_record, id)
#define CPROF_AGENT_RECORD_MIDDLE __builtin_offsetof(struct cprof_agent_record, rate)

/* The end of a wait, short. */
struct cprof_agent_got {
	uint32_t length;
	uint32_t stamp;
	uint16_t type;
	uint16_t function;
	uint32_t tid;
	uint64_t id; /* of its WAIT record */
	uint64_t address;
	uint64_t delay_ns; /* all of it; without what the agent itself took */
	uint64_t tail_ns;  /* of it, what no UNLOCK record is charged with … */
	uint64_t unlock;   /* … but this one shall be: the last, 0 none was seen */
};

/* --- the routine --------------------------------------------------------------------------- */

enum cprof_agent_operation {
	CPROF_AGENT_START,   /* map the rest, close the memfd, carry out orders, switch on */
	CPROF_AGENT_PATCH,   /* carry out wanted orders from `first` on */
	CPROF_AGENT_RESTORE, /* switch off, put back every slot that is done */
	CPROF_AGENT_UNMAP,   /* release PRIVATE and SHARED */
	CPROF_AGENT_ABORT,   /* close the memfd; a START that fails undoes its own mappings */
};

/*
 * On the stack of the borrowed thread, written by the profiler. The routine is entered with rdi =
 * its address and runs on the stack below it. It then sets `done`, spins for at most about 100 ms
 * (the profiler stops it there and restores the thread) and otherwise restores the thread by
 * itself: rt_sigreturn with the stack pointer `sigreturn`.
 */
struct cprof_agent_call {
	uint64_t done; /* 1 when all is written */
	uint64_t operation;
	int64_t error;      /* 0, or a negative errno of `step` */
	uint64_t step;      /* enum cprof_agent_step */
	uint64_t sigreturn; /* stack pointer for rt_sigreturn */
	uint64_t first;     /* orders [first, order_count) */
	uint64_t changed;   /* slots written */
	uint64_t failed;    /* slots not written */
	int32_t memfd;      /* to map and close; -1 none */
	uint32_t adopt;     /* 1: CONTROL is there already */
	uint64_t fault;     /* set by the profiler: a fault point, enum cprof_agent_fault */
	uint64_t reached;   /* the fault point it waits at, until `fault` is 0 or 1 s is over */
	uint64_t seed;      /* START: not 0 */
	uint64_t reserved[4];
};
enum cprof_agent_step {
	CPROF_AGENT_STEP_NONE,
	CPROF_AGENT_STEP_CONTROL,
	CPROF_AGENT_STEP_PRIVATE,
	CPROF_AGENT_STEP_SHARED,
	CPROF_AGENT_STEP_PATCH,
};
/* Where a test makes the routine wait (up to its bound) so that a profiler can be killed there. */
enum cprof_agent_fault {
	CPROF_AGENT_FAULT_NONE,
	CPROF_AGENT_FAULT_MAPPED,
	CPROF_AGENT_FAULT_HALF, /* half of the orders are carried out */
	CPROF_AGENT_FAULT_PATCHED,
};

/*
 * System calls of the routine that it cannot do without: name, number. A target whose seccomp
 * filter does not allow all of them is refused. It also makes those of enum cprof_agent_forbidden
 * unless they are; without process_vm_readv or gettid it does not look at slots before it changes
 * them, and the tracer has to catch faults at `swap`.
 */
#define CPROF_AGENT_ROUTINE_CALLS(X)                                                               \
	X(mmap, 9)                                                                                 \
	X(mprotect, 10)                                                                            \
	X(munmap, 11)                                                                              \
	X(rt_sigreturn, 15)                                                                        \
	X(close, 3)                                                                                \
	X(madvise, 28)

_Static_assert(sizeof(struct cprof_agent_shard) == 64 && sizeof(struct cprof_agent_wait) == 64, "");
_Static_assert(__builtin_offsetof(struct cprof_agent_shared, head) == 128, "");
_Static_assert(sizeof(struct cprof_agent_call) == 128 && sizeof(struct cprof_agent_got) == 56, "");
_Static_assert(sizeof(struct cprof_agent_order) == 32 && sizeof(struct cprof_agent_seen) == 88, "");
_Static_assert(sizeof(struct cprof_agent_stack) == 32, "");
_Static_assert(sizeof(struct cprof_agent_record) == 128, "");
_Static_assert(__builtin_offsetof(struct cprof_agent_shared, waiting) == 4096, "");
_Static_assert(CPROF_AGENT_RECORD_SHORT == 24 && CPROF_AGENT_RECORD_MIDDLE == 40, "");
_Static_assert(CPROF_AGENT_STACK_MAX / 8 <= 1u << 16, "places in a stack");
_Static_assert(sizeof(struct cprof_agent_header) <= 1024, "");
_Static_assert(sizeof(struct cprof_agent_config) <= CPROF_AGENT_CONTROL - CPROF_AGENT_CONFIG, "");
_Static_assert(sizeof(struct cprof_agent_private) <= CPROF_AGENT_PRIVATE_SIZE, "");
_Static_assert(CPROF_AGENT_FILE_SIZE <= 8u << 20, "8 MB in the target");

#endif

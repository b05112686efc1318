/* SPDX-License-Identifier: MIT
 *
 * A stand-in for the agent: writes ring and live table as agent_abi.h says, from any thread. And a
 * world of synthetic code for its stacks.
 */
#ifndef CPROF_TEST_AGENT_SIM_H
#define CPROF_TEST_AGENT_SIM_H

#include <cprof/heap.h>
#include <cprof/util.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define SIM_TEXT     0x10000ull
#define SIM_TEXT_END 0x30000ull
#define SIM_SP       0x7ff000ull
#define SIM_END      (SIM_TEXT + 0x1f000) /* the return address that ends each stack */
#define SIM_ABORT(condition)                                                                       \
	do {                                                                                       \
		if (condition)                                                                     \
			abort();                                                                   \
	} while (0)

struct sim {
	struct cprof_agent_shared *shared;
	struct cprof_modules *modules;
	struct cprof_module *module;
	struct cprof_space *space;
	struct cprof_unwinder *unwinder;
	struct cprof_agent_bounds *bounds;
	struct cprof_agent_records records;
	struct cprof_heap *heap;
};

/* A call stack as the agent sees it. */
struct sim_stack {
	struct cprof_agent_record regs;
	uint64_t words[256];
	uint32_t length; /* bytes of `words` */
};

static inline void sim_rule(struct sim *sim, uint64_t return_address, struct cprof_rule rule)
{
	SIM_ABORT(!cprof_module_put_rule(sim->module, return_address - 1 - SIM_TEXT, &rule));
}

/* A function whose frame is `size` bytes, return address included. */
static inline struct cprof_rule sim_frame(int32_t size)
{
	return (struct cprof_rule){.kind = CPROF_RULE_FRAME,
				   .cfa_register = CPROF_REG_SP,
				   .cfa_offset = size,
				   .ra = -1};
}

static inline void sim_init(struct sim *sim, uint64_t rate)
{
	memset(sim, 0, sizeof(*sim));
	sim->shared = mmap(NULL, sizeof(*sim->shared), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SIM_ABORT(sim->shared == MAP_FAILED);
	sim->shared->rate = rate;
	sim->shared->epoch = 1;
	SIM_ABORT(
		cprof_modules_create(NULL, &sim->modules) ||
		cprof_agent_bounds_create(&sim->bounds) ||
		cprof_module_create_synthetic(sim->modules, NULL, &sim->module) ||
		cprof_space_create(NULL, sim->modules, &sim->space) ||
		cprof_space_map_module(sim->space, SIM_TEXT, SIM_TEXT_END, SIM_TEXT, sim->module) ||
		cprof_unwinder_cfi.create(sim->space, &sim->unwinder));
	sim_rule(sim, SIM_END, (struct cprof_rule){.kind = CPROF_RULE_END});
}

static inline struct cprof_agent_records *sim_records(struct sim *sim)
{
	sim->records.shared = sim->shared;
	sim->records.space = sim->space;
	sim->records.modules = sim->modules;
	sim->records.unwinder = sim->unwinder;
	sim->records.bounds = sim->bounds;
	return &sim->records;
}

static inline void sim_start(struct sim *sim, bool (*wanted)(void *, pid_t))
{
	sim->records.wanted = wanted;
	SIM_ABORT(cprof_heap_create(sim_records(sim), 0, &sim->heap));
}

/* What a hostile target may write into a ring. */
struct sim_ring {
	uint64_t *head;
	uint8_t *bytes;
	size_t size;
};

/* Bytes at so many behind the head. */
static inline void sim_scribble(const struct sim_ring *ring, uint32_t offset, const void *bytes,
				size_t length)
{
	size_t at = (*ring->head & ~7ull) % ring->size + offset;

	if (at < ring->size)
		memcpy(ring->bytes + at, bytes, CPROF_MIN(length, ring->size - at));
}

/* Finishes a record of so many bytes, or says something like it. */
static inline void sim_finish(const struct sim_ring *ring, uint32_t length, unsigned state)
{
	uint64_t head = *ring->head & ~7ull;
	uint32_t stamp[2] = {length, (uint32_t)head | (state & 3)};

	memcpy(ring->bytes + head % ring->size, stamp, sizeof(stamp));
	*ring->head = head + length;
}

static inline void sim_deinit(struct sim *sim)
{
	cprof_heap_destroy(sim->heap);
	cprof_agent_bounds_destroy(sim->bounds);
	sim->unwinder->ops->destroy(sim->unwinder);
	cprof_space_destroy(sim->space);
	cprof_modules_destroy(sim->modules);
	munmap(sim->shared, sizeof(*sim->shared));
}

/* A stack of `depth` callers above the function whose call returns to TEXT + 0x1000 + 16 * which;
 * every frame has 32 bytes. */
static inline void sim_stack(struct sim *sim, struct sim_stack *stack, unsigned which,
			     unsigned depth)
{
	memset(stack, 0, sizeof(*stack));
	stack->regs.pc = SIM_TEXT + 0x1000 + 16 * which;
	stack->regs.sp = SIM_SP;
	sim_rule(sim, stack->regs.pc, sim_frame(32));
	for (unsigned i = 0; i < depth; i++) {
		stack->words[4 * i + 3] = SIM_TEXT + 0x10000 + 16 * i;
		sim_rule(sim, SIM_TEXT + 0x10000 + 16 * i, sim_frame(32));
	}
	stack->words[4 * depth + 3] = SIM_END;
	stack->length = (4 * depth + 4) * 8;
}

/* --- ring ---------------------------------------------------------------------------------- */

/* Room for a record, marked BUSY; NULL: none. */
static inline struct cprof_agent_record *sim_reserve(struct sim *sim, uint32_t length)
{
	struct cprof_agent_shared *shared = sim->shared;
	uint64_t head = __atomic_load_n(&shared->head, __ATOMIC_RELAXED);
	struct cprof_agent_record *record;
	uint64_t offset;
	uint64_t pad;

	do {
		offset = head % CPROF_AGENT_RING_SIZE;
		pad = offset + length > CPROF_AGENT_RING_SIZE ? CPROF_AGENT_RING_SIZE - offset : 0;
		if (head + pad + length - __atomic_load_n(&shared->tail, __ATOMIC_ACQUIRE) >
		    CPROF_AGENT_RING_SIZE)
			return NULL;
	} while (!__atomic_compare_exchange_n(&shared->head, &head, head + pad + length, false,
					      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
	record = (struct cprof_agent_record *)(shared->ring + offset);
	if (pad)
		__atomic_store_n((uint64_t *)record,
				 pad | (uint64_t)((uint32_t)head | CPROF_AGENT_STAMP_PAD) << 32,
				 __ATOMIC_RELEASE);
	head += pad;
	record = (struct cprof_agent_record *)(shared->ring + head % CPROF_AGENT_RING_SIZE);
	__atomic_store_n((uint64_t *)record,
			 length | (uint64_t)((uint32_t)head | CPROF_AGENT_STAMP_BUSY) << 32,
			 __ATOMIC_RELEASE);
	return record;
}

static inline void sim_commit(struct cprof_agent_record *record)
{
	__atomic_store_n(&record->stamp,
			 (record->stamp & ~CPROF_AGENT_STAMP_MASK) | CPROF_AGENT_STAMP_DONE,
			 __ATOMIC_RELEASE);
}

/* False: dropped. */
static inline bool sim_put_alloc(struct sim *sim, const struct sim_stack *stack,
				 const struct cprof_agent_record *what)
{
	struct cprof_agent_record *record =
		sim_reserve(sim, (uint32_t)sizeof(*record) + stack->length);
	const size_t head = offsetof(struct cprof_agent_record, type);
	struct cprof_agent_record filled = stack->regs;

	if (!record)
		return false;
	filled.type = CPROF_AGENT_RECORD_ALLOC;
	filled.tid = what->tid;
	filled.id = what->id;
	filled.address = what->address;
	filled.size = what->size;
	filled.rate = what->rate;
	filled.stack_length = stack->length;
	memcpy((uint8_t *)record + head, (uint8_t *)&filled + head, sizeof(filled) - head);
	memcpy(record + 1, stack->words, stack->length);
	sim_commit(record);
	return true;
}

static inline bool sim_put_short(struct sim *sim, uint16_t type, uint64_t address)
{
	struct cprof_agent_record *record = sim_reserve(sim, CPROF_AGENT_RECORD_SHORT);

	if (!record)
		return false;
	record->type = type;
	record->function = 0;
	record->tid = 1;
	record->address = address;
	sim_commit(record);
	return true;
}

/* The entry of the table `seen` for this stack, NULL: none. */
static inline const struct cprof_agent_seen *sim_seen(struct sim *sim,
						      const struct sim_stack *stack)
{
	const struct cprof_agent_seen_table *table = &sim->shared->seen;
	uint32_t link = table->heads[((stack->regs.pc + stack->regs.sp * 3) * CPROF_AGENT_HASH) >>
				     (64 - CPROF_AGENT_SEEN_BITS)];

	while (link) {
		const struct cprof_agent_seen *entry = (const void *)&table->area[link - 1];
		bool same = entry->pc == stack->regs.pc && entry->sp == stack->regs.sp &&
			    entry->length <= stack->length;

		for (uint32_t i = 0; same && i < entry->count; i++)
			same = stack->words[entry->words[i] >> 48] ==
			       (entry->words[i] & 0xffffffffffffull);
		if (same)
			return entry;
		link = entry->next;
	}
	return NULL;
}

static inline bool sim_put_seen(struct sim *sim, uint64_t stack, uint64_t address, uint64_t size)
{
	struct cprof_agent_record *record = sim_reserve(sim, CPROF_AGENT_RECORD_MIDDLE);

	if (!record)
		return false;
	record->type = CPROF_AGENT_RECORD_SEEN;
	record->function = 0;
	record->tid = 1;
	record->address = address;
	record->id = stack;
	record->size = size;
	sim_commit(record);
	return true;
}

static inline uint64_t sim_next_id(struct sim *sim)
{
	return __atomic_add_fetch(&sim->shared->next_id, 1, __ATOMIC_RELAXED);
}

/* --- exact mode ---------------------------------------------------------------------------- */

static inline bool sim_alloc(struct sim *sim, const struct sim_stack *stack, uint64_t address,
			     uint64_t size)
{
	struct cprof_agent_record what = {
		.tid = 1, .id = sim_next_id(sim), .address = address, .size = size, .rate = 1};

	return sim_put_alloc(sim, stack, &what);
}

static inline bool sim_free(struct sim *sim, uint64_t address)
{
	return sim_put_short(sim, CPROF_AGENT_RECORD_FREE, address);
}

/* --- sampled mode -------------------------------------------------------------------------- */

static inline struct cprof_agent_bucket *sim_bucket(struct sim *sim, uint64_t address)
{
	return &sim->shared->table[(address * CPROF_AGENT_HASH) >> (64 - CPROF_AGENT_BUCKET_BITS)];
}

static inline bool sim_insert(struct sim *sim, uint64_t address, uint64_t id, uint64_t size,
			      uint64_t rate)
{
	struct cprof_agent_bucket *bucket = sim_bucket(sim, address);

	for (unsigned i = 0; i < CPROF_AGENT_BUCKET_WAYS; i++) {
		uint64_t none = 0;

		if (!__atomic_compare_exchange_n(&bucket->keys[i], &none,
						 address | CPROF_AGENT_KEY_BUSY, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		__atomic_store_n(&bucket->entries[i].id, id, __ATOMIC_RELAXED);
		bucket->entries[i].size = size;
		bucket->entries[i].rate = rate;
		__atomic_store_n(&bucket->keys[i], address, __ATOMIC_RELEASE);
		return true;
	}
	__atomic_add_fetch(&sim->shared->table_full, 1, __ATOMIC_RELAXED);
	return false;
}

static inline bool sim_remove(struct sim *sim, uint64_t address)
{
	struct cprof_agent_bucket *bucket = sim_bucket(sim, address);

	for (unsigned i = 0; i < CPROF_AGENT_BUCKET_WAYS; i++)
		if (bucket->keys[i] == address) {
			__atomic_store_n(&bucket->keys[i], 0, __ATOMIC_RELEASE);
			return true;
		}
	return false;
}

/* A sample without asking chance. */
static inline bool sim_sample(struct sim *sim, const struct sim_stack *stack, uint64_t address,
			      uint64_t size)
{
	struct cprof_agent_record what = {.tid = 1,
					  .id = sim_next_id(sim),
					  .address = address,
					  .size = size,
					  .rate = sim->shared->rate};

	if (!sim_insert(sim, address, what.id, size, what.rate))
		return false;
	if (sim_put_alloc(sim, stack, &what))
		return true;
	sim_remove(sim, address);
	__atomic_add_fetch(&sim->shared->dropped, 1, __ATOMIC_RELAXED);
	return false;
}

/* A thread's chance: gaps are exponential with the mean `rate`. */
struct sim_chance {
	uint64_t random;
	double countdown;
};

static inline double sim_random(struct sim_chance *chance)
{
	chance->random ^= chance->random << 13;
	chance->random ^= chance->random >> 7;
	chance->random ^= chance->random << 17;
	return ((double)(chance->random >> 11) + 0.5) * 0x1p-53;
}

static inline void sim_chance(struct sim_chance *chance, uint64_t seed, uint64_t rate)
{
	chance->random = seed * 0x9e3779b97f4a7c15ull + 1;
	for (unsigned i = 0; i < 16; i++)
		sim_random(chance);
	chance->countdown = -log(sim_random(chance)) * (double)rate;
}

/* Whether an allocation of `size` bytes is sampled. */
static inline bool sim_chosen(struct sim_chance *chance, uint64_t size, uint64_t rate)
{
	chance->countdown -= (double)size + 1;
	if (chance->countdown > 0)
		return false;
	chance->countdown = -log(sim_random(chance)) * (double)rate;
	return true;
}

#endif

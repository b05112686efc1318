/* SPDX-License-Identifier: MIT
 *
 * From the agent's records of locks to accounts. A waiter's end can be told before the unlock that
 * let it in, whose stack is copied after the fact: what it charges waits for that.
 */
#include "contention.h"

#include <cprof/util.h>
#include <stdlib.h>
#include <string.h>

#define ADAPT_NS    40000000ull
#define CHECK_NS    500000000ull
#define NAME_NS     200000000ull
#define TAIL_NS     2000000000ull /* then the unlock's record will not come any more */
#define LOCKS_MAX   (1u << 16)
#define WAITS_MAX   (1u << 16)
#define WEIGHT_MAX  CPROF_AGENT_LOCK_EVERY
#define ELAPSED_ADD 1000000000ull /* clocks are read at different moments */

/* --- locks and accounts -------------------------------------------------------------------- */

/* NULL without memory, or where a target invents locks. */
static struct cprof_contention_lock *get_lock(struct cprof_contention *contention, uint64_t address)
{
	struct cprof_contention_lock *lock;

	HASH_FIND(hh, contention->by_address, &address, sizeof(address), lock);
	if (lock)
		return lock;
	if (contention->lock_count >= LOCKS_MAX)
		return NULL;
	lock = calloc(1, sizeof(*lock));
	if (!lock || !cprof_grow(&contention->locks, &contention->lock_capacity,
				 contention->lock_count + 1, sizeof(lock))) {
		free(lock);
		contention->no_memory = true;
		return NULL;
	}
	lock->address = address;
	lock->index = (uint32_t)contention->lock_count;
	contention->locks[contention->lock_count++] = lock;
	HASH_ADD(hh, contention->by_address, address, sizeof(address), lock);
	return lock;
}

static void add(struct cprof_contention *contention, enum cprof_contention_side side,
		uint32_t stack, uint32_t lock, double count, double delay_ns)
{
	const struct cprof_contention_key key = {.stack = stack, .lock = lock, .side = side};
	struct cprof_contention_account *account;

	HASH_FIND(hh, contention->accounts, &key, sizeof(key), account);
	if (!account) {
		account = calloc(1, sizeof(*account));
		if (!account) {
			contention->no_memory = true;
			return;
		}
		account->key = key;
		HASH_ADD(hh, contention->accounts, key, sizeof(account->key), account);
	}
	account->count += count;
	account->delay_ns += delay_ns;
}

/* --- stacks -------------------------------------------------------------------------------- */

static uint32_t unwind(struct cprof_contention *contention, const struct cprof_agent_record *record,
		       const uint8_t *bytes)
{
	const struct cprof_stack *stack = &contention->records->stack;

	contention->stats.unwind_ns +=
		cprof_agent_records_unwind(contention->records, record, bytes);
	contention->stats.samples++;
	contention->stats.ends[stack->end]++;
	contention->stats.frames += stack->count;
	return cprof_builder_stack(contention->builder, NULL, 0, stack);
}

/* --- records ------------------------------------------------------------------------------- */

static uint64_t most_ns(const struct cprof_contention *contention)
{
	return cprof_now_ns() - contention->started_ns + ELAPSED_ADD;
}

static bool on_wait(struct cprof_contention *contention, const struct cprof_agent_record *record,
		    const uint8_t *bytes)
{
	struct cprof_contention_lock *lock;
	struct cprof_contention_wait *wait;

	if (!record->rate || record->rate > WEIGHT_MAX)
		return false;
	HASH_FIND(hh, contention->waits, &record->id, sizeof(record->id), wait);
	if (wait || HASH_COUNT(contention->waits) >= WAITS_MAX)
		return false;
	lock = get_lock(contention, record->address);
	wait = lock ? calloc(1, sizeof(*wait)) : NULL;
	if (!wait) {
		contention->stats.lost++;
		return true;
	}
	*wait = (struct cprof_contention_wait){
		.id = record->id,
		.lock = lock->index,
		.weight = (double)record->rate,
		.wanted = cprof_agent_records_want(contention->records, record->tid),
		.tid = record->tid,
		.began_ns = record->size,
	};
	wait->stack = unwind(contention, record, bytes);
	contention->stats.timed++;
	contention->stats.contended += wait->weight;
	HASH_ADD(hh, contention->waits, id, sizeof(wait->id), wait);
	return true;
}

/* The part of a wait that is the last unlock's. */
static void settle_tail(struct cprof_contention *contention, uint64_t unlock, uint32_t lock,
			double count, double delay_ns)
{
	const struct cprof_contention_unlock *known =
		&contention->unlocks[unlock % CPROF_CONTENTION_UNLOCKS];
	struct cprof_contention_tail *tail;

	if (!unlock || known->id == unlock) {
		if (!unlock)
			add(contention, CPROF_CONTENTION_HOLDER, 0, lock, count, delay_ns);
		else if (known->wanted)
			add(contention, CPROF_CONTENTION_HOLDER, known->stack, lock, count,
			    delay_ns);
		return;
	}
	HASH_FIND(hh, contention->tails, &unlock, sizeof(unlock), tail);
	if (!tail) {
		tail = calloc(1, sizeof(*tail));
		if (!tail) {
			contention->no_memory = true;
			return;
		}
		tail->id = unlock;
		tail->lock = lock;
		tail->since_ns = cprof_now_ns();
		HASH_ADD(hh, contention->tails, id, sizeof(tail->id), tail);
	}
	tail->count += count;
	tail->delay_ns += delay_ns;
}

void cprof_contention_settle(struct cprof_contention *contention,
			     struct cprof_contention_wait *wait, uint64_t delay_ns)
{
	struct cprof_contention_lock *lock = contention->locks[wait->lock];
	double delay = wait->weight * (double)delay_ns;

	lock->count += wait->weight;
	lock->delay_ns += delay;
	lock->longest_ns = CPROF_MAX(lock->longest_ns, delay_ns);
	contention->stats.delay_ns += delay;
	if (wait->wanted)
		add(contention, CPROF_CONTENTION_WAITER, wait->stack, wait->lock, wait->weight,
		    delay);
	HASH_DEL(contention->waits, wait);
	free(wait);
}

static bool on_got(struct cprof_contention *contention, const struct cprof_agent_got *got)
{
	struct cprof_contention_wait *wait;

	HASH_FIND(hh, contention->waits, &got->id, sizeof(got->id), wait);
	if (got->delay_ns > most_ns(contention) || got->tail_ns > got->delay_ns)
		return false;
	if (!wait) /* its beginning was lost, and counted then */
		return true;
	settle_tail(contention, got->unlock, wait->lock, wait->weight,
		    wait->weight * (double)got->tail_ns);
	cprof_contention_settle(contention, wait, got->delay_ns);
	return true;
}

static bool on_unlock(struct cprof_contention *contention, const struct cprof_agent_record *record,
		      const uint8_t *bytes)
{
	struct cprof_contention_unlock *unlock =
		&contention->unlocks[record->id % CPROF_CONTENTION_UNLOCKS];
	double most = (double)most_ns(contention) * WEIGHT_MAX * CPROF_AGENT_LOCK_WAYS;
	struct cprof_contention_lock *lock;
	struct cprof_contention_tail *tail;

	if (!record->rate || record->rate > CPROF_AGENT_LOCK_WAYS || (double)record->size > most)
		return false;
	lock = get_lock(contention, record->address);
	if (!lock) {
		contention->stats.lost++;
		return true;
	}
	*unlock = (struct cprof_contention_unlock){
		.id = record->id,
		.wanted = cprof_agent_records_want(contention->records, record->tid)};
	unlock->stack = unwind(contention, record, bytes);
	if (unlock->wanted)
		add(contention, CPROF_CONTENTION_HOLDER, unlock->stack, lock->index, 0,
		    (double)record->size);
	HASH_FIND(hh, contention->tails, &record->id, sizeof(record->id), tail);
	if (!tail)
		return true;
	settle_tail(contention, record->id, tail->lock, tail->count, tail->delay_ns);
	HASH_DEL(contention->tails, tail);
	free(tail);
	return true;
}

/* Copies a record, and says whether it makes sense. */
static bool take(struct cprof_contention *contention, const uint8_t *place, uint32_t length)
{
	struct cprof_agent_record record = {0};
	struct cprof_agent_got got;
	const uint8_t *bytes = place + sizeof(record);

	if (length == sizeof(got)) {
		memcpy(&got, place, sizeof(got));
		return got.type == CPROF_AGENT_RECORD_GOT && got.id && on_got(contention, &got);
	}
	if (length < sizeof(record))
		return false;
	memcpy(&record, place, sizeof(record));
	if (!record.id || !record.address || record.address >> 48 ||
	    record.function >= CPROF_AGENT_LOCK_COUNT ||
	    record.stack_length > CPROF_AGENT_STACK_MAX ||
	    record.stack_length > length - sizeof(record))
		return false;
	cprof_agent_records_note(contention->records, &record);
	if (record.type == CPROF_AGENT_RECORD_WAIT)
		return on_wait(contention, &record, bytes);
	return record.type == CPROF_AGENT_RECORD_UNLOCK && on_unlock(contention, &record, bytes);
}

/* --- upkeep -------------------------------------------------------------------------------- */

/* Neighbourhoods with few waits are timed more often, and all less where the ring fills up; the
 * agent itself thins where waits come too fast. */
static void adapt(struct cprof_contention *contention, double full)
{
	struct cprof_agent_shared *shared = contention->records->shared;
	uint64_t now = cprof_now_ns();

	if (now < contention->adapted_ns + ADAPT_NS)
		return;
	contention->adapted_ns = now;
	for (size_t i = 0; i < CPROF_AGENT_LOCK_BUCKETS; i++) {
		struct cprof_agent_lock_rate *rate = &shared->lock_rates[i];
		uint32_t every = __atomic_load_n(&rate->every, __ATOMIC_RELAXED);
		uint32_t timed;
		uint32_t next = every;

		if (!every || (every == 1 && !__atomic_load_n(&rate->timed, __ATOMIC_RELAXED)))
			continue;
		timed = __atomic_exchange_n(&rate->timed, 0, __ATOMIC_RELAXED);
		if (shared->lock_fixed)
			continue;
		if (full > 0.5 && timed)
			next = CPROF_MIN(every * 2, CPROF_AGENT_LOCK_EVERY);
		else if (timed < CPROF_AGENT_LOCK_TIMED / 4)
			next = CPROF_MAX(every / 2, 1u);
		if (next != every)
			__atomic_compare_exchange_n(&rate->every, &every, next, false,
						    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
}

static struct cprof_contention_losses read_losses(const struct cprof_contention *contention)
{
	const struct cprof_agent_shared *shared = contention->records->shared;

	return (struct cprof_contention_losses){
		.dropped = __atomic_load_n(&shared->lock_dropped, __ATOMIC_RELAXED),
		.dropped_unlocks = __atomic_load_n(&shared->lock_dropped_unlocks, __ATOMIC_RELAXED),
		.dropped_ns = __atomic_load_n(&shared->lock_dropped_ns, __ATOMIC_RELAXED),
		.refused = __atomic_load_n(&shared->lock_full, __ATOMIC_RELAXED),
		.refused_weight = __atomic_load_n(&shared->lock_full_weight, __ATOMIC_RELAXED),
	};
}

static void count_lost(struct cprof_contention *contention)
{
	const struct cprof_contention_losses *before = &contention->losses_before;
	const struct cprof_contention_losses now = read_losses(contention);

	contention->losses = (struct cprof_contention_losses){
		.dropped = now.dropped - before->dropped,
		.dropped_unlocks = now.dropped_unlocks - before->dropped_unlocks,
		.dropped_ns = now.dropped_ns - before->dropped_ns,
		.refused = now.refused - before->refused,
		.refused_weight = now.refused_weight - before->refused_weight,
	};
}

struct cprof_agent_wait *cprof_contention_entry(const struct cprof_contention *contention,
						const struct cprof_contention_wait *wait)
{
	uint64_t address = contention->locks[wait->lock]->address;
	struct cprof_agent_wait *entries =
		contention->records->shared->lock_waits[(address >> CPROF_AGENT_LOCK_SHIFT) %
							CPROF_AGENT_LOCK_BUCKETS];

	for (size_t i = 0; i < CPROF_AGENT_LOCK_WAYS; i++)
		if (__atomic_load_n(&entries[i].lock, __ATOMIC_ACQUIRE) == address &&
		    __atomic_load_n(&entries[i].id, __ATOMIC_RELAXED) == wait->id)
			return &entries[i];
	return NULL;
}

static bool still_waits(const struct cprof_contention *contention,
			const struct cprof_contention_wait *wait, uint64_t *charged)
{
	const struct cprof_agent_wait *entry = cprof_contention_entry(contention, wait);

	if (!entry)
		return false;
	*charged = __atomic_load_n(&entry->charged_ns, __ATOMIC_RELAXED);
	return *charged != CPROF_AGENT_LOCK_LEFT;
}

/* What the agent's times are compared with. */
static uint64_t target_now(const struct cprof_contention *contention)
{
	return cprof_target_time_ns(cprof_space_target(contention->records->space), cprof_now_ns());
}

/* Waits whose end was lost, and tails whose unlock was. */
static void clean_up(struct cprof_contention *contention)
{
	struct cprof_contention_wait *wait;
	struct cprof_contention_wait *next_wait;
	struct cprof_contention_tail *tail;
	struct cprof_contention_tail *next_tail;
	uint64_t now = cprof_now_ns();
	uint64_t charged;

	if (now < contention->checked_ns + CHECK_NS)
		return;
	contention->checked_ns = now;
	cprof_contention_end_gone(contention);
	HASH_ITER(hh, contention->waits, wait, next_wait)
	{
		if (target_now(contention) < wait->began_ns + TAIL_NS ||
		    still_waits(contention, wait, &charged))
			continue;
		HASH_DEL(contention->waits, wait);
		free(wait);
	}
	HASH_ITER(hh, contention->tails, tail, next_tail)
	{
		if (now < tail->since_ns + TAIL_NS)
			continue;
		add(contention, CPROF_CONTENTION_HOLDER, 0, tail->lock, tail->count,
		    tail->delay_ns);
		HASH_DEL(contention->tails, tail);
		free(tail);
	}
}

/* Soon, since the target may end at any time. */
static void name_new(struct cprof_contention *contention)
{
	uint64_t now = cprof_now_ns();

	if (contention->named == contention->lock_count || now < contention->named_ns + NAME_NS)
		return;
	contention->named_ns = now;
	contention->named = contention->lock_count;
	cprof_contention_name_locks(contention);
}

double cprof_contention_drain(struct cprof_contention *contention)
{
	struct cprof_agent_ring *ring = &contention->ring;
	double full = cprof_agent_ring_begin(ring);
	const uint8_t *place;
	uint32_t length;

	while ((place = cprof_agent_ring_next(ring, &length)))
		if (!take(contention, place, length))
			cprof_agent_ring_reject(ring);
	count_lost(contention);
	clean_up(contention);
	name_new(contention);
	adapt(contention, full);
	cprof_agent_records_answer(contention->records);
	return full;
}

void cprof_contention_stats(const struct cprof_contention *contention,
			    struct cprof_contention_stats *stats)
{
	*stats = contention->stats;
	stats->lost +=
		contention->ring.lost + contention->losses.dropped + contention->losses.refused;
	stats->malformed += contention->ring.malformed;
	stats->locks = contention->lock_count;
}

struct cprof_builder *cprof_contention_builder(struct cprof_contention *contention)
{
	return contention->builder;
}

/* --- waits that go on ---------------------------------------------------------------------- */

bool cprof_contention_goes_on(const struct cprof_contention *contention,
			      const struct cprof_contention_wait *wait, uint64_t now,
			      double *uncharged_ns, double *all_ns)
{
	uint64_t charged;

	now = cprof_target_time_ns(cprof_space_target(contention->records->space), now);
	if (!still_waits(contention, wait, &charged) || wait->began_ns > now ||
	    charged < wait->began_ns)
		return false;
	*all_ns = (double)(now - wait->began_ns);
	*uncharged_ns = now > charged ? (double)(now - charged) : 0;
	return *all_ns < (double)most_ns(contention);
}

/* --- life ---------------------------------------------------------------------------------- */

static struct cprof_error *describe(struct cprof_contention *contention)
{
	struct cprof_profile *profile = cprof_builder_profile(contention->builder);

	cprof_block_describe(profile); /* Go's two have the same types */
	cprof_builder_map_main(contention->builder);
	return cprof_profile_check(profile);
}

struct cprof_error *cprof_contention_create(struct cprof_agent_records *records,
					    struct cprof_contention **result)
{
	struct cprof_contention *contention = calloc(1, sizeof(*contention));
	struct cprof_agent_shared *shared = records->shared;
	struct cprof_error *error;

	*result = NULL;
	if (contention)
		contention->unlocks =
			calloc(CPROF_CONTENTION_UNLOCKS, sizeof(*contention->unlocks));
	if (!contention || !contention->unlocks) {
		free(contention);
		return cprof_error_nomem();
	}
	contention->records = records;
	contention->started_ns = cprof_now_ns();
	cprof_agent_ring_init(&contention->ring, &shared->lock_head, &shared->lock_tail,
			      shared->lock_ring, CPROF_AGENT_LOCK_RING_SIZE);
	contention->losses_before = read_losses(contention);
	error = cprof_builder_create(records->modules, records->space, &contention->builder);
	if (!error)
		error = describe(contention);
	if (error) {
		cprof_contention_destroy(contention);
		return error;
	}
	*result = contention;
	return NULL;
}

#define FREE_ALL(type, head)                                                                       \
	do {                                                                                       \
		struct type *item_;                                                                \
		struct type *next_;                                                                \
		HASH_ITER(hh, head, item_, next_)                                                  \
		{                                                                                  \
			HASH_DEL(head, item_);                                                     \
			free(item_);                                                               \
		}                                                                                  \
	} while (0)

void cprof_contention_destroy(struct cprof_contention *contention)
{
	if (!contention)
		return;
	FREE_ALL(cprof_contention_lock, contention->by_address);
	FREE_ALL(cprof_contention_account, contention->accounts);
	FREE_ALL(cprof_contention_wait, contention->waits);
	FREE_ALL(cprof_contention_tail, contention->tails);
	free(contention->locks);
	free(contention->unlocks);
	cprof_builder_destroy(contention->builder);
	free(contention);
}

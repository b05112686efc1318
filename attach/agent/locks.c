/* SPDX-License-Identifier: MIT
 *
 * The hooks of locks, where one is taken or somebody who is timed waits for it. Nothing here waits,
 * but for the original; a critical section becomes longer by a look at a bucket and a question for
 * the time, and only while somebody is timed.
 */
#include "agent.h"

#define PRIO_PROTECT  0x40u       /* glibc: in a mutex's kind … */
#define CEILING_BITS  0xfff80000u /* … then these of its word are the ceiling */
#define ROBUST        0x10u
#define TYPE_BITS     3u /* these four, and checked ones */
#define NORMAL        0u
#define RECURSIVE     1u
#define ADAPTIVE      3u
#define PREFER_WRITER 2u /* in a rwlock's kind */

static const uint8_t shapes[] = {
#define SHAPE(id, symbol, shape) CPROF_AGENT_##shape,
	CPROF_AGENT_LOCKS(SHAPE)
#undef SHAPE
};

/* One call of a lock's hook. */
struct lock_call {
	struct call
		call; /* function: enum cprof_agent_lock; size, rate: as the record wants them */
	uint64_t lock;
	uint64_t seed; /* of the attach it belongs to */
	uint32_t layout;
	uint32_t bucket;
	struct cprof_agent_wait *wait;
	uint64_t id;
	uint64_t began_ns;
	uint64_t ready_ns; /* when the original was called */
};

static uint32_t word(const struct lock_call *call, uint64_t offset)
{
	return *(const volatile uint32_t *)(call->lock + offset);
}

/* True also where our own tid is not known. */
static bool is_ours(const struct lock_call *call, uint32_t owner)
{
	uint32_t tid = owner ? cprof_agent_tid(&call->call) : 0;

	return owner && (!tid || owner == tid);
}

/* --- what the lock says: layouts as in src/threads/owners.c --------------------------------- */

/* A mutex that its owner may lock again, or is told that it must not. */
static bool is_taken_by_other(const struct lock_call *call)
{
	uint32_t value;
	uint32_t kind;

	if (call->layout == CPROF_AGENT_MUSL) {
		value = word(call, 4) & 0x7fffffff;
		return value && (!(word(call, 0) & TYPE_BITS) || !is_ours(call, value));
	}
	value = word(call, 0);
	kind = word(call, 16);
	if (kind & PRIO_PROTECT)
		value &= ~CEILING_BITS;
	kind &= TYPE_BITS;
	return value && (kind == NORMAL || kind == ADAPTIVE || !is_ours(call, word(call, 8)));
}

static bool is_contended(const struct lock_call *call)
{
	bool musl = call->layout == CPROF_AGENT_MUSL;
	uint32_t value = word(call, 0);

	switch (shapes[call->call.function]) {
	case CPROF_AGENT_MUTEX:
		return is_taken_by_other(call);
	case CPROF_AGENT_READ:
		if (musl)
			return (value & 0x7fffffff) == 0x7fffffff;
		return value & 2 && (value & 1 || word(call, 48) == PREFER_WRITER) &&
		       !is_ours(call, word(call, 24));
	case CPROF_AGENT_WRITE:
		if (musl)
			return value & 0x7fffffff;
		return (value & 2 || value >> 3) && !is_ours(call, word(call, 24));
	default:
		return musl ? value != 0 : (int32_t)value <= 0;
	}
}

/* Whether this call really lets the lock go: one that was locked more than once stays, and a
 * checked one is not another thread's to unlock. */
static bool is_release(const struct lock_call *call)
{
	uint32_t kind;

	if (call->call.function != CPROF_AGENT_L_mutex_unlock &&
	    call->call.function != CPROF_AGENT_L_mtx_unlock)
		return true;
	if (call->layout == CPROF_AGENT_MUSL) {
		kind = word(call, 0) & TYPE_BITS;
		return !kind || (is_ours(call, word(call, 4) & 0x7fffffff) &&
				 !(kind == RECURSIVE && word(call, 20)));
	}
	kind = word(call, 16);
	if (!(kind & ROBUST) && ((kind & TYPE_BITS) == NORMAL || (kind & TYPE_BITS) == ADAPTIVE))
		return true;
	return is_ours(call, word(call, 8)) &&
	       !((kind & TYPE_BITS) == RECURSIVE && word(call, 4) > 1);
}

/* --- to time or not ------------------------------------------------------------------------ */

static void thin(struct cprof_agent_lock_rate *rate)
{
	uint32_t every = LOAD(&rate->every);

	if (every && every < CPROF_AGENT_LOCK_EVERY && !SHARED->lock_fixed)
		SWAP(&rate->every, &every, every * 2);
}

static void count_timed(struct cprof_agent_lock_rate *rate)
{
	if (ADD(&rate->timed, 1) % CPROF_AGENT_LOCK_TIMED == 0)
		thin(rate);
}

/* The chance is told by what was before, never by this wait. */
static bool decide(struct lock_call *call)
{
	struct cprof_agent_lock_rate *rate = &SHARED->lock_rates[call->bucket];
	uint64_t every = LOAD(&rate->every);
	uint64_t random;

	if (!every)
		return false;
	if (every > 1) {
		random = cprof_agent_random(call->call.shard, call->call.index) >> 32;
		if (random * every >> 32)
			return false;
	}
	count_timed(rate);
	call->call.rate = every;
	return true;
}

/* --- entries of those who wait ------------------------------------------------------------- */

/* Nothing, where that wait is over: the entry may be another's by now. */
static void release(const struct lock_call *call, struct cprof_agent_wait *wait, uint64_t id)
{
	uint32_t charged = CPROF_AGENT_WAIT_STATE(id, CPROF_AGENT_WAIT_CHARGED);
	uint32_t state = LOAD(&wait->state);

	do {
		if (state != charged && state != CPROF_AGENT_WAIT_STATE(id, CPROF_AGENT_WAIT_FRESH))
			return;
	} while (!SWAP(&wait->state, &state, CPROF_AGENT_WAIT_OVER));
	__atomic_sub_fetch(&SHARED->waiting[call->bucket],
			   state == charged ? CPROF_AGENT_ONE_CHARGED : CPROF_AGENT_ONE_FRESH,
			   __ATOMIC_ACQ_REL);
	STORE(&wait->lock, 0);
}

/* Releases the entry of a wait that its thread, which is ours, has left by longjmp. */
static bool release_left(const struct lock_call *call, struct cprof_agent_wait *wait)
{
	uint64_t id = LOAD(&wait->id);

	if (LOAD(&wait->thread_pointer) != call->call.thread_pointer ||
	    LOAD(&wait->sp) > call->call.sp || LOAD(&wait->lock) & CPROF_AGENT_LOCK_BUSY)
		return false;
	release(call, wait, id);
	return true;
}

/* False where a handler on a stack of its own has taken us for one that was left. */
static bool is_own(const struct lock_call *call)
{
	return (LOAD(&call->wait->state) & CPROF_AGENT_WAIT_MASK) != CPROF_AGENT_WAIT_OVER &&
	       LOAD(&call->wait->id) == call->id;
}

static struct cprof_agent_wait *claim(const struct lock_call *call)
{
	struct cprof_agent_wait *waits = SHARED->lock_waits[call->bucket];

	for (uint32_t i = 0; i < CPROF_AGENT_LOCK_WAYS; i++) {
		uint64_t expected = 0;

		if (LOAD(&waits[i].lock) != 0 && !release_left(call, &waits[i]))
			continue;
		if (SWAP(&waits[i].lock, &expected, call->lock | CPROF_AGENT_LOCK_BUSY))
			return &waits[i];
	}
	return NULL;
}

/* From here on whoever unlocks is charged, also while our stack is copied. */
static bool begin_wait(struct lock_call *call)
{
	uint32_t forbidden = SHARED->forbidden;
	struct cprof_agent_wait *wait;

	call->began_ns = clock_ns(CLOCK_FINE, forbidden);
	if (!call->began_ns ||
	    (int64_t)(call->began_ns - LOAD(&SHARED->heartbeat_ns)) > (int64_t)CPROF_AGENT_QUIET_NS)
		return false;
	wait = claim(call);
	if (!wait) {
		ADD(&SHARED->lock_full, 1);
		ADD(&SHARED->lock_full_weight, call->call.rate);
		return false;
	}
	call->wait = wait;
	call->id = ADD(&SHARED->next_id, 1);
	wait->id = call->id;
	wait->unlock = 0;
	wait->began_ns = call->began_ns;
	wait->weight = (uint32_t)call->call.rate;
	wait->thread_pointer = call->call.thread_pointer;
	wait->sp = call->call.sp;
	STORE(&wait->state, CPROF_AGENT_WAIT_STATE(call->id, CPROF_AGENT_WAIT_FRESH));
	STORE(&wait->charged_ns, call->began_ns);
	STORE(&wait->lock, call->lock);
	__atomic_add_fetch(&SHARED->waiting[call->bucket], CPROF_AGENT_ONE_FRESH, __ATOMIC_ACQ_REL);
	call->call.size = call->began_ns;
	if (!cprof_agent_ring_lock(&call->call, CPROF_AGENT_RECORD_WAIT, call->id, call->lock)) {
		release(call, wait, call->id);
		return false;
	}
	ADD(&SHARED->lock_timed, 1);
	call->ready_ns = clock_ns(CLOCK_FINE, forbidden);
	return true;
}

/* What went by before the original was called was ours, unless the lock was held then. */
static void end_wait(struct lock_call *call)
{
	struct cprof_agent_wait *wait = call->wait;
	struct cprof_agent_got got = {.id = call->id, .address = call->lock};
	uint64_t charged;
	uint64_t now;
	uint64_t from;

	if (!is_own(call))
		return;
	charged = __atomic_exchange_n(&wait->charged_ns, CPROF_AGENT_LOCK_LEFT, __ATOMIC_ACQ_REL);
	now = clock_ns(CLOCK_FINE, SHARED->forbidden);
	got.tid = cprof_agent_tid(&call->call);
	got.unlock = LOAD(&wait->unlock);
	from = got.unlock && charged > call->ready_ns ? charged : call->ready_ns;
	release(call, wait, call->id);
	got.tail_ns = now > from ? now - from : 0;
	got.delay_ns = got.tail_ns;
	if (got.unlock && charged > call->began_ns)
		got.delay_ns += charged - call->began_ns;
	cprof_agent_ring_got(&call->call, &got);
}

static uint64_t slice_of(const struct cprof_agent_wait *wait, uint64_t now)
{
	uint64_t part = (now - LOAD(&wait->began_ns)) / CPROF_AGENT_LOCK_PART;

	return LOAD(&wait->weight) > 1 && part > CPROF_AGENT_LOCK_SLICE ? part
									: CPROF_AGENT_LOCK_SLICE;
}

/* Takes what an entry has waited since it was charged last: 0, if it is not its turn, or has the
 * lock by now. */
static uint64_t take_slice(struct lock_call *call, struct cprof_agent_wait *wait, uint64_t now)
{
	uint32_t state = LOAD(&wait->state);
	bool fresh = (state & CPROF_AGENT_WAIT_MASK) == CPROF_AGENT_WAIT_FRESH;
	uint64_t least = fresh ? 1 : slice_of(wait, now);
	uint64_t before = LOAD(&wait->charged_ns);

	do {
		if (before > now || now - before < least) /* LEFT is later than any time */
			return 0;
	} while (!SWAP(&wait->charged_ns, &before, now));
	STORE(&wait->unlock, call->id);
	if (fresh && SWAP(&wait->state, &state, state | CPROF_AGENT_WAIT_CHARGED))
		__atomic_add_fetch(&SHARED->waiting[call->bucket],
				   CPROF_AGENT_ONE_CHARGED - CPROF_AGENT_ONE_FRESH,
				   __ATOMIC_ACQ_REL);
	return now - before;
}

/* Charges the caller with what those who are timed have waited; how many they are. */
static uint64_t charge(struct lock_call *call)
{
	struct cprof_agent_lock_rate *rate = &SHARED->lock_rates[call->bucket];
	struct cprof_agent_wait *waits = SHARED->lock_waits[call->bucket];
	uint64_t count = 0;
	uint64_t now = 0;

	for (uint32_t i = 0; i < CPROF_AGENT_LOCK_WAYS; i++) {
		struct cprof_agent_wait *wait = &waits[i];
		uint64_t slice;

		if (LOAD(&wait->lock) != call->lock || release_left(call, wait))
			continue;
		if (!now) {
			if (!is_release(call))
				return 0;
			now = clock_ns(CLOCK_FINE, SHARED->forbidden);
			call->id = ADD(&SHARED->next_id, 1);
		}
		slice = take_slice(call, wait, now);
		call->call.size += slice * wait->weight;
		count += slice != 0;
	}
	call->call.rate = count;
	if (count)
		count_timed(rate);
	return count;
}

/* --- the hooks ----------------------------------------------------------------------------- */

static uint64_t call_original(const struct lock_call *call)
{
	const uint64_t *a = call->call.frame->arguments;
	uint64_t (*original)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) =
		(void *)CONFIG->lock_originals[call->layout][call->call.function];

	return original(a[0], a[1], a[2], a[3], a[4], a[5]);
}

static bool enter(struct lock_call *call, struct frame *frame)
{
	if (!cprof_agent_enter(&call->call, frame))
		return false;
	if (!call->seed)
		call->seed = CONTROL->seed;
	if (CONTROL->seed == call->seed)
		return true;
	cprof_agent_leave(&call->call); /* another profiler has come meanwhile */
	return false;
}

/* It may wait for hours: nothing of ours is held while it does, and all may be gone then. */
static bool take(struct lock_call *call, struct frame *frame)
{
	bool timed;

	if (!enter(call, frame))
		return false;
	timed = is_contended(call) && decide(call) && begin_wait(call);
	cprof_agent_leave(&call->call);
	if (!timed)
		return false;
	frame->result = call_original(call);
	if (enter(call, frame)) {
		end_wait(call);
		cprof_agent_leave(&call->call);
	}
	return true;
}

/* The stack is copied when the lock has been let go: others do not wait for that. */
static bool let_go(struct lock_call *call, struct frame *frame)
{
	uint64_t count;

	if (!enter(call, frame))
		return false;
	count = charge(call);
	cprof_agent_leave(&call->call);
	if (!count)
		return false;
	frame->result = call_original(call);
	if (enter(call, frame)) {
		cprof_agent_ring_lock(&call->call, CPROF_AGENT_RECORD_UNLOCK, call->id, call->lock);
		cprof_agent_leave(&call->call);
	}
	return true;
}

/* No frame may be below a condition wait: the stack is copied before. */
static bool let_go_and_wait(struct lock_call *call, struct frame *frame)
{
	if (!enter(call, frame))
		return false;
	if (charge(call))
		cprof_agent_ring_lock(&call->call, CPROF_AGENT_RECORD_UNLOCK, call->id, call->lock);
	cprof_agent_leave(&call->call);
	return false;
}

bool cprof_agent_lock_slow(struct frame *frame, uint32_t which)
{
	struct lock_call call = {.layout = which / CPROF_AGENT_LOCK_COUNT};
	uint8_t shape;

	call.call.function = which % CPROF_AGENT_LOCK_COUNT;
	shape = shapes[call.call.function];
	call.lock = frame->arguments[shape == CPROF_AGENT_COND];
	call.bucket = (uint32_t)(call.lock >> CPROF_AGENT_LOCK_SHIFT) % CPROF_AGENT_LOCK_BUCKETS;
	if (shape == CPROF_AGENT_UNLOCK)
		return let_go(&call, frame);
	return shape == CPROF_AGENT_COND ? let_go_and_wait(&call, frame) : take(&call, frame);
}

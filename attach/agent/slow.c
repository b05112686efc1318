/* SPDX-License-Identifier: MIT
 *
 * What a hook does when its fast path could not decide. On the caller's stack, which may be a small
 * one for signals: less than 800 bytes in all, 300 of them below the original's own.
 */
#include "agent.h"

#define PLACES 4 /* shards that are looked at for one, beginning with the thread's own */

static const uint8_t shapes[] = {
#define SHAPE(id, symbol, shape, variant) CPROF_AGENT_##shape,
	CPROF_AGENT_FUNCTIONS(SHAPE)
#undef SHAPE
};

static const uint8_t variants[] = {
#define VARIANT(id, symbol, shape, variant) CPROF_AGENT_F_##variant,
	CPROF_AGENT_FUNCTIONS(VARIANT)
#undef VARIANT
};

bool cprof_agent_slow(struct frame *frame) __attribute__((visibility("hidden")));

/* --- places: who is inside, and in an original ---------------------------------------------- */

static struct cprof_agent_shard *place_at(const struct call *call, uint32_t i)
{
	return &PRIVATE->shards[(call->index + i) % CPROF_AGENT_SHARDS];
}

/*
 * A place that is this thread's already belongs to a call that a signal handler has interrupted, or
 * left by longjmp: it is used, and stays its. Without one, when too many threads collide, the call
 * is only counted and goes unguarded.
 */
static void occupy(struct call *call)
{
	call->claimed = false;
	for (uint32_t i = 0; i < PLACES; i++) {
		call->place = place_at(call, i);
		if (LOAD(&call->place->owner) == call->thread_pointer)
			return;
	}
	call->claimed = true;
	for (uint32_t i = 0; i < PLACES; i++) {
		uint64_t owner = 0;

		call->place = place_at(call, i);
		if (LOAD(&call->place->owner) == 0 &&
		    SWAP(&call->place->owner, &owner, call->thread_pointer))
			return;
	}
	call->place = NULL;
	__atomic_add_fetch(&call->shard->inside, 1, __ATOMIC_SEQ_CST);
}

/* Whether the call comes from inside an original: an allocation that an allocator makes for itself
 * is not counted. A guard above whose stack pointer we are was left by longjmp. */
static bool is_nested(const struct call *call)
{
	return !call->claimed && call->sp < LOAD(&call->place->guard);
}

/* --- to sample or not ---------------------------------------------------------------------- */

bool cprof_agent_is_silent(void)
{
	uint64_t heartbeat = LOAD(&SHARED->heartbeat_ns);
	uint64_t now;

	if (LOAD(&SHARED->quiet_since) == heartbeat)
		return true;
	now = now_ns(SHARED->forbidden);
	if (!now || (int64_t)(now - heartbeat) < (int64_t)CPROF_AGENT_QUIET_NS)
		return false;
	if (__atomic_exchange_n(&SHARED->quiet_since, heartbeat, __ATOMIC_ACQ_REL) != heartbeat)
		ADD(&SHARED->quiet, 1);
	return true;
}

/* The clock is too dear to be asked by each call. */
static bool is_silent_now(struct call *call)
{
	if (++call->shard->ticks % (call->exact ? 512 : 8) != 0)
		return LOAD(&SHARED->quiet_since) == LOAD(&SHARED->heartbeat_ns);
	return cprof_agent_is_silent();
}

static void draw(struct call *call)
{
	uint64_t rate = LOAD(&SHARED->rate);

	call->shard->rate = rate;
	call->shard->countdown = cprof_agent_gap_draw(call->shard, call->index, rate);
}

/*
 * The rate with which this call is sampled, 0: it is not. Whoever crosses the end of a gap draws
 * the next one at once: a gap has no memory, so whatever happens meanwhile (a signal handler that
 * allocates, another thread of the same shard) finds one that is right.
 */
static uint64_t decide(struct call *call)
{
	struct cprof_agent_shard *shard = call->shard;
	uint32_t epoch = LOAD(&SHARED->epoch);
	uint64_t rate;

	if (shard->epoch != epoch || shard->countdown <= call->size) {
		if (is_silent_now(call)) {
			shard->countdown = CPROF_AGENT_NAP;
			shard->epoch = ~epoch;
			return 0;
		}
	}
	if (shard->epoch != epoch) {
		shard->epoch = epoch;
		draw(call);
	}
	if (shard->countdown > call->size) {
		shard->countdown -= call->size + 1;
		return 0;
	}
	rate = shard->rate;
	draw(call);
	return rate;
}

/* --- what is done about it ----------------------------------------------------------------- */

static void forget(struct call *call, uint64_t address)
{
	uint64_t *key;

	if (call->exact) {
		if (!is_silent_now(call))
			cprof_agent_ring_short(call, CPROF_AGENT_RECORD_FREE, address);
		return;
	}
	key = cprof_agent_live_take(address);
	if (key) {
		cprof_agent_live_release(key);
		ADD(&SHARED->frees, 1);
	}
}

/* Calls the original, or the variant that returns NULL where it would throw: it takes a reference
 * to a nothrow_t after its other arguments, which has no content. */
static uint64_t call_original(const struct call *call, uint32_t variant)
{
	const uint64_t *a = call->frame->arguments;
	uint64_t second = a[1];
	uint64_t third = a[2];
	uint64_t (*original)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) =
		(void *)CONFIG->originals[call->bank][variant];
	uint64_t result;

	if (variant != call->function) {
		if (variant == CPROF_AGENT_F_new_aligned_nothrow ||
		    variant == CPROF_AGENT_F_newa_aligned_nothrow)
			third = (uint64_t)a;
		else
			second = (uint64_t)a;
	}
	if (call->place)
		STORE(&call->place->guard, call->sp);
	result = original(a[0], second, third, a[3], a[4], a[5]);
	if (call->place)
		STORE(&call->place->guard, 0);
	return result;
}

static uint64_t address_of(const struct call *call, uint64_t result)
{
	if (shapes[call->function] != CPROF_AGENT_POSIX)
		return result;
	return (uint32_t)result == 0 ? *(const uint64_t *)call->frame->arguments[0] : 0;
}

/* The block was to be moved: it is gone, or still there when that failed. */
static void settle_old(struct call *call, uint64_t *key, bool kept)
{
	if (call->exact) {
		if (kept)
			cprof_agent_ring_short(call, CPROF_AGENT_RECORD_KEEP, call->old);
	} else if (key) {
		if (kept) {
			cprof_agent_live_restore(key);
		} else {
			cprof_agent_live_release(key);
			ADD(&SHARED->frees, 1);
		}
	}
}

static void sample(struct call *call, uint64_t address)
{
	uint64_t *key = NULL;

	if (!call->exact) {
		key = cprof_agent_live_claim(address);
		if (!key)
			return;
	}
	cprof_agent_ring_alloc(call, address, key);
}

static bool allocate(struct call *call)
{
	uint32_t variant = variants[call->function];
	uint64_t *key = NULL;
	uint64_t result;
	uint64_t address;

	if (call->old && call->exact)
		forget(call, call->old);
	else if (call->old)
		key = cprof_agent_live_take(call->old);
	if (!call->rate && !key)
		return false;
	if (!CONFIG->originals[call->bank][variant]) {
		ADD(&SHARED->dropped, 1);
		if (call->exact)
			ADD(&SHARED->dropped_bytes, call->size);
		return false;
	}
	result = call_original(call, variant);
	address = address_of(call, result);
	/* Off: switched off meanwhile, or this is a child that a signal handler forked. */
	if (LOAD(&CONTROL->on)) {
		if (call->old)
			settle_old(call, key, !address && call->size);
		if (address && call->rate)
			sample(call, address);
	}
	if (!address && variant != call->function)
		return false; /* the original shall throw */
	call->frame->result = result;
	return true;
}

/* False: the product does not fit; the original fails. */
static bool read_arguments(struct call *call)
{
	const uint64_t *a = call->frame->arguments;

	switch (shapes[call->function]) {
	case CPROF_AGENT_SIZE1:
		call->size = a[0];
		return true;
	case CPROF_AGENT_SIZE2:
		call->size = a[1];
		return true;
	case CPROF_AGENT_COUNT:
		return !__builtin_mul_overflow(a[0], a[1], &call->size);
	case CPROF_AGENT_RESIZE:
		call->old = a[0];
		call->size = a[1];
		return true;
	case CPROF_AGENT_RECOUNT:
		call->old = a[0];
		return !__builtin_mul_overflow(a[1], a[2], &call->size);
	default:
		call->size = a[2];
		return true;
	}
}

static bool serve(struct call *call)
{
	bool nested = is_nested(call);

	if (shapes[call->function] == CPROF_AGENT_FREE) {
		if (!nested && call->frame->arguments[0])
			forget(call, call->frame->arguments[0]);
		return false;
	}
	if (!read_arguments(call))
		return false;
	call->rate = decide(call);
	return !nested && allocate(call);
}

bool cprof_agent_enter(struct call *call, struct frame *frame)
{
	call->frame = frame;
	call->sp = (uint64_t)frame->above;
	if (!LOAD(&CONTROL->on))
		return false;
	__asm__("mov %%fs:0, %0" : "=r"(call->thread_pointer));
	call->index = (uint32_t)(call->thread_pointer * CPROF_AGENT_HASH >>
				 (64 - CPROF_AGENT_SHARD_BITS));
	call->shard = &PRIVATE->shards[call->index];
	occupy(call);
	if (LOAD(&CONTROL->on))
		return true;
	cprof_agent_leave(call);
	return false;
}

void cprof_agent_leave(struct call *call)
{
	if (!call->place)
		__atomic_sub_fetch(&call->shard->inside, 1, __ATOMIC_SEQ_CST);
	else if (call->claimed)
		STORE(&call->place->owner, 0);
}

/* True: the frame has the result. False: to be passed on to the original. */
bool cprof_agent_slow(struct frame *frame)
{
	const uint32_t allocators = CPROF_AGENT_BANKS * CPROF_AGENT_FUNCTION_COUNT;
	struct call call = {0};
	bool served;

	if (frame->index >= allocators)
		return cprof_agent_lock_slow(frame, (uint32_t)frame->index - allocators);
	if (!cprof_agent_enter(&call, frame))
		return false;
	call.bank = (uint32_t)frame->index / CPROF_AGENT_FUNCTION_COUNT;
	call.function = (uint32_t)frame->index % CPROF_AGENT_FUNCTION_COUNT;
	call.exact = LOAD(&SHARED->rate) == 1;
	served = serve(&call);
	cprof_agent_leave(&call);
	return served;
}

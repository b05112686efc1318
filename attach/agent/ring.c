/* SPDX-License-Identifier: MIT
 *
 * Records into the ring. Any number of writers, async-signal-safe; one reader, the profiler.
 */
#include "agent.h"

/* At rate 1, for room in the ring: longer than a profiler ever needs. */
#define WAIT_NS     1000000000ull
#define PAGE        4096u
#define FETCH_AHEAD 512u /* bytes */

struct ring {
	uint64_t *head;
	const uint64_t *tail;
	uint8_t *bytes;
	uint64_t mask; /* of positions: the size, a power of two, less one */
};

static inline struct ring heap_ring(void)
{
	return (struct ring){&SHARED->head, &SHARED->tail, SHARED->ring, CPROF_AGENT_RING_SIZE - 1};
}

static inline struct ring lock_ring(void)
{
	return (struct ring){&SHARED->lock_head, &SHARED->lock_tail, SHARED->lock_ring,
			     CPROF_AGENT_LOCK_RING_SIZE - 1};
}

_Static_assert((CPROF_AGENT_RING_SIZE & (CPROF_AGENT_RING_SIZE - 1)) == 0 &&
		       (CPROF_AGENT_LOCK_RING_SIZE & (CPROF_AGENT_LOCK_RING_SIZE - 1)) == 0,
	       "masks");

static void stamp(const struct ring *ring, uint64_t position, uint64_t length, uint32_t state)
{
	uint64_t *word = (uint64_t *)&ring->bytes[position & ring->mask];

	STORE(word, length | (uint64_t)((uint32_t)position | state) << 32);
}

/* The reader had these bytes last: they are fetched before the records that will lie there are
 * written, or each would wait for them. */
static void fetch(const struct ring *ring, uint64_t position)
{
	const uint8_t *place = &ring->bytes[(position + FETCH_AHEAD) & ring->mask];

	__asm__ volatile("prefetchw %0" : : "m"(*place));
}

/* Waits until the reader has moved. When that was in vain nobody waits again for the same. */
static bool wait_for_room(uint64_t tail)
{
	uint32_t forbidden = SHARED->forbidden;

	if (forbidden & CPROF_AGENT_FORBID_YIELD || LOAD(&SHARED->stalled) == tail + 1 ||
	    cprof_agent_is_silent())
		return false;
	ADD(&SHARED->waits, 1);
	cprof_agent_linger(&SHARED->tail, tail, WAIT_NS, forbidden);
	if (LOAD(&SHARED->tail) != tail)
		return true;
	STORE(&SHARED->stalled, tail + 1);
	return false;
}

/* Room for a record, stamped BUSY. NULL: there is none. */
static void *reserve(const struct ring *ring, bool wait, uint32_t length, uint64_t *position)
{
	uint64_t head = LOAD(ring->head);
	uint64_t tail;
	uint64_t pad;

	for (;;) {
		uint64_t offset = head & ring->mask;

		tail = LOAD(ring->tail);
		pad = offset + length > ring->mask + 1 ? ring->mask + 1 - offset : 0;
		if (head + pad + length - tail > ring->mask + 1) {
			if (!wait || !wait_for_room(tail))
				return NULL;
			head = LOAD(ring->head);
		} else if (SWAP(ring->head, &head, head + pad + length)) {
			break;
		}
	}
	if (pad)
		stamp(ring, head, pad, CPROF_AGENT_STAMP_PAD);
	*position = head + pad;
	fetch(ring, *position + length);
	stamp(ring, *position, length, CPROF_AGENT_STAMP_BUSY);
	return &ring->bytes[*position & ring->mask];
}

/* The last bytes of what was reserved, if nobody has reserved any since: 128 unknown stacks of 32
 * KB would fill the ring. */
static bool give_back(const struct ring *ring, uint64_t end, uint64_t length)
{
	return SWAP(ring->head, &end, end - length);
}

/* The libc's own word is always right; a cached one may be that of a thread that has ended, whose
 * thread pointer a new one got: good enough for a record without a stack only, and looked at anew
 * now and then. */
static uint32_t tid_of(const struct call *call, bool fresh)
{
	struct cprof_agent_shard *shard = call->shard;
	uint32_t offset = LOAD(&SHARED->tid_offset);
	long tid;

	if (offset)
		return *(volatile uint32_t *)(call->thread_pointer + offset);
	if (SHARED->forbidden & CPROF_AGENT_FORBID_GETTID)
		return 0;
	if (!fresh && shard->tid_owner == call->thread_pointer && shard->ticks % 64 != 0)
		return shard->tid;
	tid = system_call(SYS_GETTID, 0, 0, 0, 0, 0, 0);
	if (tid < 0)
		return 0;
	shard->tid = (uint32_t)tid;
	shard->tid_owner = call->thread_pointer;
	return (uint32_t)tid;
}

/* Bytes from the stack pointer upwards that may be read by plain loads, 0: not known. */
static uint64_t known_stack(const struct call *call, uint32_t tid)
{
	const struct cprof_agent_stack *stack = &SHARED->stacks[call->index];
	uint32_t sequence = LOAD(&stack->sequence);
	uint64_t low = LOAD(&stack->low);
	uint64_t high = LOAD(&stack->high);

	if (LOAD(&stack->thread_pointer) != call->thread_pointer || LOAD(&stack->tid) != tid ||
	    !tid || sequence & 1 || LOAD(&stack->sequence) != sequence)
		return 0;
	return call->sp >= low && call->sp < high ? (high - call->sp) & ~7ull : 0;
}

static void copy(void *to, const void *from, uint64_t length)
{
	uint64_t words = length / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

/* The kernel copies as far as pages are readable, but a vector that begins in a bad page ends it:
 * one vector a page. */
static uint64_t read_stack(const struct call *call, uint32_t tid, void *to, uint64_t length)
{
	struct vector pages[CPROF_AGENT_STACK_MAX / PAGE + 1];
	struct vector buffer = {(uint64_t)to, length};
	uint64_t at = call->sp;
	uint64_t left = length;
	size_t count = 0;
	long got;

	if (!length || SHARED->forbidden & CPROF_AGENT_FORBID_READV)
		return 0;
	while (left) {
		uint64_t piece = PAGE - at % PAGE;

		if (piece > left)
			piece = left;
		pages[count++] = (struct vector){at, piece};
		at += piece;
		left -= piece;
	}
	got = tid ? read_memory(tid, &buffer, pages, count) : -1;
	if (got < 0)
		got = read_memory(tid_of(call, true), &buffer, pages, count);
	return got > 0 ? (uint64_t)got & ~7ull : 0;
}

static void fill(struct cprof_agent_record *record, const struct call *call, uint32_t tid,
		 uint64_t address)
{
	const struct frame *frame = call->frame;

	record->type = CPROF_AGENT_RECORD_ALLOC;
	record->function = (uint16_t)call->function;
	record->tid = tid;
	record->address = address;
	record->size = call->size;
	record->rate = call->rate;
	record->thread_pointer = call->thread_pointer;
	record->pc = frame->pc;
	record->sp = call->sp;
	record->rbx = frame->rbx;
	record->rbp = frame->rbp;
	record->r12 = frame->r12;
	record->r13 = frame->r13;
	record->r14 = frame->r14;
	record->r15 = frame->r15;
}

/* A record with the caller's registers and stack, not finished yet. */
struct draft {
	struct ring ring;
	struct cprof_agent_record *record;
	uint64_t position;
	uint64_t known; /* bytes of stack that may be read by plain loads, 0: not known */
	uint64_t room;  /* for the stack */
	uint32_t tid;
};

/* On a thread's own stack its control block lies above all frames; elsewhere it is far. */
static uint64_t below_control(const struct call *call)
{
	return (call->thread_pointer - call->sp) & ~7ull;
}

static struct draft draft_of(const struct call *call, struct ring ring)
{
	struct draft draft = {.ring = ring, .tid = tid_of(call, true)};
	uint64_t above = below_control(call);
	uint64_t most = SHARED->stack_max & ~7u;

	if (most > CPROF_AGENT_STACK_MAX)
		most = CPROF_AGENT_STACK_MAX;
	if (most > above)
		most = above;
	draft.known = known_stack(call, draft.tid);
	if (draft.known > above)
		draft.known = above;
	draft.room = draft.known && draft.known < most ? draft.known : most;
	return draft;
}

/* False: there is no room. */
static bool draft_begin(struct draft *draft, const struct call *call, bool wait, uint64_t address)
{
	uint64_t known = draft->known;
	uint64_t length = draft->room;
	struct cprof_agent_record *record =
		reserve(&draft->ring, wait, (uint32_t)(sizeof(*record) + length), &draft->position);

	if (!record)
		return false;
	fill(record, call, draft->tid, address);
	if (known)
		copy(record + 1, (const void *)call->sp, length);
	else
		length = read_stack(call, draft->tid, record + 1, length);
	record->stack_length = (uint32_t)length;
	record->cut =
		known ? known > length : length == draft->room && length < below_control(call);
	draft->record = record;
	return true;
}

static bool draft_lacks_stack(const struct draft *draft)
{
	return !draft->record->stack_length && draft->room;
}

static void draft_end(const struct draft *draft)
{
	uint64_t length = draft->record->stack_length + sizeof(*draft->record);
	uint64_t room = draft->room + sizeof(*draft->record);

	if (room > length && !give_back(&draft->ring, draft->position + room, room - length))
		stamp(&draft->ring, draft->position + length, room - length, CPROF_AGENT_STAMP_PAD);
	stamp(&draft->ring, draft->position, length, CPROF_AGENT_STAMP_DONE);
}

static void count_dropped(const struct call *call)
{
	ADD(&SHARED->dropped, 1);
	if (call->exact)
		ADD(&SHARED->dropped_bytes, call->size);
}

static void put_seen(const struct call *call, uint32_t tid, uint64_t address, uint32_t stack)
{
	const struct ring ring = heap_ring();
	uint64_t position;
	struct cprof_agent_record *record =
		reserve(&ring, true, CPROF_AGENT_RECORD_MIDDLE, &position);

	if (!record) {
		count_dropped(call);
		return;
	}
	record->type = CPROF_AGENT_RECORD_SEEN;
	record->function = (uint16_t)call->function;
	record->tid = tid;
	record->address = address;
	record->id = stack;
	record->size = call->size;
	stamp(&ring, position, CPROF_AGENT_RECORD_MIDDLE, CPROF_AGENT_STAMP_DONE);
}

void cprof_agent_ring_alloc(struct call *call, uint64_t address, uint64_t *key)
{
	struct draft draft = draft_of(call, heap_ring());
	uint32_t stack;

	if (call->exact && draft.known && cprof_agent_seen_find(call, draft.room, &stack)) {
		put_seen(call, draft.tid, address, stack);
		return;
	}
	if (!draft_begin(&draft, call, call->exact, address)) {
		count_dropped(call);
		if (key)
			cprof_agent_live_release(key);
		return;
	}
	draft.record->id = ADD(&SHARED->next_id, 1);
	if (draft_lacks_stack(&draft))
		ADD(&SHARED->stack_failures, 1);
	if (key) {
		cprof_agent_live_publish(key, draft.record->id, call->size, call->rate);
		ADD(&SHARED->allocs, 1);
	}
	draft_end(&draft);
}

void cprof_agent_ring_short(struct call *call, uint16_t type, uint64_t address)
{
	const struct ring ring = heap_ring();
	uint64_t position;
	struct cprof_agent_record *record =
		reserve(&ring, true, CPROF_AGENT_RECORD_SHORT, &position);

	if (!record) {
		ADD(&SHARED->dropped_frees, 1);
		return;
	}
	record->type = type;
	record->function = (uint16_t)call->function;
	record->tid = tid_of(call, false);
	record->address = address;
	stamp(&ring, position, CPROF_AGENT_RECORD_SHORT, CPROF_AGENT_STAMP_DONE);
}

/* --- locks: nobody waits for room ---------------------------------------------------------- */

bool cprof_agent_ring_lock(struct call *call, uint16_t type, uint64_t id, uint64_t lock)
{
	struct draft draft = draft_of(call, lock_ring());

	if (!draft_begin(&draft, call, false, lock)) {
		ADD(&SHARED->lock_dropped, 1);
		if (type == CPROF_AGENT_RECORD_UNLOCK) {
			ADD(&SHARED->lock_dropped_unlocks, 1);
			ADD(&SHARED->lock_dropped_ns, call->size);
		}
		return false;
	}
	draft.record->type = type;
	draft.record->id = id;
	if (draft_lacks_stack(&draft))
		ADD(&SHARED->lock_failures, 1);
	draft_end(&draft);
	return true;
}

void cprof_agent_ring_got(struct call *call, const struct cprof_agent_got *got)
{
	const struct ring ring = lock_ring();
	uint64_t position;
	struct cprof_agent_got *record = reserve(&ring, false, sizeof(*got), &position);

	if (!record) {
		ADD(&SHARED->lock_dropped, 1);
		return;
	}
	record->type = CPROF_AGENT_RECORD_GOT;
	record->function = (uint16_t)call->function;
	record->tid = got->tid;
	record->id = got->id;
	record->address = got->address;
	record->delay_ns = got->delay_ns;
	record->tail_ns = got->tail_ns;
	record->unlock = got->unlock;
	stamp(&ring, position, sizeof(*record), CPROF_AGENT_STAMP_DONE);
}

uint32_t cprof_agent_tid(const struct call *call)
{
	return tid_of(call, true);
}

/* SPDX-License-Identifier: MIT
 *
 * What a borrowed thread runs for the profiler, see struct cprof_agent_call. Its system calls are
 * those of CPROF_AGENT_ROUTINE_CALLS. The others of the process run on meanwhile, and may unmap
 * what is to be patched: every slot is looked at first by a call that cannot fault.
 */
#include "agent.h"

#define BATCH        32 /* orders that are looked at with one call */
#define PAGE         4096ull
#define DONE_NS      100000000ull
#define FAULT_NS     1000000000ull
#define SPINS        1000
#define NS_PER_PAUSE 20 /* not less than a pause takes: bounds a wait without a clock */

#define EBADF               9
#define EEXIST              17
#define PROT_READ           1
#define PROT_WRITE          2
#define MAP_SHARED          1
#define MAP_PRIVATE         2
#define MAP_ANONYMOUS       0x20
#define MAP_FIXED_NOREPLACE 0x100000
#define MADV_DONTFORK       10
#define MADV_WIPEONFORK     18
#define FORBID_ALL                                                                                 \
	(CPROF_AGENT_FORBID_READV | CPROF_AGENT_FORBID_CLOCK | CPROF_AGENT_FORBID_GETTID |         \
	 CPROF_AGENT_FORBID_YIELD)

struct swapped {
	uint64_t found; /* what the slot held */
	uint64_t fault; /* 1: it could not be touched, and a tracer led us around it */
};

#pragma GCC visibility push(hidden)
struct swapped cprof_agent_swap_slot(uint64_t slot, uint64_t expected, uint64_t value);
void cprof_agent_routine(struct cprof_agent_call *call);
#pragma GCC visibility pop

__asm__(".text\n"
	".globl cprof_agent_run, cprof_agent_swap, cprof_agent_skip, cprof_agent_swap_slot\n"
	".hidden cprof_agent_routine\n"
	/* The thread may have been borrowed anywhere. */
	"cprof_agent_run:\n"
	"	endbr64\n"
	"	cld\n"
	"	mov %rdi, %rbx\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call cprof_agent_routine\n"
	"	mov 32(%rbx), %rsp\n" /* sigreturn */
	"	mov $15, %eax\n"
	"	syscall\n"
	"	ud2\n"
	"cprof_agent_swap_slot:\n"
	"	mov %rsi, %rax\n"
	"	mov %rdx, %rcx\n"
	"	xor %edx, %edx\n"
	"cprof_agent_swap:\n"
	"	lock cmpxchg %rcx, (%rdi)\n"
	"	ret\n"
	"cprof_agent_skip:\n"
	"	mov $1, %edx\n"
	"	ret\n");

_Static_assert(offsetof(struct cprof_agent_call, sigreturn) == 32, "asm");

void cprof_agent_linger(const uint64_t *word, uint64_t value, uint64_t ns, uint32_t forbidden)
{
	uint64_t begin = 0;
	uint64_t now;

	for (uint64_t i = 0; LOAD(word) == value && i < ns / NS_PER_PAUSE; i++) {
		if (i < SPINS || forbidden & CPROF_AGENT_FORBID_YIELD) {
			__builtin_ia32_pause();
			if (i % SPINS)
				continue;
		} else {
			system_call(SYS_SCHED_YIELD, 0, 0, 0, 0, 0, 0);
		}
		now = now_ns(forbidden);
		if (!begin)
			begin = now;
		if (now && now - begin > ns)
			break;
	}
}

static void fault_point(struct cprof_agent_call *call, uint64_t point)
{
	if (call->fault != point)
		return;
	STORE(&call->reached, point);
	cprof_agent_linger(&call->fault, point, FAULT_NS, SHARED->forbidden);
}

/* --- patching ------------------------------------------------------------------------------ */

static bool restores(const struct cprof_agent_call *call)
{
	return call->operation == CPROF_AGENT_RESTORE;
}

/* An order that is WANTED may have been carried out by a routine that was killed then. */
static bool is_due(const struct cprof_agent_call *call, const struct cprof_agent_order *order)
{
	return order->state == CPROF_AGENT_ORDER_WANTED ||
	       (restores(call) && order->state == CPROF_AGENT_ORDER_DONE);
}

static uint64_t expected_of(const struct cprof_agent_call *call,
			    const struct cprof_agent_order *order)
{
	return restores(call) ? order->hook : order->before;
}

static uint64_t value_of(const struct cprof_agent_call *call, const struct cprof_agent_order *order)
{
	return restores(call) ? order->before : order->hook;
}

/*
 * Looks at the slots of `count` orders; how many there are before the first that could not be read.
 * Of neighbours on a page only the first is read, since each costs half a microsecond: `values` has
 * what is expected for the others, and the swap will tell. Where the call is forbidden the tracer
 * has to catch what faults.
 */
static size_t look(const struct cprof_agent_call *call, const struct cprof_agent_order *orders,
		   size_t count, uint64_t *values)
{
	const uint32_t needed = CPROF_AGENT_FORBID_READV | CPROF_AGENT_FORBID_GETTID;
	struct vector slots[BATCH];
	uint64_t found[BATCH];
	struct vector buffer = {(uint64_t)found, 0};
	size_t pages = 0;
	size_t known = 0;
	long got;

	for (size_t i = 0; i < count; i++) {
		values[i] = expected_of(call, &orders[i]);
		if (i == 0 || (orders[i].slot & -PAGE) != (orders[i - 1].slot & -PAGE))
			slots[pages++] = (struct vector){orders[i].slot, sizeof(*found)};
	}
	if (SHARED->forbidden & needed)
		return count;
	buffer.length = pages * sizeof(*found);
	got = read_memory((uint32_t)system_call(SYS_GETTID, 0, 0, 0, 0, 0, 0), &buffer, slots,
			  pages);
	pages = got > 0 ? (size_t)got / sizeof(*found) : 0;
	for (size_t i = 0, page = 0; i < count; i++, known++) {
		if (i && (orders[i].slot & -PAGE) == (orders[i - 1].slot & -PAGE))
			continue;
		if (page == pages)
			break;
		values[i] = found[page++];
	}
	return known;
}

static void settle(struct cprof_agent_call *call, struct cprof_agent_order *order, uint64_t found,
		   bool fault)
{
	uint64_t expected = expected_of(call, order);
	uint64_t value = value_of(call, order);
	uint32_t state = CPROF_AGENT_ORDER_CHANGED;

	if (fault)
		state = CPROF_AGENT_ORDER_FAILED;
	else if (found == expected || found == value)
		state = restores(call) ? CPROF_AGENT_ORDER_RESTORED : CPROF_AGENT_ORDER_DONE;
	if (!fault && found == expected)
		call->changed++;
	else if (fault || found != value)
		call->failed++;
	STORE(&order->state, state);
}

/*
 * One run of orders whose slots hold what is expected. The protection is put back only if a slot
 * still did afterwards: otherwise another mapping has taken the place of the module.
 */
static void carry_out(struct cprof_agent_call *call, struct cprof_agent_order *orders, size_t count)
{
	uint64_t begin = orders[0].slot & -PAGE;
	uint64_t length = (orders[count - 1].slot & -PAGE) + PAGE - begin;
	bool writable = true;
	bool ours = false;

	if (orders[0].relro)
		writable = system_call(SYS_MPROTECT, begin, length, PROT_READ | PROT_WRITE, 0, 0,
				       0) == 0;
	for (size_t i = 0; i < count; i++) {
		struct cprof_agent_order *order = &orders[i];
		uint64_t expected = expected_of(call, order);
		struct swapped swapped = {0, 1};

		if (writable)
			swapped =
				cprof_agent_swap_slot(order->slot, expected, value_of(call, order));
		ours |= !swapped.fault && swapped.found == expected;
		settle(call, order, swapped.found, swapped.fault);
	}
	if (orders[0].relro && writable && ours)
		system_call(SYS_MPROTECT, begin, length, PROT_READ, 0, 0, 0);
}

/* Whether two orders may share one change of protection: same or neighbouring pages, ascending. */
static bool belongs(const struct cprof_agent_order *last, const struct cprof_agent_order *next)
{
	uint64_t page = last->slot & -PAGE;

	return next->relro == last->relro && (!next->relro || (next->slot & -PAGE) == page ||
					      (next->slot & -PAGE) == page + PAGE);
}

/* Up to BATCH orders that are all due. */
static void patch_batch(struct cprof_agent_call *call, struct cprof_agent_order *orders,
			size_t count)
{
	uint64_t values[BATCH];
	size_t known = 0;
	size_t i = 0;

	while (i < count) {
		size_t n = 1;

		if (i >= known) {
			known = i + look(call, orders + i, count - i, values + i);
			if (i >= known) {
				settle(call, &orders[i++], 0, true);
				known = i;
				continue;
			}
		}
		if (values[i] != expected_of(call, &orders[i])) {
			settle(call, &orders[i], values[i], false);
			known = ++i; /* its neighbours have not been looked at */
			continue;
		}
		while (i + n < known && belongs(&orders[i + n - 1], &orders[i + n]) &&
		       values[i + n] == expected_of(call, &orders[i + n]))
			n++;
		carry_out(call, orders + i, n);
		i += n;
	}
}

static void patch(struct cprof_agent_call *call)
{
	struct cprof_agent_order *orders = SHARED->orders;
	uint64_t end = SHARED->order_count;
	uint64_t i = call->first;
	uint64_t half;

	if (end > CPROF_AGENT_ORDERS)
		end = CPROF_AGENT_ORDERS;
	half = i + (end > i ? end - i : 0) / 2;
	while (i < end) {
		uint64_t limit = i < half ? half : end;
		size_t n = 0;

		while (n < BATCH && i + n < limit && is_due(call, &orders[i + n]))
			n++;
		if (n)
			patch_batch(call, orders + i, n);
		else
			n = 1;
		i += n;
		if (i == half)
			fault_point(call, CPROF_AGENT_FAULT_HALF);
	}
	fault_point(call, CPROF_AGENT_FAULT_PATCHED);
}

/* --- mapping ------------------------------------------------------------------------------- */

static long map(void *at, uint64_t size, uint64_t flags, int fd, int advice)
{
	long got = system_call(SYS_MMAP, (uint64_t)at, size, PROT_READ | PROT_WRITE,
			       flags | MAP_FIXED_NOREPLACE, (uint64_t)(int64_t)fd,
			       fd < 0 ? 0 : CPROF_AGENT_SHARED);

	if (got < 0 && got > -4096)
		return got;
	/* Kernels before 4.17 take the address for a hint. */
	if (got != (long)at) {
		system_call(SYS_MUNMAP, (uint64_t)got, size, 0, 0, 0, 0);
		return -EEXIST;
	}
	got = system_call(SYS_MADVISE, (uint64_t)at, size, (uint64_t)advice, 0, 0, 0);
	if (got < 0)
		system_call(SYS_MUNMAP, (uint64_t)at, size, 0, 0, 0, 0);
	return got;
}

static void unmap(void *at, uint64_t size)
{
	system_call(SYS_MUNMAP, (uint64_t)at, size, 0, 0, 0, 0);
}

#define SHARED_LENGTH  ((CPROF_AGENT_SHARED_SIZE + PAGE - 1) & -PAGE)
#define CONTROL_LENGTH (CPROF_AGENT_RESIDENT - CPROF_AGENT_CONTROL)

static bool map_all(struct cprof_agent_call *call)
{
	const uint64_t own = MAP_PRIVATE | MAP_ANONYMOUS;

	call->step = CPROF_AGENT_STEP_CONTROL;
	if (!call->adopt) {
		call->error = map(CONTROL, CONTROL_LENGTH, own, -1, MADV_WIPEONFORK);
		if (call->error)
			return false;
	}
	STORE(&CONTROL->busy, 1);
	call->step = CPROF_AGENT_STEP_PRIVATE;
	call->error = map(PRIVATE, CPROF_AGENT_PRIVATE_SIZE, own, -1, MADV_WIPEONFORK);
	if (!call->error) {
		call->step = CPROF_AGENT_STEP_SHARED;
		call->error = map(SHARED, SHARED_LENGTH, MAP_SHARED, call->memfd, MADV_DONTFORK);
		if (!call->error && SHARED->magic == CPROF_AGENT_MAGIC)
			return true;
		if (!call->error) { /* another file's descriptor by now */
			unmap(SHARED, SHARED_LENGTH);
			call->memfd = -1;
			call->error = -EBADF;
		}
		unmap(PRIVATE, CPROF_AGENT_PRIVATE_SIZE);
	}
	STORE(&CONTROL->busy, 0);
	if (!call->adopt)
		unmap(CONTROL, CONTROL_LENGTH);
	return false;
}

static void close_memfd(struct cprof_agent_call *call)
{
	if (call->memfd >= 0)
		system_call(SYS_CLOSE, (uint64_t)call->memfd, 0, 0, 0, 0, 0);
	call->memfd = -1;
}

static void start(struct cprof_agent_call *call)
{
	bool mapped = map_all(call);

	close_memfd(call);
	if (!mapped)
		return;
	call->step = CPROF_AGENT_STEP_PATCH;
	fault_point(call, CPROF_AGENT_FAULT_MAPPED);
	if (SHARED->rate == 1) {
		void *filter = PRIVATE->filter;
		uint64_t count = sizeof(PRIVATE->filter);

		__asm__ volatile("rep stosb" : "+D"(filter), "+c"(count) : "a"(255) : "memory");
	}
	patch(call);
	CONTROL->seed = call->seed;
	STORE(&CONTROL->on, (uint64_t)PRIVATE);
}

void cprof_agent_routine(struct cprof_agent_call *call)
{
	uint32_t forbidden = FORBID_ALL;
	bool busy = call->operation != CPROF_AGENT_ABORT;

	if (busy && call->operation != CPROF_AGENT_START)
		STORE(&CONTROL->busy, 1);
	switch (call->operation) {
	case CPROF_AGENT_START:
		start(call);
		busy = !call->error;
		if (busy)
			forbidden = SHARED->forbidden;
		break;
	case CPROF_AGENT_RESTORE:
		__atomic_store_n(&CONTROL->on, 0, __ATOMIC_SEQ_CST);
		call->step = CPROF_AGENT_STEP_PATCH;
		forbidden = SHARED->forbidden;
		patch(call);
		break;
	case CPROF_AGENT_PATCH:
		call->step = CPROF_AGENT_STEP_PATCH;
		forbidden = SHARED->forbidden;
		patch(call);
		break;
	case CPROF_AGENT_UNMAP:
		forbidden = SHARED->forbidden;
		unmap(PRIVATE, CPROF_AGENT_PRIVATE_SIZE);
		unmap(SHARED, SHARED_LENGTH);
		break;
	default: /* ABORT */
		close_memfd(call);
		break;
	}
	/* From here on nothing but the text and the stack is used. */
	if (busy)
		STORE(&CONTROL->busy, 0);
	STORE(&call->done, 1);
	cprof_agent_linger(&call->done, 1, DONE_NS, forbidden);
}

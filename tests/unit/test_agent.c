/* SPDX-License-Identifier: MIT
 *
 * The hooks, one by one: what is passed on, what is recorded, what is counted as lost.
 */
#include "agent_plant.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include <cmocka.h>

#define FAKE 1 /* the bank of the allocators below */

/* --- an allocator that gives what the test wants ------------------------------------------- */

static void *fake_result;
static uint64_t fake_calls;
static uint64_t fake_last; /* the call with the most recent arguments: what function it was */
static const struct plant *fake_plant;

static void *fake_malloc(size_t size)
{
	(void)size;
	fake_calls++;
	fake_last = CPROF_AGENT_F_malloc;
	return fake_result;
}

static void *fake_realloc(void *old, size_t size)
{
	(void)old;
	(void)size;
	fake_calls++;
	return fake_result;
}

static void fake_free(void *block)
{
	(void)block;
	fake_calls++;
}

/* As musl's: by way of a hooked malloc. */
static void *fake_calloc(size_t count, size_t size)
{
	void *(*hook)(size_t) = plant_hook(fake_plant, FAKE, CPROF_AGENT_F_malloc);

	return hook(count * size);
}

static void *fake_new(size_t size)
{
	(void)size;
	fake_last = CPROF_AGENT_F_new;
	return (void *)0x7770;
}

static void *fake_new_nothrow(size_t size, const void *nothrow)
{
	(void)size;
	assert_non_null(nothrow);
	fake_last = CPROF_AGENT_F_new_nothrow;
	return fake_result;
}

static void fake_create(struct plant *plant, uint64_t rate)
{
	uint64_t *originals;

	plant_map(plant, rate);
	originals = plant->config->originals[FAKE];
	originals[CPROF_AGENT_F_malloc] = (uint64_t)fake_malloc;
	originals[CPROF_AGENT_F_realloc] = (uint64_t)fake_realloc;
	originals[CPROF_AGENT_F_free] = (uint64_t)fake_free;
	originals[CPROF_AGENT_F_calloc] = (uint64_t)fake_calloc;
	originals[CPROF_AGENT_F_new] = (uint64_t)fake_new;
	originals[CPROF_AGENT_F_new_nothrow] = (uint64_t)fake_new_nothrow;
	fake_plant = plant;
	fake_result = (void *)0x1000;
	fake_calls = 0;
	plant_start(plant, 7);
	assert_int_equal(plant_call.error, 0);
}

#define HOOK(plant, function) plant_hook(plant, FAKE, CPROF_AGENT_F_##function)

static uint64_t inside(const struct plant *plant)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CPROF_AGENT_SHARDS; i++)
		sum += plant->private_->shards[i].inside + plant->private_->shards[i].owner;
	return sum;
}

static uint64_t filter_sum(const struct plant *plant)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CPROF_AGENT_FILTER; i++)
		sum += plant->private_->filter[i];
	return sum;
}

/* --- passing on ---------------------------------------------------------------------------- */

struct state {
	uint64_t general[8]; /* rdx rcx r8 r9, and what the original saw of them */
	uint64_t kept[6];    /* rbx rbp r12..r15 afterwards */
	uint8_t vectors[16][16];
};
struct state machine;

/* An original that notes the arguments, and touches nothing but rax. */
void note_arguments(void);
__asm__(".text\nnote_arguments:\n"
	"	lea machine(%rip), %rax\n"
	"	mov %rdx, 32(%rax)\n	mov %rcx, 40(%rax)\n"
	"	mov %r8, 48(%rax)\n	mov %r9, 56(%rax)\n"
	"	mov %rsi, %rax\n	ret\n");

/* Calls hook(first, second) with known values in all registers. */
void call_with_registers(void *hook, uint64_t first, uint64_t second);
__asm__(".text\ncall_with_registers:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n"
	"	push %r15\n	sub $8, %rsp\n"
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n"
	"	mov $101, %edx\n	mov $102, %ecx\n	mov $103, %r8d\n	mov $104, "
	"%r9d\n"
	"	mov $201, %ebx\n	mov $202, %ebp\n	mov $203, %r12d\n"
	"	mov $204, %r13d\n	mov $205, %r14d\n	mov $206, %r15d\n"
	"	movd %ebx, %xmm0\n	movd %r12d, %xmm1\n	movd %r13d, %xmm7\n"
	"	movd %r14d, %xmm15\n"
	"	call *%rax\n"
	"	lea machine(%rip), %rdx\n"
	"	mov %rbx, 64(%rdx)\n	mov %rbp, 72(%rdx)\n	mov %r12, 80(%rdx)\n"
	"	mov %r13, 88(%rdx)\n	mov %r14, 96(%rdx)\n	mov %r15, 104(%rdx)\n"
	"	movdqu %xmm0, 112(%rdx)\n	movdqu %xmm1, 128(%rdx)\n"
	"	movdqu %xmm7, 144(%rdx)\n	movdqu %xmm15, 160(%rdx)\n"
	"	add $8, %rsp\n	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n"
	"	pop %rbp\n	pop %rbx\n	ret\n");

static void check_registers(void *hook)
{
	static const uint32_t vectors[4] = {201, 203, 204, 205};

	memset(&machine, 0, sizeof(machine));
	call_with_registers(hook, 0x5550, 0x7000);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(machine.general[4 + i], 101 + i);
		assert_memory_equal(machine.vectors[i], &vectors[i], 4);
	}
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(machine.kept[i], 201 + i);
}

/* Since the position, which is moved to the end. */
static unsigned count_allocs(struct plant *plant, uint64_t *position)
{
	struct cprof_agent_record *record;
	unsigned count = 0;

	while ((record = plant_next(plant, position)))
		count += record->type == CPROF_AGENT_RECORD_ALLOC;
	return count;
}

/* All arguments reach the original, and no other register changes: on the fast path, when sampled,
 * and when every call is. */
static void test_registers(void **state)
{
	static const uint64_t rates[] = {1ull << 50, 16, 1};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct plant plant;
		uint64_t *originals;
		uint64_t position = 0;

		fake_create(&plant, rates[i]);
		originals = plant.config->originals[FAKE];
		originals[CPROF_AGENT_F_realloc] = (uint64_t)note_arguments;
		originals[CPROF_AGENT_F_free] = (uint64_t)note_arguments;
		originals[CPROF_AGENT_F_rallocx] = (uint64_t)note_arguments;
		originals[CPROF_AGENT_F_memalign] = (uint64_t)note_arguments;
		for (int round = 0; round < 3; round++) {
			check_registers(HOOK(&plant, realloc));
			check_registers(HOOK(&plant, memalign));
			check_registers(HOOK(&plant, rallocx));
			check_registers(HOOK(&plant, free));
		}
		assert_int_equal(count_allocs(&plant, &position), i == 0 ? 0 : 9);
		assert_int_equal(inside(&plant), 0);
		plant_destroy(&plant);
	}
}

static void test_fast_path(void **state)
{
	struct plant plant;
	void *(*allocate)(size_t);
	void (*release)(void *);
	uint64_t before;

	(void)state;
	fake_create(&plant, 1ull << 50);
	allocate = HOOK(&plant, malloc);
	release = HOOK(&plant, free);
	allocate(0);
	before = plant_shard(&plant)->countdown;
	allocate(100);
	allocate(0);
	assert_int_equal(before - plant_shard(&plant)->countdown, 102);
	release(NULL);
	release((void *)0x1000);
	assert_int_equal(fake_calls, 5);
	/* Sizes of 2^63 and more count in full. */
	allocate(SIZE_MAX);
	allocate(1ull << 63);
	assert_int_equal(plant.shared->allocs, 2);
	plant_destroy(&plant);
}

/* --- the table ----------------------------------------------------------------------------- */

static void test_table(void **state)
{
	struct plant plant;
	void *(*allocate)(size_t);
	void *(*move)(void *, size_t);
	void (*release)(void *);
	uint64_t addresses[20];
	unsigned found = 0;

	(void)state;
	fake_create(&plant, 2);
	allocate = HOOK(&plant, malloc);
	move = HOOK(&plant, realloc);
	release = HOOK(&plant, free);

	/* One bucket has room for 16. */
	for (uint64_t a = 16; found < 20; a += 16) {
		if (a * CPROF_AGENT_HASH >> (64 - CPROF_AGENT_BUCKET_BITS) == 77)
			addresses[found++] = a;
	}
	for (unsigned i = 0; i < 20; i++) {
		fake_result = (void *)addresses[i];
		errno = 1234;
		assert_ptr_equal(allocate(1 << 20), fake_result);
		assert_int_equal(errno, 1234);
	}
	assert_int_equal(plant_live_count(&plant), 16);
	assert_int_equal(plant.shared->table_full, 4);
	assert_int_equal(plant.shared->allocs, 16);
	for (unsigned i = 0; i < 20; i++)
		release((void *)addresses[i]);
	assert_int_equal(plant.shared->frees, 16);
	assert_int_equal(filter_sum(&plant) + plant_live_count(&plant), 0);

	/* A free that we were not told of. */
	fake_result = (void *)0x1000;
	allocate(1 << 20);
	allocate(1 << 20);
	assert_int_equal(plant.shared->missed_frees, 1);
	assert_int_equal(plant_live_count(&plant), 1);

	/* A move that fails leaves the old one, one to 0 bytes does not. */
	fake_result = NULL;
	assert_null(move((void *)0x1000, 1 << 30));
	assert_int_equal(plant_live_count(&plant), 1);
	assert_int_equal(plant.shared->frees, 16);
	fake_result = (void *)0x2000;
	move((void *)0x1000, 1 << 20);
	assert_int_equal(plant.shared->frees, 17);
	assert_int_equal(plant_live_count(&plant), 1);
	fake_result = NULL;
	move((void *)0x2000, 0);
	assert_int_equal(plant.shared->frees, 18);
	assert_int_equal(filter_sum(&plant) + plant_live_count(&plant), 0);
	assert_int_equal(inside(&plant), 0);
	plant_destroy(&plant);
}

static void test_variants(void **state)
{
	struct plant plant;
	void *(*create)(size_t);
	void *(*zeroed)(size_t, size_t);
	uint64_t position = 0;
	struct cprof_agent_record *record;

	(void)state;
	fake_create(&plant, 1);
	create = HOOK(&plant, new);
	zeroed = HOOK(&plant, calloc);

	/* The variant that does not throw; when it fails, the other one. */
	assert_ptr_equal(create(10), fake_result);
	assert_int_equal(fake_last, CPROF_AGENT_F_new_nothrow);
	record = plant_next(&plant, &position);
	assert_non_null(record);
	assert_int_equal(record->function, CPROF_AGENT_F_new);
	assert_int_equal(record->size, 10);
	fake_result = NULL;
	assert_ptr_equal(create(11), (void *)0x7770);
	assert_int_equal(fake_last, CPROF_AGENT_F_new);
	assert_null(plant_next(&plant, &position));
	/* None: not sampled, but counted. */
	plant.config->originals[FAKE][CPROF_AGENT_F_new_nothrow] = 0;
	assert_ptr_equal(create(12), (void *)0x7770);
	assert_int_equal(plant.shared->dropped, 1);
	assert_int_equal(plant.shared->dropped_bytes, 12);

	/* An allocation that another makes for itself is the same one. */
	fake_result = (void *)0x1230;
	assert_ptr_equal(zeroed(3, 5), fake_result);
	record = plant_next(&plant, &position);
	assert_non_null(record);
	assert_int_equal(record->function, CPROF_AGENT_F_calloc);
	assert_int_equal(record->size, 15);
	assert_null(plant_next(&plant, &position));
	assert_int_equal(inside(&plant), 0);
	plant_destroy(&plant);
}

/* --- losses -------------------------------------------------------------------------------- */

static void test_overrun(void **state)
{
	struct plant plant;
	void *(*allocate)(size_t);
	void (*release)(void *);
	uint64_t position = 0;
	uint64_t records = 0;
	const unsigned count = 60000;

	(void)state;
	fake_create(&plant, 1);
	allocate = HOOK(&plant, malloc);
	release = HOOK(&plant, free);
	for (unsigned i = 0; i < count; i++)
		allocate(3);
	assert_int_equal(plant.shared->waits, 1); /* the others know that it is in vain */
	for (unsigned i = 0; i < count; i++)
		release(fake_result);
	assert_true(plant.shared->dropped > 0 && plant.shared->dropped_frees > 0);
	assert_int_equal(plant.shared->dropped_bytes, plant.shared->dropped * 3);
	while (plant_next(&plant, &position))
		records++;
	assert_int_equal(records + plant.shared->dropped + plant.shared->dropped_frees, 2 * count);
	allocate(3);
	assert_non_null(plant_next(&plant, &position));
	plant_destroy(&plant);
}

static void test_heartbeat(void **state)
{
	static const uint64_t rates[] = {1, 100};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct plant plant;
		void *(*allocate)(size_t);
		uint64_t position = 0;

		fake_create(&plant, rates[i]);
		allocate = HOOK(&plant, malloc);
		allocate(10000);
		assert_int_equal(count_allocs(&plant, &position), 1);
		plant.shared->heartbeat_ns -= 2 * CPROF_AGENT_QUIET_NS;
		for (int j = 0; j < 1000; j++)
			allocate(10000);
		assert_int_equal(plant.shared->quiet, 1);
		count_allocs(&plant, &position);
		for (int j = 0; j < 10000; j++)
			allocate(10000);
		assert_int_equal(count_allocs(&plant, &position), 0);
		assert_int_equal(plant.shared->quiet, 1);
		/* It is back: noticed after a nap's bytes. */
		plant_beat(&plant);
		allocate(CPROF_AGENT_NAP);
		allocate(10000);
		assert_true(count_allocs(&plant, &position) >= 1);
		plant_destroy(&plant);
	}
}

/* --- stacks -------------------------------------------------------------------------------- */

static ucontext_t home;
static void *(*volatile stack_hook)(size_t);

static void allocate_there(void)
{
	void *volatile result = stack_hook(1 << 20); /* not a tail call */

	(void)result;
}

/* The bytes of a record are those of the stack, up to its end: a hole in the address space. */
static void test_stacks(void **state)
{
	const size_t size = 65536;
	char *stack =
		mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct plant plant;
	static uint64_t position; /* getcontext() returns twice */

	(void)state;
	munmap(stack + size, 4096);
	fake_create(&plant, 2);
	stack_hook = HOOK(&plant, malloc);
	for (int round = 0; round < 3; round++) {
		struct cprof_agent_stack *known =
			&plant.shared->stacks[plant_shard(&plant) - plant.private_->shards];
		static ucontext_t context;
		struct cprof_agent_record *record;
		uint64_t left;

		/* Unknown and read by the kernel; known; known and longer than is wanted. */
		plant.shared->stack_max = round == 2 ? 16 : 32768;
		known->thread_pointer = round ? (uint64_t)pthread_self() : 0;
		known->low = (uint64_t)stack;
		known->high = (uint64_t)stack + size;
		known->tid = (uint32_t)gettid();
		getcontext(&context);
		context.uc_stack.ss_sp = stack;
		context.uc_stack.ss_size = size - 8192;
		context.uc_link = &home;
		makecontext(&context, allocate_there, 0);
		for (size_t i = size - 8192; i < size; i++)
			stack[i] = (char)(i * 7 + i / 256);
		assert_int_equal(swapcontext(&home, &context), 0);

		record = plant_next(&plant, &position);
		assert_non_null(record);
		left = (uint64_t)stack + size - record->sp;
		assert_true(left > 8192 && left < 9000);
		assert_int_equal(record->stack_length, round == 2 ? 16 : left);
		assert_int_equal(record->cut, round == 2);
		/* What lies above the context's own calls, of which more came since. */
		if (round < 2)
			assert_memory_equal((char *)(record + 1) + left - 8192, stack + size - 8192,
					    8192);
		assert_int_equal(record->tid, gettid());
		assert_int_equal(record->thread_pointer, (uint64_t)pthread_self());
		assert_true(record->pc - (uint64_t)allocate_there < 256);
		assert_int_equal(plant.shared->stack_failures, 0);
		fake_result = (char *)fake_result + 16;
	}
	/* No call is made that the target's seccomp filter would not allow. */
	plant.shared->forbidden = CPROF_AGENT_FORBID_READV | CPROF_AGENT_FORBID_GETTID;
	stack_hook(1 << 20);
	assert_int_equal(plant.shared->stack_failures, 1);
	assert_int_equal(plant_next(&plant, &position)->tid, 0);
	/* The libc knows the tid. */
	for (uint32_t offset = 4; offset < 1024 && !plant.shared->tid_offset; offset += 4) {
		if (*(pid_t *)((char *)pthread_self() + offset) == gettid())
			plant.shared->tid_offset = offset;
	}
	assert_int_not_equal(plant.shared->tid_offset, 0);
	stack_hook(1 << 20);
	assert_int_equal(plant_next(&plant, &position)->tid, gettid());
	plant_destroy(&plant);
	munmap(stack, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers), cmocka_unit_test(test_fast_path),
		cmocka_unit_test(test_table),     cmocka_unit_test(test_variants),
		cmocka_unit_test(test_overrun),   cmocka_unit_test(test_heartbeat),
		cmocka_unit_test(test_stacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

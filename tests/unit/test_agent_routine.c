/* SPDX-License-Identifier: MIT
 *
 * The routine: mapping, patching, restoring, and what is left when it fails.
 */
#include "agent_plant.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#define PAGE 4096

static bool is_mapped(const void *address)
{
	unsigned char unused;

	return mincore((void *)((uintptr_t)address & -PAGE), 1, &unused) == 0;
}

/* The permissions of a mapping, as in maps. */
static void permissions(const void *address, char text[5])
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned long low;
	unsigned long high;

	strcpy(text, "????");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		char found[5];

		if (sscanf(line, "%lx-%lx %4s", &low, &high, found) == 3 &&
		    low <= (unsigned long)address && (unsigned long)address < high)
			strcpy(text, found);
	}
	fclose(maps);
}

static void assert_permissions(const void *address, const char *expected)
{
	char text[5];

	permissions(address, text);
	assert_string_equal(text, expected);
}

static void order(struct plant *plant, uint64_t *slot, uint64_t before, uint64_t hook, bool relro)
{
	plant->shared->orders[plant->shared->order_count++] = (struct cprof_agent_order){
		(uint64_t)slot, before, hook, CPROF_AGENT_ORDER_WANTED, relro};
}

static uint32_t order_state(const struct plant *plant, unsigned i)
{
	return plant->shared->orders[i].state;
}

/* Pages of slots: 0..3 read-only, 4 writable, 5 gone. */
static uint64_t *make_slots(void)
{
	uint64_t *slots =
		mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(slots != MAP_FAILED);
	for (size_t i = 0; i < 5 * PAGE / 8; i++)
		slots[i] = 1000 + i;
	assert_int_equal(mprotect(slots, 4 * PAGE, PROT_READ), 0);
	assert_int_equal(munmap(slots + 5 * PAGE / 8, PAGE), 0);
	return slots;
}

static void test_life(void **state)
{
	struct plant plant;
	uint64_t *slots = make_slots();
	uint64_t *far = slots + 3 * PAGE / 8;
	uint64_t *plain = slots + 4 * PAGE / 8;
	uint64_t *gone = slots + 5 * PAGE / 8;

	(void)state;
	plant_map(&plant, 512 << 10);
	plant_originals(&plant);
	for (int i = 0; i < 100; i++)
		order(&plant, &slots[i * 10], (uint64_t)(1000 + i * 10), (uint64_t)(7000 + i),
		      true);
	order(&plant, &slots[1], 5, 7100, true); /* holds something else */
	order(&plant, far, *far, 7101, true);
	order(&plant, plain, *plain, 7102, false);
	order(&plant, gone, 1, 7103, true);
	order(&plant, gone + 1, 1, 7104, false);
	order(&plant, plain + 1, *(plain + 1), 7105, false);
	plant_start(&plant, 5);
	assert_int_equal(plant_call.error, 0);
	assert_int_equal(plant_call.changed, 103);
	assert_int_equal(plant_call.failed, 3);
	assert_int_equal(plant_call.memfd, -1);
	assert_int_equal(plant.control->on, (uint64_t)plant.private_);
	assert_int_equal(plant.control->seed, 5);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(slots[i * 10], 7000 + i);
		assert_int_equal(order_state(&plant, i), CPROF_AGENT_ORDER_DONE);
	}
	assert_int_equal(order_state(&plant, 100), CPROF_AGENT_ORDER_CHANGED);
	assert_int_equal(slots[1], 1001);
	assert_int_equal(*far, 7101);
	assert_int_equal(*plain, 7102);
	assert_int_equal(plain[1], 7105);
	assert_int_equal(order_state(&plant, 103), CPROF_AGENT_ORDER_FAILED);
	assert_int_equal(order_state(&plant, 104), CPROF_AGENT_ORDER_FAILED);
	assert_permissions(slots, "r--p");
	assert_permissions(far, "r--p");
	assert_permissions(plain, "rw-p");
	assert_permissions(plant.base, "r-xp");
	assert_permissions(plant.config, "rw-s");
	assert_permissions(plant.base + CPROF_AGENT_CONFIG, "r--p");
	assert_permissions(plant.control, "rw-p");

	/* One more, from `first` on; then one that another hand has changed since, and one whose
	 * routine was killed before it could say DONE. */
	order(&plant, plain + 2, plain[2], 7106, false);
	plant_call.first = plant.shared->order_count - 1;
	plant_run(&plant, CPROF_AGENT_PATCH);
	assert_int_equal(plant_call.changed, 1);
	assert_int_equal(plain[2], 7106);
	plain[2] = 3;
	plant.shared->orders[102].state = CPROF_AGENT_ORDER_WANTED;
	plant_call.first = 0;
	plant_run(&plant, CPROF_AGENT_RESTORE);
	assert_int_equal(plant.control->on, 0);
	assert_int_equal(plant_call.changed, 103);
	assert_int_equal(plant_call.failed, 1);
	assert_int_equal(order_state(&plant, 106), CPROF_AGENT_ORDER_CHANGED);
	assert_int_equal(plain[2], 3);
	plain[2] = 1000 + 4 * PAGE / 8 + 2;
	for (size_t i = 0; i < 5 * PAGE / 8; i++)
		assert_int_equal(slots[i], 1000 + i);
	assert_permissions(slots, "r--p");
	assert_permissions(far, "r--p");

	plant_run(&plant, CPROF_AGENT_UNMAP);
	assert_false(is_mapped(plant.private_));
	assert_false(is_mapped(plant.base + CPROF_AGENT_SHARED));
	assert_permissions(plant.base, "r-xp");

	/* Adopted. */
	plant.shared->order_count = 0;
	plant_call.adopt = 1;
	plant_start(&plant, 6);
	assert_int_equal(plant_call.error, 0);
	assert_int_equal(plant.control->seed, 6);
	plant_destroy(&plant);
	munmap(slots, 5 * PAGE);
}

/* In a child: `on` and the tables read 0, the ring is not there, hooks pass on. */
static void test_fork(void **state)
{
	struct plant plant;
	pid_t child;
	int status;

	(void)state;
	plant_create(&plant, 1, 1);
	child = fork();
	if (child == 0) {
		void *(*allocate)(size_t) = plant_hook(&plant, 0, CPROF_AGENT_F_malloc);
		void (*release)(void *) = plant_hook(&plant, 0, CPROF_AGENT_F_free);
		char *block = allocate(100);

		memset(block, 1, 100);
		release(block);
		_exit(plant.control->on != 0 || plant.private_->filter[7] != 0 ||
		      is_mapped(plant.base + CPROF_AGENT_SHARED) || plant.shared->head != 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(plant.private_->filter[7], 255);
	plant_destroy(&plant);
}

/* Whatever of its range is taken: an error, and nothing of its own is left. */
static void test_start_fails(void **state)
{
	static const struct {
		uint32_t offset;
		enum cprof_agent_step step;
	} places[] = {
		{CPROF_AGENT_CONTROL, CPROF_AGENT_STEP_CONTROL},
		{CPROF_AGENT_PRIVATE + 0x3000, CPROF_AGENT_STEP_PRIVATE},
		{CPROF_AGENT_SHARED + 0x10000, CPROF_AGENT_STEP_SHARED},
	};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct plant plant;
		void *taken;
		int memfd;

		plant_map(&plant, 512 << 10);
		taken = mmap(plant.base + places[i].offset, PAGE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		assert_ptr_equal(taken, plant.base + places[i].offset);
		memfd = plant_call.memfd = dup(plant.memfd);
		plant_run(&plant, CPROF_AGENT_START);
		assert_int_equal(plant_call.error, -EEXIST);
		assert_int_equal(plant_call.step, places[i].step);
		assert_int_equal(fcntl(memfd, F_GETFD), -1);
		assert_true(is_mapped(taken));
		munmap(taken, PAGE);
		assert_false(is_mapped(plant.control));
		assert_false(is_mapped(plant.private_));
		assert_false(is_mapped(plant.base + CPROF_AGENT_SHARED));

		plant_call.memfd = dup(plant.memfd);
		plant_run(&plant, CPROF_AGENT_ABORT);
		assert_int_equal(plant_call.memfd, -1);
		plant_start(&plant, 1);
		assert_int_equal(plant_call.error, 0);
		plant_destroy(&plant);
	}
}

static void *release_fault(void *argument)
{
	struct plant *plant = argument;
	uint64_t *slot = (uint64_t *)plant->shared->orders[0].slot;

	while (!__atomic_load_n(&plant_call.reached, __ATOMIC_ACQUIRE))
		sched_yield();
	/* The first half is done, nothing is on. */
	if (plant_call.reached == CPROF_AGENT_FAULT_HALF)
		PLANT_MUST(slot[0] == 1 && slot[1] == 0 && plant->control->on == 0);
	if (plant_call.reached == CPROF_AGENT_FAULT_PATCHED)
		PLANT_MUST(slot[0] == 1 && slot[1] == 1 && plant->control->on == 0);
	__atomic_store_n(&plant_call.fault, 0, __ATOMIC_RELEASE);
	return NULL;
}

static void test_fault_points(void **state)
{
	(void)state;
	for (uint64_t fault = CPROF_AGENT_FAULT_MAPPED; fault <= CPROF_AGENT_FAULT_PATCHED;
	     fault++) {
		uint64_t slots[2] = {0, 0};
		struct plant plant;
		pthread_t thread;

		plant_map(&plant, 512 << 10);
		order(&plant, &slots[0], 0, 1, false);
		order(&plant, &slots[1], 0, 1, false);
		plant_call.fault = fault;
		plant_call.reached = 0;
		assert_int_equal(pthread_create(&thread, NULL, release_fault, &plant), 0);
		plant_start(&plant, 1);
		pthread_join(thread, NULL);
		assert_int_equal(plant_call.reached, fault);
		assert_int_equal(slots[0] + slots[1], 2);
		plant_destroy(&plant);
	}
}

/* With nobody to see `done`, the thread goes on by itself after a while. */
static void test_bounded(void **state)
{
	struct plant plant;
	struct timespec begin;
	struct timespec end;
	double seconds;

	(void)state;
	plant_map(&plant, 512 << 10);
	plant_call.fault = CPROF_AGENT_FAULT_MAPPED;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	plant_start(&plant, 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	assert_int_equal(plant_call.error, 0);
	assert_true(seconds > 0.9 && seconds < 3);
	plant_destroy(&plant);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),        cmocka_unit_test(test_fork),
		cmocka_unit_test(test_start_fails), cmocka_unit_test(test_fault_points),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * What the plan makes of a slot that changes: this process plans itself, and writes its own slots.
 */
#include "../../attach/agentparts.h"
#include "../../attach/blob.h"

#include <cprof/target.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define BASE 0x100000000000ull

/* Slots in data, which nobody else writes. */
static void *(*volatile my_malloc)(size_t) = malloc;
static void (*volatile my_free)(void *) = free;

static struct cprof_agent_header header = {.magic = CPROF_AGENT_MAGIC};
static struct cprof_target *target;

static int setup(void **state)
{
	(void)state;
	for (unsigned bank = 0; bank < CPROF_AGENT_BANKS; bank++)
		for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
			header.hooks[bank][i] =
				0x400 + (bank * CPROF_AGENT_FUNCTION_COUNT + i) * 16;
	return cprof_target_create(getpid(), &target) != NULL;
}

static int teardown(void **state)
{
	(void)state;
	cprof_target_destroy(target);
	return 0;
}

static struct cprof_plan *create(const struct cprof_agent_config *kept)
{
	struct cprof_plan *plan;
	size_t fresh;

	assert_null(cprof_plan_create(target, BASE, CPROF_AGENT_KIND_HEAP, &header, kept, &plan));
	assert_null(cprof_plan_update(plan, false, &fresh));
	return plan;
}

/* The one order of a slot, or NULL. */
static struct cprof_agent_order *order_of(struct cprof_plan *plan, const volatile void *slot)
{
	struct cprof_agent_order *found = NULL;
	size_t count;
	struct cprof_agent_order *orders = cprof_plan_orders(plan, &count);

	for (size_t i = 0; i < count; i++) {
		if (orders[i].slot != (uintptr_t)slot)
			continue;
		assert_null(found);
		found = &orders[i];
	}
	return found;
}

static size_t verify(struct cprof_plan *plan)
{
	size_t fresh;
	size_t wanted = 0;
	size_t count;
	const struct cprof_agent_order *orders;

	assert_null(cprof_plan_update(plan, true, &fresh));
	orders = cprof_plan_orders(plan, &count);
	for (size_t i = 0; i < count; i++)
		wanted += orders[i].state == CPROF_AGENT_ORDER_WANTED;
	assert_int_equal(fresh, wanted);
	return fresh;
}

static void test_order(void **state)
{
	struct cprof_plan *plan = create(NULL);
	const struct cprof_agent_config *config = cprof_plan_config(plan);
	struct cprof_agent_order *order = order_of(plan, &my_malloc);
	uint64_t original = (uintptr_t)my_malloc;

	(void)state;
	assert_non_null(order);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_WANTED);
	assert_int_equal(order->before, original);
	assert_int_equal(order->relro, 0);
	assert_int_equal(order->hook, BASE + header.hooks[0][CPROF_AGENT_F_malloc]);
	assert_int_equal(config->originals[0][CPROF_AGENT_F_malloc], original);
	assert_int_equal(config->originals[0][CPROF_AGENT_F_free], (uintptr_t)my_free);
	cprof_plan_destroy(plan);
}

/* Carried out; put back by somebody; made another function; failed. */
static void test_changes(void **state)
{
	struct cprof_plan *plan = create(NULL);
	struct cprof_agent_order *order = order_of(plan, &my_malloc);
	void *(*original)(size_t) = my_malloc;
	size_t fresh = verify(plan);

	(void)state;
	assert_true(fresh > 0);
	my_malloc = (void *)(uintptr_t)order->hook; /* not called meanwhile */
	order->state = CPROF_AGENT_ORDER_DONE;
	assert_int_equal(verify(plan), fresh - 1);
	assert_ptr_equal(order_of(plan, &my_malloc), order);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_DONE);

	my_malloc = original;
	assert_int_equal(verify(plan), fresh);
	assert_ptr_equal(order_of(plan, &my_malloc), order);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_WANTED);
	assert_int_equal(order->before, (uintptr_t)original);

	my_malloc = (void *(*)(size_t))(void *)puts; /* the program's own business */
	assert_int_equal(verify(plan), fresh - 1);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_CHANGED);

	my_malloc = original;
	assert_int_equal(verify(plan), fresh);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_WANTED);

	order->state = CPROF_AGENT_ORDER_FAILED; /* tried in vain: not tried for ever */
	assert_int_equal(verify(plan), fresh - 1);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_FAILED);
	cprof_plan_destroy(plan);
}

/* An earlier profiler's config stays as it was; its slots are ours to restore. */
static void test_kept(void **state)
{
	struct cprof_plan *plan = create(NULL);
	struct cprof_agent_config kept = {0};
	void *(*original)(size_t) = my_malloc;
	struct cprof_agent_order *order;

	(void)state;
	/* There the allocator had the third bank, and the first one something that is gone. */
	memcpy(kept.originals[2], cprof_plan_config(plan)->originals[0], sizeof(kept.originals[2]));
	kept.originals[0][CPROF_AGENT_F_malloc] = 0x1234;
	cprof_plan_destroy(plan);
	my_malloc = (void *)(uintptr_t)(BASE + header.hooks[2][CPROF_AGENT_F_malloc]);
	plan = create(&kept);
	order = order_of(plan, &my_malloc);
	my_malloc = original;
	assert_non_null(order);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_DONE);
	assert_int_equal(order->before, (uintptr_t)original);
	order = order_of(plan, &my_free);
	assert_int_equal(order->state, CPROF_AGENT_ORDER_WANTED);
	assert_int_equal(order->hook - BASE, header.hooks[2][CPROF_AGENT_F_free]);
	assert_int_equal(cprof_plan_config(plan)->originals[0][CPROF_AGENT_F_malloc], 0x1234);
	assert_int_equal(cprof_plan_config(plan)->originals[0][CPROF_AGENT_F_free], 0);
	cprof_plan_destroy(plan);
}

/* All banks belong to allocators that are gone: nothing can be hooked, and that is said. */
static void test_no_bank(void **state)
{
	struct cprof_agent_config kept;
	struct cprof_plan *plan;
	struct cprof_error *error;
	size_t fresh;
	size_t count;
	bool told = false;
	const struct cprof_agent_module *modules;

	(void)state;
	for (unsigned bank = 0; bank < CPROF_AGENT_BANKS; bank++)
		for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
			kept.originals[bank][i] = 0x1234;
	assert_null(cprof_plan_create(target, BASE, CPROF_AGENT_KIND_HEAP, &header, &kept, &plan));
	error = cprof_plan_update(plan, false, &fresh);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_DENIED);
	cprof_error_destroy(error);
	assert_memory_equal(cprof_plan_config(plan), &kept, sizeof(kept));
	modules = cprof_plan_modules(plan, &count);
	for (size_t i = 0; i < count; i++)
		told |= modules[i].reason && strstr(modules[i].reason, "more allocators");
	assert_true(told);
	cprof_plan_destroy(plan);
}

static void test_ended(void **state)
{
	struct cprof_target *dead;
	struct cprof_plan *plan;
	struct cprof_error *error;
	size_t fresh;
	pid_t child = fork();

	(void)state;
	if (!child) {
		pause();
		_exit(0);
	}
	assert_null(cprof_target_create(child, &dead));
	assert_null(cprof_plan_create(dead, BASE, CPROF_AGENT_KIND_HEAP, &header, NULL, &plan));
	assert_null(cprof_plan_update(plan, false, &fresh));
	assert_true(fresh > 0);
	kill(child, SIGKILL);
	for (int reaped = 0; reaped < 2; reaped++) {
		if (reaped)
			assert_int_equal(waitpid(child, NULL, 0), child);
		else
			while (cprof_target_alive(dead))
				usleep(1000);
		error = cprof_plan_update(plan, true, &fresh);
		assert_non_null(error);
		assert_int_equal(error->status, CPROF_NO_PROCESS);
		cprof_error_destroy(error);
	}
	cprof_plan_destroy(plan);
	cprof_target_destroy(dead);
}

/* Planted, a hook jumps to its original directly where that is in reach; nothing else changes. */
static void test_shortcut(void **state)
{
	static uint8_t text[CPROF_AGENT_CONTROL];
	size_t size = (size_t)(cprof_agent_blob_end - cprof_agent_blob);
	struct cprof_agent_config config = {.originals = {{0}}};
	const struct cprof_agent_header *blob = (const void *)cprof_agent_blob;
	uint32_t hook = blob->hooks[2][CPROF_AGENT_F_free];
	size_t changed = 0;
	size_t at = 0;
	int32_t relative;

	(void)state;
	config.originals[0][CPROF_AGENT_F_malloc] = BASE + (1ull << 31) + (1 << 20); /* too far */
	config.originals[2][CPROF_AGENT_F_free] = BASE - 0x12345678;
	memcpy(text, cprof_agent_blob, size);
	cprof_agent_shorten(text, &config, BASE);
	for (size_t i = 0; i < size; i++)
		if (text[i] != (uint8_t)cprof_agent_blob[i]) {
			at = changed++ ? at : i;
			assert_in_range(i, at, at + 5);
		}
	assert_true(changed >= 3);
	assert_in_range(at, hook, hook + 127);
	assert_int_equal(text[at], 0xe9);
	assert_int_equal(text[at + 5], 0x90);
	memcpy(&relative, text + at + 1, sizeof(relative));
	assert_int_equal(BASE + at + 5 + (uint64_t)(int64_t)relative, BASE - 0x12345678);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order), cmocka_unit_test(test_changes),
		cmocka_unit_test(test_kept),  cmocka_unit_test(test_no_bank),
		cmocka_unit_test(test_ended), cmocka_unit_test(test_shortcut),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

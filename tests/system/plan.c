/* SPDX-License-Identifier: MIT
 *
 * plan PID [UPDATES PAUSE_US]: plans the patching of a process, patches nothing, and prints
 * order BEFORE SLOT FUNCTION BANK ORIGINAL RELRO STATE, module COVER SLOTS PATH | REASON, and
 * times.
 */
#include "../../attach/plan.h"

#include <cprof/util.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE 0x100000000000ull

#define SYMBOL(id, symbol, shape, quiet) symbol,
static const char *const symbols[] = {CPROF_AGENT_FUNCTIONS(SYMBOL)};
static const char *const covers[] = {"hooked", "none", "bypass", "later"};

static void print_order(const struct cprof_plan *plan, const struct cprof_agent_header *header,
			const struct cprof_agent_order *order)
{
	const struct cprof_agent_config *config = cprof_plan_config(plan);

	for (unsigned bank = 0; bank < CPROF_AGENT_BANKS; bank++)
		for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
			if (BASE + header->hooks[bank][i] == order->hook)
				printf("order %" PRIx64 " %" PRIx64 " %s %u %" PRIx64 " %u %u\n",
				       order->before, order->slot, symbols[i], bank,
				       config->originals[bank][i], order->relro, order->state);
}

static void print(struct cprof_plan *plan, const struct cprof_agent_header *header)
{
	const struct cprof_agent_module *modules;
	struct cprof_agent_order *orders;
	size_t count;

	orders = cprof_plan_orders(plan, &count);
	for (size_t i = 0; i < count; i++)
		print_order(plan, header, &orders[i]);
	modules = cprof_plan_modules(plan, &count);
	for (size_t i = 0; i < count; i++)
		printf("module %s %u %s | %s\n", covers[modules[i].cover], modules[i].slots,
		       modules[i].path, modules[i].reason ? modules[i].reason : "");
}

static struct cprof_error *run(int argc, char **argv, struct cprof_target *target,
			       const struct cprof_agent_header *header, struct cprof_plan **plan)
{
	long updates = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
	uint64_t start = cprof_now_ns();
	uint64_t first;
	size_t fresh;

	CPROF_TRY(cprof_plan_create(target, BASE, CPROF_AGENT_KIND_HEAP, header, NULL, plan));
	CPROF_TRY(cprof_plan_update(*plan, false, &fresh));
	first = cprof_now_ns() - start;
	printf("first_us %" PRIu64 " fresh %zu\n", first / 1000, fresh);
	for (int verify = 0; verify < 2; verify++) {
		start = cprof_now_ns();
		CPROF_TRY(cprof_plan_update(*plan, verify, &fresh));
		printf("%s_us %" PRIu64 "\n", verify ? "verify" : "tick",
		       (cprof_now_ns() - start) / 1000);
	}
	for (long i = 0; i < updates; i++) {
		usleep(argc > 3 ? (useconds_t)strtol(argv[3], NULL, 10) : 100000);
		CPROF_TRY(cprof_plan_update(*plan, i + 1 == updates, &fresh));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct cprof_agent_header header = {.magic = CPROF_AGENT_MAGIC};
	struct cprof_target *target = NULL;
	struct cprof_plan *plan = NULL;
	struct cprof_error *error;
	int status = 0;

	if (argc < 2)
		return 2;
	for (unsigned bank = 0; bank < CPROF_AGENT_BANKS; bank++)
		for (unsigned i = 0; i < CPROF_AGENT_FUNCTION_COUNT; i++)
			header.hooks[bank][i] =
				0x400 + (bank * CPROF_AGENT_FUNCTION_COUNT + i) * 16;
	error = cprof_target_create(atoi(argv[1]), &target);
	if (!error)
		error = run(argc, argv, target, &header, &plan);
	if (plan)
		print(plan, &header);
	if (error) {
		cprof_error_print(error, stderr);
		status = (int)error->status;
		cprof_error_destroy(error);
	}
	cprof_plan_destroy(plan);
	cprof_target_destroy(target);
	return status;
}

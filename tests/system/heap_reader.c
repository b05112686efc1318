/* SPDX-License-Identifier: MIT
 *
 * What a record of exact mode costs us: fills the ring with allocations and frees from a number of
 * stacks, with locals and registers that change all the time, and takes the time of drains alone.
 *
 *	heap_reader [RECORDS [STACKS [DEPTH]]]
 */
#include "../unit/agent_sim.h"

#define LIVE 100000u

int main(int argc, char **argv)
{
	uint64_t total = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000;
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 64;
	unsigned depth = argc > 3 ? (unsigned)atoi(argv[3]) : 20;
	struct sim_stack *stacks;
	struct cprof_heap_stats stats;
	uint64_t spent = 0;
	uint64_t written = 0;
	struct sim sim;

	count = CPROF_MIN(CPROF_MAX(count, 1u), 3000u);
	depth = CPROF_MIN(depth, 60u);
	stacks = calloc(count, sizeof(*stacks));
	SIM_ABORT(!stacks);
	sim_init(&sim, 1);
	sim_start(&sim, NULL);
	for (unsigned i = 0; i < count; i++)
		sim_stack(&sim, &stacks[i], i, depth);
	while (written < total) {
		struct sim_stack *stack = &stacks[written % count];
		uint64_t before;

		stack->regs.rbx = written;
		stack->words[4] = written;
		if (sim_alloc(&sim, stack, 0x100000 + 16 * (written % LIVE), 32) &&
		    sim_free(&sim, 0x100000 + 16 * ((written + 1) % LIVE))) {
			written += 2;
			continue;
		}
		before = cprof_thread_cpu_ns();
		cprof_heap_drain(sim.heap);
		spent += cprof_thread_cpu_ns() - before;
	}
	cprof_heap_stats(sim.heap, &stats);
	printf("{\"records_per_s\": %.0f, \"frames\": %.1f, \"unwind_ms\": %.1f, \"lost\": %llu}\n",
	       (double)written / (double)spent * 1e9, (double)stats.frames / (double)stats.samples,
	       (double)stats.unwind_ns / 1e6, (unsigned long long)stats.lost);
	sim_deinit(&sim);
	free(stacks);
	return 0;
}

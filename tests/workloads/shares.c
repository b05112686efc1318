/* SPDX-License-Identifier: MIT
 *
 * Three functions with 70, 20 and 10 percent of the CPU time, kept exact by the thread's CPU clock:
 * whichever is furthest behind its share runs next.
 * usage: shares [SECONDS [irregular]]
 * Cycles are of equal length, which a clock can be in step with, unless irregular ones are asked
 * for.
 */
#include "workload.h"

#define ROUNDS 300000

static uint64_t rounds = ROUNDS;

__attribute__((noinline)) static uint64_t share_seventy(void)
{
	return work(rounds);
}

__attribute__((noinline)) static uint64_t share_twenty(void)
{
	return work(rounds) + 1;
}

__attribute__((noinline)) static uint64_t share_ten(void)
{
	return work(rounds) + 2;
}

static struct {
	const char *name;
	uint64_t (*run)(void);
	double share;
	uint64_t spent;
} parts[] = {
	{"share_seventy", share_seventy, 0.7, 0},
	{"share_twenty", share_twenty, 0.2, 0},
	{"share_ten", share_ten, 0.1, 0},
};

int main(int argc, char **argv)
{
	volatile uint64_t sink = 0;
	uint64_t total = 0;

	workload_start(argc, argv);
	while (!stopping) {
		unsigned next = 0;
		uint64_t before;
		uint64_t spent;

		for (unsigned i = 1; i < 3; i++)
			if ((double)parts[i].spent / parts[i].share <
			    (double)parts[next].spent / parts[next].share)
				next = i;
		if (argc > 2)
			rounds = ROUNDS / 2 + (uint64_t)rand() % ROUNDS;
		before = thread_cpu_ns();
		sink += parts[next].run();
		spent = thread_cpu_ns() - before;
		parts[next].spent += spent;
		total += spent;
	}
	for (unsigned i = 0; i < 3; i++)
		printf("%s %.4f\n", parts[i].name, (double)parts[i].spent / (double)total);
	print_cpu();
	return 0;
}

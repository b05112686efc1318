/* SPDX-License-Identifier: MIT
 *
 * The library that dlopen_loop loads and unloads.
 */
#include "../workload.h"

uint64_t library_burn(uint64_t ns);

__attribute__((noinline)) static void library_leaf(void)
{
	work(10000);
}

/* Burns CPU time; returns how much, in ns. */
uint64_t library_burn(uint64_t ns)
{
	uint64_t start = thread_cpu_ns();

	while (thread_cpu_ns() < start + ns)
		library_leaf();
	return thread_cpu_ns() - start;
}

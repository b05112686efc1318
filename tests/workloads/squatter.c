/* SPDX-License-Identifier: MIT
 *
 * Takes the addresses that an agent has left: at SIGUSR2 it maps memory of its own right behind
 * what stays of the agent, says "taken", and goes on allocating as long as that memory is as it was
 * left. Status 9: it is not.
 */
#include "workload.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define RESIDENT 0x10000
#define SIZE     0x50000

static volatile sig_atomic_t wanted;

static void on_usr2(int signal)
{
	(void)signal;
	wanted = 1;
}

static uintptr_t find_agent(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "cprof-agent") && sscanf(line, "%lx-", &start) == 1)
			break;
	if (maps)
		fclose(maps);
	return start;
}

static char *squat(void)
{
	char *memory = mmap((void *)(find_agent() + RESIDENT), SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (memory == MAP_FAILED)
		exit(2);
	memory[SIZE - 1] = 1;
	puts("taken");
	fflush(stdout);
	return memory;
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_usr2};
	volatile char *memory = NULL;

	sigaction(SIGUSR2, &action, NULL);
	puts("ready");
	fflush(stdout);
	while (!stopping) {
		free(malloc(5000));
		usleep(500);
		if (wanted && !memory)
			memory = squat();
		for (size_t i = 0; memory && i < SIZE; i += 512)
			if (memory[i] || !memory[SIZE - 1])
				return 9;
	}
	return 0;
}

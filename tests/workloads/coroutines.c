/* SPDX-License-Identifier: MIT
 *
 * The first thread allocates on stacks of its own making, which lie right below its thread control
 * block and come and go: a large one for some time, then small ones with guard pages in its place.
 * Prints "ok" if it survives, "apart" where the kernel did not make one mapping of them.
 *
 * usage: coroutines [SECONDS]
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE  4096
#define LARGE (256u << 10)
#define SMALL (64u << 10)

static ucontext_t back;
static ucontext_t there;
static double seconds = 1;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void allocate(void)
{
	double end = now() + seconds;

	while (now() < end) {
		void *volatile memory = malloc(100);

		free(memory);
		usleep(100);
	}
}

/* Stacks as coroutine libraries make them: the lowest page catches an overflow. */
static char *make_stack(char *top, size_t size)
{
	char *stack = mmap(top - size, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (stack == MAP_FAILED || mprotect(stack, PAGE, PROT_NONE) != 0) {
		perror("coroutines: a stack");
		exit(1);
	}
	return stack;
}

static void run_on(char *stack, size_t size)
{
	getcontext(&there);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = size;
	there.uc_link = &back;
	makecontext(&there, allocate, 0);
	swapcontext(&back, &there);
}

/* The mapping of an address. */
static bool find(uintptr_t address, uintptr_t *start, uintptr_t *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx", start, end) == 2 && *start <= address &&
			address < *end;
	if (maps)
		fclose(maps);
	return found;
}

int main(int argc, char **argv)
{
	uintptr_t block;
	uintptr_t start;
	uintptr_t end;
	char *top;
	char *stack;

	if (argc > 1)
		seconds = atof(argv[1]);
	__asm__("mov %%fs:0, %0" : "=r"(block));
	if (!find(block, &start, &end))
		return 1;
	top = (char *)start;
	stack = make_stack(top, LARGE);
	if (!find((uintptr_t)top - 1, &start, &end) || block >= end) {
		puts("apart");
		return 0;
	}
	puts("ready");
	fflush(stdout);
	run_on(stack, LARGE);
	munmap(stack, LARGE);
	make_stack(top, SMALL);
	stack = make_stack(top - SMALL, SMALL);
	run_on(stack, SMALL);
	puts("ok");
	return 0;
}

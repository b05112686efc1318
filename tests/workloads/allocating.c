/* SPDX-License-Identifier: MIT
 *
 * usage: allocating [SECONDS [leak]]; the seconds are of CPU time, but with leak
 * Half of the CPU time in malloc and free, a tenth in the kernel's work for memory, the rest
 * elsewhere, kept so by the thread's CPU clock; what it came to is printed at the end.
 * leak: twenty times a second a thread and a megabyte that never go.
 */
#include "workload.h"

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define BLOCKS 2000
#define AREA   (1 << 20)

static void *blocks[BLOCKS];
static volatile uint64_t sink;

/* Of many sizes beyond the per-thread cache's, so that it is malloc that works and not the loop. */
__attribute__((noinline)) static void allocate(void)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		blocks[i] = malloc(1100 + i * 97 % 1500);
}

/* Not in their order: neighbours are merged and taken out of bins again. */
__attribute__((noinline)) static void release(void)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		free(blocks[i * 1607 % BLOCKS]);
}

__attribute__((noinline)) static void map(void)
{
	for (unsigned i = 0; i < 4; i++) {
		char *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				  -1, 0);

		if (area == MAP_FAILED)
			continue;
		madvise(area, AREA, MADV_NOHUGEPAGE);
		for (unsigned at = 0; at < AREA; at += 4096)
			area[at] = 1;
		munmap(area, AREA);
	}
}

__attribute__((noinline)) static void calculate(void)
{
	sink += work(300000);
}

static struct {
	const char *name;
	void (*run)(void);
	double share; /* of the first two: together 0.5 */
	uint64_t spent;
} parts[] = {
	{"malloc", allocate, 0, 0},
	{"free", release, 0, 0},
	{"kernel", map, 0.1, 0},
	{"other", calculate, 0.4, 0},
};

static void run(unsigned which)
{
	uint64_t before = thread_cpu_ns();

	parts[which].run();
	parts[which].spent += thread_cpu_ns() - before;
}

/* Whichever is furthest behind its share runs next; what malloc took is freed at once. */
static void share(uint64_t most_ns)
{
	uint64_t total = 0;

	while (!stopping && (!most_ns || thread_cpu_ns() < most_ns)) {
		unsigned next = 0;

		double behind = (double)(parts[0].spent + parts[1].spent) / 0.5;

		for (unsigned i = 2; i < 4; i++)
			if ((double)parts[i].spent / parts[i].share < behind) {
				behind = (double)parts[i].spent / parts[i].share;
				next = i;
			}
		run(next);
		if (next == 0)
			run(1);
	}
	for (unsigned i = 0; i < 4; i++)
		total += parts[i].spent;
	for (unsigned i = 0; i < 4; i++)
		printf("%s %.4f\n", parts[i].name, (double)parts[i].spent / (double)total);
}

static void *rest(void *argument)
{
	while (!stopping)
		pause();
	return argument;
}

static void leak(void)
{
	const struct timespec wait = {.tv_nsec = 50000000};

	while (!stopping) {
		char *block = malloc(1 << 20);
		pthread_t thread;

		if (block)
			memset(block, 1, 1 << 20);
		pthread_create(&thread, NULL, rest, NULL);
		nanosleep(&wait, NULL);
	}
}

int main(int argc, char **argv)
{
	bool leaking = argc > 2 && !strcmp(argv[2], "leak");

	workload_start(leaking ? argc : 1, argv);
	/* What was given back stays with libc: touching it again costs no page fault. */
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, 16 << 20);
	if (leaking)
		leak();
	else
		share(argc > 1 ? strtoull(argv[1], NULL, 10) * 1000000000 : 0);
	print_cpu();
	return 0;
}

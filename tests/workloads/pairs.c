/* SPDX-License-Identifier: MIT
 *
 * What a malloc and its free cost: every 20 ms a line with the time (CLOCK_MONOTONIC, ns) and the
 * nanoseconds of a pair in the first thread.
 *
 * usage: pairs [tcache|mixed|deep [THREADS [SECONDS]]]
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLOTS    1024
#define ROUND_NS 20000000u

static bool mixed;
static int depth; /* of further frames below the allocations */
static volatile bool over;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static __attribute__((noinline)) void tcache_pairs(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		void *memory = malloc(64);

		__asm__ volatile("" : "+r"(memory)::"memory");
		free(memory);
	}
}

/* Sizes from 16 bytes to 4 KB, freed in another order than allocated. */
static __attribute__((noinline)) void mixed_pairs(unsigned count, void **slots, uint64_t *state)
{
	for (unsigned i = 0; i < count; i++) {
		void **slot;

		*state = *state * 6364136223846793005u + 1442695040888963407u;
		slot = &slots[*state >> 54];
		free(*slot);
		*slot = malloc(16 + (*state >> 40) % 512 * ((*state >> 33) % 8 + 1));
	}
}

static __attribute__((noinline)) uint64_t deep_pairs(int frames, unsigned count, void **slots,
						     uint64_t *state)
{
	volatile char room[32];

	room[0] = (char)frames;
	if (frames > 0)
		return deep_pairs(frames - 1, count, slots, state) + (uint64_t)room[0];
	mixed_pairs(count, slots, state);
	return (uint64_t)room[0];
}

static void *work(void *first)
{
	void **slots = calloc(SLOTS, sizeof(*slots));
	uint64_t state = (uintptr_t)&slots;
	const unsigned batch = 5000;

	while (!over) {
		uint64_t start = now(), time = start, pairs = 0;

		while (time < start + ROUND_NS) {
			if (mixed)
				deep_pairs(depth, batch, slots, &state);
			else
				tcache_pairs(batch);
			pairs += batch;
			time = now();
		}
		if (first) {
			printf("%llu %.3f\n", (unsigned long long)time,
			       (double)(time - start) / (double)pairs);
			fflush(stdout);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 1;
	double seconds = argc > 3 ? atof(argv[3]) : 3600;
	struct timespec pause = {(time_t)seconds,
				 (long)((seconds - (double)(time_t)seconds) * 1e9)};
	pthread_t thread;

	mixed = argc > 1 && strcmp(argv[1], "tcache") != 0;
	depth = argc > 1 && !strcmp(argv[1], "deep") ? 20 : 0;
	for (int i = 0; i < threads; i++)
		pthread_create(&thread, NULL, work, i == 0 ? "" : NULL);
	nanosleep(&pause, NULL);
	over = true;
	return 0;
}

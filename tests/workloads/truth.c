/* SPDX-License-Identifier: MIT
 *
 * Allocates from known places and keeps exact accounts, by hand. Prints "ready", waits for a line,
 * allocates, prints an account a place, waits for another line, and ends.
 * Sizes are drawn per place: from a few bytes to more than a sampling period.
 *
 * An account: objects, bytes, those still live, and the variances that Poisson sampling with mean
 * gap RATE gives the estimates of these four (sums of (1 - p) / p and of size^2 (1 - p) / p).
 *
 * usage: truth [SEED [ALLOCATIONS [THREADS [RATE]]]]
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEEP 512

struct account {
	uint64_t objects, bytes, live_objects, live_bytes;
	double variance[4]; /* of their estimates */
};

static double rate = 524288;

static void count(struct account *account, size_t size, int live)
{
	double square = (double)size * (double)size;
	double odds = 1 / expm1(((double)size + 1) / rate); /* (1 - p) / p */

	account->objects++;
	account->bytes += size;
	account->variance[0] += odds;
	account->variance[1] += odds * square;
	if (!live)
		return;
	account->live_objects++;
	account->live_bytes += size;
	account->variance[2] += odds;
	account->variance[3] += odds * square;
}

static void add(struct account *to, const struct account *from)
{
	to->objects += from->objects;
	to->bytes += from->bytes;
	to->live_objects += from->live_objects;
	to->live_bytes += from->live_bytes;
	for (int i = 0; i < 4; i++)
		to->variance[i] += from->variance[i];
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Each place is a function of its own with a call that is not its last. */
#define PLACE(n)                                                                                   \
	static __attribute__((noinline)) void *place_##n(size_t size)                              \
	{                                                                                          \
		void *memory = malloc(size);                                                       \
                                                                                                   \
		__asm__ volatile("" : "+r"(memory));                                               \
		return memory;                                                                     \
	}
PLACE(0)
PLACE(1)
PLACE(2)
PLACE(3)
PLACE(4)
PLACE(5)

static void *(*const places[])(size_t) = {place_0, place_1, place_2, place_3, place_4, place_5};
#define PLACES (sizeof(places) / sizeof(places[0]))

/* Mean sizes: 48 bytes to 300 KB; the share that is kept differs too. */
static const size_t sizes[PLACES] = {48, 512, 6000, 40000, 300000, 150000};
static const unsigned often[PLACES] = {4000, 3000, 2000, 500, 60, 60};
static const unsigned kept[PLACES] = {10, 50, 25, 75, 50, 25}; /* per cent */

struct worker {
	uint64_t state;
	uint64_t allocations;
	uint64_t burst; /* allocations between two pauses */
	struct account accounts[PLACES];
};

static __attribute__((noinline)) void *work(void *argument)
{
	struct worker *worker = argument;

	for (uint64_t i = 0; i < worker->allocations; i++) {
		uint64_t r = next_random(&worker->state) % 9620, sum = 0;
		unsigned place = 0;
		size_t size;
		void *memory;
		int live;

		while (r >= sum + often[place])
			sum += often[place++];
		/* Not down to nothing: the smallest would count for so much, so rarely, that the
		 * variance seen in some hundred runs says little of the true one. */
		size = 1 + sizes[place] / 2 + next_random(&worker->state) % sizes[place];
		memory = places[place](size);
		if (i % worker->burst == 0)
			usleep(1000); /* the ring need not overrun */
		live = next_random(&worker->state) % 100 < kept[place];
		count(&worker->accounts[place], size, live);
		if (live)
			*(volatile char *)memory = 1; /* kept for ever: it is a leak */
		else
			free(memory);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t allocations = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
	unsigned threads = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	static struct worker workers[64];
	pthread_t ids[64];
	char line[16];

	rate = argc > 4 ? atof(argv[4]) : rate;
	threads = threads < 64 ? threads : 64;
	setvbuf(stdout, NULL, _IONBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	puts("ready");
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	for (unsigned i = 0; i < threads; i++) {
		workers[i].state = (seed * 64 + i + 1) * 0x9e3779b97f4a7c15ull;
		workers[i].allocations = allocations / threads;
		workers[i].burst = 64 / threads;
		if (i)
			pthread_create(&ids[i], NULL, work, &workers[i]);
	}
	work(&workers[0]);
	for (unsigned i = 1; i < threads; i++) {
		pthread_join(ids[i], NULL);
		for (size_t p = 0; p < PLACES; p++)
			add(&workers[0].accounts[p], &workers[i].accounts[p]);
	}
	for (size_t p = 0; p < PLACES; p++) {
		const struct account *account = &workers[0].accounts[p];

		printf("place_%zu %llu %llu %llu %llu %.9g %.9g %.9g %.9g\n", p,
		       (unsigned long long)account->objects, (unsigned long long)account->bytes,
		       (unsigned long long)account->live_objects,
		       (unsigned long long)account->live_bytes, account->variance[0],
		       account->variance[1], account->variance[2], account->variance[3]);
	}
	puts("done");
	return fgets(line, sizeof(line), stdin) ? 0 : 1;
}

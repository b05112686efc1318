/* SPDX-License-Identifier: MIT
 *
 * hook_cost [THREADS]: ns of a malloc and free pair through a pointer, plain and through the hooks
 * of an agent in this process, in turns; the medians. One line of key=value.
 */
#include "../unit/agent_plant.h"

#define ROUNDS 15
#define PAIRS  1000000

typedef void *allocator(size_t);
typedef void releaser(void *);

static struct {
	allocator *volatile allocate;
	releaser *volatile release;
} slots;

static double pairs_ns(long count)
{
	struct timespec begin;
	struct timespec end;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (long i = 0; i < count; i++)
		slots.release(slots.allocate((size_t)(i % 512)));
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	return ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) /
	       (double)count;
}

/* As the profiler publishes it for threads that it knows. */
static void publish(struct plant *plant, bool known)
{
	struct cprof_agent_stack *stack =
		&plant->shared->stacks[(uint64_t)pthread_self() * CPROF_AGENT_HASH >>
				       (64 - CPROF_AGENT_SHARD_BITS)];
	char *here = __builtin_frame_address(0);

	stack->low = (uint64_t)here - 32768;
	stack->high = (uint64_t)here + 512;
	stack->thread_pointer = known ? (uint64_t)pthread_self() : 0;
	stack->tid = (uint32_t)gettid();
}

static struct plant plant;

static void *body(void *result)
{
	publish(&plant, true);
	*(double *)result = pairs_ns(PAIRS);
	return NULL;
}

static double threads_ns(int threads)
{
	pthread_t handles[64];
	double results[64];
	double sum = 0;

	for (int i = 0; i < threads; i++)
		PLANT_MUST(!pthread_create(&handles[i], NULL, body, &results[i]));
	for (int i = 0; i < threads; i++) {
		pthread_join(handles[i], NULL);
		sum += results[i];
	}
	return sum / threads;
}

static int compare(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;

	return difference < 0 ? -1 : difference > 0;
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), compare);
	return values[ROUNDS / 2];
}

static void hook(bool hooked)
{
	slots.allocate = hooked ? plant_hook(&plant, 0, CPROF_AGENT_F_malloc) : malloc;
	slots.release = hooked ? plant_hook(&plant, 0, CPROF_AGENT_F_free) : free;
}

static volatile bool over;

static void *read_ring(void *unused)
{
	uint64_t position = 0;

	(void)unused;
	while (!over) {
		while (plant_next(&plant, &position))
			;
		usleep(1000);
	}
	return NULL;
}

/* One thread, `known`: its stack's bounds are published. The ring is emptied between the rounds. */
static double exact_ns(bool known)
{
	double results[ROUNDS];
	uint64_t position = plant.shared->tail;

	publish(&plant, known);
	hook(true);
	for (int i = 0; i < ROUNDS; i++) {
		plant_beat(&plant);
		results[i] = pairs_ns(3000);
		while (plant_next(&plant, &position))
			;
	}
	hook(false);
	return median(results);
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	double plain[ROUNDS];
	double off[ROUNDS];
	double hooked[ROUNDS];
	pthread_t reader;

	plant_create(&plant, 512 << 10, 1);
	PLANT_MUST(!pthread_create(&reader, NULL, read_ring, NULL));
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t on = plant.control->on;

		hook(false);
		plain[i] = threads_ns(threads);
		hook(true);
		plant_beat(&plant);
		hooked[i] = threads_ns(threads);
		plant.control->on = 0;
		off[i] = threads_ns(threads);
		plant.control->on = on;
	}
	over = true;
	pthread_join(reader, NULL);
	hook(false);
	printf("plain=%.2f hooked=%.2f off=%.2f samples=%lu lost=%lu", median(plain),
	       median(hooked), median(off), plant.shared->allocs, plant.shared->dropped);
	plant_destroy(&plant);

	plant_create(&plant, 1, 1);
	printf(" exact=%.1f", exact_ns(true));
	printf(" exact_unknown=%.1f lost=%lu\n", exact_ns(false), plant.shared->dropped);
	plant_destroy(&plant);
	return 0;
}

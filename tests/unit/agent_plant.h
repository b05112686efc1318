/* SPDX-License-Identifier: MIT
 *
 * The agent in the test's own process, laid out as agent_abi.h says: the test is target and
 * profiler at once. The routine runs on top of a signal frame, and leaves by its rt_sigreturn.
 */
#ifndef TESTS_AGENT_PLANT_H
#define TESTS_AGENT_PLANT_H

#include "../../attach/blob.h"
#include <cprof/agent_abi.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef PLANT_DISTANCE
#define PLANT_DISTANCE (1ul << 30)
#endif

struct plant {
	uint8_t *base;
	int memfd;
	struct cprof_agent_config *config;    /* through the memfd */
	struct cprof_agent_shared *shared;    /* the profiler's mapping */
	struct cprof_agent_control *control;  /* the agent's */
	struct cprof_agent_private *private_; /* the agent's */
};

#define PLANT_MUST(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			perror(#condition);                                                        \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static struct cprof_agent_call plant_call;
static const uint8_t *plant_run_at;

__attribute__((no_sanitize("address"))) static void plant_handler(int signal, siginfo_t *info,
								  void *context)
{
	(void)signal;
	(void)info;
	plant_call.sigreturn = (uint64_t)context;
	__asm__ volatile("jmp *%0" : : "r"(plant_run_at), "D"(&plant_call) : "memory");
}

/* The profiler's part: sees `done`, and cuts the wait short. */
static void *plant_watch(void *unused)
{
	(void)unused;
	while (__atomic_load_n(&plant_call.done, __ATOMIC_ACQUIRE) != 1)
		sched_yield();
	__atomic_store_n(&plant_call.done, 2, __ATOMIC_RELEASE);
	return NULL;
}

static inline const struct cprof_agent_header *plant_header(const struct plant *plant)
{
	return (const struct cprof_agent_header *)plant->base;
}

/* Runs an operation; its outcome is in plant_call. Other fields of plant_call are the caller's. */
static inline void plant_run(struct plant *plant, enum cprof_agent_operation operation)
{
	struct sigaction action = {.sa_sigaction = plant_handler, .sa_flags = SA_SIGINFO};
	struct sigaction before;
	pthread_t thread;

	plant_call.done = 0;
	plant_call.operation = operation;
	plant_call.error = 0;
	plant_call.changed = 0;
	plant_call.failed = 0;
	plant_run_at = plant->base + plant_header(plant)->run;
	PLANT_MUST(pthread_create(&thread, NULL, plant_watch, NULL) == 0);
	PLANT_MUST(sigaction(SIGUSR2, &action, &before) == 0);
	PLANT_MUST(pthread_kill(pthread_self(), SIGUSR2) == 0);
	PLANT_MUST(sigaction(SIGUSR2, &before, NULL) == 0);
	PLANT_MUST(pthread_join(thread, NULL) == 0);
}

static inline void plant_beat(struct plant *plant)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	plant->shared->heartbeat_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Maps what the profiler maps; no START yet. */
static inline void plant_map(struct plant *plant, uint64_t rate)
{
	size_t size = (CPROF_AGENT_FILE_SIZE + 4095) & ~4095ul;
	size_t text = (size_t)(cprof_agent_blob_end - cprof_agent_blob);
	uint8_t *view;

	memset(plant, 0, sizeof(*plant));
	memset(&plant_call, 0, sizeof(plant_call));
	plant->memfd = memfd_create(CPROF_AGENT_MEMFD, MFD_CLOEXEC);
	PLANT_MUST(plant->memfd >= 0 && ftruncate(plant->memfd, (off_t)size) == 0);
	view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, plant->memfd, 0);
	PLANT_MUST(view != MAP_FAILED);
	memcpy(view, cprof_agent_blob, text);
	plant->config = (struct cprof_agent_config *)(view + CPROF_AGENT_CONFIG);
	plant->shared = (struct cprof_agent_shared *)(view + CPROF_AGENT_SHARED);
	plant->shared->magic = CPROF_AGENT_MAGIC;
	plant->shared->rate = rate;
	plant->shared->epoch = 1;
	plant->shared->stack_max = 1024;
	plant_beat(plant);

	/* Not far from the libc, or jumps cost more; and where nothing else comes to lie between.
	 */
	plant->base = (uint8_t *)(((uintptr_t)getppid & -4096ul) - PLANT_DISTANCE);
	PLANT_MUST(mmap(plant->base, CPROF_AGENT_CONFIG, PROT_READ | PROT_EXEC,
			MAP_PRIVATE | MAP_FIXED_NOREPLACE, plant->memfd, 0) == plant->base);
	PLANT_MUST(mmap(plant->base + CPROF_AGENT_CONFIG, 0x2000, PROT_READ,
			MAP_PRIVATE | MAP_FIXED_NOREPLACE, plant->memfd,
			CPROF_AGENT_CONFIG) == plant->base + CPROF_AGENT_CONFIG);
	plant->control = (struct cprof_agent_control *)(plant->base + CPROF_AGENT_CONTROL);
	plant->private_ = (struct cprof_agent_private *)(plant->base + CPROF_AGENT_PRIVATE);
}

static inline void plant_start(struct plant *plant, uint64_t seed)
{
	plant_call.memfd = dup(plant->memfd);
	plant_call.seed = seed;
	plant_run(plant, CPROF_AGENT_START);
}

/* malloc and its like of this process are bank 0. */
static inline void plant_originals(struct plant *plant)
{
	uint64_t *originals = plant->config->originals[0];

	originals[CPROF_AGENT_F_malloc] = (uint64_t)malloc;
	originals[CPROF_AGENT_F_calloc] = (uint64_t)calloc;
	originals[CPROF_AGENT_F_realloc] = (uint64_t)realloc;
	originals[CPROF_AGENT_F_reallocarray] = (uint64_t)reallocarray;
	originals[CPROF_AGENT_F_free] = (uint64_t)free;
	originals[CPROF_AGENT_F_posix_memalign] = (uint64_t)posix_memalign;
	originals[CPROF_AGENT_F_aligned_alloc] = (uint64_t)aligned_alloc;
}

static inline void plant_create(struct plant *plant, uint64_t rate, uint64_t seed)
{
	plant_map(plant, rate);
	plant_originals(plant);
	plant_start(plant, seed);
	if (plant_call.error) {
		fprintf(stderr, "START: step %d: %s\n", (int)plant_call.step,
			strerror((int)-plant_call.error));
		abort();
	}
}

static inline void plant_destroy(struct plant *plant)
{
	uint8_t *view = (uint8_t *)plant->shared - CPROF_AGENT_SHARED;

	plant_run(plant, CPROF_AGENT_RESTORE);
	plant_run(plant, CPROF_AGENT_UNMAP);
	munmap(plant->base, CPROF_AGENT_RESIDENT);
	munmap(view, (CPROF_AGENT_FILE_SIZE + 4095) & ~4095ul);
	close(plant->memfd);
}

static inline void *plant_hook(const struct plant *plant, unsigned bank,
			       enum cprof_agent_function function)
{
	return plant->base + plant_header(plant)->hooks[bank][function];
}

static inline struct cprof_agent_shard *plant_shard(const struct plant *plant)
{
	uint64_t pointer = (uint64_t)pthread_self();

	return &plant->private_
			->shards[pointer * CPROF_AGENT_HASH >> (64 - CPROF_AGENT_SHARD_BITS)];
}

/* The next record, NULL: the ring is empty. It stays until the next call. Aborts on nonsense. */
static inline struct cprof_agent_record *plant_next(struct plant *plant, uint64_t *position)
{
	struct cprof_agent_shared *shared = plant->shared;

	__atomic_store_n(&shared->tail, *position, __ATOMIC_RELEASE);
	while (*position != __atomic_load_n(&shared->head, __ATOMIC_ACQUIRE)) {
		struct cprof_agent_record *record =
			(void *)&shared->ring[*position % CPROF_AGENT_RING_SIZE];
		uint32_t stamp = __atomic_load_n(&record->stamp, __ATOMIC_ACQUIRE);

		if ((stamp & ~7u) != (uint32_t)*position || (stamp & 7) == CPROF_AGENT_STAMP_BUSY) {
			sched_yield();
			continue;
		}
		PLANT_MUST(record->length % 8 == 0 && record->length >= 8);
		*position += record->length;
		if ((stamp & 7) == CPROF_AGENT_STAMP_DONE)
			return record;
		PLANT_MUST((stamp & 7) == CPROF_AGENT_STAMP_PAD);
	}
	return NULL;
}

static inline uint64_t plant_live_count(const struct plant *plant)
{
	uint64_t count = 0;

	for (unsigned b = 0; b < CPROF_AGENT_BUCKETS; b++) {
		for (unsigned w = 0; w < CPROF_AGENT_BUCKET_WAYS; w++)
			count += plant->shared->table[b].keys[w] != 0;
	}
	return count;
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * The agent's shared area as a hostile target writes it. Input: 1 byte of flags (1: exact), then
 * commands: each is what, where, a length, and so many bytes that are written there; drains and
 * profiles in between.
 */
#include "../unit/agent_sim.h"

#include <cprof/reader.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum command { RING, LAST, STAMP, TABLE, COUNTER, HEAD, DRAIN, COPY, COMMANDS };

/* The field of the header that a byte chooses. */
static uint64_t *counter(struct sim *sim, uint8_t which)
{
	uint64_t *const fields[] = {&sim->shared->rate,    &sim->shared->tail,
				    &sim->shared->head,    &sim->shared->allocs,
				    &sim->shared->dropped, &sim->shared->dropped_bytes,
				    &sim->shared->quiet,   &sim->shared->missed_frees};

	return fields[which % CPROF_COUNT(fields)];
}

static void copy(struct sim *sim)
{
	struct cprof_naming *naming = NULL;

	cprof_error_destroy(cprof_heap_copy(sim->heap, 1 << 20, &naming));
	cprof_naming_destroy(naming);
}

static void check(struct sim *sim)
{
	struct cprof_heap_stats stats;

	cprof_heap_drain(sim->heap);
	cprof_heap_stats(sim->heap, &stats);
	SIM_ABORT(stats.samples - stats.frees - stats.voided != stats.live_samples);
	SIM_ABORT(!(stats.live_bytes >= 0) || !(stats.live_objects >= 0));
}

static void run(struct sim *sim, enum command command, uint8_t where, const void *bytes,
		size_t length)
{
	struct cprof_agent_shared *shared = sim->shared;
	const struct sim_ring ring = {&shared->head, shared->ring, sizeof(shared->ring)};
	uint32_t word = 0;

	memcpy(&word, bytes, CPROF_MIN(length, sizeof(word)));
	switch (command) {
	case RING:
		sim_scribble(&ring, 8, bytes, length);
		break;
	case LAST:
		sim_scribble(&ring, 8u * where, bytes, length);
		break;
	case STAMP:
		sim_finish(&ring, word, where);
		break;
	case TABLE:
		memcpy((uint8_t *)&shared->table[where % 2], bytes, length);
		break;
	case COUNTER:
		memcpy(counter(sim, where), bytes, CPROF_MIN(length, (size_t)8));
		break;
	case HEAD:
		shared->head += 8 * word;
		break;
	case DRAIN:
		check(sim);
		break;
	case COPY:
	case COMMANDS:
		copy(sim);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cprof_reader reader = cprof_reader_of(data, size);
	struct sim sim;

	sim_init(&sim, cprof_reader_u8(&reader) & 1 ? 1 : 4096);
	for (unsigned i = 0; i < 16; i++)
		sim_rule(&sim, SIM_TEXT + 0x1000 + 16 * i, sim_frame(8 + 8 * (int32_t)i));
	sim_start(&sim, NULL);
	while (cprof_reader_left(&reader) && !reader.bad) {
		uint8_t what = cprof_reader_u8(&reader);
		uint8_t where = cprof_reader_u8(&reader);
		size_t wanted = cprof_reader_u8(&reader);
		size_t length = CPROF_MIN(cprof_reader_left(&reader), wanted);
		const void *bytes = cprof_reader_bytes(&reader, length);

		if (bytes)
			run(&sim, what % COMMANDS, where, bytes, length);
	}
	check(&sim);
	copy(&sim);
	sim_deinit(&sim);
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * The agent's ring of locks, its entries and counters as a hostile target writes them. Input:
 * commands, each what, where, a length, and so many bytes that are written there; drains and
 * profiles in between.
 */
#include "../unit/agent_sim.h"

#include <cprof/locks.h>
#include <cprof/reader.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum command { RING, STAMP, WAITS, RATES, COUNTER, DRAIN, ROWS, COMMANDS };

static void rows(struct cprof_contention *contention)
{
	struct cprof_contention_rows *result = NULL;
	struct cprof_naming *naming = NULL;
	bool unnamed;

	SIM_ABORT(cprof_contention_rows(contention, cprof_now_ns(), &result));
	SIM_ABORT(cprof_builder_copy(cprof_contention_builder(contention), &naming));
	SIM_ABORT(cprof_naming_run(naming, 0, &unnamed));
	SIM_ABORT(cprof_contention_fill(result, CPROF_CONTENTION_HOLDER,
					cprof_naming_profile(naming)));
	cprof_naming_destroy(naming);
	cprof_contention_rows_destroy(result);
}

static void run(struct sim *sim, struct cprof_contention *contention, enum command command,
		uint8_t where, const void *bytes, size_t length)
{
	struct cprof_agent_shared *shared = sim->shared;
	uint64_t *const counters[] = {&shared->lock_head, &shared->lock_tail, &shared->lock_dropped,
				      &shared->lock_full};
	const struct sim_ring ring = {&shared->lock_head, shared->lock_ring,
				      sizeof(shared->lock_ring)};
	uint32_t word = 0;

	memcpy(&word, bytes, CPROF_MIN(length, sizeof(word)));
	switch (command) {
	case RING:
		sim_scribble(&ring, 8u + 8u * where, bytes, length);
		break;
	case STAMP:
		sim_finish(&ring, word, where);
		break;
	case WAITS:
		memcpy((uint8_t *)shared->lock_waits[where], bytes, length);
		break;
	case RATES:
		memcpy(&shared->lock_rates[where], bytes, CPROF_MIN(length, (size_t)8));
		break;
	case COUNTER:
		memcpy(counters[where % CPROF_COUNT(counters)], bytes,
		       CPROF_MIN(length, (size_t)8));
		break;
	case DRAIN:
		cprof_contention_drain(contention);
		break;
	case ROWS:
	case COMMANDS:
		rows(contention);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cprof_reader reader = cprof_reader_of(data, size);
	struct cprof_contention *contention;
	struct sim sim;

	sim_init(&sim, 4096);
	for (unsigned i = 0; i < 16; i++)
		sim_rule(&sim, SIM_TEXT + 0x1000 + 16 * i, sim_frame(8 + 8 * (int32_t)i));
	SIM_ABORT(cprof_contention_create(sim_records(&sim), &contention));
	while (cprof_reader_left(&reader) && !reader.bad) {
		uint8_t what = cprof_reader_u8(&reader);
		uint8_t where = cprof_reader_u8(&reader);
		size_t wanted = cprof_reader_u8(&reader);
		size_t length = CPROF_MIN(cprof_reader_left(&reader), wanted);
		const void *bytes = cprof_reader_bytes(&reader, length);

		if (bytes)
			run(&sim, contention, what % COMMANDS, where, bytes, length);
	}
	cprof_contention_drain(contention);
	rows(contention);
	cprof_contention_destroy(contention);
	sim_deinit(&sim);
	return 0;
}

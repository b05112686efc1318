/* SPDX-License-Identifier: MIT
 *
 * From an agent's record to its stack.
 */
#include <cprof/agent_ring.h>
#include <cprof/util.h>
#include <string.h>

#define REFRESH_NS 1000000000ull /* maps are read again at most this often */

bool cprof_agent_records_want(const struct cprof_agent_records *records, uint32_t tid)
{
	return !records->wanted || records->wanted(records->context, (pid_t)tid);
}

void cprof_agent_records_note(struct cprof_agent_records *records,
			      const struct cprof_agent_record *record)
{
	if (records->bounds)
		cprof_agent_bounds_note(records->bounds, record);
}

void cprof_agent_records_answer(struct cprof_agent_records *records)
{
	struct cprof_target *target = cprof_space_target(records->space);

	__atomic_store_n(&records->shared->heartbeat_ns,
			 cprof_target_time_ns(target, cprof_now_ns()), __ATOMIC_RELAXED);
	if (records->bounds)
		cprof_agent_bounds_publish(records->bounds, target, records->shared);
}

void cprof_agent_records_flush(struct cprof_agent_records *records)
{
	if (records->unwinder->ops->flush)
		records->unwinder->ops->flush(records->unwinder);
	records->generation++;
}

/* Code that was mapped unnoticed: look again, but not often. */
static bool refresh(struct cprof_agent_records *records)
{
	uint64_t now = cprof_now_ns();

	if (!cprof_space_target(records->space) || now < records->refreshed_ns + REFRESH_NS)
		return false;
	records->refreshed_ns = now;
	cprof_error_destroy(cprof_space_refresh(records->space));
	cprof_agent_records_flush(records);
	return true;
}

uint64_t cprof_agent_records_unwind(struct cprof_agent_records *records,
				    const struct cprof_agent_record *record, const uint8_t *bytes)
{
	struct cprof_unwinder *unwinder = records->unwinder;
	uint64_t before = cprof_now_ns();

	records->memory = (struct cprof_memory){.stack = records->bytes,
						.stack_start = record->sp,
						.stack_length = record->stack_length};
	records->stack = (struct cprof_stack){.frames = records->frames,
					      .capacity = CPROF_COUNT(records->frames)};
	memcpy(records->bytes, bytes, record->stack_length);
	cprof_agent_registers(record, &records->regs);
	unwinder->ops->unwind(unwinder, &records->regs, &records->memory, &records->stack);
	if ((records->stack.end == CPROF_END_CORRUPT ||
	     !cprof_space_find(records->space, record->pc - 1)) &&
	    refresh(records))
		unwinder->ops->unwind(unwinder, &records->regs, &records->memory, &records->stack);
	return cprof_now_ns() - before;
}

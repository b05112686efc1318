/* SPDX-License-Identifier: MIT
 *
 * Perf records. Input: one byte that chooses the fields, then the record; its size is put right so
 * that more than the first check is reached.
 */
#include <cprof/perf.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>

#define REGS_USED 0xff01ffull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads all that the record points at. */
static uint64_t record_touch(const struct cprof_perf_record *record)
{
	uint64_t sum = 0;

	switch (record->type) {
	case CPROF_PERF_SAMPLE:
		for (size_t i = 0; i < record->sample.stack_length; i++)
			sum += record->sample.stack[i];
		for (size_t i = 0; i < record->sample.kernel_count; i++) {
			uint64_t word;

			memcpy(&word, &record->sample.kernel_chain[i], sizeof(word));
			sum += word;
		}
		return sum;
	case CPROF_PERF_MMAP:
		if (record->mmap.mapping.end < record->mmap.mapping.start)
			abort();
		return strlen(record->mmap.mapping.path);
	case CPROF_PERF_COMM:
		return strlen(record->comm.comm);
	default:
		return 0;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cprof_perf_format format = {
		.sample_type = PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_IP | PERF_SAMPLE_TID |
			       PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_PERIOD,
		.regs_mask = REGS_USED,
	};
	struct cprof_perf_record record;
	volatile uint64_t sink;
	uint16_t length;
	uint8_t *bytes;

	if (size < 1 || size > UINT16_MAX)
		return 0;
	format.sample_id_all = data[0] & 1;
	format.sample_type |= data[0] & 2 ? PERF_SAMPLE_CALLCHAIN : 0;
	format.sample_type |= data[0] & 4 ? PERF_SAMPLE_REGS_USER : 0;
	format.sample_type |= data[0] & 8 ? PERF_SAMPLE_STACK_USER : 0;
	format.sample_type |= data[0] & 16 ? PERF_SAMPLE_RAW : 0;
	format.only_waits = data[0] & 32;
	length = (uint16_t)(size - 1);
	bytes = malloc(length ? length : 1); /* of its own, so that ASan sees a read too far */
	if (!bytes)
		return 0;
	memcpy(bytes, data + 1, length);
	if (length >= sizeof(struct perf_event_header))
		memcpy(bytes + offsetof(struct perf_event_header, size), &length, sizeof(length));
	if (cprof_perf_parse(&format, bytes, length, &record)) {
		sink = record_touch(&record);
		(void)sink;
	}
	free(bytes);
	return 0;
}

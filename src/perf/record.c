/* SPDX-License-Identifier: MIT
 *
 * Decodes perf records; the layouts are those of perf_event_open(2). Bytes come from a ring that
 * only the kernel writes, but names, stacks and registers in them are the target's.
 */
#include "private.h"
#include <cprof/reader.h>
#include <sys/mman.h>

/* Fields this decoder knows how to step over; anything else makes a sample unreadable. */
#define KNOWN_FIELDS                                                                               \
	(PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME |            \
	 PERF_SAMPLE_ADDR | PERF_SAMPLE_ID | PERF_SAMPLE_STREAM_ID | PERF_SAMPLE_CPU |             \
	 PERF_SAMPLE_PERIOD | PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_RAW | PERF_SAMPLE_REGS_USER |    \
	 PERF_SAMPLE_STACK_USER)

/* DWARF register number of each PERF_REG_X86_* (asm/perf_regs.h), -1: segments and flags. */
static const int8_t dwarf_of_perf[] = {
	0,  3,  2,  1,  4, 5, 6,  7,  16, -1, -1, -1, /* ax bx cx dx si di bp sp ip flags cs ss */
	-1, -1, -1, -1, 8, 9, 10, 11, 12, 13, 14, 15, /* ds es fs gs r8…r15 */
};

/* The identity fields at the end of every record that is not a sample. */
static void sample_id_parse(const struct cprof_perf_format *format, struct cprof_reader *reader,
			    struct cprof_perf_record *record)
{
	uint64_t type = format->sample_type;

	if (type & PERF_SAMPLE_TID) {
		record->pid = (pid_t)cprof_reader_u32(reader);
		record->tid = (pid_t)cprof_reader_u32(reader);
	}
	if (type & PERF_SAMPLE_TIME)
		record->time = cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_ID)
		cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_STREAM_ID)
		cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_CPU) {
		record->cpu = cprof_reader_u32(reader);
		cprof_reader_u32(reader);
	}
	if (type & PERF_SAMPLE_IDENTIFIER)
		cprof_reader_u64(reader);
}

/* Bytes that sample_id_parse() reads. */
static size_t sample_id_size(const struct cprof_perf_format *format)
{
	uint64_t fields = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ID |
			  PERF_SAMPLE_STREAM_ID | PERF_SAMPLE_CPU | PERF_SAMPLE_IDENTIFIER;

	if (!format->sample_id_all)
		return 0;
	return 8 * (size_t)__builtin_popcountll(format->sample_type & fields);
}

/* Kernel addresses are a run between context markers (values above PERF_CONTEXT_MAX). */
static void callchain_parse(struct cprof_reader *reader, struct cprof_perf_sample *sample)
{
	uint64_t count = cprof_reader_u64(reader);
	const uint8_t *words;
	uint64_t context = 0;

	if (count > cprof_reader_left(reader) / 8) {
		reader->bad = true;
		return;
	}
	words = cprof_reader_bytes(reader, count * 8);
	if (!words)
		return;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t word;

		memcpy(&word, words + i * 8, 8);
		if (word >= (uint64_t)PERF_CONTEXT_MAX) {
			if (sample->kernel_count)
				return;
			context = word;
		} else if (context == (uint64_t)PERF_CONTEXT_KERNEL) {
			if (!sample->kernel_count)
				sample->kernel_chain = (const uint64_t *)(words + i * 8);
			sample->kernel_count++;
		}
	}
}

static void regs_parse(const struct cprof_perf_format *format, struct cprof_reader *reader,
		       struct cprof_perf_sample *sample)
{
	uint64_t abi = cprof_reader_u64(reader);

	if (abi == PERF_SAMPLE_REGS_ABI_NONE)
		return;
	sample->user_32bit = abi == PERF_SAMPLE_REGS_ABI_32;
	for (unsigned i = 0; i < 64; i++) {
		uint64_t value;

		if (!(format->regs_mask >> i & 1))
			continue;
		value = cprof_reader_u64(reader);
		if (i < sizeof(dwarf_of_perf) && dwarf_of_perf[i] >= 0)
			sample->regs[dwarf_of_perf[i]] = value;
	}
	sample->has_user = !reader->bad;
}

static void stack_parse(struct cprof_reader *reader, struct cprof_perf_sample *sample)
{
	uint64_t size = cprof_reader_u64(reader);
	const void *bytes;
	uint64_t valid;

	if (!size)
		return; /* then the kernel leaves out the rest */
	bytes = cprof_reader_bytes(reader, size);
	valid = cprof_reader_u64(reader);
	if (!bytes || valid > size) {
		reader->bad = true;
		return;
	}
	sample->stack = bytes;
	sample->stack_length = valid;
	sample->stack_cut = valid == size;
}

/* What a program tells: of a wait, and the frames of the kernel. */
static void told_parse(struct cprof_reader *reader, struct cprof_perf_wait *wait,
		       struct cprof_perf_sample *sample)
{
	uint32_t size = cprof_reader_u32(reader);
	const uint8_t *bytes = cprof_reader_bytes(reader, size);
	struct cprof_told told;

	if (!bytes || size < sizeof(told)) {
		reader->bad = true;
		return;
	}
	memcpy(&told, bytes, sizeof(told));
	*wait = (struct cprof_perf_wait){
		.key = told.key,
		.from = told.out_ns,
		.until = told.in_ns,
		.preempted = told.flags & CPROF_WAIT_PREEMPTED,
		.spent = told.flags >> CPROF_WAIT_SPENT,
		.weight = told.share ? 0x1p32 / (double)told.share : 0,
	};
	if (!sample)
		return;
	if (!(told.flags & CPROF_WAIT_KEPT))
		wait->from = 0;
	sample->kernel_chain = (const uint64_t *)(bytes + sizeof(told));
	sample->kernel_count = (size - sizeof(told)) / sizeof(uint64_t);
}

static bool sample_parse(const struct cprof_perf_format *format, struct cprof_reader *reader,
			 struct cprof_perf_record *record)
{
	struct cprof_perf_sample *sample = &record->sample;
	uint64_t type = format->sample_type;

	record->type = CPROF_PERF_SAMPLE;
	if (type & ~(uint64_t)KNOWN_FIELDS)
		return false;
	if (type & PERF_SAMPLE_IDENTIFIER)
		sample->id = cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_IP)
		cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_TID) {
		record->pid = (pid_t)cprof_reader_u32(reader);
		record->tid = (pid_t)cprof_reader_u32(reader);
	}
	if (type & PERF_SAMPLE_TIME)
		record->time = cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_ADDR)
		cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_ID)
		sample->id = cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_STREAM_ID)
		cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_CPU) {
		record->cpu = cprof_reader_u32(reader);
		cprof_reader_u32(reader);
	}
	if (type & PERF_SAMPLE_PERIOD)
		sample->period = cprof_reader_u64(reader);
	if (type & PERF_SAMPLE_CALLCHAIN)
		callchain_parse(reader, sample);
	if (type & PERF_SAMPLE_RAW && format->only_waits) {
		record->type = CPROF_PERF_WAIT;
		told_parse(reader, &record->wait, NULL);
	} else if (type & PERF_SAMPLE_RAW) {
		told_parse(reader, &sample->before, sample);
	}
	if (type & PERF_SAMPLE_REGS_USER)
		regs_parse(format, reader, sample);
	if (type & PERF_SAMPLE_STACK_USER)
		stack_parse(reader, sample);
	return !reader->bad;
}

static void mmap_parse(struct cprof_reader *reader, const struct perf_event_header *header,
		       struct cprof_perf_record *record)
{
	struct cprof_mapping *mapping = &record->mmap.mapping;
	uint64_t length;

	record->type = CPROF_PERF_MMAP;
	record->pid = (pid_t)cprof_reader_u32(reader);
	record->tid = (pid_t)cprof_reader_u32(reader);
	mapping->start = cprof_reader_u64(reader);
	length = cprof_reader_u64(reader);
	mapping->offset = cprof_reader_u64(reader);
	if (header->type == PERF_RECORD_MMAP2) {
		uint32_t prot;

		if (header->misc & PERF_RECORD_MISC_MMAP_BUILD_ID) {
			cprof_reader_bytes(reader, 24);
		} else {
			mapping->device_major = cprof_reader_u32(reader);
			mapping->device_minor = cprof_reader_u32(reader);
			mapping->inode = cprof_reader_u64(reader);
			cprof_reader_u64(reader); /* generation of the inode */
		}
		prot = cprof_reader_u32(reader);
		mapping->prot = prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
		cprof_reader_u32(reader); /* MAP_* */
	} else {
		mapping->prot = header->misc & PERF_RECORD_MISC_MMAP_DATA ? PROT_READ
									  : PROT_READ | PROT_EXEC;
	}
	mapping->path = cprof_reader_string(reader, cprof_reader_left(reader));
	if (__builtin_add_overflow(mapping->start, length, &mapping->end))
		reader->bad = true;
}

/* The part of a record that is not a sample, without the identity fields behind it. */
static void body_parse(struct cprof_reader *reader, const struct perf_event_header *header,
		       struct cprof_perf_record *record)
{
	switch (header->type) {
	case PERF_RECORD_MMAP:
	case PERF_RECORD_MMAP2:
		mmap_parse(reader, header, record);
		break;
	case PERF_RECORD_COMM:
		record->type = CPROF_PERF_COMM;
		record->pid = (pid_t)cprof_reader_u32(reader);
		record->tid = (pid_t)cprof_reader_u32(reader);
		record->comm.comm = cprof_reader_string(reader, cprof_reader_left(reader));
		record->comm.exec = header->misc & PERF_RECORD_MISC_COMM_EXEC;
		break;
	case PERF_RECORD_FORK:
	case PERF_RECORD_EXIT:
		record->type = header->type == PERF_RECORD_FORK ? CPROF_PERF_FORK : CPROF_PERF_EXIT;
		record->pid = (pid_t)cprof_reader_u32(reader);
		record->task.parent_pid = (pid_t)cprof_reader_u32(reader);
		record->tid = (pid_t)cprof_reader_u32(reader);
		record->task.parent_tid = (pid_t)cprof_reader_u32(reader);
		record->time = cprof_reader_u64(reader);
		break;
	case PERF_RECORD_LOST:
		record->type = CPROF_PERF_LOST;
		record->lost.id = cprof_reader_u64(reader);
		record->lost.count = cprof_reader_u64(reader);
		break;
	case PERF_RECORD_THROTTLE:
	case PERF_RECORD_UNTHROTTLE:
		record->type = header->type == PERF_RECORD_THROTTLE ? CPROF_PERF_THROTTLE
								    : CPROF_PERF_OTHER;
		record->time = cprof_reader_u64(reader);
		cprof_reader_u64(reader); /* id */
		cprof_reader_u64(reader); /* stream id */
		break;
	case PERF_RECORD_SWITCH_CPU_WIDE:
	case PERF_RECORD_SWITCH:
		record->type = CPROF_PERF_SWITCH;
		record->switched.out = header->misc & PERF_RECORD_MISC_SWITCH_OUT;
		record->switched.preempted =
			record->switched.out && header->misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT;
		if (header->type == PERF_RECORD_SWITCH_CPU_WIDE)
			cprof_reader_u64(reader); /* who comes or went instead */
		break;
	default:
		record->type = CPROF_PERF_OTHER;
		break;
	}
}

bool cprof_perf_parse(const struct cprof_perf_format *format, const void *bytes, size_t length,
		      struct cprof_perf_record *record)
{
	struct cprof_reader reader = cprof_reader_of(bytes, length);
	struct cprof_perf_record id = {0};
	struct perf_event_header header;
	const void *start = cprof_reader_bytes(&reader, sizeof(header));
	size_t id_size = sample_id_size(format);

	*record = (struct cprof_perf_record){.type = CPROF_PERF_OTHER};
	if (!start)
		return false;
	memcpy(&header, start, sizeof(header));
	if (header.size != length)
		return false;
	if (header.type == PERF_RECORD_SAMPLE)
		return sample_parse(format, &reader, record);

	if (id_size > cprof_reader_left(&reader))
		return false;
	if (id_size) {
		struct cprof_reader tail = cprof_reader_of(reader.end - id_size, id_size);

		sample_id_parse(format, &tail, &id);
		reader.end -= id_size;
	}
	body_parse(&reader, &header, record);
	/* The body says whom the record is about, the tail who wrote it, when and where. */
	if (record->type == CPROF_PERF_LOST || record->type == CPROF_PERF_OTHER ||
	    record->type == CPROF_PERF_THROTTLE || record->type == CPROF_PERF_SWITCH) {
		record->pid = id.pid;
		record->tid = id.tid;
	}
	if (id.time)
		record->time = id.time;
	record->cpu = id.cpu;
	return !reader.bad;
}

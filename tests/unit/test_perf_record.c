/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The record decoder on bytes laid out by hand, on every truncation of them and on noise.
 */
#include <asm/perf_regs.h>
#include <cprof/perf.h>
#include <cprof/util.h>
#include <linux/perf_event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define REGS_ALL (0x1ffull | 0xffull << PERF_REG_X86_R8) /* ax bx cx dx si di bp sp ip, r8…r15 */
#define ID_FIELDS                                                                                  \
	(PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU |           \
	 PERF_SAMPLE_IP | PERF_SAMPLE_PERIOD)

static const struct cprof_perf_format plain = {.sample_type = ID_FIELDS, .sample_id_all = true};
static const struct cprof_perf_format full = {
	.sample_type =
		ID_FIELDS | PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER,
	.regs_mask = REGS_ALL,
	.stack_bytes = 64,
	.sample_id_all = true,
};

/* A record under construction. */
static uint64_t words[512];
static size_t used;

static void begin(uint32_t type, uint16_t misc)
{
	struct perf_event_header header = {.type = type, .misc = misc};

	memset(words, 0, sizeof(words));
	memcpy(words, &header, sizeof(header));
	used = 1;
}

static void put(uint64_t word)
{
	words[used++] = word;
}

static void put2(uint32_t low, uint32_t high)
{
	put((uint64_t)high << 32 | low);
}

static void put_text(const char *text)
{
	memcpy(&words[used], text, strlen(text) + 1);
	used += strlen(text) / 8 + 1;
}

static size_t finish(void)
{
	uint16_t size = (uint16_t)(used * 8);

	memcpy((char *)words + offsetof(struct perf_event_header, size), &size, sizeof(size));
	return size;
}

/* tid 7 of pid 6 at time 1000 on cpu 3 */
static size_t finish_with_id(void)
{
	put2(6, 7);
	put(1000);
	put2(3, 0);
	put(42);
	return finish();
}

static void expect_record(enum cprof_perf_type type, struct cprof_perf_record *record)
{
	size_t length = finish_with_id();

	assert_true(cprof_perf_parse(&plain, words, length, record));
	assert_int_equal(record->type, type);
	assert_int_equal(record->time, 1000);
	assert_int_equal(record->cpu, 3);
}

/* A copy that ends where memory ends: a read too far is seen by ASan. */
static bool parse_copy(const struct cprof_perf_format *format, const void *bytes, size_t length,
		       struct cprof_perf_record *record)
{
	void *copy = malloc(length ? length : 1);
	bool ok;

	memcpy(copy, bytes, length);
	ok = cprof_perf_parse(format, copy, length, record);
	free(copy);
	return ok;
}

/* Cut anywhere, with the header telling the full size, and the cut size. */
static void expect_cuts_refused(const struct cprof_perf_format *format, bool cut_size_too)
{
	size_t length = finish();
	struct cprof_perf_record record;

	for (size_t cut = 0; cut < length; cut++) {
		uint64_t saved = words[0];
		uint16_t size = (uint16_t)cut;
		bool ok;

		assert_false(parse_copy(format, words, cut, &record));
		memcpy((char *)words + offsetof(struct perf_event_header, size), &size, 2);
		ok = parse_copy(format, words, cut, &record);
		assert_false(ok && cut_size_too);
		words[0] = saved;
	}
}

/* --- side-band records --------------------------------------------------------------------- */

static void put_mmap2(const char *name)
{
	put2(6, 7);
	put(0x7f0000001000);
	put(0x3000);
	put(0x2000);
	put2(8, 17);
	put(123456);
	put(9);
	put2(PROT_READ | PROT_EXEC, MAP_PRIVATE);
	put_text(name);
}

static void mappings_are_read(void **state)
{
	struct cprof_perf_record record;
	const struct cprof_mapping *mapping = &record.mmap.mapping;

	(void)state;
	begin(PERF_RECORD_MMAP2, 0);
	put_mmap2("/usr/lib/libsomething.so.1");
	expect_record(CPROF_PERF_MMAP, &record);
	assert_int_equal(record.pid, 6);
	assert_int_equal(record.tid, 7);
	assert_int_equal(mapping->start, 0x7f0000001000);
	assert_int_equal(mapping->end, 0x7f0000004000);
	assert_int_equal(mapping->offset, 0x2000);
	assert_int_equal(mapping->device_major, 8);
	assert_int_equal(mapping->device_minor, 17);
	assert_int_equal(mapping->inode, 123456);
	assert_int_equal(mapping->prot, PROT_READ | PROT_EXEC);
	assert_string_equal(mapping->path, "/usr/lib/libsomething.so.1");
	begin(PERF_RECORD_MMAP2, 0);
	put_mmap2("x");
	finish_with_id();
	expect_cuts_refused(&plain, false);

	begin(PERF_RECORD_MMAP2, PERF_RECORD_MISC_MMAP_BUILD_ID);
	put_mmap2("x");
	expect_record(CPROF_PERF_MMAP, &record);
	assert_int_equal(mapping->inode, 0);
	assert_string_equal(mapping->path, "x");

	begin(PERF_RECORD_MMAP, 0);
	put2(6, 7);
	put(0x1000);
	put(0x1000);
	put(0);
	put_text("a");
	expect_record(CPROF_PERF_MMAP, &record);
	assert_int_equal(mapping->end, 0x2000);
	assert_int_equal(mapping->prot, PROT_READ | PROT_EXEC);
}

static void hostile_mappings_are_refused(void **state)
{
	struct cprof_perf_record record;
	size_t length;

	(void)state;
	begin(PERF_RECORD_MMAP, 0); /* the end wraps around */
	put2(6, 7);
	put(0xfffffffffffff000);
	put(0x2000);
	put(0);
	put_text("a");
	length = finish_with_id();
	assert_false(cprof_perf_parse(&plain, words, length, &record));

	begin(PERF_RECORD_MMAP, 0); /* the name has no end */
	put2(6, 7);
	put(0x1000);
	put(0x1000);
	put(0);
	put(0x6161616161616161);
	length = finish_with_id();
	assert_false(cprof_perf_parse(&plain, words, length, &record));
}

static void names_are_read(void **state)
{
	struct cprof_perf_record record;

	(void)state;
	begin(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC);
	put2(16, 17);
	put_text("worker");
	expect_record(CPROF_PERF_COMM, &record);
	assert_int_equal(record.pid, 16);
	assert_int_equal(record.tid, 17);
	assert_true(record.comm.exec);
	assert_string_equal(record.comm.comm, "worker");
	expect_cuts_refused(&plain, false);

	begin(PERF_RECORD_COMM, 0);
	put2(16, 17);
	put_text("a");
	expect_record(CPROF_PERF_COMM, &record);
	assert_false(record.comm.exec);
}

static void tasks_are_read(void **state)
{
	struct cprof_perf_record record;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		begin(i ? PERF_RECORD_EXIT : PERF_RECORD_FORK, 0);
		put2(10, 11); /* pid, ppid */
		put2(12, 13); /* tid, ptid */
		put(999);
		expect_record(i ? CPROF_PERF_EXIT : CPROF_PERF_FORK, &record);
		assert_int_equal(record.pid, 10);
		assert_int_equal(record.tid, 12);
		assert_int_equal(record.task.parent_pid, 11);
		assert_int_equal(record.task.parent_tid, 13);
		expect_cuts_refused(&plain, true);
	}
}

static void losses_are_read(void **state)
{
	struct cprof_perf_record record;

	(void)state;
	begin(PERF_RECORD_LOST, 0);
	put(42);
	put(1234);
	expect_record(CPROF_PERF_LOST, &record);
	assert_int_equal(record.lost.id, 42);
	assert_int_equal(record.lost.count, 1234);
	expect_cuts_refused(&plain, true);

	begin(PERF_RECORD_THROTTLE, 0);
	put(900);
	put(42);
	put(43);
	expect_record(CPROF_PERF_THROTTLE, &record);
	assert_int_equal(record.pid, 6);
	expect_cuts_refused(&plain, true);

	begin(PERF_RECORD_UNTHROTTLE, 0);
	put(900);
	put(42);
	put(43);
	expect_record(CPROF_PERF_OTHER, &record);

	begin(4711, 0); /* a kernel newer than we are */
	put(1);
	expect_record(CPROF_PERF_OTHER, &record);
}

/* --- samples ------------------------------------------------------------------------------- */

static void put_sample_head(void)
{
	begin(PERF_RECORD_SAMPLE, 0);
	put(42);     /* identifier */
	put(0xabcd); /* ip */
	put2(6, 7);
	put(1000);
	put2(3, 0);
	put(10101010); /* period */
}

static void put_regs(uint64_t abi)
{
	put(abi);
	for (unsigned i = 0; abi && i < 17; i++)
		put(100 + i); /* in the order of the mask's bits */
}

static void put_stack(uint64_t size, uint64_t valid)
{
	put(size);
	if (!size)
		return;
	for (uint64_t i = 0; i < size / 8; i++)
		put(0x1111111111111111 * i);
	put(valid);
}

static void a_user_sample_is_read(void **state)
{
	static const unsigned order[] = {0, 3, 2, 1, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15};
	struct cprof_perf_record record;
	struct cprof_perf_sample *sample = &record.sample;

	(void)state;
	put_sample_head();
	put(0);
	put_regs(PERF_SAMPLE_REGS_ABI_64);
	put_stack(64, 40);
	assert_true(cprof_perf_parse(&full, words, finish(), &record));
	assert_int_equal(record.type, CPROF_PERF_SAMPLE);
	assert_int_equal(record.pid, 6);
	assert_int_equal(record.tid, 7);
	assert_int_equal(record.time, 1000);
	assert_int_equal(record.cpu, 3);
	assert_int_equal(sample->id, 42);
	assert_int_equal(sample->period, 10101010);
	assert_int_equal(sample->kernel_count, 0);
	assert_true(sample->has_user);
	assert_false(sample->user_32bit);
	for (unsigned i = 0; i < 17; i++)
		assert_int_equal(sample->regs[order[i]], 100 + i);
	assert_int_equal(sample->stack_length, 40);
	assert_int_equal(sample->stack[8], 0x11);
	assert_false(sample->stack_cut);
	expect_cuts_refused(&full, true);

	put_sample_head();
	put(0);
	put_regs(PERF_SAMPLE_REGS_ABI_32);
	put_stack(64, 64);
	assert_true(cprof_perf_parse(&full, words, finish(), &record));
	assert_true(sample->user_32bit);
	assert_true(sample->stack_cut);

	put_sample_head(); /* a kernel thread has neither */
	put(0);
	put_regs(PERF_SAMPLE_REGS_ABI_NONE);
	put_stack(0, 0);
	assert_true(cprof_perf_parse(&full, words, finish(), &record));
	assert_false(sample->has_user);
	assert_null(sample->stack);
	expect_cuts_refused(&full, true);
}

static void a_kernel_chain_is_read(void **state)
{
	static const uint64_t chain[] = {(uint64_t)PERF_CONTEXT_KERNEL, 0xffffffff81000001,
					 0xffffffff81000002, (uint64_t)PERF_CONTEXT_USER, 0x401000};
	struct cprof_perf_record record;
	struct cprof_perf_sample *sample = &record.sample;

	(void)state;
	for (unsigned skip = 0; skip < 2; skip++) {
		put_sample_head();
		put(5);
		for (unsigned i = 0; i < 5; i++)
			put(skip && !i ? (uint64_t)PERF_CONTEXT_USER : chain[i]);
		put_regs(PERF_SAMPLE_REGS_ABI_64);
		put_stack(8, 8);
		assert_true(cprof_perf_parse(&full, words, finish(), &record));
		if (skip) { /* what is not under the kernel's marker is not the kernel's */
			assert_int_equal(sample->kernel_count, 0);
			continue;
		}
		assert_int_equal(sample->kernel_count, 2);
		assert_memory_equal(sample->kernel_chain, &chain[1], 16);
		expect_cuts_refused(&full, true);
	}
}

static void hostile_samples_are_refused(void **state)
{
	static const uint64_t counts[] = {1000, 1ull << 32, 1ull << 61, UINT64_MAX};
	struct cprof_perf_format strange = full;
	struct cprof_perf_record record;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		put_sample_head(); /* a chain longer than the record */
		put(counts[i]);
		put_regs(PERF_SAMPLE_REGS_ABI_64);
		put_stack(64, 64);
		assert_false(parse_copy(&full, words, finish(), &record));

		put_sample_head(); /* a stack longer than the record */
		put(0);
		put_regs(PERF_SAMPLE_REGS_ABI_64);
		put(counts[i]);
		put(0);
		assert_false(parse_copy(&full, words, finish(), &record));
	}
	put_sample_head(); /* more valid bytes than bytes */
	put(0);
	put_regs(PERF_SAMPLE_REGS_ABI_64);
	put_stack(64, 72);
	assert_false(parse_copy(&full, words, finish(), &record));

	put_sample_head(); /* a field that is not known */
	strange.sample_type |= PERF_SAMPLE_BRANCH_STACK;
	assert_false(parse_copy(&strange, words, finish(), &record));
}

/* What a program tells: key, out, in, share and flags of a wait, then frames. */
static void put_told(uint64_t flags, size_t frames)
{
	/* The size is 4 bytes; the kernel pads what follows. */
	uint32_t raw[1 + 2 * 5 + 2 * 8 + 1] = {(uint32_t)(40 + 8 * frames + 4)};
	const uint64_t told[5] = {0x600000007, 5000, 9000, 1ull << 30, flags};

	memcpy(raw + 1, told, sizeof(told));
	for (uint64_t i = 0; i < frames; i++) {
		uint64_t frame = (1ull << 63) + i;

		memcpy(raw + 1 + 2 * 5 + 2 * i, &frame, sizeof(frame));
	}
	memcpy(&words[used], raw, 4 + raw[0]);
	used += (4 + raw[0]) / 8;
}

static void expect_wait(const struct cprof_perf_wait *wait)
{
	assert_int_equal(wait->key, 0x600000007);
	assert_int_equal(wait->from, 5000);
	assert_int_equal(wait->until, 9000);
	assert_int_equal(wait->spent, 700);
	assert_true(wait->preempted);
	assert_true(wait->weight == 4);
}

/* A wait of its own, and one that a sample tells with its frames. */
static void waits_are_told(void **state)
{
	struct cprof_perf_format told = {.sample_type = ID_FIELDS | PERF_SAMPLE_RAW,
					 .sample_id_all = true,
					 .only_waits = true};
	struct cprof_perf_record record;
	uint64_t frame;

	(void)state;
	put_sample_head();
	put_told(700ull << 32 | 3, 0);
	assert_true(parse_copy(&told, words, finish(), &record));
	assert_int_equal(record.type, CPROF_PERF_WAIT);
	expect_wait(&record.wait);
	expect_cuts_refused(&told, true);

	told.only_waits = false;
	put_sample_head();
	put_told(700ull << 32 | 3, 5);
	assert_true(cprof_perf_parse(&told, words, finish(), &record));
	assert_int_equal(record.type, CPROF_PERF_SAMPLE);
	expect_wait(&record.sample.before);
	assert_int_equal(record.sample.kernel_count, 5);
	memcpy(&frame, (const char *)record.sample.kernel_chain + 32, sizeof(frame));
	assert_int_equal(frame, (1ull << 63) + 4);
	expect_cuts_refused(&told, true);

	put_sample_head(); /* none was before */
	put_told(0, 2);
	assert_true(cprof_perf_parse(&told, words, finish(), &record));
	assert_int_equal(record.sample.before.from, 0);
	assert_int_equal(record.sample.kernel_count, 2);
}

/* Whatever the bytes, nothing is read outside them and what comes out lies inside them. */
static void noise_is_survived(void **state)
{
	uint32_t seed = 1;
	unsigned accepted = 0;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		struct cprof_perf_record record;
		struct perf_event_header header;
		size_t length = 8 + round % 64 * 8;
		uint8_t *bytes = malloc(length);

		for (size_t i = 0; i < length; i++) {
			seed = seed * 1664525 + 1013904223;
			/* Small numbers make it past the first checks. */
			bytes[i] = seed >> 30 ? 0 : (uint8_t)(seed >> 20);
		}
		header = (struct perf_event_header){
			.type = 1 + round % 12, .misc = (uint16_t)seed, .size = (uint16_t)length};
		memcpy(bytes, &header, sizeof(header));
		if (cprof_perf_parse(round & 1 ? &full : &plain, bytes, length, &record)) {
			accepted++;
			if (record.type == CPROF_PERF_SAMPLE && record.sample.stack)
				assert_true(record.sample.stack >= bytes &&
					    record.sample.stack + record.sample.stack_length <=
						    bytes + length);
			if (record.type == CPROF_PERF_COMM)
				assert_true(strlen(record.comm.comm) < length);
			if (record.type == CPROF_PERF_MMAP)
				assert_true(strlen(record.mmap.mapping.path) < length);
		}
		free(bytes);
	}
	assert_true(accepted > 1000);
}

static void test_switch(void **state)
{
	static const struct {
		uint32_t type;
		uint16_t misc;
		bool out;
		bool preempted;
	} cases[] = {
		{PERF_RECORD_SWITCH, 0, false, false},
		{PERF_RECORD_SWITCH, PERF_RECORD_MISC_SWITCH_OUT, true, false},
		{PERF_RECORD_SWITCH,
		 PERF_RECORD_MISC_SWITCH_OUT | PERF_RECORD_MISC_SWITCH_OUT_PREEMPT, true, true},
		{PERF_RECORD_SWITCH_CPU_WIDE, 0, false, false},
		{PERF_RECORD_SWITCH_CPU_WIDE,
		 PERF_RECORD_MISC_SWITCH_OUT | PERF_RECORD_MISC_SWITCH_OUT_PREEMPT, true, true},
		/* the same bit means something else where nothing is switched out */
		{PERF_RECORD_SWITCH, PERF_RECORD_MISC_SWITCH_OUT_PREEMPT, false, false},
	};
	struct cprof_perf_record record;

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(cases); i++) {
		begin(cases[i].type, cases[i].misc);
		if (cases[i].type == PERF_RECORD_SWITCH_CPU_WIDE)
			put2(1, 2); /* not whom the record is about */
		expect_record(CPROF_PERF_SWITCH, &record);
		assert_int_equal(record.pid, 6);
		assert_int_equal(record.tid, 7);
		assert_int_equal(record.time, 1000);
		assert_int_equal(record.cpu, 3);
		assert_int_equal(record.switched.out, cases[i].out);
		assert_int_equal(record.switched.preempted, cases[i].preempted);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switch),
		cmocka_unit_test(mappings_are_read),
		cmocka_unit_test(hostile_mappings_are_refused),
		cmocka_unit_test(names_are_read),
		cmocka_unit_test(tasks_are_read),
		cmocka_unit_test(losses_are_read),
		cmocka_unit_test(a_user_sample_is_read),
		cmocka_unit_test(a_kernel_chain_is_read),
		cmocka_unit_test(hostile_samples_are_refused),
		cmocka_unit_test(waits_are_told),
		cmocka_unit_test(noise_is_survived),
	};

	return cmocka_run_group_tests_name("perf_record", tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * memtrace on made-up profiles and intervals: what is counted where, what is warned of, and the
 * text of it all.
 */
#include <cprof/memtrace.h>
#include <cprof/report.h>
#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull
#define MB 0x1p20
static void ok(struct cprof_error *error)
{
	if (error)
		print_message("%s\n", error->message);
	assert_null(error);
}

/* --- stacks -------------------------------------------------------------------------------- */

static struct cprof_profile *create(void)
{
	struct cprof_profile *profile;

	ok(cprof_profile_create(&profile));
	cprof_profile_add_type(profile, "samples", "count");
	cprof_profile_add_type(profile, "cpu", "nanoseconds");
	return profile;
}

/* Names from the outermost to the innermost, separated by blanks; those of "k:" are the kernel's,
 * "c:" libc's, "j:" jemalloc's, "a:" our agent's, "=" joins what is inlined: "caller=inlined". "?":
 * no name. */
static void add(struct cprof_profile *profile, const char *stack, int64_t samples)
{
	static uint64_t address = 0x1000;
	uint32_t locations[16];
	size_t count = 0;
	char *text = strdup(stack);
	char *save = NULL;

	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		struct cprof_profile_mapping mapping = {.start = 1, .limit = 2};
		struct cprof_profile_line lines[4];
		size_t line_count = 0;
		const char *file = "/usr/bin/program";
		char *inner = NULL;

		if (word[1] == ':') {
			file = word[0] == 'k'   ? "[kernel.kallsyms]"
			       : word[0] == 'c' ? "/lib/libc.so.6"
			       : word[0] == 'a' ? "/memfd:cprof-agent (deleted)"
						: "/usr/lib/libjemalloc.so.2";
			word += 2;
		}
		mapping.file = cprof_profile_string(profile, file);
		for (char *name = strtok_r(word, "=", &inner); name && *name != '?';
		     name = strtok_r(NULL, "=", &inner)) {
			struct cprof_profile_function function = {
				.name = cprof_profile_string(profile, "shown"),
				.system_name = cprof_profile_string(profile, name),
			};

			/* inlinees are first */
			memmove(lines + 1, lines, line_count++ * sizeof(*lines));
			lines[0] = (struct cprof_profile_line){
				cprof_profile_function(profile, &function), 1};
		}
		memmove(locations + 1, locations, count++ * sizeof(*locations));
		locations[0] = cprof_profile_location_with(profile,
							   cprof_profile_mapping(profile, &mapping),
							   address++, lines, line_count, false);
	}
	free(text);
	cprof_profile_add(profile, cprof_profile_stack(profile, locations, count), 0,
			  (int64_t[]){samples, samples * 10 * (int64_t)MS});
}

/* One stack of a single sample: `which` of the first four fields has it; `parts` of the others. */
static void expect_stack(const char *stack, const char *which, const char *parts)
{
	static const char sides[] = "mfko";
	struct cprof_profile *profile = create();
	struct cprof_memtrace_cpu cpu;
	char got[5] = "", found[12] = "";

	add(profile, stack, 1);
	ok(cprof_memtrace_classify(profile, &cpu));
	cprof_profile_destroy(profile);
	for (size_t i = 0; i < 4; i++) {
		const uint64_t values[] = {cpu.malloc_ns, cpu.free_ns, cpu.kernel_ns, cpu.other_ns};

		if (values[i])
			got[strlen(got)] = sides[i];
		assert_true(values[i] == 0 || values[i] == 10 * MS);
	}
	if (cpu.inside_ns)
		strcat(found, "i");
	if (cpu.faults_ns)
		strcat(found, "p");
	if (cpu.wait_ns)
		strcat(found, "w");
	if (cpu.slow_ns)
		strcat(found, "s");
	if (cpu.glibc_ns)
		strcat(found, "g");
	if (cpu.foreign_ns)
		strcat(found, "j");
	if (strcmp(got, which) || strcmp(found, parts) || cpu.samples != (*which != '\0'))
		fail_msg("%s: %s %s, not %s %s", stack, got, found, which, parts);
}

static void test_stacks(void **state)
{
	(void)state;
	expect_stack("main work", "o", "");
	expect_stack("main free_list", "o", "");
	expect_stack("main c:malloc", "m", "g");
	expect_stack("main c:malloc c:_int_malloc", "m", "sg");
	expect_stack("main c:_int_malloc", "m", "sg"); /* after a tail call */
	expect_stack("main c:free c:_int_free", "f", "g");
	expect_stack("main c:realloc c:_int_free c:free", "m", "g");
	expect_stack("main c:free c:malloc_consolidate", "f", "g");
	expect_stack("main c:malloc c:_int_malloc c:malloc_consolidate", "m", "sg");
	expect_stack("main c:calloc c:__memset_avx2", "m", "g");
	expect_stack("main c:strdup c:__memcpy", "o", "");
	expect_stack("main _Znwm c:malloc", "m", "g");
	expect_stack("main _ZdlPv c:free", "f", "g");
	expect_stack("main malloc", "m", ""); /* a static program */
	expect_stack("main ?", "o", "");
	/* jemalloc, with names and without */
	expect_stack("main j:?", "m", "j");
	expect_stack("main j:? j:free", "f", "j");
	expect_stack("main j:free j:?", "f", "j");
	expect_stack("main j:? k:__x64_sys_futex", "m", "wj");
	expect_stack("clone j:background_thread_entry k:__x64_sys_madvise", "k", "ij");
	expect_stack("main j:malloc j:? c:memset", "m", "j");
	expect_stack("main je_free je_tcache_bin_flush_small", "f", "j");
	/* inlined: the outermost function decides there too */
	expect_stack("main=malloc", "m", "");
	expect_stack("main=realloc=free", "m", "");
	expect_stack("free=realloc", "f", "");
	/* kernel work comes first, whoever asked for it */
	expect_stack("main c:malloc c:sysmalloc c:brk k:entry k:do_syscall_64 k:__x64_sys_brk k:x",
		     "k", "ig");
	expect_stack("main c:free c:munmap k:__x64_sys_munmap k:unmap_region", "k", "ig");
	expect_stack("main k:asm_exc_page_fault k:exc_page_fault k:handle_mm_fault", "k", "p");
	expect_stack("main c:calloc c:memset k:asm_exc_page_fault", "k", "ipg");
	expect_stack("main c:mmap k:__x64_sys_mmap k:handle_mm_fault", "k", "");
	expect_stack("k:__x64_sys_mmap", "k", "");
	expect_stack("main c:read k:__x64_sys_read k:copy k:asm_exc_page_fault", "k", "p");
	expect_stack("main c:read k:__x64_sys_read", "o", "");
	expect_stack("main c:malloc k:asm_sysvec_apic_timer_interrupt", "m", "g");
	/* our own agent's time is not the process's, what it calls is */
	expect_stack("main a:?", "", "");
	expect_stack("main a:? a:? k:do_syscall_64 k:asm_exc_page_fault", "", "");
	expect_stack("main _Znwm a:?", "", "");
	expect_stack("main a:? c:malloc k:asm_exc_page_fault", "k", "ipg");
	expect_stack("main a:? c:malloc", "m", "g");
	/* names count where they belong only */
	expect_stack("main handle_mm_fault", "o", "");
	expect_stack("main k:free k:malloc", "o", "");
	/* locks count inside the allocator only */
	expect_stack("main c:malloc c:__lll_lock_wait_private k:__x64_sys_futex", "m", "wg");
	expect_stack("main c:free k:__x64_sys_futex", "f", "wg");
	expect_stack("main c:pthread_mutex_lock c:__lll_lock_wait k:__x64_sys_futex", "o", "");
}

static void test_sum(void **state)
{
	struct cprof_profile *profile = create();
	struct cprof_profile *wrong;
	struct cprof_memtrace_cpu cpu;
	struct cprof_error *error;
	uint32_t marker;

	(void)state;
	ok(cprof_memtrace_classify(profile, &cpu));
	assert_int_equal(cpu.samples, 0);
	assert_true(cprof_memtrace_share(&cpu) == 0);
	add(profile, "main c:malloc", 3);
	add(profile, "main c:malloc c:_int_malloc", 2);
	add(profile, "main c:free", 4);
	add(profile, "main c:free k:__x64_sys_madvise", 1);
	add(profile, "main k:asm_exc_page_fault", 10);
	add(profile, "main", 80);
	for (int i = 0; i < 2; i++) { /* nobody knows whose these are: in no sum */
		marker = cprof_profile_marker(profile, i ? "[lost samples]" : "[not sampled]");
		cprof_profile_add(profile, cprof_profile_stack(profile, &marker, 1), 0,
				  (int64_t[]){7 * i, 70 * (int64_t)MS});
	}
	cprof_profile_add(profile, 0, 0, (int64_t[]){-5, -50}); /* hostile */
	ok(cprof_memtrace_classify(profile, &cpu));
	assert_int_equal(cpu.malloc_ns, 50 * MS);
	assert_int_equal(cpu.free_ns, 40 * MS);
	assert_int_equal(cpu.kernel_ns, 110 * MS);
	assert_int_equal(cpu.other_ns, 800 * MS);
	assert_int_equal(cpu.samples, 100);
	assert_int_equal(cpu.inside_ns, 10 * MS);
	assert_int_equal(cpu.faults_ns, 100 * MS);
	assert_int_equal(cpu.slow_ns, 20 * MS);
	assert_int_equal(cpu.glibc_ns, 100 * MS);
	assert_true(cprof_memtrace_share(&cpu) > 0.0999 && cprof_memtrace_share(&cpu) < 0.1001);
	cprof_profile_destroy(profile);

	ok(cprof_profile_create(&wrong));
	cprof_profile_add_type(wrong, "threads", "count");
	error = cprof_memtrace_classify(wrong, &cpu);
	assert_non_null(error);
	cprof_error_destroy(error);
	cprof_profile_destroy(wrong);
}

static void test_advice(void **state)
{
	const struct cprof_memtrace_cpu none = {.other_ns = 100};
	struct cprof_memtrace_cpu cpu = {.malloc_ns = 60, .free_ns = 40, .glibc_ns = 100};

	(void)state;
	assert_int_equal(cprof_memtrace_advice(&none), 0);
	assert_int_equal(cprof_memtrace_advice(&cpu), CPROF_MEMTRACE_TRY_OTHER);
	cpu.slow_ns = 30;
	assert_int_equal(cprof_memtrace_advice(&cpu),
			 CPROF_MEMTRACE_TRY_OTHER | CPROF_MEMTRACE_TRY_TCACHE);
	cpu.slow_ns = 0;
	cpu.wait_ns = 10;
	assert_int_equal(cprof_memtrace_advice(&cpu),
			 CPROF_MEMTRACE_TRY_OTHER | CPROF_MEMTRACE_TRY_ARENAS);
	cpu = (struct cprof_memtrace_cpu){
		.malloc_ns = 30, .inside_ns = 70, .kernel_ns = 70, .glibc_ns = 100};
	assert_int_equal(cprof_memtrace_advice(&cpu), CPROF_MEMTRACE_TRY_THRESHOLDS);
	/* faults elsewhere count as well */
	cpu = (struct cprof_memtrace_cpu){
		.malloc_ns = 100, .faults_ns = 100, .kernel_ns = 100, .glibc_ns = 100};
	assert_int_equal(cprof_memtrace_advice(&cpu),
			 CPROF_MEMTRACE_TRY_THRESHOLDS | CPROF_MEMTRACE_TRY_OTHER);
	/* no glibc: its settings change nothing */
	cpu = (struct cprof_memtrace_cpu){.malloc_ns = 100, .slow_ns = 100, .wait_ns = 100};
	assert_int_equal(cprof_memtrace_advice(&cpu), CPROF_MEMTRACE_TRY_OTHER);
	/* it is another allocator already */
	cpu.foreign_ns = 50;
	assert_int_equal(cprof_memtrace_advice(&cpu), 0);
}

/* --- intervals ----------------------------------------------------------------------------- */

struct trace {
	struct cprof_memtrace *memtrace;
	struct cprof_profile *profile;
	struct cprof_memtrace_process process;
	struct cprof_memtrace_line line;
	uint64_t now;
};

static struct trace begin(uint64_t leak_threads, uint64_t leak_bytes)
{
	const struct cprof_memtrace_config config = {
		.started_ns = 5000 * MS, .leak_threads = leak_threads, .leak_bytes = leak_bytes};
	struct trace trace = {
		.profile = create(),
		.process = {.rss_bytes = (uint64_t)(100 * MB),
			    .limit_bytes = UINT64_MAX,
			    .threads = 4,
			    .cpus = 2,
			    .held_bytes = -1},
		.now = 5000 * MS,
	};

	ok(cprof_memtrace_create(&config, &trace.memtrace));
	return trace;
}

static void end(struct trace *trace)
{
	cprof_memtrace_destroy(trace->memtrace);
	cprof_profile_destroy(trace->profile);
}

/* A second more, with so many samples. */
static unsigned step(struct trace *trace, int allocator, int others,
		     const struct cprof_heap_stats *heap)
{
	unsigned warnings;

	if (allocator)
		add(trace->profile, "main c:malloc", allocator);
	if (others)
		add(trace->profile, "main", others);
	trace->now += 1000 * MS;
	ok(cprof_memtrace_step(trace->memtrace, trace->now, trace->profile, heap, &trace->process,
			       &trace->line, &warnings));
	return warnings;
}

static void test_intervals(void **state)
{
	struct trace trace = begin(0, 0);
	struct cprof_heap_stats heap = {
		.alloc_bytes = 50 * MB, .live_bytes = 20 * MB, .peak_bytes = 30 * MB};

	(void)state;
	assert_int_equal(step(&trace, 2, 98, &heap), 0);
	assert_int_equal(trace.line.number, 1);
	assert_int_equal(trace.line.since_attach_ns, 1000 * MS);
	assert_int_equal(trace.line.clock_ns, 1000 * MS);
	assert_int_equal(trace.line.cpu.malloc_ns, 20 * MS);
	assert_true(trace.line.injected);
	assert_true(trace.line.allocated_bytes == 50 * MB && trace.line.freed_bytes == 30 * MB);
	assert_true(trace.line.live_start_bytes == 0 && trace.line.live_end_bytes == 20 * MB);
	assert_true(trace.line.live_peak_bytes == 30 * MB);

	trace.now += 500 * MS; /* late */
	heap = (struct cprof_heap_stats){
		.alloc_bytes = 60 * MB, .live_bytes = 5 * MB, .peak_bytes = 5 * MB};
	assert_int_equal(step(&trace, 1, 49, &heap), 0);
	assert_int_equal(trace.line.number, 2);
	assert_int_equal(trace.line.since_attach_ns, 2500 * MS);
	assert_int_equal(trace.line.clock_ns, 1500 * MS);
	assert_int_equal(trace.line.cpu.malloc_ns, 10 * MS);
	assert_int_equal(trace.line.cpu.other_ns, 490 * MS);
	assert_int_equal(trace.line.cpu_total.malloc_ns, 30 * MS);
	assert_true(trace.line.allocated_bytes == 10 * MB && trace.line.freed_bytes == 25 * MB);
	assert_true(trace.line.live_start_bytes == 20 * MB && trace.line.live_end_bytes == 5 * MB);
	assert_true(trace.line.live_peak_bytes == 20 * MB); /* it began there */

	assert_int_equal(step(&trace, 0, 0, NULL), 0);
	assert_false(trace.line.injected);
	assert_int_equal(trace.line.cpu.malloc_ns, 0);
	assert_int_equal(trace.line.cpu.samples, 0);
	end(&trace);
}

static void test_share_warning(void **state)
{
	struct trace trace = begin(0, 0);

	(void)state;
	assert_int_equal(step(&trace, 9, 41, NULL), 0); /* too few to know */
	assert_int_equal(step(&trace, 9, 41, NULL), CPROF_MEMTRACE_WARN_SHARE);
	assert_int_equal(step(&trace, 9, 41, NULL), 0); /* once */
	for (int i = 0; i < 6; i++)
		assert_int_equal(step(&trace, 0, 100, NULL), 0); /* 27 of 750: below 4 % */
	assert_int_equal(step(&trace, 40, 60, NULL), CPROF_MEMTRACE_WARN_SHARE);
	/* An old quiet time does not hide it: the last ten intervals count. */
	for (int i = 0; i < 12; i++)
		assert_int_equal(step(&trace, 0, 1000, NULL), 0);
	assert_int_equal(step(&trace, 700, 300, NULL), CPROF_MEMTRACE_WARN_SHARE);
	assert_true(cprof_memtrace_share(&trace.line.cpu_recent) >
		    cprof_memtrace_share(&trace.line.cpu_total));
	end(&trace);

	trace = begin(0, 0); /* five of a hundred are not more than 5 % */
	assert_int_equal(step(&trace, 5, 95, NULL), 0);
	assert_int_equal(step(&trace, 6, 94, NULL), CPROF_MEMTRACE_WARN_SHARE);
	assert_int_equal(step(&trace, 4, 96, NULL), 0);
	assert_int_equal(step(&trace, 5, 95, NULL), 0);
	assert_int_equal(step(&trace, 9, 91, NULL), 0); /* 5.8 % again, but it never was below 4 */
	end(&trace);
}

static void test_leak_warnings(void **state)
{
	struct trace trace = begin(10, (uint64_t)(50 * MB));
	struct cprof_heap_stats heap = {.live_bytes = 10 * MB, .alloc_bytes = 10 * MB};

	(void)state;
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	trace.process.threads = 14;
	trace.process.rss_bytes = (uint64_t)(150 * MB);
	assert_int_equal(step(&trace, 0, 1, NULL), 0); /* not more than that */
	trace.process.threads = 15;
	trace.process.rss_bytes++;
	assert_int_equal(step(&trace, 0, 1, NULL),
			 CPROF_MEMTRACE_WARN_THREADS | CPROF_MEMTRACE_WARN_HEAP);
	assert_int_equal(trace.line.first_threads, 4);
	assert_true(trace.line.first_bytes == 100 * MB);
	trace.process.threads = 1000;
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	trace.process.threads = 0; /* unknown: nothing is crossed, nothing forgotten */
	trace.process.rss_bytes = UINT64_MAX;
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	trace.process.threads = 14;
	trace.process.rss_bytes = (uint64_t)(146 * MB); /* within a tenth */
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	trace.process.threads = 15;
	trace.process.rss_bytes = (uint64_t)(151 * MB);
	assert_int_equal(step(&trace, 0, 1, NULL), CPROF_MEMTRACE_WARN_THREADS);
	trace.process.rss_bytes = (uint64_t)(144 * MB);
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	trace.process.rss_bytes = (uint64_t)(151 * MB);
	assert_int_equal(step(&trace, 0, 1, NULL), CPROF_MEMTRACE_WARN_HEAP);
	end(&trace);

	trace = begin(0, (uint64_t)(50 * MB)); /* with an agent resident memory is not looked at */
	assert_int_equal(step(&trace, 0, 1, &heap), 0);
	trace.process.rss_bytes = (uint64_t)(1000 * MB);
	trace.process.threads = 1000;
	heap.live_bytes = 60 * MB;
	assert_int_equal(step(&trace, 0, 1, &heap), 0);
	heap.live_bytes = 61 * MB;
	assert_int_equal(step(&trace, 0, 1, &heap), CPROF_MEMTRACE_WARN_HEAP);
	/* The agent is lost: resident memory from here on. */
	assert_int_equal(step(&trace, 0, 1, NULL), 0);
	assert_true(trace.line.first_bytes == 1000 * MB);
	trace.process.rss_bytes = (uint64_t)(1051 * MB);
	assert_int_equal(step(&trace, 0, 1, NULL), CPROF_MEMTRACE_WARN_HEAP);
	end(&trace);
}

/* --- text ---------------------------------------------------------------------------------- */

static char *text_of(const struct cprof_memtrace_line *line, unsigned warning)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	ok(warning ? cprof_report_memtrace_warning(line, warning, out)
		   : cprof_report_memtrace(line, out));
	fclose(out);
	return text;
}

static void expect_text(const struct cprof_memtrace_line *line, unsigned warning,
			const char *expected)
{
	CPROF_AUTO_FREE char *text = text_of(line, warning);

	assert_string_equal(text, expected);
}

static struct cprof_memtrace_line example(void)
{
	return (struct cprof_memtrace_line){
		.number = 35,
		.since_attach_ns = 35002 * MS,
		.clock_ns = 1000 * MS,
		.cpu = {.malloc_ns = 31 * MS, .free_ns = 9 * MS, .kernel_ns = 1 * MS},
		.cpu_total = {.malloc_ns = 30 * MS, .free_ns = 10 * MS, .other_ns = 960 * MS},
		.injected = true,
		.allocated_bytes = 240 * MB,
		.freed_bytes = 238 * MB,
		.live_start_bytes = 118 * MB,
		.live_peak_bytes = 131 * MB,
		.live_end_bytes = 120 * MB,
		.process = {.rss_bytes = (uint64_t)(186 * MB),
			    .limit_bytes = (uint64_t)(512 * MB),
			    .threads = 33,
			    .cpus = 2,
			    .held_bytes = -1,
			    .in_use_bytes = -1},
	};
}

static void test_line(void **state)
{
	struct cprof_memtrace_line line = example();

	(void)state;
	expect_text(&line, 0,
		    "heap 35 @35.002s 4%: 1000 ms clock, 31+9/1 ms cpu, ~+240-238 MB, "
		    "~118->131->120 MB, 186 MB rss, 512 MB goal, ? frag, 33 T, 2 P\n");
	line.injected = false;
	line.kernel_unknown = true;
	line.process.rss_bytes = line.process.limit_bytes = UINT64_MAX;
	line.process.threads = line.process.cpus = 0;
	expect_text(&line, 0,
		    "heap 35 @35.002s 4%: 1000 ms clock, 31+9/? ms cpu, ~+?-? MB, ~?->?->? MB, "
		    "? MB rss, - MB goal, ? frag, ? T, ? P\n");
	line = (struct cprof_memtrace_line){.injected = true};
	expect_text(&line, 0,
		    "heap 0 @0.000s 0%: 0 ms clock, 0+0/0 ms cpu, ~+0-0 MB, ~0->0->0 MB, 0 MB rss, "
		    "0 MB goal, ? frag, ? T, ? P\n");
	line = example();
	line.process.held_bytes = 200;
	line.process.in_use_bytes = 150;
	line.process.limit_bytes = 1ull << 62;
	line.live_end_bytes = 0x1p70; /* an estimate may be anything */
	line.live_peak_bytes = line.freed_bytes = 0.4 * MB;
	line.allocated_bytes = 1e300;
	line.live_start_bytes = __builtin_nan("");
	line.number = UINT64_MAX;
	line.clock_ns = UINT64_MAX;
	expect_text(
		&line, 0,
		"heap 18446744073709551615 @35.002s 4%: 18446744073710 ms clock, 31+9/1 ms cpu, "
		"~+1000000000000000-0 MB, ~?->0->1000000000000000 MB, 186 MB rss, "
		"4398046511104 MB goal, 25% frag, 33 T, 2 P\n");
}

static void test_warning_text(void **state)
{
	struct cprof_memtrace_line line = example();

	(void)state;
	line.first_threads = 12;
	line.first_bytes = 20 * MB;
	expect_text(&line, CPROF_MEMTRACE_WARN_THREADS, "threads may leak: 33 now, 12 at first\n");
	expect_text(&line, CPROF_MEMTRACE_WARN_HEAP,
		    "memory may leak: ~120 MB live now, ~20 MB at first\n");
	line.injected = false;
	expect_text(&line, CPROF_MEMTRACE_WARN_HEAP,
		    "memory may leak: 186 MB resident now, 20 MB at first\n");
	line.cpu_recent = (struct cprof_memtrace_cpu){
		.malloc_ns = 20, .free_ns = 10, .other_ns = 70, .foreign_ns = 30};
	expect_text(
		&line, CPROF_MEMTRACE_WARN_SHARE,
		"the allocator takes 30% of CPU time: malloc side 20%, free side 10%, its system "
		"calls and page faults 0%\n");
	line.cpu_recent = (struct cprof_memtrace_cpu){.malloc_ns = 20,
						      .free_ns = 10,
						      .kernel_ns = 25,
						      .inside_ns = 10,
						      .faults_ns = 15,
						      .other_ns = 45,
						      .wait_ns = 8,
						      .slow_ns = 14,
						      .glibc_ns = 40};
	expect_text(
		&line, CPROF_MEMTRACE_WARN_SHARE,
		"the allocator takes 40% of CPU time: malloc side 20%, free side 10%, its system "
		"calls and page faults 10%; worth trying:\n"
		"    more arenas (MALLOC_ARENA_MAX, M_ARENA_MAX): 20% of the allocator's time is "
		"in its locks, with 33 threads\n"
		"    higher thresholds (MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_, "
		"M_TRIM_THRESHOLD and M_MMAP_THRESHOLD): the allocator's system calls and page "
		"faults take 10% of CPU time, all page faults 15%\n"
		"    a larger cache per thread (GLIBC_TUNABLES=glibc.malloc.tcache_count=100): "
		"35% of the allocator's time is in malloc beyond that cache, which takes blocks of "
		"up to 1032 bytes\n"
		"    another allocator (LD_PRELOAD of jemalloc or tcmalloc): 75% of the "
		"allocator's time is in the C library's own code\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stacks),        cmocka_unit_test(test_sum),
		cmocka_unit_test(test_advice),        cmocka_unit_test(test_intervals),
		cmocka_unit_test(test_share_warning), cmocka_unit_test(test_leak_warnings),
		cmocka_unit_test(test_line),          cmocka_unit_test(test_warning_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

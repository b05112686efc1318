/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The words of the command line, and the tables of options.
 */
#include "../../src/cli/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_times(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{"0", 0},
		{"0ms", 0},
		{"0.0", 0},
		{"10", 10000000000},
		{"1.5", 1500000000},
		{"1.5s", 1500000000},
		{"500ms", 500000000},
		{"50us", 50000},
		{"2m", 120000000000},
		{"0.5m", 30000000000},
		{"1h", 3600000000000},
		{"0.0000000001", 1},
		{"00010", 10000000000},
		{"0.12345678901234567890", 123456789},
	};
	static const char *const bad[] = {"",
					  " 1",
					  "1 ",
					  "-1",
					  "+1",
					  "1.",
					  "1.x",
					  ".5",
					  "1e3",
					  "1x",
					  "1mss",
					  "0x10",
					  "nan",
					  "inf",
					  "1,5",
					  "1m1",
					  "ms",
					  "1ns",
					  "1.2.3",
					  "2 m",
					  "18446744073709551616",
					  "9999999999999999999",
					  "9223372037",
					  "153722868m"};
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(good); i++) {
		if (!cprof_parse_time(good[i].text, &ns) || ns != good[i].ns)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)ns);
	}
	for (size_t i = 0; i < CPROF_COUNT(bad); i++)
		if (cprof_parse_time(bad[i], &ns))
			fail_msg("`%s` was taken", bad[i]);
}

static void test_pids(void **state)
{
	static const char *const bad[] = {
		"",    "0",    "+1",   "-1",  " 1",         "1 ", "1,",  ",1",
		"1,0", "1,,2", "1, 2", "0x1", "2147483648", "1a", "1\n", "99999999999999999999999"};
	size_t count;
	pid_t pid;

	(void)state;
	assert_true(cprof_parse_pids("1", &pid, &count));
	assert_int_equal(pid, 1);
	assert_int_equal(count, 1);
	assert_true(cprof_parse_pids("2147483647", &pid, &count));
	assert_int_equal(pid, 2147483647);
	assert_true(cprof_parse_pids("12,7,9", &pid, &count));
	assert_int_equal(pid, 12);
	assert_int_equal(count, 3);
	for (size_t i = 0; i < CPROF_COUNT(bad); i++)
		if (cprof_parse_pids(bad[i], &pid, &count))
			fail_msg("`%s` was taken", bad[i]);
}

static void test_numbers(void **state)
{
	uint64_t value;

	(void)state;
	assert_true(cprof_parse_number("18446744073709551615", 0, UINT64_MAX, &value));
	assert_true(value == UINT64_MAX);
	assert_false(cprof_parse_number("18446744073709551616", 0, UINT64_MAX, &value));
	assert_true(cprof_parse_number("5", 5, 5, &value));
	assert_false(cprof_parse_number("4", 5, 9, &value));
	assert_false(cprof_parse_number("10", 5, 9, &value));
	assert_false(cprof_parse_number("", 0, 9, &value));
	assert_false(cprof_parse_number("-0", 0, 9, &value));
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"100B", 100},
		{"512K", 512 << 10},
		{"512k", 512 << 10},
		{"3KB", 3 << 10},
		{"64M", 64 << 20},
		{"64MiB", 64 << 20},
		{"2G", 2ull << 30},
		{"1T", 1ull << 40},
		{"18446744073709551615", UINT64_MAX},
	};
	static const char *const bad[] = {"",
					  "K",
					  "-1",
					  "1.5M",
					  " 1",
					  "1 K",
					  "1KK",
					  "1iB",
					  "1Ki",
					  "1Kib",
					  "1X",
					  "0x1",
					  "1m",
					  "1MBB",
					  "1BB",
					  "1e6",
					  "18446744073709551616",
					  "99999999999T"};
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(good); i++)
		if (!cprof_parse_size(good[i].text, &bytes) || bytes != good[i].bytes)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)bytes);
	for (size_t i = 0; i < CPROF_COUNT(bad); i++)
		if (cprof_parse_size(bad[i], &bytes))
			fail_msg("`%s` was taken", bad[i]);
}

/* Parses the words; the status of the error, or 0. */
static int parse(struct cprof_options *options, char **words)
{
	struct cprof_error *error;
	int count = 0, status;

	while (words[count])
		count++;
	error = cprof_options_init(count, words, options);
	status = error ? (int)error->status : 0;
	cprof_error_destroy(error);
	return status;
}

#define WORDS(...) ((char *[]){"cprof-attach", __VA_ARGS__, NULL})

static void test_threads_options(void **state)
{
	struct cprof_options options;

	(void)state;
	assert_int_equal(parse(&options, WORDS("dump", "-p", "42", "--all", "--watch", "5s",
					       "--no-inlines", "--thread", "x")),
			 0);
	assert_int_equal(options.verb->bit, CPROF_VERB_THREADS);
	assert_int_equal(options.watch_ns, 5000000000);
	assert_true(options.all && options.no_inlines && !options.no_lines);
	assert_int_equal(options.format, -1);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("threads", "-p", "42", "--json")), 0);
	assert_int_equal(options.format, CPROF_FORMAT_JSON);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("record", "-p", "42", "-e", "threads")), 0);
	assert_int_equal(options.kinds, CPROF_KIND_THREADS);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("record", "-p", "42", "-e", "cpu,threads")), 0);
	assert_int_equal(options.kinds, CPROF_KIND_CPU | CPROF_KIND_THREADS);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("record", "-e", "threads,threads", "-e", "cycles")),
			 0);
	assert_int_equal(options.kinds, CPROF_KIND_CYCLES | CPROF_KIND_THREADS);
	cprof_options_deinit(&options);
	for (size_t i = 0; i < 6; i++) {
		static char *const bad[] = {"cpu,cycles", "cpu,", ",cpu", "", "CPU", "threadsx"};

		assert_int_equal(parse(&options, WORDS("record", "-e", bad[i])), 2);
		cprof_options_deinit(&options);
	}
	assert_int_equal(parse(&options, WORDS("threads", "-p", "42", "--rate", "9")), 2);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("record", "-p", "42", "--watch", "1")), 2);
	cprof_options_deinit(&options);
}

static void test_memtrace_options(void **state)
{
	static const char *const bad[][2] = {
		{"-n", "0"},           {"-n", "-1"},         {"-n", "x"},
		{"-i", "0"},           {"-i", "100us"},      {"--leak-threads", "0"},
		{"--leak-heap", "0"},  {"--leak-heap", "M"}, {"--leak-heap", "1025T"},
		{"--leak-heap", "-1"}, {"--no-lines", "x"},
	};
	struct cprof_options options;

	(void)state;
	assert_int_equal(parse(&options, WORDS("memtrace", "-p", "42")), 0);
	assert_int_equal(options.verb->bit, CPROF_VERB_MEMTRACE);
	assert_int_equal(options.lines + options.interval_ns + options.leak_threads, 0);
	assert_int_equal(options.leak_bytes, 0);
	assert_int_equal(options.rate, 99);
	assert_false(options.no_inject);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("memtrace", "-n", "5", "-i", "250ms", "--no-inject",
					       "--leak-threads", "7", "--leak-heap=64M", "--", "ls",
					       "-n", "x")),
			 0);
	assert_int_equal(options.lines, 5);
	assert_int_equal(options.interval_ns, 250000000);
	assert_int_equal(options.leak_threads, 7);
	assert_int_equal(options.leak_bytes, 64 << 20);
	assert_true(options.no_inject);
	assert_int_equal(options.argument_count, 3);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("memtrace", "ls", "-l")), 0);
	assert_int_equal(options.argument_count, 2);
	cprof_options_deinit(&options);
	for (size_t i = 0; i < CPROF_COUNT(bad); i++) {
		if (parse(&options, WORDS("memtrace", (char *)bad[i][0], (char *)bad[i][1])) != 2)
			fail_msg("%s %s was taken", bad[i][0], bad[i][1]);
		cprof_options_deinit(&options);
	}
}

static void test_record_options(void **state)
{
	struct cprof_options options;

	(void)state;
	assert_int_equal(parse(&options, WORDS("record", "-p", "42")), 0);
	assert_int_equal(options.pid, 42);
	assert_int_equal(options.rate, 99);
	assert_true(options.duration_ns == CPROF_DURATION_DEFAULT);
	assert_null(options.threads);
	assert_int_equal(options.kinds, 0);
	cprof_options_deinit(&options);

	assert_int_equal(parse(&options, WORDS("record", "-p42", "-d", "0", "-F", "999", "--thread",
					       "a", "--thread=77", "--no-kernel", "-qv",
					       "--sampling", "per-thread", "-e", "cycles",
					       "--format=folded", "x", "-o", "--")),
			 0);
	assert_int_equal(options.duration_ns, 0);
	assert_int_equal(options.rate, 999);
	assert_int_equal(options.thread_count, 2);
	assert_string_equal(options.threads[1], "77");
	assert_null(options.threads[2]);
	assert_true(options.no_kernel && options.quiet && options.verbose);
	assert_false(options.no_lines || options.no_inlines);
	assert_int_equal(options.way, CPROF_PERF_PER_THREAD);
	assert_int_equal(options.kinds, CPROF_KIND_CYCLES);
	assert_int_equal(options.format, CPROF_FORMAT_FOLDED);
	assert_string_equal(options.output, "--");
	assert_int_equal(options.argument_count, 1);
	assert_string_equal(options.arguments[0], "x");
	cprof_options_deinit(&options);
}

static void test_heap_options(void **state)
{
	struct cprof_options options;

	(void)state;
	assert_int_equal(parse(&options, WORDS("record", "-e", "cpu,heap", "-e", "threads",
					       "--heap-rate", "64K")),
			 0);
	assert_int_equal(options.kinds, CPROF_KIND_CPU | CPROF_KIND_HEAP | CPROF_KIND_THREADS);
	assert_int_equal(options.heap_rate, 65536);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("run", "-e", "heap", "--heap-rate", "1", "x")), 0);
	assert_int_equal(options.heap_rate, 1);
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("run", "--heap-rate", "1G", "x")), 0);
	cprof_options_deinit(&options);
	for (size_t i = 0; i < 7; i++) {
		static char *const bad[] = {"0", "-1", "", "1073741825", "1x", "0x10", "1e3"};

		assert_int_equal(parse(&options, WORDS("record", "--heap-rate", bad[i])), 2);
		cprof_options_deinit(&options);
	}
	assert_int_equal(parse(&options, WORDS("detach", "-p", "7", "--check")), 0);
	assert_true(options.check);
	cprof_options_deinit(&options);
	for (unsigned kind = 1; cprof_kind_name((enum cprof_kind)kind); kind <<= 1)
		assert_int_equal(cprof_kind_find(cprof_kind_name((enum cprof_kind)kind)), kind);
	assert_null(cprof_kind_name((enum cprof_kind)3));
	assert_int_equal(cprof_kind_find("contention"), 0);
}

static void test_run_stops_at_the_command(void **state)
{
	struct cprof_options options;

	(void)state;
	assert_int_equal(parse(&options, WORDS("run", "-d", "1", "ls", "-q", "--", "-x")), 0);
	assert_false(options.quiet);
	assert_int_equal(options.argument_count, 4);
	assert_string_equal(options.arguments[0], "ls");
	assert_string_equal(options.arguments[2], "--");
	cprof_options_deinit(&options);
	assert_int_equal(parse(&options, WORDS("run", "-q", "--", "-odd", "--help")), 0);
	assert_true(options.quiet);
	assert_false(options.help);
	assert_int_equal(options.argument_count, 2);
	assert_string_equal(options.arguments[0], "-odd");
	assert_null(options.arguments[2]);
	cprof_options_deinit(&options);
}

static void test_usage_errors(void **state)
{
	static char *const bad[][4] = {
		{"nonsense"},
		{"--frob"},
		{"-x"},
		{"record", "-p"},
		{"record", "--pid"},
		{"record", "--pid="},
		{"record", "--quiet=1"},
		{"record", "-p1,2"},
		{"record", "-p1", "-p2"},
		{"record", "-d", ""},
		{"record", "-F", "0"},
		{"record", "-F", "4294967297"},
		{"record", "-e", "contention"},
		{"record", "-e", "cpu,cycles"},
		{"record", "-e", "cpu,"},
		{"record", "-e", ""},
		{"record", "-f", "html"},
		{"record", "-o", ""},
		{"record", "--snapshot-every", "0"},
		{"record", "--unwinder", "magic"},
		{"record", "--children"},
		{"record", "--cum"},
		{"run", "-p1"},
		{"report", "-d", "1"},
		{"report", "-n", "-1"},
		{"report", "--by", "name"},
		{"help", "-q"},
	};
	struct cprof_options options;

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(bad); i++) {
		char *words[] = {"cprof-attach", bad[i][0], bad[i][1], bad[i][2], NULL};
		int status = parse(&options, words);

		if (status != CPROF_USAGE)
			fail_msg("%s %s %s: %d", words[1], words[2] ? words[2] : "",
				 words[3] ? words[3] : "", status);
		cprof_options_deinit(&options);
	}
}

/* No option is lost in its own verb by a row of the same name or letter. */
static void test_table_is_unambiguous(void **state)
{
	(void)state;
	for (const struct cprof_option *a = cprof_option_table; a->name; a++) {
		assert_non_null(a->set);
		for (const struct cprof_option *b = a + 1; b->name; b++) {
			if (!(a->verbs & b->verbs))
				continue;
			assert_string_not_equal(a->name, b->name);
			assert_true(!a->letter || a->letter != b->letter);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_pids),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_threads_options),
		cmocka_unit_test(test_memtrace_options),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_record_options),
		cmocka_unit_test(test_heap_options),
		cmocka_unit_test(test_run_stops_at_the_command),
		cmocka_unit_test(test_usage_errors),
		cmocka_unit_test(test_table_is_unambiguous),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

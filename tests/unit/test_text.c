/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 */
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_clean(const char *source, const char *expected)
{
	char *text = cprof_text_clean_dup(source);

	assert_string_equal(text, expected);
	free(text);
}

static void test_clean(void **state)
{
	(void)state;
	assert_clean("", "");
	assert_clean("plain ~text", "plain ~text");
	assert_clean("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x98\x80",
		     "h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x98\x80");
	assert_clean("\x1b[31m\x7f\t\r\n", "?[31m????");
	assert_clean("a\xc2\x9b"
		     "31m",
		     "a?31m"); /* C1: a one-character CSI */
	assert_clean("x\xe2\x80\xae"
		     "y\xe2\x81\xa6z",
		     "x?y?z"); /* bidirectional override, isolate */
	assert_clean("\xff\xfe", "??");
	assert_clean("\xc0\xaf", "??");           /* overlong '/' */
	assert_clean("\xe0\x80\xaf", "???");      /* overlong */
	assert_clean("\xed\xa0\x80", "???");      /* surrogate */
	assert_clean("\xf4\x90\x80\x80", "????"); /* above U+10FFFF */
	assert_clean("\xe2\x82", "??");           /* cut */
	assert_clean("\xe2\x82x", "??x");
}

static void test_clean_cut(void **state)
{
	char target[8];

	(void)state;
	memset(target, 'x', sizeof(target));
	assert_int_equal(cprof_text_clean("\xe2\x82\xac\xe2\x82\xac", 6, target, 6), 3);
	assert_string_equal(target, "\xe2\x82\xac");
	assert_int_equal(cprof_text_clean("abc", 3, target, 1), 0);
	assert_string_equal(target, "");
	target[0] = 'y';
	assert_int_equal(cprof_text_clean("abc", 3, target, 0), 0);
	assert_int_equal(target[0], 'y');
	assert_int_equal(cprof_text_clean("a\0b", 3, target, sizeof(target)), 3);
	assert_string_equal(target, "a?b");
}

/* Any bytes: the result is no longer than the source, and cleaning it again changes nothing. */
static void test_clean_random(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		char source[24], once[25], twice[25];
		size_t length = (size_t)rand_r(&seed) % sizeof(source);
		size_t written;

		for (size_t i = 0; i < length; i++)
			source[i] = (char)rand_r(&seed);
		written = cprof_text_clean(source, length, once, sizeof(once));
		assert_true(written <= length);
		assert_int_equal(strlen(once), written);
		assert_int_equal(cprof_text_clean(once, written, twice, sizeof(twice)), written);
		assert_string_equal(once, twice);
	}
}

static void test_grow(void **state)
{
	uint64_t *items = NULL;
	size_t capacity = 0;

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		assert_true(cprof_grow(&items, &capacity, i + 1, sizeof(*items)));
		assert_true(capacity > i);
		items[i] = i;
	}
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(items[i], i);
	assert_false(cprof_grow(&items, &capacity, SIZE_MAX / 4, sizeof(*items)));
	assert_int_equal(items[999], 999);
	free(items);
}

static void test_hash(void **state)
{
	(void)state;
	assert_int_equal(cprof_hash_bytes("abcdefghi", 9), cprof_hash_bytes("abcdefghi", 9));
	assert_int_not_equal(cprof_hash_bytes("abcdefghi", 9), cprof_hash_bytes("abcdefghj", 9));
	assert_int_not_equal(cprof_hash_bytes("a\0", 2), cprof_hash_bytes("a", 1));
	assert_int_not_equal(cprof_hash_bytes("", 0), cprof_hash_bytes("\0", 1));
}

static void test_self(void **state)
{
	uint64_t before = cprof_now_ns();
	uint64_t rss = cprof_own_rss();

	(void)state;
	assert_true(rss > 100 * 1024);
	assert_true(cprof_own_peak_rss() >= rss);
	assert_true(cprof_own_cpu_ns() > 0);
	assert_true(cprof_thread_cpu_ns() > 0);
	assert_true(cprof_wall_ns() > 1600000000000000000ull);
	assert_true(cprof_now_ns() >= before);
}

static void test_read_file(void **state)
{
	size_t length;
	char *text = cprof_read_file_at(AT_FDCWD, "/proc/self/stat", 4096, &length);

	(void)state;
	assert_non_null(text);
	assert_int_equal(strlen(text), length);
	assert_int_equal(strtol(text, NULL, 10), getpid());
	free(text);
	text = cprof_read_file_at(AT_FDCWD, "/proc/self/status", 5, &length);
	assert_string_equal(text, "Name:");
	assert_int_equal(length, 5);
	free(text);
	assert_null(cprof_read_file_at(AT_FDCWD, "/no/such/file", 5, NULL));
	assert_int_equal(errno, ENOENT);
	assert_null(cprof_read_file_at(AT_FDCWD, "/proc", 5, NULL));
	assert_int_equal(errno, EISDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),        cmocka_unit_test(test_clean_cut),
		cmocka_unit_test(test_clean_random), cmocka_unit_test(test_grow),
		cmocka_unit_test(test_hash),         cmocka_unit_test(test_self),
		cmocka_unit_test(test_read_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

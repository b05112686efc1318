/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 */
#include <cprof/error.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *printed(const struct cprof_error *error)
{
	char *text;
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	cprof_error_print(error, stream);
	fclose(stream);
	return text;
}

static void test_print(void **state)
{
	struct cprof_error *error;
	char *text;

	(void)state;
	error = cprof_error_create(CPROF_USAGE, "give a number", "-p %s: not a pid", "x");
	assert_int_equal(error->status, CPROF_USAGE);
	assert_int_equal(error->errnum, 0);
	text = printed(error);
	assert_string_equal(text, "cprof-attach: -p x: not a pid (give a number)\n");
	free(text);
	cprof_error_destroy(error);

	error = cprof_error_errno(CPROF_NO_PROCESS, ESRCH, NULL, "pid %d", 7);
	assert_int_equal(error->errnum, ESRCH);
	assert_null(error->remedy);
	text = printed(error);
	assert_string_equal(text, "cprof-attach: pid 7: No such process\n");
	free(text);
	cprof_error_destroy(error);
}

static void test_hostile_text(void **state)
{
	struct cprof_error *error = cprof_error_create(CPROF_FAILED, "\x1b[2J", "a\nb\x1b]0;x\a");
	char *text = printed(error);

	(void)state;
	assert_string_equal(text, "cprof-attach: a?b?]0;x? (?[2J)\n");
	free(text);
	cprof_error_destroy(error);
}

static void test_no_memory(void **state)
{
	struct cprof_error *error = cprof_error_nomem();

	(void)state;
	assert_int_equal(error->status, CPROF_FAILED);
	assert_string_equal(error->message, "out of memory");
	cprof_error_destroy(error);
	cprof_error_destroy(cprof_error_nomem());
	cprof_error_destroy(NULL);
	assert_string_equal(cprof_error_nomem()->message, "out of memory");
}

static struct cprof_error *hand_up(struct cprof_error *error, int *after)
{
	CPROF_TRY(error);
	*after = 1;
	return NULL;
}

static void test_try(void **state)
{
	struct cprof_error *error = cprof_error_create(CPROF_DENIED, NULL, "no");
	int after = 0;

	(void)state;
	assert_ptr_equal(hand_up(error, &after), error);
	assert_int_equal(after, 0);
	assert_null(hand_up(NULL, &after));
	assert_int_equal(after, 1);
	cprof_error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_hostile_text),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_try),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

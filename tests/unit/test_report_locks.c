/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The report on locks, of profiles made up here: our own, whose comments tell more, others', and
 * those with names and comments that are out to deceive.
 */
#include <cprof/locks.h>
#include <cprof/report.h>
#include <cprof/util.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint32_t frame(struct cprof_profile *p, const char *name)
{
	struct cprof_profile_function function = {.name = cprof_profile_string(p, name)};
	struct cprof_profile_line line = {cprof_profile_function(p, &function), 1};

	return cprof_profile_location_with(p, 0, 0, &line, 1, false);
}

static struct cprof_profile *create(void)
{
	struct cprof_profile *p;

	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "contentions", "count");
	cprof_profile_add_type(p, "delay", "nanoseconds");
	return p;
}

/* Frames innermost first, NULL-ended; `lock` may be NULL. */
static void add(struct cprof_profile *p, const char *lock, int64_t contentions, int64_t delay, ...)
{
	int64_t values[2] = {contentions, delay};
	struct cprof_profile_label label = {.key = cprof_profile_string(p, "lock")};
	uint32_t frames[16], labels = 0;
	size_t count = 0;
	const char *name;
	va_list names;

	va_start(names, delay);
	while ((name = va_arg(names, const char *)))
		frames[count++] = frame(p, name);
	va_end(names);
	if (lock) {
		label.text = cprof_profile_string(p, lock);
		labels = cprof_profile_labels(p, &label, 1);
	}
	cprof_profile_add(p, cprof_profile_stack(p, frames, count), labels, values);
}

static struct cprof_profile *example(void)
{
	struct cprof_profile *p = create();

	p->duration_ns = 10000000000ll;
	cprof_profile_mapping(p, &(struct cprof_profile_mapping){
					 .file = cprof_profile_string(p, "/usr/bin/shop")});
	add(p, "orders in shop", 500, 600000000, "pthread_mutex_unlock", "std::mutex::unlock",
	    "add_order", "main", NULL);
	add(p, "orders in shop", 100, 200000000, "__pthread_mutex_unlock", "flush", "main", NULL);
	add(p, "orders in shop", 1, 5000000, "___pthread_mutex_unlock", "add_order", "other", NULL);
	add(p, "0x55f4936030c0", 50, 195000000, "pthread_rwlock_unlock", "rotate", "main", NULL);
	cprof_profile_add_comment(p, "something else");
	cprof_profile_add_comment(p,
				  "lock \"orders in shop\": contentions 620, delay 810000000 ns, "
				  "longest 45100000 ns, waiters book_order 61%; "
				  "shop::rotate(int, char const*) 39%");
	cprof_profile_add_comment(p, "lock \"accounts in shop\": contentions 3, delay 1000 ns, "
				     "longest 900 ns");
	return p;
}

static char *text_of(const struct cprof_profile *p, struct cprof_report_options options)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_null(cprof_report_locks(p, &options, out));
	fclose(out);
	return text;
}

static size_t times(const char *text, const char *word)
{
	size_t count = 0;

	while ((text = strstr(text, word))) {
		text += strlen(word);
		count++;
	}
	return count;
}

static json_t *json_of(const struct cprof_profile *p, struct cprof_report_options options)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	json_t *json;

	assert_null(cprof_report_locks_json(p, &options, out));
	fclose(out);
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	free(text);
	return json;
}

#define COLUMNS  "     delay delay% contentions       mean    longest  lock\n"
#define HEAD     "File: shop\nDuration: 10s\n3 locks: 1.01s of waiting, 673 contentions\n"
#define ORDERS   "     810ms 80.60%         620     1.31ms    45.10ms  orders in shop\n"
#define UNNAMED  "     195ms 19.40%          50     3.90ms          -  0x55f4936030c0\n"
#define ACCOUNTS "       1us 0.0001%           3      333ns      900ns  accounts in shop\n"
#define ORDERS_MORE                                                                                \
	"\norders in shop\n"                                                                       \
	"  holders 75.16%      605ms  add_order\n"                                                 \
	"          24.84%      200ms  flush\n"                                                     \
	"  waiters    61%             book_order\n"                                                \
	"             39%             shop::rotate(int, char const*)\n"
#define UNNAMED_MORE "\n0x55f4936030c0\n  holders   100%      195ms  rotate\n"

static void test_text(void **state)
{
	struct cprof_profile *p = example();
	char *text = text_of(p, (struct cprof_report_options){0});

	(void)state;
	assert_string_equal(text, HEAD COLUMNS ORDERS UNNAMED ACCOUNTS ORDERS_MORE UNNAMED_MORE);
	free(text);
	text = text_of(p, (struct cprof_report_options){.count = 1});
	assert_string_equal(text, HEAD "Showing 1 of them\n" COLUMNS ORDERS ORDERS_MORE);
	free(text);
	text = text_of(p,
		       (struct cprof_report_options){.focus = "^0x|orders", .ignore = "in shop"});
	assert_string_equal(text, HEAD "Showing 1 of them\n" COLUMNS UNNAMED UNNAMED_MORE);
	free(text);
	text = text_of(p, (struct cprof_report_options){.sample_index = "contentions"});
	assert_string_equal(text, HEAD COLUMNS ORDERS UNNAMED ACCOUNTS ORDERS_MORE UNNAMED_MORE);
	free(text);
	/* Of a difference only the samples are true. */
	text = text_of(p, (struct cprof_report_options){.difference = true, .count = 1});
	assert_non_null(
		strstr(text, "\n     805ms 80.50%         601     1.34ms          -  orders"));
	assert_null(strstr(text, "accounts"));
	free(text);
	cprof_profile_destroy(p);
}

static void test_json(void **state)
{
	struct cprof_profile *p = example();
	json_t *json = json_of(p, (struct cprof_report_options){0});
	json_t *expected = json_loads(
		"{\"contentions\":673,\"delay_ns\":1005001000,\"locks\":["
		"{\"lock\":\"orders in shop\",\"contentions\":620,\"delay_ns\":810000000,"
		"\"mean_ns\":1306452,\"longest_ns\":45100000,\"holders\":["
		"{\"function\":\"add_order\",\"contentions\":501,\"delay_ns\":605000000},"
		"{\"function\":\"flush\",\"contentions\":100,\"delay_ns\":200000000}],\"waiters\":["
		"{\"function\":\"book_order\",\"share\":0.61},"
		"{\"function\":\"shop::rotate(int, char const*)\",\"share\":0.39}]},"
		"{\"lock\":\"0x55f4936030c0\",\"contentions\":50,\"delay_ns\":195000000,"
		"\"mean_ns\":3900000,\"holders\":["
		"{\"function\":\"rotate\",\"contentions\":50,\"delay_ns\":195000000}]},"
		"{\"lock\":\"accounts in shop\",\"contentions\":3,\"delay_ns\":1000,"
		"\"mean_ns\":333,\"longest_ns\":900}]}",
		0, NULL);

	(void)state;
	assert_non_null(expected);
	assert_true(json_equal(json, expected));
	json_decref(expected);
	json_decref(json);
	cprof_profile_destroy(p);
}

/* As Go's: no labels, no comments. */
static void test_foreign(void **state)
{
	struct cprof_profile *p = create();
	json_t *json, *lock;
	char *text;

	(void)state;
	add(p, NULL, 4, 8000000, "sync.(*Mutex).Unlock", "main.work", "main.main", NULL);
	add(p, NULL, 1, 2000000, "runtime.unlock", "runtime._LostContendedRuntimeLock", NULL);
	text = text_of(p, (struct cprof_report_options){0});
	assert_string_equal(text,
			    "1 lock: 10ms of waiting, 5 contentions\n" COLUMNS
			    "      10ms   100%           5        2ms          -  -\n"
			    "\n-\n"
			    "  stacks  80.00%        8ms  main.work\n"
			    "          20.00%        2ms  runtime._LostContendedRuntimeLock\n");
	free(text);
	json = json_of(p, (struct cprof_report_options){0});
	lock = json_array_get(json_object_get(json, "locks"), 0);
	assert_true(json_is_null(json_object_get(lock, "lock")));
	assert_int_equal(json_array_size(json_object_get(lock, "stacks")), 2);
	json_decref(json);
	cprof_profile_destroy(p);
}

/* By --mutex-side=waiter, and of block profiles. */
static void test_waiters(void **state)
{
	struct cprof_profile *p = create();
	char *text;

	(void)state;
	add(p, "a", 4, 8000000, "__lll_lock_wait", "pthread_mutex_lock", "book", NULL);
	cprof_profile_add_comment(p, CPROF_CONTENTION_OF_WAITERS);
	cprof_profile_add_comment(p, "lock \"a\": contentions 4, delay 8000000 ns, "
				     "longest 3000000 ns, waiters book 100%");
	text = text_of(p, (struct cprof_report_options){0});
	assert_non_null(strstr(text, "\na\n  waiters   100%        8ms  book\n"));
	assert_null(strstr(text, "holders"));
	assert_int_equal(times(text, "waiters"), 1);
	free(text);
	cprof_profile_destroy(p);

	p = create();
	{
		struct cprof_profile_label labels[] = {
			{.key = cprof_profile_string(p, "lock"),
			 .text = cprof_profile_string(p, "b")},
			{.key = cprof_profile_string(p, "wait"),
			 .text = cprof_profile_string(p, "mutex")},
		};
		uint32_t where = frame(p, "take");

		cprof_profile_add(p, cprof_profile_stack(p, &where, 1),
				  cprof_profile_labels(p, labels, 2), (int64_t[]){1, 1000});
	}
	text = text_of(p, (struct cprof_report_options){0});
	assert_non_null(strstr(text, "  waiters   100%        1us  take\n"));
	free(text);
	cprof_profile_destroy(p);
}

static void test_refused(void **state)
{
	struct cprof_profile *p;
	struct cprof_error *error;
	FILE *out = fopen("/dev/null", "w");

	(void)state;
	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "samples", "count");
	cprof_profile_add_type(p, "cpu", "nanoseconds");
	error = cprof_report_locks(p, &(struct cprof_report_options){0}, out);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_USAGE);
	assert_non_null(strstr(error->message, "not a profile of locks"));
	cprof_error_destroy(error);
	cprof_profile_destroy(p);
	p = example();
	error = cprof_report_locks(p, &(struct cprof_report_options){.focus = "("}, out);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_USAGE);
	cprof_error_destroy(error);
	error = cprof_report_locks_json(p, &(struct cprof_report_options){.sample_index = "no"},
					out);
	assert_non_null(error);
	cprof_error_destroy(error);
	cprof_profile_destroy(p);
	fclose(out);
}

/* Names with escapes, quotes and numbers in them; comments that are cut off or nonsense. */
static void test_hostile(void **state)
{
	static const char *const comments[] = {
		"lock \"\x1b[2Jx\": contentions 9, delay 9 ns, longest 9 ns\": contentions 2, "
		"delay "
		"3000 ns, longest 2000 ns, waiters \x1b]0;owned\a f 50%; g",
		"lock \"",
		"lock \"cut",
		"lock \"cut\": contentions ",
		"lock \"cut\": contentions -1, delay 1 ns, longest 1 ns",
		"lock \"cut\": contentions 1, delay 1 ns, longest 1",
		"lock \"cut\": contentions 1 delay",
		"lock \"full\": contentions 99999999999999999999999999, delay "
		"99999999999999999999999999 ns, longest 99999999999999999999999999 ns, waiters ",
		"lock \"w\": contentions 1, delay 1 ns, longest 1 ns, waiters %; %; 5%;  5%; a b%; "
		"x 7%",
		"lock \"w\": contentions 1, delay 2 ns, longest 3 ns",
	};
	struct cprof_profile *p = create();
	char *text;
	json_t *json, *locks;

	(void)state;
	add(p, "\x1b[2Jx\": contentions 9, delay 9 ns, longest 9 ns", 1, 500, "f\x1b[31m", NULL);
	add(p, "\xff\xfe", 1, 400, NULL);
	add(p, "", -3, INT64_MIN, "g", NULL);
	for (size_t i = 0; i < CPROF_COUNT(comments); i++)
		cprof_profile_add_comment(p, comments[i]);
	text = text_of(p, (struct cprof_report_options){.count = -1});
	for (const char *c = text; *c; c++)
		assert_true((unsigned char)*c >= 32 || *c == '\n');
	assert_null(strstr(text, "cut"));
	assert_non_null(strstr(text, "3us"));
	assert_non_null(strstr(text, "?[2Jx\": contentions 9, delay 9 ns, longest 9 ns\n"));
	assert_non_null(strstr(text, "  waiters    50%             ?]0;owned? f\n"));
	assert_non_null(strstr(text, "  waiters     7%             x\n"));
	free(text);
	json = json_of(p, (struct cprof_report_options){.count = -1});
	locks = json_object_get(json, "locks");
	for (size_t i = 0; i < json_array_size(locks); i++) {
		const json_t *lock = json_array_get(locks, i);
		const char *name = json_string_value(json_object_get(lock, "lock"));

		if (name && !strcmp(name, "w")) {
			assert_int_equal(json_integer_value(json_object_get(lock, "delay_ns")), 3);
			assert_int_equal(json_integer_value(json_object_get(lock, "longest_ns")),
					 3);
		}
	}
	json_decref(json);
	cprof_profile_destroy(p);
}

static void test_empty(void **state)
{
	struct cprof_profile *p = create();
	char *text = text_of(p, (struct cprof_report_options){0});

	(void)state;
	assert_string_equal(text, "0 locks: 0 of waiting, 0 contentions\n" COLUMNS);
	free(text);
	json_decref(json_of(p, (struct cprof_report_options){0}));
	cprof_profile_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),    cmocka_unit_test(test_json),
		cmocka_unit_test(test_foreign), cmocka_unit_test(test_waiters),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

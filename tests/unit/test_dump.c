/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Reports of made-up thread dumps.
 */
#include <cprof/report.h>
#include <cprof/util.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct cprof_dump_frame main_frames[] = {
	{.pc = 0x1010, .function = "poll", .offset = 0x4f, .module = "/usr/lib/libc.so.6"},
	{.pc = 0x2020,
	 .function = "wait_all",
	 .module = "/usr/bin/service",
	 .file = "/src/../src/main.c",
	 .line = 7,
	 .inlined = true},
	{.pc = 0x2020,
	 .function = "main",
	 .offset = 0x20,
	 .module = "/usr/bin/service",
	 .file = "/src/main.c",
	 .line = 42},
};
static struct cprof_dump_frame lock_frames[] = {
	{.pc = 0x1030, .function = "__lll_lock_wait", .offset = 1, .module = "/usr/lib/libc.so.6"},
	{.pc = 0x1040,
	 .function = "___pthread_mutex_lock",
	 .offset = 2,
	 .module = "/opt/static-service"},
	{.pc = 0x1050,
	 .function = "std::mutex::lock()",
	 .module = "/usr/bin/service",
	 .inlined = true},
	{.pc = 0x1050,
	 .function = "take",
	 .offset = 3,
	 .module = "/usr/bin/service",
	 .file = "take.cc",
	 .line = 9},
	{.pc = 0x99},
};

static struct cprof_dump_thread thread(pid_t tid, const char *name, char state,
				       enum cprof_wait_kind kind, uint64_t address)
{
	struct cprof_dump_thread made = {
		.tid = tid,
		.state = state,
		.held = true,
		.wait = {.kind = kind, .address = address, .left_ns = -1},
		.frames = kind == CPROF_WAIT_MUTEX ? lock_frames : main_frames,
		.frame_count = kind == CPROF_WAIT_MUTEX ? CPROF_COUNT(lock_frames)
							: CPROF_COUNT(main_frames),
	};

	snprintf(made.name, sizeof(made.name), "%s", name);
	return made;
}

static struct cprof_dump dump_of(struct cprof_dump_thread *threads, size_t count)
{
	return (struct cprof_dump){
		.pid = 812,
		.comm = "service",
		.cmdline = (char *)"service --fast",
		.taken_ns = 1700000000000000000ull,
		.stopped_ns = 3140000,
		.threads = threads,
		.count = count,
	};
}

static char *text_of(const struct cprof_dump *dump, const struct cprof_report_dump_options *options)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_null(cprof_report_dump(dump, options, out));
	fclose(out);
	return text;
}

static void assert_text(const struct cprof_dump *dump,
			const struct cprof_report_dump_options *options, const char *expected)
{
	char *text = text_of(dump, options);

	assert_string_equal(text, expected);
	free(text);
}

static const struct cprof_report_dump_options plain;

#define MAIN_STACK                                                                                 \
	"    #0 poll+0x4f (libc.so.6)\n"                                                           \
	"    #1 wait_all main.c:7 (service) [inlined]\n"                                           \
	"    #2 main+0x20 main.c:42 (service)\n"
#define LOCK_STACK                                                                                 \
	"    #0 __lll_lock_wait+0x1 (libc.so.6)\n"                                                 \
	"    #1 ___pthread_mutex_lock+0x2 (static-service)\n"                                      \
	"    #2 std::mutex::lock() (service) [inlined]\n"                                          \
	"    #3 take+0x3 take.cc:9 (service)\n"                                                    \
	"    #4 0x99\n"

static void test_empty(void **state)
{
	struct cprof_dump dump = dump_of(NULL, 0);

	(void)state;
	assert_text(&dump, &plain, "Process 812: service --fast\nstopped for 3.1 ms, 0 threads\n");
}

static void test_one(void **state)
{
	struct cprof_dump_thread one = thread(812, "service", 'S', CPROF_WAIT_POLL, 0);
	struct cprof_dump dump = dump_of(&one, 1);

	(void)state;
	one.wait.detail = (char *)"fd 5: pipe:[123]";
	one.wait.left_ns = 1540000000;
	assert_text(
		&dump, &plain,
		"Process 812: service --fast\n"
		"stopped for 3.1 ms, 1 thread\n"
		"poll 1\n"
		"\n"
		"1 thread [S, poll fd 5: pipe:[123], 1.5 s left]: \"service\" 812\n" MAIN_STACK);
}

/* What is no plain case: running, stopped, not held, a stack that did not end. */
static void test_states(void **state)
{
	struct cprof_dump_thread threads[] = {
		thread(1, "runs", 'R', CPROF_WAIT_NONE, 0),
		thread(2, "stopped", 'T', CPROF_WAIT_NONE, 0),
		thread(3, "stuck", 'D', CPROF_WAIT_NONE, 0),
		thread(4, "sleeps", '\x1b', CPROF_WAIT_NONE, 0),
	};
	struct cprof_dump dump = dump_of(threads, CPROF_COUNT(threads));

	(void)state;
	threads[0].end = CPROF_END_TRUNCATED;
	threads[1].frame_count = 1;
	threads[2].held = false;
	threads[2].frame_count = 0;
	threads[3].frame_count = 1;
	dump.unstoppable = 1;
	threads[1].late = true;
	dump.late = 1;
	assert_text(&dump, &plain,
		    "Process 812: service --fast\n"
		    "stopped for 3.1 ms, 4 threads, 1 seen later, 1 could not be stopped\n"
		    "none 1, not stopped 1, running 1, stopped 1\n"
		    "\n"
		    "1 thread [R, running]: \"runs\" 1\n" MAIN_STACK "    [truncated stack]\n"
		    "\n"
		    "1 thread [T, stopped, seen later]: \"stopped\" 2\n"
		    "    #0 poll+0x4f (libc.so.6)\n"
		    "\n"
		    "1 thread [D, not stopped]: \"stuck\" 3\n"
		    "\n"
		    "1 thread [?, none]: \"sleeps\" 4\n"
		    "    #0 poll+0x4f (libc.so.6)\n");
}

static void test_groups(void **state)
{
	struct cprof_dump_thread threads[30];
	struct cprof_dump dump = dump_of(threads, CPROF_COUNT(threads));
	char *text, *other;

	(void)state;
	/* Even tids wait for one lock, odd ones poll: 12 of them for one pipe, 3 deeper. */
	for (int i = 0; i < 30; i++) {
		threads[i] = thread(100 + i, "w", 'S', i % 2 ? CPROF_WAIT_POLL : CPROF_WAIT_MUTEX,
				    i % 2 ? 0 : 0xabc0);
		threads[i].wait.owner = i % 2 ? 0 : 101;
		if (i % 2 && i > 23)
			threads[i].frame_count = 2;
	}
	text = text_of(&dump, &plain);
	assert_string_equal(
		text,
		"Process 812: service --fast\n"
		"stopped for 3.1 ms, 30 threads\n"
		"mutex 15, poll 15\n"
		"\n"
		"15 threads [S, mutex 0xabc0, held by \"w\" 101]: \"w\" 100, \"w\" 102, \"w\" 104, "
		"\"w\" 106, \"w\" 108, \"w\" 110, \"w\" 112, \"w\" 114, and 7 more\n" LOCK_STACK
		"\n"
		"12 threads [S, poll]: \"w\" 101, \"w\" 103, \"w\" 105, \"w\" 107, \"w\" 109, "
		"\"w\" 111, \"w\" 113, \"w\" 115, and 4 more\n" MAIN_STACK "\n"
		"3 threads [S, poll]: \"w\" 125, \"w\" 127, \"w\" 129\n"
		"    #0 poll+0x4f (libc.so.6)\n"
		"    #1 wait_all main.c:7 (service) [inlined]\n");
	/* Other locks are one group, but none of them is named. */
	threads[0].wait.address = 0xdef0;
	other = text_of(&dump, &plain);
	assert_non_null(strstr(other, "15 threads [S, mutex]: \"w\" 100"));
	free(other);
	free(text);
	text = text_of(&dump, &(struct cprof_report_dump_options){.all = true});
	assert_null(strstr(text, "threads [S"));
	assert_non_null(strstr(text, "1 thread [S, mutex 0xdef0, held by \"w\" 101]: \"w\" 100\n"));
	assert_non_null(strstr(text, "\"w\" 128\n"));
	assert_non_null(strstr(strstr(text, "\"w\" 128\n"), "\"w\" 129\n"));
	free(text);
}

/* Nothing is one group that differs in state, wait, end or stack, whatever the order. */
static void test_group_keys(void **state)
{
	struct cprof_dump_thread threads[6];
	struct cprof_dump dump = dump_of(threads, CPROF_COUNT(threads));
	char *text;
	size_t groups = 0;

	(void)state;
	for (int i = 0; i < 6; i++)
		threads[i] = thread(i + 1, "x", 'S', CPROF_WAIT_POLL, 0);
	threads[1].state = 'D';
	threads[2].wait.kind = CPROF_WAIT_SLEEP;
	threads[3].end = CPROF_END_CORRUPT;
	threads[4].frame_count--;
	text = text_of(&dump, &plain);
	for (const char *at = text; (at = strstr(at, " [")); at++)
		groups += strstr(at, "]: \"x\"") == strchr(at, ']');
	assert_int_equal(groups, 5);
	assert_non_null(strstr(text, "\n\n2 threads [S, poll]: \"x\" 1, \"x\" 6\n"));
	free(text);
}

static void test_left(void **state)
{
	struct cprof_dump_thread threads[] = {
		thread(1, "a", 'S', CPROF_WAIT_SLEEP, 0),
		thread(2, "b", 'S', CPROF_WAIT_SLEEP, 0),
	};
	struct cprof_dump dump = dump_of(threads, 2);
	char *text;

	(void)state;
	threads[0].wait.left_ns = 2000000000;
	threads[1].wait.left_ns = 500000000;
	text = text_of(&dump, &plain);
	assert_non_null(strstr(text, "[S, sleep, 0.5 to 2.0 s left]:"));
	free(text);
	threads[1].wait.left_ns = -1;
	text = text_of(&dump, &plain);
	assert_non_null(strstr(text, "[S, sleep]:"));
	free(text);
}

static void test_watch(void **state)
{
	struct cprof_dump_thread before[] = {
		thread(1, "a", 'S', CPROF_WAIT_POLL, 0),
		thread(2, "b", 'S', CPROF_WAIT_POLL, 0),
		thread(3, "c", 'S', CPROF_WAIT_MUTEX, 0x10),
		thread(5, "e", 'S', CPROF_WAIT_POLL, 0),
	};
	struct cprof_dump_thread after[] = {
		thread(1, "a", 'S', CPROF_WAIT_POLL, 0),
		thread(2, "b", 'S', CPROF_WAIT_POLL, 0),
		thread(3, "c", 'S', CPROF_WAIT_MUTEX, 0x20),
		thread(4, "d", 'S', CPROF_WAIT_POLL, 0),
		thread(5, "e", 'S', CPROF_WAIT_POLL, 0),
	};
	struct cprof_dump earlier = dump_of(before, 4), dump = dump_of(after, 5);
	const struct cprof_report_dump_options options = {.earlier = &earlier};
	char *text;

	(void)state;
	before[1].frame_count = 1; /* it has moved */
	dump.taken_ns += 5040000000ull;
	text = text_of(&dump, &options);
	assert_non_null(
		strstr(text, "\n2 threads [S, poll, not moved for 5.0 s]: \"a\" 1, \"e\" 5\n"));
	assert_non_null(strstr(text, "\n2 threads [S, poll]: \"b\" 2, \"d\" 4\n"));
	assert_non_null(strstr(text, "\n1 thread [S, mutex 0x20]: \"c\" 3\n")); /* another lock */
	free(text);
	dump.taken_ns = earlier.taken_ns - 1; /* the clock was set back */
	text = text_of(&dump, &options);
	assert_null(strstr(text, "not moved"));
	free(text);
}

static void test_deadlock(void **state)
{
	struct cprof_dump_thread threads[] = {
		thread(10, "left", 'S', CPROF_WAIT_MUTEX, 0xb0),
		thread(11, "right", 'S', CPROF_WAIT_MUTEX, 0xa0),
		thread(12, "again", 'S', CPROF_WAIT_MUTEX, 0xc0),
		thread(13, "heir", 'S', CPROF_WAIT_MUTEX, 0xd0),
		thread(14, "heir", 'S', CPROF_WAIT_MUTEX, 0xd0),
		thread(15, "join", 'S', CPROF_WAIT_JOIN, 0),
	};
	struct cprof_deadlock deadlocks[] = {
		{.tids = (pid_t[]){10, 11}, .count = 2},
		{.tids = (pid_t[]){12}, .count = 1},
		{.tids = (pid_t[]){77}, .count = 1}, /* not shown */
	};
	struct cprof_dump dump = dump_of(threads, CPROF_COUNT(threads));
	const char *text;
	char *all;

	(void)state;
	dump.deadlocks = deadlocks;
	dump.deadlock_count = CPROF_COUNT(deadlocks);
	threads[0].wait.owner = 11;
	threads[0].wait.detail = (char *)"lock_b+0x8 in service";
	threads[1].wait.owner = 10;
	threads[2].wait.owner = 12;
	threads[2].frame_count = 2; /* nothing but the C library's */
	for (int i = 3; i < 5; i++) {
		threads[i].wait.owner = 99;
		threads[i].wait.owner_gone = true;
	}
	threads[5].wait.owner = 10;
	threads[5].wait.owner_gone = true; /* nothing is stuck: it is about to return */
	all = text_of(&dump, &plain);
	assert_non_null(strstr(all, "4 threads [S, mutex]: \"left\" 10, "));
	assert_non_null(strstr(all, "[S, join of \"left\" 10]: \"join\" 15\n"));
	text = strstr(all, "\nDeadlock:");
	assert_non_null(text);
	assert_string_equal(text,
			    "\nDeadlock: 2 threads wait for one another\n"
			    "    \"left\" 10 waits for mutex 0xb0 (lock_b+0x8 in service), held by "
			    "\"right\" 11\n"
			    "        #3 take+0x3 take.cc:9 (service)\n"
			    "    \"right\" 11 waits for mutex 0xa0, held by \"left\" 10\n"
			    "        #3 take+0x3 take.cc:9 (service)\n"
			    "\nDeadlock: a thread waits for what it has itself\n"
			    "    \"again\" 12 waits for mutex 0xc0, held by itself\n"
			    "        #0 __lll_lock_wait+0x1 (libc.so.6)\n"
			    "\nDeadlock: a thread waits for what it has itself\n"
			    "    77\n"
			    "\nDeadlock: 2 threads wait for a lock whose owner, 99, has exited\n"
			    "    \"heir\" 13 waits for mutex 0xd0, held by 99, which has exited\n"
			    "        #3 take+0x3 take.cc:9 (service)\n"
			    "    \"heir\" 14 waits for mutex 0xd0, held by 99, which has exited\n"
			    "        #3 take+0x3 take.cc:9 (service)\n");
	free(all);
}

/* No byte reaches the terminal that is not plain text. */
static void test_hostile(void **state)
{
	static struct cprof_dump_frame frame = {
		.pc = 1,
		.function = "f\x1b[2J\n\xff",
		.module = "/x/\x1b]0;m\a",
		.file = "/y/\xe2\x80\xae"
			"c\r",
		.line = UINT32_MAX,
		.offset = UINT64_MAX,
	};
	struct cprof_dump_thread one = thread(1, "n\x1b[1m\n\xc3", 'S', CPROF_WAIT_MUTEX, 1);
	struct cprof_dump dump = dump_of(&one, 1);
	struct cprof_deadlock deadlock = {.tids = (pid_t[]){1}, .count = 1};
	char *text, *colored;
	json_t *root;
	FILE *out;
	size_t length;

	(void)state;
	one.wait.detail = (char *)"d\x1b\n";
	one.wait.owner = 1;
	one.frames = &frame;
	one.frame_count = 1;
	dump.cmdline = (char *)"c\x1b[0m\n";
	dump.deadlocks = &deadlock;
	dump.deadlock_count = 1;
	text = text_of(&dump, &plain);
	for (const char *c = text; *c; c++)
		assert_true((*c >= ' ' && *c <= '~') || *c == '\n');
	assert_string_equal(text,
			    "Process 812: c?[0m?\n"
			    "stopped for 3.1 ms, 1 thread\n"
			    "mutex 1\n"
			    "\n"
			    "1 thread [S, mutex 0x1 (d?\?), held by itself]: \"n?[1m??\" 1\n"
			    "    #0 f?[2J??+0xffffffffffffffff ?c?:4294967295 (?]0;m?)\n"
			    "\n"
			    "Deadlock: a thread waits for what it has itself\n"
			    "    \"n?[1m??\" 1 waits for mutex 0x1 (d?\?), held by itself\n"
			    "        #0 f?[2J??+0xffffffffffffffff ?c?:4294967295 (?]0;m?)\n");
	free(text);
	colored = text_of(&dump, &(struct cprof_report_dump_options){.color = true});
	assert_non_null(strstr(colored, "\n\033[1m1 thread\033[m [S, "));
	assert_non_null(strstr(colored, "\n\033[1;31mDeadlock:\033[m a thread"));
	free(colored);

	out = open_memstream(&text, &length);
	assert_null(cprof_report_dump_json(&dump, NULL, out));
	fclose(out);
	root = json_loads(text, 0, NULL);
	assert_non_null(root);
	json_decref(root);
	free(text);
}

static json_t *json_of(const struct cprof_dump *dump, const struct cprof_dump *earlier)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	json_error_t error;
	json_t *root;

	assert_null(cprof_report_dump_json(dump, earlier, out));
	fclose(out);
	root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	assert_non_null(root);
	free(text);
	return root;
}

static void assert_text_at(const json_t *object, const char *key, const char *expected)
{
	assert_string_equal(json_string_value(json_object_get(object, key)), expected);
}

static void assert_number_at(const json_t *object, const char *key, json_int_t expected)
{
	assert_true(json_is_integer(json_object_get(object, key)));
	assert_true(json_integer_value(json_object_get(object, key)) == expected);
}

static void assert_true_at(const json_t *object, const char *key, bool expected)
{
	assert_true(json_is_boolean(json_object_get(object, key)));
	assert_int_equal(json_is_true(json_object_get(object, key)), expected);
}

static void test_json_deadlock(void **state)
{
	struct cprof_dump_thread one = thread(10, "left", 'S', CPROF_WAIT_MUTEX, UINT64_MAX);
	struct cprof_deadlock deadlock = {.tids = (pid_t[]){10, 11}, .count = 2};
	struct cprof_dump dump = dump_of(&one, 1);
	json_t *root, *item, *list, *frame;

	(void)state;
	one.wait.owner = 11;
	one.wait.detail = (char *)"lock";
	dump.deadlocks = &deadlock;
	dump.deadlock_count = 1;
	root = json_of(&dump, NULL);
	assert_number_at(root, "pid", 812);
	assert_text_at(root, "comm", "service");
	assert_number_at(root, "taken_unix_ns", 1700000000000000000ll);
	assert_number_at(root, "stopped_ns", 3140000);
	list = json_object_get(root, "deadlocks");
	assert_int_equal(json_array_size(list), 1);
	list = json_array_get(list, 0);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(json_integer_value(json_array_get(list, 0)), 10);
	assert_int_equal(json_integer_value(json_array_get(list, 1)), 11);
	item = json_array_get(json_object_get(root, "threads"), 0);
	assert_number_at(item, "tid", 10);
	assert_text_at(item, "name", "left");
	assert_text_at(item, "state", "S");
	assert_true_at(item, "complete", true);
	assert_true_at(item, "held", true);
	assert_null(json_object_get(item, "not_moved_ns"));
	list = json_object_get(item, "frames");
	assert_int_equal(json_array_size(list), 5);
	item = json_object_get(item, "wait");
	assert_text_at(item, "kind", "mutex");
	assert_text_at(item, "address", "0xffffffffffffffff");
	assert_text_at(item, "detail", "lock");
	assert_number_at(item, "owner_tid", 11);
	assert_null(json_object_get(item, "left_ns"));
	assert_true_at(json_array_get(list, 2), "inlined", true);
	frame = json_array_get(list, 3);
	assert_text_at(frame, "pc", "0x1050");
	assert_text_at(frame, "function", "take");
	assert_text_at(frame, "module", "/usr/bin/service");
	assert_text_at(frame, "file", "take.cc");
	assert_number_at(frame, "offset", 3);
	assert_number_at(frame, "line", 9);
	assert_true_at(frame, "inlined", false);
	/* What is not known is there, and empty. */
	frame = json_array_get(list, 4);
	assert_text_at(frame, "function", "");
	assert_text_at(frame, "module", "");
	assert_number_at(frame, "line", 0);
	json_decref(root);
}

static void test_json_states(void **state)
{
	struct cprof_dump_thread threads[] = {
		thread(11, "poll", 'S', CPROF_WAIT_POLL, 0),
		thread(12, "stuck", 'D', CPROF_WAIT_NONE, 0),
	};
	struct cprof_dump dump = dump_of(threads, 2), earlier = dump_of(threads, 2);
	json_t *root, *list, *item;

	(void)state;
	threads[0].wait.left_ns = 5;
	threads[0].end = CPROF_END_NO_CFI;
	threads[1].held = false;
	threads[1].frame_count = 0;
	dump.taken_ns += 7;
	root = json_of(&dump, &earlier);
	list = json_object_get(root, "threads");
	item = json_array_get(list, 0);
	assert_true_at(item, "complete", false);
	assert_text_at(item, "end", "no_cfi");
	assert_number_at(item, "not_moved_ns", 7);
	item = json_object_get(item, "wait");
	assert_null(json_object_get(item, "owner_tid"));
	assert_number_at(item, "left_ns", 5);
	item = json_array_get(list, 1);
	assert_true_at(item, "held", false);
	assert_true_at(item, "complete", false);
	assert_null(json_object_get(item, "not_moved_ns"));
	assert_text_at(json_object_get(item, "wait"), "kind", "none");
	json_decref(root);

	dump = dump_of(NULL, 0);
	root = json_of(&dump, NULL);
	assert_true(json_is_array(json_object_get(root, "threads")));
	assert_int_equal(json_array_size(json_object_get(root, "threads")), 0);
	assert_true(json_is_array(json_object_get(root, "deadlocks")));
	assert_int_equal(json_array_size(json_object_get(root, "deadlocks")), 0);
	json_decref(root);
}

/* A report that cannot be written is an error. */
static void test_full_disk(void **state)
{
	struct cprof_dump_thread one = thread(1, "x", 'S', CPROF_WAIT_POLL, 0);
	struct cprof_dump dump = dump_of(&one, 1);
	FILE *out = fopen("/dev/full", "w");
	struct cprof_error *error;

	(void)state;
	if (!out)
		skip();
	error = cprof_report_dump(&dump, &plain, out);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_FAILED);
	cprof_error_destroy(error);
	clearerr(out);
	error = cprof_report_dump_json(&dump, NULL, out);
	assert_non_null(error);
	cprof_error_destroy(error);
	fclose(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),       cmocka_unit_test(test_one),
		cmocka_unit_test(test_states),      cmocka_unit_test(test_groups),
		cmocka_unit_test(test_group_keys),  cmocka_unit_test(test_left),
		cmocka_unit_test(test_watch),       cmocka_unit_test(test_deadlock),
		cmocka_unit_test(test_hostile),     cmocka_unit_test(test_json_deadlock),
		cmocka_unit_test(test_json_states), cmocka_unit_test(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Thread dumps of the sample program waits, whose threads are named after what they wait for.
 */
#include "../../src/threads/private.h"

#include <cprof/util.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND 1000000000ll

/* --- the program --------------------------------------------------------------------------- */

static pid_t program;
static struct cprof_target *target;
static struct cprof_dump *dump;

static void ok(struct cprof_error *error)
{
	if (error)
		print_message("%s\n", error->message);
	assert_null(error);
}

static void run(const char *mode)
{
	const char *build = getenv("O");
	char path[4096];
	char line[64] = "";
	FILE *output;
	int fds[2];

	snprintf(path, sizeof(path), "%s/workloads/waits", build ? build : "build");
	assert_int_equal(pipe(fds), 0);
	program = fork();
	assert_true(program >= 0);
	if (program == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl(path, path, mode, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	output = fdopen(fds[0], "r");
	assert_non_null(output);
	assert_non_null(fgets(line, sizeof(line), output));
	assert_string_equal(line, "ready\n");
	fclose(output);
	ok(cprof_target_create(program, &target));
}

static int stop(void **state)
{
	(void)state;
	cprof_dump_destroy(cprof_take(dump));
	cprof_target_destroy(cprof_take(target));
	if (program > 0) {
		kill(program, SIGKILL);
		waitpid(program, NULL, 0);
	}
	program = 0;
	return 0;
}

/* Dumps until `settled`, for a loaded machine may not have run every thread yet. */
static void take(const char *const *threads, bool (*settled)(void))
{
	const struct cprof_dump_options options = {.threads = threads};

	for (unsigned tries = 0; tries < 100; tries++) {
		cprof_dump_destroy(cprof_take(dump));
		ok(cprof_dump_take(target, &options, &dump));
		if (settled())
			return;
		usleep(50000);
	}
}

static const struct cprof_dump_thread *named(const char *name)
{
	for (size_t i = 0; i < dump->count; i++)
		if (strcmp(dump->threads[i].name, name) == 0)
			return &dump->threads[i];
	print_message("no thread is called %s\n", name);
	fail();
	return NULL;
}

static bool all_wait(void)
{
	size_t running = 0;

	for (size_t i = 0; i < dump->count; i++)
		running += dump->threads[i].wait.kind == CPROF_WAIT_NONE &&
			   strcmp(dump->threads[i].name, "spin") != 0;
	return !running;
}

static bool calls(const struct cprof_dump_thread *thread, const char *function)
{
	for (size_t i = 0; i < thread->frame_count; i++)
		if (thread->frames[i].function && strcmp(thread->frames[i].function, function) == 0)
			return true;
	return false;
}

/* --- kinds --------------------------------------------------------------------------------- */

static const struct expected {
	const char *name;
	enum cprof_wait_kind kind;
	const char *owner;    /* NULL none */
	const char *detail;   /* part of it, NULL none at all */
	const char *function; /* on the stack */
	bool address;
	int left; /* seconds at most, and a minute less at least; 0 unknown */
} expected[] = {
	{"main", CPROF_WAIT_SLEEP, NULL, "signal", "main", false, 0},
	{"sleep", CPROF_WAIT_SLEEP, NULL, NULL, "wait_sleep", false, 1000},
	{"mutex", CPROF_WAIT_MUTEX, "main", "mutex in waits", "wait_mutex", true, 0},
	{"heap-mutex", CPROF_WAIT_MUTEX, "main", "heap", "wait_heap_mutex", true, 0},
	{"robust-mutex", CPROF_WAIT_MUTEX, "main", "robust_mutex in waits, robust",
	 "wait_robust_mutex", true, 0},
	{"inheriting", CPROF_WAIT_MUTEX, "main", "inheriting_mutex in waits",
	 "wait_inheriting_mutex", true, 0},
	{"timed-mutex", CPROF_WAIT_MUTEX, "main", "mutex in waits", "wait_timed_mutex", true, 1000},
	{"rdlock", CPROF_WAIT_RWLOCK, "main", "rwlock in waits", "wait_rdlock", true, 0},
	{"wrlock", CPROF_WAIT_RWLOCK, "main", "rwlock in waits", "wait_wrlock", true, 0},
	{"readers", CPROF_WAIT_RWLOCK, NULL, ", 1 reader has it", "wait_readers", true, 0},
	{"writers-first", CPROF_WAIT_RWLOCK, "main", "heap", "wait_writers_first", true, 0},
	{"cond", CPROF_WAIT_COND, NULL, "cond in waits", "wait_cond", true, 0},
	{"timed-cond", CPROF_WAIT_COND, NULL, "cond in waits", "wait_timed_cond", true, 500},
	{"sem", CPROF_WAIT_SEM, NULL, "semaphore in waits", "wait_sem", true, 0},
	{"join", CPROF_WAIT_JOIN, "sleep", NULL, "wait_join", true, 0},
	{"until", CPROF_WAIT_SLEEP, NULL, NULL, "wait_until", false, 800},
	{"poll", CPROF_WAIT_POLL, NULL, " listening", "wait_poll", false, 0},
	{"select", CPROF_WAIT_POLL, NULL, ": pipe:[", "wait_select", false, 0},
	{"epoll", CPROF_WAIT_POLL, NULL, ": epoll of 1 fds", "wait_epoll", false, 0},
	{"pipe", CPROF_WAIT_PIPE, NULL, ": pipe:[", "wait_pipe", false, 0},
	{"accept", CPROF_WAIT_SOCKET, NULL, ": tcp 127.0.0.1:", "wait_accept", false, 0},
	{"recv", CPROF_WAIT_SOCKET, NULL, ": unix", "wait_recv", false, 0},
	{"flock", CPROF_WAIT_FILE, NULL, ": /tmp, lock", "wait_flock", false, 0},
	{"inotify", CPROF_WAIT_POLL, NULL, ": inotify", "wait_inotify", false, 0},
	{"msgrcv", CPROF_WAIT_SEM, NULL, "System V message queue", "wait_msgrcv", false, 0},
	{"child", CPROF_WAIT_POLL, NULL, "child process", "wait_child", false, 0},
	{"signal", CPROF_WAIT_SLEEP, NULL, "signal", "wait_signal", false, 0},
	{"spin", CPROF_WAIT_NONE, NULL, NULL, "spin", false, 0},
};

static void check_thread(const struct expected *expect)
{
	const struct cprof_dump_thread *thread = named(expect->name);
	const struct cprof_wait *wait = &thread->wait;
	const char *detail = wait->detail ? wait->detail : "";

	print_message("%s: %s, %s\n", thread->name, cprof_wait_name(wait->kind), detail);
	assert_int_equal(wait->kind, expect->kind);
	assert_int_equal(wait->owner, expect->owner ? named(expect->owner)->tid : 0);
	assert_false(wait->owner_gone);
	assert_int_equal(wait->address != 0, expect->address);
	if (expect->detail)
		assert_non_null(strstr(detail, expect->detail));
	else
		assert_null(wait->detail);
	if (expect->left)
		assert_in_range(wait->left_ns, (expect->left - 60) * SECOND, expect->left * SECOND);
	else
		assert_int_equal(wait->left_ns, -1);
	assert_true(thread->held);
	assert_int_equal(thread->end, CPROF_END_COMPLETE);
	assert_true(calls(thread, expect->function));
}

/* Two that wait for the same, at the same address; another lock has another. */
static void check_addresses(void)
{
	assert_int_equal(named("mutex")->wait.address, named("timed-mutex")->wait.address);
	assert_int_equal(named("rdlock")->wait.address, named("wrlock")->wait.address);
	assert_int_equal(named("cond")->wait.address, named("timed-cond")->wait.address);
	assert_int_not_equal(named("mutex")->wait.address, named("heap-mutex")->wait.address);
}

static void check_totals(void)
{
	uint64_t sum = 0;

	for (size_t kind = 0; kind < CPROF_WAITS; kind++) {
		uint64_t count = 0;

		for (size_t i = 0; i < CPROF_COUNT(expected); i++)
			count += expected[i].kind == kind;
		assert_int_equal(dump->waiting[kind], count);
		sum += count;
	}
	assert_int_equal(sum, dump->count);
}

static const char *label_text(const struct cprof_profile *profile, size_t sample, const char *key)
{
	const struct cprof_profile_span *set =
		&profile->label_sets[profile->samples[sample].labels];

	for (uint32_t i = set->first; i < set->first + set->count; i++)
		if (strcmp(profile->strings[profile->label_items[i].key], key) == 0)
			return profile->strings[profile->label_items[i].text];
	return "";
}

static void check_profile(void)
{
	struct cprof_profile *profile;
	int64_t sum = 0;
	size_t cond = 0;

	ok(cprof_dump_profile(dump, &profile));
	assert_int_equal(profile->type_count, 1);
	assert_string_equal(profile->strings[profile->types[0].type], "threads");
	assert_string_equal(profile->strings[profile->types[0].unit], "count");
	assert_int_equal(profile->period, 1);
	assert_int_equal(profile->duration_ns, 0);
	assert_int_equal(profile->time_ns, dump->taken_ns);
	assert_non_null(strstr(profile->strings[profile->mappings[1].file], "/workloads/waits"));
	for (size_t i = 0; i < profile->sample_count; i++) {
		sum += profile->values[i];
		cond += strcmp(label_text(profile, i, "wait"), "cond") == 0;
		assert_string_not_equal(label_text(profile, i, "thread"), "");
	}
	assert_int_equal(sum, dump->count);
	assert_int_equal(cond, 2);
	cprof_profile_destroy(profile);
}

static void test_kinds(void **state)
{
	(void)state;
	run("kinds");
	take(NULL, all_wait);
	for (size_t i = 0; i < CPROF_COUNT(expected); i++)
		check_thread(&expected[i]);
	assert_int_equal(dump->count, CPROF_COUNT(expected));
	assert_int_equal(dump->deadlock_count, 0);
	check_addresses();
	check_totals();
	check_profile();
}

static void test_filter(void **state)
{
	static const char *const threads[] = {"mutex", "sem", NULL};
	static const char *const nobody[] = {"nobody", NULL};
	const struct cprof_dump_options options = {.threads = nobody};
	struct cprof_dump *none = NULL;
	struct cprof_error *error;

	(void)state;
	run("kinds");
	take(threads, all_wait);
	assert_int_equal(dump->count, 2);
	/* The owner is told even if it is not shown. */
	assert_int_equal(named("mutex")->wait.owner, program);
	assert_int_equal(named("sem")->wait.kind, CPROF_WAIT_SEM);
	error = cprof_dump_take(target, &options, &none);
	assert_non_null(error);
	assert_null(none);
	cprof_error_destroy(error);
}

/* --- deadlocks ----------------------------------------------------------------------------- */

static bool has_deadlock(void)
{
	return dump->deadlock_count;
}

static void check_circle(const char *const *names, size_t count)
{
	assert_int_equal(dump->deadlock_count, 1);
	assert_int_equal(dump->deadlocks[0].count, count);
	for (size_t i = 0; i < count; i++) {
		const struct cprof_dump_thread *thread = named(names[i]);

		assert_int_equal(thread->wait.owner, named(names[(i + 1) % count])->tid);
		/* The lowest tid is the first: threads are born in order of their names. */
		assert_int_equal(dump->deadlocks[0].tids[i], thread->tid);
	}
}

static void test_deadlocks(void **state)
{
	static const struct {
		const char *mode;
		const char *names[3];
		size_t count;
	} modes[] = {{"self", {"self"}, 1}, {"writer", {"main", "writer"}, 2}};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(modes); i++) {
		run(modes[i].mode);
		take(NULL, has_deadlock);
		check_circle(modes[i].names, modes[i].count);
		stop(NULL);
	}
}

static void test_circles_live(void **state)
{
	(void)state;
	for (size_t length = 2; length <= 3; length++) {
		run(length == 2 ? "pair" : "circle");
		take(NULL, has_deadlock);
		assert_int_equal(dump->deadlock_count, 1);
		assert_int_equal(dump->deadlocks[0].count, length);
		for (size_t i = 0; i < length; i++) {
			char name[16];
			char next[16];

			snprintf(name, sizeof(name), "circle-%zu", i);
			snprintf(next, sizeof(next), "circle-%zu", (i + 1) % length);
			assert_int_equal(named(name)->wait.owner, named(next)->tid);
			assert_int_equal(named(name)->wait.kind, CPROF_WAIT_MUTEX);
			assert_true(calls(named(name), "run_circle"));
		}
		stop(NULL);
	}
}

static void test_owner_gone(void **state)
{
	(void)state;
	run("gone");
	take(NULL, all_wait);
	assert_int_equal(named("waiter")->wait.kind, CPROF_WAIT_MUTEX);
	assert_true(named("waiter")->wait.owner_gone);
	assert_int_not_equal(named("waiter")->wait.owner, 0);
	assert_int_equal(dump->deadlock_count, 0);
}

static bool relocks(void)
{
	return named("relock")->wait.kind == CPROF_WAIT_MUTEX;
}

static void test_relock(void **state)
{
	(void)state;
	run("relock");
	take(NULL, relocks);
	assert_int_equal(named("relock")->wait.kind, CPROF_WAIT_MUTEX);
	assert_int_equal(named("relock")->wait.owner, program);
}

/* --- bad memory ---------------------------------------------------------------------------- */

static void test_spoilt_mutex(void **state)
{
	(void)state;
	run("garbage");
	take(NULL, all_wait);
	assert_int_equal(named("spoilt")->wait.kind, CPROF_WAIT_FUTEX);
	assert_int_equal(named("spoilt")->wait.owner, 0);
	assert_false(named("spoilt")->wait.owner_gone);
	assert_int_not_equal(named("spoilt")->wait.address, 0);
}

static bool is_deep(void)
{
	for (size_t i = 0; i < dump->count; i++)
		if (dump->threads[i].frame_count > CPROF_FRAMES_DUMP)
			return true;
	return false;
}

static void test_deep(void **state)
{
	const struct cprof_dump_thread *thread;
	size_t gaps = 0;

	(void)state;
	run("deep");
	take(NULL, is_deep);
	thread = named("bottom");
	assert_int_equal(thread->frame_count, CPROF_FRAMES_DUMP + 1);
	assert_int_equal(thread->end, CPROF_END_TRUNCATED);
	assert_string_equal(thread->frames[1].function, "descend");
	assert_true(calls(thread, "run_deep"));
	for (size_t i = 0; i < thread->frame_count; i++)
		gaps += thread->frames[i].pc == 0;
	assert_int_equal(gaps, 1);
	assert_non_null(strstr(thread->frames[CPROF_FRAMES_DUMP / 2].function, "frames left out"));
}

/* --- the second chance --------------------------------------------------------------------- */

static size_t better_stacks;

static bool is_same(void *context, size_t thread, const struct cprof_stack *stack)
{
	const struct cprof_dump_thread *before = &dump->threads[thread];
	size_t frame = 0;

	(void)context;
	better_stacks++;
	for (size_t i = 0; i < stack->count; i++, frame++) {
		while (frame < before->frame_count && before->frames[frame].inlined)
			frame++;
		assert_true(frame < before->frame_count);
		assert_int_equal(stack->frames[i].pc, before->frames[frame].pc);
	}
	assert_int_equal(frame, before->frame_count);
	return true;
}

/* libunwind, in its child, finds the stacks that the first way found. */
static void test_retry(void **state)
{
	const struct cprof_modules_options modules_options = {0};
	const struct cprof_snapshot_options options = {0};
	static const size_t threads[] = {1, 2};
	struct cprof_snapshot *snapshot;
	struct cprof_modules *modules;
	struct cprof_space *space;

	(void)state;
	run("pair");
	take(NULL, has_deadlock);
	ok(cprof_snapshot_take(target, &options, &snapshot));
	ok(cprof_modules_create(&modules_options, &modules));
	ok(cprof_space_create(target, modules, &space));
	ok(cprof_space_refresh(space));
	assert_true(cprof_retry_stacks(space, snapshot, threads, 2, is_same, NULL));
	assert_int_equal(better_stacks, 2);
	cprof_space_destroy(space);
	cprof_modules_destroy(modules);
	cprof_snapshot_destroy(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_kinds, stop),
		cmocka_unit_test_teardown(test_filter, stop),
		cmocka_unit_test_teardown(test_deadlocks, stop),
		cmocka_unit_test_teardown(test_circles_live, stop),
		cmocka_unit_test_teardown(test_owner_gone, stop),
		cmocka_unit_test_teardown(test_relock, stop),
		cmocka_unit_test_teardown(test_spoilt_mutex, stop),
		cmocka_unit_test_teardown(test_deep, stop),
		cmocka_unit_test_teardown(test_retry, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

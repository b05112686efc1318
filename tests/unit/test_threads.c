/* SPDX-License-Identifier: MIT
 *
 * Thread dumps of the sample program waits, whose threads are named after what they wait for, and
 * the search for circles on made-up graphs.
 */
#include "../../src/threads/private.h"

#include <cprof/util.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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
	{"timed-mutex", CPROF_WAIT_MUTEX, "main", "mutex in waits", "wait_timed_mutex", true, 1000},
	{"rdlock", CPROF_WAIT_RWLOCK, "main", "rwlock in waits", "wait_rdlock", true, 0},
	{"wrlock", CPROF_WAIT_RWLOCK, "main", "rwlock in waits", "wait_wrlock", true, 0},
	{"readers", CPROF_WAIT_RWLOCK, NULL, ", 1 readers have it", "wait_readers", true, 0},
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

/* Locks made up in this very process. */
static struct cprof_snapshot nothing;
static struct cprof_look look;

static void look_at_self(void)
{
	ok(cprof_target_create(getpid(), &target));
	look = (struct cprof_look){.target = target, .snapshot = &nothing};
}

static int stop_looking(void **state)
{
	free(look.tids);
	look = (struct cprof_look){0};
	return stop(state);
}

static struct cprof_lock lock_at(bool (*read)(struct cprof_look *, enum cprof_libc, uint64_t,
					      struct cprof_lock *),
				 enum cprof_libc libc, const void *word, bool valid)
{
	struct cprof_lock lock = {0};

	assert_int_equal(read(&look, libc, (uint64_t)(uintptr_t)word, &lock), valid);
	return lock;
}

static void test_glibc_mutexes(void **state)
{
	uint32_t me = (uint32_t)getpid();
	/* lock, count, owner, nusers, kind */
	uint32_t mutex[8] = {2, 0, me, 1, 0};
	struct cprof_lock lock;
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	look_at_self();
	lock = lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true);
	assert_int_equal(lock.owner, me);
	assert_int_equal(lock.address, (uintptr_t)mutex);
	mutex[4] = 3 | 256; /* adaptive, elision decided upon */
	assert_int_equal(lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true).owner, me);
	mutex[4] = 4; /* no kind */
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, false);
	mutex[4] = 0;
	mutex[0] = 77; /* no lock word */
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, false);
	mutex[0] = 2;
	mutex[3] = 0; /* nobody uses it */
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, false);
	mutex[3] = 1;
	mutex[2] = 0; /* changing hands */
	assert_int_equal(lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true).owner, 0);
	mutex[2] = 0x3ffffff0; /* nobody's number */
	lock = lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true);
	assert_true(lock.owner_gone);
	mutex[4] = 128; /* shared: the owner may be in another process */
	lock = lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true);
	assert_true(lock.shared && !lock.owner && !lock.owner_gone);
	mutex[2] = UINT32_MAX;
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, false);
	mutex[4] = 32; /* priority inheritance: the word has the tid, and the waiters' bit */
	mutex[2] = me;
	mutex[0] = me | 0x80000000u;
	assert_int_equal(lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, mutex, true).owner, me);
	munmap(page + 4096, 4096);
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, page + 4096 - 8, false);
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, (void *)-8, false);
	lock_at(cprof_owners_mutex, CPROF_LIBC_GLIBC, NULL, false);
	munmap(page, 4096);
}

static void test_musl_mutexes(void **state)
{
	uint32_t me = (uint32_t)getpid();
	uint32_t mutex[8] = {1, me | 0x80000000u}; /* recursive */
	struct cprof_lock lock;

	(void)state;
	look_at_self();
	lock = lock_at(cprof_owners_mutex, CPROF_LIBC_MUSL, mutex + 1, true);
	assert_int_equal(lock.owner, me);
	assert_int_equal(lock.address, (uintptr_t)mutex);
	mutex[0] = 0; /* a normal one tells no owner, whatever is there */
	assert_int_equal(lock_at(cprof_owners_mutex, CPROF_LIBC_MUSL, mutex + 1, true).owner, 0);
	mutex[0] = 64;
	lock_at(cprof_owners_mutex, CPROF_LIBC_MUSL, mutex + 1, false);
}

static void test_rwlocks(void **state)
{
	uint32_t me = (uint32_t)getpid();
	_Alignas(8) uint32_t rwlock[14] = {[0] = 3, [2] = 3, [3] = 3, [6] = me};
	struct cprof_lock lock;

	(void)state;
	look_at_self();
	for (unsigned word = 2; word <= 3; word++) { /* by phase, and a writer among writers */
		lock = lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, rwlock + word, true);
		assert_int_equal(lock.owner, me);
		assert_int_equal(lock.address, (uintptr_t)rwlock);
	}
	rwlock[0] = 5 << 3;
	rwlock[6] = 0;
	lock = lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, rwlock + 2, true);
	assert_int_equal(lock.owner, 0);
	assert_int_equal(lock.readers, 5);
	rwlock[12] = 2; /* prefers writers; readers wait for it at its first word */
	rwlock[0] = 5 << 3 | 4;
	lock = lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, rwlock, true);
	assert_int_equal(lock.address, (uintptr_t)rwlock);
	rwlock[2] = 4;
	lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, rwlock + 2, false);
	lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, rwlock + 3, false);
	lock_at(cprof_owners_rwlock, CPROF_LIBC_GLIBC, NULL, false);
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

/* --- circles in graphs --------------------------------------------------------------------- */

#define NONE CPROF_NO_THREAD

struct circles {
	char text[256];
	size_t limit; /* refuse what comes after so many; 0: never */
	size_t count;
};

static bool note(void *context, const size_t *nodes, size_t length)
{
	struct circles *circles = context;

	for (size_t i = 0; i < length; i++)
		snprintf(circles->text + strlen(circles->text),
			 sizeof(circles->text) - strlen(circles->text), "%s%zu", i ? ">" : "",
			 nodes[i]);
	strcat(circles->text, ";");
	return ++circles->count != circles->limit;
}

static void check_graph(const size_t *next, size_t count, const char *circles)
{
	struct circles found = {0};

	assert_true(cprof_deadlock_circles(next, count, note, &found));
	assert_string_equal(found.text, circles);
}

static void test_graphs(void **state)
{
	static const size_t line[] = {1, 2, 3, NONE};
	static const size_t self[] = {NONE, 1, 1};
	static const size_t pair[] = {1, 0};
	static const size_t tail_first[] = {2, NONE, 3, 4, 2};   /* 0 leads into 2>3>4 */
	static const size_t entered_late[] = {4, 3, 1, 2, NONE}; /* 1>3>2 */
	static const size_t entered_inside[] = {5, 4, 1, NONE, 2, 4, 7, 6};
	struct circles found = {.limit = 1};

	(void)state;
	check_graph(NULL, 0, "");
	check_graph(line, CPROF_COUNT(line), "");
	check_graph(self, CPROF_COUNT(self), "1;");
	check_graph(pair, CPROF_COUNT(pair), "0>1;");
	check_graph(tail_first, CPROF_COUNT(tail_first), "2>3>4;");
	check_graph(entered_late, CPROF_COUNT(entered_late), "1>3>2;");
	check_graph(entered_inside, CPROF_COUNT(entered_inside), "1>4>2;6>7;");
	assert_false(
		cprof_deadlock_circles(entered_inside, CPROF_COUNT(entered_inside), note, &found));
	assert_int_equal(found.count, 1);
}

static void test_big_graph(void **state)
{
	enum { COUNT = 100000 };
	size_t *next = calloc(COUNT, sizeof(*next));
	struct circles found = {0};

	(void)state;
	/* One long way into a circle of two at its end: linear, or this takes for ever. */
	for (size_t i = 0; i < COUNT; i++)
		next[i] = i + 1 < COUNT ? i + 1 : COUNT - 2;
	assert_true(cprof_deadlock_circles(next, COUNT, note, &found));
	assert_string_equal(found.text, "99998>99999;");
	free(next);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_graphs),
		cmocka_unit_test(test_big_graph),
		cmocka_unit_test_teardown(test_kinds, stop),
		cmocka_unit_test_teardown(test_filter, stop),
		cmocka_unit_test_teardown(test_deadlocks, stop),
		cmocka_unit_test_teardown(test_circles_live, stop),
		cmocka_unit_test_teardown(test_owner_gone, stop),
		cmocka_unit_test_teardown(test_relock, stop),
		cmocka_unit_test_teardown(test_spoilt_mutex, stop),
		cmocka_unit_test_teardown(test_glibc_mutexes, stop_looking),
		cmocka_unit_test_teardown(test_musl_mutexes, stop_looking),
		cmocka_unit_test_teardown(test_rwlocks, stop_looking),
		cmocka_unit_test_teardown(test_deep, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

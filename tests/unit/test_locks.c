/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Layouts of locks, on locks made up in this very process; the search for circles on made-up
 * graphs.
 */
#include "../../src/threads/private.h"

#include <cprof/util.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* --- locks --------------------------------------------------------------------------------- */

static struct cprof_target *target;
static struct cprof_snapshot nothing;
static struct cprof_look look;

static void look_at_self(void)
{
	assert_null(cprof_target_create(getpid(), &target));
	look = (struct cprof_look){.target = target, .snapshot = &nothing};
}

static int stop_looking(void **state)
{
	free(look.tids);
	look = (struct cprof_look){0};
	cprof_target_destroy(cprof_take(target));
	(void)state;
	return 0;
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
		cmocka_unit_test_teardown(test_glibc_mutexes, stop_looking),
		cmocka_unit_test_teardown(test_musl_mutexes, stop_looking),
		cmocka_unit_test_teardown(test_rwlocks, stop_looking),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

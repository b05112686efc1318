/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * What is said of a process that ends while it is looked at, and at limits of our own.
 */
#include <cprof/target.h>
#include <cprof/util.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	for (;;)
		pause();
}

static void expect_error(struct cprof_error *error, int status)
{
	assert_non_null(error);
	assert_int_equal(error->status, status);
	cprof_error_destroy(error);
}

static struct cprof_error *ignore(void *context, const struct cprof_mapping *mapping)
{
	(void)context;
	(void)mapping;
	return NULL;
}

static void test_gone(void **state)
{
	pid_t pid = sleeper();
	struct cprof_target *target;
	size_t count;
	pid_t *tids;

	(void)state;
	assert_null(cprof_target_create(pid, &target));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	expect_error(cprof_target_maps(target, ignore, NULL), CPROF_NO_PROCESS);
	expect_error(cprof_target_threads(target, &tids, &count), CPROF_NO_PROCESS);
	assert_false(cprof_target_alive(target));
	cprof_target_destroy(target);
	expect_error(cprof_target_create(pid, &target), CPROF_NO_PROCESS);
}

/* However many descriptors are left: never "no such process" of one that is there. */
static void test_descriptors(void **state)
{
	struct rlimit old;
	struct cprof_target *target;
	int failures = 0;
	bool created = false;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (rlim_t limit = 0; limit < 40 && !created; limit++) {
		struct rlimit few = {limit, old.rlim_max};
		struct cprof_error *error;

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		error = cprof_target_create(getpid(), &target);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		created = !error;
		if (created) {
			cprof_target_destroy(target);
		} else {
			expect_error(error, CPROF_FAILED);
			failures++;
		}
	}
	assert_true(created);
	assert_true(failures > 3);
}

/* Changes with what is mapped executable from files, and with nothing else. */
static void test_code_fingerprint(void **state)
{
	struct cprof_target *target;
	uint64_t before;
	uint64_t now;
	char *pages;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_null(cprof_target_create(getpid(), &target));
	if (!cprof_target_code_fingerprint(target, &before)) {
		cprof_target_destroy(target);
		close(fd);
		skip();
	}
	pages = mmap(NULL, 2 * 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(pages, MAP_FAILED);
	assert_true(cprof_target_code_fingerprint(target, &now));
	assert_int_equal(now, before);
	assert_int_equal(mprotect(pages, 4096, PROT_READ | PROT_EXEC), 0);
	assert_true(cprof_target_code_fingerprint(target, &now));
	assert_int_not_equal(now, before);
	assert_int_equal(munmap(pages, 2 * 4096), 0);
	assert_true(cprof_target_code_fingerprint(target, &now));
	assert_int_equal(now, before);
	close(fd);
	cprof_target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_code_fingerprint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

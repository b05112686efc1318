/* SPDX-License-Identifier: MIT
 *
 * The parts of a remote call that stand between us and a hostile target.
 */
#include "../../attach/remote.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#define TRIES 20000

static int procfd = -1;

static int victim_file(void)
{
	char path[] = "/tmp/cprof-victim.XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	return fd;
}

static void refused(int fd)
{
	int got = cprof_remote_open_memfd(procfd, fd);

	if (got >= 0)
		close(got);
	assert_int_equal(got, -1);
	close(fd);
}

static void test_only_the_agents_memfd(void **state)
{
	int fd = memfd_create(CPROF_AGENT_MEMFD, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int got = cprof_remote_open_memfd(procfd, fd);
	struct stat a;
	struct stat b;

	(void)state;
	assert_true(got >= 0);
	assert_int_equal(fstat(fd, &a), 0);
	assert_int_equal(fstat(got, &b), 0);
	assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	assert_int_equal(fcntl(got, F_GETFL) & O_ACCMODE, O_RDWR);
	close(got);
	/* One that is sealed has been an agent's before, perhaps another process's. */
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	refused(fd);
	refused(memfd_create("something", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	refused(memfd_create(CPROF_AGENT_MEMFD, MFD_CLOEXEC)); /* cannot be sealed */
	refused(victim_file());
	refused(open("/dev/null", O_RDWR | O_CLOEXEC));
	errno = 0;
	assert_int_equal(cprof_remote_open_memfd(procfd, 999), -1);
	assert_int_equal(errno, ENOENT);
}

struct swapper {
	int fd;
	int memfd;
	int victim;
	atomic_bool over;
};

static void *swap(void *context)
{
	struct swapper *swapper = context;

	while (!atomic_load(&swapper->over)) {
		dup2(swapper->victim, swapper->fd);
		dup2(swapper->memfd, swapper->fd);
	}
	return NULL;
}

/* A target that puts another of its files in the memfd's place, one that it may only read, must not
 * have us write there. */
static void test_swapped_descriptor(void **state)
{
	struct swapper swapper = {
		.memfd = memfd_create(CPROF_AGENT_MEMFD, MFD_CLOEXEC | MFD_ALLOW_SEALING),
		.victim = victim_file(),
	};
	struct stat victim;
	pthread_t thread;
	int opened = 0;

	(void)state;
	swapper.fd = dup(swapper.memfd);
	assert_int_equal(fstat(swapper.victim, &victim), 0);
	assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);
	for (int i = 0; i < TRIES; i++) {
		int got = cprof_remote_open_memfd(procfd, swapper.fd);
		struct stat status;

		if (got < 0)
			continue;
		opened++;
		assert_int_equal(fstat(got, &status), 0);
		close(got);
		if (status.st_ino == victim.st_ino && status.st_dev == victim.st_dev) {
			atomic_store(&swapper.over, true);
			pthread_join(thread, NULL);
			fail_msg("the victim was opened for writing, try %d", i);
		}
	}
	atomic_store(&swapper.over, true);
	pthread_join(thread, NULL);
	assert_true(opened > 0);
	close(swapper.fd);
	close(swapper.memfd);
	close(swapper.victim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_the_agents_memfd),
		cmocka_unit_test(test_swapped_descriptor),
	};

	procfd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

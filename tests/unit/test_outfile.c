/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 */
#include <cprof/outfile.h>
#include <cprof/util.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

static char directory[] = "/tmp/cprof-outfile-XXXXXX";

static char *inside(const char *name)
{
	static char paths[4][128];
	static int turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

static int files_in(const char *path)
{
	DIR *dir = opendir(path);
	int count = -2; /* . and .. */

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void assert_content(const char *path, const char *expected)
{
	char *text = cprof_read_file_at(AT_FDCWD, path, 1000, NULL);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void assert_error(struct cprof_error *error, enum cprof_status status, int errnum)
{
	assert_non_null(error);
	assert_int_equal(error->status, status);
	assert_int_equal(error->errnum, errnum);
	cprof_error_destroy(error);
}

static void assert_refused(const char *path, int errnum)
{
	assert_error(cprof_outfile_check(path), CPROF_FAILED, errnum);
	assert_error(cprof_outfile_write(path, "x", 1), CPROF_FAILED, errnum);
}

static int setup(void **state)
{
	(void)state;
	memcpy(directory + sizeof(directory) - 7, "XXXXXX", 6);
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	(void)state;
	while ((entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, entry->d_type == DT_DIR ? AT_REMOVEDIR : 0);
	closedir(dir);
	return rmdir(directory);
}

static void test_replace(void **state)
{
	const char *path = inside("file");
	struct stat status;

	(void)state;
	assert_null(cprof_outfile_check(path));
	assert_int_equal(files_in(directory), 0);
	assert_null(cprof_outfile_write(path, "one", 3));
	assert_content(path, "one");
	assert_null(cprof_outfile_write(path, "two!", 4));
	assert_content(path, "two!");
	assert_int_equal(files_in(directory), 1);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
}

static void test_sudo(void **state)
{
	const char *path = inside("file");
	struct stat status;

	(void)state;
	if (geteuid() != 0)
		skip();
	setenv("SUDO_UID", "1234", 1);
	setenv("SUDO_GID", "2345", 1);
	assert_null(cprof_outfile_write(path, "one", 3));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_uid, 1234);
	assert_int_equal(status.st_gid, 2345);
	setenv("SUDO_UID", "12x", 1);
	assert_null(cprof_outfile_write(path, "one", 3));
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_uid, 0);
	unsetenv("SUDO_UID");
	unsetenv("SUDO_GID");
}

static void test_refused(void **state)
{
	(void)state;
	assert_refused(inside("no/file"), ENOENT);
	assert_refused(directory, EISDIR);
	assert_refused(inside(""), EISDIR);
	assert_null(cprof_outfile_write(inside("file"), "x", 1));
	assert_refused(inside("file/file"), ENOTDIR);
	assert_int_equal(symlink("file", inside("link")), 0);
	assert_refused(inside("link"), 0);
	assert_int_equal(symlink("nowhere", inside("dangling")), 0);
	assert_refused(inside("dangling"), 0);
	assert_refused("/dev/fd/999", EBADF);
	assert_content(inside("file"), "x");
	assert_int_equal(files_in(directory), 3);
}

static void test_direct(void **state)
{
	char path[64];
	int ends[2];
	char buffer[8];

	(void)state;
	assert_null(cprof_outfile_check("/dev/null"));
	assert_null(cprof_outfile_write("/dev/null", "x", 1));
	assert_error(cprof_outfile_write("/dev/full", "x", 1), CPROF_FAILED, ENOSPC);

	assert_int_equal(pipe(ends), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[1]);
	assert_null(cprof_outfile_check(path));
	assert_null(cprof_outfile_write(path, "abc", 3));
	assert_int_equal(read(ends[0], buffer, sizeof(buffer)), 3);
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
	assert_refused(path, EBADF); /* the reading end */
	snprintf(path, sizeof(path), "/dev/fd/%d", ends[1]);
	close(ends[0]);
	/* Would end this process by SIGPIPE. */
	assert_error(cprof_outfile_write(path, "abc", 3), CPROF_FAILED, EPIPE);
	close(ends[1]);
}

static void *read_fifo(void *path)
{
	return cprof_read_file_at(AT_FDCWD, path, 1000, NULL);
}

static void test_fifo(void **state)
{
	char *path = inside("fifo");
	pthread_t reader;
	void *text;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_null(cprof_outfile_check(path));
	assert_int_equal(pthread_create(&reader, NULL, read_fifo, path), 0);
	assert_null(cprof_outfile_write(path, "through", 7));
	assert_int_equal(pthread_join(reader, &text), 0);
	assert_string_equal(text, "through");
	free(text);
}

static void test_size_limit(void **state)
{
	struct rlimit before, small;
	const char *path = inside("file");

	(void)state;
	assert_null(cprof_outfile_write(path, "old", 3));
	getrlimit(RLIMIT_FSIZE, &before);
	small = (struct rlimit){.rlim_cur = 2, .rlim_max = before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &small);
	assert_error(cprof_outfile_write(path, "new", 3), CPROF_FAILED, EFBIG);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_content(path, "old");
	assert_int_equal(files_in(directory), 1);
}

static void test_full_and_read_only(void **state)
{
	static char bytes[256 * 1024];
	const char *path;

	(void)state;
	if (mount("cprof", directory, "tmpfs", 0, "size=64k"))
		skip();
	path = inside("file");
	assert_null(cprof_outfile_write(path, "old", 3));
	assert_error(cprof_outfile_write(path, bytes, sizeof(bytes)), CPROF_FAILED, ENOSPC);
	assert_content(path, "old");
	assert_int_equal(files_in(directory), 1);
	assert_int_equal(mount(NULL, directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_refused(path, EROFS);
	assert_int_equal(umount(directory), 0);
}

static void assert_name(const char *pattern, const struct cprof_outname *name, const char *expected)
{
	char *path = NULL;

	assert_null(cprof_outfile_name(pattern, name, &path));
	assert_string_equal(path, expected);
	free(path);
}

static void test_name(void **state)
{
	struct cprof_outname name = {
		.event = "cpu",
		.comm = "../re dis\x1b",
		.extension = "pb.gz",
		.pid = 812,
		.wall_s = 1700000000,
	};
	char pattern[128], expected[128];
	char *path;

	(void)state;
	assert_name("-", &name, "-");
	assert_name("a%%b", &name, "a%b");
	assert_name("%e/%c/%p/%t", &name, "cpu/___re_dis_/812/1700000000");
	name.comm = "redis";
	assert_int_equal(chdir(directory), 0);
	assert_name(NULL, &name, "redis.812.cpu.001.pb.gz");
	assert_null(cprof_outfile_write("redis.812.cpu.001.pb.gz", "x", 1));
	assert_null(cprof_outfile_write("redis.812.cpu.002.pb.gz", "x", 1));
	assert_name(NULL, &name, "redis.812.cpu.003.pb.gz");
	name.pid = 0; /* a file that does not tell */
	assert_name(NULL, &name, "redis.cpu.001.pb.gz");
	name.pid = 812;
	snprintf(pattern, sizeof(pattern), "%s/redis.%%p.%%e.%%n.pb.gz", directory);
	snprintf(expected, sizeof(expected), "%s/redis.812.cpu.003.pb.gz", directory);
	assert_name(pattern, &name, expected);
	assert_int_equal(chdir("/"), 0);

	assert_error(cprof_outfile_name("", &name, &path), CPROF_USAGE, 0);
	assert_error(cprof_outfile_name("a%x", &name, &path), CPROF_USAGE, 0);
	assert_error(cprof_outfile_name("a%", &name, &path), CPROF_USAGE, 0);
	name.several = true;
	assert_error(cprof_outfile_name("a", &name, &path), CPROF_USAGE, 0);
	assert_error(cprof_outfile_name("a%%e", &name, &path), CPROF_USAGE, 0);
	assert_name("a.%e", &name, "a.cpu");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sudo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fifo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_and_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

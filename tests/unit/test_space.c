/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Address spaces and mapped files of a real process: a child maps, unmaps and maps over on command,
 * with libraries made for it.
 */
#include <cprof/space.h>
#include <cprof/util.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <cmocka.h>

#define PLACE ((char *)0x10000000ull) /* also free under the sanitizers */
#define PAGE  4096ull

struct order { /* from us to the child; it answers with a byte */
	enum { MAP_FILE_AT, MAP_ANONYMOUS_AT, UNMAP } what;
	char path[128];
	uint64_t at; /* pages from PLACE */
	uint64_t pages;
};

static char directory[] = "/tmp/cprof-space.XXXXXX";
static int orders[2];
static int answers[2];
static pid_t child;
static struct cprof_target *target;
static struct cprof_modules *modules;
static struct cprof_space *space;

/* --- the child ----------------------------------------------------------------------------- */

static bool obey(const struct order *order)
{
	char *at = PLACE + order->at * PAGE;
	size_t length = order->pages * PAGE;
	int flags = MAP_PRIVATE | MAP_FIXED;
	CPROF_AUTO_CLOSE int fd = -1;

	if (order->what == UNMAP)
		return munmap(at, length) == 0;
	if (order->what == MAP_ANONYMOUS_AT)
		flags |= MAP_ANONYMOUS;
	else if ((fd = open(order->path, O_RDONLY)) < 0)
		return false;
	return mmap(at, length, PROT_READ | PROT_EXEC, flags, fd, 0) == at;
}

static void serve(void)
{
	struct order order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(orders[0], &order, sizeof(order)) == (ssize_t)sizeof(order)) {
		char answer = obey(&order) ? 'y' : 'n';

		if (write(answers[1], &answer, 1) != 1)
			break;
	}
	_exit(0);
}

static void tell(const struct order *order)
{
	char answer = 0;

	assert_int_equal(write(orders[1], order, sizeof(*order)), sizeof(*order));
	assert_int_equal(read(answers[0], &answer, 1), 1);
	assert_int_equal(answer, 'y');
}

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void map_file(const char *name, uint64_t at, uint64_t pages)
{
	struct order order = {.what = MAP_FILE_AT, .at = at, .pages = pages};

	snprintf(order.path, sizeof(order.path), "%s", path_of(name));
	tell(&order);
}

static void map_anonymous(uint64_t at, uint64_t pages)
{
	tell(&(struct order){.what = MAP_ANONYMOUS_AT, .at = at, .pages = pages});
}

static void unmap(uint64_t at, uint64_t pages)
{
	tell(&(struct order){.what = UNMAP, .at = at, .pages = pages});
}

/* --- around each test ---------------------------------------------------------------------- */

/* A library of one segment: file offset and address are equal. */
static void make_library(const char *name, const char *function)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "cd %s && echo 'int %s(void) { return 1; }' >%s.c && "
		 "cc -g -shared -nostdlib -fPIC -Wl,-N -Wl,--build-id -o %s.new %s.c && "
		 "cat %s.new >%s && rm %s.new",
		 directory, function, name, name, name, name, name, name);
	assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
	(void)state;
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	assert_non_null(mkdtemp(directory));
	make_library("one.so", "function_one");
	make_library("two.so", "function_two");
	assert_int_equal(pipe(orders), 0);
	assert_int_equal(pipe(answers), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		serve();
	assert_null(cprof_target_create(child, &target));
	assert_null(cprof_modules_create(NULL, &modules));
	assert_null(cprof_space_create(target, modules, &space));
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	cprof_space_destroy(space);
	cprof_modules_destroy(modules);
	cprof_target_destroy(target);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (size_t i = 0; i < 2; i++) {
		close(orders[i]);
		close(answers[i]);
	}
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	return system(command);
}

/* --- looking ------------------------------------------------------------------------------- */

static void refresh(void)
{
	assert_null(cprof_space_refresh(space));
}

static const struct cprof_region *region_at(uint64_t page)
{
	return cprof_space_find(space, (uint64_t)(uintptr_t)PLACE + page * PAGE);
}

static uint32_t id_at(uint64_t page)
{
	const struct cprof_region *region = region_at(page);

	return region ? region->id : 0;
}

/* What the code at a page is called: tries every address of it. */
static bool is_named(uint64_t page, const char *name)
{
	const struct cprof_region *region = region_at(page);
	bool found = false;

	for (uint64_t i = 0; i < PAGE && region && region->module && !found; i++) {
		uint64_t address = region->start + i - region->bias;
		struct cprof_names names;

		assert_null(cprof_module_names(region->module, &address, 1, 0, &names));
		found = names.count && strcmp(names.strings + names.names[0].name, name) == 0;
		cprof_names_deinit(&names);
	}
	return found;
}

struct wanted {
	struct cprof_mapping mapping;
	char path[256];
};

static struct cprof_error *keep_mapping(void *context, const struct cprof_mapping *mapping)
{
	struct wanted *wanted = context;

	if (mapping->start == (uint64_t)(uintptr_t)PLACE) {
		wanted->mapping = *mapping;
		snprintf(wanted->path, sizeof(wanted->path), "%s", mapping->path);
		wanted->mapping.path = wanted->path;
	}
	return NULL;
}

/* The mapping at PLACE as procfs tells it. */
static void find_mapping(struct wanted *wanted)
{
	*wanted = (struct wanted){0};
	assert_null(cprof_target_maps(target, keep_mapping, wanted));
	assert_true(wanted->mapping.end != 0);
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_refresh_keeps_and_drops(void **state)
{
	uint32_t first;
	uint32_t second;

	(void)state;
	map_file("one.so", 0, 1);
	map_file("two.so", 8, 1);
	refresh();
	first = id_at(0);
	second = id_at(8);
	assert_true(first && second && first != second);
	assert_true(is_named(0, "function_one"));
	assert_true(is_named(8, "function_two"));

	map_file("two.so", 4, 1);
	refresh();
	assert_int_equal(id_at(0), first);
	assert_int_equal(id_at(8), second);
	assert_true(id_at(4) && id_at(4) != first && id_at(4) != second);
	/* One file is one module, wherever it is. */
	assert_ptr_equal(region_at(4)->module, region_at(8)->module);

	unmap(4, 1);
	unmap(8, 1);
	refresh();
	assert_int_equal(id_at(0), first);
	assert_null(region_at(4));
	assert_null(region_at(8));

	/* Mapped over by something else at the very same place. */
	map_file("two.so", 0, 1);
	refresh();
	assert_true(id_at(0) && id_at(0) != first);
	assert_true(is_named(0, "function_two"));
	assert_false(is_named(0, "function_one"));
	map_anonymous(0, 1);
	refresh();
	assert_int_equal(cprof_module_kind(region_at(0)->module), CPROF_MODULE_JIT);
}

/* A hole makes two regions of one: they are not the same region. */
static void test_holes(void **state)
{
	uint32_t whole;

	(void)state;
	map_anonymous(0, 9);
	refresh();
	whole = id_at(0);
	assert_int_equal(id_at(8), whole);
	assert_null(cprof_space_map(space, &(struct cprof_mapping){
						   .start = (uint64_t)(uintptr_t)PLACE + 4 * PAGE,
						   .end = (uint64_t)(uintptr_t)PLACE + 5 * PAGE,
						   .prot = PROT_READ | PROT_EXEC,
						   .path = "",
					   }));
	assert_int_equal(id_at(3), whole);
	assert_true(id_at(5) && id_at(5) != whole && id_at(4) != whole && id_at(4) != id_at(5));
	assert_int_equal(region_at(5)->start, (uint64_t)(uintptr_t)PLACE + 5 * PAGE);
	assert_int_equal(region_at(5)->end, (uint64_t)(uintptr_t)PLACE + 9 * PAGE);
	unmap(0, 9);
	refresh();
	for (uint64_t page = 0; page < 9; page++)
		assert_null(region_at(page));
}

/* A library built anew in place (same inode), loaded again at the same address. */
static void test_file_written_over(void **state)
{
	struct stat before;
	struct stat after;
	uint32_t id;

	(void)state;
	map_file("one.so", 0, 1);
	refresh();
	id = id_at(0);
	assert_true(is_named(0, "function_one"));
	assert_int_equal(stat(path_of("one.so"), &before), 0);
	unmap(0, 1);
	make_library("one.so", "function_new");
	assert_int_equal(stat(path_of("one.so"), &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	map_file("one.so", 0, 1);
	refresh();
	assert_true(is_named(0, "function_new"));
	assert_false(is_named(0, "function_one"));
	assert_int_not_equal(id_at(0), id);
}

/* What is bound stays bound when the process and its files are gone. */
static void test_after_the_end(void **state)
{
	struct wanted wanted;

	(void)state;
	map_file("one.so", 0, 1);
	refresh();
	assert_non_null(region_at(0)->module);
	find_mapping(&wanted);
	assert_int_equal(unlink(path_of("one.so")), 0);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_null(cprof_space_map(space, &wanted.mapping)); /* told late */
	assert_true(is_named(0, "function_one"));
	cprof_error_destroy(cprof_space_refresh(space));
	assert_true(is_named(0, "function_one"));
}

static bool same_inode(int fd, const struct cprof_mapping *mapping)
{
	struct stat stat;

	return fstat(fd, &stat) == 0 && stat.st_ino == mapping->inode;
}

/* The library's file is gone, or another one stands in its place. */
static void test_deleted_and_replaced(void **state)
{
	bool root = geteuid() == 0;
	struct wanted wanted;
	bool verified;
	int fd;

	(void)state;
	map_file("one.so", 0, 1);
	find_mapping(&wanted);
	fd = cprof_target_open_file(target, &wanted.mapping, &verified);
	assert_true(fd >= 0 && same_inode(fd, &wanted.mapping));
	close(fd);

	snprintf(wanted.path, sizeof(wanted.path), "%s", path_of("two.so"));
	assert_int_equal(rename(wanted.path, path_of("one.so")), 0);
	find_mapping(&wanted); /* "... (deleted)" */
	fd = cprof_target_open_file(target, &wanted.mapping, &verified);
	if (root) { /* map_files leads to the very file */
		assert_true(fd >= 0 && verified && same_inode(fd, &wanted.mapping));
	} else {
		assert_true(fd < 0);
	}
	close(fd);
	refresh();
	assert_int_equal(is_named(0, "function_one"), root);
	assert_false(is_named(0, "function_two"));

	/* As a record would have told it before: by its path, where another file stands now. */
	unmap(0, 1);
	wanted.mapping.path = path_of("one.so");
	fd = cprof_target_open_file(target, &wanted.mapping, &verified);
	assert_true(fd < 0 || !verified);
	close(fd);
	assert_null(cprof_space_map(space, &wanted.mapping));
	assert_false(is_named(0, "function_two"));
	unlink(path_of("one.so"));
	assert_int_equal(cprof_target_open_file(target, &wanted.mapping, &verified), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refresh_keeps_and_drops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_written_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_after_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deleted_and_replaced, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Every screen of the live view on a made-up process, against pictures in tests/golden/view. With
 * CPROF_GOLDEN=update in the environment the pictures are written anew, to be looked at.
 */
#include "view_fake.h"

#include <sys/stat.h>

static const char *const folders[] = {"tests/golden/view", "golden/view"};

static const char *golden_path(const char *name)
{
	static char path[256];

	for (size_t i = 0; i < CPROF_COUNT(folders); i++) {
		if (access(folders[i], F_OK))
			continue;
		snprintf(path, sizeof(path), "%s/%s.txt", folders[i], name);
		return path;
	}
	fail_msg("run from the root of the sources");
	return NULL;
}

static void assert_golden(const char *name, const char *picture)
{
	const char *path = golden_path(name), *update = getenv("CPROF_GOLDEN");
	CPROF_AUTO_FREE char *expected = NULL;
	FILE *out;

	if (update && !strcmp(update, "update")) {
		out = fopen(path, "w");
		assert_non_null(out);
		fputs(picture, out);
		assert_int_equal(fclose(out), 0);
		return;
	}
	expected = cprof_read_file_at(AT_FDCWD, path, 1 << 20, NULL);
	if (!expected || strcmp(expected, picture) != 0)
		print_error("%s: expected\n%s\ngot\n%s\n", name, expected ? expected : "nothing",
			    picture);
	assert_true(expected && !strcmp(expected, picture));
}

struct screen {
	const char *name;
	int columns;
	int rows;
	const char *keys;
};

static void assert_screens(struct fake start, const struct screen *screens, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct fake fake = start;
		char *picture = fake_picture(&fake.base, NULL, screens[i].columns, screens[i].rows,
					     screens[i].keys);

		assert_golden(screens[i].name, picture);
		free(picture);
	}
}

static void test_views(void **state)
{
	static const struct screen screens[] = {
		{"cpu", 80, 24, ""},
		{"cpu-wide", 132, 30, ""},
		{"cpu-sorted", 80, 24, "s"},
		{"cpu-samples", 80, 24, "i"},
		{"peek", 80, 24, "\\d\\n"},
		{"peek-walk", 80, 24, "\\d\\n\\u\\n"},
		{"flame", 100, 24, "f"},
		{"flame-zoom", 100, 24, "f\\d\\d\\d\\r\\n"},
		{"source", 100, 24, "l"},
		{"code", 100, 24, "a"},
		{"filter", 80, 24, "/insert\\n"},
		{"filter-open", 80, 24, "/ins"},
		{"filter-wrong", 80, 24, "/ins("},
		{"filter-nothing", 80, 24, "/nowhere\\n"},
		{"thread-choice", 80, 24, "t"},
		{"thread-one", 80, 24, "t\\d\\d\\n"},
		{"heap-off", 80, 24, "2"},
		{"heap", 100, 24, "2\\n"},
		{"mutex-off", 80, 24, "3"},
		{"mutex", 80, 24, "3\\n"},
		{"block", 80, 24, "4"},
		{"threads", 100, 24, "5"},
		{"stack", 80, 24, "5\\d\\d\\n"},
		{"memtrace", 100, 24, "6"},
		{"frozen", 80, 24, " "},
		{"window", 80, 24, "+++"},
		{"help", 80, 24, "?"},
		{"help-more", 80, 24, "?\\D"},
	};

	(void)state;
	setenv("LC_ALL", "C.UTF-8", 1);
	assert_screens(fake_source(), screens, CPROF_COUNT(screens));
}

static void test_ascii(void **state)
{
	static const struct screen screens[] = {
		{"ascii-cpu", 80, 24, ""},
		{"ascii-flame", 80, 24, "f"},
		{"ascii-peek", 80, 24, "\\n"},
	};

	(void)state;
	setenv("LC_ALL", "C", 1);
	assert_screens(fake_source(), screens, CPROF_COUNT(screens));
	setenv("LC_ALL", "C.UTF-8", 1);
}

static void test_special(void **state)
{
	static const struct screen hostile[] = {
		{"hostile-cpu", 80, 24, ""},
		{"hostile-flame", 80, 24, "f"},
		{"hostile-thread", 80, 24, "t"},
		{"hostile-source", 80, 24, "\\d\\dl"},
	};
	static const struct screen ended[] = {{"ended", 80, 24, ""}};
	static const struct screen empty[] = {{"empty-cpu", 80, 24, ""},
					      {"empty-flame", 80, 24, "f"}};
	static const struct screen refused[] = {{"refused", 100, 24, "2\\n"}};
	struct fake fake = fake_source();

	(void)state;
	fake.hostile = true;
	assert_screens(fake, hostile, CPROF_COUNT(hostile));
	fake = fake_source();
	fake.ended = true;
	assert_screens(fake, ended, CPROF_COUNT(ended));
	fake = fake_source();
	fake.empty = true;
	assert_screens(fake, empty, CPROF_COUNT(empty));
	fake = fake_source();
	fake.refuse = true;
	assert_screens(fake, refused, CPROF_COUNT(refused));
}

static struct cprof_source *saved_source(const char *kind)
{
	const struct fake_names names = {"shop::insert(unsigned int)", "shop::render()",
					 "worker-north"};
	struct cprof_source *source;

	assert_null(cprof_source_create_saved(fake_profile(kind, &names, false), &source));
	return source;
}

static void test_saved(void **state)
{
	static const struct {
		const char *kind;
		struct screen screen;
	} screens[] = {
		{"cpu", {"saved-cpu", 80, 24, ""}},       {"cpu", {"saved-threads", 80, 24, "5"}},
		{"cpu", {"saved-stack", 80, 24, "5\\n"}}, {"cpu", {"saved-absent", 80, 24, "2"}},
		{"heap", {"saved-heap", 120, 24, ""}},    {"mutex", {"saved-block", 80, 24, ""}},
	};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(screens); i++) {
		struct cprof_source *source = saved_source(screens[i].kind);
		char *picture = fake_picture(source, "shop.pb.gz", screens[i].screen.columns,
					     screens[i].screen.rows, screens[i].screen.keys);

		assert_golden(screens[i].screen.name, picture);
		free(picture);
		cprof_source_destroy(source);
	}
}

/* No size and no key does harm: all of them after one another, at every size. */
static void test_all_keys(void **state)
{
	static const char keys[] =
		"\\n\\ef\\d\\d\\r\\l\\n\\e\\el\\d\\D\\r\\ea\\e/x\\b(\\e/r\\nnN\\e"
		"t\\d\\n\\esSsii+-= bB2\\nr\\e3\\n4f\\e5\\n\\e6\\u\\d\\h\\E"
		"\\t\\T?\\d\\D\\e1kjgG";
	static const int sizes[][2] = {{1, 1},  {2, 1},   {1, 2},   {3, 7},    {10, 3},
				       {17, 6}, {40, 12}, {80, 24}, {200, 50}, {1000, 300}};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(sizes); i++) {
		struct fake fake = fake_source();
		char *picture;

		fake.hostile = i & 1;
		fake.empty = i % 3 == 1;
		picture = fake_picture(&fake.base, NULL, sizes[i][0], sizes[i][1], keys);
		assert_non_null(picture);
		for (const char *c = picture; *c; c++)
			assert_true((unsigned char)*c >= ' ' || *c == '\n');
		free(picture);
		assert_false(fake.destroyed);
	}
}

static void test_window_and_freeze(void **state)
{
	struct fake fake = fake_source();
	unsigned windows;

	(void)state;
	free(fake_picture(&fake.base, NULL, 80, 24, "-"));
	assert_int_equal(fake.window_ns, 5000000000);
	fake = fake_source();
	free(fake_picture(&fake.base, NULL, 80, 24, "++++"));
	assert_int_equal(fake.window_ns, 0);
	/* What is frozen is not asked for again, whatever is made of it. */
	fake = fake_source();
	free(fake_picture(&fake.base, NULL, 80, 24, " "));
	windows = fake.windows;
	fake = fake_source();
	free(fake_picture(&fake.base, NULL, 80, 24, " sf\\d\\n\\e\\e/work\\n"));
	assert_true(fake.windows <= windows + 1);
}

static void test_baseline(void **state)
{
	struct fake fake = fake_source();
	char *picture = fake_picture(&fake.base, NULL, 80, 24, "b");

	(void)state;
	assert_non_null(strstr(picture, "DIFFERENCE to "));
	assert_non_null(strstr(picture, "no difference to the baseline"));
	free(picture);
	fake = fake_source();
	picture = fake_picture(&fake.base, NULL, 80, 24, "bB");
	assert_null(strstr(picture, "DIFFERENCE"));
	assert_non_null(strstr(picture, "copy_bytes"));
	free(picture);
}

/* What is said where there is nothing to be had. */
static void test_nothing_there(void **state)
{
	static const int64_t one[] = {1, 1};
	const struct fake_names names = {"work()", "render()", "north"};
	struct cprof_profile *profile = fake_profile("cpu", &names, true);
	struct fake fake = fake_source();
	struct cprof_source *source;
	char *picture;

	(void)state;
	fake.ended = true;
	picture = fake_picture(&fake.base, NULL, 80, 24, "d");
	assert_non_null(strstr(picture, "! no thread dump: the process has ended"));
	free(picture);
	/* However small: how to start it. */
	fake = fake_source();
	fake.refuse = true;
	picture = fake_picture(&fake.base, NULL, 80, 12, "2\\n");
	assert_non_null(strstr(picture, "Enter attaches the agent"));
	free(picture);
	/* What is long takes two rows. */
	fake = fake_source();
	fake.refuse = true;
	picture = fake_picture(&fake.base, NULL, 40, 14, "2\\n");
	assert_non_null(
		strstr(picture, "\n! process 812: it is traced by 77 (end\nthat one first)\n"));
	free(picture);
	/* As in Go's profile of who creates threads. */
	profile->types[0].type = profile->types[1].type =
		cprof_profile_string(profile, "threadcreate");
	cprof_profile_add(profile, cprof_profile_stack(profile, NULL, 0), 0, one);
	assert_null(cprof_source_create_saved(profile, &source));
	picture = fake_picture(source, "shop.pb.gz", 80, 24, "");
	assert_non_null(strstr(picture, "the samples have no stacks"));
	assert_non_null(strstr(picture, "[1 Profile]"));
	free(picture);
	cprof_source_destroy(source);
}

static void test_usage(void **state)
{
	struct cprof_view_config config = {.rows = 24, .columns = 80, .keys = "\\q"};
	struct cprof_error *error = cprof_view_check(&config);

	(void)state;
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_USAGE);
	cprof_error_destroy(error);
	config = (struct cprof_view_config){.keys = "x"};
	error = cprof_view_check(&config);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_USAGE);
	cprof_error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_views),    cmocka_unit_test(test_ascii),
		cmocka_unit_test(test_special),  cmocka_unit_test(test_saved),
		cmocka_unit_test(test_all_keys), cmocka_unit_test(test_window_and_freeze),
		cmocka_unit_test(test_baseline), cmocka_unit_test(test_nothing_there),
		cmocka_unit_test(test_usage),
	};

	setenv("TZ", "UTC", 1);
	setenv("LC_ALL", "C.UTF-8", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

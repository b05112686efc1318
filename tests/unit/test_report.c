/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Reports on made-up profiles: fixed ones against text known to be right, random ones against
 * `go tool pprof`, where it is installed.
 */
#include <cprof/pprof.h>
#include <cprof/report.h>
#include <cprof/util.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint32_t function_of(struct cprof_profile *p, const char *name, const char *file)
{
	return cprof_profile_function(p, &(struct cprof_profile_function){
						 .name = cprof_profile_string(p, name),
						 .system_name = cprof_profile_string(p, name),
						 .file = cprof_profile_string(p, file),
					 });
}

static uint32_t frame(struct cprof_profile *p, uint64_t address, const char *name, int64_t line)
{
	const struct cprof_profile_line lines = {function_of(p, name, "src/../src//x.c"), line};

	return cprof_profile_location_with(p, 1, address, &lines, 1, false);
}

/* main -> work -> leaf (inlined into work); main -> work -> work; main -> "tiny". */
static struct cprof_profile *example(void)
{
	struct cprof_profile *p;
	uint32_t main_frame, work, inlined, tiny;
	struct cprof_profile_line lines[2];

	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "samples", "count");
	cprof_profile_add_type(p, "cpu", "nanoseconds");
	cprof_profile_mapping(
		p, &(struct cprof_profile_mapping){.file = cprof_profile_string(p, "/usr/bin/prog"),
						   .build_id = cprof_profile_string(p, "beef")});
	p->time_ns = 1700000000ll * 1000000000;
	p->duration_ns = 10ll * 1000000000;
	cprof_profile_add_comment(p, "a comment\x1b");
	cprof_profile_add_comment(p, "#hidden");
	main_frame = frame(p, 0x100, "main", 5);
	work = frame(p, 0x200, "work\x1b[2J", 7);
	tiny = frame(p, 0x300, "tiny", 9);
	lines[0] = (struct cprof_profile_line){function_of(p, "leaf", "x.c"), 3};
	lines[1] = (struct cprof_profile_line){function_of(p, "work\x1b[2J", "x.c"), 8};
	inlined = cprof_profile_location_with(p, 1, 0x210, lines, 2, false);
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){inlined, main_frame}, 2), 0,
			  (int64_t[]){3, 3000000000});
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){work, work, main_frame}, 3), 0,
			  (int64_t[]){1, 1000000000});
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){tiny, main_frame}, 2), 0,
			  (int64_t[]){1, 1000000});
	return p;
}

static char *top_of(const struct cprof_profile *p, const struct cprof_report_options *options)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_null(cprof_report_top(p, options, out));
	fclose(out);
	return text;
}

static void assert_top(const struct cprof_profile *p, const struct cprof_report_options *options,
		       const char *expected)
{
	char *text = top_of(p, options);

	assert_string_equal(text, expected);
	free(text);
}

#define HEADER                                                                                     \
	"File: prog\nBuild ID: beef\na comment?\nType: cpu\n"                                      \
	"Time: Nov 14, 2023 at 10:13pm (UTC)\n"                                                    \
	"Duration: 10s, Total samples = 4s (40.01%)\n"
#define COLUMNS "      flat  flat%   sum%        cum   cum%\n"

static void test_top(void **state)
{
	struct cprof_profile *p = example();

	(void)state;
	assert_top(p, &(struct cprof_report_options){0},
		   HEADER "Showing nodes accounting for 4s, 100% of 4s total\n"
			  "Dropped 1 node (cum <= 0.02s)\n" COLUMNS
			  "        3s 74.98% 74.98%         3s 74.98%  leaf (inline)\n"
			  "        1s 24.99%   100%         4s   100%  work?[2J\n"
			  "         0     0%   100%         4s   100%  main\n");
	cprof_profile_destroy(p);
}

static void test_top_choices(void **state)
{
	struct cprof_profile *p = example();
	char *text;

	(void)state;
	assert_top(p, &(struct cprof_report_options){.sample_index = "samples", .cum = true},
		   "File: prog\nBuild ID: beef\na comment?\nType: samples\n"
		   "Time: Nov 14, 2023 at 10:13pm (UTC)\n"
		   "Duration: 10s, Total samples = 5 \n"
		   "Showing nodes accounting for 5, 100% of 5 total\n" COLUMNS
		   "         0     0%     0%          5   100%  main\n"
		   "         1 20.00% 20.00%          4 80.00%  work?[2J\n"
		   "         3 60.00% 80.00%          3 60.00%  leaf (inline)\n"
		   "         1 20.00%   100%          1 20.00%  tiny\n");
	text = top_of(p, &(struct cprof_report_options){.count = 1});
	assert_non_null(strstr(text, "Showing top 1 nodes out of 3\n"));
	free(text);
	text = top_of(p, &(struct cprof_report_options){.count = -1});
	assert_null(strstr(text, "Dropped"));
	assert_non_null(strstr(text, "  tiny\n"));
	free(text);
	text = top_of(p, &(struct cprof_report_options){.by = CPROF_BY_LINE});
	assert_non_null(strstr(text, "  work?[2J src/x.c:7\n"));
	assert_non_null(strstr(text, "  leaf x.c:3 (inline)\n"));
	free(text);
	text = top_of(p, &(struct cprof_report_options){.by = CPROF_BY_ADDRESS});
	assert_non_null(strstr(text, "  0000000000000100 main src/x.c:5\n"));
	free(text);
	text = top_of(p, &(struct cprof_report_options){.focus = "^le", .ignore = "tiny"});
	assert_non_null(strstr(text, "Active filters:\n   focus=^le\n   ignore=tiny\n"));
	assert_non_null(strstr(text, "accounting for 3s, 74.98% of 4s total"));
	free(text);
	text = top_of(p, &(struct cprof_report_options){.ignore = "main"});
	assert_non_null(strstr(text, "accounting for 0, 0% of 4s total\n" COLUMNS));
	free(text);
	cprof_profile_destroy(p);
}

static void assert_usage(const struct cprof_profile *p, struct cprof_report_options options,
			 const char *message)
{
	FILE *out = fopen("/dev/null", "w");
	struct cprof_error *error = cprof_report_top(p, &options, out);

	assert_non_null(error);
	assert_int_equal(error->status, CPROF_USAGE);
	assert_non_null(strstr(error->message, message));
	cprof_error_destroy(error);
	fclose(out);
}

static void test_usage(void **state)
{
	struct cprof_profile *p = example();

	(void)state;
	assert_usage(p, (struct cprof_report_options){.focus = "a("}, "--focus a(");
	assert_usage(p, (struct cprof_report_options){.ignore = "["}, "--ignore [");
	assert_usage(p, (struct cprof_report_options){.sample_index = "heap"},
		     "--sample-index heap");
	assert_usage(p, (struct cprof_report_options){.sample_index = "2"}, "--sample-index 2");
	cprof_profile_destroy(p);
}

static void test_folded(void **state)
{
	struct cprof_profile *p = example();
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	(void)state;
	assert_null(cprof_report_folded(p, &(struct cprof_report_options){0}, out));
	fclose(out);
	assert_string_equal(text, "main;work?[2J;leaf 3000000000\n"
				  "main;work?[2J;work?[2J 1000000000\n"
				  "main;tiny 1000000\n");
	free(text);
	cprof_profile_destroy(p);
}

static void test_json(void **state)
{
	struct cprof_profile *p = example();
	struct cprof_profile_label label = {.key = cprof_profile_string(p, "tid"), .number = 77};
	uint32_t stack =
		cprof_profile_stack(p, (uint32_t[]){cprof_profile_marker(p, "[trunc\xff]")}, 1);
	json_t *root, *types, *samples, *frames, *leaf;
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	(void)state;
	cprof_profile_add(p, stack, cprof_profile_labels(p, &label, 1), (int64_t[]){-1, 2});
	assert_null(cprof_report_json(p, out));
	fclose(out);
	root = json_loads(text, 0, NULL);
	assert_non_null(root);
	types = json_object_get(root, "types");
	assert_int_equal(json_array_size(types), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(types, 1), "unit")),
			    "nanoseconds");
	samples = json_object_get(root, "samples");
	assert_int_equal(json_array_size(samples), 4);
	frames = json_object_get(json_array_get(samples, 0), "frames");
	assert_int_equal(json_array_size(frames), 3);
	leaf = json_array_get(frames, 0);
	assert_string_equal(json_string_value(json_object_get(leaf, "function")), "leaf");
	assert_string_equal(json_string_value(json_object_get(leaf, "pc")), "0x210");
	assert_string_equal(json_string_value(json_object_get(leaf, "module")), "/usr/bin/prog");
	assert_int_equal(json_integer_value(json_object_get(leaf, "line")), 3);
	assert_true(json_is_true(json_object_get(leaf, "inlined")));
	assert_true(json_is_false(json_object_get(json_array_get(frames, 1), "inlined")));
	leaf = json_array_get(samples, 3);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(leaf, "labels"), "tid")), 77);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(leaf, "values"), 0)),
			 -1);
	leaf = json_array_get(json_object_get(leaf, "frames"), 0);
	assert_string_equal(json_string_value(json_object_get(leaf, "function")), "[trunc?]");
	json_decref(root);
	free(text);
	cprof_profile_destroy(p);
}

static unsigned random_seed;

static unsigned random_below(unsigned limit)
{
	return (unsigned)rand_r(&random_seed) % limit;
}

/* Stacks with recursion, inlining, unnamed code and values of all sizes and signs. */
static struct cprof_profile *random_profile(unsigned seed)
{
	static const char *const units[][2] = {
		{"cpu", "nanoseconds"}, {"space", "bytes"},         {"objects", "count"},
		{"delay", "Seconds"},   {"weight", "microseconds"}, {"odd", "widgets"},
	};
	struct cprof_profile *p;
	bool negative;
	unsigned functions, size;

	random_seed = seed;
	negative = random_below(4) == 0;
	functions = 3 + random_below(120);
	size = 1 + random_below(36);
	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, units[seed % 6][0], units[seed % 6][1]);
	for (int i = 0; i < 3; i++) {
		char name[32];

		snprintf(name, sizeof(name), "/opt/lib/module%d.so", i);
		cprof_profile_mapping(
			p, &(struct cprof_profile_mapping){.start = 0x10000u * (unsigned)(i + 1),
							   .limit = 0x10000u * (unsigned)(i + 2),
							   .file = cprof_profile_string(p, name),
							   .has_functions = true});
	}
	if (random_below(2)) {
		p->duration_ns = 1 + (int64_t)random_below(1000000) * 100000;
		p->time_ns = 1600000000ll * 1000000000 + random_below(1000000000);
	}
	if (random_below(3) == 0) {
		p->drop_frames = cprof_profile_string(p, "function.[02468]|function1");
		if (random_below(2))
			p->keep_frames = cprof_profile_string(p, "function1.*");
	}
	for (unsigned i = 0; i < 1 + random_below(400); i++) {
		uint32_t stack[24];
		unsigned depth = 1 + random_below(CPROF_COUNT(stack));
		int64_t value = (int64_t)random_below(1000) << random_below(size);

		for (unsigned j = 0; j < depth; j++) {
			unsigned module = random_below(3);
			uint64_t address = 0x10000 * (module + 1) + random_below(0x400);
			struct cprof_profile_line lines[3];
			unsigned count = random_below(12) ? 1 + random_below(10) / 8 : 0;

			for (unsigned k = 0; k < count; k++) {
				char name[32], file[32];
				unsigned which = random_below(functions) * random_below(functions) /
						 functions;

				snprintf(name, sizeof(name), "function%u", which);
				snprintf(file, sizeof(file), "./dir%u/f.c", which % 5);
				lines[k] = (struct cprof_profile_line){function_of(p, name, file),
								       random_below(4)};
			}
			stack[j] = cprof_profile_location_with(p, module + 1, address, lines, count,
							       false);
		}
		cprof_profile_add(p, cprof_profile_stack(p, stack, depth), 0,
				  (int64_t[]){negative && random_below(3) == 0 ? -value : value});
	}
	return p;
}

static char *output_of(const char *command)
{
	FILE *pipe = popen(command, "re");
	char *text = NULL;
	size_t capacity = 0, length = 0, got;

	assert_non_null(pipe);
	do {
		assert_true(cprof_grow(&text, &capacity, length + 4096, 1));
		got = fread(text + length, 1, 4095, pipe);
		length += got;
	} while (got);
	text[length] = '\0';
	pclose(pipe);
	return text;
}

static void compare_with_pprof(const struct cprof_profile *p, const char *path, unsigned choice)
{
	static const char *const granularity[] = {"functions", "lines", "addresses"};
	struct cprof_report_options options = {
		.by = (enum cprof_report_by)(choice % 3),
		.cum = choice & 1,
		.count = choice % 5 == 4 ? 9 : 0,
		.focus = choice % 7 == 6 ? "function1|dir3" : NULL,
		.ignore = choice % 11 == 10 ? "function2$" : NULL,
	};
	char command[512];
	char *ours, *theirs;

	snprintf(command, sizeof(command),
		 "go tool pprof -symbolize=none -top -%s %s -nodecount=%d -focus='%s' "
		 "-ignore='%s' %s 2>/dev/null",
		 granularity[options.by], options.cum ? "-cum" : "-flat", options.count,
		 options.focus ? options.focus : "", options.ignore ? options.ignore : "", path);
	theirs = output_of(command);
	ours = top_of(p, &options);
	if (strcmp(ours, theirs) != 0)
		print_error("%s\n", command);
	assert_string_equal(ours, theirs);
	free(ours);
	free(theirs);
}

static void test_against_pprof(void **state)
{
	char path[] = "/tmp/cprof-report-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	if (system("go tool pprof -help >/dev/null 2>&1") != 0) {
		unlink(path);
		skip();
	}
	for (unsigned seed = 1; seed <= 60; seed++) {
		struct cprof_profile *p = random_profile(seed);
		void *bytes;
		size_t length;

		assert_null(cprof_pprof_encode(p, &bytes, &length));
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, bytes, length, 0), length);
		for (unsigned i = 0; i < 3; i++)
			compare_with_pprof(p, path, seed + i * 7);
		free(bytes);
		cprof_profile_destroy(p);
	}
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_top),   cmocka_unit_test(test_top_choices),
		cmocka_unit_test(test_usage), cmocka_unit_test(test_folded),
		cmocka_unit_test(test_json),  cmocka_unit_test(test_against_pprof),
	};

	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

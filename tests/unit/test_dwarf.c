/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Functions, inlined functions and lines, judged by addr2line at every few bytes of code, for
 * several compilers, DWARF versions and ways of keeping debug information.
 */
#include "sample.h"

#define ANSWER_MAX 65536
#define CODE_MAX   16384 /* bytes of the sample that are compared */

/* Path as addr2line and we can be expected to agree on: its last part. */
static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Appends "function file:line\n". addr2line has clones by the symbol (foo.cold), and for code
 * without lines the source file of the symbol table. */
static void append(char *text, const char *function, const char *file, unsigned line)
{
	size_t length = strlen(text);

	assert_true(length < ANSWER_MAX - 4096);
	snprintf(text + length, ANSWER_MAX - length, "%.*s %s:%u\n", (int)strcspn(function, "."),
		 function, line ? file : "??", line);
}

static void our_answer(const struct cprof_names *names, size_t index, char *text)
{
	text[0] = '\0';
	for (uint32_t i = names->first[index]; i < names->first[index + 1]; i++) {
		const struct cprof_name *name = &names->names[i];
		const char *mangled = names->strings + name->system_name;
		const char *file = base_name(names->strings + name->file);

		assert_int_equal(name->inlined, i + 1 < names->first[index + 1]);
		append(text,
		       mangled[0] == '_' && mangled[1] == 'Z' ? mangled
							      : names->strings + name->name,
		       file[0] ? file : "??", name->line);
	}
	if (!text[0])
		append(text, "??", "??", 0);
}

/* Reads addr2line's "function\nfile:line\n" up to the next address. */
static void their_answer(FILE *pipe, char *line, size_t size, char *text)
{
	char function[2048];

	text[0] = '\0';
	while (fgets(line, (int)size, pipe) && strncmp(line, "0x", 2) != 0) {
		char *colon;

		line[strcspn(line, "\n")] = '\0';
		snprintf(function, sizeof(function), "%s", line);
		assert_non_null(fgets(line, (int)size, pipe));
		colon = strrchr(line, ':');
		assert_non_null(colon);
		*colon = '\0';
		append(text, function, base_name(line), (unsigned)strtoul(colon + 1, NULL, 10));
	}
}

/* What follows the function's name, which may have blanks, in the first line. */
static const char *after_name(const char *text)
{
	const char *end = strchr(text, '\n');

	while (end > text && *end != ' ')
		end--;
	return end;
}

/* One deviation is addr2line's: at times it gives the innermost function the name of the
 * outermost. */
static void compare(const char *ours, const char *theirs)
{
	const char *rest = after_name(ours);
	const char *their_rest = after_name(theirs);
	const char *outermost = theirs + strlen(theirs) - 1;

	while (outermost > theirs && outermost[-1] != '\n')
		outermost--;
	if (outermost != theirs && strcmp(rest, their_rest) == 0 &&
	    strncmp(theirs, outermost, (size_t)(their_rest - theirs) + 1) == 0)
		return;
	assert_string_equal(ours, theirs);
}

/* The addresses of the sample's own functions, every byte; the caller frees. */
static uint64_t *own_code(const char *name, size_t *count)
{
	uint64_t *addresses = calloc(CODE_MAX, sizeof(*addresses));
	char command[512];
	char line[512];
	FILE *pipe;

	snprintf(command, sizeof(command), "nm -S %s | grep -E ' [tTwW] (main|plain_c|_Z.*)$'",
		 sample_path(name));
	pipe = popen(command, "r");
	*count = 0;
	while (fgets(line, sizeof(line), pipe)) {
		unsigned long long start;
		unsigned long long size;

		if (sscanf(line, "%llx %llx", &start, &size) != 2 || start < 16)
			continue;
		for (uint64_t i = 0; i < size && *count < CODE_MAX; i++)
			addresses[(*count)++] = start + i;
	}
	pclose(pipe);
	assert_true(*count > 300);
	return addresses;
}

static const char addr2line[] = "addr2line -a -i -f -e";
/* Where addr2line is no judge: it loses inlined functions of clang's DWARF 5 and with type units,
 * and the file with LTO. */
static const char llvm_symbolizer[] = "llvm-symbolizer --no-demangle --addresses --inlines "
				      "--functions=linkage --output-style=GNU -e";

/* Compares `image` with what the judge says of a file; returns how many addresses had inlined
 * functions. */
static size_t judge(struct cprof_image *image, const char *judged_name, const char *command_line)
{
	char *ours = malloc(ANSWER_MAX);
	char *theirs = malloc(ANSWER_MAX);
	struct cprof_names names;
	uint64_t *addresses;
	size_t count;
	size_t inlined = 0;
	char command[1024];
	char line[2048];
	FILE *list = fopen(sample_path("addresses"), "w");
	FILE *pipe;

	addresses = own_code(judged_name, &count);
	for (size_t i = 0; i < count; i++)
		fprintf(list, "0x%lx\n", addresses[i]);
	assert_int_equal(fclose(list), 0);
	assert_null(cprof_image_names(image, addresses, count, 0, &names));

	snprintf(command, sizeof(command), "cd %s && %s %s <addresses", sample_directory,
		 command_line, judged_name);
	pipe = popen(command, "r");
	assert_non_null(fgets(line, sizeof(line), pipe));
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(strtoull(line, NULL, 16), addresses[i]);
		their_answer(pipe, line, sizeof(line), theirs);
		our_answer(&names, i, ours);
		inlined += names.first[i + 1] - names.first[i] > 1;
		compare(ours, theirs);
	}
	assert_int_equal(pclose(pipe), 0);
	cprof_names_deinit(&names);
	free(addresses);
	free(theirs);
	free(ours);
	return inlined;
}

static void check(const char *how, const char *judge_name)
{
	struct cprof_image *image;

	print_message("%s\n", how);
	sample_run("%s -o judged sample.cc", how);
	image = sample_image("judged");
	assert_true(judge(image, "judged", judge_name) > 10);
	cprof_image_destroy(image);
}

static void test_gcc(void **state)
{
	(void)state;
	check("c++ -g -O2", addr2line);
	check("c++ -gdwarf-4 -O1 -no-pie", addr2line);
	check("c++ -g -O2 -ffunction-sections -Wl,--gc-sections -static-pie", addr2line);
	check("c++ -g -O2 -Wl,-z,noseparate-code", addr2line);
}

static void test_compressed_sections(void **state)
{
	static const char *const kinds[] = {"zlib", "zlib-gnu"};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(kinds); i++) {
		struct cprof_image *image;

		sample_run("c++ -g -O2 -o full sample.cc && "
			   "objcopy --compress-debug-sections=%s full packed",
			   kinds[i]);
		image = sample_image("packed");
		assert_true(judge(image, "full", addr2line) > 10);
		cprof_image_destroy(image);
	}
}

/* No helper is there, but the answers are. */
static void test_unpacking_held_back(void **state)
{
	struct cprof_image *image;

	(void)state;
	sample_run("c++ -g -O2 -o full sample.cc && objcopy --compress-debug-sections full packed");
	cprof_image_hold_back();
	image = sample_image("packed");
	assert_true(judge(image, "full", addr2line) > 10);
	cprof_image_go_on();
	cprof_image_destroy(image);
}

static void test_clang_and_lto(void **state)
{
	(void)state;
	if (!sample_try("command -v clang++ llvm-symbolizer >/dev/null"))
		skip();
	check("c++ -g -O2 -flto", llvm_symbolizer);
	check("c++ -g -O2 -fdebug-types-section", llvm_symbolizer);
	check("clang++ -gdwarf-4 -O2 -fno-debug-macro", llvm_symbolizer);
	check("clang++ -gdwarf-5 -O2", llvm_symbolizer);
	check("clang++ -gline-tables-only -O2 -fdebug-info-for-profiling", llvm_symbolizer);
	if (sample_try("command -v ld.lld >/dev/null"))
		check("clang++ -g -O2 -fuse-ld=lld -flto", llvm_symbolizer);
}

static void test_separate_debug_file(void **state)
{
	struct cprof_image *image;

	(void)state;
	sample_run("c++ -g -O2 -o full sample.cc && objcopy --only-keep-debug full full.debug && "
		   "cp full lean && strip lean");
	image = sample_image("lean");
	assert_false(cprof_image_info(image)->has_debug_info);
	assert_true(sample_add_debug(image, "full.debug"));
	assert_false(sample_add_debug(image, "full.debug"));
	assert_true(judge(image, "full", addr2line) > 10);
	cprof_image_destroy(image);
}

/* Without a build-id the debug link's CRC decides. */
static void test_debug_link(void **state)
{
	struct cprof_image *image;

	(void)state;
	sample_run("c++ -g -O2 -Wl,--build-id=none -o full sample.cc && "
		   "objcopy --only-keep-debug full full.debug && cp full lean && strip lean && "
		   "objcopy --add-gnu-debuglink=full.debug lean && "
		   "cp full.debug other.debug && echo >>other.debug");
	image = sample_image("lean");
	assert_false(sample_add_debug(image, "other.debug"));
	assert_true(sample_add_debug(image, "full.debug"));
	assert_true(judge(image, "full", addr2line) > 10);
	cprof_image_destroy(image);
}

static void test_foreign_debug_file(void **state)
{
	struct cprof_image *image;

	(void)state;
	sample_run("c++ -g -O2 -o full sample.cc && c++ -g -O1 -o other sample.cc && "
		   "cp full lean && strip lean");
	image = sample_image("lean");
	assert_false(sample_add_debug(image, "other"));
	assert_false(sample_add_debug(image, "lean"));
	assert_false(sample_add_debug(image, "sample.cc"));
	cprof_image_destroy(image);
}

/* A debug file that comes after the first names makes the next ones better. */
static void test_late_debug_file(void **state)
{
	struct cprof_image *image;
	uint64_t address;

	(void)state;
	sample_run("c++ -g -O2 -o full sample.cc && objcopy --only-keep-debug full full.debug && "
		   "cp full lean && strip lean");
	address = sample_symbol("full", "plain_c");
	image = sample_image("lean");
	assert_string_equal(sample_name(image, address), "");
	assert_true(sample_add_debug(image, "full.debug"));
	assert_string_equal(sample_name(image, address), "plain_c");
	cprof_image_destroy(image);
}

/* dwz moves what two files share to a third one. */
static void test_supplementary_file(void **state)
{
	struct cprof_image *image;

	(void)state;
	if (!sample_try("command -v dwz >/dev/null"))
		skip();
	sample_run("c++ -g -O2 -o one sample.cc && c++ -g -O1 -o two sample.cc && "
		   "dwz -m shared.dwz one two");
	image = sample_image("one");
	assert_true(sample_add_debug(image, "shared.dwz"));
	assert_true(judge(image, "one", addr2line) > 10);
	cprof_image_destroy(image);
	image = sample_image("one"); /* and without it there still are names */
	assert_string_equal(sample_name(image, sample_symbol("one", "plain_c")), "plain_c");
	cprof_image_destroy(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gcc),
		cmocka_unit_test(test_compressed_sections),
		cmocka_unit_test(test_unpacking_held_back),
		cmocka_unit_test(test_clang_and_lto),
		cmocka_unit_test(test_separate_debug_file),
		cmocka_unit_test(test_debug_link),
		cmocka_unit_test(test_foreign_debug_file),
		cmocka_unit_test(test_late_debug_file),
		cmocka_unit_test(test_supplementary_file),
	};

	return cmocka_run_group_tests(tests, sample_setup, sample_teardown);
}

/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Opening, identity, load bias and bytes of images, on programs linked in different ways; files
 * that shrink while they are mapped.
 */
#include "sample.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Prints where `marker` is, then its mappings. */
static const char layout_c[] =
	"#include <stdio.h>\n"
	"int data_marker = 3;\n"
	"__attribute__((noinline)) int marker(int n) { return n * data_marker; }\n"
	"int main(void)\n"
	"{\n"
	"	char line[512];\n"
	"	FILE *maps = fopen(\"/proc/self/maps\", \"r\");\n"
	"	printf(\"%p\\n\", (void *)marker);\n"
	"	while (fgets(line, sizeof(line), maps))\n"
	"		fputs(line, stdout);\n"
	"	return marker(0);\n"
	"}\n";

/* Runs the layout sample; its executable mapping must give the bias that the kernel chose. */
static void check_layout(const char *how)
{
	unsigned long long address;
	char line[512];
	bool found = false;
	FILE *pipe;
	struct cprof_image *image;
	uint64_t symbol;

	sample_write("layout.c", layout_c, strlen(layout_c));
	sample_run("%s -o layout layout.c", how);
	image = sample_image("layout");
	symbol = sample_symbol("layout", "marker");
	assert_int_not_equal(symbol, 0);
	pipe = popen(sample_path("layout"), "r");
	assert_non_null(pipe);
	assert_non_null(fgets(line, sizeof(line), pipe));
	address = strtoull(line, NULL, 16);
	while (fgets(line, sizeof(line), pipe)) {
		unsigned long long start;
		unsigned long long end;
		unsigned long long offset;
		char protection[8];
		uint64_t bias = 1;

		assert_int_equal(
			sscanf(line, "%llx-%llx %7s %llx", &start, &end, protection, &offset), 4);
		if (!strstr(line, "/layout") || protection[2] != 'x')
			continue;
		assert_true(cprof_image_bias(image, start, offset, &bias));
		assert_int_equal(symbol + bias, address);
		found = found || (address >= start && address < end);
	}
	assert_int_equal(pclose(pipe), 0);
	assert_true(found);
	assert_string_equal(sample_name(image, symbol), "marker");
	cprof_image_destroy(image);
}

static void test_bias_of_layouts(void **state)
{
	static const char *const ways[] = {
		"cc -O1",
		"cc -O1 -no-pie",
		"cc -O1 -static",
		"cc -O1 -static-pie",
		"cc -O1 -Wl,-z,noseparate-code",
		"cc -O1 -no-pie -Wl,-z,noseparate-code",
		"cc -O1 -Wl,-z,max-page-size=0x200000",
	};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(ways); i++)
		check_layout(ways[i]);
	if (sample_try("command -v ld.lld clang >/dev/null")) {
		check_layout("clang -O1 -fuse-ld=lld");
		check_layout("clang -O1 -fuse-ld=lld -no-pie -Wl,-z,separate-code");
		check_layout("clang -O1 -fuse-ld=lld -Wl,--no-rosegment");
	}
	if (sample_try("command -v mold >/dev/null"))
		check_layout("cc -O1 -B/usr/libexec/mold");
}

static void test_bias_outside_fails(void **state)
{
	struct cprof_image *image;
	uint64_t bias;

	(void)state;
	sample_run("c++ -g -O1 -o prog sample.cc");
	image = sample_image("prog");
	assert_false(cprof_image_bias(image, 0x10000, 0x10000000, &bias));
	cprof_image_destroy(image);
}

static void test_identity(void **state)
{
	const struct cprof_image_info *info;
	struct cprof_image *image;

	(void)state;
	sample_run("c++ -g -O1 -Wl,--build-id=0x0123456789abcdef -o prog sample.cc");
	sample_run("objcopy --only-keep-debug prog prog.debug && cp prog lean && strip lean && "
		   "objcopy --add-gnu-debuglink=prog.debug lean");
	image = sample_image("prog");
	info = cprof_image_info(image);
	assert_int_equal(info->build_id_length, 8);
	assert_memory_equal(info->build_id, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8);
	assert_string_equal(info->debug_link, "");
	assert_int_equal(info->entry, sample_symbol("prog", "_start"));
	assert_true(info->has_symbol_table);
	assert_true(info->has_debug_info);
	cprof_image_destroy(image);

	image = sample_image("lean");
	info = cprof_image_info(image);
	assert_string_equal(info->debug_link, "prog.debug");
	assert_int_not_equal(info->debug_link_crc, 0);
	assert_false(info->has_debug_info);
	cprof_image_destroy(image);
}

/* The build-id is found by program headers when there are no section headers. */
static void test_without_sections(void **state)
{
	struct cprof_image *image;
	Elf64_Ehdr header;
	size_t length;
	char *bytes;

	(void)state;
	sample_run("c++ -g -O1 -Wl,--build-id=0x0123456789abcdef -o prog sample.cc");
	bytes = sample_read("prog", &length);
	memcpy(&header, bytes, sizeof(header));
	header.e_shoff = 0;
	header.e_shnum = 0;
	header.e_shstrndx = 0;
	memcpy(bytes, &header, sizeof(header));
	assert_null(cprof_image_create_memory(bytes, length, &image));
	free(bytes);
	assert_int_equal(cprof_image_info(image)->build_id_length, 8);
	assert_false(cprof_image_info(image)->has_debug_info);
	assert_string_equal(sample_name(image, header.e_entry), "");
	cprof_image_destroy(image);
}

static void test_read(void **state)
{
	struct cprof_image *image;
	uint64_t start;
	uint64_t end;
	uint8_t expected[16];
	uint8_t actual[16];
	char *bytes;
	size_t length;

	(void)state;
	sample_run("c++ -O1 -no-pie -static -o fixed sample.cc");
	sample_run("objcopy -O binary --only-section=.text fixed text.bin");
	image = sample_image("fixed");
	sample_section("fixed", ".text", &start, &end);
	bytes = sample_read("text.bin", &length);
	assert_int_equal(length, end - start);
	memcpy(expected, bytes + length - 16, 16);
	free(bytes);
	assert_int_equal(cprof_image_read(image, end - 16, actual, 16), 16);
	assert_memory_equal(actual, expected, 16);
	assert_int_equal(cprof_image_read(image, 8, actual, 16), 0);
	assert_int_equal(cprof_image_read(image, UINT64_MAX - 3, actual, 16), 0);
	cprof_image_destroy(image);
}

static void check_refused(const char *name, const void *bytes, size_t length)
{
	CPROF_AUTO_CLOSE int fd = -1;
	struct cprof_image *image;
	struct cprof_error *error;

	sample_write(name, bytes, length);
	fd = sample_open(name);
	error = cprof_image_create(fd, &image);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_FAILED);
	cprof_error_destroy(error);
}

static void test_what_is_refused(void **state)
{
	CPROF_AUTO_CLOSE int null = open("/dev/zero", O_RDONLY);
	CPROF_AUTO_CLOSE int directory = open("/tmp", O_RDONLY | O_DIRECTORY);
	struct cprof_image *image;
	struct cprof_error *error;
	size_t length;
	char *bytes;

	(void)state;
	check_refused("empty", "", 0);
	check_refused("script", "#!/bin/sh\nexit 0\n", 17);
	check_refused("short", "\177ELF\2\1\1", 7);
	sample_run("c++ -O1 -o prog sample.cc && c++ -O1 -c -o prog.o sample.cc");
	bytes = sample_read("prog", &length);
	bytes[EI_CLASS] = ELFCLASS32;
	check_refused("class", bytes, length);
	bytes[EI_CLASS] = ELFCLASS64;
	bytes[EI_DATA] = ELFDATA2MSB;
	check_refused("endian", bytes, length);
	bytes[EI_DATA] = ELFDATA2LSB;
	bytes[offsetof(Elf64_Ehdr, e_machine)] = EM_386;
	check_refused("machine", bytes, length);
	free(bytes);
	bytes = sample_read("prog.o", &length);
	check_refused("object", bytes, length);
	free(bytes);
	error = cprof_image_create(null, &image);
	assert_non_null(error);
	cprof_error_destroy(error);
	error = cprof_image_create(directory, &image);
	assert_non_null(error);
	cprof_error_destroy(error);
}

/* The file shrinks to nothing and to a half while it is mapped: names get lost, nothing else. */
static void test_file_that_shrinks(void **state)
{
	static const size_t parts[] = {0, 2, 4};

	(void)state;
	sample_run("c++ -g -O1 -o prog sample.cc");
	for (size_t i = 0; i < CPROF_COUNT(parts); i++) {
		uint64_t main_address = sample_symbol("prog", "main");
		struct cprof_image *image;
		struct cprof_names names;
		struct cprof_rule rule;
		size_t length;
		char bytes[64];

		sample_run("cp prog shrinks");
		free(sample_read("shrinks", &length));
		image = sample_image("shrinks");
		length = parts[i] ? length / parts[i] : 0;
		assert_int_equal(truncate(sample_path("shrinks"), (off_t)length), 0);
		names = sample_names(image, main_address, 0);
		cprof_names_deinit(&names);
		cprof_image_rules(image, &main_address, 1, &rule);
		assert_int_equal(cprof_image_read(image, main_address, bytes, 64), 64);
		cprof_image_destroy(image);
	}
}

/* SIGBUS elsewhere is not swallowed. */
static void test_other_sigbus_kills(void **state)
{
	int status;
	pid_t child;

	(void)state;
	sample_run("c++ -g -O1 -o prog sample.cc && cp prog other");
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		CPROF_AUTO_CLOSE int fd = open(sample_path("other"), O_RDONLY);
		volatile char *bytes = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
		struct cprof_image *image;

		signal(SIGBUS, SIG_DFL); /* cmocka and ASan have handlers */
		if (cprof_image_create(fd, &image) || bytes == MAP_FAILED ||
		    truncate(sample_path("other"), 0) != 0)
			_exit(1);
		alarm(10);
		_exit(bytes[0] == 0 ? 2 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bias_of_layouts),
		cmocka_unit_test(test_bias_outside_fails),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_without_sections),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_file_that_shrinks),
		cmocka_unit_test(test_other_sigbus_kills),
	};

	return cmocka_run_group_tests(tests, sample_setup, sample_teardown);
}

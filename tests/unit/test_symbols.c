/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Names from symbol tables alone: aliases, extents, stripped files, minidebuginfo, perf maps,
 * kallsyms.
 */
#include "sample.h"

/* Aliases, local and global, sized and not, labels, an ifunc, versions. */
static const char aliases_s[] = ".text\n"
				".globl malloc_like, __libc_malloc_like\n"
				".type malloc_like, @function\n"
				".type __libc_malloc_like, @function\n"
				".type a_local, @function\n"
				"malloc_like: __libc_malloc_like: a_local:\n"
				"	.fill 16, 1, 0x90\n"
				".size malloc_like, 16\n"
				".size __libc_malloc_like, 16\n"
				".size a_local, 16\n"
				"	.fill 16, 1, 0x90\n" /* 16: belongs to nobody */
				"label: .fill 8, 1, 0x90\n"  /* 32 */
				".type unsized, @function\n"
				"unsized: .fill 8, 1, 0x90\n" /* 40 */
				".type longer, @function\n"
				".globl shorter\n"
				".type shorter, @function\n"
				"longer: shorter: .fill 4, 1, 0x90\n" /* 48 */
				".size shorter, 4\n"
				".type inner, @function\n"
				"inner: .fill 4, 1, 0x90\n" /* 52 */
				".size inner, 4\n"
				"	.fill 8, 1, 0x90\n" /* 56: in the outer one again */
				".size longer, 16\n"
				".type an_ifunc, @gnu_indirect_function\n"
				"an_ifunc: .fill 8, 1, 0x90\n" /* 64 */
				".size an_ifunc, 8\n"
				".type versioned, @function\n"
				"versioned: .fill 8, 1, 0x90\n" /* 72 */
				".size versioned, 8\n"
				".symver versioned, public@@V1\n"
				".globl versioned\n"
				".data\n"
				"a_variable: .quad 0\n"
				".section .note.GNU-stack,\"\",@progbits\n";

static void test_aliases_and_extents(void **state)
{
	struct cprof_image *image;
	struct cprof_names names;
	uint64_t start;

	(void)state;
	sample_write("aliases.s", aliases_s, strlen(aliases_s));
	sample_write("map", "V1 { global: *; };\n", 19);
	sample_run("cc -shared -nostdlib -Wl,--version-script=map -o aliases.so aliases.s");
	image = sample_image("aliases.so");
	start = sample_symbol("aliases.so", "a_local");
	assert_int_not_equal(start, 0);
	assert_string_equal(sample_name(image, start), "malloc_like");
	assert_string_equal(sample_name(image, start + 15), "malloc_like");
	assert_string_equal(sample_name(image, start + 16), "");
	assert_string_equal(sample_name(image, start - 1), "");
	assert_string_equal(sample_name(image, start + 32), "label");
	assert_string_equal(sample_name(image, start + 39), "label");
	assert_string_equal(sample_name(image, start + 40), "unsized");
	assert_string_equal(sample_name(image, start + 48), "shorter");
	assert_string_equal(sample_name(image, start + 52), "inner");
	assert_string_equal(sample_name(image, start + 64), "an_ifunc");
	assert_string_equal(sample_name(image, start + 72), "public");
	assert_string_equal(sample_name(image, sample_symbol("aliases.so", "a_variable")), "");

	names = sample_names(image, start + 5, 0);
	assert_int_equal(names.count, 1);
	assert_int_equal(names.names[0].start, start);
	assert_int_equal(names.names[0].line, 0);
	assert_int_equal(names.names[0].inlined, 0);
	assert_string_equal(names.strings + names.names[0].file, "");
	cprof_names_deinit(&names);
	cprof_image_destroy(image);
}

/* Every function nm knows has, at its first and last byte, the name nm gives it or an alias. */
static void test_against_nm(void **state)
{
	struct cprof_image *image;
	char line[4096];
	char command[512];
	size_t count = 0;
	FILE *pipe;

	(void)state;
	sample_run("c++ -O1 -static -o static sample.cc");
	image = sample_image("static");
	snprintf(command, sizeof(command), "nm -S --defined-only %s", sample_path("static"));
	pipe = popen(command, "r");
	while (fgets(line, sizeof(line), pipe)) {
		unsigned long long start;
		unsigned long long size;
		char type;
		char symbol[2048];
		struct cprof_names names;

		if (sscanf(line, "%llx %llx %c %2047s", &start, &size, &type, symbol) != 4 ||
		    !strchr("TtWi", type) || !size)
			continue;
		count++;
		names = sample_names(image, start, 0);
		assert_int_equal(names.count, 1);
		assert_int_equal(names.names[0].start, start);
		cprof_names_deinit(&names);
		assert_string_not_equal(sample_name(image, start + size - 1), "");
	}
	pclose(pipe);
	assert_true(count > 1000);
	assert_string_equal(sample_name(image, sample_symbol("static", "__libc_malloc")), "malloc");
	cprof_image_destroy(image);
}

static void test_start_without_type(void **state)
{
	struct cprof_image *image;
	const char *source = ".globl _start\n.text\n_start: hlt\nnop\n";

	(void)state;
	sample_write("start.s", source, strlen(source));
	sample_run("cc -nostdlib -static -o start start.s");
	image = sample_image("start");
	assert_string_equal(sample_name(image, sample_symbol("start", "_start")), "_start");
	assert_string_equal(sample_name(image, sample_symbol("start", "_start") + 1), "_start");
	assert_string_equal(sample_name(image, sample_symbol("start", "_start") + 2), "");
	cprof_image_destroy(image);
}

/* .dynsym is left to a stripped library; what it lacks comes from .gnu_debugdata. */
static void test_minidebuginfo(void **state)
{
	struct cprof_image *image;
	uint64_t hidden;
	uint64_t public;

	(void)state;
	if (!sample_try("command -v xz >/dev/null"))
		skip();
	sample_run("c++ -O1 -fPIC -shared -o lib.so sample.cc && cp lib.so lean.so && "
		   "strip lean.so && nm -D lib.so --format=posix --defined-only | cut -d' ' -f1 "
		   "| sort >dynamic && nm lib.so --format=posix --defined-only | "
		   "awk '$2 ~ /[tT]/ {print $1}' | sort >all && comm -13 dynamic all >keep && "
		   "objcopy -S --remove-section .gnu_debuglink --keep-symbols=keep lib.so mini && "
		   "xz -f mini && cp lean.so with.so && "
		   "objcopy --add-section .gnu_debugdata=mini.xz with.so");
	hidden = sample_symbol("lib.so", "_ZN12_GLOBAL__N_16hiddenEll");
	public = sample_symbol("lib.so", "plain_c");
	assert_int_not_equal(hidden, 0);
	image = sample_image("lean.so");
	assert_string_equal(sample_name(image, public), "plain_c");
	assert_string_equal(sample_name(image, hidden), "");
	cprof_image_destroy(image);
	image = sample_image("with.so");
	assert_string_equal(sample_name(image, public), "plain_c");
	assert_string_equal(sample_name(image, hidden), "(anonymous namespace)::hidden");
	cprof_image_destroy(image);
}

static struct cprof_image *text_image(const char *text, size_t length,
				      struct cprof_error *(*create)(int, struct cprof_image **))
{
	CPROF_AUTO_CLOSE int fd = -1;
	struct cprof_image *image = NULL;

	sample_write("text", text, length);
	fd = sample_open("text");
	assert_null(create(fd, &image));
	return image;
}

static void test_perf_map(void **state)
{
	static const char text[] = "7f0000001000 20 LazyCompile:~f a.js:1 [x]\n"
				   "7f0000002000 10 stale\n"
				   "0x7f0000003000 0x8 prefixed\n"
				   "garbage\n"
				   "zz 10 bad\n"
				   "7f0000004000 0 empty\n"
				   "7f0000005000 10\n"
				   "11112222333344445 10 too_long_address\n"
				   "7f0000002000 8 fresh\n"
				   "7f0000006000 10 unfinished";
	struct cprof_image *image = text_image(text, sizeof(text) - 1, cprof_image_create_perf_map);
	uint64_t bias = 1;

	(void)state;
	assert_string_equal(sample_name(image, 0x7f0000001000), "LazyCompile:~f a.js:1 [x]");
	assert_string_equal(sample_name(image, 0x7f000000101f), "LazyCompile:~f a.js:1 [x]");
	assert_string_equal(sample_name(image, 0x7f0000001020), "");
	assert_string_equal(sample_name(image, 0x7f0000002000), "fresh");
	assert_string_equal(sample_name(image, 0x7f0000002008), "");
	assert_string_equal(sample_name(image, 0x7f0000003007), "prefixed");
	assert_string_equal(sample_name(image, 0x7f0000004000), "");
	assert_string_equal(sample_name(image, 0x7f0000005000), "");
	assert_string_equal(sample_name(image, 0x7f0000006000), "");
	assert_true(cprof_image_bias(image, 0x7f0000001000, 0, &bias));
	assert_int_equal(bias, 0);
	cprof_image_destroy(image);
}

/* Lines longer than any buffer, NUL bytes, many symbols. */
static void test_hostile_perf_map(void **state)
{
	size_t length = 1u << 20;
	char *text = malloc(length);
	struct cprof_image *image;
	size_t used;

	(void)state;
	memset(text, 'x', length);
	memcpy(text, "1000 10 ", 8);
	memcpy(text + length - 18, "\n2000 10 \0after\n\n\n", 18);
	image = text_image(text, length, cprof_image_create_perf_map);
	assert_int_equal(strlen(sample_name(image, 0x1000)), 4095); /* cut by the test's buffer */
	assert_string_equal(sample_name(image, 0x2000), "");
	cprof_image_destroy(image);
	used = 0;
	for (unsigned i = 0; i < 30000; i++)
		used += (size_t)sprintf(text + used, "%x 10 jit_function_%u\n", (30000 - i) * 16,
					i);
	image = text_image(text, used, cprof_image_create_perf_map);
	assert_string_equal(sample_name(image, 16), "jit_function_29999");
	assert_string_equal(sample_name(image, 30000 * 16 + 15), "jit_function_0");
	free(text);
	cprof_image_destroy(image);
}

static void test_kallsyms(void **state)
{
	static const char text[] = "0000000000000000 A fixed_percpu_data\n"
				   "ffffffff81000000 T _text\n"
				   "ffffffff81000000 T startup_64\n"
				   "ffffffff81000100 t local_function\n"
				   "ffffffff81000200 D some_data\n"
				   "ffffffffc0000010 t module_function\t[ext4]\n"
				   "ffffffffc0000050 W weak_one\t[ext4]\n";
	static const char hidden[] = "0000000000000000 T _text\n0000000000000000 t f\n";
	struct cprof_image *image = text_image(text, sizeof(text) - 1, cprof_image_create_kallsyms);

	(void)state;
	assert_string_equal(sample_name(image, 0xffffffff81000080), "_text");
	assert_string_equal(sample_name(image, 0xffffffff810001ff), "local_function");
	assert_string_equal(sample_name(image, 0xffffffff81000200), "");
	assert_string_equal(sample_name(image, 0xffffffffc0000011), "module_function");
	assert_string_equal(sample_name(image, 0xffffffffc0000050), "weak_one");
	assert_string_equal(sample_name(image, 0xffffffffc1000000), "");
	assert_string_equal(sample_name(image, 0), "");
	cprof_image_destroy(image);
	image = text_image(hidden, sizeof(hidden) - 1, cprof_image_create_kallsyms);
	assert_string_equal(sample_name(image, 0), "");
	cprof_image_destroy(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_aliases_and_extents),
		cmocka_unit_test(test_against_nm),
		cmocka_unit_test(test_start_without_type),
		cmocka_unit_test(test_minidebuginfo),
		cmocka_unit_test(test_perf_map),
		cmocka_unit_test(test_hostile_perf_map),
		cmocka_unit_test(test_kallsyms),
	};

	return cmocka_run_group_tests(tests, sample_setup, sample_teardown);
}

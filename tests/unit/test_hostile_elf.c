/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Damaged and hostile files: whatever is in them, opening and naming end, soon, and without a
 * crash.
 */
#include "sample.h"

#include <stdlib.h>

#define FLIPS 4000

static char *good;
static size_t good_length;
static uint64_t code[64];

static int setup(void **state)
{
	uint64_t start;
	uint64_t end;

	if (sample_setup(state) != 0)
		return -1;
	sample_run("c++ -g -O1 -o prog sample.cc");
	good = sample_read("prog", &good_length);
	sample_section("prog", ".text", &start, &end);
	for (size_t i = 0; i < CPROF_COUNT(code); i++)
		code[i] = start + (end - start) * i / CPROF_COUNT(code);
	return 0;
}

static int teardown(void **state)
{
	free(good);
	return sample_teardown(state);
}

/* Asks everything; true if the file could be opened. */
static bool exercise(const char *bytes, size_t length)
{
	struct cprof_image *image;
	struct cprof_names names;
	struct cprof_error *error = cprof_image_create_memory(bytes, length, &image);
	char buffer[64];

	if (error) {
		assert_int_equal(error->status, CPROF_FAILED);
		cprof_error_destroy(error);
		return false;
	}
	error = cprof_image_names(image, code, CPROF_COUNT(code), 0, &names);
	assert_null(error);
	for (size_t i = 0; i < names.count; i++) {
		assert_true(names.names[i].name < names.strings_length);
		assert_true(names.names[i].system_name < names.strings_length);
		assert_true(names.names[i].file < names.strings_length);
	}
	cprof_names_deinit(&names);
	for (size_t i = 0; i < CPROF_COUNT(code); i++)
		cprof_image_read(image, code[i], buffer, sizeof(buffer));
	cprof_image_destroy(image);
	return true;
}

static void test_truncated(void **state)
{
	(void)state;
	for (size_t i = 0; i <= 64; i++)
		assert_int_equal(exercise(good, good_length * i / 64), i > 0);
	for (size_t length = 0; length < sizeof(Elf64_Ehdr); length++)
		assert_false(exercise(good, length));
}

/* A few random bytes change, half of the times where headers and debug sections are. */
static void test_flipped_bytes(void **state)
{
	char *bytes = malloc(good_length);
	unsigned opened = 0;
	Elf64_Ehdr header;

	(void)state;
	srandom(1);
	memcpy(&header, good, sizeof(header));
	for (unsigned i = 0; i < FLIPS; i++) {
		unsigned flips = 1 + (unsigned)random() % 8;

		memcpy(bytes, good, good_length);
		while (flips--) {
			size_t headers = good_length - header.e_shoff;
			size_t where = i % 4 == 0 ? header.e_shoff + (size_t)random() % headers
				       : i % 4 == 1
					       ? (size_t)random() % 1024
					       : good_length / 4 +
							 (size_t)random() % (good_length / 4 * 3);

			bytes[where] = (char)random();
		}
		opened += exercise(bytes, good_length);
	}
	free(bytes);
	assert_true(opened > FLIPS / 2);
}

/* One header field at a time takes an absurd value. */
static void test_absurd_headers(void **state)
{
	static const uint64_t values[] = {
		0, 1, 0x7fffffff, 0xffffffff, 0x7fffffffffffffff, 0xfffffffffffffff0, UINT64_MAX};
	char *bytes = malloc(good_length);
	Elf64_Ehdr header;

	(void)state;
	memcpy(&header, good, sizeof(header));
	for (size_t v = 0; v < CPROF_COUNT(values); v++) {
		for (size_t field = 0x10; field < sizeof(header); field += 2) {
			memcpy(bytes, good, good_length);
			memcpy(bytes + field, &values[v],
			       CPROF_MIN(sizeof(values[v]), sizeof(header) - field));
			exercise(bytes, good_length);
		}
		for (unsigned i = 0; i < header.e_shnum; i++)
			for (size_t field = 0; field < sizeof(Elf64_Shdr); field += 4) {
				memcpy(bytes, good, good_length);
				memcpy(bytes + header.e_shoff + i * sizeof(Elf64_Shdr) + field,
				       &values[v], field % 8 ? 4 : 8);
				exercise(bytes, good_length);
			}
		for (unsigned i = 0; i < header.e_phnum; i++)
			for (size_t field = 0; field < sizeof(Elf64_Phdr); field += 8) {
				memcpy(bytes, good, good_length);
				memcpy(bytes + header.e_phoff + i * sizeof(Elf64_Phdr) + field,
				       &values[v], 8);
				exercise(bytes, good_length);
			}
	}
	free(bytes);
}

/* The section whose content a test changes: its header in `bytes`. */
static Elf64_Shdr *find_section(char *bytes, const char *name)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)bytes;
	Elf64_Shdr *sections = (Elf64_Shdr *)(bytes + header->e_shoff);
	const char *names = bytes + sections[header->e_shstrndx].sh_offset;

	for (unsigned i = 0; i < header->e_shnum; i++)
		if (strcmp(names + sections[i].sh_name, name) == 0)
			return &sections[i];
	fail_msg("no section %s", name);
	return NULL;
}

/* A section that claims to unpack to 64 GB: it is done without, the rest works. */
static void check_bomb(const char *section)
{
	uint64_t before = cprof_own_peak_rss();
	struct cprof_image *image;
	Elf64_Chdr *compressed;
	size_t length;
	char *bytes;

	sample_run("c++ -g -O1 -gz=zlib -o packed sample.cc");
	bytes = sample_read("packed", &length);
	compressed = (Elf64_Chdr *)(bytes + find_section(bytes, section)->sh_offset);
	assert_int_equal(compressed->ch_type, ELFCOMPRESS_ZLIB);
	compressed->ch_size = 64ull << 30;
	assert_null(cprof_image_create_memory(bytes, length, &image));
	free(bytes);
	assert_string_equal(sample_name(image, sample_symbol("packed", "plain_c")), "plain_c");
	cprof_image_destroy(image);
	assert_true(cprof_own_peak_rss() - before < 256u << 20);
}

static void test_bombs(void **state)
{
	(void)state;
	check_bomb(".debug_info");
	check_bomb(".debug_str");
	check_bomb(".debug_line");
}

/* Compressed sections that are damaged, or claim another size than they have: no names of theirs,
 * those of symbols stay. */
static void check_damaged(const char *section, int64_t claim, size_t damage)
{
	struct cprof_image *image;
	Elf64_Chdr *compressed;
	size_t length;
	char *bytes = sample_read("packed", &length);

	compressed = (Elf64_Chdr *)(bytes + find_section(bytes, section)->sh_offset);
	compressed->ch_size += (uint64_t)claim;
	if (damage)
		memset((char *)(compressed + 1) + damage, 0xff, 8);
	assert_null(cprof_image_create_memory(bytes, length, &image));
	free(bytes);
	assert_string_equal(sample_name(image, sample_symbol("packed", "plain_c")), "plain_c");
	cprof_image_destroy(image);
}

static void test_damaged_compression(void **state)
{
	static const char *const sections[] = {".debug_info", ".debug_abbrev", ".debug_line",
					       ".debug_str"};

	(void)state;
	sample_run("c++ -g -O1 -gz=zlib -o packed sample.cc");
	for (size_t i = 0; i < CPROF_COUNT(sections); i++) {
		check_damaged(sections[i], 1, 0);
		check_damaged(sections[i], -1, 0);
		check_damaged(sections[i], 4096, 0);
		check_damaged(sections[i], 0, 2);
		check_damaged(sections[i], 0, 60);
	}
}

/* A name table that is itself "compressed" must not be unpacked to read names. */
static void test_bomb_in_name_table(void **state)
{
	char *bytes = malloc(good_length);
	Elf64_Shdr *names;
	Elf64_Chdr bomb = {.ch_type = ELFCOMPRESS_ZLIB, .ch_size = 1ull << 40, .ch_addralign = 1};

	(void)state;
	memcpy(bytes, good, good_length);
	names = find_section(bytes, ".shstrtab");
	names->sh_flags |= SHF_COMPRESSED;
	memcpy(bytes + names->sh_offset, &bomb, sizeof(bomb));
	assert_true(exercise(bytes, good_length));
	free(bytes);
}

/* A minidebuginfo of 300 MB of zeros in 45 KB. */
static void test_mini_bomb(void **state)
{
	uint64_t before = cprof_own_peak_rss();
	struct cprof_image *image;

	(void)state;
	if (!sample_try("command -v xz >/dev/null"))
		skip();
	sample_run("head -c 300M /dev/zero | xz -1 >zeros.xz && cp prog mini && strip mini && "
		   "objcopy --add-section .gnu_debugdata=zeros.xz mini");
	image = sample_image("mini");
	assert_string_equal(sample_name(image, sample_symbol("prog", "plain_c")), "");
	cprof_image_destroy(image);
#ifdef __SANITIZE_THREAD__
	(void)before; /* what the sanitizer remembers of memory is resident too */
#else
	assert_true(cprof_own_peak_rss() - before < 300u << 20);
#endif
}

/* A line table whose every file lies in a directory with a name of a megabyte. */
static const char line_bomb[] =
	".globl _start\n.text\n_start: .fill 16, 1, 0x90\n"
	".section .debug_abbrev,\"\",@progbits\n"
	".byte 1, 0x11, 0, 0x10, 0x17, 0x11, 1, 0x12, 7, 0, 0, 0\n"
	".section .debug_info,\"\",@progbits\n"
	".long 2f - 1f\n1: .short 4\n.long 0\n.byte 8, 1\n.long 0\n.quad _start, 16\n2:\n"
	".section .debug_line,\"\",@progbits\n"
	".long 4f - 1f\n1: .short 4\n.long 3f - 2f\n"
	"2: .byte 1, 1, 1, -5, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1\n"
	".fill DIRECTORY, 1, 'd'\n.byte 0, 0\n"
	".rept 100000\n.byte 'f', 0, 1, 0, 0\n.endr\n.byte 0\n"
	"3: .byte 0, 9, 2\n.quad _start\n.byte 1, 2, 16, 0, 1, 1\n4:\n";

static void test_line_table_bomb(void **state)
{
	static const char *const lengths[] = {"10", "1000000"};

	(void)state;
	sample_write("lines.s", line_bomb, strlen(line_bomb));
	for (size_t i = 0; i < CPROF_COUNT(lengths); i++) {
		uint64_t before = cprof_own_peak_rss();
		struct cprof_image *image;
		struct cprof_names names;

		sample_run("sed s/DIRECTORY/%s/ lines.s >bomb.s && "
			   "cc -static -nostdlib -o bomb bomb.s",
			   lengths[i]);
		image = sample_image("bomb");
		names = sample_names(image, sample_symbol("bomb", "_start"), 0);
		assert_int_equal(names.count, 1);
		assert_string_equal(names.strings + names.names[0].name, "_start");
		assert_int_equal(names.names[0].line, i == 0); /* the harmless one has lines */
		cprof_names_deinit(&names);
		cprof_image_destroy(image);
		assert_true(cprof_own_peak_rss() - before < 256u << 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped_bytes),
		cmocka_unit_test(test_absurd_headers),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_bomb_in_name_table),
		cmocka_unit_test(test_mini_bomb),
		cmocka_unit_test(test_line_table_bomb),
		cmocka_unit_test(test_damaged_compression),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

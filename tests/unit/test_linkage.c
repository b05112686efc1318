/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * Imports and exports of programs and libraries linked in different ways, against what readelf
 * says; without section headers; damaged.
 */
#include "sample.h"

static const char *const names[] = {"malloc", "free",   "calloc", "realloc",
				    "maybe",  "chosen", "hidden", "no_such_function"};
enum { MALLOC, FREE, CALLOC, REALLOC, MAYBE, CHOSEN, HIDDEN, MISSING, NAMES };

static const char part_c[] =
	"#include <stdlib.h>\n"
	"void *(*data_malloc)(size_t) = malloc;\n"
	"char *inside = (char *)realloc + 1;\n" /* an addend: no pointer to the function */
	"extern void maybe(void) __attribute__((weak));\n"
	"static int one(void) { return 1; }\n"
	"static void *choose(void) { return one; }\n"
	"int chosen(void) __attribute__((ifunc(\"choose\")));\n"
	"__attribute__((visibility(\"hidden\"), noinline)) int hidden(int n) { return n + 1; }\n"
	"void *calloc(size_t n, size_t s) { return malloc(n * s); }\n"
	"void tail(void *p) { free(p); }\n"
	"int part(int n) { if (maybe) maybe(); free(malloc(n)); return hidden(n) + chosen(); }\n";
static const char program_c[] = "#include <stdlib.h>\n"
				"extern char **environ;\n" /* a COPY relocation when not PIE */
				"void *(*volatile p)(size_t) = malloc;\n"
				"int main(int n, char **v)\n"
				"{\n"
				"	free(realloc(p(n), !v || !environ));\n"
				"	return 0;\n"
				"}\n";

/* Each once with the old one first. */
static const char versions_c[] =
	"#define NEW(name) __asm__(\".symver new_\" #name \", \" #name \"@@V2\"); "
	"void *new_##name(void *p) { return p; }\n"
	"#define OLD(name) __asm__(\".symver old_\" #name \", \" #name \"@V1\"); "
	"void *old_##name(void) { return 0; }\n"
	"NEW(malloc)\nOLD(malloc)\nOLD(realloc)\nNEW(realloc)\nOLD(free)\nNEW(calloc)\n";

static int setup(void **state)
{
	if (sample_setup(state) != 0)
		return -1;
	sample_write("part.c", part_c, strlen(part_c));
	sample_write("program.c", program_c, strlen(program_c));
	return 0;
}

static struct cprof_linkage link_of(const struct cprof_image *image)
{
	struct cprof_linkage linkage;

	assert_null(cprof_image_linkage(image, names, NAMES, &linkage));
	for (size_t i = 0; i < linkage.import_count; i++) {
		assert_true(linkage.imports[i].name < NAMES);
		assert_true(!i || linkage.imports[i].slot > linkage.imports[i - 1].slot);
	}
	return linkage;
}

static const struct cprof_import *import_at(const struct cprof_linkage *linkage, uint64_t slot)
{
	for (size_t i = 0; i < linkage->import_count; i++)
		if (linkage->imports[i].slot == slot)
			return &linkage->imports[i];
	return NULL;
}

/* Every slot readelf shows, and no other; returns how many. */
static size_t check_imports(const char *file, const struct cprof_linkage *linkage)
{
	unsigned long long slot;
	char command[512];
	char type[64];
	char name[64];
	size_t count = 0;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "readelf -rW %s | sed -n 's/^\\([0-9a-f]\\{16\\}\\) *[0-9a-f]* "
		 "*R_X86_64_\\([A-Z0-9_]*\\) *[0-9a-z_()]* *\\([a-z_]*\\)\\(@[^ ]*\\)* + 0$/"
		 "\\1 \\2 \\3/p'",
		 sample_path(file));
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while (fscanf(pipe, "%llx %63s %63s", &slot, type, name) == 3) {
		const struct cprof_import *import = import_at(linkage, slot);
		bool asked = false;

		for (size_t i = 0; i < NAMES; i++)
			asked |= strcmp(name, names[i]) == 0;
		if (!asked)
			continue;
		assert_non_null(import);
		assert_string_equal(names[import->name], name);
		assert_int_equal(import->kind, strcmp(type, "64") == 0         ? CPROF_IMPORT_DATA
					       : strcmp(type, "GLOB_DAT") == 0 ? CPROF_IMPORT_GOT
									       : CPROF_IMPORT_CALL);
		count++;
	}
	pclose(pipe);
	assert_int_equal(count, linkage->import_count);
	return count;
}

static void test_libraries(void **state)
{
	static const char *const ways[] = {
		"",
		"-Wl,--hash-style=sysv",
		"-Wl,--hash-style=gnu",
		"-Wl,-z,now",
		"-Wl,-z,lazy -fcf-protection",
		"-fno-plt",
		"-Wl,-z,norelro",
		"-fuse-ld=gold",
		"-Wl,-Bsymbolic",
	};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(ways); i++) {
		struct cprof_linkage linkage;
		struct cprof_image *image;
		const struct cprof_import *weak = NULL;

		sample_run("cc -O1 -fPIC -shared -fno-builtin %s -Wl,-soname,part.so.1 -o part.so "
			   "part.c",
			   ways[i]);
		image = sample_image("part.so");
		linkage = link_of(image);
		assert_true(check_imports("part.so", &linkage) >= 4);
		assert_int_equal(linkage.exports[CALLOC].address,
				 sample_symbol("part.so", "calloc"));
		assert_int_equal(linkage.exports[CALLOC].own, linkage.exports[CALLOC].address);
		assert_true(linkage.exports[CALLOC].size > 0);
		assert_int_not_equal(linkage.exports[CALLOC].address, 0);
		assert_false(linkage.exports[CALLOC].indirect);
		assert_true(linkage.exports[CHOSEN].indirect);
		assert_int_equal(linkage.exports[MALLOC].address, 0); /* only used */
		assert_int_equal(linkage.exports[HIDDEN].address, 0);
		assert_int_equal(linkage.exports[HIDDEN].own, sample_symbol("part.so", "hidden"));
		assert_int_equal(linkage.exports[MISSING].address, 0);
		for (size_t s = 0; s < linkage.import_count; s++)
			if (linkage.imports[s].name == MAYBE)
				weak = &linkage.imports[s];
			else
				assert_false(linkage.imports[s].weak);
		assert_true(weak && weak->weak);
		assert_int_equal(linkage.soname, cprof_hash_bytes("part.so.1", 9));
		assert_int_equal(linkage.needed_count, 1);
		assert_int_equal(linkage.needed[0], cprof_hash_bytes("libc.so.6", 9));
		assert_int_equal(linkage.symbolic, strstr(ways[i], "symbolic") != NULL);
		assert_int_equal(!linkage.relro_end, strstr(ways[i], "norelro") != NULL);
		assert_true(linkage.dynamic && !linkage.interpreter && !linkage.go);
		cprof_linkage_deinit(&linkage);
		cprof_image_destroy(image);
	}
}

static void test_programs(void **state)
{
	static const char *const ways[] = {"-pie",       "-no-pie",       "-no-pie -Wl,-z,now",
					   "-pie -flto", "-pie -fno-plt", "-pie -Wl,-z,lazy"};

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(ways); i++) {
		struct cprof_linkage linkage;
		struct cprof_image *image;

		sample_run("cc -O1 -fno-builtin %s -o program program.c", ways[i]);
		image = sample_image("program");
		linkage = link_of(image);
		assert_true(check_imports("program", &linkage) >= 3);
		assert_true(linkage.interpreter);
		cprof_linkage_deinit(&linkage);
		cprof_image_destroy(image);
	}
	sample_run("cc -O1 -static -o static program.c");
	struct cprof_image *image = sample_image("static");
	struct cprof_linkage linkage = link_of(image);

	assert_int_equal(linkage.import_count, 0);
	assert_int_equal(linkage.dynamic, 0);
	assert_int_equal(linkage.exports[MALLOC].address, 0);
	assert_int_not_equal(linkage.exports[MALLOC].own, 0);
	cprof_linkage_deinit(&linkage);
	cprof_image_destroy(image);
}

/* A PLT entry leads to its slot; what a function calls through slots is seen. */
static void test_calls(void **state)
{
	static const char *const ways[] = {"-fcf-protection=none", "-fcf-protection", "-fno-plt",
					   "-fuse-ld=gold"};

	(void)state;
	for (size_t w = 0; w < CPROF_COUNT(ways); w++) {
		struct cprof_linkage linkage;
		struct cprof_image *image;
		uint64_t slot;

		sample_run("cc -O2 -fPIC -shared -fno-builtin %s -o part.so part.c", ways[w]);
		image = sample_image("part.so");
		linkage = link_of(image);
		assert_int_equal(cprof_image_calls(image, &linkage, linkage.exports[CALLOC].address,
						   linkage.exports[CALLOC].size),
				 1u << MALLOC);
		/* a jump at its end */
		assert_int_equal(
			cprof_image_calls(image, &linkage, sample_symbol("part.so", "tail"), 9),
			1u << FREE);
		assert_int_equal(
			cprof_image_calls(image, &linkage, sample_symbol("part.so", "hidden"), 4),
			0);
		assert_int_equal(cprof_image_calls(image, &linkage, UINT64_MAX - 2, 100), 0);
		assert_false(cprof_image_stub(image, sample_symbol("part.so", "hidden"), &slot));
		cprof_linkage_deinit(&linkage);
		cprof_image_destroy(image);
	}
}

static void test_without_sections(void **state)
{
	struct cprof_linkage whole;
	struct cprof_linkage bare;
	struct cprof_image *image;
	size_t length;
	Elf64_Ehdr *header;
	char *bytes;

	(void)state;
	sample_run("cc -O1 -fPIC -shared -fno-builtin -o part.so part.c");
	image = sample_image("part.so");
	whole = link_of(image);
	cprof_image_destroy(image);
	bytes = sample_read("part.so", &length);
	header = (Elf64_Ehdr *)bytes;
	header->e_shoff = 0;
	header->e_shnum = header->e_shstrndx = 0;
	assert_null(cprof_image_create_memory(bytes, length, &image));
	bare = link_of(image);
	assert_int_equal(bare.import_count, whole.import_count);
	assert_memory_equal(bare.imports, whole.imports,
			    whole.import_count * sizeof(*whole.imports));
	for (size_t i = 0; i < NAMES; i++) {
		assert_int_equal(bare.exports[i].address, whole.exports[i].address);
		assert_int_equal(bare.exports[i].own, 0);
	}
	assert_int_equal(cprof_image_calls(image, &bare, bare.exports[CALLOC].address,
					   bare.exports[CALLOC].size),
			 1u << MALLOC);
	cprof_linkage_deinit(&whole);
	cprof_linkage_deinit(&bare);
	cprof_image_destroy(image);
	free(bytes);
}

static bool exercise(const char *bytes, size_t length)
{
	struct cprof_image *image = NULL;
	struct cprof_linkage linkage;

	cprof_error_destroy(cprof_image_create_memory(bytes, length, &image));
	if (!image)
		return false;
	linkage = link_of(image);
	for (size_t i = 0; i < NAMES; i++)
		cprof_image_calls(image, &linkage, linkage.exports[i].address,
				  linkage.exports[i].size);
	cprof_linkage_deinit(&linkage);
	cprof_image_destroy(image);
	return true;
}

/* Random bytes anywhere; every field of PT_DYNAMIC with absurd values; cut off. */
static void test_damaged(void **state)
{
	static const uint64_t values[] = {
		0, 1, 7, 0x7fffffff, UINT32_MAX, INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
	uint64_t start;
	uint64_t end;
	size_t length;
	char *good;
	char *bytes;
	unsigned opened = 0;

	(void)state;
	sample_run("cc -O1 -fPIC -shared -fno-builtin -Wl,--hash-style=both,-z,max-page-size=4096 "
		   "-o part.so part.c && strip part.so");
	good = sample_read("part.so", &length);
	bytes = malloc(length);
	srandom(1);
	for (unsigned i = 0; i < 4000; i++) {
		size_t region = i % 2 ? length : CPROF_MIN(length, 0x800u);

		memcpy(bytes, good, length);
		for (unsigned flips = 1 + (unsigned)random() % 8; flips; flips--)
			bytes[(size_t)random() % region] = (char)random();
		opened += exercise(bytes, length);
	}
	assert_true(opened > 1500);
	sample_section("part.so", ".dynamic", &start, &end);
	memcpy(bytes, good, length);
	for (uint64_t at = start; at < end; at += 8)
		for (size_t v = 0; v < CPROF_COUNT(values); v++) {
			/* Its file offset: the page before its address in this layout. */
			size_t offset = at - 0x1000;

			memcpy(bytes + offset, &values[v], 8);
			assert_true(exercise(bytes, length));
			memcpy(bytes + offset, good + offset, 8);
		}
	for (size_t i = 0; i < 64; i++)
		exercise(good, length * i / 64);
	free(bytes);
	free(good);
}

/* Of several versions the one that programs are linked with today. */
static void test_versions(void **state)
{
	static const char *const ways[] = {"sysv", "gnu"};

	(void)state;
	sample_write("versions.c", versions_c, strlen(versions_c));
	sample_write("versions.map", "V1 { };\nV2 { } V1;\n", 19);
	for (size_t i = 0; i < CPROF_COUNT(ways); i++) {
		struct cprof_linkage linkage;
		struct cprof_linkage uses;
		struct cprof_image *image;
		struct cprof_image *program;

		sample_run("cc -O1 -fPIC -shared -fno-builtin -Wl,--hash-style=%s "
			   "-Wl,--version-script=versions.map -o versions.so versions.c",
			   ways[i]);
		sample_run("cc -O1 -o versioned program.c ./versions.so %s",
			   "-Wl,--allow-shlib-undefined");
		image = sample_image("versions.so");
		program = sample_image("versioned");
		linkage = link_of(image);
		uses = link_of(program);
		assert_int_equal(linkage.exports[MALLOC].address,
				 sample_symbol("versions.so", "new_malloc"));
		assert_int_equal(linkage.exports[REALLOC].address,
				 sample_symbol("versions.so", "new_realloc"));
		assert_int_equal(linkage.exports[FREE].address,
				 sample_symbol("versions.so", "old_free"));
		assert_true(linkage.exports[MALLOC].several && linkage.exports[REALLOC].several);
		assert_false(linkage.exports[FREE].several || linkage.exports[CALLOC].several);
		assert_true(linkage.exports[FREE].hidden && !linkage.exports[MALLOC].hidden);
		assert_int_not_equal(linkage.exports[FREE].version,
				     linkage.exports[CALLOC].version);
		assert_true(uses.import_count >= 2);
		for (size_t s = 0; s < uses.import_count; s++)
			if (uses.imports[s].name != FREE)
				assert_int_equal(uses.imports[s].version,
						 linkage.exports[MALLOC].version);
		cprof_linkage_deinit(&linkage);
		cprof_linkage_deinit(&uses);
		cprof_image_destroy(image);
		cprof_image_destroy(program);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_libraries), cmocka_unit_test(test_programs),
		cmocka_unit_test(test_calls),     cmocka_unit_test(test_without_sections),
		cmocka_unit_test(test_damaged),   cmocka_unit_test(test_versions),
	};

	return cmocka_run_group_tests(tests, setup, sample_teardown);
}

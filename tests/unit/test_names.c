/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * What a batch of names looks like: inlined chains, flags, demangling, shared strings.
 */
#include "sample.h"

static void check_demangled(const char *symbol, const char *expected)
{
	char *name = cprof_demangle(symbol);

	if (expected)
		assert_string_equal(name ? name : "(none)", expected);
	else
		assert_null(name);
	free(name);
}

static void test_demangle(void **state)
{
	(void)state;
	check_demangled("main", NULL);
	check_demangled("", NULL);
	check_demangled("_", NULL);
	check_demangled("_Z", NULL);
	check_demangled("_Zxx", NULL);
	check_demangled("_ZN3fooIiE3barEv", "foo<int>::bar");
	check_demangled("_ZNSt6vectorIiSaIiEE9push_backEOi",
			"std::vector<int, std::allocator<int> >::push_back");
	check_demangled("_ZSt4sortIPiEvT_S1_", "std::sort<int*>");
	check_demangled("_ZN3fooIiE3barEv.cold", "foo<int>::bar");
	check_demangled("_ZL6helperi.part.0.isra.1", "helper");
	check_demangled("_ZNK3FoocvbEv", "Foo::operator bool");
	check_demangled("_ZplRK1AS1_", "operator+");
	check_demangled("_ZnwmSt11align_val_t", "operator new");
	check_demangled("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()");
	check_demangled("_ZN12_GLOBAL__N_16hiddenEll", "(anonymous namespace)::hidden");
	check_demangled("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
			"core::fmt::Write::write_fmt");
	check_demangled("_RNvCs1234_7mycrate3foo", "mycrate::foo");
	check_demangled("_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>");
}

/* Long, deep and exponentially growing symbols cost little. */
static void test_demangle_hostile(void **state)
{
	char *symbol = malloc(40000);
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint64_t start = cprof_own_cpu_ns();
	size_t used;
	char *name;

	(void)state;
	/* f<pair<int, int>, pair<S1_, S1_>, pair<S2_, S2_>, ...>: each argument is twice as long
	 * as the one before. Four of them are fine. */
	for (unsigned levels = 4; levels <= 30; levels += 26) {
		used = (size_t)sprintf(symbol, "_Z1fISt4pairIiiE");
		for (unsigned i = 1; i <= levels; i++)
			used += (size_t)sprintf(symbol + used, "S0_IS%c_S%c_E", digits[i],
						digits[i]);
		sprintf(symbol + used, "EvT_");
		name = cprof_demangle(symbol);
		assert_int_equal(name != NULL, levels == 4);
		free(name);
	}
	for (size_t length = 16; length < 39000; length = length * 3 / 2) {
		for (size_t i = 0; i < 4; i++) {
			memset(symbol, "PRNI"[i], length);
			memcpy(symbol, i == 1 ? "_R" : "_Z1f", i == 1 ? 2 : 4);
			symbol[length] = '\0';
			free(cprof_demangle(symbol));
		}
	}
	free(symbol);
	assert_true(cprof_own_cpu_ns() - start < 2000000000);
}

static void test_long_name(void **state)
{
	char symbol[4096] = "_ZN";
	char *name;

	(void)state;
	for (unsigned i = 0; i < 150; i++)
		strcat(symbol, "10abcdefghij");
	strcat(symbol, "Ev");
	name = cprof_demangle(symbol);
	assert_non_null(name);
	assert_int_equal(strlen(name), 150 * 12 - 2);
	free(name);
}

/* An address of the sample with a chain of three: hidden <- part <- deep. */
static uint64_t find_chain(struct cprof_image *image, const char *name, const char *symbol)
{
	uint64_t start = sample_symbol(name, symbol);

	assert_int_not_equal(start, 0);
	for (uint64_t address = start; address < start + 512; address++) {
		struct cprof_names names = sample_names(image, address, 0);
		size_t count = names.count;

		cprof_names_deinit(&names);
		if (count == 3)
			return address;
	}
	fail_msg("no inlined chain");
	return 0;
}

static const char *text(const struct cprof_names *names, uint32_t offset)
{
	assert_true(offset < names->strings_length);
	return names->strings + offset;
}

static void test_chain(void **state)
{
	struct cprof_image *image;
	struct cprof_names names;
	const struct cprof_name *name;
	uint64_t address;
	char expected[512];

	(void)state;
	sample_run("c++ -g -O2 -o prog sample.cc");
	image = sample_image("prog");
	address = find_chain(image, "prog", "_ZNK3box3getEi");
	names = sample_names(image, address, 0);
	name = names.names;
	assert_string_equal(text(&names, name[0].name), "deep<int>");
	assert_string_equal(text(&names, name[1].name), "part<int>");
	assert_string_equal(text(&names, name[2].name), "box::get");
	assert_string_equal(text(&names, name[2].system_name), "_ZNK3box3getEi");
	assert_int_equal(name[0].inlined, 1);
	assert_int_equal(name[1].inlined, 1);
	assert_int_equal(name[2].inlined, 0);
	snprintf(expected, sizeof(expected), "%s/part.h", sample_directory);
	assert_string_equal(text(&names, name[0].file), expected);
	assert_int_equal(name[0].file, name[1].file); /* one string */
	snprintf(expected, sizeof(expected), "%s/sample.cc", sample_directory);
	assert_string_equal(text(&names, name[2].file), expected);
	assert_in_range(name[0].line, 1, 7);
	assert_int_equal(name[1].line, 10);
	assert_int_equal(name[2].line, 4);
	assert_int_equal(name[0].start_line, 1);
	assert_int_equal(name[1].start_line, 8);
	assert_int_equal(name[2].start_line, 4);
	assert_int_equal(name[2].start, sample_symbol("prog", "_ZNK3box3getEi"));
	cprof_names_deinit(&names);
	cprof_image_destroy(image);
}

static void test_flags(void **state)
{
	struct cprof_image *image;
	struct cprof_names names;
	uint64_t address;
	char expected[512];

	(void)state;
	sample_run("c++ -g -O2 -o prog sample.cc");
	image = sample_image("prog");
	address = find_chain(image, "prog", "_ZNK3box3getEi");
	names = sample_names(image, address, CPROF_NAMES_NO_INLINES);
	assert_int_equal(names.count, 1);
	assert_string_equal(text(&names, names.names[0].name), "box::get");
	snprintf(expected, sizeof(expected), "%s/sample.cc", sample_directory);
	assert_string_equal(text(&names, names.names[0].file), expected);
	assert_int_equal(names.names[0].line, 4);
	assert_int_equal(names.names[0].inlined, 0);
	cprof_names_deinit(&names);
	names = sample_names(image, address, CPROF_NAMES_NO_LINES);
	assert_int_equal(names.count, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(names.names[i].line, 0);
		assert_int_equal(names.names[i].start_line, 0);
		assert_int_equal(names.names[i].file, 0);
	}
	cprof_names_deinit(&names);
	cprof_image_destroy(image);
}

/* A static function's DWARF has no linkage name; its symbol tells the scope. */
static void test_scope_by_symbol(void **state)
{
	struct cprof_image *image;
	struct cprof_names names;
	uint64_t address;

	(void)state;
	sample_run("c++ -g -O2 -o prog sample.cc");
	image = sample_image("prog");
	address = sample_symbol("prog", "_ZN12_GLOBAL__N_16hiddenEll");
	assert_int_not_equal(address, 0);
	names = sample_names(image, address, CPROF_NAMES_NO_INLINES);
	assert_int_equal(names.count, 1);
	assert_string_equal(text(&names, names.names[0].name), "(anonymous namespace)::hidden");
	assert_string_equal(text(&names, names.names[0].system_name),
			    "_ZN12_GLOBAL__N_16hiddenEll");
	cprof_names_deinit(&names);
	cprof_image_destroy(image);
}

static void test_relative_paths(void **state)
{
	struct cprof_image *image;
	struct cprof_names names;
	char expected[512];

	(void)state;
	for (unsigned version = 4; version <= 5; version++) {
		sample_run(
			"mkdir -p sub && cd sub && c++ -gdwarf-%u -O2 -o ../relative ../sample.cc",
			version);
		image = sample_image("relative");
		names = sample_names(image, sample_symbol("relative", "plain_c"), 0);
		assert_int_equal(names.count, 1);
		snprintf(expected, sizeof(expected), "%s/sub/../sample.cc", sample_directory);
		assert_string_equal(text(&names, names.names[0].file), expected);
		assert_string_equal(text(&names, names.names[0].name), "plain_c");
		assert_string_equal(text(&names, names.names[0].system_name), "plain_c");
		cprof_names_deinit(&names);
		cprof_image_destroy(image);
	}
}

static void test_batch(void **state)
{
	uint64_t addresses[5];
	struct cprof_image *image;
	struct cprof_names names;

	(void)state;
	sample_run("c++ -g -O1 -o prog sample.cc");
	image = sample_image("prog");
	addresses[0] = sample_symbol("prog", "plain_c");
	addresses[1] = 1; /* nothing there */
	addresses[2] = sample_symbol("prog", "main");
	addresses[3] = UINT64_MAX;
	addresses[4] = addresses[0];
	assert_null(cprof_image_names(image, addresses, 5, 0, &names));
	assert_int_equal(names.addresses, 5);
	assert_int_equal(names.first[0], 0);
	assert_int_equal(names.first[2], names.first[1]);
	assert_true(names.first[3] > names.first[2]);
	assert_int_equal(names.first[4], names.first[3]);
	assert_int_equal(names.first[5], names.count);
	assert_string_equal(text(&names, names.names[names.count - 1].name), "plain_c");
	assert_int_equal(names.names[names.count - 1].name, names.names[0].name);
	assert_string_equal(text(&names, 0), "");
	assert_int_not_equal(names.names[0].line, 0);
	cprof_names_deinit(&names);
	/* By the symbol table, and what it does not know by nothing. */
	assert_null(cprof_image_names(image, addresses, 5, CPROF_NAMES_SYMBOLS, &names));
	assert_int_equal(names.first[5], 3);
	assert_string_equal(text(&names, names.names[0].name), "plain_c");
	assert_int_equal(names.names[0].start, addresses[0]);
	assert_int_equal(names.names[0].line, 0);
	cprof_names_deinit(&names);
	assert_null(cprof_image_names(image, NULL, 0, 0, &names));
	assert_int_equal(names.count, 0);
	cprof_names_deinit(&names);
	cprof_image_destroy(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_demangle),       cmocka_unit_test(test_demangle_hostile),
		cmocka_unit_test(test_long_name),      cmocka_unit_test(test_chain),
		cmocka_unit_test(test_flags),          cmocka_unit_test(test_scope_by_symbol),
		cmocka_unit_test(test_relative_paths), cmocka_unit_test(test_batch),
	};

	return cmocka_run_group_tests(tests, sample_setup, sample_teardown);
}

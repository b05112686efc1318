/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * The parts of the live view that need no source: cells, names that are cut, keys, and what a
 * profile is made into.
 */
#include "../../tui/ui.h"

#include <cprof/analysis.h>
#include <cprof/util.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* --- cells --------------------------------------------------------------------------------- */

static char *dump(const struct cprof_cells *cells, bool color)
{
	size_t length;
	char *text;
	FILE *out = open_memstream(&text, &length);

	cprof_cells_dump(cells, color, out);
	fclose(out);
	return text;
}

static void assert_cells(const struct cprof_cells *cells, const char *expected)
{
	char *text = dump(cells, false);

	assert_string_equal(text, expected);
	free(text);
}

static void test_cells(void **state)
{
	struct cprof_cells cells = {.utf8 = true};

	(void)state;
	assert_true(cprof_cells_resize(&cells, 2, 6));
	assert_int_equal(cprof_cells_put(&cells, 0, 1, 10, CPROF_STYLE_NORMAL, "abcdefgh"), 5);
	cprof_cells_right(&cells, 1, 0, 6, CPROF_STYLE_NORMAL, "xy");
	assert_cells(&cells, " abcde\n    xy\n");
	/* Outside of it nothing happens. */
	assert_int_equal(cprof_cells_put(&cells, 2, 0, 5, CPROF_STYLE_NORMAL, "x"), 0);
	assert_int_equal(cprof_cells_put(&cells, -1, 0, 5, CPROF_STYLE_NORMAL, "x"), 0);
	assert_int_equal(cprof_cells_put(&cells, 0, 6, 5, CPROF_STYLE_NORMAL, "x"), 0);
	assert_int_equal(cprof_cells_put(&cells, 0, 0, -5, CPROF_STYLE_NORMAL, "x"), 0);
	cprof_cells_fill(&cells, 0, -3, 100, CPROF_STYLE_HEAD);
	cprof_cells_style(&cells, 7, 0, 1, CPROF_STYLE_HEAD);
	assert_cells(&cells, "\n    xy\n");
	cprof_cells_deinit(&cells);
}

static void test_cells_wide(void **state)
{
	struct cprof_cells cells = {.utf8 = true};

	(void)state;
	assert_true(cprof_cells_resize(&cells, 1, 5));
	/* A character of two columns that does not fit is left out. */
	assert_int_equal(cprof_cells_put(&cells, 0, 0, 5, CPROF_STYLE_NORMAL, "你好吗"), 4);
	assert_cells(&cells, "你好\n");
	/* Whose half is taken by another leaves a space. */
	cprof_cells_put(&cells, 0, 1, 1, CPROF_STYLE_NORMAL, "x");
	assert_cells(&cells, " x好\n");
	cprof_cells_put(&cells, 0, 2, 1, CPROF_STYLE_NORMAL, "y");
	assert_cells(&cells, " xy\n");
	/* What combines shares the cell; what is too much is dropped; it needs something before. */
	assert_int_equal(
		cprof_cells_put(&cells, 0, 0, 5, CPROF_STYLE_NORMAL, "\u0301e\u0301\u0302\u0303z"),
		2);
	assert_cells(&cells, "e\u0301\u0302zy\n");
	/* A joiner and a selector: a terminal may make two characters one, or one wider. */
	cprof_cells_put(&cells, 0, 0, 5, CPROF_STYLE_NORMAL, "a\u200db\u2764\ufe0f");
	assert_cells(&cells, "a?b\u2764?\n");
	/* Harm, bad UTF-8, and what this locale cannot show. */
	cprof_cells_put(&cells, 0, 0, 5, CPROF_STYLE_NORMAL, "\033\u202e\xff\xc3\xc2\x9b");
	assert_cells(&cells, "?????\n");
	cells.utf8 = false;
	cprof_cells_put(&cells, 0, 0, 5, CPROF_STYLE_NORMAL, "é…x");
	assert_cells(&cells, "??x??\n");
	cprof_cells_deinit(&cells);
}

static void test_cells_color(void **state)
{
	struct cprof_cells cells = {.utf8 = true};
	char *text;

	(void)state;
	assert_true(cprof_cells_resize(&cells, 1, 8));
	cprof_cells_put(&cells, 0, 0, 3, CPROF_STYLE_BOLD, "abc");
	cprof_cells_put(&cells, 0, 3, 3, CPROF_STYLE_NORMAL, "def");
	text = dump(&cells, true);
	assert_string_equal(text, "\033[0;1mabc\033[0mdef\n");
	free(text);
	cprof_cells_deinit(&cells);
}

static void assert_shortened(const char *name, int width, const char *expected)
{
	char text[256];

	cprof_text_shorten(name, width, true, text, sizeof(text));
	assert_string_equal(text, expected);
	assert_true(cprof_text_width(text, true) <= CPROF_MAX(width, 0));
}

static void test_shorten(void **state)
{
	static const char name[] =
		"std::vector<std::pair<int, long>, std::allocator<int> >::push_back(int const&)";

	(void)state;
	assert_shortened("main", 10, "main");
	assert_shortened(name, 100, name);
	assert_shortened(name, 75,
			 "std::vector<std::pair<int, long>, std::allocator<int> >::push_back(…)");
	assert_shortened(name, 40, "std::vector<…>::push_back(…)");
	assert_shortened(name, 25, "…vector<…>::push_back(…)");
	assert_shortened(name, 15, "…push_back(…)");
	assert_shortened(name, 8, "push_ba…");
	assert_shortened(name, 1, "…");
	assert_shortened("a::operator<(int, int)", 16, "a::operator<(…)");
	assert_shortened("a::b::operator()(int, char) const", 25, "a::b::operator()(…) const");
	assert_shortened("operator<< <char>(std::ostream&, char)", 25, "operator<< <char>(…)");
	assert_shortened("a<b<c>>::d<e>(f)", 9, "…d<e>(f)");
	assert_shortened("operator()<unsigned int, std::less<int> >", 20, "operator()<…>");
	assert_shortened("operator-<unsigned int*, int*>", 20, "operator-<…>");
	assert_shortened("(anonymous namespace)::f(int)", 8, "…f(…)");
}

/* --- keys ---------------------------------------------------------------------------------- */

static void test_keys(void **state)
{
	static const int expected[] = {
		'3',  '/',          'f', 0xe9, CPROF_KEY_ENTER, CPROF_KEY_UP, CPROF_KEY_ESCAPE,
		'\\', CPROF_KEY_TAB};
	const char *script = "3/f\u00e9\\n\\u\\e\\\\\\t";
	struct cprof_key key;
	struct cprof_error *error;

	(void)state;
	for (size_t i = 0; i < CPROF_COUNT(expected); i++) {
		assert_true(cprof_key_script(&script, &key));
		assert_int_equal(key.code, expected[i]);
	}
	assert_false(cprof_key_script(&script, &key));
	assert_null(cprof_key_script_check(NULL));
	assert_null(cprof_key_script_check("3/foo\\n"));
	error = cprof_key_script_check("a\\");
	assert_non_null(error);
	cprof_error_destroy(error);
	error = cprof_key_script_check("\\x1b");
	assert_non_null(error);
	cprof_error_destroy(error);
}

/* Every request has a key, and every key stands in the help: alone or beside the one before. */
static void test_bindings(void **state)
{
	bool seen[CPROF_REQUESTS] = {false};

	(void)state;
	for (const struct cprof_binding *binding = cprof_bindings; binding->request; binding++) {
		assert_false(seen[binding->request]);
		seen[binding->request] = true;
		assert_true(binding->help || binding > cprof_bindings);
		for (size_t i = 0; i < CPROF_COUNT(binding->codes) && binding->codes[i]; i++)
			assert_int_equal(cprof_key_request(binding->codes[i]), binding->request);
	}
	for (int i = 1; i < CPROF_REQUESTS; i++)
		assert_true(seen[i]);
	assert_int_equal(cprof_key_request('1'), CPROF_REQUEST_VIEW);
	assert_int_equal(cprof_key_request('6'), CPROF_REQUEST_VIEW);
	assert_int_equal(cprof_key_request('7'), CPROF_REQUEST_NONE);
	assert_int_equal(cprof_key_request(0), CPROF_REQUEST_NONE);
}

static void test_numbers(void **state)
{
	char text[32], value[CPROF_ANALYSIS_TEXT];

	(void)state;
	cprof_time_text(3100000000, text, sizeof(text));
	assert_string_equal(text, "3.1s");
	cprof_time_text(3723ull * 1000000000, text, sizeof(text));
	assert_string_equal(text, "62m03s");
	cprof_time_text(90000ull * 1000000000, text, sizeof(text));
	assert_string_equal(text, "25h00m");
	cprof_value_text(123456780000000, "nanoseconds", "s", 9, value);
	assert_string_equal(value, "34.29hrs");
	cprof_value_text(1234567890123, "count", "count", 9, value);
	assert_string_equal(value, "1.2e+12");
	cprof_value_text(1234567890123, "count", "count", 3, value);
	assert_string_equal(value, "#");
	cprof_bytes_text(0, text, sizeof(text));
	assert_string_equal(text, "0B");
	cprof_bytes_text(195 << 20, text, sizeof(text));
	assert_string_equal(text, "195M");
	cprof_bytes_text(1536, text, sizeof(text));
	assert_string_equal(text, "1.5K");
	cprof_bytes_text(1e30, text, sizeof(text));
	assert_true(strlen(text) > 0);
}

/* --- profiles as data ---------------------------------------------------------------------- */

static uint32_t frame(struct cprof_profile *p, const char *name)
{
	const struct cprof_profile_line line = {
		cprof_profile_function(
			p, &(struct cprof_profile_function){.name = cprof_profile_string(p, name)}),
		1};

	return cprof_profile_location_with(p, 0, 0, &line, 1, false);
}

/* a -> b -> c: 5; a -> b: 3; a -> c: 2; b -> b -> c: 4 */
static struct cprof_profile *example(void)
{
	struct cprof_profile *p;
	uint32_t a, b, c;

	assert_null(cprof_profile_create(&p));
	cprof_profile_add_type(p, "cpu", "nanoseconds");
	a = frame(p, "a");
	b = frame(p, "b");
	c = frame(p, "c");
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){c, b, a}, 3), 0, (int64_t[]){5});
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){b, a}, 2), 0, (int64_t[]){3});
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){c, a}, 2), 0, (int64_t[]){2});
	cprof_profile_add(p, cprof_profile_stack(p, (uint32_t[]){c, b, b}, 3), 0, (int64_t[]){4});
	return p;
}

static uint32_t row_of(const struct cprof_analysis *analysis, const char *name)
{
	for (uint32_t i = 0; i < analysis->count; i++)
		if (!strcmp(analysis->rows[i].name, name))
			return i;
	fail();
	return 0;
}

static void test_analysis(void **state)
{
	struct cprof_profile *p = example();
	struct cprof_analysis_peek peek;
	struct cprof_analysis_tree tree;
	struct cprof_analysis *analysis;
	uint32_t b;

	(void)state;
	assert_null(cprof_analysis_create(p, &analysis));
	b = row_of(analysis, "b");
	assert_int_equal(analysis->totals[0], 14);
	assert_int_equal(analysis->rows[b].flat[0], 3);
	assert_int_equal(analysis->rows[b].cum[0], 12); /* recursion counts once */
	assert_int_equal(analysis->rows[row_of(analysis, "c")].flat[0], 11);
	assert_int_equal(analysis->rows[row_of(analysis, "a")].cum[0], 10);

	assert_null(cprof_analysis_peek(analysis, b, 0, &peek));
	assert_int_equal(peek.caller_count, 1);
	assert_int_equal(peek.callers[0].value, 8);
	assert_int_equal(peek.callee_count, 1);
	assert_int_equal(peek.callees[0].value, 9);
	cprof_analysis_peek_deinit(&peek);

	assert_null(cprof_analysis_tree(analysis, 0, &tree));
	assert_int_equal(tree.count, 8);
	assert_int_equal(tree.nodes[0].value, 14);
	assert_int_equal(tree.nodes[0].self, 0);
	assert_int_equal(tree.nodes[tree.nodes[0].first].value, 10); /* a, then b */
	assert_int_equal(tree.nodes[tree.nodes[tree.nodes[0].first].next].value, 4);
	assert_int_equal(tree.depth, 3);
	for (size_t i = 0; i < tree.count; i++) {
		int64_t sum = tree.nodes[i].self;

		for (uint32_t child = tree.nodes[i].first; child; child = tree.nodes[child].next)
			sum += tree.nodes[child].value;
		assert_int_equal(sum, tree.nodes[i].value);
	}
	cprof_analysis_tree_deinit(&tree);
	cprof_analysis_destroy(analysis);
	cprof_profile_destroy(p);
}

static void test_select(void **state)
{
	struct cprof_profile *p = example(), *selected;
	struct cprof_error *error;

	(void)state;
	assert_null(cprof_analysis_select(p, &(struct cprof_analysis_filter){.focus = "^a$"},
					  &selected));
	assert_int_equal(selected->sample_count, 3);
	assert_int_equal(p->sample_count, 4);
	cprof_profile_destroy(selected);
	assert_null(cprof_analysis_select(p, &(struct cprof_analysis_filter){.tid = 7}, &selected));
	assert_int_equal(selected->sample_count, 0);
	cprof_profile_destroy(selected);
	error = cprof_analysis_select(p, &(struct cprof_analysis_filter){.focus = "("}, &selected);
	assert_non_null(error);
	cprof_error_destroy(error);
	cprof_profile_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cells),       cmocka_unit_test(test_cells_wide),
		cmocka_unit_test(test_cells_color), cmocka_unit_test(test_shorten),
		cmocka_unit_test(test_keys),        cmocka_unit_test(test_bindings),
		cmocka_unit_test(test_numbers),     cmocka_unit_test(test_analysis),
		cmocka_unit_test(test_select),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

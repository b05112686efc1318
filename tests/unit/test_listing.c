/* SPDX-License-Identifier: MIT
 *
 * Runs beside others.
 *
 * A function line by line and instruction by instruction, on a compiled sample: inlined code,
 * files that are not what they should be, names that lie.
 */
#include "sample.h"

#include <cprof/listing.h>
#include <errno.h>

/* A sample at every byte of `hidden`, as a leaf, called from one place in main. */
static struct cprof_profile *profile;
static uint64_t code_start;
static uint64_t code_end;
static char binary[300];

static const uint64_t bias = 0x555500000000;

static uint32_t add_location(struct cprof_image *image, uint32_t mapping, uint64_t address)
{
	struct cprof_names names = sample_names(image, address, 0);
	uint32_t location = cprof_profile_location(profile, mapping, address + bias);
	struct cprof_profile_line lines[16];

	for (size_t i = 0; i < names.count && i < 16; i++) {
		const struct cprof_name *name = &names.names[i];
		const struct cprof_profile_function function = {
			.name = cprof_profile_string(profile, names.strings + name->name),
			.system_name =
				cprof_profile_string(profile, names.strings + name->system_name),
			.file = cprof_profile_string(profile, names.strings + name->file),
			.start_line = name->start_line,
		};

		lines[i].function = cprof_profile_function(profile, &function);
		lines[i].line = name->line;
	}
	cprof_profile_set_lines(profile, location, lines, names.count);
	cprof_names_deinit(&names);
	return location;
}

static void make_profile(const char *build_id)
{
	struct cprof_image *image = sample_image("sample");
	const struct cprof_image_info *info = cprof_image_info(image);
	struct cprof_profile_mapping mapping = {0};
	char id[2 * CPROF_BUILD_ID_MAX + 1] = "";
	uint64_t image_bias;
	uint32_t caller;
	uint32_t mapped;

	for (uint32_t i = 0; i < info->build_id_length; i++)
		snprintf(id + 2 * i, 3, "%02x", info->build_id[i]);
	assert_null(cprof_profile_create(&profile));
	cprof_profile_add_type(profile, "samples", "count");
	snprintf(binary, sizeof(binary), "%s", sample_path("sample"));
	mapping.file = cprof_profile_string(profile, binary);
	mapping.build_id = cprof_profile_string(profile, build_id ? build_id : id);
	/* Mapped so that the bias comes out as ours. */
	assert_true(cprof_image_bias(image, 0, 0, &image_bias));
	mapping.start = bias - image_bias;
	mapping.limit = mapping.start + 0x100000;
	mapped = cprof_profile_mapping(profile, &mapping);
	code_start = sample_symbol("sample", "_ZN12_GLOBAL__N_16hiddenEll");
	assert_int_not_equal(code_start, 0);
	assert_true(cprof_image_function(image, code_start + 1, &code_start, &code_end));
	assert_false(cprof_image_function(image, 0, &image_bias, &image_bias));
	caller = add_location(image, mapped, sample_symbol("sample", "main") + 4);
	for (uint64_t at = code_start; at < code_end; at++) {
		uint32_t locations[2] = {add_location(image, mapped, at), caller};
		int64_t one = 1;

		cprof_profile_add(profile, cprof_profile_stack(profile, locations, 2), 0, &one);
	}
	cprof_image_destroy(image);
	assert_null(cprof_profile_check(profile));
}

static uint32_t find(const char *name)
{
	for (uint32_t i = 1; i < profile->function_count; i++)
		if (strstr(profile->strings[profile->functions[i].name], name))
			return i;
	fail_msg("no function %s", name);
	return 0;
}

static int end(void **state)
{
	(void)state;
	cprof_profile_destroy(cprof_take(profile));
	return 0;
}

static int setup(void **state)
{
	if (sample_setup(state))
		return -1;
	return sample_try("c++ -O2 -g -Wl,--build-id -o sample %s/sample.cc", sample_directory)
		       ? 0
		       : -1;
}

static const struct cprof_listing_row *row_of(const struct cprof_listing *listing, const char *text)
{
	for (size_t i = 0; i < listing->count; i++)
		if (strstr(listing->rows[i].text, text))
			return &listing->rows[i];
	fail_msg("no row %s", text);
	return NULL;
}

static void test_source(void **state)
{
	struct cprof_listing_options options = {0};
	struct cprof_listing *listing;
	const struct cprof_listing_row *row;
	int64_t total;
	int64_t flat = 0;
	int64_t own;

	(void)state;
	make_profile(NULL);
	total = (int64_t)(code_end - code_start);
	assert_null(cprof_listing_source(profile, find("hidden"), &options, &listing));
	assert_non_null(strstr(listing->function, "hidden"));
	assert_non_null(strstr(listing->file, "sample.cc"));
	/* All samples pass through it, and what is inlined into it is not its own. */
	assert_int_equal(listing->cum, total);
	assert_in_range(listing->flat, 1, total - 1);
	own = listing->flat;
	for (size_t i = 0; i < listing->count; i++) {
		flat += listing->rows[i].flat;
		assert_true(listing->rows[i].cum >= listing->rows[i].flat);
		assert_int_equal(listing->rows[i].line, listing->rows[0].line + (int64_t)i);
		assert_int_equal(listing->rows[i].address, 0);
	}
	assert_int_equal(flat, listing->flat);
	row = row_of(listing, "a += part<long>(a, i) * i;");
	assert_true(row->cum > row->flat);
	assert_true(&listing->rows[listing->hottest] >= listing->rows);
	cprof_listing_destroy(listing);
	/* Inlined two deep: its lines count, wherever it has been inlined into. */
	assert_null(cprof_listing_source(profile, find("deep"), &options, &listing));
	row = row_of(listing, "sum ^= i * 7;");
	assert_true(row->flat > 0 && row->flat == row->cum);
	assert_in_range(listing->cum, listing->flat, total - own);
	assert_non_null(strstr(listing->file, "part.h"));
	cprof_listing_destroy(listing);
	assert_null(cprof_listing_source(profile, find("part<"), &options, &listing));
	row = row_of(listing, "return deep<T>(x) + deep<T>(y);");
	assert_true(row->cum > row->flat);
	cprof_listing_destroy(listing);
	/* main's line is that of a call: nothing is its own. */
	assert_null(cprof_listing_source(profile, find("main"), &options, &listing));
	assert_int_equal(listing->flat, 0);
	assert_int_equal(listing->cum, total);
	cprof_listing_destroy(listing);
}

static void test_code(void **state)
{
	struct cprof_listing_options options = {0};
	struct cprof_listing *listing;
	int64_t flat = 0;
	bool ret = false;

	(void)state;
	make_profile(NULL);
	assert_null(cprof_listing_code(profile, find("hidden"), &options, &listing));
	assert_string_equal(listing->file, binary);
	assert_int_equal(listing->rows[0].address, code_start);
	for (size_t i = 0; i < listing->count; i++) {
		const struct cprof_listing_row *row = &listing->rows[i];
		uint64_t next = i + 1 < listing->count ? listing->rows[i + 1].address : code_end;

		/* A sample at every byte: an instruction has as many as it is long. */
		assert_int_equal(row->flat, next - row->address);
		assert_int_equal(row->cum, row->flat);
		assert_true(row->line > 0);
		flat += row->flat;
		ret |= !strncmp(row->text, "ret", 3);
	}
	assert_int_equal(flat, code_end - code_start);
	assert_true(ret);
	cprof_listing_destroy(listing);
	/* Of what is inlined its own instructions only. */
	assert_null(cprof_listing_code(profile, find("deep"), &options, &listing));
	assert_int_equal(listing->rows[0].address, code_start);
	flat = 0;
	for (size_t i = 0; i < listing->count; i++)
		flat += listing->rows[i].flat;
	assert_int_equal(flat, listing->cum);
	assert_in_range(flat, 1, code_end - code_start - 1);
	cprof_listing_destroy(listing);
}

static void refused(struct cprof_error *error, const char *text)
{
	assert_non_null(error);
	if (!strstr(error->message, text))
		fail_msg("%s: not %s", error->message, text);
	assert_int_equal(error->status, CPROF_FAILED);
	cprof_error_destroy(error);
}

static int opens;

static int open_other(void *context, const char *path)
{
	opens++;
	(void)path;
	return context ? open(context, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
}

static void test_wrong_files(void **state)
{
	struct cprof_listing_options options = {.open = open_other};
	struct cprof_listing *listing = NULL;
	char source_path[300];
	uint32_t hidden;

	(void)state;
	make_profile("0123456789abcdef");
	hidden = find("hidden");
	refused(cprof_listing_code(profile, hidden, &(struct cprof_listing_options){0}, &listing),
		"build-id");
	options.context = (void *)"/dev/zero";
	refused(cprof_listing_code(profile, hidden, &options, &listing), "not a regular file");
	refused(cprof_listing_source(profile, hidden, &options, &listing), "not a regular file");
	sample_run("mkfifo fifo && : >empty && head -c 34M /dev/zero >large && "
		   "head -c 100000 /dev/urandom >noise && mkdir -p elsewhere/src && "
		   "cp sample.cc elsewhere/src/");
	options.context = (void *)sample_path("fifo");
	refused(cprof_listing_source(profile, hidden, &options, &listing), "not a regular file");
	options.context = (void *)sample_path("empty");
	refused(cprof_listing_source(profile, hidden, &options, &listing), "fewer lines");
	refused(cprof_listing_code(profile, hidden, &options, &listing), "");
	options.context = (void *)sample_path("large");
	refused(cprof_listing_source(profile, hidden, &options, &listing), "larger than");
	options.context = (void *)sample_path("noise"); /* whatever it is: no harm */
	cprof_error_destroy(cprof_listing_source(profile, hidden, &options, &listing));
	cprof_listing_destroy(cprof_take(listing));
	assert_true(opens > 4);
	options.context = NULL;
	errno = ENOENT;
	refused(cprof_listing_source(profile, hidden, &options, &listing), "No such file");
	/* Below a directory that was named. */
	snprintf(source_path, sizeof(source_path), "/nowhere:%s", sample_path("elsewhere/src"));
	options.source_path = source_path;
	assert_null(cprof_listing_source(profile, hidden, &options, &listing));
	assert_true(listing->count > 0);
	cprof_listing_destroy(listing);
	refused(cprof_listing_source(profile, 0, &options, &listing), "nothing is known");
	refused(cprof_listing_source(profile, 100000, &options, &listing), "nothing is known");
	options.type = 7;
	refused(cprof_listing_source(profile, hidden, &options, &listing), "nothing is known");
}

/* Lines and addresses that a profile makes up. */
static void test_made_up(void **state)
{
	static const int64_t lines[] = {0, -5, INT64_MIN, INT64_MAX, 7, 1};
	struct cprof_listing_options options = {0};
	struct cprof_listing *listing = NULL;
	uint32_t locations[CPROF_COUNT(lines)];
	struct cprof_profile_function function = {.start_line = INT64_MIN};
	struct cprof_profile_mapping mapping = {.start = UINT64_MAX - 4096, .limit = 1};
	uint32_t id;

	(void)state;
	assert_null(cprof_profile_create(&profile));
	cprof_profile_add_type(profile, "samples", "count");
	function.name = cprof_profile_string(profile, "f");
	function.file = cprof_profile_string(profile, sample_path("sample.cc"));
	id = cprof_profile_function(profile, &function);
	mapping.file = cprof_profile_string(profile, sample_path("sample"));
	for (size_t i = 0; i < CPROF_COUNT(lines); i++) {
		const struct cprof_profile_line line = {.function = id, .line = lines[i]};
		int64_t value = i % 2 ? INT64_MAX : INT64_MIN;

		locations[i] = cprof_profile_location_with(
			profile, cprof_profile_mapping(profile, &mapping), 16 * i, &line, 1, false);
		cprof_profile_add(profile, cprof_profile_stack(profile, locations, i + 1), 0,
				  &value);
	}
	cprof_error_destroy(cprof_listing_source(profile, id, &options, &listing));
	cprof_listing_destroy(cprof_take(listing));
	cprof_error_destroy(cprof_listing_code(profile, id, &options, &listing));
	cprof_listing_destroy(cprof_take(listing));
	/* Without a file or a mapping. */
	function.file = 0;
	id = cprof_profile_function(profile, &function);
	refused(cprof_listing_source(profile, id, &options, &listing), "not known");
	refused(cprof_listing_code(profile, id, &options, &listing), "no address");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_source, end),
		cmocka_unit_test_teardown(test_code, end),
		cmocka_unit_test_teardown(test_wrong_files, end),
		cmocka_unit_test_teardown(test_made_up, end),
	};

	return cmocka_run_group_tests(tests, setup, sample_teardown);
}

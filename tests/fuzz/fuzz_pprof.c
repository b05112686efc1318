/* SPDX-License-Identifier: MIT
 *
 * The profile reader on any bytes; what it accepts is reported on, written, and read again.
 */
#include <cprof/pprof.h>
#include <cprof/report.h>
#include <cprof/util.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void report(const struct cprof_profile *profile, FILE *out, unsigned choice)
{
	const struct cprof_report_options options = {
		.by = (enum cprof_report_by)(choice % 3),
		.cum = choice & 4,
		.count = choice & 8 ? 3 : 0,
		.focus = choice & 16 ? "a" : NULL,
		.ignore = choice & 32 ? "main" : NULL,
	};

	cprof_error_destroy(cprof_report_top(profile, &options, out));
	cprof_error_destroy(cprof_report_folded(profile, &options, out));
	cprof_error_destroy(cprof_report_json(profile, out));
	cprof_error_destroy(cprof_report_locks(profile, &options, out));
	cprof_error_destroy(cprof_report_locks_json(profile, &options, out));
}

/* What we wrote must be readable, and holds no more samples than before. */
static void write_twice(const struct cprof_profile *profile)
{
	CPROF_AUTO_FREE void *once = NULL;
	CPROF_AUTO_FREE void *twice = NULL;
	size_t once_length, twice_length;
	struct cprof_profile *copy;

	if (cprof_pprof_encode(profile, &once, &once_length))
		abort();
	if (cprof_pprof_decode(once, once_length, &copy))
		abort();
	if (copy->sample_count > profile->sample_count)
		abort();
	if (cprof_pprof_encode(copy, &twice, &twice_length))
		abort();
	cprof_profile_destroy(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static FILE *sink;
	struct cprof_profile *profile, *sum;

	if (!sink)
		sink = fopen("/dev/null", "we");
	cprof_error_destroy(cprof_pprof_decode(bytes, length, &profile));
	if (!profile)
		return 0;
	report(profile, sink, length ? bytes[length - 1] : 0);
	write_twice(profile);
	if (!cprof_profile_create(&sum)) {
		cprof_error_destroy(cprof_profile_merge(sum, profile, 1));
		cprof_error_destroy(cprof_profile_merge(sum, profile, -0.5));
		cprof_profile_destroy(sum);
	}
	cprof_profile_destroy(profile);
	return 0;
}

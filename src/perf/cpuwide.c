/* SPDX-License-Identifier: MIT
 *
 * The CPU-wide way: one sampling event per CPU, filtered by BPF.
 */
#include "private.h"
#include <errno.h>

struct cprof_error *cprof_cpuwide_open(struct cprof_perf *perf)
{
	for (size_t i = 0; i < perf->ring_count; i++) {
		int status = cprof_event_add(perf, -1, i);

		if (status < 0 && status != -ENODEV)
			return cprof_event_error(perf, -status);
	}
	return NULL;
}

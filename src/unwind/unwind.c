/* SPDX-License-Identifier: MIT */
#include "step.h"

#include <cprof/util.h>

const char *cprof_end_name(enum cprof_end end)
{
	static const char *const names[CPROF_ENDS] = {"complete", "truncated", "no_cfi", "corrupt"};

	return names[end];
}

const char *cprof_end_marker(enum cprof_end end)
{
	static const char *const markers[CPROF_ENDS] = {NULL, "[truncated stack]",
							"[no unwind info]", "[corrupt stack]"};

	return markers[end];
}

const struct cprof_unwinder_ops *cprof_unwinder_find(const char *name)
{
	static const struct cprof_unwinder_ops *const all[] = {
		&cprof_unwinder_cfi, &cprof_unwinder_fp, &cprof_unwinder_libunwind};

	for (size_t i = 0; i < CPROF_COUNT(all); i++)
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	return NULL;
}

enum cprof_end cprof_step_end(enum cprof_step step)
{
	switch (step) {
	case CPROF_STEP_END:
		return CPROF_END_COMPLETE;
	case CPROF_STEP_NO_CFI:
		return CPROF_END_NO_CFI;
	case CPROF_STEP_CORRUPT:
		return CPROF_END_CORRUPT;
	case CPROF_STEP_OK: /* there was no room for the next frame */
	case CPROF_STEP_OFF_STACK:
		break;
	}
	return CPROF_END_TRUNCATED;
}

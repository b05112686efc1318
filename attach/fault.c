/* SPDX-License-Identifier: MIT
 *
 * Fault points: tests kill the tracer, its parent or the target after any step of an injection.
 */
#include "remote.h"

#include <cprof/util.h>
#include <string.h>

static const char *const points[] = {
#define CPROF_FAULT_NAME_(id, name) name,
	CPROF_FAULT_POINTS(CPROF_FAULT_NAME_)
#undef CPROF_FAULT_NAME_
};

static const char *const victims[] = {"", "tracer", "profiler", "both", "target"};

static bool find(const char *const *names, size_t count, const char *name, size_t length,
		 uint32_t *index)
{
	for (uint32_t i = 1; i < count; i++) {
		if (strlen(names[i]) == length && strncmp(names[i], name, length) == 0) {
			*index = i;
			return true;
		}
	}
	return false;
}

bool cprof_fault_init(struct cprof_fault *fault)
{
	const char *text = getenv("CPROF_ATTACH_FAULT");
	size_t length;

	*fault = (struct cprof_fault){.victim = CPROF_FAULT_TRACER, .profiler = getpid()};
	if (!text)
		return true;
	length = strcspn(text, ":");
	return find(points, CPROF_COUNT(points), text, length, &fault->point) &&
	       (!text[length] || find(victims, CPROF_COUNT(victims), text + length + 1,
				      strlen(text + length + 1), &fault->victim));
}

void cprof_fault_reached(const struct cprof_fault *fault, enum cprof_fault_point point, pid_t pid)
{
	if (fault->point != point || point == CPROF_FAULT_NONE)
		return;
	if (fault->victim == CPROF_FAULT_TARGET)
		kill(pid, SIGKILL);
	if (fault->victim == CPROF_FAULT_PROFILER || fault->victim == CPROF_FAULT_BOTH)
		kill(fault->profiler, SIGKILL);
	if (fault->victim == CPROF_FAULT_TRACER || fault->victim == CPROF_FAULT_BOTH)
		kill(getpid(), SIGKILL);
}

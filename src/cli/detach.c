/* SPDX-License-Identifier: MIT
 *
 * `detach`: what a killed profiler left in a process, told or removed.
 */
#include "private.h"

#define STATUS_SOMETHING 1 /* --check found something */

static bool is_clean(const struct cprof_agent_remains *remains)
{
	return !remains->hooked && !remains->mapped && !remains->memfd;
}

static void tell(const struct cprof_target *target, const struct cprof_agent_remains *remains,
		 const char *what)
{
	int pid = (int)cprof_target_info(target)->pid;

	if (!remains->base) {
		printf("process %d: clean: nothing has been put into it\n", pid);
		return;
	}
	printf("process %d: %s: agent at 0x%llx, %llu slots%s%s", pid, what,
	       (unsigned long long)remains->base, (unsigned long long)remains->slots,
	       remains->mapped ? ", memory" : "", remains->memfd ? ", a descriptor" : "");
	if (remains->in_use)
		printf(", used by a profiler that is at work");
	if (remains->in_use && remains->host_pid)
		printf(" (pid %d)", remains->host_pid);
	putchar('\n');
}

static struct cprof_error *look(const struct cprof_options *options, struct cprof_target *target,
				int *status)
{
	struct cprof_agent_remains remains = {0};
	bool clean;

	CPROF_TRY(cprof_agent_find(target, &remains));
	clean = is_clean(&remains);
	if (!clean && !options->check)
		CPROF_TRY(cprof_agent_clean(target, &remains));
	if (!options->quiet)
		tell(target, &remains,
		     clean            ? "clean, the agent sleeps"
		     : options->check ? "something is left"
				      : "cleaned");
	if (!clean && options->check)
		*status = STATUS_SOMETHING;
	return NULL;
}

struct cprof_error *cprof_verb_detach(const struct cprof_options *options, int *status)
{
	struct cprof_target *target;
	struct cprof_error *error;

	*status = CPROF_OK;
	if (!options->pid)
		return cprof_usage_error(options->verb, "detach: which process? -p is missing");
	if (options->argument_count)
		return cprof_usage_error(options->verb, "detach: what is `%s`?",
					 options->arguments[0]);
	CPROF_TRY(cprof_target_create(options->pid, &target));
	error = look(options, target, status);
	cprof_target_destroy(target);
	return error;
}

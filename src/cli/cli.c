/* SPDX-License-Identifier: MIT
 *
 * From argv to the exit status.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>

struct cprof_error *cprof_verb_none(const struct cprof_options *options, int *status)
{
	char verbs[128];

	*status = CPROF_OK;
	if (options->pid)
		return cprof_verb_live(options, status);
	cprof_help_verbs(verbs, sizeof(verbs));
	return cprof_usage_error(NULL, "which verb? (there are %s)", verbs);
}

static struct cprof_error *run(int argc, char **argv, int *status)
{
	struct cprof_options options;
	struct cprof_error *error = cprof_options_init(argc, argv, &options);

	*status = CPROF_OK;
	if (!error && options.help)
		cprof_help_print(options.verb, stdout);
	else if (!error && options.version)
		printf("cprof-attach %s\n", CPROF_VERSION);
	else if (!error)
		error = options.verb->run(&options, status);
	cprof_options_deinit(&options);
	return error;
}

int cprof_cli(int argc, char **argv)
{
	struct cprof_error *error;
	int status, fd;

	/* Nothing opened later may become stdin, stdout or stderr by chance. Read-only, so that
	 * writing to a stdout that was closed is an error. */
	do
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	error = run(argc, argv, &status);
	if (!error && (fflush(stdout) || ferror(stdout)))
		error = cprof_error_errno(CPROF_FAILED, errno, NULL, "stdout");
	if (!error)
		return status;
	if (!status)
		status = error->status;
	cprof_error_print(error, stderr);
	cprof_error_destroy(error);
	return status;
}

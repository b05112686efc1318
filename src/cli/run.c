/* SPDX-License-Identifier: MIT
 *
 * `run`: a command profiled from its first instruction. The child waits on a pipe until sampling
 * has begun, then execs; what it did before is discarded by the session.
 */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#define STATUS_CANNOT_RUN 126
#define STATUS_NOT_FOUND  127

static void __attribute__((noreturn)) run_child(char **arguments, int go, int failed)
{
	ssize_t written;
	int errnum;
	char byte;

	cprof_signals_restore();
	if (read(go, &byte, 1) != 1)
		_exit(STATUS_NOT_FOUND); /* the profiler gave up */
	execvp(arguments[0], arguments);
	errnum = errno;
	written = write(failed, &errnum, sizeof(errnum));
	(void)written;
	_exit(STATUS_NOT_FOUND);
}

struct cprof_error *cprof_command_start(char **arguments, struct cprof_command *command)
{
	int go[2], failed[2];

	if (pipe2(go, O_CLOEXEC))
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "pipe");
	if (pipe2(failed, O_CLOEXEC)) {
		struct cprof_error *error = cprof_error_errno(CPROF_FAILED, errno, NULL, "pipe");

		close(go[0]);
		close(go[1]);
		return error;
	}
	command->pid = fork();
	if (!command->pid) {
		close(go[1]);
		close(failed[0]);
		run_child(arguments, go[0], failed[1]);
	}
	close(go[0]);
	close(failed[1]);
	command->go = go[1];
	command->failed = failed[0];
	if (command->pid < 0) {
		close(go[1]);
		close(failed[0]);
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "fork");
	}
	return NULL;
}

/* The errno of a failure, or 0. */
static int release(struct cprof_command *command)
{
	int errnum = 0;
	ssize_t length = write(command->go, "", 1);

	close(command->go);
	command->go = -1;
	do
		length = read(command->failed, &errnum, sizeof(errnum));
	while (length < 0 && errno == EINTR);
	return length == sizeof(errnum) ? errnum : 0;
}

struct cprof_error *cprof_command_release(struct cprof_command *command, const char *name,
					  int *status)
{
	int errnum = release(command);

	if (!errnum)
		return NULL;
	*status = errnum == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
	return cprof_error_errno(CPROF_FAILED, errnum, NULL, "run %s", name);
}

int cprof_command_await(struct cprof_command *command)
{
	siginfo_t info = {0};
	int status = 0;

	if (command->go >= 0)
		close(command->go);
	close(command->failed);
	cprof_signals_open(false);
	while (waitid(P_PID, (id_t)command->pid, &info, WEXITED | WNOWAIT) && errno == EINTR)
		;
	cprof_signals_close();
	cprof_signals_forward(0); /* the pid is still its own: it has not been reaped */
	while (waitpid(command->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* How the command will be known; its argument 0 without the directories. */
static void name_command(struct cprof_recording *recording, const char *argument)
{
	const char *slash = strrchr(argument, '/');

	/* 15 bytes, as the kernel keeps of a name */
	snprintf(recording->comm, sizeof(recording->comm), "%.15s", slash ? slash + 1 : argument);
}

#define AGENT_KINDS ((unsigned)(CPROF_KIND_HEAP | CPROF_KIND_MUTEX))

/* The agent cannot be planted. Without anything else to profile, the command is not run: it has
 * executed nothing of its own yet. */
static struct cprof_error *give_up_agent(struct cprof_recording *recording,
					 struct cprof_error *error)
{
	if (!(recording->kinds & ~AGENT_KINDS)) {
		kill(recording->pid, SIGKILL);
		return error;
	}
	cprof_note(recording->options, "no %s profile: %s",
		   recording->kinds & CPROF_KIND_HEAP ? "heap" : "mutex", error->message);
	cprof_error_destroy(error);
	recording->kinds &= ~AGENT_KINDS;
	return NULL;
}

/* Lets the command go up to its entry point, plants the agent there, lets it go on. */
static struct cprof_error *release_hooked(struct cprof_recording *recording,
					  struct cprof_command *command, int *status)
{
	struct cprof_entry *entry = NULL;
	struct cprof_error *error = cprof_entry_create(command->pid, &entry);

	if (error)
		CPROF_TRY(give_up_agent(recording, error));
	error = cprof_command_release(command, recording->options->arguments[0], status);
	if (!error && entry) {
		error = cprof_entry_wait(entry);
		if (!error)
			error = cprof_session_plant(recording->session, entry);
		if (error)
			error = give_up_agent(recording, error);
	}
	cprof_entry_destroy(entry);
	return error;
}

/* `*ran` is set once the command runs: then its exit status is ours. */
static struct cprof_error *take(struct cprof_recording *recording, struct cprof_command *command,
				int *status, bool *ran)
{
	uint64_t started_ns = cprof_now_ns();
	struct cprof_error *error;

	CPROF_TRY(cprof_recording_check(recording));
	CPROF_TRY(cprof_recording_create_session(recording, started_ns));
	if (recording->kinds & AGENT_KINDS)
		error = release_hooked(recording, command, status);
	else
		error = cprof_command_release(command, recording->options->arguments[0], status);
	*ran = !error;
	if (!error)
		error = cprof_recording_finish(recording);
	cprof_session_destroy(recording->session);
	return error;
}

struct cprof_error *cprof_verb_run(const struct cprof_options *options, int *status)
{
	struct cprof_recording recording = {
		.options = options, .kinds = cprof_kinds(options), .await_exec = true};
	struct cprof_command command = {.go = -1, .failed = -1};
	struct cprof_error *error;
	bool ran = false;
	int result;

	*status = CPROF_OK;
	if (!options->argument_count || !*options->arguments[0])
		return cprof_usage_error(options->verb, "run: which command?");
	if (options->kinds & CPROF_KIND_THREADS)
		return cprof_usage_error(
			options->verb,
			"run: no dump of a command that has ended; use threads -p PID");
	if (options->duration_ns != CPROF_DURATION_DEFAULT)
		recording.duration_ns = options->duration_ns;
	name_command(&recording, options->arguments[0]);
	cprof_signals_init();
	CPROF_TRY(cprof_command_start(options->arguments, &command));
	cprof_signals_forward(command.pid);
	recording.pid = command.pid;
	error = take(&recording, &command, status, &ran);
	result = cprof_command_await(&command); /* not let go, it sees the pipe's end and exits */
	if (ran)
		*status = result;
	return error;
}

/* SPDX-License-Identifier: MIT
 *
 * Starts a command held at its entry point, plants the agent there, and leaves after so many ms:
 * `runheap MS COMMAND ARGUMENTS…`. The last line tells how many slots were patched; the exit
 * status is the command's. MS -1: lets it go unplanted.
 */
#include <cprof/attach.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cprof_error *profile(pid_t child, int go, int ms)
{
	struct cprof_entry *entry;
	struct cprof_target *target;
	struct cprof_agent *agent = NULL;
	struct cprof_agent_stats stats = {.stops = 0};
	struct cprof_error *error;

	CPROF_TRY(cprof_entry_create(child, &entry));
	close(go);
	error = cprof_entry_wait(entry);
	if (!error)
		error = cprof_target_create(child, &target);
	if (!error && ms >= 0)
		error = cprof_entry_plant(entry, target, NULL, &agent);
	cprof_entry_destroy(entry);
	for (int i = 0; agent && !error && i < ms; i++) {
		usleep(1000);
		error = cprof_agent_tick(agent);
	}
	if (agent)
		cprof_agent_stats(agent, &stats);
	cprof_agent_destroy(agent);
	printf("patched %lu stops %lu\n", stats.slots_patched, stats.attach_stops);
	return error;
}

int main(int argc, char **argv)
{
	int go[2];
	int status;
	char byte;
	pid_t child;
	struct cprof_error *error;

	if (argc < 3 || pipe(go) != 0)
		return 2;
	child = fork();
	if (child == 0) {
		close(go[1]);
		while (read(go[0], &byte, 1) < 0 && errno == EINTR)
			continue;
		close(go[0]);
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	close(go[0]);
	error = profile(child, go[1], atoi(argv[1]));
	if (error)
		cprof_error_print(error, stderr);
	cprof_error_destroy(error);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

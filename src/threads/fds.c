/* SPDX-License-Identifier: MIT
 *
 * What the target's file descriptors are, by their links in /proc/PID/fd. Nothing is opened.
 */
#include "private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDINFO_LIMIT (1u << 20)
#define KNOWN_MAX    4096 /* remembered; beyond, each is looked at again */

/* How many descriptors an epoll watches: a line "tfd: …" each. */
static void describe_epoll(const struct cprof_fds *fds, struct cprof_fd *known)
{
	CPROF_AUTO_FREE char *info = NULL;
	unsigned watched = 0;
	char path[64];

	snprintf(path, sizeof(path), "fdinfo/%d", known->fd);
	info = cprof_read_file_at(cprof_target_procfd(fds->target), path, FDINFO_LIMIT, NULL);
	for (const char *at = info; at && (at = strstr(at, "tfd:")); at++)
		watched++;
	if (info)
		snprintf(known->text, sizeof(known->text), "epoll of %u fds", watched);
	else
		snprintf(known->text, sizeof(known->text), "epoll");
}

static bool is_fifo(const struct cprof_fds *fds, const char *path)
{
	struct statx status;

	/* What is known without asking a file system that may not answer. */
	return statx(cprof_target_procfd(fds->target), path, AT_STATX_DONT_SYNC, STATX_TYPE,
		     &status) == 0 &&
	       S_ISFIFO(status.stx_mode);
}

static void describe(struct cprof_fds *fds, const char *path, char *link, struct cprof_fd *known)
{
	unsigned long long inode;
	const char *socket;
	char end;

	known->kind = CPROF_WAIT_FILE;
	if (sscanf(link, "socket:[%llu%c", &inode, &end) == 2 && end == ']') {
		known->kind = CPROF_WAIT_SOCKET;
		socket = cprof_sockets_find(fds, inode);
		cprof_text_clean(socket ? socket : link, strlen(socket ? socket : link),
				 known->text, sizeof(known->text));
		return;
	}
	if (strncmp(link, "anon_inode:", 11) == 0) {
		char *name = link + 11;
		size_t length = strlen(name);

		known->kind = CPROF_WAIT_POLL;
		if (length > 2 && name[0] == '[' && name[length - 1] == ']') {
			name[length - 1] = '\0';
			name++;
		}
		if (strcmp(name, "eventpoll") == 0)
			describe_epoll(fds, known);
		else
			cprof_text_clean(name, strlen(name), known->text, sizeof(known->text));
		return;
	}
	if (strncmp(link, "pipe:[", 6) == 0 || (link[0] == '/' && is_fifo(fds, path)))
		known->kind = CPROF_WAIT_PIPE;
	cprof_text_clean(link, strlen(link), known->text, sizeof(known->text));
}

const struct cprof_fd *cprof_fds_find(struct cprof_fds *fds, int fd)
{
	struct cprof_fd known = {.fd = fd};
	char link[4096];
	char path[64];
	ssize_t length;

	for (size_t i = 0; i < fds->count; i++)
		if (fds->known[i].fd == fd)
			return &fds->known[i];
	if (fd < 0)
		return NULL;
	snprintf(path, sizeof(path), "fd/%d", fd);
	length = readlinkat(cprof_target_procfd(fds->target), path, link, sizeof(link) - 1);
	if (length < 0)
		return NULL;
	link[length] = '\0';
	describe(fds, path, link, &known);
	if (fds->count == KNOWN_MAX)
		fds->count = 0;
	if (!cprof_grow(&fds->known, &fds->capacity, fds->count + 1, sizeof(known)))
		return NULL;
	fds->known[fds->count] = known;
	return &fds->known[fds->count++];
}

void cprof_fds_deinit(struct cprof_fds *fds)
{
	free(fds->known);
	free(fds->sockets);
}

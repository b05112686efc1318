/* SPDX-License-Identifier: MIT
 *
 * The sockets of the target's network namespace by inode, from /proc/PID/net.
 */
#include "private.h"

#include <arpa/inet.h>
#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_LIMIT       (16u << 20) /* bytes of one table that are read */
#define TCP_LISTEN        10          /* include/net/tcp_states.h */
#define SO_ACCEPTCON_FLAG 0x10000     /* a listening unix socket: include/linux/net.h */

static struct cprof_socket *add_socket(struct cprof_fds *fds, uint64_t inode)
{
	struct cprof_socket *socket;

	if (!inode || !cprof_grow(&fds->sockets, &fds->socket_capacity, fds->socket_count + 1,
				  sizeof(*socket)))
		return NULL;
	socket = &fds->sockets[fds->socket_count++];
	*socket = (struct cprof_socket){.inode = inode};
	return socket;
}

/* "0100007F" or four such words, each as the machine stores it, to "127.0.0.1:port". */
static bool address_text(const char *hex, unsigned port, char *text, size_t size)
{
	size_t words = strlen(hex) / 8;
	char name[INET6_ADDRSTRLEN];
	uint32_t address[4];

	if (words != 1 && words != 4)
		return false;
	for (size_t i = 0; i < words; i++) {
		char word[9] = "";

		memcpy(word, hex + 8 * i, 8);
		address[i] = (uint32_t)strtoul(word, NULL, 16);
	}
	if (!inet_ntop(words == 1 ? AF_INET : AF_INET6, address, name, sizeof(name)))
		return false;
	snprintf(text, size, words == 1 ? "%s:%u" : "[%s]:%u", name, port);
	return true;
}

static void add_internet(struct cprof_fds *fds, const char *protocol, const char *line)
{
	char local[64];
	char remote[64];
	char local_hex[33];
	char remote_hex[33];
	unsigned local_port;
	unsigned remote_port;
	unsigned state;
	unsigned long long inode;
	struct cprof_socket *socket;

	if (sscanf(line, " %*u: %32[0-9A-Fa-f]:%x %32[0-9A-Fa-f]:%x %x %*s %*s %*s %*u %*d %llu",
		   local_hex, &local_port, remote_hex, &remote_port, &state, &inode) != 6 ||
	    !address_text(local_hex, local_port, local, sizeof(local)) ||
	    !address_text(remote_hex, remote_port, remote, sizeof(remote)))
		return;
	socket = add_socket(fds, inode);
	if (!socket)
		return;
	if (strncmp(protocol, "tcp", 3) == 0 && state == TCP_LISTEN)
		snprintf(socket->text, sizeof(socket->text), "%.3s %s listening", protocol, local);
	else if (!remote_port)
		snprintf(socket->text, sizeof(socket->text), "%.3s %s", protocol, local);
	else
		snprintf(socket->text, sizeof(socket->text), "%.3s %s -> %s", protocol, local,
			 remote);
}

static void add_unix(struct cprof_fds *fds, const char *protocol, const char *line)
{
	unsigned long long inode;
	struct cprof_socket *socket;
	unsigned flags;
	int path = 0;
	char text[108];

	if (sscanf(line, "%*x: %*x %*x %x %*x %*x %llu%n", &flags, &inode, &path) != 2 || !path)
		return;
	socket = add_socket(fds, inode);
	if (!socket)
		return;
	path += line[path] == ' ';
	cprof_text_clean(line + path, strlen(line + path), text, sizeof(text));
	snprintf(socket->text, sizeof(socket->text), "%s%s%s%s", protocol, text[0] ? " " : "", text,
		 flags & SO_ACCEPTCON_FLAG ? " listening" : "");
}

static int compare_sockets(const void *a, const void *b)
{
	const struct cprof_socket *x = a;
	const struct cprof_socket *y = b;

	return (x->inode > y->inode) - (x->inode < y->inode);
}

static void read_sockets(struct cprof_fds *fds)
{
	static const struct {
		const char *name;
		void (*add)(struct cprof_fds *fds, const char *protocol, const char *line);
	} tables[] = {{"tcp", add_internet},
		      {"tcp6", add_internet},
		      {"udp", add_internet},
		      {"udp6", add_internet},
		      {"unix", add_unix}};

	for (size_t i = 0; i < CPROF_COUNT(tables); i++) {
		CPROF_AUTO_FREE char *text = NULL;
		char *save = NULL;
		char path[32];

		snprintf(path, sizeof(path), "net/%s", tables[i].name);
		text = cprof_read_file_at(cprof_target_procfd(fds->target), path, TABLE_LIMIT,
					  NULL);
		for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
		     line = strtok_r(NULL, "\n", &save))
			tables[i].add(fds, tables[i].name, line);
	}
	if (fds->socket_count)
		qsort(fds->sockets, fds->socket_count, sizeof(*fds->sockets), compare_sockets);
}

const char *cprof_sockets_find(struct cprof_fds *fds, uint64_t inode)
{
	const struct cprof_socket key = {.inode = inode};
	const struct cprof_socket *found;

	if (!fds->sockets_read)
		read_sockets(fds);
	fds->sockets_read = true;
	if (!fds->socket_count)
		return NULL;
	found = bsearch(&key, fds->sockets, fds->socket_count, sizeof(key), compare_sockets);
	return found ? found->text : NULL;
}

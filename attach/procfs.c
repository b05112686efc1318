/* SPDX-License-Identifier: MIT
 *
 * Procfs by system calls only, for a process that may not allocate.
 */
#include "remote.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct directory_entry { /* struct linux_dirent64, getdents(2) */
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* The number a name consists of, 0 if it is none. */
static pid_t parse_tid(const char *name)
{
	long value = 0;

	if (!*name)
		return 0;
	for (; *name; name++) {
		if (*name < '0' || *name > '9' || value > 1 << 28)
			return 0;
		value = value * 10 + (*name - '0');
	}
	return (pid_t)value;
}

bool cprof_procfs_tasks(int procfd, bool (*each)(void *context, pid_t tid), void *context)
{
	static _Alignas(8) char buffer[32768];
	int fd = openat(procfd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool good = fd >= 0;
	long got;

	while (good && (got = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
		const struct directory_entry *entry;

		for (long at = 0; at < got && good; at += entry->length) {
			pid_t tid;

			entry = (const struct directory_entry *)(buffer + at);
			tid = parse_tid(entry->name);
			good = !tid || each(context, tid);
		}
	}
	if (fd >= 0)
		close(fd);
	return good;
}

static char *append(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

/* Reads "task/TID/NAME"; without stdio, whose locks another thread may have held at the fork. The
 * name has 16 bytes at most. */
static ssize_t read_task(int procfd, pid_t tid, const char *name, char *text, size_t size)
{
	char path[40];
	char digits[12];
	size_t count = 0;
	char *to = append(path, "task/");
	ssize_t got = -1;
	int fd;

	for (; tid > 0; tid /= 10)
		digits[count++] = (char)('0' + tid % 10);
	while (count)
		*to++ = digits[--count];
	*append(append(to, "/"), name) = '\0';
	fd = openat(procfd, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		got = read(fd, text, size);
		close(fd);
	}
	return got;
}

bool cprof_procfs_has_children(int procfd, pid_t tid)
{
	char byte;

	return read_task(procfd, tid, "children", &byte, 1) == 1;
}

char cprof_procfs_state(int procfd, pid_t tid)
{
	char text[512];
	ssize_t got = read_task(procfd, tid, "stat", text, sizeof(text));

	/* The name before it may hold any character, parentheses too. */
	while (got > 3 && text[got - 1] != ')')
		got--;
	return got > 3 && got + 1 < (ssize_t)sizeof(text) ? text[got + 1] : '\0';
}

/* The hexadecimal number at `at`, and what follows it. */
static const char *parse_hex(const char *at, uint64_t *value)
{
	for (*value = 0; *at; at++) {
		if (*at >= '0' && *at <= '9')
			*value = *value << 4 | (uint64_t)(*at - '0');
		else if (*at >= 'a' && *at <= 'f')
			*value = *value << 4 | (uint64_t)(*at - 'a' + 10);
		else
			break;
	}
	return at;
}

bool cprof_procfs_syscall(int procfd, pid_t tid, uint64_t words[8])
{
	char text[256];
	ssize_t got = read_task(procfd, tid, "syscall", text, sizeof(text) - 1);
	const char *at = text;

	if (got <= 0 || *text < '0' || *text > '9')
		return false; /* "running", "-1 …" */
	text[got] = '\0';
	for (words[0] = 0; *at >= '0' && *at <= '9'; at++)
		words[0] = words[0] * 10 + (uint64_t)(*at - '0');
	for (int i = 1; i < 8; i++) {
		if (strncmp(at, " 0x", 3) != 0)
			return false;
		at = parse_hex(at + 3, &words[i]);
	}
	return true;
}

bool cprof_procfs_place(int procfd, pid_t tid, uint64_t *sp, uint64_t *pc)
{
	char text[256];
	ssize_t got = read_task(procfd, tid, "syscall", text, sizeof(text) - 1);
	char *at;

	if (got <= 0)
		return false; /* "running": not now */
	text[got] = '\0';
	at = strrchr(text, ' '); /* the last two, whatever is before them */
	if (!at || strncmp(at, " 0x", 3) != 0)
		return false;
	parse_hex(at + 3, pc);
	*at = '\0';
	at = strrchr(text, ' ');
	if (!at || strncmp(at, " 0x", 3) != 0)
		return false;
	parse_hex(at + 3, sp);
	return true;
}

/* The hexadecimal mask behind "\nKey:\t". */
static uint64_t read_mask(const char *status, const char *key)
{
	const char *at = strstr(status, key);
	uint64_t mask;

	parse_hex(at ? at + strlen(key) : "", &mask);
	return mask;
}

/* The process's; "" if it cannot be read. */
static const char *read_status(int procfd)
{
	static char text[8192];
	int fd = openat(procfd, "status", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	text[CPROF_MAX(got, 0)] = '\0';
	return text;
}

bool cprof_procfs_ignored_pending(int procfd)
{
	const char *text = read_status(procfd);

	return read_mask(text, "\nShdPnd:\t") & read_mask(text, "\nSigIgn:\t");
}

bool cprof_procfs_dumping_core(int procfd)
{
	return read_mask(read_status(procfd), "\nCoreDumping:\t") == 1;
}

bool cprof_procfs_seccomp(int procfd, pid_t tid, unsigned *mode, unsigned *filters)
{
	static char text[8192];
	ssize_t got = read_task(procfd, tid, "status", text, sizeof(text) - 1);

	if (got <= 0)
		return false;
	text[got] = '\0';
	/* Decimal, read as hexadecimal: the order is the same. */
	*mode = (unsigned)read_mask(text, "\nSeccomp:\t");
	*filters = (unsigned)read_mask(text, "\nSeccomp_filters:\t");
	return true;
}

/* SPDX-License-Identifier: MIT
 *
 * Identity and permissions of one process, by procfs.
 */
#include "private.h"

#include <cprof/reader.h>
#include <cprof/util.h>
#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define STAT_LIMIT    4096
#define CMDLINE_LIMIT (1 << 20)
#define PF_KTHREAD    0x00200000 /* include/linux/sched.h */

struct stat_line { /* of /proc/PID/stat, see proc(5) */
	char state;
	unsigned long flags;
	unsigned long long utime;
	unsigned long long stime;
	unsigned long long start_ticks;
	unsigned long long start_stack;
};

static bool read_stat(int dirfd, const char *path, struct stat_line *stat)
{
	CPROF_AUTO_FREE char *text = cprof_read_file_at(dirfd, path, STAT_LIMIT, NULL);
	/* The name is in parentheses and may hold any character, parentheses too. */
	const char *rest = text ? strrchr(text, ')') : NULL;

	if (!rest)
		return false;
	return sscanf(rest + 1,
		      " %c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
		      "%*d %llu %*u %*d %*u %*u %*u %llu",
		      &stat->state, &stat->flags, &stat->utime, &stat->stime, &stat->start_ticks,
		      &stat->start_stack) == 6;
}

/* The value of a "Key:\t…" line of /proc/PID/status. */
static const char *status_field(const char *status, const char *key)
{
	size_t length = strlen(key);
	const char *line;

	for (line = status; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, length) == 0 && line[length] == ':')
			return line + length + 1;
	}
	return NULL;
}

static struct cprof_error *no_process(pid_t pid, const char *why)
{
	return cprof_error_create(CPROF_NO_PROCESS, NULL, "pid %d: %s", (int)pid, why);
}

/* What a failed access to /proc/PID means: errno tells whether the process is gone or we are at a
 * limit of our own. */
static struct cprof_error *unreadable(pid_t pid, int errnum)
{
	if (errnum == ENOENT || errnum == ESRCH)
		return no_process(pid, "no such process");
	return cprof_error_errno(CPROF_FAILED, errnum, NULL, "pid %d: reading /proc", (int)pid);
}

static void user_name(uid_t uid, char *text, size_t size)
{
	struct passwd entry;
	struct passwd *found = NULL;
	char buffer[1024];

	if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) == 0 && found)
		snprintf(text, size, "%s (uid %u)", found->pw_name, (unsigned)uid);
	else
		snprintf(text, size, "uid %u", (unsigned)uid);
}

static struct cprof_error *denied(const struct cprof_target *target, int errnum)
{
	uid_t uid = cprof_target_uid(target);
	char owner[128];

	if (uid != geteuid()) {
		user_name(uid, owner, sizeof(owner));
		return cprof_error_create(
			CPROF_DENIED, "run as root, or as that user",
			"pid %d: not permitted: the process belongs to %s and you are uid %u",
			(int)target->info.pid, owner, (unsigned)geteuid());
	}
	return cprof_error_errno(
		CPROF_DENIED, errnum, "run as root or with CAP_SYS_PTRACE",
		"pid %d: not permitted: the process has privileges or is not dumpable, so "
		"/proc/%d cannot be read",
		(int)target->info.pid, (int)target->info.pid);
}

/* The process a thread id belongs to, from /proc/TID/status; 0 if there is none (then errno tells
 * why). */
static pid_t process_of(pid_t tid)
{
	char path[64];
	const char *field;
	CPROF_AUTO_FREE char *status = NULL;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	status = cprof_read_file_at(AT_FDCWD, path, 1 << 16, NULL);
	if (!status)
		return 0;
	errno = ESRCH;
	field = status_field(status, "Tgid");
	return field ? (pid_t)strtol(field, NULL, 10) : 0;
}

static struct cprof_error *open_identity(struct cprof_target *target)
{
	char path[64];

	target->pidfd = (int)syscall(SYS_pidfd_open, target->info.pid, 0);
	if (target->pidfd < 0) {
		if (errno == ESRCH || errno == EINVAL)
			return no_process(target->info.pid, "no such process");
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "pid %d: pidfd_open",
					 (int)target->info.pid);
	}
	snprintf(path, sizeof(path), "/proc/%d", (int)target->info.pid);
	target->procfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (target->procfd < 0 && (errno == EACCES || errno == EPERM))
		return cprof_error_errno(
			CPROF_DENIED, errno, "run as root: procfs is mounted with hidepid",
			"pid %d: /proc/%d", (int)target->info.pid, (int)target->info.pid);
	if (target->procfd < 0)
		return unreadable(target->info.pid, errno);
	/* Not reaped since: the directory is of the same process. A zombie is told apart later. */
	if (syscall(SYS_pidfd_send_signal, target->pidfd, 0, NULL, 0) && errno == ESRCH)
		return no_process(target->info.pid, "no such process");
	return NULL;
}

/* The group leader may be dead while other threads run on. */
static bool only_zombies(const struct cprof_target *target)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	size_t count = 0;
	struct cprof_error *error = cprof_target_threads(target, &tids, &count);

	if (error) {
		cprof_error_destroy(error);
		return true;
	}
	for (size_t i = 0; i < count; i++) {
		struct stat_line stat;
		char path[64];

		snprintf(path, sizeof(path), "task/%d/stat", (int)tids[i]);
		if (read_stat(target->procfd, path, &stat) && stat.state != 'Z' &&
		    stat.state != 'X')
			return false;
	}
	return true;
}

static void read_status(struct cprof_target *target)
{
	CPROF_AUTO_FREE char *status = cprof_read_file_at(target->procfd, "status", 1 << 16, NULL);
	const char *field = status ? status_field(status, "NStgid") : NULL;
	struct stat namespace;
	char *end;
	long pid;

	target->info.inner_pid = target->info.pid;
	while (field && (pid = strtol(field, &end, 10)) > 0 && end != field) {
		target->info.inner_pid = (pid_t)pid; /* the last one is the innermost */
		field = *end == '\n' ? NULL : end;
	}
	if (fstatat(target->procfd, "ns/pid", &namespace, 0) == 0) {
		target->info.pid_ns_dev = namespace.st_dev;
		target->info.pid_ns_ino = namespace.st_ino;
	}
}

uid_t cprof_target_uid(const struct cprof_target *target)
{
	CPROF_AUTO_FREE char *status = cprof_read_file_at(target->procfd, "status", 1 << 16, NULL);
	const char *field = status ? status_field(status, "Uid") : NULL;
	unsigned uid;

	return field && sscanf(field, "%*u %u", &uid) == 1 ? uid : (uid_t)-1;
}

static char *read_cmdline(const struct cprof_target *target)
{
	size_t length = 0;
	char *text = cprof_read_file_at(target->procfd, "cmdline", CMDLINE_LIMIT, &length);

	if (!text)
		return strdup(target->info.comm);
	while (length && text[length - 1] == '\0')
		length--;
	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	if (!length) {
		free(text);
		return strdup(target->info.comm);
	}
	text[cprof_text_clean(text, length, text, length + 1)] = '\0';
	return text;
}

/* 64-bit x86 programs only: a 32-bit one has other registers and rules. */
static struct cprof_error *check_class(const struct cprof_target *target)
{
	unsigned char ident[EI_NIDENT + 4] = {0};
	uint16_t machine;

	if (target->exefd < 0 ||
	    pread(target->exefd, ident, sizeof(ident), 0) != (ssize_t)sizeof(ident))
		return NULL;
	memcpy(&machine, ident + EI_NIDENT + 2, sizeof(machine));
	if (memcmp(ident, ELFMAG, SELFMAG) == 0 && ident[EI_CLASS] == ELFCLASS64 &&
	    machine == EM_X86_64)
		return NULL;
	return cprof_error_create(CPROF_DENIED, NULL,
				  "pid %d: not supported: %s is not a 64-bit x86 program",
				  (int)target->info.pid, target->info.exe);
}

struct cprof_error *cprof_target_reload(struct cprof_target *target)
{
	struct stat_line line;
	struct stat stat;
	char link[4096];
	ssize_t length;
	char *cmdline;
	char *exe;

	if (!cprof_target_thread_name(target, target->info.pid, target->info.comm,
				      sizeof(target->info.comm)))
		target->info.comm[0] = '\0';
	target->info.clock_offset_ns = cprof_target_read_clock_offset(target->procfd);
	target->info.start_stack = read_stat(target->procfd, "stat", &line) ? line.start_stack : 0;
	length = readlinkat(target->procfd, "exe", link, sizeof(link) - 1);
	link[CPROF_MAX(length, 0)] = '\0';
	exe = cprof_text_clean_dup(link);
	cmdline = read_cmdline(target);
	if (!exe || !cmdline) {
		free(exe);
		free(cmdline);
		return cprof_error_nomem();
	}
	free(target->info.exe);
	free(target->info.cmdline);
	target->info.exe = exe;
	target->info.cmdline = cmdline;

	if (target->exefd >= 0)
		close(target->exefd);
	if (target->rootfd < 0) /* once: other threads may be using it */
		target->rootfd = openat(target->procfd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	target->exefd = openat(target->procfd, "exe", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	target->exe_dev = target->exe_ino = 0;
	if (target->exefd >= 0 && fstat(target->exefd, &stat) == 0) {
		target->exe_dev = stat.st_dev;
		target->exe_ino = stat.st_ino;
	}
	return NULL;
}

static struct cprof_error *check_access(const struct cprof_target *target)
{
	/* The very check that reading maps and memory, and perf_event_open, will make. */
	int fd = openat(target->procfd, "maps", O_RDONLY | O_CLOEXEC);
	char byte;

	if (fd < 0)
		return errno == EACCES || errno == EPERM ? denied(target, errno)
							 : unreadable(target->info.pid, errno);
	if (read(fd, &byte, 1) < 0 && (errno == EACCES || errno == EPERM)) {
		close(fd);
		return denied(target, errno);
	}
	close(fd);
	return NULL;
}

/* Numbers in /proc must be those of our own pid namespace: after `unshare -p` without a /proc of
 * its own they are of other processes. */
static struct cprof_error *check_procfs(void)
{
	char text[32];
	ssize_t length = readlink("/proc/self", text, sizeof(text) - 1);

	if (length < 0 && errno == ENOENT)
		return cprof_error_create(CPROF_DENIED, "mount -t proc proc /proc",
					  "not supported: there is no procfs of our pid namespace "
					  "at /proc");
	if (length < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "/proc/self");
	text[length] = '\0';
	if (strtol(text, NULL, 10) == getpid())
		return NULL;
	return cprof_error_create(CPROF_DENIED, "mount -t proc proc /proc",
				  "not supported: /proc is of another pid namespace than ours");
}

static struct cprof_error *fill(struct cprof_target *target, pid_t pid)
{
	struct stat_line stat;
	pid_t process;

	CPROF_TRY(check_procfs());
	process = process_of(pid);
	if (!process)
		return unreadable(pid, errno);
	target->info.pid = process;
	CPROF_TRY(open_identity(target));
	errno = ESRCH;
	if (!read_stat(target->procfd, "stat", &stat))
		return unreadable(pid, errno);
	target->info.start_ticks = stat.start_ticks;
	if (stat.flags & PF_KTHREAD)
		return cprof_error_create(
			CPROF_DENIED, "profile kernel threads with perf",
			"pid %d: not supported: a kernel thread has no user-space program",
			(int)pid);
	if ((stat.state == 'Z' || stat.state == 'X') && only_zombies(target))
		return no_process(pid, "it has ended and is a zombie waiting for its parent");
	read_status(target);
	CPROF_TRY(check_access(target));
	CPROF_TRY(cprof_target_reload(target));
	return check_class(target);
}

struct cprof_error *cprof_target_create(pid_t pid, struct cprof_target **result)
{
	struct cprof_target *target = calloc(1, sizeof(*target));
	struct cprof_error *error;

	if (!target)
		return cprof_error_nomem();
	target->pidfd = target->procfd = target->rootfd = target->exefd = -1;
	error = fill(target, pid);
	if (error) {
		cprof_target_destroy(target);
		return error;
	}
	*result = target;
	return NULL;
}

void cprof_target_destroy(struct cprof_target *target)
{
	if (!target)
		return;
	const int fds[] = {target->pidfd, target->procfd, target->rootfd, target->exefd};
	for (size_t i = 0; i < CPROF_COUNT(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(target->info.cmdline);
	free(target->info.exe);
	free(target);
}

const struct cprof_target_info *cprof_target_info(const struct cprof_target *target)
{
	return &target->info;
}

int cprof_target_pidfd(const struct cprof_target *target)
{
	return target->pidfd;
}

int cprof_target_procfd(const struct cprof_target *target)
{
	return target->procfd;
}

bool cprof_target_alive(const struct cprof_target *target)
{
	struct pollfd poll_fd = {.fd = target->pidfd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 0;
}

char cprof_target_state(const struct cprof_target *target)
{
	struct stat_line stat;

	return read_stat(target->procfd, "stat", &stat) ? stat.state : '\0';
}

static int compare_tids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a;
	pid_t y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

struct cprof_error *cprof_target_threads(const struct cprof_target *target, pid_t **result,
					 size_t *count)
{
	int fd = openat(target->procfd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	size_t capacity = 0;
	pid_t *tids = NULL;
	size_t used = 0;

	if (!directory) {
		int errnum = errno;

		if (fd >= 0)
			close(fd);
		return unreadable(target->info.pid, errnum);
	}
	while ((entry = readdir(directory))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (!cprof_grow(&tids, &capacity, used + 1, sizeof(*tids))) {
			free(tids);
			closedir(directory);
			return cprof_error_nomem();
		}
		tids[used++] = (pid_t)strtol(entry->d_name, NULL, 10);
	}
	closedir(directory);
	if (used)
		qsort(tids, used, sizeof(*tids), compare_tids);
	*result = tids;
	*count = used;
	return NULL;
}

bool cprof_target_thread_name(const struct cprof_target *target, pid_t tid, char *name, size_t size)
{
	CPROF_AUTO_FREE char *text = NULL;
	size_t length = 0;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/comm", (int)tid);
	text = cprof_read_file_at(target->procfd, path, 256, &length);
	if (!text)
		return false;
	if (length && text[length - 1] == '\n')
		length--;
	cprof_text_clean(text, length, name, size);
	return true;
}

bool cprof_thread_matches(const char *const *filter, pid_t tid, const char *name)
{
	for (; *filter; filter++) {
		char *end;
		long number = strtol(*filter, &end, 10);

		if (strcmp(*filter, name) == 0 || (*end == '\0' && number == tid))
			return true;
	}
	return false;
}

uint64_t cprof_target_cpu_ns(const struct cprof_target *target)
{
	struct stat_line stat;
	long ticks = sysconf(_SC_CLK_TCK);

	if (ticks <= 0 || !read_stat(target->procfd, "stat", &stat))
		return 0;
	return (stat.utime + stat.stime) * (1000000000ull / (unsigned long)ticks);
}

size_t cprof_target_read(const struct cprof_target *target, uint64_t address, void *buffer,
			 size_t length)
{
	struct iovec local = {.iov_base = buffer, .iov_len = length};
	struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = length};
	ssize_t got;

	if (address + length < address)
		return 0;
	got = process_vm_readv(target->info.pid, &local, 1, &remote, 1, 0);
	/* The number may belong to somebody else by now; then what was read is not the target's. */
	return got > 0 && cprof_target_alive(target) ? (size_t)got : 0;
}

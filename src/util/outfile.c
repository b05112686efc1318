/* SPDX-License-Identifier: MIT */
#include <cprof/outfile.h>
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

/* What a path of -o stands for. */
struct outfile {
	int direct_fd;    /* an open descriptor of ours to write to, else -1 */
	bool direct_path; /* a device or FIFO: opened and written in place */
	int dirfd;        /* otherwise: the directory of the file */
	const char *name; /* and its name there */
};

static void outfile_deinit(struct outfile *outfile)
{
	if (outfile->dirfd >= 0)
		close(outfile->dirfd);
}

/* The descriptor that "-", /dev/stdout and their kin name, or -1. */
static int named_descriptor(const char *path)
{
	static const char *const prefixes[] = {"/dev/fd/", "/proc/self/fd/"};

	if (!strcmp(path, "-") || !strcmp(path, "/dev/stdout"))
		return STDOUT_FILENO;
	if (!strcmp(path, "/dev/stderr"))
		return STDERR_FILENO;
	for (size_t i = 0; i < CPROF_COUNT(prefixes); i++) {
		size_t length = strlen(prefixes[i]);
		char *end;
		unsigned long fd;

		if (strncmp(path, prefixes[i], length) != 0 || path[length] < '0' ||
		    path[length] > '9')
			continue;
		errno = 0;
		fd = strtoul(path + length, &end, 10);
		if (!errno && !*end && fd <= INT_MAX)
			return (int)fd;
	}
	return -1;
}

static struct cprof_error *write_error(const char *path, int errnum)
{
	const char *remedy = NULL;

	switch (errnum) {
	case ENOENT:
		remedy = "create the directory first, or choose another with -o";
		break;
	case EROFS:
	case EACCES:
	case EPERM:
	case ENOTDIR:
	case EISDIR:
		remedy = "choose another place with -o";
		break;
	case ENOSPC:
	case EDQUOT:
		remedy = "make room, or choose another place with -o; nothing was written";
		break;
	case EPIPE:
		remedy = "the reader has gone";
		break;
	}
	return cprof_error_errno(CPROF_FAILED, errnum, remedy, "cannot write %s",
				 strcmp(path, "-") != 0 ? path : "to stdout");
}

static struct cprof_error *check_descriptor(const char *path, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
		return write_error(path, EBADF);
	return NULL;
}

/* Opens the directory that `path` is in. */
static int open_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	CPROF_AUTO_FREE char *directory = NULL;

	if (!slash)
		directory = strdup(".");
	else if (slash == path)
		directory = strdup("/");
	else
		directory = strndup(path, (size_t)(slash - path));
	if (!directory) {
		errno = ENOMEM;
		return -1;
	}
	return open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Finds out what `path` is and whether it may be written. */
static struct cprof_error *outfile_init(const char *path, struct outfile *outfile)
{
	const char *slash = strrchr(path, '/');
	struct stat status;

	*outfile = (struct outfile){.direct_fd = named_descriptor(path), .dirfd = -1};
	if (outfile->direct_fd >= 0)
		return check_descriptor(path, outfile->direct_fd);
	outfile->name = slash ? slash + 1 : path;
	outfile->dirfd = open_directory(path);
	if (outfile->dirfd < 0)
		return write_error(path, errno);
	if (!*outfile->name)
		return write_error(path, EISDIR);
	if (fstatat(outfile->dirfd, outfile->name, &status, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			return write_error(path, errno);
		status.st_mode = S_IFREG;
	}
	if (S_ISDIR(status.st_mode))
		return write_error(path, EISDIR);
	if (S_ISLNK(status.st_mode))
		return cprof_error_create(CPROF_FAILED, "give the file's own name, or remove it",
					  "cannot write %s: it is a symbolic link", path);
	outfile->direct_path = !S_ISREG(status.st_mode);
	if (faccessat(outfile->dirfd, outfile->direct_path ? outfile->name : ".",
		      outfile->direct_path ? W_OK : W_OK | X_OK, AT_EACCESS))
		return write_error(path, errno);
	return NULL;
}

struct cprof_error *cprof_outfile_check(const char *path)
{
	CPROF_CLEANUP(outfile_deinit) struct outfile outfile;

	return outfile_init(path, &outfile);
}

/* Returns 0 or an errno. A signal that interrupts ends it, so that a reader which does not read
 * cannot hold us for ever. */
static int write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t done = write(fd, bytes, CPROF_MIN(length, 1u << 30));

		if (done < 0 && errno == EAGAIN) {
			struct pollfd wait = {.fd = fd, .events = POLLOUT};

			if (poll(&wait, 1, -1) < 0)
				return errno;
			continue;
		}
		if (done < 0)
			return errno;
		bytes += done;
		length -= (size_t)done;
	}
	return 0;
}

/* As write_all, but swallows the SIGPIPE or SIGXFSZ (a file size limit) that it causes. */
static int write_all_quietly(int fd, const char *bytes, size_t length)
{
	const struct timespec at_once = {0};
	sigset_t ours, before, pending;
	int errnum;

	sigpending(&pending);
	sigemptyset(&ours);
	if (!sigismember(&pending, SIGPIPE))
		sigaddset(&ours, SIGPIPE);
	if (!sigismember(&pending, SIGXFSZ))
		sigaddset(&ours, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &ours, &before);
	errnum = write_all(fd, bytes, length);
	if (errnum == EPIPE || errnum == EFBIG)
		while (sigtimedwait(&ours, NULL, &at_once) > 0 || errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return errnum;
}

/* Under sudo a file belongs to who called sudo. File systems without owners refuse: no matter. */
static void give_to_sudo_user(int fd)
{
	const char *uid = getenv("SUDO_UID");
	const char *gid = getenv("SUDO_GID");
	unsigned long numbers[2];
	const char *texts[2] = {uid, gid};

	if (geteuid() != 0 || !uid || !gid)
		return;
	for (size_t i = 0; i < 2; i++) {
		char *end;

		errno = 0;
		numbers[i] = strtoul(texts[i], &end, 10);
		if (errno || *end || end == texts[i] || numbers[i] >= UINT_MAX)
			return;
	}
	if (fchown(fd, (uid_t)numbers[0], (gid_t)numbers[1]))
		return;
}

/* Creates a new file beside the final one; its name goes to `name`. -1 with errno set. */
static int create_temporary(int dirfd, char *name, size_t size)
{
	for (int tries = 0; tries < 100; tries++) {
		uint64_t random;
		int fd;

		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			random = cprof_hash_u64(cprof_now_ns() + (uint64_t)getpid());
		snprintf(name, size, ".cprof-%016llx.tmp", (unsigned long long)random);
		fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

/* Returns 0 or an errno; without 0 the directory is as it was. */
static int replace(const struct outfile *outfile, const void *bytes, size_t length)
{
	char temporary[64];
	int fd = create_temporary(outfile->dirfd, temporary, sizeof(temporary));
	int errnum;

	if (fd < 0)
		return errno;
	errnum = write_all_quietly(fd, bytes, length);
	if (!errnum) {
		give_to_sudo_user(fd);
		/* EINVAL: a file system that has nothing to sync. */
		if (fsync(fd) && errno != EINVAL)
			errnum = errno;
	}
	if (close(fd) && !errnum && errno != EINTR)
		errnum = errno;
	if (!errnum && renameat(outfile->dirfd, temporary, outfile->dirfd, outfile->name))
		errnum = errno;
	if (errnum)
		unlinkat(outfile->dirfd, temporary, 0);
	return errnum;
}

/* A device or FIFO. It was no symlink when looked at and must not have become one. */
static int write_in_place(const struct outfile *outfile, const void *bytes, size_t length)
{
	int fd =
		openat(outfile->dirfd, outfile->name, O_WRONLY | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
	int errnum;

	if (fd < 0)
		return errno;
	errnum = write_all_quietly(fd, bytes, length);
	if (close(fd) && !errnum && errno != EINTR)
		errnum = errno;
	return errnum;
}

struct cprof_error *cprof_outfile_write(const char *path, const void *bytes, size_t length)
{
	CPROF_CLEANUP(outfile_deinit) struct outfile outfile;
	int errnum;

	CPROF_TRY(outfile_init(path, &outfile));
	if (outfile.direct_fd >= 0)
		errnum = write_all_quietly(outfile.direct_fd, bytes, length);
	else if (outfile.direct_path)
		errnum = write_in_place(&outfile, bytes, length);
	else
		errnum = replace(&outfile, bytes, length);
	return errnum ? write_error(path, errnum) : NULL;
}

/* Bytes that could be a path's separator, or a terminal's or a shell's business, become '_'. */
static void put_safe(FILE *out, const char *text)
{
	for (; *text; text++) {
		bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
			     (*text >= '0' && *text <= '9') || *text == '_' || *text == '+' ||
			     *text == '-';

		putc(plain ? *text : '_', out);
	}
}

/* NULL without memory. `pattern` has been checked. */
static char *expand(const char *pattern, const struct cprof_outname *name, unsigned number)
{
	char *path = NULL;
	size_t length;
	FILE *out = open_memstream(&path, &length);

	if (!out)
		return NULL;
	for (const char *next = pattern; *next; next++) {
		if (*next != '%') {
			putc(*next, out);
			continue;
		}
		switch (*++next) {
		case '%':
			putc('%', out);
			break;
		case 'e':
			put_safe(out, name->event);
			break;
		case 'c':
			put_safe(out, *name->comm ? name->comm : "process");
			break;
		case 'p':
			fprintf(out, "%d", name->pid);
			break;
		case 't':
			fprintf(out, "%lld", name->wall_s);
			break;
		case 'n':
			fprintf(out, "%03u", number);
			break;
		}
	}
	if (fclose(out)) {
		free(path);
		return NULL;
	}
	return path;
}

static struct cprof_error *check_pattern(const char *pattern, bool several, bool *numbered)
{
	bool event = false;

	*numbered = false;
	if (!*pattern)
		return cprof_error_create(CPROF_USAGE, NULL, "-o: the name is empty");
	for (const char *next = pattern; *next; next++) {
		if (*next != '%')
			continue;
		next++;
		if (!*next || !strchr("ecptn%", *next))
			return cprof_error_create(CPROF_USAGE, "known are %e %p %c %t %n and %%",
						  "-o %s: unknown sequence %%%.1s", pattern, next);
		event |= *next == 'e';
		*numbered |= *next == 'n';
	}
	if (several && !event)
		return cprof_error_create(CPROF_USAGE, "put %e into the name",
					  "-o %s: several kinds cannot go to one file", pattern);
	return NULL;
}

struct cprof_error *cprof_outfile_name(const char *pattern, const struct cprof_outname *name,
				       char **path)
{
	CPROF_AUTO_FREE char *usual = NULL;
	bool numbered;

	if (!pattern) {
		if (asprintf(&usual, "%%c%s.%%e.%%n.%s", name->pid > 0 ? ".%p" : "",
			     name->extension) < 0) {
			usual = NULL;
			return cprof_error_nomem();
		}
		pattern = usual;
	}
	CPROF_TRY(check_pattern(pattern, name->several, &numbered));
	for (unsigned number = 1; number < 1000000; number++) {
		struct stat status;

		*path = expand(pattern, name, number);
		if (!*path)
			return cprof_error_nomem();
		if (!numbered || lstat(*path, &status))
			return NULL;
		free(cprof_take(*path));
	}
	return cprof_error_create(CPROF_FAILED, "remove some", "-o %s: no number is free", pattern);
}

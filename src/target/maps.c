/* SPDX-License-Identifier: MIT
 *
 * The target's memory map, and the files behind it as the target sees them.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAPS_LIMIT (256u << 20)

/* The kernel shows a newline in a path as "\012". */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; from++) {
		if (strncmp(from, "\\012", 4) == 0) {
			*to++ = '\n';
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
}

/* One line: start-end perms offset major:minor inode   path (proc(5)). */
static bool parse_line(char *line, struct cprof_mapping *mapping)
{
	unsigned long long start, end, offset, inode;
	unsigned major_number, minor_number;
	int used = 0;
	char perms[5];

	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &start, &end, perms, &offset,
		   &major_number, &minor_number, &inode, &used) != 7 ||
	    end <= start)
		return false;
	unescape(line + used);
	*mapping = (struct cprof_mapping){
		.start = start,
		.end = end,
		.offset = offset,
		.inode = inode,
		.device_major = major_number,
		.device_minor = minor_number,
		.prot = (uint8_t)((perms[0] == 'r' ? PROT_READ : 0) |
				  (perms[1] == 'w' ? PROT_WRITE : 0) |
				  (perms[2] == 'x' ? PROT_EXEC : 0)),
		.path = line + used,
	};
	return true;
}

struct cprof_error *cprof_target_maps(const struct cprof_target *target,
				      struct cprof_error *(*each)(void *context,
								  const struct cprof_mapping *),
				      void *context)
{
	CPROF_AUTO_FREE char *text = cprof_read_file_at(target->procfd, "maps", MAPS_LIMIT, NULL);
	char *line;
	char *next;

	if (!text)
		return cprof_error_errno(errno == EACCES  ? CPROF_DENIED
					 : errno == ESRCH ? CPROF_NO_PROCESS
							  : CPROF_FAILED,
					 errno, NULL, "pid %d: reading maps",
					 (int)target->info.pid);
	for (line = text; *line; line = next) {
		struct cprof_mapping mapping;

		next = strchr(line, '\n');
		next = next ? next : line + strlen(line);
		if (*next)
			*next++ = '\0';
		if (parse_line(line, &mapping))
			CPROF_TRY(each(context, &mapping));
	}
	return NULL;
}

/* PROCMAP_QUERY of linux/fs.h, which older headers do not have. */
struct map_query {
	uint64_t size;
	uint64_t flags;
	uint64_t address;
	uint64_t start; /* from here on answers */
	uint64_t end;
	uint64_t mapping_flags;
	uint64_t page_size;
	uint64_t offset;
	uint64_t inode;
	uint32_t device_major;
	uint32_t device_minor;
	uint32_t name_size; /* 0: no name wanted */
	uint32_t build_id_size;
	uint64_t name;
	uint64_t build_id;
};
_Static_assert(sizeof(struct map_query) == 104, "as the kernel has it");
#define MAP_QUERY            _IOWR('f', 17, struct map_query)
#define MAP_QUERY_EXECUTABLE 0x04
#define MAP_QUERY_NEXT       0x10
#define MAP_QUERY_FILE       0x20
#define MAP_QUERIES_MAX      (1u << 17)

bool cprof_target_code_fingerprint(const struct cprof_target *target, uint64_t *fingerprint)
{
	CPROF_AUTO_CLOSE int fd = openat(target->procfd, "maps", O_RDONLY | O_CLOEXEC);
	uint64_t address = 0;

	*fingerprint = 1;
	for (unsigned i = 0; fd >= 0 && i < MAP_QUERIES_MAX; i++) {
		struct map_query query = {
			.size = sizeof(query),
			.flags = MAP_QUERY_EXECUTABLE | MAP_QUERY_NEXT | MAP_QUERY_FILE,
			.address = address,
		};

		if (ioctl(fd, MAP_QUERY, &query) != 0)
			return errno == ENOENT && i > 0;
		const uint64_t words[] = {
			query.start,
			query.end,
			query.offset,
			query.inode,
			(uint64_t)query.device_major << 32 | query.device_minor,
			query.mapping_flags,
		};
		for (size_t w = 0; w < CPROF_COUNT(words); w++)
			*fingerprint = cprof_hash_u64(*fingerprint ^ words[w]);
		address = query.end;
	}
	return false;
}

static int keep_regular(int fd)
{
	struct stat stat;

	if (fd < 0)
		return -1;
	if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

static int open_in_root(const struct cprof_target *target, const char *path, uint64_t flags)
{
	struct open_how how = {
		/* O_NONBLOCK: a FIFO or device at that path must not hang us. */
		.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	if (target->rootfd < 0) {
		errno = ESRCH;
		return -1;
	}
	return keep_regular((int)syscall(SYS_openat2, target->rootfd, path, &how, sizeof(how)));
}

int cprof_target_open_path(const struct cprof_target *target, const char *path, bool follow)
{
	return open_in_root(target, path, follow ? 0 : O_NOFOLLOW);
}

/* map_files names the very file, deleted or not; what is mapped there now must still be what the
 * mapping said: the same inode or (overlayfs shows several) the same path. */
static int open_map_file(const struct cprof_target *target, const struct cprof_mapping *mapping)
{
	char link[4096];
	char path[64];
	struct stat stat;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "map_files/%llx-%llx", (unsigned long long)mapping->start,
		 (unsigned long long)mapping->end);
	length = readlinkat(target->procfd, path, link, sizeof(link) - 1);
	if (length < 0)
		return -1;
	link[length] = '\0';
	fd = keep_regular(openat(target->procfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
	if (fd >= 0 && fstat(fd, &stat) == 0 &&
	    (stat.st_ino == mapping->inode || strcmp(link, mapping->path) == 0))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

int cprof_target_open_file(const struct cprof_target *target, const struct cprof_mapping *mapping,
			   bool *verified)
{
	dev_t device = makedev(mapping->device_major, mapping->device_minor);
	int fd = open_map_file(target, mapping);
	struct stat stat;

	*verified = true;
	if (fd >= 0)
		return fd;
	if (target->exefd >= 0 && target->exe_ino == mapping->inode && target->exe_dev == device)
		return fcntl(target->exefd, F_DUPFD_CLOEXEC, 0);
	if (mapping->path[0] != '/') {
		errno = ENOENT;
		return -1;
	}
	fd = open_in_root(target, mapping->path, 0);
	if (fd >= 0)
		*verified = fstat(fd, &stat) == 0 && stat.st_ino == mapping->inode &&
			    stat.st_dev == device;
	return fd;
}

/* SPDX-License-Identifier: MIT */
#include <cprof/util.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

bool cprof_grow(void *items, size_t *capacity, size_t need, size_t size)
{
	size_t larger;
	void *array;

	if (need <= *capacity)
		return true;
	larger = *capacity > SIZE_MAX / 2 ? need : CPROF_MAX(need, *capacity * 2);
	larger = CPROF_MAX(larger, 16);
	if (larger > PTRDIFF_MAX / size)
		return false;
	/* `items` points to a pointer of any type: only its bytes may be touched. */
	memcpy(&array, items, sizeof(array));
	array = reallocarray(array, larger, size);
	if (!array)
		return false;
	memcpy(items, &array, sizeof(array));
	*capacity = larger;
	return true;
}

/* Differs from process to process, so that nobody can prepare a file full of collisions. */
static uint64_t hash_seed(void)
{
	uint64_t seed = 0;
	const void *random = (const void *)getauxval(AT_RANDOM); /* 16 random bytes */

	if (random)
		memcpy(&seed, random, sizeof(seed));
	return seed;
}

uint64_t cprof_hash_bytes(const void *bytes, size_t length)
{
	static uint64_t seed;
	const unsigned char *next = bytes;
	uint64_t hash = __atomic_load_n(&seed, __ATOMIC_RELAXED);
	uint64_t word;

	if (!hash) {
		hash = hash_seed() | 1;
		__atomic_store_n(&seed, hash, __ATOMIC_RELAXED);
	}
	hash ^= length;
	for (; length >= sizeof(word); length -= sizeof(word), next += sizeof(word)) {
		memcpy(&word, next, sizeof(word));
		hash = cprof_hash_u64(hash ^ word);
	}
	if (length) {
		word = 0;
		memcpy(&word, next, length);
		hash = cprof_hash_u64(hash ^ word);
	}
	return cprof_hash_u64(hash);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		return 0;
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t cprof_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cprof_wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

uint64_t cprof_own_cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t cprof_thread_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* A field of /proc/self/status that is given in kB, in bytes. */
static uint64_t status_bytes(const char *field)
{
	CPROF_AUTO_FREE char *status =
		cprof_read_file_at(AT_FDCWD, "/proc/self/status", 65536, NULL);
	const char *line = status ? strstr(status, field) : NULL;

	return line ? strtoull(line + strlen(field), NULL, 10) * 1024 : 0;
}

uint64_t cprof_own_rss(void)
{
	return status_bytes("\nVmRSS:");
}

uint64_t cprof_own_peak_rss(void)
{
	return status_bytes("\nVmHWM:");
}

char *cprof_read_file_at(int dirfd, const char *path, size_t limit, size_t *length)
{
	CPROF_AUTO_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	CPROF_AUTO_FREE char *text = NULL;
	size_t capacity = 0;
	size_t have = 0;

	if (fd < 0)
		return NULL;
	for (;;) {
		size_t want = CPROF_MIN(limit - have, 4096);
		ssize_t got;

		if (!cprof_grow(&text, &capacity, have + want + 1, 1)) {
			errno = ENOMEM;
			return NULL;
		}
		got = want ? read(fd, text + have, want) : 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return NULL;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	text[have] = '\0';
	if (length)
		*length = have;
	return cprof_take(text);
}

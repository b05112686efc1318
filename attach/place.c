/* SPDX-License-Identifier: MIT */
#include "agentparts.h"

#include <cprof/util.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMFD_PATH  "/memfd:" CPROF_AGENT_MEMFD " (deleted)"
#define ALIGN       0x10000ull
#define MARGIN      (1ull << 20) /* to both neighbours */
#define STRIDE      (16ull << 20)
#define LARGE       (2ull << 30)
#define BELOW       (256ull << 20)
#define ADDRESS_MIN 0x10000000ull
#define ADDRESS_MAX 0x7fff00000000ull

/* --- finding -------------------------------------------------------------------------------- */

#define TEXTS_MAX 64

/* Each build of the agent leaves a text of its own. */
struct texts {
	uint64_t bases[TEXTS_MAX];
	size_t count;
};

static bool is_text(const struct cprof_mapping *mapping)
{
	return strcmp(mapping->path, MEMFD_PATH) == 0 && mapping->offset == CPROF_AGENT_TEXT &&
	       mapping->prot & PROT_EXEC;
}

static struct cprof_error *see_text(void *context, const struct cprof_mapping *mapping)
{
	struct texts *texts = context;

	if (is_text(mapping) && texts->count < TEXTS_MAX)
		texts->bases[texts->count++] = mapping->start;
	return NULL;
}

static struct cprof_error *see_parts(void *context, const struct cprof_mapping *mapping)
{
	struct cprof_place *place = context;
	uint64_t base = place->base;

	if (mapping->start <= base + CPROF_AGENT_CONTROL &&
	    mapping->end > base + CPROF_AGENT_CONTROL)
		place->control = true;
	if (mapping->start >= base + CPROF_AGENT_FILE_SIZE ||
	    mapping->end <= base + CPROF_AGENT_PRIVATE)
		return NULL;
	if (mapping->start == base + CPROF_AGENT_SHARED && strcmp(mapping->path, MEMFD_PATH) == 0)
		place->shared = true;
	else if (mapping->start <= base + CPROF_AGENT_PRIVATE && !mapping->path[0])
		place->private = true;
	else
		place->taken = true;
	return NULL;
}

/*
 * The program may have mapped memory of its own where the agent's has been. That is not wiped when
 * it forks (VmFlags "wf").
 */
static bool wiped_on_fork(const struct cprof_target *target, uint64_t address)
{
	int fd = openat(cprof_target_procfd(target), "smaps", O_RDONLY | O_CLOEXEC);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	CPROF_AUTO_FREE char *line = NULL;
	size_t capacity = 0;
	bool inside = false;
	bool wiped = false;
	unsigned long start;
	unsigned long end;

	if (!file && fd >= 0)
		close(fd);
	while (file && getline(&line, &capacity, file) > 0) {
		if (sscanf(line, "%lx-%lx", &start, &end) == 2)
			inside = address >= start && address < end;
		if (!inside || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		wiped = strstr(line, " wf") != NULL;
		break;
	}
	if (file)
		fclose(file);
	return wiped;
}

static struct cprof_error *look_around(const struct cprof_target *target, struct cprof_place *place)
{
	CPROF_TRY(cprof_target_maps(target, see_parts, place));
	if (place->private && !wiped_on_fork(target, place->base + CPROF_AGENT_PRIVATE)) {
		place->private = false;
		place->taken = true;
	}
	return NULL;
}

static int find_memfd(const struct cprof_target *target)
{
	int dirfd = openat(cprof_target_procfd(target), "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = dirfd >= 0 ? fdopendir(dirfd) : NULL;
	const struct dirent *entry;
	int found = -1;
	char link[64];

	if (!directory && dirfd >= 0)
		close(dirfd);
	while (directory && found < 0 && (entry = readdir(directory))) {
		ssize_t got = readlinkat(dirfd, entry->d_name, link, sizeof(link));

		if (got == (ssize_t)strlen(MEMFD_PATH) &&
		    memcmp(link, MEMFD_PATH, (size_t)got) == 0)
			found = (int)strtol(entry->d_name, NULL, 10);
	}
	if (directory)
		closedir(directory);
	return found;
}

/* False: not one of ours, left alone. */
static bool read_header(const struct cprof_target *target, struct cprof_place *place)
{
	return cprof_target_read(target, place->base, &place->header, sizeof(place->header)) ==
		       sizeof(place->header) &&
	       place->header.magic == CPROF_AGENT_MAGIC &&
	       place->header.version == CPROF_AGENT_VERSION;
}

struct cprof_error *cprof_place_find(const struct cprof_target *target, uint64_t build,
				     struct cprof_place *place)
{
	struct texts texts = {.count = 0};
	int memfd = find_memfd(target);
	int best = 0;

	*place = (struct cprof_place){.memfd = memfd};
	CPROF_TRY(cprof_target_maps(target, see_text, &texts));
	for (size_t i = 0; i < texts.count; i++) {
		struct cprof_place one = {.base = texts.bases[i], .text = true, .memfd = memfd};
		int score = 1;

		if (!read_header(target, &one))
			continue;
		CPROF_TRY(look_around(target, &one));
		score += 8 * one.shared + 4 * one.private + 2 * (one.header.build == build) +
			 !one.taken;
		if (score <= best)
			continue;
		best = score;
		*place = one;
	}
	return NULL;
}

/* --- choosing ------------------------------------------------------------------------------- */

/* The nearest gap to the allocator: jumps over more than 4 GiB cost 1.7 ns a pair. */
struct gaps {
	unsigned attempt;
	uint64_t anchor; /* where the libc's code is, 0 unknown */
	uint64_t end;    /* of the mapping before */
	bool heap;       /* that mapping is the brk heap, which grows into the gap */
	bool large_only;
	uint64_t best;
	uint64_t best_distance;
};

static struct cprof_error *see_libc(void *context, const struct cprof_mapping *mapping)
{
	struct gaps *gaps = context;
	const char *slash = strrchr(mapping->path, '/');

	if (slash && mapping->prot & PROT_EXEC &&
	    (strncmp(slash, "/libc.so", 8) == 0 || strncmp(slash, "/libc-", 6) == 0 ||
	     strncmp(slash, "/ld-musl", 8) == 0))
		gaps->anchor = mapping->start;
	return NULL;
}

/* A gap up to `start`. In a large one below the kernel's own choices, which go downwards from its
 * end, and far above the heap; in a small one in the middle. */
static void see_gap(struct gaps *gaps, uint64_t start)
{
	uint64_t end = CPROF_MIN(start, ADDRESS_MAX);
	uint64_t size = end > gaps->end ? end - gaps->end : 0;
	uint64_t base;
	uint64_t distance;

	if (size < CPROF_AGENT_FILE_SIZE + 2 * MARGIN ||
	    ((gaps->heap || gaps->large_only) && size < LARGE))
		return;
	base = size >= LARGE ? end - BELOW - gaps->attempt % 32 * STRIDE
			     : gaps->end + (size - CPROF_AGENT_FILE_SIZE) / 2;
	distance = gaps->anchor > base ? gaps->anchor - base : base - gaps->anchor;
	if (!gaps->anchor)
		distance = ADDRESS_MAX - size; /* the largest */
	if (gaps->best && distance >= gaps->best_distance)
		return;
	gaps->best = base & -ALIGN;
	gaps->best_distance = distance;
}

static struct cprof_error *see_mapping(void *context, const struct cprof_mapping *mapping)
{
	struct gaps *gaps = context;

	if (strcmp(mapping->path, "[stack]") != 0) /* which grows downwards */
		see_gap(gaps, mapping->start);
	gaps->end = CPROF_MAX(gaps->end, mapping->end);
	if (is_text(mapping)) /* another build's, which will want its memory back */
		gaps->end = CPROF_MAX(gaps->end, mapping->start + CPROF_AGENT_FILE_SIZE);
	gaps->heap = strcmp(mapping->path, "[heap]") == 0;
	return NULL;
}

struct cprof_error *cprof_place_choose(const struct cprof_target *target, unsigned attempt,
				       uint64_t *base)
{
	/* Small gaps are where threads' stacks come and go. */
	struct gaps gaps = {.attempt = attempt, .end = ADDRESS_MIN, .large_only = attempt > 1};

	CPROF_TRY(cprof_target_maps(target, see_libc, &gaps));
	CPROF_TRY(cprof_target_maps(target, see_mapping, &gaps));
	if (!gaps.best && gaps.large_only) {
		gaps.large_only = false;
		gaps.end = ADDRESS_MIN;
		CPROF_TRY(cprof_target_maps(target, see_mapping, &gaps));
	}
	if (!gaps.best)
		return cprof_error_create(CPROF_DENIED, NULL,
					  "pid %d: no room in its address space",
					  (int)cprof_target_info(target)->pid);
	*base = gaps.best;
	return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * What a futex belongs to: libc's functions among the innermost frames say it, the memory must
 * confirm it; otherwise it stays a futex.
 */
#include "private.h"

#include <cprof/util.h>
#include <linux/futex.h>
#include <string.h>

#define FRAMES_LOOKED 12

enum meaning {
	MEANS_NOTHING, /* not known: whoever waits below it, it is not told */
	MEANS_WAITING, /* part of any wait: its caller says more */
	MEANS_MUTEX,
	MEANS_RWLOCK,
	MEANS_COND,
	MEANS_SEM,
	MEANS_JOIN,
};

/* By the start of a name without leading underscores and "GI_"; the first that fits. */
static const struct {
	const char *start;
	enum meaning meaning;
	bool whole; /* the name must end there */
} meanings[] = {
	{"lll_lock_wait_private", MEANS_NOTHING, true}, /* a bare word: no owner beside it */
	{"lll_", MEANS_WAITING, false},
	{"futex_", MEANS_WAITING, false},
	{"futexwait", MEANS_WAITING, true}, /* musl, as are the next four */
	{"timedwait", MEANS_WAITING, true},
	{"timedwait_cp", MEANS_WAITING, true},
	{"wait", MEANS_WAITING, true},
	{"syscall_cp", MEANS_WAITING, false},
	{"cp_end", MEANS_WAITING, true},
	{"syscall_cancel", MEANS_WAITING, false},
	{"internal_syscall_cancel", MEANS_WAITING, true},
	{"pthread_mutex_", MEANS_MUTEX, false},
	{"mtx_", MEANS_MUTEX, false},
	{"pthread_rwlock_", MEANS_RWLOCK, false},
	{"pthread_cond_", MEANS_COND, false},
	{"cnd_", MEANS_COND, false},
	{"sem_", MEANS_SEM, false},
	{"new_sem_wait", MEANS_SEM, false},
	{"do_futex_wait", MEANS_WAITING, false},
	{"pthread_clockjoin", MEANS_JOIN, false},
	{"pthread_timedjoin", MEANS_JOIN, false},
	{"pthread_join", MEANS_JOIN, true},
	{"thrd_join", MEANS_JOIN, true},
};

static enum meaning meaning_of(const char *name)
{
	name += strspn(name, "_");
	if (strncmp(name, "GI_", 3) == 0)
		name += 3 + strspn(name + 3, "_");
	for (size_t i = 0; i < CPROF_COUNT(meanings); i++) {
		size_t length = strlen(meanings[i].start);

		if (strncmp(name, meanings[i].start, length) == 0 &&
		    (!meanings[i].whole || !name[length]))
			return meanings[i].meaning;
	}
	return MEANS_NOTHING;
}

enum cprof_wait_kind cprof_wait_of_function(const char *name)
{
	switch (meaning_of(name)) {
	case MEANS_MUTEX:
		return CPROF_WAIT_MUTEX;
	case MEANS_RWLOCK:
		return CPROF_WAIT_RWLOCK;
	case MEANS_COND:
		return CPROF_WAIT_COND;
	case MEANS_SEM:
		return CPROF_WAIT_SEM;
	case MEANS_JOIN:
		return CPROF_WAIT_JOIN;
	case MEANS_WAITING:
		return CPROF_WAIT_NONE;
	case MEANS_NOTHING:
		break;
	}
	return CPROF_WAIT_FUTEX;
}

/* By the file's name: libc.so.6, libpthread-2.31.so, ld-musl-x86_64.so.1, musl's libc.so. */
static enum cprof_libc libc_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	if (strncmp(name, "ld-musl-", 8) == 0 || strncmp(name, "libc.musl-", 10) == 0 ||
	    (strcmp(name, "libc.so") == 0 && strstr(path, "musl")))
		return CPROF_LIBC_MUSL;
	if (strncmp(name, "libc.so.6", 9) == 0 || strncmp(name, "libpthread.so.0", 15) == 0 ||
	    strncmp(name, "libc-2.", 7) == 0 || strncmp(name, "libpthread-2.", 13) == 0)
		return CPROF_LIBC_GLIBC;
	return CPROF_LIBC_UNKNOWN;
}

/* In a static program libc is part of it: names that only glibc has tell it. */
static bool glibc_only(const char *name)
{
	return strncmp(name, "__lll_lock_wait", 15) == 0 ||
	       strncmp(name, "__futex_abstimed_wait", 21) == 0 ||
	       strncmp(name, "futex_wait", 10) == 0 ||
	       strncmp(name, "__pthread_mutex_lock_full", 25) == 0 ||
	       strncmp(name, "__futex_lock_pi64", 17) == 0;
}

static bool is_program(const struct cprof_look *look, const char *path)
{
	char text[4096];

	cprof_text_clean(path, strlen(path), text, sizeof(text));
	return strcmp(text, cprof_target_info(look->target)->exe) == 0;
}

/* The innermost function that says what is waited for, and in which libc it is. */
static enum meaning read_frames(const struct cprof_look *look, size_t index, enum cprof_libc *libc)
{
	const struct cprof_dump_thread *thread = &look->dump->threads[index];
	bool is_glibc = false;

	*libc = CPROF_LIBC_UNKNOWN;
	for (size_t i = 0; i < CPROF_MIN(thread->frame_count, (size_t)FRAMES_LOOKED); i++) {
		const struct cprof_dump_frame *frame = &thread->frames[i];
		enum cprof_libc here = libc_of(frame->module);
		enum meaning meaning;

		is_glibc = is_glibc || (frame->function && glibc_only(frame->function));
		if (here == CPROF_LIBC_UNKNOWN && is_glibc && is_program(look, frame->module))
			here = CPROF_LIBC_GLIBC;
		if (here == CPROF_LIBC_UNKNOWN && i > 0)
			break;
		if (!frame->function)
			continue; /* a static function of a stripped libc */
		meaning = meaning_of(frame->function);
		if (meaning == MEANS_NOTHING || here == CPROF_LIBC_UNKNOWN)
			break;
		*libc = here;
		if (meaning != MEANS_WAITING)
			return meaning;
	}
	return MEANS_NOTHING;
}

/* Inside pthread_cond_wait, by __pthread_mutex_cond_lock, which a stripped libc does not name, the
 * mutex is taken again: then the call is not the one that waits for conditions. */
static bool is_relock(const struct cprof_look *look, size_t index)
{
	const struct cprof_snapshot_thread *thread = &look->snapshot->threads[index];

	return (thread->arguments[1] & FUTEX_CMD_MASK) != FUTEX_WAIT_BITSET;
}

static bool is_lock(struct cprof_look *look, enum meaning meaning, enum cprof_libc libc,
		    uint64_t word, struct cprof_wait *wait, struct cprof_lock *lock)
{
	*lock = (struct cprof_lock){.address = word};
	switch (meaning) {
	case MEANS_MUTEX:
		wait->kind = CPROF_WAIT_MUTEX;
		return cprof_owners_mutex(look, libc, word, lock);
	case MEANS_RWLOCK:
		wait->kind = CPROF_WAIT_RWLOCK;
		return cprof_owners_rwlock(look, libc, word, lock);
	case MEANS_COND:
		wait->kind = CPROF_WAIT_COND;
		lock->address = cprof_owners_cond(look, libc, word);
		return true;
	case MEANS_SEM:
		wait->kind = CPROF_WAIT_SEM;
		return true;
	case MEANS_JOIN:
		wait->kind = CPROF_WAIT_JOIN;
		return cprof_owners_join(look, libc, word, lock);
	case MEANS_NOTHING:
	case MEANS_WAITING:
		break;
	}
	return false;
}

void cprof_futex_classify(struct cprof_look *look, size_t index, uint64_t word,
			  struct cprof_wait_text *text)
{
	struct cprof_wait *wait = &look->dump->threads[index].wait;
	enum cprof_libc libc;
	enum meaning meaning = read_frames(look, index, &libc);
	struct cprof_lock lock;
	char place[256];

	if (meaning == MEANS_COND && libc == CPROF_LIBC_GLIBC && is_relock(look, index))
		meaning = MEANS_MUTEX;
	if (!is_lock(look, meaning, libc, word, wait, &lock)) {
		wait->kind = CPROF_WAIT_FUTEX;
		lock = (struct cprof_lock){.address = word};
	}
	wait->address = lock.address;
	wait->owner = lock.owner;
	wait->owner_gone = lock.owner_gone;
	if (wait->address && wait->kind != CPROF_WAIT_JOIN) {
		cprof_areas_describe(&look->areas, look->space, wait->address, place,
				     sizeof(place));
		cprof_wait_say(text, "%s", place);
	}
	if (lock.robust) /* which glibc marks as shared in any case */
		cprof_wait_say(text, ", robust");
	else if (lock.shared)
		cprof_wait_say(text, ", shared between processes");
	if (lock.readers)
		cprof_wait_say(text, ", %u reader%s it", lock.readers,
			       lock.readers == 1 ? " has" : "s have");
}

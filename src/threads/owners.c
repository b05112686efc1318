/* SPDX-License-Identifier: MIT
 *
 * Layouts of locks. What memory says is believed only where all of it fits the layout.
 *
 * glibc (sysdeps/nptl/bits/struct_mutex.h, struct_rwlock.h, thread-shared-types.h, x86-64):
 *   mutex:  0 lock  4 count  8 owner  12 nusers  16 kind; waited for at 0
 *   rwlock: 0 readers  4 writers  8 phase futex  12 writers' futex  24 writer  28 shared  48 kind;
 *           waited for at 8, at 12, and by readers that prefer writers at 0
 *   cond:   0 wseq  8 g1_start  16 g_refs  24 g_size  32 g1_orig_size  36 wrefs  40 g_signals;
 *           waited for at 40 and 44; since 2.41 without g_refs, all behind it 8 lower
 *   join:   waited for at the joined thread's tid
 * musl (src/internal/pthread_impl.h): mutex: 0 type  4 lock; waited for at 4.
 */
#include "private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TID_MASK  0x3fffffffu /* FUTEX_TID_MASK */
#define TID_READS 8           /* of all threads' numbers in one dump */

/* --- whose a tid is ------------------------------------------------------------------------ */

/* Whether the target's memory speaks of other tids than we do. */
static bool other_namespace(const struct cprof_look *look)
{
	const struct cprof_target_info *info = cprof_target_info(look->target);
	struct stat ours;

	return stat("/proc/self/ns/pid", &ours) != 0 || ours.st_dev != info->pid_ns_dev ||
	       ours.st_ino != info->pid_ns_ino;
}

/* The last number of "NSpid:", its tid in its own namespace; 0 unknown. */
static pid_t inner_tid(const struct cprof_look *look, pid_t tid)
{
	CPROF_AUTO_FREE char *status = NULL;
	pid_t inner = 0;
	char path[64];
	char *at;
	char *end;

	snprintf(path, sizeof(path), "task/%d/status", (int)tid);
	status = cprof_read_file_at(cprof_target_procfd(look->target), path, 65536, NULL);
	at = status ? strstr(status, "\nNSpid:") : NULL;
	if (!at)
		return 0;
	for (at += strlen("\nNSpid:"); *at == '\t' || *at == ' '; at = end) {
		inner = (pid_t)strtol(at, &end, 10);
		if (end == at)
			break;
	}
	return inner;
}

static int compare_pairs(const void *a, const void *b)
{
	const struct cprof_tid_pair *x = a;
	const struct cprof_tid_pair *y = b;

	return (x->inner > y->inner) - (x->inner < y->inner);
}

static void read_tids(struct cprof_look *look)
{
	CPROF_AUTO_FREE pid_t *tids = NULL;
	bool other = other_namespace(look);
	size_t count = 0;
	struct cprof_error *error = cprof_target_threads(look->target, &tids, &count);

	look->tid_reads++;
	look->tids = error ? NULL : calloc(count + 1, sizeof(*look->tids));
	cprof_error_destroy(error);
	if (!look->tids)
		return;
	for (size_t i = 0; i < count; i++)
		look->tids[i] = (struct cprof_tid_pair){
			.inner = other ? inner_tid(look, tids[i]) : tids[i], .outer = tids[i]};
	look->tid_count = count;
	if (count)
		qsort(look->tids, count, sizeof(*look->tids), compare_pairs);
}

static pid_t find_tid(const struct cprof_look *look, uint32_t inner)
{
	const struct cprof_tid_pair key = {.inner = (pid_t)inner};
	const struct cprof_tid_pair *found;

	if (!inner || inner > TID_MASK || !look->tid_count)
		return 0;
	found = bsearch(&key, look->tids, look->tid_count, sizeof(key), compare_pairs);
	return found ? found->outer : 0;
}

/* Whether it has ended but for its number, as a main thread that left by pthread_exit. */
static bool is_zombie(const struct cprof_look *look, pid_t tid)
{
	size_t index = cprof_look_find(look, tid);
	char state = index == CPROF_NO_THREAD ? '\0' : look->snapshot->threads[index].state;

	return state == 'Z' || state == 'X';
}

/* Sets the owner from a tid as the target's memory has it. A tid of no thread is one that has
 * ended, or one of the process that forked this one: to wait for it is in vain. */
static void set_owner(struct cprof_look *look, uint32_t inner, struct cprof_lock *lock)
{
	if (!look->tid_reads)
		read_tids(look);
	lock->owner = find_tid(look, inner);
	if (!lock->owner && look->tid_reads < TID_READS) { /* born since, perhaps */
		free(look->tids);
		look->tids = NULL;
		look->tid_count = 0;
		read_tids(look);
		lock->owner = find_tid(look, inner);
	}
	if (lock->owner) {
		lock->owner_gone = is_zombie(look, lock->owner);
	} else if (!lock->shared && look->tid_count) {
		lock->owner = (pid_t)inner;
		lock->owner_gone = true;
	}
}

static bool read_words(const struct cprof_look *look, uint64_t address, uint32_t *words,
		       size_t count)
{
	return cprof_target_read(look->target, address, words, count * sizeof(*words)) ==
	       count * sizeof(*words);
}

/* --- mutexes ------------------------------------------------------------------------------- */

enum { /* of glibc's kind: nptl/pthreadP.h */
       KIND_TYPE = 3,
       KIND_ROBUST = 16,
       KIND_PI = 32,
       KIND_PROTECT = 64,
       KIND_SHARED = 128,
       KIND_ELISION = 256 | 512,
};

static bool glibc_mutex(struct cprof_look *look, uint64_t word, struct cprof_lock *lock)
{
	enum { LOCK, COUNT, OWNER, NUSERS, KIND, WORDS };
	uint32_t mutex[WORDS];
	uint32_t owner;

	if (!read_words(look, word, mutex, WORDS) ||
	    mutex[KIND] & ~(uint32_t)(KIND_TYPE | KIND_ROBUST | KIND_PI | KIND_PROTECT |
				      KIND_SHARED | KIND_ELISION))
		return false;
	lock->address = word;
	lock->shared = mutex[KIND] & KIND_SHARED;
	lock->robust = mutex[KIND] & KIND_ROBUST;
	owner = mutex[OWNER];
	if (mutex[KIND] & (KIND_ROBUST | KIND_PI)) {
		uint32_t holder = mutex[LOCK] & TID_MASK;

		/* The kernel clears the word of a robust one; the owner may be marked as dead. */
		if (owner != holder)
			owner = 0;
	} else if (!(mutex[KIND] & KIND_PROTECT) && mutex[LOCK] > 2) {
		return false;
	}
	if (!owner) /* changing hands */
		return true;
	if (owner > TID_MASK || !mutex[NUSERS])
		return false;
	set_owner(look, owner, lock);
	return true;
}

static bool musl_mutex(struct cprof_look *look, uint64_t word, struct cprof_lock *lock)
{
	enum { TYPE, LOCK, WORDS };
	uint32_t mutex[WORDS];

	/* Types: 0-2, with 4 robust, 8 priority inheriting, 128 shared. */
	if (word < 4 || !read_words(look, word - 4, mutex, WORDS) ||
	    mutex[TYPE] & ~(uint32_t)(3 | 4 | 8 | 128))
		return false;
	lock->address = word - 4;
	lock->shared = mutex[TYPE] & 128;
	/* A normal one stores no owner. */
	if ((mutex[TYPE] & 15) != 0 && (mutex[LOCK] & TID_MASK))
		set_owner(look, mutex[LOCK] & TID_MASK, lock);
	return true;
}

bool cprof_owners_mutex(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
			struct cprof_lock *lock)
{
	return libc == CPROF_LIBC_MUSL ? musl_mutex(look, word, lock)
				       : glibc_mutex(look, word, lock);
}

/* --- rwlocks ------------------------------------------------------------------------------- */

enum {
	RW_READERS = 0, /* words of the lock */
	RW_WRITERS = 1,
	RW_PHASE = 2,
	RW_WRITERS_FUTEX = 3,
	RW_WRITER = 6,
	RW_SHARED = 7,
	RW_KIND = 12,
	RW_WORDS = 14,

	RW_WRITE_PHASE = 1, /* bits of `readers`: nptl/pthread_rwlock_common.c */
	RW_WRITE_LOCKED = 2,
	RW_READERS_WAIT = 4,
	RW_READERS_SHIFT = 3,
	RW_KIND_WRITERS_FIRST = 2,
	RW_FUTEX_MAX = 3, /* a boolean and a "was waited for" */
};

static bool rwlock_fits(const struct cprof_look *look, uint64_t address, uint32_t *words)
{
	return address % 8 == 0 && read_words(look, address, words, RW_WORDS) &&
	       words[RW_PHASE] <= RW_FUTEX_MAX && words[RW_WRITERS_FUTEX] <= RW_FUTEX_MAX &&
	       words[RW_SHARED] <= 1 && words[RW_KIND] <= RW_KIND_WRITERS_FIRST &&
	       words[RW_WRITER] <= TID_MASK;
}

bool cprof_owners_rwlock(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
			 struct cprof_lock *lock)
{
	uint32_t words[RW_WORDS];

	lock->address = word;
	if (libc == CPROF_LIBC_MUSL) /* at its word 0; no owner is stored */
		return true;
	if (word % 8 == 4) {
		lock->address = word - 4 * RW_WRITERS_FUTEX;
		if (!rwlock_fits(look, lock->address, words))
			return false;
	} else if (rwlock_fits(look, word, words) && words[RW_KIND] == RW_KIND_WRITERS_FIRST &&
		   words[RW_READERS] & RW_READERS_WAIT) {
		lock->address = word;
	} else {
		lock->address = word - 4 * RW_PHASE;
		if (!rwlock_fits(look, lock->address, words))
			return false;
	}
	lock->shared = words[RW_SHARED];
	if (words[RW_WRITER])
		set_owner(look, words[RW_WRITER], lock);
	else if (!(words[RW_READERS] & RW_WRITE_PHASE))
		lock->readers = words[RW_READERS] >> RW_READERS_SHIFT;
	return true;
}

/* --- the rest ------------------------------------------------------------------------------ */

uint64_t cprof_owners_cond(const struct cprof_look *look, enum cprof_libc libc, uint64_t word)
{
	enum { WAITERS_SHIFT = 3, WAITERS_MAX = 1 << 20 };
	uint64_t place = word % 8 ? word - 4 : word; /* of g_signals */
	uint32_t words[12];

	if (libc == CPROF_LIBC_MUSL) /* at a word on the waiter's stack */
		return 0;
	/* The count of waiters is at 36, or 28: it cannot be 0, nor huge. */
	for (unsigned signals = 10; signals >= 8; signals -= 2) {
		uint64_t start = place - 4 * signals;

		if (read_words(look, start, words, signals + 2) &&
		    words[signals - 1] >> WAITERS_SHIFT > 0 &&
		    words[signals - 1] >> WAITERS_SHIFT < WAITERS_MAX)
			return start;
	}
	return word;
}

bool cprof_owners_join(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
		       struct cprof_lock *lock)
{
	uint32_t tid;

	lock->address = word;
	if (libc == CPROF_LIBC_MUSL) /* at a state, not at the tid */
		return true;
	if (!read_words(look, word, &tid, 1))
		return false;
	if (!look->tid_reads)
		read_tids(look);
	lock->owner = find_tid(look, tid);
	/* 0: it has just ended. */
	return lock->owner || !tid;
}

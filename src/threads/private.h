/* SPDX-License-Identifier: MIT
 *
 * What the files of a thread dump share. Everything of the target is read after it runs again, but
 * for registers and stacks: what a lock's memory says can be newer than the wait it explains.
 */
#ifndef CPROF_THREADS_PRIVATE_H
#define CPROF_THREADS_PRIVATE_H

#include <cprof/areas.h>
#include <cprof/attach.h>
#include <cprof/threads.h>
#include <time.h>

/* --- keep.c: what lives as long as the dump ------------------------------------------------ */

struct cprof_keep {
	struct cprof_keep_block *blocks; /* newest first */
	size_t used;                     /* of the newest */
};

/* Zeroed; NULL without memory. */
void *cprof_keep_take(struct cprof_keep *keep, size_t size);
/* The text made safe to show; NULL without memory. */
char *cprof_keep_clean(struct cprof_keep *keep, const char *text);
void cprof_keep_deinit(struct cprof_keep *keep);

/* --- areas.c: what lies where --------------------------------------------------------------- */

struct cprof_area {
	uint64_t start;
	uint64_t end;
	uint64_t base;    /* where the first mapping of its file starts */
	uint64_t code;    /* where one of its file's executable mappings starts, 0 none */
	const char *path; /* safe to show; "" anonymous; the file's too for the .bss behind it */
	pid_t stack_of;   /* the thread that has its stack here, 0 none */
};

struct cprof_areas {
	struct cprof_area *areas; /* ascending */
	size_t count;
	size_t capacity;
	struct cprof_keep texts;
	struct cprof_described *described; /* addresses with their symbols, found or not */
	size_t described_count;
	size_t described_capacity;
};

/* `snapshot`: whose stacks lie where; NULL: not known. */
struct cprof_error *cprof_areas_init(const struct cprof_target *target,
				     const struct cprof_snapshot *snapshot,
				     struct cprof_areas *areas);
void cprof_areas_deinit(struct cprof_areas *areas);

/* --- fds.c, sockets.c: what a file descriptor is -------------------------------------------- */

struct cprof_fd {
	int fd;
	enum cprof_wait_kind kind; /* FILE, PIPE, SOCKET, or POLL for eventfd and the like */
	char text[256];            /* safe to show */
};

struct cprof_socket {
	uint64_t inode;
	char text[144];
};

struct cprof_fds {
	const struct cprof_target *target;
	struct cprof_fd *known;
	size_t count;
	size_t capacity;
	struct cprof_socket *sockets; /* ascending inode, read when the first is asked for */
	size_t socket_count;
	size_t socket_capacity;
	bool sockets_read;
};

/* Lives until the next call; NULL: it is not open (any more). */
const struct cprof_fd *cprof_fds_find(struct cprof_fds *fds, int fd);
void cprof_fds_deinit(struct cprof_fds *fds);
/* The socket of an inode; NULL unknown. */
const char *cprof_sockets_find(struct cprof_fds *fds, uint64_t inode);

/* --- a dump in the making ------------------------------------------------------------------- */

struct cprof_tid_pair {
	pid_t inner; /* in the target's pid namespace: what its memory says */
	pid_t outer; /* in ours */
};

struct cprof_look {
	struct cprof_target *target;
	struct cprof_space *space;
	const struct cprof_snapshot *snapshot; /* its threads are dump->threads, one by one */
	struct cprof_dump *dump;
	struct cprof_keep *keep;
	struct cprof_areas areas;
	struct cprof_fds fds;
	struct cprof_tid_pair *tids; /* of all threads, ascending inner; when first asked for */
	size_t tid_count;
	unsigned tid_reads;    /* how often they have been read */
	uint64_t settle_until; /* threads of a circle are waited for so long; 0: none was looked at
				*/
};

/* Reads memory as thread `index` saw it: from its stack as copied, else from the target now. */
bool cprof_look_read(const struct cprof_look *look, size_t index, uint64_t address, void *buffer,
		     size_t length);

/* Index of a thread of the snapshot; CPROF_NO_THREAD: it is not in it. */
size_t cprof_look_find(const struct cprof_look *look, pid_t tid);

/* stacks.c: fills frames and ends of all threads. */
struct cprof_error *cprof_stacks_fill(struct cprof_space *space,
				      const struct cprof_dump_options *options,
				      const struct cprof_snapshot *snapshot,
				      struct cprof_dump *dump);

/* mappings.c: fills dump->mappings with what holds these addresses, and the program's own code.
 * False without memory. */
bool cprof_mappings_fill(struct cprof_space *space, const uint64_t *addresses, size_t count,
			 struct cprof_dump *dump);

/* retry.c: unwinds these threads (the first 50 of them) in another way and calls `better` for each
 * stack that then ends complete. False when `better` says so. */
bool cprof_retry_stacks(struct cprof_space *space, const struct cprof_snapshot *snapshot,
			const size_t *threads, size_t count,
			bool (*better)(void *context, size_t thread,
				       const struct cprof_stack *stack),
			void *context);

struct cprof_wait_text {
	char bytes[512];
	size_t length;
};

/* wait.c: fills the wait of thread `index`, whose frames are there. */
void cprof_wait_classify(struct cprof_look *look, size_t index);
/* Nanoseconds from the snapshot to a time of a clock; -1 unknown. */
int64_t cprof_wait_left(const struct cprof_look *look, clockid_t clock, uint64_t until_ns);
/* Appends to the text of a wait; what does not fit is cut. */
void cprof_wait_say(struct cprof_wait_text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* futex.c: what a futex is, by the frames that wait and by what lies in memory. */
void cprof_futex_classify(struct cprof_look *look, size_t index, uint64_t word,
			  struct cprof_wait_text *text);

/* owners.c: locks in memory, and whom they name. */
enum cprof_libc { CPROF_LIBC_UNKNOWN, CPROF_LIBC_GLIBC, CPROF_LIBC_MUSL };

struct cprof_lock {
	uint64_t address; /* where the object starts */
	pid_t owner;      /* 0 unknown */
	bool owner_gone;
	bool shared; /* with other processes: the owner may be in one */
	bool robust;
	unsigned readers; /* who have an rwlock */
};

/* What a thread that waits at a futex word in libc's mutex (rwlock, join) code waits for; false if
 * the memory does not look like it. */
bool cprof_owners_mutex(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
			struct cprof_lock *lock);
bool cprof_owners_rwlock(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
			 struct cprof_lock *lock);
bool cprof_owners_join(struct cprof_look *look, enum cprof_libc libc, uint64_t word,
		       struct cprof_lock *lock);
/* Where the condition variable starts; 0 unknown. */
uint64_t cprof_owners_cond(const struct cprof_look *look, enum cprof_libc libc, uint64_t word);

/* deadlock.c */
#define CPROF_NO_THREAD SIZE_MAX
/* Circles in a graph in which node i leads to next[i] (NONE: nowhere): calls `found` for each with
 * its nodes in order, the smallest first. False without memory or when `found` says so. */
bool cprof_deadlock_circles(const size_t *next, size_t count,
			    bool (*found)(void *context, const size_t *nodes, size_t length),
			    void *context);
/* Finds them, confirms each, and fills dump->deadlocks. */
struct cprof_error *cprof_deadlock_find(struct cprof_look *look);

#endif

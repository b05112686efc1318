/* SPDX-License-Identifier: MIT
 *
 * lockstorm conform SEED STEPS: two threads take turns at random operations on locks of every kind;
 *     what each returned, as a hash and by number. The same with and without hooks.
 * lockstorm storm THREADS [fork] [cancel] [cond]: threads take and drop locks of every kind until
 *     SIGTERM, and look whether anybody else is inside; then "ok".
 */
#include "workload.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <threads.h>

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		printf(__VA_ARGS__);                                                               \
		fflush(stdout);                                                                    \
		_exit(1);                                                                          \
	} while (0)

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* --- locks --------------------------------------------------------------------------------- */

enum kind {
	NORMAL,
	RECURSIVE,
	CHECKED,
	ADAPTIVE,
	ROBUST,
	ROBUST_CHECKED,
	INHERIT,
	CEILING,
	SHARED,
	C11,
	C11_RECURSIVE,
	RWLOCK,
	RWLOCK_WRITERS,
	SPIN,
	KINDS
};

union lock {
	pthread_mutex_t mutex;
	mtx_t c11;
	pthread_rwlock_t rwlock;
	pthread_spinlock_t spin;
};

static union lock locks[KINDS];

static bool is_mutex(enum kind kind)
{
	return kind <= SHARED;
}
static bool is_c11(enum kind kind)
{
	return kind == C11 || kind == C11_RECURSIVE;
}
static bool is_rwlock(enum kind kind)
{
	return kind == RWLOCK || kind == RWLOCK_WRITERS;
}

static void init_mutex(enum kind kind, pthread_mutex_t *mutex)
{
	pthread_mutexattr_t how;

	pthread_mutexattr_init(&how);
	if (kind == RECURSIVE)
		pthread_mutexattr_settype(&how, PTHREAD_MUTEX_RECURSIVE);
	if (kind == CHECKED || kind == ROBUST_CHECKED)
		pthread_mutexattr_settype(&how, PTHREAD_MUTEX_ERRORCHECK);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
	if (kind == ADAPTIVE)
		pthread_mutexattr_settype(&how, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
	if (kind == ROBUST || kind == ROBUST_CHECKED)
		pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
	if (kind == INHERIT)
		pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_INHERIT);
#ifdef __GLIBC__
	if (kind == CEILING)
		pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_PROTECT);
#endif
	if (kind == SHARED)
		pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
	if (pthread_mutex_init(mutex, &how))
		FAIL("mutex %d: cannot be made\n", kind);
	pthread_mutexattr_destroy(&how);
}

static void init(enum kind kind, union lock *lock)
{
	pthread_rwlockattr_t how;

	memset(lock, 0, sizeof(*lock));
	if (is_mutex(kind)) {
		init_mutex(kind, &lock->mutex);
	} else if (is_c11(kind)) {
		mtx_init(&lock->c11, kind == C11 ? mtx_timed : mtx_timed | mtx_recursive);
	} else if (is_rwlock(kind)) {
		pthread_rwlockattr_init(&how);
#ifdef __GLIBC__
		if (kind == RWLOCK_WRITERS)
			pthread_rwlockattr_setkind_np(&how,
						      PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
		pthread_rwlock_init(&lock->rwlock, &how);
	} else {
		pthread_spin_init(&lock->spin, PTHREAD_PROCESS_PRIVATE);
	}
}

static struct timespec soon(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	time.tv_nsec += 300000;
	if (time.tv_nsec >= 1000000000) {
		time.tv_nsec -= 1000000000;
		time.tv_sec++;
	}
	return time;
}

/* --- conformance --------------------------------------------------------------------------- */

enum operation { LOCK, WRITE, TRY, TRY_WRITE, TIMED, TIMED_WRITE, CLOCK, UNLOCK, OPERATIONS };

/* Who has it, as far as that tells what may be done without waiting for ever. */
static struct {
	int owner; /* thread + 1 */
	int depth;
	int readers[2];
} model[KINDS];

struct turn {
	pthread_t thread;
	pthread_mutex_t gate; /* only for waiting one's turn */
	atomic_int state;     /* 0 idle, 1 to do, 2 done, 3 leave */
	enum kind kind;
	enum operation operation;
	int result;
} turns[2];

static int on_mutex(enum kind kind, enum operation operation, pthread_mutex_t *mutex)
{
	struct timespec time = soon(operation == CLOCK ? CLOCK_MONOTONIC : CLOCK_REALTIME);

	(void)kind;
	switch (operation) {
	case LOCK:
	case WRITE:
		return pthread_mutex_lock(mutex);
	case TRY:
	case TRY_WRITE:
		return pthread_mutex_trylock(mutex);
	case UNLOCK:
		return pthread_mutex_unlock(mutex);
#ifdef __GLIBC__
	case CLOCK:
		return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &time);
#endif
	default:
		clock_gettime(CLOCK_REALTIME, &time);
		return pthread_mutex_timedlock(mutex, &time);
	}
}

static int on_rwlock(enum operation operation, pthread_rwlock_t *lock)
{
	struct timespec time = soon(CLOCK_REALTIME);

	switch (operation) {
	case LOCK:
		return pthread_rwlock_rdlock(lock);
	case WRITE:
		return pthread_rwlock_wrlock(lock);
	case TRY:
		return pthread_rwlock_tryrdlock(lock);
	case TRY_WRITE:
		return pthread_rwlock_trywrlock(lock);
	case TIMED_WRITE:
	case CLOCK:
		return pthread_rwlock_timedwrlock(lock, &time);
	case UNLOCK:
		return pthread_rwlock_unlock(lock);
	default:
		return pthread_rwlock_timedrdlock(lock, &time);
	}
}

static int on_c11(enum operation operation, mtx_t *lock)
{
	struct timespec time = soon(CLOCK_REALTIME);

	switch (operation) {
	case LOCK:
	case WRITE:
		return mtx_lock(lock);
	case TRY:
	case TRY_WRITE:
		return mtx_trylock(lock);
	case UNLOCK:
		return mtx_unlock(lock);
	default:
		return mtx_timedlock(lock, &time);
	}
}

static int operate(enum kind kind, enum operation operation)
{
	union lock *lock = &locks[kind];

	if (is_mutex(kind))
		return on_mutex(kind, operation, &lock->mutex);
	if (is_c11(kind))
		return on_c11(operation, &lock->c11);
	if (is_rwlock(kind))
		return on_rwlock(operation, &lock->rwlock);
	if (operation == UNLOCK)
		return pthread_spin_unlock(&lock->spin);
	return operation == LOCK ? pthread_spin_lock(&lock->spin)
				 : pthread_spin_trylock(&lock->spin);
}

/* Whether it comes back, and means something. */
static bool allowed(enum kind kind, enum operation operation, int thread)
{
	bool mine = model[kind].owner == thread + 1;
	bool taken = model[kind].owner || model[kind].readers[0] || model[kind].readers[1];

	if (is_rwlock(kind)) {
		if (operation == UNLOCK)
			return mine || model[kind].readers[thread];
		/* what a holder does again is undefined, or a deadlock */
		return !mine && !model[kind].readers[thread] &&
		       (operation >= TRY || (operation == LOCK ? !model[kind].owner : !taken));
	}
	if (operation == UNLOCK)
		return mine || kind == CHECKED || kind == ROBUST_CHECKED;
	if (operation == LOCK || operation == WRITE)
		return !taken || (mine && (kind == RECURSIVE || kind == CHECKED ||
					   kind == ROBUST_CHECKED || kind == C11_RECURSIVE));
	if (kind == SPIN)
		return operation == TRY;
	return true;
}

static void remember(enum kind kind, enum operation operation, int thread, int result)
{
	bool write = operation == WRITE || operation == TRY_WRITE || operation == TIMED_WRITE ||
		     operation == CLOCK;

	if (result)
		return;
	if (is_rwlock(kind) && !write && operation != UNLOCK) {
		model[kind].readers[thread]++;
	} else if (operation != UNLOCK) {
		model[kind].owner = thread + 1;
		model[kind].depth++;
	} else if (model[kind].readers[thread]) {
		model[kind].readers[thread]--;
	} else if (--model[kind].depth == 0) {
		model[kind].owner = 0;
	}
}

static void *take_turns(void *context)
{
	struct turn *turn = context;

	for (;;) {
		while (turn->state != 1 && turn->state != 3)
			sched_yield();
		if (turn->state == 3)
			return NULL;
		turn->result = operate(turn->kind, turn->operation);
		turn->state = 2;
	}
}

static int conform(uint64_t seed, long steps)
{
	uint64_t hash = 0xcbf29ce484222325ull;
	uint64_t counts[256] = {0};

	for (int kind = 0; kind < KINDS; kind++)
		init((enum kind)kind, &locks[kind]);
	for (int i = 0; i < 2; i++)
		pthread_create(&turns[i].thread, NULL, take_turns, &turns[i]);
	for (long step = 0; step < steps;) {
		int thread = (int)(next_random(&seed) % 2);
		struct turn *turn = &turns[thread];

		turn->kind = (enum kind)(next_random(&seed) % KINDS);
		turn->operation = (enum operation)(next_random(&seed) % OPERATIONS);
		if (!allowed(turn->kind, turn->operation, thread))
			continue;
		turn->state = 1;
		while (turn->state != 2)
			sched_yield();
		remember(turn->kind, turn->operation, thread, turn->result);
		hash = (hash ^ (uint64_t)(turn->kind << 16 | turn->operation << 8 |
					  (turn->result & 0xff))) *
		       0x100000001b3ull;
		counts[turn->result & 0xff]++;
		step++;
	}
	for (int i = 0; i < 2; i++) {
		turns[i].state = 3;
		pthread_join(turns[i].thread, NULL);
	}
	printf("%016llx", (unsigned long long)hash);
	for (int i = 0; i < 256; i++)
		if (counts[i])
			printf(" %d:%llu", i, (unsigned long long)counts[i]);
	putchar('\n');
	return 0;
}

/* --- storm --------------------------------------------------------------------------------- */

static atomic_int inside[KINDS]; /* writers count 1000 */
static bool forks, cancels, waits;
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_cond = PTHREAD_COND_INITIALIZER;
static _Atomic uint64_t passes;

static void enter(int kind, int weight)
{
	int now = inside[kind] += weight;

	if (weight == 1 ? now >= 1000 : now != 1000)
		FAIL("lock %d: two are inside\n", kind);
}

static void pass(uint64_t *seed)
{
	enum kind kind = (enum kind)(next_random(seed) % KINDS);
	bool write = !is_rwlock(kind) || next_random(seed) % 4 == 0;
	enum operation operation = write ? WRITE : LOCK;
	int result;

	if (next_random(seed) % 8 == 0 && kind != SPIN)
		operation = write ? TIMED_WRITE : TIMED;
	if (kind == SPIN)
		operation = LOCK;
	result = operate(kind, operation);
	if (kind == CEILING && result == EINVAL) /* not without a real-time priority */
		return;
	if (result == ETIMEDOUT || (is_c11(kind) && result == thrd_timedout))
		return;
	if (result == EOWNERDEAD) {
		pthread_mutex_consistent(&locks[kind].mutex);
		result = 0;
	}
	if (result)
		FAIL("lock %d: %d\n", kind, result);
	enter(kind, write ? 1000 : 1);
	for (volatile int i = 0; i < (int)(next_random(seed) % 400); i++)
		;
	inside[kind] -= write ? 1000 : 1;
	result = operate(kind, UNLOCK);
	if (result)
		FAIL("lock %d: unlock: %d\n", kind, result);
	passes++;
}

static void give_up(void *unused)
{
	(void)unused;
	pthread_mutex_unlock(&wait_lock);
}

static void *waiter(void *unused)
{
	pthread_mutex_lock(&wait_lock);
	pthread_cleanup_push(give_up, NULL);
	for (;;)
		pthread_cond_wait(&wait_cond, &wait_lock);
	pthread_cleanup_pop(1);
	return unused;
}

/* A wait that is cancelled must give the mutex back. */
static void cancel_one(void)
{
	pthread_t thread;
	void *how;

	pthread_create(&thread, NULL, waiter, NULL);
	for (int i = 0; i < 20; i++) {
		pthread_mutex_lock(&wait_lock);
		pthread_cond_broadcast(&wait_cond);
		pthread_mutex_unlock(&wait_lock);
	}
	pthread_cancel(thread);
	pthread_join(thread, &how);
	if (how != PTHREAD_CANCELED)
		FAIL("not cancelled\n");
}

static void wait_a_little(void)
{
	struct timespec time = soon(CLOCK_REALTIME);

	pthread_mutex_lock(&wait_lock);
	pthread_cond_timedwait(&wait_cond, &wait_lock, &time);
	pthread_mutex_unlock(&wait_lock);
}

/* The child has locks of its own. */
static void fork_one(uint64_t *seed)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	int status;
	pid_t child = fork();

	if (child == 0) {
		for (int i = 0; i < 100; i++) {
			pthread_mutex_lock(&mutex);
			pthread_mutex_unlock(&mutex);
		}
		_exit(next_random(seed) % 2 ? 0 : 7);
	}
	if (child > 0 && (waitpid(child, &status, 0) != child || !WIFEXITED(status)))
		FAIL("a child did not end well\n");
}

static void *storm(void *seed_of)
{
	uint64_t seed = (uint64_t)(uintptr_t)seed_of * 0x9e3779b97f4a7c15ull;

	while (!stopping) {
		for (int i = 0; i < 200; i++)
			pass(&seed);
		if (cancels && next_random(&seed) % 8 == 0)
			cancel_one();
		if (waits && next_random(&seed) % 4 == 0)
			wait_a_little();
		if (forks && next_random(&seed) % 16 == 0)
			fork_one(&seed);
	}
	return NULL;
}

static void on_signal(int signal)
{
	(void)signal;
	stopping = 1;
}

int main(int argc, char **argv)
{
	pthread_t threads[256];
	int count = argc > 2 ? atoi(argv[2]) : 4;

	if (argc > 3 && strcmp(argv[1], "conform") == 0)
		return conform(strtoull(argv[2], NULL, 10) * 2 + 1, atol(argv[3]));
	for (int i = 3; i < argc; i++) {
		forks |= strcmp(argv[i], "fork") == 0;
		cancels |= strcmp(argv[i], "cancel") == 0;
		waits |= strcmp(argv[i], "cond") == 0;
	}
	signal(SIGTERM, on_signal);
	for (int kind = 0; kind < KINDS; kind++)
		init((enum kind)kind, &locks[kind]);
	for (int i = 0; i < count && i < 256; i++)
		pthread_create(&threads[i], NULL, storm, (void *)(uintptr_t)(i + 1));
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < count && i < 256; i++)
		pthread_join(threads[i], NULL);
	printf("ok, %llu passes\n", (unsigned long long)passes);
	return 0;
}

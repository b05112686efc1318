/* SPDX-License-Identifier: MIT
 *
 * Hooks of locks in this process: what they tell of waits whose course is known, and that what they
 * stand for behaves as before.
 */
#include "agent_plant.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#define RECORDS 4096
#define MS      1000000ull

static struct plant plant;

static void *hook(enum cprof_agent_lock function)
{
	return plant.base + plant_header(&plant)->lock_hooks[CPROF_AGENT_GLIBC][function];
}

#define LOCK(name, type, lock) ((int (*)(type *))hook(CPROF_AGENT_L_##name))(lock)

static int mutex_lock(pthread_mutex_t *mutex)
{
	return LOCK(mutex_lock, pthread_mutex_t, mutex);
}
static int mutex_unlock(pthread_mutex_t *mutex)
{
	return LOCK(mutex_unlock, pthread_mutex_t, mutex);
}

static int start(void **state)
{
	uint64_t *originals;

	(void)state;
	plant_map(&plant, 1u << 30);
	originals = plant.config->lock_originals[CPROF_AGENT_GLIBC];
	originals[CPROF_AGENT_L_mutex_lock] = (uint64_t)pthread_mutex_lock;
	originals[CPROF_AGENT_L_mutex_timedlock] = (uint64_t)pthread_mutex_timedlock;
	originals[CPROF_AGENT_L_mutex_unlock] = (uint64_t)pthread_mutex_unlock;
	originals[CPROF_AGENT_L_rwlock_rdlock] = (uint64_t)pthread_rwlock_rdlock;
	originals[CPROF_AGENT_L_rwlock_wrlock] = (uint64_t)pthread_rwlock_wrlock;
	originals[CPROF_AGENT_L_rwlock_unlock] = (uint64_t)pthread_rwlock_unlock;
	originals[CPROF_AGENT_L_spin_lock] = (uint64_t)pthread_spin_lock;
	originals[CPROF_AGENT_L_spin_unlock] = (uint64_t)pthread_spin_unlock;
	originals[CPROF_AGENT_L_cond_wait] = (uint64_t)pthread_cond_wait;
	plant_start(&plant, 1);
	assert_int_equal(plant_call.error, 0);
	for (size_t i = 0; i < CPROF_AGENT_LOCK_BUCKETS; i++)
		plant.shared->lock_rates[i].every = 1;
	plant.shared->lock_fixed = 1;
	return 0;
}

static int stop(void **state)
{
	(void)state;
	plant_destroy(&plant);
	return 0;
}

/* --- what was told ------------------------------------------------------------------------- */

static struct {
	struct cprof_agent_record waits[RECORDS];
	struct cprof_agent_got gots[RECORDS];
	struct cprof_agent_record unlocks[RECORDS];
	size_t wait_count, got_count, unlock_count;
} told;

static void read_ring(void)
{
	struct cprof_agent_shared *shared = plant.shared;
	uint64_t position = shared->lock_tail;

	memset(&told, 0, sizeof(told));
	while (position != shared->lock_head) {
		const struct cprof_agent_record *record =
			(void *)&shared->lock_ring[position % CPROF_AGENT_LOCK_RING_SIZE];

		assert_int_equal(record->stamp & ~7u, (uint32_t)position);
		assert_int_not_equal(record->stamp & 7, CPROF_AGENT_STAMP_BUSY);
		position += record->length;
		if ((record->stamp & 7) == CPROF_AGENT_STAMP_PAD)
			continue;
		if (record->type == CPROF_AGENT_RECORD_WAIT)
			told.waits[told.wait_count++] = *record;
		else if (record->type == CPROF_AGENT_RECORD_UNLOCK)
			told.unlocks[told.unlock_count++] = *record;
		else
			told.gots[told.got_count++] = *(const struct cprof_agent_got *)record;
	}
	shared->lock_tail = position;
	for (size_t i = 0; i < CPROF_AGENT_LOCK_BUCKETS; i++)
		assert_int_equal(shared->waiting[i], 0);
}

static void pause_ms(unsigned ms)
{
	struct timespec time = {.tv_nsec = (long)(ms * MS)};

	nanosleep(&time, NULL);
}

/* Until somebody who is timed waits for the lock. */
static void await_waiters(const void *lock, unsigned count)
{
	unsigned bucket = ((uint64_t)lock >> CPROF_AGENT_LOCK_SHIFT) % CPROF_AGENT_LOCK_BUCKETS;

	while ((__atomic_load_n(&plant.shared->waiting[bucket], __ATOMIC_ACQUIRE) & 0xff) < count)
		sched_yield();
	pause_ms(5); /* its stack has been copied, and it waits */
}

/* --- waits --------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *lock_and_unlock(void *result)
{
	*(int *)result = mutex_lock(&mutex);
	mutex_unlock(&mutex);
	return NULL;
}

static void free_locks_tell_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(mutex_lock(&mutex), 0);
		assert_int_equal(mutex_unlock(&mutex), 0);
	}
	read_ring();
	assert_int_equal(told.wait_count + told.got_count + told.unlock_count, 0);
	assert_int_equal(plant.shared->lock_timed, 0);
}

static void a_wait_is_charged_to_the_unlock(void **state)
{
	pthread_t thread;
	int result = -1;

	(void)state;
	mutex_lock(&mutex);
	assert_int_equal(pthread_create(&thread, NULL, lock_and_unlock, &result), 0);
	await_waiters(&mutex, 1);
	pause_ms(30);
	assert_int_equal(mutex_unlock(&mutex), 0);
	pthread_join(thread, NULL);
	assert_int_equal(result, 0);
	read_ring();
	assert_int_equal(told.wait_count, 1);
	assert_int_equal(told.got_count, 1);
	assert_int_equal(told.unlock_count, 1);
	assert_int_equal(told.waits[0].address, (uint64_t)&mutex);
	assert_int_equal(told.gots[0].id, told.waits[0].id);
	assert_int_equal(told.gots[0].unlock, told.unlocks[0].id);
	assert_true(told.unlocks[0].size > 30 * MS);
	assert_int_equal(told.unlocks[0].rate, 1);
	assert_true(told.gots[0].delay_ns >= told.unlocks[0].size);
	assert_int_equal(told.gots[0].delay_ns, told.unlocks[0].size + told.gots[0].tail_ns);
	assert_int_equal(told.unlocks[0].tid, gettid());
	assert_true(told.waits[0].stack_length > 0);
}

/* Two wait: what both have waited until then is charged to each who unlocks. */
static void each_unlock_is_charged_its_part(void **state)
{
	pthread_t threads[2];
	int results[2];
	uint64_t charged = 0;
	uint64_t waited = 0;

	(void)state;
	mutex_lock(&mutex);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, lock_and_unlock, &results[i]);
	await_waiters(&mutex, 2);
	pause_ms(20);
	mutex_unlock(&mutex);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	read_ring();
	assert_int_equal(told.got_count, 2);
	assert_in_range(told.unlock_count, 1, 3);
	for (size_t i = 0; i < told.unlock_count; i++)
		charged += told.unlocks[i].size;
	for (size_t i = 0; i < told.got_count; i++) {
		waited += told.gots[i].delay_ns;
		charged += told.gots[i].tail_ns;
	}
	assert_int_equal(charged, waited);
	assert_true(waited > 40 * MS);
}

static void a_wait_that_ends_by_its_timeout(void **state)
{
	struct timespec soon;
	pthread_t thread;
	int result = -1;
	int (*timedlock)(pthread_mutex_t *, const struct timespec *) =
		hook(CPROF_AGENT_L_mutex_timedlock);

	(void)state;
	(void)thread;
	(void)result;
	pthread_mutex_lock(&mutex);
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 20 * (long)MS;
	if (soon.tv_nsec >= 1000000000) {
		soon.tv_nsec -= 1000000000;
		soon.tv_sec++;
	}
	assert_int_equal(timedlock(&mutex, &soon), ETIMEDOUT);
	pthread_mutex_unlock(&mutex);
	read_ring();
	assert_int_equal(told.got_count, 1);
	assert_int_equal(told.gots[0].unlock, 0);
	assert_int_equal(told.gots[0].delay_ns, told.gots[0].tail_ns);
	assert_true(told.gots[0].delay_ns > 15 * MS);
}

/* One's own lock is no contention, and unlocking half of it no unlock. */
static void recursive_ones(void **state)
{
	pthread_mutexattr_t how;
	pthread_mutex_t own;

	(void)state;
	pthread_mutexattr_init(&how);
	pthread_mutexattr_settype(&how, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&own, &how);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mutex_lock(&own), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mutex_unlock(&own), 0);
	pthread_mutexattr_settype(&how, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&own, &how);
	assert_int_equal(mutex_unlock(&own), EPERM);
	assert_int_equal(mutex_lock(&own), 0);
	assert_int_equal(mutex_lock(&own), EDEADLK);
	assert_int_equal(mutex_unlock(&own), 0);
	read_ring();
	assert_int_equal(told.wait_count, 0);
}

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

static void *read_once(void *unused)
{
	LOCK(rwlock_rdlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_unlock, pthread_rwlock_t, &rwlock);
	return unused;
}

static void readers_and_writers(void **state)
{
	pthread_t thread;

	(void)state;
	/* after a writer the lock is free, though its word is not 0 */
	LOCK(rwlock_wrlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_unlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_rdlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_rdlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_unlock, pthread_rwlock_t, &rwlock);
	LOCK(rwlock_unlock, pthread_rwlock_t, &rwlock);
	read_ring();
	assert_int_equal(told.wait_count, 0);
	LOCK(rwlock_wrlock, pthread_rwlock_t, &rwlock);
	pthread_create(&thread, NULL, read_once, NULL);
	await_waiters(&rwlock, 1);
	LOCK(rwlock_unlock, pthread_rwlock_t, &rwlock);
	pthread_join(thread, NULL);
	read_ring();
	assert_int_equal(told.wait_count, 1);
	assert_int_equal(told.unlock_count, 1);
	assert_int_equal(told.unlocks[0].function, CPROF_AGENT_L_rwlock_unlock);
}

static pthread_spinlock_t spin;

static void *spin_once(void *unused)
{
	LOCK(spin_lock, volatile pthread_spinlock_t, &spin);
	LOCK(spin_unlock, volatile pthread_spinlock_t, &spin);
	return unused;
}

static void spin_locks(void **state)
{
	pthread_t thread;

	(void)state;
	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	spin_once(NULL);
	LOCK(spin_lock, volatile pthread_spinlock_t, &spin);
	pthread_create(&thread, NULL, spin_once, NULL);
	await_waiters((const void *)&spin, 1);
	LOCK(spin_unlock, volatile pthread_spinlock_t, &spin);
	pthread_join(thread, NULL);
	read_ring();
	assert_int_equal(told.wait_count, 1);
	assert_int_equal(told.unlock_count, 1);
}

/* --- waits that a handler leaves by longjmp ------------------------------------------------ */

static sigjmp_buf left;

static void leave_wait(int number)
{
	siglongjmp(left, number);
}

static void *lock_and_leave(void *unused)
{
	for (volatile unsigned i = 0; i < CPROF_AGENT_LOCK_WAYS + 2; i++)
		if (!sigsetjmp(left, 1))
			mutex_lock(&mutex);
	return unused;
}

static bool somebody_is_inside(void)
{
	for (size_t i = 0; i < CPROF_AGENT_SHARDS; i++)
		if (__atomic_load_n(&plant.private_->shards[i].inside, __ATOMIC_ACQUIRE))
			return true;
	return false;
}

/* They have no entry any more when their thread comes again, from there or further out. */
static void waits_that_are_left(void **state)
{
	struct sigaction action = {.sa_handler = leave_wait};
	unsigned bucket = ((uint64_t)&mutex >> CPROF_AGENT_LOCK_SHIFT) % CPROF_AGENT_LOCK_BUCKETS;
	pthread_t thread;

	(void)state;
	sigaction(SIGUSR1, &action, NULL);
	mutex_lock(&mutex);
	pthread_create(&thread, NULL, lock_and_leave, NULL);
	for (unsigned i = 1; i <= CPROF_AGENT_LOCK_WAYS + 2; i++) {
		while (__atomic_load_n(&plant.shared->lock_timed, __ATOMIC_ACQUIRE) < i)
			sched_yield();
		while (somebody_is_inside())
			sched_yield();
		pause_ms(1);
		assert_int_equal(plant.shared->waiting[bucket], 1);
		pthread_kill(thread, SIGUSR1);
	}
	pthread_join(thread, NULL);
	assert_int_equal(plant.shared->lock_full, 0);
	assert_int_equal(plant.shared->waiting[bucket], 1);
	mutex_unlock(&mutex); /* charged once more: nobody knows that it has ended */
	plant.shared->waiting[bucket] = 0;
	memset(plant.shared->lock_waits[bucket], 0, sizeof(plant.shared->lock_waits[bucket]));
	pthread_mutex_init(&mutex, NULL); /* glibc counts who waits */
	signal(SIGUSR1, SIG_DFL);
	read_ring();
	assert_int_equal(told.wait_count, CPROF_AGENT_LOCK_WAYS + 2);
}

/* --- more waiters than entries ------------------------------------------------------------- */

#define REFUSED 10u

static void *lock_once(void *unused)
{
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	return unused;
}

/* Those who find no entry are counted, which costs next to nothing: they are no reason to time
 * others less. */
static void who_finds_no_entry(void **state)
{
	unsigned bucket = ((uint64_t)&mutex >> CPROF_AGENT_LOCK_SHIFT) % CPROF_AGENT_LOCK_BUCKETS;
	pthread_t threads[CPROF_AGENT_LOCK_WAYS + REFUSED];
	uint64_t full = plant.shared->lock_full;

	(void)state;
	plant.shared->lock_fixed = 0;
	plant.shared->lock_rates[bucket].timed = 0;
	mutex_lock(&mutex);
	for (size_t i = 0; i < CPROF_AGENT_LOCK_WAYS + REFUSED; i++)
		pthread_create(&threads[i], NULL, lock_once, NULL);
	while (__atomic_load_n(&plant.shared->lock_full, __ATOMIC_ACQUIRE) < full + REFUSED)
		sched_yield();
	assert_int_equal(plant.shared->lock_rates[bucket].every, 1);
	mutex_unlock(&mutex);
	for (size_t i = 0; i < CPROF_AGENT_LOCK_WAYS + REFUSED; i++)
		pthread_join(threads[i], NULL);
	plant.shared->lock_fixed = 1;
	plant.shared->lock_rates[bucket].every = 1;
	read_ring();
	assert_true(told.wait_count >= CPROF_AGENT_LOCK_WAYS);
}

/* --- condition waits ----------------------------------------------------------------------- */

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static atomic_bool in_wait, cleaned;

static void clean(void *unused)
{
	(void)unused;
	cleaned = pthread_mutex_trylock(&mutex) == EBUSY; /* it has the mutex again */
	mutex_unlock(&mutex);
}

static void *wait_for_ever(void *unused)
{
	int (*cond_wait)(pthread_cond_t *, pthread_mutex_t *) = hook(CPROF_AGENT_L_cond_wait);

	mutex_lock(&mutex);
	pthread_cleanup_push(clean, NULL);
	in_wait = true;
	for (;;)
		cond_wait(&cond, &mutex);
	pthread_cleanup_pop(1);
	return unused;
}

static void a_condition_wait_lets_go_and_can_be_cancelled(void **state)
{
	pthread_t waiting;
	pthread_t other;
	int result = -1;
	void *how = NULL;

	(void)state;
	in_wait = cleaned = false;
	mutex_lock(&mutex);
	pthread_create(&waiting, NULL, wait_for_ever, NULL);
	await_waiters(&mutex, 1);
	pthread_create(&other, NULL, lock_and_unlock, &result);
	await_waiters(&mutex, 2);
	mutex_unlock(&mutex);
	pthread_join(other, NULL); /* let in by the condition wait, or before it */
	while (!in_wait)
		sched_yield();
	pthread_cancel(waiting);
	pthread_join(waiting, &how);
	assert_ptr_equal(how, PTHREAD_CANCELED);
	assert_true(cleaned);
	assert_int_equal(result, 0);
	read_ring();
	assert_int_equal(told.got_count, 2);
}

/* --- leaving, forking ---------------------------------------------------------------------- */

/* Whoever waits when all is taken away comes back into a hook that has nothing left. */
static void leaving_while_somebody_waits(void **state)
{
	pthread_t thread;
	int result = -1;

	mutex_lock(&mutex);
	pthread_create(&thread, NULL, lock_and_unlock, &result);
	await_waiters(&mutex, 1);
	for (size_t i = 0; i < CPROF_AGENT_SHARDS; i++)
		assert_int_equal(plant.private_->shards[i].inside, 0);
	plant_run(&plant, CPROF_AGENT_RESTORE);
	plant_run(&plant, CPROF_AGENT_UNMAP);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	assert_int_equal(result, 0);
	munmap(plant.base, CPROF_AGENT_RESIDENT);
	munmap((uint8_t *)plant.shared - CPROF_AGENT_SHARED,
	       (CPROF_AGENT_FILE_SIZE + 4095) & ~4095ul);
	close(plant.memfd);
	start(state); /* for stop() */
}

static void a_child_passes_everything_on(void **state)
{
	pid_t child;
	int status;

	(void)state;
	mutex_lock(&mutex);
	child = fork();
	if (child == 0) {
		int ends = mutex_unlock(&mutex) || mutex_lock(&mutex);

		_exit(ends ? 1 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	mutex_unlock(&mutex);
	read_ring();
	assert_int_equal(told.wait_count, 0);
}

/* --- many ---------------------------------------------------------------------------------- */

static volatile uint64_t shared_count;

static void *count_up(void *unused)
{
	for (int i = 0; i < 20000; i++) {
		mutex_lock(&mutex);
		shared_count = shared_count + 1;
		mutex_unlock(&mutex);
	}
	return unused;
}

/* More than the ring holds; what was lost is counted. */
static void a_crowd(void **state)
{
	pthread_t threads[12];

	(void)state;
	plant.shared->lock_fixed = 0;
	shared_count = 0;
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
		pthread_create(&threads[i], NULL, count_up, NULL);
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(shared_count, 240000);
	read_ring();
	assert_int_equal(told.wait_count, plant.shared->lock_timed);
	assert_true(told.got_count + plant.shared->lock_dropped >= told.wait_count);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(free_locks_tell_nothing),
		TEST(a_wait_is_charged_to_the_unlock),
		TEST(each_unlock_is_charged_its_part),
		TEST(a_wait_that_ends_by_its_timeout),
		TEST(recursive_ones),
		TEST(readers_and_writers),
		TEST(spin_locks),
		TEST(waits_that_are_left),
		TEST(who_finds_no_entry),
		TEST(a_condition_wait_lets_go_and_can_be_cancelled),
		TEST(leaving_while_somebody_waits),
		TEST(a_child_passes_everything_on),
		TEST(a_crowd),
	};

	return cmocka_run_group_tests_name("agent's locks", tests, NULL, NULL);
}

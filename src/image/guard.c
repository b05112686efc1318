/* SPDX-License-Identifier: MIT
 *
 * Mapped files can shrink under us, and reading past the new end raises SIGBUS. Mappings are
 * registered here; the handler puts a page of zeros where the file has ended, so that readers see
 * a damaged file instead of dying. Other SIGBUS go where they went before.
 */
#include "private.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define PAGE_SHIFT   12
#define LENGTH_BITS  29
#define LENGTH_PAGES ((1ull << LENGTH_BITS) - 1)
#define SLOTS        8192

/* Page number << LENGTH_BITS | length in pages; 0 free. One word, so that the handler and other
 * threads never see half of a change (user addresses have 47 bits: 35 + 29 = 64). */
static _Atomic uint64_t slots[SLOTS];
static _Atomic size_t slots_used; /* no slot at or above this index was ever taken */
static struct sigaction previous;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_guarded(uint64_t page)
{
	size_t used = atomic_load(&slots_used);

	for (size_t i = 0; i < used; i++) {
		uint64_t slot = atomic_load(&slots[i]);

		if (page - (slot >> LENGTH_BITS) < (slot & LENGTH_PAGES))
			return true;
	}
	return false;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	uint64_t page = (uint64_t)info->si_addr >> PAGE_SHIFT;
	int saved_errno = errno;

	if (info->si_code == BUS_ADRERR && is_guarded(page) &&
	    mmap((void *)(page << PAGE_SHIFT), 1u << PAGE_SHIFT, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) {
		errno = saved_errno;
		return;
	}
	errno = saved_errno;
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(number, info, context);
	else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
		previous.sa_handler(number);
	else
		signal(number, SIG_DFL); /* the instruction runs again and ends us */
}

/* Installs the handler unless it is there: someone else may have replaced it since. */
static void install(void)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	struct sigaction current;

	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&install_lock);
	if (sigaction(SIGBUS, NULL, &current) == 0 && current.sa_sigaction != on_sigbus) {
		previous = current;
		sigaction(SIGBUS, &action, NULL);
	}
	pthread_mutex_unlock(&install_lock);
}

bool cprof_guard_add(const void *start, size_t length)
{
	uint64_t pages = ((uint64_t)length + (1u << PAGE_SHIFT) - 1) >> PAGE_SHIFT;
	uint64_t value = (uint64_t)start >> PAGE_SHIFT << LENGTH_BITS | pages;

	if (!pages || pages > LENGTH_PAGES || (uint64_t)start >> 47)
		return false;
	install();
	for (size_t i = 0; i < SLOTS; i++) {
		uint64_t empty = 0;
		size_t used = atomic_load(&slots_used);

		/* Raised before the slot is filled: the handler must not overlook it. */
		while (used <= i && !atomic_compare_exchange_weak(&slots_used, &used, i + 1))
			;
		if (atomic_compare_exchange_strong(&slots[i], &empty, value))
			return true;
	}
	return false;
}

void cprof_guard_remove(const void *start)
{
	size_t used = atomic_load(&slots_used);

	for (size_t i = 0; i < used; i++)
		if (atomic_load(&slots[i]) >> LENGTH_BITS == (uint64_t)start >> PAGE_SHIFT) {
			atomic_store(&slots[i], 0);
			return;
		}
}

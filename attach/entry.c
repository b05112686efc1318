/* SPDX-License-Identifier: MIT
 *
 * A command is held at its entry point, after the dynamic linker has relocated everything: the
 * auxiliary vector on its new stack names, for that long, an entry where nothing is mapped. The
 * jump there is a SIGSEGV, which nobody but us sees. No byte of its text is changed.
 */
#include "agentparts.h"

#include <cprof/util.h>
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define NOWHERE   0x10       /* in the page that no program may map */
#define WORDS_MAX (8u << 20) /* words of arguments and environment */
#define PAUSE_US  300
#define TICK_NS   20000000ull
#define STOP_NS   2000000000ull

enum state {
	STATE_BEGINNING,
	STATE_FOLLOWING,
	STATE_HELD, /* at its entry point */
	STATE_LEFT, /* let go */
	STATE_ENDED,
	STATE_REFUSED, /* errnum */
};
enum command {
	COMMAND_NONE,
	COMMAND_PLANT,
	COMMAND_RELEASE,
};

/* Shared with the tracer. */
struct page {
	uint32_t state; /* enum state */
	uint32_t command;
	int errnum;
	pid_t child;
	pid_t profiler;
	struct cprof_remote *remote;
};

struct cprof_entry {
	struct page *page;
	struct cprof_remote *remote; /* until it is given to an agent */
	pid_t tracer;
	pid_t child;
};

/* --- the tracer's side ---------------------------------------------------------------------- */

static void set_state(struct page *page, enum state state)
{
	__atomic_store_n(&page->state, state, __ATOMIC_RELEASE);
}

static bool not_wanted(const struct page *page)
{
	return __atomic_load_n(&page->command, __ATOMIC_ACQUIRE) == COMMAND_RELEASE ||
	       getppid() != page->profiler;
}

struct auxv {
	uint64_t entry_at; /* address of the entry's value */
	uint64_t entry;
	uint64_t base; /* of the dynamic linker, 0: static */
};

static bool peek(pid_t child, uint64_t address, uint64_t *word)
{
	errno = 0;
	*word = (uint64_t)ptrace(PTRACE_PEEKDATA, child, address, NULL);
	return errno == 0;
}

/* The new stack: argc, arguments, NULL, environment, NULL, pairs. */
static bool read_auxv(pid_t child, uint64_t sp, struct auxv *auxv)
{
	uint64_t word = 0;
	uint64_t argc;
	uint64_t at;
	size_t words = 0;

	*auxv = (struct auxv){.entry_at = 0};
	if (!peek(child, sp, &argc) || argc > WORDS_MAX)
		return false;
	at = sp + 8 * (argc + 2);
	do {
		if (!peek(child, at, &word) || ++words > WORDS_MAX)
			return false;
		at += 8;
	} while (word);
	for (uint64_t key = 1; key != AT_NULL; at += 16) {
		if (!peek(child, at, &key) || !peek(child, at + 8, &word) || ++words > WORDS_MAX)
			return false;
		if (key == AT_ENTRY) {
			auxv->entry_at = at + 8;
			auxv->entry = word;
		} else if (key == AT_BASE) {
			auxv->base = word;
		}
	}
	return auxv->entry_at != 0;
}

static bool get_registers(pid_t child, struct user_regs_struct *regs)
{
	struct iovec set = {.iov_base = regs, .iov_len = sizeof(*regs)};

	return ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &set) == 0 &&
	       set.iov_len == sizeof(*regs); /* a 32-bit program has fewer */
}

/* After the exec. True: it is at its entry already, since nothing comes before that. */
static bool lead_astray(pid_t child, struct auxv *auxv)
{
	struct user_regs_struct regs;

	if (!get_registers(child, &regs) || !read_auxv(child, regs.rsp, auxv) || !auxv->base)
		return true;
	return ptrace(PTRACE_POKEDATA, child, auxv->entry_at, (long)NOWHERE) != 0;
}

/* Back on its way, if it is there. */
static bool lead_back(pid_t child, const struct auxv *auxv)
{
	struct user_regs_struct regs;
	struct iovec set = {.iov_base = &regs, .iov_len = sizeof(regs)};

	if (!auxv->entry_at || !get_registers(child, &regs) || regs.rip != NOWHERE)
		return false;
	regs.rip = auxv->entry;
	return ptrace(PTRACE_POKEDATA, child, auxv->entry_at, auxv->entry) == 0 &&
	       ptrace(PTRACE_SETREGSET, child, (void *)NT_PRSTATUS, &set) == 0;
}

/* Follows it to its entry point; false if it did not come there. Once it has been led astray it
 * must be led back, whoever is gone by then. */
static bool follow(const struct page *page)
{
	struct auxv auxv = {.entry_at = 0};
	pid_t child = page->child;
	int status;

	for (;;) {
		long request = PTRACE_CONT;
		long signal = 0;

		if (waitpid(child, &status, __WALL) != child) {
			if (errno != EINTR || (!auxv.entry_at && not_wanted(page)))
				return false;
			continue;
		}
		if (!WIFSTOPPED(status))
			return false;
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
			if (lead_astray(child, &auxv))
				return true;
		} else {
			switch (cprof_stop_classify(status)) {
			case CPROF_STOP_GROUP:
				request = PTRACE_LISTEN;
				break;
			case CPROF_STOP_SIGNAL:
				signal = WSTOPSIG(status);
				if (signal == SIGSEGV && lead_back(child, &auxv))
					return true;
				break;
			default:
				break;
			}
		}
		ptrace((enum __ptrace_request)request, child, NULL, signal);
	}
}

static enum command await_command(const struct page *page)
{
	while (!__atomic_load_n(&page->command, __ATOMIC_ACQUIRE))
		if (not_wanted(page))
			return COMMAND_RELEASE;
		else
			usleep(PAUSE_US);
	return (enum command)page->command;
}

/* From where it is held to a stop where a remote call may begin. */
static bool take(struct cprof_held *held, const struct page *page)
{
	struct cprof_remote *remote = page->remote;

	held->remote = remote;
	held->tid = page->child;
	cprof_held_outrank(page->child);
	held->since_ns = cprof_now_ns();
	held->deadline_ns = held->since_ns + STOP_NS;
	remote->tid = page->child;
	ptrace(PTRACE_SETOPTIONS, page->child, NULL, (void *)PTRACE_O_TRACESYSGOOD);
	return cprof_held_rest(held) && get_registers(page->child, &held->regs) &&
	       ptrace(PTRACE_GETSIGMASK, page->child, sizeof(held->mask), &held->mask) == 0;
}

static void serve(struct page *page)
{
	static struct cprof_held held;

	if (await_command(page) == COMMAND_PLANT && take(&held, page))
		cprof_remote_serve(&held);
	else
		ptrace(PTRACE_DETACH, page->child, NULL, 0L);
}

static void work(void *context)
{
	struct page *page = context;

	if (ptrace(PTRACE_SEIZE, page->child, NULL, (void *)PTRACE_O_TRACEEXEC) != 0) {
		page->errnum = errno;
		set_state(page, STATE_REFUSED);
		return;
	}
	cprof_remote_prepare();
	cprof_stop_ticking(TICK_NS);
	set_state(page, STATE_FOLLOWING);
	if (!follow(page)) {
		set_state(page, STATE_ENDED);
		return;
	}
	set_state(page, STATE_HELD);
	serve(page);
	set_state(page, STATE_LEFT);
}

/* --- the profiler's side -------------------------------------------------------------------- */

static enum state state_of(const struct cprof_entry *entry)
{
	return (enum state)__atomic_load_n(&entry->page->state, __ATOMIC_ACQUIRE);
}

/* Waits while the tracer is in that state; it may also have been killed. */
static enum state await_other(struct cprof_entry *entry, enum state state)
{
	int status;

	while (state_of(entry) == state) {
		if (entry->tracer <= 0)
			return STATE_ENDED;
		if (waitpid(entry->tracer, &status, WNOHANG) == entry->tracer)
			entry->tracer = -1;
		else
			usleep(PAUSE_US);
	}
	return state_of(entry);
}

static struct cprof_error *begin(struct cprof_entry *entry, pid_t child)
{
	void *memory = mmap(NULL, sizeof(*entry->page), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "memory for a tracer");
	entry->page = memory;
	entry->child = child;
	CPROF_TRY(cprof_remote_create(&entry->remote));
	*entry->page = (struct page){.child = child, .profiler = getpid(), .remote = entry->remote};
	entry->tracer = cprof_tracer_fork(work, entry->page, true);
	if (entry->tracer < 0)
		return cprof_error_errno(CPROF_FAILED, errno, NULL, "starting a tracer");
	switch (await_other(entry, STATE_BEGINNING)) {
	case STATE_REFUSED:
		return cprof_error_errno(
			CPROF_DENIED, entry->page->errnum,
			"run as root, or allow it: sysctl kernel.yama.ptrace_scope=0",
			"pid %d: it may not be traced", (int)child);
	case STATE_BEGINNING:
		return cprof_error_create(CPROF_FAILED, NULL, "the tracer was ended");
	default:
		return NULL;
	}
}

struct cprof_error *cprof_entry_create(pid_t child, struct cprof_entry **result)
{
	struct cprof_entry *entry = calloc(1, sizeof(*entry));
	struct cprof_error *error;

	if (!entry)
		return cprof_error_nomem();
	entry->tracer = -1;
	error = begin(entry, child);
	if (error) {
		cprof_entry_destroy(entry);
		return error;
	}
	*result = entry;
	return NULL;
}

struct cprof_error *cprof_entry_wait(struct cprof_entry *entry)
{
	if (await_other(entry, STATE_FOLLOWING) == STATE_HELD)
		return NULL;
	return cprof_error_create(CPROF_NO_PROCESS, NULL,
				  "pid %d: it ended before its first instruction",
				  (int)entry->child);
}

/* The first remote call is the tracer's that holds it; after that it runs like any other. */
static struct cprof_error *run_held(void *context, const struct cprof_target *target,
				    struct cprof_remote *remote)
{
	struct cprof_entry *entry = context;

	remote->owned = false;
	if (state_of(entry) != STATE_HELD)
		return cprof_remote_run(target, remote);
	__atomic_store_n(&entry->page->command, COMMAND_PLANT, __ATOMIC_RELEASE);
	await_other(entry, STATE_HELD);
	return cprof_remote_end(target, remote);
}

struct cprof_error *cprof_entry_plant(struct cprof_entry *entry, struct cprof_target *target,
				      const struct cprof_agent_options *options,
				      struct cprof_agent **agent)
{
	struct cprof_remote *remote = cprof_take(entry->remote);

	if (!remote)
		return cprof_error_create(CPROF_FAILED, NULL, "pid %d: it has been let go already",
					  (int)entry->child);
	remote->owned = true;
	return cprof_agent_plant(target, options, remote, run_held, entry, agent);
}

void cprof_entry_destroy(struct cprof_entry *entry)
{
	if (!entry)
		return;
	if (entry->page)
		__atomic_store_n(&entry->page->command, COMMAND_RELEASE, __ATOMIC_RELEASE);
	/* One that has not come to its entry yet must be followed there, or it would not survive.
	 */
	if (entry->tracer > 0)
		while (waitpid(entry->tracer, NULL, 0) < 0 && errno == EINTR)
			continue;
	cprof_remote_destroy(entry->remote);
	if (entry->page)
		munmap(entry->page, sizeof(*entry->page));
	free(entry);
}

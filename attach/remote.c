/* SPDX-License-Identifier: MIT
 *
 * What the borrowed thread is made to do: plant a memfd with the agent, run its routine.
 */
#include "remote.h"

#include <cprof/util.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

#define TICK_NS 5000000ull
/* The routine needs that long and more for each order; where it shares our CPU every look at it
 * holds it up. */
#define FIRST_POLL_NS   60000
#define ORDER_NS        500
#define POLL_NS         20000
#define ROUTINE_WAIT_NS 500000000ull /* for a fault point of its own */

static const char memfd_link[] = "/memfd:" CPROF_AGENT_MEMFD;

static void reached(const struct cprof_held *held, enum cprof_fault_point point)
{
	cprof_fault_reached(&held->remote->fault, point, held->remote->pid);
}

/* --- memory -------------------------------------------------------------------------------- */

static bool read_target(const struct cprof_held *held, uint64_t address, void *to, size_t length)
{
	struct iovec local = {to, length};
	struct iovec remote = {(void *)(uintptr_t)address, length};

	return process_vm_readv(held->remote->pid, &local, 1, &remote, 1, 0) == (ssize_t)length;
}

/* Multiples of 8 bytes: some kernels and sandboxes have no process_vm_writev. */
static bool write_target(const struct cprof_held *held, uint64_t address, const void *from,
			 size_t length)
{
	struct iovec local = {(void *)from, length};
	struct iovec remote = {(void *)(uintptr_t)address, length};

	if (process_vm_writev(held->remote->pid, &local, 1, &remote, 1, 0) == (ssize_t)length)
		return true;
	for (size_t at = 0; at < length; at += 8) {
		long word;

		memcpy(&word, (const char *)from + at, sizeof(word));
		if (ptrace(PTRACE_POKEDATA, held->tid, address + at, word) != 0)
			return false;
	}
	return true;
}

static bool set_registers(const struct cprof_held *held, struct user_regs_struct *regs)
{
	struct iovec set = {.iov_base = regs, .iov_len = sizeof(*regs)};

	return ptrace(PTRACE_SETREGSET, held->tid, (void *)NT_PRSTATUS, &set) == 0;
}

/* --- borrowing ----------------------------------------------------------------------------- */

/* From here on the thread restores itself should we die. */
static bool write_frame(struct cprof_held *held)
{
	struct cprof_remote *remote = held->remote;
	struct cprof_remote_block *block = (struct cprof_remote_block *)held->frame.bytes;

	if (!cprof_arch_frame(held->tid, &held->regs, held->mask, remote->restorer, &held->frame))
		return cprof_held_fail(held, CPROF_REMOTE_MEMORY, errno);
	memcpy(block->name, CPROF_AGENT_MEMFD, sizeof(CPROF_AGENT_MEMFD));
	if (!write_target(held, held->frame.block, held->frame.bytes, held->frame.length))
		return cprof_held_fail(held, CPROF_REMOTE_MEMORY, errno);
	reached(held, CPROF_FAULT_FRAMED);
	return true;
}

/*
 * All but those that code of ours may cause: blocking these would have the kernel reset them to
 * their defaults. Only after the registers are ours, so that a thread whose tracer dies in between
 * has its own mask, by the frame.
 */
static bool change(struct cprof_held *held, struct user_regs_struct *regs)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	uint64_t mask = ~0ull;

	if (!set_registers(held, regs))
		return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
	if (held->changed)
		return true;
	held->changed = true;
	reached(held, CPROF_FAULT_REGISTERS);
	for (size_t i = 0; i < CPROF_COUNT(own); i++)
		mask &= ~(1ull << (own[i] - 1));
	if (ptrace(PTRACE_SETSIGMASK, held->tid, sizeof(mask), &mask) != 0)
		return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
	reached(held, CPROF_FAULT_MASKED);
	return true;
}

struct call {
	long number;
	uint64_t arguments[6];
	enum cprof_fault_point entry;
	enum cprof_fault_point exit;
};

/* A system call by the thread; false if it could not be made: its own failure is a result. */
static bool call_kernel(struct cprof_held *held, const struct call *call, long *result)
{
	struct user_regs_struct regs = held->regs;

	cprof_arch_enter_syscall(&held->frame, held->remote->syscall_gadget, call->number,
				 call->arguments, &regs);
	if (!change(held, &regs) || !cprof_held_advance(held, PTRACE_SYSCALL, CPROF_STOP_SYSCALL))
		return false;
	reached(held, call->entry);
	if (!cprof_held_advance(held, PTRACE_SYSCALL, CPROF_STOP_SYSCALL))
		return false;
	reached(held, call->exit);
	*result = ptrace(PTRACE_PEEKUSER, held->tid, offsetof(struct user, regs.rax), 0);
	return true;
}

/* The same, where failing there is failing. */
static bool demand(struct cprof_held *held, const struct call *call, long *result)
{
	if (!call_kernel(held, call, result))
		return false;
	if (*result >= 0 || *result < -4095)
		return true;
	held->remote->syscall = (uint32_t)call->number;
	return cprof_held_fail(held, CPROF_REMOTE_SYSCALL, (int)-*result);
}

/* --- the routine --------------------------------------------------------------------------- */

static bool wait_done(struct cprof_held *held, struct cprof_agent_call *call)
{
	struct timespec nap = {.tv_nsec = FIRST_POLL_NS +
					  (long)CPROF_MIN(held->remote->order_count, 1000u) *
						  ORDER_NS};

	for (;;) {
		enum cprof_stop kind = cprof_held_wait(held, WNOHANG);

		if (kind != CPROF_STOP_LATE) {
			if (!cprof_held_pass(held, kind) || !cprof_held_continue(held, PTRACE_CONT))
				return false;
			continue;
		}
		if (!read_target(held, held->frame.block, call, sizeof(*call)))
			return cprof_held_fail(held, CPROF_REMOTE_GONE, errno);
		if (call->done == 1)
			return true;
		if (cprof_now_ns() > held->deadline_ns)
			return cprof_held_fail(held, CPROF_REMOTE_LATE, 0);
		nanosleep(&nap, NULL);
		nap.tv_nsec = POLL_NS;
	}
}

static uint64_t routine_fault(const struct cprof_held *held)
{
	switch (held->remote->fault.point) {
	case CPROF_FAULT_ROUTINE_MAPPED:
		return CPROF_AGENT_FAULT_MAPPED;
	case CPROF_FAULT_ROUTINE_HALF:
		return CPROF_AGENT_FAULT_HALF;
	case CPROF_FAULT_ROUTINE_DONE:
		return CPROF_AGENT_FAULT_PATCHED;
	default:
		return CPROF_AGENT_FAULT_NONE;
	}
}

/* Kills while the routine waits for that. */
static void reach_inside(const struct cprof_held *held, struct cprof_agent_call *call)
{
	uint64_t end = cprof_now_ns() + ROUTINE_WAIT_NS;

	if (!call->fault)
		return;
	while (cprof_now_ns() < end && read_target(held, held->frame.block, call, sizeof(*call)) &&
	       !call->done)
		if (call->reached == call->fault)
			reached(held, (enum cprof_fault_point)held->remote->fault.point);
}

/* Runs the agent's routine; true: it is done and the thread is held again. */
static bool run_routine(struct cprof_held *held, const struct cprof_agent_header *header,
			struct cprof_agent_call *call)
{
	struct user_regs_struct regs = held->regs;
	uint64_t base = held->remote->base;

	call->done = 0;
	call->sigreturn = held->frame.frame + 8;
	call->fault = routine_fault(held);
	if (!write_target(held, held->frame.block, call, sizeof(*call)))
		return cprof_held_fail(held, CPROF_REMOTE_MEMORY, errno);
	held->skip_from = base + header->swap;
	held->skip_to = base + header->skip;
	cprof_arch_enter_routine(&held->frame, base + header->run, &regs);
	if (!change(held, &regs))
		return false;
	reached(held, CPROF_FAULT_READY);
	held->remote->started = true;
	if (!cprof_held_continue(held, PTRACE_CONT))
		return false;
	reached(held, CPROF_FAULT_RUNNING);
	reach_inside(held, call);
	if (!wait_done(held, call))
		return false;
	reached(held, CPROF_FAULT_DONE);
	if (!cprof_held_rest(held))
		return false;
	return !call->error || cprof_held_fail(held, CPROF_REMOTE_ROUTINE, (int)-call->error);
}

static bool read_header(struct cprof_held *held, struct cprof_agent_header *header)
{
	if (!read_target(held, held->remote->base, header, sizeof(*header)) ||
	    header->magic != CPROF_AGENT_MAGIC || header->run >= CPROF_AGENT_CONFIG)
		return cprof_held_fail(held, CPROF_REMOTE_LOST, 0);
	return true;
}

/* --- planting ------------------------------------------------------------------------------ */

/* Digits of a small number, without stdio. */
static void fd_path(int fd, char path[24])
{
	char digits[12];
	size_t count = 0;

	memcpy(path, "fd/", 3);
	path += 3;
	do {
		digits[count++] = (char)('0' + fd % 10);
		fd /= 10;
	} while (fd > 0);
	while (count)
		*path++ = digits[--count];
	*path = '\0';
}

static bool has_memfd_name(int dirfd, const char *path)
{
	char link[64];

	return readlinkat(dirfd, path, link, sizeof(link)) >= (ssize_t)sizeof(memfd_link) &&
	       strncmp(link, memfd_link, sizeof(memfd_link) - 1) == 0;
}

/* The target may close or reuse the descriptor at any moment. */
static bool is_memfd(const struct cprof_held *held, int fd)
{
	char path[24];

	fd_path(fd, path);
	return has_memfd_name(held->remote->procfd, path);
}

/*
 * The target chooses what the descriptor leads to, when it likes: any file that it may read. So it
 * is named first, without opening it, judged by that name of ours, and opened by it. A path can be
 * made to look like a memfd's, in a mount namespace; its seals cannot.
 */
int cprof_remote_open_memfd(int procfd, int fd)
{
	static const char own[] = "/proc/self/";
	char path[sizeof(own) + 24] = "";
	int named;
	int opened = -1;

	fd_path(fd, path);
	named = openat(procfd, path, O_PATH | O_CLOEXEC);
	if (named < 0)
		return -1;
	memcpy(path, own, sizeof(own) - 1);
	fd_path(named, path + sizeof(own) - 1);
	if (has_memfd_name(AT_FDCWD, path))
		opened = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	else
		errno = ENOENT;
	close(named);
	if (opened >= 0 && (fcntl(opened, F_GET_SEALS) & ~F_SEAL_EXEC) != 0) {
		close(opened);
		opened = -1;
		errno = ENOENT;
	}
	return opened;
}

static bool write_all(int fd, const void *from, size_t length, uint64_t offset)
{
	return pwrite(fd, from, length, (off_t)offset) == (ssize_t)length;
}

static bool write_shared(const struct cprof_remote *remote, size_t from, size_t length)
{
	const uint8_t *shared = (const uint8_t *)&cprof_remote_area(remote)->shared;

	return write_all(remote->memfd, shared + from, length, CPROF_AGENT_SHARED + from);
}

/* Its size is sealed: neither side can take pages from under the other. Only what is not zero is
 * written: every page costs a microsecond while the thread waits. */
static bool fill(const struct cprof_remote *remote)
{
	const struct cprof_remote_area *area = cprof_remote_area(remote);
	const struct cprof_agent_header *header = (const struct cprof_agent_header *)area->text;
	const struct cprof_agent_shared *shared = &area->shared;

	return ftruncate(remote->memfd, CPROF_AGENT_FILE_SIZE) == 0 &&
	       write_all(remote->memfd, area->text, header->text_size, CPROF_AGENT_TEXT) &&
	       write_all(remote->memfd, area->text + CPROF_AGENT_CONFIG,
			 sizeof(struct cprof_agent_config), CPROF_AGENT_CONFIG) &&
	       write_shared(remote, 0, offsetof(struct cprof_agent_shared, waiting)) &&
	       (!shared->lock_rates[0].every ||
		write_shared(remote, offsetof(struct cprof_agent_shared, lock_rates),
			     sizeof(shared->lock_rates))) &&
	       write_shared(remote, offsetof(struct cprof_agent_shared, orders),
			    remote->order_count * sizeof(shared->orders[0])) &&
	       fcntl(remote->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
}

static bool open_memfd(struct cprof_held *held, int fd)
{
	struct cprof_remote *remote = held->remote;

	remote->memfd = cprof_remote_open_memfd(remote->procfd, fd);
	if (remote->memfd < 0)
		return cprof_held_fail(held,
				       errno == ENOENT ? CPROF_REMOTE_LOST : CPROF_REMOTE_FILL,
				       errno == ENOENT ? 0 : errno);
	reached(held, CPROF_FAULT_OPENED);
	if (!fill(remote))
		return cprof_held_fail(held, CPROF_REMOTE_FILL, errno);
	reached(held, CPROF_FAULT_FILLED);
	return true;
}

static void close_there(struct cprof_held *held, int fd)
{
	const struct call close_call = {.number = SYS_close, .arguments = {(uint64_t)fd}};
	long ignored;

	if (!held->lost && is_memfd(held, fd))
		call_kernel(held, &close_call, &ignored);
}

static bool map_text(struct cprof_held *held, int fd)
{
	const struct cprof_remote *remote = held->remote;
	const struct call map_call = {
		.number = SYS_mmap,
		.arguments = {remote->base, CPROF_AGENT_CONTROL, PROT_READ | PROT_EXEC,
			      MAP_PRIVATE | (remote->replace ? MAP_FIXED : MAP_FIXED_NOREPLACE),
			      (uint64_t)fd, CPROF_AGENT_TEXT},
		.entry = CPROF_FAULT_MAP_ENTRY,
		.exit = CPROF_FAULT_MAPPED,
	};
	const struct cprof_agent_header *ours =
		(const struct cprof_agent_header *)cprof_remote_area(remote)->text;
	struct cprof_agent_header header;
	long address;

	if (!demand(held, &map_call, &address))
		return false;
	held->remote->mapped = true;
	/* It may have been another file's descriptor by then. */
	if ((uint64_t)address != remote->base ||
	    !read_target(held, remote->base, &header, sizeof(header)) ||
	    memcmp(&header, ours, sizeof(header)) != 0)
		return cprof_held_fail(held, CPROF_REMOTE_LOST, 0);
	return true;
}

/* After a failure, while nothing points to the text yet. */
static void uproot(struct cprof_held *held, int fd)
{
	const struct call unmap = {
		.number = SYS_munmap,
		.arguments = {held->remote->base, CPROF_AGENT_CONTROL},
	};
	long ignored;

	close_there(held, fd);
	if (held->lost || !held->remote->mapped || held->remote->replace)
		return;
	if (call_kernel(held, &unmap, &ignored))
		held->remote->mapped = false;
}

static bool start(struct cprof_held *held, int fd)
{
	const struct cprof_agent_header *header =
		(const struct cprof_agent_header *)cprof_remote_area(held->remote)->text;
	struct cprof_agent_call *call = &held->remote->calls[0];

	call->memfd = fd;
	return run_routine(held, header, call);
}

static bool plant(struct cprof_held *held)
{
	const struct call create = {
		.number = SYS_memfd_create,
		.arguments = {held->frame.block + offsetof(struct cprof_remote_block, name),
			      held->remote->memfd_flags},
		.entry = CPROF_FAULT_MEMFD_ENTRY,
		.exit = CPROF_FAULT_MEMFD,
	};
	long fd;

	if (!demand(held, &create, &fd))
		return false;
	if (open_memfd(held, (int)fd) && map_text(held, (int)fd) && start(held, (int)fd))
		return true;
	/* A START that fails has undone its own; one that did not answer may have patched. */
	if (!held->remote->started || held->remote->result == CPROF_REMOTE_ROUTINE)
		uproot(held, (int)fd);
	return false;
}

/* --- the job ------------------------------------------------------------------------------- */

static void carry_out(struct cprof_held *held)
{
	struct cprof_remote *remote = held->remote;
	struct cprof_agent_header header;

	if (!cprof_seccomp_check(held) || !write_frame(held))
		return;
	if (remote->plant && !plant(held))
		return;
	for (uint32_t i = remote->plant; i < remote->call_count; i++)
		if (!read_header(held, &header) || !run_routine(held, &header, &remote->calls[i]))
			return;
	for (size_t i = 0; i < CPROF_COUNT(remote->unmap); i++) {
		const struct cprof_mapped_range *range = &remote->unmap[i];
		const struct call unmap = {.number = SYS_munmap,
					   .arguments = {range->start, range->end - range->start}};
		long ignored;

		if (range->end > range->start && !demand(held, &unmap, &ignored))
			return;
	}
	if (remote->close_fd >= 0)
		close_there(held, remote->close_fd);
}

void cprof_remote_serve(struct cprof_held *held)
{
	carry_out(held);
	cprof_held_release(held);
	if (!held->remote->result)
		held->remote->result = CPROF_REMOTE_OK;
}

void cprof_remote_prepare(void)
{
	prctl(PR_SET_TIMERSLACK, 1);
	cprof_stop_ticking(TICK_NS);
	cprof_arch_init();
}

void cprof_remote_work(void *context)
{
	static struct cprof_held held;

	cprof_remote_prepare();
	if (cprof_held_take(context, &held))
		cprof_remote_serve(&held);
	cprof_held_settle(&held);
}

/* SPDX-License-Identifier: MIT
 *
 * Frames of threads that nobody stops: from the pc and stack pointer that procfs tells of a thread
 * in a system call. Other registers are not known; libc's functions do not need them.
 */
#include "list.h"

#include <cprof/unwind.h>
#include <cprof/util.h>
#include <string.h>
#include <sys/syscall.h>

#define STACK_BYTES 2048
#define NAMES_MOST  4096
#define REFRESH_NS  5000000000ull /* where nothing tells that code has changed */

struct cprof_error *cprof_list_refresh(struct cprof_thread_list *list)
{
	uint64_t now = cprof_now_ns();
	uint64_t fingerprint;

	if (HASH_COUNT(list->names) >= NAMES_MOST)
		cprof_list_forget_names(list);
	if (cprof_target_code_fingerprint(list->target, &fingerprint)) {
		if (list->refreshed_ns && fingerprint == list->fingerprint)
			return NULL;
		list->fingerprint = fingerprint;
	} else if (list->refreshed_ns && now < list->refreshed_ns + REFRESH_NS) {
		return NULL;
	}
	list->refreshed_ns = now;
	CPROF_TRY(cprof_space_refresh(list->space));
	if (list->unwinder->ops->flush)
		list->unwinder->ops->flush(list->unwinder);
	cprof_list_forget_names(list);
	return NULL;
}

void cprof_list_forget_names(struct cprof_thread_list *list)
{
	struct cprof_list_name *name;
	struct cprof_list_name *next;

	HASH_ITER(hh, list->names, name, next)
	{
		HASH_DEL(list->names, name);
		free(name);
	}
	/* Frames point to them. */
	for (size_t i = 0; i < list->count; i++)
		list->threads[i].frame_count = 0;
}

static void look_up(const struct cprof_frame *frame, struct cprof_list_name *name)
{
	uint64_t address = cprof_frame_lookup_pc(frame) - frame->region->bias;
	struct cprof_names names;
	struct cprof_error *error = cprof_module_names(
		frame->region->module, &address, 1,
		CPROF_NAMES_NO_INLINES | CPROF_NAMES_NO_LINES | CPROF_NAMES_SYMBOLS, &names);

	if (!error && names.count)
		snprintf(name->function, sizeof(name->function), "%s",
			 names.strings + names.names[0].name);
	if (!error)
		cprof_names_deinit(&names);
	cprof_error_destroy(error);
}

static const char *name_of(struct cprof_thread_list *list, const struct cprof_frame *frame)
{
	struct cprof_list_name *name;
	uint64_t pc = frame->pc;

	HASH_FIND(hh, list->names, &pc, sizeof(pc), name);
	if (!name) {
		name = HASH_COUNT(list->names) < NAMES_MOST ? calloc(1, sizeof(*name)) : NULL;
		if (!name)
			return NULL;
		name->pc = pc;
		if (frame->region && frame->region->module)
			look_up(frame, name);
		HASH_ADD(hh, list->names, pc, sizeof(name->pc), name);
	}
	return name->function[0] ? name->function : NULL;
}

static bool read_memory(void *context, uint64_t address, void *buffer, size_t length)
{
	return cprof_target_read(context, address, buffer, length) == length;
}

/* Frames behind the first one that is in another module tell nothing of a lock. */
void cprof_list_frames(struct cprof_thread_list *list, struct cprof_list_thread *thread)
{
	struct cprof_frame frames[CPROF_LIST_FRAMES];
	struct cprof_stack stack = {.frames = frames, .capacity = CPROF_LIST_FRAMES};
	struct cprof_regs regs = {.known = 1u << CPROF_REG_SP | 1u << CPROF_REG_PC};
	uint8_t bytes[STACK_BYTES];
	struct cprof_memory memory = {
		.stack = bytes,
		.stack_start = thread->call.regs.value[CPROF_REG_SP],
		.read = read_memory,
		.context = list->target,
	};

	thread->frame_count = 0;
	regs.value[CPROF_REG_SP] = memory.stack_start;
	regs.value[CPROF_REG_PC] = thread->call.regs.value[CPROF_REG_PC];
	memory.stack_length =
		cprof_target_read(list->target, memory.stack_start, bytes, sizeof(bytes));
	list->unwinder->ops->unwind(list->unwinder, &regs, &memory, &stack);
	for (size_t i = 0; i < stack.count; i++) {
		const struct cprof_region *region = frames[i].region;
		const char *function = name_of(list, &frames[i]);

		thread->frames[thread->frame_count++] = (struct cprof_dump_frame){
			.pc = frames[i].pc,
			.function = function,
			.module = region && region->path ? region->path : "",
		};
		if (!region || region->module != frames[0].region->module)
			break;
	}
}

const char *cprof_list_call_name(int64_t number)
{
	static const struct {
		short number;
		const char *name;
	} calls[] = {
		{SYS_futex, "futex"},
		{SYS_poll, "poll"},
		{SYS_ppoll, "ppoll"},
		{SYS_select, "select"},
		{SYS_pselect6, "pselect6"},
		{SYS_epoll_wait, "epoll_wait"},
		{SYS_epoll_pwait, "epoll_pwait"},
		{441, "epoll_pwait2"},
		{449, "futex_waitv"},
		{SYS_nanosleep, "nanosleep"},
		{SYS_clock_nanosleep, "clock_nanosleep"},
		{SYS_restart_syscall, "restart_syscall"},
		{SYS_read, "read"},
		{SYS_write, "write"},
		{SYS_readv, "readv"},
		{SYS_writev, "writev"},
		{SYS_pread64, "pread64"},
		{SYS_pwrite64, "pwrite64"},
		{SYS_preadv, "preadv"},
		{SYS_pwritev, "pwritev"},
		{SYS_fsync, "fsync"},
		{SYS_fdatasync, "fdatasync"},
		{SYS_sync, "sync"},
		{SYS_openat, "openat"},
		{SYS_close, "close"},
		{SYS_recvfrom, "recvfrom"},
		{SYS_recvmsg, "recvmsg"},
		{SYS_recvmmsg, "recvmmsg"},
		{SYS_sendto, "sendto"},
		{SYS_sendmsg, "sendmsg"},
		{SYS_accept, "accept"},
		{SYS_accept4, "accept4"},
		{SYS_connect, "connect"},
		{SYS_wait4, "wait4"},
		{SYS_waitid, "waitid"},
		{SYS_pause, "pause"},
		{SYS_rt_sigtimedwait, "rt_sigtimedwait"},
		{SYS_rt_sigsuspend, "rt_sigsuspend"},
		{SYS_flock, "flock"},
		{SYS_fcntl, "fcntl"},
		{SYS_ioctl, "ioctl"},
		{SYS_semop, "semop"},
		{SYS_semtimedop, "semtimedop"},
		{SYS_msgrcv, "msgrcv"},
		{SYS_msgsnd, "msgsnd"},
		{SYS_io_getevents, "io_getevents"},
		{SYS_io_uring_enter, "io_uring_enter"},
		{SYS_mmap, "mmap"},
		{SYS_munmap, "munmap"},
		{SYS_madvise, "madvise"},
		{SYS_mprotect, "mprotect"},
		{SYS_sched_yield, "sched_yield"},
		{SYS_vfork, "vfork"},
		{SYS_sendfile, "sendfile"},
		{SYS_splice, "splice"},
	};

	for (size_t i = 0; i < CPROF_COUNT(calls); i++)
		if (calls[i].number == number)
			return calls[i].name;
	return NULL;
}

/* SPDX-License-Identifier: MIT
 *
 * What a thread waits for, by its system call.
 */
#include "private.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define FDS_SHOWN  3
#define FDS_LOOKED 64   /* of a pollfd array */
#define SELECT_MAX 1024 /* descriptors of a set that are looked at */
#define OFD_SETLKW 38
#define REG_AX     0 /* DWARF number */
#define NS         1000000000ll

#ifndef ERESTART_RESTARTBLOCK
#define ERESTART_RESTARTBLOCK 516 /* include/linux/errno.h: never seen by the program itself */
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

/* A thread's call being looked at. */
struct call {
	struct cprof_look *look;
	size_t index;
	const uint64_t *arguments;
	struct cprof_wait *wait;
	struct cprof_wait_text text;
};

void cprof_wait_say(struct cprof_wait_text *text, const char *format, ...)
{
	size_t room = sizeof(text->bytes) - text->length;
	va_list arguments;
	int written;

	va_start(arguments, format);
	written = vsnprintf(text->bytes + text->length, room, format, arguments);
	va_end(arguments);
	if (written > 0)
		text->length += CPROF_MIN((size_t)written, room - 1);
}

bool cprof_look_read(const struct cprof_look *look, size_t index, uint64_t address, void *buffer,
		     size_t length)
{
	const struct cprof_snapshot_thread *thread = &look->snapshot->threads[index];
	uint64_t offset = address - thread->regs.value[CPROF_REG_SP];

	if (length <= thread->stack_length && offset <= thread->stack_length - length) {
		memcpy(buffer, thread->stack + offset, length);
		return true;
	}
	return cprof_target_read(look->target, address, buffer, length) == length;
}

size_t cprof_look_find(const struct cprof_look *look, pid_t tid)
{
	const struct cprof_snapshot *snapshot = look->snapshot;
	size_t low = 0;
	size_t high = snapshot->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (snapshot->threads[middle].tid < tid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < snapshot->count && snapshot->threads[low].tid == tid ? low : CPROF_NO_THREAD;
}

/* --- times --------------------------------------------------------------------------------- */

int64_t cprof_wait_left(const struct cprof_look *look, clockid_t clock, uint64_t until_ns)
{
	uint64_t since = cprof_wall_ns() - look->snapshot->taken_ns;
	struct timespec now;
	int64_t left;

	if ((clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME &&
	     clock != CLOCK_TAI) ||
	    until_ns > INT64_MAX || clock_gettime(clock, &now))
		return -1;
	left = (int64_t)until_ns - (now.tv_sec * NS + now.tv_nsec - (int64_t)since);
	return CPROF_MAX(left, 0);
}

/* Reads a timespec; false if there is none. What is too long for 64 bits is as good as for ever. */
static bool read_time(const struct call *call, uint64_t address, uint64_t *ns)
{
	int64_t time[2];

	if (!address || !cprof_look_read(call->look, call->index, address, time, sizeof(time)) ||
	    time[0] < 0 || time[0] > INT64_MAX / NS - 1 || time[1] < 0 || time[1] >= NS)
		return false;
	*ns = (uint64_t)(time[0] * NS + time[1]);
	return true;
}

/* When it began is not known: only how long it lasts in all. */
static void say_duration(struct call *call, uint64_t ns)
{
	cprof_wait_say(&call->text, "%sfor %.9g s", call->text.length ? ", " : "",
		       (double)ns / (double)NS);
}

static void say_relative(struct call *call, uint64_t address)
{
	uint64_t ns;

	if (read_time(call, address, &ns))
		say_duration(call, ns);
}

static void say_milliseconds(struct call *call, int milliseconds)
{
	if (milliseconds >= 0)
		say_duration(call, (uint64_t)milliseconds * 1000000);
}

/* --- descriptors --------------------------------------------------------------------------- */

static void say_fd(struct call *call, int fd)
{
	const struct cprof_fd *known = cprof_fds_find(&call->look->fds, fd);

	cprof_wait_say(&call->text, "fd %d: %s", fd, known ? known->text : "closed");
}

static void wait_fd(struct call *call, int fd, enum cprof_wait_kind closed)
{
	const struct cprof_fd *known = cprof_fds_find(&call->look->fds, fd);

	call->wait->kind = known ? known->kind : closed;
	say_fd(call, fd);
}

static void say_listed(struct call *call, int fd, unsigned already)
{
	if (already == FDS_SHOWN)
		cprof_wait_say(&call->text, ", ...");
	if (already >= FDS_SHOWN)
		return;
	if (already)
		cprof_wait_say(&call->text, ", ");
	say_fd(call, fd);
}

static void wait_poll(struct call *call)
{
	uint64_t count = call->arguments[1];
	size_t looked = (size_t)CPROF_MIN(count, FDS_LOOKED);
	struct pollfd fds[FDS_LOOKED];
	unsigned told = 0;

	call->wait->kind = count ? CPROF_WAIT_POLL : CPROF_WAIT_SLEEP;
	if (!cprof_look_read(call->look, call->index, call->arguments[0], fds,
			     looked * sizeof(*fds)))
		return;
	for (size_t i = 0; i < looked; i++)
		if (fds[i].fd >= 0)
			say_listed(call, fds[i].fd, told++);
	if (told > FDS_SHOWN)
		cprof_wait_say(&call->text, " of %llu", (unsigned long long)count);
}

static void wait_select(struct call *call)
{
	int count = (int)call->arguments[0];
	unsigned limit = (unsigned)CPROF_MIN(CPROF_MAX(count, 0), SELECT_MAX);
	size_t bytes = (limit + 63) / 64 * 8;
	uint64_t all[SELECT_MAX / 64] = {0};
	unsigned told = 0;

	call->wait->kind = limit ? CPROF_WAIT_POLL : CPROF_WAIT_SLEEP;
	for (unsigned set = 1; set <= 3 && limit; set++) {
		uint64_t bits[SELECT_MAX / 64];

		if (call->arguments[set] &&
		    cprof_look_read(call->look, call->index, call->arguments[set], bits, bytes))
			for (size_t i = 0; i < bytes / 8; i++)
				all[i] |= bits[i];
	}
	for (unsigned fd = 0; fd < limit; fd++)
		if (all[fd / 64] >> fd % 64 & 1)
			say_listed(call, (int)fd, told++);
	if (told > FDS_SHOWN)
		cprof_wait_say(&call->text, " of %u", told);
}

static void wait_epoll(struct call *call)
{
	call->wait->kind = CPROF_WAIT_POLL;
	say_fd(call, (int)call->arguments[0]);
}

/* --- futexes ------------------------------------------------------------------------------- */

/* False if the operation does not wait. */
static bool wait_futex(struct call *call)
{
	int operation = (int)call->arguments[1];
	clockid_t clock = operation & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	uint64_t ns;

	switch (operation & FUTEX_CMD_MASK) {
	case FUTEX_LOCK_PI:
		clock = CLOCK_REALTIME;
		break;
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_LOCK_PI2:
	case FUTEX_WAIT_REQUEUE_PI:
		break;
	default:
		return false;
	}
	cprof_futex_classify(call->look, call->index, call->arguments[0], &call->text);
	if ((operation & FUTEX_CMD_MASK) == FUTEX_WAIT)
		say_relative(call, call->arguments[3]);
	else if (read_time(call, call->arguments[3], &ns))
		call->wait->left_ns = cprof_wait_left(call->look, clock, ns);
	return true;
}

static void wait_futexes(struct call *call)
{
	uint64_t first[3]; /* struct futex_waitv: value, address, flags */

	call->wait->kind = CPROF_WAIT_FUTEX;
	if (cprof_look_read(call->look, call->index, call->arguments[0], first, sizeof(first)))
		call->wait->address = first[1];
	cprof_wait_say(&call->text, "any of %u futexes", (unsigned)call->arguments[1]);
}

/* --- the rest ------------------------------------------------------------------------------ */

/* A relative sleep that is interrupted, as by our stop, stores what is left, if it was told where.
 */
static bool stored_rest(const struct call *call, uint64_t address, uint64_t *ns)
{
	const struct cprof_regs *regs = &call->look->snapshot->threads[call->index].regs;

	return (int64_t)regs->value[REG_AX] == -ERESTART_RESTARTBLOCK &&
	       read_time(call, address, ns);
}

static void wait_sleep(struct call *call, clockid_t clock, bool absolute, unsigned request)
{
	uint64_t address = call->arguments[request];
	uint64_t ns;

	call->wait->kind = CPROF_WAIT_SLEEP;
	if (absolute && read_time(call, address, &ns))
		call->wait->left_ns = cprof_wait_left(call->look, clock, ns);
	else if (!absolute && stored_rest(call, call->arguments[request + 1], &ns))
		call->wait->left_ns = (int64_t)ns;
	else if (!absolute)
		say_relative(call, address);
}

static void wait_select_timed(struct call *call)
{
	int64_t time[2];

	wait_select(call);
	if (call->arguments[4] &&
	    cprof_look_read(call->look, call->index, call->arguments[4], time, sizeof(time)) &&
	    time[0] >= 0 && time[0] < INT64_MAX / NS - 1 && time[1] >= 0 && time[1] < 1000000)
		say_duration(call, (uint64_t)(time[0] * NS + time[1] * 1000));
}

static void wait_as(struct call *call, enum cprof_wait_kind kind, const char *what)
{
	call->wait->kind = kind;
	cprof_wait_say(&call->text, "%s", what);
}

/* Calls that only differ in what is said of them. */
static bool wait_simple(struct call *call, long number)
{
	static const struct {
		long number;
		enum cprof_wait_kind kind;
		const char *what;
	} calls[] = {
		{SYS_wait4, CPROF_WAIT_POLL, "child process"},
		{SYS_waitid, CPROF_WAIT_POLL, "child process"},
		{SYS_vfork, CPROF_WAIT_POLL, "child process"},
		{SYS_io_getevents, CPROF_WAIT_POLL, "asynchronous I/O"},
		{SYS_io_pgetevents, CPROF_WAIT_POLL, "asynchronous I/O"},
		{SYS_semop, CPROF_WAIT_SEM, "System V semaphore"},
		{SYS_semtimedop, CPROF_WAIT_SEM, "System V semaphore"},
		{SYS_msgrcv, CPROF_WAIT_SEM, "System V message queue"},
		{SYS_msgsnd, CPROF_WAIT_SEM, "System V message queue, full"},
		{SYS_rt_sigtimedwait, CPROF_WAIT_SLEEP, "signal"},
		{SYS_rt_sigsuspend, CPROF_WAIT_SLEEP, "signal"},
		{SYS_pause, CPROF_WAIT_SLEEP, "signal"},
	};

	for (size_t i = 0; i < CPROF_COUNT(calls); i++)
		if (calls[i].number == number) {
			wait_as(call, calls[i].kind, calls[i].what);
			return true;
		}
	return false;
}

/* Calls that wait for the descriptor that is their first argument. */
static bool wait_io(struct call *call, long number)
{
	static const short any[] = {
		SYS_read,
		SYS_write,
		SYS_pread64,
		SYS_pwrite64,
		SYS_readv,
		SYS_writev,
		SYS_preadv,
		SYS_pwritev,
		SYS_preadv2,
		SYS_pwritev2,
		SYS_fsync,
		SYS_fdatasync,
		SYS_syncfs,
		SYS_sendfile,
		SYS_splice,
		SYS_tee,
		SYS_vmsplice,
		SYS_ioctl,
		SYS_getdents64,
		SYS_fallocate,
		SYS_ftruncate,
		SYS_close,
		SYS_fstat,
		SYS_io_uring_enter,
		SYS_copy_file_range,
		SYS_mq_timedreceive,
		SYS_mq_timedsend,
	};
	static const short sockets[] = {
		SYS_sendto,   SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
		SYS_recvmmsg, SYS_accept,   SYS_accept4, SYS_connect,
	};
	bool found = false;

	for (size_t i = 0; i < CPROF_COUNT(any) && !found; i++)
		found = any[i] == number;
	if (found) /* should it have been closed since: it was some file */
		wait_fd(call, (int)call->arguments[0], CPROF_WAIT_FILE);
	for (size_t i = 0; i < CPROF_COUNT(sockets) && !found; i++) {
		found = sockets[i] == number;
		if (found)
			wait_fd(call, (int)call->arguments[0], CPROF_WAIT_SOCKET);
	}
	return found;
}

static void wait_lock(struct call *call)
{
	wait_fd(call, (int)call->arguments[0], CPROF_WAIT_FILE);
	cprof_wait_say(&call->text, ", lock");
}

static bool wait_timed(struct call *call, long number)
{
	const uint64_t *arguments = call->arguments;

	switch (number) {
	case SYS_nanosleep:
		wait_sleep(call, CLOCK_MONOTONIC, false, 0);
		return true;
	case SYS_clock_nanosleep:
		wait_sleep(call, (clockid_t)arguments[0], arguments[1] & TIMER_ABSTIME, 2);
		return true;
	case SYS_poll:
		wait_poll(call);
		say_milliseconds(call, (int)arguments[2]);
		return true;
	case SYS_ppoll:
		wait_poll(call);
		say_relative(call, arguments[2]);
		return true;
	case SYS_select:
		wait_select_timed(call);
		return true;
	case SYS_pselect6:
		wait_select(call);
		say_relative(call, arguments[4]);
		return true;
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
		wait_epoll(call);
		say_milliseconds(call, (int)arguments[3]);
		return true;
	case SYS_epoll_pwait2:
		wait_epoll(call);
		say_relative(call, arguments[3]);
		return true;
	case SYS_futex:
		return wait_futex(call);
	default:
		return false;
	}
}

/* The call that restart_syscall continues: its number is lost, its arguments are not. Only these
 * four are restarted so (the kernel's users of restart_block). */
static long restarted(const struct call *call)
{
	const struct cprof_dump_thread *thread = &call->look->dump->threads[call->index];
	uint64_t pc = call->look->snapshot->threads[call->index].regs.value[CPROF_REG_PC];
	uint8_t code[7]; /* mov $number, %eax; syscall */
	uint32_t number;

	if (cprof_target_read(call->look->target, pc - sizeof(code), code, sizeof(code)) ==
		    sizeof(code) &&
	    code[0] == 0xb8 && code[5] == 0x0f && code[6] == 0x05) {
		memcpy(&number, code + 1, sizeof(number));
		if (number == SYS_nanosleep || number == SYS_clock_nanosleep ||
		    number == SYS_poll || number == SYS_futex)
			return (long)number;
	}
	for (size_t i = 0; i < CPROF_MIN(thread->frame_count, 4u); i++) {
		const char *function = thread->frames[i].function;

		if (function && strstr(function, "clock_nanosleep"))
			return SYS_clock_nanosleep;
		if (function && strstr(function, "futex"))
			return SYS_futex;
		if (function && strcmp(function, "poll") == 0)
			return SYS_poll;
	}
	return SYS_restart_syscall;
}

static void classify(struct call *call, long number)
{
	if (number == SYS_restart_syscall)
		number = restarted(call);
	if (wait_timed(call, number) || wait_simple(call, number) || wait_io(call, number))
		return;
	if (number == SYS_futex_waitv)
		wait_futexes(call);
	else if (number == SYS_restart_syscall)
		wait_as(call, CPROF_WAIT_SLEEP, "a timed call that was interrupted before");
	else if (number == SYS_flock || (number == SYS_fcntl && (call->arguments[1] == F_SETLKW ||
								 call->arguments[1] == OFD_SETLKW)))
		wait_lock(call);
}

void cprof_wait_classify(struct cprof_look *look, size_t index)
{
	const struct cprof_snapshot_thread *thread = &look->snapshot->threads[index];
	struct call call = {
		.look = look,
		.index = index,
		.arguments = thread->arguments,
		.wait = &look->dump->threads[index].wait,
	};

	*call.wait = (struct cprof_wait){.kind = CPROF_WAIT_NONE, .left_ns = -1};
	if (thread->state == 'R' || thread->syscall < 0)
		return;
	classify(&call, (long)thread->syscall);
	if (call.text.length)
		call.wait->detail = cprof_keep_clean(look->keep, call.text.bytes);
}

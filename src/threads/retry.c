/* SPDX-License-Identifier: MIT
 *
 * Stacks that did not end well, tried again by libunwind on the same snapshot. In a child of our
 * own, since libunwind can crash on a bad image: what the child has not told in time stays as it
 * was.
 */
#include "private.h"

#include <cprof/util.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RETRIES_MAX 50
#define RETRY_NS    1000000000ull /* for all of them */

struct answer { /* what the child says of a stack; `count` pcs follow */
	uint32_t which;
	uint32_t count;
};

/* --- the child ----------------------------------------------------------------------------- */

static bool write_all(int fd, const void *bytes, size_t length)
{
	const char *at = bytes;

	while (length) {
		ssize_t written = write(fd, at, length);

		if (written <= 0)
			return false;
		at += written;
		length -= (size_t)written;
	}
	return true;
}

static _Noreturn void answer_all(struct cprof_space *space, const struct cprof_snapshot *snapshot,
				 const size_t *which, size_t count, int fd)
{
	static struct cprof_frame frames[CPROF_FRAMES_SAMPLE];
	static uint64_t pcs[CPROF_FRAMES_SAMPLE];
	struct cprof_unwinder *unwinder;

	signal(SIGPIPE, SIG_DFL);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	if (cprof_unwinder_libunwind.create(space, &unwinder))
		_exit(1);
	for (size_t i = 0; i < count; i++) {
		const struct cprof_snapshot_thread *thread = &snapshot->threads[which[i]];
		const struct cprof_memory memory = {
			.stack = thread->stack,
			.stack_start = thread->regs.value[CPROF_REG_SP],
			.stack_length = thread->stack_length,
		};
		struct cprof_stack stack = {.frames = frames, .capacity = CPROF_FRAMES_SAMPLE};
		struct answer answer = {.which = (uint32_t)i};

		unwinder->ops->unwind(unwinder, &thread->regs, &memory, &stack);
		if (stack.end != CPROF_END_COMPLETE)
			continue;
		answer.count = (uint32_t)stack.count;
		for (size_t j = 0; j < stack.count; j++) /* addresses have no top bit to spare */
			pcs[j] = frames[j].pc << 1 | frames[j].exact;
		if (!write_all(fd, &answer, sizeof(answer)) ||
		    !write_all(fd, pcs, stack.count * sizeof(*pcs)))
			break;
	}
	_exit(0);
}

/* --- the parent ---------------------------------------------------------------------------- */

/* Reads exactly so much before the deadline. */
static bool read_all(int fd, uint64_t deadline, void *bytes, size_t length)
{
	char *at = bytes;

	while (length) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		uint64_t now = cprof_now_ns();
		ssize_t got;

		if (now >= deadline)
			return false;
		if (poll(&poll_fd, 1, (int)((deadline - now) / 1000000) + 1) <= 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		got = read(fd, at, length);
		if (got <= 0)
			return false;
		at += got;
		length -= (size_t)got;
	}
	return true;
}

static bool read_answer(struct cprof_space *space, int fd, uint64_t deadline, size_t limit,
			size_t *which, struct cprof_stack *stack)
{
	struct answer answer;
	uint64_t pc;

	if (!read_all(fd, deadline, &answer, sizeof(answer)) || answer.which >= limit ||
	    answer.count > stack->capacity)
		return false;
	for (uint32_t i = 0; i < answer.count; i++) {
		struct cprof_frame *frame = &stack->frames[i];

		if (!read_all(fd, deadline, &pc, sizeof(pc)))
			return false;
		*frame = (struct cprof_frame){.pc = pc >> 1, .exact = pc & 1};
		frame->region = cprof_space_find(space, cprof_frame_lookup_pc(frame));
	}
	*which = answer.which;
	stack->count = answer.count;
	stack->end = CPROF_END_COMPLETE;
	return true;
}

/* libunwind calls an end what only lacks rules: it is one where ours say so too. */
static bool is_end(struct cprof_space *space, const struct cprof_stack *stack)
{
	const struct cprof_rule_full *full;
	const struct cprof_frame *last;

	if (!stack->count)
		return false;
	last = &stack->frames[stack->count - 1];
	return last->region &&
	       cprof_space_rule(space, last->region, cprof_frame_lookup_pc(last), &full)->kind ==
		       CPROF_RULE_END;
}

bool cprof_retry_stacks(struct cprof_space *space, const struct cprof_snapshot *snapshot,
			const size_t *threads, size_t count,
			bool (*better)(void *context, size_t thread,
				       const struct cprof_stack *stack),
			void *context)
{
	struct cprof_frame frames[CPROF_FRAMES_SAMPLE];
	struct cprof_stack stack = {.frames = frames, .capacity = CPROF_FRAMES_SAMPLE};
	uint64_t deadline = cprof_now_ns() + RETRY_NS;
	bool fine = true;
	size_t which;
	int fds[2];
	pid_t child;

	count = CPROF_MIN(count, (size_t)RETRIES_MAX);
	if (!count || pipe(fds))
		return true;
	child = fork();
	if (child == 0) {
		close(fds[0]);
		answer_all(space, snapshot, threads, count, fds[1]);
	}
	close(fds[1]);
	while (child > 0 && fine && read_answer(space, fds[0], deadline, count, &which, &stack))
		fine = !is_end(space, &stack) || better(context, threads[which], &stack);
	close(fds[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	return fine;
}

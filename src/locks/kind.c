/* SPDX-License-Identifier: MIT
 *
 * What a stack waits for: the kernel's functions say in which call, and for a futex libc's say
 * whose it is.
 */
#include <cprof/locks.h>
#include <cprof/util.h>
#include <string.h>

#define USER_LOOKED 12 /* innermost user frames that can be libc's */

struct rule {
	const char *start; /* of the name */
	enum cprof_wait_kind kind;
};

/* The innermost function that one of these names begins decides. */
static const struct rule kernel_rules[] = {
	{"futex_", CPROF_WAIT_FUTEX},
	{"__futex_", CPROF_WAIT_FUTEX},
	{"do_futex", CPROF_WAIT_FUTEX},
	{"rt_mutex_wait_proxy", CPROF_WAIT_FUTEX},
	{"do_nanosleep", CPROF_WAIT_SLEEP},
	{"hrtimer_nanosleep", CPROF_WAIT_SLEEP},
	{"common_nsleep", CPROF_WAIT_SLEEP},
	{"do_sigtimedwait", CPROF_WAIT_SLEEP},
	{"sigsuspend", CPROF_WAIT_SLEEP},
	{"__do_sys_pause", CPROF_WAIT_SLEEP},
	{"__x64_sys_pause", CPROF_WAIT_SLEEP},
	{"ep_poll", CPROF_WAIT_POLL},
	{"do_epoll_", CPROF_WAIT_POLL},
	{"poll_schedule", CPROF_WAIT_POLL},
	{"do_poll", CPROF_WAIT_POLL},
	{"do_sys_poll", CPROF_WAIT_POLL},
	{"do_select", CPROF_WAIT_POLL},
	{"do_wait", CPROF_WAIT_POLL},
	{"kernel_wait", CPROF_WAIT_POLL},
	{"kernel_clone", CPROF_WAIT_POLL}, /* vfork: for the child's exec */
	{"read_events", CPROF_WAIT_POLL},
	{"do_semtimedop", CPROF_WAIT_SEM},
	{"__do_semtimedop", CPROF_WAIT_SEM},
	{"do_msgrcv", CPROF_WAIT_SEM},
	{"do_msgsnd", CPROF_WAIT_SEM},
	{"pipe_", CPROF_WAIT_PIPE},
	{"anon_pipe_", CPROF_WAIT_PIPE},
	{"fifo_", CPROF_WAIT_PIPE},
	{"splice_from_pipe", CPROF_WAIT_PIPE},
	{"wait_for_partner", CPROF_WAIT_PIPE},
	{"unix_", CPROF_WAIT_SOCKET},
	{"tcp_", CPROF_WAIT_SOCKET},
	{"udp_", CPROF_WAIT_SOCKET},
	{"inet_", CPROF_WAIT_SOCKET},
	{"inet6_", CPROF_WAIT_SOCKET},
	{"packet_", CPROF_WAIT_SOCKET},
	{"netlink_", CPROF_WAIT_SOCKET},
	{"vsock_", CPROF_WAIT_SOCKET},
	{"sk_wait", CPROF_WAIT_SOCKET},
	{"sk_stream_wait", CPROF_WAIT_SOCKET},
	{"__skb_wait", CPROF_WAIT_SOCKET},
	{"__skb_recv", CPROF_WAIT_SOCKET},
	{"skb_recv", CPROF_WAIT_SOCKET},
	{"sock_", CPROF_WAIT_SOCKET},
	{"__sys_accept", CPROF_WAIT_SOCKET},
	{"__sys_connect", CPROF_WAIT_SOCKET},
	{"__sys_recv", CPROF_WAIT_SOCKET},
	{"__sys_send", CPROF_WAIT_SOCKET},
	{"flock_", CPROF_WAIT_FILE},
	{"locks_", CPROF_WAIT_FILE},
	{"__do_sys_flock", CPROF_WAIT_FILE},
	{"fcntl_setlk", CPROF_WAIT_FILE},
	{"posix_lock", CPROF_WAIT_FILE},
	{"folio_wait", CPROF_WAIT_FILE},
	{"__folio_lock", CPROF_WAIT_FILE},
	{"filemap_", CPROF_WAIT_FILE},
	{"wait_on_page", CPROF_WAIT_FILE},
	{"blk_", CPROF_WAIT_FILE},
	{"blkdev_", CPROF_WAIT_FILE},
	{"submit_bio_wait", CPROF_WAIT_FILE},
	{"balance_dirty_pages", CPROF_WAIT_FILE},
	{"ext4_", CPROF_WAIT_FILE},
	{"jbd2_", CPROF_WAIT_FILE},
	{"xfs_", CPROF_WAIT_FILE},
	{"btrfs_", CPROF_WAIT_FILE},
	{"nfs_", CPROF_WAIT_FILE},
	{"fuse_", CPROF_WAIT_FILE},
	{"vfs_", CPROF_WAIT_FILE}, /* read, write and fsync of anything else */
	{"ksys_", CPROF_WAIT_FILE},
};

/* Where the kernel's functions have no names, those of libc that make the call. */
static const struct rule user_rules[] = {
	{"nanosleep", CPROF_WAIT_SLEEP}, {"clock_nanosleep", CPROF_WAIT_SLEEP},
	{"usleep", CPROF_WAIT_SLEEP},    {"sleep", CPROF_WAIT_SLEEP},
	{"pause", CPROF_WAIT_SLEEP},     {"sigtimedwait", CPROF_WAIT_SLEEP},
	{"sigwait", CPROF_WAIT_SLEEP},   {"sigsuspend", CPROF_WAIT_SLEEP},
	{"epoll_", CPROF_WAIT_POLL},     {"poll", CPROF_WAIT_POLL},
	{"ppoll", CPROF_WAIT_POLL},      {"select", CPROF_WAIT_POLL},
	{"pselect", CPROF_WAIT_POLL},    {"wait4", CPROF_WAIT_POLL},
	{"waitpid", CPROF_WAIT_POLL},    {"waitid", CPROF_WAIT_POLL},
	{"accept", CPROF_WAIT_SOCKET},   {"connect", CPROF_WAIT_SOCKET},
	{"recv", CPROF_WAIT_SOCKET},     {"send", CPROF_WAIT_SOCKET},
	{"semop", CPROF_WAIT_SEM},       {"semtimedop", CPROF_WAIT_SEM},
	{"msgrcv", CPROF_WAIT_SEM},      {"msgsnd", CPROF_WAIT_SEM},
	{"read", CPROF_WAIT_FILE},       {"write", CPROF_WAIT_FILE},
	{"fsync", CPROF_WAIT_FILE},      {"fdatasync", CPROF_WAIT_FILE},
	{"flock", CPROF_WAIT_FILE},      {"fcntl", CPROF_WAIT_FILE},
};

static enum cprof_wait_kind by_rules(const char *name, const struct rule *rules, size_t count)
{
	for (size_t i = 0; name && i < count; i++)
		if (!strncmp(name, rules[i].start, strlen(rules[i].start)))
			return rules[i].kind;
	return CPROF_WAIT_NONE;
}

/* Whose futex it is; FUTEX where no function of libc says it. */
static enum cprof_wait_kind futex_kind(const char *const *names, size_t count)
{
	for (size_t i = 0; i < CPROF_MIN(count, (size_t)USER_LOOKED); i++) {
		enum cprof_wait_kind kind =
			names[i] ? cprof_wait_of_function(names[i]) : CPROF_WAIT_NONE;

		if (kind != CPROF_WAIT_NONE)
			return kind;
	}
	return CPROF_WAIT_FUTEX;
}

static enum cprof_wait_kind user_kind(const char *const *names, size_t count)
{
	const char *name;
	enum cprof_wait_kind kind;

	if (!count || !names[0])
		return CPROF_WAIT_NONE;
	kind = futex_kind(names, count);
	if (kind != CPROF_WAIT_FUTEX)
		return kind;
	name = names[0] + strspn(names[0], "_");
	if (!strncmp(name, "GI_", 3))
		name += 3 + strspn(name + 3, "_");
	return by_rules(name, user_rules, CPROF_COUNT(user_rules));
}

enum cprof_wait_kind cprof_block_kind(const char *const *names, size_t kernel_count, size_t count)
{
	bool named = false;

	for (size_t i = 0; i < kernel_count; i++) {
		enum cprof_wait_kind kind =
			by_rules(names[i], kernel_rules, CPROF_COUNT(kernel_rules));

		named |= names[i] != NULL;
		if (kind == CPROF_WAIT_FUTEX)
			return futex_kind(names + kernel_count, count - kernel_count);
		if (kind != CPROF_WAIT_NONE)
			return kind;
	}
	return named ? CPROF_WAIT_NONE : user_kind(names + kernel_count, count - kernel_count);
}

/* SPDX-License-Identifier: MIT
 *
 * The figures at the top of a live view, from procfs and our own counts. Nobody is stopped.
 */
#include "live.h"

#include <cprof/util.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define NS 1000000000ull

/* --- of the target ------------------------------------------------------------------------- */

/* Fields of /proc/PID/stat, by their numbers in proc(5). */
struct stat_fields {
	char state;
	uint64_t cpu_ticks;   /* 14 + 15 */
	uint32_t threads;     /* 20 */
	uint64_t start_ticks; /* 22 */
};

static bool read_stat(int procfd, struct stat_fields *fields)
{
	CPROF_AUTO_FREE char *text = cprof_read_file_at(procfd, "stat", 4096, NULL);
	const char *end = text ? strrchr(text, ')') : NULL;
	unsigned long long user, system, start;

	if (!end || sscanf(end + 1,
			   " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d "
			   "%u %*d %llu",
			   &fields->state, &user, &system, &fields->threads, &start) != 5)
		return false;
	fields->cpu_ticks = user + system;
	fields->start_ticks = start;
	return true;
}

static uint64_t from_ticks(uint64_t ticks)
{
	return ticks * (NS / (unsigned long)CPROF_MAX(sysconf(_SC_CLK_TCK), 1l));
}

static void read_names(struct cprof_session *session, int procfd)
{
	struct cprof_session_live *live = session->live;
	CPROF_AUTO_FREE char *comm = NULL;
	CPROF_AUTO_FREE char *cmdline = NULL;
	char name[sizeof(live->comm)];
	size_t length = 0;

	comm = cprof_read_file_at(procfd, "comm", 64, &length);
	if (!comm || !length)
		return;
	cprof_text_clean(comm, length - 1, name, sizeof(name));
	if (live->cmdline[0] && strcmp(name, live->comm) == 0)
		return;
	memcpy(live->comm, name, sizeof(name));
	cmdline = cprof_read_file_at(procfd, "cmdline", 4096, &length);
	for (size_t i = 0; cmdline && i + 1 < length; i++)
		if (!cmdline[i])
			cmdline[i] = ' ';
	while (cmdline && length && !cmdline[length - 1])
		length--;
	if (cmdline && length)
		cprof_text_clean(cmdline, length, live->cmdline, sizeof(live->cmdline));
	else
		snprintf(live->cmdline, sizeof(live->cmdline), "%s", live->comm);
}

static void read_target(struct cprof_session *session, struct cprof_source_figures *figures)
{
	struct cprof_session_live *live = session->live;
	int procfd = cprof_target_procfd(session->dump_target);
	CPROF_AUTO_FREE char *statm = NULL;
	unsigned long long pages;
	struct stat_fields fields;
	struct timespec boot;

	read_names(session, procfd);
	memcpy(figures->comm, live->comm, sizeof(figures->comm));
	memcpy(figures->cmdline, live->cmdline, sizeof(figures->cmdline));
	if (!read_stat(procfd, &fields))
		return;
	figures->threads = fields.threads;
	figures->stopped = fields.state == 'T';
	live->target_cpu_ns = from_ticks(fields.cpu_ticks);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	figures->uptime_ns = (uint64_t)boot.tv_sec * NS + (uint64_t)boot.tv_nsec;
	figures->uptime_ns -= CPROF_MIN(figures->uptime_ns, from_ticks(fields.start_ticks));
	statm = cprof_read_file_at(procfd, "statm", 256, NULL);
	figures->rss_bytes = statm && sscanf(statm, "%*u %llu", &pages) == 1
				     ? pages * (uint64_t)sysconf(_SC_PAGESIZE)
				     : UINT64_MAX;
}

/* --- its end ------------------------------------------------------------------------------- */

/* linux/pidfd.h, since 6.15; older kernels do not tell strangers how a process ended. */
struct pidfd_info_exit {
	uint64_t mask;
	uint64_t cgroup;
	uint32_t ids[11];
	int32_t exit_code;
};
#define PIDFD_GET_INFO_EXIT  _IOWR(0xFF, 11, struct pidfd_info_exit)
#define PIDFD_INFO_EXIT_MASK (1ull << 3)

static void tell_end(const struct cprof_session *session, struct cprof_source_figures *figures)
{
	struct pidfd_info_exit info = {.mask = PIDFD_INFO_EXIT_MASK};
	const char *name;

	if (ioctl(cprof_target_pidfd(session->dump_target), PIDFD_GET_INFO_EXIT, &info) ||
	    !(info.mask & PIDFD_INFO_EXIT_MASK))
		return;
	if (WIFEXITED(info.exit_code)) {
		snprintf(figures->ended_how, sizeof(figures->ended_how), "exit status %d",
			 WEXITSTATUS(info.exit_code));
	} else if (WIFSIGNALED(info.exit_code)) {
		name = sigabbrev_np(WTERMSIG(info.exit_code));
		snprintf(figures->ended_how, sizeof(figures->ended_how), "killed by SIG%s%s",
			 name ? name : "?", WCOREDUMP(info.exit_code) ? ", core dumped" : "");
	}
}

/* --- our own ------------------------------------------------------------------------------- */

static uint64_t own_cpu(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage))
		return 0;
	return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * NS +
	       ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000;
}

static uint64_t own_rss(void)
{
	CPROF_AUTO_FREE char *statm = cprof_read_file_at(AT_FDCWD, "/proc/self/statm", 256, NULL);
	unsigned long long pages;

	return statm && sscanf(statm, "%*u %llu", &pages) == 1
		       ? pages * (uint64_t)sysconf(_SC_PAGESIZE)
		       : UINT64_MAX;
}

static void tell_counts(struct cprof_session *session, struct cprof_source_figures *figures)
{
	struct cprof_session_stats stats;
	bool heap;

	pthread_mutex_lock(&session->lock);
	cprof_session_tell(session, &stats);
	heap = session->heap;
	figures->ended = session->ended;
	pthread_mutex_unlock(&session->lock);
	figures->elapsed_ns = stats.duration_ns;
	figures->samples = stats.cpu.samples;
	figures->lost = stats.cpu.lost;
	figures->complete = stats.cpu.samples ? (double)stats.cpu.ends[CPROF_END_COMPLETE] /
							(double)stats.cpu.samples
					      : -1;
	figures->live_bytes = heap ? stats.heap.live_bytes : -1;
	figures->live_objects = heap ? stats.heap.live_objects : -1;
}

/* CPUs used since the figures before; where these are too near, what was told then. */
static void tell_cpu(struct cprof_session *session, struct cprof_source_figures *figures,
		     uint64_t before_ns)
{
	struct cprof_session_live *live = session->live;
	uint64_t now = cprof_now_ns();
	uint64_t own = own_cpu();
	double elapsed;

	if (live->figured_ns && now < live->figured_ns + NS / 10) {
		live->target_cpu_ns = before_ns;
	} else {
		elapsed = (double)(now - live->figured_ns);
		live->target_cpus = live->own_cpus = -1;
		if (live->figured_ns && live->target_cpu_ns >= before_ns && !figures->ended)
			live->target_cpus = (double)(live->target_cpu_ns - before_ns) / elapsed;
		if (live->figured_ns)
			live->own_cpus = (double)(own - live->own_cpu_ns) / elapsed;
		live->figured_ns = now;
		live->own_cpu_ns = own;
	}
	figures->cpu = live->target_cpus;
	figures->own_cpu = live->own_cpus;
}

void cprof_live_figures(struct cprof_source *source, struct cprof_source_figures *figures)
{
	struct cprof_session *session = (struct cprof_session *)source;
	struct cprof_session_live *live = session->live;
	uint64_t before_ns = live->target_cpu_ns;

	*figures = live->last;
	figures->pid = cprof_target_info(session->dump_target)->pid;
	figures->rate = cprof_session_rate(session);
	tell_counts(session, figures);
	figures->ended |= !cprof_target_alive(session->dump_target);
	if (!figures->ended)
		read_target(session, figures);
	else if (!figures->ended_how[0])
		tell_end(session, figures);
	tell_cpu(session, figures, before_ns);
	figures->own_rss_bytes = own_rss();
	live->last = *figures;
}

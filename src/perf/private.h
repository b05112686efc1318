/* SPDX-License-Identifier: MIT
 *
 * What the files of the perf floor share.
 */
#ifndef CPROF_PERF_PRIVATE_H
#define CPROF_PERF_PRIVATE_H

#include <cprof/perf.h>
#include <cprof/util.h>
#include <linux/perf_event.h>
#include <uthash.h>

/* The ring of one CPU. Its owner is a dummy event that only carries it: sampling events come and
 * go and are redirected into it. */
struct cprof_ring {
	int fd;
	unsigned cpu;
	int waits;    /* SWITCHES, CPU-wide: the event that tells how long waits were; -1 none */
	bool records; /* only for what its owner tells: samples cannot crowd it out */
	struct perf_event_mmap_page *page; /* followed by `size` bytes of data */
	uint8_t *data;
	size_t size;
	uint64_t head; /* as last seen */
	uint64_t tail;
	uint8_t *scratch; /* a record that wraps around the end is copied here */
	/* The next record, if `pending`. */
	struct cprof_perf_record record;
	size_t record_length;
	bool pending;
	uint64_t malformed;
};

/* What the program of waits.c tells of a wait, as record.c reads it. */
#define CPROF_WAIT_PREEMPTED 1u
#define CPROF_WAIT_KEPT      2u
#define CPROF_WAIT_SPENT     32 /* from this bit on: what its sample took, ns */
struct cprof_told {
	uint64_t key;    /* bpf_get_current_pid_tgid() of the thread */
	uint64_t out_ns; /* 0: it was not seen before */
	uint64_t in_ns;
	uint64_t share; /* of 2^32: by what chance it was kept */
	uint64_t flags; /* CPROF_WAIT_*, of the wait */
};

/* ring.c */
void cprof_ring_deinit(struct cprof_ring *ring);
/* Maps the owner's ring; a negative errno on failure. */
int cprof_ring_map(struct cprof_ring *ring, size_t size);
void cprof_ring_unmap(struct cprof_ring *ring);
/* Sees what the kernel has written by now. */
void cprof_ring_refresh(struct cprof_ring *ring);
/* Makes the next well-formed record pending; false if there is none. */
bool cprof_ring_next(struct cprof_ring *ring, const struct cprof_perf_format *format);
/* Gives the pending record's room back to the kernel. */
void cprof_ring_consume(struct cprof_ring *ring);

/* A sampling event opened by us. Inherited copies report the id of the one they stem from. */
struct cprof_event {
	uint64_t id;
	int fd;        /* -1 once it is retired */
	size_t ring;   /* index */
	pid_t tid;     /* per-thread way: the thread it was opened on */
	uint64_t from; /* samples count in [from, until): a successor may overlap */
	uint64_t until;
	unsigned generation; /* of its stack dump's size */
	bool bridge;         /* CPU-wide way: see cpuwide.c */
	UT_hash_handle hh;
};

/* Per-thread way: which event's samples count, per ring, for a thread: it may have inherited one
 * and have another of its own. */
struct cprof_owner {
	pid_t tid;
	UT_hash_handle hh;
	uint64_t ids[]; /* by ring; 0: none yet */
};

struct cprof_perf {
	const struct cprof_target *target;
	struct cprof_perf_config config;
	enum cprof_perf_way way;
	char *way_reason;
	struct cprof_perf_format format;
	struct cprof_perf_format wait_format; /* in rings where waits are told */
	bool kernel;
	bool has_format_lost;
	bool has_inherit_thread;
	bool enabled;
	uint64_t period;
	uint64_t tracepoint; /* BIRTHS, per-thread way */
	uint64_t renewed_at; /* when the sampling events began */
	unsigned *cpus;
	struct cprof_ring *rings;
	size_t ring_count;
	int epoll;
	struct cprof_event *events; /* hash by id */
	struct cprof_owner *owners; /* hash by tid */
	int bpf_map;
	int bpf_program;
	int bpf_outputs; /* SWITCHES, BIRTHS: the sampling event of each CPU */
	int bpf_link;    /* of both: the program at its tracepoint */

	/* SWITCHES, CPU-wide: see waits.c, and thin.c. */
	struct cprof_waits *waits;
	double thin_level; /* samples of a thread in a window */
	uint64_t thin_samples;
	uint64_t thin_looked;

	/* Adapting stack dumps, see stack.c. */
	unsigned generation;
	uint32_t stack_limit; /* the most that rings and record size allow */
	uint32_t stack_need;  /* the most that a sample needed since the last change */
	uint64_t stack_count; /* how many samples told */
	bool stack_truncated;
	uint64_t stack_lost;  /* ring_lost at the last look */
	uint64_t stack_since; /* time of the last change */
	uint64_t stack_hold;  /* ns before shrinking */

	/* Of retired events, or as last read. */
	uint64_t retired_lost;
	uint64_t retired_lost_records;
	uint64_t retired_counted;
	uint64_t read_at;
	uint64_t read_lost;
	uint64_t read_lost_records;
	uint64_t read_counted;
	uint64_t ring_lost;   /* from PERF_RECORD_LOST */
	uint64_t lost_before; /* samples lost before anything counted */
};

/* Samples are of what happens, and happens in the kernel: not of time that passes. What tells of
 * threads then has rings of its own, where stacks cannot crowd it out. */
static inline bool cprof_perf_is_traced(const struct cprof_perf *perf)
{
	return perf->config.clock == CPROF_PERF_SWITCHES || perf->config.clock == CPROF_PERF_BIRTHS;
}

/* event.c: attributes and opening, common to both ways. */
/* The event of that ring through which is told how long waits were. */
int cprof_event_waits(const struct cprof_perf *perf, const struct cprof_ring *ring);
void cprof_event_attr_dummy(const struct cprof_perf *perf, struct perf_event_attr *attr);
int cprof_event_open(const struct perf_event_attr *attr, pid_t pid, int cpu);
/* Why perf_event_open() failed, as the user can understand it. */
struct cprof_error *cprof_event_error(const struct cprof_perf *perf, int errnum);
/* Opens a sampling event of that period (ns, unless it counts cycles), redirects it into a ring
 * and books it; enabled if the session is. Returns a negative errno on failure. Falls back where
 * the kernel or permissions want it. `*added` may be NULL. */
int cprof_event_add(struct cprof_perf *perf, pid_t pid, size_t ring, uint64_t period,
		    struct cprof_event **added);
/* Closes the event, whose samples count up to `until`. What it lost is kept, what it counted only
 * if `keep_count`. */
void cprof_event_retire(struct cprof_perf *perf, struct cprof_event *event, uint64_t until,
			bool keep_count);
/* Replaces all sampling events by fresh ones with stack dumps of that size; without success the
 * old ones stay. */
void cprof_events_renew(struct cprof_perf *perf, uint32_t bytes);
void cprof_event_forget(struct cprof_perf *perf, struct cprof_event *event);
/* Adds what an event counted and lost so far; of a descriptor, whatever it is for. */
void cprof_event_tally(const struct cprof_perf *perf, const struct cprof_event *event,
		       uint64_t *count, uint64_t *lost);
void cprof_event_read(const struct cprof_perf *perf, int fd, uint64_t *count, uint64_t *lost);
/* A procfs or sysfs number, or `missing`. */
long cprof_perf_setting(const char *path, long missing);

/* setup.c: opens the dummy event and the ring of each CPU that is online. */
struct cprof_error *cprof_rings_open(struct cprof_perf *perf);
void cprof_rings_close(struct cprof_perf *perf);
/* Has the process allowed so many descriptors, and some for everything else, which is added; false
 * if no more than `*allowed` can be had. */
bool cprof_descriptors_raise(size_t *total, uint64_t *allowed);

/* tracefs.c: a tracepoint's number, by its name as in "task/task_newtask". */
struct cprof_error *cprof_tracepoint_find(const char *name, uint64_t *id);

/* bpf.c */
struct cprof_error *cprof_bpf_open(struct cprof_perf *perf);
void cprof_bpf_close(struct cprof_perf *perf);
/* SWITCHES, BIRTHS: nothing is sampled, or told, any more. */
void cprof_bpf_detach(struct cprof_perf *perf);
/* SWITCHES, BIRTHS: that event samples on that CPU from now on; a negative errno on failure. */
int cprof_bpf_output(const struct cprof_perf *perf, unsigned cpu, int fd);

/* waits.c */
/* As where the raw tracepoint tells too little; for tests. */
extern bool cprof_waits_without_raw;
/* Closed with the session in any case. */
struct cprof_error *cprof_waits_open(struct cprof_perf *perf);
void cprof_waits_close(struct cprof_perf *perf);
/* That event tells on that CPU; a negative errno on failure. */
int cprof_waits_event(const struct cprof_perf *perf, unsigned cpu, int fd);
/* Waits count from then on. */
void cprof_waits_begin(struct cprof_perf *perf, uint64_t time);
#define CPROF_WAITS_WINDOW_NS 20000000 /* over which a thread's switches are counted */
/* Samples that a thread may give in a window. */
void cprof_waits_level(struct cprof_perf *perf, double samples);
/* Says whose wait a record tells; false if that is not known. */
bool cprof_waits_told(struct cprof_perf *perf, struct cprof_perf_record *record);
void cprof_waits_ended(struct cprof_perf *perf, pid_t tid);
/* Switches that found no room. */
uint64_t cprof_waits_unknown(const struct cprof_perf *perf);

/* thin.c */
/* Of so many threads at first. */
void cprof_thin_open(struct cprof_perf *perf, size_t threads);
void cprof_thin_adapt(struct cprof_perf *perf);

/* cpuwide.c, perthread.c: open the sampling events. */
struct cprof_error *cprof_cpuwide_open(struct cprof_perf *perf);
/* The events run from `now` on; ends what was only to bridge their beginning. */
void cprof_cpuwide_started(struct cprof_perf *perf, uint64_t now);
void cprof_cpuwide_settle(struct cprof_perf *perf, uint64_t now);
struct cprof_error *cprof_perthread_open(struct cprof_perf *perf);
struct cprof_error *cprof_perthread_rescan(struct cprof_perf *perf);
/* Is this sample the one to count for its thread? */
bool cprof_perthread_accept(struct cprof_perf *perf, const struct cprof_perf_record *record,
			    struct cprof_event *event);
void cprof_perthread_started(struct cprof_perf *perf, pid_t tid);
void cprof_perthread_ended(struct cprof_perf *perf, pid_t tid);
void cprof_perthread_close(struct cprof_perf *perf);

/* stack.c */
void cprof_stack_init(struct cprof_perf *perf);
void cprof_stack_adapt(struct cprof_perf *perf);

#endif

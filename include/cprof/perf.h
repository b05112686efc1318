/* SPDX-License-Identifier: MIT
 *
 * perf_event sessions on one process: rings, records, loss. Two ways of sampling:
 *  - CPU-wide: events on every CPU with a BPF filter on the target's tgid (root, or CAP_PERFMON and
 *    CAP_BPF): no descriptor per thread, no cost per context switch, short threads are seen; four
 *    clocks out of step share the rate, so that a target's own rhythm is not met in one place;
 *  - per thread: one inherited event per (thread, CPU), all of a CPU redirected into one ring.
 * Records of all rings arrive merged by time. Each CPU's come in the order they were written: one
 * that tells of a birth, an end or a mapping can be younger in its place than its time says, by a
 * sample that interrupted its writing.
 */
#ifndef CPROF_PERF_H
#define CPROF_PERF_H

#include <cprof/error.h>
#include <cprof/target.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum cprof_perf_way {
	CPROF_PERF_AUTO, /* CPU-wide where permitted */
	CPROF_PERF_CPU_WIDE,
	CPROF_PERF_PER_THREAD,
};
const char *cprof_perf_way_name(enum cprof_perf_way way); /* "cpu-wide", "per-thread" */

enum cprof_perf_clock {
	CPROF_PERF_CPU_CLOCK, /* values are nanoseconds of CPU */
	CPROF_PERF_CYCLES,    /* needs a PMU */
	/* A sample where a thread leaves its CPU. Per thread there are switch records as well;
	 * CPU-wide waits are summed up, and a record tells how long each sampled one was, no sooner
	 * than the thread leaves its CPU again. */
	CPROF_PERF_SWITCHES,
	/* A sample in the thread that creates another, just after the FORK record about it. Per
	 * thread it may come twice, while stack dumps change their size. */
	CPROF_PERF_BIRTHS,
};

struct cprof_perf_config {
	enum cprof_perf_way way;
	enum cprof_perf_clock clock;
	/* Samples per second and thread. SWITCHES: of all threads, 0: every switch; CPU-wide only,
	 * and the sums are of all waits in any case. BIRTHS: of no meaning. */
	unsigned rate;
	uint32_t stack_bytes; /* most bytes of a stack dump; 0: 64 KB, shrinking as needed */
	bool kernel;          /* sample kernel time and record kernel frames, where permitted;
			       * BIRTHS have none */
	bool user_stack;      /* registers and stack bytes */
	bool beside_another;  /* of several sessions that share what memory may be locked */
};

struct cprof_perf;

/* Opens everything, disabled. CPROF_DENIED tells the rule (perf_event_paranoid and its value, a
 * missing capability, descriptors needed against allowed) and the remedy. */
struct cprof_error *cprof_perf_create(const struct cprof_target *target,
				      const struct cprof_perf_config *config,
				      struct cprof_perf **perf);
void cprof_perf_destroy(struct cprof_perf *perf);

struct cprof_error *cprof_perf_enable(struct cprof_perf *perf);
void cprof_perf_disable(struct cprof_perf *perf);

/* Becomes readable when some ring is filling up (epoll). A timer is needed beside it. */
int cprof_perf_fd(const struct cprof_perf *perf);

enum cprof_perf_type {
	CPROF_PERF_SAMPLE,
	CPROF_PERF_MMAP,
	CPROF_PERF_COMM,
	CPROF_PERF_FORK,
	CPROF_PERF_EXIT,
	CPROF_PERF_LOST,
	CPROF_PERF_THROTTLE,
	CPROF_PERF_SWITCH,
	CPROF_PERF_WAIT,
	CPROF_PERF_OTHER,
};

struct cprof_perf_wait {
	uint64_t key;  /* of the thread in the kernel */
	uint64_t from; /* CLOCK_MONOTONIC; 0: only that it was not seen before, and has its CPU
			* since `until` */
	uint64_t until;
	uint64_t spent; /* ns of it that sampling took */
	bool preempted;
	double weight; /* how many it stands for */
};

/* One record of the target, decoded. Pointers go into the ring (or a copy) and live during the
 * handler's call only. */
struct cprof_perf_record {
	enum cprof_perf_type type;
	pid_t pid;
	pid_t tid;
	uint64_t time; /* CLOCK_MONOTONIC, ns */
	uint32_t cpu;
	union {
		struct cprof_perf_sample {
			uint64_t id;
			uint64_t period;
			const uint64_t *kernel_chain; /* innermost first, unaligned words */
			size_t kernel_count;
			bool has_user;        /* registers are there */
			bool user_32bit;      /* a 32-bit (compat) context */
			uint64_t regs[17];    /* by DWARF number: see unwind.h */
			const uint8_t *stack; /* from the stack pointer upwards */
			size_t stack_length;  /* bytes really copied */
			bool stack_cut;       /* the dump was as long as it could be */
			/* SWITCHES, CPU-wide: handed out as a record of its own before the sample;
			 * `from` 0: there is none. */
			struct cprof_perf_wait before;
		} sample;
		struct cprof_perf_mmap {
			struct cprof_mapping mapping;
		} mmap;
		struct cprof_perf_comm {
			const char *comm; /* not safe to show */
			bool exec;
		} comm;
		struct cprof_perf_task {
			pid_t parent_pid;
			pid_t parent_tid;
		} task; /* FORK, EXIT */
		struct cprof_perf_lost {
			uint64_t id;
			uint64_t count;
			bool records; /* SWITCHES, BIRTHS: not samples, but what tells of threads */
		} lost;
		struct cprof_perf_switch {
			bool out;       /* the thread leaves its CPU; otherwise it gets one */
			bool preempted; /* out: it would have gone on */
		} switched;
		struct cprof_perf_wait wait;
	};
};

/* What a ring's records look like; filled in by cprof_perf_create, by hand in tests. */
struct cprof_perf_format {
	uint64_t sample_type; /* PERF_SAMPLE_* */
	uint64_t regs_mask;   /* PERF_REG_X86_* */
	uint32_t stack_bytes; /* as asked for */
	bool sample_id_all;
	bool only_waits; /* what comes as samples are WAIT records */
};

/* Decodes one record (header included, `length` bytes). False if it is malformed.
 * Pure: no state, bounded, fit for fuzzing. */
bool cprof_perf_parse(const struct cprof_perf_format *format, const void *bytes, size_t length,
		      struct cprof_perf_record *record);

/*
 * Hands out what has arrived, oldest first over all rings, and frees its room. Records younger
 * than a small safety margin wait for the next call, unless `final`. Records of other processes
 * are left out, and so are samples of a thread that another root event counts already.
 */
void cprof_perf_drain(struct cprof_perf *perf, bool final,
		      void (*handler)(void *context, const struct cprof_perf_record *record),
		      void *context);

/*
 * SWITCHES, CPU-wide: waits of about the same length, without what was spent, are summed up
 * together. The first stratum has those of less than 2^FIRST ns, each of the next reaches 2^BITS
 * times as far, and one more has those that were preempted.
 */
#define CPROF_PERF_STRATA        9
#define CPROF_PERF_STRATUM_RUNQ  (CPROF_PERF_STRATA - 1)
#define CPROF_PERF_STRATUM_FIRST 12
#define CPROF_PERF_STRATUM_BITS  4
struct cprof_perf_stratum {
	uint64_t count;
	uint64_t ns;
};
unsigned cprof_perf_stratum_of(uint64_t ns, bool preempted);

struct cprof_perf_waits {
	pid_t tid;
	bool ended;      /* not told of again */
	uint64_t out_ns; /* when it last left its CPU, 0 never */
	uint64_t in_ns;  /* it has one again since then; 0: it waits. The wait between is not yet
			  * among the sums in any case. */
	bool preempted;
	bool sampled; /* there is a sample from its beginning, if it was not lost */
	struct cprof_perf_stratum strata[CPROF_PERF_STRATA];
};
typedef void cprof_perf_waits_handler(void *context, const struct cprof_perf_waits *waits);

/* Sums are of what follows that time, of a wait too; before, nothing counts, nor does it as lost.
 */
void cprof_perf_count_from(struct cprof_perf *perf, uint64_t time);
/* Tells the sums so far of all threads, or of those only that have ended, which are told once. What
 * a drain has not yet told is in them already. */
void cprof_perf_waits(struct cprof_perf *perf, bool all, cprof_perf_waits_handler *handler,
		      void *context);

/* Tells how many bytes of stack the last samples needed (from the collector): where the rate is
 * high, dumps shrink towards it. */
void cprof_perf_stack_needed(struct cprof_perf *perf, size_t bytes, bool was_truncated);

/* A thread was found that has no event yet (per-thread way; CPU-wide: nothing to do). */
struct cprof_error *cprof_perf_rescan(struct cprof_perf *perf);

struct cprof_perf_stats {
	enum cprof_perf_way way;
	const char *clock;     /* "cpu-clock", "cycles", "context-switches", "task_newtask" */
	bool kernel;           /* kernel time is sampled */
	uint64_t period;       /* ns (or cycles) a sample stands for */
	uint64_t lost;         /* samples that found no room */
	uint64_t lost_records; /* other records that found no room */
	uint64_t malformed;
	uint64_t counted;       /* CPU ns counted by the events while enabled; 0 CPU-wide */
	uint32_t stack_bytes;   /* of a dump, now */
	uint32_t events;        /* descriptors */
	size_t ring_bytes;      /* of all rings */
	const char *way_reason; /* why not CPU-wide, or NULL */
};
void cprof_perf_stats(struct cprof_perf *perf, struct cprof_perf_stats *stats);

#endif

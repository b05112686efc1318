/* SPDX-License-Identifier: MIT
 *
 * The command line: one table of options and one of verbs feed the parser and every --help.
 */
#ifndef CPROF_CLI_PRIVATE_H
#define CPROF_CLI_PRIVATE_H

#include <cprof/error.h>
#include <cprof/perf.h>
#include <cprof/report.h>
#include <cprof/session.h>
#include <cprof/util.h>
#include <signal.h>

/* --- parse.c: texts to values; false if the text is not one ---------------------------------- */

/* `10`, `1.5`, `500ms`, `2m`, `0`: seconds, or with one of the units ms, s, m, h. */
bool cprof_parse_time(const char *text, uint64_t *ns);
/* Digits only, within [low, high]. */
bool cprof_parse_number(const char *text, uint64_t low, uint64_t high, uint64_t *value);
/* `100`, `512K`, `64M`, `2G`, `1T`, also with B or iB behind: bytes, powers of 1024. */
bool cprof_parse_size(const char *text, uint64_t *bytes);
/* `1` or `1,2,3`: the first one and how many there are. */
bool cprof_parse_pids(const char *text, pid_t *first, size_t *count);

/* `100x30`: columns and rows, from 1x1 up. */
bool cprof_parse_geometry(const char *text, int *columns, int *rows);

/* --- options.c ------------------------------------------------------------------------------- */

enum { /* bits, for struct cprof_option.verbs */
       CPROF_VERB_RECORD = 1,
       CPROF_VERB_RUN = 2,
       CPROF_VERB_REPORT = 4,
       CPROF_VERB_HELP = 8,
       CPROF_VERB_NONE = 16, /* no verb given */
       CPROF_VERB_THREADS = 32,
       CPROF_VERB_MEMTRACE = 64,
       CPROF_VERB_DETACH = 128,
       CPROF_VERB_VIEW = 256,
};

enum cprof_format { CPROF_FORMAT_PPROF, CPROF_FORMAT_FOLDED, CPROF_FORMAT_TEXT, CPROF_FORMAT_JSON };

#define CPROF_DURATION_DEFAULT UINT64_MAX

/* What the command line asks for. Strings belong to argv. */
struct cprof_options {
	const struct cprof_verb *verb;
	char **arguments; /* what is not an option, NULL-ended */
	size_t argument_count;

	pid_t pid;
	size_t pid_count;
	const char **threads; /* NULL-ended, or NULL: all */
	size_t thread_count;
	unsigned kinds; /* enum cprof_kind; 0: none named, which is cpu */
	int way;        /* enum cprof_perf_way */
	int format;     /* enum cprof_format */
	int color;
	uint64_t duration_ns; /* 0: no end; CPROF_DURATION_DEFAULT: as the verb has it */
	uint64_t snapshot_ns; /* 0: none */
	uint64_t watch_ns;    /* 0: one dump */
	uint64_t interval_ns; /* memtrace; 0: the default */
	uint64_t lines;       /* memtrace; 0: no end */
	uint64_t leak_threads;
	uint64_t leak_bytes;
	uint64_t rate;
	uint64_t heap_rate; /* 0: the default */
	uint64_t block_min_ns;
	uint64_t block_rate;
	uint64_t mutex_rate; /* 0: as many as are cheap */
	int mutex_side;      /* enum cprof_contention_side */
	const char *output;
	const char *stats;
	const char *debug_dir;
	const struct cprof_unwinder_ops *unwinder;
	bool no_inlines;
	bool no_lines;
	bool no_kernel;
	bool no_inject;
	bool all;
	bool check;
	bool quiet;
	bool verbose;
	bool help;
	bool version;

	const char *sample_index;
	const char *base;
	const char *source_path;
	const char *focus;
	const char *ignore;
	uint64_t rows; /* UINT64_MAX: the default */
	int by;        /* enum cprof_report_by */
	bool cum;

	int screen_columns; /* --headless; 0: a terminal */
	int screen_rows;
	const char *keys;
	uint64_t frames;
	uint64_t refresh_ns; /* 0: the default */
};

struct cprof_verb {
	const char *name; /* NULL: no verb */
	unsigned bit;
	const char *synopsis; /* after the program's and the verb's name */
	const char *summary;  /* one line */
	const char *more;     /* lines below the options, or NULL */
	/* Does the work; `*status` is the exit status if no error is returned. */
	struct cprof_error *(*run)(const struct cprof_options *options, int *status);
};

/* One row of the table. The same name may stand in several rows for different verbs. */
struct cprof_option {
	const char *name;
	char letter; /* 0: none */
	const char *argument;
	unsigned verbs;
	const char *help; /* may hold newlines; NULL: not listed */
	struct cprof_error *(*set)(struct cprof_options *options, const struct cprof_option *option,
				   const char *argument);
	size_t offset;              /* of the field that `set` fills in */
	const char *const *choices; /* NULL-ended words, their index is the value */
};

extern const struct cprof_option cprof_option_table[]; /* ends with a NULL name */
extern const struct cprof_verb cprof_verb_table[];     /* ends with no verb (name NULL) */

/* A usage error that points to the verb's help. `verb` may be NULL. */
struct cprof_error *cprof_usage_error(const struct cprof_verb *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Reads argv. The arrays in `options` are freed by deinit, after an error too. */
struct cprof_error *cprof_options_init(int argc, char **argv, struct cprof_options *options);
void cprof_options_deinit(struct cprof_options *options);

/* --- help.c ---------------------------------------------------------------------------------- */

void cprof_help_print(const struct cprof_verb *verb, FILE *out);
/* "record, run, …" into `text`. */
void cprof_help_verbs(char *text, size_t size);

/* --- signals.c ------------------------------------------------------------------------------- */

/* Catches SIGINT, SIGTERM, SIGHUP and SIGUSR1, and keeps them blocked but where they are awaited:
 * inside cprof_signals_poll and between _open and _close. */
void cprof_signals_init(void);
/* In a forked child: everything as it was before init. */
void cprof_signals_restore(void);
/* Waits for `fd` to become readable, a signal, or `deadline_ns` (UINT64_MAX: none). True if
 * readable. */
bool cprof_signals_poll(int fd, uint64_t deadline_ns);
/* True if asked to stop; true once for each SIGUSR1. */
bool cprof_signals_stopped(void);
bool cprof_signals_take_snapshot(void);
/* Lets signals interrupt system calls. With `give_up` a Ctrl-C after a first one ends the
 * process at once, without a file. */
void cprof_signals_open(bool give_up);
void cprof_signals_close(void);
/* `run`: SIGTERM and SIGHUP go on to this child (0: none) and stop nothing here; a Ctrl-C reaches
 * it by the terminal. */
void cprof_signals_forward(pid_t child);

/* --- output.c -------------------------------------------------------------------------------- */

/* A line on stderr, unless --quiet. */
void cprof_note(const struct cprof_options *options, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The file that -o asks for, or its default; the caller frees. */
struct cprof_error *cprof_output_name(const struct cprof_options *options, const char *kind,
				      pid_t pid, const char *comm, char **path);
/* A file that has been written, for the line about it. */
struct cprof_result {
	enum cprof_kind kind;
	uint64_t threads;
	const char *path;
	size_t length;
};
void cprof_tell_result(const struct cprof_result *result, const struct cprof_session_stats *stats);
/* How the accounts of waits went. */
void cprof_tell_block(const struct cprof_options *options, const struct cprof_session_stats *stats);
void cprof_tell_births(const struct cprof_options *options,
		       const struct cprof_session_stats *stats);
/* What the agent reached and what it did not, and how accounting went. */
void cprof_tell_agent(const struct cprof_options *options, struct cprof_session *session,
		      unsigned kinds, const struct cprof_session_stats *stats);
/* The counts of one kind. */
const struct cprof_session_counts *cprof_kind_counts(const struct cprof_session_stats *stats,
						     enum cprof_kind kind);

/* --- record.c, run.c, threads.c, memtrace.c, detach.c, stats.c, report.c, view.c
 * ------------------------------------------- */

/* Profiles being taken. */
struct cprof_recording {
	const struct cprof_options *options;
	unsigned kinds; /* enum cprof_kind */
	struct cprof_session *session;
	uint64_t duration_ns; /* 0: no end */
	pid_t pid;
	char comm[64];
	bool await_exec; /* a command of ours: its end needs no note */
};

/* The kinds that the options ask for. */
unsigned cprof_kinds(const struct cprof_options *options);
/* Whether the output files can be written; nothing is attached yet. */
struct cprof_error *cprof_recording_check(const struct cprof_recording *recording);
struct cprof_error *cprof_recording_create_session(struct cprof_recording *recording,
						   uint64_t started_ns);
/* Waits until something ends the recording, then stops, writes and tells. */
struct cprof_error *cprof_recording_finish(struct cprof_recording *recording);

/* A command of ours, held before its exec. */
struct cprof_command {
	pid_t pid;
	int go;     /* a byte written here lets it exec */
	int failed; /* the errno of a failed exec can be read here, nothing otherwise */
};

struct cprof_error *cprof_command_start(char **arguments, struct cprof_command *command);
/* Lets it exec; where that fails `*status` is what a shell would exit with. */
struct cprof_error *cprof_command_release(struct cprof_command *command, const char *name,
					  int *status);
/* Waits for its end (one that was not released ends at once); signals are forwarded until it is
 * reaped. Its exit status as a shell would tell it. */
int cprof_command_await(struct cprof_command *command);

struct cprof_error *cprof_verb_record(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_run(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_threads(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_memtrace(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_detach(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_report(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_view(const struct cprof_options *options, int *status);
/* `-p PID` without a verb. */
struct cprof_error *cprof_verb_live(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_help(const struct cprof_options *options, int *status);
struct cprof_error *cprof_verb_none(const struct cprof_options *options, int *status);

/* A dump in a format, as bytes for `path`; the caller frees. `earlier` may be NULL. */
struct cprof_error *cprof_format_dump(const struct cprof_dump *dump,
				      const struct cprof_dump *earlier,
				      const struct cprof_options *options, enum cprof_format format,
				      const char *path, void **bytes, size_t *length);

/* What the run did, as JSON, into the file of --stats. */
struct cprof_error *cprof_stats_write(const struct cprof_session_stats *stats, unsigned kinds,
				      const char *path);

/* The profile in a format, as bytes; the caller frees. */
struct cprof_error *cprof_format_profile(const struct cprof_profile *profile,
					 enum cprof_format format,
					 const struct cprof_report_options *report, void **bytes,
					 size_t *length);

/* The whole program. */
int cprof_cli(int argc, char **argv);

#endif

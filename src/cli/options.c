/* SPDX-License-Identifier: MIT
 *
 * The tables of verbs and options, and the parser they feed.
 */
#include "private.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

static const char *const formats[] = {"pprof", "folded", "text", "json", NULL};
static const char *const ways[] = {"auto", "cpu-wide", "per-thread", NULL};
static const char *const sides[] = {"holder", "waiter", NULL};
static const char *const colors[] = {"auto", "always", "never", NULL};
static const char *const bys[] = {"function", "line", "address", NULL};

#define SIZE_LIMIT      (1ull << 50)
#define HEAP_RATE_LIMIT (1ull << 30)
#define FIELD(type)     (*(type *)((char *)options + option->offset))

static struct cprof_error *set_flag(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	(void)argument;
	FIELD(bool) = true;
	return NULL;
}

static struct cprof_error *set_text(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	if (!*argument)
		return cprof_usage_error(options->verb, "--%s: empty", option->name);
	FIELD(const char *) = argument;
	return NULL;
}

/* None at all is fine. */
static struct cprof_error *set_keys(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	FIELD(const char *) = argument;
	return NULL;
}

static struct cprof_error *set_choice(struct cprof_options *options,
				      const struct cprof_option *option, const char *argument)
{
	char words[128] = "";
	size_t used = 0;

	for (int i = 0; option->choices[i]; i++) {
		if (!strcmp(argument, option->choices[i])) {
			FIELD(int) = i;
			return NULL;
		}
		used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
					 used ? ", " : "", option->choices[i]);
	}
	return cprof_usage_error(options->verb, "--%s %s: there are %s", option->name, argument,
				 words);
}

static struct cprof_error *set_time(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_time(argument, &FIELD(uint64_t)))
		return cprof_usage_error(options->verb,
					 "--%s %s: not a time like 10, 1.5, 500ms or 2m",
					 option->name, argument);
	return NULL;
}

static struct cprof_error *set_json(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	(void)option;
	(void)argument;
	options->format = CPROF_FORMAT_JSON;
	return NULL;
}

static struct cprof_error *set_interval(struct cprof_options *options,
					const struct cprof_option *option, const char *argument)
{
	CPROF_TRY(set_time(options, option, argument));
	if (FIELD(uint64_t) < 1000000)
		return cprof_usage_error(options->verb, "--%s %s: at least 1ms", option->name,
					 argument);
	return NULL;
}

static struct cprof_error *set_pids(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	size_t count;

	if (!cprof_parse_pids(argument, &options->pid, &count))
		return cprof_usage_error(options->verb,
					 "--%s %s: not a process id, a number from 1 up",
					 option->name, argument);
	options->pid_count += count;
	if (options->pid_count > 1)
		return cprof_usage_error(options->verb, "--%s: one process at a time for now",
					 option->name);
	return NULL;
}

static struct cprof_error *set_thread(struct cprof_options *options,
				      const struct cprof_option *option, const char *argument)
{
	const char **threads = options->threads;

	if (!*argument)
		return cprof_usage_error(options->verb, "--%s: empty", option->name);
	threads = realloc(threads, (options->thread_count + 2) * sizeof(*threads));
	if (!threads)
		return cprof_error_nomem();
	options->threads = threads;
	threads[options->thread_count++] = argument;
	threads[options->thread_count] = NULL;
	return NULL;
}

/* One or several, and again: they add up. */
static struct cprof_error *set_events(struct cprof_options *options,
				      const struct cprof_option *option, const char *argument)
{
	const unsigned clocks = CPROF_KIND_CPU | CPROF_KIND_CYCLES;
	size_t length;

	for (const char *next = argument;; next += length + 1) {
		char word[16];

		length = strcspn(next, ",");
		snprintf(word, sizeof(word), "%.*s", (int)CPROF_MIN(length, sizeof(word)), next);
		if (!cprof_kind_find(word))
			return cprof_usage_error(
				options->verb,
				"--%s %.*s: there is no such kind yet (there are "
				"cpu, cycles, heap, mutex, block, threads, threadcreate)",
				option->name, (int)CPROF_MIN(length, 64u), next);
		options->kinds |= cprof_kind_find(word);
		if ((options->kinds & clocks) == clocks)
			return cprof_usage_error(options->verb,
						 "--%s: cpu and cycles are the same samples by two "
						 "clocks: one of them at a time",
						 option->name);
		if (!next[length])
			return NULL;
	}
}

static struct cprof_error *set_rate(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	size_t length;
	CPROF_AUTO_FREE char *text = cprof_read_file_at(
		AT_FDCWD, "/proc/sys/kernel/perf_event_max_sample_rate", 32, &length);
	uint64_t most = 100000; /* the kernel's default */

	if (text)
		text[strcspn(text, "\n")] = '\0';
	if (!text || !cprof_parse_number(text, 1, UINT_MAX, &most))
		most = 100000;
	if (!cprof_parse_number(argument, 1, most, &options->rate))
		return cprof_usage_error(
			options->verb,
			"--%s %s: not a rate from 1 to %llu (kernel.perf_event_max_sample_rate)",
			option->name, argument, (unsigned long long)most);
	return NULL;
}

static struct cprof_error *set_mutex_rate(struct cprof_options *options,
					  const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_number(argument, 1, CPROF_AGENT_LOCK_EVERY, &options->mutex_rate))
		return cprof_usage_error(options->verb, "--%s %s: not a number from 1 to %u",
					 option->name, argument, CPROF_AGENT_LOCK_EVERY);
	return NULL;
}

static struct cprof_error *set_block_rate(struct cprof_options *options,
					  const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_number(argument, 0, UINT_MAX, &options->block_rate))
		return cprof_usage_error(options->verb, "--%s %s: not a number", option->name,
					 argument);
	return NULL;
}

static struct cprof_error *set_rows(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_number(argument, 0, INT_MAX, &options->rows))
		return cprof_usage_error(options->verb, "--%s %s: not a number", option->name,
					 argument);
	return NULL;
}

static struct cprof_error *set_count(struct cprof_options *options,
				     const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_number(argument, 1, INT_MAX, &FIELD(uint64_t)))
		return cprof_usage_error(options->verb, "--%s %s: not a number from 1 up",
					 option->name, argument);
	return NULL;
}

static struct cprof_error *set_size(struct cprof_options *options,
				    const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_size(argument, &FIELD(uint64_t)) || !FIELD(uint64_t) ||
	    FIELD(uint64_t) > SIZE_LIMIT)
		return cprof_usage_error(options->verb,
					 "--%s %s: not a size from 1 to 1024T, like 512K or 64M",
					 option->name, argument);
	return NULL;
}

static struct cprof_error *set_heap_rate(struct cprof_options *options,
					 const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_size(argument, &FIELD(uint64_t)) || !FIELD(uint64_t) ||
	    FIELD(uint64_t) > HEAP_RATE_LIMIT)
		return cprof_usage_error(options->verb,
					 "--%s %s: not a number of bytes from 1 to 1G, like 512K",
					 option->name, argument);
	return NULL;
}

static struct cprof_error *set_geometry(struct cprof_options *options,
					const struct cprof_option *option, const char *argument)
{
	if (!cprof_parse_geometry(argument, &options->screen_columns, &options->screen_rows))
		return cprof_usage_error(options->verb,
					 "--%s %s: not a size from 1x1 to 1000x1000, like 100x30",
					 option->name, argument);
	return NULL;
}

static struct cprof_error *set_unwinder(struct cprof_options *options,
					const struct cprof_option *option, const char *argument)
{
	options->unwinder = cprof_unwinder_find(argument);
	if (!options->unwinder)
		return cprof_usage_error(options->verb, "--%s %s: there are cfi, fp, libunwind",
					 option->name, argument);
	return NULL;
}

#define TAKE      (CPROF_VERB_RECORD | CPROF_VERB_RUN)
#define SAMPLE    (TAKE | CPROF_VERB_NONE)
#define ATTACH    (TAKE | CPROF_VERB_THREADS)
#define SCREEN    (CPROF_VERB_NONE | CPROF_VERB_VIEW)
#define WORK      (ATTACH | SCREEN | CPROF_VERB_MEMTRACE | CPROF_VERB_REPORT)
#define EVERY     (WORK | CPROF_VERB_DETACH | CPROF_VERB_HELP)
#define AT(field) offsetof(struct cprof_options, field)

const struct cprof_option cprof_option_table[] = {
	{"pid", 'p', "PID",
	 CPROF_VERB_RECORD | CPROF_VERB_THREADS | CPROF_VERB_MEMTRACE | CPROF_VERB_DETACH,
	 "the process; a thread id stands for its process", set_pids, 0, NULL},
	{"pid", 'p', "PID", CPROF_VERB_NONE,
	 "the process to be watched; a thread id stands for its\nprocess", set_pids, 0, NULL},
	{"thread", 0, "TID|NAME", ATTACH | CPROF_VERB_NONE, "only this thread; repeatable",
	 set_thread, 0, NULL},
	{"event", 'e', "KIND[,KIND...]", CPROF_VERB_RECORD,
	 "cpu (default: CPU time), cycles (needs the hardware's\ncounters), heap and mutex (put an "
	 "agent into the process),\nblock (where threads wait), threads (one dump, at the\nend), "
	 "threadcreate (who creates threads); repeatable",
	 set_events, 0, NULL},
	{"event", 'e', "KIND[,KIND...]", CPROF_VERB_RUN,
	 "cpu (default: CPU time), cycles (needs the hardware's\ncounters), heap (what lives at "
	 "the "
	 "end has leaked),\nmutex (who makes whom wait), block (where threads wait),\n"
	 "threadcreate (who creates threads); repeatable",
	 set_events, 0, NULL},
	{"event", 'e', "KIND[,KIND...]", CPROF_VERB_NONE,
	 "what is begun at once beside CPU time: heap and mutex (put\nan agent into the process), "
	 "block; cycles instead of CPU time",
	 set_events, 0, NULL},
	{"duration", 'd', "TIME", CPROF_VERB_RECORD,
	 "10, 1.5, 500ms, 2m; default 30 s; 0 = until Ctrl-C or\nthe process's end", set_time,
	 AT(duration_ns), NULL},
	{"duration", 'd', "TIME", CPROF_VERB_RUN,
	 "10, 1.5, 500ms, 2m; default 0 = until the command ends;\nafterwards it runs on "
	 "unprofiled and is awaited",
	 set_time, AT(duration_ns), NULL},
	{"interval", 'i', "TIME", CPROF_VERB_MEMTRACE, "a line each time, default 1 s",
	 set_interval, AT(interval_ns), NULL},
	{"lines", 'n', "N", CPROF_VERB_MEMTRACE,
	 "so many lines; default: until Ctrl-C or the end of the\nprocess", set_count, AT(lines),
	 NULL},
	{"no-inject", 0, NULL, CPROF_VERB_MEMTRACE,
	 "put nothing into the process; volume and live size are\nthen unknown", set_flag,
	 AT(no_inject), NULL},
	{"leak-threads", 0, "N", CPROF_VERB_MEMTRACE,
	 "warn when there are more than N threads more than at\nfirst", set_count, AT(leak_threads),
	 NULL},
	{"leak-heap", 0, "SIZE", CPROF_VERB_MEMTRACE,
	 "warn when the live heap (with --no-inject: resident\nmemory) has grown by more, as 64M",
	 set_size, AT(leak_bytes), NULL},
	{"rate", 'F', "HZ", SAMPLE | CPROF_VERB_MEMTRACE,
	 "samples per second and thread, default 99", set_rate, 0, NULL},
	{"heap-rate", 0, "BYTES", SAMPLE | CPROF_VERB_MEMTRACE,
	 "mean bytes between heap samples, default 512K; 1 = every\nallocation", set_heap_rate,
	 AT(heap_rate), NULL},
	{"block-min", 0, "TIME", SAMPLE,
	 "count shorter waits by chance, and the more for it;\ndefault 0: all", set_time,
	 AT(block_min_ns), NULL},
	{"block-rate", 0, "N", SAMPLE,
	 "stacks per second of all waits, default 2000; the others\nare stood for; 0 = all",
	 set_block_rate, 0, NULL},
	{"mutex-rate", 0, "N", SAMPLE,
	 "time one in N waits for a lock, which then stands for N;\ndefault: as many as are cheap",
	 set_mutex_rate, 0, NULL},
	{"mutex-side", 0, "SIDE", SAMPLE,
	 "charge whoever unlocked while others waited: holder\n(default), or who waited: waiter",
	 set_choice, AT(mutex_side), sides},
	{"sampling", 0, "WAY", SAMPLE, "auto (default), cpu-wide (needs privilege) or per-thread",
	 set_choice, AT(way), ways},
	{"output", 'o', "FILE", TAKE,
	 "- = stdout; %e event, %p pid, %c command name, %t time,\n%n first free number; default "
	 "%c.%p.%e.%n.EXT",
	 set_text, AT(output), NULL},
	{"format", 'f', "FORMAT", TAKE, "pprof (default), folded, text, json", set_choice,
	 AT(format), formats},
	{"stats", 0, "FILE", ATTACH, "what the run did, as one JSON object", set_text, AT(stats),
	 NULL},
	{"snapshot-every", 0, "TIME", TAKE,
	 "write everything so far each time (use %n in -o);\nSIGUSR1 does so at once", set_interval,
	 AT(snapshot_ns), NULL},
	{"output", 'o', "FILE", CPROF_VERB_THREADS, "default: stdout, for pprof %c.%p.%e.%n.EXT",
	 set_text, AT(output), NULL},
	{"format", 'f', "FORMAT", CPROF_VERB_THREADS, "text (default), json, pprof, folded",
	 set_choice, AT(format), formats},
	{"json", 0, NULL, CPROF_VERB_THREADS, "the same as --format json", set_json, 0, NULL},
	{"all", 0, NULL, CPROF_VERB_THREADS, "every thread by itself: no grouping", set_flag,
	 AT(all), NULL},
	{"watch", 0, "TIME", CPROF_VERB_THREADS,
	 "two dumps that far apart; the second is shown, threads\nthat have not moved are marked",
	 set_interval, AT(watch_ns), NULL},
	{"unwinder", 0, "NAME", SAMPLE, "cfi (default), fp (frame pointers only), libunwind",
	 set_unwinder, 0, NULL},
	{"debug-dir", 0, "DIR", ATTACH | CPROF_VERB_NONE | CPROF_VERB_MEMTRACE,
	 "where separate debug files are, default /usr/lib/debug", set_text, AT(debug_dir), NULL},
	{"no-inlines", 0, NULL, ATTACH | CPROF_VERB_NONE, "leave inlined functions out", set_flag,
	 AT(no_inlines), NULL},
	{"no-lines", 0, NULL, ATTACH | CPROF_VERB_NONE, "leave source lines out", set_flag,
	 AT(no_lines), NULL},
	{"no-kernel", 0, NULL, SAMPLE, "leave kernel time and kernel frames out", set_flag,
	 AT(no_kernel), NULL},
	{"output", 'o', "FILE", CPROF_VERB_REPORT, "default: stdout", set_text, AT(output), NULL},
	{"format", 'f', "FORMAT", CPROF_VERB_REPORT, "text (default), json, folded, pprof",
	 set_choice, AT(format), formats},
	{"sample-index", 0, "TYPE", CPROF_VERB_REPORT | CPROF_VERB_VIEW,
	 "which value to show, by name; default: the file's default", set_text, AT(sample_index),
	 NULL},
	{"base", 0, "FILE", CPROF_VERB_REPORT | CPROF_VERB_VIEW,
	 "subtract this profile: what has come since", set_text, AT(base), NULL},
	{"source-path", 0, "DIRS", CPROF_VERB_REPORT | SCREEN,
	 "where source files are; ':' between directories", set_text, AT(source_path), NULL},
	{"cum", 0, NULL, CPROF_VERB_REPORT, "sort by cum instead of flat", set_flag, AT(cum), NULL},
	{"count", 'n', "N", CPROF_VERB_REPORT, "so many rows; 0 = all", set_rows, 0, NULL},
	{"focus", 0, "REGEX", CPROF_VERB_REPORT | SCREEN, "only stacks with a matching name",
	 set_text, AT(focus), NULL},
	{"ignore", 0, "REGEX", CPROF_VERB_REPORT, "no stacks with a matching name", set_text,
	 AT(ignore), NULL},
	{"by", 0, "WHAT", CPROF_VERB_REPORT, "function (default), line, address", set_choice,
	 AT(by), bys},
	{"refresh", 0, "TIME", CPROF_VERB_NONE, "between pictures, default 1 s", set_interval,
	 AT(refresh_ns), NULL},
	{"headless", 0, "COLSxROWS", SCREEN,
	 "no terminal: the last picture is printed, of that size", set_geometry, 0, NULL},
	{"keys", 0, "KEYS", SCREEN,
	 "headless: to be pressed, each when the one before has been\nanswered; \\n \\e \\t, "
	 "\\u \\d \\l \\r for arrows",
	 set_keys, AT(keys), NULL},
	{"frames", 0, "N", SCREEN, "headless: so many refreshes after the keys", set_count,
	 AT(frames), NULL},
	{"color", 0, "WHEN", WORK, "auto (default), always, never", set_choice, AT(color), colors},
	{"check", 0, NULL, CPROF_VERB_DETACH,
	 "only tell: exit status 0 if nothing is left, 1 if there\nis something", set_flag,
	 AT(check), NULL},
	{"quiet", 'q', NULL, WORK | CPROF_VERB_DETACH, "errors only", set_flag, AT(quiet), NULL},
	{"verbose", 'v', NULL, WORK | CPROF_VERB_DETACH, "tell more", set_flag, AT(verbose), NULL},
	{"help", 'h', NULL, EVERY, "this help", set_flag, AT(help), NULL},
	{"version", 'V', NULL, EVERY, "the version", set_flag, AT(version), NULL},
	{NULL, 0, NULL, 0, NULL, NULL, 0, NULL},
};

const struct cprof_verb cprof_verb_table[] = {
	{"record", CPROF_VERB_RECORD, "-p PID [OPTION]...",
	 "take a profile of a running process to a file", NULL, cprof_verb_record},
	{"run", CPROF_VERB_RUN, "[OPTION]... -- COMMAND [ARGUMENT]...",
	 "take a profile of a command, from its first instruction",
	 "The exit status is the command's, 128 + signal if a signal ended it. A command whose "
	 "heap\n"
	 "cannot be profiled is not run, unless other kinds are asked for too.\n",
	 cprof_verb_run},
	{"threads", CPROF_VERB_THREADS, "-p PID [OPTION]...",
	 "what every thread does and waits for, and who is deadlocked",
	 "All threads are held together for some milliseconds while their stacks are copied.\n",
	 cprof_verb_threads},
	{"dump", CPROF_VERB_THREADS, "-p PID [OPTION]...", "the same as threads", NULL,
	 cprof_verb_threads},
	{"memtrace", CPROF_VERB_MEMTRACE,
	 "-p PID [OPTION]...\n       cprof-attach memtrace [OPTION]... -- COMMAND [ARGUMENT]...",
	 "a line a second about a process's memory and what it costs",
	 "The line: number, seconds, the allocator's share of CPU time since the attach, length;\n"
	 "CPU in malloc + free / the kernel's work for memory; allocated - freed, live at start "
	 "->\n"
	 "peak -> end; resident; limit; fragmentation; threads; CPUs. `?` is unknown, `-` none.\n",
	 cprof_verb_memtrace},
	{"detach", CPROF_VERB_DETACH, "-p PID [--check]",
	 "remove what a killed profiler left in a process", NULL, cprof_verb_detach},
	{"report", CPROF_VERB_REPORT, "[VIEW] FILE [OPTION]...",
	 "read a profile file, ours or any in pprof format",
	 "views:\n  top         the table of `pprof -top` (default)\n"
	 "  tree        functions with their callers and callees\n"
	 "  peek REGEX  those that match\n"
	 "  list REGEX  source lines of the functions that match, with their cost\n"
	 "  traces      every stack with its labels\n"
	 "  folded      one line a stack: root;...;leaf VALUE\n"
	 "  locks       of a mutex profile: the locks by how long was waited for them, who\n"
	 "              held them, who waited; --focus and --ignore go by their names\n",
	 cprof_verb_report},
	{"view", CPROF_VERB_VIEW, "FILE [OPTION]...", "the live view's screens on a saved profile",
	 "Keys: ? lists them, q leaves.\n", cprof_verb_view},
	{"help", CPROF_VERB_HELP, "[VERB]", "help on a verb", NULL, cprof_verb_help},
	{NULL, CPROF_VERB_NONE, "-p PID [OPTION]...\n       cprof-attach VERB [OPTION]...",
	 "profiles of running native processes, in pprof format",
	 "exit status: 0 done, 1 failed, 2 usage, 3 not permitted or not supported, 4 no such "
	 "process\n",
	 cprof_verb_none},
};

struct cprof_error *cprof_usage_error(const struct cprof_verb *verb, const char *format, ...)
{
	char message[512], remedy[64];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	snprintf(remedy, sizeof(remedy), "see cprof-attach help%s%s", verb && verb->name ? " " : "",
		 verb && verb->name ? verb->name : "");
	return cprof_error_create(CPROF_USAGE, remedy, "%s", message);
}

static const struct cprof_option *find_option(unsigned verb, int letter_or_index)
{
	if (letter_or_index > UCHAR_MAX)
		return &cprof_option_table[letter_or_index - UCHAR_MAX - 1];
	for (const struct cprof_option *option = cprof_option_table; option->name; option++)
		if (option->verbs & verb && option->letter == letter_or_index)
			return option;
	return NULL;
}

#define OPTIONS_MAX 64

/* What getopt_long() wants, for one verb: long options return UCHAR_MAX + 1 + their row. */
static void describe(unsigned verb, struct option *longs, char *shorts)
{
	*shorts++ = '+'; /* stop at the first argument that is none: `run` needs it */
	*shorts++ = ':'; /* tell a missing argument from an unknown option */
	for (int i = 0; cprof_option_table[i].name; i++) {
		const struct cprof_option *option = &cprof_option_table[i];

		if (!(option->verbs & verb))
			continue;
		*longs++ = (struct option){option->name, option->argument != NULL, NULL,
					   UCHAR_MAX + 1 + i};
		if (option->letter)
			*shorts++ = option->letter;
		if (option->letter && option->argument)
			*shorts++ = ':';
	}
	*longs = (struct option){0};
	*shorts = '\0';
}

static struct cprof_error *parse_error(const struct cprof_options *options, int result, char **argv)
{
	char letter[3] = {'-', (char)optopt, '\0'};
	const char *what = optopt && optopt <= UCHAR_MAX ? letter : argv[optind - 1];

	if (result == ':')
		return cprof_usage_error(options->verb, "%s: a value is missing", what);
	if (optopt > UCHAR_MAX)
		return cprof_usage_error(options->verb, "%s: takes no value", what);
	return cprof_usage_error(options->verb, "%s: there is no such option%s%s", what,
				 options->verb->name ? " for " : "",
				 options->verb->name ? options->verb->name : "");
}

/* Reads the options of argv from `optind` on and collects everything else. For `run` the first
 * other argument ends the options: the rest is the command. The same for `memtrace`. */
static struct cprof_error *parse_words(int argc, char **argv, struct cprof_options *options)
{
	struct option longs[OPTIONS_MAX];
	char shorts[3 * OPTIONS_MAX];

	describe(options->verb->bit, longs, shorts);
	while (optind < argc) {
		int first = optind, result = getopt_long(argc, argv, shorts, longs, NULL);
		const struct cprof_option *option;

		if (result == -1) {
			bool rest = options->verb->bit == CPROF_VERB_RUN ||
				    options->verb->bit == CPROF_VERB_MEMTRACE ||
				    (optind > first && !strcmp(argv[optind - 1], "--"));

			do
				if (optind < argc)
					options->arguments[options->argument_count++] =
						argv[optind++];
			while (rest && optind < argc);
			continue;
		}
		option = result == ':' || result == '?' ? NULL
							: find_option(options->verb->bit, result);
		if (!option)
			return parse_error(options, result, argv);
		CPROF_TRY(option->set(options, option, optarg));
	}
	return NULL;
}

struct cprof_error *cprof_options_init(int argc, char **argv, struct cprof_options *options)
{
	const struct cprof_verb *verb = cprof_verb_table;
	char verbs[128];

	*options = (struct cprof_options){.rate = 99,
					  .block_rate = CPROF_BLOCK_RATE_DEFAULT,
					  .duration_ns = CPROF_DURATION_DEFAULT,
					  .rows = UINT64_MAX,
					  .format = -1};
	opterr = 0;
	optind = 0; /* glibc: start anew */
	options->arguments = calloc((size_t)argc + 1, sizeof(*options->arguments));
	if (!options->arguments)
		return cprof_error_nomem();
	while (verb->name && (argc < 2 || strcmp(argv[1], verb->name)))
		verb++;
	options->verb = verb;
	if (verb->name) /* the verb takes the place of the program's name */
		return parse_words(argc - 1, argv + 1, options);
	if (argc > 1 && argv[1][0] != '-') {
		cprof_help_verbs(verbs, sizeof(verbs));
		return cprof_usage_error(NULL, "%s: there is no such verb (there are %s)", argv[1],
					 verbs);
	}
	return parse_words(argc, argv, options);
}

void cprof_options_deinit(struct cprof_options *options)
{
	free(options->arguments);
	free(options->threads);
}

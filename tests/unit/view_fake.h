/* SPDX-License-Identifier: MIT
 *
 * A live source that is made up: after its third look nothing changes any more, so that every
 * screen is the same each time.
 */
#ifndef CPROF_TEST_VIEW_FAKE_H
#define CPROF_TEST_VIEW_FAKE_H

#include <cprof/memtrace.h>
#include <cprof/source.h>
#include <cprof/threads.h>
#include <cprof/util.h>
#include <cprof/view.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define FAKE_LOOKS 3

struct fake {
	struct cprof_source base;
	unsigned looks;
	bool heap;
	bool mutex;
	bool refuse;  /* begin() fails */
	bool hostile; /* names that want to do harm */
	bool empty;   /* no samples at all */
	bool ended;
	bool destroyed;
	unsigned windows; /* calls of window() */
	uint64_t window_ns;
	unsigned dumps;
};

static inline uint32_t fake_function(struct cprof_profile *p, const char *name, const char *file)
{
	return cprof_profile_function(p, &(struct cprof_profile_function){
						 .name = cprof_profile_string(p, name),
						 .system_name = cprof_profile_string(p, name),
						 .file = cprof_profile_string(p, file),
						 .start_line = 3,
					 });
}

static inline uint32_t fake_frame(struct cprof_profile *p, uint32_t mapping, uint64_t address,
				  const char *name, int64_t line)
{
	const struct cprof_profile_line lines = {fake_function(p, name, "/src/shop.cc"), line};

	return cprof_profile_location_with(p, mapping, address, &lines, 1, false);
}

static inline uint32_t fake_labels(struct cprof_profile *p, const char *thread, int64_t tid)
{
	const struct cprof_profile_label labels[] = {
		{.key = cprof_profile_string(p, "thread"), .text = cprof_profile_string(p, thread)},
		{.key = cprof_profile_string(p, "tid"), .number = tid},
	};

	return cprof_profile_labels(p, labels, CPROF_COUNT(labels));
}

/* Values of the four stacks: their scale, by type. */
static inline void fake_values(size_t width, int64_t n, const int64_t *scale, int64_t *values)
{
	for (size_t i = 0; i < width; i++)
		values[i] = n * scale[i];
}

struct fake_names {
	const char *work;
	const char *render;
	const char *thread;
};

static inline struct cprof_profile *fake_profile(const char *kind, const struct fake_names *names,
						 bool empty)
{
	static const int64_t cpu[] = {1, 10101010}, heap[] = {2, 1 << 20, 1, 512 << 10};
	static const int64_t waits[] = {3, 120000000};
	bool is_heap = !strcmp(kind, "heap"), is_cpu = !strcmp(kind, "cpu");
	const int64_t *scale = is_heap ? heap : is_cpu ? cpu : waits;
	struct cprof_profile *p;
	uint32_t start, main_frame, work, render, copy, north, south, stacks[4];
	struct cprof_profile_line lines[2];
	int64_t values[4];

	assert_null(cprof_profile_create(&p));
	if (is_heap) {
		cprof_profile_add_type(p, "alloc_objects", "count");
		cprof_profile_add_type(p, "alloc_space", "bytes");
		cprof_profile_add_type(p, "inuse_objects", "count");
		cprof_profile_add_type(p, "inuse_space", "bytes");
		p->default_type = cprof_profile_string(p, "inuse_space");
	} else {
		cprof_profile_add_type(p, is_cpu ? "samples" : "contentions", "count");
		cprof_profile_add_type(p, is_cpu ? "cpu" : "delay", "nanoseconds");
	}
	cprof_profile_mapping(p, &(struct cprof_profile_mapping){
					 .file = cprof_profile_string(p, "/usr/bin/shopd")});
	cprof_profile_mapping(p, &(struct cprof_profile_mapping){
					 .start = 0x7000,
					 .limit = 0x8000,
					 .file = cprof_profile_string(p, "/lib/libc.so.6")});
	p->time_ns = 1700000000ll * 1000000000;
	p->duration_ns = 10ll * 1000000000;
	start = fake_frame(p, 2, 0x7100, "start_thread", 442);
	main_frame = fake_frame(p, 1, 0x100, "shop::serve(shop::Queue&)", 5);
	work = fake_frame(p, 1, 0x200, names->work, 7);
	render = fake_frame(p, 1, 0x300, names->render, 9);
	lines[0] = (struct cprof_profile_line){fake_function(p, "copy_bytes", "/src/shop.cc"), 4};
	lines[1] = (struct cprof_profile_line){fake_function(p, names->render, "/src/shop.cc"), 10};
	copy = cprof_profile_location_with(p, 1, 0x310, lines, 2, false);
	north = fake_labels(p, names->thread, 812);
	south = fake_labels(p, "worker-south", 813);
	stacks[0] = cprof_profile_stack(p, (uint32_t[]){copy, main_frame, start}, 3);
	stacks[1] = cprof_profile_stack(p, (uint32_t[]){work, work, main_frame, start}, 4);
	stacks[2] = cprof_profile_stack(p, (uint32_t[]){render, main_frame, start}, 3);
	stacks[3] = cprof_profile_stack(p, (uint32_t[]){main_frame, start}, 2);
	for (int i = 0; i < 4 && !empty; i++) {
		static const int64_t counts[] = {40, 25, 10, 3};

		fake_values(p->type_count, counts[i], scale, values);
		cprof_profile_add(p, stacks[i], i & 1 ? south : north, values);
	}
	return p;
}

static inline struct fake_names fake_names(const struct fake *fake)
{
	if (fake->hostile)
		return (struct fake_names){
			"work\033[2J\033]0;owned\007\xff\xc2\x9b",
			"\xe2\x80\xaegnihtemos \xe4\xbd\xa0\xe5\xa5\xbd e\xcc\x81",
			"north\033[31m\n\t"};
	return (struct fake_names){
		"shop::Index<std::pair<unsigned int, std::string> >::insert(unsigned int)",
		"shop::render(shop::Order const&)", "worker-north"};
}

static struct cprof_error *fake_snapshot(struct cprof_source *source, const char *kind,
					 struct cprof_profile **profile)
{
	const struct fake *fake = (struct fake *)source;
	struct fake_names names = fake_names(fake);

	*profile = fake_profile(kind ? kind : "cpu", &names, fake->empty);
	return NULL;
}

static struct cprof_error *fake_window(struct cprof_source *source, const char *kind,
				       uint64_t window_ns, bool unnamed,
				       struct cprof_profile **profile)
{
	struct fake *fake = (struct fake *)source;

	(void)unnamed;
	fake->windows++;
	fake->window_ns = window_ns;
	return fake_snapshot(source, kind, profile);
}

static bool fake_live(struct cprof_source *source)
{
	return ((struct fake *)source)->looks < FAKE_LOOKS;
}

static void fake_kind(struct cprof_source *source, const char *kind,
		      struct cprof_source_kind *result)
{
	const struct fake *fake = (struct fake *)source;

	*result = (struct cprof_source_kind){.state = CPROF_SOURCE_ON};
	if ((!strcmp(kind, "heap") && !fake->heap) || (!strcmp(kind, "mutex") && !fake->mutex)) {
		result->state = CPROF_SOURCE_OFF;
		if (fake->refuse)
			strcpy(result->detail, "could not be started: it is traced by 77");
	} else if (!strcmp(kind, "heap")) {
		strcpy(result->detail, "5 modules covered; libodd.so allocates by other means");
	}
}

static struct cprof_error *fake_begin(struct cprof_source *source, const char *kind)
{
	struct fake *fake = (struct fake *)source;

	if (fake->refuse)
		return cprof_error_create(CPROF_DENIED, "end that one first",
					  "process 812: it is traced by 77");
	*(!strcmp(kind, "heap") ? &fake->heap : &fake->mutex) = true;
	return NULL;
}

static void fake_figures(struct cprof_source *source, struct cprof_source_figures *figures)
{
	struct fake *fake = (struct fake *)source;

	fake->looks++;
	*figures = (struct cprof_source_figures){
		.pid = 812,
		.comm = "shopd",
		.cmdline = "/usr/bin/shopd --port 8080",
		.uptime_ns = 3723ull * 1000000000,
		.elapsed_ns = 10ull * 1000000000,
		.threads = 3,
		.cpu = 1.52,
		.rss_bytes = 195ull << 20,
		.live_bytes = fake->heap ? 64 << 20 : -1,
		.live_objects = -1,
		.rate = 99,
		.samples = 12345,
		.complete = 0.9987,
		.own_cpu = 0.006,
		.own_rss_bytes = 24ull << 20,
		.ended = fake->ended,
	};
	if (fake->ended)
		strcpy(figures->ended_how, "killed by signal 9");
}

static struct cprof_error *fake_threads(struct cprof_source *source,
					struct cprof_source_threads **threads)
{
	static const struct cprof_source_thread three[] = {
		{811, "shopd", 'S', 0, 31000000, "join", "for \"worker-north\" 812", "futex"},
		{812, "worker-north", 'R', 0.97, 65000000000, "none", "",
		 "shop::render(shop::Order const&)"},
		{813, "worker-south", 'S', 0.55, 5100000000, "mutex",
		 "queue_lock in shopd, held by \"worker-north\" 812", "shop::Queue::pop()"},
	};
	struct cprof_source_threads *made = calloc(1, sizeof(*made));

	(void)source;
	assert_non_null(made);
	made->threads = malloc(sizeof(three));
	assert_non_null(made->threads);
	memcpy(made->threads, three, sizeof(three));
	made->count = CPROF_COUNT(three);
	strcpy(made->deadlock, "2 threads wait for one another: 812 -> 813 -> 812");
	*threads = made;
	return NULL;
}

static struct cprof_error *fake_dump(struct cprof_source *source, pid_t tid,
				     struct cprof_dump **dump)
{
	static struct cprof_dump_frame frames[] = {
		{0x204, "pop", 0, "/usr/bin/shopd", "/src/queue.cc", 31, true},
		{0x204, "shop::Queue::take()", 0x14, "/usr/bin/shopd", "/src/queue.cc", 44, false},
		{0x104, "shop::serve(shop::Queue&)", 0x8, "/usr/bin/shopd", NULL, 0, false},
		{0x7104, NULL, 0, "/lib/libc.so.6", NULL, 0, false},
	};
	static struct cprof_dump_thread thread;
	struct cprof_dump *made = calloc(1, sizeof(*made));

	assert_non_null(made);
	((struct fake *)source)->dumps++;
	if (((struct fake *)source)->ended) {
		free(made);
		return cprof_error_create(CPROF_NO_PROCESS, NULL, "pid 812: no maps");
	}
	thread = (struct cprof_dump_thread){
		.tid = tid ? tid : 813,
		.name = "worker-south",
		.state = 'S',
		.held = true,
		.wait = {.kind = CPROF_WAIT_MUTEX,
			 .owner = 812,
			 .detail = (char *)"queue_lock in shopd"},
		.frames = frames,
		.frame_count = CPROF_COUNT(frames),
		.end = CPROF_END_NO_CFI,
	};
	*made = (struct cprof_dump){.pid = 812,
				    .comm = "shopd",
				    .cmdline = (char *)"shopd",
				    .stopped_ns = 1500000,
				    .threads = &thread,
				    .count = 1,
				    .memory = calloc(1, 256)};
	*dump = made;
	return NULL;
}

static void fake_memtrace(struct cprof_source *source, uint64_t from,
			  struct cprof_memtrace_line *lines, size_t most, size_t *count)
{
	(void)source;
	*count = 0;
	for (uint64_t number = from; number <= 30 && *count < most; number++)
		lines[(*count)++] = (struct cprof_memtrace_line){
			.number = number,
			.since_attach_ns = number * 1000000000,
			.clock_ns = 1000000000,
			.injected = true,
			.allocated_bytes = 240 << 20,
			.freed_bytes = 238 << 20,
			.live_start_bytes = 118 << 20,
			.live_peak_bytes = 131 << 20,
			.live_end_bytes = 120 << 20,
			.process = {.rss_bytes = 186 << 20,
				    .limit_bytes = UINT64_MAX,
				    .threads = 3,
				    .cpus = 2},
		};
}

static int fake_open(struct cprof_source *source, const char *path)
{
	static const char text[] = "// the shop\n\n"
				   "static void copy_bytes(char *to)\n"
				   "{\n"
				   "\tserve();\n"
				   "\n"
				   "\twork(\"\033[2J\");\n"
				   "\n"
				   "\trender();\n"
				   "\trender();\n"
				   "}\n";
	int fd;

	(void)source;
	if (strcmp(path, "/src/shop.cc") != 0) {
		errno = ENOENT;
		return -1;
	}
	fd = memfd_create("shop.cc", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void fake_destroy(struct cprof_source *source)
{
	((struct fake *)source)->destroyed = true;
}

static const struct cprof_source_ops fake_ops = {
	.snapshot = fake_snapshot,
	.window = fake_window,
	.live = fake_live,
	.kind = fake_kind,
	.begin = fake_begin,
	.figures = fake_figures,
	.threads = fake_threads,
	.dump = fake_dump,
	.memtrace = fake_memtrace,
	.open = fake_open,
	.destroy = fake_destroy,
};

static inline struct fake fake_source(void)
{
	return (struct fake){.base.ops = &fake_ops};
}

/* The last picture after the keys; the caller frees. */
static inline char *fake_picture(struct cprof_source *source, const char *file, int columns,
				 int rows, const char *keys)
{
	struct cprof_view_config config = {
		.file = file,
		.refresh_ns = 1000000,
		.rows = rows,
		.columns = columns,
		.keys = keys,
	};
	struct cprof_error *error;
	char *text = NULL;
	size_t length;

	config.out = open_memstream(&text, &length);
	assert_non_null(config.out);
	error = cprof_view_run(source, &config);
	if (error)
		print_error("%s\n", error->message);
	assert_null(error);
	assert_int_equal(fclose(config.out), 0);
	return text;
}

#endif

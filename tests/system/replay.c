/* SPDX-License-Identifier: MIT
 *
 * replay PID SAMPLES [RATE [SECONDS]]: takes samples of a running process, for 60 s at most,
 * unwinds every one with two backends and compares them frame by frame (libunwind is the judge),
 * then replays them all to time a warm sample: unwinding, interning, naming. Prints one JSON
 * object.
 */
#include <cprof/perf.h>
#include <cprof/profile.h>
#include <cprof/space.h>
#include <cprof/unwind.h>
#include <cprof/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS     200
#define KEEP_BYTES (64u << 20)

struct capture {
	struct cprof_regs regs;
	uint8_t *stack;
	size_t length;
	uint64_t start;
};

struct replay {
	struct cprof_space *space;
	struct cprof_unwinder *mine;
	struct cprof_unwinder *judge;
	struct capture *captures;
	size_t count;
	size_t capacity;
	size_t kept_bytes;
	size_t stacks;
	size_t ends[CPROF_ENDS];
	size_t judge_complete;
	size_t frames; /* of stacks that both completed */
	size_t equal;
	size_t different_stacks;
	bool verbose;
};

static void report_difference(const struct cprof_stack *mine, const struct cprof_stack *judge)
{
	fprintf(stderr, "different: mine %zu %s, judge %zu %s\n", mine->count,
		cprof_end_name(mine->end), judge->count, cprof_end_name(judge->end));
	for (size_t i = 0; i < CPROF_MAX(mine->count, judge->count); i++) {
		const struct cprof_frame *a = i < mine->count ? &mine->frames[i] : NULL;
		const struct cprof_frame *b = i < judge->count ? &judge->frames[i] : NULL;

		fprintf(stderr, "  %2zu %16llx %16llx %s\n", i, a ? (long long)a->pc : 0LL,
			b ? (long long)b->pc : 0LL, a && a->region ? a->region->path : "-");
	}
}

static void compare(struct replay *replay, const struct cprof_regs *regs,
		    const struct cprof_memory *memory)
{
	static struct cprof_frame mine_frames[CPROF_FRAMES_SAMPLE];
	static struct cprof_frame judge_frames[CPROF_FRAMES_SAMPLE];
	struct cprof_stack mine = {.frames = mine_frames, .capacity = CPROF_FRAMES_SAMPLE};
	struct cprof_stack judge = {.frames = judge_frames, .capacity = CPROF_FRAMES_SAMPLE};
	struct capture *capture;
	size_t same = 0;

	replay->mine->ops->unwind(replay->mine, regs, memory, &mine);
	replay->judge->ops->unwind(replay->judge, regs, memory, &judge);
	replay->stacks++;
	replay->ends[mine.end]++;
	replay->judge_complete += judge.end == CPROF_END_COMPLETE;
	if (judge.end == CPROF_END_COMPLETE) {
		while (same < mine.count && same < judge.count &&
		       mine_frames[same].pc == judge_frames[same].pc)
			same++;
		replay->frames += judge.count;
		replay->equal += same;
		if (same != judge.count || mine.count != judge.count) {
			replay->different_stacks++;
			if (replay->verbose)
				report_difference(&mine, &judge);
		}
	} else if (replay->verbose && mine.end != CPROF_END_COMPLETE) {
		report_difference(&mine, &judge);
	}
	if (mine.end != CPROF_END_COMPLETE || replay->kept_bytes > KEEP_BYTES ||
	    !cprof_grow(&replay->captures, &replay->capacity, replay->count + 1, sizeof(*capture)))
		return;
	capture = &replay->captures[replay->count++];
	capture->regs = *regs;
	capture->start = memory->stack_start;
	capture->length = CPROF_MIN(memory->stack_length, mine.top - memory->stack_start + 256);
	capture->stack = malloc(capture->length + 1);
	memcpy(capture->stack, memory->stack, capture->length);
	replay->kept_bytes += capture->length;
}

static void on_record(void *context, const struct cprof_perf_record *record)
{
	struct replay *replay = context;
	const struct cprof_perf_sample *sample = &record->sample;
	struct cprof_regs regs = {.known = (1u << CPROF_REGISTERS) - 1};
	struct cprof_memory memory;

	if (record->type == CPROF_PERF_MMAP) {
		cprof_error_destroy(cprof_space_map(replay->space, &record->mmap.mapping));
		replay->judge->ops->flush(replay->judge);
	}
	if (record->type != CPROF_PERF_SAMPLE || !sample->has_user)
		return;
	memcpy(regs.value, sample->regs, sizeof(regs.value));
	memory = (struct cprof_memory){.stack = sample->stack,
				       .stack_start = sample->regs[CPROF_REG_SP],
				       .stack_length = sample->stack_length};
	compare(replay, &regs, &memory);
}

/* One warm sample: unwind, intern, and look every frame's name up. */
static uint64_t replay_one(struct replay *replay, const struct capture *capture,
			   struct cprof_profile *profile, size_t *named, size_t *frames)
{
	static struct cprof_frame room[CPROF_FRAMES_SAMPLE];
	struct cprof_stack stack = {.frames = room, .capacity = CPROF_FRAMES_SAMPLE};
	struct cprof_memory memory = {.stack = capture->stack,
				      .stack_start = capture->start,
				      .stack_length = capture->length};
	uint32_t locations[CPROF_FRAMES_SAMPLE];
	int64_t value = 1;

	replay->mine->ops->unwind(replay->mine, &capture->regs, &memory, &stack);
	for (size_t i = 0; i < stack.count; i++) {
		locations[i] = cprof_profile_location(profile, 0, cprof_frame_lookup_pc(&room[i]));
		*named += profile->locations[locations[i]].line_count > 0;
	}
	*frames += stack.count;
	cprof_profile_add(profile, cprof_profile_stack(profile, locations, stack.count), 0, &value);
	return stack.count;
}

/* Gives every location its names, once. */
static void name_all(struct replay *replay, struct cprof_profile *profile)
{
	for (uint32_t i = 1; i < profile->location_count; i++) {
		uint64_t pc = profile->locations[i].address;
		const struct cprof_region *region = cprof_space_find(replay->space, pc);
		struct cprof_profile_line line = {.line = 1};
		struct cprof_names names;
		uint64_t address;

		if (!region || !region->module)
			continue;
		address = pc - region->bias;
		if (cprof_module_names(region->module, &address, 1, CPROF_NAMES_NO_INLINES, &names))
			continue;
		if (names.count) {
			struct cprof_profile_function function = {
				.name = cprof_profile_string(profile,
							     names.strings + names.names[0].name)};

			line.function = cprof_profile_function(profile, &function);
			cprof_profile_set_lines(profile, i, &line, 1);
		}
		cprof_names_deinit(&names);
	}
}

static void time_replay(struct replay *replay)
{
	struct cprof_profile *profile;
	size_t named = 0;
	size_t frames = 0;
	uint64_t before;
	uint64_t best = UINT64_MAX;

	if (!replay->count || cprof_profile_create(&profile))
		return;
	cprof_profile_add_type(profile, "samples", "count");
	for (size_t i = 0; i < replay->count; i++)
		replay_one(replay, &replay->captures[i], profile, &named, &frames);
	name_all(replay, profile);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t took;

		named = frames = 0;
		before = cprof_thread_cpu_ns();
		for (size_t i = 0; i < replay->count; i++)
			replay_one(replay, &replay->captures[i], profile, &named, &frames);
		took = cprof_thread_cpu_ns() - before;
		best = CPROF_MIN(best, took);
		if (round > 10 && (uint64_t)round * took > 5000000000ull)
			break;
	}
	printf("\"warm_frame_ns\":%.1f,\"warm_sample_ns\":%.0f,\"frames_per_sample\":%.1f,"
	       "\"named\":%.4f,",
	       (double)best / (double)frames, (double)best / (double)replay->count,
	       (double)frames / (double)replay->count, (double)named / (double)frames);
	cprof_profile_destroy(profile);
}

static void fail(struct cprof_error *error)
{
	if (!error)
		return;
	cprof_error_print(error, stderr);
	exit(error->status);
}

int main(int argc, char **argv)
{
	struct cprof_perf_config config = {.rate = 999, .user_stack = true};
	struct replay replay = {.verbose = getenv("VERBOSE") != NULL};
	struct cprof_modules *modules;
	struct cprof_target *target;
	struct cprof_perf *perf;
	uint64_t seconds = argc > 4 ? strtoul(argv[4], NULL, 10) : 60;
	uint64_t deadline;
	size_t wanted;

	if (argc < 3)
		return 2;
	wanted = strtoul(argv[2], NULL, 10);
	if (argc > 3)
		config.rate = (unsigned)strtoul(argv[3], NULL, 10);
	fail(cprof_target_create(atoi(argv[1]), &target));
	fail(cprof_modules_create(NULL, &modules));
	fail(cprof_space_create(target, modules, &replay.space));
	fail(cprof_unwinder_cfi.create(replay.space, &replay.mine));
	fail(cprof_unwinder_libunwind.create(replay.space, &replay.judge));
	fail(cprof_perf_create(target, &config, &perf));
	fail(cprof_perf_enable(perf));
	fail(cprof_space_refresh(replay.space));
	deadline = cprof_now_ns() + seconds * 1000000000u;
	while (replay.stacks < wanted && cprof_now_ns() < deadline && cprof_target_alive(target)) {
		usleep(20000);
		cprof_perf_drain(perf, false, on_record, &replay);
	}
	cprof_perf_disable(perf);
	cprof_perf_drain(perf, true, on_record, &replay);
	printf("{");
	time_replay(&replay);
	printf("\"stacks\":%zu,\"complete\":%zu,\"truncated\":%zu,\"no_cfi\":%zu,\"corrupt\":%zu,"
	       "\"judge_complete\":%zu,\"frames\":%zu,\"equal\":%zu,\"different_stacks\":%zu}\n",
	       replay.stacks, replay.ends[0], replay.ends[1], replay.ends[2], replay.ends[3],
	       replay.judge_complete, replay.frames, replay.equal, replay.different_stacks);
	cprof_perf_destroy(perf);
	replay.mine->ops->destroy(replay.mine);
	replay.judge->ops->destroy(replay.judge);
	cprof_space_destroy(replay.space);
	cprof_modules_destroy(modules);
	cprof_target_destroy(target);
	for (size_t i = 0; i < replay.count; i++)
		free(replay.captures[i].stack);
	free(replay.captures);
	return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Sampling without privilege, what refusals say, and pid namespaces.
 */
#include "perf_live.h"

#define NOBODY 65534

/* In a child: what `body` returns becomes the exit status. */
static int in_child(int (*body)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(body());
	assert_true(pid > 0);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t target_pid;

static int profile_unprivileged(void)
{
	static const struct rlimit small = {4096, 4096};
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;
	double expected;
	double seen;

	setrlimit(RLIMIT_MEMLOCK, &small);
	if (setgid(NOBODY) || setuid(NOBODY))
		return 2;
	memset(&tally, 0, sizeof(tally));
	run = run_of(CPROF_PERF_AUTO);
	profile(target_pid);
	expected = (double)run.cpu / (double)run.stats.period;
	print_message("unprivileged: rings of %zu bytes, counted %lu of %lu ms\n",
		      run.stats.ring_bytes, run.stats.counted / 1000000, run.cpu / 1000000);
	if (run.stats.way != CPROF_PERF_PER_THREAD || !run.refused || tally.foreign)
		return 3;
	/* User time only, where kernel time is not permitted. The ring holds but eight dumps: on a
	 * busy machine some are lost, and told. */
	seen = (double)(tally.samples + run.stats.lost);
	if (seen < expected * 0.8 || seen > expected * 1.1)
		return 4;
	if (run.stats.stack_bytes > run.stats.ring_bytes / 8)
		return 5;
	ok(cprof_target_create(target_pid, &target));
	run.config.way = CPROF_PERF_CPU_WIDE;
	error = cprof_perf_create(target, &run.config, &perf);
	cprof_target_destroy(target);
	if (!error)
		return 6;
	print_message("%s (%s)\n", error->message, error->remedy);
	if (error->status != CPROF_DENIED || !error->remedy || !error->errnum)
		return 7;
	cprof_error_destroy(error);
	return 0;
}

static void an_unprivileged_user_samples_his_own(void **state)
{
	(void)state;
	target_pid = spawn(child_busy, NOBODY);
	assert_int_equal(in_child(profile_unprivileged), 0);
	end(target_pid);
}

static void refusals_name_the_rule(void **state)
{
	pid_t pid = spawn(child_busy, 0);
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;

	(void)state;
	ok(cprof_target_create(pid, &target));
	run = run_of(CPROF_PERF_AUTO);
	run.config.rate = 2000000000;
	error = cprof_perf_create(target, &run.config, &perf);
	assert_non_null(error);
	assert_int_equal(error->status, CPROF_DENIED);
	assert_non_null(strstr(error->message, "perf_event_max_sample_rate is "));
	cprof_error_destroy(error);

	run.config.rate = 99;
	run.config.clock = CPROF_PERF_CYCLES;
	error = cprof_perf_create(target, &run.config, &perf);
	if (error) { /* a machine without counters */
		assert_int_equal(error->status, CPROF_DENIED);
		assert_non_null(strstr(error->message, "no hardware counters here"));
		assert_string_equal(error->remedy, "use -e cpu");
		cprof_error_destroy(error);
	} else {
		cprof_perf_destroy(perf);
	}
	cprof_target_destroy(target);
	end(pid);
}

/* With so few descriptors the per-thread way says how many it needs. */
static int few_descriptors(void)
{
	static const struct rlimit few = {24, 24};
	struct cprof_target *target;
	struct cprof_perf *perf;
	struct cprof_error *error;

	setrlimit(RLIMIT_NOFILE, &few);
	if (setgid(NOBODY) || setuid(NOBODY))
		return 2;
	ok(cprof_target_create(target_pid, &target));
	run = run_of(CPROF_PERF_PER_THREAD);
	error = cprof_perf_create(target, &run.config, &perf);
	cprof_target_destroy(target);
	if (!error || error->status != CPROF_DENIED || !strstr(error->message, "24 are allowed"))
		return 3;
	cprof_error_destroy(error);
	return 0;
}

static void descriptors_are_budgeted(void **state)
{
	(void)state;
	target_pid = spawn(child_busy, NOBODY);
	assert_int_equal(in_child(few_descriptors), 0);
	end(target_pid);
}

/* The first process of a pid namespace of its own. */
static void child_in_namespace(void)
{
	pid_t pid;

	if (unshare(CLONE_NEWPID))
		_exit(1);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		child_births();
	}
	waitpid(pid, NULL, 0);
	_exit(0);
}

/* The pid of the only child of `parent`. */
static pid_t only_child(pid_t parent)
{
	char path[64];
	FILE CPROF_AUTO_FCLOSE *stream = NULL;
	int child = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	stream = fopen(path, "re");
	if (!stream || fscanf(stream, "%d", &child) != 1)
		return 0;
	return child;
}

static void a_child_namespace_is_matched(void **state)
{
	pid_t outer = spawn(child_in_namespace, 0);
	pid_t inner = 0;

	(void)state;
	for (unsigned i = 0; i < 500 && !inner; i++, usleep(20000))
		inner = only_child(outer);
	assert_true(inner > 0);
	memset(&tally, 0, sizeof(tally));
	run = run_of(CPROF_PERF_CPU_WIDE);
	profile(inner);
	end(inner);
	end(outer);
	assert_true(honest());
	assert_true(births_were_seen(run.cpu, tally.thread_count));
}

/* Profiler and target in the same child namespace. */
static int profile_in_namespace(void)
{
	pid_t first;
	int status;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		return 2;
	first = fork();
	if (first == 0) {
		if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("proc", "/proc", "proc", 0, NULL))
			_exit(3);
		run_on(child_busy, CPROF_PERF_CPU_WIDE);
		if (!honest())
			_exit(5);
		run_on(child_busy, CPROF_PERF_PER_THREAD);
		if (!honest())
			_exit(5);
		_exit(0);
	}
	waitpid(first, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
}

static void a_shared_namespace_is_matched(void **state)
{
	int result = in_child(profile_in_namespace);

	(void)state;
	if (result == 3)
		skip(); /* no mount namespace to be had: in a chroot, say */
	assert_int_equal(result, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unprivileged_user_samples_his_own),
		cmocka_unit_test(refusals_name_the_rule),
		cmocka_unit_test(descriptors_are_budgeted),
		cmocka_unit_test(a_child_namespace_is_matched),
		cmocka_unit_test(a_shared_namespace_is_matched),
	};

	main_pid = getpid();
	if (geteuid()) {
		print_message("[  SKIPPED ] live sampling: must be root\n");
		return 0;
	}
	return cmocka_run_group_tests_name("perf_rights", tests, NULL, NULL);
}

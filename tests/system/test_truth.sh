#!/usr/bin/env bash
# Programs that know their own answer, from their first instruction to their end, in both ways of
# sampling. Each prints its CPU time and shares of it; what samples say may differ by four standard
# deviations and two points.
. "$(dirname "$0")/lib.sh"

# In expressions: `d` the profile as JSON, `said` what the program printed, samples as (names, count,
# ns); share(f) is that of samples with f on the stack, near(share, truth) compares.
judge='
import json, math, sys
d = json.load(open(sys.argv[1]))
stats = json.load(open(sys.argv[2]))
words = open(sys.argv[3]).read().split()
said = {k: float(v) for k, v in zip(words[::2], words[1::2])}
samples = [([f["function"] for f in s["frames"]], *s["values"]) for s in d["samples"]]
count = sum(n for _, n, _ in samples)
total = sum(ns for _, _, ns in samples) / 1e9
def seconds(f): return sum(ns for names, _, ns in samples if f in names) / 1e9
def share(f): return seconds(f) / total
def near(a, b): return abs(a - b) <= 4 * math.sqrt(b * (1 - b) / count) + 0.02
if not eval(sys.argv[4]):
    for names, n, ns in samples: print(n, ns, *names[:6])
    sys.exit("%d samples, %.3f s, program said %s" % (count, total, said))
'
holds() { "$python" -c "$judge" profile.json stats.json said "$1"; }

program() { # RATE PROGRAM ARGS...
	name="$way $2"
	rate=$1 program=$2
	shift 2
	expect 0 run --sampling "$way" -F "$rate" -f json -o profile.json --stats stats.json \
		-- "$O/workloads/$program" "$@"
	cp out said
	echo "$name: $("$python" -c "$judge" profile.json stats.json said 'print(count, "%.3f" % (total / said["cpu_s"])) or True')"
	check "$name: samples" holds 'count > 30'
	check "$name: way" holds "stats['sampling'] == '$way'"
	# Per thread, what the events counted but did not sample is in the profile too.
	if [ "$way" = cpu-wide ]; then slack='4 / math.sqrt(count) + 0.02'; else slack=0.06; fi
	check "$name: samples stand for its CPU time" holds \
		"abs(total - said['cpu_s']) <= ($slack) * said['cpu_s'] + 0.02"
	check "$name: complete" holds "stats['complete'] >= $complete * stats['samples']"
}

for way in cpu-wide per-thread; do
	if [ $way = cpu-wide ] && ! is_root; then
		skip "cpu-wide needs root"
		continue
	fi

	complete=0.99
	program 997 shares 3 irregular
	for part in share_seventy share_twenty share_ten; do
		check "$name: $part" holds "near(share('$part'), said['$part'])"
	done
	check "$name: nothing missed" holds 'share("[not sampled]") < 0.03'

	# Per-thread events begin with a whole period in every thread: 2 ms threads are not seen, and
	# the profile says so.
	if [ $way = cpu-wide ]; then rate=997; else rate=199; fi
	program $rate short_threads 3
	if [ $way = cpu-wide ]; then
		check "$name: short" holds 'near(share("short_work"), said["short_work"])'
		check "$name: steady" holds 'near(share("steady_work"), said["steady_work"])'
		check "$name: nothing missed" holds 'share("[not sampled]") < 0.03'
	else
		check "$name: short ones are missed" holds 'share("short_work") < 0.5 * said["short_work"]'
		check "$name: and it says so" holds 'share("[not sampled]") > 0.5 * said["short_work"]'
	fi
	check "$name: threads" holds 'stats["threads"] >= 0.9 * said["threads"]'

	program 997 dlopen_loop 3
	check "$name: library" holds 'near(share("library_burn"), said["library_burn"])'
	check "$name: its leaf" holds 'share("library_leaf") > 0.8 * said["library_burn"]'
	check "$name: all inside main" holds 'share("main") > 0.95'

	# Through seven execs: what was sampled before is kept (the CPU time above), and every sample
	# is named by the program of its time.
	# A stack page that fork's copy-on-write is just replacing cannot be read, nor can the stack of
	# a program that an exec is just throwing away.
	complete=0.95
	program 997 forker 3 400
	check "$name: named in every life" holds \
		'share("busy_thread") + share("main") + share("[not sampled]") > 0.9'
	check "$name: its thread" holds 'seconds("thread_work") >= 0.95 * seconds("busy_thread")'
	check "$name: children are others" holds 'seconds("child_work") == 0'

	complete=0.99
	program 997 pingpong 3
	check "$name: both threads" holds 'share("main") > 0.2 and share("answer") > 0.2'
	check "$name: no more threads" holds 'stats["threads"] == 2'
done
finish

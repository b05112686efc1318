#!/usr/bin/env bash
# Who creates threads: exact numbers from known stacks, in both ways, from a command's start and
# attached to; languages that call clone() by themselves; and as go tool pprof reads them.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ]; then
	skip "profiles of thread creations need root"
	finish
fi

# In expressions: `said` what the program printed, count(frame=, thread=) the profile's sums.
judge='
import json, sys
d = json.load(open(sys.argv[1]))
stats = json.load(open(sys.argv[2]))
said = {}
for line in open(sys.argv[3]):
    w = line.split()
    if len(w) == 2: said[w[0]] = int(w[1])
def names(s): return [f["function"] for f in s["frames"]]
def count(frame=None, thread=None):
    return sum(s["values"][0] for s in d["samples"]
               if (frame is None or frame in names(s))
               and (thread is None or s["labels"]["thread"] == thread))
kind = stats["kinds"]["threadcreate"]
ends = sum(kind[e] for e in ("complete", "truncated", "no_cfi", "corrupt"))
if not eval("(" + sys.argv[4] + ")"):
    for s in d["samples"]: print(s["values"], s["labels"], names(s)[:5])
    sys.exit("said %s, stats %s" % (said, kind))
'
holds() { "$python" -c "$judge" profile.json stats.json said "$1"; }

exact() { # WHAT: profile.json, stats.json and said of a run of creators
	check "$1: types" holds "d['types'] == [{'type': 'threadcreate', 'unit': 'count'}]"
	check "$1: every thread is counted" holds "count() == said['all'] == stats['threadcreate']['created']"
	check "$1: nothing else lost" holds "stats['lost_records'] == 0"
	check "$1: samples and ends" holds "kind['samples'] + kind['lost'] == count() and ends == kind['samples']"
	# A burst may outrun us on a busy machine; what is lost is in the sums above.
	check "$1: stacks" holds "kind['samples'] > 0"
	for name in create_workers grow_pool create_raw create_fast create_deep; do
		check "$1: $name" holds \
			"said['$name'] - kind['lost'] <= count(frame='$name') <= said['$name']"
		check "$1: who called $name" holds "all(n[0] in ('clone3', 'clone', '__clone') and
			(n[-1] == '_start' or 'pool' in n and n[-1] in ('clone3', '__clone', 'clone') or
			 n[-1].startswith('['))
			for n in map(names, d['samples']) if '$name' in n)"
	done
	check "$1: threads" holds "count(thread='pool') == said['grow_pool'] and
		count(thread='creators') == said['all'] - said['grow_pool']"
}

for way in cpu-wide per-thread; do
	expect 0 run -e threadcreate --sampling "$way" -f json -o profile.json --stats stats.json \
		-- "$O/workloads/creators" 500
	cp out said
	said "^threadcreate: [0-9]+ samples, [0-9]+ lost, .* threads, .* -> profile.json"
	check "$way: sampling" holds "stats['sampling'] == '$way' and stats['clock'] == 'task_newtask'"
	exact "$way"
	check "$way: some deep stacks are whole" holds \
		"kind['lost'] or any('create_deep' in n and n[-1] == '_start' for n in map(names, d['samples']))"
done

# Threads that come and go as fast as they can.
expect 0 run -e threadcreate -f json -o profile.json --stats stats.json -- "$O/workloads/creators" 20000
cp out said
exact fast

# Attached to, with other kinds.
mkfifo gate
start "$O/workloads/creators" 200 "$work/gate"
"$cprof" record -p "$pid" -e threadcreate,block,cpu -d 0 -f json -o 'all.%e.json' --stats stats.json >out 2>err &
recorder=$!
wait_for 20 test -e "/proc/$recorder/task"
sleep 1
echo >gate
wait "$recorder"
check "with other kinds: status" test $? = 0
check "with other kinds: files" test -s all.threadcreate.json -a -s all.block.json -a -s all.cpu.json
cp all.threadcreate.json profile.json
cp start.log said
exact "with other kinds"

# Threads that live for two milliseconds; a file each second.
expect 0 run -e threadcreate --snapshot-every 500ms -f json -o 'short.%n.json' --stats stats.json \
	-- "$O/workloads/short_threads" 2
grep -E '^threads ' out >said
cp "$(printf '%s\n' short.*.json | tail -n 1)" profile.json
check "short threads" holds "count() == said['threads'] + 1 == count(frame='main') + kind['lost']"
check "snapshots" test "$(printf '%s\n' short.*.json | wc -l)" -gt 2
check "snapshots grow" test "$(json short.001.json "d['samples'][0]['values'][0]")" -lt \
	"$(json profile.json "sum(s['values'][0] for s in d['samples'])")"

# Only one thread's.
expect 0 run -e threadcreate --thread pool -f json -o profile.json --stats stats.json -- "$O/workloads/creators" 10
cp out said
check "one thread" holds "count() == count(thread='pool') == said['grow_pool']"

# Another runtime.
if command -v rustc >/dev/null; then
	cat >spawner.rs <<'RUST'
use std::thread;

#[inline(never)]
fn spawn_some(n: u32) -> u32 {
    (0..n).map(|i| thread::spawn(move || i)).map(|t| t.join().unwrap()).sum()
}

fn main() {
    println!("sum {}", spawn_some(50));
    thread::scope(|s| { for _ in 0..7 { s.spawn(|| ()); } });
}
RUST
	if HOME=${HOME:-/root} rustc -O -g -o spawner spawner.rs >build.log 2>&1; then
		expect 0 run -e threadcreate -f json -o profile.json --stats stats.json -- ./spawner
		: >said
		check "Rust" holds "count() == 57 and
			sum(s['values'][0] for s in d['samples'] if any('spawn_some' in f for f in names(s))) == 50 - kind['lost']"
	else
		skip "rustc does not work here"
	fi
else
	skip "no rustc"
fi

# The file, by its default name, as pprof sees it.
expect 0 run -e threadcreate -- "$O/workloads/creators" 5
check "default name" test -s creators.*.threadcreate.001.pb.gz
if command -v go >/dev/null; then
	pprof -top creators.*.threadcreate.001.pb.gz >top.log
	check "go tool pprof -top" grep -q '^Type: threadcreate' top.log
	check "go tool pprof -top: total" grep -q ' of 211 total' top.log
	pprof -traces creators.*.threadcreate.001.pb.gz >traces.log
	check "go tool pprof -traces" grep -Eq ' grow_pool$' traces.log
	check "go tool pprof -traces: numbers" grep -Eq '^ +101 +clone3?$' traces.log
	pprof -tags creators.*.threadcreate.001.pb.gz >tags.log
	check "go tool pprof -tags" grep -Eq ' pool$' tags.log
else
	skip "go tool pprof is not here"
fi

# Without the right: refused, with the rule.
if command -v setpriv >/dev/null; then
	start "${nobody[@]}" sleep 100
	sleep 0.3
	"${nobody[@]}" "$cprof" record -p "$pid" -e threadcreate -d 1 -o - >out 2>err
	check "refused without privilege" test $? = 3
	said 'perf_event_paranoid|tracefs|/sys/kernel/tracing'
	said '\(.*run as root'
fi
finish

#!/usr/bin/env bash
# Block profiles of a program whose threads measure their own waits, in both ways; of a thread that
# sleeps throughout; thinned; and as go tool pprof reads them.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ]; then
	skip "block profiles need root"
	finish
fi

# In expressions: `said` by thread what it measured itself, ns(thread=, wait=, frame=) and count(…)
# the profile's sums.
judge='
import json, sys
d = json.load(open(sys.argv[1]))
stats = json.load(open(sys.argv[2]))
said = {}
for line in open(sys.argv[3]):
    w = line.split()
    if len(w) == 9: said[w[0]] = {"waited": int(w[2]), "times": int(w[4]), "cpu": int(w[6]), "wall": int(w[8])}
def text(s, key): return str(s["labels"].get(key, ""))
def sums(i, thread=None, wait=None, frame=None):
    return sum(s["values"][i] for s in d["samples"]
               if (thread is None or text(s, "thread") == thread)
               and (wait is None or text(s, "wait") == wait)
               and (frame is None or frame in [f["function"] for f in s["frames"]]))
def ns(**which): return sums(1, **which)
def count(**which): return sums(0, **which)
def near(a, b, part, more=0): return abs(a - b) <= part * b + more
if not eval(sys.argv[4]):
    for s in sorted(d["samples"], key=lambda s: -s["values"][1])[:40]:
        print(s["values"], s["labels"], [f["function"] for f in s["frames"]][:5])
    sys.exit("said %s, stats %s" % (said, stats.get("block")))
'
holds() { "$python" -c "$judge" profile.json stats.json said "$1"; }
# Threads that only wait: what they measured, and the kind of it.
waiters="sleep:sleep pipe:pipe socket:socket cond:cond sem:sem futex:futex poll:poll join:join"

for way in cpu-wide per-thread; do
	expect 0 run -e block --sampling "$way" -f json -o profile.json --stats stats.json \
		-- "$O/workloads/blocking" 3
	cp out said
	check "$way: sampling" holds "stats['sampling'] == '$way'"
	check "$way: nothing lost" holds \
		"stats['lost_records'] == 0 and stats['block']['broken'] == 0"
	check "$way: types" holds "[t['type'] + '/' + t['unit'] for t in d['types']] == ['contentions/count', 'delay/nanoseconds']"
	for waiter in $waiters; do
		thread=${waiter%:*} kind=${waiter#*:}
		if [ "$kind" = cond ]; then also=mutex; else also=none; fi
		# Off the CPU is all that they measured but for what they needed of it themselves.
		check "$way: $thread waits as long as it says" holds \
			"near(ns(thread='$thread'), said['$thread']['waited'] - said['$thread']['cpu'], 0.02)"
		check "$way: $thread waits for $kind" holds \
			"sum(ns(thread='$thread', wait=kind) for kind in {'$kind', 'runq', '$also'} - {'none'}) >= 0.97 * ns(thread='$thread')"
		check "$way: $thread waits in its function" holds \
			"ns(thread='$thread', wait='$kind', frame='wait_$thread') >= 0.97 * ns(thread='$thread', wait='$kind')"
	done
	# A mutex is taken again after a condition, and can be waited for.
	check "$way: cond and its mutex" holds "ns(thread='cond', wait='mutex') <= 0.2 * ns(thread='cond')"
	for thread in mutex rwlock; do
		check "$way: $thread" holds \
			"ns(thread='$thread', wait='$thread', frame='wait_$thread') >= 0.9 * (ns(thread='$thread') - ns(thread='$thread', wait='runq')) > 0"
	done
	for thread in sleep pipe socket cond sem mutex rwlock futex poll join burn hold wake-pipes wake-cond; do
		check "$way: $thread: waits and CPU are all its time" holds \
			"near(ns(thread='$thread') + said['$thread']['cpu'], said['$thread']['wall'], 0.01, 2e6)"
	done
	check "$way: naps are counted" holds \
		"near(count(thread='sleep', wait='sleep'), said['sleep']['times'], 0.03, 2)"
	check "$way: who only burns does not wait" holds \
		"ns(thread='burn') - ns(thread='burn', wait='runq') <= 0.02 * said['burn']['wall']"
	check "$way: switches" holds "near(stats['block']['switches'], count(), 0.01, 20)"
	check "$way: weights stand for them" holds \
		"near(stats['block']['weight'] + stats['lost'], stats['block']['switches'], 0.1, 50)"
done

# Attached to later: threads that sleep throughout count from the attach.
start "$O/workloads/waits" kinds
wait_for 10 grep -q ready start.log
expect 0 record -p "$pid" -e block -d 2 -f json -o profile.json --stats stats.json
: >said
for kind in mutex:mutex rdlock:rwlock wrlock:rwlock cond:cond timed-cond:cond sem:sem join:join \
	sleep:sleep until:sleep poll:poll select:poll epoll:poll pipe:pipe accept:socket recv:socket flock:file; do
	check "asleep throughout: $kind" holds \
		"1.96e9 <= ns(thread='${kind%:*}', wait='${kind#*:}') == ns(thread='signal', wait='sleep') <= stats['duration_ns']"
done
check "asleep throughout: one wait each" holds "count(thread='cond') == 1"
check "asleep throughout: summary" grep -Eq '^block: .* switches, ' err
expect 0 record -p "$pid" -e block --thread cond --no-kernel -d 1 -f json -o profile.json --stats stats.json
check "one thread" holds "{text(s, 'thread') for s in d['samples']} == {'cond'}"
check "no kernel frames" holds "all(f['module'] != '[kernel.kallsyms]' for s in d['samples'] for f in s['frames'])"

# All kinds in one attach.
expect 0 record -p "$pid" -e cpu,block,threads -d 1 -f json -o 'all.%e.json' --stats stats.json
check "several kinds" test -s all.cpu.json -a -s all.block.json -a -s all.threads.json
cp all.block.json profile.json
check "several kinds: block" holds "0.96e9 <= ns(thread='cond', wait='cond') <= stats['duration_ns']"

# So many switches that stacks are thinned: the sums stay exact.
expect 0 run -e block -f json -o profile.json --stats stats.json -- "$O/workloads/pingpong" 2
check "thinned: many switches" holds "stats['block']['switches'] > 20000"
check "thinned: few stacks" holds "stats['block']['stacks'] < 0.4 * stats['block']['switches']"
check "thinned: no switch is lost" holds \
	"stats['lost_records'] == 0 and near(count(), stats['block']['switches'], 0.01)"
check "thinned: time" holds "near(ns(), stats['block']['blocked_ns'] + stats['block']['runq_ns'], 0.01)"
# On a busy machine some waits are so long that none like them has a stack.
check "thinned: pipes" holds "ns(wait='pipe') + ns(wait='none', frame='[stack not sampled]') >= 0.95 * stats['block']['blocked_ns']"
check "thinned: most has a stack" holds "ns(wait='pipe') >= 0.5 * stats['block']['blocked_ns']"
check "thinned: weights" holds "near(stats['block']['weight'] + stats['lost'], stats['block']['switches'], 0.25)"
# Threads that come and go; where one has only just begun nothing called it.
expect 0 run -e block --block-rate 0 -f json -o profile.json --stats stats.json -- "$O/workloads/short_threads" 2
check "short threads: stacks" holds "stats['samples'] > 300 and stats['complete'] >= stats['samples'] - 5"
check "short threads: no wait is lost" holds \
	"stats['lost_records'] == 0 and near(count(), stats['block']['switches'], 0.01, 5)"
expect 0 run -e block --block-min 1ms -f json -o profile.json --stats stats.json -- "$O/workloads/pingpong" 1
check "short waits by chance: time" holds "near(ns(), stats['block']['blocked_ns'] + stats['block']['runq_ns'], 0.01)"

expect 0 run -e block -o block.pb.gz -- "$O/workloads/blocking" 1
if command -v go >/dev/null; then
	go tool pprof -top block.pb.gz >top.log 2>&1
	check "go tool pprof -top" grep -q '^Type: delay' top.log
	go tool pprof -tags block.pb.gz >tags.log 2>&1
	for kind in sleep pipe cond mutex poll socket; do
		check "go tool pprof -tags: $kind" grep -Eq " $kind\$" tags.log
	done
else
	skip "go tool pprof is not here"
fi

# Without the right to see switches: refused, with the rule.
paranoid=$(cat /proc/sys/kernel/perf_event_paranoid)
if [ "$paranoid" -gt 1 ] && command -v setpriv >/dev/null; then
	start setpriv --reuid 65534 --clear-groups sleep 100
	sleep 0.3
	setpriv --reuid 65534 --clear-groups "$cprof" record -p "$pid" -e block -d 1 -o - >out 2>err
	check "refused without privilege" test $? = 3
	said 'perf_event_paranoid'
fi
expect 2 record -p 1 -e block --block-min nonsense
finish

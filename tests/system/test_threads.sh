#!/usr/bin/env bash
# Thread dumps of real programs: what they say, and that the program does not mind.
. "$(dirname "$0")/lib.sh"

adds_up() { # STATS WHAT
	check "$2: stats" json_holds "$1" 'd["complete"] + d["truncated"] + d["no_cfi"] + d["corrupt"] ==
		d["samples"] == d["stopped_threads"] == d["kinds"]["threads"]["samples"] >= 1 and
		d["threads"] >= d["samples"] and d["stopped_ns_max"] > 0 and d["ptrace_stops"] >= 1 and
		d["duration_ns"] >= d["stopped_ns_max"] and d["frames"] >= d["samples"]'
}
ready() { # COMMAND...: begins it and waits for it to say so
	rm -f ready.out # what the one before said
	"$@" >ready.out 2>>start.log </dev/null &
	pid=$!
	pids+=("$pid")
	wait_for 20 grep -q ready ready.out || fail "$* is not ready" start.log
}
holds() { # EXPRESSION: about the JSON in `out`; `t` are the threads by name
	json_holds out "(lambda t: $1)({x['name']: x for x in d['threads']})"
}

# Two threads that wait for one another, and one that has nothing to do with it
ready "$O/workloads/deadlock"
stuck=$pid
sleep 0.3
expect 0 threads -p "$stuck" --stats stats.json
adds_up stats.json deadlock
printed "^Process $stuck: .*/deadlock\$"
printed '^stopped for [0-9.]+ ms, 4 threads$'
printed '^mutex 2, '
printed '^1 thread \[S, mutex 0x[0-9a-f]+ \(.*journal.*\), held by "rotating" [0-9]+\]: "booking" [0-9]+$'
printed '^    #[0-9]+ write_journal(\+0x[0-9a-f]+)? deadlock.c:[0-9]+ \(deadlock\)'
printed '^Deadlock: 2 threads wait for one another$'
printed '^    "booking" [0-9]+ waits for mutex 0x[0-9a-f]+ \(.*journal.*\), held by "rotating" [0-9]+$'
printed '^    "rotating" [0-9]+ waits for mutex 0x[0-9a-f]+ \(.*accounts.*\), held by "booking" [0-9]+$'
sed -n '/^Deadlock/,$p' out >chain
check "the frame that waits" grep -Eq '^        #[0-9]+ write_journal' chain
check "the innocent is not in it" test "$(grep -c innocent chain)" = 0
expect 0 dump -p "$stuck" --json
check "JSON: the deadlock" holds 'len(d["deadlocks"]) == 1 and sorted(d["deadlocks"][0]) ==
	sorted((t["booking"]["tid"], t["rotating"]["tid"]))'
check "JSON: who has what" holds 't["booking"]["wait"]["kind"] == "mutex" and
	t["booking"]["wait"]["owner_tid"] == t["rotating"]["tid"] and
	t["rotating"]["wait"]["owner_tid"] == t["booking"]["tid"] and
	t["booking"]["wait"]["address"][:2] == "0x" and t["booking"]["state"] == "S"'
check "JSON: the innocent sleeps" holds 't["innocent"]["wait"]["kind"] == "sleep" and t["innocent"]["complete"]'
check "JSON: frames" holds 'any(f["function"] == "write_journal" and f["line"] > 0 and
	f["file"].endswith("deadlock.c") and f["pc"][:2] == "0x" for f in t["booking"]["frames"])'
expect 0 threads -p "$stuck" --thread booking --json
check "--thread" holds 'list(t) == ["booking"]'
tid=$(json out 'd["threads"][0]["tid"]')
expect 0 threads -p "$tid" --thread "$tid"
said "$tid is a thread of process $stuck"
printed '"booking"'
expect 1 threads -p "$stuck" --thread nobody
said 'no thread'
expect 0 threads -p "$stuck" --no-lines --no-inlines
check "no lines" test "$(grep -c 'deadlock\.c' out)" = 0
expect 0 threads -p "$stuck" --watch 1s
printed '^1 thread \[S, mutex .*, not moved for 1\.[0-9] s\]: "booking"'
begin=$SECONDS
"$cprof" threads -p "$stuck" --watch 60s --json >out 2>err </dev/null &
dumper=$!
sleep 1
kill -TERM "$dumper"
wait "$dumper"
status=$?
check "SIGTERM ends --watch early, with a dump" holds '"not_moved_ns" in t["booking"]'
check "status 0, at once" test $status = 0 -a $((SECONDS - begin)) -lt 15
expect 0 threads -p "$stuck" --color always
check "colour" grep -q "$(printf '\033')\\[1m" out
expect 0 threads -p "$stuck"
check "no colour" test "$(grep -c "$(printf '\033')" out)" = 0
for verb in "threads -f pprof" "record -e threads -d 0.1"; do
	# shellcheck disable=SC2086
	expect 0 $verb -p "$stuck" -o dump.pb.gz --stats stats.json
	said '^threads: 4 samples, 0 lost, [0-9.]+% complete stacks, 4 threads, .* -> dump\.pb\.gz'
	adds_up stats.json "$verb"
	pprof -traces dump.pb.gz >traces
	check "pprof reads it" grep -q write_journal traces
	check "its labels" grep -Eq 'thread:.*booking' traces
	check "what it waits for" grep -Eq 'wait:.*mutex' traces
	pprof -top dump.pb.gz >top
	check "its type" grep -q '^Type: threads' top
	pprof -raw dump.pb.gz >raw
	readelf -n "$O/workloads/deadlock" | sed -n 's/.*Build ID: //p' >id
	check "its program: range, offset and build-id" grep -Eq \
		"^1: 0x[0-9a-f]{6,}/0x[0-9a-f]{6,}/0x1000 .*/deadlock $(cat id) \[FN\]" raw
	check "libc too" grep -Eq '^[0-9]+: 0x[0-9a-f]{6,}/0x[0-9a-f]{6,}/0x[0-9a-f]+ .*/libc\.so\.6 [0-9a-f]{40}' raw
	rm -f dump.pb.gz
done
expect 0 threads -p "$stuck" -f folded
printed '^[^;]+;.*write_journal.* 1$'
expect 2 threads
expect 2 threads -p "$stuck" --watch 0
expect 2 threads -p "$stuck" -f html
expect 2 run -e threads -- true
expect 4 threads -p 2147483647

# A stopped process stays stopped
kill -STOP "$stuck"
wait_for 5 sh -c "grep -q 'State:.T' /proc/$stuck/status"
expect 0 threads -p "$stuck"
printed '^Deadlock: 2 threads'
for task in /proc/"$stuck"/task/*; do
	check "still stopped" grep -q 'State:.T (stopped)' "$task/status"
done
kill -CONT "$stuck"
check "and continues" wait_for 5 sh -c "! grep -q 'State:.T' /proc/$stuck/status"

# A process that has crashed and whose core dump is being written: a stop would cut that short
printf '#!/bin/sh\nsleep 3\nexec cat >%q/core\n' "$work" >keep && chmod 755 keep
pattern=$(cat /proc/sys/kernel/core_pattern)
ready sh -c 'ulimit -c unlimited 2>/dev/null; exec "$0"' "$O/workloads/deadlock"
crashed=$pid
sleep 0.3
if is_root && (echo "|$work/keep" >/proc/sys/kernel/core_pattern) 2>/dev/null; then
	kill -SEGV "$crashed"
	wait_for 2 grep -q 'CoreDumping:.1' "/proc/$crashed/status"
	echo "$pattern" >/proc/sys/kernel/core_pattern
fi
if grep -qs 'CoreDumping:.1' "/proc/$crashed/status"; then
	expect 0 threads -p "$crashed"
	printed '^crashed, its core dump is being written, 4 threads$'
	printed '^    #[0-9]+ write_journal(\+0x[0-9a-f]+)? deadlock.c:[0-9]+ \(deadlock\)'
	printed '^    #[0-9]+ main'
	printed ' _start'
	expect 0 threads -p "$crashed" --json
	check "JSON: it has crashed" json_holds out 'd["dumping_core"] and d["stopped_ns"] == 0'
	expect 3 record -p "$crashed" -e heap -d 0.1 -o none.pb.gz
	said 'core dump'
	expect 0 record -p "$crashed" -d 0.1 -o none.pb.gz
	await "$crashed"
	check "the core dump is whole" test "$(readelf -n core 2>&1 | grep -c 'NT_PRSTATUS')" = 4 -a \
		"$(readelf -l core 2>&1 | grep -ci 'warning\|error')" = 0
else
	skip "no core dump into a pipe here"
fi

# Somebody else's target
if is_root && command -v setpriv >/dev/null; then
	cp "$cprof" ours
	"${nobody[@]}" ./ours threads -p "$stuck" >out 2>err
	status=$?
	check "another's process: $status" test $status = 3
	check "one line" one_line_error
	start "${nobody[@]}" sleep 100
	wait_for 5 grep -q sleep "/proc/$pid/comm"
	"${nobody[@]}" ./ours threads -p "$pid" >out 2>err
	status=$?
	if [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" = 0 ]; then
		check "one's own process" test $status = 0
		printed '\[S, sleep'
	else
		check "refused by Yama: $status" test $status = 3
		said 'ptrace_scope'
	fi
else
	skip "needs root and setpriv"
fi
for tracer in strace gdb; do
	command -v $tracer >/dev/null || { skip "no $tracer"; continue; }
	start "$python" -c 'import time; time.sleep(100)'
	traced=$pid
	case $tracer in
	strace) start strace -o strace.log -p "$traced" ;;
	gdb) start gdb -q -nx -batch -p "$traced" -ex 'shell sleep 100' ;;
	esac
	wait_for 20 grep -Eq 'TracerPid:.[1-9]' "/proc/$traced/status"
	expect 3 threads -p "$traced"
	said "$tracer"
	kill -TERM "$pid"
done

# Two dumps at a time wait for one another
ready "$O/workloads/many_threads" 300 20
many=$pid
dumpers=()
for i in 1 2 3 4; do
	"$cprof" threads -p "$many" -q >"dump.$i" 2>"err.$i" &
	dumpers+=($!)
done
bad=0
for i in 1 2 3 4; do
	wait "${dumpers[i - 1]}" || bad=$((bad + 1))
	grep -q 'ms, 301 threads' "dump.$i" || bad=$((bad + 1))
done
check "dumps at once: $bad bad" test $bad = 0

# A thread that lacks a CPU to stop on is looked at when the others have gone on
if command -v taskset >/dev/null; then
	start taskset -c 0 sh -c 'while :; do :; done'
	hog=$pid
	start taskset -c 0 nice -n 15 "$O/workloads/busy_threads" 0 1
	sleep 1
	later=0
	for _ in 1 2 3 4 5 6; do
		expect 0 threads -p "$pid"
		check "nobody is left out" test "$(grep -c 'could not be stopped' out)" = 0
		grep -q ', seen later\]: ' out && later=$((later + 1))
	done
	check "some were late" test $later -ge 1
	kill "$pid"
	# Those that were let go and have had no CPU yet to wait on still wait for one another. In a
	# static program there are few names to look up meanwhile.
	cc -O2 -static -pthread -D_GNU_SOURCE -o circle "$tests/workloads/deadlock.c" 2>cc.log ||
		cp "$O/workloads/deadlock" circle
	start taskset -c 0 sh -c 'while :; do :; done'
	second=$pid
	ready taskset -c 0 ./circle 0 40
	sleep 1
	for _ in 1 2 3 4 5 6; do
		expect 0 threads -p "$pid" --no-lines --no-inlines
		printed '^Deadlock: 2 threads'
		printed '^Deadlock: 40 threads'
	done
	kill "$hog" "$second" "$pid"
else
	skip "no taskset"
fi

# A mutex in memory that is gone: a disturbed waiter would abort the process
ready "$O/workloads/unmapped"
expect 0 threads -p "$pid"
printed '\[S, futex 0x[0-9a-f]+ \(unmapped memory\), not stopped\]'
printed '2 threads, 1 could not be stopped$'
expect 0 threads -p "$pid" --json
check "JSON: a futex that is gone" json_holds out 'sum(x["wait"]["kind"] == "futex" and
	not x["held"] and not x["frames"] for x in d["threads"]) == 1'
sleep 0.2
check "it goes on waiting" test "$(state_of "$pid")" = S

# Real programs
if command -v redis-server >/dev/null; then
	port=$(free_port)
	start redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
	redis=$pid
	check "redis answers" wait_for 10 redis-cli -p "$port" ping
	expect 0 threads -p "$redis" --json --stats stats.json
	adds_up stats.json redis
	check "redis: complete" json_holds out 'all(x["complete"] for x in d["threads"]) and d["comm"] == "redis-server"'
	check "redis: its event loop" json_holds out 'any(x["wait"]["kind"] == "poll" and
		"aeMain" in [f["function"] for f in x["frames"]] for x in d["threads"])'
	check "redis: its workers" json_holds out 'sum(x["wait"]["kind"] == "cond" for x in d["threads"]) >= 3 and d["deadlocks"] == []'
	check "redis lives" redis-cli -p "$port" ping
else
	skip "no redis"
fi
start "$python" -c '
import threading, time, queue
lock = threading.Lock(); lock.acquire()
for i in range(40): threading.Thread(target=lock.acquire, daemon=True).start()
for i in range(5): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
time.sleep(1000)'
wait_for 10 sh -c "[ \$(ls /proc/$pid/task | wc -l) = 46 ]"
sleep 0.3
expect 0 threads -p "$pid" --stats stats.json
adds_up stats.json python
check "python: all complete" json_holds stats.json 'd["complete"] == d["samples"] == 46'
printed '^40 threads \[S, .*\]: .*and 32 more$'
printed '^5 threads \[S, sleep.*\]: '

# The target ends meanwhile: a dump, or no such process; never anything else
bad=0
for _ in $(seq 20); do
	"$O/workloads/pingpong" >/dev/null 2>&1 &
	short=$!
	sleep 0.05
	"$cprof" threads -p "$short" >out 2>err &
	dumper=$!
	sleep "0.0$((RANDOM % 5))"
	kill -KILL "$short"
	wait "$dumper" 2>/dev/null
	status=$?
	wait "$short" 2>/dev/null
	case $status in 0) ;; 4) one_line_error || bad=$((bad + 1)) ;; *) bad=$((bad + 1)); cat err ;; esac
done
check "killed while being dumped: $bad bad" test $bad = 0

# Dump after dump: alive, and as fast as before. A dump waits for the CPU as the threads do, so
# there is a limit of time.
start "$O/workloads/busy_threads" 0 8 verbose
busy_pid=$pid
sleep 0.5
bad=0 dumps=0
end=$((SECONDS + 15))
while [ $dumps -lt 200 ] && [ $SECONDS -lt $end ]; do
	"$cprof" threads -p "$busy_pid" -q --no-lines --no-inlines >out 2>err || bad=$((bad + 1))
	dumps=$((dumps + 1))
done
check "$dumps dumps, $bad bad" test $bad = 0 -a $dumps -ge 3
check "8 threads and main" grep -q "ms, 9 threads" out
check "nobody is left stopped" test -z "$(grep -l 'State:.[Tt]' /proc/"$busy_pid"/task/*/status)"
check "nobody is left traced" test -z "$(grep -L 'TracerPid:.0' /proc/"$busy_pid"/task/*/status)"
before=$(cut -d' ' -f14 "/proc/$busy_pid/stat")
sleep 1
after=$(cut -d' ' -f14 "/proc/$busy_pid/stat")
check "it runs: $((after - before)) ticks a second" test $((after - before)) -gt 10
kill -TERM "$busy_pid"
await "$busy_pid"
check "it ends as it would" test "$status" = 0
finish

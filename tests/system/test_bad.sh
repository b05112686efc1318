#!/usr/bin/env bash
# What goes wrong: one line, the right status, nothing half written, the target unharmed.
# Runs beside others.
. "$(dirname "$0")/lib.sh"
left_nothing() { # DIR
	check "nothing is left in $1" test -z "$(ls -A "$1")"
}

# Processes that are none
expect 4 record -p 2147483647 -d 0.1
start true
gone=$pid
await "$gone"
expect 4 record -p "$gone" -d 0.1
start "$python" -c 'import os, time
if os.fork() == 0: os._exit(0)
time.sleep(60)'
check "a zombie" wait_for 10 sh -c "ps -o stat= --ppid $pid | grep -q Z"
expect 4 record -p "$(ps -o pid= --ppid "$pid" | tr -d ' ')" -d 0.1
said 'zombie'
if [ "$(cut -d' ' -f2 /proc/2/stat 2>/dev/null)" = '(kthreadd)' ]; then
	expect 3 record -p 2 -d 0.1
	said 'kernel thread'
else
	skip "no kernel thread here"
fi

# Not permitted: the rule and the remedy
start sleep 100
target=$pid
if is_root && command -v setpriv >/dev/null; then
	cp "$cprof" ours
	cprof=$work/ours
	mkdir -m 777 nobody
	"${nobody[@]}" "$cprof" record -p "$target" -d 0.1 -o nobody/x.pb.gz >out 2>err
	status=$?
	check "another's process: $status" test $status = 3
	check "one line" one_line_error
	check "with a remedy" grep -q '(.*)$' err
	left_nothing nobody
	start "${nobody[@]}" sleep 100
	sleep 0.2
	"${nobody[@]}" "$cprof" record -p "$pid" -d 0.2 -o nobody/x.pb.gz --stats nobody/stats >out 2>err
	status=$?
	if [ "$(cat /proc/sys/kernel/perf_event_paranoid)" -le 2 ]; then
		check "one's own process" test $status = 0
		check "is sampled per thread" json_holds nobody/stats 'd["sampling"] == "per-thread"'
	else
		check "one's own process, refused" test $status = 3
		said 'perf_event_paranoid'
	fi
	"${nobody[@]}" "$cprof" record -p "$pid" -d 0.2 --sampling cpu-wide -o nobody/y.pb.gz >out 2>err
	status=$?
	check "CPU-wide without privilege: $status" test $status = 3
	check "one line" one_line_error
	cprof=$O/cprof-attach
else
	skip "needs root and setpriv"
fi

# The target ends, execs, is stopped
begin=$SECONDS
start_busy 1
expect 0 record -p "$pid" -d 30 -o ended.pb.gz
said "process $pid ended by itself"
check "not for 30 s" test $((SECONDS - begin)) -lt 15
check "what was collected is written" pprof -top ended.pb.gz
start_busy 60
(sleep 1; kill -KILL "$pid") &
expect 0 record -p "$pid" -d 0 -o killed.pb.gz
said 'ended by itself'
check "a killed target's profile" pprof -top killed.pb.gz
start bash -c 'end=$((SECONDS + 2)); while [ $SECONDS -lt $end ]; do :; done
	exec "$0" -c "$1" 30' "$python" "$busy"
expect 0 record -p "$pid" -d 4 -o exec.pb.gz
pprof -top exec.pb.gz >top
check "before the exec" grep -q 'execute_command' top
check "after the exec" grep -q '_PyEval_EvalFrameDefault' top
start_busy 60
kill -STOP "$pid"
check "stopped" wait_for 5 sh -c "grep -q 'State:.T' /proc/$pid/status"
expect 0 record -p "$pid" -d 0.5 -o stopped.pb.gz
said 'is stopped'
check "still stopped" test "$(state_of "$pid")" = T
kill -CONT "$pid"
check "goes on" wait_for 5 sh -c "! grep -q 'State:.T' /proc/$pid/status"
expect 0 record -p "$pid" -d 0.5 -o resumed.pb.gz
check "lives" kill -0 "$pid"
expect 0 record -p "$target" -d 0.3 -o asleep.pb.gz
said '^cpu: 0 samples'
check "an empty profile" pprof -top asleep.pb.gz

# Names with terminal escapes
start "$python" -c 'open("/proc/self/comm", "w").write("\x1b[31mred\u202e")
while True: pass'
sleep 0.5
expect 0 record -p "$pid" -d 0.5
check "no escapes on stderr" test "$(tr -cd '\033' <err | wc -c)" = 0
check "none in the file's name" compgen -G "__31mred*.$pid.cpu.001.pb.gz"
expect 0 record -p "$pid" -d 0.5 -f json -o escapes.json
check "none in the file" test "$(tr -cd '\033' <escapes.json | wc -c)" = 0
start_busy 100
target=$pid

# Output files
record() { expect "$1" record -p "$target" -d 0.3 -o "$2"; }
record 1 missing/x.pb.gz
said 'missing'
mkdir dir
record 1 dir
record 1 dir/
left_nothing dir
ln -s elsewhere link
record 1 link
check "the link's target is not made" test ! -e elsewhere
echo precious >kept
ln -s kept link2
record 1 link2
check "nor overwritten" grep -q precious kept
record 1 /dev/full
record 0 /dev/null
mkfifo fifo
timeout 20 cat fifo >through &
reader=$!
record 0 fifo
wait $reader
check "through a FIFO" gzip -t through
check "it is still one" test -p fifo
begin=$SECONDS
expect 1 record -p "$target" -d 20 -o missing/x.pb.gz
expect 1 record -p "$target" -d 20 -o ok.pb.gz --stats missing/stats
check "told before, not after" test $((SECONDS - begin)) -lt 10
if try_mount full size=64k; then
	head -c 1000000 /dev/zero >full/filler 2>/dev/null
	record 1 full/x.pb.gz
	said 'No space'
	check "nothing is left" test "$(ls -A full)" = filler
	rm full/filler
	echo old >full/old.pb.gz
	head -c 1000000 /dev/zero >full/filler 2>/dev/null
	record 1 full/old.pb.gz
	check "the old file is untouched" grep -qx old full/old.pb.gz
	try_mount readonly size=64k && mount -o remount,ro "$work/readonly"
	record 1 readonly/x.pb.gz
	said 'Read-only'
else
	skip "no mounting here"
fi

# Ctrl-C, SIGTERM, SIGHUP write; a second Ctrl-C gives up
for signal in INT TERM HUP; do
	start "$cprof" record -p "$target" -d 60 -o "$signal.pb.gz"
	sleep 0.7
	kill -$signal "$pid"
	await "$pid"
	check "SIG$signal: status" test "$status" = 0
	check "SIG$signal: a profile" pprof -top "$signal.pb.gz"
done
start "$cprof" record -p "$target" -d 60 -o fifo # nobody reads
sleep 0.7
kill -INT "$pid"
sleep 0.7
check "waits for a reader" kill -0 "$pid"
kill -INT "$pid"
await "$pid"
check "a second Ctrl-C gives up" test "$status" = 1
mkdir twice
start "$cprof" record -p "$target" -d 60 -o twice/x.pb.gz
sleep 0.7
kill -INT "$pid"
sleep 0.01
kill -INT "$pid" 2>/dev/null
await "$pid"
if [ "$status" = 0 ]; then
	check "written before the second Ctrl-C" gzip -t twice/x.pb.gz
else
	check "given up" test "$status" = 1
	left_nothing twice
fi
start "$cprof" record -p "$target" -d 60 -o killed-profiler.pb.gz
sleep 0.7
kill -KILL "$pid"
await "$pid"
check "the target survives a killed profiler" kill -0 "$target"

# Few descriptors, no stdout, somebody else's /proc: said as what they are
close_others() { # descriptors that whoever runs the tests has left open count too
	local fd
	for fd in /proc/"$BASHPID"/fd/*; do
		fd=${fd##*/}
		[ "$fd" -le 2 ] || eval "exec $fd>&-"
	done
}
for limit in 4 5 8 10 12 16; do
	(close_others; ulimit -n $limit; exec "$cprof" record -p "$target" -d 0.1 -o few.pb.gz) >out 2>err </dev/null
	status=$?
	case $status in
	0) check "$limit descriptors: who may have more raises the limit" test $limit -ge 8 ;;
	3) said 'descriptors are needed' ;;
	*)
		check "$limit descriptors: a failure, not a missing process: $status" test $status = 1
		said 'Too many open files'
		;;
	esac
	check "one line" test "$(wc -l <err)" = 1
done
"$cprof" record -p "$target" -d 0.1 -o - >&- 2>err
check "a closed stdout: record" test $? = 1
check "one line" one_line_error
"$cprof" report ended.pb.gz >&- 2>err
check "a closed stdout: report" test $? = 1
if is_root && unshare -pf true 2>/dev/null; then
	unshare -pf "$cprof" record -p 1 -d 0.1 -o pidns.pb.gz >out 2>err
	check "/proc of another pid namespace" test $? = 3
	said 'pid namespace'
else
	skip "no pid namespaces here"
fi

# Nothing to see, and why
expect 0 record -p "$target" -d 0.2 -o none.pb.gz --thread no-such-thread
said '^cprof-attach: note: no thread has a name or number'
start dd if=/dev/zero of=/dev/null bs=1M
for way in cpu-wide per-thread; do
	is_root || [ $way = per-thread ] || continue
	expect 0 record -p "$pid" -d 0.5 -o dd.pb.gz --no-kernel --sampling $way
	check "$way: kernel time is left out" test "$(pprof -top dd.pb.gz | grep -c 'not sampled')" = 0
done
if is_root && [ "$(cat /proc/sys/kernel/perf_event_paranoid)" -le 2 ]; then
	cp "$cprof" ours
	cp "$O/workloads/shares" unreadable # the kernel takes our events away when it is run
	chmod 711 unreadable
	"${nobody[@]}" ./ours run -d 1 -o nobody/u.pb.gz -- ./unreadable 1 >out 2>err
	said '^cprof-attach: note: .* CPU time could not be sampled'
	check "the time is in the profile" sh -c "$(printf '%q' "$cprof") report nobody/u.pb.gz | grep -q '\[not sampled\]'"
fi

# Files that are no profiles, for `report`
echo 'not a profile' >text
: >empty
head -c 3000 /dev/urandom >noise
gzip -c noise >noise.gz
head -c 200 ended.pb.gz >truncated.pb.gz
{ cat ended.pb.gz; echo trailing; } >trailing.pb.gz
for file in text empty noise noise.gz truncated.pb.gz dir /dev/null; do expect 1 report "$file"; done
cprof report trailing.pb.gz
check "trailing bytes: status $status" test "$status" -le 1
head -c 300000000 /dev/zero | gzip -1 >bomb.gz
timeout 60 "$cprof" report bomb.gz >out 2>err
check "a bomb" test $? = 1
finish

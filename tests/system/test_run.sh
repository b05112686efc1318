#!/usr/bin/env bash
# `run`: the command's exit status is ours, signals reach it, its start is profiled.
. "$(dirname "$0")/lib.sh"

expect 0 run -o true.pb.gz -- true
said '^cpu: .* -> true\.pb\.gz \('
cprof run -o f.pb.gz -- false
check "false's status" test "$status" = 1
for code in 2 3 77 255; do
	cprof run -o "$code.pb.gz" -- sh -c "exit $code"
	check "status $code" test "$status" = $code
	check "a file for status $code" gzip -t "$code.pb.gz"
done
cprof run -o s.pb.gz -- sh -c 'kill -KILL $$'
check "SIGKILL gives 137" test "$status" = 137
cprof run -o s.pb.gz -- sh -c 'kill -TERM $$'
check "SIGTERM gives 143" test "$status" = 143
cprof run -o no.pb.gz -- ./does-not-exist
check "not found gives 127" test "$status" = 127
check "one line" one_line_error
cprof run -o no.pb.gz -- no-such-command-anywhere
check "not found in PATH gives 127" test "$status" = 127
echo text >plain
cprof run -o no.pb.gz -- ./plain
check "not executable gives 126" test "$status" = 126
check "one line" one_line_error
cprof run -o no.pb.gz -- .
check "a directory gives 126" test "$status" = 126
check "no file for what never ran" test ! -e no.pb.gz

# Nothing is run when the profile could not be kept.
expect 1 run -o missing/dir.pb.gz -- touch was-run
expect 2 run -o %z -- touch was-run
expect 2 run -e nonsense -- touch was-run
check "the command was not run" test ! -e was-run

# Options end at the command.
cprof run -q -o o.pb.gz sh -c 'echo "$1"' - -q
printed '^-q$'
echo through | "$cprof" run -q -o o.pb.gz -- cat >out
printed '^through$'
cprof run -o - -- true
check "the profile on stdout" gzip -t out

# The command starts as it would without us.
env --list-signal-handling true >plain.signals 2>&1 </dev/null
"$cprof" run -q -o o.pb.gz -- env --list-signal-handling true >our.signals 2>&1 </dev/null
check "signal handling is passed on" cmp plain.signals our.signals
find /proc/self/fd/ </dev/null | wc -l >plain.fds
"$cprof" run -q -o o.pb.gz -- find /proc/self/fd/ </dev/null | wc -l >our.fds
check "no descriptors are left to it" cmp plain.fds our.fds

# -d shorter than the command: it goes on and is awaited.
begin=$SECONDS
cprof run -d 0.3 -o d.pb.gz --stats d.json -- sh -c 'sleep 2; echo finished; exit 9'
check "status after -d" test "$status" = 9
check "awaited" test $((SECONDS - begin)) -ge 2
printed '^finished$'
check "sampling ended before" json_holds d.json 'd["duration_ns"] < 1.5e9'

# Signals
start "$cprof" run -o term.pb.gz -- sleep 60
check "sleep begins" wait_for 10 pgrep -P "$pid" -x sleep
kill -TERM "$pid"
await "$pid"
check "SIGTERM is passed on" test "$status" = 143
check "and the profile written" gzip -t term.pb.gz
start "$cprof" run -d 0.2 -o after.pb.gz -- sleep 60
check "written after -d" wait_for 10 test -s after.pb.gz
kill -TERM "$pid"
await "$pid"
check "SIGTERM is passed on after -d" test "$status" = 143
start setsid env --default-signal=INT "$cprof" run -o int.pb.gz -- sh -c 'trap "exit 4" INT; while :; do sleep 0.1; done'
check "sh begins" wait_for 10 pgrep -P "$pid" -x sh
sleep 0.3
kill -INT -- "-$pid"
await "$pid"
check "Ctrl-C: the command decides" test "$status" = 4
check "and the profile is written" gzip -t int.pb.gz

# From the first instruction, with the command's own names.
cprof run -o service.pb.gz --stats service.json -- "$O/workloads/service" 2
check "service's status" test "$status" = 0
check "samples" json_holds service.json 'd["samples"] > 20'
pprof -top service.pb.gz >top
for name in shop::parse_order shop::render; do check "$name" grep -q "$name" top; done
check "nothing of ours" test "$(grep -c cprof_ top)" = 0

# A command that is over before we look at it for the first time: its program comes first all the same.
for round in 1 2 3; do
	start "$cprof" run -o "over$round.pb.gz" -- "$O/workloads/burst"
	check "the profiler sleeps meanwhile" wait_for 5 sh -c "grep -q 'State:.T' /proc/$pid/status"
	check "the command has ended" wait_for 20 sh -c "ps -o stat= --ppid $pid | grep -q Z"
	kill -CONT "$pid"
	await "$pid"
	check "its program is the main one" sh -c "go tool pprof -symbolize=none -top over$round.pb.gz 2>&1 | grep -q '^File: burst'"
done
finish

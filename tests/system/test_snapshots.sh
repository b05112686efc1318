#!/usr/bin/env bash
# Stopping threads must leave no trace in the target: short versions of the torture, and the states
# a thread can be in.
. "$(dirname "$0")/lib.sh"

check "300 snapshots, every kind of blocking call" "$tests/torture/snapshots.sh" 300

# Children that end meanwhile end nobody's call
"$O/workloads/reaper" >reaper.out 2>&1 </dev/null &
reaper=$!
pids+=("$reaper")
wait_for 5 grep -q ready reaper.out
check "snapshots of a parent" "$O/tools/snap" "$reaper" 300
kill -TERM "$reaper"
if wait "$reaper"; then pass; else fail "SIGCHLD" reaper.out; fi

# A stopped process stays stopped, and goes on when told to
start sleep 100
kill -STOP "$pid"
wait_for 2 test "$(state_of "$pid")" = T
check "snapshots of a stopped process" "$O/tools/snap" "$pid" 5
sleep 0.1
check "it is still stopped" test "$(state_of "$pid")" = T
kill -CONT "$pid"
is_asleep() { [ "$(state_of "$pid")" = S ]; }
check "it goes on" wait_for 2 is_asleep

# A vfork parent cannot be stopped: the others are held for it a moment only
start "$O/workloads/vforker"
sleep 0.3
"$O/tools/snap" "$pid" 10 50000 >snap.json || fail "vfork" snap.json
check "stragglers are told" json_holds snap.json 'd["unstoppable"] >= 5'
check "and not waited for long" json_holds snap.json 'd["stopped_ms_p50"] < 60'
check "vfork parents come back" wait_for 5 test "$("$O/tools/snap" "$pid" 1 >/dev/null; grep -h ^State /proc/"$pid"/task/*/status | grep -c 't (tracing')" = 0

# The profiler is killed at any moment: nobody stays stopped, no call is ended
"$O/workloads/oracle" plain >oracle.out 2>&1 </dev/null &
oracle=$!
pids+=("$oracle")
wait_for 5 grep -q ready oracle.out
for i in $(seq 60); do
	"$O/tools/snap" "$oracle" 1000 >/dev/null 2>&1 &
	victim=$!
	sleep "0.0$((i % 10))$((i % 7))"
	kill -KILL "$victim"
	wait "$victim" 2>/dev/null
done
untraced() { ! grep -qs 'TracerPid:.[1-9]' /proc/"$oracle"/task/*/status; }
check "nobody is left traced" wait_for 5 untraced
kill -TERM "$oracle"
if wait "$oracle"; then pass; else fail "killed profilers: the oracle: $(grep BAD oracle.out)"; fi
finish

#!/usr/bin/env bash
# snapshots.sh [COUNT]: so many snapshots of a program with a thread in every kind of blocking call,
# alone and in a storm of births and signals: no call may return otherwise than unprofiled.
. "$(dirname "$0")/../system/lib.sh"
count=${1:-10000}

for mode in plain storm; do
	"$O/workloads/oracle" $mode >oracle.$mode 2>&1 </dev/null &
	oracle=$!
	pids+=("$oracle")
	wait_for 5 grep -q ready oracle.$mode || fail "$mode: not ready" oracle.$mode
	if "$O/tools/snap" "$oracle" "$count" >snap.$mode 2>&1; then pass; else fail "$mode: snapshots" snap.$mode; fi
	echo "$mode: $(cat snap.$mode)"
	kill -TERM "$oracle"
	if wait "$oracle"; then pass; else fail "$mode: the oracle: $(grep BAD "oracle.$mode")"; fi
done
finish

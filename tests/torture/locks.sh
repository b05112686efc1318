#!/usr/bin/env bash
# locks.sh [ROUNDS [KILLS]]: mutex and heap profiles attached and detached over and over on programs
# that take every kind of lock and look whether anybody else is inside; a kill of the profiler after
# each step of the injection, and at random moments; and the same answers as without hooks. No
# program may meet anybody, crash or hang; none may be left hooked.
. "$(dirname "$0")/../system/lib.sh"
rounds=${1:-300}
kills=${2:-30}
inject=$O/tools/inject
storm=$O/workloads/lockstorm
points='seized stopped framed registers masked memfd-entry memfd opened filled map-entry mapped ready
running routine-mapped routine-half routine-done done interrupted unmasked restored released'

begin() { # ARGS...: a storm; its pid in $target
	"$storm" storm "$@" >storm.out 2>&1 </dev/null &
	target=$!
	pids+=("$target")
	wait_for 5 grep -q ready storm.out || fail "$*: not ready" storm.out
}
finish_target() { # WHAT
	"$cprof" detach -p "$target" --check >check.log 2>&1 || "$cprof" detach -p "$target" >check.log 2>&1 ||
		fail "$1: not clean" check.log
	kill -CONT "$target" 2>/dev/null
	kill -TERM "$target" 2>/dev/null
	if timeout 60 tail --pid="$target" -f /dev/null && wait "$target" && grep -q '^ok' storm.out; then
		pass
	else
		fail "$1: the program" storm.out
	fi
	echo "$1: $2, $(tail -n 1 storm.out)"
}

for mode in "" fork "cancel cond" "fork cancel cond"; do
	# shellcheck disable=SC2086
	begin 8 $mode
	taken=0
	kinds=(mutex "heap,mutex")
	for i in $(seq "$rounds"); do
		timeout 60 "$cprof" record -q -p "$target" -e "${kinds[i % 2]}" --mutex-rate $((i % 4 * 5 + 1)) \
			-d 0.1 -o '%e.pb.gz' >record.log 2>&1 && taken=$((taken + 1))
		kill -0 "$target" 2>/dev/null || break
	done
	check "$mode: $taken of $rounds" test "$taken" = "$rounds"
	finish_target "storm $mode" "$taken taken"
done

# stopped and continued all the time
begin 4
(while kill -STOP "$target" 2>/dev/null; do
	sleep 0.01
	kill -CONT "$target"
	sleep 0.02
done) &
stopper=$!
taken=0
for _ in $(seq 60); do
	timeout 60 "$cprof" record -q -p "$target" -e mutex -d 0.1 -o m.pb.gz >record.log 2>&1 && taken=$((taken + 1))
done
kill "$stopper"
finish_target "stopped and continued" "$taken of 60 taken"

# a kill after each step, and at random
begin 8 cond
count=0
for point in $points; do
	for victim in tracer profiler both; do
		for _ in $(seq "$((kills / 3 + 1))"); do
			(INJECT_KINDS=3 CPROF_ATTACH_FAULT=$point:$victim timeout 60 "$inject" "$target" 1; true) >/dev/null 2>&1
			kill -0 "$target" 2>/dev/null || { fail "dead after $point:$victim" storm.out && break 3; }
			count=$((count + 1))
		done
	done
	timeout 60 "$inject" clean "$target" >clean.log 2>&1 || fail "$point: clean" clean.log
done
for _ in $(seq "$((kills * 3))"); do
	("$cprof" record -q -p "$target" -e heap,mutex -d 5 -o '%e.pb.gz' & pid=$!
	sleep "0.$((RANDOM % 3))$((RANDOM % 10))"; kill -KILL $pid; wait) >/dev/null 2>&1
	kill -0 "$target" 2>/dev/null || { fail "dead after a random kill" storm.out && break; }
	count=$((count + 1))
done
finish_target "kills" "$count kills"

# the same answers
for seed in $(seq 20); do
	"$storm" conform "$seed" 20000 >plain
	"$cprof" run -q -e heap,mutex --mutex-rate $((seed % 3 + 1)) -o '%e.pb.gz' -- "$storm" conform "$seed" 20000 >hooked 2>record.log
	if cmp -s plain hooked; then pass; else fail "seed $seed: other answers" plain hooked record.log; fi
done
echo "the same answers: 20 programs of 20,000 steps"
finish

#!/usr/bin/env bash
# inject.sh [CYCLES [KILLS]]: attaches in storms, kills of the tracer, the profiler, both and the
# target after each step so many times, and five times as many at random moments. No target may die
# of ours, compute wrongly, or see an EINTR or a lost signal.
. "$(dirname "$0")/../system/lib.sh"
cycles=${1:-10000}
kills=${2:-100}
inject=$O/tools/inject
quiet='"hooked": 0, "mapped": 0, "memfd": 0'
points='seized stopped framed registers masked memfd-entry memfd opened filled map-entry mapped ready
running routine-mapped routine-half routine-done done interrupted unmasked restored released'

begin() { # WORKLOAD ARGS...: its pid in $target, its output in target.out
	"$O/workloads/$1" "${@:2}" >target.out 2>&1 </dev/null &
	target=$!
	pids+=("$target")
	wait_for 5 grep -q ready target.out || fail "$*: not ready" target.out
}
finish_target() { # WHAT
	kill -TERM "$target"
	if wait "$target"; then pass; else fail "$1: the target" target.out; fi
}
alive() { kill -0 "$target" 2>/dev/null; }
cleaned() { # WHAT
	timeout 60 "$inject" clean "$target" >clean.log 2>&1 || { fail "$1: clean" clean.log && return; }
	"$inject" find "$target" >clean.log 2>&1
	if grep -q "$quiet" clean.log; then pass; else fail "$1: not clean" clean.log; fi
}

attach() { # WHAT COUNT
	# a profiler that waits for a CPU among 64 busy threads would take hours
	if timeout 7200 nice -n -20 "$inject" "$target" "$2" 1 >figures 2>&1; then pass; else fail "$1" figures; fi
	echo "$1: $(cat figures)"
}

# --- attach and leave ---
begin churn 64
attach "churn, 64 threads" "$cycles"
finish_target "churn"
for mode in plain storm; do
	begin oracle $mode
	attach "oracle $mode" "$((cycles / 10))"
	finish_target "oracle $mode"
done
begin churn 4 fds
attach "descriptors closed over and over" "$((cycles / 100))"
cleaned "descriptors"
finish_target "descriptors"

# --- stopped and continued all the time ---
begin churn 4
(while kill -STOP "$target" 2>/dev/null; do
	sleep 0.01
	kill -CONT "$target"
	sleep 0.02
done) &
storm=$!
good=0
for _ in $(seq 100); do timeout 20 "$inject" "$target" 1 1 >figures 2>&1 && good=$((good + 1)); done
kill "$storm"
kill -CONT "$target"
echo "SIGSTOP storm: $good of 100 attached, the others were refused"
cleaned "SIGSTOP storm"
finish_target "SIGSTOP storm"

# --- a kill after each step, and at random ---
for workload in "churn 8" "oracle plain"; do
	# shellcheck disable=SC2086
	begin $workload
	count=0
	for point in $points; do
		for victim in tracer profiler both; do
			for _ in $(seq "$((kills / 3 + 1))"); do
				(CPROF_ATTACH_FAULT=$point:$victim timeout 60 "$inject" "$target" 1; true) >/dev/null 2>&1
				alive || { fail "$workload: dead after $point:$victim" target.out && break 3; }
				count=$((count + 1))
			done
		done
		cleaned "$workload $point"
	done
	for _ in $(seq "$((kills * 5))"); do
		("$inject" "$target" 100 1 & pid=$!; sleep "0.0$((RANDOM % 100))"; kill -KILL $pid; wait) >/dev/null 2>&1
		alive || { fail "$workload: dead after a random kill" target.out && break; }
		count=$((count + 1))
	done
	cleaned "$workload at random"
	echo "$workload: $count kills"
	finish_target "$workload: after kills"
done

# --- a kill of the target: we end within two seconds, and say so if there was anything left to do ---
count=0
for point in $points; do
	for _ in $(seq "$kills"); do
		# not a job of ours: nobody has to be told of its death
		("$O/workloads/churn" 2 >target.out 2>&1 </dev/null & echo $! >target.pid)
		until grep -q ready target.out; do sleep 0.002; done
		target=$(cat target.pid)
		CPROF_ATTACH_FAULT=$point:target timeout 2 "$inject" "$target" 1 >out 2>err
		status=$?
		case $status:$(wc -l <err) in
		4:1 | 0:0) ;;
		*) fail "target killed at $point: status $status" err ;;
		esac
		count=$((count + 1))
	done
done
check "$count targets killed" true
echo "$count targets killed"
finish

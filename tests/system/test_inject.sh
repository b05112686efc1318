#!/usr/bin/env bash
# The agent planted and removed: what it leaves, what is refused, and a kill after each step.
. "$(dirname "$0")/lib.sh"
inject=$O/tools/inject
quiet='"hooked": 0, "mapped": 0, "memfd": 0'

start_churn() { # ARGS...: its pid in $churn
	"$O/workloads/churn" "$@" >churn.out 2>&1 </dev/null &
	churn=$!
	pids+=("$churn")
	wait_for 5 grep -q ready churn.out || fail "churn $*: not ready" churn.out
}
end_churn() { # WHAT: it must have been right all along
	kill -TERM "$churn"
	if wait "$churn" && grep -q '^ok' churn.out; then pass; else fail "$1: the target" churn.out; fi
}
is_clean() { "$inject" find "$churn" >found 2>&1 && grep -q "$quiet" found; }
# Mappings but for the agent's resident part and the allocator's own arenas.
protections() { awk '$6 ~ /^\// && $6 !~ /memfd/ { print $1, $2, $6 }' "/proc/$churn/maps"; }

# --- plant and leave ---
start_churn 8
protections >before
check "once" timeout 20 "$inject" "$churn" 1 20
check "clean after it" is_clean
check "adopted" sh -c "timeout 60 $inject $churn 20 5 >figures && grep -q '\"adopted\": 20' figures"
check "six stops" grep -q '"stops_max": [1-8],' figures
check "no slot left" grep -q '"left": 0,' figures
protections >after
check "maps as before" diff before after
check "one text of 56 KiB" test "$(grep -c memfd:cprof-agent "/proc/$churn/maps")" = 1

# A real-time thread that spins for us, on the only CPU there is, must not keep us from it: it would
# then restore itself, and see EINTR.
start taskset -c 0 chrt -f 5 "$python" -c '
import ctypes, time
time.sleep(0)
word = (ctypes.c_long * 2)(1000, 0)
print("woken", ctypes.CDLL(None).nanosleep(word, None), flush=True)'
sleep 1
if kill -0 "$pid" 2>/dev/null; then
	check "real-time" timeout 60 taskset -c 0 "$inject" "$pid" 10
	check "a real-time thread sleeps on" kill -0 "$pid"
	kill -KILL "$pid"
else
	skip "no real-time priorities"
fi

# --- a killed profiler's remains ---
timeout 20 "$inject" "$churn" 1 5 keep
refuse "not clean" is_clean
check "removed" timeout 20 "$inject" clean "$churn"
check "clean again" is_clean
timeout 20 "$inject" "$churn" 1 5 keep
check "planted over it" timeout 20 "$inject" "$churn" 1 5
check "clean after that" is_clean

# --- a kill after each step ---
for point in seized stopped framed registers masked memfd-entry memfd opened filled map-entry mapped \
	ready running routine-mapped routine-half routine-done "done" interrupted unmasked restored released; do
	(CPROF_ATTACH_FAULT=$point:both timeout 20 "$inject" "$churn" 1; true) >/dev/null 2>&1
	kill -0 "$churn" 2>/dev/null || fail "dead after a kill at $point"
	check "$point: removed" timeout 20 "$inject" clean "$churn"
	check "$point: clean" is_clean
done
# A routine that gets little CPU outlives its tracer by long: nothing is taken from under it.
spinners=()
for _ in 1 2 3 4; do
	start "$python" -c 'while True: pass'
	spinners+=("$pid")
done
renice -n 15 -p "$churn" >/dev/null
for _ in 1 2 3; do
	(CPROF_ATTACH_FAULT=routine-mapped:both timeout 20 "$inject" "$churn" 1; true) >/dev/null 2>&1
	timeout 20 "$inject" clean "$churn" >/dev/null 2>&1
	kill -0 "$churn" 2>/dev/null || fail "dead for want of CPU"
done
kill -KILL "${spinners[@]}"
check "clean after all" wait_for 20 "$inject" clean "$churn"
# A call that was restarted before is still known when the thread has to restore itself.
"$O/workloads/pollers" 120 >pollers.out 2>&1 </dev/null &
pollers=$!
pids+=("$pollers")
wait_for 5 grep -q ready pollers.out || fail "pollers: not ready" pollers.out
for _ in 1 2 3; do "$inject" "$pollers" 1 >/dev/null 2>&1; done
for point in framed registers memfd mapped ready; do
	(CPROF_ATTACH_FAULT=$point:tracer timeout 20 "$inject" "$pollers" 1; true) >/dev/null 2>&1
	"$inject" clean "$pollers" >/dev/null 2>&1
done
kill -TERM "$pollers"
await "$pollers"
check "no poll is interrupted by a killed tracer" grep -q '^interrupted 0 0$' pollers.out

refuse "no such point" env CPROF_ATTACH_FAULT=nowhere "$inject" "$churn" 1

# --- refused ---
kill -STOP "$churn"
wait_for 5 grep -q '^State:.T' "/proc/$churn/status"
timeout 20 "$inject" "$churn" 1 >out 2>err
check "stopped: status 3" test $? = 3
check "stopped: told" grep -q 'stopped by a signal' err
check "still stopped" grep -q '^State:.T' "/proc/$churn/status"
kill -CONT "$churn"
end_churn "unharmed"

for mode in kill refuse; do
	start_churn 2 $mode
	timeout 20 "$inject" "$churn" 1 >out 2>err
	check "seccomp $mode: status 3" test $? = 3
	check "seccomp $mode: told" grep -Eq 'seccomp filter .* (memfd_create|mprotect)' err
	end_churn "seccomp $mode"
done
start_churn 2 strict
timeout 20 "$inject" "$churn" 1 >out 2>err
check "strict: status 3" test $? = 3
check "strict: told" grep -q 'strict mode' err
kill -KILL "$churn"

# --- allowed ---
for mode in allow mdwe; do
	start_churn 4 $mode
	check "$mode" timeout 20 "$inject" "$churn" 3 5
	end_churn "$mode"
done
start_churn 4
prlimit --pid "$churn" --fsize=0:
check "no file size" timeout 20 "$inject" "$churn" 1 5
prlimit --pid "$churn" --nofile=3:
timeout 20 "$inject" "$churn" 1 5 >out 2>err
check "no descriptors: status 3" test $? = 3
check "no descriptors: told" grep -q 'Too many open files' err
prlimit --pid "$churn" --nofile=64:
prlimit --pid "$churn" --as=$((1 << 20)):
timeout 20 "$inject" "$churn" 1 5 >out 2>err
check "no address space: status 3" test $? = 3
check "no address space: clean" is_clean
prlimit --pid "$churn" --fsize=1000000: 2>/dev/null
end_churn "limits"

# --- among others that never rest ---
# What has just been born can wait for seconds here, even for those that only take idle time.
start_churn 2
for cpu in $(seq 0 $(($(nproc) - 1))); do
	chrt -i 0 taskset -c "$cpu" sh -c 'while :; do :; done' &
	pids+=($!)
	others="${others:-} $!"
done
check "beside busy others" timeout 60 "$inject" "$churn" 60
# shellcheck disable=SC2086
kill $others
end_churn "beside busy others"

# --- the target is killed ---
for point in stopped memfd mapped running "done"; do
	start_churn 2
	CPROF_ATTACH_FAULT=$point:target timeout 3 "$inject" "$churn" 1 >out 2>err
	check "$point: status 4" test $? = 4
done

# --- from the first instruction ---
check "run" sh -c "$O/tools/runheap 50 /bin/sh -c 'sleep 0.2; exit 7' >out; test \$? = 7"
check "slots from the start" grep -q 'patched [1-9]' out
printf '#!/bin/sh\nexit 5\n' >script && chmod +x script
check "a script" sh -c "$O/tools/runheap -1 ./script >out; test \$? = 5"
check "no such command" sh -c "timeout 10 $O/tools/runheap 0 ./none >out 2>err; test \$? = 127"
finish

#!/usr/bin/env bash
# What a live view asks of a session: figures, windows, kinds that are begun on the way, the list of
# threads beside a dump.
. "$(dirname "$0")/lib.sh"
live=$O/tools/live

ready() { # COMMAND...: begins it and waits for it to say so
	rm -f ready.out
	"$@" >ready.out 2>>start.log </dev/null &
	pid=$!
	pids+=("$pid")
	wait_for 20 grep -q ready ready.out || fail "$* is not ready" start.log
}
quit() {
	kill -KILL "$1"
	wait "$1" 2>/dev/null
}
# A thread may have moved between the two: once more, then.
same_waits() {
	for _ in 1 2 3; do
		"$live" "$pid" waits >waits.out 2>err || return 1
		awk -F'|' 'NF > 3 && $2 == "S" && ($3 != $4 || ($6 != "" && index($7, $6) == 0)) { bad = 1 }
			END { exit bad }' waits.out && return
		sleep 0.3
	done
	cat waits.out
	return 1
}

# --- threads ------------------------------------------------------------------------------------
for mode in kinds circle pair self gone relock writer garbage; do
	ready "$O/workloads/waits" $mode
	sleep 0.3
	check "waits $mode: the list says what a dump says" same_waits
	deadlocks=$(sed -n 's/^deadlocks: //p' waits.out)
	if [ "$deadlocks" = 0 ]; then
		check "waits $mode: no deadlock" grep -q '^deadlock: $' waits.out
	else
		check "waits $mode: deadlock" grep -Eq '^deadlock: .*(another: [0-9]+ -> |itself)' waits.out
	fi
	if [ $mode = kinds ]; then
		check "the owner is named" grep -q '^mutex|S|mutex|.*|held by "main" [0-9]*, mutex in waits|futex$' waits.out
		check "system calls" grep -Eq '^sleep\|S\|sleep\|.*(clock_nanosleep|restart_syscall)$' waits.out
	fi
	quit "$pid"
done

# --- figures and windows ------------------------------------------------------------------------
start "$O/workloads/service" 60
check "a service" "$live" "$pid" 6 499 3
cp check.log lines
check "six lines" test "$(wc -l <lines)" = 6
tail -n 1 lines >last
check "figures" json_holds last '0.05 < d["cpu"] < 3 and 0 <= d["own_cpu"] < 2 and d["uptime"] > 5 and
	d["own_rss"] > 1 << 20 and d["complete"] > 0.9 and d["samples"] > 100 and d["ended"] == 0'
check "a window" json_holds last 'd["window_samples"] > 5 and d["threads"] == 3'
check "names come" json_holds last 'd["unnamed"] < d["stacks"]'
check "summary lines" test "$(sed 's/.*"lines":\([0-9]*\).*/\1/' lines | paste -sd+ | bc 2>/dev/null || echo 3)" -ge 2

# --- kinds --------------------------------------------------------------------------------------
quit "$pid"
start "$O/workloads/leaky" 60
sleep 0.3
check "heap on the way" "$live" "$pid" begin heap alloc_space
cp check.log out
if grep -q '^refused' out; then
	skip "heap: $(grep '^refused' out)"
else
	printed '^heap: off: .*agent'
	printed '^heap: on: [0-9]+ modules covered'
	printed '^alloc_space: [1-9]'
fi
printed '^cpu: on'
printed '^live: 1'
expect 0 detach -p "$pid"
printed 'clean.* 0 slots|no agent'
check "block on the way" "$live" "$pid" begin block delay
cp check.log out
printed '^block: (on|off: could not)'
printed '^live: 1'
quit "$pid"
ready "$O/workloads/waits" kinds
check "a window of waits" "$live" "$pid" begin block delay
cp check.log out
if grep -q '^block: on' out; then
	threads=$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)
	grep '"window"' out >part
	# Everybody sleeps all the time.
	check "it is of its seconds" json_holds part "1 <= d['window'] < 3.5 and
		0.8 * $threads < d['sum'] / d['window'] < 1.01 * $threads"
fi
check "what there is not" "$live" "$pid" begin cycles cycles
cp check.log out
printed '^cycles: absent: another clock'
printed '^refused: cycles'
quit "$pid"

# A program that bypasses every hook is refused, and sampling goes on.
cat >static.c <<'C'
int main(void)
{
	for (volatile unsigned long i = 0;; i++)
		;
}
C
if cc -static -O1 -o static static.c 2>build.log; then
	start ./static
	check "heap of a static program" "$live" "$pid" begin heap alloc_space
	cp check.log out
	printed '^refused: '
	printed '^heap: off: could not be started: '
	printed '^cpu of [01]\.[0-9] s: [0-9.]*[1-9]'
	printed '^live: 1'
	quit "$pid"
fi

# --- the end ------------------------------------------------------------------------------------
start sh -c 'exec 3>&1; exec sleep 2.5'
check "a program that ends" "$live" "$pid" 8
cp check.log lines
check "it did not hang" test "$(wc -l <lines)" -lt 8
tail -n 1 lines >last
check "it is told" json_holds last 'd["ended"] == 1 and d["how"] in ("", "exit status 0")'
finish

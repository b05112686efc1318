#!/usr/bin/env bash
# memtrace on real programs: the shape of its lines, its shares against what a program knows of
# itself, its warnings, its ends.
. "$(dirname "$0")/lib.sh"

n='[0-9]+'
shape="^heap $n @$n\\.[0-9]{3}s $n%: $n ms clock, $n\\+$n/($n|\\?) ms cpu, ~\\+($n|\\?)-($n|\\?) MB, ~($n|\\?)->($n|\\?)->($n|\\?) MB, ($n|\\?) MB rss, ($n|-) MB goal, (\\?|$n%) frag, ($n|\\?) T, ($n|\\?) P\$"
lines() { # COUNT: so many lines in `out`, all of the shape, numbered from 1
	check "$1 lines: $(wc -l <out)" test "$(grep -Ec "$shape" out)" = "$1" -a "$(wc -l <out)" = "$1"
	check "numbers" test "$(sed -n 's/^heap \([0-9]*\) .*/\1/p' out | tr '\n' ' ')" = "$(seq -s ' ' "$1") "
}
warned() { grep -c "^cprof-attach: warning: .*$1" err; }
# Sums over all lines: ms of malloc side, free side, kernel; and the last share.
sums() { sed -E 's/^heap [0-9]+ @[^ ]+ ([0-9]+)%: [0-9]+ ms clock, ([0-9]+)\+([0-9]+)\/([0-9]+) .*/\1 \2 \3 \4/' out |
	awk '{ share = $1; a += $2; b += $3; k += $4 } END { print a, b, k, share }'; }

# Usage
expect 2 memtrace
expect 2 memtrace --no-inject
expect 2 memtrace -p 1 -- true
expect 2 memtrace -p 1 -n 0
expect 2 memtrace -p 1 -i 0
expect 2 memtrace -p 1 --leak-heap 0
expect 2 memtrace -p 1 -o file
expect 4 memtrace -p 2147483647 --no-inject
expect 127 memtrace --no-inject -- ./no-such-program
expect 126 memtrace --no-inject -- "$work"

# A program that knows its shares
shares() { # WHAT ARGS...: against what the program said when it ended
	local what=$1 a b k share
	shift
	"$O/workloads/allocating" 2 >truth 2>&1 &
	pid=$!
	pids+=("$pid")
	sleep 0.2
	cprof memtrace -p "$pid" --no-inject -F 499 "$@"
	check "$what: status $status" test "$status" = 0
	said "process $pid ended by itself"
	wait "$pid"
	read -r a b k share < <(sums)
	echo "$what: malloc $a free $b kernel $k share $share% of $(tr '\n' ' ' <truth)"
	# The program counts its loops and clocks as well: somewhat less.
	check "$what: share $share%" awk -v s="$share" '
		{ v[$1] = $2 } END { t = 100 * (v["malloc"] + v["free"]); exit !(s > t - 12 && s < t + 6) }' truth
	check "$what: malloc to free, $a to $b" awk -v a="$a" -v b="$b" '
		{ v[$1] = $2 } END { t = v["malloc"] / (v["malloc"] + v["free"]); g = a / (a + b)
		exit !(g > t - 0.12 && g < t + 0.12) }' truth
	is_root && check "$what: kernel, $k ms" awk -v s="$((a + b))" -v k="$k" '
		{ v[$1] = $2 } END { t = v["kernel"] / (v["malloc"] + v["free"]); g = k / s
		exit !(g > t * 0.6 && g < t * 1.5) }' truth
}
shares "glibc"
lines "$(wc -l <out)"
check "one warning of the share" test "$(warned 'the allocator takes')" = 1
said '^    another allocator \(LD_PRELOAD of jemalloc or tcmalloc\): [0-9]+% of'
shares "glibc without debug files" --debug-dir "$work/none" -i 500ms
for library in libjemalloc.so.2 libtcmalloc_minimal.so.4; do
	path=$(ldconfig -p | sed -n "s/.*$library .*=> //p" | head -n 1)
	[ -n "$path" ] || { skip "no $library"; continue; }
	export LD_PRELOAD=$path
	"$O/workloads/allocating" 2 >truth 2>&1 &
	pid=$!
	pids+=("$pid")
	unset LD_PRELOAD
	sleep 0.2
	cprof memtrace -p "$pid" --no-inject -F 499
	wait "$pid"
	read -r a b k share < <(sums)
	echo "$library: malloc $a free $b kernel $k share $share% of $(tr '\n' ' ' <truth)"
	check "$library: $share%" test "$share" -gt 30 -a "$share" -lt 62
	# Where internal functions have no names, all of what they are called by is malloc's side.
	check "$library: both sides" test "$a" -gt 50 -a "$b" -gt 10
	check "$library: a warning" test "$(warned 'the allocator takes')" = 1
	check "$library: no advice to take another" test "$(grep -c 'another allocator' err)" = 0
done

# With the agent: what is live, allocated and freed
heap_of() { # of `out`: allocated - freed, growth of live, last live, growth of RSS; in MB
	sed -E 's/.* ~\+([0-9]+)-([0-9]+) MB, ~([0-9]+)->([0-9]+)->([0-9]+) MB, ([0-9]+) MB rss.*/\1 \2 \3 \4 \5 \6/' out |
		awk 'NR == 1 { start = $3; rss = $6 } { a += $1; f += $2; if ($4 < $3 || $4 < $5) bad = 1 }
			END { print a - f, $5 - start, $5, $6 - rss, bad + 0 }'
}
start "$O/workloads/allocating" 60 leak
sleep 0.5
cprof memtrace -p "$pid" -n 4 --leak-heap 30M
lines 4
read -r net live last rss bad < <(heap_of)
echo "leak: allocated - freed $net, live $live, $last; RSS $rss"
check "nothing unknown" test "$(grep -c '~+[0-9]*-[0-9]* MB, ~[0-9]*->[0-9]*->[0-9]* MB' out)" = 4
check "peaks are highest" test "$bad" = 0
check "allocated - freed is live: $net, $live" test $((net - live)) -le 4 -a $((live - net)) -le 4
check "a megabyte, twenty times a second: $last" test "$last" -ge 40 -a "$last" -le 90
check "one warning of memory" test "$(warned 'memory may leak: ~[0-9]* MB live now, ~[0-9]* MB at first')" = 1
cprof memtrace -p "$pid" -n 2 --heap-rate 1
lines 2
read -r net live last rss bad < <(heap_of)
check "exactly: $net, $live" test $((net - live)) -le 2 -a $((live - net)) -le 2 -a "$last" -ge 25 -a "$last" -le 45
kill -TERM "$pid"
await "$pid"
check "it ends as it would" test "$status" = 0
# A command, from its first instruction
expect 0 memtrace -i 500ms --heap-rate 1 -- "$python" -c '
import time
keep = [bytearray(1000000) for i in range(40)]; time.sleep(2.2)'
lines "$(wc -l <out)"
check "a command's live bytes" awk '/MB rss/ { n = split($0, f, "->"); split(f[n], g, " "); if (g[1] >= 38 && g[1] <= 60) good++ }
	END { exit !(good >= 2) }' out
expect 9 memtrace -- sh -c 'exit 9'
lines 1
# Where no agent can be put in: without, and the rule is told once
if command -v strace >/dev/null; then
	start "$python" -c 'import time; time.sleep(100)'
	traced=$pid
	start strace -o strace.log -p "$traced"
	wait_for 20 grep -Eq 'TracerPid:.[1-9]' "/proc/$traced/status"
	cprof memtrace -p "$traced" -n 3 -i 200ms
	lines 3
	check "status" test "$status" = 0
	check "one note: $(wc -l <err)" test "$(wc -l <err)" = 1
	said 'note: allocations are not seen: .*strace'
	printed '~\+\?-\? MB, ~\?->\?->\? MB'
	kill -TERM "$pid"
else
	skip "no strace"
fi

# Leaks
start "$O/workloads/allocating" 60 leak
leaking=$pid
sleep 0.5
cprof memtrace -p "$leaking" --no-inject -i 500ms -n 8 --leak-threads 20 --leak-heap 20M
lines 8
check "status" test "$status" = 0
check "one warning of threads" test "$(warned 'threads may leak: [0-9]* now, [0-9]* at first')" = 1
check "one warning of memory" test "$(warned 'memory may leak: [0-9]* MB resident now, [0-9]* MB at first')" = 1
check "threads grow" awk '{ t = $(NF - 3); if (NR == 1) f = t } END { exit !(t > f + 20) }' out
check "memory grows" awk '{ r = $(NF - 11); if (NR == 1) f = r } END { exit !(r > f + 20) }' out
cprof memtrace -p "$leaking" --no-inject -i 200ms -n 3 -q --leak-threads 1
lines 3
check "-q: nothing else" test ! -s err
cprof memtrace -p "$leaking" --no-inject -i 200ms -n 3 --leak-threads 1000 --leak-heap 10G
check "no warning" test ! -s err

# Ends: Ctrl-C, the target's death, a reader that goes, a full device
for signal in INT TERM; do
	"$cprof" memtrace -p "$leaking" --no-inject -i 200ms >out 2>err </dev/null &
	tracer=$!
	enough() { [ "$(grep -Ec "$shape" out)" -ge 4 ]; }
	wait_for 20 enough
	kill -$signal "$tracer"
	wait "$tracer"
	status=$?
	check "SIG$signal: $status" test "$status" = 0
	check "SIG$signal: lines" test "$(grep -Ec "$shape" out)" -ge 4
	check "SIG$signal: all whole" test "$(grep -Evc "$shape" out)" = 0
done
check "a line at once" sh -c "'$cprof' memtrace -p $leaking --no-inject -i 100ms 2>err | head -n 2 >out"
check "two lines came through" test "$(grep -Ec "$shape" out)" = 2
"$cprof" memtrace -p "$leaking" --no-inject -i 100ms >/dev/full 2>err </dev/null
status=$?
check "a full device: $status" test "$status" = 1
check "says so" one_line_error
"$cprof" memtrace -p "$leaking" --no-inject -i 10s >out 2>err </dev/null &
tracer=$!
sleep 1
kill -KILL "$leaking"
begin=$SECONDS
wait "$tracer"
status=$?
check "killed target: $status" test "$status" = 0 -a $((SECONDS - begin)) -lt 5
said "process $leaking ended by itself"
lines 1 # what came before the end

# A command
expect 0 memtrace --no-inject -i 200ms -- sleep 1
check "sleep's lines" test "$(wc -l <out)" -ge 3 -a "$(wc -l <out)" -le 6
lines "$(wc -l <out)"
check "no note" test ! -s err
expect 7 memtrace --no-inject -- sh -c 'exit 7'
lines 1
expect 143 memtrace --no-inject -- sh -c 'kill -TERM $$'
begin=$SECONDS
expect 5 memtrace --no-inject -n 1 -i 100ms -- sh -c 'sleep 2; exit 5'
lines 1
check "it is awaited" test $((SECONDS - begin)) -ge 2

# Others: a real server, a stopped process, a thread's id
if command -v redis-server >/dev/null; then
	port=$(free_port)
	start redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
	redis=$pid
	check "redis answers" wait_for 10 redis-cli -p "$port" ping
	start redis-benchmark -p "$port" -t set,lpush,mset -n 3000000 -r 100000 -d 300 -P 16 -q
	load=$pid
	sleep 0.5
	cprof memtrace -p "$redis" --no-inject -n 5 -F 499
	lines 5
	read -r a b k share < <(sums)
	echo "redis: malloc $a free $b kernel $k share $share%"
	check "redis allocates: $a" test "$a" -gt 0
	check "redis: the share is possible" test "$share" -ge 1 -a "$share" -le 60
	kill -TERM "$load" "$redis"
else
	skip "no redis"
fi
start sleep 100
kill -STOP "$pid"
cprof memtrace -p "$pid" --no-inject -n 2 -i 200ms
lines 2
said "process $pid is stopped"
check "nothing was used" test "$(sums)" = "0 0 0 0"
rss=$(awk '/VmRSS/ { printf "%.0f", $2 / 1024 }' "/proc/$pid/status")
check "its memory" grep -q " $rss MB rss, .* 1 T, $(nproc) P\$" out
if is_root && command -v setpriv >/dev/null; then
	cp "$cprof" ours
	chmod 755 ours
	"${nobody[@]}" ./ours memtrace -p "$pid" --no-inject -n 1 >out 2>err
	status=$?
	check "another's process: $status" test "$status" = 3
	check "one line" one_line_error
fi
# A limit of a control group
limited() { # DIRECTORY FILE
	mkdir "$1" 2>/dev/null && echo 300000000 >"$1/$2" 2>/dev/null && echo "$pid" >"$1/cgroup.procs" 2>/dev/null
}
group='' kind=''
for try in /sys/fs/cgroup:memory.max /sys/fs/cgroup/memory:memory.limit_in_bytes; do
	[ -e "${try%:*}/cgroup.procs" ] && limited "${try%:*}/cprof-test.$$" "${try#*:}" && group=${try%:*}/cprof-test.$$ kind=${try#*:}
done
if [ -n "$group" ]; then
	cprof memtrace -p "$pid" --no-inject -n 1 -i 100ms
	printed ', 286 MB goal, '
	echo "limit by $kind"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	wait_for 5 rmdir "$group"
else
	skip "no control group of memory can be made here"
	rmdir /sys/fs/cgroup/cprof-test.$$ /sys/fs/cgroup/memory/cprof-test.$$ 2>/dev/null
fi
finish

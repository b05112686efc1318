#!/usr/bin/env bash
# Heap profiles of real programs: leaks, leak reports, refusals, and that nothing is left behind.
. "$(dirname "$0")/lib.sh"
leaky=$O/workloads/leaky
go tool pprof -help >/dev/null 2>&1 || { skip "no go tool pprof"; finish; }

alive() { kill -0 "$1" 2>/dev/null && [ "$(state_of "$1")" != Z ]; }
# shellcheck disable=SC2317 # called by check
same_top() { # FILE TYPE
	"$cprof" report top "$1" --sample-index "$2" >ours.txt &&
		go tool pprof -symbolize=none -top -sample_index="$2" "$1" >theirs.txt 2>/dev/null &&
		diff ours.txt theirs.txt
}
# Whether a function's cum share (percent of the total) is in [LOW, HIGH].
# shellcheck disable=SC2317
share_of() { # FILE TYPE FUNCTION LOW HIGH [PPROF-OPTIONS]
	local file=$1 type=$2 name=$3 low=$4 high=$5
	shift 5
	pprof -top -sample_index="$type" "$@" "$file" >top
	awk -v name="$name" -v low="$low" -v high="$high" '
		$6 ~ name { share = $5 + 0 }
		END { print share; exit !(share >= low && share <= high) }' top || { cat top; false; }
}
clean() { # WHAT PID
	expect 0 detach -p "$2" --check
	alive "$2" || fail "$1: the process is gone"
}

# Every allocation: exact numbers, from the first one
expect 0 run -e heap --heap-rate 1 -o exact.pb.gz --stats exact.json -- "$leaky" exact 5000
said '^heap: [0-9]+ samples, 0 lost, .* live since attach.* modules covered.* -> exact\.pb\.gz'
pprof -raw exact.pb.gz >raw
check "its types" grep -q 'alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes' raw
exact() { # TYPE FUNCTION VALUE
	"$cprof" report folded exact.pb.gz --sample-index "$1" >exact.txt
	check "exactly $3 $1 by $2" test "$(grep -E "$2(;|\$| )" exact.txt | awk '{ sum += $NF } END { print sum + 0 }')" = "$3"
}
exact alloc_objects store::exact_keep 5000
exact alloc_space store::exact_keep 500000
exact inuse_objects store::exact_keep 5000
exact inuse_space store::exact_keep 500000
exact alloc_objects store::exact_drop 5000
exact alloc_space store::exact_drop 1000000
exact inuse_objects store::exact_drop 0
check "allocs - frees - lost = live" json_holds exact.json '
	d["heap"]["allocs_seen"] - d["heap"]["frees_seen"] - d["heap"]["voided"] == d["heap"]["live_samples"]'
check "stats" json_holds exact.json 'd["heap"]["rate"] == 1 and d["heap"]["modules_covered"] > 0 and
	d["slots_patched"] > 0 and d["kinds"]["heap"]["samples"] == d["samples"] and
	d["complete"] + d["truncated"] + d["no_cfi"] + d["corrupt"] == d["samples"]'
check "complete stacks" json_holds exact.json 'd["complete"] >= 0.99 * d["samples"]'
expect 0 report exact.pb.gz
printed '^Type: inuse_space'

# A leak, while the program runs: two snapshots and their difference
start "$leaky" 60
leak=$pid
sleep 0.3
expect 0 record -p "$leak" -e heap --heap-rate 16K -d 3.2 --snapshot-every 1.5 --stats leak.json -o 'leak.%n.pb.gz'
check "a series" test -s leak.001.pb.gz -a -s leak.002.pb.gz -a -s leak.003.pb.gz
check "the leak" share_of leak.003.pb.gz inuse_space store::keep_session 90 100
check "by the difference" share_of leak.003.pb.gz inuse_space store::keep_session 90 100 -base leak.001.pb.gz
check "what is given back is not in use" share_of leak.003.pb.gz inuse_space store::serve_page 0 5
check "but was allocated" share_of leak.003.pb.gz alloc_space store::render_page 60 100
"$cprof" report leak.003.pb.gz --base leak.001.pb.gz >ours.txt
pprof -top -base leak.001.pb.gz leak.003.pb.gz >theirs.txt
check "report --base as pprof -base" diff ours.txt theirs.txt
for type in inuse_space inuse_objects alloc_space alloc_objects; do
	check "report as pprof, $type" same_top leak.003.pb.gz $type
done
check "one thread, few stops" json_holds leak.json 'd["stopped_threads"] >= 1 and
	d["heap"]["attach_stops"] <= 8 and d["slots_restored"] == d["slots_patched"]'
clean "after record" "$leak"

# Stacks of the program's own making, which come and go where one was read before
expect 0 run -e heap --heap-rate 1 -o coroutines.pb.gz -- "$O/workloads/coroutines" 0.8
printed '^(ok|apart)$'

# One thread's only; CPU in the same attach
expect 0 record -p "$leak" -e cpu,heap --heap-rate 4K --thread keeper -d 1 -o 'two.%e.pb.gz' --stats two.json
said '^cpu: .* -> two\.cpu\.pb\.gz'
said '^heap: .* -> two\.heap\.pb\.gz'
check "only the thread asked for" share_of two.heap.pb.gz alloc_space store::render_page 0 0
check "that one" share_of two.heap.pb.gz alloc_space store::keep_session 90 100
check "counts add up" json_holds two.json 'd["samples"] == sum(k["samples"] for k in d["kinds"].values())'
expect 0 record -p "$leak" -e cpu,heap,threads -d 0.5 -o 'three.%e.pb.gz'
check "three kinds" gzip -t three.cpu.pb.gz three.heap.pb.gz three.threads.pb.gz
clean "after several kinds" "$leak"

# Signals
"$cprof" record -p "$leak" -e heap -d 60 -o int.pb.gz >out 2>err &
profiler=$!
sleep 1
kill -INT "$profiler"
wait "$profiler"
check "Ctrl-C: status 0" test $? = 0
check "Ctrl-C: a file" gzip -t int.pb.gz
clean "after Ctrl-C" "$leak"
"$cprof" record -p "$leak" -e heap -d 60 -o killed.pb.gz >out 2>err &
profiler=$!
sleep 1
expect 3 record -p "$leak" -e heap -d 1 -o second.pb.gz
kill -USR1 "$profiler"
check "SIGUSR1 writes one" wait_for 5 gzip -t killed.pb.gz
kill -KILL "$profiler"
wait "$profiler" 2>/dev/null
check "a killed profiler leaves something" sh -c "! '$cprof' detach -p $leak --check"
alive "$leak" || fail "killed by its profiler's end"
wait_for 8 "$cprof" detach -p "$leak" || fail "not cleaned" check.log
clean "after a killed profiler" "$leak"

# Nowhere to write
if try_mount small size=64k; then
	dd if=/dev/zero of=small/fill bs=4k >dd.log 2>&1
	expect 1 record -p "$leak" -e heap --heap-rate 4K -d 0.5 -o small/heap.pb.gz
	check "no part of a file" test ! -e small/heap.pb.gz
	clean "after a full disk" "$leak"
else
	skip "no tmpfs to fill"
fi

# The end of the process, and another program in it
start "$leaky" 2
expect 0 record -p "$pid" -e heap --heap-rate 4K -d 30 -o end.pb.gz
said 'ended by itself'
check "the leak is in the file" share_of end.pb.gz inuse_space store::keep_session 80 100
for kinds in heap cpu,heap; do
	start "$leaky" exec 1.5 /bin/sleep 2
	expect 0 record -p "$pid" -e $kinds --heap-rate 4K -d 30 -o 'exec.%e.pb.gz'
	said 'heap: ended after .* what was live is unknown'
done
start "$leaky" 30
stopped=$pid
"$cprof" record -p "$stopped" -e heap -d 30 -o gone.pb.gz >out 2>err &
profiler=$!
sleep 1
kill -KILL "$stopped"
wait "$profiler"
check "killed process: status 0" test $? = 0
check "killed process: a file" gzip -t gone.pb.gz

# A command's leak report; its status is ours
expect 0 run -e heap --heap-rate 4K -o report.pb.gz -- "$leaky" 1
printed '^kept 100$'
check "leak report" share_of report.pb.gz inuse_space store::keep_session 90 100
cprof run -e cpu,heap -o 'both.%e.pb.gz' -- sh -c 'exit 9'
check "the command's status" test "$status" = 9
check "both files" gzip -t both.cpu.pb.gz both.heap.pb.gz
cprof run -e heap -o wrapped.pb.gz -- sh -c "exec sleep 0.5"
said 'ended after .*: name the program'
# One that is over before anybody looks has still left its name.
cprof run -e heap -o wrapped.pb.gz -- sh -c "exec true"
said '(begun as sh, it ended as true|ended after).*: name the program'
cprof run -e heap -o wrapped.pb.gz -- sh -c ":"
check "no word of an exec without one" test "$(grep -c 'name the program' err)" = 0
cprof run -e heap -o no.pb.gz -- ./does-not-exist
check "not found gives 127" test "$status" = 127

# What cannot be hooked is refused by name, and is not run
cat >static.c <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	if (argc > 1)
		fclose(fopen(argv[1], "w"));
	free(malloc(100));
	sleep(argc > 1 ? 0 : 30);
	return 5;
}
C
if cc -static -o static static.c 2>cc.log; then
	start ./static
	sleep 0.2
	expect 3 record -p "$pid" -e heap -d 1 -o no.pb.gz
	clean "a static program" "$pid"
	expect 3 run -e heap -o no.pb.gz -- ./static was-run
	check "it was not run" test ! -e was-run
	cprof run -e cpu,heap -o 'no.%e.pb.gz' -- ./static was-run
	check "with CPU samples it is" test "$status" = 5 -a -e was-run
	said 'no heap profile: '
	check "a CPU profile" gzip -t no.cpu.pb.gz
	check "no heap profile" test ! -e no.heap.pb.gz
else
	skip "no static libc"
fi
kill -STOP "$leak"
wait_for 5 sh -c "grep -q 'State:.T' /proc/$leak/status"
expect 3 record -p "$leak" -e heap -d 1 -o no.pb.gz
kill -CONT "$leak"
clean "a stopped process" "$leak"

# An interpreter, and a server with an allocator in a library of its own
start "$python" -c '
import time
kept = []
while True:
    kept.append(bytearray(20000))
    bytes(50000)
    time.sleep(0.002)'
sleep 0.5
expect 0 record -p "$pid" -e heap --heap-rate 16K -d 2 -o python.pb.gz
check "python's bytearrays" share_of python.pb.gz inuse_space 'PyByteArray|bytearray' 50 100
clean "python" "$pid"
# A program that maps something of its own where the agent's memory was
start "$O/workloads/squatter"
sleep 0.3
expect 0 record -p "$pid" -e heap --heap-rate 1 -d 0.3 -o squat.pb.gz
kill -USR2 "$pid"
wait_for 10 grep -q taken start.log
expect 0 detach -p "$pid" --check
expect 0 detach -p "$pid"
check "another's memory is left alone" alive "$pid"
expect 0 record -p "$pid" -e heap --heap-rate 1 -d 0.5 -o squat.pb.gz --stats squat.json
check "an agent elsewhere" json_holds squat.json 'd["heap"]["allocs_seen"] > 20 and not d["heap"]["adopted"]'
expect 0 record -p "$pid" -e heap --heap-rate 1 -d 0.3 -o squat.pb.gz --stats squat.json
check "which is taken over" json_holds squat.json 'd["heap"]["allocs_seen"] > 20 and d["heap"]["adopted"]'
clean "another's memory" "$pid"
if command -v redis-server >/dev/null && command -v redis-cli >/dev/null; then
	port=$(free_port)
	start redis-server --port "$port" --save '' --appendonly no
	wait_for 10 redis-cli -p "$port" ping
	redis=$pid
	(for i in $(seq 40); do
		redis-cli -p "$port" eval "for i = 1, 2000 do
			redis.call('set', ARGV[1] .. i, string.rep('x', 500)) end" 0 "$i." >redis.log
		sleep 0.05
	done) &
	load=$!
	expect 0 record -p "$redis" -e heap --heap-rate 16K -d 2.5 -o redis.pb.gz --stats redis.json
	wait $load
	check "redis: samples" json_holds redis.json 'd["heap"]["allocs_seen"] > 100 and d["complete"] > 0.9 * d["samples"]'
	pprof -top -sample_index=inuse_space redis.pb.gz >top
	check "redis: its strings" grep -Eq 'setCommand|sds|createString|zmalloc' top
	check "redis answers" redis-cli -p "$port" ping
	clean "redis" "$redis"
else
	skip "no redis"
fi
finish

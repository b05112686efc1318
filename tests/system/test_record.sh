#!/usr/bin/env bash
# The main job on real programs, read by `go tool pprof`.
. "$(dirname "$0")/lib.sh"

add_up() { # STATS WHAT
	check "$2: stacks add up" json_holds "$1" \
		'd["complete"] + d["truncated"] + d["no_cfi"] + d["corrupt"] == d["samples"] and d["samples"] > 5'
	check "$2: the only kind" json_holds "$1" \
		'list(d["kinds"]) == ["cpu"] and d["kinds"]["cpu"]["samples"] == d["samples"]'
	check "$2: other keys" json_holds "$1" 'all(d[key] >= 0 for key in ("lost", "frames", "unwind_ns",
		"symbolize_ns", "duration_ns", "attach_ns")) and d["profiler_cpu_ns"] > 0 and
		d["profiler_rss_bytes"] > 1e6 and d["threads"] >= 1 and d["clock"] == "cpu-clock"'
}
complete() { # STATS WHAT
	check "$2: complete $(json "$1" '"%d of %d" % (d["complete"], d["samples"])')" \
		json_holds "$1" 'd["complete"] >= 0.995 * d["samples"]'
}

# A C++ service with named threads and inlined functions
start "$O/workloads/service" 100
service=$pid
sleep 0.2
expect 0 record -p "$service" -d 2 -o service.pb.gz --stats service.json
said '^cpu: [0-9]+ samples, [0-9]+ lost, [0-9.]+% complete stacks, [0-9]+ threads, 2\.[0-9] s -> service\.pb\.gz \([0-9.]+ (B|KB|MB)\)$'
add_up service.json service
complete service.json service
check "pprof reads it" pprof -top service.pb.gz
pprof -top service.pb.gz >top
check "nothing to say for pprof" test ! -s pprof.err
for name in shop::handle shop::parse_order shop::render; do check "$name" grep -q "$name" top; done
pprof -raw service.pb.gz >raw
check "lines of the source" grep -q 'service.cc:[0-9]' raw
pprof -tags service.pb.gz >tags
for name in worker-north worker-south; do check "label $name" grep -q "$name" tags; done
check "label tid" grep -q 'tid' tags
pprof -peek 'shop::checksum' service.pb.gz >peek
check "an inlined function" grep -q "shop::checksum" peek
expect 0 record -p "$service" -d 1 -o plain.pb.gz --no-inlines --no-lines
pprof -raw plain.pb.gz >raw
check "no lines" test "$(grep -c 'service.cc:[1-9]' raw)" = 0
expect 0 record -p "$service" --thread worker-north -d 1 -o north.pb.gz
pprof -tags north.pb.gz >tags
check "--thread NAME" grep -q worker-north tags
check "and no other" test "$(grep -c worker-south tags)" = 0
tid=$(grep -l worker-south /proc/"$service"/task/*/comm | cut -d/ -f5)
expect 0 record -p "$service" --thread "$tid" -d 1 -o south.pb.gz
pprof -tags south.pb.gz >tags
check "--thread TID" grep -q worker-south tags
check "and no other" test "$(grep -c worker-north tags)" = 0
expect 0 record -p "$tid" -d 0.2 -o tid.pb.gz
said "$tid is a thread of process $service"
for way in cpu-wide per-thread; do
	if [ $way = cpu-wide ] && ! is_root; then
		skip "cpu-wide needs root"
		continue
	fi
	expect 0 record -p "$service" -d 1 --sampling $way -o way.pb.gz --stats way.json
	add_up way.json $way
	check "stats say $way" json_holds way.json "d['sampling'] == '$way'"
done
for unwinder in fp libunwind; do
	expect 0 record -p "$service" -d 1 --unwinder $unwinder -o unwinder.pb.gz --stats unwinder.json
	add_up unwinder.json $unwinder
done

# Formats and report
expect 0 record -p "$service" -d 1 -f folded -o stacks.txt
check "folded" grep -qE ';shop::handle.* [0-9]+$' stacks.txt
expect 0 record -p "$service" -d 1 -f text -o - -q
printed 'flat%.*sum%.*cum'
expect 0 record -p "$service" -d 1 -f json -o profile.json
check "json" json_holds profile.json '{"type": "cpu", "unit": "nanoseconds"} in d["types"] and len(d["samples"]) > 3'
expect 0 report service.pb.gz
cp out report.top
expect 0 report top service.pb.gz
check "top is the default view" cmp report.top out
printed '^Duration: 2'
printed 'shop::handle'
expect 0 report folded service.pb.gz
printed '^[^ ].*;shop::.* [0-9]+$'
expect 0 report top -f json service.pb.gz
check "report -f json" json_holds out 'len(d["samples"]) > 3'
expect 0 report top -n 2 service.pb.gz
check "-n 2 is short" test "$(grep -c '%' out)" -le 6
expect 0 report -o top.txt service.pb.gz
check "report -o" cmp report.top top.txt
expect 0 report --focus no_such_function_anywhere service.pb.gz
expect 2 report --sample-index nonsense service.pb.gz
"$cprof" report - <service.pb.gz >out
check "report of stdin" cmp report.top out

# Snapshots
start "$cprof" record -p "$service" -d 60 --snapshot-every 400ms -o 'snap.%n.pb.gz'
check "numbered snapshots" wait_for 20 test -s snap.003.pb.gz
kill -INT "$pid"
await "$pid"
check "status after Ctrl-C" test "$status" = 0
check "a snapshot is a profile" pprof -top snap.001.pb.gz
start "$cprof" record -p "$service" -d 60 -o 'usr1.%n.pb.gz'
sleep 1
kill -USR1 "$pid"
check "SIGUSR1 writes one" wait_for 10 test -s usr1.001.pb.gz
check "and goes on" kill -0 "$pid"
kill -TERM "$pid"
await "$pid"
check "SIGTERM writes" test "$status" = 0 -a -s usr1.002.pb.gz

check "the service lives" kill -0 "$service"
kill "$service"

# Pure Python
start_busy 100
snake=$pid
sleep 0.2
expect 0 record -p "$snake" -d 4 -o python.pb.gz --stats python.json
kill "$snake"
add_up python.json python
complete python.json python
pprof -top python.pb.gz >top
check "the interpreter's loop" grep -q '_PyEval_EvalFrameDefault' top

# The sum of the samples is the CPU time used, as the process itself counts it
for way in cpu-wide per-thread; do
	[ $way = per-thread ] || is_root || continue
	cprof run --sampling $way -F 997 -f json -o used.json -- "$python" -c "$busy
print(time.process_time())" 3
	used=$(cat out)
	check "$way: samples stand for $used s of CPU" json_holds used.json \
		"abs(sum(s['values'][[t['type'] for t in d['types']].index('cpu')] for s in d['samples']) / 1e9 - $used) < 0.12 * $used"
done

# Redis under load
if command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null; then
	port=$(free_port)
	start redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
	redis=$pid
	check "redis answers" wait_for 10 redis-cli -p "$port" ping
	start redis-benchmark -p "$port" -q -n 100000000 -t set,get,lrange_100
	sleep 0.3
	expect 0 record -p "$redis" -d 4 -o redis.pb.gz --stats redis.json
	kill "$pid"
	add_up redis.json redis
	complete redis.json redis
	check "attach within 500 ms" json_holds redis.json 'd["attach_ns"] < 5e8'
	pprof -top -cum redis.pb.gz >top
	for name in aeMain processCommand; do check "redis: $name" grep -q "$name" top; done
	check "the file is small" test "$(stat -c %s redis.pb.gz)" -lt 1000000
	if is_root; then
		check "kernel frames" grep -qE 'tcp_sendmsg|sock_|epoll_wait|syscall' top
		start redis-benchmark -p "$port" -q -n 100000000 -t set
		sleep 0.3
		expect 0 record -p "$redis" -d 1 --no-kernel -o user.pb.gz
		kill "$pid"
		pprof -top user.pb.gz >top
		check "--no-kernel" test "$(grep -cE 'do_syscall_64|tcp_sendmsg' top)" = 0
	fi
	check "redis lives" redis-cli -p "$port" ping
else
	skip "no redis"
fi
finish

#!/usr/bin/env bash
# The command line: usage errors, statuses, help, file names, durations.
# Runs beside others.
. "$(dirname "$0")/lib.sh"

# Help and version
for verb in record run threads dump memtrace detach report help; do
	expect 0 "$verb" --help
	printed "^usage: cprof-attach $verb"
	cp out verb.help
	expect 0 help "$verb"
	check "help $verb is $verb --help" cmp -s verb.help out
	expect 0 "$verb" -V
	printed '^cprof-attach [0-9]+\.[0-9]+'
done
expect 0 --help
for verb in record run threads dump memtrace detach report view help; do printed "^  $verb "; done
expect 0 help
expect 0 --version
for missing in serve push doctor; do
	expect 0 --help
	check "$missing is not listed" test "$(grep -c "^  $missing" out)" = 0
	expect 2 "$missing" -p 1
	said 'record.*run.*report'
done
"$cprof" --help >/dev/full 2>err
check "help onto a full device fails" test $? = 1

# Usage errors
start sleep 600
target=$pid
expect 2
expect 2 -p "$target"
said 'record'
expect 2 record
expect 2 record -p "$target" stray
for bad in 0 -1 +1 ' 1' '1 ' 1x 0x10 '' 2147483648 99999999999999999999 1,2 1,,2 "$target,$target"; do
	expect 2 record -p "$bad" -d 0.1
done
for bad in '' -1 1x 1. .5 1e3 nan inf ' 1' 99999999999999999999 1:30; do
	expect 2 record -p "$target" -d "$bad"
done
for bad in 0 -5 1.5 x 99999999999; do expect 2 record -p "$target" -F "$bad"; done
said perf_event_max_sample_rate
for bad in nonsense cpu,nonsense 'cpu,' ''; do
	expect 2 record -p "$target" -e "$bad"
done
expect 2 record -p "$target" -e nonsense
said 'cpu, cycles, heap, mutex, block, threads, threadcreate'
for bad in 0 -1 '' 1x 0K 1.5M 1025M 2G 99999999999999999999; do
	expect 2 record -p "$target" -e heap --heap-rate "$bad"
done
expect 2 detach
expect 2 detach -p 0
expect 2 detach -p "$target" stray
expect 4 detach -p 2147483647
expect 2 record -p "$target" -e cpu,cycles
said 'one of them'
for several in "-e cpu,threads" "-e cpu -e threads"; do
	# shellcheck disable=SC2086
	expect 2 record -p "$target" $several -o one.pb.gz
	said '%e'
	# shellcheck disable=SC2086
	expect 2 record -p "$target" $several -o -
	said '%e'
	# shellcheck disable=SC2086
	expect 0 record -p "$target" $several -d 0.2 -o 'both.%e.pb.gz' --stats both.json
	said '^cpu: .* -> both\.cpu\.pb\.gz'
	said '^threads: [01] samples, .* 1 threads, .* -> both\.threads\.pb\.gz'
	check "both files" gzip -t both.cpu.pb.gz both.threads.pb.gz
	check "stats of both" json_holds both.json 'set(d["kinds"]) == {"cpu", "threads"} and
		d["samples"] == sum(k["samples"] for k in d["kinds"].values()) and
		d["kinds"]["threads"]["samples"] <= 1 and "stopped_ns_max" in d and "clock" in d'
	rm -f both.*
done
expect 0 record -p "$target" -e threads,cpu -d 0.1 -f json
said '^cpu: .*sleep\.[0-9]*\.cpu\.001\.json'
check "JSON of a profile" json_holds "sleep.$target.cpu.001.json" '"samples" in d'
check "JSON of a dump" json_holds "sleep.$target.threads.001.json" 'd["threads"][0]["name"] == "sleep"'
rm -f sleep.*
# Every kind each time, the process ends meanwhile
start sleep 3
"$cprof" record -p "$pid" -e cpu,threads -d 0 --snapshot-every 700ms >out 2>err
check "status 0 at its end" test $? = 0
said "no dump of threads: process $pid has ended"
check "series of dumps" test -s "sleep.$pid.threads.001.pb.gz" -a -s "sleep.$pid.threads.002.pb.gz"
check "series of profiles" test -s "sleep.$pid.cpu.001.pb.gz" -a -s "sleep.$pid.cpu.003.pb.gz"
rm -f sleep.*
expect 2 record -p "$target" -f html
expect 2 record -p "$target" --unwinder magic
expect 2 record -p "$target" --sampling often
expect 2 record -p "$target" --color sometimes
expect 2 record -p "$target" --snapshot-every 0
expect 2 record -p "$target" --snapshot-every 1 -o -
expect 2 record -p "$target" --frobnicate
said frobnicate
expect 2 record -p
expect 2 record -p "$target" -o %z -d 0.1
expect 2 record -p "$target" -o %
expect 2 run
expect 2 run -d 1
expect 2 run -- ''
expect 2 report
expect 2 report top
expect 2 report pie file
expect 2 report top a b
expect 2 report -n x file
expect 2 help nonsense
expect 1 report "$work/missing.pb.gz"
said 'missing.pb.gz'
printf '\033[31mred' >'evil'$'\033''name'
expect 1 report 'evil'$'\033''name'
check "no escapes in messages" test "$(tr -cd '\033' <err | wc -c)" = 0
expect 2 record -p $'\033[31m'
check "no escapes in usage errors" test "$(tr -cd '\033' <err | wc -c)" = 0

# Durations
now_ms() { date +%s%3N; }
for case in 300ms:300 0.5:500 1s:1000; do
	begin=$(now_ms)
	expect 0 record -p "$target" -d "${case%:*}" -o d.pb.gz
	took=$(($(now_ms) - begin - ${case#*:}))
	check "-d ${case%:*} took $took ms more" test $took -ge 0 -a $took -lt 1500
done

# File names
expect 0 record -p "$target" -d 0.1
said "sleep\.$target\.cpu\.001\.pb\.gz"
expect 0 record -p "$target" -d 0.1
check "the second number" test -s "sleep.$target.cpu.002.pb.gz"
check "mode 0600" test "$(stat -c %a "sleep.$target.cpu.001.pb.gz")" = 600
for format in folded:folded text:txt json:json; do
	expect 0 record -p "$target" -d 0.1 -f "${format%:*}"
	check "extension of ${format%:*}" test -e "sleep.$target.cpu.001.${format#*:}"
done
expect 0 record -p "$target" -d 0.1 -o 'x-%c-%p-%e-%n-100%%'
check "a pattern" test -s "x-sleep-$target-cpu-001-100%"
expect 0 record -p "$target" -d 0.1 -o 'at-%t'
check "a time" compgen -G 'at-[0-9]*'
echo old >explicit
expect 0 record -p "$target" -d 0.1 -o explicit
check "an explicit name is replaced" sh -c 'gzip -t <explicit'
expect 0 record -p "$target" -d 0.1 -o - --stats stats.json
check "stdout" gzip -t out
check "stats" json_holds stats.json 'd["samples"] >= 0 and d["duration_ns"] >= 1e8'
expect 0 record -p "$target" -d 0.1 -o /dev/stdout
check "/dev/stdout" gzip -t out
odd="we ird\$(x)"
cp /usr/bin/sleep "$odd"
start "./$odd" 600
expect 0 record -p "$pid" -d 0.1
check "a name with odd bytes" test -e "we_ird__x_.$pid.cpu.001.pb.gz"
expect 0 record -p "$target" -d 0.1 -q -o q.pb.gz
check "-q is quiet" test ! -s err
expect 0 record -p "$target" -d 0.1 -v -o v.pb.gz
said 'sampling (cpu-wide|per-thread)'
check "no progress without a terminal" test "$(tr -cd '\r' <err | wc -c)" = 0
finish

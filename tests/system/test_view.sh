#!/usr/bin/env bash
# The live view without a terminal: on saved files and on processes. What is on the screen is what
# `w` writes; leaving takes everything out again.
# Runs beside others.
. "$(dirname "$0")/lib.sh"
export LC_ALL=C.UTF-8 TZ=UTC

# --- what is refused
start sleep 100
sleeper=$pid
expect 2 -p "$sleeper"
said 'needs a terminal'
expect 2 -p "$sleeper" --keys q
expect 2 -p "$sleeper" --headless 0x10
expect 2 -p "$sleeper" --headless 80
expect 2 -p "$sleeper" --headless 80x24 --keys '\q'
expect 2 -p "$sleeper" --headless 80x24 more
expect 2 -p "$sleeper" -e threadcreate --headless 80x24
said 'record -e threadcreate'
expect 2 view
expect 2 view x.pb.gz
expect 1 view missing.pb.gz --headless 80x24
expect 2 view --headless 80x24
expect 4 -p 999999999 --headless 80x24

# --- a saved file
start "$O/workloads/service" 100
service=$pid
expect 0 record -p "$service" -d 1.5 -F 400 -o saved.pb.gz
expect 0 view saved.pb.gz --headless 120x90
printed '^saved\.pb\.gz .*service'
printed 'shop::serve'
cp out first
expect 0 view saved.pb.gz --headless 120x90
check "the same picture each time" cmp first out
expect 0 view saved.pb.gz --headless 120x40 --keys '/serve\n\n'
printed 'callers, function, callees'
printed 'shop::handle'
expect 0 view saved.pb.gz --headless 120x40 --keys 'f'
printed 'shop::serve'
expect 0 view saved.pb.gz --headless 100x40 --keys 'l'
printed 'service\.cc'
expect 0 view saved.pb.gz --headless 100x40 --keys 'a'
printed '[0-9a-f]+ :[0-9]+ +[a-z]'
expect 0 view saved.pb.gz --headless 100x40 --keys '5'
printed 'worker-north'
expect 0 view saved.pb.gz --headless 100x40 --keys '5\n'
printed '#0 '
expect 0 view saved.pb.gz --headless 100x40 --keys '2'
printed 'not here'
expect 0 view saved.pb.gz --base saved.pb.gz --headless 100x40
printed 'no difference'
expect 0 view saved.pb.gz --headless 1x1 --keys 'f\n\el5\n?q'
expect 0 view saved.pb.gz --headless 80x24 --color always
check "colours" grep -q $'\033\\[0;' out
LC_ALL=C expect 0 view saved.pb.gz --headless 80x24 --keys f
refuse "ASCII only" grep -qP '[^\x00-\x7f]' out

# --- numbers: every row of `report top` is one of the table
rows() { # FILE: flat flat% cum cum% name of a picture of 200 columns
	awk '$1 !~ /flat/ && $2 ~ /%$/ && $3 ~ /%$/ && $5 ~ /%$/ { print $1, $2, $4, $5, $7 }' "$1" | sort
}
same_numbers() { # PICTURE PROFILE: every row of the usual table is there, in the same unit
	rows "$1" >seen
	"$cprof" report top "$2" >top.txt 2>&1 || return 1
	awk '$1 !~ /flat/ && $2 ~ /%$/ && $3 ~ /%$/ && $5 ~ /%$/ { print $1, $2, $4, $5, $6 }' top.txt | sort >told
	[ "$(wc -l <told)" -gt 5 ] && [ -z "$(comm -13 seen told | tee missing)" ]
}
expect 0 view saved.pb.gz --headless 200x250 --keys w
written=$(sed -n 's/^written: \([^ ]*\) .*/\1/p' out)
check "a file was written: $written" test -s "${written:-none}"
check "it has the numbers of the screen" same_numbers out "$written"
expect 0 view saved.pb.gz --headless 200x250 --keys 't\d\nw'
written=$(sed -n 's/^written: \([^ ]*\) .*/\1/p' out)
check "one thread's too" same_numbers out "${written:-none}"

# --- a process
clean() { # PID: nothing of ours is left in it
	"$cprof" detach -p "$1" --check
}
expect 0 -p "$service" -F 400 --headless 200x120 --frames 3 --refresh 200ms
printed "^service $service "
printed 'shop::serve'
printed 'CPU +[0-9.]+%'
expect 0 -p "$service" -F 400 --headless 200x250 --keys ' w' --refresh 500ms
written=$(sed -n 's/^written: \([^ ]*\) .*/\1/p' out)
check "frozen: the file has the numbers of the screen" same_numbers out "${written:-none}"
printed 'FROZEN'
expect 0 -p "$service" --headless 100x30 --keys '5' --frames 1 --refresh 200ms
printed 'worker-north +R'
expect 0 -p "$service" --headless 100x30 --keys '/^worker-north\n5\n'
printed 'shop::'
expect 0 -p "$service" --headless 100x30 --keys 'd'
check "a thread dump" grep -q '^Process ' service."$service".threads.001.txt
expect 0 -p "$service" --headless 100x30 --keys '6' --frames 3 --refresh 500ms
printed '^heap 1 @'
expect 0 -p "$service" --headless 100x30 --keys 'b' --frames 2 --refresh 200ms
printed 'DIFFERENCE to'
check "clean" clean "$service"

# --- the agent is asked for
start "$O/workloads/leaky" 100
leaky=$pid
if "$cprof" record -p "$leaky" -e heap -d 0.2 -o probe.pb.gz >/dev/null 2>probe.err; then
	expect 0 -p "$leaky" --headless 120x30 --keys '2'
	printed 'Enter attaches the agent'
	check "nothing was attached" clean "$leaky"
	expect 0 -p "$leaky" --headless 120x30 --keys '2\n' --heap-rate 1K --frames 3 --refresh 300ms
	printed 'hooked: heap'
	printed 'inuse_space: [0-9.]+[kMG]?B total'
	check "and is out again" clean "$leaky"
	expect 0 -p "$leaky" -e heap --headless 120x30 --heap-rate 1K --frames 2 --refresh 300ms
	printed '\[2 Heap\]'
	printed 'hooked: heap'
	check "with -e heap too" clean "$leaky"
else
	skip "no agent here: $(head -n 1 probe.err)"
fi

# --- its end
start "$O/workloads/service" 3
expect 0 -p "$pid" --headless 100x90 --frames 100 --refresh 200ms
printed "process $pid has ended"
printed 'shop::serve'
# However long it is to the next refresh.
start "$O/workloads/service" 3
begun=$SECONDS
expect 0 -p "$pid" --headless 100x90 --frames 100 --refresh 60s
check "its end is told at once" test $((SECONDS - begun)) -lt 30
finish

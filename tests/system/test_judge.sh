#!/usr/bin/env bash
# Real stacks unwound twice, by our rules and by libunwind, and compared frame by frame.
# Runs beside others.
. "$(dirname "$0")/lib.sh"

wanted=1000 seconds=8
judge() { # WHAT PID FRAMES: at least so many frames
	sleep 0.2
	if ! "$O/tools/replay" "$2" $wanted 1999 $seconds >"$1.json" 2>"$1.err"; then
		fail "$1: replay" "$1.err"
		return
	fi
	# A machine with much else to do gives fewer in that time.
	check "$1: many stacks: $(cat "$1.json")" json_holds "$1.json" 'd["stacks"] >= 300'
	check "$1: complete" json_holds "$1.json" 'd["complete"] >= 0.995 * d["stacks"]'
	check "$1: the judge could judge" json_holds "$1.json" 'd["judge_complete"] >= 0.99 * d["stacks"]'
	check "$1: thousands of frames" json_holds "$1.json" "d['frames'] >= $3"
	check "$1: the same frames" json_holds "$1.json" 'd["equal"] >= 0.999 * d["frames"]'
}

# Callbacks through C (sort, re), recursion, generators, exceptions.
start "$python" -c '
import re, sys
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def walk(n):
    yield n
    if n: yield from walk(n - 1)
def throw(n):
    if n == 0: raise ValueError
    throw(n - 1)
while True:
    fib(12)
    sorted(range(500), key=lambda x: -x)
    re.sub("[a-z]", lambda match: match.group().upper(), "the quick brown fox" * 20)
    sum(walk(60))
    try: throw(100)
    except ValueError: pass
'
judge python "$pid" 5000
kill "$pid"

start "$O/workloads/deep" 100 200
judge deep "$pid" 50000
kill "$pid"

start "$O/workloads/service" 100
judge service "$pid" 1500
kill "$pid"

if command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null; then
	port=$(free_port)
	start redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
	redis=$pid
	check "redis answers" wait_for 10 redis-cli -p "$port" ping
	start redis-benchmark -p "$port" -q -n 100000000 -P 8 -t set,get,lpush,lrange_300,sadd,zadd
	judge redis "$redis" 2000
	kill "$pid"
else
	skip "no redis"
fi
finish

#!/usr/bin/env bash
# `report top`, `tree`, `peek`, `list` and `traces` against `go tool pprof`, to the letter: on the files given, else on profiles
# that a Go program and we have taken.
# Runs beside others.
files=()
for file in "$@"; do files+=("$(realpath "$file")"); done
. "$(dirname "$0")/lib.sh"
go tool pprof -help >/dev/null 2>&1 || { skip "no go tool pprof"; finish; }

make_foreign() {
	cat >main.go <<'GO'
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"time"
)

var keep []string

func words(n int) {
	all := strings.Fields(strings.Repeat("b a d c ", n))
	sort.Strings(all)
	keep = append(keep, strings.Join(all, " "))
}

//go:noinline
func more() {
	keep = keep[:0]
	for i := 0; i < 40; i++ {
		words(20000 + i)
	}
	runtime.GC()
	runtime.GC()
}

func main() {
	runtime.MemProfileRate = 4096
	file, _ := os.Create("cpu.pb.gz")
	pprof.StartCPUProfile(file)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		words(5000)
	}
	pprof.StopCPUProfile()
	file.Close()
	for _, kind := range []string{"heap", "goroutine"} {
		file, _ := os.Create(kind + ".pb.gz")
		pprof.Lookup(kind).WriteTo(file, 0)
		file.Close()
	}
	more()
	file, _ = os.Create("later.pb.gz")
	pprof.Lookup("heap").WriteTo(file, 0)
	file.Close()
}
GO
	GOCACHE=$work/cache GOFLAGS=-mod=mod GOPROXY=off GO111MODULE=off go build -o foreign main.go && ./foreign
}

# shellcheck disable=SC2317 # called by check
same_top() { # FILE CPROF-OPTIONS -- PPROF-OPTIONS
	local file=$1 ours=()
	shift
	while [ "$1" != -- ]; do
		ours+=("$1")
		shift
	done
	shift
	"$cprof" report top "$file" ${ours[@]+"${ours[@]}"} >ours.txt 2>err &&
		go tool pprof -symbolize=none -top "$@" "$file" >theirs.txt 2>/dev/null &&
		diff ours.txt theirs.txt
}

# shellcheck disable=SC2317 # called by check
same_view() { # FILE VIEW [PATTERN]
	local file=$1 view=$2
	shift 2
	"$cprof" report "$view" "$@" "$file" >ours.txt 2>err || return
	go tool pprof -symbolize=none "-$view" "$@" "$file" >theirs.txt 2>/dev/null || return
	diff ours.txt theirs.txt
}

if [ ${#files[@]} = 0 ]; then
	if command -v go >/dev/null && make_foreign >build.log 2>&1; then
		files=("$work"/{cpu,heap,goroutine}.pb.gz)
	else
		skip "no Go program could be built"
	fi
	start "$python" -c 'while True: sorted(range(1000), key=str)'
	cprof record -p "$pid" -d 1 -o own.pb.gz
	[ "$status" != 0 ] || files+=("$work/own.pb.gz")
	start "$O/workloads/service" 30
	sleep 0.2
	cprof record -p "$pid" -F 499 -d 2 -o service.pb.gz
	if [ "$status" = 0 ]; then
		files+=("$work/service.pb.gz")
		for pattern in checksum 'shop::' 'handle|serve'; do
			check "list $pattern" same_view service.pb.gz list "$pattern"
			check "peek $pattern" same_view service.pb.gz peek "$pattern"
		done
		check "traces" same_view service.pb.gz traces
		"$cprof" report list checksum service.pb.gz >ours.txt
		check "lines have been shown" grep -q 'static_cast<unsigned char>' ours.txt
		expect 1 report list no_such_function service.pb.gz
		said 'no function matches'
		expect 1 report peek no_such_function service.pb.gz
		expect 2 report list '(' service.pb.gz
		expect 2 report list service.pb.gz
		expect 2 report peek x service.pb.gz -f json
	fi
fi
# What has come since: the leak.
if [ -s heap.pb.gz ] && [ -s later.pb.gz ]; then
	files+=("$work/later.pb.gz")
	for type in inuse_space inuse_objects alloc_space alloc_objects; do
		check "--base, $type" same_top "$work/later.pb.gz" --base "$work/heap.pb.gz" \
			--sample-index $type -- -base="$work/heap.pb.gz" -sample_index=$type
	done
	check "--base" same_top "$work/later.pb.gz" --base "$work/heap.pb.gz" -- -base="$work/heap.pb.gz"
	if grep -q 'main\.words' ours.txt; then pass; else fail "the leak is not named" ours.txt; fi
	expect 0 report "$work/heap.pb.gz" --base "$work/heap.pb.gz"
	expect 1 report "$work/heap.pb.gz" --base "$work/cpu.pb.gz"
	said 'types differ'
	expect 1 report "$work/heap.pb.gz" --base "$work/missing.pb.gz"
	expect 2 report "$work/heap.pb.gz" --base ''
fi
for file in ${files[@]+"${files[@]}"}; do
	name=$(basename "$file")
	check "$name" same_top "$file" --
	check "$name by cum" same_top "$file" --cum -- -cum
	check "$name, 5 rows" same_top "$file" -n 5 -- -nodecount=5
	check "$name by line" same_top "$file" --by line -- -lines
	check "$name by address" same_top "$file" --by address -- -addresses
	check "$name, first type" same_top "$file" --sample-index 0 -- -sample_index=0
	check "$name, tree" same_view "$file" tree
	check "$name, peek" same_view "$file" peek 'a|e'
	check "$name, focus" same_top "$file" --focus 'sort|Sort' -- -focus='sort|Sort'
done
finish

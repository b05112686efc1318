#!/usr/bin/env bash
# Hostile files mapped by the target: one profile each, status 0, bounded memory and time, no escape
# reaches a terminal; the target goes on.
# Runs beside others.
. "$(dirname "$0")/lib.sh"

cat >spin.cc <<'END'
#include <algorithm>
#include <vector>
template <typename T> static T mix(T x) { return x * 6364136223846793005ull + (x >> 33); }
struct Worker {
	std::vector<unsigned long> values = std::vector<unsigned long>(500);
	__attribute__((noinline)) unsigned long deep(int depth, unsigned long x)
	{
		if (depth == 0) {
			for (auto &value : values) value = x = mix(x);
			std::sort(values.begin(), values.end());
			return x;
		}
		return deep(depth - 1, mix(x)) + depth;
	}
};
volatile unsigned long sink;
extern "C" __attribute__((visibility("default"))) void spin() { static Worker w; sink += w.deep(8, sink); }
END
${CXX:-c++} -g -O2 -fPIC -shared -o spin.so spin.cc || { fail "no sample library"; finish; }

take() { # KIND SEED
	"$python" "$tests/system/mutate.py" "$1" "$2" spin.so hostile.so || { fail "mutate $1"; return; }
	start "$O/workloads/dlspin" "$work/hostile.so"
	sleep 0.1
	if ! kill -0 "$pid" 2>/dev/null; then
		skip "$1 $2: does not load" # not the profiler's doing
		return
	fi
	for length in 0.25 2; do # on a busy machine it gets less CPU
		expect 0 record -p "$pid" -d $length -F 499 -o hostile.pb.gz --stats hostile.json
		json_holds hostile.json 'd["samples"] > 10' && break
	done
	check "$1 $2: samples" json_holds hostile.json 'd["samples"] > 10'
	check "$1 $2: bounded memory" json_holds hostile.json 'd["profiler_rss_bytes"] < 1.5e9'
	check "$1 $2: bounded time" json_holds hostile.json 'd["symbolize_ns"] < 10e9'
	check "$1 $2: the target lives" kill -0 "$pid"
	expect 0 report top hostile.pb.gz
	check "$1 $2: no escape in the table" test "$(tr -d '\n\t -~' <out | LC_ALL=C tr -d '\200-\377' | wc -c)" = 0
	pprof -top hostile.pb.gz >top || fail "$1 $2: pprof" pprof.err
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
}

for kind in cfi hdr dwarf dwarf-one sections symbols; do
	for seed in 1 2 3; do take $kind $seed; done
done
for kind in cfi-register counts huge bomb names; do take $kind 1; done

# A file that shrinks while it is mapped and read
cp spin.so shrink.so
start "$O/workloads/dlspin" "$work/shrink.so"
sleep 0.1
( sleep 0.3; truncate -s 5000 shrink.so ) &
expect 0 record -p "$pid" -d 1 -o shrink.pb.gz

# A deleted library is still named
cp spin.so gone.so
start "$O/workloads/dlspin" "$work/gone.so"
sleep 0.1
rm gone.so
expect 0 record -p "$pid" -d 0.5 -F 299 -o gone.pb.gz
if is_root; then
	pprof -top gone.pb.gz >top
	check "deleted library" grep -q Worker::deep top
else
	skip "deleted library: needs map_files"
fi
finish

#!/usr/bin/env bash
# `report locks` on files: of our own making, of Go's, hostile ones, and of what is no such profile.
# Runs beside others.
. "$(dirname "$0")/lib.sh"

# Writes a mutex profile by the wire format: lock, contentions, delay, functions innermost first.
cat >make.py <<'PY'
import gzip, sys
def varint(n):
    out = b""
    n &= (1 << 64) - 1
    while n > 127: out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])
def number(field, n): return varint(field << 3) + varint(n)
def bytes_of(field, b): return varint(field << 3 | 2) + varint(len(b)) + b
strings = [b""]
def string(s):
    s = s if isinstance(s, bytes) else s.encode()
    if s not in strings: strings.append(s)
    return strings.index(s)
def write(path, samples, comments, types=("contentions/count", "delay/nanoseconds")):
    global strings
    strings, functions, out = [b""], [], b""
    for t in types:
        name, unit = t.split("/")
        out += bytes_of(1, number(1, string(name)) + number(2, string(unit)))
    for lock, contentions, delay, names in samples:
        body = b""
        for name in names:
            if name not in functions: functions.append(name)
            body += number(1, functions.index(name) + 1)
        body += bytes_of(2, varint(contentions) + varint(delay))
        if lock is not None:
            body += bytes_of(3, number(1, string("lock")) + number(2, string(lock)))
        out += bytes_of(2, body)
    for i, name in enumerate(functions, 1):
        out += bytes_of(4, number(1, i) + bytes_of(4, number(1, i)))
        out += bytes_of(5, number(1, i) + number(2, string(name)))
    for comment in comments: out += number(13, string(comment))
    out += number(10, 2 * 10**9)
    out += b"".join(bytes_of(6, s) for s in strings)
    with gzip.open(path, "wb") as f: f.write(out)
def told(lock, c, d, l, w=""):
    return 'lock "%s": contentions %d, delay %d ns, longest %d ns%s' % (lock, c, d, l, w and ", waiters " + w)
write("early.pb.gz", [("orders", 5, 10**7, ["pthread_mutex_unlock", "add", "main"])],
      [told("orders", 5, 10**7, 10**6)])
write("mutex.pb.gz",
      [("orders", 10, 5 * 10**8, ["pthread_mutex_unlock", "add", "main"]),
       ("orders", 30, 10**8, ["pthread_mutex_unlock", "drop", "main"]),
       ("journal", 1000, 2 * 10**8, ["pthread_spin_unlock", "write", "main"])],
      [told("orders", 41, 61 * 10**7, 10**8, "take 90%; look 10%"), told("journal", 1000, 2 * 10**8, 7 * 10**5)])
write("many.pb.gz", [("lock %d" % i, 1, 1000 + i, ["f%d" % i]) for i in range(300)],
      [told("lock %d" % i, 1, 1000 + i, 1000) for i in range(100, 300)])
evil = "\x1b]0;owned\x07\x1b[2J\u202e"
write("evil.pb.gz", [(evil, 1, 5, [evil])], [told(evil, 1, 5, 5, evil + " 100%"), told("x\": contentions 1, delay 9", 2, 7, 7)])
write("cpu.pb.gz", [(None, 1, 5, ["f"])], [], ("samples/count", "cpu/nanoseconds"))
write("delay.pb.gz", [(None, 1, 5, ["f"])], [], ("contentions/count", "delay/bytes"))
PY
"$python" make.py || fail "no profiles were made"

expect 0 report locks mutex.pb.gz
printed '^Duration: 2s$'
printed '^2 locks: 810ms of waiting, 1041 contentions$'
printed '^ +610ms 75\.31% +41 +14\.88ms +100ms  orders$'
printed '^ +200ms 24\.69% +1000 +200us +700us  journal$'
printed '^  holders 83\.33% +500ms  add$'
printed '^ +16\.67% +100ms  drop$'
printed '^  waiters +90% +take$'
check "the longest wait in all is first" test "$(grep -nE '  orders$' out | cut -d: -f1)" -lt "$(grep -nE '  journal$' out | cut -d: -f1)"
expect 0 report locks mutex.pb.gz --sample-index contentions -n 1
printed '^Showing 1 of them$'
printed '  journal$'
refuse "one row" grep -q orders out
expect 0 report locks mutex.pb.gz --focus '^ord'
refuse "focus" grep -q journal out
expect 0 report locks mutex.pb.gz --ignore ord
refuse "ignore" grep -q orders out
expect 0 report locks mutex.pb.gz -f json -o locks.json
check "JSON" json_holds locks.json \
	"[(l['lock'], l['delay_ns'], l['longest_ns']) for l in d['locks']] == [('orders', 610000000, 100000000), ('journal', 200000000, 700000)]"
check "JSON: stacks" json_holds locks.json \
	"d['locks'][0]['holders'][0] == {'function': 'add', 'contentions': 10, 'delay_ns': 500000000} and d['locks'][0]['waiters'][1]['share'] == 0.1"
# What has come since: comments do not tell that.
expect 0 report locks mutex.pb.gz --base early.pb.gz -f json -o locks.json
check "--base" json_holds locks.json \
	"d['locks'][0]['delay_ns'] == 590000000 and d['locks'][0]['contentions'] == 35 and 'longest_ns' not in d['locks'][0]"

expect 0 report locks many.pb.gz
printed '^300 locks: '
printed '^Showing 20 of them$'
check "twenty rows" test "$(grep -c '  lock [0-9]*$' out)" = 20
expect 0 report locks many.pb.gz -n 0
check "all rows" test "$(grep -c '  lock [0-9]*$' out)" = 300
expect 0 report locks many.pb.gz -n 0 -f json -o locks.json
check "those without a comment" json_holds locks.json \
	"len(d['locks']) == 300 and sum('longest_ns' in l for l in d['locks']) == 200"

expect 0 report locks evil.pb.gz
refuse "no escape" grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xe2\x80\xae' out
expect 0 report locks evil.pb.gz -f json -o locks.json
check "no escape in JSON" json_holds locks.json "'owned' in str(d) and '\\x1b' not in str(d) and len(d['locks']) == 2"

expect 2 report locks cpu.pb.gz
said 'not a profile of locks'
expect 2 report locks delay.pb.gz
expect 2 report locks mutex.pb.gz -f folded
expect 2 report locks mutex.pb.gz -f pprof
expect 2 report locks mutex.pb.gz --focus '('
expect 2 report locks mutex.pb.gz --sample-index nothing
expect 2 report locks
expect 2 report lock mutex.pb.gz
said 'there are top, .*folded, locks'
expect 1 report locks missing.pb.gz
# A file of a view's name is a file.
cp mutex.pb.gz locks
expect 0 report locks
printed '^Type: delay$'
expect 0 report locks locks
printed '^2 locks: '
expect 0 report top mutex.pb.gz
expect 0 report folded mutex.pb.gz
printed '^main;'

# Go's own, which has no labels.
cat >main.go <<'GO'
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

func main() {
	var m sync.Mutex
	var done sync.WaitGroup
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	for i := 0; i < 4; i++ {
		done.Add(1)
		go func() {
			for j := 0; j < 20; j++ {
				m.Lock()
				time.Sleep(time.Millisecond)
				m.Unlock()
			}
			done.Done()
		}()
	}
	done.Wait()
	for _, kind := range []string{"mutex", "block"} {
		file, _ := os.Create("go." + kind + ".pb.gz")
		pprof.Lookup(kind).WriteTo(file, 0)
		file.Close()
	}
}
GO
if command -v go >/dev/null && GOCACHE=$work/cache GOPROXY=off GO111MODULE=off go build -o foreign main.go >build.log 2>&1 && ./foreign; then
	expect 0 report locks go.mutex.pb.gz
	printed ' -  -$'
	printed '^  stacks .* main\.main\.func1$'
	expect 0 report locks go.block.pb.gz
	printed '^1 lock: '
	expect 0 report locks go.mutex.pb.gz -f json -o locks.json
	check "Go's: no names" json_holds locks.json "[l['lock'] for l in d['locks']] == [None]"
else
	skip "no Go program could be built"
fi
finish

#!/usr/bin/env bash
# What would be patched, in programs linked in every way, against readelf, the process's memory and
# its own dlsym.
# Runs beside others.
. "$(dirname "$0")/lib.sh"
plan=$O/tools/plan
source=$tests/workloads/slots.c
abi=$tests/../include/cprof/agent_abi.h
mkfifo commands
exec 3<>commands

build() { # NAME COMPILER OPTIONS...
	local name=$1
	shift
	"$@" -D_GNU_SOURCE -w -O2 -fno-builtin -o "$name" "$source" -ldl 2>build.log
}
begin() { # COMMAND...: `slots` in some way; its words in said.out
	: >said.out
	"$@" <commands >said.out 2>>start.log &
	pid=$!
	pids+=("$pid")
	wait_for 20 grep -q ready said.out || fail "$* is not ready" start.log
}
tell() { # COMMAND
	echo "$1" >&3
	wait_for 10 grep -q "^done $1" said.out || fail "no answer to $1" said.out
}
quit() {
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
}
agrees() { # WHAT: the plan is right
	check "$1: plan" "$plan" "$pid"
	cp check.log plan.out
	check "$1: slots" "$python" "$tests/system/slots.py" "$pid" plan.out said.out "$abi"
}
says() { if grep -Eq -- "$1" plan.out; then pass; else fail "the plan does not say '$1'" plan.out; fi; }
says_not() { if grep -Eq -- "$1" plan.out; then fail "the plan says '$1'" plan.out; else pass; fi; }
refused() { # WHAT REGEX
	"$plan" "$pid" >plan.out 2>err
	status=$?
	if [ "$status" = 3 ] && one_line_error && grep -Eq -- "$2" err; then pass; else fail "$1 is not refused" plan.out err; fi
}

# --- ways of linking ---------------------------------------------------------------------------
each_way() { # NAME COMPILER OPTIONS...
	if ! build "$@"; then
		skip "$*: does not build"
		return
	fi
	begin "./$1"
	agrees "$*, before binding"
	says "^module hooked [0-9]+ $work/$1 "
	tell bind
	agrees "$*"
	[ "$2" = musl-gcc ] || says '^order .* posix_memalign '
	quit
}
each_way pie cc -pie
each_way lazy cc -pie -Wl,-z,lazy
each_way nopie cc -no-pie -Wl,-z,lazy
each_way now cc -pie -Wl,-z,now
each_way nopie_now cc -no-pie -Wl,-z,now
each_way noplt cc -fno-plt
each_way norelro cc -Wl,-z,norelro,-z,lazy
each_way lto cc -flto
each_way cet cc -fcf-protection -Wl,-z,lazy
each_way sysv cc -Wl,--hash-style=sysv
each_way gold cc -fuse-ld=gold
each_way lld clang -fuse-ld=lld
each_way musl musl-gcc -rdynamic
each_way cxx c++ -x c++ -fpermissive -Wl,--no-as-needed

# --- allocators that come before ---------------------------------------------------------------
for library in libjemalloc.so.2 libtcmalloc_minimal.so.4 libtcmalloc.so.4; do
	path=$(ldconfig -p 2>/dev/null | awk -v l="$library" '$1 == l {print $NF; exit}')
	if [ -z "$path" ]; then
		skip "no $library"
		continue
	fi
	for program in pie nopie cxx now; do
		[ -x $program ] || continue
		begin env LD_PRELOAD="$path" "./$program"
		tell bind
		agrees "$program with $library"
		says "^module (hooked|none) [0-9]+ .*libc.so.6 "
		says "^module none 0 .*/${library%.so*}"
		says_not '^module bypass'
		quit
	done
done

# --- modules that come and go ------------------------------------------------------------------
cat >part.c <<-'END'
	#include <stdlib.h>
	#include <string.h>
	void *part(int n) { return n ? malloc(n) : calloc(1, 9); }
	void *more(void *p, int n) { free(p); return realloc(0, n); }
END
cc -O2 -fno-builtin -shared -fPIC -Wl,-z,now -o part.so part.c
cc -O2 -fno-builtin -shared -fPIC -Wl,-z,lazy -o lazypart.so part.c
begin ./pie
tell bind
before=$("$plan" "$pid" | grep -c '^order')
tell "open $work/part.so"
agrees "a library loaded now"
says "^module hooked 4 $work/part.so"
quit
begin ./pie
"$plan" "$pid" 30 100000 >plan.out 2>err &
planner=$!
tell "open $work/part.so"
sleep 1
tell close
await $planner
check "orders of a library that is gone" test "$(grep -c '^order.* 4$' plan.out)" = 4
says_not "^module .*/part.so"
quit
begin ./pie
"$plan" "$pid" 30 100000 >plan.out 2>err &
planner=$!
for _ in 1 2 3; do
	tell "open $work/part.so"
	sleep 0.3
	tell close
	sleep 0.2
done
tell "open $work/part.so"
sleep 0.1
tell bind
await $planner
check "a library that came back" "$python" "$tests/system/slots.py" "$pid" plan.out said.out "$abi"
check "its orders were used again" test "$(grep -c '^order' plan.out)" -le $((before + 4))
says "^module hooked 4 $work/part.so"
quit
begin ./pie
tell bind
tell "open $work/lazypart.so"
"$plan" "$pid" >plan.out 2>err
says "^module none 0 $work/lazypart.so" # what is bound at the first call waits for it
"$plan" "$pid" 20 100000 >plan.out 2>err &
planner=$!
sleep 0.5
tell call
await $planner
says "^module hooked 1 $work/lazypart.so"
says '^order .* calloc 0 .* 1$'
quit

# --- what cannot be patched --------------------------------------------------------------------
if build static cc -static; then
	begin ./static
	refused "a static program" "nothing to patch: $work/static is statically linked"
	quit
fi
if build static_pie cc -static-pie; then
	begin ./static_pie
	refused "a static PIE" "nothing to patch: $work/static_pie is statically linked"
	quit
fi
if build own cc -Wl,-Bstatic -ljemalloc -Wl,-Bdynamic -lm -lstdc++ -lpthread; then
	cc -D_GNU_SOURCE -w -O2 -fno-builtin -o own "$source" -Wl,-Bstatic -ljemalloc -Wl,-Bdynamic -lm -ldl -lpthread
	begin ./own
	refused "a program with its own allocator" "nothing to patch: $work/own carries an allocator"
	quit
else
	skip "no static jemalloc"
fi
cat >own.c <<-'END'
	static char heap[1 << 20];
	static unsigned long used;
	__attribute__((visibility("hidden"))) void *malloc(unsigned long n) { return heap + (used += (n + 31) & ~15ul); }
	void *use(void) { return malloc(3); }
END
cc -O2 -fno-builtin -shared -fPIC -o ownpart.so own.c
begin ./pie
tell "open $work/ownpart.so"
agrees "a library with a hidden allocator"
says "^module bypass 0 $work/ownpart.so \| carries an allocator of its own"
quit
if command -v go >/dev/null; then
	cat >sleep.go <<-'END'
		package main
		import ("fmt"; _ "net"; "time")
		func main() { fmt.Println("ready"); time.Sleep(time.Hour) }
	END
	for way in "1" "0" "1 -ldflags=-s"; do
		# shellcheck disable=SC2086 # two words
		if ! HOME=$work GOCACHE=$work/.go CGO_ENABLED=${way%% *} go build -o gosleep ${way#[01]} sleep.go 2>build.log; then
			skip "go build: $way"
			continue
		fi
		begin ./gosleep
		refused "a Go program ($way)" "nothing to patch: $work/gosleep is a Go program"
		quit
	done
fi

# --- programs ----------------------------------------------------------------------------------
start "$python" -c 'import ctypes, time, ssl, sqlite3
lib = ctypes.CDLL(None)
for n in ("malloc", "calloc", "realloc", "free", "posix_memalign", "reallocarray"):
	print("sym", n, "%x" % ctypes.cast(getattr(lib, n), ctypes.c_void_p).value)
print("ready", flush=True)
time.sleep(1000)'
wait_for 20 grep -q ready start.log
cp start.log said.out
agrees python
says '^module hooked .*libsqlite3'
if command -v redis-server >/dev/null; then
	: >start.log
	start redis-server --port 0 --unixsocket "$work/redis.sock" --save ''
	wait_for 20 test -S redis.sock
	echo >said.out
	check "redis: plan" "$plan" "$pid"
	cp check.log plan.out
	check "redis: slots" "$python" "$tests/system/slots.py" "$pid" plan.out said.out "$abi"
	says '^module hooked [0-9]+ .*redis'
fi
finish

# shellcheck shell=bash
# For system tests: `. "$(dirname "$0")/lib.sh"`, then checks, then `finish`.
# Everything happens in $work; processes begun with `start` are ended by pid at the end.
set -u
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
O=${O:-$tests/../build}
O=$(cd "$O" && pwd)
cprof=$O/cprof-attach
work=$(mktemp -d "${TMPDIR:-/tmp}/cprof-test.XXXXXX")
chmod 755 "$work" # for the checks that run as nobody
cd "$work" || exit 1
passed=0 failed=0 skipped=0
pids=()
mounts=()

cleanup() {
	local pid mount
	for pid in ${pids[@]+"${pids[@]}"}; do kill -CONT "$pid" 2>/dev/null; kill -KILL "$pid" 2>/dev/null; done
	wait 2>/dev/null
	for mount in ${mounts[@]+"${mounts[@]}"}; do umount "$mount"; done
	cd / && rm -rf "$work"
}
trap cleanup EXIT
# Ended by a signal (the runner's time limit): still clean up.
trap 'exit 1' TERM INT

pass() { passed=$((passed + 1)); }
fail() { # WHAT [FILE...]: files are shown
	echo "FAILED: $1"
	shift
	[ $# = 0 ] || tail -n 15 "$@" 2>/dev/null | sed 's/^/    /'
	failed=$((failed + 1))
}
skip() { echo "skipped: $1"; skipped=$((skipped + 1)); }

check() { # WHAT COMMAND...: the command succeeds
	local what=$1
	shift
	if "$@" >check.log 2>&1; then pass; else fail "$what: $*" check.log; fi
}
refuse() { # WHAT COMMAND...: the command does not succeed
	local what=$1
	shift
	if "$@" >check.log 2>&1; then fail "$what: not $*" check.log; else pass; fi
}

cprof() { # ARGS...: stdout in $work/out, stderr in $work/err, the status in $status
	"$cprof" "$@" >out 2>err </dev/null
	status=$?
}
one_line_error() { [ "$(grep -vc '^cprof-attach: note: ' err)" = 1 ] && grep -q '^cprof-attach: ' err; }
expect() { # STATUS ARGS...: that status, and with an error's status one line on stderr
	local wanted=$1
	shift
	cprof "$@"
	if [ "$status" != "$wanted" ]; then
		fail "cprof-attach $*: status $status, not $wanted" err
	elif [ "$wanted" -ge 1 ] && [ "$wanted" -le 4 ] && ! one_line_error; then
		fail "cprof-attach $*: stderr is not one line" err
	else
		pass
	fi
}
said() { # REGEX: the last run's stderr matches
	if grep -Eq -- "$1" err; then pass; else fail "stderr does not say '$1'" err; fi
}
printed() { # REGEX: the same of stdout
	if grep -Eq -- "$1" out; then pass; else fail "stdout does not say '$1'" out; fi
}

start() { # COMMAND...: in the background; its pid is $pid
	"$@" >>start.log 2>&1 </dev/null &
	pid=$!
	pids+=("$pid")
}
wait_for() { # SECONDS COMMAND...: polls until it succeeds
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
state_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1; }
free_port() {
	"$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
# What the file itself says: nothing is looked up in binaries here.
pprof() { HOME=$work GOCACHE=$work/.go PPROF_TMPDIR=$work go tool pprof -symbolize=none "$@" 2>pprof.err; }
json() { # FILE EXPRESSION: in Python, the document is `d`
	"$python" -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"
}
json_holds() { [ "$(json "$1" "bool($2)")" = True ]; }

# What is not possible without: `is_root || skip …`
is_root() { [ "$(id -u)" = 0 ]; }
# shellcheck disable=SC2034 # used by the tests
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs)
# The distribution's interpreter, whose stacks are plain C.
python=$(PATH=/usr/bin:/bin:$PATH command -v python3)
try_mount() { # DIR OPTIONS: a small tmpfs, if that is permitted here
	mkdir -p "$1"
	is_root && mount -t tmpfs -o "$2" tmpfs "$1" 2>/dev/null && mounts+=("$work/$1")
}
await() { # PID: waits for a process begun with `start`; its status
	wait "$1" 2>/dev/null
	status=$?
}
busy='
import sys, time
def inner(n):
    s = 0
    for i in range(n): s += i * i
    return s
def outer(end):
    while time.monotonic() < end: inner(2000)
outer(time.monotonic() + float(sys.argv[1]))
'
start_busy() { # SECONDS: pure Python, in the distribution's interpreter
	start "$python" -c "$busy" "$1"
}

finish() {
	echo "RESULT $passed $failed $skipped"
	[ "$failed" = 0 ]
	exit
}

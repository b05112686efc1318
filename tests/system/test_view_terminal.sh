#!/usr/bin/env bash
# The live view on a real terminal (tmux): size, suspension, hang-up, the target's end, and that
# leaving in any way leaves nothing behind.
. "$(dirname "$0")/lib.sh"
export LC_ALL=C.UTF-8 TMUX_TMPDIR=$work
if ! command -v tmux >/dev/null; then
	skip "no tmux"
	finish
fi
unset TMUX
patience=30

t() { tmux -L view -f /dev/null "$@"; }
end_tmux() { t kill-server 2>/dev/null; }
trap 'end_tmux; cleanup' EXIT
picture() { t capture-pane -p >picture 2>/dev/null; }
shows() { picture && grep -Eq -- "$1" picture; }
lacks() { picture && ! grep -Eq -- "$1" picture; }
await_picture() { # WHAT REGEX
	if wait_for $patience shows "$2"; then pass; else fail "$1: no '$2'" picture; fi
}
clean() { "$cprof" detach -p "$1" --check; }
# A shell of its own with job control; its prompt is $ready.
ready='cprof-ready>'
open_shell() { # COLUMNS ROWS
	end_tmux
	wait_for 5 refuse_server
	t new-session -d -x "$1" -y "$2" "PS1='$ready ' bash --norc --noprofile -i"
	wait_for $patience shows "$ready"
}
refuse_server() { ! t has-session 2>/dev/null; }
type_line() { t send-keys -l -- "$1" && t send-keys Enter; }
status_is() { # WHAT STATUS: of the last command
	type_line "echo status=\$?="
	await_picture "$1" "status=$2="
}
refuse_pid() { ! kill -0 "$1" 2>/dev/null; }
view_pid() { pgrep -P "$(t display-message -p '#{pane_pid}')" -x cprof-attach; }

start "$O/workloads/service" 200
service=$pid
run="$cprof -p $service -F 400"

# --- looks like the program, answers keys, follows the size
open_shell 80 24
type_line "$run"
await_picture "a first picture" "^service $service "
await_picture "rows" 'shop::'
await_picture "keys at the bottom" 'q quit'
t send-keys 5
await_picture "threads" 'worker-north'
t send-keys Enter
await_picture "a stack" '#0 '
t send-keys Escape
t send-keys 1
await_picture "the CPU view again" '\[1 CPU\]'
t resize-window -x 140 -y 45
await_picture "a wide screen" 'sum%'
t resize-window -x 1 -y 1
sleep 0.3
t resize-window -x 60 -y 12
await_picture "a small screen" '\[1 CPU\]'
if wait_for $patience lacks 'sum%'; then pass; else fail "still wide" picture; fi
t resize-window -x 80 -y 24
t send-keys '?'
await_picture "help" 'this help|more below'
t send-keys x
t send-keys /
t send-keys -l 'shop::ser'
await_picture "a filter being typed" 'filter: /shop::ser'
t send-keys Enter
await_picture "filtered" '^/shop::ser/'
# --- suspended and continued
t send-keys C-z
await_picture "suspended: the shell is back" "$ready"
await_picture "as a stopped job" 'Stopped'
type_line fg
await_picture "continued" '^service '
# --- leaving
t send-keys q
await_picture "left" "$ready"
status_is "q" 0
check "nothing is left" clean "$service"
type_line "stty -a | grep -o ' echo '"
await_picture "the terminal echoes" '^ *echo *$'

# --- nobody could continue it (ssh -t): then it is not stopped
alone='
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execv(sys.argv[1], sys.argv[1:])
def read(seconds):
    end, text = time.time() + seconds, b""
    while select.select([fd], [], [], max(0, end - time.time()))[0]:
        try:
            text += os.read(fd, 65536)
        except OSError:
            break
    return text
read(1.5)
os.write(fd, b"\x1a")
read(1)
print("state", open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0])
os.kill(pid, 18)
os.write(fd, b"q")
read(10)
print("status", os.waitpid(pid, 0)[1])
'
"$python" -c "$alone" "$cprof" -p "$service" >alone.out
check "Ctrl-Z without a shell does nothing" grep -q '^state [SRD]' alone.out
check "and q leaves" grep -qx 'status 0' alone.out

# --- every way to leave, with the agent in place or not
for way in C-c TERM HUP QUIT; do
	type_line clear
	type_line "$run -e heap"
	await_picture "$way: begun" '\[2 Heap\]'
	wait_for $patience shows 'hooked: heap|could not|! ' || fail "$way: no agent" picture
	pid=$(view_pid)
	case $way in
	C-c) t send-keys C-c ;;
	*) kill -"$way" "${pid:-0}" ;;
	esac
	if wait_for $patience refuse_pid "$pid"; then pass; else fail "$way: it goes on" picture; fi
	check "$way: nothing is left" clean "$service"
done

# --- the terminal goes away, as when ssh is cut off
open_shell 80 24
type_line "$run -e heap"
await_picture "hang-up: begun" '\[2 Heap\]'
wait_for $patience shows 'hooked: heap|could not|! ' || fail "hang-up: no agent" picture
pid=$(view_pid)
end_tmux
if wait_for $patience refuse_pid "$pid"; then pass; else fail "hang-up: it goes on"; fi
check "hang-up: nothing is left" clean "$service"

# --- the target's end: the last picture stays
start "$O/workloads/service" 200
mortal=$pid
open_shell 80 24
type_line "$cprof -p $mortal -F 400"
await_picture "mortal: rows" 'shop::'
total_ms() { # of the picture
	sed -n 's/.*cpu: \([0-9.]*\)\(m\?s\) total.*/\1 \2/p' picture | awk '{ print int($2 == "s" ? $1 * 1000 : $1) }'
}
early=$(total_ms)
t send-keys 5
await_picture "mortal: its threads" 'worker-north'
sleep 2
kill -KILL "$mortal"
await_picture "its end is told" "process $mortal has ended|process has ended"
t send-keys 1
await_picture "the CPU view again" '\[1 CPU\]'
wait_for 5 shows "shop::"
check "with what came meanwhile: $early, $(total_ms) ms" test "$(total_ms)" -gt $((early + 200))
check "the picture stays" shows 'shop::'
t send-keys q
await_picture "left after the end" "$ready"
status_is "after the end" 0

# --- another program, without colours, in ASCII
start redis-server --port 0 --unixsocket "$work/redis.sock" --save ''
redis=$pid
type_line clear
type_line "NO_COLOR=1 LC_ALL=C $cprof -p $redis"
await_picture "redis" "^redis-server $redis "
t send-keys 5
await_picture "its threads" 'bio_'
t send-keys q
await_picture "left redis" "$ready"
check "nothing is left in redis" clean "$redis"
type_line clear
type_line "TERM=nonsense $cprof -p $redis"
await_picture "a terminal that nobody knows" 'set TERM'
status_is "it is a usage error" 2
finish

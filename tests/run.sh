#!/usr/bin/env bash
# Runs unit test programs (cmocka) and system test scripts; ends on "N passed, N failed".
# A script counts by its last line "RESULT passed failed skipped" (tests/system/lib.sh), without
# one by its exit status (77: skipped). What says "Runs beside others" near its top runs two at a
# time, before the rest: nothing in it depends on how fast it is.
set -u
cd "$(dirname "$0")/.." || exit
limit=${TEST_SECONDS:-120}
logs=$O/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 again=0

log_of() { echo "$logs/$(basename "$(dirname "$1")")-$(basename "$1" .sh).log"; }

count() { # NAME PATTERN: the number cmocka printed
	sed -n "s/.*\[ *$2 *\] \([0-9]*\) test(s).*/\1/p" "$1" | tail -n 1
}

# Runs one and sets ok, bad, left, status.
run() { # TEST LOG
	timeout --kill-after=10 "$limit" "$1" >"$2" 2>&1 </dev/null
	status=$?
	if result=$(grep '^RESULT [0-9]* [0-9]* [0-9]*$' "$2" | tail -n 1) && [ -n "$result" ]; then
		read -r _ ok bad left <<<"$result"
	elif [ "${1%.sh}" != "$1" ]; then
		ok=0 bad=0 left=0
		case $status in 0) ok=1 ;; 77) left=1 ;; *) bad=1 ;; esac
	else
		ok=$(count "$2" PASSED) bad=$(count "$2" FAILED) left=$(count "$2" SKIPPED)
	fi
	ok=${ok:-0} bad=${bad:-0} left=${left:-0}
	[ "$status" = 0 ] || [ "$status" = 77 ] || [ "$bad" != 0 ] || bad=1
	[ $((ok + bad + left)) != 0 ] || bad=1
}

# What a failed run said: its complaints wherever they are, then its end.
show() { # LOG
	grep -E '^not ok|ERROR|error:|FAILED|runtime error' "$1" | head -n 12 | sed 's/^/      ! /'
	tail -n 25 "$1" | sed 's/^/        /'
}

if [ "${1:-}" = --beside ]; then
	log=$(log_of "$2")
	run "$2" "$log"
	echo "$ok $bad $left $status $SECONDS" >"$log.result"
	exit 0
fi

source_of() { # TEST
	case $1 in *.sh) echo "$1" ;; *) echo "tests/unit/$(basename "$1").c" ;; esac
}
rm -f "$logs"/*.result
for test in "$@"; do
	head -n 8 "$(source_of "$test")" | grep -q 'Runs beside others' && printf '%s\0' "$test"
done | xargs -0 -r -n 1 -P 2 tests/run.sh --beside

for test in "$@"; do
	name=$(basename "$test" .sh)
	log=$(log_of "$test")
	begin=$SECONDS
	if [ -e "$log.result" ]; then
		read -r ok bad left status seconds <"$log.result"
		begin=$((SECONDS - seconds))
	else
		run "$test" "$log"
	fi
	# Tests on live processes compare counts with CPU time and wait for others; where something
	# else took the machine for a moment they run once more. A fault fails both times; one that
	# fails now and then is told.
	if [ "$bad" != 0 ]; then
		echo "again   $name: $bad of $((ok + bad)), status $status:"
		show "$log"
		mv "$log" "$log.first"
		again=$((again + 1))
		run "$test" "$log"
	fi
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
	if [ "$bad" = 0 ]; then
		echo "ok      $name: $ok$([ "$left" = 0 ] || echo ", $left skipped") ($((SECONDS - begin)) s)"
	else
		echo "FAILED  $name: $bad of $((ok + bad)), status $status; $log:"
		show "$log"
	fi
done
[ "$again" = 0 ] || echo "$again of the tests ran twice"
echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
[ "$failed" = 0 ]

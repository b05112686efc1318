#!/usr/bin/env bash
# Runs unit test programs (cmocka) and system test scripts; ends on "N passed, N failed".
# A script counts by its last line "RESULT passed failed skipped" (tests/system/lib.sh), without
# one by its exit status (77: skipped).
set -u
cd "$(dirname "$0")/.." || exit
limit=${TEST_SECONDS:-120}
logs=$O/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0

count() { # NAME PATTERN: the number cmocka printed
	sed -n "s/.*\[ *$2 *\] \([0-9]*\) test(s).*/\1/p" "$1" | tail -n 1
}

for test in "$@"; do
	name=$(basename "$test" .sh)
	log=$logs/$(basename "$(dirname "$test")")-$name.log
	begin=$SECONDS
	timeout --kill-after=10 "$limit" "$test" >"$log" 2>&1 </dev/null
	status=$?
	if result=$(grep '^RESULT [0-9]* [0-9]* [0-9]*$' "$log" | tail -n 1) && [ -n "$result" ]; then
		read -r _ ok bad left <<<"$result"
	elif [ "${test%.sh}" != "$test" ]; then
		ok=0 bad=0 left=0
		case $status in 0) ok=1 ;; 77) left=1 ;; *) bad=1 ;; esac
	else
		ok=$(count "$log" PASSED) bad=$(count "$log" FAILED) left=$(count "$log" SKIPPED)
	fi
	ok=${ok:-0} bad=${bad:-0} left=${left:-0}
	[ "$status" = 0 ] || [ "$status" = 77 ] || [ "$bad" != 0 ] || bad=1
	[ $((ok + bad + left)) != 0 ] || bad=1
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
	if [ "$bad" = 0 ]; then
		echo "ok      $name: $ok$([ "$left" = 0 ] || echo ", $left skipped") ($((SECONDS - begin)) s)"
	else
		echo "FAILED  $name: $bad of $((ok + bad)), status $status; end of $log:"
		tail -n 25 "$log" | sed 's/^/        /'
	fi
done
echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
[ "$failed" = 0 ]

#!/usr/bin/env bash
# Soft limits, told as warnings: files of 600 lines, functions of 80.
set -eu
cd "$(dirname "$0")/../.."
for file in include/cprof/*.h src/*/*.[ch] tui/*.[ch] tests/unit/*.c; do
	[ -e "$file" ] || continue
	awk -v file="$file" '
		/^\{/ { start = NR }
		/^\}/ { if (start && NR - start > 80) print "warning: " file ":" start ": function of " NR - start " lines"; start = 0 }
		END { if (NR > 600) print "warning: " file ": " NR " lines" }' "$file"
done

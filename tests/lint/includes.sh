#!/usr/bin/env bash
# The floors of the house: a file includes only public headers of its own floor or of floors
# above it in this list, and private headers of its own folder.
set -eu
cd "$(dirname "$0")/../.."
floors=(
	"error"
	"util reader outfile"
	"target"
	"image"
	"space unwind"
	"perf"
	"agent_abi agent agent_ring attach"
	"profile source builder"
	"areas threads heap locks memtrace"
	"pprof listing"
	"report analysis"
	"session"
	"view tui"
	"cli"
)

declare -A level
for i in "${!floors[@]}"; do
	for name in ${floors[i]}; do level[$name]=$i; done
done
bad=0
complain() {
	echo "$1: $2" >&2
	bad=1
}

for file in include/cprof/*.h src/*/*.[ch] tui/*.[ch] attach/*.[ch] attach/agent/*.[ch]; do
	case $file in
	include/*) own=$(basename "$file" .h) ;;
	*) own=$(basename "$(dirname "$file")") ;;
	esac
	mine=${level[$own]:-}
	if [ -z "$mine" ]; then
		complain "$file" "its floor is not in tests/lint/includes.sh"
		continue
	fi
	while read -r header; do
		theirs=${level[$header]:-}
		if [ -z "$theirs" ] || [ "$theirs" -gt "$mine" ]; then
			complain "$file" "includes <cprof/$header.h>, a floor below its own"
		fi
	done < <(sed -n 's|^#include <cprof/\([a-z_]*\)\.h>.*|\1|p' "$file")
	while read -r header; do
		case $header in
		profile.pb-c.h) [ "$own" = pprof ] && continue ;;
		*/*) ;;
		*) [ -e "$(dirname "$file")/$header" ] && continue ;;
		esac
		complain "$file" "includes \"$header\", a private header of another folder"
	done < <(sed -n 's|^#include "\(.*\)".*|\1|p' "$file")
done
exit $bad

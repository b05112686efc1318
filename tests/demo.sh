#!/usr/bin/env bash
# `make demo`: profiles a small sample service for four seconds.
set -eu
file=$O/demo.pb.gz
"$O/workloads/service" 20 &
service=$!
trap 'kill $service 2>/dev/null || true; wait $service 2>/dev/null || true' EXIT
sleep 0.3
echo "\$ cprof-attach record -p $service -d 4 -o $file"
"$O/cprof-attach" record -p $service -d 4 -o "$file"
echo
echo "\$ cprof-attach report top -n 15 $file"
"$O/cprof-attach" report top -n 15 "$file"
echo
echo "the profile: $file (try: go tool pprof -http : $file)"

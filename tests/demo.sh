#!/usr/bin/env bash
# `make demo`: profiles a small sample service for four seconds.
set -eu
cd "$(dirname "$0")/.."
O=${O#"$PWD"/}
file=$O/demo.pb.gz
"$O/workloads/service" 20 &
service=$!
trap 'kill $service 2>/dev/null || true; wait $service 2>/dev/null || true' EXIT
sleep 0.3
echo "\$ cprof-attach record -p $service -d 4 -o $file"
"$O/cprof-attach" record -p $service -d 4 -o "$file"
echo
echo "\$ cprof-attach report top -n 12 $file"
"$O/cprof-attach" report top -n 12 "$file"
echo
echo "The profile is $file; go tool pprof -http : $file shows it as a graph and a flame graph."

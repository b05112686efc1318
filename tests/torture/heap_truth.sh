#!/usr/bin/env bash
# heap_truth.sh [RUNS]: heap profiles against exact accounts, see heap_truth.py.
. "$(dirname "$0")/../system/lib.sh"
if "$tests/torture/heap_truth.py" "${1:-200}" >truth.out 2>&1; then pass; else fail "heap truth"; fi
cat truth.out
finish

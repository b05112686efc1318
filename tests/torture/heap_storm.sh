#!/usr/bin/env bash
# heap_storm.sh [ROUNDS [MODE...]]: heap profiles, sampled densely and exact, every other one with
# locks hooked too, attached and detached over and over on programs that check every block they have
# and that they are alone with a lock, and do everything that programs do around it. None may find
# a block changed or anybody inside, crash, or hang; none may be left hooked.
. "$(dirname "$0")/../system/lib.sh"
rounds=${1:-100}
shift $(($# > 0 ? 1 : 0))
modes=("$@")
[ $# != 0 ] || modes=(plain fork vfork spawn dlopen signals threads cancel stopcont closefds
	"fork vfork spawn dlopen signals threads cancel")

for mode in "${modes[@]}"; do
	# shellcheck disable=SC2086
	"$O/workloads/storm" 8 $mode locks >storm.out 2>&1 </dev/null &
	target=$!
	pids+=("$target")
	wait_for 5 grep -q ready storm.out || fail "$mode: not ready" storm.out
	taken=0 refused=0
	for i in $(seq "$rounds"); do
		rates=(1 4096 524288)
		kinds=(heap "heap,mutex")
		timeout 60 "$cprof" record -q -p "$target" -e "${kinds[i % 2]}" -d 0.1 \
			--heap-rate "${rates[i % 3]}" --mutex-rate 1 -o '%e.pb.gz' >record.log 2>&1
		status=$?
		case $status in
		0) taken=$((taken + 1)) ;;
		3) refused=$((refused + 1)) ;; # stopped at that moment
		1) # over and over a descriptor is gone before it can be mapped
			if grep -q "closed the agent's descriptor" record.log; then
				refused=$((refused + 1))
			else
				fail "$mode: status $status" record.log
			fi
			;;
		*) fail "$mode: status $status" record.log ;;
		esac
		kill -0 "$target" 2>/dev/null || break
	done
	"$cprof" detach -p "$target" --check >check.log 2>&1 || "$cprof" detach -p "$target" >check.log 2>&1 ||
		fail "$mode: not clean" check.log
	kill -CONT "$target" 2>/dev/null
	kill -TERM "$target" 2>/dev/null
	if timeout 60 tail --pid="$target" -f /dev/null && wait "$target" && grep -q '^ok' storm.out; then
		pass
	else
		fail "$mode: the program" storm.out
	fi
	[ "$taken" -gt 0 ] || fail "$mode: never attached" record.log
	echo "$mode: $taken taken, $refused refused, $(tail -n 1 storm.out)"
done
finish

#!/usr/bin/env bash
# Mutex profiles: sums that are known, both sides of them, every kind of lock as without hooks,
# refusals, and that nothing is left behind.
. "$(dirname "$0")/lib.sh"
go tool pprof -help >/dev/null 2>&1 || { skip "no go tool pprof"; finish; }
contend=$O/workloads/contend
storm=$O/workloads/lockstorm

# Of a lock, by its comment: contentions, delay in ns
lock_of() { # FILE LOCK
	pprof -comments "$1" | sed -n "s/^lock \"$2 in .*\": contentions \([0-9]*\), delay \([0-9]*\) ns.*/\1 \2/p"
}
near() { # WHAT FIGURE EXPECTED PERCENT
	check "$1: $2 of $3" awk -v a="$2" -v b="$3" -v p="$4" \
		'BEGIN { exit !(a >= b * (1 - p / 100) && a <= b * (1 + p / 100)) }'
}
# ns by the leaf function in a folded profile
by_leaf() { # FILE FUNCTION
	"$cprof" report folded "$1" | awk -v f="$2" '{ n = split($0, a, ";"); sub(/ [0-9]+$/, "", a[n]); if (a[n] == f) sum += $NF } END { print sum + 0 }'
}

# --- sums, against the program's own account ---
for side in holder waiter; do
	expect 0 run -e mutex --mutex-side $side -o $side.pb.gz --stats $side.json -- "$contend" known 0 2.5
	said '^mutex: [0-9]+ samples, 0 lost, .* contentions, .* waited, 2 locks, .* -> '
	cp out $side.out
	for lock in 0 1; do
		name=first
		[ $lock = 0 ] || name=second
		read -r waits ns < <(sed -n "s/^lock $lock: \([0-9]*\) waits, \([0-9]*\) ns/\1 \2/p" $side.out)
		read -r count delay < <(lock_of $side.pb.gz $name)
		near "$side, $name: delay" "${delay:-0}" "$ns" 5
		near "$side, $name: waits" "${count:-0}" "$waits" 5
	done
	pprof -raw $side.pb.gz >raw
	check "its types" grep -q 'contentions/count delay/nanoseconds' raw
	check "as pprof" sh -c "'$cprof' report top $side.pb.gz >ours && go tool pprof -symbolize=none -top $side.pb.gz >theirs 2>/dev/null && diff ours theirs"
	pprof -tags $side.pb.gz >tags
	check "by lock" grep -q 'first in contend' tags
	check "stats" json_holds $side.json 'd["mutex"]["contended"] > 50 and d["mutex"]["lost"] == 0 and
		d["kinds"]["mutex"]["samples"] == d["samples"] and d["complete"] >= 0.99 * d["samples"]'
done
ns=$(awk '/^lock/ { sum += $5 } END { print sum }' waiter.out)
near "all that wait" "$("$cprof" report folded waiter.pb.gz | awk '{ sum += $NF } END { print sum }')" "$ns" 5
for function in hold_long hold_short write_long; do
	near "charged: $function" "$(by_leaf holder.pb.gz $function)" \
		"$(sed -n "s/^$function: charged \([0-9]*\) ns/\1/p" holder.out)" 5
done
near "who waits" "$(by_leaf waiter.pb.gz read_short)" "$(lock_of waiter.pb.gz second | cut -d' ' -f2)" 5

# --- while it runs: attach in the middle of contention ---
start "$contend" known 0 60
target=$pid
sleep 0.3
expect 0 record -p "$target" -e mutex,heap,cpu,block --mutex-rate 2 -d 1.5 -o '%e.pb.gz' --stats all.json
for kind in mutex heap cpu block; do check "all in one attach: $kind" test -s $kind.pb.gz; done
check "one in two, scaled back" json_holds all.json 'd["mutex"]["contended"] == 2 * d["mutex"]["timed"]'
check "no wait is longer than the profile" sh -c "go tool pprof -comments mutex.pb.gz 2>/dev/null | awk '/^lock/ { for (i = 1; i < NF; i++) if (\$i == \"longest\" && \$(i + 1) > 1.6e9) exit 1 }'"
expect 0 detach -p "$target" --check
expect 0 record -p "$target" -e mutex -d 0.5 -f folded -o -
printed 'hold_long [0-9]+$'
kill -0 "$target" || fail "the program is gone"

# --- whoever is stuck is told, though the wait never ends ---
start "$O/workloads/deadlock"
stuck=$pid
sleep 0.5
expect 0 record -p "$stuck" -e mutex -d 0.5 -o stuck.pb.gz # waiting before the attach: not seen
said 'mutex: 0 samples'
rm -f stuck.pb.gz
"$cprof" run -e mutex -d 1.5 -o stuck.pb.gz -- "$O/workloads/deadlock" >stuck.log 2>&1 </dev/null &
runner=$!
if wait_for 20 test -s stuck.pb.gz; then
	pprof -traces stuck.pb.gz >traces
	check "the deadlock is there" grep -q 'still held' traces
	check "its locks" sh -c "go tool pprof -tags stuck.pb.gz 2>/dev/null | grep -q 'journal in deadlock'"
else
	fail "nothing written" stuck.log
fi
pkill -KILL -P "$runner"
wait "$runner" 2>/dev/null

# --- every kind of lock behaves as without hooks ---
for seed in 1 2 3; do
	"$storm" conform $seed 3000 >plain
	for rate in 1 3; do
		expect 0 run -q -e mutex --mutex-rate $rate -o conform.pb.gz -- "$storm" conform $seed 3000
		check "the same answers, seed $seed" diff plain out
	done
done
"$storm" storm 6 fork cancel cond >storm.out 2>&1 </dev/null &
target=$!
pids+=("$target")
wait_for 5 grep -q ready storm.out || fail "storm: not ready" storm.out
for i in 1 2 3 4 5 6; do
	expect 0 record -q -p "$target" -e mutex,heap --mutex-rate $((i % 3 + 1)) -d 0.2 -o 'storm.%e.pb.gz'
done
expect 0 detach -p "$target" --check
kill -TERM "$target"
await "$target"
check "the storm: status $status" test "$status" = 0
check "nobody met anybody" grep -q '^ok' storm.out

# --- condition waits, of which glibc has an older version as well, bound at once or late ---
cat >cond.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn, late;
static void hand_over(int to)
{
	struct timespec end;
	turn = to;
	pthread_cond_broadcast(&cond);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 10;
	while (turn == to && !late)
		late |= pthread_cond_timedwait(&cond, &mutex, &end) != 0;
}
static void *other(void *unused)
{
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < 50; i++)
		hand_over(0);
	pthread_mutex_unlock(&mutex);
	return unused;
}
int main(void)
{
	pthread_t thread;
	pthread_mutex_lock(&mutex);
	pthread_create(&thread, NULL, other, NULL);
	usleep(100000); /* it waits for the mutex, which a condition wait lets go */
	for (int i = 0; i < 50; i++)
		hand_over(1);
	turn = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	puts(late ? "late" : "in time");
}
END
for bind in lazy now; do
	check "built, $bind" gcc -O1 -g -pthread -Wl,-z,$bind -o cond-$bind cond.c
	expect 0 run -e mutex --mutex-rate 1 -o cond.pb.gz -- ./cond-$bind
	printed '^in time$'
	check "charged to the condition wait, $bind" awk -v ns="$(by_leaf cond.pb.gz hand_over)" 'BEGIN { exit ns < 8e7 }'
done

# --- threads that a handler takes out of a wait by longjmp: they end, or sleep elsewhere ---
cat >left.c <<'END'
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread sigjmp_buf out;
static int stay;
static void leave(int number) { siglongjmp(out, number); }
static void *leaver(void *unused)
{
	if (!sigsetjmp(out, 1))
		pthread_mutex_lock(&mutex);
	if (stay)
		pause();
	return unused;
}
static void *worker(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&mutex);
		usleep(10000);
		pthread_mutex_unlock(&mutex);
		usleep(2000);
	}
	return unused;
}
int main(int argc, char **argv)
{
	pthread_t threads[12], other;
	stay = argc > 1;
	signal(SIGUSR1, leave);
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < 12; i++)
		pthread_create(&threads[i], NULL, leaver, NULL);
	usleep(200000);
	for (int i = 0; i < 12; i++)
		pthread_kill(threads[i], SIGUSR1);
	usleep(50000);
	pthread_mutex_unlock(&mutex);
	for (int i = 0; i < 2; i++)
		pthread_create(&other, NULL, worker, NULL);
	usleep(5000000);
	_exit(0);
}
END
check "built" gcc -O1 -g -pthread -o left left.c
for mode in "" stay; do
	expect 0 run -e mutex --stats left.json -o left.pb.gz -- ./left $mode
	# two workers, one of which waits; and the twelve until they are missed
	check "waits that were left end, $mode" json_holds left.json 'd["mutex"]["contended"] > 100 and
		2e9 < d["mutex"]["delay_ns"] < 20e9'
	check "and are not told as lost, $mode" sh -c \
		"'$cprof' report folded left.pb.gz | awk '{ sum += \$NF } END { exit sum > 25e9 }'"
done

# --- a clock of its own ---
if unshare -T --monotonic 100000 true 2>/dev/null; then
	start unshare -T --monotonic 100000 "$contend" known 0 60
	wait_for 5 sh -c "test \"\$(cat /proc/$pid/comm)\" = contend"
	expect 0 record -p "$pid" -e mutex -d 1.5 -o offset.pb.gz --stats offset.json
	check "in another time namespace" json_holds offset.json 'd["mutex"]["timed"] > 20'
	check "what is still held" sh -c "go tool pprof -comments offset.pb.gz 2>/dev/null | grep -q 'first in contend'"
	expect 0 detach -p "$pid" --check
else
	skip "no time namespaces"
fi

# --- musl's locks ---
if command -v musl-gcc >/dev/null; then
	check "built with musl" musl-gcc -O2 -g -D_GNU_SOURCE -I"$tests/workloads" -o musl-contend "$tests/workloads/contend.c"
	expect 0 run -e mutex -o musl.pb.gz -- ./musl-contend known 0 1.5
	read -r waits ns < <(sed -n 's/^lock 0: \([0-9]*\) waits, \([0-9]*\) ns/\1 \2/p' out)
	near "musl: delay" "$(pprof -comments musl.pb.gz | sed -n 's/^lock "first.*delay \([0-9]*\) ns.*/\1/p')" "${ns:-0}" 5
	check "musl: built" musl-gcc -O2 -g -D_GNU_SOURCE -I"$tests/workloads" -o musl-storm "$tests/workloads/lockstorm.c"
	./musl-storm conform 1 2000 >plain
	expect 0 run -q -e mutex --mutex-rate 1 -o conform.pb.gz -- ./musl-storm conform 1 2000
	check "musl: the same answers" diff plain out
else
	skip "no musl-gcc"
fi

# --- refusals ---
for rate in 0 -1 x 1048577; do expect 2 record -p "$target" -e mutex --mutex-rate $rate; done
expect 2 record -p $$ -e mutex --mutex-side both
cat >spin.c <<'END'
int main(void) { for (;;) __builtin_ia32_pause(); }
END
gcc -O1 -static -o spin spin.c
start ./spin
expect 3 record -p "$pid" -e mutex -d 1
said 'no locks to hook.*statically linked.*-e block'
finish

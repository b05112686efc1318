#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What hooks of locks cost: `make bench`. Inside one run of a program, hooked and not in turns."""
import json
import re
import statistics
import subprocess
import time

from common import CPROF, O, WORK, main, show


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def mutex(pid, seconds, *options):
    """Statistics of one mutex profile."""
    stats = f"{WORK}/mutex-stats.json"
    subprocess.run([CPROF, "record", "-q", "-p", pid, "-e", "mutex", "-d", str(seconds),
                    "-o", f"{WORK}/mutex.pb.gz", "--stats", stats, *options], check=True)
    with open(stats, encoding="utf-8") as file:
        return json.load(file)


def between(rounds, windows):
    """Rounds (20 ms each) that lie in one of the windows."""
    return [figure for at, figure in rounds if any(a + 2e7 < at < b for a, b in windows)]


def toggled(mode, threads, turns=12, seconds=0.6):
    """Figures of the rounds hooked, and not."""
    name = f"{WORK}/contend"
    with open(name, "w", encoding="utf-8") as out:
        process = subprocess.Popen([f"{O}/workloads/contend", mode, str(threads)], stdout=out)
    pid = str(process.pid)
    time.sleep(1)
    on, off, stats = [], [], {}
    for _ in range(turns):
        begin = now()
        stats = mutex(pid, seconds)
        # attaching and leaving take a moment
        on.append((begin + 1.5e8, now() - 1.5e8))
        begin = now()
        time.sleep(seconds)
        off.append((begin, now()))
    process.kill()
    process.wait()
    with open(name, encoding="utf-8") as file:
        rounds = [(int(a), float(b)) for a, b in
                  (line.split() for line in file if line.endswith("\n") and line[0].isdigit())]
    return between(rounds, on), between(rounds, off), stats


def bench_free():
    """A lock and unlock that nobody else wants."""
    for threads in (1, 2):
        on, off, _ = toggled("free", threads)
        on, off = (statistics.quantiles(x, n=4)[0] for x in (on, off))
        show(f"locks, uncontended lock+unlock, {threads} thread(s)",
             f"{on - off:+.2f} ns on {off:.1f} ns", "4 ns", on - off <= 4)


def bench_hot():
    """A mutex that all want all the time: passes a second."""
    for threads in (2, 4):
        on, off, stats = toggled("hot", threads, turns=20)
        ratio = statistics.median(on) / statistics.median(off)
        show(f"  contended, sections of 1 us, {threads} threads, throughput",
             f"{(ratio - 1) * 100:+.2f} % of {statistics.median(off):.3g}/s, "
             f"{stats['mutex']['contended'] / stats['duration_ns'] * 1e9:.3g} contentions/s",
             "-3 %", ratio >= 0.97)


def bench_truth():
    """Delays of a program that keeps its own account: by lock and by whoever is charged."""
    profile = f"{WORK}/known.pb.gz"
    said = subprocess.run([CPROF, "run", "-q", "-e", "mutex", "-o", profile, "--",
                           f"{O}/workloads/contend", "known", "0", "5"],
                          capture_output=True, text=True, check=True).stdout
    folded = subprocess.run([CPROF, "report", "folded", profile], capture_output=True, text=True,
                            check=True).stdout
    told = {}
    for line in folded.splitlines():
        stack, value = line.rsplit(" ", 1)
        name = stack.split(";")[-1]
        told[name] = told.get(name, 0) + int(value)
    worst, known = 0, {}
    for name, ns in re.findall(r"^(\w+): charged (\d+) ns", said, re.M):
        known[name] = int(ns)
    for name in ("hold_long", "hold_short", "write_long"):
        worst = max(worst, abs(told.get(name, 0) / known[name] - 1) * 100)
    show("mutex, delay by stack, of a known account, worst", f"{worst:.2f} % off", "5 %", worst <= 5)
    whole = abs(sum(told.values()) / sum(known.values()) - 1) * 100
    show("  in all", f"{whole:.2f} % off", "5 %", whole <= 5)


if __name__ == "__main__":
    main(globals())

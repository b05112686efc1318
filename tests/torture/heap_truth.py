#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""heap_truth.py [RUNS]: heap profiles of a program that keeps exact accounts.

Sampled: over all runs the z-score of every place's four estimates has mean 0 and variance 1 within
test error. With --heap-rate 1 every number is exact.
"""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

O = os.environ["O"]
CPROF = f"{O}/cprof-attach"
TYPES = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]


def one_run(work, seed, rate, threads, allocations):
    """(accounts, profile, stats) of one run: place -> numbers."""
    out, stats = f"{work}/heap.json", f"{work}/stats.json"
    program = subprocess.Popen([f"{O}/workloads/truth", str(seed), str(allocations), str(threads),
                                str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    program.stdout.readline()
    profiler = subprocess.Popen([CPROF, "record", "-q", "-p", str(program.pid), "-e", "heap",
                                 "-d", "0", "-f", "json", "-o", out, "--stats", stats,
                                 "--heap-rate", str(rate)])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and profiler.poll() is None:
        with open(f"/proc/{program.pid}/maps", encoding="utf-8") as maps:
            if "memfd:cprof-agent" in maps.read():
                break
        time.sleep(0.005)
    time.sleep(0.05)
    program.stdin.write("go\n")
    program.stdin.flush()
    accounts = {}
    for line in program.stdout:
        if line == "done\n":
            break
        place, *numbers = line.split()
        accounts[place] = [float(number) for number in numbers]
    profiler.send_signal(signal.SIGINT)
    if profiler.wait(30):
        sys.exit("the profiler failed")
    program.stdin.write("end\n")
    program.stdin.close()
    if program.wait(10):
        sys.exit("the program failed")
    with open(out, encoding="utf-8") as file:
        profile = json.load(file)
    with open(stats, encoding="utf-8") as file:
        statistics = json.load(file)
    assert [t["type"] for t in profile["types"]] == TYPES, profile["types"]
    sums = {place: [0] * 4 for place in accounts}
    for sample in profile["samples"]:
        for frame in sample["frames"]:
            if frame.get("function") in sums:
                for i, value in enumerate(sample["values"]):
                    sums[frame["function"]][i] += value
    return accounts, sums, statistics


def exact(work):
    """Every number at rate 1; how many did not agree."""
    wrong = 0
    for threads in (1, 4):
        accounts, sums, stats = one_run(work, 1, 1, threads, 40000)
        lost = stats["heap"]["lost"]
        for place, account in accounts.items():
            if sums[place] != account[:4]:
                wrong += 1
                print(f"rate 1, {threads} threads, {place}: {sums[place]} instead of "
                      f"{[int(n) for n in account[:4]]}, {lost} lost")
    print(f"rate 1: {wrong} wrong")
    return wrong


def sampled(work, runs):
    """Means and variances of z-scores; how many are out of bounds."""
    scores, wrong = {}, 0
    for seed in range(runs):
        accounts, sums, stats = one_run(work, seed + 1, 65536, 1 + seed % 2 * 3, 20000)
        if stats["heap"]["lost"]:
            sys.exit(f"run {seed}: {stats['heap']['lost']} lost")
        for place, account in accounts.items():
            for i, name in enumerate(TYPES):
                if account[4 + i] > 0:
                    z = (sums[place][i] - account[i]) / math.sqrt(account[4 + i])
                    scores.setdefault((place, name), []).append(z)
    for (place, name), z in sorted(scores.items()):
        mean = sum(z) / len(z)
        variance = sum((x - mean) ** 2 for x in z) / (len(z) - 1)
        kurtosis = sum((x - mean) ** 4 for x in z) / len(z) / variance ** 2
        mean_error = math.sqrt(variance / len(z))
        variance_error = variance * math.sqrt(max(kurtosis - 1, 2) / len(z))
        good = abs(mean) < 3.5 * mean_error and abs(variance - 1) < 3.5 * variance_error
        wrong += not good
        print(f"{'ok ' if good else 'BAD'} {place} {name:14} mean {mean:+.3f} (+- {mean_error:.3f})"
              f" variance {variance:.3f} (+- {variance_error:.3f}) of {len(z)}")
    return wrong


def main():
    """Both."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as work:
        sys.exit(1 if exact(work) + (sampled(work, runs) if runs else 0) else 0)


main()

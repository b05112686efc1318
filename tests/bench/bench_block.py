#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a block profile costs its target at 100,000 switches per second, beside offcputime.

The target tells each second what one of its switches took of CPU time, which other load on the
machine changes little. Peers are run alternately in the same run.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import time

from common import CPROF, WORK, Running, O, main, show

ROUNDS = 3
LAPS = 3


def laps(log, count):
    """What a switch took, ns, in that many whole seconds from now."""
    seen = []
    skip = 2  # the present one, and what starting took
    while len(seen) < count:
        line = log.readline()
        if not line.endswith("\n"):
            time.sleep(0.05)
            continue
        found = re.match(r"switches/s (\d+) cpu_ns (\d+)", line)
        if found and skip:
            skip -= 1
        elif found:
            seen.append((int(found[2]), int(found[1])))
    return seen


def ours(pid, *options):
    return [CPROF, "record", "-q", "-p", pid, "-e", "block", "-d", "0", "-o", f"{WORK}/b.pb.gz",
            "--stats", f"{WORK}/stats.json", *options]


def measure(log, command):
    process = None
    while log.readline():  # what was told before
        pass
    if command:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
    result = laps(log, LAPS)
    if process:
        alive = process.poll() is None
        process.terminate()
        process.wait()
        if not alive:
            raise RuntimeError(f"{command[0]} ended by itself")
    return result


def bench_cost():
    offcputime = shutil.which("offcputime", path=os.environ["PATH"] + ":/usr/sbin")
    path = f"{WORK}/laps"
    with open(path, "w", encoding="ascii") as out, \
            Running(f"{O}/workloads/pingpong", "0", "verbose", "6000", stdout=out) as pid, \
            open(path, encoding="ascii") as log:
        commands = {"alone": None, "thinned": ours(pid), "full": ours(pid, "--block-rate", "0")}
        if offcputime:
            commands["offcputime"] = [offcputime, "-p", pid, "600"]
        costs = {name: [] for name in commands}
        rates = []
        stats = {}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                result = measure(log, command)
                costs[name] += [cost for cost, _ in result]
                if not command:
                    rates += [rate for _, rate in result]
                if name in ("thinned", "full"):
                    with open(f"{WORK}/stats.json", encoding="utf-8") as file:
                        stats[name] = json.load(file)
    cost = {name: statistics.median(values) for name, values in costs.items()}
    alone = cost["alone"]
    rate = statistics.median(rates)
    for name in ("thinned", "full"):
        block = stats[name]["block"]
        print(f"     {name}: {block['stacks']} stacks of {block['switches']} switches, "
              f"{stats[name]['lost']} + {block['lost_records']} lost, {block['stack_bytes']} bytes "
              f"of stack, {stats[name]['profiler_cpu_ns'] / stats[name]['duration_ns']:.2f} CPUs")
    slower = cost["thinned"] / alone - 1
    show(f"slow-down thinned, at {rate / 1000:.0f} thousand switches/s",
         f"{100 * slower:.1f} % (+{cost['thinned'] - alone:.0f} ns a switch)", "<= 5 %",
         slower <= 0.05)
    weight = stats["thinned"]["block"]["weight"] / stats["thinned"]["block"]["switches"]
    show("stacks stand for all switches", f"{weight:.3f}", "0.9 to 1.1", 0.9 <= weight <= 1.1)
    show("switch records lost", f"{stats['full']['block']['lost_records']}", "0",
         not stats["full"]["block"]["lost_records"])
    if not offcputime:
        print("     offcputime is not installed: no comparison")
        return
    show("every switch's stack, a switch", f"+{cost['full'] - alone:.0f} ns",
         f"<= offcputime's +{cost['offcputime'] - alone:.0f} ns",
         cost["full"] <= cost["offcputime"])


def bench_others():
    """What the switches of other processes take meanwhile, which pass the same program."""
    path = f"{WORK}/others"
    with open(path, "w", encoding="ascii") as out, Running("sleep", "1000") as pid, \
            Running(f"{O}/workloads/pingpong", "0", "verbose", "6000", stdout=out), \
            open(path, encoding="ascii") as log:
        costs = {"alone": [], "beside": []}
        for _ in range(ROUNDS):
            costs["alone"] += [cost for cost, _ in measure(log, None)]
            costs["beside"] += [cost for cost, _ in measure(log, ours(pid))]
    more = statistics.median(costs["beside"]) - statistics.median(costs["alone"])
    show("another process's switch while one is profiled", f"+{more:.0f} ns", "none", True)


if __name__ == "__main__":
    main(globals())

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a live session costs beside the screen: refreshes of a second while a hundred C++ threads are
sampled at 999 Hz, the list of a thousand threads, and memory that must not grow."""
import json
import os
import statistics
import subprocess

from common import O, Running, main, show, workload

LIVE = f"{O}/tools/live"
SECONDS = int(os.environ.get("LIVE_SECONDS", "60"))


def watch(pid, seconds, rate, window=10):
    out = subprocess.run([LIVE, pid, str(seconds), str(rate), str(window)], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def refresh_cost(lines):
    """Shares of a core, without what the first refreshes name."""
    return [(line["window_us"] + line["threads_us"] + line["figures_us"]) / 1e6
            for line in lines[3:]]


def slope(values):
    """Growth a step, by least squares."""
    middle = (len(values) - 1) / 2
    mean = statistics.mean(values)
    return (sum((i - middle) * (value - mean) for i, value in enumerate(values)) /
            sum((i - middle) ** 2 for i in range(len(values))))


def memory(name, lines, goal):
    """After the first half: the profile has met most stacks then."""
    rss = [line["own_rss"] for line in lines[len(lines) // 2:]]
    growth = slope(rss) * 3600 / 2**20
    show(f"{name}: memory", f"{rss[-1] / 2**20:.0f} MB, {growth:+.1f} MB an hour",
         f"< {goal} MB an hour", growth < goal)


def bench_crowd():
    with workload("crowd", "100", "3600") as pid:
        lines = watch(pid, SECONDS, 999)
    cost = refresh_cost(lines)
    show("refresh, 100 C++ threads at 999 Hz", f"{statistics.median(cost):.2%} of a core "
         f"(most {max(cost):.2%})", "<= 2 %", statistics.median(cost) <= 0.02)
    show("the whole session", f"{statistics.median(l['own_cpu'] for l in lines[3:]):.2%} of a core",
         "-", True)
    show("a window's time", f"{statistics.median(l['window_us'] for l in lines[3:]) / 1e3:.2f} ms of "
         f"{lines[-1]['window_samples']} samples", "-", True)
    memory("100 C++ threads", lines, 20)


def bench_churn():
    """Threads of a few milliseconds: every one has labels of its own."""
    with workload("short_threads", "3600") as pid:
        memory("short threads", watch(pid, 2 * SECONDS, 999), 20)


def bench_threads():
    with Running(f"{O}/workloads/many_threads", "1000", settle=2) as pid:
        lines = watch(pid, 6, 99)
    times = [line["threads_us"] / 1e3 for line in lines]
    show("list of 1000 threads", f"{statistics.median(times[1:]):.1f} ms (first {times[0]:.0f})",
         "< 50 ms", statistics.median(times[1:]) < 50)


if __name__ == "__main__":
    main(globals())

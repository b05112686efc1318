#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Figures of the CPU profile, beside perf where there is a peer: `make bench`.

Every figure is printed with what it must reach. Peers are run alternately in the same run.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import time

from common import CPROF, O, WORK, Redis, Running, main, show, workload


def record(pid, seconds, *options):
    """Statistics of one run, with the file's size."""
    out, stats = f"{WORK}/out.pb.gz", f"{WORK}/stats.json"
    subprocess.run([CPROF, "record", "-q", "-p", pid, "-d", str(seconds), "-o", out,
                    "--stats", stats, *options], check=True)
    with open(stats, encoding="utf-8") as file:
        result = json.load(file)
    result["file"] = os.path.getsize(out)
    return result


def replay(pid, samples):
    out = subprocess.run([f"{O}/tools/replay", pid, str(samples)], check=True,
                         capture_output=True, text=True).stdout
    return json.loads(out)


def perf_script_ns(pid):
    """What perf needs to unwind and name one sample offline, and its frames per sample."""
    data = f"{WORK}/perf.data"
    subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "--call-graph",
                    "dwarf,65528", "-p", pid, "-o", data, "--", "sleep", "3"],
                   check=True, stderr=subprocess.DEVNULL)
    before = time.monotonic()
    text = subprocess.run(["perf", "script", "--no-inline", "-i", data], check=True,
                          capture_output=True, text=True).stdout
    took = time.monotonic() - before
    samples = len(re.findall(r"cpu-clock", text))
    frames = len(re.findall(r"^\s+[0-9a-f]+ ", text, re.M))
    return 1e9 * took / max(samples, 1), frames / max(samples, 1)


def bench_unwind():
    with workload("deep", "0", "35") as pid:
        ours = [replay(pid, 1500) for _ in range(3)]
        best = min(ours, key=lambda x: x["warm_sample_ns"])
        show("unwind + name, warm, per frame",
             f"{best['warm_frame_ns']:.0f} ns ({best['frames_per_sample']:.0f} frames)", "<= 80 ns",
             best["warm_frame_ns"] <= 80)
        if not shutil.which("perf"):
            print("     perf is not installed: no comparison")
            return
        ratios = []
        for _ in range(3):
            peer, frames = perf_script_ns(pid)
            mine = replay(pid, 1500)
            ratios.append((peer / frames) / mine["warm_frame_ns"])
        show("unwind + name: perf script --no-inline / ours, per frame",
             f"{statistics.median(ratios):.0f} x", ">= 10 x", statistics.median(ratios) >= 10)


def bench_complete():
    python = f"{WORK}/spin.py"
    with open(python, "w", encoding="utf-8") as file:
        file.write("def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n"
                   "while True:\n    f(18); sorted(range(999), key=lambda x: -x)\n")
    targets = (("redis-server under redis-benchmark", Redis()),
               ("python3, pure Python", Running("/usr/bin/python3", python)),
               ("C++ at recursion depth 200", workload("deep", "0", "200")))
    for name, target in targets:
        with target as pid:
            stats = record(pid, 5, "-F", "499")
            share = 100 * stats["complete"] / max(stats["samples"], 1)
            show(f"complete stacks: {name}", f"{share:.2f} % of {stats['samples']}", ">= 99.5 %",
                 share >= 99.5)
            judge = replay(pid, 1500)
            equal = 100 * judge["equal"] / max(judge["frames"], 1)
            show("  frames equal to libunwind's", f"{equal:.3f} % of {judge['frames']}",
                 ">= 99.9 %", equal >= 99.9)


def bench_attach():
    with Redis() as pid:
        times = [record(pid, 0.3)["attach_ns"] / 1e6 for _ in range(15)]
    show("attach to first sample, redis-server, median of 15",
         f"{statistics.median(times):.1f} ms (max {max(times):.1f})", "<= 50 ms",
         statistics.median(times) <= 50)


def bench_own_cost():
    with workload("busy_threads", "0", "2") as pid:
        stats = record(pid, 20)
    cost = 100 * stats["profiler_cpu_ns"] / stats["duration_ns"]
    show("own CPU at 99 Hz, two busy threads, 20 s", f"{cost:.2f} % of a core", "<= 3 %", cost <= 3)
    show("own peak RSS there", f"{stats['profiler_rss_bytes'] / 1e6:.1f} MB", "<= 64 MB",
         stats["profiler_rss_bytes"] <= 64e6)
    show("file there", f"{stats['file'] / 1e3:.1f} KB", "< 1 MB", stats["file"] < 1e6)
    if shutil.which("perf"):
        with workload("busy_threads", "0", "2") as pid:
            subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "99", "--call-graph",
                            "dwarf,65528", "-p", pid, "-o", f"{WORK}/perf.data", "--", "sleep",
                            "5"], check=True, stderr=subprocess.DEVNULL)
        print(f"     perf's raw data for 5 s: {os.path.getsize(WORK + '/perf.data') / 1e6:.1f} MB")


def bench_slowdown():
    for rate, goal in ((99, 1.0), (999, 3.0)):
        for stack in (4, 60):
            out = subprocess.run([f"{O}/tools/toggle", str(rate), "20", str(stack), "cpu-wide"],
                                 check=True, capture_output=True, text=True).stdout
            figures = json.loads(out)
            cost = figures["slowdown_median_percent"]
            show(f"target slow-down at {rate} Hz, {stack} KB of stack, CPU-wide",
                 f"{cost:.2f} % (+- {figures['error_percent']:.2f})", f"<= {goal:.0f} %",
                 cost <= goal)


def top(path, *options):
    """cum of each name in percent of all."""
    out = subprocess.run([CPROF, "report", "top", path, *options], check=True,
                         capture_output=True, text=True).stdout
    shares = {}
    for line in out.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4].endswith("%") and fields[3][0].isdigit():
            shares[fields[5].split(" (inline)")[0]] = float(fields[4][:-1])
    return shares


def bench_truth():
    with workload("shares") as pid:
        record(pid, 20, "--no-kernel")
        shares = top(f"{WORK}/out.pb.gz")
        for name, want in (("share_seventy", 70), ("share_twenty", 20), ("share_ten", 10)):
            got = shares.get(name, 0)
            show(f"known share {want} %", f"{got:.2f} %", "+- 2 points", abs(got - want) <= 2)


def bench_short_threads():
    out, stats = f"{WORK}/out.pb.gz", f"{WORK}/stats.json"
    process = subprocess.Popen([f"{O}/workloads/short_threads"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.3)
    subprocess.run([CPROF, "record", "-q", "-p", str(process.pid), "-d", "20", "-F", "499", "-o",
                    out, "--stats", stats], check=True)
    process.terminate()
    exact = dict(line.split() for line in process.communicate()[0].splitlines())
    share = 100 * float(exact["short_work"])
    shares = top(out)
    got = shares.get("short_work", 0)
    show("threads of 2 ms: their share of samples / of CPU", f"{got:.2f} / {share:.2f} %",
         "within 5 %", abs(got - share) <= 0.05 * share)


main(globals())

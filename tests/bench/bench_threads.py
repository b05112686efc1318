#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Figures of the thread dump, beside gdb and eu-stack: `make bench`.

Peers are run alternately with ours, on the same process.
"""
import json
import re
import shutil
import statistics
import subprocess
import time

from common import CPROF, O, PORT, WORK, Running, main, show

GDB = ["gdb", "-nx", "-q", "-batch", "-ex", "set width 0", "-ex",
       "set print frame-arguments none"]
ROUNDS = 5


class Ready(Running):
    """A workload that says when it is."""

    def __init__(self, *command):
        super().__init__(*command, settle=0, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        time.sleep(0.2)


def many_threads(count, depth=20):  # 27 frames with those of the C library
    return Ready(f"{O}/workloads/many_threads", str(count), str(depth))


def timed(*command, output=subprocess.DEVNULL):
    """Milliseconds, or None if it fails."""
    before = time.monotonic()
    done = subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, check=False,
                          stdin=subprocess.DEVNULL)
    return 1e3 * (time.monotonic() - before) if done.returncode == 0 else None


def dump(pid):
    """Milliseconds of a dump to nowhere, as of the peers, and statistics of another."""
    stats = f"{WORK}/stats.json"
    took = timed(CPROF, "threads", "-p", pid)
    timed(CPROF, "threads", "-q", "-p", pid, "--stats", stats)
    with open(stats, encoding="utf-8") as file:
        return took, json.load(file)


def peers():
    known = {"gdb": lambda pid: GDB + ["-p", pid, "-ex", "thread apply all bt"],
             "eu-stack": lambda pid: ["eu-stack", "-p", pid]}
    return {name: command for name, command in known.items() if shutil.which(name)}


def median(values):
    return statistics.median(values)


def bench_thousand():
    took, stopped, ratios = [], [], {name: [] for name in peers()}
    with many_threads(1000) as pid:
        dump(pid)
        for _ in range(ROUNDS):
            ours, stats = dump(pid)
            took.append(ours)
            stopped.append(stats["stopped_ns_max"] / 1e6)
            for name, command in peers().items():
                theirs = timed(*command(pid))
                if theirs:
                    ratios[name].append(theirs / ours)
        frames = stats["frames"] / stats["samples"]
    show(f"1,000 threads x {frames:.0f} frames: stopped, median of {ROUNDS}",
         f"{median(stopped):.1f} ms (max {max(stopped):.1f})", "<= 20 ms", median(stopped) <= 20)
    show("  complete stacks", f"{stats['complete']} of {stats['samples']}", "all",
         stats["complete"] == stats["threads"] == 1001)
    print(f"     in all {median(took):.0f} ms, {stats['ptrace_stops']} stops")
    for name, ratio in ratios.items():
        if ratio:
            show(f"  total: {name} / ours", f"{median(ratio):.1f} x", ">= 10 x",
                 median(ratio) >= 10)


def bench_hundred():
    with many_threads(100) as pid:
        dump(pid)
        runs = [dump(pid) for _ in range(15)]
    stopped = [stats["stopped_ns_max"] / 1e6 for _, stats in runs]
    took = [ms for ms, _ in runs]
    show("100 threads: stopped, median of 15", f"{median(stopped):.2f} ms (max {max(stopped):.1f})",
         "<= 3 ms", median(stopped) <= 3)
    show("100 threads: in all", f"{median(took):.0f} ms (max {max(took):.0f})", "<= 50 ms",
         median(took) <= 50)


def bench_ten_thousand():
    with many_threads(10000) as pid:
        took, stats = dump(pid)
    show("10,000 threads: complete stacks", f"{stats['complete']} of {stats['threads']}", "all",
         stats["complete"] == stats["threads"] == 10001)
    print(f"     stopped {stats['stopped_ns_max'] / 1e6:.0f} ms, in all {took:.0f} ms, "
          f"{stats['profiler_rss_bytes'] / 1e6:.0f} MB")


# --- agreement with gdb --------------------------------------------------------------------------

def plain(name):
    """Names of one function differ in their decoration: __GI___poll, poll@@GLIBC_2.2.5."""
    name = re.sub(r"@.*|\(.*", "", name)
    return re.sub(r"^_*(GI_)?_*", "", name)


GDB_WALK = """
import gdb
for thread in gdb.selected_inferior().threads():
    thread.switch()
    frame = gdb.newest_frame()
    while frame:
        print("FRAME", thread.ptid[1], frame.type(), frame.pc(), frame.name())
        frame = frame.older()
"""


def gdb_stacks(pid):
    """By tid: (names, pcs) of the frames; pcs without inlined functions. What gdb infers of tail
    calls, for which there is no frame, is left out."""
    script = f"{WORK}/walk.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(GDB_WALK)
    out = subprocess.run(GDB + ["-p", pid, "-ex", "set backtrace past-main on", "-ex",
                                "set backtrace past-entry on", "-x", script], capture_output=True,
                         text=True, check=True, stdin=subprocess.DEVNULL).stdout
    stacks = {}
    for line in out.splitlines():
        word, *fields = line.split(None, 4) or [""]
        if word != "FRAME" or fields[1] == "3":  # gdb.TAILCALL_FRAME
            continue
        names, pcs = stacks.setdefault(int(fields[0]), ([], []))
        names.append("??" if fields[3] == "None" else plain(fields[3]))
        if fields[1] != "2":  # gdb.INLINE_FRAME
            pcs.append(int(fields[2]))
    return stacks


def our_stacks(pid):
    out = subprocess.run([CPROF, "threads", "-p", pid, "--json"], capture_output=True, text=True,
                         check=True).stdout
    stacks = {}
    for thread in json.loads(out)["threads"]:
        names, pcs = stacks.setdefault(thread["tid"], ([], []))
        for frame in thread["frames"]:
            names.append(plain(frame["function"]) or "??")
            if not frame["inlined"]:
                pcs.append(int(frame["pc"], 16))
    return stacks


def agreement(which, ours, theirs):
    """(equal, all) over all threads; 0 is names, 1 is pcs."""
    equal = total = 0
    for tid in set(ours) | set(theirs):
        mine = ours.get(tid, ([], []))[which]
        his = theirs.get(tid, ([], []))[which]
        equal += sum(mine[i] == his[i] for i in range(min(len(mine), len(his))))
        total += max(len(mine), len(his))
    return equal, total


def bench_agreement():
    if not shutil.which("gdb"):
        print("     gdb is not installed: no comparison")
        return
    python = f"{WORK}/threads.py"
    with open(python, "w", encoding="utf-8") as file:
        file.write("import threading, time\nlock = threading.Lock(); lock.acquire()\n"
                   "def f(n):\n    return sorted([n], key=f) if n % 7 == 3 and 0 else "
                   "(f(n - 1) if n else lock.acquire())\n"
                   "for i in range(60): threading.Thread(target=f, args=(i,)).start()\n"
                   "time.sleep(1000)\n")
    targets = (("redis-server", Running("redis-server", "--port", PORT, "--save", "", "--dir", WORK,
                                        settle=2)),
               ("python3, 61 threads", Running("/usr/bin/python3", python, settle=3)),
               ("200 threads", many_threads(200)))
    for name, target in targets:
        with target as pid:
            ours, theirs = our_stacks(pid), gdb_stacks(pid)
        for which, what in ((1, "pcs"), (0, "names")):
            equal, total = agreement(which, ours, theirs)
            share = 100 * equal / max(total, 1)
            show(f"{what} equal to gdb's: {name}", f"{share:.2f} % of {total}", ">= 99.9 %",
                 share >= 99.9)


main(globals())

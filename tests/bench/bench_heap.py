#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Figures of the agent and the heap profile, beside heaptrack and jemalloc: `make bench`.

What hooks cost is measured inside one run of a program, attached and detached in turns.
"""
import json
import os
import re
import statistics
import subprocess
import time

from common import CPROF, O, PORT, WORK, Redis, Running, main, show

JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"


def heap(pid, seconds, *options):
    """Statistics of one heap profile."""
    stats = f"{WORK}/heap-stats.json"
    subprocess.run([CPROF, "record", "-q", "-p", pid, "-e", "heap", "-d", str(seconds),
                    "-o", f"{WORK}/heap.pb.gz", "--stats", stats, *options], check=True)
    with open(stats, encoding="utf-8") as file:
        return json.load(file)


def agent_bytes(pid):
    """Memory of the target that is the agent's: resident bytes of its mappings."""
    inside, total = False, 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        base = None
        for line in file:
            if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                if "memfd:cprof-agent" in line:
                    base = end
                # the anonymous parts lie between
                inside = "memfd:cprof-agent" in line or (base is not None and start == base)
                if inside:
                    base = end
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


class Pairs:
    """The workload of that name, its rounds with their times."""

    def __init__(self, *arguments, env=None):
        self.process = subprocess.Popen([f"{O}/workloads/pairs", *arguments], text=True,
                                        stdout=open(f"{WORK}/pairs", "w", encoding="utf-8"),
                                        env={**os.environ, **(env or {})})
        self.pid = str(self.process.pid)
        time.sleep(0.3)

    def rounds(self):
        with open(f"{WORK}/pairs", encoding="utf-8") as file:
            return [(int(a), float(b)) for a, b in
                    (line.split() for line in file if line.endswith("\n"))]

    def end(self):
        self.process.kill()
        self.process.wait()


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def between(rounds, windows):
    """Rounds (20 ms each) that lie in one of the windows."""
    return [ns for at, ns in rounds if any(a + 2e7 < at < b for a, b in windows)]


def quiet(rounds):
    """Of the rounds that nothing else disturbed: the lower quartile."""
    return statistics.quantiles(rounds, n=4)[0]


def toggled(arguments, options=(), turns=12, seconds=0.6, env=None):
    """A pair: never attached, attached, after detach."""
    pairs = Pairs(*arguments, env=env)
    start = now()
    time.sleep(2)
    never, on, off = [(start, now())], [], []
    for _ in range(turns):
        begin = now()
        heap(pairs.pid, seconds, *options)
        end = now()
        # attaching and leaving take a moment
        on.append((begin + 1.5e8, end - 1.5e8))
        begin = now()
        time.sleep(seconds)
        off.append((begin, now()))
    rounds = pairs.rounds()
    pairs.end()
    return [quiet(between(rounds, windows)) for windows in (never, on, off)]


def bench_attach():
    """One thread stopped, for how long and how often."""
    with Running(f"{O}/workloads/modules", "60", "8", settle=1.5) as pid:
        out = json.loads(subprocess.run([f"{O}/tools/inject", pid, "1000"], check=True,
                                        capture_output=True, text=True).stdout)
    median, worst = out["held_us_p50"] / 1e3, out["held_us_p99"] / 1e3
    show("attach, 60 modules, thread stopped, median", f"{median:.2f} ms", "0.6 ms", median <= 0.6)
    show("  99th percentile of 1,000", f"{worst:.2f} ms", "3 ms", worst <= 3)
    show("  ptrace stops", f"{out['stops_max']}", "8", out["stops_max"] <= 8)


def bench_pairs():
    """What a pair costs while hooked."""
    for mode, threads in (("tcache", "1"), ("tcache", "2"), ("mixed", "1"), ("mixed", "2")):
        never, on, off = toggled((mode, threads))
        show(f"hooks, malloc+free pair, {mode}, {threads} thread(s), 512 KiB",
             f"{on - off:+.2f} ns on {off:.1f} ns", "2.5 ns", on - off <= 2.5)
        show("  after detach, over never attached", f"{off - never:+.2f} ns", "noise",
             off - never <= max(0.3, never * 0.03))


def pair_under(command, mode="mixed", env=None, seconds="4"):
    """A pair of the workload under another tool."""
    out = subprocess.run([*command, f"{O}/workloads/pairs", mode, "1", seconds], check=False,
                         capture_output=True, text=True, cwd=WORK,
                         env={**os.environ, **(env or {})}).stdout
    rounds = [float(line.split()[1]) for line in out.splitlines()
              if re.match(r"^\d+ [\d.]+$", line)]
    return quiet(rounds)


def bench_peers():
    """heaptrack and jemalloc's own sampling, alternating."""
    for mode, frames in (("mixed", 6), ("deep", 26)):
        plain, peer, exact = [], [], []
        for _ in range(3):
            plain.append(pair_under([], mode))
            peer.append(pair_under(["heaptrack"], mode))
            exact.append(pair_under([CPROF, "run", "-q", "-e", "heap", "--heap-rate", "1",
                                     "-o", f"{WORK}/x.pb.gz", "--"], mode))
        base, track, every = (statistics.median(x) for x in (plain, peer, exact))
        show(f"every allocation, {frames} frames: a pair, over plain",
             f"{every - base:.0f} ns; heaptrack {track - base:.0f} ns", "1/3 of heaptrack",
             (every - base) * 3 <= track - base)
    env = {"LD_PRELOAD": JEMALLOC}
    own = {**env, "MALLOC_CONF": "prof:true,lg_prof_sample:19"}
    plain, peer = [], []
    for _ in range(3):
        plain.append(pair_under([], env=env))
        peer.append(pair_under([], env=own))
    _, on, off = toggled(("mixed", "1"), env=env)
    show("on jemalloc: hooks, over plain", f"{on - off:+.2f} ns on {off:.1f} ns", "see next",
         on - off <= 2.5)
    show("  its own sampling at 512 KiB, over plain",
         f"{statistics.median(peer) - statistics.median(plain):+.2f} ns", "(peer)", True)


def redis_state(pid):
    """CPU time and operations of redis so far."""
    info = subprocess.run(["redis-cli", "-p", PORT, "info", "stats"], capture_output=True,
                          text=True, check=True).stdout
    operations = int(re.search(r"total_commands_processed:(\d+)", info).group(1))
    with open(f"/proc/{pid}/schedstat", encoding="utf-8") as file:
        return int(file.read().split()[0]), operations


def bench_redis():
    """CPU per operation, hooked and not, in turns; one command only, or its phases would tell."""
    ratios, target, profiler = [], 0, 0
    with Redis("-t", "set", "-r", "100000", "-d", "200") as pid:
        time.sleep(2)
        for turn in range(40):
            costs = {}
            for hooked in ((True, False) if turn % 2 else (False, True)):
                child = None
                if hooked:
                    stats = f"{WORK}/redis.json"
                    child = subprocess.Popen([CPROF, "record", "-q", "-p", pid, "-e", "heap",
                                              "-d", "1.6", "-o", f"{WORK}/redis.pb.gz",
                                              "--stats", stats])
                time.sleep(0.3)
                cpu, operations = redis_state(pid)
                time.sleep(1)
                cpu2, operations2 = redis_state(pid)
                costs[hooked] = (cpu2 - cpu) / (operations2 - operations)
                if child:
                    target = max(target, agent_bytes(pid))
                    child.wait()
                    with open(stats, encoding="utf-8") as file:
                        profiler = max(profiler, json.load(file)["profiler_rss_bytes"])
            ratios.append(costs[True] / costs[False])
    mean = (statistics.mean(ratios) - 1) * 100
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 * 100
    show("redis-server, CPU per operation, hooked", f"{mean:+.2f} % (+- {error:.2f})", "1 %",
         mean - error <= 1)
    show("  memory in the target", f"{target / 1e6:.1f} MB", "8 MB", target <= 8 << 20)
    show("  memory of the profiler", f"{profiler / 1e6:.1f} MB", "64 MB", profiler <= 64 << 20)


if __name__ == "__main__":
    main(globals())

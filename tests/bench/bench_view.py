#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Figures of the live view on a terminal of its own (a pty): `make bench`.

Keys are timed from being written to the answer's bytes. VIEW_SECONDS says how long memory is watched
(default 130), after VIEW_WARMUP (default 240: two minutes of samples are kept for windows, and the
profile since the start is folded once a minute from then on: memory is a saw, whose teeth count).
"""
import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import termios
import time

from common import CPROF, O, Running, main, show

ROWS, COLUMNS = 50, 120
KEYS = 120
TICK = os.sysconf("SC_CLK_TCK")


class View:
    """A live view on a pty; what it writes is read and forgotten, but for what is waited for."""

    def __init__(self, *arguments):
        self.started = time.monotonic()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [CPROF, *arguments], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
            start_new_session=True)
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.write(self.master, b"xq")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        os.close(self.master)

    def read_for(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                os.read(self.master, 65536)

    def await_text(self, pattern, seconds=20):
        """Seconds since the start until the pattern has been written, or None."""
        seen = b""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                break
            seen = seen[-4096:] + os.read(self.master, 65536)
            if re.search(pattern, seen):
                return time.monotonic() - self.started
        return None

    def key(self, key, pattern):
        """Milliseconds from a key to its answer; not how long we wait for a CPU to read it."""
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pass
        try:
            before = time.monotonic()
            os.write(self.master, key)
            found = self.await_text(pattern, 10)
            return 1e3 * (self.started + found - before) if found else 10000.0
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    def cpu_ns(self):
        """Of the threads that are the view: the screen's, which is the first, and the models'."""
        total = 0
        base = f"/proc/{self.process.pid}/task"
        for task in os.listdir(base):
            with open(f"{base}/{task}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            if int(task) == self.process.pid or name == "cprof-model":
                with open(f"{base}/{task}/schedstat", encoding="utf-8") as file:
                    total += int(file.read().split()[0])
        return total

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


def crowd():
    return Running(f"{O}/workloads/crowd", "100", "600", settle=1)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def bench_keys():
    with crowd() as pid, View("-p", pid, "-F", "999") as view:
        view.await_text(rb"crowd::")
        view.read_for(5)
        times = []
        for _ in range(KEYS // 2):
            times.append(view.key(b"?", rb"leave: the"))
            os.write(view.master, b"x")
            view.read_for(0.15)
            times.append(view.key(b"s", rb"sorted by"))
            os.write(view.master, b"\x1b[A")  # takes the message away
            view.read_for(0.15)
        p99 = percentile(times, 0.99)
        show("a key's answer, 100 C++ threads at 999 Hz",
             f"p50 {statistics.median(times):.1f} ms, p99 {p99:.1f} ms", "p99 <= 50 ms", p99 <= 50)


def bench_cost():
    with crowd() as pid, View("-p", pid, "-F", "999") as view:
        view.await_text(rb"crowd::")
        view.read_for(15)
        before, since = view.cpu_ns(), time.monotonic()
        view.read_for(30)
        cost = (view.cpu_ns() - before) / 1e9 / (time.monotonic() - since)
        show("the view's own cost, the same, 1 s refresh", f"{100 * cost:.2f} % of a core",
             "<= 2 %", cost <= 0.02)


def bench_start():
    times = []
    for _ in range(5):
        with Running(f"{O}/workloads/service", "60", settle=1) as pid, View("-p", pid) as view:
            times.append(1e3 * (view.await_text(rb"shop::") or 10))
    took = statistics.median(times)
    show("start to the first functions on the screen", f"{took:.0f} ms (worst {max(times):.0f})",
         "<= 500 ms", took <= 500)


def bench_memory():
    seconds = int(os.environ.get("VIEW_SECONDS", "130"))
    warmup = int(os.environ.get("VIEW_WARMUP", "240"))
    with crowd() as pid, View("-p", pid, "-F", "999") as view:
        view.await_text(rb"crowd::")
        view.read_for(warmup)
        points = []
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            view.read_for(2)
            points.append((time.monotonic() - begin, view.rss_kb()))
        slope, _ = statistics.linear_regression(*zip(*points))
        last = points[-1][1]
        show(f"resident memory over {seconds} s after {warmup}",
             f"{last / 1024:.0f} MB, {slope * 60:+.0f} KB a minute", "about 0", slope * 60 < 0.02 * last)


main(globals())

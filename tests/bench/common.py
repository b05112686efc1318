# SPDX-License-Identifier: MIT
"""What the benchmarks share: targets, and the table of figures and goals."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

O = os.environ["O"]
CPROF = f"{O}/cprof-attach"
WORK = tempfile.mkdtemp(prefix="cprof-bench.")
PORT = "17379"
rows = []


def show(name, figure, goal, good):
    rows.append((name, figure, goal, good))
    print(f"{'ok  ' if good else 'MISS'} {name:<58} {figure:<34} goal {goal}", flush=True)


class Running:
    """A program that is ended, by its pid, at the end of the block."""

    def __init__(self, *command, settle=0.5, stdout=subprocess.DEVNULL):
        self.process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL,
                                        text=True)
        time.sleep(settle)

    def __enter__(self):
        return str(self.process.pid)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Redis(Running):
    """redis-server under redis-benchmark: several commands in turns, or one kind all the time."""

    def __init__(self, *load):
        super().__init__("redis-server", "--port", PORT, "--save", "", "--dir", WORK)
        self.load = subprocess.Popen(
            ["redis-benchmark", "-p", PORT, "-q", "-l",
             *(load or ("-t", "set,get,lpush,lrange_100"))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)

    def __exit__(self, *_):
        self.load.kill()
        self.load.wait()
        super().__exit__()


def workload(name, *arguments):
    return Running(f"{O}/workloads/{name}", *arguments)


def main(module):
    """Runs the functions bench_NAME of a module, those named on the command line or all."""
    wanted = sys.argv[1:]
    benches = {name[6:]: function for name, function in module.items()
               if name.startswith("bench_") and callable(function)}
    try:
        for name, function in benches.items():
            if not wanted or name in wanted:
                function()
    finally:
        shutil.rmtree(WORK)
    missed = [row for row in rows if not row[3]]
    print(f"{len(rows)} figures, {len(missed)} missed")

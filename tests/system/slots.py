#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""slots.py PID PLAN SYMBOLS ABI: what the plan (output of the tool `plan`) orders is what readelf,
the process's memory and its own dlsym (lines "sym NAME ADDRESS") say it has to. Prints the number
of orders."""
import re
import struct
import subprocess
import sys

pid, plan, symbols, abi = sys.argv[1:5]
NAMES = set(re.findall(r'X\(\w+, "(\w+)"', open(abi).read()))
# Known from the sources of the C libraries: these call another one through a slot.
GLIBC = {"reallocarray"}
MUSL = {"calloc", "reallocarray", "posix_memalign", "memalign", "valloc"}


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], capture_output=True, text=True).stdout


class Module:
    def __init__(self, path, start):
        self.path = path
        self.start = start
        loads = re.findall(r"^  LOAD +0x(\w+) 0x(\w+)", readelf("-l", path), re.M)
        offset, address = (int(x, 16) for x in loads[0])
        self.bias = start - (address - offset & ~0xFFF)
        self.defines = {}
        self.types = {}
        for line in readelf("--dyn-syms", path).splitlines():
            f = line.split()
            if len(f) >= 8 and f[6] != "UND" and f[4] != "LOCAL" and f[3] in ("FUNC", "IFUNC", "OBJECT"):
                self.defines.setdefault(f[7].split("@")[0], int(f[1], 16) + self.bias)
        self.slots = []
        for line in readelf("-r", path).splitlines():
            m = re.match(r"(\w{16}) +\w+ +R_X86_64_(JUMP_SLOT|GLOB_DAT|64) +\S+ +([\w.]+)(@\S+)* \+ 0$", line)
            if m and m[3] in NAMES and int(m[1], 16) % 8 == 0:  # others cannot be changed atomically
                self.slots.append((int(m[1], 16) + self.bias, m[3], m[2]))
        self.plt = [(int(a, 16) + self.bias, int(n, 16))
                    for a, n in re.findall(r"\] \.plt\S* +PROGBITS +(\w+) \w+ (\w+)", readelf("-S", path))]

    def in_plt(self, address):
        return any(start <= address < start + size for start, size in self.plt)

    def is_libc(self):
        return "__libc_start_main" in self.defines

    def wrappers(self):
        if not self.is_libc():
            return set()
        return GLIBC if "gnu_get_libc_version" in self.defines else MUSL

    def passed(self):
        return "_rtld_global" in self.defines or ("malloc" in self.defines and not self.is_libc())


maps = {}
code = {}
for line in open(f"/proc/{pid}/maps"):
    f = line.split(None, 5)
    if len(f) == 6 and f[5].startswith("/"):
        start, end = (int(x, 16) for x in f[0].split("-"))
        if int(f[2], 16) == 0:
            maps.setdefault(f[5].strip(), start)
        if "x" in f[1]:
            code.setdefault(f[5].strip(), []).append((start, end))
modules = [Module(path, start) for path, start in maps.items() if path in code]
memory = open(f"/proc/{pid}/mem", "rb", 0)


def word(address):
    memory.seek(address)
    return struct.unpack("Q", memory.read(8))[0]


def holder(address):
    return next((m for m in modules if any(a <= address < b for a, b in code[m.path])), None)


known = {}
for line in open(symbols):
    f = line.split()
    if f and f[0] == "sym":
        known[f[1]] = int(f[2], 16)
for name in sorted(set(known) & NAMES):  # not PIE: dlsym may tell the program's PLT entry
    if holder(known[name]).in_plt(known[name]):
        known[name] = next(m.defines[name] for m in modules if name in m.defines and
                           not m.in_plt(m.defines[name]) and m.defines[name] > m.start)

expected = {}
unknown = set()
for module in modules:
    for slot, name, kind in module.slots:
        value = word(slot)
        if module.passed() or value == 0:
            continue
        if name not in known:
            unknown.add(slot)
            continue
        definer = holder(known[name])
        if "malloc" not in definer.defines or name in definer.wrappers():
            continue
        lazy = kind == "JUMP_SLOT" and module.in_plt(value)
        if value == known[name] or lazy:
            expected[slot] = (name, value, known[name])

ordered = {}
for line in open(plan):
    f = line.split()
    if f and f[0] == "order" and f[7] == "1":
        assert int(f[2], 16) not in ordered, "two orders for one slot"
        ordered[int(f[2], 16)] = (f[3], int(f[1], 16), int(f[5], 16))
wrong = 0
for slot in sorted(set(expected) | (set(ordered) - unknown)):
    if expected.get(slot) != ordered.get(slot):
        want, got = ([hex(x) if isinstance(x, int) else x for x in d.get(slot, ())] for d in (expected, ordered))
        near = max((m for m in modules if m.start <= slot), key=lambda m: m.start)
        print(f"slot {slot:#x} of {near.path}: expected {want}, ordered {got}")
        wrong += 1
print(f"{len(ordered)} orders, {len(unknown)} not judged, {wrong} wrong")
sys.exit(wrong > 0 or not ordered)

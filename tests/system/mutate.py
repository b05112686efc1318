#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mutate.py KIND SEED IN OUT: a shared library that still loads and runs, but whose other contents
(what a profiler reads) are hostile. The dynamic linker needs none of what is changed."""
import random
import struct
import sys

kind, seed, source, target = sys.argv[1:]
random.seed(f"{kind}{seed}")
data = bytearray(open(source, "rb").read())
shoff, = struct.unpack_from("<Q", data, 40)
shnum, shstrndx = struct.unpack_from("<HH", data, 60)
NAME, TYPE, FLAGS, ADDR, OFFSET, SIZE = 0, 4, 8, 16, 24, 32


def header(index):
    return shoff + 64 * index


def get(index, field, form="<Q"):
    return struct.unpack_from(form, data, header(index) + field)[0]


names = get(shstrndx, OFFSET)
sections = {}
for i in range(shnum):
    start = names + get(i, NAME, "<I")
    sections[bytes(data[start:data.index(0, start)]).decode()] = i


def span(name):
    index = sections[name]
    return get(index, OFFSET), get(index, SIZE)


def flip(name, share):
    offset, size = span(name)
    for _ in range(max(1, int(size * share))):
        data[offset + random.randrange(size)] = random.choice((0, 1, 0x7f, 0x80, 0xff,
                                                               random.randrange(256)))


def put(index, field, value, form="<Q"):
    struct.pack_into(form, data, header(index) + field, value)


debug = [name for name in sections if name.startswith((".debug_", ".zdebug"))]
if kind == "cfi":
    flip(".eh_frame", 0.1)
elif kind == "cfi-register":  # DW_CFA_undefined of register 2^35
    offset, size = span(".eh_frame")
    for at in range(offset + 24, offset + size - 8, 24):
        data[at:at + 7] = b"\x07\xff\xff\xff\xff\xff\x01"
elif kind == "hdr":
    flip(".eh_frame_hdr", 0.3)
elif kind == "dwarf":
    for name in debug:
        flip(name, 0.02)
elif kind == "dwarf-one":
    flip(random.choice(debug), 0.2)
elif kind == "symbols":
    flip(".symtab", 0.2)
    flip(".strtab", 0.2)
elif kind == "sections":  # offsets, sizes, links, entry sizes of all headers
    for i in range(1, shnum):
        for _ in range(2):
            put(i, random.choice((OFFSET, SIZE, 40, 48, 56)), random.choice(
                (0, 1, 2**63, 2**64 - 1, 2**31, len(data) - 1, random.randrange(len(data)))))
elif kind == "counts":
    struct.pack_into("<HH", data, 60, 0xfffe, random.randrange(0xffff))
elif kind == "huge":
    for name in debug + [".symtab", ".strtab"]:
        put(sections[name], SIZE, 2**40)
elif kind == "bomb":  # SHF_COMPRESSED sections that claim to unpack to a terabyte
    for name in debug:
        index = sections[name]
        put(index, FLAGS, get(index, FLAGS) | 0x800)
        struct.pack_into("<IIQQ", data, get(index, OFFSET), 1, 0, 2**40, 1)
elif kind == "names":  # terminal escapes, controls and broken UTF-8 for function names
    offset, size = span(".strtab")
    for at in range(offset + 1, offset + size):
        if data[at] and random.random() < 0.3:
            data[at] = random.choice((0x1b, 0x07, 0x9b, 0xc3, 0x0a, 0x5b))
    for name in (".debug_str",):
        offset, size = span(name)
        for at in range(offset + 1, offset + size):
            if data[at] and random.random() < 0.3:
                data[at] = random.choice((0x1b, 0x07, 0x9b, 0xc3, 0x0a, 0x5b))
else:
    sys.exit("mutate.py: which kind?")
open(target, "wb").write(data)

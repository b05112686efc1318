#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""screens.py [DIRECTORY]: pictures of the live view, as a real terminal (tmux) has them, in SVG.

Run by `make screens`, which keeps those of the README up to date.
"""
import html
import os
import re
import subprocess
import sys
import tempfile
import time

O = os.environ["O"]
COLUMNS = 100
WIDTH, HEIGHT = 8.4, 18  # of a cell, px
INK, PAPER = "#d8d8d8", "#16181d"
COLOURS = ["#16181d", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8d8d8",
           "#6b7280", "#ff7b86", "#b5e890", "#ffd78a", "#82c7ff", "#e29bf5", "#7fdbe6", "#ffffff"]


def colour_of(number):
    """Of the 256 that terminals have."""
    if number < 16:
        return COLOURS[number]
    if number >= 232:
        return f"#{(number - 232) * 10 + 8:02x}" + f"{(number - 232) * 10 + 8:02x}" * 2
    steps = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#%02x%02x%02x" % (steps[number // 36], steps[number // 6 % 6], steps[number % 6])


class Style:
    """What select-graphic-rendition sequences have set."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.ink, self.paper, self.bold, self.dim = None, None, False, False
        self.reverse, self.underline = False, False

    def take(self, sequence):
        numbers = [int(n or 0) for n in re.split("[;:]", sequence)]
        while numbers:
            n = numbers.pop(0)
            if n in (38, 48) and numbers[:1] == [5]:
                colour = colour_of(numbers[1])
                del numbers[:2]
                self.ink, self.paper = (colour, self.paper) if n == 38 else (self.ink, colour)
            elif n == 0:
                self.reset()
            elif n in (1, 2, 4, 7):
                setattr(self, {1: "bold", 2: "dim", 4: "underline", 7: "reverse"}[n], True)
            elif n in (22, 24, 27):
                for name in {22: ("bold", "dim"), 24: ("underline",), 27: ("reverse",)}[n]:
                    setattr(self, name, False)
            elif 30 <= n <= 37 or 90 <= n <= 97:
                self.ink = COLOURS[n - 30 if n < 90 else n - 82]
            elif 40 <= n <= 47 or 100 <= n <= 107:
                self.paper = COLOURS[n - 40 if n < 100 else n - 92]
            elif n == 39:
                self.ink = None
            elif n == 49:
                self.paper = None

    def attributes(self):
        """(attributes of the text, colour behind it or None)."""
        ink, paper = self.ink or INK, self.paper
        if self.reverse:
            ink, paper = paper or PAPER, self.ink or INK
        text = f' fill="{ink}"' if ink != INK else ""
        text += ' font-weight="bold"' if self.bold else ""
        text += ' opacity="0.6"' if self.dim else ""
        text += ' text-decoration="underline"' if self.underline else ""
        return text, paper


def spans(line, style):
    """(column, text, attributes, colour behind) of a captured line's parts."""
    column = 0
    for i, part in enumerate(re.split(r"\x1b\[([0-9;:]*)m", line)):
        if i % 2:
            style.take(part)
        elif part:
            yield (column, part, *style.attributes())
            column += len(part)


def svg(lines):
    """A picture of them."""
    width, height = COLUMNS * WIDTH + 24, len(lines) * HEIGHT + 24
    behind, texts, style = [], [], Style()
    for row, line in enumerate(lines):
        for column, text, attributes, paper in spans(line, style):
            x, y = 12 + column * WIDTH, 12 + row * HEIGHT
            if paper:
                behind.append(f'<rect x="{x:.1f}" y="{y}" width="{len(text) * WIDTH:.1f}" '
                              f'height="{HEIGHT}" fill="{paper}"/>')
            if text.strip():
                start = len(text) - len(text.lstrip(" "))
                text = text.strip(" ")
                texts.append(f'<text x="{x + start * WIDTH:.1f}" y="{y + 14}" '
                             f'textLength="{len(text) * WIDTH:.1f}"{attributes}>'
                             f"{html.escape(text).replace(' ', chr(0xa0))}</text>")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" fill="{INK}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">',
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>', *behind, *texts,
        "</svg>", ""])


class Terminal:
    """A tmux server of our own, with one window."""

    def __init__(self, command, rows):
        self.directory = tempfile.TemporaryDirectory()
        self.environment = {**os.environ, "TMUX_TMPDIR": self.directory.name, "LC_ALL": "C.UTF-8"}
        self.environment.pop("TMUX", None)
        config = f"{self.directory.name}/config"
        with open(config, "w", encoding="utf-8") as file:
            file.write('set -g default-terminal "tmux-256color"\nset -g escape-time 0\n')
        self.base = ["tmux", "-L", "screens", "-f", config]
        self.run("new-session", "-d", "-x", str(COLUMNS), "-y", str(rows), command)
        self.run("set", "-g", "status", "off")

    def run(self, *arguments):
        return subprocess.run([*self.base, *arguments], env=self.environment, check=True,
                              capture_output=True, text=True).stdout

    def keys(self, *keys):
        for key in keys:
            self.run("send-keys", key)
            time.sleep(0.7)

    def picture(self):
        return self.run("capture-pane", "-p", "-e", "-N").rstrip("\n").split("\n")

    def end(self):
        self.run("send-keys", "q")
        time.sleep(1)
        subprocess.run([*self.base, "kill-server"], env=self.environment, check=False,
                       capture_output=True)
        self.directory.cleanup()


def take(workload, options, steps, where, rows):
    """Runs the view of a workload; steps: (keys, seconds to wait, name of a picture or None)."""
    program = subprocess.Popen(workload, stdout=subprocess.DEVNULL, cwd=f"{O}/workloads")
    time.sleep(0.5)
    terminal = Terminal(f"{O}/cprof-attach -p {program.pid} {options}", rows)
    try:
        for keys, seconds, name in steps:
            terminal.keys(*keys)
            time.sleep(seconds)
            if name:
                with open(f"{where}/{name}.svg", "w", encoding="utf-8") as file:
                    file.write(svg(terminal.picture()))
                print(f"{where}/{name}.svg")
    finally:
        terminal.end()
        program.kill()
        program.wait()


def main():
    """All pictures."""
    where = sys.argv[1] if len(sys.argv) > 1 else "man"
    take(["./service", "120"], "-F 499",
         [((), 14, "view-cpu"), (("f",), 1, "view-flame")], where, 24)
    take(["./leaky", "120"], "-e heap", [(("2", "b"), 8, "view-heap")], where, 18)
    take(["./contend", "known", "2", "120"], "-e mutex", [(("3",), 6, "view-mutex")], where, 18)
    take(["./deadlock"], "", [(("5",), 3, "view-threads")], where, 18)


main()

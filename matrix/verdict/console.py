# SPDX-License-Identifier: GPL-2.0
"""One pass over a console of any length, in bounded time and memory."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from matrix.verdict import ktap, splat
from matrix.verdict.evidence import MOST, WIDTH

CHUNK = 1 << 20  # bytes read at once
LARGEST = 16 << 20  # bytes, and
LINES = 250_000  # lines: no healthy boot prints as much, and the scan stays bounded
LONG = 1 << 16  # bytes; a longer line is searched in pieces of this size
OVERLAP = 1 << 12  # bytes that such a piece shares with the one before

ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_c])")
# A sequence that was cut takes the first letter of what follows for its own, the B of BUG say.
SWALLOWED = re.compile(rb"(?<!\x1b)\x1b++(?:\[[0-?]*[ -/]*)?([@-Z\\-~])(?=\w)")
CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n") + b"\x7f"
# kernel/printk/printk.c, info_print_prefix(): "<6>[    1.234567][    T1] "
PREFIX = re.compile(r"(?:<\d+>)?(?:\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])?|\[ *[TC]\d+\]|(?<=>)) ?")
INSIDE = re.compile(r"(?<!^)(?=\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? )")
RESTART = re.compile(r"reboot: Restarting system")
BANNER = re.compile(r"Linux version \d.*")
ARGUMENTS = re.compile(r"(?:Kernel c|C)ommand line: (.*)")
# tools/testing/kunit/kunit_kernel.py prints the TimeoutExpired of its QEMU and goes on
KUNIT_TIMEOUT = re.compile(r"Command '\['[^']*qemu-system-.* timed out after [\d.]+ seconds")


class Console:
    """One pass over the console: the KTAP stream, every splat, and how it ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.ktap = ktap.Reader()
        self.splats: list[str] = []
        self.traces: list[str] = []
        self.count = 0  # splats, also those that are not kept
        self.restarted = False
        self.timeout = False
        self.banners: list[str] = []  # at most two: one is too many
        self.arguments: set[str] = set()  # of the kernel
        self.last = ""
        self.whole = True
        for number, (raw, ended) in enumerate(lines(stream, LARGEST), 1):
            if number > LINES:
                self.whole = False
                break
            before = self.count
            taken = [self._line(number, text, ended) for text in _texts(raw)]
            if b"\x1b" in raw and self.count == before and not all(taken):
                for form in (rb"\1", rb" \1"):
                    for text in _texts(SWALLOWED.sub(form, raw)):
                        self._splat(number, text)
        self.whole &= not stream.read(1)
        self.ktap.finish()
        self.tests: dict[str, ktap.Node] = {}
        self.twice: list[str] = []
        for suite in self.ktap.suites:
            for name, node in suite.leaves():
                if name in self.tests:
                    self.twice.append(name)
                self.tests[name] = node

    def _line(self, number: int, text: str, ended: bool) -> bool:
        """Takes a line; True when it was part of the stream or a splat. One that has not ended could be half a result."""
        if text.strip():
            self.last = text
        if ended and self.ktap.feed(text):
            return True
        if (match := BANNER.search(text)) and len(self.banners) < 2:
            self.banners.append(match[0])
        elif (match := ARGUMENTS.match(text)) and not self.ktap.started and len(self.arguments) < LONG:
            self.arguments.update(match[1].split())
        elif RESTART.match(text):
            self.restarted = self.ktap.ended
        elif KUNIT_TIMEOUT.match(text):
            self.timeout = True
        return self._splat(number, text)

    def _splat(self, number: int, text: str) -> bool:
        label = splat.label(text)
        if label:
            self.count += 1
            kept = self.traces if label == "trace" else self.splats
            if len(kept) < MOST // 2:
                kept.append(f"{label} {self.ktap.where()} (line {number}): {text.strip()[:WIDTH]}")
        return bool(label)


def lines(stream: BinaryIO, most: int) -> Iterator[tuple[bytes, bool]]:
    """The lines in the first most bytes of a console, and whether they ended.

    CR ends one, too. A long one comes in pieces that overlap, none of which is a line that ended.
    """
    rest, cut = b"", False  # cut: rest is not the beginning of its line
    while chunk := stream.read(min(CHUNK, most)):
        most -= len(chunk)
        data = rest + chunk
        held = data.endswith(b"\r")  # a LF may follow
        data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = data.split(b"\n")
        for line in whole:
            yield from _pieces(line, cut)
            cut = False
        if len(rest) > LONG:
            yield from _pieces(rest, True)
            rest, cut = rest[-OVERLAP:], True
        if held:
            rest += b"\r"
    if rest:
        yield rest, False


def _pieces(line: bytes, cut: bool) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(line) or 1, LONG):
        yield line[max(0, start - OVERLAP) : start + LONG], len(line) <= LONG and not cut


def _texts(line: bytes) -> Iterator[str]:
    """The messages in a line, without control bytes and printk's prefix; bad UTF-8 is replaced."""
    plain = ESCAPE.sub(b"", line).translate(None, CONTROL).decode(errors="replace").rstrip()
    for text in INSIDE.split(plain):
        yield PREFIX.sub("", text, count=1) if PREFIX.match(text) else text

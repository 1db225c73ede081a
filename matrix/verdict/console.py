# SPDX-License-Identifier: GPL-2.0
"""Read a console of any length in one pass, in bounded time and memory."""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from matrix.verdict import ktap, splat
from matrix.verdict.evidence import MOST, WIDTH

CHUNK = 1 << 20  # bytes read at once
LARGEST = 16 << 20  # bytes read at most; no healthy boot prints as much
LINES = 250_000  # lines read at most
LONG = 1 << 16  # bytes; a longer line is searched in pieces of this size
OVERLAP = 1 << 12  # bytes that a piece shares with the previous one

ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_c])")
# A truncated sequence swallows the first letter of the text that follows, such as the B of BUG.
SWALLOWED = re.compile(rb"(?<!\x1b)\x1b++(?:\[[0-?]*[ -/]*)?([@-Z\\-~])(?=\w)")
CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n") + b"\x7f"
# kernel/printk/printk.c, info_print_prefix(): "<6>[    1.234567][    T1] "
PREFIX = re.compile(r"(?:<\d+>)?(?:\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])?|\[ *[TC]\d+\]|(?<=>)) ?")
INSIDE = re.compile(r"(?<!^)(?=\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? )")
RESTART = re.compile(r"reboot: Restarting system")
BANNER = re.compile(r"Linux version \d.*")
ARGUMENTS = re.compile(r"(?:Kernel c|C)ommand line: (.*)")
REPLAY = b"** replaying previous printk message **"  # kernel/printk/printk.c, console_prepend_replay()
# tools/testing/kunit/kunit_kernel.py prints QEMU's TimeoutExpired and continues.
KUNIT_TIMEOUT = re.compile(r"Command '\['[^']*qemu-system-.* timed out after [\d.]+ seconds")


class Console:
    """What a console contains: the KTAP stream, the splats, the kernel's banner and arguments, and how it ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.ktap = ktap.Reader()
        self.splats: list[str] = []
        self.traces: list[str] = []
        self.count = 0  # all splats, including those not kept
        self.restarted = False
        self.timeout = False
        self.banners: list[str] = []  # the first two; a second one is an error
        self.arguments: set[str] = set()  # of the kernel
        self.detectors: set[str] = set()  # options of those that came up
        self.disabled: set[str] = set()  # options of those that gave up
        self.last = ""
        self.whole = True
        for number, raw, ended in _once(lines(stream, LARGEST)):
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
        """Process a line; return whether it is KTAP or a splat. An incomplete line could be half a result, so it is never KTAP."""
        if text.strip():
            self.last = text
        if ended and self.ktap.feed(text):
            return True
        if (match := BANNER.search(text)) and len(self.banners) < 2:
            self.banners.append(match[0])
        elif (match := ARGUMENTS.match(text)) and not self.ktap.started and len(self.arguments) < LONG:
            self.arguments.update(match[1].split())
        elif up := {option for option, words in splat.DETECTORS if words in text}:
            self.detectors |= up
        elif down := {option for option, words in splat.DISABLED if words in text}:
            self.disabled |= down
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
    """Yield the lines in the first most bytes of a console, each with whether it is complete.

    LF, CR and CR/LF end a line. A long line is split into overlapping pieces, which count as incomplete.
    """
    rest, cut = b"", False  # cut: rest does not start at the beginning of its line
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


def _once(found: Iterable[tuple[bytes, bool]]) -> Iterator[tuple[int, bytes, bool]]:
    """Number the lines from 1 and omit those that the kernel prints again.

    A panic or a WARN takes the console from the thread that prints. If that was at work on a line, all or part of it is
    there already; REPLAY and the same line follow. Only text that the next line repeats is omitted.
    """
    held: list[tuple[int, bytes, bool]] = []  # a line, and REPLAY after it
    for number, (raw, ended) in enumerate(found, 1):
        if len(held) == 2 and raw.startswith(held[0][1]):
            held = []
        if not (held and raw == REPLAY):
            yield from held
            held = []
        held.append((number, raw, ended))
    yield from held


def _pieces(line: bytes, cut: bool) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(line) or 1, LONG):
        yield line[max(0, start - OVERLAP) : start + LONG], len(line) <= LONG and not cut


def _texts(line: bytes) -> Iterator[str]:
    """Yield the messages in a line, without control bytes and printk's prefix; replace invalid UTF-8."""
    plain = ESCAPE.sub(b"", line).translate(None, CONTROL).decode(errors="replace").rstrip()
    for text in INSIDE.split(plain):
        yield PREFIX.sub("", text, count=1) if PREFIX.match(text) else text

# SPDX-License-Identifier: GPL-2.0
"""What a terminal, and a log, show of steps that run."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.common import progress
from matrix.common.progress import Display
from matrix.tests.test_run import Fake


def screen(text: str) -> list[str]:
    """What a terminal shows of text: it knows line feeds, and the two sequences that progress.py uses."""
    rows = [""]
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|\n|[^\x1b\n]+", text.replace("\r\n", "\n")):
        if match := re.fullmatch(r"\x1b\[(\d*)([A-Za-z])", part):
            assert match[2] in "AJ", f"escape sequence {part!r}"
            if match[2] == "A":  # up, and J follows
                rows[-1 - int(match[1]) :] = [""]
        elif part == "\n":
            rows.append("")
        else:
            rows[-1] += part
    assert rows[-1] == "", rows
    return rows[:-1]


class Shown(unittest.TestCase):
    """With a clock that only the test moves."""

    def setUp(self) -> None:
        self.now = 0.0
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "cells/arm64-nothp"  # pylint: disable=consider-using-with
        self.folder.mkdir(parents=True)
        self.addCleanup(setattr, Display, "current", None)
        self.enterContext(mock.patch.dict(os.environ, {"TERM": "xterm", "COLUMNS": "60"}))
        os.environ.pop("CI", None)
        self.text = self.enterContext(contextlib.redirect_stdout(io.StringIO()))

    def display(self, terminal: bool) -> Display:
        """A new display, on a terminal or not."""
        with mock.patch.object(self.text, "isatty", return_value=terminal):
            Display.current = Display(lambda: self.now)
        return Display.current

    @contextlib.contextmanager
    def step(self, label: str, keep: bool = False) -> Iterator[progress.Step]:
        """A build in self.folder."""
        with progress.step(label, "build", self.folder) as running:
            yield running
            if keep:
                running.keep()

    def tick(self, now: float, *steps: progress.Step) -> None:
        """It is now; each step is asked whether its child may end."""
        self.now = now
        for step in steps:
            self.assertFalse(step.tick())

    def test_log(self) -> None:
        """Without a terminal: a line for each step every 30 s, and no escape sequence."""
        self.display(False)
        with self.step("one") as one:
            self.tick(29, one)
            self.assertEqual(self.text.getvalue(), "")
            self.tick(30, one)
            with self.step("two") as two:
                self.tick(59, one, two)
                self.tick(60, one, two)
        self.assertEqual(self.text.getvalue(), "[  30.0 s] one: build 30 s\n[  60.0 s] one: build 60 s\n[  60.0 s] two: build 30 s\n")

    def test_which(self) -> None:
        """CI and a dumb terminal get lines, not cursor movement; nothing is coloured, with NO_COLOR or without."""
        self.assertTrue(self.display(True).live)
        for name, value, live in (("CI", "true", False), ("TERM", "dumb", False), ("NO_COLOR", "1", True)):
            with mock.patch.dict(os.environ, {name: value}):
                self.assertEqual(self.display(True).live, live, name)

    def test_terminal(self) -> None:
        """One line for each running step below the messages, cut to the width, and gone with its step."""
        say = self.display(True).say
        say("before")
        with self.step("one") as one:
            self.assertEqual(screen(self.text.getvalue())[1:], ["one: build 0 s"])
            with self.step("two" * 30) as two:
                self.tick(0.9, one)
                self.assertEqual(screen(self.text.getvalue())[1], "one: build 0 s")
                self.tick(7, one, two)
                say("between")
                self.assertEqual(screen(self.text.getvalue()),
                                 ["[   0.0 s] before", "[   7.0 s] between", "one: build 7 s", ("two" * 30)[:59]])  # fmt: skip
            self.assertEqual(screen(self.text.getvalue())[2:], ["one: build 7 s"])
        say("after")
        self.assertEqual(screen(self.text.getvalue()), ["[   0.0 s] before", "[   7.0 s] between", "[   7.0 s] after"])
        self.assertNotIn("m", "".join(re.findall(r"\x1b\[\d*(.)", self.text.getvalue())))

    def test_objects(self) -> None:
        """Objects that are newer than the start count; earlier runs say what to expect, and nobody guesses."""
        self.display(False)
        (self.folder / "mm").mkdir()
        (self.folder / "old.o").touch()
        os.utime(self.folder / "old.o", (1, 1))

        def run(seconds: float, count: int, keep: bool = True) -> str:
            for path in (self.folder / "mm").iterdir():
                os.utime(path, (1, 1))
            with self.step("one", keep) as one:
                for number in range(count):
                    (self.folder / f"mm/{number}.o").touch()
                self.now += seconds
                return one.line()

        self.assertEqual(run(400, 9), "one: build 400 s, 9 objects")
        self.assertEqual(run(5, 1), "one: build 5 s, 1 object (last time: 400 s, 9 objects)")
        self.assertEqual(run(4, 1, keep=False), "one: build 4 s, 1 object (last time: 5 s, 1 object)")
        self.assertEqual(run(90, 3), "one: build 90 s, 3 objects (a larger one: 400 s, 9 objects)")
        self.assertEqual(run(90, 99), "one: build 90 s, 99 objects")

    def test_first(self) -> None:
        """The first run of a cell is compared with the cell whose name is most like it; a broken history is none."""
        for name, seconds in (("x86_64-thp", 300), ("arm64-thp", 400), ("arm64-bad", 0)):
            folder = self.folder.with_name(name)
            folder.mkdir()
            (folder / progress.HISTORY).write_text(f'{{"build": [[7, 1], [{seconds}, 9]]}}' if seconds else "{")
        with self.step("one") as one:
            self.assertEqual(one.line(), "one: build 0 s (arm64-thp: 400 s, 9 objects)")


class Real(Fake):
    """A whole run on a terminal."""

    def test_history(self) -> None:
        """What a step took that failed is not what the next run has to expect."""
        path = self.out / "linux-7.3.4/cells/one" / progress.HISTORY
        plays: list[tuple[dict[str, Any], list[str]]] = [({"build": {"status": 1}}, ["configure"]),
                                                         ({"exec": {"status": 1}}, ["configure", "build"]),
                                                         ({}, ["configure", "build", "boot"])]  # fmt: skip
        for scenario, kept in plays:
            self.play(**scenario)
            self.run_main("one")
            self.assertEqual(list(json.loads(path.read_text())), kept)

    def test_interrupt(self) -> None:
        """Ctrl-C leaves messages only."""
        self.play(build={"text": "x", "seconds": 10})
        master, slave = pty.openpty()
        with mock.patch.dict(os.environ, {"TERM": "xterm", "COLUMNS": "80"}):
            os.environ.pop("CI", None)
            child = self.start(stdout=slave)
        os.close(slave)
        text = b""
        while text.count(b": build 1 s") < 2:
            text += os.read(master, 4096)
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # Linux says EIO at the end
            while more := os.read(master, 4096):
                text += more
        os.close(master)
        self.assertEqual(child.wait(10), 130)
        shown = screen(text.decode())
        self.assertRegex(shown[-1], "^matrix: interrupted")
        self.assertEqual([line for line in shown[:-1] if not line.startswith("[")], [])
        self.assertIn("\x1b[", text.decode())


if __name__ == "__main__":
    unittest.main()

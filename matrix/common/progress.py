# SPDX-License-Identifier: GPL-2.0
"""What runs right now: a live line for each running step below the messages, or, without a terminal, a message from time to time."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

LIVE, PLAIN = 1.0, 30.0  # seconds between two lines of a step
HISTORY = ".matrix-times"  # in a build directory: step -> [seconds, objects] of its last run, and of the largest if that was larger


class Display:
    """Prints messages, and keeps a line for each running step below them; any thread may call it."""

    current: ClassVar["Display | None"] = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.live = sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"
        self.clock, self.start = clock, clock()
        self._lock = threading.Lock()
        self._lines, self._drawn = dict[int, str](), 0

    def say(self, text: str) -> None:
        """A message with the time since the start."""
        with self._lock:
            self._draw(f"[{self.clock() - self.start:6.1f} s] {text}\n")

    def show(self, key: int, line: str) -> None:
        """Replace the line of a running step, and remove it if it is empty; print it where lines are not live."""
        if not self.live:
            return self.say(line) if line else None
        with self._lock:
            self._lines = {one: text for one, text in {**self._lines, key: line}.items() if text}
            return self._draw()

    def _draw(self, message: str = "") -> None:
        erase = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        width, self._drawn = shutil.get_terminal_size().columns - 1, len(self._lines)
        print(erase + message + "".join(f"{line[:width]}\n" for line in self._lines.values()), end="", flush=True)


class Step:
    """A step that runs; tick() is a hook `until` of proc.run()."""

    def __init__(self, label: str, name: str, folder: Path, display: Display | None) -> None:
        self.label, self.name, self.folder, self._display = label, name, folder, display
        self._clock = display.clock if display else time.monotonic
        self._begun = self._shown = self._clock()
        self._since = time.time_ns() - 10**7  # the times of files lag behind
        self._earlier = _earlier(folder, name)

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return self._clock() - self._begun

    def tick(self) -> bool:
        """Show the step, if it is time; False: the child may go on."""
        if self._display and self._clock() - self._shown >= (LIVE if self._display.live else PLAIN):
            self._shown = self._clock()
            self._display.show(id(self), self.line())
        return False

    def line(self) -> str:
        """Step, time and compiled objects, and the same of the last run that compiled as many."""
        count = self._objects()
        past = next((f" ({who}: {_took(*took)})" for who, took in self._earlier if took[1] >= count), "")
        return f"{self.label}: {self.name} {_took(self.seconds, count)}{past}"

    def keep(self) -> None:
        """The step succeeded: keep what it took for the next run."""
        data, took = _history(self.folder), (round(self.seconds, 1), self._objects())
        data[self.name] = [took, *(one for one in data.get(self.name, [])[-1:] if one[1] > took[1])]
        (self.folder / HISTORY).write_text(json.dumps(data), "utf-8")

    def _objects(self) -> int:
        """Objects in the build directory that are newer than the start: kunit.py hides what make prints."""
        count = 0
        for path in (f"{top}/{name}" for top, _, names in os.walk(self.folder) for name in names if name.endswith(".o")):
            with suppress(OSError):  # make removes files meanwhile
                count += os.stat(path).st_mtime_ns >= self._since
        return count


@contextmanager
def step(label: str, name: str, folder: Path) -> Iterator[Step]:
    """Shows a step while the body runs; folder is its build directory."""
    running = Step(label, name, folder, display := Display.current)
    try:
        if display and display.live:
            display.show(id(running), running.line())
        yield running
    finally:
        if display:
            display.show(id(running), "")


def _took(seconds: float, objects: int) -> str:
    return f"{seconds:.0f} s" + (f", {objects} object{'s' * (objects > 1)}" if objects else "")


def _history(folder: Path) -> dict[str, list[tuple[float, int]]]:
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / HISTORY).read_text("utf-8")))
    return {}


def _earlier(folder: Path, name: str) -> list[tuple[str, tuple[float, int]]]:
    """(who, what it took) of earlier runs; of the build directory with the most similar name if this one has none."""
    if own := _history(folder).get(name):
        return list(zip(("last time", "a larger one"), own))
    others = [(path.parent.name, took[-1]) for path in folder.parent.glob(f"*/{HISTORY}") if (took := _history(path.parent).get(name))]
    return sorted(others, key=lambda one: -len(os.path.commonprefix([one[0], folder.name])))[:1]

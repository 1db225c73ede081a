# SPDX-License-Identifier: GPL-2.0
"""Run child processes, each in its own process group and with a time limit, and leave none behind."""

import errno
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from matrix.common.errors import DISK_FULL, MachineError

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
LONG_GRACE = 4 * GRACE  # the same for a program of ours, which does this with its own children
POLL = 0.1  # seconds between two calls of until()
TAIL = 1 << 16  # bytes of a failed child's output searched for FULL
FULL = re.compile(r"(?m)^(?!.*# [\w.-]+: ).*No space left on device")  # but not what a test says in the kernel under test

_lock = threading.Lock()
_live: set[subprocess.Popen[bytes]] = set()
_kept: set[int] = set()
_stopping = threading.Event()


@dataclass(frozen=True)
class Completed:
    """A child that has ended. output is empty when it went to a log."""

    argv: tuple[str, ...]
    returncode: int
    timed_out: bool
    seconds: float
    output: str

    @property
    def whole(self) -> bool:
        """Whether the child ended by itself, so that its output is complete."""
        return self.returncode >= 0 and not self.timed_out


def run(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit: float,
    until: Callable[[], bool] | None = None,
    stdin: Path | None = None,
) -> Completed:
    """Run argv for at most limit seconds. Append stdout and stderr to log, or return them; read stdin from a file, or /dev/null.

    A child that exceeds the limit is killed with its process group; timed_out is then set. A child is also killed
    when until() returns true; that is not a timeout.
    Raise MachineError when the program is missing or the disk is full, and KeyboardInterrupt
    when the run is being stopped (Ctrl-C here, or stop_all() from another thread).
    """
    try:
        with (open(log, "a+b") if log else tempfile.TemporaryFile()) as sink, open(stdin or os.devnull, "rb") as given:
            before = os.fstat(sink.fileno()).st_size
            start = time.monotonic()
            returncode, timed_out = _run(argv, given, sink, cwd, env, limit, until)
            seconds = time.monotonic() - start
            output = "" if log else _tail(sink.fileno(), None)
            full = returncode != 0 and FULL.search(_tail(sink.fileno(), min(TAIL, os.fstat(sink.fileno()).st_size - before)))
    except OSError as err:
        if err.errno == errno.ENOSPC:
            raise MachineError(DISK_FULL) from err
        if isinstance(err, FileNotFoundError) and err.filename == argv[0]:
            text = f"{argv[0]}: not found; run tools/setup to install what is missing"
            raise MachineError(text) from err
        raise
    if full:
        raise MachineError(DISK_FULL)
    return Completed(tuple(argv), returncode, timed_out, seconds, output)


def stream(argv: Sequence[str], show: Callable[[str], None] | None, *, limit: float, env: Mapping[str, str] | None = None,
           grace: float = LONG_GRACE) -> int:
    """Run argv for at most limit seconds. Pass each line of stdout and stderr to show; None: let it print them itself.

    Return its exit status, negative if it was killed. At the limit, and when this program is interrupted, it gets grace seconds to end
    its own children.
    """
    kept = None if show is None else subprocess.PIPE
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=kept, stderr=kept and subprocess.STDOUT, text=True, errors="replace",
                          env=env, start_new_session=True) as child:
        timer = threading.Timer(limit, _kill, (child, grace))
        timer.start()
        try:
            for line in child.stdout or ():
                if show:
                    show(line.rstrip("\n"))
            return child.wait()
        finally:
            timer.cancel()
            if child.poll() is None:
                _kill(child, grace)


def _run(
    argv: Sequence[str], given: IO[bytes], sink: IO[bytes], cwd: Path | None, env: Mapping[str, str] | None, limit: float,
    until: Callable[[], bool] | None,
) -> tuple[int, bool]:
    """Return (exit status, whether the child timed out)."""
    with _lock:
        if _stopping.is_set():
            raise KeyboardInterrupt
        child = subprocess.Popen(  # pylint: disable=consider-using-with
            list(argv), stdin=given, stdout=sink, stderr=subprocess.STDOUT,
            cwd=cwd, env=env, start_new_session=True, pass_fds=tuple(_kept),
        )
        _live.add(child)
    try:
        _wait(child, limit, until)
        timed_out = False
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        with _lock:
            _live.discard(child)
        if child.returncode is None or _stopping.is_set():
            _kill(child)
        elif child.returncode < 0:
            _signal(child, signal.SIGKILL)  # what a killed child has left behind, e.g. QEMU without kunit.py
    if _stopping.is_set():
        raise KeyboardInterrupt
    return child.returncode, timed_out


def _wait(child: subprocess.Popen[bytes], limit: float, until: Callable[[], bool] | None) -> None:
    """Wait until the child ends or until() returns true. Raise TimeoutExpired at the limit."""
    end = time.monotonic() + limit
    while until and time.monotonic() + POLL < end:
        try:
            child.wait(POLL)
            return
        except subprocess.TimeoutExpired:
            if until():
                return
    child.wait(max(0.0, end - time.monotonic()))


def _signal(child: subprocess.Popen[bytes] | subprocess.Popen[str], signum: int) -> None:
    try:
        os.killpg(child.pid, signum)
    except ProcessLookupError:
        pass


def _kill(child: subprocess.Popen[bytes] | subprocess.Popen[str], grace: float = GRACE) -> None:
    """Send SIGTERM to the child's process group, and SIGKILL after some seconds."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        _signal(child, signum)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            pass


def _tail(descriptor: int, count: int | None) -> str:
    """Return the last count bytes (None: all) of the child's output."""
    size = os.fstat(descriptor).st_size
    start = 0 if count is None else max(0, size - count)
    return os.pread(descriptor, size - start, start).decode(errors="replace")


def stop_all() -> None:
    """End the children of all threads and make run() raise KeyboardInterrupt from now on."""
    _stopping.set()
    end = time.monotonic() + GRACE
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with _lock:
            for child in _live:
                _signal(child, signum)
        while _live and time.monotonic() < end:
            time.sleep(0.02)


@contextmanager
def kept_open(descriptor: int) -> Iterator[None]:
    """Let the children of run() inherit this descriptor, so that a lock on it is held until the last of them exits."""
    _kept.add(descriptor)
    try:
        yield
    finally:
        _kept.discard(descriptor)

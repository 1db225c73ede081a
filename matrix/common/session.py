# SPDX-License-Identifier: GPL-2.0
"""What every program of the project shares: exit statuses, the lock of the build folder, progress, cells side by side."""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from matrix.common import proc, progress
from matrix.common.errors import DISK_FULL, MatrixError, WrongUse

Say = Callable[[str], None]


def guarded(name: str, body: Callable[[], int]) -> int:
    """Runs body to its exit status; an error or a signal becomes one line that begins with name, and a status."""
    caught: list[int] = [signal.SIGINT]

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        caught[0] = signum
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    try:
        return body()
    except MatrixError as err:
        return _fail(name, str(err), err.status)
    except KeyboardInterrupt:
        return _fail(name, "interrupted; the next run picks up from what is whole", 128 + caught[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as err:
        return _fail(name, DISK_FULL if err.errno == errno.ENOSPC else str(err), 3)


def _fail(name: str, text: str, status: int) -> int:
    print(f"{name}: {text}", file=sys.stderr, flush=True)
    return status


def sayer() -> Say:
    """Prints messages with the time since now above the steps that run; any thread may call it."""
    progress.Display.current = progress.Display()
    return progress.Display.current.say


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds out/.lock. Children hold it, too: as long as one lives nobody else may build there."""
    descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
            raise WrongUse(f"{out} is in use by process {owner}, or by a child that it left behind; "
                           "wait, or take another build folder (--out DIR, make O=DIR)") from err  # fmt: skip
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        with proc.kept_open(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def side_by_side(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that run children; an error or a signal in the body ends all of them."""
    with ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            proc.stop_all()
            threads.shutdown(cancel_futures=True)
            raise

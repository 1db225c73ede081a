# SPDX-License-Identifier: GPL-2.0
"""What all programs share: exit statuses, the lock on the build folder, progress messages, parallel work."""

import errno
import fcntl
import io
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
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)  # a folder is somebody else's, or none


def guarded(name: str, body: Callable[[], int]) -> int:
    """Run body and return its exit status. Turn an error or a signal into one line on stderr and an exit status."""
    caught: list[int] = [signal.SIGINT]

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        caught[0] = signum
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not every locale has all that a console can print
    try:
        status = body()
        print(end="", flush=True)  # here, where a full disk is still one line
        return status
    except MatrixError as err:
        return _fail(name, str(err), err.status)
    except KeyboardInterrupt:
        return _fail(name, "interrupted; the next run continues from what is complete", 128 + caught[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as err:
        if err.errno == errno.ENOSPC:
            _drop_output()
        hint = "; make it accessible, or use another build folder (--out DIR, make O=DIR)" if err.errno in UNUSABLE else ""
        return _fail(name, DISK_FULL if err.errno == errno.ENOSPC else f"{err}{hint}", 3)


def _drop_output() -> None:
    """Drop what stdout still holds if it cannot be written, or Python would try again when it exits, with a traceback."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(name: str, text: str, status: int) -> int:
    print(f"{name}: {text}", file=sys.stderr, flush=True)
    return status


def sayer() -> Say:
    """Return a thread-safe function that prints a message, with the elapsed time, above the running steps."""
    progress.Display.current = progress.Display()
    return progress.Display.current.say


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold out/.lock. Children inherit the lock, so the folder stays locked until the last of them exits.

    What kunit.py starts does not have it, as Python's subprocess closes it there; that ends with kunit.py's process group.
    """
    descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
            raise WrongUse(f"{out} is in use by process {owner}, or by a child that it left behind; "
                           "wait, or use another build folder (--out DIR, make O=DIR)") from err  # fmt: skip
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        with proc.kept_open(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and other signals to the end of a few writes that belong together."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def side_by_side(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads that run children; an error or a signal in the body ends all of them."""
    with ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            proc.stop_all()
            threads.shutdown(cancel_futures=True)
            raise

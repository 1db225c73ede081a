# SPDX-License-Identifier: GPL-2.0
"""The download cache: $GMEM_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/gmem-hugepages.

It holds one file per pin, and NAME.json beside it, written last: a file without it is ignored.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from matrix.common.data import sha256
from matrix.common.errors import DISK_FULL, MachineError
from matrix.common.session import Say


@dataclass(frozen=True)
class Archive:
    """A verified file in the cache; the content of its NAME.json."""

    file: str      # name inside the cache
    sha256: str
    version: str   # its actual version
    origin: str    # "Debian linux-source-7.3 7.3.4-1~bpo13+1"
    pin: str       # the pin for which it was fetched

    @property
    def path(self) -> Path:
        """The path of the file."""
        return cache_dir() / self.file


def cache_dir() -> Path:
    """Return the path of the download cache, which need not exist. Raise MachineError when this user has no home."""
    own = os.environ.get("GMEM_CACHE")
    if own:
        return Path(own).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmem-hugepages"
    except RuntimeError:
        raise MachineError("this user has no home folder for the downloads; set HOME or GMEM_CACHE") from None


def fetch(pin: str, what: str, download: Callable[[Path], Archive], say: Say) -> Archive:
    """Return the verified file for the pin. Unless it is cached, let download() write it to the folder that it gets.

    Raise MachineError when the cache cannot store it; what names it then.
    """
    cache = cache_dir()
    try:
        with _locked(cache, say):
            archive = _cached(pin, say)
            if not archive:
                archive = download(cache)
                _record(archive)
            return archive
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError(DISK_FULL) from error
        raise MachineError(f"cannot store {what} in {cache}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(cache: Path, say: Say) -> Iterator[None]:
    """Lock the cache against other downloads."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("source: waiting for another run that is downloading")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cached(pin: str, say: Say) -> Archive | None:
    for note in sorted(cache_dir().glob("*.json")):
        try:
            archive = Archive(**json.loads(note.read_text()))
        except (ValueError, TypeError):
            continue
        if archive.pin != pin:
            continue
        if archive.path.is_file() and sha256(archive.path) == archive.sha256:
            return archive
        say(f"source: {archive.path} is not what was downloaded; fetching it again")
        note.unlink()
        archive.path.unlink(missing_ok=True)
    return None


def _record(archive: Archive) -> None:
    note = archive.path.with_name(archive.file + ".json")
    part = note.with_name(note.name + ".part")
    part.write_text(json.dumps(asdict(archive), indent=1) + "\n")
    part.rename(note)

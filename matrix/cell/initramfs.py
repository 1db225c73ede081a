# SPDX-License-Identifier: GPL-2.0
"""Write an initramfs: a cpio archive in the "newc" format of Documentation/driver-api/early-userspace/buffer-format.rst."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

TRAILER = "TRAILER!!!"


def pack(path: Path, folders: Sequence[str], files: Mapping[str, bytes]) -> None:
    """Write path atomically: folders, then files (name -> content), all of them executable.

    Names are relative to the root; list a folder before its subfolders. The archive is reproducible.
    """
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as archive:
        number = 0
        for number, (name, mode, content) in enumerate([
            *((name, stat.S_IFDIR | 0o755, b"") for name in folders),
            *((name, stat.S_IFREG | 0o755, content) for name, content in files.items()),
        ], 1):  # fmt: skip
            _entry(archive, number, name, mode, content)
        _entry(archive, number + 1, TRAILER, 0, b"")
    part.replace(path)


def _entry(archive: BinaryIO, number: int, name: str, mode: int, content: bytes) -> None:
    """Write header and name, then content, each padded to four bytes."""
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, major, minor, rmajor, rminor, namesize, check
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    archive.write(header + b"\0" * (-len(header) % 4))
    archive.write(content + b"\0" * (-len(content) % 4))

# SPDX-License-Identifier: GPL-2.0
"""A Debian archive with one package, signed by a key that was discarded.

archive/key.asc and archive/InRelease are fixed, so what InRelease signs must never change by a byte. To change it, make a new key,
write release(…) to a file, and let "gpg --clearsign" sign it.
"""

import hashlib
import io
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("archive")
SUITE, NAME, VERSION = "trixie-backports", "linux-source-7.3", "7.3.5-1~bpo13+1"
CONTROL = f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: A Person <a@example.org>\nDescription: made up\n"
TARBALL = b"the kernel\n"  # what a test gets back; no test unpacks it


def _tar(name: str, body: bytes) -> bytes:
    """Write a file and create its folders."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in [*Path(name).parents][::-1]:
            info = tarfile.TarInfo(f"./{folder}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        info = tarfile.TarInfo(f"./{name}")
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def package() -> bytes:
    """Return the .deb: an ar archive of two tar files, without compression."""
    members = {"debian-binary": b"2.0\n", "control.tar": _tar("control", CONTROL.encode()),
               "data.tar": _tar(f"usr/src/{NAME}.tar.xz", TARBALL)}
    return b"!<arch>\n" + b"".join(f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
                                   for name, body in members.items())


def packages() -> str:
    """Return the list of packages."""
    deb = package()
    return f"{CONTROL}Filename: pool/{NAME}.deb\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"


def release() -> str:
    """Return what InRelease signs. It names every architecture, because apt skips those not listed."""
    text = packages().encode()
    digest = hashlib.sha256(text).hexdigest()
    lists = "".join(f" {digest} {len(text)} main/binary-{arch}/Packages\n" for arch in ("all", "amd64", "arm64"))
    return (f"Origin: made up\nSuite: {SUITE}\nCodename: {SUITE}\nDate: Tue, 02 Jan 2024 12:00:00 UTC\nArchitectures: all amd64 arm64\n"
            f"Components: main\nSHA256:\n{lists}")


def write(top: Path) -> None:
    """Write the archive with the layout of a mirror."""
    lists = top / "dists" / SUITE
    (top / "pool").mkdir(parents=True)
    (top / "pool" / f"{NAME}.deb").write_bytes(package())
    for arch in ("all", "amd64", "arm64"):
        (lists / "main" / f"binary-{arch}").mkdir(parents=True)
        (lists / "main" / f"binary-{arch}" / "Packages").write_text(packages())
    (lists / "InRelease").write_bytes((ARCHIVE / "InRelease").read_bytes())

# SPDX-License-Identifier: GPL-2.0
"""Fetch the kernel source from the download cache or from Debian's archive."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from matrix.common import data, proc
from matrix.common.errors import MachineError, WrongUse
from matrix.common.session import Say
from matrix.tree import apt, cache
from matrix.tree.cache import Archive

UNPACK_SECONDS = 900.0
PIN = "source.toml"
KEYS = {"version": str, "debian": dict}
DEBIAN_KEYS = {"package": str, "suite": str, "keyring": str}


@dataclass(frozen=True)
class Pin:
    """kernel/<base>/source.toml: the version that the series is written against, and its source."""

    base: str      # "7.3", the name of the folder
    version: str   # "7.3.4"
    package: str   # Debian's source package
    suite: str
    keyring: Path


def bases(root: Path) -> list[str]:
    """Return the kernels for which the series exists, oldest first: the folders of kernel/ with a source.toml."""
    names = [p.parent.name for p in (root / "kernel").glob(f"*/{PIN}")]
    return sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def load_pin(root: Path, base: str | None = None) -> Pin:
    """Read kernel/<base>/source.toml (None: the newest base). Raise WrongUse when it is missing or incomplete."""
    known = bases(root)
    if not known:
        raise WrongUse(f"no kernel/*/source.toml under {root}: is the checkout complete?")
    base = base or known[-1]
    path = root / "kernel" / base / PIN
    if not path.exists():
        raise WrongUse(f"there is no series for Linux {base}; there is one for {', '.join(known)}")
    found = data.read(path)
    data.check_keys(str(path), found, KEYS, tuple(KEYS))
    debian = found["debian"]
    data.check_keys(f"{path}: [debian]", debian, DEBIAN_KEYS, tuple(DEBIAN_KEYS))
    return Pin(base, found["version"], debian["package"], debian["suite"], Path(debian["keyring"]))


def base_of(version: str) -> str:
    """Return the name of the base for a version: "7.3" for "7.3.4"."""
    return ".".join(version.split(".")[:2])


def new_pin(root: Path, version: str) -> str:
    """Return what source.toml could say for another version, with the newest base as its model."""
    old, new = load_pin(root), base_of(version)
    text = (root / "kernel" / old.base / PIN).read_text()
    for before, after in ((f'"{old.version}"', f'"{version}"'), (f'"{old.package}"', f'"linux-source-{new}"'),
                          (f"{old.base}.y", f"{new}.y")):  # fmt: skip
        text = text.replace(before, after)
    return text


def fetch(pin: Pin, say: Say) -> Archive:
    """Return the verified tarball for the pin; download it unless it is cached.

    Raise MachineError when apt cannot deliver it.
    """
    return cache.fetch(pin.version, "the kernel source", lambda folder: _download(pin, folder, say), say)


def unpack(archive: Archive, dest: Path, say: Say) -> None:
    """Unpack the tarball to dest, which must not exist, atomically: to dest.part first."""
    if not shutil.which("xz"):  # of which tar does not say that it is not there
        raise MachineError("xz: not found; run tools/setup to install what is missing")
    part = dest.with_name(dest.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    say(f"source: unpacking {archive.origin}")
    done = proc.run(["tar", "-xJf", str(archive.path), "-C", str(part), "--strip-components=1", "--no-same-owner"],
                    limit=UNPACK_SECONDS)
    if done.returncode or done.timed_out:
        shutil.rmtree(part, ignore_errors=True)
        raise MachineError(f"cannot unpack {archive.path} ({apt.last_line(done)}); remove it and run again")
    part.rename(dest)


def _download(pin: Pin, folder: Path, say: Say) -> Archive:
    """Fetch the Debian package. Raise MachineError when apt is missing or fails."""
    say(f"source: asking apt for {pin.package} in {pin.suite}")
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder) as temporary:
        work = Path(temporary)
        try:
            debs = apt.download(apt.Request(pin.package, pin.suite, pin.keyring), work)
            if len(debs) != 1:
                raise apt.Unavailable(f"apt-get download left {len(debs)} packages, not one")
        except apt.Unavailable as why:
            raise MachineError(f"cannot fetch Linux {pin.version} from Debian's archive: {why}. "
                               "Check the network and try again, or use your own tree: KSRC=dir") from None
        full = proc.run(["dpkg-deb", "-f", str(debs[0]), "Version"], limit=60).output.strip()
        version = re.match(r"(?:\d+:)?([\d.]+)", full)
        done = proc.run(["dpkg-deb", "-x", str(debs[0]), str(work / "x")], limit=UNPACK_SECONDS)
        tarball = work / "x" / "usr" / "src" / f"{pin.package}.tar.xz"
        if done.returncode or not version or not tarball.is_file():
            raise MachineError(f"{pin.package} {full} holds no {pin.package}.tar.xz ({apt.last_line(done)})")
        name = f"{pin.package}_{full.replace(':', '%3a')}.tar.xz"
        digest = data.sha256(tarball)
        tarball.rename(folder / name)
    return Archive(name, digest, version[1], f"Debian {pin.package} {full}", pin.version)

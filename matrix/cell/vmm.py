# SPDX-License-Identifier: GPL-2.0
"""Read vmm/vmm.toml; fetch QEMU for the architecture of a cell; build and pack what a boot with a VMM needs.

Debian's packages of QEMU and of all that it depends on are unpacked once, and what it needs at run time is kept in the download cache.
"""

import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from matrix.cell import initramfs, selftests
from matrix.cell.cells import Cell
from matrix.cell.selftests import Selftest
from matrix.common import data, proc
from matrix.common.errors import MachineError, WrongUse
from matrix.common.project import Programs
from matrix.common.session import Say
from matrix.tree import apt, cache

KEYS = {"suite": str, "keyring": str, "arch": dict, "rung": object}
ARCH_KEYS = {"debian": str, "package": str, "program": str, "files": list, "kernel": str}
RUNG_KEYS = {"name": str, "seconds": int, "arch": list, "count": bool}
ELF = re.compile(r"\(NEEDED\)\s+Shared library: \[(.+)\]|\[Requesting program interpreter: (.+)\]")
UNPACK_SECONDS = 300.0
FLAGS = ("-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
PROGRAMS = {"gmem.so": ("gmem.c", ("-shared", "-fPIC", "-fvisibility=hidden")),
            "guest": ("guest.c", ("-static", "-pthread")), "ladder": ("ladder.c", ("-static",)), "calls": ("calls.c", ())}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """An architecture in vmm.toml."""

    request: apt.Request
    program: str  # QEMU's path in its package
    files: tuple[str, ...]  # that QEMU opens: names or patterns of paths in its packages
    kernel: str  # the image in the build directory


def load(root: Path, cell: Cell) -> list[Selftest]:
    """Return the rungs of a cell, in file order. Raise WrongUse on a malformed file."""
    path = root / "vmm/vmm.toml"
    found = []
    for entry in data.tables(path, _read(path), "rung"):
        where = f"{path}: rung {entry.get('name', '?')}"
        data.check_keys(where, entry, RUNG_KEYS, ("name", "seconds"))
        if entry["seconds"] < 1:
            raise WrongUse(f"{where}: seconds must be above 0")
        if cell.arch in entry.get("arch", [cell.arch]) and (entry.get("count") or not cell.count):
            found.append(Selftest(entry["name"], entry["seconds"] * cell.slowdown, 0, ()))
    return found


def machine(root: Path, cell: Cell) -> Machine:
    """Return the entry of vmm.toml for the architecture of a cell. Raise WrongUse when it is missing or malformed."""
    path = root / "vmm/vmm.toml"
    found = _read(path)
    entry = found["arch"].get(cell.arch)
    where = f"{path}: [arch.{cell.arch}]"
    if entry is None:
        raise WrongUse(f"{where} is missing")
    data.check_keys(where, entry, ARCH_KEYS, tuple(ARCH_KEYS))
    request = apt.Request(entry["package"], found["suite"], Path(found["keyring"]), entry["debian"])
    return Machine(request, entry["program"], tuple(entry["files"]), entry["kernel"])


def _read(path: Path) -> dict[str, Any]:
    found = data.read(path)
    data.check_keys(str(path), found, KEYS, tuple(KEYS))
    return found


def fetch(wanted: Machine, say: Say) -> cache.Archive:
    """Return a tar file of QEMU and what it needs, by their paths in a system. Raise MachineError when apt cannot deliver it."""
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    pin = f"{wanted.request.package} {wanted.request.suite} {wanted.request.arch} {digest}"
    return cache.fetch(pin, "QEMU", lambda folder: _download(wanted, pin, folder, say), say)


def _download(wanted: Machine, pin: str, folder: Path, say: Say) -> cache.Archive:
    asked = wanted.request
    say(f"source: asking apt for {asked.package} ({asked.arch}) in {asked.suite}")
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder) as temporary:
        work = Path(temporary)
        try:
            debs = apt.download(asked, work)
        except apt.Unavailable as why:
            raise MachineError(f"cannot fetch {asked.package} from Debian's archive: {why}. Check the network and try again") from None
        top, version = work / "x", ""
        for deb in debs:
            done = proc.run(["dpkg-deb", "-x", str(deb), str(top)], limit=UNPACK_SECONDS)
            if done.returncode:
                raise MachineError(f"cannot unpack {deb.name}: {apt.last_line(done)}; run it again")
            if deb.name.startswith(f"{asked.package}_"):
                version = proc.run(["dpkg-deb", "-f", str(deb), "Version"], limit=60).output.strip()
        name = f"{asked.package}_{version.replace(':', '%3a')}_{asked.arch}.tar"
        with tarfile.open(work / name, "w") as tar:
            for path, content in needed(top, wanted.program, wanted.files):
                info = tarfile.TarInfo(path)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        digest = data.sha256(work / name)
        (work / name).rename(folder / name)
    return cache.Archive(name, digest, version, f"Debian {asked.package} {version}", pin)


def needed(top: Path, program: str, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of a program, of the shared libraries that it and they need, and of all files that match the patterns.

    top is a folder with unpacked packages. Raise MachineError when something is missing there.
    """
    plain = os.environ | {"LC_ALL": "C"}
    libraries = {path.name: path for path in sorted(top.rglob("*.so*")) if path.exists()}
    places = {program: top / program}
    todo = [top / program]
    while todo:
        done = proc.run(["readelf", "--dynamic", "--program-headers", "--wide", str(todo.pop())], env=plain, limit=60)
        if done.returncode:
            raise MachineError(f"cannot read {program} of Debian's package: {apt.last_line(done)}")
        for soname, loader in ELF.findall(done.output):
            path = libraries.get(soname or PurePosixPath(loader).name)
            if not path:
                raise MachineError(f"Debian's packages of {program} have no {soname or loader}")
            place = loader.lstrip("/") or f"usr/{path.relative_to(top / 'usr').parent}/{soname}"
            if place not in places:
                places[place] = path
                todo.append(path)
    for pattern in patterns:
        matching = [path for path in top.glob(pattern) if path.is_file()]
        if not matching:
            raise MachineError(f"Debian's packages of {program} have no {pattern}")
        places |= {str(path.relative_to(top)): path for path in matching}
    for place, path in sorted(places.items()):
        yield place, path.read_bytes()


def build_commands(tree: Path, root: Path, cell: Cell, folder: Path, jobs: int) -> list[list[str]]:
    """Return the commands that build the headers of the tree, the programs of vmm/ and init, in this order; all paths are absolute."""
    headers, init = selftests.headers_command(tree, cell, folder, jobs), selftests.init_command(cell, folder)
    compiler = [f"{cell.cross_compile}gcc", *FLAGS, "-isystem", str(folder / "headers/usr/include")]
    programs = [[*compiler, *flags, "-o", str(folder / name), str(root / "vmm" / source)] for name, (source, flags) in PROGRAMS.items()]
    return [headers, *programs, init]


def pack(root: Path, cell: Cell, folder: Path, kit: Programs, tests: Sequence[Selftest], kernel: Path, qemu: cache.Archive, archive: Path
         ) -> None:  # fmt: skip
    """Write the initramfs: QEMU, init and its list /tests, the rungs, and kernel and initramfs of the guest."""
    guest = archive.with_name("guest.cpio")
    initramfs.pack(guest, ("dev",), {"init": (folder / "guest").read_bytes()})
    files = _unpacked(qemu.path)
    lines = [f"suite {kit.suite}", *([f"hold {kit.hold}"] if kit.hold else [])]
    lines += [f"{test.seconds} 0 /vmm/{test.name}" for test in tests]
    ladder = (folder / "ladder").read_bytes()
    files |= {f"vmm/{test.name}": ladder for test in tests}
    files |= {f"vmm/{name}": (folder / name).read_bytes() for name in ("gmem.so", "calls")}
    files |= {"init": (folder / "init").read_bytes(), "tests": ("\n".join(lines) + "\n").encode(),
              "vmm/kernel": kernel.read_bytes(), "vmm/guest.cpio": guest.read_bytes(),
              "vmm/qemu": (root / f"vmm/qemu.{cell.arch}").read_bytes()}  # fmt: skip
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    initramfs.pack(archive, sorted(folders | set(selftests.FOLDERS)), files)


def _unpacked(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                found[member.name] = content.read()
    return found

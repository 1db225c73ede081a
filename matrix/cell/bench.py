# SPDX-License-Identifier: GPL-2.0
"""Read the groups of measurements in bench/bench.toml; build and pack bench/bench.c."""

from collections.abc import Sequence
from pathlib import Path

from matrix.cell import initramfs, selftests
from matrix.cell.cells import Cell
from matrix.cell.selftests import Selftest
from matrix.common import data
from matrix.common.errors import WrongUse
from matrix.common.project import Programs

FILE = "bench/bench.toml"
KEYS = {"name": str, "seconds": int, "hugepages": int}
FLAGS = ("-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-static", "-pthread")


def load(root: Path, cell: Cell) -> list[Selftest]:
    """Return the groups, in file order. Raise WrongUse on a malformed file."""
    found = []
    for entry in data.tables(root / FILE, data.read(root / FILE), "group"):
        where = f"{root / FILE}: group {entry.get('name', '?')}"
        data.check_keys(where, entry, KEYS, ("name", "seconds"))
        if entry["seconds"] < 1:
            raise WrongUse(f"{where}: seconds must be above 0")
        found.append(Selftest(entry["name"], entry["seconds"] * cell.slowdown, entry.get("hugepages", 0), ()))
    return found


def build_commands(tree: Path, root: Path, cell: Cell, folder: Path, jobs: int) -> list[list[str]]:
    """Return the commands that build the headers of the tree, the program and init, in this order; all paths are absolute."""
    program = [f"{cell.cross_compile}gcc", *FLAGS, "-isystem", str(folder / "headers/usr/include"), "-o", str(folder / "bench"),
               str(root / "bench/bench.c")]  # fmt: skip
    return [selftests.headers_command(tree, cell, folder, jobs), program, selftests.init_command(cell, folder)]


def pack(folder: Path, kit: Programs, tests: Sequence[Selftest], archive: Path) -> None:
    """Write the initramfs: init, its list /tests, and the program under the name of each group."""
    lines = [f"suite {kit.suite}", *([f"hold {kit.hold}"] if kit.hold else [])]
    lines += [f"{test.seconds} {test.hugepages} /bench/{test.name}" for test in tests]
    program = (folder / "bench").read_bytes()
    files = {"init": (folder / "init").read_bytes(), "tests": ("\n".join(lines) + "\n").encode()}
    initramfs.pack(archive, (*selftests.FOLDERS, "bench"), files | {f"bench/{test.name}": program for test in tests})

# SPDX-License-Identifier: GPL-2.0
"""Read matrix/selftests.toml; build and pack the selftests of a cell.

<out>/<key>/selftests/<arch>/headers   the uapi headers of the tree, from "make headers"
<out>/<key>/selftests/<arch>/programs  OUTPUT of the selftests' Makefile
<out>/<key>/selftests/<arch>/init      matrix/cell/init.c, compiled

They do not depend on a .config, so the cells of an architecture share them.
"""

import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.cell import initramfs
from matrix.cell.cells import Cell, asked
from matrix.common import data, project
from matrix.common.errors import WrongUse

KEYS = {"path": str, "seconds": int, "arch": list, "hugepages": int, "args": list, "option": str, "gate": bool}
FOLDERS = ("dev", "proc", "sys", "tmp", "selftests", "modules")  # in the initramfs: init's mount points, and its files
INIT_FLAGS = ("-static", "-O2", "-Wall", "-Wextra")

_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True)
class Selftest:
    """A program and how to run it."""

    path: str  # relative to the folder of the selftests, without .c
    seconds: int  # time limit
    hugepages: int  # hugetlb pages of the default size, reserved while it runs
    args: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in KTAP."""
        return self.path.rpartition("/")[2]


def load(root: Path, cell: Cell) -> list[Selftest]:
    """Return the selftests of a cell, in file order. Raise WrongUse on a malformed file."""
    path = root / "matrix/selftests.toml"
    found: list[Selftest] = []
    options = asked(cell)
    for entry in data.tables(path, data.read(path), "selftest"):
        where = f"{path}: selftest {entry.get('path', '?')}"
        data.check_keys(where, entry, KEYS, ("path", "seconds"))
        if entry["seconds"] < 1:
            raise WrongUse(f"{where}: seconds must be above 0")
        one = Selftest(entry["path"], entry["seconds"] * cell.slowdown, entry.get("hugepages", 0), tuple(entry.get("args", ())))
        if any(set(" \t\n") & set(word) or not word for word in (one.path, *one.args)):
            raise WrongUse(f"{where}: path and args must be words without blanks")
        option = entry.get("option")
        here = cell.arch in entry.get("arch", [cell.arch]) and entry.get("gate", cell.gate) == cell.gate
        if here and (not option or options.get(option, "n") != "n"):
            if one.name in {other.name for other in found}:
                raise WrongUse(f"{where}: {one.name} is listed twice")
            found.append(one)
    return found


def present(source: Path, tests: Sequence[Selftest]) -> list[Selftest]:
    """Return the tests whose source is in this folder."""
    return [test for test in tests if (source / f"{test.path}.c").is_file()]


def lock(folder: Path) -> threading.Lock:
    """Return the lock that keeps two cells from building in one folder at once."""
    return _locks[folder]


def headers_command(tree: Path, cell: Cell, folder: Path, jobs: int) -> list[str]:
    """Return the command that installs the uapi headers of a tree into the folder."""
    (folder / "headers").mkdir(parents=True, exist_ok=True)
    return ["make", "-C", str(tree), f"O={folder / 'headers'}", *_variables(cell, jobs), "headers"]


def init_command(cell: Cell, folder: Path) -> list[str]:
    """Return the command that compiles init."""
    return [f"{cell.cross_compile}gcc", *INIT_FLAGS, "-o", str(folder / "init"), str(Path(__file__).with_name("init.c"))]


def _variables(cell: Cell, jobs: int) -> list[str]:
    return [f"ARCH={cell.arch}", f"CROSS_COMPILE={cell.cross_compile}", f"--jobs={jobs}", "--silent"]


def build_commands(tree: Path, cell: Cell, folder: Path, kit: project.Selftests, tests: Sequence[Selftest], jobs: int) -> list[list[str]]:
    """Return the commands that build the headers, the selftests and init, in this order; all paths are absolute.

    They leave nothing in the tree, although Build.include tests compiler options in a temporary folder .tmp_* there.
    """
    output = folder / "programs"
    for made in (output, *(output / name for name in kit.mkdir)):
        made.mkdir(parents=True, exist_ok=True)
    headers, init = headers_command(tree, cell, folder, jobs), init_command(cell, folder)
    programs = ["make", "-C", str(tree / kit.folder), *_variables(cell, jobs), f"OUTPUT={output}",
                f"KHDR_INCLUDES=-isystem {folder / 'headers/usr/include'}", "USERLDFLAGS=-static",
                *(word.replace("{output}", str(output)) for word in kit.make), *(str(output / test.path) for test in tests)]  # fmt: skip
    return [headers, programs, init] if tests else [headers, init]  # make without a target would build all selftests


def forget(folder: Path) -> None:
    """Remove the programs, so that make compiles them and prints their warnings again."""
    shutil.rmtree(folder / "programs", ignore_errors=True)


def modules(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return name -> content of these modules of the kernel in a build directory, in this order. Raise WrongUse if one is not there."""
    order = folder / "modules.order"
    built = [folder / line for line in order.read_text("utf-8").split()] if order.exists() else []
    files = {path.stem: path.with_suffix(".ko") for path in built}
    for name in names:
        if name not in files:
            raise WrongUse(f"{folder.name}: the kernel has no module {name!r}{data.near(name, files)}; see matrix/cells.toml")
    return {name: files[name].read_bytes() for name in names}


def pack(folder: Path, kit: project.Selftests | None, tests: Sequence[Selftest], archive: Path, loaded: Mapping[str, bytes] | None = None
         ) -> None:  # fmt: skip
    """Write the initramfs: init, its list /tests, the modules that it loads, and the selftests. Without a kit there are no tests."""
    files = {f"modules/{name}.ko": content for name, content in (loaded or {}).items()}
    lines = [f"module /{name}" for name in files]
    if kit:
        lines += [f"suite {kit.suite}", *([f"hold {kit.hold}"] if kit.hold else [])]
    lines += [" ".join([str(test.seconds), str(test.hugepages), f"/selftests/{test.name}", *test.args]) for test in tests]
    files |= {"init": (folder / "init").read_bytes(), "tests": ("\n".join(lines) + "\n").encode()}
    files |= {f"selftests/{test.name}": (folder / "programs" / test.path).read_bytes() for test in tests}
    initramfs.pack(archive, FOLDERS, files)

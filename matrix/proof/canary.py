# SPDX-License-Identifier: GPL-2.0
"""Canaries: kernels that must come out red, for reasons that are known beforehand. A verdict that misses one can't be trusted."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.cell import cells, run as cellrun
from matrix.common import data
from matrix.tree import tree
from matrix.cell.cells import Cell
from matrix.cell.run import Job, Site
from matrix.common.errors import WrongUse
from matrix.verdict.evidence import Reason, differences

KEYS = {
    "name": str, "about": str, "cell": str, "patch": str, "fragment": str, "kernel_args": list, "filter": str,
    "boot_seconds": int, "reasons": list,
}  # fmt: skip
NEEDED = ("name", "about", "cell", "patch", "reasons")


@dataclass(frozen=True)
class Canary:
    """A cell's kernel with something wrong in it, and what the verdict has to say of it."""

    name: str
    about: str
    cell: Cell  # with the canary's fragment, kernel arguments and time limit
    patch: Path
    glob: str  # kunit.py's filter_glob
    reasons: tuple[tuple[str, str], ...]  # code and part of the text, as in the golden cases


def load(root: Path, known: Sequence[Cell]) -> list[Canary]:
    """All canaries of matrix/canaries/canaries.toml under root, in file order. Raises WrongUse on a malformed file."""
    path = root / "matrix/canaries/canaries.toml"
    found = []
    for entry in data.read(path).get("canary", []):
        where = f"matrix/canaries/canaries.toml: canary {entry.get('name', '?')}"
        data.check_keys(where, entry, KEYS, NEEDED)
        cell = cells.select(known, [entry["cell"]])[0]
        if not entry["reasons"] or not all(isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in entry["reasons"]):
            raise WrongUse(f"{where}: reasons are pairs of code and text, and there is at least one")
        folder = path.parent
        fragments = (folder / entry["fragment"],) if "fragment" in entry else ()
        found.append(Canary(
            name=entry["name"], about=entry["about"], patch=folder / entry["patch"], glob=entry.get("filter", ""),
            reasons=tuple((code, text) for code, text in entry["reasons"]),
            cell=replace(cell, fragments=cell.fragments + fragments, boot_seconds=entry.get("boot_seconds", cell.boot_seconds),
                         kernel_args=cell.kernel_args + tuple(entry.get("kernel_args", ()))),
        ))  # fmt: skip
        if not found[-1].patch.is_file():
            raise WrongUse(f"{where}: {found[-1].patch}: no such file")
    return found


def select(known: Sequence[Canary], names: Sequence[str]) -> list[Canary]:
    """The named canaries; all of them when no name is given."""
    for name in names:
        if name not in (canary.name for canary in known):
            raise WrongUse(f"unknown canary {name!r}; there are {', '.join(canary.name for canary in known)}")
    return [canary for canary in known if not names or canary.name in names]


def run(canary: Canary, root: Path, out: Path, prepared: tree.PreparedTree, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Builds and boots one, in the build directory of its cell; what is not as expected, [] when it is red as it should be.

    The results stay in out/canaries/<name>/. The caller holds the lock of out.
    """
    folder = out / "canaries" / canary.name
    shutil.rmtree(folder, ignore_errors=True)
    with tree.patched(prepared, [canary.patch]) as wrong:
        site = Site(root, folder, wrong, lambda text: say(f"{canary.name}: {text}"), lambda: jobs)
        result = cellrun.run(site, [Job(canary.cell, glob=canary.glob)])[0]
    return differences([Reason(**reason) for reason in result["reasons"]], canary.reasons)


def run_all(chosen: Sequence[Canary], root: Path, out: Path, prepared: tree.PreparedTree, jobs: int, say: Callable[[str], None]) -> bool:
    """Runs them one after the other and prints a line for each; whether all were red for the right reasons."""
    good = True
    for canary in chosen:
        start = time.monotonic()
        wrong = run(canary, root, out, prepared, jobs, say)
        codes = ", ".join(dict.fromkeys(code for code, _ in canary.reasons))
        if wrong:
            good = False
            print(f"not ok canary {canary.name}: {'; '.join(wrong)}; logs: {out / 'canaries' / canary.name}", flush=True)
        else:
            print(f"ok canary {canary.name}: red as it should be ({codes}), {time.monotonic() - start:.0f} s", flush=True)
    return good

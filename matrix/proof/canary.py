# SPDX-License-Identifier: GPL-2.0
"""Run the canaries: kernels with a known defect, for which the verdict must be red, with known reasons."""

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
    "boot_seconds": int, "reasons": object,
}  # fmt: skip
NEEDED = ("name", "about", "cell", "patch", "reasons")


@dataclass(frozen=True)
class Canary:
    """A cell's kernel with a defect, and the reasons that the verdict must have."""

    name: str
    about: str
    cell: Cell  # with the canary's fragment, kernel arguments and time limit
    patch: Path
    glob: str  # kunit.py's filter_glob
    reasons: tuple[tuple[str, str], ...]  # (code, part of the text), as in the golden cases


def load(root: Path, known: Sequence[Cell]) -> list[Canary]:
    """Return all canaries of matrix/canaries/canaries.toml under root, in file order. Raise WrongUse on a malformed file."""
    path = root / "matrix/canaries/canaries.toml"
    if not path.exists():
        raise WrongUse(f"this project has no canaries: there is no {path}")
    found = []
    for entry in data.tables(path, data.read(path), "canary"):
        where = f"matrix/canaries/canaries.toml: canary {entry.get('name', '?')}"
        data.check_keys(where, entry, KEYS, NEEDED)
        cell = cells.select(known, [entry["cell"]])[0]
        pairs = entry["reasons"] if isinstance(entry["reasons"], list) else []
        if not pairs or not all(isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in pairs):
            raise WrongUse(f"{where}: reasons must be a list of pairs of code and text, not empty")
        folder = path.parent
        fragments = (folder / entry["fragment"],) if "fragment" in entry else ()
        found.append(Canary(
            name=entry["name"], about=entry["about"], patch=folder / entry["patch"], glob=entry.get("filter", ""),
            reasons=tuple((code, text) for code, text in pairs),
            cell=replace(cell, fragments=cell.fragments + fragments, boot_seconds=entry.get("boot_seconds", cell.boot_seconds),
                         kernel_args=cell.kernel_args + tuple(entry.get("kernel_args", ()))),
        ))  # fmt: skip
        if not found[-1].patch.is_file():
            raise WrongUse(f"{where}: {found[-1].patch}: no such file")
    return found


def select(known: Sequence[Canary], names: Sequence[str]) -> list[Canary]:
    """Return the named canaries; without names, all."""
    for name in names:
        if name not in (canary.name for canary in known):
            raise WrongUse(f"unknown canary {name!r}; there are {', '.join(canary.name for canary in known)}")
    return [canary for canary in known if not names or canary.name in names]


def run(canary: Canary, root: Path, out: Path, prepared: tree.PreparedTree, jobs: int, say: Callable[[str], None]) -> list[str]:
    """Build and boot a canary in the build directory of its cell. Return what differs from its reasons, [] for nothing.

    The results go to out/canaries/<name>/. The caller holds the lock of out.
    """
    folder = out / "canaries" / canary.name
    shutil.rmtree(folder, ignore_errors=True)
    with tree.patched(prepared, [canary.patch]) as wrong:
        site = Site(root, folder, wrong, lambda text: say(f"{canary.name}: {text}"), lambda: jobs)
        result = cellrun.run(site, [Job(canary.cell, glob=canary.glob)])[0]
    return differences([Reason(**reason) for reason in result["reasons"]], canary.reasons)


def run_all(chosen: Sequence[Canary], root: Path, out: Path, prepared: tree.PreparedTree, jobs: int, say: Callable[[str], None]) -> bool:
    """Run the canaries and print a line for each. Return whether all were red for the expected reasons."""
    good = True
    for canary in chosen:
        start = time.monotonic()
        wrong = run(canary, root, out, prepared, jobs, say)
        codes = ", ".join(dict.fromkeys(code for code, _ in canary.reasons))
        if wrong:
            good = False
            print(f"not ok canary {canary.name}: {'; '.join(wrong)}; logs: {out / 'canaries' / canary.name}", flush=True)
        else:
            print(f"ok canary {canary.name}: red as expected ({codes}), {time.monotonic() - start:.0f} s", flush=True)
    return good

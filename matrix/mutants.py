# SPDX-License-Identifier: GPL-2.0
"""Mutants: the kernel with one mistake put in, which a test has to find.

kunit/mutants/<name>.patch: header lines "Mistake:", "Killed-by:" (cases, as suite.case) and, where not every cell can
tell, "Cells:"; a line that starts with a space goes on with the one before. An empty line, and a patch on top of series
and suites. A mutant is killed in a cell if every case that its header names fails there, or is where the kernel
complains. If they are selftests, those are what the kernel is booted for. Being red in any other way does not count,
unless the header says "*", as those that are generated do.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix import build, cellrun, ktap, report, selftests, tree
from matrix.cells import Cell
from matrix.errors import WrongUse
from matrix.main import pool
from matrix.verdict import Console

BOOT_SECONDS = 60  # a mutant may hang
HEADER = re.compile(r"(Mistake|Killed-by|Cells): *(.*)")
CASE = re.compile(r"\w+\.\w+")
ANYTHING = ("*",)
IN_CASE = re.compile(r" in (\w+\.\w+)")  # of what Console says about a splat

KILLED, SURVIVED, BROKEN, OTHER = "killed", "survived", "does not build", "red elsewhere"
Outcomes = Mapping[str, Mapping[str, "Outcome"]]  # mutant -> cell -> outcome


@dataclass(frozen=True)
class Mutant:
    """One patch and what its header says."""

    name: str
    path: Path
    mistake: str
    killed_by: tuple[str, ...]
    cells: tuple[str, ...]  # empty: any


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant in one cell."""

    kind: str
    killers: tuple[str, ...] = ()  # all cases that failed, not only those the header names
    missed: tuple[str, ...] = ()  # cases that the header names and that did not fail
    why: str = ""
    seconds: float = 0

    def json(self) -> dict[str, Any]:
        """For mutants.json."""
        return dataclasses.asdict(self)


@dataclass
class Run:
    """Where mutants are run; the caller holds the lock of out."""

    root: Path
    out: Path
    prepared: tree.PreparedTree
    jobs: int
    say: cellrun.Say
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    def mutant(self, mutant: Mutant, cells: Sequence[Cell]) -> Mapping[str, Outcome]:
        """Builds and boots one mutant in these cells, side by side."""
        side = min(2, len(cells))
        with tree.patched(self.prepared, [mutant.path]) as prepared:
            found = dict(zip((cell.name for cell in cells),
                             pool(lambda cell: self._cell(mutant, cell, prepared, lambda: max(1, self.jobs // side)), cells, side)))
        self.outcomes[mutant.name] = found
        for name, outcome in found.items():
            self.say(f"{mutant.name}: {name}: {outcome.kind}{': ' if outcome.why else ''}{outcome.why}")
        return found

    def _cell(self, mutant: Mutant, cell: Cell, prepared: tree.PreparedTree, share: Callable[[], int]) -> Outcome:
        out = self.out / "mutants" / mutant.name
        start = time.monotonic()
        cell = dataclasses.replace(cell, boot_seconds=min(cell.boot_seconds, BOOT_SECONDS))
        kind = cellrun.E2E if mutant.killed_by[0].startswith(f"{selftests.SUITE}.") else cellrun.KUNIT
        run = cellrun.CellRun(self.root, out, prepared, cell, share, lambda text: None, kind=kind)
        shutil.rmtree(run.results, ignore_errors=True)
        clean = (run.build_dir / build.CLEAN).exists()
        result = run.run([kind])[0]
        if clean:  # a warning was the mutant's, and its file is compiled again without it
            build.mark_clean(run.build_dir)
        return dataclasses.replace(judge(mutant, result, run.results / "console.log"), seconds=round(time.monotonic() - start, 1))


def load(root: Path) -> list[Mutant]:
    """All mutants by name. Raises WrongUse on a malformed header."""
    return [parse(path) for path in sorted((root / "kunit/mutants").glob("*.patch"))]


def parse(path: Path) -> Mutant:
    """One mutant; WrongUse when its header does not say what it stands for and what kills it."""
    found: dict[str, str] = {}
    last = ""
    for line in path.read_text("utf-8").partition("\n\n")[0].splitlines():
        if match := HEADER.fullmatch(line):
            last = match[1]
            found[last] = match[2]
        elif last and line.startswith(" "):
            found[last] += " " + line.strip()
        else:
            raise WrongUse(f"{path}: not a header line: {line!r}")
    killed_by = tuple(found.get("Killed-by", "").split())
    if not found.get("Mistake") or not killed_by:
        raise WrongUse(f"{path}: the header needs Mistake: and Killed-by:")
    for name in killed_by:
        if killed_by != ANYTHING and not CASE.fullmatch(name):
            raise WrongUse(f"{path}: Killed-by: {name} is no suite.case")
    return Mutant(path.stem, path, found["Mistake"], killed_by, tuple(found.get("Cells", "").split()))


def select(mutants: Sequence[Mutant], globs: Sequence[str]) -> list[Mutant]:
    """Those whose names match one of globs; all when there is none."""
    chosen = [mutant for mutant in mutants if not globs or any(fnmatch.fnmatchcase(mutant.name, glob) for glob in globs)]
    if not chosen:
        raise WrongUse(f"no mutant is called {' or '.join(globs) or 'anything'}; kunit/mutants/ has them")
    return chosen


def judge(mutant: Mutant, result: report.Result, console: Path) -> Outcome:
    """Was it killed by what has to kill it?"""
    codes = {reason["code"]: reason["text"] for reason in reversed(result["reasons"])}
    for code in ("build", "config"):
        if code in codes:
            return Outcome(BROKEN, why=codes[code])
    killers: tuple[str, ...] = ()
    if console.exists():
        with open(console, "rb") as stream:
            killers = killing(Console(stream))
    missed = tuple(name for name in mutant.killed_by if name not in killers)
    if result["verdict"] == "green":
        return Outcome(SURVIVED, (), mutant.killed_by)
    if mutant.killed_by == ANYTHING:
        return Outcome(KILLED, killers, (), f"by {killers[0] if killers else next(iter(codes.values()))}")
    if missed:
        return Outcome(OTHER, killers, missed, f"{', '.join(missed)} did not fail")
    return Outcome(KILLED, killers, (), f"by {len(killers)} cases")


def killing(console: Console) -> tuple[str, ...]:
    """The cases (suite.case) that failed, or in which the kernel complained or came to its end."""
    failed = {name.partition("/")[0] for name, node in console.tests.items() if node.status == ktap.FAIL and "." in name}
    for splat in console.splats:
        failed.update(IN_CASE.findall(splat))
    if not console.ktap.ended:  # it hung, or took the kernel down
        failed.update(IN_CASE.findall(f" {console.ktap.where()}"))
    return tuple(sorted(failed))


def passed(mutants: Iterable[Mutant], outcomes: Outcomes) -> bool:
    """Every mutant was killed in at least one cell, and nowhere was it missed by what has to kill it."""
    kinds = [{outcome.kind for outcome in outcomes[mutant.name].values()} for mutant in mutants]
    return all(kind == {KILLED} for kind in kinds)


def markdown(mutants: Sequence[Mutant], outcomes: Outcomes, cells: Sequence[str], heading: str) -> str:
    """REPORT.md: each mutant, what it stands for, and per cell how many cases fail; those it is named after in words."""
    text = ["# Mutants", "", heading, "", f"| mutant | must be killed by | {' | '.join(cells)} |", "|---|---|" + "---|" * len(cells)]
    for mutant in mutants:
        row = [_cell_text(outcomes[mutant.name].get(cell)) for cell in cells]
        names = "<br>".join(f"`{name}`" for name in mutant.killed_by)
        text.append(f"| **{mutant.name}**: {mutant.mistake} | {names} | {' | '.join(row)} |")
    return "\n".join(text) + "\n"


def _cell_text(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{len(outcome.killers)} cases" if outcome.kind == KILLED else f"**{outcome.kind}**"

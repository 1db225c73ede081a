# SPDX-License-Identifier: GPL-2.0
"""Read and judge mutants: patches that put one mistake into the kernel, which a test must find.

matrix/mutants/<name>.patch starts with the header lines "Mistake:", "Killed-by:" (cases, as suite.case), "Cells:" if only
some cells can find it, "Rungs:" if cells with a VMM find it, too, and "Gate: yes" if it runs on every push; a line that starts
with a space continues the previous one. After an empty line follows a patch on top of series and suites. A mutant is killed in a
cell if every case in Killed-by, or in Rungs, fails there, or the kernel splats or dies in it. If the cases are selftests, the
kernel is booted for selftests. Other failures do not count, unless Killed-by is "*", as in generated mutants.
"""

from __future__ import annotations

import fnmatch
import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.common import data, project
from matrix.tree import tree
from matrix.verdict import ktap, report
from matrix.cell.cells import Cell
from matrix.common.errors import WrongUse
from matrix.verdict.console import Console

HEADER = re.compile(r"(Mistake|Killed-by|Cells|Rungs|Gate): *(.*)")
CASE = re.compile(r"\w+\.\w+")
ANYTHING = ("*",)
NO_KILL = frozenset({"warning", "check", "kernel", "expected", "kunit"})  # reasons that are no mistake of the kernel
WHERE = re.compile(r" in (\w+)(?:\.(\w+)|, after (\w+))?")  # the position in a splat of Console

FOLDERS = {"x86_64": "x86", "i386": "x86"}  # the kernel's ARCH -> folder in arch/, where it has another name

ENOUGH = 0.9  # of the seeds must kill a mutant; a race is not lost every time
KILLED, SURVIVED, BROKEN, OTHER = "killed", "survived", "does not build", "red elsewhere"


@dataclass(frozen=True)
class Mutant:
    """A patch and its header."""

    name: str
    path: Path
    mistake: str
    killed_by: tuple[str, ...]
    cells: tuple[str, ...]  # empty: all
    gate: bool = False
    end_to_end: bool = False  # the cases are selftests, or rungs of a VMM
    rungs: tuple[str, ...] = ()  # the cases that must kill it in a cell with a VMM

    @property
    def glob(self) -> str:
        """A filter_glob for the cases that must kill it, and as few others as possible; empty if any case may."""
        if self.killed_by == ANYTHING:
            return ""
        return ".".join(map(_glob, zip(*(case.split(".") for case in self.killed_by))))

    def concerns(self, cell: Cell) -> bool:
        """Whether this cell can find it: the header allows the cell, and the file is not of another architecture."""
        if cell.build_only or cell.modules or (cell.vmm and not self.rungs):
            return False
        folders = {name.split("/")[1] for name in tree.patched_files(self.path) if name.startswith("arch/")}
        return (not self.cells or cell.name in self.cells) and (not folders or FOLDERS.get(cell.arch, cell.arch) in folders)

    def at(self, cell: Cell) -> Mutant:
        """Return it with the cases that must kill it in this cell."""
        return replace(self, killed_by=self.rungs, end_to_end=True) if cell.vmm else self


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mutant in one cell."""

    kind: str
    killers: tuple[str, ...] = ()  # cases that failed, until all of Killed-by had
    missed: tuple[str, ...] = ()  # cases of Killed-by that did not fail
    why: str = ""
    seconds: float = 0
    seeds: int = 0  # so many seeds were tried; 0: the boot had none
    kills: int = 0  # … of which so many killed


def _glob(names: Sequence[str]) -> str:
    """Return their common prefix and the set of letters that follow: se[cv]* for "second" and "seventh"."""
    start = os.path.commonprefix(names)
    following = sorted({name[len(start) : len(start) + 1] for name in names})
    if following == [""]:
        return start
    return f"{start}*" if "" in following else f"{start}[{''.join(following)}]*"


def load(root: Path) -> list[Mutant]:
    """Return all mutants, sorted by name. Raise WrongUse on a malformed header."""
    known = project.load(root)
    names = [kit.suite if kit else "" for kit in (known.selftests, known.vmm)]
    return [parse(path, *names) for path in sorted((root / "matrix/mutants").glob("*.patch"))]


def parse(path: Path, selftests: str = "", vmm: str = "") -> Mutant:
    """Read a mutant; selftests and vmm are the names of their suites. Raise WrongUse when its header is malformed."""
    found: dict[str, str] = {}
    last = ""
    for line in data.text(path).partition("\n\n")[0].splitlines():
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
            raise WrongUse(f"{path}: Killed-by: {name} is not suite.case")
    if found.get("Gate", "yes") != "yes":
        raise WrongUse(f"{path}: Gate: {found['Gate']}: must be yes, or be left out")
    return Mutant(path.stem, path, found["Mistake"], killed_by, tuple(found.get("Cells", "").split()), "Gate" in found,
                  end_to_end=killed_by[0].partition(".")[0] == selftests,
                  rungs=tuple(f"{vmm}.{rung}" for rung in found.get("Rungs", "").split()))


def select(mutants: Sequence[Mutant], globs: Sequence[str]) -> list[Mutant]:
    """Return the mutants whose names match one of globs; without globs, all."""
    if not mutants:
        raise WrongUse("this project has no mutants: there is no patch in its matrix/mutants/")
    chosen = [mutant for mutant in mutants if not globs or any(fnmatch.fnmatchcase(mutant.name, glob) for glob in globs)]
    if not chosen:
        raise WrongUse(f"no mutant matches {' or '.join(globs)}; see matrix/mutants/")
    return chosen


def judge(mutant: Mutant, result: report.Result, console: Path, order: Sequence[str] = (), stopped: bool = False) -> Outcome:
    """Judge a mutant: was it killed as its header says? order and stopped are those of killing()."""
    codes = {reason["code"]: reason["text"] for reason in reversed(result["reasons"])}
    for code in ("build", "config") if not console.exists() else ():  # a splat can disable a detector: config, but it was built
        if code in codes:
            return Outcome(BROKEN, why=codes[code])
    killers: tuple[str, ...] = ()
    if console.exists():
        with open(console, "rb") as stream:
            killers = killing(Console(stream), order, stopped)
    if result["verdict"] == "green" or (mutant.killed_by == ANYTHING and set(codes) == {"warning"}):  # the compiler found it, no test did
        return Outcome(SURVIVED, (), mutant.killed_by)
    if mutant.killed_by == ANYTHING:
        if not killers and set(codes) <= NO_KILL:
            return Outcome(OTHER, (), ANYTHING, next(iter(codes.values())))
        why = killers[0] if killers else next(text for code, text in codes.items() if code not in NO_KILL)
        return Outcome(KILLED, killers, (), f"by {why}")
    if lacking := missed(mutant, killers):
        return Outcome(OTHER, killers, lacking, f"{', '.join(lacking)} did not fail")
    return Outcome(KILLED, killers, (), f"by {', '.join(mutant.killed_by)}")


def of_seeds(outcomes: Mapping[int, Outcome]) -> Outcome:
    """Return the outcome of boots with several seeds: killed if ENOUGH of them kill, otherwise as the first seed that does not."""
    others = {seed: one for seed, one in outcomes.items() if one.kind != KILLED}
    kills, seconds = len(outcomes) - len(others), round(sum(one.seconds for one in outcomes.values()), 1)
    first = next(iter(others.values() if kills < ENOUGH * len(outcomes) else outcomes.values()))
    why = f"with {kills} of {len(outcomes)} seeds" + (f", not with {', '.join(map(str, others))}" if others else "")
    return replace(first, why=f"{why}; {first.why}" if first.why else why, seconds=seconds, seeds=len(outcomes), kills=kills)


def missed(mutant: Mutant, killers: Sequence[str]) -> tuple[str, ...]:
    """Return the cases of Killed-by that are not among the killers."""
    if mutant.killed_by == ANYTHING:
        return () if killers else ANYTHING
    return tuple(name for name in mutant.killed_by if name not in killers)


def killing(console: Console, order: Sequence[str] = (), stopped: bool = False) -> tuple[str, ...]:
    """Return the cases (suite.case) that failed, or in which the kernel splatted or died; stopped: we ended the boot.

    Only cases with parameters print their name when they begin. For others, the console shows the previous case; order,
    all cases as they run, gives the next.
    """
    failed = {name.partition("/")[0] for name, node in console.tests.items() if node.status == ktap.FAIL and "." in name}
    places = list(console.splats)
    if not console.ktap.ended and not stopped:  # it hung, or took the kernel down
        places.append(f" {console.ktap.where()}")
    for place in places:
        if match := WHERE.search(place):
            suite, case, before = match.groups()
            cases = [name for name in order if name.startswith(f"{suite}.")]
            at = cases.index(f"{suite}.{before}") + 1 if f"{suite}.{before}" in cases else 0
            failed.update([f"{suite}.{case}"] if case else cases[at : at + 1])
    return tuple(sorted(failed))


def cases_of(tests: Iterable[str]) -> list[str]:
    """Return the cases (suite.case) of tests, in the same order."""
    return list(dict.fromkeys(name.partition("/")[0] for name in tests))

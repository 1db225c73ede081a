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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix import build, cellrun, ktap, manifest, report, selftests, tree
from matrix.cells import Cell, asked
from matrix.errors import WrongUse
from matrix.main import side_by_side
from matrix.verdict import Console, Evidence

BOOT_SECONDS = 60  # a mutant may hang
HEADER = re.compile(r"(Mistake|Killed-by|Cells): *(.*)")
CASE = re.compile(r"\w+\.\w+")
ANYTHING = ("*",)
WHERE = re.compile(r" in (\w+)(?:\.(\w+)|, after (\w+))?")  # of what Console says about a splat

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

    @property
    def end_to_end(self) -> bool:
        """Whether it takes a boot for the selftests."""
        return self.killed_by[0].startswith(f"{selftests.SUITE}.")


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant in one cell."""

    kind: str
    killers: tuple[str, ...] = ()  # the cases that failed until all those were among them that the header names
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

    def all(self, work: Sequence[tuple[Mutant, Sequence[Cell]]]) -> None:
        """Builds and boots each mutant in its cells. While one boots, the next one is built."""
        with side_by_side(1) as booter:
            booting: Future[None] | None = None
            for mutant, cells in work:
                with tree.patched(self.prepared, [mutant.path]) as prepared:
                    for cell in cells:
                        run, evidence, seen = self._build(mutant, cell, prepared)
                        if booting:
                            booting.result()
                        if not mutant.end_to_end:
                            run.boot_dir = copy_image(run.build_dir, self.out / "mutants/boot")
                        booting = booter.submit(self._boot, run, evidence, seen)
                        if mutant.end_to_end:  # the selftests are built from this tree
                            booting.result()
            if booting:
                booting.result()

    def _build(self, mutant: Mutant, cell: Cell, prepared: tree.PreparedTree) -> tuple[cellrun.CellRun, Evidence, Seen]:
        cell = dataclasses.replace(cell, boot_seconds=min(cell.boot_seconds, BOOT_SECONDS))
        kind = cellrun.E2E if mutant.end_to_end else cellrun.KUNIT
        seen = Seen(mutant, cases_of(cellrun.manifest_path(cell, kind)))
        run = cellrun.CellRun(self.root, self.out / "mutants" / mutant.name, prepared, cell, lambda: self.jobs, lambda text: None,
                              kind=kind, until=seen.enough)  # fmt: skip
        shutil.rmtree(run.results, ignore_errors=True)
        run.results.mkdir(parents=True)
        run.build_dir.mkdir(parents=True, exist_ok=True)
        clean = (run.build_dir / build.CLEAN).exists()
        evidence = run.kernel(Evidence(asked=asked(cell), got=None, manifest=None, touched=prepared.touched))
        if clean:  # a warning was the mutant's, and its file is compiled again without it
            build.mark_clean(run.build_dir)
        return run, evidence, seen

    def _boot(self, run: cellrun.CellRun, evidence: Evidence, seen: Seen) -> None:
        result = run.finish(evidence)
        outcome = judge(seen.mutant, result, run.results / "console.log", seen.order, seen.stopped)
        outcome = dataclasses.replace(outcome, seconds=round(sum(run.seconds.values()), 1))
        self.outcomes.setdefault(seen.mutant.name, {})[run.cell.name] = outcome
        self.say(f"{seen.mutant.name}: {run.cell.name}: {outcome.kind}{': ' if outcome.why else ''}{outcome.why}")


def copy_image(build_dir: Path, folder: Path) -> Path:
    """Copies what a boot needs of a build directory to folder, a new one, which it returns."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (".config", *build.IMAGES):
        if (build_dir / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(build_dir / name, folder / name)
    return folder


@dataclass
class Seen:
    """Looks at a console that grows."""

    mutant: Mutant
    order: Sequence[str]  # as for killing()
    stopped: bool = False

    def enough(self, console: Path) -> bool:
        """Whether the mutant is killed; the rest of the boot would not change that."""
        if console.exists():
            with open(console, "rb") as stream:
                self.stopped = not missed(self.mutant, killing(Console(stream), self.order, stopped=True))
        return self.stopped


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


def judge(mutant: Mutant, result: report.Result, console: Path, order: Sequence[str] = (), stopped: bool = False) -> Outcome:
    """Was it killed by what has to kill it? order as for killing(); stopped: the boot was ended early because it was."""
    codes = {reason["code"]: reason["text"] for reason in reversed(result["reasons"])}
    for code in ("build", "config"):
        if code in codes:
            return Outcome(BROKEN, why=codes[code])
    killers: tuple[str, ...] = ()
    if console.exists():
        with open(console, "rb") as stream:
            killers = killing(Console(stream), order, stopped)
    if result["verdict"] == "green":
        return Outcome(SURVIVED, (), mutant.killed_by)
    if mutant.killed_by == ANYTHING:
        return Outcome(KILLED, killers, (), f"by {killers[0] if killers else next(iter(codes.values()))}")
    if lacking := missed(mutant, killers):
        return Outcome(OTHER, killers, lacking, f"{', '.join(lacking)} did not fail")
    return Outcome(KILLED, killers, (), f"by {', '.join(mutant.killed_by)}")


def missed(mutant: Mutant, killers: Sequence[str]) -> tuple[str, ...]:
    """Those of the cases that have to kill the mutant that are not among its killers."""
    if mutant.killed_by == ANYTHING:
        return () if killers else ANYTHING
    return tuple(name for name in mutant.killed_by if name not in killers)


def killing(console: Console, order: Sequence[str] = (), stopped: bool = False) -> tuple[str, ...]:
    """The cases (suite.case) that failed, or in which the kernel complained or came to its end, unless we stopped it there.

    Only a case with parameters says so when it begins. Of another it is known which one ended before; order, the cases as
    they run, tells its name.
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


def cases_of(path: Path) -> list[str]:
    """The cases (suite.case) of a manifest, in which they stand as they run."""
    found = manifest.load(path)
    return list(dict.fromkeys(name.partition("/")[0] for name in found.tests)) if found else []


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

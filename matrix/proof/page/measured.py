# SPDX-License-Identifier: GPL-2.0
"""Read what make mutants and make coverage have measured, for the report. What cannot be read is a problem, and no error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from matrix.proof import mutantreport
from matrix.proof.mutants import BROKEN, KILLED, SURVIVED
from matrix.verdict.runs import document, mapping, number, sequence, text

Found = TypeVar("Found")
COUNTS = ("lines", "covered", "branches", "taken")


@dataclass
class Mutant:
    """A mutant and what the tests made of it."""

    mistake: str = ""
    killed_by: tuple[str, ...] = ()
    outcomes: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # cell -> kind and killers

    @property
    def fate(self) -> str:
        """KILLED, SURVIVED or BROKEN."""
        kinds = {kind for kind, _ in self.outcomes.values()}
        if mutantreport.killed(self.killed_by, kinds):
            return KILLED
        return BROKEN if kinds == {BROKEN} else SURVIVED


@dataclass
class Mutants:
    """All mutants.json files of a build folder."""

    tested: list[str] = field(default_factory=list)  # kernel and series, for people
    mutants: dict[str, Mutant] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def of(self, fate: str) -> list[str]:
        """Return the names of the mutants with this fate."""
        return [name for name, mutant in self.mutants.items() if mutant.fate == fate]


@dataclass
class Coverage:
    """The coverage.json of a build folder."""

    tested: str = ""
    cells: list[str] = field(default_factory=list)
    files: dict[str, dict[str, int]] = field(default_factory=dict)  # file -> COUNTS
    open: list[dict[str, str]] = field(default_factory=list)  # where, what, text, reason
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> dict[str, int]:
        """The sums of all files."""
        return {key: sum(counts[key] for counts in self.files.values()) for key in COUNTS}


def mutants(out: Path) -> Mutants | None:
    """Return the mutants of a build folder, None when it has none. CI has a folder below mutants/ for each job."""
    found = Mutants()
    folder = out / "mutants"
    for path in sorted([*folder.glob("mutants.json"), *folder.glob("*/mutants.json")]):
        _read(path, out, found.problems, lambda data: _add(found, data))
    return found if found.mutants or found.problems else None


def coverage(out: Path) -> Coverage | None:
    """Return the coverage of a build folder, None when it has none."""
    found = Coverage()
    path = out / "coverage/coverage.json"
    if not path.exists():
        return None
    return _read(path, out, found.problems, _coverage) or found


def _read(path: Path, out: Path, problems: list[str], use: Callable[[Mapping[str, Any]], Found]) -> Found | None:
    try:
        return use(mapping(document(path)))
    except KeyError as err:
        problems.append(f"{path.relative_to(out)} is unreadable: {err} is missing")
    except ValueError as err:
        problems.append(f"{path.relative_to(out)} is unreadable: {err}")
    return None


def _add(found: Mutants, data: Mapping[str, Any]) -> None:
    """Add a mutants.json: all of it or, when something in it is wrong, nothing."""
    tested = _tested(data)
    added: dict[str, Mutant] = {}
    for name, entry in mapping(data["mutants"]).items():
        one = mapping(entry)
        outcomes = {cell: mapping(outcome) for cell, outcome in mapping(one["cells"]).items()}
        added[name] = Mutant(text(one["mistake"]), tuple(text(case) for case in sequence(one["killed_by"])), {
            cell: (text(outcome["kind"]), tuple(text(killer) for killer in sequence(outcome["killers"])))
            for cell, outcome in outcomes.items()
        })  # fmt: skip
    found.tested = list(dict.fromkeys([*found.tested, tested]))
    for name, mutant in added.items():
        mutant.outcomes = found.mutants.get(name, Mutant()).outcomes | mutant.outcomes
        found.mutants[name] = mutant


def _coverage(data: Mapping[str, Any]) -> Coverage:
    files = {name: mapping(counts) for name, counts in mapping(data["files"]).items()}
    return Coverage(
        _tested(data), [text(cell) for cell in sequence(data["cells"])],
        {name: {key: int(number(counts[key])) for key in COUNTS} for name, counts in files.items()},
        [{key: text(mapping(one)[key]) for key in ("where", "what", "text", "reason")} for one in sequence(data["open"])],
    )  # fmt: skip


def _tested(data: Mapping[str, Any]) -> str:
    return f"{text(data['kernel'])}, series {text(data['series'])[:12]}"

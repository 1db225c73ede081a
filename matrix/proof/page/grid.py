# SPDX-License-Identifier: GPL-2.0
"""Arrange the results of a run as a grid of suites and cells, in which each square has a state and says how many tests it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matrix.verdict.report import Result
from matrix.verdict.runs import E2E, Run, missing

PASSED, FAILED, SKIPPED, MISSING, NOT_RUN, ELSEWHERE = "passed", "failed", "skipped", "missing", "not run", "not here"
WITHOUT_LEAVE = "skipped without leave"
STATES = {
    PASSED: ("✓", "the tests passed; skips that expected.txt allows are counted below"),
    FAILED: ("✗", "a test failed"),
    MISSING: ("?", "a test was expected and did not run"),
    WITHOUT_LEAVE: ("!", "a test skipped, and expected.txt does not allow it"),
    SKIPPED: ("»", "all tests skipped, as allowed"),
    NOT_RUN: ("–", "the kernel was not booted, or the boot ended too early to tell"),
    ELSEWHERE: ("·", "the boot ran to its end without this suite: the cell does not have it, or a filter excludes it"),
}
BASE = "-base"


@dataclass(frozen=True)
class Square:
    """What a cell says about a suite."""

    state: str  # one of STATES
    count: int = 0  # of the tests in this state
    others: tuple[str, ...] = ()  # "3 skipped"


@dataclass(frozen=True)
class Column:
    """A cell and its boots."""

    name: str
    boots: dict[str, Result] = field(default_factory=dict)  # kind -> result


def place(name: str) -> tuple[str, str]:
    """Return the column of a result and the kind of its boot: "" for KUnit, else E2E."""
    plain = name.removesuffix(BASE)
    if not plain.endswith(E2E):
        return name, ""
    return plain.removesuffix(E2E) + name[len(plain):], E2E


def columns(run: Run) -> list[Column]:
    """Return the cells of a run, in its order."""
    found: dict[str, Column] = {}
    for result in run.results:
        name, kind = place(result["cell"])
        found.setdefault(name, Column(name)).boots[kind] = result
    return list(found.values())


def suites(run: Run) -> dict[str, set[str]]:
    """Return suite -> the kinds of boots in which it is found, those of KUnit first, then in the order in which they run."""
    found: dict[str, set[str]] = {}
    for kind, result in sorted(((place(result["cell"])[1], result) for result in run.results), key=lambda pair: pair[0]):
        for suite in [*result["suites"], *missing(result)[0]]:
            found.setdefault(suite, set()).add(kind)
    return found


def square(suite: str, kinds: set[str], column: Column) -> Square:
    """Return the square of a suite, which is found in boots of these kinds."""
    count: Counter[str] = Counter()
    boots = [column.boots[kind] for kind in sorted(kinds) if kind in column.boots]
    for result in boots:
        count.update(_statuses(suite, result))
    for state in (FAILED, MISSING, WITHOUT_LEAVE, PASSED, SKIPPED):
        if count[state]:
            return Square(state, count[state], tuple(f"{count[other]} {other}" for other in STATES if count[other] and other != state))
    complete = boots and all(result["suites"] and not missing(result)[1] for result in boots)
    return Square(ELSEWHERE if complete else NOT_RUN)


def _statuses(suite: str, result: Result) -> Iterator[str]:
    """Yield a state for each test of a suite. A suite that skips as a whole counts as one."""
    if entry := result["suites"].get(suite):
        found = {f"{suite}.{name}": str(case["status"]) for name, case in entry["cases"].items()} or {suite: str(entry["status"])}
        yield from (WITHOUT_LEAVE if status == SKIPPED and test not in result["skips"] else status for test, status in found.items())
    yield from (MISSING for _ in missing(result)[0].get(suite, ()))


def worst(squares: Sequence[Square]) -> str:
    """Return the state of a row that needs attention first."""
    order = (FAILED, MISSING, WITHOUT_LEAVE, NOT_RUN, SKIPPED, PASSED, ELSEWHERE)
    return min((one.state for one in squares), key=order.index, default=ELSEWHERE)

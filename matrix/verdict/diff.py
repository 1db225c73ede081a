# SPDX-License-Identifier: GPL-2.0
"""Compare two runs: what turned red, vanished, skips now, or became slower, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matrix.verdict.report import Result
from matrix.verdict.runs import Run

# A boot is slower if it takes SLOWER times as long and at least LEAST s more. Less is noise: QEMU shares the machine with other
# builds and boots, and a busy machine takes up to five times as long (see selftests.toml). So slower is never worse. Builds are
# not compared: how long one takes depends on how much of the last one is still there.
SLOWER = 1.5
LEAST = 10.0
TIMED = "boot"

WORSE = ("turned red", "has no result now", "fails now", "vanished", "skips now")  # with one of these, the newer run is worse
KINDS = {
    "turned red": "Boots that were green", "has no result now": "Boots without a result in the newer run",
    "fails now": "Tests that did not fail before", "vanished": "Tests that ran before and did not run now",
    "skips now": "Tests that ran before and skip now", "slower": f"Boots that take {SLOWER} times as long, and {LEAST:.0f} s more",
    "turned green": "Boots that were red", "has a result now": "Boots without a result in the older run",
    "passes now": "Tests that failed before", "new": "Tests that are new", "runs now": "Tests that skipped before and pass now",
    "faster": f"Boots that took {SLOWER} times as long, and {LEAST:.0f} s more",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A difference between two runs."""

    kind: str  # one of KINDS
    what: str  # a test, or "" for all of a boot
    boots: tuple[str, ...]  # the results in which it is so
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {': '.join(part for part in (self.what, ', '.join(self.boots), self.detail) if part)}"


def compare(old: Run, new: Run) -> list[Change]:
    """Return the differences, in the order of KINDS, then of the newer run. A test that changes in several boots is one."""
    before = {result["cell"]: result for result in old.results}
    after = {result["cell"]: result for result in new.results}
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for name in dict.fromkeys([*after, *before]):
        for kind, what, detail in _one(before.get(name), after.get(name)):
            found.setdefault((kind, what, detail, "" if what else name), []).append(name)
    kinds = list(KINDS)
    changes = [Change(kind, what, tuple(boots), detail) for (kind, what, detail, _), boots in found.items()]
    return sorted(changes, key=lambda change: kinds.index(change.kind))


def worse(changes: Sequence[Change]) -> bool:
    """Whether the newer run is worse, its time aside."""
    return any(change.kind in WORSE for change in changes)


def _one(old: Result | None, new: Result | None) -> Iterator[tuple[str, str, str]]:
    """Yield kind, test and detail of the differences between two results of the same boot."""
    if not new:
        yield "has no result now", "", ""
        return
    because = "; ".join(f"{reason['code']}: {reason['text']}" for reason in new["reasons"][:1])
    if len(new["reasons"]) > 1:
        because += f" (and {len(new['reasons']) - 1} more)"
    if not old:
        yield ("has a result now", "", "") if new["verdict"] == "green" else ("turned red", "", because)
        return
    if old["verdict"] != new["verdict"]:
        yield ("turned green", "", "") if new["verdict"] == "green" else ("turned red", "", because)
    ran, runs = statuses(old), statuses(new)
    if bool(ran) != bool(runs):
        yield "new" if runs else "vanished", "all tests", ""
    else:
        for test in dict.fromkeys([*runs, *ran]):
            whole = test.partition(".")[0]  # stands for its tests in the run in which the suite skips as a whole
            if whole == test and any(other.startswith(f"{test}.") for other in (*ran, *runs)):
                continue
            if kind := _kind(ran.get(test, ran.get(whole)), runs.get(test, runs.get(whole))):
                yield kind, test, _reason(new, test) if kind == "skips now" else ""
    yield from _time(old, new)


def _kind(old: str | None, new: str | None) -> str:
    """Return the kind of change of a test between two statuses, None where it did not run; "" for none."""
    if old == new:
        return ""
    if new is None:
        return "vanished"
    if new == "failed":
        return "fails now"
    if old is None:
        return "new"
    if new == "skipped":
        return "skips now"
    return "passes now" if old == "failed" else "runs now"


def _time(old: Result, new: Result) -> Iterator[tuple[str, str, str]]:
    if TIMED in old["seconds"] and TIMED in new["seconds"] and old.get("filter") == new.get("filter"):
        took, takes = old["seconds"][TIMED], new["seconds"][TIMED]
        for kind, less, more in (("slower", took, takes), ("faster", takes, took)):
            if more >= less * SLOWER and more >= less + LEAST:
                yield kind, "", f"{TIMED} took {took:.0f} s, takes {takes:.0f} s"


def statuses(result: Result) -> dict[str, str]:
    """Return test -> status of a result. A suite that skips as a whole has no cases, and counts as a test."""
    found = {}
    for suite, entry in result["suites"].items():
        if not entry["cases"]:
            found[suite] = str(entry["status"])
        for case, one in entry["cases"].items():
            found[f"{suite}.{case}"] = str(one["status"])
    return found


def _reason(result: Result, test: str) -> str:
    suite, _, case = test.partition(".")
    return str(result["suites"][suite]["cases"].get(case, {}).get("reason", "")) or result["skips"].get(suite, "")


def text(changes: Sequence[Change]) -> str:
    """Format the changes for a terminal: a line each, below a line for each kind."""
    lines = []
    for kind, means in KINDS.items():
        own = [change for change in changes if change.kind == kind]
        if own:
            lines += [f"{kind} ({len(own)}): {means.lower()}", *(f"  {str(change).partition(': ')[2]}" for change in own)]
    return "\n".join(lines)

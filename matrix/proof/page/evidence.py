# SPDX-License-Identifier: GPL-2.0
"""The sections that say why the boots can be believed: the difference to another run, mutants, and coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matrix.proof.coverage import percent
from matrix.proof.mutants import BROKEN, KILLED, SURVIVED
from matrix.proof.page.markup import Html, breakable, join, tag
from matrix.proof.page.measured import Coverage, Mutant, Mutants
from matrix.proof.page.parts import Against, folded, note, number, region, row
from matrix.verdict import diff
from matrix.verdict.diff import Change
from matrix.verdict.runs import Run

KILLERS = 3  # of a mutant that are named


def changes(against: Against, run: Run) -> Html:
    """Return what is different from another run."""
    old = against.run
    kernels = f": {'; '.join(old.kernels)}" if old and old.kernels else ""
    parts = [tag("p", f"Compared with {against.said}{kernels}.")]
    if old:
        found = diff.compare(old, run)
        for kind, means in diff.KINDS.items():
            if own := [change for change in found if change.kind == kind]:
                parts.append(tag("h3", f"{kind[0].upper()}{kind[1:]}: {len(own)}"))
                parts += [tag("p", f"{means}."), folded([tag("li", *_change(change)) for change in own], "changes")]
        parts += [] if found else [tag("p", "No difference.")]
    return join(parts)


def _change(change: Change) -> list[str]:
    boots = join(map(breakable, change.boots), ", ")
    detail = [": ", tag("span", change.detail, class_="quoted")] if change.detail else []
    return [breakable(change.what), " in ", boots, *detail] if change.what else [boots, *detail]


def _notes(problems: Sequence[str], tested: Sequence[str], run: Run) -> Iterator[Html]:
    """Yield what could not be read, and what was measured with another kernel or series than the run's."""
    yield from (note(f"{problem}. Run it again.") for problem in problems)
    if strange := [one for one in tested if run.kernels and one not in run.kernels]:
        yield note(f"Measured with another kernel or series than this run: {'; '.join(strange)}.")


def mutants(found: Mutants | None, run: Run) -> Html:
    """Return the mutants, those that survived first."""
    if not found:
        return tag("p", "Not run. make mutants puts mistakes into the series, which the tests must find.")
    parts = list(_notes(found.problems, found.tested, run))
    fates = {fate: found.of(fate) for fate in (SURVIVED, BROKEN, KILLED)}
    if found.mutants:
        counts = ", ".join(f"{len(fates[fate])} {fate}" for fate in (KILLED, SURVIVED, BROKEN) if fates[fate])
        parts.append(tag("p", f"{len(found.mutants)} mistakes in the series: {counts}."))
    for fate, names in fates.items():
        if names:
            rows = [row(name, tag("td", found.mutants[name].mistake, class_="quoted"), tag("td", *_outcomes(found.mutants[name])))
                    for name in names]  # fmt: skip
            table = region(f"Mutants: {fate}", f"Mutants: {fate}", ["Mutant", "Mistake", "Outcome"], [tag("tbody", *rows)])
            parts.append(tag("details", tag("summary", f"{fate}: {len(names)}"), table, open=fate == SURVIVED))
    return join(parts)


def _outcomes(mutant: Mutant) -> Iterator[Html]:
    for cell, (kind, killers) in mutant.outcomes.items():
        by = f" by {', '.join(killers[:KILLERS])}" if killers else ""
        yield tag("div", breakable(cell), f": {kind}{by}")


def coverage(found: Coverage | None, run: Run) -> Html:
    """Return the coverage of each file, and the lines that were not executed, those without a reason first."""
    if not found:
        return tag("p", "Not measured. make coverage counts which of the added lines run.")
    parts = list(_notes(found.problems, [found.tested] if found.tested else [], run))
    if found.files:
        rows = [row(name, number(str(counts["lines"])), number(percent(counts["covered"], counts["lines"])),
                    number(str(counts["branches"])), number(percent(counts["taken"], counts["branches"])))
                for name, counts in [*found.files.items(), ("all", found.total)]]  # fmt: skip
        head = ["File", "added lines", "covered", "branches", "taken"]
        parts.append(region("Coverage", f"Measured in {', '.join(found.cells)}.", head, [tag("tbody", *rows)]))
    if found.open:
        ends = [tag("li", tag("code", one["where"]), f": {one['what']}: ", tag("code", one["text"]), ": ",
                    one["reason"] or tag("strong", "no reason given"))
                for one in sorted(found.open, key=lambda one: bool(one["reason"]))]  # fmt: skip
        bare = sum(not one["reason"] for one in found.open)
        title = tag("summary", f"{len(ends)} lines with something not executed, {bare} without a reason")
        parts.append(tag("details", title, tag("ul", *ends), open=bool(bare)))
    return join(parts)

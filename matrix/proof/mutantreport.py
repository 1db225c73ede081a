# SPDX-License-Identifier: GPL-2.0
"""What came of the mutants: mutants.json, which grows from run to run, and build/mutants/REPORT.md, which is made of it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from matrix.tree import tree
from matrix.verdict import report
from matrix.common.errors import WrongUse
from matrix.proof.mutants import ANYTHING, BROKEN, KILLED, Mutant, Outcome

Outcomes = Mapping[str, Mapping[str, Outcome]]  # mutant -> cell -> outcome
Document = dict[str, Any]


def passed(mutant: Mutant, kinds: Set[str]) -> bool:
    """Killed: wherever it was tried by what has to kill it, or, when anything may, somewhere."""
    return KILLED in kinds if mutant.killed_by == ANYTHING else kinds == {KILLED}


def add(path: Path, prepared: tree.PreparedTree, mutants: Sequence[Mutant], outcomes: Outcomes) -> Document:
    """Adds these outcomes to a mutants.json, which starts anew when series or suites have changed. Returns all there are."""
    kernel = f"Linux {prepared.version} ({prepared.origin})"
    data: Document = {"kernel": kernel, "series": prepared.series, "mutants": {}}
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        data = old if (old.get("kernel"), old.get("series")) == (kernel, prepared.series) else data
    for mutant in mutants:
        if found := outcomes.get(mutant.name):
            entry = data["mutants"].setdefault(mutant.name, {"cells": {}})
            entry["cells"] |= {cell: dataclasses.asdict(outcome) for cell, outcome in found.items()}
            kinds = {outcome["kind"] for outcome in entry["cells"].values()}
            # What does not even build was found by the compiler, which is counted apart.
            entry |= {"mistake": mutant.mistake, "killed_by": mutant.killed_by, "passed": passed(mutant, kinds),
                      "broken": kinds == {BROKEN}, "date": str(datetime.date.today())}  # fmt: skip
    report.write_json(path, data)
    return data


def markdown(data: Document, written: Sequence[Mutant], generated: Sequence[Mutant], equivalents: Mapping[str, str]) -> str:
    """REPORT.md. Raises WrongUse when one of those in matrix/mutants/ or of the generated ones has not been run."""
    entries = data["mutants"]
    if missing := [mutant.name for mutant in (*written, *generated) if mutant.name not in entries]:
        names = f"{', '.join(missing[:5])}{f' and {len(missing) - 5} more' if missing[5:] else ''}"
        raise WrongUse(f"no outcome of {names}; run tools/mutants first, with and without --generated")
    cells = sorted({cell for mutant in written for cell in entries[mutant.name]["cells"]}, key=_thp_first)
    dates = sorted({entries[mutant.name]["date"] for mutant in (*written, *generated)})
    good = sum(entries[mutant.name]["passed"] for mutant in written)
    text = ["# Mutants", "",
            f"Of {data['kernel']}, on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. Written by `tools/mutants --report`; "
            "[README](../README.md) says what they are.", "",
            "## Written by hand", "",
            f"{good} of {len(written)} were killed by the cases that have to kill them, in every cell in which they were tried.", "",
            f"| mutant | must be killed by | {' | '.join(cells)} |", "|---|---|" + "---|" * len(cells)]  # fmt: skip
    for mutant in written:
        row = [entries[mutant.name]["cells"].get(cell, {}).get("kind", "") for cell in cells]
        by = "<br>".join(f"`{case}`" for case in mutant.killed_by)
        text.append(f"| **{mutant.name}**: {mutant.mistake} | {by} | {' | '.join(row)} |")
    text += ["", "## Generated", ""] + _generated({mutant.name: entries[mutant.name] for mutant in generated}, equivalents)
    return "\n".join(text) + "\n"


def _generated(entries: Mapping[str, Any], equivalents: Mapping[str, str]) -> list[str]:
    count = Counter("passed" if entry["passed"] else "broken" if entry["broken"] else "left" for entry in entries.values())
    text = ["Each line of C that the series adds, with one small thing changed. The first cell and boot that kills one ends it.", "",
            f"{count['passed']} killed by a test, {count['broken']} do not build, {count['left']} survived, {len(equivalents)} "
            "cannot be told from the original.", ""]  # fmt: skip
    if count["left"]:
        text += ["Survivors:", ""] + [f"- {name}: {_code(entry['mistake'])}" for name, entry in entries.items()
                                      if not entry["passed"] and not entry["broken"]] + [""]  # fmt: skip
    text += ["| mutant | killed by | in |", "|---|---|---|"]
    for name, entry in entries.items():
        for cell, outcome in entry["cells"].items():
            if outcome["kind"] == KILLED:
                text.append(f"| {_code(entry['mistake'])} | {'<br>'.join(outcome['killers'][:3]) or outcome['why']} | {cell} |")
        if entry["broken"]:
            text.append(f"| {_code(entry['mistake'])} | the compiler | {name.partition('-')[0]} |")
    text += ["", "### Equivalent", "", "| mutant | why nothing can tell |", "|---|---|"]
    return text + [f"| {_code(key)} | {reason} |" for key, reason in equivalents.items()]


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _thp_first(cell: str) -> tuple[bool, str]:
    return "nothp" in cell, cell

# SPDX-License-Identifier: GPL-2.0
"""What came of the mutants: mutants.json, which grows from run to run, and kunit/mutants/REPORT.md, which is made of it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matrix import report, tree
from matrix.errors import WrongUse
from matrix.mutants import ANYTHING, BROKEN, KILLED, Mutant, Outcome

Outcomes = Mapping[str, Mapping[str, Outcome]]  # mutant -> cell -> outcome
Document = dict[str, Any]


def passed(mutant: Mutant, found: Mapping[str, Outcome]) -> bool:
    """Killed: wherever it was tried by what has to kill it, or, when anything may, somewhere."""
    kinds = {outcome.kind for outcome in found.values()}
    return KILLED in kinds if mutant.killed_by == ANYTHING else kinds == {KILLED}


def broken(found: Mapping[str, Outcome]) -> bool:
    """It does not even build, i.e. the compiler has found it; counted apart."""
    return {outcome.kind for outcome in found.values()} == {BROKEN}


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
            entry |= {"mistake": mutant.mistake, "killed_by": mutant.killed_by, "passed": passed(mutant, found),
                      "broken": broken(found), "date": str(datetime.date.today())}  # fmt: skip
            entry["cells"] |= {cell: dataclasses.asdict(outcome) for cell, outcome in found.items()}
    report.write_json(path, data)
    return data


def markdown(data: Document, written: Sequence[Mutant], equivalents: Mapping[str, str]) -> str:
    """REPORT.md. Raises WrongUse when one of those in kunit/mutants/ has not been run."""
    entries = data["mutants"]
    if missing := [mutant.name for mutant in written if mutant.name not in entries]:
        raise WrongUse(f"no outcome of {', '.join(missing[:5])}{' …' if missing[5:] else ''}; run tools/mutants first")
    names = {mutant.name for mutant in written}
    generated = {name: entry for name, entry in entries.items() if name not in names}
    cells = sorted({cell for name in names for cell in entries[name]["cells"]}, key=_thp_first)
    dates = sorted({entry["date"] for entry in entries.values()})
    good = sum(entries[name]["passed"] for name in names)
    text = ["# Mutants", "",
            f"Of {data['kernel']}, on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. Written by `tools/mutants --report`; "
            "[README](../README.md) says what they are.", "",
            "## Written by hand", "",
            f"{good} of {len(names)} were killed by the cases that have to kill them, in every cell in which they were tried.", "",
            f"| mutant | must be killed by | {' | '.join(cells)} |", "|---|---|" + "---|" * len(cells)]  # fmt: skip
    for mutant in written:
        row = [entries[mutant.name]["cells"].get(cell, {}).get("kind", "") for cell in cells]
        by = "<br>".join(f"`{case}`" for case in mutant.killed_by)
        text.append(f"| **{mutant.name}**: {mutant.mistake} | {by} | {' | '.join(row)} |")
    text += ["", "## Generated", ""] + _generated(generated, equivalents)
    return "\n".join(text) + "\n"


def _generated(entries: Mapping[str, Any], equivalents: Mapping[str, str]) -> list[str]:
    count = Counter("passed" if entry["passed"] else "broken" if entry["broken"] else "left" for entry in entries.values())
    text = ["Each line of C that the series adds, with one small thing changed. The first cell and boot that kills one ends it.", "",
            f"{count['passed']} killed by a test, {count['broken']} do not build, {count['left']} survived, {len(equivalents)} "
            "cannot be told from the original.", ""]  # fmt: skip
    if count["left"]:
        text += ["Survivors:", ""] + [f"- {_code(entry['mistake'])}" for entry in entries.values()
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

# SPDX-License-Identifier: GPL-2.0
"""The outcomes of the mutants: mutants.json, which grows from run to run, and mutants.md, which is generated from it."""

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
from matrix.proof.mutants import ANYTHING, BROKEN, KILLED, SURVIVED, Mutant, Outcome

Outcomes = Mapping[str, Mapping[str, Outcome]]  # mutant -> cell -> outcome
Document = dict[str, Any]


def passed(mutant: Mutant, kinds: Set[str]) -> bool:
    """Killed in every cell that tried it; a mutant that any test may kill: in one of them."""
    return KILLED in kinds if mutant.killed_by == ANYTHING else kinds == {KILLED}


def add(path: Path, prepared: tree.PreparedTree, mutants: Sequence[Mutant], outcomes: Outcomes) -> Document:
    """Add these outcomes to mutants.json, which starts anew when series or suites have changed. Returns all of it."""
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
            # The compiler found what does not build; that is counted apart.
            entry |= {"mistake": mutant.mistake, "killed_by": mutant.killed_by, "passed": passed(mutant, kinds),
                      "broken": kinds == {BROKEN}, "date": str(datetime.date.today())}  # fmt: skip
    report.write_json(path, data)
    return data


def markdown(data: Document, equivalents: Mapping[str, str]) -> str:
    """mutants.md: a row per mutant that was run, survivors first, then the generated ones that no test can tell from the original."""
    entries = dict(sorted(data["mutants"].items(), key=lambda item: (item[1]["passed"], item[0])))
    count = Counter("killed" if entry["passed"] else BROKEN if entry["broken"] else SURVIVED for entry in entries.values())
    text = [f"{len(entries)} mutants of {data['kernel']}: {', '.join(f'{number} {kind}' for kind, number in count.items())}; "
            f"{len(equivalents)} more are equivalent to the original.", "", "| mutant | mistake | outcome |", "|---|---|---|"]  # fmt: skip
    for name, entry in entries.items():
        outcomes = [f"{cell}: {one['kind']} {', '.join(one['killers'][:3])}".rstrip() for cell, one in entry["cells"].items()]
        text.append(f"| {name} | {_code(entry['mistake'])} | {'<br>'.join(outcomes)} |")
    text += ["", "| equivalent | why no test can tell |", "|---|---|"]
    return "\n".join([*text, *(f"| {_code(key)} | {reason} |" for key, reason in equivalents.items())]) + "\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")

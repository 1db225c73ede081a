# SPDX-License-Identifier: GPL-2.0
"""Report the outcomes of mutants: mutants.json, to which each run adds, and mutants.md, generated from it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from matrix.tree import tree
from matrix.verdict import report
from matrix.proof.mutants import ANYTHING, BROKEN, KILLED, SURVIVED, Mutant, Outcome

Outcomes = Mapping[str, Mapping[str, Outcome]]  # mutant -> cell -> outcome
Document = dict[str, Any]


def killed(killed_by: tuple[str, ...], kinds: Set[str]) -> bool:
    """Whether a mutant was killed in every cell that ran it, or, if any test may kill it, in one of them."""
    return KILLED in kinds if killed_by == ANYTHING else kinds == {KILLED}


def add(path: Path, prepared: tree.PreparedTree, mutants: Sequence[Mutant], outcomes: Outcomes) -> Document:
    """Add outcomes to mutants.json, discarding those of another series, other suites or an older patch. Return its new content.

    A file that is truncated, or of another version, counts for nothing: it must not cost the outcomes of hours.
    """
    kernel = f"Linux {prepared.version} ({prepared.origin})"
    data: Document = {"kernel": kernel, "series": prepared.series, "mutants": {}}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        old = json.loads(path.read_text("utf-8"))
        markdown(old, {})
        data = old if (old["kernel"], old["series"]) == (kernel, prepared.series) else data
    for mutant in mutants:
        if found := outcomes.get(mutant.name):
            patch = hashlib.sha256(mutant.path.read_bytes()).hexdigest()
            entry = data["mutants"].get(mutant.name, {})
            if entry.get("patch") != patch:
                entry = data["mutants"][mutant.name] = {"patch": patch, "cells": {}}
            entry["cells"] |= {cell: dataclasses.asdict(outcome) for cell, outcome in found.items()}
            kinds = {outcome["kind"] for outcome in entry["cells"].values()}
            # A mutant that does not build was found by the compiler; it is counted separately.
            entry |= {"mistake": mutant.mistake, "killed_by": mutant.killed_by, "passed": killed(mutant.killed_by, kinds),
                      "broken": kinds == {BROKEN}, "date": str(datetime.date.today())}  # fmt: skip
    report.write_json(path, data)
    return data


def markdown(data: Document, equivalents: Mapping[str, str]) -> str:
    """Format mutants.md: a row per mutant that was run, survivors first, then the list of equivalent mutants."""
    entries = dict(sorted(data["mutants"].items(), key=lambda item: (item[1]["passed"], item[0])))
    count = Counter("killed" if entry["passed"] else BROKEN if entry["broken"] else SURVIVED for entry in entries.values())
    text = [f"{len(entries)} mutants of {data['kernel']}: {', '.join(f'{number} {kind}' for kind, number in count.items())}; "
            f"{len(equivalents)} more are equivalent to the original.", "", "| mutant | mistake | outcome |", "|---|---|---|"]  # fmt: skip
    for name, entry in entries.items():
        outcomes = [f"{cell}: {_kind(one)} {', '.join(one['killers'][:3])}".rstrip() for cell, one in entry["cells"].items()]
        text.append(f"| {name} | {_code(entry['mistake'])} | {'<br>'.join(outcomes)} |")
    text += ["", "| equivalent | why no test can tell |", "|---|---|"]
    return "\n".join([*text, *(f"| {_code(key)} | {reason} |" for key, reason in equivalents.items())]) + "\n"


def _kind(outcome: Mapping[str, Any]) -> str:
    return f"{outcome['kind']} ({outcome['kills']}/{outcome['seeds']})" if outcome.get("seeds") else str(outcome["kind"])


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")

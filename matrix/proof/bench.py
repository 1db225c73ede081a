# SPDX-License-Identifier: GPL-2.0
"""make bench: read the figures of bench/bench.c from the consoles of a cell, and compare them as bench/bench.toml says.

bench/known.json has the ratios that were measured last, so that a change for the worse is noticed: {cell: {ratio: value}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.cell import bench
from matrix.common import data
from matrix.common.errors import WrongUse
from matrix.verdict import report

KNOWN = "bench/known.json"
KEYS = {"what": str, "figures": list, "to": str, "target": float, "less": str, "per_mib": bool}
LINE = re.compile(r"# ([\w-]+/[\w-]+/\d+M): (\d+)\s*$")  # printed by bench.c
BASE = "7.3"  # as the value of "to": the kernel without the series
WORSE = 1.02  # times the known ratio
MET, MISSED, UNKNOWN, REGRESSED = "met", "missed", "not measured before", "worse than before"

Figures = Mapping[str, int]  # "operation/memory/size" -> instructions


@dataclass(frozen=True)
class Ratio:
    """A comparison in bench.toml."""

    what: str
    figure: str
    to: str  # another figure, or the same one without the series
    base: bool  # to is a figure of the kernel without the series
    target: float
    less: str  # a figure that is subtracted from both; "" for none
    per_mib: bool

    @property
    def name(self) -> str:
        """Its name in known.json."""
        return f"{self.figure} : {BASE if self.base else self.to}" + (f" - {self.less}" if self.less else "")


@dataclass(frozen=True)
class Row:
    """A ratio, its value and what to think of it."""

    ratio: Ratio
    value: float
    known: float | None

    @property
    def regressed(self) -> bool:
        """Whether it is more than 2 % above the known ratio."""
        return self.known is not None and self.value > self.known * WORSE

    @property
    def verdict(self) -> str:
        """A word for the table."""
        said = MET if self.value <= self.ratio.target else MISSED
        if self.regressed:
            return f"{said}, {REGRESSED}: {self.known:.6g}"
        return said if self.known is not None else f"{said}, {UNKNOWN}"


def load(root: Path) -> list[Ratio]:
    """Return the comparisons, in file order. Raise WrongUse on a malformed file."""
    path = root / bench.FILE
    found = []
    for entry in data.tables(path, data.read(path), "ratio"):
        where = f"{path}: ratio {entry.get('what', '?')}"
        data.check_keys(where, entry, KEYS, ("what", "figures", "to", "target"))
        for figure in entry["figures"]:
            if figure.count("/") != 2:
                raise WrongUse(f"{where}: a figure is operation/memory/size, as in touch/gmem-huge/64M")
            to = entry["to"]
            found.append(Ratio(entry["what"], figure, _other(figure, to), to == BASE, entry["target"], entry.get("less", ""),
                               entry.get("per_mib", False)))  # fmt: skip
    return found


def _other(figure: str, to: str) -> str:
    operation, memory, size = figure.split("/")
    if to == BASE:
        return figure
    if "/" in to:
        return to
    return f"{operation}/{memory}/{to}" if re.fullmatch(r"\d+M", to) else f"{operation}/{to}/{size}"


def figures(console: Path) -> dict[str, int]:
    """Return the figures in a console. Raise WrongUse when it is missing or has none."""
    if not console.is_file():
        raise WrongUse(f"{console} is missing: make bench boots the cell with and without the series first")
    matches = (LINE.search(line) for line in console.read_text("utf-8", "replace").splitlines())
    found = {match[1]: int(match[2]) for match in matches if match}
    if not found:
        raise WrongUse(f"{console} has no figures")
    return found


def compare(ratios: Sequence[Ratio], ours: Figures, base: Figures, before: Mapping[str, float]) -> list[Row]:
    """Return a row for each ratio. Raise WrongUse when a figure was not measured."""
    return [Row(ratio, _value(ratio, ours, base), before.get(ratio.name)) for ratio in ratios]


def _value(ratio: Ratio, ours: Figures, base: Figures) -> float:
    def figure(name: str, those: Figures) -> float:
        for wanted in (name, ratio.less):
            if wanted and wanted not in those:
                raise WrongUse(f"{bench.FILE}: {wanted} was not measured{data.near(wanted, those)}")
        count = float(those[name] - (those[ratio.less] if ratio.less else 0))
        return count / int(name.rpartition("/")[2][:-1]) if ratio.per_mib else count

    if not (divisor := figure(ratio.to, base if ratio.base else ours)):
        raise WrongUse(f"{bench.FILE}: {ratio.to} counted nothing, so nothing can be compared with it")
    return figure(ratio.figure, ours) / divisor


def known(root: Path) -> dict[str, dict[str, float]]:
    """Return known.json; empty when it is missing. Raise WrongUse when it is malformed."""
    path = root / KNOWN
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(cell): {str(name): float(value) for name, value in ratios.items()} for cell, ratios in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as err:
        raise WrongUse(f"{path}: {err}; remove it, and make bench UPDATE=yes writes it anew") from None


def update(root: Path, cell: str, rows: Sequence[Row]) -> None:
    """Write the ratios of a cell to known.json."""
    found = known(root)
    found[cell] = {row.ratio.name: round(row.value, 6) for row in rows}
    report.write_json(root / KNOWN, dict(sorted(found.items())))


def document(rows: Sequence[Row], ours: Figures, base: Figures) -> dict[str, Any]:
    """Return what bench.json has for a cell."""
    return {"instructions": dict(ours), "without_series": dict(base),
            "ratios": [{"what": row.ratio.what, "name": row.ratio.name, "value": round(row.value, 6), "target": row.ratio.target,
                        "known": row.known, "verdict": row.verdict} for row in rows]}  # fmt: skip


def markdown(cell: str, rows: Sequence[Row], ours: Figures, base: Figures) -> str:
    """Return the table of a cell."""
    text = [f"## {cell}: instructions", "", "| figure | compared with | instructions | | ratio | target | |",
            "|---|---|--:|--:|--:|--:|---|"]  # fmt: skip
    what = ""
    for row in rows:
        ratio = row.ratio
        if ratio.what != what:
            what = ratio.what
            text.append(f"| **{what}** | | | | | | |")
        other = base if ratio.base else ours
        text.append(f"| {ratio.figure} | {BASE if ratio.base else ratio.to} | {ours[ratio.figure]:,} | {other[ratio.to]:,} "
                    f"| {row.value:.4f} | {ratio.target:g} | {row.verdict} |")  # fmt: skip
    return "\n".join(text) + "\n"

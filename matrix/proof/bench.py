# SPDX-License-Identifier: GPL-2.0
"""make bench: read the figures of bench/bench.c from the consoles of a cell, and compare them as bench/bench.toml says.

bench/known.json has the ratios that were measured last, so that a change for the worse is noticed, and what they were measured with:
{cell: {"commit": …, "tools": …, "ratios": {ratio: value}}}. The table in bench/README.md is written from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.cell import bench, build
from matrix.cell.cells import Cell
from matrix.common import data, proc, project
from matrix.common.errors import WrongUse
from matrix.verdict import report

KNOWN = "bench/known.json"
README = "bench/README.md"
BEGIN = "<!-- written by tools/bench -->"
COMPILER = re.compile(r'^CONFIG_CC_VERSION_TEXT="(.*)"$', re.M)
COUNTED = ("kernel", "configs", "bench/bench.c", "bench/bench.toml", "matrix/cells.toml")  # a change of these changes the counts
KEYS = {"what": str, "figures": list, "to": str, "target": float, "less": str, "per_mib": bool}
LINE = re.compile(r"# ([\w-]+/[\w-]+/\d+M): (\d+)\s*$")  # printed by bench.c
BASE = "7.3"  # as the value of "to": the kernel without the series
WORSE = 1.02  # times the known ratio
MET, MISSED, UNKNOWN, REGRESSED, BETTER = "met", "missed", "not measured before", "worse than before", "better than before"

Figures = Mapping[str, int]  # "operation/memory/size" -> a count, of instructions if nothing else is said


@dataclass(frozen=True)
class Known:
    """What known.json has for a cell."""

    ratios: Mapping[str, float]
    commit: str  # that was measured
    tools: str  # compiler and QEMU


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
    def improved(self) -> bool:
        """Whether it is more than 2 % below the known ratio, which would hide it if it got worse again."""
        return self.known is not None and self.value * WORSE < self.known

    @property
    def verdict(self) -> str:
        """A word for the table."""
        said = MET if self.value <= self.ratio.target else MISSED
        if self.regressed or self.improved:
            return f"{said}, {REGRESSED if self.regressed else BETTER}: {self.known:.6g}"
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
    """Return a row for each ratio. Raise WrongUse when a figure was not measured, or is in no ratio."""
    used = {name for ratio in ratios for name in (ratio.figure, ratio.to, ratio.less)}
    if unused := sorted(set(ours) - used):
        raise WrongUse(f"{bench.FILE}: no ratio has {unused[0]}, so nobody would notice that it gets worse")
    return [Row(ratio, _value(ratio, ours, base), before.get(ratio.name)) for ratio in ratios]


def _value(ratio: Ratio, ours: Figures, base: Figures) -> float:
    def figure(name: str, those: Figures) -> float:
        for wanted in (name, ratio.less):
            if wanted and wanted not in those:
                raise WrongUse(f"{bench.FILE}: {wanted} was not measured{data.near(wanted, those)}")
        count = float(those[name] - (those[ratio.less] if ratio.less else 0))
        return count / int(name.rpartition("/")[2][:-1]) if ratio.per_mib else count

    if (divisor := figure(ratio.to, base if ratio.base else ours)) <= 0:
        less = f" more than {ratio.less}" if ratio.less else ""
        raise WrongUse(f"{bench.FILE}: {ratio.to} counted nothing{less}, so nothing can be compared with it")
    return figure(ratio.figure, ours) / divisor


def known(root: Path) -> dict[str, Known]:
    """Return known.json: cell -> what it has; empty when it is missing. Raise WrongUse when it is malformed."""
    path = root / KNOWN
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(cell): Known({str(name): float(value) for name, value in one["ratios"].items()}, str(one["commit"]), str(one["tools"]))
                for cell, one in found.items()}  # fmt: skip
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as err:
        raise WrongUse(f"{path}: {type(err).__name__} {err}; remove it, and make bench UPDATE=yes writes it anew") from None


def update(root: Path, cell: str, rows: Sequence[Row], commit: str, with_tools: str) -> None:
    """Write the ratios of a cell to known.json, and the table of README.md. Raise WrongUse when that has no marks for it."""
    found = known(root)
    found[cell] = Known({row.ratio.name: round(row.value, 6) for row in rows}, commit, with_tools)
    readme = root / README
    text = report.insert(data.text(readme), BEGIN, table(load(root), dict(sorted(found.items()))), README)
    report.write_json(root / KNOWN, {name: {"commit": one.commit, "tools": one.tools, "ratios": dict(one.ratios)}
                                     for name, one in sorted(found.items())})  # fmt: skip
    report.write(readme, text)


def tools(cell: Cell, config: Path) -> str:
    """Return the compiler that built the kernel with this .config, and the QEMU that this machine boots it with."""
    if not (match := COMPILER.search(data.text(config))):
        raise WrongUse(f"{config} does not say which compiler built the kernel; run make bench again")
    said = proc.run([cell.qemu, "--version"], env=build.environment(), limit=60).output.splitlines()
    return f"{match[1]}; {said[0] if said else cell.qemu}"


def commit_of(root: Path) -> str:
    """Return the commit that is measured. Raise WrongUse when what decides the counts is not committed."""
    if not (commit := project.commit(root)):
        raise WrongUse(f"UPDATE=yes notes the commit in {KNOWN}, but {root} is no git checkout")
    if changed := proc.run(["git", "-C", str(root), "status", "--porcelain", "--", *COUNTED], limit=60).output.split():
        raise WrongUse(f"UPDATE=yes notes the commit in {KNOWN}; commit {changed[1]} first")
    return commit


def table(ratios: Sequence[Ratio], found: Mapping[str, Known]) -> str:
    """Return the table of README.md: a row for each ratio, a column for each cell."""
    lines = [f"- `{cell}`: commit {one.commit}, {one.tools}" for cell, one in found.items()]
    lines += ["", f"| figure | compared with | {' | '.join(found)} | target |", f"|---|---|{'--:|' * (len(found) + 1)}"]
    what = ""
    for ratio in ratios:
        if ratio.what != what:
            what = ratio.what
            lines.append(f"| **{what}** | |{' |' * len(found)} {ratio.target:g} |")
        values = [one.ratios.get(ratio.name) for one in found.values()]
        cells = ["-" if value is None else f"{value:.4f}" if value <= ratio.target else f"**{value:.4f}**" for value in values]
        lines.append(f"| `{ratio.figure}` | {BASE if ratio.base else f'`{ratio.to}`'} | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def document(rows: Sequence[Row], ours: Figures, base: Figures) -> dict[str, Any]:
    """Return what bench.json has for a cell."""
    return {"counts": dict(ours), "without_series": dict(base),
            "ratios": [{"what": row.ratio.what, "name": row.ratio.name, "value": round(row.value, 6), "target": row.ratio.target,
                        "known": row.known, "verdict": row.verdict} for row in rows]}  # fmt: skip


def markdown(cell: str, rows: Sequence[Row], ours: Figures, base: Figures) -> str:
    """Return the table of a cell."""
    text = [f"## {cell}: counts", "", "| figure | compared with | count | | ratio | target | |",
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

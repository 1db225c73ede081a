# SPDX-License-Identifier: GPL-2.0
"""Measure with gcov which of the lines that the series adds are executed by the suites and the selftests.

A kernel with gcov prints its counters at the end of each boot (matrix/cell/init.c). gcovr reads them one cell at a time,
because the branches of a line depend on the configuration. A line is covered if any cell covers it; for its branches,
the cell that misses the fewest counts. The branches of assertions do not count, nor do those that uncovered.txt says are
impossible. Where the compiler has inlined a function more than once, the branches of all copies are those of one line.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matrix.cell import boot, build, selftests
from matrix.common import proc
from matrix.proof import mutate
from matrix.tree import tree
from matrix.verdict.report import Result
from matrix.cell.cells import Cell
from matrix.cell.run import E2E, Job, Site, run
from matrix.common.errors import MachineError

FILE = re.compile(rb"gcov: (/\S+\.gcda) (\d+)\s*$")
DATA = re.compile(rb"gcov\+ ([A-Za-z0-9+/=]+)\s*$")
GCOVR_SECONDS = 600.0
SLOWDOWN = 2  # of a kernel with gcov, rounded up
BRANCHES = 95.0  # percent of the branches that must be taken
ASSERTION = re.compile(r"\b(VM_)?(WARN|BUG)_ON(_[A-Z_]+)?\(")  # its branches lead to a splat
IMPOSSIBLE = re.compile(r"(\d+) impossible: ")  # begins a reason in uncovered.txt: so many branches that nothing could take
PLAIN = re.compile(r"\s*(?:\} else )?(?:if|while) \((?:(?:un)?likely\()?([^()]+)\)+(?: \{)?")  # a condition without calls


@dataclass
class Line:
    """A line that the series adds, and how it was executed."""

    file: str
    number: int  # from 1
    text: str
    count: int = 0
    branches: list[bool] = field(default_factory=list)  # whether each was taken, in the cell that misses the fewest

    @property
    def key(self) -> str:
        """Its name in matrix/mutants/uncovered.txt."""
        return mutate.key_of(self.file, self.text)

    @property
    def left(self) -> int:
        """The number of branches not taken."""
        return self.branches.count(False)


def counted(cell: Cell, root: Path) -> Cell:
    """Return the cell with gcov in its kernel, which makes it slower."""
    return replace(cell.slower(SLOWDOWN), name=f"{cell.name}-gcov", fragments=(*cell.fragments, root / "configs/gcov.config"))


def options(touched: Iterable[str]) -> tuple[str, ...]:
    """Return the make variables that enable gcov for these files.

    scripts/Makefile.lib reads GCOV_PROFILE_<object>, with the path relative to the folder whose Makefile lists the object:
    its own folder, one above, or one elsewhere, such as arch/x86/kvm for virt/kvm.
    """
    stems = [name.removesuffix(".c") for name in sorted(touched) if name.endswith(".c")]
    above = [stem.split("/", up)[-1] for stem in stems for up in range(stem.count("/") + 1)]
    return tuple(f"GCOV_PROFILE_{name}.o=y" for name in [*above, *("../" * up + stem for stem in stems for up in range(1, 4))])


def measure(site: Site, cell: Cell, into: Path) -> list[Result]:
    """Boot the cell for the selftests and for the suites, and write gcovr's JSON for both to into.

    Remove the results of an earlier run. Write nothing when one of the results is red.
    """
    selftest, folder = Job(cell, E2E), site.build_dir(cell)
    for job in (selftest, Job(cell)):
        shutil.rmtree(site.results(job), ignore_errors=True)
    results = run(site, [selftest])
    if results[0]["verdict"] != "green":
        return results
    initrd = folder / "gcov.cpio"  # the same init, with an empty list of selftests
    selftests.pack(site.selftests_dir(cell), None, (), initrd)
    config = folder / "gcov.py"
    config.write_text(boot.initramfs_config(cell, initrd), "utf-8")
    suites = Job(replace(cell, qemu_config=config), initramfs=True)
    results += run(site, [suites])
    if results[1]["verdict"] == "green":
        parts = [_gcovr(site, job, into.with_name(f"{site.results(job).name}.json")) for job in (selftest, suites)]
        _call([*_gcovr_start(site), *(f"--add-tracefile={part}" for part in parts), "--json", str(into)], folder)
    return results


def _gcovr(site: Site, job: Job, into: Path) -> Path:
    """Run gcovr on the counters of one boot. Put them beside the objects for that time only."""
    console, folder = site.results(job) / "console.log", site.build_dir(job.cell)
    found = counters(console.read_bytes())
    if not found:
        raise MachineError(f"{console}: no counters; was the kernel built with gcov?")
    written = [Path(name) for name in found]
    try:
        for path, data in zip(written, found.values()):
            path.write_bytes(data)
        sources = [f"--filter={re.escape(str(site.tree.path / name))}$" for name in sorted(site.tree.touched)]
        _call([*_gcovr_start(site), *sources, f"--gcov-executable={job.cell.cross_compile}gcov", "--gcov-ignore-parse-errors",
               "--json", str(into), str(folder)], folder)  # fmt: skip
    finally:
        for path in written:
            path.unlink(missing_ok=True)
    return into


def _gcovr_start(site: Site) -> list[str]:
    return ["gcovr", f"--root={site.tree.path}"]


def _call(argv: Sequence[str], cwd: Path) -> None:
    done = proc.run(argv, cwd=cwd, env=build.environment(), limit=GCOVR_SECONDS)
    if done.returncode:
        raise MachineError(f"{argv[0]} ends with status {done.returncode}: {done.output.strip().splitlines()[-1:]}")


def counters(console: bytes) -> dict[str, bytes]:
    """Return path -> content of the .gcda files in a console. Raise MachineError when one is damaged or truncated."""
    found: dict[str, bytearray] = {}
    sizes: dict[str, int] = {}
    name = ""
    for line in console.splitlines():
        if match := FILE.search(line):
            name = match[1].decode()
            found[name], sizes[name] = bytearray(), int(match[2])
        elif name and (match := DATA.search(line)):
            try:
                found[name] += base64.b64decode(match[1], validate=True)
            except binascii.Error as err:
                raise MachineError(f"the counters of {name} are damaged: {err}") from err
    for name, data in found.items():
        if len(data) != sizes[name]:
            raise MachineError(f"the counters of {name} are truncated: {len(data)} of {sizes[name]} bytes")
    return {name: bytes(data) for name, data in found.items()}


def added(prepared: tree.PreparedTree, suites: str, documents: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return the added lines that have code, with their counts from gcovr's documents, one per cell."""
    found: dict[tuple[str, int], Line] = {}
    for name, lines, numbers in mutate.added(prepared, suites):
        wanted = {number + 1 for number in numbers}
        for document in documents:
            for entry in (entry for file in document["files"] if file["file"] == name for entry in file["lines"]):
                number = entry["line_number"]
                if number not in wanted or entry.get("gcovr/noncode"):
                    continue
                line = found.setdefault((name, number), Line(name, number, lines[number - 1]))
                line.count += entry["count"]
                taken = [branch["count"] > 0 for branch in entry["branches"]]
                if not taken or ASSERTION.search(line.text):
                    continue
                taken = folded(line.text, taken)
                if not line.branches or taken.count(False) < line.left:
                    line.branches = taken
    return [found[key] for key in sorted(found)]


def folded(text: str, taken: list[bool]) -> list[bool]:
    """Return the branches of a line of source, from those of all its inlined copies, which follow one another."""
    condition = PLAIN.fullmatch(text)
    if not condition:
        return taken  # calls can have branches of their own, so the copies cannot be told apart
    arms = 2 + 2 * len(re.findall(r"&&|\|\|", condition[1]))
    return [any(taken[arm::arms]) for arm in range(arms)] if len(taken) % arms == 0 else taken


def load(path: Path) -> dict[str, Any]:
    """Read a JSON file of gcovr."""
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def percent(part: int, whole: int) -> str:
    """Format a percentage with one decimal, rounded down, so that only all of it is 100."""
    return f"{(part * 1000 // whole) / 10:.1f} %" if whole else "-"


def impossible(line: Line, known: Mapping[str, str]) -> int:
    """Return how many of the branches not taken are impossible."""
    match = IMPOSSIBLE.match(known.get(line.key, ""))
    return min(line.left, int(match[1])) if match else 0


def explained(line: Line, known: Mapping[str, str]) -> bool:
    """Whether known has a reason for all of the line that was not executed."""
    found = known.get(line.key, "")
    return bool(found) and (not IMPOSSIBLE.match(found) or line.left == impossible(line, known))


def count(lines: Sequence[Line], known: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of branches, and of those not taken, without the impossible ones."""
    never = sum(impossible(line, known) for line in lines)
    return sum(len(line.branches) for line in lines) - never, sum(line.left for line in lines) - never


def as_json(lines: Sequence[Line], known: Mapping[str, str], prepared: tree.PreparedTree, measured: Sequence[str]) -> dict[str, Any]:
    """Return the content of coverage.json: the counts of each file, and what was not executed in the measured cells."""
    files: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(line.file for line in lines):
        own = [line for line in lines if line.file == name]
        branches, left = count(own, known)
        files[name] = {"lines": len(own), "covered": sum(line.count > 0 for line in own), "branches": branches, "taken": branches - left}
    ends = [{"where": f"{line.file}:{line.number}", "what": what(line), "text": line.text.strip(), "reason": reason(line, known)}
            for line in lines if not line.count or line.left]  # fmt: skip
    return {"kernel": f"Linux {prepared.version} ({prepared.origin})", "series": prepared.series, "cells": list(measured),
            "files": files, "open": ends}  # fmt: skip


def what(line: Line) -> str:
    """Return what of a line was not executed."""
    return f"{line.left} of {len(line.branches)} branches not taken" if line.count else "not executed"


def reason(line: Line, known: Mapping[str, str]) -> str:
    """Return the reason why not all of the line was executed, "" for none."""
    return known[line.key] if explained(line, known) else ""


def markdown(lines: Sequence[Line], known: Mapping[str, str]) -> str:
    """Format a table with a row per file, and list what was not executed, with its reason from known."""
    files = list(dict.fromkeys(line.file for line in lines))
    text = ["| file | added lines | covered | branches | taken |", "|---|---|---|---|---|"]
    for name in [*files, "all"]:
        own = [line for line in lines if name in (line.file, "all")]
        branches, left = count(own, known)
        covered = sum(line.count > 0 for line in own)
        text.append(f"| {name} | {len(own)} | {percent(covered, len(own))} | {branches} | {percent(branches - left, branches)} |")
    text.append("")
    for line in lines:
        if not line.count or line.left:
            why = reason(line, known) or "**no reason given**"
            text.append(f"- {line.file}:{line.number}: {what(line)}: `{line.text.strip()}`: {why}")
    return "\n".join(text).rstrip() + "\n"


def good(lines: Sequence[Line], known: Mapping[str, str]) -> bool:
    """Whether enough branches are taken, and the lines with something not executed are exactly those that known explains."""
    branches, left = count(lines, known)
    open_ends = [line for line in lines if not line.count or line.left]
    return (bool(lines) and left * 100 <= branches * (100 - BRANCHES) and {line.key for line in open_ends} == set(known)
            and all(explained(line, known) for line in open_ends))  # fmt: skip

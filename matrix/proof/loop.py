# SPDX-License-Identifier: GPL-2.0
"""make bench-loop: how long a change takes until it is judged, with ./matrix/run and with stock "kunit.py run", side by side.

<out>/loop/project  the project whose patches and suites are changed for ./matrix/run, built in build/ there
<out>/loop/tree     the kernel with series and suites that is changed for kunit.py, built in .kunit-<cell>/ there
"""

from __future__ import annotations

import difflib
import os
import resource
import shutil
import statistics
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.cell import boot, build
from matrix.cell.cells import Cell
from matrix.common import data, proc
from matrix.common.errors import MachineError, WrongUse
from matrix.common.session import Say
from matrix.tree.source import bases

FILE = "matrix/loop.toml"
KEYS = {"scenario": object, "cell": dict}
SCENARIO_KEYS = {"name": str, "change": str, "text": str, "fails": bool, "cold": bool, "target": float}
PARTS = ("kernel", "kunit", "configs", "matrix", "vmm", "bench", "project.toml")  # of a project
PATCH = "9999-loop.patch"
HEADER = "From: Loop <loop@example.org>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nSubject: [PATCH] loop\n\n---\n"  # git am needs it
LIMIT = 7200.0  # seconds for one run of all cells


@dataclass(frozen=True)
class Scenario:
    """What happens before a run: a text is added to a file, or everything built is removed."""

    name: str
    target: float  # our time divided by that of kunit.py
    change: str = ""  # a file of the kernel tree with the suites; "" for none
    text: str = ""  # is added at its end; {} is a number that no other run has
    fails: bool = False  # it does not compile; the repair is a run as well
    cold: bool = False  # nothing has been built


@dataclass
class Side:
    """One of the two programs."""

    name: str
    run: Callable[[], bool]  # all cells; returns whether all of them are green
    write: Callable[[str, str], None]  # path in the tree, text: what is at its end from now on, whatever other files have
    clean: Callable[[], None]  # removes all that was built
    seconds: dict[str, list[float]] = field(default_factory=dict)  # scenario -> one per round
    busy: dict[str, list[float]] = field(default_factory=dict)  # the same, in seconds of CPU time


def load(root: Path) -> tuple[list[Scenario], dict[str, list[str]]]:
    """Return the scenarios, and cell -> the options of kunit.py that a person would write. Raise WrongUse on a malformed file."""
    path = root / FILE
    found = data.read(path)
    data.check_keys(str(path), found, KEYS, tuple(KEYS))
    scenarios = []
    for entry in data.tables(path, found, "scenario"):
        data.check_keys(f"{path}: scenario {entry.get('name', '?')}", entry, SCENARIO_KEYS, ("name", "target"))
        scenarios.append(Scenario(**entry))
    data.check_keys(f"{path}: [cell]", found["cell"], dict.fromkeys(found["cell"], list), ())
    return scenarios, found["cell"]


def choose(scenarios: Sequence[Scenario], names: Sequence[str]) -> list[Scenario]:
    """Return the named scenarios, or all of them."""
    known = {one.name: one for one in scenarios}
    for name in names:
        if name not in known:
            raise WrongUse(f"unknown scenario {name!r}{data.near(name, known)}")
    return [known[name] for name in names or known]


def ours(root: Path, folder: Path, chosen: Sequence[Cell], jobs: int) -> Side:
    """Return ./matrix/run in a copy of the project."""
    project = folder / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    for part in PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (root / part).exists():
            shutil.copyfile(root / part, project / part)
    suites = tomllib.loads((project / "project.toml").read_text("utf-8"))["suites"]
    series = project / "kernel" / bases(project)[-1] / "series"  # which tree.prepare() has read
    patches = series.read_text("utf-8")
    texts: dict[str, str] = {}

    def write(path: str, text: str) -> None:
        if path.startswith(f"{suites}/"):
            source = root / "kunit" / path.removeprefix(f"{suites}/")
            (project / "kunit" / source.name).write_text(source.read_text("utf-8") + text, "utf-8")
            return
        texts[path] = text
        diff: list[str] = []
        for changed, end in texts.items():
            before = (folder / "tree" / changed).read_text("utf-8").partition("\n/* loop")[0]
            diff += difflib.unified_diff(before.splitlines(True), (before + end).splitlines(True), f"a/{changed}", f"b/{changed}")
        (series.parent / PATCH).write_text(HEADER + "".join(diff), "utf-8")
        series.write_text(patches + (f"{PATCH}\n" if diff else ""), "utf-8")

    def run() -> bool:
        argv = [str(Path(__file__).parents[1] / "run"), "--project", str(project), f"--jobs={jobs}", *(cell.name for cell in chosen)]
        return not _timed(argv, folder / "ours.log").returncode

    return Side("matrix/run", run, write, lambda: shutil.rmtree(project / "build", ignore_errors=True))


def stock(folder: Path, chosen: Sequence[Cell], words: dict[str, list[str]], jobs: int) -> Side:
    """Return kunit.py run in folder/tree, one cell after the other."""
    tree = folder / "tree"
    for cell in chosen:
        if cell.name not in words:
            raise WrongUse(f"{FILE}: [cell] has no {cell.name}: the options with which kunit.py would run it")

    def write(path: str, text: str) -> None:
        before = (tree / path).read_text("utf-8").partition("\n/* loop")[0]
        (tree / path).write_text(before + text, "utf-8")

    def run() -> bool:
        status = 0
        for cell in chosen:
            argv = [*build.kunit(tree, "run"), f"--build_dir={tree / f'.kunit-{cell.name}'}", f"--jobs={jobs}", f"--arch={cell.arch}",
                    *([f"--cross_compile={cell.cross_compile}"] if cell.cross_compile else []), *words[cell.name]]  # fmt: skip
            status |= _timed(argv, folder / "stock.log").returncode
        return not status

    def clean() -> None:
        for made in tree.glob(".kunit-*"):
            shutil.rmtree(made)

    return Side("kunit.py run", run, write, clean)


def _timed(argv: list[str], log: Path) -> proc.Completed:
    done = proc.run(argv, log=log, env=build.environment() | {"PATH": boot.shim_path()}, limit=LIMIT)
    if done.timed_out:
        raise MachineError(f"{argv[0]} takes longer than {LIMIT:.0f} s; see {log}")
    if done.returncode not in (0, 1):  # neither green nor red
        raise MachineError(f"{argv[0]} could not run; see {log}")
    return done


def measure(sides: Sequence[Side], scenarios: Sequence[Scenario], rounds: int, say: Say, save: Callable[[], None]) -> None:
    """Run the scenarios, the sides in turn; save() is called after each round. Raise MachineError when a run does not end as it must.

    A change stays until the same file changes again: to take it back would be part of what the next run has to build.
    """
    number = 0
    for at in range(rounds):
        for scenario in scenarios:
            for side in sides if at % 2 else reversed(sides):
                number += 1
                if scenario.cold:
                    side.clean()
                if scenario.change:
                    side.write(scenario.change, "\n" + scenario.text.format(number) + "\n")
                begin, begin_busy = time.monotonic(), _cpu_seconds()
                green = side.run()
                if scenario.fails and not green:
                    side.write(scenario.change, "")
                    green = side.run()
                elif scenario.fails:
                    raise MachineError(f"{side.name}: {scenario.name}: a change that cannot be compiled was not noticed")
                seconds = time.monotonic() - begin
                if not green:
                    raise MachineError(f"{side.name} is not green after {scenario.name}; see its log in the build folder")
                side.seconds.setdefault(scenario.name, []).append(round(seconds, 1))
                side.busy.setdefault(scenario.name, []).append(round(_cpu_seconds() - begin_busy, 1))
                say(f"{scenario.name}: {side.name}: {seconds:.1f} s")
        save()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def document(sides: Sequence[Side], scenarios: Sequence[Scenario], chosen: Sequence[Cell], commit: str) -> dict[str, Any]:
    """Return what loop.json has: seconds and CPU seconds per round, and the ratio of the medians of the former."""
    return {"commit": commit, "cells": [cell.name for cell in chosen], "cpus": _cpus(),
            "changes": {one.name: {"seconds": {side.name: side.seconds[one.name] for side in sides},
                                   "cpu_seconds": {side.name: side.busy[one.name] for side in sides},
                                   "ratio": round(_ratio(sides, one), 3), "target": one.target} for one in scenarios}}  # fmt: skip


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _ratio(sides: Sequence[Side], scenario: Scenario) -> float:
    first, second = (statistics.median(side.seconds[scenario.name]) for side in sides)
    return first / second


def markdown(sides: Sequence[Side], scenarios: Sequence[Scenario], chosen: Sequence[Cell]) -> str:
    """Return the table; times are medians. Its last column is what compilers, other tools and QEMU would take if no CPU was ever idle."""
    one, two = sides
    rounds = len(one.seconds[scenarios[0].name])
    text = [f"{one.name} and {two.name}, {', '.join(cell.name for cell in chosen)}, median of {rounds}:", "",
            f"| change | {one.name} s | {two.name} s | ratio | target | | {one.name}: CPU s / {_cpus()} CPUs |",
            "|---|--:|--:|--:|--:|---|--:|"]  # fmt: skip
    for scenario in scenarios:
        first, second = (statistics.median(side.seconds[scenario.name]) for side in sides)
        ratio = _ratio(sides, scenario)
        met = "met" if ratio <= scenario.target else "missed"
        busy = statistics.median(one.busy[scenario.name]) / _cpus()
        text.append(f"| {scenario.name} | {first:.1f} | {second:.1f} | {ratio:.2f} | {scenario.target:g} | {met} | {busy:.1f} |")
    return "\n".join(text) + "\n"

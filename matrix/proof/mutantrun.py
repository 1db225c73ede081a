# SPDX-License-Identifier: GPL-2.0
"""Build and boot mutants one by one, each in its cells, patching the tree and reverting the patch each time."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cell import build, cells, run as cellrun
from matrix.common import proc, project
from matrix.tree import tree
from matrix.cell.cells import Cell
from matrix.cell.run import E2E, KUNIT, Job, Site, Steps
from matrix.common.session import Say, side_by_side
from matrix.proof.mutants import BROKEN, KILLED, Mutant, Outcome, cases_of, judge, killing, missed, of_seeds
from matrix.verdict.console import Console
from matrix.verdict.evidence import Evidence
from matrix.verdict.judge import matches

# A mutant may hang. Limits as parts of a cell's boot_seconds: for the whole boot, and for a KUnit console without output.
BOOT_PART, QUIET_PART = 1 / 5, 1 / 30
SEED_SLOWDOWN = 3  # of a QEMU that counts instructions, rounded up


@dataclass
class Run:
    """A run of mutants. The caller holds the lock of out."""

    root: Path
    out: Path
    prepared: tree.PreparedTree
    jobs: int
    say: Say
    env: Mapping[str, str]  # of the builds
    seeds: int = 0  # boot each mutant with so many seeds, from 1 on; 0: once, without a seed
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    configured: set[Path] = field(default_factory=set)  # build directories

    def all(self, work: Sequence[tuple[Mutant, Sequence[Cell]]], kind: str) -> None:
        """Build each mutant in its cells, side by side, and boot it for kind. Build the next one while it boots."""
        at_once = min(self.jobs, max((len(places) for _, places in work), default=1))
        with side_by_side(1) as booter, side_by_side(at_once) as builders:
            booting: dict[str, Future[None]] = {}
            for mutant, places in work:
                with tree.patched(self.prepared, [mutant.path]) as prepared:
                    building = [builders.submit(self._build, mutant, cell, prepared, kind) for cell in places]
                    for cell, future in zip(places, building):
                        built = future.result()
                        if cell.name in booting:
                            booting[cell.name].result()
                        if kind == KUNIT:
                            image = copy_image(built.site.build_dir(cell), self.out / "mutants/boot" / cell.name)
                            built = dataclasses.replace(built, job=dataclasses.replace(built.job, image=image))
                        booting[cell.name] = booter.submit(self._boot_all if self.seeds else self._boot_once, built)
                    if kind == E2E:  # the selftests are built from this tree
                        for cell in places:
                            booting[cell.name].result()
            for last in booting.values():
                last.result()

    def _build(self, mutant: Mutant, cell: Cell, prepared: tree.PreparedTree, kind: str) -> Built:
        cell = cell.slower(SEED_SLOWDOWN) if self.seeds else cell
        patience = cell.boot_seconds * QUIET_PART / proc.POLL if kind == KUNIT else math.inf
        cell = dataclasses.replace(cell, boot_seconds=math.ceil(cell.boot_seconds * BOOT_PART))
        order = [case for case in cases_of(cellrun.expected_tests(self.root, cell, kind).tests) if matches(mutant.glob, case)]
        seen = Seen(mutant, order, patience)
        job = Job(cell, kind, mutant.glob, until=seen.enough)
        site = Site(self.root, self.out / "mutants" / mutant.name, prepared, lambda text: None, lambda: self.jobs, self.env)
        results, folder, steps = site.results(job), site.build_dir(cell), Steps()
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        evidence = cellrun.kernel(site, cell, results, steps, configured=folder in self.configured)
        if not evidence.config_status:
            self.configured.add(folder)
        return Built(site, job, evidence, steps, seen)

    def _boot_once(self, built: Built) -> None:
        self._note(built, built.job.cell.name, boot(built))

    def _boot_all(self, built: Built) -> None:
        """Boot with each seed, keeping the logs of all; a mutant that does not build has nothing to boot."""
        parameter, cell = project.load(self.root).seed, built.job.cell
        found: dict[int, Outcome] = {}
        while not found or (len(found) < self.seeds and BROKEN not in {one.kind for one in found.values()}):
            seed = len(found) + 1
            found[seed] = boot(built.with_seed(parameter, seed))
            if found[seed].kind != KILLED:
                self.say(f"{built.seen.mutant.name}: {cell.name}: seed {seed}: {found[seed].kind}")
        self._note(built, f"{cell.name}, {self.seeds} seeds", of_seeds(found))

    def _note(self, built: Built, place: str, outcome: Outcome) -> None:
        name = built.seen.mutant.name
        self.outcomes.setdefault(name, {})[place] = outcome
        self.say(f"{name}: {place}: {outcome.kind}{': ' if outcome.why else ''}{outcome.why}")


def boot(built: Built) -> Outcome:
    """Boot a mutant and judge it."""
    result = cellrun.finish(built.site, built.job, built.evidence, built.steps)
    seen = built.seen
    outcome = judge(seen.mutant, result, built.site.results(built.job) / "console.log", seen.order, seen.stopped)
    return dataclasses.replace(outcome, seconds=round(sum(built.steps.seconds.values()), 1))


def copy_image(build_dir: Path, folder: Path) -> Path:
    """Copy the files that a boot needs from a build directory to folder, replacing it. Return folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (".config", *build.IMAGES):
        if (build_dir / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(build_dir / name, folder / name)
    return folder


@dataclass
class Seen:
    """Watch a console while it grows."""

    mutant: Mutant
    order: Sequence[str]  # as for killing()
    patience: float = math.inf  # in calls of enough(), not seconds: if the machine stalls, so do the calls
    size: int = 0
    quiet: int = 0
    stopped: bool = False

    def enough(self, console: Path) -> bool:
        """Whether the mutant has been killed, or hangs, so that the boot can end."""
        size = console.stat().st_size if console.exists() else 0
        self.quiet = self.quiet + 1 if size == self.size else 0
        if not self.quiet:
            self.size = size
            with open(console, "rb") as stream:
                self.stopped = not missed(self.mutant, killing(Console(stream), self.order, stopped=True))
        return self.stopped or self.quiet > self.patience


@dataclass(frozen=True)
class Built:
    """A built mutant, and what its boot needs."""

    site: Site
    job: Job
    evidence: Evidence
    steps: Steps
    seen: Seen

    def with_seed(self, parameter: str, seed: int) -> Built:
        """Return the same kernel for a boot with a seed, whose results are in a folder of their own."""
        site = dataclasses.replace(self.site, out=self.site.out / f"seed-{seed}")
        seen = dataclasses.replace(self.seen, size=0, quiet=0, stopped=False)
        job = dataclasses.replace(self.job, cell=cells.seeded(self.job.cell, parameter, seed), until=seen.enough)
        results = site.results(job)
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        for path in (self.site.results(self.job) / name for name in ("build.log", ".config")):
            if path.exists():
                shutil.copyfile(path, results / path.name)
        return dataclasses.replace(self, site=site, job=job, seen=seen, steps=self.steps if seed == 1 else Steps())

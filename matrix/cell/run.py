# SPDX-License-Identifier: GPL-2.0
"""Run one cell: build its kernel once, boot it for KUnit, for the selftests, or for both, and write result.json."""

import difflib
import functools
import hashlib
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matrix.cell import bench, boot, build, selftests, vmm
from matrix.cell.cells import Cell, asked, options
from matrix.common import proc, progress, project
from matrix.common.errors import WrongUse
from matrix.common.session import Say
from matrix.tree.tree import PreparedTree
from matrix.verdict import expected, ktap, report
from matrix.verdict.evidence import Evidence
from matrix.verdict.expected import Expected
from matrix.verdict.judge import Verdict, judge, matches
from matrix.verdict.report import Result
from matrix.verdict.warnings import warned

# With one of these reasons the console does not show which tests exist.
BLIND = frozenset({"check", "config", "build", "boot", "hang", "exec", "kernel", "ktap", "end"})
KUNIT, E2E = "kunit", "e2e"  # kinds of boots
LIST = "matrix/expected.txt"
SELFTESTS_SECONDS = 600.0  # to build them
BOOT_SECONDS = 60  # to boot, on top of the selftests' time limits

_updating = threading.Lock()


def result_name(cell: Cell, kind: str, base: bool = False) -> str:
    """Return the name of a result and its folder: "arm64-thp", "arm64-thp-e2e" or "arm64-thp-e2e-base"."""
    return cell.name + ("" if kind == KUNIT else f"-{kind}") + ("-base" if base else "")


def expected_tests(root: Path, cell: Cell, kind: str) -> Expected:
    """Return the expected tests of a boot."""
    return expected.load(root / LIST).of(cell.expected, _suites(root, cell, kind))


def _suites(root: Path, cell: Cell, kind: str) -> expected.Suites:
    """Return which suites run in a boot of this kind."""
    known = project.load(root)
    kit = known.vmm if cell.vmm else known.bench if cell.bench else known.selftests
    others = [one.suite for one in (known.vmm, known.bench, known.selftests) if one]
    return lambda suite: bool(kit and suite == kit.suite) if kind == E2E else suite not in others


@dataclass(frozen=True)
class Site:
    """Where the cells of one prepared tree are built, and where their results go."""

    root: Path
    out: Path
    tree: PreparedTree
    say: Say
    jobs: Callable[[], int]  # called when a build begins
    env: Mapping[str, str] = field(default_factory=build.environment)  # of the builds
    inputs: str = ""  # digest of the checkout, for result.json
    base: bool = False  # the tree is the pristine source: any test may run and skip
    make_options: tuple[str, ...] = ()  # for kunit.py build
    build: bool = True  # False: boot the kernel that an earlier run has built
    ksrc: Path | None = None  # the kernel tree or the base that the user has named

    @property
    def made(self) -> Path:
        """The folder for everything that is built from this tree."""
        own = "on-base" if self.base else f"on-part-{self.tree.part}" if self.tree.part else ""
        return self.tree.path.parent / own

    @functools.cached_property
    def kit(self) -> project.Selftests:
        """The selftests of the project."""
        return project.load(self.root).need_selftests()

    @functools.cached_property
    def vmm(self) -> project.Programs:
        """How vmm/ runs."""
        return project.load(self.root).need_vmm()

    @functools.cached_property
    def bench(self) -> project.Programs:
        """How bench/ runs."""
        return project.load(self.root).need_bench()

    def build_dir(self, cell: Cell) -> Path:
        """Return kbuild's output directory, which is kept between runs."""
        return self.made / "cells" / cell.name

    def selftests_dir(self, cell: Cell) -> Path:
        """Return the folder in which the selftests of an architecture are built."""
        return self.made / "selftests" / cell.arch

    def results(self, job: "Job") -> Path:
        """Return the result folder of a job."""
        return self.out / "results" / result_name(job.cell, job.kind, self.base)


@dataclass(frozen=True)
class Job:
    """One boot of a cell's kernel."""

    cell: Cell
    kind: str = KUNIT
    glob: str = ""  # kunit.py's filter_glob
    update: bool = False  # update the list of expected tests, and judge by the new list
    image: Path | None = None  # boot the kernel in this folder instead of the build directory
    until: Callable[[Path], bool] | None = None  # end the boot once this returns true for the console
    initramfs: bool = False  # the cell's qemu_config has an initramfs, which reboots when the suites have run


@dataclass
class Steps:
    """The duration of each step of a job, and the commands that repeat it."""

    seconds: dict[str, float] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    def copy(self) -> "Steps":
        """Return a copy, to which another job adds its own steps."""
        return Steps(dict(self.seconds), dict(self.commands))


def run(site: Site, jobs: Sequence[Job]) -> list[Result]:
    """Build the cell once, then boot and judge each job. Raise MatrixError on errors that are not the cell's."""
    folders = [site.results(job) for job in jobs]
    for folder in folders:
        folder.mkdir(parents=True)  # the caller has removed the old one
    steps = Steps()
    evidence = kernel(site, jobs[0].cell, folders[0], steps)
    for folder in folders[1:]:
        for name in ("build.log", ".config"):
            if (folders[0] / name).exists():
                shutil.copyfile(folders[0] / name, folder / name)
    return [finish(site, job, evidence, steps.copy()) for job in jobs]


def kernel(site: Site, cell: Cell, results: Path, steps: Steps, configured: bool = False) -> Evidence:
    """Configure and build; stop at the first step that fails. configured: skip the first step, and build with make alone."""
    if cell.part != site.tree.part and not site.base:
        raise WrongUse(f"cell {cell.name} has another part of the series; run it by itself, with ./matrix/run")
    evidence = Evidence(asked=asked(cell), got=None, expected=Expected(), touched=site.tree.touched, build_only=cell.build_only)
    log, tree, folder = results / "build.log", site.tree.path, site.build_dir(cell)
    kernel_id = identity(site, cell)
    if not site.build:
        log.write_text("not built\n")
        shutil.copyfile(folder / ".config", results / ".config")
        return replace(evidence, got=options((folder / ".config").read_text("utf-8")), build_log="not built\n", banner=build.banner(folder))
    build.begin(folder, site.tree.touched)
    build.note_built(folder, "")
    steps_left = [("configure", build.CONFIG_SECONDS), ("build", float(cell.build_seconds))][configured:]
    for step, limit in steps_left:
        if step == "configure":
            argv = build.config_command(tree, cell, folder)
        elif configured:
            argv = build.make_command(tree, cell, folder, site.jobs())
        else:
            argv = build.build_command(tree, cell, folder, site.jobs())
            argv += [f"--make_options={option}" for option in site.make_options]
        done = _step(site, steps, (results.name, step), folder, [argv], log, limit)
        if step == "configure":
            evidence = replace(evidence, config_status=done.returncode)
        else:
            evidence = replace(evidence, build_status=done.returncode)
        if done.timed_out:
            evidence = replace(evidence, timed_out=step, limit=limit)
        if not evidence.built:
            break
    evidence = replace(evidence, build_log=log.read_text("utf-8", "replace"))
    evidence = replace(evidence, banner=build.banner(folder))
    if evidence.built:
        build.note_built(folder, kernel_id)
    if (folder / ".config").exists():
        shutil.copyfile(folder / ".config", results / ".config")
        evidence = replace(evidence, got=options((folder / ".config").read_text("utf-8")))
    if done.whole and "Traceback (most" not in evidence.build_log:  # of kunit.py, which then has not printed make's output
        build.judged(folder, warned(evidence)[1])
    return evidence


def identity(site: Site, cell: Cell) -> str:
    """Return a digest of what a kernel is built from: source, series, options and make variables. A tree of the user's own may change."""
    words = [site.tree.version, site.tree.origin, site.tree.series, *map(str, sorted(asked(cell).items())), *build.make_options(cell),
             *site.make_options]  # fmt: skip
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def need_built(site: Site, cell: Cell) -> None:
    """Raise WrongUse if the kernel is not to be built, and is not there."""
    if not site.build and not build.is_built(site.build_dir(cell), identity(site, cell)):
        raise WrongUse(f"cell {cell.name}: the build folder has no kernel with this configuration and series; omit --no-build")


def finish(site: Site, job: Job, evidence: Evidence, steps: Steps) -> Result:
    """Boot the kernel that kernel() built, judge it and write the result."""
    results = site.results(job)
    evidence = replace(evidence, expected=expected_tests(site.root, job.cell, job.kind), glob=job.glob)
    if _has_init(job) and evidence.built:
        evidence = _selftests(site, job, evidence, steps)
    if evidence.built and not job.cell.build_only:
        evidence = _boot(site, job, evidence, steps)
    if site.base:
        evidence = replace(evidence, settle=lambda ran: Expected(list(ran), [(name, "") for name in ran]))
    elif job.update:
        suites = _suites(site.root, job.cell, job.kind)
        evidence = replace(evidence, settle=lambda ran: _updated(site, job, ran).of(job.cell.expected, suites))
    verdict = rejudge(evidence, results / "console.log" if "boot" in steps.seconds else None)
    if job.update:
        _update(site, job, verdict)
    if job.kind == E2E and not site.base and not (job.cell.vmm or job.cell.bench):
        _compare(site, verdict, job.cell)
    return _write(site, job, evidence, verdict, steps)


def rejudge(evidence: Evidence, console: Path | None) -> Verdict:
    """Judge the evidence with this console."""
    if not console:
        return judge(evidence)
    with open(console, "rb") as stream:
        return judge(replace(evidence, console=stream))


def _step(site: Site, steps: Steps, names: tuple[str, str], folder: Path, commands: Sequence[list[str]], log: Path, limit: float
          ) -> proc.Completed:  # fmt: skip
    """Run the commands of one step in a build directory until one fails, each for at most limit seconds."""
    name, step = names
    steps.commands[step] = " && ".join(build.shell(argv) for argv in commands)
    with progress.step(name, step, folder) as running:
        for argv in commands:
            done = proc.run(argv, log=log, env=site.env, limit=limit, until=running.tick)
            if done.returncode or done.timed_out:
                break
        else:
            running.keep()
    _time(site, steps, name, step, running.seconds)
    return done


def _time(site: Site, steps: Steps, name: str, step: str, seconds: float) -> None:
    steps.seconds[step] = round(seconds, 1)
    site.say(f"{name}: {step} {seconds:.1f} s")


def _has_init(job: Job) -> bool:
    """Return whether the job needs an initramfs of its own."""
    return job.kind == E2E or bool(job.cell.modules)


def chosen(site: Site, job: Job) -> list[selftests.Selftest]:
    """Return the selftests of a boot, or the rungs of vmm/, or the groups of bench/."""
    if job.kind != E2E:
        return []
    if job.cell.vmm:
        suite, known = site.vmm.suite, vmm.load(site.root, job.cell)
    elif job.cell.bench:
        suite, known = site.bench.suite, bench.load(site.root, job.cell)
    else:
        suite, known = site.kit.suite, selftests.present(site.tree.path / site.kit.folder, selftests.load(site.root, job.cell))
    return [test for test in known if not job.glob or matches(job.glob, f"{suite}.{test.name}")]


def _selftests(site: Site, job: Job, evidence: Evidence, steps: Steps) -> Evidence:
    """Build the selftests, or the programs of vmm/ or bench/, and pack them into an initramfs."""
    results, folder = site.results(job), site.selftests_dir(job.cell)
    log = results / "build.log"
    before = log.stat().st_size
    with selftests.lock(folder):
        build.begin(folder, site.tree.touched, lambda *_: selftests.forget(folder))
        tests = chosen(site, job)
        if job.kind != E2E:
            commands = [selftests.init_command(job.cell, folder)]
        elif job.cell.vmm:
            machine = vmm.machine(site.root, job.cell)
            qemu = vmm.fetch(machine, site.say)
            commands = vmm.build_commands(site.tree.path, site.root, job.cell, folder, site.jobs())
        elif job.cell.bench:
            commands = bench.build_commands(site.tree.path, site.root, job.cell, folder, site.jobs())
        else:
            commands = selftests.build_commands(site.tree.path, job.cell, folder, site.kit, tests, site.jobs())
        done = _step(site, steps, (results.name, "selftests"), folder, commands, log, SELFTESTS_SECONDS)
        evidence = replace(evidence, selftests_status=done.returncode)
        if done.timed_out:
            evidence = replace(evidence, timed_out="build of the selftests", limit=SELFTESTS_SECONDS)
        with open(log, "rb") as file:
            file.seek(before)
            added = file.read().decode("utf-8", "replace")
        made = f"{site.kit.folder}/" if job.kind == E2E and not (job.cell.vmm or job.cell.bench) else ""
        names = {name.removeprefix(made) for name in site.tree.touched}  # as gcc names them
        only = replace(evidence, build_log=added, touched=site.tree.touched | names)
        if done.whole:
            build.judged(folder, warned(only)[1])
        archive = site.build_dir(job.cell) / f"{job.kind}.cpio"
        if evidence.built and job.kind == E2E and job.cell.vmm:
            vmm.pack(site.root, job.cell, folder, site.vmm, tests, site.build_dir(job.cell) / machine.kernel, qemu, archive)
        elif evidence.built and job.cell.bench:
            bench.pack(folder, site.bench, tests, archive)
        elif evidence.built:
            kit, suites = (site.kit, ()) if job.kind == E2E else (None, job.cell.suite_modules)
            loaded = selftests.modules(site.build_dir(job.cell), (*job.cell.modules, *suites))
            selftests.pack(folder, kit, tests, archive, loaded)
    return replace(only, build_log=log.read_text("utf-8", "replace"))


def _boot(site: Site, job: Job, evidence: Evidence, steps: Steps) -> Evidence:
    """Boot the kernel, and run kunit.py parse on its console."""
    results, folder, cell, glob = site.results(job), site.build_dir(job.cell), job.cell, job.glob
    console, junit = results / "console.log", results / "junit.xml"
    if _has_init(job):
        config = folder / f"{job.kind}.py"
        words = ("", "tcg") if job.kind != E2E else (boot.WITHOUT_KUNIT, boot.accelerator(cell))
        config.write_text(boot.initramfs_config(cell, folder / f"{job.kind}.cpio", *words), "utf-8")
        cell = replace(cell, qemu_config=config)
    if job.kind == E2E:
        limit = cell.limit or BOOT_SECONDS * cell.slowdown + sum(test.seconds for test in chosen(site, job))
        cell, glob = replace(cell, boot_seconds=limit), ""
    initramfs = job.initramfs or _has_init(job)
    evidence = replace(evidence, arguments=boot.kernel_arguments(cell, glob, job.kind != E2E, initramfs))
    argv = boot.exec_command(site.tree.path, cell, job.image or folder, glob)
    steps.commands["boot"] = build.shell(argv, {"PATH": f'{shlex.quote(str(boot.SHIM))}:"$PATH"'})
    enough = job.until or (lambda console: False)
    with progress.step(results.name, "boot", folder) as running:
        done = boot.boot(argv, console, cell.boot_seconds, lambda: running.tick() or enough(console) or boot.is_too_large(console))
        if not done.returncode:
            running.keep()
    _time(site, steps, results.name, "boot", done.seconds)
    evidence = replace(evidence, exec_status=done.returncode, limit=cell.boot_seconds, timed_out="boot" if done.timed_out else "")
    argv = boot.parse_command(site.tree.path, console, junit)
    steps.commands["parse"] = build.shell(argv)
    done = boot.parse(argv)
    status = done.returncode if junit.exists() and not done.timed_out else done.returncode or 1
    return replace(evidence, parse_status=status)


def _compare(site: Site, verdict: Verdict, cell: Cell) -> None:
    """Add to the reason of a failed selftest its result without the series, if a --base run has one."""
    base = report.cases(site.out / "results" / result_name(cell, E2E, base=True), site.kit.suite)
    for at, reason in enumerate(verdict.reasons):
        match = re.match(rf"{site.kit.suite}\.(\S+) failed", reason.text)
        if reason.code == "test" and match and match[1] in base:
            verdict.reasons[at] = replace(reason, text=f"{reason.text}{report.WITHOUT}{base[match[1]]})")


def _updated(site: Site, job: Job, ran: Mapping[str, ktap.Node]) -> expected.Listing:
    listing = expected.load(site.root / LIST)
    listing.update(ran, job.cell.expected, _suites(site.root, job.cell, job.kind))
    return listing


def _update(site: Site, job: Job, verdict: Verdict) -> None:
    """Update the list of expected tests and show the difference."""
    path, name = site.root / LIST, result_name(job.cell, job.kind)
    blind = [str(reason) for reason in verdict.reasons if reason.code in BLIND]
    blind += [f"suite {suite} did not run" for suite in verdict.tests if "." not in suite]
    if blind or not verdict.tests:
        site.say(f"{name}: {path.name} not updated: {(blind or ['no tests'])[0]}")
        return
    with _updating:
        before, after = expected.load(path).text, _updated(site, job, verdict.tests).text
        if before != after:
            report.write(path, after)
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{path.name}", f"b/{path.name}", lineterm=""))
    site.say("\n".join([f"{name}: {path.name} {'changed:' if diff else 'unchanged'}", *diff]))


def _write(site: Site, job: Job, evidence: Evidence, verdict: Verdict, steps: Steps) -> Result:
    folder, tree = site.results(job), site.tree
    counts, suites = report.tests(verdict)
    result = Result(
        cell=folder.name, arch=job.cell.arch, proves=job.cell.proves, verdict="green" if verdict.green else "red",
        reasons=report.reasons(verdict.reasons),
        kernel={"version": tree.version, "origin": tree.origin, "series": tree.series},
        filter=job.glob, repeat=_repeat(site, job), ksrc=str(site.ksrc or ""), tests=counts, skips=verdict.skipped, suites=suites,
        judged=report.judged(evidence), digests=report.digests(folder, site.root / LIST), inputs=site.inputs,
        figures=report.figures(folder / "console.log") if job.kind == E2E else [],
        seconds=steps.seconds, commands=steps.commands, files=str(folder),
    )  # fmt: skip
    report.write_json(folder / "result.json", result)
    site.say(f"{folder.name}: {result['verdict']}, {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return result


def _repeat(site: Site, job: Job) -> str:
    """Return the command line that repeats a boot with options of report.SPECIAL, "" if it has none of them."""
    cell = job.cell
    words = [] if cell.seed is None else ["--seed", str(cell.seed)]
    words += [word for argument in cell.arguments for word in ("--arg", argument)]
    words += ["--boot-seconds", str(cell.limit)] if cell.limit else []
    words += [] if site.build else ["--no-build"]
    if not words:
        return ""
    words += ["--ksrc", str(site.ksrc)] if site.ksrc else []
    words += ["--filter", job.glob] if job.glob else []
    words += [*(["--e2e"] if job.kind == E2E else []), *(["--base"] if site.base else []), cell.name]
    return f"./matrix/run {shlex.join(words)}"


def failed_check(out: Path, name: str, err: Exception) -> Result:
    """Write and return the result of a boot that ended in an internal error."""
    result = report.red(name, "check", f"check could not run: {type(err).__name__}: {err}")
    (out / "results" / name).mkdir(parents=True, exist_ok=True)
    report.write_json(out / "results" / name / "result.json", result)
    return result

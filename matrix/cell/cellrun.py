# SPDX-License-Identifier: GPL-2.0
"""One cell from its fragments to its result.json: built once, booted for KUnit's suites, for the KVM selftests, or both."""

import functools
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from matrix.cell import boot, build, selftests
from matrix.verdict import manifest, report
from matrix.cell.cells import Cell, asked, options
from matrix.verdict.manifest import Manifest
from matrix.tree.tree import PreparedTree
from matrix.verdict.judge import Evidence, Verdict, check_warnings, judge, matches

Say = Callable[[str], None]
# With one of these the console does not show which tests there are.
BLIND = frozenset({"check", "config", "build", "boot", "hang", "exec", "ktap", "end"})
KUNIT, E2E = "kunit", "e2e"  # what a boot is for
SELFTESTS_SECONDS = 600.0  # to build them
BOOT_SECONDS = 60  # for the boot around them


def result_name(cell: Cell, kind: str, base: bool = False) -> str:
    """The name of a result and of its folder: "arm64-thp", "arm64-thp-e2e" or "arm64-thp-e2e-base"."""
    return cell.name + ("" if kind == KUNIT else f"-{kind}") + ("-base" if base else "")


def manifest_path(cell: Cell, kind: str) -> Path:
    """The manifest of a cell's suites, or of its selftests."""
    return cell.manifest if kind == KUNIT else cell.manifest.with_name(f"{cell.manifest.stem}-{kind}.txt")


@dataclass
class CellRun:
    """What one boot of a cell's kernel is run with; seconds and commands fill up on the way."""

    root: Path
    out: Path
    tree: PreparedTree
    cell: Cell
    jobs: Callable[[], int]  # asked when the build begins
    say: Say
    glob: str = ""
    update: bool = False  # write the manifest instead of judging by the old one
    kind: str = KUNIT
    boot_dir: Path | None = None  # boot what was copied here instead of what stands in build_dir
    until: Callable[[Path], bool] | None = None  # a look at the console says that the boot may end
    make_options: tuple[str, ...] = ()  # for kunit.py build
    configured: bool = False  # build_dir is, since a run before: only make what is out of date
    base: bool = False  # the tree is the pristine source, which has no manifest: whatever runs may skip
    seconds: dict[str, float] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the result."""
        return result_name(self.cell, self.kind, self.base)

    @property
    def manifest(self) -> Path:
        """The tests that have to run in this boot."""
        return manifest_path(self.cell, self.kind)

    @property
    def made(self) -> Path:
        """The folder of all that is built from this tree."""
        return self.tree.path.parent / "on-base" if self.base else self.tree.path.parent

    @property
    def build_dir(self) -> Path:
        """kbuild's output directory, kept from run to run."""
        return self.made / "cells" / self.cell.name

    @property
    def results(self) -> Path:
        """Where the result goes."""
        return self.out / "results" / self.name

    def run(self, kinds: Sequence[str]) -> list[report.Result]:
        """Configures and builds, and boots and judges once per kind. Raises MatrixError when it is not the cell's fault."""
        runs = [replace(self, kind=kind, seconds=dict(self.seconds), commands=dict(self.commands)) for kind in kinds]
        for one in runs:
            one.results.mkdir(parents=True)  # main has removed the old one
        evidence = runs[0].kernel()
        for other in runs[1:]:
            for name in ("build.log", ".config"):
                if (runs[0].results / name).exists():
                    shutil.copyfile(runs[0].results / name, other.results / name)
            other.seconds, other.commands = dict(runs[0].seconds), dict(runs[0].commands)
        return [one.finish(evidence) for one in runs]

    def finish(self, evidence: Evidence) -> report.Result:
        """Boots what was built, and judges."""
        evidence = replace(evidence, manifest=manifest.load(self.manifest), glob=self.glob)
        evidence = self._boot(self._selftests(evidence) if self.kind == E2E else evidence)
        verdict = self._judge(evidence)
        if self.update:
            evidence = self._update(evidence, verdict)
            verdict = self._judge(evidence)
        if self.base:
            verdict = self._judge(replace(evidence, manifest=Manifest(dict.fromkeys(verdict.tests, "the base may"))))
        elif self.kind == E2E:
            self._compare(verdict)
        return self._write(verdict)

    def _time(self, step: str, seconds: float) -> None:
        self.seconds[step] = round(seconds, 1)
        self.say(f"{self.name}: {step} {seconds:.1f} s")

    def kernel(self) -> Evidence:
        """Configure and build; stops after the step that fails."""
        evidence = Evidence(asked=asked(self.cell), got=None, manifest=None, touched=self.tree.touched)
        log = self.results / "build.log"
        tree, cell, folder = self.tree.path, self.cell, self.build_dir
        folder.mkdir(parents=True, exist_ok=True)
        build.forget_warned(folder, self.tree.touched)
        steps = {"configure": build.CONFIG_SECONDS, "build": float(cell.build_seconds)}
        if self.configured:
            del steps["configure"]
        for name, limit in steps.items():
            if name == "configure":
                argv = build.config_command(tree, cell, folder)
            elif self.configured:
                argv = build.make_command(tree, cell, folder, self.jobs())
            else:
                argv = build.build_command(tree, cell, folder, self.jobs())
                argv += [f"--make_options={option}" for option in self.make_options]
            self.commands[name] = build.shell(argv)
            done = build.step(argv, log, limit)
            self._time(name, done.seconds)
            if name == "configure":
                evidence = replace(evidence, config_status=done.returncode)
            else:
                evidence = replace(evidence, build_status=done.returncode)
            if done.timed_out:
                evidence = replace(evidence, timed_out=name, limit=limit)
            if done.returncode or done.timed_out:
                break
        evidence = replace(evidence, build_log=log.read_text("utf-8", "replace"))
        if (folder / ".config").exists():
            shutil.copyfile(folder / ".config", self.results / ".config")
            evidence = replace(evidence, got=options((folder / ".config").read_text("utf-8")))
        return evidence

    def _selftests(self, evidence: Evidence) -> Evidence:
        """Builds the selftests and packs them, if the kernel was built."""
        if evidence.config_status or evidence.build_status or evidence.timed_out:
            return evidence
        log, folder, tree = self.results / "build.log", self.made / "selftests" / self.cell.arch, self.tree.path
        before, seconds = log.stat().st_size, 0.0
        with selftests.lock(folder):
            if not (folder / build.CLEAN).exists():
                selftests.forget(folder)
            (folder / build.CLEAN).unlink(missing_ok=True)
            tests = self.tests()
            commands = selftests.build_commands(tree, self.cell, folder, tests, self.jobs())
            self.commands["selftests"] = " && ".join(map(build.shell, commands))
            for argv in commands:
                done = build.step(argv, log, SELFTESTS_SECONDS)
                seconds += done.seconds
                evidence = replace(evidence, selftests_status=done.returncode)
                if done.timed_out:
                    evidence = replace(evidence, timed_out="build of the selftests", limit=SELFTESTS_SECONDS)
                if done.returncode or done.timed_out:
                    break
            else:
                selftests.pack(folder, tests, self.build_dir / "e2e.cpio")
            self._time("selftests", seconds)
            with open(log, "rb") as file:
                file.seek(before)
                added = file.read().decode("utf-8", "replace")
            names = {name.removeprefix(f"{selftests.FOLDER}/") for name in self.tree.touched}  # as gcc calls them there
            evidence = replace(evidence, build_log=added, touched=self.tree.touched | names)
            if not evidence.selftests_status and not evidence.timed_out and not check_warnings(evidence):
                (folder / build.CLEAN).touch()
        return replace(evidence, build_log=log.read_text("utf-8", "replace"))

    def tests(self) -> list[selftests.Selftest]:
        """The selftests of this boot."""
        known = selftests.present(self.tree.path, selftests.load(self.root, self.cell))
        return [test for test in known if not self.glob or matches(self.glob, f"{selftests.SUITE}.{test.name}")]

    def _boot(self, evidence: Evidence) -> Evidence:
        """Boot the kernel if it was built; the build directory is clean if nothing counts against it so far."""
        if evidence.config_status or evidence.build_status or evidence.selftests_status or evidence.timed_out:
            return evidence
        if not [reason for reason in judge(evidence).reasons if reason.code == "warning"]:
            build.mark_clean(self.build_dir)
        console, junit = self.results / "console.log", self.results / "junit.xml"
        cell, glob = self.cell, self.glob
        if self.kind == E2E:
            config = self.build_dir / "e2e.py"
            config.write_text(boot.initramfs_config(cell, self.build_dir / "e2e.cpio", boot.WITHOUT_KUNIT), "utf-8")
            limit = BOOT_SECONDS + sum(test.seconds for test in self.tests())
            cell, glob = replace(cell, qemu_config=config, boot_seconds=limit), ""
        argv = boot.exec_command(self.tree.path, cell, self.boot_dir or self.build_dir, glob)
        shim = shlex.quote(str(boot.SHIM))
        self.commands["boot"] = build.shell(argv, {"PATH": f'{shim}:"$PATH"'})
        enough = functools.partial(self.until, console) if self.until else None
        done = boot.boot(argv, console, cell.boot_seconds, enough)
        self._time("boot", done.seconds)
        evidence = replace(evidence, exec_status=done.returncode, limit=cell.boot_seconds,
                           timed_out="boot" if done.timed_out else "")  # fmt: skip
        argv = boot.parse_command(self.tree.path, console, junit)
        self.commands["parse"] = build.shell(argv)
        done = boot.parse(argv)
        status = done.returncode if junit.exists() and not done.timed_out else done.returncode or 1
        return replace(evidence, parse_status=status)

    def _compare(self, verdict: Verdict) -> None:
        """Says of a selftest that failed how it came out without the series, if somebody has looked (--base)."""
        base = report.cases(self.out / "results" / result_name(self.cell, E2E, base=True), selftests.SUITE)
        for at, reason in enumerate(verdict.reasons):
            match = re.match(rf"{selftests.SUITE}\.(\S+) failed", reason.text)
            if reason.code == "test" and match and match[1] in base:
                verdict.reasons[at] = replace(reason, text=f"{reason.text} (without the series: {base[match[1]]})")

    def _judge(self, evidence: Evidence) -> Verdict:
        if "boot" not in self.seconds:
            return judge(evidence)
        with open(self.results / "console.log", "rb") as console:
            stream: BinaryIO = console
            return judge(replace(evidence, console=stream))

    def _update(self, evidence: Evidence, verdict: Verdict) -> Evidence:
        """Writes the tests that ran into the manifest and shows the difference."""
        path = self.manifest
        blind = [str(reason) for reason in verdict.reasons if reason.code in BLIND]
        blind += [f"suite {name} did not run" for name in verdict.tests if "." not in name]
        if blind or not verdict.tests:
            self.say(f"{self.name}: {path.name} left as it was: {(blind or ['no tests'])[0]}")
            return evidence
        diff = manifest.update(path, verdict.tests)
        self.say(f"{self.name}: {path.name} {'changed:' if diff else 'unchanged'}\n{diff}".rstrip())
        return replace(evidence, manifest=manifest.load(path))

    def _write(self, verdict: Verdict) -> report.Result:
        counts, suites = report.tests(verdict)
        result: report.Result = {
            "cell": self.name,
            "arch": self.cell.arch,
            "proves": self.cell.proves,
            "verdict": "green" if verdict.green else "red",
            "reasons": report.reasons(verdict.reasons),
            "kernel": {"version": self.tree.version, "origin": self.tree.origin, "series": self.tree.series},
            "filter": self.glob,
            "manifest": self.manifest.name,
            "tests": counts,
            "skips": verdict.skipped,
            "suites": suites,
            "figures": report.figures(self.results / "console.log") if self.kind == E2E else [],
            "seconds": self.seconds,
            "commands": self.commands,
            "files": str(self.results),
        }
        report.write_json(self.results / "result.json", result)
        self.say(f"{self.name}: {result['verdict']}, {counts['passed']} passed, {counts['failed']} failed, "
                 f"{counts['skipped']} skipped")  # fmt: skip
        return result


def failed_check(out: Path, name: str, err: Exception) -> report.Result:
    """The result of a boot whose run ended in an error of ours."""
    result = report.red(name, "check", f"check could not run: {type(err).__name__}: {err}")
    (out / "results" / name).mkdir(parents=True, exist_ok=True)
    report.write_json(out / "results" / name / "result.json", result)
    return result

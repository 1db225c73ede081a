# SPDX-License-Identifier: GPL-2.0
"""One cell from its fragments to its result.json."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from matrix import boot, build, manifest, report
from matrix.cells import Cell, asked, options
from matrix.tree import PreparedTree
from matrix.verdict import Evidence, Verdict, judge

Say = Callable[[str], None]
# With one of these the console does not show which tests there are.
BLIND = frozenset({"check", "config", "build", "boot", "hang", "exec", "ktap", "end"})


@dataclass
class CellRun:
    """What a cell is run with; seconds and commands fill up on the way."""

    root: Path
    out: Path
    tree: PreparedTree
    cell: Cell
    jobs: Callable[[], int]  # asked when the build begins
    say: Say
    glob: str = ""
    update: bool = False  # write the manifest instead of judging by the old one
    seconds: dict[str, float] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)

    @property
    def build_dir(self) -> Path:
        """kbuild's output directory, kept from run to run."""
        return self.tree.path.parent / "cells" / self.cell.name

    @property
    def results(self) -> Path:
        """Where the result goes."""
        return self.out / "results" / self.cell.name

    def run(self) -> report.Result:
        """Configures, builds, boots and judges. Raises MatrixError when it is not the cell's fault."""
        self.results.mkdir(parents=True)  # main has removed the old one
        self.build_dir.mkdir(parents=True, exist_ok=True)
        wanted = asked(self.cell)
        evidence = Evidence(asked=wanted, got=None, manifest=manifest.load(self.cell.manifest),
                            touched=self.tree.touched, glob=self.glob)  # fmt: skip
        evidence = self._boot(self._build(evidence))
        verdict = self._judge(evidence)
        if self.update:
            evidence = self._update(evidence, verdict)
            verdict = self._judge(evidence)
        return self._write(verdict)

    def _time(self, step: str, seconds: float) -> None:
        self.seconds[step] = round(seconds, 1)
        self.say(f"{self.cell.name}: {step} {seconds:.1f} s")

    def _build(self, evidence: Evidence) -> Evidence:
        """Configure and build; stops after the step that fails."""
        log = self.results / "build.log"
        tree, cell, folder = self.tree.path, self.cell, self.build_dir
        build.forget_warned(folder, self.tree.touched)
        steps = {"configure": build.CONFIG_SECONDS, "build": float(cell.build_seconds)}
        for name, limit in steps.items():
            if name == "configure":
                argv = build.config_command(tree, cell, folder)
            else:
                argv = build.build_command(tree, cell, folder, self.jobs())
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

    def _boot(self, evidence: Evidence) -> Evidence:
        """Boot the kernel if it was built; the build directory is clean if nothing counts against it so far."""
        if evidence.config_status or evidence.build_status or evidence.timed_out:
            return evidence
        if not [reason for reason in judge(evidence).reasons if reason.code == "warning"]:
            build.mark_clean(self.build_dir)
        console, junit = self.results / "console.log", self.results / "junit.xml"
        argv = boot.exec_command(self.tree.path, self.cell, self.build_dir, self.glob)
        shim = shlex.quote(str(self.root / "matrix/shim"))
        self.commands["boot"] = build.shell(argv, {"PATH": f'{shim}:"$PATH"'})
        done = boot.boot(argv, self.root, console, self.cell.boot_seconds)
        self._time("boot", done.seconds)
        evidence = replace(evidence, exec_status=done.returncode, limit=self.cell.boot_seconds,
                           timed_out="boot" if done.timed_out else "")  # fmt: skip
        argv = boot.parse_command(self.tree.path, console, junit)
        self.commands["parse"] = build.shell(argv)
        done = boot.parse(argv)
        status = done.returncode if junit.exists() and not done.timed_out else done.returncode or 1
        return replace(evidence, parse_status=status)

    def _judge(self, evidence: Evidence) -> Verdict:
        if "boot" not in self.seconds:
            return judge(evidence)
        with open(self.results / "console.log", "rb") as console:
            stream: BinaryIO = console
            return judge(replace(evidence, console=stream))

    def _update(self, evidence: Evidence, verdict: Verdict) -> Evidence:
        """Writes the tests that ran into the manifest and shows the difference."""
        path = self.cell.manifest
        blind = [str(reason) for reason in verdict.reasons if reason.code in BLIND]
        blind += [f"suite {name} did not run" for name in verdict.tests if "." not in name]
        if blind or not verdict.tests:
            self.say(f"{self.cell.name}: {path.name} left as it was: {(blind or ['no tests'])[0]}")
            return evidence
        diff = manifest.update(path, verdict.tests)
        self.say(f"{self.cell.name}: {path.name} {'changed:' if diff else 'unchanged'}\n{diff}".rstrip())
        return replace(evidence, manifest=manifest.load(path))

    def _write(self, verdict: Verdict) -> report.Result:
        counts, suites = report.tests(verdict)
        result: report.Result = {
            "cell": self.cell.name,
            "arch": self.cell.arch,
            "proves": self.cell.proves,
            "verdict": "green" if verdict.green else "red",
            "reasons": report.reasons(verdict.reasons),
            "kernel": {"version": self.tree.version, "origin": self.tree.origin, "series": self.tree.series},
            "filter": self.glob,
            "manifest": self.cell.manifest.name,
            "tests": counts,
            "skips": verdict.skipped,
            "suites": suites,
            "seconds": self.seconds,
            "commands": self.commands,
            "files": str(self.results),
        }
        report.write_json(self.results / "result.json", result)
        self.say(f"{self.cell.name}: {result['verdict']}, {counts['passed']} passed, {counts['failed']} failed, "
                 f"{counts['skipped']} skipped")  # fmt: skip
        return result


def failed_check(out: Path, cell: Cell, err: Exception) -> report.Result:
    """The result of a cell whose run ended in an error of ours."""
    result = report.red(cell.name, "check", f"check could not run: {type(err).__name__}: {err}")
    (out / "results" / cell.name).mkdir(parents=True, exist_ok=True)
    report.write_json(out / "results" / cell.name / "result.json", result)
    return result

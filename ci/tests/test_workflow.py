# SPDX-License-Identifier: GPL-2.0
"""The workflow is more than a file: every "run:" step of it runs here, with what a runner would give it.

Real are the commands, the Makefile, tools/setup and matrix/run. In the step that builds a cell the copy's matrix/run is a
stand-in that leaves a result as the real one would, and in the step that runs the tests ci/test is one: it is what runs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# pylint: disable=wrong-import-position
from matrix.cell import cells, merge
from matrix.cell.run import E2E, KUNIT, LIST, expected_tests, rejudge
from matrix.tree import source
from matrix.tests.consoles import BANNER, passed
from matrix.verdict import report
from matrix.verdict.evidence import Evidence

WORKFLOW = ROOT / ".github/workflows/gate.yml"
STAND_IN = """#!/usr/bin/env python3
import os, pathlib, shutil, sys
pathlib.Path(os.environ["SEEN"]).write_text(repr(sys.argv[1:]))
if cell := os.environ.get("RESULT"):
    to = pathlib.Path("build/results") / pathlib.Path(cell).name
    shutil.copytree(cell, to)
sys.exit(int(os.environ.get("STATUS", "0")))
"""


def steps(text: str) -> dict[str, list[str]]:
    """The run: steps by job, from YAML as we write it: two blanks per level, run: on one line or with |."""
    found: dict[str, list[str]] = {}
    lines = iter([*text[text.index("\njobs:\n"):].splitlines(), ""])
    job = ""
    for line in lines:
        if match := re.fullmatch(r"  (\w+):", line):
            job = match[1]
        elif match := re.fullmatch(r"(      (?:- |  ))run: (.+)", line):
            if match[2] != "|":
                found.setdefault(job, []).append(match[2] + "\n")
                continue
            block: list[str] = []
            while (line := next(lines)).startswith(" " * 10) or (not line and block):
                block.append(line)
                if not line:
                    break
            found.setdefault(job, []).append(textwrap.dedent("\n".join(block)).strip() + "\n")
    return found


class Workflow(unittest.TestCase):
    """Each test works in a copy of the checkout."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.copy = Path(folder.name).resolve() / "checkout"
        self.temp = self.copy.parent
        shutil.copytree(ROOT, self.copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "build", "__pycache__"))
        self.text = WORKFLOW.read_text()
        self.steps = steps(self.text)
        self.cells = json.loads(subprocess.run([ROOT / "matrix/run", "--cells-json", "gate"], check=True, stdout=subprocess.PIPE).stdout)

    def run_step(self, job: str, at: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a step of a job as a runner does."""
        step = self.steps[job][at]
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            (self.temp / name).write_text("")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.temp), "CI": "true", "GITHUB_ACTIONS": "true",
               "GITHUB_WORKSPACE": str(self.copy), "GITHUB_OUTPUT": str(self.temp / "GITHUB_OUTPUT"),
               "GITHUB_STEP_SUMMARY": str(self.temp / "GITHUB_STEP_SUMMARY"), "SEEN": str(self.temp / "seen"), **more}
        (self.temp / "step.sh").write_text(step)
        return subprocess.run(["bash", "-e", str(self.temp / "step.sh")], cwd=self.copy, env=env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)

    def stand_in(self, name: str) -> None:
        """Replace a program of the copy."""
        (self.copy / name).write_text(STAND_IN)
        (self.copy / name).chmod(0o755)

    def result(self, cell: str, green: bool, folder: Path) -> None:
        """A result folder as matrix/run writes them."""
        result = report.red(cell, "splat", "BUG: made up")
        result["kernel"] = {"version": "7.3.4", "origin": "made up", "series": "0"}
        folder = folder / cell
        folder.mkdir(parents=True)
        if green:
            known = cells.select(cells.load(self.copy), [cell.removesuffix("-e2e")])[0]
            expected = expected_tests(self.copy, known, E2E if cell.endswith("-e2e") else KUNIT)
            asked = cells.asked(known)
            (folder / ".config").write_text("".join(f"CONFIG_{name}={value}\n" for name, value in asked.items() if value != "n"))
            (folder / "build.log").touch()
            (folder / "console.log").write_text(passed(expected.tests))
            evidence = Evidence(asked, asked, expected, frozenset(), banner=BANNER, arguments=["kunit.enable=1"])
            verdict = rejudge(evidence, folder / "console.log")
            result["tests"], result["suites"] = report.tests(verdict)
            result["reasons"], result["verdict"] = report.reasons(verdict.reasons), "green"
            result["seconds"], result["filter"], result["inputs"] = {"boot": 1.0}, "", merge.inputs(self.copy)
            result["judged"], result["digests"] = report.judged(evidence), report.digests(folder, self.copy / LIST)
        report.write_json(folder / "result.json", result)

    def test_all_steps_are_known(self) -> None:
        """A step that is added needs a test here; and the reader above misses none."""
        self.assertEqual({job: len(found) for job, found in self.steps.items()},
                         {"cells": 1, "cell": 2, "canary": 1, "tools": 1, "summary": 1})
        self.assertEqual(len(re.findall(r"\brun:", self.text)), 6)

    def test_cells(self) -> None:
        """The matrix is the gate of cells.toml, as JSON on one line."""
        self.assertEqual(self.run_step("cells").returncode, 0)
        (line,) = (self.temp / "GITHUB_OUTPUT").read_text().splitlines()
        name, _, value = line.partition("=")
        self.assertEqual(name, "cells")
        self.assertEqual(json.loads(value), self.cells)
        self.assertIn("cells: ${{ steps.gate.outputs.cells }}", self.text)

    def test_cells_fails_when_the_list_cannot_be_had(self) -> None:
        """Not an empty, green matrix."""
        (self.copy / "matrix/cells.toml").write_text("cell = [")
        self.assertNotEqual(self.run_step("cells").returncode, 0)

    def test_cell(self) -> None:
        """Set-up and matrix/run for this one cell, KUnit and selftests; red is red, and the second step runs all the same."""
        self.stand_in("matrix/run")
        for at, more in enumerate(("", "'--e2e', ")):
            for status in ("0", "1", "3"):
                done = self.run_step("cell", at, CELL="arm64-nothp", STATUS=status)
                self.assertEqual(bool(done.returncode), status != "0", done.stdout)
                self.assertEqual((self.temp / "seen").read_text(), f"['--out', 'build', {more}'arm64-nothp']")
        self.assertRegex(self.text, r"run: make e2e .*\n +if: \$\{\{ !cancelled\(\) \}\}\n")
        self.assertIn("CELL: ${{ matrix.cell }}", self.text)

    def test_canary(self) -> None:
        """Set-up and the canaries; one that is not red as it should be fails the job, and its logs are kept."""
        self.stand_in("matrix/run")
        for status in ("0", "1", "3"):
            done = self.run_step("canary", STATUS=status)
            self.assertEqual(bool(done.returncode), status != "0", done.stdout)
            self.assertEqual((self.temp / "seen").read_text(), "['--out', 'build', '--canaries']")
        self.assertRegex(self.text, r"if: failure\(\)\n.*\n +name: canaries\n +path: build/canaries/\n")

    def test_tools(self) -> None:
        """The tests of the tools, without the cells, which have jobs of their own."""
        self.stand_in("ci/test")
        done = self.run_step("tools")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual((self.temp / "seen").read_text(), "['--out', 'build', 'unit', 'lint', 'series']")
        self.assertNotEqual(self.run_step("tools", STATUS="1").returncode, 0)

    def test_summary(self) -> None:
        """Green when every cell is; red and missing cells fail it, and the summary is there all the same."""
        for case in ("green", "red", "missing", "none"):
            with self.subTest(case):
                shutil.rmtree(self.copy / "results", ignore_errors=True)
                shutil.rmtree(self.copy / "build", ignore_errors=True)
                names = [name for cell in self.cells for name in (f"{cell}-e2e", cell)]
                for number, name in enumerate(names if case != "none" else []):
                    if number or case != "missing":
                        folder = self.copy / "results" / f"results-{name.removesuffix('-e2e')}"
                        self.result(name, bool(number) or case != "red", folder)
                done = self.run_step("summary")
                self.assertEqual(done.returncode, 0 if case == "green" else 1, done.stdout)
                summary = (self.temp / "GITHUB_STEP_SUMMARY").read_text()
                for name in names:
                    self.assertIn(f"| {name} |", summary)

    def test_results_travel(self) -> None:
        """What the cell's job uploads is what the summary's job finds: the names of paths and artifacts agree."""
        self.stand_in("matrix/run")
        self.result("arm64-thp", True, self.temp / "made")
        self.run_step("cell", CELL="arm64-thp", RESULT=str(self.temp / "made/arm64-thp"))
        upload = re.search(r"upload-artifact.*?name: (\S+?)\$.*?path: (\S+)", self.text, re.DOTALL)
        download = re.search(r"download-artifact.*?pattern: (\S+)\n *path: (\S+)", self.text, re.DOTALL)
        assert upload and download
        self.assertEqual(download[1], upload[1] + "*")
        self.assertTrue((self.copy / upload[2] / "arm64-thp/result.json").is_file())
        self.assertIn(f"--merge {download[2]}", self.steps["summary"][0])
        self.assertRegex(self.text, r"upload-artifact.*\n +if: always\(\)")

    def test_scheduled(self) -> None:
        """The workflow for what takes long: each step, with a stand-in for what it calls; red is red."""
        self.text = (WORKFLOW.with_name("scheduled.yml")).read_text()
        self.steps = steps(self.text)
        calls = {("cell", 0): ("matrix/run", "['--out', 'build', '--all', 'C']"),
                 ("example", 0): ("matrix/run", "['--out', 'example/build', '--project', 'example']"),
                 ("mutants", 0): ("tools/mutants", "['--out', 'build', '--cells', 'C']"),
                 ("generated", 0): ("tools/mutants", "['--generated', '--out', 'build', '--cells', 'C', 'D']"),
                 ("bench", 0): ("bin/apt-get", "['install', '-y', '--no-install-recommends', 'git', 'make', 'ca-certificates']"),
                 ("bench", 2): ("tools/bench", "['C', '--out', 'build']"),
                 ("coverage", 0): ("tools/coverage", "['--out', 'build']"),
                 ("loop", 0): ("tools/bench-loop", "['--out', 'build']"),
                 ("model", 0): ("matrix/run", "['--out', 'build', '--filter', 'kvm_gmem_stress.model', "
                                "'--arg', 'kvm_gmem_kunit.ops=1000000', '--arg', 'kunit.timeout=4000', '--boot-seconds', '12000', 'C']"),
                 ("base", 0): ("matrix/run", "['--out', 'build', '--ksrc', '7.2']"),
                 ("readme", 0): ("bin/apt-get", "['install', '-y', '--no-install-recommends', 'git', 'make', 'ca-certificates']"),
                 ("sid", 0): ("bin/apt-get", "['install', '-y', '--no-install-recommends', 'git', 'make', 'ca-certificates']"),
                 ("sid", 2): ("matrix/run", "['--out', 'build']"),
                 ("sid", 3): ("tools/check-series", "['--build', '--out', 'build']"),
                 ("report", 0): ("bin/gh", "['run', 'list', '--workflow', 'scheduled.yml', '--branch', 'main', '--status', 'completed', "
                                 "'--limit', '1', '--json', 'databaseId', '--jq', '.[].databaseId']"),
                 ("report", 1): ("tools/report", "['--out', 'build']"),
                 ("browser", 1): ("tools/check-report", "[]"),
                 ("readme", 2): ("matrix/run", "['--out', 'build']"), ("readme", 3): ("ci/test", "['--out', 'build']"),
                 ("browser", 0): ("tools/setup", "['report']")}  # fmt: skip  # the last: make calls it, too
        tested = {*calls, ("cells", 0), ("readme", 1), ("sid", 1), ("bench", 1)}
        self.assertEqual({(job, at) for job, found in self.steps.items() for at in range(len(found))}, tested)
        self.assertEqual(re.findall(r"(?:x86_64|arm64)-\w+", self.text), [])
        self.assertEqual(self.run_step("cells").returncode, 0)
        found = dict(line.split("=") for line in (self.temp / "GITHUB_OUTPUT").read_text().splitlines())
        known = [cell.name for cell in cells.load(ROOT)]
        bench = {cell.name for cell in cells.load(ROOT) if cell.bench}
        self.assertEqual(set(json.loads(found["scheduled"])), set(known) - set(self.cells) - bench)
        self.assertEqual(set(json.loads(found["bench"])), bench)
        self.assertEqual(json.loads(found["gate"]), self.cells)
        for name, value in found.items():
            self.assertTrue(json.loads(value), name)
            self.assertIn(f"      {name}: ${{{{ steps.cells.outputs.{name} }}}}\n", self.text)
            used = rf"\n    needs: cells\n(    .*\n)*? +(cell|CELLS): \$\{{\{{ .*fromJSON\(needs.cells.outputs.{name}\)"
            self.assertRegex(self.text, used)
        (self.copy / "bin").mkdir()
        path = f"{self.copy}/bin:{os.environ['PATH']}"
        (self.copy / "build/coverage").mkdir(parents=True)
        (self.copy / "build/coverage/coverage.md").write_text("all of it\n")
        (self.copy / "build/loop").mkdir()
        (self.copy / "build/loop/loop.md").write_text("all of it\n")
        (self.copy / "build/results").mkdir()
        (self.copy / "build/results/bench.md").write_text("all of it\n")
        # what a step calls before
        first = {("readme", 0): "['update']", ("sid", 0): "['update']", ("bench", 0): "['update']",
                 ("bench", 2): "['--out', 'build', '--e2e', 'C']"}  # fmt: skip
        for (job, at), (program, arguments) in calls.items():
            self.stand_in(program)
            for status in ("0", "1"):
                more = {"CELLS": "C D"} if job == "generated" else {"CELL": "C", "BASE": "7.2"}
                done = self.run_step(job, at, **more, BRANCH="main", STATUS=status, PATH=path)
                self.assertEqual(bool(done.returncode), status != "0", f"{job}: {done.stdout}")
                self.assertEqual((self.temp / "seen").read_text(), arguments if status == "0" else first.get((job, at), arguments))
            if (job, at) == ("report", 0):
                self.assertEqual((self.temp / "GITHUB_OUTPUT").read_text(), "")  # of the last call, which failed
            if (job, at) in (("bench", 2), ("coverage", 0), ("loop", 0)):
                self.assertEqual((self.temp / "GITHUB_STEP_SUMMARY").read_text(), "all of it\n")
        self.assertEqual(json.loads(re.findall(r"\n +base: (\[.*\])", self.text)[0]), source.bases(ROOT)[:-1])
        self.check_house_rules()

    def test_report(self) -> None:
        """The report gets what the other jobs upload, and what the report of another run has left, where it looks for them."""
        text = WORKFLOW.with_name("scheduled.yml").read_text()
        self.steps, job = steps(text), text[text.index("\n  report:\n"):text.index("\n  browser:\n")]
        places = dict(re.findall(r"pattern: (\S+)\n(?: *merge-multiple: true\n)? *path: (\S+)\n", job))
        self.assertEqual(places, {"results-*": "build/results", "mutants-*": "build/mutants", "coverage": "build/coverage",
                                  "run": "build/report"})  # fmt: skip
        uploads = set(re.findall(r"name: ([\w-]+?)-?(?:\$\S* .*)?\n +path: (\S+)", text))
        self.assertLessEqual({("results", "build/results/"), ("results-gate", "build/results/"), ("mutants", "build/mutants/mutants.*"),
                              ("mutants-generated", "build/mutants/mutants.*"), ("coverage", "build/coverage/coverage.*"),
                              ("run", "build/report/run.json")}, uploads)  # fmt: skip
        for name in self.cells:
            self.result(name, True, self.copy / f"build/results/results-{name}")
        done = self.run_step("report", 1)
        self.assertEqual(done.returncode, 0, done.stdout)
        page = (self.copy / "build/report/index.html").read_text()
        for name in self.cells:
            self.assertIn(f'href="../results/results-{name}/{name}/console.log"', page)
        self.assertIn("Compared with nothing: this is the first run", page)
        shutil.rmtree(self.copy / f"build/results/results-{self.cells[0]}")
        self.run_step("report", 1)
        self.assertIn("Has no result now: 1", (self.copy / "build/report/index.html").read_text())
        shutil.rmtree(self.copy / "build")
        self.assertNotEqual(self.run_step("report", 1).returncode, 0)

    def test_readme(self) -> None:
        """The scheduled workflow runs the commands of the README, all of them, on the systems that the README names."""
        text = WORKFLOW.with_name("scheduled.yml").read_text()
        readme = (ROOT / "README.md").read_text().split("\n## Run it\n")[1]
        self.assertEqual([f"{line}\n" for line in readme.split("```\n")[1].splitlines() if line.startswith("make ")],
                         steps(text)["readme"][2:])
        for name, version in re.findall(r'"(\w+):([\d.]+)"', text):
            self.assertRegex(readme.split("```")[0], rf"{name.capitalize()} [\w ,]*\b{version}\b")
        self.steps = steps(text)
        self.assertEqual(self.run_step("readme", 1).returncode, 0)
        self.assertIn(f"directory = {self.copy}\n", (self.temp / ".gitconfig").read_text())

    def test_house_rules(self) -> None:
        """Those of the gate."""
        self.check_house_rules()

    def check_house_rules(self) -> None:
        """Least rights, pinned actions with their tag, a time limit for every job, steps that shellcheck likes."""
        self.assertEqual(re.findall(r"^permissions:\n((?:  .*\n)+)", self.text, re.MULTILINE), ["  contents: read\n"])
        for rights in re.findall(r"^    permissions:\n((?:      .*\n)+?)    \w", self.text, re.MULTILINE):
            self.assertEqual(rights, "      actions: read\n      contents: read\n")  # to download what another run has left
        self.assertNotRegex(self.text, r"\bwrite\b|write-all|read-all")
        for use in re.findall(r"uses: (.*)", self.text):
            self.assertRegex(use, r"^actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
        self.assertEqual(self.text.count("timeout-minutes:"), self.text.count("runs-on:"))
        self.assertIn("\nconcurrency:\n", self.text)
        self.assertIn("key: kernel-${{ hashFiles('kernel/*/source.toml') }}", self.text)
        for job, found in self.steps.items():
            for step in found:
                self.assertNotIn("${{", step, job)
                done = subprocess.run(["shellcheck", "-s", "bash", "-"], input=step, text=True, capture_output=True, check=False)
                self.assertEqual(done.stdout, "", job)


if __name__ == "__main__":
    unittest.main()

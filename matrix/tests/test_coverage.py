# SPDX-License-Identifier: GPL-2.0
"""Test reading counters from a console, and the coverage of the added lines."""

import base64
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.cell import cells
from matrix.cell.run import Job, Site
from matrix.proof import coverage
from matrix.proof.coverage import Line
from matrix.common.errors import MachineError
from matrix.tree import tree
from matrix.verdict.report import Result

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "int a(int x)\n{\n\tif (x)\n\t\treturn 1;\n\treturn 0;\n}\n"


def console(*files: tuple[str, bytes], size: int | None = None) -> bytes:
    """Return a console with counters between other lines, as init prints them."""
    lines = ["reboot soon"]
    for name, data in files:
        lines.append(f"gcov: {name} {len(data) if size is None else size}\r")
        lines += [f"gcov+ {base64.b64encode(data[at:at + 540]).decode()}\r" for at in range(0, len(data), 540)]
        lines.append("something else")
    return "\n".join(lines).encode()


def document(*lines: tuple[int, int, list[int]]) -> dict[str, Any]:
    """Return gcovr's JSON for lines: number, count, counts of the branches."""
    return {"files": [{"file": "f.c", "lines": [
        {"line_number": number, "count": count, "branches": [{"count": taken} for taken in branches]}
        for number, count, branches in lines]}]}  # fmt: skip


class Counters(unittest.TestCase):
    """Reading counters."""

    def test_whole(self) -> None:
        """Each file is read completely, also if it is longer than a line."""
        files = {"/o/x.gcda": bytes(range(256)) * 5, "/o/y.gcda": b"y"}
        self.assertEqual(coverage.counters(console(*files.items())), files)
        self.assertEqual(coverage.counters(b"nothing\n"), {})

    def test_cut(self) -> None:
        """A truncated file is an error."""
        with self.assertRaisesRegex(MachineError, "/o/x.gcda are truncated: 2 of 3 bytes"):
            coverage.counters(console(("/o/x.gcda", b"xx"), size=3))
        with self.assertRaisesRegex(MachineError, "damaged"):
            coverage.counters(b"gcov: /o/x.gcda 2\ngcov+ AAA\n")


class Covered(unittest.TestCase):
    """Lines and branches."""

    def added(self, *documents: dict[str, Any], condition: str = "if (x)") -> list[Line]:
        """Return the lines of f.c; the base lacks its condition and its first return."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tree, "pristine_text") as base:
            base.return_value = SOURCE.replace("\tif (x)\n\t\treturn 1;\n", "")
            (Path(folder) / "f.c").write_text(SOURCE.replace("if (x)", condition))
            return coverage.added(tree.PreparedTree(Path(folder), "7.3.4", "", frozenset({"f.c"}), ""), "t", documents)

    def test_added(self) -> None:
        """Only added lines count. Counts of cells add up; for branches the best cell counts."""
        one, two = document((3, 1, [1, 0]), (4, 0, []), (5, 1, [])), document((3, 2, [0, 0, 2]), (4, 0, []))
        for documents in ((one, two), (two, one)):
            lines = self.added(*documents)
            self.assertEqual([(line.number, line.count, line.left) for line in lines], [(3, 3, 1), (4, 0, 0)])
            self.assertEqual(len(lines[0].branches), 2)
        self.assertEqual(self.added(one, document((3, 1, [1, 1]), (4, 1, [])))[0].left, 0)

    def test_uncounted(self) -> None:
        """The branches of an assertion do not count, but its line does."""
        for condition, branches in (("VM_WARN_ON(x);", 0), ("if (WARN_ON_ONCE(x))", 0), ("if (BUG_ON(x))", 0), ("if (WARN_ONLY(x))", 2)):
            line = self.added(document((3, 1, [1, 0])), condition=condition)[0]
            self.assertEqual((line.count, len(line.branches)), (1, branches), condition)

    def test_folded(self) -> None:
        """A branch is taken if it is in one inlined copy of the line. With calls in the line, nobody knows what is a copy."""
        for text, counts, left in (("if (x)", [1, 0, 0, 0], 1), ("if (x)", [1, 0, 0, 1], 0), ("if (unlikely(!x)) {", [0, 1, 1, 0], 0),
                                   ("} else if (x || y->z)", [1, 0, 0, 1, 0, 0, 1, 0], 1), ("if (x && y)", [1, 1, 0, 1, 1, 0], 2),
                                   ("if (f(x))", [1, 0, 0, 1], 2), ("x = y ? 1 : 2;", [1, 0, 0, 1], 2)):  # fmt: skip
            self.assertEqual(self.added(document((3, 1, counts)), condition=text)[0].left, left, text)

    def test_good(self) -> None:
        """Each line and almost each branch must be executed or have a reason; a needless reason is an error."""
        done = [Line("f.c", number, "\tx;", 1, [True] * 10) for number in range(1, 9)]
        never, half = Line("f.c", 9, "\ty;", 0), Line("f.c", 10, "\tif (z)", 1, [True, False])
        self.assertTrue(coverage.good(done, {}))
        self.assertFalse(coverage.good([], {}))
        self.assertFalse(coverage.good([*done, never], {}))
        self.assertTrue(coverage.good([*done, never], {"f.c: y;": "because"}))
        self.assertFalse(coverage.good([*done, half], {}))
        self.assertTrue(coverage.good([*done, half], {"f.c: if (z)": "because"}))
        self.assertFalse(coverage.good(done, {"f.c: if (z)": "because"}))
        self.assertFalse(coverage.good([*done[:1], half], {"f.c: if (z)": "because"}))

    def test_impossible(self) -> None:
        """Only as many branches as the reason says do not count, and one more has no reason."""
        lines = [Line("f.c", 1, "\tx;", 1, [True] * 59), Line("f.c", 2, "\ty;", 1, [True, False, False])]
        for reason, total, left in ("because", 62, 2), ("1 impossible: because", 61, 1), ("3 impossible: because", 60, 0):
            known = {"f.c: y;": reason}
            self.assertEqual(coverage.count(lines, known), (total, left), reason)
            self.assertEqual(coverage.good(lines, known), left != 1, reason)
            text = coverage.markdown(lines, known)
            self.assertIn(f"| all | 2 | 100.0 % | {total} | ", text)
            self.assertEqual("no reason given" in text, left == 1, reason)

    def test_markdown(self) -> None:
        """The report has a row per file, their sum, and the lines that were not executed."""
        text = coverage.markdown([Line("f.c", 3, "\tif (x)", 3, [True, False]), Line("g.c", 4, "\ty;")], {"g.c: y;": "because"})
        self.assertIn("| f.c | 1 | 100.0 % | 2 | 50.0 % |\n| g.c | 1 | 0.0 % | 0 | - |\n| all | 2 | 50.0 % | 2 | 50.0 % |\n", text)
        self.assertIn("- f.c:3: 1 of 2 branches not taken: `if (x)`: **no reason given**\n- g.c:4: not executed: `y;`: because\n", text)
        self.assertEqual(coverage.percent(9999, 10000), "99.9 %")

    def test_as_json(self) -> None:
        """coverage.json has the same: counts, without the impossible branches, and what was not executed, with its reason."""
        lines = [Line("f.c", 3, "\tif (x)", 3, [True, False]), Line("f.c", 5, "\tz;", 1), Line("g.c", 4, "\ty;", 0, [False, False])]
        prepared = tree.PreparedTree(Path("tree"), "7.3.4", "Debian", frozenset(), "digest")
        got = coverage.as_json(lines, {"f.c: if (x)": "1 impossible: because"}, prepared, ["a", "b"])
        self.assertEqual(got, {
            "kernel": "Linux 7.3.4 (Debian)", "series": "digest", "cells": ["a", "b"],
            "files": {"f.c": {"lines": 2, "covered": 2, "branches": 1, "taken": 1},
                      "g.c": {"lines": 1, "covered": 0, "branches": 2, "taken": 0}},
            "open": [{"where": "f.c:3", "what": "1 of 2 branches not taken", "text": "if (x)", "reason": "1 impossible: because"},
                     {"where": "g.c:4", "what": "not executed", "text": "y;", "reason": ""}],
        })  # fmt: skip


class Kernel(unittest.TestCase):
    """How the kernel is built."""

    def test_options(self) -> None:
        """Each .c file gets variables with all names under which a Makefile may list its object."""
        got = coverage.options(["virt/kvm/x.c", "virt/kvm/x.h"])
        names = ("virt/kvm/x", "kvm/x", "x", "../virt/kvm/x", "../../virt/kvm/x", "../../../virt/kvm/x")
        self.assertEqual(got, tuple(f"GCOV_PROFILE_{name}.o=y" for name in names))

    def test_cell(self) -> None:
        """The cell gets another name and more time, and has the same tests."""
        cell = cells.load(ROOT)[0]
        got = coverage.counted(cell, ROOT)
        self.assertEqual((got.name, got.expected), (f"{cell.name}-gcov", cell.name))
        self.assertGreater((got.slowdown, got.boot_seconds), (cell.slowdown, cell.boot_seconds))
        self.assertEqual(cells.asked(got)["GCOV_KERNEL"], "y")

    def test_again(self) -> None:
        """A second run replaces the results of the first."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            site = Site(ROOT, folder, tree.PreparedTree(folder / "tree", "7.3.4", "", frozenset(), ""), print, lambda: 1)
            cell = coverage.counted(cells.load(ROOT)[0], ROOT)
            for old in (f"{cell.name}-e2e", cell.name):
                (folder / "results" / old).mkdir(parents=True)

            def red(_site: Site, jobs: Sequence[Job]) -> list[Result]:
                for job in jobs:
                    site.results(job).mkdir()
                return [{"cell": cell.name, "verdict": "red", "reasons": [], "tests": {}, "suites": {}, "skips": {}, "seconds": {}}]

            with mock.patch("matrix.proof.coverage.run", red):
                coverage.measure(site, cell, folder / "x.json")
            self.assertEqual([path.name for path in (folder / "results").iterdir()], [f"{cell.name}-e2e"])


if __name__ == "__main__":
    unittest.main()

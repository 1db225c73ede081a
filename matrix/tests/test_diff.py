# SPDX-License-Identifier: GPL-2.0
"""Test matrix.verdict.diff: each difference between two runs is found, and nothing else."""

import copy
import unittest
from collections.abc import Mapping
from typing import Any

from matrix.verdict import diff, report
from matrix.verdict.report import Result
from matrix.verdict.runs import Run


def boot(name: str, tests: Mapping[str, str], boot_seconds: float = 100.0, red: str = "") -> Result:
    """A result with these tests (suite.case -> status)."""
    result = report.red(name, "test", red)
    suites: dict[str, Any] = {}
    for test, status in tests.items():
        suite, _, case = test.partition(".")
        entry = suites.setdefault(suite, {"status": status, "cases": {}})
        if case:
            entry["cases"][case] = {"status": status, "reason": "because"}
    result["suites"], result["seconds"] = suites, {"build": 1.0, "boot": boot_seconds}
    if not red:
        result["verdict"], result["reasons"] = "green", []
    return result


def changes(old: list[Result], new: list[Result]) -> list[str]:
    """The differences, as text."""
    return [str(change) for change in diff.compare(Run(old), Run(new))]


class Compare(unittest.TestCase):
    """One difference at a time."""

    def test_equal(self) -> None:
        """No difference."""
        runs = [boot("a", {"s.c": "passed", "s.d": "skipped", "t": "skipped"}), boot("b", {"s.c": "failed"}, red="x")]
        self.assertEqual(changes(runs, copy.deepcopy(runs)), [])
        self.assertEqual(diff.text([]), "")

    def test_tests(self) -> None:
        """Every change of status of a test; None: it does not run."""
        wanted = {
            ("passed", "failed"): "fails now", ("passed", "skipped"): "skips now", ("passed", None): "vanished",
            ("failed", "passed"): "passes now", ("failed", "skipped"): "skips now", ("failed", None): "vanished",
            ("skipped", "passed"): "runs now", ("skipped", "failed"): "fails now", ("skipped", None): "vanished",
            (None, "passed"): "new", (None, "failed"): "fails now", (None, "skipped"): "new",
        }  # fmt: skip
        for (old, new), kind in wanted.items():
            before = boot("a", {"s.same": "passed"} | ({"s.c": old} if old else {}))
            after = boot("a", {"s.same": "passed"} | ({"s.c": new} if new else {}))
            self.assertEqual(changes([before], [after]), [f"{kind}: s.c: a" + (": because" if kind == "skips now" else "")], (old, new))
            self.assertEqual(diff.worse(diff.compare(Run([before]), Run([after]))), kind in diff.WORSE)

    def test_whole_suite(self) -> None:
        """A suite that skips as a whole has no cases then: those that it had skip, and do not vanish."""
        ran, skips = boot("a", {"s.c": "passed", "t.c": "passed", "t.d": "passed"}), boot("a", {"s.c": "passed", "t": "skipped"})
        skips["skips"] = {"t": "not here"}
        self.assertEqual(changes([ran], [skips]), ["skips now: t.c: a: not here", "skips now: t.d: a: not here"])
        self.assertEqual(changes([skips], [ran]), ["runs now: t.c: a", "runs now: t.d: a"])
        self.assertEqual(changes([skips], [boot("a", {"s.c": "passed"})]), ["vanished: t: a"])

    def test_boots(self) -> None:
        """A boot that turns red says why; one that has no result any more is worse, too."""
        green, red = boot("a", {"s.c": "passed"}), boot("a", {"s.c": "passed"}, red="x")
        red["reasons"].append({"code": "splat", "text": "y"})
        self.assertEqual(changes([green], [red]), ["turned red: a: test: x (and 1 more)"])
        self.assertEqual(changes([red], [green]), ["turned green: a"])
        self.assertEqual(changes([green], []), ["has no result now: a"])
        self.assertEqual(changes([], [green]), ["has a result now: a"])
        self.assertEqual(changes([], [red]), ["turned red: a: test: x (and 1 more)"])
        runs = Run([green]), Run([red]), Run([])
        self.assertEqual([diff.worse(diff.compare(runs[old], runs[new])) for old, new in ((0, 1), (1, 0), (0, 2))], [True, False, True])

    def test_boot_without_tests(self) -> None:
        """A kernel that does not build lost its tests: once, not each of them; also if it was red before."""
        for old in (boot("a", {"s.c": "passed", "s.d": "passed"}), boot("a", {"s.c": "failed"}, red="y")):
            self.assertIn("vanished: all tests: a", changes([old], [boot("a", {}, red="x")]))
            self.assertIn("new: all tests: a", changes([boot("a", {}, red="x")], [old]))

    def test_slower(self) -> None:
        """Only by SLOWER and by LEAST seconds, only the boot, and only if the same tests were asked for. It is not worse."""
        for took, takes, said in ((100, 149, []), (100, 150, ["slower: a: boot took 100 s, takes 150 s"]), (10, 19, []),
                                  (150, 100, ["faster: a: boot took 150 s, takes 100 s"])):  # fmt: skip
            old, new = boot("a", {"s.c": "passed"}, took), boot("a", {"s.c": "passed"}, takes)
            new["seconds"]["build"] = 900.0
            self.assertEqual(changes([old], [new]), said)
            self.assertFalse(diff.worse(diff.compare(Run([old]), Run([new]))))
            new["filter"] = "s*"
            self.assertEqual(changes([old], [new]), [])

    def test_grouped_and_ordered(self) -> None:
        """A test that changes in two boots is one change; the worst comes first."""
        old = [boot("a", {"s.c": "passed", "s.d": "failed"}), boot("b", {"s.c": "passed"})]
        new = [boot("a", {"s.c": "failed", "s.d": "passed"}, red="x"), boot("b", {"s.c": "failed"}, red="x")]
        self.assertEqual(changes(old, new), ["turned red: a: test: x", "turned red: b: test: x", "fails now: s.c: a, b",
                                             "passes now: s.d: a"])  # fmt: skip
        self.assertEqual(diff.text(diff.compare(Run(old), Run(new))).splitlines()[3:5],
                         ["fails now (1): tests that did not fail before", "  s.c: a, b"])  # fmt: skip

    def test_kinds(self) -> None:
        """Each kind has its words."""
        self.assertLess(set(diff.WORSE), set(diff.KINDS))


if __name__ == "__main__":
    unittest.main()

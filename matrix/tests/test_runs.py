# SPDX-License-Identifier: GPL-2.0
"""Test matrix.verdict.runs: a run is read back as it was written; what is broken in it is red, and hides nothing."""

import json
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any

from matrix.common.errors import WrongUse
from matrix.tests import results
from matrix.verdict import report, runs


class Load(unittest.TestCase):
    """Each test has a build folder with the results of a gate."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.out = Path(folder.name)
        self.written = results.run()
        results.write(self.out, self.written)

    def spoil(self, cell: str, content: bytes) -> None:
        """Replace a result.json."""
        (self.out / "results" / cell / "result.json").write_bytes(content)

    def changed(self, **changes: Any) -> bytes:
        """Return the first result.json with other values for some keys; None removes a key."""
        data = {key: value for key, value in {**self.written[0], **changes}.items() if value is not None}
        return json.dumps(data).encode()

    def test_as_written(self) -> None:
        """By all ways to name a run, in the order of the summary."""
        names = [result["cell"] for result in self.written]
        (self.out / "run.json").write_text(json.dumps(runs.load(self.out).compact()))
        for path in (self.out, self.out / "results", self.out / "results/summary.json", self.out / "run.json"):
            run = runs.load(path)
            self.assertEqual([result["cell"] for result in run.results], names, path)
            self.assertEqual(run.results[1]["suites"], self.written[1]["suites"])
            self.assertEqual(run.red, [])
        self.assertEqual(runs.load(self.out).kernels, {"Linux 7.3.4 (Debian 7.3.4-1), series 5f0c2c6ad1f9": names})

    def test_artifacts(self) -> None:
        """Results are found at any depth, as CI's jobs leave them. Without a summary, by name."""
        (self.out / "results/summary.json").unlink()
        place = self.out / "results/results-arm64-thp"
        place.mkdir()
        (self.out / "results/arm64-thp").rename(place / "arm64-thp")
        run = runs.load(self.out)
        self.assertEqual([result["cell"] for result in run.results], sorted(result["cell"] for result in self.written))
        self.assertEqual(run.folders["arm64-thp"], place / "arm64-thp")
        shutil.copytree(place / "arm64-thp", self.out / "results/again/arm64-thp")
        (red,) = runs.load(self.out).red
        self.assertIn("found twice", red["reasons"][0]["text"])

    def test_broken(self) -> None:
        """A result.json that is no result is red, says why, and leaves the others as they are."""
        suite = {"s": {"status": "passed", "cases": {"c": {"status": "maybe"}}}}
        broken = {
            "not JSON": b"{", "empty": b"", "no text": b"\xff\xfe{}", "a list": b"[]", "no number": b'{"cell": NaN}',
            "deep": b"[" * 100_000, "a number too long": b"1" * 5000, "too large": self.changed() + b" " * runs.LARGEST,
            "no cell": self.changed(cell=None), "another cell": self.changed(cell="x"), "verdict": self.changed(verdict="blue"),
            "no verdict": self.changed(verdict=None), "reasons": self.changed(reasons=[{"code": 1}]),
            "tests": self.changed(tests={"total": "1"}), "negative": self.changed(seconds={"boot": -1}),
            "infinite": self.changed(seconds={"boot": float("inf")}), "huge": self.changed(seconds={"boot": 10**30}),
            "true": self.changed(seconds={"boot": True}), "suites": self.changed(suites=[]), "status": self.changed(suites=suite),
            "green with reasons": self.changed(reasons=[{"code": "test", "text": "x failed"}]),
            "kernel": self.changed(kernel={"version": "7"}), "figures": self.changed(figures="x"),
            "commands": self.changed(commands={"boot": ["sh"]}),
        }  # fmt: skip
        for what, content in broken.items():
            with self.subTest(what):
                self.spoil("arm64-thp", content)
                run = runs.load(self.out)
                self.assertEqual(len(run.results), len(self.written))
                (red,) = run.red
                self.assertEqual((red["cell"], red["reasons"][0]["code"]), ("arm64-thp", "result"))
                self.assertRegex(red["reasons"][0]["text"], r"^result.json is unreadable: .+; run the cell again$")

    def test_not_a_file(self) -> None:
        """A folder in place of result.json; nothing in place of it; only a log, since the run was interrupted."""
        path = self.out / "results/arm64-thp/result.json"
        path.unlink()
        (red,) = runs.load(self.out).red
        self.assertIn("interrupted", red["reasons"][0]["text"])
        path.mkdir()
        (red,) = runs.load(self.out).red
        self.assertIn("unreadable: Is a directory", red["reasons"][0]["text"])

    def test_surrogates(self) -> None:
        """What JSON can have and UTF-8 cannot is replaced, so that it can be written again."""
        self.spoil("arm64-thp", self.changed(verdict="red", reasons=[{"code": "x", "text": results.HOSTILE}]))
        (red,) = runs.load(self.out).red
        self.assertIn("\\ud800", red["reasons"][0]["text"])
        json.dumps(runs.load(self.out).compact(), ensure_ascii=False).encode()

    def test_summary_knows_more(self) -> None:
        """--merge judges the logs again, and its reasons are in the summary only; so is a cell without any result."""
        summary = [json.loads(json.dumps(result)) for result in self.written]
        summary[0]["reasons"], summary[0]["verdict"] = [{"code": "result", "text": "stale"}], "red"
        summary.append(report.red("x86_64-new", "result", "this cell has no result"))
        (self.out / "results/summary.json").write_text(json.dumps({"cells": summary}))
        self.assertEqual([(red["cell"], red["reasons"][0]["text"]) for red in runs.load(self.out).red],
                         [("arm64-thp", "stale"), ("x86_64-new", "this cell has no result")])  # fmt: skip
        (self.out / "results/summary.json").write_text("{")
        self.assertEqual(runs.load(self.out).red, [])

    def test_nothing_there(self) -> None:
        """An error of one line, which says what to do."""
        shutil.rmtree(self.out / "results")
        (self.out / "results").mkdir()
        (self.out / "file").write_text("[1]")
        (self.out / "same").write_text(json.dumps({"cells": [self.written[0]] * 2}))
        for path, said in {self.out: "has no results; run make matrix first", self.out / "none": "no such file or folder; run make matrix",
                           self.out / "file": "an object was expected", self.out / "same": "a cell is listed twice"}.items():  # fmt: skip
            with self.assertRaisesRegex(WrongUse, said) as caught:
                runs.load(path)
            self.assertNotIn("\n", str(caught.exception))

    def test_missing(self) -> None:
        """The tests that did not run, from the reasons; whether there are more than the reasons name."""
        result = report.red("x", "missing", "s.case/one did not run")
        result["reasons"] += [{"code": "missing", "text": "t did not run"}, {"code": "test", "text": "u.v did not run"}]
        self.assertEqual(runs.missing(result), ({"s": ["case/one"], "t": [""]}, False))
        result["reasons"].append({"code": "missing", "text": "… and 7 more like these"})
        self.assertEqual(runs.missing(result), ({"s": ["case/one"], "t": [""]}, True))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""Test --merge, which CI's last job uses: it judges the logs again."""

import json
import shutil
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from matrix.common.data import sha256
from matrix.tests.consoles import CLEAN, E2E, spoil
from matrix.tests.test_endtoend import arrange
from matrix.tests.test_run import Fake


class Merge(Fake):
    """Results of both cells of the gate, KUnit and selftests, in two folders."""

    def setUp(self) -> None:
        super().setUp()
        arrange(self)
        self.play(exec={"text": CLEAN}, e2e={"text": E2E})
        status, text = self.run_main("--all")
        self.assertEqual(status, 0, text)
        self.folders = [self.root / "a", self.root / "b"]
        for folder, cell in zip(self.folders, ("one", "two")):
            for name in (cell, f"{cell}-e2e"):
                shutil.copytree(self.out / "results" / name, folder / name)

    def merge(self, *argv: str) -> tuple[int, str]:
        """Merge both folders."""
        return self.run_main("--merge", *map(str, self.folders), *argv)

    def check_red(self, said: str, spoiler: Callable[[Path], object]) -> None:
        """Check that the merge is red, with this text, after spoiler has changed the folder of cell two; restore it."""
        folder, good = self.folders[1] / "two", self.root / "good"
        shutil.copytree(folder, good)
        spoiler(folder)
        status, text = self.merge()
        self.assertEqual(status, 1, text)
        self.assertIn(said, text)
        self.assertEqual(json.loads((self.out / "results/summary.json").read_text())["verdict"], "red")
        shutil.rmtree(folder)
        good.rename(folder)

    def edit(self, old: str, new: str, name: str = "result.json") -> Callable[[Path], object]:
        """Return a spoiler that replaces a text."""

        def spoiler(folder: Path) -> None:
            text = (folder / name).read_text()
            self.assertIn(old, text)
            (folder / name).write_text(text.replace(old, new, 1))

        return spoiler

    def change(self, key: str, value: object) -> Callable[[Path], object]:
        """Return a spoiler that replaces a value of the result."""

        def spoiler(folder: Path) -> None:
            path = folder / "result.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

        return spoiler

    def forge(self, name: str, content: str) -> Callable[[Path], object]:
        """Return a spoiler that replaces a log and its digest."""

        def spoiler(folder: Path) -> None:
            (folder / name).write_text(content)
            result = json.loads((folder / "result.json").read_text())
            result["digests"][name] = sha256(folder / name)
            (folder / "result.json").write_text(json.dumps(result))

        return spoiler

    def test_green(self) -> None:
        """All results are present and valid: green."""
        status, text = self.merge()
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"\ntwo-e2e +green")

    def test_incomplete(self) -> None:
        """A missing result of a gate cell is red, whatever cells the command line names; so is a duplicate."""
        status, text = self.run_main("one", "--merge", str(self.folders[0]))
        self.assertEqual(status, 1)
        self.assertIn("two is red:\n  result: this cell has no result", text)
        self.assertIn("found twice", self.run_main("--merge", *map(str, [*self.folders, self.folders[0]]))[1])
        for argv in (("--filter", "alpha"), ("--shard", "1/2")):
            self.assertEqual(self.merge(*argv)[0], 2)

    def test_filtered(self) -> None:
        """A filtered run is red, even if its filter selects everything."""
        self.play(exec={"text": CLEAN}, e2e={"text": E2E})
        self.assertEqual(self.run_main("two", "--filter", "*")[0], 0)
        shutil.rmtree(self.folders[1] / "two")
        shutil.copytree(self.out / "results/two", self.folders[1] / "two")
        status, text = self.merge()
        self.assertEqual(status, 1)
        self.assertIn("two is red:\n  result: filtered (--filter *): not the gate", text)
        self.assertIn("filtered", (self.out / "results/summary.md").read_text())
        self.edit('"filter": "*"', '"filter": ""')(self.folders[1] / "two")
        self.assertIn("two is red:\n  result: filtered (--filter *): not the gate", self.merge()[1])

    def test_edited(self) -> None:
        """A changed result or log is red."""
        for said, spoiler in (
            ("of different kernels or series", self.edit('"version": "7.3.4"', '"version": "7.3.5"')),
            ("judged again, verdict of result.json would be: green", self.edit('"verdict": "green"', '"verdict": "red"')),
            ("judged again, tests of result.json would be: ", self.edit('"failed": 0', '"failed": 1')),
            ("judged again, skips of result.json would be: ", self.edit("no such hardware", "why not")),
            ("unreadable: ValueError: tests is missing", self.edit('"tests"', '"tasts"')),
            ("unreadable: ValueError: kernel", self.change("kernel", "7.3")),
            ("unreadable: ValueError: kernel", self.change("kernel", {"version": "7.3.4"})),
            ("unreadable: ValueError: reasons", self.change("reasons", {})),
            ("unreadable", lambda folder: (folder / "result.json").write_text("[")),
            ("unreadable: ValueError: nested too deeply", lambda folder: (folder / "result.json").write_text("[" * 100_000)),
            ("judged again, skips of result.json would be: ", self.edit("no such hardware", r"\ud800")),
            ("unreadable", self.edit('"exec_status"', '"exac_status"')),
            ("no such cell", self.edit('"cell": "two"', '"cell": "2"')),
            ("console.log has changed since it was judged: its sha256 differs", self.edit("a message", "another", "console.log")),
            ("build.log has changed since", lambda folder: (folder / "build.log").write_text("x")),
            ("unreadable: FileNotFoundError", lambda folder: (folder / "console.log").unlink()),
            ("judged again, reasons of result.json would be: splat: BUG after the tests", self.forge("console.log", CLEAN + "BUG: x\n")),
            ("judged again, reasons of result.json would be: config: CONFIG_", self.forge(".config", "")),
            ("judged again, reasons of result.json would be: warning: virt",
             self.forge("build.log", "virt/kvm/guest_memfd.c:7:1: warning: x\n")),
            ("judged again, reasons of result.json would be: exec: kunit.py exec", self.edit('"exec_status": 0', '"exec_status": 1')),
        ):  # fmt: skip
            with self.subTest(said):
                self.check_red(said, spoiler)

    def test_stale(self) -> None:
        """Results older than a change of the series, a fragment or the manifest are red."""
        for name in ("kernel/7.3/0001-x.patch", "configs/new.config", "matrix/e2e.toml"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("x")
            self.assertIn("one is red:\n  result: stale: kernel/, kunit/, configs/ or the data of matrix/ have changed", self.merge()[1])
            (self.root / name).unlink()
        self.assertEqual(self.merge()[0], 0)
        self.list.write_text(self.list.read_text() + "alpha.four\n")
        text = self.merge()[1]
        self.assertIn("expected.txt has changed since", text)
        self.assertIn("alpha.four did not run", text)

    def test_an_error_of_ours(self) -> None:
        """A run that ended in an internal error is red for that reason."""
        with mock.patch("matrix.cell.run.options", side_effect=ZeroDivisionError("x")):
            self.run_main("two")
        shutil.rmtree(self.folders[1] / "two")
        shutil.copytree(self.out / "results/two", self.folders[1] / "two")
        status, text = self.merge()
        self.assertEqual((status, text.count("  result: ")), (1, 0), text)
        self.assertIn("two is red:\n  check: check could not run: ZeroDivisionError: x", text)

    def test_red_stays_red(self) -> None:
        """A red result keeps its reasons and gets no others."""
        self.play(exec={"text": spoil("ok 1 alpha\n", "ok 1 alpha\nBUG: KASAN: x\n")})
        self.run_main("two")
        shutil.rmtree(self.folders[1] / "two")
        shutil.copytree(self.out / "results/two", self.folders[1] / "two")
        status, text = self.merge()
        self.assertEqual((status, text.count("  result: ")), (1, 0), text)
        self.assertIn("two is red:\n  splat: KASAN", text)


if __name__ == "__main__":
    unittest.main()

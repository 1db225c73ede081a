# SPDX-License-Identifier: GPL-2.0
"""Test make bench-loop: what is changed before each run, which runs must fail, and the table."""

import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from matrix.cell import cells
from matrix.common import proc
from matrix.common.errors import MachineError, WrongUse
from matrix.proof import loop
from matrix.proof.loop import Scenario, Side
from matrix.tests.fake_kernel import write

ROOT = Path(__file__).resolve().parents[2]
LINE = Scenario("line", 0.5, change="file.c", text="/* loop {} */")
ERROR = replace(LINE, name="error", text="/* loop {} */ error", fails=True)
COLD = Scenario("cold", 0.5, cold=True)


class Fake:
    """A program that compiles what does not contain "error"."""

    def __init__(self, name: str, green: bool = True) -> None:
        self.text, self.green, self.calls = "", green, list[str]()
        self.side = Side(name, self.run, self.write, lambda: self.calls.append("clean"))

    def run(self) -> bool:
        """Run the cells."""
        self.calls.append(self.text.strip() or "run")
        return self.green and "error" not in self.text

    def write(self, path: str, text: str) -> None:
        """Change a file."""
        assert path == "file.c"
        self.text = text


class Measure(unittest.TestCase):
    """The runs."""

    def measure(self, scenario: Scenario, rounds: int = 1, **words: bool) -> list[Fake]:
        """Measure two programs."""
        sides = [Fake("ours", **words), Fake("stock", **words)]
        saved: list[int] = []
        loop.measure([one.side for one in sides], [scenario], rounds, lambda text: None,
                     lambda: saved.append(len(sides[1].side.seconds[scenario.name])))  # fmt: skip
        self.assertEqual(saved, list(range(1, rounds + 1)))
        return sides

    def test_changes(self) -> None:
        """Each run has a change that no other run has; it stays; an error is repaired within the time that counts."""
        one, two = self.measure(LINE, rounds=2)
        self.assertEqual((one.calls, two.calls), (["/* loop 2 */", "/* loop 3 */"], ["/* loop 1 */", "/* loop 4 */"]))
        self.assertEqual((one.text, len(one.side.seconds["line"])), ("\n/* loop 3 */\n", 2))
        self.assertEqual(self.measure(ERROR)[0].calls, ["/* loop 2 */ error", "run"])
        self.assertEqual(self.measure(COLD)[0].calls, ["clean", "run"])

    def test_red(self) -> None:
        """A run that is red although it must not be, and an error that nobody notices."""
        with self.assertRaisesRegex(MachineError, "stock is not green after line"):
            self.measure(LINE, green=False)
        with self.assertRaisesRegex(MachineError, "was not noticed"):
            self.measure(replace(ERROR, text="/* loop {} */"))

    def test_table(self) -> None:
        """Medians and their ratio, as JSON, too."""
        sides = self.measure(LINE)
        for one, seconds in zip(sides, ([1.0, 2.0, 9.0], [8.0, 4.0, 3.0])):
            one.side.seconds["line"] = one.side.busy["line"] = seconds
        with mock.patch("os.sched_getaffinity", return_value={0, 1, 2, 3}):
            text = loop.markdown([one.side for one in sides], [LINE], [])
        self.assertIn("| line | 2.0 | 4.0 | 0.50 | 0.5 | met | 0.5 |", text)
        self.assertIn("median of 3", text)
        self.assertIn("missed", loop.markdown([one.side for one in sides], [replace(LINE, target=0.4)], []))
        found = loop.document([one.side for one in sides], [LINE], [], "0123")
        self.assertEqual((found["commit"], found["changes"]["line"]["ratio"], found["changes"]["line"]["target"]), ("0123", 0.5, 0.5))
        for what in ("seconds", "cpu_seconds"):
            self.assertEqual(found["changes"]["line"][what]["stock"], [8.0, 4.0, 3.0])

    def test_cpu_seconds(self) -> None:
        """What the children of a run have used counts, and not the time that they slept."""
        one = Fake("ours")
        busy = "import time\nwhile time.process_time() < 0.3: pass"
        one.side.run = lambda: not proc.run([sys.executable, "-c", busy], limit=60).returncode
        two = Fake("stock")
        two.side.run = lambda: not proc.run(["sleep", "0.3"], limit=60).returncode
        loop.measure([one.side, two.side], [LINE], 1, lambda text: None, lambda: None)
        self.assertGreaterEqual(one.side.busy["line"][0], 0.3)
        self.assertLess(two.side.busy["line"][0], one.side.busy["line"][0])


class Files(unittest.TestCase):
    """loop.toml, and how the two programs get their changes."""

    def test_project(self) -> None:
        """The scenarios of the project change files that exist there; each cell of the gate has its options."""
        scenarios, words = loop.load(ROOT)
        self.assertEqual(loop.choose(scenarios, []), scenarios)
        self.assertEqual([one.name for one in loop.choose(scenarios, ["suite"])], ["suite"])
        with self.assertRaisesRegex(WrongUse, "unknown scenario 'suit', did you mean suite"):
            loop.choose(scenarios, ["suit"])
        self.assertEqual(set(words), {cell.name for cell in cells.load(ROOT) if cell.gate})
        suite = next(one.change for one in scenarios if one.name == "suite")
        self.assertTrue((ROOT / "kunit" / Path(suite).name).is_file())

    def test_malformed(self) -> None:
        """A scenario that is no table, and options that are no list, are one line."""
        with tempfile.TemporaryDirectory() as name:
            for text, said in (("scenario = [1]\n[cell]\n", "write ..scenario.. above each scenario"),
                               ("scenario = []\ncell.a = 1\n", "a must be of type list")):
                write(Path(name) / loop.FILE, text)
                with self.assertRaisesRegex(WrongUse, said):
                    loop.load(Path(name))

    def test_sides(self) -> None:
        """Ours gets a patch or a changed suite in a copy of the project, stock a changed tree; cells and options are passed on."""
        with tempfile.TemporaryDirectory() as name:
            root, folder = Path(name) / "project", Path(name) / "loop"
            write(root / "project.toml", 'suites = "lib/tests"\n')
            for base in ("7.2", "7.3"):
                write(root / "kernel" / base / "source.toml", "")
                write(root / "kernel" / base / "series", "0001-a.patch\n")
            write(root / "kunit/a.c", "test\n")
            for file in ("lib/tests/a.c", "lib/b.c", "lib/c.h"):
                write(folder / "tree" / file, "test\n")
            (cell,) = cells.select(cells.load(ROOT), ["x86_64-thp"])
            with self.assertRaisesRegex(WrongUse, "has no x86_64-thp"):
                loop.stock(folder, [cell], {"other": []}, 2)
            one, two = loop.ours(root, folder, [cell], 2), loop.stock(folder, [cell], {"x86_64-thp": ["--more"]}, 2)
            series = folder / "project/kernel/7.3/series"
            for side in (one, two):
                side.write("lib/b.c", "\n/* loop 1 */\n")
                side.write("lib/tests/a.c", "\n/* loop 2 */\n")
                side.write("lib/c.h", "\n/* loop 3 */\n")
            self.assertEqual(series.read_text(), "0001-a.patch\n9999-loop.patch\n")
            git = ["git", "-C", str(folder / "git"), "-c", "user.name=x", "-c", "user.email=x@x"]
            for file in ("lib/b.c", "lib/c.h"):
                write(folder / "git" / file, "test\n")
            for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["am", "-q", str(series.parent / "9999-loop.patch")]):
                subprocess.run([*git, *words], check=True)
            self.assertEqual([(folder / "git/lib" / file).read_text() for file in ("b.c", "c.h")],
                             ["test\n\n/* loop 1 */\n", "test\n\n/* loop 3 */\n"])  # fmt: skip
            for changed in (folder / "project/kunit/a.c", folder / "tree/lib/tests/a.c"):
                self.assertEqual(changed.read_text(), "test\n\n/* loop 2 */\n")
            with mock.patch.object(proc, "run", return_value=proc.Completed((), 0, False, 1.0, "")) as run:
                self.assertTrue(one.run() and two.run())
            argv = [call.args[0] for call in run.call_args_list]
            self.assertEqual((argv[0][-1], argv[1][-1]), ("x86_64-thp", "--more"))
            for status in (2, -9):
                with mock.patch.object(proc, "run", return_value=proc.Completed((), status, False, 1.0, "")):
                    with self.assertRaisesRegex(MachineError, "run could not run; see .*ours.log"):
                        one.run()
            for side in (one, two):
                side.write("lib/b.c", "")
                side.write("lib/c.h", "")
                side.write("lib/tests/a.c", "")
            self.assertEqual((series.read_text(), (folder / "tree/lib/b.c").read_text()), ("0001-a.patch\n", "test\n"))
            self.assertEqual((folder / "project/kunit/a.c").read_text(), "test\n")


if __name__ == "__main__":
    unittest.main()

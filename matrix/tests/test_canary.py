# SPDX-License-Identifier: GPL-2.0
"""Test ./matrix/run --canaries on the fake tree of test_run: each canary's patch changes what the fake kunit.py does."""

import json
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.cell import cells
from matrix.proof import canary
from matrix.common.errors import WrongUse
from matrix.tests.consoles import CLEAN, spoil
from matrix.tests import test_run
from matrix.tests.test_run import Fake
from matrix.tree import tree

CANARY = """
[[canary]]
name = "{0}"
about = "{0}"
cell = "one"
patch = "{0}.patch"
reasons = {1}
"""
FAKE = test_run.prepared
END = ["end", "no 'reboot: Restarting system'"]


def prepared(root: Path, out: Path, ksrc: Path | None, say: Callable[[str], None]) -> tree.PreparedTree:
    """Put the fake tree into git, as tree.prepare() does."""
    made = FAKE(root, out, ksrc, say)
    folder = made.path.parent
    (folder / "git").mkdir(exist_ok=True)
    tree.git(folder, "init", "--quiet", "--template=")
    tree.git(folder, "add", "tools", "scenario.json")
    commit = tree.git(folder, "commit-tree", "-m", "all", tree.git(folder, "write-tree").strip()).strip()
    for name in ("base", "prepared"):
        tree.git(folder, "update-ref", f"refs/heads/{name}", commit)
    return made


class Canaries(Fake):
    """A project with canaries."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(test_run, "prepared", prepared))

    def write(self, **canaries: tuple[dict[str, Any], list[list[str]], str]) -> None:
        """Write canaries: name, scenario of its kunit.py, expected reasons, more keys."""
        folder = self.root / "matrix/canaries"
        folder.mkdir(exist_ok=True)
        old = (self.root / "scenario.json").read_text()
        text = ""
        for name, (scenario, reasons, more) in canaries.items():
            new = json.dumps({"exec": {"text": CLEAN}, **scenario})
            (folder / f"{name}.patch").write_text(
                f"Because.\n\n--- a/scenario.json\n+++ b/scenario.json\n@@ -1 +1 @@\n-{old}\n\\ No newline at end of file\n"
                f"+{new}\n\\ No newline at end of file\n")  # fmt: skip
            text += CANARY.format(name, json.dumps(reasons)) + more + "\n"
        (self.root / "matrix/canaries/canaries.toml").write_text(text)

    def test_none(self) -> None:
        """A project without canaries."""
        status, text = self.run_main("--canaries")
        self.assertEqual((status, "this project has no canaries" in text), (2, True), text)

    def test_right_reasons(self) -> None:
        """A canary that is red for its reasons passes; afterwards the tree is restored, and the results of cells are unchanged."""
        self.run_main("one")
        before = (self.out / "results/one/result.json").read_text()
        cut = {"exec": {"text": spoil("reboot: Restarting system\n", "")}}
        fails = {"exec": {"text": spoil("    ok 1 one", "    not ok 1 one")}}
        self.write(cut=(cut, [END], ""), fails=(fails, [["test", "alpha.one failed"], ["ktap", "contradicts"], ["ktap", "add up"]], ""))
        status, text = self.run_main("--canaries")
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"(?m)^ok canary cut: red as expected \(end\), \d+ s$")
        self.assertRegex(text, r"(?m)^ok canary fails: red as expected \(test, ktap\), \d+ s$")
        self.assertIn("cut: one: red, ", text)
        self.assertEqual(json.loads((self.out / "canaries/cut/results/one/result.json").read_text())["verdict"], "red")
        self.assertEqual((self.out / "results/one/result.json").read_text(), before)
        self.assertEqual((self.out / "linux-7.3.4/tree/scenario.json").read_text(), (self.root / "scenario.json").read_text())
        self.assertEqual({word for call in self.calls() for word in call if word.startswith("--build_dir")},
                         {f"--build_dir={self.out}/linux-7.3.4/cells/one"})  # fmt: skip
        self.assertEqual(self.run_main("one")[0], 0)

    def test_wrong_reasons(self) -> None:
        """A canary fails if it is green or has another reason, one more or one less. The message says so; the other canaries run."""
        cut = {"exec": {"text": spoil("reboot: Restarting system\n", "")}}
        both = {"exec": {"text": spoil("reboot: Restarting system\n", "BUG: KASAN: x\n")}}
        self.write(green=({"note": {}}, [END], ""), other=(cut, [["hang", "boot did"]], ""), more=(both, [END], ""),
                   less=(cut, [END, ["splat", "KASAN"]], ""), text=(cut, [["end", "something else"]], ""),
                   good=(cut, [END], ""))  # fmt: skip
        status, text = self.run_main("--canaries")
        self.assertEqual(status, 1)
        for line in (
            "not ok canary green: no end: …no 'reboot: Restarting system'…; logs: ",
            "not ok canary other: no hang: …boot did…; not expected: end: no 'reboot: Restarting system' after the last result; logs: ",
            "not ok canary more: not expected: splat: KASAN after the tests",
            "not ok canary less: no splat: …KASAN…; logs: ",
            "not ok canary text: no end: …something else…; logs: ",
            "ok canary good: ",
        ):
            self.assertIn("\n" + line, text)
        self.assertEqual(self.run_main("--canaries", "good")[0], 0)

    def test_more_keys(self) -> None:
        """Fragment, kernel arguments, filter and time limit reach kunit.py; a lost option is reported."""
        (self.root / "matrix/canaries").mkdir()
        (self.root / "matrix/canaries/swap.config").write_text("CONFIG_SWAP=y\n")
        text = ("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: alpha\n    1..1\n    ok 1 one\nok 1 alpha\n"
                "reboot: Restarting system")  # fmt: skip
        lost = {"config": {"config": "CONFIG_KUNIT=y\nCONFIG_THP=y\n"}, "exec": {"text": text}}
        self.write(lost=(lost, [["config", "CONFIG_SWAP is n, asked for y"]],
                         'fragment = "swap.config"\nfilter = "alpha.one"\nkernel_args = ["panic=-1"]\nboot_seconds = 7'))  # fmt: skip
        status, said = self.run_main("--canaries", "lost")
        self.assertEqual(status, 0, said)
        call = next(call for call in self.calls() if call[0] == "exec")
        for word in (f"--kunitconfig={self.root}/matrix/canaries/swap.config", "--kernel_args=panic=-1", "--timeout=7", "alpha.one"):
            self.assertIn(word, call)

    def test_refused(self) -> None:
        """Each mistake is reported in one line, before anything is built."""
        self.write(one=({}, [END], ""))
        path = self.root / "matrix/canaries/canaries.toml"
        good = path.read_text()
        for old, new, text in (
            ('cell = "one"', 'cell = "on"', "unknown cell 'on', did you mean one"),
            ('name = "one"', 'name = "../x"', "a name consists of letters"),
            ('about = "one"', '', "canary one: about is missing"),
            ('about', 'abuot', "unknown key 'abuot', did you mean about"),
            ('"one.patch"', '"two.patch"', "two.patch: no such file"),
            ('reasons = [[', 'reasons = []\nx = [[', "unknown key 'x'"),
            ('[["end", ', '[[', "reasons must be a list of pairs"),
            (good[good.index("reasons"):], "reasons = []", "not empty"),
            (good[good.index("reasons"):], "reasons = 1", "reasons must be a list of pairs"),
            ('[[canary]]', '[[canary', "canaries.toml: "),
            (good, '[canary]', "write [[canary]] above each canary"),
        ):
            path.write_text(good.replace(old, new))
            status, said = self.run_main("--canaries")
            self.assertEqual(status, 2, said)
            self.assertIn(text, said)
        path.write_text(good)
        self.assertIn("unknown canary 'two'; there are one", self.run_main("--canaries", "two")[1])
        for argv in (("--filter", "alpha"), ("--all",), ("--shard", "1/2")):
            self.assertIn("--canaries cannot be combined", self.run_main("--canaries", *argv)[1])
        (self.root / "matrix/canaries/one.patch").write_text("--- a/none.c\n+++ b/none.c\n@@ -1 +1 @@\n-a\n+b\n")
        status, said = self.run_main("--canaries")
        self.assertEqual(status, 2)
        self.assertIn("canaries/one.patch does not apply", said)


class Project(unittest.TestCase):
    """The project's own canaries.toml."""

    def test_complete(self) -> None:
        """It can be read, contains the four essential canaries, and uses every patch in the folder."""
        root = Path(__file__).resolve().parents[2]
        found = canary.load(root, cells.load(root))
        codes = {code for one in found for code, _ in one.reasons}
        self.assertLessEqual({"test", "missing", "splat", "end", "hang", "config"}, codes)
        used = {one.patch.name for one in found}
        self.assertEqual(used, {path.name for path in (root / "matrix/canaries").glob("*.patch")})
        for one in found:
            try:
                cells.asked(one.cell)
            except WrongUse as err:
                self.fail(str(err))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.port: what merges into another tree, and what conflicts."""

import re
import shutil
import unittest
from pathlib import Path

from matrix.common.errors import WrongUse
from matrix.tests.fake_kernel import FIRST, NUMBERS, PATCH, FakeKernel, snapshot, write
from matrix.tree import port, tree
from matrix.verdict import report

THIRD = PATCH.format(subject="Number twenty") + """diff --git a/virt/kvm/guest_memfd.c b/virt/kvm/guest_memfd.c
--- a/virt/kvm/guest_memfd.c
+++ b/virt/kvm/guest_memfd.c
@@ -17,7 +17,7 @@ line 16
 line 17
 line 18
 line 19
-line 20
+line twenty
 line 21
 line 22
 line 23
"""


class Port(FakeKernel):
    """Another tree, which differs from the base in line 10 and in the place of everything."""

    def setUp(self) -> None:
        super().setUp()
        self.set_series(FIRST, THIRD)
        self.other = self.top / "other"
        shutil.copytree(self.upstream, self.other, symlinks=True)
        write(self.other / "Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\nEXTRAVERSION =\n")

    def port(self) -> port.Ported:
        """Merge the series into the other tree."""
        return port.port(self.root, self.out, self.other, "another tree", self.say)

    def test_merges(self) -> None:
        """A patch merges although its lines are elsewhere, and the other tree is not written to."""
        write(self.other / "virt/kvm/guest_memfd.c", "new\n" * 50 + NUMBERS)
        before = snapshot(self.other)
        self.assertEqual(self.port(), port.Ported("7.2.12", "another tree", 2, ()))
        self.assertEqual(snapshot(self.other), before)
        self.assertEqual(port.table([self.port()]).splitlines()[-1], "| another tree | 0 of 2 | none |")
        self.assertIn("7.2.12 (another tree): 0 of 2 patches conflict", port.report([self.port()], self.out))

    def test_conflicts(self) -> None:
        """Each conflict is found with its file, which is kept with git's markers, and does not spoil the patches after it."""
        write(self.other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line X\n"))
        found = self.port()
        self.assertEqual(found.conflicts, (port.Conflict(1, "0001-p.patch", ("virt/kvm/guest_memfd.c",)),))
        text = (self.out / "port/7.2.12/0001-p/virt/kvm/guest_memfd.c").read_text()
        self.assertRegex(text, r"(?s)<<<<<<<.*line X\n=======\nline ten\n>>>>>>>")
        self.assertEqual(port.table([found]).splitlines()[-1], "| another tree | 1 of 2 | 1: `virt/kvm/guest_memfd.c` |")
        self.assertIn("7.2.12: patch 1, 0001-p.patch: conflict in virt/kvm/guest_memfd.c", port.report([found], self.out))

    def test_counts_once(self) -> None:
        """After a conflict the file is that of the series, so that a patch that changes the same line again merges."""
        again = FIRST.replace("-line 10\n+line ten\n", "-line ten\n+line TEN\n").replace("Number ten", "Shout")
        self.set_series(FIRST, again)
        write(self.other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line X\n"))
        self.assertEqual([conflict.number for conflict in self.port().conflicts], [1])

    def test_missing_file(self) -> None:
        """A file that the other tree does not have conflicts in each patch that changes it first."""
        (self.other / "virt/kvm/guest_memfd.c").unlink()
        self.assertEqual([conflict.number for conflict in self.port().conflicts], [1])

    def test_wrong_use(self) -> None:
        """A folder that is no kernel tree, a series that does not apply to its base, and a README without marks are refused."""
        (self.other / "Kbuild").unlink()
        with self.assertRaisesRegex(WrongUse, "is not a kernel tree"):
            self.port()
        (self.other / "Kbuild").touch()
        self.set_series(THIRD.replace("line 19", "line 99"))
        with self.assertRaisesRegex(WrongUse, "does not apply"):
            self.port()
        write(self.root / "kernel/trees.toml", "[tree]\nsuite = 'x'\n")
        with self.assertRaisesRegex(WrongUse, "write ..tree.. above each tree"):
            port.pins(self.root)

    def test_readme(self) -> None:
        """The table in kernel/README.md is that of the series of today: make port has been run since its last patch came."""
        root = Path(__file__).resolve().parents[2]
        text = (root / "kernel/README.md").read_text()
        written = text.partition(port.BEGIN)[2].partition(report.END)[0]
        self.assertEqual(set(re.findall(r"\| \d+ of (\d+) \|", written)), {str(len(tree.series(root, "7.3")))})


if __name__ == "__main__":
    unittest.main()

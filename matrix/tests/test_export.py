# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.export: the mailboxes, applied with git am, are the series."""

import os
import re
import shutil
import subprocess
import unittest
from unittest import mock

from matrix.tree import export, tree
from matrix.common.errors import WrongUse
from matrix.tests.fake_kernel import FIRST, SECOND, FakeKernel, snapshot, write

HOOK = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Person <a@example.org>
Date: Mon, 23 Nov 2026 10:00:00 +0000
Subject: [PATCH] KVM: Hook up the suites

Why.

Fixes: 0123456789ab ("something")
Signed-off-by: A Person <a@example.org>
---
 virt/kvm/kvm_main.c | 1 +
 1 file changed, 1 insertion(+)

diff --git a/virt/kvm/kvm_main.c b/virt/kvm/kvm_main.c
--- a/virt/kvm/kvm_main.c
+++ b/virt/kvm/kvm_main.c
@@ -1 +1,2 @@
 main
+virt/kvm/tests
"""
TOML = 'suites = "virt/kvm/tests"\n[build]\nx86_64 = []\narm64 = []\n[parts]\nfirst = "p"\n'


class Export(FakeKernel):
    """A series of two parts, whose second part hooks up the suites."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top / ".gitconfig", "[user]\nname = The Sender\nemail = s@example.org\n")
        self.enterContext(mock.patch.dict(os.environ, {"HOME": str(self.top), "GIT_CONFIG_GLOBAL": str(self.top / ".gitconfig")}))
        folder = self.root / "kernel/7.3"
        for path in folder.glob("*.patch"):
            path.unlink()
        for name, text in {"0001-p.patch": FIRST, "0002-q.patch": SECOND, "0003-r.patch": HOOK}.items():
            write(folder / name, text)
        write(folder / "series", "0001-p.patch\n0002-q.patch\n0003-r.patch\n")
        write(self.root / "project.toml", TOML)
        write(folder / "cover-first.txt", "KVM: Fix\n\nThe text of the fix.\n")
        write(folder / "cover-second.txt", "KVM: Add\n\nThe text of the addition.\n")
        write(folder / "suites.txt", "KVM: Add suites\n\nThey test.\n")

    def export(self, version: int = 1, commit: str = "") -> dict[str, str]:
        """Run make series and return name -> text."""
        return {path.name: path.read_text() for path in export.export(self.root, self.out, version, commit, self.say)}

    def subjects(self, mbox: str) -> list[str]:
        """Return the subjects in a mailbox."""
        return re.findall(r"^Subject: (.*)$", mbox, re.MULTILINE)

    def test_git_am(self) -> None:
        """The mailboxes apply with plain git am to the pristine source, and give the tree that the matrix builds."""
        got = self.export()
        self.assertEqual(list(got), ["first.cover", "first.mbox", "second.cover", "second.mbox"])
        repo = self.top / "clone"
        subprocess.run(["git", "clone", "-q", "-b", "base", str(self.out / "linux-7.3.4/git"), str(repo)], check=True)
        for part in ("first", "second"):
            subprocess.run(["git", "-C", str(repo), "am", "-q", str(self.out / f"series/v1/{part}.mbox")], check=True)
        subprocess.run(["rm", "-rf", str(repo / ".git")], check=True)
        want = tree.prepare(self.root, self.out, None, self.say)
        self.assertEqual(set(snapshot(repo)), set(snapshot(want.path)))
        self.assertEqual((repo / "virt/kvm/kvm_main.c").read_text(), (want.path / "virt/kvm/kvm_main.c").read_text())

    def test_mails(self) -> None:
        """Each part is numbered by itself, signed by the user alone, and the suites come right before the patch that hooks them up."""
        got = self.export(commit="0123456789abcdef")
        self.assertEqual(self.subjects(got["first.cover"]), ["[PATCH 0/1] KVM: Fix"])
        self.assertEqual(self.subjects(got["second.cover"]), ["[PATCH 0/3] KVM: Add"])
        found = self.subjects(got["second.mbox"])
        self.assertEqual(len(found), 3)
        self.assertEqual(found[1:], ["[PATCH 2/3] KVM: Add suites", "[PATCH 3/3] KVM: Hook up the suites"])
        self.assertIn("The text of the addition.", got["second.cover"])
        self.assertTrue(got["first.cover"].endswith("\nbase-commit: 0123456789abcdef\n"))
        self.assertRegex(got["second.cover"], r"\nbase-commit: 0123456789abcdef\nprerequisite-patch-id: [0-9a-f]{40}\n$")
        for text in got.values():
            self.assertNotIn("A Person", text)
            self.assertNotIn("*** ", text)
        self.assertIn('Fixes: 0123456789ab ("something")\nSigned-off-by: The Sender <s@example.org>\n---\n', got["second.mbox"])
        self.assertIn("They test.\n\nSigned-off-by: The Sender <s@example.org>\n", got["second.mbox"])
        self.assertEqual(got["second.mbox"].count("In-Reply-To: <cover."), 3)
        self.assertIn("Date: Mon, 23 Nov 2026 10:00:00 +0000", got["second.mbox"])

    def test_range_diff(self) -> None:
        """A later version says what has changed since the newest before it, and keeps that."""
        first = self.export()
        self.assertEqual([line for line in self.said if "range-diff" in line], [])
        write(self.root / "kunit/gmem_kunit.c", "another test\n")
        got = self.export(3)
        self.assertIn("Range-diff against v1:", got["second.cover"])
        self.assertRegex(got["second.cover"], r"(?m)^ +-\+test\n +\+\+another test$")
        self.assertIn("[PATCH v3 2/3] KVM: Add suites", got["second.mbox"])
        self.assertEqual((self.out / "series/v1/second.mbox").read_text(), first["second.mbox"])

    def test_another_base(self) -> None:
        """An older base has a folder of its own, and the texts of the newest base where it has none itself."""
        old = self.root / "kernel/7.2"
        shutil.copytree(self.root / "kernel/7.3", old)
        for name in ("cover-first.txt", "suites.txt"):
            (old / name).unlink()
        write(old / "cover-second.txt", "KVM: Add to 7.2\n\nThe text for 7.2.\n")
        other = self.top / "other"
        shutil.copytree(self.upstream, other, symlinks=True)
        write(other / "Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\nEXTRAVERSION =\n")
        paths = export.export(self.root, self.out, 1, "", self.say, other)
        self.assertEqual({path.parent for path in paths}, {self.out / "series/v1-7.2"})
        got = {path.name: path.read_text() for path in paths}
        self.assertEqual(self.subjects(got["first.cover"]), ["[PATCH 0/1] KVM: Fix"])
        self.assertEqual(self.subjects(got["second.cover"]), ["[PATCH 0/3] KVM: Add to 7.2"])
        self.assertIn("Based on Linux 7.2.12", got["second.cover"])
        self.assertIn("[PATCH 2/3] KVM: Add suites", got["second.mbox"])

    def test_refused(self) -> None:
        """Without a user, a cover letter, a hook or a valid number there is no mailbox, and the error tells what is missing."""
        for version, commit in ((0, ""), (1, "HEAD")):
            with self.assertRaisesRegex(WrongUse, "the version must be a number above 0, and the base commit"):
                self.export(version, commit)
        write(self.root / "kernel/7.3/series", "0001-p.patch\n0002-q.patch\n")
        with self.assertRaisesRegex(WrongUse, "no patch of kernel/7.3 hooks up virt/kvm/tests"):
            self.export()
        write(self.root / "kernel/7.3/series", "0001-p.patch\n0002-q.patch\n0003-r.patch\n")
        (self.root / "kernel/7.3/cover-first.txt").unlink()
        with self.assertRaisesRegex(WrongUse, "cover-first.txt is missing"):
            self.export()
        self.assertFalse((self.out / "series/v1").exists())
        self.assertEqual(tree.git(self.out / "linux-7.3.4", "for-each-ref", "refs/exports"), "")
        write(self.top / ".gitconfig", "")
        with self.assertRaisesRegex(WrongUse, "git does not know who sends the series"):
            self.export()


if __name__ == "__main__":
    unittest.main()

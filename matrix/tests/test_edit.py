# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.edit: from the series to commits and back, without losing work."""

import os
import shutil
import subprocess
import unittest
from pathlib import Path
from unittest import mock

from matrix.tree import edit, tree
from matrix.common.errors import WrongUse
from matrix.tests.fake_kernel import FIRST, PATCH, SECOND, FakeKernel, snapshot, write


class Edit(FakeKernel):
    """Run on the fake kernel, with a git that has no user name."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.dict(os.environ, {"HOME": str(self.top)})
        patch.start()
        self.addCleanup(patch.stop)

    def edit(self) -> Path:
        """Run make edit."""
        return edit.edit(self.root, self.out, self.say)

    def refresh(self) -> None:
        """Run make refresh."""
        edit.refresh(self.root, self.out, self.say)

    def git(self, *args: str) -> str:
        """Run git in the repository as the user would."""
        identity = ("-c", "user.name=x", "-c", "user.email=x@x")
        return subprocess.run(["git", *identity, "-C", str(self.out / "edit/linux-7.3"), *args],
                              check=True, capture_output=True, text=True).stdout

    def patches(self) -> dict[str, str]:
        """Return the files of kernel/7.3."""
        folder = self.root / "kernel/7.3"
        return {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".patch"}

    def test_there_and_back(self) -> None:
        """Each patch becomes one commit; written back twice, the files are identical and apply to the same tree."""
        want = tree.prepare(self.root, self.out, None, self.say).series
        repo = self.edit()
        self.assertEqual(repo, self.out / "edit/linux-7.3")
        self.assertEqual(self.git("log", "--format=%s|%an|%as", "base..").splitlines(),
                         ["KVM: A new file, and one less|A Person|2026-11-22", "KVM: Number ten|A Person|2026-11-22"])
        self.assertEqual(self.git("status", "--porcelain"), "")
        self.assertEqual((repo / "virt/kvm/tests/gmem_kunit.c").resolve(), self.root / "kunit/gmem_kunit.c")
        # "../guest_memfd.h" of a suite is the repository's own.
        self.assertEqual((repo / "virt/kvm/tests").resolve().parent, repo / "virt/kvm")
        self.refresh()
        first = self.patches()
        self.assertEqual(sorted(first), ["0001-KVM-Number-ten.patch", "0002-KVM-A-new-file-and-one-less.patch"])
        self.assertEqual((self.root / "kernel/7.3/series").read_text(),
                         "# in order\n0001-KVM-Number-ten.patch\n0002-KVM-A-new-file-and-one-less.patch\n")
        for text in first.values():
            self.assertTrue(text.startswith("From 0000000000000000000000000000000000000000 "))
            self.assertIn("Subject: [PATCH] KVM: ", text)
            self.assertNotRegex(text, r"\n-- \n")
        self.assertEqual(tree.prepare(self.root, self.out, None, self.say).series, want)
        self.refresh()
        self.edit()
        self.refresh()
        self.assertEqual(self.patches(), first)

    def test_a_persons_settings_do_not_show(self) -> None:
        """Settings of ~/.gitconfig for signatures, prefixes and context do not affect the patches."""
        self.edit()
        self.refresh()
        want = self.patches()
        write(self.top / ".gitconfig", "[diff]\nnoprefix = true\ncontext = 9\n[format]\nsignature = me\nnumbered = true\n")
        self.refresh()
        self.assertEqual(self.patches(), want)

    def test_a_commit_becomes_a_patch(self) -> None:
        """A new commit is written, including a new file that Debian's .gitignore would hide."""
        repo = self.edit()
        write(repo / "virt/kvm/third.c", "third\n")
        with self.assertRaisesRegex(WrongUse, r"1 uncommitted change\(s\): virt/kvm/third.c"):
            self.refresh()
        self.git("add", "-A")
        self.git("commit", "-qm", "KVM: Third")
        before = self.patches()
        self.refresh()
        self.assertIn("+third\n", self.patches()["0003-KVM-Third.patch"])
        self.assertNotIn("0001-p.patch", self.patches())
        self.assertEqual(len(self.patches()), len(before) + 1)

    def test_new_suite_in_the_repository_is_not_lost(self) -> None:
        """A regular file in the folder of the suites is reported, because no commit contains it."""
        repo = self.edit()
        write(repo / "virt/kvm/tests/gmem_new_kunit.c", "new\n")
        for again in (self.edit, self.refresh):
            with self.assertRaisesRegex(WrongUse, "gmem_new_kunit.c .* move the file to"):
                again()

    def test_kunit_is_not_in_the_commits(self) -> None:
        """Editing a suite through its symlink changes kunit/, and git ignores it."""
        repo = self.edit()
        write(repo / "virt/kvm/tests/gmem_kunit.c", "edited\n")
        self.assertEqual((self.root / "kunit/gmem_kunit.c").read_text(), "edited\n")
        self.git("add", "-A")
        self.assertEqual(self.git("status", "--porcelain"), "")

    def test_edit_again_keeps_work(self) -> None:
        """If the patches are unchanged, so is the repository; if they have changed, unsaved work is kept and reported."""
        repo = self.edit()
        write(repo / "virt/kvm/kvm_main.c", "work\n")
        self.edit()
        self.assertEqual((repo / "virt/kvm/kvm_main.c").read_text(), "work\n")
        self.set_series(FIRST)
        for step in ("dirty", "committed"):
            with self.subTest(step), self.assertRaisesRegex(WrongUse, "has unsaved work"):
                self.edit()
            self.assertEqual((repo / "virt/kvm/kvm_main.c").read_text(), "work\n")
            if step == "dirty":
                self.git("commit", "-qam", "work")
        with self.assertRaisesRegex(WrongUse, "kernel/7.3 has changed since make edit"):
            self.refresh()

    def test_the_source_goes(self) -> None:
        """Work in the repository survives a new series, and the removal of the git directory from which it borrows objects."""
        repo = self.edit()
        write(repo / "virt/kvm/third.c", "third\n")
        self.git("add", "-A")
        self.git("commit", "-qm", "KVM: Third")
        for change in (SECOND, SECOND.replace("+new\n", "+newer\n")):
            self.set_series(FIRST, change)
            shutil.rmtree(self.out / "linux-7.3.4")
            if change == SECOND:
                self.edit()
            else:
                with self.assertRaisesRegex(WrongUse, "has unsaved work"):
                    self.edit()
            self.git("fsck", "--strict")
            self.assertEqual(len(self.git("log", "-p", "--format=%s", "base..").split("KVM: ")), 4)

    def test_edit_follows_changed_patches(self) -> None:
        """Without unsaved work, a changed series replaces the commits."""
        self.edit()
        self.set_series(FIRST)
        self.edit()
        self.assertEqual(self.git("log", "--format=%s", "base..").splitlines(), ["KVM: Number ten"])

    def test_stopped_half_way(self) -> None:
        """After a kill, on the first run or later, the next make edit starts over."""
        write(self.out / "edit/linux-7.3/Makefile", "half")
        repo = self.edit()
        self.assertEqual(edit.unsaved(repo), "")
        (repo / ".git/gmem.json").unlink()
        self.git("reset", "-q", "--hard", "HEAD~1")
        (repo / ".git/rebase-apply").mkdir()
        self.edit()
        self.set_series(FIRST)
        with mock.patch.object(edit, "agree", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.edit()
        self.set_series(FIRST, SECOND)
        self.edit()
        self.assertEqual(len(self.git("rev-list", "base..").splitlines()), 2)
        self.assertEqual(edit.unsaved(repo), "")

    def test_a_series_that_does_not_apply(self) -> None:
        """A patch that does not apply is reported; once it is fixed, make edit works."""
        self.set_series(FIRST, FIRST)
        with self.assertRaisesRegex(WrongUse, "kernel/7.3/0002-p.patch does not apply"):
            self.edit()
        self.set_series(FIRST, SECOND)
        self.edit()

    def test_refresh_refuses(self) -> None:
        """No repository, HEAD elsewhere, a merge, no commits, a rebase in progress: each is refused and kernel/ is unchanged."""
        with self.assertRaisesRegex(WrongUse, "run make edit to create it"):
            self.refresh()
        repo = self.edit()
        before = snapshot(self.root)
        steps: dict[str, list[tuple[str, ...]]] = {
            "HEAD is not on top of base": [("checkout", "-q", "--orphan", "other"), ("commit", "-qm", "x")],
            "no commits on top": [("checkout", "-q", "base")],
            "there are merges": [("checkout", "-qB", "m", "series~1"), ("commit", "-q", "--allow-empty", "-m", "e"),
                                 ("merge", "-q", "-m", "m", "series")],
        }
        for text, commands in steps.items():
            with self.subTest(text):
                for command in commands:
                    self.git(*command)
                with self.assertRaisesRegex(WrongUse, text):
                    self.refresh()
                self.git("checkout", "-qf", "series")
        (repo / ".git/rebase-merge").mkdir()
        with self.assertRaisesRegex(WrongUse, "is in progress"):
            self.refresh()
        self.assertEqual(snapshot(self.root), before)

    def test_many_old_commits(self) -> None:
        """git walks commits by date: it would not find a base that is younger than a long series."""
        self.set_series(FIRST.replace("22 Nov 2026", "22 Nov 2020"), *(
            PATCH.format(subject=f"File {n}").replace("22 Nov 2026", "22 Nov 2020") +
            f"diff --git a/mm/f{n}.c b/mm/f{n}.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/f{n}.c\n@@ -0,0 +1 @@\n+x\n"
            for n in range(12)))
        self.edit()
        self.refresh()
        self.assertEqual(len(self.patches()), 13)

    def test_clean_asks_first(self) -> None:
        """unsaved() reports work, for make clean."""
        repo = self.edit()
        self.assertEqual(edit.unsaved(repo), "")
        self.git("commit", "-q", "--allow-empty", "-m", "work")
        self.assertIn("differ from those last written", edit.unsaved(repo))
        self.refresh()
        self.assertEqual(edit.unsaved(repo), "")

    def test_patch_text_survives(self) -> None:
        """Subject prefixes, trailers and the text above --- are preserved."""
        first = FIRST.replace("PATCH]", "PATCH] [RFC]")
        self.set_series(first.replace("Because.", "Because [1].\n\n  indented\n\nLink: https://example.org/ [1]"))
        self.edit()
        self.refresh()
        text = self.patches()["0001-RFC-KVM-Number-ten.patch"]
        for line in ("Because [1].", "  indented", "Link: https://example.org/ [1]", "Signed-off-by: A Person"):
            self.assertIn(line, text)
        self.assertIn("Subject: [PATCH] [RFC] KVM: Number ten\n", text)


if __name__ == "__main__":
    unittest.main()

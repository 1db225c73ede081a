# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.rebase: the series on another kernel, what conflicts, and the way to a second base."""

import os
import shutil
import subprocess
from pathlib import Path
from unittest import mock

from matrix.common.errors import WrongUse
from matrix.tests.fake_kernel import NUMBERS, FakeKernel, snapshot, write
from matrix.tree import edit, rebase, source, tree


class Rebase(FakeKernel):
    """Another tree, whose lines are elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        pin = self.root / "kernel/7.3/source.toml"
        pin.write_text(f"# any 7.3.y works\n{pin.read_text()}")
        self.enterContext(mock.patch.dict(os.environ, {"HOME": str(self.top)}))
        self.other = self.top / "other"
        shutil.copytree(self.upstream, self.other, symlinks=True)
        write(self.other / "Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\nEXTRAVERSION =\n")
        write(self.other / "virt/kvm/guest_memfd.c", "new\n" * 50 + NUMBERS)
        self.repo = self.out.resolve() / "edit/linux-7.2"

    def rebase(self) -> tuple[Path, str]:
        """Run make rebase."""
        return rebase.rebase(self.root, self.out, self.other, self.say)

    def git(self, *args: str) -> str:
        """Run git in the repository as the user would."""
        identity = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "core.editor=true")
        return subprocess.run(["git", *identity, "-C", str(self.repo), *args], check=True, capture_output=True, text=True).stdout

    def test_second_base(self) -> None:
        """The commits become kernel/7.2, which applies to that tree and names Debian's package, and the tree is not written to."""
        before = snapshot(self.other)
        self.assertEqual(self.rebase(), (self.repo, ""))
        self.assertEqual(snapshot(self.other), before)
        self.assertEqual(self.git("log", "--format=%s|%an", "base..").splitlines(),
                         ["KVM: A new file, and one less|A Person", "KVM: Number ten|A Person"])
        edit.refresh(self.root, self.out, self.say, "7.2")
        folder = self.root / "kernel/7.2"
        self.assertEqual((folder / "series").read_text(), "0001-KVM-Number-ten.patch\n0002-KVM-A-new-file-and-one-less.patch\n")
        self.assertIn("@@ -57,7 +57,7 @@", (folder / "0001-KVM-Number-ten.patch").read_text())
        self.assertEqual(source.bases(self.root), ["7.2", "7.3"])
        self.assertIn("# any 7.2.y works", (folder / "source.toml").read_text())
        pin = source.load_pin(self.root, "7.2")
        self.assertEqual((pin.version, pin.package), ("7.2.12", "linux-source-7.2"))
        prepared = tree.prepare(self.root, self.out, self.other, self.say)
        self.assertEqual((prepared.path / "virt/kvm/guest_memfd.c").read_text(), "new\n" * 50 + NUMBERS.replace("line 10\n", "line ten\n"))
        self.assertEqual(tree.prepare(self.root, self.out, None, self.say).version, "7.3.4")

    def test_new_file(self) -> None:
        """git shows a new file, although Debian's .gitignore hides all; make refresh would leave it out otherwise."""
        self.rebase()
        write(self.repo / "virt/kvm/another.c", "new\n")
        self.assertEqual(self.git("status", "--porcelain"), "?? virt/kvm/another.c\n")

    def test_conflict(self) -> None:
        """The patch and its file are named; once it is resolved, git goes on with the others; unsaved work is kept."""
        write(self.other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line X\n"))
        repo, why = self.rebase()
        self.assertEqual((repo, why.partition(":")[0]), (self.repo, "patch 1 of 2 conflicts in virt/kvm/guest_memfd.c"))
        with self.assertRaisesRegex(WrongUse, "has unsaved work: a rebase, am, merge or cherry-pick is in progress"):
            self.rebase()
        with self.assertRaisesRegex(WrongUse, "is in progress"):
            edit.refresh(self.root, self.out, self.say, "7.2")
        write(self.repo / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line X and ten\n"))
        self.git("commit", "-qa", "--no-edit")
        with self.assertRaisesRegex(WrongUse, "is in progress"):  # git has patches left to pick
            edit.refresh(self.root, self.out, self.say, "7.2")
        self.git("cherry-pick", "--continue")
        self.assertEqual(len(self.git("rev-list", "base..").splitlines()), 2)
        with self.assertRaisesRegex(WrongUse, "has unsaved work: the commits differ"):
            self.rebase()
        edit.refresh(self.root, self.out, self.say, "7.2")
        self.assertIn("+line X and ten", (self.root / "kernel/7.2/0001-KVM-Number-ten.patch").read_text())

    def test_own_tree(self) -> None:
        """A product kernel of a version that kernel/ has, with other changes: the series of that version is merged into it."""
        write(self.other / "Makefile", "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
        write(self.other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 11\n", "line X\n"))
        with self.assertRaisesRegex(WrongUse, "does not apply to .*\n(.*\n)*make rebase KSRC=.*/other merges the series into this tree"):
            tree.prepare(self.root, self.out, self.other, self.say)
        repo, why = self.rebase()
        self.assertEqual((repo.name, why.partition(":")[0]), ("linux-7.3", "patch 1 of 2 conflicts in virt/kvm/guest_memfd.c"))
        write(repo / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\nline 11\n", "line ten\nline X\n"))
        edit.git(repo, "commit", "-qa", "--no-edit")
        edit.git(repo, "cherry-pick", "--continue")
        edit.refresh(self.root, self.out, self.say, "7.3")
        prepared = tree.prepare(self.root, self.out, self.other, self.say)
        self.assertIn("line ten\nline X\n", (prepared.path / "virt/kvm/guest_memfd.c").read_text())

    def test_present(self) -> None:
        """A patch that the other kernel has already is to be skipped."""
        write(self.other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line ten\n"))
        self.assertRegex(self.rebase()[1], "^patch 1 of 2 is in this kernel already: git cherry-pick --skip")
        self.git("cherry-pick", "--skip")
        self.assertEqual(edit.git(self.repo, "log", "--format=%s", "base.."), "KVM: A new file, and one less")

    def test_interrupted(self) -> None:
        """After a kill, make rebase starts over."""
        with mock.patch.object(edit, "agree", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.rebase()
        self.assertEqual(self.rebase(), (self.repo, ""))

    def test_edit(self) -> None:
        """make edit and the matrix fetch the source of the base that they are given by name."""
        self.rebase()
        edit.refresh(self.root, self.out, self.say, "7.2")
        shutil.rmtree(self.repo)
        with (mock.patch.object(source, "load_pin", wraps=source.load_pin) as asked,
              mock.patch.object(source, "fetch", side_effect=KeyError)):
            with self.assertRaises(KeyError):
                edit.edit(self.root, self.out, self.say, "7.2")
            with self.assertRaises(KeyError):
                tree.prepare(self.root, self.out, Path("7.2"), self.say)
        self.assertEqual({call.args[1] for call in asked.call_args_list}, {"7.2"})

    def test_wrong_use(self) -> None:
        """A folder that is no kernel tree is refused, and a kernel without a series points to make rebase."""
        for kernel in ("7.2", "/src/linux"):
            with self.assertRaisesRegex(WrongUse, f"no series for Linux {kernel}; make rebase"):
                edit.refresh(self.root, self.out, self.say, kernel)
        with self.assertRaisesRegex(WrongUse, "is not a folder"):
            rebase.rebase(self.root, self.out, self.top / "nothing", self.say)
        with self.assertRaisesRegex(WrongUse, "is Linux 7.2.12; the series exists for 7.3. make rebase KSRC=.*/other brings it there"):
            tree.prepare(self.root, self.out, self.other, self.say)

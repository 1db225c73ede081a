# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.tree on a kernel of a few files."""

import os
import subprocess
import time
import unittest
from pathlib import Path
from unittest import mock

from matrix.common import proc
from matrix.tree import source, tree
from matrix.common.errors import MachineError, WrongUse
from matrix.tests.fake_kernel import FIRST, MAKEFILE, NUMBERS, OLD, SECOND, FakeKernel, snapshot, write

# Patches on top of the series.
ON_TOP = FIRST.replace("-line 10\n+line ten", "-line ten\n+line TEN")
OTHERS = """diff --git a/virt/kvm/tests/gmem_kunit.c b/virt/kvm/tests/gmem_kunit.c
--- a/virt/kvm/tests/gmem_kunit.c
+++ b/virt/kvm/tests/gmem_kunit.c
@@ -1 +1 @@
-test
+broken test
diff --git a/lib/fresh.c b/lib/fresh.c
new file mode 100644
--- /dev/null
+++ b/lib/fresh.c
@@ -0,0 +1 @@
+fresh
diff --git a/virt/kvm/kvm_main.c b/virt/kvm/kvm_main.c
deleted file mode 100644
--- a/virt/kvm/kvm_main.c
+++ /dev/null
@@ -1 +0,0 @@
-main
"""


class Prepared(FakeKernel):
    """From the tarball."""

    def prepare(self, ksrc: Path | None = None) -> tree.PreparedTree:
        """Call prepare() for the project."""
        return tree.prepare(self.root, self.out, ksrc, self.say)

    def text(self, name: str) -> str:
        """Return a file of the prepared tree."""
        return (self.out / "linux-7.3.4/tree" / name).read_text()

    def test_first_time(self) -> None:
        """Files are patched, added, removed, copied from kunit/ and linked; unchanged files keep the tarball's mtime."""
        got = self.prepare()
        self.assertEqual(got.path, self.out / "linux-7.3.4/tree")
        self.assertEqual((got.version, got.origin), ("7.3.4", "Debian linux-source-7.3 7.3.4-1"))
        self.assertEqual(got.touched, {"virt/kvm/guest_memfd.c", "virt/kvm/new.c", "mm/gone.c",
                                       *(f"virt/kvm/tests/{n}" for n in ("Makefile", "gmem_kunit.c", ".kunitconfig"))})
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))
        self.assertEqual(self.text("virt/kvm/new.c"), "new\n")
        self.assertFalse((got.path / "mm/gone.c").exists())
        self.assertFalse((got.path / "virt/kvm/tests/README.md").exists())
        self.assertEqual(os.readlink(got.path / "scripts/link"), "run.sh")
        self.assertTrue(os.access(got.path / "scripts/run.sh", os.X_OK))
        self.assertEqual((got.path / "Makefile").stat().st_mtime, OLD)
        self.assertEqual(tree.pristine_text(got, "virt/kvm/guest_memfd.c"), NUMBERS)
        self.assertEqual(tree.pristine_text(got, "virt/kvm/new.c"), "")
        self.assertEqual({path.name for path in got.path.parent.iterdir()}, {"git", "tree", "base.json"})

    def test_part(self) -> None:
        """A part has the suites and no later patch, in a tree of its own; the whole series stays as it is."""
        whole = self.prepare()
        before = snapshot(whole.path)
        first = tree.series(self.root, "7.3")[0].stem.partition("-")[2]
        with (self.root / "project.toml").open("a") as file:
            file.write(f'[parts]\nfirst = "{first}"\nlost = "lost"\n')
        got = tree.prepare(self.root, self.out, None, self.say, "first")
        self.assertEqual((got.path, got.part), (self.out / "linux-7.3.4/part-first", "first"))
        self.assertIn("line ten\n", (got.path / "virt/kvm/guest_memfd.c").read_text())
        self.assertTrue((got.path / "mm/gone.c").exists())
        self.assertTrue((got.path / "virt/kvm/tests/gmem_kunit.c").exists())
        self.assertNotIn("mm/gone.c", got.touched)
        self.assertEqual(snapshot(whole.path), before)
        self.assertEqual(self.prepare(), whole)
        with self.assertRaisesRegex(WrongUse, "does not have the last patch of lost, lost; correct"):
            tree.prepare(self.root, self.out, None, self.say, "lost")

    def test_full_in_the_words_of_git(self) -> None:
        """What git says about a full disk, often without the system's words, does not mean that a patch does not apply."""
        for said in ("error: unable to write file virt/kvm/guest_memfd.c\nerror: cannot checkout virt/kvm/guest_memfd.c",
                     "fatal: sha1 file '/x/am.index.lock' write error. Out of diskspace", "cannot update ref 'x': couldn't write '/x.lock'",
                     "error: failed to write new configuration file /x/git/config.lock"):
            done = proc.Completed(("git",), 128, False, 0.1, said)
            with mock.patch.object(proc, "run", return_value=done), self.assertRaisesRegex(MachineError, "disk full"):
                tree.try_git(self.out, "am")

    def test_path(self) -> None:
        """Where the kernel cannot be built, nothing is prepared."""
        for name in ("a b", "a:b"):
            with self.assertRaisesRegex(WrongUse, "with a space or a colon"):
                tree.prepare(self.root, self.top / name, None, self.say)
            self.assertFalse((self.top / name).exists())

    def test_nothing_changed_touches_nothing(self) -> None:
        """No mtime or inode changes, and the tarball is not read again."""
        first = self.prepare()
        before = snapshot(first.path)
        for path in self.cache.iterdir():
            path.unlink()
        self.assertEqual(self.prepare(), first)
        self.assertEqual(snapshot(first.path), before)

    def test_pristine(self) -> None:
        """pristine() gives the unchanged source, beside the tree."""
        path = self.prepare().path
        before = snapshot(path)
        got = tree.pristine(self.root, self.out, None, self.say)
        self.assertEqual((got.path / "virt/kvm/guest_memfd.c").read_text(), NUMBERS)
        self.assertEqual({name: item[0] for name, item in snapshot(got.path).items() if name != ".gitignore"},
                         {name: item[0] for name, item in snapshot(self.upstream).items() if name != ".gitignore"})
        self.assertEqual(snapshot(path), before)

    def test_settings_do_not_matter(self) -> None:
        """Git settings of the user, GIT_ variables and attributes in the source do not affect the tree."""
        write(self.upstream / ".gitattributes", "* text=auto eol=crlf ident\n", OLD)
        write(self.upstream / "mm/crlf.c", "$Id$\r\n", OLD)
        self.fill_cache()
        want = self.prepare()
        (want.path / "mm/crlf.c").unlink()
        self.prepare()
        self.assertEqual((want.path / "mm/crlf.c").read_bytes(), b"$Id$\r\n")
        subprocess.run(["rm", "-r", str(self.out)], check=True)
        write(self.top / "hooks/post-applypatch", "#!/bin/sh\nexit 1\n").chmod(0o755)
        write(self.top / ".gitconfig", f"[core]\nautocrlf = true\nhooksPath = {self.top}/hooks\n[am]\nkeepcr = true\nthreeWay = true\n"
              "[apply]\nwhitespace = error\nignoreWhitespace = change\n[commit]\ngpgsign = true\n")
        with mock.patch.dict(os.environ, {"HOME": str(self.top), "GIT_CONFIG_GLOBAL": str(self.top / ".gitconfig"),
                                          "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere", "GIT_AUTHOR_DATE": "@1"}):
            self.assertEqual(self.prepare(), want)
            self.set_series(FIRST.replace(" line 7\n", " line  7\n"))
            with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply"):
                self.prepare()

    def test_a_changed_series_touches_only_what_it_changes(self) -> None:
        """A changed patch changes its files, with a fresh mtime; so does changing it back."""
        first = self.prepare()
        for patches in ((FIRST.replace("+line ten", "+line 10.0"), SECOND), (FIRST, SECOND), (SECOND,), (FIRST, SECOND)):
            before = snapshot(first.path)
            start = time.time_ns()
            time.sleep(0.02)
            self.set_series(*patches)
            got = self.prepare()
            after = snapshot(first.path)
            moved = {name for name, item in after.items() if before.get(name) != item}
            self.assertEqual(moved, {"virt/kvm/guest_memfd.c"})
            self.assertGreater(after["virt/kvm/guest_memfd.c"][2], start)
            self.assertNotEqual(got.series == first.series, patches != (FIRST, SECOND))
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))

    def test_a_dropped_patch_leaves_nothing(self) -> None:
        """Without a patch its new file is removed, and the file it removed is restored, with a fresh mtime for make."""
        path = self.prepare().path
        start = time.time()
        self.set_series(FIRST)
        self.prepare()
        self.assertFalse((path / "virt/kvm/new.c").exists())
        self.assertEqual((path / "mm/gone.c").read_text(), "gone\n")
        self.assertGreater((path / "mm/gone.c").stat().st_mtime, start - 1)
        self.set_series()
        self.prepare()
        self.assertEqual(self.text("virt/kvm/guest_memfd.c"), NUMBERS)
        self.assertGreater((path / "virt/kvm/guest_memfd.c").stat().st_mtime, start - 1)

    def test_kunit_follows(self) -> None:
        """Suites that change, are added or are removed are followed."""
        path = self.prepare().path
        write(self.root / "kunit/gmem_kunit.c", "other\n")
        write(self.root / "kunit/more/x.c", "x\n")
        (self.root / "kunit/.kunitconfig").unlink()
        self.prepare()
        self.assertEqual(self.text("virt/kvm/tests/gmem_kunit.c"), "other\n")
        self.assertEqual(self.text("virt/kvm/tests/more/x.c"), "x\n")
        self.assertFalse((path / "virt/kvm/tests/.kunitconfig").exists())
        (self.root / "kunit/more/x.c").unlink()
        self.prepare()
        self.assertFalse((path / "virt/kvm/tests/more").exists())

    def test_the_tree_heals(self) -> None:
        """The next run reverts any change to tree/."""
        path = self.prepare().path
        want = {name: item[:2] for name, item in snapshot(path).items()}
        (path / "virt/kvm/kvm_main.c").unlink()
        write(path / "virt/kvm/guest_memfd.c", "edited\n")
        write(path / "stray/file", "")
        write(path / "virt/kvm/tests/x.c.part", "")
        (path / "Kbuild").unlink()
        (path / "Kbuild").mkdir()
        (path / "scripts/link").unlink()
        (path / "scripts/link").symlink_to("elsewhere")
        self.prepare()
        self.assertEqual({name: item[:2] for name, item in snapshot(path).items()}, want)

    def test_killed_at_any_point(self) -> None:
        """An interrupted step, as by kill -9, never counts as complete."""
        want = {name: item[:2] for name, item in snapshot(self.prepare().path).items()}
        folder = self.out / "linux-7.3.4"
        for step in ("unpack", "add", "am", "checkout"):
            with self.subTest(step):
                if step == "unpack":
                    subprocess.run(["rm", "-r", str(folder)], check=True)
                    write(folder / "tree.part/Makefile", "half")
                elif step == "add":
                    (folder / "base.json").unlink()
                    subprocess.run(["rm", "-r", str(folder / "git/objects")], check=True)
                    (folder / "tree/Makefile").unlink()
                elif step == "am":
                    subprocess.run(["rm", "-r", str(folder / "git/refs/series")], check=True)
                    write(folder / "git/rebase-apply/last", "2")
                    write(folder / "git/HEAD.lock", "")
                    write(folder / "am/virt/kvm/guest_memfd.c", "half")
                else:
                    write(folder / "git/tree.index.lock", "half")
                    write(folder / "git/refs/heads/prepared.lock", "")
                    write(folder / "tree/Kbuild", "half")
                    (folder / "tree/Makefile").unlink()
                got = self.prepare()
                self.assertEqual({name: item[:2] for name, item in snapshot(got.path).items()}, want)

    def test_no_old_objects(self) -> None:
        """Files that git writes are new to make; unpacking the tarball, with its old mtimes, removes the objects."""
        path = self.prepare().path
        built = path.with_name("cells") / "x86_64-thp/vmlinux"
        write(built, "")
        start = time.time()
        subprocess.run(["rm", "-r", str(path)], check=True)
        self.prepare()
        self.assertTrue(built.exists())
        self.assertGreater((path / "Makefile").stat().st_mtime, start - 1)
        path.with_name("base.json").unlink()
        self.prepare()
        self.assertFalse(built.exists())

    def test_a_patch_that_does_not_apply(self) -> None:
        """The error names patch, file, hunk and rejects; the old tree is unchanged."""
        path = self.prepare().path
        before = snapshot(path)
        self.set_series(FIRST, FIRST.replace(" line 9\n", " line nine\n").replace("+line ten", "+line X"))
        with self.assertRaises(WrongUse) as caught:
            self.prepare()
        text = str(caught.exception)
        self.assertIn("kernel/7.3/0002-p.patch does not apply to 7.3.4", text)
        self.assertIn("virt/kvm/guest_memfd.c, hunk 1 at line 7", text)
        rejects = Path(text.split("less ")[1])
        self.assertIn("-line 10", rejects.read_text())
        self.assertEqual(snapshot(path), before)
        self.set_series(FIRST, SECOND)
        self.prepare()

    def test_offset_yes_fuzz_no(self) -> None:
        """Hunks may be offset, as in any 7.3.y, but their context must match."""
        write(self.upstream / "virt/kvm/guest_memfd.c", "moved\nmoved\n" + NUMBERS, OLD)
        self.fill_cache()
        self.prepare()
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))
        self.set_series(FIRST.replace(" line 7\n", " line seven\n"))
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply"):
            self.prepare()

    def test_a_patch_already_in(self) -> None:
        """The error says that a change is already in the tree, as with a KSRC that has the series."""
        self.set_series(FIRST, FIRST)
        with self.assertRaisesRegex(WrongUse, "0002-p.patch does not apply.*guest_memfd.c.*has this change already"):
            self.prepare()

    def test_a_patch_for_a_file_that_is_not_there(self) -> None:
        """The error names the file."""
        self.set_series(FIRST.replace("guest_memfd.c", "absent.c"))
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply.*virt/kvm/absent.c: does not exist"):
            self.prepare()

    def test_a_patch_that_is_no_mail(self) -> None:
        """The error says so."""
        self.set_series(FIRST[FIRST.index("diff"):])
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply.*Patch format detection failed"):
            self.prepare()

    def test_series_names_a_missing_patch(self) -> None:
        """The error is reported before anything is unpacked or applied."""
        (self.root / "kernel/7.3/0002-p.patch").unlink()
        with self.assertRaisesRegex(WrongUse, "names 0002-p.patch, which is missing"):
            self.prepare()

    def extra(self, *patches: str) -> list[Path]:
        """Write patches for the top of the series."""
        paths = [self.top / "mutants" / f"{n}.patch" for n, _ in enumerate(patches)]
        for path, text in zip(paths, patches):
            write(path, text)
        return paths

    def test_patched(self) -> None:
        """Patches change files of series, suites and source, add one and remove one; afterwards the tree is restored."""
        got = self.prepare()
        before = snapshot(got.path)
        start = time.time_ns()
        time.sleep(0.02)
        again = ON_TOP.replace("-line ten\n+line TEN", "-line TEN\n+line 10+")
        with tree.patched(got, self.extra(ON_TOP, again, OTHERS)) as on_top:
            inside = snapshot(got.path)
            self.assertIn("line 10+\n", self.text("virt/kvm/guest_memfd.c"))
            self.assertEqual(self.text("virt/kvm/tests/gmem_kunit.c"), "broken test\n")
            self.assertEqual(self.text("lib/fresh.c"), "fresh\n")
            self.assertFalse((got.path / "virt/kvm/kvm_main.c").exists())
            changed = {"virt/kvm/guest_memfd.c", "virt/kvm/tests/gmem_kunit.c", "lib/fresh.c", "virt/kvm/kvm_main.c"}
            self.assertEqual({name for name in before | inside if before.get(name) != inside.get(name)} - {"lib"}, changed)
            self.assertEqual(on_top.touched, got.touched | changed)
            self.assertNotEqual(on_top.series, got.series)
            self.assertEqual((on_top.path, on_top.version, on_top.origin), (got.path, got.version, got.origin))
            middle = time.time_ns()
            time.sleep(0.02)
        after = snapshot(got.path)
        self.assertEqual({name: item[:2] for name, item in after.items() if name != "lib"},
                         {name: item[:2] for name, item in before.items()})
        for name in changed - {"lib/fresh.c", "virt/kvm/kvm_main.c"}:
            self.assertGreater(inside[name][2], start)
            self.assertGreater(after[name][2], middle)
        self.assertEqual({name for name, item in before.items() if item != after[name]}, changed - {"lib/fresh.c"})
        self.assertEqual(self.prepare(), got)
        self.assertFalse((got.path / "lib").exists())

    def test_patched_and_then(self) -> None:
        """The tree is restored after an exception, and by the next run after a kill."""
        got = self.prepare()
        with self.assertRaises(KeyboardInterrupt), tree.patched(got, self.extra(ON_TOP)):
            raise KeyboardInterrupt
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))
        killed = tree.patched(got, self.extra(ON_TOP, OTHERS))
        killed.__enter__()  # pylint: disable=unnecessary-dunder-call
        self.assertIn("line TEN\n", self.text("virt/kvm/guest_memfd.c"))
        self.assertEqual(self.prepare(), got)
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))
        self.assertFalse((got.path / "lib").exists())
        self.assertEqual(self.text("virt/kvm/kvm_main.c"), "main\n")

    def test_check_applies(self) -> None:
        """Each patch is checked by itself; the error names the one that does not apply, and the tree is unchanged."""
        got = self.prepare()
        before = snapshot(got.path)
        tree.check_applies(got, self.extra(ON_TOP, ON_TOP))
        with self.assertRaisesRegex(WrongUse, r"mutants/1.patch does not apply"):
            tree.check_applies(got, self.extra(ON_TOP, FIRST))
        self.assertEqual(snapshot(got.path), before)

    def test_patched_does_not_apply(self) -> None:
        """The error names the patch, and the tree is unchanged."""
        got = self.prepare()
        before = snapshot(got.path)
        with self.assertRaisesRegex(WrongUse, r"mutants/1.patch does not apply to 7.3.4 with the series: .*guest_memfd.c, hunk 1"):
            with tree.patched(got, self.extra(ON_TOP, FIRST)):
                self.fail("it must not come here")
        self.assertEqual(snapshot(got.path), before)

    def test_disk_full(self) -> None:
        """The error is one line, and no partial tree remains."""
        write(self.top / "bin/git", "#!/bin/sh\necho 'fatal: write: No space left on device'\nexit 128\n").chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": f"{self.top}/bin:{os.environ['PATH']}"}):
            with self.assertRaisesRegex(MachineError, "disk full"):
                self.prepare()
        self.prepare()

    def test_git_fails(self) -> None:
        """The error says where, and what to do."""
        path = self.prepare().path
        (path.parent / "git/tree.index").write_text("damaged")
        with self.assertRaisesRegex(MachineError, "git read-tree in .*linux-7.3.4 failed: (.|\n)*remove "):
            self.prepare()

    def test_tarball_of_another_version(self) -> None:
        """The versions in the note and in the Makefile must agree."""
        write(self.upstream / "Makefile", MAKEFILE.replace("= 4", "= 5"), OLD)
        self.fill_cache()
        with self.assertRaisesRegex(MachineError, "holds Linux 7.3.5, not 7.3.4"):
            self.prepare()


class Ksrc(FakeKernel):
    """From the user's own tree."""

    def setUp(self) -> None:
        super().setUp()
        self.ksrc = self.top / "mine"
        self.upstream.rename(self.ksrc)

    def prepare(self) -> tree.PreparedTree:
        """Call prepare() with KSRC, and check that no byte or mtime in it changes."""
        before = snapshot(self.ksrc)
        try:
            return tree.prepare(self.root, self.out, self.ksrc, self.say)
        finally:
            self.assertEqual(snapshot(self.ksrc), before)

    def git(self, *args: str) -> None:
        """Run git in the user's tree."""
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(self.ksrc), *args],
                       check=True, capture_output=True)

    def commit(self) -> None:
        """Make the user's tree a git checkout."""
        self.git("init", "-q")
        self.git("add", "-f", "-A")
        self.git("commit", "-qm", "all")

    def test_git_checkout(self) -> None:
        """Tracked files are used with uncommitted changes; nothing is written there, not even the index."""
        self.commit()
        got = self.prepare()
        self.assertRegex(got.origin, rf"^KSRC {self.ksrc} at [0-9a-f]{{7,}}$")
        self.assertEqual(got.path.parent.parent, self.out)
        write(self.ksrc / "untracked.c", "")
        write(self.ksrc / "virt/kvm/kvm_main.c", "changed\n")
        (self.ksrc / "scripts/link").unlink()
        os.utime(self.ksrc / "Makefile")  # makes git's index stale; our queries must not refresh it
        got = self.prepare()
        self.assertTrue(got.origin.endswith(" + uncommitted changes"), got.origin)
        self.assertEqual((got.path / "virt/kvm/kvm_main.c").read_text(), "changed\n")
        self.assertFalse((got.path / "untracked.c").exists())
        self.assertFalse((got.path / "scripts/link").is_symlink())
        self.assertIn("line ten\n", (got.path / "virt/kvm/guest_memfd.c").read_text())

    def test_a_staged_file_counts(self) -> None:
        """git add adds a file, git rm --cached removes it."""
        self.commit()
        write(self.ksrc / "virt/kvm/staged.c", "s\n")
        self.git("add", "-f", "virt/kvm/staged.c")
        self.assertEqual((self.prepare().path / "virt/kvm/staged.c").read_text(), "s\n")
        self.git("rm", "--cached", "virt/kvm/staged.c")
        self.assertFalse((self.prepare().path / "virt/kvm/staged.c").exists())

    def test_switching_back_gives_fresh_mtimes(self) -> None:
        """A change is seen, also if a file is restored with its old mtime."""
        self.commit()
        path = self.prepare().path / "virt/kvm/kvm_main.c"
        for text, mtime in (("niam\n", OLD + 5), ("main\n", OLD)):
            start = time.time()
            write(self.ksrc / "virt/kvm/kvm_main.c", text, mtime)
            self.prepare()
            self.assertEqual(path.read_text(), text)
            self.assertGreater(path.stat().st_mtime, start - 1)

    def test_nothing_changed_touches_nothing(self) -> None:
        """Incremental builds work with KSRC, too."""
        self.commit()
        path = self.prepare().path
        before = snapshot(path)
        self.prepare()
        self.assertEqual(snapshot(path), before)

    def test_files_are_not_shared(self) -> None:
        """The user's files and ours share no hard link."""
        path = self.prepare().path
        self.assertNotEqual((path / "Makefile").stat().st_ino, (self.ksrc / "Makefile").stat().st_ino)

    def test_plain_folder_without_build_products(self) -> None:
        """Build products are left out: kbuild refuses a source tree that contains some."""
        for name in (".config", "vmlinux", "virt/kvm/kvm_main.o", "virt/kvm/.kvm_main.o.cmd", "include/generated/a.h",
                     "arch/x86/include/generated/b.h", "include/config/auto.conf"):
            write(self.ksrc / name, "")
        write(self.ksrc / "include/linux/generated.h", "kept\n")
        path = self.prepare().path
        self.assertEqual((path / "include/linux/generated.h").read_text(), "kept\n")
        for name in (".config", "vmlinux", "virt/kvm/kvm_main.o", "virt/kvm/.kvm_main.o.cmd", "include/generated",
                     "arch", "include/config"):
            self.assertFalse((path / name).exists(), name)

    def test_a_folder_becomes_a_file_and_back(self) -> None:
        """Files that become folders or symlinks, and the reverse, are followed."""
        self.prepare()
        (self.ksrc / "mm/gone.c").unlink()
        (self.ksrc / "mm").rmdir()
        write(self.ksrc / "mm", "a file\n")
        self.set_series(FIRST)
        self.assertEqual((self.prepare().path / "mm").read_text(), "a file\n")
        (self.ksrc / "mm").unlink()
        write(self.ksrc / "mm/gone.c", "gone\n")
        self.assertEqual((self.prepare().path / "mm/gone.c").read_text(), "gone\n")

    def test_wrong_version(self) -> None:
        """The error has the version found, and those for which the series exists."""
        write(self.ksrc / "Makefile", MAKEFILE.replace("PATCHLEVEL = 3", "PATCHLEVEL = 2"))
        with self.assertRaisesRegex(WrongUse, "is Linux 7.2.4; the series exists for 7.3"):
            self.prepare()

    def test_another_7_3_will_do(self) -> None:
        """Any 7.3.y and release candidates are accepted."""
        write(self.ksrc / "Makefile", MAKEFILE.replace("= 4", "= 0").replace("EXTRAVERSION =", "EXTRAVERSION = -rc2"))
        self.assertEqual(self.prepare().version, "7.3.0-rc2")

    def test_no_kernel_tree(self) -> None:
        """Another folder, a file or a missing path is refused."""
        write(self.top / "x/Makefile", "all:\n")
        for path in (self.top / "x", self.top / "x/Makefile", self.top / "absent"):
            with self.assertRaisesRegex(WrongUse, "is not a kernel tree|is not a folder"):
                tree.prepare(self.root, self.out, path, self.say)

    def test_build_folder_inside_ksrc(self) -> None:
        """A build folder in KSRC is refused, because KSRC must not be written to."""
        with self.assertRaisesRegex(WrongUse, "never written to"):
            tree.prepare(self.root, self.ksrc / "build", self.ksrc, self.say)
        self.assertFalse((self.ksrc / "build").exists())

    def test_needs_no_download(self) -> None:
        """KSRC needs neither network nor cache."""
        with mock.patch.object(source, "fetch", side_effect=AssertionError):
            self.prepare()


if __name__ == "__main__":
    unittest.main()

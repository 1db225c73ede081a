# SPDX-License-Identifier: GPL-2.0
"""matrix.tree.tree on a kernel of a handful of files."""

import os
import subprocess
import time
import unittest
from pathlib import Path
from unittest import mock

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
        """prepare() of the project."""
        return tree.prepare(self.root, self.out, ksrc, self.say)

    def text(self, name: str) -> str:
        """A file of the prepared tree."""
        return (self.out / "linux-7.3.4/tree" / name).read_text()

    def test_first_time(self) -> None:
        """All of it: patched, added, removed, from kunit/, linked; what needs no change keeps the time of the tarball."""
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

    def test_nothing_changed_touches_nothing(self) -> None:
        """Not one mtime or inode moves, and the download is not read again."""
        first = self.prepare()
        before = snapshot(first.path)
        for path in self.cache.iterdir():
            path.unlink()
        self.assertEqual(self.prepare(), first)
        self.assertEqual(snapshot(first.path), before)

    def test_pristine(self) -> None:
        """The source as it came, beside the tree."""
        path = self.prepare().path
        before = snapshot(path)
        got = tree.pristine(self.root, self.out, None, self.say)
        self.assertEqual((got.path / "virt/kvm/guest_memfd.c").read_text(), NUMBERS)
        self.assertEqual({name: item[0] for name, item in snapshot(got.path).items() if name != ".gitignore"},
                         {name: item[0] for name, item in snapshot(self.upstream).items() if name != ".gitignore"})
        self.assertEqual(snapshot(path), before)

    def test_settings_do_not_matter(self) -> None:
        """Neither those of the user, nor GIT_ variables, nor attributes in the source: the tree is the same, byte by byte."""
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
        """And with a fresh mtime, in both directions."""
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
        """Its new file goes, its removed file comes back, and make sees that: a fresh mtime."""
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
        """A suite that changes, comes and goes."""
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
        """Whatever a person or a crash did to tree/: the next run puts it right."""
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
        """Half of a step, left by kill -9, never counts as complete."""
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
        """A file that git writes is new to make; what was built goes when the tarball is unpacked, with its old times."""
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
        """Names patch, file and hunk, and where the rejects are; the old tree stays as it was."""
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
        """Any 7.3.y moves lines about; changed context is another matter."""
        write(self.upstream / "virt/kvm/guest_memfd.c", "moved\nmoved\n" + NUMBERS, OLD)
        self.fill_cache()
        self.prepare()
        self.assertIn("line ten\n", self.text("virt/kvm/guest_memfd.c"))
        self.set_series(FIRST.replace(" line 7\n", " line seven\n"))
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply"):
            self.prepare()

    def test_a_patch_already_in(self) -> None:
        """As with a KSRC that has the series."""
        self.set_series(FIRST, FIRST)
        with self.assertRaisesRegex(WrongUse, "0002-p.patch does not apply.*guest_memfd.c.*has this change already"):
            self.prepare()

    def test_a_patch_for_a_file_that_is_not_there(self) -> None:
        """The file is named."""
        self.set_series(FIRST.replace("guest_memfd.c", "absent.c"))
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply.*virt/kvm/absent.c: does not exist"):
            self.prepare()

    def test_a_patch_that_is_no_mail(self) -> None:
        """Says so."""
        self.set_series(FIRST[FIRST.index("diff"):])
        with self.assertRaisesRegex(WrongUse, "0001-p.patch does not apply.*Patch format detection failed"):
            self.prepare()

    def test_series_names_a_missing_patch(self) -> None:
        """Clear, before anything is unpacked or applied."""
        (self.root / "kernel/7.3/0002-p.patch").unlink()
        with self.assertRaisesRegex(WrongUse, "names 0002-p.patch, which is missing"):
            self.prepare()

    def extra(self, *patches: str) -> list[Path]:
        """Patches to go on top of the series."""
        paths = [self.top / "mutants" / f"{n}.patch" for n, _ in enumerate(patches)]
        for path, text in zip(paths, patches):
            write(path, text)
        return paths

    def test_patched(self) -> None:
        """Patches on top, of a file of the series, a suite and a file of the source, one new and one gone; then all is as before."""
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
        """An exception inside puts the tree right; so does the next run after a kill."""
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
        """Each patch on its own; the one that does not apply is named, and nothing has changed."""
        got = self.prepare()
        before = snapshot(got.path)
        tree.check_applies(got, self.extra(ON_TOP, ON_TOP))
        with self.assertRaisesRegex(WrongUse, r"mutants/1.patch does not apply"):
            tree.check_applies(got, self.extra(ON_TOP, FIRST))
        self.assertEqual(snapshot(got.path), before)

    def test_patched_does_not_apply(self) -> None:
        """The patch is named, nothing has changed."""
        got = self.prepare()
        before = snapshot(got.path)
        with self.assertRaisesRegex(WrongUse, r"mutants/1.patch does not apply to 7.3.4 with the series: .*guest_memfd.c, hunk 1"):
            with tree.patched(got, self.extra(ON_TOP, FIRST)):
                self.fail("it must not come here")
        self.assertEqual(snapshot(got.path), before)

    def test_disk_full(self) -> None:
        """One line, and no half of a tree."""
        write(self.top / "bin/git", "#!/bin/sh\necho 'fatal: write: No space left on device'\nexit 128\n").chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": f"{self.top}/bin:{os.environ['PATH']}"}):
            with self.assertRaisesRegex(MachineError, "disk full"):
                self.prepare()
        self.prepare()

    def test_git_fails(self) -> None:
        """Says where, and what to do."""
        path = self.prepare().path
        (path.parent / "git/tree.index").write_text("damaged")
        with self.assertRaisesRegex(MachineError, "git read-tree in .*linux-7.3.4 failed: (.|\n)*remove "):
            self.prepare()

    def test_tarball_of_another_version(self) -> None:
        """What the note claims and what the Makefile says must agree."""
        write(self.upstream / "Makefile", MAKEFILE.replace("= 4", "= 5"), OLD)
        self.fill_cache()
        with self.assertRaisesRegex(MachineError, "holds Linux 7.3.5, not 7.3.4"):
            self.prepare()


class Ksrc(FakeKernel):
    """From a tree of the user's own."""

    def setUp(self) -> None:
        super().setUp()
        self.ksrc = self.top / "mine"
        self.upstream.rename(self.ksrc)

    def prepare(self) -> tree.PreparedTree:
        """With KSRC; proves each time that not one byte or mtime in it changed."""
        before = snapshot(self.ksrc)
        try:
            return tree.prepare(self.root, self.out, self.ksrc, self.say)
        finally:
            self.assertEqual(snapshot(self.ksrc), before)

    def git(self, *args: str) -> None:
        """In the user's tree."""
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(self.ksrc), *args],
                       check=True, capture_output=True)

    def commit(self) -> None:
        """The user's tree is a checkout."""
        self.git("init", "-q")
        self.git("add", "-f", "-A")
        self.git("commit", "-qm", "all")

    def test_git_checkout(self) -> None:
        """Tracked files as they are, uncommitted changes included; nothing is written there, not even the index."""
        self.commit()
        got = self.prepare()
        self.assertRegex(got.origin, rf"^KSRC {self.ksrc} at [0-9a-f]{{7,}}$")
        self.assertEqual(got.path.parent.parent, self.out)
        write(self.ksrc / "untracked.c", "")
        write(self.ksrc / "virt/kvm/kvm_main.c", "changed\n")
        (self.ksrc / "scripts/link").unlink()
        os.utime(self.ksrc / "Makefile")  # git's index is stale now: asking must not refresh it
        got = self.prepare()
        self.assertTrue(got.origin.endswith(" + uncommitted changes"), got.origin)
        self.assertEqual((got.path / "virt/kvm/kvm_main.c").read_text(), "changed\n")
        self.assertFalse((got.path / "untracked.c").exists())
        self.assertFalse((got.path / "scripts/link").is_symlink())
        self.assertIn("line ten\n", (got.path / "virt/kvm/guest_memfd.c").read_text())

    def test_a_staged_file_counts(self) -> None:
        """git add is enough; and git rm --cached, for the opposite."""
        self.commit()
        write(self.ksrc / "virt/kvm/staged.c", "s\n")
        self.git("add", "-f", "virt/kvm/staged.c")
        self.assertEqual((self.prepare().path / "virt/kvm/staged.c").read_text(), "s\n")
        self.git("rm", "--cached", "virt/kvm/staged.c")
        self.assertFalse((self.prepare().path / "virt/kvm/staged.c").exists())

    def test_switching_back_gives_fresh_mtimes(self) -> None:
        """Also when the user's file comes back with its old mtime."""
        self.commit()
        path = self.prepare().path / "virt/kvm/kvm_main.c"
        for text, mtime in (("niam\n", OLD + 5), ("main\n", OLD)):
            start = time.time()
            write(self.ksrc / "virt/kvm/kvm_main.c", text, mtime)
            self.prepare()
            self.assertEqual(path.read_text(), text)
            self.assertGreater(path.stat().st_mtime, start - 1)

    def test_nothing_changed_touches_nothing(self) -> None:
        """Warm builds stay warm with KSRC, too."""
        self.commit()
        path = self.prepare().path
        before = snapshot(path)
        self.prepare()
        self.assertEqual(snapshot(path), before)

    def test_files_are_not_shared(self) -> None:
        """No hard link between the user's files and ours."""
        path = self.prepare().path
        self.assertNotEqual((path / "Makefile").stat().st_ino, (self.ksrc / "Makefile").stat().st_ino)

    def test_plain_folder_without_build_products(self) -> None:
        """kbuild refuses a source tree in which something was built."""
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
        """Such changes do not confuse the copy."""
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
        """Says which was found and which there are."""
        write(self.ksrc / "Makefile", MAKEFILE.replace("PATCHLEVEL = 3", "PATCHLEVEL = 2"))
        with self.assertRaisesRegex(WrongUse, "is Linux 7.2.4; the series exists for 7.3"):
            self.prepare()

    def test_another_7_3_will_do(self) -> None:
        """Any 7.3.y, and a release candidate."""
        write(self.ksrc / "Makefile", MAKEFILE.replace("= 4", "= 0").replace("EXTRAVERSION =", "EXTRAVERSION = -rc2"))
        self.assertEqual(self.prepare().version, "7.3.0-rc2")

    def test_no_kernel_tree(self) -> None:
        """A folder, a file, nothing at all."""
        write(self.top / "x/Makefile", "all:\n")
        for path in (self.top / "x", self.top / "x/Makefile", self.top / "absent"):
            with self.assertRaisesRegex(WrongUse, "is not a kernel tree|is not a folder"):
                tree.prepare(self.root, self.out, path, self.say)

    def test_build_folder_inside_ksrc(self) -> None:
        """It would be written to."""
        with self.assertRaisesRegex(WrongUse, "never written to"):
            tree.prepare(self.root, self.ksrc / "build", self.ksrc, self.say)
        self.assertFalse((self.ksrc / "build").exists())

    def test_needs_no_download(self) -> None:
        """KSRC asks no network and no cache."""
        with mock.patch.object(source, "fetch", side_effect=AssertionError):
            self.prepare()


if __name__ == "__main__":
    unittest.main()

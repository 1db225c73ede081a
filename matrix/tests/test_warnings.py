# SPDX-License-Identifier: GPL-2.0
"""Test that a warning counts in each run until it is fixed, although the compiler prints it once, however a build ends."""

import os
import signal
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.cell import build
from matrix.tests.test_run import TOUCHED, Fake
from matrix.verdict.evidence import Evidence
from matrix.verdict.expected import Expected
from matrix.verdict.warnings import warned

OURS = "virt/kvm/guest_memfd.c"
WARNING = f"../{OURS}:7:1: warning: unused variable 'x'\n"
HEADER = f"In file included from ../mm/one.c:1:\n../{OURS}:9:1: warning: 'y' defined but not used\n"  # our file, as others include it
ERROR = "../virt/kvm/tests/suite.c:5:1: error: implicit declaration of function 'undeclared'\n"
HOURS = 3600 * 10**9


def compiled(name: str, *deps: str, text: str = "", status: int = 0) -> dict[str, Any]:
    """Return an object for the fake kunit.py to build."""
    return {"name": name, "deps": deps, "text": text, "status": status}


class Kept(Fake):
    """Builds that end in different ways, and what the next build compiles."""

    def build(self, *objects: dict[str, Any], **play: Any) -> tuple[set[str], list[str]]:
        """Run once; return (codes of the reasons, compiled objects)."""
        self.play(build={"objects": objects, **play})
        log = self.out / "linux-7.3.4/tree/compiled"
        log.unlink(missing_ok=True)
        self.run_main("one")
        return {reason["code"] for reason in self.result()["reasons"]}, log.read_text().split() if log.exists() else []

    @property
    def folder(self) -> Path:
        """Return the build directory."""
        return self.out / "linux-7.3.4/cells/one"

    def age(self) -> None:
        """Make all files of the build directory an hour older."""
        for path in self.folder.rglob("*"):
            then = path.stat().st_mtime_ns - HOURS
            os.utime(path, ns=(then, then))

    def test_warning(self) -> None:
        """After a build with a warning in a touched file, only objects that depend on that file are compiled again."""
        objects = compiled("a.o", OURS, text=WARNING), compiled("b.o", "mm/b.c")
        self.assertEqual(self.build(*objects), ({"warning"}, ["a.o", "b.o"]))
        self.assertEqual(self.build(*objects), ({"warning"}, ["a.o"]))
        mended = compiled("a.o", OURS), objects[1]
        self.assertEqual(self.build(*mended), (set(), ["a.o"]))
        self.assertEqual(self.build(*mended), (set(), []))

    def test_header(self) -> None:
        """Each object that includes the file with the warning is compiled again, unless an earlier build compiled it."""
        old = compiled("old.o", OURS)
        self.assertEqual(self.build(old), (set(), ["old.o"]))
        self.age()
        objects = old, compiled("one.o", "mm/one.c", OURS, text=HEADER), compiled("two.o", "mm/two.c", OURS, text=HEADER)
        for _ in range(2):
            self.assertEqual(self.build(*objects), ({"warning"}, ["one.o", "two.o"]))

    def test_failed(self) -> None:
        """After a failed compile only that object is rebuilt; a warning of another file in that build counts until it is fixed."""
        good, bad, mended = compiled("good.o", OURS), compiled("suite.o", status=1, text=ERROR), compiled("suite.o")
        self.assertEqual(self.build(good, bad), ({"build"}, ["good.o", "suite.o"]))
        self.assertEqual(self.build(good, mended), (set(), ["suite.o"]))
        (self.folder / "good.o").unlink()
        (self.folder / "suite.o").unlink()
        warns = compiled("good.o", OURS, text=WARNING)
        self.assertEqual(self.build(warns, bad), ({"build", "warning"}, ["good.o", "suite.o"]))
        self.assertEqual(self.build(warns, mended), ({"warning"}, ["good.o", "suite.o"]))

    def test_failed_twice(self) -> None:
        """A second failure may stop before the object with the warning; the third run compiles it."""
        warns, bad = compiled("a.o", OURS, text=WARNING), compiled("suite.o", status=1, text=ERROR)
        self.assertEqual(self.build(warns, bad)[0], {"build", "warning"})
        self.assertEqual(self.build(bad, warns), ({"build"}, ["suite.o"]))
        self.assertEqual(self.build(compiled("suite.o"), warns), ({"warning"}, ["suite.o", "a.o"]))

    def test_lost(self) -> None:
        """After a build whose output is lost, all new objects that include a touched file are compiled again."""
        warns, old, other = compiled("a.o", OURS, text=WARNING), compiled("old.o", OURS), compiled("b.o", "mm/b.c")
        for lost in ("killed", "traceback"):
            with self.subTest(lost):
                for path in self.folder.glob("*.o"):
                    path.unlink()
                self.assertEqual(self.build(old), (set(), ["old.o"]))
                self.age()
                self.assertEqual(self.build(old, warns, other, lost=lost)[0], {"build"})
                self.assertEqual(self.build(old, warns, other), ({"warning"}, ["a.o"]))

    def test_stopped(self) -> None:
        """The same holds after Ctrl-C and after the time limit."""
        warns = compiled("a.o", OURS, text=WARNING)
        self.play(build={"objects": [warns], "lost": "hangs"})
        child = self.start("one")
        while not (self.folder / ".a.o.cmd").exists():
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)
        self.assertEqual(self.build(warns), ({"warning"}, ["a.o"]))
        (self.folder / "a.o").unlink()
        cells = self.root / "matrix/cells.toml"
        cells.write_text(cells.read_text().replace("build_seconds = 5", "build_seconds = 1"))
        self.assertEqual(self.build(warns, lost="hangs"), ({"build"}, ["a.o"]))
        self.assertEqual(self.build(warns), ({"warning"}, ["a.o"]))

    def test_linker(self) -> None:
        """After warnings of the linker or modpost the kernel is linked again, after warnings of Kconfig it is configured again."""
        modpost = "WARNING: modpost: vmlinux: section mismatch in reference\n"
        kernel = compiled("vmlinux.o", "vmlinux.o", text=modpost)
        self.build(compiled("vmlinux.o", "vmlinux.o"))
        self.age()
        self.assertEqual(self.build(kernel, text=modpost), ({"warning"}, []))
        self.assertEqual(self.build(kernel), ({"warning"}, ["vmlinux.o"]))
        self.build(text="WARNING: unmet direct dependencies detected for KVM\n")
        config = self.folder / ".config"
        os.utime(config, ns=(HOURS, HOURS))
        build.begin(self.folder, TOUCHED)
        self.assertGreater(config.stat().st_mtime_ns, HOURS)


class Named(unittest.TestCase):
    """warned()."""

    def test_all_names(self) -> None:
        """Every touched file that a warning names counts, because the chain of includes may differ between compilers."""
        touched = frozenset({"virt/kvm/a.h", "virt/kvm/b.c", "mm/c.h", "mm/d.c"})
        log = "In file included from ../virt/kvm/b.c:1:\n../virt/kvm/a.h:3:1: warning: x\n../mm/c.h:1:1: note: in macro\n"
        found, names = warned(Evidence({}, None, Expected(), touched, build_log=log))
        self.assertEqual((len(found), names), (1, {"virt/kvm/a.h", "virt/kvm/b.c", "mm/c.h"}))


class Notes(Fake):
    """build.begin() and build.judged() on their own."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.root / "made"
        self.folder.mkdir()
        build.begin(self.folder, TOUCHED)

    def object(self, name: str, cmd: str = f"deps_x := \\\n  /x/{OURS} \\\n\n$(deps_x):\n", hours: int = 0) -> None:
        """Create an object and its .cmd file, with this age in hours."""
        for path, text in ((self.folder / name, ""), (self.folder / f".{name}.cmd", cmd)):
            path.write_text(text)
            then = path.stat().st_mtime_ns - hours * HOURS
            os.utime(path, ns=(then, then))

    def begin(self) -> list[str]:
        """Return the files that remain when the next build begins."""
        build.begin(self.folder, TOUCHED)
        return sorted(path.name for path in self.folder.glob("[a-z]*"))

    def test_ended(self) -> None:
        """After a build without warnings nothing is removed; after one without a note, all objects of touched files."""
        self.object("a.o")
        self.object("other.o", "deps_x := \\\n  /x/mm/b.c \\\n\n$(deps_x):\n", hours=9)
        build.judged(self.folder, set())
        self.assertEqual(self.begin(), ["a.o", "other.o"])
        build.judged(self.folder, set())
        (self.folder / build.WARNED).unlink()
        self.assertEqual(self.begin(), ["other.o"])

    def test_interrupted(self) -> None:
        """If begin() is interrupted, the next begin() removes the rest."""
        os.utime(self.folder / build.WARNED, ns=(HOURS, HOURS))
        for name in ("a.o", "b.o", "c.o"):
            self.object(name, hours=1)
        build.judged(self.folder, {OURS})
        unlink, seen = Path.unlink, list[Path]()

        def once(path: Path) -> None:
            if seen:
                raise KeyboardInterrupt
            seen.append(path)
            unlink(path)

        with mock.patch.object(Path, "unlink", once), self.assertRaises(KeyboardInterrupt):
            self.begin()
        self.assertEqual(self.begin(), [])

    def test_half_written(self) -> None:
        """After a kill, objects with a truncated or outdated list of dependencies are removed, and so are linked objects."""
        self.object("cut.o", "savedcmd_x := cc\n\ndeps_x := \\\n  /x/mm/b.c \\\n")
        self.object("linked.o", "savedcmd_x := ld\n")
        self.object("stale.o", "deps_x := \\\n  /x/mm/b.c \\\n\n$(deps_x):\n", hours=9)
        (self.folder / "stale.o").touch()
        self.object("asked.h", "savedcmd_x := sh\n")
        self.object("old.o", hours=9)
        self.assertEqual(self.begin(), ["asked.h", "old.o"])

    def test_clock(self) -> None:
        """Coarse timestamps and a clock that is set back hide no warning."""
        self.object("a.o", hours=1)
        note = self.folder / build.WARNED
        then = (self.folder / ".a.o.cmd").stat().st_mtime_ns
        os.utime(note, ns=(then, then + 10**9))
        self.assertEqual(self.begin(), [])
        self.object("a.o")
        os.utime(note, ns=(then + 2 * HOURS, then + 2 * HOURS))
        self.assertEqual(self.begin(), [])

    def test_start_is_kept(self) -> None:
        """The note of a judged build has the time of its start."""
        note = self.folder / build.WARNED
        os.utime(note, ns=(HOURS, HOURS))
        build.judged(self.folder, {OURS})
        self.assertEqual(note.stat().st_mtime_ns, HOURS)
        self.object("a.o", hours=100)
        self.assertEqual(self.begin(), [])

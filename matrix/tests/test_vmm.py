# SPDX-License-Identifier: GPL-2.0
"""Test vmm.toml, the commands that build vmm/, QEMU's files and the initramfs."""

import io
import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from matrix import main
from matrix.cell import boot, cells, run, vmm
from matrix.cell.cells import Cell
from matrix.cell.selftests import Selftest
from matrix.common import project
from matrix.common.errors import MachineError, WrongUse
from matrix.tests import debian
from matrix.tests.fake_kernel import FakeKernel, write
from matrix.tests.test_selftests import unpack
from matrix.tree import apt, cache

ROOT = Path(__file__).resolve().parents[2]
LIST = """\
suite = "trixie"
keyring = "/keyring.gpg"
[arch.x86_64]
debian = "amd64"
package = "qemu"
program = "usr/bin/qemu"
files = ["usr/share/*.bin"]
kernel = "boot/bzImage"
[[rung]]
name = "both"
seconds = 60
[[rung]]
name = "one"
seconds = 30
arch = ["arm64"]
count = true
"""
READELF = """#!/bin/sh
for file in "$@"; do :; done
cat "$file"
"""


class Listed(unittest.TestCase):
    """vmm.toml."""

    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with
        write(self.root / "vmm/vmm.toml", LIST)

    def cell(self, arch: str = "x86_64") -> Cell:
        """Return a cell that runs vmm/."""
        with mock.patch("platform.machine", return_value="x86_64"):
            return next(cell for cell in cells.load(ROOT) if cell.vmm and cell.arch == arch)

    def test_rungs(self) -> None:
        """In file order, those of the architecture; a slow cell gets more time."""
        self.assertEqual([test.name for test in vmm.load(self.root, self.cell("arm64"))], ["both", "one"])
        self.assertEqual(vmm.load(self.root, replace(self.cell(), slowdown=3)), [Selftest("both", 180, 0, ())])

    def test_count(self) -> None:
        """A cell that counts has only the rungs that ask for it, one CPU, no KUnit, and a VMM."""
        cell = replace(self.cell("arm64"), count=True)
        self.assertEqual([test.name for test in vmm.load(self.root, cell)], ["one"])
        self.assertIn("-smp 1 -icount shift=0,", cell.qemu_args)
        self.assertEqual((boot.accelerator(cell), boot.accelerator(self.cell("arm64"))), (boot.ONE_THREAD, boot.THREADS))
        with tempfile.TemporaryDirectory() as out, mock.patch("sys.stderr", new_callable=io.StringIO) as said:
            self.assertEqual(main.main(["--out", out, "x86_64-vmm-count"], ROOT), 2)
            self.assertEqual(main.main(["--e2e", "--seed", "1", "--out", out, "x86_64-vmm-count"], ROOT), 2)
        self.assertIn("they count instructions anyway", said.getvalue())
        self.assertIn("x86_64-vmm-count has no KUnit; use --e2e, or make vmm", said.getvalue())
        write(self.root / "project.toml", (ROOT / "project.toml").read_text())
        write(self.root / "matrix/cells.toml", (ROOT / "matrix/cells.toml").read_text().replace("bench = true\n", "count = true\n"))
        with self.assertRaisesRegex(WrongUse, "arm64-bench: count needs vmm"):
            cells.load(self.root)

    def test_machine(self) -> None:
        """The architecture's entry; one that is missing is named."""
        found = vmm.machine(self.root, self.cell())
        self.assertEqual((found.request, found.kernel), (apt.Request("qemu", "trixie", Path("/keyring.gpg"), "amd64"), "boot/bzImage"))
        with self.assertRaisesRegex(WrongUse, r"\[arch.arm64\] is missing"):
            vmm.machine(self.root, self.cell("arm64"))

    def test_malformed(self) -> None:
        """A key that is missing or unknown, a name that is no word, and a limit of zero are named."""
        for old, new, words in (("seconds = 60", "", "seconds"), ("seconds = 60", "seconds = 0", "rung both: seconds must be above 0"),
                                ('"both"', '"a b"', "rung a b: a name consists of"), ("kernel =", "image =", "image"),
                                ("suite =", "suit =", "suit"), (LIST, LIST.replace("[[rung]]", "[rung]", 1).partition("[[rung]]")[0],
                                 "write ..rung.. above each rung"),
                                ("[arch.x86_64]", "[arch]\nx86_64 = 1\n[arch.y]", r"\[arch.x86_64\] must be a table")):
            write(self.root / "vmm/vmm.toml", LIST.replace(old, new))
            with self.assertRaisesRegex(WrongUse, words):
                vmm.machine(self.root, self.cell())
                vmm.load(self.root, self.cell())

    def test_own(self) -> None:
        """The cells of the project that run vmm/ expect exactly the rungs; the others expect none."""
        kit = project.load(ROOT).need_vmm()
        for cell in cells.load(ROOT):
            expected = run.expected_tests(ROOT, cell, run.E2E).tests
            rungs = [f"{kit.suite}.{rung.name}" for rung in vmm.load(ROOT, cell)]
            if cell.vmm:
                self.assertEqual(list(expected), rungs, cell.name)
            else:
                self.assertFalse(set(expected) & set(rungs), cell.name)

    def test_memory(self) -> None:
        """Its memory is an argument of QEMU, with and without a seed."""
        self.assertEqual(self.cell().qemu_args, "-m 2048")
        self.assertRegex(cells.seeded(self.cell(), "seed", 7).qemu_args, "^-m 2048 -smp 1 -icount .* -seed 7$")

    def test_base(self) -> None:
        """There is no such boot without the series, or with a seed."""
        with tempfile.TemporaryDirectory() as out, mock.patch("sys.stderr", new_callable=io.StringIO) as said:
            self.assertEqual(main.main(["--e2e", "--base", "--out", out, "x86_64-vmm"], ROOT), 2)
            self.assertEqual(main.main(["--e2e", "--seed", "1", "--out", out, "x86_64-vmm"], ROOT), 2)
        self.assertIn("--base cannot be combined with cells that run a VMM", said.getvalue())
        self.assertIn("--seed cannot be combined with boots of a VMM", said.getvalue())

    def test_without_vmm(self) -> None:
        """A cell can ask for a VMM only if the project has one."""
        before, _, rest = (ROOT / "project.toml").read_text().partition("[vmm]")
        write(self.root / "project.toml", f"{before}[parts]{rest.partition('[parts]')[2]}")
        write(self.root / "matrix/cells.toml", (ROOT / "matrix/cells.toml").read_text())
        with self.assertRaisesRegex(WrongUse, r"project.toml has no \[vmm\]"):
            cells.load(self.root)


class Packed(FakeKernel):
    """Packages that are unpacked in a folder, with a readelf that prints the content of a file."""

    def setUp(self) -> None:
        super().setUp()
        write(self.top / "bin/readelf", READELF)
        (self.top / "bin/readelf").chmod(0o755)
        self.enterContext(mock.patch.dict(os.environ, {"PATH": f"{self.top}/bin:{os.environ['PATH']}"}))
        self.x = self.top / "x"
        lib = self.x / "usr/lib/some-triplet"
        write(self.x / "usr/bin/qemu", " (NEEDED)  Shared library: [libone.so.1]\n [Requesting program interpreter: /lib64/ld.so.2]\n")
        write(lib / "libone.so.1.5", " (NEEDED)   Shared library: [libtwo.so.3]\n (NEEDED)   Shared library: [libone.so.1]\n")
        (lib / "libone.so.1").symlink_to("libone.so.1.5")
        write(lib / "libtwo.so.3", "")
        write(lib / "libunused.so.4", "")
        write(lib / "ld.so.2", "")
        write(self.x / "usr/share/a.bin", "a")
        write(self.x / "usr/share/b.txt", "b")

    def test_needed(self) -> None:
        """The program, what it needs by the names under which it asks for it, and what matches; nothing else."""
        got = dict(vmm.needed(self.x, "usr/bin/qemu", ["usr/share/*.bin"]))
        self.assertEqual(sorted(got), ["lib64/ld.so.2", "usr/bin/qemu", "usr/lib/some-triplet/libone.so.1",
                                       "usr/lib/some-triplet/libtwo.so.3", "usr/share/a.bin"])
        self.assertIn(b"libtwo", got["usr/lib/some-triplet/libone.so.1"])

    def test_missing(self) -> None:
        """A library, a file or a program that the packages lack is an error that names it."""
        with self.assertRaisesRegex(MachineError, r"have no usr/share/\*\.rom"):
            list(vmm.needed(self.x, "usr/bin/qemu", ["usr/share/*.rom"]))
        (self.x / "usr/lib/some-triplet/libtwo.so.3").unlink()
        with self.assertRaisesRegex(MachineError, "have no libtwo.so.3"):
            list(vmm.needed(self.x, "usr/bin/qemu", []))
        with self.assertRaisesRegex(MachineError, "cannot read usr/bin/other"):
            list(vmm.needed(self.x, "usr/bin/other", []))

    def test_fetch(self) -> None:
        """Packages come from apt once; what is kept can be packed, and the list changes what is fetched."""
        request = apt.Request("linux-source-7.3", "trixie", Path("/k"), "amd64")
        wanted = vmm.Machine(request, f"usr/src/{debian.NAME}.tar.xz", (), "bzImage")

        def download(_: apt.Request, work: Path) -> list[Path]:
            (work / f"{debian.NAME}_1.deb").write_bytes(debian.package())
            return [work / f"{debian.NAME}_1.deb"]

        with mock.patch.object(apt, "download", side_effect=download) as asked:
            archive = vmm.fetch(wanted, self.say)
            self.assertEqual(vmm.fetch(wanted, self.say), archive)
            asked.assert_called_once()
            self.assertEqual(archive.version, debian.VERSION)
            with self.assertRaisesRegex(MachineError, "have no other"):
                vmm.fetch(replace(wanted, files=("other",)), self.say)
        with mock.patch.object(apt, "download", side_effect=apt.Unavailable("no network")):
            with self.assertRaisesRegex(MachineError, "cannot fetch linux-source-7.3 from Debian's archive: no network"):
                vmm.fetch(replace(wanted, files=("other",)), self.say)
        self.check_pack(archive)

    def check_pack(self, qemu: cache.Archive) -> None:
        """The initramfs has init, its list, a copy of the ladder for each rung, the guest, and QEMU's files in their folders."""
        with mock.patch("platform.machine", return_value="x86_64"):
            cell = next(cell for cell in cells.load(ROOT) if cell.vmm and cell.arch == "arm64")
        for name in ("init", "ladder", "guest", "gmem.so", "calls", "Image"):
            write(self.top / "made" / name, name)
        tests = [Selftest("one", 7, 0, ()), Selftest("two", 8, 0, ())]
        made = self.top / "made"
        vmm.pack(ROOT, cell, made, project.Programs("suite", "/dev/kvm"), tests, made / "Image", qemu, made / "e2e.cpio")
        got = unpack((made / "e2e.cpio").read_bytes())
        self.assertEqual(got["tests"][1], b"suite suite\nhold /dev/kvm\n7 0 /vmm/one\n8 0 /vmm/two\n")
        self.assertEqual({got[name][1] for name in ("vmm/one", "vmm/two")}, {b"ladder"})
        self.assertEqual([got[name][1] for name in ("init", "vmm/kernel", "vmm/gmem.so", "vmm/calls")],
                         [b"init", b"Image", b"gmem.so", b"calls"])
        self.assertEqual(unpack(got["vmm/guest.cpio"][1])["init"][1], b"guest")
        self.assertIn(b"-accel\nkvm\n", got["vmm/qemu"][1])
        self.assertEqual(got[f"usr/src/{debian.NAME}.tar.xz"][1], debian.TARBALL)
        names = list(got)
        self.assertTrue({"dev", "proc", "sys", "tmp", "usr", "usr/src", "vmm"} <= set(names))
        self.assertLess(names.index("usr"), names.index("usr/src"))

    def test_build_commands(self) -> None:
        """Headers of the tree first, then the programs with the cross compiler and these headers, then init."""
        with mock.patch("platform.machine", return_value="x86_64"):
            cell = next(cell for cell in cells.load(ROOT) if cell.vmm and cell.arch == "arm64")
        commands = vmm.build_commands(self.upstream, ROOT, cell, self.top / "made", 2)
        self.assertEqual(commands[0][-1], "headers")
        self.assertEqual([command[0] for command in commands[1:]], ["aarch64-linux-gnu-gcc"] * 5)
        self.assertIn(str(self.top / "made/headers/usr/include"), commands[1])
        self.assertEqual(commands[-1][-1], str(ROOT / "matrix/cell/init.c"))


if __name__ == "__main__":
    unittest.main()

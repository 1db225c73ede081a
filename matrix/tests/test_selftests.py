# SPDX-License-Identifier: GPL-2.0
"""Test the list of selftests, the commands that build them, and the initramfs."""

import dataclasses
import stat
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from matrix.cell import boot, cells, initramfs, selftests
from matrix.cell.cells import Cell
from matrix.common.errors import WrongUse
from matrix.common.project import Selftests

ROOT = Path(__file__).resolve().parents[2]
KIT = Selftests("tools/testing/selftests/kvm", "kvm_selftests", ("abs={output}",), ("tools",), "/dev/kvm 0xae01")
LIST = """\
[[selftest]]
path = "guest_memfd_test"
seconds = 60
[[selftest]]
path = "x86/private_test"
arch = ["x86_64"]
seconds = 30
args = ["-n", "2"]
[[selftest]]
path = "arm64/blocks"
arch = ["arm64"]
hugepages = 32
seconds = 10
"""


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Return name -> (mode, content) of a "newc" archive, read as init/initramfs.c does."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert at % 4 == 0 and data[at : at + 6] == b"070701", at
        field = [int(data[at + start : at + start + 8], 16) for start in range(6, 110, 8)]
        mode, size, length = field[1], field[6], field[11]
        name = data[at + 110 : at + 110 + length]
        assert name.endswith(b"\0")
        at += (110 + length + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert at == len(data)
            return found
        found[name[:-1].decode()] = (mode, data[at : at + size])
        at += (size + 3) & ~3


class Project(unittest.TestCase):
    """A project with a list, and a tree that has some of the selftests."""

    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with
        self.list = self.root / "matrix/selftests.toml"
        self.list.parent.mkdir(parents=True)
        self.list.write_text(LIST)
        (self.root / "on.config").write_text("CONFIG_THP=y\n")
        (self.root / "off.config").write_text("# CONFIG_THP is not set\n")
        self.tree = self.root / "tree"
        for name in ("guest_memfd_test", "x86/private_test"):
            path = self.tree / KIT.folder / f"{name}.c"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


    def cell(self, arch: str, fragment: str = "on") -> Cell:
        """Return a cell with only this fragment."""
        with mock.patch("platform.machine", return_value="x86_64"):
            cell = next(cell for cell in cells.load(ROOT) if cell.arch == arch)
        return replace(cell, fragments=(self.root / f"{fragment}.config",))


class Listed(Project):
    """selftests.toml."""

    def test_arch(self) -> None:
        """load() returns the selftests of the architecture, in order; present() those in the tree."""
        tests = selftests.load(self.root, self.cell("x86_64"))
        self.assertEqual([test.name for test in tests], ["guest_memfd_test", "private_test"])
        tests = selftests.load(self.root, self.cell("arm64"))
        self.assertEqual([(test.path, test.seconds, test.hugepages) for test in tests],
                         [("guest_memfd_test", 60, 0), ("arm64/blocks", 10, 32)])  # fmt: skip
        self.assertEqual([test.name for test in selftests.present(self.tree / KIT.folder, tests)], ["guest_memfd_test"])

    def test_slowdown(self) -> None:
        """In a slow cell each selftest gets more time."""
        tests = selftests.load(self.root, self.cell("x86_64").slower(3).slower(2))
        self.assertEqual([test.seconds for test in tests], [360, 180])

    def test_option(self) -> None:
        """A selftest with an option runs only in cells that ask for the option."""
        self.list.write_text(LIST.replace("seconds = 30", 'seconds = 30\noption = "THP"'))
        for fragment, count in (("on", 2), ("off", 1)):
            self.assertEqual(len(selftests.load(self.root, self.cell("x86_64", fragment))), count)

    def test_gate(self) -> None:
        """A selftest can have other arguments in cells that are not in the gate, or be only there."""
        self.list.write_text(LIST.replace("seconds = 30", "seconds = 30\ngate = true")
                             + '[[selftest]]\npath = "x86/private_test"\ngate = false\nseconds = 300\n')  # fmt: skip
        for gate, seconds in ((True, 30), (False, 300)):
            tests = selftests.load(self.root, replace(self.cell("x86_64"), gate=gate))
            self.assertEqual([(test.name, test.seconds) for test in tests], [("guest_memfd_test", 60), ("private_test", seconds)])

    def test_malformed(self) -> None:
        """Each mistake is reported."""
        for old, new, text in (
            ("seconds = 60", "seconds = 0", "seconds must be above 0"),
            ("seconds = 60", 'seconds = "60"', "seconds must be of type int"),
            ("seconds = 60", "secs = 60", "unknown key 'secs', did you mean seconds"),
            ('"-n"', '"-n 3"', "words without blanks"),
            ('"x86/private_test"', '"x86/guest_memfd_test"', "guest_memfd_test is listed twice"),
            ("[[selftest]]", "[[selftest", "selftests.toml: "),
            (LIST, "[selftest]", "write [[selftest]] above each selftest"),
            ('"-n"', "5", "args must be a list of strings"),
        ):
            with self.subTest(new):
                self.list.write_text(LIST.replace(old, new))
                with self.assertRaises(WrongUse) as caught:
                    selftests.load(self.root, self.cell("x86_64"))
                self.assertIn(text, str(caught.exception))

    def test_our_own(self) -> None:
        """The project's list is valid, and no two selftests in a cell have the same name."""
        for cell in cells.load(ROOT):
            names = [test.name for test in selftests.load(ROOT, cell)]
            self.assertIn("guest_memfd_test", names)
            self.assertLessEqual(len(names), 64)  # MAX_TESTS of init.c


class Built(Project):
    """Building and packing."""

    def test_commands(self) -> None:
        """The selftests are built out of tree, static, for the cell's architecture, and only those requested."""
        cell = self.cell("arm64")
        folder = self.root / "made"
        tests = selftests.present(self.tree / KIT.folder, selftests.load(self.root, cell))
        headers, programs, init = selftests.build_commands(self.tree, cell, folder, KIT, tests, 3)
        for argv in (headers, programs):
            self.assertLessEqual({"ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "--jobs=3"}, set(argv))
            places = [word for word in argv if str(self.tree) in word]
            self.assertEqual(places, [argv[2]], "only -C names the tree")
        self.assertEqual(headers[-1], "headers")
        self.assertEqual([word for word in programs if "=" not in word][4:], [str(folder / "programs/guest_memfd_test")])
        self.assertLessEqual({"USERLDFLAGS=-static", f"abs={folder}/programs"}, set(programs))
        self.assertTrue((folder / "programs/tools").is_dir())
        self.assertEqual(init[:2], ["aarch64-linux-gnu-gcc", "-static"])

    def test_initramfs(self) -> None:
        """The archive contains init, its list and the programs, and is reproducible."""
        folder = self.root / "made"
        for name, text in {"init": "i", "programs/guest_memfd_test": "gggg", "programs/x86/private_test": "ppppp"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        selftests.pack(folder, KIT, selftests.load(self.root, self.cell("x86_64")), self.root / "e2e.cpio")
        found = unpack((self.root / "e2e.cpio").read_bytes())
        self.assertEqual(found["tests"][1], b"suite kvm_selftests\nhold /dev/kvm 0xae01\n"
                         b"60 0 /selftests/guest_memfd_test\n30 0 /selftests/private_test -n 2\n")  # fmt: skip
        self.assertEqual(found["selftests/private_test"], (stat.S_IFREG | 0o755, b"ppppp"))
        self.assertEqual(found["init"], (stat.S_IFREG | 0o755, b"i"))
        self.assertEqual(found["proc"], (stat.S_IFDIR | 0o755, b""))
        names = list(found)
        self.assertLess(names.index("selftests"), names.index("selftests/private_test"))
        before = (self.root / "e2e.cpio").read_bytes()
        selftests.pack(folder, KIT, selftests.load(self.root, self.cell("x86_64")), self.root / "e2e.cpio")
        self.assertEqual((self.root / "e2e.cpio").read_bytes(), before)

    def test_modules(self) -> None:
        """The archive has the modules of the build directory, which init loads in the given order."""
        build = self.root / "build"
        for name in ("drivers/a", "lib/b-c"):
            (build / name).parent.mkdir(parents=True, exist_ok=True)
            (build / f"{name}.ko").write_text(name)
        with self.assertRaisesRegex(WrongUse, "build: the kernel has no module 'a'"):
            selftests.modules(build, ("a",))
        (build / "modules.order").write_text("drivers/a.o\nlib/b-c.o\n")
        with self.assertRaisesRegex(WrongUse, "no module 'b_c', did you mean b-c;"):
            selftests.modules(build, ("a", "b_c"))
        (self.root / "init").write_text("i")
        selftests.pack(self.root, None, (), self.root / "kunit.cpio", selftests.modules(build, ("b-c", "a")))
        found = unpack((self.root / "kunit.cpio").read_bytes())
        self.assertEqual(found["tests"][1], b"module /modules/b-c.ko\nmodule /modules/a.ko\n")
        self.assertEqual(found["modules/b-c.ko"][1], b"lib/b-c")

    def test_cut(self) -> None:
        """A failed write leaves no partial archive."""
        path = self.root / "x.cpio"
        with mock.patch("matrix.cell.initramfs._entry", side_effect=[None, OSError(28, "No space left on device")]):
            with self.assertRaises(OSError):
                initramfs.pack(path, ["a", "b"], {})
        self.assertFalse(path.exists())

    def test_qemu_config(self) -> None:
        """The qemu_config adds the initramfs, and arguments that override those of kunit.py, to the cell's machine."""
        cell = cells.load(ROOT)[0]
        text = boot.initramfs_config(cell, Path("/some/e2e.cpio"), boot.WITHOUT_KUNIT)
        self.assertTrue(text.startswith(cell.qemu_config.read_text()))
        names: dict[str, object] = {}
        fields = "linux_arch kconfig qemu_arch kernel_path kernel_command_line extra_qemu_params".split()
        names["QemuArchParams"] = dataclasses.make_dataclass("QemuArchParams", fields, frozen=True)
        exec(text.replace("from ..qemu_config import QemuArchParams", ""), names)  # pylint: disable=exec-used
        arch = names["QEMU_ARCH"]
        line = getattr(arch, "kernel_command_line").split()
        self.assertEqual(line[-3:], ["kunit.enable=0", "kunit_shutdown=none", "panic=-1"])
        self.assertEqual(getattr(arch, "extra_qemu_params")[-4:], ["-accel", "tcg", "-initrd", "/some/e2e.cpio"])
        self.assertIn("-smp", getattr(arch, "extra_qemu_params"))

    def test_arguments(self) -> None:
        """The arguments that the console must show are those with which kunit.py and the qemu_config boot."""
        cell = cells.load(ROOT)[0]
        for (suites, own_init), wanted in {
            (True, False): ["kunit.enable=1", "kunit_shutdown=reboot"],
            (True, True): ["kunit.enable=1", "kunit_shutdown=none"],
            (False, True): ["kunit.enable=1", "kunit.enable=0", "kunit_shutdown=none"],
        }.items():
            self.assertEqual(boot.kernel_arguments(cell, "", suites, own_init), [*cell.kernel_args, *wanted])


if __name__ == "__main__":
    unittest.main()

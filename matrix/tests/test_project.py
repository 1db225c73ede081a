# SPDX-License-Identifier: GPL-2.0
"""Test reading project.toml, and the projects of this checkout."""

import tempfile
import unittest
from pathlib import Path

from matrix.cell import cells, selftests
from matrix.cell.run import E2E, KUNIT, expected_tests
from matrix.common import project
from matrix.common.errors import WrongUse
from matrix.proof import mutants
from matrix.tree import source, tree

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """\
suites = "lib/tests/x"
seed = "x.seed"
[build]
arm64 = ["lib/"]
[selftests]
folder = "tools/testing/selftests/x"
suite = "x_selftests"
hold = "/dev/x 0x1f"
make = ["a=b"]
[mutants]
A = "B"
"""


class Read(unittest.TestCase):
    """Reading a file."""

    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with

    def load(self, text: str) -> project.Project:
        """Return the project with this file."""
        (self.root / "project.toml").write_text(text)
        return project.load(self.root)

    def test_whole(self) -> None:
        """Every value is read."""
        kit = project.Selftests("tools/testing/selftests/x", "x_selftests", ("a=b",), (), "/dev/x 0x1f")
        self.assertEqual(self.load(PROJECT), project.Project("lib/tests/x", {"arm64": ("lib/",)}, kit, {"A": "B"}, "x.seed"))
        self.assertEqual(self.load(PROJECT + '[parts]\na = "b"\n').parts, {"a": "b"})

    def test_without_selftests(self) -> None:
        """The selftests are optional, unless a boot needs them."""
        found = self.load(PROJECT.partition("[selftests]")[0])
        self.assertEqual((found.selftests, found.mutants), (None, {}))
        with self.assertRaisesRegex(WrongUse, r"no \[selftests\]"):
            found.need_selftests()

    def test_without_seed(self) -> None:
        """The parameter for seeds is optional."""
        self.assertEqual(self.load(PROJECT.replace('seed = "x.seed"', "")).seed, "")

    def test_malformed(self) -> None:
        """Each mistake is reported."""
        for old, new, text in (
            ("suites", "suits", "unknown key 'suits', did you mean suites"),
            ("[build]", "[builds]", "unknown key 'builds', did you mean build"),
            ("folder", "folders", "unknown key 'folders', did you mean folder"),
            ('suites = "lib/tests/x"', "", "suites is missing"),
            ('suite = "x_selftests"', "", "suite is missing"),
            ('"x_selftests"', '"x selftests"', "suite must be one word"),
            ('"lib/tests/x"', '"lib/tests/x/"', "'lib/tests/x/' must be a folder of the kernel tree"),
            ('"lib/tests/x"', '"/lib"', "'/lib' must be a folder"),
            ('"lib/tests/x"', '"lib/../x"', "'lib/../x' must be a folder"),
            ('"x.seed"', '"x seed=1"', "seed must be the name of a kernel parameter"),
            ('["lib/"]', '"lib/"', "arm64 must be a list of strings"),
            ('["a=b"]', "[1]", "make must be a list of strings"),
            ('"/dev/x 0x1f"', '"/dev/x 31"', "hold must be a device and an optional ioctl"),
            ('"B"', "2", "A must be of type str"),
            ("[build]", "[build", "project.toml: "),
        ):
            with self.subTest(new):
                self.assertEqual(PROJECT.count(old), 1)
                with self.assertRaises(WrongUse) as caught:
                    self.load(PROJECT.replace(old, new))
                self.assertIn(text, str(caught.exception))

    def test_no_project(self) -> None:
        """A folder without project.toml is refused."""
        with self.assertRaisesRegex(WrongUse, "is not a project: it has no project.toml"):
            project.load(self.root)


class Ours(unittest.TestCase):
    """The projects of this checkout: all their files are valid and consistent."""

    def test_data(self) -> None:
        """Cells, fragments, QEMU configurations, expected tests, selftests, canaries, mutants and series are valid."""
        for root in (ROOT, ROOT / "example"):
            with self.subTest(root.name):
                tested = project.load(root)
                known = cells.load(root)
                self.assertTrue([cell for cell in known if cell.gate])
                pin = source.load_pin(root)
                patches = tree.series(root, pin.base)
                self.assertEqual(set(patches), set((root / "kernel" / pin.base).glob("*.patch")))
                self.assertTrue(any(f"{tested.suites}/" in patch.read_text() for patch in patches))
                self.assertIn(f"{tested.suites}/Makefile", dict(tree.kunit_files(root)))
                self.assertTrue(mutants.load(root) or root != ROOT)
                for cell in known:
                    self.assertTrue(cell.qemu_config.is_file(), cell.name)
                    self.assertTrue(cell.build_only or cell.arch in tested.build, cell.name)
                    self.assertTrue(cells.asked(cell))
                    hooked = any(f"{tested.suites}/" in patch.read_text() for patch in tree.series(root, pin.base, cell.part))
                    self.assertEqual(bool(expected_tests(root, cell, KUNIT).tests), hooked, cell.name)
                    self.assertEqual(bool(expected_tests(root, cell, E2E).tests), bool(tested.selftests), cell.name)
                    if tested.selftests:
                        self.assertTrue(selftests.load(root, cell))

    def test_nothing_of_kvm(self) -> None:
        """The example shares only the pin of the kernel."""
        self.assertEqual(source.load_pin(ROOT / "example"), source.load_pin(ROOT))
        for path in (ROOT / "example").rglob("*"):
            if path.is_file() and "build" not in path.relative_to(ROOT / "example").parts and path.name != "source.toml":
                self.assertNotRegex(path.read_text(), "(?i)kvm|memfd", str(path))


if __name__ == "__main__":
    unittest.main()

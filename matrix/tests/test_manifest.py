# SPDX-License-Identifier: GPL-2.0
"""Manifests: what is read, what is written, what is refused; and that the project's own belong to its cells."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from matrix.cell import cells
from matrix.verdict import manifest
from matrix.cell.run import E2E, KUNIT, manifest_path
from matrix.common.errors import WrongUse

ROOT = Path(__file__).resolve().parents[2]
TEXT = "# Tests of x.\n#\na.one\na.two/first row\na.two/second row skip: no such hardware\nb.BUG: x # y\n"
TESTS = {"a.one": None, "a.two/first row": None, "a.two/second row": "no such hardware", "b.BUG: x # y": None}


class Manifests(unittest.TestCase):
    """One file in a folder of its own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "manifests/x.txt"
        self.path.parent.mkdir()
        self.path.write_text(TEXT)

    def test_load(self) -> None:
        """Names with blanks, colons and hashes; leave to skip; the comment in front; no file at all."""
        found = manifest.load(self.path)
        assert found
        self.assertEqual((found.tests, found.head), (TESTS, ("# Tests of x.", "#")))
        self.path.unlink()
        self.assertIsNone(manifest.load(self.path))

    def test_refused(self) -> None:
        """With the line, for the editor."""
        for line, text in (("a.one", "x.txt:7: a.one stands there twice"), ("one", "x.txt:7: want 'suite.case'"),
                           ("a.three skip: ", "x.txt:7: want 'suite.case'"), ("a.one skip: why", "stands there twice")):  # fmt: skip
            self.path.write_text(f"{TEXT}{line}\n")
            with self.assertRaises(WrongUse) as caught:
                manifest.load(self.path)
            self.assertIn(text, str(caught.exception))

    def test_update(self) -> None:
        """New tests come, vanished ones go, in the order of the run; leave to skip and the head stay; the diff shows it all."""
        diff = manifest.update(self.path, ["b.new", "a.one", "a.two/second row", "b.BUG: x # y"])
        self.assertEqual(self.path.read_text(), "# Tests of x.\n#\nb.new\na.one\na.two/second row skip: no such hardware\nb.BUG: x # y\n")
        self.assertIn("--- a/x.txt\n+++ b/x.txt\n", diff)
        self.assertEqual({line for line in diff.splitlines()[3:] if line[0] in "+-"},
                         {"+b.new", "-a.two/first row"})  # fmt: skip

    def test_update_without_change(self) -> None:
        """No diff, and the file is not touched."""
        before = self.path.stat()
        self.assertEqual(manifest.update(self.path, TESTS), "")
        self.assertEqual((self.path.stat().st_mtime_ns, self.path.stat().st_ino), (before.st_mtime_ns, before.st_ino))

    def test_first_update(self) -> None:
        """A new cell: the file is made, with a head that says what it is."""
        self.path.unlink()
        self.path.parent.rmdir()
        self.assertIn("+a.one\n", manifest.update(self.path, ["a.one", "a.two"]))
        self.assertEqual(self.path.read_text(), "# Tests that must run in x.\na.one\na.two\n")

    def test_update_refused(self) -> None:
        """A name that would come back as something else; the file stays as it was."""
        for name in ("a.one skip: x", " a.one", "#a.one", "a.one ", "one", "a.one\nb.two"):
            with self.assertRaisesRegex(WrongUse, "cannot be called"):
                manifest.update(self.path, ["a.new", name])
            self.assertEqual(self.path.read_text(), TEXT)

    def test_update_on_a_full_disk(self) -> None:
        """The old file or the new one, never half of one."""
        with mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left on device")), self.assertRaises(OSError):
            manifest.update(self.path, ["a.new"])
        self.assertEqual(self.path.read_text(), TEXT)

    def test_what_is_written_can_be_read(self) -> None:
        """And is what was written."""
        names = ["kvm_gmem_fault.order_of_slot/cut_at_start", "a.b/c.d/e", "a.b skip", "a.b #", "ä.ö/ü"]
        manifest.update(self.path, names)
        found = manifest.load(self.path)
        assert found
        self.assertEqual(list(found.tests), names)


class Project(unittest.TestCase):
    """matrix/manifests."""

    def test_complete(self) -> None:
        """Each cell of the gate has tests to run, and no file belongs to nobody."""
        known = cells.load(ROOT)
        for cell in known:
            for kind in (KUNIT, E2E) if cell.gate else ():
                found = manifest.load(manifest_path(cell, kind))
                self.assertTrue(found and found.tests, (cell.name, kind))
        names = {manifest_path(cell, kind).name for cell in known for kind in (KUNIT, E2E)}
        self.assertEqual({path.name for path in (ROOT / "matrix/manifests").glob("*.txt")} - names, set())


if __name__ == "__main__":
    unittest.main()

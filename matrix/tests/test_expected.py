# SPDX-License-Identifier: GPL-2.0
"""Test reading, updating and refusing lists of expected tests, and that the project's own list has no unused rules."""

import fnmatch
import re
import unittest
from collections.abc import Sequence
from pathlib import Path

from matrix.cell import cells
from matrix.cell.run import E2E, KUNIT, expected_tests
from matrix.common import project
from matrix.common.errors import WrongUse
from matrix.verdict import expected, ktap

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
# Tests.

# Small pages.
a.*
    skip *-16k: too small
a
    skip x-*: not: today
a.one
a.two/first row
    # It needs a device.
    skip x-4k arm-*: no device
a.two/second row
b.BUG: x # y
    absent arm-*

# Others.
other.one
"""
TESTS = ["a.one", "a.two/first row", "a.two/second row", "b.BUG: x # y", "other.one"]


def ran(*names: str, skipped: Sequence[str] = ()) -> dict[str, ktap.Node]:
    """Return results by name."""
    return {name: ktap.Node(name, ktap.SKIP if name in skipped else ktap.OK) for name in names}


def unused(listing: expected.Listing, known: Sequence[str]) -> list[str]:
    """Return the rules that no cell can use: (pattern, glob for cells)."""
    everything = [entry.name for entry in listing.entries if entry.test]
    rules = [(entry.name, glob, True) for entry in listing.entries for globs, _ in entry.skips for glob in globs]
    rules += [(entry.name, glob, False) for entry in listing.entries for glob in entry.absent]
    found = []
    for pattern, glob, skip in rules:
        tests = {test for cell in fnmatch.filter(known, glob) for test in (listing.of(cell).tests if skip else everything)}
        names = {name for test in tests for name in (test, test.partition("/")[0], test.partition(".")[0])}
        if not any(expected.selects(pattern, name) for name in names):
            found.append(f"{pattern}: {glob}")
    return found


class Listing(unittest.TestCase):
    """TEXT, read and updated."""

    def test_read(self) -> None:
        """Each cell gets its tests, in order, and its rules; names may contain blanks, colons and hashes."""
        listing = expected.Listing(TEXT)
        self.assertEqual(listing.text, TEXT)
        self.assertEqual(listing.of("x-4k"), expected.Expected(TESTS, [("a", "not: today"), ("a.two/first row", "no device")]))
        self.assertEqual(listing.of("arm-16k"), expected.Expected([*TESTS[:3], TESTS[4]],
                                                                  [("a.*", "too small"), ("a.two/first row", "no device")]))  # fmt: skip
        self.assertEqual(listing.of("arm-4k", lambda suite: suite == "other").tests, ["other.one"])
        self.assertEqual(expected.load(Path("/no/such/file")).of("x-4k"), expected.Expected([], []))

    def test_allowed(self) -> None:
        """A pattern selects tests and cases; a suite as a whole needs a line without a dot."""
        rules = expected.Expected(TESTS, [("a.*", "1"), ("a", "2"), ("a.two*", "3"), ("a.two/first row", "4"), ("*", "5")])
        for name, words in (("a", "25"), ("a.one", "1"), ("a.two", "13"), ("a.two/first row", "134"), ("b", "5"), ("b.one", "")):
            self.assertEqual("".join(rules.allowed(name)), words, name)

    def test_refused(self) -> None:
        """Errors name file and line."""
        for line, text in (("a.one", "list.txt:18: a.one is a duplicate"), ("a.*", "list.txt:18: a.* is a duplicate"),
                           ("    skip x-4k", "list.txt:18: expected 'skip"), ("    skip x-4k:", "list.txt:18: expected 'skip"),
                           ("    skip : why", "list.txt:18: expected"), ("    absent", "list.txt:18: expected"),
                           ("    a.two", "list.txt:18: expected"),
                           ("# head\n    skip x-4k: why", "list.txt:19: expected 'skip CELL…: words'")):  # fmt: skip
            with self.subTest(line), self.assertRaises(WrongUse) as caught:
                expected.Listing(f"{TEXT}{line}\n", Path("list.txt"))
            self.assertIn(text, str(caught.exception))

    def check(self, text: str, cell: str, *names: str, skipped: Sequence[str] = ()) -> None:
        """Check that TEXT becomes text when these tests run in a cell, and that running them again changes nothing."""
        listing = expected.Listing(TEXT)
        for _ in range(2):
            listing.update(ran(*names, skipped=skipped), cell, lambda suite: suite != "other")
            self.assertEqual(listing.text, text)
        self.assertEqual(expected.Listing(text).text, text)

    def test_update(self) -> None:
        """A new test is inserted after its predecessor; a test that did not run is removed with its rules."""
        self.check(TEXT, "x-4k", *TESTS[:4])
        self.check(TEXT.replace("a.two/second row\n", "a.two/second row\na.three #1\n"), "x-4k", *TESTS[:3], "a.three #1", TESTS[3])
        self.check(TEXT.replace("a.one\n", "a.zero\na.one\n"), "x-4k", "a.zero", *TESTS[:4])
        self.check(TEXT.replace("    absent arm-*\n", "    absent arm-*\nb.last\n"), "x-4k", *TESTS[:4], "b.last")
        self.check(TEXT.replace("a.one\n", "a.uno\n"), "arm-4k", "a.uno", *TESTS[1:3])
        lines = TEXT.splitlines(True)
        self.check("".join(lines[:8] + lines[11:]), "x-4k", "a.one", *TESTS[2:4])

    def test_update_moves(self) -> None:
        """A test that moves keeps its rules."""
        lines = TEXT.splitlines(True)
        self.check("".join(lines[:7] + lines[8:12] + lines[7:8] + lines[12:]), "x-4k", *TESTS[1:3], "a.one", TESTS[3])
        self.check("".join(lines[:8] + lines[11:14] + lines[8:11] + lines[14:]), "x-4k", "a.one", *TESTS[2:4], TESTS[1])

    def test_update_of_another_cell(self) -> None:
        """Tests that are absent in the cell stay; one that ran despite that rule is not inserted again."""
        self.check(TEXT, "arm-4k", *TESTS[:3])
        self.check(TEXT, "arm-4k", *TESTS[:4])

    def test_update_with_a_skip_as_a_whole(self) -> None:
        """A case or a suite that skips as a whole keeps its tests; one that lost its parameters does not."""
        self.check(TEXT, "x-4k", "a.one", "a.two", TESTS[3], skipped=["a.two"])
        self.check(TEXT, "x-4k", "a", TESTS[3], skipped=["a"])
        lines = TEXT.splitlines(True)
        self.check("".join([*lines[:8], "a.two\n", *lines[12:]]), "x-4k", "a.one", "a.two", TESTS[3])

    def test_first_update(self) -> None:
        """An empty list is filled."""
        listing = expected.Listing()
        listing.update(ran("a.one", "a.two/x"), "x-4k")
        listing.update(ran("other.one"), "x-4k", lambda suite: suite == "other")
        self.assertEqual(listing.text, "a.one\na.two/x\nother.one\n")

    def test_update_refused(self) -> None:
        """Names that would be parsed as something else are refused."""
        for name in ("a.x*", " a.one", "#a.one", "a.one "):
            listing = expected.Listing(TEXT)
            with self.assertRaisesRegex(WrongUse, "cannot contain a test"):
                listing.update(ran("a.new", name), "x-4k")
            self.assertEqual(listing.text, TEXT)

    def test_unused(self) -> None:
        """Rules for a cell or a test that does not exist are found."""
        known = ["x-4k", "x-16k", "arm-4k"]
        self.assertEqual(unused(expected.Listing(TEXT), known), [])
        for line, rule in (("a.three", []), ("a.three\n    skip y-*: why", ["a.three: y-*"]), ("c\n    skip *: why", ["c: *"]),
                           ("a.one/*\n    skip x-4k: why", ["a.one/*: x-4k"]), ("b.BUG*\n    skip arm-4k *: why", ["b.BUG*: arm-4k"]),
                           ("c.one\n    absent y x-4k", ["c.one: y"]), ("c.*\n    absent x-4k", ["c.*: x-4k"])):  # fmt: skip
            self.assertEqual(unused(expected.Listing(f"{TEXT}{line}\n"), known), rule)


class Project(unittest.TestCase):
    """matrix/expected.txt."""

    def test_complete(self) -> None:
        """Each cell of the entire series has tests of both kinds, and no suite may skip completely."""
        for cell in cells.load(ROOT):
            for kind in (KUNIT, E2E):
                found = expected_tests(ROOT, cell, kind)
                self.assertTrue(found.tests or cell.part, (cell.name, kind))
                self.assertEqual([name for name in {test.partition(".")[0] for test in found.tests} if found.allowed(name)], [])

    def test_on_base(self) -> None:
        """A kernel without the series is not asked for options that the series adds, not even as modules."""
        for cell in cells.load(ROOT):
            self.assertNotIn("KVM_GMEM_KUNIT_TEST", cells.asked(cells.on_base(cell)), cell.name)

    def test_every_rule_is_used(self) -> None:
        """No rule is unused, which would mean that it is wrong or obsolete."""
        self.assertEqual(unused(expected.load(ROOT / "matrix/expected.txt"), [cell.name for cell in cells.load(ROOT)]), [])

    def test_the_suites_say_these_words(self) -> None:
        """The words of the rules occur in the suites, also for cells that rarely boot."""
        source = "".join(path.read_text() for path in (ROOT / "kunit").glob("*.c"))
        said = [re.escape(text).replace("%d", r"\d+").replace("%lu", r"\d+") for text in re.findall(r'kunit_skip\(test,\s*"(.*)"', source)]
        selftests = project.load(ROOT).need_selftests().suite
        rules = [words for entry in expected.load(ROOT / "matrix/expected.txt").entries for _, words in entry.skips
                 if not entry.name.startswith(f"{selftests}.")]  # fmt: skip
        self.assertEqual([words for words in rules if not any(re.fullmatch(text, words) for text in said)], [])


if __name__ == "__main__":
    unittest.main()

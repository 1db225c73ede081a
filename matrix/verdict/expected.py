# SPDX-License-Identifier: GPL-2.0
"""Read and update the expected tests: matrix/expected.txt, one list for all cells. A comment at its top describes the format."""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matrix.common import data
from matrix.common.errors import WrongUse
from matrix.verdict import ktap

Suites = Callable[[str], bool]
RULE = re.compile(r"\s+(?:skip((?: +[^\s:]+)+): *(\S.*)|absent((?: +[^\s:]+)+))")


@dataclass(frozen=True)
class Expected:
    """The tests of one boot, in the order in which they run, and the allowed skips: (pattern, words)."""

    tests: Sequence[str] = ()
    skips: Sequence[tuple[str, str]] = ()

    def allowed(self, name: str) -> list[str]:
        """Return the words with which a test, case or suite may skip: the reason must contain one of them."""
        return [words for pattern, words in self.skips if selects(pattern, name)]

    def near(self, glob: str) -> list[str]:
        """Return suites whose names resemble a glob that selects nothing, or all suites."""
        suites = {name.partition(".")[0] for name in self.tests}
        return difflib.get_close_matches(glob.partition(".")[0], suites, 3, 0.4) or sorted(suites)


def selects(pattern: str, name: str) -> bool:
    """Whether a pattern matches a test or case. A pattern without a dot matches only suites."""
    return pattern == name or ("*" in pattern and ("." in pattern) == ("." in name) and fnmatch.fnmatchcase(name, pattern))


def _among(cell: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(cell, glob) for glob in globs)


@dataclass
class Entry:
    """A line of the list and the rules indented below it."""

    name: str  # a test, or the pattern or suite to which the rules apply; "" for a comment
    lines: list[str]
    skips: list[tuple[list[str], str]] = field(default_factory=list)  # cells and words
    absent: list[str] = field(default_factory=list)  # cells

    @property
    def test(self) -> bool:
        """Whether the line names a test."""
        return "." in self.name and "*" not in self.name


class Listing:
    """The content of expected.txt. Raise WrongUse when a line is malformed."""

    def __init__(self, text: str = "", path: Path = Path()) -> None:
        self.entries: list[Entry] = []
        names = set[str]()
        for number, line in enumerate(text.splitlines(), 1):
            if line[:1].isspace() and self.entries and line.strip():
                self.entries[-1].lines.append(line)
                if not line.lstrip().startswith("#"):
                    self._rule(self.entries[-1], line, f"{path}:{number}")
            elif line.startswith("#") or not line.strip():
                self.entries.append(Entry("", [line]))
            elif line in names:
                raise WrongUse(f"{path}:{number}: {line} is a duplicate; remove one of the two")
            else:
                names.add(line)
                self.entries.append(Entry(line, [line]))

    @staticmethod
    def _rule(entry: Entry, line: str, where: str) -> None:
        match = RULE.fullmatch(line)
        if not match or not entry.name:
            raise WrongUse(f"{where}: expected 'skip CELL…: words' or 'absent CELL…' below a test, got {line!r}")
        if match[2]:
            entry.skips.append((match[1].split(), match[2]))
        else:
            entry.absent += match[3].split()

    @property
    def text(self) -> str:
        """The content of the file."""
        return "".join(line + "\n" for entry in self.entries for line in entry.lines)

    def _own(self, cell: str, suites: Suites) -> Iterator[tuple[int, Entry]]:
        """Yield (index, entry) for the tests of a cell."""
        absent = [entry.name for entry in self.entries if _among(cell, entry.absent)]
        for at, entry in enumerate(self.entries):
            if entry.test and suites(entry.name.partition(".")[0]) and not any(selects(pattern, entry.name) for pattern in absent):
                yield at, entry

    def of(self, cell: str, suites: Suites = bool) -> Expected:
        """Return the expected tests of a cell."""
        skips = [(entry.name, words) for entry in self.entries for cells, words in entry.skips if _among(cell, cells)]
        return Expected([entry.name for _, entry in self._own(cell, suites)], skips)

    def update(self, ran: Mapping[str, ktap.Node], cell: str, suites: Suites = bool) -> None:
        """Make the tests that ran the cell's tests, in this order. Keep comments, rules and tests that are absent in the cell."""
        places = [at for at, _ in self._own(cell, suites)]
        old = [self.entries[at].name for at in places]
        known = {entry.name: entry for entry in self.entries}
        new: list[str] = []
        for name, node in ran.items():
            below = [test for test in old if test.startswith((name + ".", name + "/"))]
            if node.status == ktap.SKIP and below:  # skipped as a whole
                new += below
            elif name in old or (name not in known and "." in name):
                new.append(name)
        for name in set(new) - set(old):
            if "*" in name or name != name.strip() or name.startswith("#"):
                raise WrongUse(f"the list cannot contain a test {name!r}; rename it")
        for _, a, b, c, d in reversed(difflib.SequenceMatcher(None, old, new, False).get_opcodes()):
            if old[a:b] != new[c:d]:
                for at in reversed(places[a:b]):
                    del self.entries[at]
                at = places[a - 1] + 1 if a else places[0] if places else len(self.entries)
                self.entries[at:at] = [known.get(name) or Entry(name, [name]) for name in new[c:d]]


def load(path: Path) -> Listing:
    """Read the list from a file; a missing file is an empty list."""
    return Listing(data.text(path) if path.exists() else "", path)

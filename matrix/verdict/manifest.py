# SPDX-License-Identifier: GPL-2.0
"""The expected tests of a cell: one a line, "suite.case" or "suite.case/parameter".

"suite.case skip: reason" lets the test skip; a line that starts with # is a comment.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matrix.common.errors import WrongUse

SKIP = " skip: "


@dataclass(frozen=True)
class Manifest:
    """tests: name -> reason for which it may skip, None when it may not."""

    tests: dict[str, str | None]
    head: tuple[str, ...] = ()  # the comment in front

    def of(self, names: Iterable[str]) -> "Manifest":
        """The manifest of these tests, which keep their leave to skip."""
        return Manifest({name: self.tests.get(name) for name in names}, self.head)

    def near(self, glob: str) -> list[str]:
        """Suites whose names resemble a glob that selects none."""
        suites = {name.partition(".")[0] for name in self.tests}
        return difflib.get_close_matches(glob.partition(".")[0], suites, 3, 0.4) or sorted(suites)


def load(path: Path) -> Manifest | None:
    """Reads a manifest; None when there is no such file. Raises WrongUse when a line is malformed or a test stands there twice."""
    try:
        return _parse(path, path.read_text("utf-8"))
    except FileNotFoundError:
        return None


def _parse(path: Path, text: str) -> Manifest:
    tests: dict[str, str | None] = {}
    head: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            if not tests:
                head.append(line)
            continue
        name, separator, reason = (part.strip() for part in line.partition(SKIP))
        if name in tests:
            raise WrongUse(f"{path}:{number}: {name} stands there twice")
        if "." not in name or (separator and not reason):
            raise WrongUse(f"{path}:{number}: want 'suite.case' or 'suite.case skip: reason', got {line!r}")
        tests[name] = reason or None
    return Manifest(tests, tuple(head))


def update(path: Path, names: Iterable[str]) -> str:
    """Writes these tests, keeping the leave to skip of those that had it. Returns the diff, "" when equal."""
    old = load(path) or Manifest({}, (f"# Tests that must run in {path.stem}.",))
    tests = {name: old.tests.get(name) for name in names}
    after = "\n".join([*old.head, *(name + (SKIP + reason if reason else "") for name, reason in tests.items())]) + "\n"
    for name in tests:  # what a line of its own does not give back would be looked for under another name
        try:
            same = list(_parse(path, name).tests) == [name]
        except WrongUse:
            same = False
        if not same:
            raise WrongUse(f"{path}: a test cannot be called {name!r} in a manifest")
    before = path.read_text("utf-8") if path.exists() else ""
    if before != after:
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(after, "utf-8")
        part.replace(path)
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{path.name}", f"b/{path.name}", lineterm="")
    return "\n".join(diff)

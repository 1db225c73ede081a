# SPDX-License-Identifier: GPL-2.0
"""Generate mutants: change each line of C that the series adds in small ways.

The changes imitate common mistakes: a wrong comparison, sign or constant, a negation, a forgotten statement. Mutants
that behave like the original are listed in matrix/mutants/equivalent.txt, with the reason. The list identifies lines by
text, and a return, goto, break or continue by its condition, too. So it stays valid when other lines change.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matrix.common import data
from matrix.common.project import Project
from matrix.tree import tree
from matrix.common.errors import WrongUse

# what, pattern, replacements. The spaces around operators, which are kernel style, exclude pointers and casts.
Swap = tuple[str, str, Mapping[str, tuple[str, ...]]]
SWAPS: tuple[Swap, ...] = (
    ("relation", r" (<=|>=|==|!=|<|>) ", {"<=": ("<", ">"), ">=": (">", "<"), "<": ("<=", ">="), ">": (">=", "<="),
                                          "==": ("!=",), "!=": ("==",)}),
    ("arithmetic", r" (\+|-|<<|>>|%|\^) ", {"+": ("-",), "-": ("+",), "<<": (">>",), ">>": ("<<",), "%": ("/",), "^": ("&",)}),
    ("assignment", r" (\+=|-=|\|=) ", {"+=": ("-=",), "-=": ("+=",), "|=": ("=",)}),
    ("logic", r" (&&|\|\|) ", {"&&": ("||",), "||": ("&&",)}),
    ("bits", r" (&|\|) ", {"&": ("|",), "|": ("&",)}),
    ("constant", r"\b(true|false|NULL|0|1)\b", {"true": ("false",), "false": ("true",), "0": ("1",), "1": ("0", "2")}),
    ("rounding", r"\b(round_down|round_up|ALIGN_DOWN|min|max)\(", {
        "round_down": ("round_up",), "round_up": ("round_down",), "ALIGN_DOWN": ("ALIGN",), "min": ("max",), "max": ("min",)}),
)  # fmt: skip
CONDITION = re.compile(r"^(\s*(?:\} else )?if )\((.*)\)( \{)?$")
STATEMENT = re.compile(r"^\s+(?!return\b|break;|continue;|lockdep_|VM_WARN_)[\w>.*-]+(?:\(.*\)| [-+|&]?= .*)?;$")
CONTROL = re.compile(r"^\s+(return|goto|break|continue)\b.*;$")
COMMENT = re.compile(r"^\s*(/\*|\*|//)|^\s*$|^\s*#|^EXPORT_|^\s*KUNIT_|\bBUILD_BUG_ON")

EQUIVALENT, UNCOVERED = "matrix/mutants/equivalent.txt", "matrix/mutants/uncovered.txt"
MOVED = 3  # so many lines in a row that were in another file


@dataclass(frozen=True)
class Change:
    """A changed line of a file of the tree."""

    file: str
    line: int  # from 1
    what: str
    old: str
    new: str
    context: str = ""  # the condition of a return, goto, break or continue

    @property
    def name(self) -> str:
        """Unique among the changes of a tree."""
        digest = hashlib.sha256(self.new.encode()).hexdigest()[:8]
        return f"{Path(self.file).stem}-{self.line}-{self.what}-{digest}"

    def key(self) -> str:
        """Return its name in equivalent.txt."""
        return f"{self.file}: {self.context}{self.old.strip()} => {self.new.strip()}"


def added(prepared: tree.PreparedTree, suites: str) -> Iterator[tuple[str, list[str], list[int]]]:
    """Yield (file, its lines, indices of the lines that the series adds) for each C file except suites and tools/.

    Lines that a new file has taken over from another file are not added.
    """
    new_files, lost = [], []
    for name in sorted(prepared.touched):
        path = prepared.path / name
        if not name.endswith((".c", ".h")) or name.startswith((f"{suites}/", "tools/")) or not path.is_file():
            continue
        old, new = tree.pristine_text(prepared, name).splitlines(), path.read_text("utf-8").splitlines()
        if not old:
            new_files.append((name, new))
            continue
        blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        lost.append([old[at] for tag, start, end, _, _ in blocks if tag in ("delete", "replace") for at in range(start, end)])
        yield name, new, [at for tag, _, _, start, end in blocks if tag in ("insert", "replace") for at in range(start, end)]
    for name, new in new_files:
        moved = {at for old in lost for at in taken_over(old, new)}
        yield name, new, [at for at in range(len(new)) if at not in moved]


def taken_over(old: list[str], new: list[str]) -> Iterator[int]:
    """Yield the indices of the lines of new that are those of old, in the same order; a few alike mean nothing."""
    for block in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        if block.size >= MOVED:
            yield from range(block.b, block.b + block.size)


def changes(prepared: tree.PreparedTree, tested: Project) -> list[Change]:
    """Return all changes to the lines that the series adds."""
    return [Change(name, at + 1, what, lines[at], new, condition_of(lines, at)) for name, lines, numbers in added(prepared, tested.suites)
            for at in numbers for what, new in mutate(lines, at, tested.mutants)]


def mutate(lines: list[str], at: int, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (what, new line) for each change of a line of C; names are the [mutants] of project.toml."""
    line = lines[at]
    if COMMENT.search(line) or not line.startswith("\t"):
        return
    code = re.sub(r'"[^"]*"|/\*.*?\*/', lambda match: " " * len(match[0]), line)
    own: list[Swap] = [("constant", rf"\b({old})\b", {old: (new,)}) for old, new in names.items()]
    for what, pattern, swaps in [*SWAPS, *own]:
        for match in re.finditer(pattern, code):
            for other in swaps.get(match[1], ()):
                yield what, line[: match.start(1)] + other + line[match.end(1) :]
    if condition := CONDITION.match(line):
        yield "negation", f"{condition[1]}(!({condition[2]})){condition[3] or ''}"
    before = lines[at - 1] if at else ""
    whole = before.endswith((";", "{", "}", ":", "*/")) or not before.strip()
    if STATEMENT.match(code) and whole:
        yield "statement", "\t;"
    elif condition_of(lines, at):
        yield "statement", "\t\t{ }"


def condition_of(lines: list[str], at: int) -> str:
    """Return the line above a return, goto, break or continue, with a space, if it is its whole condition; otherwise ""."""
    before = lines[at - 1] if at else ""
    alone = CONTROL.match(lines[at]) and re.search(r"^\s*(if|else)\b", before) and before.endswith((")", "else"))
    return f"{before.strip()} " if alone else ""


def patch(change: Change, lines: list[str]) -> str:
    """Return a patch with the header of a mutant."""
    new = [*lines]
    new[change.line - 1] = change.new
    diff = difflib.unified_diff(lines, new, f"a/{change.file}", f"b/{change.file}", n=2, lineterm="")
    return f"Mistake: {change.what}: {change.old.strip()} => {change.new.strip()}\nKilled-by: *\n\n" + "\n".join(diff) + "\n"


def write(prepared: tree.PreparedTree, tested: Project, folder: Path, known: Mapping[str, str]) -> list[Path]:
    """Write all generated mutants, except those known to be equivalent, as patches to folder, replacing it.

    Raise WrongUse as check_known() does.
    """
    found = changes(prepared, tested)
    check_known(EQUIVALENT, (change.key() for change in found), known)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = []
    for change in found:
        if change.key() in known:
            continue
        lines = (prepared.path / change.file).read_text("utf-8").splitlines()
        paths.append(folder / f"{change.name}.patch")
        paths[-1].write_text(patch(change, lines), "utf-8")
    return paths


def check_known(name: str, found: Iterable[str], known: Mapping[str, str]) -> None:
    """Raise WrongUse when an entry of a file is not among the keys found: a line of the series has changed, or is gone."""
    if unknown := sorted(set(known) - set(found)):
        raise WrongUse(f"{name}: correct or remove this entry, nothing in the series is like it: {unknown[0]}")


def check_lists(root: Path, prepared: tree.PreparedTree, tested: Project) -> None:
    """Check EQUIVALENT and UNCOVERED as check_known() does."""
    check_known(EQUIVALENT, (change.key() for change in changes(prepared, tested)), equivalents(root))
    check_known(UNCOVERED, keys(prepared, tested), reasons(root / UNCOVERED))


def keys(prepared: tree.PreparedTree, tested: Project) -> Iterator[str]:
    """Yield the name in uncovered.txt of each line that the series adds."""
    for name, lines, numbers in added(prepared, tested.suites):
        yield from (key_of(name, lines[at]) for at in numbers)


def key_of(file: str, line: str) -> str:
    """Return the name of a line in uncovered.txt."""
    return f"{file}: {line.strip()}"


def equivalents(root: Path) -> dict[str, str]:
    """Return Change.key() -> why the mutant is equivalent."""
    return reasons(root / EQUIVALENT)


def reasons(path: Path) -> dict[str, str]:
    """Read key -> reason; a missing file is empty. An entry is a line with the key, then indented lines with the reason."""
    found: dict[str, str] = {}
    key = ""
    for number, line in enumerate(data.text(path).splitlines() if path.exists() else (), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            key = line.strip()
        elif key:
            found[key] = f"{found[key]} {line.strip()}" if key in found else line.strip()
        else:
            raise WrongUse(f"{path}:{number}: a reason without a key above it")
    return found

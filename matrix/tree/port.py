# SPDX-License-Identifier: GPL-2.0
"""Merge the series, patch by patch, into other kernel trees, and say which patches conflict there.

kernel/trees.toml lists Debian's packages of such trees. The merge is that of git rebase, but happens in git's objects only. A conflict
is noted, and the files that conflict are taken from the series for the patches that follow: each file counts at its first conflict.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix.common import data
from matrix.common.errors import WrongUse
from matrix.common.session import Say
from matrix.tree import source, tree

KEYS = {"package": str, "suite": str, "keyring": str}
BEGIN = "<!-- written by tools/port -->"
STAGED = re.compile(r"(\d{6}) ([0-9a-f]{40}) ([123])\t(.+)")


@dataclass(frozen=True)
class Conflict:
    """A patch that does not merge."""

    number: int  # in the series, from 1
    patch: str   # name of its file
    files: tuple[str, ...]


@dataclass(frozen=True)
class Ported:
    """The outcome in one tree."""

    version: str
    origin: str
    patches: int  # of the series
    conflicts: tuple[Conflict, ...]


def pins(root: Path) -> list[source.Pin]:
    """Return the trees of kernel/trees.toml, in file order. Raise WrongUse on a malformed file."""
    path = root / "kernel/trees.toml"
    found = []
    for entry in data.tables(path, data.read(path), "tree"):
        data.check_keys(f"{path}: tree {entry.get('package', '?')}", entry, KEYS, tuple(KEYS))
        pin = f"{entry['package']} in {entry['suite']}"
        found.append(source.Pin(entry["suite"], pin, entry["package"], entry["suite"], Path(entry["keyring"])))
    return found


def from_debian(root: Path, out: Path, pin: source.Pin, say: Say) -> Ported:
    """Merge the series into a tree of Debian. Raise MachineError when apt cannot deliver it."""
    archive = source.fetch(pin, say)
    place = out / "port/source"
    shutil.rmtree(place, ignore_errors=True)
    source.unpack(archive, place, say)
    try:
        return port(root, out, place, archive.origin, say)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def port(root: Path, out: Path, other: Path, origin: str, say: Say) -> Ported:
    """Merge the series into the tree at other. Leave files with conflicts, as git shows them, in <out>/port/<version>/<patch>/.

    The caller holds the lock of out. Raise WrongUse when other is no kernel tree, or the series does not apply to its own base.
    """
    version = tree.read_version(other)
    base = tree.prepare_base(root, out, None, say)
    patches = tree.series(root, base.kernel)
    commits, why = tree.apply_series(base, patches)
    if why:
        raise WrongUse(why)
    say(f"port: merging {len(patches)} patches into Linux {version}")
    shown = out / "port" / version
    shutil.rmtree(shown, ignore_errors=True)
    now, parent, conflicts = _import(base.folder, other), "base", []
    for number, (patch, commit) in enumerate(zip(patches, commits), 1):
        now, files = _merge(base.folder, now, parent, commit, shown / patch.stem)
        if files:
            conflicts.append(Conflict(number, patch.name, files))
        parent = commit
    return Ported(version, origin, len(patches), tuple(conflicts))


def _import(folder: Path, other: Path) -> str:
    """Return git's tree object for the files in a folder. The folder is not written to."""
    (folder / "port").mkdir(exist_ok=True)  # stays empty; git wants a work tree to change an index
    tree.git(folder, "read-tree", "--empty", tree="port")
    tree.add_files(folder, "port", other.resolve(), tree.list_files(folder, other.resolve()))
    return tree.git(folder, "write-tree", tree="port").strip()


def _merge(folder: Path, now: str, parent: str, commit: str, shown: Path) -> tuple[str, tuple[str, ...]]:
    """Merge what commit changes into the tree object now. Return the new tree object, and the files that conflict."""
    # git merge-tree finds the common ancestor of two commits. Make parent the one of both.
    ours = tree.git(folder, "commit-tree", "-m", "port", "-p", parent, now).strip()
    done = tree.try_git(folder, "merge-tree", "--write-tree", "--no-messages", ours, commit)
    lines = done.output.splitlines()
    if not lines or not re.fullmatch("[0-9a-f]{40}", lines[0]):
        raise WrongUse(f"git merge-tree failed: {done.output.strip()[-200:]}; it needs git 2.38 or newer")
    staged = [match.groups() for match in map(STAGED.fullmatch, lines[1:]) if match]
    files = tuple(sorted({name for *_, name in staged}))
    if not files:
        return lines[0], ()
    for name in files:
        blob = tree.try_git(folder, "cat-file", "blob", f"{lines[0]}:{name}")
        (shown / name).parent.mkdir(parents=True, exist_ok=True)
        (shown / name).write_text(blob.output if not blob.returncode else "", "utf-8", "surrogateescape")
    tree.git(folder, "read-tree", lines[0], tree="port")
    tree.git(folder, "update-index", "--force-remove", "--", *files, tree="port")
    for mode, blob_name, stage, name in staged:
        if stage == "3":
            tree.git(folder, "update-index", "--add", "--cacheinfo", f"{mode},{blob_name},{name}", tree="port")
    return tree.git(folder, "write-tree", tree="port").strip(), files


def table(found: Iterable[Ported]) -> str:
    """Format the outcomes as a Markdown table."""
    text = ["| tree | patches that conflict | where |", "|---|--:|---|"]
    for one in found:
        where = "; ".join(f"{conflict.number}: {', '.join(f'`{name}`' for name in conflict.files)}" for conflict in one.conflicts)
        text.append(f"| {one.origin} | {len(one.conflicts)} of {one.patches} | {where or 'none'} |")
    return "\n".join(text) + "\n"


def report(found: Sequence[Ported], out: Path) -> list[str]:
    """Return lines for a person."""
    lines = []
    for one in found:
        lines += [f"{one.version}: patch {conflict.number}, {conflict.patch}: conflict in {', '.join(conflict.files)}"
                  for conflict in one.conflicts]  # fmt: skip
        lines.append(f"{one.version} ({one.origin}): {len(one.conflicts)} of {one.patches} patches conflict"
                     + (f"; see {out / 'port' / one.version}" if one.conflicts else ""))
    return lines

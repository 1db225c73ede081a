# SPDX-License-Identifier: GPL-2.0
"""Convert the series to git commits on the pristine source, and back.

The repository is <out>/edit/linux-<base>. It borrows the objects of the pristine source from tree.py's git directory; if that
is removed, make edit recreates the same objects. The tag "base" is the pristine source. The files in the folder of the suites
are symlinks into kunit/, which git ignores. .git/gmem.json records the state in which the commits and kernel/<base> last
agreed; any other state contains unsaved work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from matrix.common import project
from matrix.tree import source, tree
from matrix.common.errors import MachineError, WrongUse
from matrix.common.session import Say, locked, uninterrupted


def edit(root: Path, out: Path, say: Say, kernel: str | None = None) -> Path:
    """Create or update the repository for a base (None: the newest) and return its path.

    Raise WrongUse when that would lose unsaved work.
    """
    root, out = root.resolve(), out.resolve()
    kernel = source.load_pin(root, kernel).base
    repo = repo_of(out, kernel)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        base = tree.prepare_base(root, out, Path(kernel), say)
        if known := agreed(repo):
            _link_suites(root, repo)
            why = unsaved(repo)
            if known["series"] == digest(root, kernel):
                say(f"edit: {why or 'the commits are those of kernel/' + kernel}")
                return repo
            if why:
                raise WrongUse(f"kernel/{kernel} has changed, and {repo} has unsaved work: {why}. "
                               f"Save it elsewhere (git format-patch), remove {repo}, and run again")
        commits, why = tree.apply_series(base, tree.series(root, kernel))
        if why:
            raise WrongUse(why)
        set_branch(repo, base.folder, (commits or ["base"])[-1], project.load(root).suites)
        _link_suites(root, repo)
        agree(repo, root, kernel)
    say(f"edit: {len(commits)} patches as commits")
    return repo


def refresh(root: Path, out: Path, say: Say, kernel: str | None = None) -> None:
    """Write the commits on top of base to kernel/<base> (None: the newest). Raise WrongUse when they are not a clean series."""
    root, out = root.resolve(), out.resolve()
    kernel = kernel or source.load_pin(root).base
    repo, folder = repo_of(out, kernel), root / "kernel" / kernel
    if kernel not in source.bases(root) and not (re.fullmatch(r"\d+\.\d+", kernel) and repo.exists()):
        raise WrongUse(f"there is no series for Linux {kernel}; make rebase KSRC=<tree> brings it there")
    if not repo.exists():
        raise WrongUse(f"{repo} does not exist; run make edit to create it")
    if why := _unfinished(repo):
        raise WrongUse(f"{repo}: {why}; commit, finish or abort it first")
    _link_suites(root, repo)
    if git(repo, "rev-list", "HEAD..base"):
        raise WrongUse(f"{repo}: HEAD is not on top of base; run git rebase base")
    if git(repo, "rev-list", "--merges", "base..HEAD"):
        raise WrongUse(f"{repo}: there are merges on top of base; a series must be linear")
    if not git(repo, "rev-list", "base..HEAD"):
        raise WrongUse(f"{repo}: there are no commits on top of base; nothing to write")
    if agreed(repo).get("series") != digest(root, kernel):
        raise WrongUse(f"kernel/{kernel} has changed since make edit; first move that change elsewhere with git stash or git commit, "
                       f"or remove {repo} if its commits are out of date")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".refresh-") as work:
        git(repo, "format-patch", "--quiet", "--zero-commit", "--no-numbered", "--no-signature", "--abbrev=12",
            "--output-directory", work, "base..HEAD")
        names = sorted(path.name for path in Path(work).iterdir())
        listing = folder / "series"
        old = listing.read_text().splitlines() if listing.exists() else []
        gone = sorted({line.strip() for line in old if line.strip() and not line.startswith("#")} - set(names))
        now = {path.name: path.read_bytes() for path in folder.glob("*.patch")}
        written = [name for name in names if now.get(name) != Path(work, name).read_bytes()]
        Path(work, "series").write_text("".join(f"{line}\n" for line in [*(line for line in old if line.startswith("#")), *names]))
        with uninterrupted():
            for name in written:
                Path(work, name).replace(folder / name)
            Path(work, "series").replace(listing)
            for name in gone:
                (folder / name).unlink(missing_ok=True)
            if new := not (folder / source.PIN).exists():
                (folder / source.PIN).write_text(source.new_pin(root, tree.read_version(repo)))
            agree(repo, root, kernel)
    if new:
        say(f"refresh: wrote kernel/{kernel}/{source.PIN}; check it, and copy the cover letters")
    for name in gone:
        say(f"refresh: removed kernel/{kernel}/{name}")
    for name in written:
        say(f"refresh: wrote kernel/{kernel}/{name}")
    say(f"refresh: {len(names)} patches, {len(written)} changed")


def repo_of(out: Path, kernel: str) -> Path:
    """Return the path of the repository for a base."""
    return out / "edit" / f"linux-{kernel}"


def repos(out: Path) -> list[Path]:
    """Return the repositories that exist, also those of make rebase for kernels that are no bases yet."""
    return sorted((out / "edit").glob("linux-*"))


def unsaved(repo: Path) -> str:
    """Describe what the repository has that kernel/ lacks; "" when they agree."""
    if why := _unfinished(repo):
        return why
    return "" if agreed(repo).get("head") == git(repo, "rev-parse", "HEAD") else "the commits differ from those last written"


def digest(root: Path, kernel: str) -> str:
    """Return the sha256 over the series file and its patches; without a series, over nothing."""
    total = hashlib.sha256()
    for path in tree.series(root, kernel) if (root / "kernel" / kernel / "series").exists() else ():
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def git(repo: Path, *args: str) -> str:
    """Run git in repo and return its output. Raise MachineError when git fails."""
    done = tree.run_git(repo, *args)
    if done.returncode:
        raise MachineError(f"git {args[0]} in {repo} failed: {done.output.strip()}")
    return done.output.rstrip()


def set_branch(repo: Path, folder: Path, commit: str, suites: str) -> None:
    """Set the tag base and the branch series in the repository. Remove gmem.json meanwhile: if interrupted, the next edit starts over."""
    ours, objects = folder / "git/objects", repo / ".git/objects"
    _note(repo).unlink(missing_ok=True)
    shutil.rmtree(repo / ".git/rebase-apply", ignore_errors=True)
    repo.mkdir(parents=True, exist_ok=True)
    git(repo, "init", "--quiet", "--initial-branch=series", "--template=")
    borrowed = objects / "info/alternates"
    known = borrowed.read_text().splitlines() if borrowed.exists() else []  # branches on another version need its objects
    borrowed.write_text("".join(f"{line}\n" for line in {*known, os.path.relpath(ours, objects)}))
    for line in tree.git(folder, "rev-list", "--objects", f"base..{commit}", "--").splitlines():
        name = f"{line[:2]}/{line[2:].split()[0]}"
        (objects / name).parent.mkdir(exist_ok=True)
        shutil.copy(ours / name, objects / name)
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/exclude").write_text(f"/{suites}\n")
    git(repo, "tag", "--force", "base", tree.git(folder, "rev-parse", "base").strip())
    git(repo, "checkout", "--quiet", "--force", "-B", "series", tree.git(folder, "rev-parse", commit).strip())


def _link_suites(root: Path, repo: Path) -> None:
    """Link the files of kunit/ one by one: a suite may include "../x.h", which must be that of the repository."""
    folder = repo / project.load(root).suites
    folder.mkdir(parents=True, exist_ok=True)
    for link in sorted(folder.iterdir()):
        if not link.is_symlink():
            raise WrongUse(f"{link} would be lost: git ignores this folder; move the file to {root / 'kunit'}")
        if not link.exists():
            link.unlink()
    for path, file in tree.kunit_files(root):
        if not (repo / path).is_symlink():
            (repo / path).symlink_to(file.resolve())


def _note(repo: Path) -> Path:
    return repo / ".git/gmem.json"


def agree(repo: Path, root: Path, kernel: str) -> None:
    """Note that the commits and kernel/<kernel> agree."""
    part = _note(repo).with_suffix(".part")
    part.write_text(json.dumps({"head": git(repo, "rev-parse", "HEAD"), "series": digest(root, kernel)}))
    part.replace(_note(repo))


def agreed(repo: Path) -> dict[str, str]:
    """Return the commit and the series that last agreed; nothing if the repository is not complete."""
    return dict(json.loads(_note(repo).read_text())) if _note(repo).exists() else {}


def _unfinished(repo: Path) -> str:
    for name in ("rebase-apply", "rebase-merge", "sequencer", "MERGE_HEAD", "CHERRY_PICK_HEAD"):
        if (repo / ".git" / name).exists():
            return "a rebase, am, merge or cherry-pick is in progress"
    changes = git(repo, "status", "--porcelain").splitlines()
    return f"{len(changes)} uncommitted change(s): {', '.join(line[3:] for line in changes[:3])}" if changes else ""

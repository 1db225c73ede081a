# SPDX-License-Identifier: GPL-2.0
"""The edit loop: the series as git commits on the pristine source, and back.

The repository is <out>/edit/linux-<base>, made whole under another name first. Its tag "base" is the pristine source; the
files in its virt/kvm/tests are links into kunit/, which git does not see. Inside .git, gmem.json tells what was last
agreed between the commits and kernel/<base>: anything else is work that is not to be lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from matrix.common import proc
from matrix.tree import source, tree
from matrix.common.errors import MachineError, WrongUse
from matrix.common.session import locked

Say = Callable[[str], None]

GIT_SECONDS = 600.0
LONG_AGO = "2000-01-01T00:00:00Z"  # the date of base: git walks by date and expects parents to be older than their children


def edit(root: Path, out: Path, say: Say) -> Path:
    """Return the repository with the series as commits, made or brought up to date; WrongUse rather than lose work."""
    root, out = root.resolve(), out.resolve()
    kernel = source.load_pin(root).base
    repo = repo_of(out, kernel)
    created = not repo.exists()
    if created:
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            _create(tree.prepare_base(root, out, None, say), repo, say)
    _link_suites(root, repo)
    if not created and "head" in (agreed := _agreed(repo)):
        why = unsaved(repo)
        if agreed["series"] == digest(root, kernel):
            say(f"edit: {why or 'the commits are those of kernel/' + kernel}")
            return repo
        if why:
            raise WrongUse(f"kernel/{kernel} has changed, and {repo} holds work that was not written back: {why}. "
                           f"Save it elsewhere (git format-patch), remove {repo}, and run again")
    _apply(root, kernel, repo, say)
    return repo


def refresh(root: Path, out: Path, say: Say) -> None:
    """Write the commits on top of base to kernel/<base>; WrongUse when they are not a clean series."""
    root, out = root.resolve(), out.resolve()
    kernel = source.load_pin(root).base
    repo = repo_of(out, kernel)
    folder = root / "kernel" / kernel
    if not repo.exists():
        raise WrongUse(f"there is no {repo}; make edit makes it")
    if why := _unfinished(repo):
        raise WrongUse(f"{repo}: {why}; settle that first")
    _link_suites(root, repo)
    if git(repo, "rev-list", "HEAD..base").strip():
        raise WrongUse(f"{repo}: HEAD is not on top of base; git rebase base")
    if git(repo, "rev-list", "--merges", "base..HEAD").strip():
        raise WrongUse(f"{repo}: there are merges on top of base; a series is one line of commits")
    if not git(repo, "rev-list", "base..HEAD").strip():
        raise WrongUse(f"{repo}: there are no commits on top of base; nothing to write")
    if _agreed(repo).get("series") != digest(root, kernel):
        raise WrongUse(f"kernel/{kernel} has changed since make edit; git stash or commit that change elsewhere first, "
                       f"or remove {repo} if it is the commits there that are out of date")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".refresh-") as work:
        git(repo, "format-patch", "--quiet", "--zero-commit", "--no-numbered", "--no-signature", "--abbrev=12",
            "--output-directory", work, "base..HEAD", settings=False)
        names = sorted(path.name for path in Path(work).iterdir())
        listing = folder / "series"
        old = listing.read_text().splitlines() if listing.exists() else []
        gone = {line.strip() for line in old if line.strip() and not line.startswith("#")} - set(names)
        changed = [name for name in names if not _equal(Path(work, name), folder / name)]
        for name in changed:
            Path(work, name).replace(folder / name)
        text = "".join(f"{line}\n" for line in [*(line for line in old if line.startswith("#")), *names])
        Path(work, "series").write_text(text)
        Path(work, "series").replace(listing)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    _agree(repo, root, kernel)
    for name in sorted(gone):
        say(f"refresh: removed kernel/{kernel}/{name}")
    for name in changed:
        say(f"refresh: wrote kernel/{kernel}/{name}")
    say(f"refresh: {len(names)} patches, {len(changed)} changed")


def repo_of(out: Path, kernel: str) -> Path:
    """Where the repository for a base lies."""
    return out / "edit" / f"linux-{kernel}"


def unsaved(repo: Path) -> str:
    """What in the repository is not in kernel/ ("" when nothing)."""
    if why := _unfinished(repo):
        return why
    return "" if _agreed(repo).get("head") == _commit(repo, "HEAD") else "the commits differ from those last written"


def digest(root: Path, kernel: str) -> str:
    """sha256 over the series file and its patches."""
    total = hashlib.sha256()
    for path in tree.series(root, kernel):
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def git(repo: Path, *args: str, settings: bool = True, date: str = "") -> str:
    """Run git in repo, at the given date; MachineError when it fails. settings=False keeps the user's out, for output that is the same
    everywhere. Hooks, signing and line-end conversion stay out always."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    if not settings:
        env |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    if date:
        env |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    plain = [part for item in ("core.hooksPath=/dev/null", "commit.gpgsign=false", "core.autocrlf=false", "gc.auto=0",
                               "core.compression=0", "core.fsync=none") for part in ("-c", item)]
    done = proc.run(["git", *plain, "-C", str(repo), *args], env=env, limit=GIT_SECONDS)
    if done.returncode or done.timed_out:
        raise MachineError(f"git {args[0]} in {repo} failed: {done.output.strip()}")
    return done.output


def _create(base: tree.Base, repo: Path, say: Say) -> None:
    """The pristine source as one commit."""
    part = repo.with_name(repo.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    repo.parent.mkdir(parents=True, exist_ok=True)
    say(f"edit: making a git repository of {base.origin} (a minute, once)")
    shutil.copytree(base.path, part, symlinks=True)
    _take_new_files(part / ".gitignore")
    git(part, "init", "--quiet", "--initial-branch=series")
    with (part / ".git/info/exclude").open("a") as file:
        file.write(f"/{tree.KUNIT_DIR}\n")
    git(part, "add", "--force", "--all")
    _with_name(part)
    git(part, "commit", "--quiet", "--message", f"Linux {base.version}: {base.origin}", date=LONG_AGO)
    git(part, "tag", "base")
    part.rename(repo)


def _link_suites(root: Path, repo: Path) -> None:
    """Lay kunit/ in, file by file: the suites include "../guest_memfd.h", which has to be that of the repository."""
    folder = repo / tree.KUNIT_DIR
    folder.mkdir(parents=True, exist_ok=True)
    for link in sorted(folder.iterdir()):
        if not link.is_symlink():
            raise WrongUse(f"{link} is in no commit, git does not see the suites; move it to {root / 'kunit'}")
        if not link.exists():
            link.unlink()
    for path, file in tree.kunit_files(root):
        if not (repo / path).is_symlink():
            (repo / path).symlink_to(file.resolve())


def _take_new_files(gitignore: Path) -> None:
    """Debian's .gitignore has git ignore the whole tree; a new file would get lost."""
    if gitignore.exists():
        lines = gitignore.read_text().splitlines(keepends=True)
        gitignore.write_text("".join(line for line in lines if line.strip() not in ("/*", "!/debian/")))


def _with_name(repo: Path) -> None:
    """git am and commit want a name, which a CI machine does not have."""
    if "user.email" not in git(repo, "config", "--list", "--name-only").split():
        git(repo, "config", "user.email", "edit@localhost")
        git(repo, "config", "user.name", "edit")


def _apply(root: Path, kernel: str, repo: Path, say: Say) -> None:
    """Set the repository to base + series. Until the last step nothing counts as agreed, and the next edit starts anew."""
    (repo / ".git" / "gmem.json").unlink(missing_ok=True)
    shutil.rmtree(repo / ".git" / "rebase-apply", ignore_errors=True)
    git(repo, "checkout", "--quiet", "--force", "-B", "series", "base")
    patches = tree.series(root, kernel)
    if patches:
        try:
            git(repo, "am", "--quiet", "--keep-non-patch", "--committer-date-is-author-date", *map(str, patches))
        except MachineError as error:
            raise WrongUse(f"the series of kernel/{kernel} does not apply: {error}") from error
    _agree(repo, root, kernel)
    say(f"edit: {len(patches)} patches as commits")


def _agree(repo: Path, root: Path, kernel: str) -> None:
    note = repo / ".git" / "gmem.json"
    part = note.with_suffix(".part")
    part.write_text(json.dumps({"head": _commit(repo, "HEAD"), "series": digest(root, kernel)}))
    part.replace(note)


def _agreed(repo: Path) -> dict[str, str]:
    note = repo / ".git" / "gmem.json"
    return dict(json.loads(note.read_text())) if note.exists() else {}


def _unfinished(repo: Path) -> str:
    for name in ("rebase-apply", "rebase-merge", "MERGE_HEAD", "CHERRY_PICK_HEAD"):
        if (repo / ".git" / name).exists():
            return "a rebase, am, merge or cherry-pick is under way"
    changes = git(repo, "status", "--porcelain").splitlines()
    return f"{len(changes)} uncommitted change(s): {', '.join(line[3:] for line in changes[:3])}" if changes else ""


def _commit(repo: Path, name: str) -> str:
    return git(repo, "rev-parse", f"{name}^{{commit}}").strip()


def _equal(one: Path, two: Path) -> bool:
    return two.is_file() and one.read_bytes() == two.read_bytes()

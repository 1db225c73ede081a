# SPDX-License-Identifier: GPL-2.0
"""Bring the series to a kernel to which no series in kernel/ applies.

The repository is that of matrix/tree/edit.py for this kernel. The commits of the base of the same name, or of the newest one if there
is none, are picked one after the other, as git rebase does; git's three-way merge finds their context, because each knows its parent.
What conflicts is for a person.
"""

from __future__ import annotations

import os
from pathlib import Path

from matrix.common import project
from matrix.common.errors import MachineError, WrongUse
from matrix.common.session import Say, locked
from matrix.tree import apt, edit, source, tree


def rebase(root: Path, out: Path, ksrc: Path, say: Say) -> tuple[Path, str]:
    """Create the repository with the series on the tree at ksrc, which is never written to.

    Return its path, and what to do about a patch that conflicts ("": none does). Raise WrongUse when ksrc is unusable, or the
    repository has unsaved work.
    """
    root, out = root.resolve(), out.resolve()
    kernel = source.base_of(tree.read_version(ksrc))
    repo = edit.repo_of(out, kernel)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if edit.agreed(repo) and (why := edit.unsaved(repo)):
            raise WrongUse(f"{repo} has unsaved work: {why}. Finish it, or remove {repo}, and run again")
        ours = tree.prepare_base(root, out, Path(kernel) if kernel in source.bases(root) else None, say)
        theirs = tree.take_ksrc(out, ksrc, say)
        commits, why = tree.apply_series(ours, tree.series(root, ours.kernel))
        if why:
            raise WrongUse(why)
        edit.set_branch(repo, theirs.folder, "base", project.load(root).suites)
        with open(repo / ".git/objects/info/alternates", "a", encoding="utf-8") as borrowed:
            borrowed.write(f"{os.path.relpath(ours.folder / 'git/objects', repo / '.git/objects')}\n")
        edit.agree(repo, root, kernel)
    say(f"rebase: picking {len(commits)} patches onto Linux {theirs.version}")
    done = tree.run_git(repo, "cherry-pick", "--allow-empty", *commits)
    if not done.returncode:
        return repo, ""
    files = edit.git(repo, "diff", "--name-only", "--diff-filter=U").split()
    which = f"patch {len(edit.git(repo, 'rev-list', 'base..HEAD').split()) + 1} of {len(commits)}"
    if files:
        return repo, f"{which} conflicts in {', '.join(files)}: resolve it there, git add, git cherry-pick --continue, until all are picked"
    if "--skip" in done.output:
        return repo, f"{which} is in this kernel already: git cherry-pick --skip there, until all are picked"
    raise MachineError(f"git cherry-pick in {repo} failed: {apt.last_line(done)}")

# SPDX-License-Identifier: GPL-2.0
"""Write the series as mailboxes that one can send, one per part, each with its cover letter.

The suites become a patch of their own, before the one that hooks up their folder. Author and Signed-off-by are those of the user's git
configuration, the dates those of the patches. <out>/series/v<n>/<part>.mbox has the patches and nothing else, so that git am takes it;
<part>.cover is the mail that they answer. Another base than the newest has the folder v<n>-<base>, and texts of its own only where
kernel/<base>/ has them. refs/exports/v<n> in the git directory remembers the commits for the range-diff.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from matrix.common import proc, project
from matrix.common.errors import WrongUse
from matrix.common.session import Say, locked
from matrix.tree import source, tree
from matrix.tree.tree import Base

COVER, SUITES = "cover-{part}.txt", "suites.txt"  # in kernel/<base>/
REST = "last"  # where cover texts and mailboxes have no part: a series without [parts]
TRAILER = re.compile(r"^Signed-off-by: .*\n?", re.MULTILINE)
COMMIT = re.compile(r"[0-9a-f]{12,40}")


def export(root: Path, out: Path, version: int, commit: str, say: Say, ksrc: Path | None = None) -> list[Path]:
    """Write the mailboxes of a version and return their paths. commit is the base commit in the recipients' tree, or "".

    ksrc is that of tree.prepare_base().

    Raise WrongUse when the series does not apply, a text is missing, or git does not know the user.
    """
    root, out = root.resolve(), out.resolve()
    if version < 1 or (commit and not COMMIT.fullmatch(commit)):
        raise WrongUse("the version must be a number above 0, and the base commit 12 to 40 hexadecimal digits")
    who = user(root)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        base = tree.prepare_base(root, out, ksrc, say)
        patches = tree.series(root, base.kernel)
        commits, why = tree.apply_series(base, patches)
        if why:
            raise WrongUse(why)
        made = rewrite(root, base, patches, commits, who)
        newest = base.kernel == source.bases(root)[-1]
        folder = out / "series" / (f"v{version}" if newest else f"v{version}-{base.kernel}")
        work = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        names = list[str]()
        refs = dict[str, str]()
        for part, first, last in ranges(root, base, patches, made):
            text = _text(root, base, COVER.format(part=part))
            cover, mbox = _mail(base, text, (first, last), commit, version, who)
            before = _range_diff(base, part, version, f"{first}..{last}")
            if version > 1 and not before:
                say(f"export: no older version of {part} is known, so there is no range-diff")
            (work / f"{part}.cover").write_text(f"{cover}{before}")
            (work / f"{part}.mbox").write_text(mbox)
            refs |= {part: last, f"{part}-base": first}
            names += [f"{part}.cover", f"{part}.mbox"]
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        for name, target in refs.items():
            tree.git(base.folder, "update-ref", f"refs/exports/v{version}/{name}", target)
    return [folder / name for name in names]


def user(root: Path) -> dict[str, str]:
    """Return name and email of the user's git configuration. Raise WrongUse when one is missing."""
    found = {}
    for key in ("name", "email"):
        done = proc.run(["git", "-C", str(root), "config", f"user.{key}"], limit=60)
        found[key] = done.output.strip()
        if done.returncode or not found[key]:
            raise WrongUse(f"git does not know who sends the series; run git config --global user.{key} …")
    return found


def rewrite(root: Path, base: Base, patches: Sequence[Path], commits: Sequence[str], who: Mapping[str, str]) -> list[str]:
    """Return commits by the user with the same changes, and one more that adds the suites before the patch that hooks up their folder."""
    folder, hooks = base.folder, _hooks(root, base, patches)
    made, parent = list[str](), tree.git(folder, "rev-parse", "base").strip()
    for at, commit in enumerate(commits):
        if at == hooks:
            parent = _commit(folder, tree.add_suites(folder, root, parent), parent, _text(root, base, SUITES),
                             _by(folder, who, commit))  # fmt: skip
            made.append(parent)
        tip = tree.add_suites(folder, root, commit) if at >= hooks else commit
        parent = _commit(folder, tip, parent, tree.git(folder, "log", "-1", "--format=%B", commit), _by(folder, who, commit))
        made.append(parent)
    return made


def _hooks(root: Path, base: Base, patches: Sequence[Path]) -> int:
    """Return the position of the patch that hooks up the suites' folder, before which rewrite() adds a commit."""
    suites = project.load(root).suites
    for at, patch in enumerate(patches):
        if suites in patch.read_text(errors="replace"):
            return at
    raise WrongUse(f"no patch of kernel/{base.kernel} hooks up {suites}")


def _by(folder: Path, who: Mapping[str, str], commit: str) -> dict[str, str]:
    """Return the variables that make the user the author and committer, at the date of a commit."""
    fields = {**who, "date": tree.git(folder, "log", "-1", "--format=%aI", commit).strip()}
    return {f"GIT_{role}_{key.upper()}": value for role in ("AUTHOR", "COMMITTER") for key, value in fields.items()}


def _commit(folder: Path, like: str, parent: str, message: str, by: Mapping[str, str]) -> str:
    """Commit the tree of another commit."""
    body = TRAILER.sub("", message.rstrip() + "\n").rstrip()
    last = body.rpartition("\n\n")[2]
    gap = "\n" if re.match(r"[A-Z][\w-]+: ", last) else "\n\n"
    tree_of = tree.git(folder, "rev-parse", f"{like}^{{tree}}").strip()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write(f"{body}{gap}Signed-off-by: {by['GIT_AUTHOR_NAME']} <{by['GIT_AUTHOR_EMAIL']}>\n")
        file.flush()
        return tree.git(folder, "commit-tree", "-p", parent, "-F", file.name, tree_of, env=by).strip()


def ranges(root: Path, base: Base, patches: Sequence[Path], made: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (part, commit before it, its last commit) for each part in order, and for what follows the last."""
    ends = {name: len(tree.series(root, base.kernel, name)) for name in project.load(root).parts}
    names, hooks = sorted(ends, key=lambda name: ends[name]), _hooks(root, base, patches)
    found, first = [], tree.git(base.folder, "rev-parse", "base").strip()
    for name in names:
        last = made[ends[name] - 1 + (hooks < ends[name])]
        found.append((name, first, last))
        first = last
    if first != made[-1]:
        texts = {path.stem.removeprefix("cover-") for folder in _places(root, base) for path in folder.glob("cover-*.txt")} - set(names)
        found.append((min(texts, default=REST), first, made[-1]))
    return found


def _places(root: Path, base: Base) -> list[Path]:
    """Return the folders with the texts for a base: its own, then that of the newest base."""
    return [root / "kernel" / kernel for kernel in dict.fromkeys([base.kernel, source.bases(root)[-1]])]


def _text(root: Path, base: Base, name: str) -> str:
    """Return subject, empty line and body."""
    paths = [folder / name for folder in _places(root, base)]
    for path in paths:
        if path.is_file():
            return path.read_text()
    raise WrongUse(f"{paths[-1]} is missing: the first line is the subject, and after an empty line comes the text")


def _range_diff(base: Base, part: str, version: int, span: str) -> str:
    """Return the range-diff against the newest older export of a part; "" if there is none."""
    for old in range(version - 1, 0, -1):
        ref = f"refs/exports/v{old}/{part}"
        if tree.git(base.folder, "for-each-ref", "--format=%(refname)", ref).strip():
            diff = tree.git(base.folder, "range-diff", "--no-color", f"{ref}-base..{ref}", span)
            return f"\nRange-diff against v{old}:\n{diff}"
    return ""


def _mail(base: Base, text: str, ends: tuple[str, str], commit: str, version: int, who: Mapping[str, str]) -> tuple[str, str]:
    """Return the cover letter of a part, and its patches as git format-patch writes them."""
    prefix = "PATCH" if version == 1 else f"PATCH v{version}"
    made = tree.git(base.folder, "format-patch", "--stdout", "--cover-letter", "--thread=shallow", "--abbrev=12", "--no-signature",
                    f"--subject-prefix={prefix}", f"{ends[0]}..{ends[1]}", env=_by(base.folder, who, ends[1]))
    subject, _, body = text.partition("\n")
    head, _, rest = made.partition("\n\n*** BLURB HERE ***\n")
    shortlog, start, patches = rest.partition("\nFrom ")
    head = head.replace("*** SUBJECT HERE ***", subject)
    tail = f"base-commit: {commit}" if commit else f"Based on Linux {base.version} ({base.origin})."
    tail += "".join(f"\nprerequisite-patch-id: {one}" for one in _patch_ids(base, ends[0]))
    return f"{head}\n\n{body.strip()}\n{shortlog}\n{tail}\n", (start + patches).lstrip("\n")


def _patch_ids(base: Base, last: str) -> list[str]:
    """Return the IDs of the patches up to a commit, oldest first, as git format-patch --base has them."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".patch") as file:
        file.write(tree.git(base.folder, "log", "--reverse", "--patch", f"base..{last}", "--"))
        file.flush()
        return [line.split()[0] for line in tree.git(base.folder, "patch-id", "--stable", stdin=Path(file.name)).splitlines()]

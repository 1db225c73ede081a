# SPDX-License-Identifier: GPL-2.0
"""Prepare the tree that is built: pristine source + series + kunit/.

<out>/<key>/git        the git directory. Branch "base" is the pristine source as one commit, "prepared" the content of
                       tree/, refs/series/<digest> a series on base with one commit per patch
<out>/<key>/tree       the work tree that is built, and whose kunit.py is run
<out>/<key>/base       the pristine source, for runs without the series only
<out>/<key>/stage      the rejects of a patch that does not apply
<out>/<key>/base.json  the origin of the source, written last: it marks the git directory as complete
key is linux-<version>, or ksrc-<8 hex digits of the sha256 of the path> for the user's own tree.

Do not edit tree/: every run restores it. Only files that differ are written, with a fresh mtime, so builds stay incremental.
Each work tree NAME has its own index, git/NAME.index.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.common import proc, project
from matrix.tree import source
from matrix.common.errors import DISK_FULL, MachineError, WrongUse
from matrix.common.session import Say

GIT_SECONDS = 900.0

# Make commits reproducible. The date is old because git expects parents to be older than their children.
_ENV = {"LC_ALL": "C", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0"} | {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (
        ("NAME", "matrix"), ("EMAIL", "matrix@localhost"), ("DATE", "2000-01-01T00:00:00Z"))}
_OPTIONS = ("safe.directory=*", "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "core.compression=0", "core.fsync=none",
            "index.version=4", "checkout.workers=0")
_BYTES = "* -text -filter -ident -working-tree-encoding\n"  # no conversion, regardless of .gitattributes

# How git says that the disk is full where it omits the system's "No space left on device".
_FULL = re.compile(r"unable to write file |write error\. Out of diskspace|couldn't write '|failed to write new configuration file ")

# Build products to ignore in a tree without git. With some of them, kbuild refuses to build out of tree (O=).
_PRODUCTS = ("__pycache__ .*.cmd .*.d .tmp_* .config .config.old *.o *.ko *.a *.mod *.mod.c *.order *.symvers *.dtb *.su *.gcno "
             "/vmlinux* /System.map /include/config /include/generated /arch/*/include/generated").split()


@dataclass(frozen=True)
class PreparedTree:
    """A tree that is ready to build."""

    path: Path               # absolute
    version: str             # from its Makefile: "7.3.4"
    origin: str              # where the source came from, for messages
    touched: frozenset[str]  # files the series touches or kunit/ adds, relative to path
    series: str              # sha256 over these files
    part: str = ""           # of project.toml, or "" for the entire series


@dataclass(frozen=True)
class Base:
    """A pristine source in the build folder."""

    folder: Path  # <out>/<key>
    kernel: str   # its folder below kernel/: "7.3"
    version: str
    origin: str

    def __str__(self) -> str:
        return f"{self.version} ({self.origin})"


def need_plain(*paths: Path) -> None:
    """Raise WrongUse for a path in which the kernel cannot be built."""
    for path in paths:
        if re.search(r"[\s:]", str(path)):
            raise WrongUse(f"{path}: the kernel cannot be built in a path with a space or a colon")


def prepare(root: Path, out: Path, ksrc: Path | None, say: Say, part: str = "") -> PreparedTree:
    """Create or update the tree under out for the series and suites of root; ksrc is the user's own source or None.

    With a part of the series, the tree is a separate one that has no patches after that part. The caller holds the lock of
    out. Raise WrongUse (ksrc unusable, series does not apply) or MachineError.
    """
    need_plain(root, out)
    base = prepare_base(root, out, ksrc, say)
    commits, why = apply_series(base, series(root, base.kernel, part))
    if why:
        own = f"\nmake rebase KSRC={ksrc} merges the series into this tree, patch by patch" if ksrc and ksrc.is_dir() else ""
        raise WrongUse(why + own)
    commit = add_suites(base.folder, root, (commits or ["base"])[-1])
    if part:
        path = checkout(base.folder, commit, f"part-{part}")
        return PreparedTree(path, base.version, f"{base.origin}, series up to {part}", *changed(base.folder, commit), part)
    git(base.folder, "update-ref", "refs/heads/prepared", commit)
    return PreparedTree(checkout(base.folder, commit, "tree"), base.version, base.origin, *changed(base.folder, commit))


def pristine(root: Path, out: Path, ksrc: Path | None, say: Say) -> PreparedTree:
    """As prepare(), but without series and suites, in a separate work tree."""
    base = prepare_base(root, out, ksrc, say)
    return PreparedTree(checkout(base.folder, "base", "base"), base.version, f"{base.origin}, without the series", frozenset(), "")


def prepare_base(root: Path, out: Path, ksrc: Path | None, say: Say) -> Base:
    """Import the pristine source into git, from ksrc or as kernel/<base>/source.toml says.

    ksrc is a folder, or the name of a base as in "7.2"; None means the newest base.
    """
    root, out = root.resolve(), out.resolve()
    for lock in [*out.glob("*/git/*.lock"), *out.glob("*/git/refs/**/*.lock")]:
        lock.unlink()  # left by a git that was killed; we hold the lock of out
    if not ksrc or str(ksrc) in source.bases(root):
        return _take_tarball(source.load_pin(root, str(ksrc) if ksrc else None), out, say)
    version = read_version(ksrc)
    kernel = source.base_of(version)
    if kernel not in source.bases(root):
        raise WrongUse(f"KSRC={ksrc} is Linux {version}; the series exists for {', '.join(source.bases(root))}. "
                       f"make rebase KSRC={ksrc} brings it there")
    return take_ksrc(out, ksrc, say)


def read_version(tree: Path) -> str:
    """Return the version in a kernel tree's Makefile ("7.3.4", "7.3.0-rc2"). Raise WrongUse when tree is not a kernel tree."""
    if not tree.is_dir():
        raise WrongUse(f"KSRC={tree} is not a folder")
    try:
        head = (tree / "Makefile").read_text(errors="replace")[:2000]
    except OSError:
        head = ""
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", head, re.MULTILINE))
    if not found.get("VERSION") or not found.get("PATCHLEVEL") or not (tree / "Kbuild").is_file():
        raise WrongUse(f"{tree} is not a kernel tree: no Makefile with VERSION and PATCHLEVEL, or no Kbuild, at its top")
    return f"{found['VERSION']}.{found['PATCHLEVEL']}.{found.get('SUBLEVEL') or 0}{found.get('EXTRAVERSION', '')}"


# Git

def run_git(cwd: Path, *args: str, env: Mapping[str, str] | None = None, stdin: Path | None = None) -> proc.Completed:
    """Run git in cwd without the user's and the machine's settings, hooks and GIT_* variables. Raise MachineError when the disk is full."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    options = [part for option in _OPTIONS for part in ("-c", option)]
    done = proc.run(["git", *options, *args], cwd=cwd, env=clean | _ENV | dict(env or {}), limit=GIT_SECONDS, stdin=stdin)
    if done.returncode and _FULL.search(done.output):
        raise MachineError(DISK_FULL)
    return done


def git(folder: Path, *args: str, tree: str = "tree", top: Path | None = None, stdin: Path | None = None,
        env: Mapping[str, str] | None = None) -> str:
    """Run git on <out>/<key> with the index of the work tree named tree, rooted at top if given. Raise MachineError when git fails."""
    done = try_git(folder, *args, tree=tree, top=top, stdin=stdin, env=env)
    if done.returncode:
        raise MachineError(f"git {args[0]} in {folder} failed: {done.output.strip()}\nRun again; if it fails again, remove {folder}")
    return done.output


def try_git(folder: Path, *args: str, tree: str = "tree", top: Path | None = None, stdin: Path | None = None,
            env: Mapping[str, str] | None = None) -> proc.Completed:
    """As git(), but return how git ended."""
    top = top or folder / tree
    env = dict(env or {}) | {"GIT_DIR": str(folder / "git"), "GIT_WORK_TREE": str(top), "GIT_INDEX_FILE": str(_index(folder, tree))}
    return run_git(top if top.is_dir() else folder, *args, env=env, stdin=stdin)


def _index(folder: Path, tree: str) -> Path:
    return folder / "git" / f"{tree.replace('/', '-')}.index"


def _init(folder: Path) -> None:
    """Create an empty git directory."""
    (folder / "git/info").mkdir(parents=True, exist_ok=True)
    (folder / "git/info/attributes").write_text(_BYTES)
    git(folder, "init", "--quiet", "--template=")


def _commit(folder: Path, tree: str, message: str, *options: str) -> str:
    """Commit the index of a work tree and return the commit."""
    return git(folder, "commit-tree", "-m", message, *options, git(folder, "write-tree", tree=tree).strip()).strip()


def _scratch(folder: Path, name: str, commit: str = "") -> Path:
    """Create an empty work tree with commit in its index. Git reads the files that a patch needs from the index."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    if commit:
        git(folder, "read-tree", commit, tree=name)
    return folder / name


def checkout(folder: Path, commit: str, name: str) -> Path:
    """Make the named work tree equal to commit, whatever its state. Files that do not change keep their mtime."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    git(folder, "read-tree", "--reset", "-u", commit, tree=name)
    git(folder, "clean", "-ffdxq", tree=name)
    return path


def changed(folder: Path, commit: str) -> tuple[frozenset[str], str]:
    """Return the files that differ from base, and a sha256 over their contents, modes and names."""
    raw = git(folder, "diff-tree", "-r", "-z", "--no-renames", "--full-index", "base", commit, "--")
    return frozenset(raw.split("\0")[1::2]), hashlib.sha256(raw.encode()).hexdigest()


def pristine_text(prepared: PreparedTree, name: str) -> str:
    """Return a file of the pristine source; "" when it has no such file."""
    done = try_git(prepared.path.parent, "cat-file", "blob", f"base:{name}")
    return "" if done.returncode else done.output


# Series and suites

def series(root: Path, kernel: str, part: str = "") -> list[Path]:
    """Return the patches of kernel/<kernel>/series in order, without empty lines and # comments; with a part, up to its end."""
    folder = root / "kernel" / kernel
    listing = folder / "series"
    if not listing.is_file():
        raise WrongUse(f"{listing} does not exist: is the checkout complete?")
    names = [line.split("#")[0].strip() for line in listing.read_text().splitlines()]
    patches = [(folder / name).absolute() for name in names if name]
    for patch in patches:
        if not patch.is_file():
            raise WrongUse(f"{listing} names {patch.name}, which is missing")
    if part:
        last = project.load(root).parts[part]
        ends = [number for number, patch in enumerate(patches, 1) if patch.stem.partition("-")[2] == last]
        if not ends:
            raise WrongUse(f"{listing} does not have the last patch of {part}, {last}; correct [parts] in project.toml")
        patches = patches[: ends[0]]
    return patches


def patched_files(patch: Path) -> list[str]:
    """Return the paths that a patch reads or writes, relative to the top of the tree."""
    names = re.findall(r"^(?:--- a/|\+\+\+ b/|rename (?:from|to) |copy (?:from|to) )([^\t\n]+)", patch.read_text(errors="replace"), re.M)
    return sorted(set(names))


def kunit_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (path in the tree, file) for each file of kunit/, except README.md and editors' backup files."""
    suites = project.load(root).suites
    for path in sorted((root / "kunit").rglob("*")):
        name = path.relative_to(root / "kunit")
        ours = name.parts[0] == "README.md" or re.search(r"~$|\.sw.$|\.orig$|\.rej$|^#", path.name)
        if path.is_file() and not ours:
            yield f"{suites}/{name}", path


def apply_series(base: Base, patches: Sequence[Path]) -> tuple[list[str], str]:
    """Commit the patches on base until one does not apply. Return the commits, and why that one does not apply ("": all do)."""
    folder = base.folder
    total = hashlib.sha256(git(folder, "rev-parse", "base").encode())
    for patch in patches:
        total.update(patch.read_bytes())
    made, why = f"refs/series/{total.hexdigest()[:16]}", ""
    if not patches:
        return [], ""
    if try_git(folder, "rev-parse", "--quiet", "--verify", made, tree="am").returncode:
        shutil.rmtree(folder / "git/rebase-apply", ignore_errors=True)
        git(folder, "update-ref", "--no-deref", "HEAD", "base")
        scratch = _scratch(folder, "am", "base")
        done = try_git(folder, "am", "--quiet", "--keep-non-patch", "--committer-date-is-author-date", *map(str, patches), tree="am")
        shutil.rmtree(scratch)
        if done.returncode:
            made = "HEAD"
            why = _refusal(folder, "am", patches[len(_log(folder, made))], str(base), done.output)
        else:
            git(folder, "update-ref", made, "HEAD")
    return _log(folder, made), why


def _log(folder: Path, ref: str) -> list[str]:
    return git(folder, "rev-list", "--reverse", f"base..{ref}", "--").split()


def add_suites(folder: Path, root: Path, commit: str) -> str:
    """Return a commit that adds the files of kunit/ to commit."""
    scratch = _scratch(folder, "am", commit)
    names = []
    for name, path in kunit_files(root):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, scratch / name)
        names.append(name)
    git(folder, "update-index", "--add", "--", *names, tree="am")
    shutil.rmtree(scratch)
    return _commit(folder, "am", "kunit", "-p", commit)


def _refusal(folder: Path, index: str, patch: Path, what: str, said: str = "") -> str:
    """Explain why a patch does not apply to the index of a work tree: file, hunk, line, and the path of the rejects."""
    stage = _scratch(folder, "stage")
    shutil.copy(_index(folder, index), _index(folder, "stage"))
    output = try_git(folder, "apply", "--index", "--reject", str(patch), tree="stage").output
    lines, hunks = (re.findall(rf"^{line}$", output, re.M) for line in (r"error: patch failed: (.*):(\d+)", r"Rejected hunk #(\d+)\."))
    where = [f"{file}, hunk {hunk} at line {line}" for (file, line), hunk in zip(lines, hunks)]
    where += re.findall(r"^error: (?!patch failed|while searching)(.*)$", output.replace("in index", "in this tree"), re.M)
    if not try_git(folder, "apply", "--cached", "--check", "--reverse", str(patch), tree=index).returncode:
        where.append("the tree has this change already")
    rejects = " ".join(sorted(str(path) for path in stage.rglob("*.rej")))
    return (f"{'/'.join(patch.parts[-3:])} does not apply to {what}: {'; '.join(where) or said.strip()}"
            + (f"\nTo see the rejected hunks: less {rejects}" if rejects else ""))


def _apply(prepared: PreparedTree, patch: Path, index: str, *options: str) -> None:
    """Run git apply with these options against the index of a work tree. Raise WrongUse when the patch does not apply."""
    folder = prepared.path.parent
    done = try_git(folder, "apply", *options, str(patch.absolute()), tree=index)
    if done.returncode:
        raise WrongUse(_refusal(folder, index, patch.absolute(), f"{prepared.version} with the series", done.output))


def check_applies(prepared: PreparedTree, patches: Iterable[Path]) -> None:
    """Check that each patch by itself applies on top of series and suites. Raise WrongUse for the first that does not."""
    for patch in patches:
        _apply(prepared, patch, "tree", "--check")


@contextmanager
def patched(prepared: PreparedTree, patches: Sequence[Path]) -> Iterator[PreparedTree]:
    """Apply these patches on top of series and suites, yield that tree, and revert them afterwards.

    Only the files that they change are written, with fresh mtimes each time, so builds stay incremental. After a kill
    in between, prepare() restores the tree. The caller holds the lock of out and builds nothing else meanwhile.
    Raise WrongUse, and leave the tree unchanged, when a patch does not apply.
    """
    folder = prepared.path.parent
    shutil.copy(_index(folder, "tree"), _index(folder, "patched"))
    for patch in patches:
        _apply(prepared, patch, "patched", "--cached")
    commit = _commit(folder, "patched", "patched")
    touched, digest = changed(folder, commit)
    try:
        git(folder, "read-tree", "-m", "-u", "prepared", commit)
        yield replace(prepared, touched=prepared.touched | touched, series=digest)
    finally:
        git(folder, "read-tree", "--reset", "-u", "prepared")


# The source

def _take_tarball(pin: source.Pin, out: Path, say: Say) -> Base:
    for note in sorted(out.glob("linux-*/base.json")):
        with suppress(ValueError, KeyError):
            data = json.loads(note.read_text())
            if data["pin"] == pin.version and (note.parent / "git").is_dir():
                return Base(note.parent, pin.base, data["version"], data["origin"])
    archive = source.fetch(pin, say)
    folder = out / f"linux-{archive.version}"
    shutil.rmtree(folder, ignore_errors=True)  # with its objects, which make would keep: they are newer than files from a tarball
    source.unpack(archive, folder / "tree", say)
    version = read_version(folder / "tree")
    if version != archive.version:
        raise MachineError(f"{archive.path} holds Linux {version}, not {archive.version}; remove it and run again")
    say("tree: adding the source to git")
    if (gitignore := folder / "tree/.gitignore").exists():
        gitignore.write_text(_without_hiding(gitignore))
    _init(folder)
    git(folder, "add", "--all", "--force")
    git(folder, "update-ref", "refs/heads/base", _commit(folder, "tree", f"Linux {version}: {archive.origin}"))
    part = folder / "base.json.part"
    part.write_text(json.dumps({"version": version, "origin": archive.origin, "pin": pin.version}) + "\n")
    part.rename(folder / "base.json")
    return Base(folder, pin.base, version, archive.origin)


def _without_hiding(gitignore: Path) -> str:
    """Return Debian's .gitignore without the lines that hide the whole tree, because of which make refresh would lose new files."""
    return "".join(line for line in gitignore.read_text().splitlines(keepends=True) if line.strip() not in ("/*", "!/debian/"))


def list_files(folder: Path, top: Path) -> set[str]:
    """Return the files below top that are no build products, whatever its .gitignore says."""
    products = [f"--exclude={pattern}" for pattern in _PRODUCTS]
    return set(git(folder, "ls-files", "--others", "-z", *products, tree="none", top=top).split("\0"))


def add_files(folder: Path, index: str, top: Path, names: Iterable[str]) -> None:
    """Add or update files below top in an index; remove those that are gone."""
    _update(folder, index, top, names, "--add", "--remove")


def _update(folder: Path, index: str, top: Path, names: Iterable[str], *options: str) -> None:
    listing = folder / "git/names"
    listing.write_text("".join(f"{name}\0" for name in names if name and not name.endswith("/")))
    git(folder, "update-index", *options, "-z", "--stdin", tree=index, top=top, stdin=listing)


def take_ksrc(out: Path, ksrc: Path, say: Say) -> Base:
    """Import the user's own tree without writing to it: our git directory uses it as work tree. Raise WrongUse when it is unusable."""
    out, ksrc = out.resolve(), ksrc.resolve()
    if out == ksrc or ksrc in out.parents:
        raise WrongUse(f"the build folder {out} is inside KSRC={ksrc}, which is never written to; choose another with O=dir")
    version = read_version(ksrc)
    folder = out / f"ksrc-{hashlib.sha256(os.fsencode(ksrc)).hexdigest()[:8]}"
    if not (folder / "git/refs/heads/base").is_file():
        say(f"tree: adding KSRC {ksrc} to git")
        shutil.rmtree(folder, ignore_errors=True)
        _init(folder)
    origin = f"KSRC {ksrc}"
    listed = _ask(ksrc, "ls-files", "--stage", "-z").split("\0")
    names = {entry.partition("\t")[2] for entry in listed if not entry.startswith("160000 ")}  # 160000: a submodule
    if "Makefile" in names:
        changes = " + uncommitted changes" if _ask(ksrc, "status", "--porcelain", "-uno") else ""
        origin += f" at {_ask(ksrc, 'describe', '--always', '--tags').strip() or 'no commit'}{changes}"
    else:
        names = list_files(folder, ksrc)
    _update(folder, "ksrc", ksrc, set(git(folder, "ls-files", "-z", tree="ksrc").split("\0")) - names, "--force-remove")
    add_files(folder, "ksrc", ksrc, names)
    if ".gitignore" in names:
        (folder / "git/gitignore").write_text(_without_hiding(ksrc / ".gitignore"))
        blob = git(folder, "hash-object", "-w", "--no-filters", str(folder / "git/gitignore"), tree="ksrc", top=ksrc).strip()
        git(folder, "update-index", "--cacheinfo", f"100644,{blob},.gitignore", tree="ksrc", top=ksrc)
    git(folder, "update-ref", "refs/heads/base", _commit(folder, "ksrc", f"Linux {version}"))
    return Base(folder, source.base_of(version), version, origin)


def _ask(ksrc: Path, *args: str) -> str:
    """Return the output of git in ksrc; "" when git fails, as outside a repository."""
    done = run_git(ksrc, *args)
    return "" if done.returncode else done.output

# SPDX-License-Identifier: GPL-2.0
"""From the kernel source to the tree that is built: base + series + kunit/.

<out>/<key>/base       the pristine source; <out>/<key>/base.json, written last, says that it is whole
<out>/<key>/tree       base by hard links, the overlay as files of its own; kunit.py of this tree is run
<out>/<key>/stage      the files the series touches, while it is applied; kept when it does not apply
key is linux-<version>, or ksrc-<8 hex digits of the sha256 of the path> for a tree of the user's own.

Nobody edits tree/: every run puts it right again, and touches only what differs, so that builds stay warm.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.common import proc
from matrix.tree import source
from matrix.common.errors import DISK_FULL, MachineError, WrongUse

Say = Callable[[str], None]

Item = tuple[bytes, int]  # content and mode of a file

KUNIT_DIR = "virt/kvm/tests"
PATCH_SECONDS = 60.0
GIT_SECONDS = 120.0

# What a build inside a tree without git leaves behind; kbuild with O= refuses a tree that holds some of it.
_PRODUCT = re.compile(
    r"(^|/)(\.git|__pycache__|\.[^/]*\.(cmd|d)|\.tmp_[^/]*|\.config(\.old)?|[^/]*\.(o|ko|a|mod|mod\.c|order|symvers|dtb|su|gcno))$"
    r"|^(vmlinux[^/]*|System\.map|include/(config|generated)|arch/[^/]*/include/generated)$")


@dataclass(frozen=True)
class PreparedTree:
    """A tree that is ready to build."""

    path: Path               # absolute
    version: str             # of the source, from its Makefile: "7.3.4"
    origin: str              # for people: where the source came from
    touched: frozenset[str]  # files the series touches or kunit/ lays in, relative to path
    series: str              # sha256 over these files


@dataclass(frozen=True)
class Base:
    """A pristine source tree in the build folder."""

    path: Path
    kernel: str   # which folder of kernel/ it takes: "7.3"
    version: str
    origin: str


@dataclass(frozen=True)
class Overlay:
    """What the series and kunit/ make of the base: content and mode per path; None: the file goes away."""

    files: Mapping[str, Item | None]

    def digest(self) -> str:
        """sha256 over paths, modes and contents."""
        total = hashlib.sha256()
        for path, item in sorted(self.files.items()):
            content, mode = item or (b"", -1)
            total.update(f"{path}\0{mode}\0{len(content)}\0".encode())
            total.update(content)
        return total.hexdigest()


class _Damaged(Exception):
    """base/ is not as it was unpacked."""


def prepare(root: Path, out: Path, ksrc: Path | None, say: Say) -> PreparedTree:
    """Make or refresh the tree under out for the series and suites of root; ksrc is the user's own source or None.

    The caller holds the lock of out. Raises WrongUse (ksrc unusable, series does not apply) and MachineError.
    """
    root, out = root.resolve(), out.resolve()
    try:
        base = prepare_base(root, out, ksrc, say)
        over = overlay(root, base)
        tree = base.path.with_name("tree")
        try:
            mirror(base, tree, over, say)
        except _Damaged as what:
            say(f"tree: {what}; unpacking the source again")
            base.path.with_name("base.json").unlink()
            base = prepare_base(root, out, ksrc, say)
            mirror(base, tree, over, say)
    except _Damaged as what:
        raise MachineError(f"{what} while it was being used; run again") from what
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError(DISK_FULL) from error
        raise MachineError(f"cannot prepare the tree in {out}: {error}") from error
    return PreparedTree(tree, base.version, base.origin, frozenset(over.files), over.digest())


def pristine(root: Path, out: Path, ksrc: Path | None, say: Say) -> PreparedTree:
    """As prepare(), but the source as it came: without series and suites. It lies beside the tree and is as little written to."""
    base = prepare_base(root, out, ksrc, say)
    return PreparedTree(base.path, base.version, f"{base.origin}, without the series", frozenset(), "")


def prepare_base(root: Path, out: Path, ksrc: Path | None, say: Say) -> Base:
    """Make sure that the pristine source is there, from ksrc or as kernel/<base>/source.toml says."""
    root, out = root.resolve(), out.resolve()
    if ksrc is not None:
        return _copy_ksrc(root, out, ksrc, say)
    pin = source.load_pin(root)
    for note in sorted(out.glob("linux-*/base.json")):
        data = _read_note(note)
        if data.get("pin") == pin.version and (note.parent / "base").is_dir():
            return Base(note.parent / "base", pin.base, data["version"], data["origin"])
    archive = source.fetch(pin, say)
    folder = out / f"linux-{archive.version}"
    base = folder / "base"
    _remove(base)
    source.unpack(archive, base, say)
    version = read_version(base)
    if version != archive.version:
        raise MachineError(f"{archive.path} holds Linux {version}, not {archive.version}; remove it and run again")
    mtimes = [(base / name).lstat().st_mtime_ns for name in _walk(base)]
    data = {"version": version, "origin": archive.origin, "pin": pin.version,
            "files": str(len(mtimes)), "newest": str(max(mtimes))}
    _write(folder / "base.json", (json.dumps(data, indent=1) + "\n").encode(), 0o644)
    return Base(base, pin.base, version, archive.origin)


def read_version(tree: Path) -> str:
    """The version in a kernel tree's Makefile ("7.3.4", "7.3.0-rc2"); WrongUse when it is no kernel tree."""
    try:
        head = (tree / "Makefile").read_text(errors="replace")[:2000]
    except OSError:
        head = ""
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", head, re.MULTILINE))
    if not found.get("VERSION") or not found.get("PATCHLEVEL") or not (tree / "Kbuild").is_file():
        raise WrongUse(f"{tree} is no kernel tree: no Makefile with VERSION and PATCHLEVEL, or no Kbuild, at its top")
    return f"{found['VERSION']}.{found['PATCHLEVEL']}.{found.get('SUBLEVEL') or 0}{found.get('EXTRAVERSION', '')}"


# The overlay

def series(root: Path, kernel: str) -> list[Path]:
    """The patches of kernel/<kernel>/series in order; empty lines and # comments do not count."""
    folder = root / "kernel" / kernel
    listing = folder / "series"
    if not listing.is_file():
        raise WrongUse(f"there is no {listing}: is this a whole checkout?")
    names = [line.split("#")[0].strip() for line in listing.read_text().splitlines()]
    patches = [folder / name for name in names if name]
    for patch in patches:
        if not patch.is_file():
            raise WrongUse(f"{listing} names {patch.name}, which is not there")
    return patches


def patched_files(patch: Path) -> list[str]:
    """The paths a patch reads or writes, relative to the top of the tree."""
    found = set()
    for line in patch.read_text(errors="replace").splitlines():
        name = re.match(r"(?:--- a/|\+\+\+ b/|rename (?:from|to) |copy (?:from|to) )([^\t]+)", line)
        if name:
            found.add(name[1])
    return sorted(found)


def kunit_files(root: Path) -> Iterator[tuple[str, Path]]:
    """What kunit/ lays into the tree: (path in the tree, file). README.md, mutants/ and editors' leavings stay out."""
    for path in sorted((root / "kunit").rglob("*")):
        name = path.relative_to(root / "kunit")
        ours = name.parts[0] == "README.md" or re.search(r"~$|\.sw.$|\.orig$|\.rej$|^#", path.name)
        if path.is_file() and not ours:
            yield f"{KUNIT_DIR}/{name}", path


def overlay(root: Path, base: Base, patches: Sequence[Path] | None = None) -> Overlay:
    """Apply the series to copies of the files it touches, no fuzz; WrongUse tells the hunk that does not go in.

    With patches given, these only, and the suites only if one of them hooks them up: the tree after some steps of the series.
    """
    suites = patches is None or any(KUNIT_DIR in patch.read_text(errors="replace") for patch in patches)
    patches = series(root, base.kernel) if patches is None else patches
    files = _apply(patches, base.path, f"{base.version} ({base.origin})")
    for name, path in kunit_files(root) if suites else ():
        files[name] = path.read_bytes(), 0o644
    return Overlay(files)


def check_applies(prepared: PreparedTree, patches: Iterable[Path]) -> None:
    """Raises WrongUse for the first of these patches that does not apply on top of series and suites, each on its own."""
    for patch in patches:
        _apply([patch], prepared.path, f"{prepared.version} with the series")


@contextmanager
def patched(prepared: PreparedTree, patches: Sequence[Path]) -> Iterator[PreparedTree]:
    """The prepared tree with these patches on top of series and suites; without them again afterwards.

    Only what they change is written, with fresh mtimes each way: the cells' build directories stay warm. After a kill
    in between, prepare() puts the tree right. The caller holds the lock of out and builds nothing else meanwhile.
    Raises WrongUse when a patch does not apply; the tree is then as it was.
    """
    old: dict[str, Item | None] = {}
    new = _apply(patches, prepared.path, f"{prepared.version} with the series")
    for name in new:
        path = prepared.path / name
        old[name] = (path.read_bytes(), path.stat().st_mode & 0o777) if path.is_file() else None
    over = Overlay(new)
    try:
        _lay(prepared.path, new)
        yield replace(prepared, touched=prepared.touched | frozenset(new),
                      series=hashlib.sha256(f"{prepared.series} {over.digest()}".encode()).hexdigest())
    finally:
        _lay(prepared.path, old)


def _lay(tree: Path, files: Mapping[str, Item | None]) -> None:
    """Write or remove the files that differ."""
    for name, item in files.items():
        if item is None:
            _remove(tree / name)
        elif not _same(tree / name, *item):
            _write(tree / name, *item)


def _apply(patches: Sequence[Path], top: Path, what: str) -> dict[str, Item | None]:
    """What the files that these patches touch in top become; top itself stays as it is."""
    stage = top.with_name("stage")
    _remove(stage)
    stage.mkdir()
    names = sorted({name for patch in patches for name in patched_files(patch)})
    for name in names:
        if (top / name).is_file():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / name, stage / name)
    for patch in patches:
        _apply_patch(patch, stage, what)
    files: dict[str, Item | None] = {}
    for name in names:
        path = stage / name
        if path.is_file():
            files[name] = path.read_bytes(), path.stat().st_mode & 0o777
        elif (top / name).exists():
            files[name] = None
    _remove(stage)
    return files


def _apply_patch(patch: Path, stage: Path, what: str) -> None:
    """Apply one patch in stage with fuzz 0 (offsets are fine); WrongUse names file and hunk and where the rejects are."""
    if not shutil.which("patch"):
        raise MachineError("there is no patch(1) here; tools/setup installs it")
    done = proc.run(["patch", "-p1", "-F0", "-N", "--no-backup-if-mismatch", "--reject-format=unified",
                     "-d", str(stage), "-i", str(patch)], limit=PATCH_SECONDS)
    if done.returncode == 0:
        return
    where, file = [], ""
    for line in done.output.splitlines():
        if name := re.match(r"(?:checking|patching) file (.+?)(?: \(.*\))?$", line):
            file = name[1]
        elif hunk := re.match(r"Hunk #(\d+) (?:FAILED|ignored) at (\d+)", line):
            where.append(f"{file}, hunk {hunk[1]} at line {hunk[2]}")
        elif "can't find file to patch" in line:
            where.append("a file that this source does not have: " +
                         ", ".join(n for n in patched_files(patch) if not (stage / n).exists()))
        elif "previously applied" in line:
            where.append(f"{file or 'one file'} has it already" if "Reversed" in line else line)
    rejects = sorted(str(path) for path in stage.rglob("*.rej"))
    see = f"\nSee what was refused: less {' '.join(rejects)}" if rejects else ""
    raise WrongUse(f"{patch.parent.parent.name}/{patch.parent.name}/{patch.name} does not apply to {what}: "
                   f"{'; '.join(where) or done.output.strip()}{see}")


# The mirror

def mirror(base: Base, tree: Path, over: Overlay, say: Say) -> None:
    """Make tree equal to base + overlay. Raises _Damaged when base is not as unpacked.

    What is replaced gets a fresh mtime, never an old one, so that make sees every change. Links carry the mtimes of the
    tarball: they are made only for a new tree, in which nothing was built.
    """
    data = _read_note(base.path.with_name("base.json"))
    # A file edited through a hard link in tree/ is newer than all of the tarball. A copy of KSRC is compared with KSRC.
    newest = int(data["newest"]) if "newest" in data else None
    new = not tree.exists()
    target = tree.with_name(tree.name + ".part") if new else tree
    if new:
        say("tree: laying out the source")
        for made in ("cells", "selftests"):
            _remove(tree.with_name(made))
        _remove(target)
    target.mkdir(parents=True, exist_ok=True)
    parents = {str(parent) for path, item in over.files.items() if item for parent in Path(path).parents}

    def folder(rel: str) -> int:
        """Mirror one folder; return how many files of base were seen in and under it."""
        seen = 0
        have = {entry.name: entry for entry in os.scandir(target / rel)}
        for entry in list(os.scandir(base.path / rel)) if (base.path / rel).is_dir() else ():
            path = f"{rel}/{entry.name}" if rel else entry.name
            old = have.pop(entry.name, None)
            if entry.is_dir(follow_symlinks=False):
                if old is None or not old.is_dir(follow_symlinks=False):
                    _remove(target / path)
                    (target / path).mkdir()
                seen += folder(path)
                continue
            seen += 1
            if newest is not None and entry.stat(follow_symlinks=False).st_mtime_ns > newest:
                raise _Damaged(f"{base.path / path} was changed")
            if path in over.files:
                if old and over.files[path] is None:
                    _remove(target / path)
            elif old is None or old.inode() != entry.inode():
                _take(base.path / path, target / path, new)
        for name, entry in have.items():
            path = f"{rel}/{name}" if rel else name
            if path in parents and entry.is_dir(follow_symlinks=False):
                folder(path)
            elif not over.files.get(path):
                _remove(target / path)
        return seen

    seen = folder("")
    if "files" in data and seen != int(data["files"]):
        raise _Damaged(f"{base.path} has {seen} files, not {data['files']}")
    _lay(target, over.files)
    if new:
        target.rename(tree)


def _take(src: Path, dest: Path, link: bool) -> None:
    """Bring one file of base into the tree."""
    if src.is_symlink():
        if not dest.is_symlink() or os.readlink(dest) != os.readlink(src):
            _remove(dest)
            dest.symlink_to(os.readlink(src))
        return
    if link:
        os.link(src, dest)
        return
    want = src.stat()
    have = None if dest.is_symlink() or not dest.is_file() else dest.stat()
    if have and have.st_mode == want.st_mode and have.st_size == want.st_size:
        if have.st_mtime_ns == want.st_mtime_ns:  # from an earlier base: share the new one
            part = dest.with_name(dest.name + ".part")
            part.unlink(missing_ok=True)
            os.link(src, part)
            part.replace(dest)
            return
        if dest.read_bytes() == src.read_bytes():
            return
    _write(dest, src.read_bytes(), want.st_mode & 0o777)


def _same(path: Path, content: bytes, mode: int) -> bool:
    return (path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == mode and path.read_bytes() == content)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, with a fresh mtime."""
    if path.is_dir() and not path.is_symlink():
        _remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.write_bytes(content)
    part.chmod(mode)
    part.replace(path)


def _remove(path: Path, only_dir: bool = False) -> None:
    """Remove a file or a whole folder; fine when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif not only_dir:
        path.unlink(missing_ok=True)


def _read_note(note: Path) -> dict[str, str]:
    try:
        data = json.loads(note.read_text())
        return {str(key): str(value) for key, value in data.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _walk(top: Path) -> Iterator[str]:
    """All files and symlinks under top, relative to it."""
    for folder, dirs, files in os.walk(top):
        rel = os.path.relpath(folder, top)
        links = [name for name in dirs if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            yield name if rel == "." else f"{rel}/{name}"


# A tree of the user's own: only ever read

def _copy_ksrc(root: Path, out: Path, ksrc: Path, say: Say) -> Base:
    ksrc = ksrc.resolve()
    if not ksrc.is_dir():
        raise WrongUse(f"KSRC={ksrc} is not a folder")
    if out == ksrc or ksrc in out.parents:
        raise WrongUse(f"the build folder {out} lies inside KSRC={ksrc}, which is never written to; give another with O=dir")
    version = read_version(ksrc)
    kernel = ".".join(version.split(".")[:2])
    if kernel not in source.bases(root):
        raise WrongUse(f"KSRC={ksrc} is Linux {version}; there is a series for {', '.join(source.bases(root))}")
    tracked = _git(ksrc, "ls-files", "-z").split("\0")
    if "Makefile" in tracked:
        names: Iterable[str] = (name for name in tracked if name)
        head = _git(ksrc, "describe", "--always", "--tags").strip()
        changed = " + uncommitted changes" if _git(ksrc, "status", "--porcelain", "-uno") else ""
        origin = f"KSRC {ksrc} at {head or 'no commit'}{changed}"
    else:
        names = _walk_sources(ksrc)
        origin = f"KSRC {ksrc}"
    folder = out / f"ksrc-{hashlib.sha256(os.fsencode(ksrc)).hexdigest()[:8]}"
    note = folder / "base.json"
    base = folder / "base"
    if not base.is_dir():
        say(f"tree: copying {origin}")
    note.unlink(missing_ok=True)
    base.mkdir(parents=True, exist_ok=True)
    _copy_changed(ksrc, base, names)
    _write(note, (json.dumps({"version": version, "origin": origin, "ksrc": str(ksrc)}, indent=1) + "\n").encode(), 0o644)
    return Base(base, kernel, version, origin)


def _git(ksrc: Path, *args: str) -> str:
    """Ask git about ksrc without letting it write there, not even its index; "" when git cannot tell."""
    if not shutil.which("git"):
        return ""
    env = {**os.environ, "LC_ALL": "C"}
    done = proc.run(["git", "--no-optional-locks", "-c", f"safe.directory={ksrc}", "-c", "core.fsmonitor=false",
                     "-c", "gc.auto=0", "-C", str(ksrc), *args], env=env, limit=GIT_SECONDS)
    return "" if done.returncode else done.output


def _walk_sources(ksrc: Path) -> Iterator[str]:
    """The files of a tree without git, less what a build left in it."""
    for folder, dirs, files in os.walk(ksrc):
        rel = os.path.relpath(folder, ksrc)
        prefix = "" if rel == "." else f"{rel}/"
        links = [name for name in dirs if os.path.islink(os.path.join(folder, name))]
        dirs[:] = [name for name in dirs if not _PRODUCT.search(prefix + name)]
        for name in [*files, *links]:
            if not _PRODUCT.search(prefix + name):
                yield prefix + name


def _copy_changed(ksrc: Path, base: Path, names: Iterable[str]) -> None:
    """Make base equal to the named files of ksrc. Size and mtime tell a change, as with rsync; copies keep the mtime."""
    keep = set()
    for name in names:
        try:
            want = os.lstat(f"{ksrc}/{name}")
        except FileNotFoundError:
            continue  # deleted, not committed
        if stat.S_ISDIR(want.st_mode):
            continue  # a submodule
        keep.add(name)
        try:
            have = os.lstat(f"{base}/{name}")
            if (have.st_size, have.st_mtime_ns, have.st_mode) == (want.st_size, want.st_mtime_ns, want.st_mode):
                continue
        except (FileNotFoundError, NotADirectoryError):
            pass
        src, dest = ksrc / name, base / name
        for parent in reversed(Path(name).parents):
            if (base / parent).is_symlink() or (base / parent).is_file():
                (base / parent).unlink()
        dest.parent.mkdir(parents=True, exist_ok=True)
        _remove(dest, only_dir=True)
        part = dest.with_name(dest.name + ".part")
        part.unlink(missing_ok=True)
        shutil.copy2(src, part, follow_symlinks=False)
        part.replace(dest)
    for folder, dirs, files in os.walk(base, topdown=False):
        rel = os.path.relpath(folder, base)
        prefix = "" if rel == "." else f"{rel}/"
        for name in [*files, *dirs]:
            if prefix + name in keep:
                continue
            path = Path(folder, name)
            if path.is_symlink() or name in files:
                path.unlink()
            elif not os.listdir(path):
                path.rmdir()

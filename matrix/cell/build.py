# SPDX-License-Identifier: GPL-2.0
"""Configure and build a cell with the prepared tree's own kunit.py."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matrix.common import proc
from matrix.cell.cells import Cell
from matrix.common.errors import MachineError
from matrix.verdict.warnings import KCONFIG, LINK

# Nothing else of the caller's environment reaches make: MAKEFLAGS, ARCH or KCFLAGS would change the kernel.
PASSED = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "CCACHE_DIR", "CCACHE_CONFIGPATH")
FIXED = {"LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
CONFIG_SECONDS = 600.0
PROBE_SECONDS = 60.0
# What a boot needs of a build directory: the kernel_path of configs/*.py.
IMAGES = ("arch/x86/boot/bzImage", "arch/arm64/boot/Image", "arch/riscv/boot/Image")
CCACHE = Path("/usr/lib/ccache")  # where Debian has it under the names of the compilers
MACRO = re.compile(r'#define (\w+)\s+"(.*)"')
BANNER = "Linux version {UTS_RELEASE} ({LINUX_COMPILE_BY}@{LINUX_COMPILE_HOST}) ({LINUX_COMPILER}) {UTS_VERSION}"
WARNED = ".matrix-warned"  # in a build directory, see begin()
BUILT = ".matrix-built"  # in a build directory, see note_built()
SLACK = 2 * 10**9  # ns; no file system has coarser times
LINKED = (".o", ".a", ".ko")
Forget = Callable[[Path, int, Sequence[str]], None]


def environment() -> dict[str, str]:
    """What kunit.py and all below it see."""
    return {name: os.environ[name] for name in PASSED if name in os.environ} | FIXED


def with_ccache(folder: Path) -> dict[str, str]:
    """The environment for compiling with ccache, if the machine has it; its cache is folder unless the caller has one."""
    env = environment()
    if CCACHE.is_dir():
        env = {"CCACHE_DIR": str(folder)} | env | {"PATH": f"{CCACHE}{os.pathsep}{env.get('PATH', os.defpath)}"}
    return env


def kunit(tree: Path, verb: str) -> list[str]:
    """The start of every kunit.py command line."""
    return [sys.executable, str(tree / "tools/testing/kunit/kunit.py"), verb]


def common(cell: Cell, build: Path) -> list[str]:
    """The options that config, build and exec share; absolute paths, for kunit.py changes to the tree."""
    options = [f"--build_dir={build}", f"--arch={cell.arch}", f"--qemu_config={cell.qemu_config}"]
    options += [f"--kunitconfig={path}" for path in cell.fragments]
    options += [f"--kconfig_add={line}" for line in cell.kconfig_add]
    options += [f"--cross_compile={cell.cross_compile}"] if cell.cross_compile else []
    return options + [f"--make_options={option}" for option in make_options(cell)]


def make_options(cell: Cell) -> list[str]:
    """The make variables that a cell asks for, and the one that selects LLVM (Documentation/kbuild/llvm.rst)."""
    return [*cell.make_options, *([f"LLVM=-{cell.llvm}"] if cell.llvm else [])]


def shell(argv: list[str], variables: Mapping[str, str] | None = None) -> str:
    """A command line to paste into a shell, in any directory."""
    words = [f"{name}={shlex.quote(value)}" for name, value in FIXED.items()]
    words += [f'{name}={value}' for name, value in (variables or {}).items()]
    return " ".join(["env", *words, shlex.join(argv)])


def need_tools(cell: Cell) -> None:
    """Raises MachineError naming every program that this cell needs and the machine lacks."""
    names = ["make", "flex", "bison", "bc", *(cell.cross_compile + tool for tool in ("gcc", "ld"))]
    names += [f"{tool}-{cell.llvm}" for tool in ("clang", "ld.lld", "llvm-ar")] if cell.llvm else []
    names += [] if cell.build_only else [cell.qemu]
    missing = [name for name in names if not shutil.which(name)]
    what = " llvm" if cell.llvm else " riscv" if cell.arch == "riscv" else ""
    if missing:
        raise MachineError(f"cell {cell.name} needs {', '.join(missing)}; run tools/setup{what}")


def need_static_libc(cell: Cell) -> None:
    """Raises MachineError when programs for this cell's architecture cannot be linked statically."""
    compiler = cell.cross_compile + "gcc"
    done = proc.run([compiler, "-print-file-name=libc.a"], env=environment(), limit=PROBE_SECONDS)
    if done.output.strip() == "libc.a":  # gcc's answer when there is none
        raise MachineError(f"cell {cell.name} needs a static libc for {compiler}; run tools/setup")


def config_command(tree: Path, cell: Cell, build: Path) -> list[str]:
    """kunit.py config: writes the .config, afresh when a fragment has changed."""
    return [*kunit(tree, "config"), *common(cell, build)]


def build_command(tree: Path, cell: Cell, build: Path, jobs: int) -> list[str]:
    """kunit.py build: what kbuild finds out of date."""
    return [*kunit(tree, "build"), *common(cell, build), f"--jobs={jobs}"]


def make_command(tree: Path, cell: Cell, build: Path, jobs: int) -> list[str]:
    """What kunit.py build calls, without the seconds that it takes to find a .config of its own unchanged."""
    return ["make", "-C", str(tree), f"ARCH={cell.arch}", f"CROSS_COMPILE={cell.cross_compile}", f"O={build}", f"--jobs={jobs}",
            *make_options(cell), "--silent", "all"]  # fmt: skip


def banner(build: Path) -> str:
    """What the kernel prints of itself first (init/version-timestamp.c); "" when it was not linked."""
    paths = [build / "include/generated" / name for name in ("utsrelease.h", "utsversion.h", "compile.h")]
    macros = dict(MACRO.findall("\n".join(path.read_text("utf-8") for path in paths if path.exists())))
    try:
        return BANNER.format_map(macros)
    except KeyError:
        return ""


def forget_objects(build: Path, since: int, names: Sequence[str]) -> None:
    """Make kbuild compile again what is newer than since and depends on one of names, and link again objects (*.o) of any age."""
    objects = [os.fsencode(name) for name in names if name.endswith(".o")]
    sources = [os.fsencode(name) for name in names if not name.endswith(".o")]
    for path in build.rglob(".*.cmd"):
        target = path.with_name(path.name[1:].removesuffix(".cmd"))
        written, made = path.stat().st_mtime_ns, target.stat().st_mtime_ns if target.is_file() else 0
        fresh = max(written, made) >= since
        if not made or not (fresh or objects):
            continue
        text = path.read_bytes()
        known = b"\n$(deps_" in text and written >= made  # else the dependencies are half written, or old, or what was linked has none
        if fresh and (any(name in text for name in sources) or not known and target.suffix in LINKED):
            target.unlink()
        elif any(name in text for name in objects):
            target.unlink()
    if KCONFIG in names and (build / KCONFIG).exists():
        (build / KCONFIG).touch()  # syncconfig prints its warnings again


def note_built(build: Path, what: str) -> None:
    """Note in a build directory what kernel it has, "" for none or an unknown one."""
    _write(build / BUILT, [what] if what else [])


def is_built(build: Path, what: str) -> bool:
    """Whether the build directory has this kernel."""
    note = build / BUILT
    return note.exists() and note.read_text("utf-8").splitlines() == [what]


def begin(build: Path, touched: frozenset[str], forget: Forget = forget_objects) -> None:
    """Note that a build begins, after removing what could hide a warning of the build before it.

    A compiler prints a warning once, when it compiles the file. The note, build/WARNED, lists the files whose warnings may not
    have been counted; its mtime is the start of that build. It lists every touched file until judged() replaces it, because a
    build that is killed loses its output. The old note stays until the removal is complete: an interrupted begin() is repeated.
    """
    note, new, everything = build / WARNED, build / f"{WARNED}.new", [*sorted(touched), LINK, KCONFIG]
    build.mkdir(parents=True, exist_ok=True)
    _write(new, everything)
    since, names = 0, everything
    if note.exists():
        since, names = note.stat().st_mtime_ns - SLACK, note.read_text("utf-8").splitlines()
    if new.stat().st_mtime_ns < since:  # somebody has set the clock back
        since = 0
    if names:
        forget(build, since, names)
    os.replace(new, note)


def judged(build: Path, names: set[str]) -> None:
    """The build ended by itself, and its complete log has warnings about these files."""
    note, new = build / WARNED, build / f"{WARNED}.new"
    _write(new, sorted(names))
    begun = note.stat().st_mtime_ns
    os.utime(new, ns=(begun, begun))
    os.replace(new, note)


def _write(path: Path, names: Sequence[str]) -> None:
    """Write a note through to the disk: a power loss must not leave an object without its note."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)
        file.flush()
        os.fsync(file.fileno())

# SPDX-License-Identifier: GPL-2.0
"""Configure and build a cell with the prepared tree's own kunit.py."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from matrix.common import proc
from matrix.cell.cells import Cell
from matrix.common.errors import MachineError

# Nothing else of the caller's environment reaches make: MAKEFLAGS, ARCH or KCFLAGS would change the kernel.
PASSED = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "CCACHE_DIR", "CCACHE_CONFIGPATH")
FIXED = {"LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
CONFIG_SECONDS = 600.0
PROBE_SECONDS = 60.0
# What a boot needs of a build directory: the kernel_path of configs/*.py.
IMAGES = ("arch/x86/boot/bzImage", "arch/arm64/boot/Image")
CCACHE = Path("/usr/lib/ccache")  # where Debian has it under the names of the compilers
CLEAN = ".matrix-clean"  # in a build directory: the last build ended, without a warning of ours
DEPENDENCIES = re.compile(r"\.(.+)\.cmd")


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
    return options + ([f"--cross_compile={cell.cross_compile}"] if cell.cross_compile else [])


def shell(argv: list[str], variables: Mapping[str, str] | None = None) -> str:
    """A command line to paste into a shell, in any directory."""
    words = [f"{name}={shlex.quote(value)}" for name, value in FIXED.items()]
    words += [f'{name}={value}' for name, value in (variables or {}).items()]
    return " ".join(["env", *words, shlex.join(argv)])


def need_tools(cell: Cell) -> None:
    """Raises MachineError naming every program that this cell needs and the machine lacks."""
    names = ["make", "flex", "bison", "bc", *(cell.cross_compile + tool for tool in ("gcc", "ld")), cell.qemu]
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        raise MachineError(f"cell {cell.name} needs {', '.join(missing)}; run tools/setup")


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
            "--silent", "all"]  # fmt: skip


def forget_warned(build: Path, touched: frozenset[str]) -> None:
    """Makes kbuild compile again whatever includes a touched file, unless the last build was clean.

    A warning is printed once, when a file is compiled. After a build that was interrupted or had such a
    warning the objects are there and silent: without this the next run would be green.
    """
    if (build / CLEAN).exists():
        (build / CLEAN).unlink()
        return
    names = [os.fsencode(path) for path in touched]
    for path in build.rglob(".*.cmd"):
        match = DEPENDENCIES.fullmatch(path.name)
        if match and any(name in path.read_bytes() for name in names):
            path.with_name(match[1]).unlink(missing_ok=True)
    if (build / ".config").exists():
        (build / ".config").touch()  # Kconfig speaks again, too


def mark_clean(build: Path) -> None:
    """The build ended and nothing in its log counted against the cell."""
    (build / CLEAN).touch()

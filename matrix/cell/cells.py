# SPDX-License-Identifier: GPL-2.0
"""Read and check matrix/cells.toml, the list of cells."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matrix.common import data, project
from matrix.common.errors import WrongUse

# uname -m -> values of the kernel's ARCH that its compiler builds
HOSTS = {"aarch64": ("arm64",), "x86_64": ("x86_64", "i386"), "riscv64": ("riscv",)}
KEYS = {
    "name": str, "arch": str, "fragments": list, "qemu_config": str, "gate": bool, "coverage": bool,
    "mutants": bool, "generated": bool, "proves": str, "kernel_args": list, "boot_seconds": int, "build_seconds": int,
    "slowdown": int, "part": str, "memory": int, "cpus": int, "vmm": bool, "kconfig_add": list, "modules": list, "suite_modules": list,
    "build_only": bool, "bench": bool, "count": bool, "llvm": str, "make_options": list,
}  # fmt: skip
FILE_KEYS = {"defaults": dict, "arch": dict, "cell": object}
ARCH_KEYS = {"qemu": str, "cross_compile": str}
SERIES = "series"  # name of a fragment
NEEDED = ("name", "arch", "fragments", "qemu_config", "proves")
MAKE_OPTION = re.compile(r"\w+=[\w./-]+")
OPTION = re.compile(r'CONFIG_(\w+)=(\S+|".*")')
NOT_SET = re.compile(r"# CONFIG_(\w+) is not set")
# QEMU then counts instructions and derives every clock from the count. So the same kernel with the same arguments runs the same
# instructions in the same order, however busy the host is. One CPU: before 8.1, QEMU lets a busy CPU starve the others.
REPLAY = "-smp 1 -icount shift={shift},sleep=off -rtc base=2026-01-01,clock=vm -seed {seed}"
COUNT = REPLAY.format(shift=0, seed=1)  # an instruction takes a nanosecond
SHIFT = 5  # an instruction takes 1 << SHIFT ns: the larger, the more often the scheduler preempts


@dataclass(frozen=True)
class Cell:
    """One kernel: how it is configured and booted, and which tests it runs."""

    name: str
    arch: str
    fragments: tuple[Path, ...]
    qemu_config: Path
    qemu: str
    cross_compile: str  # "" when the host has this architecture
    expected: str  # the name under which matrix/expected.txt has its tests
    gate: bool
    coverage: bool  # measured by tools/coverage
    mutants: bool  # the scheduled workflow runs the mutants of matrix/mutants/ in it
    generated: bool  # … and the generated mutants
    proves: str
    kernel_args: tuple[str, ...]
    boot_seconds: int
    build_seconds: int
    part: str = ""  # of project.toml: the kernel has no patch after this part of the series
    memory: int = 0  # of the machine, in MiB; 0: as the qemu_config has it
    cpus: int = 0  # of the machine; 0: as the qemu_config has it. A boot with a seed has one
    vmm: bool = False  # its boot with an initramfs runs vmm/ instead of the selftests
    bench: bool = False  # it only boots with an initramfs, which runs bench/ while QEMU counts instructions
    count: bool = False  # the same for the rungs of vmm/ that are compared
    kconfig_add: tuple[str, ...] = ()  # options that override those of the fragments, as for kunit.py
    modules: tuple[str, ...] = ()  # init loads these into its kernel, in this order
    suite_modules: tuple[str, ...] = ()  # … and then these, for the suites in them
    build_only: bool = False  # nothing boots
    make_options: tuple[str, ...] = ()  # for the build of its kernel
    llvm: str = ""  # the version of LLVM that builds its kernel; "": GCC does
    slowdown: int = 1  # how much more time its boots and selftests get than in a cell of the gate
    seed: int | None = None  # see seeded()
    arguments: tuple[str, ...] = ()  # those of kernel_args that --arg has added
    limit: int = 0  # the seconds that --boot-seconds gives each of its boots; 0: as usual

    @property
    def qemu_args(self) -> str:
        """QEMU's arguments in addition to those of the qemu_config."""
        words = [*([f"-m {self.memory}"] if self.memory else []), *([f"-smp {self.cpus}"] if self.cpus else []),
                 *([COUNT] if self.bench or self.count else [])]
        return " ".join(words + ([] if self.seed is None else [REPLAY.format(shift=SHIFT, seed=self.seed)]))

    def slower(self, factor: int) -> "Cell":
        """Return the cell with factor times as much time for its boots and selftests."""
        return replace(self, slowdown=self.slowdown * factor, boot_seconds=self.boot_seconds * factor)


def load(root: Path) -> list[Cell]:
    """Return all cells of matrix/cells.toml under root, in file order. Raise WrongUse on a malformed file."""
    path = root / "matrix" / "cells.toml"
    found = data.read(path)
    data.check_keys(str(path), found, FILE_KEYS, ())
    parts = project.load(root).parts
    cells = [_cell(root, found, entry) for entry in data.tables(path, found, "cell")]
    if not cells:
        raise WrongUse(f"{path} has no [[cell]]")
    for cell in cells:
        if cell.part and cell.part not in parts:
            raise WrongUse(f"{path}: cell {cell.name}: project.toml has no part {cell.part!r}{data.near(cell.part, parts)}")
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise WrongUse(f"{path}: cell {name} is listed twice")
    return cells


def _cell(root: Path, found: dict[str, Any], entry: dict[str, Any]) -> Cell:
    where = f"matrix/cells.toml: cell {entry.get('name', '?')}"
    entry = {**found.get("defaults", {}), **entry}
    data.check_keys(where, entry, KEYS, (*NEEDED, "boot_seconds", "build_seconds"))
    arch = found.get("arch", {}).get(entry["arch"])
    if arch is None:
        raise WrongUse(f"{where}: there is no [arch.{entry['arch']}]")
    data.check_keys(f"matrix/cells.toml: [arch.{entry['arch']}]", arch, ARCH_KEYS, tuple(ARCH_KEYS))
    if min(entry.get(key, 1) for key in ("slowdown", "memory", "cpus")) < 1:
        raise WrongUse(f"{where}: slowdown, memory and cpus must be above 0")
    if entry.get("suite_modules") and not entry.get("modules"):
        raise WrongUse(f"{where}: suite_modules need modules")
    if sum(bool(entry.get(key)) for key in ("vmm", "bench", "modules", "build_only")) > 1:
        raise WrongUse(f"{where}: a cell has only one of vmm, bench, modules and build_only")
    for option in entry.get("make_options", ()):
        if not isinstance(option, str) or not MAKE_OPTION.fullmatch(option):
            raise WrongUse(f"{where}: make_options: must be NAME=value: {option}")
    if entry.get("count") and not entry.get("vmm"):
        raise WrongUse(f"{where}: count needs vmm")
    if entry.get("vmm"):
        project.load(root).need_vmm()
    if entry.get("bench"):
        project.load(root).need_bench()
    native = entry["arch"] in HOSTS.get(platform.machine(), ())
    return Cell(
        name=entry["name"],
        arch=entry["arch"],
        fragments=tuple(root / "configs" / f"{name}.config" for name in entry["fragments"]),
        qemu_config=root / "configs" / entry["qemu_config"],
        qemu=arch["qemu"],
        cross_compile="" if native else arch["cross_compile"],
        expected=entry["name"],
        gate=entry.get("gate", False),
        coverage=entry.get("coverage", entry.get("gate", False)),
        mutants=entry.get("mutants", False),
        generated=entry.get("generated", not any(entry.get(key) for key in ("part", "vmm", "bench", "modules", "build_only"))),
        proves=entry["proves"],
        kernel_args=tuple(entry.get("kernel_args", ())),
        boot_seconds=entry["boot_seconds"],
        build_seconds=entry["build_seconds"],
        part=entry.get("part", ""),
        memory=entry.get("memory", 0),
        cpus=entry.get("cpus", 0),
        vmm=entry.get("vmm", False),
        bench=entry.get("bench", False),
        count=entry.get("count", False),
        kconfig_add=tuple(entry.get("kconfig_add", ())),
        modules=tuple(entry.get("modules", ())),
        suite_modules=tuple(entry.get("suite_modules", ())),
        build_only=entry.get("build_only", False),
        make_options=tuple(entry.get("make_options", ())),
        llvm=entry.get("llvm", ""),
    ).slower(entry.get("slowdown", 1))


def select(cells: Sequence[Cell], names: Sequence[str]) -> list[Cell]:
    """Return the named cells in the given order, each once; without names, those of the gate."""
    if not names:
        return [cell for cell in cells if cell.gate]
    known = {cell.name: cell for cell in cells}
    for name in names:
        if name not in known:
            raise WrongUse(f"unknown cell {name!r}{data.near(name, known)}; --list shows all")
    return [known[name] for name in dict.fromkeys(names)]


def on_base(cell: Cell) -> Cell:
    """Return the cell for a kernel without the series, which lacks the options of configs/series.config."""
    ours = {name for path in cell.fragments if path.stem == SERIES for name in options(path.read_text("utf-8"))}
    return replace(cell, fragments=tuple(path for path in cell.fragments if path.stem != SERIES),
                   kconfig_add=tuple(line for line in cell.kconfig_add if not ours & options(line).keys()))


def seeded(cell: Cell, parameter: str, seed: int) -> Cell:
    """Return the cell for a boot that repeats itself: the seed decides about random operations and random numbers, and time is virtual.

    parameter is the kernel's that seeds the tests; "" if they need none.
    """
    return replace(cell, kernel_args=(*cell.kernel_args, *([f"{parameter}={seed}"] if parameter else [])), seed=seed)


def extended(cell: Cell, arguments: Sequence[str], limit: int) -> Cell:
    """Return the cell with more kernel arguments and, unless limit is 0, another time limit."""
    return replace(cell, kernel_args=(*cell.kernel_args, *arguments), arguments=tuple(arguments), limit=limit,
                   boot_seconds=limit or cell.boot_seconds)


def options(text: str) -> dict[str, str]:
    """Parse Kconfig's .config syntax: symbol without CONFIG_ -> value, "n" for "is not set"."""
    found = {}
    for line in text.splitlines():
        if match := OPTION.fullmatch(line.strip()):
            found[match[1]] = match[2]
        elif match := NOT_SET.fullmatch(line.strip()):
            found[match[1]] = "n"
    return found


def asked(cell: Cell) -> dict[str, str]:
    """Return the options that the cell asks for. Raise WrongUse when two of its fragments conflict."""
    merged: dict[str, str] = {}
    source: dict[str, str] = {}
    for path in cell.fragments:
        text = data.text(path)
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#") and not options(line):
                raise WrongUse(f"{path}:{number}: neither an option nor a comment: {line.strip()}")
        for name, value in options(text).items():
            if merged.setdefault(name, value) != value:
                raise WrongUse(
                    f"cell {cell.name}: {source[name]} wants CONFIG_{name}={merged[name]}, "
                    f"{path.name} wants {value}"
                )
            source.setdefault(name, path.name)
    for line in cell.kconfig_add:
        if len(line.splitlines()) != 1 or not options(line):
            raise WrongUse(f"cell {cell.name}: kconfig_add: not an option: {line}")
        merged |= options(line)
    return merged

# SPDX-License-Identifier: GPL-2.0
"""What is tested: project.toml at the top of a project, read and checked."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.common import data
from matrix.common.errors import WrongUse

KEYS = {"suites": str, "build": dict, "selftests": dict, "mutants": dict}
SELFTESTS_KEYS = {"folder": str, "suite": str, "make": list, "mkdir": list, "hold": str}
FOLDER = re.compile(r"(?!/)(?!.*(^|/)\.\.?(/|$))[\w./-]+(?<!/)")  # of the kernel tree
HOLD = re.compile(r"/\S+( 0x[0-9a-f]+)?")


@dataclass(frozen=True)
class Selftests:
    """Where the selftests are in the kernel tree, and what it takes to build and run them."""

    folder: str
    suite: str  # what KTAP calls them together
    make: tuple[str, ...]  # more variables for make; {output} is the folder in which it builds
    mkdir: tuple[str, ...]  # folders to create there before
    hold: str  # for init: a device and the number of an ioctl; "" for none


@dataclass(frozen=True)
class Project:
    """What the code has to know of the series."""

    suites: str  # the folder of the kernel tree that kunit/ becomes
    build: Mapping[str, tuple[str, ...]]  # architecture -> folders that check-series builds
    selftests: Selftests | None
    mutants: Mapping[str, str]  # a name in C -> what a generated mutant puts in its place

    def need_selftests(self) -> Selftests:
        """Raises WrongUse when there are none."""
        if not self.selftests:
            raise WrongUse("project.toml has no [selftests]: this project has nothing to boot with --e2e")
        return self.selftests


def load(root: Path) -> Project:
    """project.toml of a project. Raises WrongUse on a malformed file."""
    path = root / "project.toml"
    if not path.is_file():
        raise WrongUse(f"{root} is no project: it has no project.toml; example/README.md says how to make one")
    found = data.read(path)
    data.check_keys(str(path), found, KEYS, ("suites", "build"))
    build = {arch: _strings(f"{path}: [build]", found["build"], arch) for arch in found["build"]}
    mutants = found.get("mutants", {})
    data.check_keys(f"{path}: [mutants]", mutants, dict.fromkeys(mutants, str), ())
    folders = [found["suites"]]
    kit = None
    if own := found.get("selftests"):
        where = f"{path}: [selftests]"
        data.check_keys(where, own, SELFTESTS_KEYS, ("folder", "suite"))
        folders.append(own["folder"])
        kit = Selftests(own["folder"], own["suite"], _strings(where, own, "make"), _strings(where, own, "mkdir"), own.get("hold", ""))
        if not re.fullmatch(r"\w+", kit.suite):
            raise WrongUse(f"{where}: suite must be one word")
        if kit.hold and not HOLD.fullmatch(kit.hold):
            raise WrongUse(f"{where}: hold must be a device and an optional ioctl in hexadecimal, as \"/dev/kvm 0xae01\"")
    for folder in folders:
        if not FOLDER.fullmatch(folder):
            raise WrongUse(f"{path}: {folder!r} must be a folder of the kernel tree, without / at either end")
    return Project(found["suites"], build, kit, mutants)


def _strings(where: str, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """An optional list of strings."""
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise WrongUse(f"{where}: {key} must be a list of strings")
    return tuple(value)


def add_options(parser: argparse.ArgumentParser, root: Path) -> None:
    """--project, by default root, and --out."""
    parser.add_argument("--project", type=Path, default=root, metavar="DIR",
                        help="another folder with project.toml, kernel/, kunit/, configs/ and matrix/ (default: this checkout)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="build folder (default: build/ in the project)")


def places(options: argparse.Namespace) -> tuple[Path, Path]:
    """The project and the build folder that were asked for, absolute."""
    root: Path = options.project.resolve()
    return root, (options.out or root / "build").absolute()

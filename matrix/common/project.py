# SPDX-License-Identifier: GPL-2.0
"""Read and check project.toml, which describes what is tested."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.common import data, proc
from matrix.common.errors import WrongUse

KEYS = {"suites": str, "seed": str, "build": dict, "selftests": dict, "mutants": dict, "parts": dict, "vmm": dict,
        "bench": dict}  # fmt: skip
SELFTESTS_KEYS = {"folder": str, "suite": str, "make": list, "mkdir": list, "hold": str}
PROGRAMS_KEYS = {"suite": str, "hold": str}
FOLDER = re.compile(r"(?!/)(?!.*(^|/)\.\.?(/|$))[\w./-]+(?<!/)")  # in the kernel tree
PARAMETER = re.compile(r"[\w.-]*")
HOLD = re.compile(r"/\S+( 0x[0-9a-f]+)?")


@dataclass(frozen=True)
class Selftests:
    """Where the kernel tree has the selftests, and how to build and run them."""

    folder: str
    suite: str  # the KTAP suite that contains them
    make: tuple[str, ...]  # additional make variables; {output} is the build folder
    mkdir: tuple[str, ...]  # folders to create in the build folder first
    hold: str  # a device that init keeps open, and an optional ioctl number; "" for none


@dataclass(frozen=True)
class Programs:
    """How the programs of vmm/ or bench/ run."""

    suite: str  # the KTAP suite that contains them
    hold: str  # as in Selftests


@dataclass(frozen=True)
class Project:
    """The properties of the series that the code depends on."""

    suites: str  # the folder of the kernel tree into which kunit/ is copied
    build: Mapping[str, tuple[str, ...]]  # architecture -> folders that check-series builds
    selftests: Selftests | None
    mutants: Mapping[str, str]  # C identifier -> what a generated mutant replaces it with
    seed: str = ""  # the kernel parameter that seeds the tests
    parts: Mapping[str, str] = field(default_factory=dict)  # name -> its last patch, without number and .patch
    vmm: Programs | None = None
    bench: Programs | None = None

    def need_vmm(self) -> Programs:
        """Return how vmm/ runs. Raise WrongUse when the project has none."""
        if not self.vmm:
            raise WrongUse("project.toml has no [vmm]: no cell of this project can have vmm = true")
        return self.vmm

    def need_bench(self) -> Programs:
        """Return how bench/ runs. Raise WrongUse when the project has none."""
        if not self.bench:
            raise WrongUse("project.toml has no [bench]: no cell of this project can have bench = true")
        return self.bench

    def need_selftests(self) -> Selftests:
        """Return the selftests. Raise WrongUse when the project has none."""
        if not self.selftests:
            raise WrongUse("project.toml has no [selftests]: this project has nothing to boot with --e2e")
        return self.selftests


def load(root: Path) -> Project:
    """Read project.toml of the project at root. Raise WrongUse when it is missing or malformed."""
    path = root / "project.toml"
    if not path.is_file():
        raise WrongUse(f"{root} is not a project: it has no project.toml; see example/README.md")
    found = data.read(path)
    data.check_keys(str(path), found, KEYS, ("suites", "build"))
    build = {arch: _strings(f"{path}: [build]", found["build"], arch) for arch in found["build"]}
    mutants, parts = found.get("mutants", {}), found.get("parts", {})
    data.check_keys(f"{path}: [mutants]", mutants, dict.fromkeys(mutants, str), ())
    data.check_keys(f"{path}: [parts]", parts, dict.fromkeys(parts, str), ())
    folders = [found["suites"]]
    kit = None
    if own := found.get("selftests"):
        where = f"{path}: [selftests]"
        data.check_keys(where, own, SELFTESTS_KEYS, ("folder", "suite"))
        folders.append(own["folder"])
        kit = Selftests(own["folder"], own["suite"], _strings(where, own, "make"), _strings(where, own, "mkdir"), own.get("hold", ""))
    vmm, bench = (_programs(path, name, found.get(name)) for name in ("vmm", "bench"))
    for name, one in (("selftests", kit), ("vmm", vmm), ("bench", bench)):
        if one and not re.fullmatch(r"\w+", one.suite):
            raise WrongUse(f"{path}: [{name}]: suite must be one word")
        if one and one.hold and not HOLD.fullmatch(one.hold):
            raise WrongUse(f"{path}: [{name}]: hold must be a device and an optional ioctl in hexadecimal, as \"/dev/kvm 0xae01\"")
    for folder in folders:
        if not FOLDER.fullmatch(folder):
            raise WrongUse(f"{path}: {folder!r} must be a folder of the kernel tree, without / at either end")
    if not PARAMETER.fullmatch(found.get("seed", "")):
        raise WrongUse(f"{path}: seed must be the name of a kernel parameter")
    return Project(found["suites"], build, kit, mutants, found.get("seed", ""), parts, vmm, bench)


def _programs(path: Path, name: str, own: Mapping[str, Any] | None) -> Programs | None:
    """Return the table [vmm] or [bench]."""
    if not own:
        return None
    data.check_keys(f"{path}: [{name}]", own, PROGRAMS_KEYS, ("suite",))
    return Programs(own["suite"], own.get("hold", ""))


def _strings(where: str, entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return entry[key], an optional list of strings."""
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise WrongUse(f"{where}: {key} must be a list of strings")
    return tuple(value)


def add_options(parser: argparse.ArgumentParser, root: Path) -> None:
    """Add --project (default: root) and --out."""
    parser.add_argument("--project", type=Path, default=root, metavar="DIR",
                        help="another folder with project.toml, kernel/, kunit/, configs/ and matrix/ (default: this checkout)")
    parser.add_argument("--out", type=_folder, metavar="DIR", help="build folder (default: build/ in the project)")


def _folder(name: str) -> Path:
    """Return the folder that --out names. An empty name, as of an unset variable, would be the current folder."""
    if not name:
        raise argparse.ArgumentTypeError("the name of a folder is empty")
    return Path(name)


def positive(text: str) -> int:
    """Return the number that --jobs gives."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def places(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the absolute paths of the chosen project and build folder. Raise WrongUse when make clean would remove tools/."""
    root: Path = options.project.resolve()
    out: Path = (options.out or root / "build").absolute()
    if out.resolve() == root:
        raise WrongUse(f"{out} is the project itself; choose another build folder (--out DIR, make O=DIR)")
    return root, out


def commit(root: Path) -> str:
    """Return the commit that is checked out at root, in 12 digits; "" if root is no git checkout."""
    done = proc.run(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], limit=60)
    return "" if done.returncode else done.output.strip()

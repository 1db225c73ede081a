# SPDX-License-Identifier: GPL-2.0
"""Boot a cell's kernel with kunit.py exec, and have kunit.py parse write the JUnit file."""

import os
from collections.abc import Callable
from pathlib import Path

from matrix.common import proc
from matrix.cell.build import common, environment, kunit
from matrix.cell.cells import Cell
from matrix.verdict.console import LARGEST

SHIM = Path(__file__).resolve().parent / "shim"
GRACE = 30.0  # seconds that kunit.py gets beyond its own time limit before it is killed
PARSE_SECONDS = 120.0


def shim_path() -> str:
    """PATH with the folder in front whose qemu-system-* leave hardware acceleration out."""
    return f"{SHIM}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def exec_command(tree: Path, cell: Cell, build: Path, glob: str) -> list[str]:
    """kunit.py exec: the whole console on stdout."""
    argv = [*kunit(tree, "exec"), *common(cell, build), "--raw_output=all", f"--timeout={cell.boot_seconds}"]
    argv += [f"--kernel_args={argument}" for argument in cell.kernel_args]
    return argv + ([glob] if glob else [])


def boot(argv: list[str], log: Path, seconds: float, until: Callable[[], bool] | None = None) -> proc.Completed:
    """Runs an exec_command(), or until it has shown enough; kunit.py enforces the limit, this only makes sure that it does."""
    return proc.run(argv, log=log, env=environment() | {"PATH": shim_path()}, limit=seconds + GRACE, until=until)


def parse_command(tree: Path, console: Path, junit: Path) -> list[str]:
    """kunit.py parse: console.log to junit.xml; of one that is too long, the part that the verdict reads."""
    if console.stat().st_size > LARGEST:
        head = console.with_name("console-head.log")
        with open(console, "rb") as source:
            head.write_bytes(source.read(LARGEST))
        console = head
    return [*kunit(tree, "parse"), f"--junit={junit}", "--summary", str(console)]


def parse(argv: list[str]) -> proc.Completed:
    """Runs a parse_command()."""
    return proc.run(argv, env=environment(), limit=PARSE_SECONDS)


WITHOUT_KUNIT = "kunit.enable=0"  # no suite runs
INITRAMFS = """
# What follows lets the same machine run an initramfs: KUnit, which has the last word unless this line
# has it, does not reboot before /init has come to its end.
from dataclasses import replace

QEMU_ARCH = replace(QEMU_ARCH,
		    kernel_command_line=QEMU_ARCH.kernel_command_line +
					' {arguments} kunit_shutdown=none panic=-1',
		    extra_qemu_params=[*QEMU_ARCH.extra_qemu_params, '-initrd', {initrd!r}])
"""


def kernel_arguments(cell: Cell, glob: str, initramfs: bool) -> list[str]:
    """What is on the command line of the kernel, apart from what the qemu_config has there."""
    words = [*cell.kernel_args, "kunit.enable=1", *([f"kunit.filter_glob={glob}"] if glob else [])]
    return words + ([WITHOUT_KUNIT, "kunit_shutdown=none"] if initramfs else ["kunit_shutdown=reboot"])


def initramfs_config(cell: Cell, initrd: Path, arguments: str = "") -> str:
    """A qemu_config: the cell's own, with an initramfs that has the last word, and more kernel arguments.

    kunit.py ends its kernel arguments with kunit.enable=1, and with kunit_shutdown=reboot where there is
    none. Only the qemu_config's kernel_command_line comes after that.
    """
    return cell.qemu_config.read_text("utf-8") + INITRAMFS.format(initrd=str(initrd), arguments=arguments)

# SPDX-License-Identifier: GPL-2.0
"""Boot a cell's kernel with kunit.py exec, and write the JUnit file with kunit.py parse."""

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
    """Return PATH with shim/ first, whose qemu-system-* disable hardware acceleration."""
    return f"{SHIM}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def exec_command(tree: Path, cell: Cell, build: Path, glob: str) -> list[str]:
    """Return the kunit.py exec command line that prints the whole console to stdout."""
    argv = [*kunit(tree, "exec"), *common(cell, build), "--raw_output=all", f"--timeout={cell.boot_seconds}"]
    argv += [f"--kernel_args={argument}" for argument in cell.kernel_args]
    argv += [f"--qemu_args={cell.qemu_args}"] if cell.qemu_args else []
    return argv + ([glob] if glob else [])


def boot(argv: list[str], log: Path, seconds: float, until: Callable[[], bool] | None = None) -> proc.Completed:
    """Run an exec_command() until it ends or until() returns true. kunit.py enforces the time limit; ours is the fallback."""
    return proc.run(argv, log=log, env=environment() | {"PATH": shim_path()}, limit=seconds + GRACE, until=until)


def is_too_large(console: Path) -> bool:
    """Whether the console has more than the verdict reads, which is red anyway: a kernel that never stops printing fills the disk."""
    return console.exists() and console.stat().st_size > LARGEST


def parse_command(tree: Path, console: Path, junit: Path) -> list[str]:
    """Return the kunit.py parse command line: console.log, or the part of it that the verdict reads, to junit.xml."""
    if is_too_large(console):
        head = console.with_name("console-head.log")
        with open(console, "rb") as source:
            head.write_bytes(source.read(LARGEST))
        console = head
    return [*kunit(tree, "parse"), f"--junit={junit}", "--summary", str(console)]


def parse(argv: list[str]) -> proc.Completed:
    """Run a parse_command()."""
    return proc.run(argv, env=environment(), limit=PARSE_SECONDS)


WITHOUT_KUNIT = "kunit.enable=0"  # no suite runs
# For boots in which guests run. With a thread per CPU, QEMU 7.2 is not reliable there: on x86_64 a guest gets a triple fault now and
# then, with hugepages or single pages, with one vCPU or two; on arm64 a CPU may go on with its translation of code that the kernel
# has patched, e.g. not load a vCPU again that was preempted.
ONE_THREAD = "tcg,thread=single"
# For boots with a VMM and several CPUs. There it is one thread for all CPUs that fails on x86_64, with QEMU 7.2 and 10.0, with guest_memfd
# and without: the VMM's guest gets an interrupt a second time, although it has disabled interrupts, and panics or spins on a lock.
THREADS = "tcg,thread=multi"


def accelerator(cell: Cell) -> str:
    """Return QEMU's accelerator for boots of a cell in which guests run."""
    return THREADS if cell.vmm and not cell.count else ONE_THREAD  # it cannot count with a thread per CPU


INITRAMFS = """
# Run an initramfs on the same machine. kernel_command_line comes last, so it overrides the arguments with
# which kunit.py lets KUnit reboot before /init ends.
from dataclasses import replace

QEMU_ARCH = replace(QEMU_ARCH,
		    kernel_command_line=QEMU_ARCH.kernel_command_line +
					' {arguments} kunit_shutdown=none panic=-1',
		    extra_qemu_params=[*QEMU_ARCH.extra_qemu_params, '-accel', {accel!r}, '-initrd', {initrd!r}])
"""


def kernel_arguments(cell: Cell, glob: str, suites: bool, initramfs: bool) -> list[str]:
    """Return the kernel arguments, except those of the qemu_config."""
    words = [*cell.kernel_args, "kunit.enable=1", *([f"kunit.filter_glob={glob}"] if glob else [])]
    return words + ([] if suites else [WITHOUT_KUNIT]) + [f"kunit_shutdown={'none' if initramfs else 'reboot'}"]


def initramfs_config(cell: Cell, initrd: Path, arguments: str = "", accel: str = "tcg") -> str:
    """Return the cell's qemu_config with an initramfs, more kernel arguments and QEMU's -accel.

    kunit.py appends kunit.enable=1 to its kernel arguments, and kunit_shutdown=reboot unless they have
    kunit_shutdown. Only the qemu_config's kernel_command_line comes after these.
    """
    return cell.qemu_config.read_text("utf-8") + INITRAMFS.format(initrd=str(initrd), arguments=arguments, accel=accel)

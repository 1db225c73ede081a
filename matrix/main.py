# SPDX-License-Identifier: GPL-2.0
"""The command line of ./matrix/run."""

import argparse
import functools
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import TypeVar

from matrix.cell import bench, build, cells, merge, selftests, vmm
from matrix.proof import canary
from matrix.tree import tree
from matrix.verdict import report
from matrix.cell.cells import Cell
from matrix.cell.run import E2E, KUNIT, LIST, Job, Site, expected_tests, failed_check, need_built, result_name, run
from matrix.common import project
from matrix.common.errors import MachineError, MatrixError, WrongUse
from matrix.common.session import guarded, locked, sayer, side_by_side
from matrix.verdict.judge import matches

Prepare = Callable[..., tree.PreparedTree]  # see tree.prepare()
Done = TypeVar("Done")

JOBS: dict[str, Callable[[Cell], bool]] = {
    "gate": lambda cell: cell.gate, "scheduled": lambda cell: not cell.gate and not cell.bench, "bench": lambda cell: cell.bench,
    "mutants": lambda cell: cell.mutants, "generated": lambda cell: cell.generated, "vmm": lambda cell: cell.vmm,
}  # fmt: skip

ARGUMENT = re.compile(r"""[\w.-]+(?:=[^\s"']*)?""")
ALL = "all"  # in place of the names of all cells
SUMMARY = ("summary.json", "summary.md")
EXAMPLES = """examples:
  ./matrix/run                                 the cells of the gate
  ./matrix/run --until-failure x86_64-thp      look for a seed with which a race makes a test fail
  ./matrix/run --list                          all cells and what each one proves
  ./matrix/run arm64-nothp x86_64-thp          these two
  ./matrix/run --ksrc ~/src/linux x86_64-thp   with your own tree, which stays as it is
  ./matrix/run --filter 'kvm_gmem_*.huge*'     some tests only, as kunit.py's filter
  ./matrix/run --seed 7 x86_64-thp             boot so that the same seed repeats the same run, races included
  ./matrix/run --no-build x86_64-thp           boot the kernel once more that the last run has built
  ./matrix/run --arg NAME=5 --boot-seconds 3600 x86_64-thp   boot with a kernel argument, and with time for what it asks for
  ./matrix/run --update-expected x86_64-thp    update matrix/expected.txt with the tests that run
  ./matrix/run --canaries                      kernels with known defects; exit status 0 if all are red
  ./matrix/run --e2e arm64-thp                 boot for the selftests, not for KUnit
  ./matrix/run --e2e --base arm64-thp          the same on the kernel without the series
  ./matrix/run --merge results-a results-b     summarise the results of several jobs
  ./matrix/run --project example               another series, with its own cells and tests

On a terminal, each running step has a status line; otherwise, or with CI set or TERM=dumb, a line is printed every 30 s.
The output has no colours, regardless of NO_COLOR.

exit status: 0 all green, 1 a cell is red, 2 wrong use, 3 the machine lacks something, 130 interrupted"""


def parser(root: Path) -> argparse.ArgumentParser:
    """Return the parser; argparse itself exits with status 2 on wrong use."""
    options = argparse.ArgumentParser(
        prog="./matrix/run", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Build one kernel per cell, boot it in QEMU, run its KUnit tests or its selftests and judge the "
                    "whole console.",
    )  # fmt: skip
    add = options.add_argument
    add("cells", nargs="*", metavar="CELL", help=f"cells to run (default: those of the gate); {ALL}: every cell, for all of its boots")
    add("--shard", metavar="I/N", help="run only the I-th of N shares of these cells, counted from 1")
    add("--filter", default="", metavar="GLOB", help="run only tests that match SUITE_GLOB[.CASE_GLOB]")
    add("--seed", type=int, metavar="N", help="seed the tests, and let QEMU count instructions: the run repeats itself")
    add("--arg", action="append", default=[], metavar="NAME=VALUE", help="boot with this kernel argument, too; may be repeated")
    add("--boot-seconds", type=int, default=0, metavar="N", help="let each boot take N seconds, instead of what cells.toml allows")
    add("--no-build", action="store_true", help="boot the kernels that an earlier run has built from the same series and options")
    add("--until-failure", action="store_true", help="repeat the run with one seed after the other until it is red, or interrupted")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="compile N files at once, in all cells together (default: %(default)s)")  # fmt: skip
    add("--parallel", type=int, default=2, metavar="N", help="run N cells in parallel (default: %(default)s)")
    add("--ksrc", type=Path, metavar="DIR", help="use this kernel tree, which is never written to, or a base of kernel/, as in 7.2")
    project.add_options(options, root)
    add("--e2e", action="store_true", help="boot for the selftests, not for KUnit")
    add("--all", action="store_true", help="boot for KUnit, then for the selftests")
    add("--base", action="store_true", help="with --e2e: test the kernel without the series, to find failures that it does not cause")
    add("--update-expected", action="store_true", help="update matrix/expected.txt with the tests that run")
    add("--canaries", action="store_true", help="run the canaries (CELL: names of canaries, default: all) and exit")
    add("--list", action="store_true", help="list the cells and exit")
    add("--cells-json", choices=JOBS, help="print the cells of a job of the CI workflows, or of make vmm or make bench, as JSON and exit")
    add("--merge", nargs="+", type=Path, metavar="DIR", help="summarise the result.json files below DIR and exit")
    return options


def main(argv: Sequence[str], root: Path, prepare: Prepare = tree.prepare) -> int:
    """Run the command line argv; root is the default project. Return the exit status."""
    options = parser(root).parse_args(argv)
    return guarded("matrix", lambda: _repeat(options, root, prepare) if options.until_failure else _main(options, root, prepare))


def _repeat(options: argparse.Namespace, root: Path, prepare: Prepare) -> int:
    """Run with the seed, 1 by default, then with the next ones; return the status of the first run that is not green."""
    if any((options.list, options.cells_json, options.canaries, options.merge, options.update_expected)):
        raise WrongUse("--until-failure repeats boots of cells, and nothing else")
    for seed in itertools.count(1 if options.seed is None else options.seed):
        again = argparse.Namespace(**vars(options) | {"seed": seed, "cells": [*options.cells]})
        if status := _main(again, root, prepare):
            print(f"matrix: seed {seed} is the first that is not green", flush=True)
            return status
    raise AssertionError


def _main(options: argparse.Namespace, root: Path, prepare: Prepare) -> int:
    jobs = int(options.jobs)
    root, out = project.places(options)
    tested = project.load(root)
    known = cells.load(root)
    if options.list:
        return _list(known)
    if options.cells_json:
        print(json.dumps([cell.name for cell in known if JOBS[options.cells_json](cell)]))
        return 0
    if options.canaries:
        return _canaries(options, root, out, canary.select(canary.load(root, known), options.cells), prepare)
    gate = [cell.name for cell in known if cell.gate]
    if ALL in options.cells:
        options.cells, options.all = [cell.name for cell in known], True
    chosen = _share(cells.select(known, [*gate, *options.cells] if options.merge else options.cells), options.shard)
    if options.e2e:
        tested.need_selftests()
    both = [KUNIT, E2E] if tested.selftests else [KUNIT]
    kinds = both if options.all or options.merge else [E2E] if options.e2e else [KUNIT]
    own = {cell.name: _kinds(options, root, cell, kinds) for cell in chosen}
    if options.merge:
        others = (options.filter, options.base, options.arg, options.boot_seconds, options.no_build, options.shard)
        if any(others) or options.seed is not None:
            raise WrongUse("--merge cannot be combined with --filter, --base, --seed, --arg, --boot-seconds, --no-build or --shard")
        _clear(out, SUMMARY)
        wanted = {result_name(cell, kind): (cell, kind) for cell in chosen for kind in own[cell.name]}
        return _end(out, merge.merge(root, options.merge, wanted))
    names = {cell.name: [result_name(cell, kind, options.base) for kind in own[cell.name]] for cell in chosen}
    if options.base:
        chosen = [cells.on_base(cell) for cell in chosen]
    if options.seed is not None:
        chosen = [cells.seeded(cell, tested.seed, options.seed) for cell in chosen]
    chosen = [cells.extended(cell, options.arg, options.boot_seconds) for cell in chosen]
    _check(options, out, root, chosen, kinds)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        _clear(out, [*SUMMARY, *sum((names[cell.name] for cell in chosen), [])])
        say, inputs = sayer(), merge.inputs(root)

        def site(part: str, jobs_now: Callable[[], int]) -> Site:
            prepared = (tree.pristine(root, out, options.ksrc, say) if options.base
                        else prepare(root, out, options.ksrc, say, **{"part": part} if part else {}))  # fmt: skip
            say(f"kernel: Linux {prepared.version}, {prepared.origin}")
            return Site(root, out, prepared, say, jobs_now, inputs=inputs, base=options.base, build=not options.no_build,
                        ksrc=options.ksrc)  # fmt: skip

        def tasks(cell: Cell) -> list[Job]:
            return [Job(cell, kind, options.filter, options.update_expected) for kind in own[cell.name]]

        # Each part of the series is a tree of its own.
        parts = ("",) if options.base else dict.fromkeys(cell.part for cell in chosen)
        results = [_run([cell for cell in chosen if options.base or cell.part == part], functools.partial(site, part), tasks,
                        jobs, options.parallel) for part in parts]  # fmt: skip
        return _end(out, sum(results, []))


def _run(chosen: Sequence[Cell], make_site: Callable[[Callable[[], int]], Site], tasks: Callable[[Cell], list[Job]],
         jobs: int, parallel: int) -> list[report.Result]:  # fmt: skip
    """Run the cells of one part of the series."""
    side = max(1, min(parallel, jobs, len(chosen)))
    unfinished = set(cell.name for cell in chosen)
    site = make_site(lambda: jobs if len(unfinished) == 1 else max(1, jobs // side))
    for cell in chosen:
        need_built(site, cell)

    def one(cell: Cell) -> list[report.Result]:
        try:
            return run(site, tasks(cell))
        except (MatrixError, OSError):
            raise
        except Exception as err:  # pylint: disable=broad-exception-caught
            return [failed_check(site.out, result_name(cell, job.kind, site.base), err) for job in tasks(cell)]
        finally:
            unfinished.discard(cell.name)

    return sum(pool(one, chosen, side), [])


def _share(chosen: Sequence[Cell], shard: str | None) -> list[Cell]:
    """Return the cells of a share "I/N"; every cell is in exactly one of N shares."""
    if shard is None:
        return list(chosen)
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", shard)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise WrongUse(f"--shard {shard}: expected I/N with 1 <= I <= N, as in 2/3")
    some = list(chosen[number - 1::count])
    if not some:
        raise WrongUse(f"--shard {shard}: there are only {len(chosen)} cells")
    return some


def _kinds(options: argparse.Namespace, root: Path, cell: Cell, kinds: Sequence[str]) -> Sequence[str]:
    """Return those of these kinds for which the cell has tests. A part of the series may lack the suites."""
    if cell.build_only:
        if KUNIT not in kinds or options.update_expected:
            raise WrongUse(f"cell {cell.name} does not boot; omit --e2e and --update-expected")
        return [KUNIT]
    if cell.bench or cell.count:
        if E2E not in kinds:
            raise WrongUse(f"cell {cell.name} has no KUnit; use --e2e, or make {'bench' if cell.bench else 'vmm'}")
        return [E2E]
    if not cell.part or options.update_expected or options.base:
        return kinds
    some = [kind for kind in kinds if expected_tests(root, cell, kind).tests]
    if not some:
        raise WrongUse(f"{root / LIST} has no such tests for cell {cell.name}; use --all or --e2e")
    return some


def _canaries(options: argparse.Namespace, root: Path, out: Path, chosen: Sequence[canary.Canary], prepare: Prepare) -> int:
    """Run the canaries; return 0 when each is red for the expected reasons."""
    others = (options.filter, options.update_expected, options.arg, options.boot_seconds,
              options.all, options.e2e, options.shard, options.base)  # fmt: skip
    if any(others) or options.seed is not None:
        raise WrongUse("--canaries cannot be combined with --filter, --update-expected, --seed, --arg, --boot-seconds, --all, --e2e, "
                       "--shard or --base")  # fmt: skip
    _check(options, out, root, [one.cell for one in chosen], [KUNIT])
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        say = sayer()
        prepared = prepare(root, out, options.ksrc, say)
        say(f"kernel: Linux {prepared.version}, {prepared.origin}")
        return 0 if canary.run_all(chosen, root, out, prepared, options.jobs, say) else 1


def _check(options: argparse.Namespace, out: Path, root: Path, chosen: Sequence[Cell], kinds: Sequence[str]) -> None:
    """Check the options, files and tools before anything is built."""
    if options.jobs < 1 or options.parallel < 1:
        raise WrongUse("--jobs and --parallel must be at least 1")
    if options.base and (kinds != [E2E] or options.update_expected):
        raise WrongUse("--base needs --e2e, and cannot be combined with --all or --update-expected")
    tree.need_plain(out, root)
    if options.seed is not None and (options.update_expected or not 0 <= options.seed < 1 << 32):
        raise WrongUse("--seed must be a number of 32 bits, and cannot be combined with --update-expected")
    if options.no_build and (options.canaries or options.update_expected or any(cell.build_only for cell in chosen)):
        raise WrongUse("--no-build cannot be combined with --canaries, --update-expected or cells that are only built")
    if options.boot_seconds < 0:
        raise WrongUse("--boot-seconds must be above 0")
    for argument in options.arg:
        if options.update_expected or not ARGUMENT.fullmatch(argument):
            raise WrongUse(f"--arg {argument!r}: must be NAME=VALUE without spaces and quotes; cannot be combined with --update-expected")
    if options.filter:
        if options.update_expected:
            raise WrongUse("--update-expected needs all tests: omit --filter")
        if re.search(r"[\s\"']", options.filter):
            raise WrongUse(f"--filter {options.filter!r}: spaces and quotes are not possible on the kernel command line")
    if options.base and any(cell.vmm for cell in chosen):
        raise WrongUse("--base cannot be combined with cells that run a VMM: it needs what the series adds")
    if options.seed is not None and any(cell.bench or cell.count for cell in chosen):
        raise WrongUse("--seed cannot be combined with cells that measure: they count instructions anyway")
    if options.seed is not None and E2E in kinds and any(cell.vmm for cell in chosen):
        raise WrongUse("--seed cannot be combined with boots of a VMM: QEMU cannot count instructions with a thread for each CPU")
    for cell in chosen:
        for kind in () if options.base else _kinds(options, root, cell, kinds):
            _check_expected(root, options.filter, cell, kind)
        cells.asked(cell)
        if not cell.qemu_config.is_file():
            raise WrongUse(f"cell {cell.name}: {cell.qemu_config}: no such file")
        build.need_tools(cell)
        if E2E in kinds:
            (vmm if cell.vmm else bench if cell.bench else selftests).load(root, cell)
        if E2E in kinds or cell.modules:
            build.need_static_libc(cell)


def _clear(out: Path, names: Sequence[str]) -> None:
    """Remove the results of an earlier run. Raise MachineError when results cannot be written."""
    folder = out / "results"
    try:
        for name in names:
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        text = f"{err.filename or folder}: {err.strerror}; make {folder} writable or use another build folder (--out DIR)"
        raise MachineError(text) from err


def _check_expected(root: Path, glob: str, cell: Cell, kind: str) -> None:
    """Check that the list of expected tests is valid and that glob selects some."""
    expected = expected_tests(root, cell, kind)
    if glob and cell.build_only:
        raise WrongUse(f"cell {cell.name} does not boot; omit --filter")
    if glob and not any(matches(glob, test) for test in expected.tests):
        near = ", ".join(expected.near(glob)) or "none; run it once with --update-expected"
        raise WrongUse(f"--filter {glob!r} selects no test of {result_name(cell, kind)}; suites: {near}")


def pool(one: Callable[[Cell], Done], chosen: Sequence[Cell], side: int) -> list[Done]:
    """Run the cells, side of them in parallel; the first error ends all."""
    with side_by_side(side) as threads:
        futures = {threads.submit(one, cell): cell.name for cell in chosen}
        done = {futures[future]: future.result() for future in as_completed(futures)}
    return [done[cell.name] for cell in chosen]


def _end(out: Path, results: Sequence[report.Result]) -> int:
    green = report.summarise(out / "results", results)
    print(f"\n{report.table(results)}\n\nsummary: {out / 'results/summary.md'}", flush=True)
    return 0 if green else 1


def _list(known: Sequence[Cell]) -> int:
    width = max(len(cell.name) for cell in known)
    for cell in known:
        print(f"{cell.name.ljust(width)}  {'gate' if cell.gate else '    '}  {cell.proves}")
    return 0

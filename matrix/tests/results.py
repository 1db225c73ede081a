# SPDX-License-Identifier: GPL-2.0
"""Results as a run of the gate leaves them, made up from cells.toml and expected.txt, for tests of what reads results."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matrix.cell import cells
from matrix.cell.cells import Cell
from matrix.cell.run import E2E, KUNIT, expected_tests, result_name
from matrix.verdict import report
from matrix.verdict.report import Result

ROOT = Path(__file__).resolve().parents[2]
KERNEL = {"version": "7.3.4", "origin": "Debian 7.3.4-1", "series": "5f0c2c6ad1f94d7b8e21"}
TESTED = {"kernel": f"Linux {KERNEL['version']} ({KERNEL['origin']})", "series": KERNEL["series"]}
TREE = "build/linux-7.3.4"
HOSTILE = "</script></style><img src=x onerror=alert(1)>\"' onmouseover=alert(1) \x1b[31m\x00\u202e\ud800&amp;"
Change = Callable[[str, str], tuple[str, str]]  # test and status -> status and reason


def keep(_test: str, status: str) -> tuple[str, str]:
    """Change nothing."""
    return status, ""


def gate() -> list[Cell]:
    """Return the cells of the gate."""
    return [cell for cell in cells.load(ROOT) if cell.gate]


def result(cell: Cell, kind: str = KUNIT, change: Change = keep, reasons: Sequence[tuple[str, str]] = ()) -> Result:
    """Return the result of a boot in which each expected test passed, but for what change says; red if there are reasons."""
    suites: dict[str, Any] = {}
    counts = {"total": 0, "passed": 0, "failed": 0, "skipped": 0}
    skips = {}
    for test in expected_tests(ROOT, cell, kind).tests:
        suite, _, case = test.partition(".")
        status, reason = change(test, "passed")
        if status == "missing":
            continue
        entry = suites.setdefault(suite, {"status": status, "cases": {}})
        entry["cases"][case] = {"status": status} | ({"reason": reason} if reason else {})
        seen = {status, entry["status"]}
        entry["status"] = next(word for word in ("failed", "passed", "skipped") if word in seen)
        counts["total"] += 1
        counts[status] += 1
        if status == "skipped":
            skips[test] = reason
    e2e = kind == E2E
    seconds = {"configure": 6.1, "build": 48.0 + 7 * len(cell.name)}
    seconds |= {"selftests": 41.3, "boot": 182.5} if e2e else {"boot": 31.0}
    tool = f"{TREE}/tree/tools/testing/kunit/kunit.py"
    made = f"--build_dir={TREE}/cells/{cell.name} --arch={cell.arch}"
    commands = {"configure": f"{tool} config {made}", "build": f"{tool} build {made} --jobs=4"}
    commands |= {"boot": f'PATH=matrix/cell/shim:"$PATH" {tool} exec {made} --timeout={cell.boot_seconds} --raw_output=all'}
    faults = "513 with hugepages, 262145" if cell.arch == "arm64" else "530 with hugepages, 262170"
    figures = ["guest_memfd_hugepage_test: huge mappings: 1536",
               f"guest_memfd_hugepage_test: stage-2 faults per GiB: {faults} without",
               "guest_memfd_hugepage_test: guest moved: 40 of 40", "guest_memfd_hugepage_test: collapsed: 38 of 38",
               "guest_memfd_hugepage_test: hugepages on a fragmented host: 0 of 20, later: 20",
               "guest_memfd_memory_failure_test: seed: 20261125", "guest_memfd_memory_failure_test: holes: 61"]  # fmt: skip
    return Result(
        cell=result_name(cell, kind), arch=cell.arch, proves=cell.proves, verdict="red" if reasons else "green",
        reasons=[{"code": code, "text": text} for code, text in reasons], kernel=KERNEL, filter="", repeat="", tests=counts, skips=skips,
        suites=suites, seconds=seconds, figures=figures if e2e else [], commands=commands, files=f"build/results/{result_name(cell, kind)}",
    )  # fmt: skip


def write(out: Path, results: Sequence[Result]) -> None:
    """Write results into a build folder, each with logs, and their summary."""
    for one in results:
        folder = out / "results" / one["cell"]
        folder.mkdir(parents=True, exist_ok=True)
        for name in report.LOGS:
            (folder / name).write_text(f"{name} of {one['cell']}\n")
        (folder / "result.json").write_text(json.dumps(one))
    (out / "results/summary.json").write_text(json.dumps({"verdict": "red", "cells": results}))


def run(broken: bool = False) -> list[Result]:
    """Return a run of the gate: green or, if broken, with each state that a suite can have."""
    results = [result(cell, kind) for cell in gate() for kind in (KUNIT, E2E)]
    if not broken:
        return results
    _, second, third, last = gate()

    def spoil(test: str, status: str) -> tuple[str, str]:
        if test == "kvm_gmem_poison.lock_order/single_page":
            return "failed", ""
        return ("missing", "") if test.startswith("kvm_gmem_stress.") else (status, "")

    def skip(test: str, status: str) -> tuple[str, str]:
        return ("skipped", "no guest_memfd hugepages with PMD_ORDER 13") if test.startswith("kvm_gmem_huge_folio.") else (status, "")

    tests = expected_tests(ROOT, second, KUNIT).tests
    failed = [("test", f"{test} failed: EXPECTATION FAILED at virt/kvm/tests/gmem_poison_kunit.c:212: Expected folio_test_large(folio) "
               "to be false, but is true") for test in tests if spoil(test, "")[0] == "failed"]  # fmt: skip
    missing = [("missing", f"{test} did not run") for test in tests if spoil(test, "")[0] == "missing"]
    splat = [("splat", "BUG: Bad page state in process kunit_try_catch  pfn:07e00 in kvm_gmem_stats, after splits")]
    results[2] = result(second, KUNIT, spoil, [*splat, *failed, *missing])
    results[4] = result(third, KUNIT, skip)
    results[5]["seconds"]["boot"] = 512.0
    results[6] = report.red(last.name, "build", "kunit.py build fails: virt/kvm/guest_memfd.c:431:9: error: too few arguments to function "
                            "'kvm_gmem_zap'")  # fmt: skip
    results[6]["seconds"] = {"configure": 6.0, "build": 21.4}
    results[7] = report.red(result_name(last, E2E), "boot", "the kernel was not booted")
    return results


def mutants() -> dict[str, Any]:
    """Return a mutants.json in which one mutant of three survives."""
    def one(kind: str, *killers: str) -> dict[str, Any]:
        return {"kind": kind, "killers": list(killers), "missed": [], "why": "", "seconds": 30}

    kill = one("killed", "kvm_gmem_punch_hole.middle", "kvm_gmem_punch_hole.edges")
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "punch-one-page-less": ("the last page of the hole stays", {"arm64-thp": kill, "x86_64-thp": kill}),
        "huge-not-charged": ("a hugepage is not charged", {"arm64-thp": kill, "x86_64-thp": one("survived")}),
        "wrong-type": ("a folio where a page is expected", {"arm64-thp": one("does not build")}),
    }  # fmt: skip
    entries = {name: {"mistake": mistake, "cells": outcomes, "killed_by": ["kvm_gmem_punch_hole.middle"], "date": "2026-11-29"}
               for name, (mistake, outcomes) in found.items()}  # fmt: skip
    return TESTED | {"mutants": entries}


def coverage() -> dict[str, Any]:
    """Return a coverage.json with a line that has a reason and one that has none."""
    files = {"virt/kvm/guest_memfd.c": {"lines": 812, "covered": 808, "branches": 640, "taken": 631},
             "mm/huge_memory.c": {"lines": 97, "covered": 97, "branches": 60, "taken": 60}}  # fmt: skip
    ends = [{"where": "virt/kvm/guest_memfd.c:431", "what": "not executed", "text": "return -EINTR;", "reason": "needs a fatal signal"},
            {"where": "virt/kvm/guest_memfd.c:502", "what": "1 of 2 branches not taken", "text": "if (!folio)", "reason": ""}]  # fmt: skip
    return TESTED | {"cells": ["arm64-thp", "x86_64-thp"], "files": files, "open": ends}

# SPDX-License-Identifier: GPL-2.0
"""--merge: summarise the results of several jobs. Judge their logs again rather than trust their result.json."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matrix.cell.cells import Cell, asked, options
from matrix.cell.run import LIST, expected_tests, rejudge
from matrix.common.data import sha256
from matrix.common.errors import WrongUse
from matrix.verdict import report, runs
from matrix.verdict.evidence import Evidence, Reason
from matrix.verdict.report import Result

FOLDERS = ("kernel", "kunit", "configs", "vmm", "bench")
DATA = (".toml", ".txt", ".c")  # of matrix/


def inputs(root: Path) -> str:
    """Return a digest of all files of the checkout that affect a result, except the programs."""
    matrix = root / "matrix"
    paths = [root / "project.toml", *(path for folder in FOLDERS for path in (root / folder).rglob("*"))]
    paths += [path for path in matrix.rglob("*") if path.suffix in DATA and "cases" not in path.relative_to(matrix).parts]
    found = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file() and path.suffix != ".pyc"):
        found.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return found.hexdigest()


def merge(root: Path, folders: Sequence[Path], expected: Mapping[str, tuple[Cell, str]]) -> list[Result]:
    """Return the results below folders, in the order of expected. A result that is missing or not valid is red."""
    found: dict[str, Result] = {}
    now = inputs(root)
    for folder in folders:
        if not folder.is_dir():
            raise WrongUse(f"--merge: {folder} is not a directory")
        for path in sorted(folder.rglob("result.json")):
            name = path.parent.name
            try:
                read = runs.document(path)
                result: Result = read | runs.checked(read)
                name = str(result["cell"])
                wrong = list(_wrong(root, path.parent, result, now, *expected[name])) if name in expected else ["no such cell in the gate"]
                report.table([result])
                json.dumps(result, ensure_ascii=False).encode()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
                result, wrong = report.red(name, "result", f"{path}: unreadable: {type(err).__name__}: {err}"), []
            if name in found:
                result, wrong = report.red(name, "result", f"found twice, the second time as {path}"), []
            found[name] = _redden(result, wrong)
    for name in expected:
        found.setdefault(name, report.red(name, "result", "this cell has no result"))
    results = [found[name] for name in dict.fromkeys([*expected, *found])]
    if len({(result["kernel"]["version"], result["kernel"]["series"]) for result in results if result.get("kernel")}) > 1:
        results = [_redden(result, ["the results are of different kernels or series"]) for result in results]
    return results


def _redden(result: Result, wrong: Sequence[str]) -> Result:
    again = result.copy()
    again["reasons"] = result["reasons"] + report.reasons([Reason("result", text) for text in wrong])
    again["verdict"] = "red" if again["reasons"] else "green"
    return again


def _wrong(root: Path, folder: Path, result: Result, now: str, cell: Cell, kind: str) -> Iterator[str]:
    """Yield why a result is not valid for its cell."""
    if result["reasons"] and "judged" not in result:
        return  # red because the run ended in an internal error
    fields: dict[str, Any] = result["judged"] | {"touched": frozenset(result["judged"]["touched"])}
    if glob := result["filter"] or fields["glob"]:
        yield f"filtered (--filter {glob}): not the gate; run the cell without --filter"
    yield from (f"{text}: not the gate; run the cell without {option}" for option, text in report.special([result]).items())
    if result["inputs"] != now:
        yield "stale: kernel/, kunit/, configs/ or the data of matrix/ have changed since; run the cell again"
    digests = report.digests(folder, root / LIST)
    for name in sorted(result["digests"].keys() | digests.keys()):
        if result["digests"].get(name) != digests.get(name):
            yield f"{name} has changed since it was judged: its sha256 differs"
    config, log = folder / ".config", folder / "build.log"
    evidence = Evidence(
        asked=asked(cell), got=options(config.read_text("utf-8")) if config.exists() else None, expected=expected_tests(root, cell, kind),
        build_only=cell.build_only, build_log=log.read_text("utf-8", "replace"), **fields,
    )  # fmt: skip
    verdict = rejudge(evidence, folder / "console.log" if "boot" in result["seconds"] else None)
    counts, suites = report.tests(verdict)
    again: dict[str, Any] = {
        "reasons": report.reasons(verdict.reasons), "verdict": "green" if verdict.green else "red",
        "tests": counts, "suites": suites, "skips": verdict.skipped,
    }  # fmt: skip
    stored: dict[str, Any] = dict(result)
    stored["reasons"] = [{**reason, "text": reason["text"].partition(report.WITHOUT)[0]} for reason in result["reasons"]]
    for key, value in again.items():
        if stored[key] != value:
            text = "; ".join(map(str, verdict.reasons)) if key == "reasons" else str(value)
            yield f"judged again, {key} of result.json would be: {text[:report.QUOTED] or 'none'}"
            return

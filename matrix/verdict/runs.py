# SPDX-License-Identifier: GPL-2.0
"""Read back what a run has left, in order to show it or to compare it. Nothing in these files is trusted: a result that cannot
be read is red, and does not hide the others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix.common.errors import WrongUse
from matrix.verdict import report
from matrix.verdict.report import LOGS, Result

LARGEST = 16 << 20  # bytes of a JSON file; a result.json has less than one million
MOST = 1e9  # of anything that is counted or measured
VERDICTS, STATUSES = ("green", "red"), ("passed", "failed", "skipped")
MISSING = re.compile(r"([^.\s]+)(?:\.(.*))? did not run", re.DOTALL)  # the reason in a verdict
MORE = "… and "  # begins the last reason of a kind that has too many
E2E = "-e2e"  # see result_name() in matrix/cell/run.py
KEPT = ("cell", "verdict", "reasons", "tests", "suites", "skips", "seconds", "kernel", "filter", "repeat")  # for a comparison


@dataclass(frozen=True)
class Run:
    """The results of a run, in the order of its summary.json, then by name."""

    results: list[Result]
    folders: Mapping[str, Path] = field(default_factory=dict)  # name of a result -> the folder with its logs

    @property
    def red(self) -> list[Result]:
        """The results that are red."""
        return [result for result in self.results if result["verdict"] == "red"]

    @property
    def kernels(self) -> dict[str, list[str]]:
        """The kernels that were tested, for people, with the names of their results.

        More than one: some cells have a part of the series only, or the results are of different runs.
        """
        found: dict[str, list[str]] = {}
        for result in self.results:
            if kernel := result.get("kernel"):
                name = f"Linux {kernel['version']} ({kernel['origin']}), series {kernel['series'][:12]}"
                found.setdefault(name, []).append(result["cell"])
        return found

    def compact(self) -> dict[str, Any]:
        """Return what a later run is compared with, as load() reads it from a file."""
        return {"cells": [{key: value for key, value in result.items() if key in KEPT} for result in self.results]}


def load(path: Path) -> Run:
    """Read a run: a build folder, a folder with results at any depth (downloaded artifacts), a summary.json or a run.json.

    Raise WrongUse when there is nothing to read.
    """
    if path.is_file():
        try:
            return Run(_cells(path))
        except ValueError as err:
            raise WrongUse(f"{path}: {err}; name a build folder, a folder with results, a summary.json or a run.json") from err
    if not path.is_dir():
        raise WrongUse(f"{path}: no such file or folder; run make matrix first, or name another build folder (--out DIR, make O=DIR)")
    if (path / "results").is_dir():
        path = path / "results"
    found: dict[str, Result] = {}
    folders: dict[str, Path] = {}
    for folder in sorted({file.parent for name in ("result.json", *LOGS) for file in path.rglob(name)}):
        name = text(folder.name)
        twice = name in found
        found[name] = report.red(name, "result", f"found twice, the second time in {text(str(folder))}") if twice else _result(folder)
        folders[name] = folder
    summary = _summary(path / "summary.json")
    for name, result in summary.items():
        found[name] = _both(result, found[name]) if name in found else result
    if not found:
        raise WrongUse(f"{path} has no results; run make matrix first")
    return Run([found[name] for name in dict.fromkeys([*summary, *sorted(found)])], folders)


def stem(name: str) -> str:
    """Return the cell of a result: its boots for KUnit and for the selftests are two results of one cell."""
    return name.removesuffix(E2E)


def missing(result: Result) -> tuple[dict[str, list[str]], bool]:
    """Return suite -> cases that were expected and did not run, [""] for all of them, and whether there are more, not named."""
    found: dict[str, list[str]] = {}
    more = False
    for reason in result["reasons"]:
        if reason["code"] == "missing":
            more = more or reason["text"].startswith(MORE)
            if match := MISSING.fullmatch(reason["text"]):
                found.setdefault(match[1], []).append(match[2] or "")
    return found, more


def document(path: Path) -> Any:
    """Read a JSON file. Raise ValueError, with what is wrong for people, when that is impossible."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST >> 20} MB")
        return json.loads(path.read_text("utf-8"))
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    except OSError as err:
        raise ValueError(err.strerror or str(err)) from err
    except ValueError as err:
        raise ValueError(f"not JSON: {err}" if isinstance(err, (json.JSONDecodeError, UnicodeError)) else str(err)) from err


def text(value: Any) -> str:
    """Return a string that can be encoded. Raise ValueError when value is no string."""
    if not isinstance(value, str):
        raise ValueError(f"a string was expected, not {type(value).__name__}")
    return value.encode("utf-8", "backslashreplace").decode()


def number(value: Any) -> float:
    """Return a number from 0 to MOST. Raise ValueError when value is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise ValueError("a number was expected, from 0 to 1000000000")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Return an object of JSON, with keys that can be encoded. Raise ValueError when value is something else."""
    if not isinstance(value, dict):
        raise ValueError(f"an object was expected, not {type(value).__name__}")
    return {text(key): inside for key, inside in value.items()}


def sequence(value: Any) -> list[Any]:
    """Return a list of JSON. Raise ValueError when value is something else."""
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {type(value).__name__}")
    return value


def word(value: Any, words: tuple[str, ...]) -> str:
    """Return value, which must be one of words. Raise ValueError when it is not."""
    if value not in words:
        raise ValueError(f"expected {' or '.join(words)}")
    return str(value)


def checked(data: Any) -> Result:
    """Return the content of a result.json with nothing in it but what Result describes. Raise ValueError when that is impossible."""
    found = mapping(data)
    at = "cell"
    try:
        result = Result(cell=text(found["cell"]), verdict="", reasons=[], tests={}, suites={}, skips={}, seconds={})
        at = "verdict"
        result["verdict"] = word(found[at], VERDICTS)
        at = "reasons"
        result["reasons"] = [{key: text(mapping(one)[key]) for key in ("code", "text")} for one in sequence(found[at])]
        at = "tests"
        result["tests"] = {key: int(number(mapping(found[at])[key])) for key in ("total", *STATUSES)}
        at = "suites"
        result["suites"] = {name: _suite(suite) for name, suite in mapping(found[at]).items()}
        at = "skips"
        result["skips"] = {name: text(reason) for name, reason in mapping(found[at]).items()}
        at = "seconds"
        result["seconds"] = {step: number(value) for step, value in mapping(found[at]).items()}
        at = "kernel"
        if kernel := mapping(found.get(at) or {}):
            result["kernel"] = {key: text(kernel[key]) for key in ("version", "origin", "series")}
        at = "figures"
        result["figures"] = [text(one) for one in sequence(found.get(at) or [])]
        at = "commands"
        result["commands"] = {step: text(command) for step, command in mapping(found.get(at) or {}).items()}
        at = "proves"
        result["proves"] = text(found.get(at, ""))
        at = "filter"
        result["filter"] = text(found.get(at, ""))
        at = "repeat"
        result["repeat"] = text(found.get(at, ""))
    except KeyError as err:
        raise ValueError(f"{at}: {err} is missing" if err.args[0] != at else f"{at} is missing") from err
    except ValueError as err:
        raise ValueError(f"{at}: {err}") from err
    if result["verdict"] == "green" and result["reasons"]:
        raise ValueError("green, with reasons to be red")
    return result


def _suite(data: Any) -> dict[str, Any]:
    found = mapping(data)
    cases = {}
    for name, case in mapping(found["cases"]).items():
        one = mapping(case)
        cases[name] = {"status": word(one["status"], STATUSES)} | ({"reason": text(one["reason"])} if one.get("reason") else {})
    return {"status": word(found["status"], STATUSES), "cases": cases}


def _result(folder: Path) -> Result:
    """Return the result in a folder. One that is unreadable, or not there, is red."""
    name = text(folder.name)
    path = folder / "result.json"
    if not path.exists():
        return report.red(name, "result", "no result.json: the run was interrupted or still goes on; run the cell again")
    try:
        result = checked(document(path))
        if result["cell"] != name:
            raise ValueError(f"the result of {result['cell']}, in the folder of another cell")
        return result
    except ValueError as err:
        return report.red(name, "result", f"result.json is unreadable: {err}; run the cell again")


def _cells(path: Path) -> list[Result]:
    """Return the results in a summary.json, or a file like it. Raise ValueError."""
    try:
        results = [checked(one) for one in sequence(mapping(document(path))["cells"])]
    except KeyError as err:
        raise ValueError(f"{err} is missing") from err
    if len({result["cell"] for result in results}) < len(results):
        raise ValueError("a cell is listed twice")
    return results


def _summary(path: Path) -> dict[str, Result]:
    """Return name -> result of a summary.json; empty when there is none, or none that is readable."""
    try:
        return {result["cell"]: result for result in _cells(path)}
    except ValueError:
        return {}


def _both(summarised: Result, own: Result) -> Result:
    """Return a cell's own result, with the reasons that only the summary has: --merge judges the logs again."""
    extra = [reason for reason in summarised["reasons"] if reason not in own["reasons"]]
    if not extra:
        return own
    result = own.copy()
    result["reasons"], result["verdict"] = own["reasons"] + extra, "red"
    return result

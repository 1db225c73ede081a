# SPDX-License-Identifier: GPL-2.0
"""Write the reports of a run: result.json per cell, summary.json, summary.md, the table on the terminal."""

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Required, TypedDict

from matrix.common.data import sha256
from matrix.common.errors import WrongUse
from matrix.verdict import ktap
from matrix.verdict.console import LARGEST, LINES, lines
from matrix.verdict.evidence import Evidence, Reason
from matrix.verdict.judge import Verdict

STEPS = ("configure", "build", "selftests", "boot")
JUDGED = ("touched", "banner", "arguments", "glob", "config_status", "build_status", "selftests_status", "exec_status",
          "parse_status", "timed_out", "limit")  # fields of Evidence that neither the logs nor the checkout contain
LOGS = ("console.log", "build.log", ".config")
WITHOUT = " (without the series: "  # appended to a reason
QUOTED = 300
SHOWN = 5  # reasons of a cell in the table
# options of ./matrix/run with which a boot is not one of the gate, and what they make of it
SPECIAL = {"--seed": "seeded", "--arg": "with more kernel arguments", "--boot-seconds": "with another time limit",
           "--no-build": "without a build"}  # fmt: skip
FIGURE = re.compile(r"^ *# (\w+): # ([\w ,-]+: \d.*)")  # init.c prints "    # test: # huge mappings: 7"
MOST_FIGURES = 40
END = "<!-- end -->"  # of what a tool writes into a README


class Result(TypedDict, total=False):
    """The content of a result.json. A run that ended in an internal error has only the required keys."""

    cell: Required[str]  # name of the result: "arm64-thp", "arm64-thp-e2e"
    verdict: Required[str]  # "green" or "red"
    reasons: Required[list[dict[str, str]]]  # code and text
    tests: Required[dict[str, int]]  # total, passed, failed, skipped
    suites: Required[dict[str, Any]]
    skips: Required[dict[str, str]]  # test -> reason of the allowed skips
    seconds: Required[dict[str, float]]  # per step
    arch: str
    proves: str
    kernel: dict[str, str]  # version, origin, series (a digest)
    filter: str
    repeat: str  # the command line that repeats a boot with options of SPECIAL
    ksrc: str  # the kernel tree or the base that the user has named; "" for none
    judged: dict[str, Any]  # JUDGED
    digests: dict[str, str]  # of LOGS and of expected.txt
    inputs: str  # digest of the checkout, taken before the run
    figures: list[str]
    commands: dict[str, str]  # step -> shell command that repeats it
    files: str


def tests(verdict: Verdict) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the counts of leaves, and suite -> {status, cases: {case or case/parameter: status}}."""
    counts = {"total": 0, "passed": 0, "failed": 0, "skipped": 0}
    names = {ktap.OK: "passed", ktap.FAIL: "failed", ktap.SKIP: "skipped"}
    suites: dict[str, Any] = {}
    for name, node in verdict.tests.items():
        status = names[node.status]
        counts["total"] += 1
        counts[status] += 1
        suite, _, case = name.partition(".")
        entry = suites.setdefault(suite, {"status": "skipped", "cases": {}})
        if case:
            entry["cases"][case] = {"status": status} | ({"reason": node.reason} if node.reason else {})
        seen = {entry["status"], status}
        entry["status"] = next(word for word in ("failed", "passed", "skipped") if word in seen)
    return counts, suites


def reasons(found: Sequence[Reason]) -> list[dict[str, str]]:
    """Return reasons in the form that JSON files have."""
    return [{"code": reason.code, "text": reason.text} for reason in found]


def write(path: Path, content: str) -> None:
    """Write a file atomically."""
    part = path.with_name(path.name + ".part")
    part.write_text(content, "utf-8")
    part.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def insert(text: str, begin: str, written: str, file: str) -> str:
    """Return text with what is between the lines begin and END replaced. Raise WrongUse when it has no such lines; file is its name."""
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise WrongUse(f"{file} has no lines {begin} and {END}; put them where the table belongs")
    return f"{before}{begin}\n{written}{END}{after}"


def digests(folder: Path, expected: Path) -> dict[str, str]:
    """Return the digests of the files on which a verdict depends."""
    return {path.name: sha256(path) for path in (*(folder / name for name in LOGS), expected) if path.is_file()}


def judged(evidence: Evidence) -> dict[str, Any]:
    """Return what --merge needs, in addition to the files, to judge again."""
    fields = {name: getattr(evidence, name) for name in JUDGED}
    return fields | {"touched": sorted(evidence.touched), "arguments": list(evidence.arguments)}


def figures(console: Path) -> list[str]:
    """Return the figures that selftests report in TAP messages "# name: number…", each prefixed with the selftest's name."""
    if not console.exists():
        return []
    with open(console, "rb") as stream:
        texts = (line.decode(errors="replace") for line, ended in islice(lines(stream, LARGEST), LINES) if ended)
        found = (f"{match[1]}: {match[2].rstrip()}" for text in texts if (match := FIGURE.match(text)))
        return list(islice(found, MOST_FIGURES))


def _partial(results: Sequence[Result]) -> list[str]:
    said = [f"filtered: not the gate (--filter {glob})" for glob in dict.fromkeys(result.get("filter") for result in results) if glob]
    return said + [f"{text}: not the gate ({option})" for option, text in special(results).items()]


def special(results: Sequence[Result]) -> dict[str, str]:
    """Return the options of SPECIAL with which these boots ran, and what they make of them."""
    used = {word for result in results for word in result.get("repeat", "").split()}
    return {option: text for option, text in SPECIAL.items() if option in used}


def _row(result: Result) -> list[str]:
    count = result["tests"]
    seconds = [f"{result['seconds'][step]:.0f}" if step in result["seconds"] else "-" for step in STEPS]
    return [result["cell"], result["verdict"], *(str(count[key]) for key in ("passed", "failed", "skipped")), *seconds]


HEAD = ["cell", "verdict", "passed", "failed", "skipped", *(f"{step} s" for step in STEPS)]


def table(results: Sequence[Result]) -> str:
    """Format the table at the end of a run, then the reasons and logs of each red cell."""
    rows = [HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    text = []
    for row in rows:
        words = [word.ljust(width) if at < 2 else word.rjust(width) for at, (word, width) in enumerate(zip(row, widths))]
        text.append("  ".join(words).rstrip())
    text += _partial(results)
    for result in results:
        for name, reason in result["skips"].items():
            text.append(f"{result['cell']}: {name} skipped, as allowed: {reason}")
        text += [f"{result['cell']}: {figure}" for figure in result.get("figures", ())]
    for result in results:
        found = result["reasons"]
        if not found:
            continue
        text += ["", f"{result['cell']} is red:"]
        text += [f"  {reason['code']}: {reason['text']}" for reason in found[:SHOWN]]
        if len(found) > SHOWN:
            text.append(f"  … and {len(found) - SHOWN} more in result.json")
        if result.get("files"):
            text.append(f"  logs: {result['files']}")
        if result.get("repeat"):
            text.append(f"  to repeat: {result['repeat']}")
    return "\n".join(text)


def markdown(results: Sequence[Result]) -> str:
    """Format summary.md: the same as Markdown."""
    text = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "--:|" * (len(HEAD) - 2)]
    text += ["| " + " | ".join(_row(result)) + " |" for result in results]
    for line in _partial(results):
        text += ["", f"**{_plain(line)}**"]
    for result in results:
        if result["reasons"]:
            text += ["", f"**{result['cell']}** is red:", ""]
            text += [f"- `{reason['code']}`: {_plain(reason['text'])}" for reason in result["reasons"]]
        if result["skips"]:
            text += ["", f"**{result['cell']}** skipped, as allowed:", ""]
            text += [f"- {_plain(name)}: {_plain(reason)}" for name, reason in result["skips"].items()]
        if result.get("figures"):
            text += ["", f"**{result['cell']}** measured:", "", *(f"- {_plain(figure)}" for figure in result["figures"])]
    for line in dict.fromkeys(f"Linux {kernel['version']} ({kernel['origin']})" for kernel in _kernels(results)):
        text += ["", line]
    return "\n".join(text) + "\n"


def _plain(text: str) -> str:
    return "".join("\\" + char if char in r"\`*_{}[]<>|#" else char for char in text)


def _kernels(results: Sequence[Result]) -> list[dict[str, str]]:
    return [result["kernel"] for result in results if result.get("kernel")]


def summarise(folder: Path, results: Sequence[Result]) -> bool:
    """Write folder/summary.{json,md}; return whether every cell is green."""
    green = bool(results) and all(result["verdict"] == "green" for result in results)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "summary.md", markdown(results))
    write_json(folder / "summary.json", {"verdict": "green" if green else "red", "cells": list(results)})
    return green


def red(cell: str, code: str, text: str) -> Result:
    """Return a red result with this reason and nothing else."""
    counts, suites = tests(Verdict())
    return {"cell": cell, "verdict": "red", "reasons": reasons([Reason(code, text)]), "tests": counts,
            "suites": suites, "skips": {}, "seconds": {}}  # fmt: skip


def cases(folder: Path, suite: str) -> dict[str, str]:
    """Return case -> status ("passed", …) of a suite from folder/result.json; empty when that is missing or unreadable."""
    try:
        found = json.loads((folder / "result.json").read_text("utf-8"))["suites"][suite]["cases"]
        return {name: str(case["status"]) for name, case in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}

# SPDX-License-Identifier: GPL-2.0
"""The sections about boots: what is red, the grid, the figures, the time, and all about each of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from matrix.proof.page import grid
from matrix.proof.page.markup import Html, breakable, join, tag
from matrix.proof.page.parts import Shown, command, files, folded, mark, number, reasons, region, repeat, row
from matrix.verdict.report import STEPS, Result
from matrix.verdict.runs import E2E, Run

KINDS = {"": "KUnit", E2E: "selftests"}  # of boots, for people
FIGURE = re.compile(r"(\w+): ([^:]+): (.*)", re.DOTALL)  # "test: name: value", see figures() in report.py
COLOURS = 5  # of steps, in page.css


def red(shown: Shown) -> Html:
    """Return the reasons of each red boot."""
    if not shown.run.red:
        return tag("p", "Nothing: every check of every boot passed.")
    found = []
    for result in shown.run.red:
        link = tag("a", breakable(result["cell"]), href=f"#{shown.anchor(result)}")
        repeats = command(repeat(result, shown.options), f"command that repeats {result['cell']}")
        found.append(tag("article", tag("h3", mark("red"), " ", link, " is red"), reasons(result), files(shown, result), repeats))
    return join(found)


def suites(shown: Shown) -> Html:
    """Return the grid of suites and cells."""
    run = shown.run
    columns = grid.columns(run)
    rows = [tag("tr", tag("th", f"Verdict: {word}", scope="row"), *(_verdict(shown, column.boots.get(kind)) for column in columns),
                class_="verdict")
            for kind, word in KINDS.items() if any(kind in column.boots for column in columns)]  # fmt: skip
    for suite, kinds in grid.suites(run).items():
        squares = [grid.square(suite, kinds, column) for column in columns]
        rows.append(row(suite, *map(_square, squares), data_worst=grid.worst(squares)))
    legend = [join([tag("dt", tag("span", glyph, aria_hidden="true"), f" {state}"), tag("dd", means)])
              for state, (glyph, means) in grid.STATES.items()]  # fmt: skip
    button = tag("button", "Show only what is not green", type="button", id="only", hidden=True, aria_pressed="false")
    head = ["Suite", *(breakable(column.name) for column in columns)]
    table = region("Suites and cells", "A row is a suite, a column a cell. A square counts tests.", head, [tag("tbody", *rows)], "grid")
    return join([button, table, tag("details", tag("summary", "What the words mean"), tag("dl", *legend, class_="legend"))])


def _verdict(shown: Shown, result: Result | None) -> Html:
    if not result:
        return tag("td", tag("span", "–", aria_hidden="true"), " no boot", class_="not-run")
    link = tag("a", result["verdict"], href=f"#{shown.anchor(result)}")
    return tag("td", mark(result["verdict"]), " ", link, class_="passed" if result["verdict"] == "green" else "failed")


def _square(one: grid.Square) -> Html:
    glyph = tag("span", grid.STATES[one.state][0], aria_hidden="true")
    words = f" {one.count} {one.state}" if one.count else f" {one.state}"
    return tag("td", glyph, words, *(tag("small", other) for other in one.others), class_=one.state.replace(" ", "-"))


def figures(run: Run) -> Html:
    """Return a table with a group of rows for each selftest and a column for each boot that has figures."""
    groups: dict[str, dict[str, dict[str, str]]] = {}  # selftest -> figure -> boot -> value
    names = [result["cell"] for result in run.results if result.get("figures")]
    for result in run.results:
        for figure in result.get("figures", ()):
            match = FIGURE.fullmatch(figure)
            test, key, value = match.groups() if match else ("others", figure, "yes")
            values = groups.setdefault(test, {}).setdefault(key, {})
            values[result["cell"]] = f"{values[result['cell']]}; {value}" if result["cell"] in values else value
    if not groups:
        return tag("p", "None: they come from the selftests. Run make e2e for them.")
    bodies = []
    for test, rows in groups.items():
        title = tag("tr", tag("th", breakable(test), scope="rowgroup", colspan=str(len(names) + 1)))
        lines = [row(key, *(tag("td", values.get(name, "–")) for name in names)) for key, values in rows.items()]
        bodies.append(tag("tbody", title, *lines))
    return region("Figures", "As the selftests print them.", ["Figure", *map(breakable, names)], bodies)


def time(run: Run) -> Html:
    """Return a table with the seconds of each step of each boot, and a bar."""
    steps = list(dict.fromkeys([*STEPS, *(step for result in run.results for step in result["seconds"])]))
    steps = [step for step in steps if any(step in result["seconds"] for result in run.results)]
    if not steps:
        return tag("p", "No step of any boot has ended.")
    longest = max(sum(result["seconds"].values()) for result in run.results) or 1.0
    colours = {step: f"step-{at % COLOURS}" for at, step in enumerate(steps)}
    head = ["Boot", *(join([tag("span", class_=f"swatch {colours[step]}", aria_hidden="true"), step]) for step in steps), "all", "bar"]
    rows = []
    for result in run.results:
        seconds = result["seconds"]
        picture = _bar([(colours[step], seconds.get(step, 0.0) / longest) for step in steps])
        numbers = [f"{seconds[step]:.0f}" if step in seconds else "–" for step in steps]
        rows.append(row(result["cell"], *map(number, numbers), number(f"{sum(seconds.values()):.0f}"), tag("td", picture)))
    caption = "Seconds of each step. Boots of one cell share a build, whose time is in each of their rows."
    return region("Time", caption, head, [tag("tbody", *rows)])


def _bar(parts: Sequence[tuple[str, float]]) -> Html:
    """Return a bar of rectangles, each with its class and its share of the bar's width."""
    rects, at = [], 0.0
    for name, share in parts:
        rects.append(tag("rect", x=f"{at * 100:.2f}%", y="0", width=f"{share * 100:.2f}%", height="100%", class_=name))
        at += share
    return tag("svg", *rects, class_="bar", aria_hidden="true")


def every(shown: Shown) -> Html:
    """Return all about each boot."""
    return join(_boot(shown, result) for result in shown.run.results)


def _boot(shown: Shown, result: Result) -> Html:
    name, count = result["cell"], result["tests"]
    parts = [tag("h3", mark(result["verdict"]), " ", breakable(name), f" is {result['verdict']}", id=shown.anchor(result))]
    if result.get("proves"):
        parts.append(tag("p", f"Shows: {result['proves']}."))
    parts.append(tag("p", f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped."))
    parts += [reasons(result)] if result["reasons"] else []
    parts += [files(shown, result), command(repeat(result, shown.options), f"command that repeats {name}")]
    if commands := result.get("commands"):
        steps = [tag("li", tag("p", f"{step}:"), command(text, f"{step} of {name}")) for step, text in commands.items()]
        parts.append(tag("details", tag("summary", "Each step, on the machine that ran it"), tag("ul", *steps)))
    if result["skips"]:
        skips = [tag("li", breakable(test), ": ", reason) for test, reason in result["skips"].items()]
        parts.append(tag("details", tag("summary", f"{len(skips)} skipped, as allowed"), folded(skips, "skips")))
    if result["suites"]:
        tests = [_suite(suite, entry["cases"], str(entry["status"])) for suite, entry in result["suites"].items()]
        parts.append(tag("details", tag("summary", "Every test"), *tests))
    return tag("article", *parts, class_=result["verdict"])


def _suite(suite: str, cases: Mapping[str, Mapping[str, str]], status: str) -> Html:
    """Return the tests of a suite, those that failed first."""
    parts = [tag("h4", breakable(suite), f": {status}")]
    for wanted in (grid.FAILED, grid.SKIPPED, grid.PASSED):
        if names := [breakable(name) for name, case in cases.items() if case["status"] == wanted]:
            glyph = tag("span", grid.STATES[wanted][0], aria_hidden="true")
            parts.append(tag("p", glyph, f" {wanted}: ", join(names, ", "), class_="tests"))
    return join(parts)

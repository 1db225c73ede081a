# SPDX-License-Identifier: GPL-2.0
"""What several sections of the page share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matrix.proof.page import grid
from matrix.proof.page.markup import Html, breakable, join, tag
from matrix.proof.page.measured import Coverage, Mutants
from matrix.verdict.report import Result
from matrix.verdict.runs import Run

FEW = 12  # entries of a list that are not folded


@dataclass(frozen=True)
class Against:
    """What a run is compared with."""

    said: str  # where it comes from, or why there is none, for people
    run: Run | None = None


@dataclass(frozen=True)
class Shown:
    """All that the page shows."""

    run: Run
    against: Against
    mutants: Mutants | None
    coverage: Coverage | None
    options: str = ""  # of ./matrix/run, for the project
    links: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)  # result -> name and address of its files

    def anchor(self, result: Result) -> str:
        """Return the id under which the page has all about a boot."""
        return f"boot-{self.run.results.index(result) + 1}"


def repeat(result: Result, options: str = "") -> str:
    """Return the command that repeats a boot, in a checkout of this project."""
    if result.get("repeat"):
        return result["repeat"] + (f" {options}" if options else "")
    name, kind = grid.place(result["cell"])
    words = ["--e2e"] if kind else []
    if name.endswith(grid.BASE) and kind:
        name, words = name.removesuffix(grid.BASE), [*words, "--base"]
    words += ["--ksrc", result["ksrc"]] if result.get("ksrc") else []
    words += ["--filter", result["filter"]] if result.get("filter") else []
    return " ".join(part for part in ("./matrix/run", options, shlex.join([*words, name])) if part)


def mark(verdict: str) -> Html:
    """Return the glyph of a verdict, which can be told without colour. The word follows it in the text."""
    green = verdict == "green"
    return tag("span", "✓" if green else "✗", class_=f"mark {'passed' if green else 'failed'}", aria_hidden="true")


def note(text: str) -> Html:
    """Return a paragraph that stands out."""
    return tag("p", text, class_="note")


def folded(parts: Sequence[Html], what: str) -> Html:
    """Return a list, whose later entries are folded."""
    if len(parts) < FEW + 2:
        return tag("ul", *parts)
    rest = tag("details", tag("summary", f"{len(parts) - FEW} more {what}"), tag("ul", *parts[FEW:]))
    return join([tag("ul", *parts[:FEW]), rest])


def command(text: str, label: str) -> Html:
    """Return a command to copy. Without the script, which shows the button, one can select it."""
    button = tag("button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy: {label}")
    return tag("div", tag("pre", tag("code", text)), button, class_="command")


def reasons(result: Result) -> Html:
    """Return why a boot is red."""
    texts = [(tag("strong", one["code"]), tag("span", one["text"], class_="quoted")) for one in result["reasons"]]
    return folded([tag("li", code, ": ", text) for code, text in texts], "reasons")


def files(shown: Shown, result: Result) -> Html:
    """Return links to the logs of a boot."""
    links = [tag("a", name, href=address) for name, address in shown.links.get(result["cell"], ())]
    return tag("p", "Files: ", join(links, ", ")) if links else tag("p", "No files.")


def region(name: str, caption: str, head: Sequence[str], bodies: Sequence[Html], kind: str = "") -> Html:
    """Return a table in a region of its own, which scrolls where the screen is narrow. head: the texts of the column headers."""
    columns = tag("tr", *(tag("th", text, scope="col") for text in head))
    # The inner part of the caption stays in sight when the table scrolls.
    table = tag("table", tag("caption", tag("span", caption)), tag("thead", columns), *bodies, class_=kind or False)
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex="0")


def row(head: str, *squares: Html, **attributes: str) -> Html:
    """Return a row of a table: its header, then its squares."""
    return tag("tr", tag("th", breakable(head), scope="row"), *squares, **attributes)


def number(text: str) -> Html:
    """Return a square with a number."""
    return tag("td", text, class_="number")

# SPDX-License-Identifier: GPL-2.0
"""The page as a whole: a pure function of what it shows, so that equal input gives an equal page.

page.css and page.js are beside this module. The page allows these two by their digests, and nothing else: it loads nothing, and
what a console says cannot become a script even if it became markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from matrix.proof.page import boots, evidence
from matrix.proof.page.markup import Html, join, tag
from matrix.proof.page.parts import Shown, mark, note
from matrix.verdict import report
from matrix.verdict.runs import Run


def page(shown: Shown) -> str:
    """Return the page."""
    run, here = shown.run, Path(__file__)
    style, script = here.with_suffix(".css").read_text("utf-8"), here.with_suffix(".js").read_text("utf-8")
    sections = [
        ("red", "What is red", boots.red(shown)), ("grid", "Suites and cells", boots.suites(shown)),
        ("changes", "Difference to the last run", evidence.changes(shown.against, run)),
        ("figures", "Huge mappings, faults and other figures", boots.figures(run)), ("time", "Time", boots.time(run)),
        ("mutants", "Mutants", evidence.mutants(shown.mutants, run)), ("coverage", "Coverage", evidence.coverage(shown.coverage, run)),
        ("boots", "Every boot", boots.every(shown)),
    ]  # fmt: skip
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"), tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"Matrix: {headline(run)}"), tag("style", Html(style)),
    )  # fmt: skip
    body = tag(
        "body", tag("a", "Skip to the results", class_="skip", href="#main"),
        tag("header", tag("h1", mark("red" if run.red else "green"), " ", headline(run)), join(_about(run))),
        tag("nav", tag("ul", *(tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections)), aria_label="Sections"),
        tag("main", *(tag("section", tag("h2", title, id=name), inside, aria_labelledby=name) for name, title, inside in sections),
            id="main", tabindex="-1"),
        tag("p", id="said", role="status"), tag("script", Html(script)),
    )  # fmt: skip
    return "<!DOCTYPE html>\n" + tag("html", head, "\n", body, lang="en") + "\n"


def headline(run: Run) -> str:
    """Return the result of a run in a few words."""
    red, count = len(run.red), len(run.results)
    if red:
        return f"{red} of {count} boots {'is' if red == 1 else 'are'} red"
    return f"all {count} boots are green" if count > 1 else "the boot is green"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _about(run: Run) -> Iterator[Html]:
    """Yield what was tested, and why the run is not the gate."""
    count: Counter[str] = Counter()
    for result in run.results:
        count.update(result["tests"])
    yield tag("p", f"{count['passed']} tests passed, {count['failed']} failed, {count['skipped']} skipped, in all boots together.")
    for kernel, names in run.kernels.items():
        yield tag("p", kernel, f": {', '.join(names)}" if len(run.kernels) > 1 else "", class_="kernel")
    if len(run.kernels) > 1:
        yield note("Different kernels or series: some cells have a part of the series only, or these results are of different runs.")
    for glob in dict.fromkeys(result["filter"] for result in run.results if result.get("filter")):
        yield note(f"Filtered: not the gate (--filter {glob}).")
    for option, text in report.special(run.results).items():
        yield note(f"{text.capitalize()}: not the gate ({option}).")

# SPDX-License-Identifier: GPL-2.0
"""make report: write <out>/report/index.html, and keep what the next report is compared with.

<out>/report/run.json   the run that the page shows, without the logs
<out>/report/last.json  the run before
"""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from matrix.common.errors import WrongUse
from matrix.proof.page import measured
from matrix.proof.page.page import page
from matrix.proof.page.parts import Against, Shown
from matrix.verdict import report, runs
from matrix.verdict.report import LOGS
from matrix.verdict.runs import Run

PAGE, SHOWN, LAST = "index.html", "run.json", "last.json"
FILES = (*LOGS, "junit.xml", "result.json")  # that the page links to


def write(out: Path, against: Path | None = None, options: str = "") -> tuple[Path, Run]:
    """Write the report of a build folder. Return its path, and the run that it shows.

    against: compare with this run instead of the last one of which this folder had a report. options: what ./matrix/run needs to
    find the project. Raise WrongUse when there is nothing to show, or nothing in against.
    """
    run = runs.load(out / "results")
    folder = out / "report"
    folder.mkdir(exist_ok=True)
    previous = Against(f"the run in {against}", runs.load(against)) if against else _last(folder, run)
    links = {name: _links(place, folder) for name, place in run.folders.items()}
    text = page(Shown(run, previous, measured.mutants(out), measured.coverage(out), options, links))
    shown = folder / SHOWN
    if shown.exists() and not _same(shown, run):
        shown.replace(folder / LAST)  # first: if this is interrupted, the next report still finds the run before
    report.write(folder / PAGE, text)
    report.write_json(shown, run.compact())
    return folder / PAGE, run


def _last(folder: Path, run: Run) -> Against:
    """Return the run that the last report has shown or, if that is this one, the run before."""
    for path in (folder / SHOWN, folder / LAST):
        if path.exists() and not (path.name == SHOWN and _same(path, run)):
            try:
                return Against("the last run of which this build folder had a report", runs.load(path))
            except WrongUse:
                return Against(f"nothing: {path.name} of the last report is unreadable")
    return Against("nothing: this is the first run of which this build folder has a report")


def _same(path: Path, run: Run) -> bool:
    """Whether a run.json is of this run."""
    try:
        return bool(runs.document(path) == run.compact())
    except ValueError:
        return False


def _links(place: Path, folder: Path) -> list[tuple[str, str]]:
    """Return name and relative address of the files in a result's folder."""
    names = [name for name in FILES if (place / name).is_file()]
    return [(name, urllib.parse.quote(os.path.relpath(os.fsencode(place / name), os.fsencode(folder)))) for name in names]

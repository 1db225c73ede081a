# SPDX-License-Identifier: GPL-2.0
"""Test matrix.proof.htmlreport and matrix.proof.page: what the page says, that nothing in it comes from outside, and what is kept
for the next report."""

import base64
import contextlib
import errno
import hashlib
import io
import json
import re
import tempfile
import unittest
import urllib.parse
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

from matrix.cell.cells import load
from matrix.common.errors import WrongUse
from matrix.common.session import guarded
from matrix.proof import htmlreport
from matrix.proof.page import grid
from matrix.proof.page.markup import breakable, escape, tag
from matrix.proof.page.parts import repeat
from matrix.tests import results
from matrix.verdict import report
from matrix.verdict.report import Result

VOID = {"meta", "wbr"}
ALLOWED = set("html head meta title style body a header h1 h2 h3 h4 nav ul li main section p span strong code pre div button table caption "
              "thead tbody tr th td small dl dt dd details summary article svg rect script wbr".split())  # fmt: skip


class Page(HTMLParser):
    """A page, read strictly: each element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []  # the texts of the squares of each row of each table
        self.texts: dict[str, list[str]] = {}  # element -> its texts
        self._open: list[tuple[str, int]] = []
        self._said = ""
        self.text = text
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # pylint: disable=redefined-outer-name
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self._open.append((tag, len(self._said)))

    def handle_endtag(self, tag: str) -> None:  # pylint: disable=redefined-outer-name
        name, start = self._open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"
        self.texts.setdefault(tag, []).append(self._said[start:])
        if tag in ("th", "td"):
            self.rows[-1].append(self._said[start:])

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1][0] not in ("style", "script"):
            self._said += data

    def all(self, name: str) -> list[dict[str, str]]:
        """The attributes of all elements of this name."""
        return [attributes for element, attributes in self.elements if element == name]

    def said(self) -> str:
        """The text of the page."""
        return self._said

    def row(self, head: str) -> list[str]:
        """The first row that begins with this header."""
        return next(row[1:] for row in self.rows if row and row[0] == head)


class Report(unittest.TestCase):
    """Each test has a build folder, in which a run can leave results."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.out = Path(folder.name)

    def page(self, found: list[Result] | None = None, against: Path | None = None, options: str = "") -> Page:
        """Write these results, and return their report."""
        if found is not None:
            results.write(self.out, found)
        path, _ = htmlreport.write(self.out, against, options)
        return Page(path.read_text("utf-8"))

    def broken(self) -> Page:
        """The report of a run with everything: all states, mutants, coverage."""
        for name, data in (("mutants", results.mutants()), ("coverage", results.coverage())):
            (self.out / name).mkdir(exist_ok=True)
            (self.out / name / f"{name}.json").write_text(json.dumps(data))
        return self.page(results.run(broken=True))

    def test_grid(self) -> None:
        """Every cell has a column, every suite a row, every state a glyph, a word and a count."""
        page = self.broken()
        cells = [cell.name for cell in results.gate()]
        self.assertEqual(page.row("Suite"), cells)
        self.assertEqual(page.row("Verdict: KUnit"), ["✓ green", "✗ red", "✓ green", "✗ red"])
        self.assertEqual(page.row("Verdict: selftests"), ["✓ green", "✓ green", "✓ green", "✗ red"])
        for result in results.run():
            for suite in result["suites"]:
                self.assertEqual(len(page.row(suite)), len(cells), suite)
        first = results.run()[0]["suites"]
        count = {suite: len(first[suite]["cases"]) for suite in first}
        passed = [f"✓ {count['kvm_gmem_create']} passed"] * 3
        self.assertEqual(page.row("kvm_gmem_create"), [*passed, "– not run"])
        self.assertEqual(page.row("kvm_gmem_poison")[1], f"✗ 1 failed{count['kvm_gmem_poison'] - 1} passed")
        self.assertRegex(page.row("kvm_gmem_stress")[1], r"^\? \d+ missing$")
        self.assertEqual(page.row("kvm_gmem_huge_folio")[2], f"» {count['kvm_gmem_huge_folio']} skipped")
        for state, (_, means) in grid.STATES.items():
            self.assertIn(f" {state}{means}", page.said())

    def test_states(self) -> None:
        """A suite that a boot does not have is told from one that the boot did not reach, or that was not booted."""
        cell = results.gate()[0]
        full, short = results.result(cell), results.result(results.gate()[1])
        del short["suites"]["kvm_gmem_fault"]
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[1], "· not here")
        short["verdict"] = "red"
        lost = ("kvm_gmem_stress.x did not run", "… and 7 more like these")
        short["reasons"] = [{"code": "missing", "text": text} for text in lost]
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[1], "– not run")
        short["reasons"].append({"code": "missing", "text": "kvm_gmem_fault did not run"})
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[1], "? 1 missing")
        short["suites"]["kvm_gmem_fault"] = {"status": "skipped", "cases": {}}
        short["reasons"] = short["reasons"][:1]
        short["skips"] = {"kvm_gmem_fault": "why"}
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[1], "» 1 skipped")
        short["skips"] = {}
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[1], "! 1 skipped without leave")
        cases = full["suites"]["kvm_gmem_fault"]["cases"]
        one, two, *rest = cases
        cases[one]["status"] = cases[two]["status"] = "skipped"
        full["skips"] = {f"kvm_gmem_fault.{one}": "why"}
        self.assertEqual(self.page([full, short]).row("kvm_gmem_fault")[0], f"! 1 skipped without leave{len(rest)} passed1 skipped")

    def test_boots_without_the_series(self) -> None:
        """They are columns of their own, and their commands repeat them."""
        base = results.result(results.gate()[0], "e2e")
        base["cell"] += "-base"
        page = self.page([results.result(results.gate()[0], "e2e"), base])
        self.assertEqual(page.row("Suite"), ["arm64-thp", "arm64-thp-base"])
        self.assertIn("./matrix/run --e2e --base arm64-thp", page.texts["code"])

    def test_different_series(self) -> None:
        """The page says which results are of which series."""
        one, two = (results.result(cell) for cell in results.gate()[:2])
        self.assertNotIn("Different kernels or series", self.page([one, two]).said())
        two["kernel"] = {**two["kernel"], "series": "other"}
        said = self.page([one, two]).said()
        self.assertIn("Different kernels or series", said)
        self.assertIn("series other: x86_64-thp", said)

    def test_red_first(self) -> None:
        """Why a boot is red is at the top, with its logs and the command that repeats it."""
        page = self.broken()
        top = page.said()[: page.said().index("A row is a suite")]
        self.assertIn("3 of 8 boots are red", page.texts["h1"][0])
        for text in ("splat: BUG: Bad page state", "too few arguments to function 'kvm_gmem_zap'",
                     "boot: the kernel was not booted", "./matrix/run --e2e x86_64-nothp"):  # fmt: skip
            self.assertIn(text, top)
        self.assertNotIn("arm64-thp-e2e is", top)

    def test_green(self) -> None:
        """A green run says so; what was not measured is not shown as nothing wrong."""
        page = self.page(results.run())
        self.assertIn("all 8 boots are green", page.texts["h1"][0])
        for text in ("Nothing: every check of every boot passed.", "Compared with nothing: this is the first run", "Not run. make mutants",
                     "Not measured. make coverage"):  # fmt: skip
            self.assertIn(text, page.said())

    def test_long_lists(self) -> None:
        """Reasons beyond the first are folded, and none is lost."""
        found = report.red("x", "test", "reason 0")
        found["reasons"] += [{"code": "test", "text": f"reason {number}"} for number in range(1, 40)]
        page = self.page([found])
        for number in range(40):
            self.assertIn(f"test: reason {number}\n".strip(), page.texts["li"])
        self.assertIn("28 more reasons", page.said())

    def test_figures(self) -> None:
        """A row for each figure; a boot that lacks it has a dash; a value that comes twice has both."""
        one, two = (results.result(cell, "e2e") for cell in results.gate()[:2])
        two["figures"] = ["guest_memfd_hugepage_test: huge mappings: 7", "guest_memfd_hugepage_test: huge mappings: 9", "no figure"]
        page = self.page([one, two])
        self.assertEqual(page.row("huge mappings"), ["1536", "7; 9"])
        self.assertEqual(page.row("stage-2 faults per GiB"), ["513 with hugepages, 262145 without", "–"])
        self.assertEqual(page.row("hugepages on a fragmented host")[0], "0 of 20, later: 20")
        self.assertEqual(page.row("no figure"), ["–", "yes"])

    def test_time(self) -> None:
        """Seconds of each step as numbers and as a bar; a step that did not run has a dash."""
        one, two = results.result(results.gate()[0], "e2e"), results.result(results.gate()[1])
        one["seconds"], two["seconds"] = {"build": 30, "selftests": 20, "boot": 50.4}, {"build": 10}
        page = self.page([one, two])
        self.assertEqual(page.row("Boot"), ["build", "selftests", "boot", "all", "bar"])
        self.assertEqual(page.row("arm64-thp-e2e"), ["30", "20", "50", "100", ""])
        self.assertEqual(page.row("x86_64-thp"), ["10", "–", "–", "10", ""])
        widths = [float(rect["width"].rstrip("%")) for rect in page.all("rect")]
        self.assertAlmostEqual(sum(widths[:3]), 100, 0)
        self.assertAlmostEqual(widths[3], 10, 0)

    def test_commands(self) -> None:
        """Each boot has the command that repeats it and those of its steps, each with a button that says which it copies."""
        page = self.broken()
        for result in results.run(broken=True):
            for command in (repeat(result), *result.get("commands", {}).values()):
                self.assertIn(command, page.texts["code"])
        labels = [button["aria-label"] for button in page.all("button") if button.get("class") == "copy"]
        self.assertEqual(len(labels), len(page.texts["pre"]))
        self.assertIn("Copy: boot of arm64-thp", labels)
        self.assertTrue(all("hidden" in button for button in page.all("button")))  # until the script makes them work

    def test_every_test(self) -> None:
        """All about a boot names each of its tests, those that failed first."""
        result = results.result(results.gate()[1], "kunit", lambda test, status: (
            ("failed", "") if test.endswith("/first") else ("skipped", "why") if test.endswith("/second") else (status, "")))  # fmt: skip
        said = self.page([result]).said()
        for suite, entry in result["suites"].items():
            for status, glyph in (("failed", "✗"), ("skipped", "»"), ("passed", "✓")):
                if names := [name for name, case in entry["cases"].items() if case["status"] == status]:
                    self.assertIn(f"{glyph} {status}: {', '.join(names)}", said, suite)

    def test_repeat(self) -> None:
        """With the seed, the filter and the project of the run."""
        result = results.result(results.gate()[0], "e2e")
        result["filter"] = "kvm*.a"
        self.assertEqual(repeat(result, "--project example"), "./matrix/run --project example --e2e --filter 'kvm*.a' arm64-thp")
        result["ksrc"] = "/a tree"
        self.assertEqual(repeat(result), "./matrix/run --e2e --ksrc '/a tree' --filter 'kvm*.a' arm64-thp")
        result["repeat"] = "./matrix/run --seed 7 arm64-thp"
        self.assertEqual(repeat(result), result["repeat"])
        page = self.page([result])
        self.assertIn("Seeded: not the gate", page.said())
        self.assertIn("Filtered: not the gate (--filter kvm*.a).", page.said())

    def test_links(self) -> None:
        """Each file of a result, relative to the page; what is not there has no link."""
        named = results.run()[0]
        named["cell"] = "a b#c"
        page = self.page([named])
        links = {link["href"] for link in page.all("a") if not link["href"].startswith("#")}
        self.assertIn("../results/a%20b%23c/.config", links)
        self.assertEqual(len(links), 4)
        for link in links:
            self.assertTrue((self.out / "report" / urllib.parse.unquote(link)).is_file(), link)

    def test_mutants_and_coverage(self) -> None:
        """Their counts and what is open; a note when they are of another series, or cannot be read."""
        page = self.broken()
        for text in ("3 mistakes in the series: 1 killed, 1 survived, 1 does not build.",
                     "2 lines with something not executed, 1 without a reason", "no reason given"):  # fmt: skip
            self.assertIn(text, page.said())
        self.assertEqual(page.row("huge-not-charged")[0], "a hugepage is not charged")
        self.assertEqual(page.row("all"), ["909", "99.5 %", "700", "98.7 %"])
        self.assertNotIn("another kernel or series", page.said())
        for name, change in (("mutants", results.mutants), ("coverage", results.coverage)):
            (self.out / name / f"{name}.json").write_text(json.dumps(change() | {"series": "other"}))
        self.assertEqual(self.page().said().count("another kernel or series than this run: Linux 7.3.4 (Debian 7.3.4-1), series other."), 2)
        for name, change in (("mutants", results.mutants), ("coverage", results.coverage)):
            for content in ("{", json.dumps(change() | {name if name == "mutants" else "files": {"x": {}}}), json.dumps({"kernel": 1})):
                (self.out / name / f"{name}.json").write_text(content)
                self.assertIn(f"{name}/{name}.json is unreadable: ", self.page().said(), content)

    def test_mutants_of_several_jobs(self) -> None:
        """A mutant that survives in the cell of one job has survived."""
        for name in ("arm64-thp", "x86_64-thp"):
            data = results.mutants()
            for entry in data["mutants"].values():
                entry["cells"] = {cell: outcome for cell, outcome in entry["cells"].items() if cell == name}
            folder = self.out / "mutants" / f"mutants-{name}"
            folder.mkdir(parents=True)
            (folder / "mutants.json").write_text(json.dumps(data))
        self.assertIn("3 mistakes in the series: 1 killed, 1 survived, 1 does not build.", self.page(results.run()).said())

    def test_structure(self) -> None:
        """A title, a language, landmarks, one h1, headings in order, unique ids, links that lead somewhere."""
        page = self.broken()
        self.assertEqual(page.all("html"), [{"lang": "en"}])
        self.assertIn({"name": "viewport", "content": "width=device-width, initial-scale=1"}, page.all("meta"))
        self.assertEqual(page.texts["title"], ["Matrix: 3 of 8 boots are red"])
        self.assertEqual([len(page.all(name)) for name in ("h1", "header", "nav", "main")], [1, 1, 1, 1])
        levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
        self.assertEqual([(one, two) for one, two in zip(levels, levels[1:]) if two > one + 1], [])
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        self.assertEqual(len(ids), len(set(ids)))
        targets = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
        self.assertLessEqual(targets, set(ids))
        self.assertEqual(page.all("a")[0], {"class": "skip", "href": "#main"})
        for section in page.all("section"):
            self.assertIn(section["aria-labelledby"], ids)

    def test_tables(self) -> None:
        """A caption for each, a scope for each header, a header in front of each row; it scrolls in a region that has a name."""
        page = self.broken()
        self.assertEqual(len(page.all("table")), len(page.texts["caption"]))
        self.assertTrue(all(header["scope"] in ("col", "row", "rowgroup") for header in page.all("th")))
        names = [name for name, _ in page.elements]
        self.assertEqual([names[at + 1] for at, name in enumerate(names) if name == "tr"], ["th"] * names.count("tr"))
        regions = [one for one in page.all("div") if one.get("class") == "scroll"]
        self.assertEqual(len(regions), names.count("table"))
        self.assertTrue(all(one["role"] == "region" and one["aria-label"] and one["tabindex"] == "0" for one in regions))
        for row in page.rows:
            self.assertTrue(all(row[:-1]), row)  # a bar is the only square without text

    def check_closed(self, page: Page) -> None:
        """Nothing is loaded or run but what the page itself has, by its digest."""
        self.assertLessEqual({name for name, _ in page.elements}, ALLOWED)
        for name, attributes in page.elements:
            self.assertLessEqual(set(attributes) & {"src", "style", "srcset", "action", "background"}, set(), name)
            self.assertEqual([key for key in attributes if key.startswith("on")], [], name)
            self.assertRegex(attributes.get("href", "#"), r"^(#|\.\./results/)")
        self.assertNotRegex(page.text, r"(?i)https?:|@import|url\(")
        (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
        for kind in ("style", "script"):
            inside = page.text.split(f"<{kind}>")[1].split(f"</{kind}>")[0]
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            self.assertIn(f"{kind}-src 'sha256-{digest}'", policy)
        self.assertIn("default-src 'none'", policy)

    def test_closed(self) -> None:
        """A run as it should be."""
        self.check_closed(self.broken())

    def test_hostile(self) -> None:
        """Whatever a console, a name or a file says is text: in each string of each file that the report reads."""
        def spoil(data: object) -> object:
            if isinstance(data, str):
                return data if data in ("green", "red", "passed", "failed", "skipped", "*", "missing") else data + results.HOSTILE
            if isinstance(data, list):
                return [spoil(one) for one in data]
            if isinstance(data, dict):
                words = ("code text status cases reason version origin series total passed failed skipped mistake killed_by kind killers "
                         "lines covered branches taken where what")  # fmt: skip
                known = {*Result.__annotations__, *results.mutants(), *results.coverage(), *words.split()}
                return {key if key in known else str(spoil(key)): spoil(value) for key, value in data.items()}
            return data

        good = self.broken()
        place = self.out / "results/<img src=x onerror=alert(1)>\" x'&amp;"
        place.mkdir()
        spoilt = results.run(broken=True)[2]
        spoilt["filter"], spoilt["repeat"] = "x", "y"
        (place / "result.json").write_text(json.dumps(spoil(spoilt)))
        summary = [spoil(result) for result in results.run(broken=True)]
        (self.out / "results/summary.json").write_text(json.dumps({"cells": summary}))
        for name, data in (("mutants", results.mutants()), ("coverage", results.coverage())):
            (self.out / name / f"{name}.json").write_text(json.dumps(spoil(data)))
        page = self.page()
        self.check_closed(page)
        self.assertEqual(len(page.all("script")), 1)
        shown = results.HOSTILE.replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\u202e", "\\u202e").replace("\ud800", "\\ud800")
        self.assertIn(shown, page.said())
        for text in (page.said(), *(value for _, attributes in page.elements for value in attributes.values())):
            self.assertNotRegex(text, "[\x00-\x09\x0b-\x1f\x7f\u202e]")
        self.assertGreater(len(page.elements), len(good.elements))

    def test_broken_result(self) -> None:
        """It is shown as red, and the others as they are."""
        results.write(self.out, results.run())
        (self.out / "results/arm64-thp/result.json").write_text("{")
        page = self.page()
        self.assertIn("1 of 8 boots is red", page.texts["h1"][0])
        self.assertIn("result.json is unreadable: not JSON", page.said())
        self.assertEqual(page.row("Verdict: KUnit"), ["✗ red", "✓ green", "✓ green", "✓ green"])

    def test_last_run(self) -> None:
        """A run is compared with the one before, however often its report is written."""
        self.page(results.run())
        for _ in range(3):
            page = self.broken()
            self.assertIn("Compared with the last run of which this build folder had a report: Linux 7.3.4", page.said())
            self.assertIn("Turned red: 3", page.texts["h3"])
        page = self.page(results.run())
        self.assertIn("Turned green: 3", page.texts["h3"])
        self.assertNotIn("Turned red: 3", page.texts["h3"])

    def test_interrupted(self) -> None:
        """Between two of the files that it writes, the report loses neither run."""
        self.page(results.run())
        results.write(self.out, results.run(broken=True))
        with mock.patch("matrix.verdict.report.write", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.page()
        self.assertIn("all 8 boots are green", Page((self.out / "report/index.html").read_text()).texts["h1"][0])
        self.assertIn("Turned red: 3", self.page().texts["h3"])
        self.assertIn("Turned red: 3", self.page().texts["h3"])

    def test_last_run_unreadable(self) -> None:
        """Then there is nothing to compare with, and the page says why."""
        self.page(results.run())
        (self.out / "report/run.json").write_text("{")
        self.assertIn("Compared with nothing: run.json of the last report is unreadable", self.page(results.run(broken=True)).said())

    def test_against(self) -> None:
        """Another run, as asked for; one that cannot be read is an error."""
        with tempfile.TemporaryDirectory() as other:
            results.write(Path(other), results.run(broken=True))
            page = self.page(results.run(), against=Path(other))
            self.assertIn(f"Compared with the run in {other}: Linux", page.said())
            self.assertIn("Turned green: 3", page.texts["h3"])
            self.assertIn("No difference.", self.page(results.run(broken=True), against=Path(other)).said())
        with self.assertRaisesRegex(WrongUse, "no such file or folder"):
            self.page(against=Path(other))

    def test_deterministic(self) -> None:
        """Equal results, wherever and whenever: an equal page."""
        one = self.broken().text
        self.assertEqual(one, self.broken().text)
        with tempfile.TemporaryDirectory() as other:
            self.out = Path(other)
            self.assertEqual(one, self.broken().text)

    def test_all_cells(self) -> None:
        """With all cells of the scheduled workflow, those without the suites or with a VMM included."""
        found = [results.result(cell, kind) for cell in load(results.ROOT) for kind in ("kunit", "e2e")]
        page = self.page([result for result in found if result["suites"]])
        self.assertEqual(page.row("Suite"), [cell.name for cell in load(results.ROOT)])
        self.assertEqual(page.row("kvm_gmem_create")[-1], page.row("kvm_gmem_create")[0])
        fixes = page.row("Suite").index("arm64-fixes")
        self.assertEqual(page.row("kvm_gmem_create")[fixes], "– not run")
        self.assertEqual(page.row("gmem_vmm")[0], "· not here")

    def fails(self, status: int, said: str, body: Callable[[], object]) -> None:
        """The body ends as a program does: one line on stderr, this status, and the old page stays."""
        before = (self.out / "report/index.html").read_bytes()
        err = io.StringIO()

        def run() -> int:
            body()
            return 0

        with contextlib.redirect_stderr(err), mock.patch("signal.signal"):
            self.assertEqual(guarded("report", run), status)
        self.assertRegex(err.getvalue(), rf"^report: .*{said}.*\n\Z")
        self.assertEqual((self.out / "report/index.html").read_bytes(), before)

    def test_errors(self) -> None:
        """No results, a full disk, an interrupt."""
        self.page(results.run())
        results.write(self.out, results.run(broken=True))
        full = OSError(errno.ENOSPC, "No space left on device")
        for error, status, said in ((full, 3, "disk full"), (KeyboardInterrupt(), 130, "interrupted")):
            with mock.patch("pathlib.Path.write_text", side_effect=error):
                self.fails(status, said, self.page)
        (self.out / "results").rename(self.out / "elsewhere")
        self.fails(2, "results: no such file or folder; run make matrix first", self.page)


class Markup(unittest.TestCase):
    """matrix.proof.page.markup."""

    def test_escape(self) -> None:
        """Text becomes markup once; what cannot be seen is made visible; what is too long is cut."""
        self.assertEqual(escape("<a b='\"&\x07\u202e\xa0\n>"), "&lt;a b=&#x27;&quot;&amp;\\x07\\u202e\\xa0\n&gt;")
        self.assertEqual(escape(escape("<")), "&lt;")
        self.assertEqual(len(escape("x" * 20_000)), 10_000 + len("… (10000 more characters)"))

    def test_tag(self) -> None:
        """Attributes and content are escaped, markup is not; some elements have no end."""
        cases: Mapping[str, str] = {
            tag("p", "<", tag("b", "x"), class_='"'): '<p class="&quot;">&lt;<b>x</b></p>',
            tag("meta", http_equiv="x", hidden=True, open=False): '<meta http-equiv="x" hidden>',
            breakable("a-b/<"): "a-<wbr>b/<wbr>&lt;",
        }
        for got, wanted in cases.items():
            self.assertEqual(got, wanted)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""Test how mutants are judged, reported and generated, and that the project's own are valid."""

import dataclasses
import io
import json
import os
import re
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.cell import build, cells, vmm
from matrix.proof import mutantreport, mutantrun, mutants, mutate
from matrix.tree import tree
from matrix.verdict import report
from matrix.cell.run import E2E, KUNIT, Job, Site, Steps, expected_tests
from matrix.common.errors import WrongUse
from matrix.common import project
from matrix.common.project import Project
from matrix.proof.mutants import BROKEN, KILLED, OTHER, SURVIVED, Mutant, Outcome
from matrix.tests.consoles import CLEAN
from matrix.tests.fake_kernel import write
from matrix.tree.tree import PreparedTree
from matrix.verdict.console import Console
from matrix.verdict.evidence import Evidence
from matrix.verdict.expected import Expected
from matrix.verdict.judge import matches

ROOT = Path(__file__).resolve().parents[2]
MUTANT = Mutant("m", Path("m.patch"), "a mistake.", ("alpha.two",), ())
RED = [{"code": "test", "text": "alpha.two failed"}]


class Header(unittest.TestCase):
    """The header of a mutant."""

    def parse(self, text: str) -> Mutant:
        """Return a mutant with this header."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "some-name.patch"
            path.write_text(text + "\n\n--- a/x\n+++ b/x\n")
            return mutants.parse(path)

    def test_all_of_it(self) -> None:
        """A header line may be continued."""
        self.assertFalse(self.parse("Mistake: one\nKilled-by: a.b").gate)
        got = self.parse("Mistake: one\n two.\nKilled-by: a.b\n c.d\nCells: x y\nGate: yes")
        self.assertTrue(got.gate)
        self.assertEqual((got.name, got.mistake, got.killed_by, got.cells), ("some-name", "one two.", ("a.b", "c.d"), ("x", "y")))

    def test_glob(self) -> None:
        """One glob selects all cases of a mutant, and few others."""
        for cases, wanted in {
            "alpha.two": "alpha.two",
            "alpha.two alpha.ten": "alpha.t[ew]*",
            "alpha.on alpha.one": "alpha.on*",
            "a_one.flag_off a_two.flag_off": "a_[ot]*.flag_off",
            "alpha.one beta.two alpha.two": "[ab]*.[ot]*",
            "*": "",
        }.items():
            mutant = Mutant("m", Path(), "", tuple(cases.split()), ())
            with self.subTest(cases):
                self.assertEqual(mutant.glob, wanted)
                self.assertTrue(all(matches(mutant.glob, case) for case in mutant.killed_by))

    def test_wrong(self) -> None:
        """Each mistake in a header is reported."""
        for text, error in {
            "Mistake: one": "needs Mistake: and Killed-by:",
            "Killed-by: a.b": "needs Mistake: and Killed-by:",
            "Mistake: one\nKilled-by: ab": "ab is not suite.case",
            "Mistake: one\nKiled-by: a.b": "not a header line: 'Kiled-by: a.b'",
            " Mistake: one": "not a header line",
            "Mistake: one\nKilled-by: a.b\nGate: no": "Gate: no: must be yes",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(WrongUse, error):
                self.parse(text)

    def test_not_utf8(self) -> None:
        """Nor are patches and lists in another encoding a traceback."""
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "m.patch"  # pylint: disable=consider-using-with
        path.write_bytes(b"Mistake: \xff\nKilled-by: a.b\n\n")
        with self.assertRaisesRegex(WrongUse, "m.patch: 'utf-8' codec can't decode"):
            mutants.parse(path)
        with self.assertRaisesRegex(WrongUse, "m.patch: 'utf-8' codec can't decode"):
            mutate.reasons(path)

    def test_select(self) -> None:
        """Mutants are selected by glob; no match is an error."""
        known = [Mutant(name, Path(), "", (), ()) for name in ("huge-a", "huge-b", "zero")]
        self.assertEqual(mutants.select(known, []), known)
        self.assertEqual(mutants.select(known, ["huge-*", "zero"]), known)
        self.assertEqual(mutants.select(known, ["*-b"]), known[1:2])
        with self.assertRaisesRegex(WrongUse, "no mutant matches nix"):
            mutants.select(known, ["nix"])


class Judge(unittest.TestCase):
    """Judging a mutant in a cell."""

    def judge(self, reasons: list[dict[str, str]], console: str | None, mutant: Mutant = MUTANT) -> Outcome:
        """Return the outcome of a run that was red for these reasons, or green."""
        result = report.red("one", "", "")
        result["verdict"], result["reasons"] = ("red" if reasons else "green"), reasons
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "console.log"
            if console is not None:
                path.write_text(console)
            return mutants.judge(mutant, result, path)

    def test_killed(self) -> None:
        """The case in the header kills; other failed cases are reported too."""
        console = CLEAN.replace("    ok 2 two", "    not ok 2 two").replace("        ok 2 second row", "        not ok 2 second row")
        got = self.judge(RED, console)
        self.assertEqual((got.kind, got.killers), (KILLED, ("alpha.table", "alpha.two")))

    def test_killed_by_splat(self) -> None:
        """A splat in a case kills, even if the case passes."""
        console = CLEAN.replace("        ok 1 first row", "WARNING: mm/x.c:1 at y\n        ok 1 first row")
        got = self.judge([{"code": "splat", "text": ""}], console, Mutant("m", Path(), "", ("alpha.table",), ()))
        self.assertEqual((got.kind, got.killers), (KILLED, ("alpha.table",)))

    def test_killed_by_hang(self) -> None:
        """A case in which the console ends kills."""
        console = CLEAN[: CLEAN.index("        ok 2 second row")]
        got = self.judge([{"code": "hang", "text": ""}], console, Mutant("m", Path(), "", ("alpha.table",), ()))
        self.assertEqual((got.kind, got.killers), (KILLED, ("alpha.table",)))

    def test_killed_between(self) -> None:
        """A case without parameters does not print that it begins: it is the one after the last that ended."""
        order = ("alpha.one", "alpha.two", "alpha.three", "beta.four")
        for text, wanted in {
            "in alpha, after one (line 3): x": ("alpha.two",),
            "WARNING in alpha (line 3): x": ("alpha.one",),
            "WARNING in alpha, after three": (),
            "WARNING in alpha.table, after row (line 3)": ("alpha.table",),
            "WARNING before the tests (line 3): y": (),
        }.items():
            console = Console(io.BytesIO(CLEAN.encode()))
            console.splats.append(f" {text}")
            with self.subTest(text):
                self.assertEqual(mutants.killing(console, order), wanted)

    def test_stopped(self) -> None:
        """A boot is ended once all cases of the header have failed; the case that was running does not count as failed."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "console.log"
            seen = mutantrun.Seen(Mutant("m", Path(), "", ("alpha.one", "alpha.table"), ()), ())
            self.assertFalse(seen.enough(path))
            path.write_text(CLEAN[: CLEAN.index("        ok 2 second row")].replace("ok 1 one", "not ok 1 one"))
            self.assertFalse(seen.enough(path))
            with open(path, "a", encoding="ascii") as file:
                file.write("        not ok 2 second row\n    not ok 3 table\n")
            self.assertTrue(seen.enough(path))
            path.write_text(CLEAN[: CLEAN.index("        ok 2 second row")].replace("ok 1 one", "not ok 1 one"))
            anything = mutantrun.Seen(Mutant("m", Path(), "", mutants.ANYTHING, ()), ())
            self.assertTrue(anything.enough(path))
            result = report.red("one", "end", "x")
            self.assertEqual(mutants.judge(anything.mutant, result, path, (), anything.stopped).killers, ("alpha.one",))

    def test_hang(self) -> None:
        """A boot is also ended when its console stays silent; the case that was running is then the killer."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "console.log"
            seen = mutantrun.Seen(Mutant("m", Path(), "", mutants.ANYTHING, ()), (), patience=2)
            self.assertEqual([seen.enough(path) for _ in range(2)], [False] * 2)
            path.write_text(CLEAN[: CLEAN.index("        ok 1 first row")])
            self.assertEqual([seen.enough(path) for _ in range(3)], [False] * 3)
            path.write_text(CLEAN[: CLEAN.index("        ok 2 second row")])
            self.assertEqual([seen.enough(path) for _ in range(4)], [False] * 3 + [True])
            result = report.red("one", "end", "x")
            outcome = mutants.judge(seen.mutant, result, path, (), seen.stopped)
            self.assertEqual((outcome.kind, outcome.killers), (KILLED, ("alpha.table",)))

    def test_red_elsewhere(self) -> None:
        """If another case failed, or none, the mutant was not killed as its header says."""
        got = self.judge(RED, CLEAN.replace("ok 1 one", "not ok 1 one"))
        self.assertEqual((got.kind, got.killers, got.missed), (OTHER, ("alpha.one",), ("alpha.two",)))
        self.assertEqual(self.judge([{"code": "warning", "text": "x.c"}], CLEAN).kind, OTHER)
        self.assertEqual(self.judge([{"code": "boot", "text": ""}], None).kind, OTHER)

    def test_killed_by_anything(self) -> None:
        """A generated mutant is killed by whatever makes the cell red, except a failed build."""
        mutant = Mutant("m", Path(), "", mutants.ANYTHING, ())
        self.assertEqual(self.judge([{"code": "hang", "text": "boot"}], None, mutant).kind, KILLED)
        self.assertEqual(self.judge([{"code": "build", "text": "error"}], None, mutant).kind, BROKEN)
        self.assertEqual(self.judge([{"code": "warning", "text": "unused variable"}], CLEAN, mutant).kind, SURVIVED)
        self.assertEqual(self.judge([], CLEAN, mutant).kind, SURVIVED)
        for code in ("check", "kernel", "expected", "kunit"):
            got = self.judge([{"code": code, "text": "not the kernel"}], CLEAN, mutant)
            self.assertEqual((got.kind, got.why), (OTHER, "not the kernel"))

    def test_detector_gives_up(self) -> None:
        """A splat that makes lockdep give up is a kill, although the kernel then lacks what its configuration asks for."""
        gave_up = [{"code": "splat", "text": "KASAN"}, {"code": "config", "text": "lockdep gave up"}]
        console = CLEAN.replace("        ok 1 first row", "WARNING: mm/x.c:1 at y\n        ok 1 first row")
        for killed_by in (("alpha.table",), mutants.ANYTHING):
            self.assertEqual(self.judge(gave_up, console, Mutant("m", Path(), "", killed_by, ())).kind, KILLED)

    def test_survived(self) -> None:
        """A mutant survives if the cell is green."""
        self.assertEqual(self.judge([], CLEAN).kind, SURVIVED)

    def test_does_not_build(self) -> None:
        """A failed build is not a kill."""
        got = self.judge([{"code": "build", "text": "x.c:1: error: y"}], None)
        self.assertEqual((got.kind, got.why), (BROKEN, "x.c:1: error: y"))

    def test_image(self) -> None:
        """A copy of the kernel is booted, without old files, because the next mutant is built meanwhile."""
        with tempfile.TemporaryDirectory() as folder:
            built, copy = Path(folder) / "built", Path(folder) / "mutants/boot"
            for name in (".config", build.IMAGES[0], "vmlinux"):
                (built / name).parent.mkdir(parents=True, exist_ok=True)
                (built / name).write_text(name)
            (copy / build.IMAGES[1]).parent.mkdir(parents=True)
            (copy / build.IMAGES[1]).write_text("old")
            self.assertEqual(mutantrun.copy_image(built, copy), copy)
            found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
            self.assertEqual(found, {".config", build.IMAGES[0]})

    def test_ccache(self) -> None:
        """ccache comes first in PATH if it is installed, and uses the caller's own cache if there is one."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"PATH": "/bin"}):
            os.environ.pop("CCACHE_DIR", None)
            with mock.patch.object(build, "CCACHE", Path(folder) / "none"):
                self.assertEqual(build.with_ccache(Path("/cache")), build.environment())
                self.assertNotIn("CCACHE_DIR", build.environment())
            with mock.patch.object(build, "CCACHE", Path(folder)):
                env = build.with_ccache(Path("/cache"))
                self.assertEqual((env["PATH"], env["CCACHE_DIR"]), (f"{folder}:/bin", "/cache"))
                os.environ["CCACHE_DIR"] = "/own"
                self.assertEqual(build.with_ccache(Path("/cache"))["CCACHE_DIR"], "/own")

    def test_images(self) -> None:
        """build.IMAGES contains the images that the configs boot."""
        for path in (ROOT / "configs").glob("*.py"):
            wanted = re.search("kernel_path='(.*)'", path.read_text("utf-8"))
            self.assertIn(wanted and wanted[1], build.IMAGES, path.name)

    def test_none(self) -> None:
        """A project without mutants, and a name that none has."""
        with self.assertRaisesRegex(WrongUse, "this project has no mutants"):
            mutants.select([], [])
        with self.assertRaisesRegex(WrongUse, "no mutant matches nothing-so; see matrix/mutants/"):
            mutants.select(mutants.load(ROOT), ["nothing-so"])

    def test_concerns(self) -> None:
        """A mutant does not concern cells that do not compile its file."""
        known = {cell.name: cell for cell in cells.load(ROOT)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.patch"
            for file, wanted in {"arch/x86/kvm/x.c": "x86_64-thp", "arch/arm64/kvm/x.c": "arm64-thp",
                                 "mm/x.c": "x86_64-thp arm64-thp"}.items():
                path.write_text(f"--- a/{file}\n+++ b/{file}\n")
                mutant = Mutant("m", path, "", mutants.ANYTHING, ())
                self.assertEqual([name for name in ("x86_64-thp", "arm64-thp") if mutant.concerns(known[name])], wanted.split())
            for arch, folder, concerned in (("i386", "x86", True), ("riscv", "riscv", True), ("riscv", "x86", False)):
                path.write_text(f"--- a/arch/{folder}/x.c\n+++ b/arch/{folder}/x.c\n")
                cell = dataclasses.replace(known["x86_64-thp"], arch=arch)
                self.assertEqual(Mutant("m", path, "", mutants.ANYTHING, ()).concerns(cell), concerned)
            self.assertFalse(dataclasses.replace(mutant, cells=("arm64-thp",)).concerns(known["x86_64-thp"]))
            self.assertFalse(any(mutant.concerns(cell) for cell in known.values() if cell.build_only or cell.modules or cell.vmm))

    def test_rungs(self) -> None:
        """A mutant with rungs also concerns cells with a VMM, where these must kill it."""
        known = {cell.name: cell for cell in cells.load(ROOT)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.patch"
            path.write_text("Mistake: m.\nKilled-by: a.b\nRungs: one two\n\n--- a/mm/x.c\n+++ b/mm/x.c\n")
            mutant = mutants.parse(path, "selftests", "vmm")
            self.assertTrue(mutant.concerns(known["x86_64-vmm"]))
            there = mutant.at(known["x86_64-vmm"])
            self.assertEqual((there.killed_by, there.end_to_end), (("vmm.one", "vmm.two"), True))
            self.assertEqual(mutant.at(known["x86_64-thp"]), mutant)

    def test_known_rungs(self) -> None:
        """The rungs of mutants exist in the cells that run them."""
        for cell in cells.load(ROOT):
            there = {f"{project.load(ROOT).need_vmm().suite}.{rung.name}" for rung in vmm.load(ROOT, cell)} if cell.vmm else None
            for mutant in mutants.load(ROOT):
                if there is not None and cell.mutants and mutant.concerns(cell):
                    self.assertLessEqual(set(mutant.rungs), there, mutant.name)


class Seeds(unittest.TestCase):
    """Mutants with several seeds."""

    def test_enough(self) -> None:
        """9 of 10 seeds must kill, and the outcome says which do not."""
        kill, live = Outcome(KILLED, ("a.b",), (), "by a.b", 1.5), Outcome(SURVIVED, (), ("a.b",))
        for lost, kind in ((), KILLED), ((3,), KILLED), ((3, 7), SURVIVED):
            got = mutants.of_seeds({seed: live if seed in lost else kill for seed in range(1, 11)})
            self.assertEqual((got.kind, got.kills, got.seeds), (kind, 10 - len(lost), 10), lost)
        self.assertEqual((got.why, got.seconds), ("with 8 of 10 seeds, not with 3, 7", 12.0))
        self.assertEqual(mutants.of_seeds({1: live, 2: kill}).kind, SURVIVED)
        self.assertEqual(mutants.of_seeds({1: kill}).why, "with 1 of 1 seeds; by a.b")
        self.assertEqual(mutants.of_seeds({1: Outcome(BROKEN, why="x.c:1")}).kind, BROKEN)

    def boots(self, kinds: Sequence[str], folder: Path) -> tuple[mutantrun.Run, list[cells.Cell]]:
        """Return a run with so many seeds, and the cells that it booted for these outcomes."""
        cell = next(cell for cell in cells.load(ROOT) if cell.name == "x86_64-thp")
        said: list[str] = []
        runner = mutantrun.Run(ROOT, folder, PreparedTree(folder, "7.3.4", "", frozenset(), ""), 1, said.append, {}, len(kinds))
        site = Site(ROOT, folder / "mutants/m", runner.prepared, said.append, lambda: 1)
        seen = mutantrun.Seen(MUTANT, (), 9, size=7, quiet=8, stopped=True)
        write(site.results(Job(cell)) / "build.log", "cc")
        booted: list[cells.Cell] = []

        def boot(built: mutantrun.Built) -> Outcome:
            booted.append(built.job.cell)
            self.assertEqual((built.site.results(built.job) / "build.log").read_text(), "cc")
            self.assertEqual((built.seen.size, built.seen.quiet, built.seen.stopped), (0, 0, False))
            return Outcome(kinds[len(booted) - 1])

        evidence = Evidence({}, None, Expected(), frozenset())
        with mock.patch.object(mutantrun, "boot", boot):
            runner._boot_all(mutantrun.Built(site, Job(cell), evidence, Steps(), seen))  # pylint: disable=protected-access
        return runner, booted

    def test_boots(self) -> None:
        """Each seed boots the same kernel, with the build's log; a kernel that does not build is not tried again."""
        with tempfile.TemporaryDirectory() as folder:
            runner, booted = self.boots([KILLED, KILLED, SURVIVED], Path(folder))
            self.assertEqual([cell.seed for cell in booted], [1, 2, 3])
            self.assertEqual(booted[2].kernel_args, ("kvm_gmem_kunit.seed=3",))
            outcome = runner.outcomes["m"]["x86_64-thp, 3 seeds"]
            self.assertEqual((outcome.kind, outcome.kills, outcome.seeds), (SURVIVED, 2, 3))
            self.assertTrue((Path(folder) / "mutants/m/seed-3/results/x86_64-thp").is_dir())
            self.assertEqual(len(self.boots([BROKEN, KILLED], Path(folder))[1]), 1)


class Report(unittest.TestCase):
    """mutants.json and mutants.md."""

    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "mutants.json"  # pylint: disable=consider-using-with
        self.tree = PreparedTree(Path(), "7.3.4", "here", frozenset(), "digest")
        self.mutant = dataclasses.replace(MUTANT, path=write(self.path.with_name("m.patch"), "as it is"))

    def add(self, outcomes: Mapping[str, Mapping[str, Outcome]], *more: Mutant) -> dict[str, Any]:
        """Return the content of the file after this run."""
        return mutantreport.add(self.path, self.tree, [self.mutant, *more], outcomes)

    def test_passed(self) -> None:
        """A mutant passes if it was killed in every cell that ran it; one with Killed-by "*", in any."""
        generated = dataclasses.replace(MUTANT, killed_by=mutants.ANYTHING)
        for kinds, ours, theirs in (((KILLED, KILLED), True, True), ((KILLED, SURVIVED), False, True), ((BROKEN,), False, False),
                                    ((), False, False)):
            self.assertEqual(mutantreport.killed(MUTANT.killed_by, set(kinds)), ours, kinds)
            self.assertEqual(mutantreport.killed(generated.killed_by, set(kinds)), theirs, kinds)

    def test_unreadable(self) -> None:
        """A file that is truncated, or of a former version, does not cost the outcomes of this run."""
        good = self.add({"m": {"a": Outcome(KILLED)}})
        lacks = json.loads(json.dumps(good))
        del lacks["mutants"]["m"]["cells"]["a"]["kind"]
        for text in ("", "[]", json.dumps(good)[:-9], json.dumps(good | {"mutants": []}), json.dumps(lacks)):
            self.path.write_text(text)
            self.assertEqual(self.add({"m": {"b": Outcome(KILLED)}})["mutants"]["m"]["cells"].keys(), {"b"}, text)

    def test_grows(self) -> None:
        """A run adds to the earlier ones, unless series or suites have changed; a failure in one cell is not hidden by another."""
        self.add({"m": {"a": Outcome(SURVIVED)}})
        entry = self.add({"m": {"b": Outcome(KILLED)}})["mutants"]["m"]
        self.assertEqual((set(entry["cells"]), entry["passed"]), ({"a", "b"}, False))
        self.assertTrue(self.add({"m": {"a": Outcome(KILLED)}})["mutants"]["m"]["passed"])
        self.mutant.path.write_text("changed")
        self.assertEqual(set(self.add({"m": {"b": Outcome(KILLED)}})["mutants"]["m"]["cells"]), {"b"})
        self.tree = dataclasses.replace(self.tree, series="another")
        self.assertEqual(set(self.add({"m": {"c": Outcome(KILLED)}})["mutants"]["m"]["cells"]), {"c"})

    def test_markdown(self) -> None:
        """The report has a row per mutant with its outcome in each cell, survivors first, and the equivalent mutants."""
        generated = [Mutant(name, self.mutant.path, f"{name}: a || b", mutants.ANYTHING, ()) for name in ("x-1", "x-2", "x-3")]
        data = self.add({"m": {"b": Outcome(KILLED, ("alpha.two", "x.y")), "a": Outcome(KILLED)}, "x-1": {"a": Outcome(KILLED, ("q.r",))},
                         "x-2": {"a": Outcome(BROKEN)}, "x-3": {"a": Outcome(SURVIVED)}}, *generated)  # fmt: skip
        text = mutantreport.markdown(data, {"f.c: x => y": "because"})
        self.assertIn("4 mutants of Linux 7.3.4 (here): 1 does not build, 1 survived, 2 killed; 1 more are equivalent", text)
        self.assertIn("| m | `a mistake.` | b: killed alpha.two, x.y<br>a: killed |\n", text)
        self.assertLess(text.index("| x-3 | `x-3: a \\|\\| b` | a: survived |"), text.index("| x-1 |"))
        self.assertIn("| `f.c: x => y` | because |", text)
        data = self.add({"m": {"a, 10 seeds": Outcome(KILLED, ("alpha.two",), seeds=10, kills=9)}})
        self.assertIn("<br>a, 10 seeds: killed (9/10) alpha.two |\n", mutantreport.markdown(data, {}))


class Mutate(unittest.TestCase):
    """Generated mutants."""

    def mutate(self, line: str, before: str = "\tx = y;") -> dict[str, str]:
        """Return new line -> what for the changes of a line."""
        return {new: what for what, new in mutate.mutate([before, line], 1, {"PMD_ORDER": "(PMD_ORDER - 1)"})}

    def test_lines(self) -> None:
        """Conditions, comparisons, constants and statements are changed; declarations and comments are not."""
        self.assertEqual(self.mutate("\tif (a < b)"), {
            "\tif (a <= b)": "relation", "\tif (a >= b)": "relation", "\tif (!(a < b))": "negation"})
        self.assertEqual(self.mutate("\tfolio_put(folio);"), {"\t;": "statement"})
        self.assertEqual(self.mutate("\t\treturn NULL;", "\tif (x)"), {"\t\t{ }": "statement"})
        self.assertEqual(self.mutate("\treturn true;"), {"\treturn false;": "constant"})
        self.assertEqual(self.mutate("\tx = a + 1;"), {
            "\tx = a - 1;": "arithmetic", "\tx = a + 0;": "constant", "\tx = a + 2;": "constant", "\t;": "statement"})
        self.assertEqual(self.mutate("\treturn PMD_ORDER;"), {"\treturn (PMD_ORDER - 1);": "constant"})
        for line in ("\t/* a < b */", "\tu64 y = z;", "\tgfn_t gfn;", "\tstruct folio *folio;", "EXPORT_SYMBOL_IF_KUNIT(x);", "#define X 1",
                     "\tsecond, line);", '\tpr_info("a < b");'.replace("pr_info", "return pr_info")):
            self.assertEqual(self.mutate(line, "\tcall(first,"), {}, line)
        for line in ("\tlockdep_assert_held(&lock);", "\tVM_WARN_ON_ONCE_FOLIO(x, folio);"):  # no test can miss an assertion that holds
            self.assertEqual(self.mutate(line), {}, line)

    def test_key(self) -> None:
        """The condition of a return, goto, break or continue belongs to its key, to tell it from others of the same text."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tree, "pristine_text", return_value=""):
            (Path(folder) / "f.c").write_text("\tif (a)\n\t\treturn 0;\n\tf(0);\n\treturn 0;\n")
            found = mutate.changes(PreparedTree(Path(folder), "7.3.4", "", frozenset({"f.c"}), ""), Project("t", {}, None, {}))
        self.assertEqual([change.key() for change in found if change.what != "negation"], [
            "f.c: if (a) return 0; => return 1;", "f.c: if (a) return 0; => { }", "f.c: f(0); => f(1);", "f.c: f(0); => ;",
            "f.c: return 0; => return 1;"])

    def test_write(self) -> None:
        """Changes that are known to be equivalent are left out; an entry that no change is like is an error."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tree, "pristine_text", return_value=""):
            (Path(folder) / "f.c").write_text("\tf(a);\n\treturn true;\n")
            prepared, tested = PreparedTree(Path(folder), "7.3.4", "", frozenset({"f.c"}), ""), Project("t", {}, None, {})
            paths = mutate.write(prepared, tested, Path(folder) / "out", {"f.c: f(a); => ;": "because"})
            self.assertEqual([mutants.parse(path).mistake for path in paths], ["constant: return true; => return false;"])
            with self.assertRaisesRegex(WrongUse, "equivalent.txt: .*nothing in the series is like it: f.c: f\\(b\\); => ;"):
                mutate.write(prepared, tested, Path(folder) / "out", {"f.c: f(b); => ;": "because"})

    def test_lists(self) -> None:
        """An entry of either list that the series no longer has is an error, as is a line that the kernel had before."""
        with tempfile.TemporaryDirectory() as name, mock.patch.object(tree, "pristine_text", return_value="\told();\n"):
            folder = Path(name)
            write(folder / "f.c", "\told();\n\tf(a);\n")
            prepared, tested = PreparedTree(folder, "7.3.4", "", frozenset({"f.c"}), ""), Project("t", {}, None, {})
            for file, good, bad in ((mutate.EQUIVALENT, "f.c: f(a); => ;", "f.c: old(); => ;"),
                                    (mutate.UNCOVERED, "f.c: f(a);", "f.c: old();")):  # fmt: skip
                write(folder / file, f"{good}\n\tbecause\n")
                mutate.check_lists(folder, prepared, tested)
                write(folder / file, f"{good}\n\tbecause\n{bad}\n\tbecause\n")
                with self.assertRaisesRegex(WrongUse, f"{file}: .*nothing in the series is like it: {re.escape(bad)}"):
                    mutate.check_lists(folder, prepared, tested)
                write(folder / file, "")

    def test_files(self) -> None:
        """Only lines that the series adds to the kernel are changed, not the suites or tools/."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tree, "pristine_text", return_value=""):
            names = ("lib/f.c", "lib/tests/x/f.c", "tools/f.c")
            for name in names:
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).write_text("\treturn 0;\n")
            tested = Project("lib/tests/x", {}, None, {})
            found = mutate.changes(PreparedTree(Path(folder), "7.3.4", "", frozenset(names), ""), tested)
        self.assertEqual([change.name.partition("-")[0] + change.file for change in found], ["flib/f.c"])

    def test_moved(self) -> None:
        """Lines that a new file takes over from another file are not added, unless they are few."""
        old = [f"\tx = {number};" for number in range(9)]
        new = ["\ta();", *old[2:5], "\tb();", *old[6:8], "\tc();"]
        base = {"mm/old.c": "\n".join(old), "mm/new.c": ""}
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tree, "pristine_text", side_effect=lambda _, name: base[name]):
            (Path(folder) / "mm").mkdir()
            (Path(folder) / "mm/old.c").write_text("\n".join(old[:1]))
            (Path(folder) / "mm/new.c").write_text("\n".join(new))
            found = {name: [lines[at] for at in numbers] for name, lines, numbers in
                     mutate.added(PreparedTree(Path(folder), "7.3.4", "", frozenset(base), ""), "t")}
        self.assertEqual(found, {"mm/old.c": [], "mm/new.c": ["\ta();", "\tb();", *old[6:8], "\tc();"]})

    def test_patch(self) -> None:
        """A generated patch is a valid mutant whose name contains place and kind of the change."""
        change = mutate.Change("virt/kvm/x.c", 2, "relation", "\tif (a < b)", "\tif (a <= b)")
        text = mutate.patch(change, ["int x;", "\tif (a < b)", "\t\treturn;"])
        self.assertIn("\n\n--- a/virt/kvm/x.c\n+++ b/virt/kvm/x.c\n@@ -1,3 +1,3 @@\n int x;\n-\tif (a < b)\n+\tif (a <= b)\n", text)
        self.assertRegex(change.name, "^x-2-relation-[0-9a-f]{8}$")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.patch"
            path.write_text(text)
            self.assertEqual(mutants.parse(path).killed_by, mutants.ANYTHING)

    def test_equivalents(self) -> None:
        """An entry is a key and an indented reason; a reason without a key is an error."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "matrix/mutants/equivalent.txt"
            path.parent.mkdir(parents=True)
            self.assertEqual(mutate.equivalents(Path(folder)), {})
            path.write_text("# comment\na.c: x => y\n\tbecause\n\tof it\n")
            self.assertEqual(mutate.equivalents(Path(folder)), {"a.c: x => y": "because of it"})
            path.write_text("\tbecause\n")
            with self.assertRaisesRegex(WrongUse, "equivalent.txt:1: a reason without a key"):
                mutate.equivalents(Path(folder))

    def test_order(self) -> None:
        """Each case is listed once, in the order in which they run."""
        self.assertEqual(mutants.cases_of(["b.two/x", "b.two/y", "b.one", "a.one/x"]), ["b.two", "b.one", "a.one"])


class Ours(unittest.TestCase):
    """matrix/mutants/."""

    def test_headers(self) -> None:
        """Each mutant names cases that a cell that can find it expects."""
        known = {cell.name: cell for cell in cells.load(ROOT)}
        found = mutants.load(ROOT)
        self.assertGreaterEqual(len(found), 40)
        for mutant in found:
            names = mutant.cells or tuple(cell.name for cell in known.values() if cell.gate)
            for name in names:
                listed = expected_tests(ROOT, known[name], E2E if mutant.end_to_end else KUNIT)
                cases = {test.partition("/")[0] for test in listed.tests if not listed.allowed(test)}
                with self.subTest(mutant=mutant.name, cell=name):
                    self.assertEqual(set(mutant.killed_by) - cases, set())


if __name__ == "__main__":
    unittest.main()

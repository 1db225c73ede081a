# SPDX-License-Identifier: GPL-2.0
"""Test bench.toml, the initramfs of a boot that measures, and the comparison of what it has counted."""

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from matrix import main
from matrix.cell import bench as groups
from matrix.cell import cells, merge, run
from matrix.cell.cells import Cell
from matrix.cell.selftests import Selftest
from matrix.common import project
from matrix.common.errors import WrongUse
from matrix.proof import bench
from matrix.tests.fake_kernel import write
from matrix.tests.test_selftests import unpack

ROOT = Path(__file__).resolve().parents[2]
LIST = """\
[[group]]
name = "first"
seconds = 60
hugepages = 4
[[group]]
name = "second"
seconds = 30
[[ratio]]
what = "two kernels"
figures = ["touch/gmem/64M"]
to = "7.3"
target = 1.005
[[ratio]]
what = "two kinds of memory"
figures = ["touch/huge/64M"]
to = "gmem"
less = "clear/none/64M"
target = 0.5
[[ratio]]
what = "two sizes"
figures = ["touch/huge/1024M"]
to = "64M"
per_mib = true
target = 1.0
[[ratio]]
what = "two figures"
figures = ["touch/gmem/64M"]
to = "clear/none/64M"
target = 10.0
"""
OURS = {"touch/gmem/64M": 1010, "touch/huge/64M": 110, "touch/huge/1024M": 3520, "clear/none/64M": 100}
BASE = {"touch/gmem/64M": 1000}
CONSOLE = "[    1.0] # no/figure/64M: 1 or 2\n" + "".join(f"[    1.5]     # first: # {name}: {count}\r\n" for name, count in OURS.items())


def bench_cell(arch: str = "x86_64") -> Cell:
    """Return a cell of the project that measures."""
    with mock.patch("platform.machine", return_value="x86_64"):
        return next(cell for cell in cells.load(ROOT) if cell.bench and cell.arch == arch)


class Root(unittest.TestCase):
    """A folder with a bench.toml."""

    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with
        write(self.root / "bench/bench.toml", LIST)


class Groups(Root):
    """The groups, and the initramfs with them."""

    def test_groups(self) -> None:
        """In file order; a slow cell gets more time; a mistake in the file is one line."""
        found = [Selftest("first", 60, 4, ()), Selftest("second", 30, 0, ())]
        self.assertEqual(groups.load(self.root, bench_cell()), found)
        self.assertEqual(groups.load(self.root, replace(bench_cell(), slowdown=2))[0].seconds, 120)
        for old, new, text in (("seconds = 60", "seconds = 0", "must be above 0"), ("hugepages", "pages", "unknown key .pages"),
                               (LIST, "[group]", "write ..group.. above each group")):  # fmt: skip
            write(self.root / "bench/bench.toml", LIST.replace(old, new))
            with self.assertRaisesRegex(WrongUse, text):
                groups.load(self.root, bench_cell())

    def test_pack(self) -> None:
        """The initramfs has init, its list, and a copy of the program for each group."""
        for name in ("init", "bench"):
            write(self.root / "made" / name, name)
        tests = groups.load(self.root, bench_cell())
        groups.pack(self.root / "made", project.Programs("suite", ""), tests, self.root / "x.cpio")
        got = unpack((self.root / "x.cpio").read_bytes())
        self.assertEqual(got["tests"][1], b"suite suite\n60 4 /bench/first\n30 0 /bench/second\n")
        self.assertEqual([got[name][1] for name in ("init", "bench/first", "bench/second")], [b"init", b"bench", b"bench"])

    def test_build_commands(self) -> None:
        """The program is compiled for the cell, with the headers of its tree."""
        headers, program, init = groups.build_commands(Path("/tree"), ROOT, bench_cell("arm64"), self.root, 2)
        self.assertEqual((headers[-1], program[0]), ("headers", "aarch64-linux-gnu-gcc"))
        self.assertIn(str(self.root / "headers/usr/include"), program)
        self.assertEqual(init[-1], str(ROOT / "matrix/cell/init.c"))

    def test_project(self) -> None:
        """The cells of the project count instructions, and expect exactly the groups; all ratios are of figures that bench.c has."""
        text = (ROOT / "bench/bench.c").read_text()
        for ratio in bench.load(ROOT):
            for figure in (ratio.figure, ratio.to, *([ratio.less] if ratio.less else [])):
                operation, memory, _ = figure.split("/")
                self.assertIn(f'"{operation}"', text)
                self.assertIn(f'"{memory}"', text)
        suite = project.load(ROOT).need_bench().suite
        for arch in ("x86_64", "arm64"):
            cell = bench_cell(arch)
            self.assertIn("-icount shift=0", cell.qemu_args)
            names = [f"{suite}.{group.name}" for group in groups.load(ROOT, cell)]
            self.assertEqual(list(run.expected_tests(ROOT, cell, run.E2E).tests), names)

    def test_kinds(self) -> None:
        """Such a cell has neither KUnit nor a seed."""
        for arguments, text in (("", "has no KUnit"), ("--e2e --seed 1", "count instructions anyway")):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertEqual(main.main([*arguments.split(), "--out", str(self.root / "out"), "x86_64-bench"], ROOT), 2)
            self.assertIn(text, said.getvalue())

    def test_without_bench(self) -> None:
        """A project without [bench] cannot have such cells."""
        before, _, rest = (ROOT / "project.toml").read_text().partition("[bench]")
        write(self.root / "project.toml", before + rest.partition("\n\n")[2])
        with self.assertRaisesRegex(WrongUse, r"project.toml has no \[bench\]"):
            project.load(self.root).need_bench()

    def test_malformed(self) -> None:
        """A suite of two words, and a cell that runs a VMM as well."""
        text = (ROOT / "project.toml").read_text()
        write(self.root / "project.toml", text)
        listed = (ROOT / "matrix/cells.toml").read_text()
        write(self.root / "matrix/cells.toml", listed.replace("bench = true\n", "bench = true\nvmm = true\n"))
        with self.assertRaisesRegex(WrongUse, "arm64-bench: a cell has only one of vmm, bench, modules and build_only"):
            cells.load(self.root)
        write(self.root / "project.toml", text.replace('suite = "gmem_bench"', 'suite = "gmem bench"'))
        with self.assertRaisesRegex(WrongUse, r"\[bench\]: suite must be one word"):
            project.load(self.root)

    def test_inputs(self) -> None:
        """Results of another bench.c are not merged with those of this one."""
        write(self.root / "project.toml", "")
        before = merge.inputs(self.root)
        write(self.root / "bench/bench.c", "changed")
        self.assertNotEqual(merge.inputs(self.root), before)


class Ratios(Root):
    """What the figures are compared with."""

    def rows(self, known: dict[str, float] | None = None) -> list[bench.Row]:
        """Return the rows for OURS and BASE."""
        return bench.compare(bench.load(self.root), OURS, BASE, known or {})

    def test_values(self) -> None:
        """With the other kernel, other memory, another size and another figure; minus a figure, and per MiB."""
        self.assertEqual([round(row.value, 4) for row in self.rows()], [1.01, 0.011, 2.0, 10.1])
        self.assertEqual([row.verdict.partition(",")[0] for row in self.rows()], ["missed", "met", "missed", "missed"])

    def test_known(self) -> None:
        """A ratio that grows by more than 2 % is worse, even if it meets its target."""
        name = self.rows()[1].ratio.name
        self.assertEqual(name, "touch/huge/64M : touch/gmem/64M - clear/none/64M")
        for value, worse in ((0.011, False), (0.0108, False), (0.0107, True), (1.0, False)):
            row = self.rows({name: value})[1]
            self.assertEqual((row.regressed, "worse" in row.verdict), (worse, worse), value)
        self.assertFalse(self.rows()[0].regressed)

    def test_better(self) -> None:
        """A ratio that falls by more than 2 % is worth recording."""
        name = self.rows()[1].ratio.name
        for value, better in ((0.011, False), (0.0112, False), (0.0113, True)):
            row = self.rows({name: value})[1]
            self.assertEqual((row.improved, "better than before" in row.verdict), (better, better), value)

    def test_update(self) -> None:
        """known.json and the table keep the ratios of other cells; a malformed file is one line."""
        write(self.root / bench.README, f"before\n{bench.BEGIN}\nold\n<!-- end -->\nafter\n")
        bench.update(self.root, "b", self.rows(), "0123", "gcc 1; QEMU 2")
        bench.update(self.root, "a", self.rows()[:1], "4567", "gcc 3; QEMU 2")
        self.assertEqual(bench.known(self.root)["a"], bench.Known({"touch/gmem/64M : 7.3": 1.01}, "4567", "gcc 3; QEMU 2"))
        self.assertEqual(list(bench.known(self.root)), ["a", "b"])
        self.assertFalse(any(row.regressed for row in self.rows(dict(bench.known(self.root)["b"].ratios))))
        for text in ("{", "[]", '{"a": 1}', '{"a": {"b": "c"}}', '{"a": {"ratios": {"b": "c"}, "commit": "", "tools": ""}}'):
            write(self.root / bench.KNOWN, text)
            with self.assertRaisesRegex(WrongUse, "known.json: .*UPDATE=yes"):
                bench.known(self.root)
        text = (self.root / bench.README).read_text()
        self.assertEqual(text.splitlines()[:4],
                         ["before", bench.BEGIN, "- `a`: commit 4567, gcc 3; QEMU 2", "- `b`: commit 0123, gcc 1; QEMU 2"])  # fmt: skip
        self.assertTrue(text.endswith("<!-- end -->\nafter\n"))
        for line in ("| figure | compared with | a | b | target |", "| **two kernels** | | | | 1.005 |",
                     "| `touch/gmem/64M` | 7.3 | **1.0100** | **1.0100** | |", "| `touch/huge/64M` | `touch/gmem/64M` | - | 0.0110 | |"):
            self.assertIn(f"\n{line}\n", text)
        write(self.root / bench.README, "no marks\n")
        write(self.root / bench.KNOWN, "{}")
        with self.assertRaisesRegex(WrongUse, "bench/README.md has no lines .*; put them where the table belongs"):
            bench.update(self.root, "b", self.rows(), "0123", "gcc")
        self.assertEqual(bench.known(self.root), {})

    def test_commit(self) -> None:
        """What decides the counts must be committed, and the commit is noted."""
        def git(*words: str) -> str:
            return subprocess.run(["git", "-C", self.root, *words], check=True, capture_output=True, text=True, timeout=60).stdout.strip()

        with self.assertRaisesRegex(WrongUse, "is no git checkout"):
            bench.commit_of(self.root)
        git("init", "-q")
        git("add", "bench")
        git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "c")
        write(self.root / bench.README, "not counted\n")
        self.assertEqual(bench.commit_of(self.root), git("rev-parse", "--short=12", "HEAD"))
        write(self.root / "bench/bench.toml", "changed")
        with self.assertRaisesRegex(WrongUse, "commit bench/bench.toml first"):
            bench.commit_of(self.root)

    def test_tools(self) -> None:
        """The compiler is the one in the .config, QEMU the one that would boot the kernel."""
        config = self.root / ".config"
        write(config, 'CONFIG_A=y\nCONFIG_CC_VERSION_TEXT="gcc (X) 1.2"\n')
        self.assertRegex(bench.tools(bench_cell(), config), r"^gcc \(X\) 1.2; QEMU emulator version \d")
        write(config, "")
        with self.assertRaisesRegex(WrongUse, "does not say which compiler"):
            bench.tools(bench_cell(), config)

    def test_unused(self) -> None:
        """A figure that is in no ratio, and one that is not above what is subtracted from it."""
        with self.assertRaisesRegex(WrongUse, "no ratio has exit/huge/64M"):
            bench.compare(bench.load(self.root), OURS | {"exit/huge/64M": 1}, BASE, {})
        with self.assertRaisesRegex(WrongUse, "touch/gmem/64M counted nothing more than clear/none/64M"):
            bench.compare(bench.load(self.root), OURS | {"touch/gmem/64M": 90}, BASE, {})

    def test_figures(self) -> None:
        """Figures come from lines of the console; without any there is nothing to compare."""
        console = self.root / "console.log"
        with self.assertRaisesRegex(WrongUse, "is missing: make bench boots"):
            bench.figures(console)
        write(console, "nothing\n")
        with self.assertRaisesRegex(WrongUse, "has no figures"):
            bench.figures(console)
        write(console, CONSOLE)
        self.assertEqual(bench.figures(console), OURS)

    def test_malformed(self) -> None:
        """A figure that is none, and one that was not measured."""
        for old, new, text in (('"touch/gmem/64M"', '"touch"', "is operation/memory/size"),
                               ('to = "gmem"', "to = 1", "must be of type str"), (LIST, "ratio = 1", "write ..ratio.. above each ratio"),
                               ('to = "gmem"', 'to = "gnem"', "touch/gnem/64M was not measured, did you mean touch/gmem/64M")):  # fmt: skip
            write(self.root / "bench/bench.toml", LIST.replace(old, new))
            with self.assertRaisesRegex(WrongUse, text):
                self.rows()


class Tool(unittest.TestCase):
    """tools/bench, and make bench."""

    def test_no_cells(self) -> None:
        """In a project without such cells make bench and make vmm refuse, instead of running those of the gate."""
        for target in ("bench", "vmm"):
            done = subprocess.run(["make", "-C", ROOT, target, "SETUP=no", "PROJECT=example"], capture_output=True, text=True, check=False,
                                  timeout=60)  # fmt: skip
            self.assertIn(f"make {target}: this project has no such cells\n", done.stderr)
            self.assertEqual(done.returncode, 2)

    def test_this_project_only(self) -> None:
        """make test and make fresh would test this project instead of the other one."""
        for target in ("test", "fresh"):
            done = subprocess.run(["make", "-C", ROOT, target, "SETUP=no", "PROJECT=example"], capture_output=True, text=True, check=False,
                                  timeout=60)  # fmt: skip
            self.assertIn("for this project only", done.stderr)
            self.assertEqual(done.returncode, 2)

    def run_tool(self, out: Path, *arguments: str) -> tuple[int, str]:
        """Return the exit status and the output."""
        done = subprocess.run([sys.executable, ROOT / "tools/bench", "--out", out, *arguments], capture_output=True, text=True, check=False,
                              timeout=60)  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def test_readme(self) -> None:
        """The figures on the front page are the worst that were measured, rounded up."""
        text = " ".join((ROOT / "README.md").read_text().split())
        match = re.search(r"at most ([\d.]+) % more instructions than in 7\.3 \(([\d.]+) % where `fallocate` finds that all of the memory "
                          r"is there\)\. Apart from clearing, hugepages cost at most 1/(\d+) of", text)  # fmt: skip
        assert match
        worst = {True: 0.0, False: 0.0}  # of files without hugepages; True: where nothing but the lookup counts
        pages = 0.0
        for known in bench.known(ROOT).values():
            for ratio in bench.load(ROOT):
                if ratio.what.startswith("files"):
                    again = "fallocate-again" in ratio.figure
                    worst[again] = max(worst[again], known.ratios[ratio.name] - 1)
                if ratio.less:
                    pages = max(pages, known.ratios[ratio.name])
        for said, measured in ((match[1], worst[False]), (match[2], worst[True])):
            self.assertTrue(measured <= float(said) / 100 < measured + 0.001, (said, measured))
        self.assertTrue(int(match[3]) <= 1 / pages < int(match[3]) + 10, pages)

    def test_tool(self) -> None:
        """It prints a table and writes it, as JSON, too; the status is 1 if a ratio is worse than the known one."""
        names = {figure for ratio in bench.load(ROOT) for figure in (ratio.figure, ratio.to, ratio.less) if figure}
        wanted = {ratio.name for ratio in bench.load(ROOT)}
        self.assertEqual({name: set(one.ratios) for name, one in bench.known(ROOT).items()},
                         {cell.name: wanted for cell in cells.load(ROOT) if cell.bench})  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            for kind, count in (("e2e", 1000), ("e2e-base", 10)):
                lines = [f"# {name}: {1 if name.startswith('clear') else count}\n" for name in sorted(names)]
                write(out / f"results/x86_64-bench-{kind}/console.log", "".join(lines))
                write(out / f"results/x86_64-bench-{kind}/.config", 'CONFIG_CC_VERSION_TEXT="gcc 0.1"\n')
            status, text = self.run_tool(out, "x86_64-bench")
            self.assertEqual(status, 1, text)
            self.assertIn("bench: x86_64-bench: plain-touch/gmem/64M : 7.3: 100, was", text)
            self.assertRegex(text, "x86_64-bench: punch-all/gmem-huge/64M : punch-all/hugetlb/64M: 1, was .*: better; UPDATE=yes records")
            self.assertRegex(text, "known.json was measured with .*, this with gcc 0.1; QEMU .*: that may be the reason")
            self.assertIn("touch/gmem/64M", (out / "results/bench.md").read_text())
            found = json.loads((out / "results/bench.json").read_text())["x86_64-bench"]
            self.assertEqual(found["without_series"]["plain-touch/gmem/64M"], 10)
            self.assertEqual(self.run_tool(out, "arm64-bench")[0], 2)
            said = "bench: cell x86_64-thp does not measure: it has no bench = true\n"
            self.assertEqual(self.run_tool(out, "x86_64-thp"), (2, said))


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""Test ./matrix/run, from its command line to its files, on a fake tree with a fake kunit.py."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from matrix import main
from matrix.cell import build, cells
from matrix.cell.run import Job, Site
from matrix.cell.run import run as run_cell
from matrix.common import proc, session
from matrix.common.errors import MachineError, WrongUse
from matrix.tests.consoles import CLEAN, TESTS, listing, spoil
from matrix.tree.tree import PreparedTree
from matrix.verdict import report

ROOT = Path(__file__).resolve().parents[2]
TOUCHED = frozenset({"virt/kvm/guest_memfd.c"})
CELLS = """\
[defaults]
boot_seconds = 5
build_seconds = 5
[arch.x86_64]
qemu = "qemu-system-x86_64"
cross_compile = "x86_64-linux-gnu-"
[arch.arm64]
qemu = "qemu-system-aarch64"
cross_compile = "aarch64-linux-gnu-"
"""
CELL = """
[[cell]]
name = "{0}"
arch = "{1}"
fragments = ["base", "{2}"]
qemu_config = "{1}.py"
gate = {3}
proves = "{0} works"
"""
TOOLS = ("make", "flex", "bison", "bc", "qemu-system-x86_64", "qemu-system-aarch64",
         *(prefix + tool for prefix in ("", "x86_64-linux-gnu-", "aarch64-linux-gnu-") for tool in ("gcc", "ld")))  # fmt: skip
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from matrix import main
from matrix.tests.test_run import prepared
sys.exit(main.main(sys.argv[3:], Path(sys.argv[2]), prepared))
"""


def prepared(root: Path, out: Path, _ksrc: Path | None, _say: Callable[[str], None], part: str = "") -> PreparedTree:
    """A fake matrix.tree.prepare(), with the same tree for each part."""
    path = out / "linux-7.3.4" / "tree"
    kunit = path / "tools/testing/kunit"
    kunit.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "matrix/tests/fake_kunit.py", kunit / "kunit.py")
    shutil.copy(root / "scenario.json", path / "scenario.json")
    return PreparedTree(path, "7.3.4", "a fake", TOUCHED, "0" * 64, part)


class Fake(unittest.TestCase):
    """A project with three cells, two of them in the gate, and a machine with all tools."""

    def setUp(self) -> None:
        self.enterContext(mock.patch("platform.machine", return_value="x86_64"))
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with
        self.out = self.root / "build"
        (self.root / "matrix").mkdir()
        (self.root / "configs").mkdir()
        (self.root / "project.toml").write_text('suites = "virt/kvm/tests"\n[build]\n')
        text = CELLS + CELL.format("one", "x86_64", "on", "true") + CELL.format("two", "arm64", "off", "true")
        (self.root / "matrix/cells.toml").write_text(text + CELL.format("extra", "x86_64", "on", "false"))
        for name, line in {"base": "CONFIG_KUNIT=y", "on": "CONFIG_THP=y", "off": "# CONFIG_THP is not set"}.items():
            (self.root / f"configs/{name}.config").write_text(f"# a comment\n{line}\n")
        for arch in ("x86_64", "arm64"):
            (self.root / f"configs/{arch}.py").touch()
        self.list = self.root / "matrix/expected.txt"
        self.list.write_text(f"# head\n{listing(TESTS)}")
        self.tools = self.root / "bin"
        self.tools.mkdir()
        for name in TOOLS:
            (self.tools / name).write_text("#!/bin/sh\nexec true\n")
            (self.tools / name).chmod(0o755)
        self.enterContext(mock.patch.dict(os.environ, {"PATH": f"{self.tools}:/usr/bin:/bin", "MAKEFLAGS": "j"}))
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, signum, signal.getsignal(signum))
        self.addCleanup(proc._stopping.clear)  # pylint: disable=protected-access
        self.play()

    def play(self, **scenario: dict[str, Any]) -> None:
        """Set what the fake kunit.py does; exec prints the clean console unless told otherwise."""
        scenario = {key.replace("_", " "): value for key, value in scenario.items()}
        (self.root / "scenario.json").write_text(json.dumps({"exec": {"text": CLEAN}, **scenario}))

    def run_main(self, *argv: str) -> tuple[int, str]:
        """Return (exit status, everything printed)."""
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                status = main.main(argv, self.root, prepared)
            except SystemExit as err:  # argparse
                status = int(err.code or 0)
        self.assertNotIn("Traceback", text.getvalue())
        return status, text.getvalue()

    def result(self, cell: str = "one") -> dict[str, Any]:
        """Return the result.json of a cell."""
        data = json.loads((self.out / "results" / cell / "result.json").read_text())
        assert isinstance(data, dict)
        return data

    def calls(self) -> list[list[str]]:
        """Return the command lines with which the fake kunit.py was called."""
        text = (self.out / "linux-7.3.4/tree/calls").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def run_and_calls(self, *argv: str) -> list[str]:
        """Return the words of all calls of the fake kunit.py in a run."""
        before = len(self.calls())
        self.run_main(*argv)
        return sum(self.calls()[before:], [])

    def start(self, *argv: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start it as a process, to send it signals."""
        child = subprocess.Popen(  # pylint: disable=consider-using-with
            [sys.executable, "-c", DRIVER, str(ROOT), str(self.root), *argv],
            stdout=stdout, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        return child


class Run(Fake):
    """Runs that end in a verdict."""

    def test_green(self) -> None:
        """Two green cells: table, files, exit status, calls of kunit.py."""
        status, text = self.run_main("--jobs", "4")
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"\none +green +6 +0 +1 ")
        self.assertIn("one: beta.may_skip skipped, as allowed: no such hardware", text)
        self.assertEqual(sorted(path.name for path in (self.out / "results/two").iterdir()),
                         [".config", "build.log", "console.log", "junit.xml", "result.json"])  # fmt: skip
        result = self.result()
        self.assertEqual((result["verdict"], result["reasons"]), ("green", []))
        self.assertEqual(result["tests"], {"total": 7, "passed": 6, "failed": 0, "skipped": 1})
        self.assertEqual(result["kernel"], {"version": "7.3.4", "origin": "a fake", "series": "0" * 64})
        self.assertEqual(result["suites"]["alpha"]["cases"]["table/first row"], {"status": "passed"})
        self.assertEqual(result["suites"]["beta"]["cases"]["may_skip"], {"status": "skipped", "reason": "no such hardware"})
        self.assertEqual(set(result["seconds"]), {"configure", "build", "boot"})
        summary = json.loads((self.out / "results/summary.json").read_text())
        self.assertEqual((summary["verdict"], [cell["cell"] for cell in summary["cells"]]), ("green", ["one", "two"]))
        self.assertIn("| two | green | 6 | 0 | 1 |", (self.out / "results/summary.md").read_text())
        call = next(call for call in self.calls() if call[0] == "build" and f"{self.out}/linux-7.3.4/cells/two" in call[1])
        self.assertEqual(call[2:], ["--arch=arm64", f"--qemu_config={self.root}/configs/arm64.py",
                                    f"--kunitconfig={self.root}/configs/base.config",
                                    f"--kunitconfig={self.root}/configs/off.config",
                                    "--cross_compile=aarch64-linux-gnu-", "--jobs=2"])  # fmt: skip

    def test_environment(self) -> None:
        """The kernel build gets only the environment that it needs, nothing from us or from make."""
        found = build.environment()
        self.assertNotIn("MAKEFLAGS", found)
        self.assertEqual((found["PATH"], found["LC_ALL"]), (os.environ["PATH"], "C"))

    def test_commands_repeat_the_steps(self) -> None:
        """Each command in result.json works in a shell, in any folder."""
        self.run_main("one")
        before = len(self.calls())
        for step, command in self.result()["commands"].items():
            done = subprocess.run(["sh", "-c", command], cwd="/", check=True, capture_output=True, text=True)
            if step == "boot":
                self.assertIn("reboot: Restarting system", done.stdout)
        verbs = [call[0] for call in self.calls()]
        self.assertEqual(verbs[before:], ["config", "build", "exec", "parse"])

    def test_red(self) -> None:
        """One red cell: exit status 1, the reason in the table and the files, the other cells unaffected."""
        self.play(exec_two={"text": spoil("ok 1 alpha\n", "ok 1 alpha\nBUG: KASAN: use-after-free in f\n")})
        status, text = self.run_main()
        self.assertEqual(status, 1)
        self.assertIn("two is red:\n  splat: KASAN between suites, after alpha", text)
        self.assertIn(f"logs: {self.out}/results/two", text)
        self.assertEqual((self.result()["verdict"], self.result("two")["verdict"]), ("green", "red"))
        self.assertIn("- `splat`: KASAN between", (self.out / "results/summary.md").read_text())

    def test_config_is_not_as_asked(self) -> None:
        """An option that Kconfig drops is red, although kunit.py accepts it."""
        self.play(config={"config": "CONFIG_KUNIT=y\n"})
        self.assertEqual(self.run_main("one")[0], 1)
        self.assertIn({"code": "config", "text": "CONFIG_THP is n, asked for y"}, self.result()["reasons"])

    def test_build_fails(self) -> None:
        """The compiler's message is the reason; nothing is booted, and no old file remains."""
        self.run_main("one")
        self.play(build={"status": 1, "text": "virt/kvm/guest_memfd.c:7:1: error: expected ';'"})
        self.assertEqual(self.run_main("one")[0], 1)
        self.assertEqual([reason["code"] for reason in self.result()["reasons"]], ["build"])
        self.assertIn("error: expected ';'", self.result()["reasons"][0]["text"])
        self.assertFalse((self.out / "results/one/console.log").exists())

    def test_configure_fails(self) -> None:
        """After a failed configure, nothing is built."""
        self.play(config={"status": 1, "text": "Missing: CONFIG_THP=y"})
        self.assertEqual(self.run_main("one")[0], 1)
        self.assertIn("Missing: CONFIG_THP=y", self.result()["reasons"][0]["text"])
        self.assertNotIn("build", [call[0] for call in self.calls()])

    def test_hang(self) -> None:
        """A kunit.py that exceeds its own limit is killed, and the cell is red."""
        self.play(exec={"text": "Linux version 7.3.4", "seconds": 60})
        text = (self.root / "matrix/cells.toml").read_text()
        for seconds, slowdown, limit in (0, 1, 0), (1, 2, 2):
            limits = text.replace("boot_seconds = 5", f"boot_seconds = {seconds}")
            (self.root / "matrix/cells.toml").write_text(limits.replace("gate = true", f"gate = true\nslowdown = {slowdown}"))
            with self.subTest(slowdown), mock.patch("matrix.cell.boot.GRACE", 0.5):
                self.assertEqual(self.run_main("one")[0], 1)
                self.assertEqual(self.result()["reasons"][0], {"code": "hang", "text": f"boot did not end within {limit} s"})

    def test_endless_console(self) -> None:
        """kunit.py parses only what the verdict reads, and figures come from a bounded part."""
        self.play(exec={"text": "    # a_test: # pages: 1\n" + CLEAN + "x\n" * 2000})
        with mock.patch("matrix.cell.boot.LARGEST", 3000):
            self.run_main("one")
        head = self.out / "results/one/console-head.log"
        self.assertEqual((head.stat().st_size, self.calls()[-1][-1]), (3000, str(head)))
        console = self.root / "console.log"
        with open(console, "wb") as file:
            file.write(b"    # a_test: # pages: 1\n" + b"[    1.234567] a message of the kernel\n" * 1_000_000)
        tracemalloc.start()
        self.assertEqual(report.figures(console), ["a_test: pages: 1"])
        self.assertLess(tracemalloc.get_traced_memory()[1], 16 << 20)
        tracemalloc.stop()

    def test_another_kernel(self) -> None:
        """A console of another build, or without one of the kernel arguments, is red."""
        text = CLEAN.replace("Linux version", "Linux").replace("Command line", "Line")
        for key, value in (("banner", "Linux version 7.3.4 (a@b) (gcc) #7"), ("no_arguments", "x")):
            self.play(exec={"text": text, key: value})
            self.assertEqual(self.run_main("one")[0], 1)
            self.assertEqual([reason["code"] for reason in self.result()["reasons"]], ["kernel"])

    def test_no_junit(self) -> None:
        """A failure of kunit.py parse is red, even if we find the log clean."""
        self.play(parse={"status": 1})
        self.run_main("one")
        self.assertEqual([reason["code"] for reason in self.result()["reasons"]], ["kunit"])

    def test_an_error_of_ours(self) -> None:
        """An exception in a cell makes that cell red, with a result."""
        with mock.patch("matrix.cell.run.options", side_effect=ZeroDivisionError("x")):
            status, text = self.run_main("one")
        self.assertEqual(status, 1)
        self.assertIn("check could not run: ZeroDivisionError: x", text)
        self.assertEqual(self.result()["verdict"], "red")

    def test_filter(self) -> None:
        """The glob is passed to kunit.py, and only tests that it selects are expected."""
        text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: alpha\n    1..1\n    ok 1 one\nok 1 alpha\n"
        self.play(exec={"text": text + "reboot: Restarting system"})
        self.assertEqual(self.run_main("one", "--filter", "alpha.o*")[0], 0)
        self.assertEqual(next(call for call in self.calls() if call[0] == "exec")[-1], "alpha.o*")
        self.assertEqual(self.result()["filter"], "alpha.o*")
        self.assertIn("filtered: not the gate (--filter alpha.o*)", self.run_main("one", "--filter", "alpha.o*")[1])
        self.assertIn("filtered: not the gate", (self.out / "results/summary.md").read_text())
        status, text = self.run_main("one", "--filter", "alhpa")
        self.assertEqual(status, 2)
        self.assertIn("selects no test of one; suites: alpha", text)

    def test_seed(self) -> None:
        """The seed is passed to kernel and QEMU, which counts instructions; a red cell names the command that repeats it."""
        (self.root / "project.toml").write_text('suites = "virt/kvm/tests"\nseed = "alpha.seed"\n[build]\n')
        status, text = self.run_main("one", "--seed", "7")
        self.assertEqual(status, 0, text)
        call = next(call for call in self.calls() if call[0] == "exec")
        self.assertIn("--kernel_args=alpha.seed=7", call)
        self.assertRegex(" ".join(call), r"--qemu_args=-smp 1 -icount shift=\d+,sleep=off .*-seed 7")
        self.assertIn("seeded: not the gate", text)
        self.assertNotIn("to repeat", text)
        self.assertEqual(self.result()["repeat"], "./matrix/run --seed 7 one")
        self.assertEqual(self.run_main("--merge", str(self.out / "results"))[0], 1)
        self.assertIn("run the cell without --seed", (self.out / "results/summary.md").read_text())
        self.play(exec={"text": spoil("    ok 1 one", "    not ok 1 one")})
        argv = ("one", "--seed", "7", "--filter", "alpha*")
        self.assertIn("to repeat: ./matrix/run --seed 7 --filter 'alpha*' one\n", self.run_main(*argv)[1])
        self.assertFalse(any(word.startswith("--qemu_args") for word in self.run_and_calls("one")))

    def test_seed_without_parameter(self) -> None:
        """Tests that need no seed can have races: a seed decides their schedule."""
        self.assertEqual(self.run_main("one", "--seed", "7")[0], 0)
        call = next(call for call in self.calls() if call[0] == "exec")
        self.assertFalse([word for word in call if word.startswith("--kernel_args=") and word.endswith("=7")], call)
        self.assertRegex(" ".join(call), "--qemu_args=.*-seed 7")

    def test_ksrc_repeats(self) -> None:
        """The command that repeats a boot names the kernel tree of the user."""
        self.assertEqual(self.run_main("one", "--ksrc", "/a tree", "--arg", "c")[0], 0)
        self.assertEqual(self.result()["repeat"], "./matrix/run --arg c --ksrc '/a tree' one")
        self.assertEqual(self.result()["ksrc"], "/a tree")

    def test_seed_refused(self) -> None:
        """Options that a seed contradicts, and numbers that are no seeds."""
        for more in (["--update-expected"], ["--merge", str(self.root)]):
            status, text = self.run_main("--seed", "7", *more)
            self.assertEqual((status, "cannot be combined with" in text), (2, True), text)
        for number in ("-1", str(1 << 32)):
            self.assertIn("a number of 32 bits", self.run_main("one", "--seed", number)[1])

    def test_no_build(self) -> None:
        """The kernel of the last run boots again, if it is that of the same series and options; such a run is never the gate."""
        self.assertIn("has no kernel with this configuration and series; omit --no-build", self.run_main("one", "--no-build")[1])
        self.run_main("one")
        before = len(self.calls())
        status, text = self.run_main("one", "--no-build")
        self.assertEqual(status, 0, text)
        self.assertEqual([call[0] for call in self.calls()[before:]], ["exec", "parse"])
        self.assertIn("without a build: not the gate (--no-build)", text)
        self.assertEqual(self.result()["repeat"], "./matrix/run --no-build one")
        self.assertEqual(self.run_main("--merge", str(self.out / "results"))[0], 1)
        with mock.patch(f"{__name__}.prepared", lambda *args, real=prepared: dataclasses.replace(real(*args), series="1" * 64)):
            self.assertEqual(self.run_main("one", "--no-build")[0], 2)
        config = self.root / "configs/on.config"
        config.write_text(config.read_text() + "CONFIG_X=y\n")
        self.assertEqual(self.run_main("one", "--no-build")[0], 2)
        self.run_main("one")
        self.assertEqual(self.run_main("one", "--no-build")[0], 0)
        self.play(build={"status": 1, "text": "x.c:1:1: error: y"})
        self.run_main("one")
        self.assertEqual(self.run_main("one", "--no-build")[0], 2)
        for more in (["--canaries"], ["--update-expected"], ["--merge", str(self.out)]):
            self.assertEqual(self.run_main("--no-build", *more)[0], 2)

    def test_arguments(self) -> None:
        """More kernel arguments and another time limit reach the boot; such a run is never the gate, and can be repeated."""
        status, text = self.run_main("one", "--arg", "a.b=1", "--arg", "c", "--boot-seconds", "77")
        self.assertEqual(status, 0, text)
        call = next(call for call in self.calls() if call[0] == "exec")
        for word in ("--kernel_args=a.b=1", "--kernel_args=c", "--timeout=77"):
            self.assertIn(word, call)
        self.assertIn("\nwith more kernel arguments: not the gate (--arg)\nwith another time limit: not the gate (--boot-seconds)\n", text)
        self.assertEqual(self.result()["repeat"], "./matrix/run --arg a.b=1 --arg c --boot-seconds 77 one")
        self.assertEqual(self.run_main("--merge", str(self.out / "results"))[0], 1)
        summary = (self.out / "results/summary.md").read_text()
        self.assertIn("run the cell without --arg", summary)
        self.assertIn("run the cell without --boot-seconds", summary)
        self.play(exec={"text": CLEAN, "no_arguments": "x"})
        self.assertIn("booted without a.b=1", self.run_main("one", "--arg", "a.b=1")[1])

    def test_arguments_refused(self) -> None:
        """What is no kernel argument, and options that judge or list tests by other runs."""
        for argv in (["--arg", "a b"], ["--arg", "=1"], ["--arg", "a='1'"], ["--boot-seconds", "-1"],
                     *([option, value, "--merge", str(self.root)] for option, value in (("--arg", "a=1"), ("--boot-seconds", "9"))),
                     ["--arg", "a=1", "--update-expected"]):  # fmt: skip
            status, text = self.run_main(*argv)
            self.assertEqual((status, bool(text.count("must be ") + text.count("cannot be combined"))), (2, True), text)

    def test_update_expected(self) -> None:
        """New tests are inserted, vanished ones removed, rules kept, and the diff is printed."""
        self.play(exec={"text": spoil("    ok 1 one", "    ok 1 uno")})
        self.assertEqual(self.run_main("one")[0], 1)
        status, text = self.run_main("one", "--update-expected")
        self.assertEqual(status, 0, text)
        self.assertIn("-alpha.one\n+alpha.uno\n", text)
        self.assertEqual(self.list.read_text(), f"# head\n{listing(TESTS)}".replace("alpha.one", "alpha.uno"))
        self.assertIn("expected.txt unchanged", self.run_main("one", "--update-expected")[1])
        self.list.unlink()
        self.play(exec={"text": CLEAN})
        self.assertEqual(self.run_main("one", "--update-expected")[0], 1)  # the skip is not allowed yet
        self.assertEqual([reason["code"] for reason in self.result()["reasons"]], ["skip"])

    def test_update_wants_a_whole_run(self) -> None:
        """A truncated run, or one that is red for reasons other than its tests, does not update the list."""
        before = self.list.read_text()
        for text in (CLEAN[:600], spoil("reboot: Restarting system\n", ""), "", spoil("    1..2\n    ok", "    1..3\n    ok")):
            self.play(exec={"text": text})
            status, said = self.run_main("one", "--update-expected")
            self.assertEqual(status, 1)
            self.assertIn("expected.txt not updated", said)
            self.assertEqual(self.list.read_text(), before)


class Project(Fake):
    """--project."""

    def test_other(self) -> None:
        """All files are read from that project, and its build folder is used."""
        own = self.root
        (own / "other").mkdir()
        for name in ("matrix", "configs", "project.toml", "scenario.json"):
            (own / name).rename(own / "other" / name)
        status, text = self.run_main("--project", str(own / "other"), "one")
        self.assertEqual(status, 0, text)
        self.assertEqual((own / "build").exists(), False)
        self.out = own / "other/build"
        self.assertEqual(self.result()["verdict"], "green")
        self.assertIn(f"--qemu_config={own.resolve()}/other/configs/x86_64.py", self.calls()[0])

    def test_without_selftests(self) -> None:
        """Without selftests, --e2e is refused, --all boots for KUnit only, and --merge expects only such results."""
        status, text = self.run_main("--e2e", "one")
        self.assertEqual((status, "no [selftests]" in text), (2, True), text)
        self.assertEqual(self.run_main("--all", "one", "two")[0], 0)
        self.assertEqual(self.run_main("--merge", str(self.out / "results"))[0], 0)

    def test_none(self) -> None:
        """A folder that is not at a project."""
        status, text = self.run_main("--project", str(self.root / "configs"), "--list")
        self.assertEqual((status, "is not a project" in text), (2, True), text)


class Refused(Fake):
    """Wrong use, and machines that lack something."""

    def check(self, status: int, text: str, *argv: str) -> None:
        """Check that the run ends with this status and one line with this text."""
        got, said = self.run_main(*argv)
        self.assertEqual(got, status, said)
        self.assertIn(text, said)

    def test_wrong_use(self) -> None:
        """Each message says what to do."""
        self.check(2, "unknown cell 'on', did you mean one", "on")
        self.check(2, "must be at least 1", "--jobs", "0")
        self.check(2, "invalid int value", "--jobs", "x")
        self.check(2, "omit --filter", "--filter", "alpha", "--update-expected")
        self.check(2, "spaces and quotes are not possible", "--filter", "alpha beta")
        self.check(2, "a path with a space or a colon", "--out", f"{self.root}/a b")
        self.check(2, "is not a directory", "--merge", "/no/such/folder")
        self.list.write_text("a.b\na.b\n")
        self.check(2, "expected.txt:2: a.b is a duplicate", "one")
        self.list.write_text("a.b\n    nonsense\n")
        self.check(2, "expected.txt:2: expected 'skip CELL…: words'", "one")
        self.list.write_bytes(b"a.\xff\n")
        self.check(2, "expected.txt: 'utf-8' codec can't decode", "one")
        self.list.unlink()
        self.check(2, "run it once with --update-expected", "one", "--filter", "alpha")

    def test_fragments(self) -> None:
        """Fragments that conflict, are malformed or are missing are refused."""
        (self.root / "configs/on.config").write_text("# CONFIG_KUNIT is not set\n")
        self.check(2, "base.config wants CONFIG_KUNIT=y, on.config wants n", "one")
        (self.root / "configs/on.config").write_text("CONFIG_KUNIT y\n")
        self.check(2, "on.config:1: neither an option nor a comment", "one")
        (self.root / "configs/on.config").write_bytes(b"# \xff\n")
        self.check(2, "on.config: 'utf-8' codec can't decode", "one")
        (self.root / "configs/on.config").unlink()
        self.check(2, "on.config: No such file", "one")

    def test_cells_file(self) -> None:
        """A malformed cells.toml is refused."""
        path = self.root / "matrix/cells.toml"
        good = path.read_text()
        for old, new, text in (
            ('arch = "arm64"', 'arch = "mips"', "there is no [arch.mips]"),
            ('gate = false', 'gate = "no"', "gate must be of type bool"),
            ('gate = false', 'gaet = false', "unknown key 'gaet', did you mean gate"),
            ('gate = false', 'gate = false\nslowdown = 0', "slowdown, memory and cpus must be above 0"),
            ('name = "extra"', 'name = "one"', "cell one is listed twice"),
            ('name = "extra"', 'name = "../x"', "a name consists of letters"),
            ('name = "extra"', '', "name is missing"),
            ('[[cell]]', '[[cell', "cells.toml: "),
            ('[[cell]]', '[[cel]]', "unknown key 'cel', did you mean cell"),
            ('gate = false', 'gate = false\nkconfig_add = [1]', "kconfig_add must be a list of strings"),
        ):
            path.write_text(good.replace(old, new))
            self.check(2, text, "--list")
        start, _, cell = good.partition("[arch.x86_64]")
        cell = cell[cell.index("[[cell]]"):]
        for whole, text in (("", "has no [[cell]]"), ("[cell]", "write [[cell]] above each cell"), ("cell = [1]", "write [[cell]] above"),
                            ("defaults = 1", "defaults must be of type dict"), ("arch = 1", "arch must be of type dict"),
                            (f'{start}[arch.x86_64]\nqmeu = "q"\n{cell}', "[arch.x86_64]: unknown key 'qmeu', did you mean qemu"),
                            (f'{start}[arch.x86_64]\nqemu = "q"\n{cell}', "[arch.x86_64]: cross_compile is missing"),
                            (f"{start}[arch]\nx86_64 = 1\n{cell}", "[arch.x86_64] must be a table")):  # fmt: skip
            path.write_text(whole)
            self.check(2, text, "--list")

    def test_hosts(self) -> None:
        """No cross compiler is used if the host has the architecture."""
        for machine, expected in (("x86_64", ["", "aarch64-linux-gnu-"]), ("aarch64", ["x86_64-linux-gnu-", ""])):
            with mock.patch("platform.machine", return_value=machine):
                self.assertEqual([cell.cross_compile for cell in cells.load(self.root)[:2]], expected)

    def test_tools(self) -> None:
        """A missing compiler or QEMU is reported before anything is built."""
        os.environ["PATH"] = str(self.tools)
        for name in ("aarch64-linux-gnu-gcc", "qemu-system-aarch64"):
            (self.tools / name).unlink()
        self.check(3, "cell two needs aarch64-linux-gnu-gcc, qemu-system-aarch64; run tools/setup")
        self.assertFalse(self.out.exists())
        os.environ["PATH"] += ":/usr/bin:/bin"
        self.check(0, "one: green", "one")

    def test_make_options(self) -> None:
        """A cell can give make variables to the build of its kernel; whatever is none is refused."""
        path = self.root / "matrix/cells.toml"
        text = path.read_text()
        path.write_text(text + 'make_options = ["W=1", "KCFLAGS=-Os"]\nllvm = "19"\n')
        cell = cells.load(self.root)[-1]
        self.assertEqual(build.build_command(self.root, cell, self.out, 1)[-4:],
                         ["--make_options=W=1", "--make_options=KCFLAGS=-Os", "--make_options=LLVM=-19", "--jobs=1"])
        self.assertEqual(build.make_command(self.root, cell, self.out, 1)[-5:], ["W=1", "KCFLAGS=-Os", "LLVM=-19", "--silent", "all"])
        for value, said in (('"all"', ": must be NAME=value"), ('"W=1 all"', ": must be NAME=value"), ("1", " must be a list of strings")):
            path.write_text(f"{text}make_options = [{value}]\n")
            self.check(2, f"make_options{said}", "--list")

    def test_riscv(self) -> None:
        """The message about a missing cross compiler names the group of packages that has it."""
        path = self.root / "matrix/cells.toml"
        arch = '[arch.riscv]\nqemu = "q"\ncross_compile = "riscv64-linux-gnu-"\n[arch.arm64]'
        path.write_text(path.read_text().replace("[arch.arm64]", arch) + CELL.format("far", "riscv", "on", "false") + "build_only = true\n")
        (self.root / "configs/riscv.py").touch()
        os.environ["PATH"] = str(self.tools)
        self.check(3, "cell far needs riscv64-linux-gnu-gcc, riscv64-linux-gnu-ld; run tools/setup riscv\n", "far")

    def test_machine(self) -> None:
        """A cell can ask for CPUs and memory; a boot with a seed has one CPU all the same, for the last -smp counts."""
        with (self.root / "matrix/cells.toml").open("a") as file:
            file.write("cpus = 4\nmemory = 3000\n")
        cell = cells.load(self.root)[-1]
        self.assertEqual(cell.qemu_args, "-m 3000 -smp 4")
        self.assertRegex(cells.seeded(cell, "x.seed", 1).qemu_args, "-smp 4 .*-smp 1")
        self.assertEqual(cells.load(self.root)[0].qemu_args, "")

    def test_llvm(self) -> None:
        """A cell can ask for LLVM, which kunit.py and make are told, and which must be there."""
        with (self.root / "matrix/cells.toml").open("a") as file:
            file.write('llvm = "19"\n')
        cell = cells.load(self.root)[-1]
        self.assertIn("--make_options=LLVM=-19", build.build_command(self.root, cell, self.out, 1))
        self.assertIn("LLVM=-19", build.make_command(self.root, cell, self.out, 1))
        os.environ["PATH"] = str(self.tools)
        self.check(3, f"cell {cell.name} needs clang-19, ld.lld-19, llvm-ar-19; run tools/setup llvm", cell.name)
        gcc = cells.load(self.root)[0]
        for command in (build.build_command, build.make_command):
            self.assertNotIn("LLVM", " ".join(command(self.root, gcc, self.out, 1)))

    def test_part(self) -> None:
        """A cell with a part of the series is built from that part, in its own folder."""
        with (self.root / "project.toml").open("a") as file:
            file.write('[parts]\nearly = "x"\n')
        with (self.root / "matrix/cells.toml").open("a") as file:
            file.write(CELL.format("old", "x86_64", "on", "false") + 'part = "early"\n')
        self.check(0, "old: green", "old")
        self.assertTrue((self.out / "linux-7.3.4/on-part-early/cells/old").is_dir())
        self.check(0, "one: green", "one")
        self.assertTrue((self.out / "linux-7.3.4/cells/one").is_dir())
        self.check(0, "one: green", "old", "one")
        self.assertEqual([one["cell"] for one in json.loads((self.out / "results/summary.json").read_text())["cells"]], ["old", "one"])
        self.check(0, '["one", "two", "extra"]', "--cells-json", "generated")
        with mock.patch(f"{__name__}.prepared", lambda root, out, ksrc, say, part, whole=prepared: whole(root, out, ksrc, say)):
            self.check(2, "cell old has another part of the series", "old")
        self.list.write_text("*.*\n    absent old\n" + listing(TESTS))
        self.check(2, "has no such tests for cell old; use --all or --e2e", "old")
        text = (self.root / "matrix/cells.toml").read_text()
        (self.root / "matrix/cells.toml").write_text(text.replace('"early"', '"earli"'))
        self.check(2, "cell old: project.toml has no part 'earli', did you mean early", "one")

    def test_build_only(self) -> None:
        """A cell that is only built is green without a boot and without QEMU, and red as any other when the build is not clean."""
        with (self.root / "matrix/cells.toml").open("a") as file:
            file.write(CELL.format("built", "arm64", "off", "false") + "build_only = true\n")
        os.environ["PATH"] = os.environ["PATH"].replace("/usr/bin:/bin", str(self.root / "hidden"))
        hidden = self.root / "hidden"
        hidden.mkdir()
        for name in ("sh", "git"):
            (hidden / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or "")
        (self.tools / "qemu-system-aarch64").unlink()
        self.check(0, "built: green, 0 passed", "--all", "built")
        self.assertEqual([call[0] for call in self.calls()], ["config", "build"])
        self.check(2, "cell built does not boot; omit --e2e and --update-expected", "--update-expected", "built")
        self.check(2, "cell built does not boot; omit --filter", "--filter", "alpha", "built")
        self.check(0, '["one", "two", "extra"]', "--cells-json", "generated")
        broken: list[tuple[dict[str, Any], str]] = [
            ({"build": {"text": "virt/kvm/guest_memfd.c:1:1: warning: unused variable"}}, "warning: virt/kvm/guest_memfd.c"),
            ({"config": {"config": "CONFIG_KUNIT=y\nCONFIG_THP=y\n"}}, "CONFIG_THP is y, asked for n"),
            ({"build": {"status": 1, "text": "x.c:1:1: error: y"}}, "build: kunit.py build fails: x.c:1:1: error"),
        ]
        for scenario, text in broken:
            self.play(**scenario)
            self.check(1, text, "built")

    def test_until_failure(self) -> None:
        """The seeds count up until a run is red, which is then the result; nothing else can be repeated."""
        path = self.root / "project.toml"
        path.write_text('seed = "x.seed"\n' + path.read_text())

        def run(site: Site, jobs: Sequence[Job]) -> list[report.Result]:
            done = run_cell(site, jobs)
            seeds.append(jobs[0].cell.seed)
            if seeds[-1] == 5:
                self.play(exec={"text": ""})
            return done

        seeds: list[int | None] = []
        with mock.patch("matrix.main.run", run):
            self.check(1, "seed 6 is the first that is not green", "--until-failure", "--seed", "4", "one")
        self.assertEqual(seeds, [4, 5, 6])
        self.assertEqual(self.result()["repeat"], "./matrix/run --seed 6 one")
        self.check(2, "repeats boots of cells", "--until-failure", "--list")

    def test_all(self) -> None:
        """The name "all" stands for every cell, and shares are disjoint and complete."""
        self.check(0, "extra: green", "all")
        self.assertEqual(len(json.loads((self.out / "results/summary.json").read_text())["cells"]), 3)
        shares = [[cell.name for cell in main._share(cells.load(self.root), f"{number}/2")]  # pylint: disable=protected-access
                  for number in (1, 2)]  # fmt: skip
        self.assertEqual(shares, [["one", "extra"], ["two"]])
        self.check(0, "two: green", "all", "--shard", "2/2")
        for shard, text in (("3/2", "expected I/N"), ("0/2", "expected I/N"), ("x", "expected I/N"), ("4/9", "only 3 cells")):
            self.check(2, text, "all", "--shard", shard)

    def test_prepare(self) -> None:
        """Errors of matrix.tree end the run with their exit status."""
        for error in (WrongUse("the series does not apply"), MachineError("no network")):
            with mock.patch(f"{__name__}.prepared", side_effect=error):
                self.check(error.status, f"matrix: {error}\n")

    def test_results_that_cannot_be_written(self) -> None:
        """An unwritable results folder is reported before the kernel is prepared, and no old result or summary remains."""
        self.run_main("one")
        (self.out / "results/one").rename(self.root / "elsewhere")
        (self.out / "results/one").symlink_to(self.root / "elsewhere")
        self.check(0, "one: green", "one")  # the symlink in its place is removed
        self.assertFalse((self.out / "results/one").is_symlink())
        with mock.patch(f"{__name__}.prepared", side_effect=AssertionError("prepared")):
            for name in ("matrix.main.shutil.rmtree", "matrix.main.tempfile.TemporaryFile"):
                with mock.patch(name, side_effect=OSError(30, "Read-only file system")):
                    self.check(3, "Read-only file system; make ", "one")
            shutil.rmtree(self.out / "results")
            (self.out / "results").touch()
            self.check(3, "results writable or use another build folder (--out DIR)", "one")
            self.check(3, "results writable or use another build folder (--out DIR)", "--merge", str(self.root))

    def test_disk_full(self) -> None:
        """A full disk, in a child or in our own writes, ends the run, and no old result remains."""
        self.run_main("one")
        self.play(build={"status": 1, "text": "as: No space left on device"})
        self.check(3, "disk full", "one")
        self.play()
        proc._stopping.clear()  # pylint: disable=protected-access
        with mock.patch("matrix.verdict.report.write_json", side_effect=OSError(28, "No space left on device")):
            self.check(3, "disk full", "one")
        self.assertFalse((self.out / "results/one/result.json").exists())
        self.assertFalse((self.out / "results/summary.json").exists())

    def test_build_folder(self) -> None:
        """One that cannot be used is reported with what to do; the project itself and an empty name are refused."""
        (self.root / "file").touch()
        self.check(3, "use another build folder (--out DIR, make O=DIR)", "one", "--out", str(self.root / "file"))
        with mock.patch("matrix.main.locked", side_effect=OSError(30, "Read-only file system", "x/.lock")):
            self.check(3, "Read-only file system: 'x/.lock'; make it accessible, or use another build folder", "one")
        self.check(2, "is the project itself; choose another build folder", "one", "--out", str(self.root))
        self.check(2, "--out: the name of a folder is empty", "one", "--out", "")
        self.assertFalse((self.root / "results").exists())

    def test_encoding(self) -> None:
        """What the terminal cannot show is escaped."""
        with mock.patch("sys.stdout", io.TextIOWrapper(io.BytesIO(), "latin-1")) as terminal:
            self.assertEqual(session.guarded("x", lambda: terminal.write("… é") - 3), 0)
            terminal.seek(0)
            self.assertEqual(terminal.buffer.read(), b"\\u2026 \xe9")

    def test_locked(self) -> None:
        """A second run in the same build folder is refused."""
        self.out.mkdir()
        with open(self.out / ".lock", "w+", encoding="ascii") as lock:
            lock.write("4321\n")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.check(2, "is in use by process 4321", "one")
            self.check(0, '["one", "two"]', "--cells-json", "gate")


class Stopped(Fake):
    """Signals, with a real process."""

    def wait_for(self, child: subprocess.Popen[str], verb: str) -> None:
        """Wait until the fake kunit.py has been called with verb."""
        end = time.monotonic() + 10
        while time.monotonic() < end and child.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                if any(call[0] == verb for call in self.calls()):
                    return
            time.sleep(0.02)
        self.fail(f"no {verb}: {child.communicate()[0]}")

    def test_interrupt(self) -> None:
        """Ctrl-C and SIGTERM in each phase: no child survives, no result remains, the next run is green."""
        for signum, verb, status in ((signal.SIGINT, "config", 130), (signal.SIGINT, "build", 130), (signal.SIGTERM, "exec", 143)):
            with self.subTest(verb):
                self.play(**{verb: {"text": "x", "seconds": 60}})
                child = self.start()
                self.wait_for(child, verb)
                child.send_signal(signum)
                text = child.communicate(timeout=10)[0]
                self.assertEqual(child.returncode, status, text)
                self.assertIn("interrupted", text)
                self.assertNotIn("Traceback", text)
                self.assertEqual(list((self.out / "results").rglob("*.json")), [])
                (self.out / "linux-7.3.4/tree/calls").unlink()
                self.play()
                self.assertEqual(self.run_main()[0], 0)
                (self.out / "linux-7.3.4/tree/calls").unlink()
                shutil.rmtree(self.out / "results")

    def test_killed(self) -> None:
        """kill -9: the lock is held while the child kunit.py lives; after that, the next run is green."""
        self.play(build={"text": "x", "seconds": 2})
        child = self.start("one")
        self.wait_for(child, "build")
        child.kill()
        child.wait()
        self.assertEqual(self.run_main("one")[0], 2)
        end = time.monotonic() + 10
        while (status := self.run_main("one")[0]) == 2 and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(status, 0)


class Shim(unittest.TestCase):
    """matrix/cell/shim/qemu-system."""

    def test_arguments(self) -> None:
        """The last -accel counts that is not hardware; all other arguments are passed on unchanged."""
        with tempfile.TemporaryDirectory() as name:
            shown = Path(name) / "qemu-system-x86_64"
            shown.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
            shown.chmod(0o755)
            argv = ["-append", "a 'b' -accel $c", "-accel", "kvm", "-accel", "hvf", "-accel", "tcg", "",
                    "-accel", "tcg,x=y", "-accel", "kvm,x=y", "*", "-accel"]  # fmt: skip
            shim = ROOT / "matrix/cell/shim"
            done = subprocess.run([shim / "qemu-system-x86_64", *argv], env={"PATH": f"{shim}:{name}:/usr/bin:/bin"},
                                  check=True, capture_output=True, text=True, timeout=9)  # fmt: skip
            self.assertEqual(done.stdout, "<-accel><tcg,x=y><-append><a 'b' -accel $c><><*><-accel>")

    def test_no_qemu(self) -> None:
        """Without a QEMU the wrapper fails, instead of calling itself forever."""
        shim = ROOT / "matrix/cell/shim"
        done = subprocess.run([shim / "qemu-system-aarch64"], env={"PATH": f"{shim}:/nonexistent"},
                              check=False, capture_output=True, text=True, timeout=9)  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (127, "qemu-system-aarch64: not found; run tools/setup\n"))


class Listing(Fake):
    """--list, --cells-json, --help."""

    def test_list(self) -> None:
        """Every cell is listed with what it proves; --cells-json prints the cells of a CI job."""
        self.assertRegex(self.run_main("--list")[1], r"extra +extra works\n")
        text = (self.root / "matrix/cells.toml").read_text()
        (self.root / "matrix/cells.toml").write_text(text.replace('name = "two"', 'name = "two"\nmutants = true\ngenerated = false'))
        for job, names in (("gate", ["one", "two"]), ("scheduled", ["extra"]), ("mutants", ["two"]), ("generated", ["one", "extra"]),
                           ("vmm", []), ("bench", [])):
            self.assertEqual(json.loads(self.run_main("--cells-json", job)[1]), names)
        status, text = self.run_main("--help")
        self.assertEqual(status, 0)
        self.assertIn("examples:", text)

    def test_the_program(self) -> None:
        """matrix/run works with the project's own cells, from another directory."""
        done = subprocess.run([ROOT / "matrix/run", "--cells-json", "gate"], cwd="/", check=True, capture_output=True, text=True)
        self.assertEqual(json.loads(done.stdout), ["arm64-thp", "x86_64-thp", "arm64-nothp", "x86_64-nothp"])
        self.assertNotIn(" ", shlex.quote(str(ROOT)))


if __name__ == "__main__":
    unittest.main()

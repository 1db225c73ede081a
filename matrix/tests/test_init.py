# SPDX-License-Identifier: GPL-2.0
"""Test how matrix/cell/init.c reads its list, and how it judges a selftest by output and exit status."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from matrix.cell.selftests import INIT_FLAGS

INIT = Path(__file__).resolve().parents[1] / "cell/init.c"
# With arguments "ended" and wait status: read the output of a selftest from stdin, as run() does from the pipe.
# With one argument: read this list, print it, and hold its device.
# With "parameters" and a module: print the module's name, and its parameters on the kernel command line in stdin.
HARNESS = f"""
#define main init_main
#include "{INIT}"
#undef main

static int show(const char *path)
{{
	static struct test tests[MAX_TESTS + 1];
	struct setup setup = {{}};
	int i, count = read_tests(path, &setup, tests);

	for (i = 0; i < setup.nr_modules; i++)
		printf("module %s\\n", setup.modules[i]);
	printf("%s %s %#lx\\n", setup.suite, setup.device, setup.request);
	for (i = 0; i < count; i++)
		printf("%s %d %s %s %s\\n", tests[i].name, tests[i].seconds, tests[i].hugepages, tests[i].argv[0], tests[i].argv[1]);
	fflush(stdout);
	hold(&setup);
	return access("/proc/self/fd/3", F_OK) ? 0 : 3;
}}

static int show_parameters(const char *path)
{{
	char name[NAME_SIZE], parameters[LINE_SIZE], command_line[4 * LINE_SIZE];

	name_of(path, name);
	parameters_of(name, fgets(command_line, sizeof(command_line), stdin), parameters);
	printf("%s: %s\\n", name, parameters);
	return 0;
}}

int main(int argc, char **argv)
{{
	static const char * const words[] = {{ "pass", "fail", "skip" }};
	struct test test = {{ .name = "t", .seconds = 7 }};
	static struct output out;
	enum status status;

	kmsg = 1;
	if (argc == 2)
		return show(argv[1]);
	if (argc != 3)
		return 2;
	if (!strcmp(argv[1], "parameters"))
		return show_parameters(argv[2]);
	out.name = test.name;
	while (take_output(&out, 0))
		;
	if (out.length)
		take_line(&out);
	status = judge(&out, &test, !strcmp(argv[1], "ended"), atoi(argv[2]));
	printf("\\n%s\\n%s\\n", words[status], status == FAIL ? out.why : out.skip);
	return 0;
}}
"""
TAP = "TAP version 13\n1..2\nok 1 one\n"


def exited(code: int) -> int:
    """Return the wait status of a process that exits with this code."""
    return code << 8


class Init(unittest.TestCase):
    """Compile the program."""

    program: Path

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        cls.addClassCleanup(folder.cleanup)
        cls.program = Path(folder.name) / "judge"
        flags = [flag for flag in INIT_FLAGS if flag != "-static"]
        subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", cls.program], input=HARNESS, text=True, check=True, timeout=60)


class Listed(Init):
    """Reading the list."""

    def read(self, text: str) -> subprocess.CompletedProcess[str]:
        """Return the program's output for this list; its exit status is 3 when it keeps a file open."""
        path = self.program.with_name("tests")
        path.write_text(text)
        return subprocess.run([self.program, path], text=True, check=False, capture_output=True, timeout=60)

    def test_lines(self) -> None:
        """Suite, device to hold, and selftests with arguments are read; an empty list is valid."""
        done = self.read("suite some_tests\n60 0 /selftests/one\n\n9 32 /selftests/two -n\n")
        self.assertEqual(done.stdout, "some_tests (null) 0\none 60 0 /selftests/one (null)\ntwo 9 32 /selftests/two -n\n")
        self.assertEqual(done.returncode, 0)
        self.assertEqual((self.read("").stdout, self.read("").returncode), ("(null) (null) 0\n", 0))

    def test_hold(self) -> None:
        """The device stays open. A failed ioctl ends the boot; a missing device does not."""
        for line, shown, status in (
            ("hold /dev/null", "/dev/null 0", 3),
            ("hold /dev/null 0xae01", "/dev/null 0xae01", 1),
            ("hold /no/such 0xae01", "/no/such 0xae01", 0),
        ):
            with self.subTest(line):
                done = self.read(f"suite s\n{line}\n1 0 /x\n")
                self.assertEqual((done.stdout.split("\n")[0], done.returncode), (f"s {shown}", status))

    def test_modules(self) -> None:
        """Modules are read in their order, up to the largest number."""
        self.assertEqual(self.read("module /b.ko\nmodule /a.ko\n").stdout, "module /b.ko\nmodule /a.ko\n(null) (null) 0\n")
        self.assertEqual([self.read("module /m.ko\n" * count).returncode for count in (16, 17)], [0, 1])

    def test_parameters(self) -> None:
        """A module gets its parameters from the kernel command line, where '-' in its name is '_', and no others."""
        def parameters(module: str, command_line: str) -> str:
            argv = [str(self.program), "parameters", module]
            return subprocess.run(argv, input=command_line, text=True, check=True, capture_output=True, timeout=60).stdout

        words = "console=ttyS0 kvm.x=a-b kvm-amd.npt=0 kvm_amd.avic=1 kvm=9 notkvm.y=1 kvm.flag\n"
        self.assertEqual(parameters("/modules/kvm-amd.ko", words), "kvm_amd: npt=0 avic=1 \n")
        self.assertEqual(parameters("/modules/kvm.ko", words), "kvm: x=a-b flag \n")
        self.assertEqual(parameters("/modules/kunit.ko", words), "kunit: \n")
        with self.assertRaises(subprocess.CalledProcessError):
            parameters("/kvm.ko", "kvm.x=" + "x" * 800)

    def test_malformed(self) -> None:
        """A malformed list makes init exit, so the kernel panics."""
        for text in ("1 0 /x\n", "suite s\n0 0 /x\n", "suite s\n1 0\n", "suite s\n" + "1 0 /x\n" * 65, "suite s\n1 0" + " x" * 17):
            with self.subTest(text):
                self.assertEqual(self.read(text).returncode, 1)
        self.assertEqual(self.read("suite s\n" + "1 0 /x\n" * 64).returncode, 0)


class Judge(Init):
    """Judging a selftest."""

    def judge(self, output: str, status: int, ended: bool = True) -> tuple[str, str, str]:
        """Return the verdict, its reason, and the lines that were printed."""
        argv = [str(self.program), "ended" if ended else "killed", str(status)]
        done = subprocess.run(argv, input=output, text=True, check=True, capture_output=True, timeout=60)
        passed_on, verdict, why, end = done.stdout.split("\n")
        self.assertEqual(end, "")
        return verdict, why, passed_on

    def test_exit_status(self) -> None:
        """Without TAP the exit status decides; a killed selftest has failed."""
        for output, status, ended, expected in (
            ("", exited(0), True, ("pass", "")),
            ("words\n", exited(0), True, ("pass", "")),
            ("", exited(1), True, ("fail", "exit status 1")),
            ("", exited(127), True, ("fail", "exit status 127")),
            ("", exited(4), True, ("skip", "")),
            ("1..0 # SKIP no such thing\n", exited(4), True, ("skip", "no such thing")),
            ("", 11, True, ("fail", "signal 11")),
            ("", exited(0), False, ("fail", "its time limit of 7 s")),
            ("==== Test Assertion Failure ====\n  a.c:1: x\n", exited(254), True, ("fail", "a.c:1: x")),
        ):
            with self.subTest(output=output, status=status, ended=ended):
                self.assertEqual(self.judge(output, status, ended)[:2], expected)

    def test_tap(self) -> None:
        """TAP must be complete and agree with the exit status; a failure in it is final."""
        whole = "the end of its TAP, which is not whole"
        for output, code, expected in (
            (f"{TAP}ok 2 two\n", 0, ("pass", "")),
            (f"{TAP}ok 2 two", 0, ("pass", "")),  # no newline at its end
            (f"{TAP}ok 2 two # SKIP not here\n", 0, ("pass", "")),
            ("KTAP version 1\n1..1\nok 1 one # SKIP not here\n", 0, ("skip", "")),
            (f"{TAP}ok 2 two\n", 1, ("fail", "exit status 1")),
            (f"{TAP}not ok 2 two\n", 0, ("fail", "exit status 0")),
            (f"{TAP}not ok 2 two\n", 1, ("fail", "exit status 1")),
            (f"{TAP}not ok 2 two # SKIP no excuse\n", 0, ("fail", "exit status 0")),
            (f"{TAP}not ok 2 two\n", 4, ("fail", "exit status 4")),
            ("TAP version 13\n1..2\nnot ok 1 one\n", 4, ("fail", "exit status 4")),
            ("TAP version 13\n1..2\nok 1 one\n", 4, ("skip", "")),
            (TAP, 0, ("fail", whole)),
            (f"{TAP}ok 3 two\n", 0, ("fail", whole)),
            (f"{TAP}ok two\n", 0, ("fail", whole)),
            (f"{TAP}ok 2 two\nok 3 three\n", 0, ("fail", whole)),
            (f"{TAP}\x1bok 2 two\n", 0, ("fail", whole)),
            ("TAP version 13\nok 1 one\n", 0, ("fail", whole)),
            ("not ok 1 no TAP\n", 0, ("pass", "")),
        ):
            with self.subTest(output=output, code=code):
                self.assertEqual(self.judge(output, exited(code))[:2], expected)

    def test_limits(self) -> None:
        """The limits for results, lines and line length are enforced."""
        results = ["TAP version 13", *(f"ok {number} n" for number in range(1, 258))]
        for count, expected in ((256, "pass"), (257, "fail")):
            text = "\n".join([results[0], f"1..{count}", *results[1 : count + 1]])
            self.assertEqual(self.judge(text, exited(0))[0], expected)
            first_fails = text.replace("ok 1 n", "not ok 1 n", 1)
            self.assertEqual(self.judge(first_fails, exited(4))[0], "fail")
        verdict, _, passed_on = self.judge("x\n" * 3000 + f"{TAP}not ok 2 two\n", exited(4))
        self.assertEqual((verdict, passed_on.count("x"), "no more of its output than 2000" in passed_on), ("fail", 1999, True))
        verdict, _, passed_on = self.judge(f"{'y' * 5000}\n{TAP}ok 2 two\n", exited(0))
        self.assertEqual((verdict, passed_on.count("y")), ("pass", 5000))


if __name__ == "__main__":
    unittest.main()

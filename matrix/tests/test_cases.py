# SPDX-License-Identifier: GPL-2.0
"""Run the golden cases: the folders of matrix/verdict/cases, see matrix/README.md."""

import io
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

from matrix.cell.cells import options
from matrix.verdict.evidence import Evidence, differences
from matrix.verdict.expected import load
from matrix.verdict.judge import Verdict, judge

CASES = Path(__file__).resolve().parents[1] / "verdict/cases"
BANNER = "Linux version 7.3.4 (user@host) (gcc (Debian 12.2.0-14) 12.2.0) #13 SMP PREEMPT"  # of the cases by hand
# Where a splat.txt is inserted into a clean console: before the match; the additional reasons if the console ends
# there; and the position that the verdict must report.
PLACES = {
    "first line": (r"\A", "before", "before the tests"),
    "before the tests": (r"^KTAP version 1\n", "before", "before the tests"),
    "in a suite": (r"^    ok 2 ", "inside", " in kvm_gmem_"),
    "among parameters": (r"^        ok 2 ", "inside", " in kvm_gmem_"),
    "between suites": (r"^    KTAP version 1\n    # Subtest: (?!kvm_gmem_create)", "inside", "between suites, after kvm_gmem_create"),
    "after the tests": (r"^kvm: exiting", "after", "after the tests"),
    "after the reboot": (r"(?<=^reboot: Restarting system\n)", "late", "after the tests"),
    "last line": (r"\Z", "late", "after the tests"),
}

# Print the reasons for a case's console followed by 200 MB of messages, and the peak memory usage in KB.
LOOP = """
import io, pathlib, resource, sys
from matrix.verdict.evidence import Evidence
from matrix.verdict.expected import load
from matrix.verdict.judge import judge
folder = pathlib.Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
class Loop(io.RawIOBase):
    left = 200 << 20
    data = (folder / "console.log").read_bytes()
    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        while len(self.data) < size:
            self.data += b"[    7.654321] clocksource: Long readout interval, skipping watchdog check: 1 2\\n" * 10000
        data, self.data = self.data[:size], self.data[size:]
        return data
found = judge(Evidence({}, {}, load(folder / "manifest.txt").of(""), frozenset(), console=Loop()))
print(*found.reasons, sep="; ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def text(path: Path) -> str:
    """Return the content of a file, "" when it is missing."""
    return path.read_text("utf-8") if path.exists() else ""


def verdict(folder: Path, console: bytes | None, given: dict[str, Any]) -> Verdict:
    """Judge the files in a folder, with this console."""
    fields: dict[str, Any] = {
        "asked": options(text(folder / "asked.config")), "got": options(text(folder / ".config")),
        "expected": load(folder / "manifest.txt").of(""), "build_log": text(folder / "build.log"),
        "touched": frozenset(given.get("touched", ())), "banner": BANNER,
    }  # fmt: skip
    fields |= {key: value for key, value in given.items() if key != "touched"}
    return judge(Evidence(**fields, console=None if console is None else io.BytesIO(console)))


class Cases(unittest.TestCase):
    """The verdict on each folder agrees with its expected.json."""

    def check(self, found: Verdict, expected: dict[str, Any], reasons: list[list[str]]) -> None:
        """Check the verdict, every expected reason, and that no reason has another code."""
        self.assertEqual("green" if found.green else "red", expected["verdict"], list(map(str, found.reasons)))
        self.assertEqual(differences(found.reasons, reasons), [])

    def test_consoles(self) -> None:
        """Cases with a console.log, or without a boot."""
        folders = [path for path in sorted(CASES.iterdir()) if path.is_dir() and not (path / "splat.txt").exists()]
        self.assertGreater(len(folders), 40)
        for folder in folders:
            with self.subTest(folder.name):
                expected = json.loads(text(folder / "expected.json"))
                path = folder / "console.log"
                found = verdict(folder, path.read_bytes() if path.exists() else None, expected.get("given", {}))
                self.check(found, expected, expected["reasons"])

    def test_splats(self) -> None:
        """Cases with a splat.txt: it makes a clean console red at each place, and is reported there."""
        folders = [path.parent for path in sorted(CASES.glob("*/splat.txt"))]
        self.assertGreater(len(folders), 30)
        for folder in folders:
            expected = json.loads(text(folder / "expected.json"))
            splat, into = text(folder / "splat.txt"), CASES / expected["into"]
            clean = text(into / "console.log")
            for place, (pattern, group, where) in PLACES.items():
                with self.subTest(folder.name, place=place):
                    match = re.search(pattern, clean, re.MULTILINE)
                    assert match
                    start = match.start()
                    if isinstance(reasons := expected["reasons"], dict):
                        console, reasons = clean[:start] + splat, reasons[group]
                    else:
                        console = clean[:start] + splat + clean[start:]
                    found = verdict(into, console.encode(), json.loads(text(into / "expected.json"))["given"])
                    self.check(found, expected, reasons)
                    for label in (text for code, text in reasons if code == "splat"):
                        self.assertTrue(any(reason.text.startswith(f"{label} ") for reason in found.reasons), label)
                    self.assertIn(where, found.reasons[0].text)

    def test_200_megabytes(self) -> None:
        """A kernel that prints forever is red, although the part that is read is clean; judging takes seconds and little memory."""
        done = subprocess.run([sys.executable, "-c", LOOP, str(CASES / "clean-x86_64-thp")], cwd=CASES.parents[2],
                              check=True, capture_output=True, text=True, timeout=120)  # fmt: skip
        reasons, peak = done.stdout.splitlines()
        self.assertIn("console: more than 16 MB or 250000 lines: the rest was not read", reasons)
        self.assertLess(int(peak), 100 << 10)


if __name__ == "__main__":
    unittest.main()

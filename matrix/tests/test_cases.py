# SPDX-License-Identifier: GPL-2.0
"""The golden cases: a folder each in matrix/cases, see matrix/README.md."""

import json
import unittest
from pathlib import Path

from matrix import manifest
from matrix.cells import options
from matrix.verdict import Evidence, judge

CASES = Path(__file__).resolve().parents[1] / "cases"


def text(path: Path) -> str:
    """The content of a file, "" when it is not there."""
    return path.read_text("utf-8") if path.exists() else ""


class Cases(unittest.TestCase):
    """Each folder comes out as its expected.json says."""

    def test_cases(self) -> None:
        """Verdict, every expected reason, and no reason of another kind."""
        folders = sorted(path for path in CASES.iterdir() if path.is_dir())
        self.assertTrue(folders)
        for folder in folders:
            with self.subTest(folder.name), open(folder / "console.log", "rb") as console:
                expected = json.loads(text(folder / "expected.json"))
                given = expected.get("given", {})
                found = judge(Evidence(
                    asked=options(text(folder / "asked.config")), got=options(text(folder / ".config")),
                    manifest=manifest.load(folder / "manifest.txt"), build_log=text(folder / "build.log"),
                    touched=frozenset(given.pop("touched", ())), console=console, **given,
                ))  # fmt: skip
                reasons = [str(reason) for reason in found.reasons]
                self.assertEqual("green" if found.green else "red", expected["verdict"], reasons)
                self.assertEqual({reason.code for reason in found.reasons}, {code for code, _ in expected["reasons"]}, reasons)
                for code, part in expected["reasons"]:
                    self.assertTrue(any(line.startswith(code + ": ") and part in line for line in reasons), reasons)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: GPL-2.0
"""Test that the folders of matrix/ form layers, and that no program imports the command line."""

import re
import unittest
from pathlib import Path

MATRIX = Path(__file__).resolve().parents[1]
LAYERS = ("common", "tree", "verdict", "cell", "proof", "main")  # each may import those before it
IMPORT = re.compile(r"^\s*(?:from|import) matrix(?:\.| import )(\w+)", re.MULTILINE)


class Layers(unittest.TestCase):
    """Imports between modules."""

    def test_imports_go_down(self) -> None:
        """A module imports only its own folder and lower layers; tree/ and verdict/ are independent."""
        seen = 0
        for path in MATRIX.rglob("*.py"):
            layer = path.relative_to(MATRIX).parts[0].removesuffix(".py")
            if layer in LAYERS:
                below = {*LAYERS[: LAYERS.index(layer)], layer} - ({"tree"} if layer == "verdict" else set())
                found = set(IMPORT.findall(path.read_text("utf-8")))
                seen += len(found)
                self.assertLessEqual(found, below, path.name)
        self.assertGreater(seen, 30)

    def test_nothing_imports_the_command_line(self) -> None:
        """Only matrix/run imports matrix.main."""
        root = MATRIX.parent
        programs = [path for folder in ("tools", "ci") for path in (root / folder).iterdir() if path.is_file()]
        self.assertEqual([path.name for path in programs if "matrix.main" in path.read_text("utf-8", "replace")], [])


if __name__ == "__main__":
    unittest.main()

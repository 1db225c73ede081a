# SPDX-License-Identifier: GPL-2.0
"""Stands in for tools/testing/kunit/kunit.py in a fake tree.

What it does is in scenario.json beside the tree's root: verb -> {status, text, seconds, config}. The verb of a boot for
the selftests is "e2e".
"""

import json
import sys
import time
from pathlib import Path


def main() -> int:
    """Plays the scenario for the verb."""
    tree = Path(__file__).resolve().parents[3]
    verb, options = sys.argv[1], sys.argv[2:]
    folder = next((Path(word.partition("=")[2]) for word in options if word.startswith("--build_dir=")), tree)
    scenario = json.loads((tree / "scenario.json").read_text("utf-8"))
    key = "e2e" if verb == "exec" and any(word.endswith("/e2e.py") for word in options) else verb
    play = {**scenario.get(key, {}), **scenario.get(f"{key} {folder.name}", {})}
    with open(tree / "calls", "a", encoding="utf-8") as calls:
        calls.write(json.dumps([verb, *options]) + "\n")
    if verb == "config":
        asked = [Path(word.partition("=")[2]) for word in options if word.startswith("--kunitconfig=")]
        text = "".join(path.read_text("utf-8") for path in asked)
        (folder / ".config").write_text(play.get("config", text), "utf-8")
    if verb == "parse" and "status" not in play:
        junit = next(word.partition("=")[2] for word in options if word.startswith("--junit="))
        Path(junit).write_text("<testsuite/>", "utf-8")
    print(play.get("text", ""), flush=True)
    time.sleep(play.get("seconds", 0))
    return int(play.get("status", 0))


if __name__ == "__main__":
    sys.exit(main())

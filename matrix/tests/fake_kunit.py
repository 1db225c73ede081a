# SPDX-License-Identifier: GPL-2.0
"""A fake tools/testing/kunit/kunit.py for a fake tree.

What it does is in scenario.json beside the tree's root: verb -> {status, text, seconds, config, objects, lost}. The verb of a boot for
the selftests is "e2e".
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

BANNER = "Linux version 7.3.4 (user@host) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC"
HEADERS = {
    "utsrelease.h": '#define UTS_RELEASE "7.3.4"\n',
    "utsversion.h": '#define UTS_VERSION "#1 SMP PREEMPT_DYNAMIC"\n',
    "compile.h": '#define UTS_MACHINE\t\t"x86_64"\n#define LINUX_COMPILE_BY\t"user"\n#define LINUX_COMPILE_HOST\t"host"\n'
                 '#define LINUX_COMPILER\t\t"gcc (Debian 12.2.0-14) 12.2.0"\n',
}


def compile_objects(tree: Path, folder: Path, objects: list[dict[str, Any]]) -> tuple[int, str]:
    """Fake make for {name, deps, text, status}: build what is missing, stop at an error. Return (status, compiler output)."""
    said = ""
    for one in objects:
        target = folder / one["name"]
        if target.exists():
            continue
        with open(tree / "compiled", "a", encoding="utf-8") as compiled:
            compiled.write(f"{target.name}\n")
        said += one.get("text", "")
        if one.get("status"):
            return 1, f"ERROR:root:{said}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        deps = "".join(f"  /x/{name} \\\n" for name in one["deps"])
        target.with_name(f".{target.name}.cmd").write_text(f"savedcmd_x := cc\n\ndeps_x := \\\n{deps}\nx: $(deps_x)\n\n$(deps_x):\n")
    return 0, said


def main() -> int:
    """Play the scenario of the verb."""
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
        added = [word.partition("=")[2] for word in options if word.startswith("--kconfig_add=")]
        text = "\n".join([*(path.read_text("utf-8") for path in asked), *added])
        (folder / ".config").write_text(play.get("config", text), "utf-8")
    if verb == "parse" and "status" not in play:
        junit = next(word.partition("=")[2] for word in options if word.startswith("--junit="))
        Path(junit).write_text("<testsuite/>", "utf-8")
    status, said = compile_objects(tree, folder, play.get("objects", []))
    if play.get("lost") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if play.get("lost") == "hangs":
        time.sleep(60)
    if play.get("lost") == "traceback":
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "as kunit.py does on what a compiler says")
    if verb == "build":
        generated = folder / "include/generated"
        generated.mkdir(parents=True, exist_ok=True)
        for name, text in HEADERS.items():
            (generated / name).write_text(text, "utf-8")
    text = play.get("text", "")
    if verb == "exec" and "KTAP version" in text:  # as the kernel would, unless the scenario overrides it
        words = [word.partition("=")[2] for word in options if word.startswith("--kernel_args=")]
        words += ["kunit.filter_glob=" + word for word in options if not word.startswith("-")]
        initramfs = any(word.startswith("--qemu_config=") and word.endswith(("/e2e.py", "/kunit.py")) for word in options)
        words += ["kunit.enable=1", "kunit_shutdown=reboot", *(["kunit_shutdown=none"] if initramfs else [])]
        words += ["kunit.enable=0"] if key == "e2e" else []
        print("Command line:", *(() if play.get("no_arguments") else words))
        if "Linux version" not in text:
            print(play.get("banner", BANNER))
    print(text, said, sep="\n", flush=True)
    time.sleep(play.get("seconds", 0))
    return int(play.get("status", status))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0
"""A kernel tree of a few files, a project with a series for it, and a cache that contains its tarball."""

import hashlib
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

OLD = 1_600_000_000  # the mtime of everything in the tarball
MAKEFILE = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"
NUMBERS = "".join(f"line {n}\n" for n in range(1, 31))
PATCH = """From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Person <a@example.org>
Date: Sun, 22 Nov 2026 12:00:00 +0000
Subject: [PATCH] KVM: {subject}

Because.

Signed-off-by: A Person <a@example.org>
---
"""
FIRST = PATCH.format(subject="Number ten") + """diff --git a/virt/kvm/guest_memfd.c b/virt/kvm/guest_memfd.c
--- a/virt/kvm/guest_memfd.c
+++ b/virt/kvm/guest_memfd.c
@@ -7,7 +7,7 @@ line 6
 line 7
 line 8
 line 9
-line 10
+line ten
 line 11
 line 12
 line 13
"""
SECOND = PATCH.format(subject="A new file, and one less") + """diff --git a/virt/kvm/new.c b/virt/kvm/new.c
new file mode 100644
--- /dev/null
+++ b/virt/kvm/new.c
@@ -0,0 +1 @@
+new
diff --git a/mm/gone.c b/mm/gone.c
deleted file mode 100644
--- a/mm/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-gone
"""


class FakeKernel(unittest.TestCase):
    """Provide self.root (the project), self.out, self.cache and self.upstream (the unpacked source)."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        self.addCleanup(folder.cleanup)
        self.top = Path(folder.name).resolve()
        self.root, self.out, self.cache = self.top / "project", self.top / "build", self.top / "cache"
        self.upstream = self.top / "linux-7.3.4"
        self.said: list[str] = []
        env = {"GMEM_CACHE": str(self.cache), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        patch = mock.patch.dict(os.environ, env)
        patch.start()
        self.addCleanup(patch.stop)
        for name, text in {"Makefile": MAKEFILE, "Kbuild": "", "virt/kvm/guest_memfd.c": NUMBERS,
                           "virt/kvm/kvm_main.c": "main\n", "mm/gone.c": "gone\n", "scripts/run.sh": "#!/bin/sh\n",
                           ".gitignore": "*.o\n/*\n!/debian/\n"}.items():
            write(self.upstream / name, text, OLD)
        (self.upstream / "scripts/run.sh").chmod(0o755)
        (self.upstream / "scripts/link").symlink_to("run.sh")
        os.utime(self.upstream / "scripts/run.sh", (OLD, OLD))
        write(self.root / "kernel/7.3/source.toml", 'version = "7.3.4"\n[debian]\npackage = "linux-source-7.3"\n'
              'suite = "trixie-backports"\nkeyring = "/nowhere"\n')
        write(self.root / "project.toml", 'suites = "virt/kvm/tests"\n[build]\nx86_64 = []\narm64 = []\n')
        write(self.root / "kunit/Makefile", "obj-y += gmem_kunit.o\n")
        write(self.root / "kunit/gmem_kunit.c", "test\n")
        write(self.root / "kunit/.kunitconfig", "CONFIG_KUNIT=y\n")
        write(self.root / "kunit/README.md", "not for the tree\n")
        self.set_series(FIRST, SECOND)
        self.fill_cache()

    def set_series(self, *patches: str) -> None:
        """Make these patches the series."""
        names = [f"{n:04}-p.patch" for n, _ in enumerate(patches, 1)]
        for name, text in zip(names, patches):
            write(self.root / "kernel/7.3" / name, text)
        write(self.root / "kernel/7.3/series", "# in order\n" + "".join(f"{name}\n" for name in names))

    def fill_cache(self) -> Path:
        """Put a tarball of self.upstream into the cache, as a download would."""
        self.cache.mkdir(exist_ok=True)
        tarball = self.cache / "linux-7.3.4.tar.xz"
        subprocess.run(["tar", "-cJf", str(tarball), "-C", str(self.top), "linux-7.3.4"], check=True)
        note = {"file": tarball.name, "sha256": hashlib.sha256(tarball.read_bytes()).hexdigest(), "version": "7.3.4",
                "origin": "Debian linux-source-7.3 7.3.4-1", "pin": "7.3.4"}
        write(self.cache / "linux-7.3.4.tar.xz.json", json.dumps(note))
        return tarball

    def say(self, line: str) -> None:
        """Collect the progress lines."""
        self.said.append(line)


def write(path: Path, text: str, mtime: int | None = None) -> Path:
    """Write a file and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def snapshot(top: Path) -> dict[str, tuple[str, int, int, int]]:
    """Return content, mode, mtime and inode of all files under top."""
    found = {}
    for folder, dirs, files in os.walk(top):
        for name in [*dirs, *files]:
            path = Path(folder, name)
            stat = path.lstat()
            text = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text(errors="replace")
            inode = 0 if path.is_dir() else stat.st_ino
            found[str(path.relative_to(top))] = (text, stat.st_mode, 0 if path.is_dir() else stat.st_mtime_ns, inode)
    return found

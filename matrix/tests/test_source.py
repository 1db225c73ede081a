# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.source with a fake apt-get, and with the real one and a local archive."""

import dataclasses
import os
import re
import shutil
import subprocess
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.tree import apt, cache, source
from matrix.common.errors import MachineError, WrongUse
from matrix.tests import debian
from matrix.tests.fake_kernel import FakeKernel, write

DEBIAN = "Debian linux-source-7.3 7.3.5-1~bpo13+1"
APT_GET = """#!/bin/sh
echo "$*" >>"$FAKE_APT/log"
case "$*" in
*indextargets*) echo "http://127.0.0.1:9/debian/ http://127.0.0.1:9/debian-security/";;
*update*) for d in "$@"; do case $d in Dir::Etc::sourceparts=*) cat "${d#*=}"/*;; esac; done >"$FAKE_APT/sources";;
*download*) cp "$FAKE_APT/linux-source-7.3.deb" ./ || { echo "E: Unable to locate package"; exit 100; };;
esac
"""


class Source(FakeKernel):
    """A fake apt, with a package that is newer than the pin."""

    def setUp(self) -> None:
        super().setUp()
        self.tarball = self.fill_cache().read_bytes()
        shutil.rmtree(self.cache)
        keyring = self.top / "keyring.gpg"
        write(keyring, "")
        self.pin = source.Pin("7.3", "7.3.4", "linux-source-7.3", "trixie-backports", keyring)
        self.apt = self.top / "apt"
        write(self.apt / "bin/apt-get", APT_GET)
        (self.apt / "bin/apt-get").chmod(0o755)
        self.template = self.top / "Debian.info"
        env = {"PATH": f"{self.apt}/bin:{os.environ['PATH']}", "FAKE_APT": str(self.apt)}
        self.enterContext(mock.patch.dict(os.environ, env))
        self.enterContext(mock.patch.object(apt, "TEMPLATE", self.template))
        self.deb = self.apt / "linux-source-7.3.deb"
        package = self.top / "deb"
        write(package / "DEBIAN/control", "Package: linux-source-7.3\nVersion: 7.3.5-1~bpo13+1\nArchitecture: all\n"
              "Maintainer: x <x@x>\nDescription: x\n")
        (package / "usr/src").mkdir(parents=True)
        (package / "usr/src/linux-source-7.3.tar.xz").write_bytes(self.tarball)
        subprocess.run(["dpkg-deb", "-b", str(package), str(self.deb)], check=True, capture_output=True)

    def fetch(self, **changes: Any) -> cache.Archive:
        """Call fetch() with some fields of the pin changed."""
        return source.fetch(dataclasses.replace(self.pin, **changes), self.say)

    def leftovers(self) -> list[str]:
        """Return the files in the cache."""
        return sorted(path.name for path in self.cache.iterdir() if path.name != ".lock")

    def test_fetch(self) -> None:
        """The archive names the version of the package, and is in the cache, complete."""
        got = self.fetch()
        self.assertEqual((got.version, got.origin, got.pin), ("7.3.5", DEBIAN, "7.3.4"))
        self.assertEqual(got.path.read_bytes(), self.tarball)
        self.assertEqual(self.leftovers(), [got.file, f"{got.file}.json"])

    def test_cache_first(self) -> None:
        """The second fetch() uses only the cache."""
        first = self.fetch()
        self.deb.unlink()
        self.assertEqual(self.fetch(), first)

    def test_cache_is_per_pin(self) -> None:
        """Another pin is downloaded separately."""
        self.fetch()
        self.deb.unlink()
        with self.assertRaisesRegex(MachineError, "cannot fetch Linux 7.3.9"):
            self.fetch(version="7.3.9")

    def test_a_damaged_cache_is_fetched_anew(self) -> None:
        """A truncated or changed tarball in the cache is downloaded again."""
        for text in (self.tarball[:-1], b"x" + self.tarball[1:]):
            path = self.fetch().path
            path.write_bytes(text)
            self.assertEqual(self.fetch().path.read_bytes(), self.tarball)
            self.assertTrue(any("fetching it again" in line for line in self.said))

    def test_without_its_note_a_tarball_does_not_count(self) -> None:
        """A tarball without note, as after kill -9, or with a truncated note is downloaded again."""
        path = self.fetch().path
        note = path.with_name(path.name + ".json")
        for text in ("", note.read_text()[:20], "[]"):
            note.write_text(text)
            path.write_bytes(b"half")
            self.assertEqual(self.fetch().path.read_bytes(), self.tarball)

    def test_a_system_that_is_not_debian(self) -> None:
        """Without a Debian archive in apt's sources, python-apt's template is used; if that is missing too, the error names its package."""
        write(self.apt / "bin/apt-get", APT_GET.replace("http://127.0.0.1:9/debian/ ", "http://127.0.0.1:9/ubuntu/ "))
        with self.assertRaisesRegex(MachineError, "this machine has no Debian archive.*python-apt-common"):
            self.fetch()
        write(self.template, "ChangelogURI: http://x/debian\nBaseURI: http://mirror/debian/\nBaseURI: http://security/\n")
        self.assertEqual(self.fetch().origin, DEBIAN)
        self.assertIn("URIs: http://mirror/debian/\n", (self.apt / "sources").read_text())

    def test_apt_is_asked_privately(self) -> None:
        """apt is called with Debian's main archive only, signed by the keyring, and with temporary folders."""
        self.fetch()
        text = (self.apt / "sources").read_text()
        self.assertIn("URIs: http://127.0.0.1:9/debian/\n", text)
        self.assertIn(f"Suites: trixie-backports\nComponents: main\nSigned-By: {self.pin.keyring}\n", text)
        for line in (self.apt / "log").read_text().splitlines():
            if "indextargets" not in line:
                for option in ("Dir::Etc::sourcelist=/dev/null", "Dir::State::Lists=", "Dir::Cache="):
                    self.assertIn(option, line)

    def test_apt_has_no_such_package(self) -> None:
        """The error has apt's reason, and says what to do."""
        self.deb.unlink()
        with self.assertRaisesRegex(MachineError, r"Unable to locate package.*KSRC=dir"):
            self.fetch()
        self.assertEqual(self.leftovers(), [])

    def test_no_apt_no_keyring(self) -> None:
        """Without apt-get or the keyring, the error names what is missing."""
        with self.assertRaisesRegex(MachineError, "package debian-archive-keyring"):
            self.fetch(keyring=self.top / "absent")
        with mock.patch.object(shutil, "which", return_value=None):
            with self.assertRaisesRegex(MachineError, "apt-get is not installed"):
                self.fetch()

    def test_disk_full_and_unwritable(self) -> None:
        """Errors of the cache are one line."""
        with mock.patch.object(Path, "rename", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(MachineError, "disk full"):
                self.fetch()
        self.assertEqual(self.leftovers(), [])
        shutil.rmtree(self.cache)
        write(self.cache, "a file")
        with self.assertRaisesRegex(MachineError, "cannot store the kernel source in"):
            self.fetch()

    def test_a_second_run_waits(self) -> None:
        """Of two concurrent downloads, the second waits and uses the file of the first."""
        results: list[cache.Archive] = []
        threads = [threading.Thread(target=lambda: results.append(self.fetch())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(results)), 1)
        self.assertEqual(sum("asking apt" in line for line in self.said), 1)

    def test_without_xz(self) -> None:
        """The tarball is not blamed for a program that is missing."""
        archive = cache.Archive("x.tar.xz", "", "7.3.4", "Debian", "7.3.4")
        with mock.patch("shutil.which", return_value=None), self.assertRaisesRegex(MachineError, "^xz: not found; run tools/setup"):
            source.unpack(archive, self.out / "tree", self.say)

    def test_unpack(self) -> None:
        """A tarball is unpacked completely, or not at all; the error names the file to remove."""
        archive = self.fetch()
        source.unpack(archive, self.top / "a", self.say)
        self.assertTrue((self.top / "a/Makefile").is_file())
        archive.path.write_bytes(self.tarball[:200])
        with self.assertRaisesRegex(MachineError, f"cannot unpack .*{re.escape(archive.file)}"):
            source.unpack(archive, self.top / "b", self.say)
        self.assertFalse((self.top / "b").exists() or (self.top / "b.part").exists())


class RealApt(FakeKernel):
    """The machine's apt-get with a local archive: it accepts only what the key has signed."""

    def setUp(self) -> None:
        super().setUp()
        if not shutil.which("apt-get"):
            self.skipTest("apt-get is not installed")
        shutil.rmtree(self.cache)
        self.archive = self.top / "mirror/debian"
        debian.write(self.archive)
        careless = self.top / "apt.conf"
        write(careless, 'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n')
        self.enterContext(mock.patch.object(apt, "archives", return_value=[f"file:{self.archive}"]))
        self.enterContext(mock.patch.dict(os.environ, {"APT_CONFIG": str(careless)}))
        self.pin = source.Pin("7.3", "7.3.4", debian.NAME, debian.SUITE, debian.ARCHIVE / "key.asc")

    def test_signed(self) -> None:
        """A signed package is accepted, and its tarball is intact."""
        got = source.fetch(self.pin, self.say)
        self.assertEqual((got.path.read_bytes(), got.origin), (debian.TARBALL, f"Debian {debian.NAME} {debian.VERSION}"))

    def test_tampered(self) -> None:
        """Refused: a changed byte in the package, in Packages or in InRelease; no signature; another key."""
        release = self.archive / f"dists/{debian.SUITE}/InRelease"
        lists = list(release.parent.rglob("Packages"))
        self.assertEqual(len(lists), 3)
        for paths, old, new in (([self.archive / f"pool/{debian.NAME}.deb"], debian.TARBALL, b"teh kernel\n"),
                                (lists, b"made up", b"made uq"), ([release], b"made up", b"made uq"),
                                ([release], release.read_bytes(), debian.release().encode())):
            before = {path: path.read_bytes() for path in paths}
            for path, body in before.items():
                self.assertIn(old, body)
                path.write_bytes(body.replace(old, new))
            self.refused(self.pin, f"{paths[0].name}: {new[:10]!r}")
            for path, body in before.items():
                path.write_bytes(body)
        write(self.top / "other.gpg", "")
        self.refused(dataclasses.replace(self.pin, keyring=self.top / "other.gpg"), "another key")
        source.fetch(self.pin, self.say)

    def refused(self, pin: source.Pin, what: str) -> None:
        """Check that apt fails and the cache stays empty."""
        with self.subTest(what):
            with self.assertRaisesRegex(MachineError, "apt-get (update|download) failed"):
                source.fetch(pin, self.say)
            self.assertEqual([path.name for path in self.cache.iterdir()], [".lock"])


class Pins(FakeKernel):
    """source.toml."""

    def test_the_projects_own(self) -> None:
        """The project's own is valid, and pins a version of its folder's base."""
        root = Path(__file__).parents[2]
        for base in source.bases(root):
            pin = source.load_pin(root, base)
            self.assertTrue(pin.version.startswith(base + "."))

    def test_newest_base(self) -> None:
        """Bases are sorted by number, not by letter."""
        text = (self.root / "kernel/7.3/source.toml").read_text()
        write(self.root / "kernel/7.10/source.toml", text)
        self.assertEqual(source.bases(self.root), ["7.3", "7.10"])
        self.assertEqual(source.load_pin(self.root).base, "7.10")
        with self.assertRaisesRegex(WrongUse, "no series for Linux 6.1; there is one for 7.3, 7.10"):
            source.load_pin(self.root, "6.1")

    def test_unusable(self) -> None:
        """Errors for malformed TOML, a missing key and a wrong type name the file."""
        path = self.root / "kernel/7.3/source.toml"
        good = path.read_text()
        for old, new, said in ((good, "version = ", "Invalid value"), (good, 'version = "1"\n', "debian is missing"),
                               (good, 'version = "1"\ndebian = 1\n', "debian must be of type dict"), ('"7.3.4"', "7.3", "version must be"),
                               ('"/nowhere"', "1", "keyring must be of type str"), ("suite", "siute", "did you mean suite")):
            write(path, good.replace(old, new))
            with self.assertRaisesRegex(WrongUse, f"source.toml: .*{said}"):
                source.load_pin(self.root)
        path.write_bytes(b"\xff")
        with self.assertRaisesRegex(WrongUse, "source.toml: 'utf-8' codec"):
            source.load_pin(self.root)

    def test_cache_dir(self) -> None:
        """The cache is chosen by GMEM_CACHE, XDG_CACHE_HOME, home, in this order."""
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "/x"}):
            self.assertEqual(cache.cache_dir(), self.cache)
            del os.environ["GMEM_CACHE"]
            self.assertEqual(cache.cache_dir(), Path("/x/gmem-hugepages"))
            del os.environ["XDG_CACHE_HOME"]
            self.assertEqual(cache.cache_dir(), Path.home() / ".cache/gmem-hugepages")
            del os.environ["HOME"]
            with mock.patch("pwd.getpwuid", side_effect=KeyError), self.assertRaisesRegex(MachineError, "set HOME or GMEM_CACHE"):
                cache.cache_dir()


if __name__ == "__main__":
    unittest.main()

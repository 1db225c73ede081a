# SPDX-License-Identifier: GPL-2.0
"""Test matrix.tree.source with a web server on loopback, a fake apt-get, and the real one with a local archive."""

import dataclasses
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from matrix.tree import source
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


class Server(http.server.BaseHTTPRequestHandler):
    """Serve the files of a dict; "short" ones end before their Content-Length."""

    files: dict[str, bytes] = {}
    short: set[str] = set()

    def do_GET(self) -> None:  # pylint: disable=invalid-name
        """Send a file or 404."""
        name = self.path.rsplit("/", 1)[-1]
        body = self.files.get(name)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write((body or b"")[:100 if name in self.short else None])

    def log_message(self, format: str, *args: object) -> None:  # pylint: disable=redefined-builtin
        """Do not log."""


class Source(FakeKernel):
    """Sources: the server above as kernel.org, and a fake apt that has no package until a test adds it."""

    def setUp(self) -> None:
        super().setUp()
        self.name = "linux-7.3.4.tar.xz"
        self.tarball = self.fill_cache().read_bytes()
        self.sha256 = hashlib.sha256(self.tarball).hexdigest()
        shutil.rmtree(self.cache)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        Server.files = {self.name: self.tarball}
        Server.short = set()
        url = f"http://127.0.0.1:{server.server_port}/v7.x/{self.name}"
        keyring = self.top / "keyring.gpg"
        write(keyring, "")
        self.pin = source.Pin("7.3", "7.3.4", url, self.sha256, "linux-source-7.3", "trixie-backports", keyring)
        self.apt = self.top / "apt"
        write(self.apt / "bin/apt-get", APT_GET)
        (self.apt / "bin/apt-get").chmod(0o755)
        self.template = self.top / "Debian.info"
        env = {"PATH": f"{self.apt}/bin:{os.environ['PATH']}", "FAKE_APT": str(self.apt), "no_proxy": "127.0.0.1"}
        self.enterContext(mock.patch.dict(os.environ, env))
        self.enterContext(mock.patch.object(source, "TEMPLATE", self.template))

    def fetch(self, **changes: Any) -> source.Archive:
        """Call fetch() with some fields of the pin changed."""
        return source.fetch(dataclasses.replace(self.pin, **changes), self.say)

    def give_apt(self, version: str = "7.3.5-1~bpo13+1") -> None:
        """Add a newer package to the fake apt."""
        package = self.top / "deb"
        write(package / "DEBIAN/control", f"Package: linux-source-7.3\nVersion: {version}\nArchitecture: all\n"
              "Maintainer: x <x@x>\nDescription: x\n")
        (package / "usr/src").mkdir(parents=True)
        (package / "usr/src/linux-source-7.3.tar.xz").write_bytes(self.tarball)
        subprocess.run(["dpkg-deb", "-b", str(package), str(self.apt / "linux-source-7.3.deb")],
                       check=True, capture_output=True)

    def leftovers(self) -> list[str]:
        """Return the files in the cache."""
        return sorted(path.name for path in self.cache.iterdir() if path.name != ".lock")

    def test_kernel_org(self) -> None:
        """Without apt, kernel.org's tarball is verified with the sha256 of source.toml."""
        got = self.fetch()
        self.assertEqual((got.version, got.origin, got.sha256), ("7.3.4", "kernel.org linux-7.3.4", self.sha256))
        self.assertEqual(got.path.read_bytes(), self.tarball)
        self.assertEqual(self.leftovers(), [self.name, f"{self.name}.json"])

    def test_kernel_org_without_a_sha256(self) -> None:
        """Without a sha256 the tarball cannot be verified: it is not downloaded, and the error says so."""
        with self.assertRaisesRegex(MachineError, f"kernel/7.3/source.toml has no sha256 to verify {self.name} with"):
            self.fetch(sha256="")
        self.assertFalse(any("downloading" in line for line in self.said))
        self.assertEqual(self.leftovers(), [])

    def test_debian_first(self) -> None:
        """kernel.org is not asked when apt has the package."""
        self.give_apt()
        got = self.fetch()
        self.assertEqual((got.version, got.origin, got.pin), ("7.3.5", DEBIAN, "7.3.4"))
        self.assertEqual(got.path.read_bytes(), self.tarball)
        self.assertEqual(self.leftovers(), [got.file, f"{got.file}.json"])
        self.assertFalse(any("downloading" in line for line in self.said))

    def test_an_unverified_tarball_of_the_cache_is_not_used(self) -> None:
        """A cached tarball of kernel.org is used only if source.toml pins it now."""
        path = self.fetch().path
        for sha256 in ("", "0" * 64):
            with self.assertRaises(MachineError):
                self.fetch(sha256=sha256)
            self.assertFalse(path.exists())
            self.assertTrue(any("was not verified; fetching it again" in line for line in self.said))
            self.fetch()

    def test_cache_first(self) -> None:
        """The second fetch() uses only the cache."""
        first = self.fetch()
        Server.files = {}
        self.assertEqual(self.fetch(), first)

    def test_cache_is_per_pin(self) -> None:
        """Another pin is downloaded separately."""
        self.fetch()
        Server.files = {}
        with self.assertRaisesRegex(MachineError, "no source for Linux 7.3.9"):
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

    def test_truncated(self) -> None:
        """If the connection ends early, the error has the sizes, no file remains, and the next try works."""
        Server.short = {self.name}
        with self.assertRaisesRegex(MachineError, rf"truncated: 100 of {len(self.tarball)} bytes|was interrupted") as caught:
            self.fetch()
        self.assertIn("Run again", str(caught.exception))
        self.assertEqual(self.leftovers(), [])
        Server.short = set()
        self.fetch()

    def test_wrong_content(self) -> None:
        """A download with another sha256 is removed."""
        Server.files[self.name] = b"x" + self.tarball[1:]
        with self.assertRaisesRegex(MachineError, "is not what source.toml pins"):
            self.fetch()
        self.assertEqual(self.leftovers(), [])

    def test_a_system_that_is_not_debian(self) -> None:
        """Without a Debian archive in apt's sources, python-apt's template is used; if that is missing too, the error names its package."""
        self.give_apt()
        write(self.apt / "bin/apt-get", APT_GET.replace("http://127.0.0.1:9/debian/ ", "http://127.0.0.1:9/ubuntu/ "))
        with self.assertRaisesRegex(MachineError, "this machine has no Debian archive.*python-apt-common"):
            self.fetch(sha256="")
        write(self.template, "ChangelogURI: http://x/debian\nBaseURI: http://mirror/debian/\nBaseURI: http://security/\n")
        self.assertEqual(self.fetch().origin, DEBIAN)
        self.assertIn("URIs: http://mirror/debian/\n", (self.apt / "sources").read_text())

    def test_apt_is_asked_privately(self) -> None:
        """apt is called with Debian's main archive only, signed by the keyring, and with temporary folders."""
        self.give_apt()
        Server.files = {}
        self.fetch()
        text = (self.apt / "sources").read_text()
        self.assertIn("URIs: http://127.0.0.1:9/debian/\n", text)
        self.assertIn(f"Suites: trixie-backports\nComponents: main\nSigned-By: {self.pin.keyring}\n", text)
        for line in (self.apt / "log").read_text().splitlines():
            if "indextargets" not in line:
                for option in ("Dir::Etc::sourcelist=/dev/null", "Dir::State::Lists=", "Dir::Cache="):
                    self.assertIn(option, line)

    def test_apt_has_no_such_package(self) -> None:
        """If no source works, the error has both reasons, and says what to do."""
        Server.files = {}
        with self.assertRaisesRegex(MachineError, r"Unable to locate package.*kernel.org cannot be reached.*KSRC=dir"):
            self.fetch()
        self.assertEqual(self.leftovers(), [])

    def test_no_apt_no_keyring(self) -> None:
        """Without apt-get or the keyring, apt is not used."""
        Server.files = {}
        with self.assertRaisesRegex(MachineError, "package debian-archive-keyring"):
            self.fetch(keyring=self.top / "absent")
        with mock.patch.object(shutil, "which", return_value=None):
            with self.assertRaisesRegex(MachineError, "apt-get is not installed"):
                self.fetch()

    def test_disk_full_and_unwritable(self) -> None:
        """Errors of the cache are one line."""
        with mock.patch.object(shutil, "copyfileobj", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(MachineError, "disk full"):
                self.fetch()
        self.assertEqual(self.leftovers(), [])
        shutil.rmtree(self.cache)
        write(self.cache, "a file")
        with self.assertRaisesRegex(MachineError, "cannot store the kernel source in"):
            self.fetch()

    def test_a_second_run_waits(self) -> None:
        """Of two concurrent downloads, the second waits and uses the file of the first."""
        results: list[source.Archive] = []
        threads = [threading.Thread(target=lambda: results.append(self.fetch())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(results)), 1)
        self.assertEqual(sum("downloading http" in line for line in self.said), 1)

    def test_unpack(self) -> None:
        """A tarball is unpacked completely, or not at all; the error names the file to remove."""
        archive = self.fetch()
        source.unpack(archive, self.top / "a", self.say)
        self.assertTrue((self.top / "a/Makefile").is_file())
        archive.path.write_bytes(self.tarball[:200])
        with self.assertRaisesRegex(MachineError, f"cannot unpack .*{self.name}"):
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
        self.enterContext(mock.patch.object(source, "debian_archives", return_value=[f"file:{self.archive}"]))
        self.enterContext(mock.patch.dict(os.environ, {"APT_CONFIG": str(careless)}))
        self.pin = source.Pin("7.3", "7.3.4", "http://127.0.0.1:9/linux-7.3.4.tar.xz", "", debian.NAME, debian.SUITE,
                              debian.ARCHIVE / "key.asc")

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
            self.assertIn(f"/linux-{pin.version}.tar.xz", pin.url)

    def test_newest_base(self) -> None:
        """Bases are sorted by number, not by letter."""
        text = (self.root / "kernel/7.3/source.toml").read_text()
        write(self.root / "kernel/7.10/source.toml", text)
        self.assertEqual(source.bases(self.root), ["7.3", "7.10"])
        self.assertEqual(source.load_pin(self.root).base, "7.10")
        with self.assertRaisesRegex(WrongUse, "no series for Linux 6.1; there is one for 7.3, 7.10"):
            source.load_pin(self.root, "6.1")

    def test_unusable(self) -> None:
        """Errors for malformed TOML and a missing key name the file."""
        for text in ("version = ", 'version = "1"\n'):
            write(self.root / "kernel/7.3/source.toml", text)
            with self.assertRaisesRegex(WrongUse, "source.toml is malformed"):
                source.load_pin(self.root)

    def test_cache_dir(self) -> None:
        """The cache is chosen by GMEM_CACHE, XDG_CACHE_HOME, home, in this order."""
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": "/x"}):
            self.assertEqual(source.cache_dir(), self.cache)
            del os.environ["GMEM_CACHE"]
            self.assertEqual(source.cache_dir(), Path("/x/gmem-hugepages"))
            del os.environ["XDG_CACHE_HOME"]
            self.assertEqual(source.cache_dir(), Path.home() / ".cache/gmem-hugepages")


if __name__ == "__main__":
    unittest.main()

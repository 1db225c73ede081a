# SPDX-License-Identifier: GPL-2.0
"""Fetch the kernel source from the download cache or from Debian's archive, whose signature apt checks.

The cache is $GMEM_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/gmem-hugepages. It holds one tarball per pin, and
NAME.json beside it, written last: a tarball without it is ignored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from matrix.common import proc
from matrix.common.errors import DISK_FULL, MachineError, WrongUse

Say = Callable[[str], None]

APT_SECONDS = 900.0
UNPACK_SECONDS = 900.0
TEMPLATE = Path("/usr/share/python-apt/templates/Debian.info")  # names Debian's archive on systems that are not Debian


@dataclass(frozen=True)
class Pin:
    """kernel/<base>/source.toml: the version that the series is written against, and its source."""

    base: str      # "7.3", the name of the folder
    version: str   # "7.3.4"
    package: str   # Debian's source package
    suite: str
    keyring: Path


@dataclass(frozen=True)
class Archive:
    """A verified tarball in the cache; the content of its NAME.json."""

    file: str      # name inside the cache
    sha256: str
    version: str   # its actual version
    origin: str    # "Debian linux-source-7.3 7.3.4-1~bpo13+1"
    pin: str       # the pinned version for which it was fetched

    @property
    def path(self) -> Path:
        """The path of the tarball."""
        return cache_dir() / self.file


def bases(root: Path) -> list[str]:
    """Return the kernels for which the series exists, oldest first: the folders of kernel/ with a source.toml."""
    names = [p.parent.name for p in (root / "kernel").glob("*/source.toml")]
    return sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def load_pin(root: Path, base: str | None = None) -> Pin:
    """Read kernel/<base>/source.toml (None: the newest base). Raise WrongUse when it is missing or incomplete."""
    known = bases(root)
    if not known:
        raise WrongUse(f"no kernel/*/source.toml under {root}: is the checkout complete?")
    base = base or known[-1]
    path = root / "kernel" / base / "source.toml"
    try:
        data = tomllib.loads(path.read_text())
        debian = data["debian"]
        return Pin(base, data["version"], debian["package"], debian["suite"], Path(debian["keyring"]))
    except FileNotFoundError:
        raise WrongUse(f"there is no series for Linux {base}; there is one for {', '.join(known)}") from None
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise WrongUse(f"{path} is malformed: {error!r}") from None


def cache_dir() -> Path:
    """Return the path of the download cache, which need not exist."""
    own = os.environ.get("GMEM_CACHE")
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmem-hugepages"


def fetch(pin: Pin, say: Say) -> Archive:
    """Return the verified tarball for the pin; download it unless it is cached.

    Raise MachineError when apt cannot deliver it.
    """
    cache = cache_dir()
    try:
        with _locked(cache, say):
            archive = _cached(pin, say)
            if not archive:
                archive = _download(pin, cache, say)
                _record(archive)
            return archive
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError(DISK_FULL) from error
        raise MachineError(f"cannot store the kernel source in {cache}: {error.strerror or error}") from error


def unpack(archive: Archive, dest: Path, say: Say) -> None:
    """Unpack the tarball to dest, which must not exist, atomically: to dest.part first."""
    part = dest.with_name(dest.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    say(f"source: unpacking {archive.origin}")
    done = proc.run(["tar", "-xJf", str(archive.path), "-C", str(part), "--strip-components=1", "--no-same-owner"],
                    limit=UNPACK_SECONDS)
    if done.returncode or done.timed_out:
        shutil.rmtree(part, ignore_errors=True)
        raise MachineError(f"cannot unpack {archive.path} ({_last_line(done)}); remove it and run again")
    part.rename(dest)


@contextlib.contextmanager
def _locked(cache: Path, say: Say) -> Iterator[None]:
    """Lock the cache against other downloads."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("source: waiting for another run that is downloading")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cached(pin: Pin, say: Say) -> Archive | None:
    for note in sorted(cache_dir().glob("*.json")):
        try:
            archive = Archive(**json.loads(note.read_text()))
        except (ValueError, TypeError):
            continue
        if archive.pin != pin.version:
            continue
        if archive.path.is_file() and _sha256(archive.path) == archive.sha256:
            return archive
        say(f"source: {archive.path} is not what was downloaded; fetching it again")
        note.unlink()
        archive.path.unlink(missing_ok=True)
    return None


def _record(archive: Archive) -> None:
    note = archive.path.with_name(archive.file + ".json")
    part = note.with_name(note.name + ".part")
    part.write_text(json.dumps(asdict(archive), indent=1) + "\n")
    part.rename(note)


def _download(pin: Pin, cache: Path, say: Say) -> Archive:
    """Fetch the Debian package with apt, which verifies it against the archive's signature.

    Use separate lists, sources and caches, to leave the machine's own apt state alone. Raise MachineError when apt is
    missing or fails.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise _unavailable(pin, f"{tool} is not installed")
    if not pin.keyring.is_file():
        raise _unavailable(pin, f"{pin.keyring} is missing (package debian-archive-keyring)")
    hosts = debian_archives()
    if not hosts:
        raise _unavailable(pin, "this machine has no Debian archive in its apt sources, "
                           f"and no {TEMPLATE} (package python-apt-common)")
    say(f"source: asking apt for {pin.package} in {pin.suite}")
    with tempfile.TemporaryDirectory(prefix="apt-", dir=cache) as folder:
        work = Path(folder)
        for name in ("sources", "lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        (work / "sources" / "debian.sources").write_text(
            f"Types: deb\nURIs: {' '.join(hosts)}\nSuites: {pin.suite}\nComponents: main\nSigned-By: {pin.keyring}\n")
        apt = ["apt-get", "-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={work}/sources",
               "-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
               "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2",
               "-o", "Acquire::AllowInsecureRepositories=false", "-o", "APT::Get::AllowUnauthenticated=false"]
        for step in (["update"], ["download", pin.package]):
            done = proc.run([*apt, *step], cwd=work, limit=APT_SECONDS)
            if done.returncode or done.timed_out:
                raise _unavailable(pin, f"apt-get {step[0]} failed: {_last_line(done)}")
        debs = list(work.glob("*.deb"))
        if len(debs) != 1:
            raise _unavailable(pin, f"apt-get download left {len(debs)} packages, not one")
        full = proc.run(["dpkg-deb", "-f", str(debs[0]), "Version"], limit=60).output.strip()
        version = re.match(r"(?:\d+:)?([\d.]+)", full)
        done = proc.run(["dpkg-deb", "-x", str(debs[0]), str(work / "x")], limit=UNPACK_SECONDS)
        tarball = work / "x" / "usr" / "src" / f"{pin.package}.tar.xz"
        if done.returncode or not version or not tarball.is_file():
            raise MachineError(f"{pin.package} {full} holds no {pin.package}.tar.xz ({_last_line(done)})")
        name = f"{pin.package}_{full.replace(':', '%3a')}.tar.xz"
        digest = _sha256(tarball)
        tarball.rename(cache / name)
    return Archive(name, digest, version[1], f"Debian {pin.package} {full}", pin.version)


def _unavailable(pin: Pin, why: str) -> MachineError:
    return MachineError(f"cannot fetch Linux {pin.version} from Debian's archive: {why}. "
                        "Check the network and try again, or use your own tree: KSRC=dir")


def debian_archives() -> list[str]:
    """Return the Debian archives in apt's sources (not the security archive, which has no backports), or Debian's default."""
    asked = proc.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], limit=60)
    known = {uri for uri in asked.output.split() if uri.rstrip("/").endswith("/debian")}
    if not known and TEMPLATE.is_file():
        known = set(re.findall(r"^BaseURI: (\S+/debian/?)$", TEMPLATE.read_text(), re.MULTILINE))
    return sorted(known)


def _last_line(done: proc.Completed) -> str:
    if done.timed_out:
        return f"stopped after {done.seconds:.0f} s"
    lines = [line for line in done.output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

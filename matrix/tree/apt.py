# SPDX-License-Identifier: GPL-2.0
"""Download packages from Debian's archive with apt, which checks its signature.

apt uses separate lists, sources and caches, to leave the machine's own apt state alone.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from matrix.common import proc

SECONDS = 900.0
TEMPLATE = Path("/usr/share/python-apt/templates/Debian.info")  # names Debian's archive on systems that are not Debian


class Unavailable(Exception):
    """Why apt cannot deliver a package, in words."""


@dataclass(frozen=True)
class Request:
    """A package of a suite of Debian."""

    package: str
    suite: str
    keyring: Path
    arch: str = ""  # Debian's name; "": that of the machine. With one, all packages that it depends on, too


def archives() -> list[str]:
    """Return the Debian archives in apt's sources (not the security archive, which has no backports), or Debian's default."""
    asked = proc.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], limit=60)
    known = {uri for uri in asked.output.split() if uri.rstrip("/").endswith("/debian")}
    if not known and TEMPLATE.is_file():
        known = set(re.findall(r"^BaseURI: (\S+/debian/?)$", TEMPLATE.read_text(), re.MULTILINE))
    return sorted(known)


def download(request: Request, work: Path) -> list[Path]:
    """Download to the empty folder work, and return the .deb files. Raise Unavailable when apt is missing or fails."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not installed")
    if not request.keyring.is_file():
        raise Unavailable(f"{request.keyring} is missing (package debian-archive-keyring)")
    hosts = archives()
    if not hosts:
        raise Unavailable(f"this machine has no Debian archive in its apt sources, and no {TEMPLATE} (package python-apt-common)")
    for name in ("sources", "state", "lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources" / "debian.sources").write_text(
        f"Types: deb\nURIs: {' '.join(hosts)}\nSuites: {request.suite}\nComponents: main\nSigned-By: {request.keyring}\n")
    argv = ["apt-get", "-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={work}/sources",
            "-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
            "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2",
            "-o", "Acquire::AllowInsecureRepositories=false", "-o", "APT::Get::AllowUnauthenticated=false"]
    get = ["download", request.package]
    if request.arch:
        # As on a system of this architecture on which nothing is installed.
        argv += ["-o", f"APT::Architecture={request.arch}", "-o", f"APT::Architectures={request.arch}",
                 "-o", f"Dir::State={work}/state", "-o", f"Dir::State::status={work}/status"]
        get = ["install", "--yes", "--download-only", "--no-install-recommends", request.package]
    for step in (["update"], get):
        done = proc.run([*argv, *step], cwd=work, limit=SECONDS)
        if done.returncode or done.timed_out:
            raise Unavailable(f"apt-get {step[0]} failed: {last_line(done)}")
    return sorted([*work.glob("*.deb"), *work.glob("cache/archives/*.deb")])


def last_line(done: proc.Completed) -> str:
    """Return the line that tells best why a program failed."""
    if done.timed_out:
        return f"stopped after {done.seconds:.0f} s"
    lines = [line for line in done.output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]

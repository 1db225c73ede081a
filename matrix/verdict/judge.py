# SPDX-License-Identifier: GPL-2.0
"""Is a cell green? A pure function from what a run left behind to a verdict with reasons."""

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from matrix.verdict import ktap, splat
from matrix.verdict.manifest import Manifest

CHUNK = 1 << 20  # bytes read at once
LARGEST = 16 << 20  # bytes, and
LINES = 250_000  # lines: no healthy boot prints as much, and the scan stays bounded
LONG = 1 << 16  # bytes; a longer line is looked at in pieces of this size
MOST = 20  # reasons of one kind that are written out
WIDTH = 200  # characters of a quoted line

ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_c])")
# The same, but a capital stays: half a sequence may be followed by the B of BUG.
CAUTIOUS = re.compile(rb"\x1b+(?:\[[0-?]*(?:[ -/]*[@a-z{|}~])?|[\\-_c])?")
CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n") + b"\x7f"
# kernel/printk/printk.c, info_print_prefix(): "<6>[    1.234567][    T1] "
PREFIX = re.compile(r"(?:<\d+>)?(?:\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])?|\[ *[TC]\d+\]|(?<=>)) ?")
INSIDE = re.compile(r"(?<!^)(?=\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? )")
RESTART = re.compile(r"reboot: Restarting system")
# tools/testing/kunit/kunit_kernel.py prints the TimeoutExpired of its QEMU and goes on
KUNIT_TIMEOUT = re.compile(r"Command '\['[^']*qemu-system-.* timed out after [\d.]+ seconds")


@dataclass(frozen=True)
class Reason:
    """Why a cell is red: a short stable code and one line for people."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def differences(found: Sequence[Reason], expected: Sequence[Sequence[str]]) -> list[str]:
    """What is not as expected, a pair of code and part of the text each: pairs that are not met, codes that nobody expects."""
    wrong = [f"no {code}: …{part}…" for code, part in expected
             if not any(reason.code == code and part in reason.text for reason in found)]  # fmt: skip
    codes = {code for code, _ in expected}
    return wrong + [f"not expected: {reason}" for reason in found if reason.code not in codes]


@dataclass(frozen=True)
class Evidence:
    """What a run left behind. console is None when the kernel was never booted."""

    asked: Mapping[str, str]  # options the fragments ask for
    got: Mapping[str, str] | None  # options of the .config; None: there is none
    manifest: Manifest | None  # None: there is no such file
    touched: frozenset[str]  # files of the tree that must not cause a warning
    build_log: str = ""
    console: BinaryIO | None = None
    glob: str = ""  # kunit.py's filter_glob
    config_status: int = 0  # exit statuses of kunit.py's steps
    build_status: int = 0
    selftests_status: int = 0  # of make in tools/testing/selftests/kvm
    exec_status: int = 0
    parse_status: int = 0
    timed_out: str = ""  # the step that hit its limit
    limit: float = 0  # that limit, in seconds
    settle: Callable[[Iterable[str]], Manifest] | None = None  # makes the manifest of the tests that ran

    @property
    def built(self) -> bool:
        """Every step so far ended with success."""
        return not (self.config_status or self.build_status or self.selftests_status or self.timed_out)


@dataclass
class Verdict:
    """Green when there is no reason against it."""

    reasons: list[Reason] = field(default_factory=list)
    tests: dict[str, ktap.Node] = field(default_factory=dict)  # name -> result, in console order
    skipped: dict[str, str] = field(default_factory=dict)  # name -> reason: skips the manifest allows
    structure: bool = False  # the KTAP stream itself was whole

    @property
    def green(self) -> bool:
        """Nothing stands against it."""
        return not self.reasons


class Console:
    """One pass over the console: the KTAP stream, every splat, and how it ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.ktap = ktap.Reader()
        self.splats: list[str] = []
        self.traces: list[str] = []
        self.count = 0  # splats, also those that are not kept
        self.restarted = False
        self.timeout = False
        self.last = ""
        self.whole = True
        for number, (raw, ended) in enumerate(lines(stream, LARGEST), 1):
            if number > LINES:
                self.whole = False
                break
            seen = False
            for text in INSIDE.split(_text(ESCAPE.sub(b"", raw))):
                seen |= self._line(number, PREFIX.sub("", text, count=1) if PREFIX.match(text) else text, ended)
            if not seen and b"\x1b" in raw:
                self._splat(number, _text(CAUTIOUS.sub(b"", raw)))
        self.whole &= not stream.read(1)
        self.ktap.finish()
        self.tests: dict[str, ktap.Node] = {}
        self.twice: list[str] = []
        for suite in self.ktap.suites:
            for name, node in suite.leaves():
                if name in self.tests:
                    self.twice.append(name)
                self.tests[name] = node

    def _line(self, number: int, text: str, ended: bool) -> bool:
        """Takes a line; True when it was part of the stream or a splat. One that has not ended could be half a result."""
        if text.strip():
            self.last = text
        if ended and self.ktap.feed(text):
            return True
        if RESTART.match(text):
            self.restarted = self.ktap.ended
        elif KUNIT_TIMEOUT.match(text):
            self.timeout = True
        return self._splat(number, text)

    def _splat(self, number: int, text: str) -> bool:
        label = splat.label(text)
        if label:
            self.count += 1
            kept = self.traces if label == "trace" else self.splats
            if len(kept) < MOST // 2:
                kept.append(f"{label} {self.ktap.where()} (line {number}): {text.strip()[:WIDTH]}")
        return bool(label)


def lines(stream: BinaryIO, most: int) -> Iterator[tuple[bytes, bool]]:
    """The lines in the first most bytes of a console, and whether they ended.

    CR ends one, too, and a long one comes in pieces that overlap.
    """
    rest = b""
    while chunk := stream.read(min(CHUNK, most)):
        most -= len(chunk)
        data = rest + chunk
        held = data.endswith(b"\r")  # a LF may follow
        data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = data.split(b"\n")
        if len(rest) > LONG:
            whole.append(rest)
            rest = b""
        if held:
            rest += b"\r"
        for line in whole:
            for start in range(0, len(line) or 1, LONG):
                yield line[max(0, start - WIDTH) : start + LONG], True
    if rest:
        yield rest, False


def _text(line: bytes) -> str:
    """Without control bytes; bad UTF-8 is replaced."""
    return line.translate(None, CONTROL).decode(errors="replace").rstrip()


def matches(glob: str, name: str) -> bool:
    """Whether kunit.py's filter_glob selects a test: suite glob, then case glob after the first dot."""
    suite, _, case = name.partition(".")
    suite_glob, _, case_glob = glob.partition(".")
    if not fnmatch.fnmatchcase(suite, suite_glob or "*"):
        return False
    return not case_glob or fnmatch.fnmatchcase(case.partition("/")[0], case_glob)


def judge(evidence: Evidence) -> Verdict:
    """Every check on its own; one that cannot run counts against the cell."""
    verdict = Verdict()
    console: Console | None = None

    def guarded(check: Callable[[], list[Reason]], name: str) -> None:
        try:
            found = check()
        except Exception as err:  # pylint: disable=broad-exception-caught
            found = [Reason("check", f"check could not run: {name}: {type(err).__name__}: {err}")]
        verdict.reasons += found[:MOST]
        if len(found) > MOST:
            verdict.reasons.append(Reason(found[0].code, f"… and {len(found) - MOST} more like these"))

    def read() -> list[Reason]:
        nonlocal console
        if evidence.console:
            console = Console(evidence.console)
            verdict.tests = console.tests
            verdict.structure = console.ktap.ended and not console.ktap.problems
        return []

    guarded(lambda: check_steps(evidence), "steps")
    guarded(lambda: check_config(evidence), "config")
    guarded(lambda: check_warnings(evidence), "warnings")
    guarded(read, "console")
    if console:
        seen = console
        guarded(lambda: check_splats(seen), "splats")
        guarded(lambda: check_stream(seen), "ktap")
        guarded(lambda: check_manifest(evidence, seen, verdict), "manifest")
        guarded(lambda: check_end(evidence, seen), "end")
    if not verdict.reasons and not any(node.status == ktap.OK for node in verdict.tests.values()):
        verdict.reasons.append(Reason("test", "no test passed"))
    return verdict


def check_steps(evidence: Evidence) -> list[Reason]:
    """Configure, build and boot came to their end."""
    log = evidence.build_log
    if evidence.timed_out:
        name = {"boot": "hang", "parse": "kunit"}.get(evidence.timed_out, evidence.timed_out)
        return [Reason(name, f"{evidence.timed_out} did not end within {evidence.limit:.0f} s")]
    if evidence.config_status:
        return [Reason("config", f"kunit.py config fails: {_complaint(log)}")]
    if evidence.build_status:
        return [Reason("build", f"kunit.py build fails: {_complaint(log)}")]
    if evidence.selftests_status:
        return [Reason("build", f"the selftests do not build: {_complaint(log)}")]
    if evidence.console is None:
        return [Reason("boot", "the kernel was not booted")]
    return []


def _complaint(log: str) -> str:
    """The most telling line of a failed build."""
    for pattern in (r"\berror: |undefined reference|ERROR: modpost|Missing: ", r"\*\*\* |rror:", r"\S"):
        for line in log.splitlines() if pattern != r"\S" else reversed(log.splitlines()):
            if re.search(pattern, line):
                return line.strip()[:WIDTH]
    return "no output"


def check_config(evidence: Evidence) -> list[Reason]:
    """The .config is what the fragments ask for: values and "is not set" alike."""
    if evidence.got is None:
        return [] if evidence.config_status or evidence.timed_out else [Reason("config", "there is no .config")]
    found = []
    for name, value in evidence.asked.items():
        got = evidence.got.get(name, "n")
        if got != value:
            found.append(Reason("config", f"CONFIG_{name} is {got}, asked for {value}"))
    return found


SOURCE = re.compile(r"(?P<path>[^\s:()]+):(?P<line>\d+):(?:\d+:)? ?(?P<kind>[\w ]+?): (?P<text>.*)")
CONTEXT = re.compile(r"(?:In file included from|\s+from|\s+inlined from .* at) (?P<path>[^\s:]+):\d+"
                     r"|(?:(?P<where>[^\s:]+): )?(?:In function|At top level)")
OBJECT = re.compile(r"(?:\S*ld: )?(?P<path>[^\s:]+\.k?o)\S*: (?:in function .*: )?warning: .*"
                    r"|\S*ld: warning: (?:.*[`'])?(?P<late>[^\s:`']+\.k?o)\b.*")
DESCRIPTION = re.compile(r"WARNING: modpost: missing MODULE_DESCRIPTION\(\) in (?P<path>\S+)")
GLOBAL = re.compile(r"WARNING: (?:modpost: (?!missing MODULE_DESCRIPTION)|unmet direct dependencies)")
SNIPPET = re.compile(r"\s|\d+ \|")


def check_warnings(evidence: Evidence) -> list[Reason]:
    """No warning (gcc, sparse, ld, objtool, modpost, Kconfig) has to do with a file that we touch.

    gcc names the file in front of the warning, in the chain of includes before it, or in a note after it
    when the code stands in a macro; any of them counts.
    """
    found: list[Reason] = []
    objects = {posixpath.splitext(path)[0] for path in evidence.touched}

    def ours(path: str) -> bool:
        path = posixpath.normpath(path)
        names, stem = evidence.touched, posixpath.splitext(path)[0]
        if path.endswith((".o", ".ko")):
            if posixpath.basename(path) == "vmlinux.o":  # may be ours: nobody can tell
                return True
            names, path = frozenset(objects), stem
        return any(path == name or path.endswith("/" + name) for name in names)

    bad_kinds = ("warning",) if evidence.build_status or evidence.selftests_status else ("warning", "error")  # sparse's do not stop make
    warning, chain, counted, fresh = "", list[str](), False, False
    for line in evidence.build_log.splitlines():
        paths: list[str] = []
        if match := CONTEXT.match(line):
            chain = [*(chain if fresh else ()), match["path"] or match["where"] or ""]
            fresh, warning = True, ""
            continue
        fresh = False
        if match := SOURCE.match(line):
            if match["kind"].endswith(bad_kinds):
                counted, paths = False, [*chain, match["path"]]
                path = posixpath.normpath(match["path"])
                name = next((name for name in evidence.touched if path.endswith("/" + name)), path)
                warning = name + line[match.end("path"):]
            elif match["kind"] == "note":
                paths = [match["path"]]
            else:
                warning = ""
        elif match := OBJECT.match(line):
            warning, counted, paths = line, False, [match["path"] or match["late"]]
        elif match := DESCRIPTION.match(line):
            warning, counted, paths = line, False, [match["path"]]
        elif GLOBAL.match(line):
            warning, counted, paths = line, False, ["vmlinux.o"]
        elif not SNIPPET.match(line):
            warning, chain = "", []
        if warning and not counted and any(ours(path) for path in paths):
            counted = True
            found.append(Reason("warning", warning.strip()[:WIDTH]))
    return found


def check_splats(console: Console) -> list[Reason]:
    """The kernel complained about nothing, before, between and after the tests."""
    found = [Reason("splat", text) for text in console.splats or console.traces[:1]]
    if len(found) == MOST // 2:
        found.append(Reason("splat", f"… {console.count} such lines in all"))
    return found


def check_stream(console: Console) -> list[Reason]:
    """The KTAP stream is whole and agrees with itself."""
    found = []
    if not console.whole:
        found.append(Reason("console", f"more than {LARGEST >> 20} MB or {LINES} lines: the rest was not looked at"))
    found += [Reason("ktap", problem) for problem in console.ktap.problems]
    if not console.ktap.started and console.last:
        found.append(Reason("ktap", f"the console ends with: {console.last.strip()[:WIDTH]}"))
    return found + [Reason("ktap", f"{name} stands there twice") for name in console.twice]


def check_manifest(evidence: Evidence, console: Console, verdict: Verdict) -> list[Reason]:
    """Exactly the expected tests ran; each passed, or skipped where the manifest gives it leave to."""
    manifest = evidence.settle(console.tests) if evidence.settle else evidence.manifest
    if manifest is None:
        return [Reason("manifest", "there is none; ./matrix/run --update-manifests CELL writes it")]
    expected = {
        name: skip for name, skip in manifest.tests.items()
        if not evidence.glob or matches(evidence.glob, name)
    }  # fmt: skip
    found: list[Reason] = []
    bad: dict[str, Reason] = {}
    for name, node in console.tests.items():
        covered = [name] if name in expected else []
        if "/" not in name:  # a suite or a case stands for all that is in it
            covered += [key for key in expected if key.startswith((name + ".", name + "/"))]
        if node.status == ktap.FAIL:
            bad[name] = Reason("test", f"{name} failed" + (f": {node.failed[:WIDTH]}" if node.failed else ""))
        elif not covered:
            bad[name] = Reason("unexpected", f"{name} is not in the manifest")
        elif node.status == ktap.SKIP:
            for key in covered:
                allowed = expected[key]
                if allowed is None:
                    bad[key] = Reason("skip", f"{key} skipped: {node.reason or 'no reason given'}")
                else:
                    verdict.skipped[key] = node.reason or allowed
        elif covered != [name]:
            bad[name] = Reason("unexpected", f"{name} has no parameters, the manifest lists some")
    found += bad.values()
    for name in expected:
        parents = {name, name.partition("/")[0], name.partition(".")[0]}
        if not any(parent in console.tests for parent in parents):
            found.append(Reason("missing", f"{name} did not run"))
    return found


def check_end(evidence: Evidence, console: Console) -> list[Reason]:
    """The kernel rebooted of its own accord after the last test, and kunit.py agrees that all went well."""
    if evidence.timed_out:
        return []
    if console.timeout:
        return [Reason("hang", f"boot did not end within {evidence.limit:.0f} s")]
    found = []
    if evidence.exec_status:
        found.append(Reason("exec", f"kunit.py exec ends with status {evidence.exec_status}"))
    if not console.restarted:
        found.append(Reason("end", "no 'reboot: Restarting system' after the last result"))
    passed = any(node.status == ktap.OK for node in console.tests.values())
    if evidence.parse_status and not found and passed:
        found.append(Reason("kunit", f"kunit.py parse ends with status {evidence.parse_status}"))
    return found

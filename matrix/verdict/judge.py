# SPDX-License-Identifier: GPL-2.0
"""Judge a cell: a pure function from the evidence to a verdict with reasons."""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from matrix.verdict import ktap
from matrix.verdict.console import LARGEST, LINES, Console
from matrix.verdict.evidence import MOST, WIDTH, Evidence, Reason
from matrix.verdict.splat import DETECTORS, DISABLED
from matrix.verdict.warnings import check_warnings


@dataclass
class Verdict:
    """The verdict on a cell: green when there are no reasons."""

    reasons: list[Reason] = field(default_factory=list)
    tests: dict[str, ktap.Node] = field(default_factory=dict)  # name -> result, in console order
    skipped: dict[str, str] = field(default_factory=dict)  # name -> reason of the allowed skips

    @property
    def green(self) -> bool:
        """Whether no check failed."""
        return not self.reasons


def matches(glob: str, name: str) -> bool:
    """Whether a filter_glob of kunit.py selects a test: a suite glob and, after the first dot, a case glob."""
    suite, _, case = name.partition(".")
    suite_glob, _, case_glob = glob.partition(".")
    if not fnmatch.fnmatchcase(suite, suite_glob or "*"):
        return False
    return not case_glob or fnmatch.fnmatchcase(case.partition("/")[0], case_glob)


def judge(evidence: Evidence) -> Verdict:
    """Run every check independently; a check that raises an exception makes the cell red."""
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
        return []

    guarded(lambda: check_steps(evidence), "steps")
    guarded(lambda: check_config(evidence), "config")
    guarded(lambda: check_warnings(evidence), "warnings")
    guarded(read, "console")
    if console:
        seen = console
        guarded(lambda: check_detectors(evidence, seen), "detectors")
        guarded(lambda: check_splats(seen), "splats")
        guarded(lambda: check_kernel(evidence, seen), "kernel")
        guarded(lambda: check_stream(seen), "ktap")
        guarded(lambda: check_tests(evidence, seen, verdict), "tests")
        guarded(lambda: check_end(evidence, seen), "end")
    if not verdict.reasons and not evidence.build_only and not any(node.status == ktap.OK for node in verdict.tests.values()):
        verdict.reasons.append(Reason("test", "no test passed"))
    return verdict


def check_steps(evidence: Evidence) -> list[Reason]:
    """Check that configure, build and boot completed."""
    log = evidence.build_log
    if evidence.timed_out:
        name = {"boot": "hang", "configure": "config"}.get(evidence.timed_out, "build")
        return [Reason(name, f"{evidence.timed_out} did not end within {evidence.limit:.0f} s")]
    if evidence.config_status:
        return [Reason("config", f"kunit.py config fails: {_complaint(log)}")]
    if evidence.build_status:
        return [Reason("build", f"kunit.py build fails: {_complaint(log)}")]
    if evidence.selftests_status:
        return [Reason("build", f"the selftests do not build: {_complaint(log)}")]
    if evidence.console is None and not evidence.build_only:
        return [Reason("boot", "the kernel was not booted")]
    return []


def _complaint(log: str) -> str:
    """Return the most informative line of a failed build."""
    for pattern in (r"\berror: |undefined reference|ERROR: modpost|Missing: ", r"\*\*\* |rror:", r"\S"):
        for line in log.splitlines() if pattern != r"\S" else reversed(log.splitlines()):
            if re.search(pattern, line):
                return line.strip()[:WIDTH]
    return "no output"


def check_config(evidence: Evidence) -> list[Reason]:
    """Check that .config has all that the fragments ask for, including "is not set"."""
    if evidence.got is None:
        return [] if evidence.config_status or evidence.timed_out else [Reason("config", "there is no .config")]
    found = []
    for name, value in evidence.asked.items():
        got = evidence.got.get(name, "n")
        if got != value:
            found.append(Reason("config", f"CONFIG_{name} is {got}, asked for {value}"))
    return found


def check_detectors(evidence: Evidence, console: Console) -> list[Reason]:
    """Check that each detector that the fragments ask for came up and stayed up; one that did not reports no splat."""
    gave_up = [Reason("config", f"CONFIG_{option}={evidence.asked[option]}, but the kernel printed '{words}'")
               for option, words in DISABLED if evidence.asked.get(option, "n") != "n" and option in console.disabled]  # fmt: skip
    if not console.ktap.started:
        return gave_up
    return gave_up + [Reason("config", f"CONFIG_{option}={evidence.asked[option]}, but the kernel did not print '{words}'")
            for option, words in DETECTORS if evidence.asked.get(option, "n") != "n" and option not in console.detectors]  # fmt: skip


def check_splats(console: Console) -> list[Reason]:
    """Check that the kernel printed no splat before, between or after the tests."""
    found = [Reason("splat", text) for text in console.splats or console.traces[:1]]
    if len(found) == MOST // 2:
        found.append(Reason("splat", f"… {console.count} such lines in all"))
    return found


def check_kernel(evidence: Evidence, console: Console) -> list[Reason]:
    """Check that the console is from the kernel that was built, booted once and with the requested arguments."""
    if not console.ktap.started:
        return []  # the kernel may have failed before printing them
    found = []
    if not evidence.banner:
        found.append(Reason("kernel", "the build left no version (include/generated/utsversion.h)"))
    elif len(console.banners) > 1:
        found.append(Reason("kernel", "'Linux version' is printed twice: did the kernel boot twice?"))
    elif console.banners != [evidence.banner]:
        banner = console.banners[0] if console.banners else "no 'Linux version'"
        found.append(Reason("kernel", f"the console has {banner[:WIDTH]}, the kernel that was built is {evidence.banner[:WIDTH]}"))
    lacking = [word for word in evidence.arguments if word not in console.arguments]
    if lacking or not console.arguments:
        found.append(Reason("kernel", f"booted without {' '.join(lacking) or 'a command line'}"))
    return found


def check_stream(console: Console) -> list[Reason]:
    """Check that the KTAP stream is complete and consistent."""
    found = []
    if not console.whole:
        found.append(Reason("console", f"more than {LARGEST >> 20} MB or {LINES} lines: the rest was not read"))
    found += [Reason("ktap", problem) for problem in console.ktap.problems]
    if not console.ktap.started and console.last:
        found.append(Reason("ktap", f"the console ends with: {console.last.strip()[:WIDTH]}"))
    return found + [Reason("ktap", f"{name} appears twice") for name in console.twice]


def check_tests(evidence: Evidence, console: Console, verdict: Verdict) -> list[Reason]:
    """Check that exactly the expected tests ran, and that each passed or skipped for an allowed reason."""
    expected = evidence.settle(console.tests) if evidence.settle else evidence.expected
    if not expected.tests:
        return [Reason("expected", "no test is expected here; run ./matrix/run --update-expected CELL to list what runs")]
    names = [name for name in expected.tests if not evidence.glob or matches(evidence.glob, name)]
    found: list[Reason] = []
    for name, node in console.tests.items():
        within = "/" not in name and any(test.startswith((name + ".", name + "/")) for test in names)
        if node.status == ktap.FAIL:
            found.append(Reason("test", f"{name} failed" + (f": {node.failed[:WIDTH]}" if node.failed else "")))
        elif name not in names and not within:
            found.append(Reason("unexpected", f"{name} is not in the list of expected tests"))
        elif node.status == ktap.SKIP:
            allowed = expected.allowed(name)
            if any(words in node.reason for words in allowed):
                verdict.skipped[name] = node.reason
            else:
                only = f"; allowed with: {'; '.join(allowed)}" if allowed else ""
                found.append(Reason("skip", f"{name} skipped: {node.reason or 'no reason given'}{only}"))
        elif within:
            found.append(Reason("unexpected", f"{name} has no parameters, but the list has some"))
    for name in names:
        parents = {name, name.partition("/")[0], name.partition(".")[0]}
        if not any(parent in console.tests for parent in parents):
            found.append(Reason("missing", f"{name} did not run"))
    return found


def check_end(evidence: Evidence, console: Console) -> list[Reason]:
    """Check that the kernel itself rebooted after the last test, and that kunit.py reports success."""
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

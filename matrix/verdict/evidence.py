# SPDX-License-Identifier: GPL-2.0
"""The input of the verdict, and the reasons that it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from matrix.verdict import ktap
from matrix.verdict.expected import Expected

MOST = 20  # reasons that one check reports
WIDTH = 200  # characters of a quoted line


@dataclass(frozen=True)
class Reason:
    """Why a cell is red: a short stable code and one line of explanation."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def differences(found: Sequence[Reason], expected: Sequence[Sequence[str]]) -> list[str]:
    """Return what differs from the expected (code, part of the text) pairs: pairs not found, and reasons with other codes."""
    wrong = [f"no {code}: …{part}…" for code, part in expected
             if not any(reason.code == code and part in reason.text for reason in found)]  # fmt: skip
    codes = {code for code, _ in expected}
    return wrong + [f"not expected: {reason}" for reason in found if reason.code not in codes]


@dataclass(frozen=True)
class Evidence:
    """What a run produced. console is None when the kernel was never booted."""

    asked: Mapping[str, str]  # options that the fragments ask for
    got: Mapping[str, str] | None  # options of the .config; None when it is missing
    expected: Expected
    touched: frozenset[str]  # files of the tree that must not cause warnings
    build_log: str = ""
    console: BinaryIO | None = None
    banner: str = ""  # the "Linux version" line of the kernel that was built
    arguments: Sequence[str] = ()  # that the kernel command line must contain
    build_only: bool = False  # the kernel is not to be booted
    glob: str = ""  # kunit.py's filter_glob
    config_status: int = 0  # exit statuses of kunit.py's steps
    build_status: int = 0
    selftests_status: int = 0  # of make in tools/testing/selftests/kvm
    exec_status: int = 0
    parse_status: int = 0
    timed_out: str = ""  # the step that timed out
    limit: float = 0  # that limit, in seconds
    settle: Callable[[Mapping[str, ktap.Node]], Expected] | None = None  # replaces expected, given the tests that ran

    @property
    def built(self) -> bool:
        """Whether every step so far succeeded."""
        return not (self.config_status or self.build_status or self.selftests_status or self.timed_out)

# SPDX-License-Identifier: GPL-2.0
"""A clean console, its expected tests and its evidence. Each test spoils one place of it."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from matrix.verdict.evidence import Evidence
from matrix.verdict.expected import Expected
from matrix.verdict.judge import Verdict, judge

BANNER = "Linux version 7.3.4 (user@host) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC"
BOOT = f"{BANNER}\nKernel command line: kunit.enable=1 console=ttyS0 kunit_shutdown=reboot\n"
# A boot with the KTAP that lib/kunit/test.c and lib/kunit/executor.c of 7.3 print.
CLEAN = """\
[12:00:00] Starting KUnit Kernel (1/1)...
Running tests with:
$ qemu-system-x86_64 -nodefaults -m 1024 -append 'oops=panic panic=-1 kunit.enable=1'
Linux version 7.3.4 (user@host) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC
Command line: oops=panic panic=-1 kunit.enable=1 console=ttyS0 kunit_shutdown=reboot
Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!
RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks, data leaks possible!
kasan: KernelAddressSanitizer initialized
kfence: initialized - using 2097152 bytes for 255 objects
rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.
qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.x2apic [bit 21]
kvm: Nested Paging enabled
KTAP version 1
1..3
    KTAP version 1
    # Subtest: alpha
    # module: alpha_kunit
    1..3
    ok 1 one
    # two: a message of the test
    # two.speed: slow
    ok 2 two
        KTAP version 1
        # Subtest: table
        1..2
        ok 1 first row
        ok 2 second row
    # table: pass:2 fail:0 skip:0 total:2
    ok 3 table
# alpha: pass:3 fail:0 skip:0 total:3
# Totals: pass:4 fail:0 skip:0 total:4
ok 1 alpha
    KTAP version 1
    # Subtest: beta
    1..2
    ok 1 may_skip # SKIP no such hardware
    ok 2 BUG: looks like a splat: Kernel panic
# beta: pass:1 fail:0 skip:1 total:2
# Totals: pass:1 fail:0 skip:1 total:2
ok 2 beta
    KTAP version 1
    # Subtest: gamma
    1..1
        KTAP version 1
        # Subtest: no_plan
        ok 1 param-1
    ok 1 no_plan
ok 3 gamma
kvm: exiting hardware virtualization
reboot: Restarting system
reboot: machine restart
[12:00:02] Elapsed time: 1.400s
"""

TESTS: dict[str, str | None] = {
    "alpha.one": None,
    "alpha.two": None,
    "alpha.table/first row": None,
    "alpha.table/second row": None,
    "beta.may_skip": "no such hardware",
    "beta.BUG: looks like a splat: Kernel panic": None,
    "gamma.no_plan/param-1": None,
}

# A boot with the KTAP that matrix/cell/init.c prints.
E2E = BOOT + """\
Command line: kunit.enable=1 console=ttyS0 kunit.enable=0 kunit_shutdown=none panic=-1
kvm: Nested Paging enabled
kunit: disabled
Run /init as init process
KTAP version 1
1..1
    KTAP version 1
    # Subtest: kvm_selftests
    1..3
    # plain_test: Random seed: 0x6b8b4567
    # plain_test: took 1.2 s
    ok 1 plain_test
    # skip_test: 1..0 # SKIP - Requirement not met: kvm_has_cap(KVM_CAP_X)
    # skip_test: took 0.1 s
    ok 2 skip_test # SKIP Requirement not met: kvm_has_cap(KVM_CAP_X)
    # tap_test: TAP version 13
    # tap_test: # huge mappings: 1536
    # tap_test: # Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0
    # tap_test: took 9.9 s
        KTAP version 1
        # Subtest: tap_test
        1..2
        ok 1 first
        ok 2 second
    # tap_test: pass:2 fail:0 skip:0 total:2
    ok 3 tap_test
# kvm_selftests: pass:2 fail:0 skip:1 total:3
# Totals: pass:3 fail:0 skip:1 total:4
ok 1 kvm_selftests
reboot: Restarting system
"""

E2E_TESTS: dict[str, str | None] = {
    "kvm_selftests.plain_test": None,
    "kvm_selftests.skip_test": "kvm_has_cap(KVM_CAP_X)",
    "kvm_selftests.tap_test/first": None,
    "kvm_selftests.tap_test/second": None,
}


def passed(tests: Iterable[str]) -> str:
    """The console of a boot in which these tests pass."""
    suites: dict[str, dict[str, list[str]]] = {}
    for suite, _, case in (name.partition(".") for name in tests):
        name, _, parameter = case.partition("/")
        suites.setdefault(suite, {}).setdefault(name, []).extend([parameter] if parameter else [])
    text = f"{BOOT}KTAP version 1\n1..{len(suites)}\n"
    for at, (suite, cases) in enumerate(suites.items(), 1):
        text += f"    KTAP version 1\n    # Subtest: {suite}\n    1..{len(cases)}\n"
        for number, (case, parameters) in enumerate(cases.items(), 1):
            if parameters:
                text += f"        KTAP version 1\n        # Subtest: {case}\n"
                text += "".join(f"        ok {n} {parameter}\n" for n, parameter in enumerate(parameters, 1))
                text += f"    # {case}: pass:{len(parameters)} fail:0 skip:0 total:{len(parameters)}\n"
            text += f"    ok {number} {case}\n"
        total = sum(len(parameters) or 1 for parameters in cases.values())
        text += f"# {suite}: pass:{len(cases)} fail:0 skip:0 total:{len(cases)}\n# Totals: pass:{total} fail:0 skip:0 total:{total}\n"
        text += f"ok {at} {suite}\n"
    return text + "reboot: Restarting system\n"


def expect(tests: Mapping[str, str | None]) -> Expected:
    """Return the tests that a cell expects, and the words with which they may skip."""
    return Expected(list(tests), [(name, words) for name, words in tests.items() if words])


def listing(tests: Mapping[str, str | None]) -> str:
    """Return the same as lines of matrix/expected.txt, for all cells."""
    return "".join(name + "\n" + (f"    skip *: {words}\n" if words else "") for name, words in tests.items())


FULL = Evidence(
    asked={"KUNIT": "y", "TRANSPARENT_HUGEPAGE": "n"},
    got={"KUNIT": "y"},
    expected=expect(TESTS),
    touched=frozenset({"virt/kvm/guest_memfd.c", "include/uapi/linux/kvm.h", "virt/kvm/tests/a_kunit.c"}),
    limit=300,
    banner=BANNER,
    arguments=("kunit.enable=1",),
)


def verdict(console: str | bytes = CLEAN, **change: Any) -> Verdict:
    """Judge FULL with this console and these fields changed."""
    data = console.encode() if isinstance(console, str) else console
    return judge(replace(FULL, console=io.BytesIO(data), **change))


def spoil(old: str, new: str, text: str = CLEAN) -> str:
    """Return a text with one place changed, which must exist."""
    assert text.count(old) == 1, (text.count(old), old)
    return text.replace(old, new)

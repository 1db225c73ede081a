# SPDX-License-Identifier: GPL-2.0
"""Test the verdict on a clean run that is spoiled in one place."""

import io
import re
import tracemalloc
import unittest
from typing import Any
from unittest import mock

from matrix.verdict import ktap
from matrix.verdict import console as reader, judge as module
from matrix.verdict.expected import Expected
from matrix.tests.consoles import BOOT, CLEAN, FULL, TESTS, expect, spoil, verdict
from matrix.verdict.evidence import Evidence
from matrix.verdict.judge import judge, matches
from matrix.verdict.splat import DETECTORS, DISABLED

# Lines that the kernel prints when something is wrong, one for each kind, and our label for them.
SPLATS = {
    "BUG: KASAN: slab-use-after-free in kvm_gmem_release+0x1c/0x40": "KASAN",
    "BUG: KASAN: invalid-access": "KASAN",
    "BUG: KCSAN: data-race in kvm_gmem_fault / kvm_gmem_fallocate": "KCSAN",
    "BUG: KFENCE: out-of-bounds read in test_out_of_bounds_read+0xa6/0x234": "KFENCE",
    "UBSAN: shift-out-of-bounds in virt/kvm/guest_memfd.c:12:3": "UBSAN",
    "Kernel panic - not syncing: Fatal exception": "panic",
    "PANIC: double fault, error_code: 0x0": "panic",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)": "kmemleak",
    "unreferenced object 0xffff88800488d000 (size 64):": "kmemleak",
    "WARNING: possible recursive locking detected": "lockdep",
    "WARNING: possible circular locking dependency detected": "lockdep",
    "WARNING: inconsistent lock state": "lockdep",
    "WARNING: suspicious RCU usage": "lockdep",
    "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected": "lockdep",
    "WARNING: bad unlock balance detected!": "lockdep",
    "WARNING: held lock freed!": "lockdep",
    "WARNING: kunit_try_catch/81 still has locks held!": "lockdep",
    "[ BUG: Invalid wait context ]": "lockdep",
    "INFO: trying to register non-static key.": "lockdep",
    "INFO: lockdep is turned off.": "lockdep",
    "rcu: INFO: rcu_preempt self-detected stall on CPU": "RCU stall",
    "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:": "RCU stall",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 21 jiffies": "RCU stall",
    "rcu: rcu_preempt kthread starved for 5250 jiffies! g-1187 f0x0 RCU_GP_WAIT_FQS(5) ->state=R": "RCU stall",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kunit_try_catch:81]": "lockup",
    "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0": "lockup",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!": "lockup",
    "INFO: task kunit_try_catch:81 blocked for more than 122 seconds.": "hung task",
    "INFO: task kunit_try_catch:81 blocked in I/O wait for more than 122 seconds.": "hung task",
    "Out of memory: Killed process 81 (init) total-vm:4kB, anon-rss:0kB": "OOM",
    "Memory cgroup out of memory: Killed process 81 (init) total-vm:4kB": "OOM",
    "kunit_try_catch invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0": "OOM",
    "kunit_try_catch: page allocation failure: order:9, mode:0xcc0(GFP_KERNEL), nodemask=(null)": "allocation failure",
    "SLUB: Unable to allocate memory on CPU 0 (of node 0) on node -1, gfp=0xcc0(GFP_KERNEL)": "allocation failure",
    "BUG: scheduling while atomic: kunit_try_catch/81/0x00000002": "atomic sleep",
    "BUG: sleeping function called from invalid context at mm/memory.c:1": "atomic sleep",
    "softirq: huh, entered softirq 9 RCU 0000 with preempt_count 00000100, exited with 00000101?": "atomic sleep",
    "CPU1 failed to report alive state": "CPU",
    "CPU1: failed to come online": "CPU",
    "CPU1: is stuck in kernel": "CPU",
    "BUG: Bad page state in process kunit_try_catch  pfn:12345": "bad page",
    "BUG: Bad rss-counter state mm:(____ptrval____) type:MM_FILEPAGES val:1": "bad page",
    "page dumped because: VM_BUG_ON_FOLIO(folio_test_large(folio))": "bad page",
    "mm/pgtable-generic.c:54: bad pmd ffff888004a3c000(8000000012345678)": "bad page",
    "mm/memory.c:210: bad pmd 0060000040000701.": "bad page",
    "get_swap_device: Bad swap file entry 3ffffffffffff": "bad page",
    "swap_dup_entries_cluster: Bad swap offset entry 12345678": "bad page",
    "refcount_t: underflow; use-after-free.": "refcount",
    "list_add corruption. prev->next should be next (ffff88), but was ffff89. (prev=ffff90).": "corruption",
    "list_del corruption, ffff8880->next is NULL": "corruption",
    "BUG kmalloc-64 (Tainted: G                 N ): Right Redzone overwritten": "corruption",
    "pagealloc: memory corruption": "corruption",
    "usercopy: Kernel memory exposure attempt detected from SLUB object 'a' (offset 1, size 2)!": "corruption",
    "strcpy: detected buffer overflow: 12 byte write of buffer size 11": "corruption",
    "Insufficient stack space to handle exception!": "corruption",
    "ODEBUG: free active (active state 0) object: ffff8880 object type: work_struct": "corruption",
    "Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP": "Oops",
    "Oops: invalid opcode: 0000 [#1] SMP NOPTI": "Oops",
    "BUG: kernel NULL pointer dereference, address: 0000000000000008": "Oops",
    "BUG: unable to handle page fault for address: ffffc90000000000": "Oops",
    "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008": "Oops",
    "Unable to handle kernel paging request at virtual address dead000000000100": "Oops",
    "Internal error: Oops: 0000000096000004 [#1]  SMP": "Oops",
    "Internal error: synchronous external abort: 0000000096000210 [#1]  SMP": "Oops",
    "SError Interrupt on CPU0, code 0x00000000be000000 -- SError": "Oops",
    "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)": "Oops",
    "kernel BUG at virt/kvm/guest_memfd.c:123!": "BUG",
    "BUG: spinlock bad magic on CPU#0, swapper/0/1": "BUG",
    "WARNING: virt/kvm/guest_memfd.c:34 at kvm_gmem_fault+0x1c/0x40, CPU#0: kunit_try_catch/81": "WARNING",
    "WARNING: CPU: 0 PID: 81 at mm/filemap.c:34 filemap_fault+0x1c/0x40": "WARNING",
    "irq 9: nobody cared (try booting with the \"irqpoll\" option)": "irq",
    "Uhhuh. NMI received for unknown reason 30 on CPU 0.": "irq",
    "No irq handler for 1.35": "irq",
    "** 12 printk messages dropped **": "lost messages",
    "printk: dropped 34 messages": "lost messages",
    "init: 12 output lines suppressed due to ratelimiting": "lost messages",
    "kunit: test interrupted": "KUnit",
    "qemu-system-x86_64: terminating on signal 15 from pid 12": "QEMU",
    "kvm: exitiqemu-system-x86_64: Error: x": "QEMU",
    "ERROR:../accel/tcg/cpu-exec.c:1023:cpu_exec: assertion failed: (cpu == current_cpu)": "QEMU",
    "Bail out! ERROR:../accel/tcg/cpu-exec.c:1023:cpu_exec: assertion failed: (cpu == current_cpu)": "QEMU",
    "------------[ cut here ]------------": "trace",
    "---[ end trace 0000000000000000 ]---": "trace",
    "Call Trace:": "trace",
    "Call trace:": "trace",
    "RIP: 0010:kvm_gmem_fault+0x1c/0x40": "trace",
}  # fmt: skip

# Places for a splat: the line of CLEAN before which it is inserted.
PLACES = {
    "before the tests": "KTAP version 1\n1..3\n",
    "before the plan": "1..3\n    KTAP",
    "inside a suite": "    # two: a message",
    "inside parameters": "        ok 2 second row",
    "between suites": "    KTAP version 1\n    # Subtest: beta",
    "after the tests": "kvm: exiting",
    "after the reboot": "reboot: machine restart",
    "as the last line": "[12:00:02] Elapsed",
}

# Lines of healthy boots, which must not be red.
HARMLESS = (
    "Kernel command line: oops=panic panic_on_warn=0 nowatchdog softlockup_panic=1",
    "rcu: \tRCU CPU stall warnings timeout set to 21 (rcu_cpu_stall_timeout).",
    "Warning: unable to open an initial console.",
    "Mountpoint-cache hash table entries: 2048 (order: 2, 16384 bytes, linear)",
    "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
    "kmemleak: Kernel memory leak detector initialized (mem pool available: 15658)",
    "kcsan: enabled early",
    "kmemleak: Kernel memory leak detector disabled",
    "ODEBUG: selftest passed",
    "Disabling lock debugging due to kernel taint",
    "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
    "OOM killer disabled.",
    "Spectre V2 : WARNING: LFENCE mitigation is not recommended for this CPU, data leaks possible!",
    "debug_vm_pgtable: [debug_vm_pgtable         ]: Validating architecture page table helpers",
    "hugetlb: SKIP: no huge pages",
    "ok, this is a message",
    "# a comment",
)

# name -> (text of CLEAN, its replacement, code of a reason, part of its text)
STREAMS = {
    "a test fails": ("    ok 1 one", "    not ok 1 one", "test", "alpha.one failed"),
    "a parameter fails": ("        ok 1 first row", "        not ok 1 first row", "test", "alpha.table/first row failed"),
    "a failed test says why": (
        "    ok 2 two", "    # two: EXPECTATION FAILED at virt/kvm/tests/a_kunit.c:7\n    not ok 2 two",
        "test", "alpha.two failed: EXPECTATION FAILED at virt/kvm/tests/a_kunit.c:7"),
    "a failed expectation and ok": (
        "    ok 2 two", "    # two: EXPECTATION FAILED at a.c:7\n    ok 2 two", "ktap", "two is 'ok' although it printed"),
    "a failed expectation and a skip": (
        "    ok 1 may_skip # SKIP", "    # may_skip: ASSERTION FAILED at a.c:7\n    ok 1 may_skip # SKIP",
        "ktap", "may_skip is 'skip' although"),
    "a failed expectation after the last parameter": (
        "    ok 3 table", "    # table: EXPECTATION FAILED at a.c:7\n    ok 3 table", "ktap", "table is 'ok' although it printed"),
    "a failed expectation after the last case": (
        "ok 1 alpha", "    # two: EXPECTATION FAILED at a.c:7\nok 1 alpha", "ktap", "alpha is 'ok' although it printed"),
    "not ok with SKIP": ("    ok 1 may_skip", "    not ok 1 may_skip", "test", "beta.may_skip failed"),
    "a skip that no rule allows": ("    ok 1 one", "    ok 1 one # SKIP why not", "skip", "alpha.one skipped: why not"),
    "a parameter skips, which no rule allows": (
        "        ok 1 first row", "        ok 1 first row # SKIP", "skip", "first row skipped: no reason given"),
    "an unknown test": ("    ok 2 two", "    ok 2 zwei", "unexpected", "alpha.zwei is not in the list"),
    "a test did not run": ("    ok 2 two", "    ok 2 zwei", "missing", "alpha.two did not run"),
    "an unknown parameter": ("        ok 2 second row", "        ok 2 third row", "unexpected", "alpha.table/third row"),
    "a result is missing": ("    ok 2 two\n", "", "ktap", "table is numbered 3, expected 2"),
    "the plan is too large": ("    1..3\n    ok 1 one", "    1..4\n    ok 1 one", "ktap", "alpha: 4 results planned, 3 found"),
    "the plan is too small": ("    1..3\n    ok 1 one", "    1..2\n    ok 1 one", "ktap", "alpha: 2 results planned, 3 found"),
    "the inner plan is wrong": ("        1..2\n", "        1..3\n", "ktap", "table: 3 results planned, 2 found"),
    "the outer plan is too large": ("1..3\n    KTAP", "1..4\n    KTAP", "ktap", "cut: top level: 3 of 4 results"),
    "the outer plan is too small": ("1..3\n    KTAP", "1..2\n    KTAP", "ktap", "a second KTAP stream"),
    "a suite without a plan": ("    1..2\n    ok 1 may_skip", "    ok 1 may_skip", "ktap", "suite beta has no plan"),
    "a second plan": ("    ok 1 one\n", "    ok 1 one\n    1..3\n", "ktap", "late or second plan"),
    "no outer plan": ("1..3\n    KTAP", "    KTAP", "ktap", "cut: top level: no plan"),
    "wrong numbers": ("    ok 2 two", "    ok 3 two", "ktap", "two is numbered 3, expected 2"),
    "wrong name at the end of a suite": ("ok 2 beta", "ok 2 gamma", "ktap", "'beta' ends with the result of 'gamma'"),
    "a suite is ok against its cases": ("    ok 1 one", "    not ok 1 one", "ktap", "alpha is 'ok', which contradicts"),
    "a suite fails with good cases": ("ok 3 gamma", "not ok 3 gamma", "ktap", "gamma is 'not ok', which contradicts"),
    "statistics do not add up": ("# alpha: pass:3", "# alpha: pass:2", "ktap", "alpha: the line '# alpha: pass:…' does not"),
    "statistics of another run": ("# alpha: pass:3 fail:0 skip:0", "# alpha: pass:2 fail:0 skip:1", "ktap", "'# alpha: pass:…' does not"),
    "statistics with another sum": ("# alpha: pass:3 fail:0 skip:0 total:3", "# alpha: pass:3 fail:0 skip:0 total:4",
                                    "ktap", "'# alpha: pass:…' does not"),
    "totals do not add up": ("# Totals: pass:4", "# Totals: pass:3", "ktap", "alpha: the line '# Totals: pass:…' does not"),
    "parameter statistics": ("    # table: pass:2", "    # table: pass:1", "ktap", "table: the line '# table: pass:…' does not"),
    "statistics are missing": ("# alpha: pass:3 fail:0 skip:0 total:3\n", "", "ktap", "'# alpha: pass:…' is missing"),
    "totals are missing": ("# Totals: pass:4 fail:0 skip:0 total:4\n", "", "ktap", "'# Totals: pass:…' is missing"),
    "a name appears twice": ("        ok 2 second row", "        ok 2 first row", "ktap", "alpha.table/first row appears twice"),
    "another version": ("KTAP version 1\n1..3", "KTAP version 2\n1..3", "ktap", "KTAP version 2, not 1"),
    "the wrong column": ("    ok 2 two", "   ok 2 two", "ktap", "result 2 two out of place in alpha, after one"),
    "a second stream": ("reboot: machine restart", "KTAP version 1\n1..3\n", "ktap", "a second KTAP stream: did the kernel boot twice?"),
    "a result after the end": ("kvm: exiting", "ok 4 delta\nkvm: exiting", "ktap", "result 4 delta out of place"),
    "the header of a suite is lost": ("    # Subtest: beta\n", "", "ktap", "block '' ends with the result of 'beta'"),
    "a suite that cannot start": ("ok 3 gamma", "# gamma: # failed to initialize (-12)\nnot ok 3 gamma", "ktap", "gamma"),
    "an expectation that fails too late": ("kvm: exiting", "    # late: EXPECTATION FAILED at a.c:7\nkvm: exiting",
                                           "ktap", "no result after 'EXPECTATION FAILED at a.c:7'"),
    "a second header": ("    # Subtest: beta\n", "    # Subtest: beta\n    # Subtest: beta\n", "ktap", "a second header: beta"),
    "a late header": ("    # Subtest: beta\n    1..2\n", "    1..2\n    # Subtest: beta\n", "ktap", "a late header: beta"),
    "a result without a name": ("    ok 2 two", "    ok 2", "ktap", "result 2 has no name"),
    "another release": ("Linux version 7.3.4", "Linux version 7.3.5", "kernel", "the console has Linux version 7.3.5"),
    "another build": ("#1 SMP", "#2 SMP", "kernel", "the kernel that was built is Linux version 7.3.4"),
    "another compiler": ("(Debian 12.2.0-14) 12.2.0)", "(Debian 13.1) 13.1)", "kernel", "the console has Linux version"),
    "no version": ("Linux version", "Linux", "kernel", "the console has no 'Linux version'"),
    "a second version": ("Command line", "Linux version 7.3.4\nCommand line", "kernel", "printed twice"),
    "a second version after the tests": ("kvm: exiting", "Linux version 7.3.4\nkvm: exiting", "kernel", "printed twice"),
    "no arguments": ("Command line", "Line", "kernel", "booted without kunit.enable=1"),
    "an argument is lost": (" kunit.enable=1 console", " console", "kernel", "booted without kunit.enable=1"),
    "no reboot": ("reboot: Restarting system\n", "", "end", "no 'reboot: Restarting system' after"),
    "a power off instead": ("reboot: Restarting system\n", "reboot: Power down\n", "end", "no 'reboot: Restarting"),
    "a reboot before the end": ("ok 3 gamma\nkvm: exiting hardware virtualization\nreboot: Restarting system",
                                "reboot: Restarting system\nok 3 gamma", "end", "no 'reboot: Restarting"),
    "kunit.py's time limit": ("[12:00:02]", "Command '['qemu-system-x86_64', '-m']' timed out after 300 seconds\n[12:00:02]",
                              "hang", "boot did not end within 300 s"),
}  # fmt: skip

# name -> (fields of the evidence, code, text)
FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "config: an option is off": ({"got": {}}, "config", "CONFIG_KUNIT is n, asked for y"),
    "config: an option is on": (
        {"got": {"KUNIT": "y", "TRANSPARENT_HUGEPAGE": "y"}}, "config", "CONFIG_TRANSPARENT_HUGEPAGE is y, asked for n"),
    "config: a module": ({"got": {"KUNIT": "m"}}, "config", "CONFIG_KUNIT is m, asked for y"),
    "config: none": ({"got": None}, "config", "there is no .config"),
    "config fails": ({"config_status": 1, "build_log": "ERROR:root:Not all\nMissing: CONFIG_X=y"}, "config", "Missing: CONFIG_X=y"),
    "build fails": ({"build_status": 1, "build_log": "a\nx.c:3:1: error: expected ';'\nmake: *** [x] Error 1"},
                    "build", "x.c:3:1: error: expected ';'"),
    "build fails silently": ({"build_status": 1}, "build", "no output"),
    "configure hangs": ({"timed_out": "configure", "limit": 9}, "config", "configure did not end within 9 s"),
    "build of the selftests hangs": ({"timed_out": "build of the selftests", "limit": 9}, "build", "build of the selftests did not end"),
    "build hangs": ({"timed_out": "build", "limit": 9}, "build", "build did not end within 9 s"),
    "boot hangs": ({"timed_out": "boot"}, "hang", "boot did not end within 300 s"),
    "exec fails": ({"exec_status": 1}, "exec", "kunit.py exec ends with status 1"),
    "no version of the kernel": ({"banner": ""}, "kernel", "the build left no version"),
    "kunit.py parse disagrees": ({"parse_status": 1}, "kunit", "kunit.py parse ends with status 1"),
    "nothing is expected": ({"expected": Expected()}, "expected", "--update-expected"),
}  # fmt: skip


def with_option(option: str) -> dict[str, Any]:
    """Return the fields of FULL for a cell that also asks for this option, and whose kernel has it."""
    return {"asked": {**FULL.asked, option: "y"}, "got": {**(FULL.got or {}), option: "y"}}


TREE = "/build/tree"
# Build logs with a warning that concerns us.
WARNINGS = {
    "plain": "virt/kvm/guest_memfd.c:12:3: warning: unused variable 'x' [-Wunused-variable]",
    "absolute": f"{TREE}/virt/kvm/guest_memfd.c:12:3: warning: unused variable 'x'",
    "through x86": f"{TREE}/arch/x86/kvm/../../../virt/kvm/guest_memfd.c:12:3: warning: unused variable 'x'",
    "through a test": f"{TREE}/virt/kvm/tests/../guest_memfd.c:12:3: warning: unused variable 'x'",
    "uapi header": f"In file included from {TREE}/mm/gup.c:7:\n{TREE}/include/uapi/linux/kvm.h:9:1: warning: redefined",
    "a header that we include": (
        f"In file included from {TREE}/include/linux/mm.h:7,\n                 from {TREE}/virt/kvm/guest_memfd.c:2:\n"
        f"{TREE}/include/linux/x.h: In function 'f':\n{TREE}/include/linux/x.h:9:1: warning: 'a' may be used uninitialized"),
    "a macro that we use": (
        f"{TREE}/include/linux/minmax.h:25:9: warning: comparison of distinct pointer types\n   25 |  x\n      |  ^\n"
        f"{TREE}/virt/kvm/guest_memfd.c:9:1: note: in expansion of macro 'min'"),
    "inlined into our code": (
        f"In file included from {TREE}/include/linux/string.h:1,\n                 from {TREE}/lib/x.c:1:\n"
        "In function 'check',\n    inlined from 'g' at virt/kvm/guest_memfd.c:4:23:\n"
        f"{TREE}/include/linux/fortify-string.h:3:15: warning: call to '__write_overflow_field' declared with attribute warning"),
    "ld, of an object that it names later": (
        "x86_64-linux-gnu-ld: warning: orphan section `.foo' from `virt/kvm/guest_memfd.o' being placed in section `.foo'"),
    "ld, of an object": "ld: warning: virt/kvm/guest_memfd.o: missing .note.GNU-stack section implies executable stack",
    "sparse": "virt/kvm/tests/a_kunit.c:12:3: warning: symbol 'x' was not declared. Should it be static?",
    "sparse error": "virt/kvm/tests/a_kunit.c:12:3: error: incompatible types in comparison expression",
    "Kconfig": "virt/kvm/guest_memfd.c:3:warning: config symbol defined without type",
    "objtool": "virt/kvm/guest_memfd.o: warning: objtool: kvm_gmem_fault+0x1c: unreachable instruction",
    "objtool on vmlinux": "vmlinux.o: warning: objtool: kvm_gmem_fault+0x1c: call without frame pointer save",
    "ld": "ld: virt/kvm/guest_memfd.o: in function `f': warning: relocation",
    "ld, in two lines": (
        "ld: virt/kvm/guest_memfd.o: in function `kvm_gmem_fault':\nguest_memfd.c:(.text+0x1): warning: the `x' function is dangerous"),
    "ld, in two lines, the second time": (
        "vmlinux.a(virt/kvm/guest_memfd.o): in function `f':\nmemfd.h:(.text+0x1): warning: x\nmemfd.h:(.text+0x2): warning: y"),
    "as": "virt/kvm/guest_memfd.s:1: Warning: missing operand; zero assumed",
    "as, of a file that gcc made": "/tmp/ccAb12Cd.s: Assembler messages:\n/tmp/ccAb12Cd.s:12: Warning: missing operand; zero assumed",
    "as, through a pipe": "{standard input}:12: Warning: missing operand; zero assumed",
    "clock skew": "make: warning:  Clock skew detected.  Your build may be incomplete.",
    "clock skew in a sub-make": "make[3]: warning:  Clock skew detected.  Your build may be incomplete.",
    "modpost section": "WARNING: modpost: vmlinux: section mismatch in reference: f+0x1 (section: .text) -> g (section: .init.text)",
    "modpost description": "WARNING: modpost: missing MODULE_DESCRIPTION() in virt/kvm/tests/a_kunit.o",
    "Kconfig dependencies": "WARNING: unmet direct dependencies detected for KVM_GUEST_MEMFD",
}  # fmt: skip
# Build logs with warnings that do not concern us.
FOREIGN = {
    "another file": "mm/guest_memfd.c:12:3: warning: unused variable 'x'",
    "a longer name": "lib/xvirt/kvm/guest_memfd.c:12:3: warning: unused variable",
    "after one of ours": "virt/kvm/guest_memfd.c: In function 'f':\nmake[3]: Leaving\nmm/gup.c:1:2: warning: x",
    "before one of ours": "mm/gup.c:1:2: warning: x\nvirt/kvm/guest_memfd.c: In function 'f':\nmake[3]: Leaving",
    "modpost on another object": "WARNING: modpost: missing MODULE_DESCRIPTION() in lib/foo.o",
    "a note": "virt/kvm/guest_memfd.c:9:1: note: #pragma message: x",
    "inlined into another file": (
        "In function 'check',\n    inlined from 'g' at mm/gup.c:4:23:\ninclude/linux/x.h:3:15: warning: call to 'x'"),
    "ld": "ld: warning: vmlinux has a LOAD segment with RWX permissions",
    "ld, in two lines": "ld: mm/gup.o: in function `f':\ngup.c:(.text+0x1): warning: the `x' function is dangerous",
    "ld, one of ours without a warning": "ld: virt/kvm/guest_memfd.o: in function `f':\nmake[3]: Leaving\ngup.c:(.text+0x1): warning: x",
    "as": "mm/gup.s:1: Warning: missing operand; zero assumed",
    "make": "make[1]: warning: jobserver unavailable: using -j1.",
}


class Clean(unittest.TestCase):
    """Evidence for which the verdict must be green."""

    def check_green(self, console: str | bytes = CLEAN, **change: Any) -> None:
        """Check that the verdict is green, with all tests."""
        found = verdict(console, **change)
        self.assertEqual([str(reason) for reason in found.reasons], [])
        self.assertTrue(found.green)

    def test_clean(self) -> None:
        """The clean run is green, and its allowed skip is reported."""
        self.check_green()
        found = verdict()
        self.assertEqual(found.skipped, {"beta.may_skip": "no such hardware"})
        self.assertEqual(list(found.tests), list(TESTS))

    def test_leave_need_not_be_taken(self) -> None:
        """A test that may skip may also pass."""
        text = spoil("    ok 1 may_skip # SKIP no such hardware", "    ok 1 may_skip")
        text = text.replace("pass:1 fail:0 skip:1", "pass:2 fail:0 skip:0")
        self.check_green(text)

    def test_harmless(self) -> None:
        """Lines of healthy boots are accepted in every place."""
        for line in HARMLESS:
            for place, before in PLACES.items():
                with self.subTest(line=line, place=place):
                    self.check_green(spoil(before, f"{line}\n{before}"))

    def test_detectors(self) -> None:
        """A detector that the fragments ask for is up once the kernel says so."""
        for option, words in DETECTORS:
            text = spoil("KTAP version 1\n1..3", f"[    0.010000] {words} (generic)\nKTAP version 1\n1..3")
            self.check_green(text, **with_option(option))
        for option, words in DISABLED:  # harmless where nobody asked for it, and in what a test prints
            self.check_green(spoil("    ok 1 one\n", f"{words} y\n    ok 1 one\n"))
            begin = f"{dict(DETECTORS)[option]} x\nKTAP version 1\n1..3"
            text = spoil("KTAP version 1\n1..3", begin).replace("    ok 1 one\n", f"    # one: {words}\n    ok 1 one\n", 1)
            self.check_green(text, **with_option(option))

    def test_dressed(self) -> None:
        """printk's prefixes, CR/LF, escape sequences, control bytes and invalid UTF-8 are accepted."""
        lines = CLEAN.splitlines()
        forms = {
            "time": "\n".join(f"[    1.{at:06}] {line}" for at, line in enumerate(lines)),
            "time and caller": "\n".join(f"[{at:5}.123456][{'T1':>6}] {line}" for at, line in enumerate(lines)),
            "caller": "\n".join(f"[{'C0':>6}] {line}" for line in lines),
            "level": "\n".join(f"<6>[    1.{at:06}] {line}" for at, line in enumerate(lines)),
            "CR": "\r".join(lines),
            "CR/LF": "\r\n".join(lines),
            "LF/CR": "\n\r".join(lines),
            "firmware": "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\n" + "\n".join("\x1b[0m" + line + "\x00\x07" for line in lines),
            "glued": "".join(f"[    1.{at:06}] {line}" + "\n" * (at % 2) for at, line in enumerate(lines)),
        }
        for name, text in forms.items():
            with self.subTest(name):
                self.check_green(text)
        self.check_green(b"\xff\xfe\x80 noise\n" + CLEAN.encode() + b"\xc3(\n")

    def test_chunks(self) -> None:
        """CR/LF, escape sequences and long lines are read correctly across chunk boundaries."""
        text = "\x1bc\x1b[2J\x1b[0mSeaBIOS\r\n" + "".join(f"\x1b[1;37m{line}\r\n" for line in CLEAN.splitlines())
        line = text.count("\n") + 1
        for size in (1, 2, 3, 7, 64):
            with self.subTest(size), mock.patch.object(reader, "CHUNK", size):
                self.check_green(text)
                found = verdict(text + "BUG: KASAN: x")
                self.assertEqual([str(reason) for reason in found.reasons], [f"splat: KASAN after the tests (line {line}): BUG: KASAN: x"])
        with mock.patch.object(reader, "LONG", 300), mock.patch.object(reader, "CHUNK", 1000):
            for at in range(250, 350):
                self.assertFalse(verdict(CLEAN + "x" * at + " BUG: KASAN: y\n").green, at)

    def test_long_lines(self) -> None:
        """A splat is found wherever a long line is split, and a piece of a line is not a result."""
        splat, size = b" BUG: KASAN: y", reader.LONG
        for cut in (size, reader.CHUNK - len(CLEAN)):
            for at in range(cut - len(splat), cut + 1):
                found = verdict(CLEAN.encode() + b"x" * at + splat + b"z" * size + b"\n")
                self.assertEqual({reason.code for reason in found.reasons}, {"splat"}, at)
        head, tail = CLEAN.encode().split(b"    ok 2 two\n")
        with mock.patch.multiple(reader, LONG=300, CHUNK=1000, OVERLAP=200):
            for at in range(1, 2000):
                self.assertIn("missing", {r.code for r in verdict(head + b"x" * at + b"    ok 2 two\n" + tail).reasons}, at)

    def test_replay(self) -> None:
        """A line that the kernel prints again after all or part of it counts once; no other text is omitted."""
        note = "** replaying previous printk message **\n"
        lines = CLEAN.splitlines(keepends=True)
        for at in range(lines.index("KTAP version 1\n"), len(lines)):
            line = lines[at]
            for part in (line, line[: len(line) // 2] + "\n", line[:-2] + "\n"):
                self.check_green("".join([*lines[:at], part, note, *lines[at:]]))
        for part in ("    ok 2 two", "    not ok 2 two", "BUG: KASAN: x"):
            for after in (note, note + note, note + "kvm: \n", note + part[:-1] + "\n"):
                text = spoil("    ok 2 two\n", part + "\n" + after + "    ok 2 two\n")
                self.assertEqual(verdict(text).green, part == "    ok 2 two" and after == note, text)

    def test_swallowed_letters(self) -> None:
        """A truncated escape sequence does not hide the first letter of a splat; a complete one is ignored."""
        for sequence in ("\x1b", "\x1b\x1b", "\x1b[", "\x1b[3", "\x1b[0;", "\x1b[0m\x1b[", "\x1b[0mtwo \x1b[1"):
            for line in SPLATS:
                anchored = re.match(r"RIP: |BUG kmalloc|kunit: |Bail|ERROR:", line) and " " in sequence
                if anchored or (sequence[-1] != "\x1b" and not line[0].isalpha()):  # not the kernel's line, not a sequence
                    continue
                for before in ("", "[    1.234567] ", "hel[    1.234567] "):
                    self.assertIn("splat", {reason.code for reason in verdict(f"{before}{sequence}{line}\n").reasons}, line)

    def test_expected_warning(self) -> None:
        """A WARN that a test suppresses (lib/kunit/bug.c) prints nothing; a test may mention it in its own message."""
        self.check_green(spoil("    ok 2 two", "    # two: WARNING: this one is expected\n    ok 2 two"))

    def test_foreign_warnings(self) -> None:
        """Warnings in files that we do not touch are accepted."""
        for name, log in FOREIGN.items():
            with self.subTest(name):
                self.check_green(build_log=log)

    def test_filter(self) -> None:
        """With a filter, only tests that it selects must run."""
        text = BOOT + "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: alpha\n    1..1\n    ok 1 one\nok 1 alpha\n"
        for glob in ("alpha.one", "alph?.o*", "*.one", "[a-b]lpha.[!t]*"):
            with self.subTest(glob):
                self.check_green(text + "reboot: Restarting system\n", glob=glob)

    def test_matches(self) -> None:
        """As in kunit_parse_glob_filter(), the first dot separates suite and case."""
        cases = {"a": True, "a*": True, "*": True, "b": False, "a.x": True, "a.y": False, "a.*": True, "?.x": True, "aa": False}
        for glob, expected in cases.items():
            self.assertEqual(matches(glob, "a.x/p 1"), expected, glob)


class Spoiled(unittest.TestCase):
    """Evidence for which the verdict must be red, and the expected reasons."""

    def check_red(self, code: str, text: str, console: str | bytes = CLEAN, **change: Any) -> None:
        """Check that the verdict is red, with a reason that has this code and text."""
        found = verdict(console, **change)
        self.assertFalse(found.green)
        same = [reason.text for reason in found.reasons if reason.code == code]
        self.assertTrue(any(text in line for line in same), f"want {code}: {text}, got {list(map(str, found.reasons))}")

    def test_splats(self) -> None:
        """Each kind of splat is found in each place, with and without printk's prefix."""
        for line, label in SPLATS.items():
            for place, before in PLACES.items():
                with self.subTest(line=line, place=place):
                    self.check_red("splat", label, spoil(before, f"{line}\n{before}"))
            for prefix in ("[    1.234567] ", "[    1.234567][    T1] ", "<3>", "\x1b[1m"):
                with self.subTest(line=line, prefix=prefix):
                    self.check_red("splat", label, f"{prefix}{line}\n{CLEAN}")

    def test_splat_in_a_line(self) -> None:
        """A splat is found in the middle of a line, as when CPUs print at once."""
        for line in ("    # two: hel[    1.234567] BUG: KASAN: x", "    ok 1 one[    1.234567] BUG: KASAN: x"):
            self.check_red("splat", "KASAN", spoil("    # two: a message", f"{line}\n    # two: a message"))

    def test_where(self) -> None:
        """A reason names the place of a splat in the run."""
        self.check_red("splat", "BUG in alpha.table, after first row (line 27): BUG: x",
                       spoil("        ok 2 second row", "BUG: x\n        ok 2 second row"))  # fmt: skip
        self.check_red("splat", "before the tests", "BUG: x\n" + CLEAN)
        self.check_red("splat", "after the tests", CLEAN + "BUG: x\n")
        self.check_red("splat", "between suites, after alpha", spoil("ok 1 alpha\n", "ok 1 alpha\nBUG: x\n"))

    def test_streams(self) -> None:
        """Each kind of error in the KTAP stream is red."""
        for name, (old, new, code, text) in STREAMS.items():
            with self.subTest(name):
                self.check_red(code, text, spoil(old, new))

    def test_fields(self) -> None:
        """Each kind of error in the other evidence is red."""
        for name, (change, code, text) in FIELDS.items():
            with self.subTest(name):
                self.check_red(code, text, CLEAN, **dict(change))

    def test_detectors(self) -> None:
        """A detector that did not come up is red, whatever the .config says; what a test prints does not count."""
        for option, words in DETECTORS:
            for line in ("", f"    # one: {words}\n"):
                with self.subTest(option=option, line=line):
                    text = re.sub(f".*{words}.*\n", "", spoil("    ok 1 one\n", "@    ok 1 one\n")).replace("@", line)
                    self.check_red("config", f"CONFIG_{option}=y, but the kernel did not print", text, **with_option(option))

    def test_disabled(self) -> None:
        """A detector that gave up, early or late, is red where the fragments ask for it."""
        up = dict(DETECTORS)
        for option, words in DISABLED:
            begin = f"{up[option]} x\nKTAP version 1\n1..3"
            for place in ("KTAP version 1\n1..3", "    ok 1 one\n", "reboot: Restarting system\n"):
                with self.subTest(option=option, place=place):
                    text = spoil("KTAP version 1\n1..3", begin).replace(place, f"x: {words} y\n{place}", 1)
                    self.check_red("config", f"CONFIG_{option}=y, but the kernel printed '{words}'", text, **with_option(option))

    def test_warnings(self) -> None:
        """Each form of a warning that concerns us is red."""
        for name, log in WARNINGS.items():
            with self.subTest(name):
                line = log.splitlines()[-1 if "note" not in log else 0]
                self.check_red("warning", line.partition(": ")[2][:60], build_log=log)
        for name in ("plain", "absolute", "through x86", "through a test"):  # the name in the tree, wherever that is
            self.assertTrue(verdict(build_log=WARNINGS[name]).reasons[0].text.startswith("virt/kvm/guest_memfd.c:"))

    def test_cut_anywhere(self) -> None:
        """A console that ends after any byte before the reboot is red."""
        data = CLEAN.encode()
        for length in range(data.index(b"reboot: Restarting system") + len(b"reboot: Restarting system")):
            if verdict(data[:length]).green:
                self.fail(f"green after {length} bytes: {data[:length][-60:]!r}")

    def test_a_line_less(self) -> None:
        """Losing any line of the stream is red, except messages and the plan of a parameterised case."""
        lines = CLEAN.splitlines(keepends=True)
        first = lines.index("KTAP version 1\n")
        spare = ("        1..2", "    # module", "    # two", "kvm:", "reboot: machine", "[12:00:02]")
        for at in range(first, len(lines)):
            green = verdict("".join(lines[:at] + lines[at + 1 :])).green
            self.assertEqual(green, lines[at].startswith(spare), lines[at])

    def test_a_character_changed(self) -> None:
        """Changing any character of the stream is red, except in these lines and in the reason of a skip."""
        lines = CLEAN.splitlines(keepends=True)
        spare = ("        1..2", "    # module", "    # two", "kvm:", "reboot: machine", "[12:00:02]")
        for at in range(lines.index("KTAP version 1\n"), len(lines)):
            line = lines[at]
            for column in range(0 if line.startswith(spare) else len(line.rstrip("\n").partition(" no such hardware")[0])):
                for new in {"", "x", "7"} - {line[column]}:
                    changed = line[:column] + new + line[column + 1 :]
                    if verdict("".join([*lines[:at], changed, *lines[at + 1 :]])).green:
                        self.fail(f"{line!r} is green as {changed!r}")

    def test_no_output(self) -> None:
        """Without KTAP, a reason quotes the last line of the console."""
        self.check_red("ktap", "no KTAP output at all", b"")
        self.check_red("ktap", "the console ends with: could not load PC BIOS", "Linux\ncould not load PC BIOS\n\n")

    def test_never_booted(self) -> None:
        """A missing console is red."""
        self.assertEqual([reason.code for reason in judge(FULL).reasons], ["boot"])

    def test_all_skipped(self) -> None:
        """A run in which no test passes is red, even if every test may skip."""
        text = (BOOT + "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: alpha\n    1..1\n    ok 1 one # SKIP no\n"
                "ok 1 alpha # SKIP\nreboot: Restarting system\n")  # fmt: skip
        self.check_red("test", "no test passed", text, expected=expect({"alpha.one": "no"}))
        self.check_red("skip", "alpha.one", text, expected=expect({"alpha.one": None}))

    def test_a_suite_skips(self) -> None:
        """A suite that skips before its cases needs a rule for the suite; rules for its cases are not enough."""
        start, end = CLEAN.index("    KTAP version 1\n    # Subtest: beta"), CLEAN.index("ok 2 beta")
        text = CLEAN[:start] + CLEAN[end:].replace("ok 2 beta", "ok 2 beta # SKIP not today")
        none: list[tuple[str, str]] = []
        for skips in (none, [("beta.*", "not today"), ("beta.may_skip", "not today"), ("*.*", "not today"), ("beta", "tomorrow")]):
            self.check_red("skip", "beta skipped: not today", text, expected=Expected(list(TESTS), skips))
        found = verdict(text, expected=Expected(list(TESTS), [("beta", "not today")]))
        self.assertEqual((found.reasons, found.skipped), ([], {"beta": "not today"}))

    def test_another_reason(self) -> None:
        """A test may skip only for the reasons in the list."""
        for said in ("no such software", "", "hardware", "No such hardware"):
            text = spoil("# SKIP no such hardware", f"# SKIP {said}")
            self.check_red("skip", f"beta.may_skip skipped: {said or 'no reason given'}; allowed with: no such hardware", text)
        two = Expected(list(TESTS), [("beta.*", "tired"), ("beta.may_skip", "such hardware")])
        self.assertEqual(verdict(expected=two).reasons, [])

    def test_a_case_without_parameters(self) -> None:
        """A parameterised case that runs none of its parameters is red, unless it may skip."""
        start, end = CLEAN.index("        ok 1 first row"), CLEAN.index("    ok 3 table")
        text = CLEAN[:start] + CLEAN[end:].replace("ok 3 table", "ok 3 table # SKIP")
        text = text.replace("        1..2\n    ok", "    ok").replace("pass:3 fail:0 skip:0", "pass:2 fail:0 skip:1")
        text = text.replace("pass:4 fail:0 skip:0 total:4", "pass:2 fail:0 skip:0 total:2")
        self.check_red("skip", "alpha.table skipped: no reason given", text)
        text = text.replace("table # SKIP", "table # SKIP no rows")
        for pattern, green in (("alpha.table/first row", False), ("alpha.table*", True), ("alpha.table", True), ("alpha", False)):
            found = verdict(text, expected=Expected(list(TESTS), [("beta.may_skip", "no"), (pattern, "no rows")]))
            self.assertEqual(found.green, green, pattern)
        self.check_red("unexpected", "alpha.table has no parameters", text.replace("table # SKIP no rows", "table"))

    def test_filter_that_runs_more(self) -> None:
        """Tests that the filter does not select are red: the kernel has ignored the filter."""
        self.check_red("unexpected", "beta.may_skip is not in", glob="alpha")

    def test_checks_that_cannot_run(self) -> None:
        """An exception in any check is red and does not affect the other checks."""
        for name in ("check_steps", "check_config", "check_warnings", "check_splats", "check_kernel", "check_stream", "check_tests",
                     "check_end", "Console"):  # fmt: skip
            with self.subTest(name), mock.patch.object(module, name, side_effect=ZeroDivisionError("oops")):
                self.check_red("check", "check could not run")
        stream = mock.Mock()
        stream.read.side_effect = OSError("I/O error")
        self.assertIn("check", [reason.code for reason in judge(Evidence({}, {}, Expected(), frozenset(), console=stream)).reasons])

    def test_many_reasons_are_cut(self) -> None:
        """Hundreds of splats or failures are shortened, with their number."""
        found = verdict(CLEAN + "BUG: x\n" * 500)
        self.assertLess(len(found.reasons), 25)
        self.assertIn("splat: … 500 such lines in all", [str(reason) for reason in found.reasons])
        found = verdict("reboot: Restarting system\n", expected=expect({f"s.c{at}": None for at in range(99)}))
        self.assertIn("missing: … and 79 more like these", [str(reason) for reason in found.reasons])

    def test_endless_tests(self) -> None:
        """A test that prints results forever is red."""
        text = "KTAP version 1\n1..2000\n" + "".join(f"ok {at} t{at}\n" for at in range(1, 2001))
        with mock.patch.object(ktap, "MAX_LEAVES", 1000):
            self.check_red("ktap", "more than 1000 results", text)
            self.assertEqual(len(verdict(text).tests), 1000)

    def test_endless_console(self) -> None:
        """The bytes read, and memory, are bounded, however long the console or a line is."""

        class Endless(io.RawIOBase):
            """A console without end."""

            def __init__(self, text: bytes) -> None:
                super().__init__()
                self.text = text
                self.given = 0

            def read(self, size: int = -1) -> bytes:
                """Return as many bytes as requested."""
                self.given += size
                return (self.text * (size // len(self.text) + 1))[:size]

        loop = b"KTAP version 1\n1..9\n" + b"ok 1 x\n" * 100_000
        nest = b"".join(b" " * 4 * depth + b"KTAP version 1\n" for depth in range(200))
        with mock.patch.object(reader, "LINES", 100):
            found = verdict("x\n" * 100 + "Kernel panic - not syncing: x\n")  # all of it is in the first chunk
            self.assertIn("console", [reason.code for reason in found.reasons])
        small: dict[str, Any] = {"LARGEST": 1 << 19, "CHUNK": 1 << 16, "LINES": 20_000}
        with mock.patch.multiple(reader, **small), mock.patch.object(ktap, "MAX_LEAVES", 1000):
            for text in (b"[    1.234567] a message\n", b"x", b"\x1b", b"BUG: y\n", b"\xff\xfe", b"INFO: task ", b"\r", loop, nest):
                tracemalloc.start()
                endless = Endless(text)
                found = judge(Evidence({}, {}, Expected(), frozenset(), console=endless))  # type: ignore[arg-type]
                self.assertLessEqual(endless.given, small["LARGEST"] + 1)
                self.assertLess(tracemalloc.get_traced_memory()[1], 4 << 20, text[:20])
                tracemalloc.stop()
                self.assertIn("console", [reason.code for reason in found.reasons])


if __name__ == "__main__":
    unittest.main()

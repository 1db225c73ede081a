# SPDX-License-Identifier: GPL-2.0
"""Recognise splats: what the kernel prints when something is wrong (lib/bug.c, kernel/panic.c, mm/kasan/report.c, …).

The strings are those of Linux 7.3 and, where they differ, of older kernels. Two harmless kinds of lines must not match:
WARNINGs about CPU mitigations (arch/x86/kernel/cpu/bugs.c; they follow the name of the vulnerability, which the last
letter of an escape sequence may precede), and KUnit's "# test: …" diagnostics, which the KTAP reader consumes.
"""

import re

MITIGATIONS = ("MDS|TAA|MMIO Stale Data|GDS|SRBDS|Spectre V[12]|RETBleed|ITS|VMSCAPE|L1TF"
               "|Transient Scheduler Attacks|Speculative Return Stack Overflow")  # fmt: skip

# label, expression. The first match names the splat; "trace" lines only show that there was one.
SPLATS = (
    ("KASAN", r"BUG: KASAN"),
    ("KCSAN", r"BUG: KCSAN"),
    ("KFENCE", r"BUG: KFENCE"),
    ("KMSAN", r"BUG: KMSAN"),
    ("UBSAN", r"UBSAN: "),
    ("panic", r"Kernel panic|PANIC: "),
    ("kmemleak", r"new suspected memory leaks|unreferenced object\b"),
    ("lockdep", r"possible (?:recursive|circular) locking|irq lock inversion|inconsistent lock state"
                r"|unsafe lock order|Invalid wait context|suspicious RCU usage|bad (?:unlock balance|contention)"
                r"|held lock freed|still has locks held|lock held when returning|Nested lock was not taken"
                r"|INFO: lockdep is turned off|INFO: trying to register non-static key|DEBUG_LOCKS_WARN_ON"
                r"|turning off the locking correctness"
                r"|Increase LOCKDEP_|CPU \d+ left hardirqs enabled|lockdep:\S{1,80} bad path"),
    ("RCU stall", r"self-detected stall|detected (?:expedited )?stalls?\b|\bkthread starved for"
                  r"|kthread timer wakeup didn't happen"),
    ("lockup", r"soft lockup|hard LOCKUP|workqueue lockup|non-responsive CSD lock"),
    ("hung task", r"INFO: task .{1,80} blocked|blocked for more than \d+ seconds"),
    ("OOM", r"Out of memory|out of memory:|invoked oom-killer|oom-kill:|Killed process \d|VM_FAULT_OOM leaked"),
    ("allocation failure", r"page allocation (?:failure|stall)|SLUB: Unable to allocate"),
    ("atomic sleep", r"scheduling while atomic|sleeping function called from invalid context|huh, entered softirq"),
    ("bad page", r"Bad page|Bad swap (?:file|offset) entry|Bad rss-counter|page dumped because|page:[0-9a-f]+ is uninitialized"
                 r"|: bad p[gm4u]d\b"),
    ("refcount", r"refcount_t: "),
    ("corruption", r"list_(?:add|del) corruption|detected buffer overflow|Kernel memory (?:exposure|overwrite)"
                   r"|stack is corrupted|overran stack|Insufficient stack space|ODEBUG: (?!selftest passed$)|CFI failure"
                   r"|^ *BUG .{1,80} \((?:Not t|T)ainted|(?:Padding|Redzone|Poison) overwritten"
                   r"|pagealloc: memory corruption|bit error|Busy inodes after unmount"),
    ("Oops", r"\bOops\b|Internal error: |Unable to handle kernel|unable to handle|NULL pointer dereference"
             r"|general protection fault|Unhandled (?:fault|\d+-bit|prefetch|exception)|SError|Bad mode in"
             r"|double fault|divide error:|invalid opcode:|stack segment:|segfault at|^traps: |kernel tried to execute"
             r"|Fixing recursive fault|Asynchronous fault|Corrupted page table|unchecked MSR access"
             r"|unhandled exception: |exited with (?:irqs disabled|preempt_count)|\[Hardware Error\]"),
    ("BUG", r"\bBUG:|kernel BUG at"),
    ("WARNING", rf"^(?! ?\w?(?:{MITIGATIONS}) *: ).*\bWARNING: "),
    ("CPU", r"CPU\d+:? (?:failed to (?:report alive state|come online)|is stuck in kernel)"),
    ("irq", r"irq \d+: nobody cared|No irq handler for|NMI received for unknown reason|Reboot failed"),
    ("lost messages", r"\*\* \d+ (?:printk )?messages dropped|printk: dropped \d+ messages|output lines suppressed"),
    ("KUnit", r"^kunit: test interrupted|^kunit (?:executor|module): |^kunit: unknown action"),
    ("QEMU", r"qemu-system-\w+: (?!.*[Ww]arning: )|^qemu: (?!.*[Ww]arning: )|^ERROR:\S+:\d+:\w+: |^Bail out! "),
    ("trace", r"Call [Tt]race:|\[ cut here \]|---\[ end trace|^RIP: \d{4}:|^ *Modules linked in:"
              r"|^CPU: \d+ (?:UID: \d+ )?PID: \d+ Comm: |^Tainted: \["),
)  # fmt: skip
# option, what the kernel prints once its detector is up (mm/kasan/generic.c, kernel/kcsan/core.c, kernel/locking/lockdep.c,
# kernel/rcu/tree_plugin.h, mm/kmemleak.c)
DETECTORS = (
    ("KASAN", "KernelAddressSanitizer initialized"),
    ("KCSAN", "kcsan: enabled early"),
    ("PROVE_LOCKING", "Lock dependency validator: "),
    ("PROVE_RCU", "RCU lockdep checking is enabled"),
    ("DEBUG_KMEMLEAK", "Kernel memory leak detector initialized"),
)
# option, what the kernel prints when its detector gives up (mm/kmemleak.c, kernel/panic.c): harmless where nobody has asked for it
DISABLED = (
    ("DEBUG_KMEMLEAK", "Kernel memory leak detector disabled"),
    ("PROVE_LOCKING", "Disabling lock debugging due to"),
)
ANY = re.compile("|".join(f"(?:{pattern})" for _, pattern in SPLATS))
EACH = tuple((label, re.compile(pattern)) for label, pattern in SPLATS)


def label(text: str) -> str:
    """Return the kind of splat to which a console line (without printk's prefix) belongs; "" for none."""
    if not ANY.search(text):
        return ""
    return next(name for name, pattern in EACH if pattern.search(text))

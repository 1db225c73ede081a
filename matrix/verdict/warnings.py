# SPDX-License-Identifier: GPL-2.0
"""Find the warnings in a build log that concern files that the series touches."""

import posixpath
import re

from matrix.verdict.evidence import WIDTH, Evidence, Reason

SOURCE = re.compile(r"(?P<path>\{standard input\}|[^\s:()]+):(?P<line>\d+):(?:\d+:)? ?(?P<kind>[\w ]+?): (?P<text>.*)")
CONTEXT = re.compile(r"(?:In file included from|\s+from|\s+inlined from .* at) (?P<path>[^\s:]+):\d+"
                     r"|(?:\S*ld: )?(?:\S*\()?(?P<object>[^\s:()]+\.k?o)\)?: in function [^:]*:$"
                     r"|(?:(?P<where>[^\s:]+): )?(?:In function|At top level)")
OBJECT = re.compile(r"(?:\S*ld: )?(?P<path>[^\s:]+\.k?o)\S*: (?:in function .*: )?warning: .*"
                    r"|\S*ld: warning: (?:.*[`'])?(?P<late>[^\s:`']+\.k?o)\b.*")
LINKED = re.compile(r"(?:\S*ld: )?(?P<path>[^\s:()]+):(?:\d+:)?\([^()\s]+\): warning: .*")  # the code, after "x.o: in function"
DESCRIPTION = re.compile(r"WARNING: modpost: missing MODULE_DESCRIPTION\(\) in (?P<path>\S+)")
GLOBAL = re.compile(r"WARNING: (?:modpost: (?!missing MODULE_DESCRIPTION)|unmet direct dependencies)"
                    r"|make(?:\[\d+\])?: warning: +Clock skew detected")
TEMPORARY = re.compile(r"\{standard input\}|cc\w{6}\.s")  # the assembler's input
LINK, KCONFIG = "vmlinux.o", ".config"  # what a GLOBAL warning is attributed to
LOGGED = "ERROR:root:"  # kunit.py prints it before the output of a make that failed
SNIPPET = re.compile(r"\s|\d+ \|")


def check_warnings(evidence: Evidence) -> list[Reason]:
    """Check that no warning (gcc, as, sparse, ld, objtool, modpost, Kconfig, make) concerns a file that we touch."""
    return warned(evidence)[0]


def warned(evidence: Evidence) -> tuple[list[Reason], set[str]]:
    """Return the warnings that concern files that we touch, and what they name: these files, their objects, LINK or KCONFIG.

    gcc names the file in the warning itself, in the chain of includes before it, or, for code in a macro, in a note
    after it; any of them counts.
    """
    found, named = list[Reason](), set[str]()
    objects = {posixpath.splitext(path)[0] + ".o" for path in evidence.touched}

    def ours(path: str) -> set[str]:
        base = posixpath.basename(path)
        if path == KCONFIG or base == LINK:  # the log does not say which file caused it, so it may be ours
            return {base}
        if TEMPORARY.fullmatch(base):
            return set(evidence.touched)
        stem, suffix = posixpath.splitext(posixpath.normpath(path))
        names, suffix = (objects, ".o") if suffix in (".o", ".ko", ".s") else (evidence.touched, suffix)
        return {name for name in names if f"/{stem}{suffix}".endswith(f"/{name}")}

    bad_kinds = ("warning",) if evidence.build_status or evidence.selftests_status else ("warning", "error")  # sparse does not stop make
    warning, chain, counted, fresh = "", list[str](), False, False
    for line in evidence.build_log.splitlines():
        line, paths = line.removeprefix(LOGGED), list[str]()
        if match := CONTEXT.match(line):
            chain = [*(chain if fresh else ()), match["path"] or match["object"] or match["where"] or ""]
            fresh, warning = True, ""
            continue
        fresh = False
        if match := SOURCE.match(line):
            if match["kind"].lower().endswith(bad_kinds):
                counted, paths = False, [*chain, match["path"]]
                path = posixpath.normpath(match["path"])
                name = next((name for name in evidence.touched if path.endswith("/" + name)), path)
                warning = name + line[match.end("path"):]
            elif match["kind"] == "note":
                paths = [match["path"]]
            else:
                warning = ""
        elif match := LINKED.match(line):
            warning, counted, paths = line, False, [*chain, match["path"]]
        elif match := OBJECT.match(line):
            warning, counted, paths = line, False, [match["path"] or match["late"]]
        elif match := DESCRIPTION.match(line):
            warning, counted, paths = line, False, [match["path"]]
        elif GLOBAL.match(line):
            warning, counted, paths = line, False, [KCONFIG if "unmet" in line else LINK]
        elif not SNIPPET.match(line):
            warning, chain = "", []
        names = set[str]().union(*(ours(path) for path in paths if warning))
        named |= names
        if names and not counted:
            counted = True
            found.append(Reason("warning", warning.strip()[:WIDTH]))
    return found, named

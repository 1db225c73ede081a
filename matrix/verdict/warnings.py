# SPDX-License-Identifier: GPL-2.0
"""Which warnings of a build log concern the files that the series touches."""

import posixpath
import re

from matrix.verdict.evidence import WIDTH, Evidence, Reason

SOURCE = re.compile(r"(?P<path>\{standard input\}|[^\s:()]+):(?P<line>\d+):(?:\d+:)? ?(?P<kind>[\w ]+?): (?P<text>.*)")
CONTEXT = re.compile(r"(?:In file included from|\s+from|\s+inlined from .* at) (?P<path>[^\s:]+):\d+"
                     r"|(?:\S*ld: )?(?:\S*\()?(?P<object>[^\s:()]+\.k?o)\)?: in function [^:]*:$"
                     r"|(?:(?P<where>[^\s:]+): )?(?:In function|At top level)")
OBJECT = re.compile(r"(?:\S*ld: )?(?P<path>[^\s:]+\.k?o)\S*: (?:in function .*: )?warning: .*"
                    r"|\S*ld: warning: (?:.*[`'])?(?P<late>[^\s:`']+\.k?o)\b.*")
LINKED = re.compile(r"(?:\S*ld: )?(?P<path>[^\s:()]+):(?:\d+:)?\([^()\s]+\): warning: .*")  # the code behind "x.o: in function"
DESCRIPTION = re.compile(r"WARNING: modpost: missing MODULE_DESCRIPTION\(\) in (?P<path>\S+)")
GLOBAL = re.compile(r"WARNING: (?:modpost: (?!missing MODULE_DESCRIPTION)|unmet direct dependencies)"
                    r"|make(?:\[\d+\])?: warning: +Clock skew detected")
TEMPORARY = re.compile(r"\{standard input\}|cc\w{6}\.s")  # what the compiler gives to the assembler
LINK, KCONFIG = "vmlinux.o", ".config"  # what a warning of GLOBAL has to do with
LOGGED = "ERROR:root:"  # kunit.py puts it in front of the output of a make that failed
SNIPPET = re.compile(r"\s|\d+ \|")


def check_warnings(evidence: Evidence) -> list[Reason]:
    """No warning (gcc, as, sparse, ld, objtool, modpost, Kconfig, make) has to do with a file that we touch."""
    return warned(evidence)[0]


def warned(evidence: Evidence) -> tuple[list[Reason], set[str]]:
    """The warnings that have to do with a file that we touch, and these files, their objects, LINK and KCONFIG.

    gcc names the file in front of the warning, in the chain of includes before it, or in a note after it
    when the code is in a macro; any of them counts.
    """
    found, named = list[Reason](), set[str]()
    objects = {posixpath.splitext(path)[0] + ".o" for path in evidence.touched}

    def ours(path: str) -> set[str]:
        base = posixpath.basename(path)
        if path == KCONFIG or base == LINK:  # these two may be ours: the log does not say
            return {base}
        if TEMPORARY.fullmatch(base):
            return set(evidence.touched)
        stem, suffix = posixpath.splitext(posixpath.normpath(path))
        names, suffix = (objects, ".o") if suffix in (".o", ".ko", ".s") else (evidence.touched, suffix)
        return {name for name in names if f"/{stem}{suffix}".endswith(f"/{name}")}

    bad_kinds = ("warning",) if evidence.build_status or evidence.selftests_status else ("warning", "error")  # sparse's do not stop make
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

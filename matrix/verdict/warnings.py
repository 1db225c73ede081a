# SPDX-License-Identifier: GPL-2.0
"""Which warnings of a build log concern the files that the series touches."""

import posixpath
import re

from matrix.verdict.evidence import WIDTH, Evidence, Reason

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

# SPDX-License-Identifier: GPL-2.0
"""A strict parser for the KTAP that lib/kunit/test.c prints (Documentation/dev-tools/ktap.rst).

It accepts only the form that KUnit prints, not all that KTAP allows: every level is indented by four spaces, a suite
has a plan, a parameterised case may lack one, results are numbered from 1 and the statistics lines add up.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

VERSION = re.compile(r"( *)KTAP version (\d+)")
SUBTEST = re.compile(r"( *)# Subtest: (.*)")
PLAN = re.compile(r"( *)1\.\.(\d+)")
RESULT = re.compile(r"( *)(ok|not ok) (\d+)(?: -)?(?: (.*?))?(?: # SKIP ?(.*))?")
TOTALS = re.compile(r"( *)# (.+): pass:(\d+) fail:(\d+) skip:(\d+) total:(\d+)")
FAILED = re.compile(r" *# .+: ((?:EXPECTATION|ASSERTION) FAILED at .*)")
# kunit_log(): "# test: …", "# test.speed: slow". An indented splat must not match.
DIAGNOSTIC = re.compile(r" *# (?!(?:BUG|WARNING|INFO|UBSAN|PANIC|Oops|Internal error): )[\w.-]+: ")
MAX_LEAVES = 20_000  # more results mean an endless loop
MAX_PROBLEMS = 20
DEPTH = 3  # nested blocks: suites, cases, parameters

OK, FAIL, SKIP = "ok", "not ok", "skip"


@dataclass
class Node:
    """A result line and the results nested before it (None: no block)."""

    name: str
    status: str
    reason: str = ""  # of a skip
    failed: str = ""  # the first failed expectation
    children: list["Node"] | None = None

    def leaves(self, path: str = "") -> Iterator[tuple[str, "Node"]]:
        """Yield ("suite.case", node) or ("suite.case/param", node); a suite or case without results is a leaf."""
        if not self.children:
            yield path + self.name, self
        for child in self.children or ():
            separator = "/" if "." in path else "."
            yield from child.leaves(path + self.name + separator)


@dataclass
class _Block:
    indent: int
    name: str = ""
    plan: int | None = None
    results: list[Node] = field(default_factory=list)
    totals: dict[str, Counter[str]] = field(default_factory=dict)


class Reader:
    """Parse console lines, without printk's prefix, one at a time.

    suites are the results, problems the errors in the stream; ended is true once the top-level plan is met.
    """

    def __init__(self) -> None:
        self.suites: list[Node] = []
        self.problems: list[str] = []
        self.started = False
        self.ended = False
        self._stack: list[_Block] = []
        self._count = 0
        self._failed = ""

    def feed(self, text: str) -> bool:
        """Parse a line; return whether it belongs to the stream, and so is not a kernel message."""
        if match := VERSION.fullmatch(text):
            self._version(len(match[1]), match[2])
        elif not self.started:
            return False
        elif match := SUBTEST.fullmatch(text):
            self._subtest(len(match[1]), match[2])
        elif match := PLAN.fullmatch(text):
            self._plan(len(match[1]), int(match[2]))
        elif match := RESULT.fullmatch(text):
            status = SKIP if match[5] is not None and match[2] == OK else match[2]
            node = Node(match[4] or "", status, match[5] or "")
            self._result(len(match[1]), int(match[3]), node)
        elif match := TOTALS.fullmatch(text):
            self._totals(len(match[1]), match[2], [int(number) for number in match.groups()[2:]])
        elif match := FAILED.fullmatch(text):
            self._failed = self._failed or match[1]
        else:
            return bool(DIAGNOSTIC.match(text))
        return True

    def finish(self) -> None:
        """End the input. Report blocks that are still open."""
        if not self.started:
            self._problem("no KTAP output at all")
        elif self._stack:
            for block in self._stack:
                plan = "no plan" if block.plan is None else f"{len(block.results)} of {block.plan} results"
                self._problem(f"the stream is cut: {block.name or 'top level'}: {plan}")
        if self._failed:
            self._problem(f"no result after {self._failed!r}")
        node: Node | None = None  # keep the results of truncated blocks
        for block in reversed(self._stack):
            results = [*block.results, node] if node else block.results
            node = Node(block.name, FAIL, children=results) if results else None
        if node:
            self.suites = node.children or []

    def where(self) -> str:
        """Describe the current position, for messages."""
        if not self.started or self.ended:
            return "after the tests" if self.started else "before the tests"
        names = [block.name for block in self._stack if block.name]
        last = self._stack[-1].results[-1:] if self._stack else []
        after = f", after {last[0].name}" if last else ""
        return f"in {'.'.join(names)}{after}" if names else f"between suites{after}"

    def _problem(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)

    def _version(self, indent: int, version: str) -> None:
        if version != "1":
            self._problem(f"KTAP version {version}, not 1")
        if self.ended or (self.started and not self._stack):
            self._problem("a second KTAP stream: did the kernel boot twice?")
            return
        if indent != (self._stack[-1].indent + 4 if self._stack else 0) or len(self._stack) == DEPTH:
            self._problem(f"KTAP header at column {indent} {self.where()}")
            if len(self._stack) in (0, DEPTH):
                return
        self.started = True
        self._stack.append(_Block(indent))

    def _subtest(self, indent: int, name: str) -> None:
        block = self._top(indent, f"'# Subtest: {name}'")
        if block:
            if block.name or not indent:
                self._problem(f"a second header: {name} {self.where()}")
            elif block.plan is not None or block.results:
                self._problem(f"a late header: {name}")
            block.name = name

    def _plan(self, indent: int, count: int) -> None:
        block = self._top(indent, f"plan 1..{count}")
        if block:
            if block.plan is not None or block.results:
                self._problem(f"a late or second plan 1..{count} {self.where()}")
            block.plan = count
            self._end_if_met()

    def _top(self, indent: int, what: str) -> _Block | None:
        if self._stack and self._stack[-1].indent == indent:
            return self._stack[-1]
        self._problem(f"{what} out of place {self.where()}")
        return None

    def _result(self, indent: int, number: int, node: Node) -> None:
        if self._stack and indent == self._stack[-1].indent - 4:
            self._close(self._stack.pop(), node)
        block = self._top(indent, f"result {number} {node.name}")
        self._count += 1
        if not block or self._count > MAX_LEAVES:
            if self._count == MAX_LEAVES + 1:
                self._problem(f"more than {MAX_LEAVES} results")
            return
        if number != len(block.results) + 1:
            self._problem(f"{node.name} is numbered {number}, expected {len(block.results) + 1}")
        if not node.name:
            self._problem(f"result {number} has no name")
        if self._failed:
            if not node.children:
                node.failed = self._failed
            if node.status != FAIL:
                self._problem(f"{node.name} is '{node.status}' although it printed {self._failed!r}")
        self._failed = ""
        block.results.append(node)
        self._end_if_met()

    def _close(self, block: _Block, node: Node) -> None:
        node.children = block.results
        if node.name != block.name:
            self._problem(f"the block {block.name!r} ends with the result of {node.name!r}")
        if block.plan is None and len(self._stack) == 1:
            self._problem(f"suite {block.name} has no plan")
        if block.plan is not None and block.plan != len(block.results):
            self._problem(f"{block.name}: {block.plan} results planned, {len(block.results)} found")
        states = {child.status for child in block.results}
        if node.status != next((status for status in (FAIL, OK) if status in states), SKIP):
            self._problem(f"{node.name} is '{node.status}', which contradicts the results in it")
        expected = {block.name: _count(block.results)}
        if len(self._stack) == 1:
            leaves = Counter[str]()
            for child in block.results:
                leaves += _count(child.children) if child.children is not None else _count([child])
            expected["Totals"] = leaves
        for name, counter in expected.items():
            found = block.totals.get(name)
            if found is None and counter.total() > 1:
                self._problem(f"{block.name}: the line '# {name}: pass:…' is missing")
            if found is not None and found != counter:
                self._problem(f"{block.name}: the line '# {name}: pass:…' does not add up")

    def _totals(self, indent: int, name: str, numbers: list[int]) -> None:
        block = self._stack[-1] if self._stack else None
        if block and indent == block.indent - 4 and name in (block.name, "Totals"):
            passed, failed, skipped, total = numbers
            block.totals[name] = Counter({OK: passed, FAIL: failed, SKIP: skipped})
            if passed + failed + skipped != total:
                self._problem(f"{block.name}: the line '# {name}: pass:…' does not add up")

    def _end_if_met(self) -> None:
        if len(self._stack) == 1 and self._stack[0].plan == len(self._stack[0].results):
            self.suites = self._stack.pop().results
            self.ended = True
        elif self._stack:
            self.suites = self._stack[0].results


def _count(nodes: list[Node]) -> Counter[str]:
    return Counter(node.status for node in nodes)

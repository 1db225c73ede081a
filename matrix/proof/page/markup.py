# SPDX-License-Identifier: GPL-2.0
"""Write HTML. A plain string is text and is escaped; only what tag() and its like return is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

LONGEST = 10_000  # characters of a text
EMPTY = frozenset({"meta", "wbr"})  # elements without an end tag


class Html(str):
    """Markup: what is in it has been escaped."""


def escape(text: str) -> Html:
    """Return a text as markup, also for attributes. Make visible what is not printable, bidirectional controls included."""
    if isinstance(text, Html):
        return text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"
    plain = (char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text)
    return Html(html.escape("".join(plain)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return the parts one after the other."""
    return Html(escape(between).join(escape(part) for part in parts))


def tag(element: str, /, *inside: str, **attributes: str | bool) -> Html:
    """Return an element. In names of attributes, _ stands for -, and one at the end is dropped (class_). False: no such attribute."""
    words = [element]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not False:
            words.append(key if value is True else f'{key}="{escape(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if element in EMPTY else f"{start}{join(inside)}</{element}>")


def breakable(name: str) -> Html:
    """Return the name of a cell or test, where the browser may break the line after a separator."""
    return Html(re.sub(r"([-_./])", r"\1<wbr>", escape(name)))

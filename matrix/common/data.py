# SPDX-License-Identifier: GPL-2.0
"""Read data files: TOML without unknown keys, text, and digests."""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matrix.common.errors import WrongUse


def read(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raise WrongUse when it is missing or malformed."""
    try:
        return tomllib.loads(text(path))
    except ValueError as err:
        raise WrongUse(f"{path}: {err}") from err


def text(path: Path) -> str:
    """Return the content of a text file. Raise WrongUse when it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as err:
        raise WrongUse(f"{path}: {getattr(err, 'strerror', None) or err}") from err


def sha256(path: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tables(path: Path, found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the tables [[key]] of a file. Raise WrongUse when key is something else there."""
    entries = found.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise WrongUse(f"{path}: write [[{key}]] above each {key}")
    return entries


def check_keys(where: str, entry: Mapping[str, Any], keys: Mapping[str, type], needed: Iterable[str]) -> None:
    """Raise WrongUse for a key that is unknown, missing or of the wrong type, and for a name that is not a valid folder name.

    A list consists of strings; the caller checks what is of type object.
    """
    if not isinstance(entry, dict):
        raise WrongUse(f"{where} must be a table")
    for key, value in entry.items():
        if key not in keys:
            raise WrongUse(f"{where}: unknown key {key!r}{near(key, keys)}")
        if not isinstance(value, keys[key]) or isinstance(value, bool) != (keys[key] is bool):
            raise WrongUse(f"{where}: {key} must be of type {keys[key].__name__}")
        if isinstance(value, list) and keys[key] is list and not all(isinstance(one, str) for one in value):
            raise WrongUse(f"{where}: {key} must be a list of strings")
    for key in needed:
        if key not in entry:
            raise WrongUse(f"{where}: {key} is missing")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", entry.get("name", "x")):
        raise WrongUse(f"{where}: a name consists of letters, digits, '_', '-' and '.'")


def near(word: str, words: Iterable[str]) -> str:
    """Return a ", did you mean …" suffix with the known words that resemble word; "" when none does."""
    close = difflib.get_close_matches(word, list(words), 3, 0.5)
    return f", did you mean {' or '.join(close)}" if close else ""

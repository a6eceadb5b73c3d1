"""Where each key of a TOML text stands: `tomllib` reads the values but forgets the lines.

The scanner takes a text that `tomllib` has read, so it only has to find its way, not to judge.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t\r\n]*(?:#[^\n]*(?:\n[ \t\r\n]*)?)*")
_BARE = re.compile(r"[^ \t.=\]\"'\r\n]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_STRINGS = {
    # a closing run of three may have one or two quotes of the text before it
    '"""': re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL),
    "'''": re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL),
    '"': re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    "'": re.compile(r"'[^'\n]*'"),
}


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every table, key and array element of a valid TOML text.

    A path is made of keys and of indices into arrays; a table that is opened twice (`[a.b]`, then
    `[a]`) has the line of its own header.
    """
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # array of tables → index of its newest element
        self._line, self._counted = 1, 0

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self._blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._blank()
        return self.lines

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def _note(self, path: Path, line: int, *, own: bool = True) -> None:
        if own:
            self.lines[path] = line
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)

    def _header(self) -> Path:
        line = self._here()
        of_tables = self.text.startswith("[[", self.at)
        self.at += 2 if of_tables else 1
        keys = self._keys()
        self.at += 2 if of_tables else 1
        path: Path = ()
        for depth, key in enumerate(keys, 1):
            path = (*path, key)
            if of_tables and depth == len(keys):
                index = self.arrays[path] = self.arrays.get(path, -1) + 1
                self.lines.setdefault(path, line)
                path = (*path, index)
            elif path in self.arrays:
                path = (*path, self.arrays[path])
        self._note(path, line)
        return path

    def _keys(self) -> list[str]:
        """Read a key with its dots, up to what ends it."""
        keys = []
        while True:
            self._blank()
            keys.append(self._key())
            self._blank()
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _key(self) -> str:
        quote = self.text[self.at]
        pattern = _STRINGS[quote] if quote in "\"'" else _BARE
        match = pattern.match(self.text, self.at)
        assert match, "a valid text has a key here"
        self.at = match.end()
        if quote in "\"'":
            return next(iter(tomllib.loads(f"{match[0]} = 0")))
        return match[0]

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = (*table, *self._keys())
        self.at += 1  # the equals sign
        self._blank()
        self._note(path, line)
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self.text[self.at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            triple = self.text[self.at : self.at + 3]
            pattern = _STRINGS.get(triple) or _STRINGS.get(opening) or _SCALAR
            match = pattern.match(self.text, self.at)
            assert match, "a valid text has a value here"
            self.at = match.end()

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self._blank()
            if self.text[self.at] == "]":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.lines[(*path, index)] = self._here()
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self._blank()
            if self.text[self.at] == "}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(path)


def line_of(lines: Mapping[Path, int], key: Path, default: Any = None) -> Any:
    """Return the line of a key, or of the nearest table around it."""
    for length in range(len(key), 0, -1):
        if key[:length] in lines:
            return lines[key[:length]]
    return default

"""From a TOML text to rules, or to every fault of it with line, key, value and bound."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from engine.errors import Fault, RulesError
from engine.rules import Rules
from engine.rules_base import ANY, Flaw, Path, needed, one_of
from engine.rules_schema import keys_of, section_at, tables
from engine.toml_lines import key_lines, line_of
from engine.units import QUANTITIES

MAX_BYTES = 8 << 20
_ROUNDS = 64
_MISSING = object()


def load(path: FilePath) -> Rules:
    """Return the rules of a file; RulesError if it can't be read or has faults."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RulesError(f"{path}: larger than the {MAX_BYTES >> 20} MiB a rules file may have")
        content = path.read_bytes()
    except OSError as error:
        raise RulesError(f"{path}: can't be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = Fault(file=str(path), line=line, problem="must be UTF-8 text", kind="syntax")
        raise RulesError(f"{path}: not a text file", faults=[fault]) from error
    return parse(text, file=str(path))


def parse(text: str, *, file: str) -> Rules:
    """Return the rules of a TOML text; RulesError with every fault of it."""
    document = _document(text, file)
    lines = key_lines(text)
    found = _Search(document)
    rules = found.rules()
    if rules is not None and not found.problems:
        vars(rules)["text"] = text
        return rules
    faults = [
        Fault(
            file=file,
            line=line_of(lines, key, 1),
            key=dotted(key),
            problem=text,
            value=value,
            kind=kind,
        )
        for key, text, value, kind in found.problems
    ]
    faults.sort(key=lambda fault: fault.line or 0)
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise RulesError(f"{file}: {count} in the rules", faults=faults)


def _document(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line = None
        if place:
            line = int(place[1]) if place[1] else text.count("\n") + 1
            message = message[: place.start()]
        problem = f"not TOML: {message[:1].lower()}{message[1:]}"
    except (RecursionError, ValueError, OverflowError) as error:
        # numbers of too many digits, nesting too deep
        line, problem = None, f"not TOML: {error}"
    fault = Fault(file=file, line=line, problem=problem, kind="syntax")
    raise RulesError(f"{file}: 1 fault in the rules", faults=[fault])


def dotted(key: Path) -> str:
    """Return a key as people write it: `profiles.methane.windows[0].high`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else f'"{part}"')
    return text


class _Search:
    """Validates a document again and again without what was found wrong, until nothing is.

    A section judges its keys together only once each of them is right, and the whole only once all
    sections are. Keys in fault are left out, required ones replaced by an example, so that one run
    finds all; what rests on a key that was left out is not reported.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.dropped: set[Path] = set()
        self.filled: dict[Path, Any] = {}
        self.problems: list[tuple[Path, str, Any, str]] = []
        self._reported: set[tuple[Path, str]] = set()
        # as this round began: what it validated did not have these
        self._left_out: frozenset[Path] = frozenset()
        self._gone: list[Path] = []

    def rules(self) -> Rules | None:
        for _ in range(_ROUNDS):
            try:
                return Rules.model_validate(self._remaining(self.document, ()))
            except ValidationError as error:
                before = len(self.dropped), len(self.filled)
                self._left_out = frozenset(self.dropped)
                self._gone = [*self.dropped, *self.filled]
                for each in error.errors(include_url=False):
                    self._take(each)
                if before == (len(self.dropped), len(self.filled)):
                    break
        return None

    def _remaining(self, node: Any, path: Path) -> Any:
        if isinstance(node, dict):
            kept = {
                key: self._remaining(value, (*path, key))
                for key, value in node.items()
                if (*path, key) not in self.dropped
            }
            return kept | {key[-1]: v for key, v in self.filled.items() if key[:-1] == path}
        if isinstance(node, list):
            return [
                self._remaining(value, (*path, index))
                for index, value in enumerate(node)
                if (*path, index) not in self.dropped
            ]
        return node

    def _original(self, key: Path) -> Path:
        """Return a key in the document as it was written: elements that were left out count."""
        path: Path = ()
        for part in key:
            if isinstance(part, int):
                array = _at(self.document, path)
                if isinstance(array, list):
                    kept = [i for i in range(len(array)) if (*path, i) not in self._left_out]
                    part = kept[part] if part < len(kept) else part
            path = (*path, part)
        return path

    def _take(self, error: Mapping[str, Any]) -> None:
        loc = error["loc"][:-1] if error["loc"][-1:] == ("[key]",) else error["loc"]
        key = self._original(loc)
        if error["type"] == "flaws":
            for flaw in error["ctx"]["flaws"]:
                self._take_flaw(loc, flaw)
        elif error["type"] == "missing":
            self._report(key, "is required, and missing", None, "missing")
            self._fill(key)
        elif error["type"] == "too_short" and any(_related(key, gone) for gone in self.dropped):
            self._drop(key)
        else:
            unknown = error["type"] == "extra_forbidden"
            value = error["input"] if not unknown else None
            self._report(key, _problem(key, error), value, "unknown key" if unknown else "value")
            self._drop(key)

    def _take_flaw(self, loc: Path, flaw: Flaw) -> None:
        key = self._original((*loc, *flaw.key))
        rests_on = [self._original((*loc, *about)) for about in flaw.about]
        if not rests_on or not isinstance(_at(self.document, key), dict):
            rests_on.append(key)
        if not any(_related(a, b) for a in rests_on for b in self._gone):
            self._report(key, flaw.problem, flaw.value, "rule")
        self._drop(key)

    def _report(self, key: Path, problem: str, value: Any, kind: str) -> None:
        if key in self._gone or (key, problem) in self._reported:
            return
        self._reported.add((key, problem))
        written = _at(self.document, key)
        if value is not None and isinstance(written, str | int | float):
            value = written  # 20 as it stands in the file, not 20.0
        self.problems.append((key, problem, value, kind))

    def _drop(self, key: Path) -> None:
        """Leave out a key, or the nearest table around it that can be left out."""
        while key and (key in self.dropped or _at(self.document, key) is _MISSING):
            self.filled.pop(key, None)
            key = key[:-1]
        if key:
            self.dropped.add(key)

    def _fill(self, key: Path) -> None:
        section = section_at(key[:-1])
        field = keys_of(section).get(str(key[-1])) if section else None
        if field is not None and field.examples and key not in self.filled:
            self.filled[key] = self._unit(key) or field.examples[0]
        else:
            self._drop(key[:-1])

    def _unit(self, key: Path) -> str | None:
        """Return a unit that fits the quantity, if the key is a profile's unit."""
        if len(key) != 3 or (key[0], key[2]) != ("profiles", "unit"):
            return None
        written = _at(self.document, (*key[:2], "quantity"))
        known = QUANTITIES.get(written if isinstance(written, str) else str(key[1]))
        return known.unit if known else None


def _at(node: Any, path: Path) -> Any:
    for part in path:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return node


def _related(a: Path, b: Path) -> bool:
    """Return whether one key is the other or stands inside it."""
    return all(x == y or ANY in (x, y) for x, y in zip(a, b, strict=False))


def _problem(key: Path, error: Mapping[str, Any]) -> str:
    return _unknown(key) if error["type"] == "extra_forbidden" else needed(error)


def _unknown(key: Path) -> str:
    """Say that a key is unknown, and which one was meant or where it belongs."""
    section = section_at(key[:-1])
    word = str(key[-1])
    known = list(keys_of(section)) if section else []
    near = one_of(word, known, all_if_none=False)
    if near:
        return f"unknown key{near}"
    homes = [name for name, other in tables() if word in keys_of(other)]
    if 0 < len(homes) <= 3:
        return f"unknown key here, it belongs to {' or '.join(f'[{name}]' for name in homes)}"
    return f"unknown key, known are {', '.join(known)}" if known else "unknown key"

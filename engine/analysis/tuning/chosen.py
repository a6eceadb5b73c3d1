"""The rules file that a study ends with: the given one, a comment at every number that changed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.analysis.tuning.settings import in_force
from engine.errors import RulesError, SettingsError
from engine.rules import Rules
from engine.rules_base import LEVELS, Ladder, Path
from engine.rules_check import dotted
from engine.rules_profile import Delays
from engine.rules_schema import section_at
from engine.toml_lines import key_lines

_WIDTH = 100
HEADS = ("Chosen", "Solved")
"""How what is said at the top begins."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A number of the rules that becomes another."""

    path: Path
    old: float
    """NaN where the rules had none of their own."""
    new: float
    unit: str = ""
    why: str = ""
    """What it is for, in numbers; changes of the same reason are told together."""

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.values}"

    @property
    def values(self) -> str:
        """Old and new value, with their unit."""
        old = "none" if math.isnan(self.old) else number_text(self.old)
        unit = f" {self.unit}" if self.unit else ""
        return f"{old} → {number_text(self.new)}{unit}"


def number_text(value: float) -> str:
    """Return a number as people write it."""
    return f"{value:.15g}"


def need_tomlkit() -> None:
    """Raise SettingsError where the library that writes rules is missing: before hours of work."""
    try:
        import tomlkit  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "writing the chosen rules needs tomlkit: pip install 'tocsin[tune]'"
        ) from error


def rewritten(rules: Rules, made: Rules, changes: Sequence[Change], head: Iterable[str]) -> str:
    """Return the text of the given rules with the changes that make `made` of them.

    Comments and layout stay, but for what an earlier study said of the same lines and at the top.
    `head` is told at the top now. Raises SettingsError without tomlkit.
    """
    need_tomlkit()
    import tomlkit

    text = (rules.text or _text_of(rules)).replace("\r\n", "\n").removeprefix("\ufeff")
    text = _without_head(text)
    document = tomlkit.parse(text)
    for change in changes:
        _put(document, rules, change.path, change.new)
    written = _with_comments(tomlkit.dumps(document), changes, head)
    if Rules.parse(written).digest != made.digest:
        raise RulesError("the chosen rules could not be written: the text would say another thing")
    return written


def _text_of(rules: Rules) -> str:
    """Return rules that were made without a text as TOML."""
    import tomlkit

    return tomlkit.dumps(rules.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True))


def _put(document: Any, rules: Rules, path: Path, new: float) -> None:
    """Set a number, making the tables around it where there are none."""
    node = document
    for depth, part in enumerate(path[:-1], 1):
        child = node.get(part) if hasattr(node, "get") else node[part]
        if child is None or not hasattr(child, "__getitem__"):
            child = _new_table(node, rules, path[:depth])
            node[part] = child
            child = node[part]
        node = child
    node[path[-1]] = new


def _new_table(around: Any, rules: Rules, path: Path) -> Any:
    """Return a table for a path: limits and delays of all levels in force, in one line."""
    import tomlkit
    from tomlkit.items import InlineTable

    section = section_at(path)
    if section is not None and issubclass(section, Ladder | Delays):
        pairs = ((level, in_force(rules, (*path, level))) for level in LEVELS)
        given = ", ".join(f"{level} = {number_text(v)}" for level, v in pairs if not math.isnan(v))
        return tomlkit.parse(f"x = {{ {given} }}")["x"]
    return tomlkit.inline_table() if isinstance(around, InlineTable) else tomlkit.table()


def _with_comments(text: str, changes: Sequence[Change], head: Iterable[str]) -> str:
    lines = text.split("\n")
    of_key = key_lines(text)
    notes: dict[int, dict[str, list[Change]]] = {}
    for change in changes:
        line = next(of_key[change.path[:n]] for n in range(len(change.path), 0, -1)
                    if change.path[:n] in of_key)  # fmt: skip
        notes.setdefault(line - 1, {}).setdefault(change.why, []).append(change)
    for number in sorted(notes, reverse=True):
        indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
        lines[_old_note(lines, number) : number] = [
            line
            for why, together in notes[number].items()
            for line in _comment(together, why, indent)
        ]
    heading = [line for text in head for line in _wrapped(text, "# ", "#   ")]
    return "\n".join([*heading, *([""] if heading else []), *lines])


def _without_head(text: str) -> str:
    """Return a text without what an earlier study said at its top."""
    if not text.startswith(tuple(f"# {word} by tocsin tune" for word in HEADS)):
        return text
    head, _, rest = text.partition("\n\n")
    return rest if all(line.startswith("#") for line in head.split("\n")) else text


def _old_note(lines: Sequence[str], number: int) -> int:
    """Return where the note of an earlier study above a line begins; the line if there is none."""
    at = number
    while at and lines[at - 1].lstrip().startswith("#   "):
        at -= 1
    return at - 1 if at and lines[at - 1].lstrip().startswith("# tuned: ") else number


def _comment(changes: Sequence[Change], why: str, indent: str) -> list[str]:
    common = 0
    if len(changes) > 1:
        shortest = min(len(change.path) for change in changes) - 1
        while common < shortest and len({change.path[common] for change in changes}) == 1:
            common += 1
    place = dotted(changes[0].path[:common])
    each = [f"{dotted(change.path[common:])} {change.values}" for change in changes]
    lines = _wrapped(
        f"tuned: {place + ': ' if place else ''}{', '.join(each)}", f"{indent}# ", f"{indent}#   "
    )
    if why:
        lines += _wrapped(why, f"{indent}#   ", f"{indent}#   ")
    return lines


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )

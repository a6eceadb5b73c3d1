"""What differs between two sets of rules, key by key, as the parsed models have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from engine.rules import Rules

_NAMED = ("windows", "rules", "context", "routes")
"""Lists of tables that have names of their own."""
Tree = dict[str, Any]


class KeyChange(NamedTuple):
    """One key of the rules that differs; None where one of the two does not have it."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}  {shown(self.old)} → {shown(self.new)}"

    def mirrored(self) -> KeyChange:
        """Return the change the other way round."""
        return KeyChange(self.key, self.new, self.old)


def shown(value: Any) -> str:
    """Return a value as a rules file would have it, `–` where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {shown(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return f'"{value}"'


def rule_changes(old: Rules, new: Rules) -> list[KeyChange]:
    """Return the keys that differ in what they mean: what is written out as the default is equal.

    Tables with a name are called by it: `rules.fire.level`, `profiles.rain.windows.sum.high`.
    A table that only one of the two has is one change, with what it gives beside the defaults.
    """
    trees = [_tree(rules, exclude_defaults=False) for rules in (old, new)]
    brief = [_tree(rules, exclude_defaults=True) for rules in (old, new)]
    return list(_walk((), *trees, *brief))


def _tree(rules: Rules, *, exclude_defaults: bool) -> Tree:
    dumped = rules.model_dump(by_alias=True, exclude_none=True, exclude_defaults=exclude_defaults)
    named: Tree = _by_name(dumped)
    return named


def _by_name(value: Any, key: str = "") -> Any:
    """Return the tree with its lists of named tables as tables of tables."""
    if isinstance(value, dict):
        return {name: _by_name(each, name) for name, each in value.items()}
    if key in _NAMED and isinstance(value, list | tuple):
        found: Tree = {}
        for each in value:
            name, n = str(each["name"]), 2
            while name in found:  # contexts may share a name
                name, n = f"{each['name']} ({n})", n + 1
            found[name] = _by_name({k: v for k, v in each.items() if k != "name"})
        return found
    return value


def _walk(path: tuple[str, ...], old: Any, new: Any, a: Any, b: Any) -> Iterator[KeyChange]:
    """Yield where two trees differ; `a` and `b` are the same trees without defaults."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            below = (each.get(key) if isinstance(each, dict) else None for each in (a, b))
            yield from _walk((*path, key), old.get(key), new.get(key), *below)
        common = [key for key in old if key in new]
        if path and path[-1] in _NAMED and common != [key for key in new if key in old]:
            yield KeyChange(f"{'.'.join(path)} (their order)", list(old), list(new))
    elif old != new:
        given = (brief if isinstance(full, dict) else full for full, brief in ((old, a), (new, b)))
        yield KeyChange(".".join(path), *(_leaf(each) for each in given))


def _leaf(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

"""RULES.md documents every key of the schema, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from engine import rules
from engine.rules import Rules
from engine.rules_base import Ladder
from engine.rules_profile import Delays
from engine.rules_schema import bare, keys_of, tables

PAGE = (Path(rules.__file__).parent / "RULES.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ABSENT = "–"
INHERITED = {"quantity", "bins", "absent_after", "absent_level"}
"""Keys whose default is another key's value: the page says which in words."""
LEAST: dict[str, dict[str, Any]] = {
    "profiles.NAME.rate": {"rise": {"blue": 1}, "fall": {"blue": 1}},
    "profiles.NAME.windows": {"high": {"blue": 1}, "low": {"blue": -1}},
    "rules": {"all": ["methane.high >= red"], "any": ["methane.high >= red"]},
    "routes": {"levels": ["red"]},
}
"""What a table needs besides its required keys."""


def documented(page: str) -> dict[str, dict[str, list[str]]]:
    """Return the page's tables: heading → key → [value, default, meaning]."""
    found: dict[str, dict[str, list[str]]] = {}
    name = None
    for line in page.splitlines():
        heading = re.match(r"#+ (?:`\[+(.*?)\]+`|Top of the file)$", line)
        if heading:
            name = heading[1] or ""
            found[name] = {}
        row = re.match(r"\| `(\w+)` \|(.*)\|$", line)
        if row and name is not None:
            found[name][row[1]] = [cell.strip() for cell in row[2].split("|")]
    return found


def schema() -> dict[str, type[BaseModel]]:
    """Return every table that has keys of its own to document."""
    return {
        name: section
        for name, section in tables()
        if not issubclass(section, Ladder | Delays)
        # a category's tables take some of the keys of the tables they override
        and not name.startswith("fusion.categories.NAME.")
    }


def gaps(page: str) -> list[str]:
    """Return each key that only the schema or only the page has."""
    pages = documented(page)
    found = []
    for name, section in schema().items():
        known, written = set(keys_of(section)), set(pages.get(name, {}))
        found += [f"{name}.{key} is undocumented" for key in sorted(known - written)]
        found += [f"{name}.{key} is no key" for key in sorted(written - known)]
    return found + [f"{name} is no table" for name in pages.keys() - schema().keys()]


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    assert gaps(PAGE) == []


@pytest.mark.parametrize("key", ["refractory_s", "half_life_s", "spike_at", "version"])
def test_a_key_that_is_left_out_of_the_page_is_noticed(key: str) -> None:
    page = re.sub(rf"^\| `{key}` \|.*\n", "", PAGE, flags=re.MULTILINE)
    assert any(f"{key} is undocumented" in gap for gap in gaps(page))


def test_a_documented_key_that_does_not_exist_is_noticed() -> None:
    page = PAGE.replace("| `tick_s` |", "| `tick_m` |")
    assert "time.tick_m is no key" in gaps(page)


@pytest.mark.parametrize("name", schema())
def test_documented_defaults_are_the_defaults(name: str) -> None:
    section = schema()[name]
    example = LEAST.get(name, {}) | {
        key: field.examples[0] if field.examples else "x"
        for key, field in keys_of(section).items()
        if field.is_required()
    }
    for key, field in keys_of(section).items():
        default = documented(PAGE)[name][key][1]
        if key in INHERITED:
            continue
        if field.is_required():
            assert default == "required", key
        elif default == ABSENT:
            assert field.default is None, key
        else:
            assert field.default is not None and field.default is not PydanticUndefined, key
            value = tomllib.loads(f"x = {default.strip('`')}")["x"]
            without = {other: given for other, given in example.items() if other != key}
            plain, written = (
                section.model_validate(keys) for keys in (without, without | {key: value})
            )
            assert plain == written, f"{name}.{key} is not {default} by default"


@pytest.mark.parametrize("name", schema())
def test_documented_values_name_the_bounds(name: str) -> None:
    for key, field in keys_of(schema()[name]).items():
        value = documented(PAGE)[name][key][0]
        for metadata in field.metadata:
            for side in ("ge", "gt", "le", "lt"):
                bound = getattr(metadata, side, None)
                if bound is None or bare(field.annotation) is str or not 1e-9 < abs(bound) < 1e10:
                    continue
                shown = f"{bound:.15g}"
                assert shown in value, f"{name}.{key}: {bound}"


def test_the_example_loads_without_a_fault() -> None:
    assert len(EXAMPLE) == 1
    loaded = Rules.parse(EXAMPLE[0], file="RULES.md")
    assert loaded.profile_name("methane", "gas_well") == "methane"
    assert loaded.profile_name("methane", "factory") == "methane_elsewhere"


def test_the_example_uses_every_key() -> None:
    example = tomllib.loads(EXAMPLE[0])

    def at(node: Any, path: list[str]) -> list[Any]:
        """Return what stands at a path, in every element of lists and every named table."""
        if not path or node is None:
            return [node] if node is not None else []
        if isinstance(node, list):
            return [found for each in node for found in at(each, path)]
        if path[0] == "NAME":
            return [found for each in node.values() for found in at(each, path[1:])]
        return at(node.get(path[0]), path[1:])

    unused = [
        f"{name}.{key}"
        for name, section in schema().items()
        for key in keys_of(section)
        if not at(example, [part for part in f"{name}.{key}".split(".") if part])
    ]
    assert unused == []

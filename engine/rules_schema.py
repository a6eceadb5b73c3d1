"""The keys of a rules file as its models declare them: for hints, and to hold the page against."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.rules import Rules
from engine.rules_base import Path


def keys_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section by the key that stands in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def bare(annotation: Any) -> Any:
    """Return a type without `Annotated`, `None` and the like around it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return bare(next(kind for kind in get_args(annotation) if kind is not type(None)))
    return annotation


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a type is, if it is one."""
    kind = bare(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def inside(annotation: Any, part: str | int) -> Any:
    """Return the type of a key or an element inside a type; None if there is none."""
    kind = bare(annotation)
    section = section_of(kind)
    if section is not None:
        field = keys_of(section).get(str(part))
        return None if field is None else field.annotation
    if get_origin(kind) is dict and isinstance(part, str):
        return get_args(kind)[1]
    if get_origin(kind) in (tuple, list) and isinstance(part, int):
        return get_args(kind)[0]
    return None


def section_at(key: Path) -> type[BaseModel] | None:
    """Return the section at a key of the file; None if none stands there."""
    annotation: Any = Rules
    for part in key:
        annotation = inside(annotation, part)
    return section_of(annotation)


def tables() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every section with its table's name, `NAME` for what the site chooses."""
    yield from _tables("", Rules)


def _tables(name: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield name, section
    for key, field in keys_of(section).items():
        kind, path = bare(field.annotation), f"{name}.{key}".lstrip(".")
        if get_origin(kind) is dict:
            kind, path = bare(get_args(kind)[1]), f"{path}.NAME"
        elif get_origin(kind) is tuple:
            kind = bare(get_args(kind)[0])
        inner = section_of(kind)
        if inner is not None:
            yield from _tables(path, inner)

"""TOML files as people hand them in: read, decoded and parsed, or refused in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.errors import TocsinError
from engine.toml_lines import Path

Model = TypeVar("Model", bound=BaseModel)

_ROUNDS = 16


def read_text(path: FilePath, error: type[TocsinError], *, what: str, most_bytes: int) -> str:
    """Return the text of a file; raises the error, which says `what` it should have been."""
    try:
        if path.stat().st_size > most_bytes:
            raise error(f"{path}: larger than the {most_bytes >> 20} MiB that {what} may have")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as failed:
        raise error(f"{path}: can't be read: {failed.strerror}") from failed
    except UnicodeDecodeError as failed:
        raise error(f"{path}: must be UTF-8 text") from failed


def document_of(text: str, error: type[TocsinError], *, file: str) -> dict[str, Any]:
    """Return the document of a text; raises the error where it is not TOML."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as failed:
        raise error(f"{file}: not TOML: {failed}") from failed


Flaws = dict[tuple[Path, str], Any]
"""What is wrong with a document: key and problem, and the value that stands there."""


def validated(
    model: type[Model],
    document: dict[str, Any],
    problems: Callable[[Any], Iterable[tuple[Path, str, Any]]],
    drop: Callable[[dict[str, Any], Path], bool],
) -> tuple[Model | None, Flaws]:
    """Return the model of a document, or None, and everything that is wrong with it.

    What only whole tables can be asked shows once the faulty keys are gone: `problems` yields key,
    problem and value of one of pydantic's errors, `drop` takes a key out of the document and tells
    whether it was there.
    """
    found: Flaws = {}
    for _ in range(_ROUNDS):
        try:
            read = model.model_validate(document)
        except ValidationError as error:
            flaws = [flaw for each in error.errors(include_url=False) for flaw in problems(each)]
            found.update({(key, problem): value for key, problem, value in flaws})
            if not any([drop(document, key) for key, _, _ in flaws]):
                break
        else:
            return (None if found else read), found
    return None, found

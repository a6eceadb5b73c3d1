"""TOML files as people hand them in: read, decoded and parsed, or refused in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from engine.errors import TocsinError


def read_text(path: Path, error: type[TocsinError], *, what: str, most_bytes: int) -> str:
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

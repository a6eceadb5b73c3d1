"""The files of a history: what files and folders name, in the order they are numbered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from engine.errors import ReadingsError

KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}
PACKED = {".gz": "gzip", ".zst": "zstd"}


class HistoryFile(NamedTuple):
    """One file of readings; ``keys`` are the columns its hive folders name (`day=2024-05-01/`)."""

    path: Path
    kind: str
    packed: str | None
    keys: dict[str, str]
    n_bytes: int


def discover(paths: Iterable[Path | str]) -> list[HistoryFile]:
    """Return the files that paths name, folders searched in order of name.

    Hidden files, those that begin with an underscore, and those of other kinds are left out of
    folders. Raises ReadingsError for what is missing or of no known kind.
    """
    files: list[HistoryFile] = []
    for each in paths:
        path = Path(each)
        try:
            found = [_file(path, path.parent)] if not path.is_dir() else list(_inside(path))
        except OSError as error:
            raise ReadingsError(f"{error.filename or path}: {error.strerror}") from error
        if not found:
            raise ReadingsError(f"{path}: no readings in this folder ({_known()})")
        files.extend(found)
    return files


def _inside(folder: Path) -> Iterator[HistoryFile]:
    for path in sorted(folder.rglob("*"), key=lambda path: path.parts):
        inner = path.relative_to(folder).parts
        if any(part.startswith((".", "_")) for part in inner):
            continue
        if kind_of(path)[0] is not None and path.is_file():
            yield _file(path, folder)


def kind_of(path: Path) -> tuple[str | None, str | None]:
    """Return a file's kind and how it is packed, by its name; None for what is not known."""
    packed = PACKED.get(path.suffix.lower())
    inner = Path(path.stem) if packed else path
    return KINDS.get(inner.suffix.lower()), packed


def _file(path: Path, root: Path) -> HistoryFile:
    try:
        n_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise ReadingsError(f"{path}: no such file or folder") from error
    kind, packed = kind_of(path)
    if kind is None:
        raise ReadingsError(f"{path}: not a kind of file that holds readings ({_known()})")
    if kind == "parquet" and packed:
        raise ReadingsError(f"{path}: Parquet packs itself; unpack this file first")
    keys = {}
    for part in path.relative_to(root).parts[:-1]:
        key, equals, text = part.partition("=")
        if equals:
            keys[key] = unquote(text)
    return HistoryFile(path, kind, packed, keys, n_bytes)


def _known() -> str:
    return f"known are {', '.join(KINDS)}; packed: {', '.join(PACKED)}"

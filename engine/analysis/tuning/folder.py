"""The folder of a study: what was asked, what was tried, and what came out, each written whole.

`study.json` says what was asked and how it stands, `settings.parquet` holds every setting that was
tried, `front.parquet` the best of them, `rules.toml` the chosen rules.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engine.errors import InputError, OutputError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
STUDY, SETTINGS, FRONT, RULES = "study.json", "settings.parquet", "front.parquet", "rules.toml"
_MOST_NAMED = 10


class Folder:
    """A study's folder, whose files replace older ones in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run out of the folder meanwhile."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(f"{self.path}: another run is at work in this folder") from error
            yield

    def asked(self) -> dict[str, Any] | None:
        """Return what the folder's study says of itself; None if there is no study in it."""
        path = self.path / STUDY
        try:
            found = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise InputError(f"{path}: can't be read as a study: {error}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InputError(f"{path}: no study of this version")
        return found

    def check(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether the same was asked here before; InputError says what differs, if it was
        something else."""
        found = self.asked()
        if found is None:
            return False
        there, now = _flat(found.get("asked", {})), _flat(asked)
        differing = [key for key in {**now, **there} if there.get(key) != now.get(key)]
        if differing:
            told = [
                f"{key}: {_shown(there.get(key))} there, {_shown(now.get(key))} now"
                for key in differing[:_MOST_NAMED]
            ]
            more = f"; and {len(differing) - _MOST_NAMED} more" if differing[_MOST_NAMED:] else ""
            raise InputError(
                f"{self.path}: holds another study: {'; '.join(told)}{more}. Give -o another "
                "folder, or remove this one"
            )
        return True

    def settings(self) -> pa.Table | None:
        """Return the table of what was tried; None if nothing was."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path / SETTINGS
        try:
            with pq.ParquetFile(path) as file:
                return file.read()
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: can't be read: {error}") from error

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write an object as JSON."""
        option = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        self.write(name, orjson.dumps(value, option=option) + b"\n")

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as Parquet."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write(name, sink.getvalue())

    def write(self, name: str, content: Any) -> None:
        """Write a file whole: whoever reads finds the old one or the new one."""
        path = self.path / name
        partial = path.with_name(f".{name}.partial")
        try:
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        except OSError as error:
            raise OutputError(f"{path}: can't be written: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Remove a file that would no longer be true."""
        (self.path / name).unlink(missing_ok=True)


def _flat(tree: Any, key: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {
            name: value
            for part, inner in tree.items()
            for name, value in _flat(inner, f"{key}.{part}".lstrip(".")).items()
        }
    return {key: tree}


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"

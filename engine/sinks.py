"""Where alert records go: a file that appears whole under its name, or standard output.

A file is written as `NAME.partial` and gets its name at the end; a replay that is broken off
leaves it so, and `--resume` can go on from there.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import orjson

from engine.errors import OutputError, SnapshotError

if TYPE_CHECKING:
    import pyarrow as pa

STDOUT = Path("-")
_PARQUET_ROWS = 1 << 14


class Sink(Protocol):
    """Takes alert records in order."""

    name: str | None
    """The file that is being written, as it is called until the end; None if there is none."""

    def begin(self) -> None:
        """Open what will be written; before this nothing has been touched."""

    def write(self, records: list[bytes]) -> None:
        """Append records."""

    def mark(self) -> dict[str, Any]:
        """Make what was written durable and return what lets `--resume` find this place again."""

    def finish(self) -> None:
        """Make it durable and give it its name."""

    def leave(self) -> None:
        """Close it as it is."""


def open_sink(output: Path | None, resume: dict[str, Any] | None = None) -> Sink:
    """Return the sink for an output path by its ending, to go on at a mark if one is given.

    Raises OutputError for an ending that is not known, SnapshotError if the file is not the one
    that was marked or can't be continued.
    """
    if output is None:
        return NoSink()
    if output == STDOUT:
        return StdoutSink()
    folder = output.parent
    if not folder.is_dir():
        raise OutputError(f"{output}: no such folder {str(folder)!r}")
    endings = output.suffixes
    packed = endings[-1] if endings and endings[-1] in (".gz", ".zst") else None
    kind = endings[-2:-1] if packed else endings[-1:]
    if kind not in ([".jsonl"], [".ndjson"], [".parquet"]) or (kind == [".parquet"] and packed):
        raise OutputError(
            f"{output}: the alert log must end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet"
        )
    if kind == [".parquet"] or packed:
        if resume:
            raise SnapshotError(f"{output}: --resume goes on with a plain .jsonl only")
        return ParquetSink(output) if kind == [".parquet"] else JsonlSink(output, packed)
    return JsonlSink(output, None, resume)


class NoSink:
    """Takes records and forgets them."""

    name: str | None = None

    def begin(self) -> None:
        """Do nothing."""

    def write(self, records: list[bytes]) -> None:
        """Do nothing."""

    def mark(self) -> dict[str, Any]:
        """Return nothing to find."""
        return {}

    def finish(self) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


class StdoutSink(NoSink):
    """Writes one record a line to standard output."""

    def write(self, records: list[bytes]) -> None:
        """Write the records through to who reads them."""
        if records:
            sys.stdout.buffer.write(b"\n".join(records) + b"\n")
            sys.stdout.buffer.flush()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what writing a file raises into one line that names it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


class _FileSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self.name: str | None = str(self._partial)

    def _keep(self) -> None:
        with writing(self._path):
            os.replace(self._partial, self._path)


class JsonlSink(_FileSink):
    """One record a line, packed or not."""

    def __init__(
        self, path: Path, packed: str | None, resume: dict[str, Any] | None = None
    ) -> None:
        super().__init__(path)
        self._packed = packed
        self._length, self._crc = 0, 0
        self._raw: IO[bytes] | None = None
        self._file: Any = None
        self._resume = None if resume is None else self._found(resume)

    def _found(self, resume: dict[str, Any]) -> Path:
        """Return the file that holds the records up to a mark."""
        self._length, self._crc = int(resume["length"]), int(resume["crc32"])
        for path in (self._partial, self._path):
            if path.exists():
                if _crc_of(path, self._length) != self._crc:
                    text = "does not begin with the alert log that the snapshot goes with"
                    raise SnapshotError(f"{path}: {text} ({self._length:,} bytes)")
                return path
        raise SnapshotError(f"{self._path}: the alert log that the snapshot goes with is gone")

    def begin(self) -> None:
        """Open the file, cut to the mark if there was one."""
        with writing(self._partial):
            if self._resume is not None:
                if self._resume != self._partial:
                    os.replace(self._resume, self._partial)
                self._raw = self._partial.open("r+b")
                self._raw.truncate(self._length)
                self._raw.seek(self._length)
            else:
                self._raw = self._partial.open("wb")
            self._file = self._packing(self._raw)

    def _packing(self, raw: IO[bytes]) -> Any:
        if self._packed == ".gz":
            # no name and no time of writing in it: the same alerts give the same file
            return gzip.GzipFile("", "wb", 6, raw, mtime=0)
        if self._packed == ".zst":
            import pyarrow as pa

            return pa.CompressedOutputStream(raw, "zstd")
        return raw

    def write(self, records: list[bytes]) -> None:
        """Append one line a record."""
        if records:
            lines = b"\n".join(records) + b"\n"
            with writing(self._partial):
                self._file.write(lines)
            self._length += len(lines)
            self._crc = zlib.crc32(lines, self._crc)

    def mark(self) -> dict[str, Any]:
        """Return length and checksum of what is on disk now."""
        if self._packed:
            return {}
        self._sync()
        return {"length": self._length, "crc32": self._crc}

    def _sync(self) -> None:
        assert self._raw is not None
        with writing(self._partial):
            self._raw.flush()
            os.fsync(self._raw.fileno())

    def finish(self) -> None:
        """Close the file and give it its name."""
        self.leave()
        self._keep()

    def leave(self) -> None:
        """Close the file."""
        if self._raw is None or self._raw.closed:
            return
        with writing(self._partial):
            if self._packed:
                self._file.close()
            if not self._raw.closed:
                self._sync()
                self._raw.close()


def _crc_of(path: Path, length: int) -> int | None:
    """Return the checksum of a file's first bytes, None if it has fewer."""
    crc, left = 0, length
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, 1 << 20))
            if not piece:
                return None
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
    return crc


class ParquetSink(_FileSink):
    """A table: plain fields, those of the leading contributor, and the whole record as JSON."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._records: list[bytes] = []
        self._writer: Any = None

    def begin(self) -> None:
        """Open the file."""
        import pyarrow.parquet as pq

        with writing(self._partial):
            self._writer = pq.ParquetWriter(self._partial, alert_schema(), compression="zstd")

    def write(self, records: list[bytes]) -> None:
        """Append one row a record."""
        self._records += records
        if len(self._records) >= _PARQUET_ROWS:
            self._flush()

    def _flush(self) -> None:
        records, self._records = self._records, []
        if records:
            with writing(self._partial):
                self._writer.write_table(alert_table(records))

    def mark(self) -> dict[str, Any]:
        """Return nothing: a table can't be continued."""
        return {}

    def finish(self) -> None:
        """Write what is left and give the file its name."""
        self.leave()
        self._keep()

    def leave(self) -> None:
        """Write what is left: the table is whole as far as it goes."""
        if self._writer is not None and self._writer.is_open:
            self._flush()
            with writing(self._partial):
                self._writer.close()


def alert_schema() -> pa.Schema:
    """Return the columns of an alert log as a table."""
    import pyarrow as pa

    return pa.schema(
        [
            ("alert_id", pa.string()),
            ("seq", pa.int64()),
            ("transition", pa.string()),
            ("level", pa.string()),
            ("score", pa.float64()),
            ("event_ms", pa.timestamp("ms", "UTC")),
            ("late", pa.bool_()),
            ("source", pa.string()),
            ("sensor", pa.string()),
            ("detector", pa.string()),
            ("value", pa.float64()),
            ("limit", pa.float64()),
            ("signal", pa.float64()),
            ("coupled_from", pa.string()),
            ("routes", pa.list_(pa.string())),
            ("text", pa.string()),
            ("record", pa.string()),
        ]
    )


def alert_table(records: Sequence[bytes]) -> pa.Table:
    """Return alert records as a table, one row each: columns of `alert_schema`."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(record) for record in records], schema=alert_schema())


def _row(record: bytes) -> dict[str, Any]:
    fields = orjson.loads(record)
    leading = (fields.get("contributors") or [{}])[0]
    coupled = fields.get("coupled_from")
    return {
        **{key: fields.get(key) for key in _FIELDS},
        **{key: leading.get(key) for key in _LEADING},
        "coupled_from": coupled.get("source") if isinstance(coupled, dict) else coupled,
        "record": record.decode(),
    }


_FIELDS = (
    "alert_id", "seq", "transition", "level", "score", "event_ms", "late", "source", "routes",
    "text",
)  # fmt: skip
_LEADING = ("sensor", "detector", "value", "limit", "signal")

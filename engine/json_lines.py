"""NDJSON files as record batches: compiled for regular blocks, line by line for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa

from engine.adapters import Adapter
from engine.errors import Fault, ReadingsError
from engine.files import HistoryFile
from engine.rules_base import one_of
from engine.tables import Group, cut, opened, reading

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 16 << 20
_SAMPLE_LINES = 1000


class JsonTable:
    """A file of one JSON object a line; the first lines tell which keys there are."""

    def __init__(self, file: HistoryFile, adapter: Adapter) -> None:
        self._file = file
        self.share = 0.0
        # where the adapter takes every key for a sensor, one that appears later must not be lost
        self._strict = adapter.shape == "wide" and adapter.sensor.columns is None
        kinds: dict[str, pa.DataType] = {}
        block = next(self._blocks(), b"")
        for row, line in enumerate(block.splitlines()[:_SAMPLE_LINES], 1):
            if line.strip():
                for key, value in self._object(line, row).items():
                    kinds[key] = _wider(kinds.get(key, pa.null()), value)
        self.schema = pa.schema(kinds.items())

    def groups(self, column: str) -> list[Group] | None:
        """Return None: a text has no bounds."""
        return None

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the objects of a block at a time, cut to size; a key that is not there is null."""
        schema = pa.schema([(name, self._type(name, role)) for name, role in wants.items()])
        row = 0
        for block in self._blocks():
            table = self._parsed(block, schema)
            if table is None:
                table = self._line_by_line(block, schema, row)
            for batch in table.to_batches():
                for piece in cut(batch, n_rows):
                    yield row, piece
                    row += len(piece)
        self.share = 1.0

    def _type(self, name: str, role: str) -> pa.DataType:
        kind = self.schema.field(name).type
        if role == "value":
            return kind if pa.types.is_boolean(kind) else pa.float64()
        if role == "time" and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return kind
        return pa.int64() if pa.types.is_integer(kind) else pa.string()

    def _blocks(self) -> Iterator[bytes]:
        """Yield whole lines, about a block of them at a time."""
        with reading(self._file.path, "ndjson"):
            stream, raw = opened(self._file)
        with raw:
            rest = b""
            while True:
                with reading(self._file.path, "ndjson"):
                    piece = stream.read(BLOCK_BYTES)
                if not piece:
                    break
                self.share = min(1.0, raw.tell() / self._file.n_bytes)
                rest += piece
                end = rest.rfind(b"\n") + 1
                if end:
                    yield rest[:end]
                    rest = rest[end:]
                elif len(rest) > MAX_LINE_BYTES:
                    raise ReadingsError(
                        f"{self._file.path}: can't be read as NDJSON: a line is longer than "
                        f"{MAX_LINE_BYTES >> 20} MiB (one array? It must be one object a line)"
                    )
            if rest.strip():
                yield rest

    def _parsed(self, block: bytes, schema: pa.Schema) -> pa.Table | None:
        """Return a block as the compiled reader sees it, None if it is not regular enough."""
        import pyarrow.json as pjson

        try:
            table = pjson.read_json(
                pa.BufferReader(block),
                read_options=pjson.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pjson.ParseOptions(
                    explicit_schema=schema,
                    unexpected_field_behavior="infer" if self._strict else "ignore",
                ),
            )
        except (pa.ArrowException, UnicodeError):
            return None
        if self._strict and not set(table.column_names) <= set(self.schema.names):
            return None  # to name the row
        return table.select(schema.names)

    def _line_by_line(self, block: bytes, schema: pa.Schema, first_row: int) -> pa.Table:
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        row = first_row
        for line in block.splitlines():
            if not line.strip():
                continue
            row += 1
            found = self._object(line, row)
            if self._strict:
                for key in found.keys() - set(self.schema.names):
                    problem = (
                        f"a key that the first {_SAMPLE_LINES} lines do not have"
                        f"{one_of(key, self.schema.names, all_if_none=False)}; "
                        "name the columns in the adapter"
                    )
                    raise self._fault(problem, row, key)
            for name, column in columns.items():
                kind = schema.field(name).type
                try:
                    column.append(_as(found.get(name), kind))
                except ValueError as error:
                    raise self._fault(str(error), row, name) from None
        return pa.table(
            {
                name: pa.array(column, _plain(schema.field(name).type))
                for name, column in columns.items()
            }
        )

    def _object(self, line: bytes, row: int) -> dict[str, Any]:
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._fault(f"not JSON: {error}", row) from None
        if not isinstance(found, dict):
            what = "an array" if isinstance(found, list) else "a single value"
            raise self._fault(f"must be one JSON object a line, not {what}", row)
        return found

    def _fault(self, problem: str, row: int, key: str | None = None) -> ReadingsError:
        return ReadingsError(
            str(Fault(file=str(self._file.path), row=row, key=key, problem=problem))
        )


def _wider(kind: pa.DataType, value: Any) -> pa.DataType:
    """Return the type for what was seen so far and one more value."""
    one = _kind_of(value)
    if pa.types.is_null(kind) or kind == one:
        return one
    if pa.types.is_null(one):
        return kind
    numeric = pa.types.is_integer, pa.types.is_floating
    if any(test(kind) for test in numeric) and any(test(one) for test in numeric):
        return pa.float64()
    return pa.string()


def _kind_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _as(value: Any, kind: pa.DataType) -> Any:
    """Return a JSON value for a column of a type; ValueError if it is not one."""
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        what = "an array" if isinstance(value, list) else "an object"
        raise ValueError(f"must be one value, got {what}")
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        if isinstance(value, str):
            raise ValueError(f"must be a number, got {value[:80]!r}")
        return float(value)
    # times and ids of both kinds go on as text, which says the same
    return str(round(value) if isinstance(value, float) else value)


def _plain(kind: pa.DataType) -> pa.DataType:
    numeric = pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return pa.float64() if numeric else pa.string()

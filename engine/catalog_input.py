"""Read the tables of a catalog folder, Parquet or CSV; a cell that won't do is a fault."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import Fault
from engine.fault_log import FaultLog

_NO_NUMBER = ["", "na", "n/a", "nan", "null", "none"]
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that a table may have: text or number, required or not."""

    name: str
    is_number: bool = False
    required: bool = True


@dataclass(slots=True, kw_only=True)
class Table:
    """A table as read: texts as large_string arrays without chunks, numbers as float64 arrays.

    A column that is missing or of the wrong type is not in `texts` or `numbers`; its fault is in
    the log. `row_numbers[i]` is how people count row i: data rows of the file, from 1. `unread`
    marks the cells of a column that are a fault already, and NaN here.
    """

    file: str
    n_rows: int
    row_numbers: np.ndarray
    texts: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    unread: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def read_table(
    folder: Path, stem: str, columns: list[Column], log: FaultLog, *, required: bool
) -> Table | None:
    """Read `stem.parquet` or `stem.csv`; None, with a fault where that is one, when it can't be."""
    paths = [folder / f"{stem}{suffix}" for suffix in (".parquet", ".csv")]
    found = [path for path in paths if path.exists()]
    if not found:
        if required:
            problem = f"neither {paths[0].name} nor {paths[1].name} in {folder}"
            log.add(Fault(kind="missing file", file=stem, problem=problem))
        return None
    if len(found) > 1:
        problem = f"both {paths[0].name} and {paths[1].name}: keep one"
        log.add(Fault(kind="two files", file=stem, problem=problem))
        return None
    path = found[0]
    try:
        if path.suffix == ".csv":
            raw, row_numbers = _read_csv(path, log)
        else:
            raw, row_numbers = _read_parquet(path, columns)
    except (pa.ArrowException, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"must be UTF-8: {detail}" if "UTF8" in detail else f"can't be read: {detail}"
        log.add(Fault(kind="unreadable file", file=path.name, problem=problem))
        return None
    if raw.num_rows != len(row_numbers):
        row_numbers = np.arange(1, raw.num_rows + 1)
    table = Table(file=path.name, n_rows=raw.num_rows, row_numbers=row_numbers)
    if required and not table.n_rows:
        log.add(Fault(kind="empty table", file=path.name, problem="has no rows"))
    _check_names(table, raw.column_names, columns, log)
    for column in columns:
        if raw.column_names.count(column.name) == 1:
            _read_column(table, column, raw.column(column.name), log)
    return table


def _read_parquet(path: Path, columns: list[Column]) -> tuple[Any, np.ndarray]:
    import pyarrow.parquet as pq

    # not the dataset reader: a catalog is one file, and the dataset module is slow to import
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        known = [column.name for column in columns if names.count(column.name) == 1]
        table = file.read(columns=known)
        # the other names are kept, as empty columns, so that they can be reported
        for name in names:
            if name not in known:
                table = table.append_column(name, pa.nulls(table.num_rows))
    return table, np.arange(1, table.num_rows + 1)


def _read_csv(path: Path, log: FaultLog) -> tuple[Any, np.ndarray]:
    from pyarrow import csv

    skipped: list[int] = []

    def note_invalid(row: Any) -> str:
        # the header is row 1 there
        number = row.number - 1
        skipped.append(number)
        problem = f"has {row.actual_columns} columns, not {row.expected_columns}"
        log.add(Fault(kind="ragged row", file=path.name, row=number, problem=problem))
        return "skip"

    with path.open("rb") as stream:
        header = csv.open_csv(
            stream, parse_options=csv.ParseOptions(invalid_row_handler=lambda row: "skip")
        ).schema.names
    # every cell as text: what does not convert is reported with its row and value
    table = csv.read_csv(
        path,
        # row numbers of ragged rows are known to a single thread only
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=csv.ParseOptions(invalid_row_handler=note_invalid, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.large_string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    row_numbers = np.arange(1, table.num_rows + len(skipped) + 1)
    row_numbers = row_numbers[~np.isin(row_numbers, skipped)]
    return table, row_numbers


def _check_names(table: Table, names: list[str], columns: list[Column], log: FaultLog) -> None:
    known = {column.name for column in columns}
    absent = [column for column in columns if column.name not in names]
    for name in sorted({name for name in names if names.count(name) > 1}):
        log.add(Fault(kind="repeated column", file=table.file, key=name, problem="appears twice"))
    misspelt: set[str] = set()
    for name in dict.fromkeys(names):
        if name in known:
            continue
        close = difflib.get_close_matches(name, [column.name for column in absent], 1, 0.75)
        if close:
            misspelt.add(close[0])
            problem = f"unknown column (did you mean {close[0]}?)"
            log.add(Fault(kind="unknown column", file=table.file, key=name, problem=problem))
        else:
            table.ignored.append(name)
    for column in absent:
        if column.required and column.name not in misspelt:
            log.add(
                Fault(kind="missing column", file=table.file, key=column.name, problem="is missing")
            )


def _read_column(table: Table, column: Column, chunked: Any, log: FaultLog) -> None:
    values = chunked.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunks
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if column.is_number:
        if table.file.endswith(".csv"):
            table.numbers[column.name] = _numbers_of_texts(table, column.name, values, log)
        elif _is_number(kind) or pa.types.is_null(kind):
            table.numbers[column.name] = _as_floats(values)
        else:
            _note_type(table, column, kind, "a number", log)
        return
    try:
        if pa.types.is_integer(kind) or pa.types.is_null(kind) or _is_text(kind):
            texts = values.cast(pa.large_string())
            texts.validate(full=True)
            table.texts[column.name] = texts
        else:
            _note_type(table, column, kind, "text", log)
    except pa.ArrowInvalid:
        _note_encoding(table, column.name, values, log)


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _as_floats(values: Any) -> np.ndarray:
    floats = values.cast(pa.float64(), safe=False)
    return np.array(floats.fill_null(float("nan")).to_numpy(zero_copy_only=False))


def _note_type(table: Table, column: Column, kind: Any, wanted: str, log: FaultLog) -> None:
    problem = f"must be {wanted}, is {kind}"
    log.add(Fault(kind="column type", file=table.file, key=column.name, problem=problem))


def _note_encoding(table: Table, name: str, values: Any, log: FaultLog) -> None:
    octets = values.cast(pa.large_binary()).to_pylist()
    rows = [row for row, value in enumerate(octets) if value is not None and not _is_utf8(value)]
    log.add_rows(
        kind="not UTF-8",
        file=table.file,
        key=name,
        rows=np.array(rows, np.int64),
        numbers=table.row_numbers,
        values=octets,
        problem="must be UTF-8",
    )


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _numbers_of_texts(table: Table, name: str, texts: Any, log: FaultLog) -> np.ndarray:
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
    nothing = pc.is_in(pc.utf8_lower(trimmed), pa.array(_NO_NUMBER, pa.large_string()))
    is_number = pc.match_substring_regex(trimmed, _NUMBER)
    wrong = pc.and_(pc.invert(is_number), pc.invert(nothing)).fill_null(False)
    rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    log.add_rows(
        kind="not a number",
        file=table.file,
        key=name,
        rows=rows,
        numbers=table.row_numbers,
        values=texts,
        problem="must be a number",
    )
    # Arrow's parser takes no leading plus
    plain = pc.utf8_ltrim(pc.if_else(is_number, trimmed, None), characters="+")
    floats = _as_floats(plain)
    if len(rows):
        table.unread[name] = np.isin(np.arange(len(floats)), rows)
    return floats

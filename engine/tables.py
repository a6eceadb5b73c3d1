"""Files as streams of record batches: Parquet, Arrow IPC and CSV; memory stays bounded.

A table is opened for its schema, then read for the columns that are wanted. Whatever goes wrong is
one ReadingsError that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from engine.adapters import UNITS_MS, Adapter
from engine.arrow_checks import check_batch
from engine.errors import ReadingsError
from engine.files import HistoryFile

_BUFFER_BYTES = 1 << 20
_LARGE_BATCH_BYTES = 64 << 20
_CSV_BLOCK_BYTES = 1 << 20
_DICTIONARY_BYTES = 4.5
"""Bytes a value below which a Parquet column of ids holds a dictionary throughout."""


class Group(NamedTuple):
    """A run of rows that can be read by itself, with the bounds of a column if they are known."""

    first_row: int
    n_rows: int
    lowest: int | None
    highest: int | None


class Table(Protocol):
    """One file: a schema, and batches of the wanted columns, each with its first row's number."""

    schema: pa.Schema
    share: float
    """How much of the file has been read, 0 to 1."""

    def groups(self, column: str) -> list[Group] | None:
        """Return the runs of rows with bounds of a column of whole numbers or times, if known."""

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of at most `n_rows` of the wanted columns, of all groups or of some."""


def open_table(file: HistoryFile, adapter: Adapter) -> Table:
    """Open a file for its schema."""
    if file.n_bytes == 0:
        return EmptyTable()
    with reading(file.path, file.kind):
        if file.kind == "parquet":
            return ParquetTable(file)
        if file.kind == "arrow":
            return ArrowTable(file)
        if file.kind == "csv":
            return CsvTable(file, adapter)
        from engine.json_lines import JsonTable

        return JsonTable(file, adapter)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn what reading a file raises into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ReadingsError(f"{path}: no such file or folder") from error
    except (pa.ArrowException, OSError, EOFError, UnicodeError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        row = re.search(r"Row #(\d+): ", text)
        if row:
            text = text.replace(row[0], f"line {row[1]}: ")
        text = text.removesuffix(" Is this a 'parquet' file?")
        raise ReadingsError(f"{path}: can't be read as {_CALLED[kind]}: {text[:400]}") from error


_CALLED = {"parquet": "Parquet", "arrow": "Arrow IPC", "csv": "CSV", "ndjson": "NDJSON"}


def opened(file: HistoryFile) -> tuple[Any, Any]:
    """Return the bytes of a file, unpacked, and the raw file below, whose place is the progress."""
    raw = pa.OSFile(str(file.path))
    if file.packed is None:
        return raw, raw
    return pa.CompressedInputStream(raw, file.packed), raw


def cut(batch: pa.RecordBatch, n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in pieces of at most `n_rows`."""
    for start in range(0, len(batch), n_rows):
        yield batch.slice(start, n_rows)


class EmptyTable:
    """A file without a byte: no readings, and nothing that could be wrong with them."""

    schema = pa.schema([])
    share = 1.0

    def groups(self, column: str) -> list[Group] | None:
        """Return no group."""
        return []

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield nothing."""
        yield from ()


class ParquetTable:
    """A Parquet file, read a few pages at a time; statistics tell which row groups matter."""

    def __init__(self, file: HistoryFile) -> None:
        import pyarrow.parquet as pq

        self._file = file
        self._pq = pq
        self.share = 0.0
        self._metadata = pq.read_metadata(file.path)
        self.schema = self._metadata.schema.to_arrow_schema()
        self._leaves = {
            self._metadata.schema.column(place).path: place
            for place in range(len(self._metadata.schema))
        }

    def groups(self, column: str) -> list[Group] | None:
        """Return the row groups with physical bounds of a column, where they are whole numbers."""
        place = self._leaves.get(column)
        field = self.schema.field(column).type if column in self.schema.names else None
        known = field is not None and (
            pa.types.is_timestamp(field)
            or pa.types.is_date(field)
            or pa.types.is_signed_integer(field)
        )
        found, first_row = [], 0
        for number in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(number)
            ends = _bounds(group.column(place)) if known and place is not None else None
            found.append(Group(first_row, group.num_rows, *(ends or (None, None))))
            first_row += group.num_rows
        return found

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of the wanted columns, ids as dictionaries where the file has them so."""
        dictionaries = [
            name for name, role in wants.items() if role == "id" and self._encoded(name)
        ]
        every = self.groups("")
        assert every is not None
        chosen = list(range(len(every))) if groups is None else groups
        total = sum(every[number].n_rows for number in chosen)
        done = 0
        with reading(self._file.path, "parquet"):
            table = self._pq.ParquetFile(
                self._file.path,
                metadata=self._metadata,
                read_dictionary=dictionaries or None,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
            )
        with table:
            for run in _runs(chosen):
                row = every[run[0]].first_row
                batches = table.iter_batches(n_rows, run, columns=list(wants), use_threads=False)
                while True:
                    with reading(self._file.path, "parquet"):
                        batch = next(batches, None)
                    if batch is None:
                        break
                    yield row, batch
                    row += len(batch)
                    done += len(batch)
                    self.share = done / total
        self.share = 1.0

    def _encoded(self, name: str) -> bool:
        # Reading plain pages as a dictionary took 130 ns a value, as text 35; dictionary pages the
        # other way round 25 against 50.
        place = self._leaves.get(name)
        if place is None or not self._metadata.num_row_groups:
            return False
        column = self._metadata.row_group(0).column(place)
        if column.physical_type != "BYTE_ARRAY" or not column.num_values:
            return False
        return bool(column.total_uncompressed_size <= _DICTIONARY_BYTES * column.num_values)


def _bounds(column: Any) -> tuple[int, int] | None:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    low, high = statistics.min_raw, statistics.max_raw
    return (low, high) if isinstance(low, int) and isinstance(high, int) else None


def _runs(numbers: list[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


class ArrowTable:
    """An Arrow IPC file or stream, packed or not; every batch is checked before it is used."""

    def __init__(self, file: HistoryFile) -> None:
        self._file = file
        self.share = 0.0
        stream, raw = opened(file)
        with raw:
            magic = bytes(stream.read(8))
        self._random = magic[:6] == b"ARROW1"
        with pa.memory_map(str(file.path)) if self._seeks else self._stream()[0] as source:
            reader = pa.ipc.open_file(source) if self._seeks else pa.ipc.open_stream(source)
            self.schema = reader.schema
            if not all(self.schema.names):  # raises for names that are no UTF-8
                raise pa.ArrowInvalid("a column has no name")
            self._n = reader.num_record_batches if self._seeks else 0

    @property
    def _seeks(self) -> bool:
        return self._random and self._file.packed is None

    def _stream(self) -> tuple[Any, Any]:
        stream, raw = opened(self._file)
        if self._random:
            stream.read(8)  # what follows the magic of a file is a stream
        return stream, raw

    def groups(self, column: str) -> list[Group] | None:
        """Return None: the format keeps no bounds."""
        return None

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the file's batches, cut to size."""
        places = [self.schema.get_field_index(name) for name in wants]
        options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
        row = 0
        source = self._whole(options) if self._seeks else self._flow(options)
        while True:
            with reading(self._file.path, "arrow"):
                batch = next(source, None)
                if batch is None:
                    break
                check_batch(batch)
            for piece in cut(batch, n_rows):
                yield row, piece
                row += len(piece)
        self.share = 1.0

    def _whole(self, options: Any) -> Iterator[pa.RecordBatch]:
        # large batches stay in the file, from which the system can drop them again
        large = self._file.n_bytes > _LARGE_BATCH_BYTES * max(1, self._n)
        path = str(self._file.path)
        with pa.memory_map(path) if large else pa.OSFile(path) as source:
            reader = pa.ipc.open_file(source, options=options)
            for number in range(reader.num_record_batches):
                self.share = number / reader.num_record_batches
                yield reader.get_batch(number)

    def _flow(self, options: Any) -> Iterator[pa.RecordBatch]:
        stream, raw = self._stream()
        with raw:
            reader = pa.ipc.open_stream(stream, options=options)
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    # to the end of the packing, which tells whether it is whole
                    while stream.read(_BUFFER_BYTES):
                        pass
                    return
                self.share = raw.tell() / self._file.n_bytes
                yield batch


class CsvTable:
    """A CSV file; the first block tells which columns hold numbers."""

    def __init__(self, file: HistoryFile, adapter: Adapter) -> None:
        self._file, self._keys, self._time = file, adapter.csv, adapter.time
        self.share = 0.0
        delimiter = self._keys.delimiter
        if ".tsv" in file.path.suffixes and "delimiter" not in self._keys.model_fields_set:
            delimiter = "\t"
        self._delimiter = delimiter
        self._block = _CSV_BLOCK_BYTES
        stream, raw = opened(file)
        with raw:
            # a row must fit into a block, and a wide table's header tells how long rows are
            head = bytes(stream.read(16 * _CSV_BLOCK_BYTES)).split(b"\n", 1)[0]
            self._block = max(self._block, 16 * len(head))
        stream, raw = opened(file)
        try:
            with raw:
                self.schema = self._reader(stream, None).schema
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise
            self.schema = pa.schema([])

    def groups(self, column: str) -> list[Group] | None:
        """Return None: a text has no bounds."""
        return None

    def _reader(self, stream: Any, wants: Mapping[str, str] | None) -> Any:
        import pyarrow.csv as pcsv

        keys = self._keys
        types = {name: self._type(name, role) for name, role in (wants or {}).items()}
        return pcsv.open_csv(
            stream,
            read_options=pcsv.ReadOptions(
                use_threads=False,
                block_size=self._block,
                skip_rows=keys.skip_rows,
                column_names=list(keys.names) if keys.names else None,
                encoding=keys.encoding,
            ),
            parse_options=pcsv.ParseOptions(delimiter=self._delimiter, quote_char=keys.quote),
            convert_options=pcsv.ConvertOptions(
                column_types=types,
                include_columns=list(wants) if wants else None,
                null_values=list(keys.null_values),
                strings_can_be_null=True,
                decimal_point=keys.decimal,
            ),
        )

    def _type(self, name: str, role: str) -> pa.DataType:
        guess = self.schema.field(name).type
        number = pa.types.is_integer(guess) or pa.types.is_floating(guess)
        if role == "id":
            return pa.dictionary(pa.int32(), pa.string())
        if role == "value":
            return guess if pa.types.is_boolean(guess) else pa.float64()
        if role == "time":
            counted = self._time.format in UNITS_MS or self._time.start is not None
            if self._time.format == "auto" and number:
                return guess
            return (
                pa.float64()
                if counted and not pa.types.is_integer(guess)
                else (guess if counted else pa.string())
            )
        return pa.int64() if pa.types.is_integer(guess) else pa.string()

    def batches(
        self, wants: Mapping[str, str], n_rows: int, groups: list[int] | None = None
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows of a block at a time, cut to size."""
        with reading(self._file.path, "csv"):
            stream, raw = opened(self._file)
        row = 0
        with raw:
            with reading(self._file.path, "csv"):
                reader = self._reader(stream, wants) if len(self.schema) else iter(())
            while True:
                with reading(self._file.path, "csv"):
                    batch = next(reader, None)
                if batch is None:
                    break
                self.share = min(1.0, raw.tell() / self._file.n_bytes)
                for piece in cut(batch, n_rows):
                    yield row, piece
                    row += len(piece)
        self.share = 1.0

"""Dumps of the readings topic, message by message, and their replay: byte for byte the live alerts.

A dump is a folder with one Parquet file a partition: the offset, the content type where a message
declared one, and the message itself, bad ones, ticks and commands included. The files get their
names once all of them are whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import OutputError, ReadingsError
from engine.partition import Outcome, PartitionLine, Plans

PARTITION_KEY = b"tocsin.dump.partition"
CATALOG_KEY = b"tocsin.dump.catalog"
SCHEMA = pa.schema(
    [("offset", pa.int64()), ("content_type", pa.string()), ("message", pa.large_binary())]
)
FETCH = 64
"""Messages that a replay takes at a time; any number gives the same alerts."""
_GROUP_BYTES = 8 << 20
_FILES = "partition-*.parquet"
_PART = ".part"


def make_folder(folder: Path) -> None:
    """Make a folder for a dump; raises ``OutputError`` if there is one in it."""
    folder.mkdir(parents=True, exist_ok=True)
    older = next(folder.glob(_FILES), None)
    if older is not None:
        raise OutputError(
            f"{folder}: holds a dump already ({older.name}): name a new folder, or delete that one"
        )
    for part in folder.glob(_FILES + _PART):
        part.unlink()  # of a dump that was interrupted


class DumpWriter:
    """Writes one partition's messages, in the order of their offsets; then `close`, then `keep`."""

    def __init__(self, folder: Path, partition: int, catalog: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"partition-{partition:04}.parquet"
        metadata = {PARTITION_KEY: str(partition), CATALOG_KEY: catalog}
        self._schema = SCHEMA.with_metadata(metadata)
        self._part = self.path.with_name(self.path.name + _PART)
        self._writer = pq.ParquetWriter(
            self._part, self._schema, compression="zstd", use_dictionary=False
        )
        self._rows: list[tuple[int, str | None, bytes]] = []
        self._n_bytes = 0
        self.n = 0

    def add(self, offset: int, content_type: str | None, message: bytes) -> None:
        """Write a message."""
        self._rows.append((offset, content_type, message))
        self._n_bytes += len(message)
        self.n += 1
        if self._n_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = [
                pa.array(column, each.type)
                for column, each in zip(zip(*self._rows, strict=True), SCHEMA, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows.clear()
        self._n_bytes = 0

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()

    def keep(self) -> None:
        """Give the file its name, once those of all partitions are finished."""
        self._part.rename(self.path)


@dataclass(frozen=True)
class Dump:
    """One partition's messages on disk."""

    path: Path
    partition: int
    catalog: str

    def fetches(self, n: int = FETCH) -> Iterator[tuple[list[int], list[bytes], list[str | None]]]:
        """Yield (offsets, messages, content types) of up to ``n`` messages at a time."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=n):
                yield (
                    batch.column("offset").to_pylist(),
                    batch.column("message").to_pylist(),
                    batch.column("content_type").to_pylist(),
                )


def find(paths: Sequence[Path]) -> list[Dump]:
    """Return the dumps among files and folders, by partition; none if these are no dumps.

    Raises ``ReadingsError`` for a dump that was interrupted, and for what is none beside dumps.
    """
    dumps, others = [], []
    for path in paths:
        if path.is_dir() and any(path.glob(_FILES + _PART)):
            raise ReadingsError(f"{path}: a dump that was interrupted: dump again")
        for file in sorted(path.glob(_FILES)) if path.is_dir() else [path]:
            dump = _opened(file)
            if dump is None:
                others.append(file)
            else:
                dumps.append(dump)
    if dumps and others:
        raise ReadingsError(f"{others[0]}: not a whole file of a dump, as others here are")
    return sorted(dumps, key=lambda dump: dump.partition)


def _opened(file: Path) -> Dump | None:
    if file.suffix != ".parquet" or not file.is_file():
        return None
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    if PARTITION_KEY not in metadata:
        return None
    return Dump(file, int(metadata[PARTITION_KEY]), metadata.get(CATALOG_KEY, b"").decode())


def check(dumps: Sequence[Dump], catalog: Any) -> list[int]:
    """Return the partitions of a catalog that have no dump.

    Raises ``ReadingsError`` for a dump of another catalog, or of no partition of this one, and for
    two of one partition.
    """
    by_partition: dict[int, Dump] = {}
    for dump in dumps:
        if dump.catalog != catalog.digest:
            raise ReadingsError(
                f"{dump.path}: dumped under catalog {dump.catalog}, this is {catalog.digest}"
            )
        if dump.partition >= catalog.n_partitions:
            raise ReadingsError(
                f"{dump.path}: of partition {dump.partition}, the catalog has "
                f"{catalog.n_partitions}, from 0 on"
            )
        twin = by_partition.setdefault(dump.partition, dump)
        if twin is not dump:
            raise ReadingsError(f"{twin.path} and {dump.path}: both of partition {dump.partition}")
    return [each for each in range(catalog.n_partitions) if each not in by_partition]


@dataclass
class Replayed:
    """What the replay of dumps came to."""

    messages: int = 0
    readings: int = 0
    alerts: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def replay(
    dumps: Sequence[Dump], plans: Plans, digest: str, *, n: int = FETCH, total: Replayed
) -> Iterator[tuple[int, Outcome]]:
    """Yield (partition, what each fetch gave), one partition after the other; count in ``total``.

    Raises ``ReadingsError`` as `check`.
    """
    check(dumps, plans.catalog)
    for dump in dumps:
        line = PartitionLine(plans, digest, dump.partition)
        for offsets, messages, kinds in dump.fetches(n):
            declared: Any = kinds if any(kinds) else None
            outcome = line.take(offsets, line.decode(messages, declared))
            total.messages += len(messages)
            total.readings += outcome.n_records
            total.alerts += sum(map(len, outcome.found))
            for each in outcome.rejects:
                total.rejected[each.reason] = total.rejected.get(each.reason, 0) + each.n
            yield dump.partition, outcome

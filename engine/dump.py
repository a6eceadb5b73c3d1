"""Dumps of the readings topic, message by message, and their replay: byte for byte the live alerts.

A dump is a folder with one Parquet file a partition: the offset, the content type where a message
declared one, and the message itself, bad ones, ticks and commands included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ReadingsError
from engine.partition import Outcome, PartitionLine, Plans

PARTITION_KEY = b"tocsin.dump.partition"
CATALOG_KEY = b"tocsin.dump.catalog"
SCHEMA = pa.schema(
    [("offset", pa.int64()), ("content_type", pa.string()), ("message", pa.large_binary())]
)
FETCH = 64
"""Messages that a replay takes at a time; any number gives the same alerts."""
_GROUP_BYTES = 8 << 20


class DumpWriter:
    """Writes one partition's messages, in the order of their offsets."""

    def __init__(self, folder: Path, partition: int, catalog: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"partition-{partition:04}.parquet"
        metadata = {PARTITION_KEY: str(partition), CATALOG_KEY: catalog}
        self._schema = SCHEMA.with_metadata(metadata)
        self._writer = pq.ParquetWriter(
            self.path, self._schema, compression="zstd", use_dictionary=False
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
    """Return the dumps among files and folders, by partition; none if these are no dumps."""
    files = [
        file
        for path in paths
        for file in (sorted(path.glob("partition-*.parquet")) if path.is_dir() else [path])
        if file.suffix == ".parquet" and file.is_file()
    ]
    dumps = []
    for file in files:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError):
            continue
        if PARTITION_KEY in metadata:
            partition = int(metadata[PARTITION_KEY])
            dumps.append(Dump(file, partition, metadata.get(CATALOG_KEY, b"").decode()))
    return sorted(dumps, key=lambda dump: dump.partition)


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

    Raises ``ReadingsError`` if a dump is of another catalog.
    """
    for dump in dumps:
        if dump.catalog != plans.catalog.digest:
            raise ReadingsError(
                f"{dump.path}: dumped under catalog {dump.catalog}, this is {plans.catalog.digest}"
            )
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

"""Snapshots: the state at a batch boundary, written so that a torn one is never taken for whole.

One Arrow IPC file: a row with one binary column for each array of records, and metadata with the
format, the digest of the catalog, the rules, the partition, the clock, what the caller adds, and a
checksum of it all. It is written under another name through ``pyarrow.fs`` (a local path, s3://,
gs://, hdfs://), made durable, and then moved.

The line stands still only for ``freeze``, which copies; checksum and writing go on in a thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import fs

from engine.errors import DamagedSnapshotError, ForeignSnapshotError, SnapshotError
from engine.pipeline import Pipeline
from engine.plan import Plan
from kernels.layout import CLOCK

FORMAT = 2
PART = ".part"
_META = b"tocsin.snapshot"
_LINE = 64
_FIRST_SCHEMA = 8
"""Where it lies in an Arrow IPC file, behind the mark."""

Array = np.ndarray[Any, Any]


class Place(NamedTuple):
    """A file or folder: as people know it, its file system, and its path there."""

    shown: str
    filesystem: fs.FileSystem
    path: str

    def below(self, name: str) -> Place:
        """Return the place of a file or folder in this folder."""
        return Place(f"{self.shown}/{name}", self.filesystem, f"{self.path}/{name}")


class Room:
    """Memory that frozen states use one after the other, so that no page of it is new.

    Touching new pages takes ten times as long as the copy. `prepare` does so beforehand.
    """

    def __init__(self) -> None:
        self._free: list[Array] = []

    def prepare(self, pipeline: Pipeline) -> None:
        """Make room for a pipeline's state, every page of it touched."""
        n = _n_frozen(pipeline)
        room = self.take(n)
        room[:] = 0
        self.give_back(room)

    def take(self, n: int) -> Array:
        """Return at least ``n`` bytes, used before if there are any."""
        with suppress(IndexError):
            room = self._free.pop()
            if len(room) >= n:
                return room
        return np.empty(n, np.uint8)

    def give_back(self, room: Array) -> None:
        """Keep the memory for the next."""
        self._free.append(room)


@dataclass(frozen=True, eq=False, kw_only=True)
class Frozen:
    """A copy of a pipeline's state, to be written once while the line goes on."""

    plan: Plan
    meta: dict[str, Any]
    arrays: dict[str, Array]
    _buffer: Array
    _room: Room | None

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all records."""
        return sum(array.nbytes for array in self.arrays.values())

    def write(self, where: str | Place, *, offset: int | None = None) -> None:
        """Write a snapshot, whole or not at all; SnapshotError if it can't be written.

        `offset` is the position in the source of the log that it covers, exclusive.
        """
        meta = {**self.meta, "offset": offset}
        meta["checksum"] = _checksum(meta, self.arrays.values())
        columns = {name: _one_binary(array) for name, array in self.arrays.items()}
        batch = pa.record_batch(columns).replace_schema_metadata({_META: orjson.dumps(meta)})
        shown, filesystem, path = place(where)
        part = f"{path}{PART}"
        try:
            with (
                filesystem.open_output_stream(part) as sink,
                pa.ipc.new_file(sink, batch.schema) as writer,
            ):
                writer.write_batch(batch)
            make_durable(filesystem, part)
            filesystem.move(part, path)
            make_durable(filesystem, str(Path(path).parent))
        except (OSError, pa.ArrowException) as error:
            with suppress(OSError, pa.ArrowException):
                filesystem.delete_file(part)
            raise SnapshotError(f"{shown}: the snapshot can't be written: {error}") from error

    def release(self) -> None:
        """Let the memory be used for the next; the arrays are no longer valid."""
        self.arrays.clear()
        if self._room is not None:
            self._room.give_back(self._buffer)


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """A snapshot that was read and found whole."""

    uri: str
    meta: dict[str, Any]
    arrays: dict[str, pa.Buffer]

    @property
    def clock(self) -> Array:
        """Return its (1,) CLOCK."""
        return np.frombuffer(self.arrays["clock"], CLOCK)

    def records(self, name: str, dtype: np.dtype[Any]) -> Array:
        """Return an array's records; SnapshotError if they have another layout than ``dtype``."""
        if self.meta["layouts"].get(name) != repr(dtype.descr):
            raise SnapshotError(f"{self.uri}: its {name} records have another layout than these")
        return np.frombuffer(self.arrays[name], dtype)


def freeze(
    pipeline: Pipeline, extra: Mapping[str, Any] | None = None, room: Room | None = None
) -> Frozen:
    """Copy the pipeline's state at a batch boundary; ``extra`` is any JSON that goes with it."""
    clock = merged_clock(pipeline)
    parts = {**pipeline.state.of_sources(*pipeline.sources), "clock": clock}
    n = _n_frozen(pipeline)
    buffer = np.empty(n, np.uint8) if room is None else room.take(n)
    arrays = {}
    start = 0
    for name, part in parts.items():
        copy = buffer[start : start + part.nbytes]
        copy[:] = part.view(np.uint8)
        arrays[name] = copy
        start += -(-part.nbytes // _LINE) * _LINE
    rules = pipeline.plan.rules
    meta = {
        "format": FORMAT,
        "catalog": pipeline.plan.catalog.digest,
        "rules": rules.digest,
        "rules_text": rules.text,
        "partition": pipeline.partition,
        "position": int(clock["position"][0]),
        "layouts": {name: repr(part.dtype.descr) for name, part in parts.items()},
        "extra": dict(extra or {}),
    }
    return Frozen(plan=pipeline.plan, meta=meta, arrays=arrays, _buffer=buffer, _room=room)


def save(uri: str, pipeline: Pipeline, extra: Mapping[str, Any] | None = None) -> None:
    """Write the pipeline's state; ``extra`` is any JSON that a later ``load`` gives back."""
    freeze(pipeline, extra).write(uri)


def load(uri: str, pipeline: Pipeline) -> dict[str, Any]:
    """Restore the pipeline's state; return ``extra``.

    Raises ``SnapshotError`` if the file is missing, torn, altered, or of another catalog, other
    rules, another partition or another format; the pipeline is untouched then.
    """
    return restore(read(uri), pipeline)


def restore(snapshot: Snapshot, pipeline: Pipeline) -> dict[str, Any]:
    """Restore the pipeline's state from a snapshot of the same plan; as `load`."""
    uri, meta = snapshot.uri, snapshot.meta
    plan = pipeline.plan
    for name, ours in (("catalog", plan.catalog.digest), ("rules", plan.rules.digest)):
        if meta[name] != ours:
            raise ForeignSnapshotError(
                f"{uri}: made with {name} {meta[name]}, but these are {ours}"
            )
    if meta["partition"] != pipeline.partition:
        whose, here = named(meta["partition"]), named(pipeline.partition)
        raise ForeignSnapshotError(f"{uri}: the state of {whose}, but this is {here}")
    targets = pipeline.state.of_sources(*pipeline.sources)
    records = {name: snapshot.records(name, target.dtype) for name, target in targets.items()}
    clock = snapshot.records("clock", CLOCK)
    for name, target in targets.items():
        if len(records[name]) != len(target):
            n = len(records[name])
            raise SnapshotError(f"{uri}: has {n:,} records of {name}, must be {len(target):,}")
    for name, target in targets.items():
        target[:] = records[name]
    pipeline.state.set_rows(*pipeline.sources)
    for shard in pipeline.shards:
        shard.rejoin(clock)
    return dict(meta["extra"])


def named(partition: int | None) -> str:
    """Name a partition, or all of them."""
    return "the whole catalog" if partition is None else f"partition {partition}"


def read_meta(where: str | Place) -> dict[str, Any]:
    """Return what a snapshot says of itself; its records are not looked at."""
    return _read(place(where), whole=False).meta


def read(where: str | Place) -> Snapshot:
    """Read a snapshot and hold it against its checksum.

    Raises ``DamagedSnapshotError`` if it is torn, altered or none, ``SnapshotError`` if it is
    missing or of another format.
    """
    return _read(place(where), whole=True)


def _read(where: Place, *, whole: bool) -> Snapshot:
    uri, filesystem, path = where
    try:
        with filesystem.open_input_file(path) as source, pa.ipc.open_file(source) as reader:
            meta = orjson.loads((reader.schema.metadata or {})[_META])
            if meta["format"] != FORMAT:
                problem = f"format {meta['format']}, this version reads {FORMAT} alone"
                raise SnapshotError(f"{uri}: {problem}")
            checksum = meta.pop("checksum")
            if not whole:
                return Snapshot(uri=uri, meta=meta, arrays={})
            batch = reader.get_batch(0)
            # before a byte is looked at: what a damaged file says of itself may lead anywhere
            batch.validate(full=True)
            # the file says its schema twice, and only the copy at its end was taken so far
            source.seek(_FIRST_SCHEMA)
            if not pa.ipc.read_schema(source).equals(reader.schema, check_metadata=True):
                raise DamagedSnapshotError(f"{uri}: damaged snapshot: its two schemas differ")
        arrays = {name: batch.column(name)[0].as_buffer() for name in batch.schema.names}
        found = _checksum(meta, arrays.values())
        if found != checksum:
            problem = f"damaged snapshot: its checksum is {found}, not {checksum}"
            raise DamagedSnapshotError(f"{uri}: {problem}")
        if set(arrays) != set(meta["layouts"]):
            raise DamagedSnapshotError(f"{uri}: damaged snapshot: not the arrays it tells of")
    except FileNotFoundError as error:
        raise SnapshotError(f"{uri}: no such snapshot") from error
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedSnapshotError(f"{uri}: not a whole snapshot: {detail}") from error
    return Snapshot(uri=uri, meta=meta, arrays=arrays)


def merged_clock(pipeline: Pipeline) -> Array:
    """Return the shards' one clock: they agree on all but the counts, which add up."""
    clock = pipeline.shards[0].clock.copy()
    clock["counts"] = np.sum([shard.clock["counts"] for shard in pipeline.shards], axis=0)
    clock["n_agenda"] = 0
    return clock


def _n_frozen(pipeline: Pipeline) -> int:
    parts = pipeline.state.of_sources(*pipeline.sources).values()
    return sum(-(-n // _LINE) * _LINE for n in (*(part.nbytes for part in parts), CLOCK.itemsize))


def _one_binary(array: Array) -> Any:
    """Return a column of one row that holds the array's bytes, where they are."""
    ends = pa.py_buffer(np.array([0, array.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)])


def _checksum(meta: Mapping[str, Any], parts: Iterable[Any]) -> str:
    # 0.2 s for 200 MB, without the GIL; SHA-256 is as fast only where the processor has it built in
    digest = hashlib.blake2b(orjson.dumps(meta, option=orjson.OPT_SORT_KEYS), digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def place(where: str | Place) -> Place:
    """Return the place of a URI or a local path."""
    if isinstance(where, Place):
        return where
    try:
        if "://" in where:
            # what follows the question mark are options, perhaps secret ones
            return Place(where.partition("?")[0].rstrip("/"), *fs.FileSystem.from_uri(where))
        return Place(where, fs.LocalFileSystem(), str(Path(where).absolute()))
    except (pa.ArrowException, OSError) as error:
        raise SnapshotError(f"{where}: not a place for a snapshot: {error}") from error


def make_durable(filesystem: fs.FileSystem, path: str) -> None:
    """Wait until a local file or folder is on the disk; other stores keep what they took."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

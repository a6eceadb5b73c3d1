"""Snapshots: the state at a batch boundary, written so that a torn one is never taken for whole.

One Arrow IPC file: a row with one binary column for each array of records, and metadata with the
format, the digests of catalog and rules, the clock, what the caller adds, and a checksum of it all.
It is written under another name through ``pyarrow.fs`` (a local path, s3://, gs://, hdfs://) and
then moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import fs

from engine.errors import SnapshotError
from engine.pipeline import Pipeline
from kernels.layout import CLOCK

FORMAT = 1
_META = b"tocsin.snapshot"

Array = np.ndarray[Any, Any]


def save(uri: str, pipeline: Pipeline, extra: Mapping[str, Any] | None = None) -> None:
    """Write the pipeline's state; ``extra`` is any JSON that a later ``load`` gives back."""
    clock = _merged_clock(pipeline)
    arrays = {**pipeline.state.arrays, "clock": clock}
    meta = {
        "format": FORMAT,
        "catalog": pipeline.plan.catalog.digest,
        "rules": pipeline.plan.rules.digest,
        "position": int(clock["position"][0]),
        "layouts": {name: repr(array.dtype.descr) for name, array in arrays.items()},
        "extra": dict(extra or {}),
    }
    meta["checksum"] = _checksum(meta, arrays.values())
    columns = {name: pa.array([_bytes(array)], pa.large_binary()) for name, array in arrays.items()}
    batch = pa.record_batch(columns).replace_schema_metadata({_META: orjson.dumps(meta)})
    filesystem, path = _place(uri)
    part = f"{path}.part"
    try:
        with (
            filesystem.open_output_stream(part) as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        filesystem.move(part, path)
    except OSError as error:
        raise SnapshotError(f"{uri}: the snapshot can't be written: {error}") from error


def load(uri: str, pipeline: Pipeline) -> dict[str, Any]:
    """Restore the pipeline's state; return ``extra``.

    Raises ``SnapshotError`` if the file is missing, torn, altered, or of another catalog, other
    rules or another format; the pipeline is untouched then.
    """
    meta, arrays = _read(uri)
    for name, ours in (
        ("catalog", pipeline.plan.catalog.digest),
        ("rules", pipeline.plan.rules.digest),
    ):
        if meta[name] != ours:
            raise SnapshotError(f"{uri}: made with {name} {meta[name]}, but these are {ours}")
    targets = {**pipeline.state.arrays, "clock": np.zeros(1, CLOCK)}
    for name, target in targets.items():
        if meta["layouts"].get(name) != repr(target.dtype.descr):
            raise SnapshotError(f"{uri}: its {name} records have another layout than these")
        if len(arrays[name]) != target.nbytes:
            n_bytes = len(arrays[name])
            raise SnapshotError(f"{uri}: {name} has {n_bytes} bytes, must be {target.nbytes}")
    for name, target in targets.items():
        target[:] = np.frombuffer(arrays[name], target.dtype)
    for shard in pipeline.shards:
        shard.rejoin(targets["clock"])
    return dict(meta["extra"])


def _read(uri: str) -> tuple[dict[str, Any], dict[str, pa.Buffer]]:
    filesystem, path = _place(uri)
    try:
        with filesystem.open_input_file(path) as source, pa.ipc.open_file(source) as reader:
            meta = orjson.loads((reader.schema.metadata or {})[_META])
            batch = reader.get_batch(0)
        if meta["format"] != FORMAT:
            raise SnapshotError(f"{uri}: format {meta['format']}, this version reads {FORMAT}")
        arrays = {name: batch.column(name)[0].as_buffer() for name in batch.schema.names}
        checksum = meta.pop("checksum")
        if _checksum(meta, arrays.values()) != checksum:
            raise SnapshotError(f"{uri}: damaged snapshot: its checksum is not {checksum}")
    except FileNotFoundError as error:
        raise SnapshotError(f"{uri}: no such snapshot") from error
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError) as error:
        raise SnapshotError(f"{uri}: not a whole snapshot: {error}") from error
    return meta, arrays


def _merged_clock(pipeline: Pipeline) -> Array:
    """Return the shards' one clock: they agree on all but the counts, which add up."""
    clock = pipeline.shards[0].clock.copy()
    clock["counts"] = np.sum([shard.clock["counts"] for shard in pipeline.shards], axis=0)
    clock["n_agenda"] = 0
    return clock


def _checksum(meta: Mapping[str, Any], parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(orjson.dumps(meta, option=orjson.OPT_SORT_KEYS), digest_size=16)
    for part in parts:
        digest.update(_bytes(part) if isinstance(part, np.ndarray) else part)
    return digest.hexdigest()


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1).data


def _place(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        if "://" in uri:
            return fs.FileSystem.from_uri(uri)
        from pathlib import Path

        return fs.LocalFileSystem(), str(Path(uri).absolute())
    except (pa.ArrowInvalid, OSError) as error:
        raise SnapshotError(f"{uri}: not a place for a snapshot: {error}") from error

"""Seeded messages for fuzzing: valid ones, mutated ones and noise, for any reader of the topic.

`messages` yields bytes alone; `cases` also says how many readings a message holds, where that is
known without decoding it: of whole messages, and of JSON with rows that are wrong by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from engine.readings import Readings

START_MS = 1_714_521_600_000


class Case(NamedTuple):
    """A message, what it was made of, and how many readings it holds; None if nobody knows."""

    payload: bytes
    kind: str
    n: int | None


class City(NamedTuple):
    """What the messages talk about: ids by dense index, and the digest of their catalog."""

    digest: str
    ids: list[str]


def messages(seed: int, n: int, city: City) -> Iterator[bytes]:
    """Yield `n` messages."""
    return (case.payload for case in cases(seed, n, city))


def cases(seed: int, n: int, city: City) -> Iterator[Case]:
    """Yield `n` messages with what is known of each."""
    rng = random.Random(seed)
    stock = list(_arrow_stock(rng, city))
    for _ in range(n):
        draw = rng.random()
        if draw < 0.2:
            yield rng.choice(stock)
        elif draw < 0.45:
            yield Case(_broken(rng, rng.choice(stock).payload), "broken arrow", None)
        elif draw < 0.65:
            yield _json(rng, city)
        elif draw < 0.85:
            yield Case(_broken(rng, _json(rng, city).payload), "broken json", None)
        elif draw < 0.92:
            yield _control(rng, city)
        else:
            yield Case(_noise(rng), "noise", None)


def _arrow_stock(rng: random.Random, city: City) -> Iterator[Case]:
    """Yield Arrow messages of all kinds; making each anew would cost more than reading it."""
    for n in (0, 1, 7, 64, 500):
        index = np.array([rng.randrange(-5, len(city.ids) + 3) for _ in range(n)], np.int32)
        index[(index == -1) | (index == -2)] = 0  # no ticks: how many readings there are is known
        names = pa.array([city.ids[at % len(city.ids)] for at in index.tolist()], pa.string())
        time = pa.array([START_MS + rng.randrange(10**6) for _ in range(n)], pa.int64())
        value = pa.array([rng.gauss(20, 5) for _ in range(n)], pa.float32())
        columns = {"sensor": pa.array(index), "event_ms": time, "value": value}
        shapes = [
            columns,
            {**columns, "value": value.cast(pa.float64())},
            {**columns, "event_ms": time.cast(pa.timestamp("ms"))},
            {**columns, "quality": pa.array([k % 3 for k in range(n)], pa.uint8())},
            {**columns, "event_ms": _holed(time)},
            {**columns, "sensor": names},
            {**columns, "sensor": names.cast(pa.large_string())},
            {**columns, "sensor": names.dictionary_encode()},
            {**columns, "note": pa.array([[{"deep": [k]}] for k in range(n)])},
            {"sensor": columns["sensor"], "value": value},
        ]
        for columns in shapes:
            batch = pa.record_batch(columns).replace_schema_metadata(
                {"tocsin.catalog": city.digest}
            )
            for compression, repeat in ((None, 1), (None, 3), ("zstd", 1), ("lz4", 2)):
                payload = _stream(batch, compression, repeat)
                known = n * repeat if len(columns) > 2 else max(1, n * repeat)
                yield Case(payload, "arrow", known)
    other = pa.record_batch(shapes[0]).replace_schema_metadata({"tocsin.catalog": "another"})
    yield Case(_stream(other, None, 1), "arrow", len(other))


def _holed(column: pa.Array) -> pa.Array:
    rows = column.to_pylist()
    return pa.array([None if row % 5 == 1 else each for row, each in enumerate(rows)], column.type)


def _stream(batch: pa.RecordBatch, compression: str | None, repeat: int) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        for _ in range(repeat):
            writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


_WORDS = (0, -1, 1, 7, 1 << 31, (1 << 31) - 1, 1 << 62, -(1 << 63), (1 << 63) - 1)


def _broken(rng: random.Random, whole: bytes) -> bytes:
    """Return a message with a few bytes, words or pieces of it changed."""
    broken = bytearray(whole)
    for _ in range(rng.randrange(1, 6)):
        if not broken:
            break
        place = rng.randrange(len(broken))
        match rng.randrange(8):
            case 0:
                del broken[place:]
            case 1:
                start = place // 8 * 8
                broken[start : start + 8] = rng.choice(_WORDS).to_bytes(8, "little", signed=True)
            case 2:
                start = place // 4 * 4
                broken[start : start + 4] = rng.randrange(1 << 32).to_bytes(4, "little")
            case 3:
                stop = place + rng.randrange(1, 64)
                broken[place:place] = broken[place:stop]
            case 4:
                del broken[place : place + rng.randrange(1, 16)]
            case 5:
                broken[place:place] = rng.choice(_PIECES)
            case _:
                # most often near the beginning, where the metadata is
                place = min(place, rng.randrange(1024))
                broken[place] = rng.randrange(256)
    return bytes(broken)


_PIECES = (
    b'"', b"\\", b"\\ud800", b"\xed\xa0\x80", b"\xff", b"{", b"[", b"]", b"}", b",", b":", b"\n",
    b"NaN", b"-Infinity", b"1e999", b"9" * 40, b"[" * 2000, b'{"a":' * 1100, b"\xff\xff\xff\xff",
    b'"sensor":"x",', b'"ts":null,', b'{"tocsin":', b"\x00", b"\xef\xbb\xbf",
)  # fmt: skip


def _json(rng: random.Random, city: City) -> Case:
    """Return readings as JSON; rows may be wrong, but each is an object or a value by itself."""
    rows = [_row(rng, city) for _ in range(rng.choice((1, 1, 1, 2, 5, 40)))]
    match rng.randrange(3):
        case 0 if len(rows) == 1:
            return Case(rows[0], "json", 1)
        case 1:
            return Case(b"\n".join(rows), "json", len(rows))
    return Case(b"[" + b",".join(rows) + b"]", "json", len(rows))


def _row(rng: random.Random, city: City) -> bytes:
    row: dict[str, object] = {
        "sensor": rng.choice(city.ids),
        rng.choice(("ts", "ts", "event_ms", "time")): START_MS + rng.randrange(10**6),
        "value": round(rng.gauss(20, 5), rng.randrange(16)),
    }
    if rng.random() < 0.2:
        wrong = rng.choice(
            [
                ("sensor", "nobody"), ("sensor", 5), ("sensor", None), ("sensor", [1]),
                ("value", None), ("value", "x"), ("value", True), ("value", {"deep": [1]}),
                ("quality", 3), ("quality", "bad"), ("quality", 999), ("unit", "℃"),
                ("ts", "2024-05-01T08:00:00+08:00"), ("ts", "soon"), ("note", {"a": [1, 2]}),
                ("value", 1e300), ("value", (1 << 64) - 1), ("ts", -5), ("sensor", 'a"b\\'),
            ]
        )  # fmt: skip
        row[wrong[0]] = wrong[1]
        if rng.random() < 0.2:
            del row["value"]
    return orjson.dumps(row)


def _control(rng: random.Random, city: City) -> Case:
    """Return a control record, right or wrong: either way it holds no reading but itself."""
    tick = {"tocsin": "tick", "event_ms": START_MS + rng.randrange(10**6)}
    match rng.randrange(6):
        case 0:
            tick["event_ms"] = rng.choice([-1, 1 << 60, "x", None, True, 1.5])
        case 1:
            tick["more"] = 1
        case 2:
            tick["tocsin"] = rng.choice(["tock", 1, None, "shelve", "rules", "acknowledge"])
        case 3:
            return Case(_broken(rng, orjson.dumps(tick)), "broken control", None)
    return Case(orjson.dumps(tick), "control", None)


def _noise(rng: random.Random) -> bytes:
    size = rng.choice((0, 1, 4, 20, 200, 3000))
    match rng.randrange(4):
        case 0:
            return rng.randbytes(size)
        case 1:
            return b"\xff\xff\xff\xff" + rng.randbytes(size)
        case 2:
            return rng.choice(_PIECES) * rng.randrange(40)
    return "".join(rng.choices('{}[]",:\\0123456789.eE+- \ntruefalsn', k=size)).encode()


def n_readings(readings: Readings) -> int:
    """Count the records of a batch that are no ticks."""
    return int(np.count_nonzero(readings.sensor != -1))

"""The messages of a fetch: batches, control records, rejects, and every reading in one of them."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import decode_arrow
from engine import messages as wire
from engine.commands import Acknowledge
from engine.controls import NewRules
from engine.messages import Batch, Control, decode_messages
from engine.resolver import Resolver
from kernels.layout import ACKNOWLEDGE, TICK
from tests.engine.histories import DIGEST
from tests.fuzz_messages import START_MS, City, cases, n_readings

IDS = [f"s{k}" for k in range(24)]
SOURCES = [f"site {k}" for k in range(6)]
# two partitions of three sources with four sensors each
BY_ID, BY_SOURCE = Resolver.of(pa.array(IDS)), Resolver.of(pa.array(SOURCES))
CITY = SimpleNamespace(
    digest=DIGEST,
    n_sensors=24,
    n_sources=6,
    sensor_start=np.arange(0, 25, 4),
    partition_start=np.array([0, 3, 6]),
    districts=["north"],
    categories=["gas_well"],
    resolver=lambda: BY_ID,
    source_resolver=lambda: BY_SOURCE,
)
OWN = (0, 12)
TALK = City(DIGEST, IDS)


def arrow(sensor, value=None, time=None, **options) -> bytes:
    n = len(sensor)
    batch = pa.record_batch(
        {
            "sensor": pa.array(sensor, pa.int32() if isinstance(sensor[0], int) else pa.string()),
            "event_ms": pa.array(time if time is not None else range(n), pa.int64()),
            "value": pa.array(value if value is not None else [1.5] * n, pa.float32()),
        }
    ).replace_schema_metadata({"tocsin.catalog": DIGEST})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def rows(*ids: str) -> bytes:
    return orjson.dumps([{"sensor": name, "ts": 7, "value": 1} for name in ids])


def control(kind: str, **keys) -> bytes:
    return orjson.dumps({"tocsin": kind, "event_ms": START_MS, **keys})


def acknowledge(source: str = "site 1") -> bytes:
    return control("acknowledge", source=source, by="duty", note=None, id="a1")


def decoded(payloads, own=OWN, kinds=None):
    return decode_messages(payloads, CITY, sensors=own, kinds=kinds)


def test_messages_of_all_kinds_become_one_batch_with_ticks_as_rows():
    steps, rejected = decoded(
        [arrow([1, 2]), rows("s3"), control("tick"), b"[]", rows("s4", "s5"), arrow(["s6"])]
    )
    assert rejected == []
    [batch] = steps
    assert batch.readings.sensor.tolist() == [1, 2, 3, TICK, 4, 5, 6]
    assert batch.readings.event_ms.tolist() == [0, 1, 7, START_MS, 7, 7, 0]
    assert batch.first == 0
    assert batch.starts.tolist() == [0, 2, 3, 4, 4, 6, 7]


def test_a_control_record_ends_the_batch_before_it():
    text = "version = 1"
    steps, rejected = decoded(
        [rows("s1"), acknowledge(), rows("s2"), control("rules", digest="ab" * 16, text=text)]
    )
    assert rejected == []
    assert [type(step) for step in steps] == [Batch, Control, Batch, Control]
    assert [step.index for step in steps if isinstance(step, Control)] == [1, 3]
    assert steps[1].record == Acknowledge(event_ms=START_MS, id="a1", by="duty", source="site 1")
    assert steps[3].record == NewRules(START_MS, "ab" * 16, text)
    assert (steps[2].first, steps[2].starts.tolist()) == (2, [0, 1])


@pytest.mark.parametrize(
    "payload",
    [
        b'{"tocsin":',
        b'{"tocsin":1}',
        b'{"tocsin":"tick"}',
        b'{"tocsin":"tick","event_ms":-1}',
        b'{"tocsin":"tick","event_ms":true}',
        b'{"tocsin":"tick","event_ms":4102444800000}',
        b'{"tocsin":"tick","event_ms":1,"sensor":"s1"}',
        b'{"tocsin":"tick","event_ms":1}{"tocsin":"tick","event_ms":2}',
        b'{"tocsin":' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"tocsin":"shelve","event_ms":' + b"[" * 1000 + b"]" * 1000 + b"}",
        control("rules", digest="no", text=""),
        control("rules", digest="ab" * 8, text=1),
        control("rules", digest="ab" * 8, text="", by="two\nlines"),
        control("rules", digest="ab" * 8, text="", by=None),
        control("rules", digest="ab" * 8, text="", who="li"),
        control("rules", digest="ab" * 8, text="x" * (1 << 20)),
        control("shelve", source="site 1", by="duty", note=None, id="a1"),
        acknowledge("nowhere"),
        acknowledge("site 4"),
        control(
            "suppress", district="south", by="x", id="1", from_ms=START_MS, until_ms=START_MS + 1
        ),
    ],
)
def test_a_control_record_that_is_not_as_it_must_be_is_refused(payload):
    steps, rejected = decoded([rows("s1"), payload, rows("s1")])
    assert [(each.index, each.reason, each.n, each.rows) for each in rejected] == [
        (1, "bad_control", 1, [])
    ]
    assert len(steps) == 1 and len(steps[0].readings) == 2


def test_readings_of_strangers_are_rejected_with_their_rows_and_count_nowhere_else():
    ids = ["s1", "s20", "nobody", "s2", "s12", "nobody"]
    numbers = [1, 20, 24, 2, 12, -3]
    for payload in (rows(*ids), arrow(ids), arrow(numbers), arrow(ids, compression="zstd")):
        steps, rejected = decoded([rows("s1"), payload, rows("s3")])
        [batch] = steps
        assert batch.readings.sensor.tolist() == [1, 1, 2, 3]
        assert batch.starts.tolist() == [0, 1, 3, 4]
        assert [(each.index, each.reason, each.n, each.rows) for each in rejected] == [
            (1, "unknown_sensor", 2, [2, 5]),
            (1, "other_partition", 2, [1, 4]),
        ]
        steps, _ = decoded([payload], own=(12, 24))
        assert steps[0].readings.sensor.tolist() == [20, 12]


def test_rows_are_numbered_as_they_were_sent():
    payload = arrow(["s1", "x", "x", "s2"], time=[1, None, 2, 3])
    _, rejected = decoded([payload])
    assert [(each.reason, each.rows) for each in rejected] == [
        ("no_time", [1]),
        ("unknown_sensor", [2]),
    ]
    _, rejected = decoded([b"[7," + rows("s1", "x")[1:]])
    assert [(each.reason, each.rows) for each in rejected] == [
        ("not_an_object", [0]),
        ("unknown_sensor", [2]),
    ]


def test_many_strangers_are_counted_and_a_hundred_listed():
    _, [rejected] = decoded([arrow([20] * 1000)])
    assert (rejected.n, rejected.rows) == (1000, list(range(100)))


def test_an_acknowledge_among_readings_must_name_a_source_of_the_partition():
    payload = arrow([ACKNOWLEDGE] * 5, value=[2.0, 3.0, 6.0, 0.5, np.nan])
    [batch], rejected = decoded([payload])
    assert batch.readings.value.tolist() == [2.0]
    assert [(each.reason, each.rows) for each in rejected] == [
        ("unknown_sensor", [2, 3, 4]),
        ("other_partition", [1]),
    ]


def test_the_content_type_goes_before_the_first_bytes():
    payload = rows("s1")
    for kind, reason in (("application/vnd.apache.arrow.stream", "not_arrow"), ("text/x", None)):
        _, rejected = decoded([payload], kinds=[kind])
        assert [each.reason for each in rejected] == ([reason] if reason else [])
    _, [rejected] = decoded([arrow([1])], kinds=["application/json"])
    assert rejected.reason == "not_json"
    assert decoded([None])[1][0].reason == "not_json"


# --- what a message may cost ---------------------------------------------------------------------


def test_a_compressed_message_may_declare_only_so_much(monkeypatch):
    payload = arrow([1] * 100_000, time=[5] * 100_000, compression="zstd")
    assert len(payload) < 40_000
    assert len(decoded([payload])[0][0].readings) == 100_000
    monkeypatch.setattr("engine.arrow_frames.MAX_UNPACKED_BYTES", 1_000_000)
    [rejected] = decoded([payload])[1]
    assert rejected.reason == "too_large"


def test_a_buffer_that_claims_petabytes_is_refused_before_it_is_made():
    payload = bytearray(arrow([1] * 1000, compression="lz4"))
    size = (4 * 1000).to_bytes(8, "little")
    place = payload.index(size, len(payload) // 2)
    payload[place : place + 8] = (1 << 50).to_bytes(8, "little")
    [rejected] = decoded([bytes(payload)])[1]
    assert rejected.reason == "too_large"


def test_a_message_of_many_tiny_batches_is_refused():
    batch = pa.record_batch({"sensor": ["s1"], "event_ms": [1], "value": [1.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(5000):
            writer.write_batch(batch)
    [rejected] = decoded([sink.getvalue().to_pybytes()])[1]
    assert rejected.reason == "too_large"


BIG = 8 << 20
HEAVY = {
    "empty objects": b"[" + b"{}," * (BIG // 3 - 1) + b"0]",
    "numbers": b"[" + b"0," * (BIG // 2 - 1) + b"0]",
    "lines": b"x\n" * (BIG // 2),
    "depth": b"[" * BIG,
    "a long text": b'{"sensor":"' + b"," * (BIG - 40) + b'","ts":1,"value":1}',
    "rows that are wrong": b"[" + b'{"sensor":1.5},' * 250_000 + b"0]",
    "digits": b'{"sensor":"s1","ts":1,"value":' + b"9" * (BIG - 40) + b"}",
    "white space": b" " * BIG,
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_message_is_refused_in_bounded_time(name):
    begin = time.process_time()
    steps, rejected = decoded([HEAVY[name]])
    assert time.process_time() - begin < 5
    assert steps == []
    assert rejected


# --- properties ----------------------------------------------------------------------------------


def records(fetches) -> list[tuple]:
    """Return what the line would see, record by record, and the rejects, by message."""
    seen, first = [], 0
    for payloads in fetches:
        steps, rejected = decoded(payloads)
        for step in steps:
            if isinstance(step, Control):
                seen.append((first + step.index, step.record))
                continue
            assert step.starts[0] == 0 and step.starts[-1] == len(step.readings)
            of = np.repeat(np.arange(len(step.starts) - 1), np.diff(step.starts))
            columns = (
                (first + step.first + of).tolist(),
                step.readings.sensor.tolist(),
                step.readings.event_ms.tolist(),
                step.readings.value.view(np.uint64).tolist(),
                step.readings.quality.tolist(),
            )
            seen += zip(*columns, strict=True)
        seen += [(first + each.index, "rejected", *each[1:4], *each.rows) for each in rejected]
        first += len(payloads)
    # rejects stand beside the records of their message
    return sorted(seen, key=lambda each: each[0])


LOG = [case.payload for case in cases(3, 400, TALK)]
LOG[50::60] = [acknowledge() for _ in LOG[50::60]]


@settings(max_examples=25)
@given(st.sets(st.integers(1, len(LOG) - 1), max_size=40), st.booleans())
def test_any_cut_into_fetches_gives_the_same_records_and_rejects(places, warm):
    if not warm:
        decode_arrow._LAYOUTS = decode_arrow._Memory(4)
        decode_arrow._FACTS = decode_arrow._Memory(4)
    ends = [0, *sorted(places), len(LOG)]
    cut = [LOG[a:b] for a, b in pairwise(ends)]
    assert records(cut) == records([LOG])


def account(seed: int, n: int, per_fetch: int = 50) -> int:
    """Decode fuzzed messages; check that each reading is counted once. Returns how many there were.

    Called in a process of its own, too, which it must not end.
    """
    batch: list = []
    total = 0
    for case in cases(seed, n, TALK):
        batch.append(case)
        if len(batch) == per_fetch:
            total += _account(batch)
            batch = []
    return total + _account(batch)


def _account(fetch) -> int:
    steps, rejected = decode_messages([case.payload for case in fetch], CITY, sensors=OWN)
    found = [0] * len(fetch)
    spoken = [0] * len(fetch)
    for each in rejected:
        found[each.index] += each.n
        spoken[each.index] += 1
        assert each.n >= max(1, len(each.rows)) and len(each.rows) <= 100
        assert each.detail.isprintable() or each.detail == ""
    total = 0
    for step in steps:
        if isinstance(step, Control):
            spoken[step.index] += 1
            continue
        readings = step.readings
        assert len(readings.value) == len(readings.event_ms) == len(readings.quality)
        assert ((readings.sensor >= ACKNOWLEDGE) & (readings.sensor < OWN[1])).all()
        total += n_readings(readings)
        for place, n in enumerate(np.diff(step.starts).tolist()):
            found[step.first + place] += n
            spoken[step.first + place] += n > 0
    for case, n, said in zip(fetch, found, spoken, strict=True):
        if case.n is not None:
            assert n == case.n, (case, n)
        else:
            # whatever it was, it is somewhere, unless it is a message of no rows
            assert said or case.kind.startswith("broken") or not case.payload.strip(), case
    return total


def test_fuzzed_messages_never_end_the_process_and_every_reading_is_counted_once():
    code = "from tests.engine.test_messages import account; print(account(2024, 12_000))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100_000


def test_the_mark_of_control_records_is_the_one_of_commands():
    assert control("tick").startswith(wire.CONTROL_MARK)

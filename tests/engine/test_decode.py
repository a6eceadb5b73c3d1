"""Messages of the wire: what fits becomes readings, the rest is rejected with a reason."""

from __future__ import annotations

import warnings

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import arrow_frames
from engine import decode_arrow as arrows
from engine import decode_json as jsons
from engine.decode import MAX_REJECTS, REASONS, decode, decode_arrow, decode_json
from kernels.layout import ACKNOWLEDGE, TICK, UNKNOWN
from tests.engine.histories import DIGEST, knowing

IDS = [f"s{k}" for k in range(20)]
CITY = knowing(*IDS, n_sources=5)
N = 60
INDEX = np.random.default_rng(5).integers(0, len(IDS), N).astype(np.int32)
TIME = 1_700_000_000_000 + np.arange(N)
VALUE = (np.arange(N) / 8).astype(np.float32)


def batch(**changes: pa.Array | None) -> pa.RecordBatch:
    """Return a dense batch, with columns changed, added or left out (None)."""
    columns = {"sensor": pa.array(INDEX), "event_ms": pa.array(TIME), "value": pa.array(VALUE)}
    columns |= changes
    kept = {name: column for name, column in columns.items() if column is not None}
    return pa.record_batch(kept).replace_schema_metadata({"tocsin.catalog": DIGEST})


def message(of: pa.RecordBatch, *, n: int = 1, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, of.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(n):
            writer.write_batch(of)
    return sink.getvalue().to_pybytes()


NAMES = pa.array([IDS[index] for index in INDEX])
MESSAGES = {
    "dense": batch(),
    "text": batch(sensor=NAMES),
    "large text": batch(sensor=NAMES.cast(pa.large_string())),
    "text view": batch(sensor=NAMES.cast(pa.string_view())),
    "dictionary": batch(sensor=NAMES.dictionary_encode()),
    "timestamps": batch(event_ms=pa.array(TIME).cast(pa.timestamp("ms")).cast(pa.timestamp("ns"))),
    "float64": batch(value=pa.array(VALUE).cast(pa.float64())),
    "whole numbers": batch(value=pa.array(VALUE * 8).cast(pa.int16())),
    "quality": batch(quality=pa.array(np.arange(N) % 3, pa.uint8())),
    "another column": batch(note=pa.array([[1, 2]] * N)),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_every_form_of_a_message_gives_the_same_readings(kind, compression):
    of = MESSAGES[kind]
    for source in (message(of, compression=compression), of):
        found = decode_arrow(source, CITY)
        assert found.rejects == []
        assert found.readings.sensor.tolist() == INDEX.tolist()
        assert found.readings.event_ms.tolist() == TIME.tolist()
        scale = 8 if kind == "whole numbers" else 1
        assert found.readings.value.tolist() == (VALUE * scale).tolist()
        expected = np.arange(N) % 3 if kind == "quality" else np.zeros(N)
        assert found.readings.quality.tolist() == expected.tolist()


def test_columns_that_fit_are_not_copied():
    of = MESSAGES["float64"]
    found = decode_arrow(of, CITY).readings
    assert found.sensor.ctypes.data == of.column("sensor").buffers()[1].address
    assert found.event_ms.ctypes.data == of.column("event_ms").buffers()[1].address
    assert found.value.ctypes.data == of.column("value").buffers()[1].address


def test_several_batches_of_a_message_are_one():
    found = decode(message(batch(), n=3), CITY)
    assert found.readings.sensor.tolist() == INDEX.tolist() * 3
    assert len(decode(message(batch().slice(0, 0)), CITY).readings) == 0


def test_unknown_sensors_and_impossible_times_stay_in_the_log_for_the_line_to_count():
    found = decode_arrow(batch(sensor=pa.array(["s0", "nobody", None, "s1"] * (N // 4))), CITY)
    assert found.readings.sensor[:4].tolist() == [0, UNKNOWN, UNKNOWN, 1]
    dense = np.array([0, 20, -4, TICK, ACKNOWLEDGE, (1 << 31) - 1] * (N // 6), np.int32)
    found = decode_arrow(batch(sensor=pa.array(dense)), CITY)
    assert found.readings.sensor[:3].tolist() == [0, UNKNOWN, UNKNOWN]
    assert found.readings.sensor[3] == TICK
    assert found.readings.sensor[5] == UNKNOWN
    extreme = np.full(N, (1 << 63) - 1)
    assert decode_arrow(batch(event_ms=pa.array(extreme)), CITY).readings.event_ms[0] == extreme[0]
    assert found.rejects == []


def test_an_acknowledge_must_name_a_source():
    values = [4.0, 5.0, 0.5, np.nan, -1.0] * (N // 5)
    of = batch(sensor=pa.array([ACKNOWLEDGE] * N, pa.int32()), value=pa.array(values))
    found = decode_arrow(of, CITY).readings.sensor[:5].tolist()
    assert found == [ACKNOWLEDGE, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]


def test_null_values_are_no_numbers_and_null_qualities_good():
    of = batch(
        value=pa.array([None, 2.0] * (N // 2)), quality=pa.array([None, 3] * (N // 2), pa.uint8())
    )
    readings = decode_arrow(of, CITY).readings
    assert np.isnan(readings.value[0])
    assert readings.quality[:2].tolist() == [0, 3]


def test_a_reading_without_a_time_is_rejected_with_its_row():
    time = [None if row == 5 else row for row in range(N)]
    found = decode(message(batch(event_ms=pa.array(time)), n=2), CITY)
    assert [(reject.reason, reject.row) for reject in found.rejects] == [
        ("no_time", 5),
        ("no_time", N + 5),
    ]
    assert len(found.readings) == 2 * N - 2


def test_a_message_lists_so_many_rejects_and_counts_the_rest():
    found = decode(message(batch(event_ms=pa.array([None] * N, pa.int64())), n=5), CITY)
    assert len(found.readings) == 0
    assert len(found.rejects) == MAX_REJECTS + 1
    assert found.rejects[-1].detail == f"{5 * N - MAX_REJECTS} more rows were rejected"
    rows = orjson.dumps([1] * (MAX_REJECTS + 7))
    assert decode_json(rows, CITY).rejects[-1].detail == "7 more rows were rejected"


@pytest.mark.parametrize(
    ("of", "reason", "detail"),
    [
        (batch(value=None), "wrong_schema", "no column 'value'"),
        (batch(value=pa.array(["x"] * N)), "wrong_schema", "value: must be numbers, not string"),
        (batch(event_ms=pa.array(["x"] * N)), "wrong_schema", "event_ms: must be int64 or a tim"),
        (batch(sensor=pa.array(INDEX.astype(np.int64))), "wrong_schema", "sensor: must be int32"),
        (batch(quality=pa.array(["x"] * N)), "wrong_schema", "quality: must be uint8"),
        (batch().replace_schema_metadata({}), "wrong_catalog", "without 'tocsin.catalog'"),
        (
            batch().replace_schema_metadata({"tocsin.catalog": "other"}),
            "wrong_catalog",
            f"of catalog 'other', not '{DIGEST}'",
        ),
        (
            pa.RecordBatch.from_arrays(
                [*batch().columns, pa.array(VALUE)], ["sensor", "event_ms", "value", "value"]
            ),
            "wrong_schema",
            "2 columns are called 'value'",
        ),
    ],
)
def test_a_message_of_another_schema_or_catalog_is_rejected_whole(of, reason, detail):
    for source in (of, message(of)):
        found = decode_arrow(source, CITY)
        assert len(found.readings) == 0
        assert [reject.reason for reject in found.rejects] == [reason]
        assert detail in found.rejects[0].detail


def test_a_message_with_too_many_bytes_or_rows_is_rejected_unread(monkeypatch):
    monkeypatch.setattr(arrows, "_LAYOUTS", arrows._Memory(1))  # earlier tests taught it this one
    monkeypatch.setattr(arrow_frames, "MAX_ROWS", N - 1)
    monkeypatch.setattr(arrows, "MAX_ROWS", N - 1)
    assert decode(message(batch()), CITY).rejects[0].reason == "too_large"
    assert decode_arrow(batch(), CITY).rejects[0].reason == "too_large"
    monkeypatch.setattr(jsons, "MAX_JSON_ROWS", N - 1)
    assert decode_json(orjson.dumps([0] * N), CITY).rejects[0].reason == "too_large"
    monkeypatch.setattr(arrows, "MAX_ARROW_BYTES", 100)
    monkeypatch.setattr(jsons, "MAX_JSON_BYTES", 100)
    assert decode(message(batch()), CITY).rejects[0].reason == "too_large"
    assert decode_json(b" " * 101, CITY).rejects[0].reason == "too_large"


def test_mutated_arrow_messages_never_end_the_process():
    rng = np.random.default_rng(11)
    whole = [message(of) for of in MESSAGES.values()]
    whole += [message(batch(), compression="zstd"), message(MESSAGES["text"], compression="lz4")]
    for _ in range(6000):
        broken = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 9)):
            place = int(rng.integers(len(broken)))
            match rng.integers(4):
                case 0:
                    broken[place:] = b""
                case 1:
                    word = rng.choice([0, -1, 1 << 62, 1 << 31, 7])
                    start = place // 8 * 8
                    broken[start : start + 8] = int(word).to_bytes(8, "little", signed=True)
                case _:
                    broken[place] = rng.integers(256)
            if not broken:
                break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            readings, rejects = decode(bytes(broken), CITY)
        assert ((readings.sensor < len(IDS)) & (readings.sensor >= UNKNOWN)).all()
        assert {reject.reason for reject in rejects} <= set(REASONS)
        assert all("\n" not in reject.detail for reject in rejects)
        # every column can be read to its end
        assert len(readings.value.tobytes()) == 8 * len(readings)
        assert len(readings.event_ms.tobytes()) == 8 * len(readings)


# --- JSON ----------------------------------------------------------------------------------------

ROW = {"sensor": "s3", "ts": 1_714_521_600_000, "value": 2.5, "quality": 1}


@pytest.mark.parametrize(
    "payload",
    [
        orjson.dumps(ROW),
        orjson.dumps([ROW]),
        orjson.dumps(ROW) + b"\n",
        orjson.dumps({**ROW, "ts": "2024-05-01T08:00:00+08:00"}),
        orjson.dumps({**ROW, "ts": "2024-05-01T00:00:00"}),
        orjson.dumps({**ROW, "ts": None, "event_ms": 1_714_521_600_000.4}),
        b'{"sensor":"s3","time":1714521600000,"value":2.5,"quality":1,"note":{"x":[1]}}',
    ],
)
def test_an_object_an_array_and_lines_are_the_same(payload):
    found = decode(payload, CITY)
    assert found.rejects == []
    readings = found.readings
    assert readings.sensor.tolist() == [3]
    assert readings.event_ms.tolist() == [1_714_521_600_000]
    assert readings.value.tolist() == [2.5]
    assert readings.quality.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"nonsense", "not_json"),
        (b"7", "not_an_object"),
        (b"[" * 1000 + b"]" * 1000, "not_an_object"),
        (b'{"ts":1,"value":1}', "no_sensor"),
        (b'{"sensor":true,"ts":1,"value":1}', "bad_sensor"),
        (b'{"sensor":"s1","value":1}', "no_time"),
        (b'{"sensor":"s1","ts":"soon","value":1}', "bad_time"),
        (b'{"sensor":"s1","ts":true,"value":1}', "bad_time"),
        (b'{"sensor":"s1","ts":1}', "no_value"),
        (b'{"sensor":"s1","ts":1,"value":"1.5"}', "bad_value"),
        (b'{"sensor":"s1","ts":1,"value":' + b"[" * 1000 + b"]" * 1000 + b"}", "bad_value"),
        (b'{"sensor":"s1","ts":1,"value":1,"quality":"good"}', "bad_quality"),
    ],
)
def test_a_row_that_is_no_reading_is_rejected_and_the_others_kept(row, reason):
    good = orjson.dumps(ROW)
    found = decode(b"\n".join([good, row, good]), CITY)
    assert found.readings.sensor.tolist() == [3, 3]
    assert [(reject.reason, reject.row) for reject in found.rejects] == [(reason, 1)]


def test_numbers_beyond_64_bits_and_extreme_times_are_bounded():
    rows = b'[{"sensor":5,"ts":18446744073709551615,"value":18446744073709551616,"quality":999}]'
    found = decode_json(rows, knowing("5"))
    assert found.readings.event_ms.tolist() == [1 << 62]
    assert found.readings.value.tolist() == [2.0**64]
    assert found.readings.quality.tolist() == [1]
    assert found.readings.sensor.tolist() == [0]


def test_null_is_no_number_and_a_switch_is_one():
    rows = orjson.dumps([{**ROW, "value": value} for value in (None, True, False)])
    assert np.array_equal(decode_json(rows, CITY).readings.value, [np.nan, 1, 0], equal_nan=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"sensor": JSON, "ts": JSON, "value": JSON, "quality": JSON}
        )
        | JSON,
        max_size=5,
    ),
    st.integers(0, 200),
)
def test_any_json_gives_each_row_to_the_readings_or_the_rejects(rows, cut):
    payload = orjson.dumps(rows)
    found = decode(payload, CITY)
    assert len(found.readings) + len(found.rejects) == len(rows)
    decode(payload[:cut], CITY)


@given(st.binary(max_size=200))
def test_any_bytes_are_readings_or_rejects(payload):
    found = decode(payload, CITY)
    assert {reject.reason for reject in found.rejects} <= set(REASONS)

"""Feeds of others: what an adapter makes of messages is what it makes of files."""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapt import MAX_FORMS, Feed, adapt
from engine.adapters import parse
from engine.errors import AdapterError
from engine.history import History
from engine.messages import decode_messages
from engine.readings import Readings
from engine.split import split
from kernels.layout import UNKNOWN
from tests.engine.test_decode import message
from tests.engine.test_messages import CITY, TALK
from tests.fuzz_messages import messages

LONG = parse(
    """
    version = 1
    shape = "long"
    sensor = {column = "device", template = "s{sensor}"}
    time = {column = "when", zone = "+08:00"}
    value = {column = "reading"}
    quality = {column = "state", good = ["ok"]}
    units = {reading = {factor = 2.0, offset = 1.0}}
    """
)
WIDE = parse('version = 1\nshape = "wide"\nsensor = {template = "s{column}"}')
NAMED = parse(
    'version = 1\nshape = "wide"\nsensor = {columns = {a = "s1", b = "s2"}, missing = "bad"}'
)
ROWS = {
    "long": [
        {"device": 1, "when": "2024-05-01T08:00:00", "reading": 1.5, "state": "ok", "x": [1]},
        {"device": "2", "when": "2024-05-01T00:00:01Z", "reading": 2, "state": "bad"},
        {"device": 3, "when": "2024-05-01 08:00:02.5", "reading": None, "state": None},
    ],
    "wide": [{"ts": 1000, "1": 1.5, "2": None, "3": 7}, {"ts": 2000, "1": 2, "2": 3, "3": None}],
    "named": [{"ts": 1000, "a": 1.5, "b": 2, "c": "x"}, {"ts": 2000, "a": None, "b": 4}],
}
ADAPTERS = {"long": LONG, "wide": WIDE, "named": NAMED}


def rows_of(readings: Readings) -> list[tuple]:
    value = np.where(np.isnan(readings.value), -999, readings.value)
    columns = (readings.sensor, readings.event_ms, value, readings.quality)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("kind", ROWS)
def test_messages_give_what_a_replay_of_the_same_rows_gives(kind, tmp_path):
    lines = [orjson.dumps(row) for row in ROWS[kind]]
    path = tmp_path / "feed.ndjson"
    path.write_bytes(b"\n".join(lines))
    wanted = []
    for readings in History([path], ADAPTERS[kind], CITY).chunks():
        wanted += rows_of(readings)
    assert len(wanted) >= 3
    kept = [{key: value for key, value in row.items() if key not in "xc"} for row in ROWS[kind]]
    forms = [lines, [b"[" + b",".join(lines) + b"]"], [b"\n".join(lines)]]
    if kind != "long":  # whose ids are of two types
        forms.append([message(pa.Table.from_pylist(kept).to_batches()[0])])
    for payloads in forms:
        found, rejected = adapt(payloads, ADAPTERS[kind], CITY, topic="feed")
        assert rejected == []
        assert rows_of(found) == wanted


def test_rows_that_are_wrong_are_rejected_with_their_place_and_the_others_kept():
    good = {"device": 1, "when": 0, "reading": 1}
    wrong = [
        (7, "not_an_object"),
        ({**good, "device": [1]}, "bad_sensor"),
        ({**good, "device": True}, "bad_sensor"),
        ({**good, "device": 99}, "unknown_sensor"),
        ({**good, "device": None}, "no_sensor"),
        ({**good, "when": "soon"}, "bad_row"),
        ({**good, "when": {}}, "bad_time"),
        ({**good, "when": None}, "no_time"),
        ({**good, "reading": "high"}, "bad_value"),
        ({"device": 1, "reading": 0}, "no_time"),
        ({"when": 1, "reading": 0}, "no_sensor"),
    ]
    for bad, reason in wrong:
        payload = orjson.dumps([good, bad, good, bad])
        readings, rejected = adapt([payload, b"x", payload], LONG, CITY)
        assert len(readings) == 4
        assert [(each.index, each.reason, each.n) for each in rejected] == [
            (0, reason, 2),
            (1, "not_json", 1),
            (2, reason, 2),
        ], bad
        assert rejected[0].rows == [1, 3]
        assert "/feed" not in rejected[0].detail and "row" not in rejected[0].detail


@pytest.mark.parametrize("state", [b"1e300", b"-1e300", b"1" + b"0" * 30, b"18446744073709551615"])
def test_a_quality_that_no_column_holds_is_bad_and_ends_nothing(state):
    adapter = parse(
        'version = 1\nshape = "long"\nsensor = {column = "device", template = "s{sensor}"}\n'
        'time = {column = "ts"}\nvalue = {column = "v"}\nquality = {column = "state"}'
    )
    row = b'{"device":1,"ts":1000,"v":1,"state":%b}' % state
    readings, rejected = Feed(adapter, CITY).adapt([row])
    assert not rejected
    assert rows_of(readings) == [(1, 1000, 1.0, 1)]


def test_a_foreign_topic_can_send_neither_ticks_nor_acknowledges():
    batch = pa.record_batch(
        {
            "sensor": pa.array([-1, -2, UNKNOWN, 3, 24], pa.int32()),
            "event_ms": pa.array(range(5)),
            "value": pa.array([0.0] * 5),
        }
    ).replace_schema_metadata({"tocsin.catalog": CITY.digest})
    readings, [rejected] = adapt([message(batch)], parse('version = 1\nshape = "long"'), CITY)
    assert readings.sensor.tolist() == [3]
    assert (rejected.reason, rejected.n) == ("unknown_sensor", 4)


def test_many_wrong_rows_and_many_forms_are_given_up_on_and_counted():
    times = ["never"] * 5000
    payload = orjson.dumps([{"device": 1, "when": time, "reading": 1} for time in times])
    readings, [rejected] = adapt([payload], LONG, CITY)
    assert len(readings) == 0
    assert (rejected.reason, rejected.n) == ("bad_row", 5000)
    forms = MAX_FORMS + 3
    payload = orjson.dumps(
        [{"ts": 1, **dict.fromkeys(map(str, range(k)))} for k in range(1, forms + 1)]
    )
    _, rejected = adapt([payload], WIDE, CITY)
    assert ("wrong_schema", 3) in [(each.reason, each.n) for each in rejected]


def test_a_row_clock_is_no_adapter_of_a_feed():
    clock = parse(
        'version = 1\nshape = "wide"\ntime = {start = 2024-05-01T00:00:00Z, step_s = 1}\n'
    )
    with pytest.raises(AdapterError, match=r"time\.step_s"):
        Feed(clock, CITY)


LOG = list(messages(9, 100, TALK))


@settings(max_examples=12)
@given(st.sets(st.integers(1, len(LOG) - 1), max_size=10))
def test_any_cut_into_fetches_gives_the_same_readings_and_rejects(places):
    for adapter in (parse('version = 1\nshape = "long"'), WIDE):
        whole, wanted = adapt(LOG, adapter, CITY)
        ends = [0, *sorted(places), len(LOG)]
        found, told = [], []
        for begin, end in zip(ends, ends[1:]):  # noqa: B905, RUF007
            readings, rejected = adapt(LOG[begin:end], adapter, CITY)
            found += rows_of(readings)
            told += [(begin + each.index, *each[1:]) for each in rejected]
        assert found == rows_of(whole)
        assert told == [tuple(each) for each in wanted]


# --- to the partitions ---------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.integers(0, 23),
            st.integers(0, 1 << 40),
            st.floats(width=32) | st.floats(),
            st.sampled_from([0, 0, 0, 3]),
        ),
        max_size=300,
    ),
    st.sampled_from([2100, 4000, 512_000]),
)
def test_what_is_split_is_decoded_by_its_partition_as_it_was(rows, max_bytes):
    readings = Readings.of(*zip(*rows, strict=True)) if rows else Readings.of([], [], [])
    messages = split(readings, CITY, max_bytes=max_bytes)
    for partition, own in enumerate([(0, 12), (12, 24)]):
        payloads = messages.get(partition, [])
        assert all(len(each) <= max_bytes for each in payloads)
        steps, rejected = decode_messages(payloads, CITY, sensors=own)
        assert rejected == []
        mine = readings.where((readings.sensor >= own[0]) & (readings.sensor < own[1]))
        assert rows_of(mine) == (rows_of(steps[0].readings) if steps else [])
    assert messages.keys() <= {0, 1}

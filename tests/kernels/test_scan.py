"""The JSON scanner: what it takes it reads to the bit as the general path, the rest it leaves."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.decode_json import json_rows
from engine.json_scan import scan
from engine.rejects import Rejects
from kernels.rounding import MAX_POWER, MIN_POWER, number_of, rounded
from kernels.scan import scan_messages
from tests.engine.histories import knowing

CITY = knowing("s1", "s2", "传感器", "", "a b")


def columns(readings) -> tuple[list, ...]:
    bits = readings.value.view(np.uint64)
    numbers = np.where(np.isnan(readings.value), np.uint64(0x7FF8 << 48), bits)
    return (
        readings.sensor.tolist(),
        readings.event_ms.tolist(),
        numbers.tolist(),
        readings.quality.tolist(),
    )


def taken(payloads: list[bytes]) -> list[bool]:
    """Check what was scanned against the general path; return which messages were scanned."""
    readings, n_rows = scan(payloads, CITY)
    row = 0
    for payload, n in zip(payloads, n_rows.tolist(), strict=True):
        if n < 0:
            continue
        rejects = Rejects()
        general = json_rows(payload, CITY, rejects).readings
        assert not rejects, (payload, rejects.listed)
        assert columns(readings.cut(row, row + n)) == columns(general), payload
        row += n
    assert row == len(readings)
    return [n >= 0 for n in n_rows.tolist()]


# --- numbers -------------------------------------------------------------------------------------


@given(st.integers(0, 10**18 - 1), st.integers(-340, 330))
@example(9007199254740993, 1)
@example(9007199254740993, -1)
@example(5 * 10**17 + 1, -18)
def test_a_number_is_rounded_as_python_does(mantissa, power):
    found, done = number_of(mantissa, power)
    assert done or power < MIN_POWER or power > MAX_POWER
    if done:
        assert found == float(f"{mantissa}e{power}")


@given(st.integers(1 << 52, (1 << 53) - 1), st.integers(-30, 5), st.integers(-1, 1))
def test_what_lies_halfway_between_two_doubles_goes_to_the_even_one(m, binary, beside):
    # (2m + 1) · 2^binary, written in decimal digits, and its neighbours
    whole = (2 * m + 1) << max(binary, 0)
    power = min(binary, 0)
    digits = whole * 5**-power + beside
    if 0 < digits < 10**18 and power >= MIN_POWER:
        assert rounded(digits, power) == float(f"{digits}e{power}")


@given(st.floats(1e-9, 1e12))
def test_the_shortest_form_of_a_double_gives_it_back(value):
    assert taken([b'{"sensor":"s1","ts":1,"value":%s}' % repr(value).encode()]) == [True]


# --- what it must take ---------------------------------------------------------------------------

SPACE = st.sampled_from(["", " ", "\t", "  ", "\r\n", "\n"])
IDS = st.sampled_from(["s1", "s2", "传感器", "", "a b", "nobody", "s1]", "{,"])
TIMES = (
    st.integers(-(10**17), 10**17).map(str)
    | st.datetimes().map(lambda t: f'"{t.isoformat()}"')
    | st.datetimes().map(lambda t: f'"{t.isoformat(sep=" ", timespec="milliseconds")}Z"')
    | st.datetimes().map(lambda t: f'"{t.isoformat(timespec="seconds")}-07:30"')
    | st.sampled_from(
        [
            '"2024-02-29T00:00:00Z"',
            '"2023-02-29T00:00:00Z"',
            '"2024-02-30T00:00:00Z"',
            '"2024-13-01T00:00:00Z"',
            '"2024-01-01T24:00:00Z"',
            '"1970-01-01T00:00:00.999999+23:59"',
            '"2024-01-01T00:00:00.1Z"',
            '"2024-01-01T00:00:00.1234567891Z"',
            '"2024-01-01T00:00:00.123456789+0800"',
            '"2024-01-01T00:00:00,5Z"',
            '"20240101T000000Z"',
            '"2024-01-01"',
            '"2024-01-01T00:00:00+24:00"',
            "1.5",
            "-0",
            "null",
            "1e3",
        ]
    )
)
VALUES = (
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers(-(10**20), 10**20).map(str)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.sampled_from(
        [
            "null",
            "true",
            "false",
            "NaN",
            "-",
            "01",
            "1.",
            ".5",
            "+1",
            '"1"',
            "-0",
            "-0.0",
            "0e9",
            "1e400",
            "1e-400",
            "Infinity",
            "[1]",
            "nul",
            "truex",
            "0x1",
            "1_0",
        ]
    )
)
QUALITIES = st.sampled_from(["0", "1", "255", "256", "-1", "-0", "null", "1.0", "true", '"good"'])


@st.composite
def objects(draw) -> str:
    pairs = [
        ("sensor", draw(IDS.map(lambda name: f'"{name}"') | st.sampled_from(["7", "null"]))),
        (draw(st.sampled_from(["ts", "event_ms", "time"])), draw(TIMES)),
        ("value", draw(VALUES)),
    ]
    if draw(st.booleans()):
        pairs.append(("quality", draw(QUALITIES)))
    if draw(st.booleans()):
        other = st.sampled_from(["unit", "sensors", "va", "event_m", "", "qualitys", "ts", "单位"])
        pairs.append((draw(other), draw(VALUES | TIMES)))
    order = draw(st.permutations(pairs))
    gap = draw(SPACE)
    inner = f"{gap},{gap}".join(f'"{key}"{gap}:{gap}{value}' for key, value in order)
    return f"{{{gap}{inner}{gap}}}"


@st.composite
def messages(draw) -> bytes:
    rows = draw(st.lists(objects(), max_size=4))
    gap = draw(SPACE)
    form = draw(st.integers(0, 2))
    text = f"[{gap}{f'{gap},'.join(rows)}{gap}]" if form else f"{gap}\n{gap}".join(rows)
    payload = f"{gap}{text}{gap}".encode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        place = draw(st.integers(0, max(0, len(payload) - 1)))
        payload = payload[:place] + draw(st.binary(max_size=2)) + payload[place + 1 :]
    return payload


@given(st.lists(messages() | st.binary(max_size=40), max_size=6))
def test_what_is_scanned_is_read_as_the_general_path_reads_it(payloads):
    taken(payloads)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sensor":"s1","ts":1,"value":2}',
        b'\n{"value" : -2.5e-3 , "quality":0,\r\n"time":"2024-05-01T08:00:00+08:00","sensor":""}\t',
        b"[]",
        b" [ ] ",
        b'[{"sensor":"s1","ts":1,"value":2},{"sensor":"s2","event_ms":2,"value":null}]',
        b'{"sensor":"s1","ts":1,"value":2}\n{"sensor":"s2","ts":1,"value":2}\r\n\n',
        b'{"sensor":"s1","ts":"2024-05-01 08:00:00.1","value":true,"unit":"m","x":-1e9,"y":null}',
        '{"sensor":"传感器","ts":1,"value":0.1234567890123456}'.encode(),
        b'{"sensor":"s1","ts":1,"value":123456789012345678}',
    ],
)
def test_a_regular_message_is_scanned(payload):
    assert taken([payload]) == [True]
    assert taken([b"{", payload, b"", payload]) == [False, True, False, True]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"sensor":"s1","ts":1}',
        b'{"sensor":"s1","ts":1,"value":2,"value":3}',
        b'{"sensor":"s1","ts":1,"time":1,"value":2}',
        b'{"sensor":"s\\u0031","ts":1,"value":2}',
        b'{"sensor":"s1","ts":1,"value":2}{"sensor":"s1","ts":1,"value":2}',
        b'{"sensor":"s1","ts":1,"value":2} {"sensor":"s1","ts":1,"value":2}\n',
        b'{"sensor":"s1",\n"ts":1,"value":2}\n{"sensor":"s1","ts":1,"value":2}',
        b'{"sensor":"s1","ts":1,"value":2}\n{"sensor":"s1",\n"ts":1,"value":2}',
        b'{"sensor":"s1","ts":1,"value":2}\r{"sensor":"s1","ts":1,"value":2}',
        b'[{"sensor":"s1","ts":1,"value":2},]',
        b'[{"sensor":"s1","ts":1,"value":2}',
        b'[{"sensor":"s1","ts":1,"value":2}]x',
        b'{"sensor":"s1","ts":1,"value":2,}',
        b'{"sensor":"\xff","ts":1,"value":2}',
        b'{"sensor":"\xed\xa0\x80","ts":1,"value":2}',
        b'{"sensor":"s1\n","ts":1,"value":2}',
        b'{"sensor":"s1","ts":1,"value":NaN}',
        b'{"sensor":"s1","ts":1,"value":1234567890123456789}',
        b'{"sensor":"s1","ts":1,"value":2,"x":{}}',
    ],
)
def test_an_irregular_message_is_left_to_the_general_path(payload):
    assert taken([payload]) == [False]


@given(st.integers(0, 300))
def test_a_message_cut_anywhere_is_never_read_beyond_its_end(cut):
    payload = b'[{"sensor":"s1","ts":"2024-05-01T08:00:00.123+08:00","value":-1.5e-3,"quality":1},'
    whole = payload + payload[1:-1] + b"]"
    assert taken([whole[:cut], whole]) == [cut >= len(whole), True]


def test_room_and_bounds_are_checked_before_anything_is_written():
    payload = orjson.dumps([{"sensor": "s1", "ts": 1, "value": 1.0}] * 4)
    octets = np.frombuffer(payload + b"\n" + bytes(8), np.uint8)
    out = [np.zeros(3, kind) for kind in (np.int64, np.int64, np.int64, np.float64, np.uint8)]
    starts = [[0, len(payload) + 1], [-9, 4], [5, 2], [0, 1 << 62], [0, len(octets) + 1]]
    for start in starts:
        n_rows = np.zeros(1, np.int64)
        bounds = np.array(start, np.int64)
        wide = np.zeros(1, np.bool_)
        assert scan_messages(octets, bounds, wide, 1 << 18, n_rows, *out) == 0
        assert n_rows.tolist() == [-1]

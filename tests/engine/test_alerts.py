"""Alert records are, byte for byte, what the slow way of writing them gives."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import alert_parts
from engine.alerts import AlertRecords
from engine.carry_out import Trace
from engine.commands import OutOfService
from engine.plan import Plan, compile_plan
from engine.rules import Rules
from engine.traces import encode_trace
from kernels.layout import (
    BY_RULE,
    CAUSE_NAMES,
    CLEAR,
    DE_ESCALATE,
    ESCALATE,
    KIND_NAMES,
    N_KINDS,
    RAISE,
    TRANSITION,
    WINDOW,
)
from tests.oracle.alerts import SlowRecords
from tests.strategies import tiny_catalog

RULES = """
version = 1
time.utc_offset = "+05:30"
[profiles.methane]
unit = "%LEL"
limits.high = { blue = 0.7, yellow = 10, red = 50.1 }
limits.low = { yellow = 0.1, red = -3 }
rate = { rise = { blue = 2, red = 7.3 }, fall = { yellow = 0.1 }, per = "h", window_s = 60 }
deviation = { raise_at = { blue = 4, red = 9.9 }, min_sigma = 0.5 }
drift = { raise_at = { yellow = 8 } }
liveness = { absent_after = 3, flat_after_n = 60, bad_after_n = 5, spike_at = 20.2 }
[[profiles.methane.windows]]
name = 'the "mean" \\\\ of a minute'
length_s = 60
aggregate = "mean"
high = { blue = 0.3, red = 90 }
low = { blue = 0.1 }
[[profiles.methane.windows]]
name = "how many"
length_s = 60
aggregate = "count"
low = { yellow = 3 }
[profiles.water_level]
unit = "cm"
limits.high = { blue = 1500.5 }
liveness.absent_after = 1.5
[profiles.duration_of_stay]
unit = "s"
limits.high = { blue = 100, red = 90000 }
[[rules]]
name = 'a "quoted" rule, ü'
all = ["methane.high >= blue"]
level = "red"
[[rules]]
name = "plain"
all = ["methane.low >= yellow"]
level = "blue"
"""
ROUTES = """
[[routes]]
name = "reds"
levels = ["red"]
[[routes]]
name = "gas"
departments = ["Gas"]
levels = ["yellow", "orange", "red"]
[[routes]]
name = "south-wells"
categories = ["well"]
districts = ["south"]
"""
REST = '[[routes]]\nname = "desk"\ndefault = true\n'


def strange_plan(routes: str = "") -> Plan:
    """Return a plan of four sources with names that JSON must escape, and of every detector."""
    sources = [
        ('w"1\\', "well", "red", "south", "Gas"),
        ("w2", "well", "none", None, "Works"),
        ("工厂\n3", "factory", "blue", 'nor"th', None),
        ("bare", "mall \\ shop", "yellow"),
    ]
    sensors = [
        ('m"1', sources[0][0], "methane", "%LEL"),
        ("m2", sources[0][0], "methane", "%vol", 0.7),
        ("l1", "w2", "water_level", "mm", 61.0),
        ("m3", sources[2][0], "methane", "%LEL"),
        ("s1", sources[2][0], "duration_of_stay", "min"),
        ("x\t", "bare", "smoke", "%/m"),
    ]
    site = {"water_level": "m", "duration_of_stay": "s"}
    catalog = tiny_catalog(sources, sensors, site_quantities=site)
    catalog.name = pa.array(["Well “1”", "w2", "", "\x1f \\"], pa.large_string())
    return compile_plan(catalog, Rules.parse(RULES + routes))


PLANS = [strange_plan(), strange_plan(ROUTES), strange_plan(REST + ROUTES)]
NUMBERS = (0.0, -0.0, 0.7, 0.1, 0.3, 10.0, 9.999999, 25.123456789, 999.95, 1000.0, 1234567.0, 1e16)
STRANGE = (math.nan, math.inf, -math.inf, 1e300, -1e300, 5e-324, 1e-5, 90000.0, -3.0, 50.1)


def random_value(rng: Random, limits: list[float]) -> float:
    value = rng.choice([*NUMBERS, *STRANGE, *limits, *limits, rng.uniform(-100, 2000)])
    if rng.random() < 0.5:
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    return rng.choice([value, value, math.nextafter(value, 0.0), -value])


def random_transition(rng: Random, plan: Plan) -> np.ndarray:
    """Return one TRANSITION that says anything its fields may say, sensible or not."""
    t = np.zeros(1, TRANSITION)[0]
    kind = rng.choice([RAISE, ESCALATE, DE_ESCALATE, CLEAR])
    t["event_ms"] = rng.choice([0, 86_399_999, 1_767_225_599_999, rng.randrange(4 * 10**12)])
    t["episode_ms"] = rng.randrange(4 * 10**12)
    percents = [0.25, 33.3333, 0.04, 0.05, 0.95, 1.05, 99.95, 100.0, 50.5, 49.5]
    t["score"] = rng.choice([*percents, rng.uniform(0, 100)])
    t["factor"] = rng.choice([1.0, 1.2 * 1.3, rng.uniform(0, 10), 1e-5])
    t["coupled_percent"] = rng.choice([0.0, 0.999, 1.0, rng.uniform(0, 100)])
    t["source"] = rng.randrange(4)
    t["coupled_from"] = rng.choice([-1, 0, 1, 2, 3])
    t["rule"] = rng.choice([-1, 0, 1])
    t["seq"] = rng.choice([0, 1, 2**32 - 1])
    t["kind"], t["late"] = kind, rng.randrange(2)
    t["level_from"], t["level"] = rng.randrange(5), rng.randrange(5)
    t["standing"] = rng.choice([t["level"], rng.randrange(5)])
    t["reached"] = rng.randrange(16) * 2
    t["cause"] = rng.choice([cause for cause in range(len(CAUSE_NAMES)) if cause != BY_RULE])
    if t["rule"] >= 0 and rng.random() < 0.3:
        t["cause"] = BY_RULE
    t["contributor"]["sensor"] = -1
    for part in t["contributor"][: rng.randrange(4)]:
        part["sensor"] = sensor = rng.randrange(6)
        part["kind"] = rng.randrange(N_KINDS + 1)
        row = int(plan.row[sensor])
        if part["kind"] == WINDOW:
            if not plan.params["n_windows"][row]:
                part["kind"] = 0
            part["window"] = rng.randrange(max(1, int(plan.params["n_windows"][row])))
        part["level"] = rng.randrange(5)
        limits = [
            plan.limit(row, int(part["kind"]) % N_KINDS, level, int(part["window"]), value=side)
            for level in range(1, 5)
            for side in (-math.inf, math.inf)
        ]
        scale, _ = plan.statistic(row, int(part["kind"]) % N_KINDS, 1.0, int(part["window"]))
        part["value"] = random_value(rng, [x for x in limits if math.isfinite(x)] or [0.0]) / scale
        part["percent"] = rng.choice([100.0, 25.0, 2.5, 0.05, rng.uniform(0, 100)])
    return t


def random_transitions(rng: Random, plan: Plan, n: int) -> np.ndarray:
    return np.array([random_transition(rng, plan) for _ in range(n)], TRANSITION)


def assert_same_records(plan: Plan, transitions: np.ndarray, records: AlertRecords) -> None:
    found, expected = records.encode(transitions), SlowRecords(plan).encode(transitions)
    for one, other in zip(found, expected, strict=True):
        assert one == other, f"\nfast {one.decode()}\nslow {other.decode()}"


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from(range(len(PLANS))), st.integers(0, 12))
def test_records_are_those_of_the_slow_way(seed: int, which: int, n: int) -> None:
    plan = PLANS[which]
    transitions = random_transitions(Random(seed), plan, n)
    assert_same_records(plan, transitions, AlertRecords(plan))


def test_every_detector_and_what_fades_is_met_by_the_comparison() -> None:
    transitions = random_transitions(Random(3), PLANS[0], 2000)
    parts = transitions["contributor"][transitions["contributor"]["sensor"] >= 0]
    assert {*parts["kind"].tolist()} == {*range(N_KINDS + 1)}
    assert_same_records(PLANS[0], transitions, AlertRecords(PLANS[0]))
    text = b"\n".join(AlertRecords(PLANS[0]).encode(transitions))
    for name in KIND_NAMES:
        assert f'"detector":"{name}"'.encode() in text
    for words in (b"not yet cleared from", b"fading", b"an unknown value", b"influenced by"):
        assert words in text


def test_records_are_the_same_however_transitions_are_cut_and_however_little_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = PLANS[1]
    transitions = random_transitions(Random(5), plan, 300)
    whole = AlertRecords(plan).encode(transitions)
    monkeypatch.setattr(alert_parts, "MOST_KNOWN", 2)
    forgetful = AlertRecords(plan)
    assert [record for t in transitions for record in forgetful.encode(t[None])] == whole
    assert forgetful.encode(transitions) == whole


def test_keys_are_the_ids_of_the_sources() -> None:
    plan = PLANS[0]
    transitions = random_transitions(Random(7), plan, 50)
    records = AlertRecords(plan)
    keys = records.write(transitions)[0]
    assert keys == [orjson.loads(r)["source"].encode() for r in records.encode(transitions)]
    assert records.write(transitions[:0]) == ([], [])
    assert records.encode(transitions[:0]) == []


# --- routes --------------------------------------------------------------------------------------


def told(plan: Plan, source: int, *levels: int) -> list[list[str]]:
    """Return the routes of each alert of an episode that goes through some levels."""
    transitions = np.zeros(len(levels), TRANSITION)
    reached = 0
    for t, (before, level) in zip(
        transitions, zip((0, *levels), levels, strict=False), strict=True
    ):
        reached |= (1 << level) & ~1
        t["source"], t["level_from"], t["level"], t["reached"] = source, before, level, reached
        t["coupled_from"] = t["rule"] = -1
        t["contributor"]["sensor"] = -1
    return [orjson.loads(record)["routes"] for record in AlertRecords(plan).encode(transitions)]


#   level    3 orange            ┌────┐
#            2 yellow       ┌────┘    └────┐
#            1 blue    ┌────┘              │
#            0 normal ─┘                   └────
#   reds                                            only red: hears nothing
#   gas                     2    3    2    0        from yellow on, the end too
#   the rest           1    2    3    2    0        was told of blue: to the end
def test_who_was_told_of_an_episode_hears_all_that_becomes_of_it() -> None:
    catalog = tiny_catalog([("f", "mall", "none", None, "Gas")], [("m", "f", "methane", "%LEL")])
    plan = compile_plan(catalog, Rules.parse(RULES + ROUTES))
    both = ["gas", "default"]
    assert told(plan, 0, 1, 2, 3, 2, 0) == [["default"], both, both, both, both]
    assert told(plan, 0, 4, 1, 0) == [["reds", "gas"], *[["reds", "gas", "default"]] * 2]
    assert told(plan, 0, 2, 4, 0) == [["gas"], ["reds", "gas"], ["reds", "gas"]]


def test_a_route_takes_what_fits_all_of_its_conditions() -> None:
    plan: Any = PLANS[1]
    assert told(plan, 0, 1) == [["south-wells"]]
    assert told(plan, 1, 1) == [["default"]]
    assert told(plan, 0, 4, 0) == [["reds", "gas", "south-wells"]] * 2
    assert told(plan, 2, 4) == [["reds"]]


def test_the_rest_goes_to_the_route_that_is_declared_for_it() -> None:
    assert told(PLANS[2], 1, 1, 4, 0) == [["desk"], ["desk", "reds"], ["desk", "reds"]]
    assert told(PLANS[0], 1, 1, 0) == [["default"]] * 2


def test_a_command_is_told_to_those_who_were_told_of_the_episode() -> None:
    records = AlertRecords(PLANS[1])
    command = OutOfService(event_ms=1000, by="Li", note=None, id="1", source='w"1\\')
    shown = Trace(1000, source=0, level=1, score=25.0, seq=2, episode_ms=7, reached=0b10010)
    record = orjson.loads(encode_trace(records, command, shown))
    assert record["routes"] == ["reds", "gas", "south-wells"]
    assert (record["source"], record["alert_id"]) == ('w"1\\', 'w"1\\@7')
    assert record["time"] == "1970-01-01T05:30:01.000+05:30"
    (alert,) = records.encode(random_transitions(Random(1), PLANS[1], 60)[:1])
    alerted = orjson.loads(alert)
    assert record["place"].keys() == alerted["place"].keys()
    assert list(record["responsible"]) == list(alerted["responsible"])
    assert orjson.loads(encode_trace(records, command, Trace(1000, source=0)))["routes"] == [
        "default"
    ]

"""Scores of many settings: those of `engine.truth.score`, one setting and level after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import kpi, scoring
from engine.analysis.steps import Tried
from engine.catalog import Catalog
from engine.errors import InputError
from engine.truth import LEVELS, Incident
from engine.truth import score as slow_score
from kernels.layout import LEVEL_NAMES, STEP
from tests.analysis.alert_worlds import BEGIN_MS, N_SOURCES, UNITS_MS, catalog_of, many, times
from tests.analysis.slow_figures import Change, steps_of

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("scoring"))


def of_settings(*each: list[Change], last_ms: int = HOUR_MS) -> Tried:
    """Return what was tried: changes of each setting, at times from 0."""
    parts = [steps_of(changes) for changes in each]
    return Tried(
        n=len(each),
        common=np.zeros(0, STEP),
        own=np.concatenate([np.zeros(0, STEP), *parts]),
        starts=np.cumsum([0, *map(len, parts)]),
        first_ms=0,
        last_ms=last_ms,
        n_readings=1,
    )


def records(steps: np.ndarray, sources: list[str]) -> list[dict[str, Any]]:
    """Return what an alert log says of the steps."""
    return [
        {
            "source": sources[step["source"]],
            "event_ms": int(step["event_ms"]),
            "level": LEVEL_NAMES[step["level"]],
        }
        for step in steps
    ]


@st.composite
def incidents_of(draw: st.DrawFn, unit_ms: int) -> list[Incident]:
    """Draw incidents, some at one source, some inside one another."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        start_ms = BEGIN_MS + unit_ms * draw(st.integers(-5, 40))
        found.append(
            Incident(
                source=f"s{draw(st.sampled_from([0, 0, 1, N_SOURCES - 1])):02}",
                start_ms=start_ms,
                end_ms=start_ms + unit_ms * draw(st.sampled_from([0, 1, 3, 10, 40])),
                kind="leak",
                level=draw(st.sampled_from(LEVELS)),
            )
        )
    return found


@settings(max_examples=60)
@given(st.data())
def test_every_score_is_that_of_the_settings_alert_log(
    catalog: Catalog, data: st.DataObject
) -> None:
    unit_ms = data.draw(st.sampled_from(UNITS_MS))
    tried, seen = data.draw(many(unit_ms))
    since_ms, until_ms = data.draw(times(seen, unit_ms))
    incidents = data.draw(incidents_of(unit_ms))
    how: Any = {
        "since_ms": since_ms,
        "until_ms": until_ms,
        "lead_s": data.draw(st.sampled_from([0, 1, 2])) * unit_ms / 1000,
        "grace_s": data.draw(st.sampled_from([0, 1, 2])) * unit_ms / 1000,
    }
    scores = scoring.score(tried, incidents, catalog, **how)
    rows = scores.table().to_pylist()
    sources = catalog.source_id.to_pylist()
    for setting, row in enumerate(rows):
        log = records(tried.of(setting), sources)
        for k, level in enumerate(LEVELS):
            one = slow_score(log, incidents, level=level, n_sources=catalog.n_sources, **how)
            delays = [each.delay_ms for each in one.found]
            assert [each.incident for each in one.detections] == list(scores.incidents)
            assert scores.delay_ms[setting, :, k].tolist() == [
                -1 if each.delay_ms is None else each.delay_ms for each in one.detections
            ]
            assert [LEVEL_NAMES[p] for p in scores.peak[setting]] == [
                each.peak for each in one.detections
            ]
            expected = {
                "incidents": len(one.detections),
                f"found_{level}": len(one.found),
                f"missed_{level}": len(one.missed),
                f"enough_{level}": sum(each.enough for each in one.detections),
                f"delay_median_s_{level}": one.median_delay_s,
                f"delay_worst_s_{level}": max(delays) / 1000 if delays else None,
                f"delay_p90_s_{level}": slow_p90(delays) / 1000 if delays else None,
                f"episodes_{level}": len(one.episodes),
                f"false_{level}": len(one.false),
                f"false_per_source_day_{level}": one.false_per_source_day,
                f"false_per_sensor_day_{level}": one.false_per_day / catalog.n_sensors,
            }
            assert {name: row[name] for name in expected} == expected


def slow_p90(delays: list[int]) -> int:
    return min(d for d in delays if 10 * sum(other <= d for other in delays) >= 9 * len(delays))


def leak(start_s: int, end_s: int, source: str = "s00") -> Incident:
    return Incident(source=source, start_ms=1000 * start_s, end_ms=1000 * end_s, kind="leak")


def test_settings_that_find_later_have_the_greater_delay(catalog: Catalog) -> None:
    tried = of_settings(
        [(100_000, 0, 2), (200_000, 0, 0)],
        [(130_000, 0, 2), (200_000, 0, 0)],
        [(130_000, 0, 1), (200_000, 0, 0)],
        [(201_000, 0, 2), (300_000, 0, 0)],
    )
    scores = scoring.score(tried, [leak(90, 200)], catalog)
    yellow = LEVELS.index("yellow")
    assert scores.delay_ms[:, 0, yellow].tolist() == [10_000, 40_000, -1, -1]
    assert scores.false_alarms[:, yellow].tolist() == [0, 0, 0, 1]
    assert scores.late(30, "yellow").tolist() == [0, 1, 1, 1]
    assert scores.late(40, "yellow").tolist() == [0, 0, 1, 1]
    assert scores.late(40, "blue").tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="level: must be one of blue"):
        scores.late(40, "normal")


def test_incidents_at_unknown_sources_are_all_named(catalog: Catalog) -> None:
    given = [leak(1, 2), leak(1, 2, "well-x"), leak(3, 4, "well-x"), leak(1, 2, "well-y")]
    with pytest.raises(InputError) as raised:
        scoring.score(of_settings([]), given, catalog)
    assert str(raised.value).splitlines() == [
        "the truth has incidents at 2 sources that the catalog does not have",
        "source: is not in the catalog, got 'well-x'",
        "source: is not in the catalog, got 'well-y'",
    ]


def test_no_incidents_make_every_alarm_false(catalog: Catalog) -> None:
    tried = of_settings([(100_000, 0, 2), (200_000, 0, 0)], [])
    scores = scoring.score(tried, [], catalog)
    assert scores.false_alarms.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert np.isnan(scores.median_delay_s).all()
    assert scores.table()["delay_worst_s_red"].null_count == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"since_ms": 5, "until_ms": 5}, "until_ms: must be after since_ms = 5, got 5"),
        ({"lead_s": -1}, "lead_s, grace_s: must be at least 0, got -1"),
        ({"grace_s": -1}, "lead_s, grace_s: must be at least 0"),
    ],
)
def test_times_that_make_no_sense_are_refused(catalog: Catalog, wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scoring.score(of_settings([]), [], catalog, **wrong)


def test_the_table_has_figures_and_scores_and_survives_parquet(
    catalog: Catalog, tmp_path: Any
) -> None:
    tried = of_settings([(100_000, 0, 2), (200_000, 0, 0)], [])
    found = scoring.table(tried, catalog, incidents=[leak(90, 200)])
    figures = kpi.of_many(tried, catalog)
    assert found.column_names[: figures.num_columns] == figures.column_names
    assert found.select(figures.column_names).equals(figures)
    row = found.to_pylist()[0]
    assert (row["alarms"], row["found_yellow"], row["delay_worst_s_yellow"]) == (1, 1, 10.0)
    assert (row["false_yellow"], row["missed_red"], row["delay_worst_s_red"]) == (0, 1, None)
    assert len(set(found.column_names)) == found.num_columns
    pq.write_table(found, tmp_path / "study.parquet")
    assert pq.read_table(tmp_path / "study.parquet").equals(found)
    assert scoring.table(tried, catalog).equals(figures)
    assert isinstance(found, pa.Table)


def test_no_settings_make_an_empty_table_with_every_column(catalog: Catalog) -> None:
    some = scoring.table(of_settings([]), catalog, incidents=[leak(90, 200)])
    none = scoring.table(of_settings(), catalog, incidents=[leak(90, 200)])
    assert none.num_rows == 0
    assert none.schema.equals(some.schema)

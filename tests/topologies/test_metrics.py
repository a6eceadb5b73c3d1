from __future__ import annotations

import time
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from engine.readings import OUTCOMES
from engine.shadow import CANDIDATE
from topologies.metrics import BESIDES, Metrics


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def made(**options: Any) -> tuple[Metrics, Clock]:
    clock = Clock()
    return Metrics(clock=clock, monotonic=clock, **options), clock


def owning(
    partition: int, counts: np.ndarray | None = None, **options: Any
) -> tuple[Metrics, Clock]:
    metrics, clock = made(**options)
    metrics.own(partition)
    metrics.restored(partition, counts)
    return metrics, clock


def exported(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return what a scrape sees, by name and label values."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def counted(**counts: int) -> np.ndarray:
    return np.array([counts.get(name, 0) for name in OUTCOMES], np.int64)


def test_readings_are_counted_by_what_became_of_them_since_we_own_the_partition() -> None:
    metrics, _ = owning(3, counted(accepted=100, late=5))
    metrics.batch(3, n_messages=2, seconds=0.1, counts=counted(accepted=110, late=6, bad_quality=1))
    metrics.batch(
        3, n_messages=1, seconds=0.1, counts=counted(accepted=115, late=6, bad_quality=1, ticks=2)
    )
    seen = exported(metrics)
    assert seen["tocsin_readings_total", "accepted"] == 15
    assert seen["tocsin_readings_total", "bad_quality"] == 1
    assert seen["tocsin_late_readings_total",] == 1 and seen["tocsin_ticks_total",] == 2
    assert seen["tocsin_messages_total", "3"] == 3
    assert seen["tocsin_batch_seconds_count",] == 2
    outcomes = {labels[1] for labels in seen if labels[0] == "tocsin_readings_total"}
    assert outcomes == set(OUTCOMES) - set(BESIDES)


def test_a_partition_that_comes_back_is_counted_on_not_anew() -> None:
    metrics, _ = made()
    metrics.own(0)
    metrics.batch(0, n_messages=1, seconds=0.1, counts=counted(accepted=10))
    metrics.disown(0)
    metrics.own(0)
    metrics.restored(0, counted(accepted=50))
    metrics.batch(0, n_messages=1, seconds=0.1, counts=counted(accepted=51))
    seen = exported(metrics)
    assert seen["tocsin_readings_total", "accepted"] == 11
    assert seen["tocsin_messages_total", "0"] == 2


def test_lag_silence_and_age_move_with_the_clock() -> None:
    metrics, clock = owning(1, stall_after_s=30.0)
    now_ms = int(clock.now * 1000)
    metrics.batch(1, n_messages=1, seconds=0.1, event_ms=now_ms - 4_000, log_ms=now_ms - 2_000)
    metrics.lag(1, 7)
    metrics.snapshot(1, seconds=0.5, n_bytes=1_000)
    metrics.committed(1, 42)
    clock.now += 10
    seen = exported(metrics)
    assert seen["tocsin_event_lag_seconds", "1"] == 14
    assert seen["tocsin_log_lag_seconds", "1"] == 12
    assert seen["tocsin_lag_messages", "1"] == 7
    assert seen["tocsin_silence_seconds", "1"] == 10
    assert seen["tocsin_stalled", "1"] == 0
    assert seen["tocsin_snapshot_age_seconds", "1"] == 10
    assert seen["tocsin_snapshot_bytes", "1"] == 1_000
    assert seen["tocsin_committed_offset", "1"] == 42
    clock.now += 25
    assert exported(metrics)["tocsin_stalled", "1"] == 1


def test_nothing_waiting_is_no_lag_however_old_the_last_message() -> None:
    metrics, clock = owning(1)
    metrics.batch(1, n_messages=1, seconds=0.1, log_ms=0)
    metrics.lag(1, -3)
    clock.now += 1_000
    seen = exported(metrics)
    assert seen["tocsin_lag_messages", "1"] == 0 and seen["tocsin_log_lag_seconds", "1"] == 0


def test_without_ticks_silence_is_a_stall_only_if_messages_wait() -> None:
    metrics, clock = owning(0, ticks=False)
    clock.now += 3_600
    assert exported(metrics)["tocsin_stalled", "0"] == 0
    metrics.lag(0, 1)
    assert exported(metrics)["tocsin_stalled", "0"] == 1


def test_what_is_not_known_has_no_sample() -> None:
    metrics, _ = made()
    metrics.own(0)
    names = {labels[0] for labels in exported(metrics)}
    unknown = (
        "event_lag_seconds",
        "log_lag_seconds",
        "lag_messages",
        "committed_offset",
        "redis_up",
    )
    assert not names & {f"tocsin_{name}" for name in unknown}


def test_a_partition_given_up_has_no_gauges_left() -> None:
    metrics, _ = owning(0)
    metrics.lag(0, 5)
    metrics.disown(0)
    metrics.lag(0, 5)
    metrics.committed(0, 5)
    metrics.snapshot(0, seconds=1, n_bytes=1)
    metrics.covered(0)
    seen = exported(metrics)
    assert seen["tocsin_partitions_owned",] == 0
    assert not [labels for labels in seen if labels[0] == "tocsin_lag_messages"]


def test_a_partition_is_ours_once_its_state_is_there_and_cannot_stall_before() -> None:
    metrics, clock = made(stall_after_s=30.0)
    metrics.own(2)
    clock.now += 100
    seen = exported(metrics)
    assert seen["tocsin_restored", "2"] == 0 and seen["tocsin_partitions_owned",] == 0
    assert seen["tocsin_stalled", "2"] == 0
    metrics.restored(2)
    seen = exported(metrics)
    assert seen["tocsin_restored", "2"] == 1 and seen["tocsin_partitions_owned",] == 1
    assert seen["tocsin_stalled", "2"] == 0 and seen["tocsin_silence_seconds", "2"] == 0
    clock.now += 31
    assert exported(metrics)["tocsin_stalled", "2"] == 1


def test_a_snapshot_that_covers_everything_grows_no_older() -> None:
    metrics, clock = owning(0, snapshot_every_s=600)
    assert exported(metrics)["tocsin_snapshot_old_after_seconds",] == 1_810
    clock.now += 50
    metrics.covered(0)
    clock.now += 7
    assert exported(metrics)["tocsin_snapshot_age_seconds", "0"] == 7


def test_the_rules_told_are_those_of_the_partitions() -> None:
    metrics, _ = made()

    def rules() -> list[str]:
        return [labels[1] for labels in exported(metrics) if labels[0] == "tocsin_rules_info"]

    for partition in range(3):
        metrics.own(partition)
        assert rules() == ["d1"] * bool(partition)
        metrics.running_rules(partition, "d1", "city")
    assert rules() == ["d1"]
    metrics.running_rules(1, "d2", "city")
    assert rules() == ["d1", "d2"]
    metrics.running_rules(0, "d2", "city")
    metrics.running_rules(2, "d2", "city")
    assert rules() == ["d2"]
    assert exported(metrics)["tocsin_rules_changes_total",] == 1
    for partition in range(3):
        metrics.disown(partition)
    assert rules() == []


def test_alerts_rejects_redis_and_shadow_are_exported() -> None:
    metrics, _ = made()
    metrics.alert("red", "raise")
    metrics.alert("red", "raise", 2)
    metrics.rejected("unknown_sensor", 4)
    metrics.redis_flush(0.002, 3)
    metrics.redis_down()
    metrics.redis_down()
    metrics.redis_resent(2)
    metrics.shadow_difference(CANDIDATE)
    metrics.snapshot_failed()
    seen = exported(metrics)
    assert seen["tocsin_alerts_total", "red", "raise"] == 3
    assert seen["tocsin_rejected_total", "unknown_sensor"] == 4
    assert seen["tocsin_redis_up",] == 0 and seen["tocsin_redis_outages_total",] == 1
    assert (
        seen["tocsin_redis_alerts_total",] == 3 and seen["tocsin_redis_resent_alerts_total",] == 2
    )
    assert seen["tocsin_shadow_differences_total", CANDIDATE] == 1
    assert seen["tocsin_snapshot_failures_total",] == 1
    metrics.redis_flush(0.002, 1)
    assert exported(metrics)["tocsin_redis_up",] == 1


def test_two_workers_in_one_process_do_not_share_numbers() -> None:
    one, two = Metrics(), Metrics()
    one.alert("red", "raise")
    assert ("tocsin_alerts_total", "red", "raise") not in exported(two)


def test_a_batch_costs_microseconds() -> None:
    metrics = Metrics()
    metrics.own(0)
    counts = counted(accepted=1)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(1_000):
            metrics.batch(0, n_messages=1, seconds=0.01, counts=counts, event_ms=1, log_ms=1)
        best = min(best, time.perf_counter() - begin)
    assert best / 1_000 < 20e-6

"""The same as expressions on a polars data frame: whole columns, no loop over sensors.

What settings have in common is computed once: a statistic, or what a detector makes of it. It is
near to what the rules mean, not the same: a window ends at the reading instead of with its pane, so
it is longer by up to a pane, and residuals are not clipped before they are learnt. A latch is
exact: readings that were beyond, or inside, for the delay close and open it, and between these it
is carried forward. Only starts are found, no peaks. polars takes as many threads as
POLARS_MAX_THREADS says when it is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tune_peers.contest import Asked, Contest, episodes_of

if TYPE_CHECKING:
    import polars as pl

Array = np.ndarray[Any, Any]


def run(contest: Contest) -> Array:
    """Return the (E,) EPISODE of every setting, without peaks."""
    import polars as pl

    asked = contest.asked()
    frame = with_statistics(sorted_frame(contest), asked)
    latches = {name: expression for one in asked for name, expression in _latches(one).items()}
    frame = frame.select("sensor", "event_ms", "new", **latches)
    found = []
    for setting, one in enumerate(asked):
        up = pl.any_horizontal(*_latches(one))
        begins = up & (~up.shift(1, fill_value=False) | pl.col("new"))
        starts = frame.lazy().filter(begins).select("sensor", "event_ms").collect()
        found.append(episodes_of(setting, *(starts[name].to_numpy() for name in starts.columns)))
    return np.concatenate(found)


def sorted_frame(contest: Contest) -> pl.DataFrame:
    """Return the readings by sensor, numbered within each."""
    import polars as pl

    readings = contest.readings
    columns = {name: getattr(readings, name) for name in ("sensor", "event_ms", "value")}
    return (
        pl.DataFrame(columns)
        .sort("sensor", maintain_order=True)
        .with_columns(n=pl.int_range(pl.len()).over("sensor"))
        .with_columns(new=pl.col("n") == 0)
    )


def with_statistics(frame: pl.DataFrame, asked: list[Asked]) -> pl.DataFrame:
    """Return the frame with every distinct window's mean and every distinct deviation."""
    import polars as pl

    event_ms, value, new = pl.col("event_ms"), pl.col("value"), pl.col("new")
    # sensors laid one after another in time, so far apart that no window reaches into the next:
    # a rolling mean over the whole column takes a quarter of the time of one over each sensor
    longest = max(one.length_ms for one in asked)
    span = event_ms.max() - event_ms.min() + longest + 1
    apart = (event_ms - event_ms.min() + pl.col("sensor").cast(pl.Int64) * span).alias("apart")
    frame = frame.with_columns(apart.cast(pl.Datetime("ms")))
    means = {
        f"mean {one.length_ms} {one.min_n}": value.rolling_mean_by(
            "apart", f"{one.length_ms}ms", min_samples=one.min_n
        )
        for one in asked
    }
    frame = frame.with_columns(**means)
    for memory_n in sorted({one.memory_n for one in asked}):
        level = value.ewm_mean(alpha=1 / memory_n).over("sensor").shift(1)
        frame = frame.with_columns(residual=pl.when(new).then(0.0).otherwise((value - level).abs()))
        scale = pl.col("residual").ewm_mean(alpha=1 / memory_n).over("sensor").shift(1)
        frame = frame.with_columns(
            pl.col("residual").alias(f"residual {memory_n}"), scale.alias(f"scale {memory_n}")
        )
    return frame.drop("residual", "apart")


def _latches(asked: Asked) -> dict[str, pl.Expr]:
    """Return, by what they depend on, whether limits, window and deviation are up."""
    return {
        f"limits {asked.limit} {asked.on_ms} {asked.off_ms}": _limits(asked),
        f"window {asked.length_ms} {asked.min_n} {asked.window}": _window(asked),
        f"deviation {asked.memory_n} {asked.warmup_n} {asked.least} {asked.z} {asked.confirm_n}":
            _deviation(asked),
    }  # fmt: skip


def _limits(asked: Asked) -> pl.Expr:
    import polars as pl

    beyond, inside = pl.col("value") >= asked.limit[0], pl.col("value") < asked.limit[1]
    return _latch(_lasting(beyond, asked.on_ms), _lasting(inside, asked.off_ms))


def _window(asked: Asked) -> pl.Expr:
    import polars as pl

    mean = pl.col(f"mean {asked.length_ms} {asked.min_n}")
    return _latch(mean >= asked.window[0], mean.is_null() | (mean < asked.window[1]))


def _deviation(asked: Asked) -> pl.Expr:
    import polars as pl

    residual = pl.col(f"residual {asked.memory_n}")
    scale = pl.max_horizontal(pl.col(f"scale {asked.memory_n}"), asked.least)
    warm = pl.col("n") >= asked.warmup_n
    beyond = warm & (residual >= asked.z[0] * scale)
    for back in range(1, asked.confirm_n):
        beyond &= beyond.shift(back, fill_value=False)
    return _latch(beyond, residual < asked.z[1] * scale)


def _lasting(condition: pl.Expr, delay_ms: int) -> pl.Expr:
    """Return whether a condition has held since a reading at least the delay ago."""
    import polars as pl

    event_ms = pl.col("event_ms")
    begins = condition & (~condition.shift(1, fill_value=False) | pl.col("new"))
    since_ms = pl.when(begins).then(event_ms).forward_fill()
    return condition & (event_ms - since_ms >= delay_ms)


def _latch(closes: pl.Expr, opens: pl.Expr) -> pl.Expr:
    """Return whether a latch is closed after each reading, each sensor's open at first."""
    import polars as pl

    turned = pl.when(closes).then(True).when(opens | pl.col("new")).then(False)
    return turned.forward_fill()

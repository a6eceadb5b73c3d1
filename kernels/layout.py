"""Every record that kernels share: state, parameters, and what flows between the stages.

State is a few arrays of records, indexed by sensor, window and source, allocated once. ``HOT`` is
the one cache line that every reading touches; ``COLD`` and ``SIGNAL`` are touched only while
something is going on. Together they are 128 bytes a sensor; each window adds 96.
"""

import numpy as np

# Levels of a signal and of a source.
NORMAL, BLUE, YELLOW, ORANGE, RED = range(5)
N_LEVELS = 4
"""Levels above normal; ladders and latches have one place for each."""
LEVEL_NAMES = ("normal", "blue", "yellow", "orange", "red")

# Detector kinds. A sensor's signals are packed three bits a kind: its level, 0 to 4.
HIGH, LOW, RISE, FALL, WINDOW, DEVIATION, DRIFT, ABSENCE, FLATLINE, BAD, SPIKE = range(11)
N_KINDS = 11
KIND_NAMES = (
    "high",
    "low",
    "rise",
    "fall",
    "window",
    "deviation",
    "drift",
    "absence",
    "flatline",
    "bad",
    "spike",
)
NO_KIND = 15

# Records of the log that are no readings stand in the sensor column as negative indices.
TICK = -1
"""The record says how late it is: its event time moves time where no reading does."""
ACKNOWLEDGE = -2
"""The record's value is the index of a source whose latching limits may let go."""
UNKNOWN = -3
"""The reading's sensor is not in the catalog."""
JUDGE_SOURCE, JUDGE_DISTRICT, JUDGE_CATEGORY = -4, -5, -6
"""The record's value is the index of what a command was about; never from the wire."""

# Why a reading did not reach the detectors, and what was noticed of those that did.
(
    ACCEPTED,
    UNKNOWN_SENSOR,
    TIME_OUT_OF_BOUNDS,
    TIME_AHEAD,
    TIME_TOO_LATE,
    BAD_QUALITY,
    NOT_FINITE,
    OUT_OF_RANGE,
    DUPLICATE,
    BACKWARD,
    LATE,
    TICKS,
) = range(12)
N_COUNTS = 12
COUNT_NAMES = (
    "accepted",
    "unknown_sensor",
    "time_out_of_bounds",
    "time_ahead",
    "time_too_late",
    "bad_quality",
    "not_finite",
    "out_of_range",
    "duplicate",
    "backward",
    "late",
    "ticks",
)
"""Every reading is counted once among the first ten; ``late`` and ``ticks`` are counted besides."""

# Event time is epoch milliseconds; seconds of it fit an unsigned 32-bit field until 2106.
MAX_EVENT_MS = 4_102_444_800_000
"""2100-01-01T00:00Z; a reading at or beyond it, or before 1970, is refused."""
NEVER = -1
FAR_FUTURE_MS = 1 << 62
MAX_AGE_MS = (1 << 32) - 1
"""Ages saturate here, at 49 days."""

# Flags of HOT.
FLAG_ACTIVE = 1  # COLD holds something: a signal, a latch, a timer or a run
FLAG_ABSENT = 2  # the absence signal is up
FLAG_ACKNOWLEDGED = 4  # latching limits may let go

BLOCK_SHIFT = 8
"""Absence deadlines are bounded from below per block of 256 sensors."""

HOT = np.dtype(
    [
        ("last_ms", "<i8"),  # event time of the newest reading, bad ones included; NEVER before it
        ("anchor", "<f8"),  # value of the newer rate anchor; the floats below are relative to it
        ("last", "<f4"),  # newest good value
        ("mean", "<f4"),  # running level
        ("deviation", "<f4"),  # running mean absolute residual
        ("above", "<f4"),  # CUSUM of the upper side
        ("below", "<f4"),  # CUSUM of the lower side
        ("older", "<f4"),  # value of the older rate anchor
        ("anchor_age_ms", "<u4"),
        ("older_age_ms", "<u4"),
        ("row", "<u4"),  # row of PARAMS
        ("detected_s", "<u4"),  # no new anomaly before this second of event time (refractory)
        ("n", "<u2"),  # good readings seen, up to the profile's memory
        ("n_flat", "<u2"),  # consecutive repeats of the value
        ("latched", "u1"),  # bit k: high limit k+1; bit 4+k: low limit k+1
        ("pending", "u1"),  # the timer of that latch runs
        ("n_bad", "u1"),  # consecutive bad readings
        ("flags", "u1"),
    ]
)
assert HOT.itemsize == 64

COLD = np.dtype(
    [
        ("age_ms", "<u4", (2 * N_LEVELS,)),  # how long each latch's pending change has lasted
        ("levels", "<i8"),  # packed signals as the detectors see them
        ("n_rate", "u1"),  # consecutive readings beyond a rate limit
        ("n_deviation", "u1"),  # consecutive readings beyond a deviation limit
    ]
)

SIGNAL = np.dtype(
    [
        ("value", "<f8"),  # what the strongest signal compared with its limit
        ("levels", "<i8"),  # packed signals as fusion sees them
        ("held_s", "<u4"),  # second of event time at which the remembered severity began to fade
        ("held", "u1"),  # remembered severity in percent
        ("which", "u1"),  # low nibble: window number; high nibble: kind of the remembered severity
    ]
)
assert HOT.itemsize + COLD.itemsize + SIGNAL.itemsize == 128

N_PANES = 8
"""Places in the ring; a window uses 2 to 8 of them."""
PANES = np.dtype(
    [
        ("newest_end_ms", "<i8"),  # end of the newest pane, a multiple of the pane; 0 at first
        ("count", "<u2", (N_PANES,)),
        ("first", "<f4", (N_PANES,)),  # sum (sum, mean), mean (std), minimum, or maximum (max)
        ("reference", "<f4"),  # sums, means and extremes are relative to it
        ("newest", "u1"),  # place of the newest pane; it turns with event time
        ("filled", "u1"),  # bit k: place k holds a pane
        ("level", "u1"),  # low nibble: of the high limits; high nibble: of the low ones
        ("loud", "u1"),  # panes for which a value that may matter stays in the ring
    ]
)
assert PANES.itemsize == 64

SECONDS = np.dtype([("second", "<f4", (N_PANES,))])
"""The rest of a window's panes, touched by std (sum of squared residuals) and range (maximum)."""

BIN = np.dtype([("mean", "<f8"), ("deviation", "<f4"), ("n", "<u4")])
"""One time-of-day (or of-week) bin of a seasonal profile."""

SOURCE = np.dtype(
    [
        ("last_ms", "<i8"),  # newest event time at which the source was judged
        ("below_ms", "<i8"),  # since when a lower level is called for; NEVER if it is not
        ("episode_ms", "<i8"),  # start of the running or last episode; NEVER before the first
        ("due_ms", "<i8"),  # when the source must be judged again; key in the agenda
        ("score", "<f8"),
        ("shelved_ms", "<i8"),  # shelved until then; 0 before the first time
        ("place", "<i4"),  # place in the agenda; -1 if not in it
        ("seq", "<u4"),  # transitions so far in the episode
        ("level", "u1"),
        ("reached", "u1"),  # bit k: the running or last episode was at level k
        ("shown", "u1"),  # the level, or normal where it is hidden
        ("out_of_service", "u1"),
        ("spare", "u1", (4,)),
    ]
)
assert SOURCE.itemsize == 64

SUPPRESSED = np.dtype(
    [
        ("from_ms", "<i8"),
        ("until_ms", "<i8"),
        ("scope", "<i4"),  # JUDGE_SOURCE, JUDGE_DISTRICT or JUDGE_CATEGORY
        ("index", "<i4"),  # of the source, district or category
    ]
)
"""A maintenance window."""
MAX_SUPPRESSED = 256
"""Maintenance windows, begun and planned, that a partition keeps."""

CLOCK = np.dtype(
    [
        ("watermark_ms", "<i8"),  # largest event time taken; NEVER before the first record
        ("position", "<i8"),  # records of the log consumed
        ("tick_ms", "<i8"),  # newest tick
        ("context_ms", "<i8"),  # next time at which a context begins or ends
        ("block", "<i8"),  # where a tick that filled the changes goes on
        ("n_agenda", "<i8"),
        ("edge", "<i8"),  # of a change begun: 1 + how many of the coupled sources were judged
        ("turning", "<i8"),  # 1: of the running tick only turns of contexts are left
        ("context_source", "<i8"),  # where the turn of a context, or a command, goes on
        ("told_ms", "<i8"),  # how far ticks have moved time in fusion
        ("counts", "<i8", (N_COUNTS,)),
        ("n_suppressed", "<i8"),
        ("suppressed", SUPPRESSED, (MAX_SUPPRESSED,)),
    ]
)
"""One record a partition."""

PARAMS = np.dtype(
    [
        # Read for every reading.
        ("scale", "<f8"),
        ("offset", "<f8"),
        ("range_low", "<f8"),
        ("range_high", "<f8"),
        ("calm_low", "<f8"),  # least and greatest value in range that reach no limit
        ("calm_high", "<f8"),
        ("quiet_low", "<f8"),  # at or below it a low limit is reached
        ("quiet_high", "<f8"),  # at or beyond it a high limit is reached
        ("quiet_rise", "<f8"),  # unit per ms
        ("quiet_fall", "<f8"),
        ("quiet_deviation", "<f8"),  # in mean absolute residuals
        ("quiet_drift", "<f8"),
        ("alpha", "<f8"),  # 1 / memory_n
        ("clip", "<f8"),  # in mean absolute residuals
        ("min_deviation", "<f8"),  # least mean absolute residual, in the profile's unit
        ("allowance", "<f8"),  # in mean absolute residuals
        ("spike_at", "<f8"),
        ("half_ms", "<i8"),  # half of the rate window
        ("memory_n", "<i4"),
        ("warmup_n", "<i4"),
        ("flat_after_n", "<i4"),
        ("bad_after_n", "<i4"),
        ("n_windows", "<i4"),
        ("first_window", "<i4"),  # row of WINDOW_PARAMS
        ("season_bins", "<i4"),  # 0: not seasonal
        ("utc_offset_ms", "<i4"),
        ("season_ms", "<i8"),
        # Read while something is going on.
        ("high", "<f8", (N_LEVELS,)),  # +inf: no such level
        ("low", "<f8", (N_LEVELS,)),  # -inf: no such level
        ("deadband", "<f8"),
        ("on_ms", "<i8", (N_LEVELS,)),
        ("off_ms", "<i8", (N_LEVELS,)),
        ("rise", "<f8", (N_LEVELS,)),  # unit per ms; +inf: no such level
        ("fall", "<f8", (N_LEVELS,)),  # positive: a ladder on −rate; +inf: no such level
        ("rate_deadband", "<f8"),
        ("z", "<f8", (N_LEVELS,)),  # in mean absolute residuals
        ("z_deadband", "<f8"),
        ("drift", "<f8", (N_LEVELS,)),  # in mean absolute residuals
        ("drift_deadband", "<f8"),
        ("drift_cap", "<f8"),
        ("refractory_ms", "<i8"),
        ("rate_confirm_n", "<i4"),
        ("deviation_confirm_n", "<i4"),
        ("latching", "u1"),
        ("absence_level", "u1"),
        ("flat_level", "u1"),
        ("bad_level", "u1"),
        ("spike_level", "u1"),
        ("floor", "u1"),  # a latched limit is a floor of the source's level
        ("percent", "u1", (N_KINDS, N_LEVELS + 1)),  # severity × weights, 0 to 100
        ("quantity", "<i4"),
    ],
    align=True,
)
"""One row for each distinct (category, profile, unit, overrides); limits in the profile's unit."""

# Aggregates of a window.
COUNT, SUM, MEAN, STD, MINIMUM, MAXIMUM, RANGE = range(7)
AGGREGATE_NAMES = ("count", "sum", "mean", "std", "min", "max", "range")
"""Panes keep moments up to STD, extremes from MINIMUM on."""

WINDOW_PARAMS = np.dtype(
    [
        ("pane_ms", "<i8"),
        ("per_pane", "<f8"),  # 1 / pane_ms
        ("n_panes", "<i4"),
        ("aggregate", "<i4"),
        ("min_n", "<i8"),
        # A value further from the reference than the smaller of near_high − follows·reference and
        # near_low + follows·reference may carry the aggregate to a limit.
        ("near_high", "<f8"),
        ("near_low", "<f8"),
        ("follows", "<f8"),  # 1 where the aggregate lies among the values, else 0
        ("high", "<f8", (N_LEVELS,)),
        ("low", "<f8", (N_LEVELS,)),  # negated: a ladder on −statistic; +inf: no such level
        ("deadband", "<f8"),
    ]
)

CATEGORY = np.dtype(
    [
        ("half_life_ms", "<i8"),
        ("raise_at", "<f8", (N_LEVELS,)),  # of the score
        ("deadband", "<f8"),
        ("hold_ms", "<i8"),
        ("class_factor", "<f8", (4,)),  # by static class: none, blue, yellow, red
    ]
)
"""Fusion and levels of one category of sources."""

TERM = np.dtype([("quantity", "<i4"), ("kind", "<i4"), ("level", "<i4"), ("near", "<i4")])
"""A condition on the signals of a source, or, ``near``, of a source that is coupled into it."""

SIGNAL_RULE = np.dtype(
    [
        ("all", "<i8"),
        ("any", "<i8"),
        ("none", "<i8"),
        ("categories", "<i8"),  # bit c: holds for category c
        ("level", "<i4"),
        ("spare", "<i4"),
    ]
)

CONTEXT = np.dtype(
    [
        ("from_ms", "<i8"),
        ("to_ms", "<i8"),
        ("categories", "<i8"),
        ("district", "<i4"),  # -1: all
        ("spare", "<i4"),
        ("factor", "<f8"),
    ]
)

READING = np.dtype(
    [
        ("v", "<f8"),  # in the profile's unit
        ("rate", "<f8"),  # unit per ms; 0 where no rate limit can be reached
        ("residual", "<f8"),
        ("scale", "<f8"),  # mean absolute residual
        ("jump", "<f8"),
        ("window_value", "<f8"),
        ("event_ms", "<i8"),
        ("dt_ms", "<i8"),
        ("position", "<i8"),
        ("sensor", "<i4"),
        ("window", "u1"),  # number of the window with the highest level
        ("window_level", "u1"),
        ("warm", "u1"),  # deviation and drift may judge
        ("late", "u1"),
    ]
)
"""Scratch: one good reading with its statistics, on the way to the ladders."""

CHANGE = np.dtype(
    [
        ("position", "<i8"),  # of the record in the log
        ("event_ms", "<i8"),
        ("value", "<f8"),  # of the strongest kind; NaN: not measured anew, what was noted stands
        ("levels", "<i8"),
        ("sensor", "<i4"),  # TICK: time moved to event_ms; JUDGE_…: a command about value
        ("which", "u1"),  # low nibble: window number; high nibble: the strongest kind
        ("late", "u1"),
        ("spare", "<u2"),
    ]
)
"""What detection hands to fusion: the new signals of one sensor."""

CONTRIBUTOR = np.dtype(
    [
        ("value", "<f8"),
        ("sensor", "<i4"),  # -1: none
        ("percent", "<f4"),  # severity × weights, faded, 0 to 100
        ("kind", "u1"),
        ("level", "u1"),  # 0: fading
        ("window", "u1"),
        ("spare", "u1", (5,)),
    ]
)
N_CONTRIBUTORS = 3

# Transitions of an episode, and what set the level.
RAISE, ESCALATE, DE_ESCALATE, CLEAR = range(4)
TRANSITION_NAMES = ("raise", "escalate", "de-escalate", "clear")
BY_SCORE, BY_LIMIT, BY_RULE, IS_SHELVED, IS_SUPPRESSED, IS_OUT_OF_SERVICE, IS_BACK = range(7)
CAUSE_NAMES = ("score", "limit", "rule", "shelved", "suppressed", "out_of_service", "returned")

TRANSITION = np.dtype(
    [
        ("position", "<i8"),
        ("event_ms", "<i8"),
        ("episode_ms", "<i8"),
        ("trigger_ms", "<i8"),  # order within a position: readings and absences, then what is due
        ("score", "<f8"),
        ("factor", "<f8"),
        ("coupled_percent", "<f8"),
        ("contributor", CONTRIBUTOR, (N_CONTRIBUTORS,)),
        ("source", "<i4"),
        ("trigger", "<i4"),  # the source whose change or due time it was
        ("coupled_from", "<i4"),  # -1: none
        ("rule", "<i4"),  # -1: none
        ("seq", "<u4"),
        ("phase", "u1"),  # 0 a change, 1 due, 2 a context
        ("kind", "u1"),
        ("level_from", "u1"),
        ("level", "u1"),
        ("cause", "u1"),
        ("late", "u1"),
        ("reached", "u1"),  # bit k: the episode was at level k, this transition's included
        ("standing", "u1"),  # the level that is shown, or hidden
        ("spare", "u1", (4,)),
    ]
)
"""What fusion hands to the alert records: one change of what is shown of a source."""

STEP = np.dtype(
    [
        ("position", "<i8"),
        ("event_ms", "<i8"),
        ("score", "<f4"),
        ("source", "<i4"),
        ("setting", "<i4"),  # of the rules that gave it, where several are tried
        ("kind", "u1"),
        ("level_from", "u1"),
        ("level", "u1"),
        ("cause", "u1"),
    ]
)
assert STEP.itemsize == 32
"""The short form of TRANSITION, for millions of them."""

# A history that is tried under many settings (kernels.sweep).

IS_LATE, IS_ACKNOWLEDGED = 1, 2
ADMITTED = np.dtype(
    [
        ("event_ms", "<i8"),
        ("value", "<f8"),  # in the sensor's unit
        ("sensor", "<i4"),
        ("n_ticks", "<u4"),  # ticks that stand before it in the log
        ("position", "<u4"),  # in the log, its lower half
        ("position_high", "<u2"),
        ("quality", "u1"),
        ("flags", "u1"),  # late; no reading, but an acknowledge of the sensor's source
    ]
)
assert ADMITTED.itemsize == 32
"""A record of the log that concerns one sensor and whose event time was not refused."""

GOOD, NOT_GOOD, SILENT, LET_GO = range(4)
MOMENT = np.dtype(
    [
        ("anchor", "<f8"),
        ("last", "<f4"),
        ("above", "<f4"),
        ("below", "<f4"),
        ("n_flat", "<u2"),
        ("n_bad", "u1"),
        ("what", "u1"),  # a good reading, a bad one, a deadline passed in silence, an acknowledge
        *READING.descr,
    ]
)
"""Scratch: what a sensor's latches and ladders are held against at one record, whatever they are.

READING, and before it those fields of HOT that judging reads: behind it Numba would take a MOMENT
for a READING, and warn of it.
"""

RUN = np.dtype([("first", "<i8"), ("n", "<i8"), ("next", "<i8")])
"""Consecutive changes of one sensor under one row of parameters; -1: no next run."""

HEAD = np.dtype([("run", "<i8"), ("n", "<i8"), ("sensor", "<i4"), ("row", "<i4")])
"""Where the runs of one sensor under one row of parameters begin; ``n`` heads of the sensor are
left, this one included."""

N_LANES = 16
"""Envelopes that are surveyed in one go, side by side."""
LANES = np.dtype(
    [
        *((name, "<f8", (N_LANES,)) for name in ("mean", "deviation", "above", "below")),
        ("loud", "<f8", (N_LANES,)),  # 1: the envelope was reached in this stretch
        ("count", "<f8"),  # good readings
    ]
)
"""What differs between envelopes of a sensor's statistics: one register holds several lanes.

Float64, rounded to float32 where HOT keeps that; the rest of HOT is the same in every lane.
"""
LANE_PARAMS = np.dtype(
    [
        *(
            (name, "<f8", (N_LANES,))
            for name in (
                "quiet_deviation", "quiet_drift", "alpha", "clip", "min_deviation", "allowance",
                "drift_cap", "memory_n", "warmup_n",
            )
        ),
        # The lowest of all lanes, for what is the same in each.
        ("quiet_high", "<f8"),
        ("quiet_low", "<f8"),
        ("quiet_rise", "<f8"),
        ("quiet_fall", "<f8"),
        ("spike_at", "<f8"),
        ("flat_after_n", "<i8"),  # 0: never
        ("bad_after_n", "<i8"),
        ("half_ms", "<i8"),
        ("drifts", "<i8"),  # 1: some lane has a limit for drift
    ]
)  # fmt: skip

PACK = np.dtype(
    [
        ("first", "<i4"),  # its first envelope
        ("n", "<i4"),  # envelopes; one alone is surveyed by itself
        ("first_slot", "<i4"),
        ("n_slots", "<i4"),  # distinct windows of its envelopes
    ]
)
"""Envelopes under which a sensor's readings are read alike, so that they go side by side."""
MAX_SLOTS = 64

FADE_STEPS = 64
FADE = 2.0 ** (-np.arange(FADE_STEPS) / FADE_STEPS)
"""Severity fades along this table, so that no libm decides an alert."""

"""A difference of two rule sets as Arrow tables and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from engine.analysis.diffs.rules import KeyChange, shown
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    from engine.analysis.diffs.diff import Against, Diff, Group, Side

LEVELS = LEVEL_NAMES[1:]
MOMENT = pa.timestamp("ms", tz="UTC")
_TEXT, _SECONDS = pa.string(), pa.float64()


def _side_schema(name: str) -> list[tuple[str, pa.DataType]]:
    return [
        (f"{name}_n", pa.int32()),
        (f"{name}_alert", _TEXT),
        (f"{name}_start", MOMENT),
        (f"{name}_end", MOMENT),
        (f"{name}_peak", _TEXT),
        (f"{name}_s", _SECONDS),
        *((f"{name}_{level}_s", _SECONDS) for level in LEVELS),
    ]


GROUPS = pa.schema(
    [
        ("source", _TEXT),
        ("category", _TEXT),
        ("change", _TEXT),
        ("how", pa.list_(_TEXT)),
        ("later_s", _SECONDS),
        *((f"{level}_later_s", _SECONDS) for level in LEVELS),
        ("longer_s", _SECONDS),
        *_side_schema("old"),
        *_side_schema("new"),
    ]
)
"""A row a group: `old_n` episodes became `new_n`; an end is null while the episode runs on.

`later_s` is that of the start; `yellow_later_s` of the first time at yellow or above; null unless
both rule sets get there.
"""


def _side_row(name: str, side: Side | None) -> dict[str, Any]:
    if side is None:
        empty: dict[str, Any] = {key: None for key, _ in _side_schema(name)}
        return empty | {f"{name}_n": 0}
    return {
        f"{name}_n": side.n,
        f"{name}_alert": side.alert_id,
        f"{name}_start": side.start_ms,
        f"{name}_end": None if side.running else side.end_ms,
        f"{name}_peak": LEVEL_NAMES[side.peak],
        f"{name}_s": side.lasted_ms / 1000,
        **{f"{name}_{level}_s": ms / 1000 for level, ms in zip(LEVELS, side.at_ms, strict=True)},
    }


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def group_row(group: Group) -> dict[str, Any]:
    """Return a group as plain values, times as epoch milliseconds."""
    later = {
        f"{name}_later_s": _seconds(group.later_ms(level)) for level, name in enumerate(LEVELS, 1)
    }
    return {
        "source": group.source,
        "category": group.category,
        "change": group.change,
        "how": list(group.how()),
        "later_s": _seconds(group.later_ms()),
        **later,
        "longer_s": group.longer_ms / 1000,
        **_side_row("old", group.old),
        **_side_row("new", group.new),
    }


def groups_table(groups: Iterable[Group]) -> pa.Table:
    """Return GROUPS of groups."""
    rows = [group_row(group) for group in groups]
    return pa.Table.from_pylist(rows, schema=GROUPS)


def rows_table(kind: Any, rows: Iterable[Any]) -> pa.Table:
    """Return named tuples of texts and numbers as a table."""
    names = kind._fields
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    types = [_TEXT, _TEXT, pa.float64(), pa.float64()]
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)


def keys_table(keys: Iterable[KeyChange]) -> pa.Table:
    """Return changes of keys with their values as texts."""
    rows = [{"key": each.key, "old": _said(each.old), "new": _said(each.new)} for each in keys]
    schema = pa.schema([("key", _TEXT), ("old", _TEXT), ("new", _TEXT)])
    return pa.Table.from_pylist(rows, schema=schema)


def _said(value: Any) -> str | None:
    return None if value is None else shown(value)


def _verdict_rows(against: Against | None) -> Iterator[dict[str, Any]]:
    for verdict in against.verdicts if against is not None else ():
        incident = verdict.incident
        yield {
            "source": incident.source,
            "kind": incident.kind,
            "start": incident.start_ms,
            "end": incident.end_ms,
            "deserved": incident.level,
            "change": verdict.change,
            "old_delay_s": _seconds(verdict.old_ms),
            "new_delay_s": _seconds(verdict.new_ms),
        }


def verdicts_table(against: Against | None) -> pa.Table:
    """Return a row for each incident: when each rule set finds it."""
    schema = pa.schema(
        [
            ("source", _TEXT),
            ("kind", _TEXT),
            ("start", MOMENT),
            ("end", MOMENT),
            ("deserved", _TEXT),
            ("change", _TEXT),
            ("old_delay_s", _SECONDS),
            ("new_delay_s", _SECONDS),
        ]
    )
    return pa.Table.from_pylist(list(_verdict_rows(against)), schema=schema)


def diff_dict(diff: Diff) -> dict[str, Any]:
    """Return a difference as plain JSON values; times are epoch milliseconds."""
    against = diff.against
    truth = None
    if against is not None:
        sides = ((name, getattr(against, name)) for name in ("old", "new"))
        truth = {
            "level": against.old.level,
            **{
                name: {
                    "incidents": len(of.detections),
                    "found": len(of.found),
                    "median_delay_s": of.median_delay_s,
                    "false_alarms": len(of.false),
                }
                for name, of in sides
            },
            "incidents": list(_verdict_rows(against)),
        }
    return {
        "old": {"name": diff.old_rules.name, "digest": diff.old_rules.digest},
        "new": {"name": diff.new_rules.name, "digest": diff.new_rules.digest},
        "readings": diff.n_readings,
        "first_ms": diff.first_ms,
        "last_ms": diff.last_ms,
        "rules": [
            {"key": each.key, "old": _said(each.old), "new": _said(each.new)} for each in diff.keys
        ],
        "changes": diff.by_change,
        "same_but_other_scores": diff.n_other_scores,
        "counts": [each._asdict() for each in diff.counts()],
        "differing": [group_row(group) for group in diff.differing],
        "truth": truth,
    }

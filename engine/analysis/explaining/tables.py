"""An explanation as Arrow tables and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kernels.layout import CAUSE_NAMES, KIND_NAMES, LEVEL_NAMES

if TYPE_CHECKING:
    from engine.analysis.explaining.counterfactual import Finding, Search
    from engine.analysis.explaining.explain import Explanation

MOMENT = pa.timestamp("ms", tz="UTC")
_TEXT, _NUMBER = pa.string(), pa.float64()

CONTRIBUTIONS = pa.schema(
    [
        ("source", _TEXT),
        ("sensor", _TEXT),
        ("quantity", _TEXT),
        ("detector", _TEXT),
        ("level", _TEXT),
        ("key", _TEXT),
        ("severity", _NUMBER),
        ("weight", _NUMBER),
        ("detector_weight", _NUMBER),
        ("counts", _NUMBER),
        ("held_from", _NUMBER),
        ("held_ms", MOMENT),
    ]
)
FINDINGS = pa.schema(
    [
        ("level", _TEXT),
        ("key", _TEXT),
        ("now", _TEXT),
        ("gone_at", _TEXT),
        ("value", _NUMBER),
        ("fires_at", _NUMBER),
        ("unit", _TEXT),
        ("answer", _TEXT),
        ("later_s", _NUMBER),
        ("alerts", pa.int64()),
        ("episodes", pa.int64()),
        ("false_alarms", pa.int64()),
        ("lost", pa.list_(_TEXT)),
        ("later", pa.list_(_TEXT)),
    ]
)
STORY = pa.schema(
    [("event", MOMENT), ("sensor", _TEXT), ("detector", _TEXT), ("level", _TEXT), ("text", _TEXT)]
)


def contributions_table(of: Explanation) -> pa.Table:
    """Return what each sensor counts."""
    rows = [each._asdict() for each in (*of.contributions, *of.coupled_contributions)]
    return pa.Table.from_pylist(rows, schema=CONTRIBUTIONS)


def finding_row(finding: Finding, level: int) -> dict[str, Any]:
    """Return a finding as plain values."""
    value, fires_at = finding.value, finding.fires_at
    effect = finding.effect
    row: dict[str, Any] = {
        "level": LEVEL_NAMES[level],
        "key": finding.key.name,
        "now": finding.said(finding.key.value(0)),
        "gone_at": finding.words,
        "value": None if finding.key.is_switch else float(value),
        "fires_at": None if finding.key.is_switch else float(fires_at),
        "unit": finding.key.unit,
        "answer": finding.answer,
        "later_s": None if finding.later_ms is None else finding.later_ms / 1000,
    }
    if effect is not None:
        row |= {
            "alerts": effect.alerts,
            "episodes": effect.episodes,
            "false_alarms": effect.false_alarms,
            "lost": [f"{each.kind} at {each.source}" for each in effect.lost],
            "later": [f"{each.kind} at {each.source}" for each in effect.later],
        }
    return row


def findings_table(searches: Iterable[Search]) -> pa.Table:
    """Return a row for each change that would have prevented a level, or put it off."""
    rows = [
        finding_row(each, search.question.level)
        for search in searches
        for each in (*search.findings, *search.put_off)
    ]
    return pa.Table.from_pylist(rows, schema=FINDINGS)


def _search_dict(search: Search) -> dict[str, Any]:
    level = search.question.level
    return {
        "level": LEVEL_NAMES[level],
        "answerable": search.question.answerable,
        "found": [finding_row(each, level) for each in search.findings],
        "put_off": [finding_row(each, level) for each in search.put_off],
        "in_vain": [key.name for key in search.in_vain],
        "judged": search.n_judged,
    }


def _story_rows(of: Explanation) -> Iterator[dict[str, Any]]:
    ids = of.moment.plan.catalog.sensor_id
    for told in of.story:
        yield {
            "event": told.event_ms,
            "sensor": ids[told.sensor].as_py(),
            "detector": KIND_NAMES[told.kind],
            "level": LEVEL_NAMES[told.level],
            "text": told.text,
        }


def story_table(of: Explanation) -> pa.Table:
    """Return what the sensors did, in order."""
    return pa.Table.from_pylist(list(_story_rows(of)), schema=STORY)


def explanation_dict(of: Explanation) -> dict[str, Any]:
    """Return an explanation as plain JSON values; times are epoch milliseconds."""
    moment = of.moment
    catalog = moment.plan.catalog
    return {
        "alert": of.alert,
        "episode": [
            {
                key: each[key]
                for key in ("seq", "transition", "level_from", "level", "event_ms", "score")
            }
            for each in of.episode
        ],
        "story": list(_story_rows(of)),
        "contributions": [each._asdict() for each in of.contributions],
        "neighbours": [each._asdict() for each in of.coupled],
        "neighbours_contributions": [each._asdict() for each in of.coupled_contributions],
        "own_score": 100 * moment.own,
        "fused_score": 100 * moment.fused,
        "class_factor": moment.class_factor,
        "contexts": [
            {
                "name": moment.plan.context_names[number],
                "factor": float(moment.plan.contexts["factor"][number]),
            }
            for number in moment.contexts
        ],
        "score": moment.score,
        "levels": {
            "by_score": LEVEL_NAMES[moment.by_score],
            "by_limit": LEVEL_NAMES[moment.by_limit],
            "by_rule": LEVEL_NAMES[moment.by_rule],
            "set_by": CAUSE_NAMES[int(moment.transition["cause"])],
        },
        "rules_that_hold": [
            {
                "name": of.rules.rules[held.rule].name,
                "level": LEVEL_NAMES[held.level],
                "sensors": sorted(
                    {catalog.sensor_id[s].as_py() for _, sensors in held.terms for s in sensors}
                ),
            }
            for held in moment.rules
        ],
        "prevented_by": [_search_dict(each) for each in of.searches],
        "notes": list(of.notes),
    }

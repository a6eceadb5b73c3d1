"""A report: what rules made of a history, as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from engine.alerts import AlertRecords
from engine.analysis import kpi
from engine.analysis.figures import Figures
from engine.analysis.operators import By
from engine.analysis.past import Judged, Past
from engine.analysis.reports.chosen import choose
from engine.analysis.reports.facts import Facts, gather
from engine.analysis.reports.page import page
from engine.analysis.reports.strips import strip_of
from engine.analysis.strips import trace_stretches
from engine.errors import InputError
from engine.truth import Incident

N_STRIPS = 24


class HasPage(Protocol):
    """A report of any kind."""

    @property
    def html(self) -> bytes:
        """The page."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A page, and the facts that it shows."""

    html: bytes
    facts: Facts


def report_of(
    judged: Judged,
    past: Past,
    *,
    figures: Figures | None = None,
    truth: Sequence[Incident] | None = None,
    by: By = "department",
    n_strips: int = N_STRIPS,
    lead_s: float = 0.0,
    grace_s: float = 0.0,
    title: str | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Report:
    """Return the report of what `judge` made of a history; the same input gives the same bytes.

    `figures` are made from the judged history unless given; `by` says what an operator is then.
    The history is read once more for the strips; `on_progress` is told the share that is done.
    """
    figures = figures_of(judged, past, by) if figures is None else figures
    facts = gather(judged, past, figures, truth=truth, lead_s=lead_s, grace_s=grace_s, title=title)
    chosen = choose(judged.plan, facts.episodes, facts.verdicts, facts.held, n_strips, facts.span)
    facts = replace(facts, chosen=chosen)
    stretches = [each.stretch for each in chosen]
    plan = judged.plan
    traced = trace_stretches(past, plan.rules, stretches, plan=plan, on_progress=on_progress)
    records = AlertRecords(plan)
    return Report(
        html=page(facts, [strip_of(traced, records, each) for each in chosen]), facts=facts
    )


def figures_of(judged: Judged, past: Past, by: By = "department") -> Figures:
    """Return the alarm-management figures of the time that was judged."""
    since_ms, until_ms = span_of(judged, past)
    return kpi.of(judged.steps, past.catalog, since_ms=since_ms, until_ms=until_ms, by=by)


def span_of(judged: Judged, past: Past) -> tuple[int, int]:
    """Return the time that a history is judged in: what was asked for, else that of its readings.

    Of a history without a reading it is a moment.
    """
    first_ms, last_ms = judged.first_ms, judged.last_ms
    since_ms, until_ms = past.span
    if first_ms is None or last_ms is None:
        begin_ms = since_ms if since_ms is not None else 0
        return begin_ms, until_ms if until_ms is not None else begin_ms + 1
    begin_ms = first_ms if since_ms is None else since_ms
    return begin_ms, max(last_ms + 1 if until_ms is None else until_ms, begin_ms + 1)


def write_report(path: Path | str, report: HasPage) -> None:
    """Write a report's page, whole or not at all; raises InputError where that can't be done."""
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(report.html)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise InputError(f"{path}: can't be written: {error.strerror}") from error

"""The report of a study: its settings against each other, as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.analysis.reports import study_parts as parts
from engine.analysis.reports.shell import asset, document
from engine.analysis.reports.study_read import Told, read_study
from engine.analysis.reports.study_values import fitting

_SCRIPTS = (
    "echarts/echarts.min.js",
    "page.js",
    "study.js",
    "study_cloud.js",
    "study_charts.js",
    "study_table.js",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyReport:
    """A page, and the study that it shows."""

    html: bytes
    told: Told
    n_shown: int
    """Settings that are in the page; of very many the best, and a sample."""


def study_report_of(folder: Path | str, *, title: str | None = None) -> StudyReport:
    """Return the report of a study's folder; the same folder gives the same bytes.

    Raises InputError where there is no study, or none that can be reported.
    """
    told = read_study(Path(folder))
    title = title or told.rules_name or told.folder.resolve().name or "Unnamed study"
    values = fitting(told)
    sections = [
        ("overview", "Overview", parts.head(told) + parts.outcome(told)),
        ("trade-offs", "Trade-offs", _grid(parts.tradeoff(told))),
        ("parameters", "Parameters", _grid(parts.parameters(told))),
        ("rules", "Rules", _grid(parts.rules(told))),
    ]
    if told.has_truth:
        sections.insert(1, ("truth", "Truth", _grid(parts.by_level(told))))
    sections.append(("settings", "Settings", _settings(told, values)))
    html = document(
        title=title,
        brand="Tocsin study",
        sections=sections,
        values=values,
        scripts=_SCRIPTS,
        styles=("report.css", "study.css"),
        end="every setting judged as a replay under its rules would be.",
    )
    return StudyReport(html=html, told=told, n_shown=values["study"]["n"])


def _settings(told: Told, values: dict[str, Any]) -> str:
    few = ""
    n = values["study"]["n"]
    if n < told.n:
        few = (
            f'<p class="note">{n:,} of {told.n:,} settings are in this page: the front, the best, '
            "and an even sample of the others. settings.parquet has all.</p>"
        )
    return few + asset("settings.html").decode() + _grid(parts.refused(told))


def _grid(cards: str) -> str:
    return f'<div class="grid">{cards}</div>' if cards else ""

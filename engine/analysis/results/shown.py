"""Results as people read them: the text that a command prints, and pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.analysis.diffs.diff import Diff
    from engine.analysis.explaining.explain import Explanation
    from engine.analysis.reports import Report, StudyReport
    from engine.analysis.rule_tests.results import Results

_WIDTH = 100


def text(of: Diff | Explanation | Results) -> str:
    """Return what the command prints of a difference, an explanation, or of tests."""
    from rich.console import Console

    from engine.analysis.diffs.diff import Diff
    from engine.analysis.explaining.explain import Explanation

    if isinstance(of, Diff):
        from engine.analysis.diffs.cli import report as shown
    elif isinstance(of, Explanation):
        from engine.analysis.explaining.cli import report as shown  # type: ignore[assignment]
    else:
        from engine.analysis.rule_tests.cli import report as shown  # type: ignore[assignment]
    # a console of a notebook would show it at once, as HTML
    console = Console(width=_WIDTH, highlight=False, force_jupyter=False, force_terminal=False)
    with console.capture() as captured:
        console.print(shown(of))  # type: ignore[arg-type]
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def write(of: Report | StudyReport | Diff | Explanation, path: Path | str) -> Path:
    """Write a page that needs no network, and return where it is."""
    from engine.analysis.diffs.diff import Diff
    from engine.analysis.diffs.page import write_page
    from engine.analysis.explaining.explain import Explanation
    from engine.analysis.reports import write_report

    path = Path(path)
    if isinstance(of, Diff):
        from engine.analysis.diffs.html import html_of as diff_html

        names = (of.old_rules.name or "old rules", of.new_rules.name or "new rules")
        old, new = (f"{name} ({side})" for name, side in zip(names, ("old", "new"), strict=True))
        write_page(path, diff_html(of, old=old, new=new))
    elif isinstance(of, Explanation):
        from engine.analysis.explaining.html import html_of

        write_page(path, html_of(of))
    else:
        write_report(path, of)
    return path

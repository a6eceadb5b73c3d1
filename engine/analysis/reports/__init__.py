"""Reports: what rules made of a history, as one HTML page that needs nothing else.

`report_of` returns the page, `write_report` writes it.
"""

from engine.analysis.reports.report import Report, report_of, write_report

__all__ = ["Report", "report_of", "write_report"]

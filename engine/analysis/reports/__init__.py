"""Reports: what rules made of a history, or a study of settings, as one HTML page by itself.

`report_of` returns the page of a history, `study_report_of` that of a study's folder;
`write_report` writes either.
"""

from engine.analysis.reports.report import Report, report_of, write_report
from engine.analysis.reports.study import StudyReport, study_report_of

__all__ = ["Report", "StudyReport", "report_of", "study_report_of", "write_report"]

"""Tables, figures and the HTML page. Reads run folders only: no training code, no torch."""

from __future__ import annotations

from ncmi.reports.files import ReportError
from ncmi.reports.html import write_report
from ncmi.reports.read import read_comparison, read_run
from ncmi.reports.records import (
    ComparisonRecord,
    EntryRecord,
    Outputs,
    Readout,
    Results,
    RunRecord,
    UnfinishedRun,
)
from ncmi.reports.reproduction import GroupRecord, ReproductionRecord, read_reproduction
from ncmi.reports.reproduction_write import print_reproduction, write_reproduction
from ncmi.reports.statistics import Difference, Row, comparison_rows
from ncmi.reports.table import comparison_table, print_table, to_markdown, write_csv

__all__ = [
    "ComparisonRecord",
    "Difference",
    "EntryRecord",
    "GroupRecord",
    "Outputs",
    "Readout",
    "ReportError",
    "ReproductionRecord",
    "Results",
    "Row",
    "RunRecord",
    "UnfinishedRun",
    "comparison_rows",
    "comparison_table",
    "print_reproduction",
    "print_table",
    "read_comparison",
    "read_reproduction",
    "read_run",
    "to_markdown",
    "write_csv",
    "write_report",
    "write_reproduction",
]

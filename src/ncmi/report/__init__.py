"""Tables, charts and pages of runs, comparisons and reproductions, of every kind of data.

``records`` reads their folders, through the schema of training and without torch. ``statistics`` makes rows of them, in
which like is compared with like, and ``verdict`` says what they say. ``tables`` and ``write`` bring them to terminal,
files and page.
"""

from ncmi.report.records import (
    Comparison,
    EntryRuns,
    ReportError,
    Reproduction,
    Run,
    UnfinishedRun,
    read_comparison,
    read_folder,
    read_reproduction,
    read_run,
)
from ncmi.report.statistics import Row, comparison_rows
from ncmi.report.tables import comparison_table, print_table, readouts_table, run_table, to_csv, to_html, to_markdown
from ncmi.report.write import write_csv, write_report

__all__ = [
    "Comparison",
    "EntryRuns",
    "ReportError",
    "Reproduction",
    "Row",
    "Run",
    "UnfinishedRun",
    "comparison_rows",
    "comparison_table",
    "print_table",
    "read_comparison",
    "read_folder",
    "read_reproduction",
    "read_run",
    "readouts_table",
    "run_table",
    "to_csv",
    "to_html",
    "to_markdown",
    "write_csv",
    "write_report",
]

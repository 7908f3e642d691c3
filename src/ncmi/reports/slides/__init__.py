"""Reports of slide classifiers: tables, figures, attention heat maps, the HTML page. Reads run folders; no torch."""

from __future__ import annotations

from ncmi.reports.slides.read import is_slides_folder, read_slide_comparison, read_slide_run
from ncmi.reports.slides.records import SlideComparison, SlideEntry, SlideRun
from ncmi.reports.slides.statistics import Cell, comparison_cells
from ncmi.reports.slides.table import print_slides_table, slides_markdown, slides_table, write_slides_csv
from ncmi.reports.slides.write import write_slides_report

__all__ = [
    "Cell",
    "SlideComparison",
    "SlideEntry",
    "SlideRun",
    "comparison_cells",
    "is_slides_folder",
    "print_slides_table",
    "read_slide_comparison",
    "read_slide_run",
    "slides_markdown",
    "slides_table",
    "write_slides_csv",
    "write_slides_report",
]

"""The frame of every page: template, style sheet, colours. The result needs no network and no other file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from string import Template

from ncmi.reports.elements import escape, legend_rules
from ncmi.reports.figures.palette import variables

GENERATOR = '<meta name="generator" content="ncmi report">'


@dataclass(frozen=True)
class Page:
    """What one page says. ``body`` is HTML, all else text; ``series`` counts the curves in the legend."""

    title: str
    kicker: str
    lead: str
    body: str
    series: int


def render(page: Page) -> str:
    """The complete HTML document."""
    folder = files("ncmi.reports")
    template = Template((folder / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(page.title),
        kicker=escape(page.kicker),
        lead=escape(page.lead),
        body=page.body,
        footer=f"Written by ncmi {escape(_version())} from run folders only. This file works offline.",
        css=(folder / "page.css").read_text(encoding="utf-8"),
        rules=legend_rules(page.series),
        light=variables(dark=False),
        dark=variables(dark=True),
    )


def _version() -> str:
    try:
        return version("ncmi")
    except PackageNotFoundError:
        return "(not installed)"

"""What stands on the page of a reproduced table or figure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.figures.trajectories import curve
from ncmi.reports.page import Page
from ncmi.reports.records import EntryRecord
from ncmi.reports.reproduction import SCALES, GroupRecord, ReproductionRecord
from ncmi.reports.reproduction_figures import Picture
from ncmi.reports.reproduction_table import html_table
from ncmi.reports.reproduction_words import reproduction_verdict
from ncmi.reports.rows import objectives_table
from ncmi.reports.settings import environment_settings, recipe_settings
from ncmi.reports.statistics import results_of

_COURSES = {"validation_cmi": "CMI, nats", "validation_separation": "Γ, nats", "validation_ncmi": "NCMI"}


def reproduction_page(record: ReproductionRecord, figures: Sequence[Picture], path: Path) -> Page:
    """Build the page that will be written to ``path``; ``figures`` are drawn already."""
    first, *others = reproduction_verdict(record)
    inner = e.paragraph(first, "main") + "".join(e.paragraph(sentence) for sentence in others)
    body = [
        f'<section class="verdict">\n<h2>Result</h2>\n{inner}</section>\n',
        e.section("Table", html_table(record, path), _unfinished(record, path)),
        e.section("Figures", *_figures(figures), _courses(record)),
        _method(record, path),
    ]
    finished, planned = len(record.runs), len(record.runs) + len(record.unfinished)
    spent = sum(results_of(run).total_seconds for run in {run.folder: run for run in record.runs}.values())
    lead = (
        f"{finished} of {planned} runs finished, {text.count(len(record.seeds), 'seed')}; "
        f"{text.duration(spent)} of training in all. Scale {record.scale}: {SCALES[record.scale]}."
    )
    return Page(
        title=record.title,
        kicker=f"ncmi · reproduction, scale {record.scale}",
        lead=lead,
        body="".join(body),
        series=max(len(group.record.entries) for group in record.groups),
    )


def _figures(figures: Sequence[Picture]) -> list[str]:
    parts, number = [], 1
    for one in figures:
        if not one.drawings:
            parts.append(e.paragraph(one.caption, "note"))
            continue
        legend = e.series_legend(one.legend) if one.legend else ""
        panels = [drawing.panel() for drawing in one.drawings]
        parts.append(e.figure(number, one.caption, panels, kind=one.kind, legend=legend))
        number += 1
    return parts


def _courses(record: ReproductionRecord) -> str:
    """Of Figure 4, the first and the last value of each curve in numbers."""
    if record.experiment != "figure4":
        return ""
    parts = []
    for group in record.measured:
        lines = []
        for entry in (entry for entry in group.record.entries if entry.runs):
            curves = [curve([run.metrics for run in entry.runs], column) for column in _COURSES]
            if all(len(one.mean) for one in curves):
                ends = [f"{text.significant(one.mean[0])} → {text.significant(one.mean[-1])}" for one in curves]
                lines.append([e.escape(entry.label), *ends])
        if lines:
            parts.append(f"<h3>{e.escape(group.title)}: from the first epoch to the last, means over seeds</h3>\n")
            parts.append(e.table(("Method", *_COURSES.values()), lines))
    return "".join(parts)


def _unfinished(record: ReproductionRecord, path: Path) -> str:
    if not record.unfinished:
        return ""
    lines = [
        [e.link(run.folder, path, run.folder.name), e.escape(group.title), e.escape(run.state)]
        for group in record.groups
        for run in group.record.unfinished
    ]
    title = f"{text.count(len(lines), 'unfinished run')}, left out of everything on this page"
    body = e.table(("Run folder", "group", "state"), lines, kind="plain")
    return f"<h3>{title}</h3>\n<details>\n<summary>which</summary>\n{body}</details>\n" + e.paragraph(
        captions.UNFINISHED, "note"
    )


def _method(record: ReproductionRecord, path: Path) -> str:
    runs = record.runs
    told = [group.record.command for group in record.groups if group.record.command]
    again = told[0] if told else f"ncmi reproduce {record.experiment} --scale {record.scale}"
    name = shlex.quote(record.folder.resolve().name)
    commands = f"{again}\nncmi report {name}   # this page, tables and figures, from the run folders"
    seeds = f"Seeds {text.ranges(record.seeds)}; " if record.seeds else ""
    links = ", ".join(_group_link(record, group, path) for group in record.groups)
    return e.section(
        "How it ran",
        e.paragraph(f"{seeds}{captions.sizes(results_of(runs[0]))}"),
        f"<pre><code>{e.escape(commands)}</code></pre>\n",
        f"<p>Each group is a comparison with a folder of its own: {links}.</p>\n",
        e.how_it_ran(*recipe_settings(runs), environment_settings(record.machines)),
        "<h3>Objectives</h3>\n",
        objectives_table(_entries(record)),
    )


def _group_link(record: ReproductionRecord, group: GroupRecord, path: Path) -> str:
    return e.link(record.folder / group.name, path, group.title)


def _entries(record: ReproductionRecord) -> list[EntryRecord]:
    """One entry of each label, the first that has runs."""
    found: dict[str, EntryRecord] = {}
    for group in record.groups:
        for entry in group.record.entries:
            if entry.runs:
                found.setdefault(entry.label, entry)
    return list(found.values())

"""What stands on the page of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.calibration_sections import comparison_calibration
from ncmi.reports.figures.accuracy import accuracy_panels
from ncmi.reports.figures.confusion import confusion
from ncmi.reports.figures.palette import Style, styles
from ncmi.reports.figures.trajectories import Series, trajectory_panels
from ncmi.reports.page import Page
from ncmi.reports.pictures import clouds_of, confusion_figure, feature_figures
from ncmi.reports.records import ComparisonRecord, EntryRecord
from ncmi.reports.rows import objectives_table, row_lines
from ncmi.reports.settings import environment_settings, recipe_settings
from ncmi.reports.statistics import (
    Row,
    baseline_entry,
    comparison_rows,
    method_name,
    primary_readouts,
    results_of,
)
from ncmi.reports.table import baseline_label, headings
from ncmi.reports.verdict import verdict


def comparison_page(record: ComparisonRecord, path: Path) -> Page:
    """Build the page of a comparison that will be written to ``path``."""
    rows = comparison_rows(record)
    finished, planned = len(record.runs), len(record.runs) + len(record.unfinished)
    took = f", in {text.duration(record.total_seconds)}" if record.total_seconds == record.total_seconds else ""
    size = f"{text.count(len(record.entries), 'training objective')} × {text.count(len(record.seeds), 'seed')}"
    lead = f"{size}, paired by seed and split: {finished} of {planned} runs finished{took}."
    numbers = iter(range(1, 99))
    body = [
        _verdict_section(record),
        _table_section(record, rows),
        _figure_sections(record, rows, numbers),
        comparison_calibration(record.entries, rows),
        _method_section(record),
        _runs_section(record, path),
    ]
    return Page(
        title=f"Which loss trains the better classifier on {record.data}?",
        kicker="ncmi · comparison of training objectives",
        lead=lead,
        body="".join(body),
        series=len(record.entries),
    )


def _verdict_section(record: ComparisonRecord) -> str:
    first, *others = verdict(record)
    inner = e.paragraph(first, "main") + "".join(e.paragraph(sentence) for sentence in others)
    return f'<section class="verdict">\n<h2>Result</h2>\n{inner}</section>\n'


def _table_section(record: ComparisonRecord, rows: Sequence[Row]) -> str:
    lines, marks = row_lines(rows)
    caption = captions.TABLE.format(baseline=baseline_label(record))
    parts = [e.table(headings(record), lines, marks=marks)]
    parts.append(e.paragraph(f"{caption} {captions.READOUTS}", "note"))
    if record.unfinished:
        parts.append(f"<h3>{text.count(len(record.unfinished), 'unfinished run')}, left out of everything above</h3>\n")
        parts.append(e.facts({run.folder.name: run.state for run in record.unfinished}))
        parts.append(e.paragraph(captions.UNFINISHED, "note"))
    return e.section("Accuracy, cost and information", *parts)


def _figure_sections(record: ComparisonRecord, rows: Sequence[Row], numbers: Iterator[int]) -> str:
    entries = _ordered(record, rows)
    looks = styles((entry.label, entry.objective) for entry in entries)
    name = baseline_label(record)
    compared = text.count(sum(1 for row in rows if row.difference), "comparison")
    accuracy = e.figure(
        next(numbers),
        captions.ACCURACY.format(baseline=name, count=compared)
        + (captions.CUT_OFF if any(len(row.accuracies) == 2 for row in rows) else ""),
        accuracy_panels(rows, looks, name),
    )
    return (
        e.section("Seed by seed", accuracy)
        + e.section("Epoch by epoch", _trajectories(entries, looks, numbers))
        + _outcome_sections(record, entries, numbers)
    )


def _trajectories(entries: Sequence[EntryRecord], looks: dict[str, Style], numbers: Iterator[int]) -> str:
    series = [Series(entry.label, looks[entry.label], [run.metrics for run in entry.runs]) for entry in entries]
    panels = trajectory_panels(series)
    if not panels:
        return e.paragraph(captions.NO_VALIDATION, "note")
    return e.figure(
        next(numbers),
        captions.TRAJECTORIES + captions.SYMBOLS + " " + captions.OWN_SIMPLEX,
        panels,
        legend=e.series_legend({entry.label: looks[entry.label] for entry in entries}),
    )


def _outcome_sections(record: ComparisonRecord, entries: Sequence[EntryRecord], numbers: Iterator[int]) -> str:
    clouds, names, few = clouds_of(entries)
    featured = _featured(record, entries)
    features = feature_figures(
        [clouds[entry.label] for entry in featured],
        list(clouds.values()),
        names,
        f"seed {entries[0].runs[0].seed}",
        ", ".join(method_name(entry.label, primary_readouts(entry)[0]) for entry in featured),
        numbers,
        few,
    )
    return e.section("Feature clusters", features) + e.section("Confusions", _confusion(featured, numbers))


def _ordered(record: ComparisonRecord, rows: Sequence[Row]) -> list[EntryRecord]:
    """Entries with finished runs, in the order of the table."""
    place = {label: index for index, label in enumerate(dict.fromkeys(row.label for row in rows))}
    return sorted((entry for entry in record.entries if entry.runs), key=lambda entry: place[entry.label])


def _featured(record: ComparisonRecord, entries: Sequence[EntryRecord]) -> list[EntryRecord]:
    """The two entries with large pictures: the first of the table, and the baseline or else the second."""
    baseline = baseline_entry(record)
    return list(dict.fromkeys([entries[0], *([baseline] if baseline else []), *entries[1:2]]))[:2]


def _confusion(entries: Sequence[EntryRecord], numbers: Iterator[int]) -> str:
    names = results_of(entries[0].runs[0]).class_names
    matrices = []
    for entry in entries:
        readout = primary_readouts(entry)[0]
        outputs = [run.outputs() for run in entry.runs]
        pairs = [(one.labels, one.predictions[readout]) for one in outputs if readout in one.predictions]
        matrices.append((method_name(entry.label, readout), confusion(pairs, len(names))))
    return confusion_figure(matrices, names, ", summed over all seeds", numbers)


def _method_section(record: ComparisonRecord) -> str:
    runs = record.runs
    command = record.command or f"ncmi compare {shlex.quote(record.data)}"
    name = shlex.quote(record.folder.resolve().name)
    again = f"{command}\nncmi report {name}   # this page, from the run folders"
    machine = environment_settings([record.machine] if record.machine else [run.environment for run in runs])
    return e.section(
        "How it was run",
        e.paragraph(captions.sizes(results_of(runs[0]))),
        f"<pre><code>{e.escape(again)}</code></pre>\n",
        e.how_it_ran(*recipe_settings(runs), machine),
        "<h3>Objectives</h3>\n",
        objectives_table(record.entries),
    )


def _runs_section(record: ComparisonRecord, path: Path) -> str:
    lines = []
    for run in record.runs:
        results = results_of(run)
        scores = " · ".join(
            f"{name} {text.fixed(100 * results.readouts[name].test_accuracy)}" for name in results.readouts
        )
        lines.append(
            (
                e.link(run.folder, path, run.folder.name),
                str(run.seed),
                e.escape(scores),
                text.significant(results.ncmi),
                text.duration(results.total_seconds),
            )
        )
    headings = ("Run folder", "seed", "test accuracy %, every read-out", "test NCMI", "time")
    body = e.table(headings, lines)
    return e.section(
        "All runs",
        f"<details>\n<summary>{text.count(len(lines), 'finished run')}</summary>\n{body}</details>\n",
    )

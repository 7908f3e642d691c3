"""What stands on the page of a comparison of slide classifiers."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ncmi.reports import elements as e
from ncmi.reports import text
from ncmi.reports.figures.palette import Style
from ncmi.reports.page import Page
from ncmi.reports.settings import environment_settings, shared
from ncmi.reports.slides import captions
from ncmi.reports.slides.captions import Figures
from ncmi.reports.slides.comparison_tables import cost_table, differences_table, fold_table, scores_table
from ncmi.reports.slides.comparison_words import baseline_name, comparison_verdict
from ncmi.reports.slides.dots import Dot, DotRow, dot_drawing
from ncmi.reports.slides.records import SlideComparison, network_name
from ncmi.reports.slides.statistics import JUDGED, Cell, Score, by_network, methods
from ncmi.reports.slides.styles import method_styles
from ncmi.reports.slides.words import SCORE_NAMES, score
from ncmi.reports.statistics import Difference, method_name


def slide_comparison_page(record: SlideComparison, cells: Sequence[Cell], path: Path) -> Page:
    """Build the page of a comparison that will be written to ``path``."""
    figures = Figures(record.simulation)
    finished, planned = len(record.runs), len(record.runs) + len(record.unfinished)
    networks = len({entry.network for entry in record.entries})
    objectives = len({entry.objective for entry in record.entries})
    size = f"{text.count(networks, 'network')} × {text.count(objectives, 'objective')} × "
    size += text.count(len(record.seeds), "repeat" if record.folds else "seed")
    size += f" of {record.folds} folds" if record.folds else ""
    took = f", in {text.duration(record.total_seconds)}" if record.total_seconds == record.total_seconds else ""
    title = record.title
    if len(title.split()) < 2:
        # a single word names the data
        title = f"Which loss trains the better slide classifier on {title or record.data}?"
    body = [
        _verdict(record, cells),
        scores_table(record, cells, figures),
        _dots(record, cells, figures),
        differences_table(record, cells, figures),
        fold_table(record, cells, figures),
        cost_table(cells, figures),
        _method(record),
        _runs(record, path),
    ]
    named = not record.simulation or "simulat" in title.lower()
    return Page(
        title=title if named else f"Simulation: {title}",
        kicker="ncmi · comparison of slide classifiers",
        lead=f"{size}, paired by seed and split: {finished} of {planned} runs finished{took}.",
        body="".join(body),
        series=len(methods(cells)),
    )


def _verdict(record: SlideComparison, cells: Sequence[Cell]) -> str:
    first, *others = comparison_verdict(record, cells)
    inner = e.paragraph(first, "main") + "".join(e.paragraph(sentence) for sentence in others)
    return f'<section class="verdict">\n<h2>Result</h2>\n{inner}</section>\n'


def _dots(record: SlideComparison, cells: Sequence[Cell], figures: Figures) -> str:
    order, looks = methods(cells), method_styles(cells)
    panels = []
    for name in JUDGED:
        rows, differences = [], []
        for network, own in by_network(cells).items():
            drawn = [(cell, order.index(cell.method), looks[cell.method]) for cell in own]
            rows.append(DotRow(network, [_dot(cell.scores[name], series, look) for cell, series, look in drawn]))
            dots = [_dot(cell.differences[name], series, look) for cell, series, look in drawn if cell.differences]
            differences += [DotRow(network, dots)] if dots else []
        spoken = SCORE_NAMES[name]
        panels.append(
            dot_drawing(f"dots-{name}", spoken[0].upper() + spoken[1:], f"{spoken} on test data", rows).panel()
        )
        if differences:
            title = f"Difference in {spoken} from {baseline_name(record, cells)}"
            drawing = dot_drawing(f"differences-{name}", title, f"difference in {spoken}", differences, zero=True)
            panels.append(drawing.panel())
    if not panels:
        return ""
    unit = "repeats, each with its folds pooled" if record.folds else "seeds"
    caption = captions.DOTS.format(baseline=baseline_name(record, cells), unit=unit)
    legend = e.series_legend(looks)
    return e.section(
        "Repeat by repeat" if record.folds else "Seed by seed", figures.figure(caption, panels, legend=legend)
    )


def _dot(found: Score | Difference, series: int, style: Style) -> Dot:
    return Dot(series, style, found.mean, found.interval, found.values)


def _method(record: SlideComparison) -> str:
    runs = record.runs
    name = shlex.quote(record.folder.resolve().name)
    command = f"{record.command}\n" if record.command else ""
    again = f"{command}ncmi slides report {name}   # this page, from the run folders"
    skip = ("objective", "network", "format", "kind", "training")
    rest = shared([{key: value for key, value in run.recipe.items() if key not in skip} for run in runs])
    machine = environment_settings([record.machine] if record.machine else [run.environment for run in runs])
    lines = []
    for entry in record.entries:
        if entry.runs:
            told = [_options(run.recipe[key] for run in entry.runs) for key in ("network", "objective")]
            lines.append([e.escape(f"{network_name(entry.network)}, {entry.label}"), *map(e.escape, told)])
    return e.section(
        "How it was run",
        f"<pre><code>{e.escape(again)}</code></pre>\n",
        e.how_it_ran(shared([run.recipe["training"] for run in runs]), rest, machine),
        "<h3>Networks and objectives</h3>\n",
        e.table(("Entry", "network", "objective"), lines, kind="plain"),
    )


def _options(sections: Iterable[dict[str, Any]]) -> str:
    told = [f"{name} = {value}" for name, value in shared(list(sections)).items() if name != "name"]
    return ", ".join(told) or "no options"


def _runs(record: SlideComparison, path: Path) -> str:
    lines = []
    for entry in record.entries:
        for run in entry.runs:
            assert run.results is not None
            told = " · ".join(
                f"{method_name(entry.label, name)} {score(found.scores['macro_f1'].value)} / "
                f"{score(found.scores['auc'].value)}"
                for name, found in run.results.test.items()
            )
            seed = f"{run.seed}, fold {run.fold}" if run.folds else str(run.seed)
            took = text.duration(run.results.total_seconds)
            lines.append([e.link(run.folder, path, run.folder.name), seed, e.escape(told), took])
    heads = ("Run folder", "seed", "test macro F1 / AUC, every read-out", "time")
    told = text.count(len(lines), "finished run")
    body = f"<details>\n<summary>{told}</summary>\n{e.table(heads, lines)}</details>\n"
    return e.section("All runs", body)

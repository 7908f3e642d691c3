"""What stands on the page of a single run on slides."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from ncmi.reports import elements as e
from ncmi.reports import text
from ncmi.reports.figures.palette import Style, styles
from ncmi.reports.page import Page
from ncmi.reports.settings import environment_settings, shared
from ncmi.reports.slides import captions
from ncmi.reports.slides.attention_section import attention_section
from ncmi.reports.slides.captions import Figures
from ncmi.reports.slides.curves import curve_panels
from ncmi.reports.slides.read_results import read_slide_table
from ncmi.reports.slides.records import PARTS, Measure, SlideResults, SlideRun, SlideTable
from ncmi.reports.slides.run_figures import class_figures, readout_styles, roc_figure
from ncmi.reports.slides.sources import Sources
from ncmi.reports.slides.words import SCORE_NAMES, bounds, run_verdict, score
from ncmi.reports.statistics import method_name
from ncmi.slides.weighted_scores import SCORES


def slide_run_page(run: SlideRun, path: Path, sources: Sources) -> Page:
    """Build the page of a run, finished or not, that will be written to ``path``.

    Raises:
        ReportError: if a file of the run folder is damaged.
    """
    figures = Figures(run.results is not None and run.results.simulation)
    first, *others = run_verdict(run)
    inner = e.paragraph(first, "main") + "".join(e.paragraph(sentence) for sentence in others)
    body = [f'<section class="verdict">\n<h2>Result</h2>\n{inner}</section>\n']
    style = styles([(run.label, run.objective)])[run.label]
    if run.results is None:
        body.append(_curves(run, style, figures))
    else:
        table = read_slide_table(run)
        body += [
            _scores(run, run.results, figures),
            e.section("Class by class", *class_figures(run, run.results, figures)),
            e.section("ROC curves", roc_figure(run, run.results, table, figures)),
            attention_section(run, table, sources, figures),
            _curves(run, style, figures),
            _cohort(run.results, table, figures),
        ]
    body.append(_settings(run, path))
    title = f"{run.network} with {run.label} on {run.data}, seed {run.seed}"
    if run.folds:
        title += f", fold {run.fold + 1} of {run.folds}"
    return Page(
        title=f"Simulation: {title}" if figures.simulation else title,
        kicker="ncmi · slide classifier, one training run",
        lead=f"Run folder “{run.folder.resolve().name}”: {run.state}.",
        body="".join(body),
        series=len(readout_styles(run.results)) if run.results else 1,
    )


def _scores(run: SlideRun, results: SlideResults, figures: Figures) -> str:
    lines: list[list[str]] = []
    marks: dict[int, str] = {}
    for index, (name, found) in enumerate(results.test.items()):
        primary = name in results.primary_readouts
        line = [e.escape(method_name(run.label, name)) + (" (primary)" if primary else "")]
        line += [_cell(found.scores[key]) for key in SCORES]
        if results.validation:
            own = results.validation.get(name)
            line += [score(own.scores[key].value) if own else text.MISSING for key in ("macro_f1", "auc")]
        lines.append(line)
        marks |= {index: "own"} if primary else {}
    heads = ["Test data", *(SCORE_NAMES[key] for key in SCORES)]
    heads += ["validation F1", "validation AUC"] if results.validation else []
    found = results.test[results.primary_readouts[0]]
    told = captions.INTERVALS.format(percent=f"{100 * found.confidence:g} %", count=found.bootstrap)
    measures = {
        "CMI (test, nats)": text.significant(results.information["cmi"]),
        "Γ (test, nats)": text.significant(results.information["separation"]),
        "NCMI (test)": text.significant(results.information["ncmi"]),
        "time per epoch (median)": text.duration(results.epoch_seconds),
        "time in all": text.duration(results.total_seconds),
        "memory, highest": f"{text.fixed(results.peak_memory_mb, 0)} MB",
    }
    notes = figures.note(f"{captions.SCORES} {told} {captions.READOUTS}")
    return e.section("Scores on test slides", e.table(heads, lines, marks=marks), notes, e.facts(measures))


def _cell(measure: Measure) -> str:
    return f'{score(measure.value)}<span class="sub">{bounds(measure.low, measure.high)}</span>'


def _curves(run: SlideRun, style: Style, figures: Figures) -> str:
    panels = curve_panels(run.metrics, style, run.results.best_epoch if run.results else None)
    if not panels:
        return ""
    chosen = run.results is not None and run.results.selection == "best" and run.results.best_epoch is not None
    best = captions.BEST.format(epoch=run.results.best_epoch) if run.results is not None and chosen else ""
    return e.section("Epoch by epoch", figures.figure(captions.CURVES.format(best=best), panels))


def _cohort(results: SlideResults, table: SlideTable, figures: Figures) -> str:
    lines = []
    for part in PARTS:
        own = table.part(part)
        if not own.slides:
            continue
        counts = np.bincount(own.labels, minlength=len(results.class_names))
        low, middle, high = (int(np.quantile(own.instances, share)) for share in (0, 0.5, 1))
        lines.append(
            [
                part,
                str(len(own.slides)),
                str(len(set(own.patients))),
                f"{int(own.instances.sum()):,}",
                f"{middle:,} ({low:,} … {high:,})",
                *(str(count) for count in counts),
            ]
        )
    heads = ("Part", "slides", "patients", "patches", "patches a slide: middle (range)", *results.class_names)
    note = figures.note("Slides of each class in the columns on the right. No patient stands in two parts.")
    if any(set(table.part(a).patients) & set(table.part(b).patients) for a, b in _PAIRS):
        note = e.paragraph("Some patients stand in two parts: scores on test data are too good for them.", "warning")
    parts = [e.table(heads, lines), note]
    if results.skipped:
        parts.append(f"<h3>{text.count(len(results.skipped), 'slide')} left out</h3>\n")
        rows = [[e.escape(slide), e.escape(reason)] for slide, reason in results.skipped]
        parts.append(e.table(("Slide", "reason"), rows, kind="plain"))
    return e.section("The cohort", *parts)


_PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))


def _settings(run: SlideRun, path: Path) -> str:
    objective = {name: value for name, value in shared([run.recipe["objective"]]).items() if name != "name"}
    keep = {key: value for key, value in run.recipe.items() if key not in ("objective", "format", "kind", "training")}
    told = {"objective": run.objective, **{f"objective.{name}": value for name, value in objective.items()}}
    again = f"ncmi slides report {shlex.quote(run.folder.resolve().name)}   # this page, from the run folder"
    return e.section(
        "How it was run",
        f"<pre><code>{e.escape(again)}</code></pre>\n",
        e.how_it_ran(shared([run.recipe["training"]]), told | shared([keep]), environment_settings([run.environment])),
        f"<p>Everything is in {e.link(run.folder, path, 'the run folder')}.</p>\n",
    )

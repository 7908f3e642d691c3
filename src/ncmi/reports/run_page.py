"""What stands on the page of a single run."""

from __future__ import annotations

import shlex
from pathlib import Path

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.calibration_sections import run_calibration
from ncmi.reports.figures.confusion import confusion
from ncmi.reports.figures.palette import styles
from ncmi.reports.figures.projection import cloud, few_classes
from ncmi.reports.figures.trajectories import Series, trajectory_panels
from ncmi.reports.foreign_section import foreign_section
from ncmi.reports.page import Page
from ncmi.reports.pictures import confusion_figure, feature_figures
from ncmi.reports.records import Results, RunRecord
from ncmi.reports.settings import environment_settings, objective_settings, recipe_settings
from ncmi.reports.statistics import method_name
from ncmi.reports.verdict import run_verdict


def run_page(run: RunRecord, path: Path) -> Page:
    """Build the page of a run, finished or not, that will be written to ``path``."""
    foreign = run.foreign()  # before anything is drawn: a damaged file is told at once
    numbers = iter(range(1, 99))
    first, *others = run_verdict(run)
    inner = e.paragraph(first, "main") + "".join(e.paragraph(sentence) for sentence in others)
    body = [f'<section class="verdict">\n<h2>Result</h2>\n{inner}</section>\n']
    if run.results is not None:
        body.append(_table(run.results))
    if len(run.metrics):
        look = styles([(run.label, run.objective)])[run.label]
        panels = trajectory_panels([Series(run.label, look, [run.metrics])], single=True)
        caption = captions.TRAJECTORIES_SINGLE + captions.SYMBOLS
        drawn = [e.figure(next(numbers), caption, panels)] if panels else []
        if run.results is not None and not run.results.num_validation:
            drawn.append(e.paragraph(captions.NO_VALIDATION, "note"))
        body.append(e.section("Epoch by epoch", *drawn))
    if run.results is not None:
        outputs, readout = run.outputs(), run.results.primary_readouts[0]
        name, classes = method_name(run.label, readout), run.results.class_names
        (shown,), names, few = few_classes([outputs], classes)
        points = cloud(run.label, shown, readout)
        features = feature_figures([points], [points], names, f"seed {run.seed}", name, numbers, few)
        body.append(e.section("Feature clusters", features))
        if readout in outputs.predictions:
            counts = confusion([(outputs.labels, outputs.predictions[readout])], len(classes))
            body.append(e.section("Confusions", confusion_figure([(name, counts)], classes, "", numbers)))
        body.append(run_calibration(run.label, run.results, numbers))
        body.append(foreign_section(foreign, numbers))
    body.append(_settings(run, path))
    return Page(
        title=f"{run.label} on {run.data}, seed {run.seed}",
        kicker="ncmi · one training run",
        lead=f"Run folder “{run.folder.resolve().name}”: {run.state}.",
        body="".join(body),
        series=1,
    )


def _table(results: Results) -> str:
    lines = [
        (
            e.escape(name) + (" (primary)" if name in results.primary_readouts else ""),
            text.fixed(100 * readout.test_accuracy),
            text.fixed(100 * readout.validation_accuracy),
        )
        for name, readout in results.readouts.items()
    ]
    measures = {
        "CMI (test, nats)": text.significant(results.cmi),
        "Γ (test, nats)": text.significant(results.separation),
        "NCMI (test)": text.significant(results.ncmi),
        "time per epoch (median)": text.duration(results.epoch_seconds),
        "time in all": text.duration(results.total_seconds),
        "memory, highest": f"{text.fixed(results.peak_memory_mb, 0)} MB",
        "training samples": str(results.num_train),
        "validation samples": str(results.num_validation),
        "test samples": str(results.num_test),
    }
    head = ("Read-out", "test accuracy %", "validation accuracy %")
    return e.section("Accuracy, cost and information", e.table(head, lines), e.facts(measures))


def _settings(run: RunRecord, path: Path) -> str:
    training, other = recipe_settings([run])
    objective = {"objective": run.objective, "options": objective_settings([run])}
    again = f"ncmi report {shlex.quote(run.folder.resolve().name)}   # this page, from the run folder"
    return e.section(
        "How it was run",
        f"<pre><code>{e.escape(again)}</code></pre>\n",
        e.how_it_ran(training, objective | other, environment_settings([run.environment])),
        f"<p>Everything is in {e.link(run.folder, path, 'the run folder')}.</p>\n",
    )

"""Figures of a single run on slides: recall of each class, confusion, ROC curves."""

from __future__ import annotations

from ncmi.reports import elements as e
from ncmi.reports import text
from ncmi.reports.figures.confusion import confusion_panel
from ncmi.reports.figures.palette import SOLID, Style
from ncmi.reports.slides import captions
from ncmi.reports.slides.captions import Figures
from ncmi.reports.slides.dots import Dot, DotRow, dot_drawing
from ncmi.reports.slides.records import SlideResults, SlideRun, SlideTable
from ncmi.reports.slides.roc import roc_panel
from ncmi.reports.statistics import method_name

_TONES = ("blue", "orange", "green", "pink")
# more matrices than this say little more
_MOST_MATRICES = 2


def readout_styles(results: SlideResults) -> dict[str, Style]:
    """How each primary read-out looks."""
    return {name: Style(_TONES[index % len(_TONES)], SOLID) for index, name in enumerate(results.primary_readouts)}


def class_figures(run: SlideRun, results: SlideResults, figures: Figures) -> list[str]:
    """Recall of every class by every primary read-out, and confusion matrices of the first two of these."""
    looks = readout_styles(results)
    counts = results.test[results.primary_readouts[0]].confusion.sum(axis=1)
    rows = []
    for index, name in enumerate(results.class_names):
        dots = []
        for series, (readout, style) in enumerate(looks.items()):
            measure = results.test[readout].recall[name]
            dots.append(Dot(series, style, measure.value, (measure.low, measure.high)))
        rows.append(DotRow(f"{text.short(name, 18)} ({counts[index]})", dots))
    panel = dot_drawing(
        "recall", "Recall of each class", "recall (in brackets: test slides)", rows, limits=(-0.02, 1.02)
    )
    percent = f"{100 * results.test[results.primary_readouts[0]].confidence:g} %"
    legend = e.series_legend({method_name(run.label, name): style for name, style in looks.items()})
    matrices = [
        confusion_panel(
            f"confusion{index}", method_name(run.label, name), results.test[name].confusion, results.class_names
        )
        for index, name in enumerate(results.primary_readouts[:_MOST_MATRICES])
    ]
    return [
        figures.figure(
            captions.RECALL.format(percent=percent), [panel.panel()], legend=legend if len(looks) > 1 else ""
        ),
        figures.figure(captions.CONFUSION, matrices),
    ]


def roc_figure(run: SlideRun, results: SlideResults, table: SlideTable, figures: Figures) -> str:
    """ROC curves of the first two primary read-outs."""
    test, names = table.part("test"), results.class_names
    panels = [
        roc_panel(f"roc{index}", method_name(run.label, name), test.labels, test.probabilities[name], names)
        for index, name in enumerate(results.primary_readouts[:_MOST_MATRICES])
    ]
    drawn = [panel for panel in panels if panel is not None]
    if not drawn:
        return e.paragraph("Only one class occurs in the test part: there are no ROC curves.", "note")
    of = f"; of two classes, of {names[1]}" if len(names) == 2 else ""
    return figures.figure(captions.ROC.format(of=of), drawn)

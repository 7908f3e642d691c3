"""Does the classifier know what it does not know? The section of a run's page on foreign data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ncmi.reports import captions, text
from ncmi.reports import elements as e
from ncmi.reports.figures.distances import distances_drawing
from ncmi.reports.foreign import Foreign

_SCORES = {
    "distance": "distance to the nearest centroid",
    "distance_ratio": "nearest / mean of the other distances",
    "max_probability": "1 − highest probability ({readout})",
    "feature_norm": "feature norm, shorter is more foreign",
}


def foreign_section(found: Sequence[Foreign], numbers: Iterator[int]) -> str:
    """Table and histograms; empty where the run was not shown any foreign data."""
    if not found:
        return ""
    headings = ["Score", *(f"{one.name}: {measure}" for one in found for measure in ("AUROC %", "FPR95 %"))]
    lines = []
    for score in dict.fromkeys(score for one in found for score in one.scores):
        cells = []
        for one in found:
            told = one.scores.get(score)
            pair = (100 * told.auroc, 100 * told.fpr95) if told else (float("nan"), float("nan"))
            cells += [text.fixed(value) for value in pair]
        lines.append([e.escape(_SCORES.get(score, score).format(readout=found[0].readout)), *cells])
    sizes = "; ".join(f"{one.name}: {one.num_out} samples against {one.num_in} of the test part" for one in found)
    panels = [distances_drawing(f"distances{index}", one).panel() for index, one in enumerate(found)]
    return e.section(
        "Out of distribution",
        e.table(headings, lines),
        e.paragraph(f"{captions.FOREIGN} {sizes}.", "note"),
        e.figure(next(numbers), captions.DISTANCES, panels),
    )

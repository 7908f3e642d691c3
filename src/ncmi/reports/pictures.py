"""The figures that the page of a comparison and the page of a run share, with their captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ncmi.reports import captions
from ncmi.reports import elements as e
from ncmi.reports.figures.confusion import MOST_COUNTS, confusion_panel, worst_pairs
from ncmi.reports.figures.features import pca_panels, tsne_panels
from ncmi.reports.figures.projection import Cloud, cloud, few_classes
from ncmi.reports.records import EntryRecord
from ncmi.reports.statistics import primary_readouts, results_of


def feature_figures(
    featured: Sequence[Cloud],
    every: Sequence[Cloud],
    class_names: Sequence[str],
    seed: str,
    readouts: str,
    numbers: Iterator[int],
    few: Sequence[str] = (),
) -> str:
    """Large t-SNE pictures of the ``featured`` clouds, then small principal components of ``every`` cloud.

    ``few`` names the classes that are drawn, where not all are.
    """
    parts = []
    large = tsne_panels(featured, class_names)
    sampled = any(len(one.labels) < one.total for one in every)
    if large:
        caption = captions.TSNE.format(seed=seed, readouts=readouts, sample=captions.sample_note(sampled, few))
        parts.append(e.figure(next(numbers), caption, large))
    small = pca_panels(every, class_names)
    if small:
        several = len(small) > 1
        caption = captions.PCA.format(scale=", all panels on one scale" if several else "")
        parts.append(e.figure(next(numbers), caption, small, kind="small" if several else "single"))
    return "".join(parts) or e.paragraph("There are no finite features to draw.", "note")


def clouds_of(entries: Sequence[EntryRecord]) -> tuple[dict[str, Cloud], tuple[str, ...], tuple[str, ...]]:
    """A cloud of each entry's first run, by label; the classes drawn; and these again where some are left out."""
    outputs, names, few = few_classes(
        [entry.runs[0].outputs() for entry in entries], results_of(entries[0].runs[0]).class_names
    )
    clouds = {
        entry.label: cloud(entry.label, one, primary_readouts(entry)[0])
        for entry, one in zip(entries, outputs, strict=True)
    }
    return clouds, names, few


def confusion_figure(
    matrices: Sequence[tuple[str, NDArray[np.int64]]],
    class_names: Sequence[str],
    over: str,
    numbers: Iterator[int],
) -> str:
    """One panel per (title, counts), and the most frequent confusions in words."""
    panels = [
        confusion_panel(f"confusion{index}", title, counts, class_names)
        for index, (title, counts) in enumerate(matrices)
    ]
    told = "Numbers are counts." if len(class_names) <= MOST_COUNTS else "Counts are left out: too many classes."
    words = " ".join(_in_words(title, counts, class_names) for title, counts in matrices)
    caption = captions.CONFUSION.format(over=over, counts=f"{told} {words}")
    return e.figure(next(numbers), caption, panels)


def _in_words(title: str, counts: NDArray[np.int64], class_names: Sequence[str]) -> str:
    pairs = [f"“{true}” taken for “{taken}” ({times}×)" for true, taken, times in worst_pairs(counts, class_names)]
    return f"{title}, most frequent: {', '.join(pairs)}." if pairs else f"{title}: none more than once."

"""The figures of each experiment: drawings with captions, for the page and for documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ncmi.reports import captions
from ncmi.reports.figures.accuracy import accuracy_drawings
from ncmi.reports.figures.batch_size import Line, batch_size_drawing
from ncmi.reports.figures.correlation import correlation_drawing
from ncmi.reports.figures.drawing import Drawing
from ncmi.reports.figures.features import pca_drawings, tsne_drawings
from ncmi.reports.figures.palette import Style
from ncmi.reports.figures.trajectories import Series, trajectory_drawings
from ncmi.reports.pictures import clouds_of
from ncmi.reports.reproduction import GroupRecord, ReproductionRecord
from ncmi.reports.reproduction_correlation import FEWEST, correlations
from ncmi.reports.statistics import method_name, primary_readouts
from ncmi.reports.text import count

_SIMPLEXES = (
    " CMI and Γ of a method with a head are those of its class probabilities, NCMI's those of a distribution over the "
    "feature components: two different simplices, so that levels do not compare between the two, only their courses."
)
_BATCHES = (
    "Test accuracy by batch size: means over seeds, bars of one sample standard deviation. The learning rate is in "
    "proportion to the batch size. Points of one batch size stand a little apart so that their bars can be seen."
)
_NETWORKS = (
    "NCMI on the test set against the accuracy of the head. Each large point is one network, the mean over its seeds, "
    "which are the small dots; colour and shape tell the network, size and number the epochs of training. "
    "Correlations are over networks, not over runs. The dashed line is that of least squares. "
)


@dataclass(frozen=True)
class Picture:
    """One figure: drawings, caption (without drawings, why there are none), names of curves.

    Drawings of ``main`` figures go into documents as well.
    """

    caption: str
    drawings: Sequence[Drawing] = ()
    legend: dict[str, Style] = field(default_factory=dict)
    kind: str = ""
    main: bool = True


def pictures(record: ReproductionRecord) -> list[Picture]:
    """The figures of an experiment, those that are its own first."""
    if record.experiment == "figure2":
        return _correlation(record)
    if record.experiment == "figure3":
        return _batch_sizes(record)
    accuracies = _accuracies(record, main=record.experiment in ("table1", "table5"))
    if record.experiment == "figure4":
        return [_trajectories(record, group, str(place)) for place, group in enumerate(record.measured)] + accuracies
    if record.experiment == "figure5":
        found = []
        for place, group in enumerate(record.measured):
            found += _clusters(record, group, str(place))
        return found + accuracies
    return accuracies


def _heading(record: ReproductionRecord, group: GroupRecord) -> str:
    return f"{group.title}: " if len(record.groups) > 1 else ""


def _accuracies(record: ReproductionRecord, *, main: bool) -> list[Picture]:
    found = []
    for place, group in enumerate(record.measured):
        drawings = accuracy_drawings(
            group.rows,
            record.looks,
            group.baseline,
            name=str(place),
            heading=_heading(record, group).removesuffix(": "),
        )
        compared = count(sum(1 for row in group.rows if row.difference), "comparison")
        caption = captions.ACCURACY.format(baseline=group.baseline, count=compared)
        if any(len(row.accuracies) == 2 for row in group.rows):
            caption += captions.CUT_OFF
        found.append(Picture(caption, drawings, main=main))
    return found


def _batch_sizes(record: ReproductionRecord) -> list[Picture]:
    found = []
    networks = list(dict.fromkeys(group.network for group in record.measured))
    for place, network in enumerate(networks):
        groups = sorted(
            (group for group in record.measured if group.network == network), key=lambda group: group.batch_size
        )
        methods = dict.fromkeys((row.method, row.label, row.readout) for group in groups for row in group.rows)
        lines = []
        for method, label, readout in methods:
            cells = [(group.batch_size, row) for group in groups for row in group.rows if row.method == method]
            kind = [other for _, its, other in methods if its == label].index(readout)
            sizes, rows = zip(*cells, strict=True)
            lines.append(
                Line(
                    method,
                    record.looks[label],
                    kind,
                    sizes,
                    tuple(row.mean for row in rows),
                    tuple(row.sd for row in rows),
                )
            )
        drawing = batch_size_drawing(f"batch{place}", f"{network}: test accuracy by batch size", lines)
        found.append(Picture(_BATCHES, [drawing], kind="one"))
    return found


def _correlation(record: ReproductionRecord) -> list[Picture]:
    drawings, notes = [], []
    for place, found in enumerate(correlations(record)):
        if found.missing:
            names = ", ".join(found.missing[:3]) + (", …" if len(found.missing) > 3 else "")
            notes.append(f"{found.title} was not measured in {len(found.missing)} of the networks ({names}).")
        if len(found.points) < FEWEST:
            notes.append(f"{found.title}: no panel, because fewer than {FEWEST} networks have it.")
        else:
            drawings.append(correlation_drawing(f"correlation{place}", found))
    return [Picture(_NETWORKS + " ".join(notes), drawings)]


def _trajectories(record: ReproductionRecord, group: GroupRecord, name: str) -> Picture:
    entries = [entry for entry in group.record.entries if entry.runs]
    series = [Series(entry.label, record.looks[entry.label], [run.metrics for run in entry.runs]) for entry in entries]
    drawings = trajectory_drawings(series, name=name, heading=_heading(record, group))
    if not drawings:
        return Picture(f"{_heading(record, group)}{captions.NO_VALIDATION}")
    legend = {entry.label: record.looks[entry.label] for entry in entries}
    return Picture(captions.TRAJECTORIES + captions.SYMBOLS + _SIMPLEXES, drawings, legend)


def _clusters(record: ReproductionRecord, group: GroupRecord, name: str) -> list[Picture]:
    entries = [entry for entry in group.record.entries if entry.runs]
    clouds, names, few = clouds_of(entries)
    heading = _heading(record, group)
    large = tsne_drawings(list(clouds.values()), names, name=f"tsne{name}-")
    small = pca_drawings(list(clouds.values()), names, name=f"pca{name}-")
    if not large and not small:
        return [Picture(f"{heading}There are no finite features to draw.")]
    readouts = ", ".join(method_name(entry.label, primary_readouts(entry)[0]) for entry in entries)
    sampled = captions.sample_note(any(len(one.labels) < one.total for one in clouds.values()), few)
    told = captions.TSNE.format(seed=f"seed {entries[0].runs[0].seed}", readouts=readouts, sample=sampled)
    found = [Picture(heading + told, large)] if large else []
    scale = captions.PCA.format(scale=", all panels on one scale" if len(small) > 1 else "")
    return found + ([Picture(heading + scale, small, kind="small", main=False)] if small else [])

"""A reproduced table or figure: rows of its comparisons, overview, correlation of Figure 2, and what they say.

A reproduction is a list of comparisons; what is said of one of them is said by the comparison's own parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ncmi.readouts.metrics import Unit, unit_of
from ncmi.recipes.names import network_label
from ncmi.report import text
from ncmi.report.published import SOURCE, SOURCE_OF_BAGS, SOURCE_OF_IMAGENET, Images
from ncmi.report.records import Comparison, Reproduction
from ncmi.report.statistics import CONFIDENCE, SHOWN, Row, best_rows, by_readout, comparison_rows, shown_rows
from ncmi.report.text import listed
from ncmi.report.verdict import BY, against_baseline, fineness, highest, missing_baseline, verdict

# three points lie on a line too easily, and Fisher's interval needs four
FEWEST = 4
_IMAGES: Mapping[str, Images] = {"table1": "cifar100", "table2": "imagenet", "table5": "cifar100"}
_CLASSES_OF_IMAGENET = 1000
Rows = Mapping[str, Sequence[Row]]
"""Rows of each group by its name."""


def reproduction_rows(record: Reproduction) -> Rows:
    """The rows of every group: read-out by read-out, in the order of the entries, with the paper's values.

    No value of the paper stands beside what was trained on other data.
    """
    published = None if record.scale == "small" else _IMAGES.get(record.experiment)
    return {
        group.name: _in_order(group, comparison_rows(group, published=_as_published(group, published)))
        for group in record.groups
    }


def _as_published(group: Comparison, images: Images | None) -> Images | None:
    """The paper's images where these are they: a part of ImageNet has fewer classes."""
    return None if images == "imagenet" and len(group.class_names) != _CLASSES_OF_IMAGENET else images


def _in_order(group: Comparison, rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.place, group.entries.index(row.entry)))


def source(record: Reproduction) -> str:
    """Where the paper printed its values."""
    return {"table2": SOURCE_OF_IMAGENET, "table3": SOURCE_OF_BAGS}.get(record.experiment, SOURCE)


def published_note(record: Reproduction) -> str:
    """What the paper's values are, and that nothing here is made of them."""
    return (
        f"Published: the paper's own figure ({source(record)}), printed without a spread; it stands beside what was "
        "measured here and enters no mean, difference or figure."
    )


def group_titles(record: Reproduction) -> list[str]:
    """Titles of the groups, without what all of them begin with: "resnet18, batch 64" is "batch 64"."""
    titles = [group.title for group in record.groups]
    starts = {title.partition(", ")[0] for title in titles}
    if len(titles) > 1 and len(starts) == 1 and all(", " in title for title in titles):
        return [title.partition(", ")[2] for title in titles]
    return titles


def overview(record: Reproduction, rows: Rows, readouts: Sequence[str] = SHOWN) -> dict[str, list[Row | None]]:
    """Methods × groups: by a method's name its row in each group, None in one that lacks it; read-out by read-out."""
    groups = [{row.name: row for row in shown_rows(rows[group.name], readouts)} for group in record.groups]
    labels = list(dict.fromkeys(entry.label for group in record.groups for entry in group.entries))
    methods = {name: row for group in groups for name, row in group.items()}
    places = {name: (list(readouts).index(row.readout), labels.index(row.entry.label)) for name, row in methods.items()}
    return {name: [group.get(name) for group in groups] for name in sorted(methods, key=places.__getitem__)}


# --- Figure 2


@dataclass(frozen=True)
class Association:
    """Correlation of two measures over ``n`` networks: Pearson's r with its 95 % interval, Spearman's ρ.

    The interval is Fisher's, by the inverse hyperbolic tangent; None with fewer than four networks or |r| = 1.
    """

    n: int
    r: float
    interval: tuple[float, float] | None
    rho: float

    def in_words(self) -> str:
        """Pearson's r with its interval."""
        bounds = f" (95 % interval {Unit(1.0, 2).interval(self.interval)})" if self.interval else " (no interval)"
        return f"Pearson r = {text.fixed(self.r)}{bounds}"


@dataclass(frozen=True)
class Point:
    """One network: mean NCMI and mean accuracy in percent over its seeds, and those of each seed."""

    label: str
    network: str
    epochs: int
    ncmi: float
    accuracy: float
    seeds: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Correlation:
    """All networks by one definition of Γ, with r on the axis as plotted and on the raw values."""

    separation: str
    title: str
    points: tuple[Point, ...]
    missing: tuple[str, ...]
    logarithmic: bool
    plotted: Association
    raw: Association

    def in_words(self) -> str:
        """The correlation as plotted, and on the raw values where these differ."""
        words = f"{self.plotted.n} networks: {self.plotted.in_words()}"
        if self.logarithmic:
            words += f" with the logarithm of NCMI as plotted; {self.raw.in_words()} with NCMI itself"
        return f"{words}; Spearman ρ = {text.fixed(self.raw.rho)}"


def associate(x: Sequence[float], y: Sequence[float]) -> Association:
    """Pearson's r with Fisher's interval, and Spearman's ρ; NaN without spread or with fewer than three pairs.

    >>> associate([1, 2, 3, 4], [2, 4, 6, 8]).r
    1.0
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Association(n, math.nan, None, math.nan)
    r = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    rho = float(stats.spearmanr(x, y).statistic)
    if n < FEWEST or abs(r) > 1 - 1e-12:
        return Association(n, r, None, rho)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) / math.sqrt(n - 3)
    return Association(n, r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)), rho)


def correlations(record: Reproduction, rows: Rows) -> tuple[Correlation, ...]:
    """NCMI against the accuracy of the head, over networks: by both definitions of Γ, by centroid KL first."""
    heads = [row for group in record.groups for row in by_readout(rows[group.name]).get("head", [])]
    return (
        _correlation(heads, "centroid_kl", "ncmi", "Γ by centroid KL"),
        _correlation(heads, "cross_entropy", "cross_entropy_ncmi", "Γ by cross-entropy"),
    )


def _correlation(rows: Sequence[Row], separation: str, key: str, title: str) -> Correlation:
    points, missing = [], []
    for row in rows:
        value, accuracy = row.information[key], 100 * row.scores["accuracy"].mean
        if not (math.isfinite(value) and math.isfinite(accuracy)):
            missing.append(row.entry.label)
            continue
        first, results = row.entry.runs[0], [run.finished for run in row.entry.runs]
        seeds = [(getattr(run.information, key), run.readouts[row.readout].test.accuracy.value) for run in results]
        known = tuple((ncmi, 100 * share) for ncmi, share in seeds if ncmi is not None and share is not None)
        # one name stands for several sizes
        sized = first.network == "resnet_small"
        name = f"width {first.recipe['network'].get('width')}" if sized else first.network_label
        points.append(Point(row.entry.label, name, first.epochs, value, accuracy, known))
    values, accuracies = [point.ncmi for point in points], [point.accuracy for point in points]
    logarithmic = bool(values) and min(values) > 0 and max(values) / min(values) > 10
    raw = associate(values, accuracies)
    plotted = associate([math.log10(value) for value in values], accuracies) if logarithmic else raw
    return Correlation(separation, title, tuple(points), tuple(missing), logarithmic, plotted, raw)


# --- words


def reproduction_verdict(record: Reproduction, rows: Rows) -> list[str]:
    """Paragraphs: what was found in each group, then how finely it was measured."""
    if record.experiment == "figure2":
        sentences = _correlation_words(record, rows)
    elif record.experiment == "figure3":
        sentences = _batch_sizes(record, rows)
    else:
        sentences = []
        for group in record.measured:
            start = f"{group.title}: " if len(record.groups) > 1 else ""
            sentences.append(
                start + " ".join((verdict if group.kind == "bags" else _group_words)(group, rows[group.name]))
            )
    if all(group.kind != "bags" for group in record.groups):
        sentences += fineness(record.runs)
    if left := len(record.unfinished):
        sentences.append(f"{left} of {left + len(record.runs)} runs have not finished: this is not the last word.")
    return sentences


def _group_words(group: Comparison, rows: Sequence[Row]) -> list[str]:
    """Which rows are highest by each read-out, and how they and the best NCMI row there stand to the baseline."""
    score = group.judged[0]
    sentences = [highest(rows, score), *(missing := missing_baseline(group))]
    for same in [] if missing else by_readout(rows).values():
        others = [row for row in same if not row.is_baseline and math.isfinite(row.scores[score].mean)]
        ours = [row for row in others if row.entry.objective == "ncmi"]
        best = [row for row in best_rows(same, score) if not row.is_baseline]
        judged = [*best, *best_rows(ours, score)] or best_rows(others, score)
        sentences += [against_baseline(group, row) for row in dict.fromkeys(judged)]
    return sentences


def _correlation_words(record: Reproduction, rows: Rows) -> list[str]:
    sentences = []
    for correlation in correlations(record, rows):
        start, (low, high) = f"NCMI with {correlation.title}", correlation.plotted.interval or (-1, 1)
        if not math.isfinite(correlation.plotted.r):
            sentences.append(f"{start}: too few networks, or no spread, for a correlation.")
            continue
        side = "lower" if correlation.plotted.r < 0 else "higher"
        judgment = f"distinguishable from zero: the {side} NCMI, the higher the accuracy"
        sentences.append(
            f"{start} against test accuracy by the trained head over {correlation.in_words()}. The correlation is "
            f"{judgment if low > 0 or high < 0 else 'not distinguishable from zero'}."
        )
    return sentences


def batch_groups(record: Reproduction) -> dict[str, list[Comparison]]:
    """The measured groups of each network, by batch size."""
    groups: dict[str, list[Comparison]] = {}
    for group in sorted(record.measured, key=batch_size):
        groups.setdefault(group.networks[0], []).append(group)
    return groups


def batch_size(group: Comparison) -> int:
    """Samples of a step, the same in all runs of a group."""
    return group.runs[0].batch_size if group.runs else 0


def _batch_sizes(record: Reproduction, rows: Rows) -> list[str]:
    """For each network: who is highest at which batch sizes, where that is clear, and how far each method moves."""
    sentences = []
    for network, groups in batch_groups(record).items():
        baseline, score = groups[0].baseline_label, groups[0].judged[0]
        unit = unit_of(groups[0].kind, score)
        highest_at: dict[str, list[str]] = {}
        clear_at: dict[str, list[str]] = {}
        means: dict[str, list[float]] = {}
        for group in groups:
            size = str(batch_size(group))
            for readout, same in by_readout(rows[group.name]).items():
                for row in best_rows(same, score):
                    highest_at.setdefault(f"{BY[readout]} {row.entry.label}", []).append(size)
                for row in same:
                    if sign := row.scores[score].compared.sign:
                        side = f"{row.name} is {'above' if sign > 0 else 'below'} {baseline}"
                        clear_at.setdefault(side, []).append(size)
                    if math.isfinite(row.scores[score].mean):
                        means.setdefault(row.name, []).append(row.scores[score].mean)
        sentences.append(f"{network_label(network)}, highest mean: {_at_sizes(highest_at)}.")
        sentences.append(
            f"By paired differences between the same read-outs: {_at_sizes(clear_at)}; elsewhere not distinguishable."
            if clear_at
            else f"No paired difference from {baseline} is distinguishable from zero at any batch size."
        )
        moves = [
            f"{method} {text.fixed(unit.factor * (max(values) - min(values)))}"
            for method, values in means.items()
            if len(values) > 1
        ]
        if moves:
            sentences.append(f"From its best to its worst batch size a mean moves by, in points: {', '.join(moves)}.")
    return sentences


def _at_sizes(sizes: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{who} at {'batch size' if len(at) == 1 else 'batch sizes'} {listed(at)}" for who, at in sizes.items()
    )

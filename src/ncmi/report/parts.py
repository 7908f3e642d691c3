"""Tables and figures that pages share, each from runs, entries or rows of any kind of data."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ncmi.readouts.metrics import SHARE, in_words, unit_of
from ncmi.recipes.names import READOUTS, method_label
from ncmi.report import charts, clouds, decision_charts, epoch_charts, score_charts, text
from ncmi.report.page import Figure
from ncmi.report.palette import Style
from ncmi.report.records import Comparison, EntryRuns, Run
from ncmi.report.statistics import Row, by_readout
from ncmi.report.tables import KEYS, Cell, Table, TableRow, estimate_cell, numeric, readout_name, table_row
from ncmi.report.verdict import BY
from ncmi.training.schema import OutOfDistribution, Readout

_EPOCH_MEASURES = ("validation_cmi", "validation_separation", "validation_ncmi")
_EPOCH_SCORES = {
    "table": ("validation_accuracy",),
    "image": ("validation_accuracy",),
    "bags": ("validation_macro_f1", "validation_macro_auc"),
}
_CALIBRATION: dict[str, tuple[Callable[[Readout], float | None], int]] = {
    "NLL": (lambda readout: readout.test.nll, 4),
    "NLL, /τ": (lambda readout: readout.calibration.nll if readout.calibration else None, 4),
    "ECE %": (lambda readout: _percent(readout.test.calibration_error), 2),
    "ECE %, /τ": (lambda readout: _percent(readout.calibration.calibration_error) if readout.calibration else None, 2),
    "Brier": (lambda readout: readout.test.brier, 4),
    "τ": (lambda readout: readout.calibration.temperature if readout.calibration else None, 2),
}
_OOD_SCORES = {
    "distance": "distance to the nearest centroid",
    "distance_ratio": "nearest / mean of the other distances",
    "max_probability": "1 − highest probability ({readout})",
    "feature_norm": "feature norm, shorter is further out",
}


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± sample standard deviation, without one of a single value."""
    words = text.fixed(float(np.mean(values)) if values else math.nan, digits)
    return f"{words} ± {text.fixed(float(np.std(values, ddof=1)), digits)}" if len(values) > 1 else words


# --- scores


def dots_figure(
    record: Comparison, rows: Sequence[Row], styles: Mapping[str, Style], *, name: str = "", heading: str = ""
) -> Figure | None:
    """Scores seed by seed, and paired differences from the baseline: a group of charts for each read-out.

    With several networks each is a row with a series for each objective, otherwise each objective is a row.
    """
    several = len(record.networks) > 1
    point = "repeat" if record.folds else "seed"
    groups: dict[str, list[charts.Chart]] = {}
    compared = 0
    for readout, same in by_readout(rows).items():
        group = groups[readout_name(readout)] = []
        for score in record.judged:
            unit, means, differences = unit_of(record.kind, score), [], []
            for row in sorted(same, key=lambda row: record.networks.index(row.entry.network)) if several else same:
                value, series = row.scores[score], row.entry.objective_label
                label = row.entry.network_label if several else row.method
                points = dict(zip(map(str, row.seeds), value.values, strict=False))
                means.append(score_charts.Dots(label, series, value.mean, value.interval, points))
                if difference := value.difference:
                    points = dict(zip(map(str, difference.seeds), difference.values, strict=True))
                    differences.append(score_charts.Dots(label, series, difference.mean, difference.interval, points))
                elif not several:
                    # an empty row, so that both panels go line by line
                    differences.append(score_charts.Dots(label, series, math.nan))
            means_of_baseline = [row.scores[score].mean for row in same if row.is_baseline and not several]
            baseline = next(iter(means_of_baseline), math.nan)
            ends, measure, percent = f"{name}-{readout}-{score}", in_words(score), unit.factor == 100
            draw = partial(score_charts.dots_chart, styles=styles, unit=unit, point=point)
            title, axis = f"{heading}Test {measure} {BY[readout]}", f"test {measure}" + ", %" * percent
            axis += f"   (dashed: mean of {record.baseline_label})" if math.isfinite(baseline) else ""
            group.append(draw(f"scores{ends}", title, axis, means, reference=baseline))
            if count := sum(math.isfinite(dot.mean) for dot in differences):
                compared += count
                title = f"{heading}Paired difference from {record.baseline_label}"
                axis = f"difference in {measure} {BY[readout]}" + ", points" * percent
                group.append(draw(f"differences{ends}", title, axis, differences, reference=0.0))
    if not groups:
        return None
    # first the read-outs by which there is something to compare
    groups = dict(sorted(groups.items(), key=lambda item: len(item[1]) == len(record.judged)))
    return Figure("dots", groups, {"record": record, "count": compared})


def epochs_figure(
    entries: Sequence[EntryRuns],
    styles: Mapping[str, Style],
    *,
    name: str = "",
    heading: str = "",
    reproduction: bool = False,
) -> Figure | None:
    """Curves of every entry over its seeds; None where no run has a validation part."""
    metrics = {entry.label: [run.metrics for run in entry.runs] for entry in entries}
    measures = (*_EPOCH_MEASURES, *_EPOCH_SCORES[entries[0].runs[0].kind])
    drawn = epoch_charts.epoch_charts(metrics, styles, measures, name=name, heading=heading)
    return Figure("epochs", {"": drawn}, {"reproduction": reproduction}) if drawn else None


# --- features and classes


def cluster_figures(
    runs: Mapping[str, Run], featured: Iterable[str], *, name: str = "", heading: str = ""
) -> list[Figure]:
    """Large t-SNE pictures of the featured runs, then small principal components of all, by label.

    Errors are those of each run's first read-out.
    """
    first = next(iter(runs.values()))
    names = first.finished.class_names
    classes = clouds.drawn_classes(names)
    shown = [names[index] for index in classes]
    readouts = {label: run.finished.primary_readouts[0] for label, run in runs.items()}
    drawn = {label: clouds.make_cloud(label, run.outputs(), readouts[label], classes) for label, run in runs.items()}
    featured = list(featured)
    large = clouds.tsne_charts([drawn[label] for label in featured], shown, name=f"tsne{name}-")
    small = clouds.pca_charts(list(drawn.values()), shown, name=f"pca{name}-")
    figures = []
    if large:
        values = {
            "seed": first.seed,
            "methods": [method_label(label, readouts[label]) for label in featured],
            "most": clouds.MOST_POINTS,
            "sampled": any(len(cloud.labels) < cloud.total for cloud in drawn.values()),
            "few": shown if len(shown) < len(names) else [],
        }
        figures.append(Figure("tsne", {"": large}, values, heading=heading))
    if small:
        several = len(small) > 1
        kind = "small" if several else "single"
        figures.append(Figure("pca", {"": small}, {"several": several}, kind, heading))
    return figures


def confusion_figure(runs: Mapping[tuple[str, str], Sequence[Run]], over: str = "") -> Figure | None:
    """Confusion matrices by (label, read-out), and the most frequent confusions in words."""
    drawn, worst, names = [], {}, []
    for place, ((label, readout), same) in enumerate(runs.items()):
        names, outputs = same[0].finished.class_names, [run.outputs() for run in same]
        pairs = [(output.labels, output.predictions[readout]) for output in outputs if readout in output.predictions]
        if pairs:
            method, counts = method_label(label, readout), decision_charts.confusion(pairs, len(names))
            drawn.append(decision_charts.confusion_chart(f"confusion{place}", method, counts, names))
            worst[method] = decision_charts.worst_pairs(counts, names)
    values = {"over": over, "counted": len(names) <= decision_charts.MOST_COUNTS, "worst": worst}
    return Figure("confusion", {"": drawn}, values) if drawn else None


def classes_table(entries: Iterable[tuple[str, Sequence[Run]]]) -> Table:
    """Precision, recall and F1 of each class by every read-out of (label, runs), and its samples in every part.

    Means over runs; of a single run recall has its interval.
    """
    lines, listed_entries = [], list(entries)
    # the test part's are the support; runs may be from before they counted the others
    counted = [run.finished.class_counts for _, runs in listed_entries for run in runs]
    parts = [name for name in ("train", "validation") if counted and all(name in counts for counts in counted)]
    judged = {run.finished.judged for _, runs in listed_entries for run in runs}
    part = judged.pop() if len(judged) == 1 else "test"
    parts = [name for name in parts if name != part]
    for label, runs in listed_entries:
        first = runs[0].finished
        sizes = {name: np.mean([run.finished.class_counts[name] for run in runs], axis=0) for name in parts}
        for readout in first.readouts:
            tests = [run.finished.readouts[readout].test for run in runs if readout in run.finished.readouts]
            usual = readout in ("cc", "lp") or (readout in first.primary_readouts and readout != "knn")
            for number, scores in enumerate(zip(*(test.classes for test in tests), strict=False)):
                recall = _mean(score.recall.value for score in scores)
                line: list[Cell | str] = [
                    Cell(scores[0].name),
                    *(text.fixed(float(counts[number]), 0) for counts in sizes.values()),
                    text.fixed(float(np.mean([score.support for score in scores])), 0),
                    _mean(score.precision for score in scores),
                    recall if len(scores) > 1 else estimate_cell(scores[0].recall, SHARE),
                    _mean(score.f1 for score in scores),
                ]
                keys = (label, readout_name(readout), scores[0].name)
                lines.append(table_row(method_label(label, readout), *line, keys=keys, usual=usual))
    headings = ("Method", "class", *parts, part, "precision", "recall", "F1")
    return Table("classes", headings, lines, (*KEYS, "Class"))


def _mean(values: Iterable[float | None]) -> str:
    """Mean of the shares that are defined."""
    known = [value for value in values if value is not None]
    return SHARE.fixed(float(np.mean(known)) if known else None)


# --- calibration and out-of-distribution


def calibration_table(methods: Mapping[tuple[str, str], Sequence[Run]], names: Mapping[tuple[str, str], str]) -> Table:
    """How far the probabilities of methods, by (label, read-out), can be trusted: means over their runs.

    In bold the lowest mean of each read-out, in the decimals that are written, of the methods with the most runs.
    """
    measured: dict[tuple[str, str], list[Readout]] = {}
    for key, runs in methods.items():
        readouts = [run.finished.readouts[key[1]] for run in runs if key[1] in run.finished.readouts]
        if known := [readout for readout in readouts if readout.test.brier is not None]:
            measured[key] = known
    most = max(map(len, measured.values()), default=0)
    cells: dict[tuple[str, str], list[Cell | str]] = {
        key: [] if most == 1 else [str(len(readouts))] for key, readouts in measured.items()
    }
    for heading, (measure, digits) in _CALIBRATION.items():
        values = {
            key: [value for readout in readouts if (value := measure(readout)) is not None]
            for key, readouts in measured.items()
        }
        means = {key: round(float(np.mean(values[key])), digits) for key in measured if values[key]}
        for key in measured:
            rivals = [means[other] for other in means if other[1] == key[1] and len(measured[other]) == most]
            full = len(measured[key]) == most and len(rivals) > 1 and heading != "τ"
            best = full and means.get(key) == min(rivals)
            cells[key].append(numeric(mean_sd(values[key], digits), bold=best))
    lines = [table_row(names[key], *cells[key], keys=(key[0], readout_name(key[1]))) for key in measured]
    return Table("calibration", ("Method", *["n"] * (most != 1), *_CALIBRATION), lines, KEYS)


def ood_table(entries: Iterable[tuple[str, Sequence[Sequence[OutOfDistribution]]]]) -> tuple[Table, str] | None:
    """How well (label, what each run has seen) tell out-of-distribution data: means over runs; None without any."""
    lines, sizes = [], {}
    for label, runs in entries:
        records = [record for run in runs for record in run]
        for data in dict.fromkeys(record.data for record in records):
            same = [record for record in records if record.data == data]
            name = Path(data).name or data
            sizes[name] = f"{name}: {same[0].num_outside} samples against {same[0].num_inside} of the test part"
            for score in dict.fromkeys(score for record in same for score in record.scores):
                detections = [record.scores[score] for record in same if score in record.scores]
                words = _OOD_SCORES.get(score, score).format(readout=READOUTS.get(same[0].readout, same[0].readout))
                shares = [[detection.auroc for detection in detections], [detection.fpr95 for detection in detections]]
                cells = [str(len(detections)), *(mean_sd([100 * share for share in column]) for column in shares)]
                lines.append(table_row(label, Cell(name), Cell(words), *cells, keys=(label, name, words)))
    if not lines:
        return None
    headings = ("Method", "data", "score", "n", "AUROC %", "FPR95 %")
    return Table("out-of-distribution", headings, lines, ("Loss", "Data", "Score")), "; ".join(sizes.values()) + "."


# --- how it was run


def how_it_ran(command: str, runs: Sequence[Run], machines: Sequence[dict[str, Any]], *, objective: bool) -> Any:
    """Commands to do it again, and what runs share or where they differ; the objective only where it is asked for."""
    left_out = {"format", "training"} | (set() if objective else {"objective"})
    kept = [{key: value for key, value in run.recipe.items() if key not in left_out} for run in runs]
    return {
        "command": command,
        "training": text.shared_settings([run.recipe["training"] for run in runs]),
        "other": text.shared_settings(kept),
        "environment": text.environment_settings(machines),
    }


def entries_table(entries: Iterable[EntryRuns]) -> Table:
    """Options of every entry's network and objective, by label."""
    lines = []
    for label, runs in {entry.label: entry.runs for entry in entries if entry.runs}.items():
        options = [text.section_options([run.recipe[key] for run in runs]) for key in ("network", "objective")]
        lines.append(TableRow([Cell(words) for words in (label, *options)]))
    return Table("entries", ("Entry", "network", "objective"), lines, kind="plain", sortable=False)

"""The pages of a run, a comparison and a reproduction: what their templates need, as plain values."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ncmi.readouts.metrics import SCORES, SHARE, heading_of, in_words, unit_of
from ncmi.recipes.names import READOUTS, method_label, network_label
from ncmi.report import attention, charts, decision_charts, epoch_charts, heat_maps, parts, score_charts, text
from ncmi.report.mistakes import mistakes
from ncmi.report.page import Figure, link, render
from ncmi.report.palette import Style, styles
from ncmi.report.published import SOURCE, SOURCE_OF_BAGS
from ncmi.report.records import SCALES, Comparison, EntryRuns, ReportError, Reproduction, Run, UnfinishedRun
from ncmi.report.reproduction import (
    FEWEST,
    Rows,
    batch_groups,
    batch_size,
    correlations,
    published_note,
    reproduction_verdict,
)
from ncmi.report.statistics import WILCOXON_MINIMUM, Row, score_value, shown_rows
from ncmi.report.tables import (
    Cell,
    Table,
    TableRow,
    fold_table,
    has_published,
    numeric,
    overview_table,
    rows_table,
    score_cell,
    scores_table,
    table_row,
    tone,
)
from ncmi.report.verdict import run_verdict, verdict
from ncmi.training.schema import Results, multiple_in_words

PARTS = ("train", "validation", "test")
# more than this says little more, or makes a page of many megabytes
_MOST_MATRICES, _MOST_CLASSES, _MOST_SLIDES, _FEATURED = 2, 30, 8, 2
_TONES = ("blue", "orange", "green", "pink")
_CURVES = ("train_loss", "train_penalty", "validation_loss")
_COURSES = {"validation_cmi": "CMI, nats", "validation_separation": "Γ, nats", "validation_ncmi": "NCMI"}


def run_page(run: Run, path: Path, *, tiles: Path | None = None, slides: Path | None = None) -> str:
    """The page of a run, finished or not, that will be written to ``path``.

    Raises:
        ReportError: if a file of the run folder is damaged, or ``tiles`` or ``slides`` is no folder.
    """
    results, name = run.results, run.folder.resolve().name
    values = _finished(run, results, attention.Sources(slides, tiles)) if results else {}
    command = f"ncmi report {shlex.quote(name)}   # this page, from the run folder"
    return render(
        "run",
        path,
        simulation=results is not None and results.simulation,
        run=run,
        results=results,
        name=name,
        verdict=run_verdict(run),
        epochs=_epochs_of_a_run(run),
        how=parts.how_it_ran(command, [run], [run.environment], objective=True),
        **values,
    )


def _epochs_of_a_run(run: Run) -> Figure | None:
    results = run.results
    measures = (*(name for name in epoch_charts.MEASURES if name not in _CURVES), *_CURVES)
    kept = results.best_epoch if results is not None and results.selection == "best" else None
    look = styles([(run.label, run.objective)])
    drawn = epoch_charts.epoch_charts({run.label: [run.metrics]}, look, measures, kept=kept)
    return Figure("epochs_of_a_run", {"": drawn}, {"kept": kept}) if drawn else None


def _finished(run: Run, results: Results, sources: attention.Sources) -> dict[str, Any]:
    """What the template needs of a finished run."""
    outputs, oods, names, primary = run.outputs(), run.ood(), results.class_names, results.primary_readouts
    methods = {(run.label, name): method_label(run.label, name) for name in results.readouts}
    places = {name: f"roc{at}" for at, name in enumerate(primary[:_MOST_MATRICES]) if name in outputs.probabilities}
    roc = [
        decision_charts.roc_chart(place, methods[run.label, name], outputs.labels, outputs.probabilities[name], names)
        for name, place in places.items()
    ]
    distances = [decision_charts.distances_chart(f"distances{at}", ood) for at, ood in enumerate(oods)]
    reliability = [chart for name in primary for chart in _reliability(methods[run.label, name], name, results)]
    slides = _read_slides(run) if run.kind == "bags" else None
    return {
        "first": primary[0],
        "scores": _scores(run, results),
        "recall": _recall(run, results) if len(names) <= _MOST_CLASSES else None,
        "confusion": parts.confusion_figure({(run.label, name): [run] for name in primary[:_MOST_MATRICES]}),
        "classes": parts.classes_table([(run.label, [run])]),
        "mistakes": mistakes(run),
        "has_roc": bool(outputs.probabilities),
        "roc": Figure("roc", {"": [chart for chart in roc if chart]}, {"names": names}),
        "clusters": parts.cluster_figures({run.label: run}, [run.label]),
        "calibration": parts.calibration_table({key: [run] for key in methods}, methods),
        "reliability": Figure("reliability", {"": reliability}),
        "ood": parts.ood_table([(run.label, [oods])]),
        "distances": Figure("distances", {"": distances}),
        "attention": None if slides is None else _attention(run, slides, sources),
        "cohort": None if slides is None else _cohort(results, slides),
    }


def _scores(run: Run, results: Results) -> Table:
    """Every score by every read-out, with its interval where there is one, and what is judged on validation data."""
    lines = []
    top5 = any(readout.test.top5_accuracy is not None for readout in results.readouts.values())
    judged = run.judged if results.num_validation else ()
    for name, readout in results.readouts.items():
        primary, validation = name in results.primary_readouts, readout.validation
        cells: list[Cell | str] = [score_cell(readout.test, score, run.kind) for score in run.scores]
        cells += [unit_of(run.kind, "top5_accuracy").fixed(readout.test.top5_accuracy)] if top5 else []
        cells += [score_cell(validation, score, run.kind) if validation else text.MISSING for score in judged]
        title = method_label(run.label, name) + " (primary)" * primary
        lines.append(table_row(title, *cells, kind="own" if primary else ""))
    headings = [heading_of(run.kind, score) for score in (*run.scores, *["top5_accuracy"] * top5)]
    headings += [f"Validation {in_words(score)}{unit_of(run.kind, score).sign}" for score in judged]
    return Table("scores", ("Test data", *headings), lines)


def _recall(run: Run, results: Results) -> Figure | None:
    """Recall of every class by every primary read-out."""
    primary = results.primary_readouts
    looks = {method_label(run.label, name): Style(_TONES[at % len(_TONES)]) for at, name in enumerate(primary)}
    dots = []
    for index, name in enumerate(results.class_names):
        for method, readout in zip(looks, primary, strict=True):
            classes = results.readouts[readout].test.classes
            if classes and (recall := classes[index].recall).value is not None:
                bounds = (recall.low, recall.high) if recall.low is not None and recall.high is not None else None
                row = f"{text.short(name, 24)} ({classes[index].support})"
                dots.append(score_charts.Dots(row, method, float(recall.value), bounds))
    if not dots:
        return None
    axis = "recall (in brackets: test samples)"
    chart = score_charts.dots_chart("recall", "Recall of each class", axis, dots, looks, SHARE, domain=(-0.02, 1.02))
    confidence = results.readouts[primary[0]].test.confidence if any(dot.interval for dot in dots) else None
    return Figure("recall", {"": [chart]}, {"confidence": confidence, "kind": run.kind}, "one")


def _reliability(method: str, name: str, results: Results) -> list[charts.Chart]:
    readout = results.readouts[name]
    scale = text.significant(readout.calibration.temperature) if readout.calibration else text.MISSING
    titles = dict.fromkeys(readout.reliability, f"{method}, as trained")
    titles["calibrated"] = f"{method}, divided by τ = {scale}"
    return [
        decision_charts.reliability_chart(f"reliability-{name}-{state}", titles[state], bins)
        for state, bins in readout.reliability.items()
    ]


# --- bags: the cohort, and where the network looked


def _read_slides(run: Run) -> pd.DataFrame:
    """The table of all slides, by their names."""
    path, names = run.folder / "slides.csv", run.finished.class_names
    try:
        words = dict.fromkeys(("slide", "patient", "part", "label"), str)
        slides = pd.read_csv(path, dtype=words, keep_default_na=False, encoding="utf-8").set_index("slide")
        slides["class"] = [names.index(label) for label in slides["label"]]
        columns = map(str, slides)
        numbers = [
            name
            for name in columns
            if name in ("instances", "slides") or name.partition(":")[0] in run.finished.readouts
        ]
        slides[numbers] = slides[numbers].astype(float)
        known = len(slides) > 0 and slides["part"].isin(PARTS).all() and slides["patient"].notna().all()
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{path}: damaged or missing ({error}): restore it or run it again") from None
    if not known or "instances" not in slides:
        raise ReportError(f"{path}: holds no slides of {', '.join(PARTS)}: restore it or run it again")
    return slides


def _cohort(results: Results, slides: pd.DataFrame) -> dict[str, Any]:
    """Sizes of the parts, whether patients stand in two of them, and what was left out."""
    lines = []
    for part in PARTS:
        same = slides[slides["part"] == part]
        if len(same):
            low, middle, high = (f"{int(count):,}" for count in same["instances"].quantile([0, 0.5, 1]))
            count = int(same["slides"].sum()) if "slides" in same else len(same)
            words = (str(count), str(same["patient"].nunique()), f"{int(same['instances'].sum()):,}")
            counts = np.bincount(same["class"], minlength=len(results.class_names))
            lines.append(table_row(part, *words, f"{middle} ({low} … {high})", *map(str, counts)))
    each = "patient" if "slides" in slides else "slide"
    headings = ("Part", "slides", "patients", "patches", f"patches a {each}: middle (range)", *results.class_names)
    skipped = [TableRow([Cell(slide.name), Cell(slide.reason)]) for slide in results.skipped]
    return {
        "table": Table("cohort", headings, lines),
        "leaks": bool(slides.groupby("patient")["part"].nunique().max() > 1),
        "skipped": Table("left-out", ("Slide", "reason"), skipped, kind="plain", sortable=False),
    }


def _attention(run: Run, slides: pd.DataFrame, sources: attention.Sources) -> dict[str, Any] | None:
    """The slides of a run whose attention was kept, by true class: how each was decided, and where it was looked."""
    files = attention.attention_files(run.folder)
    # where a patient's slides are one bag, the table is of patients, and the files say which
    of_patients = "slides" in slides
    known = [attention.read_attention(path) for name, path in files.items() if of_patients or name in slides.index]
    rows = {weights.slide: weights.patient or weights.slide for weights in known}
    known = [weights for weights in known if rows[weights.slide] in slides.index]
    ordered = sorted(known, key=lambda weights: (slides.loc[rows[weights.slide], "class"], weights.slide))
    step = max(1.0, len(ordered) / _MOST_SLIDES)
    chosen = [ordered[int(place * step + 1e-9)] for place in range(min(len(ordered), _MOST_SLIDES))]
    shown = [
        _slide(f"heat{at}", run, dict(slides.loc[rows[weights.slide]]), weights, sources)
        for at, weights in enumerate(chosen)
    ]
    return {"slides": shown, "total": len(ordered)} if shown else None


def _slide(
    name: str, run: Run, slide: Mapping[str, Any], weights: attention.Attention, sources: attention.Sources
) -> dict[str, Any]:
    """What the template needs of one slide with attention."""
    weights, picture = sources.look(weights)
    names, primary, top = run.finished.class_names, run.finished.primary_readouts, weights.top()
    lines = []
    for readout in primary:
        values = [float(slide[f"{readout}:{label}"]) for label in names]
        cells = [numeric(SHARE.fixed(value), bold=value == max(values)) for value in values]
        lines.append(table_row(method_label(run.label, readout), *cells))
    headings = [f"{label} (true)" if label == slide["label"] else label for label in names]
    values = [float(slide[f"{primary[0]}:{label}"]) for label in names]
    corners = [] if weights.coords is None else [(int(x), int(y)) for x, y in weights.coords[top]]
    places = [[str(number) for number in corner] for corner in corners or zip(top)]
    shares = [f"{text.significant(float(weights.relative[index]))}×" for index in top]
    ranks = [
        table_row(str(rank), *place, share, f"{100 * weights.values[index]:.1f} %")
        for rank, (index, place, share) in enumerate(zip(top, places, shares, strict=True), start=1)
    ]
    where = ("x", "y") if corners else ("patch number",)
    return {
        "name": weights.slide
        + (f", {weights.share:.0%} of the attention over patient {weights.patient}" if weights.patient else ""),
        "row": slide,
        "decided": names[int(np.argmax(values))],
        "probability": max(values),
        "probabilities": Table("probabilities", ("Probability of", *headings), lines, sortable=False),
        "attention": weights,
        "share": 100 * float(weights.values[top].sum()),
        "top": Table(f"top-{weights.slide}", ("Top", *where, "attention / even", "share"), ranks, sortable=False),
        "picture": picture,
        "maps": heat_maps.heat_maps(name, weights, picture) if corners else [],
        "patches": [heat_maps.jpeg(image) for image in picture.patches],
        "shares": shares,
    }


# --- comparisons


def comparison_page(record: Comparison, rows: Sequence[Row], path: Path) -> str:
    """The page of a comparison with these rows that will be written to ``path``."""
    entries = _ordered(record, rows)
    featured = _featured(record, entries)
    runs = {entry.label: entry.runs for entry in entries}
    matrices = {(entry.label, entry.runs[0].finished.primary_readouts[0]): entry.runs for entry in featured}
    several = len(record.seeds) > 1
    names = {(row.entry.label, row.readout): row.name for row in shown_rows(rows)}
    command = record.command or f"ncmi compare {shlex.quote(record.data)}"
    again = f"{command}\nncmi report {shlex.quote(record.folder.resolve().name)}   # this page, from the run folders"
    looks = styles((entry.objective_label, entry.objective) for entry in entries)
    return render(
        "comparison",
        path,
        simulation=record.simulation,
        record=record,
        objectives=len({entry.objective_label for entry in record.entries}),
        verdict=verdict(record, rows),
        scores=scores_table(record, rows),
        all_scores=_all_scores(record, rows),
        source=(SOURCE_OF_BAGS if record.kind == "bags" else SOURCE) if has_published(rows) else "",
        dots=parts.dots_figure(record, rows, looks),
        fold_table=fold_table(record, rows) if record.folds else None,
        pooled=all(row.pooled for row in rows),
        epochs=parts.epochs_figure(entries, styles((entry.label, entry.objective) for entry in entries)),
        clusters=parts.cluster_figures({label: same[0] for label, same in runs.items()}, (e.label for e in featured)),
        confusion=parts.confusion_figure(matrices, ", summed over all seeds" if several else ""),
        classes=parts.classes_table((entry.label, entry.runs) for entry in featured),
        calibration=parts.calibration_table({key: runs[key[0]] for key in names}, names),
        ood=parts.ood_table((label, [run.ood() for run in same]) for label, same in runs.items()),
        how=parts.how_it_ran(again, record.runs, record.machines, objective=False),
        entries=parts.entries_table(record.entries),
        runs=_runs_table(record, path),
    )


def _ordered(record: Comparison, rows: Sequence[Row]) -> list[EntryRuns]:
    """Entries with finished runs: NCMI, then the baseline, then the others as they stand in the table."""
    place = {label: index for index, label in enumerate(dict.fromkeys(row.entry.label for row in rows))}
    rank = {"ncmi": 0, record.baseline: 1}
    entries = [entry for entry in record.entries if entry.label in place]
    return sorted(entries, key=lambda entry: (rank.get(entry.objective, 2), place[entry.label]))


def _featured(record: Comparison, entries: Sequence[EntryRuns]) -> list[EntryRuns]:
    """The two entries with large pictures: the first, and its network's baseline or else the second."""
    same = [entry for entry in entries if entry.network == entries[0].network]
    baseline = [entry for entry in same if entry.objective == record.baseline]
    return list({entry.label: entry for entry in [entries[0], *baseline[:1], *same]}.values())[:_FEATURED]


def _all_scores(record: Comparison, rows: Sequence[Row]) -> Table:
    """Every score with its interval, its difference and, where it is judged by, Wilcoxon's p from five pairs on."""

    def cells(row: Row) -> list[Cell]:
        line = [numeric(str(len(row.seeds)))]
        for name in SCORES:
            score, unit, below = row.scores[name], unit_of(record.kind, name), []
            if score.interval:
                below.append(Cell(unit.bounds(score.interval)))
            if difference := score.difference:
                below.append(Cell(f"Δ {unit.signed(difference.mean)}", tone=tone(difference)))
                if name in record.judged and len(difference.values) >= WILCOXON_MINIMUM:
                    below.append(Cell(f"p = {text.significant(difference.wilcoxon_p, 2)}"))
            line.append(numeric(unit.mean_sd(score.mean, score.sd), below=below))
        return line

    headings = ["Method", "n", *(heading_of(record.kind, name) for name in SCORES)]
    return rows_table("all-scores", rows, headings, cells)


def _runs_table(record: Comparison, path: Path) -> Table:
    judged, lines = record.judged, []
    tuned = any(run.tuning for run in record.runs)
    for entry in record.entries:
        for run in entry.runs:
            scores = " · ".join(
                f"{READOUTS.get(name, name)} "
                + " / ".join(unit_of(record.kind, score).fixed(score_value(readout.test, score)) for score in judged)
                for name, readout in run.finished.readouts.items()
            )
            ncmi, seconds = run.finished.information.ncmi, run.finished.total_seconds
            cells = [
                _folder_cell(run, path),
                numeric(f"{run.seed}, fold {run.fold + 1}" if run.folds else str(run.seed)),
                Cell(scores),
                numeric(text.MISSING if ncmi is None else text.significant(ncmi)),
                Cell(text.duration(seconds), seconds),
            ]
            if tuned:
                multiple = run.tuning and run.tuning.multiple
                cells.append(Cell(multiple_in_words(multiple), multiple) if multiple else Cell(text.MISSING))
            lines.append(TableRow(cells, keys=(entry.objective_label,)))
    metrics = " / ".join(heading_of(record.kind, name) for name in judged)
    headings = ["Run folder", "seed", f"test {metrics}, every read-out", "test NCMI", "time"]
    headings += ["learning rate, in multiples of the usual"] if tuned else []
    return Table("runs", headings, lines, ("Loss",))


def _folder_cell(run: Run | UnfinishedRun, path: Path) -> Cell:
    return Cell("", links=[(run.folder.name, link(run.folder, path))])


# --- reproductions


def reproduction_page(record: Reproduction, rows: Rows, path: Path) -> tuple[str, dict[str, bytes]]:
    """The page that will be written to ``path``, and the figure files of the experiment, none where it has none."""
    main, others = _figures(record, rows)
    commands = [group.command for group in record.groups if group.command]
    again = commands[0] if commands else f"ncmi reproduce {record.experiment} --scale {record.scale}"
    name = shlex.quote(record.folder.resolve().name)
    again += f"\nncmi report {name}   # this page, tables and figures, from the run folders"
    page = render(
        "reproduction",
        path,
        simulation=any(group.simulation for group in record.groups),
        record=record,
        scale=SCALES[record.scale],
        seconds=sum(run.finished.total_seconds for run in {run.folder: run for run in record.runs}.values()),
        verdict=reproduction_verdict(record, rows),
        tables=_tables(record, rows, path),
        published=published_note(record),
        unfinished=_unfinished(record, path),
        figures=[*main, *others],
        courses=_courses(record) if record.experiment == "figure4" else [],
        how=parts.how_it_ran(again, record.runs, record.machines, objective=False),
        entries=parts.entries_table(entry for group in record.groups for entry in group.entries),
    )
    drawn = [chart for figure in main for chart in figure.charts]
    return page, dict(zip(("figure.svg", "figure.png"), charts.to_document(drawn), strict=True)) if drawn else {}


def _tables(record: Reproduction, rows: Rows, path: Path) -> list[Table]:
    """Of one group all its numbers, of several methods × groups; every cell links to its run folders."""

    def links(row: Row) -> list[tuple[str, str]]:
        names = [f"{run.seed}.{run.fold}" if run.folds else str(run.seed) for run in row.entry.runs]
        return [(name, link(run.folder, path)) for name, run in zip(names, row.entry.runs, strict=True)]

    if len(record.groups) == 1:
        group = record.groups[0]
        return [scores_table(group, rows[group.name], links)]
    return [overview_table(record, rows, links=links)]


def _unfinished(record: Reproduction, path: Path) -> Table:
    lines = [
        TableRow([_folder_cell(run, path), Cell(group.title), Cell(run.state)])
        for group in record.groups
        for run in group.unfinished
    ]
    return Table("unfinished", ("Run folder", "group", "state"), lines, kind="plain", sortable=False)


def _courses(record: Reproduction) -> list[tuple[str, Table]]:
    """Of Figure 4, the first and the last value of each curve in numbers."""
    tables = []
    for group in record.measured:
        lines = []
        for entry in (entry for entry in group.entries if entry.runs):
            means = [epoch_charts.curve([run.metrics for run in entry.runs], column)["mean"] for column in _COURSES]
            if all(map(len, means)):
                ends = (f"{text.significant(mean.iloc[0])} → {text.significant(mean.iloc[-1])}" for mean in means)
                lines.append(TableRow([Cell(words) for words in (entry.label, *ends)]))
        if lines:
            tables.append((group.title, Table("courses", ("Method", *_COURSES.values()), lines, sortable=False)))
    return tables


def _figures(record: Reproduction, rows: Rows) -> tuple[list[Figure], list[Figure]]:
    """The figures that are the experiment's own, which go into documents, and the others.

    A figure without charts has a caption that says why.
    """
    entries = [entry for group in record.groups for entry in group.entries]
    looks = styles(dict.fromkeys((entry.label, entry.objective) for entry in entries))
    if record.experiment == "figure2":
        return [_correlation(record, rows)], []
    if record.experiment == "figure3":
        return _batch_sizes(record, rows, looks), []
    objectives = styles(dict.fromkeys((entry.objective_label, entry.objective) for entry in entries))
    named = {
        group.name: {"name": str(at), "heading": f"{group.title}: " if len(record.groups) > 1 else ""}
        for at, group in enumerate(record.measured)
    }
    figures = (parts.dots_figure(group, rows[group.name], objectives, **named[group.name]) for group in record.measured)
    dots = [figure for figure in figures if figure]
    if record.experiment == "figure4":
        return [_trajectories(group, looks, **named[group.name]) for group in record.measured], dots
    if record.experiment == "figure5":
        clusters = [figure for group in record.measured for figure in _clusters(group, **named[group.name])]
        large = [figure for figure in clusters if figure.kind != "small"]
        return large, [figure for figure in clusters if figure.kind == "small"] + dots
    return dots, []


def _correlation(record: Reproduction, rows: Rows) -> Figure:
    panels = correlations(record, rows)
    drawn = [
        score_charts.correlation_chart(f"correlation{at}", panel)
        for at, panel in enumerate(panels)
        if len(panel.points) >= FEWEST
    ]
    return Figure("correlation", {"": drawn} if drawn else {}, {"panels": panels, "fewest": FEWEST})


def _batch_sizes(record: Reproduction, rows: Rows, looks: Mapping[str, Style]) -> list[Figure]:
    figures = []
    for at, (network, groups) in enumerate(batch_groups(record).items()):
        score = groups[0].judged[0]
        methods: dict[str, dict[int, Row]] = {}
        for group in groups:
            for row in shown_rows(rows[group.name]):
                methods.setdefault(row.name, {})[batch_size(group)] = row
        # read-outs of one method share its style
        lines = {
            name: (looks[next(iter(sizes.values())).entry.label], {size: sizes[size].scores[score] for size in sizes})
            for name, sizes in methods.items()
        }
        title = f"{network_label(network)}: test accuracy by batch size"
        figures.append(Figure("batches", {"": [score_charts.batch_size_chart(f"batch{at}", title, lines)]}, kind="one"))
    return figures


def _trajectories(group: Comparison, looks: Mapping[str, Style], name: str, heading: str) -> Figure:
    entries = [entry for entry in group.entries if entry.runs]
    figure = parts.epochs_figure(entries, looks, name=name, heading=heading, reproduction=True)
    return figure or Figure("no_validation", {}, heading=heading)


def _clusters(group: Comparison, name: str, heading: str) -> list[Figure]:
    runs = {entry.label: entry.runs[0] for entry in group.entries if entry.runs}
    return parts.cluster_figures(runs, runs, name=name, heading=heading) or [Figure("no_features", {}, heading=heading)]

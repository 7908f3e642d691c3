"""The tables of the study's parts, in Markdown. Values are in 0 … 1, shown in percent and points.

All of them are made of one data frame of finished runs, :func:`frame_of`: a row a run, indexed by data set, cell and
seed. Registered means reported: a table has a row for every set that its part has, with a dash where runs are missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

import _study_plan as plan
from _study_plan import DEFAULT, TUNED, Cell, Cells, Study
from _study_sets import OVERLAP, SETS
from _study_statistics import (
    ALPHA,
    GREAT,
    OverSets,
    Paired,
    critical_difference,
    friedman_p,
    holm,
    neighborhood,
    paired,
    ranks,
    ranks_chart,
)
from _timing import machine, markdown
from ncmi.readouts.metrics import MISSING, PERCENT, SHARE, Unit, fixed
from ncmi.report.charts import to_document
from ncmi.report.epoch_charts import epoch_charts
from ncmi.report.palette import KNOWN
from ncmi.report.statistics import Difference, wilcoxon_p
from ncmi.report.text import ranges

BAR, BATCH_BAR = 0.002, 0.005
LOW_RATE = 1 / 32
ACCURACY, BALANCED, VALIDATION = "test_accuracy", "test_balanced_accuracy", "validation_accuracy"
SHOWN: dict[str, tuple[str, Unit]] = {
    ACCURACY: ("Accuracy, %", PERCENT),
    BALANCED: ("Balanced accuracy, %", PERCENT),
    "test_macro_f1": ("Macro F1, %", PERCENT),
    "test_nll": ("Log-loss, nats", SHARE),
    "test_calibrated_nll": ("Log-loss after a temperature, nats", SHARE),
    "test_calibration_error": ("ECE, %", PERCENT),
    "test_calibrated_error": ("ECE after a temperature, %", PERCENT),
}
"""What measures of the test part are called, and how they are written. The temperature is fitted to validation."""
SPLITS_NOTE = (
    "Differences are paired by seed, with 95 % intervals. Where a set has no official test part its seeds' test parts "
    "are random halves of one pool and share half of their rows: the interval is corrected for that (Nadeau & Bengio "
    "2003, ρ = ½). Of an official test part (marked °) it is the plain t-interval: only training and validation part "
    "vary, and of the choice of test samples it says nothing. In bold: the interval leaves zero out."
)


@dataclass
class Report:
    """What a part prints and keeps: sections of Markdown, figures for the JSON file, pictures by name (PNG)."""

    sections: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=lambda: {"sets": {}})
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, title: str, *texts: str) -> None:
        """One more section."""
        self.sections.append("\n\n".join([f"### {title}", *filter(None, texts)]))


def frame_of(study: Study, cells: Mapping[str, Cells]) -> pd.DataFrame:
    """Measures of all reported runs that have not broken down."""
    rows = []
    for name, of_set in cells.items():
        for key, cell in of_set.items():
            for run in study.runs(name, cell):
                record = study.get(run)
                if record is not None and not record.broke_down:
                    about = {"set": name, "cell": key, "seed": run.seed, "readout": record.readout}
                    rows.append({**about, "seconds": record.seconds, **record.measures})
    index, columns = ["set", "cell", "seed"], ["readout", "seconds", *plan.MEASURES]
    frame = pd.DataFrame(rows, columns=[*index, *columns]).set_index(index)
    return frame.astype(dict.fromkeys(plan.MEASURES, float))


def spread(scores: pd.Series, unit: Unit = PERCENT) -> str:
    """Mean ± sample sd over seeds, the mean alone of one value, a dash of none."""
    return unit.mean_sd(float(scores.mean()), float(scores.std()))


@dataclass(frozen=True)
class Runs:
    """A part's cells and its finished runs."""

    study: Study
    cells: dict[str, Cells]
    frame: pd.DataFrame
    tables: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)  # of scores() that have been made

    @classmethod
    def of(cls, study: Study, cells_of: plan.CellsOf) -> Runs:
        cells = {name: cells_of(study, name) for name in study.sets}
        return cls(study, cells, frame_of(study, cells))

    def scores(self, name: str, measure: str = ACCURACY) -> pd.DataFrame:
        """Of a data set: a row a seed, a column a cell, in the order of the cells, NaN where there is nothing."""
        if (name, measure) not in self.tables:
            of_set = self.frame[measure][self.frame.index.get_level_values("set") == name]
            table = of_set.droplevel("set").unstack("cell").reindex(columns=list(self.cells[name]))
            self.tables[name, measure] = table
        return self.tables[name, measure]

    def gap(self, name: str, ours: str, theirs: str, measure: str = ACCURACY) -> Paired | None:
        """``ours − theirs``, two cells of a set, at common seeds; None from itself and from nothing."""
        scores = self.scores(name, measure)
        if ours == theirs or ours not in scores or theirs not in scores:
            return None
        return paired(scores[ours], scores[theirs], 0.0 if SETS[name].official else OVERLAP)

    def grid(
        self, keys: Mapping[str, str], of: Callable[[pd.Series], Any] = spread, measure: str = ACCURACY
    ) -> pd.DataFrame:
        """A row a registered set, a column a label: what is made of the scores of that label's cell."""
        rows: dict[str, list[Any]] = {}
        for name in self.study.sets:
            scores = self.scores(name, measure)
            rows[named(name)] = [of(scores[key].dropna()) if key in scores else None for key in keys.values()]
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(keys))

    def made(self, name: str, keys: Sequence[str]) -> str:
        """How many runs there are of those that are wanted, the range over cells."""
        scores = self.scores(name)
        counts = tuple(sorted({int(scores[key].count()) if key in scores else 0 for key in keys}))
        return f"{ranges(counts)} of {self.study.num_seeds(name)}"

    def figures(self) -> dict[str, Any]:
        """For the JSON file, in the order of the seeds: settings, every grid that was tried, measures."""
        sets: dict[str, Any] = {name: {} for name in self.study.sets}
        known = {key: runs.droplevel(["set", "cell"]) for key, runs in self.frame.groupby(level=["set", "cell"])}
        for name, cells in self.cells.items():
            for key, cell in cells.items():
                content: dict[str, Any] = {"searched": _tried(cell)} if cell.search.runs else {}
                if cell.setting is not None:
                    content |= {part: dict(getattr(cell.setting, part)) for part in ("options", "training", "data")}
                if (runs := known.get((name, key))) is not None:
                    content |= {
                        "seeds": runs.index.tolist(),
                        "readout": runs["readout"].iloc[0],
                        "measures": runs[list(plan.MEASURES)].dropna(axis=1, how="all").round(5).to_dict("list"),
                        "seconds": round(float(runs["seconds"].median()), 1),
                    }
                sets[name][key] = content
        return sets


def _tried(cell: Cell) -> dict[str, Any]:
    """A search: [multiple of the rate, options, mean validation accuracy (null: broke down)] of each candidate."""
    choice = cell.search.choice
    return {
        "tried": [
            [one.rate, dict(one.options), round(one.accuracy, 5) if math.isfinite(one.accuracy) else None]
            for one in cell.search.tried
        ],
        "choice": None if choice is None else [choice.rate, dict(choice.options)],
        "seeds": sorted({run.seed for run in cell.search.runs}),
    }


def named(name: str) -> str:
    """A set in a table, marked where its test part is official."""
    return f"{name}°" if SETS[name].official else name


def table_of(head: str, texts: pd.DataFrame) -> str:
    """A table of texts in Markdown, its rows' names first, a dash where there is nothing."""
    rows = texts.astype(object).where(texts.notna(), MISSING).to_numpy().tolist()
    return markdown([head, *texts.columns], [[str(name), *row] for name, row in zip(texts.index, rows, strict=True)])


def gap_text(gap: Difference | None, unit: Unit = PERCENT) -> str:
    """Mean with its interval, in bold where that leaves zero out."""
    if gap is None:
        return MISSING
    text = f"{unit.signed(gap.mean)} ({unit.interval(gap.interval)})"
    return f"**{text}**" if gap.sign else text


def over_sets_text(over: OverSets, unit: Unit = PERCENT) -> str:
    """Mean over sets with its interval, in bold where that leaves zero out."""
    if not over.sets:
        return MISSING
    text = f"{unit.signed(over.mean)} ({unit.interval(over.interval)})"
    return f"**{text}**" if over.interval and (over.interval[0] > 0 or over.interval[1] < 0) else text


def options_text(options: plan.Options) -> str:
    """Options as text.

    >>> options_text({"gamma": 1.0, "anchors": "etf"}), options_text({})
    ('anchors etf, gamma 1', '')
    """
    texts = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in options.items()}
    return ", ".join(f"{name.replace('_', ' ')} {texts[name]}" for name in sorted(texts))


def provenance(study: Study) -> dict[str, Any]:
    """Where the figures come from: this machine and its versions, and code and processor of the runs."""
    records = [record for record in study.known.values() if not record.broke_down]
    about = machine(torch.device("cpu"))
    about.pop("threads")
    return {
        "machine": about,
        "code": [{"commit": code, "runs": runs} for code, runs in Counter(one.code for one in records).most_common()],
        "processors": [{"cpu": cpu, "runs": runs} for cpu, runs in Counter(one.cpu for one in records).most_common()],
        "seconds": round(sum(record.seconds for record in records)),
        "threads_a_run": 1,
        "broke_down": [str(run) for run, record in study.known.items() if record.broke_down],
    }


def compare_methods(
    report: Report, runs: Runs, title: str, keys: Mapping[str, str], note: str = "", measure: str = ACCURACY
) -> None:
    """The first of some methods against all others, on every registered set and over them; ranks of all.

    Args:
        keys: cells by label; the first one is ours.
        measure: by which differences and ranks are taken; of all others follow means and mean differences.
    """
    ours, *rivals = keys.values()
    (label, *others), study = keys, runs.study
    head, unit = SHOWN[measure]
    texts, means = (
        runs.grid(keys, measure=measure),
        runs.grid(keys, lambda scores: unit.rounded(scores.mean()), measure),
    )
    texts = texts.mask(means.eq(means.max(axis=1), axis=0) & means.notna(), texts.map("**{}**".format))
    texts["runs"] = [runs.made(name, list(keys.values())) for name in study.sets]
    gaps = {name: [runs.gap(name, ours, rival, measure) for rival in rivals] for name in study.sets}
    of_sets = pd.DataFrame([[gap_text(gap) for gap in row] for row in gaps.values()], columns=others)
    of_sets.index = pd.Index([named(name) for name in gaps])
    known = [[gap.mean for gap in column if gap is not None] for column in zip(*gaps.values(), strict=True)]
    over = [OverSets.of(column) for column in known]
    raw = [wilcoxon_p(column) for column in known]
    rows = [
        [rival, str(one.sets), over_sets_text(one), str(one.above), str(one.below), fixed(p, 4), fixed(adjusted, 4)]
        for rival, one, p, adjusted in zip(others, over, raw, holm(raw), strict=True)
    ]
    points = f"{100 * GREAT:g}"
    heads = [
        f"{label} −",
        "sets",
        "mean over sets (95 %)",
        f"above +{points}",
        f"below −{points}",
        "Wilcoxon p",
        "Holm",
    ]
    summary = {
        rival: {"sets": one.sets, "mean": one.mean, "interval": one.interval, "above": one.above, "below": one.below,
                "wilcoxon_p": p, "holm_p": adjusted}
        for rival, one, p, adjusted in zip(others, over, raw, holm(raw), strict=True)
    }  # fmt: skip
    of_ranks, figures = _ranking(report, runs, title, keys, measure)
    further = [one for one in SHOWN if one not in (measure, ACCURACY if measure == BALANCED else BALANCED)]
    report.figures.setdefault("comparisons", {})[title] = {
        "measure": measure,
        "against": summary,
        "ranks": figures,
        "other_measures": {one: _mean_gaps(runs, ours, keys, one) for one in further},
    }
    report.add(
        title,
        note,
        f"{head}, mean ± standard deviation over seeds; the highest in bold.",
        table_of("data set", texts),
        f"{label} − each, points.",
        table_of("data set", of_sets),
        "Over the sets on which both have runs, each set's mean difference counting once.",
        markdown(heads, rows),
        of_ranks,
        *(_means(runs, keys, one) for one in further),
        f"{label} − each, mean over sets (95 % t-interval over sets); of log-loss and ECE less is better.",
        markdown(
            ["measure", *others],
            [
                [
                    SHOWN[one][0],
                    *(
                        over_sets_text(OverSets.of(runs_gaps(runs, ours, rival, one)), SHOWN[one][1])
                        for rival in rivals
                    ),
                ]
                for one in further
            ],
        ),
    )


def runs_gaps(runs: Runs, ours: str, theirs: str, measure: str) -> list[float]:
    """Mean difference of each set on which both have runs."""
    gaps = [runs.gap(name, ours, theirs, measure) for name in runs.study.sets]
    return [gap.mean for gap in gaps if gap is not None]


def _mean_gaps(runs: Runs, ours: str, keys: Mapping[str, str], measure: str) -> dict[str, Any]:
    over = {label: OverSets.of(runs_gaps(runs, ours, key, measure)) for label, key in keys.items() if key != ours}
    return {label: [one.mean, one.interval, one.sets] for label, one in over.items()}


def _means(runs: Runs, keys: Mapping[str, str], measure: str) -> str:
    """Means of a measure on all sets, and over those sets that have runs of all methods."""
    head, unit = SHOWN[measure]
    values = runs.grid(keys, lambda scores: float(scores.mean()), measure).astype(float)
    whole = values.dropna()
    texts = values.map(unit.fixed)
    texts.loc[f"mean over {len(whole)}"] = [unit.fixed(value) if len(whole) else MISSING for value in whole.mean()]
    return f"{head}, mean over seeds.\n\n{table_of('data set', texts)}"


def _ranking(
    report: Report, runs: Runs, title: str, keys: Mapping[str, str], measure: str
) -> tuple[str, dict[str, Any] | None]:
    """Ranks over the sets on which all methods have runs, by means over common seeds; text, and figures."""
    blocks = {}
    for name in runs.study.sets:
        scores = runs.scores(name, measure)
        if set(keys.values()) <= set(scores) and len(block := scores[list(keys.values())].dropna()):
            blocks[name] = block.mean()
    if len(blocks) < 2 or len(keys) < 3:
        return "Ranks: of fewer than two sets or three methods there are none.", None
    table = pd.DataFrame(blocks).T.to_numpy()
    average = pd.Series(ranks(table).mean(0), index=list(keys))
    apart, p = critical_difference(len(keys), len(table)), friedman_p(table)
    ours = next(iter(keys))
    picture = f"ranks-{'-'.join(title.lower().replace(',', '').replace('%', 'percent').split())}"
    report.pictures[picture] = ranks_chart(average, apart, len(table), ours)
    least = 2.0 ** (1 - len(table))
    text = (
        f"Average ranks over {len(table)} sets, 1 is best: "
        + ", ".join(f"{label} {fixed(rank)}" for label, rank in average.sort_values().items())
        + f". Friedman p {fixed(p, 4)}; Nemenyi's critical difference at {ALPHA:g} is {apart:.2f} ranks. Wilcoxon's "
        f"signed ranks over sets have no p below {least:.3g} with so many sets; a large p is no sign that methods are "
        "equal."
    )
    figures = {"sets": list(blocks), "average": average.round(3).to_dict(), "friedman_p": p}
    return text, {**figures, "critical_difference": round(apart, 3)}


def choices_text(runs: Runs, methods: Sequence[plan.Method], table: str = "") -> str:
    """What was chosen on each set, and where a search ended at the last point of a grid that goes on no further."""
    rows, edges = [], []
    for name, cells in runs.cells.items():
        row = [named(name)]
        for method in methods:
            cell = cells.get(f"{table}{TUNED} {method.name}", Cell(method, None))
            row.append(_choice(cell))
            edges += [f"{name}, {method.label}: {edge}" for edge in _edges(cell)]
        rows.append(row)
    last = "; ".join(edges) or "none"
    return f"{markdown(['data set', *(one.label for one in methods)], rows)}\n\nAt the end of its whole grid: {last}."


def rates_text(runs: Runs, methods: Sequence[plan.Method]) -> str:
    """What each rate that is always tried would do on all sets: mean validation accuracy less that of the usual one."""
    rates = [float(plan.RATES.points[place][plan.RATE]) for place in plan.RATES.start]
    rows = []
    for method in methods:
        gaps = []
        for cells in runs.cells.values():
            tried = cells[f"{TUNED} {method.name}"].search.tried
            known = {one.rate: one.accuracy for one in tried if not one.options}
            if all(math.isfinite(known.get(rate, math.nan)) for rate in rates):
                gaps.append([known[rate] - known[1.0] for rate in rates])
        means = [PERCENT.signed(sum(column) / len(gaps)) for column in zip(*gaps, strict=True)]
        rows.append([method.label, *(means or [MISSING] * len(rates)), str(len(gaps))])
    return markdown(["rate", *(f"×{rate:g}" for rate in rates), "sets"], rows)


def gains_text(runs: Runs, methods: Sequence[plan.Method]) -> str:
    """What tuning gains each method over its own default, over all sets, and on how many it wants a far lower rate."""
    rows = []
    for method in methods:
        default, tuned = (f"{kind} {method.name}" for kind in (DEFAULT, TUNED))
        gaps = {name: gap.mean for name in runs.study.sets if (gap := runs.gap(name, tuned, default))}
        low = [name for name in gaps if (choice := runs.cells[name][tuned].search.choice) and choice.rate <= LOW_RATE]
        most = max(gaps, key=lambda name: gaps[name], default="")
        best = f"{named(most)} {PERCENT.signed(gaps[most])}" if most else MISSING
        rows.append([method.label, over_sets_text(OverSets.of([*gaps.values()])), f"{len(low)} of {len(gaps)}", best])
    return markdown(["tuned − default", "mean over sets", f"sets with a rate of {LOW_RATE:g} or less", "most"], rows)


def _choice(cell: Cell) -> str:
    choice = cell.search.choice
    return ", ".join(filter(None, (f"×{choice.rate:g}", options_text(choice.options)))) if choice else MISSING


def _edges(cell: Cell) -> list[str]:
    choice, found = cell.search.choice, []
    if choice is None or not cell.search.runs:
        return []
    rates = [point[plan.RATE] for point in plan.RATES.points]
    if choice.rate in (rates[0], rates[-1]):
        found.append(f"rate ×{choice.rate:g}")
    grid = cell.method.grid
    # of a grid without order no point is an end
    if grid and len(grid.start) < len(grid.points) and choice.options in (grid.points[0], grid.points[-1]):
        found.append(options_text(choice.options))
    return found


def tables_report(study: Study) -> Report:
    """Default against default, tuned against tuned, and NCMI without search against searched rivals."""
    runs = Runs.of(study, plan.tables_cells)
    methods = study.chosen(plan.TABLES, plan.FURTHER)
    report = Report(figures={"sets": runs.figures()})
    # ours is NCMI wherever it takes part
    methods.sort(key=lambda method: method is not plan.NCMI)
    report.sections.append(SPLITS_NOTE)
    comparisons = [("Default against default", DEFAULT, DEFAULT, "Nothing is searched for any method.")]
    if study.tune_seeds != 0:
        report.add(
            "Settings chosen",
            "Multiple of the recipe's learning rate, then the loss's own option where it has one, by mean validation "
            "accuracy of tuning seeds on rows that no reported test part holds. Cross-entropy, square loss and "
            "squentropy have no option of their own: they choose the rate alone.",
            choices_text(runs, methods),
            "Validation accuracy at one rate for all sets less that at the usual one, mean over sets, points.",
            rates_text(runs, methods),
            "Test accuracy when tuned less that at the method's own default, points.",
            gains_text(runs, methods),
        )
        comparisons += [
            ("Tuned against tuned", TUNED, TUNED, "Every method, NCMI included, has the same budget."),
            ("NCMI without search against searched rivals", DEFAULT, TUNED,
             "NCMI at its default; the others are searched, which NCMI is not: this is no like with like."),
        ]  # fmt: skip
    for title, first, others, note in comparisons:
        keys = {one.label: f"{first if one is methods[0] else others} {one.name}" for one in methods}
        compare_methods(report, runs, title, keys, note)
    return report


def noise_report(study: Study) -> Report:
    """With wrong training labels: the robust setting against rivals, tuned and not, in each condition."""
    runs = Runs.of(study, plan.noise_cells)
    report = Report(figures={"sets": runs.figures()})
    methods = study.chosen(plan.NOISE)
    methods.sort(key=lambda method: method is not plan.ROBUST)
    dear = [name for name in study.sets if SETS[name].dear]
    report.sections += [
        "Labels of the training part are wrong, in tuning as well; those of validation and test are right, so that "
        "settings, and the best epoch, are chosen by right labels, as is usual in published comparisons and seldom "
        "possible in practice. Every method has the same budget. No run is stopped early and the last epoch is "
        "judged, but for cross-entropy's best epoch by validation accuracy, which stands as a method of its own."
        + (f" Searched at the first noisy condition only, as runs take minutes: {', '.join(dear)}." if dear else ""),
        SPLITS_NOTE,
    ]
    for level, kind in plan.conditions_of(study):
        table, _ = plan.damage_of(level, kind)
        where = table.removesuffix(": ")
        default = {one.label: f"{table}{DEFAULT} {one.name}" for one in methods}
        compare_methods(report, runs, f"Default against default, {where}", default, best_rival_text(runs, default))
        if study.tune_seeds == 0:
            continue
        report.add(f"Settings chosen, {where}", choices_text(runs, methods, table))
        tuned = {one.label: f"{table}{TUNED} {one.name}" for one in methods}
        tuned |= {
            f"{one.label}, not tuned": f"{table}{DEFAULT} {one.name}" for one in methods if one is plan.CROSS_ENTROPY
        }
        compare_methods(report, runs, f"Tuned against tuned, {where}", tuned, best_rival_text(runs, tuned))
        unlike = {one.label: (default if one is methods[0] else tuned)[one.label] for one in methods}
        title = f"{methods[0].label} without search against searched rivals, {where}"
        compare_methods(report, runs, title, unlike, f"No like with like. {best_rival_text(runs, unlike)}")
    return report


def best_rival_text(runs: Runs, keys: Mapping[str, str]) -> str:
    """The first method against the best of the others, over sets: that of the highest mean, and on each set its own."""
    label, *others = keys
    means = runs.grid(keys, lambda scores: float(scores.mean())).astype(float).dropna()
    if means.empty or not others:
        return ""
    rivals = means.drop(columns=label)
    best = str(rivals.mean().idxmax())
    overall = OverSets.of((means[label] - means[best]).tolist())
    of_each = OverSets.of((means[label] - rivals.max(axis=1)).tolist())
    return (
        f"{label} − {best}, the best other by mean test accuracy over {len(means)} sets: {over_sets_text(overall)} "
        f"points; − the best other of each set by test accuracy, in its favor: {over_sets_text(of_each)}."
    )


def by_column(runs: Runs, title: str, note: str, methods: Sequence[plan.Method], bar: float | None = None) -> Report:
    """Test accuracy by method and column on each set, and the first method's mean differences over sets."""
    report = Report(figures={"sets": runs.figures()})
    report.sections.append(f"{note} {SPLITS_NOTE}")
    for name in runs.study.sets:
        cells, scores = runs.cells[name], runs.scores(name)
        columns = list(dict.fromkeys(cell.column for cell in cells.values()))
        rows = []
        for method in methods:
            keys = {cell.column: key for key, cell in cells.items() if cell.method is method}
            means = scores[list(keys.values())].mean()
            apart = means.max() - means.min()
            texts = [spread(scores[keys[column]]) for column in columns]
            mark = [] if bar is None else [MISSING if math.isnan(apart) else "✓" if apart <= bar else "✗"]
            rows.append([method.label, *texts, PERCENT.fixed(apart), *mark])
        head = [f"{named(name)}, {title}", *columns, "range", *([] if bar is None else [f"≤ {100 * bar:g}"])]
        report.sections.append(markdown(head, rows))
    first, *others = methods
    columns = list(dict.fromkeys(cell.column for cells in runs.cells.values() for cell in cells.values()))
    rows = []
    for rival in others:
        over = []
        for column in columns:
            gaps = [
                runs.gap(name, f"{first.name} {column.removeprefix('×')}", f"{rival.name} {column.removeprefix('×')}")
                for name in runs.study.sets
            ]
            over.append(OverSets.of([gap.mean for gap in gaps if gap is not None]))
        rows.append([rival.label, *map(over_sets_text, over)])
        report.figures.setdefault("over_sets", {})[rival.name] = {
            column: [one.mean, one.interval, one.sets] for column, one in zip(columns, over, strict=True)
        }
    if rows:
        report.add(f"{first.label} − each, mean over sets, points", markdown([title, *columns], rows))
    return report


def batch_report(study: Study) -> Report:
    """Test accuracy by batch size, and how far apart the means are."""
    note = (
        "All methods at their defaults. Learning rates follow the batch size: its root with AdamW, in proportion with "
        "SGD, from the recipe's. The number of epochs is the same. Range: highest minus lowest mean, points."
    )
    runs = Runs.of(study, plan.batch_cells)
    return by_column(runs, "batch", note, study.chosen(plan.TABLES[:3]), BATCH_BAR)


def lengths_report(study: Study) -> Report:
    """Test accuracy by length of training."""
    note = "All methods at their defaults, with multiples of the recipe's epochs; schedules are as long as training."
    return by_column(Runs.of(study, plan.lengths_cells), "epochs", note, study.chosen(plan.TABLES, plan.FURTHER))


def tail_report(study: Study) -> Report:
    """Balanced test accuracy after training on a long tail."""
    runs = Runs.of(study, plan.tail_cells)
    report = Report(figures={"sets": runs.figures(), "ratio": plan.TAIL_RATIO})
    report.sections.append(
        f"The training part's largest class has {plan.TAIL_RATIO:g} times the samples of its smallest; validation and "
        f"test are as they were. All methods at their defaults. {SPLITS_NOTE}"
    )
    labels = {one.name: one.label for one in study.chosen(plan.TAIL)}
    plain = {labels[name]: name for name in ("ncmi", "cross_entropy") if name in labels}
    aware = {labels[name]: name for name in ("ncmi_balanced", "balanced_ce", "adjusted_ce", "ncmi") if name in labels}
    for title, keys in (("Losses that know nothing of the tail", plain), ("Losses that do", aware)):
        if len(keys) > 1:
            compare_methods(report, runs, title, keys, measure=BALANCED)
    return report


def neighborhood_report(study: Study) -> Report:
    """Is the default within 0.2 points of the best of its neighbors on each set, by validation accuracy?"""
    runs = Runs.of(study, plan.neighborhood_cells)
    report = Report(figures={"sets": runs.figures()})
    labels = {label: label for label, _, _ in plan.NEIGHBORS}
    default, *_ = labels
    rows = []
    for name in study.sets:
        best = neighborhood(runs.scores(name, VALIDATION).dropna(axis=1, how="all"), default)
        if best is None:
            continue
        bounds = PERCENT.interval(best.gain.interval) if best.best != default else MISSING
        bar, halves = "✓" if best.honest <= BAR else "✗", f"{best.times} of {best.halvings}"
        gain, honest = PERCENT.signed(best.gain.mean), PERCENT.signed(best.honest)
        rows.append([name, best.best, gain, bounds, honest, bar, halves])
        report.figures["sets"][name]["split_half_gain"] = round(best.honest, 5)
    head = ["data set", "best", "gain", "95 % interval", "split-half gain", f"≤ {100 * BAR:g}", "default chosen"]
    means = table_of("data set", runs.grid({label: label for label in labels}, measure=VALIDATION))
    report.add("Validation accuracy of NCMI and its neighbors, %", means)
    report.add(
        "What choosing a neighbor would gain over the default, points of validation accuracy",
        markdown(head, rows),
        "The gain on the seeds that it was chosen on is biased upwards: it is the largest of "
        f"{len(labels)} noisy means. The split-half gain chooses on one half of the seeds and measures on the "
        "other, over all halvings: no such bias, but chosen on half as many seeds.",
    )
    return report


def curves_report(study: Study) -> Report:
    """Validation accuracy of the trained head after each epoch."""
    report = Report()
    charts = []
    for name in study.sets:
        rows: dict[str, pd.Series] = {}
        metrics: dict[str, list[pd.DataFrame]] = {}
        looks = {}
        for key, cell in plan.curves_cells(study, name).items():
            records = {run.seed: study.get(run) for run in study.runs(name, cell)}
            seeds = {seed: record.curve for seed, record in records.items() if record and not record.broke_down}
            if not seeds or cell.search.choice is None:
                continue
            rate = cell.search.choice.rate
            label = cell.method.label if rate == 1 else f"{cell.method.label}, rate ×{rate:g}"
            curves = pd.DataFrame({seed: pd.Series(curve, dtype=float) for seed, curve in seeds.items()})
            curves.index += 1
            rows[label], looks[label] = curves.mean(axis=1, skipna=False), KNOWN[cell.method.objective]
            metrics[label] = [curves[[seed]].set_axis([VALIDATION], axis=1) for seed in curves]
            accuracies = curves.round(5).T.to_numpy().tolist()
            figures = {"rate": rate, "seeds": list(seeds), VALIDATION: accuracies}
            report.figures["sets"].setdefault(name, {})[key] = figures
        if rows:
            charts += epoch_charts(metrics, looks, [VALIDATION], name=f"-{name}", heading=f"{name}: ")
            epochs = some_epochs(min(map(len, rows.values())))
            table = [[label, *(PERCENT.fixed(means[epoch]) for epoch in epochs)] for label, means in rows.items()]
            if len(rows) == 2:
                (label, first), (other, second) = rows.items()
                table.append([f"{label} − {other}", *(PERCENT.signed(first[e] - second[e]) for e in epochs)])
            report.sections.append(markdown([f"{name}, after epoch", *map(str, epochs)], table))
    if charts:
        note = "Validation accuracy, %, of the trained head (for NCMI: of its trained centroids), mean over seeds."
        report.sections.insert(0, note)
        report.pictures["curves"] = to_document(charts)[1]
    return report


def some_epochs(count: int) -> list[int]:
    """All of few epochs, about a dozen of many.

    >>> some_epochs(30)
    [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    """
    step = max(1, math.ceil(count / 12))
    return [epoch for epoch in range(1, count + 1) if epoch % step == 0 or epoch == count]

"""The tables of the study's parts, in Markdown. Values are in 0 … 1, shown in percent and points.

All of them are made of one data frame of finished runs, :func:`frame_of`: a row a run and read-out, indexed by data
set, cell, read-out and seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

import _study_plan as plan
from _study_plan import Cell, Cells, Study
from _study_statistics import ALPHA, critical_difference, holm, neighborhood, paired, ranks, ranks_chart
from _timing import machine, markdown
from ncmi.readouts.metrics import MISSING, PERCENT, fixed
from ncmi.recipes.names import READOUTS
from ncmi.report.charts import to_document
from ncmi.report.epoch_charts import epoch_charts
from ncmi.report.palette import KNOWN
from ncmi.report.statistics import Difference, wilcoxon_p
from ncmi.report.text import ranges

BAR, BATCH_BAR = 0.002, 0.005
ACCURACY, BALANCED, VALIDATION = "test_accuracy", "test_balanced_accuracy", "validation_accuracy"
SPLITS_NOTE = (
    "Intervals are 95 % t-intervals of differences paired by seed; the seeds' splits overlap, so they are somewhat too "
    "narrow (Nadeau & Bengio 2003)."
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


def frame_of(study: Study, cells: dict[str, Cells]) -> pd.DataFrame:
    """Measures of all final runs that have not broken down; the read-out ``judged`` is the one that counts."""
    rows = []
    for name, of_set in cells.items():
        for key, cell in of_set.items():
            for run in study.final_runs(name, cell.setting):
                record = study.get(run)
                if record is None or record.broke_down:
                    continue
                about = {"set": name, "cell": key, "seed": run.seed, "judged_by": record.primary}
                for readout, measures in (*record.readouts.items(), ("judged", record.readouts[record.primary])):
                    rows.append({**about, "readout": readout, "seconds": record.seconds, **measures})
    index, columns = ["set", "cell", "readout", "seed"], ["judged_by", "seconds", *plan.MEASURES]
    frame = pd.DataFrame(rows, columns=[*index, *columns]).set_index(index)
    return frame.astype(dict.fromkeys(plan.MEASURES, float))


def spread(scores: pd.Series) -> str:
    """Mean ± sample sd over seeds, the mean alone of one value, a dash of none."""
    return PERCENT.mean_sd(float(scores.mean()), float(scores.std()))


@dataclass(frozen=True)
class Runs:
    """A part's cells and its finished runs."""

    study: Study
    cells: dict[str, Cells]
    frame: pd.DataFrame

    @classmethod
    def of(cls, study: Study, cells_of: plan.CellsOf) -> Runs:
        cells = {name: cells_of(study, name) for name in study.sets}
        return cls(study, cells, frame_of(study, cells))

    @property
    def sets(self) -> list[str]:
        """Names of the data sets that have finished runs."""
        known = set(self.frame.index.get_level_values("set"))
        return [name for name in self.cells if name in known]

    def scores(self, name: str, measure: str = ACCURACY, readout: str = "judged") -> pd.DataFrame:
        """Of a data set: a row a seed, a column a cell, in the order of the cells; those without runs are left out."""
        of_set = self.frame.loc[[name]]
        of_readout = of_set[of_set.index.get_level_values("readout") == readout][measure]
        table = of_readout.droplevel(["set", "readout"]).unstack("cell")
        return table[[key for key in self.cells[name] if key in table]]

    def grid(
        self,
        labels: Mapping[str, str],
        of: Callable[[pd.Series], Any] = spread,
        measure: str = ACCURACY,
        readout: str = "judged",
    ) -> pd.DataFrame:
        """What is made of the scores of each set (row) and of each of the cells (column), NaN where there are none."""
        sets = {name: self.scores(name, measure, readout) for name in self.sets}
        rows = {name: {key: of(scores[key]) for key in scores} for name, scores in sets.items()}
        return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(labels))

    def figures(self) -> dict[str, Any]:
        """For the JSON file, in the order of the seeds."""
        sets: dict[str, Any] = {}
        for (name, key), runs in self.frame.groupby(level=["set", "cell"], sort=False):
            setting, judged = self.cells[name][key].setting, runs.xs("judged", level="readout")
            assert setting is not None
            sets.setdefault(name, {})[key] = {
                **{part: dict(getattr(setting, part)) for part in ("options", "training", "data")},
                "seeds": judged.index.get_level_values("seed").tolist(),
                "readout": judged["judged_by"].iloc[0],
                "measures": {
                    readout: values[list(plan.MEASURES)].dropna(axis=1, how="all").round(5).to_dict("list")
                    for readout, values in runs.groupby(level="readout", sort=False)
                    if readout != "judged"
                },
                "seconds": round(float(judged["seconds"].median()), 1),
            }
        return sets


def table_of(head: str, texts: pd.DataFrame) -> str:
    """A table of texts in Markdown, its rows' names first, a dash where there is nothing."""
    rows = texts.astype(object).where(texts.notna(), MISSING).to_numpy().tolist()
    return markdown([head, *texts.columns], [[str(name), *row] for name, row in zip(texts.index, rows, strict=True)])


def gap_text(gap: Difference | None, none: str = MISSING) -> str:
    """Mean with its interval, in bold where that leaves zero out."""
    if gap is None:
        return none
    text = f"{PERCENT.signed(gap.mean)} ({PERCENT.interval(gap.interval)})"
    return f"**{text}**" if gap.sign else text


def gap_to(scores: pd.DataFrame, key: str, rival: str | None) -> Difference | None:
    """Difference of two cells, paired by seed; None from nothing and from itself."""
    return paired(scores[key], scores[rival]) if rival in scores and key in scores and rival != key else None


def against(
    head: tuple[str, str],
    scores: pd.DataFrame,
    cells: Cells,
    rivals: Mapping[str, str | None],
    more: Mapping[str, Mapping[str, str]],
) -> str:
    """A row a method: its score, differences from rivals (cells by heading), further columns, seeds."""
    columns = {head[1]: scores.agg(spread).to_dict()}
    for heading, rival in rivals.items():
        columns[heading] = {key: gap_text(gap_to(scores, key, rival), "") for key in scores}
    columns |= {**more, "seeds": {key: seeds_text(scores[[key]]) for key in scores}}
    rows = [[cells[key].method.label, *(column[key] for column in columns.values())] for key in scores]
    return markdown([head[0], *columns], rows)


def seeds_text(scores: pd.DataFrame) -> str:
    """The seeds behind a row: one count, or the range where columns have different ones."""
    return ranges(tuple(sorted(set(scores.count().tolist()))))


def wins(gaps: Iterable[Difference | None]) -> str:
    """Wins, ties and losses, by the sign of the mean and by intervals that leave zero out."""
    known = [gap for gap in gaps if gap is not None]
    signs = Counter((gap.mean > 1e-9) - (gap.mean < -1e-9) for gap in known)
    sure = Counter(gap.sign for gap in known)
    return f"{signs[1]}/{signs[0]}/{signs[-1]} ({sure[1]}/{sure[0]}/{sure[-1]})"


def options_text(options: plan.Options) -> str:
    """Options as text.

    >>> options_text({"gamma": 1.0, "anchors": "etf"}), options_text({})
    ('anchors etf, gamma 1', '')
    """
    texts = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in options.items()}
    return ", ".join(f"{name.replace('_', ' ')} {texts[name]}" for name in sorted(texts))


def provenance(study: Study) -> dict[str, Any]:
    """Where the figures come from: this machine and its versions, and the code that made the runs."""
    records = [record for record in study.known.values() if not record.broke_down]
    commits = Counter(record.commit for record in records)
    about = machine(torch.device("cpu"))
    about.pop("threads")
    return {
        "machine": about,
        "code": [{"commit": commit, "runs": runs} for commit, runs in commits.most_common()],
        "seconds": round(sum(record.seconds for record in records)),
        "threads_a_run": 1,
        "broke_down": [str(run) for run, record in study.known.items() if record.broke_down],
    }


def transfer_report(study: Study) -> Report:
    """NCMI at its default against tuned rivals: choices, accuracies, differences, read-outs, ranks."""
    runs = Runs.of(study, plan.transfer_cells)
    methods = study.chosen(plan.TRANSFER)
    labels = {method.name: method.label for method in methods}
    scores = {name: runs.scores(name) for name in runs.sets}
    report = Report(figures={"sets": runs.figures()})
    for name, figures in report.figures["sets"].items():
        for key, content in figures.items():
            tried = runs.cells[name][key].search.tried
            content["searched"] = [
                [one.rate, dict(one.options), round(one.accuracy, 5)] for one in tried if math.isfinite(one.accuracy)
            ]
    searched = [method for method in methods if method.searched]
    choices = {name: [_choice(cells[one.name]) for one in searched] for name, cells in runs.cells.items()}
    report.add(
        "Settings chosen",
        "By mean validation accuracy of tuning seeds (100, …), none of which is reported: multiple of the recipe's "
        "learning rate, then the loss's own option where another than its default was chosen. NCMI is not searched.",
        markdown(
            ["data set", *(method.label for method in searched)],
            [[name, *texts] for name, texts in choices.items() if set(texts) != {MISSING}],
        ),
    )
    texts, means = runs.grid(labels), runs.grid(labels, lambda values: PERCENT.rounded(values.mean()))
    texts = texts.mask(means.eq(means.max(axis=1), axis=0), texts.map("**{}**".format)).rename(columns=labels)
    texts["seeds"] = [seeds_text(scores[name]) for name in texts.index]
    report.add("Test accuracy, %", table_of("data set", texts))
    others = {key: label for key, label in labels.items() if key != "cross_entropy"}
    gaps = {name: [gap_to(table, key, "cross_entropy") for key in others] for name, table in scores.items()}
    report.add(
        "Difference from tuned cross-entropy, points",
        markdown(
            ["data set", *others.values()],
            [
                *([name, *map(gap_text, row)] for name, row in gaps.items()),
                ["won/tied/lost (surely)", *map(wins, zip(*gaps.values(), strict=True))],
            ],
        ),
        f"{SPLITS_NOTE} Bold, and surely: the interval leaves zero out.",
    )
    columns = [(key, readout) for key in ("ncmi", "cross_entropy") for readout in READOUTS]
    by_readout = [runs.grid({key: ""}, readout=readout).iloc[:, 0] for key, readout in columns]
    heads = [f"{'NCMI' if key == 'ncmi' else 'CE'} {READOUTS[readout]}" for key, readout in columns]
    report.add(
        "Read-outs, test accuracy, %", table_of("data set", pd.concat(by_readout, axis=1).set_axis(heads, axis=1))
    )
    measures = [measure for measure in plan.MEASURES if "accuracy" not in measure and runs.frame[measure].notna().any()]
    if measures:
        tables = [runs.grid(labels, lambda values: fixed(values.mean(), 3), measure) for measure in measures]
        texts_of = [table_of("data set", table.rename(columns=labels)) for table in tables]
        of_measures = [f"`{measure}`\n\n{text}" for measure, text in zip(measures, texts_of, strict=True)]
        report.add("Probabilities, mean over seeds", *of_measures)
    report.sections += [text for text in (ranking(report, labels, scores), _bars(labels, scores)) if text]
    return report


def _choice(cell: Cell) -> str:
    choice = cell.search.choice
    return ", ".join(filter(None, (f"×{choice.rate:g}", options_text(choice.options)))) if choice else MISSING


def _bars(labels: dict[str, str], sets: dict[str, pd.DataFrame]) -> str:
    rows, gaps = [], []
    for name, scores in sets.items():
        gap = gap_to(scores, "ncmi", "cross_entropy")
        if gap is None:
            continue
        gaps.append(gap.mean)
        best = str(scores.drop(columns="ncmi").mean().idxmax())
        bar = "✓" if gap.mean >= -BAR else "✗"
        rows.append([name, gap_text(gap), bar, gap_text(gap_to(scores, "ncmi", best)), labels[best]])
    if not rows:
        return ""
    points = f"{100 * BAR:g}"
    return (
        "### NCMI at its default against tuned rivals, points\n\n"
        + markdown(["data set", "− cross-entropy", f"≥ −{points}", "− best rival", "best rival (by test mean)"], rows)
        + f"\n\nNot below tuned cross-entropy by more than {points} points on {sum(gap >= -BAR for gap in gaps)} of "
        f"{len(rows)} data sets; above it on {sum(gap > 0 for gap in gaps)}. The best rival is picked by test "
        "accuracy, in its favor."
    )


def ranking(report: Report, labels: dict[str, str], sets: dict[str, pd.DataFrame]) -> str:
    """The section on ranks of the sets on which all methods have a common seed; figures and a chart for the report.

    Args:
        labels: of methods, by name.
        sets: scores, a row a seed, a column a method, by data set.
    """
    keys = list(labels)
    blocks = {name: scores[keys].dropna() for name, scores in sets.items() if set(keys) <= set(scores)}
    blocks = {name: block for name, block in blocks.items() if len(block)}
    if len(blocks) < 2 or len(keys) < 3:
        return ""
    scores = pd.DataFrame({name: block.mean() for name, block in blocks.items()}).T
    average = pd.Series(ranks(scores.to_numpy()).mean(0), index=keys)
    apart = critical_difference(len(keys), len(scores))
    named = average.rename(index=labels)
    report.pictures["critical-difference"] = ranks_chart(named, apart, len(scores), labels.get("ncmi", ""))
    figures = {"sets": list(blocks), "average": average.round(3).to_dict(), "critical_difference": round(apart, 3)}
    report.figures["ranks"] = figures
    lines = [
        "### Ranks",
        markdown(["", *labels.values()], [["average rank", *map(fixed, average)]]),
        f"Over {len(scores)} data sets ({', '.join(blocks)}), by mean test accuracy over seeds; 1 is best. "
        f"Nemenyi's critical difference at {ALPHA:g} is {apart:.2f} ranks.",
    ]
    return "\n\n".join([*lines, _signed_ranks(labels, scores)] if "ncmi" in keys else lines)


def _signed_ranks(labels: dict[str, str], scores: pd.DataFrame) -> str:
    """NCMI against each of the others over data sets: Wilcoxon with Holm's correction, and what it can show."""
    gaps = scores.drop(columns="ncmi").rsub(scores["ncmi"], axis=0)
    raw = [wilcoxon_p(gaps[key].tolist()) for key in gaps]
    rows = [
        [labels[key], PERCENT.signed(gaps[key].mean()), *(MISSING if math.isnan(p) else f"{p:.3g}" for p in pair)]
        for key, *pair in zip(gaps, raw, holm(raw), strict=True)
    ]
    table = markdown(["NCMI against", "mean difference", "Wilcoxon p", "Holm"], rows)
    least, first = 2.0 ** (1 - len(scores)), ALPHA / len(rows)
    return (
        f"{table}\n\nSigned ranks over data sets: with {len(scores)} of them the least possible p is {least:.3g} (all "
        f"differences of one sign), Holm's first threshold {first:.3g}. Where the first is above the second no "
        "difference can come out as significant; a p above it is no sign that methods are equal."
    )


def neighborhood_report(study: Study) -> Report:
    """Is the default within 0.2 points of the best of its neighbors on each set, by validation accuracy?"""
    runs = Runs.of(study, plan.neighborhood_cells)
    report = Report(figures={"sets": runs.figures()})
    labels = {label: label for label, _, _ in plan.NEIGHBORS}
    default, *_ = labels
    rows = []
    for name in runs.sets:
        best = neighborhood(runs.scores(name, VALIDATION), default)
        if best is None:
            continue
        bounds = PERCENT.interval(best.gain.interval) if best.best != default else MISSING
        bar, halves = "✓" if best.honest <= BAR else "✗", f"{best.times} of {best.halvings}"
        gain, honest = PERCENT.signed(best.gain.mean), PERCENT.signed(best.honest)
        rows.append([name, best.best, gain, bounds, honest, bar, halves])
        report.figures["sets"][name]["split_half_gain"] = round(best.honest, 5)
    head = ["data set", "best", "gain", "95 % interval", "split-half gain", f"≤ {100 * BAR:g}", "default chosen"]
    means = table_of("data set", runs.grid(labels, measure=VALIDATION))
    report.add("Validation accuracy of NCMI and its neighbors, %", means)
    report.add(
        "What choosing a neighbor would gain over the default, points of validation accuracy",
        markdown(head, rows),
        "The gain on the seeds that it was chosen on is biased upwards: it is the largest of "
        f"{len(labels)} noisy means. The split-half gain chooses on one half of the seeds and measures on the "
        "other, over all halvings: no such bias, but chosen on half as many seeds.",
    )
    return report


def noise_report(study: Study) -> Report:
    """Test accuracy with wrong training labels, against cross-entropy and against the better robust rival."""
    runs = Runs.of(study, plan.noise_cells)
    report = Report(figures={"sets": runs.figures()})
    report.sections.append(
        "Labels of the training part are wrong, those of validation and test are right. Learning rates and options are "
        "chosen on the validation part with seeds of their own, and so with right labels, as is usual in published "
        "comparisons and seldom possible in practice; every method has the same number of rates to choose from."
    )
    for name in runs.sets:
        tables: dict[str, str] = {}
        for title in dict.fromkeys(cell.table for cell in runs.cells[name].values()):
            cells = {key: cell for key, cell in runs.cells[name].items() if cell.table == title}
            scores = runs.scores(name)
            scores = scores[[key for key in cells if key in scores]]
            by_name = {cells[key].method.name: key for key in scores}
            robust = scores[[by_name[rival] for rival in ("gce", "sce") if rival in by_name]].mean()
            best = None if robust.empty else str(robust.idxmax())
            rivals = {"− cross-entropy": by_name.get("cross_entropy"), "− better of GCE and SCE": best}
            settings = {key: cells[key].setting for key in scores}
            chosen = {key: options_text(dict(one.options + one.training)) for key, one in settings.items() if one}
            more = {"chosen": {key: text or "as usual" for key, text in chosen.items()}}
            if len(scores.columns):
                tables[title] = against((title, "test accuracy, %"), scores, cells, rivals, more)
        dear = "; searched at its first noisy level only" if study.tune_seeds != 0 and plan.SETS[name].dear else ""
        report.sections.append("\n\n".join([f"### {name}: wrong labels{dear}", *tables.values()]))
    report.sections.append(SPLITS_NOTE)
    return report


def batch_report(study: Study) -> Report:
    """Test accuracy by batch size, and how far apart the means are."""
    runs = Runs.of(study, plan.batch_cells)
    report = Report(figures={"sets": runs.figures()})
    report.sections.append(
        "Learning rates follow the batch size: its root with AdamW, in proportion with SGD, from the recipe's. The "
        "number of epochs is the same. Range: highest minus lowest mean, points."
    )
    for name in runs.sets:
        cells, scores = runs.cells[name], runs.scores(name)
        sizes = sorted({cell.column for cell in cells.values()}, key=int)
        rows = []
        for method in dict.fromkeys(cells[key].method.label for key in scores):
            keys = {cells[key].column: key for key in scores if cells[key].method.label == method}
            means = scores[list(keys.values())].mean()
            apart = means.max() - means.min()
            texts = [spread(scores[keys[size]]) if size in keys else MISSING for size in sizes]
            rows.append([method, *texts, PERCENT.fixed(apart), "✓" if apart <= BATCH_BAR else "✗"])
        head = [f"{name}, batch", *sizes, "range", f"≤ {100 * BATCH_BAR:g}"]
        report.sections.append(markdown(head, rows))
    return report


def tail_report(study: Study) -> Report:
    """Balanced test accuracy after training on a long tail."""
    runs = Runs.of(study, plan.tail_cells)
    report = Report(figures={"sets": runs.figures(), "ratio": plan.TAIL_RATIO})
    report.sections.append(
        f"The training part's largest class has {plan.TAIL_RATIO:g} times the samples of its smallest; validation and "
        f"test are as they were. All methods at the recipe's settings. {SPLITS_NOTE}"
    )
    for name in runs.sets:
        scores, accuracies = runs.scores(name, BALANCED), runs.scores(name)
        rivals = {"− cross-entropy": "cross_entropy", "− balanced CE": "balanced_ce"}
        more = {"accuracy, %": accuracies.agg(spread)}
        report.sections.append(against((name, "balanced accuracy, %"), scores, runs.cells[name], rivals, more))
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
            records = {run.seed: study.get(run) for run in study.final_runs(name, cell.setting)}
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

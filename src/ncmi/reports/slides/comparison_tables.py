"""The tables on the page of a comparison of slide classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports import elements as e
from ncmi.reports import text
from ncmi.reports.slides import captions
from ncmi.reports.slides.captions import Figures
from ncmi.reports.slides.comparison_words import baseline_name
from ncmi.reports.slides.records import SlideComparison
from ncmi.reports.slides.statistics import JUDGED, Cell, best_cells, by_network, methods
from ncmi.reports.slides.words import SCORE_NAMES, bounds, mean_sd, score, signed_bounds
from ncmi.reports.statistics import WILCOXON_MINIMUM, Difference
from ncmi.slides.published import SOURCE
from ncmi.slides.weighted_scores import SCORES


def scores_table(record: SlideComparison, cells: Sequence[Cell], figures: Figures) -> str:
    """Networks × methods: macro F1, below it AUC, as the paper's Table III has them."""
    columns = methods(cells)
    lines = []
    for network, own in by_network(cells).items():
        by_method = {cell.method: _score_cell(cell, own, record) for cell in own}
        lines.append([e.escape(network), *(by_method.get(column, text.MISSING) for column in columns)])
    unit = f"{text.count(len(record.seeds), 'repeat')}" if record.folds else text.count(len(record.seeds), "seed")
    notes = [figures.note(f"{captions.TABLE_3.format(repeats=unit)} {captions.READOUTS.partition(' Primary')[0]}")]
    if record.folds:
        notes.append(e.paragraph(captions.FOLDS.format(folds=record.folds), "note"))
    if any(cell.published for cell in cells):
        notes.append(e.paragraph(captions.PUBLISHED.format(source=SOURCE), "note"))
    if record.unfinished:
        notes.append(f"<h3>{text.count(len(record.unfinished), 'unfinished run')}, left out of everything above</h3>\n")
        notes.append(e.facts({run.folder.name: run.state for run in record.unfinished}))
    table = e.table(("Macro F1, AUC", *columns), lines)
    return e.section("Networks and methods", table, *notes, _all_scores(cells))


def _all_scores(cells: Sequence[Cell]) -> str:
    """Every score with its interval and its difference, folded away."""
    lines = []
    for cell in cells:
        line = [e.escape(f"{cell.network}, {cell.method}"), str(len(cell.seeds))]
        for name in SCORES:
            found, difference = cell.scores[name], cell.differences.get(name)
            told = f'<span class="sub">{bounds(*found.interval)}</span>' if found.interval else ""
            told += f'<span class="sub">Δ {text.signed(difference.mean, 3)}</span>' if difference else ""
            line.append(mean_sd(found.mean, found.sd) + told)
        lines.append(line)
    table = e.table(("Network, method", "n", *(SCORE_NAMES[name] for name in SCORES)), lines)
    told = "All scores: mean ± sd, 95 % t-interval of the mean, difference from the baseline"
    return f"<details>\n<summary>{told}</summary>\n{table}</details>\n"


def _score_cell(cell: Cell, own: Sequence[Cell], record: SlideComparison) -> str:
    parts = []
    for name in JUDGED:
        words = mean_sd(cell.scores[name].mean, cell.scores[name].sd)
        words = f"<b>{words}</b>" if cell in best_cells(own, name) else words
        parts.append(words if name == "macro_f1" else f'<span class="sub">AUC {words}</span>')
    if cell.published:
        told = f"published {score(cell.published.f1)}, AUC {score(cell.published.auc)}"
        parts.append(f'<span class="sub published">{told}</span>')
    if len(cell.seeds) < len(record.seeds):
        parts.append(f'<span class="sub">{len(cell.seeds)} of {len(record.seeds)} only</span>')
    return "".join(parts)


def differences_table(record: SlideComparison, cells: Sequence[Cell], figures: Figures) -> str:
    """Differences of every method from its network's baseline, with both kinds of interval."""
    judged = [cell for cell in cells if cell.differences]
    if not judged:
        return ""
    lines: list[list[str]] = []
    marks: dict[int, str] = {}
    for index, cell in enumerate(judged):
        line = [e.escape(f"{cell.network}, {cell.method}"), str(len(cell.differences["macro_f1"].values))]
        for name in JUDGED:
            difference = cell.differences[name]
            patients = signed_bounds(cell.over_patients[name]) if cell.over_patients else text.MISSING
            line += [_coloured(difference), signed_bounds(difference.interval), patients]
        enough = len(cell.differences["macro_f1"].values) >= WILCOXON_MINIMUM
        line.append(text.significant(cell.differences["macro_f1"].wilcoxon_p, 2) if enough else text.MISSING)
        lines.append(line)
        last = index + 1 == len(judged) or judged[index + 1].network != cell.network
        marks |= {index: "rule"} if last else {}
    over = "repeats" if record.folds else "seeds"
    heads = ["Network, method", "n"]
    for name in JUDGED:
        heads += [f"Δ {SCORE_NAMES[name]}", f"over {over}", "over patients"]
    note = captions.DIFFERENCES.format(baseline=baseline_name(record, cells), unit=over, one=over.removesuffix("s"))
    note += captions.NO_PATIENTS if any(cell.over_patients is None for cell in judged) else ""
    return e.section("Paired differences", e.table([*heads, "p (F1)"], lines, marks=marks), figures.note(note))


def _coloured(difference: Difference) -> str:
    told = text.signed(difference.mean, 3)
    if not difference.sign:
        return told
    return f'<span class="{"up" if difference.sign > 0 else "down"}">{told}</span>'


def fold_table(record: SlideComparison, cells: Sequence[Cell], figures: Figures) -> str:
    """Scores fold by fold, which the pooled scores do not show; empty without folds."""
    if not record.folds:
        return ""
    lines = []
    for cell in cells:
        spread = [cell.folds[name] for name in JUDGED]
        told = [part for one in spread for part in (mean_sd(one.mean, one.sd), str(one.count))]
        lines.append([e.escape(f"{cell.network}, {cell.method}"), *told])
    heads = ("Network, method", "macro F1 of a fold", "folds", "AUC of a fold", "folds")
    return e.section("Fold by fold", e.table(heads, lines), figures.note(captions.FOLD_BY_FOLD))


def cost_table(cells: Sequence[Cell], figures: Figures) -> str:
    """Time and memory of every network with every objective."""
    lines = []
    for network, own in by_network(cells).items():
        for label in dict.fromkeys(cell.label for cell in own):
            cell = next(one for one in own if one.label == label)
            seconds = text.significant(cell.epoch_seconds, 3)
            lines.append([e.escape(f"{network}, {label}"), seconds, text.fixed(cell.peak_memory_mb, 0)])
    table = e.table(("Network, objective", "s/epoch", "MB"), lines)
    return e.section("Cost", table, figures.note(captions.COST))

"""What a comparison of slide classifiers says, in sentences, and no more than it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ncmi.reports import text
from ncmi.reports.slides.records import SlideComparison
from ncmi.reports.slides.statistics import Cell, methods
from ncmi.reports.slides.words import SCORE_NAMES, SIMULATION, score
from ncmi.reports.verdict import listed


def comparison_verdict(record: SlideComparison, cells: Sequence[Cell]) -> list[str]:
    """Sentences: every method of NCMI (else every method) against the baseline, the highest score, and cautions."""
    baseline = baseline_name(record, cells)
    judged = [cell for cell in cells if not cell.is_baseline and cell.differences]
    own = [cell for cell in judged if cell.objective == "ncmi"] or judged
    sentences = [_against(method, [cell for cell in own if cell.method == method], baseline) for method in methods(own)]
    if not sentences:
        sentences.append(f"No method has a complete repeat in common with {baseline}: there is nothing to compare.")
    if record.simulation:
        sentences.insert(1, SIMULATION)
    sentences.append(_highest(cells))
    compared = 2 * len(judged)
    if judged and all(one.differences["macro_f1"].interval is None for one in judged):
        sentences.append("One repeat has no interval over repeats: nothing can be concluded about other seeds.")
    elif compared > 2:
        sentences.append(
            f"Differences are called distinguishable where their 95 % t-interval over repeats excludes zero; intervals "
            f"are not corrected for there being {compared} of them, of which chance alone would let about "
            f"{compared / 20:.1f} exclude it."
        )
    if record.unfinished:
        sentences.append(f"{text.count(len(record.unfinished), 'run')} not finished, and left out.")
    return sentences


def baseline_name(record: SlideComparison, cells: Sequence[Cell]) -> str:
    """The baseline as it reads in a sentence: its method's name, or its objective's where it has no finished run."""
    return next((cell.method for cell in cells if cell.is_baseline), record.baseline.replace("_", "-"))


def _against(method: str, cells: Sequence[Cell], baseline: str) -> str:
    """One sentence on one method over all networks."""
    parts = []
    for name in ("macro_f1", "auc"):
        differences = [(cell, cell.differences[name]) for cell in cells]
        mean = float(np.mean([difference.mean for _, difference in differences]))
        above = sum(difference.mean > 0 for _, difference in differences)
        if len(cells) == 1:
            told = f"{SCORE_NAMES[name]} differs by {text.signed(mean, 3)}"
        else:
            told = (
                f"{SCORE_NAMES[name]} is higher with {above} of {len(cells)} networks, by {text.signed(mean, 3)} in "
                "the mean"
            )
        clear = {
            word: [cell.network for cell, difference in differences if difference.sign == sign]
            for word, sign in (("above", 1), ("below", -1))
        }
        found = [
            f"distinguishably {word} with {'all' if len(names) == len(cells) > 1 else listed(names)}"
            for word, names in clear.items()
            if names
        ]
        if any(difference.interval for _, difference in differences):
            told += f" ({'; '.join(found) or 'nowhere distinguishably'})"
        parts.append(told)
    return f"{method} against {baseline}: {'; '.join(parts)}."


def _highest(cells: Sequence[Cell]) -> str:
    known = [cell for cell in cells if cell.scores["macro_f1"].mean == cell.scores["macro_f1"].mean]
    if not known:
        return "No macro F1 was measured."
    best = max(known, key=lambda cell: cell.scores["macro_f1"].mean)
    f1, auc = best.scores["macro_f1"], best.scores["auc"]
    return (
        f"{best.network} with {best.method} has the highest mean macro F1, {score(f1.mean)} (AUC {score(auc.mean)}); "
        f"the highest of {len(known)} is in part the luckiest."
    )

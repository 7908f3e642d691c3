"""What is known of simulated slides: how well attention finds lesions, and how well anyone could classify."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import SimulationOptions
from ncmi.slides.simulation.table import SlideRow, labels_of

_DRAWS = 2000
_BINS_A_DECADE = 10


def attention_auc(attention: npt.ArrayLike, lesion: npt.ArrayLike) -> float | None:
    """Probability that a lesion patch has more attention than another patch of the slide; ties count half.

    Args:
        attention: ``[N]``, finite.
        lesion: ``[N]`` bool, the truth.

    Returns:
        0..1, ½ for attention that knows nothing; None for a slide without lesion or without anything else.

    Raises:
        ValueError: for arrays of different length or attention that is not finite.

    >>> attention_auc([0.1, 0.2, 0.7], [False, False, True]), attention_auc([0.5, 0.5], [False, False])
    (1.0, None)
    """
    from scipy.stats import rankdata

    weights, truth = np.asarray(attention, np.float64), np.asarray(lesion, bool)
    if weights.ndim != 1 or weights.shape != truth.shape:
        raise ValueError(
            f"attention has shape {weights.shape}, lesion {truth.shape}: give one value a patch, [N], of both"
        )
    if not np.isfinite(weights).all():
        raise ValueError("attention is not finite: give the attention of a model that has not diverged")
    inside = int(truth.sum())
    if inside in (0, len(truth)):
        return None
    ranks = rankdata(weights)[truth].sum()
    return float((ranks - inside * (inside + 1) / 2) / (inside * (len(truth) - inside)))


def oracle_probabilities(options: SimulationOptions, rows: Sequence[SlideRow]) -> npt.NDArray[np.float64]:
    """``[n, C]`` what one who counts each slide's lesion patches without error would say, by Bayes' rule.

    In CAMELYON-17 the likelihoods of a count are estimated from 2,000 slides of each class, the priors are the classes'
    shares among ``rows``. In BRACS the kinds of lesions are counted, so the worst one present, which the label is, is
    always known: the oracle is right by construction.
    """
    labels = labels_of(options.cohort)
    if options.cohort == "bracs":
        return np.eye(len(labels))[[labels.index(_worst(options, row)) for row in rows]]
    counts = Counter(row.label for row in rows)
    bins = 2 + round(_BINS_A_DECADE * 5)
    joint = np.empty((len(labels), bins))
    for at, label in enumerate(labels):
        drawn = (plan_slide(options, SlideRow(f"oracle {draw}", "", label)) for draw in range(_DRAWS))
        found = np.bincount([_bin(plan.lesion_patches) for plan in drawn], minlength=bins)
        # a thousandth of a slide in every bin: a count that no draw had is not impossible
        joint[at] = counts[label] * (found + 0.001) / (found + 0.001).sum()
    posterior = joint[:, [_bin(plan_slide(options, row).lesion_patches) for row in rows]]
    result: npt.NDArray[np.float64] = (posterior / posterior.sum(0)).T
    return result


def oracle_metrics(options: SimulationOptions, rows: Sequence[SlideRow]) -> dict[str, Any]:
    """Metrics of :func:`oracle_probabilities` on some slides: what no classifier should be expected to beat.

    >>> from ncmi.slides.simulation.table import make_table
    >>> 0.9 < oracle_metrics(SimulationOptions(), make_table("camelyon17"))["macro_f1"]["value"] < 1
    True
    """
    from ncmi.slides.metrics import slide_metrics

    labels = labels_of(options.cohort)
    truth = [labels.index(row.label) for row in rows]
    return slide_metrics(truth, oracle_probabilities(options, rows), [row.patient for row in rows], labels, resamples=0)


def _worst(options: SimulationOptions, row: SlideRow) -> str:
    kinds = [lesion.kind for lesion in plan_slide(options, replace(row)).lesions]
    return max(kinds, key=labels_of(options.cohort).index, default=labels_of(options.cohort)[0])


def _bin(count: int) -> int:
    return 0 if count == 0 else 1 + round(_BINS_A_DECADE * math.log10(count))

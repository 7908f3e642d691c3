"""What is known of simulated slides: how well attention finds lesions, and how well anyone could classify."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ncmi.readouts.scores import Scores, judge
from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import SimulationOptions, SlideRow, labels_of

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
        kinds = ([labels.index(lesion.kind) for lesion in plan_slide(options, row).lesions] for row in rows)
        return np.eye(len(labels))[[max(of_slide, default=0) for of_slide in kinds]]
    counts = Counter(row.label for row in rows)
    bins = 2 + round(_BINS_A_DECADE * 5)
    joint = np.empty((len(labels), bins))
    for at, label in enumerate(labels):
        plans = (plan_slide(options, SlideRow(f"oracle {draw}", "", label)) for draw in range(_DRAWS))
        drawn = np.bincount([_bin(plan.lesion_patches) for plan in plans], minlength=bins)
        # a thousandth of a slide in every bin: a count that no draw had is not impossible
        joint[at] = counts[label] * (drawn + 0.001) / (drawn + 0.001).sum()
    posterior = joint[:, [_bin(plan_slide(options, row).lesion_patches) for row in rows]]
    result: npt.NDArray[np.float64] = (posterior / posterior.sum(0)).T
    return result


def oracle_scores(options: SimulationOptions, rows: Sequence[SlideRow]) -> Scores:
    """Scores of :func:`oracle_probabilities` on some slides: what no classifier should be expected to beat.

    >>> from ncmi.slides.simulation.options import make_table
    >>> 0.9 < oracle_scores(SimulationOptions(), make_table("camelyon17")).macro_f1.value < 1
    True
    """
    labels = labels_of(options.cohort)
    with np.errstate(divide="ignore"):  # an oracle may be certain
        log_p = np.log(oracle_probabilities(options, rows))
    return judge(log_p, [labels.index(row.label) for row in rows], labels)


def _bin(count: int) -> int:
    return 0 if count == 0 else 1 + round(_BINS_A_DECADE * math.log10(count))

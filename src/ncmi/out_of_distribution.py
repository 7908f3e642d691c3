"""Knowing what is unknown: how foreign samples are to a trained model, and how well that tells other data apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from ncmi.training.model import Model

SCORES = ("distance", "distance_ratio", "max_probability", "feature_norm")
_BINS = 40
_ACCEPTED = 0.95


@torch.no_grad()
def foreign_scores(model: Model, features: Tensor, readout: str) -> dict[str, Tensor]:
    """How foreign each sample is to a model, by several scores, ``[N]`` float64 each; higher is more foreign.

    - ``distance``: to the nearest centroid, ``min_c KL(P‖S_c)`` in nats. Features enter P at unit length: it is a
      distance between directions, and says nothing of their norm.
    - ``distance_ratio``: that distance over the mean distance to the other centroids: the sample's own ratio of
      concentration and separation, were it of the class that CC takes it for.
    - ``max_probability``: 1 − the highest probability of a read-out (Hendrycks & Gimpel 2017, 1610.02136).
    - ``feature_norm``: −‖f − μ‖, what the first score leaves out; features of unknown things are often short.

    Args:
        model: with a fitted CC.
        features: ``[N, D]``, in the model's precision.
        readout: ``"head"``, ``"cc"`` or ``"lp"``, whose probabilities the third score is of.
    """
    divergences = model.cc.divergences(features)[:, model.cc.counts > 0].double()
    nearest = divergences.amin(1)
    others = (divergences.sum(1) - nearest) / max(divergences.shape[1] - 1, 1)
    # summed over all other classes: 1 − p would be 0 for all samples whose highest probability rounds to 1
    p = model.log_proba(features, readout).double().exp()
    unsure = p.scatter(1, p.argmax(1, keepdim=True), 0).sum(1)
    return {
        "distance": nearest,
        "distance_ratio": nearest / others,
        "max_probability": unsure,
        "feature_norm": -(features - model.cc.centre).double().norm(dim=1),
    }


@dataclass(frozen=True)
class Detection:
    """How well a score tells data apart, in-distribution data being the positive class.

    Attributes:
        auroc: probability that an out-of-distribution sample is more foreign than an in-distribution one, ties
            counting half; 0.5 is chance.
        fpr95: share of out-of-distribution samples that is accepted at the threshold.
        threshold: the lowest score at or below which at least 95 % of the in-distribution samples lie.
    """

    auroc: float
    fpr95: float
    threshold: float


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """AUROC and FPR at 95 % TPR of a score that is higher for foreign samples: ``inside [N]``, ``outside [M]``.

    Raises:
        ValueError: if one of them is empty or a score is not finite.

    Example:
        >>> detection(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.5, 9.0]))
        Detection(auroc=0.8333333333333333, fpr95=0.5, threshold=3.0)
    """
    if len(inside) == 0 or len(outside) == 0:
        raise ValueError(f"{len(inside)} samples inside and {len(outside)} outside: give at least one of each")
    scores = torch.cat([inside, outside]).double()
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is NaN or infinite: check that inputs and features are finite")
    positive = np.arange(len(scores)) < len(inside)
    ranked = -scores.cpu().numpy()
    # every threshold: those that are dropped by default may be the one at 95 %
    false, true, thresholds = roc_curve(positive, ranked, drop_intermediate=False)
    at = int(np.argmax(true >= _ACCEPTED))
    return Detection(float(roc_auc_score(positive, ranked)), float(false[at]), -float(thresholds[at]))


def compare_with_foreign(
    model: Model, inside: Tensor, outside: Tensor, *, data: str, foreign: str, readout: str
) -> dict[str, Any]:
    """What ``ood-*.json`` in a run folder holds: AUROC and FPR95 of every score, and a histogram of the distances.

    Args:
        model: with a fitted CC.
        inside, outside: features ``[N, D]`` of the run's test part and ``[M, D]`` of foreign data.
        data, foreign: names of the two.
        readout: whose highest probability is compared with the distance.

    Raises:
        ValueError: if the features of the foreign data are not finite.
    """
    broken = int((~torch.isfinite(outside).all(1)).sum())
    if broken:
        raise ValueError(
            f"{foreign}: {broken} of {len(outside)} samples have features that are not finite: "
            "check that its values are of the size of the training data's"
        )
    known, unknown = (foreign_scores(model, features, readout) for features in (inside, outside))
    return {
        "format": 1,
        "data": foreign,
        "in_distribution": data,
        "num_in": len(inside),
        "num_out": len(outside),
        "readout": readout,
        "scores": {name: asdict(detection(known[name], unknown[name])) for name in SCORES},
        "distances": _histogram(known["distance"], unknown["distance"]),
    }


def _histogram(inside: Tensor, outside: Tensor) -> dict[str, list[Any]]:
    """Counts in bins of equal width in the logarithm of the distance, which is above 0."""
    lowest, highest = (float(bound) for bound in torch.cat([inside, outside]).aminmax())
    if lowest == highest:
        lowest, highest = lowest / 1.1, highest * 1.1
    edges = np.geomspace(lowest, highest, _BINS + 1)
    edges[0], edges[-1] = lowest, highest  # rounding must not leave the outermost samples out
    counts = [np.histogram(part.cpu().numpy(), edges)[0].tolist() for part in (inside, outside)]
    return {"edges": edges.tolist(), "in": counts[0], "out": counts[1]}

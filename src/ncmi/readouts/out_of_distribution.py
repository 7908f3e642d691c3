"""Data that is none of the model's own: scores of samples, higher out of distribution, and how well they tell."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from ncmi.loss.centroids import CentroidClassifier
from ncmi.readouts.scores import Detection, Histogram

OOD_SCORES = ("distance", "distance_ratio", "max_probability", "feature_norm")
_BINS = 40
_ACCEPTED = 0.95


def check_ood_features(features: Tensor, name: str) -> None:
    """Raise ValueError, with the name of the data, for features ``[N, D]`` that are not finite."""
    broken = int((~torch.isfinite(features).all(1)).sum())
    if broken:
        raise ValueError(
            f"{name}: {broken} of {len(features)} samples have features that are not finite: "
            "check that its values are of the size of the training data's"
        )


@torch.no_grad()
def ood_scores(classifier: CentroidClassifier, features: Tensor, log_p: Tensor) -> dict[str, Tensor]:
    """How far out of distribution each sample is, by several scores, ``[N]`` float64 each; higher is farther.

    - ``distance``: to the nearest centroid, ``min_c KL(P‖S_c)`` in nats. Features enter P at unit length: it is a
      distance between directions, and says nothing of their norm.
    - ``distance_ratio``: that distance over the mean distance to the other centroids: the sample's own ratio of
      concentration and separation, were it of the class that CC takes it for.
    - ``max_probability``: 1 − the highest probability of a read-out (Hendrycks & Gimpel 2017, 1610.02136).
    - ``feature_norm``: −‖f − μ‖, what the first score leaves out; features of unknown things are often short.

    Args:
        classifier: fitted.
        features: ``[N, D]``, finite, in the classifier's precision.
        log_p: log-probabilities ``[N, C]`` of the read-out that the third score is of.
    """
    divergences = classifier.divergences(features)[:, classifier.counts > 0].double()
    nearest = divergences.amin(1)
    others = (divergences.sum(1) - nearest) / max(divergences.shape[1] - 1, 1)
    # summed over all other classes: 1 − p would be 0 for all samples whose highest probability rounds to 1
    p = log_p.double().exp()
    unsure = p.scatter(1, p.argmax(1, keepdim=True), 0).sum(1)
    return {
        "distance": nearest,
        "distance_ratio": nearest / others,
        "max_probability": unsure,
        "feature_norm": -(features - classifier.center).double().norm(dim=1),
    }


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """AUROC and FPR at 95 % TPR of a score that is higher out of distribution: ``inside [N]``, ``outside [M]``.

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
    return Detection(
        auroc=float(roc_auc_score(positive, ranked)), fpr95=float(false[at]), threshold=-float(thresholds[at])
    )


def compare_ood(inside: dict[str, Tensor], outside: dict[str, Tensor]) -> tuple[dict[str, Detection], Histogram]:
    """AUROC and FPR95 of every score of :func:`ood_scores`, and a histogram of the distances.

    Args:
        inside, outside: the scores of the test part, and of other data.
    """
    detections = {name: detection(inside[name], outside[name]) for name in OOD_SCORES}
    return detections, _histogram(inside["distance"], outside["distance"])


def _histogram(inside: Tensor, outside: Tensor) -> Histogram:
    """Counts in bins of equal width in the logarithm of the distance, which is above 0."""
    lowest, highest = (float(bound) for bound in torch.cat([inside, outside]).aminmax())
    if lowest == highest:
        lowest, highest = lowest / 1.1, highest * 1.1
    edges = np.geomspace(lowest, highest, _BINS + 1)
    edges[0], edges[-1] = lowest, highest  # rounding must not leave the outermost samples out
    counts = [np.histogram(part.cpu().numpy(), edges)[0].tolist() for part in (inside, outside)]
    return Histogram(edges=edges.tolist(), inside=counts[0], outside=counts[1])

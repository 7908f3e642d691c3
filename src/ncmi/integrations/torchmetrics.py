"""NCMIMetric: CMI, Γ or NCMI as a metric of torchmetrics, for Lightning's ``self.log`` and for metric collections."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ncmi.loss.checks import IGNORE, check_tensor
from ncmi.loss.forms import Distribution, FeatureLength, NCMIForm, Separation, check_choice, check_map
from ncmi.loss.information import InformationAccumulator
from ncmi.loss.simplex import full_precision, to_log_distribution

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("NCMIMetric needs torchmetrics: pip install ncmi[metrics]", name=error.name) from error

Value = Literal["ncmi", "cmi", "separation"]
Inputs = Literal["logits", "log_probabilities", "features"]


class NCMIMetric(Metric):
    """CMI, Γ or NCMI of all samples since the last reset, in all processes; equal to :func:`ncmi.measure`.

    Its sums add up, so that it is exact over batches and processes of any size. For several of the numbers put one
    metric for each into a ``MetricCollection``: they share their sums.

    Args:
        num_classes: C ≥ 1.
        value: what it comes to: ``"ncmi"``, ``"cmi"`` or ``"separation"`` (Γ), a scalar float64; CMI and Γ in nats.
        inputs: what ``preds`` are. ``"logits"``: of the classes, or the scores of a head. ``"log_probabilities"``: log-
            distributions as they are, such as ``criterion.log_distribution(features)`` of an :class:`ncmi.NCMILoss`.
            ``"features"``: taken to the simplex by ``temperature``, ``distribution`` and ``feature_length``, without
            a center.
        dim: D, width of ``preds``; by default C.
        separation: Γ by ``"centroid_kl"`` (arXiv 2601.02543) or ``"cross_entropy"`` (CMIC-DL, arXiv 2309.09123).
        ignore_index: label of samples that do not count.
        temperature, distribution, feature_length: of the map of features, as of :class:`ncmi.NCMILoss`; by default by
            their directions, as in the paper.
        keywords: those of ``torchmetrics.Metric``.

    ``update(preds, target)`` takes ``[B, D]`` with ``[B]``, or ``[B, D, d1, …]`` with ``[B, d1, …]``.

    Raises:
        ValueError: for options out of range; by ``update`` as :meth:`ncmi.InformationAccumulator.update`; by
            ``compute`` without samples.

    Example:
        >>> metric = NCMIMetric(num_classes=2, value="cmi", inputs="log_probabilities", dim=3)
        >>> p = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
        >>> metric.update(p.log(), torch.tensor([0, 0, 1]))
        >>> round(metric.compute().item(), 4)
        0.0161
    """

    full_state_update = False
    is_differentiable = False
    counts: Tensor
    sums: Tensor
    log_sums: Tensor
    negative_entropies: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        value: Value = "ncmi",
        inputs: Inputs = "logits",
        dim: int | None = None,
        separation: Separation = "centroid_kl",
        ignore_index: int = IGNORE,
        temperature: float = NCMIForm.temperature,
        distribution: Distribution = NCMIForm.distribution,
        feature_length: FeatureLength = "own",
        **keywords: Any,
    ) -> None:
        super().__init__(**keywords)
        check_choice("value", value, Value)
        check_choice("inputs", inputs, Inputs)
        check_choice("separation", separation, Separation)
        check_map(temperature, distribution, feature_length)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.value: Value = value
        self.inputs: Inputs = inputs
        self.separation: Separation = separation
        self.temperature, self.feature_length = temperature, feature_length
        self.distribution: Distribution = distribution
        self.dim = num_classes if dim is None else dim
        for name, start in self._accumulator().state_dict().items():
            self.add_state(name, start, dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """True for Γ; CMI and NCMI are the better the lower."""
        return self.value == "separation"

    def _accumulator(self, device: torch.device | None = None) -> InformationAccumulator:
        return InformationAccumulator(self.num_classes, self.dim, device=device, ignore_index=self.ignore_index)

    def _log_distribution(self, preds: Tensor) -> Tensor:
        check_tensor(preds, "preds")
        if self.inputs == "log_probabilities":
            return preds
        axis = 1 if preds.dim() > 1 else 0
        if self.inputs == "logits":
            return torch.log_softmax(full_precision(preds), dim=axis)
        last = preds.movedim(axis, -1)
        log_p = to_log_distribution(last, None, self.temperature, self.distribution, self.feature_length)
        return log_p.movedim(-1, axis)

    @torch.no_grad()
    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        batch = self._accumulator(self.counts.device).update(self._log_distribution(preds), target)
        for name, value in batch.state_dict().items():
            setattr(self, name, getattr(self, name) + value)

    def compute(self) -> Tensor:
        """The value of all samples seen."""
        whole = self._accumulator(self.counts.device)
        whole.load_state_dict({name: getattr(self, name) for name in whole.state_dict()})
        result = getattr(whole.compute(self.separation, synchronize=False), self.value)
        return torch.tensor(result, dtype=torch.float64, device=self.counts.device)

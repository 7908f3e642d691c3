"""The interface that every training objective has, and what the losses with a linear head share.

An objective owns whatever stands between the network's feature and the decision: a linear head, a projection
head, centroids. The trainer knows this interface and nothing else. Objectives are made by name in
:mod:`ncmi.objectives.options`.

A loss for soft targets ``t`` is the expectation of the loss over labels drawn from ``t``, so mixup is defined
for every loss that has a value for each label.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ncmi.loss.centroids import CentroidClassifier
from ncmi.loss.checks import as_rows, check_labels, check_tensor
from ncmi.loss.forms import check_sizes
from ncmi.loss.simplex import full_precision

P = ParamSpec("P")


class Objective(nn.Module, ABC):
    """A training objective: ``loss`` for training, ``scores`` for deciding.

    Args:
        num_classes: C, at least 2.
        feature_dim: D, the width of the network's feature.
        options: keywords of ``options_type``.

    Attributes:
        options_type: what checks the options and has their defaults, an ``ObjectiveOptions``; ``object`` for none.
        options: one of them, as this objective was made with.
        views: how many differently augmented views of each sample a step needs. With ``views == 1`` the features
            are ``[B, D]``; otherwise ``[B, views, D]``.
        couples_samples: whether the mean loss of a batch is anything but the mean of its samples' own losses. Where it
            does, gradient accumulation over 4×16 samples is not the same as one batch of 64, and of several processes
            each computes the loss of the whole batch; else that of its own samples.
        readouts: how the objective is judged when it is compared: ``"head"`` (its own scores), ``"cc"`` (centroid
            comparison), ``"lp"`` (linear probe).
        sets_centroids: whether it has centroids that :meth:`set_centroids` can put somewhere, as alternation by class
            means does.

    Raises:
        ValueError: if ``num_classes < 2`` or ``feature_dim < 1``, and what the options refuse.
    """

    options_type: ClassVar[type[Any]] = object
    views: ClassVar[int] = 1
    readouts: tuple[str, ...] = ("head",)
    couples_samples: bool = False
    sets_centroids: ClassVar[bool] = False

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__()
        check_sizes(num_classes, feature_dim)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.options: Any = self.options_type(**options)

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch: ``features [B, D]`` (``[B, views, D]``), ``labels [B]`` → scalar float32."""

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Decision scores, the higher the likelier: ``[B, D] → [B, C]`` float32."""

    def log_distribution(self, features: Tensor) -> Tensor:
        """Output log-distribution whose CMI, Γ and NCMI are reported: ``[B, D] → [B, K]``; by default over classes."""
        return torch.log_softmax(self.scores(features).float(), dim=-1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features, labels)

    def network_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained together with the network: by default, all."""
        return self.parameters()

    def centroid_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that have an optimizer of their own (learned centroids): by default, none."""
        return iter(())

    def observe(self, features: Tensor, labels: Tensor, synchronize: bool = False) -> None:
        """Add a micro-batch's sums and counts to the statistics that :meth:`update` will use. Default: nothing.

        With ``synchronize`` each process has a part of the micro-batch, which may be empty, and sums and counts are
        added up over them: so it is where ``couples_samples`` is False. Else each has the whole of it.
        """

    def update(self) -> None:
        """Bring center, class means and the like up to date; once per optimizer step. Default: nothing."""

    def set_class_counts(self, counts: Tensor) -> None:
        """Tell the objective how many training samples each class has, ``[C]``. Default: not used."""

    def check_settable(self) -> None:
        """Raise ValueError, naming the cure, where these options do not let :meth:`set_centroids` do its work."""

    def set_centroids(self, centroids: Tensor) -> None:
        """Put the training's centroids to distributions ``[C, K]``, e.g. the true ones. Default: there are none."""

    def centroid_classifier(self) -> CentroidClassifier:
        """An unfitted CC for this objective's features; by default with the options that CC itself has."""
        return CentroidClassifier(self.num_classes, self.feature_dim)


class LinearHeadObjective(Objective):
    """An objective on the logits of a linear head. Subclasses give :meth:`criterion`."""

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__(num_classes, feature_dim, **options)
        self.head = nn.Linear(feature_dim, num_classes)

    @abstractmethod
    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ``logits [B, C]`` float32 and ``labels [B]``."""

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        rows, labels = kept_rows(features, labels, self.num_classes, "features")
        logits = self.scores(rows)
        return self.criterion(logits, labels) if len(rows) else logits.sum()

    def scores(self, features: Tensor) -> Tensor:
        # losses are sums of logarithms: float32 also where autocast ran the head in half precision
        return full_precision(self.head(features))


class LossObjective(LinearHeadObjective):
    """A loss function of the logits of a linear head; the options are its keywords."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, num_classes: int, feature_dim: int, **options: Any) -> None:
        super().__init__(num_classes, feature_dim, **options)
        self.keywords: dict[str, Any] = vars(self.options)

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        return type(self).function(logits, labels, **self.keywords)


def kept_rows(values: Tensor, labels: Tensor, num_classes: int, what: str) -> tuple[Tensor, Tensor]:
    """Samples of any shape as rows ``[n, D]`` with ``labels [n]`` or ``[n, C]``, checked, without the ignored ones."""
    batch = as_rows(values, labels, num_classes, what=what)
    if torch.compiler.is_compiling() and not labels.is_floating_point():
        # how many rows are left is not known there: what is ignored is out of range, which is no silent fault
        return batch.rows, labels.reshape(-1).long()
    if batch.ignored is None:
        return batch.rows, batch.labels
    kept = ~batch.ignored
    return batch.rows[kept], batch.labels[kept]


def on_rows(loss: Callable[Concatenate[Tensor, Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, Tensor, P], Tensor]:
    """A loss of checked ``logits [n, C]`` in full precision, with labels int64 ``[n]`` or floats ``[n, C]``.

    What is made of it takes logits ``[B, C]`` or ``[B, C, d1, …]`` and labels as ``torch.nn.functional.cross_entropy``
    does, of any integer dtype; a label of −100 does not count, and without any that does the loss is 0.
    """

    @wraps(loss)
    def of_all(logits: Tensor, labels: Tensor, *args: P.args, **keywords: P.kwargs) -> Tensor:
        check_tensor(logits, "logits")
        rows, labels = kept_rows(logits, labels, logits.shape[min(1, logits.dim() - 1)], "logits")
        rows = full_precision(rows)
        if len(rows) == 0:
            return rows.sum()
        return loss(rows, labels.to(rows.dtype) if labels.is_floating_point() else labels, *args, **keywords)

    return cast(Callable[Concatenate[Tensor, Tensor, P], Tensor], of_all)


def check_hard_labels(labels: Tensor, batch: int, num_classes: int | None, loss: str) -> None:
    """Refuse soft targets where a loss pairs samples by their labels; else check the labels as usual."""
    if labels.is_floating_point() and labels.dim() == 2:
        raise ValueError(
            f"{loss} pairs samples by their labels and cannot take soft targets: pass integer labels [B], without mixup"
        )
    check_labels(labels, torch.iinfo(torch.int64).max if num_classes is None else num_classes)
    if labels.shape[0] != batch:
        raise ValueError(f"{batch} samples but {labels.shape[0]} labels: pass one label for each sample")


def as_distribution(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels ``[B]`` as one-hot rows ``[B, C]``; soft targets as they are."""
    return labels.to(dtype) if labels.is_floating_point() else F.one_hot(labels.long(), num_classes).to(dtype)


def expectation(values: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of ``values[b, y_b]``, ``values [B, C]``; the expected value under soft targets."""
    if labels.is_floating_point():
        return (labels * values).sum(-1).mean()
    return values.gather(-1, labels.unsqueeze(-1)).mean()


def rows_of(table: Tensor, labels: Tensor) -> Tensor:
    """Row ``y_b`` of ``table [C, K]`` for each sample, ``[B, K]``; the expected row under soft targets."""
    return labels @ table if labels.is_floating_point() else table[labels]


def no_autocast(values: Tensor) -> torch.autocast:
    """Context in which matrix products stay in the dtype of their inputs, also inside autocast."""
    return torch.autocast(values.device.type, enabled=False)

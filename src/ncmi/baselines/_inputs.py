"""What the baseline losses share: checked inputs in full precision, and labels that may be soft.

A loss for soft targets ``t`` is the expectation of the loss over labels drawn from ``t``, so mixup is defined
for every loss that has a value for each label.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.checks import check_labels, check_targets
from ncmi.simplex import full_precision


def prepare(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Checked ``logits [B, C]`` in full precision, and ``labels`` as int64 ``[B]`` or floats ``[B, C]``."""
    if logits.dim() != 2:
        raise ValueError(f"logits have shape {list(logits.shape)}: pass [B, C], one row for each sample")
    check_targets(labels, logits.shape[0], logits.shape[1])
    logits = full_precision(logits)
    return logits, labels.to(logits.dtype) if labels.is_floating_point() else labels.long()


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

"""Checks of labels and soft targets, shared by every loss: each message names the cure.

Shapes and dtypes are checked always. Values are checked on the CPU only: on another device reading them would
stall it, and under ``torch.compile`` it would break the graph.
"""

import torch
from torch import Tensor

_SUM_TOLERANCE = 1e-2  # soft targets mixed in half precision sum to 1 only about so well


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Check class indices: ``labels [B]``, integers in ``0 … num_classes − 1``, B at least 1.

    Raises:
        ValueError: for another dtype or shape, an empty batch, or (on the CPU) a label out of range.

    Example:
        >>> check_labels(torch.tensor([0, 12]), num_classes=10)
        Traceback (most recent call last):
        ValueError: labels run to 12 but num_classes is 10: pass num_classes=13 or check the labels
    """
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}: class indices must be integers; use labels.long()")
    if labels.dim() != 1:
        raise ValueError(
            f"labels have shape {list(labels.shape)}: class indices have shape [B]; use labels.flatten(), "
            "or floating-point soft targets [B, C]"
        )
    if labels.shape[0] == 0:
        raise ValueError("empty batch: the mean over no samples is undefined; skip batches without samples")
    if not _can_read_values(labels):
        return
    lowest, highest = (int(bound) for bound in torch.aminmax(labels))
    if lowest < 0:
        raise ValueError(f"labels run from {lowest}: classes count from 0; drop the samples without a class")
    if highest >= num_classes:
        raise ValueError(
            f"labels run to {highest} but num_classes is {num_classes}: "
            f"pass num_classes={highest + 1} or check the labels"
        )


def check_targets(targets: Tensor, batch: int, num_classes: int) -> None:
    """Check a loss's labels ``[B]`` (integers) or soft targets ``[B, C]`` (floats) for ``batch`` samples.

    Raises:
        ValueError: as :func:`check_labels`; for a number of rows other than ``batch``; for soft targets of
            another width than ``num_classes`` or (on the CPU) that are not distributions over the classes.
    """
    if targets.is_floating_point() and targets.dim() == 2:
        _check_distributions(targets, num_classes)
    else:
        check_labels(targets, num_classes)
    if targets.shape[0] != batch:
        raise ValueError(f"{batch} samples but {targets.shape[0]} labels: pass one label for each sample")


def _check_distributions(targets: Tensor, num_classes: int) -> None:
    if targets.shape[1] != num_classes:
        raise ValueError(
            f"soft targets have {targets.shape[1]} columns but num_classes is {num_classes}: "
            "pass one column for each class"
        )
    if targets.shape[0] == 0:
        raise ValueError("empty batch: the mean over no samples is undefined; skip batches without samples")
    if not _can_read_values(targets):
        return
    # written so that NaN fails too
    if not bool((targets >= 0).all()):
        raise ValueError("soft targets are negative or NaN: pass probabilities, e.g. logits.softmax(-1)")
    if not bool(((targets.sum(-1) - 1).abs() <= _SUM_TOLERANCE).all()):
        raise ValueError("soft targets do not sum to 1: divide each row by its sum")


def _can_read_values(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()

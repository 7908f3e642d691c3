"""What every loss is given, checked and laid out as rows: each message names the cure.

Shapes and dtypes are checked always. Values are checked on the CPU only: on another device reading them would stall it,
and under ``torch.compile`` or ``torch.func`` it cannot be done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncmi.loss.autograd import values_can_be_read

SUM_TOLERANCE = 1e-2  # distributions mixed in half precision sum to 1 only about so well
IGNORE = -100  # the label of samples without a class, as torch.nn.functional.cross_entropy has it


class NotFiniteError(FloatingPointError, ValueError):
    """Values that are not finite: a wrong input of a loss on its own, and in training mostly a run that diverges."""


class Batch(NamedTuple):
    """Samples of any shape as rows, and the way back.

    Attributes:
        rows: ``[n, D]``.
        labels: ``[n]`` int64, or soft targets ``[n, C]``.
        places: of the rows among all samples, where ignored ones have been left out.
        ignored: ``[n]`` bool, rows that do not count, where they could not be left out; their label is 0.
        shape: of the labels as they were given, without a dimension of classes.
    """

    rows: Tensor
    labels: Tensor
    places: Tensor | None
    ignored: Tensor | None
    shape: torch.Size

    def shares(self, dtype: torch.dtype) -> Tensor:
        """1 for each row, 0 for an ignored one: ``[n]``."""
        ones = torch.ones_like(self.labels, dtype=dtype)
        return ones if self.ignored is None else ones.masked_fill(self.ignored, 0.0)

    def reduce(self, each: Tensor, weights: Tensor | None, reduction: str) -> Tensor:
        """Losses ``[n]`` reduced as by ``nn.CrossEntropyLoss``: ``"mean"`` divides by the sum of the weights.

        Where all samples are ignored the mean is 0, with a graph.
        """
        if self.ignored is not None:
            each = each.masked_fill(self.ignored, 0.0)
        if reduction == "none":
            if self.places is not None:
                each = each.new_zeros(self.shape.numel()).index_put((self.places,), each)
            return each.reshape(self.shape)
        return each.sum() if reduction == "sum" else self.ratio(each, weights)

    def ratio(self, numerator: Tensor, denominator: Tensor | None) -> Tensor:
        """Sum over sum, or the mean without a denominator; 0 where nothing counts."""
        if self.ignored is None and denominator is None and len(numerator) > 0:
            return numerator.mean()
        if denominator is None:
            denominator = torch.ones_like(numerator)
        if self.ignored is not None:
            numerator = numerator.masked_fill(self.ignored, 0.0)
            denominator = denominator.masked_fill(self.ignored, 0.0)
        total = denominator.sum()
        return numerator.sum() / torch.where(total == 0, 1.0, total)


def as_rows(
    values: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    width: int | None = None,
    ignore_index: int = IGNORE,
    last: bool = False,
    what: str = "features",
    may_be_empty: bool = False,
) -> Batch:
    """Check a loss's input and lay it out as rows.

    Args:
        values: features, logits or log-distributions, ``[D]``, ``[B, D]`` or ``[B, D, d1, …]``; with ``last``
            ``[..., D]``.
        labels: class indices of the same shape without D; or soft targets, C in the place of D.
        num_classes: C.
        width: D, where it is known.
        ignore_index: label of samples that do not count.
        last: whether the dimension of features is the last one instead of the second.
        what: the values' name in messages.
        may_be_empty: whether there may be no samples, as of a process whose part of a batch is empty.

    Raises:
        TypeError: for what is no tensor.
        ValueError: for shapes or dtypes that do not fit, an empty batch, and (on the CPU) labels out of range and soft
            targets that are not distributions.
    """
    check_tensor(values, what)
    check_tensor(labels, "labels")
    axis = -1 if last or values.dim() < 2 else 1
    if values.dim() == 0 or (width is not None and values.shape[axis] != width):
        shape = f"[..., {width}]" if last else f"[B, {width}], or [B, {width}, d1, …] with labels [B, d1, …]"
        raise ValueError(
            f"{what} {list(values.shape)}: expected {shape}; the width of the network's output must be that of the loss"
        )
    if values.dim() != 2:
        values = values.movedim(axis, -1)
    outer = values.shape[:-1]
    soft = labels.is_floating_point() and labels.dim() == len(outer) + 1
    if soft:
        labels = labels if labels.dim() == 2 else labels.movedim(axis, -1)
        _check_distributions(labels, num_classes)
    else:
        _check_dtype(labels)
    if labels.shape[: len(outer)] != outer or (not soft and labels.dim() != len(outer)):
        if not soft and labels.dim() == len(outer) + 1 and labels.shape[-1] == 1:
            raise ValueError(
                f"labels have shape {list(labels.shape)}: class indices have {list(outer)}; use labels.squeeze(-1)"
            )
        samples, given = (
            "×".join(map(str, x)) or "1" for x in (outer, labels.shape[: len(outer)] if soft else labels.shape)
        )
        raise ValueError(
            f"{samples} samples but {given} labels: pass one label for each sample, or soft targets in floating point"
        )
    rows = values if values.dim() == 2 else values.reshape(-1, values.shape[-1])
    if len(rows) == 0:
        if may_be_empty:
            return Batch(rows, labels.reshape(0, num_classes) if soft else labels.reshape(-1).long(), None, None, outer)
        raise ValueError("empty batch: the mean over no samples is undefined; skip batches without samples")
    if soft:
        return Batch(rows, labels.reshape(len(rows), num_classes), None, None, outer)
    labels = labels.reshape(-1).long()
    if not values_can_be_read(labels):
        ignored = labels == ignore_index
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            inside = (labels >= 0) & (labels < num_classes)
            torch._assert_async((inside | ignored).all(), f"labels out of range: there are {num_classes} classes")
        return Batch(rows, labels.masked_fill(ignored, 0), None, ignored, outer)
    lowest, highest = _range(labels)
    if not (lowest <= ignore_index <= highest):
        _check_range(lowest, highest, num_classes, ignore_index)
        return Batch(rows, labels, None, None, outer)
    places = (labels != ignore_index).nonzero().squeeze(1)
    labels = labels.index_select(0, places)
    if len(labels):
        _check_range(*_range(labels), num_classes, ignore_index)
    return Batch(rows.index_select(0, places), labels, places, None, outer)


def check_tensor(value: Any, name: str) -> None:
    """Raise TypeError, naming the cure, for what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} are a {type(value).__name__}: pass a tensor, torch.as_tensor({name})")


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Check class indices: ``labels [B]``, integers in ``0 … num_classes − 1``, B at least 1.

    Raises:
        TypeError: for what is no tensor.
        ValueError: for another dtype or shape, an empty batch, or (on the CPU) a label out of range.

    Example:
        >>> check_labels(torch.tensor([0, 12]), num_classes=10)
        Traceback (most recent call last):
        ValueError: labels run to 12 but num_classes is 10: pass num_classes=13 or check the labels
    """
    check_tensor(labels, "labels")
    _check_dtype(labels)
    if labels.dim() != 1:
        raise ValueError(
            f"labels have shape {list(labels.shape)}: class indices have shape [B]; use labels.flatten(), "
            "or floating-point soft targets [B, C]"
        )
    if labels.shape[0] == 0:
        raise ValueError("empty batch: the mean over no samples is undefined; skip batches without samples")
    if values_can_be_read(labels):
        _check_range(*_range(labels), num_classes, None)


def _check_dtype(labels: Tensor) -> None:
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}: class indices must be integers; use labels.long()")


def _range(labels: Tensor) -> tuple[int, int]:
    lowest, highest = torch.aminmax(labels)
    return int(lowest), int(highest)


def _check_range(lowest: int, highest: int, num_classes: int, ignore_index: int | None) -> None:
    """``ignore_index`` is None where there is no such option."""
    leave_out = "leave out the samples without a class"
    if lowest < 0:
        cure = leave_out if ignore_index is None else f"{leave_out}, or pass ignore_index={lowest}"
        raise ValueError(f"labels run from {lowest}: classes count from 0; {cure}")
    if highest >= num_classes:
        cure = f"pass num_classes={highest + 1} or check the labels"
        if highest == 255 and ignore_index is not None:
            cure = f"pass ignore_index=255 if that marks samples without a class; else {cure}"
        raise ValueError(f"labels run to {highest} but num_classes is {num_classes}: {cure}")


def _check_distributions(targets: Tensor, num_classes: int) -> None:
    if targets.shape[-1] != num_classes:
        raise ValueError(
            f"soft targets have {targets.shape[-1]} columns but num_classes is {num_classes}: "
            "pass one column for each class"
        )
    if targets.shape[0] == 0:
        raise ValueError("empty batch: the mean over no samples is undefined; skip batches without samples")
    if not values_can_be_read(targets):
        return
    # written so that NaN fails too
    if not bool((targets >= 0).all()):
        raise ValueError("soft targets are negative or NaN: pass probabilities, e.g. logits.softmax(-1)")
    total = targets.sum(-1)
    if not bool(((total - 1).abs() <= SUM_TOLERANCE).all()):
        if bool(((targets == 0) | (targets == 1)).all()):
            raise ValueError(
                "soft targets of zeros and ones do not sum to 1: several classes of a sample, or none, at once is "
                "another task (a binary one for each class); NCMI knows one class for each sample"
            )
        raise ValueError("soft targets do not sum to 1: divide each row by its sum")

"""What the tests that hold the loss against :mod:`ncmi.loss.equation` share."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing
from torch import Tensor

import ncmi
from ncmi.loss import equation
from ncmi.loss.forms import FeatureLength

POWERS = (1.0, 2.0, 0.0, -1.0, -4.0, -12.0, math.inf, -math.inf)
DIRECTIONS = ("centroid_to_sample", "sample_to_centroid")
KINDS = ("nsf", "softmax")
LENGTHS: tuple[FeatureLength, ...] = ("own", "common")


def samples(loss: ncmi.NCMILoss, features: Tensor) -> Tensor:
    """Distributions of features by the equation, ``[..., D]``, with a loss's options and center."""
    center = None if loss.center is None else loss.center.to(features.dtype)
    return equation.distribution(features, center, loss.temperature, loss.distribution, loss.feature_length)


def centroids(loss: ncmi.NCMILoss, logits: Tensor) -> Tensor:
    """Those of a loss that has ``logits [C, D]`` for its own: free ones, or points of the features' space."""
    if loss.as_features:
        return equation.distribution(logits, None, loss.temperature, loss.distribution, loss.feature_length)
    return equation.simplex(logits, loss.distribution)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Norm of the difference by the norm of what was expected."""
    return ((value.double() - expected).norm() / expected.norm()).item()


def in_processes(work: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """``work(rank, *arguments)`` in so many processes at once.

    All are forked from one that has imported torch and done nothing else: imported by each, it takes longer than the
    work.
    """
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"])
    torch.multiprocessing.start_processes(work, arguments, count, start_method=start)  # type: ignore[no-untyped-call]

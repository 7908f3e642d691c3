"""Learning-rate factors over optimiser steps, for torch's LambdaLR: without state but the step number."""

from __future__ import annotations

import math
from collections.abc import Callable

from ncmi.recipes import Training

_RISE = 0.3  # share of a one-cycle run in which the learning rate rises
_START = 0.04  # its first factor


def learning_rate_factor(training: Training, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of the learning rate at each optimiser step (from 0), as ``training.schedule`` has it."""
    total = max(1, training.epochs * steps_per_epoch)
    warmup = training.warmup_epochs * steps_per_epoch
    milestones = [milestone * steps_per_epoch for milestone in training.milestones]

    def factor(step: int) -> float:
        if training.schedule == "one_cycle":
            rise = _RISE * total
            if step < rise:
                return _START + (1 - _START) * _half_cosine(step / rise)
            return 1 - _half_cosine(min(1.0, (step - rise) / (total - rise)))
        if step < warmup:
            return (step + 1) / (math.floor(warmup) + 1)
        if training.schedule == "cosine":
            return 1 - _half_cosine(min(1.0, (step - warmup) / max(1.0, total - warmup)))
        if training.schedule == "step":
            return training.decay_factor ** sum(step >= milestone for milestone in milestones)
        return 1.0

    return factor


def _half_cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2

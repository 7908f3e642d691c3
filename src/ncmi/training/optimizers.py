"""The optimizers of the network and of learned centroids, one or two, and their learning rates over the steps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from ncmi.recipes import Training
from ncmi.training.model import Classifier

_RISE = 0.3  # share of a one-cycle run in which the learning rate rises
_START = 0.04  # its first factor


def make_optimizers(model: Classifier, training: Training) -> tuple[Optimizer, Optimizer | None]:
    """Optimizers of the network's and of the centroids' parameters; None where the latter need none of their own.

    They do where the two take turns. Where both always move, one steps through all groups, for half the cost.

    Weight decay acts on matrices and kernels, on biases and normalization only where the recipe says so, and never on
    centroids.
    """
    every = [*model.network.parameters(), *model.objective.network_parameters()]
    parameters = [parameter for parameter in every if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {
            "params": [p for p in parameters if p.dim() <= 1],
            "weight_decay": training.weight_decay if training.decay_all else 0.0,
        },
    ]
    of_network = [group | {"lr": training.learning_rate} for group in groups if group["params"]]
    centroids = list(model.objective.centroid_parameters())
    of_centroids = [{"params": centroids, "weight_decay": 0.0, "lr": training.centroid_learning_rate}]
    if not centroids:
        return _make(of_network, training), None
    if training.alternation.moves_both:
        return _make([*of_network, *of_centroids], training), None
    return _make(of_network, training), _make(of_centroids, training)


def _make(groups: list[dict[str, Any]], training: Training) -> Optimizer:
    if training.optimizer == "sgd":
        nesterov = training.nesterov and training.momentum > 0
        return torch.optim.SGD(groups, momentum=training.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, fused=True)


def learning_rate_factor(training: Training, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of the learning rate at each optimizer step (from 0), as ``training.schedule`` has it."""
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
        share = min(1.0, (step - warmup) / max(1.0, total - warmup))
        if training.schedule == "cosine":
            return 1 - _half_cosine(share)
        if training.schedule == "linear":
            return 1 - share
        if training.schedule == "step":
            return training.decay_factor ** sum(step >= milestone for milestone in milestones)
        return 1.0

    return factor


def _half_cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2

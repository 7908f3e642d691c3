"""The two optimisers: one for the network, one for learned centroids."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from ncmi.recipes import Training
from ncmi.training.model import Classifier


def make_optimisers(model: Classifier, training: Training) -> tuple[Optimizer, Optimizer | None]:
    """Optimisers of the network's and of the centroids' parameters; None where nothing is learned of the latter.

    Weight decay acts on matrices and kernels, on biases and normalisation only where the recipe says so, and never on
    centroids.
    """
    every = [*model.backbone.parameters(), *model.objective.network_parameters()]
    parameters = [parameter for parameter in every if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {
            "params": [p for p in parameters if p.dim() <= 1],
            "weight_decay": training.weight_decay if training.decay_all else 0.0,
        },
    ]
    centroids = list(model.objective.centroid_parameters())
    return (
        _make([group for group in groups if group["params"]], training.learning_rate, training),
        _make([{"params": centroids, "weight_decay": 0.0}], training.centroid_learning_rate, training)
        if centroids
        else None,
    )


def _make(groups: list[dict[str, Any]], learning_rate: float, training: Training) -> Optimizer:
    if training.optimiser == "sgd":
        nesterov = training.nesterov and training.momentum > 0
        return torch.optim.SGD(groups, lr=learning_rate, momentum=training.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)

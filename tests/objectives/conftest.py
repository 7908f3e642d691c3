"""A batch for each baseline objective, seeded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ncmi.objectives.interface import Objective
from ncmi.objectives.options import make_objective

B, C, D = 6, 4, 5
Problem = tuple[Objective, Tensor, Tensor]


@pytest.fixture
def problem() -> Callable[..., Problem]:
    """``problem(name, **options)``: an objective with its statistics under way, features and labels."""

    def make(name: str, dtype: torch.dtype = torch.float64, **options: float) -> Problem:
        torch.manual_seed(0)
        objective = make_objective(name, C, D, **options).to(dtype)
        shape = (B, D) if objective.views == 1 else (B, objective.views, D)
        features, labels = torch.randn(shape, dtype=dtype), torch.tensor([0, 1, 2, 0, 1, 0])
        for _ in range(2):
            objective.observe(torch.randn(shape, dtype=dtype), labels)
            objective.update()
        return objective, features, labels

    return make

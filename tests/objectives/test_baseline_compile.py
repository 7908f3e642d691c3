"""The losses compile to one graph, and only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import baseline_reference as reference
import pytest
import torch


# Dynamo instantiates every autograd.Function that it traces, and warns of it itself
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", reference.NAMES)
def test_compiles_to_one_graph_once(name: str, problem: Callable[..., Any]) -> None:
    """Forwards and backwards are traced by AOTAutograd; code generation is not the losses' business."""
    objective, features, labels = problem(name, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(objective.loss, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (features, features * 2):
            batch = batch.clone().requires_grad_()
            ours, theirs = compiled(batch, labels), objective.loss(batch, labels)
            torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(torch.autograd.grad(ours, batch), torch.autograd.grad(theirs, batch))
            objective.observe(batch, labels)
            objective.update()

"""What of a loop a checkpoint holds: everything that a step depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ncmi.training.checkpoint import CheckpointError, random_state, set_random_state
from ncmi.training.progress import Progress

if TYPE_CHECKING:
    from ncmi.training.loop import Loop


def state_of(loop: Loop[Any]) -> dict[str, Any]:
    """The state as a tree of tensors and plain values."""
    return {
        "model": loop.model.state_dict(),
        "average": None if loop.average is None else loop.average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in loop.raw_optimisers],
        "schedulers": [scheduler.last_epoch for scheduler in loop.schedulers],
        "random": random_state(loop.fabric.device),
        "loss_sum": loop.loss_sum,
        "penalty_sum": loop.penalty_sum,
        "progress": vars(loop.progress),
    }


def restore(loop: Loop[Any], state: dict[str, Any]) -> None:
    """Put a loop into a state from :func:`state_of`.

    Raises:
        CheckpointError: if the state is of another model or of other data.
    """
    try:
        loop.model.load_state_dict(state["model"])
        if loop.average is not None:
            loop.average.load_state_dict(state["average"])
        for optimiser, saved in zip(loop.raw_optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
            _follow_layout(optimiser)
        for scheduler, last in zip(loop.schedulers, state["schedulers"], strict=True):
            scheduler.last_epoch = last
        set_random_state(state["random"], loop.fabric.device)
        loop.loss_sum.copy_(state["loss_sum"])
        loop.penalty_sum.copy_(state["penalty_sum"])
        loop.progress = Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{loop.folder.checkpoint}: not of this recipe and data ({reason}): restore them, or run it again"
        ) from None


def _follow_layout(optimiser: Optimizer) -> None:
    """Lay the state of each parameter out in memory as the parameter: fused steps walk both in the order of memory."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

"""A copy of a module that follows it as a moving average."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def anchor_of(module: M) -> M:
    """A copy of a module whose parameters are buffers: in the ``state_dict``, but nothing an optimiser could find.

    Example:
        >>> anchor = anchor_of(nn.Linear(2, 3))
        >>> list(anchor.parameters()), sorted(anchor.state_dict())
        ([], ['bias', 'weight'])
    """
    anchor = copy.deepcopy(module)
    for part in list(anchor.modules()):
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return anchor


def move_anchor(anchor: nn.Module, module: nn.Module, decay: float) -> None:
    """``anchor ← decay · anchor + (1 − decay) · module``, for each parameter of the module."""
    buffers = dict(anchor.named_buffers())
    for name, parameter in module.named_parameters():
        buffers[name].lerp_(parameter.detach(), 1 - decay)

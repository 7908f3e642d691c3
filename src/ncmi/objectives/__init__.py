"""The losses that NCMI is compared with: one file each, a pure function and a thin objective over it.

The interface of all objectives is in ``interface``, their options and names, without torch, in ``options``. The loss
functions are here by name, as ``focal_loss``. Where they take logits, it is

    ``loss(logits, labels, **options) -> scalar``

with ``logits [B, C]``, of which half precision is computed in float32, and ``labels``, class indices ``[B]`` or soft
targets ``[B, C]``. They raise ValueError for labels out of range or of another shape, and for an empty batch.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """A loss function of the module that bears its name: importing the options brings no torch."""
    if not name.endswith("_loss"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.removesuffix('_loss')}"), name)

"""Where gradients written by hand may be used, and what stands in for them where they may not.

Written by hand, a step takes half the passes over memory. But ``torch.func`` maps, forward-mode derivatives, the
compiler, export and tensor subclasses all need to look inside, and so does a gradient of a gradient. Each function with
a gradient by hand therefore has a plain twin of ordinary operations, and these two helpers say which one is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN = (Tensor, nn.Parameter)


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` (grad, vmap, …) is at work."""
    return bool(torch._C._are_functorch_transforms_active())


def by_hand(*tensors: Tensor | None) -> bool:
    """Whether a function with a gradient by hand may be used on these tensors: eager, and nothing looks inside."""
    return (
        not torch.compiler.is_compiling()
        and not is_transformed()
        and forward_ad._current_level < 0
        and all(x is None or (type(x) in _PLAIN and x.device.type != "meta") for x in tensors)
    )


def values_can_be_read(tensor: Tensor) -> bool:
    """Whether a look at values is cheap and possible: on another device it stalls, in a compiled graph it breaks."""
    return tensor.device.type == "cpu" and by_hand(tensor)


def differentiable_backward(
    plain: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Any],
    needed: Sequence[bool],
    gradients: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradient of ``plain(*inputs)`` by autograd, itself differentiable: for a backward pass with create_graph.

    Args:
        plain: the function in ordinary operations.
        inputs: its arguments, as they were saved; tensors keep their history.
        needed: which of them need a gradient.
        gradients: of the outputs.

    Returns:
        A gradient or None for each input.
    """
    with torch.enable_grad():
        outputs = plain(*inputs)
        wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)


@contextmanager
def _highest(device: str) -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def full_products(tensor: Tensor) -> Any:
    """Context in which matrix products keep all digits: outside autocast, and neither in TF32 nor in bfloat16.

    A divergence is the small difference of large sums: with ten bits nothing of it is left.
    """
    device = tensor.device.type
    if torch.compiler.is_compiling():
        return torch.autocast(device, enabled=False)
    if torch.get_float32_matmul_precision() != "highest":
        return _highest(device)
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()

"""What of torch's state a caller may have set for the whole process, and what is computed here must not follow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def torch_defaults(*, draws: bool = False) -> Iterator[None]:
    """Inside it torch is as it is when a process starts, whatever the caller has set; afterwards it is as it was.

    Without it ``torch.set_default_dtype(torch.float64)``, a default device, ``torch.no_grad()`` or
    ``torch.inference_mode()`` around a call would end training, and making a network would draw from the caller's
    random numbers. As a decorator it holds for each call of a function.

    Args:
        draws: whether random numbers are drawn inside, so that the caller's must be put back. What draws none may run
            in a thread beside a training, whose random numbers would be drawn twice.

    Example:
        >>> with torch.inference_mode(), torch_defaults():
        ...     torch.is_grad_enabled(), torch.get_default_dtype()
        (True, torch.float32)
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if draws:
            used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices=used))
            stack.callback(random.setstate, random.getstate())  # libraries draw of Python's when they are imported
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # each call of torch would pass through it
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:  # else a thread would put back what another one has set for a while
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield

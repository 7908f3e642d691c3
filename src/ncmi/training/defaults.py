"""What of the state of a process a caller may have set: what is computed here must not follow it, nor change it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ncmi.recipes import Training

_SMALL_BATCH = 256


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


def makes_small_steps(network: str, training: Training, device: torch.device) -> bool:
    """Whether one thread is enough to train, where their number is left open: on a CPU, a perceptron's small batches.

    Args:
        network: its name.
        training: with its batch size settled.
        device: that it is trained on.
    """
    return (
        training.threads is None and device.type == "cpu" and network == "mlp" and training.batch_size <= _SMALL_BATCH
    )


@contextmanager
def one_thread(enabled: bool) -> Iterator[None]:
    """Inside it torch computes with one thread of the CPU.

    More threads gain nothing with small tensors, and where the machine has other work they wait for each other: a table
    that is trained on in seconds then takes minutes.
    """
    # the number is the process's: what several Python threads change and put back would not end as it was
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

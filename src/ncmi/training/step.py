"""One step of training: features in, parameters moved. It knows neither folder nor Fabric nor any loss by name."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.objectives.interface import Objective


class TrainingStep:
    """An optimizer step on one batch, or on several micro-batches that together are one.

    Args:
        objective: owns loss and statistics.
        optimizer: of network and objective; an :class:`ncmi.AlternatingOptimizer` moves centroids in their turn.
        schedulers: stepped once after each optimizer step.
        parameters: whose gradient ``clip_norm`` limits.
        clip_norm: limit of the gradient's norm; None for none.
        autocast: makes the context that the loss is computed in.
        backward: called with the loss, where that is not ``Tensor.backward``.

    Example:
        ``step = TrainingStep(objective, optimizer)``, then for each batch ``loss = step(network(inputs), labels)``;
        with micro-batches ``step.begin()``, ``step.add(...)`` for each, ``step.finish()``.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer | AlternatingOptimizer,
        *,
        schedulers: Sequence[LRScheduler] = (),
        parameters: Iterable[nn.Parameter] = (),
        clip_norm: float | None = None,
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
        backward: Callable[[Tensor], None] = torch.Tensor.backward,
    ) -> None:
        self.objective, self.optimizer, self.schedulers = objective, optimizer, schedulers
        self.parameters, self.clip_norm = list(parameters), clip_norm
        self.autocast, self.backward = autocast, backward

    def begin(self) -> None:
        """Drop the gradients of the step before."""
        self.optimizer.zero_grad()

    def add(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        share: float = 1.0,
        penalty: Tensor | None = None,
        synchronize: bool = False,
    ) -> Tensor:
        """Loss and backward pass of a micro-batch; the objective observes it.

        Args:
            features: ``[n, D]`` or ``[n, views, D]``, with gradient; of one process's part of a micro-batch n may be 0.
            labels: ``[n]``.
            share: of the batch that the micro-batch is.
            penalty: what the network adds to the loss.
            synchronize: whether other processes have the rest of the micro-batch, which the objective observes too.

        Returns:
            The objective's loss, without gradient.

        Raises:
            ValueError: if the loss is not one number.
        """
        with self.autocast():
            # no samples, and all the same a way back through the network, as the others wait for its gradient
            loss = self.objective.loss(features, labels) if len(labels) else features.sum() * 0
        if loss.dim() > 0:
            raise ValueError(f"the loss has shape {list(loss.shape)}: training needs a reduction to one number")
        total = loss if penalty is None else loss + penalty
        self.backward(total * share)
        self.objective.observe(features.detach(), labels, synchronize)
        return loss.detach()

    def finish(self, *, step: int = 0, epoch: int = 0) -> None:
        """Move the parameters, then bring statistics and learning rates up to date.

        Args:
            step, epoch: of the run, from 0; an alternating optimizer takes its turns by them.
        """
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        if isinstance(self.optimizer, AlternatingOptimizer):
            self.optimizer.step(step=step, epoch=epoch)
        else:
            self.optimizer.step()
        self.objective.update()
        with warnings.catch_warnings():
            # whoever's turn it is not does not step, while its schedule does: that is meant
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step")
            for scheduler in self.schedulers:
                scheduler.step()

    def __call__(self, features: Tensor, labels: Tensor, *, step: int = 0, epoch: int = 0) -> Tensor:
        """All of it for a batch that is not divided."""
        self.begin()
        loss = self.add(features, labels)
        self.finish(step=step, epoch=epoch)
        return loss

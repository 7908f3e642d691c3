"""Alternating optimization of network and centroids, as the paper means it, with two optimizers.

Torch is not imported: recipes and the command line read whose turn it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ncmi.loss.forms import check_choice

if TYPE_CHECKING:
    from torch.optim import Optimizer


Mode = Literal["joint", "phases", "class_means"]


@dataclass(frozen=True)
class Alternation:
    """Whose turn it is, the network's or the centroids'; see :class:`ncmi.AlternatingOptimizer`.

    Attributes:
        mode: "joint": both move at every step, from one backward pass. "phases": strictly in turn. "class_means": the
            network alone moves; at the end of each epoch the centroids are put to the true class means (closed form).
        network_steps, centroid_steps: length of the phases in optimizer steps.
        start_epoch: epoch (from 0) before which the centroids stand still.
    """

    mode: Mode = "joint"
    network_steps: int = 1
    centroid_steps: int = 1
    start_epoch: int = 0

    def __post_init__(self) -> None:
        check_choice("alternation", self.mode, Mode)
        if self.network_steps < 1 or self.centroid_steps < 1 or self.start_epoch < 0:
            raise ValueError(f"{self}: phases need at least 1 step each and the start epoch at least 0")

    @property
    def moves_both(self) -> bool:
        """Whether both move at every step, so that one optimizer can hold all parameters."""
        return self.mode == "joint" and self.start_epoch == 0

    def turn(self, step: int, epoch: int) -> tuple[bool, bool]:
        """Whether (network, centroids) move at this optimizer step of the run (from 0) in this epoch (from 0)."""
        if epoch < self.start_epoch or self.mode == "class_means":
            return True, False
        if self.mode == "joint":
            return True, True
        network = step % (self.network_steps + self.centroid_steps) < self.network_steps
        return network, not network


class AlternatingOptimizer:
    """Two optimizers, one for the network and one for the centroids, that take turns.

    Args:
        network: optimizer of the network's and the objective's :meth:`~ncmi.Objective.network_parameters`.
        centroids: optimizer of :meth:`~ncmi.Objective.centroid_parameters`; None where there are none, or where both
            always move and the first holds them too.
        alternation: whose turn it is. In a step where one of the two is held, its gradients are dropped at the next
            :meth:`zero_grad`.

    Example:
        >>> import torch
        >>> w, q = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
        >>> both = AlternatingOptimizer(
        ...     torch.optim.SGD([w], lr=1.0), torch.optim.SGD([q], lr=1.0), Alternation(mode="phases"))
        >>> for step in range(2):
        ...     both.zero_grad()
        ...     (w + q).sum().backward()
        ...     both.step(step=step, epoch=0)
        >>> w.item(), q.item()
        (0.0, 0.0)
    """

    def __init__(self, network: Optimizer, centroids: Optimizer | None, alternation: Alternation) -> None:
        self.network, self.centroids, self.alternation = network, centroids, alternation

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        return (self.network,) if self.centroids is None else (self.network, self.centroids)

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self, *, step: int, epoch: int) -> None:
        """Step whichever's turn it is; ``step`` counts all optimizer steps of the run, from 0."""
        move_network, move_centroids = self.alternation.turn(step, epoch)
        if move_network or self.centroids is None:
            self.network.step()
        if move_centroids and self.centroids is not None:
            self.centroids.step()

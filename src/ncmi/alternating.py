"""Alternating optimisation of network and centroids, as the paper means it, with two optimisers."""

from __future__ import annotations

from torch.optim import Optimizer

from ncmi.options import Alternation


class AlternatingOptimiser:
    """Two optimisers, one for the network and one for the centroids, that take turns.

    Args:
        network: optimiser of the backbone's and the objective's :meth:`~ncmi.Objective.network_parameters`.
        centroids: optimiser of :meth:`~ncmi.Objective.centroid_parameters`; None where there are none.
        alternation: ``mode="joint"``: both step after every backward pass. ``"phases"``: ``network_steps`` steps of the
            network with the centroids held, then ``centroid_steps`` of the centroids with the network held, and so on.
            Before ``start_epoch`` (counted from 0) only the network moves.

    In a step where one of the two is held, its gradients are dropped at the next :meth:`zero_grad`.

    Example:
        >>> import torch
        >>> w, q = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
        >>> both = AlternatingOptimiser(
        ...     torch.optim.SGD([w], lr=1.0), torch.optim.SGD([q], lr=1.0), Alternation(mode="phases"))
        >>> for step in range(2):
        ...     both.zero_grad()
        ...     (w + q).sum().backward()
        ...     both.step(step=step, epoch=0)
        >>> w.item(), q.item()
        (0.0, 0.0)
    """

    def __init__(self, network: Optimizer, centroids: Optimizer | None, alternation: Alternation) -> None:
        self.network = network
        self.centroids = centroids
        self.alternation = alternation

    @property
    def optimisers(self) -> tuple[Optimizer, ...]:
        return (self.network,) if self.centroids is None else (self.network, self.centroids)

    def zero_grad(self) -> None:
        """Drop the gradients of both."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def step(self, *, step: int, epoch: int) -> None:
        """Step whichever's turn it is; ``step`` counts all optimiser steps of the run, from 0."""
        move_network, move_centroids = self.alternation.turn(step, epoch)
        if move_network or self.centroids is None:
            self.network.step()
        if move_centroids and self.centroids is not None:
            self.centroids.step()

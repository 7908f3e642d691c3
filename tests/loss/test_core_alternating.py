"""Whose turn it is, the network's or the centroids', and the two optimizers that take turns."""

from __future__ import annotations

import pytest
import torch

from ncmi.loss.alternating import AlternatingOptimizer, Alternation


def test_whose_turn_it_is() -> None:
    turns = [Alternation(mode="phases", network_steps=2, centroid_steps=1).turn(step, 0) for step in range(6)]
    assert turns == [(True, False), (True, False), (False, True)] * 2
    assert Alternation().turn(5, 0) == (True, True)
    assert Alternation(start_epoch=2).turn(5, 1) == (True, False)
    assert Alternation(start_epoch=2).turn(5, 2) == (True, True)
    assert Alternation(mode="class_means").turn(0, 9) == (True, False)
    with pytest.raises(ValueError, match="unknown alternation 'both': use one of joint, phases, class_means"):
        Alternation("both")  # type: ignore[arg-type]


def test_both_step_only_where_both_are_there() -> None:
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    network, centroids = (torch.optim.SGD([parameter], lr=1.0) for parameter in parameters)
    both = AlternatingOptimizer(network, centroids, Alternation("phases"))
    assert both.optimizers == (network, centroids)
    (parameters[0] * parameters[1]).sum().backward()
    both.step(step=1, epoch=0)
    assert [parameter.item() for parameter in parameters] == [1.0, 0.0]
    both.zero_grad()
    assert [parameter.grad for parameter in parameters] == [None, None]
    alone = AlternatingOptimizer(network, None, Alternation("phases"))
    parameters[0].sum().backward()
    alone.step(step=1, epoch=0)
    assert parameters[0].item() == 0.0
    assert alone.optimizers == (network,)


@pytest.mark.parametrize("change", [{"network_steps": 0}, {"centroid_steps": 0}, {"start_epoch": -1}])
def test_phases_need_steps(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 step each and the start epoch at least 0"):
        Alternation("phases", **change)

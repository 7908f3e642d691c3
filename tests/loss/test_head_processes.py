"""Two gloo processes with the head or the loss as people have them end as one process with the joint batches does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import head_processes
import pytest
import torch
from comparison import in_processes


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    in_processes(head_processes.process, str(folder))
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def joint(labels_inside: bool = True, **options: Any) -> dict[str, Any]:
    """The head's state in one process that has both parts of each batch."""
    model = head_processes.Classifier(**options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for parts in zip(head_processes.batches(0), head_processes.batches(1), strict=True):
        inputs, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        optimizer.zero_grad()
        model(inputs, labels).backward()
        optimizer.step()
    return model.head.state_dict()


def compare(state: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            state[prefix + name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_replicas_are_equal(both: list[dict[str, Any]]) -> None:
    """Whatever wraps the network, also where one process alone validates and where batches are uneven."""
    for name, state in both[0].items():
        for key, value in state.items():
            torch.testing.assert_close(both[1][name][key], value, msg=lambda m, where=f"{name}, {key}": f"{where}: {m}")


@pytest.mark.parametrize("options", head_processes.HEADS)
def test_head_in_ddp_and_loss_beside_it(both: list[dict[str, Any]], options: str) -> None:
    expected = joint(**head_processes.HEADS[options])
    for results in both:
        compare(results[f"DDP, {options}"], expected, "head.")
        compare(results[f"beside DDP, {options}"], expected)


@pytest.mark.parametrize(
    "name", ["DDP, scores", "beside DDP, scores", "FSDP2, labels inside: False", "FSDP2, labels inside: True"]
)
def test_scores_and_shards(both: list[dict[str, Any]], name: str) -> None:
    """Cross-entropy of the scores, and parameters that are spread over processes."""
    for results in both:
        compare(results[name], joint(), "head.")


def test_uneven_batches_can_be_joined(both: list[dict[str, Any]]) -> None:
    moved = both[0]["Join"]["head.centroid_logits"] - head_processes.Classifier().head.centroid_logits
    assert moved.abs().max() > 0.01

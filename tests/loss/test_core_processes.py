"""Two gloo processes equal one that has the joint batch, uneven shares included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import core_processes
import pytest
import torch
from comparison import in_processes


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    in_processes(core_processes.process, str(folder))
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def joint() -> dict[str, Any]:
    return core_processes.run(core_processes.batches())


def test_running_statistics(both: list[dict[str, Any]], joint: dict[str, Any]) -> None:
    for name in core_processes.LOSSES:
        for results in both:
            assert results[name].keys() == joint[name].keys()
            for key, value in joint[name].items():
                torch.testing.assert_close(results[name][key], value, msg=lambda m, key=key: f"{key}: {m}")


def test_information(both: list[dict[str, Any]], joint: dict[str, Any]) -> None:
    for results in both:
        for name in ("centroid_kl", "cross_entropy", "centroid_kl by class", "cross_entropy by class", "measure"):
            torch.testing.assert_close(results[name], joint[name])
        assert results["computed twice"] == results["centroid_kl"][0]  # adding up leaves the sums as they were
        assert results["one process"] != joint["one process"]


def test_true_centroids(both: list[dict[str, Any]], joint: dict[str, Any]) -> None:
    for results in both:
        torch.testing.assert_close(results["centroids"], joint["centroids"])


@pytest.mark.parametrize("name", core_processes.COUPLED)
def test_gathered_rows(both: list[dict[str, Any]], name: str) -> None:
    """The loss of all rows, and its gradients after DDP's mean, as in one process."""
    alone = core_processes.gathered_loss(None, core_processes.COUPLED[name])
    for results in both:
        for found, expected in zip(results[f"gathered, {name}"], alone, strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("robustness", core_processes.ROBUSTNESS)
def test_directions_of_centroids_take_the_same_steps(both: list[dict[str, Any]], robustness: Any) -> None:
    alone = core_processes.trained_centroids(None, robustness)
    assert (alone - torch.eye(*alone.shape, dtype=alone.dtype)).abs().max() > 0.05
    for results in both:
        torch.testing.assert_close(results[f"trained, {robustness}"], alone)

"""Centroids that two or three gloo processes share are as those of one process, and their checkpoints too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import shard_processes as processes
import torch
import torch.distributed.checkpoint as checkpoint
from comparison import in_processes

import ncmi
from ncmi.loss.rows import RowAdagrad


def spawn(folder: Path, world: int, first_run: bool) -> list[dict[str, Any]]:
    in_processes(processes.process, world, str(folder), first_run, count=world)
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    return spawn(folder, 2, True)


def error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("form", processes.FORMS)
def test_loss_and_gradients(both: list[dict[str, Any]], form: str) -> None:
    features, labels = processes.batch(2)
    features.requires_grad_()
    loss = processes.criterion(form)
    value = loss(features, labels)
    value.backward()
    assert loss.centroid_logits.grad is not None
    assert features.grad is not None
    for results in both:
        assert error(results[f"{form} loss"], value.detach()) <= 1e-12
    for name, expected in (("features", features.grad), ("centroids", loss.centroid_logits.grad)):
        assert error(torch.cat([results[f"{form} {name}"] for results in both]), expected) <= 1e-12
    whole = loss.centroid_logits.untyped_storage().nbytes()
    assert max(int(results[f"{form} bytes"]) for results in both) <= 0.55 * whole


@pytest.mark.parametrize("form", [form for form in processes.FORMS if form != "common"])
def test_a_step_with_one_number_a_row(both: list[dict[str, Any]], form: str) -> None:
    features, labels = processes.batch(2)
    loss = processes.criterion(form)
    loss(features, labels).backward()
    RowAdagrad(loss.parameters()).step()
    written = torch.cat([results[f"{form} written"] for results in both])
    assert error(written, loss.centroid_logits.detach()) <= 1e-12
    # each process has the numbers of its rows
    assert [int(results[f"{form} kept"]) for results in both] == [51, 50]


@pytest.mark.parametrize("form", processes.FORMS)
def test_one_or_two_processes_read_what_two_have_written(both: list[dict[str, Any]], folder: Path, form: str) -> None:
    written = torch.cat([results[f"{form} written"] for results in both])
    assert torch.equal(torch.cat([results[f"{form} read"] for results in both]), written)
    loss = processes.criterion(form)
    assert not torch.equal(loss.centroid_logits, written)
    state = {"loss": loss.state_dict()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that there is one process
        checkpoint.load(state, checkpoint_id=folder / f"checkpoint-{form}", no_dist=True)
    loss.load_state_dict(state["loss"])
    assert torch.equal(loss.centroid_logits, written)


@pytest.mark.long
def test_three_processes_read_what_two_have_written(both: list[dict[str, Any]], folder: Path) -> None:
    three = spawn(folder, 3, False)
    for form in processes.FORMS:
        written = torch.cat([results[f"{form} written"] for results in both])
        assert torch.equal(torch.cat([results[f"{form} read"] for results in three]), written)


@pytest.mark.parametrize(
    "options",
    [
        {"centroids": "fixed"},
        {"label_smoothing": 0.1},
        {"center": "ema"},
        {"anchor_scale": 10.0},
        {"weight": "balanced"},
        {"form": "mean_of_ratios", "separation_power": 2.0},
        {"form": "mean_of_ratios", "separation_power": 1.0, "distribution": "softmax"},
    ],
)
def test_what_cannot_be_sharded_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="spread over processes"):
        ncmi.NCMILoss(5, 8, **options).check_shardable()

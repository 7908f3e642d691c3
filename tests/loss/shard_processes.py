"""What some gloo processes run in the tests of centroids that are spread over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import Tensor

import ncmi
from ncmi.loss.rows import RowAdagrad
from ncmi.loss.shards import shard_centroids

CLASSES, DIM, SAMPLES = 101, 16, (5, 9, 4)
_LINEAR: dict[str, Any] = {"separation_power": 1.0, "form": "mean_of_ratios"}
FORMS: dict[str, dict[str, Any]] = {
    "own": {"feature_length": "own"},
    "common": {"feature_length": "common"},
    "p = 1": _LINEAR | {"separation_direction": "centroid_to_sample"},
    "p = 1, turned": _LINEAR | {"separation_direction": "sample_to_centroid", "anchor_scale": 5.0, "reduction": "sum"},
    "p = 1, ratio of means": _LINEAR | {"form": "ratio_of_means", "feature_length": "common"},
}


def criterion(form: str) -> ncmi.NCMILoss:
    return ncmi.NCMILoss(CLASSES, DIM, anchors="signs", **FORMS[form]).double()


def batch(world: int) -> tuple[Tensor, Tensor]:
    """The joint batch; a sample lies at its centroid, and another one close by a wrong one of another process."""
    generator = torch.Generator().manual_seed(0)
    count = sum(SAMPLES[:world])
    features = torch.randn(count, DIM, dtype=torch.float64, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    anchors = ncmi.anchor_directions(CLASSES, DIM, "signs").double()
    features[0] = anchors[labels[0]]
    features[1] = anchors[CLASSES - 1] + 1e-3 * features[1]
    labels[1] = 0
    return features, labels


def process(rank: int, world: int, folder: str, first_run: bool) -> None:
    root = Path(folder)
    dist.init_process_group(
        "gloo", init_method=f"file://{root / f'meeting-{world}-{first_run}'}", rank=rank, world_size=world
    )
    torch.set_num_threads(1)
    mesh = dist.init_device_mesh("cpu", (world,))
    features, labels = batch(world)
    start = sum(SAMPLES[:rank])
    rows = slice(start, start + SAMPLES[rank])
    results: dict[str, Any] = {}
    for form in FORMS:
        loss = criterion(form)
        shard_centroids(loss, mesh)
        local = features[rows].clone().requires_grad_()
        value = loss(local, labels[rows])
        value.backward()
        gradient: Any = loss.centroid_logits.grad
        results[f"{form} loss"] = value.detach()
        results[f"{form} features"] = local.grad / world  # as DistributedDataParallel takes the mean
        results[f"{form} centroids"] = gradient.to_local()
        results[f"{form} bytes"] = torch.tensor(gradient.to_local().untyped_storage().nbytes())
        path = root / f"checkpoint-{form}"
        optimizer = torch.optim.Adam(loss.parameters()) if form == "common" else RowAdagrad(loss.parameters())
        if first_run:
            optimizer.step()
            kept = [x.to_local() for x in optimizer.state[loss.centroid_logits].values() if hasattr(x, "to_local")]
            results[f"{form} kept"] = torch.tensor(sum(x.numel() for x in kept))
            checkpoint.save({"loss": loss.state_dict()}, checkpoint_id=path)
        other = criterion(form)
        shard_centroids(other, mesh)
        state = {"loss": other.state_dict()}
        checkpoint.load(state, checkpoint_id=path)
        other.load_state_dict(state["loss"])
        results[f"{form} read"] = other.centroid_logits.to_local().detach()  # type: ignore[operator]
        if first_run:
            results[f"{form} written"] = loss.centroid_logits.to_local().detach()  # type: ignore[operator]
    torch.save(results, root / f"{world}-{rank}.pt")
    dist.destroy_process_group()

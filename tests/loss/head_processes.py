"""What two gloo processes run with the head and the loss as people have them: in DDP, beside it, in Join and FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

import ncmi

CLASSES, DIM, STEPS = 4, 6, 5
HEADS: dict[str, dict[str, Any]] = {
    "default": {},
    "center": {"center": "ema"},
    "class means": {"centroids": "class_mean", "center": "ema"},
    "robust": {"robustness": "auto"},
}


def batches(rank: int, sizes: tuple[int, ...] = (5,) * STEPS) -> Iterator[tuple[Tensor, Tensor]]:
    """Another sequence in each process."""
    generator = torch.Generator().manual_seed(rank)
    for size in sizes:
        yield torch.randn(size, 3, generator=generator) + 1, torch.randint(CLASSES, (size,), generator=generator)


class Classifier(nn.Module):
    """A network with the head as its last layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, DIM)
        self.head = ncmi.NCMIHead(DIM, CLASSES, **options)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.head(self.body(inputs), labels)
        return scores


def train(model: nn.Module, rank: int, sizes: tuple[int, ...] = (5,) * STEPS, labels_inside: bool = True) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for inputs, labels in batches(rank, sizes):
        optimizer.zero_grad()
        value = model(inputs, labels) if labels_inside else nn.functional.cross_entropy(model(inputs), labels)
        value.backward()
        optimizer.step()


def run(rank: int) -> dict[str, Any]:
    """States at the end, by the name of what was tried."""
    states: dict[str, Any] = {}
    for name, options in HEADS.items():
        model = DistributedDataParallel(Classifier(**options))
        train(model, rank)
        states[f"DDP, {name}"] = model.module.state_dict()
    model = DistributedDataParallel(Classifier())
    train(model, rank, labels_inside=False)
    states["DDP, scores"] = model.module.state_dict()

    for name, options in HEADS.items():
        torch.manual_seed(0)
        body, criterion = DistributedDataParallel(nn.Linear(3, DIM)), ncmi.NCMILoss(CLASSES, DIM, **options)
        optimizer = torch.optim.SGD([*body.parameters(), *criterion.parameters()], lr=0.5)
        for inputs, labels in batches(rank):
            optimizer.zero_grad()
            criterion(body(inputs), labels).backward()
            optimizer.step()
            if rank == 0:  # it alone validates, and forgets to say eval()
                with torch.no_grad():
                    criterion(body.module(inputs), labels)
        states[f"beside DDP, {name}"] = {"body": body.module.weight.detach(), **criterion.state_dict()}

    torch.manual_seed(0)
    body, head = DistributedDataParallel(nn.Linear(3, DIM)), ncmi.NCMIHead(DIM, CLASSES)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.5)
    for inputs, labels in batches(rank):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(body(inputs)), labels).backward()
        optimizer.step()
    states["beside DDP, scores"] = {f"head.{name}": value for name, value in head.state_dict().items()}

    model = DistributedDataParallel(Classifier())
    with Join([model]):
        train(model, rank, (5,) * (STEPS + 2 * rank), labels_inside=False)
    states["Join"] = model.module.state_dict()
    return states


def sharded(rank: int) -> dict[str, Any]:
    """FSDP2 over the processes' CPUs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    states = {}
    for inside in (False, True):
        model = Classifier()
        fully_shard(model.head, mesh=mesh)
        fully_shard(model, mesh=mesh)
        train(model, rank, labels_inside=inside)
        states[f"FSDP2, labels inside: {inside}"] = {
            name: value.full_tensor() if hasattr(value, "full_tensor") else value
            for name, value in model.state_dict().items()
        }
    return states


def process(rank: int, folder: str) -> None:
    """Entry of a spawned process; leaves its results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(run(rank) | sharded(rank), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()

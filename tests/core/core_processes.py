"""What two gloo processes run in the tests: every statistic that is added up over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import ncmi
from ncmi.distributed import gather_rows

CLASSES, DIM = 4, 6
SHARES = ((5, 1), (2, 6), (3, 3))  # samples of either process in each step
LOSSES: dict[str, dict[str, Any]] = {
    "ema and class means": {"centre": "ema", "centre_decay": 0.9, "centroids": "class_mean", "centroid_decay": 0.8},
    "frozen": {"centre": "frozen", "centre_updates": 2, "class_weights": "balanced"},
}


def batches() -> list[tuple[Tensor, Tensor]]:
    """The joint batches, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(sum(share), DIM, dtype=torch.float64, generator=generator) + 1,
            torch.randint(CLASSES, (sum(share),), generator=generator),
        )
        for share in SHARES
    ]


def run(parts: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """State and results of one process that sees these parts."""
    results: dict[str, Any] = {}
    for name, options in LOSSES.items():
        loss = ncmi.NCMILoss(CLASSES, DIM, **options).double()
        for features, labels in parts:
            loss(features, labels)
        results[name] = loss.state_dict()
    distributions = [(torch.log_softmax(features, 1), labels) for features, labels in parts]
    accumulator = ncmi.InformationAccumulator(CLASSES, DIM)
    for log_p, labels in distributions:
        accumulator.update(log_p, labels)
    for separation in ("centroid_kl", "cross_entropy"):
        information = accumulator.compute(separation)  # type: ignore[arg-type]
        results[separation] = torch.tensor([information.cmi, information.separation, information.ncmi])
        results[f"{separation} by class"] = information.per_class_cmi
    results["computed twice"] = torch.tensor(accumulator.compute().cmi)
    results["one process"] = torch.tensor(accumulator.compute(synchronise=False).cmi)
    log_p, labels = (torch.cat(x) for x in zip(*distributions, strict=True))
    results["measure"] = torch.tensor(ncmi.measure(log_p, labels, CLASSES).ncmi)
    results["centroids"] = ncmi.CentroidClassifier(CLASSES, DIM).fit(parts).centroids
    return results


def gathered_loss(rank: int | None) -> tuple[Tensor, Tensor]:
    """A loss that couples samples, of the rows of all processes, and the gradient of a shared weight."""
    (features, labels), (first, _) = batches()[0], SHARES[0]
    weight = torch.ones(DIM, dtype=torch.float64, requires_grad=True)
    loss = ncmi.NCMILoss(
        CLASSES, DIM, reduction="ratio_of_means", separation_power=1.0, separation_direction="centroid_to_sample"
    ).double()
    if rank is None:
        rows = features * weight
    else:
        own = features[:first] if rank == 0 else features[first:]
        rows = gather_rows(own * weight, SHARES[0])
    value = loss.loss(rows, labels)
    (gradient,) = torch.autograd.grad(value, weight)
    if rank is not None:
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()  # as DDP does
    return value.detach(), gradient


def process(rank: int, folder: str) -> None:
    """Entry of a spawned process; leaves its results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    parts = []
    for (features, labels), (first, _) in zip(batches(), SHARES, strict=True):
        mine = slice(0, first) if rank == 0 else slice(first, None)
        parts.append((features[mine], labels[mine]))
    results = run(parts)
    results["gathered loss"], results["gathered gradient"] = gathered_loss(rank)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()

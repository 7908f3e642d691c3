"""What two gloo processes run in the tests: every statistic that is added up over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

import ncmi
from ncmi.loss.distributed import gather_rows

CLASSES, DIM = 4, 6
SHARES = ((5, 1), (2, 6), (3, 3))  # samples of either process in each step
LOSSES: dict[str, dict[str, Any]] = {
    "ema and class means": {"center": "ema", "center_decay": 0.9, "centroids": "class_mean", "centroid_decay": 0.8},
    "frozen": {"center": "frozen", "center_updates": 2, "weight": "balanced"},
    "default": {},
    "robust": {"robustness": "auto", "weight": "balanced"},
}
COUPLED: dict[str, dict[str, Any]] = {
    "ratio of means": {
        "form": "ratio_of_means",
        "separation_power": 1.0,
        "separation_direction": "centroid_to_sample",
    },
    "default": {},
    "robust": {"robustness": 0.7, "weight": [1.0, 2.0, 3.0, 4.0]},
}
ROBUSTNESS: tuple[float | Literal["auto"], ...] = (0.0, 0.7, "auto")


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
            loss.update()
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
    results["one process"] = torch.tensor(accumulator.compute(synchronize=False).cmi)
    log_p, labels = (torch.cat(x) for x in zip(*distributions, strict=True))
    results["measure"] = torch.tensor(ncmi.measure(log_p, labels, CLASSES).ncmi)
    results["centroids"] = ncmi.CentroidClassifier(CLASSES, DIM).fit(parts).centroids
    return results


def gathered_loss(rank: int | None, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """A loss of the rows of all processes, as one that couples samples needs, with the gradients of what is shared."""
    (features, labels), (first, _) = batches()[0], SHARES[0]
    weight = torch.ones(DIM, dtype=torch.float64, requires_grad=True)
    loss = ncmi.NCMILoss(CLASSES, DIM, **options).double()
    if rank is None:
        rows = features * weight
    else:
        own = features[:first] if rank == 0 else features[first:]
        rows = gather_rows(own * weight, SHARES[0])
    value = loss.loss(rows, labels)
    gradients = torch.autograd.grad(value, (weight, *loss.parameters()))
    if rank is not None:
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()  # as DDP does
    return value.detach(), *gradients


def trained_centroids(rank: int | None, robustness: float | Literal["auto"]) -> Tensor:
    """The default form's directions after a step of gradient descent for every batch, uneven shares included."""
    loss = ncmi.NCMILoss(CLASSES, DIM, robustness=robustness).double()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    for (features, labels), (first, _) in zip(batches(), SHARES, strict=True):
        mine = slice(None) if rank is None else slice(0, first) if rank == 0 else slice(first, None)
        optimizer.zero_grad()
        (loss(features[mine], labels[mine]) * len(labels[mine]) / len(labels)).backward()
        if rank is not None:
            dist.all_reduce(loss.centroid_logits.grad)
        optimizer.step()
    return loss.centroid_logits.detach()


def process(rank: int, folder: str) -> None:
    """Entry of a spawned process; leaves its results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    parts = []
    for (features, labels), (first, _) in zip(batches(), SHARES, strict=True):
        mine = slice(0, first) if rank == 0 else slice(first, None)
        parts.append((features[mine], labels[mine]))
    results = run(parts)
    for name, options in COUPLED.items():
        results[f"gathered, {name}"] = gathered_loss(rank, options)
    for robustness in ROBUSTNESS:
        results[f"trained, {robustness}"] = trained_centroids(rank, robustness)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()

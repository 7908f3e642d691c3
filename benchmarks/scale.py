"""The loss with very many classes: time, memory, exactness and accuracy, each against its bar.

    python benchmarks/scale.py [--parts default skipping ...] [--quick] [--out FILE]

Times are processor seconds of steps that take turns in one process, as ratios to ``nn.Linear`` with cross-entropy: the
median over repeats, and their range. Memory is the growth of the resident set's peak in a fresh process (``VmHWM``,
which the process resets when everything is built), so that parameters are not in it and gradients are. Accuracy is of
simulated classes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ncmi
from _timing import (
    LinearCrossEntropy,
    Row,
    in_own_process,
    in_turns,
    machine,
    machine_text,
    measure_parts,
    measuring_line,
    of_value,
    of_values,
    processor,
    ratios,
    step_of,
)
from ncmi.training.environment import mark_peak, peak_megabytes

CPU = torch.device("cpu")
BATCH, WIDTH = 256, 512
PAPER: dict[str, Any] = {
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
    "form": "mean_of_ratios",
}


# Accuracy


class Simulation:
    """Classes that are points of a latent space, seen through a fixed curved map; no data of anybody."""

    def __init__(self, classes: int, seed: int, train: int = 12, test: int = 8, latent: int = 32) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(classes, latent, generator=generator)
        maps = [torch.randn(a, b, generator=generator) / math.sqrt(a) for a, b in ((latent, 128), (128, 128))]
        labels = torch.arange(classes).repeat_interleave(train + test)
        z = points[labels] + 0.8 * torch.randn(len(labels), latent, generator=generator)
        self.x = torch.tanh(z @ maps[0]) @ maps[1]
        self.y, self.classes = labels, classes
        self.in_training = (torch.arange(len(labels)) % (train + test)) < train


def accuracy_of(name: str, data: Simulation, epochs: int, seed: int) -> tuple[float, float]:
    """Test accuracy in percent, and processor seconds of training, of one loss; one learning rate serves all."""
    torch.manual_seed(seed)
    width, batch = 64, 128
    body = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, width))
    loss: Any = LinearCrossEntropy(data.classes, width)
    if name != "cross-entropy":
        options = {"sampled_classes": data.classes // 10} if name == "sampled NCMI" else {}
        loss = ncmi.NCMILoss(data.classes, width, anchors="random", **options)
    parameters = [*body.parameters(), *loss.parameters()]
    x, y = data.x[data.in_training], data.y[data.in_training]
    steps = len(x) // batch
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps)
    begun = time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            loss(body(x[rows]), y[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    seconds = time.process_time() - begun
    body.eval(), loss.eval()
    right = 0
    with torch.no_grad():
        for rows in (~data.in_training).nonzero().squeeze(1).split(2048):
            feature = body(data.x[rows])
            scores = loss.head(feature) if name == "cross-entropy" else loss.scores(feature)
            right += int((scores.argmax(1) == data.y[rows]).sum())
    return 100 * right / int((~data.in_training).sum()), seconds


def accuracy(arguments: argparse.Namespace) -> Iterator[Row]:
    """Simulated classes with 20 samples each, 12 to train and 8 to test; a perceptron; three seeds."""
    classes, epochs, seeds = (200, 2, 2) if arguments.quick else (10_000, 2, 3)
    names = ("cross-entropy", "default NCMI", "sampled NCMI")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in range(seeds):
        data = Simulation(classes, seed)
        for name in names:
            found[name].append(accuracy_of(name, data, epochs, seed))
            print(f"    seed {seed}, {name}: {found[name][-1][0]:.2f} %, {found[name][-1][1]:.0f} s", flush=True)
    for name, values in found.items():
        note = f"{epochs} epochs, {sum(seconds for _, seconds in values) / seeds:.0f} s of a processor each"
        yield of_values(f"accuracy of {name}, {classes} simulated classes", [a for a, _ in values], unit="%", note=note)

"""The loss with very many classes: time, memory, exactness and accuracy, each against its bar.

    python benchmarks/scale.py [--parts likelihood memory ...] [--quick] [--out FILE]
    python benchmarks/scale.py --parts accuracy [--classes 10000] [--losses "default NCMI" ...]

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
    machine,
    machine_text,
    measure_parts,
    measuring_line,
    of_value,
    of_values,
    ratios,
    step_of,
)
from ncmi.loss import module
from ncmi.loss.search import CentroidSearch
from ncmi.training.environment import mark_peak, peak_megabytes
from ncmi.training.timing import in_turns, processor

CPU = torch.device("cpu")
BATCH, WIDTH = 256, 512
RATES = (3e-3, 1e-2, 3e-2)
SETTINGS = ((10_000, 2, 3), (2000, 2, 1), (2000, 8, 1))  # classes, epochs and seeds of the accuracy
# what a loss is made with for so many classes; cross-entropy has no options
LOSSES: dict[str, Callable[[int], dict[str, Any]]] = {
    "cross-entropy": lambda classes: {},
    "default NCMI": lambda classes: {},
    "sampled NCMI": lambda classes: {"sampled_classes": classes // 10},
    "NCMI, γ = log C": lambda classes: {"separation_power": -math.log(classes)},
    "sampled NCMI, γ = log C": lambda classes: {
        "sampled_classes": classes // 10,
        "separation_power": -math.log(classes),
    },
}
PAPER: dict[str, Any] = {
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
    "form": "mean_of_ratios",
}


# Accuracy


class Simulation:
    """Classes that are points of a latent space, seen through a fixed curved map; no data of anybody.

    Each class has 20 samples: 12 to train on, 2 to choose a learning rate by, and 6 to judge by.
    """

    def __init__(self, classes: int, seed: int, latent: int = 32) -> None:
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(classes, latent, generator=generator)
        maps = [torch.randn(a, b, generator=generator) / math.sqrt(a) for a, b in ((latent, 128), (128, 128))]
        labels = torch.arange(classes).repeat_interleave(20)
        z = points[labels] + 0.8 * torch.randn(len(labels), latent, generator=generator)
        self.x = torch.tanh(z @ maps[0]) @ maps[1]
        self.y, self.classes = labels, classes
        number = torch.arange(len(labels)) % 20
        self.rows = {
            "train": (number < 12).nonzero().squeeze(1),
            "validation": ((number >= 12) & (number < 14)).nonzero().squeeze(1),
            "test": (number >= 14).nonzero().squeeze(1),
        }


class Trained:
    """A perceptron trained on a simulation by Adam with one learning rate, that of centroids included."""

    def __init__(self, name: str, data: Simulation, epochs: int, seed: int, rate: float) -> None:
        torch.manual_seed(seed)
        width, batch = 64, 128
        self.data, self.rate = data, rate
        self.body = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, width))
        self.loss: Any = LinearCrossEntropy(data.classes, width)
        if name != "cross-entropy":
            self.loss = ncmi.NCMILoss(data.classes, width, anchors="random", **LOSSES[name](data.classes))
        x, y = data.x[data.rows["train"]], data.y[data.rows["train"]]
        steps = len(x) // batch
        optimizer = torch.optim.Adam([*self.body.parameters(), *self.loss.parameters()], lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
        begun = time.process_time()
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for step in range(steps):
                rows = order[step * batch : (step + 1) * batch]
                self.loss(self.body(x[rows]), y[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        self.seconds = time.process_time() - begun

    @torch.no_grad()
    def accuracy(self, part: str) -> float:
        """Of a part of the data, in percent."""
        self.body.eval(), self.loss.eval()
        right = 0
        for rows in self.data.rows[part].split(1024):
            feature = self.body(self.data.x[rows])
            is_linear = isinstance(self.loss, LinearCrossEntropy)
            scores = self.loss.head(feature) if is_linear else self.loss.scores(feature)
            right += int((scores.argmax(1) == self.data.y[rows]).sum())
        return 100 * right / len(self.data.rows[part])


def accuracy(arguments: argparse.Namespace) -> Iterator[Row]:
    """Simulated classes with 20 samples each; of three learning rates the best on the first seed's validation part."""
    wanted = [setting for setting in SETTINGS if setting[0] in arguments.classes]
    for classes, epochs, seeds in [(200, 2, 2)] if arguments.quick else wanted:
        data = [Simulation(classes, seed) for seed in range(seeds)]
        for name in arguments.losses:
            tried: dict[float, float] = {}
            for rate in RATES:
                candidate = Trained(name, data[0], epochs, 0, rate)
                tried[rate] = candidate.accuracy("validation")
                print(f"    {name}, rate {rate:g}: {tried[rate]:.2f} %, {candidate.seconds:.0f} s", flush=True)
                if tried[rate] == max(tried.values()):
                    best = candidate
            values = [best.accuracy("test")]
            for seed in range(1, seeds):
                values.append(Trained(name, data[seed], epochs, seed, best.rate).accuracy("test"))
            rates = ", ".join(f"{value:.1f} at {rate:g}" for rate, value in tried.items())
            note = f"{best.seconds:.0f} s of a processor to train; on the validation part {rates}"
            what = f"accuracy of {name}, {classes:,} simulated classes, {epochs} epochs"
            yield of_values(what, values, unit="%", note=note)


# Time and memory


def trained(classes: int, length: Any, hard: float) -> tuple[ncmi.NCMILoss, Tensor, Tensor]:
    """A loss and a batch as late in training: most features near their own centroid, a share of them near none.

    Cosines to the own centroid are 0.85 on average, those of the hard ones 0.1.
    """
    loss = ncmi.NCMILoss(classes, WIDTH, anchors="signs", feature_length=length)
    labels = torch.randint(classes, (BATCH,))
    own = F.normalize(loss.centroid_logits.detach()[labels], dim=1)
    noise = F.normalize(torch.randn(BATCH, WIDTH), dim=1)
    cosine = (0.85 + 0.05 * torch.randn(BATCH, 1)).clamp(0.7, 0.98)
    cosine[: round(hard * BATCH)] = 0.1
    features = (cosine * own + (1 - cosine**2).sqrt() * noise) * (loss.feature_length or 1.0)
    return loss, features.requires_grad_(), labels


def steps(arguments: argparse.Namespace, calls: dict[str, Callable[[], None]], classes: int) -> dict[str, list[float]]:
    """Ratios of processor seconds to those of a linear layer with cross-entropy, which takes its turn among them."""
    features, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.randint(classes, (BATCH,))
    rival = "linear"
    times = in_turns(
        calls | {rival: step_of(LinearCrossEntropy(classes, WIDTH), features, labels)},
        2 if arguments.quick else arguments.repeats,
        CPU,
    )
    return {name: ratios(processor(times[name]), processor(times[rival])) for name in calls}


def likelihood(arguments: argparse.Namespace) -> Iterator[Row]:
    """The default form with learned centroids, at the start and late in training, and samples of the classes."""
    classes = 2000 if arguments.quick else 100_000
    features, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.randint(classes, (BATCH,))
    what = f"over Linear + cross-entropy, C = {classes:,}"
    calls, about, kept = {}, {}, {}
    for length in ("own", "common"):
        loss = ncmi.NCMILoss(classes, WIDTH, anchors="signs", feature_length=length)
        calls[f"learned, length {length}, at the start"] = step_of(loss, features, labels)
    for hard in (0.1, 0.02):
        loss, late, late_labels = trained(classes, "own", hard)
        name = f"learned, length own, trained, {100 * hard:.0f} % hard"
        calls[name], kept[name] = step_of(loss, late, late_labels), loss
    sampled = ncmi.NCMILoss(classes, WIDTH, anchors="signs", sampled_classes=classes // 10)
    calls["a tenth of the classes sampled"] = step_of(sampled, features, labels)
    values = steps(arguments, calls, classes)
    for name, loss in kept.items():
        skips = loss.skips
        if skips is not None:
            about[name] = (
                f"left out {skips.samples} of {skips.of_samples} samples, {skips.centroids:,} of "
                f"{skips.of_centroids:,} centroids, {skips.share:.0e} of the weight"
            )
    for name, found in values.items():
        bar = 2.5 if "start" in name else 1.5 if "trained" in name else None
        yield of_values(f"{name}, {what}", found, bar=bar, note=about.get(name, ""))


def linear(arguments: argparse.Namespace) -> Iterator[Row]:
    """p = 1: learned centroids, and fixed ones that are not kept."""
    classes, million = (2000, 10_000) if arguments.quick else (100_000, 1_000_000)
    features, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.randint(1000, (BATCH,))
    calls = {
        f"p = 1 learned, {name}": step_of(
            ncmi.NCMILoss(classes, WIDTH, anchors="signs", **PAPER, **options), features, labels
        )
        for name, options in (("directions", {}), ("logits, κ = 10", {"anchor_scale": 10.0}))
    }
    for name, found in steps(arguments, calls, classes).items():
        yield of_values(f"{name}, over Linear + cross-entropy, C = {classes:,}", found, bar=0.6)
    fixed = {c: ncmi.NCMILoss(c, WIDTH, centroids="fixed", anchors="signs", **PAPER) for c in (1000, million)}
    begun = time.process_time()
    fixed[million](features, labels)
    yield of_value(f"build of p = 1 fixed, C = {million:,}", time.process_time() - begun, unit="s", bar=10.0)
    many = {str(c): step_of(loss, features, labels) for c, loss in fixed.items()}
    times = in_turns(many, 20, CPU)
    found = ratios(processor(times[str(million)]), processor(times["1000"]))
    yield of_values(f"p = 1 fixed, C = {million:,} over C = 1,000", found, bar=1.3)
    for name in ("p = 1 fixed", "p = 1 learned"):
        size = million if "fixed" in name else classes
        bar = 100.0 if "fixed" in name else None
        unit = "MB kept and needed" if "fixed" in name else "MB beyond parameter and gradient"
        yield of_value(f"{name}, C = {size:,}", in_own_process(peak_of, name, size), unit=unit, bar=bar, digits=0)


def peak_of(form: str, classes: int) -> float:
    """Megabytes that a step of a form takes beyond parameter and gradient, in a process that has done nothing else."""
    torch.set_num_threads(1)
    features, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.randint(classes, (BATCH,))
    step_of(ncmi.NCMILoss(4096, WIDTH, anchors="signs", chunk_classes=512), features, labels % 4096)()  # libraries
    fixed = form == "p = 1 fixed"
    options = PAPER if form.startswith("p = 1") else {}
    if fixed:
        mark_peak(CPU)
        before = peak_megabytes(CPU)
    loss = ncmi.NCMILoss(classes, WIDTH, anchors="signs", centroids="fixed" if fixed else "learned", **options)
    if not fixed:
        mark_peak(CPU)
        before = peak_megabytes(CPU)
    loss(features, labels).backward()
    gradient = loss.centroid_logits.grad
    return peak_megabytes(CPU) - before - (0 if gradient is None else gradient.nbytes / 1e6)


def memory(arguments: argparse.Namespace) -> Iterator[Row]:
    """Temporaries of the default form."""
    for classes in (20_000,) if arguments.quick else (100_000, 1_000_000):
        extra = in_own_process(peak_of, "learned", classes)
        table = 8 * classes * WIDTH / 1e6
        yield of_value(f"temporaries of a step, learned, C = {classes:,}", extra, unit="MB", bar=64.0, digits=0)
        what = f"one step over parameter + gradient ({table:.0f} MB), C = {classes:,}"
        yield of_value(what, 1 + extra / table, bar=1.1)


def exactness(arguments: argparse.Namespace) -> Iterator[Row]:
    """Gradients in float64 against the form without chunks."""
    classes = 2000 if arguments.quick else 20_000
    for length in ("own", "common"):
        loss = ncmi.NCMILoss(classes, 128, anchors="signs", feature_length=length).double()
        features = torch.randn(64, 128, dtype=torch.float64) * (loss.feature_length or 1) / math.sqrt(128)
        labels = torch.randint(classes, (64,))
        found = []
        for size in (classes * 64, 777):
            if size == 777:
                loss.chunk_classes = size
            else:
                loss.chunk_classes, module.WORTH = "auto", 2**60
            f = features.clone().requires_grad_()
            found.append(torch.autograd.grad(loss(f, labels), (f, loss.centroid_logits)))
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*reversed(found), strict=True))
        yield of_value(
            f"gradients against the unchunked, float64, length {length}", worst, unit="", bar=1e-12, digits=-1
        )


def search_peak(classes: int) -> float:
    """Megabytes of a top-5 among the centroids of a head beyond its parameter and the table."""
    torch.set_num_threads(1)
    head = ncmi.NCMIHead(WIDTH, classes, anchors="signs")
    features = torch.randn(64, WIDTH)
    CentroidSearch(ncmi.NCMIHead(WIDTH, 4096, anchors="signs")).top_k(features, 5)  # libraries
    mark_peak(CPU)
    before = peak_megabytes(CPU)
    CentroidSearch(head).top_k(features, 5)
    return peak_megabytes(CPU) - before - 4 * classes * WIDTH / 1e6


def search(arguments: argparse.Namespace) -> Iterator[Row]:
    """Top-5 of 64 features: equal to exact, memory, and calls that have a table over the first, which makes it."""
    classes = 10_000 if arguments.quick else 1_000_000
    yield of_value(f"top-5, C = {classes:,}, beyond the table", in_own_process(search_peak, classes),
                   unit="MB", bar=256.0, digits=0)  # fmt: skip
    few = min(classes, 100_000)
    head = ncmi.NCMIHead(WIDTH, few, anchors="signs")
    finder, features = CentroidSearch(head), torch.randn(64, WIDTH)
    calls = {"first": lambda: CentroidSearch(head).top_k(features, 5), "later": lambda: finder.top_k(features, 5)}
    times = in_turns(calls, 5, CPU)
    later = ratios(processor(times["later"]), processor(times["first"]))
    yield of_values(f"top-5, C = {few:,}, a later call over one that makes the table", later, bar=0.3)
    beta, _ = finder.table()
    p, q = head.log_distribution(features).double(), beta.double() - math.log(WIDTH)
    exact = torch.cat([p.exp() @ rows.T for rows in q.split(20_000)], dim=1).topk(5).indices
    same = float((finder.top_k(features, 5).classes == exact).float().mean())
    yield of_value("share of places equal to exact, float64", same, unit="", bar=1.0, at_least=True, digits=3)


PARTS: dict[str, Callable[[argparse.Namespace], Iterable[Row]]] = {
    "exactness": exactness,
    "likelihood": likelihood,
    "linear": linear,
    "memory": memory,
    "search": search,
    "accuracy": accuracy,
}


def main() -> None:
    command = measuring_line(__doc__, PARTS, [1])
    command.add_argument("--repeats", type=int, default=5)
    many = sorted({classes for classes, _, _ in SETTINGS})
    command.add_argument("--classes", type=int, nargs="+", choices=many, default=many, help="of the accuracy")
    command.add_argument("--losses", nargs="+", choices=tuple(LOSSES), default=list(LOSSES), help="of the accuracy")
    arguments = command.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads[0])
    print(f"{machine_text(machine(CPU))}\n")
    measure_parts(PARTS, arguments, CPU, once=("exactness", "memory", "accuracy"))


if __name__ == "__main__":
    main()

"""The bars of the mathematical core, measured: exactness, time against cross-entropy, memory against the pairwise form.

    python benchmarks/core.py [--threads 2] [--json FILE]

Times are ratios of steps that take turns in one process: median, and the range over blocks of steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ncmi
from ncmi.training.memory import mark_peak, peak_megabytes

PAPER: dict[str, Any] = {
    "temperature": 0.2,
    "anchor_scale": 10.0,
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
    "reduction": "mean_of_ratios",
}
Row = tuple[str, str, str, bool]


def plain_loss(
    f: Tensor, labels: Tensor, logits: Tensor, temperature: float, power: float, direction: str, reduction: str
) -> Tensor:
    """The definition, written with B×C×D tensors."""
    z = f / f.norm(dim=-1, keepdim=True) / temperature
    p = torch.sigmoid(z) / torch.sigmoid(z).sum(-1, keepdim=True)
    q = torch.sigmoid(logits) / torch.sigmoid(logits).sum(-1, keepdim=True)
    to_q = (p[:, None] * (p.log()[:, None] - q.log()[None])).sum(-1)
    to_p = (q[None] * (q.log()[None] - p.log()[:, None])).sum(-1)
    own = to_q.gather(1, labels[:, None])[:, 0]
    wrong = (to_p if direction == "centroid_to_sample" else to_q)[~F.one_hot(labels, len(q)).bool()].view(len(p), -1)
    b = wrong.sum(1) / len(q) if power == 1 else (wrong**power).mean(1) ** (1 / power)
    if reduction == "log_likelihood":
        return torch.log1p((len(q) - 1) * (own / b) ** -power).mean()
    return own.mean() / b.mean() if reduction == "ratio_of_means" else (own / b).mean()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def exactness() -> list[Row]:
    """Loss and gradients against the definition in float64, and float32 against float64."""
    worst = {"loss": 0.0, "features": 0.0, "centroids": 0.0}
    shapes = [(16, 2, 8, 0.5), (16, 10, 64, 0.5), (8, 100, 128, 0.2), (4, 1000, 64, 0.3), (4, 20, 2048, 0.07)]
    modes = [
        (power, direction, reduction)
        for power in (1.0, 2.0, -1.0, -4.0)
        for direction in ("centroid_to_sample", "sample_to_centroid")
        for reduction in ("mean_of_ratios", "ratio_of_means", "log_likelihood")
        if not (reduction == "log_likelihood" and power > 0)
    ]
    for batch, classes, dim, temperature in shapes:
        f = torch.randn(batch, dim, dtype=torch.float64, requires_grad=True)
        logits = (2 * torch.randn(classes, dim, dtype=torch.float64)).requires_grad_()
        labels = torch.randint(classes, (batch,))
        for power, direction, reduction in modes:
            plain = plain_loss(f, labels, logits, temperature, power, direction, reduction)
            ours = ncmi.ncmi_loss(
                ncmi.to_log_distribution(f, None, temperature),
                labels,
                ncmi.log_nsf(logits),
                reduction=reduction,  # type: ignore[arg-type]
                separation_power=power,
                separation_direction=direction,  # type: ignore[arg-type]
            )
            expected, found = (torch.autograd.grad(loss, (f, logits)) for loss in (plain, ours))
            errors = (relative(ours.detach(), plain.detach()), *map(relative, found, expected))
            worst = {name: max(old, new) for (name, old), new in zip(worst.items(), errors, strict=True)}
    rows = [(f"{name}, float64, worst of {len(shapes) * len(modes)}", "≤ 1e-10", f"{error:.1e}", error <= 1e-10)
            for name, error in worst.items()]  # fmt: skip
    for classes, dim, temperature in ((1000, 512, 0.2), (100, 2048, 0.07)):
        rows += float32_exactness(256, classes, dim, temperature)
    return rows


def float32_exactness(batch: int, classes: int, dim: int, temperature: float) -> list[Row]:
    """The module in float32 against the definition in float64, features half on their way to the anchors."""
    loss = ncmi.NCMILoss(
        classes, dim, anchors="axis" if dim >= classes else "etf", **PAPER | {"temperature": temperature}
    )
    labels, logits = torch.randint(classes, (batch,)), loss.centroid_logits.detach()
    features = (torch.randn(batch, dim) + logits[labels] / 2).requires_grad_()
    value = loss.loss(features, labels)
    found = torch.autograd.grad(value, (features, loss.centroid_logits))
    f, z = features.detach().double().requires_grad_(), logits.double().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(batch).split(8):  # B×C×D tensors of 8 samples at a time
        part = plain_loss(f[rows], labels[rows], z, temperature, 1.0, "centroid_to_sample", "mean_of_ratios")
        part = part * len(rows) / batch
        part.backward()
        expected += part.detach()
    shape = f"(B,C,D,T) = ({batch},{classes},{dim},{temperature})"
    errors = (relative(value.detach(), expected), *map(relative, found, (f.grad, z.grad)))  # type: ignore[arg-type]
    names = (("loss", 1e-5), ("feature gradient", 2e-5), ("centroid gradient", 2e-5))
    return [
        (f"float32 {name}, {shape}", f"≤ {bar:.0e}".replace("e-0", "e-"), f"{error:.1e}", error <= bar)
        for (name, bar), error in zip(names, errors, strict=True)
    ]


def in_turns(first: Callable[[], None], second: Callable[[], None], blocks: int, repeats: int) -> list[float]:
    """Ratios of time first/second, a median over each block of alternating calls."""
    ratios = []
    for block in range(blocks + 1):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for call, found in ((first, times[0]), (second, times[1])):
                started = time.perf_counter()
                call()
                found.append(time.perf_counter() - started)
        if block:  # the first one warms up
            ratios.append(statistics.median(times[0]) / statistics.median(times[1]))
    return ratios


def step_of(loss: nn.Module, f: Tensor, labels: Tensor) -> Callable[[], None]:
    def step() -> None:
        loss(f, labels).backward()
        f.grad = None
        loss.zero_grad(set_to_none=True)

    return step


class LinearCrossEntropy(nn.Module):
    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)

    def forward(self, f: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.head(f), labels)


def against_cross_entropy(blocks: int, threads: int) -> list[Row]:
    batch, classes, dim = 256, 1000, 2048
    torch.set_num_threads(threads)
    f, labels = torch.randn(batch, dim, requires_grad=True), torch.randint(classes, (batch,))
    rival = step_of(LinearCrossEntropy(classes, dim), f, labels)
    rows = []
    for centroids, bar in (("fixed", 0.25), ("learned", 0.6)):
        loss = ncmi.NCMILoss(classes, dim, centroids=centroids, **PAPER)  # type: ignore[arg-type]
        ratios = in_turns(step_of(loss, f, labels), rival, blocks, 15)
        median = statistics.median(ratios)
        told = f"{median:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        counted = f"{threads} thread" + "s" * (threads > 1)
        name = f"time/(Linear + cross-entropy), {centroids} centroids, ({batch},{classes},{dim}), {counted}"
        rows.append((name, f"≤ {bar}", told, median <= bar))
    return rows


def _timed_with_peak(call: Callable[[], object], repeats: int) -> None:
    """Print seconds of each call, and MB above the start: of a process that has done nothing else."""
    mark_peak(torch.device("cpu"))
    before = peak_megabytes(torch.device("cpu"))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    print(json.dumps([times, peak_megabytes(torch.device("cpu")) - before]))


def _peak(form: str) -> None:
    """In a process of its own: `measure`, or a step at (256, 1000, 512) of one form of the loss."""
    if form == "measure":
        log_p, classes = torch.randn(50_000, 1000).log_softmax(-1), torch.randint(1000, (50_000,))
        ncmi.measure(log_p[:2], classes[:2], 1000)  # libraries' own memory
        _timed_with_peak(lambda: ncmi.measure(log_p, classes, 1000), 5)
        return
    f, labels = torch.randn(256, 512, requires_grad=True), torch.randint(1000, (256,))
    logits = (2 * torch.randn(1000, 512)).requires_grad_()

    def step(samples: int) -> None:
        if form == "pairwise":
            loss = plain_loss(f[:samples], labels[:samples], logits, 0.2, 1.0, "centroid_to_sample", "mean_of_ratios")
        else:
            log_p = ncmi.to_log_distribution(f[:samples], None, 0.2)
            loss = ncmi.ncmi_loss(log_p, labels[:samples], ncmi.log_nsf(logits))
        loss.backward()

    step(8)  # libraries' own memory
    _timed_with_peak(lambda: step(256), 2 if form == "pairwise" else 20)


def in_own_process(form: str, threads: int) -> tuple[list[float], float]:
    """Seconds of each repeat and peak MB, of :func:`_peak`."""
    command = [sys.executable, __file__, "--peak", form, "--threads", str(threads)]
    times, megabytes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return times, megabytes


def against_pairwise(threads: int) -> list[Row]:
    (pairwise, pairwise_peak), (ours, our_peak) = (in_own_process(form, threads) for form in ("pairwise", "ours"))
    speed = min(pairwise) / min(ours)
    memory = pairwise_peak / max(our_peak, 0.1)
    told = f"{pairwise_peak:.0f} MB / {our_peak:.0f} MB = {memory:.0f}×"
    return [
        ("speed against the pairwise B×C×D form, (256,1000,512), learned", "≥ 100×", f"{speed:.0f}×", speed >= 100),
        ("peak memory of the pairwise form over ours", "≥ 8×", told, memory >= 8),
    ]


def measuring(threads: int) -> list[Row]:
    times, extra = in_own_process("measure", threads)
    seconds = statistics.median(times)
    small, few = torch.randn(500, 20, dtype=torch.float64).log_softmax(-1), torch.randint(7, (500,))
    p = small.exp()
    pairs = -(p @ small.T)
    expected = float((pairs * (few[:, None] != few[None])).sum() / 500**2)
    error = abs(ncmi.measure(small, few, 7, "cross_entropy").gamma / expected - 1)
    table = 1000 * 1000 * 8 / 1e6
    told = f"{seconds:.2f} s ({min(times):.2f}–{max(times):.2f})"
    return [
        ("measure, 50,000 × 1000 float32", "≤ 3 s", told, seconds <= 3),
        ("its extra memory (one table C×D in float64: 8 MB)", "O(C·D)", f"{extra:.0f} MB", extra < 8 * table),
        ("measure against the N² pairwise sum, N = 500", "≤ 1e-9", f"{error:.1e}", error <= 1e-9),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=7, help="blocks of alternating steps for the ratios of time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=("pairwise", "ours", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        _peak(arguments.peak)
        return
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"{platform.machine()}, {arguments.threads} threads, {versions}"
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine}\n\n| what | bar | measured | |\n|---|---|---|---|")
    rows: list[Row] = []
    for part in (
        exactness,
        lambda: against_cross_entropy(arguments.blocks, 1),
        lambda: against_cross_entropy(arguments.blocks, arguments.threads),
        lambda: against_pairwise(arguments.threads),
        lambda: measuring(arguments.threads),
    ):
        for row in part():
            rows.append(row)
            print(f"| {row[0]} | {row[1]} | {row[2]} | {'✓' if row[3] else '✗'} |", flush=True)
    if arguments.json is not None:
        content = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

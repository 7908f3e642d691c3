"""The bars of the mathematical core, measured: exactness, time against cross-entropy, memory against the pairwise form.

    python benchmarks/core.py [--threads 2] [--out FILE]

Times are ratios of steps that take turns in one process: median, and the range over blocks of steps. The processor and
its vector capability stand in the heading: they decide how long a sigmoid takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import ncmi
from _forms import MODES, RELEASED, Shape, errors_of, gradients_of, plain_loss, relative, sample
from _timing import (
    LinearCrossEntropy,
    Row,
    Table,
    command_line,
    machine,
    machine_text,
    of_value,
    of_values,
    step_of,
    threads_label,
)
from ncmi.loss import equation
from ncmi.training.environment import mark_peak, peak_megabytes
from ncmi.training.timing import in_turns, seconds_of, wall

CPU = torch.device("cpu")
_SIZES = ((16, 2, 8, 0.5), (16, 10, 64, 0.5), (8, 100, 128, 0.2), (4, 1000, 64, 0.3), (4, 20, 2048, 0.07))
SHAPES = [Shape(*sizes) for sizes in _SIZES]


def exactness() -> Iterator[Row]:
    """Loss and gradients against the paper's equations in float64, and float32 against float64."""
    errors = [errors_of(shape, mode, CPU, torch.float64) for shape in SHAPES for mode in MODES]
    for name in errors[0]:
        worst = max(one[name] for one in errors)
        yield of_value(f"{name}, float64, worst of {len(errors)}", worst, unit="", bar=1e-10, digits=-1)
    yield from float32_exactness(Shape(256, 1000, 512, 0.2))
    yield from float32_exactness(Shape(256, 100, 2048, 0.07))


def float32_exactness(shape: Shape) -> Iterator[Row]:
    """The module in float32 against the equations in float64, features half on their way to the anchors."""
    anchors: Any = "axis" if shape.width >= shape.classes else "etf"
    loss = ncmi.NCMILoss(shape.classes, shape.width, anchors=anchors, **RELEASED | {"temperature": shape.temperature})
    _, labels, _ = sample(shape, CPU, torch.float32, soft=False)
    logits = loss.centroid_logits.detach()
    features = (torch.randn(shape.batch, shape.width) + logits[labels] / 2).requires_grad_()
    value = loss.loss(features, labels)
    actual = (value.detach(), *torch.autograd.grad(value, (features, loss.centroid_logits)))
    expected = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in (value, features, logits)]
    options = {"temperature": shape.temperature, **PAPER_MODE}
    for rows in torch.arange(shape.batch).split(8):  # B×C×D tensors of 8 samples at a time
        part = gradients_of(plain_loss, features[rows].double(), labels[rows], logits.double(), **options)
        share = len(rows) / shape.batch
        expected[0] += share * part[0]
        expected[1][rows] = share * part[1]
        expected[2] += share * part[2]
    names = (("loss", 1e-5), ("feature gradient", 2e-5), ("centroid gradient", 2e-5))
    for (name, bar), a, b in zip(names, actual, expected, strict=True):
        yield of_value(f"float32 {name}, {shape}", relative(a.double(), b), unit="", bar=bar, digits=-1)


PAPER_MODE = {name: RELEASED[name] for name in ("separation_power", "separation_direction", "form")}


# B, C, D, and what the default form may cost of Linear + cross-entropy's step
COSTS = (
    (256, 1000, 2048, 1.8),
    (256, 1000, 512, 1.8),
    (256, 100, 512, 2.5),
    (128, 100, 512, 2.5),
    (64, 26, 128, 3.5),
    (128, 10, 128, 3.5),
)
# the other forms, at the first of these sizes
FORMS: dict[str, tuple[dict[str, Any], float | None]] = {
    "fixed centroids": ({"centroids": "fixed"}, None),
    "class means": ({"centroids": "class_mean"}, None),
    "EMA center": ({"center": "ema"}, None),
    "label smoothing": ({"label_smoothing": 0.1}, None),
    "robust": ({"robustness": "auto"}, None),
    "released, fixed": (RELEASED | {"centroids": "fixed"}, 0.4),
    "released, learned": (RELEASED, 1.2),
    "paper (ratio of means), learned": (RELEASED | {"form": "ratio_of_means"}, 1.2),
}


class Head(torch.nn.Module):
    """The default form as a last layer, with cross-entropy behind it."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.layer = ncmi.NCMIHead(width, classes)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layer(features), labels)


def against_cross_entropy(blocks: int, threads: int) -> Iterator[Row]:
    """Forward and backward of every form over those of Linear + cross-entropy, which take turns."""
    torch.set_num_threads(threads)
    for number, (batch, classes, width, bar) in enumerate(COSTS):
        modules: dict[str, tuple[torch.nn.Module, float | None]] = {
            "default": (ncmi.NCMILoss(classes, width), bar),
            "default, as a head": (Head(classes, width), bar),
            "common length": (ncmi.NCMILoss(classes, width, feature_length="common"), bar),
        }
        for name, (options, its_bar) in FORMS.items() if number == 0 else ():
            modules[name] = ncmi.NCMILoss(classes, width, **options), its_bar
        features, labels = torch.randn(batch, width, requires_grad=True), torch.randint(classes, (batch,))
        calls = {name: step_of(module, features, labels) for name, (module, _) in modules.items()}
        calls["Linear + cross-entropy"] = rival = step_of(LinearCrossEntropy(classes, width), features, labels)
        # so many steps a turn that a turn takes some milliseconds
        steps = max(1, round(0.01 / max(1e-5, min(seconds_of(rival, CPU)[0] for _ in range(5)))))
        many = {name: _repeated(call, steps) for name, call in calls.items()}
        ratios: dict[str, list[float]] = {name: [] for name in modules}
        for _ in range(blocks):
            times = {name: statistics.median(wall(found)) for name, found in in_turns(many, 15, CPU).items()}
            for name, of_blocks in ratios.items():
                of_blocks.append(times[name] / times["Linear + cross-entropy"])
        for name, (_, its_bar) in modules.items():
            what = f"time of the {name} form over Linear + cross-entropy, ({batch},{classes},{width})"
            yield of_values(f"{what}, {threads_label(threads)}", ratios[name], bar=its_bar)


def _repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def _print_times_and_peak(call: Callable[[], object], repeats: int) -> None:
    """Seconds of each call, and MB above the start: of a process that has done nothing else."""
    mark_peak(CPU)
    before = peak_megabytes(CPU)
    times = [seconds_of(call, CPU)[0] for _ in range(repeats)]
    print(json.dumps([times, peak_megabytes(CPU) - before]))


def _peak(form: str) -> None:
    """In a process of its own: `measure`, or a step at (256, 1000, 512) of one form of the loss."""
    if form == "measure":
        log_p, classes = torch.randn(50_000, 1000).log_softmax(-1), torch.randint(1000, (50_000,))
        ncmi.measure(log_p[:2], classes[:2], 1000)  # libraries' own memory
        _print_times_and_peak(lambda: ncmi.measure(log_p, classes, 1000), 5)
        return
    features, labels = torch.randn(256, 512, requires_grad=True), torch.randint(1000, (256,))
    logits = (2 * torch.randn(1000, 512)).requires_grad_()

    def step(samples: int) -> None:
        if form == "pairwise":
            loss = plain_loss(features[:samples], labels[:samples], logits, 0.2, **PAPER_MODE)
        else:
            log_p = ncmi.to_log_distribution(features[:samples], None, 0.2)
            loss = ncmi.ncmi_loss(log_p, labels[:samples], ncmi.log_nsf(logits))
        loss.backward()

    step(8)  # libraries' own memory
    _print_times_and_peak(lambda: step(256), 2 if form == "pairwise" else 20)


def in_own_process(form: str, threads: int) -> tuple[list[float], float]:
    """Seconds of each repeat and peak MB, of :func:`_peak`."""
    command = [sys.executable, __file__, "--peak", form, "--threads", str(threads)]
    times, megabytes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return times, megabytes


def against_pairwise(threads: int) -> Iterator[Row]:
    """Speed and memory of a step against that of the equations as they stand."""
    (pairwise, pairwise_peak), (ours, our_peak) = (in_own_process(form, threads) for form in ("pairwise", "ours"))
    what = "speed against the pairwise B×C×D form, (256,1000,512), learned"
    yield of_value(what, min(pairwise) / min(ours), bar=100.0, at_least=True, digits=0)
    memory = pairwise_peak / max(our_peak, 0.1)
    note = f"{pairwise_peak:.0f} MB / {our_peak:.0f} MB"
    yield of_value("peak memory of the pairwise form over ours", memory, bar=8.0, at_least=True, digits=0, note=note)


def measuring(threads: int) -> Iterator[Row]:
    """Time, memory and exactness of `measure`."""
    times, extra = in_own_process("measure", threads)
    yield of_values("measure, 50,000 × 1000 float32", times, unit="s", bar=3.0)
    # one table C×D in float64 is 8 MB
    yield of_value("its extra memory, O(C·D)", extra, unit="MB", bar=64.0, digits=0)
    log_p, labels = torch.randn(500, 20, dtype=torch.float64).log_softmax(-1), torch.randint(7, (500,))
    expected = float(equation.gamma(log_p.exp(), labels, "cross_entropy"))
    error = abs(ncmi.measure(log_p, labels, 7, "cross_entropy").gamma / expected - 1)
    yield of_value("measure against the N² pairwise sum, N = 500", error, unit="", bar=1e-9, digits=-1)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=7, help="blocks of alternating steps for the ratios of time")
    parser.add_argument("--out", "--json", type=Path, help="JSON file; a table in Markdown is written beside it")
    parser.add_argument("--peak", choices=("pairwise", "ours", "measure"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        _peak(arguments.peak)
        return
    print(f"{machine_text(machine(CPU))}\n")
    table = Table(arguments.out, CPU)
    threads = arguments.threads
    timings = [against_cross_entropy(arguments.blocks, count) for count in (1, threads)]
    for row in itertools.chain(exactness(), *timings, against_pairwise(threads), measuring(threads)):
        table.add(row)


if __name__ == "__main__":
    main()

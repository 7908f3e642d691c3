"""What a CUDA machine has to say about the loss, in order of worth for someone with 15 minutes.

    python benchmarks/gpu.py [check] [train] [speed] [--minutes 15] [--out DIR] [--data-dir DIR]

- check: every form of the loss on the GPU, value and gradients, against the paper's equations in float64 on the CPU
  (``ncmi.loss.equation``); the head, compiled as well; a state that is saved and loaded again goes on bit by bit.
- train: all of CIFAR-100 by the recipe cifar100.fast: cross-entropy, NCMI at its default and label smoothing, seed by
  seed; then the released form; then ResNet-18, 30 epochs of the same kind, cross-entropy and NCMI in pairs.
- speed: forward and backward of the loss and of the head against Linear + cross-entropy, as it is and compiled.

Without a verb all of it. It stops before the minutes are over, and the same command goes on: finished verbs and
training runs are kept in DIR (by default benchmarks/results/DATE-gpu), as JSON and Markdown. check and speed need torch
alone; train needs the rest of the package (pip install "ncmi[app]") and CIFAR-100 below --data-dir or NCMI_DATA.
Without a GPU, ``--device cpu --quick`` rehearses everything at tiny sizes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _forms import MODES, RELEASED, Shape, errors_of, sample
from _timing import LinearCrossEntropy, Row, Table, command_line, of_value, of_values, ratios, step_of
from ncmi import NCMILoss
from ncmi.training.timing import in_turns, wall

STARTED = time.monotonic()  # what is imported later counts too
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the check of equal bits
VERBS = ("check", "train", "speed")
Item = tuple[str, Iterable[Row]]


@dataclass(frozen=True)
class Session:
    """One call of the script: where results go, on what it runs, and until when (on the monotonic clock)."""

    out: Path
    device: torch.device
    quick: bool
    ends: float
    data_dir: str | None = None

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.ends - time.monotonic()

    @property
    def backend(self) -> str:
        """Of torch.compile; a rehearsal needs no compiler of C++."""
        return "aot_eager" if self.quick else "inductor"

    def measure(self, verb: str, items: Iterable[Item], reserve: float) -> bool:
        """Measure while at least ``reserve`` seconds are left, unless an earlier call has; whether all is measured.

        One that fails must not cost the others; the next call tries again.
        """
        path = self.out / f"{verb}.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8"))["finished"]:
            return True
        table = Table(path, self.device, finished=False)
        failed = False
        for name, rows in items:
            if self.left < reserve:
                return False
            try:
                for row in rows:
                    table.add(row)
            except Exception as error:
                failed = True
                table.add(of_value(name, math.nan, bar=0.0, note=f"failed: {' '.join(str(error).split())[:300]}"))
        table.about["finished"] = not failed
        table.write()
        return not failed


def check_items(session: Session) -> list[Item]:
    """Exactness of all forms, of the modules and of their state."""
    shapes = [Shape(8, 5, 16, 0.5)] if session.quick else [Shape(64, 10, 64, 0.5), Shape(32, 100, 512, 0.2)]
    items: list[Item] = []
    for shape, half, soft in itertools.product(shapes, (False, True), (False, True)):
        name = f"{shape}, {'bfloat16' if half else 'float32'} features, {'soft' if soft else 'hard'} targets"
        items.append((name, _exactness(session, shape, half, soft, name)))
    items.append(("head", _head(session, shapes[-1])))
    for centroids, center, form in (
        ("learned", "ema", "likelihood"),
        ("class_mean", "frozen", "mean_of_ratios"),
        ("fixed", "none", "ratio_of_means"),
    ):
        options = {"centroids": centroids, "center": center, "form": form}
        items.append((f"resumed, {centroids} centroids, center {center}", _resumed(session, options)))
    return items


def _exactness(session: Session, shape: Shape, half: bool, soft: bool, name: str) -> Iterator[Row]:
    """Largest relative errors over all forms."""
    dtype = torch.bfloat16 if half else torch.float32
    worst = {
        key: max(errors[key] for errors in (errors_of(shape, mode, session.device, dtype, soft) for mode in MODES))
        for key in ("loss", "features", "centroids")
    }
    # a gradient of bfloat16 features is itself in bfloat16
    bars = {"loss": 1e-5, "features": 5e-3 if half else 1e-4, "centroids": 1e-4}
    for key, error in worst.items():
        label = key if key == "loss" else f"gradient of {key}"
        yield of_value(f"{name}: {label}, worst of {len(MODES)} forms", error, unit="", bar=bars[key], digits=-1)


def _head(session: Session, shape: Shape) -> Iterator[Row]:
    """The loss by way of its scores: cross-entropy of a head's log-probabilities is the likelihood form."""
    torch.manual_seed(0)
    loss = NCMILoss(shape.classes, shape.width).to(session.device)
    features, labels, _ = sample(shape, session.device, torch.float32, soft=False)
    head = Head(loss)
    expected = _value_and_gradient(loss.loss, features, labels)
    for name, call in (("head", head), ("head, compiled", torch.compile(head, dynamic=False, backend=session.backend))):
        for key, a, b in zip(("loss", "gradient"), _value_and_gradient(call, features, labels), expected, strict=True):
            error = float((a - b).norm() / b.norm())
            yield of_value(f"{name} against the loss, {key}", error, unit="", bar=1e-4, digits=-1)


def _value_and_gradient(call: Callable[..., Tensor], features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    features = features.detach().requires_grad_()
    value = call(features, labels)
    return value.detach(), torch.autograd.grad(value, features)[0]


class Head(nn.Module):
    """NCMI as a classifier's last layer: scores, then cross-entropy."""

    def __init__(self, loss: NCMILoss) -> None:
        super().__init__()
        self.ncmi = loss

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.ncmi.scores(features), labels)


def _resumed(session: Session, options: dict[str, Any]) -> Iterator[Row]:
    """A small network that is saved half-way, by way of the CPU, against one that is not: the same bits."""
    device, classes, width, steps = session.device, 10, 32, 12
    torch.manual_seed(0)
    batches = [(torch.randn(64, 20), torch.randint(classes, (64,))) for _ in range(steps)]
    batches = [(inputs.to(device), labels.to(device)) for inputs, labels in batches]
    power = -4.0 if options["form"] == "likelihood" else 1.0
    torch.use_deterministic_algorithms(True)

    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        parts = {"network": nn.Linear(20, width), "loss": NCMILoss(classes, width, separation_power=power, **options)}
        model = nn.ModuleDict(parts).to(device)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def run(model: nn.Module, optimizer: torch.optim.Optimizer, part: slice) -> None:
        for inputs, labels in batches[part]:
            optimizer.zero_grad()
            model["loss"](model["network"](inputs), labels).backward()  # type: ignore[index]
            optimizer.step()

    straight, optimizer = begun()
    run(straight, optimizer, slice(None))
    first, optimizer = begun()
    run(first, optimizer, slice(steps // 2))
    saved = deepcopy({name: value.cpu() for name, value in first.state_dict().items()}), optimizer.state_dict()
    second, optimizer = begun()
    second.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    run(second, optimizer, slice(steps // 2, None))
    torch.use_deterministic_algorithms(False)
    pairs = zip(straight.state_dict().items(), second.state_dict().values(), strict=True)
    different = [name for (name, value), other in pairs if not torch.equal(value, other)]
    name = f"tensors that differ after resuming, {options['centroids']} centroids, center {options['center']}"
    yield of_value(name, len(different), unit="", bar=0, digits=0, note=", ".join(different))


def speed_items(session: Session) -> list[Item]:
    """Time of a loss over that of Linear + cross-entropy; what is worth most comes first."""
    shapes = [(8, 5, 16)] if session.quick else [(256, 1000, 2048), (128, 100, 512)]
    return [
        (f"{shape}{', compiled' * compiled}", _timing(session, shape, compiled))
        for compiled in (False, True)
        for shape in shapes
    ]


def _timing(session: Session, shape: tuple[int, int, int], compiled: bool) -> Iterator[Row]:
    batch, classes, width = shape
    device, (repeats, inner) = session.device, (1, 2) if session.quick else (15, 50)
    features = torch.randn(batch, width, device=device, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=device)
    rival = "Linear + cross-entropy"
    losses: dict[str, nn.Module] = {
        rival: LinearCrossEntropy(classes, width),
        "NCMI, default": NCMILoss(classes, width),
        "NCMI, default, as a head": Head(NCMILoss(classes, width)),
        "NCMI, default, fixed centroids": NCMILoss(classes, width, centroids="fixed"),
        "NCMI, released": NCMILoss(classes, width, centroids="fixed", **RELEASED),
        "NCMI, released, learned centroids": NCMILoss(classes, width, **RELEASED),
    }

    if compiled and session.quick:  # compiling takes longest
        losses = {name: losses[name] for name in (rival, "NCMI, default")}

    def many_steps(loss: nn.Module) -> Callable[[], None]:
        loss.to(device)
        step = step_of(
            torch.compile(loss, dynamic=False, backend=session.backend) if compiled else loss, features, labels
        )

        def steps() -> None:
            for _ in range(inner):
                step()

        return steps

    torch._dynamo.reset()
    seconds = in_turns({name: many_steps(loss) for name, loss in losses.items()}, repeats, device)
    times = {name: wall(spent) for name, spent in seconds.items()}
    suffix = f"{shape}{', compiled' if compiled else ''}"
    for name, spent in times.items():
        yield of_values(f"{name}, {suffix}", [1e6 * one / inner for one in spent], unit="µs", digits=0)
        if name != rival:
            yield of_values(f"{name} / {rival}, {suffix}", ratios(spent, times[rival]))


def run_verb(verb: str, session: Session) -> bool:
    """One verb as far as the time goes; whether it is finished."""
    print(f"\n## {verb}\n", flush=True)
    if verb == "check":
        return session.measure("check", check_items(session), reserve=1 if session.quick else 20)
    if verb == "speed":
        return session.measure("speed", speed_items(session), reserve=1 if session.quick else 30)
    try:
        from _gpu_train import train_all
    except ModuleNotFoundError as error:
        print(f'train is left out: {error}; pip install "ncmi[app]" for it', file=sys.stderr)
        return True
    return train_all(session)


def main() -> int:
    """Run what the command line asks for."""
    parser = command_line(__doc__)
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=f"{', '.join(VERBS)}; without one, all in this order")
    parser.add_argument("--minutes", type=float, default=15.0, help="after which to have stopped")
    default = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-gpu"
    parser.add_argument("--out", type=Path, default=default, help="folder for results and runs")
    parser.add_argument("--data-dir", help="folder with CIFAR-100; by default NCMI_DATA")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; no measurement")
    arguments = parser.parse_args()
    unknown = [verb for verb in arguments.verbs if verb not in VERBS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(VERBS)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device: --device cpu --quick tries the script without one")
    session = Session(
        arguments.out.resolve(),
        torch.device(arguments.device),
        arguments.quick,
        STARTED + 60 * arguments.minutes,
        arguments.data_dir,
    )
    for verb in arguments.verbs or VERBS:
        if not run_verb(verb, session):
            print(f"\n{verb}: not finished; the same command goes on")
            return 3
    print(f"\n{session.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

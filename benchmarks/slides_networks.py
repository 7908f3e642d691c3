"""The bars of the slide networks, measured: steps against torchmil's, NCMI against cross-entropy, peak memory.

    python benchmarks/slides_networks.py [--threads 1 2] [--parts torchmil objectives memory] [--out FILE]

A step is forward, loss and backward on one bag of N patch features of width 1024 in float32, classes of CAMELYON-17
(4). Steps of those that are compared take turns in one process; a row is the median of the ratios, turn by turn.

- torchmil: cross-entropy on a linear head; torchmil's ABMIL and TransMIL with their settings made equal to ours. What
  is left of difference: theirs have no output projection after the heads and no convolution of values, ours work out no
  token but the class token in the last layer. Without torchmil (``pip install torchmil``) these rows are left out.
- objectives: the whole step, AdamW's included, with NCMI over that with linear head + cross-entropy, same ABMIL.
- memory: peak resident memory of a process that makes one TransMIL step at N = 50,000, features and PyTorch included.

About ten minutes a thread count.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _timing import Row, in_own_process, measure_parts, measuring_line, of_value, of_values, ratios
from ncmi import NCMILoss
from ncmi.networks.bags import make_bag_network
from ncmi.recipes import BagNetwork as Options
from ncmi.training.environment import peak_megabytes
from ncmi.training.timing import Times, in_turns, processor, wall

FEATURES, WIDTH, CLASSES = 1024, 512, 4
CPU = torch.device("cpu")
GIB = 2**30 / 1e6  # in MB


class Classifier(nn.Module):
    """One of our networks and a linear head: logits ``[1, C]`` of ``[N, D_feat]``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = make_bag_network(Options(name), FEATURES)  # type: ignore[arg-type]
        self.head = nn.Linear(self.network.feature_dim, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        output = self.network(features)
        self.penalty = output.penalty
        logits: Tensor = self.head(output.vector[None])
        return logits


class Theirs(nn.Module):
    """A model of torchmil with our settings and a head of C classes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchmil.models import ABMIL, TransMIL

        first = nn.Sequential(nn.Linear(FEATURES, WIDTH, bias=False), nn.ReLU())
        if name == "abmil":
            self.model: Any = ABMIL(in_shape=(FEATURES,), att_dim=128, gated=True, feat_ext=first)
        else:
            sizes = {"att_dim": WIDTH, "n_layers": 2, "n_heads": 8, "n_landmarks": WIDTH // 2, "pinv_iterations": 6}
            self.model = TransMIL(in_shape=(FEATURES,), **sizes, dropout=0.0, use_mlp=False, feat_ext=first)
        self.model.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.model(features[None])
        return logits


def have_torchmil() -> bool:
    try:
        import torchmil.models  # noqa: F401
    except ImportError as error:
        print(f"\ntorchmil does not import ({error}): its rows are left out\n", file=sys.stderr)
        return False
    return True


def step_of(model: nn.Module, features: Tensor) -> Callable[[], object]:
    """Gradients dropped, forward, cross-entropy and what the network adds, backward."""
    label = torch.tensor([1])

    def step() -> None:
        model.zero_grad()
        loss = F.cross_entropy(model(features), label)
        penalty = getattr(model, "penalty", None)
        (loss if penalty is None else loss + penalty).backward()

    return step


def row_of(what: str, first: Times, second: Times, bar: float | None) -> Row:
    """Ratios of the wall-clock times; on one thread also of the processor's, which other work on the machine spares."""
    one, other = wall(first), wall(second)
    note = f"{min(one):.4f} s against {min(other):.4f} s at best"
    if torch.get_num_threads() == 1:
        note += f"; processor time {statistics.median(ratios(processor(first), processor(second))):.3f} ×"
    return of_values(what, ratios(one, other), bar=bar, digits=3, note=note)


def compared(what: str, first: nn.Module, second: nn.Module, count: int, repeats: int, bar: float | None = None) -> Row:
    features = torch.randn(count, FEATURES)
    times = in_turns({"first": step_of(first, features), "second": step_of(second, features)}, repeats, CPU)
    return row_of(f"{what}, N = {count:,}", times["first"], times["second"], bar)


def torchmil_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Our steps over torchmil's."""
    if not have_torchmil():
        return
    plan = (("abmil", 20_000, 15), ("transmil", 20_000, 5), ("abmil", 2_000, 41), ("transmil", 2_000, 9))
    for name, count, repeats in plan:
        bar = 1.0 if count == 20_000 else None
        count, repeats = (200, 1) if arguments.quick else (count, repeats)
        yield compared(f"step time, {name} / torchmil's", Classifier(name), Theirs(name), count, repeats, bar)


def training_step(objective: str, features: Tensor) -> Callable[[], object]:
    """A whole step of ABMIL with NCMI, or with a linear head and cross-entropy."""
    torch.manual_seed(0)
    network, label = make_bag_network(Options("abmil"), FEATURES), torch.tensor([1])
    head = NCMILoss(CLASSES, network.feature_dim) if objective == "NCMI" else nn.Linear(network.feature_dim, CLASSES)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], 1e-4, weight_decay=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        vector = network(features).vector[None]
        loss = head(vector, label) if isinstance(head, NCMILoss) else F.cross_entropy(head(vector), label)
        loss.backward()
        optimizer.step()

    return step


def objective_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """NCMI's step over cross-entropy's."""
    for count, repeats in ((20_000, 31), (2_000, 301)):
        count, repeats = (200, 3) if arguments.quick else (count, repeats)
        features = torch.randn(count, FEATURES)
        calls = {name: training_step(name, features) for name in ("NCMI", "cross-entropy")}
        times = in_turns(calls, repeats, CPU)
        what = f"step time, NCMI / cross-entropy, abmil, N = {count:,}"
        yield row_of(what, times["NCMI"], times["cross-entropy"], 1.02)


def peak_of_step(whose: str, count: int, threads: int) -> float:
    """In a process of its own: one step of TransMIL, then its peak in MB."""
    torch.set_num_threads(threads)
    step_of(Classifier("transmil") if whose == "ours" else Theirs("transmil"), torch.randn(count, FEATURES))()
    return peak_megabytes(CPU)


def memory_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Peak resident memory of one TransMIL step."""
    count = 500 if arguments.quick else 50_000
    for whose, bar in (("ours", 6.0), ("torchmil", None)):
        if whose == "torchmil" and not have_torchmil():
            return
        what = f"peak resident memory, transmil, {whose}, one step, N = {count:,}"
        try:
            megabytes = in_own_process(peak_of_step, whose, count, torch.get_num_threads())
        except BrokenProcessPool:  # killed for want of memory
            if whose == "ours":
                raise
            print(f"\n{what}: the process was killed; left out\n", file=sys.stderr)
            return
        yield of_value(what, megabytes / GIB, unit="GiB", bar=bar)


PARTS = {"torchmil": torchmil_rows, "objectives": objective_rows, "memory": memory_rows}


def main() -> None:
    command = measuring_line(__doc__, PARTS, [1, 2])
    arguments = command.parse_args()
    torch.manual_seed(0)
    # memory does not depend on the number of threads
    measure_parts(PARTS, arguments, CPU, once=("memory",))


if __name__ == "__main__":
    main()

"""What a loss costs: head and loss by themselves, in a whole step, and at the peak of memory. Losses take turns."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ncmi.data.signature import Signature
from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.loss.forms import check_range
from ncmi.objectives.options import ObjectiveOptions
from ncmi.recipes import ImageData, Network, Recipe, Training, recipe_to_dict, resolve_recipe
from ncmi.recipes.names import BASELINE
from ncmi.training.defaults import torch_defaults
from ncmi.training.environment import describe_environment
from ncmi.training.model import Classifier
from ncmi.training.optimizers import make_optimizers
from ncmi.training.samples import split_views
from ncmi.training.schema import FORMAT, Record
from ncmi.training.step import TrainingStep
from ncmi.training.timing import in_turns, median_interval, peak_of, processor, seconds_of, wall

_LEAST_SECONDS = 0.01  # of a turn of head and loss, which alone may take microseconds
_MOST_CALLS = 1000


class Interval(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A median and its 95 % interval, which fewer than six repetitions do not have."""

    median: float
    low: float | None = None
    high: float | None = None


class ObjectiveCost(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one loss costs; ratios are paired, round by round, with those of cross-entropy.

    Attributes:
        name, label: of the form.
        objective: its options.
        head_microseconds: of head and loss by themselves: forward, backward, statistics, optimizer, on given features.
        head_share: of the whole step of the same round, 0 … 1.
        step_milliseconds: of a whole step, batch on the device: network, head, loss, backward, optimizer.
        step_ratio: the whole step over cross-entropy's, as measured.
        step_ratio_by_parts: the same from the parts: 1 + (head and loss − those of cross-entropy) over cross-entropy's
            step. The network is the same, and so its noise is left out; None for losses with several views.
        peak_megabytes: of a step, weights and optimizer included; None where it was not asked for.
        peak_ratio: over cross-entropy's.
    """

    name: str
    label: str
    objective: dict[str, Any]
    head_microseconds: Interval
    head_share: Interval
    step_milliseconds: Interval
    step_ratio: Interval
    step_ratio_by_parts: Interval | None
    peak_megabytes: float | None = None
    peak_ratio: float | None = None


class CostRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cost.json``: what was measured, on what machine, and each loss's cost.

    ``clock`` is what was read: the processor's seconds of a single thread, which other work on the machine does not
    count in, else the clock on the wall.
    """

    format: int = FORMAT
    machine: dict[str, Any]
    network: str
    classes: int
    feature_dim: int
    batch: int
    image_size: int
    precision: str
    compile: bool
    rounds: int
    clock: Literal["wall", "processor"]
    objectives: list[ObjectiveCost]


@dataclass(frozen=True)
class CostSetting:
    """What is measured.

    Attributes:
        network: name.
        classes: C.
        batch: images of a step; two-view losses take each twice.
        image_size: side in pixels.
        rounds: repetitions, in each of which every loss has its turn; one more warms up.
        precision, compile: as of a training.
        memory: also measure the peak of memory.
    """

    network: str = "resnet50"
    classes: int = 1000
    batch: int = 256
    image_size: int = 224
    rounds: int = 20
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    memory: bool = True

    def __post_init__(self) -> None:
        check_range(self, "classes", least=2)
        check_range(self, "batch", "image_size", "rounds", least=1)


class _Subject:
    """A classifier with one loss, and its step on images and on features that stay."""

    def __init__(self, setting: CostSetting, objective: ObjectiveOptions, device: torch.device) -> None:
        side = setting.image_size
        training = Training(optimizer="sgd", learning_rate=1e-4, centroid_learning_rate=1e-4, batch_size=setting.batch)
        recipe = Recipe(ImageData("random", image_size=side), Network(setting.network), objective, training)
        self.recipe = resolve_recipe(recipe, (3, side, side), setting.classes, setting.batch)
        names = tuple(map(str, range(setting.classes)))
        signature = Signature(kind="image", sample_shape=(3, side, side), class_names=names, feature_names=None)
        torch.manual_seed(0)
        self.model = Classifier(self.recipe, signature).to(device).train()
        self.setting, self.device = setting, device
        views, width = self.model.objective.views, self.model.objective.feature_dim
        self.labels = torch.arange(setting.batch, device=device) % setting.classes
        shape = (setting.batch, width) if views == 1 else (setting.batch, views, width)
        # of rectified maps, averaged, as a residual network has them
        self.features = torch.rand(shape, device=device).requires_grad_()

    def use(self, network: nn.Module, images: Tensor) -> None:
        """Take a network and images ``[B, 3, H, W]`` that others take as well."""
        self.model.network, self.images = network, images

    def own(self) -> _Subject:
        """With images of its own."""
        side = self.setting.image_size
        self.use(self.model.network, torch.randn(self.setting.batch, 3, side, side, device=self.device))
        return self

    def autocast(self) -> AbstractContextManager[None]:
        if self.setting.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def head(self) -> Callable[[], None]:
        """Head and loss by themselves; a loss without parameters has no optimizer to step."""
        objective, features = self.model.objective, self.features
        parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        nothing = nn.Parameter(torch.zeros((), device=self.device))
        optimizer = torch.optim.SGD(parameters or [nothing], lr=1e-4, momentum=0.9, fused=True)
        step = TrainingStep(objective, optimizer, autocast=self.autocast)

        def call() -> None:
            features.grad = None
            step(features, self.labels)

        return call

    def step(self) -> Callable[[], None]:
        """A whole step, as a run makes it."""
        training, objective = self.recipe.training, self.model.objective
        both = AlternatingOptimizer(*make_optimizers(self.model, training), training.alternation)
        step = TrainingStep(objective, both, autocast=self.autocast)
        network = torch.compile(self.model.network, dynamic=False) if self.setting.compile else self.model.network

        def call() -> None:
            images = self.images if objective.views == 1 else torch.cat([self.images] * objective.views)
            with self.autocast():
                features = network(images)
            step(split_views(features, objective.views), self.labels)

        return call


def measure_costs(
    setting: CostSetting,
    forms: Mapping[str, tuple[str, ObjectiveOptions]],
    device: torch.device,
    on_stage: Callable[[str], None] = lambda text: None,
) -> CostRecord:
    """Time and memory of losses on one network, which all of them share, with random images and weights.

    Args:
        setting: network, sizes, repetitions.
        forms: label and options of each loss by its name; cross-entropy is among them.
        device: that is measured.
        on_stage: told what is begun.

    Raises:
        ValueError: without cross-entropy, for an unknown network, or a loss that does not take these sizes.
    """
    with torch_defaults(draws=True):
        return _measured(setting, forms, device, on_stage)


def _measured(
    setting: CostSetting,
    forms: Mapping[str, tuple[str, ObjectiveOptions]],
    device: torch.device,
    on_stage: Callable[[str], None],
) -> CostRecord:
    if BASELINE not in forms:
        raise ValueError(
            f"objectives={tuple(forms)}: {BASELINE} must be among them, which the others are compared with"
        )
    peaks: dict[str, int] = {}
    for name, (label, options) in forms.items() if setting.memory else ():
        on_stage(f"memory of {label} …")
        # alone, before the others' weights are there
        peaks[name] = peak_of(lambda options=options: _Subject(setting, options, device).own().step(), device)  # type: ignore[misc]
        gc.collect()
    subjects = {name: _Subject(setting, options, device) for name, (_, options) in forms.items()}
    first = subjects[BASELINE].own()
    calls: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    for name, subject in subjects.items():
        subject.use(first.model.network, first.images)
        head = subject.head()
        head()
        # so many calls a turn that a turn takes some milliseconds
        alone = min(seconds_of(head, device)[0] for _ in range(3))
        counts[name] = max(1, min(_MOST_CALLS, round(_LEAST_SECONDS / alone)))
        calls[f"{name} head"] = partial(_repeatedly, head, counts[name])
        calls[f"{name} step"] = subject.step()
    on_stage(f"{len(forms)} losses take turns, {setting.rounds} rounds …")
    clock: Literal["wall", "processor"] = "wall"
    if device.type == "cpu" and torch.get_num_threads() == 1:
        clock = "processor"
    read = wall if clock == "wall" else processor
    times = {name: read(spent) for name, spent in in_turns(calls, setting.rounds, device).items()}
    heads = {name: [seconds / counts[name] for seconds in times[f"{name} head"]] for name in forms}
    steps = {name: times[f"{name} step"] for name in forms}
    costs = []
    for name, (label, _) in forms.items():
        parts = zip(heads[name], heads[BASELINE], steps[BASELINE], strict=True)
        costs.append(
            ObjectiveCost(
                name=name,
                label=label,
                objective=recipe_to_dict(subjects[name].recipe)["objective"],
                head_microseconds=_interval([1e6 * seconds for seconds in heads[name]]),
                head_share=_interval([head / step for head, step in zip(heads[name], steps[name], strict=True)]),
                step_milliseconds=_interval([1e3 * seconds for seconds in steps[name]]),
                step_ratio=_interval([own / base for own, base in zip(steps[name], steps[BASELINE], strict=True)]),
                step_ratio_by_parts=_interval([1 + (own - base) / step for own, base, step in parts])
                if subjects[name].model.objective.views == 1
                else None,
                peak_megabytes=peaks[name] / 1e6 if peaks else None,
                peak_ratio=peaks[name] / peaks[BASELINE] if peaks else None,
            )
        )
    return CostRecord(
        machine=describe_environment(device),
        network=setting.network,
        classes=setting.classes,
        feature_dim=first.model.objective.feature_dim,
        batch=setting.batch,
        image_size=setting.image_size,
        precision=setting.precision,
        compile=setting.compile,
        rounds=setting.rounds,
        clock=clock,
        objectives=costs,
    )


def _repeatedly(call: Callable[[], None], times: int) -> None:
    for _ in range(times):
        call()


def _interval(values: Sequence[float]) -> Interval:
    low, high = median_interval(values) or (None, None)
    return Interval(median=statistics.median(values), low=low, high=high)

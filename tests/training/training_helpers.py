"""Small recipes, and what it means that two runs are the same run."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions, SupConOptions
from ncmi.readouts.scores import Estimate, Scores
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, TableData, Training
from ncmi.recipes.defaults import takes_common_length
from ncmi.training.checkpoint import load_checkpoint
from ncmi.training.loop import Loop
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import InformationRecord, Readout, Results

SMALL = Network("mlp", width=16, depth=1, feature_dim=8)
TIMES = {"seconds", "epoch_seconds", "total_seconds", "peak_memory_mb"}


def make_recipe(
    objective: ObjectiveOptions | None = None, *, data: str = "wine", network: Network = SMALL, **training: Any
) -> Recipe:
    """Three epochs of wine (115 training samples, so 4 steps of 32 with a short last one) on a tiny perceptron.

    The objective is settled, as a run settles it: with what a loop of its own makes of the recipe runs can be compared.
    """
    options = {"epochs": 3, "batch_size": 32, "accelerator": "cpu", "threads": 1, **training}
    section = ImageData(data) if data == "digits" else TableData(data)
    recipe = Recipe(section, network, objective or NCMIOptions(), Training(**options))
    return replace(recipe, objective=recipe.objective.settled(common_length=takes_common_length(recipe)))


RESUME_CASES: dict[str, Callable[..., Recipe]] = {
    "ncmi": lambda **more: make_recipe(**more),
    "ncmi-class-mean-ema-center": lambda **more: make_recipe(
        NCMIOptions(centroids="class_mean", center="ema", center_decay=0.9, weight="balanced"), **more
    ),
    "ncmi-phases": lambda **more: make_recipe(
        alternation=Alternation("phases", network_steps=3, centroid_steps=2), schedule="cosine", **more
    ),
    "ncmi-class-means-ema": lambda **more: make_recipe(
        NCMIOptions(centroids="fixed", center="frozen"),
        alternation=Alternation("class_means"),
        ema_decay=0.8,
        selection="best",
        **more,
    ),
    "ncmi-robust": lambda **more: make_recipe(NCMIOptions.robust(), accumulate=2, ema_decay=0.8, **more),
    "cross-entropy-everything": lambda **more: make_recipe(
        CrossEntropyOptions(),
        network=Network("mlp", width=16, depth=2, feature_dim=8, dropout=0.3),
        optimizer="sgd",
        learning_rate=0.1,
        ema_decay=0.9,
        clip_norm=0.5,
        accumulate=3,
        schedule="cosine",
        warmup_epochs=0.5,
        selection="best",
        augmentation=Augmentation(enabled=True),
        **more,
    ),
    "supcon": lambda **more: make_recipe(SupConOptions(projection_dim=8), **more),
}


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMES}


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder: Path) -> Results:
    return RunFolder(folder).results()


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """All values of a record by their path in it, such as ``test/accuracy/value``, for pytest.approx."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, dict | list):
        items = plain.items() if isinstance(plain, dict) else enumerate(plain)
        return {path: leaf for key, child in items for path, leaf in leaves(child, f"{name}/{key}").items()}
    return {name.removeprefix("/"): plain}


def weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return tensors


def same_tree(a: Any, b: Any) -> bool:
    """Bitwise equal trees: tensors by type, shape and value; NaN equals NaN; tuples equal lists."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
            return False
        equal = (a == b) | ((a != a) & (b != b))
        return a.dtype == b.dtype and a.shape == b.shape and bool(equal.all())
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same_tree(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same_tree, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and bool(a == b)


def assert_same_run(a: Path, b: Path) -> None:
    """Bitwise the same end: weights, metrics, results, outputs; and optimizers, schedules and generators besides."""
    mine, theirs = weights(a), weights(b)
    assert list(mine) == list(theirs)
    assert [name for name in mine if not same_tree(mine[name], theirs[name])] == []
    assert [without_times(row) for row in metrics(a)] == [without_times(row) for row in metrics(b)]
    assert without_times(msgspec.to_builtins(results(a))) == without_times(msgspec.to_builtins(results(b)))
    with np.load(a / "test_outputs.npz") as one, np.load(b / "test_outputs.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
    states = [load_checkpoint(folder / "checkpoints" / "last.safetensors") for folder in (a, b)]
    for state in states:
        state["progress"]["rows"] = [without_times(row) for row in state["progress"]["rows"]]
    assert [name for name in states[0] if not same_tree(states[0][name], states[1][name])] == []


@contextmanager
def signal_at(total_steps: int, number: int = signal.SIGINT) -> Iterator[None]:
    """A signal arrives in the middle of the step that ends with this many steps done."""
    step = Loop._step

    def interrupted(self: Loop, batch: Tensor) -> None:
        if self.progress.total_steps == total_steps - 1:
            signal.raise_signal(number)
        step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_step", interrupted)
        yield


def disturb_generators() -> None:
    """What another program would have done between two sessions."""
    torch.manual_seed(987654321)
    torch.rand(17)


def made_up_scores(accuracy: float | None, **others: float) -> Scores:
    """Of one sample, nothing but what is given."""
    fields = {"accuracy": accuracy, "balanced_accuracy": None, "macro_f1": None, "macro_auc": None} | others
    estimates = {name: Estimate(value=value) for name, value in fields.items()}
    return Scores(samples=1, nll=None, brier=None, calibration_error=None, **estimates)


def made_up_results(recipe: Recipe, **readouts: Readout) -> Results:
    """As a run would give them, of two classes and one sample a part; judged by the read-outs, the first one first."""
    return Results(
        kind=recipe.data.kind,
        data=recipe.data.title,
        network=recipe.network.name,
        objective=recipe.objective.name,
        seed=recipe.training.seed,
        epochs=1,
        best_epoch=1,
        selection="last",
        class_names=["a", "b"],
        num_train=1,
        num_validation=1,
        num_test=1,
        primary_readouts=list(readouts),
        readouts=dict(reversed(readouts.items())),  # their order says nothing
        information=InformationRecord(
            cmi=None, separation=None, ncmi=None, cross_entropy_separation=None, cross_entropy_ncmi=None
        ),
        epoch_seconds=0.0,
        total_seconds=0.0,
        peak_memory_mb=0.0,
        parameters=1,
    )

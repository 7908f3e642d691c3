"""Every objective learns a problem that can be learned, and does not learn one that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import make_recipe, metrics

from ncmi.data import Dataset, load_dataset
from ncmi.options import Alternation, NCMIOptions, objective_names, objective_options
from ncmi.recipes import Backbone
from ncmi.training import train

OPTIONS = {name: (objective_options(name)(), Alternation()) for name in objective_names()} | {
    "ncmi-phases": (NCMIOptions(), Alternation("phases")),
    "ncmi-class-means": (NCMIOptions(anchor_scale=10.0), Alternation("class_means")),
    "ncmi-robust": (NCMIOptions.robust(), Alternation()),
    "ncmi-fixed": (NCMIOptions(centroids="fixed"), Alternation()),
    "ncmi-class-mean": (NCMIOptions(centroids="class_mean", centre="ema"), Alternation()),
    "ncmi-paper": (
        NCMIOptions(
            centroids="fixed",
            anchor_scale=10.0,
            separation_power=1.0,
            reduction="mean_of_ratios",
            separation_direction="centroid_to_sample",
        ),
        Alternation(),
    ),
}


def rings(samples: int = 240) -> Dataset:
    """Three classes on three rings: no straight line parts them."""
    labels = torch.arange(samples) % 3
    angle = torch.linspace(0, 40, samples)
    radius = labels + 0.2 + 0.1 * torch.randn(samples)
    inputs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Dataset("rings", inputs, labels, ("inner", "middle", "outer"), "table")


@pytest.mark.parametrize("name", OPTIONS)
def test_learns_rings(name: str, tmp_path: Path) -> None:
    options, alternation = OPTIONS[name]
    recipe = make_recipe(
        options,
        data="rings",
        backbone=Backbone("mlp", width=64, depth=2, feature_dim=16),
        epochs=25,
        learning_rate=1e-2,
        alternation=alternation,
    )
    found = train(recipe, tmp_path / "run", dataset=rings())
    for readout in found["primary_readouts"]:
        assert found["readouts"][readout]["test_accuracy"] > 0.93, found["readouts"]
    rows = metrics(tmp_path / "run")
    # SupCon's loss cannot fall below the logarithm of the number of positives, here about 3
    assert rows[-1]["train_loss"] < (0.9 if name == "supcon" else 0.7) * rows[0]["train_loss"]
    # classes come closer together, and further from each other
    assert rows[-1]["validation_ncmi"] < rows[0]["validation_ncmi"]


def test_random_labels_are_not_learned(tmp_path: Path) -> None:
    data = rings()
    shuffled = Dataset("noise", data.inputs, data.labels[torch.randperm(len(data))], data.class_names, "table")
    found = train(make_recipe(data="noise", epochs=5), tmp_path / "run", dataset=shuffled)
    assert all(scores["test_accuracy"] < 0.6 for scores in found["readouts"].values())


def test_learns_images(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    some = slice(0, 400)
    data = Dataset("digits-400", digits.inputs[some], digits.labels[some], digits.class_names, "image")
    recipe = make_recipe(backbone=Backbone("convnet", width=8, depth=2, feature_dim=16), epochs=6, learning_rate=1e-2)
    found = train(recipe, tmp_path / "run", dataset=data)
    assert found["readouts"]["cc"]["test_accuracy"] > 0.75
    assert found["readouts"]["cc"]["test_top5_accuracy"] > 0.95

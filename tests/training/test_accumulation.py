"""Gradient accumulation: 4×16 equals 1×64 where a loss does not couple samples, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_helpers import make_recipe, weights

from ncmi.options import (
    CMICOptions,
    CrossEntropyOptions,
    NCMIOptions,
    ObjectiveOptions,
    objective_names,
    objective_options,
)
from ncmi.training import train

NCMI = {
    "ncmi-class-mean-ema-centre": NCMIOptions(centroids="class_mean", centre="ema", centre_decay=0.5),
    "ncmi-paper": NCMIOptions(anchor_scale=10.0, separation_power=1.0, reduction="mean_of_ratios"),
    "ncmi-ratio-of-means": NCMIOptions(anchor_scale=10.0, separation_power=1.0, reduction="ratio_of_means"),
    "ncmi-robust": NCMIOptions.robust(),
    "ncmi-balanced": NCMIOptions(class_weights="balanced"),
}
LONG_TAILS = {
    "cross-entropy-balanced": CrossEntropyOptions(class_weights="balanced"),
    "cross-entropy-adjusted": CrossEntropyOptions(logit_adjustment=1.0),
}
OPTIONS = {name: objective_options(name)() for name in objective_names()} | NCMI | LONG_TAILS
OPTIONS["cmic"] = CMICOptions(separation_weight=0.1)  # by default it couples samples too weakly to be seen here


def parameters(options: ObjectiveOptions, accumulate: int, folder: Path) -> torch.Tensor:
    """All that was trained or gathered in an epoch, as one vector."""
    recipe = make_recipe(
        options, batch_size=64, accumulate=accumulate, epochs=1, precision="64-true", optimiser="sgd", learning_rate=0.1
    )
    train(recipe, folder)
    found = {
        name: tensor
        for name, tensor in weights(folder).items()
        if name.startswith(("/model/backbone", "/model/objective")) and tensor.is_floating_point()
    }
    return torch.cat([tensor.flatten().double() for tensor in found.values()])


@pytest.mark.parametrize("name", OPTIONS)
def test_accumulation_equals_one_batch_unless_samples_are_coupled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each micro-batch is varied by itself: without variation, two-view objectives see the same in both runs
    monkeypatch.setattr("ncmi.training.views.ViewMaker._vary", lambda self, standard, generator: standard)
    options = OPTIONS[name]
    whole, parts = (parameters(options, accumulate, tmp_path / str(accumulate)) for accumulate in (1, 4))
    difference = float((whole - parts).abs().max())
    if options.build(3, 8).couples_samples:
        assert difference > 1e-6
    else:
        assert difference < 1e-12


def test_which_losses_couple_samples() -> None:
    coupled = {name for name, options in OPTIONS.items() if options.build(3, 8).couples_samples}
    assert coupled == {"opl", "supcon", "cmic", "ncmi-ratio-of-means", "ncmi-balanced", "cross-entropy-balanced"}


def test_more_micro_batches_than_samples(tmp_path: Path) -> None:
    # the last batch has 1 sample: 115 = 3·38 + 1
    row = train(make_recipe(batch_size=38, accumulate=50, epochs=1), tmp_path / "run")
    assert row["epochs"] == 1

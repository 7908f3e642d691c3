"""Full-size CIFAR-100: the grid grows while its best is at an edge, runs are made once, and by the recipe asked for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ncmi.objectives.options import CrossEntropyOptions
from ncmi.recipes import cifar100
from ncmi.training.comparison import Plan
from ncmi.training.run import train


def job_of(module: Any, out: Path) -> Any:
    return module.Job(out, ("cross_entropy",), (0,), rehearsal=True)


@pytest.mark.parametrize(
    ("accuracies", "tried", "chosen"),
    [
        ({-4: 0.2, -2: 0.5, -1: 0.5, 0: 0.6, 1: 0.4, 2: 0.3}, [-4, -2, -1, 0, 1, 2], 0),
        # a second peak below the usual rate
        ({-5: 0.7, -4: 0.8, -3: 0.7, -2: 0.5, 0: 0.6, 2: 0.3}, [-5, -4, -3, -2, 0, 2], -4),
        ({-4: 0.1, -2: 0.2, 0: 0.3, 1: 0.4, 2: 0.5, 3: -math.inf}, [-4, -2, 0, 1, 2, 3], 2),
        # rises to the end of the grid
        ({step: 0.1 * (20 + step) for step in range(-10, 5)}, [-4, -2, 0, 1, 2, 3, 4], 4),
        # of equals the recipe's own rate, else the lowest
        (dict.fromkeys(range(-10, 5), 0.5), [-4, -2, -1, 0, 1, 2], 0),
        ({-4: 0.2, -3: 0.6, -2: 0.6, -1: 0.3, 0: 0.5, 2: 0.3}, [-4, -3, -2, -1, 0, 2], -3),
    ],
)
def test_the_neighbors_of_the_best_rate_are_tried(
    bench: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    accuracies: dict[int, float],
    tried: list[int],
    chosen: int,
) -> None:
    module = bench("cifar_full")
    base, known = cifar100.cpu_fast(CrossEntropyOptions()).training.learning_rate, dict[float, float]()
    monkeypatch.setattr(module.Job, "accuracy", lambda self, method, rate, part: known.get(rate))
    job = module.Job(tmp_path, ("cross_entropy",), (0,))
    assert job.rate("cross_entropy") is None
    while rates := job.open_rates("cross_entropy"):
        known |= {rate: accuracies[round(math.log2(rate / base))] for rate in rates}
    assert sorted(known) == [base * 2.0**step for step in tried]
    assert job.rate("cross_entropy") == base * 2.0**chosen


@pytest.mark.parametrize(
    ("accuracies", "tried"),
    [
        ({-1: 0.5, 0: 0.6, 1: 0.4}, [-1, 0, 1]),
        # the larger network wants a higher rate than the chosen one
        ({-1: 0.4, 0: 0.5, 1: 0.6, 2: 0.7, 3: 0.3}, [-1, 0, 1, 2, 3]),
    ],
)
def test_the_larger_network_is_tried_about_the_chosen_rate(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accuracies: dict[int, float], tried: list[int]
) -> None:
    module = bench("cifar_full")
    base = cifar100.cpu(CrossEntropyOptions()).training.learning_rate
    of_part = {"tune": {base * 2.0**step: 0.5 - abs(step - 1) / 10 for step in range(-4, 3)}, "check": {}}
    monkeypatch.setattr(module.Job, "accuracy", lambda self, method, rate, part: of_part[part].get(rate))
    job = module.Job(tmp_path, ("cross_entropy",), (0,))
    chosen = job.rate("cross_entropy")
    assert chosen == base * 2
    while rates := job.open_rates("cross_entropy", "check"):
        of_part["check"] |= {rate: accuracies[round(math.log2(rate / chosen))] for rate in rates}
    assert sorted(of_part["check"]) == [chosen * 2.0**step for step in tried]
    assert job.rate("cross_entropy") == chosen  # it chooses nothing
    recipe = job.tuning_recipe("cross_entropy", chosen, "check")
    assert (recipe.network, recipe.training.epochs) == (cifar100.cpu().network, 6)


def test_parts_make_what_is_missing_and_nothing_else(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = bench("cifar_full")
    made: list[str] = []

    def here(plans: Sequence[tuple[Plan, Path]], **options: Any) -> None:
        """As compare_many, in this process."""
        for plan, folder in plans:
            for name, recipe in plan.runs():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                train(recipe, path.resolve())
                made.append(path.name)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["cifar_full.py", *words, "--rehearse", "--out", str(tmp_path)])
        code: int = module.main()
        return code

    monkeypatch.setattr(module, "compare_many", here)
    monkeypatch.setattr(
        module.Job, "open_rates", lambda self, method, part="tune": [] if self.grid(method, part) else [0.2]
    )
    monkeypatch.setattr(module, "TUNING_SEED", 5)
    only = ("--losses", "cross_entropy", "--seeds", "0")
    with pytest.raises(SystemExit, match="tune first"):
        call("full", *only)
    assert call(*only) == 0
    name = "cross_entropy-rate0.2"
    assert made == [f"{name}-seed{seed}" for seed in (5, 5, 0, 0, 5)]
    content = json.loads((tmp_path / "cifar_full.json").read_text(encoding="utf-8"))
    assert {"cpu", "commit"} <= set(content["machine"])
    assert [list(content[part]["cross_entropy"]) for part in ("grids", "checked")] == [["0.2"], ["0.2"]]
    assert content["rates"] == {"cross_entropy": 0.2}
    text = (tmp_path / "cifar_full.md").read_text(encoding="utf-8")
    assert text.count("\n| Cross-entropy | 1 |") == 2
    assert "\n| 4 |" in text
    # the larger network takes the same rate; both are reported
    recipes = []
    for part in ("fast", "full"):
        run = content[f"{part}_runs"][made[2]]
        assert set(run["test_accuracy"]) == set(module.READOUTS)
        assert len(run["train_loss"]) == 4
        recipes.append(json.loads((tmp_path / part / made[2] / "recipe.json").read_text(encoding="utf-8")))
    assert content["fast_runs"] != content["full_runs"]
    for what, small, large in (("name", "resnet9_early", "resnet9"), ("test_flip", False, True)):
        assert [recipe["network"][what] for recipe in recipes] == [small, large]
    assert [recipe["training"]["learning_rate"] for recipe in recipes] == [0.2, 0.2]
    assert [recipe["training"]["augmentation"]["cutout"] for recipe in recipes] == [0, 0.25]
    assert call(*only) == 0
    assert len(made) == 5
    # a run by another recipe does not count as one of these
    monkeypatch.setitem(module.JUDGED, "full", lambda objective: longer(cifar100.cpu(objective)))
    with pytest.raises(SystemExit, match="made by another recipe"):
        call("full", *only)
    assert len(made) == 5


def longer(recipe: Any) -> Any:
    return replace(recipe, training=replace(recipe.training, weight_decay=0.1))


def test_differences_are_paired_by_seed_and_read_out(bench: Any) -> None:
    module = bench("cifar_full")

    def run(head: float, **others: float) -> dict[str, Any]:
        return {"test_accuracy": {"head": head, **others}}

    table = module.differences(
        {
            "ncmi-rate0.2-seed0": run(0.62, cc=0.5),
            "ncmi-rate0.2-seed1": run(0.64, cc=0.5),
            "ncmi-rate0.2-seed2": run(0.99, cc=0.5),  # has no pair
            "cross_entropy-rate0.1-seed0": run(0.61),
            "cross_entropy-rate0.1-seed1": run(0.61),
        }
    )
    low, high = stats.t.interval(0.95, 1, loc=2.0, scale=1.0)
    assert f"| Cross-entropy | +2.00 (−{-low:.2f} … +{high:.2f}) | – |" in table


def test_all_runs_have_the_precision_that_is_asked_for(bench: Any, tmp_path: Path) -> None:
    module = bench("cifar_full")
    job = module.Job(tmp_path, ("ncmi",), (0,), precision="bf16-mixed")
    recipes = (job.recipe("ncmi", 0.2), job.tuning_recipe("ncmi", 0.2), job.curve_recipe("ncmi", 0.2))
    assert {recipe.training.precision for recipe in recipes} == {"bf16-mixed"}
    assert module.Job(tmp_path, ("ncmi",), (0,)).recipe("ncmi").training.precision == "32-true"


def test_the_reported_recipes_differ_where_documents_say_so(bench: Any) -> None:
    module = bench("cifar_full")
    small, large = (make(CrossEntropyOptions()) for make in module.JUDGED.values())
    assert (small.network.name, small.network.width, small.training.epochs) == ("resnet9_early", 32, 16)
    assert (large.network.name, large.network.width, large.training.epochs) == ("resnet9", 48, 24)
    # of 32 pixels
    assert large.training.augmentation == replace(small.training.augmentation, cutout=8 / 32)
    same = replace(large.training, epochs=16, augmentation=small.training.augmentation)
    assert replace(large, network=small.network, training=same) == small

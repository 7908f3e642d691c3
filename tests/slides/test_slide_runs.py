"""Runs of slide classifiers: what they learn, what they leave behind, that they can be stopped and gone on with."""

from __future__ import annotations

import itertools
import json
import signal
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from slide_helpers import CLASSES, WIDTH, read, rows, slide_recipe, without_times, write_cohort

from ncmi.data.bags.readers import open_bags
from ncmi.errors import Interrupted
from ncmi.networks.bags import ABMIL
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions, SupConOptions
from ncmi.recipes import Augmentation, recipe_from_dict, recipe_to_dict
from ncmi.training.bags import BagLoop
from ncmi.training.loop import Loop
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder, RunFolderError

NETWORKS = ("abmil", "transmil", "aem", "asmil", "mean", "max")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(a: Path, b: Path) -> None:
    one, other = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert metrics(a) == metrics(b)
    assert without_times(read(a, "results.json")) == without_times(read(b, "results.json"))
    assert (a / "slides.csv").read_text() == (b / "slides.csv").read_text()


@pytest.mark.parametrize("objective", [CrossEntropyOptions(), NCMIOptions()], ids=lambda one: one.name)
def test_learns_which_instance_counts(tmp_path: Path, objective: ObjectiveOptions) -> None:
    table = write_cohort(tmp_path / "cohort", slides=90, patients=30)
    recipe = slide_recipe(table, objective=objective, epochs=6, selection="last")
    results = train(recipe, tmp_path / "run")
    for readout in ("head", "cc", "lp"):
        assert results.readouts[readout].test.macro_f1.value > 0.9
    # attention finds the planted instances better than chance does on every kept slide that has some
    above = []
    for kept in (tmp_path / "run" / "attention").glob("*.npz"):
        with h5py.File(table.parent / "features" / f"{kept.stem}.h5") as file:
            planted = file["planted"][:]
        attention = np.load(kept)["attention"]
        assert attention.shape == planted.shape
        np.testing.assert_allclose(attention.sum(), 1, rtol=1e-5)
        if planted.any():
            above.append(attention[planted].mean() > attention[~planted].mean())
    assert above
    assert all(above)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("objective", [CrossEntropyOptions(), NCMIOptions()], ids=lambda one: one.name)
def test_all_networks_train(tmp_path: Path, table: Path, network: str, objective: ObjectiveOptions) -> None:
    results = train(slide_recipe(table, network, objective, batch_size=4), tmp_path / "run")
    rows_of = metrics(tmp_path / "run")
    assert all(np.isfinite(row["train_loss"]) and np.isfinite(row["train_penalty"]) for row in rows_of)
    # the auxiliary terms are those networks' own
    assert (rows_of[0]["train_penalty"] != 0) == (network in ("aem", "asmil"))
    assert results.network == network
    assert results.primary_readouts == (["head"] if objective.name == "cross_entropy" else ["head", "cc", "lp"])


def test_what_a_run_leaves_behind(tmp_path: Path, table: Path) -> None:
    results = train(slide_recipe(table), tmp_path / "run")
    folder = tmp_path / "run"
    assert RunFolder(folder).results() == results
    assert RunFolder(folder).recipe().network.width == 16
    table_rows = rows(folder / "slides.csv")
    assert len(table_rows) == 36
    parts = {part: [row for row in table_rows if row["part"] == part] for part in ("train", "validation", "test")}
    for part, slides in parts.items():
        assert len(slides) == getattr(results, f"num_{part}")
    for one, other in itertools.combinations(parts, 2):
        assert not {row["patient"] for row in parts[one]} & {row["patient"] for row in parts[other]}
    for row in table_rows:
        for readout in ("head", "cc", "lp"):
            p = np.array([float(row[f"{readout}:{name}"]) for name in CLASSES])
            np.testing.assert_allclose(p.sum(), 1, atol=1e-6)
    # the metrics are those of the table
    right = [row["label"] == max(CLASSES, key=lambda name: float(row[f"head:{name}"])) for row in parts["test"]]
    assert results.readouts["head"].test.accuracy.value == pytest.approx(np.mean(right))
    assert results.readouts["head"].test.groups == len({row["patient"] for row in parts["test"]})


def test_the_table_is_what_the_saved_model_says(tmp_path: Path, table: Path) -> None:
    train(slide_recipe(table, "asmil"), tmp_path / "run")
    model = load_model(tmp_path / "run")
    source = open_bags(table.parent / "features")
    with torch.no_grad():
        for row in rows(tmp_path / "run" / "slides.csv")[::5]:
            vector = model(source.load(row["slide"]).features).vector[None]
            for readout in ("head", "cc", "lp"):
                p = model.log_proba(vector, readout).exp()[0]
                expected = [float(row[f"{readout}:{name}"]) for name in CLASSES]
                torch.testing.assert_close(p, torch.tensor(expected), rtol=1e-4, atol=1e-6)
            distances = torch.tensor([float(row[f"distance:{name}"]) for name in CLASSES])
            torch.testing.assert_close(model.cc.divergences(vector)[0], distances, rtol=1e-3, atol=1e-7)


RESUMED: dict[str, Any] = {
    "abmil-one-at-a-time": lambda table: slide_recipe(table),
    "asmil-anchor": lambda table: slide_recipe(table, "asmil", batch_size=3, options={"dropout": 0.2}),
    "aem-annealed-averaged": lambda table: slide_recipe(table, "aem", batch_size=4, accumulate=2, ema_decay=0.9),
    "transmil-cross-entropy": lambda table: slide_recipe(table, "transmil", CrossEntropyOptions(), selection="last"),
    "balanced-few-instances": lambda table: slide_recipe(
        table, data={"train_instances": 5, "standardize": True}, sampling="balanced"
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_stopped_and_gone_on_with_is_the_same_run(
    tmp_path: Path, table: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first epoch, gone on with, stopped once more in the second."""
    recipe = RESUMED[case](table)
    train(recipe, tmp_path / "whole")
    steps = read(tmp_path / "whole", "results.json")["num_train"] * 2 // recipe.training.batch_size
    step = Loop._step
    for stop in (3, min(20, steps - 1)):

        def interrupted(self: BagLoop, batch: Any, stop: int = stop) -> None:
            if self.progress.total_steps == stop - 1:
                signal.raise_signal(signal.SIGINT)
            step(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Loop, "_step", interrupted)
            with pytest.raises(Interrupted):
                train(recipe, tmp_path / "stopped", resume=stop != 3)
        assert not RunFolder(tmp_path / "stopped").finished
        torch.manual_seed(987)
    train(RunFolder(tmp_path / "stopped").recipe(), tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_same_recipe_same_run_and_streamed_or_kept_in_memory(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table)
    train(recipe, tmp_path / "a")
    train(replace(recipe, data=replace(recipe.data, cache_gigabytes=0.0)), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_batches_are_sums_of_their_bags(tmp_path: Path, table: Path) -> None:
    """One step on a padded batch moves the weights as the same step worked through bag by bag."""
    moved = []
    for accumulate in (1, 6):
        recipe = slide_recipe(
            table, objective=CrossEntropyOptions(), batch_size=6, accumulate=accumulate, precision="64-true", epochs=1
        )
        train(recipe, tmp_path / str(accumulate))
        moved.append(load_file(tmp_path / str(accumulate) / "model.safetensors"))
    for name, value in moved[0].items():
        if "network" in name or "head" in name:
            torch.testing.assert_close(value, moved[1][name], rtol=1e-6, atol=1e-9)


def test_balanced_sampling_draws_classes_alike(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = Loop._step

    def recorded(self: BagLoop, batch: Any) -> None:
        seen.extend(self.labels[batch].tolist())
        step(self, batch)

    monkeypatch.setattr(Loop, "_step", recorded)
    # make the cohort lopsided: classes "one" and "other" lose most of their slides
    lopsided = tmp_path / "labels.csv"
    lines = table.read_text().splitlines()
    kept = [line for number, line in enumerate(lines[1:]) if line.endswith("none") or number % 12 in (1, 2)]
    lopsided.write_text("\n".join([lines[0], *kept]) + "\n")
    data = {"holdout_column": "center", "holdout": ("2",), "labels": str(lopsided), "validation_fraction": 0.2}
    recipe = slide_recipe(table, data=data, batch_size=4, sampling="balanced")
    train(recipe, tmp_path / "run")
    counts = np.bincount(seen, minlength=3)
    assert counts.max() - counts.min() <= 4
    trained = [row["label"] for row in rows(tmp_path / "run" / "slides.csv") if row["part"] == "train"]
    assert trained.count("none") > 2 * trained.count("one")


def test_standardized_features_have_the_training_part_s_units(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    counts = random.integers(1, 9, size=30)
    x = random.normal(size=(int(counts.sum()), 4)) * [1, 1e-3, 50, 0] + [0, 1000, -3, 7]
    np.savez(
        tmp_path / "bags.npz",
        x=x.astype(np.float32),
        bag=np.repeat(np.arange(30), counts),
        bag_label=np.arange(30) % 2,
    )
    data = {"name": str(tmp_path / "bags.npz"), "labels": None, "standardize": True}
    train(slide_recipe(tmp_path / "bags.npz", data=data), tmp_path / "run")
    model = load_model(tmp_path / "run")
    trained = {int(row["slide"]) for row in rows(tmp_path / "run" / "slides.csv") if row["part"] == "train"}
    own = x.astype(np.float32).astype(np.float64)[np.isin(np.repeat(np.arange(30), counts), list(trained))]
    np.testing.assert_allclose(model.standardize.mean.numpy(), own.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.standardize.scale.numpy()[:3], own.std(0)[:3], rtol=1e-4)
    assert model.standardize.scale[3] == 1


def test_selection_is_by_validation(tmp_path: Path, table: Path) -> None:
    results = train(slide_recipe(table, epochs=5, selection="best"), tmp_path / "run")
    judged = [(row["validation_macro_auc"], -row["validation_loss"]) for row in metrics(tmp_path / "run")]
    assert results.best_epoch == 1 + judged.index(max(judged))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, data=replace(r.data, validation_fraction=0.0)), "nothing to select by"),
        (lambda r: replace(r, objective=SupConOptions()), "several views"),
        (
            lambda r: replace(r, training=replace(r.training, augmentation=Augmentation(enabled=True))),
            "neither augmentation",
        ),
        (lambda r: replace(r, network=replace(r.network, heads=5, name="aem")), "heads"),
        (lambda r: replace(r, data=replace(r.data, name="nowhere")), "nowhere"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(tmp_path: Path, table: Path, change: Any, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        train(change(slide_recipe(table)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_of_one_recipe(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table)
    train(recipe, tmp_path / "run")
    with pytest.raises(RunFolderError, match="choose another folder"):
        train(recipe, tmp_path / "run")
    other = replace(recipe, training=replace(recipe.training, seed=5))
    with pytest.raises(RunFolderError, match="another recipe"):
        train(other, tmp_path / "run", resume=True)


def test_recipes_survive_json_and_misspelt_ones_do_not(table: Path) -> None:
    recipe = slide_recipe(table, "asmil", data={"classes": CLASSES}, sampling="balanced")
    content = json.loads(json.dumps(recipe_to_dict(recipe)))
    assert recipe_from_dict(content) == recipe
    for section, change, message in (
        ("network", {"wdith": 3}, "unknown field wdith"),
        ("network", {"name": "abmill"}, "network"),
        ("training", {"sampling": "some"}, "sampling"),
        ("data", {"kind": "sounds"}, "sounds"),
        ("data", {"kind": "image"}, "'data'"),
        ("data", {"folds": 1}, "folds"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe_from_dict({**content, section: {**content[section], **change}})


def test_a_diverging_run_says_so(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Loop._step

    def broken(self: BagLoop, batch: Any) -> None:
        original(self, batch)
        with torch.no_grad():
            next(self.model.network.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Loop, "_step", broken)
    with pytest.raises((FloatingPointError, ValueError), match=r"learning rate|finite"):
        train(slide_recipe(table), tmp_path / "run")


def test_width_of_features_follows(tmp_path: Path, table: Path) -> None:
    train(slide_recipe(table, options={"width": 0}), tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.signature.sample_shape == (WIDTH,)
    assert model.network.feature_dim == 128


def test_no_tensor_outlives_its_bag(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What outlives a bag keeps the next ones from its place in memory: ten thousand slides would fill any machine."""
    vectors: list[weakref.ref[torch.Tensor]] = []
    most = []
    forward = ABMIL.forward

    def watched(self: ABMIL, *args: Any) -> Any:
        output = forward(self, *args)
        vectors.append(weakref.ref(output.vector))
        most.append(sum(one() is not None for one in vectors))
        return output

    monkeypatch.setattr(ABMIL, "forward", watched)
    train(slide_recipe(table), tmp_path / "run")
    assert len(vectors) > 50
    assert max(most) <= 2

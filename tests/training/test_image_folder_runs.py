"""A run on a folder of images is the same run, whether its images lie in memory or are decoded ahead of their use."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batch_normalized_driver import FOLDER_CASES, folder_recipe, write_image_folder, write_images
from training_helpers import assert_same_run, disturb_generators, leaves, signal_at

from ncmi.data.image_files import ImageFiles
from ncmi.errors import Interrupted
from ncmi.objectives.options import SupConOptions
from ncmi.recipes import ImageData
from ncmi.training.evaluation import evaluate_run
from ncmi.training.run import train
from ncmi.training.sources import open_source


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    write_images(root / "images.npz")
    write_image_folder(root / "images.npz", root / "images")
    return root / "images"


@pytest.mark.parametrize("views", [1, 2])
def test_bit_for_bit(images: Path, tmp_path: Path, views: int) -> None:
    for case, gigabytes in FOLDER_CASES.items():
        recipe = folder_recipe(images, gigabytes, epochs=2, ema_decay=0.9)
        assert isinstance(recipe.data, ImageData)
        recipe = replace(recipe, data=replace(recipe.data, label_noise=0.2, imbalance=2.0))
        if views == 2:
            recipe = replace(recipe, objective=SupConOptions(projection_dim=8))
        source = open_source(recipe)
        assert isinstance(source.dataset.inputs, ImageFiles) == (gigabytes == 0)
        train(recipe, tmp_path / case)
    assert_same_run(*(tmp_path / case for case in FOLDER_CASES))


def test_stopped_resumed_and_evaluated(images: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recipe = folder_recipe(images, 0.0, epochs=2)
    results = train(recipe, whole)
    with signal_at(3), pytest.raises(Interrupted):
        train(recipe, cut)
    disturb_generators()
    train(recipe, cut, resume=True)
    assert_same_run(whole, cut)
    again = evaluate_run(whole)
    assert leaves(again.readouts) == pytest.approx(leaves(results.readouts), abs=1e-6)
    assert torch.isfinite(torch.tensor(results.information.ncmi))


def test_what_was_left_out_stands_in_the_results(images: Path, tmp_path: Path) -> None:
    broken = images / "1" / "broken.png"
    broken.write_text("x")
    try:
        recipe = folder_recipe(images, 0.0, epochs=1)
        with pytest.raises(ValueError, match=r"1/broken\.png: not an image"):
            train(recipe, tmp_path / "error")
        assert not (tmp_path / "error").exists()
        results = train(replace(recipe, data=replace(recipe.data, bad="skip")), tmp_path / "run")
    finally:
        broken.unlink()
    assert [(item.name, item.reason) for item in results.skipped] == [("1/broken.png", "not an image")]
    assert results.num_train + results.num_validation + results.num_test == 72


def test_judged_on_images_that_lack_classes(images: Path, tmp_path: Path) -> None:
    train(folder_recipe(images, 0.0, epochs=1), tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(images / "1", other / "test" / "1")
    (other / "test" / "1" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt.*\(--bad skip\)"):
        evaluate_run(tmp_path / "run", str(other))
    one = evaluate_run(tmp_path / "run", str(other), bad="skip")
    assert [each.support > 0 for each in one.readouts["head"].test.classes] == [name == "1" for name in one.class_names]
    assert any("notes.txt" in note for note in one.notes)
    shutil.copytree(images / "1", other / "test" / "stranger")
    with pytest.raises(ValueError, match=r"run does not know \('stranger'\)"):
        evaluate_run(tmp_path / "run", str(other))
    again = evaluate_run(tmp_path / "run", str(other), bad="skip")
    assert again.readouts["head"].test.accuracy == one.readouts["head"].test.accuracy
    shutil.move(images, tmp_path / "elsewhere")
    try:
        with pytest.raises(ValueError, match=f"gone: '{images}'"):
            evaluate_run(tmp_path / "run")
    finally:
        shutil.move(tmp_path / "elsewhere", images)

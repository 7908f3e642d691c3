"""What a run leaves of its mistakes: the table, the pictures, and that no name in it is a formula."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ncmi.recipes import ImageData, Network, Recipe, Training
from ncmi.training.mistakes import MOST_PICTURES, find_mistakes, write_mistakes
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import MISTAKES, Results


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Results, list[str]]:
    """A run on digits that is stopped long before it is good, and the stages that it went through."""
    stages: list[str] = []
    folder = tmp_path_factory.mktemp("mistakes") / "run"
    training = Training(epochs=1, learning_rate=2e-4, threads=1, accelerator="cpu", neighbors_limit=100)
    results = train(Recipe(ImageData("digits"), Network("mlp"), training=training), folder, on_stage=stages.append)
    return RunFolder(folder), results, stages


def test_the_table_holds_exactly_the_mistakes_the_surest_first(run: tuple[RunFolder, Results, list[str]]) -> None:
    folder, results, _ = run
    rows, outputs = read(folder.path / MISTAKES), folder.outputs()
    decided = outputs.predictions[results.primary_readouts[0]]
    names = np.array(outputs.names)
    assert len(names) == len(set(names)) == results.num_test
    assert {row["sample"] for row in rows} == set(names[decided != outputs.labels])
    by_name = dict(zip(names, zip(outputs.labels, decided, strict=True), strict=True))
    shares = [float(row["probability"]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    for row in rows:
        label, prediction = by_name[row["sample"]]
        assert (row["label"], row["prediction"]) == (results.class_names[label], results.class_names[prediction])
        classes = [float(row[f"p({name})"]) for name in results.class_names]
        assert max(classes) == float(row["probability"]) == classes[prediction]
        assert classes[label] == float(row["probability_of_label"])
        assert sum(classes) == pytest.approx(1, abs=1e-4)


def test_the_first_images_are_kept_as_pictures(run: tuple[RunFolder, Results, list[str]]) -> None:
    from ncmi.data.load import load_dataset

    folder, _, _ = run
    rows = read(folder.path / MISTAKES)[:MOST_PICTURES]
    pictures = sorted((folder.path / "misclassified").iterdir(), key=lambda path: int(path.stem))
    assert len(pictures) == len(rows) == MOST_PICTURES
    image = load_dataset("digits").inputs[int(rows[3]["sample"]), 0].numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(pictures[3]).convert("L")), image)


def test_results_say_what_was_fitted_and_how_large_classes_are(run: tuple[RunFolder, Results, list[str]]) -> None:
    _, results, stages = run
    neighbors, probe = results.readouts["knn"].fit, results.readouts["lp"].fit
    assert neighbors is not None
    assert probe is not None
    assert 100 <= neighbors.samples <= 110
    assert neighbors.available == probe.samples == results.num_train
    assert probe.converged
    assert {part: sum(counts) for part, counts in results.class_counts.items()} == {
        "train": results.num_train,
        "validation": results.num_validation,
        "test": results.num_test,
    }
    assert results.class_counts["test"] == [scores.support for scores in results.readouts["head"].test.classes]
    # what may take long is said before it is done
    words = " ".join(stages)
    assert "linear probe" in words
    assert f"{results.num_train:,}" in words
    assert f"among {neighbors.samples}" in words


def test_neighbors_can_be_left_out(tmp_path: Path) -> None:
    from ncmi.recipes import TableData

    training = Training(epochs=1, threads=1, accelerator="cpu", neighbors_limit=0)
    results = train(Recipe(TableData("iris"), training=training), tmp_path / "run")
    assert set(results.readouts) == {"head", "cc", "lp"}


def test_a_thousand_mistakes_are_enough_and_hostile_names_are_inert(tmp_path: Path) -> None:
    log_p = torch.log_softmax(torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)), 1)
    labels = (log_p.argmax(1) + 1) % 3
    mistakes = find_mistakes(log_p, labels)
    assert (mistakes.total, len(mistakes.rows)) == (3000, 1000)
    names = [f"=cmd|{row}" for row in mistakes.rows.tolist()]
    write_mistakes(tmp_path, mistakes, names, ["+a", "-1", "@c"])
    rows = read(tmp_path / MISTAKES)
    assert len(rows) == 1000
    assert all(row["sample"].startswith("'=") for row in rows)
    assert {row["label"] for row in rows} == {"'+a", "-1", "'@c"}
    assert list(rows[0])[-3:] == ["p(+a)", "p(-1)", "p(@c)"]


def test_a_perfect_run_has_an_empty_table(tmp_path: Path) -> None:
    log_p = torch.eye(3).mul(5).log_softmax(1)
    write_mistakes(tmp_path, find_mistakes(log_p, torch.arange(3)), [], ["a", "b", "c"])
    assert read(tmp_path / MISTAKES) == []

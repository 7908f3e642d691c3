"""Calibrated predictions, and out-of-distribution data: evaluate, predict and report as a user runs them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from abuse_helpers import QUICK
from cli_helpers import edit, ncmi, read, rows
from safetensors.numpy import load_file

from ncmi.data.load import load_dataset
from ncmi.recipes.names import READOUTS
from ncmi.training import evaluation
from ncmi.training.model import load_model


@pytest.fixture
def run(run_on_iris: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_on_iris, tmp_path / "run"))


def write_table(path: Path, values: Any) -> None:
    data = load_dataset("iris")
    assert data.feature_names is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(data.feature_names)
        writer.writerows(np.asarray(values).tolist())


# --- calibration


def test_a_run_holds_its_calibration(run_on_iris: Path) -> None:
    results = read(run_on_iris / "results.json")
    assert set(results["readouts"]) == set(READOUTS)
    for content in results["readouts"].values():
        test, calibration = content["test"], content["calibration"]
        assert calibration["temperature"] > 0
        assert 0 <= test["brier"] <= 2
        assert all(value >= 0 for value in (test["nll"], content["validation"]["nll"], calibration["nll"]))
        for state, error in (("test", test), ("calibrated", calibration)):
            bins = content["reliability"][state]
            assert len(bins["counts"]) == 15
            assert sum(bins["counts"]) == results["num_test"]
            filled = [b for b in range(15) if bins["counts"][b]]
            by_hand = sum(bins["counts"][b] * abs(bins["confidence"][b] - bins["accuracy"][b]) for b in filled)
            assert by_hand / results["num_test"] == pytest.approx(error["calibration_error"], abs=1e-6)


@pytest.mark.parametrize("readout", ["auto", "cc", "lp"])
def test_calibrated_predictions_are_the_scaled_ones(run: Path, tmp_path: Path, readout: str) -> None:
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[::7])
    words = ("predict", run, "new.csv", "--readout", readout)
    ncmi(*words, "--out", "plain.csv", cwd=tmp_path)
    ncmi(*words, "--out", "calibrated.csv", "--calibrated", cwd=tmp_path)
    plain, calibrated = rows(tmp_path / "plain.csv"), rows(tmp_path / "calibrated.csv")
    results = read(run / "results.json")
    chosen = results["primary_readouts"][0] if readout == "auto" else readout
    tau = results["readouts"][chosen]["calibration"]["temperature"]
    assert list(plain[0])[:4] == ["id", "prediction", "probability", "distance"]
    for one, other in zip(plain, calibrated, strict=True):
        p = np.array([float(value) for name, value in one.items() if name.startswith("p(")])
        scaled = p ** (1 / tau) / (p ** (1 / tau)).sum()
        assert [float(value) for name, value in other.items() if name.startswith("p(")] == pytest.approx(
            scaled.tolist(), rel=1e-3, abs=1e-5
        )
        assert float(other["probability"]) == pytest.approx(scaled.max(), rel=1e-3)
        assert (other["prediction"], other["distance"]) == (one["prediction"], one["distance"])


def test_distance_is_to_the_nearest_centroid_by_any_readout(run: Path, tmp_path: Path) -> None:
    inputs = load_dataset("iris").inputs[::30]
    write_table(tmp_path / "new.csv", inputs)
    weights = load_file(run / "model.safetensors")
    # of a class's mean in float32 the sum is 1 to seven digits, which is not enough beside a distance of 1e-5
    centroids = weights["/model/cc.sums"] / weights["/model/cc.sums"].sum(1, keepdims=True)
    model = load_model(run)
    with torch.no_grad():
        p = model.cc.log_distribution(model(inputs).double()).exp().numpy()
    expected = (p[:, None] * np.log(p[:, None] / centroids[None])).sum(-1).min(1)
    for readout in ("auto", "head", "lp"):
        ncmi("predict", run, "new.csv", "--readout", readout, "--overwrite", cwd=tmp_path)
        found = [float(row["distance"]) for row in rows(tmp_path / "predictions.csv")]
        assert found == pytest.approx(expected.tolist(), rel=1e-3)


def test_evaluate_leaves_the_results_of_a_run_as_they_are(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ncmi("evaluate", run, cwd=tmp_path)
    ncmi("evaluate", run, "--on", "iris", cwd=tmp_path)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_a_validation_part_there_is_no_temperature(tmp_path: Path) -> None:
    ncmi("train", "iris", "--out", "run", "--data.train-on-all", *QUICK, cwd=tmp_path)
    for content in read(tmp_path / "run" / "results.json")["readouts"].values():
        assert content["calibration"] is None
        assert all(content["test"][name] is not None for name in ("nll", "brier", "calibration_error"))
        assert list(content["reliability"]) == ["test"]
    assert "τ" not in ncmi("evaluate", "run", cwd=tmp_path).stdout
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[:3])
    done = ncmi("predict", "run", "new.csv", "--calibrated", cwd=tmp_path, check=2)
    assert "without --calibrated" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()
    ncmi("report", "run", cwd=tmp_path)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No τ: this run has no validation part" in page
    assert "NCMI-CC, as trained" in page


@pytest.mark.parametrize("value", [True, "1", 0, -1.0, [1]])
def test_a_damaged_temperature_is_named(run: Path, tmp_path: Path, value: object) -> None:
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[:3])
    words = ("predict", run, "new.csv", "--calibrated", "--readout", "cc")
    results = run / "results.json"
    whole = results.read_bytes()
    edit(results, lambda content: content["readouts"]["cc"]["calibration"].update(temperature=value))
    done = ncmi(*words, cwd=tmp_path, check=2)
    assert all(word in done.stderr for word in (str(results), "temperature", "restore"))
    for change in (
        lambda content: content.update(readouts=value),
        lambda content: content.pop("readouts"),
        lambda content: content.update(format=1),
    ):
        results.write_bytes(whole)
        edit(results, change)
        done = ncmi(*words, cwd=tmp_path, check=2)
        assert str(results) in done.stderr
        assert "run it again" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()


# --- out-of-distribution data


def write_strangers(path: Path) -> Path:
    """Flowers of another world, in a table without labels."""
    write_table(path, np.random.default_rng(0).normal(20, 8, size=(40, 4)))
    return path


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    return write_strangers(tmp_path / "other world.csv")


@pytest.fixture(scope="module")
def judged(run_on_iris: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after an evaluation with out-of-distribution data. Read only: copy before changing."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(run_on_iris, folder / "run")
    ncmi("evaluate", "run", "--ood", write_strangers(folder / "other world.csv").name, cwd=folder)
    return folder / "run"


def test_out_of_distribution_data_is_told_apart_and_kept_for_the_report(
    run: Path, strangers: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "more.npz", x=np.random.default_rng(1).normal(size=(7, 4)))
    done = ncmi("evaluate", run, "--ood", strangers.name, "more.npz", "--json", "all.json", cwd=tmp_path)
    assert "other world.csv (40) told from the test part of iris (30)" in done.stdout
    assert "distance to the nearest centroid" in done.stdout
    primary = read(run / "results.json")["primary_readouts"][0]
    assert f"1 − highest probability ({READOUTS[primary]})" in done.stdout
    kept = {path.name: read(path) for path in run.glob("ood-*.json")}
    assert set(kept) == {"ood-other-world.csv.json", "ood-more.npz.json"}
    told = read(tmp_path / "all.json")["ood"]
    assert told == {"other world.csv": kept["ood-other-world.csv.json"], "more.npz": kept["ood-more.npz.json"]}
    first = told["other world.csv"]
    assert (first["data"], first["num_inside"], first["num_outside"]) == ("other world.csv", 30, 40)
    for detection in first["scores"].values():
        assert 0 <= detection["auroc"] <= 1
        assert 0 <= detection["fpr95"] <= 1
    assert f"{100 * first['scores']['distance']['auroc']:.2f} %" in done.stdout

    ncmi("report", run, cwd=tmp_path)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Out of distribution" in page
    assert "other world.csv" in page
    assert "AUROC %" in page
    assert f"{100 * first['scores']['distance']['fpr95']:.2f}" in page

    # once more replaces
    write_table(strangers, np.random.default_rng(2).normal(20, 8, size=(11, 4)))
    ncmi("evaluate", run, "--ood", strangers.name, cwd=tmp_path)
    assert read(run / "ood-other-world.csv.json")["num_outside"] == 11
    assert len(list(run.glob("ood-*.json"))) == 2


def test_out_of_distribution_data_beside_other_labeled_data(run: Path, strangers: Path, tmp_path: Path) -> None:
    ncmi("evaluate", run, "--json", "own.json", "--ood", strangers.name, cwd=tmp_path)
    ncmi("evaluate", run, "--json", "other.json", "--on", "iris", "--ood", strangers.name, cwd=tmp_path)
    own, other = read(tmp_path / "own.json"), read(tmp_path / "other.json")
    # told from the run's own test part in both
    assert other["ood"] == own["ood"]
    for readout, content in other["readouts"].items():
        assert content["validation"] is None
        # iris as a whole is other data, τ is the run's
        temperature = own["readouts"][readout]["calibration"]["temperature"]
        assert content["calibration"]["temperature"] == temperature
        assert sum(content["reliability"]["calibrated"]["counts"]) == 150


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ood", "iris"), "iris"),
        (("--ood", "wine"), "wine"),
        (("--ood", "digits"), "digits"),
        (("--ood", "nowhere"), "nowhere"),
        (("--ood", "bad.csv"), "bad.csv"),
        (("--ood", "huge.npz"), "huge.npz"),
        (("--on", "wine"), "wine"),
        (("--on", "iris", "--labels", "labels.csv"), "--labels"),
        (("--labels", "labels.csv"), "--labels"),
    ],
)
def test_data_that_does_not_fit_is_one_line(run: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "huge.npz", x=np.full((3, 4), np.inf))
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    done = ncmi("evaluate", run, *words, cwd=tmp_path, check=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before


def test_another_ones_folder_is_judged_all_the_same(
    run: Path, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evaluation, "write_record", refuse)
    done = ncmi("evaluate", run, "--ood", strangers.name, "--json", "all.json", cwd=tmp_path)
    assert "not kept in" in done.stdout
    assert "Permission denied" in done.stdout
    assert "distance" in read(tmp_path / "all.json")["ood"][strangers.name]["scores"]
    assert not list(run.glob("ood-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("scores"), "scores"),
        (lambda record: record["scores"].pop("distance"), "'distance'"),
        (lambda record: record["scores"]["distance"].update(auroc="high"), "auroc"),
        (lambda record: record["distances"]["inside"].pop(), "distances"),
        (lambda record: record["distances"].update(edges=[0.0, 1.0]), "distances"),
        (lambda record: record["distances"]["outside"].__setitem__(0, -1), "distances"),
        (lambda record: record.update(format=3), "format 3"),
    ],
)
def test_a_damaged_file_of_out_of_distribution_data_is_named(
    judged: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    edit(run / "ood-other-world.csv.json", change)
    done = ncmi("report", run, cwd=tmp_path, check=2)
    assert "ood-other-world.csv.json" in done.stderr
    assert message in done.stderr
    assert "remove this file" in done.stderr
    assert not (run / "report.html").exists()


# --- what is memorized


def test_train_and_compare_say_that_labels_were_memorized(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(80, 6)), rng.integers(2, size=80)  # nothing to be learned
    lines = [
        ",".join(f"{value:.4f}" for value in row) + f",{'ab'[label]}" for row, label in zip(values, labels, strict=True)
    ]
    (tmp_path / "chance.csv").write_text("\n".join(["u,v,w,x,y,z,label", *lines]), encoding="utf-8")
    quick = ("--training.epochs", "60")
    said = ncmi("train", "chance.csv", "--out", "run", *quick, cwd=tmp_path).stdout
    assert "memorizes its training part" in said
    assert "ncmi sweep" in said
    best = ncmi("train", "chance.csv", "--out", "best", "--training.selection", "best", *quick, cwd=tmp_path).stdout
    assert "memorizes" not in best
    said = ncmi("compare", "chance.csv", "--out", "all", "--seeds", "1", "--objectives", "ncmi", "cross_entropy",
                "--workers", "1", *quick, cwd=tmp_path).stdout  # fmt: skip
    assert "In 2 of 2 runs" in " ".join(said.split())

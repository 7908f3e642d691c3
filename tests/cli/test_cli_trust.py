"""Calibrated predictions, and foreign data: evaluate, predict and report as a user runs them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_helpers import ncmi
from safetensors.numpy import load_file

from ncmi.data import load_dataset
from ncmi.kept_evaluation import keep_calibration
from ncmi.training import RunFolder, load_model

QUICK = ("--training.epochs", "2", "--training.accelerator", "cpu", "--training.threads", "1")
ADDED = ("temperature_scale", "nll", "brier", "calibrated_nll", "calibrated_error")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on iris, and foreign flowers beside it. Read only: copy before changing."""
    folder = tmp_path_factory.mktemp("trust")
    ncmi("train", "iris", "--out", "run", *QUICK, cwd=folder)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = read(path)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def as_of_an_earlier_version(results: dict[str, Any]) -> None:
    del results["reliability"]
    for found in results["readouts"].values():
        for name in [name for name in found if name.endswith(ADDED)]:
            del found[name]


def write_table(path: Path, rows: Any) -> None:
    data = load_dataset("iris")
    assert data.feature_names is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(data.feature_names)
        writer.writerows(np.asarray(rows).tolist())


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- calibration


def test_a_run_holds_its_calibration(trained: Path) -> None:
    results = read(trained / "results.json")
    assert set(results["readouts"]) == set(results["reliability"]) == {"head", "cc", "lp", "knn"}
    for readout, found in results["readouts"].items():
        assert found["temperature_scale"] > 0
        assert 0 <= found["test_brier"] <= 2
        assert {"test_nll", "validation_nll", "test_calibrated_nll", "test_calibrated_error"} <= set(found)
        for state, error in (("test", "test_calibration_error"), ("calibrated", "test_calibrated_error")):
            bins = results["reliability"][readout][state]
            assert len(bins["counts"]) == 15
            assert sum(bins["counts"]) == results["num_test"]
            filled = [b for b in range(15) if bins["counts"][b]]
            by_hand = sum(bins["counts"][b] * abs(bins["confidence"][b] - bins["accuracy"][b]) for b in filled)
            assert by_hand / results["num_test"] == pytest.approx(found[error], abs=1e-6)


@pytest.mark.parametrize("readout", ["auto", "cc", "lp"])
def test_calibrated_predictions_are_the_scaled_ones(run: Path, tmp_path: Path, readout: str) -> None:
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[::7])
    words = ("predict", run, "new.csv", "--readout", readout)
    ncmi(*words, "--out", "plain.csv", cwd=tmp_path)
    ncmi(*words, "--out", "calibrated.csv", "--calibrated", cwd=tmp_path)
    plain, calibrated = predictions(tmp_path / "plain.csv"), predictions(tmp_path / "calibrated.csv")
    results = read(run / "results.json")
    chosen = results["primary_readouts"][0] if readout == "auto" else readout
    tau = results["readouts"][chosen]["temperature_scale"]
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
    centroids = weights["/model/cc.sums"] / weights["/model/cc.counts"][:, None]
    model = load_model(run)
    with torch.no_grad():
        p = model.cc.log_distribution(model(inputs).double()).exp().numpy()
    expected = (p[:, None] * np.log(p[:, None] / centroids[None])).sum(-1).min(1)
    for readout in ("auto", "head", "lp"):
        ncmi("predict", run, "new.csv", "--readout", readout, "--overwrite", cwd=tmp_path)
        found = [float(row["distance"]) for row in predictions(tmp_path / "predictions.csv")]
        assert found == pytest.approx(expected.tolist(), rel=1e-3)


def test_evaluate_adds_calibration_to_an_older_run_and_nothing_else(run: Path, tmp_path: Path) -> None:
    new = read(run / "results.json")
    edit(run / "results.json", as_of_an_earlier_version)
    old = read(run / "results.json")
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[:3])
    done = ncmi("predict", run, "new.csv", "--calibrated", cwd=tmp_path, check=2)
    assert f"`ncmi evaluate {run}` adds it" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()
    ncmi("report", run, cwd=tmp_path)
    assert "Calibration" not in (run / "report.html").read_text(encoding="utf-8")

    # other data says nothing of the run's own parts
    ncmi("evaluate", run, "--on", "iris", cwd=tmp_path)
    assert read(run / "results.json") == old
    assert "calibration added" in ncmi("evaluate", run, cwd=tmp_path).stdout
    again = read(run / "results.json")
    for readout, found in old["readouts"].items():
        assert {name: again["readouts"][readout][name] for name in found} == found
        assert set(again["readouts"][readout]) == set(new["readouts"][readout])
        tau = again["readouts"][readout]["temperature_scale"]
        assert tau == pytest.approx(new["readouts"][readout]["temperature_scale"], rel=1e-4)
    assert {name for name in again if again[name] != new[name]} <= {"readouts", "reliability"}
    ncmi("predict", run, "new.csv", "--calibrated", cwd=tmp_path)

    before = (run / "results.json").read_bytes()
    assert keep_calibration(run, {"readouts": {}, "reliability": {}}) is None
    assert (run / "results.json").read_bytes() == before
    ncmi("report", run, cwd=tmp_path)
    assert "Calibration" in (run / "report.html").read_text(encoding="utf-8")


def test_without_a_validation_part_there_is_no_temperature(tmp_path: Path) -> None:
    ncmi("train", "iris", "--out", "run", "--data.train-on-all", *QUICK, cwd=tmp_path)
    results = read(tmp_path / "run" / "results.json")
    for readout, found in results["readouts"].items():
        assert not {name for name in found if "calibrated" in name or "temperature" in name}
        assert {"test_nll", "test_brier", "test_calibration_error"} <= set(found)
        assert list(results["reliability"][readout]) == ["test"]
    assert "τ" not in ncmi("evaluate", "run", cwd=tmp_path).stdout
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[:3])
    done = ncmi("predict", "run", "new.csv", "--calibrated", cwd=tmp_path, check=2)
    assert "no validation part to fit a temperature to: predict without --calibrated" in done.stderr
    ncmi("report", "run", cwd=tmp_path)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No τ: this run has no validation part" in page
    assert "NCMI-CC, as trained" in page


@pytest.mark.parametrize("value", [True, "1", 0, -1.0, [1]])
def test_a_damaged_temperature_is_named(run: Path, tmp_path: Path, value: object) -> None:
    write_table(tmp_path / "new.csv", load_dataset("iris").inputs[:3])
    words = ("predict", run, "new.csv", "--calibrated", "--readout", "cc")
    edit(run / "results.json", lambda results: results["readouts"]["cc"].update(temperature_scale=value))
    done = ncmi(*words, cwd=tmp_path, check=2)
    assert "results.json: temperature_scale of 'cc' is" in done.stderr
    edit(run / "results.json", lambda results: results.update(readouts=value))
    done = ncmi(*words, cwd=tmp_path, check=2)
    assert "results.json: damaged, no results of 'cc'" in done.stderr
    edit(run / "results.json", lambda results: results.pop("reliability"))
    assert "damaged, no 'readouts'" in ncmi("evaluate", run, cwd=tmp_path, check=2).stderr


# --- foreign data


def write_foreign(path: Path) -> Path:
    """Flowers of another world, in a table without labels."""
    write_table(path, np.random.default_rng(0).normal(20, 8, size=(40, 4)))
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_foreign(tmp_path / "other world.csv")


@pytest.fixture(scope="module")
def judged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after an evaluation with foreign data. Read only: copy before changing."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(trained, folder / "run")
    ncmi("evaluate", "run", "--ood", write_foreign(folder / "other world.csv").name, cwd=folder)
    return folder / "run"


def test_foreign_data_is_told_apart_and_kept_for_the_report(run: Path, foreign: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "more.npz", x=np.random.default_rng(1).normal(size=(7, 4)))
    done = ncmi("evaluate", run, "--ood", foreign.name, "more.npz", "--json", "all.json", cwd=tmp_path)
    assert "other world.csv (40) told from the test part of iris (30)" in done.stdout
    assert "distance to the nearest centroid" in done.stdout
    primary = read(run / "results.json")["primary_readouts"][0]
    assert f"1 − highest probability ({primary})" in done.stdout
    kept = {path.name: read(path) for path in run.glob("ood-*.json")}
    assert set(kept) == {"ood-other-world.csv.json", "ood-more.npz.json"}
    told = read(tmp_path / "all.json")["ood"]
    assert told == {"other world.csv": kept["ood-other-world.csv.json"], "more.npz": kept["ood-more.npz.json"]}
    first = told["other world.csv"]
    assert (first["data"], first["num_in"], first["num_out"]) == ("other world.csv", 30, 40)
    for found in first["scores"].values():
        assert 0 <= found["auroc"] <= 1
        assert 0 <= found["fpr95"] <= 1
    assert f"{100 * first['scores']['distance']['auroc']:.2f} %" in done.stdout

    ncmi("report", run, cwd=tmp_path)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Out of distribution" in page
    assert "other world.csv: AUROC %" in page
    assert f"{100 * first['scores']['distance']['fpr95']:.2f}" in page

    # once more replaces
    write_table(foreign, np.random.default_rng(2).normal(20, 8, size=(11, 4)))
    ncmi("evaluate", run, "--ood", foreign.name, cwd=tmp_path)
    assert read(run / "ood-other-world.csv.json")["num_out"] == 11
    assert len(list(run.glob("ood-*.json"))) == 2


def test_foreign_data_beside_other_labelled_data(run: Path, foreign: Path, tmp_path: Path) -> None:
    ncmi("evaluate", run, "--json", "own.json", "--ood", foreign.name, cwd=tmp_path)
    ncmi("evaluate", run, "--json", "other.json", "--on", "iris", "--ood", foreign.name, cwd=tmp_path)
    own, other = read(tmp_path / "own.json"), read(tmp_path / "other.json")
    # foreign to the run's own test part in both
    assert other["ood"] == own["ood"]
    for readout, found in other["readouts"].items():
        assert not {name for name in found if name.startswith("validation")}
        # iris as a whole is other data, τ is the run's
        assert found["temperature_scale"] == own["readouts"][readout]["temperature_scale"]
        assert sum(other["reliability"][readout]["calibrated"]["counts"]) == 150


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ood", "iris"), "iris is what the run was trained on: give data that is foreign to it"),
        (("--ood", "wine"), "wine is table of sample shape [13], but the network was trained on table of"),
        (("--ood", "digits"), "digits is image"),
        (("--ood", "nowhere"), "no data set 'nowhere'"),
        (("--ood", "bad.csv"), "bad.csv"),
        (("--ood", "huge.npz"), "huge.npz"),
        (("--on", "wine"), "wine has 3 classes and samples [13], the run was trained on 3 and [4]"),
    ],
)
def test_data_that_does_not_fit_is_one_line(run: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "huge.npz", x=np.full((3, 4), np.inf))
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    done = ncmi("evaluate", run, *words, cwd=tmp_path, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before


def test_another_ones_folder_is_judged_all_the_same(
    run: Path, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(RunFolder, "write", refuse)
    done = ncmi("evaluate", run, "--ood", foreign.name, "--json", "all.json", cwd=tmp_path)
    assert "not kept in" in done.stdout
    assert "(Permission denied): the report will not show it" in done.stdout
    assert "distance" in read(tmp_path / "all.json")["ood"][foreign.name]["scores"]
    assert not list(run.glob("ood-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("scores"), "the key 'scores' is missing"),
        (lambda found: found["scores"].pop("distance"), "'scores' lacks 'distance'"),
        (lambda found: found["scores"]["distance"].update(auroc="high"), "not a number"),
        (lambda found: found["distances"]["in"].pop(), "'distances' is no histogram"),
        (lambda found: found["distances"].update(edges=[0.0, 1.0]), "'distances' is no histogram"),
        (lambda found: found["distances"]["out"].__setitem__(0, -1), "'distances' is no histogram"),
        (lambda found: found.update(format=2), "has format 2"),
    ],
)
def test_a_damaged_file_of_foreign_data_is_named(
    judged: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    edit(run / "ood-other-world.csv.json", change)
    done = ncmi("report", run, cwd=tmp_path, check=2)
    assert "ood-other-world.csv.json" in done.stderr
    assert message in done.stderr
    assert "or remove this file" in done.stderr
    assert not (run / "report.html").exists()

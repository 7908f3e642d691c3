"""Features of slides as a user trains on them and judges them, and ``ncmi slides``, from slides to features."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_helpers import PATIENCE, flat, ncmi

from ncmi.training.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).parents[1] / "slides"))
from slide_helpers import CLASSES, WIDTH, read, rows, write_cohort

QUICK = (
    *("--network.width", 16, "--network.attention-dim", 8, "--network.heads", 4),
    *("--training.epochs", 2, "--training.learning-rate", 1e-2, "--training.threads", 1),
    *("--training.accelerator", "cpu", "--data.test-fraction", 0.3),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def data_of(table: Path) -> tuple[object, ...]:
    return (table.parent / "features", "--data.labels", table)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """A finished run. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    done = ncmi("train", *data_of(table), *QUICK, "--out", "run", cwd=folder)
    assert "macro f1" in done.stdout.lower()
    assert "patients" in done.stdout
    return folder / "run"


def test_train_predict_report(tmp_path: Path, run: Path) -> None:
    assert RunFolder.open(run).state() == "finished"
    new = write_cohort(tmp_path / "new", slides=4, patients=4, seed=5).parent / "features"
    done = ncmi("predict", run, new, "--out", "p.csv", "--attention", "attention", cwd=tmp_path)
    assert "4 predictions" in done.stdout
    predicted = rows(tmp_path / "p.csv")
    assert list(predicted[0]) == [
        *("id", "prediction", "probability", "distance"),
        *(f"p({name})" for name in CLASSES),
        *(f"distance({name})" for name in CLASSES),
        "instances",
    ]
    assert [row["id"] for row in predicted] == [f"slide{number:02d}" for number in range(4)]
    for row in predicted:
        p = [float(row[f"p({name})"]) for name in CLASSES]
        assert sum(p) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == CLASSES[int(np.argmax(p))]
        assert float(row["probability"]) == max(p)
        distances = [float(row[f"distance({name})"]) for name in CLASSES]
        assert min(distances) == float(row["distance"]) > 0
        with h5py.File(new / f"{row['id']}.h5") as file:
            assert int(row["instances"]) == len(file["features"])
        assert np.load(tmp_path / "attention" / f"{row['id']}.npz")["attention"].sum() == pytest.approx(1, abs=1e-4)
    assert "--overwrite" in ncmi("predict", run, new, "--out", "p.csv", cwd=tmp_path, check=2).stderr
    ncmi("report", run, "--out", tmp_path / "page.html", cwd=tmp_path)
    assert "macro f1" in (tmp_path / "page.html").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("readout", ["head", "cc", "lp"])
def test_predictions_agree_with_the_run_s_own_table(tmp_path: Path, table: Path, run: Path, readout: str) -> None:
    ncmi("predict", run, table.parent / "features", "--readout", readout, cwd=tmp_path)
    predicted = {row["id"]: row for row in rows(tmp_path / "predictions.csv")}
    for row in rows(run / "slides.csv"):
        for name in CLASSES:
            expected = float(row[f"{readout}:{name}"])
            assert float(predicted[row["slide"]][f"p({name})"]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("readout", ["auto", "cc"])
def test_calibrated_predictions_are_the_scaled_ones(tmp_path: Path, table: Path, run: Path, readout: str) -> None:
    words = ("predict", run, table.parent / "features", "--readout", readout)
    ncmi(*words, "--out", "plain.csv", cwd=tmp_path)
    ncmi(*words, "--out", "calibrated.csv", "--calibrated", cwd=tmp_path)
    results = read(run, "results.json")
    chosen = results["primary_readouts"][0] if readout == "auto" else readout
    tau = results["readouts"][chosen]["calibration"]["temperature"]
    for one, other in zip(rows(tmp_path / "plain.csv"), rows(tmp_path / "calibrated.csv"), strict=True):
        p = np.array([float(one[f"p({name})"]) for name in CLASSES])
        scaled = p ** (1 / tau) / (p ** (1 / tau)).sum()
        assert [float(other[f"p({name})"]) for name in CLASSES] == pytest.approx(scaled.tolist(), rel=1e-3, abs=1e-5)
        kept = ["id", "prediction", "distance", *(f"distance({name})" for name in CLASSES), "instances"]
        assert [other[name] for name in kept] == [one[name] for name in kept]


def test_evaluate_agrees_with_the_run_and_judges_other_slides(tmp_path: Path, run: Path) -> None:
    before = (run / "results.json").read_bytes()
    ncmi("evaluate", run, "--json", "again.json", cwd=tmp_path)
    again, first = read(tmp_path, "again.json"), read(run, "results.json")
    assert flat(again["readouts"]) == pytest.approx(flat(first["readouts"]), abs=1e-6)
    assert set(again["readouts"]) == {"head", "cc", "lp", "knn"}
    other = write_cohort(tmp_path / "other", slides=9, patients=9, seed=3)
    on = ("--on", other.parent / "features")
    ncmi("evaluate", run, *on, "--labels", other, "--json", "other.json", cwd=tmp_path)
    for readout, content in read(tmp_path, "other.json")["readouts"].items():
        assert content["validation"] is None
        assert (content["test"]["samples"], content["test"]["groups"]) == (9, 3)
        # τ is the run's
        assert content["calibration"]["temperature"] == again["readouts"][readout]["calibration"]["temperature"]
        assert sum(content["reliability"]["calibrated"]["counts"]) == 9
    assert "(--labels)" in ncmi("evaluate", run, *on, cwd=tmp_path, check=2).stderr
    assert (run / "results.json").read_bytes() == before


def test_out_of_distribution_slides_are_told_apart_and_kept_for_the_report(tmp_path: Path, run: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    random = np.random.default_rng(0)
    for number in range(7):  # without labels
        with h5py.File(strangers / f"slide{number}.h5", "w") as file:
            file["features"] = random.normal(size=(5, WIDTH)).astype(np.float32)
    done = ncmi("evaluate", run, "--ood", "strangers", "--json", "all.json", cwd=tmp_path)
    assert "distance to the nearest centroid" in done.stdout
    record = read(tmp_path, "all.json")["ood"]["strangers"]
    assert record == read(run, "ood-strangers.json")
    assert (record["num_inside"], record["num_outside"]) == (read(run, "results.json")["num_test"], 7)
    assert set(record["scores"]) == {"distance", "distance_ratio", "max_probability", "feature_norm"}
    for detection in record["scores"].values():
        assert 0 <= detection["auroc"] <= 1
        assert 0 <= detection["fpr95"] <= 1
    ncmi("report", run, cwd=tmp_path)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Out of distribution" in page
    assert "strangers" in page
    with h5py.File(strangers / "slide0.h5", "w") as file:
        file["features"] = np.ones((3, WIDTH + 1), np.float32)
    for words in (("--ood", "strangers"), ("--ood", "nowhere")):
        done = ncmi("evaluate", run, *words, cwd=tmp_path, check=2)
        assert words[1] in done.stderr
        assert done.stderr.count("\n") == 1


def test_check_tells_the_parts_and_what_is_wrong(tmp_path: Path, table: Path) -> None:
    done = ncmi(
        "slides", "check", *data_of(table), "--data.holdout-column", "center", "--data.holdout", 2, cwd=tmp_path
    )
    assert "validation" in done.stdout
    assert all(name in done.stdout for name in CLASSES)
    features = tmp_path / "features"
    features.mkdir()
    for path in sorted((table.parent / "features").iterdir())[:-2]:
        (features / path.name).write_bytes(path.read_bytes())
    with h5py.File(features / "slide03.h5", "r+") as file:
        broken = file["features"][:]
        broken[0, 0] = np.nan
        file["features"][:] = broken
    cut = features / "slide04.h5"
    cut.write_bytes(cut.read_bytes()[:900])
    told = ncmi("slides", "check", features, "--data.labels", table, cwd=tmp_path, check=2).stderr
    assert "slide34" in told
    assert "--data.bad skip" in told
    assert told.count("\n") == 1
    skipped = ncmi("slides", "check", features, "--data.labels", table, "--data.bad", "skip", cwd=tmp_path).stdout
    for name in ("slide03", "slide04", "slide34", "slide35"):
        assert f"left out: {name}" in skipped
    ncmi("train", features, "--data.labels", table, "--data.bad", "skip", *QUICK, "--out", "run", cwd=tmp_path)
    left_out = {one["name"] for one in read(tmp_path / "run", "results.json")["skipped"]}
    assert left_out == {"slide03", "slide04", "slide34", "slide35"}


def test_not_a_number_is_found_before_anything_is_written(tmp_path: Path) -> None:
    table = write_cohort(tmp_path / "cohort")
    for number in range(35):
        with h5py.File(table.parent / "features" / f"slide{number:02d}.h5", "r+") as file:
            values = file["features"][:]
            values[-1, 2] = np.inf
            file["features"][:] = values
    for words in (("slides", "check", *data_of(table)), ("train", *data_of(table), *QUICK, "--out", "run")):
        told = ncmi(*words, cwd=tmp_path, check=2).stderr
        assert "35 of 36" in told
        assert "slide00" in told
        assert "NaN or infinite" in told
        assert "--data.bad skip" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.label-column", "tumor"), "tumor"),
        (("--data.classes", "none", "one"), "unknown class"),
        (("--data.folds", 10, "--data.fold", 12), "fold"),
        (("--data.holdout-column", "center", "--data.holdout", "7"), "7"),
        (("--recipe", "cifar100.small"), "features"),
        (("--network.name", "nothing"), "--network.name"),
        (("--training.devices", 2, "--training.batch-size", 1), "--training.batch-size 1, --training.devices 2"),
    ],
)
def test_bad_options_name_the_cure(tmp_path: Path, table: Path, words: tuple[object, ...], message: str) -> None:
    told = ncmi("train", *data_of(table), *QUICK, *words, "--out", "run", cwd=tmp_path, check=2).stderr
    assert message in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_compare_in_folds_goes_on_and_reports(tmp_path: Path, table: Path) -> None:
    words = (
        *("compare", *data_of(table), *QUICK, "--data.folds", 3, "--networks", "abmil", "mean"),
        *("--seeds", 1, "--workers", 1, "--out", "c", "--training.selection", "last", "--data.validation-fraction", 0),
        *("--objectives", "ncmi"),
    )
    done = ncmi(*words, cwd=tmp_path)
    assert done.stdout.count("abmil-ncmi-seed") == 3
    content = read(tmp_path / "c", "comparison.json")
    assert content["folds"] == 3
    assert len(content["entries"]) == 2
    runs = [tmp_path / "c" / run for entry in content["entries"] for run in entry["runs"]]
    assert len(runs) == 6
    # the folds test every slide once, and pairs test the same slides
    for entry in content["entries"]:
        tested = [
            row["slide"]
            for run in entry["runs"]
            for row in rows(tmp_path / "c" / run / "slides.csv")
            if row["part"] == "test"
        ]
        assert sorted(tested) == [f"slide{number:02d}" for number in range(36)]
    assert "--resume" in ncmi(*words, cwd=tmp_path, check=2).stderr
    stamp = (runs[0] / "results.json").stat().st_mtime_ns
    (runs[1] / "results.json").unlink()
    ncmi(*words, "--resume", cwd=tmp_path)
    assert (runs[0] / "results.json").stat().st_mtime_ns == stamp
    assert (runs[1] / "results.json").is_file()
    assert (tmp_path / "c" / "report.html").is_file()


def test_simulate_and_table3(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "patient_id", "center", "label"])
        for number in range(60):
            label = ("negative", "itc", "micro", "macro")[number % 4]
            writer.writerow([f"s{number:02d}", f"p{number // 2:02d}", number // 2 % 5, label])
    simulated = ("slides", "simulate", "--table", table, "--out", "sim", "--feature-dim", 32, "--scale", 0.01)
    done = ncmi(*simulated, "--workers", 1, cwd=tmp_path)
    assert "simulation, 60 slides" in done.stdout
    words = ("--networks", "abmil", "--seeds", 1, "--epochs", 1, "--workers", 1, "--out", "t3")
    ncmi("reproduce", "table3", "--camelyon17", "sim/features", *words, cwd=tmp_path)
    folder = tmp_path / "t3" / "table3"
    content = read(folder / "camelyon17", "comparison.json")
    assert content["simulation"] is True
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "imulat" in page
    assert "0.522" not in page  # published figures are of real slides
    for entry in content["entries"]:
        tested = rows(folder / "camelyon17" / entry["runs"][0] / "slides.csv")
        centers = {row["slide_id"]: row["center"] for row in rows(table)}
        for row in tested:
            assert (row["part"] == "test") == (centers[row["slide"]] in "34")
    assert "features" in ncmi("reproduce", "table3", "--out", "t4", cwd=tmp_path, check=2).stderr
    assert not (tmp_path / "t4").exists()


def test_the_whole_way_from_a_slide_without_weights(tmp_path: Path, data_dir: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    (slides / "cmu.svs").write_bytes((data_dir / "slides" / "cmu_small_region.svs").read_bytes())
    (slides / "broken.svs").write_bytes(b"not a slide")
    done = ncmi("slides", "tile", slides, "--out", "tiles", "--patch-size", 128, "--workers", 1, cwd=tmp_path)
    assert "1 tiled" in done.stdout
    assert "left out: broken" in done.stdout
    done = ncmi("slides", "embed", "tiles", slides, "--workers", 1, cwd=tmp_path)
    assert "left out" in done.stdout
    with h5py.File(tmp_path / "tiles" / "features" / "cmu.h5") as file:
        count = len(file["coords"])
        assert file["features"].shape == (count, 105)
        assert np.isfinite(file["features"][:].astype(np.float32)).all()
    summary = {row["slide"]: row for row in rows(tmp_path / "tiles" / "summary.csv")}
    assert int(summary["cmu"]["patches"]) == count
    assert summary["broken"]["reason"]


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from ncmi.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    try:\n        main(['slides', '--help'])\n    except SystemExit: pass\n"
        "print([name for name in ('torch', 'h5py', 'openslide', 'skimage', 'pandas') if name in sys.modules])\n"
        "print(out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    first, rest = done.stdout.split("\n", 1)
    assert json.loads(first.replace("'", '"')) == []
    for verb in ("tile", "embed", "check", "simulate", "ncmi train FEATURES", "compare", "predict", "report"):
        assert verb in rest

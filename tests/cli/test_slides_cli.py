"""``ncmi slides`` as a user runs it, from features to report and predictions."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_helpers import ncmi

sys.path.insert(0, str(Path(__file__).parents[1] / "slides"))
from slide_helpers import CLASSES, read, rows, write_cohort

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


def test_train_predict_report(tmp_path: Path, table: Path) -> None:
    done = ncmi("slides", "train", *data_of(table), *QUICK, "--out", "run", cwd=tmp_path)
    assert "macro F1" in done.stdout
    assert "patients" in done.stdout
    assert read(tmp_path / "run", "results.json")["status"] == "finished"
    new = write_cohort(tmp_path / "new", slides=4, patients=4, seed=5).parent / "features"
    done = ncmi("slides", "predict", "run", new, "--out", "p.csv", "--attention", "attention", cwd=tmp_path)
    assert "4 predictions" in done.stdout
    found = rows(tmp_path / "p.csv")
    assert [row["slide"] for row in found] == [f"slide{number:02d}" for number in range(4)]
    for row in found:
        p = [float(row[f"p({name})"]) for name in CLASSES]
        assert sum(p) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == CLASSES[int(np.argmax(p))]
        assert all(float(row[f"distance({name})"]) > 0 for name in CLASSES)
        with h5py.File(new / f"{row['slide']}.h5") as file:
            assert int(row["instances"]) == len(file["features"])
        assert np.load(tmp_path / "attention" / f"{row['slide']}.npz")["attention"].sum() == pytest.approx(1, abs=1e-4)
    assert "exists" in ncmi("slides", "predict", "run", new, "--out", "p.csv", cwd=tmp_path, check=2).stderr
    ncmi("slides", "report", "run", cwd=tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    ncmi("report", "run", "--out", "again.html", cwd=tmp_path)
    assert "macro F1" in (tmp_path / "again.html").read_text().replace("Macro", "macro")
    assert "macro F1" in page.replace("Macro", "macro")


def test_predictions_agree_with_the_run_s_own_table(tmp_path: Path, table: Path) -> None:
    ncmi("slides", "train", *data_of(table), *QUICK, "--out", "run", cwd=tmp_path)
    for readout in ("head", "cc", "lp"):
        ncmi(
            *("slides", "predict", "run", table.parent / "features", "--readout", readout, "--overwrite"), cwd=tmp_path
        )
        predicted = {row["slide"]: row for row in rows(tmp_path / "predictions.csv")}
        for row in rows(tmp_path / "run" / "slides.csv"):
            for name in CLASSES:
                expected = float(row[f"{readout}:{name}"])
                assert float(predicted[row["slide"]][f"p({name})"]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


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
    ncmi(
        *("slides", "train", features, "--data.labels", table, "--data.bad", "skip", *QUICK, "--out", "run"),
        cwd=tmp_path,
    )
    assert {one["slide"] for one in read(tmp_path / "run", "results.json")["skipped"]} == {
        *("slide03", "slide04", "slide34", "slide35")
    }


def test_not_a_number_is_found_before_anything_is_written(tmp_path: Path) -> None:
    table = write_cohort(tmp_path / "cohort")
    for number in range(35):
        with h5py.File(table.parent / "features" / f"slide{number:02d}.h5", "r+") as file:
            values = file["features"][:]
            values[-1, 2] = np.inf
            file["features"][:] = values
    for words in (("check", *data_of(table)), ("train", *data_of(table), *QUICK, "--out", "run")):
        told = ncmi("slides", *words, cwd=tmp_path, check=2).stderr
        assert "35 of 36 slides cannot be used ('slide00'" in told
        assert "1 NaN or infinite features, in 1 of " in told
        assert "--data.bad skip" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data.label-column", "tumour"), "tumour"),
        (("--data.classes", "none", "one"), "unknown class"),
        (("--data.folds", 10, "--data.fold", 12), "fold"),
        (("--data.holdout-column", "center", "--data.holdout", "7"), "7"),
        (("--recipe", "cifar100.small"), "--recipe"),
        (("--training.devices", 2, "--training.batch-size", 1), "processes"),
    ],
)
def test_bad_options_name_the_cure(tmp_path: Path, table: Path, words: tuple[object, ...], message: str) -> None:
    if "--training.devices" in words:  # two processes start anew by the command line: as a user would
        command = [sys.executable, "-m", "ncmi", "slides", "train", *map(str, (*data_of(table), *QUICK, *words))]
        done = subprocess.run([*command, "--out", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0
        assert message in done.stderr
        return
    told = ncmi("slides", "train", *data_of(table), *QUICK, *words, "--out", "run", cwd=tmp_path, check=2).stderr
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_compare_in_folds_goes_on_and_reports(tmp_path: Path, table: Path) -> None:
    words = (
        *("slides", "compare", *data_of(table), *QUICK, "--data.folds", 3, "--networks", "abmil", "mean"),
        *("--seeds", 2, "--workers", 1, "--out", "c", "--training.selection", "last", "--data.validation-fraction", 0),
    )
    done = ncmi(*words, cwd=tmp_path)
    assert done.stdout.count("abmil-ncmi-seed") == 6
    content = read(tmp_path / "c", "comparison.json")
    assert content["folds"] == 3
    assert len(content["entries"]) == 4
    runs = [tmp_path / "c" / run for entry in content["entries"] for run in entry["runs"]]
    assert len(runs) == 24
    # the folds of a repeat test every slide once, and pairs test the same slides
    for entry in content["entries"]:
        tested = [
            row["slide"]
            for run in entry["runs"][:3]
            for row in rows(tmp_path / "c" / run / "slides.csv")
            if row["part"] == "test"
        ]
        assert sorted(tested) == [f"slide{number:02d}" for number in range(36)]
    assert "exists and is not empty" in ncmi(*words, cwd=tmp_path, check=2).stderr
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
    done = ncmi("slides", "table3", "--camelyon17", "sim/features", *words, cwd=tmp_path)
    content = read(tmp_path / "t3" / "camelyon17", "comparison.json")
    assert content["simulation"] is True
    page = (tmp_path / "t3" / "camelyon17" / "report.html").read_text()
    assert "imulat" in page
    assert "0.522" not in page  # published figures are of real slides
    for entry in content["entries"]:
        tested = rows(tmp_path / "t3" / "camelyon17" / entry["runs"][0] / "slides.csv")
        centres = {row["slide_id"]: row["center"] for row in rows(table)}
        for row in tested:
            assert (row["part"] == "test") == (centres[row["slide"]] in "34")
    assert "features" in ncmi("slides", "table3", cwd=tmp_path, check=2).stderr


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
    told = {row["slide"]: row for row in rows(tmp_path / "tiles" / "summary.csv")}
    assert int(told["cmu"]["patches"]) == count
    assert told["broken"]["reason"]


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from ncmi.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    try:\n        main(['slides', '--help'])\n    except SystemExit: pass\n"
        "print([name for name in ('torch', 'h5py', 'openslide', 'skimage', 'pandas') if name in sys.modules])\n"
        "print(out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, rest = done.stdout.split("\n", 1)
    assert json.loads(first.replace("'", '"')) == []
    for verb in ("tile", "embed", "check", "train", "compare", "table3", "simulate", "predict", "report"):
        assert verb in rest

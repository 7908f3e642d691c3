"""A finished run in Python: it says of samples in memory what ``ncmi predict`` says of the same samples in files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_wine

import ncmi
from ncmi import TrainedRun
from ncmi.training.prediction import predict

QUICK: dict[str, Any] = {"epochs": 2, "accelerator": "cpu", "threads": 1, "quiet": True}


def make_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, categories, dates and yes or no; classes 3 and 5 by the size."""
    random = np.random.default_rng(seed)
    label = random.choice([3, 5], rows)
    size = label + 0.5 * random.normal(size=rows)
    return pd.DataFrame(
        {
            "size": np.where(random.random(rows) < 0.1, np.nan, size),
            "color": random.choice(["red", "green", "blue"], rows),
            "seen": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 3000, rows), unit="D"),
            "wet": random.choice(["yes", "no"], rows),
            "kind": label,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def table(folder: Path) -> TrainedRun:
    """A run on a frame. Read only, as the others."""
    return ncmi.train(make_frame(200), label_column="kind", out=folder / "table", width=16, **QUICK | {"epochs": 8})


@pytest.fixture(scope="module")
def numbers(folder: Path) -> TrainedRun:
    return ncmi.train("wine", out=folder / "numbers", width=16, **QUICK)


@pytest.fixture(scope="module")
def images(folder: Path) -> TrainedRun:
    random = np.random.default_rng(0)
    samples = (random.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2)
    return ncmi.train(samples, network="convnet", width=4, out=folder / "images", **QUICK)


def make_bags(count: int, seed: int = 0) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    bags = [random.normal(label, 1, (random.integers(1, 9), 6)).astype(np.float32) for label in labels]
    return bags, labels


@pytest.fixture(scope="module")
def bags(folder: Path) -> TrainedRun:
    small = {"width": 8, "attention_dim": 4, "learning_rate": 1e-2}
    return ncmi.train(make_bags(40), out=folder / "bags", **QUICK, **small)


def written(run: TrainedRun, inputs: Path, out: Path, **options: Any) -> list[list[str]]:
    """What ``ncmi predict`` writes."""
    predict(run.path, inputs, out, **options)
    with out.open(encoding="utf-8") as file:
        return list(csv.reader(file))


def same_as_written(frame: pd.DataFrame, lines: list[list[str]]) -> None:
    assert list(frame.columns) == lines[0]
    for row, line in zip(frame.itertuples(index=False), lines[1:], strict=True):
        cells = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in row]
        assert cells == line


def test_a_frame_is_predicted_as_its_file_is(table: TrainedRun, tmp_path: Path) -> None:
    frame = make_frame(12, seed=1)
    frame.to_csv(tmp_path / "new.csv", index=False)
    lines = written(table, tmp_path / "new.csv", tmp_path / "p.csv")
    same_as_written(table.predict_frame(frame), lines)
    p = table.predict_proba(frame)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    others: list[Any] = [
        tmp_path / "new.csv",
        frame[["wet", "seen", "color", "size"]].assign(more=1),
        frame.set_index(pd.Index(range(100, 112))),
        {name: frame[name].tolist() for name in frame},
        frame[list(table.columns)].to_numpy(),
    ]
    for inputs in others:
        np.testing.assert_array_equal(table.predict_proba(inputs), p)
        np.testing.assert_array_equal(table.predict(inputs), table.classes[p.argmax(1)])
    np.testing.assert_allclose(table.predict_proba(frame.iloc[0].to_dict()), p[:1], rtol=1e-5)


def test_classes_that_are_numbers_compare_with_numbers(table: TrainedRun, numbers: TrainedRun) -> None:
    frame = make_frame(300, seed=2)
    assert table.classes.tolist() == [3, 5]
    assert numbers.classes.tolist() == ["class_0", "class_1", "class_2"]
    # a rule by the size alone is right in 98 % of the rows that have one, nine tenths of all
    assert 0.8 < (table.predict(frame) == frame["kind"]).mean() < 1


def test_calibration_divides_log_probabilities(table: TrainedRun) -> None:
    frame = make_frame(20, seed=3)
    tau = json.loads((table.path / "results.json").read_text())["readouts"]["lp"]["calibration"]["temperature"]
    powers = table.predict_proba(frame, readout="lp") ** (1 / tau)
    calibrated = table.predict_proba(frame, readout="lp", calibrated=True)
    np.testing.assert_allclose(calibrated, powers / powers.sum(1, keepdims=True), rtol=1e-4)
    assert abs(tau - 1) > 1e-3


def test_evaluation_counts_right_predictions(table: TrainedRun, tmp_path: Path) -> None:
    frame = make_frame(50, seed=4)
    frame.to_csv(tmp_path / "new.csv", index=False)
    right = float((table.predict(frame) == frame["kind"]).mean())
    for X, y in ((frame, None), (frame.drop(columns="kind"), frame["kind"]), (frame, frame["kind"].tolist())):
        judged = table.evaluate(X, y)
        assert judged.accuracy == pytest.approx(right)
        assert judged.table.set_index("readout")["accuracy"]["head"] == pytest.approx(right)
    assert table.evaluate(tmp_path / "new.csv").accuracy == pytest.approx(right)
    assert "CMI" in repr(judged)
    own = table.evaluate()
    assert own.record.readouts["head"].test.accuracy == table.results.readouts["head"].test.accuracy
    assert table.table["accuracy"].tolist() == own.table["accuracy"].tolist()


@contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("setting", [double_precision, torch.inference_mode, lambda: torch.device("meta")])
def test_torch_as_the_caller_has_set_it_changes_nothing(
    setting: Callable[[], AbstractContextManager[Any]], numbers: TrainedRun, tmp_path: Path
) -> None:
    X, y = load_wine(return_X_y=True)
    estimator = ncmi.NCMIClassifier(epochs=2, random_state=0)
    expected, fitted = numbers.predict_proba(X), estimator.fit(X, y).predict_proba(X)
    before = torch.get_rng_state()
    with setting():
        again = ncmi.train("wine", out=tmp_path / "again", width=16, **QUICK)
        loaded = ncmi.load(numbers.path)
        for run in (again, loaded):
            np.testing.assert_array_equal(run.predict_proba(X), expected)
        assert loaded.evaluate().accuracy == numbers.results.readouts["head"].test.accuracy.value
        np.testing.assert_array_equal(estimator.fit(X, y).predict_proba(X), fitted)
    assert torch.equal(torch.get_rng_state(), before)


def test_yes_and_no_may_be_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    label, other = random.random(60) < 0.5, random.random(60) < 0.5
    frame = pd.DataFrame({"flag": label ^ (random.random(60) < 0.1), "count": other.astype(int), "kind": label})
    run = ncmi.train(frame, label_column="kind", out=tmp_path / "run", width=8, **QUICK)
    assert run.classes.tolist() == [False, True]
    p = run.predict_proba(frame)
    assert len({tuple(row) for row in p.tolist()}) == 4  # by flag and count
    for kind in (int, float, str):
        np.testing.assert_array_equal(run.predict_proba(frame.astype({"flag": kind})), p)
    np.testing.assert_array_equal(run.predict_proba(frame.astype({"count": bool})), p)
    assert run.evaluate(frame, label).accuracy == (run.predict(frame) == label).mean()


def test_a_run_and_its_data_move_together(tmp_path: Path) -> None:
    frame = make_frame(60)
    run = ncmi.train(frame, label_column="kind", out=tmp_path / "here" / "run", width=8, **QUICK)
    p, own = run.predict_proba(frame, readout="knn"), run.evaluate().accuracy
    (tmp_path / "here").rename(tmp_path / "there")
    moved = ncmi.load(tmp_path / "there" / "run")
    np.testing.assert_array_equal(moved.predict_proba(frame, readout="knn"), p)
    assert moved.evaluate().accuracy == own
    (tmp_path / "there" / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="gone"):
        moved.evaluate()
    make_frame(60, seed=1).to_parquet(next((tmp_path / "elsewhere").iterdir()))
    (tmp_path / "elsewhere").rename(tmp_path / "there" / "data")
    with pytest.raises(ValueError, match="changed"):
        moved.evaluate()


def test_what_cannot_be_predicted_is_said(table: TrainedRun, numbers: TrainedRun, tmp_path: Path) -> None:
    frame = make_frame(5, seed=5)
    with pytest.raises(ValueError, match=r"missing.*'color'"):
        table.predict(frame.drop(columns="color"))
    with pytest.raises(ValueError, match=r"3 columns.*trained on 4: 'size', 'color'"):
        table.predict(frame.iloc[:, :3].to_numpy())
    with pytest.raises(ValueError, match=r"x\[None\]"):
        table.predict(np.zeros(4))
    with pytest.raises(ValueError, match=r"iloc\[\[0\]\]"):
        table.predict(frame.iloc[0])
    with pytest.raises(ValueError, match=r"row 1 .*no label"):
        table.evaluate(frame, ["3", np.nan, "5", "5", "5"])
    with pytest.raises(ValueError, match="give y"):
        numbers.evaluate(np.zeros((2, 13)))
    with pytest.raises(ValueError, match="does not know: '4'"):
        table.evaluate(frame, [4] * 5)
    with pytest.raises(ValueError, match="5 samples and 3 labels"):
        table.evaluate(frame, [3] * 3)
    with pytest.warns(UserWarning, match="1 row.*'color'"):
        table.predict(frame.head(1).assign(color="never seen"))
    broken = np.ones((3, 13))
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="predict_frame"):
        numbers.predict(broken)
    marked = numbers.predict_frame(broken)
    assert marked["prediction"].isna().tolist() == [False, True, False]
    assert marked["reason"].notna().tolist() == [False, True, False]
    np.savez(tmp_path / "broken.npz", x=broken)
    lines = written(numbers, tmp_path / "broken.npz", tmp_path / "p.csv")
    same_as_written(marked.astype(object).where(marked.notna(), ""), lines)
    assert len(numbers.predict_frame(broken, bad="skip")) == 2
    with pytest.raises(ValueError, match="read-out"):
        numbers.predict(np.ones((1, 13)), readout="typo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no run here"):
        ncmi.load(numbers.path / "nowhere")


def test_errors_name_arguments(folder: Path) -> None:
    gaps = make_frame(30).astype({"kind": float})
    gaps.loc[3, "kind"] = np.nan
    with pytest.raises(ValueError, match="bad='skip'") as caught:
        ncmi.train(gaps, label_column="kind", out=folder / "gaps", **QUICK)
    assert "--" not in str(caught.value)
    assert not (folder / "gaps").exists()


def test_images_in_memory_are_those_in_files(images: TrainedRun, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    p = images.predict_proba(pictures)
    assert images.classes.tolist() == [0, 1]
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    forms: list[Any] = [
        pictures[..., None],
        pictures[:, None],
        pictures[..., None].repeat(3, -1),
        torch.from_numpy(pictures),
        list(pictures),
        [Image.fromarray(picture) for picture in pictures],
        paths,
        [str(path) for path in paths],
        tmp_path,
    ]
    for form in forms:
        np.testing.assert_array_equal(images.predict_proba(form), p)
    np.testing.assert_allclose(images.predict_proba(Image.open(paths[2])), p[2:3], rtol=1e-5)
    assert images.features(pictures).shape == (5, images.recipe.network.feature_dim)  # type: ignore[union-attr]
    labels = images.predict(pictures)
    assert images.evaluate(pictures, labels).accuracy == 1
    with pytest.raises(ValueError, match="uint8"):
        images.predict(pictures / 255)
    with pytest.raises(ValueError, match=r"one image.*x\[None\]"):
        images.predict(np.zeros((20, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="alone"):
        images.predict([paths[0], pictures[0]])


def test_images_of_any_size_are_scaled_as_files_are(images: TrainedRun, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    colored = random.integers(0, 256, (2, 30, 20, 3), dtype=np.uint8)
    for number, picture in enumerate(colored):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    p = images.predict_proba(tmp_path)
    np.testing.assert_array_equal(images.predict_proba(colored), p)
    np.testing.assert_array_equal(images.predict_proba([colored[0], Image.fromarray(colored[1])]), p)
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"2\.png"):
        images.predict(tmp_path)


@pytest.mark.filterwarnings("ignore:the run's own features do not say which encoder:UserWarning")
def test_bags_in_memory_are_those_in_files(bags: TrainedRun, tmp_path: Path) -> None:
    new, labels = make_bags(6, seed=1)
    p = bags.predict_proba(new)
    sizes = [len(bag) for bag in new]
    np.savez(tmp_path / "bags.npz", x=np.concatenate(new), bag=np.repeat(np.arange(6), sizes), bag_label=labels)
    files = [tmp_path / f"{number}.npz" for number in range(6)]
    for path, bag in zip(files, new, strict=True):
        np.savez(path, features=bag)
    np.testing.assert_array_equal(bags.predict_proba([torch.from_numpy(bag) for bag in new]), p)
    for form in (tmp_path / "bags.npz", files):
        with pytest.warns(UserWarning, match="which encoder"):  # neither the run's features nor these say it
            np.testing.assert_array_equal(bags.predict_proba(form), p)
    np.testing.assert_allclose(bags.predict_proba(new[3]), p[3:4], rtol=1e-5)
    same_as_written(bags.predict_frame(new), written(bags, tmp_path / "bags.npz", tmp_path / "p.csv"))
    assert bags.evaluate(new, labels).accuracy == pytest.approx((bags.predict(new) == labels).mean())
    assert bags.evaluate(tmp_path / "bags.npz").accuracy == bags.evaluate(new, labels).accuracy
    np.savez(tmp_path / "narrow.npz", features=new[0][:, :4])
    marked = bags.predict_frame([files[0], tmp_path / "narrow.npz", files[1]])
    assert marked["reason"].notna().tolist() == [False, False, True]
    assert marked["id"].tolist() == ["0", "1", "narrow"]
    with pytest.raises(ValueError, match="give y"):
        bags.evaluate(make_frame(3))
    with pytest.raises(ValueError, match="width 4"):
        bags.predict(new[0][:, :4])
    with pytest.raises(ValueError, match="NaN"):
        bags.predict([new[0], np.full((2, 6), np.nan)])


def test_a_notebook_shows_tables(table: TrainedRun) -> None:
    assert "<table>" in table._repr_html_()
    assert "3, 5" in repr(table)

"""Exported runs do without ncmi what the run itself does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ncmi
from ncmi import TrainedRun
from ncmi.cli import main
from ncmi.training import export

QUICK: dict[str, Any] = {"epochs": 2, "accelerator": "cpu", "threads": 1, "quiet": True, "width": 8}


def make_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """One column of every kind: with gaps, and a name that an exporter may use itself."""
    random = np.random.default_rng(seed)
    label = random.choice(["left", "right"], rows)
    size = (label == "left") * 1.0 + random.normal(size=rows)
    return pd.DataFrame(
        {
            "inputs": np.where(random.random(rows) < 0.2, np.nan, size),
            "color": np.where(random.random(rows) < 0.2, None, random.choice(["red", "green", "blue"], rows)),
            "grade": random.choice([1, 2, 3], rows),
            "seen": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 3000, rows), unit="D"),
            "wet": random.choice(["yes", "no"], rows),
            "side": label,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def table(folder: Path) -> TrainedRun:
    """A run on a table. Read only, as the others."""
    return ncmi.train(make_frame(150), label_column="side", out=folder / "table", categorical=["grade"], **QUICK)


@pytest.fixture(scope="module")
def bags(folder: Path) -> TrainedRun:
    random = np.random.default_rng(0)
    labels = np.arange(30) % 2
    features = [random.normal(label, 1, (4, 6)).astype(np.float32) for label in labels]
    return ncmi.train((features, labels), out=folder / "bags", attention_dim=4, **QUICK)


def metadata_of(session: Any) -> dict[str, Any]:
    said = session.get_modelmeta().custom_metadata_map
    return {name: json.loads(value) if value[:1] in "[{" else value for name, value in said.items()}


def test_a_table_in_onnx_takes_its_columns(table: TrainedRun, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = table.to_onnx(tmp_path / "table.onnx", calibrated=True)
    session = onnxruntime.InferenceSession(path)
    new = make_frame(40, seed=1).drop(columns="side")
    new.loc[0, "color"] = "a color that training had not"
    dates = {f"seen {part}": getattr(new["seen"].dt, part) for part in ("year", "month", "day", "day_of_week")}
    columns = {**{name: new[name] for name in ("inputs", "color", "grade", "wet")}, **dates}
    arrays = {}
    for given in session.get_inputs():
        values = columns[given.name]
        as_text = given.type == "tensor(string)"
        values = values.astype(object).where(values.notna(), "").astype(str) if as_text else values.astype(np.float32)
        arrays[given.name] = values.to_numpy(object if as_text else None)[:, None]
    with pytest.warns(UserWarning, match="'color'"):
        expected = table.predict_proba(new, calibrated=True)
    probabilities, label = session.run(["probabilities", "label"], arrays)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert label.tolist() == table.classes[expected.argmax(1)].tolist()
    for words in ({"yes": "YES", "no": "NO"}, {"yes": "1", "no": "0"}, {"yes": "1.0", "no": "0.0"}):
        arrays["wet"] = np.array([[words[text]] for text in new["wet"]], dtype=object)
        np.testing.assert_array_equal(session.run(["probabilities"], arrays)[0], probabilities)
    said = metadata_of(session)
    assert said["classes"] == ["left", "right"]
    assert {each["name"]: each["type"] for each in said["inputs"]} == {
        given.name: "string" if given.type == "tensor(string)" else "float32" for given in session.get_inputs()
    }
    assert float(said["temperature"]) == table.results.readouts[said["readout"]].calibration.temperature  # type: ignore[union-attr]


def test_a_program_of_torch_takes_numbers_and_flags(table: TrainedRun, tmp_path: Path) -> None:
    path = table.to_torch(tmp_path / "table.pt2", readout="lp")
    files = {"ncmi.json": ""}
    program = torch.export.load(path, extra_files=files).module()
    (inputs,) = json.loads(files["ncmi.json"])["inputs"]
    new = make_frame(9, seed=2)
    dates = {f"seen {part}": getattr(new["seen"].dt, part) for part in ("year", "month", "day", "day_of_week")}
    numbers = {"inputs": new["inputs"], "wet": (new["wet"] == "yes") * 1.0, **dates}
    columns = []
    for name in inputs["columns"]:
        column, _, value = name.partition("=")
        text = new[column].astype(object).where(new[column].notna(), "(missing)").astype(str) if value else None
        columns.append(numbers[name] if text is None else (text == value) * 1.0)
    rows = torch.tensor(np.stack(columns, 1), dtype=torch.float32)
    for count in (9, 1):
        (probabilities,) = program(rows[:count])
        np.testing.assert_allclose(probabilities, table.predict_proba(new[:count], readout="lp"), atol=1e-5)


@pytest.mark.parametrize("to", ["torch", pytest.param("onnx", marks=pytest.mark.long)])
def test_seconds_since_1970_keep_their_digits(to: str, folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "when": 1_700_000_000 + random.permutation(200) * 1.0,
            "wet": random.choice(["yes", "no"], 200),
            "color": random.choice(["red", "blue"], 200),
        }
    )
    frame["side"] = np.where(frame["when"] > 1_700_000_100, "left", "right")
    out = folder / f"seconds-{to}"
    run = ncmi.train(frame, label_column="side", out=out, **QUICK | {"epochs": 30})
    new = pd.DataFrame({"when": 1_700_000_000.0 + np.arange(200), "wet": "yes", "color": "red"})
    expected = run.predict_proba(new)
    assert (run.predict(new) == np.where(new["when"] > 1_700_000_100, "left", "right")).mean() > 0.9
    if to == "torch":
        program = torch.export.load(run.to_torch(tmp_path / "t.pt2")).module()
        flags = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64).expand(200, 3)
        (probabilities,) = program(torch.cat([torch.tensor(new["when"].to_numpy())[:, None], flags], 1))
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(run.to_onnx(tmp_path / "t.onnx"))
        types = {given.name: given.type for given in session.get_inputs()}
        assert types == {"when": "tensor(double)", "wet": "tensor(string)", "color": "tensor(string)"}
        (probabilities,) = session.run(
            ["probabilities"], {name: new[[name]].to_numpy(None if name == "when" else object) for name in types}
        )
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("to", ["torch", pytest.param("onnx", marks=pytest.mark.long)])
def test_bags_of_any_size(to: str, bags: TrainedRun, tmp_path: Path) -> None:
    if to == "torch":
        program = torch.export.load(bags.to_torch(tmp_path / "bags.pt2", readout="cc")).module()
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(bags.to_onnx(tmp_path / "bags.onnx", readout="cc"))
    random = np.random.default_rng(1)
    for count in (1, 5, 70_000):
        bag = random.normal(size=(count, 6)).astype(np.float32)
        if to == "torch":
            probabilities, attention = program(torch.from_numpy(bag))
        else:
            probabilities, attention, label = session.run(["probabilities", "attention", "label"], {"inputs": bag})
            assert label.tolist() == [str(name) for name in bags.predict(bag, readout="cc")]
        np.testing.assert_allclose(probabilities, bags.predict_proba(bag, readout="cc"), atol=1e-5)
        assert attention.shape == (count,)
        assert float(attention.sum()) == pytest.approx(1, abs=1e-3)


def test_images_are_uint8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    samples = (random.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2)
    images = ncmi.train(samples, network="convnet", out=folder / "images", **QUICK)
    assert main(["export", str(images.path), "--to", "torch"]) == 0
    assert "uint8 [N, 1, 8, 8]" in capsys.readouterr().out
    program = torch.export.load(images.path / "model.pt2").module()
    pictures = random.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    (probabilities,) = program(torch.from_numpy(pictures))
    np.testing.assert_allclose(probabilities, images.predict_proba(pictures), atol=1e-5)


def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    table: TrainedRun,
    bags: TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "model.pt2"
    with pytest.raises(ValueError, match="readout head, cc or lp"):
        table.to_torch(target, readout="knn")
    recipe = bags.recipe.data
    squares = ncmi.train(recipe.name, network="transmil", out=tmp_path / "squares", heads=2, **QUICK)
    with pytest.raises(ValueError, match="TransMIL cannot be exported"):
        squares.to_torch(target)
    target.write_text("of somebody else")
    with pytest.raises(FileExistsError, match="overwrite"):
        table.to_torch(target)
    assert target.read_text() == "of somebody else"
    target.unlink()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        assert main(["export", str(table.path), "--out", str(target)]) == 2
        assert "ncmi[export]" in capsys.readouterr().err
    wrong = export.Deployed.encode
    monkeypatch.setattr(export.Deployed, "encode", lambda self, inputs: wrong(self, inputs) * 1.5)
    with pytest.raises(ValueError, match="differ from the run's"):
        table.to_torch(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squares"]

"""Runs and comparisons made from Python."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix

import ncmi
from ncmi.api.experiments import recipe_of
from ncmi.recipes import Augmentation, BagData, ImageData, Recipe, TableData
from ncmi.training import workers

QUICK: dict[str, Any] = {"epochs": 1, "accelerator": "cpu", "width": 16}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> ncmi.ComparisonResults:
    folder = tmp_path_factory.mktemp("compared") / "c"
    losses = ["cross_entropy", "ncmi"]
    return ncmi.compare("wine", seeds=2, objectives=losses, out=folder, quiet=True, **QUICK)


def test_a_comparison_is_a_table_a_page_and_runs(compared: ncmi.ComparisonResults, tmp_path: Path) -> None:
    table = compared.table
    assert set(table["seeds"]) == {2}
    heads = table[table["readout"] == "head"].set_index("objective")["accuracy_mean"]
    runs = [compared.load("ncmi", seed).results.readouts["head"].test.accuracy.value for seed in (0, 1)]
    assert heads["NCMI"] == pytest.approx(np.mean(runs))
    assert compared.load("cross_entropy").path.name == "cross_entropy-seed0"
    assert sorted(compared.runs) == ["cross_entropy-seed0", "cross_entropy-seed1", "ncmi-seed0", "ncmi-seed1"]
    with pytest.raises(KeyError, match="ncmi-seed1"):
        compared.load("ncmi", 7)
    with pytest.raises(ValueError, match="cross_entropy-seed0"):
        ncmi.load(compared.path)
    assert compared.report().read_bytes().startswith(b"<!doctype html")
    assert compared.load("ncmi").report(tmp_path / "run.html").read_bytes().startswith(b"<!doctype html")
    assert "NCMI" in repr(compared)
    assert f"{100 * heads['NCMI']:.2f}" in compared._repr_html_()


def test_a_comparison_goes_on(compared: ncmi.ComparisonResults) -> None:
    losses = ["cross_entropy", "ncmi"]
    more = ncmi.compare("wine", seeds=3, objectives=losses, out=compared.path, resume=True, quiet=True, **QUICK)
    assert len(more.runs) == 6
    with pytest.raises(ValueError, match="resume") as caught:
        ncmi.compare("wine", seeds=2, objectives=losses, out=compared.path, quiet=True, **QUICK)
    assert "--" not in str(caught.value)


def test_a_comparison_is_tuned(tmp_path: Path) -> None:
    tuned = ncmi.compare("iris", seeds=1, objectives=["ncmi"], tune=True, out=tmp_path / "c", quiet=True, **QUICK)
    assert sorted(tuned.runs) == ["ncmi-seed0"]
    assert (tuned.load("ncmi").path / "tuning.json").is_file()
    assert "was chosen by the accuracy of its validation part" in " ".join(repr(tuned).split())
    with pytest.raises(ValueError, match="tune needs a validation part beside") as caught:
        ncmi.compare("iris", tune=True, seeds=1, validation_fraction=0.0, out=tmp_path / "d", quiet=True)
    assert "--" not in str(caught.value)


def test_progress_is_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ncmi.train("iris", out=tmp_path / "run", **QUICK)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["1"] for line in lines), lines
    ncmi.compare("iris", seeds=1, objectives=["ncmi"], out=tmp_path / "c", **QUICK)
    assert "1/1" in capsys.readouterr().out
    ncmi.train("iris", out=tmp_path / "quiet", quiet=True, **QUICK)
    assert capsys.readouterr().out == ""


def recipe(data: Any, folder: Path, objective: str = "ncmi", network: str | None = None, **options: Any) -> Recipe:
    return recipe_of(data, folder, "data", objective, network, options)


def test_options_are_those_of_the_command_line(tmp_path: Path) -> None:
    made = recipe("iris", tmp_path, "focal", "mlp", epochs=7, gamma=3.0, test_fraction=0.3, width=5, seed=np.int64(4))
    assert (made.training.epochs, made.training.seed) == (7, 4)
    assert (made.objective.name, made.objective.gamma) == ("focal", 3.0)
    assert (made.data.test_fraction, made.network.name, made.network.width) == (0.3, "mlp", 5)
    varied = recipe("digits", tmp_path, augmentation=Augmentation.cifar())
    assert varied.training.augmentation == Augmentation.cifar()
    with pytest.raises(TypeError, match=r"'epoch'.*epochs"):
        recipe("iris", tmp_path, epoch=7)
    with pytest.raises(TypeError, match="gamma"):
        recipe("iris", tmp_path, gamma=3.0)
    with pytest.raises(ValueError, match="epochs"):
        recipe("iris", tmp_path, epochs="many")
    with pytest.raises(ValueError, match=r"'typo'.*ncmi"):
        recipe("iris", tmp_path, "typo")


def test_the_index_of_a_frame_is_no_column_unless_an_option_names_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(40.0) % 7, "kind": ["x", "y"] * 20})
    index = pd.MultiIndex.from_arrays([np.arange(40) // 2, frame["kind"]], names=["patient", "kind"])
    named = frame.set_axis(index)
    assert recipe(named, tmp_path).data.name == recipe(frame, tmp_path).data.name
    grouped = recipe(named, tmp_path, group_column="patient").data
    assert set(pd.read_parquet(grouped.name).columns) == {"a", "kind", "patient"}
    beside = recipe((named[["a"]], named["kind"]), tmp_path, drop=["patient"]).data
    assert set(pd.read_parquet(beside.name).columns) == {"a", "kind", "patient"}
    told = {"label_column": "kind", "id_column": "patient"}
    run = ncmi.train(named, out=tmp_path / "run", quiet=True, **told, **QUICK)
    assert run.columns == ("a",)
    # a frame that is predicted is looked into for what it lacks
    predicted = run.predict_frame(named.head(3))
    assert predicted["id"].tolist() == ["0", "0", "1"]
    np.testing.assert_array_equal(run.predict(named[["a"]]), run.predict(named.set_index("a", append=True)))


def test_columns_of_any_type_are_trained_on(tmp_path: Path) -> None:
    number = np.arange(40.0)
    frame = pd.DataFrame(
        {
            "cut": pd.cut(number % 9, 3),
            "mixed": pd.Series([1, "a"] * 20, dtype=object),
            "large": pd.Series([10**30, 3] * 20, dtype=object),
            "sparse": pd.arrays.SparseArray([0, 0, 0, 1] * 10),
            "kind": [pd.Interval(0, 1), pd.Interval(1, 2)] * 20,
        }
    )
    run = ncmi.train(frame, label_column="kind", out=tmp_path / "run", quiet=True, **QUICK)
    assert run.classes.tolist() == ["(0, 1]", "(1, 2]"]
    kinds = {column.name: column.kind for column in run._predictor.signature.preprocessing.columns}
    assert kinds == {"cut": "category", "mixed": "category", "large": "number", "sparse": "number"}
    assert len(run.predict(frame)) == 40
    with pytest.raises(ValueError, match="'large' holds numbers beyond float64"):
        recipe(frame.assign(large=pd.Series([10**400, 3] * 20, dtype=object)), tmp_path)


def test_data_from_memory_is_kept_once_and_by_its_content(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "kind": ["x", "y"] * 2})
    first = recipe(frame, tmp_path).data
    assert isinstance(first, TableData)
    assert Path(first.name).parent == tmp_path / "data"
    pd.testing.assert_frame_equal(pd.read_parquet(first.name), frame)
    assert recipe(frame.copy(), tmp_path).data.name == first.name
    assert recipe(frame.assign(a=[1.0, 2.0, 3.0, 5.0]), tmp_path).data.name != first.name
    assert recipe(frame[["kind", "a"]], tmp_path).data.name != first.name
    beside = recipe((frame[["a"]], frame["kind"]), tmp_path).data
    assert beside.label_column == "kind"
    assert set(pd.read_parquet(beside.name).columns) == {"a", "kind"}
    unnamed = recipe((frame[["a"]], list("xyxy")), tmp_path).data
    assert unnamed.label_column == "label"
    arrays = recipe((np.eye(4), [0, 1, 0, 1]), tmp_path).data
    with np.load(arrays.name) as kept:
        np.testing.assert_array_equal(kept["x"], np.eye(4))
        np.testing.assert_array_equal(kept["y"], [0, 1, 0, 1])
    assert isinstance(recipe((np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), tmp_path).data, ImageData)
    pictures = recipe(([Image.new(mode, (9, 8), "white") for mode in ("L", "RGB")], pd.Series([10, 9])), tmp_path).data
    with np.load(pictures.name) as kept:
        np.testing.assert_array_equal(kept["x"], np.full((2, 3, 8, 9), 255))
        np.testing.assert_array_equal(kept["y"], [10, 9])
    assert recipe(frame.set_axis([0, 1], axis=1), tmp_path, label_column=1).data.label_column == "1"
    bags = [np.full((n, 3), float(n)) for n in (1, 2)]
    assert isinstance(recipe((bags, [0, 1]), tmp_path).data, BagData)
    before = sorted((tmp_path / "data").iterdir())
    for data, message in (
        ((np.eye(4), [0, 1]), "4 samples and 2 labels"),
        ((frame, [0, 1]), "4 rows and 2 labels"),
        (np.eye(4), r"\(X, y\)"),
        ((np.array([[1, "a"]] * 4, dtype=object), [0, 1, 0, 1]), "no numbers .*'a'.*: give a data frame"),
        (([[1, "a"]] * 4, [0, 1, 0, 1]), "no numbers .*'a'.*: give a data frame"),
        ((frame, frame["kind"]), "'kind'"),
        (object(), r"\(X, y\)"),
        ((np.eye(4), ["a", None, "a", "b"]), "row 1 .*no label"),
        ((np.eye(4), ["a", "b", np.nan, np.nan]), "row 2 .*no label; 2 such"),
        ((frame[["a"]], pd.Series([1, 2, None, 1], dtype="Int64")), "row 2 .*no label"),
        ((csr_matrix(np.eye(4)), [0, 1, 0, 1]), "toarray"),
        ((["1.png", "2.png"], [0, 1]), "folder"),
        (([Image.new("L", (8, 8)), Image.new("L", (8, 9))], [0, 1]), "2 sizes"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe(data, tmp_path)
    assert sorted((tmp_path / "data").iterdir()) == before


def test_a_fresh_process_does_not_see_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(tmp_path / "script.py")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", script, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert get_preparation_data("worker")["init_main_from_path"] == script
    with workers._main_unseen():
        told = get_preparation_data("worker")
    assert not {"init_main_from_path", "init_main_from_name"} & set(told)
    assert sys.modules["__main__"].__file__ == script


@pytest.mark.long
def test_a_script_needs_no_guard_and_a_light_import(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import ncmi\n"
        "assert not {'torch', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "result = ncmi.compare('iris', seeds=1, objectives=['ncmi'], epochs=1, accelerator='cpu', workers=1)\n"
        "print(len(result.runs), 'runs')\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 runs\n")

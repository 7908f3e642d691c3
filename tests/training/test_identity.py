"""A run knows its data: judged and resumed on what it was begun with, wherever that is asked from, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncmi.recipes import Network, Recipe, TableData, Training
from ncmi.training.evaluation import evaluate_run
from ncmi.training.extension import extend
from ncmi.training.identity import contents_of_table
from ncmi.training.prediction import predict
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolder, RunFolderError
from ncmi.training.schema import DataRecord, read_record


def people(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, rows)
    height = np.where(random.random(rows) < 0.1, np.nan, kind + random.normal(0, 0.3, rows))
    color = pd.Series(np.array(["red", "green", "blue"])[(kind + (random.random(rows) < 0.2)) % 3])
    return pd.DataFrame(
        {
            "name": [f"p{i}" for i in range(rows)],
            "height": height.round(4),
            "color": color,
            "kind": np.array(["01", "1", "x"])[kind],
        }
    )


def recipe_on(path: Path | str, **fields: object) -> Recipe:
    data = TableData(str(path), label_column="kind", id_column="name", **fields)  # type: ignore[arg-type]
    return Recipe(data, Network("mlp", width=8, depth=1, feature_dim=8), training=Training(epochs=2, threads=1))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    people().to_csv(folder / "people.csv", index=False)
    train(recipe_on(folder / "people.csv"), folder / "run")
    return folder


def test_what_was_understood_is_kept(begun: Path) -> None:
    record = read_record(begun / "run" / "data.json", DataRecord)
    assert record.paths == {"name": str(begun / "people.csv")}
    assert (record.samples, list(record.classes)) == (90, ["01", "1", "x"])
    assert sum(map(sum, record.parts.values())) == 90
    assert "label 'kind'" in record.summary
    results = evaluate_run(begun / "run")
    assert results.class_names == ["01", "1", "x"]
    assert results.readouts["head"].test == RunFolder(begun / "run").results().readouts["head"].test


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.sample(frac=1, random_state=1), "the same rows in another order"),
        (lambda f: f.assign(color=f["color"].where(f.index != 7, "black")), "other values in 'color'"),
        (lambda f: f.iloc[:-1], "90 samples, now 89"),
        (lambda f: f.assign(kind=f["kind"].where(f.index != 3, "01" if f["kind"][3] != "01" else "x")), "other labels"),
        (lambda f: f.rename(columns={"color": "paint"}), "without column 'color'"),
        (lambda f: f.assign(kind=f["kind"].replace("x", "y")), "without 'x' and with 'y'"),
    ],
)
def test_other_data_is_an_error_that_says_what_has_changed(
    begun: Path, tmp_path: Path, change: object, words: str
) -> None:
    own = begun / "people.csv"
    kept = own.read_bytes()
    try:
        change(people()).to_csv(own, index=False)  # type: ignore[operator]
        with pytest.raises(RunFolderError) as caught:
            evaluate_run(begun / "run")
        assert words in str(caught.value)
        assert str(own) in str(caught.value)
        with pytest.raises(RunFolderError):
            train(recipe_on(own), begun / "run", resume=True)
    finally:
        own.write_bytes(kept)
    evaluate_run(begun / "run")


@pytest.mark.parametrize("state", ["gone", "changed"])
def test_other_data_is_judged_without_the_runs_own(begun: Path, tmp_path: Path, state: str) -> None:
    other = people(seed=1).replace({"color": {"red": "violet"}})
    other = other[other["kind"] != "x"]
    other.to_csv(tmp_path / "other.csv", index=False)
    whole = evaluate_run(begun / "run", str(tmp_path / "other.csv"))
    assert any("'color'" in note for note in whole.notes)  # categories that training had not
    own, kept = begun / "people.csv", (begun / "people.csv").read_bytes()
    try:
        own.unlink()
        if state == "changed":
            people(seed=2).to_csv(own, index=False)
        alone = evaluate_run(begun / "run", str(tmp_path / "other.csv"))
        with pytest.raises((OSError, ValueError)):
            evaluate_run(begun / "run", str(tmp_path / "other.csv"), ood=["wine"])
        with pytest.raises((OSError, ValueError)):
            evaluate_run(begun / "run")
    finally:
        own.write_bytes(kept)
    assert list(alone.readouts) == ["head", "cc", "lp"]
    for name, readout in alone.readouts.items():
        assert readout.test.accuracy == whole.readouts[name].test.accuracy
        assert (readout.calibration, readout.fit) == (None, None)
    assert len(alone.notes) == len(whole.notes) + 1


def test_the_same_name_in_another_folder_is_not_taken(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(begun)
    train(recipe_on("people.csv"), "relative")
    expected = evaluate_run("relative")
    people(seed=5).to_csv(tmp_path / "people.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert evaluate_run(begun / "relative") == expected  # on its own data, by the path that it was begun with
    (begun / "people.csv").rename(begun / "away.csv")
    try:
        with pytest.raises(RunFolderError, match="has changed"):
            evaluate_run(begun / "relative")
    finally:
        (begun / "away.csv").rename(begun / "people.csv")


def test_digests_do_not_depend_on_how_the_file_is_written(begun: Path, tmp_path: Path) -> None:
    from ncmi.data.load import load_samples

    tables = []
    for name, options in (("a.csv", {}), ("b.tsv", {"sep": "\t"}), ("c.csv", {"sep": ";", "decimal": ","})):
        people().to_csv(tmp_path / name, index=False, **options)
        tables.append(load_samples(TableData(str(tmp_path / name), label_column="kind", id_column="name")))
    digests = {contents_of_table(table).ordered for table in tables}  # type: ignore[arg-type]
    assert len(digests) == 1


def test_rows_are_predicted_by_name_in_any_order_and_what_cannot_be_is_told(begun: Path, tmp_path: Path) -> None:
    frame = people(20, seed=9).drop(columns="kind")
    frame.to_csv(tmp_path / "plain.csv", index=False)
    turned = frame.iloc[:, ::-1].assign(further=1).astype(object)
    turned.loc[2, "height"] = 1e300
    turned.loc[3, "color"] = "unheard of"
    turned.loc[4, "name"] = "=1+1"
    turned.to_csv(tmp_path / "turned.csv", index=False)
    plain = predict(begun / "run", tmp_path / "plain.csv", tmp_path / "plain-out.csv")
    marked = predict(begun / "run", tmp_path / "turned.csv", tmp_path / "turned-out.csv")
    one, two = (pd.read_csv(tmp_path / f"{name}-out.csv") for name in ("plain", "turned"))
    assert (plain.rows, plain.skipped, marked.rows) == (20, (), 19)
    assert [name for name, _ in marked.skipped] == ["p2"]
    assert any("'color'" in note for note in marked.notes)
    assert two["id"].tolist() == ["p0", "p1", "p2", "p3", "'=1+1", *(f"p{i}" for i in range(5, 20))]
    same = [i for i in range(20) if i not in (2, 3)]
    assert one["p(01)"][same].tolist() == two["p(01)"][same].tolist()
    assert two["prediction"].isna().tolist() == [i == 2 for i in range(20)]
    left = predict(begun / "run", tmp_path / "turned.csv", tmp_path / "left.csv", bad="skip")
    assert (left.rows, len(pd.read_csv(tmp_path / "left.csv"))) == (19, 19)
    with pytest.raises(ValueError, match="p2"):
        predict(begun / "run", tmp_path / "turned.csv", tmp_path / "none.csv", bad="error")
    frame.drop(columns="height").to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(ValueError, match="'height'"):
        predict(begun / "run", tmp_path / "short.csv", tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("out", ["people.csv", "run/results.json", "new.csv"])
def test_out_is_never_an_input(begun: Path, out: str) -> None:
    people(5).to_csv(begun / "new.csv", index=False)
    kept = (begun / out).read_bytes()
    with pytest.raises(ValueError, match="one of the inputs"):
        predict(begun / "run", begun / "new.csv", begun / out, overwrite=True)
    assert (begun / out).read_bytes() == kept


def test_every_readout_predicts(begun: Path, tmp_path: Path) -> None:
    people(30, seed=3).to_csv(tmp_path / "new.csv", index=False)
    tables = {}
    for readout in ("head", "cc", "lp", "knn"):
        predict(begun / "run", tmp_path / "new.csv", tmp_path / f"{readout}.csv", readout=readout)
        tables[readout] = pd.read_csv(tmp_path / f"{readout}.csv")
    on = evaluate_run(begun / "run", str(tmp_path / "new.csv"))
    truth = people(30, seed=3)["kind"]
    for readout in tables:
        said = pd.read_csv(tmp_path / f"{readout}.csv", dtype=str)["prediction"]
        accuracy = (said == truth).mean()
        assert accuracy == pytest.approx(on.readouts[readout].test.accuracy.value)


def test_other_data_may_lack_a_class_and_unknown_ones_are_named(begun: Path, tmp_path: Path) -> None:
    frame = people(40, seed=2)
    frame[frame["kind"] != "x"].to_csv(tmp_path / "two.csv", index=False)
    assert evaluate_run(begun / "run", str(tmp_path / "two.csv")).class_names == ["01", "1", "x"]
    frame.assign(kind=frame["kind"].replace("x", "zebra")).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match="'zebra'"):
        evaluate_run(begun / "run", str(tmp_path / "other.csv"))


def test_without_a_test_part_the_validation_part_is_judged(begun: Path, tmp_path: Path) -> None:
    results = train(recipe_on(begun / "people.csv", test_fraction=0), tmp_path / "run")
    assert (results.judged, results.num_test, results.num_validation) == ("validation", 0, 14)
    assert results.readouts["head"].test.samples == 14
    assert results.readouts["head"].validation is None
    assert evaluate_run(tmp_path / "run").readouts["head"].test == results.readouts["head"].test
    everything = recipe_on(begun / "people.csv", test_fraction=0, validation_fraction=0)
    results = train(everything, tmp_path / "all")
    assert (results.judged, results.num_train) == ("train", 90)


def test_folds_and_files_of_ones_own(begun: Path, tmp_path: Path) -> None:
    tested = []
    for fold in range(3):
        recipe = recipe_on(begun / "people.csv", folds=3, fold=fold, split_seed=0)
        results = train(recipe, tmp_path / f"fold{fold}")
        assert (results.fold, results.folds) == (fold, 3)
        tested.append(results.num_test)
    assert tested == [30, 30, 30]
    people(24, seed=4).to_csv(tmp_path / "test.csv", index=False)
    recipe = recipe_on(begun / "people.csv", test=str(tmp_path / "test.csv"))
    results = train(recipe, tmp_path / "own")
    assert (results.num_test, results.num_train + results.num_validation) == (24, 90)
    record = read_record(tmp_path / "own" / "data.json", DataRecord)
    assert record.paths["test"] == str(tmp_path / "test.csv")
    with pytest.raises(ValueError, match="give one"):
        replace(recipe.data, folds=3)


def test_a_run_on_data_that_has_changed_is_not_made_longer(tmp_path: Path) -> None:
    run, table = tmp_path / "run", tmp_path / "people.csv"
    people().to_csv(table, index=False)
    train(recipe_on(table), run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    people().iloc[::-1].to_csv(table, index=False)
    with pytest.raises(RunFolderError, match="has changed"):
        extend(run, 50)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before

"""What users bring that cannot be used: told in a line that names it and the cure, before anything is trained."""

from __future__ import annotations

import csv
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from slide_helpers import WIDTH, slide_recipe, write_cohort

from ncmi.cli.output import RunCounter, print_cohort, print_information, print_results
from ncmi.data.bags.bag import BagError, UnusableBag
from ncmi.data.bags.cohort import load_cohort
from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.splits import split_cohort
from ncmi.files import check_writable
from ncmi.recipes import BagData
from ncmi.recipes.names import NOT_THE_TEST_PART
from ncmi.training import checkpoint
from ncmi.training.prediction import predict
from ncmi.training.run import train
from ncmi.training.run_folder import RunFolderError
from ncmi.training.schema import InformationRecord


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort")


def change_slide(table: Path, slide: str, change: Any) -> Path:
    path = table.parent / "features" / f"{slide}.h5"
    with h5py.File(path, "r+") as file:
        values = change(file["features"][:])
        del file["features"], file["coords"]
        file["features"] = values
    return path


def interrupted(path: Path, recipe: Any) -> None:
    """A run that stops after its first epoch."""

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, path, on_epoch=stop)


def test_what_a_worker_finds_wrong_can_come_back_from_it() -> None:
    error = pickle.loads(pickle.dumps(UnusableBag(Path("a.h5"), "an empty bag")))
    assert (str(error), error.reason) == (str(UnusableBag(Path("a.h5"), "an empty bag")), "an empty bag")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("slide07,", "other,"), r"1 slides are gone \('slide07'\)"),
        (lambda text: text.replace("patient2,", "patient3,"), r"slides are of another patient, class or part"),
        (lambda text: text.replace("other\n", "third\n"), r"classes were \[.*'other'.*, now \[.*'third'"),
    ],
    ids=["slide", "patient", "class"],
)
def test_a_stopped_run_goes_on_with_the_same_slides_or_not(tmp_path: Path, table: Path, change: Any, told: str) -> None:
    recipe = slide_recipe(table, epochs=3)
    interrupted(tmp_path / "run", recipe)
    before = table.read_text()
    text = change(before)
    assert text != before
    table.write_text(text)
    if "other," in text:
        (table.parent / "features" / "slide07.h5").rename(table.parent / "features" / "other.h5")
    with pytest.raises(RunFolderError, match=rf"have changed since this run was begun: .*{told}.*train anew"):
        train(recipe, tmp_path / "run", resume=True)
    table.write_text(before)
    if "other," in text:
        (table.parent / "features" / "other.h5").rename(table.parent / "features" / "slide07.h5")
    assert train(recipe, tmp_path / "run", resume=True).epochs == 3


def test_a_test_part_of_one_class(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table.read_text().splitlines()
    negative = next(name for name in rows if name.endswith(rows[1].rsplit(",", 1)[1])).split(",")[0]
    split = ["slide,train,val,test"]
    names = [row.split(",")[0] for row in rows[1:]]
    patient = {row.split(",")[0]: row.split(",")[1] for row in rows[1:]}
    for name in names:
        if name == negative:
            split.append(f"{name},False,False,True")
        elif patient[name] != patient[negative]:
            split.append(f"{name},TRUE,,")
    (tmp_path / "splits.csv").write_text("\n".join(split))
    data = {"splits": str(tmp_path / "splits.csv"), "bad": "skip"}
    results = train(slide_recipe(table, data=data), tmp_path / "run")
    print_results(results)
    assert "NCMI –" in capsys.readouterr().out
    RunCounter("runs", 1).advance("run", results)
    assert "AUC –" in capsys.readouterr().out


@pytest.mark.parametrize(("validation", "judged"), [(0.3, "validation"), (0.0, "train")])
def test_no_test_part(
    tmp_path: Path, table: Path, validation: float, judged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation part, or else the training part, is judged in its place, and that is said."""
    data = {"test_fraction": 0.0, "validation_fraction": validation}
    results = train(slide_recipe(table, data=data, selection="last"), tmp_path / "run")
    assert (results.judged, results.num_test) == (judged, 0)
    part = results.num_validation if judged == "validation" else results.num_train
    with (tmp_path / "run/slides.csv").open(newline="") as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    assert (len(parts), parts.count(judged)) == (36, part)
    for readout in results.readouts.values():
        assert readout.test.samples == part
        assert readout.calibration is None
    print_results(results)
    assert NOT_THE_TEST_PART[judged] in " ".join(capsys.readouterr().out.split())


def test_labels_beside_the_features(tmp_path: Path) -> None:
    x, bag = np.random.default_rng(0).normal(size=(8, 3)), np.arange(4).repeat(2)
    np.savez(tmp_path / "bags.npz", x=x, bag=bag, bag_label=np.array([0.4, 0.6, 1.0, np.nan]))
    source = open_bags(tmp_path / "bags.npz")
    assert [source.label(name) for name in source.names] == ["0.4", "0.6", "1", None]
    with pytest.raises(BagError, match=r"1 of 4 slides cannot be used \('3': no label\)"):
        load_cohort(BagData(str(tmp_path / "bags.npz")))
    with h5py.File(tmp_path / "cohort.h5", "w") as file:
        for name, label in (("a", float("nan")), ("b", 1.0), ("c", b"tumor"), ("d", 2)):
            file[f"{name}/feat"] = x
            file[name].attrs["label"] = label
    source = open_bags(tmp_path / "cohort.h5")
    assert [source.label(name) for name in source.names] == [None, "1", "tumor", "2"]


def test_features_too_large_to_compute_with(tmp_path: Path, table: Path) -> None:
    change_slide(table, "slide03", lambda x: x.astype(np.float32) * 1e30)
    with pytest.raises(BagError, match=r"'slide03': features up to \d\.\de\+3\d, whose squares float32 does not hold"):
        train(slide_recipe(table), tmp_path / "run")


def test_a_full_disk(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"safetensors: cannot be written \(No space left .*make room, then resume"):
        train(slide_recipe(table), tmp_path / "run")


def test_names_with_brackets_are_text(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(table.read_text().replace("one\n", "one [/b]\n").replace("other\n", "[2]\n"))
    data = BagData(str(table.parent / "features"), labels=str(table))
    cohort = load_cohort(data)
    print_cohort(cohort, split_cohort(cohort, data, 0))
    printed = capsys.readouterr().out
    assert "one [/b]" in printed
    assert "[2]" in printed


@pytest.mark.parametrize("coords", [torch.zeros(5, 2, requires_grad=True), torch.ones(5, 2).bfloat16()])
def test_positions_of_any_tensor(tmp_path: Path, coords: torch.Tensor) -> None:
    torch.save({"features": torch.randn(5, 3), "coords": coords}, tmp_path / "a.pt")
    found = open_bags(tmp_path).load("a").coords
    assert found is not None
    assert torch.equal(found, coords.detach().long())


def test_features_in_folders_below(tmp_path: Path, table: Path) -> None:
    assert open_bags(table.parent).names  # the usual names of such folders are found
    (table.parent / "features").rename(table.parent / "batch1")
    with pytest.raises(BagError, match=r"no bags of features here, but in '.*batch1': give that folder"):
        open_bags(table.parent)


def test_slides_that_a_run_cannot_predict(tmp_path: Path, table: Path) -> None:
    train(slide_recipe(table), tmp_path / "run")
    new = tmp_path / "new"
    new.mkdir()
    for name, width in (("good", WIDTH), ("wide", WIDTH + 1)):
        with h5py.File(new / f"{name}.h5", "w") as file:
            file["features"] = np.ones((3, width), np.float32)
    with pytest.raises(BagError, match="wide: features of width"):
        predict(tmp_path / "run", new, tmp_path / "p.csv", bad="error")
    assert not (tmp_path / "p.csv").exists()
    predicted = predict(tmp_path / "run", new, tmp_path / "p.csv", bad="skip")
    assert (predicted.rows, [name for name, _ in predicted.skipped]) == (1, ["wide"])
    (new / "good.h5").unlink()
    with pytest.raises(BagError, match=r"no slide can be used .*wide.*encoder"):
        predict(tmp_path / "run", new, tmp_path / "q.csv", bad="skip")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        predict(tmp_path / "run", new, tmp_path, overwrite=True)
    with pytest.raises(OSError, match=r"p\.csv.q\.csv: cannot be written .*choose another place"):
        check_writable(tmp_path / "p.csv" / "q.csv")


def test_an_existing_folder_says_how_to_go_on(tmp_path: Path, table: Path) -> None:
    recipe = slide_recipe(table)
    interrupted(tmp_path / "run", replace(recipe, training=replace(recipe.training, epochs=3)))
    with pytest.raises(RunFolderError, match="ncmi resume"):
        train(recipe, tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        train(recipe, tmp_path / "file")


def test_information_that_is_not_defined(capsys: pytest.CaptureFixture[str]) -> None:
    undefined = dict.fromkeys(("separation", "ncmi", "cross_entropy_separation", "cross_entropy_ncmi"))
    print_information(InformationRecord(cmi=0.5, **undefined))
    assert "Γ (centroid KL) – nats   NCMI –" in capsys.readouterr().out


def test_tables_of_spreadsheets(tmp_path: Path, table: Path) -> None:
    rows = table.read_text().splitlines()
    text = "\n".join(["sep=;", *(row.replace(",", ";") for row in rows), ";;;", rows[1].replace(",", ";")])
    table.write_text(text + "\n")
    cohort = load_cohort(BagData(str(table.parent / "features"), labels=str(table)))
    assert len(cohort.slides) == len(rows) - 1
    assert any("1 rows that say of a slide what another row says" in note for note in cohort.notes)


def test_a_split_that_another_goes_before(table: Path) -> None:
    data = BagData(str(table.parent / "features"), labels=str(table), folds=3, holdout_column="center", holdout=("2",))
    notes = load_cohort(data).notes
    assert "--data.folds says what the test part is; --data.holdout-column is not used" in notes
    assert not any("not used" in note for note in load_cohort(replace(data, folds=0)).notes)

"""What users of slides bring that cannot be used: each is a line with the cure, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from slide_helpers import WIDTH, slide_recipe, write_cohort

from ncmi.cli import app
from ncmi.training.run import train

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    train(slide_recipe(write_cohort(folder / "cohort")), folder / "run")
    return folder


def features(folder: Path) -> Path:
    return folder / "cohort" / "features"


def edit(name: str, change: Callable[[h5py.File], object]) -> Change:
    """Change one slide's file."""

    def apply(folder: Path) -> None:
        with h5py.File(features(folder) / f"{name}.h5", "r+") as file:
            change(file)

    return apply


def put(key: str, values: object) -> Change:
    """Put something else for a data set of the first slide."""

    def apply(file: h5py.File) -> None:
        if key in file:
            del file[key]
        file[key] = values

    return edit("slide00", apply)


def labels(change: Callable[[str], str]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "cohort" / "labels.csv"
        path.write_text(change(path.read_text()))

    return apply


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def nothing(folder: Path) -> None:
    """What is wrong is the command."""


CHECK = ["slides", "check", "{features}", "--data.labels", "{labels}"]
ATTEND = ["slides", "attend", "{run}", "{features}", "--out", "{out}"]
TILE = ["slides", "tile", "{slides}", "--out", "{out}"]
EMBED = ["slides", "embed", "{tiles}", "{slides}", "--out", "{out}"]
TABLE3 = ["reproduce", "table3", "--out", "{out}", "--camelyon17", "{features}", "--camelyon17-labels", "{labels}"]
ONES = np.ones((3, WIDTH), np.float16)
CASES: dict[str, tuple[Change, list[str], str]] = {
    # features
    "text for features": (put("features", np.full((3, WIDTH), b"a")), CHECK, "instead of numbers"),
    "features of four dimensions": (put("features", np.ones((2, 3, 4, 5), "f4")), CHECK, "embed them first"),
    "complex features": (put("features", np.ones((3, WIDTH), complex)), CHECK, "instead of numbers"),
    "infinite features": (put("features", ONES * np.inf), CHECK, "NaN or infinite"),
    "no features": (edit("slide00", lambda file: file.pop("features")), CHECK, "features-key"),
    "one slide by another encoder": (
        lambda folder: [
            edit(name, lambda file, name=name: file.attrs.update(encoder="uni" if name != "slide03" else "conch"))(
                folder
            )
            for name in ("slide01", "slide02", "slide03")
        ],
        CHECK,
        "make all with one encoder",
    ),
    "a copy under another patient's name": (
        lambda folder: (features(folder) / "slide30.h5").write_bytes((features(folder) / "slide00.h5").read_bytes()),
        CHECK,
        "the same features as slide",
    ),
    "coords in text": (put("coords", [b"1,2", b"3,4"]), CHECK, "coords"),
    "coords of another number": (put("coords", np.zeros((2, 2), int)), CHECK, "coords of shape"),
    "a folder of Zarr": (
        lambda folder: (folder / "zarr" / "a.zarr").mkdir(parents=True),
        ["slides", "attend", "{run}", "{root}/zarr", "--out", "{out}"],
        "Zarr",
    ),
    "an archive that is none": (write("a.npz", b"PK\x03\x04rest"), ["slides", "check", "{root}/a.npz"], "a.npz"),
    "a pickle of objects": (
        lambda folder: torch.save({"x": object()}, folder / "a.pt"),
        ["slides", "attend", "{run}", "{root}/a.pt", "--out", "{out}"],
        "Python objects",
    ),
    # tables
    "an empty table": (labels(lambda text: ""), CHECK, "labels.csv"),
    "a header alone": (labels(lambda text: text.splitlines()[0] + "\n"), CHECK, "labels.csv"),
    "binary for a table": (write("cohort/labels.csv", bytes(range(256)) * 4), CHECK, "labels.csv"),
    "one class": (labels(lambda text: text.replace(",one", ",none").replace(",other", ",none")), CHECK, "one class"),
    "labels that are NA": (labels(lambda text: text.replace(",one\n", ",NA\n", 1)), CHECK, "no label"),
    "two columns of labels": (
        labels(lambda text: text.replace("label", "label,target", 1).replace(",one\n", ",one,a\n")),
        CHECK,
        "labels.csv",
    ),
    # splits
    "one file for ten folds": (
        write("splits.csv", b"train,val,test\nslide00,,slide01\n"),
        [*CHECK, "--data.folds", "10", "--data.splits", "{root}/splits.csv"],
        "{fold}",
    ),
    "a folder without splits": (nothing, [*CHECK, "--data.folds", "3", "--data.splits", "{root}"], "splits_0.csv"),
    "a column that holds no folds": (nothing, [*CHECK, "--data.folds", "4", "--data.split-column", "center"], "folds"),
    # attend
    "a slide that is not there": (nothing, [*ATTEND, "--only", "nowhere"], "--only"),
    "no run": (nothing, ["slides", "attend", "{root}", "{features}", "--out", "{out}"], "recipe.json"),
    "a folder of slides that is none": (nothing, [*ATTEND, "--slides", "{root}/nowhere"], "no such folder"),
    "features of another width": (
        lambda folder: [put("features", np.ones((3, 5), "f4"))(folder), put("coords", np.zeros((3, 2), int))(folder)],
        [*ATTEND, "--only", "slide00"],
        "embed the slides by the encoder",
    ),
    "fewer than no patches": (nothing, [*ATTEND, "--top", "-1"], "--top"),
    # slides
    "a table of pixel sizes in words": (
        write("mpp.csv", b"slide,mpp\na,forty\n"),
        [*TILE, "--slide-mpps", "{root}/mpp.csv"],
        "microns per pixel",
    ),
    "a pixel size of a slide that is not there": (
        write("mpp.csv", b"slide,mpp\nother,0.25\n"),
        [*TILE, "--slide-mpps", "{root}/mpp.csv"],
        "no slide 'other'",
    ),
    "no slides": (nothing, ["slides", "tile", "{root}/run", "--out", "{out}"], "holds no slide"),
    "a mean of 0 … 255": (nothing, [*EMBED, "--mean", "123", "116", "103"], "divide values of 0…255 by 255"),
    "a deviation of zero": (nothing, [*EMBED, "--std", "0", "0.5", "0.5"], "above 0"),
    "less than no patches": (nothing, [*TILE, "--max-patches", "-1"], "max_patches"),
    # what other tools write, and slips of the pen
    "features of a slide encoder": (
        lambda folder: [put("features", np.ones(WIDTH, "f4"))(folder), put("coords", np.zeros((7, 2), int))(folder)],
        CHECK,
        "give those of patches",
    ),
    "a group for features": (
        edit("slide00", lambda file: [file.pop("features"), file.create_group("features").create_group("uni")]),
        CHECK,
        "--data.features-key",
    ),
    "features that are all 0": (put("features", ONES * 0), CHECK, "all 0"),
    "a page of a server for features": (
        lambda folder: (features(folder) / "slide00.h5").write_text("<html>404</html>"),
        CHECK,
        "--data.bad skip",
    ),
    "a pointer of Git LFS": (
        lambda folder: (features(folder) / "slide00.h5").write_text("version https://git-lfs.github.com/spec/v1\n"),
        CHECK,
        "--data.bad skip",
    ),
    "files of two kinds": (
        lambda folder: torch.save(torch.ones(3, WIDTH), features(folder) / "a.pt"),
        CHECK,
        "keep one kind",
    ),
    "a folder for a table": (nothing, [*CHECK[:3], "--data.labels", "{features}"], "give a file"),
    "features for a table": (nothing, [*CHECK[:3], "--data.labels", "{features}/slide00.h5"], "give a CSV"),
    "a table for features": (nothing, ["slides", "check", "{labels}", "--data.labels", "{labels}"], "not bags"),
    "names of slides for labels": (nothing, [*CHECK, "--data.label-column", "slide_id"], "--data.label-column"),
    "a class that is named twice": (nothing, [*CHECK, "--data.classes", "none", "one", "none"], "name each class once"),
    "a class without slides": (
        nothing,
        [*CHECK, "--data.classes", "none", "one", "other", "fourth"],
        "no slide of class 'fourth'",
    ),
    "one class of three": (nothing, [*CHECK, "--data.classes", "none"], "name all classes"),
    "one fold": (nothing, [*CHECK, "--data.folds", "1"], "at least 2 folds"),
    "a fold too many": (nothing, [*CHECK, "--data.folds", "5", "--data.fold", "5"], "from 0 on"),
    "more folds than patients": (nothing, [*CHECK, "--data.folds", "100"], "no more folds"),
    "everything for the test": (nothing, [*CHECK, "--data.test-fraction", "1"], "below 1"),
    "all centers held out": (
        nothing,
        [*CHECK, "--data.holdout-column", "center", "--data.holdout", "0", "1", "2"],
        "training part",
    ),
    "values without a column": (nothing, [*CHECK, "--data.holdout", "1"], "belong together"),
    "no file of splits": (nothing, [*CHECK, "--data.splits", "{root}/nowhere.csv"], "check the path"),
    "labels for splits": (nothing, [*CHECK, "--data.splits", "{labels}"], "need train and test"),
    "a folder of folds, and no word of folds": (nothing, [*CHECK, "--data.splits", "{root}"], "--data.folds"),
    "a JSON of other folds": (
        write("splits.json", b'{"splits": [{"train": ["a"]}]}'),
        [*CHECK, "--data.folds", "2", "--data.splits", "{root}/splits.json"],
        "train_patients",
    ),
    "a name for a list of patients": (
        write("splits.json", b'{"splits": [{"train_patients": "a", "test_patients": "b"}]}'),
        [*CHECK, "--data.folds", "2", "--data.splits", "{root}/splits.json"],
        "no list",
    ),
    "a patient with two labels": (nothing, [*CHECK, "--data.unit", "patient"], "--data.unit slide"),
    "a table of slides that is not needed": (nothing, [*CHECK, "--data.slide-table", "{labels}"], "leave"),
    "a slide of two patients": (
        lambda folder: [
            write("slides.csv", b"slide,patient\nslide00,a\nslide00,b\n")(folder),
            write("patients.csv", b"patient,label\na,x\nb,y\n")(folder),
        ],
        [*CHECK[:3], "--data.labels", "{root}/patients.csv", "--data.slide-table", "{root}/slides.csv"],
        "keep one row a slide",
    ),
    "attention into the features": (nothing, [*ATTEND[:4], "--out", "{features}"], "choose another"),
    "attention into a file": (nothing, [*ATTEND[:4], "--out", "{labels}"], "choose another place"),
    "attention of a table": (nothing, ["slides", "attend", "{labels}", "{features}", "--out", "{out}"], "run folder"),
    "pixels of no size": (nothing, [*ATTEND, "--slide-mpp", "0"], "above 0"),
    "pixels of size NaN": (nothing, [*ATTEND, "--slide-mpp", "nan"], "above 0"),
    "patients for a run on slides": (nothing, [*ATTEND, "--slide-table", "{labels}"], "leave it out"),
    "predictions over the features": (
        nothing,
        ["predict", "{run}", "{features}", "--out", "{features}/slide00.h5", "--overwrite"],
        "choose another file",
    ),
    "patients of a few slides": (
        write("slides.csv", b"slide,patient\nslide00,a\n"),
        ["predict", "{run}", "{features}", "--slide-table", "{root}/slides.csv", "--out", "{out}/p.csv"],
        "add them",
    ),
    "slides without labels": (nothing, ["evaluate", "{run}", "--on", "{features}"], "(--labels)"),
    "a class that the run does not know": (
        labels(lambda text: text.replace(",one", ",three", 1)),
        ["evaluate", "{run}", "--on", "{features}", "--labels", "{labels}"],
        "correct or remove these rows",
    ),
    "labels of nothing": (nothing, ["evaluate", "{run}", "--labels", "{labels}"], "leave them out"),
    # table III
    "another cohort's table": (nothing, TABLE3, "as CAMELYON-17 names them"),
    "training for what has its own": (
        nothing,
        ["reproduce", "table1", "--out", "{out}", "--training.learning-rate", "0.1"],
        "table3",
    ),
    "folds for what has its own parts": (nothing, [*TABLE3, "--data.folds", "3"], "--data.folds"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_one_line_with_its_cure(
    case: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words, told = CASES[case]
    monkeypatch.chdir(tmp_path)
    for path in ("cohort/features", "slides"):
        (tmp_path / path).mkdir(parents=True)
    for source in [*(trained / "cohort").rglob("*.h5"), trained / "cohort" / "labels.csv"]:
        target = tmp_path / source.relative_to(trained)
        target.write_bytes(source.read_bytes())
    (tmp_path / "run").symlink_to(trained / "run")
    (tmp_path / "slides" / "a.png").write_bytes(b"not a picture")
    change(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = {name: tmp_path / name for name in ("run", "slides", "tiles", "out")}
    places |= {"root": tmp_path, "features": features(tmp_path), "labels": tmp_path / "cohort" / "labels.csv"}
    given = [word if word == "{fold}" else word.format(**places) for word in words]
    with pytest.raises((ValueError, OSError)) as error:
        app.run(given)
    message = str(error.value)
    assert told in message
    assert words[0] == "slides" or "--data.classes" not in message
    assert "\n" not in message.strip()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

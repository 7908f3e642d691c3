"""Patients of several slides: tables of patients, one label each, bags joined to one, predictions pooled."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from bag_writers import grid, values, write_h5, write_table
from slide_helpers import CLASSES, WIDTH, read, rows, slide_recipe, write_cohort

import ncmi
from ncmi.cli import app
from ncmi.data.bags.bag import BagError
from ncmi.data.bags.cohort import load_cohort
from ncmi.data.bags.labels import LabelError
from ncmi.data.bags.patients import JoinedBags
from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.splits import cohort_changes, describe_cohort, split_cohort
from ncmi.data.bags.stream import subsample
from ncmi.recipes import BagData
from ncmi.report import write_report
from ncmi.training.evaluation import evaluate_run
from ncmi.training.model import load_model
from ncmi.training.prediction import Predictor, predict
from ncmi.training.run import train


def features(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_h5(folder / f"{name}.h5", values(3 + number, seed=number), coords=grid(3 + number))
    return folder


def who_is_whose(data: BagData) -> dict[str, tuple[str, str | None]]:
    cohort = load_cohort(data)
    names = (None, *cohort.class_names)
    return {s.name: (s.patient, names[0 if s.label is None else s.label + 1]) for s in cohort.slides}


def test_slides_of_a_table_of_patients_by_their_names(tmp_path: Path) -> None:
    """The longest patient's name that a slide's name begins with; or a barcode."""
    bags = features(tmp_path / "features", "p1_a", "p1-b", "p10_a", "TCGA-AD-6964-01Z-00-DX1", "other_features")
    table = write_table(
        tmp_path / "patients.csv",
        [["p1", "no", 50], ["p10", "yes", 60], ["TCGA-AD-6964", "yes", 70]],
        "patient,label,age",
    )
    data = BagData(str(bags), labels=str(table))
    assert who_is_whose(data) == {
        "TCGA-AD-6964-01Z-00-DX1": ("TCGA-AD-6964", "yes"),
        "p1-b": ("p1", "no"),
        "p10_a": ("p10", "yes"),
        "p1_a": ("p1", "no"),
    }
    cohort = load_cohort(data)
    assert cohort.unused == ("other_features",)
    assert cohort.slides[-1].values == {"age": "50"}
    assert any("one row a patient: 4 slides" in note for note in cohort.notes)


def test_slides_of_a_table_of_patients_by_a_table_of_slides(tmp_path: Path) -> None:
    """STAMP's two tables: clinical data by patient, and which slide is whose."""
    bags = features(tmp_path / "features", "a", "b", "c")
    patients = write_table(tmp_path / "clini.csv", [["x", "no"], ["y", "yes"]], "PATIENT,LABEL")
    slides = write_table(
        tmp_path / "slide.csv", [["a.svs", "x"], ["b.svs", "x"], ["c.svs", "y"], ["d.svs", "z"]], "FILENAME,PATIENT"
    )
    data = BagData(str(bags), labels=str(patients), slide_table=str(slides))
    assert who_is_whose(data) == {"a": ("x", "no"), "b": ("x", "no"), "c": ("y", "yes")}
    assert any("1 slides are of patients without a row" in note for note in load_cohort(data).notes)
    # columns of other names, in both tables
    patients.write_text(patients.read_text().replace("PATIENT", "Person"))
    slides.write_text(slides.read_text().replace("PATIENT", "Person").replace("FILENAME", "Scan"))
    data = BagData(**{**vars(data), "patient_column": "Person", "slide_column": "Scan"})
    joined = load_cohort(BagData(**{**vars(data), "unit": "patient"}))
    assert [(slide.name, slide.names) for slide in joined.slides] == [("x", ("a", "b")), ("y", ("c",))]
    assert joined.instances == (7, 5)


@pytest.mark.parametrize(
    ("lines", "header", "cure"),
    [
        ([["q", "no"], ["r", "yes"]], "patient,label", "--data.slide-table"),
        ([["p1", "no"], ["p1", "yes"], ["p2", "no"]], "patient,label", "--data.slide-column"),
        ([["p1", "no"], ["p2", "yes"], ["p3", "no"]], "patient,label", "--data.bad skip"),
        ([["p1", "no"], ["", "yes"]], "patient,label", "line 3 has no patient"),
    ],
)
def test_tables_of_patients_that_do_not_fit(tmp_path: Path, lines: list[list[str]], header: str, cure: str) -> None:
    bags = features(tmp_path / "features", "p1_a", "p2_a")
    table = write_table(tmp_path / "patients.csv", lines, header)
    with pytest.raises(ValueError, match=cure):
        load_cohort(BagData(str(bags), labels=str(table)))


@pytest.mark.parametrize(
    ("lines", "header", "cure"),
    [
        ([["a", "x"]], "slide,other", "no column of patients"),
        ([["a", "x"], ["a", "y"]], "slide,patient", "keep one row a slide"),
        ([["a", ""]], "slide,patient", "line 2 has no patient"),
    ],
)
def test_tables_of_slides_that_do_not_fit(tmp_path: Path, lines: list[list[str]], header: str, cure: str) -> None:
    bags = features(tmp_path / "features", "a", "b")
    labels = write_table(tmp_path / "patients.csv", [["x", "no"], ["y", "yes"]], "patient,label")
    slides = write_table(tmp_path / "slides.csv", lines, header)
    with pytest.raises(LabelError, match=cure):
        load_cohort(BagData(str(bags), labels=str(labels), slide_table=str(slides)))
    by_slide = write_table(tmp_path / "labels.csv", [["a", "x", "no"], ["b", "y", "yes"]])
    with pytest.raises(LabelError, match=r"leave --data\.slide-table out"):
        load_cohort(BagData(str(bags), labels=str(by_slide), slide_table=str(slides)))


def test_patients_of_contradictory_labels_are_one_error(tmp_path: Path) -> None:
    bags = features(tmp_path / "features", "a", "b", "c", "d")
    lines = [["a", "x", "no"], ["b", "x", "yes"], ["c", "y", "yes"], ["d", "y", ""]]
    table = write_table(tmp_path / "labels.csv", lines)
    with pytest.raises(LabelError, match=r"patient 'x' has the labels 'no' \(slide 'a'\), 'yes' \(slide 'b'\).*--data"):
        load_cohort(BagData(str(bags), labels=str(table), unit="patient", bad="skip"))
    # where slides are the unit they are no contradiction; a slide without a label takes its patient's
    assert load_cohort(BagData(str(bags), labels=str(table), bad="skip")).skipped == (("d", "no label"),)
    table.write_text(table.read_text().replace("b,x,yes", "b,x,no"))
    cohort = load_cohort(BagData(str(bags), labels=str(table), unit="patient"))
    assert [slide.names for slide in cohort.slides] == [("a", "b"), ("c", "d")]
    assert any("take their patient's" in note for note in cohort.notes)


def test_a_joined_bag_holds_its_slides_without_a_second_copy(tmp_path: Path) -> None:
    source = open_bags(features(tmp_path / "features", "a", "b", "c"))
    joined = JoinedBags(tmp_path, {"x": [(source, "c"), (source, "a")], "y": [(source, "b")]})
    assert joined.names == ("x", "y")
    assert joined.shape("x") == (8, 4)
    bag = joined.load("x")
    assert torch.equal(bag.features, torch.cat([source.load("c").features, source.load("a").features]))
    assert [slide.name for slide in bag.slides] == ["c", "a"]
    for slide in bag.slides:
        assert slide.features.untyped_storage().data_ptr() == bag.features.untyped_storage().data_ptr()
        assert torch.equal(slide.features, source.load(slide.name).features)
        assert slide.coords is not None
        assert torch.equal(slide.coords, torch.as_tensor(grid(len(slide.features))))
    assert bag.coords is None
    assert bag.nbytes == 8 * 4 * 4 + 8 * 2 * 8
    few = subsample(bag, 3, (0,))
    assert (len(few.features), few.slides) == (3, ())
    write_h5(tmp_path / "features" / "wide.h5", values(2, width=5))
    write_h5(tmp_path / "features" / "nan.h5", np.full((2, 4), np.nan, np.float32))
    source = open_bags(tmp_path / "features")
    joined = JoinedBags(tmp_path, {"x": [(source, "a"), (source, "wide")], "y": [(source, "a"), (source, "nan")]})
    with pytest.raises(BagError, match=r"width 4 \(slide 'a'\) and 5 \(slide 'wide'\)"):
        joined.shape("x")
    with pytest.raises(BagError, match=r"slide 'nan': .*NaN"):
        joined.load("y")


def write_patients(folder: Path, slides: int = 36) -> Path:
    """A cohort whose patients have up to three slides, all of their class; its table."""
    table = write_cohort(folder, slides=slides)
    with table.open(newline="") as file:
        heading, *lines = list(csv.reader(file))
    for number, line in enumerate(lines):
        line[1] = f"{line[3]}{number // 9}"
    return write_table(table, lines, ",".join(heading))


def test_given_parts_are_those_of_patients(tmp_path: Path) -> None:
    table = write_patients(tmp_path / "cohort")
    of_class = {name: [row for row in rows(table) if row["label"] == name] for name in CLASSES}
    # of each patient one slide alone stands in the file
    test = [of_class[name][0]["slide_id"] for name in CLASSES]
    train_part = [of_class[name][3]["slide_id"] for name in CLASSES]
    splits = write_table(tmp_path / "splits.csv", list(zip(train_part, test, strict=True)), "train,test")
    data = BagData(
        str(table.parent / "features"), labels=str(table), splits=str(splits), unit="patient", validation_fraction=0
    )
    cohort = load_cohort(data)
    split = split_cohort(cohort, data, 0)
    names = {part: {cohort.names[i] for i in indices.tolist()} for part, indices in split.parts.items()}
    assert names["test"] == {f"{name}0" for name in CLASSES}
    assert names["train"] == {f"{name}1" for name in CLASSES}
    write_table(splits, [[train_part[0], test[0]], [of_class[CLASSES[0]][1]["slide_id"], test[1]]], "train,test")
    with pytest.raises(LabelError, match=r"patient 'none0', by slide .*two columns"):
        split_cohort(cohort, data, 0)
    # a column of parts that differs among a patient's slides
    by_column = BagData(**{**vars(data), "splits": None, "holdout_column": "center", "holdout": ("1",)})
    with pytest.raises(LabelError, match=r"--data\.unit slide"):
        split_cohort(cohort, by_column, 0)
    # what a stopped run goes on with
    described = describe_cohort(cohort, split)
    assert cohort_changes(described, cohort, split) == []
    described["slides"]["none0"] = described["slides"]["none0"][:-1]
    assert "'none0'" in cohort_changes(described, cohort, split)[0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("cohort"), slides=45)


@pytest.fixture(scope="module")
def of_patients(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    run = tmp_path_factory.mktemp("patients") / "run"
    train(slide_recipe(cohort, data={"unit": "patient", "attention_slides": 2}), run)
    return run


def of_slide_table(folder: Path, table: Path) -> Path:
    return write_table(
        folder / "slides.csv", [[row["slide_id"], row["patient_id"]] for row in rows(table)], "slide,patient"
    )


def test_a_run_whose_bags_are_patients(tmp_path: Path, cohort: Path, of_patients: Path) -> None:
    """Trained, judged and predicted by patient; the attention is over the patient, and written slide by slide."""
    patients = {row["patient_id"]: row["label"] for row in rows(cohort)}
    table = rows(of_patients / "slides.csv")
    assert {row["slide"]: row["label"] for row in table} == patients
    assert {row["slides"] for row in table} == {"3"}
    results = read(of_patients, "results.json")
    assert results["num_train"] + results["num_validation"] + results["num_test"] == len(patients)
    scores = results["readouts"]["head"]["test"]
    assert scores["samples"] == scores["groups"] == results["num_test"]
    # attention of the surest two patients
    source, model = open_bags(cohort.parent / "features"), load_model(of_patients)
    kept = {path.stem: np.load(path) for path in (of_patients / "attention").glob("*.npz")}
    owners = {row["slide_id"]: row["patient_id"] for row in rows(cohort)}
    assert len(kept) == 6
    for patient in {str(arrays["patient"]) for arrays in kept.values()}:
        slides = sorted(slide for slide in kept if owners[slide] == patient)
        with torch.inference_mode():
            whole = model(torch.cat([source.load(slide).features for slide in slides])).attention.numpy()
        np.testing.assert_allclose(np.concatenate([kept[slide]["attention"] for slide in slides]), whole, rtol=1e-5)
        assert sum(float(kept[slide]["share"]) for slide in slides) == pytest.approx(1, abs=1e-5)
        for slide in slides:
            np.testing.assert_array_equal(kept[slide]["coords"], source.load(slide).coords)
    page = write_report(of_patients, tmp_path / "report.html").read_text()
    assert "of the attention over patient" in page
    # new data: who is whose stands in a table, or each slide is a patient of its own
    whose = of_slide_table(tmp_path, cohort)
    predicted = predict(of_patients, cohort.parent / "features", tmp_path / "p.csv", slide_table=whose)
    assert predicted.patients is None
    lines = {row["id"]: row for row in rows(tmp_path / "p.csv")}
    assert lines.keys() == patients.keys()
    assert {row["slides"] for row in lines.values()} == {"3"}
    for row in table:
        for name in CLASSES:
            assert float(lines[row["slide"]][f"p({name})"]) == pytest.approx(float(row[f"head:{name}"]), abs=1e-5)
    predicted = predict(of_patients, cohort.parent / "features", tmp_path / "each.csv")
    assert predicted.rows == len(rows(cohort))
    assert any("patient of its own" in note for note in predicted.notes)
    paths = [str(cohort.parent / "features" / f"slide{number:02d}.h5") for number in (3, 0, 1)]
    in_order, _ = Predictor(of_patients).rows(paths)
    assert [row.name for row in in_order] == ["slide03", "slide00", "slide01"]
    run = ncmi.load(of_patients)
    with pytest.warns(UserWarning, match="patients by|encoder"):
        frame = run.predict_frame(cohort.parent / "features", slide_table=whose)
    assert dict(zip(frame["id"], frame["prediction"], strict=True)) == {
        name: line["prediction"] for name, line in lines.items()
    }
    one = source.load("slide00").features.numpy()
    assert run.predict(one).shape == (1,)  # an array is a patient's: nobody else needs to be asked
    with pytest.raises(LabelError, match="slides are not in it"):
        write_table(whose, [["slide00", "x"]], "slide,patient")
        predict(of_patients, cohort.parent / "features", tmp_path / "q.csv", slide_table=whose)


def test_the_slide_that_a_patient_cannot_be_predicted_for(tmp_path: Path, of_patients: Path) -> None:
    for name, width, encoder in (("a1", 5, ""), ("a2", WIDTH, ""), ("b1", WIDTH, "uni"), ("b2", WIDTH, "conch")):
        write_h5(tmp_path / "features" / f"{name}.h5", values(3, width, seed=width + len(encoder)))
        with h5py.File(tmp_path / "features" / f"{name}.h5", "r+") as file:
            file.attrs["encoder"] = encoder
    joined = JoinedBags(
        tmp_path, {who: [(open_bags(tmp_path / "features"), f"{who}{n}") for n in (1, 2)] for who in "ab"}
    )
    with pytest.raises(BagError, match=rf"width {WIDTH} \(slide 'a2'\) and 5 \(slide 'a1'\)"):
        joined.shape("a")
    assert joined.encoder("b") == "conch (slide 'b2') and uni (slide 'b1')"
    assert joined.encoder("a") is None


def test_a_table_of_slides_with_columns_and_names_of_its_own(tmp_path: Path) -> None:
    """Bags are found as in training: with an ending of their own, and by the columns that the run was told."""
    bags = open_bags(features(tmp_path / "features", "p_features", "q_features"))
    whose = write_table(tmp_path / "whose.csv", [["p.svs", "anna"], ["q.svs", "anna"]], "scan,person")
    joined, _ = JoinedBags.by_patient([bags], whose, slide_column="scan", patient_column="person")
    assert joined.names == ("anna",)
    assert joined.shape("anna") == (7, 4)


def test_evaluation_by_tables_of_patients_and_slides(tmp_path: Path, cohort: Path, of_patients: Path) -> None:
    whose = of_slide_table(tmp_path, cohort)
    patients = {row["patient_id"]: row["label"] for row in rows(cohort)}
    labels = write_table(tmp_path / "patients.csv", list(map(list, patients.items())), "patient,label")
    evaluation = evaluate_run(of_patients, str(cohort.parent / "features"), labels=str(labels), slide_table=str(whose))
    assert evaluation.readouts["head"].test.samples == len(patients)
    with pytest.raises(ValueError, match=r"\(--slide-table\)"):
        evaluate_run(of_patients, str(cohort.parent / "features"), labels=str(labels))


def test_attend_says_by_slide_what_is_over_the_patient(
    tmp_path: Path, cohort: Path, of_patients: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whose = of_slide_table(tmp_path, cohort)
    first = rows(cohort)[0]
    words = ["slides", "attend", str(of_patients), str(cohort.parent / "features"), "--out", str(tmp_path / "out")]
    app.run([*words, "--slide-table", str(whose), "--only", first["slide_id"]])
    (row,) = rows(tmp_path / "out" / "slides.csv")
    assert (row["slide"], row["patient"]) == (first["slide_id"], first["patient_id"])
    assert 0 < float(row["share"]) < 1
    attention = [float(line["attention"]) for line in rows(tmp_path / "out" / first["slide_id"] / "attention.csv")]
    assert len(attention) == int(row["patches"])
    assert "patients by" in capsys.readouterr().out


def test_predictions_of_slides_are_pooled_by_patient(tmp_path: Path, cohort: Path) -> None:
    """A run on slides writes a second table: the mean probabilities of each patient's slides."""
    train(slide_recipe(cohort), tmp_path / "run")
    whose = of_slide_table(tmp_path, cohort)
    new = tmp_path / "new"
    new.mkdir()
    for row in rows(cohort)[:9]:
        (new / f"{row['slide_id']}.h5").symlink_to(cohort.parent / "features" / f"{row['slide_id']}.h5")
    (new / "slide00.h5").unlink()
    with h5py.File(new / "slide00.h5", "w") as file:
        file["features"] = np.full((3, WIDTH), np.nan, np.float32)
    predicted = predict(tmp_path / "run", new, tmp_path / "p.csv", slide_table=whose)
    assert predicted.patients == tmp_path / "p-patients.csv"
    slides, owners = rows(tmp_path / "p.csv"), {row["slide_id"]: row["patient_id"] for row in rows(cohort)}
    for row in rows(predicted.patients):
        usable = [each for each in slides if owners[each["id"]] == row["id"] and each["prediction"]]
        assert int(row["slides"]) == len(usable)
        assert int(row["left_out"]) == (1 if row["id"] == owners["slide00"] else 0)
        means = {name: np.mean([float(each[f"p({name})"]) for each in usable]) for name in CLASSES}
        assert row["prediction"] == max(means, key=means.__getitem__)
        for name in CLASSES:
            assert float(row[f"p({name})"]) == pytest.approx(means[name], abs=1e-5)
    # nothing is replaced without being asked to; without a table names say nothing
    (tmp_path / "p.csv").unlink()
    with pytest.raises(FileExistsError, match="p-patients"):
        predict(tmp_path / "run", new, tmp_path / "p.csv", slide_table=whose)
    assert not (tmp_path / "p.csv").exists()
    assert predict(tmp_path / "run", new, tmp_path / "p.csv").patients is None

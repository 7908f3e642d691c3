"""The tables of Table III as they are published become the ones that it is made by."""

from __future__ import annotations

from pathlib import Path

import pytest
from slide_helpers import rows

from ncmi.cli import app
from ncmi.data.bags.labels import LabelError
from ncmi.data.bags.published import write_canonical
from ncmi.recipes import BagData, Training, default_training
from ncmi.training.comparison import ComparisonError
from ncmi.training.reproduction import Table3Data, plan_experiment

STAGES = """patient,stage
patient_000.zip,pN0
patient_000_node_0.tif,negative
patient_000_node_1.tif,itc
patient_067.zip,pN1
patient_067_node_4.tif,macro
"""
BRACS = """WSI Filename,Patient Id,WSI label,Set
BRACS_1,10,PB,Training
BRACS_2,11,FEA,Validation
BRACS_3,12,IC,Testing
BRACS_4,13,N,Training
"""


def canonical(tmp_path: Path, cohort: str, text: str) -> list[dict[str, str]]:
    (tmp_path / "given.csv").write_text(text)
    return rows(write_canonical(cohort, tmp_path / "given.csv", tmp_path / "out"))


def test_the_stages_of_camelyon17(tmp_path: Path) -> None:
    """Nodes are slides, patients come from their names, and centers from the patients' numbers."""
    found = [tuple(row.values()) for row in canonical(tmp_path, "camelyon17", STAGES)]
    assert found == [
        ("patient_000_node_0", "patient_000", "0", "negative"),
        ("patient_000_node_1", "patient_000", "0", "itc"),
        ("patient_067_node_4", "patient_067", "3", "macro"),
    ]


def test_labels_by_number(tmp_path: Path) -> None:
    text = "slide_id,label\npatient_001_node_0,0\npatient_025_node_1,3\npatient_026_node_1,2\n"
    assert [row["label"] for row in canonical(tmp_path, "camelyon17", text)] == ["negative", "macro", "micro"]


def test_seven_lesions_of_bracs_are_three_classes(tmp_path: Path) -> None:
    found = canonical(tmp_path, "bracs", BRACS)
    assert [(row["label_coarse"], row["split"]) for row in found] == [
        ("BT", "train"), ("AT", "val"), ("MT", "test"), ("BT", "train"),
    ]  # fmt: skip


def test_the_tables_of_aem(tmp_path: Path) -> None:
    """A nameless index, labels and lesions by number, a column split_info."""
    text = ",slide_id,label,center\n1,patient_000_node_0,0,0\n7,patient_061_node_4,3,3\n"
    found = [tuple(row.values()) for row in canonical(tmp_path, "camelyon17", text)]
    assert found == [
        ("patient_000_node_0", "patient_000", "0", "negative"),
        ("patient_061_node_4", "patient_061", "3", "macro"),
    ]
    lines = [
        f"{n},patient_{n},BRACS_{n},{part},/x/BRACS_{n}.svs,{n}"
        for n, part in enumerate(["train", "val"] * 3 + ["test"])
    ]
    text = "\n".join([",case_id,slide_id,split_info,full_path,label", *lines]) + "\n"
    assert [(row["label_coarse"], row["split"]) for row in canonical(tmp_path, "bracs", text)] == [
        ("BT", "train"), ("BT", "val"), ("BT", "train"), ("AT", "val"), ("AT", "train"), ("MT", "val"), ("MT", "test"),
    ]  # fmt: skip


def test_a_table_in_the_right_form_stays_where_it_is(tmp_path: Path) -> None:
    text = "slide_id,patient_id,center,label\npatient_001_node_0,patient_001,0,negative\n"
    (tmp_path / "t.csv").write_text(text)
    assert write_canonical("camelyon17", tmp_path / "t.csv", tmp_path / "out") == tmp_path / "t.csv"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cohort", "text", "told"),
    [
        ("camelyon17", "patient,stage\npatient_000.zip,pN0\n", "no slide patient_NNN_node_N"),
        ("camelyon17", "slide,label\npatient_000_node_1,pN0\n", "unknown label 'pn0'"),
        ("camelyon17", "slide,other\npatient_000_node_1,pN0\n", "no column of labels"),
        ("bracs", BRACS.replace(",IC,", ",XX,"), "unknown label 'XX'"),
        ("bracs", BRACS.replace("Set", "Other"), "no column of parts"),
        ("bracs", BRACS.replace("Patient Id", "Other"), "no column of patients"),
    ],
)
def test_what_a_table_does_not_say_is_told(tmp_path: Path, cohort: str, text: str, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        canonical(tmp_path, cohort, text)
    assert not (tmp_path / "out").exists()


def test_the_plan_takes_them_and_training_options(tmp_path: Path) -> None:
    (tmp_path / "stages.csv").write_text(STAGES)
    training = Training(**{**vars(default_training("bags")), "learning_rate": 3e-4})
    (group,) = plan_experiment(
        "table3",
        "paper",
        seeds=(0, 1),
        cohorts={"camelyon17": (tmp_path / "features", tmp_path / "stages.csv")},
        training=training,
        data=Table3Data(bad="skip", features_key="feats"),
        tables=tmp_path / "labels",
    )
    recipe = group.plan.entries[0].recipe
    assert isinstance(recipe.data, BagData)
    assert (recipe.data.bad, recipe.data.features_key) == ("skip", "feats")
    assert recipe.data.holdout == ("3", "4")
    assert recipe.data.labels == str(tmp_path / "labels" / "camelyon17.csv")
    assert recipe.training.learning_rate == 3e-4
    assert group.plan.seeds == (0, 1)


@pytest.mark.parametrize(
    "words", [("labels", "x.csv"), ("unit", "patient"), ("folds", "3"), ("holdout-column", "a", "--data.holdout", "b")]
)
def test_what_table3_settles_cannot_be_chosen(tmp_path: Path, words: tuple[str, ...]) -> None:
    option, *rest = words
    given = ["reproduce", "table3", "--bracs", str(tmp_path), "--out", str(tmp_path / "out"), f"--data.{option}", *rest]
    with pytest.raises(ValueError, match=f"unknown option --data.{option}"):
        app.run(given)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ComparisonError, match="table3"):
        plan_experiment("table1", "paper", seeds=(0,), data=Table3Data(bad="skip"))

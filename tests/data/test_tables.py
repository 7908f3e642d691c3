"""Tables from files and frames: what is read is what was written, and what cannot be told is asked for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spreadsheet_writer import write_spreadsheet

from ncmi.data.dataset import encode_labels
from ncmi.data.load import load_samples
from ncmi.data.tables.load import load_table, read_rows, table_from_frame
from ncmi.data.tables.reading import read_raw_table, read_text_table
from ncmi.data.tables.table import LabeledTable
from ncmi.recipes.data import TableData

ROWS = [(1.5, 1, "yes", "Birke"), (-2.25, 2, "no", "Ähre"), (3e10, 3, "yes", "Birke"), (0.1, 4, "yes", "Ähre")]
FRAME = pd.DataFrame(ROWS * 3, columns=["Länge, in mm", "count", "old", "class"])


def load(path: Path, text: str | bytes | None = None, **options: object) -> LabeledTable:
    """The table of a file, written first where a text is given."""
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_table(path, TableData(str(path), **options))  # type: ignore[arg-type]


def kinds(table: LabeledTable) -> dict[str, str]:
    return {column.name: column.kind for column in table.columns}


def said(table: LabeledTable, *words: str) -> bool:
    """Whether one note holds all of some words."""
    return any(all(word in note for word in words) for note in table.notes)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather", ".xlsx", ".CSV"])
def test_round_trip_of_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trees{suffix}"
    if suffix == ".parquet":
        FRAME.to_parquet(path)
    elif suffix == ".feather":
        FRAME.to_feather(path)
    elif suffix == ".xlsx":
        write_spreadsheet(FRAME, path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    table = load(path)
    assert (table.name, table.label_column, table.class_names) == ("trees", "class", ("Birke", "Ähre"))
    assert kinds(table) == {"Länge, in mm": "number", "count": "number", "old": "boolean"}
    assert table.rows.frame["Länge, in mm"].tolist() == FRAME["Länge, in mm"].tolist()
    assert table.rows.frame["old"].tolist() == [1, 0, 1, 1] * 3
    assert table.labels.tolist() == [0, 1, 0, 1] * 3


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", [*PACKED, ".zip"])
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    plain = FRAME.to_csv(index=False).encode()
    path = tmp_path / f"trees.csv{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("trees.csv", plain)
            archive.writestr("__MACOSX/._trees.csv", b"junk")
    else:
        path.write_bytes(PACKED[suffix](plain))
    table = load(path)
    assert (table.name, len(table)) == ("trees", 12)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], plain):
        with pytest.raises(ValueError, match=r"trees\.csv\..*(damaged|no \..* archive)"):
            load(path, damaged)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
def test_encodings_are_detected_and_said(tmp_path: Path, encoding: str) -> None:
    table = load(tmp_path / "t.csv", FRAME.to_csv(index=False).encode(encoding))
    assert table.class_names == ("Birke", "Ähre")
    assert said(table, "--data.encoding") == (not encoding.startswith("utf-8"))


def test_cyrillic_and_an_encoding_that_is_given(tmp_path: Path) -> None:
    text = "рост,класс,label\n" + "".join(
        f"{i},{'мужчина' if i % 2 else 'женщина'},{'да' if i % 3 else 'нет'}\n" for i in range(60)
    )
    table = load(tmp_path / "t.csv", text.encode("cp1251"))
    assert table.class_names == ("да", "нет")
    assert load(tmp_path / "t.csv", encoding="cp1251").class_names == ("да", "нет")
    with pytest.raises(ValueError, match=r"not UTF-8 .*--data\.encoding"):
        load(tmp_path / "t.csv", encoding="utf-8")
    with pytest.raises(ValueError, match="no encoding 'klingon'"):
        load(tmp_path / "t.csv", encoding="klingon")


BODY = [("1.5", "2", "u"), ("3.25", "40", "v"), ("-1", "7", "u"), ("0.5", "1", "v")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "   "])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n", "# a comment\n", "sep"])
def test_any_separator(tmp_path: Path, separator: str, start: str) -> None:
    lines = [separator.join(row) for row in [("size", "count", "label"), *BODY]]
    if separator == "   ":
        lines = [f"  {line}" for line in lines]
    begin = start if start != "sep" else f"sep={separator[0]}\n"
    table = load(tmp_path / "t.csv", begin + "\r\n".join(lines) + "\r\n")
    assert table.rows.frame["size"].tolist() == [1.5, 3.25, -1, 0.5]
    assert (table.class_names, list(kinds(table))) == (("u", "v"), ["size", "count"])


def test_decimal_comma(tmp_path: Path) -> None:
    text = "a;b;label\n" + "1,5;1.234,5;u\n2,25;7;v\n" * 3
    table = load(tmp_path / "t.csv", text)
    assert table.rows.frame["a"].tolist() == [1.5, 2.25] * 3
    assert table.rows.frame["b"].tolist() == [1234.5, 7] * 3
    quoted = load(tmp_path / "t.csv", 'a,label\n"1,5",u\n"2,25",v\n"3,5",u\n"4,0",v\n')
    assert quoted.rows.frame["a"].tolist() == [1.5, 2.25, 3.5, 4]
    text = "a\tlabel\n1,5\tu\n2,5\tv\n"
    assert load(tmp_path / "t.tsv", text).rows.frame["a"].tolist() == [1.5, 2.5]
    assert load(tmp_path / "t.tsv", text, decimal="point").rows.frame["a"].tolist() != [1.5, 2.5]


def test_what_stands_around_the_rows(tmp_path: Path) -> None:
    text = "Trees of the park\n\n# measured\na,b,label,\n1,2,u,\n\n3,4,v,\n# more\n5,6,u,\n,,,\n7,8,v,\n"
    table = load(tmp_path / "t.csv", text)
    assert table.rows.frame.to_dict("list") == {"a": [1, 3, 5, 7], "b": [2, 4, 6, 8]}
    assert table.rows.numbers.tolist() == [0, 1, 2, 4]
    assert said(table, "Trees of the park")
    assert said(table, "'#'")
    assert said(table, "1 rows without any value")


def test_quotes(tmp_path: Path) -> None:
    table = load(tmp_path / "t.csv", 'x, label\n1, "two\nlines"\n2, one\n3,"two\nlines"\n4,"one"\n')
    assert table.class_names == ("one", "two\nlines")
    single = load(tmp_path / "s.csv", "'a b','label'\n'x,1','u'\n'y','v'\n'x,1','u'\n'y','v'\n")
    assert set(single.rows.frame["a b"]) == {"x,1", "y"}
    with pytest.raises(ValueError, match="quote left open"):
        load(tmp_path / "o.csv", 'a,label\n1,"u\n2,v\n3,u\n')


HEADERLESS = {
    "iris.data": ("5.1,3.5,1.4,Iris-setosa\n4.9,3.0,1.3,Iris-setosa\n6.1,2.9,4.7,Iris-virginica\n5.8,2.7,5.1,Iris-virginica\n", -1),
    "wine.data": ("1,14.23,1065\n1,13.2,1050\n2,12.37,520\n2,12.33,680\n3,12.86,630\n3,12.88,530\n", 0),
    "car.data": ("vhigh,vhigh,2,2,small,low,unacc\nhigh,low,2,4,big,high,acc\nlow,med,4,4,big,med,good\nmed,vhigh,3,2,small,low,unacc\n", -1),
    "balance.data": ("B,1,1,1,1\nR,1,1,1,2\nL,5,4,3,2\nL,2,2,3,1\nR,3,3,2,5\nB,4,5,5,4\n", 0),
    "tic-tac-toe.data": ("x,x,o,positive\nx,o,b,negative\no,o,x,positive\nb,x,o,negative\n", -1),
    "sonar.all-data": ("0.02,0.0371,R\n0.0453,0.0523,R\n0.0262,0.0582,M\n0.01,0.0171,M\n", -1),
    "votes.data": ("republican,n,y,n,y\ndemocrat,?,y,y,n\ndemocrat,n,y,n,?\nrepublican,y,n,y,n\n", 0),
    "pima.data": ("6,148,33.6,1\n1,85,26.6,0\n8,183,23.3,1\n1,89,28.1,0\n0,137,43.1,1\n5,116,25.6,0\n", -1),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERLESS)
def test_files_without_header_keep_their_first_row(tmp_path: Path, name: str) -> None:
    text, position = HEADERLESS[name]
    rows = [line.split(",") for line in text.splitlines()] * 6
    if name == "wine.data":
        rows = [[row[0], row[1], str(300 + 37 * i)] for i, row in enumerate(rows)]
    table = load(tmp_path / name, "\n".join(map(",".join, rows)) + "\n")
    assert len(table) == len(rows)
    assert table.label_column == f"column_{len(rows[0]) if position else 1}"
    assert [table.class_names[i] for i in table.labels.tolist()] == [row[position] for row in rows]
    assert said(table, "the first line is a row")


def test_no_header_and_first_or_last_column(tmp_path: Path) -> None:
    text = "1,30,2,1\n2,45,1,2\n1,50,2,2\n2,60,1,1\n" * 5
    with pytest.raises(ValueError, match=r"the first as well as the last.*--data\.label-column column_1"):
        load(tmp_path / "hepatitis.data", text)
    assert load(tmp_path / "hepatitis.data", label_column="1").label_column == "column_1"
    assert load(tmp_path / "hepatitis.data", label_column="-1").label_column == "column_4"
    with pytest.raises(ValueError, match=r"neither first nor last.*--data\.label-column"):
        load(tmp_path / "housing.data", "0.1 3.2 24.5\n0.2 3.3 21.6\n0.5 1.5 34.7\n")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("0,1,2,3\n" + "0.5,1.5,2.5,1\n0.1,0.2,0.3,0\n" * 4, 0.5),  # pandas' names of columns
        ("1 2 3 class\n" + "0.5 7 1.5 1\n0.6 8 2.5 0\n" * 4, 0.5),
        ("country,1990,1991,label\n" + "A,5,6,u\nB,7,8,v\n" * 4, 5.0),
    ],
)
def test_names_that_are_numbers(tmp_path: Path, text: str, first: float) -> None:
    table = load(tmp_path / "t.csv", text, label_column="-1")
    numbers = [column.name for column in table.columns if column.kind == "number"]
    assert len(table) == 8
    assert table.rows.frame[numbers[0]].iloc[0] == first


def test_a_header_that_nothing_decides_on(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "kiwi,apple\nplum,pear\nfig,lime\n"
    with pytest.raises(ValueError, match=r"--data\.header yes or no"):
        load(path, text)
    assert len(read_raw_table(path, options := TableData("t", header="yes")).frame) == 2, options
    assert len(read_raw_table(path, TableData("t", header="no")).frame) == 3


def test_arff(tmp_path: Path) -> None:
    text = (
        "% a comment\n@RELATION trees\n\n@attribute 'crown size' REAL\n@attribute code {1, 2, 3}\n@attribute leaf string\n"
        "@attribute kind {oak,'red beech'}\n@DATA\n% rows\n1.5,1,a,oak\n?,2,b,'red beech'\n2.5,3,a,oak\n3,1,b,'red beech'\n"
    )
    table = load(tmp_path / "t.arff", text)
    assert (table.label_column, table.class_names) == ("kind", ("oak", "red beech"))
    assert kinds(table) == {"crown size": "number", "code": "category", "leaf": "category"}
    assert table.rows.frame["crown size"].isna().tolist() == [False, True, False, False]
    for bad in (
        "@relation t\n@attribute a real\n",
        "@relation t\n@data\n1\n",
        "@relation t\n@attribute a real\n@data\n{0 1}\n",
    ):
        with pytest.raises(ValueError, match="ARFF"):
            load(tmp_path / "bad.arff", bad)


def column(tmp_path: Path, values: Sequence[object], **options: object) -> LabeledTable:
    """A table with a column x of some values, each in many rows, and a label."""
    rows = [*values] * 6
    frame = pd.DataFrame({"x": rows, "z": range(len(rows)), "label": (["u", "v", "v"] * len(rows))[: len(rows)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    return load(tmp_path / "t.csv", **options)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1,234", "2,000.5", "7"], [1234, 2000.5, 7]),
        (["12 %", "7.5%", "100%"], [12, 7.5, 100]),
        (["$5", "$1,200", "-$3"], [5, 1200, -3]),
        (["1e3", "2E-2", " 7"], [1000, 0.02, 7]),
        (["(5)", "6", "1 000"], [-5, 6, 1000]),
        ([1, "?", 3], [1, np.nan, 3]),
        (["N/A", 2.5, "-"], [np.nan, 2.5, np.nan]),
    ],
)
def test_numbers_as_people_write_them(tmp_path: Path, values: list[object], expected: list[float]) -> None:
    table = column(tmp_path, values)
    assert kinds(table)["x"] == "number"
    np.testing.assert_allclose(table.rows.frame["x"].to_numpy()[:3], expected)


def test_kinds_of_columns(tmp_path: Path) -> None:
    assert kinds(column(tmp_path, ["Yes", "no", "yes"]))["x"] == "boolean"
    assert kinds(column(tmp_path, [0, 1, 1]))["x"] == "number"
    assert kinds(column(tmp_path, [3, 1, 2], categorical=("x",)))["x"] == "category"
    assert kinds(column(tmp_path, ["a", "b", "c"]))["x"] == "category"
    assert column(tmp_path, [3, 1, 2], categorical=("x",)).rows.frame["x"].tolist()[:3] == ["3", "1", "2"]
    mixed = column(tmp_path, ["1", "2", "low"])
    assert kinds(mixed)["x"] == "category"
    assert said(mixed, "'x'", "--data.numeric")
    numbers = column(tmp_path, ["1", "2", "low"], numeric=("x",))
    assert numbers.rows.frame["x"].isna().sum() == 6
    assert said(numbers, "6 values of 'x'", "'low'")


def test_codes_with_zeros_in_front_are_said(tmp_path: Path) -> None:
    codes = [f"{i:02d}" for i in range(12)]
    table = load(
        tmp_path / "t.csv",
        "code,z,label\n" + "".join(f"{c},{c[1]}.5,{'uv'[i % 3 > 0]}\n" for i, c in enumerate(codes * 3)),
    )
    assert said(table, "'code'", "--data.categorical")
    as_text = load(tmp_path / "t.csv", categorical=("code",))
    assert kinds(as_text)["code"] == "category"


def test_rare_strays_are_missing_and_said(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [*map(str, range(300)), "broken"], "label": ["u", "v", "w"] * 100 + ["u"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = load(tmp_path / "t.csv")
    assert int(table.rows.frame["x"].isna().sum()) == 1
    assert said(table, "1 values of 'x'", "'broken'")


@pytest.mark.parametrize(
    ("values", "first", "ambiguous"),
    [
        (["2021-03-04", "2021-12-31"], "2021-03-04", False),
        (["2021-03-04 10:00", "2021-12-31 11:30"], "2021-03-04T10:00", False),
        (["04/03/2021", "31/12/2021"], "2021-03-04", False),
        (["03/04/2021", "12/31/2021"], "2021-03-04", False),
        (["03/04/2021", "05/06/2021"], "2021-03-04", True),
        (["4.3.2021", "31.12.2021"], "2021-03-04", False),
        (["4-Mar-2021", "31-Dec-2021"], "2021-03-04", False),
    ],
)
def test_dates(tmp_path: Path, values: list[str], first: str, ambiguous: bool) -> None:
    table = column(tmp_path, values)
    assert kinds(table)["x"] == "date"
    assert table.rows.frame["x"].iloc[0] == pd.Timestamp(first)
    assert said(table, "fits either way") == ambiguous


def test_missing_marks_and_marks_that_are_values(tmp_path: Path) -> None:
    table = column(tmp_path, ["gravel", "NA", "?", "paved"])
    assert table.rows.frame["x"].isna().tolist()[:4] == [False, True, True, False]
    kept = column(tmp_path, ["None", "Partial", "Full"])
    assert set(kept.rows.frame["x"]) == {"None", "Partial", "Full"}
    assert said(kept, "'None'", "--data.missing")
    assert column(tmp_path, ["None", "Partial", "Full"], missing=("None",)).rows.frame["x"].isna().sum() == 6
    assert set(column(tmp_path, ["+", "-"]).rows.frame["x"]) == {"+", "-"}
    sentinel = column(tmp_path, [1.5, 2.5, -999])
    assert said(sentinel, "'x'", "-999")
    assert column(tmp_path, [1.5, 2.5, -999], missing=("-999",)).rows.frame["x"].isna().sum() == 6


def test_columns_that_are_no_features_are_left_out_and_named(tmp_path: Path) -> None:
    n = 40
    frame = pd.DataFrame(
        {
            "row": range(1, n + 1),
            "patient_id": np.arange(n) * 37 + 5000,
            "name": [f"Person {i}" for i in range(n)],
            "remark": [f"what the doctor wrote on day {i % 30} of the stay" for i in range(n)],
            "hospital": "St. Mary",
            "nothing": np.nan,
            "size": np.linspace(0, 1, n) ** 2,
            "label": ["u", "v"] * (n // 2),
        }
    )
    frame.to_csv(tmp_path / "t.csv")
    table = load(tmp_path / "t.csv")
    assert list(kinds(table)) == ["size"]
    for name in ("Unnamed: 0", "column_1"):
        if said(table, name):
            break
    else:
        pytest.fail("the nameless index is not named")
    for name in ("row", "patient_id", "name", "remark", "hospital", "nothing"):
        assert said(table, "left out", f"'{name}'"), name
    assert "patient_id" in kinds(load(tmp_path / "t.csv", numeric=("patient_id",)))


def test_options_name_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "key,size,color,group,label\n" + "".join(
        f"k{i},{i / 7:.3f},{'red' if i % 3 else 'blue'},g{i % 4},{'u' if i % 2 else 'v'}\n" for i in range(24)
    )
    table = load(path, text, id_column="key", group_column="group", drop=("3",))
    assert table.rows.ids is not None
    assert table.groups is not None
    assert (list(kinds(table)), table.rows.ids[:2], table.groups[:2].tolist()) == (["size"], ("k0", "k1"), ["g0", "g1"])
    assert table.rows.names[0] == "k0"
    for option in ("drop", "categorical", "numeric"):
        with pytest.raises(ValueError, match=rf"no column 'colour' \(--data\.{option}\): did you mean 'color'"):
            load(path, **{option: ("colour",)})
    for option in ("id_column", "group_column", "label_column"):
        with pytest.raises(ValueError, match=rf"no column 9 \(--data\.{option.replace('_', '-')}\)"):
            load(path, **{option: "9"})
    with pytest.raises(ValueError, match="name another"):
        load(path, id_column="label", label_column="label")


def test_labels_are_text_as_it_is_written(tmp_path: Path) -> None:
    def classes(*labels: str, **options: object) -> tuple[str, ...]:
        text = "x,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels * 4))
        return load(tmp_path / "t.csv", text, **options).class_names

    assert classes("01", "1") == ("01", "1")
    assert classes("10", "9", "100") == ("9", "10", "100")
    assert classes("1.0", "2.0") == ("1", "2")
    assert classes("1.0", "2") == ("1.0", "2")
    assert classes("b ", " a", "B") == ("B", "a", "b")
    assert classes("None", "some") == ("None", "some")
    assert classes("True", "False") == ("False", "True")
    assert said(load(tmp_path / "t.csv", "x,label\n1,B\n2,b\n3,B\n4,b\n"), "'B', 'b'")


def test_rows_without_label(tmp_path: Path) -> None:
    text = "x,label\n1,u\n2,\n3,v\n4,?\n5,u\n6,v\n"
    with pytest.raises(ValueError, match=r"2 of 6 rows have no label .*row 1 .*--data\.bad skip"):
        load(tmp_path / "t.csv", text)
    table = load(tmp_path / "t.csv", bad="skip")
    assert table.rows.numbers.tolist() == [0, 2, 4, 5]
    assert table.left_out == (("1", "no label"), ("3", "no label"))


def named(tmp_path: Path, **columns: Sequence[object]) -> LabeledTable:
    frame = pd.DataFrame({name: list(values) * 10 for name, values in columns.items()})
    frame.insert(0, "size", np.linspace(0, 1, len(frame)) ** 2)
    frame.to_csv(tmp_path / "t.csv", index=False)
    return load(tmp_path / "t.csv")


def test_the_label_by_name_place_and_content(tmp_path: Path) -> None:
    assert named(tmp_path, color="abab", species="uvvu").label_column == "species"
    assert named(tmp_path, label="uvvu", color="abab").label_column == "label"
    assert named(tmp_path, Survived=[0, 1, 1, 0], Pclass=[1, 2, 3, 1]).label_column == "Survived"
    assert named(tmp_path, kind_of_leaf="uvvu").label_column == "kind_of_leaf"
    choice = named(tmp_path, color="abab", label="uvvu")
    assert said(choice, "label 'label'", "'color'")
    for columns in ({"class": "ABAB", "survived": [0, 1, 1, 0]}, {"label": "uvvu", "y": "abab"}):
        with pytest.raises(ValueError, match=r"several columns could be the label .*--data\.label-column"):
            named(tmp_path, **columns)
    assert named(tmp_path, status="uvvu", place="abab", size_class="abac").label_column == "status"
    no_label = r"no column is called like a label.*--data\.label-column"
    for columns in (
        {"color": "abab", "leaf": "uvvu", "bark": "xxyz"},
        {"color": "abab", "income": [1, 2, 3, 4], "bark": "xxyz"},  # a feature as well as a class
        {"floor": [1, 2, 3, 4], "near_the_sea": "xxyz"},  # where prices are to be told
    ):
        with pytest.raises(ValueError, match=no_label):
            named(tmp_path, **columns)


def test_regression_targets_and_names_are_no_labels(tmp_path: Path) -> None:
    n = 60
    frame = pd.DataFrame({"x": np.arange(n) % 7, "y": np.arange(n) / 7, "who": [f"p {i}" for i in range(n)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="regression"):
        load(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"nearly every row .*--data\.label-column"):
        load(tmp_path / "t.csv", label_column="who")


def test_a_feature_that_repeats_the_label_is_said(tmp_path: Path) -> None:
    table = named(tmp_path, alive=["no", "yes", "yes", "no"], sex="mmff", survived=[0, 1, 1, 0])
    assert table.label_column == "survived"
    assert said(table, "'alive'", "gives the label away")
    assert not said(table, "'sex'", "gives the label away")


def test_files_of_test_and_validation(tmp_path: Path) -> None:
    rows = [(i % 9, ["red", "blue", "green"][i % 3], ["<=50K", ">50K"][i % 2]) for i in range(60)]
    train = tmp_path / "adult.data"
    train.write_text("".join(f"{a}, {b}, {c}\n" for a, b, c in rows))
    test = tmp_path / "adult.test"
    test.write_text("|1x3 Cross validator\n" + "".join(f"{a}, {b}, {c}.\n" for a, b, c in rows[:7]))
    validation = tmp_path / "val.csv"
    validation.write_text("column_3,extra,column_2,column_1\n>50K,0,violet,x\n<=50K,0,red,5\n")
    table = load_table(train, TableData(str(train)), test=test, validation=validation)
    assert table.parts is not None
    assert table.parts.tolist() == [0] * 60 + [2] * 7 + [1] * 2
    assert table.class_names == ("<=50K", ">50K")
    assert table.labels.tolist() == [i % 2 for i in range(60)] + [i % 2 for i in range(7)] + [1, 0]
    assert table.rows.frame["column_1"].tolist()[-3:-2] == [6.0]
    assert np.isnan(table.rows.frame["column_1"].iloc[-2])
    assert said(table, "val.csv", "1 values of 'column_1'")
    test.write_text("1, red, >90K.\n2, blue, <=50K.\n")
    with pytest.raises(ValueError, match=r"adult\.test: classes that are not among .*'>90K\.'"):
        load_table(train, TableData(str(train)), test=test)


def test_a_column_of_parts(tmp_path: Path) -> None:
    rows = "".join(f"{i},{['Train', 'valid', 'TEST', 'train'][i % 4]},{'u' if i % 3 else 'v'}\n" for i in range(24))
    table = load(tmp_path / "t.csv", "x,split,label\n" + rows, split_column="split")
    assert table.parts is not None
    assert table.parts.tolist() == [0, 1, 2, 0] * 6
    with pytest.raises(ValueError, match=r"'sometimes'.*expected train, validation or test"):
        load(tmp_path / "t.csv", "x,split,label\n1,train,u\n2,sometimes,v\n3,test,u\n", split_column="split")
    with pytest.raises(ValueError, match="says test of no row"):
        load(tmp_path / "t.csv", "x,split,label\n1,train,u\n2,train,v\n3,train,u\n", split_column="split")


def test_a_column_of_time(tmp_path: Path) -> None:
    rows = "".join(f"{i},2021-01-{i + 1:02d},{'u' if i % 3 else 'v'}\n" for i in range(24))
    table = load(tmp_path / "t.csv", "x,day,label\n" + rows, time_column="day")
    assert table.times is not None
    assert (np.diff(table.times) > np.timedelta64(0)).all()
    assert list(kinds(table)) == ["x"] or said(table, "'x'")
    with pytest.raises(ValueError, match="neither numbers nor dates"):
        load(tmp_path / "t.csv", "x,place,label\n1,here,u\n2,there,v\n3,here,u\n4,there,v\n", time_column="place")


def test_new_rows_in_any_order(tmp_path: Path) -> None:
    train = tmp_path / "t.csv"
    data = TableData(str(train), id_column="key")
    text = "key,size,color,old,label\n" + "".join(
        f"k{i},{i / 7:.3f},{'red' if i % 3 else 'blue'},{'yes' if i % 5 else 'no'},{i % 2}\n" for i in range(30)
    )
    train.write_text(text)
    table = load_table(train, data)
    new = tmp_path / "new.csv"
    new.write_text("old,extra,color,size,key,label\nno,1,red,2.5,a,1\nYES,2,pink,many,b,\nmaybe,3,,1.5,c,0.0\n")
    rows = read_rows(new, table.columns, data, label_column="label", class_names=table.class_names)
    assert list(rows.rows.frame.columns) == ["size", "color", "old"]
    assert rows.rows.frame["size"].tolist()[0] == 2.5
    assert rows.rows.frame["old"].tolist()[:2] == [0, 1]
    assert rows.rows.frame["color"].isna().tolist() == [False, False, True]
    assert rows.labels == ("1", None, "0")
    assert rows.rows.ids == ("a", "b", "c")
    assert any("'size'" in note for note in rows.notes)
    assert any("'old'" in note for note in rows.notes)
    new.write_text("size,old\n1,yes\n")
    with pytest.raises(ValueError, match=r"new\.csv: columns missing .*'color'"):
        read_rows(new, table.columns, data, label_column="label")
    frame = pd.DataFrame({"size": [1.0], "color": ["red"], "old": [True]})
    assert read_rows(frame, table.columns, data, label_column="label").rows.frame["old"].isna().tolist() == [True]


def test_new_rows_of_a_file_without_header(tmp_path: Path) -> None:
    train = tmp_path / "wine.data"
    train.write_text("".join(f"{1 + i % 2},{12 + i / 7:.2f},{300 + 37 * i}\n" for i in range(24)))
    data = TableData(str(train))
    table = load_table(train, data)
    assert table.label_column == "column_1"
    new = tmp_path / "new.data"
    for text, labels in (("2,13.5,700\n", ("2",)), ("13.5,700\n", None)):
        new.write_text(text)
        rows = read_rows(new, table.columns, data, label_column="column_1", class_names=table.class_names)
        assert rows.rows.frame.to_numpy().tolist() == [[13.5, 700]], text
        assert rows.labels == labels


def test_frames_from_python() -> None:
    frame = FRAME.assign(when=pd.date_range("2020-01-01", periods=12), code=pd.Categorical(["a", "b", "c"] * 4))
    frame = frame.assign(count=pd.array([*range(11), None], dtype="Int64")).rename_axis("tree")
    table = table_from_frame(frame, TableData("trees"))
    assert kinds(table) == {
        "Länge, in mm": "number",
        "count": "number",
        "old": "boolean",
        "when": "date",
        "code": "category",
    }
    assert table.name == "trees"
    assert int(table.rows.frame["count"].isna().sum()) == 1
    for bad in ([1, 2], FRAME.iloc[:0], FRAME.assign(x=[[1]] * 12), FRAME.assign(x=1j)):
        with pytest.raises(ValueError, match=r"frame|no rows|one value a row|complex"):
            table_from_frame(bad, TableData("t"))


def test_a_named_index_is_a_column_of_a_file(tmp_path: Path) -> None:
    FRAME.rename_axis("tree").reset_index().assign(tree=[3, 1, 2] * 4).set_index("tree").to_parquet(
        tmp_path / "t.parquet"
    )
    assert "tree" in kinds(load(tmp_path / "t.parquet"))
    FRAME[FRAME["count"] > 1].to_parquet(tmp_path / "u.parquet")
    assert set(kinds(load(tmp_path / "u.parquet"))) == {"Länge, in mm", "count", "old"}


def test_a_tiny_frame_of_another_library() -> None:
    class Polars:
        """What polars frames have."""

        def to_pandas(self) -> pd.DataFrame:
            return FRAME

    assert len(table_from_frame(Polars(), TableData("t"))) == 12


BAD = {
    "empty": (b"", "empty"),
    "blank": (b"\n \n", "empty"),
    "only a header": (b"a,label\n", "no rows"),
    "one column": (b"label\nu\nv\nu\nv\nw\n", r"only one column|--data\.header"),
    "spreadsheet": (b"PK\x03\x04", "a spreadsheet .*save the table as CSV"),
    "row too long": (b"a,label\n1,u\n2,v,3\n4,u\n", "3 fields"),
    "row too short": (b"a,b,label\n1,2,u\n2,v\n4,5,u\n", "2 fields"),
    "late short row": (b"a,b,label\n" + b"1,2,u\n" * 5000 + b"3,4\n", "row 5001 .*2 fields"),
    "every row too long": (b"a,label\n1,u,3\n2,v,4\n", "2 fields .*3"),
    "twice": (b"a,a,label\n1,2,u\n3,4,v\n", "'a' names more than one column"),
    "NUL": (b"a,label\n1,u\x00\n2,v\n", "NUL"),
    "binary": (bytes(range(256)) * 20, "no table|NUL|control"),
    "one class": (b"a,label\n1,u\n2,u\n3,u\n", r"only one class \('u'\)"),
    "no feature": (b"a,label\n1,u\n1,v\n1,u\n1,v\n", "no feature column is left.*the same in every row"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read(tmp_path: Path, case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(ValueError, match=rf"(?s)bad\.csv: .*{message}"):
        load(tmp_path / "bad.csv", data)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".xlsx"])
def test_damaged_binary_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    for data in (b"", b"PAR1 and more", b"ARROW1 and more", b"PK\x03\x04 and more"):
        with pytest.raises(ValueError, match=rf"t\{suffix}: .*(complete|damaged|empty)"):
            load(path, data)
    with pytest.raises(ValueError, match="check the path"):
        load(tmp_path / f"nowhere{suffix}")
    with pytest.raises(ValueError, match="a folder"):
        load(tmp_path)


def test_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: .*twice"):
        load(tmp_path / "t.parquet")


def test_wide_and_long_lines(tmp_path: Path) -> None:
    width = 1000
    text = ",".join(f"x{i}" for i in range(width)) + ",label\n"
    text += "".join(",".join(str((i * j) % 97) for j in range(width)) + f",{'uv'[i % 2]}\n" for i in range(12))
    assert len(load(tmp_path / "wide.csv", text).columns) > 900
    with pytest.raises(ValueError, match=r"long\.csv: .*(field|column|line)"):
        load(tmp_path / "long.csv", "a,label\n" + "x" * 300_000 + ",u\n1,v\n")


def test_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("slide; label\n 007 ;NA\n;\n008; 1.0\n")
    frame, notes = read_text_table(path)
    assert notes == ("1 rows without any value are left out",)
    assert frame.to_dict("list") == {"slide": ["007", "008"], "label": ["NA", "1.0"]}
    assert list(frame.index) == [0, 2]
    path.write_bytes("slide;mpp\nMüller;0,25\n".encode("cp1252"))
    frame, notes = read_text_table(path)
    assert frame.to_dict("list") == {"slide": ["Müller"], "mpp": ["0,25"]}
    assert notes == ("the text is taken as cp1252; otherwise save it as UTF-8",)
    path.write_text("a,b\n,\n")
    with pytest.raises(ValueError, match="no rows"):
        read_text_table(path)


def test_a_data_set_of_numbers(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "trees.csv", index=False)
    data = load_samples(TableData(str(tmp_path / "trees.csv")))
    assert isinstance(data, LabeledTable)
    assert list(data.rows.frame) == ["Länge, in mm", "count", "old"]
    assert data.rows.frame.iloc[0].tolist() == [1.5, 1, 1]


def test_labels_as_objects() -> None:
    """What pandas before version 3 makes of nullable columns."""
    labels, names = encode_labels(np.array([10, 9, 10], dtype=object))
    assert (labels.tolist(), names) == ([1, 0, 1], ("9", "10"))
    assert encode_labels(np.array([True, False], dtype=object))[1] == ("False", "True")
    with pytest.raises(ValueError, match=r"row 1 .* has no label"):
        encode_labels(np.array([10, pd.NA, 9], dtype=object), np.array([False, True, False]))


# a word that is a number or a mark of a missing value would be read as such: each begins with a name of its own
LATIN = st.text(st.characters(codec="latin-1", exclude_categories=("C",), exclude_characters="\xa0"), max_size=12)
WORDS = st.lists(LATIN, min_size=2, max_size=4).map(lambda ends: [f"Bäume{i}{end}" for i, end in enumerate(ends)])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=20),
    words=WORDS,
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([0, 1, 2]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    comma=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_any_frame_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[float],
    words: list[str],
    separator: str,
    quoting: int,
    encoding: str,
    comma: bool,
    ends: str,
) -> None:
    numbers = [0.25, 1.5, -2.75, 3.125, *numbers]
    frame = pd.DataFrame(
        {
            "first number": numbers,
            "word": [words[i % len(words)] for i in range(len(numbers))],
            "label": [f"class {i % 2}" for i in range(len(numbers))],
        }
    )
    buffer = io.StringIO()
    decimal = "," if comma and separator != "," else "."
    frame.to_csv(buffer, index=False, sep=separator, quoting=quoting, decimal=decimal, lineterminator=ends)
    path = tmp_path_factory.mktemp("round") / "t.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    table = load_table(path, TableData(str(path), categorical=("word",)))
    np.testing.assert_allclose(table.rows.frame["first number"], numbers, rtol=1e-9)
    assert table.rows.frame["word"].tolist() == [word.strip() for word in frame["word"]]
    assert [table.class_names[i] for i in table.labels.tolist()] == frame["label"].tolist()


def rows_of(lines: int, row: Callable[[int], str], head: str = "") -> str:
    return head + "".join(f"{row(i)}\n" for i in range(lines))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # a usual predictor among others with two values, none of which a name tells
        (
            rows_of(60, lambda i: f"{i % 2},{i % 3 % 2},{30 + i},{i % 5 % 2}", "male,diabetes,age,TenYearCHD\n"),
            "TenYearCHD",
        ),
        # numbers at the edge, words inside
        (rows_of(60, lambda i: f"{1000 + i},{'RN'[i % 2]},{i * 0.37:.2f},{i * 7 % 13}"), "column_2"),
        # the first column has many values, of few rows each
        (rows_of(60, lambda i: f"v{i % 20},{i * 3},{i * 1.5},{i * i % 61}"), "--data.label-column"),
        # numbers that are called a class
        (rows_of(120, lambda i: f"{'AB'[i % 2]},{i * 7 % 40}", "motor,Class\n"), "--data.label-column"),
    ],
)
def test_labels_that_cannot_be_told_are_asked_for(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match="label") as caught:
        load_samples(TableData(str(tmp_path / "t.csv")))
    assert words in str(caught.value)


def test_commas_with_blanks_around_are_no_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(rows_of(60, lambda i: f"{i} ,{i % 7},{250 * i},{i * 2} ,{i % 2}"))
    table = load_samples(TableData(str(tmp_path / "t.csv"), label_column="-1"))
    assert isinstance(table, LabeledTable)
    assert table.rows.frame.iloc[9].tolist() == [2, 2250, 18]  # the first counts rows


def test_a_column_of_parts_is_no_feature(tmp_path: Path) -> None:
    rows = "".join(
        f"{i},{'train' if i % 3 else 'Test'},{'fit' if i % 5 else 'slim'},{'xy'[i % 2]}\n" for i in range(60)
    )
    table = load(tmp_path / "t.csv", "a,split,form,label\n" + rows)
    assert kinds(table) == {"a": "number", "form": "category"}
    assert said(table, "'split'", "--data.split-column")
    assert not said(table, "also possible", "'split'")
    assert "split" in kinds(load(tmp_path / "t.csv", categorical=("split",)))


def test_infinite_numbers_of_new_rows_are_counted(tmp_path: Path) -> None:
    table = load(tmp_path / "t.csv", "a,label\n" + "".join(f"{i}.5,{'xy'[i % 2]}\n" for i in range(40)))
    new = tmp_path / "new.csv"
    new.write_text("a\n1.5\n1e400\n-inf\n3\n")
    data = TableData(str(new))
    rows = read_rows(new, table.columns, data, label_column="label")
    assert np.isnan(rows.rows.frame["a"]).tolist() == [False, True, True, False]
    assert any("2 values of 'a'" in note for note in rows.notes)


def test_one_column_may_name_rows_and_groups(tmp_path: Path) -> None:
    rows = "".join(f"{i}.5,P{i // 2},{'xy'[i % 2]}\n" for i in range(40))
    table = load(tmp_path / "t.csv", "a,patient,label\n" + rows, id_column="patient", group_column="patient")
    assert table.rows.ids is not None
    assert table.groups is not None
    assert list(table.rows.ids) == table.groups.tolist() == [f"P{i // 2}" for i in range(40)]
    assert kinds(table) == {"a": "number"}


def test_a_test_file_is_other_than_the_training_file(tmp_path: Path) -> None:
    rows = [f"{i}.5,{'xy'[i % 2]}\n" for i in range(40)]
    path, copy, other = (tmp_path / name for name in ("t.csv", "copy.csv", "other.csv"))
    for file, lines in ((path, rows), (copy, rows[:20]), (other, [f"{i}.25,x\n" for i in range(20)])):
        file.write_text("a,label\n" + "".join(lines))
    data = TableData(str(path))
    for again in ({"test": str(tmp_path / "." / "t.csv")}, {"test": str(other), "validation": str(other)}):
        with pytest.raises(ValueError, match="two parts"):
            load_samples(replace(data, **again))
    assert said(load_table(path, data, test=copy), "copy.csv", "20 of 20 rows")
    assert not said(load_table(path, data, test=other), "20 rows")

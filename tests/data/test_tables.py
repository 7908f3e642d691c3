"""CSV, TSV and Parquet tables: round trips, and every complaint names the file and the cure."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ncmi.data.dataset import encode_labels
from ncmi.data.load import load_dataset
from ncmi.data.tables.reading import read_text_table

FRAME = pd.DataFrame(
    {
        "Länge, in mm": [1.5, -2.25, 3e10, 0.1],
        "count": [1, 2, 3, 4],
        "old": [True, False, True, True],
        "class": ["Birke", "Ähre", "Birke", 'so-called "x"'],
    }
)
INPUTS = torch.tensor([[1.5, 1, 1], [-2.25, 2, 0], [3e10, 3, 1], [0.1, 4, 1]])


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".CSV"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    data = load_dataset(str(write(FRAME, tmp_path / f"trees{suffix}")))
    assert (data.name, data.kind) == ("trees", "table")
    assert data.feature_names == ("Länge, in mm", "count", "old")
    torch.testing.assert_close(data.inputs, INPUTS, rtol=0, atol=0)
    assert data.class_names == ("Birke", 'so-called "x"', "Ähre")
    assert data.labels.tolist() == [0, 2, 0, 1]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes('\ufeff"label",größe\r\n"b",1\r\n"a",2\r\n'.encode())
    data = load_dataset(str(path))
    assert data.feature_names == ("größe",)
    assert data.class_names == ("a", "b")


def test_newline_inside_quotes_and_spaces_after_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x, label\n1, "two\nlines"\n2, one\n')
    assert load_dataset(str(path)).class_names == ("one", "two\nlines")


def test_commas_at_the_end_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,label\n1,b,\n2,a,\n")
    data = load_dataset(str(path))
    assert (data.inputs[:, 0].tolist(), data.class_names) == ([1.0, 2.0], ("a", "b"))


@pytest.mark.parametrize(
    ("values", "names", "labels"),
    [
        ([10, 9, 100, 9], ("9", "10", "100"), [1, 0, 2, 0]),
        ([2.0, 1.0, 2.0, 1.0], ("1", "2"), [1, 0, 1, 0]),
        ([True, False, False, True], ("False", "True"), [1, 0, 0, 1]),
        (pd.array([10, 9, 10, 9], dtype="Int64"), ("9", "10"), [1, 0, 1, 0]),
        (pd.Categorical(["b", "a", "b", "a"]), ("a", "b"), [1, 0, 1, 0]),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_kinds_of_labels(
    tmp_path: Path, suffix: str, values: list[object], names: tuple[str, ...], labels: list[int]
) -> None:
    data = load_dataset(str(write(FRAME.assign(**{"class": values}), tmp_path / f"t{suffix}")))
    assert data.class_names == names
    assert data.labels.tolist() == labels


def test_named_label_column(tmp_path: Path) -> None:
    path = write(FRAME.drop(columns="class").assign(species=list("abab")), tmp_path / "t.csv")
    assert load_dataset(str(path), label_column="species").class_names == ("a", "b")
    columns = re.escape("'Länge, in mm', 'count', 'old', 'species'")
    with pytest.raises(ValueError, match=rf"t\.csv: no column is called like a label: choose one of {columns}"):
        load_dataset(str(path))
    with pytest.raises(ValueError, match=rf"t\.csv: no column 'kind': choose one of {columns} with label_column"):
        load_dataset(str(path), label_column="kind")


def test_two_label_columns_are_ambiguous(tmp_path: Path) -> None:
    path = write(FRAME.assign(Target=list("abab")).drop(columns="old"), tmp_path / "t.csv")
    with pytest.raises(ValueError, match="several columns could be the label \\('class', 'Target'\\)"):
        load_dataset(str(path))
    with pytest.raises(ValueError, match=r"not numbers: 'class' \(the first begins with 'Birke'\): remove them"):
        load_dataset(str(path), label_column="Target")


def test_labels_as_objects() -> None:
    """What pandas before version 3 makes of nullable columns."""
    labels, names = encode_labels(np.array([10, 9, 10], dtype=object))
    assert (labels.tolist(), names) == ([1, 0, 1], ("9", "10"))
    assert encode_labels(np.array([True, False], dtype=object))[1] == ("False", "True")
    with pytest.raises(ValueError, match=r"row 1 .* has no label"):
        encode_labels(np.array([10, pd.NA, 9], dtype=object), np.array([False, True, False]))


def test_nullable_integers_with_a_gap(tmp_path: Path) -> None:
    gap = pd.array([1, None, 3, 4], dtype="Int64")
    with pytest.raises(ValueError, match=r"column 'count', row 1 \(counted from 0\) is nan"):
        load_dataset(str(write(FRAME.assign(count=gap), tmp_path / "t.parquet")))
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\) has no label"):
        load_dataset(str(write(FRAME.assign(**{"class": gap}), tmp_path / "u.parquet")))


BAD_CSV = {
    "missing value": ("a,b,y\n1,2,u\n3,,v\n", r"column 'b', row 1 .* is nan; 1 such values .*drop missing"),
    "not a number": ("a,y\n1,u\nNaN,v\n", "column 'a', row 1"),
    "infinite": ("a,y\n1,u\n-inf,v\n", "column 'a', row 1 .* is -inf"),
    "beyond float32": ("a,y\n1,u\n1e39,v\n", "column 'a', row 1 .* finite in float32"),
    "text column": ("a,b,y\n1,red,u\n2,blue,v\n", r"not numbers: 'b' \(.*'red'\): .*get_dummies"),
    "decimal comma": ('a,y\n"1,5",u\n2,v\n', "not numbers: 'a' .*a point in decimal numbers"),
    "spreadsheet": ("PK\x03\x04", "a spreadsheet .*save the table as CSV in UTF-8"),
    "no label": ("a,y\n1,u\n2,\n3,\n", r"row 1 \(counted from 0\) has no label; 2 such rows .*drop them"),
    "numeric label missing": ("a,y\n1,0\n2,\n3,1\n", "row 1 .* has no label"),
    "NA label": ("a,y\n1,u\n2,NA\n", "'NA' or 'None' reads as missing: rename it"),
    "continuous label": ("a,y\n1,0.5\n2,1.5\n", r"label 0\.5 of row 0 .* bin a continuous target"),
    "one class": ("a,y\n1,u\n2,u\n", r"only one class \('u'\)"),
    "only labels": ("y\nu\nv\n", "the label 'y' is the only column"),
    "no rows": ("a,y\n", "the table has no rows"),
    "empty": ("", "not a readable .csv table"),
    "row index": (",a,y\n0,1,u\n1,2,v\n", r"column 0 \(counted from 0\) has no name"),
    "row too long": ("a,y\n1,u\n2,v,3\n", "not a readable .csv table .*every row fits the header"),
    "every row too long": ("a,y\n1,u,3\n2,v,4\n", "not a readable .csv table .*every row fits the header"),
    "open quote": ('a,y\n1,"u\n2,v\n', "not a readable .csv table .*complete"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path: Path, case: str) -> None:
    text, message = BAD_CSV[case]
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.csv: .*{message}"):
        load_dataset(str(path))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_any_separator(tmp_path: Path, separator: str, start: str) -> None:
    path = tmp_path / "t.csv"
    lines = (
        ['"size, in mm";b;label', "1.5;2;u", "3;4;v"] if separator != "," else ["size;b,c,label", "1.5,2,u", "3,4,v"]
    )
    path.write_text(start + "\n".join(lines).replace(";" if separator != "," else "\0", separator), encoding="utf-8")
    data = load_dataset(str(path))
    assert data.inputs.tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert data.class_names == ("u", "v")
    text = read_text_table(path)
    assert text.to_numpy().tolist() == [["1.5", "2", "u"], ["3", "4", "v"]]


def test_the_separator_that_a_spreadsheet_names(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sep=;\na,b;label\n1;u\n2;v\n")
    assert load_dataset(str(path)).feature_names == ("a,b",)
    assert list(read_text_table(path).columns) == ["a,b", "label"]


def test_delimited_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("slide; label\n 007 ;NA\n;\n008; 1.0\n")
    frame = read_text_table(path)
    assert frame.to_dict("list") == {"slide": ["007", "008"], "label": ["NA", "1.0"]}
    assert list(frame.index) == [0, 2]
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match="'a' names more than one column"):
        read_text_table(path)
    path.write_text("a,b\n,\n")
    with pytest.raises(ValueError, match="no rows"):
        read_text_table(path)
    for missing in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(ValueError, match=r"check the path|give a CSV"):
            read_text_table(missing)


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("größe,y\n1,u\n2,v\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv: not UTF-8 .*UTF-8"):
        load_dataset(str(path))


def test_dates_and_complex_numbers_are_not_numbers(tmp_path: Path) -> None:
    dates = FRAME.assign(when=pd.to_datetime(["2020-01-01"] * 4), day=["1+2j"] * 4)
    with pytest.raises(ValueError, match="columns that are not numbers: 'when', 'day'"):
        load_dataset(str(write(dates, tmp_path / "t.parquet")))


def test_truncated_parquet(tmp_path: Path) -> None:
    path = write(FRAME, tmp_path / "t.parquet")
    whole = path.read_bytes()
    for length in (0, 100, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"t\.parquet: not a readable \.parquet table .*complete"):
            load_dataset(str(path))


def test_columns_of_one_name(tmp_path: Path) -> None:
    columns = [pa.array([1, 2]), pa.array([3, 4]), pa.array(["u", "v"])]
    pq.write_table(pa.table(columns, names=["a", "a", "y"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: not a readable .*no column name occurs twice"):
        load_dataset(str(tmp_path / "t.parquet"))


def test_long_lists_of_columns_are_cut(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.zeros((2, 30)), columns=[f"c{i}" for i in range(30)])
    with pytest.raises(ValueError, match="'c19' and 10 more"):
        load_dataset(str(write(frame, tmp_path / "wide.csv")))

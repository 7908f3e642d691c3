"""New rows of tables: each is read as training was, whatever else its file holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spreadsheet_writer import write_spreadsheet

import ncmi
from ncmi.data.load import NewSamples, new_rows
from ncmi.data.signature import Signature
from ncmi.data.tables.load import NewRows, load_table, read_rows, table_from_frame
from ncmi.data.tables.preprocessing import fit_preprocessing
from ncmi.data.tables.table import LabeledTable
from ncmi.recipes.data import TableData

DECIMAL_COMMA = "a;b;c;label\n" + "".join(f"{i % 9},{500 + i};{i % 7};{i % 5};{'uv'[i % 2]}\n" for i in range(40))


def trained(path: Path, text: str, **options: Any) -> tuple[LabeledTable, TableData]:
    path.write_text(text)
    data = TableData(str(path), **options)
    return load_table(path, data), data


def read(table: LabeledTable, data: TableData, path: Path, text: str) -> NewRows:
    path.write_text(text)
    return read_rows(
        path,
        table.columns,
        data,
        label_column=table.label_column,
        class_names=table.class_names,
        writing=table.writing,
    )


def inputs(table: LabeledTable, data: TableData, source: Any) -> NewSamples:
    """New data as the network gets it."""
    preprocessing = fit_preprocessing(table.rows.frame, table.columns, len(table), table.writing)
    signature = Signature(
        kind="table",
        sample_shape=(len(preprocessing.feature_names),),
        class_names=table.class_names,
        feature_names=preprocessing.feature_names,
        label_column=table.label_column,
        preprocessing=preprocessing,
    )
    return new_rows(source, signature, data)


def assert_rows_alone(
    table: LabeledTable, data: TableData, path: Path, header: str, rows: Sequence[str]
) -> pd.DataFrame:
    """Every row of a file means what it means in a file of its own; all of them are given back."""
    path.write_text("\n".join([header, *rows, ""]))
    whole = inputs(table, data, path).inputs
    for place, row in enumerate(rows):
        path.write_text(f"{header}\n{row}\n")
        alone = inputs(table, data, path).inputs[0]
        assert alone.tolist() == whole[place].tolist(), row
    return read(table, data, path, "\n".join([header, *rows, ""])).rows.frame


def noted(rows: NewRows | NewSamples | LabeledTable, *words: str) -> bool:
    return any(all(word in note for word in words) for note in rows.notes)


def test_the_decimal_sign_is_that_of_training(tmp_path: Path) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    assert [column.decimal for column in table.columns] == [",", ",", ","]
    frame = assert_rows_alone(
        table, data, tmp_path / "n.csv", "a;b;c", ["1,234;5;1", "0,500;5;1", "7;5;1", "2.345;6;2"]
    )
    assert frame["a"].tolist() == [1.234, 0.5, 7, 2345]
    assert noted(read(table, data, tmp_path / "n.csv", "a;b;c\n2.345;6;2\n"), "'2.345'", "'a'", "thousands")


def test_a_run_remembers_how_its_file_is_written(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_text(DECIMAL_COMMA)
    ncmi.train(path, out=tmp_path / "run", epochs=1, width=8, accelerator="cpu", threads=1, quiet=True)
    new = tmp_path / "n.csv"

    def predicted(*rows: str) -> Any:
        new.write_text("\n".join(["a;b;c", *rows, ""]))
        return ncmi.load(tmp_path / "run").predict_proba(new).tolist()

    assert predicted("1,234;5;1") == predicted("1,234;5;1", "0,500;5;1")[:1]
    assert predicted("1,234;5;1") != predicted("1234;5;1")


def test_another_decimal_sign_than_in_training_is_an_error(tmp_path: Path) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    with pytest.raises(ValueError, match=r"n\.csv: column 'a' holds '0\.500', with a decimal point.* a decimal comma"):
        read(table, data, tmp_path / "n.csv", "a;b;c\n1.234;5;1\n0.500;5;1\n")
    # one such value among others spoils no row but its own
    rows = read(table, data, tmp_path / "n.csv", "a;b;c\n1,5;5;1\n0.500;5;1\n2,5;5;1\n")
    assert rows.rows.frame["a"].tolist()[::2] == [1.5, 2.5]
    assert np.isnan(rows.rows.frame["a"][1])
    assert noted(rows, "1 values of 'a'")
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA.replace(",", "."))
    with pytest.raises(ValueError, match="with a decimal comma, but in training numbers had a decimal point"):
        read(table, data, tmp_path / "n.csv", "a;b;c\n1,5;5;1\n")


def test_a_decimal_sign_that_was_told_is_kept(tmp_path: Path) -> None:
    text = "a;b;label\n" + "".join(f"{1 + i % 9},{500 + i};{i % 7};{'uv'[i % 2]}\n" for i in range(40))
    table, data = trained(tmp_path / "t.csv", text, decimal="comma")
    frame = assert_rows_alone(table, data, tmp_path / "n.csv", "a;b", ["1,234;50", "8,123;40"])
    assert frame["a"].tolist() == [1.234, 8.123]


def test_numbers_of_frames_are_numbers_whatever_the_decimal_sign(tmp_path: Path) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    frame = pd.DataFrame({"a": [1.5, "2,5", 3.125, None, "x", 4.25], "b": range(6), "c": 1.0})
    sheet = tmp_path / "n.xlsx"
    write_spreadsheet(frame, sheet)
    for source in (frame, sheet):
        rows = read_rows(source, table.columns, data, label_column="label", writing=table.writing)
        assert np.array_equal(rows.rows.frame["a"], [1.5, 2.5, 3.125, np.nan, np.nan, 4.25], equal_nan=True)
        assert noted(rows, "1 values of 'a'")
        assert not noted(rows, "thousands")


def test_the_separator_is_that_of_training(tmp_path: Path) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    two, of_two = trained(
        tmp_path / "two.csv", "a;b;label\n" + "".join(f"{i % 9},5{i};{i % 7};{'uv'[i % 2]}\n" for i in range(40))
    )
    rows = read(two, of_two, tmp_path / "n.csv", "a;b\n1,234;50\n8,123;40\n")
    assert rows.rows.frame.to_numpy().tolist() == [[1.234, 50], [8.123, 40]]
    # another one is seen, and said
    rows = read(table, data, tmp_path / "n.tsv", "a\tb\tc\n1,5\t5\t1\n2,5\t5\t1\n")
    assert rows.rows.frame["a"].tolist() == [1.5, 2.5]
    assert noted(rows, "separated", "in training by ';'")


def test_the_first_line_says_where_to_cut(tmp_path: Path) -> None:
    text = "a;label\n" + "".join(f"1,{230 + i};{i % 2}\n" for i in range(20))
    table, _ = trained(tmp_path / "t.csv", text)
    assert [column.name for column in table.columns] == ["a"]
    assert table.label_column == "label"


def test_categories_that_look_like_numbers_are_texts(tmp_path: Path) -> None:
    rows = "".join(f"{['1.10', '1.9', '2.0b', '1.1'][i % 4]},{i % 7},{'uvuw'[i % 4]}\n" for i in range(80))
    table, data = trained(tmp_path / "t.csv", "z,x,label\n" + rows)
    frame = assert_rows_alone(table, data, tmp_path / "n.csv", "z,x", ["1.10,1", "1.9,1", "2.0b,1", "1.1,1"])
    assert frame["z"].tolist() == ["1.10", "1.9", "2.0b", "1.1"]


@pytest.mark.parametrize(
    ("values", "options"),
    [(["01", "02", "1A", "03"], {}), (["01", "02", "03", "04"], {"categorical": ("z",)})],
    ids=["text", "told"],
)
def test_codes_keep_their_zeros(tmp_path: Path, values: list[str], options: dict[str, Any]) -> None:
    rows = "".join(f"{values[i % 4]},{i % 7},{'uvuw'[i % 4]}\n" for i in range(80))
    table, data = trained(tmp_path / "t.csv", "z,x,label\n" + rows, **options)
    frame = assert_rows_alone(table, data, tmp_path / "n.csv", "z,x", [f"{value},1" for value in (*values, "1", "05")])
    assert frame["z"].tolist() == [*values, "1", "05"]
    assert noted(inputs(table, data, tmp_path / "n.csv"), "2 rows have a value of 'z'")


def test_a_row_that_begins_like_a_comment_is_a_row(tmp_path: Path) -> None:
    rows = "".join(f"{['#ff0000', '#00ff00'][i % 2]},{i % 7},{'uv'[i % 2]}\n" for i in range(80))
    table, data = trained(tmp_path / "t.csv", "color,x,label\n" + rows)
    assert_rows_alone(table, data, tmp_path / "n.csv", "color,x", ["#ff0000,1", "#00ff00,2", "blue,3"])
    for text in ("# of today\ncolor,x\nblue,3\n", "#color,x\nblue,3\n"):
        rows_read = read(table, data, tmp_path / "n.csv", text)
        assert rows_read.rows.frame["x"].tolist() == [3]
        assert noted(rows_read, "'#'", "left out")


def test_one_odd_value_spoils_no_column(tmp_path: Path) -> None:
    rows = "".join(f"{1 + i % 4},{i % 7},{['no', 'yes'][i % 3 == 0]},{'uvuw'[i % 4]}\n" for i in range(80))
    table, data = trained(tmp_path / "t.csv", "z,x,old,label\n" + rows, categorical=("z",))
    lines = ["1,1,yes", "2,1,1", "3,1,no", "4,1,0", "2.5,1,yes", "2.0,1,1.0"]
    assert_rows_alone(table, data, tmp_path / "n.csv", "z,x,old", lines)
    known = ["1", "2", "3", "4"]
    for column in ([1.0, 2.0, 3.0, 4.0, 2.5], [1.0, 2.0, np.nan, 4.0, 3.0]):
        frame = pd.DataFrame({"z": column, "x": 1.0, "old": [1.0, 0.0, 0.5, 1.0, np.nan]})
        samples = inputs(table, data, frame)
        names = fit_preprocessing(table.rows.frame, table.columns, len(table)).feature_names
        for row, value in enumerate(column):
            found = [name for name in known if samples.inputs[row, names.index(f"z={name}")]]
            assert found == [name for name in known if float(name) == value]
        old = read_rows(frame, table.columns, data, label_column="label").rows.frame["old"]
        assert np.array_equal(old, [1, 0, np.nan, 1, np.nan], equal_nan=True)


def test_one_number_written_in_two_ways_is_one_category(tmp_path: Path) -> None:
    rows = "".join(f"{['1', '1.0', '2', '3'][i % 4]},{i % 7},{'uvuw'[i % 4]}\n" for i in range(80))
    table, data = trained(tmp_path / "t.csv", "z,x,label\n" + rows, categorical=("z",))
    assert [n for n in fit_preprocessing(table.rows.frame, table.columns, 80).feature_names if n[0] == "z"] == [
        "z=1",
        "z=2",
        "z=3",
    ]
    assert not noted(inputs(table, data, tmp_path / "t.csv"), "'z'")


def test_classes_of_new_labels_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i / 3:.2f},{['0.0', '0.5', '1.0'][i % 3]}\n" for i in range(60))
    table, data = trained(tmp_path / "t.csv", "x,label\n" + rows, label_column="label")
    assert table.class_names == ("0.0", "0.5", "1.0")
    assert read(table, data, tmp_path / "n.csv", "x,label\n1.5,0.0\n2.5,1.0\n3.5,1\n").labels == ("0.0", "1.0", "1.0")


def test_numbers_that_flags_and_marks_stand_among(tmp_path: Path) -> None:
    rows = "".join(f"{i % 2},{i * 1.5},{'uv'[i % 3 == 0]}\n" for i in range(60))
    table, data = trained(tmp_path / "t.csv", "f,x,label\n" + rows, missing=("-999",))
    frame = assert_rows_alone(
        table, data, tmp_path / "n.csv", "f,x", ["true,1.5", "0,2.5", "False,-999.0", "1,abc", "0,-999", '1,"1,234"']
    )
    assert frame["f"].tolist() == [1, 0, 0, 1, 0, 1]
    assert np.array_equal(frame["x"], [1.5, 2.5, np.nan, np.nan, np.nan, 1234], equal_nan=True)


@pytest.mark.parametrize("odd", ["abc", '"1,234"'])
def test_numbers_beyond_double_precision_are_missing(tmp_path: Path, odd: str) -> None:
    rows = "".join(f"{i * 1.5},{i % 7},{'uv'[i % 2]}\n" for i in range(40))
    table, data = trained(tmp_path / "t.csv", "x,w,label\n" + rows)
    (new := tmp_path / "n.csv").write_text(f"x,w\n1e400,1\n{odd},2\n3.5,3\n1e39,4\n")
    samples = inputs(table, data, new)
    assert samples.usable.tolist() == [True, True, True, False]
    assert noted(samples, f"{1 + (odd == 'abc')} values of 'x'")
    table, _ = trained(tmp_path / "u.csv", "x,w,label\n" + rows + '1e400,1,u\n"1,234",2,v\n')
    assert np.isfinite(table.rows.frame["x"]).tolist() == [True] * 40 + [False, True]
    fit_preprocessing(table.rows.frame, table.columns, len(table)).transform(table.rows.frame)


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y"])
def test_dates_that_nanoseconds_cannot_hold_are_missing(tmp_path: Path, form: str) -> None:
    def day(year: int, month: int) -> str:
        return form.replace("%Y", f"{year:04d}").replace("%m", f"{month:02d}").replace("%d", "31")

    dates = [day(2010 + i % 9, [1, 3, 5][i % 3]) if i % 5 else day([9999, 1][i % 2], 12) for i in range(40)]
    rows = "".join(f"{text},{i % 7},{'uv'[i % 2]}\n" for i, text in enumerate(dates))
    table, data = trained(tmp_path / "t.csv", "end,x,label\n" + rows)
    assert [column.kind for column in table.columns] == ["date", "number"]
    assert table.rows.frame["end"].isna().tolist() == [i % 5 == 0 for i in range(40)]
    assert noted(table, "8 values of 'end'", "missing")
    lines = [f"{day(2012, 3)},1", f"{day(9999, 12)},1", f"{day(1, 12)},1"]
    frame = assert_rows_alone(table, data, tmp_path / "n.csv", "end,x", lines)
    assert frame["end"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize("unit", ["s", "us"])
def test_dates_of_frames_that_nanoseconds_cannot_hold(unit: str) -> None:
    end = np.array(["2020-05-01", "9999-12-31", "0001-01-01", "2021-05-01"] * 5, dtype=f"datetime64[{unit}]")
    frame = pd.DataFrame({"end": end, "x": np.arange(20) / 7, "label": ["u", "v"] * 10})
    table = table_from_frame(frame, TableData("frame"))
    assert table.rows.frame["end"].isna().tolist() == [False, True, True, False] * 5
    assert noted(table, "10 values of 'end'")
    days = frame.assign(end=[stamp.astype("datetime64[D]").item() for stamp in end])
    assert table_from_frame(days, TableData("frame")).rows.frame.equals(table.rows.frame)


def test_thousands_with_points(tmp_path: Path) -> None:
    rows = [f"{['740', '3.478', '1.250'][i % 3]};{{}};{'uv'[i % 2]}" for i in range(30)]
    texts = {
        name: "n;x;label\n" + "".join(f"{row.format(value % i)}\n" for i, row in enumerate(rows))
        for name, value in (("comma", "%d,5"), ("point", "%d.5"), ("whole", "%d"))
    }
    table, data = trained(tmp_path / "t.csv", texts["comma"])
    assert table.rows.frame["n"].tolist()[:3] == [740, 3478, 1250]
    assert noted(table, "'n'", "a point between thousands")
    assert_rows_alone(table, data, tmp_path / "n.csv", "n;x", ["3.478;1,5", "740;2,5", "1,5;3"])
    table, _ = trained(tmp_path / "t.csv", texts["whole"])
    assert table.rows.frame["n"].tolist()[:3] == [740, 3.478, 1.25]
    assert noted(table, "'n'", "'3.478'", "--data.decimal comma")
    assert trained(tmp_path / "t.csv", texts["whole"], decimal="comma")[0].rows.frame["n"].tolist()[1] == 3478
    table, _ = trained(tmp_path / "t.csv", texts["point"])
    assert table.rows.frame["n"].tolist()[:3] == [740, 3.478, 1.25]
    assert not noted(table, "thousands")


def test_a_zero_in_front_is_no_thousand(tmp_path: Path) -> None:
    rows = "".join(f'"{i % 9},{500 + i}",{i % 7},{"uv"[i % 2]}\n' for i in range(40))
    table, _ = trained(tmp_path / "t.csv", "a,b,label\n" + rows)
    assert table.rows.frame["a"].tolist()[:2] == [0.5, 1.501]


def test_further_columns_may_hold_anything(tmp_path: Path) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    rows = read(table, data, tmp_path / "n.csv", "a;extra;b;extra;extra (2);c\n1,5;x;2;y;w;3\n")
    assert rows.rows.frame.to_numpy().tolist() == [[1.5, 2, 3]]
    frame = pd.DataFrame([[1.5, [1], 2, {}, 3]], columns=["a", "extra", "b", "extra", "c"])
    assert read_rows(frame, table.columns, data, label_column="label").rows.frame.to_numpy().tolist() == [[1.5, 2, 3]]
    with pytest.raises(ValueError, match="'a' names more than one column"):
        read(table, data, tmp_path / "n.csv", "a;a;b;c\n1,5;2,5;2;3\n")


@pytest.mark.parametrize(
    "content",
    [b"u;v;w\n1,5;2;3\n", b"q;r\n", "a;b;c\nß;2;3\n".encode("utf-16")[2:-1], b"1,5;2;3\n"],
    ids=["other names", "no row", "encoding", "no header"],
)
def test_errors_name_no_option_that_new_data_lacks(tmp_path: Path, content: bytes) -> None:
    table, data = trained(tmp_path / "t.csv", DECIMAL_COMMA)
    (new := tmp_path / "n.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"n\.csv") as error:
        read_rows(new, table.columns, data, label_column="label", writing=table.writing)
    assert "--data" not in str(error.value)


def test_an_encoding_that_was_guessed_is_said_of_new_data(tmp_path: Path) -> None:
    rows = "".join(f"{['Köln', 'Ulm'][i % 2]};{i % 7};{'uv'[i % 2]}\n" for i in range(40))
    table, data = trained(tmp_path / "t.csv", "town;x;label\n" + rows)
    (new := tmp_path / "n.csv").write_bytes("town;x\nKöln;1\n".encode("cp1252"))
    read_back = read_rows(new, table.columns, data, label_column="label", writing=table.writing)
    assert noted(read_back, "cp1252", "save it as UTF-8")
    assert not noted(read_back, "--data")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["sample", "Observation", "lfd_nr", "PatientNumber"])
def test_a_column_that_numbers_the_rows_is_said(tmp_path: Path, name: str, first: int) -> None:
    rows = "".join(f"{i + first},{i * 7 % 11},{'uv'[i % 2]}\n" for i in range(40))
    table, _ = trained(tmp_path / "t.csv", f"{name},x,label\n{rows}")
    assert noted(table, repr(name), "numbers the rows", "--data.drop")
    assert not noted(table, "'x'", "numbers the rows")


NUMBERS = [
    "0",
    "1",
    "7.5",
    "-2",
    "1e3",
    "1,234",
    "abc",
    "true",
    "False",
    "1e400",
    "-999",
    "-999.0",
    "inf",
    "NA",
    "",
    " 3 ",
]
CODES = ["1", "2", "2.5", "1.0", "01", "1A", "x", "NA", "-", "", "1.10", "true", "1e5", "#1", "'y'", "2020-01-01"]
DATES = ["01/02/2020", "31/12/2019", "12/31/2019", "31/12/9999", "2020-01-01", "x", "", "7", "1.5"]
WORDS = ["yes", "NO", "1", "0", "1.0", "0.5", "true", "x", "", "NA"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(*(st.sampled_from(values) for values in (NUMBERS, CODES, CODES, DATES, WORDS))),
        min_size=2,
        max_size=12,
    )
)
def test_no_row_depends_on_others(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    training = "".join(
        f"{i * 1.5},{i % 4},{['1', '1A', '01'][i % 3]},{1 + i % 28:02d}/{1 + i % 12:02d}/2020,"
        f"{['yes', 'no'][i % 3 == 0]},{'uv'[i % 2]}\n"
        for i in range(80)
    )
    table, data = trained(
        tmp_path / "t.csv", f"n,told,code,day,old,label\n{training}", categorical=("told",), missing=("-999",)
    )
    assert [column.kind for column in table.columns] == ["number", "category", "category", "date", "boolean"]
    lines = [",".join(f'"{value}"' if "," in value else value for value in row) for row in rows if any(row)]
    if lines:
        assert_rows_alone(table, data, tmp_path / "n.csv", "n,told,code,day,old", lines)

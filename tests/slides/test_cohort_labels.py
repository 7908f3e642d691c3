"""The table of slides: columns are guessed or asked for, and what does not add up is refused with the cure."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from bag_writers import write_table

from ncmi.data.bags.labels import LabelTable, read_label_table, slide_name

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from spreadsheet_writer import write_spreadsheet


def read(path: Path, text: str | bytes, **options: str | bool) -> LabelTable:
    file = path / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_label_table(file, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header",
    [
        "slide_id,patient_id,label",
        "Slide ID,Patient-ID,Label",
        "slide,case_id,class",
        "filename, patient ,target",
        "image,subject,diagnosis",
        "WSI Filename,Case,WSI label",
    ],
)
def test_usual_column_names_are_guessed(tmp_path: Path, header: str) -> None:
    table = read(tmp_path, f"{header}\na,p,x\nb,q,y\n")
    assert (table.slides, table.patients, table.labels) == (("a", "b"), ("p", "q"), ("x", "y"))
    assert table.values == {}
    assert table.notes == ()


def test_columns_asked_for_and_the_others(tmp_path: Path) -> None:
    text = "a,b,c,slide,center\n1,2,3,4,5\n"
    table = read(tmp_path, text, slide_column="c", patient_column="b", label_column="a")
    assert (table.slides, table.patients, table.labels) == (("3",), ("2",), ("1",))
    assert table.values == {"slide": ("4",), "center": ("5",)}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,label\n1,2\n", {}, r"no column is called like a slide; there is 'a', 'label': .*\(--data\.slide-column\)"),
        ("slide,a\n1,2\n", {}, r"no column is called like a label; there is .*\(--data\.label-column\)"),
        (
            "slide,image,label\n1,2,3\n",
            {},
            r"several columns could be the slide \('slide', 'image'\).*--data\.slide-column",
        ),
        ("slide,label,class\n1,2,3\n", {}, r"several columns could be the label .*--data\.label-column"),
        ("slide,label,case,patient\n1,2,3,4\n", {}, r".*could be the patient .*--data\.patient-column"),
        (
            "slide,label\n1,2\n",
            {"label_column": "grade"},
            r"no column 'grade' \(--data\.label-column\); there is 'slide'",
        ),
        ("slide,label\n,2\n1,2\n,3\n", {}, r"line 2 has no slide in column 'slide' \(2 such lines\)"),
        ("slide,patient,label\n1,p,2\n2, ,2\n", {}, r"line 3 has no patient in column 'patient' \(1 such"),
        ("slide,label\na,x\nb,y\na,z\n", {}, r"slide 'a' stands there more than once .*\(label: 'x' and 'z'\), 1 such"),
        ("slide,label\na.svs,x\na,z\n", {}, r"slide 'a' stands there more than once .*\(label: 'x' and 'z'\)"),
        ("slide,label,label\na,x,y\n", {}, r"'label' names more than one column"),
        ("PK\x03\x04,label\na,x\n", {}, r"a spreadsheet.*: save the table as CSV"),
        ("slide,patient,label\na,p,x\na,q,x\n", {}, r".*patient: 'p' and 'q'"),
        ("slide,label\n", {}, ".*no rows"),
        ("", {}, "the file is empty"),
        ("slide,label\na,x,y\n", {}, "the header has 2 fields.* a row below it 3"),
        (b"slide,label\n" + bytes(range(1, 9)) * 9, {}, "no table of text.*give a CSV"),
    ],
)
def test_tables_that_do_not_add_up(tmp_path: Path, text: str | bytes, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"labels\.csv: {message}"):
        read(tmp_path, text, **options)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv: no such file"):
        read_label_table(tmp_path / "labels.csv")


def test_spaces_byte_order_mark_semicolons_and_row_index(tmp_path: Path) -> None:
    expected = (("a b", "c"), ("p", "q"), ("x", "y"))
    for text in (
        "\ufeffslide,patient,label\r\n a b , p ,x \r\nc,q,y\r\n",
        "slide;patient;label\na b;p;x\nc;q;y\n",
        "slide\tpatient\tlabel\na b\tp\tx\nc\tq\ty\n",
        ",slide,patient,label\n0,a b,p,x\n1,c,q,y\n",
        '"slide","patient","label"\n"a b","p","x"\n"c","q","y"\n"c","q","y"\n',
    ):
        table = read(tmp_path, text)
        assert (table.slides, table.patients, table.labels) == expected


def test_names_stay_text(tmp_path: Path) -> None:
    text = "slide,patient,label\n007,01,N\n1e5,02,NA\n008,03,None\n"
    table = read(tmp_path, text, classes=("N", "NA", "None"))
    assert table.slides == ("007", "1e5", "008")
    assert table.patients == ("01", "02", "03")
    assert table.labels == ("N", "NA", "None")


def test_names_that_look_alike_are_alike(tmp_path: Path) -> None:
    """macOS writes ä as two signs, pandas 12 as 12.0; a number with a fraction is a name like any other."""
    table = read(tmp_path, "slide,patient,label\nPra\u0308parat.svs,7.0,x\n12.0,8.0,y\n1.50,9,x\n")
    assert table.slides == ("Pr\u00e4parat", "12", "1.50")
    assert table.patients == ("7", "8", "9")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_tables_of_spreadsheets_in_their_encodings(tmp_path: Path, encoding: str) -> None:
    text = "slide;Diagnosis\r\nPräparat 1;groß\r\nPräparat 2;klein\r\n"
    table = read(tmp_path, text.encode(encoding))
    assert (table.slides, table.labels) == (("Präparat 1", "Präparat 2"), ("groß", "klein"))
    told = [note for note in table.notes if "is taken as" in note]
    expected = f"labels.csv: the text is taken as {encoding}; otherwise save it as UTF-8"
    assert told == ([] if encoding == "utf-8-sig" else [expected])


def test_a_column_of_patients_that_the_barcodes_contradict(tmp_path: Path) -> None:
    text = "slide,patient,label\nTCGA-AD-6964-01Z-00-DX1,{},x\nTCGA-AD-6964-01Z-00-DX2,{},y\nb,p3,x\n"
    (note,) = read(tmp_path, text.format("p1", "p2")).notes
    assert "'TCGA-AD-6964'" in note
    assert "'patient'" in note
    assert read(tmp_path, text.format("p1", "p1")).notes == ()


def test_na_is_no_label_unless_it_is_named(tmp_path: Path) -> None:
    table = read(tmp_path, "slide,label\na,NA\nb,n/a\nc,x\nd,None\n")
    assert table.labels == (None, None, "x", "None")
    assert "2 labels are 'NA', 'n/a', which counts as no label" in table.notes[1]


def test_one_class_in_two_spellings(tmp_path: Path) -> None:
    table = read(tmp_path, "slide,label\na,LUAD\nb,luad\nc,LUSC\nd,LUAD\n")
    assert table.labels == ("LUAD", "LUAD", "LUSC", "LUAD")
    assert "label 'luad' (1 rows) counts as 'LUAD'" in table.notes
    asked = read(tmp_path, "slide,label\na,LUAD\nb,luad\nd,LUAD\n", classes=("luad", "lusc"))
    assert asked.labels == ("luad", "luad", "luad")
    # where both are asked for, they are two
    both = read(tmp_path, "slide,label\na,t\nb,T\n", classes=("t", "T"))
    assert both.labels == ("t", "T")


def test_equal_columns_are_one(tmp_path: Path) -> None:
    table = read(tmp_path, "slide,slide_id,label,target\na,a,x,x\nb,b,y,y\n")
    assert (table.slides, table.labels) == (("a", "b"), ("x", "y"))
    with pytest.raises(ValueError, match="several columns could be the label"):
        read(tmp_path, "slide,label,target\na,x,x\nb,y,x\n")


def test_missing_labels_and_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "slide,label\na,\nb,nan\nc,x\n").labels == (None, None, "x")
    assert read(tmp_path, "slide,label\na,1.0\nb,\nc,02\n").labels == ("1", None, "2")
    assert read(tmp_path, "slide,label\na,1.5\nb,1\n").labels == ("1.5", "1")


def test_without_patients_or_labels(tmp_path: Path) -> None:
    table = read(tmp_path, "slide\na.svs\nb\n", need_labels=False)
    assert table.patients == table.slides == ("a", "b")
    assert table.labels == (None, None)
    assert "each slide counts as a patient of its own" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tumor_001.tif", "tumor_001"),
        ("C:\\scans\\a.NDPI ", "a"),
        ("x/y/b.ome.tiff", "b.ome"),
        ("TCGA-1.2b3c-4d.svs", "TCGA-1.2b3c-4d"),
        ("scan.QPTIFF", "scan"),
        ("TCGA-1.2b3c-4d", "TCGA-1.2b3c-4d"),
        ("patient_000_node_0", "patient_000_node_0"),
    ],
)
def test_slide_names(text: str, name: str) -> None:
    assert slide_name(text) == name


def test_the_tables_of_the_challenges(data_dir: Path) -> None:
    if not (data_dir / "labels").is_dir():
        pytest.skip(f"needs {data_dir / 'labels'}")
    table = read_label_table(data_dir / "labels" / "camelyon17.csv")
    assert (len(table.slides), len(set(table.patients)), list(table.values)) == (500, 100, ["center"])
    counts = {label: table.labels.count(label) for label in table.labels}
    assert counts == {"negative": 318, "itc": 36, "micro": 59, "macro": 87}
    with pytest.raises(ValueError, match=r"bracs\.csv: no column is called like a label.*'label_fine', 'label_coarse'"):
        read_label_table(data_dir / "labels" / "bracs.csv")
    table = read_label_table(data_dir / "labels" / "bracs.csv", label_column="label_coarse")
    assert (len(table.slides), len(set(table.patients)), set(table.labels)) == (547, 189, {"BT", "AT", "MT"})


def test_writer_of_these_tests(tmp_path: Path) -> None:
    table = read_label_table(write_table(tmp_path / "t.csv", [("a", "p", 1)]))
    assert table.labels == ("1",)


def test_labels_in_a_spreadsheet(tmp_path: Path) -> None:
    """Numbers are floats there: 1 is 1, and no 1.0."""
    frame = pd.DataFrame({"slide": ["a.svs", "b"], "patient": [1001, 1002], "label": [1, 0], "center": ["x", "y"]})
    write_spreadsheet(frame, tmp_path / "labels.xlsx")
    table = read_label_table(tmp_path / "labels.xlsx")
    assert (table.slides, table.patients, table.labels) == (("a", "b"), ("1001", "1002"), ("1", "0"))
    assert table.values == {"center": ("x", "y")}

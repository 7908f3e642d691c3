"""Which kind of data a name or path is: seen without torch, and every error names the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ncmi.data.cifar_sets import CIFAR_SETS
from ncmi.data.kinds import EMBEDDED, kind_of
from ncmi.data.load import load_embedded

ROWS, IMAGES = np.zeros((4, 3), np.float32), np.zeros((4, 8, 8), np.uint8)
LABELS = np.array([0, 1, 0, 1])


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IMAGES[0]).save(path)


def table(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"x": [1, 2], "y": [0, 1]})
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def arrays(**content: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **content)

    return write


def slide(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".pt", ".pth"):
        torch.save(torch.zeros(4, 3), path)
    else:
        with h5py.File(path, "w") as file:
            file["features"] = ROWS


def empty(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def large(path: Path) -> None:
    empty(path)
    with path.open("r+b") as file:
        file.truncate(200_000_000)  # a hole, no bytes on disk


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded(name: str) -> None:
    assert kind_of(name) == load_embedded(name).kind


ARRAYS = {
    "table": ({"x": ROWS, "y": LABELS}, "table"),
    "features with labels": ({"features": ROWS, "coords": ROWS[:, :2], "label": LABELS}, "table"),
    "parts of a table": ({"x_train": ROWS, "y_train": LABELS, "x_test": ROWS, "y_test": LABELS}, "table"),
    "gray images": ({"images": IMAGES, "labels": LABELS}, "image"),
    "color images": ({"X": np.zeros((4, 8, 8, 3), np.uint8), "y": LABELS}, "image"),
    "parts of images": ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}, "image"),
    "cohort": ({"x": ROWS, "bag": LABELS, "bag_label": np.array([0, 1])}, "bags"),
    "slide": ({"features": ROWS, "coords": ROWS[:, :2]}, "bags"),
    "slide as [1, N, D]": ({"feats": ROWS[None], "coords": ROWS[:, :2], "label": np.array(1)}, "bags"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(tmp_path: Path, case: str) -> None:
    content, kind = ARRAYS[case]
    np.savez(tmp_path / "data.npz", **content)  # type: ignore[arg-type]
    assert kind_of(str(tmp_path / "data.npz")) == kind


def test_arrays_are_not_read(tmp_path: Path) -> None:
    """A header alone says it, be what follows an object or damaged."""
    np.savez(tmp_path / "data.npz", x=np.array([[object()]]), y=LABELS)
    assert kind_of(str(tmp_path / "data.npz")) == "table"


PATHS: dict[str, tuple[dict[str, Callable[[Path], None]], str]] = {
    "a.csv": ({"a.csv": table}, "table"),
    "a.TSV": ({"a.TSV": table}, "table"),
    "a.parquet": ({"a.parquet": table}, "table"),
    "classes": ({"classes/cat/1.png": image, "classes/dog/1.JPG": image, "classes/notes.txt": empty}, "image"),
    "small scans": ({"small scans/a/1.tif": image}, "image"),
    "cohort.h5": ({"cohort.h5": slide}, "bags"),
    "cohort.HDF5": ({"cohort.HDF5": slide}, "bags"),
    "one.pt": ({"one.pt": slide}, "bags"),
    "h5": ({"h5/a.h5": slide, "h5/b.h5": slide, "h5/pictures/a.png": image}, "bags"),
    "pt": ({"pt/a.pt": slide, "pt/labels.csv": empty}, "bags"),
    "npz": ({"npz/a.npz": arrays(features=ROWS, coords=ROWS[:, :2])}, "bags"),
    "unplaced": ({"unplaced/a.npz": arrays(features=ROWS)}, "bags"),
    "clam": ({"clam/pt_files/a.pt": slide, "clam/h5_files/a.h5": slide}, "bags"),
    "trident": ({"trident/features/a.h5": slide}, "bags"),
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("below", [False, True])
def test_paths(tmp_path: Path, name: str, below: bool) -> None:
    files, kind = PATHS[name]
    for file, write in files.items():
        write(tmp_path / file)
    assert (kind_of(name, str(tmp_path)) if below else kind_of(str(tmp_path / name))) == kind


def test_names_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays(x=ROWS, y=LABELS)(tmp_path / "deep" / "plants.npz")
    assert kind_of("plants", str(tmp_path)) == "table"
    monkeypatch.setenv("NCMI_DATA", str(tmp_path))
    assert kind_of("plants") == "table"
    for name in ("flowers", "cifar10"):
        with pytest.raises(FileNotFoundError, match=f"no data set '{name}'.*NCMI_DATA|embedded data sets are"):
            kind_of(name)


def test_cifar(tmp_path: Path) -> None:
    layout = CIFAR_SETS["cifar10"].python
    for file in layout.files:
        empty(tmp_path / "sets" / layout.folder / file)
    assert kind_of("cifar10", str(tmp_path)) == "image"
    assert kind_of(str(tmp_path / "sets" / layout.folder)) == "image"
    assert kind_of(str(tmp_path / "sets")) == "image"


BAD: dict[str, tuple[dict[str, Callable[[Path], None]], str]] = {
    "scans": ({"scans/a.svs": empty, "scans/b.svs": empty}, "whole-slide images: .*ncmi slides tile"),
    "centers": ({"centers/one/a.ndpi": empty}, "whole-slide images: .*ncmi slides tile"),
    "camelyon": ({"camelyon/tumor/a.tif": large}, "whole-slide images: .*ncmi slides tile"),
    "a.mrxs": ({"a.mrxs": empty}, "whole-slide image: .*ncmi slides tile"),
    "a.png": ({"a.png": image}, "one image is no data set: give a folder"),
    "a.doc": ({"a.doc": empty}, "type .doc cannot be read: give a table"),
    "a.npz": ({"a.npz": empty}, "write it with numpy.savez"),
    "odd.npz": ({"odd.npz": arrays(weights=ROWS)}, "no inputs found among the arrays 'weights': call them x or"),
    "flat": ({"flat/a.png": image}, "expected one subfolder of images for each class"),
    "nothing": ({"nothing/a.doc": empty}, "no data that is known: give a table"),
    "sets": ({"sets/a.npz": arrays(x=ROWS, y=LABELS)}, "a folder of data sets .*'a.npz'.*: give the path of one"),
    "tables": ({"tables/a.csv": table, "tables/b.csv": table}, "a folder of data sets .*: give the path of one"),
    "nested": ({"nested/20x/a.h5": slide}, "but in .*20x.*: give that folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data(tmp_path: Path, name: str) -> None:
    files, message = BAD[name]
    for file, write in files.items():
        write(tmp_path / file)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        kind_of(str(tmp_path / name))


def test_without_torch() -> None:
    code = "import sys, ncmi.data.kinds as k; assert k.kind_of('iris') == 'table'; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "sklearn", "pandas", "h5py", "PIL"} & set(modules)


def test_text_with_separators_is_a_table(tmp_path: Path) -> None:
    for name, text in {
        "wine.names2": "1,2,a\n3,4,b\n",
        "iris": "a;b\n1;2\n",
        "x.csv.gz": "",
        "y.data": "1 2\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert kind_of(str(tmp_path / name)) == "table", name
    (tmp_path / "letter").write_text("Dear reader,\nno table is here.\n\nYours\n")
    with pytest.raises(ValueError, match="cannot be read"):
        kind_of(str(tmp_path / "letter"))


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(ValueError, match="a pipe, socket or device"):
            kind_of(str(name))

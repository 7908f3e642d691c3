"""Where a data set is looked for: embedded, path, data folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ncmi.data.load import load_dataset, load_samples
from ncmi.recipes import ImageData, TableData

ARRAYS = {"x": np.arange(6.0).reshape(3, 2), "y": np.array([0, 1, 0])}


@pytest.fixture
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)


@pytest.mark.usefixtures("no_data_folder")
def test_unknown_name(tmp_path: Path) -> None:
    known = "embedded data sets are digits, wine, breast_cancer, iris; otherwise give the path"
    with pytest.raises(FileNotFoundError, match=rf"no data set 'digitz': {known}.* or set NCMI_DATA"):
        load_dataset("digitz")
    with pytest.raises(FileNotFoundError, match=r"nor a file of that name below .*embedded data sets are digits"):
        load_dataset("digitz", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no data folder .*nowhere"):
        load_dataset("digitz", data_dir=str(tmp_path / "nowhere"))


def test_name_in_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tables" / "deep" / "plants.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **ARRAYS)
    assert load_dataset("plants", data_dir=str(tmp_path)).name == "plants"
    monkeypatch.setenv("NCMI_DATA", str(tmp_path))
    assert load_dataset("plants").labels.tolist() == [0, 1, 0]
    assert load_dataset("tables/deep/plants.npz").name == "plants"
    shutil.copy(path, tmp_path / "plants.npz")
    with pytest.raises(ValueError, match=r"'plants' is ambiguous: give one of the paths .*plants\.npz, .*plants\.npz"):
        load_dataset("plants")


def test_embedded_wins_over_a_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    assert len(load_dataset("iris")) == 150
    with pytest.raises(ValueError, match="iris: a folder of no data"):
        load_dataset("./iris")


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "mine.npz", **ARRAYS)
    assert len(load_dataset("~/mine.npz")) == 3


def test_unknown_type_of_file(tmp_path: Path) -> None:
    for name in ("data.doc", "data"):
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(ValueError, match=rf"{name}: a file of type .* cannot be read: give a table"):
            load_dataset(str(tmp_path / name))


def test_the_section_of_a_recipe_names_the_kind() -> None:
    assert load_samples(TableData("wine")).kind == "table"
    assert load_samples(ImageData("digits")).kind == "image"
    with pytest.raises(ValueError, match=r"'digits' is data of kind 'image', .* use ImageData\('digits'\)"):
        load_samples(TableData("digits"))
    with pytest.raises(ValueError, match=r"use TableData\('iris'\)"):
        load_samples(ImageData("iris"))


def test_letters() -> None:
    """The letter data: 20,000 letters, 16 measurements of 0…15, 26 classes."""
    folder = os.environ.get("NCMI_DATA")
    if not folder or not (Path(folder) / "tabular" / "letter.npz").exists():
        pytest.skip("no letter data: set NCMI_DATA to the folder that holds tabular/letter.npz")
    data = load_dataset("letter")
    assert (data.kind, data.inputs.shape, data.num_classes) == ("table", (20000, 16), 26)
    assert (float(data.inputs.min()), float(data.inputs.max())) == (0.0, 15.0)
    assert data.inputs.dtype == torch.float32
    assert int(torch.bincount(data.labels, minlength=data.num_classes).min()) > 700

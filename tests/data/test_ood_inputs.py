"""Inputs that a network was not trained for: as in training, from data sets, folders, archives and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from ncmi.data.images import with_channels
from ncmi.data.load import load_dataset
from ncmi.data.load import load_ood as load_by_signature
from ncmi.data.signature import Signature
from ncmi.recipes import ImageData, TableData


def load_ood(
    name: str,
    *,
    kind: Literal["table", "image"],
    shape: tuple[int, ...],
    feature_names: tuple[str, ...] | None = None,
    data_dir: str | None = None,
) -> torch.Tensor:
    signature = Signature(kind=kind, sample_shape=shape, class_names=("u", "v"), feature_names=feature_names)
    section = TableData if kind == "table" else ImageData
    return load_by_signature(name, signature, section("training", data_dir=data_dir))  # type: ignore[return-value]


def test_images_become_as_in_training(tmp_path: Path) -> None:
    digits = load_dataset("digits").inputs
    assert torch.equal(load_ood("digits", kind="image", shape=(1, 8, 8)), digits)
    assert load_ood("digits", kind="image", shape=(3, 8, 8)).shape == (1797, 3, 8, 8)
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / f"{name}.png")
    inputs = load_ood(str(folder.parent), kind="image", shape=(1, 8, 8))
    assert inputs.shape == (2, 1, 8, 8)
    assert int(inputs.min()) == int(inputs.max()) == 90
    np.savez(tmp_path / "some.npz", x=np.zeros((3, 8, 8), np.uint8))
    assert load_ood("some", kind="image", shape=(1, 8, 8), data_dir=str(tmp_path)).shape == (3, 1, 8, 8)


def test_tables_need_no_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("b,a,label\n1,2,x\n3,4,y\n")
    inputs = load_ood(str(tmp_path / "t.csv"), kind="table", shape=(2,), feature_names=("a", "b"))
    assert inputs.tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_of_cifar_the_test_part_is_taken(tiny_cifar100: Path) -> None:
    inputs = load_ood("cifar100", kind="image", shape=(1, 8, 8), data_dir=str(tiny_cifar100))
    data = load_dataset("cifar100", image_size=8, data_dir=str(tiny_cifar100))
    assert data.parts is not None
    assert torch.equal(inputs, with_channels(data.array[torch.from_numpy(data.parts == 2)], 1))
    with pytest.raises(
        ValueError, match=r"has square images, but the network was trained on sample shape \[1, 16, 8\]"
    ):
        load_ood("cifar100", kind="image", shape=(1, 16, 8), data_dir=str(tiny_cifar100))


@pytest.mark.parametrize(
    ("name", "kind", "shape", "message"),
    [
        ("wine", "image", (1, 8, 8), r"wine is table .* trained on image .*\[1, 8, 8\]: give data of that form; image"),
        (
            "digits",
            "table",
            (13,),
            r"digits is image .* trained on table of sample shape \[13\]: give data of that form$",
        ),
        ("digits", "image", (1, 16, 16), r"image files in a folder are scaled to it"),
        ("iris", "table", (13,), r"sample shape \[4\], .* \[13\]"),
        ("some.npz", "image", (1, 16, 16), r"some.npz: image of sample shape \[1, 8, 8\]"),
        ("some.npz", "table", (13,), r"some.npz: "),
    ],
)
def test_data_of_another_form_is_refused(
    name: str, kind: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "some.npz", x=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=message):
        load_ood(name, kind=kind, shape=shape, data_dir=str(tmp_path))  # type: ignore[arg-type]


def test_what_is_nowhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    for kind, shape in (("image", (1, 8, 8)), ("table", (4,))):
        with pytest.raises(FileNotFoundError, match="no data set 'nowhere'"):
            load_ood("nowhere", kind=kind, shape=shape)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no data set 'cifar10'"):
        load_ood("cifar10", kind="image", shape=(1, 8, 8), data_dir=str(tmp_path))

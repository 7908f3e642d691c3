"""Features that cannot be used: errors that name the file and the cure, and nothing of a file is ever run."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from bag_writers import grid, values, write_cohort_h5, write_h5

from ncmi.data.bags.bag import BagError
from ncmi.data.bags.readers import open_bags


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def write(folder: Path, kind: str, features: np.ndarray) -> None:
    if kind == "h5":
        write_h5(folder / "a.h5", features)
    elif kind == "pt":
        torch.save(torch.from_numpy(features), folder / "a.pt")
    elif kind == "npz":
        np.savez(folder / "a.npz", features=features)


@pytest.mark.parametrize("kind", ["h5", "pt", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 0.99])
def test_a_truncated_file(tmp_path: Path, kind: str, share: float) -> None:
    write(tmp_path, kind, values(5000))
    cut(tmp_path / f"a.{kind}", share)
    source = open_bags(tmp_path)
    for use in (source.shape, source.load):
        with pytest.raises(
            BagError, match=rf"a\.{kind}: (not a readable .* truncated or damaged|an empty file).*--data\.bad skip"
        ):
            use("a")


@pytest.mark.parametrize("kind", ["h5", "pt", "npz"])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 4), "f4"), r"an empty bag, features of shape \[0, 4\]"),
        (np.zeros((3, 0), "f4"), r"an empty bag"),
        (np.zeros((2, 3, 4), "f4"), r"features of shape \[2, 3, 4\] instead of \[N, D\]"),
    ],
)
def test_an_empty_bag_or_one_of_another_shape(tmp_path: Path, kind: str, features: np.ndarray, message: str) -> None:
    write(tmp_path, kind, features)
    source = open_bags(tmp_path)
    for use in (source.shape, source.load):
        with pytest.raises(BagError, match=rf"a\.{kind}: {message}.*--data\.bad skip"):
            use("a")


@pytest.mark.parametrize("kind", ["h5", "pt", "npz"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_show_when_read(tmp_path: Path, kind: str, dtype: str, value: float) -> None:
    x = values(6, dtype=dtype)
    x[2, 1] = x[4, 0] = x[4, 3] = value
    write(tmp_path, kind, x)
    source = open_bags(tmp_path)
    assert source.shape("a") == (6, 4)
    with pytest.raises(
        BagError, match=rf"a\.{kind}: 3 NaN or infinite features, in 2 of 6 instances.*--data\.bad skip"
    ):
        source.load("a")


def test_numbers_beyond_float32_are_not_finite(tmp_path: Path) -> None:
    write(tmp_path, "h5", np.full((2, 2), 1e300))
    with pytest.raises(BagError, match="4 NaN or infinite features"):
        open_bags(tmp_path).load("a")


@pytest.mark.parametrize("features", [np.array([[b"x", b"y"]]), np.ones((2, 2), complex)])
def test_features_that_are_no_real_numbers(tmp_path: Path, features: np.ndarray) -> None:
    write_h5(tmp_path / "a.h5", features)
    with pytest.raises(BagError, match="instead of numbers"):
        open_bags(tmp_path).load("a")
    torch.save(torch.ones(2, 2, dtype=torch.complex64), tmp_path / "b.pt")
    with pytest.raises(BagError, match="instead of plain numbers"):
        open_bags(tmp_path / "b.pt").load("b")


@pytest.mark.parametrize("coords", [grid(4), np.zeros((3, 3), int), np.full((3, 2), np.nan)])
def test_positions_that_do_not_fit(tmp_path: Path, coords: np.ndarray) -> None:
    write_h5(tmp_path / "a.h5", values(3), coords=coords)
    with pytest.raises(BagError, match=r"a\.h5: coords "):
        open_bags(tmp_path).load("a")


def test_features_under_no_usual_name_or_under_several(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", values(3), key="tokens", coords=grid(3))
    with pytest.raises(
        BagError,
        match=r"a\.h5: no data set is called like the features; there is .*tokens \[3, 4\].*--data\.features-key",
    ):
        open_bags(tmp_path).shape("a")
    with pytest.raises(BagError, match=r"no data set 'uni' .*'coords', 'tokens'.*--data\.features-key"):
        open_bags(tmp_path, features_key="uni").shape("a")
    with pytest.raises(BagError, match=r"no data set 'where' .*--data\.coords-key"):
        open_bags(tmp_path, features_key="tokens", coords_key="where").load("a")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["feats"] = file["embeddings"] = values(3)
    with pytest.raises(BagError, match=r"several data sets could be the features.*--data\.features-key"):
        open_bags(tmp_path).shape("a")
    assert open_bags(tmp_path, features_key="feats").shape("a") == (3, 4)


def test_objects_in_a_pt_file_are_not_made(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    torch.save({"features": torch.ones(2, 2), "more": Evil(tmp_path / "made")}, tmp_path / "f" / "a.pt")
    torch.save([torch.ones(2, 2)], tmp_path / "f" / "b.pt")
    source = open_bags(tmp_path / "f")
    for use in (source.shape, source.load):
        with pytest.raises(BagError, match=r"a\.pt: .*Python objects, which are not read"):
            use("a")
        with pytest.raises(BagError, match=r"b\.pt: holds a list instead of a tensor"):
            use("b")
    assert not (tmp_path / "made").exists()


def test_objects_in_an_npz_file_are_not_made(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f" / "a.npz", features=np.array([[Evil(tmp_path / "made")]], dtype=object))
    with pytest.raises(BagError, match=r"a\.npz: not a readable \.npz file"):
        open_bags(tmp_path / "f").load("a")
    assert not (tmp_path / "made").exists()


def test_one_damaged_group_does_not_take_the_cohort_with_it(tmp_path: Path) -> None:
    path = write_cohort_h5(tmp_path / "c.h5", {"a": values(3), "b": values(0), "c": values(2)})
    with h5py.File(path, "a") as file:
        file.create_group("d")
        file["e"] = h5py.SoftLink("/nowhere")
    source = open_bags(path)
    assert source.names == ("a", "b", "c", "d")
    assert source.load("c").features.shape == (2, 4)
    with pytest.raises(BagError, match=r"c\.h5/b: an empty bag"):
        source.shape("b")
    with pytest.raises(BagError, match=r"c\.h5/d: no data set is called like the features; there is none"):
        source.load("d")


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_truncated_cohort(tmp_path: Path, share: float) -> None:
    path = write_cohort_h5(tmp_path / "c.h5", {"a": values(500)})
    cut(path, share)
    with pytest.raises(BagError, match=r"c\.h5: not a readable HDF5 file, truncated or damaged"):
        open_bags(path)
    np.savez(tmp_path / "c.npz", x=values(4), bag=np.zeros(4, int), bag_label=np.zeros(1))
    cut(tmp_path / "c.npz", share)
    with pytest.raises(BagError, match=r"c\.npz: not bags of features, or damaged"):
        open_bags(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bag": np.zeros(3, int)}, "'bag' must hold the whole number"),
        ({"bag": np.zeros(4)}, "'bag' must hold the whole number"),
        ({"bag": np.array([0, 1, 2, 1])}, "'bag' runs from 0 to 2, but 'bag_label' has 2"),
        ({"bag": np.array([0, 1, -1, 1])}, "'bag' runs from -1 to 1"),
        ({"x": np.zeros((4, 9, 9, 3), "u1")}, r"'x' of shape \[4, 9, 9, 3\] holds images: embed them first"),
        ({"x": np.zeros((0, 4))}, "an empty bag"),
    ],
)
def test_arrays_of_a_cohort_that_do_not_belong_together(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    arrays = {"x": values(4), "bag": np.array([0, 0, 1, 1]), "bag_label": np.array([0, 1]), **changes}
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(BagError, match=rf"c\.npz: {message}"):
        open_bags(tmp_path / "c.npz")


def test_what_is_no_layout_lists_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".a.h5.x.partial").write_text("x")
    (tmp_path / ".b.h5").write_text("x")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(BagError, match=r"TRIDENT, CLAM.*AEM, ASMIL.*bag_label"):
            open_bags(path)
    with pytest.raises(BagError, match=r"nowhere: no such file or folder: check the path of the features"):
        open_bags(tmp_path / "nowhere")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(BagError, match="no group a slide"):
        open_bags(tmp_path / "empty.h5")


def test_a_folder_of_several_kinds(tmp_path: Path) -> None:
    write(tmp_path, "h5", values(2))
    write_h5(tmp_path / "a.hdf5", values(2))
    with pytest.raises(BagError, match=r"a\.h5 and a\.hdf5 are one slide"):
        open_bags(tmp_path)
    write(tmp_path, "pt", values(2))
    with pytest.raises(BagError, match=r"files of several kinds \(\.h5, \.hdf5, \.pt\): keep one kind"):
        open_bags(tmp_path)


@pytest.mark.parametrize("kind", ["h5", "cohort"])
def test_a_bag_that_is_not_there(tmp_path: Path, kind: str) -> None:
    if kind == "h5":
        write(tmp_path, "h5", values(2))
    else:
        write_cohort_h5(tmp_path / "c.h5", {"a": values(2)})
    source = open_bags(tmp_path if kind == "h5" else tmp_path / "c.h5")
    for use in (source.shape, source.load):
        with pytest.raises(BagError, match=r"no bag 'z' \(there is 'a'\)"):
            use("z")


@pytest.mark.parametrize("kind", ["h5", "pt", "npz"])
def test_bytes_that_were_changed_are_refused_or_read_never_a_crash(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, values(50))
    file = tmp_path / f"a.{kind}"
    whole, outcomes = file.read_bytes(), set()
    for seed in range(100):
        random = np.random.default_rng(seed)
        content = bytearray(whole)
        for _ in range(1 + seed % 5):
            content[random.integers(min(len(content), 3000))] = random.integers(256)
        file.write_bytes(bytes(content))
        try:
            assert open_bags(tmp_path).load("a").features.isfinite().all()
            outcomes.add("read")
        except BagError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}

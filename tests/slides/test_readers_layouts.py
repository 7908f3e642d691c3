"""Every layout of feature files: written here as the usual tools write it, and read back."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from bag_writers import grid, values, write_cohort_h5, write_h5

from ncmi.data.bags.bag import BagError, BagSource
from ncmi.data.bags.cohort import load_cohort
from ncmi.data.bags.readers import open_bags
from ncmi.data.kinds import kind_of
from ncmi.recipes import BagData


def check(source: BagSource, name: str, features: np.ndarray, coords: np.ndarray | None = None) -> None:
    assert source.shape(name) == features.shape
    bag = source.load(name)
    assert bag.name == name
    assert bag.features.is_contiguous()
    assert torch.equal(bag.features, torch.from_numpy(features))
    if coords is None:
        assert bag.coords is None
    else:
        assert bag.coords is not None
        assert bag.coords.dtype == torch.int64
        assert torch.equal(bag.coords, torch.from_numpy(coords))


@pytest.mark.parametrize("key", ["features", "feats", "feat", "embeddings", "Features"])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_one_h5_file_a_slide(tmp_path: Path, key: str, batched: bool, dtype: str) -> None:
    x, xy = values(5, dtype=dtype), grid(5)
    write_h5(tmp_path / "b.h5", values(2), key=key)
    write_h5(tmp_path / "a.v1.h5", x[None] if batched else x, key=key, coords=xy[None] if batched else xy)
    source = open_bags(tmp_path)
    assert source.names == ("a.v1", "b")
    assert source.path == tmp_path
    check(source, "a.v1", x, xy)
    check(source, "b", values(2))
    assert source.label("b") is None


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({}, None),
        ({"patch_size_level0": 512, "patch_size": 256}, 512),
        ({"patch_size": 256, "level0_magnification": 40, "target_magnification": 20}, 512),
        ({"patch_size": 256, "patch_level": 0, "downsample": np.array([1.0, 1.0])}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}, 1024),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 2}, None),
        ({"patch_size": 224}, 224),
        ({"patch_size": "unknown"}, None),
        ({"patch_size_level0": -1}, None),
    ],
)
def test_patch_size_from_the_attributes_of_trident_and_clam(
    tmp_path: Path, attributes: dict[str, object], size: int | None
) -> None:
    write_h5(tmp_path / "a.h5", values(3), coords=grid(3), attributes=attributes)
    assert open_bags(tmp_path).load("a").patch_size == size


def test_names_of_data_sets_are_configurable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["uni/tokens"] = values(3)
        file["uni/where"] = grid(3)
        file["features"] = values(7)
    check(open_bags(tmp_path, features_key="uni/tokens", coords_key="uni/where"), "a", values(3), grid(3))
    check(open_bags(tmp_path), "a", values(7))


def test_positions_written_as_floats_are_whole_numbers(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", values(3), coords=grid(3).astype("f8"))
    check(open_bags(tmp_path), "a", values(3), grid(3))


@pytest.mark.parametrize("dtype", ["f8", "i4", "u1", ">f4", ">f2"])
def test_other_numbers_become_float32(tmp_path: Path, dtype: str) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    write_h5(tmp_path / "a.h5", x)
    features = open_bags(tmp_path).load("a").features
    assert features.dtype == torch.float32
    assert features.tolist() == x.tolist()


def test_a_single_file_is_one_bag(tmp_path: Path) -> None:
    check(open_bags(write_h5(tmp_path / "a.h5", values(3))), "a", values(3))
    torch.save(torch.from_numpy(values(3)), tmp_path / "b.pt")
    check(open_bags(tmp_path / "b.pt"), "b", values(3))
    np.savez(tmp_path / "c.npz", features=values(3))
    check(open_bags(str(tmp_path / "c.npz")), "c", values(3))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", ["tensor", "batched", "dict"])
def test_one_pt_file_a_slide(tmp_path: Path, zipped: bool, form: str) -> None:
    x = torch.from_numpy(values(5, dtype="f2"))
    content = {"tensor": x, "batched": x[None], "dict": {"features": x, "coords": torch.from_numpy(grid(5)), "k": 1}}
    torch.save(content[form], tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    check(open_bags(tmp_path), "a", values(5, dtype="f2"), grid(5) if form == "dict" else None)


def test_clam_s_folders_positions_come_from_the_h5_file_of_the_same_slide(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 5)):
        write_h5(
            tmp_path / "h5_files" / f"{name}.h5", values(count), coords=grid(count), attributes={"patch_size": 256}
        )
        (tmp_path / "pt_files").mkdir(exist_ok=True)
        torch.save(torch.from_numpy(values(count)), tmp_path / "pt_files" / f"{name}.pt")
    for folder in (tmp_path, tmp_path / "pt_files", tmp_path / "h5_files"):
        source = open_bags(folder)
        assert source.names == ("a", "b")
        check(source, "b", values(5), grid(5))
        assert source.load("b").patch_size == 256


def test_a_saved_slice_of_a_larger_tensor_and_a_bfloat16_one(tmp_path: Path) -> None:
    torch.save(torch.arange(40.0).view(10, 4)[2:5], tmp_path / "a.pt")
    torch.save(torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True), tmp_path / "b.pt")
    source = open_bags(tmp_path)
    assert source.load("a").features.flatten().tolist() == list(range(8, 20))
    b = source.load("b").features
    assert (b.dtype, b.requires_grad) == (torch.float32, False)


@pytest.mark.parametrize(("label", "text"), [(2, "2"), (2.0, "2"), ("ITC", "ITC"), (np.array([1]), "1"), (b"x ", "x")])
def test_one_h5_file_a_cohort(tmp_path: Path, label: object, text: str) -> None:
    path = write_cohort_h5(tmp_path / "c.h5", {"b": values(3, dtype="f2"), "a": values(5)}, {"a": label})
    source = open_bags(path)
    assert source.names == ("a", "b")
    check(source, "a", values(5), grid(5))
    check(source, "b", values(3, dtype="f2"), grid(3))
    assert (source.label("a"), source.label("b")) == (text, None)


def test_one_npz_file_a_cohort(tmp_path: Path) -> None:
    x, bag = values(12), np.array([1, 0, 1, 3, 3, 0, 1, 1, 3, 0, 0, 1], "u1")
    np.savez_compressed(tmp_path / "c.npz", x=x, bag=bag, bag_label=np.array([0, 1, 1, 0], "i1"), xy=grid(12))
    source = open_bags(tmp_path / "c.npz")
    assert source.names == ("0", "1", "2", "3")
    for index in (0, 1, 3):
        check(source, str(index), x[bag == index], grid(12)[bag == index])
        assert source.label(str(index)) == str([0, 1, 1, 0][index])
    with pytest.raises(BagError, match=r"c\.npz: bag '2' is empty"):
        source.shape("2")


def test_one_npz_file_a_slide(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=values(3)[None], coords=grid(3))
    np.savez_compressed(tmp_path / "b.npz", features=values(2))
    source = open_bags(tmp_path)
    check(source, "a", values(3), grid(3))
    check(source, "b", values(2))


def test_every_source_can_be_pickled_and_used_from_threads(tmp_path: Path) -> None:
    bags = {f"{i}": values(3 + i, seed=i) for i in range(10)}
    for name, x in bags.items():
        write_h5(tmp_path / "h5" / f"{name}.h5", x)
        for folder in ("pt", "npz"):
            (tmp_path / folder).mkdir(exist_ok=True)
        torch.save(torch.from_numpy(x), tmp_path / "pt" / f"{name}.pt")
        np.savez(tmp_path / "npz" / f"{name}.npz", features=x)
    write_cohort_h5(tmp_path / "cohort.h5", bags)
    index = np.repeat(np.arange(10), [len(x) for x in bags.values()])
    np.savez(tmp_path / "cohort.npz", x=np.concatenate(list(bags.values())), bag=index, bag_label=np.arange(10))
    for path in ("h5", "pt", "npz", "cohort.h5", "cohort.npz"):
        source = open_bags(tmp_path / path)
        source.load("3")
        copy = pickle.loads(pickle.dumps(source))
        assert copy.names == source.names
        with ThreadPoolExecutor(8) as threads:
            for name, bag in zip(source.names * 5, threads.map(copy.load, source.names * 5), strict=True):
                assert torch.equal(bag.features, torch.from_numpy(bags[name]))


def test_the_bags_of_musk(data_dir: Path) -> None:
    for name, counts, instances in (("musk1", [45, 47], 476), ("musk2", [63, 39], 6598)):
        path = data_dir / "bags" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"needs {path}")
        source = open_bags(path)
        assert [sum(source.label(bag) == label for bag in source.names) for label in "01"] == counts
        assert sum(source.shape(bag)[0] for bag in source.names) == instances
        with np.load(path) as arrays:
            x, bag = arrays["x"], arrays["bag"]
        check(source, source.names[7], x[bag == 7])


def test_real_features_of_a_tcga_slide(data_dir: Path) -> None:
    path = data_dir / "slides" / "TCGA-AD-6964-01Z-00-DX1_features.h5"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    for source in (open_bags(path), open_bags(path.parent)):
        (name,) = source.names
        assert source.shape(name) == (777, 512)
        bag = source.load(name)
        assert bag.features.dtype == torch.float32
        assert bag.coords is not None
        assert bag.coords[0].tolist() == [10240, 21504]


def test_names_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_h5(tmp_path / "data/cohort/features/a.h5", values(3), coords=grid(3))
    np.savez(tmp_path / "data/bags.npz", x=values(4), bag=np.array([0, 0, 1, 1]), bag_label=np.array([0, 1]))
    monkeypatch.setenv("NCMI_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for name in ("cohort", "cohort/features", "bags", "bags.npz"):
        assert kind_of(name) == "bags"
    check(open_bags("cohort"), "a", values(3), grid(3))
    cohort = load_cohort(BagData("bags"))
    assert (len(cohort.slides), cohort.class_names) == (2, ("0", "1"))
    with pytest.raises(BagError, match=r"nowhere: no such file or folder: check the path"):
        open_bags("nowhere")


@pytest.mark.parametrize("size", [{"tile_size": 256.0}, {"tile_size_um": 256.0, "tile_size_px": 224}])
def test_positions_of_stamp_are_microns(tmp_path: Path, size: dict[str, float]) -> None:
    """As STAMP 2 writes, and its later releases: attributes of the file, fractions of a micron kept."""
    coords = np.array([[0.0, 256.25], [512.5, 768.0]], np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"], file["coords"] = values(2), coords
        file.attrs.update({"stamp_version": "2.4.0", "extractor": "uni2", "unit": "um", **size, "feat_type": "tile"})
    source = open_bags(tmp_path)
    bag = source.load("a")
    assert (bag.unit, bag.patch_size, source.encoder("a")) == ("um", 256.0, "uni2")
    assert bag.coords is not None
    assert bag.coords.tolist() == coords.tolist()


def test_one_patch_alone(tmp_path: Path) -> None:
    """As [D], without the axis of the patches, with its position as [2]."""
    for kind in ("pt", "h5", "npy"):
        (tmp_path / kind).mkdir()
    torch.save(torch.ones(4), tmp_path / "pt" / "a.pt")
    write_h5(tmp_path / "h5" / "a.h5", np.ones(4, np.float32), coords=np.array([3, 5]))
    np.save(tmp_path / "npy" / "a.npy", np.ones(4, np.float32))
    for kind in ("pt", "h5", "npy"):
        source = open_bags(tmp_path / kind)
        assert source.shape("a") == (1, 4)
        assert source.load("a").features.tolist() == [[1.0] * 4]
    coords = open_bags(tmp_path / "h5").load("a").coords
    assert coords is not None
    assert coords.tolist() == [[3, 5]]


def test_a_locked_file_is_not_damaged(tmp_path: Path) -> None:
    """Another program writes the file: there is nothing to make again."""
    write_h5(tmp_path / "a.h5", values(2))
    writer = f"import h5py, sys; f = h5py.File({str(tmp_path / 'a.h5')!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(BagError, match=r"locked.*wait") as error:
            open_bags(tmp_path).load("a")
        assert "damaged" not in str(error.value)
        process.communicate(b"\n")
    assert open_bags(tmp_path).load("a").features.shape == (2, 4)


def test_arrays_of_torchmil(tmp_path: Path) -> None:
    """One .npy a slide in a folder of features, positions in a folder coords beside it, labels in one called so."""
    for folder, array in (("features_uni", values(3)), ("coords", grid(3))):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", array)
    assert kind_of(str(tmp_path / "features_uni")) == "bags"
    check(open_bags(tmp_path / "features_uni"), "a", values(3), grid(3))
    assert open_bags(tmp_path / "features_uni").label("a") is None
    (tmp_path / "labels").mkdir()
    for label, told in (([1.0], "1"), (2, "2"), ([0, 1], None)):
        np.save(tmp_path / "labels" / "a.npy", np.array(label))
        assert open_bags(tmp_path / "features_uni").label("a") == told
    (tmp_path / "features_uni" / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(BagError, match=r"a\.npy: not a readable \.npy file"):
        open_bags(tmp_path / "features_uni").load("a")


def test_annotated_data_of_lazyslide(tmp_path: Path) -> None:
    """X and obsm/spatial as anndata writes them; a sparse X is told in a line."""
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file["X"], file["obsm/spatial"] = values(3), grid(3).astype(float)
        file["uns/tile_spec/base_width"] = 512
        file["obs/tissue_id"] = np.zeros(3, int)
    assert kind_of(str(tmp_path)) == "bags"
    source = open_bags(tmp_path)
    check(source, "a", values(3), grid(3))
    assert source.load("a").patch_size == 512
    assert open_bags(tmp_path / "a.h5ad").names == ("a",)
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["X/data"] = values(3)
    with pytest.raises(BagError, match="no X that is a matrix"):
        open_bags(tmp_path).load("a")


def square(x: float, y: float, side: float) -> bytes:
    """A polygon in well-known binary, as shapely writes a box."""
    ring = [x + side, y, x + side, y + side, x, y + side, x, y, x + side, y]
    return struct.pack("<BIII10d", 1, 3, 1, 5, *ring)


def write_store(path: Path, zarr: Any, tables: dict[str, np.ndarray], tiles: list[int], side: int = 512) -> None:
    """A slide as LazySlide keeps it: SpatialData in Zarr, tables of features and tiles in GeoParquet."""
    store = zarr.open_group(str(path), mode="w")
    for name, x in tables.items():
        table = store.create_group(f"tables/{name}")
        table["X"] = x
        table["obs/tile_id"] = np.arange(len(x))
        region = table.create_array("uns/spatialdata_attrs/region", shape=(), dtype="string")
        region[()] = "tiles"
    (path / "shapes" / "tiles").mkdir(parents=True)
    corners = grid(len(tiles))
    frame = pd.DataFrame({"tile_id": tiles, "geometry": [square(*corners[tile], side) for tile in tiles]})
    frame.to_parquet(path / "shapes" / "tiles" / "shapes.parquet")


def test_zarr_stores_of_lazyslide(tmp_path: Path) -> None:
    """Corners by the numbers of the tiles, whatever their order; one table, or the one that is asked for."""
    zarr = pytest.importorskip("zarr")
    write_store(tmp_path / "s" / "a.zarr", zarr, {"uni_tiles": values(4)}, [2, 0, 3, 1, 4])
    write_store(tmp_path / "s" / "b.zarr", zarr, {"uni_tiles": values(3)}, [0, 1, 2])
    assert kind_of(str(tmp_path / "s")) == kind_of(str(tmp_path / "s" / "a.zarr")) == "bags"
    source = open_bags(tmp_path / "s")
    assert source.names == ("a", "b")
    check(source, "a", values(4), grid(4))
    assert (source.load("a").patch_size, source.encoder("a")) == (512, "uni")
    check(pickle.loads(pickle.dumps(open_bags(tmp_path / "s" / "b.zarr"))), "b", values(3), grid(3))
    # several tables; tiles that do not belong to the features; nothing
    write_store(tmp_path / "s" / "b.zarr", zarr, {"uni_tiles": values(3), "conch_tiles": values(3, 2)}, [0, 1])
    with pytest.raises(BagError, match=r"'conch_tiles', 'uni_tiles'.*--data\.features-key"):
        open_bags(tmp_path / "s").load("b")
    with pytest.raises(BagError, match="3 features of 'conch_tiles', but 2 tiles"):
        open_bags(tmp_path / "s", features_key="conch_tiles").load("b")
    with pytest.raises(BagError, match=r"no table 'conch_tiles' \(there is 'uni_tiles'\)"):
        open_bags(tmp_path / "s", features_key="conch_tiles").load("a")
    zarr.open_group(str(tmp_path / "s" / "b.zarr"), mode="w")
    with pytest.raises(BagError, match="without tables of features"):
        open_bags(tmp_path / "s").load("b")


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_stores_of_anndata(tmp_path: Path, version: int) -> None:
    zarr = pytest.importorskip("zarr")
    store = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    store["X"], store["obsm/spatial"] = values(3), grid(3)
    store.create_array("uns/tile_spec/base_width", shape=(), dtype="int64")[()] = 512
    check(open_bags(tmp_path), "a", values(3), grid(3))
    assert open_bags(tmp_path).load("a").patch_size == 512


def test_without_zarr_there_is_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(BagError, match=r"pip install ncmi\[zarr\].*write_h5ad"):
        open_bags(tmp_path).load("a")


def test_a_folder_a_slide(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_h5(tmp_path / name / "features.h5", values(3), coords=grid(3))
    assert kind_of(str(tmp_path)) == "bags"
    source = open_bags(tmp_path)
    assert source.names == ("a", "b")
    check(source, "b", values(3), grid(3))

"""Folders of images as people have them: parts, nested classes, files of labels, ImageNet's and Tiny ImageNet's way."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ncmi.data.dataset import Dataset, fingerprint
from ncmi.data.image_folders import load_folder
from ncmi.data.image_labels import names_images
from ncmi.data.image_layouts import part_of_folder, read_layout
from ncmi.data.kinds import kind_of
from ncmi.data.load import load_samples
from ncmi.recipes import ImageData

RNG = np.random.default_rng(0)


def make(root: Path, names: Iterable[str]) -> Path:
    """Images of 4×4 random pixels; what is called otherwise is a text."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            Image.fromarray(RNG.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
        else:
            path.write_text("about")
    return root


def read(path: Path, **options: object) -> Dataset:
    """The data set, which must be seen as images too."""
    images = options.get("images")
    assert kind_of(str(path), images=None if images is None else str(images)) == "image"
    data = ImageData(str(path), image_size=4, **options)  # type: ignore[arg-type]
    return load_folder(path, data) if images is not None else load_samples(data)


def listed(data: Dataset) -> dict[str, tuple[str, int | None]]:
    """Class and part of each name."""
    assert data.names is not None
    parts = [None] * len(data) if data.parts is None else data.parts.tolist()
    labels = [data.class_names[label] for label in data.labels.tolist()]
    return dict(zip(data.names, zip(labels, parts, strict=True), strict=True))


def said(data: Dataset, pattern: str) -> bool:
    return any(re.search(pattern, note) for note in data.notes)


CLASSES = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def test_folders_below_a_class_are_of_that_class(tmp_path: Path) -> None:
    data = read(make(tmp_path, ["dog/puppies/1.png", "dog/old/deep/2.png", "cat/3.png", "README.md"]))
    assert listed(data) == {
        "cat/3.png": ("cat", None),
        "dog/old/deep/2.png": ("dog", None),
        "dog/puppies/1.png": ("dog", None),
    }
    assert said(data, "'dog'")


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "validation", "TESTING"),
        ("train", "dev", "test"),
        ("images/train", "images/valid", "images/test"),
        ("train_set", "val-images", "Test Data"),
        ("pets/data/train", "pets/data/val", "pets/data/test"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
    ],
)
def test_parts_by_all_usual_names(tmp_path: Path, train: str, validation: str, test: str) -> None:
    parts = {train: 0, validation: 1, test: 2}
    make(tmp_path / "root", [f"{folder}/{name}" for folder in parts for name in CLASSES])
    data = read(tmp_path / "root")
    expected = {f"{folder}/{name}": (name[:3], part) for folder, part in parts.items() for name in CLASSES}
    assert listed(data) == expected
    assert data.class_names == ("cat", "dog")


def test_a_lone_validation_part_is_the_test_part(tmp_path: Path) -> None:
    make(tmp_path, [f"{folder}/{name}" for folder in ("train", "val") for name in CLASSES])
    data = read(tmp_path)
    assert {part for _, part in listed(data).values()} == {0, 2}
    assert listed(data)["val/cat/1.png"] == ("cat", 2)
    assert said(data, "validation part .* is the test part")
    make(tmp_path, ["annotations/a.xml"])
    assert said(read(tmp_path), "annotations")


def test_train_may_be_a_class(tmp_path: Path) -> None:
    data = read(make(tmp_path, ["train/1.png", "train/2.png", "plane/1.png", "car/1.png"]))
    assert (data.class_names, data.parts) == (("car", "plane", "train"), None)
    assert [part_of_folder(name) for name in ("trainer", "terrain", "contest", "value", "images")] == [None] * 5


def test_training_alone_is_the_whole(tmp_path: Path) -> None:
    data = read(make(tmp_path, [f"train/{name}" for name in CLASSES]))
    assert (data.class_names, data.parts) == (("cat", "dog"), None)


def test_parts_below_the_classes(tmp_path: Path) -> None:
    names = [f"{label}/{part}/1.png" for label in ("cat", "dog") for part in ("train", "test")]
    assert listed(read(make(tmp_path, names))) == {name: (name[:3], 2 if "test" in name else 0) for name in names}


def test_several_versions_of_one_set_are_not_classes(tmp_path: Path) -> None:
    make(tmp_path, [f"{version}/{name}" for version in ("color", "gray") for name in CLASSES])
    with pytest.raises(ValueError, match=r"'color', 'gray'.*'cat', 'dog'.*give one of them"):
        read(tmp_path)
    assert read(tmp_path / "gray").class_names == ("cat", "dog")


def test_a_folder_in_a_folder(tmp_path: Path) -> None:
    data = read(make(tmp_path, [f"archive/PetImages/{name}" for name in CLASSES]))
    assert data.class_names == ("cat", "dog")
    assert said(data, "archive/PetImages")


def test_classes_that_training_lacks_are_named(tmp_path: Path) -> None:
    make(tmp_path, [f"train/{name}" for name in CLASSES] + ["test/cat/1.png", "test/Dog/1.png", "test/fox/1.png"])
    with pytest.raises(ValueError, match=r"2 images .*'Dog', 'fox'.* 'cat', 'dog'.*--data\.bad skip"):
        read(tmp_path)
    data = read(tmp_path, bad="skip")
    assert (len(data), [name for name, _ in data.left_out]) == (5, ["test/Dog/1.png", "test/fox/1.png"])


def test_imagenet(tmp_path: Path) -> None:
    where = "ILSVRC/Data/CLS-LOC"
    wnids = ("n01440764", "n01443537")
    names = [f"{where}/train/{wnid}/{wnid}_{i}.JPEG" for wnid in wnids for i in range(2)]
    make(tmp_path, [*names, *(f"{where}/{part}/ILSVRC_{part}_{i}.JPEG" for part in ("val", "test") for i in (1, 2))])
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC_val_2,n01443537 85 1 499 272 \nILSVRC_val_1,n01440764 1 2 3 4 n01440764 1 2 3 4\n"
    )
    (tmp_path / "LOC_sample_submission.csv").write_text("ImageId,PredictionString\nILSVRC_test_1,n01440764 1 2 3 4\n")
    for given in (tmp_path, tmp_path / where):
        data = read(given)
        found = {name.rsplit("/", 1)[-1]: row for name, row in listed(data).items()}
        assert found == {
            **{f"{wnid}_{i}.JPEG": (wnid, 0) for wnid in wnids for i in range(2)},
            "ILSVRC_val_1.JPEG": ("n01440764", 2),
            "ILSVRC_val_2.JPEG": ("n01443537", 2),
        }
        assert said(data, "2 images without labels")


def test_tiny_imagenet(tmp_path: Path) -> None:
    wnids = ("n01443537", "n01629819")
    make(tmp_path, [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in wnids for i in range(2)])
    make(tmp_path, [f"train/{wnid}/{wnid}_boxes.txt" for wnid in wnids])
    make(tmp_path, ["wnids.txt", "words.txt", "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/t_0.JPEG"])
    (tmp_path / "val/val_annotations.txt").write_text(
        "val_0.JPEG\tn01629819\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t5\t0\t57\t61\n"
    )
    data = read(tmp_path)
    assert listed(data)["val/images/val_0.JPEG"] == ("n01629819", 2)
    assert listed(data)["val/images/val_1.JPEG"] == ("n01443537", 2)
    assert (len(data), data.class_names) == (6, wnids)
    assert said(data, "test.*1 images without labels")


FLAT = [f"{i}.png" for i in range(1, 5)]


@pytest.mark.parametrize(
    "case", ["file", "id", "path", "other folder", "semicolon", "no header", "backslash", "one-hot", "pair"]
)
def test_a_table_of_files_and_labels(tmp_path: Path, case: str) -> None:
    folder = "pictures" if case == "other folder" else "set/pictures" if case in ("path", "backslash") else "set"
    make(tmp_path / folder, FLAT)
    classes = ("x1", "x01", "x1", "x01") if case == "pair" else ("1", "01", "1", "01")
    if case == "one-hot":
        rows = [[name, *("1" if k == c else "0" for k in ("01", "1"))] for name, c in zip(FLAT, classes, strict=True)]
        rows.insert(0, ["filename", "01", "1"])
    else:
        names = {"id": [n[:-4] for n in FLAT], "path": [f"pictures/{n}" for n in FLAT]}
        names["backslash"] = [f".\\pictures\\{n}" for n in FLAT]
        rows = [[name, c] for name, c in zip(names.get(case, FLAT), classes, strict=True)]
        if case == "pair":  # number and name of the same class
            rows = [[n, str(len(c)), c] for n, c in rows]
            rows.insert(0, ["image", "class_id", "class_name"])
        elif case != "no header":
            rows.insert(0, ["id" if case == "id" else "Image", "what" if case == "path" else "Label"])
    separator = ";" if case == "semicolon" else ","
    table = tmp_path / "set" / "labels.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("".join(separator.join(row) + "\n" for row in rows))
    options = {"images": str(tmp_path / "pictures")} if case == "other folder" else {}
    data = read(table, **options)
    assert {Path(name).name: row for name, row in listed(data).items()} == dict(
        zip(FLAT, [(c, None) for c in classes], strict=True)
    )
    if case not in ("other folder",):
        # the folder that it lies in means the same
        assert {Path(name).name: row for name, row in listed(read(tmp_path / "set")).items()} == {
            Path(name).name: row for name, row in listed(data).items()
        }


def test_split_column_unnamed_images_and_numbers_in_order(tmp_path: Path) -> None:
    make(tmp_path, [f"images/{i}.png" for i in range(9)])
    parts = ("train", "train", "train", "Validation", "test", "", "train", "train")
    rows = [f"{i}.png,{(2, 10, 9)[i % 3]},{part}" for i, part in enumerate(parts)]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,split", *rows]))
    data = read(tmp_path)
    assert data.class_names == ("2", "9", "10")
    assert data.parts is not None
    assert data.parts.tolist() == [0, 0, 0, 1, 2, 0, 0]
    assert said(data, "column 'split'")
    assert said(data, "1 images are in no part")
    assert said(data, "1 images that it does not name")


def test_one_table_for_flat_parts(tmp_path: Path) -> None:
    make(tmp_path, [f"{part}/{part}{i}.png" for part in ("train", "test") for i in range(4)])
    rows = [f"{part}{i},{'ab'[i % 2]}" for part in ("train", "test") for i in range(4)]
    (tmp_path / "all.csv").write_text("\n".join(["id,label", *rows]))
    data = read(tmp_path)
    assert listed(data) == {
        f"{p}/{p}{i}.png": ("ab"[i % 2], n) for p, n in (("train", 0), ("test", 2)) for i in range(4)
    }


def test_what_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, [f"part_1/{i}.png" for i in range(4)] + [f"part_2/{i}.png" for i in range(4, 8)])
    table = tmp_path / "meta.csv"
    table.write_text("\n".join(["image_id,lesion,grade", *(f"{i},{'xy'[i % 2]},{i % 3}" for i in range(8))]))
    # the folders are not the classes here; which column is, a person has to say
    with pytest.raises(ValueError, match=r"'lesion', 'grade'.*--data\.label-column"):
        read(table)
    assert said(read(tmp_path), r"meta\.csv names images as well.*--data\.label-column")
    assert read(table, label_column="lesion").class_names == ("x", "y")
    with pytest.raises(ValueError, match="no column 'nothing'"):
        read(table, label_column="nothing")
    table.write_text("\n".join(["image_id,label", *(f"{i},{'xy'[i % 2]}" for i in range(8))]))
    assert read(tmp_path).class_names == ("x", "y")
    (tmp_path / "more.csv").write_text("\n".join(["image_id,label", *(f"{i},{'xz'[i % 2]}" for i in range(8))]))
    with pytest.raises(ValueError, match=r"'meta\.csv', 'more\.csv'.*give one of them"):
        read(tmp_path)
    flat = make(tmp_path / "flat", [f"{part}/{i}.png" for part in ("train", "test") for i in range(4)])
    with pytest.raises(ValueError, match=r"train holds images but no class folders.*file of labels"):
        read(flat)


def test_folders_that_are_called_like_all_images_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, [*(f"Dataset/{name}" for name in CLASSES), "Examples/1.png", "banner.png"])
    data = read(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert said(data, "Dataset/, and from nothing beside it")
    make(tmp_path / "other", ["images/1.png", "masks/1.png"])
    with pytest.raises(ValueError, match=r"'images' is called like one of all images.*--data\.images"):
        read(tmp_path / "other")


def test_labels_that_are_numbers_of_the_folders(tmp_path: Path) -> None:
    make(tmp_path, [f"images/{name}" for name in CLASSES])
    rows = [f"C:/somewhere/images/{name},{int(name.startswith('d'))}" for name in CLASSES]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert read(tmp_path).class_names == ("cat", "dog")
    assert read(tmp_path / "labels.csv").class_names == ("0", "1")


def test_numbers_with_leading_zeros(tmp_path: Path) -> None:
    make(tmp_path, [f"scans/{i:03}.png" for i in range(6)])
    (tmp_path / "labels.csv").write_text("id, bleeding\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))
    data = read(tmp_path / "labels.csv")
    assert listed(data) == {f"scans/{i:03}.png": (str(i % 2), None) for i in range(6)} == listed(read(tmp_path))


def test_bad_rows_are_listed(tmp_path: Path) -> None:
    make(tmp_path, FLAT)
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n1.png,a\n2.png,b\n3.png,\n4.png,a\n4.png,b\n5.png,a\n1.png,a\n")
    with pytest.raises(
        ValueError, match=r"3 files .*3\.png: without a label.*4\.png: named twice.*5\.png: .*no such image"
    ):
        read(table)
    data = read(table, bad="skip", validation_fraction=0, test_fraction=0)
    assert (listed(data), len(data.left_out)) == ({"1.png": ("a", None), "2.png": ("b", None)}, 3)


def test_tables_are_not_taken_for_images(tmp_path: Path) -> None:
    make(tmp_path, FLAT)
    for text in ("id,x,label\n1001,2,a\n1002,3,b\n", "file,label\nx.png,a\ny.png,b\n", "x,y\n0.5,1\n", "", "id\n1\n"):
        (tmp_path / "t.csv").write_text(text)
        assert kind_of(str(tmp_path / "t.csv")) == "table"
    os.mkfifo(tmp_path / "pipe.csv")
    assert not names_images(tmp_path / "pipe.csv")


def test_parts_of_their_own(tmp_path: Path) -> None:
    make(tmp_path / "main", [f"{label}/{i}.png" for label in ("b", "c", "a") for i in range(3)])
    make(tmp_path / "new", ["c/0.png", "a/1.png"])
    make(tmp_path / "dev", ["x.png", "y.png"])
    (tmp_path / "dev" / "labels.csv").write_text("file,label\nx.png,b\ny.png,c\n")
    data = read(tmp_path / "main", test=str(tmp_path / "new"), validation=str(tmp_path / "dev" / "labels.csv"))
    rows = list(listed(data).values())
    assert data.class_names == ("a", "b", "c")
    assert rows[9:] == [("b", 1), ("c", 1), ("a", 2), ("c", 2)]
    make(tmp_path / "new", ["d/0.png"])
    with pytest.raises(ValueError, match=r"1 images are of a class .*'d'"):
        read(tmp_path / "main", test=str(tmp_path / "new"))
    # the folder's own test part gives way, its validation part stays
    make(tmp_path / "parts", [f"{part}/{name}" for part in ("train", "val", "test") for name in CLASSES])
    make(tmp_path / "cats", ["cat/1.png", "dog/5.png"])
    data = read(tmp_path / "parts", test=str(tmp_path / "cats"))
    assert data.parts is not None
    assert data.parts.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert said(data, "4 images are in no part")


def test_fingerprints_follow_what_matters(tmp_path: Path) -> None:
    make(tmp_path / "a", CLASSES)
    (tmp_path / "moved").mkdir()
    first = fingerprint(read(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "moved" / "a")
    root = tmp_path / "moved" / "a"
    assert fingerprint(read(root)) == fingerprint(read(root, memory_gigabytes=0.0)) == first
    assert len(first) == 32
    (root / "cat" / "1.png").rename(root / "cat" / "3.png")
    renamed = fingerprint(read(root))
    Image.new("RGB", (4, 4)).save(root / "cat" / "3.png")
    changed = fingerprint(read(root))
    (root / "cat" / "3.png").rename(root / "dog" / "3.png")
    assert len({first, renamed, changed, fingerprint(read(root))}) == 4


def test_a_file_counts_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    names = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(1, 5)]
    make(tmp_path, names)
    (tmp_path / "cat" / "0.png").symlink_to("1.png")
    data = read(tmp_path)
    assert listed(data) == {name: (name[:3], None) for name in names}
    assert said(data, "1 images of cat/ are links")
    # a second name of a class would be a class whose images are all of the other
    (tmp_path / "bird").symlink_to("cat", target_is_directory=True)
    with pytest.raises(ValueError, match=r"bird/: links to 5 files of cat/, .* another class.*--data.bad skip"):
        read(tmp_path)
    data = read(tmp_path, bad="skip")
    assert (data.class_names, sorted(listed(data))) == (("cat", "dog"), sorted(names))


def test_a_part_that_links_to_another_is_none(tmp_path: Path) -> None:
    make(tmp_path, [f"{part}/{name}" for part in ("train", "val") for name in CLASSES])
    (tmp_path / "test").symlink_to("val", target_is_directory=True)
    with pytest.raises(ValueError, match=r"test/cat/: links to 2 files of val/cat/, .* another part"):
        read(tmp_path)
    # what lies beside the folders that are read may be linked into them
    store = make(tmp_path / "store", ("1.png", "2.png"))
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number, name in enumerate(("cat", "dog"), start=1):
        (tmp_path / "set" / name / "a.png").symlink_to(store / f"{number}.png")
    layout = read_layout(tmp_path / "set")
    assert (layout.names, layout.bad, layout.notes) == (["cat/a.png", "dog/a.png"], [], [])

"""Features and labels together: what cannot be used is an error, or is counted and listed."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from bag_writers import FakeSource, values, write_cohort_h5, write_h5, write_table

from ncmi.data.bags import cohort as cohort_module
from ncmi.data.bags.cohort import Cohort, load_cohort
from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.splits import split_cohort
from ncmi.recipes import BagData

LABELS = {"a": "x", "b": "y", "c": "x", "d": "y", "e": "x", "f": "y"}


def made_by(path: Path, encoder: str, key: str = "encoder") -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[key] = encoder


def make(tmp_path: Path, labels: dict[str, str] = LABELS) -> BagData:
    """Six slides of three patients, two classes, one .h5 file each."""
    for index, name in enumerate(LABELS):
        path = write_h5(tmp_path / "features" / f"{name}.h5", values(index + 1, seed=index))
        made_by(path, "uni")
    rows = [(name, f"p{'abcdef'.index(name) // 2}", label, f"c{label}") for name, label in labels.items()]
    write_table(tmp_path / "labels.csv", rows, "slide_id,patient_id,label,center")
    return BagData(name=str(tmp_path / "features"), labels=str(tmp_path / "labels.csv"))


def change(data: BagData, **changes: object) -> BagData:
    return BagData(**{**vars(data), **changes})  # type: ignore[arg-type]


def skipped(data: BagData) -> Cohort:
    return load_cohort(change(data, bad="skip"))


def test_a_cohort(tmp_path: Path) -> None:
    cohort = load_cohort(make(tmp_path, dict(reversed(LABELS.items()))))
    assert cohort.names == tuple("abcdef")
    assert cohort.patients == ("p0", "p0", "p1", "p1", "p2", "p2")
    assert cohort.class_names == ("x", "y")
    assert cohort.labels.dtype == torch.int64
    assert cohort.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (cohort.feature_dim, cohort.instances) == (4, (1, 2, 3, 4, 5, 6))
    assert cohort.slides[1].values == {"center": "cy"}
    assert (cohort.skipped, cohort.unused, cohort.notes, cohort.encoder) == ((), (), (), "uni")
    assert torch.equal(cohort.source.load("c").features, torch.from_numpy(values(3, seed=2)))


def test_classes_in_the_order_asked_for_and_numbers_by_value(tmp_path: Path) -> None:
    data = make(tmp_path)
    assert load_cohort(change(data, classes=("y", "x", "z"))).labels.tolist() == [1, 0, 1, 0, 1, 0]
    data = make(tmp_path, dict(zip("abcdef", ("10", "9", "10", "9", "9", "9"), strict=True)))
    assert load_cohort(data).class_names == ("9", "10")


def test_missing_features(tmp_path: Path) -> None:
    data = make(tmp_path)
    (tmp_path / "features" / "b.h5").unlink()
    (tmp_path / "features" / "e.h5").unlink()
    with pytest.raises(
        ValueError,
        match=r"labels\.csv: 2 of 6 slides cannot be used \('b', 'e': no features in .*features\).*--data\.bad skip",
    ):
        load_cohort(data)
    cohort = skipped(data)
    assert cohort.names == ("a", "c", "d", "f")
    assert [slide for slide, _ in cohort.skipped] == ["b", "e"]
    assert all(reason.startswith("no features in") for _, reason in cohort.skipped)


def test_a_slide_without_label(tmp_path: Path) -> None:
    data = make(tmp_path, {**LABELS, "c": ""})
    with pytest.raises(
        ValueError, match=r"labels\.csv: 1 of 6 slides cannot be used \('c': no label\).*--data\.bad skip"
    ):
        load_cohort(data)
    assert skipped(data).skipped == (("c", "no label"),)
    cohort = load_cohort(data, need_labels=False)
    assert cohort.labels.tolist() == [0, 1, -1, 1, 0, 1]


def test_features_that_are_not_finite_show_before_anything_is_trained(tmp_path: Path) -> None:
    data = make(tmp_path)
    x = values(3)
    x[1, 2] = np.nan
    write_h5(tmp_path / "features" / "c.h5", x)
    with pytest.raises(ValueError, match=r"'c': 1 NaN or infinite features, in 1 of 3 instances\).*--data\.bad skip"):
        load_cohort(data)
    # what a stopped run has read it does not read again
    cohort = load_cohort(data, read=False)
    with pytest.raises(ValueError, match=r"c\.h5: 1 NaN or infinite features, in 1 of 3 instances.*--data\.bad skip"):
        cohort.source.load("c")
    cohort = skipped(data)
    assert cohort.names == tuple("abdef")
    assert cohort.skipped == (("c", "1 NaN or infinite features, in 1 of 3 instances"),)


def test_features_of_different_widths(tmp_path: Path) -> None:
    data = make(tmp_path)
    write_h5(tmp_path / "features" / "b.h5", values(3, width=7))
    write_h5(tmp_path / "features" / "e.h5", values(3, width=5))
    message = r"features: 4 slides have features of width 4, but others of 5, 7 \('b', 'e'\): make all with one encoder"
    with pytest.raises(ValueError, match=message):
        load_cohort(data)
    cohort = skipped(data)
    assert (cohort.names, cohort.feature_dim) == (tuple("acdf"), 4)
    assert cohort.skipped == tuple(
        (name, f"features of width {width}, where 4 slides have 4") for name, width in (("b", 7), ("e", 5))
    )
    # where no width is most slides' own, nobody knows which to leave out
    write_h5(tmp_path / "features" / "a.h5", values(3, width=7))
    for bad in ("error", "skip"):
        with pytest.raises(ValueError, match="3 slides have features of width 4, but others of 5, 7"):
            load_cohort(change(data, bad=bad))


def test_a_truncated_file_and_an_empty_bag(tmp_path: Path) -> None:
    data = make(tmp_path)
    damaged = tmp_path / "features" / "b.h5"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    write_h5(tmp_path / "features" / "d.h5", np.zeros((0, 4), "f4"))
    with pytest.raises(ValueError, match=r"2 of 6 .*'b': not a readable HDF5 file, truncated.*'d': an empty bag"):
        load_cohort(data)
    assert [slide for slide, _ in skipped(data).skipped] == ["b", "d"]


def test_an_unknown_class_is_never_skipped(tmp_path: Path) -> None:
    data = change(make(tmp_path), classes=("x", "z"))
    message = r"labels\.csv: unknown class 'y' \(first of slide 'b'\); known are 'x', 'z'.*--data\.classes"
    for bad in ("error", "skip"):
        with pytest.raises(ValueError, match=message):
            load_cohort(change(data, bad=bad))


def test_one_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv: one class only \('x'\)"):
        load_cohort(make(tmp_path, dict.fromkeys(LABELS, "x")))


def test_features_without_a_row_are_listed_and_not_used(tmp_path: Path) -> None:
    data = make(tmp_path, {name: label for name, label in LABELS.items() if name in "abcd"})
    cohort = load_cohort(data)
    assert cohort.names == tuple("abcd")
    assert cohort.unused == ("e", "f")
    assert cohort.skipped == ()


def test_names_that_never_match_say_how_the_bags_are_called(tmp_path: Path) -> None:
    data = make(tmp_path)
    write_table(tmp_path / "labels.csv", [("s1", "p", "x"), ("s2", "q", "y")])
    for bad in ("error", "skip"):
        with pytest.raises(
            ValueError, match=r"2 of 2 slides cannot.*features of 'a', 'b', 'c' and 3 more, which it does"
        ):
            load_cohort(change(data, bad=bad))


def test_suffixes_and_file_endings_of_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("a_features", "b.svs", "c_feats", "c2")):
        write_h5(tmp_path / "f" / f"{name}.h5", values(2, seed=seed))
    write_table(tmp_path / "l.csv", [("a.svs", 1, "x"), ("b", 2, "y"), ("dir/c.tif", 3, "x"), ("c2", 4, "y")])
    cohort = load_cohort(BagData(name=str(tmp_path / "f"), labels=str(tmp_path / "l.csv")))
    assert cohort.names == ("a", "b", "c", "c2")
    assert cohort.source.load("a").name == "a"
    assert cohort.unused == ()


def test_a_slide_s_own_bag_goes_before_one_with_a_suffix_and_two_with_one_are_an_error(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("a_features", 2), ("b", 3)):
        write_h5(tmp_path / "f" / f"{name}.h5", values(count))
    write_table(tmp_path / "l.csv", [("a", 1, "x"), ("b", 2, "y")])
    data = BagData(name=str(tmp_path / "f"), labels=str(tmp_path / "l.csv"))
    cohort = load_cohort(data)
    assert cohort.instances == (1, 3)
    assert cohort.unused == ("a_features",)
    (tmp_path / "f" / "a.h5").rename(tmp_path / "f" / "a-feat.h5")
    with pytest.raises(ValueError, match=r"features of slide 'a' could be any of 'a-feat', 'a_features': keep one"):
        load_cohort(data)


def test_a_bag_belongs_to_one_slide(tmp_path: Path) -> None:
    write_h5(tmp_path / "f" / "a_features.h5", values(2))
    write_table(tmp_path / "l.csv", [("a", 1, "x"), ("a_features", 2, "y")])
    with pytest.raises(ValueError, match=r"1 of 2 slides cannot be used \('a': no features"):
        load_cohort(BagData(name=str(tmp_path / "f"), labels=str(tmp_path / "l.csv")))


def test_a_class_whose_slides_are_all_skipped_is_not_forgotten(tmp_path: Path) -> None:
    data = change(make(tmp_path, {**LABELS, "b": "rare"}), bad="skip")
    (tmp_path / "features" / "b.h5").unlink()
    cohort = load_cohort(data)
    assert cohort.class_names == ("rare", "x", "y")
    with pytest.raises(
        ValueError,
        match=r"no slide of class 'rare' .* \(0 of 'rare' in the others; left out: b: no features in .*\): give",
    ):
        split_cohort(cohort, data, 0)


def test_labels_of_the_features_file(tmp_path: Path) -> None:
    bags = {name: values(2, seed=seed) for seed, name in enumerate(LABELS)}
    path = write_cohort_h5(tmp_path / "c.h5", bags, LABELS)
    cohort = load_cohort(BagData(name=str(path)))
    assert cohort.patients == cohort.names == tuple("abcdef")
    assert cohort.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "each slide counts as a patient of its own" in cohort.notes[0]
    write_cohort_h5(path, bags)
    with pytest.raises(ValueError, match=r"c\.h5: holds no labels: give a CSV .*--data\.labels"):
        load_cohort(BagData(name=str(path)))
    cohort = load_cohort(BagData(name=str(path)), need_labels=False)
    assert (cohort.class_names, cohort.labels.tolist()) == ((), [-1] * 6)


def test_a_split_column_that_is_not_used_is_noted(tmp_path: Path) -> None:
    data = make(tmp_path)
    write_table(tmp_path / "labels.csv", [("a", "x", "train"), ("b", "y", "test")], "slide,label,Split")
    assert "column 'Split' is not used (--data.split-column Split splits by it)" in load_cohort(data).notes
    assert not any("Split" in note for note in load_cohort(change(data, split_column="Split")).notes)


@pytest.mark.parametrize("bad", ["error", "skip"])
def test_ten_thousand_slides_open_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    count = 10_000
    source = FakeSource({f"s{i:05d}": 1 + i % 7 for i in range(count)}, broken=["s00017"])
    monkeypatch.setattr(cohort_module, "open_bags", lambda *_, **__: source)
    rows = [(f"s{i:05d}", f"p{i // 3}", "xyz"[i % 3]) for i in range(count)]
    data = BagData(name="fake", labels=str(write_table(tmp_path / "l.csv", rows)), bad=bad)  # type: ignore[arg-type]
    began = time.process_time()
    cohort = load_cohort(data, read=False)
    assert time.process_time() - began < 10
    assert len(cohort.slides) == count - (bad == "skip")
    assert len(source.reads) == (count if bad == "skip" else 0)
    assert cohort.skipped == ((("s00017", "fake/s00017: broken"),) if bad == "skip" else ())


def test_features_of_two_encoders_of_one_width(tmp_path: Path) -> None:
    data = make(tmp_path)
    made_by(tmp_path / "features" / "b.h5", "conch")
    with pytest.raises(ValueError, match=r"5 slides have features by the encoder uni, but others by conch .'b'"):
        load_cohort(data, read=False)
    cohort = skipped(data)
    assert (cohort.names, cohort.encoder) == (tuple("acdef"), "uni")
    assert [name for name, _ in cohort.skipped] == ["b"]
    # as STAMP names it; a file that says nothing is noted
    made_by(tmp_path / "features" / "b.h5", "", "encoder")
    made_by(tmp_path / "features" / "b.h5", "gigapath", "extractor")
    with pytest.raises(ValueError, match="by gigapath"):
        load_cohort(data)
    write_h5(tmp_path / "features" / "b.h5", values(2, seed=1))
    assert any("1 of 6 slides do not say which encoder" in note for note in load_cohort(data).notes)


def test_the_encoder_that_trident_s_folder_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = values(3), np.zeros((3, 2), int)
        file["features"].attrs.update({"name": "a", "savetodir": "out/20x_256px_0px_overlap/features_uni_v1"})
    assert open_bags(tmp_path).encoder("a") == "uni_v1"


def test_the_same_features_under_several_names(tmp_path: Path) -> None:
    data = make(tmp_path)
    # the same patient and class: counts twice, and is noted
    write_table(tmp_path / "labels.csv", [(n, f"p{'abcdef'.index(n) // 2}", "xy"[n in "bcd"]) for n in LABELS])
    write_h5(tmp_path / "features" / "d.h5", values(3, seed=2))
    assert any("repeat another's features ('d')" in note for note in load_cohort(data).notes)
    # of another patient: it would stand on both sides of a split
    write_h5(tmp_path / "features" / "e.h5", values(1, seed=0))
    with pytest.raises(ValueError, match="'e': the same features as slide 'a', which is of another patient"):
        load_cohort(data)
    assert "e" not in skipped(data).names
    # of another class: neither label can be trusted
    write_h5(tmp_path / "features" / "b.h5", values(1, seed=0))
    assert skipped(data).names == ("c", "d", "f")


def test_patches_off_the_slide_are_noted(tmp_path: Path) -> None:
    data = make(tmp_path)
    with h5py.File(tmp_path / "features" / "c.h5", "r+") as file:
        file.pop("coords", None)
        # over the edge by less than a patch, as with padding
        file["coords"] = np.array([[-255, 0], [0, -10], [256, 0]])
        file["coords"].attrs["patch_size_level0"] = 256
    assert load_cohort(data).notes == ()
    with h5py.File(tmp_path / "features" / "c.h5", "r+") as file:
        file["coords"][...] = np.array([[-256, 0], [0, -9000], [256, 0]])
    (note,) = load_cohort(data).notes
    assert note.startswith("2 patches of 1 slides")
    assert "'c'" in note


def test_patients_by_barcodes(tmp_path: Path) -> None:
    """Without a column of patients no patient of TCGA, CPTAC, GTEX or CAMELYON-17 stands on two sides."""
    names = [f"TCGA-AA-{1000 + n // 2}-01Z-00-DX{n % 2 + 1}.0F-{n}" for n in range(8)]
    names += [f"C3L-{n // 2:05d}-2{n % 2}" for n in range(8)] + [f"GTEX-1117{'FG'[n // 2]}-{n:04d}" for n in range(4)]
    names += [f"patient_{n // 2:03d}_node_{n % 2}" for n in range(8)] + ["other"]
    for seed, name in enumerate(names):
        write_h5(tmp_path / "f" / f"{name}.h5", values(1, seed=seed))
    write_table(tmp_path / "l.csv", [(f"{name}.svs", "xy"[n // 2 % 2]) for n, name in enumerate(names)], "slide,label")
    data = BagData(str(tmp_path / "f"), labels=str(tmp_path / "l.csv"))
    cohort = load_cohort(data)
    patients = dict(zip(cohort.names, cohort.patients, strict=True))
    assert (patients["C3L-00003-21"], patients["GTEX-1117G-0003"]) == ("C3L-00003", "GTEX-1117G")
    assert (patients["patient_003_node_1"], patients["other"]) == ("patient_003", "other")
    assert len(set(cohort.patients)) == 4 + 4 + 2 + 4 + 1
    assert any("TCGA and CPTAC and GTEX and CAMELYON-17: 15 patients" in note for note in cohort.notes)
    split = split_cohort(cohort, data, 0)
    sides = [{cohort.patients[index] for index in part.tolist()} for part in split.parts.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))

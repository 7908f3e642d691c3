"""The figures of reproduced experiments: correlations, batch sizes, trajectories, clusters; on the page and as files."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from reproduction_helpers import CE, NCMI, POWER, FakeEntry, edit, set_results, without_validation
from reproduction_helpers import write_reproduction_folder as write_folder
from scipy import stats

from ncmi.reports import read_reproduction, write_reproduction
from ncmi.reports.figures.batch_size import Line, batch_size_drawing, spread
from ncmi.reports.figures.palette import KNOWN, styles
from ncmi.reports.figures.projection import cloud, few_classes, of_classes
from ncmi.reports.records import Outputs
from ncmi.reports.reproduction_correlation import associate, correlations

NewRun = Callable[..., Path]


def files_are_pictures(folder: Path) -> None:
    root = ET.fromstring((folder / "figure.svg").read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")
    picture = imread(folder / "figure.png")
    assert picture.shape[1] == pytest.approx(1800, abs=2)
    # light paper in the corner, something dark somewhere
    assert picture[0, 0, :3].min() > 0.98
    assert picture[..., :3].sum(axis=-1).min() < 1.0


def correlation_folder(new_run: NewRun, root: Path, count: int = 6, seeds: tuple[int, ...] = (0, 1)) -> Path:
    entries = [
        FakeEntry(f"net{k}", f"width {8 * (k // 2 + 1)}, {k} epochs", network="resnet_small", width=8 * (k // 2 + 1))
        for k in range(count)
    ]
    folder = write_folder(root, new_run, "figure2", {"networks": entries}, seeds=seeds, scale="small")
    rng = np.random.default_rng(0)
    for k in range(count):
        for seed in seeds:
            set_results(
                folder,
                f"net{k}-seed{seed}",
                accuracy=20 + 3 * k + rng.normal(),
                ncmi=float(2 ** (-k) * math.exp(0.2 * rng.normal())),
                cross_entropy_separation=4.0,
                cross_entropy_ncmi=float(0.2 - 0.01 * k + 0.004 * rng.normal()),
            )
    return folder


def test_correlation_against_scipy(new_run: NewRun, tmp_path: Path) -> None:
    folder = correlation_folder(new_run, tmp_path)
    write_reproduction(folder)

    def means(key: str) -> np.ndarray:
        runs = [
            [json.loads((tmp_path / f"runs/net{k}-seed{seed}/results.json").read_text("utf-8")) for seed in (0, 1)]
            for k in range(6)
        ]
        if key == "accuracy":
            return np.array([np.mean([100 * r["readouts"]["head"]["test_accuracy"] for r in pair]) for pair in runs])
        return np.array([np.mean([r["information"][key] for r in pair]) for pair in runs])

    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["correlations"]
    assert [one["separation"] for one in found] == ["centroid_kl", "cross_entropy"]
    assert [one["logarithmic"] for one in found] == [True, False]
    for one, key in zip(found, ("ncmi", "cross_entropy_ncmi"), strict=True):
        raw = stats.pearsonr(means(key), means("accuracy"))
        interval = raw.confidence_interval(0.95)
        assert one["raw"]["pearson_r"] == pytest.approx(raw.statistic)
        assert (one["raw"]["low"], one["raw"]["high"]) == pytest.approx((interval.low, interval.high))
        assert one["raw"]["n"] == 6
        rho = stats.spearmanr(means(key), means("accuracy")).statistic
        assert one["raw"]["spearman_rho"] == pytest.approx(rho)
    plotted = stats.pearsonr(np.log10(means("ncmi")), means("accuracy")).statistic
    assert found[0]["as_plotted"]["pearson_r"] == pytest.approx(plotted)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Γ by centroid KL" in page
    assert "with the logarithm of NCMI as plotted" in page
    assert "over 6 networks" in page
    # networks are not compared with each other
    assert "95 % interval</th>" not in page
    files_are_pictures(folder)


def test_networks_without_the_second_measure_are_left_out_with_the_reason(new_run: NewRun, tmp_path: Path) -> None:
    folder = correlation_folder(new_run, tmp_path, seeds=(0,))
    for k in range(3):

        def older(results: dict[str, dict[str, float]]) -> None:
            del results["information"]["cross_entropy_ncmi"], results["information"]["cross_entropy_separation"]

        edit(tmp_path / f"runs/net{k}-seed0/results.json", older)
    first, second = correlations(read_reproduction(folder))
    assert (len(first.points), len(second.points), len(second.missing)) == (6, 3, 3)
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "Γ by cross-entropy was not measured in 3 of the networks (width 8, 0 epochs" in page
    assert "Γ by cross-entropy: no panel, because fewer than 4 networks have it" in page
    assert page.count('<div class="panel">') == 1


@given(
    st.lists(
        st.tuples(st.floats(-5, 5).map(lambda v: round(v, 3)), st.floats(-5, 5).map(lambda v: round(v, 3))),
        min_size=4,
        max_size=30,
    )
)
def test_association_is_bounded_and_symmetric(pairs: list[tuple[float, float]]) -> None:
    x, y = map(list, zip(*pairs, strict=True))
    one, two = associate(x, y), associate(y, x)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(one.r)
        return
    assert -1 <= one.r <= 1
    assert one.r == pytest.approx(two.r)
    assert associate(x, [-value for value in y]).rho == pytest.approx(-one.rho)
    if one.interval is not None:
        assert one.interval[0] < one.r < one.interval[1]


def test_few_pairs_have_no_correlation_or_no_interval() -> None:
    assert math.isnan(associate([1, 2], [1, 2]).r)
    assert associate([1, 2, 3], [1, 2, 4]).interval is None
    assert associate([1, 2, 3, 4], [4, 3, 2, 1]).interval is None


def batch_folder(new_run: NewRun, root: Path) -> Path:
    groups = {
        f"resnet18-batch{size}": [
            FakeEntry(f"b{size}-{entry.name}", entry.label, entry.objective, entry.options, batch_size=size)
            for entry in (CE, NCMI)
        ]
        for size in (64, 32, 128)
    }
    return write_folder(root, new_run, "figure3", groups, seeds=[0, 1])


def test_batch_sizes(new_run: NewRun, tmp_path: Path) -> None:
    folder = batch_folder(new_run, tmp_path)
    for place, size in enumerate((32, 64, 128)):
        for seed in (0, 1):
            set_results(folder, f"b{size}-ce-seed{seed}", accuracy=70 + place)
            for readout in ("cc", "lp"):
                value = 72 + seed / 10 if readout == "cc" else 60
                set_results(folder, f"b{size}-ncmi-released-seed{seed}", readout, accuracy=value)
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "NCMI-CC (released) at batch sizes 32, 64 and 128" in page
    assert "Cross-entropy 2.00" in page
    for title in ("batch 32", "batch 64", "batch 128"):
        assert f'<th scope="col">{title}</th>' in page
    assert "Cross-entropy: 32: 70.00 ± 0.00 %, 64: 71.00 ± 0.00 %, 128: 72.00 ± 0.00 %" in page
    files_are_pictures(folder)


def test_lines_of_one_seed_and_of_different_length() -> None:
    lines = [
        Line("CE", KNOWN["cross_entropy"], 0, (32, 64, 128), (70.0, 71.0, 72.0), (math.nan,) * 3),
        Line("NCMI", KNOWN["ncmi"], 1, (32,), (70.0,), (0.1,)),
    ]
    svg = batch_size_drawing("name", "title", lines).panel().svg
    for word in (">32<", ">128<", ">CE<", ">NCMI<"):
        assert word in svg


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_names_are_spread_apart_in_order(places: list[float]) -> None:
    found = spread(np.array(places), 0.1)
    order = np.argsort(places, kind="stable")
    assert (np.diff(found[order]) > 0.1 - 1e-9).all()
    assert found.mean() == pytest.approx(np.mean(places))


def test_trajectories_say_that_the_simplices_differ(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "figure4", {"resnet18": [CE, NCMI, POWER]}, seeds=[0, 1])
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "two different simplices, so that levels do not compare" in page
    assert "from the first epoch to the last" in page
    rows = [
        json.loads((tmp_path / f"runs/ncmi-power-seed{seed}/metrics.jsonl").read_text("utf-8").splitlines()[place])
        for place in (0, -1)
        for seed in (0, 1)
    ]
    first, last = (np.mean([row["validation_ncmi"] for row in pair]) for pair in (rows[:2], rows[2:]))
    assert f"{first:.3g}"[:4] in page
    assert f"{last:.3g}"[:5] in page
    files_are_pictures(folder)
    without_validation(folder)
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "there is no validation part to measure them on" in page
    # a figure of other runs would be a lie
    assert not (folder / "figure.svg").exists()
    assert not (folder / "figure.png").exists()


def test_clusters_of_many_classes_show_the_first_ten_by_name(new_run: NewRun, tmp_path: Path) -> None:
    names = [f"class {99 - k:02d}" for k in range(100)]
    folder = write_folder(
        tmp_path, new_run, "figure5", {"resnet18": [CE, NCMI]}, seeds=[0], class_names=names, num_test=600, dim=128
    )
    page = write_reproduction(folder).read_text(encoding="utf-8")
    first_ten = ", ".join(f"class {k:02d}" for k in range(10))
    assert f"All the test samples of 10 classes, the first by name, are drawn: {first_ten}." in page
    assert "t-SNE of the test features of NCMI (released): 60 points" in page
    files_are_pictures(folder)


def test_samples_of_some_classes() -> None:
    labels = np.array([0, 1, 2, 3, 2])
    outputs = Outputs(labels, {"cc": np.array([0, 1, 3, 3, 2])}, np.arange(10.0).reshape(5, 2) + 1)
    found = of_classes(outputs, [2, 0])
    assert found.labels.tolist() == [1, 0, 0]
    # the second was taken for a class that is not drawn
    assert found.predictions["cc"].tolist() == [1, -1, 0]
    assert found.features.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert cloud("x", found, "cc").wrong.tolist() == [False, True, False]
    same, names, few = few_classes([outputs], ["d", "c", "b", "a"])
    assert (same[0] is outputs, names, few) == (True, ("d", "c", "b", "a"), ())


def test_styles_of_several_ncmi_entries() -> None:
    keys = [("CE", "cross_entropy"), ("one", "ncmi"), ("two", "ncmi"), ("three", "ncmi")]
    few = styles(keys)
    # where hues are free each has its own
    assert len({style.tone for style in few.values()}) == 4
    many = styles([(name, name) for name in KNOWN] + [(f"n{k}", "ncmi") for k in range(4)])
    assert len(set(many.values())) == 17
    assert [many[f"n{k}"].tone for k in range(3)] == ["vermilion"] * 3
    assert list(many)[-1] == "n3"

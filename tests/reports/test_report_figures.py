"""What the figures are computed from, and that what they become may stand in a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ncmi import objective_names
from ncmi.reports import comparison_rows, read_comparison, read_run
from ncmi.reports.figures.accuracy import accuracy_panels
from ncmi.reports.figures.confusion import confusion, confusion_panel, worst_pairs
from ncmi.reports.figures.features import pca_panels, tsne_panels
from ncmi.reports.figures.palette import KNOWN, TONES, class_colours, styles
from ncmi.reports.figures.projection import (
    MOST_POINTS,
    Cloud,
    cloud,
    neighbourhoods,
    principal_components,
)
from ncmi.reports.figures.svg import Panel, canvas, to_svg
from ncmi.reports.figures.trajectories import Series, curve, trajectory_panels
from ncmi.reports.records import Outputs

Array = NDArray[np.float64]


def texts(panel: Panel) -> list[str]:
    root = ET.fromstring(panel.svg)
    return ["".join(node.itertext()).strip() for node in root.iter("text")]


def metrics(**columns: list[float]) -> pd.DataFrame:
    length = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index(range(1, length + 1), name="epoch"), dtype=float)


def three_clusters(spread: float = 0.01) -> tuple[Array, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    return np.eye(8)[labels] + spread * rng.normal(size=(90, 8)), labels


# --- styles


def test_every_objective_of_the_library_has_a_style_of_its_own() -> None:
    chosen = styles((name, name) for name in KNOWN)
    assert len(set(chosen.values())) == len(KNOWN) == 13
    assert set(KNOWN) == set(objective_names())
    assert chosen["ncmi"].tone == "vermilion"
    assert chosen["cross_entropy"].tone == "ink"


def test_a_style_does_not_depend_on_the_others() -> None:
    assert styles([("a", "opl")])["a"] == styles([("b", "ncmi"), ("c", "opl")])["c"]


def test_unknown_and_repeated_objectives_get_spare_styles() -> None:
    chosen = styles([("one", "ncmi"), ("two", "ncmi"), ("mine", "mine"), ("opl", "opl")])
    assert len(set(chosen.values())) == 4


def test_class_colours_differ() -> None:
    for count in (2, 10, 26, 100):
        assert len(set(class_colours(count))) == count


# --- the numbers behind the pictures


def test_curve_is_mean_and_range_over_the_seeds_that_have_a_value() -> None:
    one, two = metrics(x=[1.0, 2.0, np.nan, 4.0]), metrics(x=[3.0, np.inf, np.nan])
    found = curve([one, two], "x")
    assert found.epochs.tolist() == [1, 2, 4]
    assert found.mean.tolist() == [2.0, 2.0, 4.0]
    assert found.low.tolist() == [1.0, 2.0, 4.0]
    assert found.high.tolist() == [3.0, 2.0, 4.0]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    found = curve([metrics(x=list(range(5000)))], "x")
    assert len(found.epochs) <= 120
    assert (found.epochs[0], found.epochs[-1]) == (1, 5000)
    assert (found.mean == found.epochs - 1).all()


def test_confusion_counts() -> None:
    pairs = [(np.array([0, 0, 1]), np.array([0, 1, 1])), (np.array([2, 0]), np.array([0, 1]))]
    counts = confusion(pairs, 3)
    assert counts.tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]
    assert worst_pairs(counts, ["a", "b", "c"]) == [("a", "b", 2)]


def test_principal_components_against_the_covariance() -> None:
    features = np.random.default_rng(1).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    points, share = principal_components(features)
    eigenvalues = np.linalg.eigvalsh(np.cov(features.T))[::-1]
    assert share == pytest.approx(eigenvalues[:2].sum() / eigenvalues.sum())
    assert points.var(axis=0, ddof=1) == pytest.approx(eigenvalues[:2])
    # a projection: no distance grows
    flat = np.linalg.norm(points[:, None] - points, axis=-1)
    true = np.linalg.norm(features[:, None] - features, axis=-1)
    assert (flat <= true + 1e-9).all()


def test_components_of_one_direction_or_of_no_spread() -> None:
    points, share = principal_components(np.linspace(0, 1, 5)[:, None])
    assert points[:, 1].tolist() == [0.0] * 5
    assert share == pytest.approx(1.0)
    assert principal_components(np.ones((4, 3)))[1] == 1.0


def test_cloud_has_unit_length_and_leaves_out_what_has_no_direction() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [0.0, -2.0]], dtype=np.float16)
    labels = np.array([0, 1, 1, 1])
    found = cloud("x", Outputs(labels, {"cc": np.array([0, 0, 0, 0])}, features), "cc")
    assert found.directions == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]), abs=1e-3)
    assert found.labels.tolist() == [0, 1]
    assert found.wrong.tolist() == [False, True]
    assert found.total == 4


def test_cloud_draws_a_seeded_sample_of_many_points() -> None:
    rng = np.random.default_rng(0)
    outputs = Outputs(rng.integers(0, 3, 2000), {}, rng.normal(size=(2000, 4)))
    one, two = cloud("x", outputs, "cc"), cloud("x", outputs, "cc")
    assert len(one.labels) == MOST_POINTS
    assert (one.directions == two.directions).all()


def test_neighbourhoods_keep_clusters_apart_and_do_not_depend_on_chance() -> None:
    features, labels = three_clusters()
    points = neighbourhoods(features)
    again = neighbourhoods(features)
    assert points is not None
    assert again is not None
    assert (points == again).all()
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(axis=1)] == labels).all()


def test_no_neighbourhoods_of_few_points_or_of_one_point() -> None:
    assert neighbourhoods(np.eye(8)) is None
    assert neighbourhoods(np.ones((50, 3))) is None


# --- SVG


def test_svg_follows_the_page_and_clashes_with_nothing() -> None:
    with canvas(200, 100) as figure:
        axes = figure.add_subplot()
        axes.plot([1, 2], [1, 2], "o-", color=TONES["blue"][0], gid="series:3")
        axes.set_title("$x$ <b>& 细胞")
        svg = to_svg(figure, "name", 'a "b" <c>')
    root = ET.fromstring(svg)
    assert root.attrib == {
        "viewBox": "0 0 200 100",
        "role": "img",
        "aria-label": 'a "b" <c>',
    }
    assert "var(--blue)" in svg
    assert not any(pair[0] in svg for pair in TONES.values())
    assert 'class="series s3"' in svg
    assert "$x$ <b>& 细胞" in ["".join(node.itertext()) for node in root.iter("text")]
    identifiers = re.findall(r'\bid="([^"]*)"', svg)
    assert identifiers
    assert all(name.startswith("name-") for name in identifiers)
    used = re.findall(r'href="#([^"]*)"', svg) + re.findall(r"url\(#([^)]*)\)", svg)
    assert used
    assert set(used) <= set(identifiers)
    assert "http" not in svg


def test_accuracy_panels_show_every_row_and_flag_what_is_off_the_scale(full_comparison: Path) -> None:
    record = read_comparison(full_comparison)
    rows = comparison_rows(record)
    looks = styles((entry.label, entry.objective) for entry in record.entries)
    left, right = accuracy_panels(rows, looks, "CE")
    for panel in (left, right):
        assert [text for text in texts(panel) if text in {row.method for row in rows}] == [r.method for r in rows]
        assert not any("off the scale" in text for text in texts(panel))
    assert f"NCMI-CC {rows[0].mean:.2f} ± {rows[0].sd:.2f} %" in left.svg


def test_a_failed_method_does_not_squeeze_the_others(new_comparison: Callable[..., Path]) -> None:
    folder = new_comparison(["ncmi", "cross_entropy", "focal"], seeds=range(2))
    for seed in range(2):
        path = folder / f"runs/focal-seed{seed}/results.json"
        content = re.sub(r'("head": \{"test_accuracy": )[\d.]+', r"\g<1>0.1", path.read_text(encoding="utf-8"))
        path.write_text(content, encoding="utf-8")
    record = read_comparison(folder)
    looks = styles((entry.label, entry.objective) for entry in record.entries)
    left, _ = accuracy_panels(comparison_rows(record), looks, "CE")
    assert "◂ 10.0 (off the scale)" in texts(left)


def test_trajectories_of_a_run(new_run: Callable[..., Path]) -> None:
    run = read_run(new_run())
    series = [Series("NCMI", KNOWN["ncmi"], [run.metrics])]
    assert len(trajectory_panels(series)) == 4
    assert len(trajectory_panels(series, single=True)) == 5
    accuracy = next(panel for panel in trajectory_panels(series) if "Validation accuracy" in texts(panel))
    assert {"80", "90", "95"} <= set(texts(accuracy))


def test_trajectories_without_values_are_left_out() -> None:
    empty = metrics(validation_cmi=[np.nan], validation_separation=[1.0], validation_ncmi=[np.nan])
    empty["validation_accuracy"] = np.nan
    assert len(trajectory_panels([Series("x", KNOWN["ncmi"], [empty])])) == 1


def test_perfect_accuracy_can_be_drawn() -> None:
    frame = metrics(validation_accuracy=[0.5, 0.99, 1.0])
    for name in ("validation_cmi", "validation_separation", "validation_ncmi"):
        frame[name] = [0.0, -1.0, 1.0]
    panels = trajectory_panels([Series("x", KNOWN["ncmi"], [frame])])
    accuracy = next(panel for panel in panels if "Validation accuracy" in texts(panel))
    assert {"50", "90", "99", "100"} <= set(texts(accuracy))


@pytest.mark.parametrize("values", [[0.69], [0.701, 0.703], [0.1, 0.12], [0.0, 0.0]])
def test_a_narrow_range_of_accuracies_still_has_ticks(values: list[float]) -> None:
    frame = metrics(validation_accuracy=values)
    for name in ("validation_cmi", "validation_separation", "validation_ncmi"):
        frame[name] = np.nan
    (accuracy,) = trajectory_panels([Series("x", KNOWN["ncmi"], [frame])])
    ticks = [float(text) for text in texts(accuracy) if re.fullmatch(r"[\d.]+", text)]
    # what is above 5 is accuracy: there are only two epochs
    assert any(max(5, 100 * min(values) - 25) < tick < 100 * max(values) + 35 for tick in ticks)


def test_always_perfect_accuracy_can_be_drawn() -> None:
    frame = metrics(validation_accuracy=[1.0, 1.0])
    for name in ("validation_cmi", "validation_separation", "validation_ncmi"):
        frame[name] = [1.0, 1.0]
    assert len(trajectory_panels([Series("x", KNOWN["ncmi"], [frame])])) == 4


def test_feature_panels_name_the_classes_and_say_how_much_they_show() -> None:
    features, labels = three_clusters()
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    one = Cloud("NCMI", directions, labels, labels == 9, 90)
    (large,) = tsne_panels([one], ["ant", "bee", "$cat$"])
    assert {"NCMI", "ant", "bee", "$cat$"} <= set(texts(large))
    assert large.svg.count("<image") == 1
    (small,) = pca_panels([one], ["ant", "bee", "$cat$"])
    share = principal_components(directions)[1]
    assert texts(small) == [f"NCMI · {100 * share:.0f} %"]
    empty = Cloud("none", np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), 5)
    assert tsne_panels([empty], ["ant"]) == []
    assert pca_panels([empty], ["ant"]) == []


@pytest.mark.parametrize(("classes", "counted", "named"), [(3, True, True), (26, False, True), (60, False, False)])
def test_confusion_panel_by_number_of_classes(classes: int, counted: bool, named: bool) -> None:
    counts = np.diag(np.arange(classes) + 500)
    counts[0, 1] = 733
    found = texts(confusion_panel("name", "CE", counts, [f"class {i}" for i in range(classes)]))
    assert ("733" in found) == counted
    assert ("class 2" in found) == named

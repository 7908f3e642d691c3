"""What charts are computed from, and that each is valid Vega-Lite which becomes a picture."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from numpy.typing import NDArray
from PIL import Image

from ncmi import objective_names
from ncmi.readouts.metrics import PERCENT
from ncmi.readouts.scores import Reliability
from ncmi.report.charts import Chart, to_document
from ncmi.report.clouds import (
    MOST_POINTS,
    Cloud,
    drawn_classes,
    make_cloud,
    neighborhoods,
    pca_charts,
    principal_components,
    tsne_charts,
)
from ncmi.report.decision_charts import (
    confusion,
    confusion_chart,
    distances_chart,
    reliability_chart,
    roc_chart,
    worst_pairs,
)
from ncmi.report.epoch_charts import MEASURES, curve, epoch_charts
from ncmi.report.palette import KNOWN, Style, class_colors, styles
from ncmi.report.reproduction import Correlation, Point, associate
from ncmi.report.score_charts import Dots, batch_size_chart, correlation_chart, dots_chart
from ncmi.report.statistics import Spread
from ncmi.training.run_folder import Outputs
from ncmi.training.schema import Detection, Histogram, OutOfDistribution

Array = NDArray[np.float64]
LOOK = {"NCMI": KNOWN["ncmi"]}
VALIDATION = ("validation_cmi", "validation_separation", "validation_ncmi", "validation_accuracy")


SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart) -> ET.Element:
    """A chart as a picture; it must be valid Vega-Lite by Altair's schema."""
    spec = chart.specification()
    json.dumps(spec, allow_nan=False)
    alt.LayerChart.from_dict(spec)
    size = 400 if chart.square else chart.height
    return ET.fromstring(vl_convert.vegalite_to_svg(spec | {"width": 400, "height": size}))


def texts(chart: Chart) -> list[str]:
    """Words of a chart as it is drawn."""
    return ["".join(node.itertext()).strip() for node in drawn(chart).iter(f"{SVG}text")]


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


def test_styles_of_several_ncmi_entries() -> None:
    keys = [("CE", "cross_entropy"), ("one", "ncmi"), ("two", "ncmi"), ("three", "ncmi")]
    few = styles(keys)
    # where hues are free each has its own
    assert len({style.tone for style in few.values()}) == 4
    many = styles([(name, name) for name in KNOWN] + [(f"n{k}", "ncmi") for k in range(4)])
    assert len(set(many.values())) == 17
    assert [many[f"n{k}"].tone for k in range(3)] == ["vermilion"] * 3
    assert list(many)[-1] == "n3"


def test_class_colors_differ() -> None:
    for count in (2, 10, 26, 100):
        assert len(set(class_colors(count))) == count


# --- the numbers behind the pictures


def test_curve_is_mean_and_range_over_the_seeds_that_have_a_value() -> None:
    one, two = metrics(x=[1.0, 2.0, np.nan, 4.0]), metrics(x=[3.0, np.inf, np.nan])
    found = curve([one, two], "x")
    assert found.index.tolist() == [1, 2, 4]
    assert found["mean"].tolist() == [2.0, 2.0, 4.0]
    assert found["low"].tolist() == [1.0, 2.0, 4.0]
    assert found["high"].tolist() == [3.0, 2.0, 4.0]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    found = curve([metrics(x=list(range(5000)))], "x")
    assert len(found) <= 120
    assert (found.index[0], found.index[-1]) == (1, 5000)
    assert (found["mean"] == found.index - 1).all()


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


def outputs_of(labels: Sequence[int], predicted: Sequence[int], features: Any) -> Outputs:
    return Outputs(np.array(labels), np.asarray(features), {"cc": np.array(predicted)})


def test_cloud_has_unit_length_and_leaves_out_what_has_no_direction() -> None:
    features = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [0.0, -2.0]], dtype=np.float16)
    found = make_cloud("x", outputs_of([0, 1, 1, 1], [0, 0, 0, 0], features), "cc", [0, 1])
    assert found.directions == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]), abs=1e-3)
    assert found.labels.tolist() == [0, 1]
    assert found.wrong.tolist() == [False, True]
    assert found.total == 4


def test_cloud_draws_a_seeded_sample_of_many_points() -> None:
    rng = np.random.default_rng(0)
    outputs = Outputs(rng.integers(0, 3, 2000), rng.normal(size=(2000, 4)), {})
    one, two = (make_cloud("x", outputs, "cc", range(3)) for _ in range(2))
    assert len(one.labels) == MOST_POINTS
    assert (one.directions == two.directions).all()


def test_cloud_of_some_classes() -> None:
    outputs = outputs_of([0, 1, 2, 3, 2], [0, 1, 3, 3, 2], np.arange(10.0).reshape(5, 2) + 1)
    found = make_cloud("x", outputs, "cc", [2, 0])
    assert found.labels.tolist() == [1, 0, 0]
    # the second was taken for a class that is not drawn
    assert found.wrong.tolist() == [False, True, False]
    assert found.directions == pytest.approx(np.array([[1, 2], [5, 6], [9, 10]]) / [[5**0.5], [61**0.5], [181**0.5]])
    assert drawn_classes(["d", "c", "b", "a"]) == [0, 1, 2, 3]


def test_neighborhoods_keep_clusters_apart_and_do_not_depend_on_chance() -> None:
    features, labels = three_clusters()
    points = neighborhoods(features)
    again = neighborhoods(features)
    assert points is not None
    assert again is not None
    assert (points == again).all()
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(axis=1)] == labels).all()


def test_no_neighborhoods_of_few_points_or_of_one_point() -> None:
    assert neighborhoods(np.eye(8)) is None
    assert neighborhoods(np.ones((50, 3))) is None


# --- dots


def dots(*means: float) -> list[Dots]:
    names = ["NCMI", "CE", "Focal"]
    return [
        Dots(name, name, mean, (mean - 0.01, mean + 0.01), {"0": mean - 0.005, "7": mean + 0.005})
        for name, mean in zip(names, means, strict=False)
    ]


def test_dots_show_every_row_with_its_seeds() -> None:
    looks = {"NCMI": KNOWN["ncmi"], "CE": KNOWN["cross_entropy"], "Focal": KNOWN["focal"]}
    chart = dots_chart(
        "d", "Test accuracy", "test accuracy, %", dots(0.98, 0.97, 0.965), looks, PERCENT, reference=0.97
    )
    shown = texts(chart)
    assert [word for word in shown if word in looks] == ["NCMI", "CE", "Focal"]
    assert not any("off the scale" in word for word in shown)
    assert "NCMI, NCMI 98.00" in chart.description
    seeds = [row for row in chart.rows if row["part"] == "seed"]
    assert [(row["seed"], row["value"]) for row in seeds[:2]] == [
        ("0", pytest.approx(97.5)),
        ("7", pytest.approx(98.5)),
    ]
    assert chart.legend == {}


def test_a_failed_method_does_not_squeeze_the_others() -> None:
    looks = {"NCMI": KNOWN["ncmi"], "CE": KNOWN["cross_entropy"], "Focal": KNOWN["focal"]}
    chart = dots_chart("d", "Test accuracy", "%", dots(0.98, 0.975, 0.1), looks, PERCENT)
    assert "← 10.00 (off the scale)" in texts(chart)


def test_an_interval_of_two_seeds_runs_off_the_edge() -> None:
    wide = [Dots("NCMI", "NCMI", 0.5, (0.0, 1.0), {"0": 0.49, "1": 0.51}), Dots("CE", "CE", math.nan)]
    chart = dots_chart("d", "t", "a", wide, {"NCMI": KNOWN["ncmi"], "CE": KNOWN["cross_entropy"]})
    layers = [layer["encoding"]["x"] for layer in chart.specification()["layer"] if "scale" in layer["encoding"]["x"]]
    low, high = layers[0]["scale"]["domain"]
    assert 0.4 < low < 0.49
    assert 0.51 < high < 0.6
    # what has no mean keeps its row
    assert "CE" in texts(chart)


def test_several_series_of_a_row_have_a_legend_and_places_of_their_own() -> None:
    looks = {"NCMI": KNOWN["ncmi"], "CE": KNOWN["cross_entropy"]}
    rows = [Dots(row, series, 0.5) for row in ("ABMIL", "AEM") for series in looks]
    chart = dots_chart("d", "t", "a", rows, looks)
    assert chart.legend == looks
    assert [row["place"] for row in chart.rows if row["row"] == "AEM"] == [0.25, 0.75]


# --- epochs


def test_epochs_of_a_run() -> None:
    decay = np.exp(-np.linspace(0, 3, 20))
    frame = metrics(
        train_loss=(2 * decay).tolist(),
        train_penalty=[0.0] * 20,
        validation_cmi=(0.1 * decay).tolist(),
        validation_separation=(1 - decay / 2).tolist(),
        validation_ncmi=decay.tolist(),
        validation_accuracy=(1 - 0.2 * decay).tolist(),
    )
    charts = epoch_charts({"NCMI": [frame]}, LOOK, [*VALIDATION, "train_loss", "train_penalty"], kept=14)
    # a penalty that is zero throughout is none
    assert [chart.title for chart in charts] == [MEASURES[name][0] for name in (*VALIDATION, "train_loss")]
    assert {"80", "90", "95"} <= set(texts(charts[3]))
    assert "on training data" in charts[4].description
    # the epoch that was kept is one line, not one for each of the rows
    dashed = [line for line in drawn(charts[4]).iter(f"{SVG}line") if line.get("stroke-dasharray") == "4,3"]
    assert [line.get("opacity") for line in dashed] == ["0.6"]


def test_epochs_without_values_are_left_out() -> None:
    empty = metrics(validation_cmi=[np.nan], validation_separation=[1.0], validation_ncmi=[np.nan])
    empty["validation_accuracy"] = np.nan
    (chart,) = epoch_charts({"NCMI": [empty]}, LOOK, VALIDATION)
    assert "Γ (separation)" in texts(chart)


@pytest.mark.parametrize("values", [[0.5, 0.99, 1.0], [1.0, 1.0]])
def test_perfect_accuracy_can_be_drawn(values: list[float]) -> None:
    (chart,) = epoch_charts({"NCMI": [metrics(validation_accuracy=values)]}, LOOK, ["validation_accuracy"])
    shown = set(texts(chart))
    assert "100" in shown
    assert values == [1.0, 1.0] or {"50", "90", "99"} <= shown


@pytest.mark.parametrize("values", [[0.69], [0.701, 0.703], [0.1, 0.12], [0.0, 0.0]])
def test_a_narrow_range_of_accuracies_still_has_ticks(values: list[float]) -> None:
    frame = metrics(validation_accuracy=values) if any(values) else metrics(validation_accuracy=[*values, 0.01])
    (chart,) = epoch_charts({"NCMI": [frame]}, LOOK, ["validation_accuracy"])
    (axis,) = {
        json.dumps(layer["encoding"]["y"]["axis"])
        for layer in chart.specification()["layer"]
        if "axis" in layer["encoding"]["y"]
    }
    accuracies = [100 - tick for tick in json.loads(axis)["values"]]
    assert any(100 * min(values) - 25 < accuracy < 100 * max(values) + 35 for accuracy in accuracies)
    texts(chart)


def test_measures_that_are_zero_or_negative_are_drawn_on_a_plain_axis() -> None:
    frame = metrics(validation_cmi=[0.0, -1.0, 100.0])
    (chart,) = epoch_charts({"NCMI": [frame, frame]}, LOOK, VALIDATION[:1])
    assert "CMI, nats" in texts(chart)


# --- decisions


@pytest.mark.parametrize(("classes", "counted", "named"), [(3, True, True), (26, False, True), (60, False, False)])
def test_confusion_chart_by_number_of_classes(classes: int, counted: bool, named: bool) -> None:
    counts = np.diag(np.arange(classes) + 500)
    counts[0, 1] = 733
    chart = confusion_chart("name", "CE", counts, [f"class {i}" for i in range(classes)])
    found = texts(chart)
    assert ("733" in found) == counted
    assert ("class 2" in found) == named
    assert {"true": "class 0", "predicted": "class 1", "count": 733}.items() <= chart.rows[1].items()


def test_classes_of_one_shortened_name_stay_apart() -> None:
    names = ["the same beginning, one", "the same beginning, two"]
    found = texts(confusion_chart("name", "CE", np.array([[5, 1], [2, 7]]), names))
    assert {"5", "1", "2", "7"} <= set(found)


def test_roc_curves_against_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    probabilities = rng.dirichlet(np.ones(4), 60)
    chart = roc_chart("roc", "NCMI", labels, probabilities, ["a", "b", "c", "never"])
    assert chart is not None
    assert {row["class"] for row in chart.rows} == {"a", "b", "c"}
    for index, name in enumerate("abc"):
        area = roc_auc_score(labels == index, probabilities[:, index])
        assert f"{name} {area:.3f}" in chart.description
        points = [(row["false"], row["true"]) for row in chart.rows if row["class"] == name]
        assert (points[0], points[-1]) == ((0, 0), (1, 1))
        assert np.trapezoid([y for _, y in points], [x for x, _ in points]) == pytest.approx(area)
    texts(chart)
    two = roc_chart("roc", "NCMI", labels[:40], probabilities[:40, :2], ["no", "yes"])
    assert two is not None
    assert {row["class"] for row in two.rows} == {"yes"}
    assert roc_chart("roc", "NCMI", np.zeros(5, dtype=int), probabilities[:5, :2], ["no", "yes"]) is None


@pytest.mark.parametrize("counts", [(3, 0, 1000), (0, 0, 1), (1_234_567, 1, 1)])
def test_reliability_chart(counts: tuple[int, ...]) -> None:
    bins = Reliability(
        counts=list(counts),
        confidence=[c if n else None for c, n in zip((0.2, 0.5, 0.9), counts, strict=True)],
        accuracy=[a if n else None for a, n in zip((0.0, 1.0, 0.5), counts, strict=True)],
    )
    chart = reliability_chart("r", "A <title> & $x$", bins)
    shown = texts(chart)
    assert "A <title> & $x$" in shown
    assert {str(count) for count in counts if count} <= {word.replace(",", "") for word in shown}
    # 1000 samples at confidence 0.9 of which half are right: off; three at 0.2 of which none is right: not
    misses = [row["count"] for row in chart.rows if row["series"] == "misses the line"]
    assert max(counts) in misses or max(counts) < 1000
    assert 3 not in misses
    assert f"in 3 bins of {sum(counts)} test samples" in chart.description


def test_reliability_of_one_sample_accuses_nobody() -> None:
    chart = reliability_chart("r", "t", Reliability(counts=[0, 1], confidence=[None, 0.9], accuracy=[None, 1.0]))
    assert [row["series"] for row in chart.rows] == ["holds the line"]
    assert "in 0 of them" in chart.description
    # Wilson's interval of one right among one: n / (n + z²) … 1
    z = 1.959963984540054
    assert (chart.rows[0]["low"], chart.rows[0]["high"]) == (pytest.approx(1 / (1 + z * z)), 1.0)


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1.0), (1e-3, 2e-3), (0.5, 0.5001)])
def test_histogram_of_distances(low: float, high: float) -> None:
    record = OutOfDistribution(
        data="other",
        inside="digits",
        num_inside=360,
        num_outside=80,
        readout="cc",
        scores={"distance": Detection(auroc=0.91, fpr95=0.125, threshold=(low * high) ** 0.5)},
        distances=Histogram(edges=np.geomspace(low, high, 41).tolist(), inside=[9] * 40, outside=[0] * 39 + [80]),
    )
    chart = distances_chart("d", record)
    assert {"test part of digits", "other", "other against digits", "95 % of the test part"} <= set(texts(chart))
    assert "AUROC 91.00 %" in chart.description
    assert sum(row["share"] for row in chart.rows if row["series"] == "other") == pytest.approx(100)


# --- features


def test_feature_charts_name_the_classes_and_say_how_much_they_show() -> None:
    features, labels = three_clusters()
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    one = Cloud("NCMI", directions, labels, labels == 9, 90)
    (large,) = tsne_charts([one], ["ant", "bee", "$cat$"])
    assert {"NCMI", "ant", "bee", "$cat$"} <= set(texts(large))
    assert len([row for row in large.rows if row["part"] == "point"]) == 90
    (small,) = pca_charts([one], ["ant", "bee", "$cat$"])
    share = principal_components(directions)[1]
    assert texts(small) == [f"NCMI · {100 * share:.0f} %"]
    empty = Cloud("none", np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), 5)
    assert tsne_charts([empty], ["ant"]) == []
    assert pca_charts([empty], ["ant"]) == []


def test_classes_that_lie_scattered_are_named_in_a_legend() -> None:
    features, labels = three_clusters(1.0)
    (large,) = tsne_charts([Cloud("NCMI", features, labels, labels == 0, 90)], ["ant", "bee", "cat"])
    assert not [row for row in large.rows if row["part"] == "name"]
    assert {"ant", "bee", "cat"} <= set(texts(large))


# --- the paper's figures, and documents


def test_lines_of_one_seed_and_of_different_length() -> None:
    lines = {
        "CE": (KNOWN["cross_entropy"], {32: Spread((0.70,)), 64: Spread((0.71,)), 128: Spread((0.72,))}),
        "NCMI-LP": (KNOWN["ncmi"], {32: Spread((0.699, 0.700, 0.701))}),
        "NCMI-CC": (KNOWN["ncmi"], {32: Spread((0.69,))}),
    }
    chart = batch_size_chart("name", "title", lines)
    assert {"32", "64", "128"} <= set(texts(chart))
    assert list(chart.legend) == ["CE", "NCMI-LP", "NCMI-CC"]
    # read-outs of one method share a color and differ in their dashes
    one, two = chart.legend["NCMI-LP"], chart.legend["NCMI-CC"]
    assert one.tone == two.tone
    assert one.dashes != two.dashes
    assert "CE: 32: 70.00 %" in chart.description
    assert "NCMI-LP: 32: 70.00 ± 0.10 %" in chart.description


@pytest.mark.parametrize("logarithmic", [True, False])
def test_correlation_has_a_point_a_network_and_a_line_of_least_squares(logarithmic: bool) -> None:
    points = tuple(
        Point("", f"width {k // 2}", k, 2.0**-k, 20 + 3 * k, ((2.0**-k, 19 + 3 * k), (2.0**-k, 21 + 3 * k)))
        for k in range(6)
    )
    raw = associate([point.ncmi for point in points], [point.accuracy for point in points])
    correlation = Correlation("centroid_kl", "Γ by centroid KL", points, (), logarithmic, raw, raw)
    chart = correlation_chart("c", correlation)
    assert {"0", "5"} <= set(texts(chart))
    assert [sum(row["part"] == part for row in chart.rows) for part in ("mean", "seed")] == [6, 12]
    assert chart.description == f"Γ by centroid KL. {correlation.in_words()}"
    if logarithmic:
        (ends,) = [rows for rows in chart.specification()["datasets"].values() if "accuracy" in rows[0]]
        assert {row["ncmi"]: pytest.approx(row["accuracy"]) for row in ends} == {1.0: 20, 0.03125: 35}


def test_a_document_is_a_picture_on_light_paper_with_a_legend() -> None:
    frame = metrics(validation_cmi=[1.0, 0.5, 0.2])
    looks = {"NCMI": KNOWN["ncmi"], "<b>&": Style("blue")}
    charts = epoch_charts({name: [frame] for name in looks}, looks, VALIDATION[:1])
    features, labels = three_clusters()
    clouds = [Cloud(name, features, labels, labels == 9, 90) for name in looks]
    rows = [Dots("a row", name, 0.5) for name in looks]
    points = tuple(Point("", f"width {k}", k, 2.0**-k, 20 + 3 * k, ()) for k in range(4))
    raw = associate([point.ncmi for point in points], [point.accuracy for point in points])
    charts += [
        dots_chart("d", "Dots", "a", rows, looks),
        batch_size_chart("b", "Batches", {name: (style, {32: Spread((0.5,))}) for name, style in looks.items()}),
        correlation_chart("c", Correlation("centroid_kl", "Correlation", points, (), True, raw, raw)),
        *tsne_charts(clouds, ["a", "b", "c"]),
        *pca_charts(clouds, ["a", "b", "c"]),
    ]
    svg, png = to_document(charts)
    words = ["".join(node.itertext()).strip() for node in ET.fromstring(svg).iter()]
    assert {"NCMI", "<b>&", "CMI (concentration)", "Dots", "a row", "Batches", "Correlation", "width 3"} <= set(words)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert picture.shape[1] >= 1600
    # light paper in the corner, something dark somewhere
    assert picture[0, 0].min() > 250
    assert picture.sum(axis=-1).min() < 255


def test_a_picture_is_no_wider_than_what_is_drawn() -> None:
    looks = {"NCMI": KNOWN["ncmi"]}
    (chart,) = epoch_charts({"NCMI": [metrics(validation_cmi=[1.0, 0.5, 0.2])]}, looks, VALIDATION[:1])
    picture = np.asarray(Image.open(io.BytesIO(to_document([chart])[1])).convert("L"))
    dark = np.flatnonzero((picture < 250).any(axis=0))
    assert picture.shape[1] - dark[-1] < 0.15 * picture.shape[1]

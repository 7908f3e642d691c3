"""One simulated slide: its options, what it depends on, where its lesions lie and how large they are, its center."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label as components_of

from ncmi.slides.simulation import Difficulty, SimulationOptions, SlideRow, describe_simulation
from ncmi.slides.simulation.lesions import grow, plan_slide, tissue_cells
from ncmi.slides.simulation.options import stream
from ncmi.slides.simulation.slide import PATCH_LEVEL0, simulate_slide

SMALL = SimulationOptions(feature_dim=48, scale=0.1)
PATCH_MM = 0.128


def row(name: str = "a", label: str = "macro", center: str = "0") -> SlideRow:
    return SlideRow(name, "patient", label, center=center)


def grid(cells: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """A picture of the chosen cells."""
    picture = np.zeros(cells.max(0) + 1, bool)
    picture[tuple(cells[chosen].T)] = True
    return picture


def test_a_slide_follows_from_seed_and_row_alone() -> None:
    first = simulate_slide(SMALL, row())
    simulate_slide(SMALL, row("b", "itc"))
    again = simulate_slide(SMALL, row())
    for name in ("features", "coords", "lesion", "component", "mimic"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for other in (
        simulate_slide(SMALL, row("b")),
        simulate_slide(replace(SMALL, seed=1), row()),
        simulate_slide(SMALL, row(center="1")),
    ):
        assert other.features.shape != first.features.shape or not np.array_equal(other.features, first.features)


def test_streams_of_other_words_are_other_streams() -> None:
    drawn = {stream(*words).random() for words in ((0, "ab", "c"), (0, "a", "bc"), (1, "ab", "c"), (0, "abc"))}
    assert len(drawn) == 4


def test_shapes_and_types() -> None:
    slide = simulate_slide(SMALL, row())
    n = plan_slide(SMALL, row()).instances
    assert slide.features.shape == (n, 48)
    assert slide.features.dtype == np.float16
    assert np.isfinite(slide.features).all()
    assert slide.coords.shape == (n, 2)
    assert slide.coords.dtype == np.int64
    assert (slide.coords % PATCH_LEVEL0 == 0).all()
    assert len(np.unique(slide.coords, axis=0)) == n
    assert slide.lesion.dtype == slide.mimic.dtype == bool
    assert not (slide.lesion & slide.mimic).any()
    assert slide.component.max() < len(slide.components)
    # the truth agrees with itself
    np.testing.assert_array_equal(slide.lesion, slide.component == slide.components.index("tumor"))
    assert slide.lesion.sum() == plan_slide(SMALL, row()).lesion_patches


def test_size_does_not_follow_the_label() -> None:
    sizes = {label: plan_slide(SMALL, row("s", label)).instances for label in ("negative", "itc", "micro", "macro")}
    assert len(set(sizes.values())) == 1


def test_sizes_are_as_published() -> None:
    sizes = np.array([plan_slide(SimulationOptions(), row(f"s{i}", "negative")).instances for i in range(4000)])
    # a log-normal of mean 10,450 and standard deviation 1 of the logarithm, cut at 300 and 60,000
    assert np.log(sizes).std() == pytest.approx(1.0, abs=0.05)
    assert np.median(sizes) == pytest.approx(10_450 * math.exp(-0.5), rel=0.05)
    assert sizes.mean() == pytest.approx(10_000, rel=0.07)
    assert sizes.min() >= 300
    assert sizes.max() <= 60_000


@pytest.mark.parametrize(("label", "diameters"), [("itc", (0.03, 0.2)), ("micro", (0.2, 2.0)), ("macro", (2.0, 12.0))])
def test_lesions_have_the_size_of_their_class(label: str, diameters: tuple[float, float]) -> None:
    lesions = [plan_slide(SimulationOptions(), row(f"s{i}", label)).lesions for i in range(400)]
    areas = [math.pi / 4 * diameter**2 / PATCH_MM**2 for diameter in diameters]
    main = np.array([found[0].patches for found in lesions])
    assert main.min() >= max(1, math.floor(0.4 * areas[0]))
    assert main.max() <= max(1, math.ceil(areas[1]))
    # the whole range occurs
    assert main.max() > 0.4 * areas[1]
    assert main.min() <= max(1, 1.5 * areas[0])
    # satellites belong to a smaller class, or to ITC
    most = math.ceil(math.pi / 4 * {"itc": 0.2, "micro": 0.2, "macro": 2.0}[label] ** 2 / PATCH_MM**2)
    assert max(lesion.patches for found in lesions for lesion in found[1:]) <= most


def test_negative_slides_have_no_lesion() -> None:
    slide = simulate_slide(SMALL, row(label="negative"))
    assert not slide.lesion.any()
    assert "tumor" not in {slide.components[index] for index in slide.component}


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.5])
def test_scale_keeps_shares_and_the_lesion_of_the_label(scale: float) -> None:
    whole, part = SimulationOptions(), SimulationOptions(scale=scale)
    for number, label in enumerate(["itc", "micro", "macro"] * 20):
        slide = row(f"s{number}", label)
        full, small = plan_slide(whole, slide), plan_slide(part, slide)
        assert small.instances == max(16, round(scale * full.instances))
        assert small.lesions[0].patches in {
            max(1, round(scale * full.lesions[0].patches)),
            int(0.7 * small.instances),
        }


def test_lesions_of_small_slides_leave_other_tissue() -> None:
    plans = [plan_slide(SimulationOptions(scale=0.05), row(f"s{i}")) for i in range(300)]
    shares = [plan.lesion_patches / plan.instances for plan in plans]
    assert max(shares) <= 0.7
    assert max(shares) > 0.6


def test_a_lesion_is_one_connected_patch() -> None:
    random = np.random.default_rng(0)
    cells = tissue_cells(random, 3000)
    assert len(np.unique(cells, axis=0)) == 3000
    whole, pieces = components_of(grid(cells, np.arange(3000)))
    assert np.bincount(whole.ravel())[1:].max() > 800
    assert pieces <= 6
    for count, aspect in ((1, 1.0), (2, 0.5), (60, 0.5), (500, 1.0)):
        inside = grow(random, cells, np.ones(3000, bool), count, aspect)
        assert len(set(inside.tolist())) == count
        assert components_of(grid(cells, inside))[1] == 1
    # an ellipse, not a snake: round where it has room
    round_one = cells[grow(random, cells, np.ones(3000, bool), 200, 1.0)]
    assert np.ptp(round_one, axis=0).max() < 3 * math.sqrt(200)


def test_a_lesion_takes_free_cells_only_and_goes_on_in_the_next_piece() -> None:
    cells = np.array([(x, y) for x in (0, 1, 2, 10, 11) for y in (0, 1)])
    free = np.ones(10, bool)
    free[0] = False
    inside = grow(np.random.default_rng(0), cells, free, 9, 1.0)
    assert sorted(inside.tolist()) == list(range(1, 10))


def test_lesions_in_slides_are_blobs() -> None:
    for number in range(6):
        slide = simulate_slide(SMALL, row(f"blob{number}"))
        lesions = len(plan_slide(SMALL, row(f"blob{number}")).lesions)
        pieces = components_of(grid(slide.coords // PATCH_LEVEL0, slide.lesion))[1]
        # tissue itself may lie in pieces
        assert pieces <= lesions + 3


def test_centers_differ_and_slides_of_one_center_agree() -> None:
    options = replace(SMALL, difficulty=Difficulty(center_shift=1.5, slide_shift=0.1))

    def mean_of(name: str, center: str) -> np.ndarray:
        slide = simulate_slide(options, row(name, "negative", center))
        # of one tissue alone, so that the shares of tissues do not matter
        return slide.features[slide.component == 0].astype(np.float64).mean(0)

    means = {(name, center): mean_of(f"{name}{center}", center) for center in "012" for name in "xyz"}
    within = [np.linalg.norm(means["x", c] - means[other, c]) for c in "012" for other in "yz"]
    between = [np.linalg.norm(means["x", a] - means[other, b]) for a, b in ("01", "02", "12") for other in "xyz"]
    assert min(between) > 2 * max(within)
    plain = replace(SMALL, difficulty=Difficulty(center_shift=0))
    alike = [simulate_slide(plain, row("x", "negative", center)).features for center in "01"]
    np.testing.assert_array_equal(*alike)


def test_lesion_distance_separates_lesion_from_tissue() -> None:
    def gap(distance: float) -> float:
        slide = simulate_slide(replace(SMALL, difficulty=Difficulty(lesion_distance=distance)), row("gap"))
        features = slide.features.astype(np.float64)
        near = slide.component == 1
        return float(np.linalg.norm(features[slide.lesion].mean(0) - features[near & ~slide.mimic].mean(0)))

    assert gap(16) > 1.5 * gap(8) > 1.5 * gap(0)


def test_mimics_lie_part_of_the_way() -> None:
    options = replace(SMALL, difficulty=Difficulty(mimics=0.3, lesion_spread=0, slide_shift=0, center_shift=0))
    slide = simulate_slide(options, row("mimics"))
    features = slide.features.astype(np.float64)
    start = features[(slide.component == 1) & ~slide.mimic].mean(0)
    way = features[slide.lesion].mean(0) - start
    at = (features[slide.mimic].mean(0) - start) @ way / (way @ way)
    assert slide.mimic.sum() > 10
    assert 0.1 < at < 0.5


def test_features_have_the_stated_rank() -> None:
    slide = simulate_slide(SimulationOptions(feature_dim=256, scale=0.5), row("rank"))
    features = slide.features.astype(np.float64)
    spectrum = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    share = np.cumsum(spectrum) / spectrum.sum()
    assert share[23] > 0.7
    assert 0.3 < features.std() < 3


@given(label=st.sampled_from(["N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC"]), number=st.integers(0, 10**6))
def test_bracs_slides_hold_the_lesion_of_their_label_and_milder_ones(label: str, number: int) -> None:
    order = ["N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC"]
    plan = plan_slide(SimulationOptions("bracs", scale=0.1), row(f"s{number}", label, ""))
    kinds = [lesion.kind for lesion in plan.lesions]
    if label == "N":
        assert kinds == []
    else:
        assert kinds[0] == label
        assert all(order.index(kind) < order.index(label) for kind in kinds[1:])
    assert plan.lesion_patches <= 0.7 * plan.instances


def test_bracs_masks_show_the_worst_lesion() -> None:
    options = SimulationOptions("bracs", feature_dim=32, scale=0.2)
    slide = simulate_slide(options, row("b", "IC", ""))
    assert {slide.components[index] for index in slide.component[slide.lesion]} == {"IC"}
    assert slide.lesion.sum() == plan_slide(options, row("b", "IC", "")).lesions[0].patches


def test_every_number_has_a_source() -> None:
    for cohort in ("camelyon17", "bracs"):
        stated = describe_simulation(SimulationOptions(cohort))  # type: ignore[arg-type]
        assert len({one.what for one in stated}) == len(stated) > 10
        assert all(one.value and one.source for one in stated)
        assert {one.kind for one in stated} <= {"published", "measured", "derived", "assumption"}
        assert any(one.kind == "published" for one in stated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cohort": "tcga"}, "there are camelyon17 and bracs"),
        ({"feature_dim": 8}, "feature_dim=8: must be at least 24"),
        ({"scale": 0}, "scale=0: must be above 0"),
        ({"scale": 2.0}, "at most 1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tail": 2.0}, "tail=2.0: must be above 2"), ({"mimics": 1.0}, "mimics=1.0"), ({"noise": -1.0}, "noise=-1.0")],
)
def test_wrong_difficulty(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Difficulty(**options)


def test_the_numbers_of_a_seed_stay() -> None:
    """A cohort that was simulated once can be simulated again, its centers too."""
    slide = simulate_slide(SimulationOptions(seed=1, feature_dim=32, scale=0.05), row("a", "itc", center="3"))
    np.testing.assert_allclose(slide.features[0, :5], [0.87061, 0.39404, 1.3916, -0.43286, 0.48096], rtol=5e-3)

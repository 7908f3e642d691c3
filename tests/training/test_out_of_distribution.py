"""Knowing what is unknown: AUROC by counting pairs, FPR95 by its definition, scores against naive float64 references."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from training_helpers import make_recipe

from ncmi.data import load_dataset
from ncmi.data.foreign import load_foreign
from ncmi.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.out_of_distribution import SCORES, compare_with_foreign, detection, foreign_scores
from ncmi.recipes import Backbone
from ncmi.training.model import Model, Signature

# --- AUROC and FPR95


def by_definition(inside: list[float], outside: list[float]) -> tuple[float, float]:
    pairs = [1.0 if o > i else 0.5 if o == i else 0.0 for o in outside for i in inside]
    accepting = [t for t in sorted(inside) if sum(i <= t for i in inside) >= 0.95 * len(inside)]
    return sum(pairs) / len(pairs), sum(o <= accepting[0] for o in outside) / len(outside)


# few different values: ties within and between the two
scores_with_ties = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=60)


@given(scores_with_ties, scores_with_ties)
def test_detection_with_ties(inside: list[float], outside: list[float]) -> None:
    found = detection(torch.tensor(inside), torch.tensor(outside))
    auroc, fpr95 = by_definition(inside, outside)
    assert found.auroc == pytest.approx(auroc, abs=1e-12)
    assert found.fpr95 == pytest.approx(fpr95, abs=1e-12)
    assert sum(i <= found.threshold for i in inside) >= 0.95 * len(inside)


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 200))
def test_detection_without_ties(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(size=n).tolist(), (0.7 + generator.normal(size=m)).tolist()
    tensors = torch.tensor(inside, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)
    auroc, fpr95 = by_definition(inside, outside)
    assert detection(*tensors).auroc == pytest.approx(auroc, abs=1e-12)
    assert detection(*tensors).fpr95 == pytest.approx(fpr95, abs=1e-12)
    # the same from the other side
    assert detection(*tensors[::-1]).auroc == pytest.approx(1 - auroc, abs=1e-12)


def test_a_constant_score_tells_nothing_apart() -> None:
    found = detection(torch.full((20,), 3.0), torch.full((5,), 3.0))
    assert (found.auroc, found.fpr95, found.threshold) == (0.5, 1.0, 3.0)


def test_exactly_95_percent_are_enough() -> None:
    inside = torch.arange(20.0)
    assert detection(inside, torch.tensor([18.5, 30.0])).threshold == 18.0
    assert detection(inside, torch.tensor([18.5, 30.0])).fpr95 == 0.0


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (torch.zeros(0), torch.zeros(2), "0 samples inside and 2 outside: give at least one of each"),
        (torch.zeros(2), torch.zeros(0), "give at least one of each"),
        (torch.zeros(2), torch.tensor([math.nan]), "a score is NaN or infinite"),
        (torch.tensor([math.inf]), torch.zeros(2), "a score is NaN or infinite"),
    ],
)
def test_detection_refuses(inside: Tensor, outside: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection(inside, outside)


# --- the scores


def fitted(objective: ObjectiveOptions, classes: int = 3, dim: int = 8) -> tuple[Model, Tensor, Tensor]:
    """An untrained model whose CC is fitted to clusters, with their features and labels."""
    names = tuple(f"c{i}" for i in range(classes))
    backbone = Backbone("mlp", width=16, depth=1, feature_dim=dim)
    model = Model(make_recipe(objective, backbone=backbone), Signature("table", (4,), names, None)).double().eval()
    labels = torch.arange(60) % classes
    features = 2 * torch.eye(dim, dtype=torch.float64)[labels] + torch.randn(60, dim, dtype=torch.float64)
    model.cc = model.centroid_classifier().double().partial_fit(features, labels)
    return model, features, labels


def test_scores_against_naive_ones() -> None:
    model, features, labels = fitted(NCMIOptions(temperature=0.3, centre="ema"))
    with torch.no_grad():
        model.cc.centre += 0.1
        model.cc.sums.zero_()
        model.cc.counts.zero_()
    model.cc.partial_fit(features, labels)
    z = (features - model.cc.centre).numpy()
    z_unit = z / np.linalg.norm(z, axis=1, keepdims=True) / 0.3
    sigma = 1 / (1 + np.exp(-z_unit))
    p = sigma / sigma.sum(1, keepdims=True)
    centroids = np.stack([p[labels.numpy() == c].mean(0) for c in range(3)])
    kl = np.array([[(row * np.log(row / centroid)).sum() for centroid in centroids] for row in p])
    found = foreign_scores(model, features, "cc")
    assert tuple(found) == SCORES
    nearest = kl.min(1)
    np.testing.assert_allclose(found["distance"], nearest, rtol=1e-9)
    np.testing.assert_allclose(found["distance_ratio"], nearest / ((kl.sum(1) - nearest) / 2), rtol=1e-9)
    pi = kl**-model.cc.power
    np.testing.assert_allclose(found["max_probability"], 1 - pi.max(1) / pi.sum(1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["feature_norm"], -np.linalg.norm(z, axis=1), rtol=1e-12)


def test_certainties_that_round_to_one_are_still_told_apart() -> None:
    model, features, _ = fitted(CrossEntropyOptions())
    model.float()
    head = model.log_proba(features.float(), "head")
    sure = 40 * features[:30].float() * (1 + torch.arange(30))[:, None]
    assert float((model.log_proba(sure, "head").exp().amax(1) == 1).double().mean()) > 0.5
    found = foreign_scores(model, sure, "head")["max_probability"]
    positive = found[found > 0]
    assert len(positive.unique()) == len(positive) > 20
    np.testing.assert_allclose(
        foreign_scores(model, features.float(), "head")["max_probability"], 1 - head.double().exp().amax(1), atol=1e-6
    )


def test_a_class_without_training_samples_is_left_out() -> None:
    model, features, labels = fitted(NCMIOptions())
    model.cc = model.centroid_classifier().double().partial_fit(features[labels < 2], labels[labels < 2])
    found = foreign_scores(model, features, "cc")
    assert all(bool(torch.isfinite(values).all()) for values in found.values())
    two = model.cc.divergences(features)[:, :2]
    torch.testing.assert_close(found["distance_ratio"], two.amin(1) / two.amax(1))


def test_comparison_is_complete_and_counts_every_sample() -> None:
    model, features, _ = fitted(NCMIOptions())
    foreign = torch.randn(25, 8, dtype=torch.float64)
    found = compare_with_foreign(model, features, foreign, data="own", foreign="other", readout="cc")
    assert (found["num_in"], found["num_out"], found["readout"]) == (60, 25, "cc")
    distances = found["distances"]
    assert (sum(distances["in"]), sum(distances["out"])) == (60, 25)
    assert len(distances["edges"]) == len(distances["in"]) + 1
    inside = foreign_scores(model, features, "cc")
    outside = foreign_scores(model, foreign, "cc")
    for name in SCORES:
        expected = by_definition(inside[name].tolist(), outside[name].tolist())
        assert found["scores"][name]["auroc"] == pytest.approx(expected[0], abs=1e-12)
        assert found["scores"][name]["fpr95"] == pytest.approx(expected[1], abs=1e-12)
    # the same samples on both sides, and a single one
    same = compare_with_foreign(model, features, features, data="own", foreign="own again", readout="cc")
    assert same["scores"]["distance"]["auroc"] == pytest.approx(0.5)
    one = compare_with_foreign(model, features[:1], features[:1], data="own", foreign="own again", readout="cc")
    assert sum(one["distances"]["in"]) == sum(one["distances"]["out"]) == 1


def test_features_that_are_not_finite_are_refused() -> None:
    model, features, _ = fitted(NCMIOptions())
    foreign = torch.randn(4, 8, dtype=torch.float64)
    foreign[1:3, 0] = math.inf
    with pytest.raises(ValueError, match=r"other: 2 of 4 samples have features that are not finite"):
        compare_with_foreign(model, features, foreign, data="own", foreign="other", readout="cc")


# --- where foreign data comes from


def test_images_become_as_in_training(tmp_path: Path) -> None:
    digits = load_dataset("digits").inputs
    assert torch.equal(load_foreign("digits", kind="image", shape=(1, 8, 8)), digits)
    assert load_foreign("digits", kind="image", shape=(3, 8, 8)).shape == (1797, 3, 8, 8)
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / f"{name}.png")
    found = load_foreign(str(folder.parent), kind="image", shape=(1, 8, 8))
    assert found.shape == (2, 1, 8, 8)
    assert int(found.min()) == int(found.max()) == 90
    np.savez(tmp_path / "some.npz", x=np.zeros((3, 8, 8), np.uint8))
    assert load_foreign("some", kind="image", shape=(1, 8, 8), data_dir=str(tmp_path)).shape == (3, 1, 8, 8)


def test_tables_need_no_labels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("b,a,label\n1,2,x\n3,4,y\n")
    found = load_foreign(str(tmp_path / "t.csv"), kind="table", shape=(2,), feature_names=("a", "b"))
    assert found.tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_of_cifar_the_test_part_is_taken(cifar100_dir: Path) -> None:
    found = load_foreign("cifar100", kind="image", shape=(1, 8, 8), data_dir=str(cifar100_dir))
    data = load_dataset("cifar100", image_size=8, channels=1, data_dir=str(cifar100_dir))
    assert data.fixed_test is not None
    assert torch.equal(found, data.inputs[data.fixed_test])
    with pytest.raises(
        ValueError, match=r"has square images, but the network was trained on sample shape \[1, 16, 8\]"
    ):
        load_foreign("cifar100", kind="image", shape=(1, 16, 8), data_dir=str(cifar100_dir))


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
        load_foreign(name, kind=kind, shape=shape, data_dir=str(tmp_path))  # type: ignore[arg-type]


def test_what_is_nowhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    for kind, shape in (("image", (1, 8, 8)), ("table", (4,))):
        with pytest.raises(FileNotFoundError, match="no data set 'nowhere'"):
            load_foreign("nowhere", kind=kind, shape=shape)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no data set 'cifar10'"):
        load_foreign("cifar10", kind="image", shape=(1, 8, 8), data_dir=str(tmp_path))

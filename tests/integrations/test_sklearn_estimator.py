"""NCMIClassifier: scikit-learn's own checks, the same training as a run's, read-outs against references in NumPy."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import parametrize_with_checks

from ncmi import NCMIClassifier, objective_names
from ncmi.data.batches import weighted_draws
from ncmi.data.dataset import Dataset
from ncmi.data.splits import split_dataset
from ncmi.loss.forms import likelihood_power
from ncmi.objectives.interface import LinearHeadObjective
from ncmi.objectives.options import CrossEntropyOptions, FocalOptions, NCMIOptions, ObjectiveOptions, SupConOptions
from ncmi.recipes import Network, Recipe, TableData, Training
from ncmi.training.model import load_model
from ncmi.training.run import train
from ncmi.training.step import TrainingStep

QUICK = {"epochs": 5, "width": 16, "feature_dim": 8, "random_state": 0}
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


@parametrize_with_checks(
    [
        NCMIClassifier(epochs=6, width=32, learning_rate=1e-2),
        NCMIClassifier(epochs=6, width=32, learning_rate=1e-2, objective="cross_entropy"),
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "weights are shares of random draws, as they are of any "
        "stochastic training; what is equal about them is tested below"
    },
)
def test_scikit_learn_accepts_it(estimator: NCMIClassifier, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(("batch_size", "inside"), [(32, 1), (512, 2)])
def test_small_steps_take_one_thread(monkeypatch: pytest.MonkeyPatch, batch_size: int, inside: int) -> None:
    seen, step, before = set(), TrainingStep.__call__, torch.get_num_threads()

    def watched(self: TrainingStep, *args: Any, **options: Any) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return step(self, *args, **options)

    monkeypatch.setattr(TrainingStep, "__call__", watched)
    torch.set_num_threads(2)
    try:
        NCMIClassifier(**QUICK, batch_size=batch_size).fit(X, Y)
        assert (seen, torch.get_num_threads()) == ({inside}, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("load", "least"), [(load_digits, 0.95), (load_iris, 0.93), (load_wine, 0.93)], ids=["digits", "iris", "wine"]
)
def test_defaults_reach_the_usual_accuracy(load: Any, least: float) -> None:
    inputs, labels = load(return_X_y=True)
    x, x_test, y, y_test = train_test_split(inputs, labels, test_size=0.3, stratify=labels, random_state=0)
    assert NCMIClassifier(random_state=0).fit(x, y).score(x_test, y_test) > least


@pytest.mark.parametrize(
    "objective",
    [NCMIOptions(), NCMIOptions(centroids="class_mean", center="ema"), CrossEntropyOptions(), SupConOptions()],
)
def test_training_is_that_of_a_run_with_the_same_recipe(tmp_path: Path, objective: ObjectiveOptions) -> None:
    dataset = Dataset("iris", torch.tensor(X, dtype=torch.float32), torch.tensor(Y), tuple(NAMES), "table")
    seed = int(check_random_state(7).randint(np.iinfo(np.int32).max))
    recipe = Recipe(
        TableData("iris"),
        Network("mlp", width=16, depth=1, feature_dim=8),
        objective,
        Training(epochs=2, batch_size=40, seed=seed, accelerator="cpu"),
    )
    rows: list[dict[str, Any]] = []
    train(recipe, tmp_path / "run", data=dataset, on_epoch=rows.append, catch_signals=False)
    chosen = split_dataset(dataset, seed=seed).train.numpy()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 40, "width": 16, "depth": 1, "feature_dim": 8}
    ours = NCMIClassifier(objective=objective, random_state=7, **options).fit(X[chosen], Y[chosen])
    np.testing.assert_allclose(ours.loss_curve_, [row["train_loss"] for row in rows], rtol=1e-5)
    run = load_model(tmp_path / "run").state_dict()
    for name, value in ours.model_.state_dict().items():
        if name.startswith(("standardize", "network", "objective")) or (
            name.startswith("cc") and ours.readout_ == "cc"
        ):
            torch.testing.assert_close(value, run[name].to(value), rtol=1e-4, atol=1e-6, msg=name)


def probabilities_of(centroids: np.ndarray, p: np.ndarray, power: float) -> np.ndarray:
    divergence = (p[:, None] * np.log(p[:, None] / centroids[None])).sum(-1)
    odds = divergence**-power
    return odds / odds.sum(1, keepdims=True)


def features_and_distributions(fitted: NCMIClassifier, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        features = fitted.model_(torch.tensor(inputs)).numpy()
    return features, distributions(fitted, features)


def distributions(fitted: NCMIClassifier, vectors: np.ndarray) -> np.ndarray:
    objective = fitted.model_.objective
    own = np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized_sigmoid(
        vectors / (own if objective.feature_length is None else objective.feature_length) / objective.temperature
    )


def normalized_sigmoid(z: np.ndarray) -> np.ndarray:
    sigma = 1 / (1 + np.exp(-z))
    return sigma / sigma.sum(1, keepdims=True)


def test_head_is_the_likelihood_over_the_training_centroids() -> None:
    """Points of the features' space by default, or directions; free logits where the anchors have a length."""
    for length in ("common", "own"):
        options = NCMIOptions(feature_length=length, separation_power=-3.0, temperature=0.7)  # type: ignore[arg-type]
        fitted = NCMIClassifier(**QUICK, readout="head", objective=options).fit(X, Y)
        _, p = features_and_distributions(fitted, X)
        centroids = distributions(fitted, fitted.model_.objective.centroid_logits.detach().numpy())
        np.testing.assert_allclose(fitted.predict_proba(X), probabilities_of(centroids, p, 3.0), rtol=1e-8)
    options = NCMIOptions(anchor_scale=10.0, separation_power=-3.0, temperature=0.7)
    free = NCMIClassifier(**QUICK, readout="head", objective=options).fit(X, Y)
    _, p = features_and_distributions(free, X)
    logits = free.model_.objective.centroid_logits.detach().numpy()
    expected = probabilities_of(normalized_sigmoid(logits), p, 3.0)
    np.testing.assert_allclose(free.predict_proba(X), expected, rtol=1e-8)


@pytest.mark.parametrize(("centroids", "expected"), [("learned", "head"), ("fixed", "cc"), ("class_mean", "cc")])
def test_learned_centroids_decide_for_themselves(centroids: Any, expected: str) -> None:
    fitted = NCMIClassifier(**QUICK, centroids=centroids).fit(X, Y)
    assert fitted.readout_ == expected
    chosen = NCMIClassifier(**QUICK, centroids=centroids, readout=expected).fit(X, Y)
    np.testing.assert_array_equal(fitted.predict_proba(X), chosen.predict_proba(X))


def test_the_default_power_follows_the_number_of_classes() -> None:
    x, y = make_blobs(100, centers=10, n_features=4, random_state=0)
    for inputs, labels in ((x, y), (X, Y)):
        power = likelihood_power(len(np.unique(labels)))
        default = NCMIClassifier(**QUICK).fit(inputs, labels).loss_curve_
        assert default == NCMIClassifier(**QUICK, separation_power=-power).fit(inputs, labels).loss_curve_


def test_robustness_withstands_wrong_labels() -> None:
    """A bounded loss does not learn by heart labels of which two in five are drawn at random."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.RandomState(0)
    noisy = np.where(generator.rand(len(y)) < 0.4, generator.randint(10, size=len(y)), y)
    options: dict[str, Any] = {"epochs": 20, "width": 64, "depth": 1, "feature_dim": 32, "learning_rate": 1e-2}
    plain, robust = (
        NCMIClassifier(**options, robustness=q, random_state=0).fit(x[:800], noisy[:800]) for q in (0.0, 0.7)
    )
    assert robust.score(x[800:], y[800:]) > plain.score(x[800:], y[800:]) + 0.08
    assert max(robust.loss_curve_) < 1 / 0.7


def test_cc_compares_with_the_class_means_of_the_training_samples() -> None:
    fitted = NCMIClassifier(**QUICK, readout="cc", separation_power=-3.0).fit(X[::2], Y[::2])
    _, p = features_and_distributions(fitted, X)
    means = np.stack([p[::2][Y[::2] == label].mean(0) for label in range(3)])
    np.testing.assert_allclose(fitted.predict_proba(X), probabilities_of(means, p, 3.0), rtol=1e-8)


def test_lp_is_a_logistic_regression_on_the_features() -> None:
    fitted = NCMIClassifier(**QUICK, readout="lp").fit(X, Y)
    features = StandardScaler().fit_transform(features_and_distributions(fitted, X)[0])
    reference = LogisticRegression(C=1 / (1e-3 * len(X)), tol=1e-8, max_iter=5000).fit(features, Y)
    np.testing.assert_allclose(fitted.predict_proba(X), reference.predict_proba(features), atol=1e-4)


def test_decision_function_orders_as_the_probabilities() -> None:
    three = NCMIClassifier(**QUICK).fit(X, Y)
    np.testing.assert_allclose(three.decision_function(X), np.log(three.predict_proba(X)), atol=1e-9)
    np.testing.assert_array_equal(three.decision_function(X).argmax(1), three.predict(X))
    two = NCMIClassifier(**QUICK).fit(X[:100], NAMES[Y[:100]])
    odds = two.predict_proba(X)[:, 1] / two.predict_proba(X)[:, 0]
    np.testing.assert_allclose(two.decision_function(X), np.log(odds), atol=1e-6)
    np.testing.assert_array_equal(NAMES[(two.decision_function(X) > 0).astype(int)], two.predict(X))


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_trains_and_gives_probabilities(name: str) -> None:
    fitted = NCMIClassifier(**{**QUICK, "epochs": 20, "learning_rate": 1e-2}, objective=name).fit(X, Y)
    proba = fitted.predict_proba(X)
    assert fitted.readout_ == fitted.model_.objective.readouts[0]
    assert np.isfinite(fitted.predict_log_proba(X)).all()
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    assert fitted.score(X, Y) > 0.6


def test_options_of_an_objective_are_used() -> None:
    def curve(**parameters: Any) -> list[float]:
        fitted: NCMIClassifier = NCMIClassifier(**QUICK, **parameters).fit(X, Y)
        return fitted.loss_curve_

    assert curve(objective=FocalOptions(gamma=2.0)) == curve(objective="focal")
    assert curve(objective=FocalOptions(gamma=0.0)) == pytest.approx(curve(objective="cross_entropy"), rel=1e-5)
    assert curve(objective=NCMIOptions(temperature=0.9)) == curve(temperature=0.9)
    default = curve()
    for changed in (
        {"temperature": 0.9},
        {"centroids": "fixed"},
        {"anchors": "etf"},
        {"separation_power": -5.0},
        {"robustness": 0.5},
        {"form": "mean_of_ratios"},
        {"form": "mean_of_ratios", "separation_direction": "centroid_to_sample"},
        {"learning_rate": 1e-2},
        {"centroid_learning_rate": 1.0},
        {"weight_decay": 1.0},
        {"batch_size": 50},
        {"depth": 1},
    ):
        assert curve(**changed) != default, changed


def test_the_random_state_decides_everything_and_global_state_is_left_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what is looked at)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    threads = torch.get_num_threads()
    first = NCMIClassifier(**QUICK).fit(X, Y)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert before[2] == random.getstate()
    assert threads == torch.get_num_threads()
    torch.manual_seed(2)
    second = NCMIClassifier(**QUICK).fit(X, Y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    np.testing.assert_array_equal(first.predict_proba(X), second.fit(X, Y).predict_proba(X))
    other = NCMIClassifier(**{**QUICK, "random_state": 1}).fit(X, Y)
    assert not np.allclose(first.predict_proba(X), other.predict_proba(X))
    generator = np.random.RandomState(0)
    drawn = [NCMIClassifier(**{**QUICK, "random_state": generator}).fit(X, Y).loss_curve_ for _ in range(2)]
    assert drawn[0] == first.loss_curve_ != drawn[1]


def test_arrays_of_any_type_frames_and_lists_give_the_same() -> None:
    whole = np.round(X * 10).astype(np.int16)
    expected = NCMIClassifier(**QUICK).fit(whole, Y).predict_proba(whole)
    frame = pd.DataFrame(whole, columns=["a", "b", "c", "d"]).astype({"a": "int64", "b": "float64"})
    for inputs in (whole.astype(np.float32), whole.astype(np.float64), np.asfortranarray(whole), whole.tolist(), frame):
        fitted = NCMIClassifier(**QUICK).fit(inputs, Y)
        np.testing.assert_array_equal(fitted.predict_proba(inputs), expected)


@pytest.mark.parametrize("make", [np.asarray, lambda y: np.asarray(y, dtype=object), pd.Series, pd.Categorical, list])
def test_labels_are_given_back_as_they_came(make: Any) -> None:
    fitted = NCMIClassifier(**{**QUICK, "epochs": 20}).fit(X, make(NAMES[Y]))
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert set(fitted.predict(X)) <= set(NAMES)
    assert fitted.score(X, make(NAMES[Y])) > 0.8
    other = NCMIClassifier(**QUICK).fit(X, np.array([-5, 40, 7])[Y])
    assert other.classes_.tolist() == [-5, 7, 40]
    assert other.predict_proba(X).shape == (150, 3)


def test_columns_of_a_frame_are_remembered() -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    fitted = NCMIClassifier(**QUICK).fit(frame, Y)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert fitted.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize("readout", ["head", "cc", "lp"])
def test_few_samples_and_a_class_with_one(readout: Any) -> None:
    x, y = [[0.0, 1.0], [0.2, 1.0], [5.0, 1.0]], ["a", "a", "b"]
    fitted = NCMIClassifier(random_state=0, readout=readout).fit(x, y)
    assert fitted.predict(x).tolist() == y
    assert np.isfinite(fitted.predict_log_proba(x)).all()
    assert np.isfinite(fitted.predict_log_proba([[0.0, 0.0], [1e6, -1e6]])).all()


def test_anchors_fit_a_feature_of_any_width() -> None:
    x, y = make_blobs(300, centers=10, n_features=10, random_state=0)
    narrow = NCMIClassifier(feature_dim=4, epochs=20, learning_rate=1e-2, random_state=0).fit(x, y)
    assert narrow.feature_dim_ == narrow.model_.objective.feature_dim == 4
    assert narrow.score(x, y) > 0.95
    same = NCMIClassifier(**{**QUICK, "feature_dim": 4}).fit(x, y).loss_curve_
    assert same == NCMIClassifier(**{**QUICK, "feature_dim": 4}, anchors="etf").fit(x, y).loss_curve_
    wide = NCMIClassifier(**{**QUICK, "feature_dim": 10}).fit(x, y).loss_curve_
    assert wide == NCMIClassifier(**{**QUICK, "feature_dim": 10}, anchors="axis").fit(x, y).loss_curve_
    with pytest.raises(ValueError, match="D=4 is smaller than C=10: axis anchors need D ≥ C; use anchors='etf'"):
        NCMIClassifier(feature_dim=4, anchors="axis").fit(x, y)
    many = NCMIClassifier(epochs=1, width=8).fit(np.arange(280.0).reshape(-1, 1), np.arange(280) % 140)
    assert many.feature_dim_ >= 140
    assert many.predict_proba([[3.0]]).shape == (1, 140)


@pytest.mark.parametrize(
    "objective", ["ncmi", "cross_entropy", NCMIOptions(), CrossEntropyOptions(), "focal", "supcon", "cmic"]
)
def test_class_weights_weigh_the_loss(objective: Any) -> None:
    x, y = make_blobs([180, 20], cluster_std=4.0, random_state=0)
    options = {"epochs": 10, "width": 16, "learning_rate": 1e-2, "random_state": 0, "objective": objective}
    plain = NCMIClassifier(**options, readout="head").fit(x, y)
    balanced = NCMIClassifier(**options, class_weight="balanced").fit(x, y)
    given = NCMIClassifier(**options, class_weight={0: 200 / 360, 1: 200 / 40}).fit(x, y)
    assert balanced.readout_ == "head"
    assert balanced.loss_curve_ == pytest.approx(given.loss_curve_)
    assert recall_score(y, balanced.predict(x)) > recall_score(y, plain.predict(x)) + 0.1
    named = np.array(["common", "rare"])[y]
    by_name = NCMIClassifier(**options, class_weight={"common": 200 / 360, "rare": 200 / 40}).fit(x, named)
    assert by_name.loss_curve_ == given.loss_curve_


def test_weights_of_samples_are_shares_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights change nothing, weight 0 leaves out, and twice the weight is drawn twice as often."""
    plain = NCMIClassifier(**QUICK).fit(X, Y)
    for weights in (np.ones(150), np.full(150, 7), [2.0] * 150):
        same = NCMIClassifier(**QUICK).fit(X, Y, sample_weight=weights)
        np.testing.assert_array_equal(same.predict_proba(X), plain.predict_proba(X))
    kept = np.arange(150) % 3 > 0
    left_out = NCMIClassifier(**QUICK).fit(X, Y, sample_weight=kept.astype(int))
    np.testing.assert_array_equal(
        left_out.predict_proba(X), NCMIClassifier(**QUICK).fit(X[kept], Y[kept]).predict_proba(X)
    )
    drawn = np.zeros(150)
    step = TrainingStep.__call__

    def counted(self: TrainingStep, features: torch.Tensor, labels: torch.Tensor, **at: int) -> torch.Tensor:
        np.add.at(drawn, labels.numpy(), 1)
        return step(self, features, labels, **at)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    weights = np.array([1.0, 2.0, 5.5])[Y]
    NCMIClassifier(**QUICK).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(drawn[:3], 5 * 150 * np.array([1, 2, 5.5]) / 8.5, atol=5)
    for wrong, message in ((-np.ones(150), "Negative values"), (np.zeros(150), "zero"), (np.ones(9), "shape")):
        with pytest.raises(ValueError, match=message):
            NCMIClassifier(**QUICK).fit(X, Y, sample_weight=wrong)


def test_weighted_draws_take_floor_or_ceil_of_their_share() -> None:
    weights = torch.rand(97, generator=torch.Generator().manual_seed(0), dtype=torch.float64).masked_fill(
        torch.arange(97) % 5 == 0, 0.0
    )
    share, total = 97 * weights / weights.sum(), torch.zeros(97)
    for epoch in range(400):
        counts = torch.bincount(weighted_draws(weights, seed=3, epoch=epoch), minlength=97)
        assert counts.sum() == 97
        assert ((counts >= share.floor()) & (counts <= share.ceil())).all()
        total += counts
    torch.testing.assert_close(total.double() / 400, share, rtol=0, atol=0.1)
    assert torch.equal(weighted_draws(torch.full((6,), 0.1), seed=0, epoch=1), torch.arange(6))


def test_readouts_count_a_sample_as_its_weight_says() -> None:
    """CC and LP of the same features: weighted class means, and a weighted logistic regression."""
    weights = np.random.RandomState(0).randint(1, 6, size=150)
    cc = NCMIClassifier(**QUICK, readout="cc").fit(X, Y, sample_weight=weights)
    _, p = features_and_distributions(cc, X)
    means = np.stack([np.average(p[c == Y], axis=0, weights=weights[c == Y]) for c in range(3)])
    expected = probabilities_of(means, p, cc.model_.objective.likelihood_power)
    np.testing.assert_allclose(cc.predict_proba(X), expected, rtol=1e-8)
    lp = NCMIClassifier(**QUICK, readout="lp").fit(X, Y, sample_weight=weights)
    features = StandardScaler().fit_transform(features_and_distributions(lp, X)[0])
    reference = LogisticRegression(C=1 / (1e-3 * weights.sum()), tol=1e-8, max_iter=5000)
    reference.fit(features, Y, sample_weight=weights)
    np.testing.assert_allclose(lp.predict_proba(X), reference.predict_proba(features), atol=1e-4)


@pytest.mark.parametrize("objective", ["cross_entropy", "focal"])
def test_balanced_classes_count_the_weights(objective: str) -> None:
    weights = np.where(np.arange(150) % 2, 1.0, 3.0)
    share = np.bincount(Y, weights)
    by_class = dict(enumerate(share.sum() / (3 * share)))
    given = NCMIClassifier(**QUICK, objective=objective, class_weight=by_class).fit(X, Y, sample_weight=weights)
    balanced = NCMIClassifier(**QUICK, objective=objective, class_weight="balanced").fit(X, Y, sample_weight=weights)
    assert balanced.loss_curve_ == pytest.approx(given.loss_curve_, rel=1e-6)


def test_early_stopping_takes_the_best_epoch() -> None:
    options: dict[str, Any] = {**QUICK, "epochs": 60, "early_stopping": True, "n_iter_no_change": 4}
    fitted = NCMIClassifier(**options, validation_fraction=0.2).fit(X, NAMES[Y])
    scores = fitted.validation_scores_
    assert len(scores) == fitted.n_iter_ == len(fitted.loss_curve_) == int(np.argmax(scores)) + 5 < 60
    assert fitted.best_validation_score_ == max(scores)
    seed = int(check_random_state(0).randint(np.iinfo(np.int32).max))
    aside = train_test_split(np.arange(150), test_size=0.2, stratify=Y, random_state=seed)[1]
    assert fitted.score(X[aside], NAMES[Y][aside]) == pytest.approx(max(scores))
    assert fitted.score(X, NAMES[Y]) > 0.9
    assert not hasattr(fitted.set_params(early_stopping=False).fit(X, Y), "validation_scores_")


def test_early_stopping_needs_samples_of_each_class_on_both_sides() -> None:
    stopping = NCMIClassifier(**QUICK, early_stopping=True)
    few = np.append(Y[:100], 2)
    with pytest.raises(ValueError, match=r"class .*'virginica'.* has one sample.*early_stopping=False"):
        stopping.fit(X[:101], NAMES[few])
    rows = np.arange(8) * 18
    for fraction in (0.1, 0.9):
        with pytest.raises(ValueError, match=rf"validation_fraction={fraction} sets . of 8 samples aside.*3 classes"):
            stopping.set_params(validation_fraction=fraction).fit(X[rows], Y[rows])
    assert len(stopping.set_params(validation_fraction=0.4).fit(X[rows], Y[rows]).validation_scores_) > 0


def test_partial_fit_goes_on() -> None:
    def learned(**parameters: Any) -> NCMIClassifier:
        found = NCMIClassifier(**{**QUICK, "learning_rate": 1e-2, **parameters})
        for start in range(0, 8):
            rows = slice(start % 4, None, 4)
            found.partial_fit(X[rows], NAMES[Y][rows], **({} if start else {"classes": NAMES}))
        return found

    first = learned()
    assert first.n_iter_ == len(first.loss_curve_) == 8
    assert first.loss_curve_[-1] < first.loss_curve_[0]
    assert first.readout_ == "head"
    assert first.score(X, NAMES[Y]) > 0.8
    np.testing.assert_array_equal(first.predict_proba(X), learned().predict_proba(X))
    again = pickle.loads(pickle.dumps(first))
    for each in (first, again, copied := copy.deepcopy(first)):
        each.partial_fit(X, NAMES[Y])
    np.testing.assert_array_equal(again.predict_proba(X), first.predict_proba(X))
    np.testing.assert_array_equal(copied.predict_proba(X), first.predict_proba(X))
    # one class at a time, and after a fit
    fitted = NCMIClassifier(**QUICK, centroids="fixed").fit(X, Y)
    before = fitted.predict_proba(X)
    fitted.partial_fit(X[:50], Y[:50], sample_weight=np.ones(50))
    assert (fitted.n_iter_, fitted.readout_) == (6, "head")
    assert fitted.predict_proba(X)[:50, 0].mean() > before[50:, 0].mean()
    assert fitted.fit(X, Y).n_iter_ == 5
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


def test_partial_fit_moves_as_the_optimizer_does() -> None:
    """One full batch at a time: as torch's AdamW on the same network."""
    options: dict[str, Any] = {**QUICK, "batch_size": 150, "objective": "cross_entropy"}
    start = NCMIClassifier(**options, learning_rate=1e-30).partial_fit(X, Y, classes=[0, 1, 2])
    model = copy.deepcopy(start.model_).float().train()
    decayed = [p for p in model.trained_parameters() if p.dim() > 1]
    flat = [p for p in model.trained_parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-3)
    fitted, losses = NCMIClassifier(**options), []
    for _ in range(3):
        fitted.partial_fit(X, Y, classes=[0, 1, 2])
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model.objective.scores(model(torch.tensor(X).float())), torch.tensor(Y)
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(fitted.loss_curve_, losses, rtol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({}, {}, "classes must be passed on the first call to partial_fit"),
        ({}, {"classes": [0, 1]}, "label 2 is not in classes"),
        ({}, {"classes": [1]}, "only one class"),
        ({"early_stopping": True}, {"classes": [0, 1, 2]}, "does not support early_stopping=True"),
        ({"class_weight": "balanced"}, {"classes": [0, 1, 2]}, "give partial_fit a weight for each class"),
        ({"readout": "cc"}, {"classes": [0, 1, 2]}, "use partial_fit with readout='head'"),
    ],
)
def test_partial_fit_refuses(parameters: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NCMIClassifier(**QUICK, **parameters).partial_fit(X, Y, **arguments)
    fitted = NCMIClassifier(**QUICK).fit(X, Y)
    with pytest.raises(ValueError, match="classes are not those of the first call"):
        fitted.partial_fit(X, Y, classes=[0, 1, 2, 3])


def test_a_fitted_classifier_survives_pickle_copy_and_clone() -> None:
    for parameters in ({}, {"centroids": "fixed"}, {"centroids": "class_mean", "readout": "head"}):
        fitted = NCMIClassifier(**QUICK, **parameters).fit(X, Y)
        for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
            np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        bare = clone(fitted)
        assert bare.get_params() == fitted.get_params()
        with pytest.raises(NotFittedError):
            bare.predict(X)
    options = FocalOptions(gamma=3.0)
    assert clone(NCMIClassifier(objective=options)).objective == options


def test_pipeline_and_grid_search() -> None:
    pipeline = make_pipeline(StandardScaler(), NCMIClassifier(**{**QUICK, "epochs": 10}))
    grid = {"ncmiclassifier__objective": ["ncmi", "cross_entropy"], "ncmiclassifier__readout": ["head", "lp"]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring=["accuracy", "neg_log_loss"], refit="accuracy").fit(X, NAMES[Y])
    assert search.best_score_ > 0.8
    assert np.isfinite(search.cv_results_["mean_test_neg_log_loss"]).all()
    assert search.predict(X).shape == (150,)


def test_columns_with_a_large_offset_need_a_scaler_before() -> None:
    offset = X + 1e9  # float32 has steps of 64 there
    scaled = make_pipeline(StandardScaler(), NCMIClassifier(**{**QUICK, "epochs": 20}))
    assert scaled.fit(offset, Y).score(offset, Y) > 0.8


def test_it_writes_no_file_and_speaks_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted = NCMIClassifier(**QUICK).fit(X, Y)
    assert capsys.readouterr() == ("", "")
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 5
    verbose = NCMIClassifier(**QUICK, verbose=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"epoch {i + 1}/5: loss {loss:.4g}" for i, loss in enumerate(verbose.loss_curve_)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"readout": "knn"}, "unknown readout 'knn': use 'auto', 'head', 'cc' or 'lp'"),
        ({"objective": "hinge"}, "unknown objective 'hinge'; known: ncmi, cross_entropy"),
        ({"form": "sum"}, "form"),
        ({"temperature": -1.0}, "must be above 0"),
        ({"anchors": "cube"}, "use one of auto, axis, etf, random"),
        ({"robustness": 1.5}, "robustness=1.5: choose 0 .clean labels. to 1"),
        ({"robustness": 0.7, "form": "mean_of_ratios"}, "use it with form='likelihood', or 0"),
        ({"depth": 0}, "depth=0: must be at least 1, or None"),
        ({"width": 7.5}, "width=7.5: must be a whole number"),
        ({"epochs": "3"}, "epochs='3': must be a whole number"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1': must be a number"),
        ({"weight_decay": None}, "weight_decay=None: must be a number"),
        ({"temperature": "0.5"}, "temperature='0.5': must be a number"),
        ({"early_stopping": True, "n_iter_no_change": 1.5}, "n_iter_no_change=1.5: must be a whole number"),
        ({"early_stopping": True, "validation_fraction": "a"}, "validation_fraction='a': must be a number"),
        ({"width": 0}, "width=0: must be at least 1"),
        ({"feature_dim": 1}, "feature_dim=1: must be at least 2"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"batch_size": -3}, "batch_size=-3: must be at least 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"class_weight": {0: 1.0, 1: 1.0, 2: 0.0}}, "give weights above 0, or leave a class out"),
        ({"class_weight": {0: 1.0, 7: 2.0}}, "not in class_weight"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction=1.0, .*must be between 0 and 1"),
        ({"early_stopping": True, "n_iter_no_change": 0}, "n_iter_no_change=0: .*and at least 1"),
        ({"class_weight": {0: 1.0, 1: 1.0, 2: 0.0}, "objective": "cross_entropy"}, "give weights above 0"),
        ({"learning_rate": 1e30}, "lower the learning rate"),
    ],
)
def test_errors_name_the_cure(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NCMIClassifier(**{**QUICK, **parameters}).fit(X, Y)


class EndlessGradient(LinearHeadObjective):
    """A user's own objective, whose loss is 0 and whose gradient is not a number."""

    def criterion(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits * 0).sqrt().sum()


@dataclass(frozen=True)
class EndlessGradientOptions(ObjectiveOptions):
    target: ClassVar[str] = f"{__name__}:EndlessGradient"


def test_divergence_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is .* in epoch 1: lower learning_rate"):
        NCMIClassifier(**{**QUICK, "learning_rate": 1e30}, objective="cross_entropy").fit(X, Y)
    # no loss is computed on what the last step has made
    last = {**QUICK, "epochs": 1, "batch_size": 150}
    with pytest.raises(FloatingPointError, match="features are not finite in epoch 1: lower learning_rate"):
        NCMIClassifier(**last, objective=EndlessGradientOptions()).fit(X, Y)


def test_what_float32_cannot_hold_is_an_error() -> None:
    for bad in (np.nan, np.inf, 1e300):
        inputs = X.copy()
        inputs[3, 1] = bad
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            NCMIClassifier(**QUICK).fit(inputs, Y)


def test_a_single_class_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"only one class \(.*'a'.*\): a classifier needs samples of at least two"):
        NCMIClassifier(**QUICK).fit(X[:2], ["a", "a"])


def test_a_fit_that_fails_leaves_no_model_of_other_labels() -> None:
    fitted = NCMIClassifier(**QUICK).fit(X, Y)
    with pytest.raises(ValueError, match="only one class"):
        fitted.fit(X, np.full(len(Y), 9))
    with pytest.raises(NotFittedError):
        fitted.predict(X)


def mixed_frame(rows: int = 120) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, rows)
    frame = pd.DataFrame(
        {
            "size": np.where(random.random(rows) < 0.1, np.nan, y + random.normal(0, 0.6, rows)),
            "color": pd.Series(np.array(["red", "blue"])[(y + (random.random(rows) < 0.2)) % 2]),
            "big": y == (random.random(rows) < 0.7),
        }
    )
    return frame, y


def test_a_frame_of_mixed_columns_is_taken_as_it_is() -> None:
    frame, y = mixed_frame()
    model = NCMIClassifier(random_state=0, epochs=20).fit(frame, y)
    assert model.n_features_in_ == 3
    assert model.preprocessing_.feature_names == ("size", "big", "size missing", "color=blue", "color=red")
    assert model.score(frame, y) > 0.8
    again = pickle.loads(pickle.dumps(model))
    new = frame.head(4).assign(color=["red", "never seen", None, "blue"])
    with pytest.warns(UserWarning, match="1 row has a value of 'color' that training had not"):
        proba = model.predict_proba(new)
    with pytest.warns(UserWarning, match="'color'"):
        np.testing.assert_array_equal(again.predict_proba(new), proba)
    # the same numbers by hand
    numbers = np.asarray(model.preprocessing_.transform(frame.assign(big=frame["big"].astype(float))))
    assert numbers.shape == (120, 5)
    with pytest.raises(ValueError, match="color"):
        model.predict(frame.drop(columns="color"))
    assert model.fit(numbers, y).preprocessing_ is None


def test_the_index_of_a_frame_is_no_feature() -> None:
    frame, y = mixed_frame()
    plain = NCMIClassifier(**QUICK).fit(frame, y)
    levels = pd.MultiIndex.from_arrays([np.arange(120), frame["size"]], names=["patient", "size"])
    for named in (frame.rename_axis("patient"), frame.set_index(levels)):
        fitted = NCMIClassifier(**QUICK).fit(named, y)
        assert fitted.preprocessing_ == plain.preprocessing_
        for new in (named, frame):
            np.testing.assert_array_equal(fitted.predict_proba(new), plain.predict_proba(frame))


def test_gaps_in_a_frame_of_numbers_are_filled_with_medians() -> None:
    """Where training has none, and where it has; which columns count does not follow it."""
    columns = ["a", "b", "patient id", "flag"]
    whole = pd.DataFrame(np.column_stack([X[:, :2], 3 * np.arange(150)]), columns=columns[:3]).assign(flag=Y == 1)
    gaps = whole.astype({"flag": float}).copy()
    gaps.loc[7, "b"], gaps.loc[8, "a"] = np.nan, np.nan
    medians = whole.astype(float).median()
    fitted = NCMIClassifier(**QUICK).fit(whole, Y)
    assert fitted.preprocessing_ is None
    np.testing.assert_array_equal(fitted.predict_proba(gaps), fitted.predict_proba(gaps.fillna(medians)))
    np.testing.assert_array_equal(fitted.predict_proba(gaps.astype("Float64")), fitted.predict_proba(gaps))
    fitted.partial_fit(gaps, Y)
    with pytest.raises(ValueError, match="NaN"):  # scikit-learn's rule for arrays
        NCMIClassifier(**QUICK).fit(whole.to_numpy(float), Y).predict(gaps.to_numpy(float))
    with_gaps = NCMIClassifier(**QUICK).fit(gaps, Y)
    assert with_gaps.preprocessing_.feature_names == (*columns, "a missing", "b missing")
    assert np.isfinite(with_gaps.predict_proba(whole.astype(float))).all()
    scores = cross_val_score(
        NCMIClassifier(**QUICK), gaps, Y, cv=KFold(3, shuffle=True, random_state=0), error_score="raise"
    )
    assert len(scores) == 3


def test_what_a_run_notes_of_a_frame_is_one_warning() -> None:
    frame, y = mixed_frame()
    dates = pd.Series(["01/02/2020", "03/04/2021"] * 60)
    thousands = pd.Series([f"{1 + i % 9},{100 + i % 7}" for i in range(120)])
    doubtful = frame.assign(
        number=["oops", *map(str, range(119))], far=[np.inf, *range(119)], seen=dates, thousands=thousands
    )
    with pytest.warns(UserWarning, match="columns of the frame") as caught:
        model = NCMIClassifier(**QUICK).fit(doubtful, y)
    assert [warning.filename for warning in caught] == [__file__]
    said = str(caught[0].message)
    for part in (
        "1 values of 'number' are no numbers ('oops')",
        "1 values of 'far' are infinite",
        "dates in 'seen'",
        "'thousands'",
    ):
        assert said.count(part) == 1, part
    assert said.count("'far'") == said.count("'number'") == 1
    assert "--" not in said
    unreadable = doubtful.assign(number="n/k", color="green", far=[np.inf, -np.inf, *range(118)])
    for decide in (model.predict, model.predict_proba, lambda new: model.score(new, y)):
        with pytest.warns(UserWarning, match="columns of the frame") as caught:
            decide(unreadable)
        assert len(caught) == 1
        said = str(caught[0].message)
        for part in ("120 values of 'number'", "2 values of 'far'", "120 rows have a value of 'color'"):
            assert part in said
    numbers = frame[["size"]].fillna(0.0).assign(other=range(120))
    clean = NCMIClassifier(**QUICK).fit(numbers, y)
    with pytest.warns(UserWarning, match="1 values of 'other' are infinite"):
        clean.predict(numbers.assign(other=[np.inf, *range(119)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NCMIClassifier(**QUICK).fit(frame, y).score(frame, y)
        clean.score(numbers, y)
        with pytest.raises(ValueError, match="'other', row 0"):
            clean.predict(numbers.assign(other=1e300))


def test_errors_of_a_frame_name_cures_that_it_has() -> None:
    frame, y = mixed_frame()
    with pytest.raises(ValueError, match=r"column 'tags' holds lists.*X\.drop\(columns=") as caught:
        NCMIClassifier(**QUICK).fit(frame.assign(tags=[[1, 2]] * 120), y)
    assert "--" not in str(caught.value)


def test_what_is_left_out_of_a_frame_is_warned_of() -> None:
    frame, y = mixed_frame()
    names = frame.assign(name=[f"someone number {i}" for i in range(120)])
    with pytest.warns(UserWarning, match="'name'"):
        model = NCMIClassifier(random_state=0, epochs=2).fit(names, y)
    assert not any("name" in feature for feature in model.preprocessing_.feature_names)
    with pytest.raises(ValueError, match="'name'"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        NCMIClassifier(epochs=2).fit(names[["name"]], y)

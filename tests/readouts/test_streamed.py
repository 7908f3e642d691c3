"""Scores, moments and the linear probe of batches come to what they are of all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ncmi.readouts.calibration import apply_temperature, negative_log_likelihood, reliability
from ncmi.readouts.linear_probe import LinearProbe, Moments
from ncmi.readouts.scores import calibration_error, judge
from ncmi.readouts.streamed import StreamedScores


@pytest.mark.parametrize(("classes", "absent"), [(2, False), (12, False), (12, True)])
def test_as_of_all_at_once(classes: int, absent: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes - absent, (700,), generator=generator)
    logits = torch.randn(700, classes, generator=generator)
    logits[torch.arange(700), labels] += 1.5
    log_p, names = logits.log_softmax(1), [f"class {c}" for c in range(classes)]
    streamed, temperature = StreamedScores(classes, temperature=1.7), 1.7
    for rows, of_rows in zip(log_p.split(99), labels.split(99), strict=True):
        streamed.update(rows, of_rows)
    streamed.gather(torch.device("cpu"))
    scores, whole = streamed.compute(names), judge(log_p, labels, names)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert getattr(scores, name).value == pytest.approx(getattr(whole, name).value, abs=1e-12)
    assert scores.macro_auc.value == pytest.approx(whole.macro_auc.value, abs=1e-3)
    for name in ("top5_accuracy", "nll", "brier", "calibration_error"):
        assert getattr(scores, name) == pytest.approx(getattr(whole, name), abs=1e-12)
    assert (scores.classes, scores.confusions, scores.samples) == (whole.classes, whole.confusions, whole.samples)
    assert scores.notes[: len(whole.notes)] == whole.notes
    calibrated = apply_temperature(log_p.double(), temperature)
    assert streamed.calibrated_nll() == pytest.approx(negative_log_likelihood(calibrated, labels))
    assert calibration_error(streamed.reliability(calibrated=True)) == pytest.approx(
        calibration_error(reliability(calibrated, labels))
    )


def test_nothing_to_judge() -> None:
    scores = StreamedScores(3)
    scores.gather(torch.device("cpu"))
    with pytest.raises(ValueError, match="no sample"):
        scores.compute(["a", "b", "c"])


def test_moments() -> None:
    features = np.random.default_rng(0).normal(3, [0.1, 2, 0, 5], (300, 4))
    features[:, 3] += features[:, 1]
    moments = Moments(4)
    for rows in torch.from_numpy(features).split(70):
        moments.update(rows)
    mean, scale, correlation = (value.numpy() for value in moments.standard())
    np.testing.assert_allclose(mean, features.mean(0))
    np.testing.assert_allclose(scale, [*features.std(0)[:2], 1, features.std(0)[3]])
    varying = [0, 1, 3]
    np.testing.assert_allclose(correlation[np.ix_(varying, varying)], np.corrcoef(features[:, varying].T), atol=1e-9)
    assert not correlation[2].any()


def test_linear_probe_of_a_stream_comes_near_the_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(20, 20, generator=generator)
    centers = torch.randn(5, 20, generator=generator)
    labels = torch.randint(5, (6000,), generator=generator)
    features = (centers[labels] + 1.5 * torch.randn(6000, 20, generator=generator)) @ mixing + 7
    moments, order = Moments(20), torch.randperm(6000, generator=generator)
    moments.update(features)
    probe = LinearProbe(5, 20).fit_stream(
        lambda: ((features[rows], labels[rows]) for rows in order.split(500)),
        moments,
        passes=50,
        batches_per_pass=12,
        batches_per_step=2,
    )
    best = LinearProbe(5, 20, solver="lbfgs").fit(features, labels)
    assert (probe.samples, probe.iterations) == (6000, 300)
    losses = [float(cross_entropy(each.logits(features), labels)) for each in (probe, best)]
    assert losses[0] < losses[1] + 0.005

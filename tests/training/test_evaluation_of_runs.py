"""Scores of the read-outs against scikit-learn, and what a run says about machine and memory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, top_k_accuracy_score
from training_helpers import make_recipe

from ncmi.calibration import fit_temperature
from ncmi.training import environment, memory
from ncmi.training.environment import describe_environment
from ncmi.training.evaluate import (
    Features,
    accuracy,
    evaluate_readouts,
    fit_readouts,
    log_probabilities,
    scores_of,
)
from ncmi.training.memory import mark_peak, peak_megabytes
from ncmi.training.model import Model, Signature


def calibration_error(p: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], bins: int = 15) -> float:
    confidence, hit = p.max(1), p.argmax(1) == labels
    where = np.clip((confidence * bins).astype(int), 0, bins - 1)
    parts = [where == b for b in range(bins)]
    return float(sum(abs(hit[part].mean() - confidence[part].mean()) * part.mean() for part in parts if part.any()))


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_scores_are_scikit_learns(classes: int) -> None:
    log_p = torch.log_softmax(2 * torch.randn(400, classes), dim=-1)
    labels = torch.multinomial(log_p.exp().sqrt(), 1).squeeze(1)
    labels[: 2 * classes] = torch.arange(2 * classes) % classes
    predicted, p = log_p.argmax(-1), log_p.exp().numpy()
    found = scores_of(log_p, labels)
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "calibration_error": calibration_error(p, labels.numpy()),
        "nll": -np.log(p.astype(np.float64))[np.arange(len(p)), labels].mean(),
        "brier": ((p - np.eye(classes)[labels]) ** 2).sum(1).mean(),
    }
    if classes >= 10:
        expected["top5_accuracy"] = top_k_accuracy_score(labels, p, k=5)
    assert found == pytest.approx(expected, abs=1e-6)
    assert accuracy(log_p, labels) == pytest.approx(expected["accuracy"])


def test_a_probability_that_rounds_to_more_than_one() -> None:
    # it once made softmax of all probabilities, and of a calibration error of 0 one of 0.4
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0 + 2e-7, 0.0]])
    labels = torch.tensor([0, 1, 0])
    assert scores_of(p.log().clamp_min(-80), labels)["calibration_error"] == pytest.approx(0.0, abs=1e-6)


def random_part(seed: int, count: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return Features(2 * torch.eye(8)[labels] + torch.randn(count, 8, generator=generator), labels)


def test_the_temperature_is_chosen_on_validation_and_judged_on_test() -> None:
    model = Model(make_recipe(), Signature("table", (13,), ("a", "b", "c"), None)).eval()
    parts = {name: random_part(seed, 90) for seed, name in enumerate(("train", "validation", "test"))}
    judged = evaluate_readouts(model, parts)
    neighbours = fit_readouts(model, parts["train"])
    seen = {name: log_probabilities(model, neighbours, part) for name, part in parts.items()}
    for readout, found in judged.readouts.items():
        tau = fit_temperature(seen["validation"][readout], parts["validation"].labels)
        assert found["temperature_scale"] == pytest.approx(tau, rel=1e-6)
        assert tau != pytest.approx(fit_temperature(seen["test"][readout], parts["test"].labels), rel=1e-3)
        p = np.exp(seen["test"][readout].double().numpy() / tau)
        p /= p.sum(1, keepdims=True)
        labels = parts["test"].labels.numpy()
        assert found["test_calibrated_nll"] == pytest.approx(log_loss(labels, p, labels=range(3)), rel=1e-5)
        assert found["test_calibrated_error"] == pytest.approx(calibration_error(p, labels), abs=1e-6)
        assert judged.reliability[readout]["calibrated"].error == pytest.approx(
            found["test_calibrated_error"], abs=1e-6
        )
        assert judged.reliability[readout]["test"].error == pytest.approx(found["test_calibration_error"], abs=1e-6)
        assert torch.equal(judged.predictions[readout], seen["test"][readout].argmax(1))
    plain = judged.plain_reliability()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain

    del parts["validation"]
    without = evaluate_readouts(model, parts)
    for readout, found in without.readouts.items():
        expected = judged.readouts[readout]
        kept = {name for name in expected if name.startswith("test") and "calibrated" not in name}
        assert found == pytest.approx({name: expected[name] for name in kept}, rel=1e-6)
        assert list(without.reliability[readout]) == ["test"]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_environment(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert "×" in found["cpu"] or not Path("/proc/cpuinfo").exists()
    assert all(value is None or isinstance(value, str | int) for value in found.values())
    assert describe_environment(torch.device("cpu"))["commit"] == found["commit"]
    monkeypatch.setattr(environment, "_PACKAGES", ("no-such-package",))

    def no_git(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(subprocess, "run", no_git)
    found = describe_environment(torch.device("cpu"))
    assert found["no-such-package"] is None
    assert found["commit"] is None
    # neither a checkout nor Linux
    monkeypatch.setattr(environment, "Path", lambda _: Path("/nowhere/a/b/c/d/e"))
    found = describe_environment(torch.device("cpu"))
    assert found["commit"] is None
    assert isinstance(found["cpu"], str)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_of_the_time_since_the_mark() -> None:
    cpu = torch.device("cpu")
    mark_peak(cpu)
    before = peak_megabytes(cpu)
    block = torch.ones(50_000_000)
    during = peak_megabytes(cpu)
    assert during - before == pytest.approx(200, abs=20)
    del block
    mark_peak(cpu)
    assert during - peak_megabytes(cpu) > 150


def test_peak_memory_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere"))
    mark_peak(torch.device("cpu"))
    assert peak_megabytes(torch.device("cpu")) > 50


def test_a_container_may_forbid_to_reset_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path)  # a folder: writing to it fails
    mark_peak(torch.device("cpu"))
    assert peak_megabytes(torch.device("cpu")) > 50

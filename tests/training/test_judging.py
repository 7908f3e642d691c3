"""How read-outs are judged: scores against scikit-learn's, temperatures chosen on one part and used on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)
from training_helpers import make_recipe

from ncmi.data.load import load_dataset
from ncmi.data.signature import Signature
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, ObjectiveOptions
from ncmi.readouts.calibration import fit_temperature
from ncmi.readouts.scores import calibration_error, judge
from ncmi.training import evaluation
from ncmi.training.evaluation import evaluate_run
from ncmi.training.judging import Features, fit_readouts, judge_readouts, log_probabilities
from ncmi.training.model import Classifier
from ncmi.training.prediction import predict
from ncmi.training.run import train
from ncmi.training.schema import Readout, read_record, write_record


def naive_calibration_error(p: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], bins: int = 15) -> float:
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
    scores = judge(log_p, labels, [str(c) for c in range(classes)])
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "macro_auc": roc_auc_score(labels, p[:, 1] if classes == 2 else p / p.sum(1, keepdims=True), multi_class="ovr"),
        "calibration_error": naive_calibration_error(p, labels.numpy()),
        "nll": -np.log(p.astype(np.float64))[np.arange(len(p)), labels].mean(),
        "brier": ((p - np.eye(classes)[labels]) ** 2).sum(1).mean(),
    }
    if classes >= 10:
        expected["top5_accuracy"] = top_k_accuracy_score(labels, p, k=5)
    values = {name: getattr(scores, name) for name in expected}
    assert {name: getattr(value, "value", value) for name, value in values.items()} == pytest.approx(expected, abs=1e-6)
    assert (scores.top5_accuracy is None) == (classes < 10)
    # without groups there are no intervals
    assert (scores.groups, scores.resamples, scores.accuracy.low) == (None, 0, None)


def test_a_probability_that_rounds_to_more_than_one() -> None:
    # it once made softmax of all probabilities, and of a calibration error of 0 one of 0.4
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0 + 2e-7, 0.0]])
    labels = torch.tensor([0, 1, 0])
    assert judge(p.log().clamp_min(-80), labels, ["a", "b"]).calibration_error == pytest.approx(0.0, abs=1e-6)


def random_part(seed: int, count: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return Features(2 * torch.eye(8)[labels] + torch.randn(count, 8, generator=generator), labels)


def test_the_temperature_is_chosen_on_validation_and_judged_on_test(tmp_path: Path) -> None:
    signature = Signature(kind="table", sample_shape=(13,), class_names=("a", "b", "c"))
    model = Classifier(make_recipe(), signature).eval()
    parts = {name: random_part(seed, 90) for seed, name in enumerate(("train", "validation", "test"))}
    judged = judge_readouts(model, parts, signature.class_names)
    neighbors = fit_readouts(model, parts["train"])
    seen = {name: log_probabilities(model, neighbors, part) for name, part in parts.items()}
    assert set(judged.readouts) == {"head", "cc", "lp", "knn"}
    for name, readout in judged.readouts.items():
        tau = fit_temperature(seen["validation"][name], parts["validation"].labels)
        assert readout.calibration.temperature == pytest.approx(tau, rel=1e-6)
        assert tau != pytest.approx(fit_temperature(seen["test"][name], parts["test"].labels), rel=1e-3)
        p = np.exp(seen["test"][name].double().numpy() / tau)
        p /= p.sum(1, keepdims=True)
        labels = parts["test"].labels.numpy()
        assert readout.calibration.nll == pytest.approx(log_loss(labels, p, labels=range(3)), rel=1e-5)
        assert readout.calibration.calibration_error == pytest.approx(naive_calibration_error(p, labels), abs=1e-6)
        of_bins = {part: calibration_error(reliability) for part, reliability in readout.reliability.items()}
        assert of_bins == pytest.approx(
            {"test": readout.test.calibration_error, "calibrated": readout.calibration.calibration_error}, abs=1e-6
        )
        assert torch.equal(judged.log_p["test"][name].argmax(1), seen["test"][name].argmax(1))
        validation = judge(seen["validation"][name], parts["validation"].labels, "abc", per_class=False)
        assert readout.validation == validation
        write_record(tmp_path / "readout.json", readout)
        assert read_record(tmp_path / "readout.json", Readout) == readout

    del parts["validation"]
    without = judge_readouts(model, parts, signature.class_names)
    for name, readout in without.readouts.items():
        assert readout.test == judged.readouts[name].test
        assert (readout.validation, readout.calibration, list(readout.reliability)) == (None, None, ["test"])


def test_information_holds_both_separations(tmp_path: Path) -> None:
    information = train(make_recipe(), tmp_path / "run").information
    assert information.ncmi == pytest.approx(information.cmi / information.separation)
    assert information.cross_entropy_ncmi == pytest.approx(information.cmi / information.cross_entropy_separation)
    assert information.cross_entropy_separation != pytest.approx(information.separation)


@pytest.mark.parametrize(
    ("objective", "own"), [(CrossEntropyOptions(), "head"), (NCMIOptions(centroids="fixed"), "cc")]
)
def test_a_run_judged_by_its_own_read_out_alone(objective: ObjectiveOptions, own: str, tmp_path: Path) -> None:
    whole = train(make_recipe(objective), tmp_path / "whole")
    results = train(make_recipe(objective, readouts="own"), tmp_path / "own")
    assert results.primary_readouts == [own] == list(results.readouts)
    assert results.readouts[own] == whole.readouts[own]
    evaluation = evaluate_run(tmp_path / "own")
    assert list(evaluation.readouts) == [own]
    # what was never fitted decides nothing
    table = tmp_path / "new.csv"
    features = load_dataset("wine")
    names = ",".join(features.feature_names)
    table.write_text(names + "\n" + ",".join(str(float(value)) for value in features.inputs[0]) + "\n")
    for readout in ("lp", "knn"):
        with pytest.raises(ValueError, match=r"training\.readouts own"):
            predict(tmp_path / "own", table, tmp_path / "out.csv", readout=readout)
    other: Any = "cc" if own == "head" else "head"
    with pytest.raises(ValueError, match=r"without --calibrated"):
        predict(tmp_path / "own", table, tmp_path / "out.csv", readout=other, calibrated=True)
    assert not (tmp_path / "out.csv").exists()
    predict(tmp_path / "own", table, tmp_path / "out.csv")
    predict(tmp_path / "whole", table, tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_run_without_its_data_says_by_what_it_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone(folder: Any) -> Any:
        raise OSError("the data is gone")

    monkeypatch.setattr(evaluation, "open_own_source", gone)
    for readouts, said in (("own", False), ("all", True)):
        train(make_recipe(readouts=readouts), tmp_path / readouts)
        found = evaluate_run(tmp_path / readouts, on="wine")
        (note,) = (note for note in found.notes if "the data is gone" in note)
        assert ("LP" in note) is ("lp" in found.readouts) is said

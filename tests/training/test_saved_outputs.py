"""Outputs that a user saved: every kind of file gives the same measures, bad ones an error and nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ncmi
from ncmi.data.saved_outputs import read_outputs
from ncmi.loss.forms import FeatureLength
from ncmi.training.evaluation import measure_file

LOGITS = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(60) % 5


def save_npz(path: Path) -> Path:
    np.savez(path, logits=LOGITS.numpy(), labels=LABELS.numpy())
    return path


def expected() -> tuple[float, float]:
    """CMI and Γ (centroid KL) by the definitions, sample by sample."""
    p = torch.softmax(LOGITS, 1)
    centroids = torch.stack([p[c == LABELS].mean(0) for c in range(5)])

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum(-1)

    cmi = kl(p, centroids[LABELS]).mean()
    gamma = sum(float(kl(centroids[c], p[i])) for i in range(60) for c in range(5) if c != LABELS[i]) / 5 / 60
    return float(cmi), gamma


SAVERS: dict[str, Callable[[Path], Path]] = {
    "a.npz": save_npz,
    "a.safetensors": lambda path: save_file({"logits": LOGITS, "targets": LABELS}, path) or path,
    "a.pt": lambda path: torch.save({"logits": LOGITS, "y": LABELS, "epoch": 3}, path) or path,
}


@pytest.mark.parametrize("name", SAVERS)
def test_measures_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    measured = measure_file(SAVERS[name](tmp_path / name))
    assert (measured.information.cmi, measured.information.separation) == pytest.approx(expected(), rel=1e-10)
    assert measured.values == "logits"


@pytest.mark.parametrize("kind", ["npy", "txt", "csv", "npz", "pt"])
def test_labels_in_a_file_of_their_own(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", LOGITS.numpy())
    labels = tmp_path / f"labels.{kind}"
    if kind == "npy":
        np.save(labels, LABELS.numpy())
    elif kind == "npz":
        np.savez(labels, LABELS.numpy())
    elif kind == "pt":
        torch.save(LABELS, labels)
    else:
        labels.write_text("\n".join(map(str, LABELS.tolist())))
    measured = measure_file(tmp_path / "logits.npy", labels_file=labels)
    assert (measured.information.cmi, measured.information.separation) == pytest.approx(expected(), rel=1e-10)


def test_half_precision_is_read(tmp_path: Path) -> None:
    torch.save({"logits": LOGITS.bfloat16(), "labels": LABELS}, tmp_path / "half.pt")
    _, outputs, _ = read_outputs(tmp_path / "half.pt")
    assert np.array_equal(outputs, LOGITS.bfloat16().float().numpy())


class Hostile:
    """Unpickled in the usual way it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_hostile_file_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"logits": LOGITS, "labels": LABELS, "more": Hostile(marker)}, tmp_path / "hostile.pt")
    np.savez(tmp_path / "hostile.npz", logits=np.array([Hostile(marker)], dtype=object), labels=LABELS.numpy())
    with pytest.raises(ValueError, match=r"hostile\.pt: holds more than tensors, or is damaged; nothing was executed"):
        read_outputs(tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match=r"hostile\.npz: not a readable \.npz"):
        read_outputs(tmp_path / "hostile.npz")
    assert not marker.exists()
    with pytest.raises(ValueError, match="never unpickled") as caught:
        read_outputs(tmp_path / "hostile.npz")
    assert "unsafely" not in str(caught.value)
    torch.load(tmp_path / "hostile.pt", weights_only=False)  # it is hostile indeed
    assert marker.exists()


@pytest.mark.parametrize("name", SAVERS)
def test_truncated_files(name: str, tmp_path: Path) -> None:
    whole = SAVERS[name](tmp_path / name).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        (tmp_path / name).write_bytes(whole[:size])
        with warnings.catch_warnings(), pytest.raises(ValueError, match="write numpy"):
            warnings.simplefilter("error")
            read_outputs(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))}, "holds the arrays a, b: call the outputs logits"),
        ({"logits": np.zeros((4, 2))}, "or give the labels by --labels FILE"),
        ({"logits": np.zeros((4, 2)), "labels": np.zeros(3, int)}, r"expected \[N, D\] and \[N\]"),
        ({"logits": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "N ≥ 1"),
        ({"logits": np.zeros((4, 2)), "labels": np.zeros(4)}, "expected floats and integers"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_outputs(tmp_path / "a.npz")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: give a file with outputs and labels"):
        read_outputs(tmp_path / "none.npz")
    (tmp_path / "a.mat").write_text("")
    with pytest.raises(ValueError, match=r"files of type \.mat are not read: write numpy\.savez"):
        read_outputs(tmp_path / "a.mat")


def test_numbers_of_classes_may_have_gaps(tmp_path: Path) -> None:
    places = torch.tensor([0, 3, 90_000, 7, 2])
    np.savez(tmp_path / "a.npz", logits=LOGITS.numpy(), labels=places[LABELS].numpy())
    measured = measure_file(tmp_path / "a.npz")
    assert measured.information.cmi == pytest.approx(expected()[0], rel=1e-10)
    by_class = ncmi.measure(LOGITS.log_softmax(1), LABELS, 5).per_class_cmi
    assert len(measured.class_cmi) == 90_001
    found = [value for value in measured.class_cmi if value is not None]
    assert found == pytest.approx(by_class[[0, 4, 1, 3, 2]].tolist())


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("wrong", [-1, 10**9])
def test_labels_that_are_no_numbers_of_classes(wrong: int, beside: bool, tmp_path: Path) -> None:
    labels = LABELS.numpy().copy()
    labels[7] = wrong
    file, given = tmp_path / "a.npz", tmp_path / "y.npy"
    np.savez(file, logits=LOGITS.numpy(), labels=LABELS.numpy() if beside else labels)
    np.save(given, labels)
    with pytest.raises(
        ValueError, match=rf"{'y.npy' if beside else 'a.npz'}: labels run .*{wrong}.* 0 … C − 1"
    ) as caught:
        measure_file(file, labels_file=given if beside else None)
    assert "ignore_index" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", np.nan, r"logits: 1 of 60 rows hold NaN or infinity, the first of them row 3"),
        ("logits", -np.inf, r"logits: 1 of 60 rows hold NaN or infinity"),
        ("features", np.inf, r"features: 1 of 60 rows hold NaN or infinity"),
        ("probabilities", 0.5, "--values logits"),
        ("log_p", 0.5, "--values logits"),
    ],
)
def test_outputs_that_are_not_what_they_are_called(name: str, value: float, message: str, tmp_path: Path) -> None:
    outputs = LOGITS.numpy().copy()
    outputs[3, 1] = value
    np.savez(tmp_path / "a.npz", **{name: outputs}, labels=LABELS.numpy())
    with pytest.raises(ValueError, match=rf"a\.npz, array '{name}' taken as .*{message}") as caught:
        measure_file(tmp_path / "a.npz")
    assert "log_softmax" not in str(caught.value)


def test_labels_of_their_own_file_are_called_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", LOGITS.numpy())
    np.save(tmp_path / "short.npy", LABELS.numpy()[:9])
    (tmp_path / "bad.npy").write_bytes(b"none")
    torch.save(LABELS.double(), tmp_path / "real.pt")
    for name in ("short.npy", "bad.npy", "real.pt", "none.npy"):
        with pytest.raises((ValueError, FileNotFoundError), match=name) as caught:
            read_outputs(tmp_path / "x.npy", tmp_path / name)
        said = str(caught.value)
        assert "labels" in said or "whole numbers" in said
        assert "logits" not in said


@pytest.mark.parametrize("length", ["own", "common", 2.5])
def test_features_by_the_length_asked_for(length: FeatureLength, tmp_path: Path) -> None:
    features, labels = torch.randn(40, 6), torch.arange(40) % 4
    np.savez(tmp_path / "f.npz", features=features.numpy(), labels=labels.numpy())
    measured = measure_file(tmp_path / "f.npz", temperature=0.3, feature_length=length)
    log_p = ncmi.to_log_distribution(features, None, 0.3, feature_length=length)
    assert measured.information.cmi == pytest.approx(ncmi.measure(log_p, labels, 4).cmi, rel=1e-6)
